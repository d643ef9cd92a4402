//! Which sites answer now: what decides where a segment goes, and what status shows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ids::{SiteId, StoreEpoch};

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
