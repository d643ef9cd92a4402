//! What is said between camera, repeater and archive, and the rules of custody. Pure: no IO, no clock,
//! no runtime; time and randomness are arguments.
//!
//! Reading order is the footage's: who speaks ([`identity`]), what is made ([`segment`], [`header`],
//! [`manifest`], [`inventory`]), what is answered ([`receipt`], under keys of the [`keylist`]), how far a repeater's own record goes ([`logbook`]), how it
//! is said ([`message`], framed by [`codec`]), and what may be decided ([`custody`], [`schedule`],
//! [`pressure`]). `SPEC.md` beside this folder is normative; `vectors/` holds its test vectors.
//!
//! Invariants:
//! - *Parsing verifies.* There is no type for an unverified manifest, inventory, receipt or key list.
//! - Every length is bounded by [`limits`] before anything is allocated for it.
//! - Only [`suite`] names the cryptographic library.

pub mod codec;
pub mod cose;
pub mod custody;
pub mod header;
pub mod identity;
pub mod ids;
pub mod inventory;
pub mod keylist;
pub mod limits;
pub mod logbook;
pub mod manifest;
pub mod message;
pub mod pressure;
pub mod receipt;
pub mod schedule;
pub mod segment;
pub mod suite;
