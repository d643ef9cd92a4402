//! Adds to the test vectors what stands here and not there: `cargo run --release -p protocol --example make_vectors`.
//!
//! Inputs are fixed, but ECDSA signatures are random: made anew, every case would be other bytes that say the same. So
//! what the folder has already, keys and each case by its name, stays as it is; whoever means to change a case takes
//! it out of its file first. An argument names another folder.
#![allow(clippy::unwrap_used, reason = "a maker of test data")]

mod book;
#[path = "../../tests/vectors/heads.rs"]
mod heads;
mod inventories;
#[path = "../../tests/vectors/judge.rs"]
mod judge;
#[path = "../../tests/vectors/keys.rs"]
mod keys;
mod logbooks;
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

use keys::Keys;
use world::World;

fn main() {
    let committed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let folder = std::env::args()
        .nth(1)
        .map_or_else(committed, PathBuf::from);
    let keys = book::read(&folder, "keys").map_or_else(pki::make, Keys);
    let world = World::new(keys);
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
    logbooks::heads(&world).write(&folder);
    logbooks::countersignatures(&world).write(&folder);
    messages::messages(&world).write(&folder);
    messages::frames(&world).write(&folder);
}
