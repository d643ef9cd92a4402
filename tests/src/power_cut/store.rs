//! A life of the archive's folder store on the recorded disk, and what must be true of it after the power came back: parties
//! `store-driver PLAN STORE BEACON OFFSET SEED STEPS` and `store-check PLAN STORE UPTO`.
//!
//! Several puts go on at one time, of new objects and of ones that are there already, also from a life before that was
//! killed between link and directory sync. What a put says to be durable may be signed for, so it is written down.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use archive::config::{Place, S3};
use archive::layout::{self, Item};
use archive::vault::{Copy, Vault};
use bytes::Bytes;
use link::random::Random;
use link::tasks::current_thread;
use nix::sys::signal::{Signal, raise};
use protocol::ids::{Digest, RecordingId};
use serde_json::{Value, json};

use super::driver::{Diary, kill_some_time};
use super::plan::Plan;
use crate::chance::below;

/// What a gateway puts.
struct Object {
    recording: RecordingId,
    item: Item,
    digest: Digest,
    bytes: Bytes,
}

/// Runs the driver.
///
/// # Panics
/// Where the store does what it must not on a whole disk.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    let [plan, dir, beacon, offset, seed, steps] = args else {
        eprintln!("store-driver PLAN STORE BEACON OFFSET SEED STEPS");
        return ExitCode::from(64);
    };
    let folder = PathBuf::from(plan);
    let objects = objects(&Plan::load(&folder));
    let mut diary = Diary::open(&folder, beacon, offset);
    let random = Random::seeded(seed.parse().unwrap());
    let steps: u32 = steps.parse().unwrap();
    kill_some_time(&random);
    let some = || &objects[below(&random, objects.len())];
    let life = async {
        let vault = open(Path::new(dir));
        for _ in 0..steps {
            let (a, b, c) = (some(), some(), some());
            tokio::join!(put(&vault, a), put(&vault, b), put(&vault, c));
            let names = [a, b, c].map(|o| o.digest.to_string());
            diary.say(&json!({"stored": names}));
        }
    };
    current_thread(life).unwrap();
    raise(Signal::SIGKILL).unwrap();
    ExitCode::FAILURE
}

/// Runs the check: what was said to be durable is there and good; what is not there can be put again.
///
/// # Panics
/// Where the plan is not there.
#[must_use]
pub fn check(args: &[String]) -> ExitCode {
    let [plan, dir, upto] = args else {
        eprintln!("store-check PLAN STORE UPTO");
        return ExitCode::from(64);
    };
    let folder = PathBuf::from(plan);
    let upto: usize = upto.parse().unwrap();
    let text = std::fs::read_to_string(folder.join("said")).unwrap_or_default();
    let said: Vec<String> = text
        .lines()
        .take(upto)
        .flat_map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let names = line["stored"].as_array().cloned().unwrap_or_default();
            names.into_iter().map(|n| n.as_str().unwrap().to_owned())
        })
        .collect();
    let objects = objects(&Plan::load(&folder));
    let look = async {
        let vault = open(Path::new(dir));
        let mut wrong = 0;
        for object in &objects {
            let path = layout::key(&object.recording, object.item);
            let length = object.bytes.len() as u64;
            let copy = vault.check(&path, length, object.digest).await;
            let is_said = said.contains(&object.digest.to_string());
            if is_said && !matches!(copy, Ok(Copy::Good)) {
                println!("{path} was said to be durable, and is {copy:?}");
                wrong += 1;
            }
            put(&vault, object).await;
        }
        wrong
    };
    match current_thread(look).unwrap() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn open(dir: &Path) -> Vault {
    let place = Place::Folder(dir.to_owned());
    archive::store::open(&place, &S3::default(), true).unwrap()
}

async fn put(vault: &Vault, object: &Object) {
    let path = layout::key(&object.recording, object.item);
    let put = vault.put(&path, object.bytes.clone(), object.digest).await;
    put.unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn objects(plan: &Plan) -> Vec<Object> {
    let mut objects = Vec::new();
    for recording in &plan.recordings {
        let mut add = |item, digest: Digest, bytes: &Bytes| {
            objects.push(Object {
                recording: recording.manifest.recording().clone(),
                item,
                digest,
                bytes: bytes.clone(),
            });
        };
        let digest = recording.manifest.digest();
        add(
            Item::Manifest { index: 0, digest },
            digest,
            recording.manifest.bytes(),
        );
        let digest = recording.header();
        add(Item::Header { digest }, digest, &recording.parts[&digest]);
        for s in &recording.manifest.body().segments {
            let (seq, digest) = (s.seq, s.digest);
            add(
                Item::Segment { seq, digest },
                digest,
                &recording.parts[&digest],
            );
        }
    }
    objects
}
