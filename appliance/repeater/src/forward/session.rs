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
use link::frame::{ControlRecv, ControlSend, FrameError};
use link::quic::{LinkError, Peer};
use link::tasks::Tasks;
use protocol::codec;
use protocol::ids::{Digest, SiteId};
use protocol::manifest::Class;
use protocol::message::{Code, Message};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle};
use tracing::{debug, info, warn};

use super::Hop;
use super::hello;
use super::put::{Means, Outcome};
use crate::commit::StorageError;
use crate::{alarms, limits};

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// The site or the network ended it.
    Broken(String),
    /// The next endpoint answers.
    Moved(Peer),
    /// This program is stopping.
    Stopped,
    /// The site broke the protocol, or signed what does not verify.
    Fault(String),
    /// The site is not, or speaks for another than, the one that was dialled.
    Identity(String),
}

impl Ended {
    /// What the site is told.
    #[must_use]
    pub fn close(&self) -> (Code, String) {
        match self {
            Ended::Broken(why) => (Code::Done, why.clone()),
            Ended::Moved(_) => (Code::Timeout, "silent; another endpoint answers".into()),
            Ended::Stopped => (Code::Shutdown, "stopping".into()),
            Ended::Fault(why) => (Code::Protocol, why.clone()),
            Ended::Identity(why) => (Code::Identity, why.clone()),
        }
    }
}

impl From<StorageError> for Ended {
    fn from(e: StorageError) -> Self {
        match e {
            StorageError::Gone => Ended::Stopped,
            other => Ended::Broken(other.to_string()),
        }
    }
}

impl From<FrameError> for Ended {
    fn from(e: FrameError) -> Self {
        match e {
            FrameError::TooLong { .. } | FrameError::Truncated => Ended::Fault(e.to_string()),
            other => Ended::Broken(other.to_string()),
        }
    }
}

/// A site's answer to an offer.
#[derive(Debug, Default)]
pub(super) struct Offered {
    pub(super) wanted: HashSet<Digest>,
    pub(super) grant: u32,
}

/// A segment on its way to its receipt.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) manifest: Digest,
    pub(super) since: Instant,
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
    pub(super) unanswered: HashMap<Digest, Instant>,
    pub(super) under_way: HashMap<Digest, UnderWay>,
    pub(super) puts: FuturesUnordered<JoinHandle<(Digest, Outcome)>>,
    /// What is not put or offered again before that time.
    pub(super) aside: HashMap<Digest, Instant>,
    pub(super) busy: Option<(Class, Instant)>,
    pub(super) order: i32,
    /// Datagrams received when the site last brought one, and when.
    pub(super) heard: (u64, Instant),
    pub(super) silent: bool,
    pub(super) beside: Option<JoinHandle<Result<Peer, LinkError>>>,
    pub(super) inventories_sent: HashMap<protocol::ids::CameraId, (u64, Instant)>,
}

impl Session<'_> {
    /// Greets the site and serves it until one of the two ends it.
    pub async fn run(hop: &Hop, site: &SiteId, peer: Peer, next_address: SocketAddr) -> Ended {
        let (send, recv) = match hello::greet(hop, site, &peer).await {
            Ok(halves) => halves,
            Err(ended) => return ended,
        };
        hop.alarms.clear(alarms::SITE_FAULT, site.as_str());
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
            under_way: HashMap::new(),
            puts: FuturesUnordered::new(),
            aside: HashMap::new(),
            busy: None,
            order: 0,
            heard: (0, now),
            silent: false,
            beside: None,
            inventories_sent: HashMap::new(),
        };
        match session.serve(recv).await {
            Ok(()) => Ended::Stopped,
            Err(ended) => ended,
        }
    }

    async fn serve(mut self, mut control: ControlRecv) -> Result<(), Ended> {
        loop {
            if self.hop.storage.keys().borrow().number() != self.keys {
                return Err(Ended::Broken("a newer key list: greeting anew".into()));
            }
            self.send_inventories().await?;
            self.work().await?;
            let tick = tokio::time::sleep(Duration::from_secs(1));
            tokio::select! {
                frame = control.recv() => self.said(frame?).await?,
                Some(put) = self.puts.next(), if !self.puts.is_empty() => self.put_ended(put).await?,
                answer = async { self.beside.as_mut().expect("guarded").await }, if self.beside.is_some() => {
                    self.beside = None;
                    if let Ok(Ok(peer)) = answer {
                        return Err(Ended::Moved(peer));
                    }
                }
                () = self.bell.notified() => {}
                () = tick => self.tick(),
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
            Outcome::Sent => return Ok(()),
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

    /// Forgets what was under way, so that its manifest is offered again after `until`.
    pub(super) fn give_up(&mut self, digest: Digest, until: Instant) {
        if let Some(under_way) = self.under_way.remove(&digest) {
            self.offered.remove(&under_way.manifest);
            self.aside.insert(digest, until);
        }
    }

    /// Looks whether the site still answers what it owes.
    fn tick(&mut self) {
        let now = self.hop.seams.clock.instant();
        let received = self.means.peer.connection.stats().udp_rx.datagrams;
        let owes = !self.unanswered.is_empty() || !self.under_way.is_empty();
        if received != self.heard.0 || !owes {
            self.heard = (received, now);
            if std::mem::take(&mut self.silent) {
                info!(site = %self.site, "answers again");
                self.hop.sites.back(self.site, &self.hop.metrics);
                self.hop
                    .alarms
                    .clear(alarms::SITE_SILENT, self.site.as_str());
            }
        } else if now.saturating_duration_since(self.heard.1) >= limits::SITE_SILENCE {
            self.fall_silent();
        }
        let late = |since: Instant| now.saturating_duration_since(since) >= limits::RECEIPT_WAIT;
        let stale: Vec<Digest> = self
            .under_way
            .iter()
            .filter(|(_, u)| late(u.since))
            .map(|(d, _)| *d)
            .collect();
        stale
            .into_iter()
            .for_each(|digest| self.give_up(digest, now));
        self.unanswered.retain(|_, since| !late(*since));
    }

    fn fall_silent(&mut self) {
        if !std::mem::replace(&mut self.silent, true) {
            warn!(site = %self.site, "silent; dialling beside it");
            self.hop.sites.silent(self.site, &self.hop.metrics);
            let what = format!(
                "the site owes answers and was silent for {} s",
                limits::SITE_SILENCE.as_secs()
            );
            let mend = "check the uplink to this site; other sites of the policy take over";
            self.hop.alarms.raise(
                alarms::SITE_SILENT,
                self.site.as_str(),
                what,
                mend,
                self.hop.seams.clock.now(),
            );
            self.hop.notices.sites();
        }
        if self.beside.is_none() {
            let (dialer, address) = (self.hop.dialer.clone(), self.next_address);
            self.beside = Some(
                self.tasks
                    .spawn("beside", async move { dialer.connect(address).await }),
            );
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
        self.hop
            .alarms
            .clear(alarms::SITE_SILENT, self.site.as_str());
    }
}
