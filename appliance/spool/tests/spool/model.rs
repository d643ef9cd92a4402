//! Random histories against a model: whatever is told, pulled, broken off, committed, receipted, released, reclaimed,
//! damaged, forgotten, told again, dropped and opened again, the spool says what a map of stages says. After each step stages,
//! bytes, room, what is asked of the camera, what goes to each site and the receipts that are due are compared (`agree`).
//!
//! A history is a failure's own story: it is shrunk to the fewest steps. A million of them (at 40 a second seven hours):
//! `PROPTEST_CASES=1000000 cargo test --release --workspace --test spool -- --exact model::histories`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, Sequential, StateMachineTest};
use protocol::ids::{CameraId, Digest, Range, StoreEpoch, Time};
use protocol::manifest::Class;
use protocol::pressure::Watermarks;
use protocol::receipt::Receipt;
use spool::{Fault, Faults, Finished, ReceiptOutcome, Spool, SpoolError};

use crate::world::*;

mod agree;
mod barrier;
mod expected;
mod over;

use expected::{Answer, Item, LENGTHS, Model, Paper, RECORDINGS, TWICE, URGENT, items_of};
use over::ending;

const SITES: [&str; 2] = ["daejeon", "gwangju"];
/// Room for one, two or four of the recordings, so that pulling stops and reclaim has work; and for everything.
const CAPACITIES: [u64; 4] = [24 << 10, 40 << 10, 72 << 10, 1 << 30];
const STEPS: std::ops::Range<usize> = 1..60;

/// One step of a history.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// What was forgotten is committed at once when it is told again: a rebuild before that takes a file begun since for the
    /// copy that the logbook knows.
    Announce(usize),
    /// All of a recording, header first.
    Pull(usize),
    PullOne(Item),
    /// The camera sends other bytes.
    Lie(Item),
    /// So many 256ths of what is missing come, then the connection breaks.
    Break(Item, u8),
    Commit,
    Receipt(Paper),
    /// The camera has the receipts of the first so many items, one more than there are: of the manifest, too.
    Release(usize, usize),
    /// A key list that voids every store's epoch.
    Void,
    Inventory {
        mask: u8,
        receipted: bool,
    },
    Reclaim,
    /// A day.
    Wait,
    /// The process dies and is started again.
    Crash,
    /// The same, and the ledger is derived anew.
    Recover,
    /// A byte of a copy is flipped, and a site says so.
    Damage(Item),
    /// A copy is gone when the process starts again.
    Lose(Item),
    /// The process starts again on a disk that has no room for new files, or has it again.
    Disk(bool),
    /// A recording goes all its way, and its camera erases it.
    End(usize),
}

/// The next step, of what is there more often than of what is not: a history of calls in vain finds little.
fn step(model: &Model) -> BoxedStrategy<Step> {
    let one_of = |some: Vec<usize>| {
        let all = (0..RECORDINGS).collect();
        prop::sample::select(if some.is_empty() { all } else { some })
    };
    let new = one_of(
        (0..RECORDINGS)
            .filter(|n| !model.announced.contains(n))
            .collect(),
    );
    let wanted = one_of(model.to_pull().into_iter().map(|item| item.0).collect());
    let known = one_of(model.announced.iter().copied().collect());
    let item = (known.clone(), 0..LENGTHS.len());
    let to_pull = (wanted.clone(), 0..LENGTHS.len());
    let paper = (known.clone(), 0..SITES.len(), any::<bool>(), 0..8u8);
    let paper = paper.prop_map(|(recording, site, part, old)| {
        // The epoch is filled in when it is known; one of eight is of a store that is void.
        let epoch = u8::from(old == 0);
        Step::Receipt(Paper {
            recording,
            site,
            epoch,
            part,
        })
    });
    let inventory = (any::<u8>(), any::<bool>());
    prop_oneof![
        6 => new.prop_map(Step::Announce),
        12 => wanted.prop_map(Step::Pull),
        3 => to_pull.clone().prop_map(Step::PullOne),
        2 => to_pull.clone().prop_map(Step::Lie),
        4 => (to_pull, any::<u8>()).prop_map(|(item, part)| Step::Break(item, part)),
        8 => Just(Step::Commit),
        8 => paper,
        4 => (known.clone(), 1..=LENGTHS.len() + 1).prop_map(|(n, count)| Step::Release(n, count)),
        8 => known.prop_map(Step::End),
        1 => Just(Step::Void),
        3 => inventory.prop_map(|(mask, receipted)| Step::Inventory { mask, receipted }),
        6 => Just(Step::Reclaim),
        1 => Just(Step::Wait),
        2 => Just(Step::Crash),
        1 => Just(Step::Recover),
        2 => item.clone().prop_map(Step::Damage),
        1 => item.prop_map(Step::Lose),
        1 + 3 * u32::from(model.full) => Just(Step::Disk(!model.full)),
    ]
    .boxed()
}

struct Reference;

impl ReferenceStateMachine for Reference {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        let model = |capacity| {
            let digests: BTreeMap<Digest, Item> = (0..RECORDINGS)
                .flat_map(items_of)
                .map(|item| (footage(item.0).digests()[item.1], item))
                .collect();
            let order = digests.into_values().zip(0..).collect();
            Model::new(marks(capacity), capacity, order)
        };
        prop::sample::select(&CAPACITIES[..])
            .prop_map(model)
            .boxed()
    }
    fn transitions(model: &Model) -> BoxedStrategy<Step> {
        step(model)
    }
    fn apply(mut model: Model, step: &Step) -> Model {
        model.apply(&in_epoch(*step, model.epoch));
        model
    }
}

/// The step as it is in this epoch: receipts are signed when they are asked for.
fn in_epoch(step: Step, now: u8) -> Step {
    match step {
        Step::Receipt(paper) => Step::Receipt(Paper {
            epoch: now - paper.epoch.min(now - 1),
            ..paper
        }),
        other => other,
    }
}
/// Ascending numbers as ranges, neighbours joined.
fn ranges(numbers: impl IntoIterator<Item = usize>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for n in numbers.into_iter().map(|n| n as u64) {
        match ranges.last_mut() {
            Some(last) if last.to + 1 == n => last.to = n,
            _ => ranges.push(Range { from: n, to: n }),
        }
    }
    ranges
}
fn marks(capacity: u64) -> Watermarks {
    spool::Options::new("".into(), capacity, "".into(), [0; 16]).marks
}
fn footage(n: usize) -> Footage {
    let id = CameraId {
        serial: "C1".parse().unwrap(),
        incarnation: protocol::ids::Incarnation([1; 16]),
    };
    let lengths = LENGTHS.map(|l| l as usize);
    Footage {
        class: if n == URGENT {
            Class::Urgent
        } else {
            Class::Routine
        },
        k: if n == TWICE { 2 } else { 1 },
        ..footage_of(&id, n as u64, &lengths[1..])
    }
}

/// The spool under test, on a disk of its own.
struct Tested {
    world: World,
    camera: Camera,
    footage: Vec<Footage>,
    faults: Vec<Fault>,
    receipts: HashMap<Paper, Receipt>,
    now: Time,
    /// Inventories given in this step.
    said: usize,
    /// Recordings that were ever told.
    seen: BTreeSet<usize>,
    spool: Option<Spool>,
}

struct Histories;

impl StateMachineTest for Histories {
    type SystemUnderTest = Tested;
    type Reference = Reference;

    fn init_test(model: &Model) -> Tested {
        Tested::new(model.capacity, &[])
    }
    fn apply(mut tested: Tested, model: &Model, step: Step) -> Tested {
        tested.step(model, step);
        tested
    }
}

impl Tested {
    fn new(capacity: u64, faults: &[Fault]) -> Tested {
        let mut world = World::in_memory();
        (world.capacity, world.faults) = (capacity, Faults::of(faults));
        Tested {
            camera: world.camera("C1", 1),
            footage: (0..RECORDINGS).map(footage).collect(),
            faults: faults.to_vec(),
            receipts: HashMap::new(),
            now: NOW,
            said: 0,
            seen: BTreeSet::new(),
            spool: Some(world.open()),
            world,
        }
    }
    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }
    fn digest(&self, item: Item) -> Digest {
        self.footage[item.0].digests()[item.1]
    }
    fn path(&self, item: Item) -> std::path::PathBuf {
        self.world.segment(&self.digest(item))
    }

    /// Does a step; `model` is what must be after it.
    fn step(&mut self, model: &Model, step: Step) {
        // The model's epoch has moved on by its own key list.
        let before = model.epoch - u8::from(matches!(step, Step::Void));
        self.said = 0;
        let answers = self.act(model, in_epoch(step, before));
        assert_eq!(answers, model.answers, "{step:?}");
        self.check(model);
    }

    fn act(&mut self, model: &Model, step: Step) -> Vec<Answer> {
        let now = self.now;
        match step {
            Step::Announce(n) => {
                let manifest = self.camera.whole_manifest(&self.footage[n]);
                let header = self.digest((n, 0));
                let known = self.spool().stage(&header).unwrap().is_some();
                self.spool().admit(&manifest, now).unwrap();
                if !self.seen.insert(n) && !known {
                    return vec![self.commit()];
                }
            }
            Step::Pull(n) => return items_of(n).map(|item| self.pull(item, true)).collect(),
            Step::PullOne(item) => return vec![self.pull(item, true)],
            Step::Lie(item) => return vec![self.pull(item, false)],
            Step::Break(item, part) => return vec![self.break_off(item, part)],
            Step::Commit => return vec![self.commit()],
            Step::Receipt(paper) => return vec![self.receipt(paper)],
            Step::Release(n, _) if !model.announced.contains(&n) => {}
            Step::Release(n, count) => {
                let mut all = self.footage[n].digests();
                all.push(self.camera.whole_manifest(&self.footage[n]).digest());
                let id = self.camera.id.clone();
                let digests = &all[..count];
                self.spool().released(&id, n as u64, digests, now).unwrap();
            }
            Step::Void => {
                let void: Vec<_> = (1..model.epoch).map(|e| StoreEpoch([e; 16])).collect();
                let keys = self.world.key_list(model.epoch.into(), &void, &[]);
                self.spool().set_key_list(&keys, now).unwrap();
            }
            Step::Inventory { .. } => self.inventory(model),
            Step::Reclaim => {
                let done = self.spool().reclaim(now).unwrap();
                return vec![Answer::Reclaimed(done.segments, done.early)];
            }
            Step::Wait => self.now = now.plus_ms(25 * 3_600_000),
            Step::Crash => self.restart(|world| world.open()),
            Step::Recover => self.restart(|world| world.recover().0),
            Step::Damage(item) => {
                let (path, digest) = (self.path(item), self.digest(item));
                let whole = self.spool().open_copy(&digest).is_ok();
                if whole {
                    let mut bytes = std::fs::read(&path).unwrap();
                    bytes[50] ^= 1;
                    std::fs::write(&path, bytes).unwrap();
                }
                let found = self.spool().copy_is_damaged(&digest, now).unwrap();
                return vec![Answer::Damaged(found)];
            }
            Step::Lose(item) => {
                let digest = self.digest(item);
                if self.spool().open_copy(&digest).is_ok() {
                    std::fs::remove_file(self.path(item)).unwrap();
                }
                self.restart(|world| world.open());
            }
            Step::Disk(full) => {
                let more = full.then_some(Fault::NoSpace);
                let faults: Vec<_> = self.faults.iter().copied().chain(more).collect();
                self.world.faults = Faults::of(&faults);
                self.restart(|world| world.open());
            }
            Step::End(n) => {
                let steps = ending(n, model.epoch).into_iter();
                return steps.flat_map(|step| self.act(model, step)).collect();
            }
        }
        Vec::new()
    }

    fn commit(&mut self) -> Answer {
        let now = self.now;
        let told = self.spool().commit(now).unwrap();
        assert!(told.again.is_empty(), "a sync failed");
        let counts = [told.held.len(), told.archived.len(), told.released.len()];
        Answer::Told(counts)
    }
    fn restart(&mut self, open: impl Fn(&World) -> Spool) {
        self.spool = None;
        self.spool = Some(open(&self.world));
    }

    fn begin(&mut self, item: Item) -> Result<spool::Incoming, Answer> {
        let digest = self.digest(item);
        self.spool().begin(&digest).map_err(|e| match e {
            SpoolError::NoSpace(_) => Answer::NoSpace,
            SpoolError::NotWanted(_) => Answer::NotWanted,
            other => panic!("{other}"),
        })
    }
    fn pull(&mut self, item: Item, honest: bool) -> Answer {
        let mut incoming = match self.begin(item) {
            Ok(incoming) => incoming,
            Err(answer) => return answer,
        };
        let mut bytes = self.bytes(item)[incoming.offset() as usize..].to_vec();
        if !honest {
            bytes.iter_mut().for_each(|b| *b ^= 0x55);
        }
        incoming.write(&bytes).unwrap();
        let now = self.now;
        match self.spool().finish(incoming, now).unwrap() {
            Finished::Verified => Answer::Verified,
            Finished::PullAgain => Answer::PullAgain,
            Finished::Refused { .. } => Answer::Refused,
            Finished::Incomplete => panic!("{item:?} is incomplete"),
        }
    }
    fn break_off(&mut self, item: Item, part: u8) -> Answer {
        let mut incoming = match self.begin(item) {
            Ok(incoming) => incoming,
            Err(answer) => return answer,
        };
        let from = incoming.offset();
        let to = from + incoming.remaining() * u32::from(part) / 256;
        let bytes = self.bytes(item)[from as usize..to as usize].to_vec();
        incoming.write(&bytes).unwrap();
        self.spool().suspend(incoming);
        Answer::Broken(to)
    }
    fn bytes(&self, item: Item) -> &[u8] {
        let footage = &self.footage[item.0];
        footage.bytes_of(&self.digest(item)).unwrap()
    }

    /// Signed once: a receipt that is sent again is the same.
    fn signed(&mut self, paper: Paper) -> Receipt {
        let digests: Vec<Digest> = paper
            .items()
            .skip(1)
            .map(|item| self.digest(item))
            .collect();
        let sign = || {
            let epoch = StoreEpoch([paper.epoch; 16]);
            let footage = &self.footage[paper.recording];
            let manifest = self.camera.whole_manifest(footage).digest();
            let manifests = if paper.part { vec![] } else { vec![manifest] };
            self.world
                .receipt_with(SITES[paper.site], footage, &digests, &manifests, epoch)
        };
        self.receipts.entry(paper).or_insert_with(sign).clone()
    }
    fn receipt(&mut self, paper: Paper) -> Answer {
        let (receipt, now) = (self.signed(paper), self.now);
        match self.spool().receipt(&receipt, now).unwrap() {
            ReceiptOutcome::Staged => Answer::Staged,
            ReceiptOutcome::Known => Answer::Known,
            ReceiptOutcome::Foreign => Answer::Foreign,
        }
    }

    /// What the model's camera says in this step, one inventory after the other.
    fn inventory(&mut self, model: &Model) {
        let said = &model.said[self.said];
        self.said += 1;
        let list = |(n, places): (&usize, &Vec<usize>)| {
            let footage = &self.footage[*n];
            let receipted = ranges(places.iter().map(|place| place - 1));
            let manifest = self.camera.whole_manifest(footage);
            held(footage, &manifest, &receipted, &[])
        };
        let lists = said.holds.iter().map(list).collect();
        let next = (said.holds.len() + said.released.len()) as u64;
        let released = ranges(said.released.iter().copied());
        let inventory = self.camera.inventory(said.number, next, lists, &released);
        let now = self.now;
        let outcome = self.spool().inventory(&inventory, now).unwrap();
        assert!(outcome.fresh);
    }
}

proptest_state_machine::prop_state_machine! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]
    #[test]
    fn histories(sequential STEPS => Histories);
}

/// `PROPTEST_CASES`, or as many as a build waits for.
fn cases() -> u32 {
    let set = std::env::var("PROPTEST_CASES").ok();
    set.and_then(|n| n.parse().ok()).unwrap_or(256)
}

/// Histories of a spool with a seeded fault, until one fails.
fn is_noticed(fault: Fault) -> bool {
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::with_cases(200)
    };
    let histories: Sequential<_, _, _, _> = Reference::sequential_strategy(STEPS);
    let found = TestRunner::new(config).run(&histories, |(mut model, steps, _)| {
        let mut tested = Tested::new(model.capacity, &[fault]);
        for step in steps {
            model = Reference::apply(model, &step);
            tested.step(&model, step);
        }
        Ok(())
    });
    matches!(found, Err(TestError::Fail(..)))
}

#[test]
fn the_model_notices_a_spool_that_breaks_a_rule() {
    // The others show only where the power is cut: see the suite `power-cut`.
    for fault in [Fault::HeldBeforeBarrier, Fault::SegmentSyncFails] {
        assert!(is_noticed(fault), "{fault:?}");
    }
}

#[test]
fn histories_come_to_what_is_forgotten() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1024)
    };
    let histories: Sequential<_, _, _, _> = Reference::sequential_strategy(STEPS);
    let [forgets, again, void, derived] = [(); 4].map(|()| std::cell::Cell::new(0));
    let count =
        |counter: &std::cell::Cell<u32>, is: bool| counter.set(counter.get() + u32::from(is));
    let ran = TestRunner::new(config).run(&histories, |(mut model, steps, _)| {
        let mut over = Vec::new();
        for step in steps {
            let (before, alarms) = (model.announced.clone(), model.ends.alarms.len());
            model = Reference::apply(model, &step);
            let gone = before.difference(&model.announced).copied();
            over.extend(gone.filter(|_| matches!(step, Step::Commit | Step::End(_))));
            count(&forgets, model.announced.len() < before.len());
            count(
                &again,
                matches!(step, Step::Announce(n) if over.contains(&n)),
            );
            count(&void, model.ends.alarms.len() > alarms);
            count(&derived, matches!(step, Step::Recover) && !over.is_empty());
        }
        Ok(())
    });
    ran.unwrap();
    let found = [forgets, again, void, derived].map(|n| n.get());
    assert!(found.iter().all(|n| *n > 8), "{found:?}");
}
