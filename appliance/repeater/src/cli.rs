//! The command line of `repeaterd`: run, check, status, cameras, clear, verify, recover, gate, doctor,
//! setup, adopt, disk-key, support-bundle. Exit codes are those of sysexits.h.

mod cameras;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use link::credentials::Credentials;
use protocol::identity::Role;
use spool::SpoolError;

use crate::bundle;
use crate::config::Config;
use crate::disk_key;
use crate::gate;
use crate::limits;
use crate::setup;
use crate::verify::{self, How};

const USAGE: u8 = 64;
const REFUSED: u8 = 65;
const UNAVAILABLE: u8 = 69;
const INTERNAL: u8 = 70;
const CANNOT_CREATE: u8 = 73;
const CONFIG: u8 = 78;

/// A status page is at most so long.
const PAGE_BYTES: u64 = 16 << 20;

#[derive(Debug, Parser)]
#[command(
    name = "repeaterd",
    version,
    about = "The edge repeater for body-worn cameras: pulls their sealed footage, keeps it through power cuts, forwards it, and brings the archive's receipts back."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM.
    Run {
        /// Configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration and the credentials that it names; change nothing.
    Check {
        /// Configuration file.
        config: PathBuf,
    },
    /// Clear an alarm of the running daemon that a person settles; it is written in the logbook.
    Clear {
        /// Configuration file of the running daemon.
        #[arg(long)]
        config: PathBuf,
        /// The alarm's code, as in the status.
        code: String,
        /// What it is about, as in the status.
        subject: String,
    },
    /// Read everything kept again and name what is wrong; changes nothing. Where the daemon runs, it is asked to. Exits
    /// with 1 where something is wrong.
    Verify {
        /// Configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
        /// MiB to read in a second at most; 0: as fast as the disk.
        #[arg(long, value_name = "MIB", default_value_t = limits::VERIFY_RATE_MIB)]
        rate: u64,
    },
    /// Open the copy of a ledger, to find out whether a process survives it.
    #[command(hide = true)]
    TryLedger {
        /// The folder that holds it.
        folder: PathBuf,
    },
    /// Build the ledger anew from manifests, copies, inventories and logbook, while no daemon runs. Exits with 1 where
    /// something could not be restored.
    Recover {
        /// Configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Wait until the running daemon has been healthy for a while, and fail where that does not come about: a boot is good
    /// only then.
    Gate {
        /// Configuration file of the running daemon.
        #[arg(long)]
        config: PathBuf,
        /// For how many seconds it has to be healthy without a break.
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        stable: u64,
        /// Within how many seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        within: u64,
        /// The daemon's loopback address, where the configuration says port 0.
        #[arg(long)]
        address: Option<std::net::SocketAddr>,
    },
    /// Look for what keeps this station from its work, and say how each is mended. Exits with 1 where something is bad.
    Doctor(Page),
    /// Make this box a station's repeater: from the agency's enrolment file, or by hand.
    Setup(Box<setup::Order>),
    /// Make the spool of another repeater of this agency this box's own: after its disk was moved here, or this box was
    /// given another identity. Says what it would do, unless --yes is given.
    Adopt {
        /// Configuration file of this box.
        #[arg(long, default_value = "/etc/repeater/repeater.toml")]
        config: PathBuf,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
    /// Seal the second key of this box's disk for the holders of the agency's escrow keys; without a disk, say who they are.
    #[command(hide = true)]
    DiskKey(disk_key::Asked),
    /// Write what support needs to see into one text file: no key, no password, no footage, no person.
    SupportBundle(bundle::Wanted),
    /// Show what the running daemon does.
    Status(Page),
    /// Show where each camera is, how far it is, and when it was met last.
    Cameras(Page),
}

/// What is asked of the running daemon's page.
#[derive(Debug, clap::Args)]
struct Page {
    /// Configuration file of the running daemon.
    #[arg(long)]
    config: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
    /// The daemon's loopback address, where the configuration says port 0.
    #[arg(long)]
    address: Option<std::net::SocketAddr>,
}

/// Its command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The program. `args` begins with its name.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    link::tasks::abort_on_panic();
    link::observe::init();
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { USAGE } else { 0 });
        }
    };
    let done = match arguments.command {
        Command::Run { config } => {
            load(&config).and_then(|c| crate::run(c).map_err(|e| complain(&e, code_of_run(&e))))
        }
        Command::Check { config } => load(&config).and_then(|c| check(&c)),
        Command::Clear {
            config,
            code,
            subject,
        } => load(&config).and_then(|c| clear(&c, &code, &subject)),
        Command::Verify { config, json, rate } => load(&config).and_then(|c| {
            let bytes_per_second = rate.saturating_mul(1 << 20);
            let how = How {
                json,
                bytes_per_second,
                within: None,
            };
            verify::verify(&c, how).map_err(|e| complain(&e, code_of(&e)))
        }),
        Command::TryLedger { folder } => spool::try_ledger(&folder)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|e| complain(&e.into(), INTERNAL)),
        Command::Recover { config } => load(&config)
            .and_then(|c| crate::recover::recover(&c).map_err(|e| complain(&e, code_of(&e)))),
        Command::Gate {
            config,
            stable,
            within,
            address,
        } => load(&config).and_then(|c| {
            let how = gate::How {
                stable: Duration::from_secs(stable),
                within: Duration::from_secs(within),
                page: address.unwrap_or(c.http),
            };
            gate::gate(&c, how).map_err(|e| complain(&e, UNAVAILABLE))
        }),
        Command::Doctor(page) => Ok(crate::doctor::doctor(&page.config, page.json, page.address)),
        Command::Setup(order) => setup::setup(&order).map_err(|e| complain(&e, REFUSED)),
        Command::Adopt { config, yes } => load(&config)
            .and_then(|c| crate::adopt::adopt(&c, yes).map_err(|e| complain(&e, code_of(&e)))),
        Command::DiskKey(asked) => load(asked.config())
            .and_then(|c| disk_key::disk_key(&asked, &c).map_err(|e| complain(&e, REFUSED))),
        Command::SupportBundle(wanted) => {
            bundle::bundle(&wanted).map_err(|e| complain(&e, CANNOT_CREATE))
        }
        Command::Status(page) => look(&page, status),
        Command::Cameras(page) => look(&page, list_cameras),
    };
    done.unwrap_or_else(|code| code)
}

fn load(path: &std::path::Path) -> Result<Config, ExitCode> {
    Config::load(path).map_err(|e| {
        eprintln!("{:?}", miette::Report::new(e));
        ExitCode::from(CONFIG)
    })
}

fn complain(e: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("repeaterd: {e:#}");
    ExitCode::from(code)
}

/// A spool that another process has is there, and not to be had; nor is a daemon that does not answer.
fn code_of(e: &anyhow::Error) -> u8 {
    let in_use = matches!(e.downcast_ref(), Some(SpoolError::InUse(_)));
    match in_use || e.is::<std::io::Error>() {
        true => UNAVAILABLE,
        false => INTERNAL,
    }
}

/// Another repeater's spool is not this one's tomorrow: the manager need not try again.
fn code_of_run(e: &anyhow::Error) -> u8 {
    match e.is::<crate::owner::Foreign>() {
        true => CONFIG,
        false => INTERNAL,
    }
}

fn check(config: &Config) -> Result<ExitCode, ExitCode> {
    let credentials = Credentials::load(&config.credentials, Role::Repeater)
        .map_err(|e| complain(&e.into(), CONFIG))?;
    let list = std::fs::read(&config.key_list)
        .with_context(|| format!("cannot read the key list {}", config.key_list.display()))
        .and_then(|bytes| {
            Ok(protocol::keylist::KeyList::verify(
                bytes.into(),
                credentials.trust.root_keys(),
            )?)
        });
    let list = list.map_err(|e| complain(&e, CONFIG))?;
    println!(
        "ok: {} with key list {}",
        credentials.own.identity,
        list.number()
    );
    Ok(ExitCode::SUCCESS)
}

fn clear(config: &Config, code: &str, subject: &str) -> Result<ExitCode, ExitCode> {
    crate::control::clear(&config.spool_dir, code, subject)
        .map_err(|e| complain(&e, UNAVAILABLE))?;
    println!("cleared {code} {subject}");
    Ok(ExitCode::SUCCESS)
}

fn look(page: &Page, show: fn(&str, bool) -> anyhow::Result<()>) -> Result<ExitCode, ExitCode> {
    let address = page.address;
    let address = load(&page.config).map(|c| address.unwrap_or(c.http))?;
    let shown = fetch(address, "/status")
        .with_context(|| format!("no daemon answers on {address}; is it running?"))
        .and_then(|body| show(&body, page.json));
    shown
        .map(|()| ExitCode::SUCCESS)
        .map_err(|e| complain(&e, UNAVAILABLE))
}

fn parsed(body: &str) -> anyhow::Result<serde_json::Value> {
    serde_json::from_str(body).context("the daemon's answer is not JSON")
}

fn status(body: &str, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{body}");
    } else {
        print(&parsed(body)?);
    }
    Ok(())
}

fn list_cameras(body: &str, json: bool) -> anyhow::Result<()> {
    let status = parsed(body)?;
    if json {
        let part = serde_json::json!({"cameras": status["cameras"], "devices": status["devices"]});
        println!("{part}");
    } else {
        println!("{}", cameras::table(&status));
    }
    Ok(())
}

/// One GET on loopback: enough for the daemon's own page.
pub(crate) fn fetch(address: std::net::SocketAddr, path: &str) -> anyhow::Result<String> {
    let wait = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, wait)?;
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(PAGE_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("not an HTTP answer")?;
    let ok = head.split_ascii_whitespace().nth(1) == Some("200");
    anyhow::ensure!(ok, "{}: {}", head.lines().next().unwrap_or(""), body.trim());
    Ok(body.to_owned())
}

fn print(status: &serde_json::Value) {
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let lines = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let spool = &status["spool"];
    println!("{}", text(&status["repeater"]));
    if status["time"] != "synchronised" {
        let time = text(&status["time"]);
        println!(
            "clock     {time}: nobody vouches for it; cameras are dialled and pulled all the same"
        );
    }
    println!(
        "spool     {} of {} bytes, gate {}, outstanding {}, unaccounted {}",
        spool["used_bytes"],
        spool["capacity_bytes"],
        text(&spool["gate"]),
        spool["outstanding"],
        spool["unaccounted"]
    );
    if let Some(seconds) = spool["oldest_unchecked_seconds"].as_u64() {
        println!("scrub     every byte kept was read in the last {seconds} s");
    }
    for c in lines("cameras") {
        let s = &c["segments"];
        println!(
            "camera    {} {} recordings {}: announced {} held {} archived {} released {} refused {}",
            text(&c["serial"]),
            text(&c["state"]),
            c["recordings"],
            s["announced"],
            s["held"],
            s["archived"],
            s["released"],
            s["refused"]
        );
    }
    for a in lines("archives") {
        println!(
            "archive   {} {} ({} bytes put)",
            text(&a["site"]),
            text(&a["state"]),
            a["bytes_put"]
        );
    }
    for a in lines("alarms") {
        println!(
            "ALARM     {} {}: {} (since {} ms; {})",
            text(&a["code"]),
            text(&a["where"]),
            text(&a["what"]),
            a["since_ms"],
            text(&a["mend"])
        );
    }
}
