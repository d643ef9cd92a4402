//! A site that lies: it takes the footage and signs what it should not, or is not the site that it should be. No camera
//! erases anything on its word, and the repeater keeps its copy.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;
use protocol::ids::{Digest, StoreEpoch};
use protocol::manifest::Manifest;
use protocol::message::Message;
use tests::footage::footage;
use tests::sealed::{receipt_body, receipt_key, signed};
use tests::site_double::Script;
use tests::station::{Plan, Station};
use tests::wait::throughout;

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
