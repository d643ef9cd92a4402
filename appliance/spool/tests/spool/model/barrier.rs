//! How the model moves in a barrier, a reclaim, and a start: the second half of what the spool must say.

use protocol::custody::Stage;
use protocol::pressure::Gate;

use super::expected::{Answer, Item, LENGTHS, Model, Paper, Row, blocks, items_of, length, needed};

impl Model {
    /// Steps 1 to 5 of a commit.
    pub(super) fn barrier(&mut self) {
        for (item, offset) in std::mem::take(&mut self.prefixes) {
            if self.told[&item].here && !self.is_whole(item) {
                self.row(item).prefix = offset;
            }
        }
        for item in std::mem::take(&mut self.whole) {
            self.bytes_are_whole(item);
        }
        for paper in std::mem::take(&mut self.papers) {
            self.book(paper);
        }
        for (n, count) in std::mem::take(&mut self.released) {
            for item in items_of(n).take(count) {
                if self.told[&item].stage == Stage::Archived {
                    self.enter(item, Stage::Released);
                }
            }
            if count > LENGTHS.len() {
                self.sheet(n).released = true;
            }
        }
        self.settle();
    }
    fn settle(&mut self) {
        self.durable = self.told.clone();
        for item in &self.moved {
            if let Some(row) = self.told.get(item) {
                self.last_said.insert(*item, row.stage);
            }
        }
        self.sheets_go();
        self.lost.clear();
        self.untold.append(&mut self.moved);
    }
    pub(super) fn commit(&mut self) {
        self.barrier();
        let untold = std::mem::take(&mut self.untold).into_iter();
        let stage = |item| self.told.get(&item).map(|row| row.stage);
        let told: Vec<Stage> = untold.filter_map(stage).collect();
        let count = |stage| told.iter().filter(|s| **s == stage).count();
        self.answers.push(Answer::Told([
            count(Stage::Held),
            count(Stage::Archived),
            count(Stage::Released),
        ]));
        self.forget_what_is_over();
    }

    fn header_is_kept(&self, n: usize) -> bool {
        let header = self.told[&(n, 0)].stage;
        matches!(header, Stage::Held | Stage::Archived | Stage::Released)
    }
    fn bytes_are_whole(&mut self, item: Item) {
        let row = self.row(item);
        row.here = true;
        row.prefix = length(item);
        if self.told[&item].stage == Stage::Announced
            && (item.1 == 0 || self.header_is_kept(item.0))
        {
            self.enter(item, Stage::Held);
        }
        if item.1 == 0 {
            self.header_came(item.0);
        }
    }
    fn header_came(&mut self, n: usize) {
        if self.header_is_kept(n) {
            for item in items_of(n) {
                if self.told[&item].stage == Stage::Announced && self.is_whole(item) {
                    self.enter(item, Stage::Held);
                }
            }
        }
    }

    fn gains(&self, paper: &Paper) -> Vec<Item> {
        let lacks = |item: &Item| {
            let sites = &self.told[item].receipts;
            sites.iter().all(|(_, known)| known.site != paper.site)
        };
        paper.items().filter(lacks).collect()
    }
    pub(super) fn receipt(&mut self, paper: Paper) {
        let answer = if !self.announced.contains(&paper.recording) || paper.epoch != self.epoch {
            Answer::Foreign
        } else if self.papers.contains(&paper) || !self.is_news(&paper) {
            Answer::Known
        } else {
            self.papers.push(paper);
            Answer::Staged
        };
        self.answers.push(answer);
    }
    fn is_news(&self, paper: &Paper) -> bool {
        !self.gains(paper).is_empty() || self.sheet_gains(paper)
    }
    fn book(&mut self, paper: Paper) {
        if self.is_news(&paper) {
            self.receipts += 1;
            self.logbook.push((self.receipts, paper));
            self.attach(self.receipts, paper);
        }
    }
    fn attach(&mut self, number: u64, paper: Paper) {
        let k = needed(paper.recording);
        for item in self.gains(&paper) {
            let row = self.row(item);
            row.receipts.push((number, paper));
            if row.receipts.len() >= k && !row.is_archived() {
                row.archived_at = number;
                self.enter(item, Stage::Archived);
            }
            if item.1 == 0 {
                self.header_came(item.0);
            }
        }
        if self.sheet_gains(&paper) {
            self.sheet(paper.recording).receipts.push((number, paper));
        }
    }

    /// Every store begins anew: what stood on its receipts goes back.
    pub(super) fn void(&mut self) {
        self.barrier();
        self.epoch += 1;
        self.tell_what_stood();
        for item in self.of(Row::is_archived) {
            let back = if self.is_whole(item) {
                Stage::Held
            } else {
                Stage::Announced
            };
            self.enter(item, back);
        }
        self.told.values_mut().for_each(|row| row.receipts.clear());
        for sheet in self.ends.sheets.values_mut() {
            sheet.released &= sheet.receipts.is_empty();
            sheet.receipts.clear();
        }
        self.barrier();
    }

    pub(super) fn reclaim(&mut self) {
        self.starved = false; // the disk that tests run on has room
        self.gate = self.gate_now();
        let refused = std::mem::take(&mut self.refused_bytes);
        if self.gate == Gate::Open {
            self.answers.push(Answer::Reclaimed(0, 0));
            return;
        }
        self.barrier();
        let here = |row: &Row| row.here && row.is_archived();
        let excess = self.used_bytes().saturating_sub(self.marks.low_bytes);
        let archived = self.oldest(here, |_| true, |row| row.archived_at, excess);
        let got: u64 = archived.iter().map(|item| blocks(*item)).sum();
        let above = (self.used_bytes() + refused).saturating_sub(self.marks.high_bytes - 1);
        let once = |row: &Row| row.stage == Stage::Held && row.listed && !row.receipts.is_empty();
        let is_segment = |item: &Item| item.1 > 0;
        let above = above.saturating_sub(got);
        let early = self.oldest(once, is_segment, |row| row.receipts[0].0, above);
        self.answers
            .push(Answer::Reclaimed(archived.len() + early.len(), early.len()));
        for item in archived.into_iter().chain(early) {
            self.files.remove(&item);
            self.partials.remove(&item);
            self.row(item).forget();
            if !self.told[&item].is_archived() {
                self.enter(item, Stage::Announced);
            }
            self.may_be_over(item.0);
        }
        self.settle();
        self.gate = self.gate_now();
    }
    fn oldest(
        &self,
        are: impl Fn(&Row) -> bool,
        which: impl Fn(&Item) -> bool,
        age: impl Fn(&Row) -> u64,
        bytes: u64,
    ) -> Vec<Item> {
        let mut all = self.of(are);
        all.retain(which);
        all.sort_by_key(|item| (age(&self.told[item]), self.order[item]));
        let mut sum = 0;
        let within = |item: &Item| {
            let more = sum < bytes;
            sum += blocks(*item);
            more
        };
        all.into_iter().take_while(within).collect()
    }

    /// Somebody doubts a copy that went bad.
    pub(super) fn damage(&mut self, item: Item) {
        let whole = self.is_whole(item);
        self.answers.push(Answer::Damaged(whole));
        if whole {
            self.files.remove(&item);
            self.lost.insert(item);
            self.lose(item);
        }
    }
    fn lose(&mut self, item: Item) {
        if self.told[&item].stage == Stage::Held {
            self.enter(item, Stage::Announced);
        }
        self.row(item).forget();
    }

    /// A process that dies leaves what was durable, and the files. Manifests are files.
    pub(super) fn open(&mut self) {
        self.moved.clear();
        self.told = self.durable.clone();
        self.ends = self.durable_ends.clone();
        for n in std::mem::take(&mut self.ends.unlinks) {
            self.manifests.remove(&n);
        }
        self.look_for_over();
        self.enter_manifests();
        for item in self.of(|row| row.here) {
            if !self.files.contains_key(&item) {
                self.lose(item);
            }
        }
        self.start();
    }
    /// The same, with rows derived from files and logbook alone: prefixes are lost, whole files are not.
    pub(super) fn recover(&mut self) {
        self.told.clear();
        self.ends = self.durable_ends.derived();
        self.enter_manifests();
        for item in self.of(|_| true) {
            let listed = !self.ends.erased.contains(&item.0);
            self.row(item).listed = listed;
            self.ends.sheets.entry(item.0).or_default().released = !listed;
        }
        for (number, paper) in self.logbook.clone() {
            if paper.epoch != self.epoch {
                continue;
            }
            if self.announced.contains(&paper.recording) {
                self.attach(number, paper);
            } else {
                self.ends.stood.insert((paper.site, paper.epoch));
            }
        }
        for item in self.of(|_| true) {
            let before = self.last_said.get(&item).copied();
            if self.files.get(&item) == Some(&length(item)) {
                self.bytes_are_whole(item);
            }
            match (before, self.told[&item].stage) {
                (Some(Stage::Held), Stage::Announced) if self.is_whole(item) => {
                    self.enter(item, Stage::Held);
                }
                (Some(Stage::Released), Stage::Archived) => self.enter(item, Stage::Released),
                _ => {}
            }
        }
        self.look_for_over();
        self.moved = self.told.keys().copied().collect();
        self.start();
    }
    fn enter_manifests(&mut self) {
        self.announced = self.manifests.clone();
        Model::enter_rows(&mut self.told, &self.announced);
        for n in self.announced.clone() {
            self.ends.sheets.entry(n).or_default();
        }
    }
    fn start(&mut self) {
        for items in [&mut self.partials, &mut self.prefixes] {
            items.clear();
        }
        self.whole.clear();
        self.papers.clear();
        self.released.clear();
        self.going.clear();
        self.forgotten = 0;
        (self.gate, self.refused_bytes, self.starved) = (Gate::Open, 0, false);
        let told = &self.told;
        self.files
            .retain(|item, _| told.get(item).is_some_and(|row| row.here));
        self.settle();
        self.untold.clear();
    }
}
