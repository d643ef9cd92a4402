//! `repeaterd support-bundle`: what support needs to see of a station, in one text that its people can read before they
//! send it. It is made whether or not the daemon runs, in bounded time and size, and changes nothing.
//!
//! The document: a line that names it, then parts, each under `=== NAME`; a part that could not be had says why, and keeps
//! no other from being told. A part that is too long is cut, the journal at its beginning and the others at their end.
//! Status, metrics, doctor and verification are told as JSON or as the daemon's page has them, for programs.
//!
//! No private key, password, footage or person is in it: a configuration passes by a list of what may be told, the journal
//! is that of our own units, and every part passes through [`redact`]. It is a file of mode 0600, since it names cameras and
//! addresses, and none that is there already is written over.

mod machine;
mod redact;

use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use link::clock::Clock;

use crate::cli::fetch;
use crate::config::Config;
use crate::{doctor, limits, verify};

/// What a person wants.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Configuration file.
    #[arg(long, default_value = "/etc/repeater/repeater.toml")]
    config: PathBuf,
    /// The file to write; one with the time in its name, in this folder, unless given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The daemon's loopback address, where the configuration says port 0.
    #[arg(long)]
    address: Option<SocketAddr>,
    /// Where hostapd's configurations are.
    #[arg(long, default_value = "/etc/hostapd")]
    hostapd: PathBuf,
}

/// Makes the bundle.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn bundle(wanted: &Wanted) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let name = || PathBuf::from(format!("repeater-support-{}.txt", clock.now().secs()));
    let out = wanted.out.clone().unwrap_or_else(name);
    let text = document(wanted, &clock);
    let mut new = std::fs::OpenOptions::new();
    let new = new.write(true).create_new(true).mode(0o600);
    new.open(&out)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .with_context(|| {
            format!(
                "cannot write {}; name another file with --out",
                out.display()
            )
        })?;
    println!(
        "{} ({} bytes): read it before you send it",
        out.display(),
        text.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// One part of the document.
type Part = Result<String, String>;

fn document(wanted: &Wanted, clock: &Clock) -> String {
    let config = Config::load(&wanted.config);
    let page = wanted.address.or(config.as_ref().ok().map(|c| c.http));
    let page = |path: &str| match page {
        Some(page) => fetch(page, path).map_err(|e| format!("{page}: {e:#}")),
        None => Err("no configuration says where the daemon's page is".into()),
    };
    let config = config.ok();
    let mut text = format!(
        "support bundle 1 of a repeater, made {} ms after 1970\n",
        clock.now().0
    );
    let mut add = |name: &str, end: End, part: Part| tell(&mut text, name, end, part);
    add("system", End::Cut, Ok(machine::system()));
    add("configuration", End::Cut, configuration(&wanted.config));
    add("hostapd", End::Cut, hostapd(&wanted.hostapd));
    add("doctor", End::Cut, Ok(examined(wanted)));
    // Cameras are part of it.
    add("status", End::Cut, page("/status").map(by_lines));
    add("metrics", End::Cut, page("/metrics"));
    add("interfaces", End::Cut, machine::interfaces());
    add("disk", End::Cut, Ok(machine::disk(config.as_ref())));
    add("verify", End::Cut, verified(config.as_ref()));
    add("journal", End::Kept, machine::journal(clock));
    text
}

/// What of a long part stays.
#[derive(Clone, Copy)]
enum End {
    Cut,
    Kept,
}

fn tell(text: &mut String, name: &str, end: End, part: Part) {
    let _ = writeln!(text, "\n=== {name}");
    let part = part.unwrap_or_else(|why| format!("not to be had: {why}"));
    let part = redact::text(&part);
    let most = limits::BUNDLE_PART_BYTES;
    if part.len() <= most {
        *text += &part;
        return;
    }
    let _ = writeln!(text, "({} bytes, of which {most} are told)", part.len());
    let from = match end {
        End::Cut => 0,
        End::Kept => part.len() - most,
    };
    *text += &String::from_utf8_lossy(&part.as_bytes()[from..from + most]);
    text.push('\n');
}

/// JSON with a line for each value, so that what is withheld is one.
fn by_lines(json: String) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(&json).ok();
    let lines = parsed.and_then(|v| serde_json::to_string_pretty(&v).ok());
    lines.unwrap_or(json)
}

fn limited(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
    file.take(limits::BUNDLE_PART_BYTES as u64)
        .read_to_string(&mut text)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(text)
}

fn configuration(path: &Path) -> Part {
    Ok(redact::config(&limited(path)?))
}

fn hostapd(folder: &Path) -> Part {
    let files = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = files.filter_map(|f| Some(f.ok()?.path())).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "conf"));
    paths.sort();
    let one = |path: &PathBuf| match limited(path) {
        Ok(text) => format!("# {}\n{}", path.display(), redact::hostapd(&text)),
        Err(e) => format!("# {e}\n"),
    };
    Ok(paths.iter().take(limits::LINKS).map(one).collect())
}

/// The doctor's findings. What it says of a configuration that cannot be used may quote it, and stays at the station.
fn examined(wanted: &Wanted) -> String {
    let found = doctor::look(&wanted.config, wanted.address);
    let told = found.into_iter().map(doctor::Finding::without_quotes);
    told.map(|f| f.to_string()).collect()
}

/// As much as can be read again in a short while.
fn verified(config: Option<&Config>) -> Part {
    let config = config.ok_or("no configuration says where the spool is")?;
    let how = verify::How {
        json: true,
        bytes_per_second: limits::VERIFY_RATE_MIB << 20,
        within: Some(limits::BUNDLE_VERIFY),
    };
    let report = verify::report(config, how).map_err(|e| format!("{e:#}"))?;
    serde_json::to_string_pretty(&report).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_part_is_cut_where_it_matters_least() {
        let long = format!(
            "first\n{}last\n",
            "é\n".repeat(limits::BUNDLE_PART_BYTES / 3)
        );
        for (end, told, not) in [(End::Cut, "first", "last"), (End::Kept, "last", "first")] {
            let mut text = String::new();
            tell(&mut text, "x", end, Ok(long.clone()));
            assert!(text.contains(told) && !text.contains(not));
            assert!(text.len() < limits::BUNDLE_PART_BYTES + 200);
        }
        let mut text = String::new();
        tell(&mut text, "x", End::Cut, Err("it is away".into()));
        assert_eq!(text, "\n=== x\nnot to be had: it is away\n");
    }
}
