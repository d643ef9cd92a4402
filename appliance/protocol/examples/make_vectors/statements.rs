//! Vectors of statements: key lists, receipts, and the camera's question whether receipts let it erase.
//!
//! That question is the product's promise, so its cases name every way in which a receipt must not count: forged,
//! foreign, void, revoked, of another recording or header, twice from one site.

use bytes::Bytes;
use protocol::cose::{sign_statement, to_cbor};
use protocol::ids::Digest;
use protocol::keylist::{self, State, VoidEpoch};
use protocol::receipt::{self, Verdict};
use protocol::suite::{AgreementKey, sha256};
use protocol::{limits, manifest};
use serde_json::{Value, json};

use crate::book::{Book, flip, given};
use crate::keys::to_hex;
use crate::signed::{next_recording, of_version_2, with_later_key};
use crate::world::{World, epoch, parsed, some_digest};

/// Key lists, alone and against the one that is known.
pub(crate) fn key_lists(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "key-list",
        "Key lists, under the test root's key. With `known`: whether it may follow that one.",
        &w.keys,
    );
    let list = w.key_list(&w.list);
    let changed = |change: &dyn Fn(&mut keylist::Body)| changed_list(w, change);
    let known = json!({ "known": to_hex(&list) });
    let none = json!({});
    b.accept("active, retired and revoked keys", given(&list, &none));
    b.accept("the same again", given(&list, &known));
    let newer = changed(&|l| {
        l.number = 4;
        l.suspended = vec!["daegu".parse().unwrap()];
        l.receipt_keys[0].state = State::Revoked;
        l.void_epochs.push(VoidEpoch {
            site: "daegu".parse().unwrap(),
            epoch: epoch(3),
        });
    });
    b.accept("a newer one", given(&newer, &known));
    let empty = changed(&|l| {
        (l.receipt_keys, l.recipients, l.void_epochs) = (vec![], vec![], vec![]);
        l.number = 0;
    });
    b.accept("an empty one", given(&empty, &none));
    refuse_key_lists(w, &mut b);
    b
}

fn changed_list(w: &World, change: &dyn Fn(&mut keylist::Body)) -> Bytes {
    let mut body = w.list.clone();
    change(&mut body);
    w.key_list(&body)
}

fn refuse_key_lists(w: &World, b: &mut Book<'_>) {
    let changed = |change: &dyn Fn(&mut keylist::Body)| changed_list(w, change);
    let list = w.key_list(&w.list);
    let (known, none) = (json!({ "known": to_hex(&list) }), json!({}));
    b.refuse(
        "older than the known one",
        "older",
        given(&changed(&|l| l.number = 2), &known),
    );
    let forked = changed(&|l| l.recipients.clear());
    b.refuse(
        "the same number, other contents",
        "forked",
        given(&forked, &known),
    );
    let by = |key: &str, kind: &str| {
        sign_statement(kind, to_cbor(&w.list), &w.keys.signing(key)).unwrap()
    };
    b.refuse(
        "signed by another agency's root",
        "not-the-root",
        given(&by("other-root", keylist::KIND), &none),
    );
    b.refuse(
        "signed by the issuing CA",
        "not-the-root",
        given(&by("ca", keylist::KIND), &none),
    );
    b.refuse(
        "wrong kind: signed as a receipt",
        "bad-signature",
        given(&by("root", receipt::KIND), &none),
    );
    b.refuse(
        "the signature altered",
        "bad-signature",
        given(&flip(&list, -1), &none),
    );
    b.refuse(
        "truncated",
        "malformed",
        given(&list[..list.len() - 1], &none),
    );
    let mut long = given(&list, &none);
    long["pad_to"] = json!(limits::KEY_LIST_BYTES + 1);
    b.refuse("over the limit", "too-long", long);
    let later = of_version_2(&to_cbor(&w.list));
    let later = sign_statement(keylist::KIND, later, &w.keys.signing("root")).unwrap();
    b.refuse(
        "format version 2, in a form of its own",
        "version",
        given(&later, &none),
    );
    let mut refuse = |name: &str, reason: &str, change: &dyn Fn(&mut keylist::Body)| {
        b.refuse(name, reason, given(&changed(change), &none));
    };
    refuse("format version 2", "version", &|l| l.version = 2);
    refuse("one key twice", "invalid", &|l| {
        l.recipients[0].public_key = l.receipt_keys[0].public_key.clone()
    });
    refuse("a compressed key", "invalid", &|l| {
        l.recipients[0].public_key.truncate(33);
        l.recipients[0].public_key[0] = 2;
    });
    refuse("a point that is not on the curve", "invalid", &|l| {
        *l.recipients[0].public_key.last_mut().unwrap() ^= 1;
    });
    refuse("nine active recipients", "invalid", &|l| {
        let nth = |n: u8| keylist::Recipient {
            public_key: AgreementKey::from_scalar(&[n; 32])
                .and_then(|key| key.public())
                .unwrap()
                .sec1()
                .to_vec(),
            ..l.recipients[0].clone()
        };
        l.recipients = (1..=9).map(nth).collect();
    });
    refuse("129 void epochs", "invalid", &|l| {
        let void = |n| VoidEpoch {
            site: "seoul".parse().unwrap(),
            epoch: epoch(n),
        };
        l.void_epochs = (0..129).map(void).collect();
    });
}

/// A receipt as signed by `key`, after a change.
fn signed(w: &World, key: &str, change: impl Fn(&mut receipt::Body)) -> Vec<u8> {
    let mut body = w.receipt();
    change(&mut body);
    w.statement(receipt::KIND, &body, key)
}

/// Receipts, each asked for the first segment and a manifest of the recording.
pub(crate) fn receipts(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "receipt",
        "Receipts under a key list, asked whether they speak for `segment` and `manifest`, where given, of \
         `recording` under `header`.",
        &w.keys,
    );
    let known = w.asked();
    let good = signed(w, "seoul", |_| {});
    b.accept("stored", given(&good, &known));
    b.accept(
        "expired: releases like the other",
        given(
            &signed(w, "seoul", |r| r.verdict = Verdict::Expired),
            &known,
        ),
    );
    b.accept(
        "by a retired key",
        given(&signed(w, "seoul-old", |_| {}), &known),
    );
    let daegu = signed(w, "daegu", |r| r.site = "daegu".parse().unwrap());
    b.accept("by another site", given(&daegu, &known));
    let digests = |from: u64, count: u64| (from..from + count).map(some_digest);
    let many = signed(w, "seoul", |r| {
        r.segments = [r.segments[0]].into_iter().chain(digests(1, 63)).collect();
        r.manifests = [w.named].into_iter().chain(digests(300, 31)).collect();
    });
    b.accept("64 segments and 32 manifests", given(&many, &known));
    let header_alone = signed(w, "seoul", |r| r.segments.clear());
    let mut of_manifest = known.clone();
    of_manifest["segment"] = Value::Null;
    b.accept(
        "header and manifest alone, asked for the manifest",
        given(&header_alone, &of_manifest),
    );
    let mut of_segment = known.clone();
    of_segment["manifest"] = Value::Null;
    let unnamed = signed(w, "seoul", |r| r.manifests.clear());
    b.accept(
        "no manifest, asked for the segment",
        given(&unnamed, &of_segment),
    );
    let later = with_later_key(&to_cbor(&w.receipt()));
    let later = sign_statement(receipt::KIND, later, &w.keys.signing("seoul")).unwrap();
    let mut case = given(&later, &known);
    case["later_keys"] = json!(true);
    b.accept("a map key of a later version", case);
    refuse_receipts(w, &mut b, &good);
    let mut long = given(&good, &known);
    long["pad_to"] = json!(limits::RECEIPT_BYTES + 1);
    b.refuse("over the limit", "too-long", long);
    b
}

fn refuse_receipts(w: &World, b: &mut Book<'_>, good: &[u8]) {
    let known = w.asked();
    let mut refuse =
        |name: &str, reason: &str, bytes: &[u8]| b.refuse(name, reason, given(bytes, &known));
    refuse("the signature altered", "bad-signature", &flip(good, -1));
    refuse("truncated", "malformed", &good[..good.len() - 1]);
    refuse("a byte follows", "malformed", &[good, &[0]].concat());
    refuse(
        "by a key that is not in the list",
        "unknown-key",
        &signed(w, "stranger", |_| {}),
    );
    let stolen = signed(w, "busan-stolen", |r| r.site = "busan".parse().unwrap());
    refuse("by a revoked key", "revoked-key", &stolen);
    refuse(
        "by another site's key",
        "wrong-site",
        &signed(w, "daegu", |_| {}),
    );
    refuse(
        "of a void epoch",
        "void-epoch",
        &signed(w, "seoul", |r| r.epoch = epoch(1)),
    );
    refuse(
        "of another recording",
        "not-covered",
        &signed(w, "seoul", |r| r.recording = next_recording(w)),
    );
    let incarnation = signed(w, "seoul", |r| r.recording.camera.incarnation.0[0] ^= 1);
    refuse("of another incarnation", "not-covered", &incarnation);
    refuse(
        "of another header",
        "not-covered",
        &signed(w, "seoul", |r| r.header = some_digest(1)),
    );
    refuse(
        "of other segments",
        "not-covered",
        &signed(w, "seoul", |r| r.segments = vec![some_digest(1)]),
    );
    refuse(
        "of the header alone",
        "not-covered",
        &signed(w, "seoul", |r| r.segments.clear()),
    );
    refuse(
        "of another manifest",
        "not-covered",
        &signed(w, "seoul", |r| r.manifests = vec![some_digest(1)]),
    );
    refuse(
        "of no manifest",
        "not-covered",
        &signed(w, "seoul", |r| r.manifests.clear()),
    );
    for (key, what) in [
        (5, "without the header's digest"),
        (9, "without the manifests"),
    ] {
        let lacking = without(&to_cbor(&w.receipt()), key);
        let lacking = sign_statement(receipt::KIND, lacking, &w.keys.signing("seoul")).unwrap();
        refuse(what, "malformed", &lacking);
    }
    refuse(
        "format version 2",
        "version",
        &signed(w, "seoul", |r| r.version = 2),
    );
    let later = of_version_2(&to_cbor(&w.receipt()));
    let later = sign_statement(receipt::KIND, later, &w.keys.signing("seoul")).unwrap();
    refuse("format version 2, in a form of its own", "version", &later);
    refuse(
        "65 segments",
        "invalid",
        &signed(w, "seoul", |r| {
            r.segments = (0..65).map(some_digest).collect()
        }),
    );
    refuse(
        "65 manifests",
        "invalid",
        &signed(w, "seoul", |r| {
            r.manifests = (0..65).map(some_digest).collect()
        }),
    );
    refuse(
        "wrong kind: a manifest",
        "malformed",
        &w.manifest(&w.first()),
    );
    let kind = w.statement(manifest::KIND, &w.receipt(), "seoul");
    refuse("wrong kind: signed as a manifest", "bad-signature", &kind);
}

fn without(payload: &[u8], key: u64) -> Vec<u8> {
    let mut value = parsed(payload);
    value
        .as_map_mut()
        .unwrap()
        .retain(|(k, _)| *k != ciborium::Value::from(key));
    crate::world::encoded(&value)
}

fn release_case(
    w: &World,
    k: u8,
    list: &dyn Fn(&mut keylist::Body),
    receipts: &[&Vec<u8>],
) -> Value {
    let mut body = w.first();
    body.policy.k = k;
    let receipts: Vec<_> = receipts.iter().map(|r| to_hex(r)).collect();
    json!({"receipts": receipts, "given": {
        "key_list": to_hex(&changed_list(w, list)), "manifest": to_hex(&w.manifest(&body)),
        "segment": to_hex(w.segments[0].digest.as_bytes()),
    }})
}

/// Whether a camera may erase its first segment, and whether header and manifests.
pub(crate) fn releases(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "release",
        "The camera's question: do these receipts, under this key list, let it erase `segment` of `manifest`? \
         Or, where `manifests` are given and the segments `erased` are gone: header and manifests of the \
         recording? Receipts that do not verify or do not speak for what is asked count for nothing.",
        &w.keys,
    );
    let case = |k: u8, list: &dyn Fn(&mut keylist::Body), receipts: &[&Vec<u8>]| {
        release_case(w, k, list, receipts)
    };
    let same = |_: &mut keylist::Body| {};
    let seoul = signed(w, "seoul", |_| {});
    let again = signed(w, "seoul-old", |r| r.segments.truncate(1));
    let daegu = signed(w, "daegu", |r| r.site = "daegu".parse().unwrap());
    b.accept("1 of 2: one site", case(1, &same, &[&seoul]));
    b.accept("2 of 2: both sites", case(2, &same, &[&daegu, &seoul]));
    let burned = |l: &mut keylist::Body| l.suspended = vec!["daegu".parse().unwrap()];
    b.accept(
        "2 of 2, one site suspended: one is enough",
        case(2, &burned, &[&seoul]),
    );
    let forged = flip(&seoul, -1);
    b.accept(
        "a forged one beside a good one",
        case(1, &same, &[&forged, &seoul]),
    );
    let mut refuse = |name: &str, case: Value| b.refuse(name, "too-few-receipts", case);
    refuse("none", case(1, &same, &[]));
    refuse("2 of 2: one site", case(2, &same, &[&seoul]));
    refuse("2 of 2: one site twice", case(2, &same, &[&seoul, &again]));
    refuse("forged", case(1, &same, &[&forged]));
    let headless = sign_statement(
        receipt::KIND,
        without(&to_cbor(&w.receipt()), 5),
        &w.keys.signing("seoul"),
    );
    refuse(
        "without the header's digest",
        case(1, &same, &[&headless.unwrap()]),
    );
    let header: Digest = some_digest(1);
    refuse(
        "of another header",
        case(1, &same, &[&signed(w, "seoul", |r| r.header = header)]),
    );
    let other = signed(w, "seoul", |r| r.recording = next_recording(w));
    refuse("of another recording", case(1, &same, &[&other]));
    refuse(
        "of a void epoch",
        case(1, &same, &[&signed(w, "seoul", |r| r.epoch = epoch(1))]),
    );
    let revoked = |l: &mut keylist::Body| l.receipt_keys[0].state = State::Revoked;
    refuse("by a key revoked since", case(1, &revoked, &[&seoul]));
    let jeju = |l: &mut keylist::Body| l.receipt_keys[2].site = "jeju".parse().unwrap();
    let jejus = signed(w, "daegu", |r| r.site = "jeju".parse().unwrap());
    refuse(
        "by a site that does not count in the policy",
        case(1, &jeju, &[&jejus]),
    );
    let all = |l: &mut keylist::Body| {
        l.suspended = vec!["seoul".parse().unwrap(), "daegu".parse().unwrap()]
    };
    refuse(
        "every site suspended: never fewer than one",
        case(2, &all, &[]),
    );
    papers(w, &mut b);
    b
}

/// May header and manifests go? Only when the final manifest, with its count, is stored elsewhere too.
fn papers(w: &World, b: &mut Book<'_>) {
    let manifests = w.manifests();
    let named = manifests.each_ref().map(|m| sha256(m));
    let by = |site: &str, named: &[Digest]| {
        signed(w, site, |r| {
            r.site = site.parse().unwrap();
            r.manifests = named.to_vec();
        })
    };
    let case = |manifests: &[Vec<u8>], erased: usize, receipts: &[&Vec<u8>]| {
        let gone = &w.segments[..erased];
        json!({
            "receipts": receipts.iter().map(|r| to_hex(r)).collect::<Vec<_>>(),
            "given": {
                "key_list": to_hex(&w.key_list(&w.list)),
                "manifests": manifests.iter().map(|m| to_hex(m)).collect::<Vec<_>>(),
                "erased": gone.iter().map(|s| to_hex(s.digest.as_bytes())).collect::<Vec<_>>(),
            },
        })
    };
    let (all, first) = (by("seoul", &named), by("seoul", &named[..1]));
    let last = by("seoul", &named[1..]);
    b.accept("papers: every manifest named", case(&manifests, 3, &[&all]));
    b.accept(
        "papers: each manifest by a receipt of its own",
        case(&manifests, 3, &[&first, &last]),
    );
    let other = by("daegu", &named[1..]);
    b.accept(
        "papers: each manifest by another site",
        case(&manifests, 3, &[&first, &other]),
    );
    let mut refuse = |name: &str, reason: &str, case: Value| b.refuse(name, reason, case);
    let few = "too-few-receipts";
    refuse(
        "papers: the final manifest is not named",
        few,
        case(&manifests, 3, &[&first]),
    );
    refuse(
        "papers: the first manifest is not named",
        few,
        case(&manifests, 3, &[&last]),
    );
    let none = by("seoul", &[]);
    refuse(
        "papers: no manifest is named",
        few,
        case(&manifests, 3, &[&none]),
    );
    let header = signed(w, "seoul", |r| {
        r.manifests = named.to_vec();
        r.header = some_digest(1);
    });
    refuse(
        "papers: named under another header",
        few,
        case(&manifests, 3, &[&header]),
    );
    let next = signed(w, "seoul", |r| {
        r.manifests = named.to_vec();
        r.recording = next_recording(w);
    });
    refuse(
        "papers: named for another recording",
        few,
        case(&manifests, 3, &[&next]),
    );
    let forged = flip(&all, -1);
    refuse("papers: forged", few, case(&manifests, 3, &[&forged]));
    refuse(
        "papers: a segment is not erased",
        "segments-here",
        case(&manifests, 2, &[&all]),
    );
    refuse(
        "papers: the recording goes on",
        "not-ended",
        case(&manifests[..1], 2, &[&all]),
    );
}
