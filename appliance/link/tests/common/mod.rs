//! What the tests of handshakes and sessions share: a trial agency, a listener in the background, a dialler.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "tests, each using a part"
)]

use std::net::SocketAddr;
use std::time::Duration;

use link::agency::{Agency, TrialOptions, trial};
use link::clock::Clock;
use link::credentials::{CredentialFiles, Credentials, Keyring};
use link::endpoint_keys::EndpointKeys;
use link::quic::{Dialer, Hop, Listener, Options, Peer};
use link::random::Random;
use link::refusals::Refusals;
use link::seams::Seams;
use link::socket::SocketOptions;
use protocol::identity::Role;

/// A trial agency with one camera and one site.
pub struct Trial {
    pub agency: Agency,
    _dir: tempfile::TempDir,
}

impl Trial {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = TrialOptions {
            cameras: 1,
            ..TrialOptions::default()
        };
        let agency = trial(
            &dir.path().join("trial"),
            &options,
            &Clock::system(),
            &Random::system(),
        )
        .unwrap();
        Trial { agency, _dir: dir }
    }
    pub fn files(&self, chain: &str, key: &str) -> CredentialFiles {
        let path = |p: &str| self.agency.path(p);
        CredentialFiles {
            chain: path(chain),
            key: path(key),
            trust: path("trust.pem"),
            crl: Some(path("crl.pem")),
        }
    }
    pub fn repeater_files(&self) -> CredentialFiles {
        self.files("repeaters/trial-1/chain.pem", "repeaters/trial-1/key.pem")
    }
    pub fn camera_files(&self) -> CredentialFiles {
        self.files("cameras/BWC-0001/link.pem", "cameras/BWC-0001/link.key")
    }
    pub fn site_files(&self) -> CredentialFiles {
        self.files("archives/site-a/chain.pem", "archives/site-a/key.pem")
    }
    pub fn repeater(&self) -> Keyring {
        Keyring::new(Credentials::load(&self.repeater_files(), Role::Repeater).unwrap())
    }
    pub fn camera(&self) -> Keyring {
        Keyring::new(Credentials::load(&self.camera_files(), Role::Camera).unwrap())
    }
    pub fn site(&self) -> Keyring {
        Keyring::new(Credentials::load(&self.site_files(), Role::Archive).unwrap())
    }
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub fn seams(clock: &Clock) -> Seams {
    Seams {
        clock: clock.clone(),
        ..Seams::system()
    }
}

/// A listener that serves in the background: what it accepted comes out of the channel.
pub struct Server {
    pub address: SocketAddr,
    pub refusals: Refusals,
    pub accepted: tokio::sync::mpsc::Receiver<Peer>,
    pub task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(hop: Hop, keyring: Keyring, clock: &Clock) -> Self {
        let keys = EndpointKeys::fresh(&Random::system());
        Self::start_at(loopback(0), hop, keyring, clock, &keys).await
    }
    pub async fn start_at(
        at: SocketAddr,
        hop: Hop,
        keyring: Keyring,
        clock: &Clock,
        keys: &EndpointKeys,
    ) -> Self {
        Self::start_with(at, Options::new(hop), keyring, clock, keys).await
    }
    pub async fn start_with(
        at: SocketAddr,
        options: Options,
        keyring: Keyring,
        clock: &Clock,
        keys: &EndpointKeys,
    ) -> Self {
        let seams = seams(clock);
        let refusals = Refusals::new();
        let socket = seams.bind(SocketOptions::at(at)).await.unwrap();
        let mut listener =
            Listener::new(&seams, socket, keyring, options, keys, refusals.clone()).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, accepted) = tokio::sync::mpsc::channel(256);
        let task = link::tasks::Tasks::new().spawn("server", async move {
            while let Some(peer) = listener.accept().await {
                if sender.send(peer).await.is_err() {
                    break;
                }
            }
        });
        Server {
            address,
            refusals,
            accepted,
            task,
        }
    }
    pub async fn next(&mut self) -> Peer {
        tokio::time::timeout(Duration::from_secs(10), self.accepted.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

pub async fn dialer(hop: Hop, keyring: Keyring, clock: &Clock) -> (Dialer, Refusals) {
    dialer_with(Options::new(hop), keyring, clock).await
}

pub async fn dialer_with(options: Options, keyring: Keyring, clock: &Clock) -> (Dialer, Refusals) {
    let seams = seams(clock);
    let refusals = Refusals::new();
    let socket = seams.bind(SocketOptions::at(loopback(0))).await.unwrap();
    let keys = EndpointKeys::fresh(&seams.random);
    let dialer = Dialer::new(&seams, socket, keyring, options, &keys, refusals.clone()).unwrap();
    (dialer, refusals)
}
