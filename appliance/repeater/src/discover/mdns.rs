//! DNS-SD: listens for `_bwc-offload._udp.local` and reports the addresses announced.
//!
//! An announcement is not believed beyond its own link: addresses that are not link-local, private or loopback
//! are passed over, so that nobody can make the repeater dial across the WAN. A slow reader is dropped by the
//! library without a word; then the browse is begun again. An address is gone when no name has it any more.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use link::tasks::Tasks;
use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent};
use tokio::sync::mpsc::Sender;
use tracing::{debug, info, warn};

use super::{Sighting, Source};
use crate::limits;

/// The service type of the camera hop.
pub const SERVICE: &str = "_bwc-offload._udp.local.";
/// The addresses of each name.
type Known = HashMap<String, Vec<SocketAddr>>;
/// Pause before a browse that ended is begun again.
const AGAIN: Duration = Duration::from_secs(2);

/// Browses until the tasks are cancelled.
pub async fn browse(sightings: Sender<Sighting>, tasks: Tasks) {
    while !tasks.is_cancelled() {
        if let Err(e) = browse_once(&sightings, &tasks).await {
            warn!("DNS-SD: {e}; beginning again in {} s", AGAIN.as_secs());
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = tasks.cancelled() => {}
        }
    }
}

async fn browse_once(sightings: &Sender<Sighting>, tasks: &Tasks) -> Result<(), mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    let events = daemon.browse(SERVICE)?;
    info!("DNS-SD: listening for {SERVICE}");
    let mut known = Known::new();
    loop {
        let event = tokio::select! {
            event = events.recv_async() => event,
            () = tasks.cancelled() => break,
        };
        match event {
            Ok(ServiceEvent::ServiceResolved(service)) => {
                let addresses = addresses(&service);
                if known.len() >= limits::SIGHTINGS && !known.contains_key(&service.fullname) {
                    debug!("DNS-SD: more names than are kept");
                    continue;
                }
                for address in &addresses {
                    // A full queue means the hop is behind: the announcement comes again.
                    let _ = sightings.try_send(Sighting::Seen {
                        address: *address,
                        link: None,
                        source: Source::Announced,
                        news: None,
                    });
                }
                let before = known.insert(service.fullname.clone(), addresses);
                withdraw(sightings, &known, before);
            }
            Ok(ServiceEvent::ServiceRemoved(_, name)) => {
                let before = known.remove(&name);
                withdraw(sightings, &known, before);
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    daemon.shutdown().map(drop)
}

/// Reports those addresses as gone that no name has.
fn withdraw(sightings: &Sender<Sighting>, known: &Known, before: Option<Vec<SocketAddr>>) {
    for address in before.unwrap_or_default() {
        if !known.values().flatten().any(|a| *a == address) {
            let _ = sightings.try_send(Sighting::Gone {
                address,
                source: Source::Announced,
            });
        }
    }
}

fn addresses(service: &ResolvedService) -> Vec<SocketAddr> {
    let port = service.port;
    let all = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
    all.filter(is_near)
        .take(8)
        .map(|ip| SocketAddr::new(ip, port))
        .collect()
}

/// Whether an address can be a camera's on this station's own links.
fn is_near(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn nobody_makes_us_dial_across_the_wan() {
        for far in [
            "8.8.8.8",
            "100.64.0.1",
            "2001:db8::1",
            "224.0.0.1",
            "0.0.0.0",
        ] {
            assert!(!is_near(&far.parse().unwrap()), "{far}");
        }
        for near in [
            "192.168.1.7",
            "10.0.0.1",
            "169.254.3.4",
            "127.0.0.1",
            "fd00::1",
        ] {
            assert!(is_near(&near.parse().unwrap()), "{near}");
        }
    }
}
