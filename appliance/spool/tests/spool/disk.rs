//! A disk that another program fills. These need a small file system of their own, so the suite runs itself again in a
//! mount namespace (`unshare`), where it mounts 24 MiB of memory as its folder for temporary files; the mount goes
//! with that process. Neither root nor a kernel that gives namespaces to users: skipped, which is said on stderr,
//! and a failure where `CI` is set.

use std::fs;
use std::io::Write;
use std::process::Command;

use protocol::custody::Stage;
use protocol::pressure::Gate;
use spool::{Reaction, Spool};

use crate::world::*;

const SMALL: &str = "mount -t tmpfs -o size=24m none \"$0\" && echo mounted && exec \"$@\"";

#[test]
fn on_a_small_disk() {
    let dir = tempfile::tempdir().unwrap();
    let root = nix::unistd::Uid::effective().is_root();
    let user: &[&str] = if root {
        &[]
    } else {
        &["--user", "--map-root-user"]
    };
    let ran = Command::new("unshare")
        .args(user)
        .args(["--mount", "sh", "-c", SMALL])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--nocapture",
            "--test-threads=1",
            "disk::small",
        ])
        .env("TMPDIR", dir.path())
        .output();
    let (said, why) = match &ran {
        Ok(ran) => (
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr),
        ),
        Err(e) => ("".into(), format!("unshare: {e}").into()),
    };
    if !said.starts_with("mounted") {
        let how = format!("SKIPPED: no small file system for the tests of a full disk: {why}");
        assert!(std::env::var("CI").is_err(), "{how}");
        // Past the harness, which keeps the output of what passes to itself.
        let _ = writeln!(std::io::stderr().lock(), "{how}");
        return;
    }
    assert!(ran.as_ref().unwrap().status.success(), "{said}\n{why}");
    assert!(said.contains("3 passed"), "{said}");
}

/// What [`on_a_small_disk`] runs.
mod small {
    use super::*;

    /// Another program takes every byte that is free: also what the file system has left of what it had put by for itself.
    fn fill(world: &World) -> std::path::PathBuf {
        let path = world.dir.path().join("other");
        for n in 0.. {
            let part = path.with_extension(n.to_string());
            let Ok(mut other) = fs::File::options().create_new(true).write(true).open(&part) else {
                if part.exists() {
                    continue; // from before
                }
                break;
            };
            while other.write_all(&[7; 512]).is_ok() {}
            let _ = other.sync_all(); // on a full disk
            if other.metadata().unwrap().len() == 0 {
                break;
            }
        }
        let stat = nix::sys::statvfs::statvfs(world.dir.path()).unwrap();
        assert_eq!(stat.blocks_available(), 0);
        path
    }
    /// It gives all of that back.
    fn give_back(other: &std::path::Path) {
        let dir = fs::read_dir(other.parent().unwrap()).unwrap();
        for file in dir.map(|f| f.unwrap().path()) {
            if file.file_stem() == other.file_stem() {
                fs::remove_file(file).unwrap();
            }
        }
    }
    fn is_whole(spool: &Spool, footage: &Footage) {
        for digest in footage.digests() {
            let copy = spool.read_copy(&digest).unwrap();
            assert_eq!(copy, footage.bytes_of(&digest).unwrap());
        }
    }

    #[test]
    #[ignore = "needs a small file system: `on_a_small_disk` runs it"]
    fn receipts_and_reclaim_go_on_with_no_byte_free() {
        let world = World::new();
        let (mut spool, camera) = (world.open(), world.camera("C1", 1));
        let footage: Vec<Footage> = (0..20).map(|n| camera.footage(n, &[100_000])).collect();
        footage.iter().for_each(|f| keep(&mut spool, &camera, f));
        fill(&world);
        for f in &footage {
            spool
                .receipt(&world.full_receipt("daejeon", f), NOW)
                .unwrap();
            let more = camera.whole_manifest(&camera.footage(100 + f.number, &[100_000]));
            let _ = spool.admit(&more, NOW);
            for task in spool.next_pulls(&camera.id, 1, &none(), NOW).unwrap() {
                let refused = spool.begin(&task.digest).unwrap_err();
                assert_eq!(refused.reaction(), Reaction::NoSpace);
            }
            spool.commit(NOW).unwrap();
            assert_eq!(stages(&spool, f), all(Stage::Archived, f));
        }
        let done = spool.reclaim(NOW).unwrap();
        assert!(done.segments > 0, "{done:?}");
        drop(spool);
        let spool = world.open();
        footage
            .iter()
            .for_each(|f| assert_eq!(stages(&spool, f), all(Stage::Archived, f)));
    }

    #[test]
    #[ignore = "needs a small file system: `on_a_small_disk` runs it"]
    fn pulling_stops_while_another_program_has_the_disk_and_loses_nothing() {
        let world = World::new();
        let (mut spool, camera) = (world.open(), world.camera("C1", 1));
        let (kept, more) = (camera.footage(0, &[100_000]), camera.footage(1, &[100_000]));
        keep(&mut spool, &camera, &kept);
        spool.admit(&camera.whole_manifest(&more), NOW).unwrap();
        // Its room is reserved: that pull is not disturbed.
        let mut incoming = spool.begin(&more.header_digest()).unwrap();
        let other = fill(&world);
        incoming.write(&more.header).unwrap();
        spool.finish(incoming, NOW).unwrap();
        let refused = spool.begin(&more.digest(0)).unwrap_err();
        assert_eq!(refused.reaction(), Reaction::NoSpace);
        spool.commit(NOW).unwrap();
        spool.reclaim(NOW).unwrap();
        assert_eq!(spool.gate(), Gate::Closed);
        assert!(alarm_codes(&spool).contains("disk_full"));
        // A start on a full disk loses nothing either.
        drop(spool);
        let mut spool = world.open();
        is_whole(&spool, &kept);
        assert_eq!(stages(&spool, &kept), all(Stage::Held, &kept));
        assert_eq!(
            spool.stage(&more.header_digest()).unwrap(),
            Some(Stage::Held)
        );
        assert!(spool.begin(&more.digest(0)).is_err());
        give_back(&other);
        spool.reclaim(NOW).unwrap();
        assert_eq!(spool.gate(), Gate::Open);
        pull_all(&mut spool, &more);
        spool.commit(NOW).unwrap();
        is_whole(&spool, &more);
        assert_eq!(stages(&spool, &more), all(Stage::Held, &more));
        assert!(spool.alarms().is_empty(), "{:?}", spool.alarms());
    }
    #[test]
    #[ignore = "needs a small file system: `on_a_small_disk` runs it"]
    fn where_another_program_takes_the_ballast_too_receipts_wait_and_nothing_is_lost() {
        let world = World::new();
        let (mut spool, camera) = (world.open(), world.camera("C1", 1));
        let footage: Vec<Footage> = (0..20).map(|n| camera.footage(n, &[100_000])).collect();
        footage.iter().for_each(|f| keep(&mut spool, &camera, f));
        fs::remove_file(world.path("ballast")).unwrap();
        let other = fill(&world);
        let mut told = Vec::new();
        for f in &footage {
            let receipt = world.full_receipt("daejeon", f);
            if spool.receipt(&receipt, NOW).is_err() || spool.commit(NOW).is_err() {
                break; // the program ends, and is started again until there is room
            }
            told.push(f);
        }
        drop(spool);
        let opened = world.try_open().map(drop);
        give_back(&other);
        let (mut spool, report) = world.try_open().unwrap();
        assert!(
            report.lost.is_empty() && report.missing == 0,
            "{opened:?}: {report}"
        );
        footage.iter().for_each(|f| is_whole(&spool, f));
        for f in told {
            assert_eq!(stages(&spool, f), all(Stage::Archived, f));
        }
        for f in &footage {
            spool
                .receipt(&world.full_receipt("daejeon", f), NOW)
                .unwrap();
        }
        spool.commit(NOW).unwrap();
        for f in &footage {
            assert_eq!(stages(&spool, f), all(Stage::Archived, f));
        }
    }
}
