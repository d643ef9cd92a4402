//! Where spool and model are compared: everything that a peer, a person or the next step could see. It moves neither.

use std::collections::{BTreeMap, BTreeSet};

use protocol::custody::Stage;
use protocol::ids::Digest;

use super::expected::{Item, Model, RECORDINGS, items_of};
use super::{SITES, Tested};
use crate::world::*;

impl Tested {
    /// Whether the spool says what the model says.
    pub(super) fn check(&mut self, model: &Model) {
        let (now, camera) = (self.now, self.camera.id.clone());
        let items: BTreeMap<Digest, Item> = (0..RECORDINGS)
            .flat_map(items_of)
            .map(|item| (self.digest(item), item))
            .collect();
        let pulls = self.spool().next_pulls(&camera, 99, &none(), now).unwrap();
        let pulls: BTreeSet<Item> = pulls.iter().map(|task| items[&task.digest]).collect();
        assert_eq!(pulls, model.to_pull(), "asked of the camera");
        let counts = self.spool().counts();
        for stage in Stage::ALL {
            let expected = model.told.values().filter(|row| row.stage == stage).count();
            assert_eq!(counts.stage(stage).segments, expected as u64, "{stage}");
        }
        for (digest, item) in &items {
            let spool = self.spool.as_ref().unwrap();
            let stage = model.told.get(item).map(|row| row.stage);
            assert_eq!(spool.stage(digest).unwrap(), stage, "{item:?}");
            let copy = spool.read_copy(digest).ok();
            let whole = model.is_whole(*item).then(|| self.bytes(*item).to_vec());
            assert!(
                copy == whole,
                "{item:?}: its bytes are whole, or there are none"
            );
        }
        for (number, name) in SITES.into_iter().enumerate() {
            let puts = self
                .spool()
                .next_puts(&both(), &site(name), 99, &none(), now)
                .unwrap();
            let puts: BTreeSet<Item> = puts.iter().map(|task| items[&task.digest]).collect();
            assert_eq!(puts, model.to_put(number), "for {name}");
        }
        let due = self.spool().receipts_due(&camera, 99, &none()).unwrap();
        let due: BTreeSet<Digest> = due.into_iter().map(|due| due.digest).collect();
        let papers = model.due().into_iter();
        let expected = papers.map(|paper| self.receipts[&paper].digest()).collect();
        assert_eq!(due, expected, "due at the camera");
        let space = self.spool().space();
        assert_eq!(space.used_bytes, model.used_bytes());
        assert_eq!(self.spool().gate(), model.gate());
        assert_eq!(counts.unaccounted.segments, model.unaccounted());
        assert_eq!(counts.recordings, model.announced.len() as u64);
        assert_eq!(counts.forgotten.segments, model.forgotten);
        let alarms = self.spool().alarms();
        let void = alarms.iter().filter(|alarm| alarm.code == "released_void");
        let void: BTreeSet<&str> = void.map(|alarm| alarm.subject.as_str()).collect();
        let expected = model.ends.alarms.iter().map(|site| SITES[*site]).collect();
        assert_eq!(void, expected, "stores that turned out void");
    }
}
