//! What the store holds, told to its owner: `list` by names alone, `verify` by reading and checking every
//! object again.
//!
//! `verify` counts what is good and names what is not: altered objects, signatures that do not verify,
//! conflicts, strangers. What a manifest names and the store lacks is counted as outstanding, not as
//! damage: it may be on its way. It changes nothing, repairs nothing, and opens no footage. Who holds another
//! statement of what there should be (a camera's manifests, say) can have the name of every good segment.

use std::collections::{BTreeMap, BTreeSet};

use protocol::identity::Trust;
use protocol::ids::{Digest, RecordingId};
use serde::Serialize;

use crate::export::{self, named};
use crate::found::{self, Found, Object};
use crate::vault::{Vault, VaultError};

/// One recording, as `list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// `SERIAL/INCARNATION/NUMBER`.
    pub recording: String,
    /// Manifests stored.
    pub manifests: usize,
    /// Headers stored: 1, or 0 while it is on its way.
    pub headers: usize,
    /// Segments stored.
    pub segments: usize,
    /// Bytes of headers and segments.
    pub bytes: u64,
    /// Whether its owner marked it as lawfully deleted.
    pub expired: bool,
}

/// Every recording, in order.
///
/// # Errors
/// [`VaultError`].
pub async fn list(vault: &Vault, mut each: impl FnMut(Listed)) -> Result<(), VaultError> {
    for camera in found::cameras(vault).await? {
        for id in found::recordings(vault, &camera).await? {
            let found = found::recording(vault, &id).await?;
            let bulk = found.segments.values().flatten().chain(&found.headers);
            each(Listed {
                recording: id.full(),
                manifests: found.manifests.values().map(Vec::len).sum(),
                headers: found.headers.len(),
                segments: found.segments.values().map(Vec::len).sum(),
                bytes: bulk.map(|o| o.length).sum(),
                expired: found.expired,
            });
        }
    }
    Ok(())
}

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Recordings with at least one object.
    pub recordings: u64,
    /// Recordings whose manifests join from the first to the final one, with every object stored and good.
    pub whole: u64,
    /// Manifests whose signature and digest verify.
    pub manifests: u64,
    /// Headers that a good manifest names and whose digest matches.
    pub headers: u64,
    /// Segments that a good manifest names and whose length and digest match.
    pub segments: u64,
    /// Bytes of those headers and segments.
    pub bytes: u64,
    /// Headers and segments that good manifests name and the store does not hold.
    pub outstanding: u64,
    /// Recordings marked as lawfully deleted.
    pub expired: u64,
    /// Everything that is wrong, one sentence each.
    pub problems: Vec<String>,
}

/// A segment as the manifests name it: of which recording, its number, its digest.
pub type Good<'a> = (&'a RecordingId, u64, Digest);

/// Reads and checks every object of every recording; `each` is told of every segment that is good.
///
/// # Errors
/// [`VaultError`] where the store cannot be read.
pub async fn verify(
    vault: &Vault,
    trust: &Trust,
    mut each: impl FnMut(Good<'_>),
) -> Result<Report, VaultError> {
    let mut report = Report::default();
    for camera in found::cameras(vault).await? {
        for id in found::recordings(vault, &camera).await? {
            let found = found::recording(vault, &id).await?;
            if !found.is_empty() {
                recording(vault, trust, (&id, &found), &mut report, &mut each).await?;
            }
            report.problems.extend(
                found
                    .strangers
                    .iter()
                    .map(|s| format!("{s} is nothing that a gateway writes")),
            );
        }
    }
    Ok(report)
}

async fn recording(
    vault: &Vault,
    trust: &Trust,
    (id, found): (&RecordingId, &Found),
    report: &mut Report,
    each: &mut impl FnMut(Good<'_>),
) -> Result<(), VaultError> {
    report.recordings += 1;
    report.expired += u64::from(found.expired);
    let problems_before = report.problems.len();
    let mut headers: BTreeSet<(Digest, u64)> = BTreeSet::new();
    let mut segments: BTreeMap<(u64, Digest), u64> = BTreeMap::new();
    for object in found.manifests.values().flatten() {
        match export::manifest(vault, object, trust).await? {
            Ok(manifest) if manifest.recording() == id => {
                report.manifests += 1;
                let header = manifest.body().header;
                headers.insert((header.digest, u64::from(header.length)));
                segments.extend(
                    manifest
                        .body()
                        .segments
                        .iter()
                        .map(|s| ((s.seq, s.digest), u64::from(s.length))),
                );
            }
            Ok(_) => report
                .problems
                .push(format!("{} speaks for another recording", object.path)),
            Err(problem) => report.problems.push(problem),
        }
    }
    conflicts(id, found, report);
    let outstanding_before = report.outstanding;
    let of_headers = headers
        .iter()
        .map(|(digest, length)| (*digest, *length, find(&found.headers, *digest)));
    for (digest, length, object) in of_headers {
        report.headers += check(vault, object, length, digest, report).await?;
    }
    for ((seq, digest), length) in &segments {
        let object = found.segments.get(seq).and_then(|all| find(all, *digest));
        if check(vault, object, *length, *digest, report).await? == 1 {
            report.segments += 1;
            each((id, *seq, *digest));
        }
    }
    let named = |o: &&Object, seq: Option<u64>| match seq {
        None => headers.iter().any(|(digest, _)| *digest == o.digest),
        Some(seq) => segments.contains_key(&(seq, o.digest)),
    };
    let all = found.headers.iter().map(|o| (o, None));
    let all = all.chain(
        found
            .segments
            .iter()
            .flat_map(|(seq, all)| all.iter().map(|o| (o, Some(*seq)))),
    );
    for (object, _) in all.filter(|(o, seq)| !named(o, *seq)) {
        report.problems.push(format!(
            "{} is named by no manifest that verifies",
            object.path
        ));
    }
    let good = report.problems.len() == problems_before && report.outstanding == outstanding_before;
    if good && export::whole(vault, id, found, trust).await?.is_ok() {
        report.whole += 1;
    }
    Ok(())
}

fn find(objects: &[Object], digest: Digest) -> Option<&Object> {
    objects.iter().find(|o| o.digest == digest)
}

/// 1 for an object whose bytes are good, else 0 with its problem reported.
async fn check(
    vault: &Vault,
    object: Option<&Object>,
    length: u64,
    digest: Digest,
    report: &mut Report,
) -> Result<u64, VaultError> {
    let Some(object) = object else {
        report.outstanding += 1;
        return Ok(0);
    };
    match named(vault, &object.path, length, digest).await? {
        Ok(_) => {
            report.bytes += length;
            Ok(1)
        }
        Err(why) => {
            report.problems.push(format!("{} {why}", object.path));
            Ok(0)
        }
    }
}

fn conflicts(id: &RecordingId, found: &Found, report: &mut Report) {
    let id = id.full();
    for (index, _) in found.manifests.iter().filter(|(_, all)| all.len() > 1) {
        report
            .problems
            .push(format!("{id}: two different manifests carry index {index}"));
    }
    for (seq, _) in found.segments.iter().filter(|(_, all)| all.len() > 1) {
        report
            .problems
            .push(format!("{id}: two different segments carry number {seq}"));
    }
    if found.headers.len() > 1 {
        report
            .problems
            .push(format!("{id}: two different headers are stored"));
    }
}
