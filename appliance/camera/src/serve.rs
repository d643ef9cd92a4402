//! The camera hop's server: repeaters dial, say hello, and take what they ask for.
//!
//! Tasks: the custodian, which owns the store; one for each link that is served, or one for all; one for each session,
//! with its pulls as children; and this one, which decides who may stay. What a session can spend is bounded: sessions in all and of one
//! repeater, streams, windows, and every wait.

mod announce;
mod battery;
pub mod custodian;
mod links;
mod pull;
mod session;
mod turn;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use link::credentials::Keyring;
use link::endpoint_keys::EndpointKeys;
use link::quic::{Hop, LinkError, Listener, Options, Peer};
use link::refusals::Refusals;
use link::seams::Seams;
use link::socket::SocketOptions;
use link::tasks::Tasks;
use protocol::cose::DeviceSigner;
use protocol::identity::Trust;
use protocol::ids::Incarnation;
use protocol::message::Code;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::limits;
use crate::store::layout::Layout;
use crate::store::{self, Lock, Store, StoreError};
use custodian::{Custodian, CustodianError, Desk, Disk};
use session::Shared;
use turn::{SessionId, Turn};

/// When footage goes that its receipts permit to erase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erase {
    /// At once.
    Now,
    /// When the sealer needs the room.
    WhenNeeded,
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Local address; port 0 takes any.
    pub listen: SocketAddr,
    /// When to erase.
    pub erase: Erase,
    /// Links to serve on, while they are up; none: on every one, at once.
    pub links: Vec<String>,
    /// Whether to announce the camera on the links that it serves (DNS-SD).
    pub announce: bool,
    /// Where the kernel says how the battery is; none: nothing is said of it.
    pub battery: Option<PathBuf>,
    /// Largest datagram (UDP payload) in bytes.
    pub datagram_bytes: u16,
    /// Where steps on the disk run.
    pub disk: Disk,
}

/// Who serves what.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The store's folder.
    pub store: Layout,
    /// The link's credentials; replaced when renewed.
    pub keyring: Keyring,
    /// The device's key and chain.
    pub signer: Arc<DeviceSigner>,
    /// The agency's root.
    pub trust: Trust,
    /// The agency's key list, as a file holds it.
    pub key_list: Option<Bytes>,
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The custodian failed.
    #[error(transparent)]
    Custodian(#[from] CustodianError),
    /// The endpoint cannot be made.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(std::io::Error),
    /// The announcement cannot be made.
    #[error("the camera cannot be announced: {0}")]
    Announce(#[from] mdns_sd::Error),
}

/// Serves until `tasks` is cancelled. Tells `ready` where, once a repeater may dial.
///
/// # Errors
/// Any [`ServeError`].
pub async fn serve(
    seams: &Seams,
    setup: Setup,
    options: ServeOptions,
    tasks: Tasks,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let (_lock, kept) = open(seams, &setup, options.erase)?;
    let incarnation = kept.camera().incarnation;
    let custodian = Custodian::new(&setup, kept, seams.clock.clone(), options.erase);
    let (desk, requests, bulletin) = custodian.desk();
    let refusals = Refusals::new();
    let doors = Doors {
        keys: EndpointKeys::load_or_make(&setup.store.file("endpoint.keys"), &seams.random)
            .map_err(ServeError::Bind)?,
        seams: seams.clone(),
        keyring: setup.keyring.clone(),
        options: options.clone(),
        refusals: refusals.clone(),
        desk: desk.clone(),
    };
    let open = tasks.child();
    let (address, peers) = doors.open(&open).await?;
    ready(address);
    let shared = Shared {
        desk,
        disk: options.disk,
        clock: seams.clock.clone(),
        signer: Arc::clone(&setup.signer),
        incarnation,
        turn: watch::Sender::new(Turn::default()),
        folder: setup.store.root().to_owned(),
        battery: options.battery,
        keyring: setup.keyring.clone(),
        refusals: refusals.clone(),
    };
    let mut keeping = tasks.spawn(
        "camera custodian",
        custodian.run(options.disk, requests, bulletin),
    );
    let (end, ended) = mpsc::channel(limits::SESSIONS);
    let mut gate = Gate {
        shared,
        sessions: Vec::new(),
        next: 0,
        end,
        ended,
    };
    let mut peers = peers;
    let ended = tokio::select! {
        () = gate.run(&mut peers, &tasks) => None,
        ended = &mut keeping => Some(ended),
        () = tasks.cancelled() => None,
    };
    drop(gate); // with the last desk the custodian ends
    info!("stopping");
    open.shutdown(limits::STOP_DEADLINE / 2).await;
    let failed = match ended {
        Some(ended) => ended,
        None => {
            tasks.cancel();
            match tokio::time::timeout(limits::STOP_DEADLINE, &mut keeping).await {
                Ok(ended) => ended,
                Err(_) => return Ok(()), // what it had begun is finished by the next start
            }
        }
    };
    failed.unwrap_or(Ok(()))?;
    Ok(())
}

/// Opens the store as its one server, and finishes what an earlier process left undone.
fn open(seams: &Seams, setup: &Setup, erase: Erase) -> Result<(Lock, Store), StoreError> {
    let fresh = Incarnation(seams.random.bytes());
    let paper = store::initialise(&setup.store, &setup.signer.serial, fresh)?;
    let lock = Lock::take(&setup.store.file("serve.lock"), limits::LOCK_WAIT)?;
    custodian::close_abandoned(&setup.store, &setup.signer, &setup.trust, &seams.clock)?;
    let offered = setup.key_list.clone();
    let mut kept = Store::open(&setup.store, &paper.camera, &setup.trust, offered)?;
    kept.release_emptied(seams.clock.now())?;
    if erase == Erase::Now {
        kept.erase_receipted(seams.clock.now())?;
    }
    Ok((lock, kept))
}

/// Where repeaters come in: all that a listener is made of.
#[derive(Clone)]
struct Doors {
    seams: Seams,
    keyring: Keyring,
    options: ServeOptions,
    keys: EndpointKeys,
    refusals: Refusals,
    desk: Desk,
}

impl Doors {
    /// Opens them, until `tasks` is cancelled: where they are, and who comes in.
    async fn open(self, tasks: &Tasks) -> Result<(SocketAddr, mpsc::Receiver<Peer>), ServeError> {
        let (come, peers) = mpsc::channel(limits::SESSIONS);
        if !self.options.links.is_empty() {
            for name in self.options.links.clone() {
                let (doors, come) = (self.clone(), come.clone());
                tasks.spawn(
                    "camera link",
                    links::serve(doors, name, come, tasks.clone()),
                );
            }
            return Ok((self.options.listen, peers));
        }
        let listen = SocketOptions::at(self.options.listen);
        let mut listener = self.listen(listen).await?;
        let address = listener.local_addr().map_err(ServeError::Bind)?;
        let announcement = (self.options.announce)
            .then(|| announce::begin(address, None, &self.desk, &self.seams.random, tasks))
            .transpose()?;
        let stop = tasks.token();
        tasks.spawn("camera listener", async move {
            tokio::select! {
                () = links::take(&mut listener, &come) => {}
                () = stop.cancelled() => {}
            }
            drop(announcement);
            listener.close().await;
        });
        Ok((address, peers))
    }

    async fn listen(&self, socket: SocketOptions) -> Result<Listener, ServeError> {
        let socket = self.seams.bind(socket).await.map_err(ServeError::Bind)?;
        let link = Options {
            receive_window: limits::RECEIVE_WINDOW_BYTES,
            segments_in_flight: limits::SEGMENTS_IN_FLIGHT,
            datagram_bytes: self.options.datagram_bytes,
            ..Options::new(Hop::Camera)
        };
        let (keyring, refusals) = (self.keyring.clone(), self.refusals.clone());
        let listener = Listener::new(&self.seams, socket, keyring, link, &self.keys, refusals)?;
        Ok(listener)
    }
}

/// Decides who may stay. It forgets a session as soon as that has ended: a handle on its connection would keep the
/// socket of a link that went down, and nobody could be served there again.
struct Gate {
    shared: Shared,
    sessions: Vec<Known>,
    next: SessionId,
    end: mpsc::Sender<SessionId>,
    ended: mpsc::Receiver<SessionId>,
}

/// A session under way.
struct Known {
    id: SessionId,
    peer: Peer,
    tasks: Tasks,
}

impl Gate {
    async fn run(&mut self, peers: &mut mpsc::Receiver<Peer>, tasks: &Tasks) {
        loop {
            tokio::select! {
                peer = peers.recv() => match peer {
                    Some(peer) => self.admit(peer, tasks),
                    None => return,
                },
                Some(id) = self.ended.recv() => self.sessions.retain(|s| s.id != id),
            }
        }
    }

    fn admit(&mut self, peer: Peer, tasks: &Tasks) {
        self.sessions
            .retain(|s| s.peer.connection.close_reason().is_none());
        let same = |s: &&Known| s.peer.identity() == peer.identity();
        if self.sessions.iter().filter(same).count() >= limits::SESSIONS_PER_REPEATER {
            // Its oldest is most likely dead: a repeater dials anew before the old connection has timed out.
            let oldest = self
                .sessions
                .iter()
                .position(|s| s.peer.identity() == peer.identity());
            let oldest = self.sessions.remove(oldest.expect("counted above"));
            oldest.peer.close(
                Code::Done.number(),
                "replaced by a newer session of this repeater",
            );
            oldest.tasks.cancel();
        }
        if self.sessions.len() >= limits::SESSIONS {
            warn!(who = %peer.identity(), address = %peer.address(), "refused: too many sessions");
            peer.close(Code::Busy.number(), "too many sessions");
            return;
        }
        let id = self.next;
        self.next += 1;
        let child = tasks.child();
        self.sessions.push(Known {
            id,
            peer: peer.clone(),
            tasks: child.clone(),
        });
        let (running, end) = (
            session::run(self.shared.clone(), id, peer, child.clone()),
            self.end.clone(),
        );
        child.spawn("camera session", async move {
            running.await;
            let _ = end.send(id).await; // the gate may have gone first
        });
    }
}
