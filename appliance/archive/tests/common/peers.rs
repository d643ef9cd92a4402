//! The program as a process, and a repeater's side of the archive hop that can be told to misbehave.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::Duration;

use link::credentials::{CredentialFiles, Credentials, Keyring};
use link::endpoint_keys::EndpointKeys;
use link::frame::{Control, write_frame};
use link::quic::{Dialer, Hop, Options, Peer};
use link::refusals::Refusals;
use link::seams::Seams;
use link::socket::SocketOptions;
use protocol::codec;
use protocol::identity::Role;
use protocol::ids::{Digest, Time};
use protocol::keylist::KeyList;
use protocol::manifest::Manifest;
use protocol::message::{Countersigned, Message, Put, RepeaterHello, Want};
use protocol::receipt::Receipt;
use protocol::suite::sha256;

use super::{Recording, World, sha};

/// The program, running.
pub struct Gateway {
    pub child: Child,
    pub address: SocketAddr,
}

impl Gateway {
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// SIGTERM, and its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A repeater's side of one session.
pub struct Repeater {
    pub dialer: Dialer,
    pub peer: Peer,
    pub control: Control,
    pub hello: protocol::message::ArchiveHello,
    keys: KeyList,
}

impl Repeater {
    pub async fn dial(world: &World, address: SocketAddr) -> Repeater {
        Repeater::dial_with(world, address, &world.key_list()).await
    }

    /// Dials with a key list of its own.
    pub async fn dial_with(world: &World, address: SocketAddr, list: &KeyList) -> Repeater {
        let (dialer, peer, mut control) = Repeater::connect(world, address).await;
        let hello = RepeaterHello {
            versions: vec![1],
            software: "test".into(),
            key_list: Some(list.bytes().to_vec().into()),
            now: Time(0),
            docked: false,
            now_error_ms: None,
        };
        control
            .send(&codec::encode_body(&Message::RepeaterHello(hello)).unwrap())
            .await
            .unwrap();
        let frame = control.recv().await.unwrap().unwrap();
        let Message::ArchiveHello(hello) = codec::decode(&frame).unwrap() else {
            panic!("not a hello")
        };
        Repeater {
            dialer,
            peer,
            control,
            hello,
            keys: world.key_list(),
        }
    }

    /// Who it is.
    pub fn credentials(world: &World) -> Credentials {
        let folder = world.agency().join("repeaters/s1-1");
        let files = CredentialFiles {
            chain: folder.join("chain.pem"),
            key: folder.join("key.pem"),
            trust: world.agency().join("trust.pem"),
            crl: None,
        };
        Credentials::load(&files, Role::Repeater).unwrap()
    }

    /// Connects, and says nothing yet.
    pub async fn connect(world: &World, address: SocketAddr) -> (Dialer, Peer, Control) {
        let keyring = Keyring::new(Repeater::credentials(world));
        let seams = Seams::system();
        let socket = seams
            .bind(SocketOptions::at("127.0.0.1:0".parse().unwrap()))
            .await
            .unwrap();
        let keys = EndpointKeys::fresh(&seams.random);
        let dialer = Dialer::new(
            &seams,
            socket,
            keyring,
            Options::new(Hop::Archive),
            &keys,
            Refusals::default(),
        )
        .unwrap();
        let peer = dialer.connect(address).await.unwrap();
        let control = Control::open(&peer.connection).await.unwrap();
        (dialer, peer, control)
    }

    pub async fn send(&mut self, message: Message) {
        self.control
            .send(&codec::encode_body(&message).unwrap())
            .await
            .unwrap();
    }

    pub async fn recv(&mut self) -> Message {
        self.recv_within(Duration::from_secs(20))
            .await
            .expect("no answer came")
    }

    pub async fn recv_within(&mut self, wait: Duration) -> Option<Message> {
        let frame = tokio::time::timeout(wait, self.control.recv()).await.ok()?;
        Some(codec::decode(&frame.unwrap().expect("the session ended")).unwrap())
    }

    pub async fn offer(&mut self, manifest: &Manifest) {
        self.send(Message::Offer(manifest.bytes().clone())).await;
    }

    pub async fn want(&mut self) -> Want {
        match self.recv().await {
            Message::Want(want) => want,
            other => panic!("not a want: {other:?}"),
        }
    }

    pub async fn receipt(&mut self) -> Receipt {
        match self.recv().await {
            Message::Receipt(bytes) => Receipt::verify(bytes, &self.keys).unwrap(),
            other => panic!("not a receipt: {other:?}"),
        }
    }

    pub async fn refusal(&mut self) -> protocol::message::Refused {
        match self.recv().await {
            Message::Refused(refused) => refused,
            other => panic!("not a refusal: {other:?}"),
        }
    }

    /// Sends the head of a logbook.
    pub async fn head(&mut self, signed: &[u8]) -> Countersigned {
        self.send(Message::LogbookHead(signed.to_vec().into()))
            .await;
        match self.recv().await {
            Message::Countersignature(answer) if answer.about == sha256(signed) => answer,
            other => panic!("not about that head: {other:?}"),
        }
    }

    pub async fn put(&self, manifest: Digest, digest: Digest, bytes: &[u8]) {
        let mut stream = self.peer.connection.open_uni().await.unwrap();
        let put = codec::encode_body(&Message::Put(Put { manifest, digest })).unwrap();
        write_frame(&mut stream, &put).await.unwrap();
        let _ = stream.write_all(bytes).await; // it may be stopped
        let _ = stream.finish();
    }

    /// Offers and puts everything of a recording, and gathers what its receipts name.
    pub async fn deliver(&mut self, recording: &Recording) -> Vec<Digest> {
        let mut receipted = Vec::new();
        for manifest in &recording.manifests {
            self.offer(manifest).await;
            let named: Vec<Digest> = manifest.body().segments.iter().map(|s| s.digest).collect();
            while !named.iter().all(|d| receipted.contains(d)) {
                match self.recv().await {
                    Message::Want(want) => {
                        for digest in want.digests {
                            self.put(want.manifest, digest, &recording.bytes_of(digest))
                                .await;
                        }
                    }
                    Message::Receipt(bytes) => {
                        let receipt = Receipt::verify(bytes, &self.keys).unwrap();
                        assert_eq!(receipt.body().header, sha(&recording.header));
                        receipted.extend_from_slice(&receipt.body().segments);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        receipted
    }
}
