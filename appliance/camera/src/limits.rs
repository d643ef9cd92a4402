//! Every limit of the camera's side, in one place; the protocol's own are in [`protocol::limits`].

use std::time::Duration;

/// Segments after which a manifest is signed while footage still comes, so that it is offloaded live.
pub const MANIFEST_EVERY_SEGMENTS: usize = 8;
/// A segment that waits this long for its manifest gets one.
pub const MANIFEST_EVERY_MS: u64 = 5_000;
/// Room that a recording keeps back for the manifest that closes it, in bytes.
pub const CLOSING_BYTES: u64 = protocol::limits::MANIFEST_BYTES as u64 + 4096;
/// Size of the ballast file that is given up when the disk is full, so that the recording can be closed.
pub const BALLAST_BYTES: u64 = 256 * 1024;
/// Room reserved on disk behind the record's end, so that receipts can be taken when the disk is full.
pub const RECORD_RESERVE_BYTES: u64 = 1024 * 1024;
/// One entry of the record.
pub const RECORD_ENTRY_BYTES: usize = 4 * 1024 * 1024;
/// How often a growing input, or a sealer's new manifests, are looked for.
pub const POLL: Duration = Duration::from_millis(100);
/// How long a start waits for another process's lock on the store.
pub const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Chunks of standard input that wait to be sealed, and the size of one.
pub const INPUT_CHUNKS: usize = 4;
/// Bytes read at once from an input.
pub const INPUT_CHUNK_BYTES: usize = 256 * 1024;

/// Sessions served at once, and of one repeater (the second replaces a dead one).
pub const SESSIONS: usize = 8;
/// Sessions that one repeater may have.
pub const SESSIONS_PER_REPEATER: usize = 2;
/// Segments that a session may pull at once, besides the link's own four streams.
pub const SEGMENTS_IN_FLIGHT: u16 = 4;
/// What a repeater may have unread at this camera: it sends messages, never footage.
pub const RECEIVE_WINDOW_BYTES: u64 = 512 * 1024;
/// Bytes of footage read and sent at once.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Requests that wait for the custodian.
pub const REQUESTS: usize = 64;
/// New manifests that are remembered for sessions; who lags further behind gets a fresh inventory.
pub const NEWS: usize = 4096;
/// How long a repeater may take for its hello.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// A session that has taken no byte for so long has lost its turn if another wants it.
pub const TURN_SILENCE: Duration = Duration::from_secs(5);
/// A stream is reset when its session takes no byte for so long.
pub const STALL: Duration = Duration::from_secs(30);
/// Least time between two inventories on one session, for each page that an inventory has.
pub const INVENTORY_EVERY: Duration = Duration::from_secs(1);
/// How long a graceful stop may take.
pub const STOP_DEADLINE: Duration = Duration::from_secs(4);
/// Digests in one answer to `release`, beside those of refused receipts.
pub const RELEASED_DIGESTS: usize =
    protocol::limits::MESSAGE_DIGESTS - protocol::limits::RELEASE_RECEIPTS;
/// How often a link that is to be served is looked at.
pub const LINK_LOOK: Duration = Duration::from_millis(200);
/// How often an announcement takes another name.
pub const RENAME_EVERY: Duration = Duration::from_secs(15 * 60);
/// How often changed credentials are looked for.
pub const CREDENTIALS_EVERY: Duration = Duration::from_secs(1);
/// A recording that is told to end is sealed, synced and signed within this: the longest sync that a slow disk may take.
pub const SEAL_CLOSES_WITHIN: Duration = Duration::from_secs(60);
