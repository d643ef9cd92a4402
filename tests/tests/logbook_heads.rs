//! How far the repeater's logbook went is known at the archive: what is put back from a copy, cut or begun anew is seen
//! there and here, and the next logbook names what is missing. Footage goes on all the while.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use protocol::ids::StoreEpoch;
use protocol::logbook::{Body, COUNTERSIGNATURE_KIND, Countersignature, SignedHead};
use protocol::manifest::Manifest;
use protocol::message::{HeadVerdict, LOGBOOK_HEAD, Message};
use protocol::suite::sha256;
use tests::camera_double;
use tests::camera_party::Camera;
use tests::footage::footage;
use tests::repeater_party::Repeater;
use tests::sealed::{camera_id, receipt_body, receipt_key, record, signed};
use tests::site_double::Script;
use tests::station::{Plan, Station};
use tests::wait::{LONG, eventually, until};

const MIB: usize = 1 << 20;
const EPOCH: StoreEpoch = StoreEpoch([5; 16]);

/// Entries of its logbook of which the site has countersigned the head.
fn countersigned(repeater: &Repeater<'_>) -> Option<u64> {
    repeater.status()["archives"][0]["countersigned"][0].as_u64()
}

/// Waits until more than `before` entries are countersigned, and gives how many.
fn wait_countersigned(repeater: &Repeater<'_>, before: u64) -> u64 {
    eventually("the logbook's head is countersigned", LONG, || {
        countersigned(repeater).filter(|entries| *entries > before)
    })
}

/// Records and offloads so much that the logbook has many more entries, and stops the daemon once they are countersigned.
fn grow(repeater: &mut Repeater<'_>, camera: &mut Camera<'_>) -> u64 {
    for n in 0..6 {
        camera.seal(&footage(40 + n, MIB), &[]);
    }
    until("all of it is released", || {
        let s = camera.status();
        s.recordings.is_empty() && s.released == s.next_recording
    });
    let entries = repeater.logbook_entries();
    // The pace is ten minutes; a daemon that starts tells how far it is at once.
    repeater.daemon().stop();
    repeater.run();
    let entries = wait_countersigned(repeater, entries - 1);
    repeater.daemon().stop();
    entries
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let mut cp = std::process::Command::new("cp");
    assert!(cp.arg("-a").args([from, to]).status().unwrap().success());
}

/// What the first entry of a logbook says, where it follows another.
fn first_entry(repeater: &Repeater<'_>) -> String {
    let bytes = std::fs::read(repeater.spool().join("logbook")).unwrap();
    let length = u32::from_be_bytes(bytes[24..28].try_into().unwrap());
    // Kind and time before, the chain hash behind.
    let body = &bytes[28 + 9..28 + usize::try_from(length).unwrap() - 32];
    String::from_utf8_lossy(body).into_owned()
}

#[test]
fn a_spool_that_is_put_back_from_a_copy_is_refused_and_a_new_logbook_names_what_is_missing() {
    let station = Station::new(Plan::default());
    let mut site = station.site("site-a");
    let mut camera = station.camera(1);
    camera.seal(&footage(1, MIB), &[]);
    let address = camera.serve();
    let mut repeater = station.repeater(&[address], &[site.told()]);
    wait_countersigned(&repeater, 0);
    repeater.daemon().stop();
    let older = station.path("older");
    copy(&repeater.spool(), &older);
    repeater.run();
    let seen = grow(&mut repeater, &mut camera);
    copy(&older, &repeater.spool());

    repeater.run();
    repeater.wait_alarm("logbook_behind");
    let log = site.gateway().log();
    assert!(
        log.contains("logbook_behind") && !log.contains("logbook_new"),
        "{log}"
    );
    let alarms = repeater.status()["alarms"].clone();
    let words = format!("entry {seen}, chain hash");
    assert!(alarms.to_string().contains(&words), "{words} in {alarms}");
    // Custody waits for none of this.
    camera.seal(&footage(2, MIB), &[]);
    until("what is recorded meanwhile is released", || {
        camera.status().recordings.is_empty()
    });
    repeater.daemon().stop();

    repeater.run();
    wait_countersigned(&repeater, 0);
    let first = first_entry(&repeater);
    let names = format!(", entry {seen}, chain hash");
    assert!(
        first.starts_with("follows logbook ")
            && first.contains("site site-a countersigned (logbook"),
        "{first}"
    );
    assert!(
        first.contains(&names) && first.contains("entries beyond what can be read"),
        "{first}"
    );
    assert!(site.gateway().log().contains("logbook_new"));
    assert_eq!(repeater.clear("logbook_behind", "site-a").code, Some(0));
    repeater.wait_no_alarm("logbook_behind");
    station.assert_footage_is_whole(&site);
}

#[test]
fn a_logbook_that_lost_entries_is_followed_by_one_that_names_what_the_archive_has_seen() {
    let station = Station::new(Plan::default());
    let mut site = station.site("site-a");
    let mut camera = station.camera(1);
    camera.seal(&footage(3, MIB), &[]);
    let address = camera.serve();
    let mut repeater = station.repeater(&[address], &[site.told()]);
    wait_countersigned(&repeater, 0);
    repeater.daemon().stop();
    let (logbook, older) = (repeater.spool().join("logbook"), station.path("older"));
    copy(&logbook, &older);
    repeater.run();
    let seen = grow(&mut repeater, &mut camera);
    std::fs::remove_file(&logbook).unwrap();
    copy(&older, &logbook);

    repeater.run();
    repeater.wait_alarm("logbook_damaged");
    let first = first_entry(&repeater);
    let names = format!(", entry {seen}, chain hash");
    assert!(
        first.contains("site site-a countersigned (logbook") && first.contains(&names),
        "{first}"
    );
    let beyond = first.rsplit(", ").next().unwrap();
    let beyond: u64 = beyond
        .strip_suffix(" entries beyond what can be read")
        .unwrap()
        .parse()
        .unwrap();
    assert!(beyond > 0 && beyond < seen, "{first}");
    wait_countersigned(&repeater, 0);
    assert!(site.gateway().log().contains("logbook_new"));
    assert!(!repeater.alarms().iter().any(|a| a == "logbook_behind"));
    station.assert_footage_is_whole(&site);
}

/// What a site says to a head.
type Says = Box<dyn Fn(&SignedHead) -> Message + Send + Sync>;

/// A countersignature that `change` made of an honest one, by a site's key.
fn answer(station: &Station, by: &str, verdict: HeadVerdict, change: fn(&mut Body)) -> Says {
    let key = receipt_key(station, by);
    Box::new(move |head| {
        let honest =
            Countersignature::sign(head, "site-a".parse().unwrap(), &key, head.body().signed);
        let mut body = honest.unwrap().body().clone();
        change(&mut body);
        let payload = protocol::cose::to_cbor(&body);
        let bytes = protocol::cose::sign_statement(COUNTERSIGNATURE_KIND, payload, &key).unwrap();
        Message::countersignature(
            head.digest(),
            verdict,
            Some(&Bytes::from(bytes)),
            "says the double",
        )
    })
}

#[test]
fn a_site_that_signs_no_such_head_is_a_fault_and_an_older_one_is_none() {
    use HeadVerdict::{Behind, Forked, Refused, Signed, Unavailable};
    let station = Station::new(Plan {
        sites: &["site-a", "site-b"],
        ..Plan::default()
    });
    let says = |by, verdict, change| answer(&station, by, verdict, change);
    let plain = |verdict| -> Says {
        Box::new(move |head| {
            Message::countersignature(head.digest(), verdict, None, "says the double")
        })
    };
    let cases: Vec<(&str, Option<&str>, Says)> = vec![
        (
            "an older site",
            None,
            Box::new(|_| Message::Unsupported(LOGBOOK_HEAD)),
        ),
        ("its store fails", None, plain(Unavailable)),
        (
            "about another head",
            None,
            Box::new(|_| Message::countersignature(sha256(b"x"), Signed, None, "")),
        ),
        ("not ours", Some("head_refused"), plain(Refused)),
        ("without a signature", Some("site_fault"), plain(Signed)),
        (
            "of fewer entries",
            Some("site_fault"),
            says("site-a", Signed, |b| b.head.entries -= 1),
        ),
        (
            "of another repeater",
            Some("site_fault"),
            says("site-a", Signed, |b| b.repeater.n += 1),
        ),
        (
            "by another site's key",
            Some("site_fault"),
            says("site-b", Signed, |_| {}),
        ),
        (
            "behind what is not further",
            Some("site_fault"),
            says("site-a", Behind, |_| {}),
        ),
        (
            "forked where it is the same",
            Some("site_fault"),
            says("site-a", Forked, |_| {}),
        ),
        (
            "behind",
            Some("logbook_behind"),
            says("site-a", Behind, |b| b.head.entries += 9),
        ),
        (
            "forked",
            Some("logbook_forked"),
            says("site-a", Forked, |b| b.head.hash = sha256(b"x")),
        ),
    ];
    for (n, (what, alarm, says)) in cases.into_iter().enumerate() {
        let camera = camera_id("BWC-0001");
        let made = record(&station, &camera, 0, &footage(5, 9000), 9000, &["site-a"]);
        let key = receipt_key(&station, "site-a");
        let stored = move |m: &Manifest| {
            vec![Message::Receipt(signed(
                receipt_body("site-a", EPOCH, m),
                &key,
            ))]
        };
        let script = Script {
            heads: Some(Arc::from(says)),
            ..Script::new(&station, "site-a", stored)
        };
        let site = script.listen(&station, "site-a");
        let cameras = camera_double::Script::new(&station, camera, vec![made]).listen(&station);
        let (name, sites) = (format!("repeater-{n}"), [("site-a", site.address)]);
        let repeater = Repeater::start_named(&station, &name, &[cameras.address], &sites, "");
        let told = || script.told.load(Ordering::Relaxed) > 0;
        until(&format!("{what}: it was told a head"), told);
        let logged = || alarm.is_none_or(|code| repeater.log().contains(code));
        until(&format!("{what}: {alarm:?}"), logged);
        until(&format!("{what}: the footage is archived"), || {
            repeater.items("archived") + repeater.items("released") == 2
        });
        // A fault stands until the next receipt.
        let over = alarm == Some("site_fault");
        until(&format!("{what}: only that stands"), || {
            let standing = repeater.alarms();
            let only = standing.iter().all(|code| Some(code.as_str()) == alarm);
            only && (over || standing.len() == usize::from(alarm.is_some()))
        });
        let kept = matches!(alarm, Some("logbook_forked" | "logbook_behind"));
        assert_eq!(countersigned(&repeater).is_some(), kept, "{what}");
    }
}
