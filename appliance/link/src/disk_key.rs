//! The second key of a station's disk. The first is sealed by its board's TPM, and goes with the board: one that burns, or
//! whose firmware is updated so that its TPM answers no more, would take all footage with it that is not forwarded yet. So
//! each disk has a second one, sealed for those who may open footage anyway: the holders of the agency's escrow keys, as the
//! key list names them. It lies in the disk's own header, so that it is never elsewhere than the footage; whoever has the disk
//! and no escrow key has neither.
//!
//! ```text
//! board dies -> disk in another board -> its line comes out on a stick -> `agency disk-key` with an escrow key -> the key
//! on the stick opens the disk, the new board's TPM seals it, and a new second key takes the place of the one that was used
//! ```
//!
//! It travels as one line: `bwc-disk-key 1 DISK SEALED`, the disk by the UUID of its LUKS header, and a COSE_Encrypt of the form
//! of a recording's header ([`protocol::header`]) in hexadecimal, bound to kind and disk: the line of one disk opens as no
//! other's.
//!
//! Not done here: what a disk does with it (`os-image`), and which key list is believed.

use protocol::header::{HeaderError, open_bytes, seal_bytes};
use protocol::ids::KeyId;
use protocol::limits::HEADER_BYTES;
use protocol::suite::{AgreementKey, PublicKey};
use zeroize::Zeroizing;

use crate::agency::files::{from_hex, to_hex};
use crate::random::Random;

/// The line is at most so long.
pub const LINE_BYTES: usize = 2 * HEADER_BYTES + 100;
/// The key is at most so long.
pub const KEY_BYTES: usize = 512;
const KIND: &str = "bwc-disk-key 1";
const UUID_CHARS: usize = 36;

/// Why a disk's key is not sealed, or does not open.
#[derive(Debug, thiserror::Error)]
pub enum DiskKeyError {
    /// Not such a line.
    #[error("not a disk's sealed key, which is one line `{KIND} DISK SEALED`")]
    Form,
    /// Not a disk's name.
    #[error("`{0}` is no UUID of a disk, such as 5b0c6a3e-1f0d-4e0b-9c56-2f6f3a8f7d11")]
    Disk(String),
    /// Empty or too long.
    #[error("a disk's key has 1 to {KEY_BYTES} bytes, and this one {0}")]
    Length(usize),
    /// Another key's, or altered.
    #[error(transparent)]
    Envelope(#[from] HeaderError),
}

/// Seals the key of `disk` for `holders`, as one line.
///
/// # Errors
/// [`DiskKeyError`]; also where there are no holders.
pub fn seal(
    disk: &str,
    key: &[u8],
    holders: &[PublicKey],
    random: &Random,
) -> Result<String, DiskKeyError> {
    if key.is_empty() || key.len() > KEY_BYTES {
        return Err(DiskKeyError::Length(key.len()));
    }
    let sealed = seal_bytes(key, &context(disk)?, holders, &|out| random.fill(out))?;
    Ok(format!("{KIND} {disk} {}", to_hex(&sealed)))
}

/// Opens a line with the key of one of its holders: the disk, and its key.
///
/// # Errors
/// [`DiskKeyError`].
pub fn open(line: &str, key: &AgreementKey) -> Result<(String, Zeroizing<Vec<u8>>), DiskKeyError> {
    let (disk, sealed) = parse(line)?;
    Ok((disk.to_owned(), open_bytes(&sealed, &context(disk)?, key)?))
}

/// For whom a line is sealed, which is told without a key.
///
/// # Errors
/// [`DiskKeyError`].
pub fn holders(line: &str) -> Result<Vec<KeyId>, DiskKeyError> {
    Ok(protocol::header::recipients(&parse(line)?.1)?)
}

fn parse(line: &str) -> Result<(&str, Vec<u8>), DiskKeyError> {
    if line.len() > LINE_BYTES {
        return Err(DiskKeyError::Form);
    }
    let rest = line.trim().strip_prefix(KIND).ok_or(DiskKeyError::Form)?;
    let mut words = rest.split(' ').skip(1);
    match (words.next(), words.next(), words.next()) {
        (Some(disk), Some(sealed), None) => Ok((disk, from_hex(sealed).ok_or(DiskKeyError::Form)?)),
        _ => Err(DiskKeyError::Form),
    }
}

fn context(disk: &str) -> Result<Vec<u8>, DiskKeyError> {
    let fits = |c: char| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c);
    if disk.len() != UUID_CHARS || !disk.chars().all(fits) {
        return Err(DiskKeyError::Disk(disk.escape_default().to_string()));
    }
    Ok(format!("{KIND} {disk}").into_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const DISK: &str = "5b0c6a3e-1f0d-4e0b-9c56-2f6f3a8f7d11";
    const OTHER: &str = "5b0c6a3e-1f0d-4e0b-9c56-2f6f3a8f7d12";

    #[test]
    fn a_holder_opens_it_and_for_that_disk_alone() {
        let keys = [[1; 32], [2; 32], [3; 32]].map(|s| AgreementKey::from_scalar(&s).unwrap());
        let public = keys.each_ref().map(|k| k.public().unwrap());
        let random = Random::seeded(7);
        let line = seal(DISK, b"a key", &public[..2], &random).unwrap();
        assert_eq!(holders(&line).unwrap(), [public[0].id(), public[1].id()]);
        for key in &keys[..2] {
            let (disk, opened) = open(&format!("{line}\n"), key).unwrap();
            assert_eq!((disk.as_str(), opened.as_slice()), (DISK, &b"a key"[..]));
        }
        assert!(open(&line, &keys[2]).is_err());
        assert!(open(&line.replace(DISK, OTHER), &keys[0]).is_err());
        assert!(!line.contains(&to_hex(b"a key")));
    }

    #[test]
    fn what_is_no_line_or_no_key_is_refused() {
        let key = AgreementKey::from_scalar(&[1; 32]).unwrap();
        let (holder, random) = ([key.public().unwrap()], Random::seeded(7));
        let line = seal(DISK, b"a key", &holder, &random).unwrap();
        let longer = format!("{line}{}", "0".repeat(LINE_BYTES));
        for bad in [
            "",
            KIND,
            &line[..line.len() - 2],
            &line[..line.len() - 1],
            &line[1..],
            &format!("{line} more"),
            &line.replace(DISK, "../x"),
            &longer,
        ] {
            assert!(open(bad, &key).is_err(), "{bad}");
        }
        for disk in ["", "x", "5B0C6A3E-1f0d-4e0b-9c56-2f6f3a8f7d11"] {
            assert!(matches!(
                seal(disk, b"a key", &holder, &random),
                Err(DiskKeyError::Disk(_))
            ));
        }
        assert!(seal(DISK, b"", &holder, &random).is_err());
        assert!(seal(DISK, &[0; KEY_BYTES + 1], &holder, &random).is_err());
        assert!(seal(DISK, b"a key", &[], &random).is_err());
    }
}
