//! `repeaterd doctor`: what keeps this station from its work, each with its mend: configuration, certificates, disk, clock,
//! every hostapd, every archive endpoint, and the daemon. It changes nothing, and looks whether or not the daemon runs.
//!
//! A judge is a pure function of what was read. A finding is good, worth knowing, or bad; the exit code is 1 where any is
//! bad. An archive is asked by a handshake with our own certificate: who answers it would take footage.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use link::credentials::Credentials;
use link::quic::{Dialer, Hop, Options};
use link::seams::Seams;
use link::tasks::current_thread;
use protocol::identity::Role;
use protocol::ids::Time;
use serde::Serialize;

use crate::cli::fetch;
use crate::config::Config;
use crate::limits;
use crate::run::key_list;
use crate::trusted_time::{self, Known, TimeState};

/// What a finding on the configuration itself is about.
const CONFIG: &str = "config";

/// How it is with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Good,
    Notice,
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Configuration, certificates, disk, clock, hostapd, archive or daemon.
    about: &'static str,
    state: State,
    what: String,
    /// Nothing is to be mended where it is good.
    mend: Option<String>,
}

impl Finding {
    /// The same without what it may quote of the configuration.
    pub(crate) fn without_quotes(self) -> Finding {
        if self.about != CONFIG || self.state == State::Good {
            return self;
        }
        let what = "it cannot be used; why is told at the station only, as it may quote the file";
        Finding {
            what: what.into(),
            ..self
        }
    }

    fn good(about: &'static str, what: String) -> Finding {
        Finding {
            about,
            state: State::Good,
            what,
            mend: None,
        }
    }

    fn bad(about: &'static str, what: String, mend: &str) -> Finding {
        Finding {
            about,
            state: State::Bad,
            what,
            mend: Some(mend.to_owned()),
        }
    }

    fn notice(about: &'static str, what: String, mend: &str) -> Finding {
        Finding {
            state: State::Notice,
            ..Finding::bad(about, what, mend)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.state {
            State::Good => "ok",
            State::Notice => "note",
            State::Bad => "BAD",
        };
        writeln!(f, "{word:5} {:12} {}", self.about, self.what)?;
        match &self.mend {
            Some(mend) => writeln!(f, "{:18} -> {mend}", ""),
            None => Ok(()),
        }
    }
}

/// Looks at all of it and prints what it found.
pub(crate) fn doctor(path: &Path, json: bool, page: Option<SocketAddr>) -> ExitCode {
    let found = look(path, page);
    if json {
        println!("{}", serde_json::json!({ "findings": found }));
    } else {
        found.iter().for_each(|f| print!("{f}"));
    }
    let bad = found.iter().any(|f| f.state == State::Bad);
    ExitCode::from(u8::from(bad))
}

/// Looks at all of it.
pub(crate) fn look(path: &Path, page: Option<SocketAddr>) -> Vec<Finding> {
    match Config::load(path) {
        Ok(config) => {
            let mut found = vec![Finding::good(CONFIG, format!("{}", path.display()))];
            found.extend(examine(&config, page.unwrap_or(config.http)));
            found
        }
        Err(e) => vec![Finding::bad(
            CONFIG,
            format!("{}: {e}", path.display()),
            "run `repeaterd check` on it, which shows the place",
        )],
    }
}

fn examine(config: &Config, page: SocketAddr) -> Vec<Finding> {
    let seams = Seams::system();
    let now = seams.clock.is_set().then(|| seams.clock.now());
    let credentials = Credentials::load(&config.credentials, Role::Repeater);
    let mut found = vec![match &credentials {
        Ok(c) => judge_certificate(&c.own.identity.to_string(), c.own.not_after, now),
        Err(e) => {
            let what = format!("{}: {}", e.path.display(), e.what);
            Finding::bad("certificates", what, &e.mend)
        }
    }];
    if let Ok(credentials) = &credentials {
        found.push(match key_list(&config.key_list, &credentials.trust) {
            Ok(list) => Finding::good("certificates", format!("key list {}", list.number())),
            Err(e) => Finding::bad(
                "certificates",
                format!("{e:#}"),
                "fetch the key list again from the agency",
            ),
        });
    }
    found.push(disk(config));
    found.extend(disk_key(&said_of_disk_key()));
    found.push(clock(config, &seams));
    found.extend(
        config
            .discover
            .hostapds
            .iter()
            .map(|h| hostapd(config, &h.socket)),
    );
    if let Ok(credentials) = credentials {
        found.extend(archives(config, &seams, credentials));
    }
    found.push(daemon(page));
    found
}

fn judge_certificate(who: &str, until: Time, now: Option<Time>) -> Finding {
    let about = "certificates";
    let Some(now) = now else {
        return Finding::notice(
            about,
            format!("{who}, whose end cannot be judged without a clock"),
            "see the clock",
        );
    };
    let days = until.secs().saturating_sub(now.secs()) / 86_400;
    let what = format!("{who}, for {days} days");
    match days {
        0 => Finding::bad(
            about,
            format!("{who} has ended, or ends today"),
            "have it signed anew (agency csr, agency sign): no peer takes it",
        ),
        1..100 => Finding::notice(about, what, "have it signed anew (agency csr, agency sign)"),
        _ => Finding::good(about, what),
    }
}

fn disk(config: &Config) -> Finding {
    let dir = &config.spool_dir;
    // Before the first start there is no spool yet.
    let there = dir.ancestors().find(|p| p.is_dir()).unwrap_or(dir);
    match nix::sys::statvfs::statvfs(there) {
        Ok(fs) => {
            let unit = fs.fragment_size();
            let (all, free) = (fs.blocks() * unit, fs.blocks_available() * unit);
            let read_only = fs.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY);
            judge_disk(&there.display().to_string(), all, free, read_only)
        }
        Err(e) => Finding::bad(
            "disk",
            format!("{}: {e}", there.display()),
            "mount the data partition",
        ),
    }
}

fn judge_disk(at: &str, all: u64, free: u64, read_only: bool) -> Finding {
    let what = format!(
        "{at}: {} of {} GB free",
        free / 1_000_000_000,
        all / 1_000_000_000
    );
    if read_only {
        let mend = "look for disk errors (dmesg, smartctl), then mount it writable";
        return Finding::bad("disk", format!("{at} can only be read"), mend);
    }
    // Receipts always have room of their own; a spool that is full pulls nothing until an archive has taken some.
    match free.saturating_mul(100) / all.max(1) {
        0..2 => Finding::bad(
            "disk",
            what,
            "something else than the spool fills it: make room",
        ),
        2..10 => Finding::notice(
            "disk",
            what,
            "see what waits and whether an archive answers",
        ),
        _ => Finding::good("disk", what),
    }
}

/// What the image says of its disk's second key (`os-image`, script `disk-key`); nothing on other machines.
fn said_of_disk_key() -> String {
    std::fs::read_to_string("/run/repeater-disk-key").unwrap_or_default()
}

fn disk_key(said: &str) -> Option<Finding> {
    let (about, said) = ("disk", said.trim());
    let what = format!("its second key, for the day on which the board dies: {said}");
    let holders = said.strip_prefix("sealed for ");
    match holders.filter(|h| !h.contains("any more")) {
        Some(_) => Some(Finding::good(about, what)),
        None if said.is_empty() => None,
        None => Some(Finding::notice(
            about,
            what,
            "have the agency name an escrow key in its key list (agency key-list --add-escrow); where it does, restart the machine, and send a support bundle if it stays",
        )),
    }
}

fn clock(config: &Config, seams: &Seams) -> Finding {
    let (asker, time) = trusted_time::new(config.time, seams.random.clone());
    // Without a runtime it stays unknown.
    let _ = current_thread(asker.ask_once());
    judge_clock(time.look(&seams.clock))
}

fn judge_clock(known: Known) -> Finding {
    let error = known
        .error
        .map(|e| format!("off by {} ms at most", e.as_millis()));
    let error = error.unwrap_or_else(|| "by how much it may be off is not known".into());
    match known.state {
        TimeState::Synchronised => Finding::good("clock", error),
        TimeState::Unknown => Finding::notice(
            "clock",
            format!("nobody vouches for it; {error}"),
            "look at `chronyc sources`; cameras are pulled all the same",
        ),
        TimeState::Unset => Finding::bad(
            "clock",
            "it shows a time before this program was made".into(),
            "let chronyd reach a time server: handshakes fail on certificates that are not valid yet",
        ),
    }
}

fn hostapd(config: &Config, socket: &Path) -> Finding {
    let at = socket.display();
    match ping(&config.suspect_dir, socket) {
        Ok(()) => Finding::good("hostapd", format!("{at} answers")),
        Err(e) => Finding::bad(
            "hostapd",
            format!("{at}: {e}"),
            "start hostapd there; its ctrl_interface_group must be the daemon's",
        ),
    }
}

/// hostapd answers to a file, in a folder that it sees.
fn ping(folder: &Path, theirs: &Path) -> std::io::Result<()> {
    let file = folder.join(format!("doctor-{}", std::process::id()));
    let _ = std::fs::remove_file(&file);
    let socket = UnixDatagram::bind(&file)?;
    let asked = || {
        socket.set_read_timeout(Some(limits::HOSTAPD_ANSWER))?;
        socket.send_to(b"PING", theirs)?;
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer)?;
        match answer.get(..length) {
            Some(b"PONG\n") => Ok(()),
            _ => Err(std::io::Error::other("it does not answer PING with PONG")),
        }
    };
    let answered = asked();
    let _ = std::fs::remove_file(&file);
    answered
}

/// Each endpoint, by a handshake.
fn archives(config: &Config, seams: &Seams, credentials: Credentials) -> Vec<Finding> {
    let keyring = link::credentials::Keyring::new(credentials);
    let all = async {
        let mut found = Vec::new();
        for archive in &config.archives {
            for address in &archive.addresses {
                let reached = reach(seams, keyring.clone(), *address).await;
                found.push(match reached {
                    Ok(who) => Finding::good("archive", format!("{address} is {who}")),
                    Err(why) => Finding::notice(
                        "archive",
                        format!("{} at {address}: {why}", archive.site),
                        "footage is kept until one answers: look at the uplink, the firewall and the site",
                    ),
                });
            }
        }
        found
    };
    current_thread(all).unwrap_or_default()
}

async fn reach(
    seams: &Seams,
    keyring: link::credentials::Keyring,
    address: SocketAddr,
) -> Result<String, String> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let at = link::socket::SocketOptions::at(any);
    let socket = seams.bind(at).await.map_err(|e| e.to_string())?;
    let keys = link::endpoint_keys::EndpointKeys::fresh(&seams.random);
    let refusals = link::refusals::Refusals::default();
    let dialer = Dialer::new(
        seams,
        socket,
        keyring,
        Options::new(Hop::Archive),
        &keys,
        refusals,
    )
    .map_err(|e| e.to_string())?;
    let dialled = tokio::time::timeout(limits::DOCTOR, dialer.connect(address)).await;
    let said = match dialled {
        Ok(Ok(peer)) => Ok(peer.identity().to_string()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {} s", limits::DOCTOR.as_secs())),
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), dialer.close()).await;
    said
}

fn daemon(page: SocketAddr) -> Finding {
    match fetch(page, "/livez") {
        Ok(_) => Finding::good("daemon", format!("it serves on {page}")),
        Err(e) => Finding::bad(
            "daemon",
            format!("{page}: {e:#}"),
            "systemctl status repeaterd; journalctl -u repeaterd",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_what_is_left_of_it() {
        let now = Time(1_800_000_000_000);
        let in_days = |days: u64| Time(now.0 + days * 86_400_000);
        let state = |days| judge_certificate("r", in_days(days), Some(now)).state;
        assert_eq!(
            [state(0), state(1), state(99)],
            [State::Bad, State::Notice, State::Notice]
        );
        assert_eq!(state(100), State::Good);
        let ended = judge_certificate("r", Time(now.0 - 1000), Some(now));
        assert_eq!(ended.state, State::Bad);
        assert_eq!(judge_certificate("r", now, None).state, State::Notice);
    }

    #[test]
    fn a_disk_is_judged_by_what_is_free() {
        let state = |free, read_only| judge_disk("/", 1000, free, read_only).state;
        assert_eq!(state(19, false), State::Bad);
        assert_eq!([state(20, false), state(99, false)], [State::Notice; 2]);
        assert_eq!(
            [state(100, false), state(100, true)],
            [State::Good, State::Bad]
        );
        assert_eq!(judge_disk("/", 0, 0, false).state, State::Bad);
    }

    #[test]
    fn a_disk_that_nobody_could_open_is_told() {
        let state = |said| disk_key(said).map(|f| f.state);
        assert_eq!(state(""), None);
        assert_eq!(state("sealed for 00ff\n"), Some(State::Good));
        assert_eq!(state("none\n"), Some(State::Notice));
        let gone = "sealed for 00ff, which the agency's key list does not name any more";
        assert_eq!(state(gone), Some(State::Notice));
    }

    #[test]
    fn a_clock_that_nobody_vouches_for_stops_nothing_and_an_unset_one_does() {
        let state = |state| judge_clock(Known { state, error: None }).state;
        assert_eq!(state(TimeState::Synchronised), State::Good);
        assert_eq!(state(TimeState::Unknown), State::Notice);
        assert_eq!(state(TimeState::Unset), State::Bad);
    }
}
