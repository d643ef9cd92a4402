//! Makes the test vectors anew: `cargo run --release -p protocol --example make_vectors`.
//!
//! Inputs are fixed, but ECDSA signatures are random: every run gives other files that say the same. So they
//! are made once and committed, and made again only when the format changes. An argument names another folder.
#![allow(clippy::unwrap_used, reason = "a maker of test data")]

mod book;
mod inventories;
#[path = "../../tests/vectors/judge.rs"]
mod judge;
#[path = "../../tests/vectors/keys.rs"]
mod keys;
mod messages;
mod pki;
mod sealed;
#[path = "../../tests/vectors/show.rs"]
mod show;
mod signed;
mod statements;
mod whole;
mod world;

use std::path::{Path, PathBuf};

use world::World;

fn main() {
    let committed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let folder = std::env::args()
        .nth(1)
        .map_or_else(committed, PathBuf::from);
    let world = World::new(pki::make());
    book::write(&folder, "keys", &world.keys.0);
    sealed::certificates(&world).write(&folder);
    sealed::segments(&world).write(&folder);
    sealed::headers(&world).write(&folder);
    signed::manifests(&world).write(&folder);
    inventories::inventory_pages(&world).write(&folder);
    inventories::inventories(&world).write(&folder);
    signed::device_proofs(&world).write(&folder);
    statements::key_lists(&world).write(&folder);
    statements::receipts(&world).write(&folder);
    statements::releases(&world).write(&folder);
    whole::recordings(&world).write(&folder);
    messages::messages(&world).write(&folder);
    messages::frames(&world).write(&folder);
}
