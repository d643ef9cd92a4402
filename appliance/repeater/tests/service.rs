//! What the service manager hears, over a real datagram socket: READY, the line for people, beats of the watchdog, and
//! none while the storage thread is held up; by the real `repeaterd`, and by its parts.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use common::{Daemon, REPEATERD, Station, station};
use link::clock::Clock;
use link::service::{Given, Manager};
use link::tasks::{Tasks, current_thread};
use protocol::identity::Trust;
use protocol::keylist::KeyList;
use repeater::alarms::Alarms;
use repeater::commit::Storage;
use repeater::discover::settings::Settings;
use repeater::forward::sites::Sites;
use repeater::health::Health;
use repeater::metrics::Metrics;
use repeater::notices::Notices;
use repeater::pull::Sessions;
use repeater::pulse::Pulses;
use spool::{Options, Spool};

/// The manager's end.
struct Listener(UnixDatagram);

impl Listener {
    fn at(path: &Path) -> Listener {
        Listener(UnixDatagram::bind(path).unwrap())
    }

    /// The next message, none where none comes for so long.
    fn next(&self, within: Duration) -> Option<String> {
        self.0.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 512];
        let length = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    fn wait(&self, what: &str) {
        let heard = || self.next(Duration::from_secs(20));
        while heard().unwrap_or_else(|| panic!("{what} does not come")) != what {}
    }
}

#[test]
fn the_manager_hears_ready_the_line_beats_and_stopping() {
    let station = station("");
    let path = station.folder.path().join("notify");
    let manager = Listener::at(&path);
    let mut child = Command::new(REPEATERD)
        .args(["run", "--config"])
        .arg(&station.config)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "600000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ready_before_beat = || {
        let mut messages = std::iter::from_fn(|| manager.next(Duration::from_secs(20)));
        let first = messages.find(|m| m == "READY=1" || m == "WATCHDOG=1");
        assert_eq!(first.as_deref(), Some("READY=1"));
    };
    ready_before_beat();
    // The archive of this station does not exist.
    manager.wait("STATUS=0 docked, 0 B waiting, archive away");
    (0..3).for_each(|_| manager.wait("WATCHDOG=1"));
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    manager.wait("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

fn gate(station: &Station, address: &str, within: &str) -> std::process::Output {
    let mut command = Command::new(REPEATERD);
    command.args(["gate", "--stable", "2", "--within", within]);
    command.args(["--address", address, "--config"]);
    command.arg(&station.config).output().unwrap()
}

#[test]
fn a_boot_is_good_once_a_running_daemon_commits_probes_and_not_without_one() {
    let station = station("");
    let daemon = Daemon::start(&station.config);
    let done = gate(&station, &daemon.address, "30");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    let files = std::fs::read_dir(station.spool("")).unwrap();
    let logbooks = files
        .map(|f| f.unwrap().path())
        .filter(|p| p.to_string_lossy().contains("logbook"));
    let probes = logbooks.map(|p| {
        let text = String::from_utf8_lossy(&std::fs::read(p).unwrap()).into_owned();
        text.matches("commands probe").count()
    });
    assert_eq!(probes.sum::<usize>(), 2, "one at either end");
    let address = daemon.address.clone();
    drop(daemon);
    let done = gate(&station, &address, "3");
    assert_eq!(done.status.code(), Some(69));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        said.contains("not healthy: the daemon is not alive"),
        "{said}"
    );
}

#[test]
fn the_doctor_names_what_is_bad_with_its_mend_and_fails_only_then() {
    let station = station("");
    let daemon = Daemon::start(&station.config);
    let ask = |config: &Path| {
        let mut command = Command::new(REPEATERD);
        command.args(["doctor", "--json", "--address", &daemon.address]);
        let done = command.arg("--config").arg(config).output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        (
            done.status.code(),
            said["findings"].as_array().unwrap().clone(),
        )
    };
    let (code, found) = ask(&station.config);
    let of = |about: &str, found: &[serde_json::Value]| {
        let found = found.iter().find(|f| f["about"] == about);
        found.unwrap_or_else(|| panic!("no {about}")).clone()
    };
    assert_eq!(code, Some(0), "{found:?}");
    for about in ["config", "certificates", "disk", "daemon"] {
        assert_ne!(of(about, &found)["state"], "bad", "{found:?}");
    }
    // Nobody listens there; footage is kept, so it is none of this machine's faults.
    assert_eq!(of("archive", &found)["state"], "notice");

    let text = std::fs::read_to_string(&station.config).unwrap();
    let socket = "[[discover.hostapd]]\nsocket = \"nowhere/wlan0\"\nkind = \"wireless\"\n";
    let broken = station.folder.path().join("broken.toml");
    std::fs::write(
        &broken,
        text.replace("repeaters/trial-1/key", "nowhere") + socket,
    )
    .unwrap();
    let (code, found) = ask(&broken);
    assert_eq!(code, Some(1));
    for about in ["certificates", "hostapd"] {
        let finding = of(about, &found);
        assert_eq!(finding["state"], "bad");
        assert!(
            finding["what"].as_str().unwrap().contains("nowhere"),
            "{finding}"
        );
        assert!(finding["mend"].is_string(), "{finding}");
    }
    std::fs::write(&broken, "colour = 1").unwrap();
    let (code, found) = ask(&broken);
    assert_eq!((code, found.len()), (Some(1), 1));
}

fn storage(station: &Station, clock: &Clock) -> Storage {
    let agency = station.folder.path().join("agency");
    let roots = std::fs::read(agency.join("trust.pem")).unwrap();
    let trust = Trust::from_pem(&roots, None).unwrap();
    let list = std::fs::read(agency.join("key-list.cose")).unwrap();
    let keys = KeyList::verify(list.into(), trust.root_keys()).unwrap();
    let run = station.folder.path().join("run");
    let options = Options::new(station.spool(""), 1_000_000_000, run, [1; 16]);
    let (spool, _) = Spool::open(options, trust, keys, clock.now()).unwrap();
    let metrics = Metrics::new().unwrap();
    let alarms = Alarms::new(metrics.clone());
    let (storage, _thread) =
        Storage::start(spool, clock.clone(), metrics, alarms, Notices::default()).unwrap();
    storage
}

#[test]
fn a_storage_thread_or_a_hop_that_is_held_up_stops_the_beats() {
    let station = station("");
    let (path, clock) = (station.folder.path().join("notify"), Clock::system());
    let manager = Listener::at(&path);
    let given = Given {
        socket: Some(path.clone().into()),
        watchdog_usec: Some("300000".into()),
        watchdog_pid: None,
    };
    let health = Health {
        storage: storage(&station, &clock),
        pulses: Pulses::default(),
        sessions: Sessions::new(&Settings::default()),
        sites: Sites::new(std::iter::empty()),
        clock: clock.clone(),
    };
    let (storage, pulses) = (health.storage.clone(), health.pulses.clone());
    let tasks = Tasks::new();
    let (hops, daemon) = (tasks.clone(), tasks.clone());
    let told = std::thread::spawn(move || {
        let manager = Manager::new(&given);
        current_thread(async move {
            tokio::select! {
                () = health.tell(&manager) => panic!("the storage thread lives"),
                () = daemon.cancelled() => {}
            }
        })
    });
    // No hop has begun.
    manager.wait("STATUS=pull and forward does not run; 0 docked, 0 B waiting, archive ok");
    assert_eq!(manager.next(Duration::from_millis(500)), None);
    let only_pull = hops.child();
    let beating = std::thread::spawn(move || {
        current_thread(async move {
            let clock = Clock::system();
            let forward = pulses
                .forward
                .clone()
                .beat(clock.clone(), only_pull.clone());
            only_pull.spawn("forward", forward);
            pulses.pull.clone().beat(clock, hops).await;
        })
    });
    manager.wait("READY=1");
    (0..3).for_each(|_| manager.wait("WATCHDOG=1"));
    // A sync that takes long.
    let (held, free) = sync_channel::<()>(0);
    let held_up = std::thread::spawn(move || {
        let hold = storage.ask(move |_, _| {
            free.recv().unwrap();
            Ok(())
        });
        current_thread(hold).unwrap().unwrap();
    });
    let silent = std::iter::from_fn(|| manager.next(Duration::from_secs(1)));
    assert!(silent.take(20).count() < 20, "it beats all the same");
    assert_eq!(manager.next(Duration::from_secs(1)), None);
    held.send(()).unwrap();
    held_up.join().unwrap();
    (0..3).for_each(|_| manager.wait("WATCHDOG=1"));
    tasks.cancel();
    told.join().unwrap().unwrap();
    beating.join().unwrap().unwrap();
}
