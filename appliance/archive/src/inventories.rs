//! Inventories: what cameras say they hold, kept as they came, the newest of each incarnation.
//!
//! A camera's number only rises. A lower one is not stored and alarms; so does a serial that comes with
//! another incarnation than the store knows. Pages are kept one by one: whoever reads them assembles those
//! of one number.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use protocol::cose::CoseError;
use protocol::ids::CameraId;
use protocol::inventory::{InventoryError, Page};
use protocol::limits::INVENTORY_PAGE_BYTES;
use protocol::message::Reason;

use crate::admit::Refusal;
use crate::alarms::Alarm;
use crate::gateway::Gateway;
use crate::vault::VaultError;
use crate::{layout, limits};

/// Cameras whose pages are stored at one time.
const LANES: usize = 64;

/// The newest numbers known, by camera.
#[derive(Debug)]
pub struct Inventories {
    newest: Mutex<HashMap<CameraId, u64>>,
    /// One camera's pages, also from two stations, are stored one after the other: a lower number never
    /// lands on a higher one.
    lanes: Vec<tokio::sync::Mutex<()>>,
}

impl Default for Inventories {
    fn default() -> Self {
        Inventories {
            newest: Mutex::default(),
            lanes: (0..LANES).map(|_| tokio::sync::Mutex::default()).collect(),
        }
    }
}

/// Verifies and keeps one page.
///
/// # Errors
/// [`Refusal`] for one that does not verify, or where the store fails.
pub async fn keep(gateway: &Gateway, offered: Bytes) -> Result<(), Refusal> {
    let trust = gateway.keyring.current().trust.clone();
    let page = Page::verify(offered, &trust).map_err(|e| Refusal::new(reason_of(&e), &e))?;
    let kept = gateway.in_time(keep_page(gateway, &page)).await;
    gateway.watch_store(&kept);
    kept.map_err(|e| Refusal::new(Reason::StoreFailed, &e))
}

fn reason_of(error: &InventoryError) -> Reason {
    match error {
        InventoryError::Envelope(CoseError::BadSignature | CoseError::Signer(_))
        | InventoryError::WrongCamera => Reason::BadSignature,
        InventoryError::Version(_) => Reason::Version,
        InventoryError::Envelope(_) | InventoryError::Invalid(_) => Reason::Malformed,
    }
}

async fn keep_page(gateway: &Gateway, page: &Page) -> Result<(), VaultError> {
    let body = page.body();
    let lane = usize::from(body.camera.incarnation.0[0]) % LANES;
    let _turn = gateway.inventories.lanes[lane].lock().await;
    let known = known(gateway, &body.camera).await?;
    if known.is_some_and(|known| body.number < known) {
        let what = format!(
            "inventory {} came after inventory {}",
            body.number,
            known.unwrap_or_default()
        );
        gateway.alarm(Alarm::InventoryLower, &show(&body.camera), &what);
        return Ok(());
    }
    let path = layout::inventory(&body.camera, body.page);
    gateway.vault.replace(&path, page.bytes().clone()).await?;
    gateway.metrics.stored("inventory", page.bytes().len());
    remember(gateway, &body.camera, body.number);
    Ok(())
}

/// The newest number of a camera: remembered, or else read from the store.
async fn known(gateway: &Gateway, camera: &CameraId) -> Result<Option<u64>, VaultError> {
    let inventories = &gateway.inventories;
    if let Some(number) = inventories
        .newest
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(camera)
    {
        return Ok(Some(*number));
    }
    let others = gateway
        .vault
        .prefixes(&layout::inventories_of(camera))
        .await?;
    let others = others
        .iter()
        .filter_map(layout::incarnation)
        .filter(|i| *i != camera.incarnation);
    for other in others {
        let what = format!(
            "incarnation {} of its storage came, and the store knows {other}",
            camera.incarnation
        );
        gateway.alarm(Alarm::IncarnationNew, &show(camera), &what);
    }
    let stored = gateway
        .vault
        .read(&layout::inventory(camera, 0), INVENTORY_PAGE_BYTES)
        .await?;
    let trust = gateway.keyring.current().trust.clone();
    let page = stored
        .bytes()
        .ok()
        .and_then(|bytes| Page::verify(bytes, &trust).ok());
    Ok(page.map(|p| p.body().number))
}

fn remember(gateway: &Gateway, camera: &CameraId, number: u64) {
    let mut newest = gateway
        .inventories
        .newest
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if newest.len() >= limits::CAMERAS && !newest.contains_key(camera) {
        newest.clear(); // read from the store again
    }
    let known = newest.entry(camera.clone()).or_default();
    *known = number.max(*known);
}

fn show(camera: &CameraId) -> String {
    format!("{}/{}", camera.serial, camera.incarnation)
}
