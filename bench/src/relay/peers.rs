//! What others take for the same way: rsync and rclone, over two hops on this machine, the same number of
//! bytes in files of a segment's size, one transfer for each camera at once; a camera's second hop begins
//! when its first is done.
//!
//! rsync: plaintext to its daemon, `--fsync`. rclone: webdav over TLS, without its own checksums (they
//! cost it more than the rest), and a sync of the folder after each hop, since it has none of its own.
//! Neither gives a receipt, and neither verifies beyond its own checks. What the
//! middle takes is its server, its clients of the second hop, and its syncs. A peer that is not installed is
//! named loudly.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Rig;
use crate::figures::{Figures, Target};
use crate::parties;
use crate::parts::{self, SEGMENT_BYTES, Sample, bytes_f64};
use crate::process::{Child, Yard, children_cpu_s};

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;
const LISTENS: Duration = Duration::from_secs(10);

/// One of the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Rsync,
    Rclone,
}

impl Peer {
    fn program(self) -> &'static str {
        match self {
            Peer::Rsync => "rsync",
            Peer::Rclone => "rclone",
        }
    }
    fn version(self) -> Option<String> {
        let flag = if self == Peer::Rsync {
            "--version"
        } else {
            "version"
        };
        let out = Command::new(self.program()).arg(flag).output().ok()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        out.status
            .success()
            .then(|| text.lines().next().unwrap_or_default().trim().to_owned())
    }
}

/// Drives both peers.
pub(crate) fn measure(rig: &Rig<'_>, figures: &mut Figures) -> Result<()> {
    let cameras = usize::try_from(rig.options.cameras).expect("at most 40");
    let corpus = rig.yard.folder("corpus")?;
    let each = rig.bytes_each(rig.options.cameras) / SEGMENT_BYTES as u64;
    for camera in 0..cameras {
        let folder = corpus.join(format!("camera-{camera}"));
        fs::create_dir(&folder)?;
        for n in 0..each {
            parties::make_footage(&folder.join(format!("{n:06}")), SEGMENT_BYTES as u64)?;
        }
    }
    let bytes = each * cameras as u64 * SEGMENT_BYTES as u64;
    for (peer, rate, cpu) in [
        (Peer::Rsync, "rsync_rate", "rsync_middle_cpu"),
        (Peer::Rclone, "rclone_rate", "rclone_middle_cpu"),
    ] {
        let Some(version) = peer.version() else {
            let why = format!("{} is not installed", peer.program());
            figures.skip(rate, &why, "MiB/s", Target::None);
            figures.skip(cpu, &why, "CPU-s/GiB", Target::None);
            continue;
        };
        figures.say(peer.program(), &version);
        let (wall_s, cpu_s) = carry(rig, peer, &corpus, cameras, bytes)?;
        figures.put(rate, bytes_f64(bytes) / MIB / wall_s, "MiB/s", Target::None);
        figures.put(
            cpu,
            cpu_s / (bytes_f64(bytes) / GIB),
            "CPU-s/GiB",
            Target::None,
        );
    }
    Ok(fs::remove_dir_all(&corpus)?)
}

/// A peer's way over two hops.
#[derive(Debug)]
struct Way<'a> {
    yard: &'a Yard,
    peer: Peer,
    corpus: &'a Path,
    middle: Place,
    end: Place,
}

/// Where a peer's server listens, and the folder that it writes.
#[derive(Debug)]
struct Place {
    at: SocketAddr,
    folder: PathBuf,
}

/// Carries the corpus with one peer: wall and the middle's CPU, both in seconds.
fn carry(
    rig: &Rig<'_>,
    peer: Peer,
    corpus: &Path,
    cameras: usize,
    bytes: u64,
) -> Result<(f64, f64)> {
    let keys = rig.agency.site();
    let server = |name: &str| match peer {
        Peer::Rsync => rsync_server(rig.yard, name),
        Peer::Rclone => rclone_server(rig.yard, name, &keys),
    };
    let ((in_the_middle, middle), (at_the_end, end)) = (server("middle")?, server("end")?);
    let yard = rig.yard;
    let way = Way {
        yard,
        peer,
        corpus,
        middle,
        end,
    };
    let (wall_s, clients_cpu_s) = way.walk(cameras)?;
    let arrived = (0..cameras).map(|c| folder_bytes(&way.end.folder.join(name(c))));
    let arrived: u64 = arrived.sum::<Result<u64>>()?;
    ensure!(
        arrived == bytes,
        "{} carried {arrived} of {bytes} bytes",
        peer.program()
    );
    let served = in_the_middle.usage()?;
    drop((in_the_middle, at_the_end));
    fs::remove_dir_all(&way.middle.folder)?;
    fs::remove_dir_all(&way.end.folder)?;
    Ok((wall_s, clients_cpu_s + served.cpu_s + served.children_cpu_s))
}

impl Way<'_> {
    /// Walks all cameras at once: the wall, and the CPU of the middle's programs but its server.
    fn walk(&self, cameras: usize) -> Result<(f64, f64)> {
        let began = self.yard.clock.instant();
        let cpu_s = std::thread::scope(|scope| {
            let start = |camera| scope.spawn(move || self.carry(camera));
            let threads: Vec<_> = (0..cameras).map(start).collect();
            let join = |t: std::thread::ScopedJoinHandle<'_, Result<f64>>| {
                t.join()
                    .map_err(|_| anyhow::anyhow!("a transfer's thread is gone"))?
            };
            threads.into_iter().map(join).sum::<Result<f64>>()
        })?;
        Ok((
            self.yard
                .clock
                .instant()
                .duration_since(began)
                .as_secs_f64(),
            cpu_s,
        ))
    }

    /// Carries one camera's files over both hops; CPU-seconds of the middle's programs but its server.
    fn carry(&self, camera: usize) -> Result<f64> {
        self.hop(camera, self.corpus, &self.middle, "first")?;
        let landed = self.sync(&self.middle, camera)?;
        let sent = self.hop(camera, &self.middle.folder, &self.end, "second")?;
        self.sync(&self.end, camera)?;
        Ok(landed + sent)
    }

    fn hop(&self, camera: usize, from: &Path, to: &Place, hop: &str) -> Result<f64> {
        let from = from.join(name(camera));
        let args = match self.peer {
            Peer::Rsync => rsync_client(&from, to.at, camera),
            Peer::Rclone => rclone_client(&from, to.at, camera),
        };
        let label = format!("{}-{hop}-{camera}", self.peer.program());
        let said = self.yard.run(&label, "part:timed", &args)?;
        let sample: Sample =
            serde_json::from_str(said.last().context("no account of a transfer")?)?;
        Ok(sample.cpu_s)
    }

    /// CPU-seconds of making durable what arrived; rsync has done so itself.
    fn sync(&self, at: &Place, camera: usize) -> Result<f64> {
        if self.peer == Peer::Rsync {
            return Ok(0.0);
        }
        let folder = at.folder.join(name(camera)).display().to_string();
        Ok(parts::one(self.yard, "sync", &[folder])?.cpu_s)
    }
}

fn name(camera: usize) -> String {
    format!("camera-{camera}")
}

fn rsync_server(yard: &Yard, name: &str) -> Result<(Child, Place)> {
    let folder = yard.folder(&format!("rsync-{name}"))?;
    let config = yard.path().join(format!("rsync-{name}.conf"));
    let mut text = String::from("use chroot = no\nmax connections = 64\n");
    if nix::unistd::geteuid().is_root() {
        text.push_str("uid = 0\ngid = 0\n");
    }
    let lock = config.with_extension("lock");
    text.push_str(&format!("lock file = {}\n", lock.display()));
    text.push_str(&format!(
        "[spool]\npath = {}\nread only = no\n",
        folder.display()
    ));
    fs::write(&config, text)?;
    let at = parties::free_tcp()?;
    let mut command = Command::new("rsync");
    command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]);
    command
        .arg(format!("--port={}", at.port()))
        .arg(format!("--config={}", config.display()));
    serve(yard, &format!("rsync-{name}"), command, at, folder)
}

fn rclone_server(yard: &Yard, name: &str, keys: &Path) -> Result<(Child, Place)> {
    let folder = yard.folder(&format!("rclone-{name}"))?;
    let at = parties::free_tcp()?;
    let mut command = Command::new("rclone");
    command
        .args(["serve", "webdav"])
        .arg(&folder)
        .args(["--config", "", "--ignore-checksum", "--addr"])
        .arg(at.to_string());
    command
        .arg("--cert")
        .arg(keys.join("chain.pem"))
        .arg("--key")
        .arg(keys.join("key.pem"));
    serve(yard, &format!("rclone-{name}"), command, at, folder)
}

fn serve(
    yard: &Yard,
    name: &str,
    command: Command,
    at: SocketAddr,
    folder: PathBuf,
) -> Result<(Child, Place)> {
    let mut process = yard.spawn(name, command)?;
    let until = yard.clock.instant() + LISTENS;
    while TcpStream::connect(at).is_err() {
        process.must_run()?;
        ensure!(yard.clock.instant() < until, "{name} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((process, Place { at, folder }))
}

fn rsync_client(from: &Path, to: SocketAddr, camera: usize) -> Vec<OsString> {
    let mut args = ["rsync", "-r", "--whole-file", "--fsync"]
        .map(OsString::from)
        .to_vec();
    args.push(format!("{}/", from.display()).into());
    args.push(format!("rsync://{to}/spool/{}/", name(camera)).into());
    args
}

fn rclone_client(from: &Path, to: SocketAddr, camera: usize) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["rclone".into(), "copy".into(), from.into()];
    args.push(format!(":webdav:{}", name(camera)).into());
    let flags = [
        "--config",
        "",
        "--ignore-checksum",
        "--no-check-certificate",
        "--transfers",
        "1",
        "--webdav-url",
    ];
    args.extend(flags.map(OsString::from));
    args.push(format!("https://{to}").into());
    args
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let list =
        fs::read_dir(folder).with_context(|| format!("nothing arrived in {}", folder.display()))?;
    list.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

/// The hidden part: runs another program to its end and says what it took.
pub(crate) fn timed(args: &[OsString]) -> Result<()> {
    let (program, args) = args.split_first().context("which program?")?;
    let clock = link::clock::Clock::system();
    let began = clock.instant();
    let status = Command::new(program).args(args).status()?;
    ensure!(
        status.success(),
        "{} ended with {status}",
        program.display()
    );
    let wall_s = clock.instant().duration_since(began).as_secs_f64();
    let sample = Sample {
        wall_s,
        cpu_s: children_cpu_s(),
        ..Sample::default()
    };
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}
