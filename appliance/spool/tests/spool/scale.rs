//! A terabyte in small: many segments, and how long the ledger's operations then take. Ignored by default, since
//! it makes as many files; prints its figures.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::world::*;

#[test]
#[ignore = "makes 65,536 files; run by name with --nocapture"]
fn many_segments() {
    let mut world = World::new();
    world.capacity = 1 << 40;
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let began = now();
    let recordings = 1024;
    for n in 0..recordings {
        let footage = camera.footage(n, &(0..63).map(|i| 100 + i).collect::<Vec<_>>());
        spool.admit(&camera.whole_manifest(&footage), NOW).unwrap();
        for task in spool.next_pulls(&camera.id, 99, &none(), NOW).unwrap() {
            pull(&mut spool, &footage, &task.digest);
        }
        spool.commit(NOW).unwrap();
    }
    println!(
        "filled with {:?} in {:?}",
        spool.counts().stages[1][0],
        (now() - began)
    );
    println!("overhead {} bytes", spool.space().overhead_bytes);
    let began = now();
    for _ in 0..1000 {
        assert_eq!(
            spool
                .next_puts(&both(), &site("daejeon"), 1, &none(), NOW)
                .unwrap()
                .len(),
            1
        );
    }
    println!("next put {:?}", (now() - began) / 1000);
    let waiting = camera.footage(recordings, &[5; 1]);
    spool.admit(&camera.whole_manifest(&waiting), NOW).unwrap();
    let began = now();
    for _ in 0..1000 {
        assert_eq!(
            spool.next_pulls(&camera.id, 1, &none(), NOW).unwrap().len(),
            1
        );
    }
    println!("next pull {:?}", (now() - began) / 1000);
    spool.commit(NOW).unwrap();
    drop(spool);
    let began = now();
    let (spool, report) = world.try_open().unwrap();
    println!("open {:?}: {report}", (now() - began));
    drop(spool);
    let began = now();
    let (spool, report) = world.recover();
    println!("recover {:?}: {report}", (now() - began));
    println!("overhead {} bytes", spool.space().overhead_bytes);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!(
        "{}",
        status.lines().find(|l| l.starts_with("VmHWM")).unwrap()
    );
}

#[test]
#[ignore = "writes 640 MiB; run by name with --nocapture"]
fn forty_cameras() {
    let mut world = World::new();
    world.capacity = 1 << 40;
    let mut spool = world.open();
    let cameras: Vec<Camera> = (0..40).map(|n| world.camera(&format!("C{n}"), 1)).collect();
    let footage: Vec<Footage> = cameras
        .iter()
        .map(|c| c.footage(0, &[4 << 20; 4]))
        .collect();
    for (camera, footage) in cameras.iter().zip(&footage) {
        spool.admit(&camera.whole_manifest(footage), NOW).unwrap();
    }
    println!("before: {}", peak());
    let began = now();
    for seq in 0..5 {
        let digests: Vec<_> = footage.iter().map(|f| f.digests()[seq]).collect();
        let mut incoming: Vec<_> = digests.iter().map(|d| spool.begin(d).unwrap()).collect();
        let bytes: Vec<&[u8]> = footage
            .iter()
            .zip(&digests)
            .map(|(f, d)| f.bytes_of(d).unwrap())
            .collect();
        for at in (0..4 << 20).step_by(64 << 10) {
            for (incoming, bytes) in incoming.iter_mut().zip(&bytes) {
                if at < bytes.len() {
                    incoming
                        .write(&bytes[at..bytes.len().min(at + (64 << 10))])
                        .unwrap();
                }
            }
        }
        for i in incoming {
            spool.finish(i, NOW).unwrap();
            if spool.commit_is_due() {
                spool.commit(NOW).unwrap();
            }
        }
        spool.commit(NOW).unwrap();
    }
    println!("wrote 640 MiB in {:?}; after: {}", (now() - began), peak());
    println!("overhead {} bytes", spool.space().overhead_bytes);
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status
        .lines()
        .filter(|l| l.starts_with("VmHWM") || l.starts_with("VmRSS"))
        .collect()
}
