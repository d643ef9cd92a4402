//! The data centre's side: a stateless ingest gateway over an object store, and the program `archive`.
//!
//! Reading order is the footage's way. A repeater's [`session`] offers manifests, which [`admit`] verifies and
//! looks up, in [`lookups`]' turn; [`offers`] is what a connection may put, which [`intake`] takes, checks and hands to the
//! [`vault`], under names of [`layout`]; [`keys`] signs receipts for what is durable. [`gateway`] is what
//! sessions share and how they live; [`heads`] countersigns how far a repeater's own logbook goes. Out again: [`export`] joins the [`chain`] of what was [`found`] and
//! writes the exact original bytes; [`verify`] reads everything again.
//!
//! Invariants:
//! - A receipt is signed only for objects that are durable under their own digest, header included.
//! - Everything is checked again here: nothing is believed because a repeater checked it.
//! - No state but the store's: a gateway may die at any moment, and several may serve one store.
//! - Nothing here deletes. Footage leaves by the owner's own tools, who leaves an `expired` object behind.

pub mod limits;

pub mod epoch;
pub mod folder;
pub mod layout;
pub mod s3;
pub mod store;
pub mod vault;

pub mod alarms;
pub mod keys;
pub mod metrics;

pub mod admit;
pub mod gateway;
pub mod heads;
pub mod intake;
pub mod inventories;
pub mod listings;
pub mod lookups;
pub mod offers;
pub mod session;
pub mod visitors;

pub mod chain;
pub mod export;
pub mod found;
pub mod verify;

mod cli;
pub mod config;
mod serve;

pub use cli::{command, main};
