//! The camera's side of the system, for vendors: seal footage as it is captured, serve it to a repeater, erase it only
//! on an archive's receipts. A library, and the program `bodycam` ([`main`]).
//!
//! Reading order is the footage's: [`seal`] makes segments and manifests; [`store`] keeps them, takes receipts and is
//! the only place that erases; `inventory` tells what is held; [`serve`] hands it to repeaters;
//! [`status`] shows it. Files are made durable by the few steps of one module; every number is in [`limits`].
//!
//! Promises, each with its test:
//! - A manifest names only what is synced, and no (key, IV) pair occurs twice, however often `seal` is killed.
//! - A segment is erased only on receipts that verify under keys of the root-signed list, from as many sites as its policy
//!   asks for, naming the segment and its header. Footage without receipts is never overwritten.
//! - A repeater, however hostile, can end its own session and nothing else.
//!
//! Not here: capture and encoding of video, and the user's buttons.

mod disk;

mod command;
pub mod credentials;
mod inventory;
pub mod limits;
pub mod seal;
pub mod serve;
pub mod status;
pub mod store;

/// Runs the program `bodycam`; `args[0]` is its name.
#[must_use]
pub fn main(args: Vec<std::ffi::OsString>) -> std::process::ExitCode {
    command::main(args)
}
