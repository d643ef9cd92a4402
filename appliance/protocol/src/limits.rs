//! Every limit of the protocol, in one place. SPEC.md's table "Limits" repeats these numbers; a peer that
//! exceeds one is refused with `limit` before anything is allocated for what it sent.

/// One control frame: a CBOR item of at most this many bytes.
pub const FRAME_BYTES: usize = 64 * 1024;
/// Segments that one manifest may name.
pub const MANIFEST_SEGMENTS: usize = 64;
/// One manifest, signed, with its certificate chain: fits a frame with room for the message around it.
pub const MANIFEST_BYTES: usize = 48 * 1024;
/// Footage in one segment, in bytes, before sealing.
pub const SEGMENT_FOOTAGE_BYTES: usize = 4 * 1024 * 1024;
/// What sealing adds at most: COSE headers, IV and the 16-byte tag.
pub const SEAL_OVERHEAD_BYTES: usize = 64;
/// One sealed segment.
pub const SEGMENT_BYTES: usize = SEGMENT_FOOTAGE_BYTES + SEAL_OVERHEAD_BYTES;
/// One sealed recording header.
pub const HEADER_BYTES: usize = 16 * 1024;
/// Recipients of one header.
pub const HEADER_RECIPIENTS: usize = 8;
/// Segments of one recording (16 TiB of footage): bounds every counter that a peer names.
pub const RECORDING_SEGMENTS: u64 = 1 << 22;
/// Sites that one receipt policy may name.
pub const POLICY_SITES: usize = 8;
/// One inventory page, signed, with its certificate chain.
pub const INVENTORY_PAGE_BYTES: usize = 48 * 1024;
/// Recordings on one inventory page.
pub const INVENTORY_PAGE_RECORDINGS: usize = 256;
/// Ranges (of segments or of recordings) in one list of an inventory page.
pub const INVENTORY_RANGES: usize = 256;
/// Pages of one inventory: 65,536 recordings held by one camera.
pub const INVENTORY_PAGES: u32 = 256;
/// One receipt, signed.
pub const RECEIPT_BYTES: usize = 4 * 1024;
/// Segment digests that one receipt names; and so many manifest digests. All within [`RECEIPT_BYTES`].
pub const RECEIPT_SEGMENTS: usize = MANIFEST_SEGMENTS;
/// Receipts in one release message.
pub const RELEASE_RECEIPTS: usize = 12;
/// Digests in one `released` or `want` message.
pub const MESSAGE_DIGESTS: usize = 1024;
/// One key list, signed.
pub const KEY_LIST_BYTES: usize = 32 * 1024;
/// Entries of each kind in a key list.
pub const KEY_LIST_ENTRIES: usize = 128;
/// A device proof, signed, with its certificate chain.
pub const PROOF_BYTES: usize = 12 * 1024;
/// The head of a logbook, signed, with its certificate chain.
pub const LOGBOOK_HEAD_BYTES: usize = 12 * 1024;
/// A countersignature of one.
pub const COUNTERSIGNATURE_BYTES: usize = 4 * 1024;
/// Characters of a name: serial, station, site.
pub const NAME_CHARS: usize = 64;
/// Characters of an explanation that a peer sends; the rest is cut.
pub const TEXT_CHARS: usize = 256;
/// Certificates in one chain, and their bytes in all.
pub const CHAIN_CERTIFICATES: usize = 4;
/// Bytes of one chain.
pub const CHAIN_BYTES: usize = 8 * 1024;
/// UDP port where a camera serves the camera hop unless its announcement says otherwise.
pub const CAMERA_PORT: u16 = 47_800;
/// UDP port where an archive site serves the archive hop unless configured otherwise.
pub const ARCHIVE_PORT: u16 = 47_801;
