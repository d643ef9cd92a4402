//! A thread that looks after sled's `flush`. Where a write of its own threads fails, sled 0.34.7 does not always wake who waits for
//! it, who then waits for ever: any other flush finds the error and wakes them all. So while a flush takes long, another is begun
//! now and then, which changes nothing where all is well.
//!
//! It decides nothing: what went wrong is what the flush says that was woken.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// First pause before another flush is begun; it doubles, since each may come to wait, too.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// A database and the thread that looks after it.
pub(super) struct Watched {
    /// None only while it is closed.
    db: Option<sled::Db>,
    flushing: Option<SyncSender<bool>>,
    watch: Option<JoinHandle<()>>,
}

impl Watched {
    pub(super) fn new(db: sled::Db) -> std::io::Result<Watched> {
        let (flushing, begun) = sync_channel(2);
        let of = db.clone();
        let watch = std::thread::Builder::new()
            .name("ledger-watch".into())
            .spawn(move || watch(&of, &begun))?;
        Ok(Watched {
            db: Some(db),
            flushing: Some(flushing),
            watch: Some(watch),
        })
    }

    pub(super) fn db(&self) -> &sled::Db {
        self.db.as_ref().expect("it is closed only when it goes")
    }

    /// Flushes; it returns, whatever becomes of sled's threads.
    pub(super) fn flush(&self) -> sled::Result<usize> {
        self.tell(true);
        let done = self.db().flush();
        self.tell(false);
        done
    }

    fn tell(&self, flushing: bool) {
        if let Some(watch) = &self.flushing {
            let _ = watch.send(flushing); // without it a flush may take long, and is no less true
        }
    }
}

impl Drop for Watched {
    /// The thread ends first: the last handle closes the database, and that is this one.
    fn drop(&mut self) {
        drop(self.flushing.take());
        let _ = self.watch.take().map(JoinHandle::join);
        drop(self.db.take());
    }
}

fn watch(db: &sled::Db, begun: &Receiver<bool>) {
    let mut others: Vec<JoinHandle<()>> = Vec::new();
    while let Ok(flushing) = begun.recv() {
        let mut pause = PAUSE;
        let mut over = !flushing;
        while !over {
            match begun.recv_timeout(pause) {
                Ok(flushing) => over = !flushing,
                Err(RecvTimeoutError::Disconnected) => over = true,
                Err(RecvTimeoutError::Timeout) => {
                    let of = db.clone();
                    let other = std::thread::Builder::new().spawn(move || drop(of.flush()));
                    others.extend(other); // where there is no thread, the next pause is not far
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
        // They have woken with the flush that they looked after.
        for other in others.drain(..) {
            let _ = other.join();
        }
    }
}
