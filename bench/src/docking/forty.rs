//! A shift change: forty cameras are docked at once, behind one uplink of 100 Mbit/s (a switch in the dock), each with
//! three full segments. How fast all of it comes, against one raw QUIC stream over that uplink just before; how equal the shares
//! are, and how long anybody waits; and what the repeater takes once there is nothing left to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tests::footage::footage;
use tests::station::netns::Namespace;
use tests::station::place::{Bay, Place};
use tests::station::{Plan, Station, raw};
use tests::stations::FOUND;
use tests::stations::crowd::{FORTY, jain, watch};
use tests::wait::{LONG, eventually, now};

use super::{MBIT, SEGMENT_BYTES};
use crate::figures::{Figures, Target};
use crate::process::Usage;

/// What each has filmed.
const EACH_BYTES: usize = 3 * SEGMENT_BYTES;
/// For so long the raw stream runs.
const RAW: Duration = Duration::from_secs(5);
/// For so long nothing is to do.
const IDLE: Duration = Duration::from_secs(30);
/// Sessions that were served settle.
const SETTLES: Duration = Duration::from_secs(5);

/// Docks all of them.
pub(super) fn measure(figures: &mut Figures) -> Result<()> {
    let station = Station::new(Plan {
        cameras: FORTY,
        ..Plan::default()
    });
    let place = Place::new(&station);
    let mut bays: Vec<Bay<'_>> = (1..=FORTY).map(|n| place.bay(n)).collect();
    let spaces: Vec<Namespace> = bays.iter().map(|bay| bay.space.clone()).collect();
    let spaces: [&Namespace; FORTY as usize] = std::array::from_fn(|i| &spaces[i]);
    let (switch, uplink, wires) = place.switched(spaces);
    uplink.far.rate(MBIT);
    for (bay, wire) in bays.iter_mut().zip(wires) {
        bay.wire = wire;
        bay.camera
            .seal(&footage(u64::from(bay.camera.n), EACH_BYTES), &[]);
    }
    let (first, serial) = (&bays[0].wire.far, bays[0].camera.serial.clone());
    let ends = (&place.space, first);
    let came = raw::between(&station, &serial, ends, RAW, || first.set(true));
    first.set(false);
    let raw = came.bytes as f64 / came.within.as_secs_f64();
    bays.iter_mut().for_each(Bay::serve);
    let sealed: u64 = bays.iter().map(|bay| bay.camera.status().bytes).sum();
    let ports = bays.iter().map(|bay| bay.wire.near.device.clone());
    let ports: Vec<String> = ports.collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let repeater = place.repeater(FOUND);
    let begin = switch.all_received();
    bays.iter().for_each(|bay| bay.wire.far.set(true));
    let mut looks: Vec<(Instant, u64)> = Vec::new();
    let mut look = || {
        let pulled = repeater.counted("repeater_pulled_bytes_total");
        looks.push((now(), pulled));
        pulled
    };
    let (waits, shares) = watch(&switch, &ports, &begin, sealed, || _ = look());
    eventually("all but a tenth is pulled", LONG * 2, || {
        (look() >= sealed / 10 * 9).then_some(())
    });
    let rate = steady(&looks, sealed).context("nobody looked while they were served")?;
    let longest = waits.into_iter().max().unwrap_or_default().as_secs_f64();
    figures.put("raw_stream", raw / 1e6, "MB/s", Target::None);
    figures.put("forty_goodput", rate / 1e6, "MB/s", Target::None);
    figures.put(
        "forty_goodput_of_raw",
        rate / raw,
        "",
        Target::AtLeast(0.95),
    );
    figures.put("forty_jain", jain(&shares), "", Target::AtLeast(0.95));
    figures.put("forty_first_byte", longest, "s", Target::AtMost(2.0));
    let cameras: Vec<_> = bays.iter().map(|bay| &bay.camera).collect();
    station.wait_all_released(&cameras, &repeater);
    std::thread::sleep(SETTLES);
    let id = repeater.party.as_ref().context("the repeater runs")?.id();
    let before = Usage::of(id)?.cpu_s;
    std::thread::sleep(IDLE);
    let used = (Usage::of(id)?.cpu_s - before) / IDLE.as_secs_f64();
    figures.put("forty_idle_cpu", used * 100.0, "%", Target::AtMost(1.0));
    Ok(())
}

/// Bytes a second between a tenth of all and nine tenths.
fn steady(looks: &[(Instant, u64)], all: u64) -> Option<f64> {
    let from = looks.iter().find(|(_, pulled)| *pulled >= all / 10)?;
    let to = looks.last()?;
    let time = (to.0 - from.0).as_secs_f64();
    (time > 0.0).then(|| (to.1 - from.1) as f64 / time)
}
