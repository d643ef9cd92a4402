//! What the service manager is told (`sd_notify(3)`), and what it gives: the folder of credentials, and how long it waits
//! for a beat. Without a manager nothing is said, and nothing is different.
//!
//! A message is one datagram to the socket that `NOTIFY_SOCKET` names, by a path or in the abstract namespace. It is sent
//! without waiting: a manager that does not read holds no program up, and misses a beat sooner than it blocks one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

/// How a path begins that is in the folder of credentials.
const CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY";

/// The service manager, or nobody.
#[derive(Debug, Default)]
pub struct Manager {
    told: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

/// What the environment says of the manager.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `NOTIFY_SOCKET`.
    pub socket: Option<OsString>,
    /// `WATCHDOG_USEC`.
    pub watchdog_usec: Option<OsString>,
    /// `WATCHDOG_PID`: whose beats are awaited.
    pub watchdog_pid: Option<OsString>,
}

impl Given {
    /// By this process's environment.
    #[must_use]
    pub fn by_environment() -> Given {
        Given {
            socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog_usec: std::env::var_os("WATCHDOG_USEC"),
            watchdog_pid: std::env::var_os("WATCHDOG_PID"),
        }
    }

    /// For how long the manager waits for a beat of the process `own`; none where it awaits none.
    #[must_use]
    pub fn watchdog(&self, own: u32) -> Option<Duration> {
        let number = |text: &Option<OsString>| text.as_ref()?.to_str()?.parse::<u64>().ok();
        let awaited = self.watchdog_pid.is_none()
            || number(&self.watchdog_pid).is_some_and(|pid| pid == u64::from(own));
        let limit = number(&self.watchdog_usec).filter(|usec| awaited && *usec > 0);
        limit.map(Duration::from_micros)
    }
}

/// The address that `NOTIFY_SOCKET` names.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', hidden @ ..] => SocketAddr::from_abstract_name(hidden),
        [b'/', ..] => SocketAddr::from_pathname(Path::new(name)),
        _ => Err(io::Error::other("neither a path nor an abstract name")),
    }
}

impl Manager {
    /// The manager that is given. One that cannot be spoken to is none, and that is logged.
    #[must_use]
    pub fn new(given: &Given) -> Manager {
        let reach = |name: &OsString| -> io::Result<(UnixDatagram, SocketAddr)> {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok((socket, address(name)?))
        };
        let told = given.socket.as_ref().and_then(|name| {
            let reached = reach(name);
            reached
                .inspect_err(|e| warn!("NOTIFY_SOCKET {}: {e}", name.display()))
                .ok()
        });
        Manager {
            watchdog: told.as_ref().and(given.watchdog(std::process::id())),
            told,
        }
    }

    /// For how long the manager waits for a beat.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The program serves now.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The program is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The program does what it should. Nothing where no beat is awaited.
    pub fn beat(&self) {
        if self.watchdog.is_some() {
            self.tell("WATCHDOG=1");
        }
    }

    /// One line for people, shown by `systemctl status`.
    pub fn status(&self, line: &str) {
        self.tell(&format!("STATUS={}", line.replace('\n', " ")));
    }

    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.told
            && let Err(e) = socket.send_to_addr(message.as_bytes(), address)
        {
            warn!("the service manager was not told {message}: {e}");
        }
    }
}

/// The folder of credentials that the manager made for this program.
#[must_use]
pub fn credentials_folder() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Whether this machine may still go back to the release before: the program's unit names a mark (`REPEATER_TRIAL_MARK`) that is
/// there in a boot that began on trial, to its end. Where no unit names one, nobody goes back by himself.
#[must_use]
pub fn on_trial() -> bool {
    std::env::var_os("REPEATER_TRIAL_MARK").is_some_and(|mark| may_be_on_trial(Path::new(&mark)))
}

/// A mark that is not there says something only where its folder can be read, and has others.
fn may_be_on_trial(mark: &Path) -> bool {
    let others = mark
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok());
    mark.try_exists().unwrap_or(true) || others.is_none_or(|mut others| others.next().is_none())
}

/// A path as a configuration gives it: below `$CREDENTIALS_DIRECTORY` where it begins with that, else below `folder`, the
/// configuration's own. Where there is no manager, the words stay, and who opens the file is told that there is none.
#[must_use]
pub fn locate(given: &Path, folder: &Path, credentials: Option<&Path>) -> PathBuf {
    match (given.strip_prefix(CREDENTIALS), credentials) {
        (Ok(name), Some(credentials)) => credentials.join(name),
        (Ok(_), None) => given.to_owned(),
        (Err(_), _) => folder.join(given),
    }
}

/// Whether a path was left as words, since no manager gave a folder of credentials.
#[must_use]
pub fn is_not_given(path: &Path) -> bool {
    path.starts_with(CREDENTIALS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn os(text: &str) -> Option<OsString> {
        Some(text.into())
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_boot_counts_as_on_trial_where_that_cannot_be_told() {
        let folder = tempfile::tempdir().unwrap();
        let (mark, other) = (folder.path().join("mark"), folder.path().join("other"));
        assert!(
            may_be_on_trial(&mark),
            "its folder is empty: nothing is mounted"
        );
        assert!(may_be_on_trial(&mark.join("mark")), "there is no folder");
        std::fs::write(other, "").unwrap();
        assert!(!may_be_on_trial(&mark));
        std::fs::write(&mark, "").unwrap();
        assert!(may_be_on_trial(&mark));
    }

    #[test]
    fn the_manager_is_told_by_a_path_and_by_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let hidden = format!("link-service-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&hidden).unwrap();
        for (listener, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into()),
            (
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
                OsString::from(format!("@{hidden}")),
            ),
        ] {
            let given = Given {
                socket: Some(name),
                watchdog_usec: os("90000000"),
                watchdog_pid: None,
            };
            let manager = Manager::new(&given);
            assert_eq!(manager.watchdog(), Some(Duration::from_secs(90)));
            manager.ready();
            manager.status("3 docked,\nWATCHDOG=1");
            manager.beat();
            manager.stopping();
            let said: Vec<_> = (0..4).map(|_| heard(&listener)).collect();
            let expected = [
                "READY=1",
                "STATUS=3 docked, WATCHDOG=1",
                "WATCHDOG=1",
                "STOPPING=1",
            ];
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn without_a_manager_or_with_one_that_is_deaf_nothing_is_different() {
        let nobody = Manager::new(&Given::default());
        nobody.ready();
        assert_eq!(nobody.watchdog(), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let deaf = Given {
            socket: Some(path.into()),
            watchdog_usec: os("1000"),
            ..Given::default()
        };
        let deaf = Manager::new(&deaf);
        // Far more than the kernel keeps for a socket that nobody reads.
        (0..10_000).for_each(|_| deaf.beat());
        drop(listener);
        deaf.stopping();
        for name in ["", "relative", "vsock:2:1"] {
            let given = Given {
                socket: os(name),
                ..Given::default()
            };
            assert!(Manager::new(&given).told.is_none(), "{name}");
        }
    }

    #[test]
    fn a_beat_is_awaited_of_this_process_only() {
        let of = |usec: Option<&str>, pid: Option<&str>| {
            let given = Given {
                watchdog_usec: usec.and_then(os),
                watchdog_pid: pid.and_then(os),
                socket: None,
            };
            given.watchdog(7)
        };
        assert_eq!(of(Some("2000000"), Some("7")), Some(Duration::from_secs(2)));
        assert_eq!(of(Some("2000000"), None), Some(Duration::from_secs(2)));
        let none = [
            (Some("2000000"), Some("8")),
            (Some("2000000"), Some("x")),
            (Some("0"), None),
            (Some("soon"), None),
            (None, Some("7")),
        ];
        none.into_iter()
            .for_each(|(usec, pid)| assert_eq!(of(usec, pid), None, "{usec:?} {pid:?}"));
    }

    #[test]
    fn a_credential_is_in_the_managers_folder_and_other_files_in_the_configurations() {
        let (etc, run) = (
            Path::new("/etc/repeater"),
            Path::new("/run/credentials/r.service"),
        );
        let given = Path::new("$CREDENTIALS_DIRECTORY/key.pem");
        assert_eq!(locate(given, etc, Some(run)), run.join("key.pem"));
        assert_eq!(locate(given, etc, None), given);
        assert!(is_not_given(&locate(given, etc, None)));
        for credentials in [Some(run), None] {
            let near = locate(Path::new("chain.pem"), etc, credentials);
            assert_eq!(near, etc.join("chain.pem"));
            let far = locate(Path::new("/srv/key.pem"), etc, credentials);
            assert_eq!(far, Path::new("/srv/key.pem"));
        }
    }
}
