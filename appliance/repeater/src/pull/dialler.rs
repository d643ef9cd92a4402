//! Diallers: one for each address that a source of discovery reports, which dials again and again while one does.
//!
//! A report is a hint, and so is its withdrawal: without any source left an address is not dialled again, but a
//! session that stands there goes on. What an address did last decides the pause: soon after a session that was
//! worth it, doubling where there is none, the longest where the camera is at fault or served elsewhere.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use link::quic::Peer;
use protocol::message::Code;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::Hop;
use super::progress::Progress;
use super::session::{Path, Session};
use super::troubles::Troubles;
use crate::discover::{Sighting, Sightings, Source};
use crate::ended::Ended;
use crate::limits;
use crate::metrics::gauge_value;

/// Runs the hop until its tasks are cancelled.
pub async fn run(hop: Hop, mut sightings: Sightings) {
    let mut book = Book::default();
    let troubles = Troubles::default();
    let (ended, mut ends) = mpsc::channel::<SocketAddr>(limits::SIGHTINGS);
    loop {
        let sighting = tokio::select! {
            Some(sighting) = sightings.recv() => sighting,
            Some(address) = ends.recv() => {
                if let Some(wanted) = book.ended(address) {
                    start(&hop, &troubles, address, wanted, &ended);
                }
                continue;
            }
            () = hop.tasks.cancelled() => break,
        };
        match sighting {
            Sighting::Seen {
                address, source, ..
            } => {
                if let Some(wanted) = book.seen(address, source) {
                    info!(%address, "a camera may be here");
                    start(&hop, &troubles, address, wanted, &ended);
                }
            }
            Sighting::Gone { address, source } => book.gone(address, source),
            Sighting::Link { .. } | Sighting::Station { .. } | Sighting::Neighbour { .. } => {}
        }
    }
}

fn start(
    hop: &Hop,
    troubles: &Troubles,
    address: SocketAddr,
    wanted: Wanted,
    ended: &mpsc::Sender<SocketAddr>,
) {
    let (hop, troubles, ended) = (hop.clone(), troubles.clone(), ended.clone());
    hop.tasks.clone().spawn("dialler", async move {
        dial(&hop, &troubles, address, wanted).await;
        hop.acquit(&address.to_string());
        let _ = ended.send(address).await;
    });
}

/// Whether an address is still to be dialled.
type Wanted = watch::Receiver<bool>;

/// Which addresses have a dialler, and who reports them.
#[derive(Debug, Default)]
struct Book(HashMap<SocketAddr, Dialling>);

#[derive(Debug)]
struct Dialling {
    sources: BTreeSet<Source>,
    wanted: watch::Sender<bool>,
}

impl Book {
    /// An address is reported. Where it needs a dialler, that dialler's leave to go on.
    fn seen(&mut self, address: SocketAddr, source: Source) -> Option<Wanted> {
        if let Some(dialling) = self.0.get_mut(&address) {
            // One that winds down goes on, or is begun anew when it says that it has ended.
            dialling.sources.insert(source);
            dialling.wanted.send_replace(true);
            return None;
        }
        if self.0.len() >= limits::SIGHTINGS {
            debug!(%address, "more addresses than are dialled");
            return None;
        }
        let (wanted, leave) = watch::channel(true);
        let sources = BTreeSet::from([source]);
        self.0.insert(address, Dialling { sources, wanted });
        Some(leave)
    }

    /// One source withdraws its report: the last one's withdrawal ends the dialling.
    fn gone(&mut self, address: SocketAddr, source: Source) {
        if let Some(dialling) = self.0.get_mut(&address) {
            dialling.sources.remove(&source);
            if dialling.sources.is_empty() {
                dialling.wanted.send_replace(false);
            }
        }
    }

    /// A dialler has ended: it is forgotten, or begun anew where its address was reported meanwhile.
    fn ended(&mut self, address: SocketAddr) -> Option<Wanted> {
        let dialling = self.0.remove(&address)?;
        let mut again = None;
        for source in dialling.sources {
            again = self.seen(address, source).or(again);
        }
        again
    }
}

/// What came of one dial.
enum Tried {
    /// No session: nobody answers, or there is none free.
    Nothing,
    /// A session, how long it lasted, and whether footage came.
    Session {
        ended: Ended,
        lasted: Duration,
        moved: bool,
    },
}

/// The pause before the next dial.
fn pause_after(before: Duration, tried: &Tried) -> Duration {
    let (first, longest) = limits::REDIAL;
    match tried {
        Tried::Nothing => (before * 2).clamp(first, longest),
        Tried::Session {
            ended,
            lasted,
            moved,
        } => {
            let worthwhile = *moved || *lasted > limits::WORTHWHILE;
            ended.pause(before, worthwhile, limits::REDIAL)
        }
    }
}

/// Dials one address again and again, while it is seen.
async fn dial(hop: &Hop, troubles: &Troubles, address: SocketAddr, mut wanted: Wanted) {
    let mut pause = Duration::ZERO;
    loop {
        let dialled = hop.seams.clock.instant();
        let connected = tokio::select! {
            connected = hop.dialer.connect(address) => connected,
            () = withdrawn(hop, &mut wanted) => break,
        };
        let tried = match connected {
            Ok(peer) if hop.roster.count() >= hop.sessions => {
                peer.close(Code::Busy.number(), "no session free");
                Tried::Nothing
            }
            Ok(peer) => hold(hop, troubles, address, peer, dialled).await,
            Err(e) => {
                debug!(%address, "cannot reach a camera: {e}");
                Tried::Nothing
            }
        };
        pause = pause_after(pause, &tried);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = withdrawn(hop, &mut wanted) => break,
        }
    }
}

/// Resolves when the address is not to be dialled any more.
async fn withdrawn(hop: &Hop, wanted: &mut Wanted) {
    tokio::select! {
        _ = wanted.wait_for(|wanted| !wanted) => {}
        () = hop.tasks.cancelled() => {}
    }
}

/// Holds one connection to its end.
async fn hold(
    hop: &Hop,
    troubles: &Troubles,
    address: SocketAddr,
    peer: Peer,
    dialled: Instant,
) -> Tried {
    let began = hop.seams.clock.instant();
    let progress = Progress::new(began);
    hop.roster.enter(address, peer.clone(), began);
    show_count(hop);
    let path = Path {
        address,
        peer: peer.clone(),
        dialled,
        progress: progress.clone(),
        troubles: troubles.clone(),
    };
    let ended = tokio::select! {
        ended = Session::run(hop, path) => ended,
        // Revocation ends sessions; what is Held of this camera stays in custody.
        error = peer.until_refused(&hop.keyring, &hop.refusals) => Ended::Identity(error.to_string()),
    };
    let ended = ended.explained(&peer).await;
    hop.roster.leave(address);
    show_count(hop);
    let (code, text) = ended.close();
    peer.close(code.number(), &text);
    if let Some(why) = ended.complaint() {
        hop.accuse(&address.to_string(), why);
    }
    match &ended {
        Ended::Told(Code::Protocol | Code::Limit, _) => {
            warn!(%address, "session ended for a fault of ours: {text}");
        }
        _ if ended.fault().is_some() => {
            hop.metrics.peer_faults.with_label_values(&["camera"]).inc();
            warn!(%address, "session ended: {text}");
        }
        _ => info!(%address, "session ended: {text}"),
    }
    Tried::Session {
        ended,
        lasted: hop.seams.clock.instant() - began,
        moved: progress.pulled_bytes() > 0,
    }
}

fn show_count(hop: &Hop) {
    hop.metrics
        .camera_sessions
        .set(gauge_value(hop.roster.count() as u64));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_withdrawal_takes_back_its_own_source_only() {
        let mut book = Book::default();
        let here = "10.0.0.1:4433".parse().unwrap();
        let wanted = book.seen(here, Source::Static).unwrap();
        assert!(book.seen(here, Source::Announced).is_none());
        book.gone(here, Source::Announced);
        book.gone(here, Source::Announced);
        assert!(*wanted.borrow(), "the static list still has it");
        book.gone(here, Source::Static);
        assert!(!*wanted.borrow());
        assert!(book.ended(here).is_none());
        assert!(book.seen(here, Source::Announced).is_some(), "forgotten");
    }

    #[test]
    fn an_address_seen_while_its_dialler_winds_down_is_dialled_again() {
        let mut book = Book::default();
        let here = "10.0.0.1:4433".parse().unwrap();
        let _old = book.seen(here, Source::Announced).unwrap();
        book.gone(here, Source::Announced);
        assert!(book.seen(here, Source::Announced).is_none(), "one at once");
        let wanted = book.ended(here).unwrap();
        assert!(*wanted.borrow());
        book.gone(here, Source::Announced);
        assert!(!*wanted.borrow());
    }

    #[test]
    fn pauses_double_unless_the_session_was_worth_it() {
        let (first, longest) = limits::REDIAL;
        let session = |ended, seconds, moved| Tried::Session {
            ended,
            lasted: Duration::from_secs(seconds),
            moved,
        };
        let broken = || Ended::Broken(String::new());
        assert_eq!(pause_after(Duration::ZERO, &Tried::Nothing), first);
        assert_eq!(pause_after(first, &Tried::Nothing), first * 2);
        assert_eq!(pause_after(first, &session(broken(), 1, false)), first * 2);
        assert_eq!(pause_after(longest, &session(broken(), 0, false)), longest);
        assert_eq!(pause_after(longest, &session(broken(), 0, true)), first);
        assert_eq!(pause_after(longest, &session(broken(), 6, false)), first);
        for ended in [Ended::Elsewhere, Ended::Fault(String::new())] {
            assert_eq!(pause_after(first, &session(ended, 60, true)), longest);
        }
    }
}
