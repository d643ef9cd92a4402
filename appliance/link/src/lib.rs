//! How parties reach each other: QUIC, mutual TLS, framing, and the seams that let a simulation own time,
//! randomness and the network. Shared by camera, repeater and archive; the program `agency` lives here too.
//!
//! Reading order: what the outside gives ([`clock`], [`random`], [`socket`], gathered in [`seams`]), how a
//! program lives and dies ([`tasks`], [`observe`]), who may speak ([`credentials`], [`tls`], with every
//! refusal counted in [`refusals`]), how they connect ([`quic`], on [`endpoint_keys`]) and what a stream
//! looks like ([`frame`]), and what of one has come ([`receiving`]); last, how a new box comes to belong ([`agency`],
//! [`enrolment`]), and what becomes of its disk when it dies ([`disk_key`]). All numbers are in [`limits`].
//!
//! This crate knows no message and makes no custody decision: `protocol` says what is said.

pub mod limits;

pub mod clock;
pub mod random;
pub mod seams;
pub mod socket;

pub mod config;
pub mod observe;
pub mod service;
pub mod tasks;

pub mod credentials;
pub mod refusals;
pub mod tls;

pub mod endpoint_keys;
pub mod frame;
pub mod quic;
pub mod receiving;

pub mod agency;
pub mod disk_key;
pub mod enrolment;

mod endings;
mod transport;
