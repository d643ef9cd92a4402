//! How the model moves in a barrier, a reclaim, and a start: the second half of what the spool must say.

use protocol::custody::Stage;
use protocol::pressure::Gate;

use super::expected::{Answer, Item, Model, Paper, Row, blocks, items_of, length, needed};

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
        }
        self.settle();
    }
    fn settle(&mut self) {
        self.durable = self.told.clone();
        self.lost.clear();
        self.untold.append(&mut self.moved);
    }
    pub(super) fn commit(&mut self) {
        self.barrier();
        let told: Vec<Stage> = std::mem::take(&mut self.untold)
            .into_iter()
            .map(|item| self.told[&item].stage)
            .collect();
        let count = |stage| told.iter().filter(|s| **s == stage).count();
        self.answers.push(Answer::Told([
            count(Stage::Held),
            count(Stage::Archived),
            count(Stage::Released),
        ]));
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
        } else if self.papers.contains(&paper) || self.gains(&paper).is_empty() {
            Answer::Known
        } else {
            self.papers.push(paper);
            Answer::Staged
        };
        self.answers.push(answer);
    }
    fn book(&mut self, paper: Paper) {
        let gains = self.gains(&paper);
        if gains.is_empty() {
            return;
        }
        self.receipts += 1;
        let (number, k) = (self.receipts, needed(paper.recording));
        for item in gains {
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
    }

    /// Every store begins anew: what stood on its receipts goes back.
    pub(super) fn void(&mut self) {
        self.barrier();
        self.epoch += 1;
        for item in self.of(Row::is_archived) {
            let back = if self.is_whole(item) {
                Stage::Held
            } else {
                Stage::Announced
            };
            self.enter(item, back);
        }
        self.told.values_mut().for_each(|row| row.receipts.clear());
        self.barrier();
    }

    /// Recordings in `mask` are listed, and what is not announced yet; `receipted`: with the receipts that came.
    pub(super) fn inventory(&mut self, mask: u8, receipted: bool) {
        self.inventories += 1;
        for item in self.of(|_| true) {
            let listed = mask >> item.0 & 1 == 1;
            self.row(item).listed = listed;
            match self.told[&item].stage {
                Stage::Archived if !listed => self.enter(item, Stage::Released),
                Stage::Released if listed && !receipted && item.1 > 0 => {
                    self.enter(item, Stage::Archived);
                }
                _ => {}
            }
        }
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
        self.told = self.durable.clone();
        Model::enter_rows(&mut self.told, &self.announced);
        for item in self.of(|row| row.here) {
            if !self.files.contains_key(&item) {
                self.lose(item);
            }
        }
        self.start();
    }
    /// The same, with rows derived from files and logbook alone: prefixes are lost, whole files are not.
    pub(super) fn recover(&mut self) {
        self.told = self.durable.clone();
        Model::enter_rows(&mut self.told, &self.announced);
        for item in self.of(|_| true) {
            let before = self.told[&item].stage;
            self.row(item).forget();
            if !self.told[&item].is_archived() {
                self.enter(item, Stage::Announced);
            }
            if self.files.get(&item) == Some(&length(item)) {
                self.bytes_are_whole(item);
                if before == Stage::Held {
                    self.enter(item, Stage::Held);
                }
            }
        }
        self.start();
    }
    fn start(&mut self) {
        for items in [&mut self.partials, &mut self.prefixes] {
            items.clear();
        }
        self.whole.clear();
        self.papers.clear();
        self.released.clear();
        (self.gate, self.refused_bytes, self.starved) = (Gate::Open, 0, false);
        let told = &self.told;
        self.files
            .retain(|item, _| told.get(item).is_some_and(|row| row.here));
        self.settle();
        self.untold.clear();
    }
}
