//! Names and numbers of the outside, bounded and `Copy`: an interface's name, a bay's, a station's MAC address.

use std::fmt;
use std::str::FromStr;

/// The longest name of an interface that Linux has.
pub const NAME_BYTES: usize = 15;

/// A short printable text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Short {
    bytes: [u8; NAME_BYTES],
    length: u8,
}

impl Short {
    fn parse(text: &str) -> Option<Short> {
        let fits = (1..=NAME_BYTES).contains(&text.len());
        let shown = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        let length = u8::try_from(text.len()).ok()?;
        (fits && shown).then(|| {
            let mut bytes = [0; NAME_BYTES];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            Short { bytes, length }
        })
    }

    fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.length.into()).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

/// Not such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("1 to {NAME_BYTES} visible ASCII characters without a slash")]
pub struct BadName;

macro_rules! short {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Short);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Short::parse(text).map($name).ok_or(BadName)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
    };
}

short!(
    /// The name of a network interface.
    LinkName
);
short!(
    /// The name of a dock's bay, as it is printed on the dock.
    Bay
);

/// A station's hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Not a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("six bytes in hexadecimal, with colons between")]
pub struct BadMac;

impl FromStr for Mac {
    type Err = BadMac;
    fn from_str(text: &str) -> Result<Mac, BadMac> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|p| p.len() == 2).ok_or(BadMac)?;
            let digits = part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| digits)
                .ok_or(BadMac)?;
        }
        parts.next().is_none().then_some(Mac(mac)).ok_or(BadMac)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_are_bounded_and_visible() {
        for good in ["wlan0", "A1", "enx001122334455"] {
            assert_eq!(good.parse::<LinkName>().unwrap().as_str(), good);
            assert_eq!(good.parse::<Bay>().unwrap().to_string(), good);
        }
        for bad in ["", "sixteen-bytes-ab", "a b", "a/b", "\u{e9}", "a\n"] {
            assert_eq!(bad.parse::<LinkName>(), Err(BadName), "{bad}");
        }
    }

    #[test]
    fn a_mac_reads_as_it_is_written() {
        let text = "02:00:5e:00:53:ff";
        assert_eq!(text.parse::<Mac>().unwrap().to_string(), text);
        for bad in [
            "",
            "02:00:5e:00:53",
            "02:00:5e:00:53:ff:00",
            "2:0:5e:0:53:ff",
            "+2:00:5e:00:53:ff",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(BadMac), "{bad}");
        }
    }
}
