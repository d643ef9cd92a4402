//! What the repeater keeps and what passes on both hops is of no use to a thief: no byte of footage, no officer, no case,
//! and on the camera hop not even the camera's serial.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use tests::footage::{contains, footage};
use tests::relay::Relay;
use tests::station::{Plan, Station};
use tests::wait::until;

const MIB: usize = 1 << 20;
const OFFICER: &str = "Sergeant Hong Gil-dong 8834";
const CASE: &str = "2026-KR-104-77";
const MEDIA: &str = "video/x-never-seen-otherwise";

/// Every file below a folder, one after the other; a socket holds nothing.
fn all_bytes(folder: &Path) -> Vec<u8> {
    let (mut all, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
        {
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                all.extend(std::fs::read(path).unwrap());
            }
        }
    }
    all
}

/// Every needle that `hay` holds. One pass: needles are found by their first eight bytes.
fn found<'a>(hay: &[u8], needles: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let first = |n: &[u8]| u64::from_le_bytes(n[..8].try_into().unwrap());
    let by_first: std::collections::HashMap<u64, Vec<&'a [u8]>> =
        needles.iter().fold(Default::default(), |mut map, n| {
            map.entry(first(n)).or_default().push(n);
            map
        });
    let at = |i: usize| {
        by_first
            .get(&first(&hay[i..i + 8]))
            .into_iter()
            .flatten()
            .filter(move |n| hay[i..].starts_with(n))
    };
    (0..hay.len().saturating_sub(7))
        .flat_map(at)
        .copied()
        .collect()
}

/// What must be nowhere: sixteen bytes of every kilobyte of footage (whatever is left of one datagram, or of one block
/// on disk, would be seen), and what the header says.
fn needles(filmed: &[u8]) -> Vec<&[u8]> {
    let pieces = filmed.chunks(1000).filter(|c| c.len() >= 16);
    let mut needles: Vec<&[u8]> = pieces.map(|c| &c[..16]).collect();
    needles.extend([OFFICER.as_bytes(), CASE.as_bytes(), MEDIA.as_bytes()]);
    needles.push(b"Hong Gil-dong");
    needles
}

#[test]
fn spool_and_wire_hold_no_plaintext_no_officer_and_no_serial() {
    let station = Station::new(Plan::default());
    let site = station.site("site-a");
    let mut camera = station.camera(1);
    let filmed = footage(3, 5 * MIB);
    let sealed = camera.seal(
        &filmed,
        &["--officer", OFFICER, "--case", CASE, "--media-type", MEDIA],
    );
    let a_segment = std::fs::read(&camera.segment_files()[0]).unwrap();
    let manifest = std::fs::read(
        camera
            .store()
            .join("recordings/00000000/manifest-00000000.cose"),
    )
    .unwrap();
    let (camera_hop, archive_hop) = (
        Relay::recording(camera.serve()),
        Relay::recording(site.address()),
    );
    let repeater = station.repeater(
        &[camera_hop.address()],
        &[("site-a", archive_hop.address())],
    );
    station.wait_all_released(&[&camera], &repeater);
    station.assert_footage_is_whole(&site);
    until("the spool still has its copy", || {
        repeater.items("released") == sealed.items()
    });

    let spool = all_bytes(&repeater.spool());
    let (near, far) = (camera_hop.recorded(), archive_hop.recorded());
    assert!(
        near.len() > filmed.len() && far.len() > filmed.len(),
        "all footage passed both relays"
    );
    let needles = needles(&filmed);
    for (place, bytes) in [
        ("spool", &spool),
        ("camera hop", &near),
        ("archive hop", &far),
    ] {
        assert_eq!(found(bytes, &needles), Vec::<&[u8]>::new(), "{place}");
    }
    for (hop, bytes) in [("camera hop", &near), ("archive hop", &far)] {
        assert!(
            !contains(bytes, camera.serial.as_bytes()),
            "{hop}: the camera's serial"
        );
        assert_eq!(
            found(bytes, &[&a_segment[100..132], &manifest[..32]]),
            Vec::<&[u8]>::new(),
            "{hop}: a sealed object"
        );
    }
    // The search itself finds what is there.
    assert!(found(&filmed, &needles).len() >= filmed.len() / 1000);
    assert_eq!(
        found(&spool, &[&a_segment[100..132]]).len(),
        1,
        "the sealed segment lies in the spool"
    );
    assert!(
        contains(&spool, camera.serial.as_bytes()),
        "the spool knows whose it is"
    );
}
