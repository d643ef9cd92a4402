//! Whose a spool is: the file `owner` in its folder says which repeater keeps it. A daemon that finds another's does not
//! begin: footage that one station answers for would be forwarded, and its logbook gone on with, by another that nobody
//! told. `repeaterd adopt` tells it. A spool without the file is its finder's: releases before this one wrote none.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The file is a line of at most so many bytes.
const MOST: u64 = 256;

/// Another repeater's spool.
#[derive(Debug, thiserror::Error)]
#[error("{}: it is the spool of {owner}, and this is {own}; `repeaterd adopt` makes it this one's", .dir.display())]
pub(crate) struct Foreign {
    dir: PathBuf,
    owner: String,
    own: String,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("owner")
}

/// Who keeps the spool; none where it does not say.
///
/// # Errors
/// Where the file cannot be read, or is none.
pub(crate) fn read(dir: &Path) -> anyhow::Result<Option<String>> {
    use std::io::Read;
    let path = path(dir);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut text = String::new();
    file.take(MOST)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", path.display()))?;
    // A power cut may leave a file without its bytes; it is written before anything is kept.
    let text = text.trim();
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Makes sure that the spool in `dir` is not another's than `own`'s.
///
/// # Errors
/// [`Foreign`], or what the disk says.
pub(crate) fn check(dir: &Path, own: &str) -> anyhow::Result<()> {
    match read(dir)?.filter(|owner| owner != own) {
        None => Ok(()),
        Some(owner) => Err(Foreign {
            dir: dir.to_owned(),
            owner,
            own: own.to_owned(),
        }
        .into()),
    }
}

/// Notes a spool that says nothing as `own`'s. It has passed [`check`], and is this process's alone.
///
/// # Errors
/// What the disk says.
pub(crate) fn claim(dir: &Path, own: &str) -> anyhow::Result<()> {
    match read(dir)? {
        Some(_) => Ok(()),
        None => write(dir, own),
    }
}

/// Says durably whose the spool is.
///
/// # Errors
/// What the disk says.
pub(crate) fn write(dir: &Path, own: &str) -> anyhow::Result<()> {
    let (path, new) = (path(dir), dir.join("owner.new"));
    let put = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        writeln!(file, "{own}")?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    put().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_spool_is_its_finders_and_then_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert_eq!(read(dir).unwrap(), None);
        let (one, other) = ("urn:bwc:repeater:a:1", "urn:bwc:repeater:b:1");
        check(dir, other).unwrap();
        claim(dir, one).unwrap();
        claim(dir, other).unwrap();
        check(dir, one).unwrap();
        let e = check(dir, other).unwrap_err();
        assert!(e.is::<Foreign>() && e.to_string().contains("adopt"), "{e}");
        write(dir, other).unwrap();
        check(dir, other).unwrap();
        // Of a power cut before its bytes were there.
        std::fs::write(path(dir), "").unwrap();
        check(dir, one).unwrap();
    }
}
