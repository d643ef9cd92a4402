//! One session with one archive site: manifests offered, what it wants put, its receipts taken.
//!
//! One task owns the session's state; `select!` gives an event, a plain function applies it. The site is
//! believed in nothing but receipts that verify under the key list. What it refuses stays Held, marked.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use link::frame::{ControlRecv, ControlSend};
use link::quic::{LinkError, Peer};
use link::tasks::Tasks;
use protocol::codec;
use protocol::ids::{Digest, RecordingId, SiteId};
use protocol::manifest::Class;
use protocol::message::Message;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use super::Hop;
use super::heads::Heads;
use super::hello;
use super::put::{Means, Outcome};
use crate::ended::Ended;
use crate::{alarms, limits};

/// An offer that waits for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) since: Instant,
    /// Objects that it names: so many may be wanted.
    pub(super) objects: usize,
    pub(super) class: Class,
}

/// A site's answer to an offer.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) wanted: HashSet<Digest>,
    pub(super) grant: u32,
    pub(super) class: Class,
    /// When it was answered, or last put for.
    pub(super) touched: Instant,
}

/// A segment on its way to its receipt.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) manifest: Digest,
    /// The recording whose header it is, if it is one.
    pub(super) header_of: Option<RecordingId>,
    pub(super) since: Instant,
    /// When the site had all of it.
    pub(super) sent: Option<Instant>,
    /// Ends the put.
    pub(super) stop: Tasks,
}

/// The session's state.
#[derive(Debug)]
pub struct Session<'a> {
    pub(super) hop: &'a Hop,
    pub(super) site: &'a SiteId,
    pub(super) next_address: SocketAddr,
    /// Number of the key list when the site was greeted.
    pub(super) keys: u64,
    pub(super) send: ControlSend,
    pub(super) means: Means,
    pub(super) bell: Arc<Notify>,
    pub(super) tasks: Tasks,
    pub(super) offered: HashMap<Digest, Offered>,
    pub(super) unanswered: HashMap<Digest, Asked>,
    /// Manifests offered on this connection, with their classes.
    pub(super) asked: HashMap<Digest, Class>,
    pub(super) under_way: HashMap<Digest, UnderWay>,
    /// Headers that were given up, with their recordings: a site signs for nothing of those before it has the header, so
    /// that their segments, put ahead of it, would take all the places and wait in them for what has none.
    pub(super) headerless: HashMap<Digest, RecordingId>,
    pub(super) puts: FuturesUnordered<JoinHandle<(Digest, Outcome)>>,
    /// What is not put or offered again before that time.
    pub(super) aside: HashMap<Digest, Instant>,
    pub(super) busy: Option<(Class, Instant)>,
    pub(super) order: i32,
    /// Datagrams received when the site last brought one, and when.
    pub(super) heard: (u64, Instant),
    /// When the site last said something.
    pub(super) said: Instant,
    /// Frames of streams sent when there last was one more, and when: what puts in the queue wait for.
    pub(super) streamed: (u64, Instant),
    pub(super) silent: bool,
    /// It owed answers on the connection before and has given none yet on this one.
    pub(super) doubted: bool,
    pub(super) beside: Option<JoinHandle<Result<Peer, LinkError>>>,
    /// Numbers of the inventories that the site has, and since when.
    pub(super) inventories_sent: HashMap<protocol::ids::CameraId, (u64, Instant)>,
    /// How many inventories had been brought when the spool was last looked through for them, and when.
    pub(super) inventories_seen: Option<(u64, Instant)>,
    /// What it was told of the logbook.
    pub(super) heads: Heads,
}

impl Session<'_> {
    /// Greets the site and serves it until one of the two ends it; `greeted` says whether it said hello.
    pub async fn run(
        hop: &Hop,
        site: &SiteId,
        peer: Peer,
        next_address: SocketAddr,
        greeted: &mut bool,
    ) -> Ended {
        let (send, recv) = match hello::greet(hop, site, &peer).await {
            Ok(halves) => halves,
            Err(ended) => return ended,
        };
        *greeted = true;
        let doubted = hop.sites.owes(site);
        if !doubted {
            hop.alarms.clear(alarms::SITE_SILENT, site.as_str());
        }
        let now = hop.seams.clock.instant();
        let means = Means {
            peer,
            site: site.clone(),
            storage: hop.storage.clone(),
            metrics: hop.metrics.clone(),
            sites: hop.sites.clone(),
        };
        let session = Session {
            hop,
            site,
            next_address,
            keys: hop.storage.keys().borrow().number(),
            send,
            means,
            bell: hop.notices.of_site(site),
            tasks: hop.tasks.child(),
            offered: HashMap::new(),
            unanswered: HashMap::new(),
            asked: HashMap::new(),
            under_way: HashMap::new(),
            headerless: HashMap::new(),
            puts: FuturesUnordered::new(),
            aside: HashMap::new(),
            busy: None,
            order: 0,
            heard: (0, now),
            said: now,
            streamed: (0, now),
            silent: false,
            doubted,
            beside: None,
            inventories_sent: HashMap::new(),
            inventories_seen: None,
            heads: Heads::default(),
        };
        match session.serve(recv).await {
            Ok(()) => Ended::Stopped,
            Err(ended) => ended,
        }
    }

    async fn serve(mut self, mut control: ControlRecv) -> Result<(), Ended> {
        // One for the whole session: bells ring oftener than it ticks.
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.hop.storage.keys().borrow().number() != self.keys {
                return Err(Ended::Broken("a newer key list: greeting anew".into()));
            }
            self.send_inventories().await?;
            self.tell_head().await?;
            self.work().await?;
            tokio::select! {
                frame = control.recv() => self.said(frame?).await?,
                Some(put) = self.puts.next(), if !self.puts.is_empty() => self.put_ended(put).await?,
                answer = async { self.beside.as_mut().expect("guarded").await }, if self.beside.is_some() => {
                    self.beside = None;
                    if let Ok(Ok(peer)) = answer {
                        return Err(Ended::Moved(Box::new(peer)));
                    }
                }
                () = self.bell.notified() => {}
                _ = tick.tick() => self.tick().map_err(Ended::Broken)?,
            }
            self.drain(&mut control).await?;
        }
    }

    /// Applies all that has come meanwhile, before the ledger is asked again.
    async fn drain(&mut self, control: &mut ControlRecv) -> Result<(), Ended> {
        for _ in 0..limits::OFFERS_IN_FLIGHT {
            let frame = control.recv().now_or_never();
            let put = self.puts.next().now_or_never().flatten();
            let quiet = frame.is_none() && put.is_none();
            if let Some(frame) = frame {
                self.said(frame?).await?;
            }
            if let Some(put) = put {
                self.put_ended(put).await?;
            }
            if quiet {
                break;
            }
        }
        Ok(())
    }

    async fn put_ended(&mut self, put: Result<(Digest, Outcome), JoinError>) -> Result<(), Ended> {
        let (digest, outcome) = put.map_err(|e| Ended::Broken(format!("a put ended: {e}")))?;
        let now = self.hop.seams.clock.instant();
        let wait = match outcome {
            Outcome::Sent => {
                if let Some(under_way) = self.under_way.get_mut(&digest) {
                    under_way.sent = Some(now);
                    self.hop.sites.owes_receipt(self.site, digest, now);
                }
                return Ok(());
            }
            Outcome::GivenUp => return Ok(()),
            Outcome::Stopped(code) => {
                debug!(site = %self.site, %digest, code, "the site stopped a put");
                Duration::from_secs(1)
            }
            Outcome::Broken(why) => {
                debug!(site = %self.site, %digest, "put broken: {why}");
                Duration::from_secs(1)
            }
            Outcome::Unreadable(why) => {
                warn!(site = %self.site, %digest, "cannot read a copy: {why}");
                self.examine(digest).await?;
                Duration::from_secs(5)
            }
        };
        self.give_up(digest, now + wait);
        Ok(())
    }

    /// Forgets what was under way and ends its put, so that its manifest is offered again after `until`.
    pub(super) fn give_up(&mut self, digest: Digest, until: Instant) {
        if let Some(under_way) = self.under_way.remove(&digest) {
            under_way.stop.cancel();
            if let Some(recording) = under_way.header_of {
                self.headerless.insert(digest, recording);
            }
            self.offered.remove(&under_way.manifest);
            self.aside.insert(digest, until);
        }
    }

    pub(super) async fn say(&mut self, message: &Message) -> Result<(), Ended> {
        let item = codec::encode_body(message).map_err(|e| Ended::Broken(e.to_string()))?;
        Ok(self.send.send(&item).await?)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}
