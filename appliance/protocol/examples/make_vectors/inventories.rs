//! Vectors of inventories: pages each by itself, and all pages of one. A page shows what it may hold; only the
//! whole shows that no recording number is missing or stands twice, so both are judged.
//!
//! Made here is what an honest camera signs and what a broken or lying one might; nothing is sealed.

use protocol::cose::to_cbor;
use protocol::ids::{CameraId, Range};
use protocol::inventory::{self, Held, Released};
use protocol::limits;
use protocol::manifest;
use serde_json::json;

use crate::book::{Book, raw};
use crate::keys::to_hex;
use crate::signed::{of_version_2, refuse_envelopes, with_later_key};
use crate::world::{DAY, World, some_digest};

fn camera(w: &World) -> CameraId {
    w.recording.camera.clone()
}

fn held(number: u64, receipted: &[(u64, u64)], erased: &[(u64, u64)]) -> Held {
    let ranges = |r: &[(u64, u64)]| {
        r.iter()
            .map(|(from, to)| Range {
                from: *from,
                to: *to,
            })
            .collect()
    };
    Held {
        number,
        manifest: some_digest(number),
        index: 1,
        bytes: 4_321,
        receipted: ranges(receipted),
        erased: ranges(erased),
    }
}

/// Page `page` of two: recordings 0 to 3 released, 4 held in part; 5 lost, 6 and 7 held.
fn page(w: &World, page: u32) -> inventory::Body {
    let zero = page == 0;
    let released = Released {
        range: Range { from: 0, to: 3 },
        receipts: some_digest(100),
    };
    inventory::Body {
        version: inventory::VERSION,
        camera: camera(w),
        number: 41,
        page,
        pages: 2,
        next_recording: 8,
        held: if zero {
            vec![held(4, &[(0, 2), (5, 5)], &[(0, 1)])]
        } else {
            vec![held(6, &[], &[]), held(7, &[], &[])]
        },
        released: if zero { vec![released] } else { vec![] },
        overwritten: if zero {
            vec![]
        } else {
            vec![Range { from: 5, to: 5 }]
        },
        made: DAY,
    }
}

fn signed_page(w: &World, n: u32, change: impl Fn(&mut inventory::Body)) -> Vec<u8> {
    let mut body = page(w, n);
    change(&mut body);
    w.evidence(inventory::KIND, &body)
}

/// Inventory pages, each by itself.
pub(crate) fn inventory_pages(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "inventory-page",
        "Inventory pages, each by itself, under the test root.",
        &w.keys,
    );
    let good = signed_page(w, 0, |_| {});
    b.accept("page 0 of 2", raw(&good));
    b.accept("page 1 of 2", raw(&signed_page(w, 1, |_| {})));
    let fresh = signed_page(w, 0, |p| {
        (p.pages, p.number, p.next_recording) = (1, 0, 0);
        (p.held, p.released) = (vec![], vec![]);
    });
    b.accept("of a new camera", raw(&fresh));
    let later = with_later_key(&to_cbor(&page(w, 0)));
    let mut case = raw(&w.evidence_by(inventory::KIND, later, "device", "device"));
    case["later_keys"] = json!(true);
    b.accept("a map key of a later version", case);
    refuse_envelopes(&mut b, &good, limits::INVENTORY_PAGE_BYTES, &json!({}));
    let payload = to_cbor(&page(w, 0));
    let by = |key: &str, chain: &str| w.evidence_by(inventory::KIND, payload.clone(), key, chain);
    b.refuse(
        "wrong role: signed by a link certificate",
        "signer: wrong_usage",
        raw(&by("link", "link")),
    );
    b.refuse(
        "another camera's device",
        "wrong-camera",
        raw(&by("device-2", "device-2")),
    );
    b.refuse(
        "wrong kind: signed as a manifest",
        "bad-signature",
        raw(&w.evidence(manifest::KIND, &page(w, 0))),
    );
    let later = of_version_2(&payload);
    b.refuse(
        "format version 2, in a form of its own",
        "version",
        raw(&w.evidence_by(inventory::KIND, later, "device", "device")),
    );
    let mut refuse = |name: &str, reason: &str, change: &dyn Fn(&mut inventory::Body)| {
        b.refuse(name, reason, raw(&signed_page(w, 0, change)));
    };
    refuse("format version 2", "version", &|p| p.version = 2);
    refuse("no pages", "invalid", &|p| p.pages = 0);
    refuse("page 2 of 2", "invalid", &|p| p.page = 2);
    refuse("257 pages", "invalid", &|p| p.pages = 257);
    refuse("257 recordings", "invalid", &|p| {
        p.held = (0..257).map(|n| held(n, &[], &[])).collect()
    });
    refuse("adjacent ranges that are not joined", "invalid", &|p| {
        p.held = vec![held(4, &[(0, 1), (2, 3)], &[])]
    });
    refuse("descending ranges", "invalid", &|p| {
        p.held = vec![held(4, &[(5, 6), (0, 1)], &[])]
    });
    refuse("a range that runs backward", "invalid", &|p| {
        p.overwritten = vec![Range { from: 6, to: 5 }]
    });
    refuse("released backward", "invalid", &|p| {
        p.released[0].range = Range { from: 3, to: 0 }
    });
    refuse("recordings held that descend", "invalid", &|p| {
        p.held = vec![held(5, &[], &[]), held(4, &[], &[])]
    });
    refuse("one recording held twice", "invalid", &|p| {
        p.held = vec![held(4, &[], &[]), held(4, &[], &[])]
    });
    refuse("released ranges that descend", "invalid", &|p| {
        let range = |from, to| Released {
            range: Range { from, to },
            receipts: some_digest(100),
        };
        p.released = vec![range(2, 3), range(0, 1)]
    });
    refuse("a segment number beyond the limit", "invalid", &|p| {
        p.held = vec![held(4, &[(0, u64::MAX)], &[])]
    });
    b
}

/// Whole inventories.
pub(crate) fn inventories(w: &World) -> Book<'_> {
    let mut b = Book::new(
        "inventory",
        "All pages of an inventory, in order. `fates`: of each recording number below the next one.",
        &w.keys,
    );
    let pages =
        |pages: &[Vec<u8>]| json!({"pages": pages.iter().map(|p| to_hex(p)).collect::<Vec<_>>()});
    let (zero, one) = (signed_page(w, 0, |_| {}), signed_page(w, 1, |_| {}));
    b.accept("two pages", pages(&[zero.clone(), one.clone()]));
    let empty = signed_page(w, 0, |p| {
        (p.pages, p.next_recording) = (1, 0);
        (p.held, p.released) = (vec![], vec![]);
    });
    b.accept("nothing recorded yet", pages(&[empty]));
    let one_after_another = |page: u32| {
        signed_page(w, page, |p| {
            p.next_recording = 4;
            (p.held, p.overwritten) = (vec![], vec![]);
            let from = u64::from(page) * 2;
            p.released = vec![Released {
                range: Range { from, to: from + 1 },
                receipts: some_digest(from),
            }];
        })
    };
    b.accept(
        "released ranges that touch over pages",
        pages(&[one_after_another(0), one_after_another(1)]),
    );
    let mut refuse = |name: &str, list: &[Vec<u8>]| b.refuse(name, "invalid", pages(list));
    refuse("no pages", &[]);
    refuse("a page is missing", std::slice::from_ref(&zero));
    refuse("pages out of order", &[one.clone(), zero.clone()]);
    refuse("one page twice", &[zero.clone(), zero.clone()]);
    refuse(
        "pages of two inventories",
        &[zero.clone(), signed_page(w, 1, |p| p.number = 42)],
    );
    let other = signed_page(w, 1, |p| p.camera.incarnation.0[0] = 9);
    refuse("pages of two incarnations", &[zero.clone(), other]);
    let gap = signed_page(w, 1, |p| p.overwritten.clear());
    refuse("a recording number is missing", &[zero.clone(), gap]);
    let twice = signed_page(w, 1, |p| p.overwritten = vec![Range { from: 4, to: 5 }]);
    refuse("a recording stands in two lists", &[zero.clone(), twice]);
    let of = |page: u32, change: &dyn Fn(&mut inventory::Body)| {
        signed_page(w, page, |p| {
            p.next_recording = 4;
            (p.held, p.released, p.overwritten) = (vec![], vec![], vec![]);
            change(p);
        })
    };
    let released = |from, to| Released {
        range: Range { from, to },
        receipts: some_digest(100),
    };
    let late = of(0, &|p| p.held = vec![held(2, &[], &[]), held(3, &[], &[])]);
    let early = of(1, &|p| p.held = vec![held(0, &[], &[]), held(1, &[], &[])]);
    refuse("recordings held that descend over pages", &[late, early]);
    let late = of(0, &|p| p.released = vec![released(2, 3)]);
    let early = of(1, &|p| p.released = vec![released(0, 1)]);
    refuse("released ranges that descend over pages", &[late, early]);
    let late = of(0, &|p| p.overwritten = vec![Range { from: 2, to: 3 }]);
    let early = of(1, &|p| p.overwritten = vec![Range { from: 0, to: 1 }]);
    refuse("lost ranges that descend over pages", &[late, early]);
    let low = of(0, &|p| p.overwritten = vec![Range { from: 0, to: 1 }]);
    let high = of(1, &|p| p.overwritten = vec![Range { from: 2, to: 3 }]);
    refuse("lost ranges that touch over pages", &[low, high]);
    let short = signed_page(w, 1, |p| _ = p.held.pop());
    refuse("the last recording is missing", &[zero, short]);
    b
}
