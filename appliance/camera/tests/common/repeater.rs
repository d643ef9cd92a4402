//! A repeater of the test's own: it says whatever the test wants, and judges what it hears as a good one would.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use link::credentials::{CredentialFiles, Credentials, Keyring};
use link::endpoint_keys::EndpointKeys;
use link::frame::{self, Control};
use link::quic::{Dialer, Hop, Options, Peer};
use link::random::Random;
use link::refusals::Refusals;
use link::seams::Seams;
use link::socket::SocketOptions;
use protocol::codec;
use protocol::identity::{Role, Trust};
use protocol::ids::{CameraId, Digest, Time};
use protocol::inventory::{Inventory, Page};
use protocol::manifest::Manifest;
use protocol::message::{
    CameraHello, Message, Pull, Release, Released, RepeaterHello, WantManifests,
};

use super::{Served, Trial};

const PATIENCE: Duration = Duration::from_secs(20);

/// A repeater of the test's own: one session.
pub struct Repeater {
    pub peer: Peer,
    pub control: Control,
    pub hello: CameraHello,
    pub camera: CameraId,
    _dialer: Dialer,
    trust: Trust,
}

pub async fn dial(trial: &Trial, address: SocketAddr, folder: &str) -> (Dialer, Peer) {
    dial_with(trial, address, folder, Options::new(Hop::Camera)).await
}

async fn dial_with(
    trial: &Trial,
    address: SocketAddr,
    folder: &str,
    options: Options,
) -> (Dialer, Peer) {
    let at = |name: &str| trial.agency.path(&format!("{folder}/{name}"));
    let files = CredentialFiles {
        chain: at("chain.pem"),
        key: at("key.pem"),
        trust: trial.agency.path("trust.pem"),
        crl: Some(trial.agency.path("crl.pem")),
    };
    let seams = Seams::system();
    let socket = seams
        .bind(SocketOptions::at("127.0.0.1:0".parse().unwrap()))
        .await
        .unwrap();
    let keyring = Keyring::new(Credentials::load(&files, Role::Repeater).unwrap());
    let keys = EndpointKeys::fresh(&Random::system());
    let dialer = Dialer::new(&seams, socket, keyring, options, &keys, Refusals::new()).unwrap();
    let peer = dialer.connect(address).await.unwrap();
    (dialer, peer)
}

impl Repeater {
    /// Dials and says hello.
    pub async fn connect(
        trial: &Trial,
        served: &Served,
        docked: bool,
        key_list: Option<Bytes>,
    ) -> Repeater {
        Self::connect_as(trial, served, docked, key_list, "repeaters/station-1").await
    }
    pub async fn connect_as(
        trial: &Trial,
        served: &Served,
        docked: bool,
        key_list: Option<Bytes>,
        folder: &str,
    ) -> Repeater {
        let dialled = dial(trial, served.address, folder).await;
        Self::greet(trial, dialled, docked, key_list).await
    }
    /// Nearby, and from the first packet on the camera may have so many bytes under way to it and no more.
    pub async fn connect_narrow(trial: &Trial, served: &Served, window: u64) -> Repeater {
        let options = Options {
            receive_window: window,
            ..Options::new(Hop::Camera)
        };
        let dialled = dial_with(trial, served.address, "repeaters/station-1", options).await;
        Self::greet(trial, dialled, false, None).await
    }
    async fn greet(
        trial: &Trial,
        (dialer, peer): (Dialer, Peer),
        docked: bool,
        key_list: Option<Bytes>,
    ) -> Repeater {
        let mut control = Control::open(&peer.connection).await.unwrap();
        let hello = RepeaterHello {
            versions: vec![1],
            software: "test".into(),
            key_list: key_list.map(|k| k.to_vec().into()),
            now: Time(1_900_000_000_000),
            docked,
            now_error_ms: None,
        };
        control
            .send(&codec::encode_body(&Message::RepeaterHello(hello)).unwrap())
            .await
            .unwrap();
        let trust = trial.trust();
        let Message::CameraHello(hello) = next(&mut control).await else {
            panic!("not a hello")
        };
        let (exporter, serial) = protocol::cose::open_evidence(
            protocol::message::PROOF_KIND,
            &hello.proof,
            64 * 1024,
            &trust,
        )
        .unwrap();
        assert_eq!(exporter, peer.exporter(), "the proof is of this connection");
        let camera = CameraId {
            serial,
            incarnation: hello.incarnation,
        };
        Repeater {
            peer,
            control,
            hello,
            camera,
            _dialer: dialer,
            trust,
        }
    }
    pub async fn say(&mut self, message: &Message) {
        self.control
            .send(&codec::encode_body(message).unwrap())
            .await
            .unwrap();
    }
    pub async fn hear(&mut self) -> Message {
        next(&mut self.control).await
    }
    /// The next whole inventory; manifests before it are passed over.
    pub async fn inventory(&mut self) -> Inventory {
        let mut pages: Vec<Page> = Vec::new();
        loop {
            match self.hear().await {
                Message::Inventory(bytes) => {
                    pages.push(Page::verify(bytes, &self.trust).unwrap());
                    let body = pages.last().unwrap().body();
                    if body.page + 1 == body.pages {
                        return Inventory::assemble(pages).unwrap();
                    }
                }
                Message::Manifest(_) => {}
                other => panic!("not an inventory: {other:?}"),
            }
        }
    }
    /// Inventories until one satisfies `enough`.
    pub async fn inventory_until(&mut self, enough: impl Fn(&Inventory) -> bool) -> Inventory {
        loop {
            let inventory = self.inventory().await;
            if enough(&inventory) {
                return inventory;
            }
        }
    }
    /// The manifests of one recording, of which there are `count`.
    pub async fn manifests(&mut self, number: u64, count: u32) -> Vec<Manifest> {
        self.say(&Message::WantManifests(WantManifests {
            number,
            from_index: 0,
        }))
        .await;
        let mut found = Vec::new();
        while found.len() < count as usize {
            match self.hear().await {
                Message::Manifest(bytes) => {
                    found.push(Manifest::verify(bytes, &self.trust).unwrap())
                }
                Message::Inventory(_) => {}
                other => panic!("not a manifest: {other:?}"),
            }
        }
        found
    }
    /// Pulls; the error is the code with which the stream was reset.
    pub async fn pull(&self, digest: Digest, offset: u64) -> Result<Vec<u8>, u64> {
        let (mut send, mut recv) = self.peer.connection.open_bi().await.unwrap();
        let pull = codec::encode_body(&Message::Pull(Pull { digest, offset })).unwrap();
        frame::write_frame(&mut send, &pull).await.unwrap();
        read_pull(&mut recv).await
    }
    pub async fn release(&mut self, receipts: Vec<Bytes>) -> Vec<Released> {
        let receipts = receipts.iter().map(|r| r.to_vec().into()).collect();
        self.say(&Message::Release(Release { receipts })).await;
        let mut found = Vec::new();
        loop {
            let wait = if found.is_empty() {
                PATIENCE
            } else {
                Duration::from_millis(200)
            };
            match tokio::time::timeout(wait, self.control.recv()).await {
                Ok(frame) => match codec::decode(&frame.unwrap().unwrap()).unwrap() {
                    Message::Released(released) => found.push(released),
                    Message::Inventory(_) | Message::Manifest(_) => {}
                    other => panic!("not an answer: {other:?}"),
                },
                Err(_) => return found,
            }
        }
    }
    /// The code with which the camera closes the session.
    pub async fn closed(&self) -> u64 {
        match tokio::time::timeout(PATIENCE, self.peer.connection.closed())
            .await
            .expect("the session ends")
        {
            quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("ended otherwise: {other}"),
        }
    }
}

pub async fn read_pull(recv: &mut quinn::RecvStream) -> Result<Vec<u8>, u64> {
    let mut all = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, recv.read_chunk(1 << 20, true))
            .await
            .expect("the camera answers")
        {
            Ok(Some(chunk)) => all.extend_from_slice(&chunk.bytes),
            Ok(None) => break,
            Err(quinn::ReadError::Reset(code)) => return Err(code.into_inner()),
            Err(other) => panic!("{other}"),
        }
    }
    let length = u32::from_be_bytes(all[..4].try_into().unwrap()) as usize;
    let Message::Bytes(follow) = codec::decode(&all[4..4 + length]).unwrap() else {
        panic!("not bytes")
    };
    let bytes = all.split_off(4 + length);
    assert_eq!(follow.length, bytes.len() as u64);
    Ok(bytes)
}

async fn next(control: &mut Control) -> Message {
    let frame = tokio::time::timeout(PATIENCE, control.recv())
        .await
        .expect("the camera answers");
    codec::decode(&frame.unwrap().expect("the stream is open")).unwrap()
}
