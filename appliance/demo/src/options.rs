//! What can be asked of the demo. Nothing here does anything.

use std::path::PathBuf;

/// All parties on one machine: real video leaves the cameras, crosses the repeater sealed, arrives in the
/// archive, and is erased on the cameras only on the archive's signature.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "demo", version)]
pub(crate) struct Options {
    /// Use every file of this folder as a recording, instead of the sample video
    #[arg(long, value_name = "DIR")]
    pub(crate) footage: Option<PathBuf>,
    /// How many cameras
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) cameras: u16,
    /// How much sample video in all, in millions of bytes (at least one copy of the sample a recording)
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) megabytes: u64,
    /// Keep originals, stores, exports and logs in this folder (new or empty)
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Where the archive stores, instead of a folder: s3://bucket/prefix (keys and endpoint from AWS_... variables)
    #[arg(long, value_name = "URL")]
    pub(crate) archive: Option<String>,
    /// What makes a success of that store durable
    #[arg(
        long,
        value_name = "HOW",
        default_value = "replicated:1",
        requires = "archive"
    )]
    pub(crate) durability: String,
    /// Kill and restart cameras, repeater and archive at moments that this number decides
    #[arg(long, value_name = "SEED")]
    pub(crate) chaos: Option<u64>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub(crate) timeout: u64,
}
