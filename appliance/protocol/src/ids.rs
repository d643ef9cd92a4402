//! Identifiers as types of their own, so that a digest is never taken for a number nor a site for a
//! camera. Each parses from what a peer sent, bounded, and prints the way logs and pages show it.

use std::fmt;
use std::sync::Arc;

use minicbor::decode::Error as DecodeError;
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::limits;

/// Milliseconds since the Unix epoch, as said by somebody's clock. Never used to decide custody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Time(#[n(0)] pub u64);

impl Time {
    /// This time and `ms` milliseconds, saturating.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Time {
        Time(self.0.saturating_add(ms))
    }
    /// Milliseconds since `earlier`, 0 if that lies ahead.
    #[must_use]
    pub fn since_ms(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub fn secs(self) -> u64 {
        self.0 / 1000
    }
}

/// A name that is not one: what was given and why it is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a {what}: use 1 to {max} of the characters A-Z a-z 0-9 . _ -", max = limits::NAME_CHARS)]
pub struct BadName {
    given: String,
    what: &'static str,
}

fn check_name(given: &str, what: &'static str) -> Result<Arc<str>, BadName> {
    let fits = (1..=limits::NAME_CHARS).contains(&given.len());
    let clean = given
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits && clean && !given.starts_with('.') {
        Ok(given.into())
    } else {
        let given = given.chars().take(limits::NAME_CHARS).collect();
        Err(BadName { given, what })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);
        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::str::FromStr for $type {
            type Err = BadName;
            fn from_str(given: &str) -> Result<Self, BadName> {
                check_name(given, $what).map(Self)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($type), self.0)
            }
        }
        impl<C> Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self, e: &mut Encoder<W>, _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }
        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                d.str()?.parse().map_err(|_| DecodeError::message(concat!("not a ", $what)))
            }
        }
    };
}

name!(
    /// A camera's serial, as in its device certificate. Said only inside authenticated sessions.
    Serial, "camera serial"
);
name!(
    /// An archive site's name, as in its certificate and in receipts.
    SiteId, "site name"
);

name!(
    /// A station's name, as in its repeaters' certificates.
    Station, "station name"
);

macro_rules! bytes_id {
    ($(#[$doc:meta])* $type:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $type(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; $len]);
        impl $type {
            /// From a slice of exactly the right length.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
            /// From lower-case or upper-case hexadecimal of exactly the right length.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let text = text.as_bytes();
                if text.len() != 2 * $len {
                    return None;
                }
                let mut out = [0; $len];
                for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
                    let digit = |c: u8| char::from(c).to_digit(16);
                    *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
                }
                Some(Self(out))
            }
            /// The bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($type))
            }
        }
    };
}

bytes_id!(
    /// SHA-256 of the whole sealed object as it travels and lies on disk.
    Digest, 32
);
bytes_id!(
    /// The incarnation of a camera's storage, or of a repeater's logbook: random, made when that is begun.
    Incarnation, 16
);
bytes_id!(
    /// The incarnation of a site's store: a site that lost what it stored starts a new epoch.
    StoreEpoch, 16
);
bytes_id!(
    /// Names a P-256 public key: the first 16 bytes of SHA-256 over its uncompressed SEC1 form.
    KeyId, 16
);

/// One camera's storage: a wiped or replaced storage is another camera id under the same serial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct CameraId {
    /// The device's serial.
    #[n(0)]
    pub serial: Serial,
    /// The storage's incarnation.
    #[n(1)]
    pub incarnation: Incarnation,
}

impl fmt::Display for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.incarnation.0;
        write!(f, "{}~{a:02x}{b:02x}{c:02x}{d:02x}", self.serial)
    }
}

/// One repeater of a station, as in its certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct RepeaterId {
    /// The station.
    #[n(0)]
    pub station: Station,
    /// Its number there.
    #[n(1)]
    pub n: u16,
}

impl fmt::Display for RepeaterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.station, self.n)
    }
}

/// One recording: what one press made. Numbers count from 0 without gaps within a camera id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct RecordingId {
    /// The camera that recorded.
    #[n(0)]
    pub camera: CameraId,
    /// Its number on that camera.
    #[n(1)]
    pub number: u64,
}

impl fmt::Display for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.camera, self.number)
    }
}

/// The error of [`RecordingId`]'s full text form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a recording: write SERIAL/INCARNATION/NUMBER, the incarnation as 32 hex digits"
)]
pub struct BadRecordingId(String);

impl RecordingId {
    /// The unabridged form `SERIAL/INCARNATION/NUMBER`, which [`std::str::FromStr`] reads back.
    #[must_use]
    pub fn full(&self) -> String {
        format!(
            "{}/{}/{}",
            self.camera.serial, self.camera.incarnation, self.number
        )
    }
}

impl std::str::FromStr for RecordingId {
    type Err = BadRecordingId;
    fn from_str(given: &str) -> Result<Self, BadRecordingId> {
        let parse = || {
            let mut parts = given.splitn(3, '/');
            let serial = parts.next()?.parse().ok()?;
            let incarnation = Incarnation::from_hex(parts.next()?)?;
            let number = parts.next()?.parse().ok()?;
            Some(RecordingId {
                camera: CameraId {
                    serial,
                    incarnation,
                },
                number,
            })
        };
        parse().ok_or_else(|| BadRecordingId(given.chars().take(limits::TEXT_CHARS).collect()))
    }
}

/// An inclusive range of segment or recording numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Range {
    /// First number.
    #[n(0)]
    pub from: u64,
    /// Last number, not below `from`.
    #[n(1)]
    pub to: u64,
}

impl Range {
    /// Whether `n` lies in the range.
    #[must_use]
    pub fn contains(&self, n: u64) -> bool {
        (self.from..=self.to).contains(&n)
    }
    /// How many numbers the range holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.to - self.from).saturating_add(1)
    }
}

/// Whether `ranges` are each well-formed, ascending and apart (adjacent ones are joined).
#[must_use]
pub fn ranges_are_canonical(ranges: &[Range]) -> bool {
    ranges.iter().all(|r| r.from <= r.to)
        && ranges
            .windows(2)
            .all(|w| w[0].to.checked_add(1).is_some_and(|next| next < w[1].from))
}

/// The canonical ranges of the numbers in `sorted` (ascending; duplicates are folded).
#[must_use]
pub fn ranges_of(sorted: impl IntoIterator<Item = u64>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for n in sorted {
        match ranges.last_mut() {
            Some(last) if n <= last.to => {}
            Some(last) if last.to.checked_add(1) == Some(n) => last.to = n,
            _ => ranges.push(Range { from: n, to: n }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_are_bounded_and_plain() {
        assert!("BWC-0001".parse::<Serial>().is_ok());
        for bad in ["", "a b", "a/b", "..", ".hidden", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<Serial>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_recording_id_reads_back() {
        let id = RecordingId {
            camera: CameraId {
                serial: "S1".parse().unwrap(),
                incarnation: Incarnation([7; 16]),
            },
            number: 42,
        };
        assert_eq!(id.full().parse::<RecordingId>().unwrap(), id);
        assert!("S1/07/42".parse::<RecordingId>().is_err());
    }

    #[test]
    fn ranges_fold() {
        let r = ranges_of([0, 1, 1, 2, 5, 7, 8]);
        assert_eq!(
            r,
            [
                Range { from: 0, to: 2 },
                Range { from: 5, to: 5 },
                Range { from: 7, to: 8 }
            ]
        );
        assert!(ranges_are_canonical(&r));
        assert!(!ranges_are_canonical(&[
            Range { from: 0, to: 2 },
            Range { from: 3, to: 4 }
        ]));
    }
}
