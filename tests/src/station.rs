//! A station on loopback in a folder of its own: a trial agency, the footage that was recorded, and what is awaited of
//! all parties together. Parties are in modules of their own; each takes its station.
//!
//! Where parties are to be apart from each other, a [`place`] gives each a network namespace: [`netns`] makes them, a
//! [`wire`] is a cable between two, [`air`] a link that delays and loses, and a [`port`] lets nobody through before 802.1X.

pub mod air;
pub mod announcement;
pub mod netns;
pub mod place;
pub mod port;
pub mod radio;
pub mod raw;
pub mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use link::agency::{Agency, TrialOptions, key_list, trial};
use link::clock::Clock;
use link::random::Random;
use protocol::identity::Trust;
use protocol::keylist::KeyList;
use tempfile::TempDir;

use crate::archive_party::Site;
use crate::camera_party::Camera;
use crate::repeater_party::Repeater;
use crate::wait::{LONG, eventually};

/// A day in milliseconds.
pub const DAY_MS: i64 = 86_400_000;

/// The station's name in the trial agency.
pub const STATION: &str = "station-7";

/// What a trial agency consists of.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Cameras, numbered from 1.
    pub cameras: u32,
    /// Archive sites.
    pub sites: &'a [&'a str],
    /// So many days ago the agency certified everyone, and made its revocation lists.
    pub days_ago: i64,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Plan {
            cameras: 1,
            sites: &["site-a"],
            days_ago: 0,
        }
    }
}

/// The station.
#[derive(Debug)]
pub struct Station {
    dir: TempDir,
    /// The agency.
    pub agency: Agency,
    /// What was recorded: recording to footage.
    pub(crate) recorded: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Station {
    /// A station with its agency; nothing runs yet.
    #[must_use]
    pub fn new(plan: Plan<'_>) -> Station {
        let dir = tempfile::Builder::new()
            .prefix("bwc-station-")
            .tempdir()
            .unwrap();
        let sites = plan.sites.iter().map(|s| s.parse().unwrap()).collect();
        let options = TrialOptions {
            cameras: plan.cameras,
            sites,
            station: STATION.into(),
        };
        let made = Clock::offset(-plan.days_ago * DAY_MS);
        let agency = trial(
            &dir.path().join("agency"),
            &options,
            &made,
            &Random::system(),
        )
        .unwrap();
        let station = Station {
            dir,
            agency,
            recorded: Mutex::default(),
        };
        for folder in ["logs", "footage", "spool", "run"] {
            std::fs::create_dir_all(station.path(folder)).unwrap();
        }
        station
    }

    /// A path within the station's folder.
    #[must_use]
    pub fn path(&self, within: &str) -> PathBuf {
        self.dir.path().join(within)
    }

    /// The agency's root, without revocation lists.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::from_pem(&std::fs::read(self.agency.path("trust.pem")).unwrap(), None).unwrap()
    }

    /// The agency's newest key list.
    #[must_use]
    pub fn key_list(&self) -> KeyList {
        key_list::present(&self.agency).unwrap().unwrap()
    }

    /// The `n`th camera, counted from 1.
    #[must_use]
    pub fn camera(&self, n: u32) -> Camera<'_> {
        Camera::new(self, n)
    }

    /// Starts an archive site.
    #[must_use]
    pub fn site(&self, name: &str) -> Site<'_> {
        Site::start(self, name)
    }

    /// Starts the repeater.
    #[must_use]
    pub fn repeater(&self, cameras: &[SocketAddr], sites: &[(&str, SocketAddr)]) -> Repeater<'_> {
        Repeater::start(self, cameras, sites, "")
    }

    /// Waits until every camera holds nothing any more, all of it released on receipts, and the repeater agrees.
    ///
    /// # Panics
    /// Where that does not come about, or something is lost.
    pub fn wait_all_released(&self, cameras: &[&Camera<'_>], repeater: &Repeater<'_>) {
        let status = eventually("every recording is released", LONG * 2, || {
            let empty = cameras.iter().all(|c| {
                let s = c.status();
                s.lost == 0 && s.released == s.next_recording && s.recordings.is_empty()
            });
            let status = repeater.status();
            (empty && status["spool"]["outstanding"] == 0).then_some(status)
        });
        assert_eq!(status["spool"]["unaccounted"], 0, "{status}");
    }

    /// A recording that is not to arrive: it is not expected of any site.
    pub fn recorded_elsewhere(&self, recording: &str) {
        self.recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(recording);
    }

    /// The only recording of a camera: its name and its footage.
    ///
    /// # Panics
    /// Where it has none.
    #[must_use]
    pub fn recording_of(&self, serial: &str) -> (String, Vec<u8>) {
        let recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, bytes) = recorded
            .iter()
            .find(|(name, _)| name.starts_with(&format!("{serial}/")))
            .unwrap();
        (name.clone(), bytes.clone())
    }

    /// Exports everything that was recorded from a site, compares it byte for byte, and checks that nothing else is there.
    ///
    /// # Panics
    /// Where anything is missing, altered or a stranger.
    pub fn assert_footage_is_whole(&self, site: &Site<'_>) {
        let recordings = self.assert_exports(site);
        let report = site.verify();
        assert_eq!(report["problems"], serde_json::json!([]), "{report}");
        assert_eq!(report["recordings"], recordings, "{report}");
    }

    /// Exports everything that was recorded from a site, compares it byte for byte, and gives how many recordings it is.
    ///
    /// # Panics
    /// Where anything is missing or altered.
    pub fn assert_exports(&self, site: &Site<'_>) -> usize {
        let recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!recorded.is_empty());
        for (recording, original) in recorded.iter() {
            let exported = site.export(recording, "archive.key");
            let out = exported.unwrap_or_else(|said| {
                panic!("{recording} is not exported: {} {}", said.out, said.err)
            });
            assert!(
                out == *original,
                "{recording}: {} bytes exported, {} recorded, not the same",
                out.len(),
                original.len()
            );
        }
        recorded.len()
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for entry in std::fs::read_dir(self.path("logs"))
            .unwrap()
            .map_while(Result::ok)
        {
            let text = std::fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!(
                "=== {}\n{}",
                entry.file_name().to_string_lossy(),
                tail.join("\n")
            );
        }
    }
}
