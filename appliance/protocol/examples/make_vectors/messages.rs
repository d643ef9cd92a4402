//! Vectors of messages and frames: each message of both hops with and without its optional members, and what a
//! decoder must refuse in form and in length.
//!
//! Objects inside messages are byte strings here and need not verify: a message is judged before its object.

use ciborium::Value as Cbor;
use minicbor::bytes::ByteVec;
use protocol::ids::Incarnation;
use protocol::manifest::Class;
use protocol::message::{
    ArchiveHello, Busy, BytesFollow, CameraHello, Code, HeadVerdict, Message, Pull, Put, Reason,
    Release, Released, RepeaterHello, VERSIONS, Want, WantManifests,
};
use protocol::{codec, limits};
use serde_json::json;

use crate::book::{Book, raw};
use crate::world::{DAY, World, encoded, epoch, parsed, some_digest};

fn body(message: &Message) -> Vec<u8> {
    codec::encode_body(message).unwrap()
}

fn hellos(w: &World) -> Vec<(&'static str, Message)> {
    let key_list = Some(ByteVec::from(w.key_list(&w.list).to_vec()));
    let repeater = RepeaterHello {
        versions: VERSIONS.to_vec(),
        software: "repeaterd 0.1.0".into(),
        key_list: key_list.clone(),
        now: DAY,
        docked: true,
        now_error_ms: None,
    };
    let camera = CameraHello {
        versions: vec![1, 2],
        software: "bodycam 0.1.0".into(),
        proof: ByteVec::from(b"a device proof".to_vec()),
        incarnation: Incarnation([0x1c; 16]),
        key_list: 3,
        now: Some(DAY),
        battery_percent: Some(63),
        charging: Some(true),
        free_bytes: 61_203_283_968,
        firmware: "4.2.1".into(),
    };
    let archive = ArchiveHello {
        versions: VERSIONS.to_vec(),
        software: "archive 0.1.0".into(),
        key_list,
        site: "seoul".parse().unwrap(),
        epoch: epoch(2),
        now: DAY,
    };
    let bare = RepeaterHello {
        key_list: None,
        docked: false,
        ..repeater.clone()
    };
    let vouched = RepeaterHello {
        now_error_ms: Some(38),
        ..repeater.clone()
    };
    let unset = CameraHello {
        now: None,
        battery_percent: None,
        charging: None,
        ..camera.clone()
    };
    vec![
        ("repeater-hello", Message::RepeaterHello(repeater)),
        (
            "repeater-hello without key list",
            Message::RepeaterHello(bare),
        ),
        (
            "repeater-hello that says how far off its clock may be",
            Message::RepeaterHello(vouched),
        ),
        ("camera-hello", Message::CameraHello(camera)),
        ("camera-hello, clock unset", Message::CameraHello(unset)),
        ("archive-hello", Message::ArchiveHello(archive)),
    ]
}

fn camera_hop(w: &World) -> Vec<(&'static str, Message)> {
    let digest = w.segments[0].digest;
    let receipts = vec![
        ByteVec::from(b"a receipt".to_vec()),
        ByteVec::from(b"another".to_vec()),
    ];
    let released = Released {
        number: 7,
        digests: vec![digest, some_digest(1)],
        refused: vec![some_digest(2)],
    };
    vec![
        ("inventory", Message::Inventory(b"a page".as_slice().into())),
        (
            "want-manifests",
            Message::WantManifests(WantManifests {
                number: 7,
                from_index: 2,
            }),
        ),
        ("manifest", Message::Manifest(w.manifest(&w.first()).into())),
        (
            "pull from the start",
            Message::Pull(Pull { digest, offset: 0 }),
        ),
        (
            "pull of the rest",
            Message::Pull(Pull {
                digest,
                offset: 3_145_728,
            }),
        ),
        ("bytes", Message::Bytes(BytesFollow { length: 1_048_618 })),
        ("release", Message::Release(Release { receipts })),
        ("released", Message::Released(released)),
        (
            "released, nothing",
            Message::Released(Released {
                number: 7,
                digests: vec![],
                refused: vec![],
            }),
        ),
    ]
}

fn archive_hop(w: &World) -> Vec<(&'static str, Message)> {
    let (manifest, digest) = (some_digest(3), w.segments[0].digest);
    let want = Want {
        manifest,
        digests: vec![w.header.digest, digest],
        grant: 8,
    };
    let receipt = w.statement(protocol::receipt::KIND, &w.receipt(), "seoul");
    let kind = protocol::logbook::COUNTERSIGNATURE_KIND;
    let signature = w.statement(kind, &w.countersignature(), "seoul").into();
    vec![
        ("offer", Message::Offer(w.manifest(&w.first()).into())),
        ("want", Message::Want(want)),
        ("put", Message::Put(Put { manifest, digest })),
        ("receipt", Message::Receipt(receipt.into())),
        (
            "busy",
            Message::Busy(Busy {
                about: manifest,
                class: Class::Flagged,
                retry_after_ms: 30_000,
            }),
        ),
        (
            "refused, wrong digest",
            Message::refused(digest, Reason::WrongDigest, "read it again"),
        ),
        (
            "refused, bad signature",
            Message::refused(manifest, Reason::BadSignature, ""),
        ),
        (
            "refused, unknown recipient",
            Message::refused(digest, Reason::UnknownRecipient, ""),
        ),
        (
            "refused, not my site",
            Message::refused(manifest, Reason::NotMySite, ""),
        ),
        (
            "refused, malformed",
            Message::refused(manifest, Reason::Malformed, ""),
        ),
        (
            "refused, not wanted",
            Message::refused(digest, Reason::NotWanted, ""),
        ),
        (
            "refused, store failed",
            Message::refused(digest, Reason::StoreFailed, "no space"),
        ),
        (
            "refused, version",
            Message::refused(manifest, Reason::Version, "update this program"),
        ),
        (
            "logbook-head",
            Message::LogbookHead(w.signed_head(&w.head()).into()),
        ),
        (
            "countersignature",
            Message::countersignature(digest, HeadVerdict::Signed, Some(&signature), ""),
        ),
        (
            "countersignature, behind",
            Message::countersignature(digest, HeadVerdict::Behind, Some(&signature), "entry 701"),
        ),
        (
            "countersignature, forked",
            Message::countersignature(digest, HeadVerdict::Forked, Some(&signature), ""),
        ),
        (
            "countersignature, refused",
            Message::countersignature(digest, HeadVerdict::Refused, None, "another repeater's"),
        ),
        (
            "countersignature, unavailable",
            Message::countersignature(digest, HeadVerdict::Unavailable, None, "no space"),
        ),
        ("unsupported", Message::Unsupported(32)),
        ("error", Message::error(Code::NotHere, "no such segment")),
    ]
}

/// A message as CBOR, changed.
fn changed(message: &Message, change: impl Fn(&mut Vec<Cbor>)) -> Vec<u8> {
    let mut value = parsed(&body(message));
    change(value.as_array_mut().unwrap());
    encoded(&value)
}

fn put(map: &mut Cbor, key: i64, value: Cbor) {
    let map = map.as_map_mut().unwrap();
    map.retain(|(k, _)| *k != Cbor::from(key));
    map.push((Cbor::from(key), value));
}

/// Messages: bodies of frames.
pub(crate) fn messages(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "message",
        "Messages: the bodies of frames. Objects inside are not opened here.",
        &w.keys,
    );
    for (name, message) in hellos(w)
        .into_iter()
        .chain(camera_hop(w))
        .chain(archive_hop(w))
    {
        b.accept(name, raw(&body(&message)));
    }
    let unknown = encoded(&Cbor::Array(vec![
        Cbor::from(77),
        Cbor::Array(vec![Cbor::from("of a later version")]),
    ]));
    let later = |bytes: &[u8]| {
        let mut case = raw(bytes);
        case["later_keys"] = json!(true);
        case
    };
    b.accept("an unknown number: answered `unsupported`", later(&unknown));
    let pull = Message::Pull(Pull {
        digest: w.segments[0].digest,
        offset: 0,
    });
    let more = changed(&pull, |m| {
        put(
            &mut m[1],
            99,
            Cbor::Map(vec![(Cbor::from(1), Cbor::from("x"))]),
        )
    });
    b.accept("a map key of a later version", later(&more));
    refuse_messages(w, &mut b, &pull);
    b
}

fn refuse_messages(w: &World, b: &mut Book<'_>, pull: &Message) {
    let bytes = body(pull);
    b.refuse("empty", "malformed", raw(b""));
    b.refuse("truncated", "malformed", raw(&bytes[..bytes.len() - 1]));
    b.refuse(
        "a byte follows",
        "malformed",
        raw(&[&bytes[..], &[0]].concat()),
    );
    b.refuse("a map alone", "malformed", raw(&bytes[2..]));
    b.refuse(
        "an array of three",
        "malformed",
        raw(&changed(pull, |m| m.push(Cbor::Null))),
    );
    b.refuse(
        "a number beyond 65,535",
        "malformed",
        raw(&changed(pull, |m| m[0] = Cbor::from(65_536))),
    );
    b.refuse(
        "a required key is missing",
        "malformed",
        raw(&changed(pull, |m| {
            m[1].as_map_mut().unwrap().pop();
        })),
    );
    let short = Cbor::Bytes(vec![0; 31]);
    b.refuse(
        "a digest of 31 bytes",
        "malformed",
        raw(&changed(pull, |m| put(&mut m[1], 1, short.clone()))),
    );
    b.refuse(
        "a negative offset",
        "malformed",
        raw(&changed(pull, |m| put(&mut m[1], 2, Cbor::from(-1)))),
    );
    b.refuse(
        "a text for an offset",
        "malformed",
        raw(&changed(pull, |m| put(&mut m[1], 2, Cbor::from("0")))),
    );
    refuse_limits(w, b);
}

fn refuse_limits(w: &World, b: &mut Book<'_>) {
    let site = hellos(w)
        .into_iter()
        .find(|(name, _)| *name == "archive-hello")
        .unwrap()
        .1;
    b.refuse(
        "a site name with a slash",
        "malformed",
        raw(&changed(&site, |m| put(&mut m[1], 4, Cbor::from("a/b")))),
    );
    let seventeen: Vec<_> = (1..18).map(Cbor::from).collect();
    let versions = changed(&site, |m| put(&mut m[1], 1, Cbor::Array(seventeen.clone())));
    b.refuse("17 versions", "limit", raw(&versions));
    let receipts = vec![ByteVec::from(vec![0]); limits::RELEASE_RECEIPTS + 1];
    b.refuse(
        "13 receipts",
        "limit",
        raw(&body(&Message::Release(Release { receipts }))),
    );
    let digests: Vec<_> = (0..=1024).map(some_digest).collect();
    let released = Released {
        number: 1,
        digests: digests.clone(),
        refused: vec![],
    };
    b.refuse(
        "1,025 digests released",
        "limit",
        raw(&body(&Message::Released(released))),
    );
    let want = Want {
        manifest: digests[0],
        digests: digests[..66].to_vec(),
        grant: 1,
    };
    b.refuse(
        "66 digests wanted",
        "limit",
        raw(&body(&Message::Want(want))),
    );
    let error = Message::error(Code::Internal, "");
    let text = changed(&error, |m| put(&mut m[1], 2, Cbor::from("x".repeat(1025))));
    b.refuse("a text of 1,025 bytes", "limit", raw(&text));
    let answer = Message::countersignature(digests[0], HeadVerdict::Refused, None, "");
    let text = changed(&answer, |m| put(&mut m[1], 4, Cbor::from("x".repeat(1025))));
    b.refuse(
        "a countersignature's text of 1,025 bytes",
        "limit",
        raw(&text),
    );
    let verdict = changed(&answer, |m| put(&mut m[1], 2, Cbor::from(5)));
    b.refuse("an unknown verdict of a head", "malformed", raw(&verdict));
}

/// Frames: what a control stream carries.
pub(crate) fn frames(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "frame",
        "A control stream's bytes from its start to its end.",
        &w.keys,
    );
    let frame = |m: &Message| codec::encode(m).unwrap();
    let [one, two] = [
        Message::Unsupported(32),
        Message::Bytes(BytesFollow { length: 5 }),
    ];
    b.accept("nothing", raw(b""));
    b.accept("one frame", raw(&frame(&one)));
    b.accept("two frames", raw(&[frame(&one), frame(&two)].concat()));
    let all = hellos(w)
        .into_iter()
        .chain(camera_hop(w))
        .chain(archive_hop(w));
    b.accept(
        "every message",
        raw(&all.flat_map(|(_, m)| frame(&m)).collect::<Vec<_>>()),
    );
    let whole = frame(&two);
    let heads = archive_hop(w).into_iter().map(|(_, m)| m);
    let heads = heads.filter(|m| matches!(m.number(), 35 | 36));
    b.accept(
        "heads of a logbook and answers",
        raw(&heads.flat_map(|m| frame(&m)).collect::<Vec<_>>()),
    );
    b.refuse("cut inside the length", "truncated", raw(&whole[..3]));
    b.refuse(
        "cut inside the body",
        "truncated",
        raw(&whole[..whole.len() - 1]),
    );
    b.refuse(
        "65,537 bytes announced: refused before they come",
        "too-long",
        raw(&[0, 1, 0, 1]),
    );
    b.refuse("4 GiB announced", "too-long", raw(&[0xff; 4]));
    b.refuse("an empty frame", "malformed", raw(&[0; 4]));
    b.refuse(
        "two messages in one frame",
        "malformed",
        raw(&{
            let both = [&frame(&one)[4..], &frame(&two)[4..]].concat();
            [&u32::try_from(both.len()).unwrap().to_be_bytes()[..], &both].concat()
        }),
    );
    b
}
