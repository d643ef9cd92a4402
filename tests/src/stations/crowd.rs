//! A shift change: forty cameras at once. And an officer who only walks past, ten times.

use std::collections::BTreeMap;
use std::time::Duration;

use super::FOUND;
use super::docks::mib;
use crate::footage::footage;
use crate::station::air::{Air, Quality};
use crate::station::netns::Namespace;
use crate::station::place::{Bay, Place};
use crate::station::{Plan, Station, raw};
use crate::wait::{LONG, eventually, now};

/// Cameras of a large site.
pub const FORTY: u32 = 40;
/// Nobody waits longer for its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(2);

/// How equal shares are: 1 where all are the same, 1/n where one has all (Jain).
#[must_use]
pub fn jain(shares: &[u64]) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "bytes, far below 2^52")]
    let shares: Vec<f64> = shares.iter().map(|s| *s as f64).collect();
    let (sum, squares) = shares
        .iter()
        .fold((0.0, 0.0), |(sum, squares), s| (sum + s, squares + s * s));
    #[allow(clippy::cast_precision_loss, reason = "a count of cameras")]
    let n = shares.len() as f64;
    if squares == 0.0 {
        0.0
    } else {
        sum * sum / (n * squares)
    }
}

/// Forty cameras are docked at once, each behind a cable of its own of 5 Mbit/s: each has its first byte soon after it
/// was greeted, and all have the same share, as far as one looks while all are served.
///
/// Fails where permits go to who asks most: a few cameras then have all of them.
pub fn shift_change() {
    const EACH: u64 = 4;
    let station = Station::new(Plan {
        cameras: FORTY,
        ..Plan::default()
    });
    let place = Place::new(&station);
    let mut cameras: Vec<Bay<'_>> = (1..=FORTY).map(|n| place.bay(n)).collect();
    for bay in &mut cameras {
        bay.wire.rate(5);
        let n = u64::from(bay.camera.n);
        bay.camera.seal(&footage(n, mib(EACH)), &[]);
        bay.serve();
    }
    let sealed: u64 = cameras.iter().map(|b| b.camera.status().bytes).sum();
    let ports = cameras.iter().map(|b| b.wire.near.device.as_str());
    let ports: Vec<&str> = ports.collect();
    let repeater = place.repeater(FOUND);
    let begin = place.space.all_received();
    cameras.iter().for_each(Bay::plug);
    let (waits, shares) = watch(&place.space, &ports, &begin, sealed, || {});
    let longest = waits.into_iter().max().unwrap_or_default();
    let fair = jain(&shares);
    println!("stations: shift-change: first byte after {longest:?} at most, Jain {fair:.3}");
    assert!(longest <= FIRST_BYTE, "a camera waited {longest:?}");
    assert!(fair >= 0.95, "Jain's index is {fair:.3}: {shares:?}");
    let all: Vec<_> = cameras.iter().map(|b| &b.camera).collect();
    station.wait_all_released(&all, &repeater);
    station.assert_footage_is_whole(&place.site);
}

/// What each port brings: how long it was from its greeting to its first byte of footage, and its share between the
/// moment at which all were greeted and that at which half of all had come. At each look `also` is done.
///
/// # Panics
/// Where half of all does not come.
pub fn watch(
    space: &Namespace,
    ports: &[&str],
    begin: &BTreeMap<String, u64>,
    total: u64,
    mut also: impl FnMut(),
) -> (Vec<Duration>, Vec<u64>) {
    // A handshake with its certificates is more than the one, and everything before the first segment less than the other.
    const GREETED: u64 = 6_000;
    const SERVED: u64 = 64_000;
    let mut greeted = vec![None; ports.len()];
    let mut waits = vec![None; ports.len()];
    let mut all_greeted = None;
    let shares = eventually("half of all has come", LONG * 2, || {
        also();
        let (seen, at) = (space.all_received(), now());
        let of = |port: &&str| seen[*port].saturating_sub(begin[*port]);
        let come: Vec<u64> = ports.iter().map(of).collect();
        for (i, bytes) in come.iter().enumerate() {
            if *bytes >= GREETED {
                greeted[i].get_or_insert(at);
            }
            if *bytes >= SERVED {
                waits[i].get_or_insert(at - greeted[i].unwrap_or(at));
            }
        }
        if greeted.iter().all(Option::is_some) {
            all_greeted.get_or_insert_with(|| come.clone());
        }
        (come.iter().sum::<u64>() >= total / 2).then_some(come)
    });
    let before = all_greeted.expect("half of all came from some and not from others");
    let since = shares.iter().zip(before).map(|(s, b)| s - b);
    let waits = waits.into_iter().map(|w| w.unwrap_or(Duration::MAX));
    (waits.collect(), since.collect())
}

/// What came of an officer who walked past.
#[derive(Clone, Copy, Debug)]
pub struct Walked {
    /// Bytes pulled in all contacts.
    pub pulled: u64,
    /// What one raw stream brings in as many.
    pub raw: u64,
    /// Segments that are whole.
    pub ended: u64,
}

/// Five seconds of contact at 8 Mbit/s, ten times: what comes over is most of what one QUIC stream brings that is opened
/// as soon as there is a link; and segments are ended, not begun again.
///
/// Fails where finding the camera takes a second, and where what was begun is pulled from its first byte again.
pub fn walking_past() {
    let Walked { pulled, raw, ended } = walk();
    let share = pulled * 100 / raw;
    println!("stations: walking-past: {pulled} bytes, {share} % of {raw}");
    assert!(
        share >= 85,
        "{pulled} bytes in all contacts, {raw} in raw ones"
    );
    assert!(
        ended >= (pulled >> 22).saturating_sub(4),
        "{ended} segments ended of {pulled} bytes"
    );
}

/// Walks past, ten times.
#[must_use]
pub fn walk() -> Walked {
    const CONTACT: Duration = Duration::from_secs(5);
    const TIMES: u64 = 10;
    let station = Station::new(Plan::default());
    let place = Place::new(&station);
    let mut bay = place.bay(1);
    bay.camera
        .seal(&footage(1, mib(64)), &["--class", "urgent"]);
    let quality = Quality {
        delay: Duration::from_millis(5),
        mbit: 8,
        ..Quality::default()
    };
    let air = Air::new("dk", &place.space, &bay.space, quality);
    place.give_addresses(air.near(), air.far());
    air.reach(false);
    air.plug();
    let raw = (0..2).map(|_| {
        let bytes = raw::bytes_within(&station, &bay.camera.serial, &air, CONTACT);
        std::thread::sleep(Duration::from_secs(1));
        bytes
    });
    let raw = raw.sum::<u64>() / 2;
    bay.serve_on(&[air.far()]);
    let repeater = place.repeater(FOUND);
    for _ in 0..TIMES {
        air.reach(true);
        std::thread::sleep(CONTACT);
        air.reach(false);
        std::thread::sleep(Duration::from_secs(2));
    }
    Walked {
        pulled: repeater.counted("repeater_pulled_bytes_total"),
        raw: raw * TIMES,
        ended: repeater.held().saturating_sub(1),
    }
}
