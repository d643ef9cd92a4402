//! The archive hop: one session with each site, in which manifests are offered, what the site wants is put, and its
//! receipts are taken.
//!
//! A site *answers* while its connection brings packets and its offers are answered; `protocol::schedule::sites_to_use` sends a segment to
//! as many of the answering sites of its policy as receipts are lacking. After 5 s of silence the next
//! endpoint is dialled beside the old connection, and the other sites take over what is not under way;
//! work moves only when the new one answers.

mod answers;
mod heads;
pub mod hello;
pub mod put;
pub mod receipts;
pub mod session;
mod silence;
pub mod sites;
mod work;

use std::time::{Duration, Instant};

use link::credentials::Keyring;
use link::quic::Dialer;
use link::refusals::Refusals;
use link::seams::Seams;
use link::tasks::Tasks;
use protocol::ids::Time;
use protocol::message::Code;
use tracing::{debug, info, warn};

use crate::alarms::{self, Alarms};
use crate::commit::Storage;
use crate::config::Archive;
use crate::ended::Ended;
use crate::limits;
use crate::metrics::Metrics;
use crate::notices::{Inventories, Notices};
use crate::trusted_time::TrustedTime;
use session::Session;
use sites::Sites;

/// First and longest pause before a site is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// No site answering for so long is an alarm.
const NO_ARCHIVE_MS: u64 = 60_000;

/// What every session of the hop shares.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Dials sites.
    pub dialer: Dialer,
    /// Our credentials, and whom we trust.
    pub keyring: Keyring,
    /// The storage thread.
    pub storage: Storage,
    /// Peers whose certificates do not count, counted.
    pub refusals: Refusals,
    /// Time and randomness.
    pub seams: Seams,
    /// Whether the clock is known to be right.
    pub time: TrustedTime,
    /// Figures.
    pub metrics: Metrics,
    /// Alarms.
    pub alarms: Alarms,
    /// Bells.
    pub notices: Notices,
    /// That cameras brought inventories, for the sites.
    pub inventories: Inventories,
    /// Segments in flight for each site.
    pub puts: usize,
    /// Who answers.
    pub sites: Sites,
    /// Tasks of this hop.
    pub tasks: Tasks,
}

/// Runs the hop until its tasks are cancelled.
pub async fn run(hop: Hop, archives: Vec<Archive>) {
    for archive in archives {
        let hop = hop.clone();
        hop.tasks
            .clone()
            .spawn("site", async move { keep(&hop, &archive).await });
    }
    let mut answered = hop.seams.clock.now();
    while !hop.tasks.is_cancelled() {
        watch(&hop, &mut answered);
        receipts::watch(&hop).await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = hop.tasks.cancelled() => {}
        }
    }
}

fn watch(hop: &Hop, answered: &mut Time) {
    let now = hop.seams.clock.now();
    if hop.sites.answering().is_empty() {
        let gone = now.since_ms(*answered);
        if gone >= NO_ARCHIVE_MS {
            let mend = "check the uplink; footage is kept here and cameras go on offloading until the spool is full";
            hop.alarms.raise(
                alarms::NO_ARCHIVE,
                "uplink",
                format!("no archive site answers since {} s", gone / 1000),
                mend,
                now,
            );
        }
    } else {
        *answered = now;
        hop.alarms.clear(alarms::NO_ARCHIVE, "uplink");
    }
    let subject = "crl";
    if hop.keyring.current().trust.crl_is_stale(now) {
        let what = "the revocation list is past its date; it is used all the same".to_owned();
        hop.alarms.raise(
            alarms::CRL_STALE,
            subject,
            what,
            "bring a new revocation list to this repeater",
            now,
        );
    } else {
        hop.alarms.clear(alarms::CRL_STALE, subject);
    }
}

/// Keeps a session with one site, over its endpoints in order.
async fn keep(hop: &Hop, archive: &Archive) {
    let (first, longest) = REDIAL;
    let mut pause = first;
    let mut at = 0;
    let mut beside = None;
    let mut answered = hop.seams.clock.instant();
    while !hop.tasks.is_cancelled() {
        let address = archive.addresses[at % archive.addresses.len()];
        let connected = match beside.take() {
            Some(peer) => Ok(peer),
            None => tokio::select! {
                connected = hop.dialer.connect(address) => connected,
                () = hop.tasks.cancelled() => break,
            },
        };
        match connected {
            Ok(peer) => {
                let next = archive.addresses[(at + 1) % archive.addresses.len()];
                let mut greeted = false;
                let ended = tokio::select! {
                    ended = Session::run(hop, &archive.site, peer.clone(), next, &mut greeted) => ended,
                    error = peer.until_refused(&hop.keyring, &hop.refusals) => Ended::Identity(error.to_string()),
                    () = hop.tasks.cancelled() => Ended::Stopped,
                };
                hop.sites.down(&archive.site, &hop.metrics);
                hop.notices.sites();
                if greeted {
                    answered = hop.seams.clock.instant();
                }
                let ended = ended.explained(&peer).await;
                let (code, text) = ended.close();
                peer.close(code.number(), &text);
                pause = ended.pause(pause, greeted, REDIAL);
                if let Ended::Moved(peer) = ended {
                    info!(site = %archive.site, address = %next, "the session moves to the next endpoint");
                    at += 1;
                    beside = Some(*peer);
                    continue;
                }
                judge(hop, archive, &ended);
            }
            Err(e) => {
                debug!(site = %archive.site, %address, "cannot reach the archive: {e}");
                hop.sites.unreachable(&archive.site, &e.to_string());
                at += 1;
                pause = (pause * 2).min(longest);
            }
        }
        miss(hop, archive, answered);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hop.tasks.cancelled() => {}
        }
    }
}

/// Whose fault it was that a session ended.
fn judge(hop: &Hop, archive: &Archive, ended: &Ended) {
    let text = ended.close().1;
    match (ended.complaint(), ended.fault()) {
        (Some(why), _) => fault(hop, archive, why),
        (None, Some(why)) => fault(hop, archive, why.to_owned()),
        _ if matches!(ended, Ended::Told(Code::Protocol | Code::Limit, _)) => {
            warn!(site = %archive.site, "session ended for a fault of ours: {text}");
        }
        _ => info!(site = %archive.site, "session ended: {text}"),
    }
}

/// A site broke the protocol, is not who it should be, or says that we are not.
fn fault(hop: &Hop, archive: &Archive, why: String) {
    hop.metrics
        .peer_faults
        .with_label_values(&["archive"])
        .inc();
    warn!(site = %archive.site, "session ended: {why}");
    hop.alarms.raise(
        alarms::SITE_FAULT,
        archive.site.as_str(),
        why,
        "examine this archive site; nothing it said was believed",
        hop.seams.clock.now(),
    );
}

/// A site that says no hello for long is an alarm, whatever the others do.
fn miss(hop: &Hop, archive: &Archive, answered: Instant) {
    let gone = hop
        .seams
        .clock
        .instant()
        .saturating_duration_since(answered);
    if gone >= limits::SITE_GONE {
        hop.alarms.raise(
            alarms::SITE_SILENT,
            archive.site.as_str(),
            format!("the site cannot be reached since {} s", gone.as_secs()),
            alarms::MEND_SILENT,
            hop.seams.clock.now(),
        );
    }
}
