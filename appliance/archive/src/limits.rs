//! Every number of the archive, in one place. What a message may hold is in `protocol::limits`, what a
//! connection may use in `link::limits`.

use std::time::Duration;

/// Bytes of segments in memory, of all connections together, unless configured otherwise.
pub const BYTES_IN_FLIGHT: u64 = 64 << 20;
/// Bytes of segments in memory of one connection, unless configured otherwise: four, and what sealing adds.
pub const BYTES_IN_FLIGHT_CONNECTION: u64 = 17 << 20;
/// The same of urgent ones beyond that: two segments at a time.
pub const BYTES_IN_FLIGHT_URGENT: u64 = 9 << 20;
/// Connections at one time, unless configured otherwise: every site of a national deployment, twice.
pub const CONNECTIONS: u32 = 4096;
/// Connections of one identity: a repeater that restarts often has some that still time out.
pub const SESSIONS_OF_ONE: usize = 8;
/// Offers of one connection that are neither stored nor refused.
pub const OFFERS: usize = 256;
/// The same for urgent ones beyond that.
pub const OFFERS_URGENT: usize = 64;
/// Headers and segments that are wanted on one connection and not yet put.
pub const WANTS: usize = 256;
/// The same for urgent ones beyond that.
pub const WANTS_URGENT: usize = 128;
/// A grant of which nothing was put for so long lapses where another offer needs it.
pub const GRANT_LAPSES: Duration = Duration::from_secs(5);
/// Offers of one connection being looked up in the store at one time, or waiting for a turn.
pub const LOOKUPS: usize = 4;
/// The same for urgent ones beyond that.
pub const LOOKUPS_URGENT: usize = 2;
/// Lookups of all connections together: each may hold one whole object, so 128 MiB at the most.
pub const LOOKUPS_ALL: usize = 32;
/// The same for urgent ones beyond that.
pub const LOOKUPS_URGENT_ALL: usize = 8;
/// What became durable within this time is signed as one receipt.
pub const RECEIPT_BATCH: Duration = Duration::from_millis(20);
/// A peer's stream, and its first message, may stand still for so long.
pub const PROGRESS: Duration = Duration::from_secs(30);
/// A stream whose bytes find no room is given back to its sender after this.
pub const ROOM: Duration = Duration::from_secs(5);
/// One operation of the store.
pub const STORE: Duration = Duration::from_secs(120);
/// When to offer again what was put off.
pub const RETRY_AFTER_MS: u64 = 1_000;
/// What is in flight at SIGTERM may become durable within this time.
pub const SHUTDOWN: Duration = Duration::from_secs(3);
/// How often key list and credentials are looked at for changes.
pub const RELOAD: Duration = Duration::from_secs(5);
/// A recording's listing is trusted for so long; what it says to be stored is checked anyway.
pub const LISTING: Duration = Duration::from_secs(30);
/// Object names remembered over all recordings listed.
pub const LISTED_NAMES: usize = 131_072;
/// Cameras whose newest inventory number is remembered.
pub const CAMERAS: usize = 65_536;
/// Incarnations of one repeater's logbook of which the newest head is kept; of more, the first one and the newest.
pub const LOGBOOKS: usize = 32;
/// What is kept of one repeater's logbooks, at most.
pub const LOGBOOKS_BYTES: usize = 1 << 20;
/// Alarms of one code kept at one time; further ones are logged only.
pub const ALARMS_OF_ONE: usize = 128;
/// Key lists listed in the store: the newest of them is taken.
pub const KEY_LISTS: usize = 4096;
/// An S3 store answers a request within this, or it is sent again.
pub const S3_ANSWER: Duration = Duration::from_secs(20);
/// A request to an S3 store is repeated so often, within [`S3_RETRIES_WITHIN`].
pub const S3_RETRIES: usize = 3;
/// See [`S3_RETRIES`].
pub const S3_RETRIES_WITHIN: Duration = Duration::from_secs(60);
/// Idle connections to an S3 store that are kept.
pub const S3_IDLE_CONNECTIONS: usize = 16;
