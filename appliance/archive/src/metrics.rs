//! Counters of the gateway, and the small HTTP server that shows them and the alarms: `/metrics`, `/alarms`,
//! `/livez`, and `/readyz`, which fails while the store does. Nothing on it changes anything; bind it to loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use link::refusals::Refusals;
use link::tasks::Tasks;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use protocol::message::Reason;

use crate::alarms::{Alarm, Alarms};

/// What the gateway counts.
#[derive(Debug)]
pub struct Metrics {
    /// Where all are registered.
    pub registry: Registry,
    /// Diallers refused before they had a session.
    pub handshakes: Refusals,
    /// Objects made durable now, by kind: manifest, header, segment, inventory.
    pub stored: IntCounterVec,
    /// Their bytes.
    pub stored_bytes: IntCounter,
    /// Objects that were asked about and stored already, by kind.
    pub already: IntCounterVec,
    /// Receipts signed.
    pub receipts: IntCounter,
    /// Refusals, by reason.
    pub refusals: IntCounterVec,
    /// Heads of logbooks answered, by verdict.
    pub heads: IntCounterVec,
    /// Offers and puts put off.
    pub busy: IntCounter,
    /// Streams that stood still too long.
    pub stalled: IntCounter,
    /// Sessions open.
    pub sessions: IntGauge,
    /// Bytes of segments in memory.
    pub in_flight_bytes: IntGauge,
    /// Seconds from a segment's last byte to its durability.
    pub commit_seconds: Histogram,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| register(&registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help));
        let family = |name: &str, help: &str, label| {
            register(
                &registry,
                IntCounterVec::new(Opts::new(name, help), &[label]),
            )
        };
        let seconds = HistogramOpts::new(
            "archive_commit_seconds",
            "From a segment's last byte to its durability",
        );
        let metrics = Metrics {
            handshakes: Refusals::default(),
            stored: family(
                "archive_objects_stored_total",
                "Objects made durable, by kind",
                "kind",
            ),
            stored_bytes: counter(
                "archive_bytes_stored_total",
                "Bytes of objects made durable",
            ),
            already: family(
                "archive_objects_already_total",
                "Objects offered that were stored already, by kind",
                "kind",
            ),
            receipts: counter("archive_receipts_total", "Receipts signed"),
            refusals: family("archive_refusals_total", "Refusals, by reason", "reason"),
            heads: family(
                "archive_logbook_heads_total",
                "Heads of repeaters' logbooks answered, by verdict",
                "verdict",
            ),
            busy: counter("archive_busy_total", "Offers and puts put off"),
            stalled: counter("archive_stalled_total", "Streams that stood still too long"),
            sessions: gauge("archive_sessions", "Sessions open"),
            in_flight_bytes: gauge("archive_in_flight_bytes", "Bytes of segments in memory"),
            commit_seconds: register(&registry, Histogram::with_opts(seconds)),
            registry,
        };
        ["manifest", "header", "segment", "inventory"]
            .iter()
            .for_each(|kind| {
                metrics.stored.with_label_values(&[*kind]);
            });
        metrics
    }

    /// All of them, in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let gathered = TextEncoder::new().encode_to_string(&self.registry.gather());
        let mut text = gathered.unwrap_or_else(|e| format!("# {e}\n"));
        text += "# HELP archive_handshakes_refused_total Diallers refused, by reason\n";
        text += "# TYPE archive_handshakes_refused_total counter\n";
        for (reason, count) in self.handshakes.counts() {
            text += &format!("archive_handshakes_refused_total{{reason=\"{reason}\"}} {count}\n");
        }
        text
    }

    /// Counts a refusal.
    pub fn refused(&self, reason: Reason) {
        self.refusals
            .with_label_values(&[reason_name(reason)])
            .inc();
    }

    /// Counts an object made durable now.
    pub fn stored(&self, kind: &str, bytes: usize) {
        self.stored.with_label_values(&[kind]).inc();
        self.stored_bytes
            .inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("a metric's name and label are constants");
    registry
        .register(Box::new(metric.clone()))
        .expect("each metric is registered once");
    metric
}

/// The name of a reason in metrics and logs.
#[must_use]
pub fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::WrongDigest => "wrong_digest",
        Reason::BadSignature => "bad_signature",
        Reason::UnknownRecipient => "unknown_recipient",
        Reason::NotMySite => "not_my_site",
        Reason::Malformed => "malformed",
        Reason::NotWanted => "not_wanted",
        Reason::StoreFailed => "store_failed",
        Reason::Version => "version",
    }
}

/// Whether repeaters should be sent here: not while the store fails.
fn readiness(alarms: &Alarms) -> (StatusCode, String) {
    let raised = alarms.list();
    match raised.iter().find(|r| r.alarm == Alarm::StoreFailed) {
        Some(failed) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the store fails: {}\n", failed.what),
        ),
        None => (StatusCode::OK, "ok\n".to_owned()),
    }
}

/// Serves the metrics until the tasks are cancelled; gives the address that was bound.
///
/// # Errors
/// What binding answers.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    alarms: Arc<Alarms>,
    tasks: &Tasks,
) -> std::io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let show_metrics = move || async move { metrics.text() };
    let watched = Arc::clone(&alarms);
    let ready = move || async move { readiness(&watched) };
    let show_alarms = move || async move {
        let line = |r: crate::alarms::Raised| {
            format!(
                "{} {} since {}: {}; {}\n",
                r.alarm.code(),
                r.subject,
                r.since.0,
                r.what,
                r.alarm.cure()
            )
        };
        alarms.list().into_iter().map(line).collect::<String>()
    };
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/alarms", get(show_alarms))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready));
    let stop = tasks.token();
    tasks.spawn("metrics", async move {
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = server.await {
            tracing::warn!(%error, "the metrics server ended");
        }
    });
    Ok(bound)
}
