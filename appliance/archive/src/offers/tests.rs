//! The book of one connection, driven by hand. Manifests are signed by a device certified here, so that they
//! are verified ones, as the type demands.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::time::Duration;

use link::agency::{TrialOptions, trial};
use link::clock::Clock;
use link::credentials::{load_chain, load_key, load_trust};
use link::random::Random;
use protocol::cose::DeviceSigner;
use protocol::ids::{CameraId, Incarnation, Time};
use protocol::manifest::{self, HeaderEntry, Policy, SegmentEntry};
use protocol::suite::SigningKey;

use super::*;

const HEADER: Digest = Digest([0xAA; 32]);

fn segment(seq: u64) -> Digest {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&seq.to_be_bytes());
    Digest(bytes)
}

/// Signs manifests of one recording, `each` segments in each.
fn manifests(count: u32, each: u64) -> Vec<Manifest> {
    manifests_of(Class::Routine, count, each)
}

fn manifests_of(class: Class, count: u32, each: u64) -> Vec<Manifest> {
    let dir = tempfile::tempdir().unwrap();
    let options = TrialOptions {
        cameras: 1,
        sites: vec!["site-a".parse().unwrap()],
        station: "s1".into(),
    };
    trial(dir.path(), &options, &Clock::system(), &Random::system()).unwrap();
    let camera = dir.path().join("cameras/BWC-0001");
    let key =
        SigningKey::from_pkcs8(load_key(&camera.join("device.key")).unwrap().secret_der()).unwrap();
    let trust = load_trust(&dir.path().join("trust.pem"), None).unwrap();
    let signer =
        DeviceSigner::new(key, load_chain(&camera.join("device.pem")).unwrap(), &trust).unwrap();
    let mut all: Vec<Manifest> = Vec::new();
    for index in 0..count {
        let from = u64::from(index) * each;
        let camera = CameraId {
            serial: "BWC-0001".parse().unwrap(),
            incarnation: Incarnation([1; 16]),
        };
        let body = manifest::Body {
            version: manifest::VERSION,
            recording: RecordingId { camera, number: 0 },
            index,
            previous: all.last().map(Manifest::digest),
            header: HeaderEntry {
                digest: HEADER,
                length: 300,
            },
            segments: (from..from + each)
                .map(|seq| SegmentEntry {
                    seq,
                    length: 100,
                    digest: segment(seq),
                })
                .collect(),
            captured_from: Time(0),
            captured_to: Time(1),
            class,
            policy: Policy {
                k: 1,
                sites: vec!["site-a".parse().unwrap()],
            },
            end: None,
            clock_unset: false,
            clock_offset_ms: None,
        };
        all.push(Manifest::sign(body, &signer).unwrap());
    }
    all
}

fn now() -> Instant {
    Clock::system().instant()
}

fn put(offers: &mut Offers, m: &Manifest, digest: Digest, at: Instant) {
    let expected = offers.take(m.digest(), digest, at).unwrap();
    offers.durable(&expected, at);
}

#[test]
fn what_is_wanted_is_receipted_in_batches_and_at_once_when_complete() {
    let (m, t) = (&manifests(1, 3)[0], now());
    let mut offers = Offers::default();
    let Answer::Want(want) = offers.offer(m, &[], t) else {
        panic!("all is missing")
    };
    assert_eq!(want.digests, [HEADER, segment(0), segment(1), segment(2)]);
    assert_eq!(want.grant, 4);
    put(&mut offers, m, HEADER, t);
    put(&mut offers, m, segment(0), t);
    assert_eq!(offers.due(t), [], "the batch is open");
    let draft = offers.due(t + limits::RECEIPT_BATCH).remove(0);
    assert_eq!((draft.header, draft.segments), (HEADER, vec![segment(0)]));
    put(&mut offers, m, segment(2), t);
    put(&mut offers, m, segment(1), t);
    assert_eq!(offers.due(t).remove(0).segments, [segment(2), segment(1)]);
    assert!(offers.is_quiet() && offers.next_due().is_none());
}

#[test]
fn no_receipt_names_a_segment_whose_header_is_not_durable() {
    let all = manifests(2, 1);
    let (t, late) = (now(), now() + Duration::from_secs(60));
    let mut offers = Offers::default();
    offers.offer(&all[0], &[], t);
    offers.offer(&all[1], &[segment(1)], t);
    put(&mut offers, &all[0], segment(0), t);
    assert_eq!(offers.due(late), []);
    assert_eq!(offers.next_due(), None);
    put(&mut offers, &all[1], HEADER, t);
    let named: Vec<_> = offers
        .due(late)
        .into_iter()
        .flat_map(|d| d.segments)
        .collect();
    assert_eq!(named.len(), 2);
    assert!(named.contains(&segment(0)) && named.contains(&segment(1)));
    // The header that both wanted may come again through the other.
    assert!(offers.take(all[0].digest(), HEADER, t).is_some());
}

#[test]
fn what_is_stored_is_receipted_at_once_and_not_wanted() {
    let (m, t) = (&manifests(1, 2)[0], now());
    let mut offers = Offers::default();
    let Answer::Want(want) = offers.offer(m, &[HEADER, segment(0)], t) else {
        panic!("one is missing")
    };
    assert_eq!(want.digests, [segment(1)]);
    assert_eq!(
        offers.due(t + limits::RECEIPT_BATCH).remove(0).segments,
        [segment(0)]
    );
    assert!(
        offers.take(m.digest(), segment(0), t).is_none(),
        "never wanted here"
    );
    assert_eq!(
        offers.offer(m, &[HEADER, segment(0), segment(1)], t),
        Answer::Nothing
    );
    assert_eq!(offers.due(t).remove(0).segments, [segment(0), segment(1)]);
    // A manifest without segments is answered, too.
    let empty = &manifests(1, 0)[0];
    assert_eq!(offers.offer(empty, &[HEADER], t), Answer::Nothing);
    assert_eq!(offers.due(t).remove(0).segments, []);
}

#[test]
fn a_put_is_taken_once_and_again_after_it_failed() {
    let (m, t) = (&manifests(1, 1)[0], now());
    let mut offers = Offers::default();
    assert!(offers.take(m.digest(), HEADER, t).is_none(), "not offered");
    offers.offer(m, &[], t);
    assert!(
        offers.take(m.digest(), segment(7), t).is_none(),
        "not named"
    );
    let expected = offers.take(m.digest(), segment(0), t).unwrap();
    assert!(
        offers.take(m.digest(), segment(0), t).is_none(),
        "on its way"
    );
    let Answer::Want(again) = offers.offer(m, &[], t) else {
        panic!("the header is missing")
    };
    assert_eq!(
        again.digests,
        [HEADER],
        "what is on its way stays on its way"
    );
    offers.failed(&expected);
    let expected = offers.take(m.digest(), segment(0), t).unwrap();
    offers.durable(&expected, t);
    assert!(offers.take(m.digest(), segment(0), t).is_none(), "durable");
}

#[test]
fn offers_and_wants_are_bounded() {
    let all = manifests(6, 63);
    let t = now();
    let mut offers = Offers::default();
    let grants: Vec<u32> = all
        .iter()
        .map(|m| match offers.offer(m, &[], t) {
            Answer::Want(want) => want.grant,
            Answer::Busy => 0,
            Answer::Nothing => panic!("all is missing"),
        })
        .collect();
    assert_eq!(grants, [64, 64, 64, 64, 0, 0]);
    assert!(
        offers.take(all[5].digest(), HEADER, t).is_none(),
        "not granted"
    );
    let many = manifests(u32::try_from(limits::OFFERS).unwrap() + 1, 0);
    let mut offers = Offers::default();
    let (last, first) = many.split_last().unwrap();
    first
        .iter()
        .for_each(|m| assert_eq!(offers.offer(m, &[HEADER], t), Answer::Nothing));
    assert_eq!(
        offers.offer(last, &[HEADER], t),
        Answer::Busy,
        "none is receipted yet"
    );
    assert_eq!(offers.due(t).len(), limits::OFFERS);
    assert_eq!(
        offers.offer(last, &[HEADER], t),
        Answer::Nothing,
        "the oldest made room"
    );
    assert_eq!(offers.open.len(), limits::OFFERS);
}

fn grant(answer: &Answer) -> u32 {
    match answer {
        Answer::Want(want) => want.grant,
        _ => 0,
    }
}

#[test]
fn urgent_offers_have_a_quota_that_nothing_else_takes() {
    let (routine, urgent) = (manifests(6, 63), manifests_of(Class::Urgent, 2, 63));
    let t = now();
    let mut offers = Offers::default();
    for (m, granted) in routine.iter().zip([64, 64, 64, 64, 0, 0]) {
        assert_eq!(grant(&offers.offer(m, &[], t)), granted);
    }
    for m in &urgent {
        assert_eq!(grant(&offers.offer(m, &[], t)), 64);
    }
    let many = manifests(u32::try_from(limits::OFFERS).unwrap(), 0);
    let mut offers = Offers::default();
    for m in &many {
        assert_eq!(offers.offer(m, &[HEADER], t), Answer::Nothing);
    }
    assert_eq!(offers.offer(&routine[0], &[], t), Answer::Busy, "full");
    // Its header is there already: the others are of the same recording.
    assert_eq!(grant(&offers.offer(&urgent[0], &[], t)), 63);
}

#[test]
fn a_grant_of_which_nothing_comes_lapses_where_another_offer_needs_it() {
    let all = manifests(5, 63);
    let t = now();
    let late = t + limits::GRANT_LAPSES;
    let mut offers = Offers::default();
    for m in &all[..4] {
        assert_eq!(grant(&offers.offer(m, &[], t)), 64);
    }
    assert_eq!(offers.offer(&all[4], &[], t), Answer::Busy);
    assert!(offers.take(all[0].digest(), segment(0), late).is_some());
    assert_eq!(grant(&offers.offer(&all[4], &[], late)), 64);
    let first = (all[0].digest(), segment(1));
    assert!(offers.take(first.0, first.1, late).is_some(), "in use");
    let second = (all[1].digest(), segment(64));
    assert!(offers.take(second.0, second.1, late).is_none(), "lapsed");
    assert_eq!(grant(&offers.offer(&all[1], &[], late)), 64);
    assert!(offers.take(second.0, second.1, late).is_some());
}
