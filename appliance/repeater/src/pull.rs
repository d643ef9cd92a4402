//! The camera hop: dials every camera that discovery reports, and pulls what its manifests announce.
//!
//! One [`dialler`] for each address, one [`session`] for each connection; [`permits`] bound what is in flight over
//! all cameras and share it, within each one's urgent quota of the day; [`transfer`] is one segment's way, at its [`pace`]; [`troubles`] are digests that
//! a camera does not give as it should, put off behind its other footage. A camera on two paths is one camera:
//! the session that pulls stays while it makes progress, the other is closed as idle.

pub mod dialler;
pub mod greeting;
pub mod pace;
pub mod permits;
pub mod progress;
mod quota;
pub mod session;
pub mod transfer;
pub mod troubles;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use link::credentials::Keyring;
use link::quic::Dialer;
use link::refusals::Refusals;
use link::seams::Seams;
use link::tasks::Tasks;
use protocol::ids::CameraId;
use protocol::pressure;

use crate::alarms::{self, Alarms};
use crate::commit::Storage;
use crate::metrics::Metrics;
use crate::notices::{Inventories, Notices};
use permits::Permits;

pub use dialler::run;

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
    /// Sessions at once.
    pub sessions: usize,
    /// Who is connected.
    pub roster: Roster,
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

/// Who is connected now, for status, for sharing windows, and so that one camera has one session.
#[derive(Clone, Debug, Default)]
pub struct Roster(Arc<Mutex<BTreeMap<SocketAddr, Present>>>);

/// One connection to a camera.
#[derive(Clone, Debug)]
pub struct Present {
    /// Who it is, once it has proved it.
    pub camera: Option<CameraId>,
    /// What the session does.
    pub state: &'static str,
    /// Sealed bytes pulled on this session.
    pub pulled_bytes: u64,
    /// Its last byte.
    pub last_byte: Instant,
    /// The connection, for sharing windows.
    pub peer: link::quic::Peer,
}

impl Roster {
    /// Everyone connected, by address.
    #[must_use]
    pub fn present(&self) -> Vec<(SocketAddr, Present)> {
        self.lock().iter().map(|(a, p)| (*a, p.clone())).collect()
    }

    /// How many are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// A connection begins; every session's window is shared out anew.
    fn enter(&self, address: SocketAddr, peer: link::quic::Peer, now: Instant) {
        let present = Present {
            camera: None,
            state: "greeting",
            pulled_bytes: 0,
            last_byte: now,
            peer,
        };
        self.lock().insert(address, present);
        self.share();
    }

    fn leave(&self, address: SocketAddr) {
        self.lock().remove(&address);
        self.share();
    }

    fn share(&self) {
        let all = self.lock();
        let window = pressure::window(pressure::WINDOW_BUDGET_BYTES, all.len());
        all.values().for_each(|p| p.peer.set_receive_window(window));
    }

    /// Changes what is known of a connection.
    fn update(&self, address: SocketAddr, change: impl FnOnce(&mut Present)) {
        if let Some(present) = self.lock().get_mut(&address) {
            change(present);
        }
    }

    /// Another connection of this camera whose last byte is younger than the silence limit.
    fn busy_elsewhere(&self, camera: &CameraId, address: SocketAddr, now: Instant) -> bool {
        let fresh =
            |p: &Present| now.saturating_duration_since(p.last_byte) < Duration::from_secs(5);
        self.lock()
            .iter()
            .any(|(a, p)| *a != address && p.camera.as_ref() == Some(camera) && fresh(p))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Present>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
