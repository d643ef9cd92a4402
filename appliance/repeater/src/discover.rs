//! Discover: who may be dialled, and where. Each source turns the world's events into [`Sighting`]s on one
//! bounded queue; the pull hop keeps one dialler for each address seen.
//!
//! Here: the static list, and DNS-SD (`_bwc-offload._udp`). A sighting is a hint and nothing more: who answers
//! there is said by its certificate and its device key. Announcements are unauthenticated, and so are their
//! withdrawals: one takes back what its own source said, and never what the static list says, nor a session that
//! stands.
//!
//! Every camera found is greeted as docked. Nearby ones, and the end of their sessions after 30 s of idleness
//! (SPEC section 11), come with a source that can tell the two apart.

pub mod mdns;

use std::net::SocketAddr;

use tokio::sync::mpsc;

/// How a camera was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Listed in the configuration.
    Static,
    /// Announced by DNS-SD.
    Announced,
}

/// One report of a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// A camera may be at this address.
    Seen {
        /// Where it serves the camera hop.
        address: SocketAddr,
        /// Who says so.
        source: Source,
    },
    /// That announcement was withdrawn or ran out.
    Gone {
        /// Where it was.
        address: SocketAddr,
        /// Who said so.
        source: Source,
    },
}

/// The queue from the sources to the pull hop.
pub type Sightings = mpsc::Receiver<Sighting>;

/// The static list, as sightings.
pub fn fixed(cameras: &[SocketAddr]) -> impl Iterator<Item = Sighting> {
    cameras.iter().map(|address| Sighting::Seen {
        address: *address,
        source: Source::Static,
    })
}
