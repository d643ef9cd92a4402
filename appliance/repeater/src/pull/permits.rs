//! Permits bound the segments in flight over all cameras, and are where cameras share: who waits is served in the
//! order of `protocol::schedule`, equal cameras by bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ids::{CameraId, Time};
use protocol::manifest::Class;
use protocol::schedule::{self, Waiting};
use tokio::sync::oneshot;

/// The pool. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct Permits(Arc<Mutex<Pool>>);

#[derive(Debug)]
struct Pool {
    free: usize,
    /// The share of each camera that has a session.
    shares: HashMap<CameraId, Share>,
    queue: Vec<Waiter>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Bytes served, from the least-served camera's level on.
    bytes: u64,
    /// Whether it has something to pull.
    wants: bool,
}

#[derive(Debug)]
struct Waiter {
    camera: CameraId,
    class: Class,
    captured: Time,
    bytes: u64,
    grant: oneshot::Sender<Permit>,
}

/// One segment in flight; given back when dropped.
#[derive(Debug)]
pub struct Permit(Option<Permits>);

impl Permits {
    /// A pool for `most` segments in flight.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Permits(Arc::new(Mutex::new(Pool {
            free: most,
            shares: HashMap::new(),
            queue: Vec::new(),
        })))
    }

    /// A camera's session begins: it starts level with the camera that was served least.
    pub fn join(&self, camera: &CameraId) {
        let mut pool = self.lock();
        let bytes = pool.shares.values().map(|s| s.bytes).min().unwrap_or(0);
        pool.shares.entry(camera.clone()).or_insert(Share {
            bytes,
            wants: false,
        });
    }

    /// A camera's session ended.
    pub fn leave(&self, camera: &CameraId) {
        self.lock().shares.remove(camera);
    }

    /// Waits for a permit for `bytes` of this camera. Dropping the future gives up the place.
    pub async fn take(
        &self,
        camera: &CameraId,
        class: Class,
        captured: Time,
        bytes: u64,
    ) -> Permit {
        let (grant, granted) = oneshot::channel();
        let waiter = Waiter {
            camera: camera.clone(),
            class,
            captured,
            bytes,
            grant,
        };
        self.lock().queue.push(waiter);
        self.serve();
        // The pool lives as long as this handle, and drops a waiter only when it grants.
        granted.await.unwrap_or(Permit(None))
    }

    /// Says whether a camera has something to pull.
    pub fn wants(&self, camera: &CameraId, wants: bool) {
        if let Some(share) = self.lock().shares.get_mut(camera) {
            share.wants = wants;
        }
    }

    /// Whether another camera than this one has something to pull.
    #[must_use]
    pub fn others_want(&self, camera: &CameraId) -> bool {
        self.lock()
            .shares
            .iter()
            .any(|(c, share)| c != camera && share.wants)
    }

    fn serve(&self) {
        loop {
            let mut pool = self.lock();
            pool.queue.retain(|w| !w.grant.is_closed());
            if pool.free == 0 {
                return;
            }
            let served = |c: &CameraId| pool.shares.get(c).map_or(0, |s| s.bytes);
            let waiting: Vec<Waiting> = pool
                .queue
                .iter()
                .map(|w| Waiting {
                    class: w.class,
                    deadline: None,
                    served_bytes: served(&w.camera),
                    captured: w.captured,
                })
                .collect();
            let Some(next) = schedule::next(&waiting) else {
                return;
            };
            let waiter = pool.queue.swap_remove(next);
            pool.free -= 1;
            if let Some(share) = pool.shares.get_mut(&waiter.camera) {
                share.bytes += waiter.bytes;
            }
            drop(pool);
            // A waiter that went away gives the permit back when this value is dropped.
            drop(waiter.grant.send(Permit(Some(self.clone()))));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(permits) = self.0.take() {
            permits.lock().free += 1;
            permits.serve();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use protocol::ids::Incarnation;

    fn camera(n: u8) -> CameraId {
        CameraId {
            serial: format!("C{n}").parse().unwrap(),
            incarnation: Incarnation([n; 16]),
        }
    }

    #[test]
    fn permits_are_bounded_given_back_and_shared_by_bytes() {
        link::tasks::current_thread(async {
            let permits = Permits::new(2);
            let (a, b) = (camera(1), camera(2));
            permits.join(&a);
            permits.join(&b);
            let one = permits.take(&a, Class::Routine, Time(0), 4).await;
            let _two = permits.take(&a, Class::Routine, Time(0), 4).await;
            let third = permits.take(&a, Class::Routine, Time(0), 4);
            let other = permits.take(&b, Class::Routine, Time(9), 4);
            let urgent = permits.take(&a, Class::Urgent, Time(9), 4);
            tokio::pin!(third, other, urgent);
            for waiting in [
                third.as_mut() as std::pin::Pin<&mut dyn Future<Output = Permit>>,
                other.as_mut(),
                urgent.as_mut(),
            ] {
                assert!(
                    tokio::time::timeout(std::time::Duration::ZERO, waiting)
                        .await
                        .is_err()
                );
            }
            drop(one);
            let first = urgent.await;
            drop(first);
            // Camera b was served nothing yet: it goes before camera a's older footage.
            drop(other.await);
            drop(third.await);
        })
        .unwrap();
    }
}
