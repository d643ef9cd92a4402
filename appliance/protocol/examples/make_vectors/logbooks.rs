//! Vectors of heads of a repeater's logbook and of their countersignatures.

use protocol::cose::{sign_statement, to_cbor};
use protocol::ids::{Digest, Incarnation};
use protocol::{limits, logbook, receipt};
use serde_json::{Value, json};

use crate::book::{Book, given};
use crate::keys::to_hex;
use crate::signed::{of_version_2, refuse_envelopes, with_later_key};
use crate::world::{World, some_digest};

/// What is wrong with a countersignature.
type Change = dyn Fn(&mut logbook::Body);

/// Heads countersigned before, as the cases' `given` has them.
fn known(heads: &[(u8, u64, Digest)]) -> Value {
    let shown = |(incarnation, entries, hash): &(u8, u64, Digest)| {
        json!([
            to_hex(&[*incarnation; 16]),
            entries,
            to_hex(hash.as_bytes())
        ])
    };
    json!({ "known": heads.iter().map(shown).collect::<Vec<_>>() })
}

/// Heads, judged by what was countersigned before.
pub(crate) fn heads(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "logbook-head",
        "Heads of a repeater's logbook under the test root. `known` are those that were countersigned before: the \
         newest of each incarnation (incarnation, entries, hash), in the order in which they began.",
        &w.keys,
    );
    let (good, none) = (w.signed_head(&w.head()), known(&[]));
    let (same, other) = (some_digest(700), some_digest(1));
    b.accept("the first that a site sees", given(&good, &none));
    let cases = [
        ("the same again", known(&[(0x1b, 700, same)])),
        ("further", known(&[(0x1b, 699, other)])),
        ("of a new incarnation", known(&[(0x1a, 9_000, other)])),
        (
            "further, after two others",
            known(&[(0x19, 1, other), (0x1a, 9_000, other), (0x1b, 3, other)]),
        ),
    ];
    for (name, known) in cases {
        b.accept(name, given(&good, &known));
    }
    let mut case = given(
        &w.evidence_by(
            logbook::HEAD_KIND,
            with_later_key(&to_cbor(&w.head())),
            "repeater",
            "repeater",
        ),
        &none,
    );
    case["later_keys"] = json!(true);
    b.accept("a map key of a later version", case);
    let cases = [
        ("fewer entries", "behind", known(&[(0x1b, 701, other)])),
        (
            "of an incarnation that was followed",
            "behind",
            known(&[(0x1b, 3, other), (0x1c, 1, other)]),
        ),
        (
            "as many entries, another hash",
            "forked",
            known(&[(0x1b, 700, other)]),
        ),
    ];
    for (name, reason, known) in cases {
        b.refuse(name, reason, given(&good, &known));
    }
    refuse_heads(w, &mut b, &good, &none);
    b
}

fn refuse_heads(w: &World, b: &mut Book<'_>, good: &[u8], none: &Value) {
    refuse_envelopes(b, good, limits::LOGBOOK_HEAD_BYTES, none);
    let payload = to_cbor(&w.head());
    let by = |kind: &str, payload: &[u8], key: &str, chain: &str| {
        w.evidence_by(kind, payload.to_vec(), key, chain)
    };
    let mut refuse =
        |name: &str, reason: &str, bytes: &[u8]| b.refuse(name, reason, given(bytes, none));
    let (kind, own) = (logbook::HEAD_KIND, "repeater");
    refuse(
        "by another key than the chain's",
        "bad-signature",
        &by(kind, &payload, "stranger", own),
    );
    refuse(
        "by a camera's device",
        "signer: wrong_usage",
        &by(kind, &payload, "device", "device"),
    );
    refuse(
        "by a site",
        "signer: wrong_usage",
        &by(kind, &payload, "archive", "archive"),
    );
    refuse(
        "wrong kind: signed as a manifest",
        "bad-signature",
        &by("bwc/manifest/1", &payload, own, own),
    );
    let mut body = w.head();
    body.repeater.n += 1;
    refuse(
        "of another repeater",
        "wrong-repeater",
        &w.signed_head(&body),
    );
    let mut body = w.head();
    body.head.entries = 0;
    refuse("without entries", "invalid", &w.signed_head(&body));
    let mut body = w.head();
    body.version = 2;
    refuse("format version 2", "version", &w.signed_head(&body));
    refuse(
        "format version 2, in a form of its own",
        "version",
        &by(kind, &of_version_2(&payload), own, own),
    );
    refuse(
        "a payload that is a receipt's",
        "malformed",
        &by(kind, &to_cbor(&w.receipt()), own, own),
    );
}

/// Countersignatures under the world's key list.
pub(crate) fn countersignatures(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "countersignature",
        "Countersignatures of the head `head` under the key list `key_list`.",
        &w.keys,
    );
    let head = w.signed_head(&w.head());
    let asked = json!({
        "key_list": to_hex(w.signed_list().bytes()),
        "head": to_hex(&head),
    });
    let kind = logbook::COUNTERSIGNATURE_KIND;
    let signed = |key: &str, change: &dyn Fn(&mut logbook::Body)| {
        let mut body = w.countersignature();
        change(&mut body);
        w.statement(kind, &body, key)
    };
    let good = signed("seoul", &|_| {});
    b.accept("of the head that was sent", given(&good, &asked));
    let retired = signed("seoul-old", &|_| {});
    b.accept("by a retired key", given(&retired, &asked));
    let daegu = signed("daegu", &|c| c.site = "daegu".parse().unwrap());
    b.accept("by another site", given(&daegu, &asked));
    let payload = to_cbor(&w.countersignature());
    let by = |payload: Vec<u8>| sign_statement(kind, payload, &w.keys.signing("seoul")).unwrap();
    let mut later = given(&by(with_later_key(&payload)), &asked);
    later["later_keys"] = json!(true);
    b.accept("a map key of a later version", later);
    refuse_envelopes(&mut b, &good, limits::COUNTERSIGNATURE_BYTES, &asked);
    let mut refuse =
        |name: &str, reason: &str, bytes: &[u8]| b.refuse(name, reason, given(bytes, &asked));
    let stranger = signed("stranger", &|_| {});
    refuse("by a key that is not in the list", "unknown-key", &stranger);
    let stolen = signed("busan-stolen", &|c| c.site = "busan".parse().unwrap());
    refuse("by a revoked key", "revoked-key", &stolen);
    refuse(
        "by another site's key",
        "wrong-site",
        &signed("daegu", &|_| {}),
    );
    let cases: [(&str, &Change); 5] = [
        ("of another repeater's head", &|c| c.repeater.n += 1),
        ("of another incarnation", &|c| {
            c.head.incarnation = Incarnation([0x1a; 16]);
        }),
        ("of fewer entries", &|c| c.head.entries -= 1),
        ("of another hash", &|c| c.head.hash = some_digest(1)),
        ("of what was told at another time", &|c| c.told.0 += 1),
    ];
    for (name, change) in cases {
        refuse(name, "not-covered", &signed("seoul", change));
    }
    let empty = signed("seoul", &|c| c.head.entries = 0);
    refuse("without entries", "invalid", &empty);
    refuse(
        "format version 2",
        "version",
        &signed("seoul", &|c| c.version = 2),
    );
    refuse(
        "format version 2, in a form of its own",
        "version",
        &by(of_version_2(&payload)),
    );
    let kind = w.statement(receipt::KIND, &w.countersignature(), "seoul");
    refuse("wrong kind: signed as a receipt", "bad-signature", &kind);
    b
}
