//! DNS-SD: listens for `_bwc-offload._udp.local` on the links that may be used, and reports the addresses announced.
//!
//! An announcement is not believed beyond its own link ([`near`]), and takes bounded room ([`names`]). The library
//! keeps whatever anybody multicasts for as long as it says, without a bound: so it is asked every second how much
//! that is, and begun anew where it is too much, or where names were dropped that now might find room. A slow reader
//! is dropped by the library without a word; then, too, the browse is begun again. Nobody known is given up for that.
//!
//! Links come and go while the browse stands: *interfaces* says which may be used.

pub mod names;
pub mod near;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::clock::Clock;
use link::tasks::Tasks;
use mdns_sd::{IfKind, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::interfaces::table::Links;
use super::{LinkIndex, Sighting};
use crate::limits;
use crate::metrics::Metrics;
use names::{Announcement, Dropped, Names, RUN_OUT};

/// The service type of the camera hop.
pub const SERVICE: &str = "_bwc-offload._udp.local.";
/// Pause before a browse that ended is begun again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often the library is asked what it keeps.
const LOOK: Duration = Duration::from_secs(1);
/// A browse that dropped names is begun again after this.
const RETRY: Duration = Duration::from_secs(20);

/// Whether a camera has proved itself at an address.
pub type IsCamera = Arc<dyn Fn(&SocketAddr) -> bool + Send + Sync>;

/// What the source works with.
pub struct Mdns {
    /// The links that may be used.
    pub links: watch::Receiver<Arc<Links>>,
    /// To the roster.
    pub sightings: mpsc::Sender<Sighting>,
    /// Who has proved itself keeps its place.
    pub is_camera: IsCamera,
    /// Time.
    pub clock: Clock,
    /// Figures.
    pub metrics: Metrics,
}

impl Mdns {
    /// Browses until the tasks are cancelled.
    pub async fn browse(self, tasks: Tasks) {
        let mut names = Names::default();
        let mut links = self.links.clone();
        while !tasks.is_cancelled() {
            tokio::select! {
                ended = self.browse_once(&mut names, &mut links) => match ended {
                    Ok(why) => info!("DNS-SD: {why}; browsing anew"),
                    Err(e) => warn!("DNS-SD: {e}; beginning again in {} s", AGAIN.as_secs()),
                },
                () = tasks.cancelled() => break,
            }
            self.metrics
                .discovery_resyncs
                .with_label_values(&["mdns"])
                .inc();
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = tasks.cancelled() => {}
            }
        }
    }

    /// One browse, to its end, and why it ended.
    async fn browse_once(
        &self,
        names: &mut Names,
        links: &mut watch::Receiver<Arc<Links>>,
    ) -> Result<&'static str, mdns_sd::Error> {
        let began = self.clock.instant();
        let mut browse = Browse::begin()?;
        names.begin();
        let mut look = tokio::time::interval(LOOK);
        let mut remind = tokio::time::interval(limits::REMIND);
        let mut dropped = None;
        let mut ran_out = false;
        loop {
            let usable = Arc::clone(&links.borrow_and_update());
            browse.follow(&usable)?;
            let now = names.now(&usable);
            let owed = names.owed(&now);
            tokio::select! {
                // Whoever is slow here is cut off by the library: reading comes first.
                biased;
                event = browse.events.recv_async() => match event {
                    Ok(event) => {
                        if self.hear(event, names, &usable).is_err() {
                            dropped.get_or_insert(self.clock.instant());
                        }
                    }
                    Err(_) => return Ok("the library gave it up"),
                },
                permit = self.sightings.reserve(), if owed.is_some() => {
                    let (Ok(permit), Some(sighting)) = (permit, owed) else {
                        return Ok("nobody listens");
                    };
                    names.tell(&sighting);
                    permit.send(sighting);
                }
                changed = links.changed() => {
                    if changed.is_err() {
                        return Ok("nobody says which links there are");
                    }
                }
                _ = remind.tick() => names.remind(),
                _ = look.tick() => {
                    if browse.kept().await? > limits::MDNS_RECORDS {
                        return Ok("the library keeps too much");
                    }
                    let now = self.clock.instant();
                    let since = |at: Instant| now.saturating_duration_since(at);
                    if dropped.is_some_and(|at| since(at) >= RETRY) {
                        return Ok("names were dropped that may find room now");
                    }
                    if !ran_out && since(began) >= RUN_OUT {
                        ran_out = true;
                        names.run_out();
                    }
                }
            }
        }
    }

    /// Takes an event in; an error where a name was dropped that might find room later.
    fn hear(&self, event: ServiceEvent, names: &mut Names, links: &Links) -> Result<(), ()> {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let now = self.clock.instant();
                let announced = read(&service);
                let count = |reason| {
                    let reasons = &self.metrics.sightings_dropped;
                    reasons.with_label_values(&[reason])
                };
                let dropped = match names.resolved(announced, links, &*self.is_camera, now) {
                    Ok(0) => return Ok(()),
                    Ok(passed_over) => {
                        count("announced_elsewhere").inc_by(passed_over as u64);
                        return Ok(());
                    }
                    Err(dropped) => dropped,
                };
                debug!(name = service.fullname, "passed over: {dropped:?}");
                count(dropped.reason()).inc();
                match dropped {
                    Dropped::Elsewhere(_) => Ok(()),
                    Dropped::Rate | Dropped::Room => Err(()),
                }
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                names.removed(&name);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The library at work; it ends with its drop.
struct Browse {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    /// On which links it listens, and with which addresses of ours.
    on: Links,
    /// What it was told of links: it remembers all of it.
    told: usize,
}

impl Browse {
    fn begin() -> Result<Browse, mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(IfKind::All)?;
        let events = daemon.browse(SERVICE)?;
        info!("DNS-SD: listening for {SERVICE}");
        Ok(Browse {
            daemon,
            events,
            on: Links::new(),
            told: 0,
        })
    }

    /// Listens on these links, and on no others.
    fn follow(&mut self, links: &Links) -> Result<(), mdns_sd::Error> {
        let same = |index: &LinkIndex| {
            let addresses = |links: &Links| {
                let usable = links.get(index).filter(|usable| usable.carrier);
                usable.map(|usable| (usable.prefixes.clone(), usable.can_probe))
            };
            addresses(&self.on) == addresses(links)
        };
        let all: BTreeSet<LinkIndex> = self.on.keys().chain(links.keys()).copied().collect();
        let changed: Vec<LinkIndex> = all.into_iter().filter(|index| !same(index)).collect();
        for index in changed {
            let kinds = vec![IfKind::IndexV4(index), IfKind::IndexV6(index)];
            self.told += 1;
            if links.get(&index).is_some_and(|usable| usable.carrier) {
                self.daemon.enable_interface(kinds)?;
            } else {
                self.daemon.disable_interface(kinds)?;
            }
        }
        self.on.clone_from(links);
        if self.told > limits::MDNS_LINKS_TOLD {
            return Err(mdns_sd::Error::Msg("links changed very often".into()));
        }
        Ok(())
    }

    /// How much the library keeps.
    async fn kept(&self) -> Result<i64, mdns_sd::Error> {
        let answer = self.daemon.get_metrics()?;
        let figures = answer
            .recv_async()
            .await
            .map_err(|_| mdns_sd::Error::Msg("the library does not answer".into()))?;
        // A timer is small, and each announcement of a camera that we know leaves some.
        let weighed = figures.iter().map(|(key, count)| match key.as_str() {
            "timer" => count / 64,
            key if key.starts_with("cached-") => *count,
            _ => 0,
        });
        Ok(weighed.sum())
    }
}

impl Drop for Browse {
    fn drop(&mut self) {
        if let Err(e) = self.daemon.shutdown() {
            warn!("DNS-SD: the library does not end: {e}");
        }
    }
}

/// An announcement, as the library read it.
fn read(service: &ResolvedService) -> Announcement {
    let news = service.get_property_val_str("n").and_then(names::news);
    let addresses = service.addresses.iter().flat_map(|scoped| {
        let on: Vec<LinkIndex> = match scoped {
            ScopedIp::V4(v4) => v4.interface_ids().iter().map(|id| id.index).collect(),
            ScopedIp::V6(v6) => vec![v6.scope_id().index],
            _ => Vec::new(),
        };
        let ip = scoped.to_ip_addr();
        on.into_iter().map(move |link| (ip, link))
    });
    Announcement {
        name: service.fullname.clone(),
        port: service.port,
        addresses: addresses.take(limits::MDNS_ADDRESSES_READ).collect(),
        news,
    }
}
