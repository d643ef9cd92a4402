//! Announcements that nobody's responder would make: DNS-SD packets written byte by byte (RFC 6762, 6763), with any name,
//! any address and any port, sent from wherever somebody has a plug.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use super::wire::End;

const SERVICE: &str = "_bwc-offload._udp.local";
const GROUP: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 251), 5353);
/// Class IN; with the bit that says "these are all there are".
const CLASS: [u8; 2] = [0, 1];
const CLASS_FLUSH: [u8; 2] = [0x80, 1];

/// One announcement.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// The instance's name, and its host's.
    pub name: String,
    /// Where it says that it is.
    pub addresses: Vec<IpAddr>,
    /// The port that it names.
    pub port: u16,
    /// For how many seconds it holds; 0 takes it back.
    pub ttl: u32,
}

impl Announcement {
    fn bytes(&self) -> Vec<u8> {
        let count = u16::try_from(3 + self.addresses.len()).unwrap();
        let mut out = vec![0, 0, 0x84, 0, 0, 0];
        out.extend(count.to_be_bytes());
        out.extend([0; 4]);
        let service = labels(SERVICE);
        let instance = [&label(&self.name)[..], &service].concat();
        let host = labels(&format!("{}.local", self.name));
        self.record(&mut out, &service, 12, CLASS, &instance);
        let place = [&[0; 4], &self.port.to_be_bytes()[..], &host].concat();
        self.record(&mut out, &instance, 33, CLASS_FLUSH, &place);
        self.record(&mut out, &instance, 16, CLASS_FLUSH, &label("n=1"));
        for address in &self.addresses {
            let (kind, bytes) = match address {
                IpAddr::V4(v4) => (1, v4.octets().to_vec()),
                IpAddr::V6(v6) => (28, v6.octets().to_vec()),
            };
            self.record(&mut out, &host, kind, CLASS_FLUSH, &bytes);
        }
        out
    }

    fn record(&self, out: &mut Vec<u8>, name: &[u8], kind: u16, class: [u8; 2], data: &[u8]) {
        out.extend(name);
        out.extend(kind.to_be_bytes());
        out.extend(class);
        out.extend(self.ttl.to_be_bytes());
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
}

fn label(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    assert!(length < 64, "a label has 63 bytes at most");
    [&[length], text.as_bytes()].concat()
}

fn labels(name: &str) -> Vec<u8> {
    let mut all: Vec<u8> = name.split('.').flat_map(label).collect();
    all.push(0);
    all
}

/// Somebody who announces.
#[derive(Debug)]
pub struct Announcer(UdpSocket);

impl Announcer {
    /// Behind this end, from its own address.
    ///
    /// # Panics
    /// Where the end has none.
    #[must_use]
    pub fn at(end: &End) -> Announcer {
        let routes = ["route", "replace", "224.0.0.0/4", "dev", &end.device];
        end.space.ip(&routes);
        let open = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, GROUP.1)).unwrap();
        Announcer(end.space.within(open))
    }

    /// Sends one.
    pub fn say(&self, announcement: &Announcement) {
        // A cable that is out is nobody's matter here.
        let _ = self.0.send_to(&announcement.bytes(), GROUP);
    }
}
