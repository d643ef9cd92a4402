//! Structured concurrency: every task is spawned here, named, cancelled and awaited with a deadline.
//!
//! A [`Tasks`] is a cancellation token and a tracker. A child is cancelled with its parent and can be
//! cancelled alone; the parent's shutdown waits for the child's tasks too. A task that does not end in time
//! is named in the log. A panic anywhere aborts the process ([`abort_on_panic`]): state that a panic left half
//! changed is never used again, and the supervisor restarts the program from what is durable.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{error, info, warn};

use crate::limits;

/// A group of tasks. Clones are the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    ancestors: Vec<TaskTracker>,
    names: Names,
}

type Names = Arc<Mutex<BTreeMap<&'static str, usize>>>;

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// A group within this one.
    #[must_use]
    pub fn child(&self) -> Self {
        let mut ancestors = self.ancestors.clone();
        ancestors.push(self.tracker.clone());
        let names = Arc::clone(&self.names);
        Tasks {
            token: self.token.child_token(),
            tracker: TaskTracker::new(),
            ancestors,
            names,
        }
    }
    /// Starts a task. It should end soon after [`Tasks::cancelled`] resolves.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let running = Running::new(name, &self.names, &self.ancestors);
        self.tracker.spawn(async move {
            let _running = running;
            future.await
        })
    }
    /// Asks every task of the group, and of its children, to end.
    pub fn cancel(&self) {
        self.token.cancel();
    }
    /// Resolves when the group is asked to end.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }
    /// Whether the group was asked to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }
    /// The group's token, for a `select!` in a part that spawns nothing.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
    /// Cancels the group and waits for its tasks. False where some did not end in time; the log names them.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.cancel();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok()
        {
            return true;
        }
        let names = self
            .names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        warn!(
            ?names,
            ?deadline,
            "tasks did not end in time and are left behind"
        );
        false
    }
}

/// Counts a task by name and holds the ancestors' trackers open while it lives.
struct Running {
    name: &'static str,
    names: Names,
    _ancestors: Vec<TaskTrackerToken>,
}

impl Running {
    fn new(name: &'static str, names: &Names, ancestors: &[TaskTracker]) -> Self {
        *names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name)
            .or_default() += 1;
        let ancestors = ancestors.iter().map(TaskTracker::token).collect();
        Running {
            name,
            names: Arc::clone(names),
            _ancestors: ancestors,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = names.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(self.name);
            }
        }
    }
}

/// Makes every panic end the process after it was logged. Each program's `main` calls it first; builds that
/// already abort on panic do the same through the profile.
pub fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        error!(panic = %info, "a panic ends the process");
        std::process::abort();
    }));
}

/// Exit code of a program that was told to stop and could not in time (sysexits EX_TEMPFAIL): the next start
/// mends what was left.
const NOT_IN_TIME: i32 = 75;

/// Watches for SIGTERM and SIGINT from when this returns; what it returns resolves at the first, giving its name. From then
/// on a second signal ends the process at once (143 or 130), and so does the time `within` which it should have ended by
/// itself (75), whatever its other threads wait for: the watch is a thread of its own and outlives the caller's runtime.
///
/// # Errors
/// Where the kernel refuses a handler or a thread.
pub fn stop_signal(
    within: Duration,
) -> io::Result<impl Future<Output = &'static str> + Send + 'static> {
    let (watched, watching) = std::sync::mpsc::sync_channel(1);
    let (first, told) = oneshot::channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(
            move || match current_thread(watch_signals(watched, first, within)) {
                Ok(code) => std::process::exit(code),
                Err(e) => error!("signals are not watched: {e}"),
            },
        )?;
    let ended = || io::Error::other("the signals' thread ended");
    watching.recv().map_err(|_| ended())??;
    Ok(async move {
        match told.await {
            Ok(name) => name,
            Err(_) => std::future::pending().await, // it ends the process itself
        }
    })
}

/// The exit code, once the process has to end at once.
async fn watch_signals(
    watched: std::sync::mpsc::SyncSender<io::Result<()>>,
    first: oneshot::Sender<&'static str>,
    within: Duration,
) -> i32 {
    let signals = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(e) => {
            let _ = watched.send(Err(e));
            return std::future::pending().await;
        }
    };
    let _ = watched.send(Ok(()));
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    info!("{name}: stopping; a second signal exits at once");
    // Nobody waits any more where the program is ending already: its time counts from here all the same.
    let _ = first.send(name);
    tokio::select! {
        _ = terminate.recv() => { warn!("second signal: exiting at once"); 143 }
        _ = interrupt.recv() => { warn!("second signal: exiting at once"); 130 }
        () = tokio::time::sleep(within) => {
            error!("not stopped within {within:?}: exiting; the next start mends what was left");
            NOT_IN_TIME
        }
    }
}

/// Runs `future` on a new current-thread runtime: the house's one kind, since a multi-thread runtime costs QUIC
/// half as much CPU again.
///
/// # Errors
/// Where the runtime cannot be made.
pub fn current_thread<F: Future>(future: F) -> io::Result<F::Output> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Blocking work is reading and syncing files: more threads than segments in flight only cost memory.
    builder
        .enable_all()
        .max_blocking_threads(limits::BLOCKING_THREADS);
    Ok(builder.build()?.block_on(future))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_parent_ends_and_awaits_its_children_not_the_reverse() {
        current_thread(async {
            let parent = Tasks::new();
            let child = parent.child();
            let token = child.token();
            let ended = child.spawn("child", async move { token.cancelled().await });
            let sibling = parent.child();
            sibling.cancel();
            assert!(!parent.is_cancelled() && !child.is_cancelled());
            assert!(parent.shutdown(Duration::from_secs(5)).await);
            assert!(ended.is_finished());
        })
        .unwrap();
    }

    #[test]
    fn a_task_that_does_not_end_costs_the_deadline_only() {
        current_thread(async {
            let tasks = Tasks::new();
            tasks.child().spawn("deaf", std::future::pending::<()>());
            assert!(!tasks.shutdown(Duration::from_millis(20)).await);
            assert_eq!(tasks.names.lock().unwrap().get("deaf"), Some(&1));
        })
        .unwrap();
    }
}
