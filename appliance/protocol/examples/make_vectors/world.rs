//! What all vectors speak of: one camera, one stopped recording of three segments in two manifests, a key
//! list, and hands that sign for each party.

use std::cell::Cell;

use bytes::Bytes;
use ciborium::Value as Cbor;
use protocol::cose::{sign_evidence, sign_statement, to_cbor};
use protocol::header::{self, Private, SealedHeader};
use protocol::identity::{Revocation, Usage, When, verify_chain};
use protocol::ids::{CameraId, Digest, Incarnation, RecordingId, RepeaterId, StoreEpoch, Time};
use protocol::keylist::{self, KeyList, ReceiptKey, Recipient, RecipientRole, State, VoidEpoch};
use protocol::logbook::{self, LogbookHead};
use protocol::manifest::{self, Class, End, EndReason, HeaderEntry, Policy, SegmentEntry};
use protocol::receipt;
use protocol::segment::{self, Place, Sealed};
use protocol::suite::{PublicKey, SymmetricKey, sha256};
use serde_json::{Value, json};

use crate::keys::{Keys, to_hex};
use crate::show;

/// 2026-11-21 00:00 UTC.
pub(crate) const DAY: Time = Time(1_795_219_200_000);
/// Footage of the three segments.
pub(crate) const FOOTAGE: [&[u8]; 3] = [b"first footage, ", b"more of it, ", b"and its end."];

/// Everything that the files are made of.
pub(crate) struct World {
    pub(crate) keys: Keys,
    pub(crate) recording: RecordingId,
    pub(crate) private: Private,
    pub(crate) header: SealedHeader,
    pub(crate) segments: Vec<Sealed>,
    pub(crate) list: keylist::Body,
    /// The manifest that receipts name.
    pub(crate) named: Digest,
}

/// Random bytes that are the same in every run.
pub(crate) fn drawn(seed: &str) -> impl Fn(&mut [u8]) {
    let count = Cell::new(0u32);
    let seed = seed.to_owned();
    move |out| {
        for piece in out.chunks_mut(32) {
            let block = sha256(format!("{seed} {}", count.replace(count.get() + 1)).as_bytes());
            piece.copy_from_slice(&block.0[..piece.len()]);
        }
    }
}

/// A digest that names nothing.
pub(crate) fn some_digest(n: u64) -> Digest {
    sha256(format!("nothing {n}").as_bytes())
}

/// The epoch of a site's store.
pub(crate) fn epoch(n: u8) -> StoreEpoch {
    StoreEpoch([n; 16])
}

impl World {
    /// The world under these keys.
    pub(crate) fn new(keys: Keys) -> Self {
        let camera = CameraId {
            serial: "TEST-0001".parse().unwrap(),
            incarnation: Incarnation([0x1c; 16]),
        };
        let recording = RecordingId { camera, number: 7 };
        let private = Private {
            content_key: sha256(b"bwc test content key").0,
            media_type: Some("video/mp4".into()),
            officer: Some("Kim Min-ji".into()),
            case: Some("2026-11-4711".into()),
            position: Some((375_665_000, 1_269_780_000)),
            muted: Some(false),
        };
        let sealed_to = [keys.public("archive"), keys.public("escrow")];
        let header = header::seal(&recording, &private, &sealed_to, &drawn("header")).unwrap();
        let segment = |(seq, footage): (u64, &&[u8])| {
            let place = Place {
                recording: &recording,
                seq,
                last: seq == 2,
            };
            segment::seal(&private.key(), place, footage).unwrap()
        };
        let segments = (0..).zip(&FOOTAGE).map(segment).collect();
        let list = list(&keys);
        World {
            keys,
            recording,
            private,
            header,
            segments,
            list,
            named: some_digest(200),
        }
    }

    pub(crate) fn content_key(&self) -> SymmetricKey {
        self.private.key()
    }

    fn entry(&self, seq: usize) -> SegmentEntry {
        let sealed = &self.segments[seq];
        SegmentEntry {
            seq: u64::try_from(seq).unwrap(),
            length: u32::try_from(sealed.bytes.len()).unwrap(),
            digest: sealed.digest,
        }
    }

    /// The first manifest's body: segments 0 and 1.
    pub(crate) fn first(&self) -> manifest::Body {
        manifest::Body {
            version: manifest::VERSION,
            recording: self.recording.clone(),
            index: 0,
            previous: None,
            header: HeaderEntry {
                digest: self.header.digest,
                length: u32::try_from(self.header.bytes.len()).unwrap(),
            },
            segments: vec![self.entry(0), self.entry(1)],
            captured_from: DAY,
            captured_to: DAY.plus_ms(8_000),
            class: Class::Routine,
            policy: Policy {
                k: 1,
                sites: vec!["seoul".parse().unwrap(), "daegu".parse().unwrap()],
            },
            end: None,
            clock_unset: false,
            clock_offset_ms: None,
        }
    }

    /// The final manifest's body, after `previous`: segment 2.
    pub(crate) fn last(&self, previous: &[u8]) -> manifest::Body {
        manifest::Body {
            index: 1,
            previous: Some(sha256(previous)),
            segments: vec![self.entry(2)],
            captured_from: DAY.plus_ms(8_000),
            captured_to: DAY.plus_ms(11_500),
            end: Some(End {
                segments: 3,
                reason: EndReason::Stopped,
            }),
            ..self.first()
        }
    }

    /// The body as CBOR, signed by the camera's device as evidence of `kind`, whatever it says.
    pub(crate) fn evidence<T: minicbor::Encode<()>>(&self, kind: &str, body: &T) -> Vec<u8> {
        self.evidence_by(kind, to_cbor(body), "device", "device")
    }

    /// A payload signed as evidence by any key with any chain.
    pub(crate) fn evidence_by(
        &self,
        kind: &str,
        payload: Vec<u8>,
        key: &str,
        chain: &str,
    ) -> Vec<u8> {
        sign_evidence(kind, payload, &self.keys.signer(key, chain)).unwrap()
    }

    /// A manifest signed by the camera's device, whatever it says.
    pub(crate) fn manifest(&self, body: &manifest::Body) -> Vec<u8> {
        self.evidence(manifest::KIND, body)
    }

    /// A statement signed by any key.
    pub(crate) fn statement<T: minicbor::Encode<()>>(
        &self,
        kind: &str,
        body: &T,
        key: &str,
    ) -> Vec<u8> {
        sign_statement(kind, to_cbor(body), &self.keys.signing(key)).unwrap()
    }

    /// A key list signed by the root, whatever it says.
    pub(crate) fn key_list(&self, body: &keylist::Body) -> Bytes {
        self.statement(keylist::KIND, body, "root").into()
    }

    /// The key list of the world, signed.
    pub(crate) fn signed_list(&self) -> KeyList {
        KeyList::sign(self.list.clone(), &self.keys.signing("root")).unwrap()
    }

    /// The signed manifests of the whole recording. Signatures are random: each call gives others, so whoever
    /// wants receipts for them calls once.
    pub(crate) fn manifests(&self) -> [Vec<u8>; 2] {
        let first = self.manifest(&self.first());
        let last = self.manifest(&self.last(&first));
        [first, last]
    }

    /// A receipt's body for header and segments of the whole recording, and for its first manifest.
    pub(crate) fn receipt(&self) -> receipt::Body {
        receipt::Body {
            version: receipt::VERSION,
            site: "seoul".parse().unwrap(),
            epoch: epoch(2),
            recording: self.recording.clone(),
            header: self.header.digest,
            segments: self.segments.iter().map(|s| s.digest).collect(),
            verdict: receipt::Verdict::Stored,
            signed: DAY.plus_ms(3_600_000),
            manifests: vec![self.named],
        }
    }

    /// The body of a logbook's head, by the repeater of the test keys.
    pub(crate) fn head(&self) -> logbook::HeadBody {
        logbook::HeadBody {
            version: logbook::VERSION,
            repeater: self.repeater(),
            head: LogbookHead {
                incarnation: Incarnation([0x1b; 16]),
                entries: 700,
                hash: some_digest(700),
            },
            signed: DAY.plus_ms(7_200_000),
        }
    }

    /// The repeater of the test keys.
    pub(crate) fn repeater(&self) -> RepeaterId {
        let chain = self.keys.chain("repeater");
        let trust = self.keys.trust("root");
        let (usage, undated) = (Usage::Client, When::Undated);
        let verified = verify_chain(&chain, &trust, undated, usage, Revocation::Ignore).unwrap();
        verified.identity.as_repeater().unwrap()
    }

    /// A head that the repeater's link key signs, whatever it says.
    pub(crate) fn signed_head(&self, body: &logbook::HeadBody) -> Vec<u8> {
        self.evidence_by(logbook::HEAD_KIND, to_cbor(body), "repeater", "repeater")
    }

    /// What a site says of that head.
    pub(crate) fn countersignature(&self) -> logbook::Body {
        let head = self.head();
        logbook::Body {
            version: logbook::VERSION,
            site: "seoul".parse().unwrap(),
            repeater: head.repeater,
            head: head.head,
            told: head.signed,
            signed: DAY.plus_ms(7_200_450),
        }
    }

    /// The recording's id as the cases' `given` has it.
    pub(crate) fn shown_recording(&self) -> Value {
        show::recording(&self.recording)
    }

    /// What a receipt is asked for: the recording, its header, its first segment, a manifest, under the key list.
    pub(crate) fn asked(&self) -> Value {
        json!({
            "key_list": to_hex(self.signed_list().bytes()), "recording": self.shown_recording(),
            "header": to_hex(self.header.digest.as_bytes()),
            "segment": to_hex(self.segments[0].digest.as_bytes()),
            "manifest": to_hex(self.named.as_bytes()),
        })
    }
}

fn list(keys: &Keys) -> keylist::Body {
    let receipt = |site: &str, key: &str, state| ReceiptKey {
        site: site.parse().unwrap(),
        public_key: keys.public(key).sec1().to_vec(),
        state,
    };
    let recipient = |role, key: &str, state| Recipient {
        role,
        public_key: PublicKey::sec1(&keys.public(key)).to_vec(),
        state,
    };
    keylist::Body {
        version: keylist::VERSION,
        number: 3,
        receipt_keys: vec![
            receipt("seoul", "seoul", State::Active),
            receipt("seoul", "seoul-old", State::Retired),
            receipt("daegu", "daegu", State::Active),
            receipt("busan", "busan-stolen", State::Revoked),
        ],
        recipients: vec![
            recipient(RecipientRole::Archive, "archive", State::Active),
            recipient(RecipientRole::Archive, "archive-old", State::Retired),
            recipient(RecipientRole::Escrow, "escrow", State::Active),
        ],
        void_epochs: vec![VoidEpoch {
            site: "seoul".parse().unwrap(),
            epoch: epoch(1),
        }],
        suspended: vec![],
    }
}

/// The object's outermost CBOR value, for changes that no honest maker makes.
pub(crate) fn parsed(bytes: &[u8]) -> Cbor {
    ciborium::from_reader(bytes).unwrap()
}

/// A CBOR value as bytes.
pub(crate) fn encoded(value: &Cbor) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).unwrap();
    out
}

/// The object with one element of its COSE array replaced.
pub(crate) fn replaced(bytes: &[u8], element: usize, by: Cbor) -> Vec<u8> {
    let mut value = parsed(bytes);
    if let Cbor::Tag(_, inner) = &mut value
        && let Cbor::Array(parts) = inner.as_mut()
    {
        parts[element] = by;
    }
    encoded(&value)
}
