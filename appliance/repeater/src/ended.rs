//! How a session of either hop ends: what the peer is told of it, and what follows here. Whose doing it was decides
//! when the peer is dialled again and whether it alarms (SPEC, section 17).
//!
//! A peer that closes the connection says why by a code, and is believed in that: it costs nobody but itself.

use std::time::Duration;

use link::frame::FrameError;
use link::quic::Peer;
use protocol::message::{Code, MessageError};
use quinn::ConnectionError;

use crate::commit::StorageError;
use crate::limits;

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// The network ended it, or this side begins it anew.
    Broken(String),
    /// The peer finished its control stream, and says why with its close.
    Left(&'static str),
    /// The peer closed the connection with this code and these words.
    Told(Code, String),
    /// The peer missed a deadline.
    Slow(String),
    /// The camera is served on another path.
    Elsewhere,
    /// A nearby camera has nothing to give and is let sleep.
    Idle,
    /// The site's next endpoint answers.
    Moved(Box<Peer>),
    /// This program is stopping, or the camera is not seen any more.
    Stopped,
    /// Something failed on this side.
    Ours(String),
    /// The peer broke the protocol, or signed what does not verify.
    Fault(String),
    /// The peer sent more than it may.
    Limit(String),
    /// The peer speaks, or signs, no version that is known here.
    Version(String),
    /// The peer is not, or speaks for another than, the one it has to be.
    Identity(String),
}

impl Ended {
    /// What the peer is told.
    #[must_use]
    pub fn close(&self) -> (Code, String) {
        match self {
            Ended::Broken(why) => (Code::Done, why.clone()),
            Ended::Left(why) => (Code::Done, (*why).to_owned()),
            Ended::Told(code, why) => (Code::Done, format!("it says {code:?}: {why}")),
            Ended::Slow(why) => (Code::Timeout, why.clone()),
            Ended::Elsewhere => (Code::Idle, "served on another path".into()),
            Ended::Idle => (Code::Idle, "nothing to do".into()),
            Ended::Moved(_) => (Code::Timeout, "silent; another endpoint answers".into()),
            Ended::Stopped => (Code::Shutdown, "stopping".into()),
            Ended::Ours(why) => (Code::Internal, why.clone()),
            Ended::Fault(why) => (Code::Protocol, why.clone()),
            Ended::Limit(why) => (Code::Limit, why.clone()),
            Ended::Version(why) => (Code::Version, why.clone()),
            Ended::Identity(why) => (Code::Identity, why.clone()),
        }
    }

    /// What this side found wrong with the peer, if it did: that alarms.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        match self {
            Ended::Fault(why) | Ended::Limit(why) | Ended::Version(why) | Ended::Identity(why) => {
                Some(why)
            }
            _ => None,
        }
    }

    /// What the peer says that a person must settle, if it does: that alarms too.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        match self {
            Ended::Told(Code::Version, why) => Some(format!(
                "says that no version is common, so one side must be updated: {why}"
            )),
            Ended::Told(Code::Identity, why) => Some(format!(
                "refuses this repeater's identity, or what it says of another: {why}"
            )),
            _ => None,
        }
    }

    /// The same, or what the peer said where it was the one that closed.
    pub async fn explained(self, peer: &Peer) -> Ended {
        match self {
            Ended::Broken(_) => {}
            // What a peer says last comes a moment after the end of its stream.
            Ended::Left(_) => {
                let closed = peer.connection.closed();
                let _ = tokio::time::timeout(limits::LAST_WORD, closed).await;
            }
            other => return other,
        }
        match peer.connection.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) => {
                let words = String::from_utf8_lossy(&close.reason);
                let words = words.chars().take(protocol::limits::TEXT_CHARS).collect();
                Ended::Told(Code::of(close.error_code.into_inner()), words)
            }
            _ => self,
        }
    }

    /// The pause before the next dial, between the first and the longest of `redial`; `worthwhile`: the session was
    /// worth its dial.
    #[must_use]
    pub fn pause(
        &self,
        before: Duration,
        worthwhile: bool,
        redial: (Duration, Duration),
    ) -> Duration {
        let (first, longest) = redial;
        let doubled = (before * 2).clamp(first, longest);
        match self {
            Ended::Told(Code::Busy, _) => limits::BUSY_PEER.clamp(first, longest),
            // It found a fault of ours, which will be there again.
            Ended::Told(Code::Protocol | Code::Limit, _) => doubled,
            Ended::Broken(_)
            | Ended::Left(_)
            | Ended::Slow(_)
            | Ended::Ours(_)
            | Ended::Moved(_)
            | Ended::Stopped
            | Ended::Told(Code::Done | Code::Shutdown | Code::Timeout, _) => {
                if worthwhile {
                    first
                } else {
                    doubled
                }
            }
            Ended::Told(..)
            | Ended::Elsewhere
            | Ended::Idle
            | Ended::Fault(_)
            | Ended::Limit(_)
            | Ended::Version(_)
            | Ended::Identity(_) => longest,
        }
    }
}

impl From<StorageError> for Ended {
    fn from(e: StorageError) -> Self {
        match e {
            StorageError::Gone => Ended::Stopped,
            other => Ended::Ours(other.to_string()),
        }
    }
}

impl From<FrameError> for Ended {
    fn from(e: FrameError) -> Self {
        match e {
            FrameError::TooLong { .. } => Ended::Limit(e.to_string()),
            FrameError::Truncated => Ended::Fault(e.to_string()),
            FrameError::Timeout => Ended::Slow(e.to_string()),
            FrameError::Stream(_) | FrameError::Connection(_) => Ended::Broken(e.to_string()),
        }
    }
}

impl From<MessageError> for Ended {
    fn from(e: MessageError) -> Self {
        match e {
            MessageError::Limit(_) => Ended::Limit(e.to_string()),
            MessageError::Malformed(_) => Ended::Fault(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(5);

    fn told(code: Code) -> Ended {
        Ended::Told(code, String::new())
    }

    fn pause(ended: &Ended, worthwhile: bool) -> Duration {
        ended.pause(FIRST, worthwhile, (FIRST, LONGEST))
    }

    #[test]
    fn what_the_peer_says_decides_the_pause() {
        for code in [Code::Done, Code::Shutdown, Code::Timeout] {
            assert_eq!(pause(&told(code), true), FIRST, "{code:?}");
            assert_eq!(pause(&told(code), false), FIRST * 2, "{code:?}");
        }
        for code in [Code::Protocol, Code::Limit] {
            assert_eq!(pause(&told(code), true), FIRST * 2, "{code:?}");
        }
        for worthwhile in [false, true] {
            assert_eq!(pause(&told(Code::Busy), worthwhile), limits::BUSY_PEER);
            for code in [Code::Version, Code::Identity, Code::Idle, Code::Internal] {
                assert_eq!(pause(&told(code), worthwhile), LONGEST, "{code:?}");
            }
        }
    }

    #[test]
    fn what_a_person_must_settle_alarms_and_the_rest_does_not() {
        let why = String::new;
        let ours = [
            (Ended::Fault(why()), Code::Protocol),
            (Ended::Limit(why()), Code::Limit),
            (Ended::Version(why()), Code::Version),
            (Ended::Identity(why()), Code::Identity),
        ];
        for (ended, code) in ours {
            assert_eq!(ended.close().0, code);
            assert!(ended.fault().is_some() && ended.complaint().is_none());
            assert_eq!(pause(&ended, true), LONGEST);
        }
        for code in (0..12).map(Code::of) {
            let told = told(code);
            let settles = matches!(code, Code::Version | Code::Identity);
            assert_eq!(told.complaint().is_some(), settles, "{code:?}");
            assert!(told.fault().is_none());
        }
    }

    #[test]
    fn errors_close_with_the_code_of_their_cause() {
        let cases: [(Ended, Code); 6] = [
            (FrameError::TooLong { length: 1 << 20 }.into(), Code::Limit),
            (FrameError::Truncated.into(), Code::Protocol),
            (FrameError::Timeout.into(), Code::Timeout),
            (MessageError::Limit("a list").into(), Code::Limit),
            (MessageError::Malformed("x".into()).into(), Code::Protocol),
            (StorageError::Slow.into(), Code::Internal),
        ];
        for (ended, code) in cases {
            assert_eq!(ended.close().0, code, "{ended:?}");
        }
    }
}
