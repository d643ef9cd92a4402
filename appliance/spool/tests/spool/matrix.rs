//! Damage as a table: what was done x to what. Each cell is noticed and named (by the start, an alarm, the scrub, the
//! site that checks digests, or an error), or changes no answer; nothing damaged is taken for good by who hashes it;
//! what the camera still lists is pulled again by itself, and of what it lists no more an alarm says the recording.
//!
//! A spool is filled, closed, damaged at rest, and opened again; each cell prints its line.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, setfsuid};
use protocol::custody::Stage;
use protocol::ids::{Digest, Range};
use protocol::suite::sha256;
use spool::{Spool, StartReport};

use crate::heads::signed_by;
use crate::world::*;

/// What is done to a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// One bit, in the middle of what was written.
    Flip,
    /// Half of it is gone.
    Truncate,
    /// Zeros, where a page was lost.
    Zero,
    Delete,
    /// With the next one of its kind.
    Swap,
    /// An older version is put back.
    Stale,
    /// It belongs to somebody else, who lets nobody read it.
    Owner,
    /// Nothing in it can be written.
    ReadOnly,
}

/// To what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Segment,
    /// Of a recording that its camera lists no more.
    LastCopy,
    Header,
    Manifest,
    LedgerDb,
    LedgerSnapshot,
    Logbook,
    Countersigned,
    /// The folder of segments; for the whole spool where nothing can be written.
    Directory,
}

const CONTENT: [Action; 6] = [
    Action::Flip,
    Action::Truncate,
    Action::Zero,
    Action::Delete,
    Action::Swap,
    Action::Owner,
];

fn cells() -> Vec<(Action, Place)> {
    let files = [
        Place::Segment,
        Place::LastCopy,
        Place::Header,
        Place::Manifest,
        Place::LedgerDb,
        Place::LedgerSnapshot,
        Place::Logbook,
        Place::Countersigned,
    ];
    let folder = [
        Action::Delete,
        Action::Swap,
        Action::Stale,
        Action::Owner,
        Action::ReadOnly,
    ];
    // Manifests are never written again: there is no older one of that name.
    let older = files.into_iter().filter(|place| *place != Place::Manifest);
    let older = older.map(|place| (Action::Stale, place));
    let folder = folder.map(|action| (action, Place::Directory));
    let content = files.into_iter();
    let content = content.flat_map(|place| CONTENT.map(|action| (action, place)));
    content.chain(older).chain(folder).collect()
}

/// What a cell works on: closed, with an older copy beside it.
struct Case {
    world: World,
    camera: Camera,
    /// Held and listed; held and listed no more; archived; held, and the last to come.
    footage: Vec<Footage>,
    before: String,
}

const LISTED: usize = 0;
const GONE: usize = 1;
const ARCHIVED: usize = 2;
const LATE: usize = 3;

impl Case {
    fn new() -> Case {
        let world = World::new();
        let (mut spool, camera) = (world.open(), world.camera("C1", 1));
        let footage: Vec<_> = (0..4).map(|n| camera.footage(n, &[9000, 9000])).collect();
        footage[..2]
            .iter()
            .for_each(|f| keep(&mut spool, &camera, f));
        drop(spool);
        let mut spool = world.open();
        keep(&mut spool, &camera, &footage[ARCHIVED]);
        let receipt = world.full_receipt("daejeon", &footage[ARCHIVED]);
        spool.receipt(&receipt, NOW).unwrap();
        let listed = held(&footage[0], &camera.whole_manifest(&footage[0]), &[], &[]);
        let gone = Range { from: 1, to: 2 };
        let inventory = camera.inventory(1, 3, vec![listed], &[gone]);
        spool.inventory(&inventory, NOW).unwrap();
        spool.commit(NOW).unwrap();
        signed_by(&world, &mut spool, "daejeon");
        drop(spool);
        copy_dir(&world.path(""), &world.dir.path().join("older"));
        let mut spool = world.open();
        keep(&mut spool, &camera, &footage[LATE]);
        signed_by(&world, &mut spool, "daejeon");
        let mut case = Case {
            world,
            camera,
            footage,
            before: String::new(),
        };
        case.before = case.picture(&mut spool);
        case
    }

    /// All that a peer could be answered.
    fn picture(&self, spool: &mut Spool) -> String {
        let all: Vec<&Footage> = self.footage.iter().collect();
        let offers = spool.next_offers(&both(), &site("daejeon"), 99, &none(), NOW);
        let offers: Vec<_> = offers.unwrap().into_iter().map(|o| o.manifest).collect();
        let due = spool.receipts_due(&self.camera.id, 99, &none()).unwrap();
        let bytes: Vec<_> = all
            .iter()
            .flat_map(|f| f.digests())
            .map(|digest| spool.read_copy(&digest).map(|b| sha256(&b)).ok())
            .collect();
        format!(
            "{}{offers:?}{due:?}{bytes:?}",
            picture(spool, &[&self.camera], &all)
        )
    }

    fn path(&self, place: Place) -> PathBuf {
        let segment = |n: usize| self.world.segment(&self.footage[n].digest(0));
        match place {
            Place::Segment => segment(LISTED),
            Place::LastCopy => segment(GONE),
            Place::Header => self.world.segment(&self.footage[LISTED].header_digest()),
            Place::Manifest => self.manifest(LISTED),
            Place::LedgerDb => self.world.path("ledger/db"),
            Place::LedgerSnapshot => snapshot(&self.world.path("ledger")),
            Place::Logbook => self.world.path("logbook"),
            Place::Countersigned => self.world.path("countersigned"),
            Place::Directory => self.world.path("segments"),
        }
    }
    fn manifest(&self, n: usize) -> PathBuf {
        let digest = self.camera.whole_manifest(&self.footage[n]).digest();
        self.world.path("manifests").join(digest.to_string())
    }
    /// With what it is swapped.
    fn other(&self, place: Place) -> PathBuf {
        let late = &self.footage[LATE];
        match place {
            Place::Segment | Place::LastCopy => self.world.segment(&late.digest(1)),
            Place::Header => self.world.segment(&late.header_digest()),
            Place::Manifest => self.manifest(LATE),
            Place::LedgerDb => self.world.path("logbook"),
            Place::LedgerSnapshot => self.world.path("ledger/db"),
            Place::Logbook | Place::Countersigned => self.world.path("key-list"),
            Place::Directory => self.world.path("manifests"),
        }
    }

    fn damage(&self, action: Action, place: Place) {
        let path = self.path(place);
        let bytes = fs::read(&path).unwrap_or_default();
        let used = bytes
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |last| last + 1);
        let edit = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
        };
        match action {
            Action::Flip => edit(&|b| b[used / 2] ^= 0x10),
            Action::Truncate => edit(&|b| b.truncate(used / 2)),
            Action::Zero => edit(&|b| {
                let from = used / 2 / 4096 * 4096;
                let to = b.len().min(from + 4096);
                b[from..to].fill(0);
            }),
            Action::Delete if path.is_dir() => fs::remove_dir_all(&path).unwrap(),
            Action::Delete => fs::remove_file(&path).unwrap(),
            Action::Swap => {
                let (other, aside) = (self.other(place), self.world.path("aside"));
                fs::rename(&path, &aside).unwrap();
                fs::rename(&other, &path).unwrap();
                fs::rename(&aside, &other).unwrap();
            }
            Action::Stale => self.put_back(place, &path, &bytes),
            Action::Owner => set_mode(&path, 0o000),
            Action::ReadOnly => set_modes(&self.world.path(""), 0o555, 0o444),
        }
    }
    /// The older version; of a segment that is its file when half of it had come.
    fn put_back(&self, place: Place, path: &Path, bytes: &[u8]) {
        let older = self.world.dir.path().join("older");
        match place {
            Place::Segment | Place::LastCopy | Place::Header => {
                let mut half = bytes.to_vec();
                half[bytes.len() / 2..].fill(0);
                fs::write(path, half).unwrap();
            }
            Place::LedgerSnapshot => {
                let old = snapshot(&older.join("ledger"));
                fs::remove_file(path).unwrap();
                fs::copy(
                    &old,
                    self.world.path("ledger").join(old.file_name().unwrap()),
                )
                .unwrap();
            }
            Place::Directory => {
                fs::remove_dir_all(path).unwrap();
                copy_dir(&older.join("segments"), path);
            }
            _ => {
                let name = path.strip_prefix(self.world.path("")).unwrap();
                fs::copy(older.join(name), path).unwrap();
            }
        }
    }

    /// Opens it; sled may panic on what it reads, which the next start is told.
    fn open(&self) -> Result<(Spool, StartReport, bool), String> {
        let first =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.world.try_open()));
        let panicked = first.is_err();
        let opened = first.unwrap_or_else(|_| self.world.try_open());
        let (spool, report) = opened.map_err(|e| e.to_string())?;
        Ok((spool, report, panicked))
    }
}

/// sled's newest snapshot.
fn snapshot(ledger: &Path) -> PathBuf {
    let names = fs::read_dir(ledger).unwrap().map(|e| e.unwrap().path());
    let mut found: Vec<_> = names
        .filter(|p| {
            p.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("snap.")
        })
        .collect();
    found.sort();
    found.pop().expect("the ledger was closed")
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
fn set_modes(dir: &Path, dirs: u32, files: u32) {
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            set_modes(&entry, dirs, files);
        } else {
            set_mode(&entry, files);
        }
    }
    set_mode(dir, dirs);
}

/// Gives everything to nobody and becomes that, as far as this thread's files go: root may read and write all.
fn be_nobody(dir: &Path) {
    const NOBODY: u32 = 65_534;
    fn give(path: &Path) {
        if path.is_dir() {
            fs::read_dir(path)
                .unwrap()
                .for_each(|e| give(&e.unwrap().path()));
        }
        std::os::unix::fs::chown(path, Some(NOBODY), None).unwrap();
    }
    if Uid::effective().is_root() {
        give(dir);
        setfsuid(Uid::from_raw(NOBODY));
    }
}

/// How a cell was noticed; nothing where it changed no answer.
fn run(action: Action, place: Place) -> Vec<String> {
    let case = Case::new();
    be_nobody(case.world.dir.path());
    case.damage(action, place);
    let (mut spool, report, panicked) = match case.open() {
        Ok(opened) => opened,
        Err(named) => {
            let about = case.world.path("").display().to_string();
            assert!(named.contains(&about), "{named}: says what is wrong");
            return vec![format!("error: {named}").replace(&about, "")];
        }
    };
    let mut named = Vec::new();
    named.extend(panicked.then(|| "the ledger's engine stopped".into()));
    named.extend(report.rebuilt.iter().map(|why| format!("rebuilt: {why}")));
    named.extend(report.lost.iter().cloned());
    named.extend((report.missing > 0).then(|| format!("{} missing", report.missing)));
    named.extend((report.torn_bytes > 0).then(|| format!("{} bytes torn", report.torn_bytes)));
    let before_checks = case.picture(&mut spool);
    forward(&mut spool, &mut named);
    let scrubbed = spool.scrub_step(1 << 30, NOW).unwrap();
    named.extend((!scrubbed.damaged.is_empty()).then(|| "scrub".into()));
    if let Err(e) = spool.history(|_, _| {}) {
        named.push(e.to_string());
    }
    spool.commit(NOW).unwrap();
    named.extend(spool.alarms().iter().map(|a| format!("alarm {}", a.code)));
    if named.is_empty() {
        assert_eq!(
            before_checks, case.before,
            "noticed by nobody, and not the same"
        );
    }
    made_good(&case, &mut spool);
    named.dedup();
    named
}

/// As the hop to the archive reads copies; the site hashes what comes, and says so where it is not what was offered.
fn forward(spool: &mut Spool, named: &mut Vec<String>) {
    let puts = spool.next_puts(&both(), &site("daejeon"), 99, &none(), NOW);
    for task in puts.unwrap() {
        let good = spool
            .read_copy(&task.digest)
            .is_ok_and(|b| sha256(&b) == task.digest);
        let found = spool.copy_is_damaged(&task.digest, NOW).unwrap();
        assert_eq!(
            found, !good,
            "{}: what a site refuses is found here",
            task.digest
        );
        named.extend(found.then(|| "the site that hashes it".into()));
    }
}

/// What the camera lists comes again by itself; of what it does not, an alarm says the recording.
fn made_good(case: &Case, spool: &mut Spool) {
    let Case {
        camera, footage, ..
    } = case;
    for n in [LISTED, LATE] {
        let manifest = camera.whole_manifest(&footage[n]);
        let lists = [&footage[LISTED], &footage[LATE]]
            .map(|f| held(f, &camera.whole_manifest(f), &[], &[]));
        let number = 2 + n as u64;
        let inventory = camera.inventory(number, 4, lists.to_vec(), &[Range { from: 1, to: 2 }]);
        let want = spool.inventory(&inventory, NOW).unwrap().want;
        if want.iter().any(|w| w.number == footage[n].number) {
            spool.admit(&manifest, NOW).unwrap();
        }
        pull_all(spool, &footage[n]);
        spool.commit(NOW).unwrap();
        assert_eq!(stages(spool, &footage[n]), all(Stage::Held, &footage[n]));
        for digest in footage[n].digests() {
            assert_eq!(sha256(&spool.read_copy(&digest).unwrap()), digest);
        }
    }
    let lost: BTreeSet<Digest> = spool
        .unaccounted(99)
        .unwrap()
        .into_iter()
        .map(|u| u.2)
        .collect();
    let gone = &footage[GONE];
    for digest in gone.digests() {
        let good = spool.read_copy(&digest).is_ok_and(|b| sha256(&b) == digest);
        let alarm = |code: &str, text: &str| {
            let all = spool.alarms();
            all.iter().any(|a| a.code == code && a.what.contains(text))
        };
        let recording = format!("recording {}/{}", camera.id, gone.number);
        let named = alarm("copy_damaged", &recording) && alarm("unaccounted", "");
        assert!(
            good || (named && lost.contains(&digest)),
            "{digest} {:?}",
            spool.alarms()
        );
    }
}

#[test]
fn every_damage_in_every_place_is_noticed_or_changes_nothing() {
    let cells = cells();
    let mut failed = Vec::new();
    for (action, place) in &cells {
        let (action, place) = (*action, *place);
        // A thread of its own: it gives up the right to read everything.
        match std::thread::spawn(move || run(action, place)).join() {
            Ok(named) if named.is_empty() => {
                println!("damage: {action:?} {place:?}: nothing changed")
            }
            Ok(named) => println!("damage: {action:?} {place:?}: {}", named.join("; ")),
            Err(_) => failed.push((action, place)),
        }
    }
    println!(
        "damage: {} of {} cells",
        cells.len() - failed.len(),
        cells.len()
    );
    assert!(failed.is_empty(), "{failed:?}");
}
