//! The spool by its public calls alone, on real files: the footage's way, what a restart finds, damage, and
//! random histories against a model. All of it runs without root; where neither root nor namespaces are allowed, what needs
//! a small disk is skipped aloud (`disk`).
#![allow(clippy::unwrap_used, reason = "tests")]

mod cameras;
mod custody;
mod damage;
mod disk;
mod forget;
mod heads;
mod interim;
mod matrix;
mod model;
mod restart;
mod room;
mod scale;
mod succession;
mod world;
