//! Discover: who may be dialled, and where. Each source turns the world's events into [`Sighting`]s on one bounded
//! queue; the [`roster`] merges them into cameras, and the pull hop dials what it says.
//!
//! Sources: the static list, network interfaces (carrier, and the neighbour that answers there), hostapd (who
//! associates, how well it is heard), and DNS-SD (`_bwc-offload._udp`). A sighting is a hint and nothing more: who
//! answers at an address is said by its certificate and its device key. Announcements are unauthenticated, and so are
//! their withdrawals: one takes back what its own source said, and nothing that another says, nor a session that
//! stands. What a source does not know it leaves out; the roster joins a station's signal to an address by its MAC.
//!
//! Everything here is bounded and `Copy`: names are at most as long as the kernel's, numbers are the kernel's own.

pub mod hostapd;
pub mod interfaces;
pub mod mdns;
pub mod names;
pub mod roster;
pub mod settings;
pub mod sources;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;

pub use names::{Bay, LinkName, Mac};

/// The number of a network interface. It stays when the interface is renamed, and means nothing once it is removed.
pub type LinkIndex = u32;

/// A network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: LinkIndex,
    /// Its name at present.
    pub name: LinkName,
}

/// What a link carries cameras by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A dock's cable, or a camera's own USB interface: one camera, which is docked while there is carrier.
    Dock {
        /// The bay, where the configuration names it.
        bay: Option<Bay>,
    },
    /// Wi-Fi: whoever is there is near.
    Wireless,
    /// Anything else that may be used, such as a station's VLAN: whoever is there is near, as far as is known.
    Other,
}

/// What became of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It has carrier. Said again after a rename, with the new name, and changes nothing else then.
    Up,
    /// It has lost carrier: nobody is there any more.
    Down,
    /// There is no such interface any more; its number may come again for another.
    Removed,
    /// It has another name and all else is as before.
    Renamed,
}

/// How a camera was seen. Later ones say more: who is seen so goes before those seen otherwise where room is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Announced by DNS-SD.
    Announced,
    /// It answered an echo to all nodes (ff02::1) on a dock's link.
    Neighbour,
    /// hostapd told of a station, whose address the neighbour table has.
    Station,
    /// Listed in the configuration.
    Static,
}

/// Whether a station is associated (or, on a wired port, authorised).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is; said again with each new measure, and that changes nothing else.
    Associated,
    /// It is not any more.
    Left,
}

/// One report of a camera, or of what cameras are reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// A camera may be at this address. Said again, it changes nothing but the news.
    Seen {
        /// Where it serves the camera hop; link-local addresses have their scope.
        address: SocketAddr,
        /// The link that it is on, where the source knows it.
        link: Option<LinkIndex>,
        /// Who says so.
        source: Source,
        /// The announcement's counter of news (TXT key `n`).
        news: Option<u64>,
    },
    /// That source says so no more.
    Gone {
        /// Where it was.
        address: SocketAddr,
        /// Who said so.
        source: Source,
    },
    /// A link that may be used came, went or changed. Links of the WAN are never told of.
    Link {
        /// Which.
        link: Link,
        /// What became of it.
        state: LinkState,
        /// What it is.
        medium: Medium,
    },
    /// hostapd's word on a station.
    Station {
        /// The interface of the BSS, or the port that it guards.
        link: LinkIndex,
        /// Whose.
        mac: Mac,
        /// Whether it is there.
        presence: Presence,
        /// How well it is heard, in dBm; a wired one is not heard.
        signal: Option<i8>,
        /// For how long it has sent nothing.
        inactive: Duration,
    },
    /// The neighbour table, or a bridge's: whose an address is. A station's signal and an address meet by it.
    Neighbour {
        /// The link on which it is so.
        link: LinkIndex,
        /// Whose it is.
        mac: Mac,
        /// The address, without scope.
        ip: IpAddr,
    },
}

/// The queue from the sources to the pull hop.
pub type Sightings = mpsc::Receiver<Sighting>;

/// The static list, as sightings.
pub fn fixed(cameras: &[SocketAddr]) -> impl Iterator<Item = Sighting> {
    cameras.iter().map(|address| Sighting::Seen {
        address: *address,
        link: None,
        source: Source::Static,
        news: None,
    })
}
