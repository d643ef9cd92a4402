//! Interfaces: which links there are, whether a cable is in them, who is on them, and which is the WAN, as the kernel
//! tells it (netlink); and on a dock's link who answers an echo, seen at SPEC's default port before any announcement.
//!
//! Layers: [`wire`] reads messages, [`asking`] asks for all of it, [`table`] keeps it and says which links may be
//! used, [`probe`] asks who is on a dock's link, [`told`] works out what the roster is owed. All of them are pure;
//! this file and [`kernel`] move bytes. Nothing is told before everything was heard once: until then nobody knows
//! which link is the WAN.
//!
//! Other sources read the links from a watch: mDNS to judge announcements, hostapd to see a cable that was pulled.

pub mod asking;
pub mod kernel;
pub mod probe;
pub mod table;
pub mod told;
pub mod wire;

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use link::seams::Seams;
use link::tasks::Tasks;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::settings::Settings;
use super::{Link, LinkIndex, Medium, Sighting, Source};
use crate::limits;
use crate::metrics::Metrics;
use asking::{Asking, Ended, Next};
use kernel::{Echo, Kernel, Read};
use probe::{Probes, Why};
use table::{Links, Table};
use told::{Now, Told};

/// Pause before sockets that failed are opened anew.
const AGAIN: Duration = Duration::from_secs(2);
/// Datagrams that are read before anything else has its turn.
const AT_ONCE: usize = 32;

/// What the source works with.
#[derive(Debug)]
pub struct Interfaces {
    /// Which links may be used, and what they are.
    pub settings: Settings,
    /// To the roster.
    pub sightings: mpsc::Sender<Sighting>,
    /// To the other sources.
    pub links: watch::Sender<Arc<Links>>,
    /// Links to which a station has come.
    pub came: mpsc::Receiver<LinkIndex>,
    /// Time and randomness.
    pub seams: Seams,
    /// Figures.
    pub metrics: Metrics,
}

impl Interfaces {
    /// Follows the kernel until the tasks are cancelled.
    pub async fn follow(mut self, tasks: Tasks) {
        let mut state = State::new(self.seams.random.u64());
        while !tasks.is_cancelled() {
            tokio::select! {
                ended = self.follow_once(&mut state) => {
                    let Err(e) = ended;
                    warn!("interfaces: {e}; beginning again in {} s", AGAIN.as_secs());
                }
                () = tasks.cancelled() => break,
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = tasks.cancelled() => {}
            }
        }
    }

    async fn follow_once(&mut self, state: &mut State) -> io::Result<std::convert::Infallible> {
        let mut kernel = Kernel::open().await?;
        let echo = open_echo(&self.settings).await;
        let mut buffer = [0; 256];
        let mut remind = tokio::time::interval(limits::REMIND);
        state.asking = Asking::default();
        let first = state.asking.restart(self.seams.clock.instant());
        state.ask(&kernel, first)?;
        loop {
            let now = self.seams.clock.instant();
            if state.asking.deadline().is_some_and(|at| at <= now) {
                return Err(io::Error::other("the kernel does not answer"));
            }
            self.publish(state);
            let owed = state.owed();
            let wake = [state.probes.next(), state.asking.deadline()];
            let wake = wake.into_iter().flatten().min();
            tokio::select! {
                permit = self.sightings.reserve(), if owed.is_some() => {
                    let (Ok(permit), Some(sighting)) = (permit, owed) else {
                        return Err(io::Error::other("nobody listens"));
                    };
                    state.told.tell(&sighting, &state.now);
                    permit.send(sighting);
                }
                ready = kernel.ready() => {
                    ready?;
                    self.read(&mut kernel, state)?;
                }
                Some(link) = self.came.recv() => self.came(state, link),
                heard = receive(echo.as_ref(), &mut buffer) => {
                    let (length, from) = heard?;
                    let packet = buffer.get(..length).unwrap_or_default();
                    if state.probes.answer(&from, packet) {
                        state.stale = true;
                    } else if probe::is_answer(packet) {
                        self.metrics.sightings_dropped.with_label_values(&["echo"]).inc();
                    }
                }
                _ = remind.tick() => state.told.remind(),
                () = sleep_until(wake) => {}
            }
            let now = self.seams.clock.instant();
            for (link, question) in state.probes.due(now) {
                // Who ceased to answer is gone.
                state.stale = true;
                if let Some(Err(e)) = echo.as_ref().map(|echo| echo.ask(link, &question)) {
                    debug!(link, "no echo: {e}");
                }
            }
        }
    }

    /// Reads what the kernel says.
    fn read(&self, kernel: &mut Kernel, state: &mut State) -> io::Result<()> {
        for _ in 0..AT_ONCE {
            let now = self.seams.clock.instant();
            let mut next = Vec::new();
            match kernel.read()? {
                Read::Nothing => break,
                Read::Lost => {
                    self.metrics
                        .discovery_resyncs
                        .with_label_values(&["interfaces"])
                        .inc();
                    next.push(state.asking.restart(now));
                }
                Read::Datagram(datagram) => {
                    for message in wire::messages(datagram) {
                        next.extend(state.hear(message, now));
                    }
                }
            }
            for next in next {
                state.ask(kernel, next)?;
            }
        }
        Ok(())
    }

    /// Works out anew what is so, where that can have changed.
    fn publish(&self, state: &mut State) {
        if !state.stale || !state.asking.is_complete() {
            return;
        }
        state.stale = false;
        for link in state.table.unplaced() {
            let path = place(link);
            state.table.place(link, path);
        }
        let dropped = state.table.passed_over();
        self.metrics
            .sightings_dropped
            .with_label_values(&["interfaces"])
            .inc_by(dropped);
        let links = state.table.usable(&self.settings);
        state.look(links, self.seams.clock.instant());
        self.links.send_if_modified(|told| {
            let changed = **told != state.now.links;
            if changed {
                *told = Arc::new(state.now.links.clone());
            }
            changed
        });
    }

    /// A station has come to a link.
    fn came(&self, state: &mut State, link: LinkIndex) {
        let Some(usable) = state.now.links.get(&link) else {
            return;
        };
        let why = match usable.medium {
            Medium::Dock { .. } => Why::Dock,
            Medium::Wireless | Medium::Other => Why::Station,
        };
        let asked = usable.master.unwrap_or(link);
        state.probes.hasten(asked, why, self.seams.clock.instant());
    }
}

/// All that is known; outlives a socket that failed.
#[derive(Debug)]
struct State {
    asking: Asking,
    table: Table,
    probes: Probes,
    now: Now,
    told: Told,
    /// Whether `now` may be out of date.
    stale: bool,
}

impl State {
    fn new(number: u64) -> Self {
        State {
            asking: Asking::default(),
            table: Table::default(),
            probes: Probes::new(number),
            now: Now::default(),
            told: Told::default(),
            stale: false,
        }
    }

    fn ask(&mut self, kernel: &Kernel, next: Next) -> io::Result<()> {
        if let Next::Ask(dump, question) = next {
            self.table.begin(dump);
            kernel.ask(&question)?;
        }
        Ok(())
    }

    /// Takes a message in; what is to be asked after it.
    fn hear(&mut self, message: wire::Message, now: std::time::Instant) -> Option<Next> {
        self.stale = true;
        if message == wire::Message::Overrun {
            return Some(self.asking.restart(now));
        }
        let Some((ended, next)) = self.asking.hear(&message, now) else {
            self.table.apply(message);
            return None;
        };
        if let Ended::Whole(dump) = ended {
            self.table.end(dump);
        }
        Some(next)
    }

    /// What is so now, and whom to ask because of it.
    fn look(&mut self, links: Links, now: std::time::Instant) {
        let is_dock = |usable: &&table::Usable| {
            matches!(usable.medium, Medium::Dock { .. }) && usable.carrier
        };
        // A bridge's port has no addresses of its own: the bridge is asked.
        let asked = |usable: &table::Usable| usable.master.unwrap_or(usable.link.index);
        let docks: BTreeSet<LinkIndex> = links.values().filter(is_dock).map(asked).collect();
        for usable in links.values().filter(is_dock) {
            let was = self.now.links.get(&usable.link.index);
            let lost = was.is_some_and(|was| was.losses != usable.losses);
            if lost && usable.master.is_none() {
                self.probes.forget(usable.link.index);
            }
            let fresh = was.is_none_or(|was| {
                lost || !was.carrier
                    || was.can_probe != usable.can_probe
                    || was.master != usable.master
            });
            if fresh {
                self.probes.hasten(asked(usable), Why::Dock, now);
            }
        }
        self.probes.docks(docks.into_iter(), now);
        self.probes.keep(|link| self.table.has(link));
        let neighbours = self.table.neighbours(&links);
        let own = |ip| links.values().any(|usable| usable.is_own(ip));
        let mut answering = std::collections::BTreeMap::new();
        for (link, ip) in self.probes.found() {
            let mac = self.table.mac(link, ip.into());
            let port = mac.map_or(link, |mac| self.table.port(link, mac));
            // At a port without carrier is nobody any more.
            let here = links.get(&port).is_none_or(|usable| usable.carrier);
            if here && !own(ip.into()) {
                let at = SocketAddrV6::new(ip, limits::CAMERA_PORT, 0, link);
                let medium = links.get(&port).map(|usable| usable.medium);
                let source = match medium {
                    Some(Medium::Dock { .. }) => Source::Neighbour,
                    _ => Source::Station,
                };
                answering.insert(SocketAddr::V6(at), (port, source));
            }
        }
        self.now = Now {
            links,
            neighbours,
            answering,
        };
        self.told.settle(&self.now);
    }

    /// What the roster is owed.
    fn owed(&self) -> Option<Sighting> {
        self.told.owed(&self.now)
    }
}

/// A link's place in sysfs: the same for a USB port, whatever is plugged in and whatever it is called.
fn place(link: Link) -> Option<String> {
    let path = std::path::Path::new("/sys/class/net").join(link.name.as_str());
    let target = std::fs::read_link(path).ok()?;
    target.to_str().map(str::to_owned)
}

/// Without it cameras on docks are found by their announcements alone.
async fn open_echo(settings: &Settings) -> Option<Echo> {
    if settings.docks.is_empty() && settings.hostapds.is_empty() {
        return None;
    }
    match Echo::open().await {
        Ok(echo) => Some(echo),
        Err(e) => {
            warn!(
                "no echo on docks' links, so that cameras there wait for their announcement: {e}; \
                 include the daemon's group in net.ipv4.ping_group_range"
            );
            None
        }
    }
}

async fn receive(echo: Option<&Echo>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV6)> {
    match echo {
        Some(echo) => echo.receive(buffer).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
