//! The end of a run: what the cameras signed for, the leave to erase it, and the checks with every party stopped.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use link::random::Random;

use super::Demo;
use crate::chaos::{self, Kill};
use crate::check::Check;
use crate::fleet::Fleet;
use crate::parties::{self, Erase};
use crate::report::{self, Counts};
use crate::seal::Piece;
use crate::signed::{self, Signed};
use crate::{search, store};

impl Demo<'_> {
    /// What each camera signed for, in the order of their serials: all is recorded, and nothing may be erased yet.
    pub(super) fn signed(&self) -> Result<Vec<Signed>> {
        let trust = self.agency.trust()?;
        let take = |serial: &String| {
            let disk = self.disk(serial);
            let says = parties::camera_status(&self.launcher, serial, &disk)?;
            ensure!(
                says.erased() == 0,
                "camera {serial} has erased {} segments to make room: there is too little for this footage in {}",
                says.erased(),
                self.work.display()
            );
            Signed::take(&disk, &says.camera(), says.next_recording, &trust)
                .with_context(|| format!("what camera {serial} signed for"))
        };
        self.agency.serials.iter().map(take).collect()
    }

    /// From now on cameras erase at once what has its receipts; under chaos they are killed at it.
    pub(super) fn may_erase(
        &self,
        fleet: &mut Fleet,
        cameras: &[SocketAddr],
        chaos: Option<(&Random, &dyn Fn() -> Duration)>,
    ) -> Result<Vec<Kill>> {
        for (serial, at) in self.agency.serials.iter().zip(cameras) {
            let serve = (*at, Erase::Now);
            fleet.respecify(parties::serve(
                &self.agency,
                serial,
                &self.disk(serial),
                serve,
            )?);
        }
        if let Some((random, since)) = chaos {
            return chaos::while_they_erase(fleet, &self.agency.serials, random, since);
        }
        for serial in &self.agency.serials {
            fleet.restart(&parties::camera_name(serial))?;
        }
        Ok(Vec::new())
    }

    /// With every party stopped: export, compare, read the store again, search, count.
    pub(super) fn check(&self, pieces: &[Piece], signed: &[Signed]) -> Result<String> {
        println!(
            "exporting {} recordings, each in a process that has only store and key",
            pieces.len()
        );
        let check = Check {
            launcher: &self.launcher,
            agency: &self.agency,
            place: &self.place,
            originals: &self.originals,
            pieces,
            exports: &self.work.join("exports"),
            keep: self.options.keep.is_some(),
        };
        let lengths = check.footage()?;
        let store = check.store()?;
        self.search()?;
        let (mut counts, mut left) = (Vec::new(), BTreeSet::new());
        for (camera, (serial, signed)) in self.agency.serials.iter().zip(signed).enumerate() {
            let disk = self.disk(serial);
            left.extend(signed.left(&disk)?);
            let says = parties::camera_status(&self.launcher, serial, &disk)?;
            ensure!(
                says.lost == 0,
                "camera {serial} lost {} recordings without a receipt",
                says.lost
            );
            ensure!(
                says.next_recording == signed.recordings,
                "camera {serial} has numbered {} recordings and signed for {}",
                says.next_recording,
                signed.recordings
            );
            let mut c = Counts {
                serial: serial.clone(),
                recordings: signed.recordings,
                segments: signed.segments.len() as u64,
                signed_bytes: signed.bytes,
                erased: says.erased(),
                on_disk: store::segments_on_disk(&disk)?.len() as u64,
                ..Counts::default()
            };
            c.add(pieces, &lengths, camera);
            counts.push(c);
        }
        println!("\n{}", report::table(&counts));
        report::last_line(&counts, signed::account(signed, &store, &left)?)
    }

    fn search(&self) -> Result<()> {
        let random = Random::system();
        let mut needles = Vec::new();
        for original in &self.originals {
            needles.extend(search::draw(original, &random)?);
        }
        let footage = needles.len();
        for secrets in &self.secrets {
            for (what, text) in [
                ("the officer's name", &secrets.officer),
                ("the case's name", &secrets.case),
            ] {
                needles.push(search::Needle {
                    bytes: text.clone().into_bytes(),
                    name: what.to_owned(),
                });
            }
        }
        let mut places = vec![
            self.work.join("spool"),
            self.work.join("logs/repeater.log"),
            self.work.join("logs/archive.log"),
        ];
        places.extend(self.place.folder.clone());
        let (searched, found) = search::search(&places, &needles)?;
        ensure!(
            searched.bytes > 0,
            "there was nothing to search: neither spool nor store holds a byte"
        );
        if !found.is_empty() {
            bail!("found what nobody may read:\n  - {}", found.join("\n  - "));
        }
        println!(
            "searched {} bytes in {} files of spool, store and logs for {footage} pieces of plain footage and {} names: none",
            searched.bytes,
            searched.files,
            needles.len() - footage,
        );
        Ok(())
    }
}
