//! A camera that says what the scenario wants: certified by the agency and signing with its device key, since nothing
//! less gets past the handshake, but lying in one thing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use link::frame::{read_frame, write_frame};
use link::quic::{Hop, Peer};
use protocol::codec;
use protocol::cose::{self, DeviceSigner};
use protocol::ids::{CameraId, Digest};
use protocol::message::{BytesFollow, CameraHello, Message, PROOF_KIND, VERSIONS};
use quinn::{Connection, SendStream};

use crate::double::{Listening, Talk, camera_keyring};
use crate::sealed::{Recording, inventory, page, signer};
use crate::station::Station;

/// Until what was sent has come, before the connection is ended.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// How a pull is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Announces so many bytes and sends these.
    Bytes(u64, Bytes),
    /// The same, and leaves the stream open.
    Stall(u64, Bytes),
    /// Announces so many bytes, sends these, and ends the connection once they have left.
    Vanish(u64, Bytes),
    /// Another message than it should be.
    Wrong(Message),
    /// Resets the stream.
    Reset(u32),
}

/// Decides how a pull is answered.
type Answers = Arc<dyn Fn(&[Recording], Digest, u64) -> Answer + Send + Sync>;

/// What the double says and does.
#[derive(Clone)]
pub struct Script {
    /// Who it says it is.
    pub camera: CameraId,
    /// What it holds.
    pub recordings: Vec<Recording>,
    /// What it says after its hello: inventory pages, and whatever else.
    pub says: Vec<Message>,
    /// Whether its proof is of this connection.
    pub proves: bool,
    /// How it answers pulls.
    pub answers: Answers,
    /// What it was asked: digests and offsets.
    pub asked: Arc<Mutex<Vec<(Digest, u64)>>>,
    /// Its device key.
    pub signer: Arc<DeviceSigner>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Script({})", self.camera)
    }
}

/// What an honest camera answers.
#[must_use]
pub fn honest(recordings: &[Recording], digest: Digest, offset: u64) -> Answer {
    let Some(bytes) = recordings.iter().find_map(|r| r.bytes_of(&digest)) else {
        return Answer::Reset(9);
    };
    let rest = bytes.slice(usize::try_from(offset).unwrap().min(bytes.len())..);
    Answer::Bytes(rest.len() as u64, rest)
}

impl Script {
    /// An honest camera with these recordings.
    #[must_use]
    pub fn new(station: &Station, camera: CameraId, recordings: Vec<Recording>) -> Script {
        let page = page(station, inventory(&camera, 1, &recordings));
        Script {
            signer: Arc::new(signer(station, camera.serial.as_str())),
            camera,
            recordings,
            says: vec![Message::Inventory(page.bytes().clone())],
            proves: true,
            answers: Arc::new(honest),
            asked: Arc::default(),
        }
    }

    /// With other answers to pulls.
    #[must_use]
    pub fn answering(
        self,
        answers: impl Fn(&[Recording], Digest, u64) -> Answer + Send + Sync + 'static,
    ) -> Script {
        Script {
            answers: Arc::new(answers),
            ..self
        }
    }

    /// Serves, in the background.
    #[must_use]
    pub fn listen(self, station: &Station) -> Listening {
        let keyring = camera_keyring(station, self.camera.serial.as_str());
        Listening::start(Hop::Camera, keyring, move |talk| serve(self.clone(), talk))
    }

    fn hello(&self, peer: &Peer) -> Message {
        let signed = if self.proves {
            peer.exporter()
        } else {
            [7; 32]
        };
        let proof = cose::sign_evidence(PROOF_KIND, signed.to_vec(), &self.signer).unwrap();
        Message::CameraHello(CameraHello {
            versions: VERSIONS.to_vec(),
            software: "double".into(),
            proof: proof.into(),
            incarnation: self.camera.incarnation,
            key_list: 0,
            now: None,
            battery_percent: None,
            charging: None,
            free_bytes: 1 << 30,
            firmware: "double".into(),
        })
    }
}

async fn serve(script: Script, mut talk: Talk) {
    let Some(Message::RepeaterHello(_)) = talk.hear().await else {
        return;
    };
    talk.say(&script.hello(&talk.peer)).await;
    for message in &script.says {
        talk.say(message).await;
    }
    let connection = talk.peer.connection.clone();
    let mut open: Vec<SendStream> = Vec::new();
    loop {
        tokio::select! {
            frame = talk.control.recv() => match frame {
                Ok(Some(frame)) => hear(&script, &mut talk, &frame).await,
                _ => return,
            },
            stream = connection.accept_bi() => {
                let Ok((mut send, mut recv)) = stream else { return };
                let Ok(frame) = read_frame(&mut recv).await else { continue };
                let Ok(Message::Pull(pull)) = codec::decode(&frame) else { panic!("not a pull") };
                script.asked.lock().unwrap_or_else(PoisonError::into_inner).push((pull.digest, pull.offset));
                let answer = (script.answers)(&script.recordings, pull.digest, pull.offset);
                if give(&connection, &mut send, answer).await {
                    open.push(send);
                }
            }
        }
    }
}

async fn hear(script: &Script, talk: &mut Talk, frame: &[u8]) {
    if let Ok(Message::WantManifests(want)) = codec::decode(frame) {
        for recording in script
            .recordings
            .iter()
            .filter(|r| r.id.number == want.number)
        {
            talk.say(&Message::Manifest(recording.manifest.bytes().clone()))
                .await;
        }
    }
}

/// Answers; whether the stream is to stay open.
async fn give(connection: &Connection, send: &mut SendStream, answer: Answer) -> bool {
    let (stalls, vanishes) = (
        matches!(answer, Answer::Stall(..)),
        matches!(answer, Answer::Vanish(..)),
    );
    let (length, bytes) = match answer {
        Answer::Bytes(length, bytes)
        | Answer::Stall(length, bytes)
        | Answer::Vanish(length, bytes) => (length, bytes),
        Answer::Wrong(message) => {
            let _ = write_frame(send, &codec::encode_body(&message).unwrap()).await;
            return false;
        }
        Answer::Reset(code) => {
            let _ = send.reset(code.into());
            return false;
        }
    };
    let follow = codec::encode_body(&Message::Bytes(BytesFollow { length })).unwrap();
    let _ = write_frame(send, &follow).await;
    let _ = send.write_all(&bytes).await; // it may be stopped
    if vanishes {
        tokio::time::sleep(UNDER_WAY).await;
        connection.close(0_u32.into(), b"");
    } else if !stalls {
        let _ = send.finish();
    }
    stalls
}
