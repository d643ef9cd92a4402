//! Every limit of the spool, in one place. Sizes are bytes unless the name says otherwise.

/// Written bytes after which a commit is due.
pub const COMMIT_BYTES: u64 = 16 << 20;
/// Staged changes after which a commit is due: bounds the rows that wait in memory.
pub const COMMIT_CHANGES: usize = 4096;
/// Files to sync after which a commit is due: each costs a write of its own, however small.
pub const COMMIT_FILES: usize = 64;
/// Staged rows from which on no further recording is forgotten in a commit.
pub const FORGET_ROWS: usize = 1024;
/// Files that one call of reclaim unlinks at most.
pub const RECLAIM_FILES: usize = 512;
/// The share of the capacity that refused copies may take, as a divisor: 1 %.
pub const REFUSED_SHARE: u64 = 100;
/// Room in the logbook that every live segment has: its share of an entry and of a receipt.
pub const LOGBOOK_ROOM_PER_SEGMENT: u64 = 1024;
/// Room in the logbook beyond that.
pub const LOGBOOK_ROOM: u64 = 256 << 10;
/// One logbook entry.
pub const LOGBOOK_ENTRY_BYTES: usize = 1 << 20;
/// Stage changes in one logbook entry; more are split.
pub const LOGBOOK_CHANGES: usize = 16_384;
/// One row of the ledger: sled keeps larger ones apart, without durability.
pub const ROW_BYTES: usize = 4096;
/// sled's page cache, as it counts: in memory it takes six times as much (measured with 64k segments).
pub const LEDGER_CACHE_BYTES: u64 = 16 << 20;
/// Bytes of a fresh one for each segment (measured: 491 to 494 with 8k and 32k segments).
pub const LEDGER_SEGMENT_BYTES: u64 = 550;
/// What its engine takes whatever it holds (measured: 4.5 MB).
pub const LEDGER_ENGINE_BYTES: u64 = 4_500_000;
/// It is written anew once it could give back one part in so many of what a fresh one takes: with what is added while that is
/// done, it stays under 1 KiB for each of many segments (`bench -- spool --churn`).
pub const RENEW_GAIN: u64 = 8;
/// A ledger that is no larger is not written anew.
pub const LEDGER_BYTES: u64 = 8 << 20;
/// Rows copied with each commit while it is.
pub const RENEW_ROWS: usize = 4096;
/// A file that is given up when the ledger meets a full disk, so that receipts and reclaim go on.
pub const BALLAST_BYTES: u64 = 2 << 20;
/// First pause before a refused segment is pulled again, in milliseconds. It doubles up to a day.
pub const REFUSED_FIRST_MS: u64 = 60_000;
/// A day in milliseconds: the longest pause, and the pause after an archive's refusal.
pub const DAY_MS: u64 = 86_400_000;
/// Segments that one camera may have announced and not archived: 4 TiB of footage.
pub const CAMERA_OUTSTANDING: u64 = 1 << 20;
/// Interrupted pulls whose running hash is remembered, so that a resume need not read the prefix again.
pub const SUSPENDED: usize = 256;
/// Pieces that wait to be hashed beside the writing: 2 MiB of the pieces that the repeater writes.
pub const HASH_PIECES: usize = 16;
/// Segments of so many bytes are hashed beside the writing: hashing fewer takes less than waking a thread is worth.
pub const HASH_BESIDE_BYTES: u32 = 256 << 10;
/// Alarms of one code that are raised at one time; what is beyond is in the log only. Each code has its own room, so
/// that a camera that raises many of one kind hides none of another.
pub const ALARMS_PER_CODE: usize = 64;
/// Rows that one look for work may pass over because they are in flight.
pub const SKIPPED_ROWS: usize = 8192;
/// Bytes that are read or hashed at a time.
pub const READ_BYTES: usize = 1 << 20;
/// Sites whose newest countersignature is kept; of more, the one that was signed longest ago goes.
pub const COUNTERSIGNED_SITES: usize = 16;
/// The file that holds them, at most.
pub const COUNTERSIGNED_BYTES: u64 = 128 << 10;
/// Characters of a text that a camera says of itself and that is kept.
pub const CONTACT_CHARS: usize = 64;
