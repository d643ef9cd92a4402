//! The program's commands: arguments in, exit code out. Codes are those of sysexits.

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use link::clock::Clock;
use link::credentials::Keyring;
use link::random::Random;
use link::seams::Seams;
use link::tasks::{Tasks, abort_on_panic, current_thread, stop_signal};
use link::{limits as link_limits, observe};
use protocol::ids::SiteId;
use protocol::manifest::Class;
use tracing::error;

use crate::credentials::{self, Papers};
use crate::seal::input::{Input, Stop};
use crate::seal::{About, SealError, Sealer};
use crate::serve::custodian::Disk;
use crate::serve::{self, Erase, ServeError, ServeOptions, Setup};
use crate::store::layout::Layout;
use crate::store::{self, StoreError};
use crate::{limits, status};

/// A body-worn camera: seals footage, serves it to repeaters, erases it on receipts only.
#[derive(Debug, Parser)]
#[command(name = "bodycam", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Seal footage, one recording for each input; prints a line for each.
    Seal(SealArgs),
    /// Serve the store to repeaters until told to stop.
    Serve(ServeArgs),
    /// Show what is held, receipted and erased.
    Status(StatusArgs),
}

#[derive(Debug, Args)]
struct Common {
    /// The store's folder; made if it is not there.
    #[arg(long)]
    store: PathBuf,
    /// The camera's papers: link.pem, link.key, device.pem, device.key.
    #[arg(long)]
    credentials: PathBuf,
    /// The agency's papers: trust.pem, crl.pem, key-list.cose.
    #[arg(long)]
    agency: PathBuf,
    /// Shifts the clock, to rehearse a wrong one.
    #[arg(
        long,
        value_name = "MS",
        hide = true,
        allow_negative_numbers = true,
        default_value_t = 0
    )]
    clock_offset_ms: i64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ClassArg {
    Routine,
    Flagged,
    Urgent,
}

#[derive(Debug, Args)]
struct SealArgs {
    #[command(flatten)]
    common: Common,
    /// How soon it must arrive.
    #[arg(long, value_enum, default_value = "routine")]
    class: ClassArg,
    /// How many sites must have signed before it may be erased.
    #[arg(long, default_value_t = 1)]
    k: u8,
    /// A site that counts, in order of preference; all sites of the key list unless given.
    #[arg(long = "site", value_name = "NAME")]
    sites: Vec<SiteId>,
    /// Who carries the camera; sealed.
    #[arg(long)]
    officer: Option<String>,
    /// Case or incident; sealed.
    #[arg(long)]
    case: Option<String>,
    /// Media type of the footage; sealed.
    #[arg(long)]
    media_type: Option<String>,
    /// The inputs are still being written: read on until INPUT.done exists or SIGTERM comes.
    #[arg(long)]
    follow: bool,
    /// Bytes that recordings may take; all of the disk unless given.
    #[arg(long, default_value_t = u64::MAX)]
    quota_bytes: u64,
    /// Files; `-` is standard input.
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EraseArg {
    Now,
    WhenNeeded,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    common: Common,
    /// Address to serve at; port 0 takes any.
    #[arg(long)]
    listen: SocketAddr,
    /// When footage goes that has its receipts: at once, or when recording needs the room.
    #[arg(long, value_enum, default_value = "when-needed")]
    erase: EraseArg,
    /// Serve, and announce, on this network interface only, while it is up; may be given more than once. Give those
    /// that authenticate (802.1X, WPA) and those of the dock.
    #[arg(long = "link", value_name = "INTERFACE")]
    links: Vec<String>,
    /// Announce the camera on the links that it serves (DNS-SD).
    #[arg(long)]
    announce: bool,
    /// Tell repeaters how the battery is, by what the kernel says in this folder (/sys/class/power_supply/NAME).
    #[arg(long, value_name = "FOLDER")]
    battery: Option<PathBuf>,
    /// Largest datagram; more than the default needs jumbo frames on the whole path.
    #[arg(long, default_value_t = link_limits::DATAGRAM_BYTES)]
    datagram_bytes: u16,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// The store's folder.
    #[arg(long)]
    store: PathBuf,
    /// For programs.
    #[arg(long)]
    json: bool,
}

const OK: u8 = 0;
const USAGE: u8 = 64;
const DATA: u8 = 65;
const NO_INPUT: u8 = 66;
const UNAVAILABLE: u8 = 69;
const INTERNAL: u8 = 70;
const CANNOT_CREATE: u8 = 73;
const IO: u8 = 74;
const CONFIG: u8 = 78;

/// Runs the program; `args[0]` is its name.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // nowhere else to say it
            return ExitCode::from(if error.use_stderr() { USAGE } else { OK });
        }
    };
    observe::init();
    abort_on_panic();
    let code = match cli.command {
        Command::Seal(args) => current_thread(seal(args)),
        Command::Serve(args) => current_thread(serve(args)),
        Command::Status(args) => Ok(show(&args)),
    };
    ExitCode::from(code.unwrap_or_else(|error| fail(INTERNAL, &error)))
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> u8 {
    error!("{error}");
    code
}

fn store_code(error: &StoreError) -> u8 {
    match error {
        StoreError::Disk(e) if e.is_full() => CANNOT_CREATE,
        StoreError::Disk(_) => IO,
        StoreError::Damaged { .. } => DATA,
        StoreError::Newer { .. } | StoreError::Foreign { .. } | StoreError::KeyList(_) => CONFIG,
        StoreError::Locked { .. } => UNAVAILABLE,
    }
}

fn seal_code(error: &SealError) -> u8 {
    match error {
        SealError::Store(error) => store_code(error),
        SealError::Full { .. } => CANNOT_CREATE,
        SealError::Input(_) | SealError::Unclosed => IO,
        SealError::NoRecipient | SealError::Policy { .. } => CONFIG,
        SealError::Header(_) => USAGE,
        SealError::Segment(_) | SealError::Manifest(_) => INTERNAL,
    }
}

fn serve_code(error: &ServeError) -> u8 {
    match error {
        ServeError::Store(error)
        | ServeError::Custodian(serve::custodian::CustodianError::Store(error)) => {
            store_code(error)
        }
        ServeError::Custodian(_) => INTERNAL,
        ServeError::Link(_) => CONFIG,
        ServeError::Bind(_) | ServeError::Announce(_) => UNAVAILABLE,
    }
}

/// Loads the papers and leaves the root in the store, for `status`.
fn papers(common: &Common) -> Result<Papers, u8> {
    let papers = Papers::load(&common.credentials, &common.agency).map_err(|e| fail(CONFIG, &e))?;
    let layout = Layout::new(&common.store);
    store::pin_root(&layout, &common.agency.join("trust.pem"))
        .map_err(|e| fail(store_code(&e), &e))?;
    Ok(papers)
}

async fn seal(args: SealArgs) -> u8 {
    let signal = match stop_signal(limits::SEAL_CLOSES_WITHIN) {
        Ok(signal) => signal,
        Err(error) => return fail(UNAVAILABLE, &error),
    };
    let stop = Stop::default();
    let heard = stop.clone();
    let work = tokio::task::spawn_blocking(move || seal_all(&args, &stop));
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        _ = signal => {
            heard.set();
            work.await
        }
    };
    done.unwrap_or(INTERNAL)
}

fn seal_all(args: &SealArgs, stop: &Stop) -> u8 {
    match try_seal_all(args, stop) {
        Ok(()) => OK,
        Err(code) => code,
    }
}

fn try_seal_all(args: &SealArgs, stop: &Stop) -> Result<(), u8> {
    if let Some(missing) = args.inputs.iter().find(|i| !is_stdin(i) && !i.exists()) {
        return Err(fail(
            NO_INPUT,
            &format!("{}: no such input", missing.display()),
        ));
    }
    let papers = papers(&args.common)?;
    let about = About {
        class: match args.class {
            ClassArg::Routine => Class::Routine,
            ClassArg::Flagged => Class::Flagged,
            ClassArg::Urgent => Class::Urgent,
        },
        k: args.k,
        sites: args.sites.clone(),
        media_type: args.media_type.clone(),
        officer: args.officer.clone(),
        case: args.case.clone(),
    };
    let (clock, layout) = (
        Clock::offset(args.common.clock_offset_ms),
        Layout::new(&args.common.store),
    );
    let opened = Sealer::open(&layout, &papers, args.quota_bytes, clock, Random::system());
    let mut sealer = opened.map_err(|e| fail(seal_code(&e), &e))?;
    for path in &args.inputs {
        if stop.is_set() {
            return Err(fail(
                UNAVAILABLE,
                &format!("{}: stopped before it was sealed", path.display()),
            ));
        }
        let input = if is_stdin(path) {
            Ok(Input::piped(std::io::stdin(), stop))
        } else if args.follow {
            Input::growing(path, stop)
        } else {
            Input::whole(path, stop)
        };
        let mut input = input.map_err(|e| fail(NO_INPUT, &format!("{}: {e}", path.display())))?;
        let sealed = sealer.record(&mut input, &about);
        let sealed =
            sealed.map_err(|e| fail(seal_code(&e), &format!("{}: {e}", path.display())))?;
        say(&format!(
            "sealed {} segments {} bytes {}",
            sealed.id.full(),
            sealed.segments,
            sealed.bytes
        ));
    }
    Ok(())
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Prints a line for who started this program; a reader that has gone is no reason to stop.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn serve(args: ServeArgs) -> u8 {
    match try_serve(args).await {
        Ok(()) => OK,
        Err(code) => code,
    }
}

async fn try_serve(args: ServeArgs) -> Result<(), u8> {
    let common = &args.common;
    let papers = papers(common)?;
    let link =
        credentials::link(&common.credentials, &common.agency).map_err(|e| fail(CONFIG, &e))?;
    let seams = Seams {
        clock: Clock::offset(common.clock_offset_ms),
        ..Seams::system()
    };
    let setup = Setup {
        store: Layout::new(&common.store),
        keyring: Keyring::new(link),
        signer: papers.signer,
        trust: papers.trust,
        key_list: papers.key_list,
    };
    let options = ServeOptions {
        listen: args.listen,
        erase: match args.erase {
            EraseArg::Now => Erase::Now,
            EraseArg::WhenNeeded => Erase::WhenNeeded,
        },
        links: args.links,
        announce: args.announce,
        battery: args.battery,
        datagram_bytes: args.datagram_bytes,
        disk: Disk::Pool,
    };
    let tasks = Tasks::new();
    let (keyring, folders) = (
        setup.keyring.clone(),
        (common.credentials.clone(), common.agency.clone()),
    );
    let stop = tasks.token();
    tasks.spawn("camera credentials", async move {
        tokio::select! {
            () = credentials::follow(&keyring, &folders.0, &folders.1) => {}
            () = stop.cancelled() => {}
        }
    });
    let signal = stop_signal(2 * limits::STOP_DEADLINE).map_err(|e| fail(UNAVAILABLE, &e))?;
    let ready = |address| say(&format!("listening on {address}"));
    let mut serving = std::pin::pin!(serve::serve(&seams, setup, options, tasks.clone(), ready));
    let served = tokio::select! {
        served = &mut serving => served,
        _ = signal => {
            tasks.cancel();
            serving.await
        }
    };
    tasks.shutdown(limits::STOP_DEADLINE).await;
    served.map_err(|e| fail(serve_code(&e), &e))
}

fn show(args: &StatusArgs) -> u8 {
    match status::status(&args.store) {
        Ok(status) if args.json => match serde_json::to_string(&status) {
            Ok(json) => {
                say(&json);
                OK
            }
            Err(error) => fail(INTERNAL, &error),
        },
        Ok(status) => {
            say(status::text(&status).trim_end());
            OK
        }
        Err(error) => fail(store_code(&error), &error),
    }
}
