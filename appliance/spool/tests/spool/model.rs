//! Random histories against a model: whatever is told, committed, dropped and opened again, the spool says what a
//! map of stages says.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::custody::Stage;
use protocol::ids::Digest;

use crate::world::*;

#[derive(Clone, Debug)]
enum Step {
    Announce(usize),
    Pull(usize),
    Break(usize, u8),
    Commit,
    Receipt(usize),
    Release(usize),
    Reopen,
    Rebuild,
    Damage(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = 0..5usize;
    let step = prop_oneof![
        3 => n.clone().prop_map(Step::Announce),
        5 => n.clone().prop_map(Step::Pull),
        2 => (n.clone(), any::<u8>()).prop_map(|(n, part)| Step::Break(n, part)),
        5 => Just(Step::Commit),
        3 => n.clone().prop_map(Step::Receipt),
        2 => n.clone().prop_map(Step::Release),
        2 => Just(Step::Reopen),
        1 => Just(Step::Rebuild),
        1 => (n, 0..3usize).prop_map(|(n, seq)| Step::Damage(n, seq)),
    ];
    prop::collection::vec(step, 1..30)
}

/// The stages as they must be: durable ones, and those that the next commit makes durable.
#[derive(Clone, Default)]
struct Model {
    durable: BTreeMap<Digest, Stage>,
    told: BTreeMap<Digest, Stage>,
    /// Whole, to be Held by the next commit.
    whole: Vec<Digest>,
    /// Receipted or released, by the next commit.
    receipted: Vec<Digest>,
    released: Vec<Digest>,
}

impl Model {
    fn commit(&mut self) {
        for d in self.whole.drain(..) {
            if self.told[&d] == Stage::Announced {
                self.told.insert(d, Stage::Held);
            }
        }
        for d in self.receipted.drain(..) {
            if !matches!(self.told[&d], Stage::Released) {
                self.told.insert(d, Stage::Archived);
            }
        }
        for d in self.released.drain(..) {
            if self.told[&d] == Stage::Archived {
                self.told.insert(d, Stage::Released);
            }
        }
        self.durable = self.told.clone();
    }
    /// Manifests whose files were written outlive a crash; nothing else that was not committed does.
    fn crash(&mut self) {
        let announced = self.told.keys().map(|d| (*d, Stage::Announced));
        let kept = self.durable.clone();
        *self = Model {
            told: announced.chain(kept.clone()).collect(),
            durable: kept,
            ..Model::default()
        };
        self.durable = self.told.clone();
    }
}

fn run(steps: &[Step]) {
    let world = World::new();
    let camera = world.camera("C1", 1);
    let footage: Vec<Footage> = (0..5).map(|n| camera.footage(n, &[700, 5000])).collect();
    let (mut spool, mut model) = (world.open(), Model::default());
    for step in steps {
        match step {
            Step::Announce(n) => {
                spool
                    .admit(&camera.whole_manifest(&footage[*n]), NOW)
                    .unwrap();
                for d in footage[*n].digests() {
                    model.told.entry(d).or_insert(Stage::Announced);
                }
            }
            Step::Pull(n) => {
                for task in spool
                    .next_pulls(&camera.id, 99, &none(), NOW)
                    .unwrap()
                    .iter()
                    .filter(|t| t.recording.number == *n as u64)
                {
                    pull(&mut spool, &footage[*n], &task.digest);
                    model.whole.push(task.digest);
                }
            }
            Step::Break(n, part) => break_off(&mut spool, &camera, &footage[*n], *part),
            Step::Commit => {
                spool.commit(NOW).unwrap();
                model.commit();
            }
            Step::Receipt(n) if model.told.contains_key(&footage[*n].header_digest()) => {
                spool
                    .receipt(&world.full_receipt("daejeon", &footage[*n]), NOW)
                    .unwrap();
                model.receipted.extend(footage[*n].digests());
            }
            Step::Release(n) if model.told.contains_key(&footage[*n].header_digest()) => {
                spool
                    .released(&camera.id, *n as u64, &footage[*n].digests(), NOW)
                    .unwrap();
                model.released.extend(footage[*n].digests());
            }
            Step::Receipt(_) | Step::Release(_) => {}
            Step::Reopen | Step::Rebuild => {
                drop(spool);
                model.crash();
                spool = if matches!(step, Step::Reopen) {
                    world.open()
                } else {
                    world.recover().0
                };
            }
            Step::Damage(n, at) => {
                damage(&world, &mut spool, &mut model, &footage[*n].digests()[*at])
            }
        }
        check(&mut spool, &model, &footage);
    }
}

fn break_off(spool: &mut spool::Spool, camera: &Camera, footage: &Footage, part: u8) {
    let tasks = spool.next_pulls(&camera.id, 99, &none(), NOW).unwrap();
    if let Some(task) = tasks.iter().find(|t| t.recording.number == footage.number) {
        let mut incoming = spool.begin(&task.digest).unwrap();
        let bytes = footage.bytes_of(&task.digest).unwrap();
        let from = incoming.offset() as usize;
        let to = from + incoming.remaining() as usize * usize::from(part) / 256;
        incoming.write(&bytes[from..to]).unwrap();
        spool.suspend(incoming);
    }
}

fn damage(world: &World, spool: &mut spool::Spool, model: &mut Model, digest: &Digest) {
    if spool.open_copy(digest).is_err() || model.whole.contains(digest) {
        return;
    }
    std::fs::write(world.segment(digest), b"short").unwrap();
    assert!(spool.copy_is_damaged(digest, NOW).unwrap());
    if model.told[digest] == Stage::Held {
        model.told.insert(*digest, Stage::Announced);
    }
    // Its row is told at once; durable with what else is told.
    spool.commit(NOW).unwrap();
    model.commit();
}

fn check(spool: &mut spool::Spool, model: &Model, footage: &[Footage]) {
    for d in footage.iter().flat_map(Footage::digests) {
        assert_eq!(spool.stage(&d).unwrap(), model.told.get(&d).copied(), "{d}");
    }
    let counts = spool.counts();
    for stage in Stage::ALL {
        let expected = model.told.values().filter(|s| **s == stage).count() as u64;
        assert_eq!(counts.stage(stage).segments, expected, "{stage}");
    }
    let puts = spool
        .next_puts(&both(), &site("daejeon"), 99, &none(), NOW)
        .unwrap();
    let held = model.told.values().filter(|s| **s == Stage::Held).count();
    assert_eq!(puts.len(), held);
    for task in puts {
        let original = footage
            .iter()
            .find_map(|f| f.bytes_of(&task.digest))
            .unwrap();
        assert_eq!(
            spool.read_copy(&task.digest).unwrap(),
            original,
            "what is Held is whole"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn histories(steps in steps()) {
        run(&steps);
    }
}
