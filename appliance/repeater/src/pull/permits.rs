//! Permits bound the segments in flight over all cameras, and are where cameras share: who waits is served in the
//! order of `protocol::schedule`: urgent footage within the day's quota, then the camera that leaves or fills
//! soonest, equal cameras by bytes.
//!
//! Two parts make the bound. The pool is shared, and cameras that stall can hold all of it. So a camera that has
//! nothing in flight may always take one more, beyond the pool: no camera waits for another's silence. Cameras
//! with a session are bounded, so that this reserve is ([`crate::limits::PULLS_RESERVED`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::ids::{CameraId, Time};
use protocol::manifest::Class;
use protocol::schedule::{self, Waiting};
use tokio::sync::oneshot;

use super::quota::Quotas;

/// The pool. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct Permits(Arc<Mutex<Pool>>);

#[derive(Debug)]
struct Pool {
    free: usize,
    /// How many nearby cameras may take besides: the air is theirs together.
    air: usize,
    /// The share of each camera that has a session, or still something in flight.
    shares: HashMap<CameraId, Share>,
    queue: Vec<Waiter>,
    quotas: Quotas,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Sessions of this camera.
    sessions: usize,
    /// Permits that it has, from the pool and the reserve.
    in_flight: usize,
    /// Bytes served, from the least-served camera's level on.
    bytes: u64,
    /// Whether it has something to pull.
    wants: bool,
    /// When it is expected to leave or be full, as it last said.
    deadline: Option<Time>,
}

/// What a permit is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Class of the recording.
    pub class: Class,
    /// When it began.
    pub captured: Time,
    /// Bytes of the segment.
    pub bytes: u64,
    /// Now: whose day's quota it is.
    pub now: Time,
    /// Whether it comes over the air.
    pub nearby: bool,
}

#[derive(Debug)]
struct Waiter {
    camera: CameraId,
    ask: Ask,
    grant: oneshot::Sender<Permit>,
}

/// One segment in flight; given back when dropped.
#[derive(Debug)]
pub struct Permit(Option<Granted>);

#[derive(Debug)]
struct Granted {
    permits: Permits,
    camera: CameraId,
    /// Whether it goes back to the pool.
    pooled: bool,
    /// Whether it has one of the air's places.
    on_air: bool,
}

/// A session's place among those that share; left when dropped, however the session ends.
#[derive(Debug)]
pub struct Joined {
    permits: Permits,
    camera: CameraId,
}

impl Permits {
    /// A pool for `most` segments in flight, and one more for each camera that has none; of nearby cameras `air`
    /// together, and urgent ones beyond.
    #[must_use]
    pub fn new(most: usize, air: usize) -> Self {
        Permits(Arc::new(Mutex::new(Pool {
            free: most,
            air,
            shares: HashMap::new(),
            queue: Vec::new(),
            quotas: Quotas::default(),
        })))
    }

    /// A camera's session begins: it starts level with the camera that was served least. `deadline` is when it is
    /// expected to leave or be full.
    #[must_use]
    pub fn join(&self, camera: &CameraId, deadline: Option<Time>) -> Joined {
        let mut pool = self.lock();
        let bytes = pool.shares.values().map(|s| s.bytes).min().unwrap_or(0);
        let fresh = Share {
            bytes,
            ..Share::default()
        };
        let share = pool.shares.entry(camera.clone()).or_insert(fresh);
        share.sessions += 1;
        share.deadline = deadline;
        Joined {
            permits: self.clone(),
            camera: camera.clone(),
        }
    }

    /// Waits for a permit for this camera. Dropping the future gives up the place.
    pub async fn take(&self, camera: &CameraId, ask: Ask) -> Permit {
        let (grant, granted) = oneshot::channel();
        let camera = camera.clone();
        self.wait(Waiter { camera, ask, grant });
        self.serve();
        // The pool lives as long as this handle, and drops a waiter only when it grants.
        granted.await.unwrap_or(Permit(None))
    }

    fn wait(&self, waiter: Waiter) {
        let mut pool = self.lock();
        pool.quotas.pass(waiter.ask.now);
        pool.queue.push(waiter);
    }

    /// Says whether a camera has something to pull.
    pub fn wants(&self, camera: &CameraId, wants: bool) {
        if let Some(share) = self.lock().shares.get_mut(camera) {
            share.wants = wants;
        }
    }

    /// Whether this camera has something left of its urgent quota of the day.
    #[must_use]
    pub fn has_urgent_quota(&self, camera: &CameraId, now: Time) -> bool {
        let mut pool = self.lock();
        pool.quotas.pass(now);
        pool.quotas.served(&camera.serial, Class::Urgent) == Class::Urgent
    }

    /// Whether another camera than this one has a session and something to pull.
    #[must_use]
    pub fn others_want(&self, camera: &CameraId) -> bool {
        self.lock()
            .shares
            .iter()
            .any(|(c, share)| c != camera && share.sessions > 0 && share.wants)
    }

    fn serve(&self) {
        while let Some((grant, permit)) = self.grant_next() {
            // A waiter that went away gives the permit back when this value is dropped.
            drop(grant.send(permit));
        }
    }

    fn grant_next(&self) -> Option<(oneshot::Sender<Permit>, Permit)> {
        let mut pool = self.lock();
        pool.queue.retain(|w| !w.grant.is_closed());
        let waiter = pool.next()?;
        let pooled = pool.free > 0;
        pool.free -= usize::from(pooled);
        let (serial, ask) = (&waiter.camera.serial, waiter.ask);
        let class = pool.quotas.served(serial, ask.class);
        pool.quotas.spend(serial, class, ask.bytes);
        let on_air = ask.nearby && pool.air > 0;
        pool.air -= usize::from(on_air);
        let share = pool.shares.entry(waiter.camera.clone()).or_default();
        share.in_flight += 1;
        share.bytes += ask.bytes;
        let granted = Granted {
            permits: self.clone(),
            camera: waiter.camera,
            pooled,
            on_air,
        };
        Some((waiter.grant, Permit(Some(granted))))
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Takes who is served next off the queue: anyone while the pool has permits, else a camera that has none. Nearby
    /// ones while the air has room, but for what is urgent.
    fn next(&mut self) -> Option<Waiter> {
        let share = |w: &Waiter| self.shares.get(&w.camera).copied().unwrap_or_default();
        let class = |w: &Waiter| self.quotas.served(&w.camera.serial, w.ask.class);
        let air = |w: &Waiter| !w.ask.nearby || self.air > 0 || class(w) == Class::Urgent;
        let may = |w: &Waiter| (self.free > 0 || share(w).in_flight == 0) && air(w);
        let (at, waiting): (Vec<usize>, Vec<Waiting>) = (self.queue.iter().enumerate())
            .filter(|(_, w)| may(w))
            .map(|(i, w)| {
                let waiting = Waiting {
                    class: class(w),
                    nearby: w.ask.nearby,
                    deadline: share(w).deadline,
                    served_bytes: share(w).bytes,
                    captured: w.ask.captured,
                };
                (i, waiting)
            })
            .unzip();
        let next = schedule::next(&waiting)?;
        Some(self.queue.swap_remove(at[next]))
    }

    fn change(&mut self, camera: &CameraId, change: impl FnOnce(&mut Share)) {
        let Some(share) = self.shares.get_mut(camera) else {
            return;
        };
        change(share);
        if share.sessions == 0 && share.in_flight == 0 {
            self.shares.remove(camera);
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.permits.lock().change(&self.camera, |share| {
            share.sessions -= 1;
            share.wants &= share.sessions > 0;
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(granted) = self.0.take() {
            let mut pool = granted.permits.lock();
            pool.free += usize::from(granted.pooled);
            pool.air += usize::from(granted.on_air);
            pool.change(&granted.camera, |share| share.in_flight -= 1);
            drop(pool);
            granted.permits.serve();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use protocol::ids::Incarnation;
    use std::pin::Pin;
    use std::time::Duration;

    fn camera(n: u8) -> CameraId {
        CameraId {
            serial: format!("C{n}").parse().unwrap(),
            incarnation: Incarnation([n; 16]),
        }
    }

    fn ask(class: Class, captured: Time, bytes: u64) -> Ask {
        let now = Time(0);
        Ask {
            class,
            captured,
            bytes,
            now,
            nearby: false,
        }
    }

    async fn waits(permit: Pin<&mut impl Future<Output = Permit>>) {
        let polled = tokio::time::timeout(Duration::ZERO, permit).await;
        assert!(polled.is_err());
    }

    async fn comes(permit: Pin<&mut impl Future<Output = Permit>>) -> Permit {
        let polled = tokio::time::timeout(Duration::from_secs(1), permit).await;
        polled.expect("whose turn it is")
    }

    #[test]
    fn permits_are_bounded_given_back_and_shared_by_bytes() {
        link::tasks::current_thread(async {
            let permits = Permits::new(2, 9);
            let (a, b) = (camera(1), camera(2));
            let _joined = (permits.join(&a, None), permits.join(&b, None));
            let one = permits.take(&a, ask(Class::Routine, Time(0), 4)).await;
            let _two = permits.take(&a, ask(Class::Routine, Time(0), 4)).await;
            let _reserved = permits.take(&b, ask(Class::Routine, Time(0), 2)).await;
            let third = permits.take(&a, ask(Class::Routine, Time(0), 4));
            let other = permits.take(&b, ask(Class::Routine, Time(9), 4));
            let urgent = permits.take(&a, ask(Class::Urgent, Time(9), 4));
            tokio::pin!(third, other, urgent);
            waits(third.as_mut()).await;
            waits(other.as_mut()).await;
            waits(urgent.as_mut()).await;
            drop(one);
            let first = urgent.await;
            drop(first);
            // Camera b was served less: it goes before camera a's older footage.
            waits(third.as_mut()).await;
            drop(other.await);
            drop(third.await);
        })
        .unwrap();
    }

    #[test]
    fn cameras_that_hold_the_whole_pool_keep_nobody_from_a_first_segment() {
        link::tasks::current_thread(async {
            let permits = Permits::new(40, 9);
            let stalling: Vec<_> = (0..14).map(camera).collect();
            let mut held = Vec::new();
            for camera in stalling.iter().chain(&stalling).chain(&stalling).take(40) {
                held.push(permits.take(camera, ask(Class::Urgent, Time(0), 4)).await);
            }
            let honest = camera(99);
            let _joined = permits.join(&honest, None);
            for _ in 0..3 {
                let one = permits.take(&honest, ask(Class::Routine, Time(9), 4)).await;
                // A second one waits for the pool: the reserve is one.
                let second = permits.take(&honest, ask(Class::Routine, Time(9), 4));
                tokio::pin!(second);
                waits(second.as_mut()).await;
                drop(one);
                drop(second.await);
            }
            assert_eq!(permits.lock().free, 0, "what is reserved is not the pool's");
            drop(held);
            assert_eq!(permits.lock().free, 40);
            assert_eq!(permits.lock().shares.len(), 1, "who left is forgotten");
        })
        .unwrap();
    }

    #[test]
    fn a_session_that_is_dropped_wants_nothing_and_two_of_one_camera_are_counted() {
        let permits = Permits::new(1, 9);
        let (a, b) = (camera(1), camera(2));
        let (first, second) = (permits.join(&a, None), permits.join(&a, None));
        permits.wants(&a, true);
        drop(first);
        assert!(permits.others_want(&b), "the other session is there");
        drop(second);
        assert!(!permits.others_want(&b));
        assert!(permits.lock().shares.is_empty());
    }

    #[test]
    fn who_leaves_soonest_goes_first_within_a_class_and_leaves_the_others_their_one() {
        link::tasks::current_thread(async {
            let permits = Permits::new(1, 9);
            let (late, soon, unknown) = (camera(1), camera(2), camera(3));
            let hour = 3_600_000;
            let _joined = (
                permits.join(&late, Some(Time(2 * hour))),
                permits.join(&soon, Some(Time(hour))),
                permits.join(&unknown, None),
            );
            // Somebody has the pool's one, and each the one that it may have in any case.
            let other = camera(4);
            let pooled = permits.take(&other, ask(Class::Routine, Time(0), 9)).await;
            let mut held = Vec::new();
            for camera in [&late, &soon, &unknown] {
                held.push(permits.take(camera, ask(Class::Routine, Time(0), 9)).await);
            }
            let (one, two) = (
                ask(Class::Routine, Time(0), 9),
                ask(Class::Flagged, Time(9), 9),
            );
            let others = permits.take(&unknown, one);
            let lates = permits.take(&late, one);
            let soons = permits.take(&soon, one);
            let flagged = permits.take(&unknown, two);
            tokio::pin!(others, lates, soons, flagged);
            waits(others.as_mut()).await;
            waits(lates.as_mut()).await;
            waits(soons.as_mut()).await;
            waits(flagged.as_mut()).await;
            drop(pooled);
            let first = comes(flagged.as_mut()).await;
            waits(soons.as_mut()).await;
            drop(first);
            let second = comes(soons.as_mut()).await;
            waits(lates.as_mut()).await;
            drop(second);
            let third = comes(lates.as_mut()).await;
            waits(others.as_mut()).await;
            drop(third);
            drop(comes(others.as_mut()).await);
        })
        .unwrap();
    }

    #[test]
    fn nearby_cameras_share_the_air_urgent_ones_pass_and_docked_ones_go_first() {
        link::tasks::current_thread(async {
            let permits = Permits::new(3, 1);
            let near = |class| Ask {
                nearby: true,
                ..ask(class, Time(0), 9)
            };
            let (a, b, docked) = (camera(1), camera(2), camera(3));
            let first = permits.take(&a, near(Class::Routine)).await;
            let second = permits.take(&b, near(Class::Routine));
            tokio::pin!(second);
            waits(second.as_mut()).await;
            let urgent = permits.take(&b, near(Class::Urgent)).await;
            let wired = permits.take(&docked, ask(Class::Routine, Time(0), 9)).await;
            drop(first);
            let second = comes(second.as_mut()).await;
            drop(urgent);
            assert_eq!(permits.lock().air, 0, "who passed gives nothing back");
            // Of equals the docked one goes first, though it came later.
            let more = permits.take(&docked, ask(Class::Routine, Time(0), 9)).await;
            let (last, wire) = (
                permits.take(&a, near(Class::Routine)),
                permits.take(&docked, ask(Class::Routine, Time(9), 9)),
            );
            tokio::pin!(last, wire);
            waits(last.as_mut()).await;
            waits(wire.as_mut()).await;
            drop(second);
            drop(comes(wire.as_mut()).await);
            drop(comes(last.as_mut()).await);
            drop((wired, more));
            let pool = permits.lock();
            assert_eq!((pool.free, pool.air), (3, 1));
        })
        .unwrap();
    }

    #[test]
    fn urgent_beyond_the_quota_waits_behind_urgent_within_it() {
        link::tasks::current_thread(async {
            let permits = Permits::new(1, 9);
            let (greedy, honest) = (camera(1), camera(2));
            let _joined = (permits.join(&greedy, None), permits.join(&honest, None));
            let quota = schedule::URGENT_BYTES_PER_DAY;
            drop(
                permits
                    .take(&greedy, ask(Class::Urgent, Time(0), quota))
                    .await,
            );
            assert!(!permits.has_urgent_quota(&greedy, Time(0)));
            assert!(permits.has_urgent_quota(&honest, Time(0)));
            let other = camera(3);
            let pooled = permits.take(&other, ask(Class::Routine, Time(0), 1)).await;
            // By bytes, and by age, the greedy one would be first.
            let mine = permits.take(&honest, ask(Class::Routine, Time(0), 2 * quota));
            let mine = mine.await;
            let theirs = permits.take(&greedy, ask(Class::Routine, Time(0), 1));
            let theirs = theirs.await;
            let beyond = permits.take(&greedy, ask(Class::Urgent, Time(0), 1));
            let within = permits.take(&honest, ask(Class::Urgent, Time(9), 1));
            tokio::pin!(beyond, within);
            waits(beyond.as_mut()).await;
            waits(within.as_mut()).await;
            drop(pooled);
            let first = comes(within.as_mut()).await;
            waits(beyond.as_mut()).await;
            drop((first, mine, theirs));
            drop(comes(beyond.as_mut()).await);
        })
        .unwrap();
    }
}
