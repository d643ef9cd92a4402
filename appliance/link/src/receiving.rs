//! The receiving end of a transfer, told as it happens at level debug under the target `link::receiving`: for tests
//! that kill a party on purpose and must know inside what.
//!
//! A transfer has begun when its first byte is here and its last one is not, and has ended when the last one is here
//! or when no more will come. So between the two lines something of it had gone and not all; what comes in one piece
//! says neither. While the process lives, whatever began also ends, a transfer that is dropped with its session
//! included: a begin without its end in the log of a dead process says that it died in there.

use protocol::ids::{Digest, Serial};
use tracing::debug;

/// Which hop a transfer crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// From a camera to a repeater.
    Camera,
    /// From a repeater to a site.
    Archive,
}

/// How much of a transfer is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    Nothing,
    Part,
    All,
}

/// One transfer under way; its end is told when this is dropped, or before.
#[derive(Debug)]
pub struct Receiving {
    hop: Hop,
    digest: Digest,
    camera: Serial,
    whole: u64,
    came: u64,
}

impl Receiving {
    /// A transfer of `whole` bytes of footage of that camera, of which none has come.
    #[must_use]
    pub fn new(hop: Hop, digest: Digest, camera: &Serial, whole: u64) -> Receiving {
        Receiving {
            hop,
            digest,
            camera: camera.clone(),
            whole,
            came: 0,
        }
    }

    /// So many more bytes are here.
    pub fn came(&mut self, bytes: u64) {
        let before = self.here();
        self.came = self.came.saturating_add(bytes);
        match (before, self.here()) {
            (Here::Nothing, Here::Part) => self.tell_begin(),
            (Here::Part, Here::All) => self.tell_end(true),
            _ => {}
        }
    }

    fn here(&self) -> Here {
        match self.came {
            0 => Here::Nothing,
            some if some < self.whole => Here::Part,
            _ => Here::All,
        }
    }

    fn tell_begin(&self) {
        let event = match self.hop {
            Hop::Camera => "pull_begin",
            Hop::Archive => "put_begin",
        };
        debug!(target: "link::receiving", event, digest = %self.digest, camera = %self.camera, bytes = self.whole);
    }

    fn tell_end(&self, ok: bool) {
        let event = match self.hop {
            Hop::Camera => "pull_end",
            Hop::Archive => "put_end",
        };
        debug!(target: "link::receiving", event, digest = %self.digest, ok);
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if self.here() == Here::Part {
            self.tell_end(false);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_transfer_is_under_way_from_its_first_byte_to_its_last() {
        let serial: Serial = "C-1".parse().unwrap();
        let mut told = Receiving::new(Hop::Camera, Digest([1; 32]), &serial, 10);
        assert_eq!(told.here(), Here::Nothing, "asked for, and nothing came");
        told.came(0);
        assert_eq!(told.here(), Here::Nothing);
        told.came(1);
        assert_eq!(told.here(), Here::Part);
        told.came(8);
        assert_eq!(told.here(), Here::Part);
        told.came(1);
        assert_eq!(told.here(), Here::All);
        let mut at_once = Receiving::new(Hop::Archive, Digest([1; 32]), &serial, 10);
        at_once.came(10);
        assert_eq!(at_once.here(), Here::All);
    }
}
