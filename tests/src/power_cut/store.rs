//! A life of the archive's folder store on the recorded disk, and what must be true of it after the power came back: parties
//! `store-driver PLAN STORE BEACON OFFSET SEED STEPS` and `store-check PLAN STORE UPTO`.
//!
//! Several puts go on at one time, of new objects and of ones that are there already, also from a life before that was
//! killed between link and directory sync. Beside them one object is replaced as a whole, again and again, as that is in
//! which heads of logbooks are kept. What is said to be durable may be signed for, so it is written down.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use archive::config::{Place, S3};
use archive::layout::{self, Item};
use archive::vault::{Copy, Read, Vault};
use bytes::Bytes;
use link::random::Random;
use link::tasks::current_thread;
use nix::sys::signal::{Signal, raise};
use protocol::ids::{Digest, RecordingId, RepeaterId};
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
            let version = diary.said();
            let replaced = replace(&vault, version);
            tokio::join!(put(&vault, a), put(&vault, b), put(&vault, c), replaced);
            let names = [a, b, c].map(|o| o.digest.to_string());
            diary.say(&json!({"stored": names, "replaced": version}));
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
    let lines = text.lines().take(upto);
    let lines: Vec<Value> = lines.map(|l| serde_json::from_str(l).unwrap()).collect();
    let names = lines.iter().filter_map(|line| line["stored"].as_array());
    let names = names.flatten().map(|n| n.as_str().unwrap().to_owned());
    let said: Vec<String> = names.collect();
    let replaced = lines.iter().filter_map(|l| l["replaced"].as_u64()).max();
    let objects = objects(&Plan::load(&folder));
    let look = async {
        let vault = open(Path::new(dir));
        let mut wrong = 0;
        if let Some(wrongly) = replaced_wrongly(&vault, replaced).await {
            println!("{wrongly}");
            wrong += 1;
        }
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

/// The repeater whose logbooks' object is replaced.
fn repeater() -> RepeaterId {
    RepeaterId {
        station: "station-7".parse().unwrap(),
        n: 1,
    }
}

/// A version of the object: its number, several pages long.
fn version(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(1500)
}

async fn replace(vault: &Vault, number: u64) {
    let path = layout::logbook(&repeater());
    let replaced = vault.replace(&path, version(number).into()).await;
    replaced.unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// What is wrong with the object, of which that version was said to be durable.
async fn replaced_wrongly(vault: &Vault, said: Option<u64>) -> Option<String> {
    let path = layout::logbook(&repeater());
    let read = vault.read(&path, 1 << 20).await.unwrap();
    let Read::Bytes(bytes) = read else {
        return said.map(|said| format!("{path}: version {said} was said to be durable: {read:?}"));
    };
    let number = bytes.first_chunk().map(|n| u64::from_be_bytes(*n));
    let whole = number.is_some_and(|n| bytes == version(n));
    let newest = said.is_none_or(|said| number >= Some(said));
    (!whole || !newest).then(|| {
        let length = bytes.len();
        format!("{path}: {length} bytes of version {number:?}, whole {whole}; {said:?} was said")
    })
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
