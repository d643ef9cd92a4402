//! One session with one repeater: hello, inventory, then what it asks for, until it goes or breaks a rule.
//!
//! Two tasks: the control stream (messages and announcements, in order) and the pulls (a stream each, bounded by the
//! connection's stream limit). A repeater that does not read its control stream, stays silent in its hello or
//! sends nonsense ends its own session and nothing else. Nothing personal is said before the TLS handshake is done:
//! the listener hands over finished connections only, and the hello is the first thing written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use link::clock::Clock;
use link::credentials::Keyring;
use link::frame::{Control, ControlRecv, ControlSend, FrameError};
use link::quic::Peer;
use link::refusals::Refusals;
use link::tasks::Tasks;
use protocol::codec;
use protocol::cose::{self, DeviceSigner};
use protocol::ids::Incarnation;
use protocol::message::{self, CameraHello, Code, Message, MessageError, Released, RepeaterHello};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::battery;
use super::custodian::{Bulletin, Desk, Disk, Request, Shown};
use super::pull;
use super::turn::{SessionId, Turn};
use crate::limits;
use crate::store::Found;
use crate::store::custody::Taken;

/// What all sessions share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) desk: Desk,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    pub(crate) signer: Arc<DeviceSigner>,
    pub(crate) incarnation: Incarnation,
    pub(crate) turn: watch::Sender<Turn>,
    pub(crate) folder: PathBuf,
    pub(crate) battery: Option<PathBuf>,
    pub(crate) keyring: Keyring,
    pub(crate) refusals: Refusals,
}

/// One session as its pulls see it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) docked: bool,
    pub(crate) desk: Desk,
    pub(crate) disk: Disk,
    clock: Clock,
    turn: watch::Sender<Turn>,
}

impl Session {
    /// Asks for the turn to be served bytes.
    pub(crate) fn ask_turn(&self) -> bool {
        let (mut has, now) = (false, self.clock.instant());
        self.turn.send_if_modified(|turn| {
            let before = turn.holder();
            has = turn.ask(self.id, self.docked, now);
            turn.holder() != before
        });
        has
    }

    /// Notes that bytes were taken; whether the session still has the turn.
    pub(crate) fn took(&self) -> bool {
        let (mut has, now) = (false, self.clock.instant());
        self.turn.send_if_modified(|turn| {
            has = turn.took(self.id, now);
            false
        });
        has
    }

    /// How long nothing was taken; none without the turn.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.turn.borrow().silence(self.id, self.clock.instant())
    }

    /// Returns when another session has the turn.
    pub(crate) async fn lost_turn(&self) {
        let mut turn = self.turn.subscribe();
        let lost = turn
            .wait_for(|turn| turn.holder() != Some(self.id))
            .await
            .is_ok();
        if !lost {
            std::future::pending::<()>().await; // the sender lives as long as `self`
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let id = self.id;
        self.turn.send_modify(|turn| turn.leave(id));
    }
}

/// Why a session ends, and what the peer is told.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the control stream: {0}")]
    Frame(#[from] FrameError),
    #[error("{1}")]
    Told(Code, String),
}

impl End {
    fn code(&self) -> Code {
        match self {
            End::Told(code, _) => *code,
            End::Frame(FrameError::TooLong { .. }) => Code::Limit,
            End::Frame(FrameError::Truncated) => Code::Protocol,
            End::Frame(FrameError::Timeout) => Code::Timeout,
            End::Frame(_) => Code::Done,
        }
    }
}

fn told(code: Code, text: &str) -> End {
    End::Told(code, text.to_owned())
}

/// Runs a session to its end and closes the connection.
pub(crate) async fn run(shared: Shared, id: SessionId, peer: Peer, tasks: Tasks) {
    let (who, address) = (peer.identity().to_string(), peer.address());
    info!(session = id, %who, %address, "session begins");
    let (stop, keyring, refusals) = (
        tasks.token(),
        shared.keyring.clone(),
        shared.refusals.clone(),
    );
    let end = tokio::select! {
        end = talk(shared, id, &peer, &tasks) => end,
        error = peer.until_refused(&keyring, &refusals) => Err(End::Told(Code::Identity, error.to_string())),
        () = stop.cancelled() => Err(told(Code::Shutdown, "this camera stops serving")),
    };
    let (code, why) = match &end {
        Ok(()) => (Code::Done, "finished".to_owned()),
        Err(end) => (end.code(), end.to_string()),
    };
    match code {
        Code::Done | Code::Shutdown => info!(session = id, %who, why, "session ends"),
        _ => warn!(session = id, %who, %address, ?code, why, "session ended by this camera"),
    }
    peer.close(code.number(), &why);
    tasks.cancel();
}

async fn talk(shared: Shared, id: SessionId, peer: &Peer, tasks: &Tasks) -> Result<(), End> {
    let (mut send, mut recv) = Control::accept(&peer.connection).await?.split();
    let hello = receive_hello(&mut recv).await?;
    if message::common_version(&hello.versions).is_none() {
        return Err(told(Code::Version, "no common version of the messages"));
    }
    let key_list = hello.key_list.map(|b| Bytes::from(Vec::from(b)));
    let known = shared
        .desk
        .ask(|answer| Request::Hello(key_list, hello.now, answer))
        .await
        .ok_or_else(stopping)?;
    say(&mut send, &camera_hello(&shared, &peer.exporter(), known)?).await?;
    let session = Arc::new(Session {
        id,
        docked: hello.docked,
        desk: shared.desk.clone(),
        disk: shared.disk,
        clock: shared.clock.clone(),
        turn: shared.turn.clone(),
    });
    let pulls = accept_pulls(Arc::clone(&session), peer.connection.clone(), tasks.clone());
    let talk = Talk {
        send,
        recv,
        session,
        clock: shared.clock,
        news: 0,
        said: Bulletin::default(),
    };
    tokio::select! {
        end = talk.run() => end,
        () = pulls => Ok(()), // the connection is gone
    }
}

async fn receive_hello(recv: &mut ControlRecv) -> Result<RepeaterHello, End> {
    let frame = timeout(limits::HELLO_DEADLINE, recv.recv()).await;
    let frame = frame.map_err(|_| told(Code::Timeout, "no hello in time"))??;
    let frame =
        frame.ok_or_else(|| told(Code::Protocol, "the control stream ended before hello"))?;
    match codec::decode(&frame) {
        Ok(Message::RepeaterHello(hello)) => Ok(hello),
        Ok(other) => Err(told(
            Code::Protocol,
            &format!("message {} before hello", other.number()),
        )),
        Err(error) => Err(unread(&error)),
    }
}

fn unread(error: &MessageError) -> End {
    let code = match error {
        MessageError::Malformed(_) => Code::Protocol,
        MessageError::Limit(_) => Code::Limit,
    };
    End::Told(code, error.to_string())
}

fn camera_hello(shared: &Shared, exporter: &[u8; 32], key_list: u64) -> Result<Message, End> {
    let proof = cose::sign_evidence(message::PROOF_KIND, exporter.to_vec(), &shared.signer)
        .map_err(|error| {
            End::Told(
                Code::Internal,
                format!("the proof cannot be signed: {error}"),
            )
        })?;
    let battery = battery::read(shared.battery.as_deref());
    let software = concat!("bodycam/", env!("CARGO_PKG_VERSION"));
    Ok(Message::CameraHello(CameraHello {
        versions: message::VERSIONS.to_vec(),
        software: software.to_owned(),
        proof: proof.into(),
        incarnation: shared.incarnation,
        key_list,
        now: shared.clock.is_set().then(|| shared.clock.now()),
        battery_percent: battery.percent,
        charging: battery.charging,
        free_bytes: free_bytes(&shared.folder),
        firmware: software.to_owned(),
    }))
}

fn free_bytes(folder: &Path) -> u64 {
    match nix::sys::statvfs::statvfs(folder) {
        Ok(room) => room.blocks_available().saturating_mul(room.fragment_size()),
        Err(error) => {
            warn!(%error, "the free space is not known");
            0
        }
    }
}

fn stopping() -> End {
    told(Code::Shutdown, "this camera stops serving")
}

async fn say(send: &mut ControlSend, message: &Message) -> Result<(), End> {
    let body = codec::encode_body(message).map_err(|e| End::Told(Code::Internal, e.to_string()))?;
    Ok(send.send(&body).await?)
}

async fn accept_pulls(session: Arc<Session>, connection: quinn::Connection, tasks: Tasks) {
    // At most as many at once as the connection allows streams.
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (session, stop) = (Arc::clone(&session), tasks.token());
        tasks.spawn("camera pull", async move {
            tokio::select! {
                () = pull::serve(session, send, recv) => {}
                () = stop.cancelled() => {} // dropping the streams resets them
            }
        });
    }
}

/// The control stream after hello.
struct Talk {
    send: ControlSend,
    recv: ControlRecv,
    session: Arc<Session>,
    clock: Clock,
    /// Place in the news up to which manifests were announced.
    news: u64,
    /// What was known when the last inventory went.
    said: Bulletin,
}

impl Talk {
    async fn run(mut self) -> Result<(), End> {
        let mut bulletin = self.session.desk.bulletin.clone();
        let mut due = self.inventory(&mut bulletin).await?;
        loop {
            let new = *bulletin.borrow_and_update();
            if new.manifests > self.news && !self.announce().await? {
                due = self.inventory(&mut bulletin).await?; // lags further behind than the news reach
            }
            let wants_inventory = new.inventory != self.said.inventory;
            tokio::select! {
                frame = self.recv.recv() => match frame? {
                    Some(frame) => self.hear(&frame).await?,
                    None => return Ok(()),
                },
                changed = bulletin.changed() => changed.map_err(|_| stopping())?,
                () = tokio::time::sleep_until(due.into()), if wants_inventory => {
                    due = self.inventory(&mut bulletin).await?;
                }
            }
        }
    }

    /// Sends the inventory; gives when the next may go.
    async fn inventory(
        &mut self,
        bulletin: &mut watch::Receiver<Bulletin>,
    ) -> Result<Instant, End> {
        self.said = *bulletin.borrow_and_update();
        let Shown { pages, news } = self
            .session
            .desk
            .ask(Request::Inventory)
            .await
            .ok_or_else(stopping)?;
        for page in pages.iter() {
            say(&mut self.send, &Message::Inventory(page.clone())).await?;
        }
        self.news = self.news.max(news);
        let pages = u32::try_from(pages.len()).unwrap_or(u32::MAX);
        Ok(self.clock.instant() + limits::INVENTORY_EVERY.saturating_mul(pages))
    }

    /// Announces manifests that are new; false where they are no longer remembered.
    async fn announce(&mut self) -> Result<bool, End> {
        let from = self.news;
        let new = self
            .session
            .desk
            .ask(|answer| Request::News(from, answer))
            .await
            .ok_or_else(stopping)?;
        let Some(new) = new else { return Ok(false) };
        for (number, index) in new {
            self.manifest(number, index).await?;
            self.news += 1;
        }
        Ok(true)
    }

    /// Sends a manifest; false where the recording has none of that index or above.
    async fn manifest(&mut self, number: u64, index: u32) -> Result<bool, End> {
        let found = self
            .session
            .desk
            .ask(|answer| Request::Manifest(number, index, answer))
            .await;
        match found.ok_or_else(stopping)? {
            Found::Here(bytes) => say(&mut self.send, &Message::Manifest(bytes)).await?,
            Found::Damaged => {} // those after it stand by themselves
            Found::NotHere => return Ok(false),
        }
        Ok(true)
    }

    /// Answers `release`, in as many messages as its digests need.
    async fn released(&mut self, number: u64, taken: Taken) -> Result<(), End> {
        let mut refused = taken.refused;
        let room = limits::RELEASED_DIGESTS;
        let mut chunks = taken.receipted.chunks(room).peekable();
        loop {
            let digests = chunks.next().unwrap_or_default().to_vec();
            let answer = Released {
                number,
                digests,
                refused: std::mem::take(&mut refused),
            };
            say(&mut self.send, &Message::Released(answer)).await?;
            if chunks.peek().is_none() {
                return Ok(());
            }
        }
    }

    async fn hear(&mut self, frame: &[u8]) -> Result<(), End> {
        let message = codec::decode(frame).map_err(|error| unread(&error))?;
        match message {
            Message::WantManifests(want) => {
                let mut index = want.from_index;
                while self.manifest(want.number, index).await? {
                    index = index.saturating_add(1);
                }
                Ok(())
            }
            Message::Release(release) => {
                let receipts = release
                    .receipts
                    .into_iter()
                    .map(|r| Bytes::from(Vec::from(r)))
                    .collect();
                let taken = self
                    .session
                    .desk
                    .ask(|answer| Request::Release(receipts, answer))
                    .await;
                for (number, taken) in taken.ok_or_else(stopping)? {
                    self.released(number, taken).await?;
                }
                Ok(())
            }
            Message::Unknown(number) => say(&mut self.send, &Message::Unsupported(number)).await,
            Message::Unsupported(number) => {
                info!(
                    session = self.session.id,
                    number, "the repeater does not know a message of ours"
                );
                Ok(())
            }
            Message::Error(error) => {
                warn!(
                    session = self.session.id,
                    code = error.code,
                    text = error.text,
                    "the repeater reports"
                );
                Ok(())
            }
            other => Err(told(
                Code::Protocol,
                &format!("message {} has no place here", other.number()),
            )),
        }
    }
}
