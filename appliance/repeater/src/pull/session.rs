//! One session with one camera: who it is, what it holds, what is pulled of it, and its receipts back.
//!
//! One task owns the session's state; `select!` gives an event, a plain function applies it. The camera is
//! believed in nothing but what it signs: its serial by its device key over this connection, its footage by
//! manifests. Whatever it does wrong ends its own session and no other.

mod elsewhere;
mod leaving;
mod pulls;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use link::frame::{ControlRecv, ControlSend};
use link::quic::Peer;
use link::tasks::Tasks;
use protocol::codec;
use protocol::ids::{CameraId, Digest, RecordingId};
use protocol::inventory::{Inventory, InventoryError, Page};
use protocol::manifest::Manifest;
use protocol::message::{Message, WantManifests};
use spool::{Admission, Contact, Meeting, PullTask};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::Hop;
use super::greeting::{Greeted, greet};
use super::pace::Rate;
use super::permits::Joined;
use super::progress::Progress;
use super::transfer::{Means, Outcome};
use super::troubles::Troubles;
use crate::discover::roster::{Reach, Seat, Standing};
use crate::ended::Ended;
use crate::notices::Notices;
use crate::{limits, release};

use elsewhere::Elsewhere;

type Pull = JoinHandle<(PullTask, Outcome)>;

/// One connection to a camera, and what its dialler knows of it.
#[derive(Debug)]
pub struct Path {
    /// Where it was dialled.
    pub address: SocketAddr,
    /// The connection.
    pub peer: Peer,
    /// When it was dialled.
    pub dialled: Instant,
    /// What the roster says of it.
    pub standing: watch::Receiver<Standing>,
    /// Its signs of life.
    pub progress: Progress,
    /// Digests that cameras do not give as they should.
    pub troubles: Troubles,
}

/// A session's bell; forgotten when dropped, however the session ends, unless another session of the camera has it.
#[derive(Debug)]
struct Bell<'a> {
    notices: &'a Notices,
    camera: CameraId,
    rung: Arc<Notify>,
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        self.notices.forget_camera(&self.camera);
    }
}

/// The session's state.
#[derive(Debug)]
pub struct Session<'a> {
    hop: &'a Hop,
    path: Path,
    camera: CameraId,
    send: ControlSend,
    means: Means,
    bell: Bell<'a>,
    _joined: Joined,
    tasks: Tasks,
    /// Number of the key list that the camera was told.
    keys: u64,
    /// How it is reached; whether it is docked was told in the hello, and does not change within a session.
    reach: Reach,
    /// What the camera said of itself, until it is in the logbook.
    meeting: Meeting,
    /// Since when there is nothing to do.
    idle_since: Option<Instant>,
    /// How fast it may be asked.
    rate: Rate,
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
    /// What the camera says that sites have signed for.
    elsewhere: Elsewhere,
    /// What waits for their word, and until when it is not looked at.
    signed: HashMap<Digest, Instant>,
    receipts_may_be_due: bool,
    /// Receipts sent on this session.
    receipts_sent: HashSet<Digest>,
    /// Until the first segment is Held: recordings of which one is durable and waits for its header.
    first_held: Option<HashSet<RecordingId>>,
    /// Whether a manifest came that does not verify: the alarm stands until a session brings none.
    bad_manifest: Arc<AtomicBool>,
}

impl Session<'_> {
    /// Greets the camera and serves it until one of the two ends it. Whether it has proved who it is, too.
    pub async fn run(hop: &Hop, mut path: Path) -> (Ended, bool) {
        let (address, at) = (path.address, path.address.to_string());
        let reach = path.standing.borrow_and_update().reach;
        let greeted = tokio::select! {
            greeted = greet(hop, &path.peer, reach.is_docked()) => greeted,
            left = leaving::left(&mut path.standing) => Err(left),
            () = hop.tasks.cancelled() => Err(Ended::Stopped),
        };
        let greeted = match greeted {
            Ok(greeted) => greeted,
            Err(ended) => {
                // Nobody is known by name here: whoever answers at this address is at fault.
                if let Some(why) = ended.fault() {
                    hop.accuse(&at, why.to_owned());
                }
                return (ended, false);
            }
        };
        hop.acquit(&at);
        let camera = greeted.camera.clone();
        let now = hop.seams.clock.instant();
        let Seat::After(others) = hop.sessions.greeted(address, &camera, now) else {
            return (Ended::Elsewhere, true);
        };
        hop.sessions
            .update(address, |p| p.camera = Some(camera.clone()));
        // They keep what came of their pulls, so that nothing of it is asked for again.
        let gone = hop.sessions.gone(&others);
        let _ = tokio::time::timeout(limits::TAKE_OVER, gone).await;
        let (session, control) = Session::new(hop, path, greeted, reach);
        let bad_manifest = Arc::clone(&session.bad_manifest);
        // What follows is done whoever ends the session; what others must not see after it goes with its guards.
        let ended = tokio::select! {
            ended = session.serve(control) => ended,
            () = hop.tasks.cancelled() => Ended::Stopped,
        };
        let subject = camera.serial.to_string();
        match ended.fault() {
            Some(why) => hop.accuse(&subject, why.to_owned()),
            _ if bad_manifest.load(Ordering::Relaxed) => {}
            _ => hop.acquit(&subject),
        }
        let left = Contact::CameraLeft { camera };
        let _ = hop
            .storage
            .ask(move |spool, now| spool.contact(left, now))
            .await;
        (ended, true)
    }

    fn new(hop: &Hop, path: Path, greeted: Greeted, reach: Reach) -> (Session<'_>, ControlRecv) {
        let tasks = hop.tasks.child();
        let means = Means {
            peer: path.peer.clone(),
            storage: hop.storage.clone(),
            progress: path.progress.clone(),
            tasks: tasks.clone(),
            clock: hop.seams.clock.clone(),
            metrics: hop.metrics.clone(),
        };
        let bell = Bell {
            notices: &hop.notices,
            camera: greeted.camera.clone(),
            rung: hop.notices.of_camera(&greeted.camera),
        };
        let session = Session {
            hop,
            path,
            bell,
            _joined: hop.permits.join(&greeted.camera, greeted.deadline),
            camera: greeted.camera,
            send: greeted.send,
            means,
            tasks,
            keys: greeted.keys,
            reach,
            meeting: leaving::met(greeted.meeting, reach),
            idle_since: None,
            rate: Rate::new(hop.camera_bytes_per_second),
            pages: Vec::new(),
            wants: VecDeque::new(),
            pulls: FuturesUnordered::new(),
            ready: VecDeque::new(),
            in_flight: HashSet::new(),
            aside: HashMap::new(),
            paused_until: None,
            elsewhere: Elsewhere::nothing(hop.seams.clock.instant()),
            signed: HashMap::new(),
            receipts_may_be_due: true,
            receipts_sent: HashSet::new(),
            first_held: Some(HashSet::new()),
            bad_manifest: Arc::default(),
        };
        (session, greeted.recv)
    }

    async fn serve(mut self, mut control: ControlRecv) -> Ended {
        let served = self.serve_on(&mut control).await;
        self.let_go().await;
        served.err().unwrap_or(Ended::Stopped)
    }

    async fn serve_on(&mut self, control: &mut ControlRecv) -> Result<(), Ended> {
        let came = Contact::CameraCame {
            camera: self.camera.clone(),
            meeting: std::mem::take(&mut self.meeting),
        };
        self.hop
            .storage
            .ask(move |spool, now| spool.contact(came, now))
            .await?;
        info!(camera = %self.camera, address = %self.path.address, "session");
        loop {
            if self.hop.storage.keys().borrow().number() != self.keys {
                // Lists travel in hello: without the newer one the camera would refuse receipts of newer keys.
                return Err(Ended::Broken("a newer key list: greeting anew".into()));
            }
            self.look_at_path()?;
            self.ask_for_manifests().await?;
            self.fill().await?;
            if std::mem::take(&mut self.receipts_may_be_due) {
                self.release_due().await?;
            }
            self.let_sleep()?;
            self.show();
            let pause = self.pause();
            tokio::select! {
                frame = control.recv() => match frame? {
                    Some(frame) => self.heard(frame).await?,
                    None => return Err(Ended::Left("the camera ended the session")),
                },
                Some(pull) = self.pulls.next(), if !self.pulls.is_empty() => match pull {
                    Ok((task, outcome)) => self.pulled(&task, outcome)?,
                    Err(e) => return Err(Ended::Broken(format!("a pull ended: {e}"))),
                },
                Ok(()) = self.path.standing.changed() => {}
                () = self.bell.rung.notified() => self.receipts_may_be_due = true,
                () = tokio::time::sleep(pause) => self.tick(),
            }
        }
    }

    /// Applies one message of the camera.
    async fn heard(&mut self, frame: Bytes) -> Result<(), Ended> {
        let message = codec::decode(&frame)?;
        self.idle_since = None;
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
        let page = Page::verify(bytes, &trust).map_err(|e| match e {
            InventoryError::Version(_) => Ended::Version(format!("inventory: {e}")),
            e => Ended::Fault(format!("inventory: {e}")),
        })?;
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
        self.elsewhere.listed(&inventory);
        if self.path.troubles.listed(&inventory) {
            self.hop.acquit(&self.camera.to_string());
        }
        let outcome = self
            .hop
            .storage
            .ask(move |spool, now| spool.inventory(&inventory, now))
            .await?;
        self.hop.inventories.bring();
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
            self.bell.rung.notify_one();
        }
        Ok(())
    }

    async fn manifest(&mut self, bytes: Bytes) -> Result<(), Ended> {
        let trust = self.hop.keyring.current().trust.clone();
        let manifest = match Manifest::verify(bytes, &trust) {
            Ok(manifest) => manifest,
            // SPEC section 11: refused evidence alarms, and the session goes on: the other footage is not to blame.
            Err(e) => {
                let what = format!("a manifest that does not verify: {e}");
                warn!(camera = %self.camera, "{what}");
                self.hop.accuse(self.camera.serial.as_str(), what);
                self.bad_manifest.store(true, Ordering::Relaxed);
                return Ok(());
            }
        };
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
        let idle = self.in_flight.is_empty();
        let state = if idle { "idle" } else { "pulling" };
        let now = self.means.clock.instant();
        let (pulled, last) = (
            self.means.progress.pulled_bytes(),
            self.means.progress.last(now),
        );
        let address = self.path.address;
        self.hop.sessions.update(address, |p| {
            p.state = state;
            p.pulled_bytes = pulled;
            p.speed.look(pulled, !idle, now);
        });
        (self.hop.sessions).lives(address, leaving::alive_at(idle, now, last, self.pause()));
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
