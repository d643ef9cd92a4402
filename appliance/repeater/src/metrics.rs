//! What network operations watch: every figure that this program exports, in one place (Prometheus text format;
//! units last in the name).

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// The figures. Clones are the same figures.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Bytes taken from cameras, also those of segments that were then refused.
    pub pulled_bytes: IntCounter,
    /// Bytes sent to archive sites.
    pub put_bytes: IntCounterVec,
    /// Segments by stage.
    pub segments: IntGaugeVec,
    /// Sealed bytes by stage.
    pub segment_bytes: IntGaugeVec,
    /// Segments announced and not archived.
    pub outstanding: IntGauge,
    /// Segments announced and on no known holder: must be 0.
    pub unaccounted: IntGauge,
    /// Segments that are over, and forgotten since the start.
    pub forgotten: IntGauge,
    /// Bytes that the spool uses, with what pulls have reserved.
    pub spool_used_bytes: IntGauge,
    /// Bytes that the spool may use.
    pub spool_capacity_bytes: IntGauge,
    /// 0 open, 1 urgent only, 2 closed.
    pub gate: IntGauge,
    /// From the first finished segment of a group to the end of its barrier.
    pub commit_seconds: Histogram,
    /// From connecting to a camera to its first segment Held.
    pub first_held_seconds: Histogram,
    /// Sessions with cameras.
    pub camera_sessions: IntGauge,
    /// 1 while a site answers.
    pub site_up: IntGaugeVec,
    /// Receipts taken, by site.
    pub receipts: IntCounterVec,
    /// Alarms raised, by code: stays above 0 until the cause is gone.
    pub alarms: IntGaugeVec,
    /// Handshakes refused, by reason.
    pub refusals: IntGaugeVec,
    /// Sessions ended for a peer's fault, by code.
    pub peer_faults: IntCounterVec,
    /// What was found and not passed on, by the source or the reason.
    pub sightings_dropped: IntCounterVec,
    /// How often a source lost news and read everything again, by source.
    pub discovery_resyncs: IntCounterVec,
    /// Bytes reclaimed.
    pub reclaimed_bytes: IntCounter,
    /// When the scrub's present pass began, in seconds since the epoch.
    pub scrub_pass_started: IntGauge,
    /// For how long some byte kept may not have been read, in seconds; 0 while none is kept.
    pub scrub_oldest_unchecked: IntGauge,
}

impl Metrics {
    /// Registers all figures.
    ///
    /// # Errors
    /// Where a name is registered twice: a defect of this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        let r = &registry;
        Ok(Metrics {
            pulled_bytes: counter(r, "pulled_bytes_total", "Bytes taken from cameras")?,
            put_bytes: counters(r, "put_bytes_total", "Bytes sent to sites", "site")?,
            segments: gauges(r, "segments", "Segments by stage", "stage")?,
            segment_bytes: gauges(r, "segment_bytes", "Sealed bytes by stage", "stage")?,
            outstanding: gauge(r, "outstanding_segments", "Announced and not archived")?,
            unaccounted: gauge(r, "unaccounted_segments", "On no known holder: must be 0")?,
            forgotten: gauge(
                r,
                "forgotten_segments",
                "Over and forgotten since the start",
            )?,
            spool_used_bytes: gauge(r, "spool_used_bytes", "Bytes used, with reservations")?,
            spool_capacity_bytes: gauge(r, "spool_capacity_bytes", "What the spool may use")?,
            gate: gauge(r, "gate", "0 open, 1 urgent footage only, 2 closed")?,
            commit_seconds: histogram(r, "commit_seconds", "Barrier of a group", 0.0005)?,
            first_held_seconds: histogram(r, "first_held_seconds", "Dial to Held", 0.005)?,
            camera_sessions: gauge(r, "camera_sessions", "Sessions with cameras")?,
            site_up: gauges(r, "site_up", "1 while the archive site answers", "site")?,
            receipts: counters(r, "receipts_total", "Receipts taken", "site")?,
            alarms: gauges(r, "alarm", "Alarms raised, by code", "code")?,
            refusals: gauges(r, "refused_handshakes", "Refused since start", "reason")?,
            peer_faults: counters(r, "peer_faults_total", "Sessions ended for it", "code")?,
            sightings_dropped: counters(
                r,
                "sightings_dropped_total",
                "Found and not passed on, by reason",
                "reason",
            )?,
            discovery_resyncs: counters(
                r,
                "discovery_resyncs_total",
                "A source lost news and read everything again",
                "source",
            )?,
            reclaimed_bytes: counter(r, "reclaimed_bytes_total", "Bytes whose copy was freed")?,
            scrub_pass_started: gauge(r, "scrub_pass_started_seconds", "Start of re-reading")?,
            scrub_oldest_unchecked: gauge(
                r,
                "scrub_oldest_unchecked_seconds",
                "Age of the oldest byte kept that was not read again",
            )?,
            registry,
        })
    }

    /// All figures as text.
    ///
    /// # Errors
    /// Where encoding fails: a defect of this file.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// What stands before every name.
const PREFIX: &str = "repeater_";

type Made<T> = Result<T, prometheus::Error>;

fn counter(r: &Registry, name: &str, help: &str) -> Made<IntCounter> {
    let made = IntCounter::new([PREFIX, name].concat(), help)?;
    r.register(Box::new(made.clone()))?;
    Ok(made)
}

fn counters(r: &Registry, name: &str, help: &str, label: &str) -> Made<IntCounterVec> {
    let made = IntCounterVec::new(Opts::new([PREFIX, name].concat(), help), &[label])?;
    r.register(Box::new(made.clone()))?;
    Ok(made)
}

fn gauge(r: &Registry, name: &str, help: &str) -> Made<IntGauge> {
    let made = IntGauge::new([PREFIX, name].concat(), help)?;
    r.register(Box::new(made.clone()))?;
    Ok(made)
}

fn gauges(r: &Registry, name: &str, help: &str, label: &str) -> Made<IntGaugeVec> {
    let made = IntGaugeVec::new(Opts::new([PREFIX, name].concat(), help), &[label])?;
    r.register(Box::new(made.clone()))?;
    Ok(made)
}

fn histogram(r: &Registry, name: &str, help: &str, from: f64) -> Made<Histogram> {
    let buckets = prometheus::exponential_buckets(from, 1.5, 24)?;
    let made =
        Histogram::with_opts(HistogramOpts::new([PREFIX, name].concat(), help).buckets(buckets))?;
    r.register(Box::new(made.clone()))?;
    Ok(made)
}

/// A count as Prometheus takes it.
#[must_use]
pub fn gauge_value(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
