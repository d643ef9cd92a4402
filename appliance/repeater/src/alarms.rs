//! Alarms. An alarm is three things with one stable code: a metric that stays raised until its cause is gone, a log
//! line at error, and a line in `status`, each saying what, where, since when and what to do.
//!
//! The spool raises its own; this register merges them with those of the hops, logs each once when it comes
//! and once when it goes, and keeps the metric.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ids::Time;
use serde::Serialize;
use tracing::{error, info};

use crate::metrics::{Metrics, gauge_value};

/// No archive site answers.
pub const NO_ARCHIVE: &str = "no_archive";
/// One archive site does not answer.
pub const SITE_SILENT: &str = "site_silent";
/// What to do about it.
pub const MEND_SILENT: &str = "check the uplink to this site; other sites of the policy take over";
/// A site takes footage and signs no receipt.
pub const SITE_NO_RECEIPTS: &str = "site_no_receipts";
/// A site refused something.
pub const KEY_LIST_REFUSED: &str = "key_list_refused";
/// The revocation list is past its date.
pub const CRL_STALE: &str = "crl_stale";
/// Changed credentials do not serve; the last good ones are used.
pub const CREDENTIALS_UNUSABLE: &str = "credentials_unusable";
/// A camera broke the protocol or could not prove who it is.
pub const CAMERA_FAULT: &str = "camera_fault";
/// A site broke the protocol or signed what does not verify.
pub const SITE_FAULT: &str = "site_fault";
/// A site does not take the head of this repeater's logbook.
pub const HEAD_REFUSED: &str = "head_refused";
/// A hostapd that the configuration names does not answer.
pub const HOSTAPD_SILENT: &str = "hostapd_silent";

/// Every code that the hops raise; the spool's are `spool::alarm::CODES`.
pub const CODES: [&str; 10] = [
    NO_ARCHIVE,
    SITE_SILENT,
    SITE_NO_RECEIPTS,
    KEY_LIST_REFUSED,
    CRL_STALE,
    CREDENTIALS_UNUSABLE,
    CAMERA_FAULT,
    SITE_FAULT,
    HEAD_REFUSED,
    HOSTAPD_SILENT,
];

/// Alarms of one code at most; the oldest stand. Each code has its own room: many of one kind hide none of another.
const MOST_PER_CODE: usize = 128;

/// One raised alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// Stable code.
    pub code: &'static str,
    /// What is wrong.
    pub what: String,
    /// Where: a camera, recording, site or file.
    #[serde(rename = "where")]
    pub subject: String,
    /// Since when, in milliseconds since the epoch.
    pub since_ms: u64,
    /// What to do.
    pub mend: &'static str,
}

/// The register. Clones are the same register.
#[derive(Clone, Debug)]
pub struct Alarms {
    metrics: Metrics,
    raised: Arc<Mutex<BTreeMap<(&'static str, String), Alarm>>>,
    spool: Arc<Mutex<BTreeMap<(&'static str, String), Alarm>>>,
}

impl Alarms {
    /// An empty register.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        every_code().for_each(|code| metrics.alarms.with_label_values(&[code]).set(0));
        Alarms {
            metrics,
            raised: Arc::default(),
            spool: Arc::default(),
        }
    }

    /// Raises an alarm of the hops; nothing happens if it stands already.
    pub fn raise(
        &self,
        code: &'static str,
        subject: &str,
        what: String,
        mend: &'static str,
        now: Time,
    ) {
        let mut raised = lock(&self.raised);
        let key = (code, subject.to_owned());
        let alike = raised.keys().filter(|(c, _)| *c == code).count();
        if raised.contains_key(&key) || alike >= MOST_PER_CODE {
            return;
        }
        let alarm = Alarm {
            code,
            what,
            subject: key.1.clone(),
            since_ms: now.0,
            mend,
        };
        log_raised(&alarm);
        raised.insert(key, alarm);
        drop(raised);
        self.count();
    }

    /// Its cause is gone.
    pub fn clear(&self, code: &'static str, subject: &str) {
        let gone = lock(&self.raised).remove(&(code, subject.to_owned()));
        if gone.is_some() {
            info!(code, subject, "alarm cleared");
            self.count();
        }
    }

    /// Takes what the spool has raised now.
    pub fn take_spool(&self, now_raised: Vec<spool::Alarm>) {
        let mut fresh = BTreeMap::new();
        for a in now_raised {
            let alarm = Alarm {
                code: a.code,
                what: a.what,
                subject: a.subject.clone(),
                since_ms: a.since.0,
                mend: a.action,
            };
            fresh.insert((a.code, a.subject), alarm);
        }
        let mut known = lock(&self.spool);
        if known.keys().eq(fresh.keys()) {
            return;
        }
        fresh
            .iter()
            .filter(|(key, _)| !known.contains_key(*key))
            .for_each(|(_, alarm)| log_raised(alarm));
        for (code, subject) in known.keys().filter(|key| !fresh.contains_key(*key)) {
            info!(code, subject, "alarm cleared");
        }
        *known = fresh;
        drop(known);
        self.count();
    }

    /// Every alarm that stands.
    #[must_use]
    pub fn standing(&self) -> Vec<Alarm> {
        let mut all: Vec<Alarm> = lock(&self.spool).values().cloned().collect();
        all.extend(lock(&self.raised).values().cloned());
        all
    }

    fn count(&self) {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let standing = self.standing();
        standing
            .iter()
            .for_each(|a| *counts.entry(a.code).or_default() += 1);
        for code in every_code() {
            let n = counts.get(code).copied().unwrap_or(0);
            self.metrics
                .alarms
                .with_label_values(&[code])
                .set(gauge_value(n));
        }
    }
}

/// Codes of the hops and of the spool.
fn every_code() -> impl Iterator<Item = &'static str> {
    CODES
        .into_iter()
        .chain(spool::alarm::CODES.iter().map(|(code, _)| *code))
}

fn log_raised(alarm: &Alarm) {
    error!(code = alarm.code, subject = %alarm.subject, since_ms = alarm.since_ms, mend = alarm.mend, "ALARM {}", alarm.what);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
