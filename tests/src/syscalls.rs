//! The suite of failing system calls: a repeater at work, or starting, in which one call on its spool fails, or is the last that
//! the process makes; it is started again as systemd would, and everything must arrive, be released and be accounted for.
//!
//! Reading order: [`trace`] is strace, which lets a call fail and says which it was; [`short`] lets one move half of its bytes,
//! which strace cannot; [`scene`] is a station that is put back to where it was before each case; [`check`] is what must be true
//! after it. Here they are put together. Program `syscalls`.
//!
//! The cases are not written down: each scene is run once without a fault, and every call on the spool that it makes is a case
//! for each fault. What it cannot do: a call that strace lets fail fails without having had its effect.

pub mod check;
pub mod scene;
pub mod short;
pub mod trace;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use link::random::Random;

use crate::chance::shuffle;
use crate::wait::now;
use scene::{Scene, Stage};
use trace::Fault;

/// Stations side by side.
const WORKERS: usize = 2;

/// One call that fails.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// What the repeater is in the middle of.
    pub scene: Scene,
    /// The call's name.
    pub call: String,
    /// How it fails.
    pub fault: Fault,
    /// Which of these calls on the spool, counted from 1 in each thread.
    pub n: u32,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scene, call, fault, n) = (self.scene, &self.call, self.fault, self.n);
        write!(f, "{scene:?}/{call}/{fault:?}/{n}")
    }
}

impl std::str::FromStr for Case {
    type Err = String;
    fn from_str(text: &str) -> Result<Case, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [scene, call, fault, n] = parts[..] else {
            return Err("SCENE/CALL/FAULT/N".into());
        };
        let named = |list: &[Scene]| list.iter().find(|s| format!("{s:?}") == scene).copied();
        let fault = Fault::ALL.into_iter().find(|f| format!("{f:?}") == fault);
        Ok(Case {
            scene: named(&Scene::ALL).ok_or("no such scene")?,
            call: call.to_owned(),
            fault: fault.ok_or("no such fault")?,
            n: n.parse().map_err(|e| format!("{n}: {e}"))?,
        })
    }
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Went {
    /// The call failed, and everything was as it must be.
    Well,
    /// The scene did not come to this call.
    NotReached,
    /// What was wrong.
    Wrong(String),
}

/// What the cases showed.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cases in which the call failed.
    pub tried: usize,
    /// Cases that did not come to their call.
    pub not_reached: usize,
    /// Cases there are.
    pub of: usize,
    /// Cases after which something was wrong, and what.
    pub broken: Vec<(Case, String)>,
}

/// Finds all cases and looks at them in an order that the seed decides, until all were looked at or `until`.
///
/// # Panics
/// Where a scene does not go well without a fault.
#[must_use]
pub fn survey(seed: u64, until: Option<Instant>) -> Outcome {
    let mut stages: Vec<Stage> = (0..WORKERS).map(|_| Stage::new()).collect();
    let counted = stages[0].count();
    for (scene, calls) in &counted {
        println!("syscalls: {scene:?}: {calls:?}");
    }
    for other in &mut stages[1..] {
        other.count();
    }
    let mut all = cases(&counted);
    let of = all.len();
    let random = Random::seeded(seed);
    shuffle(&mut all, &random);
    let (tried, not_reached) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (next, broken) = (Mutex::new(all.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for stage in &mut stages {
            scope.spawn(|| {
                while until.is_none_or(|until| now() < until) {
                    let Some(case) = next.lock().unwrap().next() else {
                        return;
                    };
                    match look(stage, &case) {
                        Went::Well => tried.fetch_add(1, Ordering::Relaxed),
                        Went::NotReached => not_reached.fetch_add(1, Ordering::Relaxed),
                        Went::Wrong(what) => {
                            println!("syscalls: {case}: {what}");
                            broken.lock().unwrap().push((case, what));
                            tried.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
    });
    Outcome {
        tried: tried.into_inner(),
        not_reached: not_reached.into_inner(),
        of,
        broken: broken.into_inner().unwrap(),
    }
}

/// Looks at one case.
#[must_use]
pub fn look(stage: &mut Stage, case: &Case) -> Went {
    let looked = catch_unwind(AssertUnwindSafe(|| stage.play(case)));
    looked.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Went::Wrong(format!(
            "{}\n{}",
            text.unwrap_or_default(),
            stage.last_words(case.scene)
        ))
    })
}

/// How often each scene makes each call.
pub type Counted = BTreeMap<Scene, BTreeMap<String, u32>>;

fn cases(counted: &Counted) -> Vec<Case> {
    let mut found = Vec::new();
    for (scene, calls) in counted {
        for (call, most) in calls {
            let faults = || Fault::ALL.into_iter().filter(|fault| fault.fits(call));
            for (n, fault) in (1..=*most).flat_map(|n| faults().map(move |fault| (n, fault))) {
                found.push(Case {
                    scene: *scene,
                    call: call.clone(),
                    fault,
                    n,
                });
            }
        }
    }
    found
}
