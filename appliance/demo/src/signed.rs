//! What the cameras signed for, taken from their disks while they hold all of it, and what became of it.
//!
//! Taken after the last recording has ended and before any camera may erase: each recording number below the
//! camera's next one has a folder, its manifests verify, follow each other from the first to the final one and count
//! to what they name, and every segment that they name lies there. So nothing that the repeater or the archive says
//! is needed to know what must arrive: what is neither in the store, read again, nor on its camera is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protocol::identity::Trust;

use crate::store::{self, Named};

/// Names of segments that an error tells.
const TOLD: usize = 5;

/// One segment, as manifests name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    /// The recording's full name.
    pub(crate) recording: String,
    /// Its place in the recording.
    pub(crate) seq: u64,
    /// The digest of its sealed bytes.
    pub(crate) digest: String,
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.recording, self.seq, self.digest)
    }
}

impl Segment {
    /// Reads what [`fmt::Display`] writes, which is what `archive verify --segments` writes too.
    pub(crate) fn read(line: &str) -> Option<Segment> {
        let mut words = line.split(' ');
        let (recording, seq, digest) = (words.next()?, words.next()?, words.next()?);
        let seq = seq.parse().ok()?;
        words.next().is_none().then(|| Segment {
            recording: recording.to_owned(),
            seq,
            digest: digest.to_owned(),
        })
    }
}

/// What one camera signed for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signed {
    /// Recordings.
    pub(crate) recordings: u64,
    /// Segments, by the recording's number and the place in it.
    pub(crate) segments: BTreeMap<(u64, u64), Segment>,
    /// Bytes of footage in them.
    pub(crate) bytes: u64,
}

impl Signed {
    /// Takes it from the disk of a camera that calls itself `camera` (`SERIAL/INCARNATION`) and gives its next
    /// recording the number `next`.
    pub(crate) fn take(disk: &Path, camera: &str, next: u64, trust: &Trust) -> Result<Signed> {
        let mut signed = Signed {
            recordings: next,
            ..Signed::default()
        };
        let there = store::recordings(disk)?.len() as u64;
        ensure!(
            there == next,
            "camera {camera} has numbered {next} recordings and holds {there} before it may erase any"
        );
        for number in 0..next {
            let recording = format!("{camera}/{number}");
            let dir = store::recording(disk, number)?
                .with_context(|| format!("recording {recording} is not on its camera's disk"))?;
            let named = store::named(&dir, trust)?
                .with_context(|| format!("recording {recording}: manifests are missing"))?;
            whole(&named).with_context(|| format!("recording {recording}"))?;
            ensure!(
                named.recording == recording,
                "the manifests in the place of recording {recording} speak of {}",
                named.recording
            );
            signed.bytes += named.footage;
            for (seq, digest) in named.segments {
                let segment = Segment {
                    recording: recording.clone(),
                    seq,
                    digest: digest.to_string(),
                };
                signed.segments.insert((number, seq), segment);
            }
        }
        let held = store::segments_on_disk(disk)?;
        ensure!(
            held.iter().eq(signed.segments.keys()),
            "camera {camera} signed for {} segments and holds {} before it may erase any",
            signed.segments.len(),
            held.len()
        );
        Ok(signed)
    }

    /// Those that its disk holds now.
    pub(crate) fn left(&self, disk: &Path) -> Result<BTreeSet<Segment>> {
        let held = store::segments_on_disk(disk)?;
        let named = held.iter().filter_map(|place| self.segments.get(place));
        Ok(named.cloned().collect())
    }
}

/// The manifests name segments from 0 on without a gap, so many as the final one counts.
fn whole(named: &Named) -> Result<()> {
    let end = named.end.context("no final manifest")?;
    let count = named.segments.len() as u64;
    ensure!(
        named.segments.iter().map(|(seq, _)| *seq).eq(0..count),
        "its manifests do not name its segments one after the other"
    );
    ensure!(
        end.segments == count,
        "its final manifest counts {} segments, its manifests name {count}",
        end.segments
    );
    Ok(())
}

/// What became of what was signed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Became {
    /// Segments in the store.
    pub(crate) archived: u64,
    /// Segments neither in the store nor on their camera.
    pub(crate) lost: u64,
}

/// Compares what cameras `signed` for with what the `store` holds and what is `left` on the cameras.
///
/// # Errors
/// Where the store holds a segment that no camera signed for, and where a segment is lost: which.
pub(crate) fn account(
    signed: &[Signed],
    store: &BTreeSet<Segment>,
    left: &BTreeSet<Segment>,
) -> Result<Became> {
    let all: BTreeSet<&Segment> = signed.iter().flat_map(|s| s.segments.values()).collect();
    let strange: Vec<&Segment> = store.iter().filter(|s| !all.contains(s)).collect();
    ensure!(
        strange.is_empty(),
        "the store holds {} segments that no camera signed for:{}",
        strange.len(),
        some(&strange)
    );
    let gone = |s: &&&Segment| !store.contains(**s) && !left.contains(**s);
    let lost: Vec<&Segment> = all.iter().filter(gone).copied().collect();
    ensure!(
        lost.is_empty(),
        "{} segments are lost, neither in the store nor on their camera:{}",
        lost.len(),
        some(&lost)
    );
    Ok(Became {
        archived: store.len() as u64,
        lost: lost.len() as u64,
    })
}

fn some(segments: &[&Segment]) -> String {
    let told = segments.iter().take(TOLD).map(|s| format!("\n  - {s}"));
    told.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use link::clock::Clock;
    use link::credentials::load_trust;
    use link::random::Random;
    use protocol::ids::Digest;
    use protocol::manifest::{End, EndReason};

    fn segment(seq: u64) -> Segment {
        Segment {
            recording: "C/01/0".into(),
            seq,
            digest: format!("{seq:02x}"),
        }
    }

    fn set(seqs: &[u64]) -> BTreeSet<Segment> {
        seqs.iter().copied().map(segment).collect()
    }

    #[test]
    fn a_segment_that_neither_store_nor_camera_holds_is_lost_and_named() {
        let signed = [Signed {
            recordings: 1,
            segments: (0..3).map(|n| ((0, n), segment(n))).collect(),
            bytes: 3,
        }];
        let all = account(&signed, &set(&[0, 1, 2]), &set(&[]));
        let (archived, lost) = (3, 0);
        assert_eq!(all.unwrap(), Became { archived, lost });
        let waits = account(&signed, &set(&[0, 2]), &set(&[1]));
        assert_eq!(
            waits.unwrap().archived,
            2,
            "what its camera has is not lost"
        );
        let lost = account(&signed, &set(&[0, 2]), &set(&[])).unwrap_err();
        assert!(lost.to_string().contains("1 segments are lost"), "{lost}");
        assert!(lost.to_string().contains("C/01/0 1 01"), "{lost}");
        let strange = account(&signed, &set(&[0, 1, 2, 7]), &set(&[])).unwrap_err();
        assert!(strange.to_string().contains("C/01/0 7 07"), "{strange}");
        // The same place with other bytes is another segment: one is lost and one is strange.
        let mut other = set(&[0, 1]);
        other.insert(Segment {
            digest: "ff".into(),
            ..segment(2)
        });
        assert!(account(&signed, &other, &set(&[])).is_err());
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let written = segment(7).to_string();
        assert_eq!(Segment::read(&written), Some(segment(7)));
        for bad in ["", "C/01/0 7", "C/01/0 x 07", "C/01/0 7 07 more"] {
            assert_eq!(Segment::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_recording_without_its_end_or_with_a_gap_is_not_whole() {
        let named = |seqs: &[u64], end: Option<u64>| Named {
            recording: "C/01/0".into(),
            segments: seqs.iter().map(|s| (*s, Digest([0; 32]))).collect(),
            footage: 0,
            end: end.map(|segments| End {
                segments,
                reason: EndReason::Stopped,
            }),
        };
        assert!(whole(&named(&[0, 1], Some(2))).is_ok());
        for bad in [
            named(&[0, 1], None),
            named(&[0, 2], Some(2)),
            named(&[1, 2], Some(2)),
            named(&[0, 1], Some(3)),
        ] {
            assert!(whole(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_disk_that_lacks_a_numbered_recording_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        let agency = dir.path().join("agency");
        let options = link::agency::TrialOptions::default();
        let (clock, random) = (Clock::system(), Random::system());
        link::agency::trial(&agency, &options, &clock, &random).unwrap();
        let root = load_trust(&agency.join("trust.pem"), None).unwrap();
        let none = Signed::take(dir.path(), "C/01", 0, &root).unwrap();
        assert_eq!(none, Signed::default());
        let lacks = Signed::take(dir.path(), "C/01", 1, &root).unwrap_err();
        assert!(lacks.to_string().contains("numbered 1"), "{lacks}");
    }
}
