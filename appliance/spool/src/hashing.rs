//! Hashing beside the writing: SHA-256 of a segment costs the storage thread as much as all else it does for it
//! (measured: 0.5 of 1.1 CPU-seconds a GiB), so a second thread takes the pieces into their hashes, in the order in which they
//! were written, while the next ones are written.
//!
//! Invariants: pieces of one segment are taken in their order (one queue, one thread); nothing is said of a
//! segment before [`Running::settled`] has waited for all of its pieces; no more than [`limits::HASH_PIECES`]
//! pieces wait, beyond them the writing does. A segment below [`limits::HASH_BESIDE_BYTES`] is hashed
//! where it is written: waking a thread would cost more.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use protocol::suite::Hasher;

use crate::error::SpoolError;
use crate::limits;

/// The way to the thread. It ends with the last of these.
#[derive(Clone)]
pub(crate) struct HashThread {
    jobs: SyncSender<Job>,
}

/// The hash of a segment that is being written.
pub(crate) enum Running {
    /// A small one: hashed by who writes it.
    Here(Hasher),
    /// Hashed by the thread, which alone locks it while pieces wait.
    Beside(Arc<Mutex<Hasher>>, HashThread),
}

enum Job {
    Take(Arc<Mutex<Hasher>>, Bytes),
    /// All that came before is taken.
    Settle(SyncSender<()>),
}

impl HashThread {
    /// Starts it.
    pub(crate) fn start() -> io::Result<HashThread> {
        let (jobs, queue) = sync_channel(limits::HASH_PIECES);
        std::thread::Builder::new()
            .name("spool-hash".into())
            .spawn(move || run(&queue))?;
        Ok(HashThread { jobs })
    }

    /// Goes on with `hasher`, for a segment of `length` bytes.
    pub(crate) fn hash(&self, hasher: Hasher, length: u32) -> Running {
        if length < limits::HASH_BESIDE_BYTES {
            Running::Here(hasher)
        } else {
            Running::Beside(Arc::new(Mutex::new(hasher)), self.clone())
        }
    }

    fn give(&self, job: Job) -> Result<(), SpoolError> {
        self.jobs.send(job).map_err(|_| SpoolError::Hashing)
    }
}

impl Running {
    /// Takes the next bytes, perhaps later.
    pub(crate) fn take(&mut self, bytes: Bytes) -> Result<(), SpoolError> {
        match self {
            Running::Here(hasher) => {
                hasher.update(&bytes);
                Ok(())
            }
            Running::Beside(hasher, thread) => thread.give(Job::Take(Arc::clone(hasher), bytes)),
        }
    }

    /// The hash of all bytes that it was given. Waits until they are taken: at most for the queue's length.
    pub(crate) fn settled(self) -> Result<Hasher, SpoolError> {
        match self {
            Running::Here(hasher) => Ok(hasher),
            Running::Beside(hasher, thread) => {
                let (done, wait) = sync_channel(1);
                thread.give(Job::Settle(done))?;
                wait.recv().map_err(|_| SpoolError::Hashing)?;
                hasher
                    .lock()
                    .map(|h| h.clone())
                    .map_err(|_| SpoolError::Hashing)
            }
        }
    }
}

fn run(queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        match job {
            // Poisoned by whom? By this thread alone, which has ended then.
            Job::Take(hasher, bytes) => match hasher.lock() {
                Ok(mut hasher) => hasher.update(&bytes),
                Err(_) => return,
            },
            // Who asked has gone: nobody is waiting.
            Job::Settle(done) => drop(done.send(())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use bytes::Bytes;
    use protocol::suite::{Hasher, sha256};

    use super::{HashThread, Running};
    use crate::limits::HASH_BESIDE_BYTES;

    #[test]
    fn pieces_of_segments_in_turn_are_hashed_in_their_order() {
        let thread = HashThread::start().unwrap();
        let mut running: Vec<Running> = (0..5)
            .map(|n| thread.hash(Hasher::new(), HASH_BESIDE_BYTES - n % 2))
            .collect();
        let mut whole = vec![Vec::new(); running.len()];
        for step in 0..100_u8 {
            for (n, running) in running.iter_mut().enumerate() {
                let piece = vec![step ^ u8::try_from(n).unwrap(); 1000 + usize::from(step) * 97];
                whole[n].extend_from_slice(&piece);
                running.take(Bytes::from(piece)).unwrap();
            }
        }
        for (running, bytes) in running.into_iter().zip(whole) {
            assert_eq!(running.settled().unwrap().finish(), sha256(&bytes));
        }
    }
}
