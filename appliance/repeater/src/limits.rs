//! Every limit of the repeater, in one file. What peers may send is bounded in `protocol::limits`, what the
//! connections take in `link::limits`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// Bytes read from a stream before they go to the storage thread in one piece.
pub const CHUNK_BYTES: usize = 128 << 10;
/// Commands waiting for the storage thread, from both hops together.
pub const STORAGE_QUEUE: usize = 48;
/// The longest that a finished segment waits for others to share its barrier.
pub const GROUP_LINGER: Duration = Duration::from_millis(20);
/// How long a pull waits for the storage thread before it gives its stream up.
pub const STORAGE_WAIT: Duration = Duration::from_secs(5);
/// How often the storage thread looks for room to make and bytes to re-read.
pub const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// The same while room is being made: meanwhile bytes are taken.
pub const RECLAIM_PAUSE: Duration = Duration::from_millis(50);
/// Bytes re-read by the background scrub at each housekeeping: 1 MiB/s, a terabyte in twelve days.
pub const SCRUB_BYTES: u64 = 2 << 20;

/// Segments in flight on the camera hop, over all cameras, in the pool that they share.
pub const PULLS_IN_FLIGHT: usize = 40;
/// Of them, those of nearby cameras, where the configuration does not say: the air is shared, and each more makes all
/// slower.
pub const NEARBY_IN_FLIGHT: usize = 8;
/// Beyond the pool: one segment for each session, of which the configuration allows no more than these. Each in
/// flight has one piece of [`CHUNK_BYTES`] in memory, and a place in the storage queue for its end.
pub const PULLS_RESERVED: usize = 200;
/// Pull tasks taken from the ledger at once, for one camera.
pub const PULL_BATCH: usize = 8;
/// Inventory pages of one camera that may be half-assembled.
pub const INVENTORY_PAGES: usize = 256;
/// Silence of a camera that ends its session while something is asked of it.
pub const CAMERA_SILENCE: Duration = Duration::from_secs(10);
/// How long a stream may wait for its first byte.
pub const FIRST_BYTE: Duration = Duration::from_secs(30);
/// Bytes that a stream must bring after its first byte, and in which time: a slower one is given up.
pub const PULL_FLOOR: (u64, Duration) = (16 << 10, Duration::from_secs(10));
/// First and longest time for which a digest is put off whose stream broke the protocol, or that is listed and not
/// given.
pub const PUT_OFF: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(24 * 60 * 60));
/// A digest that a camera does not have is asked for again after this: by then it has sent its next inventory.
pub const NOT_HERE: Duration = Duration::from_secs(10);
/// A segment for which its camera has receipts is pulled once a site has answered its offer, and so long after the
/// camera's inventory: a receipt comes just after the answer.
pub const SIGNED_SETTLES: Duration = Duration::from_secs(2);
/// It is pulled where no site answers for so long.
pub const SIGNED_WAIT: Duration = Duration::from_secs(600);
/// Digests of one camera that are remembered as put off.
pub const PUT_OFF_MOST: usize = 256;
/// Cameras of which such digests are remembered.
pub const PUT_OFF_CAMERAS: usize = 256;
/// Cameras whose urgent footage of the day is counted; more than these have no urgent quota.
pub const QUOTA_CAMERAS: usize = 4096;
/// A session that lasted for so long was worth its dial: the next comes soon.
pub const WORTHWHILE: Duration = Duration::from_secs(5);
/// First and longest pause before a camera is dialled again.
pub const REDIAL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Pause before a peer is dialled again that says it is busy.
pub const BUSY_PEER: Duration = Duration::from_secs(2);
/// How long a peer that has ended its control stream may take to say why.
pub const LAST_WORD: Duration = Duration::from_secs(1);
/// Addresses that the roster keeps, and sightings that wait for it.
pub const SIGHTINGS: usize = 256;
/// Links that the roster keeps.
pub const LINKS: usize = 256;
/// Stations of hostapd that the roster keeps.
pub const STATIONS: usize = 256;
/// Addresses whose MAC the roster keeps.
pub const NEIGHBOURS: usize = 1024;
/// Addresses of one host that are kept for the sake of its announcements.
pub const ADDRESS_PORTS: usize = 4;
/// Addresses that are dialled at once with nothing but an announcement for them.
pub const UNPROVEN_DIALS: usize = 16;
/// How often an address is dialled at once because something is new there, and after which time once more.
pub const WAKES: (u32, Duration) = (3, Duration::from_secs(5));
/// An address that nobody reports any more is forgotten when it was not seen anew for so long.
pub const FORGET: Duration = Duration::from_secs(60);
/// First and longest time for which whoever was refused is left alone.
pub const REFUSED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));
/// A camera is served on another path when this one has been silent for so long.
pub const PATH_SILENCE: Duration = Duration::from_secs(5);
/// How often the roster is asked for what waits for another path's silence.
pub const ROSTER_TICK: Duration = Duration::from_secs(1);
/// A nearby session without anything to do is closed after this.
pub const NEARBY_IDLE: Duration = Duration::from_secs(30);
/// How long a nearby camera that has nothing is left asleep: its news wake it before.
pub const REST: Duration = Duration::from_secs(15 * 60);
/// The same for one that tells no news.
pub const REST_WITHOUT_NEWS: Duration = Duration::from_secs(60);
/// How long a session that takes over waits for the one before to let go of what it has in flight.
pub const TAKE_OVER: Duration = Duration::from_secs(2);

/// Cameras whose inventories are sent to a site in one go, before its other work has its turn.
pub const INVENTORIES_AT_ONCE: usize = 8;
/// How often a site is told how far the logbook goes, while it grows.
pub const HEAD_EVERY: Duration = Duration::from_secs(600);
/// The same at the beginning of a session: sessions may come and go.
pub const HEAD_AGAIN: Duration = Duration::from_secs(60);
/// How often it is looked whether there is more of it, once that is due.
pub const HEAD_LOOK: Duration = Duration::from_secs(5);
/// A site that took footage whole and signed nothing for so long is an alarm.
pub const RECEIPTS_GONE: Duration = Duration::from_secs(600);
/// Manifests offered to a site and not yet answered.
pub const OFFERS_IN_FLIGHT: usize = 16;
/// Manifests whose answer is remembered on a connection.
pub const OFFERS_REMEMBERED: usize = 4096;
/// Put tasks taken from the ledger at once.
pub const PUT_BATCH: usize = 32;
/// Bytes read from a segment file at once.
pub const READ_BYTES: usize = 256 << 10;
/// A site that owes an answer for so long is silent: the next endpoint or site is dialled beside it.
pub const SITE_SILENCE: Duration = Duration::from_secs(5);
/// An offer without answer, while nothing else is said, makes a site silent too (its store may be slow).
pub const ANSWER_WAIT: Duration = Duration::from_secs(8);
/// A site that was not greeted for so long is an alarm.
pub const SITE_GONE: Duration = Duration::from_secs(10);
/// Objects granted or asked for on a connection and not yet put, from which on nothing more is offered: with the
/// next manifest it stays below what an archive grants. Urgent ones have their own, out of their own quota there.
pub const OBJECTS_OPEN: usize = 128;
/// See [`OBJECTS_OPEN`].
pub const OBJECTS_OPEN_URGENT: usize = 64;
/// A grant unused for so long, while there is room for puts, is for what cannot be put: it holds no offer back.
pub const GRANT_IDLE: Duration = Duration::from_secs(10);
/// A put that was sent without receipt, one that stands still, or an offer without answer, for so long is offered
/// again.
pub const RECEIPT_WAIT: Duration = Duration::from_secs(60);
/// The longest pause that a site's `busy` is believed for.
pub const BUSY_MOST: Duration = Duration::from_secs(300);

/// For a peer of the control socket to ask and be answered, a barrier included.
pub const CONTROL: Duration = Duration::from_secs(10);
/// A line of the control socket, at most.
pub const CONTROL_LINE_BYTES: u64 = 1024;

/// An answer of the control socket, at most.
pub const CONTROL_ANSWER_BYTES: u64 = 4 << 20;
/// Bytes read by one step of a verification: meanwhile a daemon's storage thread serves nobody.
pub const VERIFY_BYTES: u64 = 4 << 20;
/// MiB that a verification reads in a second, where nobody says otherwise.
pub const VERIFY_RATE_MIB: u64 = 64;
/// How often a verification says how far it is.
pub const VERIFY_SHOWN: Duration = Duration::from_secs(2);

/// How often changed credentials are looked for.
pub const CREDENTIALS_EVERY: Duration = Duration::from_secs(1);
/// From SIGTERM to the end of the process, at most.
pub const STOP_DEADLINE: Duration = Duration::from_secs(4);
/// A thread that has not answered for so long is not alive (above the longest tolerated sync).
pub const LIVE_WITHIN: Duration = Duration::from_secs(60);
/// Where chronyd takes commands.
pub const CHRONY_AT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 323));
/// How often chronyd is asked how far off the clock may be, and how long it may take to answer.
pub const CHRONY: Duration = Duration::from_secs(16);
/// See [`CHRONY`].
pub const CHRONY_ANSWER: Duration = Duration::from_secs(1);

/// How long a diagnosis waits for an archive's endpoint.
pub const DOCTOR: Duration = Duration::from_secs(5);
/// Bytes of one part of a support bundle, of which there are ten.
pub const BUNDLE_PART_BYTES: usize = 1 << 20;
/// Lines of the journal in a support bundle.
pub const BUNDLE_JOURNAL_LINES: u32 = 3000;
/// Files of one folder of the spool that a support bundle counts.
pub const BUNDLE_FILES: usize = 1 << 20;
/// For how long a support bundle reads the spool again.
pub const BUNDLE_VERIFY: Duration = Duration::from_secs(20);
/// For another program of the machine, asked for a support bundle.
pub const BUNDLE_HELPER: Duration = Duration::from_secs(20);
/// Any file that a setup reads.
pub const SETUP_BYTES: usize = 1 << 20;
/// For the service manager to seal a key, or to open it: a TPM is slow.
pub const SEAL: Duration = Duration::from_secs(60);
/// How often the health gate looks.
pub const GATE_LOOK: Duration = Duration::from_secs(1);
/// How often the service manager is told how this daemon is, at most; and until it is ready.
pub const LOOK: Duration = Duration::from_secs(5);
/// See [`LOOK`].
pub const FIRST_LOOK: Duration = Duration::from_millis(20);
/// A hop whose runtime has not beaten for so long does not run now.
pub const HOP_BEATS: Duration = Duration::from_secs(5);

/// Links, their addresses, neighbours and default routes that are taken in from the kernel.
pub const KERNEL_LINKS: usize = 1024;
/// See [`KERNEL_LINKS`].
pub const KERNEL_ADDRESSES: usize = 4096;
/// See [`KERNEL_LINKS`]; the kernel itself keeps no more than these.
pub const KERNEL_NEIGHBOURS: usize = 4096;
/// See [`KERNEL_LINKS`].
pub const KERNEL_ROUTES: usize = 256;
/// The UDP port of a camera that is known by its link alone (SPEC section 3).
pub const CAMERA_PORT: u16 = 47800;
/// First and longest pause between two echoes to all nodes of a dock's link on which nobody answers.
pub const ECHO: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(3200));
/// Echoes that come soon, whoever answers.
pub const ECHO_BURST: u32 = 5;
/// Echoes on another link than a dock's after a station came, each pause twice as long: 51 s.
pub const ECHO_STATION: u32 = 10;
/// Pause between two echoes where somebody answers.
pub const ECHO_ANSWERED: Duration = Duration::from_secs(10);
/// Who answers none of so many echoes is gone.
pub const ECHO_MISSED: u32 = 5;
/// Who answers on one link, at most.
pub const ECHO_ANSWERS: usize = 64;
/// Links on which echoes are sent.
pub const ECHO_LINKS: usize = 128;
/// How often the roster is told again of everybody who is there: it may have had no room before.
pub const REMIND: Duration = Duration::from_secs(30);
/// Links at which a station has come, waiting to be asked who it is.
pub const CAME: usize = 16;

/// How often hostapd is asked for all its stations, whatever it tells by itself.
pub const HOSTAPD_POLL: Duration = Duration::from_secs(5);
/// How long hostapd may take to answer.
pub const HOSTAPD_ANSWER: Duration = Duration::from_secs(2);
/// How often a control socket that is not there is tried.
pub const HOSTAPD_AGAIN: Duration = Duration::from_millis(500);
/// Its stations are gone when hostapd has been silent for so long, and that is an alarm.
pub const HOSTAPD_GONE: Duration = Duration::from_secs(10);
/// Whose session may have begun before or after a cable was pulled is asked again after this.
pub const PULLED_AGAIN: Duration = Duration::from_millis(250);
/// After this it began before: nobody is back so soon that it would not have been told by then.
pub const PULLED_UNCLEAR: Duration = Duration::from_secs(3);
/// Stations of one control socket.
pub const BSS_STATIONS: usize = 2048;
/// How often a list of stations that changed while it was read is begun again at once.
pub const BSS_RESTARTS: u32 = 8;

/// Announced names of one link that are kept.
pub const MDNS_NAMES_OF_LINK: usize = 128;
/// Announced names that are kept, over all links.
pub const MDNS_NAMES: usize = 1024;
/// New names of a link that are taken in at once, and after which time there is room for one more.
pub const MDNS_RATE: (u32, Duration) = (64, Duration::from_millis(125));
/// A name that has stood for so long has had its chance to be dialled.
pub const MDNS_TRIED: Duration = Duration::from_secs(10);
/// Addresses of one name that are kept.
pub const MDNS_ADDRESSES: usize = 4;
/// Addresses of one name that are looked at.
pub const MDNS_ADDRESSES_READ: usize = 16;
/// Records and timers that the DNS-SD library may keep before it is begun anew.
pub const MDNS_RECORDS: i64 = 16_384;
/// Changes of links that the DNS-SD library is told before it is begun anew: it remembers all of them.
pub const MDNS_LINKS_TOLD: usize = 512;
