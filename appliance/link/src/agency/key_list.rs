//! The key list's next version: changes applied to the present one, signed by the root.
//!
//! Entries are added and change state; they are never removed, since what an old key signed must stay
//! verifiable (retired) or stay refused (revoked). A suspended site can come back; a void epoch stays void.

use std::path::PathBuf;

use protocol::identity::Trust;
use protocol::ids::{KeyId, SiteId, StoreEpoch};
use protocol::keylist::{
    Body, KeyList, ReceiptKey, Recipient, RecipientRole, State, VERSION, VoidEpoch,
};
use protocol::suite::{PublicKey, SigningKey};

use super::files::{read, read_public_key, write_public};
use super::{Agency, AgencyError};
use crate::credentials::load_key;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A site signs receipts with the key in this `.pub` file.
    AddReceiptKey {
        /// The site.
        site: SiteId,
        /// Its key.
        file: PathBuf,
    },
    /// Headers are sealed to the key in this `.pub` file.
    AddRecipient {
        /// Whose key.
        role: RecipientRole,
        /// The key.
        file: PathBuf,
    },
    /// The receipt key or recipient of that id changes state.
    SetState {
        /// Which key.
        key: KeyId,
        /// Its new state.
        state: State,
    },
    /// A site's store of this epoch was lost: its receipts no longer count.
    VoidEpoch {
        /// The site.
        site: SiteId,
        /// The lost store's epoch.
        epoch: StoreEpoch,
    },
    /// A site is gone until it is resumed.
    Suspend(SiteId),
    /// A suspended site is back.
    Resume(SiteId),
}

/// The agency's present key list; none before the first change.
///
/// # Errors
/// [`AgencyError::File`], [`AgencyError::KeyList`].
pub fn present(agency: &Agency) -> Result<Option<KeyList>, AgencyError> {
    let path = agency.path("key-list.cose");
    if !path.exists() {
        return Ok(None);
    }
    let roots = Trust::from_pem(&read(&agency.path("trust.pem"))?, None)?;
    Ok(Some(KeyList::verify(
        read(&path)?.into(),
        roots.root_keys(),
    )?))
}

/// Applies changes to the present key list, and signs and writes the next.
///
/// # Errors
/// Any [`AgencyError`]; nothing is written then.
pub fn change(agency: &Agency, changes: &[Change]) -> Result<KeyList, AgencyError> {
    let mut body = present(agency)?.map_or_else(empty, |list| list.body().clone());
    body.number += 1;
    for change in changes {
        apply(&mut body, change)?;
    }
    let path = agency.path("root/root.key");
    let root = SigningKey::from_pkcs8(load_key(&path)?.secret_der())
        .map_err(|e| AgencyError::content(&path, e.to_string()))?;
    let list = KeyList::sign(body, &root)?;
    write_public(&agency.path("key-list.cose"), list.bytes())?;
    Ok(list)
}

fn empty() -> Body {
    Body {
        version: VERSION,
        number: 0,
        receipt_keys: vec![],
        recipients: vec![],
        void_epochs: vec![],
        suspended: vec![],
    }
}

fn apply(body: &mut Body, change: &Change) -> Result<(), AgencyError> {
    match change {
        Change::AddReceiptKey { site, file } => {
            let public_key = read_public_key(file)?.sec1().to_vec();
            body.receipt_keys.push(ReceiptKey {
                site: site.clone(),
                public_key,
                state: State::Active,
            });
        }
        Change::AddRecipient { role, file } => {
            let public_key = read_public_key(file)?.sec1().to_vec();
            body.recipients.push(Recipient {
                role: *role,
                public_key,
                state: State::Active,
            });
        }
        Change::SetState { key, state } => set_state(body, *key, *state)?,
        Change::VoidEpoch { site, epoch } => {
            let void = VoidEpoch {
                site: site.clone(),
                epoch: *epoch,
            };
            if !body.void_epochs.contains(&void) {
                body.void_epochs.push(void);
            }
        }
        Change::Suspend(site) if body.suspended.contains(site) => {}
        Change::Suspend(site) => body.suspended.push(site.clone()),
        Change::Resume(site) => body.suspended.retain(|s| s != site),
    }
    Ok(())
}

fn set_state(body: &mut Body, key: KeyId, state: State) -> Result<(), AgencyError> {
    let is = |bytes: &[u8]| PublicKey::from_sec1(bytes).is_ok_and(|k| k.id() == key);
    let receipts = body
        .receipt_keys
        .iter_mut()
        .filter(|k| is(&k.public_key))
        .map(|k| &mut k.state);
    let recipients = body
        .recipients
        .iter_mut()
        .filter(|r| is(&r.public_key))
        .map(|r| &mut r.state);
    let Some(found) = receipts.chain(recipients).next() else {
        return Err(AgencyError::Request(format!(
            "no key {key} in the key list; `agency show` prints them"
        )));
    };
    if *found == State::Revoked && state != State::Revoked {
        return Err(AgencyError::Request(format!(
            "key {key} is revoked, which is final; add a new key"
        )));
    }
    *found = state;
    Ok(())
}
