//! The program `agency`: arguments in, one line out, sysexits codes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use protocol::identity::{Identity, Role};
use protocol::ids::{Digest, KeyId, SiteId, StoreEpoch};
use protocol::keylist::{RecipientRole, State};
use protocol::suite::AgreementKey;

use super::files::{read_text, write_public, write_secret, write_secret_bytes};
use super::key_list::{Change, change};
use super::request::OwnKey;
use super::show::show;
use super::{Agency, AgencyError, TrialOptions, trial};
use crate::clock::Clock;
use crate::config::Source;
use crate::credentials::load_key;
use crate::enrolment::Plan;
use crate::random::Random;

/// Makes and keeps an agency: root, certificates, revocation, key lists.
#[derive(Parser)]
#[command(name = "agency", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a trial agency in a new folder: root, CA, repeater, sites, cameras, recipients, key list 1.
    Trial {
        /// New or empty folder.
        dir: PathBuf,
        /// How many cameras (serials BWC-0001 and on).
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(..10_000))]
        cameras: u32,
        /// Archive sites, separated by commas.
        #[arg(long, value_delimiter = ',', default_value = "site-a")]
        sites: Vec<SiteId>,
        /// The station's name.
        #[arg(long, default_value = "trial")]
        station: String,
    },
    /// Make a signing request; makes the private key too where the file does not exist.
    Csr {
        /// Who: urn:bwc:repeater:STATION:N, urn:bwc:archive:SITE, urn:bwc:camera:ID, urn:bwc:device:SERIAL.
        #[arg(long)]
        identity: Identity,
        /// The private key (PEM, mode 0600); stays where it is.
        #[arg(long)]
        key: PathBuf,
        /// Where the request goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Sign a request with the issuing CA.
    Sign {
        /// The agency's folder.
        dir: PathBuf,
        /// The request.
        #[arg(long)]
        csr: PathBuf,
        /// The role it must be for.
        #[arg(long)]
        role: RoleArgument,
        /// Where the chain goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make the enrolment file of a station's box: put it into the box's boot partition, or on a USB stick.
    Enrol {
        /// The agency's folder.
        dir: PathBuf,
        /// What the station is like (TOML): its name and number, the archive, the uplink, Wi-Fi and docks.
        #[arg(long)]
        plan: PathBuf,
        /// Where the file goes.
        #[arg(long, default_value = "enrolment.repeater")]
        out: PathBuf,
    },
    /// Open the key of a station's disk, whose board is dead or does not open it any more. Put the file on the stick from
    /// which the sealed one came, and the stick into the box.
    DiskKey {
        /// What came out of the box: disk-key.sealed.
        sealed: PathBuf,
        /// The private key of an escrow holder (PEM, mode 0600).
        #[arg(long)]
        key: PathBuf,
        /// Where the disk's key goes; it opens all that is on that disk.
        #[arg(long, default_value = "disk-key.plain")]
        out: PathBuf,
    },
    /// Revoke a certificate and write its issuer's revocation list anew: with the CA's key, or for a CA the root's.
    Revoke {
        /// The agency's folder.
        dir: PathBuf,
        /// The chain whose first certificate is revoked; without it the list is only renewed.
        chain: Option<PathBuf>,
        /// Revoke the CA that issued it, and with it all that it issued; the root's list is written.
        #[arg(long)]
        ca: bool,
    },
    /// Sign the next version of the key list.
    KeyList(KeyListArguments),
    /// Say what a file says: .pem, .pub, .cose.
    Show {
        /// The file.
        file: PathBuf,
        /// The root under which a key list is verified; trust.pem beside it unless given.
        #[arg(long)]
        trust: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
struct KeyListArguments {
    /// The agency's folder.
    dir: PathBuf,
    /// SITE=FILE.pub: the site signs receipts with this key.
    #[arg(long, value_parser = pair::<SiteId, PathBuf>)]
    add_receipt: Vec<(SiteId, PathBuf)>,
    /// FILE.pub: the data centre's key for headers.
    #[arg(long)]
    add_archive: Vec<PathBuf>,
    /// FILE.pub: the escrow holder's key for headers.
    #[arg(long)]
    add_escrow: Vec<PathBuf>,
    /// Key id: no longer used, what it made stays good.
    #[arg(long, value_parser = key_id)]
    retire: Vec<KeyId>,
    /// Key id: nothing that it signed counts any more. Final.
    #[arg(long, value_parser = key_id)]
    revoke: Vec<KeyId>,
    /// SITE=EPOCH (32 hexadecimal digits): that store was lost.
    #[arg(long, value_parser = site_epoch)]
    void: Vec<(SiteId, StoreEpoch)>,
    /// A site that is gone for now.
    #[arg(long)]
    suspend: Vec<SiteId>,
    /// A suspended site that is back.
    #[arg(long)]
    resume: Vec<SiteId>,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleArgument {
    Repeater,
    Archive,
    Camera,
    Device,
}

/// The program. `args[0]` is its name.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    crate::observe::init();
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match run(arguments.command) {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("agency: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &AgencyError) -> u8 {
    use std::io::ErrorKind;
    match error {
        AgencyError::File { source, .. } => match source.kind() {
            ErrorKind::NotFound => 66,
            ErrorKind::AlreadyExists => 73,
            ErrorKind::PermissionDenied => 77,
            _ => 74,
        },
        AgencyError::Request(_) => 64,
        _ => 65,
    }
}

fn run(command: Command) -> Result<String, AgencyError> {
    let (clock, random) = (Clock::system(), Random::system());
    let open = |dir: &PathBuf| Agency::open(dir, &clock, &random);
    match command {
        Command::Trial {
            dir,
            cameras,
            sites,
            station,
        } => {
            let options = TrialOptions {
                cameras,
                sites,
                station,
            };
            trial(&dir, &options, &clock, &random)?;
            let sites = options.sites.len();
            Ok(format!(
                "trial agency in {}: 1 repeater, {sites} sites, {cameras} cameras\n",
                dir.display()
            ))
        }
        Command::Csr { identity, key, out } => {
            if !key.exists() {
                write_secret(&key, OwnKey::generate()?.pair())?;
            }
            let own = OwnKey::from_der(&load_key(&key)?)?;
            write_public(&out, own.request(&identity)?)?;
            Ok(format!("request of {identity} in {}\n", out.display()))
        }
        Command::Sign {
            dir,
            csr,
            role,
            out,
        } => {
            let chain = open(&dir).sign_request(&read_text(&csr)?, role.into())?;
            write_public(&out, chain)?;
            Ok(format!("chain in {}\n", out.display()))
        }
        Command::Enrol { dir, plan, out } => enrol(&open(&dir), &plan, &out),
        Command::DiskKey { sealed, key, out } => disk_key(&sealed, &key, &out),
        Command::Revoke { dir, chain, ca } => {
            let done = revoke(&open(&dir), chain.as_deref(), ca)?;
            let crl = dir.join("crl.pem");
            Ok(format!("{done}; hand out {}\n", crl.display()))
        }
        Command::KeyList(arguments) => {
            let agency = open(&arguments.dir);
            let list = change(&agency, &arguments.changes())?;
            Ok(format!(
                "key list {} in {}\n",
                list.number(),
                agency.path("key-list.cose").display()
            ))
        }
        Command::Show { file, trust } => show(&file, trust.as_deref(), clock.now()),
    }
}

fn enrol(agency: &Agency, plan: &Path, out: &Path) -> Result<String, AgencyError> {
    let source = Source::open(plan).map_err(AgencyError::Plan)?;
    let plan = Plan::parse(&source).map_err(AgencyError::Plan)?;
    let who = plan.identity().map_err(AgencyError::Request)?;
    write_public(out, agency.enrol(plan)?)?;
    let known: Vec<String> = agency
        .fingerprints()?
        .iter()
        .map(Digest::to_string)
        .collect();
    let (out, known) = (out.display(), known.join(" or "));
    Ok(format!(
        "enrolment of {who} in {out}; the agency's fingerprint: {known}\n"
    ))
}

fn disk_key(sealed: &Path, key: &Path, out: &Path) -> Result<String, AgencyError> {
    let holder = AgreementKey::from_pkcs8(load_key(key)?.secret_der())
        .map_err(|e| AgencyError::content(key, e.to_string()))?;
    let opened = crate::disk_key::open(&read_text(sealed)?, &holder);
    let (disk, plain) = opened.map_err(|source| AgencyError::DiskKey {
        path: sealed.to_owned(),
        source,
    })?;
    write_secret_bytes(out, &plain)?;
    Ok(format!("the key of disk {disk} in {}\n", out.display()))
}

fn revoke(agency: &Agency, chain: Option<&Path>, ca: bool) -> Result<String, AgencyError> {
    match (chain, ca) {
        (Some(chain), false) => Ok(format!("revoked {}", agency.revoke(chain)?)),
        (Some(chain), true) => {
            agency.revoke_ca(chain)?;
            Ok("revoked the CA and all that it issued".into())
        }
        (None, false) => agency.write_crl().map(|()| "renewed".into()),
        (None, true) => agency
            .write_root_crl()
            .map(|()| "renewed the root's".into()),
    }
}

impl KeyListArguments {
    fn changes(self) -> Vec<Change> {
        let recipient = |role| move |file| Change::AddRecipient { role, file };
        let state = |state| move |key| Change::SetState { key, state };
        let mut changes: Vec<Change> = vec![];
        changes.extend(
            self.add_receipt
                .into_iter()
                .map(|(site, file)| Change::AddReceiptKey { site, file }),
        );
        changes.extend(
            self.add_archive
                .into_iter()
                .map(recipient(RecipientRole::Archive)),
        );
        changes.extend(
            self.add_escrow
                .into_iter()
                .map(recipient(RecipientRole::Escrow)),
        );
        changes.extend(self.retire.into_iter().map(state(State::Retired)));
        changes.extend(self.revoke.into_iter().map(state(State::Revoked)));
        changes.extend(
            self.void
                .into_iter()
                .map(|(site, epoch)| Change::VoidEpoch { site, epoch }),
        );
        changes.extend(self.suspend.into_iter().map(Change::Suspend));
        changes.extend(self.resume.into_iter().map(Change::Resume));
        changes
    }
}

impl From<RoleArgument> for Role {
    fn from(role: RoleArgument) -> Role {
        match role {
            RoleArgument::Repeater => Role::Repeater,
            RoleArgument::Archive => Role::Archive,
            RoleArgument::Camera => Role::Camera,
            RoleArgument::Device => Role::Device,
        }
    }
}

fn pair<A: std::str::FromStr, B: std::str::FromStr>(text: &str) -> Result<(A, B), String> {
    let (a, b) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let bad = |part: &str| format!("`{part}` does not parse");
    Ok((
        a.parse().map_err(|_| bad(a))?,
        b.parse().map_err(|_| bad(b))?,
    ))
}

fn key_id(text: &str) -> Result<KeyId, String> {
    KeyId::from_hex(text).ok_or_else(|| "write a key id as 32 hexadecimal digits".into())
}

fn site_epoch(text: &str) -> Result<(SiteId, StoreEpoch), String> {
    let (site, epoch) = pair::<SiteId, String>(text)?;
    let epoch = StoreEpoch::from_hex(&epoch)
        .ok_or("write SITE=EPOCH, the epoch as 32 hexadecimal digits")?;
    Ok((site, epoch))
}
