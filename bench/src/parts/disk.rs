//! The raw disk, by the fastest way found: a file per segment, its room reserved, written in pieces whose
//! writeback is started at once, synced every 16 MiB together with the folder. And the way back.
//!
//! The same calls as the spool's, without its ledger, logbook and digests. Nothing is verified.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use link::clock::Clock;
use link::random::Random;
use nix::fcntl::{FallocateFlags, fallocate};

use super::{SEGMENT_BYTES, Sample};
use crate::figures::quantile;
use crate::process::own_cpu_s;

const PIECE: usize = 256 << 10;
/// Segments of one commit: 16 MiB.
const GROUP: usize = 4;

/// Segments written and not yet durable.
#[derive(Debug)]
struct Written {
    folder: File,
    files: Vec<File>,
    commits_ms: Vec<f64>,
    clock: Clock,
}

impl Written {
    fn new(folder: &Path, clock: &Clock) -> Result<Written> {
        let folder =
            File::open(folder).with_context(|| format!("cannot open {}", folder.display()))?;
        Ok(Written {
            folder,
            files: Vec::new(),
            commits_ms: Vec::new(),
            clock: clock.clone(),
        })
    }
    fn commit(&mut self) -> Result<()> {
        let began = self.clock.instant();
        for file in self.files.drain(..) {
            file.sync_data()?;
        }
        self.folder.sync_all()?;
        let took = self.clock.instant().duration_since(began);
        self.commits_ms.push(took.as_secs_f64() * 1000.0);
        Ok(())
    }
}

/// Writes `segments` files into `folder`.
pub(super) fn write(folder: &Path, segments: u64) -> Result<()> {
    let mut segment = vec![0; SEGMENT_BYTES];
    Random::system().fill(&mut segment);
    let clock = Clock::system();
    let mut written = Written::new(folder, &clock)?;
    let (began, cpu) = (clock.instant(), own_cpu_s());
    for n in 0..segments {
        written
            .files
            .push(write_one(&folder.join(format!("{n:08}")), &segment)?);
        if written.files.len() == GROUP {
            written.commit()?;
        }
    }
    written.commit()?;
    let wall_s = clock.instant().duration_since(began).as_secs_f64();
    let commits = written.commits_ms;
    let sample = Sample {
        bytes: segments * SEGMENT_BYTES as u64,
        wall_s,
        cpu_s: own_cpu_s() - cpu,
        commit_p50_ms: quantile(commits.clone(), 0.5),
        commit_p99_ms: quantile(commits, 0.99),
    };
    sample.print();
    Ok(())
}

fn write_one(path: &Path, segment: &[u8]) -> Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let length = i64::try_from(segment.len()).expect("4 MiB fit");
    fallocate(&file, FallocateFlags::empty(), 0, length)?;
    let mut offset = 0;
    for piece in segment.chunks(PIECE) {
        file.write_all(piece)?;
        spool::early_writeback::start(&file, offset, piece.len() as u64);
        offset += piece.len() as u64;
    }
    Ok(file)
}

/// Reads every file of `folder`, as a sender does: in pieces, into one buffer.
pub(super) fn read(folder: &Path) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    let clock = Clock::system();
    let (began, cpu) = (clock.instant(), own_cpu_s());
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let file = File::open(entry?.path())?;
        let mut offset = 0;
        loop {
            let n = file.read_at(&mut buffer, offset)?;
            if n == 0 {
                break;
            }
            offset += n as u64;
        }
        bytes += offset;
    }
    ensure!(bytes > 0, "nothing to read in {}", folder.display());
    let wall_s = clock.instant().duration_since(began).as_secs_f64();
    Sample {
        bytes,
        wall_s,
        cpu_s: own_cpu_s() - cpu,
        ..Sample::default()
    }
    .print();
    Ok(())
}

/// Makes durable what another program wrote into `folder` and left in RAM.
pub(super) fn sync(folder: &Path) -> Result<()> {
    let clock = Clock::system();
    let (began, cpu) = (clock.instant(), own_cpu_s());
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        bytes += file.metadata()?.len();
    }
    File::open(folder)?.sync_all()?;
    let wall_s = clock.instant().duration_since(began).as_secs_f64();
    Sample {
        bytes,
        wall_s,
        cpu_s: own_cpu_s() - cpu,
        ..Sample::default()
    }
    .print();
    Ok(())
}
