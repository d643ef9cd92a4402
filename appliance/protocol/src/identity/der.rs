//! The few fields of certificates and revocation lists that webpki checks but does not show: validity, the
//! alternative names with their kinds, the extended key usages, a list's issuer and dates.
//!
//! Reads only what webpki has parsed or is about to: it decides nothing, and whatever does not read is `None`.
//! Definite lengths only, no recursion, no allocation but two short lists.

use crate::ids::Time;

/// The context tag of a uniformResourceIdentifier among general names.
pub(super) const URI: u8 = 0x86;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXTENSIONS: u8 = 0xa3;
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// More names or usages than this in one certificate make it unreadable.
const LIST_ENTRIES: usize = 16;

/// What a certificate says.
pub(super) struct Fields<'a> {
    pub(super) not_before: Time,
    pub(super) not_after: Time,
    /// General names with their context tags.
    pub(super) names: Vec<(u8, &'a [u8])>,
    /// Extended key usages, as OID contents.
    pub(super) usages: Vec<&'a [u8]>,
}

/// Reads a certificate.
pub(super) fn fields(certificate: &[u8]) -> Option<Fields<'_>> {
    let mut tbs = Reader(Reader(Reader(certificate).expect(SEQUENCE)?).expect(SEQUENCE)?);
    tbs.expect(0xa0)?; // version 3
    tbs.expect(INTEGER)?; // serial number
    tbs.expect(SEQUENCE)?; // signature algorithm
    tbs.expect(SEQUENCE)?; // issuer
    let mut validity = Reader(tbs.expect(SEQUENCE)?);
    let mut fields = Fields {
        not_before: validity.time()?,
        not_after: validity.time()?,
        names: vec![],
        usages: vec![],
    };
    while !tbs.0.is_empty() {
        let (tag, value) = tbs.next()?;
        if tag == EXTENSIONS {
            read_extensions(Reader(value).expect(SEQUENCE)?, &mut fields)?;
        }
    }
    Some(fields)
}

fn read_extensions<'a>(list: &'a [u8], fields: &mut Fields<'a>) -> Option<()> {
    let mut list = Reader(list);
    while !list.0.is_empty() {
        let mut extension = Reader(list.expect(SEQUENCE)?);
        let id = extension.expect(OID)?;
        let value = match extension.next()? {
            (BOOLEAN, _) => extension.expect(OCTETS)?, // critical or not, it is read alike
            (OCTETS, value) => value,
            _ => return None,
        };
        if id == SUBJECT_ALT_NAME {
            fields.names = read_list(value)?;
        } else if id == EXTENDED_KEY_USAGE {
            fields.usages = read_list(value)?.into_iter().map(|(_, oid)| oid).collect();
        }
    }
    Some(())
}

fn read_list(value: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut list = Reader(Reader(value).expect(SEQUENCE)?);
    let mut entries = vec![];
    while !list.0.is_empty() {
        if entries.len() == LIST_ENTRIES {
            return None;
        }
        entries.push(list.next()?);
    }
    Some(entries)
}

/// What a revocation list says of itself.
pub(super) struct ListFields<'a> {
    /// Whose list it is: the name's contents.
    pub(super) issuer: &'a [u8],
    /// When it was made.
    pub(super) this_update: Time,
    /// When it is due to be replaced.
    pub(super) next_update: Time,
}

/// Reads a revocation list.
pub(super) fn list_fields(crl: &[u8]) -> Option<ListFields<'_>> {
    let mut tbs = Reader(Reader(Reader(crl).expect(SEQUENCE)?).expect(SEQUENCE)?);
    tbs.expect(INTEGER)?; // version 2
    tbs.expect(SEQUENCE)?; // signature algorithm
    Some(ListFields {
        issuer: tbs.expect(SEQUENCE)?,
        this_update: tbs.time()?,
        next_update: tbs.time()?,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let count = usize::from(first & 0x7f);
            if !(1..=3).contains(&count) {
                return None;
            }
            let (digits, after) = rest.split_at_checked(count)?;
            rest = after;
            digits.iter().fold(0, |n, d| n << 8 | usize::from(*d))
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, value)| value)
    }

    fn time(&mut self) -> Option<Time> {
        let (year, rest) = match self.next()? {
            (UTC_TIME, text) => {
                let (year, rest) = text.split_at_checked(2)?;
                let year = digits(year)?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            (GENERALIZED_TIME, text) => {
                let (year, rest) = text.split_at_checked(4)?;
                (digits(year)?, rest)
            }
            _ => return None,
        };
        let [month, day, hour, minute, second] = clock_fields(rest)?;
        if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let seconds =
            days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        Some(Time(seconds * 1000))
    }
}

fn clock_fields(text: &[u8]) -> Option<[u64; 5]> {
    if text.len() != 11 || text[10] != b'Z' {
        return None;
    }
    let mut out = [0; 5];
    for (field, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *field = digits(pair)?;
    }
    Some(out)
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |n, c| {
        Some(n * 10 + u64::from(char::from(*c).to_digit(10)?))
    })
}

/// Days of the proleptic Gregorian calendar; counts years from March so that the leap day is a year's last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    days - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn times_read_as_the_calendar_says() {
        let read = |tag: u8, text: &str| {
            let mut der = vec![tag, u8::try_from(text.len()).unwrap()];
            der.extend_from_slice(text.as_bytes());
            Reader(&der).time()
        };
        assert_eq!(read(UTC_TIME, "700101000000Z"), Some(Time(0)));
        assert_eq!(
            read(UTC_TIME, "261122000000Z"),
            Some(Time(1_795_305_600_000))
        );
        assert_eq!(
            read(GENERALIZED_TIME, "20000229235959Z"),
            Some(Time(951_868_799_000))
        );
        assert_eq!(
            read(GENERALIZED_TIME, "20991231235959Z"),
            Some(Time(4_102_444_799_000))
        );
        for bad in ["700101000000", "701301000000Z", "70010100000xZ", ""] {
            assert_eq!(read(UTC_TIME, bad), None, "{bad}");
        }
    }

    #[test]
    fn junk_and_every_truncation_is_nothing() {
        let certificate = rcgen::generate_simple_self_signed(vec!["x".to_owned()])
            .unwrap()
            .cert;
        let der = certificate.der();
        assert!(fields(der).is_some());
        for end in 0..der.len() {
            assert!(fields(&der[..end]).is_none(), "{end}");
        }
        assert!(list_fields(der).is_none());
    }
}
