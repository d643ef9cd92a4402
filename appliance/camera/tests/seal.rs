//! Sealing, with the real program: what comes in is what an archive's key opens again, whatever happens on the way.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{FOOTAGE, Trial, assert_distinct, footage, open_store, pid, pipe_in, text};
use link::random::Random;
use nix::sys::signal::{Signal, kill};
use protocol::manifest::EndReason;

fn end_of(opened: &common::Opened) -> (u64, EndReason) {
    let end = opened.manifests.last().unwrap().body().end.unwrap();
    (end.segments, end.reason)
}

/// Segments in the store while a sealer is at work on it.
fn segments_there(trial: &Trial) -> usize {
    let folders = std::fs::read_dir(trial.recordings())
        .into_iter()
        .flatten()
        .flatten();
    let files = folders
        .filter_map(|f| std::fs::read_dir(f.path()).ok())
        .flatten()
        .flatten();
    files
        .filter(|f| f.path().extension().is_some_and(|e| e == "seg"))
        .count()
}

#[test]
fn every_size_opens_to_the_very_bytes() {
    let trial = Trial::new();
    let sizes = [0, 1, FOOTAGE - 1, FOOTAGE, FOOTAGE + 1, 10 * FOOTAGE];
    let inputs: Vec<_> = sizes
        .iter()
        .map(|s| trial.footage(&format!("clip{s}"), *s))
        .collect();
    let inputs: Vec<_> = inputs.iter().map(std::path::PathBuf::as_path).collect();
    let said = trial.seal(
        &[
            "--class",
            "urgent",
            "--officer",
            "Officer Kim Ji-hoon",
            "--case",
            "7",
        ],
        &inputs,
    );
    let store = open_store(&trial);
    assert_eq!(store.len(), sizes.len());
    for ((number, opened), size) in store.iter().zip(sizes) {
        assert_eq!(opened.footage, footage(size), "recording {number}");
        let segments = size.div_ceil(FOOTAGE).max(1) as u64;
        assert_eq!(end_of(opened), (segments, EndReason::Stopped));
        let line = format!(
            "sealed {} segments {segments} bytes {size}\n",
            opened.id.full()
        );
        assert!(said.contains(&line), "{said}");
        let body = opened.manifests[0].body();
        assert_eq!(
            (body.class, body.policy.k, body.policy.sites.len()),
            (protocol::manifest::Class::Urgent, 1, 2)
        );
        assert!(!body.clock_unset);
    }
    assert_eq!(
        store[&5].manifests.len(),
        2,
        "a manifest after eight segments, while footage still comes"
    );
    assert_distinct(store.values().map(|o| *o.key), "a content key");
    for file in trial.segment_files() {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(11).any(|w| w == b"Kim Ji-hoon"));
    }
}

#[test]
fn a_growing_file_and_a_pipe_end_at_their_sign() {
    let trial = Trial::new();
    let path = trial.footage("clip", FOOTAGE + 5);
    let mut child = trial
        .bodycam("seal")
        .arg("--follow")
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it waits for more");
    std::fs::write(trial.path("clip.done"), "").unwrap();
    assert!(child.wait().unwrap().success());

    let mut child = pipe_in(trial.bodycam_stdin(), &footage(FOOTAGE + 9));
    std::thread::sleep(Duration::from_millis(500));
    kill(pid(&child), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    let store = open_store(&trial);
    assert_eq!(
        (store[&0].footage.clone(), end_of(&store[&0])),
        (footage(FOOTAGE + 5), (2, EndReason::Stopped))
    );
    assert_eq!(
        (store[&1].footage.clone(), end_of(&store[&1])),
        (footage(FOOTAGE + 9), (2, EndReason::Stopped))
    );
}

#[test]
fn killed_at_random_nothing_named_is_missing_and_no_key_and_iv_repeat() {
    let trial = Trial::new();
    let (random, bytes) = (Random::seeded(11), footage(12 * FOOTAGE));
    let input = trial.footage("clip", bytes.len());
    for _ in 0..12 {
        // Killed by how far it is, so that a slow machine is hit at the same places as a fast one.
        let enough = segments_there(&trial) + usize::try_from(random.u64() % 12).unwrap();
        let mut child = trial
            .bodycam("seal")
            .arg(&input)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while segments_there(&trial) < enough && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(500));
        }
        std::thread::sleep(Duration::from_micros(random.u64() % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        // What is named now is there now, before anything is mended.
        for opened in open_store(&trial).values() {
            assert_eq!(opened.footage, bytes[..opened.footage.len()]);
        }
    }
    let before = open_store(&trial);
    trial.seal(&[], &[&input]);
    let store = open_store(&trial);
    let numbers: Vec<u64> = store.keys().copied().collect();
    assert_eq!(
        numbers,
        (0..store.len() as u64).collect::<Vec<_>>(),
        "numbers without gaps"
    );
    let (last, interrupted) = store
        .values()
        .next_back()
        .map(|l| (l, store.len() - 1))
        .unwrap();
    assert_eq!(last.footage, bytes);
    assert!(
        interrupted >= 3,
        "the kills must hit recordings: {interrupted}"
    );
    assert!(
        store
            .values()
            .any(|o| end_of(o).1 == EndReason::Interrupted)
    );
    for (number, opened) in &store {
        assert_eq!(end_of(opened).0, opened.segments);
        assert_eq!(opened.footage, bytes[..opened.footage.len()]);
        let kept = before.get(number).map_or(0, |b| b.segments);
        assert!(opened.segments >= kept, "what was named stays named");
    }
    // A key belongs to one recording, and a recording seals each number once: (key, IV) pairs are distinct.
    assert_distinct(store.values().map(|o| *o.key), "a content key");
    assert_distinct(store.values().flat_map(|o| o.digests.clone()), "a segment");
}

#[test]
fn full_storage_refuses_to_record_loudly_and_overwrites_nothing() {
    let trial = Trial::new();
    let first = trial.footage("first", 2 * FOOTAGE);
    trial.seal(&[], &[&first]);
    let before = trial.segment_files();
    let quota = (5 * FOOTAGE).to_string();
    let second = trial.footage("second", 4 * FOOTAGE);
    let refused = trial
        .bodycam("seal")
        .args(["--quota-bytes", &quota])
        .arg(&second)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(73), "{}", text(&refused));
    assert!(
        text(&refused).contains("STORAGE FULL"),
        "{}",
        text(&refused)
    );
    let store = open_store(&trial);
    assert_eq!(store[&0].footage, footage(2 * FOOTAGE));
    assert_eq!(end_of(&store[&1]), (2, EndReason::Interrupted));
    assert_eq!(store[&1].footage, footage(4 * FOOTAGE)[..2 * FOOTAGE]);
    assert!(before.iter().all(|f| f.exists()));
    let refused = trial
        .bodycam("seal")
        .args(["--quota-bytes", &quota])
        .arg(&second)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(73));
    assert_eq!(
        open_store(&trial).len(),
        2,
        "what cannot begin takes no number"
    );
}

#[test]
fn an_unset_clock_is_said_and_one_sealer_works_at_a_time() {
    let trial = Trial::new();
    let clip = trial.footage("clip", 10);
    trial.seal(&["--clock-offset-ms", "-1700000000000"], &[&clip]);
    assert!(open_store(&trial)[&0].manifests[0].body().clock_unset);
    let mut first = pipe_in(trial.bodycam_stdin(), b"x");
    std::thread::sleep(Duration::from_millis(300));
    let second = trial.bodycam("seal").arg(&clip).output().unwrap();
    assert_eq!(second.status.code(), Some(69), "{}", text(&second));
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
}

#[test]
fn wrong_papers_and_arguments_are_refused_with_their_code() {
    let trial = Trial::new();
    let clip = trial.footage("clip", 10);
    let code = |args: &[&str]| {
        trial
            .bodycam("seal")
            .args(args)
            .arg(&clip)
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(code(&["--k", "3"]), Some(78));
    assert_eq!(code(&["--class", "secret"]), Some(64));
    let missing = trial
        .bodycam("seal")
        .arg(trial.path("nothing"))
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(66));
    trial.seal(&[], &[&clip]);
    let mut other = std::process::Command::new(env!("CARGO_BIN_EXE_bodycam"));
    other
        .arg("seal")
        .arg("--store")
        .arg(trial.store())
        .arg("--agency")
        .arg(trial.agency.path("."));
    let other = other
        .arg("--credentials")
        .arg(trial.agency.path("cameras/BWC-0002"))
        .arg(&clip)
        .output()
        .unwrap();
    assert_eq!(
        other.status.code(),
        Some(78),
        "another camera's store: {}",
        text(&other)
    );
    std::fs::remove_file(trial.store().join("camera.cbor")).unwrap();
    let gone = trial.bodycam("seal").arg(&clip).output().unwrap();
    assert_eq!(
        gone.status.code(),
        Some(65),
        "no new incarnation over footage: {}",
        text(&gone)
    );
}
