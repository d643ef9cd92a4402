//! Vectors of certificates, and of what is encrypted: segments and headers.
//!
//! Sealing is deterministic once keys and random bytes are given, so the accepted segments can be made again by
//! anybody, byte for byte; headers only opened. Each refused case is the smallest change to an accepted one.

use bytes::Bytes;
use ciborium::Value as Cbor;
use protocol::header;
use protocol::ids::RecordingId;
use protocol::limits;
use protocol::segment::{self, Place};
use serde_json::{Value, json};

use crate::book::{Book, flip, given};
use crate::keys::to_hex;
use crate::show;
use crate::world::{World, drawn, encoded, parsed, replaced};

/// Certificate chains, judged without a date and without revocation lists.
pub(crate) fn certificates(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "certificate",
        "Chains, leaf first. Accepted: the identity and key of the leaf, in the role asked for.",
        &w.keys,
    );
    let case = |chain: &str, role: &str, root: &str| chain_case(w, chain, role, root);
    b.accept(
        "device under an issuing CA",
        case("device", "device", "root"),
    );
    b.accept(
        "device directly under the root",
        case("device-direct", "device", "root"),
    );
    b.accept("camera's link", case("link", "camera", "root"));
    b.accept("repeater", case("repeater", "repeater", "root"));
    b.accept("archive site", case("archive", "archive", "root"));
    refuse_chains(w, &mut b);
    let mut short = case("device", "device", "root");
    short["chain"].as_array_mut().unwrap().pop();
    b.refuse("the issuing CA is missing", "signer: unknown_ca", short);
    let mut long = case("device", "device", "root");
    let ca = long["chain"][1].clone();
    long["chain"]
        .as_array_mut()
        .unwrap()
        .extend([ca.clone(), ca.clone(), ca]);
    b.refuse("five certificates", "signer: chain_too_long", long);
    b
}

fn chain_case(w: &World, chain: &str, role: &str, root: &str) -> Value {
    json!({"chain": w.keys.0["chains"][chain], "given": {"role": role, "root": root}})
}

fn refuse_chains(w: &World, b: &mut Book<'_>) {
    let case = |chain: &str, role: &str, root: &str| chain_case(w, chain, role, root);
    let mut refuse = |name: &str, reason: &str, chain: &str, role: &str, root: &str| {
        b.refuse(name, &format!("signer: {reason}"), case(chain, role, root));
    };
    refuse(
        "another agency's root",
        "unknown_ca",
        "device-of-other-root",
        "device",
        "root",
    );
    refuse(
        "our device under another agency's root",
        "unknown_ca",
        "device",
        "device",
        "other-root",
    );
    refuse(
        "usage is not evidence signing",
        "wrong_usage",
        "device-for-servers",
        "device",
        "root",
    );
    refuse(
        "a link certificate does not sign evidence",
        "wrong_usage",
        "link",
        "device",
        "root",
    );
    refuse(
        "evidence usage, but a link's name",
        "wrong_role",
        "link-as-evidence",
        "device",
        "root",
    );
    refuse(
        "a repeater where an archive answers",
        "wrong_usage",
        "repeater",
        "archive",
        "root",
    );
    refuse(
        "a camera where an archive answers",
        "wrong_role",
        "link",
        "archive",
        "root",
    );
    refuse(
        "two names",
        "san",
        "device-with-two-names",
        "device",
        "root",
    );
    refuse(
        "a host name beside the URI",
        "san",
        "device-with-a-host-name",
        "device",
        "root",
    );
}

/// Sealed segments.
pub(crate) fn segments(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "segment",
        "Sealed segments. Where `digest` is given it is compared before anything is read. `footage_zeros`: \
         so many zero bytes are sealed; `fields` has the length and digest of what comes out.",
        &w.keys,
    );
    let place = |seq, last| place(w, seq, last);
    for (seq, sealed) in (0..).zip(&w.segments) {
        let known = with(
            place(seq, seq == 2),
            "digest",
            to_hex(sealed.digest.as_bytes()),
        );
        b.accept(&format!("segment {seq}"), given(&sealed.bytes, &known));
    }
    let at = |seq, last| Place {
        recording: &w.recording,
        seq,
        last,
    };
    let empty = segment::seal(&w.content_key(), at(0, true), b"").unwrap();
    b.accept("no footage at all", given(&empty.bytes, &place(0, true)));
    let count = limits::SEGMENT_FOOTAGE_BYTES;
    b.accept(
        "the longest",
        json!({"given": with(place(5, false), "footage_zeros", json!(count))}),
    );
    b.refuse(
        "a byte too long",
        "too-long",
        json!({"given": with(place(5, false), "footage_zeros", json!(count + 1))}),
    );
    refuse_segments(w, &mut b);
    b
}

fn place(w: &World, seq: u64, last: bool) -> Value {
    json!({
        "content_key": to_hex(w.content_key().as_ref()), "recording": w.shown_recording(), "seq": seq, "last": last,
    })
}

fn with(mut value: Value, name: &str, by: Value) -> Value {
    value[name] = by;
    value
}

fn refuse_segments(w: &World, b: &mut Book<'_>) {
    let place = |seq, last| place(w, seq, last);
    let sealed = &w.segments[0].bytes;
    let named = with(
        place(0, false),
        "digest",
        to_hex(w.segments[0].digest.as_bytes()),
    );
    b.refuse(
        "another segment than the digest names",
        "wrong-digest",
        given(&w.segments[1].bytes, &named),
    );
    b.refuse(
        "one bit flipped, against its digest",
        "wrong-digest",
        given(&flip(sealed, -1), &named),
    );
    b.refuse(
        "one bit of the tag flipped",
        "unopened",
        given(&flip(sealed, -1), &place(0, false)),
    );
    b.refuse(
        "as another number",
        "malformed",
        given(sealed, &place(1, false)),
    );
    b.refuse(
        "as the last one",
        "unopened",
        given(sealed, &place(0, true)),
    );
    let other = show::recording(&RecordingId {
        number: 8,
        ..w.recording.clone()
    });
    b.refuse(
        "of another recording",
        "unopened",
        given(sealed, &with(place(0, false), "recording", other)),
    );
    let key = to_hex(&[7; 32]);
    b.refuse(
        "another content key",
        "unopened",
        given(sealed, &with(place(0, false), "content_key", key)),
    );
    b.refuse(
        "truncated",
        "malformed",
        given(&sealed[..sealed.len() - 1], &place(0, false)),
    );
    let mut long = given(sealed, &place(0, false));
    long["pad_to"] = json!(limits::SEGMENT_BYTES + 1);
    b.refuse("sealed bytes over the limit", "too-long", long);
    b.refuse(
        "a header in a segment's place",
        "malformed",
        given(&w.header.bytes, &place(0, false)),
    );
    let ctr = replaced(sealed, 0, Cbor::Bytes(vec![0xa1, 1, 2]));
    b.refuse(
        "algorithm A192GCM",
        "malformed",
        given(&ctr, &place(0, false)),
    );
}

/// Recording headers.
pub(crate) fn headers(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "header",
        "Recording headers. `digest` is compared first; then the form; with `key_list`, whether a recipient is \
         in it; with `key`, it is opened. `alarm`: readable by no active archive key.",
        &w.keys,
    );
    let known = |key: &str| known(w, key);
    let bytes = &w.header.bytes;
    b.accept("opened by the archive", given(bytes, &known("archive")));
    b.accept("opened by escrow", given(bytes, &known("escrow")));
    b.accept(
        "as the repeater sees it",
        given(
            bytes,
            &json!({"digest": to_hex(w.header.digest.as_bytes())}),
        ),
    );
    let fresh = |key: Value| fresh(w, &key);
    let old = sealed_to(w, &w.recording, &["archive-old", "escrow"]);
    b.accept(
        "for a retired archive key: alarm",
        given(&old, &fresh(json!("escrow"))),
    );
    b.accept(
        "for escrow alone: alarm",
        given(
            &sealed_to(w, &w.recording, &["escrow"]),
            &fresh(json!("escrow")),
        ),
    );
    let mixed = sealed_to(w, &w.recording, &["stranger", "archive"]);
    b.accept(
        "a stranger beside the archive",
        given(&mixed, &fresh(json!("archive"))),
    );
    refuse_headers(w, &mut b);
    refuse_forms(w, &mut b);
    b
}

/// What is known of the header: recording, digest, key list.
fn known(w: &World, key: &str) -> Value {
    with(
        fresh(w, &json!(key)),
        "digest",
        to_hex(w.header.digest.as_bytes()),
    )
}

/// The same without its digest.
fn fresh(w: &World, key: &Value) -> Value {
    json!({"recording": w.shown_recording(), "key_list": to_hex(w.signed_list().bytes()), "key": key})
}

fn sealed_to(w: &World, recording: &RecordingId, names: &[&str]) -> Bytes {
    let recipients: Vec<_> = names.iter().map(|n| w.keys.public(n)).collect();
    header::seal(recording, &w.private, &recipients, &drawn(&names.concat()))
        .unwrap()
        .bytes
}

fn refuse_headers(w: &World, b: &mut Book<'_>) {
    let (bytes, known, fresh) = (
        &w.header.bytes,
        |key: &str| known(w, key),
        |key: Value| fresh(w, &key),
    );
    let strange = sealed_to(w, &w.recording, &["stranger"]);
    b.refuse(
        "wrong recipient",
        "unknown-recipient",
        given(&strange, &fresh(json!(null))),
    );
    b.refuse(
        "opened by a key that is no recipient",
        "not-a-recipient",
        given(bytes, &known("stranger")),
    );
    let next = RecordingId {
        number: 8,
        ..w.recording.clone()
    };
    let swapped = sealed_to(w, &next, &["archive", "escrow"]);
    b.refuse(
        "swapped: another recording's, by its digest",
        "wrong-digest",
        given(&swapped, &known("archive")),
    );
    b.refuse(
        "swapped: another recording's, by its seal",
        "unopened",
        given(&swapped, &fresh(json!("archive"))),
    );
    b.refuse(
        "missing: no bytes",
        "wrong-digest",
        given(b"", &known("archive")),
    );
    b.refuse(
        "one bit flipped, against its digest",
        "wrong-digest",
        given(&flip(bytes, -1), &known("archive")),
    );
    b.refuse(
        "one bit of a wrapped key flipped",
        "unopened",
        given(&flip(bytes, -1), &fresh(json!("escrow"))),
    );
    b.refuse(
        "truncated",
        "malformed",
        given(&bytes[..bytes.len() - 1], &fresh(json!("archive"))),
    );
    let mut long = given(bytes, &fresh(json!("archive")));
    long["pad_to"] = json!(limits::HEADER_BYTES + 1);
    b.refuse("over the limit", "too-long", long);
}

fn refuse_forms(w: &World, b: &mut Book<'_>) {
    let (bytes, fresh) = (&w.header.bytes, |key: Value| fresh(w, &key));
    b.refuse(
        "no recipients",
        "malformed",
        given(
            &replaced(bytes, 3, Cbor::Array(vec![])),
            &fresh(json!(null)),
        ),
    );
    let one = recipient(bytes);
    let many = replaced(
        bytes,
        3,
        Cbor::Array(vec![one.clone(); limits::HEADER_RECIPIENTS + 1]),
    );
    b.refuse(
        "nine recipients",
        "malformed",
        given(&many, &fresh(json!(null))),
    );
    let nameless = changed(&one, |parts| strip(&mut parts[1], 4));
    let nameless = replaced(bytes, 3, Cbor::Array(vec![nameless]));
    b.refuse(
        "a recipient without key id",
        "malformed",
        given(&nameless, &fresh(json!(null))),
    );
    let keyless = changed(&one, |parts| strip(&mut parts[1], -1));
    let keyless = replaced(bytes, 3, Cbor::Array(vec![keyless]));
    b.refuse(
        "a recipient without ephemeral key",
        "malformed",
        given(&keyless, &fresh(json!(null))),
    );
    for (name, label, by) in [
        ("an ephemeral key of another curve", -1, Cbor::from(2)),
        ("an ephemeral key of another type", 1, Cbor::from(1)),
        (
            "an ephemeral key that is not on the curve",
            -3,
            Cbor::Bytes(vec![7; 32]),
        ),
    ] {
        let other = changed(&one, |parts| ephemeral(&mut parts[1], label, &by));
        let other = replaced(bytes, 3, Cbor::Array(vec![other]));
        b.refuse(name, "malformed", given(&other, &fresh(json!(null))));
    }
    let short = changed(&one, |parts| parts[2] = Cbor::Bytes(vec![0; 24]));
    let short = replaced(bytes, 3, Cbor::Array(vec![short]));
    b.refuse(
        "a wrapped key of 24 bytes",
        "malformed",
        given(&short, &fresh(json!(null))),
    );
    let iv = Cbor::Map(vec![(Cbor::from(5), Cbor::Bytes(vec![0; 8]))]);
    b.refuse(
        "an IV of 64 bits",
        "malformed",
        given(&replaced(bytes, 1, iv), &fresh(json!("archive"))),
    );
    b.refuse(
        "a segment in a header's place",
        "malformed",
        given(&w.segments[0].bytes, &fresh(json!("archive"))),
    );
}

/// The first recipient of a header.
fn recipient(bytes: &[u8]) -> Cbor {
    match parsed(bytes) {
        Cbor::Tag(_, inner) => inner.as_array().unwrap()[3].as_array().unwrap()[0].clone(),
        other => panic!("{other:?} is no header"),
    }
}

fn changed(value: &Cbor, change: impl Fn(&mut Vec<Cbor>)) -> Cbor {
    let mut value = value.clone();
    change(value.as_array_mut().unwrap());
    assert!(!encoded(&value).is_empty());
    value
}

/// Replaces a label of the ephemeral key in a recipient's header map.
fn ephemeral(map: &mut Cbor, label: i64, by: &Cbor) {
    let map = map.as_map_mut().unwrap();
    let key = map.iter_mut().find(|(k, _)| *k == Cbor::from(-1)).unwrap();
    let part = key.1.as_map_mut().unwrap();
    part.iter_mut()
        .find(|(k, _)| *k == Cbor::from(label))
        .unwrap()
        .1 = by.clone();
}

/// Removes a label from a header map.
fn strip(map: &mut Cbor, label: i64) {
    map.as_map_mut()
        .unwrap()
        .retain(|(k, _)| *k != Cbor::from(label));
}
