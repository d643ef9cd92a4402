//! Both hops over QUIC: who dials whom, with which windows and timeouts, and what a verified peer is.
//!
//! A repeater dials ([`Dialer`]) cameras and archive sites, which listen ([`Listener`]). Either way what comes out
//! is a [`Peer`]: a connection whose certificate was verified for the expected role. Refused peers are logged
//! and counted, never returned.
//!
//! Each connection takes the credentials that are current when it begins, so that a renewed certificate or
//! revocation list needs no restart. A listener bounds the handshakes under way, makes diallers prove their
//! address when they are many, and gives each five seconds.
//!
//! One dialler or listener is one UDP socket with one [`EndpointKeys`] file.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use protocol::identity::{
    Identity, IdentityError, Revocation, Role, Usage, Verified, When, verify_chain,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connecting, Connection, ConnectionError, Endpoint, Incoming, ServerConfig, VarInt,
};
use rustls_pki_types::CertificateDer;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::credentials::{Credentials, Keyring};
use crate::endpoint_keys::EndpointKeys;
use crate::refusals::{self, Refusals};
use crate::seams::Seams;
use crate::socket::Socket;
use crate::tls::{self, Dates, PeerCheck, Verdict};
use crate::{endings, limits, transport};

pub use crate::endings::explain;
pub use crate::transport::{Hop, Options};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The configuration cannot work; says which part.
    #[error("{0}")]
    Configuration(String),
    /// The endpoint could not be made.
    #[error("cannot make a QUIC endpoint: {0}")]
    Endpoint(#[from] std::io::Error),
    /// The peer's certificate was refused, which is logged and counted.
    #[error("refused {address} as {expected}: its certificate is {error}")]
    Refused {
        /// Where it is.
        address: SocketAddr,
        /// What it should have been.
        expected: Role,
        /// What is wrong with its certificate.
        error: IdentityError,
    },
    /// No answer in time.
    #[error("no handshake with {address} within {limit:?}", limit = limits::HANDSHAKE)]
    Timeout {
        /// With whom.
        address: SocketAddr,
    },
    /// The connection ended during the handshake.
    #[error("no connection to {address}: {}", explain(.error))]
    Connection {
        /// With whom.
        address: SocketAddr,
        /// How it ended.
        error: ConnectionError,
    },
}

/// A verified peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The connection.
    pub connection: Connection,
    /// What its certificate says.
    pub verified: Verified,
}

impl Peer {
    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.verified.identity
    }
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.connection.remote_address()
    }
    /// The channel binding of RFC 9266: the same on both sides of this connection and no other.
    #[must_use]
    pub fn exporter(&self) -> [u8; 32] {
        let mut out = [0; 32];
        let exported =
            self.connection
                .export_keying_material(&mut out, b"EXPORTER-Channel-Binding", b"");
        exported.expect("32 bytes are within what TLS 1.3 exports");
        out
    }
    /// Judges the peer's certificate again under the present revocation lists. Dates do not count any more: a
    /// session that began in time may go on.
    ///
    /// # Errors
    /// Any [`IdentityError`].
    pub fn recheck(&self, present: &Credentials) -> Result<(), IdentityError> {
        let usage = match self.identity().role() {
            Role::Repeater => Usage::Client,
            Role::Archive | Role::Camera | Role::Device => Usage::Server,
        };
        let shown = self.connection.peer_identity();
        let chain = shown.and_then(|c| c.downcast::<Vec<CertificateDer<'static>>>().ok());
        let chain = chain.unwrap_or_default();
        verify_chain(
            &chain,
            &present.trust,
            When::Undated,
            usage,
            Revocation::Check,
        )
        .map(|_| ())
    }
    /// Resolves when replaced credentials no longer admit the peer: revocation ends sessions. Logs and counts it;
    /// the session's owner selects on this and closes.
    pub async fn until_refused(&self, keyring: &Keyring, refusals: &Refusals) -> IdentityError {
        let mut replaced = keyring.watch();
        // At once, too: what was replaced during the handshake was not seen by it.
        replaced.mark_changed();
        while replaced.changed().await.is_ok() {
            let present = replaced.borrow_and_update().clone();
            if let Err(error) = self.recheck(&present) {
                refusals.add(error.reason());
                warn!(peer = %self.address(), identity = %self.identity(), reason = error.reason(),
                    "ending a session: the peer's certificate is {error}");
                return error;
            }
        }
        std::future::pending().await
    }
    /// Changes how many bytes the peer may have under way to us.
    pub fn set_receive_window(&self, bytes: u64) {
        self.connection
            .set_receive_window(VarInt::from_u64(bytes).unwrap_or(VarInt::MAX));
    }
    /// Closes the connection, telling the peer why.
    pub fn close(&self, code: u32, reason: &str) {
        self.connection.close(code.into(), reason.as_bytes());
    }
}

/// The side that dials: a repeater.
#[derive(Clone, Debug)]
pub struct Dialer {
    endpoint: Endpoint,
    side: Side,
}

/// The side that listens: a camera or an archive site.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    side: Side,
    keys: EndpointKeys,
    handshakes: FuturesUnordered<BoxFuture<'static, Option<Peer>>>,
}

/// What both sides need for every connection.
#[derive(Clone, Debug)]
struct Side {
    clock: Clock,
    keyring: Keyring,
    options: Options,
    refusals: Refusals,
}

impl Side {
    fn check(&self, peer: SocketAddr, expected: Role, dates: Dates) -> PeerCheck {
        PeerCheck {
            peer,
            expected,
            trust: self.keyring.current().trust.clone(),
            clock: self.clock.clone(),
            dates,
            refusals: self.refusals.clone(),
            verdict: Verdict::default(),
        }
    }
}

impl Dialer {
    /// A dialler on `socket`. Must run inside the runtime that bound it.
    ///
    /// # Errors
    /// [`LinkError::Configuration`], [`LinkError::Endpoint`].
    pub fn new(
        seams: &Seams,
        socket: Socket,
        keyring: Keyring,
        options: Options,
        keys: &EndpointKeys,
        refusals: Refusals,
    ) -> Result<Self, LinkError> {
        options.check()?;
        let config = transport::endpoint_config(keys, &options, socket.rng_seed)?;
        let endpoint =
            Endpoint::new_with_abstract_socket(config, None, socket.socket, socket.runtime)?;
        Ok(Dialer {
            endpoint,
            side: Side {
                clock: seams.clock.clone(),
                keyring,
                options,
                refusals,
            },
        })
    }

    /// Dials. The peer's certificate is verified; whether it accepts ours shows in the first answer.
    ///
    /// # Errors
    /// Any [`LinkError`].
    pub async fn connect(&self, address: SocketAddr) -> Result<Peer, LinkError> {
        let expected = self.side.options.hop.listener_role();
        let check = self.side.check(address, expected, Dates::Enforced);
        let verdict = check.verdict.clone();
        let config = self.client_config(check)?;
        let name = format!("{expected}.bwc.invalid");
        let bad = |e| LinkError::Configuration(format!("cannot dial {address}: {e}"));
        let connecting = self
            .endpoint
            .connect_with(config, address, &name)
            .map_err(bad)?;
        let connected = tokio::time::timeout(limits::HANDSHAKE, connecting).await;
        match (connected, verdict.outcome()) {
            (Ok(Ok(connection)), Some(Ok(verified))) => Ok(Peer {
                connection,
                verified,
            }),
            (_, Some(Err(error))) => Err(LinkError::Refused {
                address,
                expected,
                error,
            }),
            (Ok(Err(error)), _) => Err(LinkError::Connection { address, error }),
            (Ok(Ok(_)) | Err(_), _) => Err(LinkError::Timeout { address }),
        }
    }

    fn client_config(&self, check: PeerCheck) -> Result<ClientConfig, LinkError> {
        let own = self.side.keyring.current();
        let bad = |e: rustls::Error| LinkError::Configuration(format!("TLS: {e}"));
        let tls = tls::client_config(&own, self.side.options.hop.alpn(), check).map_err(bad)?;
        let crypto = QuicClientConfig::try_from(tls)
            .expect("the provider has AES-128-GCM for initial packets");
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport::transport_config(
            &self.side.options,
            true,
        )));
        Ok(config)
    }

    /// Where the socket is bound.
    ///
    /// # Errors
    /// What the socket says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }
    /// Closes every connection and waits, at most a second, until the peers were told.
    pub async fn close(&self) {
        close(&self.endpoint).await;
    }
}

impl Listener {
    /// A listener on `socket`. Must run inside the runtime that bound it.
    ///
    /// # Errors
    /// [`LinkError::Configuration`], [`LinkError::Endpoint`].
    pub fn new(
        seams: &Seams,
        socket: Socket,
        keyring: Keyring,
        options: Options,
        keys: &EndpointKeys,
        refusals: Refusals,
    ) -> Result<Self, LinkError> {
        options.check()?;
        let side = Side {
            clock: seams.clock.clone(),
            keyring,
            options,
            refusals,
        };
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        // Of this first configuration only the limits and the keys of initial packets are used.
        let config = server_config(&side, keys, listener_check(&side, nobody))?;
        let endpoint_config = transport::endpoint_config(keys, &side.options, socket.rng_seed)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config,
            Some(config),
            socket.socket,
            socket.runtime,
        )?;
        Ok(Listener {
            endpoint,
            side,
            keys: keys.clone(),
            handshakes: FuturesUnordered::new(),
        })
    }

    /// The next verified peer; `None` once the endpoint is closed. Handshakes go on beside each other, while this
    /// is polled; dropping the future loses none of them.
    pub async fn accept(&mut self) -> Option<Peer> {
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => self.admit(incoming?),
                Some(done) = self.handshakes.next(), if !self.handshakes.is_empty() => {
                    if done.is_some() {
                        return done;
                    }
                }
            }
        }
    }

    fn admit(&self, incoming: Incoming) {
        let under_way = self.handshakes.len();
        if under_way >= limits::HANDSHAKES {
            self.side.refusals.add(refusals::OVERLOAD);
            incoming.refuse();
        } else if under_way >= limits::HANDSHAKES_BEFORE_RETRY
            && !incoming.remote_address_validated()
        {
            debug!(peer = %incoming.remote_address(), "many handshakes: asking to prove the address");
            let _ = incoming.retry(); // fails only where the address is validated
        } else {
            let address = incoming.remote_address();
            match self.begin(incoming) {
                Ok((connecting, verdict)) => {
                    let refusals = self.side.refusals.clone();
                    self.handshakes
                        .push(Box::pin(handshake(address, connecting, verdict, refusals)));
                }
                // A first packet that holds the whole hello is judged at once.
                Err(LinkError::Connection { error, .. }) => {
                    note(
                        address,
                        endings::reason(&error),
                        &explain(&error),
                        &self.side.refusals,
                    );
                }
                Err(error) => {
                    note(
                        address,
                        refusals::HANDSHAKE,
                        &error.to_string(),
                        &self.side.refusals,
                    );
                }
            }
        }
    }

    fn begin(&self, incoming: Incoming) -> Result<(Connecting, Verdict), LinkError> {
        let address = incoming.remote_address();
        let check = listener_check(&self.side, address);
        let verdict = check.verdict.clone();
        let config = server_config(&self.side, &self.keys, check)?;
        let connecting = incoming
            .accept_with(Arc::new(config))
            .map_err(|error| LinkError::Connection { address, error })?;
        Ok((connecting, verdict))
    }

    /// Where the socket is bound.
    ///
    /// # Errors
    /// What the socket says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }
    /// Closes every connection and waits, at most a second, until the peers were told.
    pub fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        let endpoint = self.endpoint.clone(); // a borrowed listener may not cross threads
        async move { close(&endpoint).await }
    }
}

fn listener_check(side: &Side, peer: SocketAddr) -> PeerCheck {
    let dates = match side.options.hop {
        Hop::Camera => Dates::WhenClockIsSet,
        Hop::Archive => Dates::Enforced,
    };
    side.check(peer, Role::Repeater, dates)
}

fn server_config(
    side: &Side,
    keys: &EndpointKeys,
    check: PeerCheck,
) -> Result<ServerConfig, LinkError> {
    let own = side.keyring.current();
    let bad = |e: rustls::Error| LinkError::Configuration(format!("TLS: {e}"));
    let tls = tls::server_config(&own, side.options.hop.alpn(), check).map_err(bad)?;
    let crypto =
        QuicServerConfig::try_from(tls).expect("the provider has AES-128-GCM for initial packets");
    let mut config = ServerConfig::new(Arc::new(crypto), keys.token_key());
    transport::apply_listener(&mut config, &side.options);
    Ok(config)
}

async fn handshake(
    address: SocketAddr,
    connecting: Connecting,
    verdict: Verdict,
    refusals: Refusals,
) -> Option<Peer> {
    let outcome = tokio::time::timeout(limits::HANDSHAKE, connecting).await;
    let (reason, why) = match (outcome, verdict.outcome()) {
        (Ok(Ok(connection)), Some(Ok(verified))) => {
            return Some(Peer {
                connection,
                verified,
            });
        }
        (_, Some(Err(_))) => return None, // logged and counted where it was refused
        (Ok(Err(error)), _) => (endings::reason(&error), explain(&error)),
        (Ok(Ok(_)) | Err(_), _) => {
            let why = format!("not done within {:?}", limits::HANDSHAKE);
            (refusals::HANDSHAKE_TIMEOUT, why)
        }
    };
    note(address, reason, &why, &refusals);
    None
}

fn note(address: SocketAddr, reason: &'static str, why: &str, refusals: &Refusals) {
    refusals.add(reason);
    warn!(peer = %address, reason, "refused a dialler: {why}");
}

async fn close(endpoint: &Endpoint) {
    endpoint.close(VarInt::from_u32(0), b"closing");
    let _ = tokio::time::timeout(limits::CLOSE, endpoint.wait_idle()).await;
}
