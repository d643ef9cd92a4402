//! One session with one camera: who it is, what it holds, what is pulled of it, and its receipts back.
//!
//! One task owns the session's state; `select!` gives an event, a plain function applies it. The camera is
//! believed in nothing but what it signs: its serial by its device key over this connection, its footage by
//! manifests. Whatever it does wrong ends its own session and no other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use link::frame::{ControlRecv, ControlSend};
use link::quic::Peer;
use link::tasks::Tasks;
use protocol::codec;
use protocol::ids::{CameraId, Digest};
use protocol::inventory::{Inventory, Page};
use protocol::manifest::Manifest;
use protocol::message::{Code, Message, WantManifests};
use protocol::pressure;
use spool::{Admission, Contact, PullTask, Reaction};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::Hop;
use super::ended::Ended;
use super::greeting::{Greeted, greet};
use super::progress::Progress;
use super::transfer::{self, Means, Outcome};
use crate::commit::{Pulled, StorageError};
use crate::{alarms, limits, release};

type Pull = JoinHandle<(Digest, Outcome)>;

/// The session's state.
#[derive(Debug)]
pub struct Session<'a> {
    hop: &'a Hop,
    address: SocketAddr,
    began: Instant,
    camera: CameraId,
    send: ControlSend,
    means: Means,
    bell: Arc<Notify>,
    tasks: Tasks,
    /// Number of the key list that the camera was told.
    keys: u64,
    /// Pages of an inventory that is not whole yet.
    pages: Vec<Page>,
    /// Manifests to be asked for.
    wants: VecDeque<WantManifests>,
    pulls: FuturesUnordered<Pull>,
    /// What the ledger gave to be pulled next.
    ready: VecDeque<PullTask>,
    in_flight: HashSet<Digest>,
    /// What is not pulled again before that time.
    aside: HashMap<Digest, Instant>,
    paused_until: Option<Instant>,
    receipts_may_be_due: bool,
    /// Receipts sent on this session.
    receipts_sent: HashSet<Digest>,
    first_held: bool,
}

impl Session<'_> {
    /// Greets the camera and serves it until one of the two ends it. `began` is when it was dialled.
    pub async fn run(hop: &Hop, address: SocketAddr, peer: Peer, began: Instant) -> Ended {
        let greeted = match greet(hop, &peer).await {
            Ok(greeted) => greeted,
            Err(ended) => return ended,
        };
        let camera = greeted.camera.clone();
        if hop
            .roster
            .busy_elsewhere(&camera, address, hop.seams.clock.instant())
        {
            return Ended::Elsewhere;
        }
        hop.roster
            .update(address, |p| p.camera = Some(camera.clone()));
        hop.permits.join(&camera);
        let (session, control) = Session::new(hop, address, peer, began, greeted);
        let ended = match session.serve(control).await {
            Ok(()) => Ended::Stopped,
            Err(ended) => ended,
        };
        hop.permits.leave(&camera);
        hop.notices.forget_camera(&camera);
        let subject = camera.serial.to_string();
        match &ended {
            Ended::Fault(why) | Ended::Identity(why) => {
                let mend = "update or examine this camera; its footage stays on it";
                hop.alarms.raise(
                    alarms::CAMERA_FAULT,
                    &subject,
                    why.clone(),
                    mend,
                    hop.seams.clock.now(),
                );
            }
            _ => hop.alarms.clear(alarms::CAMERA_FAULT, &subject),
        }
        let left = Contact::CameraLeft { camera };
        let _ = hop
            .storage
            .ask(move |spool, now| spool.contact(left, now))
            .await;
        ended
    }

    fn new(
        hop: &Hop,
        address: SocketAddr,
        peer: Peer,
        began: Instant,
        greeted: Greeted,
    ) -> (Session<'_>, ControlRecv) {
        let clock = hop.seams.clock.clone();
        let means = Means {
            peer,
            storage: hop.storage.clone(),
            progress: Progress::new(clock.instant()),
            clock,
            metrics: hop.metrics.clone(),
        };
        let session = Session {
            hop,
            address,
            began,
            bell: hop.notices.of_camera(&greeted.camera),
            camera: greeted.camera,
            send: greeted.send,
            means,
            tasks: hop.tasks.child(),
            keys: greeted.keys,
            pages: Vec::new(),
            wants: VecDeque::new(),
            pulls: FuturesUnordered::new(),
            ready: VecDeque::new(),
            in_flight: HashSet::new(),
            aside: HashMap::new(),
            paused_until: None,
            receipts_may_be_due: true,
            receipts_sent: HashSet::new(),
            first_held: false,
        };
        (session, greeted.recv)
    }

    async fn serve(mut self, mut control: ControlRecv) -> Result<(), Ended> {
        let came = Contact::CameraCame {
            camera: self.camera.clone(),
            docked: true,
        };
        self.hop
            .storage
            .ask(move |spool, now| spool.contact(came, now))
            .await?;
        info!(camera = %self.camera, address = %self.address, "session");
        loop {
            if self.hop.storage.keys().borrow().number() != self.keys {
                // Lists travel in hello: without the newer one the camera would refuse receipts of newer keys.
                return Err(Ended::Broken("a newer key list: greeting anew".into()));
            }
            self.ask_for_manifests().await?;
            self.fill().await?;
            if std::mem::take(&mut self.receipts_may_be_due) {
                self.release_due().await?;
            }
            self.show();
            tokio::select! {
                frame = control.recv() => match frame? {
                    Some(frame) => self.heard(frame).await?,
                    None => return Err(Ended::Broken("the camera ended the session".into())),
                },
                Some(pull) = self.pulls.next(), if !self.pulls.is_empty() => match pull {
                    Ok((digest, outcome)) => self.pulled(digest, outcome)?,
                    Err(e) => return Err(Ended::Broken(format!("a pull ended: {e}"))),
                },
                () = self.bell.notified() => self.receipts_may_be_due = true,
                () = tokio::time::sleep(Duration::from_secs(1)) => self.tick(),
            }
        }
    }

    /// Applies one message of the camera.
    async fn heard(&mut self, frame: Bytes) -> Result<(), Ended> {
        self.means.progress.alive(self.means.clock.instant());
        let message = codec::decode(&frame).map_err(|e| Ended::Fault(e.to_string()))?;
        match message {
            Message::Inventory(bytes) => self.inventory_page(bytes).await,
            Message::Manifest(bytes) => self.manifest(bytes).await,
            Message::Released(answer) => {
                release::released(&self.hop.storage, &self.camera, answer).await?;
                Ok(())
            }
            Message::Unsupported(number) => {
                warn!(camera = %self.camera, number, "the camera does not know a message");
                Ok(())
            }
            Message::Error(e) => {
                warn!(camera = %self.camera, code = e.code, "the camera says: {}", e.text);
                Ok(())
            }
            Message::Unknown(number) => self.say(&Message::Unsupported(number)).await,
            other => Err(Ended::Fault(format!(
                "message {} has no place in this session",
                other.number()
            ))),
        }
    }

    async fn inventory_page(&mut self, bytes: Bytes) -> Result<(), Ended> {
        let trust = self.hop.keyring.current().trust.clone();
        let page =
            Page::verify(bytes, &trust).map_err(|e| Ended::Fault(format!("inventory: {e}")))?;
        let body = page.body();
        if body.camera != self.camera {
            return Err(Ended::Identity("an inventory of another camera".into()));
        }
        if body.page == 0 {
            self.pages.clear();
        }
        let pages = body.pages;
        let next = u32::try_from(self.pages.len()).unwrap_or(u32::MAX);
        if body.page != next || self.pages.len() >= limits::INVENTORY_PAGES {
            return Err(Ended::Fault("inventory pages out of order".into()));
        }
        self.pages.push(page);
        if next + 1 < pages {
            return Ok(());
        }
        let inventory = Inventory::assemble(std::mem::take(&mut self.pages));
        let inventory = inventory.map_err(|e| Ended::Fault(format!("inventory: {e}")))?;
        let number = inventory.number();
        self.hop.inventories.bring(inventory.clone());
        let outcome = self
            .hop
            .storage
            .ask(move |spool, now| spool.inventory(&inventory, now))
            .await?;
        debug!(camera = %self.camera, number, wanted = outcome.want.len(), "inventory");
        self.wants = outcome.want.into();
        // What the inventory lists without receipts is owed them again.
        self.receipts_sent.clear();
        self.receipts_may_be_due = true;
        Ok(())
    }

    async fn ask_for_manifests(&mut self) -> Result<(), Ended> {
        for _ in 0..64 {
            let Some(want) = self.wants.pop_front() else {
                break;
            };
            self.say(&Message::WantManifests(want)).await?;
        }
        if !self.wants.is_empty() {
            self.bell.notify_one();
        }
        Ok(())
    }

    async fn manifest(&mut self, bytes: Bytes) -> Result<(), Ended> {
        let trust = self.hop.keyring.current().trust.clone();
        let manifest =
            Manifest::verify(bytes, &trust).map_err(|e| Ended::Fault(format!("manifest: {e}")))?;
        if manifest.recording().camera != self.camera {
            return Err(Ended::Identity("a manifest of another camera".into()));
        }
        let (recording, index) = (manifest.recording().number, manifest.body().index);
        let admission = self
            .hop
            .storage
            .ask(move |spool, now| spool.admit(&manifest, now))
            .await?;
        match admission {
            Admission::New => {
                debug!(camera = %self.camera, recording, index, "announced");
                self.hop.notices.sites();
            }
            Admission::Known => {}
            Admission::Conflict => {
                warn!(camera = %self.camera, recording, index, "a second manifest with this index")
            }
            Admission::Refused(why) => {
                warn!(camera = %self.camera, recording, index, "manifest refused: {why}")
            }
        }
        Ok(())
    }

    /// Asks for segments while there is room: in flight, in the spool, in this camera's share of it.
    async fn fill(&mut self) -> Result<(), Ended> {
        let now = self.means.clock.instant();
        let room = self.hop.pulls.saturating_sub(self.in_flight.len());
        if room == 0 || self.paused_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        self.paused_until = None;
        if self.ready.is_empty() {
            self.look_for_work(now).await?;
        }
        for _ in 0..room {
            let Some(task) = self.ready.pop_front() else {
                break;
            };
            self.start(task);
        }
        Ok(())
    }

    /// Asks the ledger what to pull next. What went elsewhere meanwhile is not wanted when it is begun.
    async fn look_for_work(&mut self, now: Instant) -> Result<(), Ended> {
        self.aside.retain(|_, until| now < *until);
        let skip: HashSet<Digest> = self
            .in_flight
            .iter()
            .chain(self.aside.keys())
            .copied()
            .collect();
        let (camera, crowded) = (
            self.camera.clone(),
            self.hop.permits.others_want(&self.camera),
        );
        let tasks = self.hop.storage.ask(move |spool, now| {
            let held = spool.camera_bytes(&camera)?;
            if !pressure::may_hold(held, spool.space().capacity_bytes, crowded) {
                return Ok((Vec::new(), true));
            }
            Ok((
                spool.next_pulls(&camera, limits::PULL_BATCH, &skip, now)?,
                false,
            ))
        });
        let (tasks, over_share) = tasks.await?;
        self.hop.permits.wants(
            &self.camera,
            !tasks.is_empty() || !self.in_flight.is_empty(),
        );
        if over_share {
            self.paused_until = Some(now + Duration::from_secs(1));
        }
        self.ready = tasks.into();
        Ok(())
    }

    fn start(&mut self, task: PullTask) {
        let digest = task.digest;
        self.in_flight.insert(digest);
        let (means, permits, token) = (
            self.means.clone(),
            self.hop.permits.clone(),
            self.tasks.token(),
        );
        let camera = self.camera.clone();
        let pull = self.tasks.spawn("pull", async move {
            let work = async {
                let permit = permits
                    .take(&camera, task.class, task.captured, task.length.into())
                    .await;
                transfer::pull(means, task, permit).await
            };
            tokio::select! {
                done = work => done,
                () = token.cancelled() => (digest, Outcome::Broken("the session ended".into())),
            }
        });
        self.pulls.push(pull);
    }

    fn pulled(&mut self, digest: Digest, outcome: Outcome) -> Result<(), Ended> {
        self.in_flight.remove(&digest);
        let now = self.means.clock.instant();
        let mut aside = |wait: Duration| {
            self.aside.insert(digest, now + wait);
        };
        match outcome {
            Outcome::Judged(Pulled::Durable { held }) => {
                if held && !self.first_held {
                    self.first_held = true;
                    self.means
                        .metrics
                        .first_held_seconds
                        .observe((now - self.began).as_secs_f64());
                }
            }
            Outcome::Judged(Pulled::Again) => {}
            Outcome::Judged(Pulled::Refused) => {
                warn!(camera = %self.camera, %digest, "bytes are not what is signed")
            }
            Outcome::Judged(Pulled::Incomplete) => aside(Duration::from_secs(1)),
            Outcome::NotNow(StorageError::Gone) => return Err(Ended::Stopped),
            Outcome::NotNow(StorageError::Slow) => {
                self.paused_until = Some(now + Duration::from_secs(1))
            }
            Outcome::NotNow(StorageError::Spool(e)) => {
                debug!(camera = %self.camera, %digest, "not pulled now: {e}");
                match e.reaction() {
                    Reaction::NoSpace => self.paused_until = Some(now + Duration::from_secs(1)),
                    _ => aside(Duration::from_secs(2)),
                }
            }
            Outcome::Denied(code) if code == u64::from(Code::Busy.number()) => {
                self.paused_until = Some(now + Duration::from_secs(2));
            }
            Outcome::Denied(code) => {
                debug!(camera = %self.camera, %digest, code, "the camera does not give it");
                aside(Duration::from_secs(10));
            }
            Outcome::Broken(why) => {
                debug!(camera = %self.camera, %digest, "pull broken: {why}");
                aside(Duration::from_millis(500));
            }
            Outcome::Fault(why) => return Err(Ended::Fault(why)),
        }
        Ok(())
    }

    async fn release_due(&mut self) -> Result<(), Ended> {
        while let Some((message, digests)) =
            release::due(&self.hop.storage, &self.camera, &self.receipts_sent).await?
        {
            self.say(&message).await?;
            self.receipts_sent.extend(digests);
        }
        Ok(())
    }

    fn tick(&mut self) {
        self.receipts_may_be_due = true;
        if self.in_flight.is_empty() {
            // Nothing is asked: the connection's keep-alive says whether the camera is there.
            self.means.progress.alive(self.means.clock.instant());
        }
    }

    fn show(&self) {
        let state = if self.in_flight.is_empty() {
            "idle"
        } else {
            "pulling"
        };
        let (pulled, last) = (
            self.means.progress.pulled_bytes(),
            self.means.progress.last(self.means.clock.instant()),
        );
        self.hop.roster.update(self.address, |p| {
            p.state = state;
            p.pulled_bytes = pulled;
            p.last_byte = last;
        });
    }

    async fn say(&mut self, message: &Message) -> Result<(), Ended> {
        let item = codec::encode_body(message).map_err(|e| Ended::Broken(e.to_string()))?;
        Ok(self.send.send(&item).await?)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}
