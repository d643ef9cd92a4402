//! What runs on the access point: `repeaterd`.
//!
//! The modules read as the footage's way: cameras are found ([`discover`]), their segments pulled ([`pull`]),
//! made durable by the storage thread ([`commit`]: here a segment becomes Held), sent to the archive sites
//! ([`forward`]), and the sites' receipts brought back to the camera ([`release`]); room is made last
//! ([`reclaim`]). What is said is in `protocol`, what is kept in `spool`.
//!
//! Threads: one current-thread runtime for each hop, the storage thread, and the main thread with signals and
//! the loopback HTTP page. A thread owns its state; they talk by bounded queues. Invariants:
//! - nothing is said to a peer of what the storage thread has not made durable;
//! - backpressure is a pull not asked or a put not granted, never a byte dropped;
//! - every wait on a peer has a deadline, every queue a bound, all in [`limits`].
//!
//! It holds no content key and has no verb to edit, copy or delete footage.

pub mod config;
pub mod limits;

pub mod commit;
pub mod discover;
pub mod forward;
pub mod pull;
pub mod reclaim;
pub mod release;

pub mod alarms;
pub mod control;
pub mod ended;
pub mod health;
pub mod metrics;
pub mod notices;
pub mod pulse;
pub mod status;
pub mod trusted_time;

mod adopt;
mod bundle;
mod cli;
mod disk_key;
mod doctor;
mod gate;
mod helper;
mod owner;
mod recover;
mod run;
mod setup;
mod verify;

pub use cli::{command, main};
pub use run::run;
