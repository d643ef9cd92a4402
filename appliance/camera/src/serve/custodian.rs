//! The custodian: the one task of a server that owns the [`Store`]. Sessions ask it over a bounded queue; it looks
//! for what the sealer did, and says so to every session.
//!
//! Steps on the store are synchronous and sync files, so they run on the blocking pool, the store with them; with
//! [`Disk::Inline`] they run in place, which is what a deterministic simulation needs. An error of the store ends the
//! server: what the disk failed to keep must not be spoken of.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use link::clock::Clock;
use protocol::cose::DeviceSigner;
use protocol::identity::Trust;
use protocol::ids::{Digest, Time};
use protocol::inventory::InventoryError;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, warn};

use super::{Erase, Setup};
use crate::inventory;
use crate::limits;
use crate::seal::{SealError, close};
use crate::store::custody::Taken;
use crate::store::layout::Layout;
use crate::store::papers::{self, CameraPaper};
use crate::store::{Found, Lock, News, Store, StoreError};

/// Where steps on the disk run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// On the runtime's blocking pool.
    Pool,
    /// In place: for a deterministic simulation.
    Inline,
}

impl Disk {
    /// Runs a step that blocks.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        match self {
            Disk::Inline => step(),
            Disk::Pool => match tokio::task::spawn_blocking(step).await {
                Ok(done) => done,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => std::future::pending().await, // cancelled: the runtime is going down
                },
            },
        }
    }
}

/// Why the custodian ended.
#[derive(Debug, thiserror::Error)]
pub enum CustodianError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The inventory cannot be signed.
    #[error("the inventory cannot be signed: {0}")]
    Inventory(#[from] InventoryError),
}

/// What sessions ask.
#[derive(Debug)]
pub(crate) enum Request {
    /// The current inventory's pages.
    Inventory(oneshot::Sender<Shown>),
    /// A manifest's bytes.
    Manifest(u64, u32, oneshot::Sender<Found>),
    /// New manifests from a place in the news on; none for a session that lags too far behind.
    News(u64, oneshot::Sender<Option<Vec<(u64, u32)>>>),
    /// Where a digest's bytes are.
    Locate(Digest, oneshot::Sender<Option<(PathBuf, u64)>>),
    /// Receipts.
    Release(Vec<Bytes>, oneshot::Sender<BTreeMap<u64, Taken>>),
    /// What a repeater's hello brings: its key list and its time; answered with the number of the newest list known.
    Hello(Option<Bytes>, Time, oneshot::Sender<u64>),
}

/// An inventory as it is shown.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// Signed pages.
    pub(crate) pages: Arc<Vec<Bytes>>,
    /// The place in the news up to which it speaks.
    pub(crate) news: u64,
}

/// What every session watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bulletin {
    /// How many new manifests there were.
    pub(crate) manifests: u64,
    /// How often the inventory came to say something new.
    pub(crate) inventory: u64,
}

/// A session's way to the custodian.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    requests: mpsc::Sender<Request>,
    /// What is new.
    pub(crate) bulletin: watch::Receiver<Bulletin>,
}

impl Desk {
    /// Asks; none where the custodian has ended, and with it the server.
    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Everything the custodian works with.
#[derive(Debug)]
pub(crate) struct Custodian {
    layout: Layout,
    store: Store,
    trust: Trust,
    signer: Arc<DeviceSigner>,
    clock: Clock,
    erase: Erase,
    /// Open recordings when closing was last tried.
    tried: Vec<u64>,
    news: VecDeque<(u64, u32)>,
    bulletin: Bulletin,
    shown: Option<(u64, Shown)>,
}

impl Custodian {
    /// A custodian of `store`, which it has just opened.
    pub(crate) fn new(setup: &Setup, store: Store, clock: Clock, erase: Erase) -> Self {
        Custodian {
            layout: setup.store.clone(),
            store,
            trust: setup.trust.clone(),
            signer: Arc::clone(&setup.signer),
            clock,
            erase,
            tried: Vec::new(),
            news: VecDeque::new(),
            bulletin: Bulletin::default(),
            shown: None,
        }
    }

    /// Serves requests and looks for news until every [`Desk`] is gone or the store fails.
    pub(crate) async fn run(
        mut self,
        disk: Disk,
        mut requests: mpsc::Receiver<Request>,
        bulletin: watch::Sender<Bulletin>,
    ) -> Result<(), CustodianError> {
        let mut look = tokio::time::interval(limits::POLL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let request = tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => Some(request),
                    None => return Ok(()),
                },
                _ = look.tick() => None,
            };
            // A look-up needs no disk: answered in place.
            if let Some(Request::Locate(digest, answer)) = request {
                let _ = answer.send(self.store.locate(digest)); // who asked may have gone
                continue;
            }
            let (custodian, done) = disk
                .run(move || {
                    let done = match request {
                        Some(request) => self.serve(request),
                        None => self.look(),
                    };
                    (self, done)
                })
                .await;
            self = custodian;
            match done {
                // Who holds the lock has stopped in it; who asked is not answered, and asks again.
                Err(CustodianError::Store(error @ StoreError::Locked { .. })) => {
                    warn!(%error, "again later")
                }
                done => done?,
            }
            bulletin.send_if_modified(|b| std::mem::replace(b, self.bulletin) != self.bulletin);
        }
    }

    /// A fresh desk and the ends that [`Custodian::run`] takes.
    pub(crate) fn desk(&self) -> (Desk, mpsc::Receiver<Request>, watch::Sender<Bulletin>) {
        let (requests, queue) = mpsc::channel(limits::REQUESTS);
        let (sender, bulletin) = watch::channel(self.bulletin);
        (Desk { requests, bulletin }, queue, sender)
    }

    /// Takes in what the sealer did; closes what a sealer that died left open.
    pub(crate) fn look(&mut self) -> Result<(), CustodianError> {
        let mut open = self.store.open_numbers();
        open.extend(self.store.unannounced());
        if open != self.tried
            && close_abandoned(&self.layout, &self.signer, &self.trust, &self.clock)?
        {
            self.tried = open; // what could not be closed now is the next start's matter
        }
        let news = self.store.refresh()?;
        if news != News::default() {
            self.store.release_emptied(self.clock.now())?;
        }
        self.announce(news)
    }

    fn announce(&mut self, news: News) -> Result<(), CustodianError> {
        let more = self.store.refresh()?; // what the steps since then changed
        let manifests: Vec<_> = news.manifests.into_iter().chain(more.manifests).collect();
        self.bulletin.manifests += manifests.len() as u64;
        self.news.extend(manifests);
        let excess = self.news.len().saturating_sub(limits::NEWS);
        self.news.drain(..excess);
        self.bulletin.inventory += u64::from(news.inventory || more.inventory);
        Ok(())
    }

    fn serve(&mut self, request: Request) -> Result<(), CustodianError> {
        match request {
            Request::Inventory(answer) => drop(answer.send(self.show()?)),
            Request::Manifest(number, index, answer) => {
                drop(answer.send(self.store.manifest(number, index)?))
            }
            Request::News(from, answer) => drop(answer.send(self.news_from(from))),
            Request::Locate(digest, answer) => drop(answer.send(self.store.locate(digest))),
            Request::Release(receipts, answer) => {
                let erase = self.erase == Erase::Now;
                let taken = self
                    .store
                    .take_receipts(receipts, erase, self.clock.now())?;
                self.store.release_emptied(self.clock.now())?;
                self.announce(News::default())?;
                drop(answer.send(taken));
            }
            Request::Hello(key_list, theirs, answer) => {
                self.store.keep_clock_offset(self.clock.now(), theirs);
                if let Some(bytes) = key_list {
                    let before = self.store.keys().number();
                    self.store.take_key_list(bytes)?;
                    if self.erase == Erase::Now && self.store.keys().number() != before {
                        self.store.erase_receipted(self.clock.now())?;
                    }
                    self.announce(News::default())?;
                }
                let _ = answer.send(self.store.keys().number());
            }
        }
        Ok(())
    }

    fn news_from(&self, from: u64) -> Option<Vec<(u64, u32)>> {
        let kept = self.news.len() as u64;
        let first = self.bulletin.manifests - kept;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        Some(self.news.iter().skip(skip).copied().collect())
    }

    /// The inventory: a new one, under a new number, where there is something new to say. A manifest alone makes
    /// none; it is told by itself.
    fn show(&mut self) -> Result<Shown, CustodianError> {
        let marks = self.bulletin.inventory;
        let remembered = self.bulletin.manifests - self.news.len() as u64;
        if let Some((said, shown)) = &self.shown
            && *said == marks
            && shown.news >= remembered
        {
            return Ok(shown.clone());
        }
        let number = self.store.next_inventory()?;
        let pages = inventory::sign(&self.store, number, self.clock.now(), &self.signer)?;
        debug!(number, pages = pages.len(), "inventory made");
        let shown = Shown {
            pages: Arc::new(pages),
            news: self.bulletin.manifests,
        };
        self.shown = Some((marks, shown.clone()));
        Ok(shown)
    }
}

/// Closes what a sealer that died left open; false where a sealer is at work. What cannot be closed is only logged,
/// unless the store is at fault.
pub(crate) fn close_abandoned(
    layout: &Layout,
    signer: &DeviceSigner,
    trust: &Trust,
    clock: &Clock,
) -> Result<bool, StoreError> {
    let _lock = match Lock::take(&layout.file("seal.lock"), std::time::Duration::ZERO) {
        Ok(lock) => lock,
        Err(StoreError::Locked { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let path = layout.file("camera.cbor");
    let Some(mut paper) = papers::read::<CameraPaper>(&path)? else {
        return Err(StoreError::Damaged {
            path,
            what: "it is missing",
        });
    };
    match close::close_interrupted(layout, &mut paper, signer, trust, clock) {
        Err(SealError::Store(error)) if !error.is_full() => return Err(error),
        Err(error) => {
            error!(%error, "an interrupted recording is not closed; the next start tries again")
        }
        Ok(()) => {}
    }
    Ok(true)
}
