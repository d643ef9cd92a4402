//! One QUIC stream and nothing else, between a camera's place and the repeater's: what a link gives in some seconds to
//! who opens a stream as soon as there is a link. It is what a station's own way is measured against.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use link::endpoint_keys::EndpointKeys;
use link::quic::{Dialer, Hop, Listener, Options};
use link::refusals::Refusals;
use link::seams::Seams;
use link::socket::SocketOptions;

use super::Station;
use super::air::Air;
use super::netns::Namespace;
use super::wire::End;
use crate::double::{block_on, camera_keyring, repeater_keyring};
use crate::wait::now;

/// The camera has no end of footage.
const PIECE: usize = 64 << 10;

/// What came.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// So many bytes.
    pub bytes: u64,
    /// From the first one to the end of the time.
    pub within: Duration,
}

/// Bytes that arrive within a time from the moment at which it comes into reach. It is out of reach before and after.
pub fn bytes_within(station: &Station, serial: &str, air: &Air, time: Duration) -> u64 {
    air.reach(false);
    let ends = (&air.near().space, air.far());
    let came = between(station, serial, ends, time, || air.reach(true));
    air.reach(false);
    came.bytes
}

/// What arrives from a camera's end of a link within a time, once `begin` has run.
pub fn between(
    station: &Station,
    serial: &str,
    (near, far): (&Namespace, &End),
    time: Duration,
    begin: impl FnOnce(),
) -> Came {
    let (ready, port) = sync_channel(1);
    let keyring = camera_keyring(station, serial);
    std::thread::scope(|scope| {
        let (space, address) = (&far.space, far.ipv4());
        scope.spawn(move || {
            space.within(|| {
                block_on(async {
                    let seams = Seams::system();
                    let any = SocketOptions::at((Ipv6Addr::UNSPECIFIED, 0).into());
                    let socket = seams.bind(any).await.unwrap();
                    let (options, refusals) = (Options::new(Hop::Camera), Refusals::new());
                    let keys = EndpointKeys::fresh(&seams.random);
                    let made = Listener::new(&seams, socket, keyring, options, &keys, refusals);
                    let mut listener = made.unwrap();
                    ready.send(listener.local_addr().unwrap().port()).unwrap();
                    let accepted = tokio::time::timeout(time * 2, listener.accept()).await;
                    let Ok(Some(peer)) = accepted else { return };
                    let Ok(mut stream) = peer.connection.open_uni().await else {
                        return;
                    };
                    let piece = vec![7; PIECE];
                    let _ = tokio::time::timeout(time * 2, async {
                        while stream.write_all(&piece).await.is_ok() {}
                    })
                    .await;
                });
            });
        });
        let port = port.recv().unwrap();
        let to = SocketAddr::new(address, port);
        begin();
        let until = now() + time;
        near.within(|| block_on(take(station, to, until)))
    })
}

async fn take(station: &Station, to: SocketAddr, until: Instant) -> Came {
    let seams = Seams::system();
    let any = SocketOptions::at((std::net::Ipv4Addr::UNSPECIFIED, 0).into());
    let socket = seams.bind(any).await.unwrap();
    let keys = EndpointKeys::fresh(&seams.random);
    let (ring, options) = (repeater_keyring(station), Options::new(Hop::Camera));
    let dialer = Dialer::new(&seams, socket, ring, options, &keys, Refusals::new()).unwrap();
    let (mut bytes, mut first) = (0, None);
    let taking = async {
        let peer = loop {
            if let Ok(peer) = dialer.connect(to).await {
                break peer;
            }
        };
        let Ok(mut stream) = peer.connection.accept_uni().await else {
            return;
        };
        while let Ok(Some(chunk)) = stream.read_chunk(PIECE, true).await {
            first.get_or_insert_with(now);
            bytes += chunk.bytes.len() as u64;
        }
    };
    let _ = tokio::time::timeout(until - now(), taking).await;
    dialer.close().await;
    Came {
        bytes,
        within: until - first.unwrap_or(until),
    }
}
