//! What must be true of a spool after the power came back: party `spool-check PLAN SPOOL UPTO [FAULT]...`: the program
//! that starts again is the one that ran before, with its faults.
//!
//! `UPTO` is how much the driver had said when the power went. It prints a line for each thing that is not as it must be,
//! and nothing where all is well:
//! - the spool opens without help, and says that it lost nothing; its ledger need not be rebuilt, and has all that was said;
//! - what was said to be Held is there, whole, and matches its digest; whatever is Held matches, said or not; every recording
//!   has its manifest;
//! - nothing is Archived or Released without receipts from as many sites as its manifest asks, in the logbook;
//! - the logbook's chain holds, and goes through every head that was said;
//! - what sites countersigned of it before a commit is kept;
//! - no file of what was said to be Held is dropped as a stranger's;
//! - every pull goes on to its end, and no good camera is blamed; then all of it is Held and whole, but for what was
//!   released, erased by its camera, and forgotten when room was made.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use protocol::custody::Stage;
use protocol::ids::{Digest, SiteId};
use protocol::receipt::Receipt;
use serde_json::Value;
use spool::{Entry, Faults, Finished, Spool, SpoolError};

use super::driver::{named, options};
use super::plan::{NOW, Plan, Recording, SITES};

/// What the world was told.
#[derive(Debug, Default)]
struct Said {
    stages: BTreeMap<Digest, Stage>,
    /// Its camera said so, or was about to.
    erased: BTreeSet<Digest>,
    heads: HashMap<u64, String>,
    /// Entries that each site had countersigned.
    countersigned: BTreeMap<String, u64>,
}

impl Said {
    fn read(path: &Path, upto: usize) -> Said {
        let mut said = Said::default();
        let text = fs::read_to_string(path).unwrap_or_default();
        for line in text.lines().take(upto) {
            said.take(&serde_json::from_str(line).unwrap());
        }
        said
    }

    /// One thing that the world was told.
    fn take(&mut self, line: &Value) {
        for (key, stage) in [
            ("held", Stage::Held),
            ("archived", Stage::Archived),
            ("released", Stage::Released),
        ] {
            for name in line[key].as_array().into_iter().flatten() {
                let digest = Digest::from_hex(name.as_str().unwrap()).unwrap();
                self.stages.insert(digest, stage);
            }
        }
        for name in line["erased"].as_array().into_iter().flatten() {
            let digest = Digest::from_hex(name.as_str().unwrap()).unwrap();
            self.stages.remove(&digest);
            self.erased.insert(digest);
        }
        // What its camera has erased may be forgotten once it is Released, whichever of the two was said first: nothing is
        // promised of it. What comes again after that is Held anew.
        let erased = &self.erased;
        self.stages
            .retain(|digest, stage| *stage != Stage::Released || !erased.contains(digest));
        for (site, entries) in line["countersigned"].as_object().into_iter().flatten() {
            self.countersigned
                .insert(site.clone(), entries.as_u64().unwrap());
        }
        if let (Some(entries), Some(hash)) = (line["entries"].as_u64(), line["hash"].as_str()) {
            self.heads.insert(entries, hash.to_owned());
        }
    }
}

struct Check {
    plan: Plan,
    said: Said,
    spool: Spool,
    wrong: Vec<String>,
}

/// Runs it.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    let [folder, dir, upto, faults @ ..] = args else {
        eprintln!("spool-check PLAN SPOOL UPTO [FAULT]...");
        return ExitCode::from(64);
    };
    let (folder, dir) = (PathBuf::from(folder), PathBuf::from(dir));
    let wrong = check(&folder, &dir, upto.parse().unwrap(), named(faults));
    wrong.iter().for_each(|line| println!("{line}"));
    if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn check(folder: &Path, dir: &Path, upto: usize, faults: Faults) -> Vec<String> {
    let plan = Plan::load(folder);
    let said = Said::read(&folder.join("said"), upto);
    let before = files(dir);
    let mut options = options(folder, dir, faults);
    options.suspect_dir = dir.join("run"); // the mark of a failed sync does not outlive the power
    let opened = Spool::open(options, plan.trust.clone(), plan.keys.clone(), NOW);
    let (spool, report) = match opened {
        Ok(opened) => opened,
        Err(error) => return vec![format!("it does not start: {error}")],
    };
    let mut wrong: Vec<String> = report
        .lost
        .iter()
        .map(|l| format!("it says that it lost: {l}"))
        .collect();
    let after = files(dir);
    for (digest, length) in before {
        // Of two sites' receipts one may let it go early; then its room may have been reserved anew.
        let whole = plan.recording_of(&digest).is_some_and(|r| {
            r.manifest.body().policy.k == 1 && r.parts[&digest].len() as u64 == length
        });
        if whole && said.stages.contains_key(&digest) && !after.contains_key(&digest) {
            wrong.push(format!(
                "{digest} was said to be Held; its file was dropped as a stranger's"
            ));
        }
    }
    let mut check = Check {
        plan,
        said,
        spool,
        wrong,
    };
    if let Some(why) = report.rebuilt.filter(|_| !check.said.heads.is_empty()) {
        check
            .wrong
            .push(format!("the ledger had to be rebuilt: {why}"));
    }
    check.ledger(report.entries_replayed);
    check.countersigned();
    let receipts = check.logbook();
    check.stages(&receipts);
    if let Err(error) = check.go_on() {
        check.wrong.push(format!("it does not go on: {error}"));
    }
    check.wrong
}

fn files(dir: &Path) -> BTreeMap<Digest, u64> {
    let Ok(entries) = fs::read_dir(dir.join("segments")) else {
        return BTreeMap::new();
    };
    entries
        .map(|e| e.unwrap())
        .filter_map(|e| {
            let digest = Digest::from_hex(e.file_name().to_str()?)?;
            Some((digest, e.metadata().ok()?.len()))
        })
        .collect()
}

type Receipts = BTreeMap<Digest, BTreeSet<SiteId>>;

impl Check {
    /// Entries that had to be replayed were never said.
    fn ledger(&mut self, replayed: u64) {
        let rows = self.spool.logbook_head().entries.saturating_sub(replayed);
        let said = self.said.heads.keys().max().copied().unwrap_or(0);
        if rows < said {
            self.wrong.push(format!(
                "the ledger's rows end at entry {rows} of the logbook; {said} was said"
            ));
        }
    }

    /// What a site countersigned is kept, or what it countersigned later.
    fn countersigned(&mut self) {
        let kept = self.spool.countersignatures();
        for (site, said) in &self.said.countersigned {
            let mut own = kept.iter().filter(|c| c.body().site.as_str() == site);
            if !own.any(|c| c.body().head.entries >= *said) {
                let what =
                    format!("site {site} had countersigned {said} entries, and that is gone");
                self.wrong.push(what);
            }
        }
    }

    /// Reads the logbook: which sites have receipted what.
    fn logbook(&mut self) -> Receipts {
        let mut receipts = Receipts::new();
        let mut heads = HashMap::new();
        let walked = self.spool.history(|head, entry| {
            heads.insert(head.entries, head.hash.to_string());
            let Entry::Receipt(bytes) = entry else { return };
            let Ok(receipt) = Receipt::verify(bytes.into(), &self.plan.keys) else {
                return;
            };
            let body = receipt.body();
            for digest in body.segments.iter().chain([&body.header]) {
                receipts
                    .entry(*digest)
                    .or_default()
                    .insert(body.site.clone());
            }
        });
        if let Err(error) = walked {
            self.wrong.push(error.to_string());
        }
        let gone = |(n, hash): (&u64, &String)| *n > 0 && heads.get(n) != Some(hash);
        let lost = self.said.heads.iter().filter(|(n, h)| gone((n, h))).count();
        if lost > 0 {
            self.wrong.push(format!(
                "{lost} heads of the logbook that were said are not in it"
            ));
        }
        receipts
    }

    fn stages(&mut self, receipts: &Receipts) {
        let none = BTreeSet::new();
        let mut wrong = Vec::new();
        for recording in &self.plan.recordings {
            let k = usize::from(recording.manifest.body().policy.k);
            let known = self.spool.stage(&recording.header()).unwrap_or(None);
            let manifest = recording.manifest.digest();
            if known.is_some() && !matches!(self.spool.offer(&manifest), Ok(Some(_))) {
                wrong.push(format!("manifest {manifest} has rows and cannot be read"));
            }
            for (digest, bytes) in &recording.parts {
                let said = self.said.stages.get(digest).copied();
                let stage = self.spool.stage(digest).unwrap_or(None);
                let sites = receipts.get(digest).unwrap_or(&none).len();
                let early = k == 2 && sites == 1;
                let copy = || self.spool.read_copy(digest).ok();
                match stage {
                    None | Some(Stage::Announced) if said.is_some() && !early => {
                        wrong.push(format!(
                            "{digest} was said to be {said:?} and is {stage:?}, on {sites} receipts of {k}; its header is {:?}",
                            self.spool.stage(&recording.header())
                        ));
                    }
                    None | Some(Stage::Announced) => {}
                    Some(Stage::Refused) => wrong.push(format!("{digest} is Refused")),
                    Some(Stage::Held) if copy().as_deref() != Some(bytes) => {
                        wrong.push(format!("{digest} is Held, and its bytes are not here"));
                    }
                    Some(Stage::Held) if said.is_some_and(|s| s > Stage::Held) => {
                        wrong.push(format!("{digest} was said to be {said:?} and is Held"));
                    }
                    Some(Stage::Held) => {}
                    // A header stands on the receipts of any of its segments.
                    Some(Stage::Archived | Stage::Released) => {
                        if sites < k {
                            wrong.push(format!("{digest} is {stage:?} on {sites} receipts of {k}"));
                        }
                        if copy().is_some_and(|c| c != *bytes) {
                            wrong.push(format!("{digest} is {stage:?}, and its copy is altered"));
                        }
                    }
                }
            }
        }
        self.wrong.extend(wrong);
    }

    /// Everything that the cameras have is pulled to its end, and archived.
    fn go_on(&mut self) -> Result<(), SpoolError> {
        let recordings = self.plan.recordings.clone();
        for some in recordings.chunks(2) {
            let mut may_go = BTreeSet::new();
            for recording in some {
                may_go.extend(self.may_be_forgotten(recording)?);
                self.spool.admit(&recording.manifest, NOW)?;
            }
            // Also what was broken off elsewhere: its room is taken.
            for camera in self.plan.cameras.clone().iter().chain([some[0].camera()]) {
                self.pull_all(camera)?;
            }
            self.spool.commit(NOW)?;
            for digest in some.iter().flat_map(|r| r.parts.keys()) {
                let stage = self.spool.stage(digest)?;
                let here = matches!(stage, Some(Stage::Held | Stage::Archived | Stage::Released));
                let is_forgotten = stage.is_none() && may_go.contains(digest);
                if !here && !is_forgotten {
                    self.wrong
                        .push(format!("{digest} cannot be pulled: it stays {stage:?}"));
                }
            }
            for (recording, site) in some.iter().flat_map(|r| SITES.map(|site| (r, site))) {
                let receipt = self.plan.whole_receipt(site, recording);
                self.spool.receipt(&receipt, NOW)?;
            }
        }
        self.spool.commit(NOW)?;
        self.spool.reclaim(NOW).map(drop)
    }

    /// Released whole, and erased by its camera: where room is made, nothing stays of it.
    fn may_be_forgotten(&self, recording: &Recording) -> Result<Vec<Digest>, SpoolError> {
        let parts: Vec<Digest> = recording.parts.keys().copied().collect();
        for digest in &parts {
            let released = self.spool.stage(digest)? == Some(Stage::Released);
            if !released || !self.said.erased.contains(digest) {
                return Ok(Vec::new());
            }
        }
        Ok(parts)
    }

    /// The archive answers for what is Held, and room is made.
    fn make_room(&mut self) -> Result<(), SpoolError> {
        self.spool.commit(NOW)?;
        for recording in &self.plan.recordings {
            for entry in &recording.manifest.body().segments {
                if self.spool.stage(&entry.digest)? == Some(Stage::Held) {
                    for site in SITES {
                        let receipt = self.plan.receipt(site, recording, Some(entry.digest));
                        self.spool.receipt(&receipt, NOW)?;
                    }
                }
            }
        }
        self.spool.commit(NOW)?;
        self.spool.reclaim(NOW).map(drop)
    }

    fn pull_all(&mut self, camera: &protocol::ids::CameraId) -> Result<(), SpoolError> {
        let mut stuck = 0;
        loop {
            let tasks = self.spool.next_pulls(camera, 16, &HashSet::new(), NOW)?;
            if tasks.is_empty() || stuck > 3 {
                return Ok(());
            }
            for task in tasks {
                let mut incoming = match self.spool.begin(&task.digest) {
                    Err(SpoolError::NoSpace(_)) => {
                        stuck += 1;
                        self.make_room()?;
                        break;
                    }
                    other => other?,
                };
                let Some(bytes) = self.plan.bytes_of(&task.digest) else {
                    self.wrong
                        .push(format!("{} is asked for, and unknown", task.digest));
                    return Ok(());
                };
                let from = usize::try_from(incoming.offset()).unwrap();
                incoming.write(&bytes[from..])?;
                match self.spool.finish(incoming, NOW)? {
                    Finished::Verified => {}
                    other => self.wrong.push(format!(
                        "{} from byte {from}: the bytes of a good camera are {other:?}",
                        task.digest
                    )),
                }
            }
            self.spool.commit(NOW)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What is promised of a segment after these lines.
    fn promised(lines: &[Value]) -> Option<Stage> {
        let mut said = Said::default();
        lines.iter().for_each(|line| said.take(line));
        said.stages.into_values().next()
    }

    /// A camera can say that it has erased what was released to it before the commit that tells of the release.
    #[test]
    fn what_is_released_and_erased_is_no_promise_in_either_order() {
        let name = "22".repeat(32);
        let [held, archived, released, erased] =
            ["held", "archived", "released", "erased"].map(|key| json!({key: [name]}));
        let both =
            |a: &Value, b: &Value| vec![held.clone(), archived.clone(), a.clone(), b.clone()];
        assert_eq!(promised(&both(&released, &erased)), None);
        assert_eq!(promised(&both(&erased, &released)), None);

        assert_eq!(promised(&both(&held, &released)), Some(Stage::Released));
        let again = [both(&released, &erased), vec![held.clone()]].concat();
        assert_eq!(promised(&again), Some(Stage::Held));
        let on = [again, vec![archived.clone()]].concat();
        assert_eq!(promised(&on), Some(Stage::Archived));
    }
}
