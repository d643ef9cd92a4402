//! From a dock's carrier to the first segment Held: eight cameras at a station in network namespaces, each behind a cable
//! of 100 Mbit/s; one after the other is put into its dock with a full segment, found, pulled from, and taken out again.
//!
//! The clock starts before the cable's far end is switched on, which is when the dock has its carrier, and stops when the
//! repeater's status has header and segment as Held or beyond. A third of a second of it is the segment's own way
//! over the cable. Nobody tells the repeater where a camera is; it serves at the port that the protocol names for docks.
//!
//! Then a shift change ([`forty`]), and an officer who only walks past, as the station's case of that name plays it.

mod forty;

use std::net::Ipv6Addr;

use anyhow::{Result, bail};
use protocol::limits::CAMERA_PORT;
use tests::footage::footage;
use tests::station::netns::missing;
use tests::station::place::{Bay, Place};
use tests::station::{Plan, Station};
use tests::stations::FOUND;
use tests::stations::crowd::walk;
use tests::wait::{LONG, eventually, now};

use crate::figures::{Figures, Target, quantile};
use crate::options::{Docking, Scene};

const SEGMENT_BYTES: usize = 4 << 20;
const MBIT: u64 = 100;
/// Bays of a dock.
const BAYS: u32 = 8;
/// A header and a segment.
const ITEMS: u64 = 2;

/// Plays what is asked for.
pub(crate) fn measure(options: &Docking, figures: &mut Figures) -> Result<()> {
    if let Some(what) = missing() {
        bail!("docking needs root and what is missing here: {what}");
    }
    if options.wants(Scene::Docks) {
        dock(options.dockings, figures);
    }
    if options.wants(Scene::Forty) {
        forty::measure(figures)?;
    }
    if options.wants(Scene::Walking) {
        let walked = walk();
        let share = walked.pulled as f64 / walked.raw as f64;
        let target = Target::AtLeast(0.85);
        figures.put("walking_past_of_raw", share, "", target);
    }
    Ok(())
}

/// Docks so often.
fn dock(times: u32, figures: &mut Figures) {
    let station = Station::new(Plan {
        cameras: BAYS,
        ..Plan::default()
    });
    let place = Place::new(&station);
    let mut bays: Vec<Bay<'_>> = (1..=BAYS).map(|n| place.bay(n)).collect();
    for bay in &mut bays {
        bay.wire.rate(MBIT);
        bay.camera.seal(&footage(0, SEGMENT_BYTES), &[]);
        bay.camera.listen = (Ipv6Addr::UNSPECIFIED, CAMERA_PORT).into();
        bay.serve();
    }
    let repeater = place.repeater(FOUND);
    let mut times_s = Vec::new();
    for n in 0..times {
        let bay = &bays[(n % BAYS) as usize];
        if n >= BAYS {
            bay.camera.seal(&footage(u64::from(n), SEGMENT_BYTES), &[]);
        }
        let before = repeater.held();
        let began = now();
        bay.plug();
        eventually("the first segment is Held", LONG, || {
            (repeater.held() >= before + ITEMS).then_some(())
        });
        times_s.push((now() - began).as_secs_f64());
        bay.camera.wait_released();
        bay.pull();
    }
    for (name, q, target) in [
        ("docked_to_held_p50", 0.5, Target::AtMost(1.0)),
        ("docked_to_held_p95", 0.95, Target::AtMost(2.5)),
        ("docked_to_held_max", 1.0, Target::None),
    ] {
        figures.put(name, quantile(times_s.clone(), q), "s", target);
    }
}
