//! Whether this machine's clock is known to be right. Custody asks no clock, so a repeater without trusted time dials
//! and pulls all the same, and says so: in its status, in its hello
//! to each camera, and in each contact's record.
//!
//! chronyd is asked for the error that it reckons with now ([`chrony`]); the clock counts as right while that is within the
//! bound of the configuration. Where no chronyd answers, systemd-timesyncd's mark is looked for, which it makes when it has
//! synchronised; how far off the clock may be is not known then, and is not claimed. One task asks and the others look.

pub mod chrony;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use link::clock::Clock;
use link::random::Random;
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::limits;
use chrony::Tracking;

/// Made by systemd-timesyncd once it has synchronised since boot.
const MARK: &str = "/run/systemd/timesync/synchronized";

/// Whom to ask, and what suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where chronyd takes commands.
    pub chrony: SocketAddr,
    /// A clock that may be further off counts as not known to be right.
    pub bound: Duration,
}

/// What is known of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeState {
    /// It follows the network's time, within the bound where that is known.
    Synchronised,
    /// It shows a time that can be, and nobody vouches for it.
    Unknown,
    /// It shows a time before this program was made.
    Unset,
}

/// What is known of the clock, and by how much it may be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// In one word.
    pub state: TimeState,
    /// So far off at most; none where nobody says.
    pub error: Option<Duration>,
}

impl Known {
    /// So many milliseconds off at most, rounded up: a bound stays one.
    #[must_use]
    pub fn error_ms(self) -> Option<u64> {
        let whole =
            |e: Duration| u64::try_from(e.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.error.map(whole)
    }
}

/// What was asked last. Clones are the same.
#[derive(Clone, Debug)]
pub struct TrustedTime {
    bound: Duration,
    said: watch::Receiver<Option<Tracking>>,
}

/// Who asks.
#[derive(Debug)]
pub struct Asker {
    settings: Settings,
    random: Random,
    told: watch::Sender<Option<Tracking>>,
}

/// Who asks, and who looks.
#[must_use]
pub fn new(settings: Settings, random: Random) -> (Asker, TrustedTime) {
    let (told, said) = watch::channel(None);
    let asker = Asker {
        settings,
        random,
        told,
    };
    let bound = settings.bound;
    (asker, TrustedTime { bound, said })
}

impl TrustedTime {
    /// Looks.
    #[must_use]
    pub fn look(&self, clock: &Clock) -> Known {
        let marked = Path::new(MARK).exists();
        judge(clock.is_set(), *self.said.borrow(), marked, self.bound)
    }
}

fn judge(is_set: bool, said: Option<Tracking>, marked: bool, bound: Duration) -> Known {
    let error = match said {
        Some(Tracking::Within(error)) => Some(error),
        Some(Tracking::Nobody) | None => None,
    };
    let vouched = match said {
        Some(Tracking::Within(error)) => error <= bound,
        Some(Tracking::Nobody) => false,
        None => marked,
    };
    let state = match (is_set, vouched) {
        (false, _) => TimeState::Unset,
        (true, true) => TimeState::Synchronised,
        (true, false) => TimeState::Unknown,
    };
    Known { state, error }
}

impl Asker {
    /// Asks again and again. Never returns.
    pub async fn ask_always(self) {
        loop {
            self.ask_once().await;
            tokio::time::sleep(limits::CHRONY).await;
        }
    }

    /// Asks once, and tells who looks.
    pub async fn ask_once(&self) {
        let said = tokio::time::timeout(limits::CHRONY_ANSWER, self.ask()).await;
        self.told.send_replace(said.ok().and_then(Result::ok));
    }

    /// One question. A socket of its own, connected: the system tells at once where nobody listens, and only from there
    /// comes an answer.
    ///
    /// # Errors
    /// Where nobody listens.
    pub async fn ask(&self) -> io::Result<Tracking> {
        let own: IpAddr = match self.settings.chrony {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let socket = UdpSocket::bind((own, 0)).await?;
        socket.connect(self.settings.chrony).await?;
        let [a, b, c, d, ..] = self.random.bytes::<16>();
        let sequence = u32::from_be_bytes([a, b, c, d]);
        socket.send(&chrony::question(sequence)).await?;
        let mut buffer = [0; chrony::BYTES + 1];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if let Some(said) = chrony::answer(buffer.get(..length).unwrap_or_default(), sequence) {
                return Ok(said);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use link::tasks::current_thread;

    const BOUND: Duration = Duration::from_millis(500);

    #[test]
    fn time_is_trusted_only_where_somebody_vouches_for_it() {
        let state = |is_set, said, marked| judge(is_set, said, marked, BOUND).state;
        assert_eq!(state(true, None, true), TimeState::Synchronised);
        assert_eq!(state(true, None, false), TimeState::Unknown);
        assert_eq!(state(false, None, true), TimeState::Unset);
        let (near, far) = (BOUND, BOUND + Duration::from_nanos(1));
        let within = |error| Some(Tracking::Within(error));
        assert_eq!(state(true, within(near), false), TimeState::Synchronised);
        // An old mark does not outdo what chronyd says now.
        assert_eq!(state(true, within(far), true), TimeState::Unknown);
        assert_eq!(
            state(true, Some(Tracking::Nobody), true),
            TimeState::Unknown
        );
        assert_eq!(state(false, within(near), true), TimeState::Unset);
        assert_eq!(judge(true, within(far), false, BOUND).error, Some(far));
        assert_eq!(judge(true, Some(Tracking::Nobody), true, BOUND).error, None);
    }

    #[test]
    fn nobody_who_listens_or_who_does_not_answer_holds_anything_up() {
        current_thread(async {
            let deaf = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let settings = |chrony| Settings {
                chrony,
                bound: BOUND,
            };
            let (asker, _) = new(settings(deaf.local_addr().unwrap()), Random::system());
            let asked = tokio::time::timeout(BOUND, asker.ask()).await;
            assert!(asked.is_err(), "who does not answer is waited for");
            let closed = deaf.local_addr().unwrap();
            drop(deaf);
            let (asker, time) = new(settings(closed), Random::system());
            assert!(asker.ask().await.is_err());
            assert_eq!(time.look(&Clock::system()).error, None);
        })
        .unwrap();
    }
}
