//! Every number of the link, in one place. What a message may hold is in `protocol::limits`.

use std::time::Duration;

use protocol::ids::Time;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A wall clock before this (2025-01-01) was never set since its battery died.
pub const CLOCK_FLOOR: Time = Time(1_735_689_600_000);

/// From the first packet to both certificates verified.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// For a peer to take one control frame, and to open or answer the control stream.
pub const CONTROL: Duration = Duration::from_secs(5);
/// For the last packets to leave when an endpoint closes.
pub const CLOSE: Duration = Duration::from_secs(1);
/// A silent camera session ends after this.
pub const CAMERA_IDLE: Duration = Duration::from_secs(15);
/// A silent archive session ends after this: a short break of the WAN re-sends nothing.
pub const ARCHIVE_IDLE: Duration = Duration::from_secs(120);
/// The dialler's keep-alive on both hops.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Taken for a round trip to a camera before one was measured: who is dialled as soon as a dock has its carrier begins
/// to listen up to 0.2 s later, and a first packet that found nobody is sent again after three times this.
pub const CAMERA_FIRST_RTT: Duration = Duration::from_millis(80);
/// The same to an archive: what RFC 9002 takes for any path.
pub const ARCHIVE_FIRST_RTT: Duration = Duration::from_millis(333);

/// Connection attempts that may wait for the accept loop.
pub const INCOMING: usize = 256;
/// Handshakes under way at one listener; further attempts are refused.
pub const HANDSHAKES: usize = 256;
/// Handshakes under way above which a new dialler must first prove its address.
pub const HANDSHAKES_BEFORE_RETRY: usize = 32;
/// Bytes buffered for attempts not yet accepted, in all.
pub const INCOMING_BYTES: u64 = 4 * MIB;
/// Bytes buffered for one attempt not yet accepted.
pub const INCOMING_BYTES_EACH: u64 = 64 * KIB;

/// What one session's receive window never exceeds on the camera hop.
pub const CAMERA_WINDOW_MAX: u64 = 8 * MIB;
/// What one stream's receive window never exceeds at the archive.
pub const ARCHIVE_WINDOW_MAX: u64 = 16 * MIB;
/// Sent and not yet acknowledged, at most, in one session.
pub const SEND_WINDOW: u64 = 8 * MIB;
/// Streams that a peer may hold open beside the segments in flight.
pub const STREAMS_BESIDE_SEGMENTS: u16 = 4;

/// Datagram size unless configured: fits Ethernet and Wi-Fi with IPv6.
pub const DATAGRAM_BYTES: u16 = 1_452;
/// Largest datagram that may be configured: ten of them fit the kernel's 64 KiB batch.
pub const DATAGRAM_BYTES_MAX: u16 = 6_400;
/// What every path carries (RFC 9000).
pub const DATAGRAM_BYTES_MIN: u16 = 1_200;
/// Kernel buffer asked for, each way.
pub const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Below this the log warns: bursts of one round trip would be dropped.
pub const SOCKET_BUFFER_BYTES_MIN: usize = 2 * 1024 * 1024;

/// A certificate, key, trust or revocation file.
pub const PEM_FILE_BYTES: u64 = 4 * MIB;
/// Threads of a runtime that read and sync files, at most.
pub const BLOCKING_THREADS: usize = 16;
