//! The appliance, the gateway and the camera are asked to stop in the middle of a transfer: they do within five seconds,
//! a second signal ends them at once, and footage in flight goes on where it was.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::footage::footage;
use tests::process::Party;
use tests::relay::{Relay, Way};
use tests::station::{Plan, Station};
use tests::wait::{now, until};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn sigterm_ends_every_party_in_time_and_the_transfer_resumes() {
    let station = Station::new(Plan::default());
    let mut site = station.site("site-a");
    let mut camera = station.camera(1);
    camera.seal(&footage(1, 24 << 20), &[]);
    let hop = Relay::to(camera.serve());
    hop.cut_after(Way::Back, 10 * MIB);
    let mut repeater = station.repeater(&[hop.address()], &[site.told()]);
    until("the camera hop stands still within a segment", || {
        hop.is_cut()
    });
    // What has passed the hop may not have been read yet.
    let mut taken = 0;
    until("the repeater has taken what came", || {
        let before = std::mem::replace(&mut taken, repeater.counted("repeater_pulled_bytes_total"));
        before > 0 && taken == before
    });

    let began = now();
    assert_eq!(repeater.daemon().stop(), Some(0));
    assert!(
        now() - began < LIMIT,
        "the repeater took {:?}",
        now() - began
    );
    let began = now();
    assert_eq!(site.gateway().stop(), Some(0));
    assert!(
        now() - began < LIMIT,
        "the archive took {:?}",
        now() - began
    );
    let began = now();
    assert_eq!(camera.server().stop(), Some(0));
    assert!(now() - began < LIMIT, "the camera took {:?}", now() - began);

    hop.mend();
    let before = hop.passed(Way::Back);
    site.run();
    camera.serve();
    repeater.run();
    station.wait_all_released(&[&camera], &repeater);
    station.assert_footage_is_whole(&site);
    // All that was taken before is kept, to the byte: what passes now is the rest.
    let rest = 24 * MIB - taken;
    let now_passed = hop.passed(Way::Back) - before;
    assert!(
        now_passed < rest * 11 / 10 + MIB,
        "{now_passed} bytes after the stop, {taken} of {before} taken before"
    );
}

#[test]
fn a_second_signal_ends_them_at_once() {
    let station = Station::new(Plan::default());
    let mut site = station.site("site-a");
    let mut camera = station.camera(1);
    camera.seal(&footage(1, 24 << 20), &[]);
    let hop = Relay::to(camera.serve());
    hop.cut_after(Way::Back, 10 * MIB);
    let mut repeater = station.repeater(&[hop.address()], &[site.told()]);
    until("the camera hop stands still within a segment", || {
        hop.is_cut()
    });
    at_once("the repeater", |first| {
        if !first {
            repeater.run();
        }
        signalled_twice(repeater.daemon())
    });
    at_once("the archive", |first| {
        if !first {
            site.run();
        }
        signalled_twice(site.gateway())
    });
    at_once("the camera", |first| {
        if !first {
            camera.serve();
        }
        signalled_twice(camera.server())
    });
    hop.mend();
    site.run();
    camera.serve();
    repeater.run();
    station.wait_all_released(&[&camera], &repeater);
    station.assert_footage_is_whole(&site);
}

/// Two signals, one right after the other, and the exit code.
fn signalled_twice(party: &mut Party) -> Option<i32> {
    let began = now();
    party.signal(Signal::SIGTERM);
    party.signal(Signal::SIGINT);
    let code = party.ended(LIMIT).code();
    let took = now() - began;
    assert!(took < Duration::from_secs(2), "took {took:?}");
    code
}

/// A party that is signalled twice says by its exit code that the second signal ended it. One that had stopped before
/// the second came (0), or did not listen yet when the first came (none), is tried again.
fn at_once(who: &str, mut run: impl FnMut(bool) -> Option<i32>) {
    for attempt in 0..10 {
        match run(attempt == 0) {
            Some(130 | 143) => return,
            Some(0) | None => {}
            other => panic!("{who} ended with {other:?}"),
        }
    }
    panic!("{who} was never ended by a second signal");
}
