//! What the daemon is in the middle of, one line at each begin and each end, at level debug under the target
//! `repeater::trace`: for tests that kill it on purpose and must know inside what.
//!
//! While the process lives, whatever began also ends, a transfer that is dropped with its session included. So a
//! begin without its end in the log of a dead process says that it died in there.

use protocol::ids::Digest;
use tracing::debug;

/// One transfer under way; its end is told when this is dropped.
#[derive(Debug)]
pub(crate) struct Transfer {
    end: &'static str,
    digest: Digest,
    /// Whether it came to its end.
    pub(crate) ok: bool,
}

impl Transfer {
    /// A pull from the camera of that serial, of so many bytes.
    pub(crate) fn pull(digest: Digest, camera: &protocol::ids::Serial, bytes: u64) -> Transfer {
        debug!(target: "repeater::trace", event = "pull_begin", %digest, %camera, bytes);
        Transfer {
            end: "pull_end",
            digest,
            ok: false,
        }
    }
    /// A put of so many bytes.
    pub(crate) fn put(digest: Digest, bytes: u32) -> Transfer {
        debug!(target: "repeater::trace", event = "put_begin", %digest, bytes);
        Transfer {
            end: "put_end",
            digest,
            ok: false,
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        debug!(target: "repeater::trace", event = self.end, digest = %self.digest, ok = self.ok);
    }
}
