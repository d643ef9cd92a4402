//! A trial agency by one command: every party that a test, a bench or the demonstration starts, certified and
//! with its keys, and a first key list that names them. Its root lies beside the rest: never use it for more
//! than a trial.

use std::path::Path;

use protocol::ids::{Serial, SiteId};
use protocol::keylist::RecipientRole;
use rcgen::KeyPair;

use super::files::{write_public_key, write_secret};
use super::key_list::{Change, change};
use super::{Agency, AgencyError};
use crate::clock::Clock;
use crate::random::Random;

/// What a trial agency consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialOptions {
    /// How many cameras: serials `BWC-0001` and on.
    pub cameras: u32,
    /// The archive sites.
    pub sites: Vec<SiteId>,
    /// The station; its one repeater has number 1.
    pub station: String,
}

impl Default for TrialOptions {
    fn default() -> Self {
        let site = "site-a".parse().expect("a plain name");
        TrialOptions {
            cameras: 4,
            sites: vec![site],
            station: "trial".into(),
        }
    }
}

/// The serial of the `n`th camera, counted from 1.
#[must_use]
pub fn serial(n: u32) -> Serial {
    format!("BWC-{n:04}")
        .parse()
        .expect("letters, digits and a dash, below 64")
}

/// Makes a trial agency in `dir`, which must be new or empty.
///
/// # Errors
/// Any [`AgencyError`].
pub fn trial(
    dir: &Path,
    options: &TrialOptions,
    clock: &Clock,
    random: &Random,
) -> Result<Agency, AgencyError> {
    let agency = Agency::create(dir, clock, random)?;
    agency.add_repeater(&options.station, 1)?;
    let mut changes = vec![];
    for site in &options.sites {
        let folder = agency.add_site(site)?;
        changes.push(Change::AddReceiptKey {
            site: site.clone(),
            file: folder.join("receipt.pub"),
        });
    }
    for n in 1..=options.cameras {
        agency.add_camera(&serial(n))?;
    }
    for (role, name) in [
        (RecipientRole::Archive, "archive"),
        (RecipientRole::Escrow, "escrow"),
    ] {
        let key = KeyPair::generate()?;
        let stem = agency.path("recipients").join(name);
        write_secret(&stem.with_extension("key"), &key)?;
        write_public_key(&stem.with_extension("pub"), &key)?;
        changes.push(Change::AddRecipient {
            role,
            file: stem.with_extension("pub"),
        });
    }
    change(&agency, &changes)?;
    Ok(agency)
}
