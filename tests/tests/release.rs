//! Only receipts erase: forged, foreign, of a void epoch, of too few sites, or silent about the header, they erase
//! nothing; and a header that was swapped or altered on its way never earns a receipt at all.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;
use link::agency::key_list::{Change, change};
use protocol::ids::{Digest, StoreEpoch};
use protocol::keylist::State;
use protocol::manifest::Manifest;
use protocol::receipt::Body;
use tests::camera_double::{Answer, Script, honest};
use tests::camera_party::Camera;
use tests::double::{Visitor, block_on};
use tests::footage::footage;
use tests::sealed::{camera_id, receipt_body, receipt_key, record, signed};
use tests::station::{Plan, Station};
use tests::wait::{throughout, until};

const MIB: usize = 1 << 20;
const EPOCH: StoreEpoch = StoreEpoch([1; 16]);
const VOID: StoreEpoch = StoreEpoch([2; 16]);

/// The only manifest of a recording, from the camera's storage.
fn manifest(station: &Station, camera: &Camera<'_>, number: u64) -> Manifest {
    let path = camera
        .store()
        .join(format!("recordings/{number:08}/manifest-00000000.cose"));
    Manifest::verify(std::fs::read(path).unwrap().into(), &station.trust()).unwrap()
}

/// Brings receipts by a repeater of the agency, and gives what the camera says it may release.
fn bring(station: &Station, camera: &Camera<'_>, receipts: &[Bytes]) -> Vec<Digest> {
    let address = camera.address();
    block_on(async {
        let mut visitor = Visitor::dial(station, address).await;
        let answers = visitor.release(receipts).await;
        answers.into_iter().flat_map(|a| a.digests).collect()
    })
}

/// Receipts that must not count, each with the reason.
type Worthless = Vec<(&'static str, Vec<Bytes>)>;

/// Those that were signed by the wrong one, or by too few.
fn badly_signed(station: &Station, one: &Manifest) -> Worthless {
    let good = |site: &str| receipt_body(site, EPOCH, one);
    let key = |site: &str| receipt_key(station, site);
    let stranger = Station::new(Plan {
        sites: &["site-a", "site-b"],
        ..Plan::default()
    });
    let mut flipped = signed(good("site-b"), &key("site-b")).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let first = || signed(good("site-a"), &key("site-a"));
    let mut later = good("site-a");
    later.signed.0 += 1;
    let foreign = signed(good("site-b"), &receipt_key(&stranger, "site-b"));
    let anothers = signed(good("site-b"), &key("site-a"));
    let unnamed = signed(good("site-c"), &key("site-c"));
    let revoked = signed(good("site-d"), &key("site-d"));
    let none = vec![Bytes::from_static(b"receipt"), one.bytes().clone()];
    vec![
        ("one site of two", vec![first()]),
        (
            "one site twice",
            vec![first(), signed(later, &key("site-a"))],
        ),
        ("an altered signature", vec![first(), flipped.into()]),
        ("a key of another agency", vec![first(), foreign]),
        ("another site's key", vec![first(), anothers]),
        (
            "a site that the policy does not name",
            vec![first(), unnamed],
        ),
        ("a revoked key", vec![first(), revoked]),
        ("no receipt at all", none),
    ]
}

/// Those in which the second site signs something else than it should.
fn badly_worded(station: &Station, one: &Manifest, other: &Manifest) -> Worthless {
    let (a, b) = (
        receipt_key(station, "site-a"),
        receipt_key(station, "site-b"),
    );
    let second = |change: &dyn Fn(&mut Body)| {
        let mut body = receipt_body("site-b", EPOCH, one);
        change(&mut body);
        vec![
            signed(receipt_body("site-a", EPOCH, one), &a),
            signed(body, &b),
        ]
    };
    let header = other.body().header.digest;
    let segments = || -> Vec<Digest> { other.body().segments.iter().map(|s| s.digest).collect() };
    vec![
        ("a void epoch", second(&|r| r.epoch = VOID)),
        (
            "without the header's digest",
            second(&|r| r.header = r.segments[0]),
        ),
        (
            "with another recording's header",
            second(&|r| r.header = header),
        ),
        (
            "of another recording",
            second(&|r| r.recording = other.recording().clone()),
        ),
        (
            "naming other segments",
            second(&|r| r.segments = segments()),
        ),
        ("naming nothing", second(&|r| r.segments.clear())),
    ]
}

#[test]
fn what_is_no_receipt_erases_nothing() {
    let station = Station::new(Plan {
        sites: &["site-a", "site-b", "site-c", "site-d"],
        ..Plan::default()
    });
    let revoked = receipt_key(&station, "site-d").public().id();
    let void = Change::VoidEpoch {
        site: "site-b".parse().unwrap(),
        epoch: VOID,
    };
    change(
        &station.agency,
        &[
            void,
            Change::SetState {
                key: revoked,
                state: State::Revoked,
            },
        ],
    )
    .unwrap();
    let mut camera = station.camera(1);
    let two = ["--k", "2", "--site", "site-a", "--site", "site-b"];
    let with_revoked = [
        "--k", "2", "--site", "site-a", "--site", "site-b", "--site", "site-d",
    ];
    camera.seal(&footage(1, 5 * MIB), &with_revoked);
    camera.seal(&footage(2, MIB), &two);
    camera.serve();
    let (one, other) = (
        manifest(&station, &camera, 0),
        manifest(&station, &camera, 1),
    );
    let files = camera.segment_files();
    assert_eq!(files.len(), 3);
    let worthless = badly_signed(&station, &one).into_iter();
    for (what, receipts) in worthless.chain(badly_worded(&station, &one, &other)) {
        let mut released = bring(&station, &camera, &receipts);
        // Both sites may well vouch for the manifest; it is the segments that go.
        released.retain(|d| *d != one.digest());
        assert_eq!(
            released,
            Vec::<Digest>::new(),
            "{what}: the camera says it may be erased"
        );
        assert_eq!(
            camera.segment_files(),
            files,
            "{what}: something was erased"
        );
    }
    // And a restart does not make more of them.
    camera.serve();
    assert_eq!(camera.segment_files(), files);
    // The second site's true receipt completes the first one's, which is remembered.
    let released = bring(
        &station,
        &camera,
        &[signed(
            receipt_body("site-b", EPOCH, &one),
            &receipt_key(&station, "site-b"),
        )],
    );
    assert_eq!(released.len(), 3, "two segments and the manifest");
    until("recording 0 is erased", || {
        camera.segment_files() == files[2..]
    });
    let left = camera.status();
    assert_eq!((left.recordings.len(), left.released), (1, 1));
}

#[test]
fn an_altered_or_swapped_header_earns_no_receipt() {
    let station = Station::new(Plan {
        cameras: 2,
        ..Plan::default()
    });
    let site = station.site("site-a");
    let (flipping, swapping) = (camera_id("BWC-0001"), camera_id("BWC-0002"));
    let two = |camera| {
        (0..2)
            .map(|n| record(&station, camera, n, &footage(n, 2 * MIB), MIB, &["site-a"]))
            .collect::<Vec<_>>()
    };
    let flip = Script::new(&station, flipping.clone(), two(&flipping)).answering(
        |recordings, digest, offset| match honest(recordings, digest, offset) {
            Answer::Bytes(length, bytes) if recordings[0].header_digest() == digest => {
                let mut bytes = bytes.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                Answer::Bytes(length, bytes.into())
            }
            other => other,
        },
    );
    // Headers of one recording for the other: equally long, as whoever swaps them would see to.
    let swap = Script::new(&station, swapping.clone(), two(&swapping)).answering(
        |recordings, digest, offset| {
            let (one, other) = (recordings[0].header_digest(), recordings[1].header_digest());
            let asked = if digest == one { other } else { digest };
            honest(recordings, asked, offset)
        },
    );
    let doubles = [flip.clone().listen(&station), swap.listen(&station)];
    let repeater = station.repeater(&doubles.each_ref().map(|d| d.address), &[site.told()]);
    until("the two honest recordings are archived", || {
        repeater.items("archived") == 6
    });
    until("the bad headers were pulled", || {
        flip.asked
            .lock()
            .unwrap()
            .iter()
            .any(|(d, _)| *d == flip.recordings[0].header_digest())
    });
    throughout(
        "no segment without its header is Held or archived",
        Duration::from_secs(1),
        || repeater.items("archived") == 6 && site.segments() == 4,
    );
    assert_eq!(site.verify()["problems"], serde_json::json!([]));
    repeater.wait_alarm("segment_refused"); // it is an alarm, not silence
}
