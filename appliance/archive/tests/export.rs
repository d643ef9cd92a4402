//! Nothing is written as if whole: what is missing or altered is named, and the output stays untouched.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};

use common::{Recording, Repeater, World, footage, sha};
use link::tasks::current_thread;
use protocol::manifest::{EndReason, Manifest};

const FSYNC: &str = "durability = \"fsync\"";

/// A world whose store holds one recording of 4 segments in 4 manifests.
fn stored(reason: EndReason) -> (World, Recording, Vec<u8>) {
    let world = World::new();
    let bytes = footage(350_000);
    let recipients = world.key_list().active_recipients();
    let recording = world.record_with(0, &bytes, 100_000, 1, reason, &recipients);
    let gateway = world.start(FSYNC);
    current_thread(async {
        Repeater::dial(&world, gateway.address)
            .await
            .deliver(&recording)
            .await;
    })
    .unwrap();
    (world, recording, bytes)
}

/// Export fails with `code`, says `what`, and leaves a former output as it was.
fn fails(world: &World, recording: &Recording, key: &str, code: i32, what: &[&str]) {
    let out = world.dir.path().join("out");
    std::fs::write(&out, "former").unwrap();
    let done = world.export(&recording.id, key, &out);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(code), "{said}");
    what.iter()
        .for_each(|what| assert!(said.contains(what), "{said}"));
    assert_eq!(std::fs::read(&out).unwrap(), b"former");
    let parts = std::fs::read_dir(world.dir.path()).unwrap().filter(|e| {
        e.as_ref()
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .starts_with(".tmp")
    });
    assert_eq!(parts.count(), 0, "no temporary file is left");
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn object(world: &World, recording: &Recording, part: &str) -> PathBuf {
    world.object(&recording.id, part)
}

#[test]
fn a_missing_or_altered_segment_is_named() {
    let (world, recording, _) = stored(EndReason::Stopped);
    let third = object(&world, &recording, "00000002-");
    edit(&third, |bytes| bytes[1000] ^= 1);
    fails(
        &world,
        &recording,
        "archive.key",
        65,
        &["segment 2", "is altered"],
    );
    edit(&object(&world, &recording, "00000001-"), |bytes| {
        bytes.truncate(10)
    });
    edit(&third, |bytes| bytes.resize(8 << 20, 0));
    fails(
        &world,
        &recording,
        "archive.key",
        65,
        &["segment 1", "it has 10 bytes", "segment 2", "8388608"],
    );
    std::fs::remove_file(third).unwrap();
    std::fs::remove_file(object(&world, &recording, "00000003-")).unwrap();
    fails(
        &world,
        &recording,
        "archive.key",
        65,
        &["not stored: segments 2 to 3"],
    );
}

#[test]
fn a_missing_or_altered_manifest_is_named() {
    let (world, recording, _) = stored(EndReason::Stopped);
    let second = object(&world, &recording, "manifest-0000000001-");
    let kept = std::fs::read(&second).unwrap();
    edit(&second, |bytes| *bytes.last_mut().unwrap() ^= 1);
    fails(
        &world,
        &recording,
        "archive.key",
        65,
        &[
            "manifest-0000000001-",
            "is altered: the signature does not verify",
        ],
    );
    std::fs::remove_file(&second).unwrap();
    fails(
        &world,
        &recording,
        "archive.key",
        65,
        &[
            "manifests 1 to 1 are missing",
            "no manifest names segment 1",
        ],
    );
    std::fs::write(&second, kept).unwrap();
    std::fs::remove_file(object(&world, &recording, "manifest-0000000003-")).unwrap();
    fails(
        &world,
        &recording,
        "archive.key",
        65,
        &["no final manifest is stored"],
    );
}

#[test]
fn a_missing_or_altered_header_is_named() {
    let (world, recording, _) = stored(EndReason::Stopped);
    let header = object(&world, &recording, "header-");
    edit(&header, |bytes| bytes[40] ^= 1);
    fails(
        &world,
        &recording,
        "archive.key",
        65,
        &["its header", "is altered"],
    );
    std::fs::remove_file(header).unwrap();
    fails(
        &world,
        &recording,
        "archive.key",
        65,
        &["its header", "is missing"],
    );
}

#[test]
fn a_manifest_that_the_camera_signed_but_that_does_not_follow_is_named() {
    let (world, mut recording, _) = stored(EndReason::Stopped);
    // The camera signs another manifest of index 1; somebody swaps it for the true one.
    let former = recording.manifests.remove(1);
    let mut body = former.body().clone();
    body.clock_unset = true;
    let other = Manifest::sign(body, &world.signer(common::SERIAL)).unwrap();
    let path = object(&world, &recording, "manifest-0000000001-");
    std::fs::write(
        path.with_file_name(format!("manifest-0000000001-{}.cose", other.digest())),
        other.bytes(),
    )
    .unwrap();
    fails(
        &world,
        &recording,
        "archive.key",
        65,
        &["two different manifests carry index 1"],
    );
    std::fs::remove_file(path).unwrap();
    fails(
        &world,
        &recording,
        "archive.key",
        65,
        &["manifest 2 does not follow the stored manifest before it"],
    );
}

#[test]
fn a_wrong_key_opens_nothing() {
    let (world, recording, _) = stored(EndReason::Stopped);
    let folder = world.agency().join("recipients");
    std::fs::copy(
        world.agency().join("archives/site-a/receipt.key"),
        folder.join("wrong.key"),
    )
    .unwrap();
    fails(
        &world,
        &recording,
        "wrong.key",
        77,
        &["is not among the header's recipients"],
    );
    fails(&world, &recording, "archive.pub", 66, &["archive.pub"]);
}

#[test]
fn an_interrupted_recording_is_written_with_a_warning() {
    let (world, recording, bytes) = stored(EndReason::Interrupted);
    let out = world.dir.path().join("out");
    let done = world.export(&recording.id, "archive.key", &out);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.success()
            && said.contains("warning: the recording was interrupted after 4 segments"),
        "{said}"
    );
    assert!(std::fs::read(&out).unwrap() == bytes);
}

#[test]
fn an_unknown_recording_and_an_unwritable_output_are_named() {
    let (world, recording, _) = stored(EndReason::Stopped);
    let mut unknown = recording.clone();
    unknown.id.number = 9;
    fails(
        &world,
        &unknown,
        "archive.key",
        66,
        &["holds nothing of recording", &unknown.id.full()],
    );
    let done = world.export(&recording.id, "archive.key", Path::new("/nonexistent/out"));
    assert_eq!(done.status.code(), Some(73));
    let done = world.archive(&[
        "export",
        "nonsense",
        "--store",
        &world.store,
        "--trust",
        "x",
        "--key",
        "y",
        "-o",
        "z",
    ]);
    assert_eq!(done.status.code(), Some(64));
    let _ = sha(b"");
}
