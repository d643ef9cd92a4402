//! Doubles of parties, made of `link` and `protocol` alone: a repeater's side of a session with a real camera
//! ([`Visitor`]), and listeners in the background that stand for a camera or a site ([`Listening`]).
//!
//! What a double of a camera or a site says wrong is decided by the scenario, in `camera_double` and `site_double`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use link::credentials::{CredentialFiles, Credentials, Keyring};
use link::endpoint_keys::EndpointKeys;
use link::frame::{Control, read_frame, write_frame};
use link::quic::{Dialer, Hop, Listener, Options, Peer};
use link::random::Random;
use link::refusals::Refusals;
use link::seams::Seams;
use link::socket::SocketOptions;
use link::tasks::{Tasks, current_thread};
use protocol::codec;
use protocol::identity::Role;
use protocol::ids::{Digest, Time};
use protocol::message::{CameraHello, Message, Pull, Release, Released, RepeaterHello, VERSIONS};

use crate::station::{STATION, Station};

/// A double waits no longer than this for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A message that there is not: its answer says that all before it was dealt with.
const FENCE: u16 = 99;

/// Runs a future to its end, on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    current_thread(future).unwrap()
}

/// Credentials of a party, by its folder in the agency.
#[must_use]
pub fn keyring(station: &Station, role: Role, folder: &str, stem: &str) -> Keyring {
    let (chain, key) = (
        format!("{folder}/{stem}.pem"),
        format!("{folder}/{}", key_name(role)),
    );
    let files = CredentialFiles {
        chain: station.agency.path(&chain),
        key: station.agency.path(&key),
        trust: station.agency.path("trust.pem"),
        crl: None,
    };
    Keyring::new(Credentials::load(&files, role).unwrap())
}

fn key_name(role: Role) -> &'static str {
    if role == Role::Camera {
        "link.key"
    } else {
        "key.pem"
    }
}

/// The repeater's credentials.
#[must_use]
pub fn repeater_keyring(station: &Station) -> Keyring {
    keyring(
        station,
        Role::Repeater,
        &format!("repeaters/{STATION}-1"),
        "chain",
    )
}

/// A camera's credentials.
#[must_use]
pub fn camera_keyring(station: &Station, serial: &str) -> Keyring {
    keyring(station, Role::Camera, &format!("cameras/{serial}"), "link")
}

/// A site's credentials.
#[must_use]
pub fn site_keyring(station: &Station, site: &str) -> Keyring {
    keyring(station, Role::Archive, &format!("archives/{site}"), "chain")
}

/// A control stream that speaks messages.
#[derive(Debug)]
pub struct Talk {
    /// The connection.
    pub peer: Peer,
    /// Its control stream.
    pub control: Control,
}

impl Talk {
    /// Says something; a peer that has gone is the scenario's matter.
    pub async fn say(&mut self, message: &Message) {
        let _ = self
            .control
            .send(&codec::encode_body(message).unwrap())
            .await;
    }

    /// Hears the next message; none where the session has ended.
    pub async fn hear(&mut self) -> Option<Message> {
        let frame = tokio::time::timeout(PATIENCE, self.control.recv())
            .await
            .expect("the peer says something");
        Some(codec::decode(&frame.ok()??).unwrap())
    }
}

/// A repeater's hello.
#[must_use]
pub fn repeater_hello(key_list: Option<Bytes>, docked: bool) -> Message {
    Message::RepeaterHello(RepeaterHello {
        versions: VERSIONS.to_vec(),
        software: "double".into(),
        key_list: key_list.map(|b| b.to_vec().into()),
        now: Time(1_790_000_000_000),
        docked,
        now_error_ms: None,
    })
}

/// A dialler with these credentials.
pub async fn dialer(hop: Hop, keyring: Keyring) -> Dialer {
    dialer_with(Options::new(hop), keyring).await
}

async fn dialer_with(options: Options, keyring: Keyring) -> Dialer {
    let seams = Seams::system();
    let socket = seams
        .bind(SocketOptions::at(SocketAddr::from(([127, 0, 0, 1], 0))))
        .await
        .unwrap();
    let keys = EndpointKeys::fresh(&seams.random);
    Dialer::new(&seams, socket, keyring, options, &keys, Refusals::new()).unwrap()
}

/// A repeater at a camera, past the hellos.
#[derive(Debug)]
pub struct Visitor {
    _dialer: Dialer,
    /// The session.
    pub talk: Talk,
    /// What the camera said first.
    pub hello: CameraHello,
}

impl Visitor {
    /// Dials a camera and says hello, with the agency's newest key list.
    pub async fn dial(station: &Station, address: SocketAddr) -> Visitor {
        Visitor::dial_with(station, address, Some(station.key_list().bytes().clone())).await
    }

    /// The same with another key list.
    pub async fn dial_with(
        station: &Station,
        address: SocketAddr,
        key_list: Option<Bytes>,
    ) -> Visitor {
        Visitor::greet(station, address, key_list, Options::new(Hop::Camera)).await
    }

    /// The same with the newest key list, and never more than so many bytes unread on their way to it.
    pub async fn dial_narrow(station: &Station, address: SocketAddr, window: u64) -> Visitor {
        let options = Options {
            receive_window: window,
            ..Options::new(Hop::Camera)
        };
        let key_list = Some(station.key_list().bytes().clone());
        Visitor::greet(station, address, key_list, options).await
    }

    async fn greet(
        station: &Station,
        address: SocketAddr,
        key_list: Option<Bytes>,
        options: Options,
    ) -> Visitor {
        let dialer = dialer_with(options, repeater_keyring(station)).await;
        let peer = dialer.connect(address).await.unwrap();
        let control = Control::open(&peer.connection).await.unwrap();
        let mut talk = Talk { peer, control };
        talk.say(&repeater_hello(key_list, true)).await;
        let Some(Message::CameraHello(hello)) = talk.hear().await else {
            panic!("no hello")
        };
        Visitor {
            _dialer: dialer,
            talk,
            hello,
        }
    }

    /// Pulls from an offset; else the code with which the camera reset the stream.
    ///
    /// # Errors
    /// That code.
    pub async fn pull(&self, digest: Digest, offset: u64) -> Result<Bytes, u64> {
        let (mut send, mut recv) = self.talk.peer.connection.open_bi().await.unwrap();
        let ask = codec::encode_body(&Message::Pull(Pull { digest, offset })).unwrap();
        write_frame(&mut send, &ask).await.unwrap();
        let _ = send.finish();
        let code = |e: &quinn::ReadError| match e {
            quinn::ReadError::Reset(code) => code.into_inner(),
            other => panic!("{other}"),
        };
        let frame = match read_frame(&mut recv).await {
            Ok(frame) => frame,
            Err(link::frame::FrameError::Stream(e)) => {
                return Err(code(
                    e.get_ref().and_then(|e| e.downcast_ref()).expect("a reset"),
                ));
            }
            Err(e) => panic!("{e}"),
        };
        let Message::Bytes(follow) = codec::decode(&frame).unwrap() else {
            panic!("no bytes follow")
        };
        let mut bytes = vec![0; usize::try_from(follow.length).unwrap()];
        match recv.read_exact(&mut bytes).await {
            Ok(()) => Ok(bytes.into()),
            Err(quinn::ReadExactError::ReadError(e)) => Err(code(&e)),
            Err(e) => panic!("{e}"),
        }
    }

    /// Brings receipts and gives the camera's answers: one for each recording touched. The camera takes messages in
    /// order, so that once it answers a later one, all its answers to the receipts have come.
    ///
    /// # Panics
    /// Where the session ends before.
    pub async fn release(&mut self, receipts: &[Bytes]) -> Vec<Released> {
        let receipts = receipts.iter().map(|r| r.to_vec().into()).collect();
        self.talk.say(&Message::Release(Release { receipts })).await;
        self.talk.say(&Message::Unknown(FENCE)).await;
        let mut answers = Vec::new();
        loop {
            match self.talk.hear().await {
                Some(Message::Released(answer)) => answers.push(answer),
                Some(Message::Unsupported(FENCE)) => return answers,
                Some(_) => {}
                None => panic!("the camera ended a session that brought receipts"),
            }
        }
    }
}

/// A listener in the background, which serves every peer that the agency certified.
#[derive(Debug)]
pub struct Listening {
    /// Where to dial.
    pub address: SocketAddr,
    tasks: Tasks,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Listens and gives each session to `serve`, all in a thread of its own.
    pub fn start<F, Fut>(hop: Hop, keyring: Keyring, serve: F) -> Listening
    where
        F: Fn(Talk) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (tasks, stop) = (Tasks::new(), Tasks::new());
        let (ready, address) = std::sync::mpsc::sync_channel(1);
        let group = tasks.clone();
        let thread = std::thread::spawn(move || {
            block_on(async {
                let mut listener = listener(hop, keyring).await;
                ready.send(listener.local_addr().unwrap()).unwrap();
                let serve = Arc::new(serve);
                loop {
                    let peer = tokio::select! {
                        peer = listener.accept() => peer.expect("the endpoint is open"),
                        () = group.cancelled() => break,
                    };
                    let (serve, token) = (Arc::clone(&serve), group.token());
                    stop.spawn("double", async move {
                        let Ok(control) = Control::accept(&peer.connection).await else {
                            return;
                        };
                        tokio::select! {
                            () = serve(Talk { peer, control }) => {}
                            () = token.cancelled() => {}
                        }
                    });
                }
                listener.close().await;
            });
        });
        Listening {
            address: address.recv().unwrap(),
            tasks,
            thread: Some(thread),
        }
    }
}

async fn listener(hop: Hop, keyring: Keyring) -> Listener {
    let seams = Seams::system();
    let socket = seams
        .bind(SocketOptions::at(SocketAddr::from(([127, 0, 0, 1], 0))))
        .await
        .unwrap();
    let keys = EndpointKeys::fresh(&Random::system());
    Listener::new(
        &seams,
        socket,
        keyring,
        Options::new(hop),
        &keys,
        Refusals::new(),
    )
    .unwrap()
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.tasks.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
