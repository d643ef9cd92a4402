//! Who is connected and who is here: the roster and the connections under one lock, for the hop, its sessions and the
//! page. The roster decides; what a session has to know of its path reaches it by a watch, whoever's word changed it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use link::quic::Peer;
use protocol::ids::CameraId;
use protocol::pressure;
use tokio::sync::{Notify, watch};

use super::speed::Speed;
use crate::discover::Sighting;
use crate::discover::roster::{Device, Near, Roster, Seat, Standing, Tried};
use crate::discover::settings::Settings;

/// Who is connected and who is here. Clones are the same.
#[derive(Clone, Debug)]
pub struct Sessions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Rung when a connection ends.
    left: Notify,
}

#[derive(Debug)]
struct State {
    roster: Roster,
    standings: BTreeMap<SocketAddr, watch::Sender<Standing>>,
    present: BTreeMap<SocketAddr, Present>,
}

/// One connection to a camera.
#[derive(Clone, Debug)]
pub struct Present {
    /// Who it is, once it has proved it.
    pub camera: Option<CameraId>,
    /// What the session does.
    pub state: &'static str,
    /// Sealed bytes pulled on this session.
    pub pulled_bytes: u64,
    /// How fast it pulls.
    pub speed: Speed,
    /// The connection, for sharing windows.
    pub peer: Peer,
}

impl Sessions {
    /// Nobody yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Sessions {
        Sessions(Arc::new(Shared {
            state: Mutex::new(State {
                roster: Roster::new(settings),
                standings: BTreeMap::new(),
                present: BTreeMap::new(),
            }),
            left: Notify::new(),
        }))
    }

    /// Everyone connected, by address.
    #[must_use]
    pub fn present(&self) -> Vec<(SocketAddr, Present)> {
        let state = self.lock();
        state.present.iter().map(|(a, p)| (*a, p.clone())).collect()
    }

    /// How many are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().present.len()
    }

    /// The cameras that are here, and whoever else is.
    #[must_use]
    pub fn here(&self, now: Instant) -> (Vec<Near>, Vec<Device>) {
        let state = self.lock();
        (state.roster.near(now), state.roster.devices())
    }

    /// Cameras that are docked.
    #[must_use]
    pub fn docked(&self, now: Instant) -> usize {
        let (near, _) = self.here(now);
        near.iter().filter(|near| near.reach.is_docked()).count()
    }

    /// A source says something.
    pub fn sight(&self, sighting: Sighting, now: Instant) {
        self.tell(|roster| roster.apply(sighting, now));
    }

    /// Addresses to dial now, each with what its session has to know and the pause before.
    #[must_use]
    pub fn dials(&self, now: Instant) -> Vec<(SocketAddr, watch::Receiver<Standing>, Duration)> {
        let mut state = self.lock();
        let dials = state.roster.dials(now);
        let begin = |address: SocketAddr| {
            let (told, hears) = watch::channel(state.roster.standing(address));
            state.standings.insert(address, told);
            (address, hears, state.roster.pause(address))
        };
        dials.into_iter().map(begin).collect()
    }

    /// When [`Sessions::dials`] is to be asked again.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        self.lock().roster.next_due(now)
    }

    /// Whether any source reports this address.
    #[must_use]
    pub fn is_seen(&self, address: SocketAddr) -> bool {
        self.lock().roster.is_seen(address)
    }

    /// Whether a camera has proved itself at this address.
    #[must_use]
    pub fn has_camera(&self, address: &SocketAddr) -> bool {
        let state = self.lock();
        let present = state.present.get(address);
        present.is_some_and(|p| p.camera.is_some()) || state.roster.has_camera(address)
    }

    /// A dial, and the session that it led to, are over.
    pub(super) fn ended(&self, address: SocketAddr, tried: Tried, now: Instant) {
        self.lock().standings.remove(&address);
        self.tell(|roster| roster.ended(address, tried, now));
    }

    /// A connection begins; every session's window is shared out anew.
    pub(super) fn enter(&self, address: SocketAddr, peer: Peer, now: Instant) {
        let present = Present {
            camera: None,
            state: "greeting",
            pulled_bytes: 0,
            speed: Speed::new(now),
            peer,
        };
        self.lock().present.insert(address, present);
        self.share();
    }

    /// It ends.
    pub(super) fn leave(&self, address: SocketAddr) {
        self.lock().present.remove(&address);
        self.0.left.notify_waiters();
        self.share();
    }

    fn share(&self) {
        let state = self.lock();
        let window = pressure::window(pressure::WINDOW_BUDGET_BYTES, state.present.len());
        let all = state.present.values();
        all.for_each(|p| p.peer.set_receive_window(window));
    }

    /// Changes what is known of a connection.
    pub(super) fn update(&self, address: SocketAddr, change: impl FnOnce(&mut Present)) {
        if let Some(present) = self.lock().present.get_mut(&address) {
            change(present);
        }
    }

    /// The session at this address had a sign of life.
    pub(super) fn lives(&self, address: SocketAddr, last: Instant) {
        self.lock().roster.lives(address, last);
    }

    /// A session has proved whose it is. Other sessions of that camera are told to yield where this one is better.
    pub(super) fn greeted(&self, address: SocketAddr, camera: &CameraId, now: Instant) -> Seat {
        self.tell(|roster| roster.greeted(address, camera, now))
    }

    /// Returns when none of these addresses has a connection.
    pub(super) async fn gone(&self, addresses: &[SocketAddr]) {
        loop {
            let left = self.0.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if !(addresses.iter()).any(|a| self.lock().present.contains_key(a)) {
                return;
            }
            left.await;
        }
    }

    /// Changes the roster, and tells every session what that means for it.
    fn tell<T>(&self, change: impl FnOnce(&mut Roster) -> T) -> T {
        let mut state = self.lock();
        let said = change(&mut state.roster);
        for (address, told) in &state.standings {
            let standing = state.roster.standing(*address);
            told.send_if_modified(|known| std::mem::replace(known, standing) != standing);
        }
        said
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
