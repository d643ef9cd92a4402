//! Alarms that no event ends stand until a person settles them, by the running daemon's control socket and by nothing
//! else; those that end by themselves cannot be cleared.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use tests::camera_double::Script;
use tests::sealed::camera_id;
use tests::station::{Plan, Station};
use tests::wait::until;

#[test]
fn a_person_clears_what_no_event_ends_and_nothing_else() {
    let station = Station::new(Plan::default());
    let script = |serial| Script::new(&station, camera_id(serial), vec![]);
    let (one, two) = (
        script("BWC-0001").listen(&station),
        script("BWC-0001").listen(&station),
    );
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut repeater = station.repeater(&[one.address, two.address], &[("site-a", nobody)]);
    // Two storages under one serial.
    repeater.wait_alarm("camera_incarnation");
    drop((one, two));
    repeater.wait_alarm("site_silent");
    let socket = repeater.spool().join("control.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let said = repeater.clear("site_silent", "site-a");
    assert!(said.code == Some(69) && said.err.contains("a person settles"));
    let said = repeater.clear("camera_incarnation", "BWC-0002");
    assert!(said.code == Some(69) && said.err.contains("no such alarm"));
    assert!(repeater.alarms().contains(&"camera_incarnation".to_owned()));

    let before = repeater.logbook_entries();
    let said = repeater.clear("camera_incarnation", "BWC-0001");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(!repeater.alarms().contains(&"camera_incarnation".to_owned()));
    assert_eq!(
        repeater.counted("repeater_alarm{code=\"camera_incarnation\"}"),
        0
    );
    let uid = nix::unistd::geteuid();
    let who = format!("uid {uid} commands clear camera_incarnation BWC-0001");
    until("the logbook says who did it", || {
        repeater.logbook_entries() > before && repeater.logbook_says(&who)
    });

    // It is gone for good, and with the daemon goes the socket.
    assert_eq!(repeater.daemon().stop(), Some(0));
    assert!(!socket.exists());
    let said = repeater.clear("camera_incarnation", "BWC-0001");
    assert!(said.code == Some(69) && said.err.contains("is it running"));
    repeater.run();
    assert!(!repeater.alarms().contains(&"camera_incarnation".to_owned()));
}
