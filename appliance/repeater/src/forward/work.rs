//! What a session does: the cameras' inventories, offers, puts, in the order of the ledger.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use protocol::ids::Digest;
use protocol::message::Message;
use spool::{OfferTask, PutTask, Spool};

use super::put::{self, Outcome};
use super::session::{Ended, Session, UnderWay};
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
        let offers = limits::OFFERS_IN_FLIGHT.saturating_sub(self.unanswered.len());
        if room + offers == 0 || self.silent {
            return Ok(());
        }
        let now = self.hop.seams.clock.instant();
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
            self.offer(offer).await?;
        }
        self.put(puts, room).await
    }

    async fn offer(&mut self, offer: OfferTask) -> Result<(), Ended> {
        let now = self.hop.seams.clock.instant();
        if self.unanswered.insert(offer.manifest, now).is_none() {
            self.say(&Message::Offer(offer.bytes)).await?;
        }
        Ok(())
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
        let (digest, means, token) = (task.digest, self.means.clone(), self.tasks.token());
        self.under_way.insert(
            digest,
            UnderWay {
                manifest: task.manifest,
                since: now,
            },
        );
        self.order = self.order.saturating_sub(1);
        let order = self.order;
        self.puts.push(self.tasks.spawn("put", async move {
            tokio::select! {
                done = put::put(means, task, order) => done,
                () = token.cancelled() => (digest, Outcome::Broken("the session ended".into())),
            }
        }));
    }
}
