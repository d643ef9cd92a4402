//! Kills. A seed decides who is killed in which order, how long after what, and how soon it starts again; at least
//! three times each of cameras, repeater and archive, with some aimed inside a segment on each hop and inside a
//! storage barrier. What was hit is decided by evidence ([`crate::trace`]); an aim that missed is tried again.
//!
//! When all is recorded and cameras may erase, each is killed once more while it does.
//!
//! A kill is SIGKILL: nothing is flushed, nobody is told. It is not a power cut: what the kernel had taken stays.
//! Footage is fed to the cameras no faster than the plan goes on ([`Pace`]), so that kills meet traffic.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use link::clock::Clock;
use link::random::Random;
use nix::sys::signal::Signal;

use crate::fleet::Fleet;
use crate::parties::{ARCHIVE, REPEATER, SEALERS, camera_name};
use crate::process::lock;
use crate::trace::{Aim, Inside, Trace, Victim};

/// Times that each kind of party is killed at least.
const LEAST: usize = 3;
/// How long an aim waits for its moment.
const MOMENT: Duration = Duration::from_secs(15);
/// How long the repeater may take to notice that a camera was killed.
const NOTICE: Duration = Duration::from_secs(20);
/// The longest that one camera is fed while a kill waits for its moment.
const TURN_SECONDS: u64 = 2;
/// A camera that starts is killed within so long: it opens its store and erases in it.
const ERASES_MICROS: u64 = 100_000;
/// Kills beyond the plan, for aims that missed.
const EXTRA: usize = 10;

/// Whom a kill is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Camera(usize),
    AnyCamera,
    Sealer,
    Repeater,
    Archive,
}

/// One kill of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Planned {
    who: Who,
    inside: Option<Inside>,
    before: Duration,
    after: Duration,
    down: Duration,
}

/// One kill that happened.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    /// Since the demo began to record.
    pub(crate) at: Duration,
    /// Who.
    pub(crate) who: String,
    /// In the middle of what, by evidence.
    pub(crate) inside: Vec<Inside>,
    /// How long it stayed down; none for a sealer, which is started at once.
    pub(crate) down: Option<Duration>,
}

/// How much of the footage may have been fed so far: cameras take turns, so that each turn is a few segments. A turn
/// ends with a kill, or after a while where a kill waits for its moment. What is left is fed when kills are over.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    state: Arc<Mutex<Fed>>,
    cameras: u64,
    turns: u64,
}

#[derive(Debug)]
struct Fed {
    turn: u64,
    since: Instant,
    over: bool,
}

impl Pace {
    /// A pace for the plan of so many cameras.
    pub(crate) fn new(cameras: usize, now: Instant) -> Pace {
        let planned = plan(cameras, &Random::seeded(0)).len() as u64;
        let state = Arc::new(Mutex::new(Fed {
            turn: 0,
            since: now,
            over: false,
        }));
        Pace {
            state,
            cameras: cameras as u64,
            turns: planned * 3 / 2 + EXTRA as u64,
        }
    }
    /// Bytes of the `all` of camera number `camera` that may have been fed.
    pub(crate) fn allowed(&self, camera: usize, all: u64, now: Instant) -> u64 {
        let fed = lock(&self.state);
        if fed.over {
            return all;
        }
        let taken = (fed.turn_at(now) + self.cameras - camera as u64) / self.cameras;
        let part = u128::from(all) * u128::from(taken * self.cameras) / u128::from(self.turns);
        u64::try_from(part).unwrap_or(all).min(all / 20 * 19)
    }
    /// The kills are over: all may be fed.
    pub(crate) fn finish(&self) {
        lock(&self.state).over = true;
    }
    fn kill_done(&self, now: Instant) {
        let mut fed = lock(&self.state);
        (fed.turn, fed.since) = (fed.turn_at(now) + 1, now);
    }
}

impl Fed {
    fn turn_at(&self, now: Instant) -> u64 {
        self.turn + now.saturating_duration_since(self.since).as_secs() / TURN_SECONDS
    }
}

/// Goes through the plan, then on until what was promised has happened.
pub(crate) struct Chaos<'a> {
    /// Who is killed.
    pub(crate) fleet: &'a mut Fleet,
    /// What the repeater is in the middle of.
    pub(crate) trace: &'a Trace,
    /// The seed's numbers.
    pub(crate) random: Random,
    /// Serials of the cameras.
    pub(crate) serials: &'a [String],
    /// Slows the footage.
    pub(crate) pace: &'a Pace,
    /// The clock, and when recording began.
    pub(crate) clock: Clock,
    /// When recording began.
    pub(crate) began: Instant,
}

impl Chaos<'_> {
    /// Kills by plan; what happened. `go_on` is asked between kills and ends everything by an error.
    pub(crate) fn run(mut self, go_on: &dyn Fn() -> Result<()>) -> Result<Vec<Kill>> {
        let mut kills = Vec::new();
        for planned in plan(self.serials.len(), &self.random) {
            go_on().with_context(|| format!("after these kills:\n{}", table(&kills)))?;
            self.step(&planned, &mut kills)?;
            self.pace.kill_done(self.clock.instant());
        }
        for _ in 0..EXTRA {
            go_on().with_context(|| format!("after these kills:\n{}", table(&kills)))?;
            let Some(who_inside) = missing(&kills) else {
                break;
            };
            let planned = draw(who_inside.0, who_inside.1, &self.random);
            self.step(&planned, &mut kills)?;
        }
        self.pace.finish();
        if let Some((who, inside)) = missing(&kills) {
            let inside = inside.map_or("at any moment", Inside::words);
            bail!(
                "{} kills, and {who:?} was still not killed often enough ({inside})\n{}",
                kills.len(),
                table(&kills)
            );
        }
        Ok(kills)
    }

    fn step(&mut self, planned: &Planned, kills: &mut Vec<Kill>) -> Result<()> {
        std::thread::sleep(planned.before);
        let fired = planned.inside.and_then(|inside| {
            let victim = match &planned.who {
                Who::Repeater => Victim::Named(REPEATER.to_owned()),
                Who::Archive => Victim::Named(ARCHIVE.to_owned()),
                _ => Victim::Camera,
            };
            self.trace.fire(
                Aim {
                    at: inside,
                    victim,
                    after: planned.after,
                },
                MOMENT,
            )
        });
        let name = match &fired {
            Some(fired) => fired.name.clone(),
            None => match self.plain_kill(&planned.who) {
                Some(name) => name,
                None => return Ok(()),
            },
        };
        let at = self.clock.instant().saturating_duration_since(self.began);
        let (mut inside, receives) = (Vec::new(), name == REPEATER || name == ARCHIVE);
        if receives {
            self.fleet.await_end(&name);
            inside = self.trace.left_open(&name);
        }
        let restarts = planned.who != Who::Sealer; // a sealer is started again by who feeds it
        if restarts {
            self.fleet.restart_killed(&name, planned.down)?;
        }
        if !receives {
            inside.extend(
                fired
                    .filter(|f| self.trace.broke(f, NOTICE))
                    .map(|f| f.inside()),
            );
        }
        kills.push(Kill {
            at,
            who: name,
            inside,
            down: restarts.then_some(planned.down),
        });
        Ok(())
    }

    /// Kills without an aim; none where no sealer is at work.
    fn plain_kill(&self, who: &Who) -> Option<String> {
        let registry = &self.fleet.launcher.registry;
        let pick =
            |n: usize| usize::try_from(self.random.u64() % n.max(1) as u64).expect("below n");
        let name = match who {
            Who::Camera(n) => camera_name(&self.serials[*n]),
            Who::AnyCamera => camera_name(&self.serials[pick(self.serials.len())]),
            Who::Repeater => REPEATER.to_owned(),
            Who::Archive => ARCHIVE.to_owned(),
            Who::Sealer => {
                let at_work = registry.running(SEALERS);
                at_work.get(pick(at_work.len()))?.clone()
            }
        };
        registry.signal(&name, Signal::SIGKILL).then_some(name)
    }
}

/// When all is recorded: each camera is killed where it stands, killed again while it starts and erases what has its
/// receipts, and started to stay.
pub(crate) fn while_they_erase(
    fleet: &mut Fleet,
    serials: &[String],
    random: &Random,
    since: &dyn Fn() -> Duration,
) -> Result<Vec<Kill>> {
    let mut kills = Vec::new();
    for serial in serials {
        let who = camera_name(serial);
        fleet.launcher.registry.signal(&who, Signal::SIGKILL);
        let kill = Kill {
            at: since(),
            who,
            inside: Vec::new(),
            down: Some(Duration::ZERO),
        };
        let after = Duration::from_micros(random.u64() % ERASES_MICROS);
        fleet.restart_killed_twice(&kill.who, after)?;
        let again = Kill {
            at: kill.at + after,
            ..kill.clone()
        };
        kills.extend([kill, again]);
    }
    Ok(kills)
}

/// The plan of a seed.
fn plan(cameras: usize, random: &Random) -> Vec<Planned> {
    use Inside::{Barrier, Pull, Put};
    let mut wanted = vec![
        (Who::Repeater, Some(Barrier)),
        (Who::Repeater, Some(Pull)),
        (Who::Repeater, Some(Put)),
        (Who::Repeater, None),
        (Who::Archive, Some(Put)),
        (Who::Archive, Some(Put)),
        (Who::Archive, None),
        (Who::AnyCamera, Some(Pull)),
        (Who::AnyCamera, Some(Pull)),
        (Who::Sealer, None),
        (Who::Sealer, None),
        (Who::Sealer, None),
    ];
    wanted.extend((0..cameras).map(|n| (Who::Camera(n), None)));
    let mut plan = Vec::new();
    while !wanted.is_empty() {
        let next = usize::try_from(random.u64() % wanted.len() as u64).expect("an index");
        let (who, inside) = wanted.swap_remove(next);
        plan.push(draw(who, inside, random));
    }
    plan
}

fn draw(who: Who, inside: Option<Inside>, random: &Random) -> Planned {
    let micros = |below: u64| Duration::from_micros(random.u64() % below);
    let (before, mut after, down) = (micros(600_000), micros(4_000), micros(800_000));
    if inside == Some(Inside::Barrier) {
        after /= 20; // a barrier is over in milliseconds
    }
    Planned {
        who,
        inside,
        before,
        after,
        down,
    }
}

/// What was promised and has not happened.
fn missing(kills: &[Kill]) -> Option<(Who, Option<Inside>)> {
    let count = |prefix: &str| kills.iter().filter(|k| k.who.starts_with(prefix)).count();
    let hit = |inside: Inside| kills.iter().any(|k| k.inside.contains(&inside));
    if !hit(Inside::Barrier) {
        return Some((Who::Repeater, Some(Inside::Barrier)));
    }
    for inside in [Inside::Pull, Inside::Put] {
        if !hit(inside) {
            return Some((Who::Repeater, Some(inside)));
        }
    }
    if count(&camera_name("")) < LEAST {
        return Some((Who::AnyCamera, None));
    }
    if count(REPEATER) < LEAST {
        return Some((Who::Repeater, None));
    }
    (count(ARCHIVE) < LEAST).then_some((Who::Archive, None))
}

/// The kills as a table.
pub(crate) fn table(kills: &[Kill]) -> String {
    let mut text = String::from(
        "  killed after  who                 in the middle of                     down\n",
    );
    for k in kills {
        let inside: Vec<&str> = k.inside.iter().map(|i| i.words()).collect();
        let inside = if inside.is_empty() {
            "-".to_owned()
        } else {
            inside.join(" and ")
        };
        let down = k
            .down
            .map_or_else(|| "-".to_owned(), |d| format!("{:.2} s", d.as_secs_f64()));
        text.push_str(&format!(
            "  {:>10.2} s  {:<18}  {:<35}  {down}\n",
            k.at.as_secs_f64(),
            k.who,
            inside
        ));
    }
    text
}

/// A chaos run needs footage that takes several segments.
pub(crate) fn enough(bytes: u64) -> Result<()> {
    const LEAST_BYTES: u64 = 64 << 20;
    ensure!(
        bytes >= LEAST_BYTES,
        "--chaos needs at least 64 MiB of footage, so that kills meet traffic; there are {bytes} bytes"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_plan_and_every_plan_holds_the_minimum() {
        for seed in 1..=10 {
            let plans = [seed, seed, seed + 100].map(|s| plan(4, &Random::seeded(s)));
            assert_eq!(plans[0], plans[1]);
            assert_ne!(plans[0], plans[2]);
            let count = |f: fn(&Who) -> bool| plans[0].iter().filter(|p| f(&p.who)).count();
            assert!(count(|w| matches!(w, Who::Camera(_) | Who::AnyCamera)) >= LEAST);
            assert!(
                count(|w| *w == Who::Repeater) >= LEAST && count(|w| *w == Who::Archive) >= LEAST
            );
        }
    }

    #[test]
    fn footage_is_fed_with_the_kills_and_all_of_it_after_them() {
        let began = Clock::system().instant();
        let pace = Pace::new(4, began);
        let later = |s| began + Duration::from_secs(s);
        let first = pace.allowed(0, 1_000_000, began);
        assert!(
            first > 0 && pace.allowed(1, 1_000_000, began) == 0,
            "the first camera begins"
        );
        assert_eq!(pace.allowed(1, 1_000_000, later(TURN_SECONDS)), first);
        pace.kill_done(later(TURN_SECONDS));
        assert_eq!(pace.allowed(2, 1_000_000, later(TURN_SECONDS)), first);
        assert!(pace.allowed(3, 1_000_000, later(100_000)) <= 950_000);
        pace.finish();
        assert_eq!(pace.allowed(3, 1_000_000, began), 1_000_000);
    }
}
