//! Rules that no vector shows: what counts again under a later key list, what a signer must not sign because no
//! verifier would take it, and forms that only a broken or hostile maker gives a good signature.
//!
//! Keys and objects are those of `vectors/`; each test fails when its rule's line is taken out of `src/`.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "vectors/keys.rs"]
#[allow(dead_code, reason = "shared with the vectors")]
mod keys;

use std::path::Path;

use bytes::Bytes;
use coset::iana::Algorithm;
use coset::{
    CoseEncrypt, CoseSign1Builder, Header, HeaderBuilder, RegisteredLabelWithPrivate,
    TaggedCborSerializable,
};
use keys::{Keys, hex};
use protocol::cose::{self, CoseError, DeviceSigner, to_cbor};
use protocol::header::{self, HeaderError, Private};
use protocol::ids::{CameraId, Digest, Incarnation, Range, RecordingId, StoreEpoch, Time};
use protocol::inventory::{self, Inventory, InventoryError, Page};
use protocol::keylist::{self, KeyList, KeyListError, State, VoidEpoch};
use protocol::manifest::{self, Class, End, EndReason, HeaderEntry, Manifest, ManifestError};
use protocol::message::Message;
use protocol::receipt::{self, Receipt, ReceiptError, Verdict};
use protocol::suite::{PublicKey, SigningKey};
use protocol::{codec, limits};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

fn read(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

fn keys() -> Keys {
    Keys(read("keys.json"))
}

fn signing(name: &str) -> SigningKey {
    SigningKey::from_pkcs8(&hex(&keys().0["keys"][name]["pkcs8"])).unwrap()
}

fn list() -> KeyList {
    let bytes = hex(&read("key-list.json")["cases"][0]["bytes"]);
    KeyList::verify(bytes.into(), &[keys().public("root")]).unwrap()
}

fn list_with(change: impl Fn(&mut keylist::Body)) -> KeyList {
    let mut body = list().body().clone();
    change(&mut body);
    KeyList::sign(body, &signing("root")).unwrap()
}

fn chain(name: &str) -> Vec<CertificateDer<'static>> {
    let chain = &keys().0["chains"][name];
    let certificates = chain.as_array().unwrap().iter();
    certificates.map(|c| CertificateDer::from(hex(c))).collect()
}

fn signer(chain: Vec<CertificateDer<'static>>) -> DeviceSigner {
    DeviceSigner {
        key: signing("device"),
        chain,
        serial: "TEST-0001".parse().unwrap(),
    }
}

/// A chain that no signed object has room for.
fn endless() -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from(vec![0; limits::MANIFEST_BYTES])]
}

fn recording() -> RecordingId {
    let camera = CameraId {
        serial: "TEST-0001".parse().unwrap(),
        incarnation: Incarnation([0x1c; 16]),
    };
    RecordingId { camera, number: 7 }
}

fn receipt_body(names: u8) -> receipt::Body {
    let digests = |kind: u8| (0..names).map(|n| Digest([n ^ kind; 32])).collect();
    receipt::Body {
        version: receipt::VERSION,
        site: "seoul".parse().unwrap(),
        epoch: StoreEpoch([2; 16]),
        recording: recording(),
        header: Digest([255; 32]),
        segments: digests(0),
        verdict: Verdict::Stored,
        signed: Time(1),
        manifests: digests(128),
    }
}

#[test]
fn a_receipt_counts_while_key_site_and_epoch_do() {
    let receipt = Receipt::sign(receipt_body(1), &signing("seoul")).unwrap();
    assert!(receipt.counts(&list()));
    assert!(receipt.counts(&list_with(|l| l.receipt_keys[0].state = State::Retired)));
    let revoked = list_with(|l| l.receipt_keys[0].state = State::Revoked);
    assert!(!receipt.counts(&revoked), "revoked since");
    let moved = list_with(|l| l.receipt_keys[0].site = "jeju".parse().unwrap());
    assert!(!receipt.counts(&moved), "another site's since");
    let gone = list_with(|l| drop(l.receipt_keys.remove(0)));
    assert!(!receipt.counts(&gone), "not listed any more");
    let void = |site: &str| VoidEpoch {
        site: site.parse().unwrap(),
        epoch: StoreEpoch([2; 16]),
    };
    assert!(!receipt.counts(&list_with(|l| l.void_epochs.push(void("seoul")))));
    let others = list_with(|l| l.void_epochs.push(void("daegu")));
    assert!(receipt.counts(&others), "another site's epoch is void");
}

#[test]
fn headers_are_sealed_to_active_recipients_alone() {
    let keys = keys();
    let active = [keys.public("archive"), keys.public("escrow")];
    assert_eq!(list().active_recipients(), active);
}

#[test]
fn a_disks_key_is_for_active_escrow_holders_alone() {
    let escrow = [keys().public("escrow")];
    assert_eq!(list().active_escrow(), escrow);
    let retired = list_with(|l| {
        l.recipients
            .iter_mut()
            .for_each(|r| r.state = State::Retired)
    });
    assert_eq!(retired.active_escrow(), []);
}

#[test]
fn nothing_is_signed_or_sent_that_nobody_takes() {
    let long = Receipt::sign(receipt_body(64), &signing("seoul"));
    let too_long = |e: &CoseError| matches!(e, CoseError::TooLong { .. });
    assert!(matches!(long, Err(ReceiptError::Envelope(e)) if too_long(&e)));
    let long = Manifest::sign(manifest_body(), &signer(endless()));
    assert!(matches!(long, Err(ManifestError::Envelope(e)) if too_long(&e)));
    let long = Page::sign(page_body(1), &signer(endless()));
    assert!(matches!(long, Err(InventoryError::Envelope(e)) if too_long(&e)));
    let private = Private {
        content_key: [1; 32],
        media_type: None,
        officer: Some("x".repeat(limits::HEADER_BYTES)),
        case: None,
        position: None,
        muted: None,
    };
    let to = [keys().public("archive")];
    let long = header::seal(&recording(), &private, &to, &|out| out.fill(7));
    assert!(matches!(long, Err(HeaderError::TooLong(_))));
    let long = Message::Manifest(Bytes::from(vec![0; limits::FRAME_BYTES]));
    assert!(codec::encode(&long).is_err() && codec::encode_body(&long).is_err());
}

#[test]
fn a_device_signs_with_its_certificates_key() {
    let trust = keys().trust("root");
    assert!(DeviceSigner::new(signing("device"), chain("device"), &trust).is_ok());
    let other = DeviceSigner::new(signing("device-2"), chain("device"), &trust);
    assert!(matches!(other, Err(CoseError::Malformed(_))));
}

#[test]
fn a_good_signature_of_another_form_is_refused() {
    let root = signing("root");
    let verify = |protected: Header| {
        let envelope = CoseSign1Builder::new()
            .protected(protected)
            .payload(to_cbor(list().body()))
            .try_create_signature(keylist::KIND.as_bytes(), |signed| root.sign(signed))
            .unwrap()
            .build();
        let bytes = envelope.to_tagged_vec().unwrap();
        KeyList::verify(bytes.into(), &[root.public()])
    };
    let id = root.public().id().as_bytes().to_vec();
    let named = |algorithm| HeaderBuilder::new().algorithm(algorithm).key_id(id.clone());
    assert!(verify(named(Algorithm::ES256).build()).is_ok());
    let malformed = |found: Result<KeyList, KeyListError>| {
        matches!(found, Err(KeyListError::Envelope(CoseError::Malformed(_))))
    };
    assert!(malformed(verify(named(Algorithm::ES384).build())));
    let mut critical = named(Algorithm::ES256).build();
    critical.crit = vec![RegisteredLabelWithPrivate::Text("unheard of".into())];
    assert!(malformed(verify(critical)));
    let many = vec![chain("device")[0].clone(); limits::CHAIN_CERTIFICATES + 1];
    let many = cose::sign_evidence(manifest::KIND, to_cbor(&manifest_body()), &signer(many));
    let many = Manifest::verify(many.unwrap().into(), &keys().trust("root"));
    let malformed = matches!(many, Err(ManifestError::Envelope(CoseError::Malformed(_))));
    assert!(malformed, "five certificates");
}

fn manifest_body() -> manifest::Body {
    manifest::Body {
        version: manifest::VERSION,
        recording: recording(),
        index: 0,
        previous: None,
        header: HeaderEntry {
            digest: Digest([1; 32]),
            length: 400,
        },
        segments: vec![],
        captured_from: Time(1),
        captured_to: Time(1),
        class: Class::Routine,
        policy: manifest::Policy {
            k: 1,
            sites: vec!["seoul".parse().unwrap()],
        },
        end: None,
        clock_unset: false,
        clock_offset_ms: None,
    }
}

#[test]
fn a_count_beyond_a_recordings_limit_is_refused() {
    let counts = |segments| {
        let mut body = manifest_body();
        let reason = EndReason::Stopped;
        body.end = Some(End { segments, reason });
        Manifest::sign(body, &signer(chain("device")))
    };
    assert!(counts(limits::RECORDING_SEGMENTS).is_ok());
    let over = counts(limits::RECORDING_SEGMENTS + 1);
    assert!(matches!(over, Err(ManifestError::Invalid(_))));
}

fn page_body(pages: u32) -> inventory::Body {
    inventory::Body {
        version: inventory::VERSION,
        camera: recording().camera,
        number: 1,
        page: 0,
        pages,
        next_recording: 1,
        held: vec![],
        released: vec![],
        overwritten: vec![Range { from: 0, to: 0 }],
        made: Time(1),
    }
}

#[test]
fn an_inventory_is_bounded_and_whole() {
    let signed = |body: &inventory::Body| Page::sign(body.clone(), &signer(chain("device")));
    let apart = |count: u64| {
        (0..count).map(|n| Range {
            from: 2 * n,
            to: 2 * n,
        })
    };
    let mut body = page_body(1);
    body.overwritten = apart(256).collect();
    assert!(signed(&body).is_ok());
    body.overwritten = apart(257).collect();
    assert!(matches!(signed(&body), Err(InventoryError::Invalid(_))));
    let mut body = page_body(1);
    let receipts = Digest([3; 32]);
    let released = |range| inventory::Released { range, receipts };
    body.released = apart(257).map(released).collect();
    assert!(matches!(signed(&body), Err(InventoryError::Invalid(_))));
    // The first of two pages may tell of every recording: without the second it is no inventory.
    assert!(Inventory::assemble(vec![signed(&page_body(1)).unwrap()]).is_ok());
    let half = Inventory::assemble(vec![signed(&page_body(2)).unwrap()]);
    assert!(matches!(half, Err(InventoryError::Invalid(_))));
}

#[test]
fn a_header_of_another_form_is_refused_without_a_key() {
    let good = hex(&read("header.json")["cases"][0]["bytes"]);
    let changed = |change: &dyn Fn(&mut CoseEncrypt)| {
        let mut envelope = CoseEncrypt::from_tagged_slice(&good).unwrap();
        change(&mut envelope);
        header::recipients(&envelope.to_tagged_vec().unwrap())
    };
    assert!(changed(&|_| {}).is_ok());
    let algorithm = |a| Some(RegisteredLabelWithPrivate::Assigned(a));
    let refused = [
        changed(&|e| {
            e.protected.original_data = None;
            e.protected.header.alg = algorithm(Algorithm::A128GCM);
        }),
        changed(&|e| e.unprotected.iv.push(0)),
        changed(&|e| {
            e.recipients[0].protected.original_data = None;
            e.recipients[0].protected.header.alg = algorithm(Algorithm::ECDH_ES_A128KW);
        }),
    ];
    for found in refused {
        assert!(matches!(found, Err(HeaderError::Malformed(_))));
    }
}

#[test]
fn a_public_key_is_an_uncompressed_point() {
    let mut bytes = *keys().public("root").sec1();
    assert!(PublicKey::from_sec1(&bytes).is_ok());
    bytes[0] = 6;
    assert!(PublicKey::from_sec1(&bytes).is_err());
    bytes[0] = 4;
    bytes[64] ^= 1;
    assert!(
        PublicKey::from_sec1(&bytes).is_err(),
        "a point that is not on the curve"
    );
}
