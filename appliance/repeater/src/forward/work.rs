//! What a session does: the cameras' inventories, offers, puts, in the order of the ledger.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use protocol::ids::Digest;
use protocol::manifest::Class;
use protocol::message::Message;
use spool::{OfferTask, PutTask, Spool};

use super::put;
use super::session::{Asked, Session, UnderWay};
use crate::ended::Ended;
use crate::limits;

/// A manifest is offered by name, for what is put of it, at most so often.
const OFFER_AGAIN: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// The cameras' newest inventories, each camera's at most once a minute.
    pub(super) async fn send_inventories(&mut self) -> Result<(), Ended> {
        let now = self.hop.seams.clock.instant();
        let due = |sent: Option<&(u64, Instant)>, number| {
            sent.is_none_or(|(n, at)| {
                *n < number && now.saturating_duration_since(*at) >= Duration::from_secs(60)
            })
        };
        for inventory in self.hop.inventories.newest() {
            if due(
                self.inventories_sent.get(inventory.camera()),
                inventory.number(),
            ) {
                for page in inventory.pages() {
                    self.say(&Message::Inventory(page.bytes().clone())).await?;
                }
                self.inventories_sent
                    .insert(inventory.camera().clone(), (inventory.number(), now));
            }
        }
        Ok(())
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
        self.under_way.insert(
            digest,
            UnderWay {
                manifest: task.manifest,
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
