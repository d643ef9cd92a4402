//! Vectors of evidence: manifests and device proofs, signed by a camera's device; and what is refused alike in
//! every signed object.

use ciborium::Value as Cbor;
use protocol::cose::to_cbor;
use protocol::ids::{Digest, RecordingId};
use protocol::limits;
use protocol::manifest::{self, Class, End, EndReason, HeaderEntry, Policy, SegmentEntry};
use protocol::{inventory, message, receipt};
use serde_json::{Value, json};

use crate::book::{Book, flip, given, raw};
use crate::keys::to_hex;
use crate::world::{World, encoded, parsed, replaced, some_digest};

/// A payload with a map key of a later version.
pub(crate) fn with_later_key(payload: &[u8]) -> Vec<u8> {
    let mut value = parsed(payload);
    let map = value.as_map_mut().unwrap();
    map.push((Cbor::from(99), Cbor::from("of a later version")));
    encoded(&value)
}

/// A payload of format version 2, whose members this version cannot read.
pub(crate) fn of_version_2(payload: &[u8]) -> Vec<u8> {
    let mut value = parsed(payload);
    let map = value.as_map_mut().unwrap();
    map.truncate(3);
    map[0].1 = Cbor::from(2);
    map[1].1 = Cbor::from("another form than that of version 1");
    map[2].1 = Cbor::Array(vec![]);
    encoded(&value)
}

/// A payload without one of its map keys.
fn without_key(payload: &[u8], key: u64) -> Vec<u8> {
    let mut value = parsed(payload);
    value
        .as_map_mut()
        .unwrap()
        .retain(|(k, _)| *k != Cbor::from(key));
    encoded(&value)
}

/// The same signature with the higher s: it verifies anywhere else, and is refused here.
fn with_high_s(signed: &[u8]) -> Vec<u8> {
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order = crate::keys::hex(&json!(ORDER));
    let mut out = signed.to_vec();
    let start = out.len() - 32;
    let mut borrow = 0;
    for (byte, n) in out[start..].iter_mut().zip(order).rev() {
        let difference = i16::from(n) - i16::from(*byte) - borrow;
        borrow = i16::from(difference < 0);
        *byte = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    out
}

/// What is refused alike in every kind of signed object.
pub(crate) fn refuse_envelopes(b: &mut Book<'_>, good: &[u8], limit: usize, known: &Value) {
    b.refuse(
        "the signature altered",
        "bad-signature",
        given(&flip(good, -1), known),
    );
    b.refuse(
        "the other signature that fits (high s)",
        "bad-signature",
        given(&with_high_s(good), known),
    );
    b.refuse(
        "the payload altered",
        "bad-signature",
        given(&flip(good, -70), known),
    );
    b.refuse(
        "truncated",
        "malformed",
        given(&good[..good.len() - 1], known),
    );
    b.refuse(
        "a byte follows",
        "malformed",
        given(&[good, &[0]].concat(), known),
    );
    let mut long = given(good, known);
    long["pad_to"] = json!(limit + 1);
    b.refuse("over the limit", "too-long", long);
    b.refuse(
        "without the tag of COSE_Sign1",
        "malformed",
        given(&good[1..], known),
    );
    let wide = [&[0xd8, 18], &good[1..]].concat();
    b.refuse(
        "the tag in a longer encoding",
        "malformed",
        given(&wide, known),
    );
    let note = Cbor::Map(vec![(Cbor::from(99), Cbor::from(1))]);
    b.refuse(
        "an unprotected header",
        "malformed",
        given(&replaced(good, 1, note), known),
    );
    b.refuse(
        "without payload",
        "malformed",
        given(&replaced(good, 2, Cbor::Null), known),
    );
    let es384 = replaced(good, 0, Cbor::Bytes(vec![0xa1, 1, 0x38, 34]));
    b.refuse("algorithm ES384", "malformed", given(&es384, known));
}

/// Manifests.
pub(crate) fn manifests(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "manifest",
        "Manifests under the test root. `digest` is of the whole object.",
        &w.keys,
    );
    let (first, good) = (w.first(), w.manifest(&w.first()));
    accept_manifests(w, &mut b, &good);
    let none = json!({});
    // Signatures of the wrong kind or hand.
    refuse_envelopes(&mut b, &good, limits::MANIFEST_BYTES, &none);
    let payload = to_cbor(&first);
    let by = |key: &str, chain: &str| w.evidence_by(manifest::KIND, payload.clone(), key, chain);
    b.refuse(
        "wrong role: signed by a link certificate",
        "signer: wrong_usage",
        raw(&by("link", "link")),
    );
    let named = by("link", "link-as-evidence");
    b.refuse(
        "wrong role: a link's name",
        "signer: wrong_role",
        raw(&named),
    );
    let foreign = by("device", "device-of-other-root");
    b.refuse(
        "another agency's device",
        "signer: unknown_ca",
        raw(&foreign),
    );
    b.refuse(
        "another key than the certificate's",
        "bad-signature",
        raw(&by("device-2", "device")),
    );
    b.refuse(
        "another camera's device",
        "wrong-camera",
        raw(&by("device-2", "device-2")),
    );
    let statement = w.statement(manifest::KIND, &first, "device");
    b.refuse("no certificate chain", "malformed", raw(&statement));
    for kind in [receipt::KIND, inventory::KIND, message::PROOF_KIND] {
        let name = format!("wrong kind: signed as {kind}");
        b.refuse(&name, "bad-signature", raw(&w.evidence(kind, &first)));
    }
    let no_header = w.evidence_by(manifest::KIND, without_key(&payload, 5), "device", "device");
    b.refuse("names no header", "malformed", raw(&no_header));
    let trailing = w.evidence_by(
        manifest::KIND,
        [&payload[..], &[0]].concat(),
        "device",
        "device",
    );
    b.refuse("a byte follows the payload", "malformed", raw(&trailing));
    let ended = manifest::Body {
        end: Some(End {
            segments: 2,
            reason: EndReason::Stopped,
        }),
        ..first.clone()
    };
    let ends = [
        ("ends for an unknown reason", vec![2, 2]),
        ("ends for an unknown reason, and says more", vec![2, 2, 0]),
    ];
    for (name, end) in ends {
        let mut unknown = parsed(&to_cbor(&ended));
        let mut members = unknown.as_map_mut().unwrap().iter_mut();
        let member = members.find(|(key, _)| *key == Cbor::from(11)).unwrap();
        member.1 = Cbor::Array(end.into_iter().map(Cbor::from).collect());
        let unknown = w.evidence_by(manifest::KIND, encoded(&unknown), "device", "device");
        b.refuse(name, "malformed", raw(&unknown));
    }
    let later = w.evidence_by(manifest::KIND, of_version_2(&payload), "device", "device");
    b.refuse(
        "format version 2, in a form of its own",
        "version",
        raw(&later),
    );
    refuse_bodies(w, &mut b, &good);
    b
}

fn accept_manifests(w: &World, b: &mut Book<'_>, good: &[u8]) {
    let (first, last) = (w.first(), w.last(good));
    b.accept("first of a recording in progress", raw(good));
    b.accept("final, stopped", raw(&w.manifest(&last)));
    let interrupted = End {
        segments: 2,
        reason: EndReason::Interrupted,
    };
    let closed = manifest::Body {
        segments: vec![],
        end: Some(interrupted),
        ..last.clone()
    };
    b.accept("final, interrupted", raw(&w.manifest(&closed)));
    let changed = manifest::Body {
        index: 2,
        segments: vec![],
        class: Class::Urgent,
        end: None,
        ..last.clone()
    };
    b.accept(
        "changes the class, without segments",
        raw(&w.manifest(&changed)),
    );
    let clock = manifest::Body {
        clock_unset: true,
        clock_offset_ms: Some(-86_400_000),
        class: Class::Flagged,
        ..first.clone()
    };
    b.accept("clock unset", raw(&w.manifest(&clock)));
    let many = manifest::Body {
        segments: numbered(0, limits::MANIFEST_SEGMENTS),
        ..first.clone()
    };
    b.accept("64 segments", raw(&w.manifest(&many)));
    let eight: Vec<_> = (0..8)
        .map(|n| format!("site-{n}").parse().unwrap())
        .collect();
    let policy = manifest::Body {
        policy: Policy { k: 8, sites: eight },
        ..first.clone()
    };
    b.accept("8 of 8 sites", raw(&w.manifest(&policy)));
    let direct = w.evidence_by(
        manifest::KIND,
        to_cbor(&first),
        "device-direct",
        "device-direct",
    );
    b.accept("a chain of one certificate", raw(&direct));
    let later = w.evidence_by(
        manifest::KIND,
        with_later_key(&to_cbor(&first)),
        "device",
        "device",
    );
    let mut case = raw(&later);
    case["later_keys"] = json!(true);
    b.accept("a map key of a later version", case);
}

fn numbered(from: u64, count: usize) -> Vec<SegmentEntry> {
    let entry = |seq| SegmentEntry {
        seq,
        length: 42,
        digest: some_digest(seq),
    };
    (from..).take(count).map(entry).collect()
}

fn refuse_bodies(w: &World, b: &mut Book<'_>, good: &[u8]) {
    let (first, last) = (w.first(), w.last(good));
    let mut refuse = |name: &str, reason: &str, change: &dyn Fn(&mut manifest::Body)| {
        let mut body = first.clone();
        change(&mut body);
        b.refuse(name, reason, raw(&w.manifest(&body)));
    };
    refuse("format version 2", "version", &|m| m.version = 2);
    refuse("65 segments", "invalid", &|m| m.segments = numbered(0, 65));
    refuse("a gap in its segments", "invalid", &|m| {
        m.segments[1].seq = 2
    });
    refuse("a segment number beyond the limit", "invalid", &|m| {
        m.segments = numbered(limits::RECORDING_SEGMENTS, 1)
    });
    refuse("an empty segment", "invalid", &|m| m.segments[0].length = 0);
    refuse("a segment over the limit", "invalid", &|m| {
        m.segments[0].length = 4 * 1024 * 1024 + 65
    });
    refuse("a header over the limit", "invalid", &|m| {
        m.header.length = 16 * 1024 + 1
    });
    refuse("an empty header", "invalid", &|m| m.header.length = 0);
    refuse("one digest twice", "invalid", &|m| {
        m.segments[1].digest = m.segments[0].digest
    });
    refuse("the header's digest as a segment's", "invalid", &|m| {
        m.header = HeaderEntry {
            digest: m.segments[0].digest,
            ..m.header
        };
    });
    refuse("manifest 0 with a predecessor", "invalid", &|m| {
        m.previous = Some(Digest([1; 32]))
    });
    refuse("manifest 1 without a predecessor", "invalid", &|m| {
        m.index = 1
    });
    refuse("no receipts asked for", "invalid", &|m| m.policy.k = 0);
    refuse("more receipts than sites", "invalid", &|m| m.policy.k = 3);
    refuse("one site twice", "invalid", &|m| {
        m.policy.sites[1] = m.policy.sites[0].clone()
    });
    refuse("nine sites", "invalid", &|m| {
        m.policy.sites = (0..9)
            .map(|n| format!("site-{n}").parse().unwrap())
            .collect();
    });
    refuse("a final count below its segments", "invalid", &|m| {
        m.end = Some(End {
            segments: 1,
            reason: EndReason::Stopped,
        });
    });
    let unknown = with_class_9(&to_cbor(&last));
    let unknown = w.evidence_by(manifest::KIND, unknown, "device", "device");
    b.refuse("an unknown class", "malformed", raw(&unknown));
}

fn with_class_9(payload: &[u8]) -> Vec<u8> {
    let mut value = parsed(payload);
    for (key, class) in value.as_map_mut().unwrap() {
        if *key == Cbor::from(9) {
            *class = Cbor::from(9);
        }
    }
    encoded(&value)
}

/// Device proofs: the payload is the TLS exporter's 32 bytes.
pub(crate) fn device_proofs(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "device-proof",
        "Device proofs of a camera's hello. The payload is the connection's TLS exporter, 32 raw bytes. \
         `revocation` names the revocation lists that are known, in keys.json: a proof opens a session.",
        &w.keys,
    );
    let exporter = some_digest(7).0;
    let known = json!({ "exporter": to_hex(&exporter) });
    let by =
        |kind: &str, key: &str, chain: &str| w.evidence_by(kind, exporter.to_vec(), key, chain);
    let good = by(message::PROOF_KIND, "device", "device");
    b.accept("over this connection", given(&good, &known));
    refuse_envelopes(&mut b, &good, limits::PROOF_BYTES, &known);
    let other = json!({ "exporter": to_hex(&some_digest(8).0) });
    b.refuse(
        "over another connection",
        "wrong-binding",
        given(&good, &other),
    );
    let link = by(message::PROOF_KIND, "link", "link");
    b.refuse(
        "wrong role: signed by a link certificate",
        "signer: wrong_usage",
        given(&link, &known),
    );
    let kind = by(manifest::KIND, "device", "device");
    b.refuse(
        "wrong kind: signed as a manifest",
        "bad-signature",
        given(&kind, &known),
    );
    let foreign = by(message::PROOF_KIND, "device", "device-of-other-root");
    b.refuse(
        "another agency's device",
        "signer: unknown_ca",
        given(&foreign, &known),
    );
    let under = |list: &str| json!({ "exporter": to_hex(&exporter), "revocation": list });
    b.accept(
        "another device is revoked",
        given(&good, &under("device-2-revoked")),
    );
    let revoked = by(message::PROOF_KIND, "device-2", "device-2");
    b.accept("of another camera", given(&revoked, &known));
    b.refuse(
        "by a revoked device",
        "signer: revoked",
        given(&revoked, &under("device-2-revoked")),
    );
    b.refuse(
        "an issuer without revocation list",
        "signer: revocation_unknown",
        given(&good, &under("of-the-root-alone")),
    );
    b
}

/// Another recording of the same camera.
pub(crate) fn next_recording(w: &World) -> RecordingId {
    RecordingId {
        number: 8,
        ..w.recording.clone()
    }
}
