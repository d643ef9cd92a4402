//! Numbers and names: a recording's number is used once, and every whole segment comes to be named, whatever dies or fails
//! between the steps. Each test makes the state that one such moment leaves.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use common::{
    FOOTAGE, Opened, Repeater, Served, Trial, footage, open_store, pipe_in, receipt_by, text,
};
use link::tasks::current_thread;
use protocol::manifest::{EndReason, Manifest};

/// Has a recording erased and released on a receipt for all of it.
fn release(trial: &Trial, served: &Served, opened: &Opened) {
    let manifests: Vec<_> = opened.manifests.iter().map(Manifest::digest).collect();
    let whole = receipt_by(
        &trial.receipt_key("nfs1"),
        "nfs1",
        &opened.id,
        opened.header,
        &opened.digests,
        &manifests,
    );
    current_thread(async {
        let mut repeater = Repeater::connect(trial, served, true, None).await;
        repeater.release(vec![whole]).await;
    })
    .unwrap();
    let folder = format!("{:08}", opened.id.number);
    assert!(!trial.recordings().join(folder).exists());
}

fn camera_paper(trial: &Trial) -> PathBuf {
    trial.store().join("camera.cbor")
}

fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("not: {what}");
}

/// A sealer that has sealed one segment of recording 0, signed nothing, and waits for more.
fn one_segment(trial: &Trial) -> Child {
    let child = pipe_in(trial.bodycam_stdin(), &footage(FOOTAGE + 1));
    let segment = trial.recordings().join("00000000/00000000.seg");
    until("a segment", || segment.exists());
    child
}

#[test]
fn a_number_whose_recording_was_erased_before_it_was_noted_is_not_used_again() {
    let trial = Trial::new();
    trial.seal(&[], &[&trial.footage("first", 3)]);
    let noted = std::fs::read(camera_paper(&trial)).unwrap();
    trial.seal(&[], &[&trial.footage("second", 5)]);
    let served = Served::start(&trial, &["--erase", "now"]);
    release(&trial, &served, &open_store(&trial)[&1]);
    // The sealer of recording 1 was killed after its last manifest and before the number was noted.
    std::fs::write(camera_paper(&trial), noted).unwrap();
    let said = trial.seal(&[], &[&trial.footage("third", 7)]);
    assert!(said.contains("/2 segments 1"), "{said}");
    drop(served);
    drop(Served::start(&trial, &["--erase", "now"]));
    let store = open_store(&trial);
    assert_eq!(store.keys().copied().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(store[&2].footage, footage(7));
}

#[test]
fn the_record_of_one_recording_erases_nothing_of_another_with_its_number() {
    let trial = Trial::new();
    drop(Served::start(&trial, &[]));
    let empty = std::fs::read(camera_paper(&trial)).unwrap();
    trial.seal(&[], &[&trial.footage("first", 5)]);
    let served = Served::start(&trial, &["--erase", "now"]);
    release(&trial, &served, &open_store(&trial)[&0]);
    drop(served);
    let (record, aside) = (trial.store().join("erased.log"), trial.path("aside"));
    std::fs::rename(&record, &aside).unwrap();
    std::fs::write(camera_paper(&trial), empty).unwrap();
    trial.seal(&[], &[&trial.footage("second", 7)]);
    std::fs::rename(&aside, &record).unwrap();
    trial.status();
    drop(Served::start(&trial, &["--erase", "now"]));
    assert_eq!(open_store(&trial)[&0].footage, footage(7));
}

#[test]
fn after_a_manifest_that_cannot_be_written_the_next_start_names_everything() {
    let trial = Trial::new();
    let mut child = one_segment(&trial);
    // A folder of its name is in the manifest's way.
    let path = trial.recordings().join("00000000/manifest-00000000.cose");
    std::fs::create_dir(&path).unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = footage(10 * FOOTAGE);
    let _ = input.write_all(&bytes[..9 * FOOTAGE]); // it may end before it has read all
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{}", text(&output));
    let after = trial.recordings().join("00000000/manifest-00000001.cose");
    assert!(!after.exists(), "it would follow one that never was");
    let sealed = trial.segment_files().len();
    std::fs::remove_dir(&path).unwrap();
    trial.seal(&[], &[&trial.footage("next", 7)]);
    let store = open_store(&trial);
    let end = store[&0].manifests.last().unwrap().body().end.unwrap();
    assert_eq!(end.reason, EndReason::Interrupted);
    assert_eq!(
        (end.segments, store[&0].segments),
        (sealed as u64, sealed as u64)
    );
    assert!(sealed >= 8, "{sealed}");
    assert_eq!(store[&1].footage, footage(7));
}

#[test]
fn a_server_closes_what_a_sealer_left_before_its_first_manifest() {
    let trial = Trial::new();
    let served = Served::start(&trial, &[]);
    let mut child = one_segment(&trial);
    child.kill().unwrap();
    child.wait().unwrap();
    until("it is closed", || open_store(&trial).contains_key(&0));
    current_thread(async {
        let mut repeater = Repeater::connect(&trial, &served, true, None).await;
        let inventory = repeater.inventory_until(|i| i.held().count() == 1).await;
        assert_eq!(inventory.next_recording(), 1);
    })
    .unwrap();
    assert_eq!(
        open_store(&trial)[&0].footage,
        footage(FOOTAGE + 1)[..FOOTAGE]
    );
}
