//! Which sites answer now: what decides where a segment goes, and what status shows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use protocol::ids::{Digest, SiteId, StoreEpoch};

use super::receipts::{self, Overdue};
use crate::metrics::Metrics;

/// What is known of a site.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Whether work may be sent to it.
    pub answering: bool,
    /// Its endpoint in use, or the last one.
    pub address: Option<SocketAddr>,
    /// `up`, `silent`, or why it cannot be reached.
    pub state: String,
    /// Sealed bytes put since start.
    pub put_bytes: u64,
    /// Its store's incarnation, as it last said.
    pub epoch: Option<StoreEpoch>,
    /// It left offers without answer, and has answered none since.
    pub owes: bool,
    /// Its program, as it last said.
    pub software: String,
    /// What it has whole and signed nothing for since, and since when: the oldest.
    pub unreceipted: Option<(Digest, Instant)>,
    /// When it was last told the logbook's head.
    pub head_told: Option<Instant>,
}

/// The register. Clones are the same register.
#[derive(Clone, Debug, Default)]
pub struct Sites(Arc<Mutex<BTreeMap<SiteId, Site>>>);

impl Sites {
    /// Every configured site, before any answered.
    #[must_use]
    pub fn new(sites: impl Iterator<Item = SiteId>) -> Self {
        let unknown = |site| {
            (
                site,
                Site {
                    state: "not yet dialled".into(),
                    ..Site::default()
                },
            )
        };
        Sites(Arc::new(Mutex::new(sites.map(unknown).collect())))
    }

    /// The sites that answer.
    #[must_use]
    pub fn answering(&self) -> BTreeSet<SiteId> {
        self.lock()
            .iter()
            .filter(|(_, s)| s.answering)
            .map(|(site, _)| site.clone())
            .collect()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<SiteId, Site> {
        self.lock().clone()
    }

    /// A site said hello. Gives the software that it last named.
    pub fn up(
        &self,
        site: &SiteId,
        address: SocketAddr,
        epoch: StoreEpoch,
        software: &str,
        metrics: &Metrics,
    ) -> String {
        metrics.site_up.with_label_values(&[site.as_str()]).set(1);
        let mut all = self.lock();
        let known = all.entry(site.clone()).or_default();
        known.epoch = Some(epoch);
        let before = std::mem::replace(&mut known.software, software.to_owned());
        known.answering = true;
        known.address = Some(address);
        known.state = "up".into();
        before
    }

    /// A site that owes an answer brings no packets.
    pub fn silent(&self, site: &SiteId, metrics: &Metrics) {
        self.set(site, metrics, false, "silent");
    }

    /// A silent site answers again.
    pub fn back(&self, site: &SiteId, metrics: &Metrics) {
        self.set(site, metrics, true, "up");
    }

    /// Its session ended.
    pub fn down(&self, site: &SiteId, metrics: &Metrics) {
        self.set(site, metrics, false, "down");
    }

    /// It could not be dialled.
    pub fn unreachable(&self, site: &SiteId, why: &str) {
        self.lock().entry(site.clone()).or_default().state = why.to_owned();
    }

    /// Whether it left offers without answer and has answered none since.
    #[must_use]
    pub fn owes(&self, site: &SiteId) -> bool {
        self.lock().get(site).is_some_and(|s| s.owes)
    }

    /// It left offers without answer, or answers again.
    pub fn set_owes(&self, site: &SiteId, owes: bool) {
        self.lock().entry(site.clone()).or_default().owes = owes;
    }

    /// It has a put whole: a receipt is due.
    pub fn owes_receipt(&self, site: &SiteId, digest: Digest, now: Instant) {
        let mut all = self.lock();
        let known = all.entry(site.clone()).or_default();
        known.unreceipted.get_or_insert((digest, now));
    }

    /// It signed a receipt.
    pub fn receipted(&self, site: &SiteId) {
        self.lock().entry(site.clone()).or_default().unreceipted = None;
    }

    /// When it was last told the logbook's head.
    #[must_use]
    pub fn head_told(&self, site: &SiteId) -> Option<Instant> {
        self.lock().get(site)?.head_told
    }

    /// It is told the logbook's head.
    pub fn tell_head(&self, site: &SiteId, now: Instant) {
        self.lock().entry(site.clone()).or_default().head_told = Some(now);
    }

    /// Who owes a receipt for too long.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> Vec<Overdue> {
        let all = self.lock();
        let overdue = all.iter().filter_map(|(site, known)| {
            let (digest, since) = known.unreceipted?;
            Some(Overdue {
                site: site.clone(),
                digest,
                waited: receipts::is_overdue(since, now)?,
            })
        });
        overdue.collect()
    }

    /// So many sealed bytes were put.
    pub fn put(&self, site: &SiteId, bytes: u64) {
        self.lock().entry(site.clone()).or_default().put_bytes += bytes;
    }

    fn set(&self, site: &SiteId, metrics: &Metrics, answering: bool, state: &str) {
        metrics
            .site_up
            .with_label_values(&[site.as_str()])
            .set(answering.into());
        let mut all = self.lock();
        let known = all.entry(site.clone()).or_default();
        known.answering = answering;
        known.state = state.to_owned();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SiteId, Site>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
