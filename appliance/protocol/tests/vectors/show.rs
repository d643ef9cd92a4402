//! What an object says, as the JSON of the vectors' `fields`: names as in SPEC.md's CDDL, bytes in
//! hexadecimal, enumerations by name, absent members left out.

use protocol::ids::{CameraId, Range, RecordingId, RepeaterId};
use protocol::keylist::{RecipientRole, State};
use protocol::logbook::LogbookHead;
use protocol::manifest::{Class, EndReason, Policy};
use protocol::message::{Countersigned, HeadVerdict, Message, Reason};
use protocol::receipt::Verdict;
use protocol::{header, inventory, keylist, logbook, manifest, receipt};
use serde_json::{Map, Value, json};

use crate::keys::to_hex;

/// An object without its absent members.
fn present<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members = members.into_iter().filter(|(_, v)| !v.is_null());
    Value::Object(
        members
            .map(|(k, v)| (k.to_owned(), v))
            .collect::<Map<_, _>>(),
    )
}

fn camera(c: &CameraId) -> Value {
    json!([c.serial.as_str(), to_hex(&c.incarnation.0)])
}

pub(crate) fn recording(r: &RecordingId) -> Value {
    json!([camera(&r.camera), r.number])
}

fn ranges(ranges: &[Range]) -> Value {
    ranges.iter().map(|r| json!([r.from, r.to])).collect()
}

fn class(class: Class) -> Value {
    json!(class.name())
}

fn policy(p: &Policy) -> Value {
    let sites: Vec<_> = p.sites.iter().map(|s| s.as_str()).collect();
    json!({"k": p.k, "sites": sites})
}

pub(crate) fn manifest(b: &manifest::Body) -> Value {
    let segment =
        |s: &manifest::SegmentEntry| json!([s.seq, s.length, to_hex(s.digest.as_bytes())]);
    let reason = |r| match r {
        EndReason::Stopped => "stopped",
        EndReason::Interrupted => "interrupted",
    };
    present([
        ("version", json!(b.version)),
        ("recording", recording(&b.recording)),
        ("index", json!(b.index)),
        ("previous", json!(b.previous.map(|d| to_hex(d.as_bytes())))),
        (
            "header",
            json!([to_hex(b.header.digest.as_bytes()), b.header.length]),
        ),
        ("segments", b.segments.iter().map(segment).collect()),
        ("captured_from", json!(b.captured_from.0)),
        ("captured_to", json!(b.captured_to.0)),
        ("class", class(b.class)),
        ("policy", policy(&b.policy)),
        ("end", json!(b.end.map(|e| (e.segments, reason(e.reason))))),
        ("clock_unset", json!(b.clock_unset)),
        ("clock_offset_ms", json!(b.clock_offset_ms)),
    ])
}

pub(crate) fn inventory(b: &inventory::Body) -> Value {
    let held = |h: &inventory::Held| {
        json!({
            "number": h.number, "manifest": to_hex(h.manifest.as_bytes()), "index": h.index, "bytes": h.bytes,
            "receipted": ranges(&h.receipted), "erased": ranges(&h.erased),
        })
    };
    let released = |r: &inventory::Released| {
        json!([[r.range.from, r.range.to], to_hex(r.receipts.as_bytes())])
    };
    present([
        ("version", json!(b.version)),
        ("camera", camera(&b.camera)),
        ("number", json!(b.number)),
        ("page", json!(b.page)),
        ("pages", json!(b.pages)),
        ("next_recording", json!(b.next_recording)),
        ("held", b.held.iter().map(held).collect()),
        ("released", b.released.iter().map(released).collect()),
        ("overwritten", ranges(&b.overwritten)),
        ("made", json!(b.made.0)),
    ])
}

pub(crate) fn receipt(b: &receipt::Body) -> Value {
    let verdict = match b.verdict {
        Verdict::Stored => "stored",
        Verdict::Expired => "expired",
    };
    let digest = |d: &protocol::ids::Digest| to_hex(d.as_bytes());
    present([
        ("version", json!(b.version)),
        ("site", json!(b.site.as_str())),
        ("epoch", to_hex(b.epoch.as_bytes())),
        ("recording", recording(&b.recording)),
        ("header", digest(&b.header)),
        ("segments", b.segments.iter().map(digest).collect()),
        ("verdict", json!(verdict)),
        ("signed", json!(b.signed.0)),
        ("manifests", b.manifests.iter().map(digest).collect()),
    ])
}

pub(crate) fn key_list(b: &keylist::Body) -> Value {
    let state = |s| match s {
        State::Active => "active",
        State::Retired => "retired",
        State::Revoked => "revoked",
    };
    let role = |r| match r {
        RecipientRole::Archive => "archive",
        RecipientRole::Escrow => "escrow",
    };
    let key = |k: &keylist::ReceiptKey| json!({"site": k.site.as_str(), "public_key": to_hex(&k.public_key), "state": state(k.state)});
    let recipient = |r: &keylist::Recipient| json!({"role": role(r.role), "public_key": to_hex(&r.public_key), "state": state(r.state)});
    let void = |v: &keylist::VoidEpoch| json!([v.site.as_str(), to_hex(v.epoch.as_bytes())]);
    let suspended: Vec<_> = b.suspended.iter().map(|s| s.as_str()).collect();
    present([
        ("version", json!(b.version)),
        ("number", json!(b.number)),
        ("receipt_keys", b.receipt_keys.iter().map(key).collect()),
        ("recipients", b.recipients.iter().map(recipient).collect()),
        ("void_epochs", b.void_epochs.iter().map(void).collect()),
        ("suspended", json!(suspended)),
    ])
}

pub(crate) fn private(p: &header::Private) -> Value {
    present([
        ("content_key", to_hex(&p.content_key)),
        ("media_type", json!(p.media_type)),
        ("officer", json!(p.officer)),
        ("case", json!(p.case)),
        ("position", json!(p.position)),
        ("muted", json!(p.muted)),
    ])
}

pub(crate) fn message(m: &Message) -> Value {
    let digest = |d: &protocol::ids::Digest| to_hex(d.as_bytes());
    let (name, body) = match m {
        Message::Inventory(b) => ("inventory", json!({ "object": to_hex(b) })),
        Message::Manifest(b) => ("manifest", json!({ "object": to_hex(b) })),
        Message::Offer(b) => ("offer", json!({ "object": to_hex(b) })),
        Message::Receipt(b) => ("receipt", json!({ "object": to_hex(b) })),
        Message::WantManifests(w) => (
            "want-manifests",
            json!({"number": w.number, "from_index": w.from_index}),
        ),
        Message::Pull(p) => (
            "pull",
            json!({"digest": digest(&p.digest), "offset": p.offset}),
        ),
        Message::Bytes(b) => ("bytes", json!({ "length": b.length })),
        Message::Release(r) => {
            let receipts: Vec<_> = r.receipts.iter().map(|r| to_hex(r)).collect();
            ("release", json!({ "receipts": receipts }))
        }
        Message::Released(r) => {
            let list = |l: &[protocol::ids::Digest]| l.iter().map(digest).collect::<Vec<_>>();
            (
                "released",
                json!({"number": r.number, "digests": list(&r.digests), "refused": list(&r.refused)}),
            )
        }
        Message::Want(w) => {
            let digests: Vec<_> = w.digests.iter().map(digest).collect();
            (
                "want",
                json!({"manifest": digest(&w.manifest), "digests": digests, "grant": w.grant}),
            )
        }
        Message::Put(p) => (
            "put",
            json!({"manifest": digest(&p.manifest), "digest": digest(&p.digest)}),
        ),
        Message::Busy(b) => (
            "busy",
            json!({"about": digest(&b.about), "class": class(b.class), "retry_after_ms": b.retry_after_ms}),
        ),
        Message::Refused(r) => (
            "refused",
            json!({"about": digest(&r.about), "reason": reason(r.reason), "text": r.text}),
        ),
        Message::LogbookHead(b) => ("logbook-head", json!({ "object": to_hex(b) })),
        Message::Countersignature(c) => ("countersignature", countersigned(c)),
        Message::Unsupported(n) => ("unsupported", json!({ "number": n })),
        Message::Error(e) => ("error", json!({"code": e.code, "text": e.text})),
        Message::Unknown(_) => ("unknown", json!({})),
        Message::RepeaterHello(_) | Message::CameraHello(_) | Message::ArchiveHello(_) => hello(m),
    };
    json!({"number": m.number(), "message": name, "body": body})
}

fn hello(m: &Message) -> (&'static str, Value) {
    let list = |l: &Option<minicbor::bytes::ByteVec>| json!(l.as_ref().map(|b| to_hex(b)));
    match m {
        Message::RepeaterHello(h) => (
            "repeater-hello",
            present([
                ("versions", json!(h.versions)),
                ("software", json!(h.software)),
                ("key_list", list(&h.key_list)),
                ("now", json!(h.now.0)),
                ("docked", json!(h.docked)),
                ("now_error_ms", json!(h.now_error_ms)),
            ]),
        ),
        Message::CameraHello(h) => (
            "camera-hello",
            present([
                ("versions", json!(h.versions)),
                ("software", json!(h.software)),
                ("proof", to_hex(&h.proof)),
                ("incarnation", to_hex(&h.incarnation.0)),
                ("key_list", json!(h.key_list)),
                ("now", json!(h.now.map(|t| t.0))),
                ("battery_percent", json!(h.battery_percent)),
                ("charging", json!(h.charging)),
                ("free_bytes", json!(h.free_bytes)),
                ("firmware", json!(h.firmware)),
            ]),
        ),
        Message::ArchiveHello(h) => (
            "archive-hello",
            present([
                ("versions", json!(h.versions)),
                ("software", json!(h.software)),
                ("key_list", list(&h.key_list)),
                ("site", json!(h.site.as_str())),
                ("epoch", to_hex(h.epoch.as_bytes())),
                ("now", json!(h.now.0)),
            ]),
        ),
        other => unreachable!("{other:?} is no hello"),
    }
}

fn countersigned(c: &Countersigned) -> Value {
    let verdict = match c.verdict {
        HeadVerdict::Signed => "signed",
        HeadVerdict::Behind => "behind",
        HeadVerdict::Forked => "forked",
        HeadVerdict::Refused => "refused",
        HeadVerdict::Unavailable => "unavailable",
    };
    present([
        ("about", to_hex(c.about.as_bytes())),
        ("verdict", json!(verdict)),
        ("signature", json!(c.signature.as_ref().map(|b| to_hex(b)))),
        ("text", json!(c.text)),
    ])
}

fn head(h: &LogbookHead) -> Value {
    json!([
        to_hex(&h.incarnation.0),
        h.entries,
        to_hex(h.hash.as_bytes())
    ])
}

fn repeater(r: &RepeaterId) -> Value {
    json!([r.station.as_str(), r.n])
}

pub(crate) fn logbook_head(b: &logbook::HeadBody) -> Value {
    json!({
        "version": b.version, "repeater": repeater(&b.repeater), "head": head(&b.head), "signed": b.signed.0,
    })
}

pub(crate) fn countersignature(b: &logbook::Body) -> Value {
    json!({
        "version": b.version, "site": b.site.as_str(), "repeater": repeater(&b.repeater), "head": head(&b.head),
        "told": b.told.0, "signed": b.signed.0,
    })
}

fn reason(r: Reason) -> &'static str {
    match r {
        Reason::WrongDigest => "wrong-digest",
        Reason::BadSignature => "bad-signature",
        Reason::UnknownRecipient => "unknown-recipient",
        Reason::NotMySite => "not-my-site",
        Reason::Malformed => "malformed",
        Reason::NotWanted => "not-wanted",
        Reason::StoreFailed => "store-failed",
        Reason::Version => "version",
    }
}
