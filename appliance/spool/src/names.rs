//! Numbers for what would make keys long: cameras, sites, and patterns (all that decides to which sites
//! something goes). Each is in memory whole and a row in the ledger; a number means nothing elsewhere.

use std::collections::{BTreeSet, HashMap};

use protocol::ids::{CameraId, SiteId};
use protocol::keylist::KeyList;
use protocol::manifest::Policy;
use protocol::schedule;

use crate::error::SpoolError;
use crate::ledger::Ledger;
use crate::rows::{CameraRow, Pattern, numbered, tag};

/// The queues of a pattern.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Queue {
    Puts = 0,
    Offers = 1,
}

/// All names, both ways.
#[derive(Debug, Default)]
pub(crate) struct Names {
    cameras: HashMap<CameraId, u32>,
    sites: Vec<SiteId>,
    site_numbers: HashMap<SiteId, u16>,
    patterns: Vec<Pattern>,
    pattern_numbers: HashMap<Pattern, u32>,
    /// How much waits in each pattern's queues.
    waiting: Vec<[u64; 2]>,
}

impl Names {
    /// Takes a camera's row as read.
    pub(crate) fn read_camera(&mut self, number: u32, id: CameraId) {
        self.cameras.insert(id, number);
    }
    /// Takes a site's row as read; rows come in the order of their numbers.
    pub(crate) fn read_site(&mut self, number: u32, site: SiteId) -> Result<(), SpoolError> {
        let next = u16::try_from(self.sites.len()).unwrap_or(u16::MAX);
        if u32::from(next) != number {
            return Err(SpoolError::Contradiction(
                "a site's number is missing".into(),
            ));
        }
        self.site_numbers.insert(site.clone(), next);
        self.sites.push(site);
        Ok(())
    }
    /// Takes a pattern's row as read, in order.
    pub(crate) fn read_pattern(&mut self, number: u32, pattern: Pattern) -> Result<(), SpoolError> {
        if usize::try_from(number).ok() != Some(self.patterns.len()) {
            return Err(SpoolError::Contradiction(
                "a pattern's number is missing".into(),
            ));
        }
        self.pattern_numbers.insert(pattern.clone(), number);
        self.patterns.push(pattern);
        self.waiting.push([0; 2]);
        Ok(())
    }

    /// A camera's number; none for one never heard of.
    pub(crate) fn camera(&self, id: &CameraId) -> Option<u32> {
        self.cameras.get(id).copied()
    }
    /// All cameras.
    pub(crate) fn cameras(&self) -> impl Iterator<Item = (&CameraId, u32)> {
        self.cameras.iter().map(|(id, n)| (id, *n))
    }
    /// A camera's number, given out now if need be.
    pub(crate) fn intern_camera(&mut self, id: &CameraId, ledger: &mut Ledger) -> u32 {
        if let Some(number) = self.camera(id) {
            return number;
        }
        let number = u32::try_from(self.cameras.len()).expect("cameras fit 32 bits");
        self.cameras.insert(id.clone(), number);
        ledger.put(
            numbered(tag::CAMERA, number),
            &CameraRow {
                id: id.clone(),
                inventory: None,
                next_recording: 0,
                last_contact: None,
                meeting: None,
            },
        );
        number
    }

    /// A site's number; none for one that no policy and no receipt named.
    pub(crate) fn site_number(&self, site: &SiteId) -> Option<u16> {
        self.site_numbers.get(site).copied()
    }
    /// The site of a number.
    pub(crate) fn site(&self, number: u16) -> Result<&SiteId, SpoolError> {
        self.sites
            .get(usize::from(number))
            .ok_or_else(|| SpoolError::Contradiction("a site's number is unknown".into()))
    }
    /// A site's number, given out now if need be.
    pub(crate) fn intern_site(
        &mut self,
        site: &SiteId,
        ledger: &mut Ledger,
    ) -> Result<u16, SpoolError> {
        if let Some(number) = self.site_number(site) {
            return Ok(number);
        }
        let number = u16::try_from(self.sites.len())
            .map_err(|_| SpoolError::Contradiction("more than 65,535 sites".into()))?;
        self.site_numbers.insert(site.clone(), number);
        self.sites.push(site.clone());
        ledger.put(numbered(tag::SITE, number.into()), site);
        Ok(number)
    }
    /// The names of numbers.
    pub(crate) fn sites(
        &self,
        numbers: impl IntoIterator<Item = u16>,
    ) -> Result<BTreeSet<SiteId>, SpoolError> {
        numbers.into_iter().map(|n| self.site(n).cloned()).collect()
    }

    /// A pattern's number, given out now if need be.
    pub(crate) fn intern_pattern(
        &mut self,
        policy: &Policy,
        mut have: Vec<u16>,
        mut refused_by: Vec<u16>,
        done: bool,
        ledger: &mut Ledger,
    ) -> Result<u32, SpoolError> {
        for list in [&mut have, &mut refused_by] {
            list.sort_unstable();
            list.dedup();
        }
        let sites = policy
            .sites
            .iter()
            .map(|s| self.intern_site(s, ledger))
            .collect::<Result<_, _>>()?;
        let pattern = Pattern {
            k: policy.k,
            sites,
            have,
            refused_by,
            done,
        };
        if let Some(number) = self.pattern_numbers.get(&pattern) {
            return Ok(*number);
        }
        let number = u32::try_from(self.patterns.len())
            .map_err(|_| SpoolError::Contradiction("too many patterns".into()))?;
        ledger.put(numbered(tag::PATTERN, number), &pattern);
        self.pattern_numbers.insert(pattern.clone(), number);
        self.patterns.push(pattern);
        self.waiting.push([0; 2]);
        Ok(number)
    }

    /// Notes that something joined (or left) a pattern's queue.
    pub(crate) fn waits(&mut self, pattern: u32, queue: Queue, joins: bool) {
        if let Some(n) = usize::try_from(pattern)
            .ok()
            .and_then(|p| self.waiting.get_mut(p))
        {
            let n = &mut n[queue as usize];
            *n = if joins { *n + 1 } else { n.saturating_sub(1) };
        }
    }

    /// The patterns with something waiting of which `site` gets the next, while `answering` answer.
    pub(crate) fn patterns_for(
        &self,
        queue: Queue,
        site: &SiteId,
        answering: &BTreeSet<SiteId>,
        keys: &KeyList,
    ) -> Result<Vec<u32>, SpoolError> {
        let mut found = Vec::new();
        for (number, pattern) in (0u32..).zip(&self.patterns) {
            let waiting = self
                .waiting
                .get(usize::try_from(number).unwrap_or(usize::MAX))
                .is_some_and(|n| n[queue as usize] > 0);
            if waiting && self.goes_to(pattern, queue, site, answering, keys)? {
                found.push(number);
            }
        }
        Ok(found)
    }

    fn goes_to(
        &self,
        pattern: &Pattern,
        queue: Queue,
        site: &SiteId,
        answering: &BTreeSet<SiteId>,
        keys: &KeyList,
    ) -> Result<bool, SpoolError> {
        let sites = pattern
            .sites
            .iter()
            .map(|n| self.site(*n).cloned())
            .collect::<Result<_, _>>()?;
        let policy = Policy {
            k: pattern.k,
            sites,
        };
        let mut have = self.sites(pattern.have.iter().copied())?;
        if matches!(queue, Queue::Offers) && !pattern.done {
            // An answer counts only while its site can still be given what it wanted.
            have.retain(|s| answering.contains(s));
        }
        let refused = self.sites(pattern.refused_by.iter().copied())?;
        let usable = answering.difference(&refused).cloned().collect();
        Ok(schedule::sites_to_use(&policy, keys, &have, &usable).contains(site))
    }
}
