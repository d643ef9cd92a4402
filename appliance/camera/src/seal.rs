//! Sealing: footage becomes segments, segments are named by manifests, and nothing of it can be read here again.
//!
//! One sealer works on a store. A recording goes: draw a content key (RAM only); header and state, synced; then for
//! each 4 MiB of footage one segment, file and folder synced; a manifest at least every eight segments, signed
//! only then, synced; after the first manifest the next recording's number. The last segment carries the final flag,
//! so that the sealer reads a little ahead.
//!
//! Invariants:
//! - A content key is used by this process for one recording and is never stored: a recording that was interrupted
//!   is closed ([`close`]) and footage goes on as a new one with a new key. So no (key, IV) pair occurs twice.
//! - A manifest names only what is synced, and follows one that is. After a manifest that could not be written, none is
//!   signed for this recording, and no other recording begins: what there is, the next start names.
//! - A number is used once. A sealer takes the next after all that `camera.cbor`, the record and the folders know, and
//!   it asks them only when it is alone.
//! - Footage without receipts is never overwritten: where neither quota nor disk has room and nothing may be erased,
//!   recording is refused, and what there is so far is closed as interrupted.

pub(crate) mod close;
pub mod input;
mod room;

use std::fs;
use std::io::{self, Read};
use std::sync::Arc;

use link::clock::Clock;
use link::random::Random;
use protocol::cose::DeviceSigner;
use protocol::header::{self, HeaderError, Private};
use protocol::identity::Trust;
use protocol::ids::{RecordingId, SiteId, Time};
use protocol::keylist::{KeyList, State};
use protocol::limits as wire;
use protocol::manifest::{Class, EndReason, HeaderEntry, ManifestError, Policy, SegmentEntry};
use protocol::segment::{self, Place, SegmentError};
use tracing::{error, info, warn};

use crate::credentials::Papers;
use crate::disk;
use crate::limits;
use crate::store::layout::Layout;
use crate::store::papers::{self, CameraPaper, ClockPaper};
use crate::store::{self, Lock, Store, StoreError};
use close::Ledger;
use input::{fill, read_some};

/// Why footage is not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No room, and nothing that may be erased.
    #[error(
        "STORAGE FULL: {needed} bytes are needed and nothing here may be erased without receipts; not recording. \
             Dock the camera to offload it"
    )]
    Full {
        /// Bytes that there is no room for.
        needed: u64,
    },
    /// The footage could not be read.
    #[error("the footage ends unexpectedly: {0}")]
    Input(io::Error),
    /// No key to seal a header for.
    #[error(
        "the key list names no active header recipient: nobody could ever open this recording; get a newer key list"
    )]
    NoRecipient,
    /// A receipt policy that cannot be met.
    #[error("a receipt policy of {k} of {sites} sites cannot be met: give 1 to {max} sites and --k at most their number",
            max = wire::POLICY_SITES)]
    Policy {
        /// Receipts asked for.
        k: u8,
        /// Sites given.
        sites: usize,
    },
    /// Sealing a segment failed.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Sealing the header failed.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Signing a manifest failed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An earlier recording of this sealer is not closed.
    #[error(
        "an earlier recording could not be closed: start again, which closes it and names all that was sealed"
    )]
    Unclosed,
}

impl From<disk::DiskError> for SealError {
    fn from(error: disk::DiskError) -> Self {
        SealError::Store(error.into())
    }
}

/// What is said of a recording.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// How soon it must arrive.
    pub class: Class,
    /// How many sites must have signed for it.
    pub k: u8,
    /// The sites that count; empty for all that have an active receipt key.
    pub sites: Vec<SiteId>,
    /// Media type, for who opens it.
    pub media_type: Option<String>,
    /// Who carried the camera, for who opens it.
    pub officer: Option<String>,
    /// Case, for who opens it.
    pub case: Option<String>,
}

/// A recording that was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Which.
    pub id: RecordingId,
    /// How many segments.
    pub segments: u64,
    /// Bytes of footage.
    pub bytes: u64,
}

/// The one sealer of a store.
#[derive(Debug)]
pub struct Sealer {
    layout: Layout,
    paper: CameraPaper,
    trust: Trust,
    keys: KeyList,
    signer: Arc<DeviceSigner>,
    clock: Clock,
    random: Random,
    quota: u64,
    used: u64,
    /// Whether a recording of this sealer was left to the next start.
    unclosed: bool,
    view: Option<Store>,
    _lock: Lock,
}

/// The recording under way.
struct Open {
    ledger: Ledger,
    key: protocol::suite::SymmetricKey,
    pending: Vec<SegmentEntry>,
    from: Time,
    last_manifest: Time,
    bytes: u64,
}

impl Sealer {
    /// Takes the store's seal lock, closes what an earlier sealer left open, and is ready to record.
    ///
    /// `quota` is the bytes that recordings may take.
    ///
    /// # Errors
    /// [`SealError::Store`].
    pub fn open(
        layout: &Layout,
        camera: &Papers,
        quota: u64,
        clock: Clock,
        random: Random,
    ) -> Result<Sealer, SealError> {
        let (signer, trust) = (Arc::clone(&camera.signer), camera.trust.clone());
        let fresh = protocol::ids::Incarnation(random.bytes());
        disk::make_folder(layout.root())?;
        let lock = Lock::take(&layout.file("seal.lock"), limits::LOCK_WAIT)?;
        // Not before: the sealer whose lock this was may have taken a number until it let go.
        let mut paper = store::initialise(layout, &signer.serial, fresh)?;
        let keys = {
            let _custody = Lock::take(&layout.file("custody.lock"), limits::LOCK_WAIT)?;
            store::newest_keys(layout, camera.key_list.clone(), &trust, None)?
        };
        close::close_interrupted(layout, &mut paper, &signer, &trust, &clock)?;
        let unused = store::unused_number(layout)?;
        if unused > paper.next {
            paper.next = unused;
            papers::keep(layout, "camera.cbor", &paper)?;
        }
        let mut sealer = Sealer {
            layout: layout.clone(),
            paper,
            trust,
            keys,
            signer,
            clock,
            random,
            quota,
            used: 0,
            unclosed: false,
            view: None,
            _lock: lock,
        };
        sealer.used = sealer.measure()?;
        sealer.keep_ballast();
        Ok(sealer)
    }

    /// Seals one recording from `footage` to its end.
    ///
    /// # Errors
    /// Any [`SealError`]; what was sealed until then is closed as interrupted.
    pub fn record(&mut self, footage: &mut dyn Read, about: &About) -> Result<Recorded, SealError> {
        if self.unclosed {
            return Err(SealError::Unclosed);
        }
        let mut now = Vec::with_capacity(wire::SEGMENT_FOOTAGE_BYTES);
        let mut ahead = Vec::with_capacity(wire::SEGMENT_FOOTAGE_BYTES);
        let began = self.now();
        fill(footage, &mut now).map_err(SealError::Input)?;
        let mut open = self.begin(about, began)?;
        loop {
            let read = read_some(footage, &mut ahead);
            let last = read.is_ok() && ahead.is_empty();
            let sealed = self.seal(&mut open, &now, last);
            let failed = sealed.err().or(read.err().map(SealError::Input));
            if let Some(error) = failed {
                self.interrupt(open);
                return Err(error);
            }
            if last {
                return self.finish(open);
            }
            std::mem::swap(&mut now, &mut ahead);
            ahead.clear();
            if let Err(error) = fill(footage, &mut now) {
                let kept = self.seal(&mut open, &now, false);
                self.interrupt(open);
                return Err(kept.err().unwrap_or(SealError::Input(error)));
            }
        }
    }

    fn begin(&mut self, about: &About, began: Time) -> Result<Open, SealError> {
        let policy = self.policy(about)?;
        let id = RecordingId {
            camera: self.paper.camera.clone(),
            number: self.paper.next,
        };
        let recipients = self.keys.active_recipients();
        if recipients.is_empty() {
            return Err(SealError::NoRecipient);
        }
        let key = zeroize::Zeroizing::new(self.random.bytes::<32>());
        let private = Private {
            content_key: *key,
            media_type: about.media_type.clone(),
            officer: about.officer.clone(),
            case: about.case.clone(),
            position: None,
            muted: None,
        };
        let sealed = header::seal(&id, &private, &recipients, &|out| self.random.fill(out))?;
        let length = u32::try_from(sealed.bytes.len()).expect("a header is at most 16 KiB");
        let room = sealed.bytes.len() as u64 + wire::SEGMENT_BYTES as u64;
        self.need(room)?;
        let header = HeaderEntry {
            digest: sealed.digest,
            length,
        };
        let number = id.number;
        let ledger = Ledger::begin(id, header, policy, about.class);
        disk::make_new_folder(&self.layout.recording(number))?;
        let made = papers::write(&self.layout.state(number), &ledger.state(began))
            .and_then(|()| disk::replace(&self.layout.header(number), &sealed.bytes));
        if let Err(error) = made {
            self.unclosed = close::discard(&self.layout, number).is_err();
            return Err(full_or(error.into(), room));
        }
        self.used += sealed.bytes.len() as u64;
        Ok(Open {
            ledger,
            key,
            pending: Vec::new(),
            from: began,
            last_manifest: began,
            bytes: 0,
        })
    }

    fn policy(&self, about: &About) -> Result<Policy, SealError> {
        let mut sites = about.sites.clone();
        if sites.is_empty() {
            for key in self
                .keys
                .body()
                .receipt_keys
                .iter()
                .filter(|k| k.state == State::Active)
            {
                if !sites.contains(&key.site) && sites.len() < wire::POLICY_SITES {
                    sites.push(key.site.clone());
                }
            }
        }
        let fits = about.k >= 1
            && usize::from(about.k) <= sites.len()
            && sites.len() <= wire::POLICY_SITES;
        let unknown = sites
            .iter()
            .find(|s| !self.keys.body().receipt_keys.iter().any(|k| k.site == **s));
        if let Some(site) = unknown {
            warn!(%site, "the key list has no receipt key of this site: only a newer list could make its receipts count");
        }
        if fits {
            Ok(Policy { k: about.k, sites })
        } else {
            Err(SealError::Policy {
                k: about.k,
                sites: sites.len(),
            })
        }
    }

    fn seal(&mut self, open: &mut Open, footage: &[u8], last: bool) -> Result<(), SealError> {
        let seq = open.ledger.sealed() + open.pending.len() as u64;
        if seq >= wire::RECORDING_SEGMENTS {
            return Err(SealError::Input(io::ErrorKind::FileTooLarge.into()));
        }
        let sealed = segment::seal(
            &open.key,
            Place {
                recording: open.ledger.id(),
                seq,
                last,
            },
            footage,
        )?;
        let length = sealed.bytes.len() as u64;
        self.need(length)?;
        let path = self.layout.segment(open.ledger.id().number, seq, last);
        if let Err(error) = disk::write_whole(&path, &sealed.bytes) {
            let freed = error.is_full() && self.make_room(length)? > 0;
            if !freed {
                return Err(full_or(error.into(), length));
            }
            disk::write_whole(&path, &sealed.bytes).map_err(|e| full_or(e.into(), length))?;
        }
        if let Err(error) = disk::sync_folder(&self.layout.recording(open.ledger.id().number)) {
            let _ = fs::remove_file(&path); // what could not be synced must not look whole to the next start
            return Err(error.into());
        }
        self.used += length;
        open.bytes += footage.len() as u64;
        let length = u32::try_from(length).expect("a segment is at most 4 MiB and its seal");
        open.pending.push(SegmentEntry {
            seq,
            length,
            digest: sealed.digest,
        });
        let waited = self.now().since_ms(open.last_manifest) >= limits::MANIFEST_EVERY_MS;
        if !last && (waited || open.pending.len() >= limits::MANIFEST_EVERY_SEGMENTS) {
            self.sign(open, None)?;
        }
        Ok(())
    }

    /// Signs what is pending; the first manifest of a recording makes its number taken. Once that failed, what is on
    /// the disk is not known here: the next start reads it.
    fn sign(&mut self, open: &mut Open, end: Option<EndReason>) -> Result<(), SealError> {
        let signed = self.try_sign(open, end);
        self.unclosed |= signed.is_err();
        signed
    }

    fn try_sign(&mut self, open: &mut Open, end: Option<EndReason>) -> Result<(), SealError> {
        let to = self.now().max(open.from);
        let (hints, pending) = (self.hints(), open.pending.clone());
        let mut ledger = open.ledger.clone();
        let manifest = ledger.manifest(pending, (open.from, to), end, &hints, &self.signer)?;
        let (number, index) = (open.ledger.id().number, manifest.body().index);
        let path = self.layout.manifest(number, index);
        disk::replace_for_sure(&path, manifest.bytes(), &self.layout.ballast())?;
        open.ledger = ledger; // only now: the next manifest follows one that is on the disk
        open.pending.clear();
        self.used += manifest.bytes().len() as u64;
        (open.from, open.last_manifest) = (to, to);
        if number >= self.paper.next {
            self.paper.next = number + 1;
            papers::keep(&self.layout, "camera.cbor", &self.paper)?;
        }
        Ok(())
    }

    fn finish(&mut self, mut open: Open) -> Result<Recorded, SealError> {
        self.sign(&mut open, Some(EndReason::Stopped))?;
        let id = open.ledger.id().clone();
        info!(recording = %id, segments = open.ledger.sealed(), bytes = open.bytes, "sealed");
        Ok(Recorded {
            id,
            segments: open.ledger.sealed(),
            bytes: open.bytes,
        })
    }

    /// Closes what there is; what fails here is done by the next start.
    fn interrupt(&mut self, mut open: Open) {
        let number = open.ledger.id().number;
        let closed = if self.unclosed {
            Err(SealError::Unclosed)
        } else if open.ledger.sealed() == 0 && open.pending.is_empty() {
            close::discard(&self.layout, number).map_err(SealError::from)
        } else {
            self.sign(&mut open, Some(EndReason::Interrupted))
        };
        match closed {
            Ok(()) => warn!(
                number,
                segments = open.ledger.sealed(),
                "recording closed as interrupted"
            ),
            Err(error) => {
                self.unclosed = true;
                error!(number, %error, "the interrupted recording is not closed; the next start does it")
            }
        }
    }

    fn hints(&self) -> close::Hints {
        close::Hints::read(&self.layout, &self.clock)
    }

    /// The camera's time: never below the newest signed time that it has seen, while its clock is unset.
    fn now(&self) -> Time {
        if self.clock.is_set() {
            return self.clock.now();
        }
        let paper = papers::read::<ClockPaper>(&self.layout.file("clock.cbor"))
            .ok()
            .flatten();
        self.clock
            .now()
            .max(paper.and_then(|p| p.signed).unwrap_or_default())
    }
}

fn full_or(error: StoreError, needed: u64) -> SealError {
    if error.is_full() {
        SealError::Full { needed }
    } else {
        error.into()
    }
}
