//! Vectors of whole recordings: all that an archive has of one, and what must be named as missing or altered.
//!
//! Here alone manifests, header and segments meet: chain, count, order and final flag are judged together, as an
//! export does before it writes a byte.

use protocol::header;
use protocol::manifest::{self, End, EndReason};
use protocol::segment::{self, Place};
use serde_json::{Value, json};

use crate::book::{Book, flip};
use crate::keys::to_hex;
use crate::signed::next_recording;
use crate::world::{FOOTAGE, World, drawn};

fn case(manifests: &[&[u8]], header: Option<&[u8]>, segments: &[&[u8]]) -> Value {
    let list = |l: &[&[u8]]| l.iter().map(|b| to_hex(b)).collect::<Vec<_>>();
    json!({
        "manifests": list(manifests), "header": header.map(to_hex), "segments": list(segments),
        "given": {"key": "archive"},
    })
}

/// Whole recordings, opened with the archive's key.
pub(crate) fn recordings(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "recording",
        "All objects of one recording: in whatever order, is it whole, and what is its footage?",
        &w.keys,
    );
    let first = w.manifest(&w.first());
    let last = w.manifest(&w.last(&first));
    let (m0, m1) = (&first[..], &last[..]);
    let header = Some(&w.header.bytes[..]);
    let [s0, s1, s2] = [0, 1, 2].map(|i| &w.segments[i].bytes[..]);
    b.accept(
        "stopped, three segments",
        case(&[m0, m1], header, &[s0, s1, s2]),
    );
    b.accept("in another order", case(&[m1, m0], header, &[s2, s0, s1]));
    let interrupted = End {
        segments: 2,
        reason: EndReason::Interrupted,
    };
    let closing = manifest::Body {
        segments: vec![],
        end: Some(interrupted),
        ..w.last(&first)
    };
    let closing = w.manifest(&closing);
    b.accept(
        "interrupted after two",
        case(&[m0, &closing], header, &[s0, s1]),
    );
    refuse_missing(w, &mut b);
    refuse_counts(w, &mut b);
    b
}

fn refuse_missing(w: &World, b: &mut Book<'_>) {
    let first = w.manifest(&w.first());
    let last = w.manifest(&w.last(&first));
    let (m0, m1) = (&first[..], &last[..]);
    let header = Some(&w.header.bytes[..]);
    let [s0, s1, s2] = [0, 1, 2].map(|i| &w.segments[i].bytes[..]);
    let mut refuse = |name: &str, reason: &str, case: Value| b.refuse(name, reason, case);
    refuse(
        "missing header",
        "missing-header",
        case(&[m0, m1], None, &[s0, s1, s2]),
    );
    let sealed_to = [w.keys.public("archive")];
    let other = header::seal(&next_recording(w), &w.private, &sealed_to, &drawn("other")).unwrap();
    refuse(
        "swapped header",
        "wrong-digest",
        case(&[m0, m1], Some(&other.bytes), &[s0, s1, s2]),
    );
    refuse(
        "missing segment",
        "missing-segment",
        case(&[m0, m1], header, &[s0, s2]),
    );
    let flipped = flip(s1, -1);
    refuse(
        "altered segment",
        "missing-segment",
        case(&[m0, m1], header, &[s0, &flipped, s2]),
    );
    refuse(
        "still recording",
        "not-ended",
        case(&[m0], header, &[s0, s1]),
    );
    refuse(
        "first manifest missing",
        "broken-chain",
        case(&[m1], header, &[s2]),
    );
    let renewed = w.manifest(&w.first());
    refuse(
        "a predecessor with another digest",
        "broken-chain",
        case(&[&renewed, m1], header, &[s0, s1, s2]),
    );
}

fn refuse_counts(w: &World, b: &mut Book<'_>) {
    let first = w.manifest(&w.first());
    let m0 = &first[..];
    let header = Some(&w.header.bytes[..]);
    let [s0, s1, s2] = [0, 1, 2].map(|i| &w.segments[i].bytes[..]);
    let mut refuse = |name: &str, reason: &str, case: Value| b.refuse(name, reason, case);
    let more = manifest::Body {
        end: Some(End {
            segments: 4,
            reason: EndReason::Stopped,
        }),
        ..w.last(&first)
    };
    refuse(
        "the count is higher",
        "wrong-count",
        case(&[m0, &w.manifest(&more)], header, &[s0, s1, s2]),
    );
    let gap = Place {
        recording: &w.recording,
        seq: 3,
        last: true,
    };
    let s3 = segment::seal(&w.content_key(), gap, FOOTAGE[2]).unwrap();
    let mut body = w.last(&first);
    (body.segments[0].seq, body.segments[0].digest) = (3, s3.digest);
    let gap = manifest::Body {
        end: Some(End {
            segments: 4,
            reason: EndReason::Stopped,
        }),
        ..body
    };
    refuse(
        "a number left out",
        "wrong-count",
        case(&[m0, &w.manifest(&gap)], header, &[s0, s1, &s3.bytes]),
    );
    let unstopped = manifest::Body {
        end: Some(End {
            segments: 3,
            reason: EndReason::Interrupted,
        }),
        ..w.last(&first)
    };
    let unstopped = w.manifest(&unstopped);
    refuse(
        "stopped by its segment, interrupted by its manifest",
        "unopened",
        case(&[m0, &unstopped], header, &[s0, s1, s2]),
    );
}
