//! What a session does: the cameras' inventories, offers, puts, in the order of the ledger.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use protocol::ids::{CameraId, Digest, RecordingId};
use protocol::manifest::Class;
use protocol::message::Message;
use spool::{InventoryPages, OfferTask, PutTask, Spool};
use tracing::warn;

use super::put;
use super::session::{Asked, Session, UnderWay};
use crate::ended::Ended;
use crate::limits;

/// A manifest is offered by name, for what is put of it, at most so often.
const OFFER_AGAIN: Duration = Duration::from_secs(1);

/// An inventory newer than the one `sent` is due, but each camera's at most so often.
const INVENTORY_EVERY: Duration = Duration::from_secs(60);
/// The spool is looked through for inventories at most so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether the site is to be sent a camera's inventory of that number.
fn is_due(sent: Option<&(u64, Instant)>, number: u64, now: Instant) -> bool {
    sent.is_none_or(|(n, at)| *n < number && now.saturating_duration_since(*at) >= INVENTORY_EVERY)
}

/// Whether the spool is looked through, last `seen` when so many had been brought: something was brought since, or
/// what was not due then may be.
fn look_again(seen: Option<(u64, Instant)>, brought: u64, now: Instant) -> bool {
    seen.is_none_or(|(before, at)| {
        let ago = now.saturating_duration_since(at);
        ago >= INVENTORY_EVERY || (before != brought && ago >= LOOK_EVERY)
    })
}

impl Session<'_> {
    /// The cameras' newest inventories out of the spool, each camera's at most once a minute, a few cameras at a time
    /// and one page in memory.
    pub(super) async fn send_inventories(&mut self) -> Result<(), Ended> {
        let now = self.hop.seams.clock.instant();
        let brought = self.hop.inventories.brought();
        if !look_again(self.inventories_seen, brought, now) {
            return Ok(());
        }
        let numbers = self.hop.storage.ask(|s, _| s.inventory_numbers()).await?;
        let sent = &self.inventories_sent;
        let mut due: Vec<CameraId> = numbers
            .into_iter()
            .filter(|(camera, number)| is_due(sent.get(camera), *number, now))
            .map(|(camera, _)| camera)
            .collect();
        let mut rest = due.len() > limits::INVENTORIES_AT_ONCE;
        due.truncate(limits::INVENTORIES_AT_ONCE);
        for camera in due {
            let id = camera.clone();
            let open = move |spool: &mut Spool, _| spool.open_inventory(&id);
            match self.hop.storage.ask(open).await? {
                Some((number, pages)) => {
                    self.send_pages(&camera, pages).await?;
                    self.inventories_sent.insert(camera, (number, now));
                }
                None => rest = true, // its barrier is under way
            }
        }
        // What is left is looked for again soon: as if one more had been brought.
        let seen = if rest {
            brought.wrapping_sub(1)
        } else {
            brought
        };
        self.inventories_seen = Some((seen, now));
        Ok(())
    }

    async fn send_pages(
        &mut self,
        camera: &CameraId,
        mut pages: InventoryPages,
    ) -> Result<(), Ended> {
        loop {
            let read = tokio::task::spawn_blocking(move || (pages.next_page(), pages)).await;
            let (page, rest) =
                read.map_err(|e| Ended::Broken(format!("reading an inventory: {e}")))?;
            pages = rest;
            match page {
                Ok(Some(page)) => self.say(&Message::Inventory(page)).await?,
                Ok(None) => return Ok(()),
                Err(e) => {
                    warn!(%camera, "its stored inventory cannot be passed on: {e}");
                    return Ok(());
                }
            }
        }
    }

    /// Asks the ledger once for what may be offered and put now, and does it.
    pub(super) async fn work(&mut self) -> Result<(), Ended> {
        let room = self.hop.puts.saturating_sub(self.under_way.len());
        let now = self.hop.seams.clock.instant();
        let offers = match self.may_offer(Class::Urgent, now) {
            true => limits::OFFERS_IN_FLIGHT.saturating_sub(self.unanswered.len()),
            false => 0,
        };
        if room + offers == 0 || self.silent {
            return Ok(());
        }
        self.aside.retain(|_, until| now < *until);
        let known = self.unanswered.keys().chain(self.under_way.keys());
        let skip: HashSet<Digest> = known.chain(self.aside.keys()).copied().collect();
        let (answering, site) = (self.hop.sites.answering(), self.site.clone());
        let look = move |spool: &mut Spool, now| {
            let offers = match offers {
                0 => Vec::new(),
                most => spool.next_offers(&answering, &site, most, &skip, now)?,
            };
            let puts = match room {
                0 => Vec::new(),
                _ => spool.next_puts(&answering, &site, limits::PUT_BATCH, &skip, now)?,
            };
            Ok((offers, puts))
        };
        let (offers, puts) = self.hop.storage.ask(look).await?;
        for offer in offers {
            // Urgent ones come first; of the others none overtakes.
            if !self.may_offer(offer.class, now) {
                break;
            }
            self.offer(offer).await?;
        }
        self.put(puts, room).await
    }

    /// Whether one more manifest may be offered: a site grants only so much at one time and puts the rest off, and
    /// what it granted is to be put first. Grants for what is not here (a camera left amid its recording) do
    /// not hold others back for long.
    fn may_offer(&self, class: Class, now: Instant) -> bool {
        let full = self.under_way.len() >= self.hop.puts;
        let urgent = class == Class::Urgent;
        let same = |other: Class| (other == Class::Urgent) == urgent;
        let fresh = |touched| now.saturating_duration_since(touched) < limits::GRANT_IDLE;
        let asked = self.unanswered.values().filter(|a| same(a.class));
        let granted = self
            .offered
            .values()
            .filter(|o| same(o.class) && (full || fresh(o.touched)))
            .map(|o| o.wanted.len().min(o.grant as usize));
        let open = asked.map(|a| a.objects).chain(granted).sum::<usize>();
        open < match urgent {
            true => limits::OBJECTS_OPEN_URGENT,
            false => limits::OBJECTS_OPEN,
        }
    }

    async fn offer(&mut self, offer: OfferTask) -> Result<(), Ended> {
        if self.unanswered.contains_key(&offer.manifest) {
            return Ok(());
        }
        if self.asked.len() >= limits::OFFERS_REMEMBERED {
            // An answer that comes to a forgotten one costs an offer more.
            self.asked.clear();
        }
        self.asked.insert(offer.manifest, offer.class);
        let asked = Asked {
            since: self.hop.seams.clock.instant(),
            objects: offer.digests.len(),
            class: offer.class,
        };
        self.unanswered.insert(offer.manifest, asked);
        self.say(&Message::Offer(offer.bytes)).await
    }

    /// Puts what is wanted of these, at most `room`; offers the manifests of the rest, whose answer came on an earlier
    /// connection or has run out.
    async fn put(&mut self, tasks: Vec<PutTask>, room: usize) -> Result<(), Ended> {
        let now = self.hop.seams.clock.instant();
        let mut started = 0;
        let mut unoffered = Vec::new();
        for task in tasks {
            let put_off = self
                .busy
                .is_some_and(|(class, until)| task.class <= class && now < until);
            if put_off {
                continue;
            }
            let waits = |of: &RecordingId| *of == task.recording;
            if task.seq.is_some() && self.headerless.values().any(waits) {
                continue;
            }
            let offered = self.offered.get_mut(&task.manifest);
            match offered.filter(|o| o.grant > 0 && o.wanted.contains(&task.digest)) {
                Some(_) if started == room => break,
                Some(offered) => {
                    offered.touched = now;
                    offered.grant -= 1;
                    offered.wanted.remove(&task.digest);
                    self.start(task, now);
                    started += 1;
                }
                None if !unoffered.contains(&task.manifest) => unoffered.push(task.manifest),
                None => {}
            }
        }
        let known = |m: &Digest| self.unanswered.contains_key(m) || self.aside.contains_key(m);
        unoffered.retain(|manifest| !known(manifest));
        if unoffered.is_empty() {
            return Ok(());
        }
        // Of use again only once it was answered; a manifest that leads to nothing is not offered in a circle.
        unoffered
            .iter()
            .for_each(|m| _ = self.aside.insert(*m, now + OFFER_AGAIN));
        let look = move |spool: &mut Spool, _| {
            unoffered
                .iter()
                .map(|m| spool.offer(m))
                .collect::<Result<Vec<_>, _>>()
        };
        for offer in self.hop.storage.ask(look).await?.into_iter().flatten() {
            self.offer(offer).await?;
        }
        Ok(())
    }

    fn start(&mut self, task: PutTask, now: Instant) {
        let (digest, means, stop) = (task.digest, self.means.clone(), self.tasks.child());
        self.headerless.remove(&digest);
        self.under_way.insert(
            digest,
            UnderWay {
                manifest: task.manifest,
                header_of: task.seq.is_none().then(|| task.recording.clone()),
                since: now,
                sent: None,
                stop: stop.clone(),
            },
        );
        self.order = self.order.saturating_sub(1);
        let order = self.order;
        let put = async move { put::put(means, task, order, stop).await };
        self.puts.push(self.tasks.spawn("put", put));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_is_sent_once_and_a_newer_one_a_minute_later() {
        let began = link::clock::Clock::system().instant();
        let later = |s| began + Duration::from_secs(s);
        assert!(is_due(None, 0, began));
        assert!(!is_due(Some(&(4, began)), 4, later(3600)), "it has it");
        assert!(!is_due(Some(&(4, began)), 5, later(59)));
        assert!(is_due(Some(&(4, began)), 5, later(60)));
    }

    #[test]
    fn the_spool_is_looked_through_when_something_came_but_not_at_every_event() {
        let began = link::clock::Clock::system().instant();
        let later = |ms| began + Duration::from_millis(ms);
        assert!(look_again(None, 0, began), "what is there from before");
        assert!(!look_again(Some((3, began)), 3, later(59_000)));
        assert!(look_again(Some((3, began)), 3, later(60_000)));
        assert!(!look_again(Some((3, began)), 4, later(999)));
        assert!(look_again(Some((3, began)), 4, later(1000)));
    }
}
