//! The storage thread: the one owner of the spool, and the place where a segment becomes Held.
//!
//! Both hops send it commands over one bounded queue. Bytes of all cameras meet here; finished segments,
//! receipts and whatever else must be durable share one barrier ([`Spool::commit`]), at 16 MiB or after
//! [`limits::GROUP_LINGER`]. Only after the barrier is anyone answered: [`Storage::finish`] and
//! [`Storage::tell`] resolve when what they brought is durable, [`Storage::ask`] at once.
//!
//! A failed sync is never believed afterwards: the spool marks the boot suspect, this thread says so in
//! [`Storage::fatal`] and ends, and the process exits; the next start re-reads everything.

mod thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;
use link::clock::Clock;
use protocol::ids::{Digest, Time};
use protocol::keylist::KeyList;
use spool::{Committed, Reaction, Spool, SpoolError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tracing::{error, warn};

use crate::alarms::Alarms;
use crate::limits;
use crate::metrics::Metrics;
use crate::notices::Notices;
use thread::Thread;

/// Why the storage thread did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The thread has ended; the process is about to.
    #[error("the storage thread has ended")]
    Gone,
    /// The spool refuses.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The thread was too busy for [`limits::STORAGE_WAIT`].
    #[error("the disk is too slow: nothing was taken for {} s", limits::STORAGE_WAIT.as_secs())]
    Slow,
}

/// What became of a segment whose bytes all came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// Its bytes are durable and match; `held`: so is its header, it is Held.
    Durable {
        /// Whether it became Held in this barrier.
        held: bool,
    },
    /// A resumed prefix did not fit: pull once more from 0.
    Again,
    /// Its bytes are not what the manifest names, from 0: the camera's fault.
    Refused,
    /// The stream ended early; what came is kept.
    Incomplete,
}

/// One segment being written. Dropping it without [`Storage::finish`] suspends it: what came is kept.
#[derive(Debug)]
pub struct Slot {
    id: u64,
    offset: u64,
    remaining: u64,
    storage: Storage,
    ended: bool,
}

impl Slot {
    /// Ask the camera from this byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
    /// Bytes still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.ended {
            // The queue has a place for every slot's suspension beside those that need a permit.
            let _ = self
                .storage
                .queue
                .try_send(Command::Suspend { id: self.id });
        }
    }
}

type Job = Box<dyn FnOnce(&mut Spool, Time) -> Done + Send>;
/// A slot's offset and bytes to come.
type Begun = Result<(u64, u64), SpoolError>;
type Later = Box<dyn FnOnce(&Committed) + Send>;

/// What a job leaves behind.
struct Done {
    fatal: Option<String>,
    after_barrier: Option<Later>,
}

enum Command {
    Job(Job, OwnedSemaphorePermit),
    Begin {
        id: u64,
        digest: Digest,
        reply: oneshot::Sender<Begun>,
        permit: OwnedSemaphorePermit,
    },
    Write {
        id: u64,
        bytes: Bytes,
        permit: OwnedSemaphorePermit,
    },
    Finish {
        id: u64,
        reply: oneshot::Sender<Result<Pulled, SpoolError>>,
        permit: OwnedSemaphorePermit,
    },
    Suspend {
        id: u64,
    },
    Stop,
}

/// The hops' handle. Clones are the same thread.
#[derive(Clone, Debug)]
pub struct Storage {
    queue: SyncSender<Command>,
    slots: Arc<AtomicU64>,
    permits: Arc<Semaphore>,
    keys: watch::Receiver<KeyList>,
    fatal: watch::Receiver<Option<String>>,
}

impl Storage {
    /// Starts the thread, which takes the spool.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(
        spool: Spool,
        clock: Clock,
        metrics: Metrics,
        alarms: Alarms,
        notices: Notices,
    ) -> std::io::Result<(Storage, std::thread::JoinHandle<()>)> {
        // Suspensions (one for each slot) and the stop come without a permit: they have places of their own.
        let pulls = limits::PULLS_IN_FLIGHT + limits::PULLS_RESERVED;
        let (queue, commands) = sync_channel(limits::STORAGE_QUEUE + pulls + 8);
        let (keys_out, keys) = watch::channel(spool.key_list().clone());
        let (fatal_out, fatal) = watch::channel(None);
        let thread = Thread::new(spool, clock, metrics, alarms, notices, keys_out);
        let permits = Arc::new(Semaphore::new(limits::STORAGE_QUEUE));
        let handle = std::thread::Builder::new()
            .name("storage".into())
            .spawn(move || {
                if let Err(why) = thread.run(&commands) {
                    error!("storage stops: {why}");
                    fatal_out.send_replace(Some(why));
                }
            })?;
        Ok((
            Storage {
                queue,
                slots: Arc::default(),
                permits,
                keys,
                fatal,
            },
            handle,
        ))
    }

    /// The newest key list known.
    #[must_use]
    pub fn keys(&self) -> watch::Receiver<KeyList> {
        self.keys.clone()
    }

    /// Set when the thread ended by an error; the process must exit then.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.clone()
    }

    /// Runs `job` on the spool and answers at once: for looking, and for what need not be durable yet.
    ///
    /// # Errors
    /// [`StorageError::Gone`] and what the spool says.
    pub async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Spool, Time) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |spool, now| {
            let result = job(spool, now);
            let fatal = result.as_ref().err().and_then(fatal);
            let _ = reply.send(result);
            Done {
                fatal,
                after_barrier: None,
            }
        });
        self.send_job(job).await?;
        Ok(answer.await.map_err(|_| StorageError::Gone)??)
    }

    /// Runs `job` on the spool without waiting for it: what is asked later sees what it did. Its error is logged.
    ///
    /// # Errors
    /// [`StorageError::Gone`].
    pub async fn post(
        &self,
        job: impl FnOnce(&mut Spool, Time) -> Result<(), SpoolError> + Send + 'static,
    ) -> Result<(), StorageError> {
        let job: Job = Box::new(move |spool, now| {
            let result = job(spool, now);
            if let Err(e) = &result {
                warn!("storage: {e}");
            }
            Done {
                fatal: result.as_ref().err().and_then(fatal),
                after_barrier: None,
            }
        });
        self.send_job(job).await
    }

    /// Runs `job` on the spool and answers after the barrier that made it durable.
    ///
    /// # Errors
    /// [`StorageError::Gone`] and what the spool says.
    pub async fn tell<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Spool, Time) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |spool, now| match job(spool, now) {
            Ok(value) => {
                let later: Later = Box::new(move |_| drop(reply.send(Ok(value))));
                Done {
                    fatal: None,
                    after_barrier: Some(later),
                }
            }
            Err(e) => {
                let fatal = fatal(&e);
                let _ = reply.send(Err(e));
                Done {
                    fatal,
                    after_barrier: None,
                }
            }
        });
        self.send_job(job).await?;
        Ok(answer.await.map_err(|_| StorageError::Gone)??)
    }

    /// Reserves room for a segment and finds the prefix that is kept of it.
    ///
    /// # Errors
    /// What the spool says: no space, or not wanted any more.
    pub async fn begin(&self, digest: Digest) -> Result<Slot, StorageError> {
        let permit = self.permit().await?;
        let (reply, answer) = oneshot::channel();
        let id = self.slots.fetch_add(1, Ordering::Relaxed);
        self.send(Command::Begin {
            id,
            digest,
            reply,
            permit,
        })?;
        // From here on, dropping this future suspends the slot: one without an owner would keep its segment from
        // ever being pulled.
        let mut slot = Slot {
            id,
            offset: 0,
            remaining: 0,
            storage: self.clone(),
            ended: false,
        };
        (slot.offset, slot.remaining) = answer.await.map_err(|_| StorageError::Gone)??;
        Ok(slot)
    }

    /// Gives the next bytes of a segment. Waits for room in the queue, at most [`limits::STORAGE_WAIT`]: a
    /// failed write is told by [`Storage::finish`].
    ///
    /// # Errors
    /// [`StorageError::Slow`] and [`StorageError::Gone`].
    pub async fn write(&self, slot: &Slot, bytes: Bytes) -> Result<(), StorageError> {
        let permit = tokio::time::timeout(limits::STORAGE_WAIT, self.permit())
            .await
            .map_err(|_| StorageError::Slow)??;
        self.send(Command::Write {
            id: slot.id,
            bytes,
            permit,
        })
    }

    /// All bytes came: checks them, and answers after the barrier.
    ///
    /// # Errors
    /// What the spool says of these bytes or of writing them.
    pub async fn finish(&self, mut slot: Slot) -> Result<Pulled, StorageError> {
        let permit = self.permit().await?;
        let (reply, answer) = oneshot::channel();
        slot.ended = true;
        self.send(Command::Finish {
            id: slot.id,
            reply,
            permit,
        })?;
        Ok(answer.await.map_err(|_| StorageError::Gone)??)
    }

    /// Ends the thread after a last barrier.
    pub fn stop(&self) {
        let _ = self.queue.try_send(Command::Stop);
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, StorageError> {
        Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| StorageError::Gone)
    }

    async fn send_job(&self, job: Job) -> Result<(), StorageError> {
        let permit = self.permit().await?;
        self.send(Command::Job(job, permit))
    }

    fn send(&self, command: Command) -> Result<(), StorageError> {
        self.queue.try_send(command).map_err(|_| StorageError::Gone)
    }
}

fn fatal(e: &SpoolError) -> Option<String> {
    matches!(e.reaction(), Reaction::Stop).then(|| e.to_string())
}
