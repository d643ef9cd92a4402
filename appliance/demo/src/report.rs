//! The counts, a table of them, and the last line. Each count has its own source; [`Counts::agree`] is where they
//! must be one.

use anyhow::{Result, ensure};

use crate::seal::Piece;
use crate::signed::Became;

/// What is counted of one camera.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Its serial.
    pub(crate) serial: String,
    /// Recordings, by the manifests on its disk before it erased any.
    pub(crate) recordings: u64,
    /// Segments, by the same manifests.
    pub(crate) segments: u64,
    /// Bytes of footage, by the same manifests.
    pub(crate) signed_bytes: u64,
    /// Segments, by the lines its sealer printed and the manifests that closed what was interrupted.
    pub(crate) sealed: u64,
    /// Segments that its record says were erased on receipts.
    pub(crate) erased: u64,
    /// Segments on its disk at the end.
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

    /// What the camera signed for, what its disk holds and what came out are one.
    pub(crate) fn agree(&self) -> Result<()> {
        let Counts {
            serial,
            recordings,
            segments,
            signed_bytes,
            sealed,
            erased,
            on_disk,
            identical,
            bytes,
        } = self;
        ensure!(
            sealed == segments,
            "camera {serial} sealed {sealed} segments and signed for {segments}"
        );
        ensure!(
            bytes == signed_bytes,
            "camera {serial} signed for {signed_bytes} bytes of footage, {bytes} came out"
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
        signed_bytes: sum(|c| c.signed_bytes),
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
        let released = c.segments.saturating_sub(c.on_disk);
        text.push_str(&format!(
            "  {:<10}  {:>10}  {:>9}  {:>13}  {:>10}  {:>6}  {:>10}\n",
            c.serial, c.recordings, c.segments, c.bytes, released, c.on_disk, c.identical
        ));
    }
    text
}

/// The last line of a run in which everything agrees.
pub(crate) fn last_line(cameras: &[Counts], became: Became) -> Result<String> {
    let Became { archived, lost } = became;
    for camera in cameras {
        camera.agree()?;
    }
    let all = total(cameras);
    ensure!(
        archived == all.segments,
        "cameras made {} segments, the archive holds {archived}",
        all.segments
    );
    ensure!(lost == 0, "{lost} segments are lost");
    Ok(format!(
        "demo: {} cameras, {} recordings, {} segments, {} bytes: {archived} archived, {} released, {lost} lost, \
         footage identical",
        cameras.len(),
        all.recordings,
        all.segments,
        all.bytes,
        all.segments - all.on_disk,
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
            signed_bytes: 99,
            sealed: 5,
            erased: 5,
            on_disk: 0,
            identical: 2,
            bytes: 99,
        }
    }

    #[test]
    fn the_last_line_is_said_only_where_all_counts_agree() {
        let all = |archived, lost| Became { archived, lost };
        let line = last_line(&[good(), good()], all(10, 0)).unwrap();
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
                sealed: 4,
                ..good()
            },
            Counts {
                signed_bytes: 98,
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
            assert!(last_line(&[good(), bad], all(10, 0)).is_err());
        }
        assert!(last_line(&[good(), good()], all(9, 0)).is_err());
        assert!(last_line(&[good(), good()], all(10, 1)).is_err());
    }
}
