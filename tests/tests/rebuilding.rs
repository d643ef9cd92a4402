//! The ledger is gone, and deriving it anew takes long: what comes meanwhile is Held at once, and when it is done everything
//! is forwarded, old and new. A repeater that is killed in the middle loses neither.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tests::camera_party::Camera;
use tests::footage::footage;
use tests::station::{Plan, Station};
use tests::wait::until;

const MIB: usize = 1 << 20;

/// A manifest that nobody can read to its end until somebody writes it: whoever reads all of them waits.
struct Hold(PathBuf);

impl Hold {
    fn lay(spool: &Path) -> Hold {
        let path = spool.join("manifests").join("00".repeat(32));
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        Hold(path)
    }
    /// Lets each who reads it find nothing; true when it is gone, since a start removes what is no manifest.
    fn is_gone(&self) -> bool {
        // Where nobody reads it at the moment, this is an error, and the next time tells.
        let flags = OFlag::O_NONBLOCK.bits();
        let _ = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(&self.0);
        !self.0.exists()
    }
}

#[test]
fn footage_is_taken_while_the_ledger_is_derived_anew() {
    let station = Station::new(Plan {
        cameras: 2,
        ..Plan::default()
    });
    let mut site = station.site("site-a");
    site.gateway().kill();
    let mut cameras: Vec<_> = (1..=2).map(|n| station.camera(n)).collect();
    let old = cameras[0].seal(&footage(1, 9 * MIB), &[]).items();
    let first = cameras[0].serve();
    let mut repeater = station.repeater(&[first], &[site.told()]);
    until("the old footage is held", || repeater.items("held") == old);
    repeater.daemon().kill();
    let spool = repeater.spool();
    std::fs::remove_dir_all(spool.join("ledger")).unwrap();
    let hold = Hold::lay(&spool);

    let new = cameras[1].seal(&footage(2, 5 * MIB), &[]).items();
    let addresses = [first, cameras[1].serve()];
    repeater.run_with(&addresses, &[site.told()], "");
    repeater.wait_alarm("ledger_rebuilding");
    until("the new footage is held meanwhile", || {
        repeater.items("held") == new
    });
    // Nothing of it is lost where the daemon dies now, and begins again.
    repeater.daemon().kill();
    repeater.run();
    until("the new footage is held still", || {
        repeater.items("held") == new
    });
    assert!(spool.join("interim").exists());

    until("nobody reads the pipe any more", || hold.is_gone());
    until("the ledger is there, with all", || {
        repeater.items("held") == old + new
    });
    assert!(!spool.join("interim").exists());
    site.run();
    let all: Vec<&Camera<'_>> = cameras.iter().collect();
    station.wait_all_released(&all, &repeater);
    station.assert_footage_is_whole(&site);
}
