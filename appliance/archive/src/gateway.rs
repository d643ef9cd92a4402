//! The gateway: what all sessions share, and the program's life from listening to its last receipt.
//!
//! Stateless: everything that outlives it is in the store, so several gateways may serve one. One
//! current-thread runtime; the store's blocking work goes to tokio's blocking pool, bounded by the room for
//! bytes in flight. A session is one task; its end, whatever the reason, is its own.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use link::credentials::Keyring;
use link::endpoint_keys::EndpointKeys;
use link::quic::{Hop, LinkError, Listener, Options, Peer};
use link::seams::Seams;
use link::socket::SocketOptions;
use link::tasks::Tasks;
use object_store::path::Path;
use protocol::ids::{Digest, RecordingId, SiteId};
use protocol::limits as wire;
use protocol::message::Code;
use tracing::info;

use crate::admit;
use crate::alarms::{Alarm, Alarms};
use crate::config::Grants;
use crate::heads::Heads;
use crate::intake::{self, Room};
use crate::inventories::Inventories;
use crate::keys::Keys;
use crate::layout::{self, Item};
use crate::limits;
use crate::listings::Listings;
use crate::lookups::Turns;
use crate::metrics::Metrics;
use crate::session;
use crate::vault::{Vault, VaultError};
use crate::visitors::Visitors;

/// What all sessions share.
pub struct Gateway {
    /// The site that it signs for.
    pub site: SiteId,
    /// Time, randomness, sockets.
    pub seams: Seams,
    /// The store.
    pub vault: Vault,
    /// Certificates and whom they are checked against.
    pub keyring: Keyring,
    /// The key list and the receipt key.
    pub keys: Keys,
    /// What is taken on at one time.
    pub grants: Grants,
    /// Memory for segments, of all connections.
    pub room: Room,
    /// Whose turn it is to be looked up.
    pub turns: Turns,
    /// Recordings listed lately.
    pub listings: Listings,
    /// Newest inventory numbers.
    pub inventories: Inventories,
    /// Whose logbook's head is being judged.
    pub heads: Heads,
    /// Who has a session.
    pub visitors: Arc<Visitors>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Alarms.
    pub alarms: Arc<Alarms>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("site", &self.site)
            .field("vault", &self.vault)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway over an open store.
    #[must_use]
    pub fn new(
        site: SiteId,
        seams: Seams,
        vault: Vault,
        keyring: Keyring,
        keys: Keys,
        grants: Grants,
    ) -> Gateway {
        let metrics = Metrics::new();
        let alarms = Alarms::new(&metrics.registry);
        Gateway {
            site,
            seams,
            vault,
            keyring,
            keys,
            room: intake::room(grants.bytes_in_flight),
            grants,
            turns: Turns::default(),
            listings: Listings::default(),
            inventories: Inventories::default(),
            heads: Heads::default(),
            visitors: Arc::default(),
            metrics: Arc::new(metrics),
            alarms: Arc::new(alarms),
        }
    }

    /// Raises an alarm now.
    pub fn alarm(&self, alarm: Alarm, subject: &str, what: &str) {
        self.alarms
            .raise(alarm, subject, what, self.seams.clock.now());
    }

    /// Keeps evidence: durable when it returns.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn keep(
        &self,
        id: &RecordingId,
        item: Item,
        bytes: Bytes,
        digest: Digest,
    ) -> Result<(), VaultError> {
        let (path, length) = (layout::key(id, item), bytes.len());
        let put = self.vault.put(&path, bytes, digest).await?;
        admit::after_put(self, item, path.as_ref(), length, &put);
        self.listings
            .add(id, item, u64::try_from(length).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Work of the store with its deadline.
    ///
    /// # Errors
    /// [`VaultError`], also when the deadline passed.
    pub async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, VaultError>>,
    ) -> Result<T, VaultError> {
        let late = |_| {
            VaultError::new(
                "finish with",
                &Path::from(""),
                "the store did not answer in time",
            )
        };
        tokio::time::timeout(limits::STORE, work)
            .await
            .map_err(late)?
    }

    /// Raises or ends the alarm about the store.
    pub fn watch_store<T>(&self, outcome: &Result<T, VaultError>) {
        match outcome {
            Ok(_) => self.alarms.clear(Alarm::StoreFailed, "store"),
            Err(error) => self.alarm(Alarm::StoreFailed, "store", &error.to_string()),
        }
    }

    /// Keeps a key list in the store, for the other gateways.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn keep_key_list(&self, number: u64, bytes: Bytes) -> Result<(), VaultError> {
        let digest = protocol::suite::sha256(&bytes);
        self.vault
            .put(&layout::key_list(number, digest), bytes, digest)
            .await
            .map(drop)
    }
}

/// A gateway that listens.
#[derive(Debug)]
pub struct Serving {
    listener: Listener,
    gateway: Arc<Gateway>,
    tasks: Tasks,
}

impl Serving {
    /// Binds the socket.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn bind(
        gateway: Arc<Gateway>,
        address: SocketAddr,
        datagram_bytes: Option<u16>,
        keys: &EndpointKeys,
        tasks: Tasks,
    ) -> Result<Serving, LinkError> {
        let socket = gateway.seams.bind(SocketOptions::at(address)).await?;
        let whole = gateway.grants.bytes_in_flight_per_connection / wire::SEGMENT_BYTES as u64;
        let mut options =
            Options::new(Hop::Archive).each_stream_whole(u16::try_from(whole).unwrap_or(u16::MAX));
        options.datagram_bytes = datagram_bytes.unwrap_or(options.datagram_bytes);
        let refusals = gateway.metrics.handshakes.clone();
        let listener = Listener::new(
            &gateway.seams,
            socket,
            gateway.keyring.clone(),
            options,
            keys,
            refusals,
        )?;
        Ok(Serving {
            listener,
            gateway,
            tasks,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the socket answers.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the tasks are cancelled; what is on its way then becomes durable and is receipted first.
    pub async fn run(mut self) {
        let stop = self.tasks.token();
        let sessions = self.tasks.child();
        loop {
            let peer = tokio::select! {
                () = stop.cancelled() => break,
                peer = self.listener.accept() => peer,
            };
            let Some(peer) = peer else { break };
            self.admit(peer, &sessions);
        }
        sessions.shutdown(limits::SHUTDOWN).await;
        self.listener.close().await;
    }

    fn admit(&self, peer: Peer, sessions: &Tasks) {
        let open = self.gateway.metrics.sessions.get();
        if open >= i64::from(self.gateway.grants.connections) {
            return turn_away(&peer, "as many sessions as are allowed are open");
        }
        let Some(visit) = self.gateway.visitors.enter(peer.identity()) else {
            return turn_away(&peer, "it has as many sessions open as one may have");
        };
        let (gateway, stop) = (Arc::clone(&self.gateway), sessions.token());
        gateway.metrics.sessions.inc();
        sessions.spawn("session", async move {
            Box::pin(session::run(&gateway, peer, stop)).await;
            gateway.metrics.sessions.dec();
            drop(visit);
        });
    }
}

fn turn_away(peer: &Peer, why: &str) {
    info!(peer = %peer.identity(), "turned away: {why}");
    peer.close(Code::Busy.number(), why);
}
