//! How a camera session ends, and what the camera is told of it: whose fault it was decides whether it is dialled
//! again soon.

use link::frame::FrameError;
use protocol::message::Code;

use crate::commit::StorageError;

/// How a session ended.
#[derive(Debug)]
pub enum Ended {
    /// The camera or the network ended it.
    Broken(String),
    /// The camera is served on another path.
    Elsewhere,
    /// This program is stopping, or the camera is not seen any more.
    Stopped,
    /// The camera broke the protocol.
    Fault(String),
    /// The camera is not, or speaks for another than, the one it has to be.
    Identity(String),
}

impl Ended {
    /// What the camera is told.
    #[must_use]
    pub fn close(&self) -> (Code, String) {
        match self {
            Ended::Broken(why) => (Code::Done, why.clone()),
            Ended::Elsewhere => (Code::Idle, "served on another path".into()),
            Ended::Stopped => (Code::Shutdown, "stopping".into()),
            Ended::Fault(why) => (Code::Protocol, why.clone()),
            Ended::Identity(why) => (Code::Identity, why.clone()),
        }
    }
}

impl From<StorageError> for Ended {
    fn from(e: StorageError) -> Self {
        match e {
            StorageError::Gone => Ended::Stopped,
            other => Ended::Broken(other.to_string()),
        }
    }
}

impl From<FrameError> for Ended {
    fn from(e: FrameError) -> Self {
        match e {
            FrameError::TooLong { .. } | FrameError::Truncated => Ended::Fault(e.to_string()),
            other => Ended::Broken(other.to_string()),
        }
    }
}
