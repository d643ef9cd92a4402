//! How the model comes to the end of a recording: its camera erases it, the copies go, and with the next commit nothing of
//! it is known but what stood on which store. Then it may come again.

use std::collections::{BTreeMap, BTreeSet};

use protocol::custody::Stage;

use super::Step;
use super::expected::{Item, LENGTHS, Model, Paper, Row, items_of, needed};

/// A manifest, of which there is one for each recording.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sheet {
    pub(super) receipts: Vec<(u64, Paper)>,
    /// Its camera has those, or needs none.
    pub(super) released: bool,
}

/// What is known of how recordings end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    pub(super) sheets: BTreeMap<usize, Sheet>,
    /// What the newest inventory says is released.
    pub(super) erased: BTreeSet<usize>,
    /// Site and epoch on which something stood that is forgotten.
    pub(super) stood: BTreeSet<(usize, u8)>,
    /// Sites of which such an epoch turned out void.
    pub(crate) alarms: BTreeSet<usize>,
    /// Recordings that are forgotten, and whose manifest's file a start removes.
    pub(super) unlinks: BTreeSet<usize>,
}

impl Ends {
    /// What files alone say.
    pub(super) fn derived(&self) -> Ends {
        Ends {
            erased: self.erased.clone(),
            ..Ends::default()
        }
    }
}

/// What a camera says in an inventory.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) number: u64,
    /// Recordings with their receipted places.
    pub(crate) holds: BTreeMap<usize, Vec<usize>>,
    pub(crate) released: Vec<usize>,
}

/// A recording that goes all its way: pulled, archived by both sites, erased, reclaimed if room is needed, and told of.
pub(crate) fn ending(n: usize, epoch: u8) -> Vec<Step> {
    let receipt = |site| {
        Step::Receipt(Paper {
            recording: n,
            site,
            epoch,
            part: false,
        })
    };
    let inventory = Step::Inventory {
        mask: !(1 << n),
        receipted: true,
    };
    vec![
        Step::Pull(n),
        Step::Commit,
        receipt(0),
        receipt(1),
        Step::Commit,
        inventory,
        Step::Reclaim,
        Step::Commit,
    ]
}

impl Model {
    pub(super) fn sheet(&mut self, n: usize) -> &mut Sheet {
        self.ends.sheets.get_mut(&n).unwrap()
    }
    /// A manifest is told, perhaps of what was forgotten a moment ago.
    pub(super) fn sheet_came(&mut self, n: usize) {
        self.ends.sheets.entry(n).or_default();
        if self.going.remove(&n) {
            self.ends.unlinks.remove(&n);
        }
        self.manifests.insert(n);
    }
    pub(super) fn sheet_gains(&self, paper: &Paper) -> bool {
        let lacks = |sheet: &Sheet| sheet.receipts.iter().all(|(_, p)| p.site != paper.site);
        !paper.part && self.ends.sheets.get(&paper.recording).is_some_and(lacks)
    }

    fn rows_of(&self, n: usize) -> impl Iterator<Item = &Row> {
        items_of(n).filter_map(|item| self.told.get(&item))
    }
    /// Its camera has erased it, and all of it is Released.
    fn allows(&self, n: usize) -> bool {
        self.rows_of(n)
            .all(|row| !row.listed && row.stage == Stage::Released)
    }
    pub(super) fn may_be_over(&mut self, n: usize) {
        if self.allows(n) {
            self.over.insert(n);
        }
    }
    /// A start finds them in the rows, as it reads them.
    pub(super) fn look_for_over(&mut self) {
        let known: BTreeSet<usize> = self.told.keys().map(|item: &Item| item.0).collect();
        let over = |n: &usize| self.allows(*n) && self.rows_of(*n).all(|row| !row.here);
        self.over = known.into_iter().filter(over).collect();
    }

    pub(super) fn forget_what_is_over(&mut self) {
        for n in std::mem::take(&mut self.over) {
            let Some(sheet) = self.ends.sheets.get(&n) else {
                continue;
            };
            let archived = sheet.released && sheet.receipts.len() >= needed(n);
            if archived && self.allows(n) && self.rows_of(n).all(|row| !row.here) {
                self.forget(n);
            }
        }
    }
    fn forget(&mut self, n: usize) {
        let rows: Vec<Row> = items_of(n).filter_map(|i| self.told.remove(&i)).collect();
        let sheet = self.ends.sheets.remove(&n).unwrap_or_default();
        let receipts = rows.iter().flat_map(|row| &row.receipts);
        for (_, paper) in receipts.chain(&sheet.receipts) {
            self.ends.stood.insert((paper.site, paper.epoch));
        }
        self.partials.retain(|item, _| item.0 != n);
        self.announced.remove(&n);
        self.ends.unlinks.insert(n);
        self.going.insert(n);
        self.forgotten += rows.len() as u64;
    }
    /// What is forgotten is so durably: its manifest's file goes, and with the next barrier what says so.
    pub(super) fn sheets_go(&mut self) {
        self.durable_ends = self.ends.clone();
        for n in std::mem::take(&mut self.going) {
            self.manifests.remove(&n);
            self.ends.unlinks.remove(&n);
        }
    }
    pub(super) fn tell_what_stood(&mut self) {
        let stood = std::mem::take(&mut self.ends.stood);
        self.ends.alarms.extend(stood.iter().map(|(site, _)| *site));
    }

    /// Recordings in `mask` are listed, and what is not announced; `receipted`: with the receipts that came.
    pub(super) fn inventory(&mut self, mask: u8, receipted: bool) {
        self.inventories += 1;
        let mut said = Said {
            number: self.inventories,
            holds: BTreeMap::new(),
            released: Vec::new(),
        };
        for n in 0..self.next_recording {
            if self.announced.contains(&n) && mask >> n & 1 == 0 {
                said.released.push(n);
                continue;
            }
            let has = |place: &usize| {
                let row = self.told.get(&(n, *place));
                receipted && row.is_some_and(|row| row.stage == Stage::Released)
            };
            said.holds
                .insert(n, (1..LENGTHS.len()).filter(has).collect());
        }
        self.ends.erased = said.released.iter().copied().collect();
        self.said.push(said);
        for n in self.announced.clone() {
            self.camera_says(n, mask >> n & 1 == 1, receipted);
        }
    }
    fn camera_says(&mut self, n: usize, listed: bool, receipted: bool) {
        let same = self.rows_of(n).all(|row| row.listed == listed);
        let archived = self.rows_of(n).any(Row::is_archived);
        if same && (!archived || self.allows(n)) {
            return;
        }
        for item in items_of(n) {
            self.row(item).listed = listed;
            match self.told[&item].stage {
                Stage::Archived if !listed => self.enter(item, Stage::Released),
                Stage::Released if listed && !receipted && item.1 > 0 => {
                    self.enter(item, Stage::Archived);
                }
                _ => {}
            }
        }
        if !listed {
            self.sheet(n).released = true;
        }
        self.may_be_over(n);
    }
}
