//! What the configuration says of discovery: docks, hostapd's sockets, which interfaces may be used, and how well a
//! camera on the air must be heard. Pure: what an interface is and whether it may be used follow from its name, its
//! place in sysfs and the routes.
//!
//! An interface that is denied (`wan`) is never used, whatever else names it. One that is named (`interfaces`, a dock,
//! a hostapd) may be used. Where `interfaces` names any, no other is used; where it names none, every one is but
//! those that carry the default route.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Bay, Medium};

/// Discovery's part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether cameras are found by DNS-SD.
    pub mdns: bool,
    /// Cameras at fixed addresses.
    pub fixed: Vec<SocketAddr>,
    /// Whether those are docked, where no dock's link says so.
    pub fixed_docked: bool,
    /// Which links are docks.
    pub docks: Vec<Dock>,
    /// Control sockets of hostapd.
    pub hostapds: Vec<Hostapd>,
    /// Interfaces that may be used, patterns; none: all but those with the default route.
    pub interfaces: Vec<String>,
    /// Interfaces that are never used, patterns.
    pub wan: Vec<String>,
    /// How well a nearby camera must be heard.
    pub signal: Signal,
}

/// One dock's link, or several by a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dock {
    /// What the link is known by.
    pub by: By,
    /// Its bay.
    pub bay: Option<Bay>,
}

/// What a dock's link is known by. In both, `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Its name.
    Name(String),
    /// Its place in sysfs: the target of `/sys/class/net/NAME`, without that folder. A USB port has the same one
    /// whatever is plugged in, and whatever the interface is called.
    Path(String),
}

/// One hostapd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostapd {
    /// Its control socket: the file, whose name is the interface's.
    pub socket: PathBuf,
    /// What its stations are.
    pub kind: Kind,
}

/// What a hostapd's stations are reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The air.
    Wireless,
    /// Dock ports under 802.1X (`driver=wired`).
    Wired,
}

/// The hysteresis of a nearby camera's signal, in dBm: routine footage is pulled from `enter` on, and until it is
/// heard worse than `leave`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Good enough to begin.
    pub enter: i8,
    /// Too bad to go on.
    pub leave: i8,
}

impl Default for Signal {
    fn default() -> Self {
        Signal {
            enter: -67,
            leave: -75,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mdns: false,
            fixed: Vec::new(),
            fixed_docked: true,
            docks: Vec::new(),
            hostapds: Vec::new(),
            interfaces: Vec::new(),
            wan: Vec::new(),
            signal: Signal::default(),
        }
    }
}

impl Settings {
    /// Whether an interface of this name and place may be browsed on and dialled over.
    #[must_use]
    pub fn may_use(&self, name: &str, path: &str, has_default_route: bool) -> bool {
        let named = |patterns: &[String]| patterns.iter().any(|p| matches(p, name));
        if named(&self.wan) {
            return false;
        }
        if named(&self.interfaces) || self.medium(name, path) != Medium::Other {
            return true;
        }
        self.interfaces.is_empty() && !has_default_route
    }

    /// What an interface of this name and place is.
    #[must_use]
    pub fn medium(&self, name: &str, path: &str) -> Medium {
        let dock = self.docks.iter().find(|d| match &d.by {
            By::Name(pattern) => matches(pattern, name),
            By::Path(pattern) => matches(pattern, path),
        });
        if let Some(dock) = dock {
            return Medium::Dock { bay: dock.bay };
        }
        let guards = |h: &&Hostapd| h.socket.file_name().is_some_and(|f| f == name);
        match self.hostapds.iter().find(guards).map(|h| h.kind) {
            Some(Kind::Wireless) => Medium::Wireless,
            Some(Kind::Wired) => Medium::Dock { bay: None },
            None => Medium::Other,
        }
    }

    /// Whether any source may report addresses that are not in the static list.
    #[must_use]
    pub fn looks_around(&self) -> bool {
        self.mdns || !self.docks.is_empty() || !self.hostapds.is_empty()
    }
}

/// Whether a text is what the pattern says; `*` stands for any characters.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text, is) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth01", true),
            (
                "*/usb1/1-1.2/*",
                "../devices/pci/usb1/1-1.2/1-1.2:1.0/net/enx",
                true,
            ),
            (
                "*/usb1/1-1.2/*",
                "../devices/pci/usb1/1-1.21/net/enx",
                false,
            ),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*ab", "ab", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_denied_is_never_used_and_the_default_route_only_where_it_is_named() {
        let mut s = Settings::default();
        assert!(s.may_use("lan0", "", false));
        assert!(!s.may_use("wan0", "", true), "it carries the default route");
        s.interfaces = texts(&["wan0", "sta*"]);
        assert!(s.may_use("wan0", "", true), "it is named");
        assert!(s.may_use("sta7", "", false));
        assert!(!s.may_use("lan0", "", false), "others are named");
        s.wan = texts(&["wan*", "dock1"]);
        assert!(!s.may_use("wan0", "", false), "it is denied");
        s.docks = vec![Dock {
            by: By::Name("dock*".into()),
            bay: None,
        }];
        assert!(s.may_use("dock0", "", true));
        assert!(!s.may_use("dock1", "", false), "it is denied");
    }

    #[test]
    fn what_a_link_is_follows_from_its_name_or_its_place() {
        let bay = Some("A1".parse().unwrap());
        let s = Settings {
            docks: vec![Dock {
                by: By::Path("*/1-1.2/*".into()),
                bay,
            }],
            hostapds: vec![
                Hostapd {
                    socket: "/run/hostapd/wlan0".into(),
                    kind: Kind::Wireless,
                },
                Hostapd {
                    socket: "/run/hostapd/port3".into(),
                    kind: Kind::Wired,
                },
            ],
            ..Settings::default()
        };
        assert_eq!(s.medium("enx1", "usb/1-1.2/net/enx1"), Medium::Dock { bay });
        assert_eq!(s.medium("wlan0", ""), Medium::Wireless);
        assert_eq!(s.medium("port3", ""), Medium::Dock { bay: None });
        assert_eq!(s.medium("eth0", "usb/1-1.3/net/eth0"), Medium::Other);
    }
}
