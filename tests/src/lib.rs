//! The harness of the scenarios: a station on loopback or in network namespaces, its parties as processes, doubles of hostile peers, and a
//! relay that cuts and records. Scenarios are in `tests/tests/`, one file for each thing that happens to the user.
//!
//! Reading order: a [`station`] has an agency, and starts cameras, sites and a repeater as [`process`]es (the program
//! `party`, which becomes any of them); [`wait`] polls what they say about themselves until a deadline; a [`relay`]
//! stands between two of them. A hostile peer is written with `link` and `protocol` alone: [`sealed`] makes footage as a
//! camera would, or not quite, [`double`] has what all of them need, [`camera_double`] and [`site_double`] listen.
//! [`power_cut`], [`syscalls`] and [`stations`] are suites of their own, with their programs.
//!
//! Invariants: ports are the kernel's choice; nothing waits by sleeping for a time that should suffice; every wait says
//! what was awaited; a party is killed by its own process id when its handle goes; logs are shown where a test fails.

#![allow(clippy::unwrap_used, reason = "tests")]

pub mod archive_party;
pub mod camera_double;
pub mod camera_party;
pub mod chance;
pub mod double;
pub mod footage;
pub mod power_cut;
pub mod process;
pub mod relay;
pub mod repeater_party;
pub mod sealed;
pub mod site_double;
pub mod station;
pub mod stations;
pub mod syscalls;
pub mod wait;
