//! A station with one camera, the repeater and one site, put back before each case to where it was: the camera with its
//! recordings, the site empty, the spool as the scene wants it.
//!
//! The recordings are sealed once, so that every file has the same name in every case. The repeater is started again at most once:
//! the second time nothing is made to fail, and it has to go on to the end. Where room is made there is another station, whose
//! footage is more than the smallest spool may keep.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::short::{self, Short};
use super::trace::{Call, Fault, Trace, counted};
use super::{Case, Counted, Went, check};
use crate::archive_party::Site;
use crate::camera_party::Camera;
use crate::footage::footage;
use crate::repeater_party::Repeater;
use crate::station::{Plan, Station};
use crate::wait::eventually;

/// Footage of each recording.
const RECORDINGS: [usize; 3] = [300_000, 120_000, 5_000];
/// The same where room is made: in segments as large as they may be, for few calls.
const MANY: [usize; 2] = [6_000_000, 1_500_000];
/// The smallest spool there may be, in which that is above the high watermark, and all of it above the low one.
const SMALL: &str = "capacity_bytes = 67108864\nhigh_percent = 10\nlow_percent = 1";
/// By then everything has arrived, or the case failed.
const PATIENCE: Duration = Duration::from_secs(40);
/// Nobody listens there.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// What the repeater is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scene {
    /// It makes its spool.
    FirstStart,
    /// It runs, and the camera comes; then it stops.
    Work,
    /// It starts over a spool in which all is Held, after a kill.
    Restart,
    /// The same, on a boot that is marked suspect: everything is read again.
    SuspectStart,
    /// It starts over more than it may keep, which is archived, reclaimed and forgotten.
    Reclaim,
}

impl Scene {
    /// Every scene.
    pub const ALL: [Scene; 5] = [
        Scene::FirstStart,
        Scene::Work,
        Scene::Restart,
        Scene::SuspectStart,
        Scene::Reclaim,
    ];
}

/// Stations that are put back.
#[derive(Debug)]
pub struct Stage {
    usual: Place,
    /// Where room is made.
    large: Place,
    /// The shim, compiled.
    shim: PathBuf,
}

/// A station with its recordings.
#[derive(Debug)]
struct Place {
    station: Station,
    /// Files of the spool that its scenes' calls are about.
    files: BTreeSet<String>,
    /// Segments and headers.
    items: u64,
    recordings: u64,
    /// Further lines of the repeater's section `spool`.
    spool: &'static str,
}

/// What became of the repeater in a case.
struct Lives {
    /// What strace saw of the first life.
    calls: Vec<Call>,
    /// How the first life ended, where it was not told to.
    ended: Option<ExitStatus>,
    /// Whether the boot was marked suspect when the first life had ended.
    suspect: bool,
    log: String,
}

impl Default for Stage {
    fn default() -> Self {
        Stage::new()
    }
}

impl Stage {
    /// Seals the recordings and fills the spools of the later scenes.
    ///
    /// # Panics
    /// Where a party does not do what it should.
    #[must_use]
    pub fn new() -> Stage {
        let usual = Place::new(&RECORDINGS, "");
        let shim = usual.station.path("short.so");
        short::compile(&shim);
        Stage {
            usual,
            large: Place::new(&MANY, SMALL),
            shim,
        }
    }

    fn place(&self, scene: Scene) -> &Place {
        match scene {
            Scene::Reclaim => &self.large,
            _ => &self.usual,
        }
    }

    /// Runs each scene without a fault, and counts its calls on the spool.
    ///
    /// # Panics
    /// Where a scene does not go well.
    pub fn count(&mut self) -> Counted {
        let mut found = Counted::new();
        for scene in Scene::ALL {
            let mut lives = self.run(scene, None);
            assert!(lives.ended.is_none(), "{scene:?}: {:?}", lives.ended);
            let main = lives.calls.first().map(|c| c.thread);
            let only = match scene {
                // What follows a start is the work, which is a scene of its own.
                Scene::FirstStart | Scene::Restart | Scene::SuspectStart => main,
                Scene::Work => None,
                // Nor is this about how footage is read and archived.
                Scene::Reclaim => {
                    lives.calls.retain(|c| !Fault::Short.fits(&c.name));
                    None
                }
            };
            found.insert(scene, counted(&lives.calls, only));
            let place = match scene {
                Scene::Reclaim => &mut self.large,
                _ => &mut self.usual,
            };
            place
                .files
                .extend(lives.calls.into_iter().flat_map(|c| c.files));
        }
        found
    }

    /// Plays a case.
    ///
    /// # Panics
    /// Where something is not as it must be.
    pub fn play(&mut self, case: &Case) -> Went {
        let lives = self.run(case.scene, Some(case));
        // Each thread has its own Nth call.
        let hits: Vec<&Call> = lives.calls.iter().filter(|c| c.injected).collect();
        let killed = case.fault == Fault::Kill && lives.ended.is_some();
        if hits.is_empty() && !killed {
            return Went::NotReached;
        }
        let station = &self.place(case.scene).station;
        let mut wrong = check::spool(station, &lives.log);
        for call in &hits {
            wrong.extend(check::reaction(&check::At {
                call,
                alone: hits.len() == 1,
                fault: case.fault,
                ended: lives.ended,
                suspect: lives.suspect,
                log: &lives.log,
                spool: &station.path("spool/repeater"),
            }));
        }
        if wrong.is_empty() {
            return Went::Well;
        }
        let said = self.last_words(case.scene);
        Went::Wrong(format!("{wrong:#?}\n{hits:?}\n{said}"))
    }

    /// What the repeater logged last in this scene.
    #[must_use]
    pub fn last_words(&self, scene: Scene) -> String {
        let station = &self.place(scene).station;
        let text = fs::read(station.path("logs/repeater.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    fn run(&self, scene: Scene, case: Option<&Case>) -> Lives {
        let place = self.place(scene);
        place.put_back(scene);
        let station = &place.station;
        let site = station.site("site-a");
        let mut camera = station.camera(1);
        let address = camera.serve();
        let sites = [site.told()];
        let mut repeater =
            Repeater::configured(station, "repeater", &[address], &sites, place.spool);
        let trace = if scene == Scene::Work {
            // The camera is silent until the repeater is ready and every thread of it is traced.
            camera.server().signal(Signal::SIGSTOP);
            let trace = self.start(scene, &mut repeater, case);
            camera.server().signal(Signal::SIGCONT);
            trace
        } else {
            self.start(scene, &mut repeater, case)
        };
        let mut ended = place.drained_or_ended(&camera, &mut repeater);
        let calls = trace.calls_after(|| {
            if ended.is_none() {
                ended = stop(&mut repeater);
            }
        });
        let suspect = check::marker(station).exists();
        if let Some(how) = ended {
            assert!(case.is_some(), "it ended: {how:?}");
            repeater.run();
            let again = place.drained_or_ended(&camera, &mut repeater);
            let again = again.or_else(|| stop(&mut repeater));
            assert!(
                again.is_none(),
                "it ended again, with nothing failing: {again:?}"
            );
        }
        place.assert_all_is_there(&camera, &site);
        Lives {
            calls,
            ended,
            suspect,
            log: repeater.log(),
        }
    }

    /// Starts the repeater and has its calls looked at, of work from when it is ready.
    fn start(&self, scene: Scene, repeater: &mut Repeater<'_>, case: Option<&Case>) -> Trace {
        let place = self.place(scene);
        let (spool, logs) = (repeater.spool(), place.station.path("logs"));
        let works = scene == Scene::Work;
        let shimmed = case.filter(|c| matches!(c.fault, Fault::Short | Fault::Torn));
        if let Some(case) = shimmed {
            let (armed, log) = (logs.join("armed"), logs.join("short"));
            let environment = short::environment(
                &self.shim,
                &Short {
                    call: &case.call,
                    fault: case.fault,
                    n: case.n,
                    spool: &spool,
                    armed: &armed,
                    log: &log,
                },
            );
            if !works {
                fs::write(&armed, "").unwrap();
            }
            let party = repeater.start_within(environment);
            if works {
                party.ready("ready: metrics on ");
                fs::write(&armed, "").unwrap();
            }
            return Trace::of_shim(log, &spool);
        }
        if works {
            repeater.run();
        } else {
            repeater.start_traced();
        }
        let fault = case.map(|c| (c.call.as_str(), c.fault, c.n));
        Trace::attach(repeater.daemon(), &logs, &spool, &place.files, fault)
    }
}

impl Place {
    /// Seals the recordings and fills the spool.
    fn new(recordings: &[usize], spool: &'static str) -> Place {
        let station = Station::new(Plan::default());
        let camera = station.camera(1);
        let mut items = 0;
        for (seed, bytes) in recordings.iter().enumerate() {
            items += camera.seal(&footage(seed as u64, *bytes), &[]).items();
        }
        fs::create_dir_all(station.path("kept")).unwrap();
        fs::rename(station.path("cameras"), station.path("kept/cameras")).unwrap();
        let place = Place {
            station,
            files: BTreeSet::new(),
            items,
            recordings: recordings.len() as u64,
            spool,
        };
        place.put_back(Scene::FirstStart);
        let mut camera = place.station.camera(1);
        let address = camera.serve();
        let mut repeater = place.station.repeater(&[address], &[("site-a", NOBODY)]);
        repeater.wait_held(items);
        repeater.daemon().kill();
        fs::rename(repeater.spool(), place.station.path("kept/spool")).unwrap();
        drop(camera);
        place
    }

    fn put_back(&self, scene: Scene) {
        for folder in ["spool", "run", "cameras", "sites", "logs"] {
            let _ = fs::remove_dir_all(self.station.path(folder)); // it may not be there yet
        }
        for folder in ["spool", "run", "logs"] {
            fs::create_dir_all(self.station.path(folder)).unwrap();
        }
        copy(
            &self.station.path("kept/cameras"),
            &self.station.path("cameras"),
        );
        if !matches!(scene, Scene::FirstStart | Scene::Work) {
            let spool = self.station.path("spool/repeater");
            copy(&self.station.path("kept/spool"), &spool);
        }
        if scene == Scene::SuspectStart {
            fs::write(check::marker(&self.station), "a sync failed\n").unwrap();
        }
    }

    fn assert_all_is_there(&self, camera: &Camera<'_>, site: &Site<'_>) {
        let s = camera.status();
        assert_eq!((s.lost, s.released), (0, self.recordings), "{s:?}");
        self.station.assert_footage_is_whole(site);
        let stored = site.segments();
        let segments = self.items - self.recordings;
        assert_eq!(stored, segments, "segments stored");
    }

    /// Waits until the camera has released everything, the repeater agrees, has made room where it should, and rebuilds nothing
    /// any more; or until the repeater has ended, and how.
    fn drained_or_ended(
        &self,
        camera: &Camera<'_>,
        repeater: &mut Repeater<'_>,
    ) -> Option<ExitStatus> {
        eventually("everything is released", PATIENCE, || {
            if let Some(how) = repeater.daemon().how_it_ended() {
                return Some(Some(how));
            }
            let s = camera.status();
            let empty = s.lost == 0 && s.released == s.next_recording && s.recordings.is_empty();
            let status = empty.then(|| repeater.try_status()).flatten()?;
            let spool = &status["spool"];
            let open = spool["gate"] == "open";
            // Of a start that derives its ledger anew this is the spool beside it, until that is done.
            let mut alarms = status["alarms"].as_array()?.iter();
            let rebuilt = alarms.all(|a| a["code"] != "ledger_rebuilding");
            let over = spool["outstanding"] == 0 && spool["unaccounted"] == 0;
            (over && open && rebuilt).then_some(None)
        })
    }
}

/// SIGTERM; how it ended, where not well.
fn stop(repeater: &mut Repeater<'_>) -> Option<ExitStatus> {
    if repeater.daemon().runs() {
        repeater.daemon().signal(Signal::SIGTERM);
    }
    let how = repeater.daemon().ended(PATIENCE);
    // It may have been ready, with nothing to do, and not yet have come to handle signals: then this was a kill.
    let killed = how.signal() == Some(Signal::SIGTERM as i32);
    (!how.success() && !killed).then_some(how)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
