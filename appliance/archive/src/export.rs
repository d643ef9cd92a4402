//! A recording out of the store, as it was recorded: the exact original bytes, or nothing.
//!
//! Reads only the store, one recipient's key and the pinned root. Checks every signature, digest, number
//! and count before a byte is named `OUT`: the footage goes into a temporary file beside it, which takes its
//! name only when everything was there and unaltered. What is missing or altered is named, all of it. One
//! segment is in memory at a time.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};

use protocol::header::{self, Private};
use protocol::identity::Trust;
use protocol::ids::{Digest, RecordingId};
use protocol::limits;
use protocol::manifest::{EndReason, Manifest, SegmentEntry};
use protocol::segment::{self, Place};
use protocol::suite::{self, AgreementKey};

use crate::chain::{self, Whole};
use crate::found::{self, Found, Object};
use crate::layout::{self, Item};
use crate::vault::{Vault, VaultError};

/// Problems named one by one; further ones are counted.
const NAMED: usize = 64;

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store has nothing of that recording.
    #[error("the store holds nothing of recording {0}")]
    Unknown(String),
    /// The recording is not whole: everything that is wrong with it.
    #[error("recording {recording} is not whole, and nothing was written:\n  - {}", list(.problems))]
    NotWhole {
        /// Which.
        recording: String,
        /// What is missing, altered or contradictory.
        problems: Vec<String>,
    },
    /// The header does not open.
    #[error("the header of recording {recording} does not open with this key: {source}")]
    Header {
        /// Which.
        recording: String,
        /// Why.
        source: header::HeaderError,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The output cannot be written.
    #[error("cannot write {path}: {source}")]
    Output {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn list(problems: &[String]) -> String {
    let mut lines: Vec<String> = problems.iter().take(NAMED).cloned().collect();
    if problems.len() > NAMED {
        lines.push(format!("and {} more", problems.len() - NAMED));
    }
    lines.join("\n  - ")
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Segments opened.
    pub segments: usize,
    /// Bytes of footage written.
    pub bytes: u64,
    /// What the reader should know although the recording is whole: that it was interrupted.
    pub warnings: Vec<String>,
}

/// Exports `recording` to `out`.
///
/// # Errors
/// Any [`ExportError`]; `out` is untouched then.
pub async fn export(
    vault: &Vault,
    recording: &RecordingId,
    trust: &Trust,
    key: &AgreementKey,
    out: &FilePath,
) -> Result<Exported, ExportError> {
    let found = found::recording(vault, recording).await?;
    if found.is_empty() {
        return Err(ExportError::Unknown(recording.full()));
    }
    let not_whole = |problems| ExportError::NotWhole {
        recording: recording.full(),
        problems,
    };
    let whole = whole(vault, recording, &found, trust)
        .await?
        .map_err(not_whole)?;
    let private = open_header(vault, &whole, key).await?;
    let output = |source| ExportError::Output {
        path: out.to_owned(),
        source,
    };
    let directory = out
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(FilePath::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(output)?;
    let (mut bytes, mut problems) = (0, Vec::new());
    for entry in &whole.segments {
        match footage(vault, &whole, entry, &private).await? {
            Ok(plain) if problems.is_empty() => {
                file.write_all(&plain).map_err(output)?;
                bytes += u64::try_from(plain.len()).unwrap_or(u64::MAX);
            }
            Ok(_) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(not_whole(problems));
    }
    file.as_file().sync_all().map_err(output)?;
    file.persist(out).map_err(|e| output(e.error))?;
    File::open(directory)
        .and_then(|d| d.sync_all())
        .map_err(output)?;
    Ok(Exported {
        segments: whole.segments.len(),
        bytes,
        warnings: warnings(&whole),
    })
}

fn warnings(whole: &Whole) -> Vec<String> {
    let count = whole.segments.len();
    match whole.reason {
        EndReason::Stopped => Vec::new(),
        EndReason::Interrupted => {
            vec![format!(
                "the recording was interrupted after {count} segments (power or program lost at the camera); what was on its way into the next segment was never recorded"
            )]
        }
    }
}

/// Reads and joins the manifests, and looks for every object that they name. The inner error is what is
/// wrong.
pub(crate) async fn whole(
    vault: &Vault,
    recording: &RecordingId,
    found: &Found,
    trust: &Trust,
) -> Result<Result<Whole, Vec<String>>, VaultError> {
    let (mut manifests, mut problems) = (Vec::new(), Vec::new());
    for object in found.manifests.values().flatten() {
        match manifest(vault, object, trust).await? {
            Ok(manifest) => manifests.push(manifest),
            Err(problem) => problems.push(problem),
        }
    }
    let joined = chain::join(recording, manifests);
    match joined {
        Ok(whole) => {
            absent(&whole, found, &mut problems);
            Ok(if problems.is_empty() {
                Ok(whole)
            } else {
                Err(problems)
            })
        }
        Err(more) => {
            problems.extend(more);
            Ok(Err(problems))
        }
    }
}

fn absent(whole: &Whole, found: &Found, problems: &mut Vec<String>) {
    if !found
        .headers
        .iter()
        .any(|h| h.digest == whole.header.digest)
    {
        problems.push(format!("its header {} is missing", whole.header.digest));
    }
    let stored = |s: &&SegmentEntry| {
        found
            .segments
            .get(&s.seq)
            .is_some_and(|all| all.iter().any(|o| o.digest == s.digest))
    };
    let missing: Vec<u64> = whole
        .segments
        .iter()
        .filter(|s| !stored(s))
        .map(|s| s.seq)
        .collect();
    if !missing.is_empty() {
        problems.push(format!("not stored: {}", chain::show_all(missing)));
    }
    if found.expired {
        problems
            .push("the archive's owner has marked it as lawfully deleted (`expired`)".to_owned());
    }
}

/// Reads one manifest; the inner error is what is wrong with it.
pub(crate) async fn manifest(
    vault: &Vault,
    object: &Object,
    trust: &Trust,
) -> Result<Result<Manifest, String>, VaultError> {
    let altered = |why: String| Err(format!("{} is altered: {why}", object.path));
    let bytes = match vault
        .read(&object.path, limits::MANIFEST_BYTES)
        .await?
        .bytes()
    {
        Ok(bytes) => bytes,
        Err(why) => return Ok(Err(format!("{} {why}", object.path))),
    };
    Ok(match Manifest::verify(bytes, trust) {
        Err(why) => altered(why.to_string()),
        Ok(manifest) if manifest.digest() != object.digest => {
            altered("its name states another digest".to_owned())
        }
        Ok(manifest) => Ok(manifest),
    })
}

async fn open_header(
    vault: &Vault,
    whole: &Whole,
    key: &AgreementKey,
) -> Result<Private, ExportError> {
    let id = whole.recording.full();
    let path = layout::key(
        &whole.recording,
        Item::Header {
            digest: whole.header.digest,
        },
    );
    let not_whole = |problem| ExportError::NotWhole {
        recording: id.clone(),
        problems: vec![problem],
    };
    let read = named(
        vault,
        &path,
        u64::from(whole.header.length),
        whole.header.digest,
    )
    .await?;
    let bytes = read.map_err(|why| not_whole(format!("its header {path} {why}")))?;
    header::open(&whole.recording, &bytes, key).map_err(|source| ExportError::Header {
        recording: id,
        source,
    })
}

async fn footage(
    vault: &Vault,
    whole: &Whole,
    entry: &SegmentEntry,
    private: &Private,
) -> Result<Result<Vec<u8>, String>, VaultError> {
    let path = layout::key(
        &whole.recording,
        Item::Segment {
            seq: entry.seq,
            digest: entry.digest,
        },
    );
    let sealed = match named(vault, &path, u64::from(entry.length), entry.digest).await? {
        Ok(sealed) => sealed,
        Err(why) => return Ok(Err(format!("segment {} ({path}) {why}", entry.seq))),
    };
    let place = Place {
        recording: &whole.recording,
        seq: entry.seq,
        last: whole.is_last(entry.seq),
    };
    Ok(segment::open(&private.key(), place, &sealed)
        .map_err(|why| format!("segment {} ({path}): {why}", entry.seq)))
}

/// Reads what a manifest names; the inner error is what is wrong with it.
pub(crate) async fn named(
    vault: &Vault,
    path: &object_store::path::Path,
    length: u64,
    digest: Digest,
) -> Result<Result<bytes::Bytes, String>, VaultError> {
    let bytes = match vault.read(path, limits::SEGMENT_BYTES).await?.bytes() {
        Ok(bytes) => bytes,
        Err(why) => return Ok(Err(why)),
    };
    if u64::try_from(bytes.len()) != Ok(length) {
        return Ok(Err(format!(
            "is altered: it has {} bytes, its manifest states {length}",
            bytes.len()
        )));
    }
    let actual = suite::sha256(&bytes);
    if actual != digest {
        return Ok(Err(format!("is altered: its bytes have digest {actual}")));
    }
    Ok(Ok(bytes))
}
