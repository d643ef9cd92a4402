//! What people are shown of the roster: the cameras that are here, and whoever was refused.

use std::net::SocketAddr;
use std::time::Instant;

use protocol::ids::CameraId;

use super::path::State;
use super::{Path, Reach, Roster};
use crate::discover::LinkName;

/// A camera that is docked or near: it is served, or was let sleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// Who it is, as its last session proved.
    pub camera: CameraId,
    /// Its best path: where it is served, or would be.
    pub address: SocketAddr,
    /// How it is reached there.
    pub reach: Reach,
    /// Whether a session stands there.
    pub connected: bool,
}

/// Somebody who was refused, or has not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where.
    pub address: SocketAddr,
    /// On which interface, where that is known.
    pub link: Option<LinkName>,
    /// Why; none where nobody answered yet.
    pub refused: Option<&'static str>,
}

impl Roster {
    /// The cameras that are here, each once, in the order of their serials.
    #[must_use]
    pub fn near(&self, now: Instant) -> Vec<Near> {
        let mut all: Vec<(CameraId, (bool, bool, bool), Near)> = Vec::new();
        for (address, path) in &self.paths {
            let connected = matches!(path.state, State::Session { .. }) && !path.cut;
            // One that sleeps is here as long as its link and its station are; another one is not heard of.
            let here = connected || (path.asleep && self.is_wanted(*address, path));
            let Some(camera) = path.camera.clone().filter(|_| here) else {
                continue;
            };
            let reach = self.reach(*address);
            let lively = path.is_lively(now);
            let near = Near {
                camera: camera.clone(),
                address: *address,
                reach,
                connected,
            };
            all.push((camera, (!lively, !reach.is_docked(), !connected), near));
        }
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        all.dedup_by(|b, a| a.0 == b.0);
        all.into_iter().map(|(_, _, near)| near).collect()
    }

    /// Whoever is seen and not known as a camera.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        (self.paths.iter())
            .filter(|(a, p)| p.camera.is_none() && self.is_here(**a, p))
            .map(|(address, path)| Device {
                address: *address,
                link: (path.link).and_then(|l| self.links.get(&l)).map(|l| l.name),
                refused: path.refused,
            })
            .collect()
    }

    fn is_here(&self, address: SocketAddr, path: &Path) -> bool {
        (path.is_at_work() && !path.cut) || self.is_wanted(address, path)
    }
}
