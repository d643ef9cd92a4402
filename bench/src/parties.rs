//! What the bench knows of each program: its command line, its files, its answers. It makes no decision.
//!
//! A [`Fleet`] is cameras with sealed footage that nobody has pulled yet; [`Fleet::serve`], [`archive()`] and
//! [`repeater()`] start the parties, each in a folder of one phase.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use link::agency::{self, TrialOptions};
use link::random::Random;
use serde::Deserialize;

use crate::process::{Child, Yard, die_with_parent};

/// The archive's site.
const SITE: &str = "site-a";
const STATION: &str = "bench";
/// What a program takes at most from start to its ready line.
const READY: Duration = Duration::from_secs(30);
/// The longest that an answer of the loopback page may take: beyond the longest stall that is measured.
const ANSWER: Duration = Duration::from_secs(60);
const ANSWER_BYTES: u64 = 16 << 20;

/// Becomes the party that the hidden first argument names.
pub(crate) fn run(party: &str, args: &[OsString]) -> ExitCode {
    die_with_parent();
    let own = std::iter::once(OsString::from(party));
    let args: Vec<OsString> = own.chain(args[2..].iter().cloned()).collect();
    match party {
        "repeaterd" => repeater::main(args),
        "bodycam" => camera::main(args),
        "archive" => archive::main(args),
        "under" => ::tests::process::under(&args),
        _ => {
            eprintln!("bench: there is no party `{party}`");
            ExitCode::from(crate::EX_USAGE)
        }
    }
}

/// The trial agency's folder.
#[derive(Clone, Debug)]
pub(crate) struct Agency(PathBuf);

impl Agency {
    /// Makes one with so many cameras.
    pub(crate) fn make(yard: &Yard, cameras: u32) -> Result<Agency> {
        let dir = yard.path().join("agency");
        let options = TrialOptions {
            cameras,
            sites: vec![SITE.parse()?],
            station: STATION.into(),
        };
        agency::trial(&dir, &options, &yard.clock, &Random::system())?;
        Ok(Agency(dir))
    }
    /// A file or folder of it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
    /// The site's own folder.
    pub(crate) fn site(&self) -> PathBuf {
        self.file("archives").join(SITE)
    }
    fn camera(&self, serial: &str) -> PathBuf {
        self.file("cameras").join(serial)
    }
}

/// Cameras with sealed footage.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    agency: Agency,
    dir: PathBuf,
    serials: Vec<String>,
    /// Segments sealed, over all cameras.
    pub(crate) segments: u64,
    /// Bytes of footage in them.
    pub(crate) bytes: u64,
}

impl Fleet {
    /// Seals one recording of `bytes_each` random bytes on each of the first `cameras` cameras.
    pub(crate) fn seal(
        yard: &Yard,
        agency: &Agency,
        phase: &str,
        cameras: u32,
        bytes_each: u64,
    ) -> Result<Fleet> {
        let dir = yard.folder(phase)?;
        let footage = dir.join("footage");
        make_footage(&footage, bytes_each)?;
        let serials = (1..=cameras)
            .map(|n| agency::trial::serial(n).to_string())
            .collect();
        let mut fleet = Fleet {
            agency: agency.clone(),
            dir,
            serials,
            segments: 0,
            bytes: 0,
        };
        for serial in fleet.serials.clone() {
            let mut args = fleet.args("seal", &serial);
            args.push(footage.clone().into());
            let said = yard.run(&format!("{phase}-seal-{serial}"), "party:bodycam", &args)?;
            let (segments, bytes) = said
                .iter()
                .find_map(|l| sealed(l))
                .context("seal said nothing")?;
            ensure!(
                bytes == bytes_each,
                "{serial} sealed {bytes} of {bytes_each} bytes"
            );
            fleet.segments += segments;
            fleet.bytes += bytes;
        }
        fs::remove_file(&footage)?;
        Ok(fleet)
    }
    /// The phase's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
    /// Starts every camera's server: the servers and their addresses.
    pub(crate) fn serve(&self, yard: &Yard) -> Result<(Vec<Child>, Vec<SocketAddr>)> {
        let mut servers = Vec::new();
        let mut addresses = Vec::new();
        for serial in &self.serials {
            let mut args = self.args("serve", serial);
            args.extend(["--listen", "127.0.0.1:0", "--erase", "now"].map(OsString::from));
            let mut server = yard.start(&format!("camera-{serial}"), "party:bodycam", &args)?;
            addresses.push(server.ready("listening on ", READY)?.parse()?);
            servers.push(server);
        }
        Ok((servers, addresses))
    }

    fn args(&self, verb: &str, serial: &str) -> Vec<OsString> {
        let store = self.dir.join(format!("camera-{serial}"));
        vec![
            verb.into(),
            "--store".into(),
            store.into(),
            "--credentials".into(),
            self.agency.camera(serial).into(),
            "--agency".into(),
            self.agency.0.clone().into(),
        ]
    }
}

/// Reads `sealed SERIAL/INCARNATION/NUMBER segments N bytes B`.
fn sealed(line: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["sealed", _, "segments", segments, "bytes", bytes] => {
            Some((segments.parse().ok()?, bytes.parse().ok()?))
        }
        _ => None,
    }
}

/// Writes incompressible bytes.
pub(crate) fn make_footage(path: &Path, bytes: u64) -> Result<()> {
    let mut file =
        File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let (random, mut piece, mut left) = (Random::system(), vec![0; 1 << 20], bytes);
    while left > 0 {
        random.fill(&mut piece);
        let n = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
        file.write_all(&piece[..n])?;
        left -= n as u64;
    }
    Ok(())
}

/// Starts the archive over the folder `store` at `listen`; the gateway and its address.
pub(crate) fn archive(
    yard: &Yard,
    agency: &Agency,
    dir: &Path,
    listen: SocketAddr,
) -> Result<(Child, SocketAddr)> {
    let own = agency.site();
    let store = dir.join("store");
    let mut text = String::new();
    writeln!(
        text,
        "site = {SITE:?}\nlisten = \"{listen}\"\ndurability = \"fsync\""
    )?;
    writeln!(
        text,
        "store = {}\n\n[credentials]",
        quoted(&format!("file://{}", store.display()))
    )?;
    let files = [
        ("chain", own.join("chain.pem")),
        ("key", own.join("key.pem")),
        ("receipt_key", own.join("receipt.key")),
        ("trust", agency.file("trust.pem")),
        ("crl", agency.file("crl.pem")),
        ("key_list", agency.file("key-list.cose")),
    ];
    put_files(&mut text, &files)?;
    let config = dir.join("archive.toml");
    fs::write(&config, text)?;
    let init = ["init".into(), "--config".into(), config.clone().into()];
    yard.run("archive-init", "party:archive", &init)?;
    let args = ["run".into(), "--config".into(), config.into()];
    let mut gateway = yard.start("archive", "party:archive", &args)?;
    let address = gateway.ready("listening on ", READY)?.parse()?;
    Ok((gateway, address))
}

/// Starts the repeater with its spool in `spool`.
pub(crate) fn repeater(
    yard: &Yard,
    agency: &Agency,
    dir: &Path,
    spool: &Path,
    archive: SocketAddr,
    cameras: &[SocketAddr],
) -> Result<Repeater> {
    let own = agency.file("repeaters").join(format!("{STATION}-1"));
    let run = dir.join("run");
    fs::create_dir_all(&run)?;
    let mut text = String::from("[identity]\n");
    let files = [
        ("chain", own.join("chain.pem")),
        ("key", own.join("key.pem")),
        ("trust", agency.file("trust.pem")),
        ("crl", agency.file("crl.pem")),
        ("key_list", agency.file("key-list.cose")),
    ];
    put_files(&mut text, &files)?;
    let cameras: Vec<String> = cameras.iter().map(|c| format!("\"{c}\"")).collect();
    writeln!(text, "[spool]")?;
    put_files(
        &mut text,
        &[("dir", spool.to_owned()), ("suspect_dir", run)],
    )?;
    writeln!(
        text,
        "[[archive]]\nsite = {SITE:?}\naddresses = [\"{archive}\"]"
    )?;
    writeln!(
        text,
        "[discover]\nstatic = [{}]\nmdns = false",
        cameras.join(", ")
    )?;
    writeln!(text, "[listen]\nhttp = \"127.0.0.1:0\"")?;
    let config = dir.join("repeater.toml");
    fs::write(&config, text)?;
    let args = ["run".into(), "--config".into(), config.into()];
    let mut process = yard.start("repeaterd", "party:repeaterd", &args)?;
    let http = process.ready("ready: metrics on ", READY)?.parse()?;
    Ok(Repeater { process, http })
}

fn put_files(text: &mut String, files: &[(&str, PathBuf)]) -> Result<()> {
    for (key, file) in files {
        let file = file.to_str().context("a path that is not text")?;
        writeln!(text, "{key} = {}", quoted(file))?;
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A UDP port of loopback where nobody listens now.
pub(crate) fn free_udp() -> Result<SocketAddr> {
    Ok(UdpSocket::bind(("127.0.0.1", 0))?.local_addr()?)
}
/// A TCP port of loopback where nobody listens now.
pub(crate) fn free_tcp() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// The running repeater.
#[derive(Debug)]
pub(crate) struct Repeater {
    /// Its process.
    pub(crate) process: Child,
    http: SocketAddr,
}

impl Repeater {
    /// Its status.
    pub(crate) fn status(&self) -> Result<Status> {
        let text = get(self.http, "/status")?;
        serde_json::from_str(&text).with_context(|| format!("not a status: {text}"))
    }
    /// One of its metrics, without labels; 0 before it was first raised.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        Ok(metric(&get(self.http, "/metrics")?, name).unwrap_or(0.0))
    }
}

/// The repeater's status, as far as the bench reads it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Status {
    /// The spool.
    pub(crate) spool: SpoolStatus,
    /// Alarms that stand.
    pub(crate) alarms: Vec<serde_json::Value>,
}

/// The spool's part of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct SpoolStatus {
    segments: BTreeMap<String, u64>,
    bytes: BTreeMap<String, u64>,
    /// Announced and on no known holder.
    pub(crate) unaccounted: u64,
}

impl SpoolStatus {
    /// Segments in a stage.
    pub(crate) fn segments(&self, stage: &str) -> u64 {
        self.segments.get(stage).copied().unwrap_or(0)
    }
    /// Sealed bytes in a stage.
    pub(crate) fn bytes(&self, stage: &str) -> u64 {
        self.bytes.get(stage).copied().unwrap_or(0)
    }
    /// Whether at least so many segments are in `stage` and none is in another of the footage's way.
    pub(crate) fn all_in(&self, stage: &str, segments: u64) -> bool {
        let others = ["announced", "held", "archived"]
            .into_iter()
            .filter(|s| *s != stage);
        self.segments(stage) >= segments && others.map(|s| self.segments(s)).sum::<u64>() == 0
    }
}

fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|l| l.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("an answer without an end of its head")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{path}: {} {body}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_the_parties_say_is_read() {
        assert_eq!(
            sealed("sealed S1/ab/0 segments 3 bytes 9000000"),
            Some((3, 9_000_000))
        );
        assert_eq!(sealed("sealing S1"), None);
        let text = "# HELP a b\na_seconds_sum 0.25\na_seconds_count 2\na{x=\"y\"} 3\n";
        assert_eq!(metric(text, "a_seconds_sum"), Some(0.25));
        assert_eq!(metric(text, "a_seconds"), None);
    }

    #[test]
    fn all_are_in_a_stage_only_when_none_is_behind() {
        let text = r#"{"spool":{"segments":{"announced":0,"held":1,"archived":0,"released":3,"refused":0},
            "bytes":{"held":7},"unaccounted":0,"outstanding":1,"gate":"open"},"alarms":[],"cameras":[]}"#;
        let mut status: Status = serde_json::from_str(text).unwrap();
        assert!(!status.spool.all_in("released", 3));
        status.spool.segments.insert("held".into(), 0);
        assert!(status.spool.all_in("released", 3) && !status.spool.all_in("released", 4));
        assert_eq!(status.spool.bytes("held"), 7);
    }
}
