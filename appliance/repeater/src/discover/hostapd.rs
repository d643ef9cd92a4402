//! hostapd: who associates and leaves, how well each is heard, and for how long it has said nothing; on the air, and
//! on dock ports under 802.1X (`driver=wired`). One control socket for each BSS or port, one task for each socket.
//!
//! [`wire`] reads what hostapd says, [`bss`] knows what to ask and what the roster is owed, [`pulled`] who is to be sent
//! away when a cable was pulled; all are pure. This file moves datagrams, meets hostapd again when it was restarted, and hears of pulled cables from *interfaces*.
//!
//! Ours is a Unix datagram socket with a file of its own, since hostapd answers to a file; it is in a folder that only
//! we write, and goes with us. hostapd must be able to write to it, and we to hostapd's: root, or its `ctrl_interface_group`.

pub mod bss;
pub mod pulled;
pub mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use link::clock::Clock;
use link::tasks::Tasks;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::interfaces::table::{Links, Usable};
use super::settings::{self, Kind};
use super::{LinkIndex, Sighting};
use crate::alarms::{self, Alarms};
use crate::limits;
use crate::metrics::Metrics;
use bss::{Broken, Bss};

/// Datagrams that are read before anything else has its turn.
const AT_ONCE: usize = 64;

/// What one socket's task works with.
#[derive(Debug)]
pub struct Hostapd {
    /// Which socket, and what its stations are.
    pub socket: settings::Hostapd,
    /// Where our own socket's file is.
    pub folder: PathBuf,
    /// The links.
    pub links: watch::Receiver<Arc<Links>>,
    /// Told of each station that comes, by link.
    pub came: mpsc::Sender<LinkIndex>,
    /// To the roster.
    pub sightings: mpsc::Sender<Sighting>,
    /// Time.
    pub clock: Clock,
    /// Figures.
    pub metrics: Metrics,
    /// Alarms.
    pub alarms: Alarms,
}

/// Why one connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Broken(#[from] Broken),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Hostapd {
    /// Follows one hostapd until the tasks are cancelled.
    pub async fn follow(self, tasks: Tasks) {
        let mut bss = Bss::default();
        let mut links = self.links.clone();
        let mut port = Port::default();
        let mut turn = 0;
        while !tasks.is_cancelled() {
            turn += 1;
            tokio::select! {
                ended = self.follow_once(&mut bss, &mut port, &mut links, turn) => {
                    let Err(e) = ended;
                    debug!(socket = %self.socket.socket.display(), "hostapd: {e}");
                }
                () = tasks.cancelled() => break,
            }
            // Without hostapd its stations still leave in the end, and cables are still pulled.
            let again = tokio::time::sleep(limits::HOSTAPD_AGAIN);
            tokio::pin!(again);
            loop {
                bss.lost(self.clock.instant());
                self.watch_port(&mut bss, &mut port, &mut links);
                tokio::select! {
                    () = &mut again => break,
                    never = self.tell(&mut bss, port.index) => match never {},
                    () = changed(&mut links) => {}
                    () = tasks.cancelled() => break,
                }
            }
            self.judge(&bss);
        }
    }

    /// One connection, to its end.
    async fn follow_once(
        &self,
        bss: &mut Bss,
        port: &mut Port,
        links: &mut watch::Receiver<Arc<Links>>,
        turn: u32,
    ) -> Result<std::convert::Infallible, Ended> {
        let ours = Ours::connect(&self.folder, &self.socket.socket, turn).await?;
        bss.connected();
        let mut buffer = vec![0; wire::DATAGRAM_BYTES];
        let mut met = false;
        loop {
            let now = self.clock.instant();
            // What came before the cable was pulled is heard before that.
            ours.read(&mut buffer, bss, now)?;
            if !met && bss.is_met() {
                met = true;
                info!(socket = %self.socket.socket.display(), "hostapd: attached");
                self.alarms.clear(alarms::HOSTAPD_SILENT, &self.subject());
            }
            self.watch_port(bss, port, links);
            let mut wake = bss.wake();
            while let Some(question) = bss.ask(now)? {
                ours.socket.try_send(question.text().as_bytes())?;
                wake = bss.wake();
            }
            let dropped = bss.dropped();
            self.metrics
                .sightings_dropped
                .with_label_values(&["hostapd"])
                .inc_by(dropped);
            tokio::select! {
                ready = ours.socket.readable() => ready?,
                never = self.tell(bss, port.index) => match never {},
                () = changed(links) => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Tells the roster what it is owed, for as long as it is owed something; then waits for ever.
    async fn tell(&self, bss: &mut Bss, link: Option<LinkIndex>) -> std::convert::Infallible {
        // Which link it is, interfaces says; without it nobody could place a station.
        while let Some(owed) = link.and_then(|link| bss.owed(link).zip(Some(link))) {
            let Ok(permit) = self.sightings.reserve().await else {
                break;
            };
            let (sighting, link) = owed;
            permit.send(sighting);
            if bss.tell(&sighting) {
                // Full: it is asked all the same before long, and announces itself.
                let _ = self.came.try_send(link);
            }
        }
        std::future::pending().await
    }

    /// Looks whether the cable was pulled from the port that this hostapd guards.
    fn watch_port(&self, bss: &mut Bss, port: &mut Port, links: &mut watch::Receiver<Arc<Links>>) {
        let links = Arc::clone(&links.borrow_and_update());
        let name = self.socket.socket.file_name().and_then(|n| n.to_str());
        // By number once it is known: a port that is renamed is still guarded.
        let usable = port.index.and_then(|index| links.get(&index)).or_else(|| {
            let named = |usable: &&Usable| Some(usable.link.name.as_str()) == name;
            links.values().find(named)
        });
        let Some(usable) = usable else {
            return;
        };
        let is = Port {
            index: Some(usable.link.index),
            carrier: usable.carrier,
            losses: usable.losses,
        };
        let pulled =
            port.index == is.index && (port.losses != is.losses || (port.carrier && !is.carrier));
        if pulled && self.socket.kind == Kind::Wired {
            info!(link = %usable.link.name, "the cable was pulled: whoever was there is sent away");
            bss.cable_pulled(self.clock.instant());
        }
        *port = is;
    }

    fn subject(&self) -> String {
        self.socket.socket.display().to_string()
    }

    fn judge(&self, bss: &Bss) {
        if !bss.is_gone(self.clock.instant()) {
            return;
        }
        let what = "hostapd does not answer on its control socket".to_owned();
        let mend = "start hostapd, and let the daemon write to its ctrl_interface; cameras are still found by \
                    their announcements";
        let now = self.clock.now();
        self.alarms
            .raise(alarms::HOSTAPD_SILENT, &self.subject(), what, mend, now);
    }
}

/// The link of a socket, as it was seen last.
#[derive(Clone, Copy, Debug, Default)]
struct Port {
    index: Option<LinkIndex>,
    carrier: bool,
    losses: u32,
}

/// Our socket; its file goes with it.
#[derive(Debug)]
struct Ours {
    socket: UnixDatagram,
    file: PathBuf,
}

impl Ours {
    /// Two names take turns: an answer that was meant for the connection before finds nobody.
    async fn connect(folder: &Path, theirs: &Path, turn: u32) -> io::Result<Ours> {
        let name = theirs.file_name().unwrap_or_default().to_string_lossy();
        let file = folder.join(format!("hostapd-{name}-{}", turn % 2));
        // One that a killed daemon left.
        let _ = std::fs::remove_file(&file);
        let socket = UnixDatagram::bind(&file)?;
        let ours = Ours { socket, file };
        ours.socket.connect(theirs)?;
        // Until the runtime has looked once, nothing could be sent without waiting. One whose queue is full is met
        // again later.
        tokio::time::timeout(limits::HOSTAPD_ANSWER, ours.socket.writable()).await??;
        Ok(ours)
    }

    /// Hears what has come.
    fn read(&self, buffer: &mut [u8], bss: &mut Bss, now: Instant) -> Result<(), Ended> {
        for _ in 0..AT_ONCE {
            match self.socket.try_recv(buffer) {
                Ok(length) => bss.hear(buffer.get(..length).unwrap_or_default(), now)?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Otherwise hostapd finds out by itself.
        let _ = self.socket.try_send(b"DETACH");
        if let Err(e) = std::fs::remove_file(&self.file) {
            warn!(file = %self.file.display(), "our control socket's file stays: {e}");
        }
    }
}

/// Resolves when the links have changed.
async fn changed(links: &mut watch::Receiver<Arc<Links>>) {
    if links.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
