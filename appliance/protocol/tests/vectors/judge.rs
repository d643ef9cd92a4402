//! What this crate says of one case: the fields of what it accepts, or the word for why it refuses. One
//! function a kind; the words are those of SPEC.md, "Reasons".
//!
//! It decides nothing by itself, save for a whole recording, whose checks belong to whoever opens one.

use std::collections::BTreeSet;

use bytes::Bytes;
use coset::{CoseSign1, TaggedCborSerializable};
use protocol::codec;
use protocol::cose::{self, CoseError, to_cbor};
use protocol::header::{self, HeaderError};
use protocol::identity::{Revocation, Role, Trust, Usage, When, verify_chain};
use protocol::ids::{CameraId, Digest, Incarnation, RecordingId};
use protocol::inventory::{self, Inventory, InventoryError};
use protocol::keylist::{self, KeyList, KeyListError, RecipientRole, State};
use protocol::manifest::{EndReason, Manifest, ManifestError};
use protocol::message::MessageError;
use protocol::receipt::{self, Receipt, ReceiptError};
use protocol::segment::{self, Place, SegmentError};
use protocol::suite::{SymmetricKey, sha256};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::keys::{Keys, hex, to_hex};
use crate::{heads, show};

/// Fields, or the reason.
pub(crate) type Verdict = Result<Value, String>;

/// Judges `case` as an object of `kind`.
pub(crate) fn judge(kind: &str, case: &Value, keys: &Keys) -> Verdict {
    match kind {
        "certificate" => certificate(case, keys),
        "segment" => segment(case),
        "header" => header(case, keys),
        "manifest" => manifest(case, keys),
        "inventory-page" => inventory_page(case, keys),
        "inventory" => inventory(case, keys),
        "key-list" => key_list(case, keys),
        "receipt" => receipt(case, keys),
        "release" => release(case, keys),
        "device-proof" => device_proof(case, keys),
        "recording" => recording(case, keys),
        "logbook-head" => heads::logbook_head(case, keys),
        "countersignature" => heads::countersignature(case, keys),
        "message" => message(case),
        "frame" => frame(case),
        other => panic!("no kind of vectors: {other}"),
    }
}

/// The bytes under test: hexadecimal, filled up with zeros where the case says `pad_to`.
pub(crate) fn bytes(case: &Value) -> Bytes {
    let mut bytes = hex(&case["bytes"]);
    if let Some(length) = case["pad_to"].as_u64() {
        bytes.resize(usize::try_from(length).unwrap(), 0);
    }
    bytes.into()
}

pub(crate) fn digest(value: &Value) -> Digest {
    Digest::from_slice(&hex(value)).unwrap()
}

fn recording_id(value: &Value) -> RecordingId {
    let camera = CameraId {
        serial: value[0][0].as_str().unwrap().parse().unwrap(),
        incarnation: Incarnation::from_slice(&hex(&value[0][1])).unwrap(),
    };
    RecordingId {
        camera,
        number: value[1].as_u64().unwrap(),
    }
}

fn content_key(value: &Value) -> SymmetricKey {
    SymmetricKey::new(hex(value).try_into().unwrap())
}

pub(crate) fn listed(value: &Value, keys: &Keys) -> KeyList {
    KeyList::verify(hex(value).into(), &[keys.public("root")]).unwrap()
}

/// What is named by digest is compared before it is read.
fn named(case: &Value, bytes: &[u8]) -> Result<(), String> {
    match &case["given"]["digest"] {
        Value::Null => Ok(()),
        given if digest(given) == sha256(bytes) => Ok(()),
        _ => Err("wrong-digest".into()),
    }
}

/// Encoding what was read gives the same payload, save where the case holds keys of a later version.
pub(crate) fn same_again(case: &Value, signed: &[u8], payload: &[u8]) {
    let envelope = CoseSign1::from_tagged_slice(signed).unwrap();
    if case["later_keys"] != json!(true) {
        assert_eq!(
            envelope.payload.as_deref(),
            Some(payload),
            "encodes otherwise"
        );
    }
}

pub(crate) fn envelope(e: &CoseError) -> String {
    match e {
        CoseError::TooLong { .. } => "too-long".into(),
        CoseError::Malformed(_) => "malformed".into(),
        CoseError::BadSignature => "bad-signature".into(),
        CoseError::Signer(e) => format!("signer: {}", e.reason()),
        CoseError::Suite(_) => unreachable!("nothing is signed here"),
    }
}

fn certificate(case: &Value, keys: &Keys) -> Verdict {
    let given = &case["given"];
    let (usage, role) = match given["role"].as_str().unwrap() {
        "repeater" => (Usage::Client, Role::Repeater),
        "archive" => (Usage::Server, Role::Archive),
        "camera" => (Usage::Server, Role::Camera),
        "device" => (Usage::Evidence, Role::Device),
        other => panic!("no role: {other}"),
    };
    let chain: Vec<_> = case["chain"].as_array().unwrap().iter().map(hex).collect();
    let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
    let trust = keys.trust(given["root"].as_str().unwrap());
    let verified = verify_chain(&chain, &trust, When::Undated, usage, Revocation::Ignore);
    let verified = verified.map_err(|e| format!("signer: {}", e.reason()))?;
    let found = verified
        .identity
        .require(role)
        .map(|()| verified.identity.to_string());
    Ok(json!({
        "identity": found.map_err(|e| format!("signer: {}", e.reason()))?,
        "public_key": to_hex(verified.public_key.sec1()),
        "not_before": verified.not_before.0,
        "not_after": verified.not_after.0,
    }))
}

fn segment(case: &Value) -> Verdict {
    let given = &case["given"];
    let recording = recording_id(&given["recording"]);
    let place = Place {
        recording: &recording,
        seq: given["seq"].as_u64().unwrap(),
        last: given["last"].as_bool().unwrap(),
    };
    let key = content_key(&given["content_key"]);
    let reason = |e| match e {
        SegmentError::TooLong(_) => "too-long",
        SegmentError::Malformed(_) => "malformed",
        SegmentError::Unopened { .. } => "unopened",
    };
    if let Some(count) = given["footage_zeros"].as_u64() {
        let footage = vec![0; usize::try_from(count).unwrap()];
        let sealed = segment::seal(&key, place, &footage).map_err(reason)?;
        assert_eq!(segment::open(&key, place, &sealed.bytes).unwrap(), footage);
        return Ok(
            json!({"length": sealed.bytes.len(), "digest": to_hex(sealed.digest.as_bytes())}),
        );
    }
    let bytes = bytes(case);
    named(case, &bytes)?;
    let footage = segment::open(&key, place, &bytes).map_err(reason)?;
    let again = segment::seal(&key, place, &footage).unwrap();
    assert_eq!(again.bytes, bytes, "seals otherwise");
    Ok(
        json!({"footage": to_hex(&footage), "length": bytes.len(), "digest": to_hex(again.digest.as_bytes())}),
    )
}

fn header_reason(e: &HeaderError) -> String {
    match e {
        HeaderError::TooLong(_) => "too-long",
        HeaderError::Malformed(_) => "malformed",
        HeaderError::NotARecipient(_) => "not-a-recipient",
        HeaderError::Unopened(_) => "unopened",
    }
    .into()
}

fn header(case: &Value, keys: &Keys) -> Verdict {
    let (given, bytes) = (&case["given"], bytes(case));
    named(case, &bytes)?;
    let ids = header::recipients(&bytes).map_err(|e| header_reason(&e))?;
    let shown: Vec<_> = ids.iter().map(|id| to_hex(id.as_bytes())).collect();
    let mut fields = json!({"recipients": shown, "digest": to_hex(sha256(&bytes).as_bytes())});
    if !given["key_list"].is_null() {
        let list = listed(&given["key_list"], keys);
        let known: Vec<_> = ids.iter().filter_map(|id| list.recipient(*id)).collect();
        if known.is_empty() {
            return Err("unknown-recipient".into());
        }
        let good =
            |r: &&keylist::Recipient| r.role == RecipientRole::Archive && r.state == State::Active;
        fields["alarm"] = json!(!known.iter().any(good));
    }
    if let Some(name) = given["key"].as_str() {
        let recording = recording_id(&given["recording"]);
        let private = header::open(&recording, &bytes, &keys.agreement(name));
        fields["private"] = show::private(&private.map_err(|e| header_reason(&e))?);
    }
    Ok(fields)
}

/// Trust with a revocation list that names a device which signs some of the vectors: it must change no verdict,
/// since revocation ends sessions and not custody.
pub(crate) fn for_evidence(keys: &Keys) -> Trust {
    keys.trust_revoking(&json!("device-2-revoked"))
}

fn verified_manifest(bytes: Bytes, keys: &Keys) -> Result<Manifest, String> {
    Manifest::verify(bytes, &for_evidence(keys)).map_err(|e| match e {
        ManifestError::Envelope(e) => envelope(&e),
        ManifestError::WrongCamera { .. } => "wrong-camera".into(),
        ManifestError::Version(_) => "version".into(),
        ManifestError::Invalid(_) => "invalid".into(),
    })
}

fn manifest(case: &Value, keys: &Keys) -> Verdict {
    let manifest = verified_manifest(bytes(case), keys)?;
    same_again(case, manifest.bytes(), &to_cbor(manifest.body()));
    let mut fields = show::manifest(manifest.body());
    fields["digest"] = to_hex(manifest.digest().as_bytes());
    Ok(fields)
}

fn inventory_reason(e: InventoryError) -> String {
    match e {
        InventoryError::Envelope(e) => envelope(&e),
        InventoryError::WrongCamera => "wrong-camera".into(),
        InventoryError::Version(_) => "version".into(),
        InventoryError::Invalid(_) => "invalid".into(),
    }
}

fn inventory_page(case: &Value, keys: &Keys) -> Verdict {
    let page = inventory::Page::verify(bytes(case), &for_evidence(keys));
    let page = page.map_err(inventory_reason)?;
    same_again(case, page.bytes(), &to_cbor(page.body()));
    Ok(show::inventory(page.body()))
}

fn inventory(case: &Value, keys: &Keys) -> Verdict {
    let trust = for_evidence(keys);
    let pages = case["pages"].as_array().unwrap().iter();
    let pages: Result<Vec<_>, _> = pages
        .map(|p| inventory::Page::verify(hex(p).into(), &trust))
        .collect();
    let whole = pages
        .and_then(Inventory::assemble)
        .map_err(inventory_reason)?;
    let fate = |n| match whole.fate(n).unwrap() {
        inventory::Fate::Held => "held",
        inventory::Fate::Released => "released",
        inventory::Fate::Overwritten => "overwritten",
    };
    let fates: Vec<_> = (0..whole.next_recording()).map(fate).collect();
    Ok(json!({"number": whole.number(), "fates": fates}))
}

fn key_list(case: &Value, keys: &Keys) -> Verdict {
    let reason = |e| match e {
        KeyListError::Envelope(e) => envelope(&e),
        KeyListError::NotTheRoot(_) => "not-the-root".into(),
        KeyListError::Version(_) => "version".into(),
        KeyListError::Invalid(_) => "invalid".into(),
        KeyListError::Older { .. } => "older".into(),
        KeyListError::Forked(_) => "forked".into(),
    };
    let roots = [keys.public("root")];
    let offered = KeyList::verify(bytes(case), &roots).map_err(reason)?;
    if !case["given"]["known"].is_null() {
        let known = listed(&case["given"]["known"], keys);
        known.newer(bytes(case), &roots).map_err(reason)?;
    }
    same_again(case, offered.bytes(), &to_cbor(offered.body()));
    Ok(show::key_list(offered.body()))
}

fn verified_receipt(bytes: Bytes, list: &KeyList) -> Result<Receipt, String> {
    Receipt::verify(bytes, list).map_err(|e| match e {
        ReceiptError::Envelope(e) => envelope(&e),
        ReceiptError::UnknownKey(_) => "unknown-key".into(),
        ReceiptError::RevokedKey(_) => "revoked-key".into(),
        ReceiptError::WrongSite { .. } => "wrong-site".into(),
        ReceiptError::VoidEpoch { .. } => "void-epoch".into(),
        ReceiptError::Version(_) => "version".into(),
        ReceiptError::TooMany => "invalid".into(),
    })
}

fn receipt(case: &Value, keys: &Keys) -> Verdict {
    let given = &case["given"];
    let receipt = verified_receipt(bytes(case), &listed(&given["key_list"], keys))?;
    same_again(case, receipt.bytes(), &to_cbor(receipt.body()));
    let recording = recording_id(&given["recording"]);
    let header = digest(&given["header"]);
    let segment = &given["segment"];
    let covered = segment.is_null() || receipt.covers(&recording, header, digest(segment));
    let manifest = &given["manifest"];
    let named = manifest.is_null() || receipt.covers_manifest(&recording, header, digest(manifest));
    if !(covered && named) {
        return Err("not-covered".into());
    }
    let mut fields = show::receipt(receipt.body());
    fields["digest"] = to_hex(receipt.digest().as_bytes());
    Ok(fields)
}

/// The camera's question: may this segment be erased? Or, where `manifests` are given: header and manifests?
fn release(case: &Value, keys: &Keys) -> Verdict {
    let given = &case["given"];
    let list = listed(&given["key_list"], keys);
    let offered = case["receipts"].as_array().unwrap().iter();
    let receipts: Vec<_> = offered
        .filter_map(|r| verified_receipt(hex(r).into(), &list).ok())
        .collect();
    if !given["manifests"].is_null() {
        return papers(given, &list, &receipts, keys);
    }
    let manifest = verified_manifest(hex(&given["manifest"]).into(), keys)?;
    let (body, segment) = (manifest.body(), digest(&given["segment"]));
    let sites: BTreeSet<_> = receipts
        .iter()
        .filter(|r| r.covers(&body.recording, body.header.digest, segment))
        .map(|r| r.body().site.clone())
        .collect();
    if !receipt::satisfied(&body.policy, &list, &sites) {
        return Err("too-few-receipts".into());
    }
    let sites: Vec<_> = sites.iter().map(|s| s.as_str()).collect();
    Ok(json!({"sites": sites, "needed": receipt::needed(&body.policy, &list)}))
}

/// Header and manifests go when the recording is finished, every segment is erased, and every manifest is named
/// by the receipts that the policy asks for.
fn papers(given: &Value, list: &KeyList, receipts: &[Receipt], keys: &Keys) -> Verdict {
    let manifests: Result<Vec<_>, _> = given["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| verified_manifest(hex(m).into(), keys))
        .collect();
    let manifests = manifests?;
    let end = manifests.iter().find_map(|m| m.body().end);
    let end = end.ok_or("not-ended")?;
    let entries: Vec<_> = manifests.iter().flat_map(|m| &m.body().segments).collect();
    if u64::try_from(entries.len()) != Ok(end.segments) {
        return Err("wrong-count".into());
    }
    let erased: Vec<_> = given["erased"].as_array().unwrap().iter().collect();
    if entries
        .iter()
        .any(|e| !erased.contains(&&to_hex(e.digest.as_bytes())))
    {
        return Err("segments-here".into());
    }
    let policy = &manifests[0].body().policy;
    for manifest in &manifests {
        let body = manifest.body();
        let sites: BTreeSet<_> = receipts
            .iter()
            .filter(|r| r.covers_manifest(&body.recording, body.header.digest, manifest.digest()))
            .map(|r| r.body().site.clone())
            .collect();
        if !receipt::satisfied(policy, list, &sites) {
            return Err("too-few-receipts".into());
        }
    }
    Ok(json!({"manifests": manifests.len(), "needed": receipt::needed(policy, list)}))
}

fn device_proof(case: &Value, keys: &Keys) -> Verdict {
    let trust = keys.trust_revoking(&case["given"]["revocation"]);
    let opened = cose::open_proof(&bytes(case), &trust);
    let (payload, serial) = opened.map_err(|e| envelope(&e))?;
    if payload != hex(&case["given"]["exporter"]) {
        return Err("wrong-binding".into());
    }
    Ok(json!({ "serial": serial.as_str() }))
}

/// Opens a whole recording: every manifest, the header, every segment, in order and to its end.
fn recording(case: &Value, keys: &Keys) -> Verdict {
    let list = |name: &str| -> Vec<Bytes> {
        let all = case[name].as_array().unwrap().iter();
        all.map(|v| hex(v).into()).collect()
    };
    let manifests: Result<Vec<_>, _> = list("manifests")
        .into_iter()
        .map(|m| verified_manifest(m, keys))
        .collect();
    let mut manifests = manifests?;
    manifests.sort_by_key(|m| m.body().index);
    let mut previous = None;
    for (manifest, index) in manifests.iter().zip(0..) {
        let body = manifest.body();
        let first = manifests[0].body();
        let same = (&body.recording, body.header) == (&first.recording, first.header);
        if body.index != index || body.previous != previous || !same {
            return Err("broken-chain".into());
        }
        previous = Some(manifest.digest());
    }
    let end = manifests.iter().find_map(|m| m.body().end);
    let end = end.ok_or("not-ended")?;
    let first = manifests[0].body();
    let header = match &case["header"] {
        Value::Null => return Err("missing-header".into()),
        header => hex(header),
    };
    if sha256(&header) != first.header.digest {
        return Err("wrong-digest".into());
    }
    let key = keys.agreement(case["given"]["key"].as_str().unwrap());
    let private = header::open(&first.recording, &header, &key).map_err(|e| header_reason(&e))?;
    let entries: Vec<_> = manifests.iter().flat_map(|m| &m.body().segments).collect();
    if u64::try_from(entries.len()) != Ok(end.segments) {
        return Err("wrong-count".into());
    }
    let segments = list("segments");
    let mut footage = Vec::new();
    for (entry, seq) in entries.iter().zip(0..) {
        if entry.seq != seq {
            return Err("broken-chain".into());
        }
        let is = |s: &&Bytes| sha256(s) == entry.digest;
        let sealed = segments.iter().find(is).ok_or("missing-segment")?;
        let last = seq + 1 == end.segments && end.reason == EndReason::Stopped;
        let place = Place {
            recording: &first.recording,
            seq,
            last,
        };
        let opened = segment::open(&private.key(), place, sealed);
        footage.extend(opened.map_err(|_| "unopened")?);
    }
    Ok(json!({"footage": to_hex(&footage), "segments": end.segments}))
}

fn message_reason(e: &MessageError) -> String {
    match e {
        MessageError::Malformed(_) => "malformed",
        MessageError::Limit(_) => "limit",
    }
    .into()
}

fn message(case: &Value) -> Verdict {
    let body = bytes(case);
    let message = codec::decode(&body).map_err(|e| message_reason(&e))?;
    if case["later_keys"] != json!(true) {
        let again = codec::encode_body(&message).unwrap();
        assert_eq!(again, body, "encodes otherwise");
    }
    Ok(show::message(&message))
}

fn frame(case: &Value) -> Verdict {
    let stream = bytes(case);
    let (mut rest, mut messages) = (&stream[..], Vec::new());
    while !rest.is_empty() {
        let (prefix, after) = rest.split_first_chunk().ok_or("truncated")?;
        let length = codec::body_length(*prefix).map_err(|_| "too-long")?;
        let (body, after) = after.split_at_checked(length).ok_or("truncated")?;
        let message = codec::decode(body).map_err(|e| message_reason(&e))?;
        assert_eq!(
            codec::encode(&message).unwrap()[..],
            rest[..4 + length],
            "frames otherwise"
        );
        messages.push(show::message(&message));
        rest = after;
    }
    Ok(json!({ "messages": messages }))
}
