//! Announces the camera on the local network by DNS-SD, as `_bwc-offload._udp`, under a random name that says nothing of
//! the camera or its officer, and changes. Beside its port an announcement has two TXT keys and no more: `v`, the
//! newest protocol version that is spoken, and `n`, a counter that changes when there is something new, so that a
//! repeater which closed an idle session knows when to dial again.

use std::net::SocketAddr;
use std::time::Duration;

use link::random::Random;
use link::tasks::Tasks;
use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};
use protocol::message;
use tracing::{info, warn};

use super::custodian::{Bulletin, Desk};
use crate::limits;

/// The service type that repeaters browse for.
pub(crate) const SERVICE: &str = "_bwc-offload._udp.local.";
/// Least time between two changes of the announcement.
const EVERY: Duration = Duration::from_secs(2);

/// The announcement; it ends with its drop.
pub(crate) struct Announcement {
    daemon: ServiceDaemon,
    tasks: Tasks,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.tasks.cancel();
        if let Err(error) = self.daemon.shutdown() {
            warn!(%error, "the announcement is not taken back");
        }
    }
}

/// Begins to announce a server at `address`, on that link alone where one is given.
///
/// # Errors
/// What the responder says.
pub(crate) fn begin(
    address: SocketAddr,
    link: Option<&str>,
    desk: &Desk,
    random: &Random,
    tasks: &Tasks,
) -> Result<Announcement, mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    if let Some(link) = link {
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(IfKind::Name(link.to_owned()))?;
    }
    let mut bulletin = desk.bulletin.clone();
    let mut named = Named::new(address, random);
    named.tell_of(*bulletin.borrow_and_update());
    daemon.register(named.service()?)?;
    info!(name = named.name, link, service = SERVICE, "announced");
    let (responder, random) = (daemon.clone(), random.clone());
    let tasks = tasks.child();
    let stop = tasks.token();
    tasks.spawn("camera announcement", async move {
        let keeping = async {
            loop {
                let renamed = tokio::time::sleep(limits::RENAME_EVERY);
                tokio::select! {
                    changed = bulletin.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        named.tell_of(*bulletin.borrow_and_update());
                        named.tell(&responder);
                        tokio::time::sleep(EVERY).await;
                    }
                    () = renamed => named.rename(&responder, &random),
                }
            }
        };
        tokio::select! {
            () = keeping => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(Announcement { daemon, tasks })
}

/// What is announced.
struct Named {
    name: String,
    address: SocketAddr,
    /// Where the counter begins: nobody takes a camera that started anew for one that has nothing new.
    base: u64,
    counter: u64,
}

impl Named {
    fn new(address: SocketAddr, random: &Random) -> Named {
        Named {
            name: format!("{:016x}", random.u64()),
            address,
            base: random.u64() >> 32,
            counter: 0,
        }
    }

    fn tell_of(&mut self, now: Bulletin) {
        self.counter = now
            .manifests
            .wrapping_add(now.inventory)
            .wrapping_add(self.base);
    }

    fn service(&self) -> Result<ServiceInfo, mdns_sd::Error> {
        let (name, port) = (&self.name, self.address.port());
        let host = format!("{name}.local.");
        let counter = self.counter.to_string();
        let version = message::VERSIONS.iter().max().map_or(0, |v| *v).to_string();
        let text = [("v", version.as_str()), ("n", counter.as_str())];
        if self.address.ip().is_unspecified() {
            let info = ServiceInfo::new(SERVICE, name, &host, "", port, &text[..])?;
            return Ok(info.enable_addr_auto());
        }
        ServiceInfo::new(SERVICE, name, &host, self.address.ip(), port, &text[..])
    }

    fn tell(&self, responder: &ServiceDaemon) {
        if let Err(error) = self.service().and_then(|info| responder.register(info)) {
            warn!(%error, "the announcement is not renewed");
        }
    }

    /// Takes another name. The new one is there before the old one goes: nobody takes it for a camera that left.
    fn rename(&mut self, responder: &ServiceDaemon, random: &Random) {
        let old = format!("{}.{SERVICE}", self.name);
        self.name = Named::new(self.address, random).name;
        self.tell(responder);
        if let Err(error) = responder.unregister(&old) {
            warn!(%error, "the old name is not taken back");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_announcement_tells_port_version_and_news_and_nothing_else() {
        let random = Random::system();
        let mut named = Named::new("192.0.2.7:47800".parse().unwrap(), &random);
        named.counter = 7;
        let told = named.service().unwrap();
        assert_eq!(told.get_port(), 47_800);
        let mut keys: Vec<_> = told.get_properties().iter().map(|p| p.key()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["n", "v"]);
        assert_eq!(told.get_property_val_str("n"), Some("7"));
        assert_eq!(told.get_property_val_str("v"), Some("1"));
        assert_eq!(told.get_hostname(), format!("{}.local.", named.name));
        let other = Named::new(named.address, &random);
        assert_ne!(named.name, other.name, "names are of one announcement");
    }
}
