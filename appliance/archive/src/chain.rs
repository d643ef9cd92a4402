//! A whole recording from its manifests: the chain of indices and previous digests, one header, one policy,
//! segments without a gap up to the count that the camera signed. Pure.
//!
//! A manifest stands by itself, and custody never waits for its predecessor; this is where the whole is
//! judged, by whoever exports it. Everything that is wrong is named, not only the first.

use protocol::ids::{Range, RecordingId, ranges_of};
use protocol::manifest::{EndReason, HeaderEntry, Manifest, SegmentEntry};

/// A recording whose manifests agree from the first to the final one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The recording.
    pub recording: RecordingId,
    /// Its header.
    pub header: HeaderEntry,
    /// Its segments, from 0 without gaps.
    pub segments: Vec<SegmentEntry>,
    /// Why it ended.
    pub reason: EndReason,
}

impl Whole {
    /// Whether segment `seq` carries the final flag.
    #[must_use]
    pub fn is_last(&self, seq: u64) -> bool {
        let last = self.segments.last().is_some_and(|s| s.seq == seq);
        last && self.reason == EndReason::Stopped
    }
}

/// Joins the manifests of one recording.
///
/// # Errors
/// Every contradiction and gap, each as one sentence.
pub fn join(recording: &RecordingId, mut manifests: Vec<Manifest>) -> Result<Whole, Vec<String>> {
    manifests.sort_by_key(|m| m.body().index);
    let Some(first) = manifests.first() else {
        return Err(vec!["no manifest of it is stored".to_owned()]);
    };
    let mut problems = Vec::new();
    links(&manifests, &mut problems);
    for m in &manifests {
        let (body, index) = (m.body(), m.body().index);
        if body.recording != *recording {
            problems.push(format!(
                "manifest {index} speaks for recording {}",
                body.recording.full()
            ));
        }
        if body.header != first.body().header {
            problems.push(format!(
                "manifest {index} names another header than manifest {}",
                first.body().index
            ));
        }
        if body.policy != first.body().policy {
            problems.push(format!(
                "manifest {index} has another receipt policy than manifest {}",
                first.body().index
            ));
        }
    }
    let mut ends: Vec<_> = manifests.iter().filter_map(|m| m.body().end).collect();
    ends.dedup();
    let segments: Vec<SegmentEntry> = manifests
        .iter()
        .flat_map(|m| m.body().segments.iter().copied())
        .collect();
    let end = match ends.as_slice() {
        [end] => *end,
        [] => {
            problems.push("no final manifest is stored: it is still being recorded, or its end has not arrived".to_owned());
            return Err(problems);
        }
        _ => {
            problems.push("its manifests state two different ends".to_owned());
            return Err(problems);
        }
    };
    count(&segments, end.segments, &mut problems);
    if end.reason == EndReason::Stopped && end.segments == 0 {
        problems.push(
            "it was stopped without a segment, so that nothing carries its final flag".to_owned(),
        );
    }
    if problems.is_empty() {
        Ok(Whole {
            recording: recording.clone(),
            header: first.body().header,
            segments,
            reason: end.reason,
        })
    } else {
        Err(problems)
    }
}

/// Every index once, each naming the digest of the one before.
fn links(manifests: &[Manifest], problems: &mut Vec<String>) {
    let mut expected = 0;
    let mut before: Option<&Manifest> = None;
    for m in manifests {
        let index = m.body().index;
        if before.is_some_and(|b| b.body().index == index) {
            problems.push(format!(
                "two different manifests carry index {index}; the camera signed both"
            ));
            continue;
        }
        if index > expected {
            problems.push(format!("manifests {expected} to {} are missing", index - 1));
        } else if before.is_some_and(|b| m.body().previous != Some(b.digest())) {
            problems.push(format!(
                "manifest {index} does not follow the stored manifest before it"
            ));
        }
        expected = index.saturating_add(1);
        before = Some(m);
    }
}

/// Numbers 0 to `count` - 1, each once and in order.
fn count(segments: &[SegmentEntry], count: u64, problems: &mut Vec<String>) {
    let mut next = 0;
    for segment in segments {
        if segment.seq > next {
            let gap = Range {
                from: next,
                to: segment.seq - 1,
            };
            problems.push(format!("no manifest names {}", show(&gap)));
        } else if segment.seq < next {
            problems.push(format!(
                "segment {} is named twice or out of order",
                segment.seq
            ));
        }
        next = next.max(segment.seq + 1);
    }
    if next < count {
        let gap = Range {
            from: next,
            to: count - 1,
        };
        problems.push(format!(
            "the camera signed {count} segments; no manifest names {}",
            show(&gap)
        ));
    } else if next > count {
        problems.push(format!(
            "the camera signed {count} segments; manifests name {next}"
        ));
    }
}

/// Ranges of segment numbers in words.
#[must_use]
pub fn show_all(numbers: impl IntoIterator<Item = u64>) -> String {
    let ranges: Vec<String> = ranges_of(numbers).iter().map(show).collect();
    ranges.join(", ")
}

fn show(range: &Range) -> String {
    if range.from == range.to {
        format!("segment {}", range.from)
    } else {
        format!("segments {} to {}", range.from, range.to)
    }
}
