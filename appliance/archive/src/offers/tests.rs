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

/// A lookup that began at `at` and read the listing then, and found just these.
fn seen(stored: &[Digest], at: Instant) -> Seen {
    Seen {
        began: at,
        listed: at,
        stored: stored.to_vec(),
        lost: Vec::new(),
    }
}

fn put(offers: &mut Offers, m: &Manifest, digest: Digest, at: Instant) {
    let expected = offers.take(m.digest(), digest, at).unwrap();
    offers.durable(&expected, at);
}

#[test]
fn what_is_wanted_is_receipted_in_batches_and_at_once_when_complete() {
    let (m, t) = (&manifests(1, 3)[0], now());
    let mut offers = Offers::default();
    let Answer::Want(want) = offers.offer(m, &seen(&[], t), t) else {
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
    offers.offer(&all[0], &seen(&[], t), t);
    offers.offer(&all[1], &seen(&[segment(1)], t), t);
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
    let Answer::Want(want) = offers.offer(m, &seen(&[HEADER, segment(0)], t), t) else {
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
        offers.offer(m, &seen(&[HEADER, segment(0), segment(1)], t), t),
        Answer::Nothing
    );
    assert_eq!(offers.due(t).remove(0).segments, [segment(0), segment(1)]);
    // A manifest without segments is answered, too.
    let empty = &manifests(1, 0)[0];
    assert_eq!(offers.offer(empty, &seen(&[HEADER], t), t), Answer::Nothing);
    assert_eq!(offers.due(t).remove(0).segments, []);
}

#[test]
fn a_put_is_taken_once_and_again_after_it_failed() {
    let (m, t) = (&manifests(1, 1)[0], now());
    let mut offers = Offers::default();
    assert!(offers.take(m.digest(), HEADER, t).is_none(), "not offered");
    offers.offer(m, &seen(&[], t), t);
    assert!(
        offers.take(m.digest(), segment(7), t).is_none(),
        "not named"
    );
    let expected = offers.take(m.digest(), segment(0), t).unwrap();
    assert!(
        offers.take(m.digest(), segment(0), t).is_none(),
        "on its way"
    );
    let Answer::Want(again) = offers.offer(m, &seen(&[], t), t) else {
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
        .map(|m| match offers.offer(m, &seen(&[], t), t) {
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
        .for_each(|m| assert_eq!(offers.offer(m, &seen(&[HEADER], t), t), Answer::Nothing));
    assert_eq!(
        offers.offer(last, &seen(&[HEADER], t), t),
        Answer::Busy,
        "none is receipted yet"
    );
    assert_eq!(offers.due(t).len(), limits::OFFERS);
    assert_eq!(
        offers.offer(last, &seen(&[HEADER], t), t),
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
        assert_eq!(grant(&offers.offer(m, &seen(&[], t), t)), granted);
    }
    for m in &urgent {
        assert_eq!(grant(&offers.offer(m, &seen(&[], t), t)), 64);
    }
    let many = manifests(u32::try_from(limits::OFFERS).unwrap(), 0);
    let mut offers = Offers::default();
    for m in &many {
        assert_eq!(offers.offer(m, &seen(&[HEADER], t), t), Answer::Nothing);
    }
    assert_eq!(
        offers.offer(&routine[0], &seen(&[], t), t),
        Answer::Busy,
        "full"
    );
    // Its header is there already: the others are of the same recording.
    assert_eq!(grant(&offers.offer(&urgent[0], &seen(&[], t), t)), 63);
}

#[test]
fn a_grant_of_which_nothing_comes_lapses_where_another_offer_needs_it() {
    let all = manifests(5, 63);
    let t = now();
    let late = t + limits::GRANT_LAPSES;
    let mut offers = Offers::default();
    for m in &all[..4] {
        assert_eq!(grant(&offers.offer(m, &seen(&[], t), t)), 64);
    }
    assert_eq!(offers.offer(&all[4], &seen(&[], t), t), Answer::Busy);
    assert!(offers.take(all[0].digest(), segment(0), late).is_some());
    assert_eq!(grant(&offers.offer(&all[4], &seen(&[], late), late)), 64);
    let first = (all[0].digest(), segment(1));
    assert!(offers.take(first.0, first.1, late).is_some(), "in use");
    let second = (all[1].digest(), segment(64));
    assert!(offers.take(second.0, second.1, late).is_none(), "lapsed");
    assert_eq!(grant(&offers.offer(&all[1], &seen(&[], late), late)), 64);
    assert!(offers.take(second.0, second.1, late).is_some());
}

/// What a lookup says that began at `began` and met a listing of `listed`: `lost` is gone, `stored` is there.
fn lost(lost: &[Digest], stored: &[Digest], began: Instant, listed: Instant) -> Seen {
    Seen {
        began,
        listed,
        stored: stored.to_vec(),
        lost: lost.to_vec(),
    }
}

#[test]
fn what_the_store_lost_since_it_was_put_is_wanted_again_and_named_by_no_receipt() {
    let (m, t) = (&manifests(1, 2)[0], now());
    let (before, later) = (t - Duration::from_secs(1), t + Duration::from_secs(1));
    let mut offers = Offers::default();
    offers.offer(m, &seen(&[], before), before);
    put(&mut offers, m, HEADER, t);
    put(&mut offers, m, segment(0), t);
    assert_eq!(offers.due(t + limits::RECEIPT_BATCH).len(), 1);
    // Looked up before the puts were durable, or by a listing older than they: nothing is taken back.
    for old in [seen(&[], before), lost(&[], &[], later, before)] {
        let Answer::Want(want) = offers.offer(m, &old, t) else {
            panic!("one is missing")
        };
        assert_eq!(want.digests, [segment(1)]);
    }
    put(&mut offers, m, segment(1), t);
    let gone = lost(&[segment(0), segment(1)], &[HEADER], later, before);
    let Answer::Want(want) = offers.offer(m, &gone, later) else {
        panic!("two are lost")
    };
    assert_eq!(want.digests, [segment(0), segment(1)]);
    assert_eq!(want.grant, 2);
    let named: Vec<Draft> = offers.due(later + limits::RECEIPT_BATCH);
    assert!(named.iter().all(|d| d.segments.is_empty()), "{named:?}");
    // An older lookup that still saw it does not bring it back; what is on its way stays on its way.
    assert!(offers.take(m.digest(), segment(0), later).is_some());
    let older = seen(&[HEADER, segment(0), segment(1)], t);
    let Answer::Want(want) = offers.offer(m, &older, later) else {
        panic!("one is lost")
    };
    assert_eq!(want.digests, [segment(1)]);
    let again = later + Duration::from_secs(1);
    offers.offer(m, &lost(&[segment(0)], &[HEADER], again, t), again);
    assert!(offers.take(m.digest(), segment(0), again).is_none());
    put(&mut offers, m, segment(1), again);
    let due = offers.due(again + limits::RECEIPT_BATCH).remove(0);
    assert_eq!(due.segments, [segment(1)]);
}

#[test]
fn a_lost_segment_that_no_receipt_named_yet_leaves_the_batch() {
    let all = manifests(1, 2);
    let (m, t) = (&all[0], now());
    let later = t + Duration::from_millis(1);
    let mut offers = Offers::default();
    offers.offer(m, &seen(&[segment(0)], t), t);
    put(&mut offers, m, segment(1), t);
    offers.offer(m, &lost(&[segment(0), segment(1)], &[], later, t), later);
    put(&mut offers, m, HEADER, later);
    let late = later + limits::RECEIPT_BATCH;
    assert_eq!(offers.due(late).remove(0).segments, [], "only the header");
    put(&mut offers, m, segment(0), late);
    put(&mut offers, m, segment(1), late);
    assert_eq!(
        offers.due(late).remove(0).segments,
        [segment(0), segment(1)]
    );
}

#[test]
fn a_lost_header_holds_up_all_offers_of_its_recording_and_takes_none_of_their_grants() {
    let all = manifests(3, 2);
    let t = now();
    let (later, late) = (t + Duration::from_secs(1), t + Duration::from_secs(9));
    let mut offers = Offers::default();
    for m in &all[..2] {
        offers.offer(m, &seen(&[HEADER], t), t);
    }
    put(&mut offers, &all[0], segment(0), t);
    let gone = lost(&[HEADER], &[], later, t);
    let Answer::Want(want) = offers.offer(&all[2], &gone, later) else {
        panic!("all is lost")
    };
    assert_eq!(want.digests, [HEADER, segment(4), segment(5)]);
    put(&mut offers, &all[1], segment(2), later);
    put(&mut offers, &all[2], segment(4), later);
    assert_eq!(offers.due(late), [], "the header is lost");
    assert_eq!(offers.next_due(), None);
    put(&mut offers, &all[2], HEADER, late);
    let due = offers.due(late + limits::RECEIPT_BATCH);
    let mut named: Vec<Digest> = due.into_iter().flat_map(|d| d.segments).collect();
    named.sort_unstable();
    assert_eq!(named, [segment(0), segment(2), segment(4)]);
    // What was granted before is still granted.
    for (m, seq) in all.iter().zip([1, 3, 5]) {
        put(&mut offers, m, segment(seq), late);
    }
    // The header may come through an offer that did not ask for it again, and its failure takes nothing.
    let again = late + Duration::from_secs(1);
    offers.offer(&all[0], &lost(&[HEADER], &[], again, t), again);
    let through_another = offers.take(all[1].digest(), HEADER, again).unwrap();
    offers.failed(&through_another);
    offers.durable(&through_another, again);
    assert_eq!(offers.due(again + limits::RECEIPT_BATCH).len(), 3);
}

#[test]
fn an_offer_that_waits_for_a_header_that_does_not_come_makes_room_in_the_end() {
    let (m, t) = (&manifests(1, 1)[0], now());
    let mut offers = Offers::default();
    offers.offer(m, &seen(&[segment(0)], t), t);
    let offer = offers.open.values().next().unwrap();
    assert!(!offer.is_spare(t));
    assert!(offer.is_spare(t + limits::GRANT_LAPSES));
}
