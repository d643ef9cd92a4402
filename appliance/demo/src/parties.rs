//! What the demo knows of each program: its command line, its files, its answers. Nothing else in the demo knows
//! any of it, and this module makes no decision.

mod page;

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use protocol::identity::Trust;
use serde::Deserialize;

use crate::process::{Launcher, Spec, die_with_parent};
pub(crate) use page::{Alarm, SpoolStatus, Stages, Status, status};

/// The archive's site in the trial agency.
const SITE: &str = "site-a";
/// The repeater's name in messages and logs.
pub(crate) const REPEATER: &str = "repeater";
/// The archive's name in messages and logs.
pub(crate) const ARCHIVE: &str = "archive";
/// What each long-lived program says on standard output when it is ready, before its address.
pub(crate) const LISTENING: &str = "listening on ";
/// The same of the repeater.
pub(crate) const READY: &str = "ready: metrics on ";

/// Becomes a party if the first argument says so.
pub(crate) fn dispatch(args: &[OsString]) -> Option<ExitCode> {
    let party = args.get(1)?.to_str()?.strip_prefix("party:")?.to_owned();
    die_with_parent();
    let args = std::iter::once(OsString::from(&party))
        .chain(args[2..].iter().cloned())
        .collect();
    Some(match party.as_str() {
        "agency" => link::agency::main(args),
        "archive" => archive::main(args),
        "bodycam" => camera::main(args),
        "repeaterd" => repeater::main(args),
        _ => {
            eprintln!("demo: there is no party `{party}`");
            crate::USAGE.into()
        }
    })
}

/// The name of a camera's server in messages and logs.
pub(crate) fn camera_name(serial: &str) -> String {
    format!("camera {serial}")
}
/// The name of a camera's sealer.
pub(crate) fn sealer_name(serial: &str) -> String {
    format!("seal {serial}")
}
/// What the names of all sealers begin with.
pub(crate) const SEALERS: &str = "seal ";

/// The trial agency's folder.
#[derive(Clone, Debug)]
pub(crate) struct Agency {
    dir: PathBuf,
    /// Cameras' serials, in order.
    pub(crate) serials: Vec<String>,
    repeater: PathBuf,
}

impl Agency {
    /// Makes one by the program `agency`.
    pub(crate) fn trial(launcher: &Launcher, dir: &Path, cameras: u16) -> Result<Agency> {
        let cameras = cameras.to_string();
        let args = [
            "trial",
            path(dir)?,
            "--cameras",
            &cameras,
            "--sites",
            SITE,
            "--station",
            "0421",
        ];
        launcher.run(&Spec::new("agency", "agency", args))?;
        let serials = names(&dir.join("cameras"))?;
        let repeaters = names(&dir.join("repeaters"))?;
        let repeater = repeaters
            .first()
            .context("the trial agency holds no repeater")?;
        Ok(Agency {
            repeater: dir.join("repeaters").join(repeater),
            dir: dir.to_owned(),
            serials,
        })
    }
    /// The pinned root, for looks at manifests.
    pub(crate) fn trust(&self) -> Result<Trust> {
        let pem = fs::read(self.dir.join("trust.pem"))
            .context("cannot read the trial agency's trust.pem")?;
        Trust::from_pem(&pem, None).context("the trial agency's trust.pem cannot be used")
    }
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Who the officer and the case are in one camera's headers: secret words that must not be found outside.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    /// The officer.
    pub(crate) officer: String,
    /// The case.
    pub(crate) case: String,
}

/// When a camera erases what has its receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Erase {
    /// When recording needs the room: with all of a disk, never.
    WhenNeeded,
    /// At once.
    Now,
}

/// `bodycam serve`.
pub(crate) fn serve(
    agency: &Agency,
    serial: &str,
    store: &Path,
    (listen, erase): (SocketAddr, Erase),
) -> Result<Spec> {
    let mut args = camera_args("serve", agency, serial, store)?;
    let erase = match erase {
        Erase::WhenNeeded => "when-needed",
        Erase::Now => "now",
    };
    args.extend([
        "--listen".into(),
        listen.to_string(),
        "--erase".into(),
        erase.into(),
    ]);
    Ok(Spec::new(camera_name(serial), "bodycam", args))
}

/// `bodycam seal`; `input` is a file or `-`.
pub(crate) fn seal(
    agency: &Agency,
    serial: &str,
    store: &Path,
    secrets: &Secrets,
    input: &Path,
) -> Result<Spec> {
    let mut args = camera_args("seal", agency, serial, store)?;
    for (flag, value) in [("--officer", &secrets.officer), ("--case", &secrets.case)] {
        args.extend([flag.to_owned(), value.clone()]);
    }
    args.extend([
        "--media-type".to_owned(),
        "video/mp4".to_owned(),
        path(input)?.to_owned(),
    ]);
    Ok(Spec::new(sealer_name(serial), "bodycam", args))
}

fn camera_args(verb: &str, agency: &Agency, serial: &str, store: &Path) -> Result<Vec<String>> {
    let credentials = agency.dir.join("cameras").join(serial);
    let args = [
        verb,
        "--store",
        path(store)?,
        "--credentials",
        path(&credentials)?,
        "--agency",
        path(&agency.dir)?,
    ];
    Ok(args.map(str::to_owned).to_vec())
}

/// What `bodycam status --json` says, as far as the demo reads it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct CameraSays {
    serial: String,
    incarnation: String,
    /// The number that the next recording gets.
    pub(crate) next_recording: u64,
    /// Recordings gone without receipts.
    pub(crate) lost: u64,
    /// Segments of the recordings that were released.
    pub(crate) released_segments: u64,
    recordings: Vec<RecordingSays>,
}

/// A recording that a camera still holds.
#[derive(Clone, Debug, Default, Deserialize)]
struct RecordingSays {
    erased: u64,
}

impl CameraSays {
    /// Serial and incarnation, as recordings' names begin.
    pub(crate) fn camera(&self) -> String {
        format!("{}/{}", self.serial, self.incarnation)
    }
    /// Segments that it has erased on receipts.
    pub(crate) fn erased(&self) -> u64 {
        self.released_segments + self.recordings.iter().map(|r| r.erased).sum::<u64>()
    }
}

/// Asks a camera's store.
pub(crate) fn camera_status(launcher: &Launcher, serial: &str, store: &Path) -> Result<CameraSays> {
    let name = format!("status {serial}");
    let said = launcher.run(&Spec::new(
        name,
        "bodycam",
        ["status", "--store", path(store)?, "--json"],
    ))?;
    serde_json::from_str(&said.join("\n")).context("`bodycam status --json` is not understood")
}

/// One line of `bodycam seal`: `sealed SERIAL/INCARNATION/NUMBER segments N bytes B`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// The recording's full name.
    pub(crate) recording: String,
    /// Its number.
    pub(crate) number: u64,
    /// Its segments.
    pub(crate) segments: u64,
}

impl Sealed {
    /// Reads a line; none for any other line.
    pub(crate) fn read(line: &str) -> Option<Sealed> {
        let mut words = line.strip_prefix("sealed ")?.split(' ');
        let recording = words.next()?.to_owned();
        let number = recording.rsplit('/').next()?.parse().ok()?;
        let segments = (words.next()? == "segments")
            .then(|| words.next())??
            .parse()
            .ok()?;
        Some(Sealed {
            recording,
            number,
            segments,
        })
    }
}

/// What the archive stores into.
#[derive(Clone, Debug)]
pub(crate) struct StorePlace {
    /// `file:///...` or `s3://...`.
    pub(crate) url: String,
    /// What makes its success durable.
    pub(crate) durability: String,
    /// The folder, where it is one.
    pub(crate) folder: Option<PathBuf>,
}

/// `archive run`, with its configuration written to `config`.
pub(crate) fn archive(
    agency: &Agency,
    config: &Path,
    place: &StorePlace,
    listen: SocketAddr,
) -> Result<Spec> {
    let own = agency.file("archives").join(SITE);
    let keys = config.with_extension("endpoint-keys");
    let mut text = format!(
        "site = {}\nlisten = {}\nstore = {}\ndurability = {}\n\n[credentials]\n",
        quoted(SITE),
        quoted(&listen.to_string()),
        quoted(&place.url),
        quoted(&place.durability),
    );
    for (key, file) in [
        ("chain", own.join("chain.pem")),
        ("key", own.join("key.pem")),
        ("receipt_key", own.join("receipt.key")),
        ("trust", agency.file("trust.pem")),
        ("crl", agency.file("crl.pem")),
        ("key_list", agency.file("key-list.cose")),
        ("endpoint_keys", keys),
    ] {
        text.push_str(&format!("{key} = {}\n", quoted(path(&file)?)));
    }
    text.push_str(&s3_table());
    fs::write(config, text).with_context(|| format!("cannot write {}", config.display()))?;
    Ok(Spec::new(
        ARCHIVE,
        "archive",
        ["run", "--config", path(config)?],
    ))
}

/// Makes the store that the archive's `config` names.
pub(crate) fn make_store(launcher: &Launcher, config: &Path) -> Result<()> {
    let args = ["init", "--config", path(config)?];
    launcher.run(&Spec::new("archive-init", "archive", args))?;
    Ok(())
}

/// Where an S3 store answers, if not at AWS itself; the programs read the same variable.
fn s3_endpoint() -> Option<String> {
    std::env::var("AWS_ENDPOINT_URL").ok()
}

fn s3_table() -> String {
    let Some(endpoint) = s3_endpoint() else {
        return String::new();
    };
    let region = std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".to_owned());
    let http = endpoint.starts_with("http://");
    format!(
        "\n[s3]\nendpoint = {}\nregion = {}\nallow_http = {http}\n",
        quoted(&endpoint),
        quoted(&region)
    )
}

/// What the archive's reading commands need where an S3 store answers in plain HTTP.
fn allow_http() -> Option<&'static str> {
    s3_endpoint()
        .filter(|e| e.starts_with("http://"))
        .map(|_| "--allow-http")
}

/// `archive export` in a bare process: store, pinned root and key, nothing else.
pub(crate) fn export(
    agency: &Agency,
    place: &StorePlace,
    recording: &str,
    out: &Path,
) -> Result<Spec> {
    let (trust, key) = (
        agency.file("trust.pem"),
        agency.file("recipients").join("archive.key"),
    );
    let mut args = vec![
        "export",
        recording,
        "--store",
        &place.url,
        "--trust",
        path(&trust)?,
    ];
    args.extend(["--key", path(&key)?, "-o", path(out)?]);
    args.extend(allow_http());
    Ok(Spec {
        bare: true,
        ..Spec::new(
            format!("export {}", recording.replace('/', "-")),
            "archive",
            args,
        )
    })
}

/// `archive verify --json`, with the name of every good segment written to `segments`.
pub(crate) fn verify(agency: &Agency, place: &StorePlace, segments: &Path) -> Result<Spec> {
    let trust = agency.file("trust.pem");
    let args = [
        "verify",
        "--store",
        &place.url,
        "--trust",
        path(&trust)?,
        "--segments",
        path(segments)?,
        "--json",
    ];
    Ok(Spec {
        bare: true,
        ..Spec::new("verify", "archive", args.into_iter().chain(allow_http()))
    })
}

/// What `archive verify --json` says.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Verified {
    /// Recordings with at least one object.
    pub(crate) recordings: u64,
    /// Recordings that are there from the first to the last manifest, every object good.
    pub(crate) whole: u64,
    /// Segments whose digest matches.
    pub(crate) segments: u64,
    /// What manifests name and the store lacks.
    pub(crate) outstanding: u64,
    /// Everything that is wrong.
    #[serde(default)]
    pub(crate) problems: Vec<String>,
}

/// `archive list --json`: names of all recordings.
pub(crate) fn list(launcher: &Launcher, place: &StorePlace) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Listed {
        recording: String,
    }
    let args = ["list", "--store", &place.url, "--json"];
    let said = launcher
        .run(&Spec {
            bare: true,
            ..Spec::new("list", "archive", args.into_iter().chain(allow_http()))
        })?
        .join("\n");
    let listed: Vec<Listed> =
        serde_json::from_str(&said).context("`archive list --json` is not understood")?;
    Ok(listed.into_iter().map(|l| l.recording).collect())
}

/// `repeaterd run`, with its configuration written to `config`.
pub(crate) fn repeater(
    agency: &Agency,
    config: &Path,
    work: &Path,
    archive: SocketAddr,
    cameras: &[SocketAddr],
    http: SocketAddr,
) -> Result<Spec> {
    let cameras: Vec<String> = cameras.iter().map(|c| quoted(&c.to_string())).collect();
    let (spool, run) = (work.join("spool"), work.join("run"));
    let mut text = String::from("[identity]\n");
    for (key, file) in [
        ("chain", agency.repeater.join("chain.pem")),
        ("key", agency.repeater.join("key.pem")),
        ("trust", agency.file("trust.pem")),
        ("crl", agency.file("crl.pem")),
        ("key_list", agency.file("key-list.cose")),
    ] {
        text.push_str(&format!("{key} = {}\n", quoted(path(&file)?)));
    }
    text.push_str(&format!(
        "\n[spool]\ndir = {}\nsuspect_dir = {}\n\n[[archive]]\nsite = {}\naddresses = [{}]\n\n\
         [discover]\nstatic = [{}]\nmdns = false\n\n[listen]\nhttp = {}\n",
        quoted(path(&spool)?),
        quoted(path(&run)?),
        quoted(SITE),
        quoted(&archive.to_string()),
        cameras.join(", "),
        quoted(&http.to_string()),
    ));
    fs::write(config, text).with_context(|| format!("cannot write {}", config.display()))?;
    Ok(Spec::new(
        REPEATER,
        "repeaterd",
        ["run", "--config", path(config)?],
    ))
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// A TOML basic string; what JSON writes is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8: choose another folder", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_line_is_read_and_no_other() {
        let sealed = Sealed::read("sealed BWC-0001/0102/7 segments 3 bytes 99");
        let expected = Sealed {
            recording: "BWC-0001/0102/7".to_owned(),
            number: 7,
            segments: 3,
        };
        assert_eq!(sealed, Some(expected));
        assert_eq!(
            Sealed::read("sealed BWC-0001/0102/x segments 3 bytes 99"),
            None
        );
        assert_eq!(Sealed::read("listening on 127.0.0.1:1"), None);
    }

    #[test]
    fn a_quoted_path_is_a_toml_string() {
        assert_eq!(quoted("a \"b\" \\ c"), r#""a \"b\" \\ c""#);
    }
}
