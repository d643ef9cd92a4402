//! DNS-SD announcements, written byte by byte, so that they can say what nobody's responder would.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};

const SERVICE: &str = "_bwc-offload._udp.local";
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// One announcement.
pub(crate) struct Said<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its addresses.
    pub(crate) addresses: &'a [IpAddr],
    /// Its port.
    pub(crate) port: u16,
    /// Its counter of news.
    pub(crate) news: u64,
}

/// A sender on the link of this number, in this thread's namespace.
pub(crate) struct Speaker {
    socket: UdpSocket,
    link: u32,
}

impl Speaker {
    pub(crate) fn new(link: u32) -> Speaker {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        Speaker { socket, link }
    }

    /// To all who listen on the link.
    pub(crate) fn say(&self, said: &Said<'_>, seconds: u32) {
        let to = SocketAddrV6::new(GROUP, 5353, 0, self.link);
        // A full queue on the way is a lost packet, as on the air.
        let _ = self.socket.send_to(&packet(said, seconds), to);
    }
}

fn packet(said: &Said<'_>, seconds: u32) -> Vec<u8> {
    let (service, host) = (labels(SERVICE), labels(&format!("{}.local", said.name)));
    let instance = after(&labels(said.name), &service);
    let count = u16::try_from(3 + said.addresses.len()).unwrap();
    let mut bytes = vec![0, 0, 0x84, 0, 0, 0];
    bytes.extend(count.to_be_bytes());
    bytes.extend([0; 4]);
    let mut record = |name: &[u8], kind: u16, class: u16, data: &[u8]| {
        bytes.extend(name);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(class.to_be_bytes());
        bytes.extend(seconds.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    };
    record(&service, 12, 1, &instance);
    let mut place = vec![0; 4];
    place.extend(said.port.to_be_bytes());
    place.extend(&host);
    record(&instance, 33, 0x8001, &place);
    let text = format!("n={}", said.news);
    let text = [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    record(&instance, 16, 0x8001, &text);
    for address in said.addresses {
        match address {
            IpAddr::V4(v4) => record(&host, 1, 0x8001, &v4.octets()),
            IpAddr::V6(v6) => record(&host, 28, 0x8001, &v6.octets()),
        }
    }
    bytes
}

/// A name, with its end.
fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A name within another.
fn after(first: &[u8], second: &[u8]) -> Vec<u8> {
    [&first[..first.len() - 1], second].concat()
}
