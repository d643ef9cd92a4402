//! Wires: a pair of veth devices is a cable between two namespaces, `tbf` gives it a rate.
//!
//! A cable is pulled at its far end, as one pulls it out of a camera: the near end stays, and loses its carrier. Names
//! and hardware addresses are random.

use std::net::IpAddr;

use super::netns::{Namespace, tag, tool};

/// One end of a cable.
#[derive(Clone, Debug)]
pub struct End {
    /// Where it is.
    pub space: Namespace,
    /// The device's name there.
    pub device: String,
}

impl End {
    /// Gives it an IPv4 address with the length of its network's prefix.
    pub fn address(&self, address: &str) {
        self.space
            .ip(&["addr", "add", address, "dev", &self.device]);
    }

    /// Switches it on or off: the other end gains or loses its carrier.
    pub fn set(&self, up: bool) {
        let how = if up { "up" } else { "down" };
        self.space.ip(&["link", "set", "dev", &self.device, how]);
    }

    /// What it sends goes at this rate, behind a queue of 100 ms.
    pub fn rate(&self, mbit: u64) {
        let rate = format!("{mbit}mbit");
        // One tick's worth of bytes, and at least the largest that comes in one piece.
        let burst = (mbit * 1_000_000 / 8 / 100).max(70_000).to_string();
        let name = self.space.name();
        let before = ["-n", name, "qdisc", "replace", "dev", &self.device, "root"];
        let shape = ["tbf", "rate", &rate, "burst", &burst, "latency", "100ms"];
        tool("tc", &[&before[..], &shape[..]].concat());
    }

    /// Its hardware address.
    #[must_use]
    pub fn mac(&self) -> String {
        self.space.mac(&self.device)
    }

    /// Its IPv4 address.
    ///
    /// # Panics
    /// Where it has none.
    #[must_use]
    pub fn ipv4(&self) -> IpAddr {
        let args = ["-4", "-o", "addr", "show", "dev", &self.device];
        let shown = self.space.ip(&args);
        let address = shown.split_whitespace().nth(3);
        let address = address.and_then(|a| a.split('/').next());
        address.expect("it has an address").parse().unwrap()
    }

    /// Gives the device another name, as udev does; it must be off.
    pub fn rename(&mut self, name: &str) {
        self.space
            .ip(&["link", "set", "dev", &self.device, "name", name]);
        name.clone_into(&mut self.device);
    }
}

/// A cable.
#[derive(Debug)]
pub struct Wire {
    /// The station's end.
    pub near: End,
    /// The other.
    pub far: End,
}

impl Wire {
    /// Lays a cable, plugged in at neither end. `what` begins the near device's name.
    #[must_use]
    pub fn new(what: &str, near: &Namespace, far: &Namespace) -> Wire {
        let (a, b) = (format!("{what}{}", tag()), format!("c{}", tag()));
        let pair = ["link", "add", &a, "netns", near.name(), "type", "veth"];
        let peer = ["peer", "name", &b, "netns", far.name()];
        tool("ip", &[&pair[..], &peer[..]].concat());
        let end = |space: &Namespace, device: String| End {
            space: space.clone(),
            device,
        };
        Wire {
            near: end(near, a),
            far: end(far, b),
        }
    }

    /// Plugs the far end in; the near one is a port that is always on.
    pub fn plug(&self) {
        self.near.set(true);
        self.far.set(true);
    }

    /// Pulls it out at the far end.
    pub fn pull(&self) {
        self.far.set(false);
    }

    /// Both ways go at this rate.
    pub fn rate(&self, mbit: u64) {
        self.near.rate(mbit);
        self.far.rate(mbit);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // With one end the other goes; a namespace that has gone has taken both.
        let _ = std::process::Command::new("ip")
            .args(["-n", self.near.space.name(), "link", "del", "dev"])
            .arg(&self.near.device)
            .output();
    }
}
