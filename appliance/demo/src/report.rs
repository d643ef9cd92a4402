//! The counts, a table of them, and the last line. Each count has its own source; [`Counts::agree`] is where they
//! must be one.

use anyhow::{Result, ensure};

use crate::seal::Piece;

/// What is counted of one camera.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Its serial.
    pub(crate) serial: String,
    /// Recordings, by the camera: the number that the next one would get.
    pub(crate) recordings: u64,
    /// Segments, by the camera: those that it signed for.
    pub(crate) segments: u64,
    /// Segments, by the lines its sealer printed and the manifests it closed recordings with.
    pub(crate) sealed: u64,
    /// Segments that its record says were erased on receipts.
    pub(crate) erased: u64,
    /// Segments on its disk.
    pub(crate) on_disk: u64,
    /// Recordings whose export is the original's bytes.
    pub(crate) identical: u64,
    /// Bytes of footage in them.
    pub(crate) bytes: u64,
}

impl Counts {
    /// Adds what was exported.
    pub(crate) fn add(&mut self, pieces: &[Piece], lengths: &[u64], camera: usize) {
        for (piece, length) in pieces
            .iter()
            .zip(lengths)
            .filter(|(p, _)| p.camera == camera)
        {
            (self.identical, self.bytes) = (self.identical + 1, self.bytes + length);
            self.sealed += piece.segments;
        }
    }

    /// What the camera says, what its disk holds and what came out are one.
    pub(crate) fn agree(&self) -> Result<()> {
        let Counts {
            serial,
            recordings,
            segments,
            sealed,
            erased,
            on_disk,
            identical,
            ..
        } = self;
        ensure!(
            sealed <= segments,
            "camera {serial} sealed {sealed} segments and signed for {segments}"
        );
        ensure!(
            *on_disk == 0,
            "camera {serial} still holds {on_disk} segments"
        );
        ensure!(
            erased == segments,
            "camera {serial} made {segments} segments and has erased {erased} on receipts"
        );
        ensure!(
            identical == recordings,
            "camera {serial} made {recordings} recordings, {identical} came out identical"
        );
        Ok(())
    }
}

/// All cameras together.
pub(crate) fn total(cameras: &[Counts]) -> Counts {
    let sum = |f: fn(&Counts) -> u64| cameras.iter().map(f).sum();
    Counts {
        serial: "all".to_owned(),
        recordings: sum(|c| c.recordings),
        segments: sum(|c| c.segments),
        sealed: sum(|c| c.sealed),
        erased: sum(|c| c.erased),
        on_disk: sum(|c| c.on_disk),
        identical: sum(|c| c.identical),
        bytes: sum(|c| c.bytes),
    }
}

/// A table, a row a camera.
pub(crate) fn table(cameras: &[Counts]) -> String {
    let mut text = String::from(
        "  camera      recordings   segments          bytes    released    left   identical recordings\n",
    );
    for c in cameras.iter().chain([&total(cameras)]) {
        let released = c.erased;
        text.push_str(&format!(
            "  {:<10}  {:>10}  {:>9}  {:>13}  {:>10}  {:>6}  {:>10}\n",
            c.serial, c.recordings, c.segments, c.bytes, released, c.on_disk, c.identical
        ));
    }
    text
}

/// The last line of a run in which everything agrees.
pub(crate) fn last_line(cameras: &[Counts], archived: u64, lost: u64) -> Result<String> {
    for camera in cameras {
        camera.agree()?;
    }
    let all = total(cameras);
    ensure!(
        archived == all.segments,
        "cameras made {} segments, the archive holds {archived}",
        all.segments
    );
    ensure!(lost == 0, "{lost} segments are on no known holder");
    Ok(format!(
        "demo: {} cameras, {} recordings, {} segments, {} bytes: {archived} archived, {} released, {lost} lost, \
         footage identical",
        cameras.len(),
        all.recordings,
        all.segments,
        all.bytes,
        all.erased - all.on_disk,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn good() -> Counts {
        Counts {
            serial: "C".into(),
            recordings: 2,
            segments: 5,
            sealed: 5,
            erased: 5,
            on_disk: 0,
            identical: 2,
            bytes: 99,
        }
    }

    #[test]
    fn the_last_line_is_said_only_where_all_counts_agree() {
        let line = last_line(&[good(), good()], 10, 0).unwrap();
        let expected = "demo: 2 cameras, 4 recordings, 10 segments, 198 bytes: 10 archived, 10 released, 0 lost, footage identical";
        assert_eq!(line, expected);
        for bad in [
            Counts {
                on_disk: 1,
                ..good()
            },
            Counts {
                erased: 4,
                ..good()
            },
            Counts {
                sealed: 6,
                ..good()
            },
            Counts {
                identical: 1,
                ..good()
            },
            Counts {
                recordings: 3,
                ..good()
            },
        ] {
            assert!(last_line(&[good(), bad], 10, 0).is_err());
        }
        assert!(last_line(&[good(), good()], 9, 0).is_err());
        assert!(last_line(&[good(), good()], 10, 1).is_err());
    }
}
