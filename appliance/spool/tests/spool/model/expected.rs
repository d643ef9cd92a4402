//! What the spool must say: a map of stages, moved by the rules of custody alone. It has no ledger, no logbook and no
//! files; it knows which bytes are where, what a barrier covered, and what a process that dies takes with it.

use std::collections::{BTreeMap, BTreeSet};

use protocol::custody::Stage;
use protocol::pressure::{self, Gate, Watermarks};

use super::Step;
use super::over::{Ends, Said, ending};

/// A recording, and the place in it: 0 is the header.
pub(crate) type Item = (usize, usize);

pub(crate) const RECORDINGS: usize = 5;
/// The header's length, and the segments'.
pub(crate) const LENGTHS: [u32; 3] = [100, 700, 5000];
/// The one recording of urgent class, and the one that needs both sites' receipts.
pub(crate) const URGENT: usize = 3;
pub(crate) const TWICE: usize = 4;
/// Every manifest takes one block.
const BLOCK: u64 = 4096;

/// A receipt, by what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Paper {
    pub(crate) recording: usize,
    pub(crate) site: usize,
    pub(crate) epoch: u8,
    /// The last segment is not in it, nor is the manifest.
    pub(crate) part: bool,
}

impl Paper {
    pub(crate) fn items(&self) -> impl Iterator<Item = Item> + use<> {
        items_of(self.recording).take(LENGTHS.len() - usize::from(self.part))
    }
}

/// What the spool answers to a call of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    NoSpace,
    NotWanted,
    Verified,
    PullAgain,
    Refused,
    Broken(u32),
    Staged,
    Known,
    Foreign,
    Damaged(bool),
    /// Files that a reclaim took, and those of them that went early.
    Reclaimed(usize, usize),
    /// Stages that a commit told: Held, Archived, Released.
    Told([usize; 3]),
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) stage: Stage,
    pub(crate) here: bool,
    pub(crate) prefix: u32,
    pub(crate) receipts: Vec<(u64, Paper)>,
    pub(super) archived_at: u64,
    /// Its camera may still be asked for it.
    pub(crate) listed: bool,
    pub(super) refused_on: u64,
}

impl Row {
    pub(super) fn forget(&mut self) {
        self.here = false;
        self.prefix = 0;
    }
    pub(super) fn is_archived(&self) -> bool {
        matches!(self.stage, Stage::Archived | Stage::Released)
    }
}

type Rows = BTreeMap<Item, Row>;

/// The model.
#[derive(Clone)]
pub(crate) struct Model {
    pub(super) marks: Watermarks,
    pub(super) capacity: u64,
    pub(crate) day: u64,
    /// No new file can be made.
    pub(crate) full: bool,
    pub(crate) epoch: u8,
    /// As the next call sees it, and as a new process finds it.
    pub(crate) told: Rows,
    pub(super) durable: Rows,
    /// Moved since the last barrier, and since the last commit that said so.
    pub(super) moved: BTreeSet<Item>,
    pub(super) untold: BTreeSet<Item>,
    pub(crate) announced: BTreeSet<usize>,
    /// Recordings that were ever announced.
    pub(super) seen: BTreeSet<usize>,
    /// One more than the last recording that was ever announced.
    pub(crate) next_recording: usize,
    pub(crate) ends: Ends,
    pub(super) durable_ends: Ends,
    /// Recordings that may be over, those whose manifests go when that is durable, and the manifests that are files.
    pub(super) over: BTreeSet<usize>,
    pub(super) going: BTreeSet<usize>,
    pub(super) manifests: BTreeSet<usize>,
    /// Segments and headers forgotten since the start.
    pub(crate) forgotten: u64,
    /// What the camera said it holds, in this step.
    pub(crate) said: Vec<Said>,
    pub(crate) inventories: u64,
    pub(super) receipts: u64,
    /// Receipts in the logbook, by number.
    pub(super) logbook: Vec<(u64, Paper)>,
    /// The stages that it said last, also of what is forgotten.
    pub(super) last_said: BTreeMap<Item, Stage>,
    /// Good bytes in each file, from its beginning.
    pub(super) files: BTreeMap<Item, u32>,
    /// Interrupted pulls that this process remembers, and those that the next barrier covers.
    pub(super) partials: BTreeMap<Item, u32>,
    pub(super) prefixes: BTreeMap<Item, u32>,
    /// Copies found bad since the last barrier: not pulled before it, for a start would take the new file for whole.
    pub(super) lost: BTreeSet<Item>,
    pub(crate) whole: Vec<Item>,
    pub(super) papers: Vec<Paper>,
    pub(super) released: Vec<(usize, usize)>,
    pub(super) gate: Gate,
    pub(super) refused_bytes: u64,
    pub(super) starved: bool,
    pub(crate) answers: Vec<Answer>,
    /// Digests in their order decide between what was archived by one receipt.
    pub(super) order: BTreeMap<Item, usize>,
}

pub(crate) fn items_of(recording: usize) -> impl Iterator<Item = Item> {
    (0..LENGTHS.len()).map(move |place| (recording, place))
}
pub(super) fn length(item: Item) -> u32 {
    LENGTHS[item.1]
}
/// Sites whose receipts a recording needs.
pub(super) fn needed(recording: usize) -> usize {
    1 + usize::from(recording == TWICE)
}
pub(super) fn blocks(item: Item) -> u64 {
    u64::from(length(item)).next_multiple_of(BLOCK)
}

/// A failing history names the room it had; what the steps made of it is too long to read.
impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model(capacity {})", self.capacity)
    }
}

impl Model {
    pub(crate) fn new(marks: Watermarks, capacity: u64, order: BTreeMap<Item, usize>) -> Model {
        Model {
            marks,
            capacity,
            day: 1,
            full: false,
            epoch: 1,
            told: Rows::new(),
            durable: Rows::new(),
            moved: BTreeSet::new(),
            untold: BTreeSet::new(),
            announced: BTreeSet::new(),
            seen: BTreeSet::new(),
            next_recording: 0,
            ends: Ends::default(),
            durable_ends: Ends::default(),
            over: BTreeSet::new(),
            going: BTreeSet::new(),
            manifests: BTreeSet::new(),
            forgotten: 0,
            said: Vec::new(),
            inventories: 0,
            receipts: 0,
            logbook: Vec::new(),
            last_said: BTreeMap::new(),
            files: BTreeMap::new(),
            partials: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            lost: BTreeSet::new(),
            whole: Vec::new(),
            papers: Vec::new(),
            released: Vec::new(),
            gate: Gate::Open,
            refused_bytes: 0,
            starved: false,
            answers: Vec::new(),
            order,
        }
    }

    pub(crate) fn apply(&mut self, step: &Step) {
        self.answers.clear();
        self.said.clear();
        self.act(step);
        let day = self.day;
        let due = |row: &Row| row.stage == Stage::Refused && row.refused_on < day;
        for item in self.of(due) {
            self.enter(item, Stage::Announced);
        }
    }

    fn act(&mut self, step: &Step) {
        match *step {
            Step::Announce(n) => {
                let again = !self.announced.contains(&n) && self.seen.contains(&n);
                self.announce(n);
                if again {
                    self.commit();
                }
            }
            Step::Pull(n) => items_of(n).for_each(|item| self.pull(item, true)),
            Step::PullOne(item) => self.pull(item, true),
            Step::Lie(item) => self.pull(item, false),
            Step::Break(item, part) => self.break_off(item, part),
            Step::Commit => self.commit(),
            Step::Receipt(paper) => self.receipt(paper),
            Step::Release(n, count) if self.announced.contains(&n) => {
                self.released.push((n, count))
            }
            Step::Release(..) => {}
            Step::Void => self.void(),
            Step::Inventory { mask, receipted } => self.inventory(mask, receipted),
            Step::Reclaim => self.reclaim(),
            Step::Wait => self.day += 1,
            Step::Crash => self.open(),
            Step::Recover => self.recover(),
            Step::Damage(item) => self.damage(item),
            Step::Lose(item) => {
                if self.is_whole(item) {
                    self.files.remove(&item);
                }
                self.open();
            }
            Step::Disk(full) => {
                self.full = full;
                self.open();
            }
            Step::End(n) => ending(n, self.epoch).iter().for_each(|s| self.act(s)),
        }
    }

    pub(crate) fn is_whole(&self, item: Item) -> bool {
        let row = self.told.get(&item);
        row.is_some_and(|r| r.here && r.prefix == length(item))
    }
    fn is_busy(&self, item: Item) -> bool {
        self.whole.contains(&item) || self.lost.contains(&item)
    }
    /// What its camera is asked for.
    pub(crate) fn to_pull(&self) -> BTreeSet<Item> {
        let wanted = |(item, row): (&Item, &Row)| {
            let due = row.stage == Stage::Announced && row.listed;
            (due && !self.is_whole(*item) && !self.is_busy(*item)).then_some(*item)
        };
        self.told.iter().filter_map(wanted).collect()
    }
    /// What goes to a site while both answer: each gets as many copies as the policy lacks, the first site first.
    pub(crate) fn to_put(&self, site: usize) -> BTreeSet<Item> {
        let goes = |(item, row): (&Item, &Row)| {
            let have = |s: usize| row.receipts.iter().any(|(_, paper)| paper.site == s);
            let lacking = needed(item.0).saturating_sub(row.receipts.len());
            let before = (0..site).filter(|s| !have(*s)).count();
            let due = row.stage == Stage::Held && self.is_whole(*item);
            (due && !have(site) && before < lacking).then_some(*item)
        };
        self.told.iter().filter_map(goes).collect()
    }
    /// Receipts that the camera is due, for a segment's sake or a manifest's.
    pub(crate) fn due(&self) -> BTreeSet<Paper> {
        let archived = self
            .told
            .values()
            .filter(|row| row.stage == Stage::Archived);
        let sheets = self.ends.sheets.values().filter(|sheet| !sheet.released);
        archived
            .flat_map(|row| &row.receipts)
            .chain(sheets.flat_map(|sheet| &sheet.receipts))
            .map(|(_, paper)| *paper)
            .collect()
    }
    /// On no known holder.
    pub(crate) fn unaccounted(&self) -> u64 {
        let lost = |(item, row): &(&Item, &Row)| {
            !self.is_whole(**item) && !row.is_archived() && !row.listed
        };
        self.told.iter().filter(lost).count() as u64
    }
    pub(crate) fn used_bytes(&self) -> u64 {
        let files = self.told.iter().filter(|(_, row)| row.here);
        files.map(|(item, _)| blocks(*item)).sum::<u64>() + BLOCK * self.manifests.len() as u64
    }
    pub(crate) fn gate(&self) -> Gate {
        if self.starved {
            Gate::Closed
        } else {
            self.gate_now()
        }
    }
    pub(super) fn gate_now(&self) -> Gate {
        let shut = self.refused_bytes > 0 && self.gate == Gate::Open;
        let before = if shut { Gate::UrgentOnly } else { self.gate };
        pressure::gate(before, self.used_bytes(), self.marks)
    }

    pub(super) fn row(&mut self, item: Item) -> &mut Row {
        self.told.get_mut(&item).unwrap()
    }
    /// The items of all rows that `are` so, in order.
    pub(super) fn of(&self, are: impl Fn(&Row) -> bool) -> Vec<Item> {
        let all = self.told.iter().filter(|(_, row)| are(row));
        all.map(|(item, _)| *item).collect()
    }
    pub(super) fn enter(&mut self, item: Item, stage: Stage) {
        self.row(item).stage = stage;
        self.moved.insert(item);
    }
    pub(super) fn enter_rows(rows: &mut Rows, announced: &BTreeSet<usize>) {
        for item in announced.iter().flat_map(|n| items_of(*n)) {
            rows.entry(item).or_insert(Row {
                stage: Stage::Announced,
                here: false,
                prefix: 0,
                receipts: Vec::new(),
                archived_at: 0,
                listed: true,
                refused_on: 0,
            });
        }
    }
    fn announce(&mut self, n: usize) {
        if self.announced.insert(n) {
            self.moved.extend(items_of(n));
        }
        self.seen.insert(n);
        self.next_recording = self.next_recording.max(n + 1);
        Model::enter_rows(&mut self.told, &self.announced);
        self.sheet_came(n);
    }

    /// Where a pull begins, and whether the bytes before are good.
    fn begin(&mut self, item: Item) -> Option<(u32, bool)> {
        let row = self.told.get(&item).cloned();
        let wanted = row.filter(|r| r.stage == Stage::Announced && !self.is_whole(item));
        let Some(row) = wanted.filter(|_| !self.is_busy(item)) else {
            self.answers.push(Answer::NotWanted);
            return None;
        };
        let partial = self.partials.remove(&item);
        let prefix = partial.unwrap_or(row.prefix);
        let on_disk = self.files.get(&item).copied();
        if let Some(good) = on_disk.filter(|_| row.here && prefix > 0) {
            return Some((prefix, partial.is_some() || good >= prefix));
        }
        if !row.here && !self.room_for(item) {
            self.answers.push(Answer::NoSpace);
            return None;
        }
        self.files.remove(&item);
        if self.full {
            self.starved = true;
            self.answers.push(Answer::NoSpace);
            return None;
        }
        self.files.insert(item, 0);
        self.row(item).here = true;
        self.row(item).prefix = 0;
        Some((0, true))
    }
    fn room_for(&mut self, item: Item) -> bool {
        let need = blocks(item);
        self.gate = self.gate_now();
        let over = self.used_bytes() + need > self.marks.high_bytes + self.marks.urgent_bytes;
        let open = self.gate == Gate::Open || (self.gate == Gate::UrgentOnly && item.0 == URGENT);
        let passes = self.used_bytes() + need <= self.capacity && self.is_awaited(item);
        let room = ((open && !over) || passes) && !self.starved;
        if !room {
            self.refused_bytes = self.refused_bytes.max(need);
        }
        room
    }

    /// Whether it is a header for which whole segments wait.
    fn is_awaited(&self, item: Item) -> bool {
        let waits = |other: &Item| {
            let row = self.told.get(other);
            row.is_some_and(|row| row.stage == Stage::Announced) && self.is_whole(*other)
        };
        item.1 == 0 && items_of(item.0).filter(|i| *i != item).any(|i| waits(&i))
    }

    fn pull(&mut self, item: Item, honest: bool) {
        let Some((offset, good)) = self.begin(item) else {
            return;
        };
        self.prefixes.remove(&item);
        let answer = match (good && honest, offset) {
            (true, _) => {
                self.files.insert(item, length(item));
                self.whole.push(item);
                Answer::Verified
            }
            (false, 0) => {
                self.files.remove(&item);
                self.enter(item, Stage::Refused);
                let day = self.day;
                let row = self.row(item);
                row.forget();
                row.refused_on = day;
                Answer::Refused
            }
            (false, _) => {
                let left = self.files[&item].min(offset);
                self.files.insert(item, left);
                self.row(item).prefix = 0;
                Answer::PullAgain
            }
        };
        self.answers.push(answer);
    }
    fn break_off(&mut self, item: Item, part: u8) {
        let Some((from, _)) = self.begin(item) else {
            return;
        };
        let to = from + (length(item) - from) * u32::from(part) / 256;
        if to > 0 {
            // What a process that died had written beyond stays, and is good.
            let good = self.files[&item];
            if good >= from {
                self.files.insert(item, good.max(to));
            }
            self.partials.insert(item, to);
            self.prefixes.insert(item, to);
        }
        self.answers.push(Answer::Broken(to));
    }
}
