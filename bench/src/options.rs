//! The command line. Sizes are MiB of footage in all, over all cameras.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    about = "What we claim about speed, and the peers we compare to"
)]
pub struct Options {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// All parties on loopback, the parts they are made of, and the peers we compare to
    Relay(Relay),
    /// The store alone against the raw disk
    Spool(Spool),
    /// The parts alone: QUIC, SHA-256, durable write, read
    Parts(Parts),
    /// From a dock's carrier to the first segment Held, over real cables; needs root
    Docking(Docking),
}

impl Command {
    /// What every bench takes.
    #[must_use]
    pub fn common(&self) -> &Common {
        match self {
            Command::Relay(o) => &o.common,
            Command::Spool(o) => &o.common,
            Command::Parts(o) => &o.common,
            Command::Docking(o) => &o.common,
        }
    }
}

/// What every bench takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Common {
    /// Print an array of {name, value, unit, target, ok}
    #[arg(long)]
    pub json: bool,
    /// Exit 1 where a target is missed, naming it; takes the profile dist only
    #[arg(long)]
    pub check: bool,
    /// Work below this folder, on the disk to be measured (default: the temporary folder)
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Leave the work folder, with every party's log, and say where it is
    #[arg(long)]
    pub keep: bool,
}

/// `bench relay`.
#[derive(Clone, Debug, Args)]
pub struct Relay {
    /// Cameras of the run that is reported first
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=40))]
    pub cameras: u32,
    /// MiB of footage in each run, over all its cameras
    #[arg(long, default_value_t = 1280, value_parser = clap::value_parser!(u64).range(160..=65_536))]
    pub megabytes: u64,
    /// Measure only these phases
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "check")]
    pub only: Vec<Phase>,
    /// Of each part, this many runs; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub repeat: u32,
    /// What every bench takes.
    #[command(flatten)]
    pub common: Common,
}

impl Relay {
    /// Whether a phase is to be run.
    #[must_use]
    pub fn wants(&self, phase: Phase) -> bool {
        self.only.is_empty() || self.only.contains(&phase)
    }
}

/// What `bench relay` consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Phase {
    /// QUIC, SHA-256, durable write, read
    Parts,
    /// Both hops at once
    Hops,
    /// The archive kept away, then back
    Held,
    /// One camera after another connects
    First,
    /// 1 camera against 40
    Forty,
    /// The spool's disk stands still for 10 s
    Stall,
    /// rsync and rclone over two hops
    Peers,
}

/// `bench spool`.
#[derive(Clone, Debug, Args)]
pub struct Spool {
    /// Segments to take through the store: 1k, 32k, 262k, or any number from 16 to 262144
    #[arg(long, default_value = "256", value_parser = segments)]
    pub segments: u32,
    /// Bytes of each sealed segment, 64 to 4194368 (default: the usual 4194354, or as many as make 1 GiB in all)
    #[arg(long, value_parser = clap::value_parser!(u32).range(64..=4_194_368))]
    pub segment_bytes: Option<u32>,
    /// Take as many again, so often, in the room of what was there before
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub churn: u32,
    /// Cut the power when all is Held, and measure the start after it alone (root; mkfs.ext4, xfs_io)
    #[arg(long, conflicts_with = "churn")]
    pub cut: bool,
    /// Cameras that they come from
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=40))]
    pub cameras: u32,
    /// What every bench takes.
    #[command(flatten)]
    pub common: Common,
}

impl Spool {
    /// Bytes of each segment: small files stand in where many usual ones would not fit a disk.
    #[must_use]
    pub fn bytes_each(&self) -> u32 {
        let fit = u32::try_from((1u64 << 30) / u64::from(self.segments)).unwrap_or(u32::MAX);
        self.segment_bytes.unwrap_or(fit.clamp(1024, 4_194_354))
    }
}

/// A number of segments; `k` stands for 1,024, and 262k for the 262,144 of a terabyte.
fn segments(text: &str) -> Result<u32, String> {
    let number = match text.strip_suffix('k') {
        Some("262") => Some(262_144),
        Some(thousands) => thousands
            .parse::<u32>()
            .ok()
            .and_then(|n| n.checked_mul(1024)),
        None => text.parse().ok(),
    };
    number
        .filter(|n| (16..=262_144).contains(n))
        .ok_or_else(|| "use 16 to 262144, or 1k, 32k, 262k".to_owned())
}

/// `bench parts`.
#[derive(Clone, Debug, Args)]
pub struct Parts {
    /// MiB through each part
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(64..=65_536))]
    pub megabytes: u64,
    /// Runs of each part; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub repeat: u32,
    /// What every bench takes.
    #[command(flatten)]
    pub common: Common,
}

/// `bench docking`.
#[derive(Clone, Debug, Args)]
pub struct Docking {
    /// How often a camera is docked
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub dockings: u32,
    /// Measure only these
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "check")]
    pub only: Vec<Scene>,
    /// What every bench takes.
    #[command(flatten)]
    pub common: Common,
}

impl Docking {
    /// Whether a scene is to be played.
    #[must_use]
    pub fn wants(&self, scene: Scene) -> bool {
        self.only.is_empty() || self.only.contains(&scene)
    }
}

/// What `bench docking` consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scene {
    /// One camera after another is docked
    Docks,
    /// Forty cameras at once behind one uplink, and then idle
    Forty,
    /// An officer who only walks past
    Walking,
}
