//! What archives countersigned of the logbook: kept of each site, noted, and named where entries of it are lost.

use std::fs;

use protocol::cose::RepeaterSigner;
use protocol::ids::{RepeaterId, Time};
use protocol::logbook::{Countersignature, SignedHead};
use protocol::suite::SigningKey;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use spool::{Countersigning, Entry, LogbookHead, Look, Spool, VerifyFrom};

use crate::succession::{first_entry, names, with_history};
use crate::world::*;

const LATER: Time = Time(NOW.0 + 450);

/// A site's countersignature of a head.
pub(crate) fn countersign(world: &World, name: &str, head: LogbookHead) -> Countersignature {
    let mut params = CertificateParams::default();
    let urn = "urn:bwc:repeater:mapo:1";
    params.subject_alt_names = vec![SanType::URI(urn.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let pair = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&pair, &world.ca).unwrap().der().clone();
    let signer = RepeaterSigner {
        key: SigningKey::from_pkcs8(&pair.serialize_der()).unwrap(),
        chain: vec![leaf],
        repeater: RepeaterId {
            station: "mapo".parse().unwrap(),
            n: 1,
        },
    };
    let head = SignedHead::sign(head, &signer, NOW).unwrap();
    assert!(SignedHead::verify(head.bytes().clone(), &world.trust).is_ok());
    let key = &world.sites[&site(name)];
    Countersignature::sign(&head, site(name), key, LATER).unwrap()
}

/// Asks for the head, has it countersigned, and commits that.
pub(crate) fn signed_by(world: &World, spool: &mut Spool, name: &str) -> LogbookHead {
    let head = spool.head_to_sign(&site(name)).unwrap().unwrap();
    let signature = countersign(world, name, head);
    (spool.countersigned(&signature, Countersigning::Signed, NOW)).unwrap();
    spool.commit(NOW).unwrap();
    head
}

fn says(name: &str, head: LogbookHead) -> String {
    format!(
        "; site {name} countersigned (logbook {}, entry {}, chain hash {}, at {} ms), ",
        head.incarnation, head.entries, head.hash, LATER.0
    )
}

fn kept(spool: &Spool) -> Vec<LogbookHead> {
    let all = spool.countersignatures();
    all.iter().map(|c| c.body().head).collect()
}

#[test]
fn a_site_is_asked_for_what_is_durable_and_more_than_its_own_notes() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    with_history(&world, &camera);
    let mut spool = world.open();
    let head = spool.logbook_head();
    spool
        .admit(&camera.whole_manifest(&camera.footage(5, &[9])), NOW)
        .unwrap();
    assert_eq!(
        spool.head_to_sign(&site("daejeon")).unwrap(),
        Some(head),
        "what is not durable is not told"
    );
    spool.commit(NOW).unwrap();
    let head = signed_by(&world, &mut spool, "daejeon");
    let note = format!(
        "countersigned by daejeon: logbook {}, entry {}, ",
        head.incarnation, head.entries
    );
    let mut noted = 0;
    let count = |_, entry: Entry| {
        noted += usize::from(matches!(entry, Entry::Note(t) if t.starts_with(&note)))
    };
    spool.history(count).unwrap();
    assert_eq!(noted, 1);
    assert_eq!(
        spool.head_to_sign(&site("daejeon")).unwrap(),
        None,
        "its own note is nothing new"
    );
    // The other site has seen nothing yet; its note is nothing new for the first one either.
    signed_by(&world, &mut spool, "gwangju");
    assert_eq!(spool.head_to_sign(&site("daejeon")).unwrap(), None);
    keep(&mut spool, &camera, &camera.footage(6, &[100]));
    let further = spool.head_to_sign(&site("daejeon")).unwrap().unwrap();
    assert!(further.entries > head.entries && further == spool.logbook_head());
    drop(spool);
    let mut spool = world.open();
    assert_eq!(kept(&spool).len(), 2, "kept over a restart");
    assert!(
        spool.head_to_sign(&site("daejeon")).unwrap().is_some(),
        "once after each start"
    );
    // The same once more says nothing new, and is not written again.
    let known = spool.countersignatures()[0].clone();
    spool
        .countersigned(&known, Countersigning::Signed, NOW)
        .unwrap();
    assert_eq!(spool.pending().changes, 0);
}

/// What happens to the logbook behind a countersigned head, and what the first entry of its successor says of it.
struct Case {
    what: &'static str,
    /// Entries that stay of the logbook.
    cut: fn(&[u64], &mut Vec<u8>),
    without_ledger: bool,
    rebuild: bool,
    says: fn(u64) -> String,
    beyond: fn(u64) -> u64,
}

/// The logbook as it was after the first entry; `ends` are the lengths after each.
fn after_the_first(ends: &[u64], bytes: &mut Vec<u8>) {
    bytes.truncate(usize::try_from(ends[1]).unwrap());
}
fn nothing(_: &[u64], bytes: &mut Vec<u8>) {
    bytes.clear();
}
/// The countersigned head stays, what follows goes.
fn the_last(ends: &[u64], bytes: &mut Vec<u8>) {
    bytes.truncate(usize::try_from(ends[ends.len() - 2]).unwrap());
}

#[rustfmt::skip]
const CASES: [Case; 6] = [
    Case { what: "cut short", cut: after_the_first, without_ledger: false, rebuild: false, says: |n| format!("{} entries beyond what can be read", n - 1), beyond: |n| n - 1 },
    Case { what: "cut short, recovered", cut: after_the_first, without_ledger: false, rebuild: true, says: |n| format!("{} entries beyond what can be read", n - 1), beyond: |n| n - 1 },
    // At the end of an entry, and without a mark: nothing but the countersignature tells that something is missing.
    Case { what: "cut short, no ledger", cut: after_the_first, without_ledger: true, rebuild: false, says: |n| format!("{} entries beyond what can be read", n - 1), beyond: |n| n - 1 },
    Case { what: "cleared", cut: nothing, without_ledger: false, rebuild: false, says: |n| format!("{n} entries beyond what can be read"), beyond: |n| n },
    Case { what: "cleared, no ledger", cut: nothing, without_ledger: true, rebuild: false, says: |n| format!("{n} entries beyond what can be read"), beyond: |n| n },
    Case { what: "cut behind it", cut: the_last, without_ledger: false, rebuild: false, says: |_| "all of which can be read".into(), beyond: |_| 0 },
];

/// The offset behind the header and behind each entry.
fn ends(bytes: &[u8]) -> Vec<u64> {
    let (mut ends, mut at) = (vec![24], 24);
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap());
        if length == 0 {
            break;
        }
        at += 4 + usize::try_from(length).unwrap();
        ends.push(at as u64);
    }
    ends
}

#[test]
fn a_successor_names_what_was_countersigned_and_how_much_of_it_is_lost() {
    for case in CASES {
        let (world, what) = (World::new(), case.what);
        let camera = world.camera("C1", 1);
        with_history(&world, &camera);
        let mut spool = world.open();
        let head = signed_by(&world, &mut spool, "daejeon");
        drop(spool);
        let mut bytes = fs::read(world.path("logbook")).unwrap();
        (case.cut)(&ends(&bytes), &mut bytes);
        fs::write(world.path("logbook"), &bytes).unwrap();
        if case.without_ledger {
            fs::remove_dir_all(world.path("ledger")).unwrap();
        }
        let (spool, report) = world.start(9, case.rebuild);
        let first = first_entry(&spool);
        let wanted = says("daejeon", head) + &(case.says)(head.entries);
        assert!(first.ends_with(&wanted), "{what}: {first}, not {wanted}");
        assert_eq!(
            report.countersigned_beyond,
            (case.beyond)(head.entries),
            "{what}"
        );
        assert_eq!(report.logbook_begun.as_deref(), Some(&*first), "{what}");
        assert!(report.to_string().contains(&wanted), "{what}: {report}");
        assert_ne!(spool.logbook_head().incarnation, head.incarnation, "{what}");
        assert_eq!(alarm_codes(&spool), ["logbook_damaged"].into(), "{what}");
        drop(spool);
        // The successor is not followed by another: what was countersigned is of a logbook that is over.
        let (spool, report) = world.start(10, false);
        assert_eq!(
            (report.lost, report.logbook_begun),
            (vec![], None),
            "{what}"
        );
        assert_eq!(kept(&spool), [head], "{what}");
    }
}

#[test]
fn ledger_and_logbook_of_an_older_copy_are_noticed_by_what_was_countersigned() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    with_history(&world, &camera);
    let older = world.dir.path().join("older");
    copy_dir(&world.path(""), &older);
    let mut spool = world.open();
    keep(&mut spool, &camera, &camera.footage(8, &[700]));
    let head = signed_by(&world, &mut spool, "daejeon");
    drop(spool);
    // Each fits the other: nothing but the countersignature says that there was more.
    fs::remove_dir_all(world.path("ledger")).unwrap();
    copy_dir(&older.join("ledger"), &world.path("ledger"));
    fs::copy(older.join("logbook"), world.path("logbook")).unwrap();
    let (spool, report) = world.start(9, false);
    assert_eq!(report.rebuilt, None);
    let first = first_entry(&spool);
    assert!(first.contains(&says("daejeon", head)), "{first}");
    assert!(report.countersigned_beyond > 0, "{report}");
    assert_eq!(alarm_codes(&spool), ["logbook_damaged"].into());
}

#[test]
fn a_logbook_that_an_archive_refused_is_followed_by_another_at_the_next_start() {
    for (code, rebuild) in [
        ("logbook_behind", false),
        ("logbook_behind", true),
        ("logbook_forked", false),
    ] {
        let world = World::new();
        let camera = world.camera("C1", 1);
        with_history(&world, &camera);
        let mut spool = world.open();
        let own = spool.head_to_sign(&site("daejeon")).unwrap().unwrap();
        let (more, said) = match code {
            "logbook_behind" => (own.entries + 30, Countersigning::Behind(own)),
            _ => (own.entries, Countersigning::Forked(own)),
        };
        let against = LogbookHead {
            entries: more,
            hash: protocol::ids::Digest([6; 32]),
            ..own
        };
        let signature = countersign(&world, "daejeon", against);
        spool.countersigned(&signature, said, NOW).unwrap();
        spool.commit(NOW).unwrap();
        assert_eq!(alarm_codes(&spool), [code].into());
        assert_eq!(
            spool.head_to_sign(&site("daejeon")).unwrap(),
            None,
            "it said no"
        );
        assert!(spool.head_to_sign(&site("gwangju")).unwrap().is_some());
        // Custody goes on as before.
        keep(&mut spool, &camera, &camera.footage(7, &[100]));
        let last = spool.logbook_head();
        drop(spool);
        let (mut spool, report) = world.start(9, rebuild);
        let first = first_entry(&spool);
        assert!(first.starts_with(&names(last)), "{code}: {first}");
        assert!(first.contains(&says("daejeon", against)), "{code}: {first}");
        assert!(report.logbook_begun.is_some());
        assert!(
            spool.head_to_sign(&site("daejeon")).unwrap().is_some(),
            "the new one may be told"
        );
        assert_eq!(
            stages(&spool, &camera.footage(7, &[100])),
            all(protocol::custody::Stage::Held, &camera.footage(7, &[100]))
        );
    }
}

#[test]
fn what_archives_countersigned_is_said_where_it_is_damaged_or_gone() {
    for gone in [false, true] {
        let world = World::new();
        let camera = world.camera("C1", 1);
        with_history(&world, &camera);
        let mut spool = world.open();
        signed_by(&world, &mut spool, "daejeon");
        drop(spool);
        let file = world.path("countersigned");
        let mut bytes = fs::read(&file).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        match gone {
            true => fs::remove_file(&file).unwrap(),
            false => fs::write(&file, bytes).unwrap(),
        }
        let verified = problems(&world);
        let words = if gone { "it is gone" } else { "cannot be read" };
        assert!(verified.iter().any(|p| p.contains(words)), "{verified:?}");
        let mut logbook = fs::read(world.path("logbook")).unwrap();
        after_the_first(&ends(&logbook), &mut logbook);
        fs::write(world.path("logbook"), logbook).unwrap();
        let (mut spool, report) = world.start(9, false);
        let first = first_entry(&spool);
        let words = match gone {
            true => "; no head is known that an archive countersigned",
            false => "; what archives countersigned cannot be read: it is not as it was written",
        };
        assert!(first.ends_with(words), "{first}");
        assert_eq!(alarm_codes(&spool).contains("countersigned_damaged"), !gone);
        assert_eq!(
            report
                .lost
                .iter()
                .any(|l| l.contains("countersigned cannot")),
            !gone
        );
        // The next one is kept anew, and the alarm is over.
        signed_by(&world, &mut spool, "daejeon");
        assert_eq!(alarm_codes(&spool), ["logbook_damaged"].into());
        drop(spool);
        assert_eq!(problems(&world), Vec::<String>::new());
    }
}

/// What an offline verification names.
fn problems(world: &World) -> Vec<String> {
    let scratch = tempfile::tempdir().unwrap();
    let keys = world.keys(1, false, &[]);
    let look = Look::open(
        &world.options(),
        world.trust.clone(),
        keys,
        scratch.path(),
        |_| {},
        NOW,
    );
    let (mut look, mut next) = (look.unwrap(), Some(VerifyFrom::default()));
    let mut found = Vec::new();
    while let Some(from) = next {
        let step = look.step(from, 1 << 20).unwrap();
        found.extend(step.problems.into_iter().map(|p| p.what));
        next = step.next;
    }
    found
}

#[test]
fn verify_names_a_countersigned_head_that_the_logbook_lacks() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    with_history(&world, &camera);
    let mut spool = world.open();
    let own = spool.head_to_sign(&site("daejeon")).unwrap().unwrap();
    let cases = [
        (own.entries - 1, "is not the one that site daejeon"),
        (own.entries + 9, "entries, and site daejeon"),
    ];
    for (entries, words) in cases {
        let hash = protocol::ids::Digest([6; 32]);
        let head = LogbookHead {
            entries,
            hash,
            ..own
        };
        let signature = countersign(&world, "daejeon", head);
        (spool.countersigned(&signature, Countersigning::Signed, NOW)).unwrap();
        spool.commit(NOW).unwrap();
        let step = spool
            .verify_step(VerifyFrom::Logbook(None), 1 << 30)
            .unwrap();
        let named: Vec<_> = step.problems.iter().map(|p| &p.what).collect();
        assert!(
            matches!(named[..], [one] if one.contains(words)),
            "{named:?}"
        );
    }
}

#[test]
fn a_countersignature_whose_key_was_revoked_is_passed_over() {
    let world = World::new();
    let camera = world.camera("C1", 1);
    with_history(&world, &camera);
    let mut spool = world.open();
    let head = spool.head_to_sign(&site("daejeon")).unwrap().unwrap();
    // By a key of another agency's list: as good as revoked here.
    let other = World::new();
    let signature = countersign(
        &other,
        "daejeon",
        LogbookHead {
            entries: 4000,
            ..head
        },
    );
    (spool.countersigned(&signature, Countersigning::Signed, NOW)).unwrap();
    spool.commit(NOW).unwrap();
    drop(spool);
    let (spool, report) = world.start(9, false);
    assert_eq!((report.logbook_begun, report.lost), (None, vec![]));
    assert_eq!(kept(&spool), []);
}
