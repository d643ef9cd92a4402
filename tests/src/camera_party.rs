//! A camera: `bodycam seal`, `bodycam serve`, and its store as it lies on disk.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::PoisonError;

use camera::status::Status;
use link::agency::trial::serial;

use crate::process::{self, FILTER, Party, Said};
use crate::station::Station;
use crate::station::netns::Namespace;
use crate::wait::until;

/// A camera of a station.
#[derive(Debug)]
pub struct Camera<'a> {
    station: &'a Station,
    /// Its number, from 1.
    pub n: u32,
    /// Its serial.
    pub serial: String,
    /// The server, while it runs.
    pub party: Option<Party>,
    address: Option<SocketAddr>,
    /// Arguments that seal and serve get besides the usual ones.
    pub more: Vec<String>,
    /// Where it serves at its first start.
    pub listen: SocketAddr,
    /// The network namespace in which it serves.
    pub space: Option<Namespace>,
}

/// What `seal` says of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// `SERIAL/INCARNATION/NUMBER`.
    pub recording: String,
    /// Its segments.
    pub segments: u64,
    /// Bytes of footage.
    pub bytes: u64,
}

impl Sealed {
    /// Its segments and its header: all that is in custody.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.segments + 1
    }
}

impl<'a> Camera<'a> {
    pub(crate) fn new(station: &'a Station, n: u32) -> Camera<'a> {
        let serial = serial(n).to_string();
        Camera {
            station,
            n,
            serial,
            party: None,
            address: None,
            more: Vec::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            space: None,
        }
    }

    /// Its storage.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.station.path(&format!("cameras/{}", self.serial))
    }

    fn args(&self, command: &str) -> Vec<OsString> {
        let credentials = self.station.agency.path("cameras").join(&self.serial);
        let agency = self.station.agency.path("");
        let mut args: Vec<OsString> = vec![command.into(), "--store".into(), self.store().into()];
        args.extend([
            "--credentials".into(),
            credentials.into(),
            "--agency".into(),
            agency.into(),
        ]);
        args.extend(self.more.iter().map(OsString::from));
        args
    }

    /// Runs `seal` on a file and says how it ended.
    #[must_use]
    pub fn try_seal(&self, footage: &[u8], more: &[&str]) -> Said {
        let mut name = 0;
        let path = loop {
            let path = self
                .station
                .path(&format!("footage/{}-{name}", self.serial));
            if !path.exists() {
                break path;
            }
            name += 1;
        };
        std::fs::create_dir_all(self.station.path("cameras")).unwrap();
        std::fs::write(&path, footage).unwrap();
        let mut args = self.args("seal");
        args.extend(more.iter().map(OsString::from));
        args.push(path.into());
        process::run("bodycam", args)
    }

    /// Records footage; the station remembers it.
    ///
    /// # Panics
    /// Where it is not sealed.
    pub fn seal(&self, footage: &[u8], more: &[&str]) -> Sealed {
        let said = self.try_seal(footage, more);
        assert_eq!(said.code, Some(0), "seal: {}", said.err);
        let words: Vec<&str> = said.out.split_whitespace().collect();
        let ["sealed", recording, "segments", segments, "bytes", bytes] = words[..] else {
            panic!("{}", said.out)
        };
        assert_eq!(bytes, footage.len().to_string());
        let mut recorded = self
            .station
            .recorded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        recorded.insert(recording.to_owned(), footage.to_vec());
        Sealed {
            recording: recording.to_owned(),
            segments: segments.parse().unwrap(),
            bytes: bytes.parse().unwrap(),
        }
    }

    /// Serves, erasing at once what has its receipts; at the address of the first start.
    pub fn serve(&mut self) -> SocketAddr {
        self.serve_with(&["--erase", "now"], FILTER)
    }

    /// Serves with these arguments.
    pub fn serve_with(&mut self, more: &[&str], filter: &str) -> SocketAddr {
        self.party = None; // the old one is gone before the new one binds its port
        let listen = self.address.unwrap_or(self.listen);
        let mut args = self.args("serve");
        args.extend(["--listen".into(), listen.to_string().into()]);
        args.extend(more.iter().map(OsString::from));
        std::fs::create_dir_all(self.station.path("cameras")).unwrap();
        let mut party = Party::start_in(
            self.space.as_ref(),
            &self.station.path("logs"),
            &self.serial,
            "bodycam",
            args,
            filter,
        );
        let address = party.ready("listening on ").parse().unwrap();
        self.party = Some(party);
        self.address = Some(address);
        address
    }

    /// Where it serves or served.
    ///
    /// # Panics
    /// Where it never did.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.expect("the camera was started")
    }

    /// Its server.
    ///
    /// # Panics
    /// Where it does not serve.
    pub fn server(&mut self) -> &mut Party {
        self.party.as_mut().expect("the camera serves")
    }

    /// What its storage holds.
    #[must_use]
    pub fn status(&self) -> Status {
        camera::status::status(&self.store()).unwrap()
    }

    /// Segments on its storage.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.status().recordings.iter().map(|r| r.held).sum()
    }

    /// Waits until its storage holds nothing that is not released.
    pub fn wait_released(&self) {
        until(&format!("{} has released everything", self.serial), || {
            let s = self.status();
            s.recordings.is_empty() && s.released == s.next_recording
        });
    }

    /// Files with sealed segments in its storage, whatever its books say.
    #[must_use]
    pub fn segment_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.store().join("recordings")];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                continue;
            };
            for path in entries.map_while(Result::ok).map(|e| e.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "seg") {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}
