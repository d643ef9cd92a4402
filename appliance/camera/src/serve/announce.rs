//! Announces the camera on the local network by DNS-SD, as `_bwc-offload._udp`, under a random name that says nothing of
//! the camera or its officer. The TXT counter `n` changes when there is something new, so that a repeater which
//! closed an idle session knows when to dial again.

use std::net::SocketAddr;
use std::time::Duration;

use link::random::Random;
use link::tasks::Tasks;
use mdns_sd::{ServiceDaemon, ServiceInfo};
use tracing::{info, warn};

use super::custodian::Desk;

/// The service type that repeaters browse for.
pub(crate) const SERVICE: &str = "_bwc-offload._udp.local.";
/// Least time between two changes of the announcement.
const EVERY: Duration = Duration::from_secs(2);

/// The announcement; it ends with its drop.
pub(crate) struct Announcement(ServiceDaemon);

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            warn!(%error, "the announcement is not taken back");
        }
    }
}

/// Begins to announce a server at `address`.
///
/// # Errors
/// What the responder says.
pub(crate) fn begin(
    address: SocketAddr,
    desk: &Desk,
    random: &Random,
    tasks: &Tasks,
) -> Result<Announcement, mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    let name = format!("{:016x}", random.u64());
    daemon.register(service(&name, address, 0)?)?;
    info!(name, service = SERVICE, "announced");
    let (responder, mut bulletin, stop) = (daemon.clone(), desk.bulletin.clone(), tasks.token());
    tasks.spawn("camera announcement", async move {
        let counting = async {
            while bulletin.changed().await.is_ok() {
                let now = *bulletin.borrow_and_update();
                let again = service(&name, address, now.manifests.wrapping_add(now.inventory));
                if let Err(error) = again.and_then(|info| responder.register(info)) {
                    warn!(%error, "the announcement is not renewed");
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        tokio::select! {
            () = counting => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(Announcement(daemon))
}

fn service(name: &str, address: SocketAddr, counter: u64) -> Result<ServiceInfo, mdns_sd::Error> {
    let host = format!("{name}.local.");
    let counter = counter.to_string();
    let text = [("n", counter.as_str())];
    if address.ip().is_unspecified() {
        return Ok(
            ServiceInfo::new(SERVICE, name, &host, "", address.port(), &text[..])?
                .enable_addr_auto(),
        );
    }
    ServiceInfo::new(
        SERVICE,
        name,
        &host,
        address.ip(),
        address.port(),
        &text[..],
    )
}
