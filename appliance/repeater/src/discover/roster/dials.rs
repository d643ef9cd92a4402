//! Who is dialled when, and what came of it.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use protocol::ids::CameraId;

use super::Roster;
use super::path::{Leave, Path, Seat, Standing, State};
use crate::limits;

/// What came of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// Nobody answers, or whoever was there went: it is dialled again after this pause.
    Again(Duration),
    /// Whoever is there is refused, and why.
    Refused(&'static str),
    /// A nearby camera that has nothing to give.
    Idle,
}

impl Roster {
    /// Addresses to be dialled now. They count as being dialled until [`Roster::ended`].
    pub fn dials(&mut self, now: Instant) -> Vec<SocketAddr> {
        let unproven = |p: &Path| p.state == State::Dialling && p.is_unproven();
        let mut room = limits::UNPROVEN_DIALS
            .saturating_sub(self.paths.values().filter(|p| unproven(p)).count());
        let mut due: Vec<_> = (self.paths.iter())
            .filter(|(a, p)| p.due().is_some_and(|at| at <= now) && self.is_wanted(**a, p))
            .filter(|(a, p)| !self.is_served_elsewhere(**a, p, now))
            .map(|(a, p)| {
                let nearby = !self.reach(*a).is_docked();
                (p.is_unproven(), nearby, Reverse(p.seen), *a)
            })
            .collect();
        due.sort_unstable();
        let mut dials: Vec<SocketAddr> = Vec::new();
        for (unproven, _, _, address) in due {
            if unproven && room == 0 {
                break;
            }
            // One of a camera's paths at a time, of which the better one was chosen above.
            let camera = self.paths.get(&address).and_then(|p| p.camera.clone());
            let doubled = camera.is_some()
                && dials
                    .iter()
                    .any(|d| self.paths.get(d).and_then(|p| p.camera.as_ref()) == camera.as_ref());
            if doubled {
                continue;
            }
            room -= usize::from(unproven);
            dials.push(address);
        }
        for address in &dials {
            if let Some(path) = self.paths.get_mut(address) {
                path.state = State::Dialling;
                path.tried = true;
                path.cut = false;
            }
        }
        dials
    }

    /// When [`Roster::dials`] is to be asked again, if nothing is said before.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let all = self.paths.iter().filter(|(a, p)| self.is_wanted(**a, p));
        let soonest = all.filter_map(|(_, p)| p.due()).min()?;
        // What is due and not dialled waits for another path's silence, or for room.
        Some(if soonest > now {
            soonest
        } else {
            now + limits::ROSTER_TICK
        })
    }

    /// A session at this address has proved whose it is. Where the camera is served better elsewhere, this one ends;
    /// otherwise every other one is told to yield, and is named.
    pub fn greeted(&mut self, address: SocketAddr, camera: &CameraId, now: Instant) -> Seat {
        let docked = self.reach(address).is_docked();
        let others: Vec<_> = (self.paths.iter())
            .filter(|(a, p)| **a != address && p.camera.as_ref() == Some(camera))
            .filter(|(_, p)| matches!(p.state, State::Session { .. }) && !p.yields && !p.cut)
            .map(|(a, p)| (*a, p.is_lively(now)))
            .collect();
        let better = |(other, lively): &(SocketAddr, bool)| {
            *lively && (self.reach(*other).is_docked() || !docked)
        };
        let elsewhere = others.iter().any(better);
        if let Some(path) = self.paths.get_mut(&address) {
            path.camera = Some(camera.clone());
            path.refused = None;
            path.strikes = 0;
            if !elsewhere {
                path.state = State::Session { last: now };
            }
        }
        if elsewhere {
            return Seat::Elsewhere;
        }
        for (other, _) in &others {
            if let Some(path) = self.paths.get_mut(other) {
                path.yields = true;
            }
        }
        Seat::After(others.into_iter().map(|(a, _)| a).collect())
    }

    /// The session at this address had a sign of life at `last`.
    pub fn lives(&mut self, address: SocketAddr, last: Instant) {
        if let Some(path) = self.paths.get_mut(&address)
            && let State::Session { last: known } = &mut path.state
        {
            *known = last.max(*known);
        }
    }

    /// A dial, and the session that it led to, are over.
    pub fn ended(&mut self, address: SocketAddr, tried: Tried, now: Instant) {
        let Some(path) = self.paths.get_mut(&address) else {
            return;
        };
        let (was_session, cut) = (matches!(path.state, State::Session { .. }), path.cut);
        if let Tried::Again(pause) = tried {
            path.pause = pause;
        }
        path.yields = false;
        path.cut = false;
        let pause = match tried {
            Tried::Again(pause) => pause,
            Tried::Refused(_) => path.strike(),
            Tried::Idle => path.rest(),
        };
        // It may have come back while this one ended.
        path.again(now + pause, now);
        path.asleep = tried == Tried::Idle;
        if let Tried::Refused(why) = tried {
            path.refused = Some(why);
        }
        let camera = path.camera.clone();
        if cut {
            path.camera = None;
        }
        // Its other paths take over at once. One that ended for want of work is no reason to wake them.
        if let (Some(camera), true, false) = (camera, was_session, path.asleep) {
            let others = self.paths.iter_mut();
            let others =
                others.filter(|(a, p)| **a != address && p.camera.as_ref() == Some(&camera));
            others.for_each(|(_, p)| p.wake(now));
        }
        self.paths.retain(|_, p| {
            !p.sources.is_empty() || p.is_at_work() || p.seen + limits::FORGET > now
        });
    }

    /// What the session at this address has to know.
    #[must_use]
    pub fn standing(&self, address: SocketAddr) -> Standing {
        let path = self.paths.get(&address);
        Standing {
            reach: self.reach(address),
            leave: path.and_then(|p| match (p.cut, p.yields) {
                (true, _) => Some(Leave::Gone),
                (false, true) => Some(Leave::Elsewhere),
                _ => None,
            }),
        }
    }

    /// The pause after which this address was dialled last; none where something new was the reason.
    #[must_use]
    pub fn pause(&self, address: SocketAddr) -> Duration {
        self.paths.get(&address).map_or(Duration::ZERO, |p| p.pause)
    }

    /// Whether any source still reports this address.
    #[must_use]
    pub fn is_seen(&self, address: SocketAddr) -> bool {
        let path = self.paths.get(&address);
        path.is_some_and(|p| !p.sources.is_empty())
    }

    /// Whether a camera has proved itself at this address, and nothing says that it may be another by now.
    #[must_use]
    pub fn has_camera(&self, address: &SocketAddr) -> bool {
        let path = self.paths.get(address);
        path.is_some_and(|p| p.camera.is_some())
    }

    /// Whether its camera is served on another path that is at least as good, and lives.
    fn is_served_elsewhere(&self, address: SocketAddr, path: &Path, now: Instant) -> bool {
        let Some(camera) = &path.camera else {
            return false;
        };
        let docked = self.reach(address).is_docked();
        let serves = |(a, p): (&SocketAddr, &Path)| {
            *a != address
                && p.camera.as_ref() == Some(camera)
                && !p.cut
                && (p.state == State::Dialling || p.is_lively(now))
                && (self.reach(*a).is_docked() || !docked)
        };
        self.paths.iter().any(serves)
    }
}
