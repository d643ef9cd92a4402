//! Whether an announced address may be dialled: it must be on the very link on which it was announced. A pure
//! function of the address, that link, and what the kernel says of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::discover::LinkIndex;
use crate::discover::interfaces::table::{Links, Usable};
use crate::discover::interfaces::wire::Prefix;

/// Why an announced address is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Elsewhere {
    /// It was announced on a link that may not be used, such as the WAN.
    #[error("announced on a link that is not used")]
    OtherLink,
    /// It is not on the link on which it was announced.
    #[error("not on the link on which it was announced")]
    NotThere,
    /// It is our own.
    #[error("our own address")]
    Own,
}

/// Where to dial an address that was announced on a link.
///
/// # Errors
/// [`Elsewhere`].
pub fn judge(ip: IpAddr, port: u16, on: LinkIndex, links: &Links) -> Result<SocketAddr, Elsewhere> {
    let link = links.get(&on).ok_or(Elsewhere::OtherLink)?;
    if port == 0 || ip.is_unspecified() || ip.is_multicast() {
        return Err(Elsewhere::NotThere);
    }
    if link.loopback || ip.is_loopback() {
        let both = link.loopback && ip.is_loopback();
        return if both {
            Ok(SocketAddr::new(ip, port))
        } else {
            Err(Elsewhere::NotThere)
        };
    }
    if link.is_own(ip) || links.values().any(|other| other.is_own(ip)) {
        return Err(Elsewhere::Own);
    }
    match ip {
        IpAddr::V6(v6) if is_link_local(v6) => Ok(SocketAddrV6::new(v6, port, 0, on).into()),
        // An IPv4 link-local address has no scope: without that prefix on this link the WAN's route would take it.
        _ if is_on(ip, link) => Ok(SocketAddr::new(ip, port)),
        _ => Err(Elsewhere::NotThere),
    }
}

/// Link-local as RFC 4291 section 2.5.6 has it: fe80::/64. The rest of fe80::/10 is nobody's.
fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[..4] == [0xfe80, 0, 0, 0]
}

/// Whether a host of that address is in a prefix of the link.
fn is_on(ip: IpAddr, link: &Usable) -> bool {
    let holds = |prefix: &Prefix| prefix.bits > 0 && prefix.contains(ip);
    let host = |prefix: &Prefix| match ip {
        IpAddr::V4(v4) => is_host(v4, prefix.bits),
        IpAddr::V6(_) => true,
    };
    link.prefixes.iter().any(|p| holds(p) && host(p))
}

/// Neither the prefix itself nor its broadcast address.
fn is_host(ip: Ipv4Addr, bits: u8) -> bool {
    let host = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
    let of = ip.to_bits() & host;
    bits >= 31 || (of != 0 && of != host)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::discover::{Link, Medium};

    /// Links with these own addresses: number, name, `address/bits` each.
    pub(in crate::discover::mdns) fn links(all: &[(LinkIndex, &str, &[&str])]) -> Links {
        let usable = |(index, name, own): &(LinkIndex, &str, &[&str])| {
            let prefix = |text: &&str| {
                let (own, bits) = text.split_once('/').unwrap();
                let (own, bits) = (own.parse().unwrap(), bits.parse().unwrap());
                Prefix { own, bits }
            };
            let link = Link {
                index: *index,
                name: name.parse().unwrap(),
            };
            let usable = Usable {
                link,
                medium: Medium::Other,
                carrier: true,
                losses: 0,
                master: None,
                loopback: *name == "lo",
                prefixes: own.iter().map(prefix).collect(),
                can_probe: true,
                ports: std::collections::BTreeMap::new(),
            };
            (*index, usable)
        };
        all.iter().map(usable).collect()
    }

    fn station() -> Links {
        links(&[
            (2, "sta0", &["10.7.0.1/24", "fe80::1/64", "fd07::1/64"]),
            (3, "dock1", &["fe80::2/64"]),
        ])
    }

    #[test]
    fn what_is_on_the_link_is_dialled_there() {
        for (ip, on, at) in [
            ("10.7.0.9", 2, "10.7.0.9:47800"),
            ("fd07::9", 2, "[fd07::9]:47800"),
            ("fe80::9", 2, "[fe80::9%2]:47800"),
            ("fe80::9", 3, "[fe80::9%3]:47800"),
        ] {
            let judged = judge(ip.parse().unwrap(), 47800, on, &station());
            assert_eq!(judged, Ok(at.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn an_announcement_that_points_elsewhere_is_passed_over() {
        for (ip, on, why) in [
            ("8.8.8.8", 2, Elsewhere::NotThere),
            ("2001:db8::1", 2, Elsewhere::NotThere),
            ("192.168.1.7", 2, Elsewhere::NotThere),
            ("169.254.169.254", 2, Elsewhere::NotThere),
            ("127.0.0.1", 2, Elsewhere::NotThere),
            ("::1", 2, Elsewhere::NotThere),
            ("0.0.0.0", 2, Elsewhere::NotThere),
            ("::", 2, Elsewhere::NotThere),
            ("224.0.0.1", 2, Elsewhere::NotThere),
            ("ff02::1", 2, Elsewhere::NotThere),
            ("255.255.255.255", 2, Elsewhere::NotThere),
            ("10.7.0.255", 2, Elsewhere::NotThere),
            ("10.7.0.0", 2, Elsewhere::NotThere),
            ("::ffff:10.7.0.9", 2, Elsewhere::NotThere),
            ("10.7.0.1", 2, Elsewhere::Own),
            ("fe80::1", 2, Elsewhere::Own),
            ("fe80::1", 3, Elsewhere::Own),
            // On another of our links, and on one that is not used.
            ("10.7.0.9", 3, Elsewhere::NotThere),
            ("fe80::9", 9, Elsewhere::OtherLink),
        ] {
            let judged = judge(ip.parse().unwrap(), 47800, on, &station());
            assert_eq!(judged, Err(why), "{ip} on {on}");
        }
        let no_port = judge("10.7.0.9".parse().unwrap(), 0, 2, &station());
        assert_eq!(no_port, Err(Elsewhere::NotThere));
    }

    #[test]
    fn the_loopback_is_its_own_world() {
        let links = links(&[(1, "lo", &["127.0.0.1/8", "::1/128"])]);
        let at = |ip: &str| judge(ip.parse().unwrap(), 5, 1, &links);
        assert_eq!(at("127.0.0.1"), Ok("127.0.0.1:5".parse().unwrap()));
        assert_eq!(at("::1"), Ok("[::1]:5".parse().unwrap()));
        assert_eq!(at("10.7.0.9"), Err(Elsewhere::NotThere));
        assert_eq!(at("fe80::9"), Err(Elsewhere::NotThere));
    }

    proptest! {
        #[test]
        fn nothing_is_dialled_but_in_a_prefix_of_its_link(bits: u128, v4: u32, on in 0u32..5, six: bool) {
            let ip: IpAddr = if six {
                std::net::Ipv6Addr::from_bits(bits).into()
            } else {
                Ipv4Addr::from_bits(v4).into()
            };
            let links = station();
            if let Ok(at) = judge(ip, 1, on, &links) {
                prop_assert_eq!(at.ip(), ip);
                prop_assert!(links[&on].prefixes.iter().any(|p| p.contains(ip)));
            }
        }
    }
}
