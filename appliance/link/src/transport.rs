//! The numbers of each hop, as quinn takes them: windows, streams, timeouts, datagram sizes.
//!
//! Memory is bounded by the connection's receive window, which the owner shares out of one budget
//! (`protocol::pressure::window`); a single stream may use all of it, since segments go in order and who asked for one reads
//! it to its end. Datagrams of the archive hop start small and grow by discovery: a WAN that carries less than
//! Ethernet would otherwise swallow the handshake.

use std::time::Duration;

use protocol::identity::Role;
use protocol::limits as wire;
use quinn::congestion::CubicConfig;
use quinn::{
    EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};

use crate::endpoint_keys::EndpointKeys;
use crate::limits;
use crate::quic::LinkError;

use std::sync::Arc;

/// Which of the two hops. The dialler is always a repeater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// From a camera to a repeater.
    Camera,
    /// From a repeater to an archive site.
    Archive,
}

impl Hop {
    /// The protocol's name and version in the handshake.
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Hop::Camera => b"bwc-offload/1",
            Hop::Archive => b"bwc-archive/1",
        }
    }
    /// Who listens.
    #[must_use]
    pub fn listener_role(self) -> Role {
        match self {
            Hop::Camera => Role::Camera,
            Hop::Archive => Role::Archive,
        }
    }
    fn idle(self) -> Duration {
        match self {
            Hop::Camera => limits::CAMERA_IDLE,
            Hop::Archive => limits::ARCHIVE_IDLE,
        }
    }
    fn first_rtt(self) -> Duration {
        match self {
            Hop::Camera => limits::CAMERA_FIRST_RTT,
            Hop::Archive => limits::ARCHIVE_FIRST_RTT,
        }
    }
    fn window_max(self) -> u64 {
        match self {
            Hop::Camera => limits::CAMERA_WINDOW_MAX,
            Hop::Archive => limits::ARCHIVE_WINDOW_MAX,
        }
    }
}

/// How an endpoint of one hop behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which hop.
    pub hop: Hop,
    /// Bytes that the peer may have under way to us; changed later with `Peer::set_receive_window`.
    pub receive_window: u64,
    /// Segments in flight; the peer may open four streams more.
    pub segments_in_flight: u16,
    /// Largest datagram (UDP payload), 1,200 to 6,400; more than 1,452 needs jumbo frames on the whole path, and
    /// both sides to say so.
    pub datagram_bytes: u16,
}

impl Options {
    /// The hop's usual values.
    #[must_use]
    pub fn new(hop: Hop) -> Self {
        let segments_in_flight = match hop {
            Hop::Camera => 4,
            Hop::Archive => 8,
        };
        Options {
            hop,
            receive_window: hop.window_max(),
            segments_in_flight,
            datagram_bytes: limits::DATAGRAM_BYTES,
        }
    }

    /// Segments in flight, and a window that holds all that the peer's streams can carry: whoever does not read a
    /// stream at once, since there is no room for it yet, keeps no other stream of that peer from its bytes.
    #[must_use]
    pub fn each_stream_whole(self, segments_in_flight: u16) -> Self {
        let streams = u64::from(segments_in_flight) + u64::from(limits::STREAMS_BESIDE_SEGMENTS);
        Options {
            receive_window: streams * (wire::SEGMENT_BYTES + wire::FRAME_BYTES) as u64,
            segments_in_flight,
            ..self
        }
    }

    pub(crate) fn check(&self) -> Result<(), LinkError> {
        let range = limits::DATAGRAM_BYTES_MIN..=limits::DATAGRAM_BYTES_MAX;
        if range.contains(&self.datagram_bytes) {
            return Ok(());
        }
        let (min, max) = range.into_inner();
        Err(LinkError::Configuration(format!(
            "datagram_bytes = {}: use {min} to {max}",
            self.datagram_bytes
        )))
    }
}

pub(crate) fn endpoint_config(
    keys: &EndpointKeys,
    options: &Options,
    rng_seed: Option<[u8; 32]>,
) -> Result<EndpointConfig, LinkError> {
    let mut config = keys.endpoint_config();
    // What we accept is never below quinn's own default, so that a peer on Ethernet can use all of it.
    let accepted = options.datagram_bytes.max(1_472);
    let bad = |e| LinkError::Configuration(format!("datagram_bytes = {accepted}: {e}"));
    config.max_udp_payload_size(accepted).map_err(bad)?;
    config.rng_seed(rng_seed);
    Ok(config)
}

pub(crate) fn transport_config(options: &Options, dials: bool) -> TransportConfig {
    let window = |bytes: u64| VarInt::from_u64(bytes).unwrap_or(VarInt::MAX);
    let streams = VarInt::from(
        u32::from(options.segments_in_flight) + u32::from(limits::STREAMS_BESIDE_SEGMENTS),
    );
    let initial = match options.hop {
        Hop::Camera => options.datagram_bytes.min(limits::DATAGRAM_BYTES),
        Hop::Archive => limits::DATAGRAM_BYTES_MIN,
    };
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(options.datagram_bytes);
    let mut config = TransportConfig::default();
    config
        .receive_window(window(options.receive_window))
        .stream_receive_window(window(options.hop.window_max()))
        .send_window(limits::SEND_WINDOW)
        .send_fairness(false)
        .max_concurrent_bidi_streams(streams)
        .max_concurrent_uni_streams(streams)
        .max_idle_timeout(Some(
            IdleTimeout::try_from(options.hop.idle()).expect("minutes fit 62 bits"),
        ))
        // One side is enough, and the dialler knows whether it still wants the session.
        .keep_alive_interval(dials.then_some(limits::KEEP_ALIVE))
        .initial_mtu(initial)
        .mtu_discovery_config(Some(discovery))
        .datagram_receive_buffer_size(None)
        .initial_rtt(options.hop.first_rtt())
        .allow_spin(false)
        .congestion_controller_factory(Arc::new(CubicConfig::default()));
    config
}

/// What a listener allows, for all connections and for those that are not yet any.
pub(crate) fn apply_listener(config: &mut ServerConfig, options: &Options) {
    config
        .transport_config(Arc::new(transport_config(options, false)))
        .max_incoming(limits::INCOMING)
        .incoming_buffer_size(limits::INCOMING_BYTES_EACH)
        .incoming_buffer_size_total(limits::INCOMING_BYTES);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn said(config: &impl std::fmt::Debug, what: &[&str]) {
        let text = format!("{config:?}");
        for field in what {
            assert!(text.contains(field), "{field} is not in {text}");
        }
    }

    #[test]
    fn quinn_is_told_the_numbers_of_each_hop() {
        let both = [
            "send_window: 8388608,",
            "send_fairness: false,",
            "upper_bound: 1452,",
            "allow_spin: false,",
        ];
        let camera = transport_config(&Options::new(Hop::Camera), true);
        said(&camera, &both);
        said(
            &camera,
            &[
                "max_concurrent_bidi_streams: 8,",
                "max_concurrent_uni_streams: 8,",
                "max_idle_timeout: Some(15000),",
                " receive_window: 8388608,",
                "stream_receive_window: 8388608,",
                "initial_mtu: 1452,",
                "keep_alive_interval: Some(5s),",
                "initial_rtt: 80ms,",
                "datagram_receive_buffer_size: None,",
            ],
        );
        let archive = transport_config(&Options::new(Hop::Archive), false);
        said(&archive, &both);
        said(
            &archive,
            &[
                "max_concurrent_bidi_streams: 12,",
                "max_idle_timeout: Some(120000),",
                " receive_window: 16777216,",
                "stream_receive_window: 16777216,",
                "initial_mtu: 1200,",
                "keep_alive_interval: None,",
                "initial_rtt: 333ms,",
            ],
        );
    }

    #[test]
    fn a_listener_bounds_what_is_not_yet_a_connection() {
        let made = rcgen::generate_simple_self_signed(vec![]).unwrap();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut config =
            ServerConfig::with_single_cert(vec![made.cert.into()], key.into()).unwrap();
        apply_listener(&mut config, &Options::new(Hop::Camera));
        let bounds = [
            "max_incoming: 256,",
            "incoming_buffer_size: 65536,",
            "incoming_buffer_size_total: 4194304,",
        ];
        said(&config, &bounds);
        said(&config, &["max_idle_timeout: Some(15000),"]);
    }

    #[test]
    fn datagram_sizes_are_bounded() {
        let mut options = Options::new(Hop::Camera);
        for (bytes, good) in [
            (1_199, false),
            (1_200, true),
            (1_452, true),
            (6_400, true),
            (6_401, false),
        ] {
            options.datagram_bytes = bytes;
            assert_eq!(options.check().is_ok(), good, "{bytes}");
        }
    }
}
