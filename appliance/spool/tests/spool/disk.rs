//! A disk that another program fills. Ignored by default: it needs a small file system of its own, named by the
//! usual variable for temporary files, such as
//! `mount -t tmpfs -o size=24m none /mnt/small && TMPDIR=/mnt/small cargo test --release -p spool -- --ignored full`.

use std::io::Write;

use protocol::custody::Stage;

use crate::world::*;

#[test]
#[ignore = "needs a small file system of its own"]
fn a_full_disk_loses_nothing() {
    let world = World::new();
    let (mut spool, camera) = (world.open(), world.camera("C1", 1));
    let footage: Vec<Footage> = (0..20).map(|n| camera.footage(n, &[100_000])).collect();
    footage.iter().for_each(|f| keep(&mut spool, &camera, f));
    let mut other = std::fs::File::create(world.dir.path().join("other")).unwrap();
    while other.write_all(&[7; 4096]).is_ok() {}
    for f in &footage {
        spool
            .receipt(&world.full_receipt("daejeon", f), NOW)
            .unwrap();
        let _ = spool.admit(
            &camera.whole_manifest(&camera.footage(100 + f.number, &[100_000])),
            NOW,
        );
        for task in spool.next_pulls(&camera.id, 1, &none(), NOW).unwrap() {
            assert_eq!(
                spool.begin(&task.digest).unwrap_err().reaction(),
                spool::Reaction::NoSpace
            );
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
