//! The camera hop: dials every camera that discovery reports, and pulls what its manifests announce.
//!
//! The [`dialler`] dials what the roster says, one [`session`] serves each connection, and [`sessions`] is where
//! they meet; [`permits`] bound what is in flight over
//! all cameras and share it, within each one's urgent quota of the day; [`transfer`] is one segment's way, at its [`pace`]; [`troubles`] are digests that
//! a camera does not give as it should, put off behind its other footage. A camera on two paths is one camera: it is
//! served on the wired one, else where it is served already, while that session makes progress.

pub mod dialler;
pub mod greeting;
pub mod pace;
pub mod permits;
pub mod progress;
mod quota;
pub mod session;
pub mod sessions;
pub mod speed;
pub mod transfer;
pub mod troubles;

use link::credentials::Keyring;
use link::quic::Dialer;
use link::refusals::Refusals;
use link::seams::Seams;
use link::tasks::Tasks;

use crate::alarms::{self, Alarms};
use crate::commit::Storage;
use crate::metrics::Metrics;
use crate::notices::{Inventories, Notices};
use crate::trusted_time::TrustedTime;
use permits::Permits;

pub use dialler::run;
pub use sessions::Sessions;

/// What every session of the hop shares.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Dials cameras.
    pub dialer: Dialer,
    /// Our credentials, and whom we trust.
    pub keyring: Keyring,
    /// The storage thread.
    pub storage: Storage,
    /// Peers whose certificates do not count, counted.
    pub refusals: Refusals,
    /// Time and randomness.
    pub seams: Seams,
    /// Whether the clock is known to be right.
    pub time: TrustedTime,
    /// Figures.
    pub metrics: Metrics,
    /// Alarms.
    pub alarms: Alarms,
    /// Bells.
    pub notices: Notices,
    /// That cameras brought inventories, for the sites.
    pub inventories: Inventories,
    /// Segments in flight over all cameras.
    pub permits: Permits,
    /// Segments in flight for each camera.
    pub pulls: usize,
    /// Bytes a second that one camera is asked for at most.
    pub camera_bytes_per_second: Option<u64>,
    /// Sessions at once.
    pub most_sessions: usize,
    /// Who is here, and who is connected.
    pub sessions: Sessions,
    /// Tasks of this hop.
    pub tasks: Tasks,
}

impl Hop {
    /// A camera, or whoever answers at an address, did what none may do.
    fn accuse(&self, subject: &str, what: String) {
        let mend = "update or examine this camera; its footage stays on it";
        let now = self.seams.clock.now();
        self.alarms
            .raise(alarms::CAMERA_FAULT, subject, what, mend, now);
    }

    /// What it was accused of is over.
    fn acquit(&self, subject: &str) {
        self.alarms.clear(alarms::CAMERA_FAULT, subject);
    }
}
