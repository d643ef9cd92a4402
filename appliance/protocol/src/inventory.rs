//! An inventory: what a camera says, signed, that it still holds, and for every recording that it no longer
//! holds, why. In pages, each signed by itself with inventory number, page and page count.
//!
//! The newest inventory overrules what anyone else believes of the camera: a listed segment is not
//! Released. Nothing is missing silently: every number below `next_recording` stands in exactly one of
//! held, released, overwritten.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::cose::{self, CoseError, DeviceSigner, from_cbor, to_cbor};
use crate::identity::Trust;
use crate::ids::{CameraId, Digest, Range, Time, ranges_are_canonical};
use crate::limits;

/// Binds a signature to this kind of object.
pub const KIND: &str = "bwc/inventory/1";
/// The version of the format that this crate writes.
pub const VERSION: u16 = 1;

/// One recording that the camera holds, in whole or in part.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Held {
    /// The recording's number.
    #[n(1)]
    pub number: u64,
    /// Digest of its manifest with the highest index, and that index.
    #[n(2)]
    pub manifest: Digest,
    /// Index of that manifest.
    #[n(3)]
    pub index: u32,
    /// Sealed bytes that the camera still holds of it, header included.
    #[n(4)]
    pub bytes: u64,
    /// Segments for which the camera has the receipts that its policy asks for, erased or not.
    #[n(5)]
    pub receipted: Vec<Range>,
    /// Segments that it has erased on such receipts.
    #[n(6)]
    pub erased: Vec<Range>,
}

/// Recordings that were erased on receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Released {
    /// Their numbers.
    #[n(0)]
    pub range: Range,
    /// SHA-256 over the digests of the receipts that released them, in the order of the camera's record.
    #[n(1)]
    pub receipts: Digest,
}

/// One page of an inventory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Body {
    /// Format version.
    #[n(1)]
    pub version: u16,
    /// The camera and its storage's incarnation.
    #[n(2)]
    pub camera: CameraId,
    /// Rises with every inventory of this incarnation.
    #[n(3)]
    pub number: u64,
    /// This page, from 0.
    #[n(4)]
    pub page: u32,
    /// How many pages this inventory has, at least 1.
    #[n(5)]
    pub pages: u32,
    /// The number that the next recording will get.
    #[n(6)]
    pub next_recording: u64,
    /// Recordings held, ascending over all pages.
    #[n(7)]
    pub held: Vec<Held>,
    /// Recordings erased on receipts, ascending over all pages.
    #[n(8)]
    pub released: Vec<Released>,
    /// Recordings lost without receipts (by damage of the camera's storage), ascending over all pages.
    #[n(9)]
    pub overwritten: Vec<Range>,
    /// When it was made, by the camera's clock.
    #[n(10)]
    pub made: Time,
}

/// Why a page or an inventory is refused.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// Signature, certificate or form.
    #[error(transparent)]
    Envelope(#[from] CoseError),
    /// Signed by a device other than the one it speaks for.
    #[error("speaks for another camera than the one that signed it")]
    WrongCamera,
    /// A newer format than this program knows.
    #[error("format version {0} is not known here; update this program")]
    Version(u16),
    /// A field contradicts SPEC.md.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A page whose signature, signer and form were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    body: Body,
    bytes: Bytes,
}

impl Page {
    /// Signs `body`.
    ///
    /// # Errors
    /// [`InventoryError::Invalid`] for a body that no verifier would take.
    pub fn sign(body: Body, signer: &DeviceSigner) -> Result<Page, InventoryError> {
        check(&body)?;
        let bytes: Bytes = cose::sign_evidence(KIND, to_cbor(&body), signer)?.into();
        if bytes.len() > limits::INVENTORY_PAGE_BYTES {
            return Err(CoseError::TooLong {
                length: bytes.len(),
                limit: limits::INVENTORY_PAGE_BYTES,
            }
            .into());
        }
        Ok(Page { body, bytes })
    }

    /// Verifies what a peer or a disk gave.
    ///
    /// # Errors
    /// Any [`InventoryError`].
    pub fn verify(bytes: Bytes, trust: &Trust) -> Result<Page, InventoryError> {
        let (payload, signer) =
            cose::open_evidence(KIND, &bytes, limits::INVENTORY_PAGE_BYTES, trust)?;
        cose::require_version(&payload, VERSION, InventoryError::Version)?;
        let body: Body = from_cbor(&payload, "inventory")?;
        check(&body)?;
        if body.camera.serial != signer {
            return Err(InventoryError::WrongCamera);
        }
        Ok(Page { body, bytes })
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }
    /// The signed bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

fn check(body: &Body) -> Result<(), InventoryError> {
    let invalid = |what| Err(InventoryError::Invalid(what));
    if body.version != VERSION {
        return Err(InventoryError::Version(body.version));
    }
    if body.pages == 0 || body.pages > limits::INVENTORY_PAGES || body.page >= body.pages {
        return invalid("page number or page count out of range");
    }
    if body.held.len() > limits::INVENTORY_PAGE_RECORDINGS {
        return invalid("more recordings on one page than allowed");
    }
    let held_ascends = body.held.windows(2).all(|w| w[0].number < w[1].number);
    let mut released = body.released.windows(2);
    if !held_ascends || !released.all(|w| w[0].range.to < w[1].range.from) {
        return invalid("recordings held, or ranges of released ones, do not ascend");
    }
    let lists = body
        .held
        .iter()
        .flat_map(|h| [&h.receipted, &h.erased])
        .chain([&body.overwritten]);
    for ranges in lists {
        if ranges.len() > limits::INVENTORY_RANGES || !ranges_are_canonical(ranges) {
            return invalid("a list of ranges is too long, not ascending, or not joined");
        }
    }
    let mut of_segments = body
        .held
        .iter()
        .flat_map(|h| h.receipted.iter().chain(&h.erased));
    if of_segments.any(|r| r.to >= limits::RECORDING_SEGMENTS) {
        return invalid("a segment's number is beyond what one recording may hold");
    }
    if body.released.len() > limits::INVENTORY_RANGES
        || body.released.iter().any(|r| r.range.from > r.range.to)
    {
        return invalid("too many released ranges on one page, or one that runs backward");
    }
    Ok(())
}

/// Whether each list goes on above where the page before left it; within a page that was checked. Ranges of released
/// recordings may touch, since each has receipts of its own; the others are joined where they do.
fn ascends_over(pages: &[Page]) -> bool {
    let (mut held, mut released, mut overwritten) = (None, None, None);
    pages.iter().map(Page::body).all(|body| {
        let above = |last: Option<u64>, first: Option<u64>| first.is_none() || last < first;
        let lost = body.overwritten.first();
        let ascends = above(held, body.held.first().map(|h| h.number))
            && above(released, body.released.first().map(|r| r.range.from))
            && above(overwritten, lost.map(|r| r.from.saturating_sub(1)));
        held = body.held.last().map(|h| h.number).or(held);
        released = body.released.last().map(|r| r.range.to).or(released);
        overwritten = body.overwritten.last().map(|r| r.to).or(overwritten);
        ascends
    })
}

/// Why a recording is not held any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Held, in whole or in part.
    Held,
    /// Erased on receipts.
    Released,
    /// Lost by the camera without receipts.
    Overwritten,
}

/// A whole inventory: every page of one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    pages: Vec<Page>,
}

impl Inventory {
    /// Assembles the pages of one inventory, in order, and checks what only the whole shows: that the lists ascend
    /// over all pages, and that every recording number below the next one stands in exactly one of them.
    ///
    /// # Errors
    /// [`InventoryError::Invalid`].
    pub fn assemble(pages: Vec<Page>) -> Result<Inventory, InventoryError> {
        let invalid = |what| Err(InventoryError::Invalid(what));
        let Some(first) = pages.first().map(Page::body) else {
            return invalid("an inventory without pages");
        };
        let whole = usize::try_from(first.pages).is_ok_and(|n| n == pages.len());
        let same = |p: &Body| {
            (&p.camera, p.number, p.pages, p.next_recording)
                == (
                    &first.camera,
                    first.number,
                    first.pages,
                    first.next_recording,
                )
        };
        if !whole
            || !pages
                .iter()
                .zip(0..)
                .all(|(p, i)| p.body.page == i && same(&p.body))
        {
            return invalid("the pages are not those of one inventory");
        }
        if !ascends_over(&pages) {
            return invalid("a list does not ascend over the pages");
        }
        let mut spans: Vec<Range> = Vec::new();
        for body in pages.iter().map(Page::body) {
            spans.extend(body.held.iter().map(|h| Range {
                from: h.number,
                to: h.number,
            }));
            spans.extend(body.released.iter().map(|r| r.range));
            spans.extend(body.overwritten.iter().copied());
        }
        spans.sort_unstable();
        let mut next = 0;
        for span in &spans {
            if span.from != next || span.to < span.from || span.to == u64::MAX {
                return invalid("a recording number is missing, or stands in two lists");
            }
            next = span.to + 1;
        }
        if next != first.next_recording {
            return invalid("a recording number is missing below the next one");
        }
        Ok(Inventory { pages })
    }

    /// The camera it speaks for.
    #[must_use]
    pub fn camera(&self) -> &CameraId {
        &self.first().camera
    }
    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.first().number
    }
    /// The number that the next recording will get.
    #[must_use]
    pub fn next_recording(&self) -> u64 {
        self.first().next_recording
    }
    /// Recordings held, ascending.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.pages.iter().flat_map(|p| &p.body.held)
    }
    /// Recordings released, ascending.
    pub fn released(&self) -> impl Iterator<Item = &Released> {
        self.pages.iter().flat_map(|p| &p.body.released)
    }
    /// Recordings overwritten, ascending.
    pub fn overwritten(&self) -> impl Iterator<Item = &Range> {
        self.pages.iter().flat_map(|p| &p.body.overwritten)
    }
    /// The signed pages.
    #[must_use]
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }
    /// What became of a recording, none for a number not given out yet.
    #[must_use]
    pub fn fate(&self, number: u64) -> Option<Fate> {
        if self.held().any(|h| h.number == number) {
            Some(Fate::Held)
        } else if self.released().any(|r| r.range.contains(number)) {
            Some(Fate::Released)
        } else if self.overwritten().any(|r| r.contains(number)) {
            Some(Fate::Overwritten)
        } else {
            None
        }
    }

    fn first(&self) -> &Body {
        &self
            .pages
            .first()
            .expect("assemble refuses an inventory without pages")
            .body
    }
}
