//! The spool by its public calls alone, on real files: the footage's way, what a restart finds, damage, and
//! random histories against a model. Everything here runs without root.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cameras;
mod custody;
mod damage;
mod disk;
mod matrix;
mod model;
mod restart;
mod room;
mod scale;
mod world;
