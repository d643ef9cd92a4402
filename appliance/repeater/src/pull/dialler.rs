//! The dialler: dials what the roster says, when it says so, and holds each connection to its end.
//!
//! What came of a dial decides the pause: soon after a session that was worth it, doubling where there is none, the
//! longest where the camera is at fault or served elsewhere. Something new at the address (its link, its station, its
//! news) cuts any pause short. An announcement that is withdrawn ends no session; a link that goes down does.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use link::quic::{LinkError, Peer};
use protocol::message::Code;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::Hop;
use super::progress::Progress;
use super::session::{Path, Session};
use super::troubles::Troubles;
use crate::discover::Sightings;
use crate::discover::roster::{Leave, Standing, Tried};
use crate::ended::Ended;
use crate::limits;
use crate::metrics::gauge_value;

/// Runs the hop until its tasks are cancelled.
pub async fn run(hop: Hop, mut sightings: Sightings) {
    let troubles = Troubles::default();
    let (ended, mut ends) = mpsc::channel::<(SocketAddr, Tried)>(limits::SIGHTINGS);
    // Addresses that stand in an alarm, until somebody honest is there or nobody says so any more.
    let mut accused = BTreeSet::new();
    loop {
        let now = hop.seams.clock.instant();
        for (address, standing, pause) in hop.sessions.dials(now) {
            start(&hop, &troubles, (address, standing, pause), &ended);
        }
        accused.retain(|address: &SocketAddr| {
            let seen = hop.sessions.is_seen(*address);
            if !seen {
                hop.acquit(&address.to_string());
            }
            seen
        });
        let due = hop.sessions.next_due(now);
        tokio::select! {
            sighting = sightings.recv() => match sighting {
                Some(sighting) => hop.sessions.sight(sighting, hop.seams.clock.instant()),
                None => break,
            },
            Some((address, tried)) = ends.recv() => {
                hop.sessions.ended(address, tried, hop.seams.clock.instant());
                accused.insert(address);
            }
            () = tokio::time::sleep_until(due.unwrap_or(now).into()), if due.is_some() => {}
            () = hop.tasks.cancelled() => break,
        }
    }
}

/// What a dial is begun with: where, what is known of the path, and the pause before.
type Dial = (SocketAddr, watch::Receiver<Standing>, Duration);

fn start(hop: &Hop, troubles: &Troubles, dial: Dial, ended: &mpsc::Sender<(SocketAddr, Tried)>) {
    let (hop, troubles, ended) = (hop.clone(), troubles.clone(), ended.clone());
    hop.tasks.clone().spawn("dialler", async move {
        let address = dial.0;
        let tried = attempt(&hop, &troubles, dial).await;
        let _ = ended.send((address, tried)).await;
    });
}

/// The pause before the next dial.
fn pause_after(before: Duration, ended: Option<&Ended>, lasted: Duration, moved: bool) -> Duration {
    let (first, longest) = limits::REDIAL;
    let worthwhile = moved || lasted > limits::WORTHWHILE;
    match ended {
        None => (before * 2).clamp(first, longest),
        Some(ended) => ended.pause(before, worthwhile, limits::REDIAL),
    }
}

/// One dial, and the session that it leads to.
async fn attempt(hop: &Hop, troubles: &Troubles, (address, standing, before): Dial) -> Tried {
    let dialled = hop.seams.clock.instant();
    let nothing = Tried::Again(pause_after(before, None, Duration::ZERO, false));
    let mut hears = standing.clone();
    let connected = tokio::select! {
        connected = hop.dialer.connect(address) => connected,
        _ = hears.wait_for(|s| s.leave == Some(Leave::Gone)) => return nothing,
        () = hop.tasks.cancelled() => return nothing,
    };
    match connected {
        Ok(peer) if hop.sessions.count() >= hop.most_sessions => {
            peer.close(Code::Busy.number(), "no session free");
            nothing
        }
        Ok(peer) => {
            info!(%address, docked = standing.borrow().reach.is_docked(), "a camera may be here");
            hold(hop, troubles, (address, standing, before), peer, dialled).await
        }
        Err(LinkError::Refused { error, .. }) => Tried::Refused(error.reason()),
        Err(e) => {
            debug!(%address, "cannot reach a camera: {e}");
            nothing
        }
    }
}

/// Holds one connection to its end.
async fn hold(
    hop: &Hop,
    troubles: &Troubles,
    (address, standing, before): Dial,
    peer: Peer,
    dialled: Instant,
) -> Tried {
    let began = hop.seams.clock.instant();
    let progress = Progress::new(began);
    hop.sessions.enter(address, peer.clone(), began);
    show_count(hop);
    let path = Path {
        address,
        peer: peer.clone(),
        dialled,
        standing,
        progress: progress.clone(),
        troubles: troubles.clone(),
    };
    let (ended, proved) = tokio::select! {
        ended = Session::run(hop, path) => ended,
        // Revocation ends sessions; what is Held of this camera stays in custody.
        error = peer.until_refused(&hop.keyring, &hop.refusals) => {
            (Ended::Identity(error.to_string()), false)
        }
    };
    let ended = ended.explained(&peer).await;
    let (code, text) = ended.close();
    peer.close(code.number(), &text);
    hop.sessions.leave(address);
    show_count(hop);
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
    let lasted = hop.seams.clock.instant() - began;
    match &ended {
        Ended::Idle => Tried::Idle,
        Ended::Identity(_) if !proved => Tried::Refused("identity"),
        Ended::Fault(_) | Ended::Limit(_) if !proved => Tried::Refused("protocol"),
        _ => {
            let moved = progress.pulled_bytes() > 0;
            Tried::Again(pause_after(before, Some(&ended), lasted, moved))
        }
    }
}

fn show_count(hop: &Hop) {
    hop.metrics
        .camera_sessions
        .set(gauge_value(hop.sessions.count() as u64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_unless_the_session_was_worth_it() {
        let (first, longest) = limits::REDIAL;
        let after = |before, ended: Ended, seconds, moved| {
            pause_after(before, Some(&ended), Duration::from_secs(seconds), moved)
        };
        let nothing = |before| pause_after(before, None, Duration::ZERO, false);
        let broken = || Ended::Broken(String::new());
        assert_eq!(nothing(Duration::ZERO), first);
        assert_eq!(nothing(first), first * 2);
        assert_eq!(after(first, broken(), 1, false), first * 2);
        assert_eq!(after(longest, broken(), 0, false), longest);
        assert_eq!(after(longest, broken(), 0, true), first);
        assert_eq!(after(longest, broken(), 6, false), first);
        for ended in [Ended::Elsewhere, Ended::Fault(String::new())] {
            assert_eq!(after(first, ended, 60, true), longest);
        }
    }
}
