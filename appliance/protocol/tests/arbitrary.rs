//! Whatever a peer sends, the decoders answer, and answer only in two ways: an error, or something within its
//! limits that encodes again. Fed with arbitrary bytes, and with every valid vector cut, lengthened, spliced
//! with another or changed in a few places, since noise alone never comes past the first byte.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use proptest::prelude::*;
use protocol::identity::{Revocation, Trust, Usage, When, verify_chain};
use protocol::ids::{CameraId, Incarnation, RecordingId};
use protocol::inventory::{Inventory, Page};
use protocol::keylist::KeyList;
use protocol::logbook::{Countersignature, SignedHead};
use protocol::manifest::Manifest;
use protocol::receipt::Receipt;
use protocol::segment::Place;
use protocol::suite::{AgreementKey, SymmetricKey};
use protocol::{codec, cose, header, limits, segment};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

/// What the decoders need beside the bytes, and the valid objects to spoil.
struct World {
    trust: Trust,
    list: KeyList,
    recipient: AgreementKey,
    recording: RecordingId,
    seeds: Vec<Vec<u8>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let read = |name: &str| -> Value {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
        serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    };
    let (keys, lists) = (read("keys.json"), read("key-list.json"));
    let root = CertificateDer::from(hex(&keys["roots"]["root"]));
    let trust = Trust::from_der(&[root], &[]).unwrap();
    let list = hex(&lists["cases"][0]["bytes"]);
    let camera = CameraId {
        serial: "TEST-0001".parse().unwrap(),
        incarnation: Incarnation([0x1c; 16]),
    };
    let mut seeds = vec![hex(&keys["chains"]["device"][0])];
    for kind in [
        "segment",
        "header",
        "manifest",
        "inventory-page",
        "key-list",
        "receipt",
        "logbook-head",
        "countersignature",
        "device-proof",
        "message",
        "frame",
    ] {
        let file = read(&format!("{kind}.json"));
        let good = file["cases"].as_array().unwrap().iter();
        let good = good.filter(|c| c["expect"] == "accept" && c["bytes"].is_string());
        seeds.extend(good.map(|c| hex(&c["bytes"])));
    }
    World {
        list: KeyList::verify(list.into(), trust.root_keys()).unwrap(),
        recipient: AgreementKey::from_pkcs8(&hex(&keys["keys"]["archive"]["pkcs8"])).unwrap(),
        recording: RecordingId { camera, number: 7 },
        trust,
        seeds,
    }
});

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    let pair = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(pair).collect()
}

/// Gives the bytes to every decoder. Nothing may panic; what is taken keeps its limits.
fn feed(bytes: &[u8]) {
    let world = &*WORLD;
    let owned = || Bytes::copy_from_slice(bytes);
    if let Ok(message) = codec::decode(bytes) {
        let again = codec::encode_body(&message).unwrap();
        assert_eq!(codec::decode(&again).unwrap(), message);
    }
    if let Ok(manifest) = Manifest::verify(owned(), &world.trust) {
        assert!(manifest.body().segments.len() <= limits::MANIFEST_SEGMENTS);
    }
    if let Ok(page) = Page::verify(owned(), &world.trust) {
        assert!(page.body().held.len() <= limits::INVENTORY_PAGE_RECORDINGS);
        let _ = Inventory::assemble(vec![page]);
    }
    if let Ok(list) = KeyList::verify(owned(), world.trust.root_keys()) {
        assert!(list.body().receipt_keys.len() <= limits::KEY_LIST_ENTRIES);
    }
    if let Ok(receipt) = Receipt::verify(owned(), &world.list) {
        assert!(receipt.body().segments.len() <= limits::RECEIPT_SEGMENTS);
        assert!(receipt.body().manifests.len() <= limits::RECEIPT_SEGMENTS);
    }
    if let Ok(head) = SignedHead::verify(owned(), &world.trust) {
        assert!(head.bytes().len() <= limits::LOGBOOK_HEAD_BYTES);
    }
    if let Ok(signed) = Countersignature::verify(owned(), &world.list) {
        assert!(signed.bytes().len() <= limits::COUNTERSIGNATURE_BYTES);
    }
    let _ = cose::open_proof(bytes, &world.trust);
    if let Ok(ids) = header::recipients(bytes) {
        assert!(ids.len() <= limits::HEADER_RECIPIENTS);
    }
    let _ = header::open(&world.recording, bytes, &world.recipient);
    let key = SymmetricKey::new([7; 32]);
    for seq in [0, 1] {
        let place = Place {
            recording: &world.recording,
            seq,
            last: false,
        };
        assert!(segment::open(&key, place, bytes).is_err(), "another key");
    }
    let chain = [CertificateDer::from(bytes)];
    let _ = verify_chain(
        &chain,
        &world.trust,
        When::Undated,
        Usage::Evidence,
        Revocation::Ignore,
    );
}

/// Reads frames to the end, as `link` does.
fn feed_frames(mut rest: &[u8]) {
    while let Some((prefix, after)) = rest.split_first_chunk() {
        let Ok(length) = codec::body_length(*prefix) else {
            return;
        };
        assert!(length <= limits::FRAME_BYTES);
        let Some((body, after)) = after.split_at_checked(length) else {
            return;
        };
        let _ = codec::decode(body);
        rest = after;
    }
}

fn seed() -> impl Strategy<Value = Vec<u8>> {
    any::<prop::sample::Index>().prop_map(|i| i.get(&WORLD.seeds).clone())
}

/// One change to a valid object.
fn spoiled() -> impl Strategy<Value = Vec<u8>> {
    let places = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    let bytes_set = (seed(), places).prop_map(|(mut bytes, places)| {
        for (at, value) in places
            .iter()
            .filter(|_| !bytes.is_empty())
            .cloned()
            .collect::<Vec<_>>()
        {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes
    });
    let cut = (seed(), any::<prop::sample::Index>()).prop_map(|(mut bytes, at)| {
        bytes.truncate(at.index(bytes.len() + 1));
        bytes
    });
    let grown = (
        seed(),
        prop::collection::vec(any::<u8>(), 1..64),
        any::<prop::sample::Index>(),
    );
    let grown = grown.prop_map(|(mut bytes, more, at)| {
        let at = at.index(bytes.len() + 1);
        bytes.splice(at..at, more);
        bytes
    });
    let spliced = (
        seed(),
        seed(),
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
    );
    let spliced = spliced.prop_map(|(mut a, b, i, j)| {
        a.truncate(i.index(a.len() + 1));
        a.extend_from_slice(&b[j.index(b.len() + 1)..]);
        a
    });
    prop_oneof![3 => bytes_set, 1 => cut, 1 => grown, 1 => spliced]
}

/// CBOR that announces more than there is, and nests deeply: what a hostile peer tries first.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let head = prop::sample::select(vec![
        0x5b_u8, 0x7b, 0x9b, 0xbb, 0xdb, 0x9f, 0xbf, 0x5f, 0x7f, 0x82, 0xa1, 0xd2, 0xd8,
    ]);
    let piece = (head, prop::collection::vec(any::<u8>(), 0..9));
    let piece = piece.prop_map(|(head, mut rest)| {
        rest.insert(0, head);
        rest
    });
    let nested = (
        prop::sample::select(vec![0x81_u8, 0x9f, 0xa1, 0xc1, 0xd2]),
        1..65_000_usize,
    );
    prop_oneof![
        prop::collection::vec(piece, 1..40).prop_map(|p| p.concat()),
        nested.prop_map(|(byte, count)| vec![byte; count]),
        (1..65_000_usize).prop_map(|count| [&[0x82, 7][..], &vec![0x81; count]].concat()),
        (1..65_000_usize)
            .prop_map(|count| [&[0x82, 7, 0xa1, 0x18, 99][..], &vec![0x9f; count]].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        feed(&bytes);
        feed_frames(&bytes);
    }

    #[test]
    fn spoiled_objects_never_panic(bytes in spoiled()) {
        feed(&bytes);
        feed_frames(&bytes);
    }

    #[test]
    fn hostile_lengths_and_depths_never_panic(bytes in hostile()) {
        feed(&bytes);
        feed_frames(&bytes);
    }

    #[test]
    fn one_byte_set_anywhere_in_evidence_is_refused(bytes in seed(), at in any::<prop::sample::Index>(), by in 1..=255_u8) {
        let good = Bytes::from(bytes.clone());
        let mut bad = bytes;
        prop_assume!(!bad.is_empty());
        let at = at.index(bad.len());
        bad[at] ^= by;
        let world = &*WORLD;
        if Manifest::verify(good.clone(), &world.trust).is_ok() {
            prop_assert!(Manifest::verify(bad.into(), &world.trust).is_err());
        } else if Page::verify(good.clone(), &world.trust).is_ok() {
            prop_assert!(Page::verify(bad.into(), &world.trust).is_err());
        } else if Receipt::verify(good.clone(), &world.list).is_ok() {
            prop_assert!(Receipt::verify(bad.into(), &world.list).is_err());
        } else if SignedHead::verify(good.clone(), &world.trust).is_ok() {
            prop_assert!(SignedHead::verify(bad.into(), &world.trust).is_err());
        } else if Countersignature::verify(good.clone(), &world.list).is_ok() {
            prop_assert!(Countersignature::verify(bad.into(), &world.list).is_err());
        } else if KeyList::verify(good, world.trust.root_keys()).is_ok() {
            prop_assert!(KeyList::verify(bad.into(), world.trust.root_keys()).is_err());
        }
    }
}

#[test]
fn every_prefix_of_every_object_is_answered() {
    for seed in &WORLD.seeds {
        let step = (seed.len() / 300).max(1);
        for end in (0..seed.len()).step_by(step) {
            feed(&seed[..end]);
            feed_frames(&seed[..end]);
        }
    }
}
