//! What people and collectors see, on a loopback address: `/metrics`, `/livez`, `/readyz`, and `/status` as JSON.
//!
//! Alive means that the storage thread and both hops have answered lately; ready means that the spool is open and
//! the hops run. Neither depends on a peer: an absent archive or a full spool is not ill health.

mod cameras;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use link::clock::Clock;
use protocol::custody::Stage;
use protocol::ids::{SiteId, Time};
use serde::Serialize;
use spool::{Counts, Space, Spool, SpoolError};

use crate::alarms::{Alarm, Alarms};
use crate::commit::Storage;
use crate::forward::sites::Sites;
use crate::limits;
use crate::metrics::{Metrics, gauge_value};
use crate::pull::Sessions;
use crate::pulse::Pulses;
use crate::trusted_time::{TimeState, TrustedTime};

pub use cameras::{CameraLine, ContactLine, DeviceLine, PathLine};

/// What the page needs.
#[derive(Clone, Debug)]
pub struct View {
    /// This repeater's identity.
    pub identity: String,
    /// The storage thread.
    pub storage: Storage,
    /// Figures.
    pub metrics: Metrics,
    /// Alarms.
    pub alarms: Alarms,
    /// Who is here, and who is connected.
    pub sessions: Sessions,
    /// Which sites answer.
    pub sites: Sites,
    /// Time.
    pub clock: Clock,
    /// Whether that is known to be right.
    pub time: TrustedTime,
    /// Handshakes refused.
    pub refusals: link::refusals::Refusals,
    /// Whether the hops run.
    pub pulses: Pulses,
}

/// The whole status.
#[derive(Debug, Serialize)]
pub struct Status {
    /// This repeater's identity.
    pub repeater: String,
    /// Its clock, in milliseconds since the epoch.
    pub now_ms: u64,
    /// Whether anybody vouches for that clock.
    pub time: TimeState,
    /// So far off at most, in milliseconds; none where nobody says.
    pub time_error_ms: Option<u64>,
    /// The spool.
    pub spool: SpoolStatus,
    /// Every camera that the ledger knows, connected or not.
    pub cameras: Vec<CameraLine>,
    /// Whoever else was seen where cameras are looked for.
    pub devices: Vec<DeviceLine>,
    /// Every archive site.
    pub archives: Vec<SiteLine>,
    /// Alarms that stand.
    pub alarms: Vec<Alarm>,
}

/// The spool's part.
#[derive(Debug, Serialize)]
pub struct SpoolStatus {
    /// Bytes used, reservations included.
    pub used_bytes: u64,
    /// Bytes that it may use.
    pub capacity_bytes: u64,
    /// `open`, `urgent_only` or `closed`.
    pub gate: &'static str,
    /// Segments by stage.
    pub segments: BTreeMap<&'static str, u64>,
    /// Sealed bytes by stage.
    pub bytes: BTreeMap<&'static str, u64>,
    /// Segments announced and not archived.
    pub outstanding: u64,
    /// Segments announced and on no known holder.
    pub unaccounted: u64,
    /// Segments released, reclaimed and forgotten since the start: in no stage any more, and in the logbook.
    pub forgotten: u64,
    /// Head of the logbook: entries and hash.
    pub logbook: (u64, String),
    /// For how long some byte kept may not have been read again, in seconds; none while none is kept.
    pub oldest_unchecked_seconds: Option<u64>,
}

/// One archive site.
#[derive(Debug, Serialize)]
pub struct SiteLine {
    /// Its name.
    pub site: String,
    /// Its endpoint.
    pub address: Option<String>,
    /// `up`, `silent`, or why it cannot be reached.
    pub state: String,
    /// Sealed bytes put since start.
    pub bytes_put: u64,
    /// Entries of the logbook whose head it countersigned last, and when, in milliseconds since the epoch.
    pub countersigned: Option<(u64, u64)>,
    /// Seconds since it has had the oldest put whole for which, or for a later one, it signed no receipt.
    pub receipt_due_seconds: Option<u64>,
}

/// The page's routes.
pub fn routes(view: View) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(alive))
        .route("/readyz", get(alive))
        .route("/status", get(status))
        .with_state(Arc::new(view))
}

async fn metrics(State(view): State<Arc<View>>) -> impl IntoResponse {
    for (reason, count) in view.refusals.counts() {
        view.metrics
            .refusals
            .with_label_values(&[reason])
            .set(gauge_value(count));
    }
    match view.metrics.text() {
        Ok(text) => (StatusCode::OK, text),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    }
}

async fn alive(State(view): State<Arc<View>>) -> impl IntoResponse {
    let asked = tokio::time::timeout(
        limits::LIVE_WITHIN,
        view.storage.ask(|spool, _| Ok(spool.gate())),
    )
    .await;
    match asked {
        Ok(Ok(_)) => of_the_hops(&view),
        Ok(Err(e)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n")),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the storage thread does not answer\n".to_owned(),
        ),
    }
}

fn of_the_hops(view: &View) -> (StatusCode, String) {
    let missing = view
        .pulses
        .missing(view.clock.instant(), limits::LIVE_WITHIN);
    if missing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let what = format!("{} does not run\n", missing.join(" and "));
    (StatusCode::SERVICE_UNAVAILABLE, what)
}

async fn status(State(view): State<Arc<View>>) -> impl IntoResponse {
    match gather(&view).await.map(|s| serde_json::to_string(&s)) {
        Ok(Ok(json)) => (StatusCode::OK, [("content-type", "application/json")], json),
        Ok(Err(e)) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [("content-type", "text/plain")],
            e.to_string(),
        ),
        Err(e) => (
            StatusCode::SERVICE_UNAVAILABLE,
            [("content-type", "text/plain")],
            e.to_string(),
        ),
    }
}

/// What the ledger says, in one look.
struct Look {
    counts: Counts,
    space: Space,
    gate: &'static str,
    cameras: Vec<cameras::Known>,
    logbook: (u64, String),
    countersigned: BTreeMap<SiteId, (u64, u64)>,
    unchecked_since: Option<Time>,
}

async fn gather(view: &View) -> Result<Status, crate::commit::StorageError> {
    let look = view.storage.ask(|spool, _| look(spool)).await?;
    let tally = |stage: Stage| &look.counts.stages[stage as usize];
    let (instant, now) = (view.clock.instant(), view.clock.now());
    let (cameras, devices) = cameras::lines(look.cameras, &view.sessions, instant);
    let archives = view.sites.all().into_iter().map(|(site, s)| SiteLine {
        site: site.to_string(),
        address: s.address.map(|a| a.to_string()),
        state: s.state,
        bytes_put: s.put_bytes,
        countersigned: look.countersigned.get(&site).copied(),
        receipt_due_seconds: s
            .unreceipted
            .map(|(_, since)| instant.saturating_duration_since(since).as_secs()),
    });
    let time = view.time.look(&view.clock);
    Ok(Status {
        repeater: view.identity.clone(),
        now_ms: now.0,
        time: time.state,
        time_error_ms: time.error_ms(),
        spool: SpoolStatus {
            used_bytes: look.space.used_bytes,
            capacity_bytes: look.space.capacity_bytes,
            gate: look.gate,
            segments: by_stage(|stage| tally(stage).iter().map(|t| t.segments).sum()),
            bytes: by_stage(|stage| tally(stage).iter().map(|t| t.bytes).sum()),
            outstanding: look.counts.outstanding.segments,
            unaccounted: look.counts.unaccounted.segments,
            forgotten: look.counts.forgotten.segments,
            logbook: look.logbook,
            oldest_unchecked_seconds: look
                .unchecked_since
                .map(|t| now.secs().saturating_sub(t.secs())),
        },
        cameras,
        devices,
        archives: archives.collect(),
        alarms: view.alarms.standing(),
    })
}

fn look(spool: &mut Spool) -> Result<Look, SpoolError> {
    let head = spool.logbook_head();
    Ok(Look {
        counts: spool.counts(),
        space: spool.space(),
        gate: match spool.gate() {
            protocol::pressure::Gate::Open => "open",
            protocol::pressure::Gate::UrgentOnly => "urgent_only",
            protocol::pressure::Gate::Closed => "closed",
        },
        cameras: cameras::look(spool)?,
        logbook: (head.entries, head.hash.to_string()),
        countersigned: spool
            .countersignatures()
            .into_iter()
            .map(|c| c.body().clone())
            .filter(|c| c.head.incarnation == head.incarnation)
            .map(|c| (c.site, (c.head.entries, c.signed.0)))
            .collect(),
        unchecked_since: spool.unchecked_since(),
    })
}

fn by_stage(count: impl Fn(Stage) -> u64) -> BTreeMap<&'static str, u64> {
    Stage::ALL
        .into_iter()
        .map(|stage| (stage.name(), count(stage)))
        .collect()
}
