//! On which links the camera serves. Where links are named, it listens and announces itself on those and on no other,
//! each on a socket of its own that is bound to the device, and only while the link is up: of a link under 802.1X or
//! WPA the kernel says so when it has authenticated, and a dock's cable is one by being plugged in. Off such a link
//! there is no port to find.
//!
//! A link is looked at, not listened for: a camera's links are few.

use std::net::SocketAddr;
use std::path::PathBuf;

use link::quic::{Listener, Peer};
use link::socket::SocketOptions;
use link::tasks::Tasks;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{Doors, ServeError, announce};
use crate::limits;

/// Takes connections on one link, whenever it is up, until told to stop.
pub(super) async fn serve(doors: Doors, name: String, peers: mpsc::Sender<Peer>, tasks: Tasks) {
    while !tasks.is_cancelled() {
        if is_up(&name)
            && let Err(error) = while_up(&doors, &name, &peers, &tasks).await
        {
            warn!(link = name, %error, "this link is not served");
        }
        tokio::select! {
            () = tokio::time::sleep(limits::LINK_LOOK) => {}
            () = tasks.cancelled() => {}
        }
    }
}

async fn while_up(
    doors: &Doors,
    name: &str,
    peers: &mpsc::Sender<Peer>,
    tasks: &Tasks,
) -> Result<(), ServeError> {
    let options = SocketOptions {
        device: Some(name.to_owned()),
        ..SocketOptions::at(doors.options.listen)
    };
    let mut listener = doors.listen(options).await?;
    let address: SocketAddr = listener.local_addr().map_err(ServeError::Bind)?;
    let _announcement = (doors.options.announce)
        .then(|| announce::begin(address, Some(name), &doors.desk, &doors.seams.random, tasks))
        .transpose()?;
    info!(link = name, %address, "serving");
    tokio::select! {
        () = take(&mut listener, peers) => {}
        () = down(name) => info!(link = name, "the link is down"),
        () = tasks.cancelled() => {}
    }
    listener.close().await;
    Ok(())
}

/// Hands over who connects, until the listener or who takes them is gone.
pub(super) async fn take(listener: &mut Listener, peers: &mpsc::Sender<Peer>) {
    while let Some(peer) = listener.accept().await {
        if peers.send(peer).await.is_err() {
            return;
        }
    }
}

/// Returns when the link is not up any more.
async fn down(name: &str) {
    while is_up(name) {
        tokio::time::sleep(limits::LINK_LOOK).await;
    }
}

fn is_up(name: &str) -> bool {
    let said = |what: &str| {
        let path = PathBuf::from("/sys/class/net").join(name).join(what);
        std::fs::read_to_string(path).unwrap_or_default()
    };
    is_usable(said("operstate").trim(), said("carrier").trim())
}

/// By what the kernel says: a dormant link has a cable and has not authenticated. Some drivers know only the cable.
fn is_usable(operstate: &str, carrier: &str) -> bool {
    operstate == "up" || (operstate == "unknown" && carrier == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_served_while_it_is_up_and_authenticated() {
        for (operstate, carrier, is) in [
            ("up", "1", true),
            ("dormant", "1", false),
            ("down", "0", false),
            ("lowerlayerdown", "0", false),
            ("unknown", "1", true),
            ("unknown", "", false),
            ("", "", false),
        ] {
            assert_eq!(is_usable(operstate, carrier), is, "{operstate} {carrier}");
        }
        assert!(!is_up("nonesuch0"));
        assert!(is_up("lo"));
    }
}
