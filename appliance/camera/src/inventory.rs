//! The camera's inventory, from the store to signed pages.
//!
//! Every number below the next recording's stands in exactly one list: held, released, or overwritten (damage). A page
//! ends when it has as many recordings or bytes as a page may have. What does not fit the limit of one list of
//! ranges is left out on the safe side: a segment that is not listed as receipted gets its receipt again.

use bytes::Bytes;
use protocol::cose::{DeviceSigner, to_cbor};
use protocol::ids::{Range, Time};
use protocol::inventory::{Body, Held, InventoryError, Page, Released, VERSION};
use protocol::limits;
use protocol::suite::Hasher;

use crate::store::Store;
use crate::store::recording::{Recording, Whereabouts};

/// Bytes of content on one page: leaves room for the envelope and the certificate chain.
const PAGE_CONTENT_BYTES: usize = limits::INVENTORY_PAGE_BYTES - limits::CHAIN_BYTES - 4096;

/// Signs inventory `number` of what `store` holds.
///
/// # Errors
/// [`InventoryError`], where there is more than an inventory can tell.
pub(crate) fn sign(
    store: &Store,
    number: u64,
    now: Time,
    signer: &DeviceSigner,
) -> Result<Vec<Bytes>, InventoryError> {
    let mut pages = lay_out(store);
    let count =
        u32::try_from(pages.len()).map_err(|_| InventoryError::Invalid("too many pages"))?;
    for (body, page) in pages.iter_mut().zip(0..) {
        (body.number, body.page, body.pages, body.made) = (number, page, count, now);
    }
    pages
        .into_iter()
        .map(|body| Page::sign(body, signer).map(|page| page.bytes().clone()))
        .collect()
}

/// The pages without number and count.
fn lay_out(store: &Store) -> Vec<Body> {
    let empty = Body {
        version: VERSION,
        camera: store.camera().clone(),
        number: 0,
        page: 0,
        pages: 1,
        next_recording: store.next_number(),
        held: Vec::new(),
        released: Vec::new(),
        overwritten: Vec::new(),
        made: Time(0),
    };
    let (mut pages, mut room) = (vec![empty.clone()], PAGE_CONTENT_BYTES);
    let mut place = |bytes: usize, full: &dyn Fn(&Body) -> bool, put: &mut dyn FnMut(&mut Body)| {
        if bytes > room || full(pages.last().expect("begins with one")) {
            pages.push(empty.clone());
            room = PAGE_CONTENT_BYTES;
        }
        room = room.saturating_sub(bytes);
        put(pages.last_mut().expect("begins with one"));
    };
    for recording in store.recordings().values() {
        let held = held(recording);
        let full = |b: &Body| b.held.len() >= limits::INVENTORY_PAGE_RECORDINGS;
        place(to_cbor(&held).len(), &full, &mut |b| {
            b.held.push(held.clone())
        });
    }
    for released in released(store) {
        let full = |b: &Body| b.released.len() >= limits::INVENTORY_RANGES;
        place(to_cbor(&released).len(), &full, &mut |b| {
            b.released.push(released)
        });
    }
    for range in store.lost() {
        let full = |b: &Body| b.overwritten.len() >= limits::INVENTORY_RANGES;
        place(to_cbor(&range).len(), &full, &mut |b| {
            b.overwritten.push(range)
        });
    }
    pages
}

fn held(recording: &Recording) -> Held {
    let cut = |mut ranges: Vec<Range>| {
        ranges.truncate(limits::INVENTORY_RANGES);
        ranges
    };
    Held {
        number: recording.id.number,
        manifest: recording.manifest,
        index: recording.index,
        bytes: recording.bytes_here(),
        receipted: cut(
            recording.ranges(|s| s.receipted.is_some() || s.bytes == Whereabouts::Erased)
        ),
        erased: cut(recording.ranges(|s| s.bytes == Whereabouts::Erased)),
    }
}

/// Released recordings as ranges; each with the hash of the digests of the receipts that released it, recordings
/// ascending, of each the receipts in the order of the record.
fn released(store: &Store) -> Vec<Released> {
    let mut ranges: Vec<(Range, Hasher)> = Vec::new();
    for (number, gone) in store.gone() {
        match ranges.last_mut() {
            Some((range, _)) if range.to + 1 == *number => range.to = *number,
            _ => ranges.push((
                Range {
                    from: *number,
                    to: *number,
                },
                Hasher::new(),
            )),
        }
        let (_, hasher) = ranges.last_mut().expect("one was pushed");
        gone.receipts
            .iter()
            .for_each(|r| hasher.update(r.as_bytes()));
    }
    ranges
        .into_iter()
        .map(|(range, hasher)| Released {
            range,
            receipts: hasher.finish(),
        })
        .collect()
}
