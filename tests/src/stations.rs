//! The suite of stations: real programs in network namespaces, joined by cables that are pulled, air that loses and ports
//! under 802.1X; what happens at a station from morning to evening, and what somebody with a plug of their own may try.
//!
//! Reading order: [`crate::station::place`] is the stage; [`docks`], [`announced`], [`strangers`], [`ports`], [`moving`] and
//! [`crowd`] are the cases, each with the change that makes it fail. Program `stations`. It needs root, and a kernel with
//! namespaces, veth, tbf and nftables.
//!
//! Invariants: addresses, ports and names are random; a case waits for what is said, never for a time that should do;
//! what a case makes goes with it, also where it fails, and the ends of all logs are shown then.

pub mod announced;
pub mod crowd;
pub mod docks;
pub mod moving;
pub mod ports;
pub mod strangers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::wait::now;

/// Discovery of what is docked and what announces itself: what every case begins with.
pub const FOUND: &str = "mdns = true\nwan = [\"wan*\"]\n[[discover.dock]]\ninterface = \"dk*\"\n";

/// One thing that happens at a station.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What happens.
    pub name: &'static str,
    /// What it takes on two quiet cores, in seconds: none is begun that would not end in time.
    pub seconds: u64,
    play: fn(),
}

const fn case(name: &'static str, seconds: u64, play: fn()) -> Case {
    Case {
        name,
        seconds,
        play,
    }
}

/// All of them.
pub const CASES: &[Case] = &[
    case("dock", 6, docks::dock),
    case("dock-unannounced", 6, docks::dock_unannounced),
    case("undock-mid-segment", 15, docks::undock_mid_segment),
    case("dock-bridged", 15, docks::dock_bridged),
    case("interface-renamed", 10, docks::interface_renamed),
    case("points-elsewhere", 12, announced::points_elsewhere),
    case("spoofed-announcements", 12, announced::spoofed),
    case("mdns-flood", 12, announced::flood),
    case("rogue-camera", 10, strangers::rogue_camera),
    case("evil-twin", 20, strangers::evil_twin),
    case("dot1x-cable-pulled", 25, ports::cable_pulled),
    case("dot1x-hostapd-restarted", 20, ports::hostapd_restarted),
    case("near-far-near", 20, ports::near_far_near),
    case("signal", 40, ports::signal),
    case("wifi-to-dock", 12, moving::wifi_to_dock),
    case("two-stations", 15, moving::two_stations),
    case("loss", 40, moving::loss),
    case("shift-change", 45, crowd::shift_change),
    case("walking-past", 100, crowd::walking_past),
];

/// Cases that no shard looks at, and why: those of `--full` and `--case` alone.
pub const BY_HAND: &[(&str, &str)] = &[(
    "walking-past",
    "what it asks for is a share of a raw stream on the same quiet machine, and it comes close to it",
)];

/// What the cases showed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cases looked at.
    pub tried: usize,
    /// Those that did not go well.
    pub broken: Vec<&'static str>,
}

/// Looks at a case: whether it went well. What went wrong is on standard error.
#[must_use]
pub fn look(case: &Case) -> bool {
    let began = now();
    let well = catch_unwind(AssertUnwindSafe(case.play)).is_ok();
    let how = if well { "well" } else { "FAILED" };
    let took = (now() - began).as_secs_f64();
    println!("stations: {}: {how} in {took:.1} s", case.name);
    well
}

/// Looks at the cases from the `shard`th on, in a circle, until all were looked at or the time is too short for the next.
#[must_use]
pub fn survey(shard: u64, until: Option<Instant>) -> Outcome {
    let mut outcome = Outcome::default();
    let first = usize::try_from(shard % CASES.len() as u64).unwrap();
    for case in CASES.iter().cycle().skip(first).take(CASES.len()) {
        let by_hand = BY_HAND.iter().find(|(name, _)| *name == case.name);
        if let (Some((name, why)), true) = (by_hand, until.is_some()) {
            println!("stations: {name}: in no shard: {why}");
            continue;
        }
        let ends = now() + Duration::from_secs(case.seconds);
        if until.is_some_and(|until| ends > until) {
            continue;
        }
        outcome.tried += 1;
        if !look(case) {
            outcome.broken.push(case.name);
        }
    }
    outcome
}
