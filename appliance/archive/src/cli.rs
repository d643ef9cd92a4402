//! The command line, and how each failure ends: a sentence on stderr and an exit code of sysexits.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use link::config::ConfigError;
use link::credentials::load_trust;
use link::tasks::{abort_on_panic, current_thread};
use protocol::header::HeaderError;
use protocol::ids::RecordingId;
use protocol::suite::AgreementKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::config::{Config, Place, S3};
use crate::epoch::EpochError;
use crate::export::{self, ExportError};
use crate::vault::{Vault, VaultError};
use crate::{serve, store, verify};

#[derive(Parser)]
#[command(
    name = "archive",
    version,
    about = "The data centre's side: takes footage from repeaters and signs receipts."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new, empty store; one that is made already stays as it is.
    Init {
        /// Configuration of this site, TOML.
        #[arg(long)]
        config: PathBuf,
    },
    /// Run the gateway until SIGTERM.
    Run {
        /// Configuration of this site, TOML.
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration and the files that it names.
    Check {
        /// Configuration of a site, TOML.
        file: PathBuf,
    },
    /// Write a recording's exact original bytes; needs the store, a recipient's key and the agency's root.
    Export {
        /// SERIAL/INCARNATION/NUMBER, as `list` shows it.
        recording: RecordingId,
        #[command(flatten)]
        store: StoreArgs,
        /// The agency's root certificate.
        #[arg(long)]
        trust: PathBuf,
        /// The archive's or escrow's private key, PEM.
        #[arg(long)]
        key: PathBuf,
        /// Where to write; untouched unless the recording is whole.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// List recordings by the names of their objects.
    List {
        #[command(flatten)]
        store: StoreArgs,
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Read and check every object again.
    Verify {
        #[command(flatten)]
        store: StoreArgs,
        /// The agency's root certificate.
        #[arg(long)]
        trust: PathBuf,
        /// As a JSON object.
        #[arg(long)]
        json: bool,
        /// Write a line for each good segment into this file: SERIAL/INCARNATION/NUMBER, its number, its digest.
        #[arg(long, value_name = "FILE")]
        segments: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
struct StoreArgs {
    /// `file:///folder` or `s3://bucket/prefix` (keys and AWS_ENDPOINT_URL, AWS_REGION from the environment).
    #[arg(long)]
    store: String,
    /// Allow plain HTTP to an S3 store.
    #[arg(long)]
    allow_http: bool,
    /// PEM file of the authorities for an S3 store's certificate.
    #[arg(long)]
    ca: Option<PathBuf>,
}

/// Why the program ends, and with which code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(code: u8, text: &impl ToString) -> Failure {
        Failure {
            code,
            text: text.to_string(),
        }
    }
    /// The configuration, or a file that it names.
    pub(crate) fn config(text: String) -> Failure {
        Failure { code: 78, text }
    }
    /// A socket or the store.
    pub(crate) fn unavailable(text: String) -> Failure {
        Failure { code: 69, text }
    }
    /// The same, of a thing that is named first.
    pub(crate) fn about(self, what: &str) -> Failure {
        Failure {
            text: format!("{what}: {}", self.text),
            ..self
        }
    }
    /// This program.
    pub(crate) fn internal(text: String) -> Failure {
        Failure { code: 70, text }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::new(78, &format!("{:?}", miette::Report::new(error)))
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Failure {
        Failure::new(74, &error)
    }
}

impl From<EpochError> for Failure {
    fn from(error: EpochError) -> Failure {
        let code = match error {
            EpochError::Vault(_) | EpochError::NotMade => 69,
            _ => 78,
        };
        Failure::new(code, &error)
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Failure {
        let code = match error {
            ExportError::Unknown(_) => 66,
            ExportError::NotWhole { .. } => 65,
            ExportError::Header {
                source: HeaderError::NotARecipient(_),
                ..
            } => 77,
            ExportError::Header { .. } => 65,
            ExportError::Vault(_) => 74,
            ExportError::Output { .. } => 73,
        };
        Failure::new(code, &error)
    }
}

/// Its command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}

/// The program `archive`; `args[0]` is its name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print(); // stderr may be gone
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    link::observe::init();
    abort_on_panic();
    let done = current_thread(async { Box::pin(perform(args.command)).await });
    let done = done.unwrap_or_else(|e| Err(Failure::internal(format!("cannot start: {e}"))));
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("archive: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

async fn perform(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Init { config } => serve::init(&Config::load(&config)?).await?,
        Command::Run { config } => serve::run(Config::load(&config)?).await?,
        Command::Check { file } => {
            serve::check(&Config::load(&file)?)?;
            println!("{}: good", file.display());
        }
        Command::Export {
            recording,
            store,
            trust,
            key,
            output,
        } => {
            write_recording(&open(&store)?, &recording, &trust, &key, &output).await?;
        }
        Command::List { store, json } => list(&open(&store)?, json).await?,
        Command::Verify {
            store,
            trust,
            json,
            segments,
        } => {
            return show_report(&open(&store)?, &trust, json, segments.as_deref()).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(args: &StoreArgs) -> Result<Vault, Failure> {
    let place = Place::parse(&args.store)
        .map_err(|why| Failure::new(64, &format!("--store {}: {why}", args.store)))?;
    let s3 = S3 {
        endpoint: std::env::var("AWS_ENDPOINT_URL").ok(),
        region: std::env::var("AWS_REGION").ok(),
        allow_http: args.allow_http,
        ca: args.ca.clone(),
    };
    store::open(&place, &s3, false).map_err(|e| Failure::new(66, &e))
}

fn trust(path: &Path) -> Result<protocol::identity::Trust, Failure> {
    load_trust(path, None).map_err(|e| Failure::new(66, &e))
}

async fn write_recording(
    vault: &Vault,
    recording: &RecordingId,
    root: &Path,
    key: &Path,
    output: &Path,
) -> Result<(), Failure> {
    let refused = |why: String| {
        Failure::new(
            66,
            &format!(
                "{}: {why}; use a recipient's private key, PKCS#8 PEM",
                key.display()
            ),
        )
    };
    let pem = PrivateKeyDer::from_pem_file(key).map_err(|e| refused(e.to_string()))?;
    let key = AgreementKey::from_pkcs8(pem.secret_der()).map_err(|e| refused(e.to_string()))?;
    let done = export::export(vault, recording, &trust(root)?, &key, output).await?;
    for warning in &done.warnings {
        eprintln!("archive: warning: {warning}");
    }
    println!(
        "exported {} segments {} bytes {} to {}",
        recording.full(),
        done.segments,
        done.bytes,
        output.display()
    );
    Ok(())
}

async fn list(vault: &Vault, json: bool) -> Result<(), Failure> {
    let mut first = true;
    if json {
        print!("[");
    }
    verify::list(vault, |listed| {
        if json {
            let separator = if first { "" } else { "," };
            first = false;
            print!(
                "{separator}\n{}",
                serde_json::to_string(&listed).expect("names and numbers are JSON")
            );
        } else {
            let v = &listed;
            let expired = if v.expired { " expired" } else { "" };
            println!(
                "{} manifests {} headers {} segments {} bytes {}{expired}",
                v.recording, v.manifests, v.headers, v.segments, v.bytes
            );
        }
    })
    .await?;
    if json {
        println!("\n]");
    }
    Ok(())
}

/// Verifies the store with every good segment's name written to `out`.
async fn verify_to(
    vault: &Vault,
    trust: &protocol::identity::Trust,
    out: &Path,
) -> Result<verify::Report, Failure> {
    let cannot = |e: std::io::Error| Failure::new(73, &format!("{}: {e}", out.display()));
    let mut file = BufWriter::new(File::create(out).map_err(cannot)?);
    let mut written = Ok(());
    let report = verify::verify(vault, trust, |(recording, seq, digest)| {
        if written.is_ok() {
            written = writeln!(file, "{} {seq} {digest}", recording.full());
        }
    })
    .await?;
    written.and_then(|()| file.flush()).map_err(cannot)?;
    Ok(report)
}

async fn show_report(
    vault: &Vault,
    root: &Path,
    json: bool,
    segments: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let trust = trust(root)?;
    let r = match segments {
        Some(out) => verify_to(vault, &trust, out).await?,
        None => verify::verify(vault, &trust, |_| {}).await?,
    };
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&r).expect("names and numbers are JSON")
        );
    } else {
        println!(
            "recordings {} whole {} manifests {} headers {} segments {} bytes {} outstanding {} expired {} problems {}",
            r.recordings,
            r.whole,
            r.manifests,
            r.headers,
            r.segments,
            r.bytes,
            r.outstanding,
            r.expired,
            r.problems.len()
        );
        r.problems
            .iter()
            .for_each(|problem| println!("problem: {problem}"));
    }
    Ok(ExitCode::from(if r.problems.is_empty() { 0 } else { 65 }))
}
