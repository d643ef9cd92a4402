//! A station in network namespaces: the repeater in one, the archive in another behind a WAN, each camera in one of its
//! own, and cables between them. Addresses, ports, names of devices are random: a number that somebody typed finds nothing.
//!
//! A [`Bay`] is a camera and its dock's cable; plugging it in is what an officer does. Handles go in the order of their
//! fields: processes, cables, namespaces.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use link::random::Random;
use protocol::limits::CAMERA_PORT;

use super::netns::Namespace;
use super::wire::{End, Wire};
use super::{STATION, Station};
use crate::archive_party::Site;
use crate::camera_party::Camera;
use crate::process::FILTER;
use crate::repeater_party::{Repeater, Setting};

/// A station, its repeater not yet started.
#[derive(Debug)]
pub struct Place<'a> {
    station: &'a Station,
    /// The archive's site.
    pub site: Site<'a>,
    /// The WAN, the repeater's end near.
    pub wan: Wire,
    /// Where the repeater runs.
    pub space: Namespace,
    /// Where the archive runs.
    pub centre: Namespace,
    nets: Nets,
}

/// Networks of 256 addresses below 10, none twice.
#[derive(Debug)]
struct Nets(AtomicU32);

impl Nets {
    fn next(&self) -> [u8; 3] {
        // An odd step comes by every one of 65,536 before it comes to the first again.
        let [_, _, a, b] = self.0.fetch_add(40_503, Ordering::Relaxed).to_be_bytes();
        [10, a, b]
    }
}

/// Two addresses of a network, as `ip` takes them: the near one and the far one.
fn pair(net: [u8; 3]) -> (String, String) {
    let [a, b, c] = net;
    let x = Random::system().u64() % 120;
    (
        format!("{a}.{b}.{c}.{}", 2 + x),
        format!("{a}.{b}.{c}.{}", 130 + x),
    )
}

/// A camera in a namespace of its own, with the cable of a dock.
#[derive(Debug)]
pub struct Bay<'a> {
    /// The camera.
    pub camera: Camera<'a>,
    /// The cable, the dock's end near.
    pub wire: Wire,
    /// Where the camera is.
    pub space: Namespace,
}

impl<'a> Place<'a> {
    /// A place with its archive, which runs.
    #[must_use]
    pub fn new(station: &'a Station) -> Place<'a> {
        let (space, centre) = (Namespace::new("repeater"), Namespace::new("archive"));
        let seed = u32::try_from(Random::system().u64() >> 32).unwrap();
        let nets = Nets(AtomicU32::new(seed));
        let wan = Wire::new("wan", &space, &centre);
        let (near, far) = pair(nets.next());
        wan.near.address(&format!("{near}/24"));
        wan.far.address(&format!("{far}/24"));
        wan.plug();
        quick_addresses(&space);
        let listen: SocketAddr = format!("{far}:0").parse().unwrap();
        let site = Site::start_in(station, "site-a", Some(centre.clone()), listen);
        Place {
            station,
            site,
            wan,
            space,
            centre,
            nets,
        }
    }

    /// A second station of the same archive: a namespace on the same WAN, joined by a cable of its own.
    #[must_use]
    pub fn another(&self) -> (Namespace, Wire) {
        let space = Namespace::new("second");
        quick_addresses(&space);
        let wire = Wire::new("wan", &space, &self.centre);
        let (near, far) = pair(self.nets.next());
        wire.near.address(&format!("{near}/24"));
        wire.far.address(&format!("{far}/24"));
        wire.plug();
        let to = self.site.address().ip().to_string();
        space.ip(&["route", "add", &format!("{to}/32"), "via", &far]);
        (space, wire)
    }

    /// The repeater, with these lines in its section `discover`; it runs.
    #[must_use]
    pub fn repeater(&self, discover: &str) -> Repeater<'a> {
        self.repeater_in(&self.space, "repeater", &format!("{STATION}-1"), discover)
    }

    /// A repeater in another namespace, with a name and an identity of its own; it runs.
    #[must_use]
    pub fn repeater_in(
        &self,
        space: &Namespace,
        name: &str,
        identity: &str,
        discover: &str,
    ) -> Repeater<'a> {
        let setting = Setting {
            name: name.to_owned(),
            identity: identity.to_owned(),
            space: Some(space.clone()),
            discover: discover.to_owned(),
            spool: String::new(),
        };
        let mut repeater = Repeater::set(self.station, setting, &[self.site.told()]);
        repeater.run();
        repeater
    }

    /// The `n`th camera, at a dock of the station; its cable is out.
    #[must_use]
    pub fn bay(&self, n: u32) -> Bay<'a> {
        let space = Namespace::new(&format!("camera{n}"));
        quick_addresses(&space);
        let wire = self.dock(&self.space, &space);
        let mut camera = self.station.camera(n);
        camera.space = Some(space.clone());
        camera.listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, space.free_port()));
        Bay {
            camera,
            wire,
            space,
        }
    }

    /// A switch behind a dock's port, the cable to it, and those to others: all are on one link and in one network.
    #[must_use]
    pub fn switched<const N: usize>(
        &self,
        others: [&Namespace; N],
    ) -> (Namespace, Wire, [Wire; N]) {
        let switch = Namespace::new("switch");
        switch.ip(&["link", "add", "joined", "type", "bridge"]);
        switch.ip(&["link", "set", "dev", "joined", "up"]);
        let join = |end: &End| {
            switch.ip(&["link", "set", "dev", &end.device, "master", "joined"]);
            end.set(true);
        };
        let [a, b, c] = self.nets.next();
        let trunk = Wire::new("dk", &self.space, &switch);
        trunk.near.address(&format!("{a}.{b}.{c}.1/24"));
        trunk.near.set(true);
        join(&trunk.far);
        let mut last = 1;
        let wires = others.map(|other| {
            last += 1;
            let wire = Wire::new("p", &switch, other);
            wire.far.address(&format!("{a}.{b}.{c}.{last}/24"));
            join(&wire.near);
            wire
        });
        (switch, trunk, wires)
    }

    /// A cable of a dock, with addresses, plugged in at the station's end alone.
    #[must_use]
    pub fn dock(&self, near: &Namespace, far: &Namespace) -> Wire {
        let wire = Wire::new("dk", near, far);
        self.give_addresses(&wire.near, &wire.far);
        wire.near.set(true);
        wire
    }

    /// Gives both ends of a link an IPv4 address, of a network of their own.
    pub fn give_addresses(&self, near: &End, far: &End) {
        let (a, b) = pair(self.nets.next());
        near.address(&format!("{a}/24"));
        far.address(&format!("{b}/24"));
    }
}

/// A link-local address is one at once: nobody else is on a cable that has two ends. Half the time of finding a docked
/// camera would go into asking whether the address is taken.
pub fn quick_addresses(space: &Namespace) {
    for of in ["default", "all"] {
        space.set(&format!("ipv6/conf/{of}/accept_dad"), "0");
        space.set(&format!("ipv6/conf/{of}/router_solicitations"), "0");
    }
}

impl Bay<'_> {
    /// Serves on the dock's cable, while it is in, and announces itself there.
    pub fn serve(&mut self) {
        self.serve_on(&[]);
    }

    /// Serves on the dock's cable and on these other links, and announces itself there.
    pub fn serve_on(&mut self, others: &[&End]) {
        self.serve_erasing("now", others);
    }

    /// The same, and keeps footage that has its receipts until it needs room.
    pub fn serve_keeping(&mut self, others: &[&End]) {
        self.serve_erasing("when-needed", others);
    }

    fn serve_erasing(&mut self, erase: &str, others: &[&End]) {
        let devices = others.iter().map(|end| end.device.as_str());
        let devices = devices.chain([self.wire.far.device.as_str()]);
        let mut args = vec!["--erase", erase, "--announce"];
        devices.for_each(|device| args.extend(["--link", device]));
        self.camera.serve_with(&args, FILTER);
    }

    /// Serves on the dock's cable at the protocol's own port, and announces nothing.
    pub fn serve_silently(&mut self) {
        self.camera.listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, CAMERA_PORT));
        let args = ["--erase", "now", "--link", &self.wire.far.device];
        self.camera.serve_with(&args, FILTER);
    }

    /// Puts the camera into its dock.
    pub fn plug(&self) {
        self.wire.plug();
    }

    /// Takes it out.
    pub fn pull(&self) {
        self.wire.pull();
    }
}
