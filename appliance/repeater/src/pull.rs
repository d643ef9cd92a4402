//! The camera hop: dials every camera that discovery reports, and pulls what its manifests announce.
//!
//! One dialler for each address, one [`session`] for each connection; [`permits`] bound what is in flight over
//! all cameras and share it; [`transfer`] is one segment's way. A camera on two paths is one camera: the
//! session that pulls stays while it makes progress, the other is closed as idle.

pub mod ended;
pub mod greeting;
pub mod permits;
pub mod progress;
pub mod session;
pub mod transfer;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use link::credentials::Keyring;
use link::quic::Dialer;
use link::seams::Seams;
use link::tasks::Tasks;
use protocol::ids::CameraId;
use protocol::message::Code;
use protocol::pressure;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::alarms::Alarms;
use crate::commit::Storage;
use crate::discover::{Sighting, Sightings};
use crate::limits;
use crate::metrics::{Metrics, gauge_value};
use crate::notices::{Inventories, Notices};
use ended::Ended;
use permits::Permits;
use session::Session;

/// What every session of the hop shares.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Dials cameras.
    pub dialer: Dialer,
    /// Our credentials, and whom we trust.
    pub keyring: Keyring,
    /// The storage thread.
    pub storage: Storage,
    /// Time and randomness.
    pub seams: Seams,
    /// Figures.
    pub metrics: Metrics,
    /// Alarms.
    pub alarms: Alarms,
    /// Bells.
    pub notices: Notices,
    /// The cameras' newest inventories, for the sites.
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

/// Runs the hop until its tasks are cancelled.
pub async fn run(hop: Hop, mut sightings: Sightings) {
    let mut dialling: HashMap<SocketAddr, Tasks> = HashMap::new();
    let (ended, mut ends) = mpsc::channel::<SocketAddr>(limits::SIGHTINGS);
    loop {
        let sighting = tokio::select! {
            sighting = sightings.recv() => sighting,
            Some(address) = ends.recv() => {
                dialling.remove(&address);
                continue;
            }
            () = hop.tasks.cancelled() => break,
        };
        match sighting {
            Some(Sighting::Seen { address, .. }) if dialling.contains_key(&address) => {}
            Some(Sighting::Seen { address, .. }) if dialling.len() < limits::SIGHTINGS => {
                info!(%address, "a camera may be here");
                let tasks = hop.tasks.child();
                dialling.insert(address, tasks.clone());
                let (hop, ended) = (hop.clone(), ended.clone());
                hop.tasks.clone().spawn("dialler", async move {
                    dial(&hop, address, &tasks).await;
                    let _ = ended.send(address).await;
                });
            }
            Some(Sighting::Seen { address, .. }) => {
                debug!(%address, "more addresses than are dialled")
            }
            Some(Sighting::Gone { address }) => {
                if let Some(tasks) = dialling.get(&address) {
                    tasks.cancel();
                }
            }
            None => hop.tasks.cancelled().await,
        }
    }
}

/// Dials one address again and again, while it is seen.
async fn dial(hop: &Hop, address: SocketAddr, tasks: &Tasks) {
    let (first, longest) = limits::REDIAL;
    let mut pause = first;
    while !tasks.is_cancelled() {
        let began = hop.seams.clock.instant();
        let connected = tokio::select! {
            connected = hop.dialer.connect(address) => connected,
            () = tasks.cancelled() => break,
        };
        match connected {
            Ok(peer) if hop.roster.count() >= hop.sessions => {
                peer.close(Code::Busy.number(), "no session free")
            }
            Ok(peer) => {
                let ended = hold(hop, address, peer, began, tasks).await;
                pause = if matches!(ended, Ended::Fault(_) | Ended::Identity(_)) {
                    longest
                } else {
                    first
                };
            }
            Err(e) => {
                debug!(%address, "cannot reach a camera: {e}");
                pause = (pause * 2).min(longest);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = tasks.cancelled() => {}
        }
    }
}

async fn hold(
    hop: &Hop,
    address: SocketAddr,
    peer: link::quic::Peer,
    began: Instant,
    tasks: &Tasks,
) -> Ended {
    hop.roster
        .enter(address, peer.clone(), hop.seams.clock.instant());
    hop.metrics
        .camera_sessions
        .set(gauge_value(hop.roster.count() as u64));
    let ended = tokio::select! {
        ended = Session::run(hop, address, peer.clone(), began) => ended,
        () = tasks.cancelled() => Ended::Stopped,
    };
    hop.roster.leave(address);
    hop.metrics
        .camera_sessions
        .set(gauge_value(hop.roster.count() as u64));
    let (code, text) = ended.close();
    peer.close(code.number(), &text);
    match &ended {
        Ended::Fault(why) | Ended::Identity(why) => {
            hop.metrics.peer_faults.with_label_values(&["camera"]).inc();
            warn!(%address, "session ended: {why}");
        }
        other => info!(%address, "session ended: {}", other.close().1),
    }
    ended
}
