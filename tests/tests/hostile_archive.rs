//! A site that lies: it takes the footage and signs what it should not, or is not the site that it should be. No camera
//! erases anything on its word, and the repeater keeps its copy. One that stalls holds nothing up but itself.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protocol::ids::{Digest, StoreEpoch};
use protocol::manifest::Class;
use protocol::manifest::Manifest;
use protocol::message::{Busy, Message, Want};
use tests::camera_double::{self, honest};
use tests::footage::footage;
use tests::sealed::{Recording, camera_id, receipt_body, receipt_key, record, signed};
use tests::site_double::{Script, want_all};
use tests::station::{Plan, Station};
use tests::wait::{now, throughout, until};

const MIB: usize = 1 << 20;
const EPOCH: StoreEpoch = StoreEpoch([5; 16]);

/// What a lying site says to an offer.
type Says = Box<dyn Fn(&Manifest) -> Vec<Message> + Send + Sync>;

/// A lie, and what the repeater says of it.
struct Lie {
    name: &'static str,
    script: Script,
    alarm: Option<&'static str>,
}

fn receipt(bytes: Bytes) -> Vec<Message> {
    vec![Message::Receipt(bytes)]
}

/// Receipts that are none.
fn receipts(station: &Station, elsewhere: &Station) -> Vec<Lie> {
    let key = |site| receipt_key(station, site);
    let (forger, other, own) = (
        receipt_key(elsewhere, "site-a"),
        key("site-b"),
        key("site-a"),
    );
    let lie = |name, alarm, stored: Says| Lie {
        name,
        alarm,
        script: Script::new(station, "site-a", stored),
    };
    let body = |m: &Manifest| receipt_body("site-a", EPOCH, m);
    vec![
        lie(
            "a forged key",
            Some("site_fault"),
            Box::new(move |m| receipt(signed(body(m), &forger))),
        ),
        lie(
            "another site's name",
            Some("site_fault"),
            Box::new(move |m| receipt(signed(receipt_body("site-b", EPOCH, m), &other))),
        ),
        lie(
            "nonsense",
            Some("site_fault"),
            Box::new(|_| receipt(Bytes::from_static(b"receipt"))),
        ),
        lie(
            "without the header",
            None,
            Box::new(move |m| {
                receipt(signed(
                    protocol::receipt::Body {
                        header: Digest([0; 32]),
                        ..body(m)
                    },
                    &own,
                ))
            }),
        ),
    ]
}

#[test]
fn nothing_is_archived_or_erased_on_a_liars_word() {
    let station = Station::new(Plan {
        sites: &["site-a", "site-b"],
        ..Plan::default()
    });
    let elsewhere = Station::new(Plan::default());
    let mut camera = station.camera(1);
    let sealed = camera.seal(&footage(1, 2 * MIB), &[]);
    camera.serve();
    let files = camera.segment_files();
    for lie in receipts(&station, &elsewhere) {
        let site = lie.script.listen(&station, "site-a");
        let mut repeater = station.repeater(&[camera.address()], &[("site-a", site.address)]);
        repeater.wait_held(sealed.items());
        match lie.alarm {
            Some(code) => repeater.wait_alarm(code),
            None => throughout(lie.name, Duration::from_millis(700), || {
                repeater.items("archived") == 0
            }),
        }
        assert_eq!(repeater.items("held"), sealed.items(), "{}", lie.name);
        assert_eq!(camera.segment_files(), files, "{}", lie.name);
        assert!(repeater.daemon().runs(), "{}", lie.name);
        repeater.daemon().stop();
    }
}

#[test]
fn another_site_at_the_sites_address_gets_nothing() {
    let station = Station::new(Plan {
        sites: &["site-a", "site-b"],
        ..Plan::default()
    });
    let mut camera = station.camera(1);
    let sealed = camera.seal(&footage(1, MIB), &[]);
    let impostor = Script::new(&station, "site-a", |_| Vec::new()).listen(&station, "site-b");
    let repeater = station.repeater(&[camera.serve()], &[("site-a", impostor.address)]);
    repeater.wait_held(sealed.items());
    repeater.wait_alarm("site_fault");
    assert_eq!(repeater.items("held"), sealed.items());
    assert_eq!(
        repeater.counted("repeater_put_bytes_total{site=\"site-a\"}"),
        0
    );
}

/// An honest site's script.
fn takes_all(station: &Station, name: &'static str) -> Script {
    let key = receipt_key(station, name);
    Script::new(station, name, move |m| {
        receipt(signed(receipt_body(name, EPOCH, m), &key))
    })
}

#[test]
fn a_site_that_never_answers_loses_its_work_while_a_camera_offloads() {
    let station = Station::new(Plan {
        sites: &["site-a", "site-b"],
        ..Plan::default()
    });
    let camera = camera_id("BWC-0001");
    let recordings: Vec<Recording> = (0..12)
        .map(|n| {
            let sites = ["site-a", "site-b"];
            record(&station, &camera, n, &footage(n, 48 << 10), 1 << 10, &sites)
        })
        .collect();
    let items: u64 = recordings.iter().map(|r| r.segments.len() as u64 + 1).sum();
    // Twenty segments a second: the repeater's bells ring all along.
    let double = camera_double::Script::new(&station, camera, recordings)
        .answering(|recordings, digest, offset| {
            std::thread::sleep(Duration::from_millis(50));
            honest(recordings, digest, offset)
        })
        .listen(&station);
    let mute = takes_all(&station, "site-a")
        .offered(|_| Vec::new())
        .listen(&station, "site-a");
    let other = station.site("site-b");
    let repeater = station.repeater(&[double.address], &[("site-a", mute.address), other.told()]);
    repeater.wait_held(1);
    let begun = now();
    repeater.wait_alarm("site_silent");
    let took = now().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(20), "{took:?}");
    let s = &repeater.status()["spool"]["segments"];
    assert!(
        s["announced"].as_u64().unwrap() > 0,
        "still offloading: {s}"
    );
    until("the other site has it all", || {
        repeater.items("archived") + repeater.items("released") == items
    });
    assert_eq!(
        repeater.counted("repeater_put_bytes_total{site=\"site-a\"}"),
        0
    );
}

#[test]
fn a_site_that_takes_and_signs_nothing_is_seen_to_owe_until_it_signs() {
    let station = Station::new(Plan::default());
    let mut camera = station.camera(1);
    camera.seal(&footage(1, MIB), &[]);
    let (key, signs) = (
        receipt_key(&station, "site-a"),
        Arc::new(AtomicBool::new(false)),
    );
    let asked = Arc::clone(&signs);
    let site = Script::new(&station, "site-a", move |m| {
        match asked.load(Ordering::Relaxed) {
            true => receipt(signed(receipt_body("site-a", EPOCH, m), &key)),
            false => Vec::new(),
        }
    });
    let site = site.listen(&station, "site-a");
    let repeater = station.repeater(&[camera.serve()], &[("site-a", site.address)]);
    let owes = || !repeater.status()["archives"][0]["receipt_due_seconds"].is_null();
    until("it has taken something", owes);
    throughout("it owes", Duration::from_secs(1), owes);
    signs.store(true, Ordering::Relaxed);
    camera.seal(&footage(2, MIB), &[]);
    until("it has signed", || !owes());
    assert!(repeater.counted("repeater_receipts_total{site=\"site-a\"}") > 0);
}

#[test]
fn busy_and_wants_about_nothing_hold_nothing_up() {
    let station = Station::new(Plan::default());
    let mut camera = station.camera(1);
    let sealed = camera.seal(&footage(1, 2 * MIB), &[]);
    let flood = |n: u8| {
        [
            Message::Busy(Busy {
                about: Digest([n; 32]),
                class: Class::Urgent,
                retry_after_ms: 300_000,
            }),
            Message::Want(Want {
                manifest: Digest([n; 32]),
                digests: vec![Digest([n; 32]); 64],
                grant: 64,
            }),
        ]
    };
    let site = takes_all(&station, "site-a")
        .offered(move |m| {
            let mut says: Vec<Message> = (0..=200).flat_map(flood).collect();
            says.push(want_all(m));
            says
        })
        .listen(&station, "site-a");
    let repeater = station.repeater(&[camera.serve()], &[("site-a", site.address)]);
    until("all is archived", || {
        repeater.items("archived") + repeater.items("released") == sealed.items()
    });
    assert_eq!(repeater.alarms(), Vec::<String>::new());
}

#[test]
fn no_segment_takes_the_place_of_a_header_that_was_put_off() {
    let station = Station::new(Plan::default());
    let camera = camera_id("BWC-0001");
    // More than are put at one time.
    let sealed = record(
        &station,
        &camera,
        0,
        &footage(1, 48 << 10),
        1 << 10,
        &["site-a"],
    );
    let items = sealed.segments.len() as u64 + 1;
    let double = camera_double::Script::new(&station, camera, vec![sealed]).listen(&station);
    let script = Script {
        hasty: true,
        ..takes_all(&station, "site-a")
    };
    script.busy.store(true, Ordering::Relaxed);
    let site = script.listen(&station, "site-a");
    let repeater = station.repeater(&[double.address], &[("site-a", site.address)]);
    until("the header is put off", || {
        !script.busy.load(Ordering::Relaxed)
    });
    let begun = now();
    until("all is archived", || {
        repeater.items("archived") + repeater.items("released") == items
    });
    let took = now().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_site_that_is_gone_is_an_alarm_though_another_answers() {
    let station = Station::new(Plan {
        sites: &["site-a", "site-b"],
        ..Plan::default()
    });
    let site = station.site("site-a");
    // A socket that nobody reads.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let gone = nobody.local_addr().unwrap();
    let mut repeater = station.repeater(&[], &[site.told(), ("site-b", gone)]);
    repeater.wait_alarm("site_silent");
    throughout("it stands", Duration::from_secs(2), || {
        repeater.alarms() == ["site_silent"]
    });
    let back = takes_all(&station, "site-b").listen(&station, "site-b");
    repeater.run_with(&[], &[site.told(), ("site-b", back.address)], "");
    until("both answer", || {
        repeater.counted("repeater_site_up{site=\"site-b\"}") > 0
    });
    assert_eq!(repeater.alarms(), Vec::<String>::new());
}
