//! Who is woken when the storage thread has made something durable: each camera's session when receipts for it
//! came or room was made, and every site's session when something can be offered or put. A notice says that
//! there may be work, never what: the ledger says that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ids::{CameraId, SiteId};
use tokio::sync::Notify;

/// The register of sleeping sessions. Clones are the same register.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Mutex<Register>>);

#[derive(Debug, Default)]
struct Register {
    cameras: HashMap<CameraId, Arc<Notify>>,
    sites: HashMap<SiteId, Arc<Notify>>,
}

impl Notices {
    /// The bell of a camera's sessions.
    #[must_use]
    pub fn of_camera(&self, camera: &CameraId) -> Arc<Notify> {
        Arc::clone(self.lock().cameras.entry(camera.clone()).or_default())
    }

    /// The bell of a site's session.
    #[must_use]
    pub fn of_site(&self, site: &SiteId) -> Arc<Notify> {
        Arc::clone(self.lock().sites.entry(site.clone()).or_default())
    }

    /// A camera's session ended: its bell is forgotten when nobody else holds it.
    pub fn forget_camera(&self, camera: &CameraId) {
        let mut register = self.lock();
        if register
            .cameras
            .get(camera)
            .is_some_and(|bell| Arc::strong_count(bell) <= 2)
        {
            register.cameras.remove(camera);
        }
    }

    /// Wakes one camera's session.
    pub fn camera(&self, camera: &CameraId) {
        if let Some(bell) = self.lock().cameras.get(camera) {
            bell.notify_one();
        }
    }

    /// Wakes every camera's session: room was made, or keys changed.
    pub fn all_cameras(&self) {
        self.lock()
            .cameras
            .values()
            .for_each(|bell| bell.notify_one());
    }

    /// Wakes every site's session.
    pub fn sites(&self) {
        self.lock()
            .sites
            .values()
            .for_each(|bell| bell.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, Register> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a camera has brought an inventory since the start. The inventories themselves are in the spool: whoever
/// passes them on reads them there. Clones are the same count.
#[derive(Clone, Debug, Default)]
pub struct Inventories(Arc<AtomicU64>);

impl Inventories {
    /// A camera brought one, and the spool has it.
    pub fn bring(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often so far.
    #[must_use]
    pub fn brought(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
