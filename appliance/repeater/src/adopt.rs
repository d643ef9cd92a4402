//! `repeaterd adopt`: the spool of another repeater becomes this box's own. Its disk was moved here since its board broke,
//! or this box was set up anew with another identity.
//!
//! | what | becomes |
//! |---|---|
//! | footage, manifests, inventories, receipts | kept as it lies: it is judged by digests and by cameras' and sites' signatures, of which none names a repeater |
//! | the logbook | goes on, with an entry that says who adopted it, from whom |
//! | the ledger | opened as after any stop: compared with its sum, derived anew where it does not fit |
//! | whose it is (`owner`) | this box, once the entry is durable |
//! | the other's private key and certificate | not taken: sealed keys open on their own board alone; the agency revokes the certificate |
//! | files' owner | the folder's, so that the daemon's user can read what is made here |
//!
//! Nothing is changed before `--yes`. It refuses while a daemon has the spool, and where the spool's key list, which every
//! spool has from its first start on, is not signed by this box's agency: another agency's receipts and sites are strangers
//! here, and footage would wait for ever.
//!
//! Killed anywhere, the spool is whole, and adopting is run again: the logbook then has the entry twice.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use link::credentials::{load_chain, load_trust};
use link::seams::Seams;
use protocol::identity::{Revocation, Role, Trust, Usage, When, verify_chain};
use protocol::keylist::KeyList;
use spool::{Contact, Spool, SpoolError};

use crate::config::Config;
use crate::run::{key_list, spool_options};
use crate::verify::{Scratch, look};
use crate::{control, owner};

/// Adopts the spool that the configuration names: 0 where it is this box's own, 1 where that was not said to be done.
///
/// # Errors
/// Where it is in use, another agency's, no spool, or cannot be read or written.
pub(crate) fn adopt(config: &Config, yes: bool) -> anyhow::Result<ExitCode> {
    let seams = Seams::system();
    // Whoever adopts needs no private key, which the service manager gives to the daemon alone.
    let files = &config.credentials;
    let trust = load_trust(&files.trust, files.crl.as_deref())?;
    let chain = load_chain(&files.chain)?;
    let certificate = verify_chain(
        &chain,
        &trust,
        When::Undated,
        Usage::Client,
        Revocation::Ignore,
    )?;
    certificate.identity.require(Role::Repeater)?;
    let (dir, own) = (&config.spool_dir, certificate.identity.to_string());
    ensure!(
        dir.join("FORMAT").exists(),
        "{} is no spool; mount the disk there",
        dir.display()
    );
    same_agency(dir, &trust)?;
    let scratch = Scratch::new()?;
    let bytes = match look(config, &seams, &scratch.0) {
        Ok(look) => look.total_bytes(),
        Err(e) if matches!(e.downcast_ref(), Some(SpoolError::InUse(_))) => {
            return Err(e.context("stop the daemon first: systemctl stop repeaterd"));
        }
        Err(e) => return Err(e),
    };
    let from = match owner::read(dir)? {
        Some(owner) if owner == own => {
            println!("{} is {own}'s already", dir.display());
            return Ok(ExitCode::SUCCESS);
        }
        Some(owner) => owner,
        None => "a repeater that left no name".into(),
    };
    println!(
        "{}: the spool of {from}, {bytes} bytes of footage and manifests\n\
         kept:     every segment, manifest, inventory, receipt, and the logbook, which goes on\n\
         made new: whose it is: {own}; the ledger, where it does not fit what lies there\n\
         not here: the key and certificate of {from}: have the agency revoke it if its board is not in your hands",
        dir.display()
    );
    if !yes {
        println!("nothing was changed; --yes does it");
        return Ok(ExitCode::from(1));
    }
    let counted = take_over(config, &seams, trust, format!("adopt by {own} from {from}"))?;
    owner::write(dir, &own)?;
    hand_over(dir)?;
    println!("{} is {own}'s; {counted}", dir.display());
    Ok(ExitCode::SUCCESS)
}

/// Opens it as a daemon does, with the entry in its logbook.
fn take_over(config: &Config, seams: &Seams, trust: Trust, what: String) -> anyhow::Result<String> {
    let dir = &config.spool_dir;
    let keys = key_list(&config.key_list, &trust)?;
    let options = spool_options(config, seams)?;
    let now = seams.clock.now();
    let (mut spool, report) = Spool::open(options, trust, keys, now)
        .with_context(|| format!("cannot open the spool {}", dir.display()))?;
    let entry = Contact::Command {
        who: format!("uid {}", nix::unistd::getuid()),
        what,
    };
    spool.contact(entry, now)?;
    spool.commit(now)?;
    // A dead daemon's.
    let _ = std::fs::remove_file(control::path(dir));
    Ok(report.to_string())
}

fn same_agency(dir: &Path, trust: &Trust) -> anyhow::Result<()> {
    let path = dir.join("key-list");
    let bytes = std::fs::read(&path).with_context(|| {
        format!(
            "{}: which agency's spool this is cannot be told",
            path.display()
        )
    })?;
    match KeyList::verify(bytes.into(), trust.root_keys()) {
        Ok(_) => Ok(()),
        Err(e) => bail!(
            "{}: it is no key list of this box's agency ({e}): a spool stays with its agency, whose sites take its footage",
            path.display()
        ),
    }
}

/// What root made here is the daemon's: the spool's folder says whose that is.
fn hand_over(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt;
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let whose = dir.metadata().with_context(|| dir.display().to_string())?;
    let (uid, gid) = (Some(whose.uid()), Some(whose.gid()));
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            let about = path.symlink_metadata()?;
            if (about.uid(), about.gid()) != (whose.uid(), whose.gid()) {
                std::os::unix::fs::lchown(&path, uid, gid)
                    .with_context(|| format!("cannot give {} to the daemon", path.display()))?;
            }
            if about.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}
