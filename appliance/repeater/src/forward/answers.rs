//! What a site says, applied to the session: wants, receipts, busy, refusals.

use std::time::Duration;

use bytes::Bytes;
use protocol::codec;
use protocol::ids::Digest;
use protocol::limits::MANIFEST_SEGMENTS;
use protocol::message::{Busy, LOGBOOK_HEAD, Message, Reason, Refused, Want};
use protocol::receipt::{Receipt, ReceiptError};
use spool::{ReceiptOutcome, Spool};
use tracing::{debug, info, warn};

use super::receipts;
use super::session::{Offered, Session};
use crate::ended::Ended;
use crate::{alarms, limits};

/// A receipt taken is in the ledger after so long; where it is not, what it names is offered again.
const RECEIPT_SETTLES: Duration = Duration::from_secs(2);

impl Session<'_> {
    /// Applies one message of the site; none: it has ended the session.
    pub(super) async fn said(&mut self, frame: Option<Bytes>) -> Result<(), Ended> {
        let frame = frame.ok_or(Ended::Left("the site ended the session"))?;
        let message = codec::decode(&frame)?;
        self.said = self.hop.seams.clock.instant();
        if self.doubted {
            self.answered();
        }
        match message {
            Message::Want(want) => self.want(want).await,
            Message::Receipt(bytes) => self.receipt(bytes).await,
            Message::Busy(busy) => {
                self.put_off(busy);
                Ok(())
            }
            Message::Refused(refused) => self.refused(refused).await,
            Message::Countersignature(answer) => self.countersigned(answer).await,
            // An older archive: heads of logbooks came after it.
            Message::Unsupported(LOGBOOK_HEAD) => {
                info!(site = %self.site, "the site countersigns no logbooks: it is older");
                self.heads.not_understood();
                Ok(())
            }
            Message::Unsupported(number) => {
                warn!(site = %self.site, number, "the site does not know a message");
                Ok(())
            }
            Message::Error(e) => {
                warn!(site = %self.site, code = e.code, "the site says: {}", e.text);
                Ok(())
            }
            Message::Unknown(number) => self.say(&Message::Unsupported(number)).await,
            other => Err(Ended::Fault(format!(
                "message {} has no place in this session",
                other.number()
            ))),
        }
    }

    async fn want(&mut self, want: Want) -> Result<(), Ended> {
        self.unanswered.remove(&want.manifest);
        let Some(class) = self.asked.get(&want.manifest).copied() else {
            debug!(site = %self.site, manifest = %want.manifest, "wants what was not offered");
            return Ok(());
        };
        let (site, manifest) = (self.site.clone(), want.manifest);
        self.hop
            .storage
            .post(move |spool, _| spool.offer_answered(&site, &manifest))
            .await?;
        if self.offered.len() >= limits::OFFERS_REMEMBERED {
            // Forgotten answers cost an offer more, no byte.
            self.offered.clear();
        }
        // No manifest names more, nor does any honest want.
        let named = want.digests.into_iter().take(MANIFEST_SEGMENTS + 1);
        let wanted = named.filter(|d| !self.under_way.contains_key(d)).collect();
        self.offered.insert(
            want.manifest,
            Offered {
                wanted,
                grant: want.grant,
                class,
                touched: self.said,
            },
        );
        Ok(())
    }

    async fn receipt(&mut self, bytes: Bytes) -> Result<(), Ended> {
        let keys = self.hop.storage.keys().borrow().clone();
        let receipt = match Receipt::verify(bytes, &keys) {
            Ok(receipt) if receipt.body().site == *self.site => receipt,
            Ok(_) => return Err(Ended::Identity("a receipt in another site's name".into())),
            Err(e @ ReceiptError::Version(_)) => {
                return Err(Ended::Version(format!("a receipt: {e}")));
            }
            Err(e) => return Err(Ended::Fault(format!("a receipt that does not verify: {e}"))),
        };
        self.hop
            .metrics
            .receipts
            .with_label_values(&[self.site.as_str()])
            .inc();
        self.hop
            .alarms
            .clear(alarms::SITE_FAULT, self.site.as_str());
        receipts::settle(&self.hop.sites, &self.hop.alarms, self.site);
        let body = receipt.body();
        let named: Vec<Digest> = body
            .segments
            .iter()
            .chain([&body.header])
            .copied()
            .collect();
        let manifests = body.manifests.clone();
        let site = self.site.clone();
        let take = move |spool: &mut Spool, now| {
            if matches!(spool.receipt(&receipt, now)?, ReceiptOutcome::Foreign) {
                warn!(%site, "a receipt for something that is not known here");
            }
            Ok(())
        };
        self.hop.storage.post(take).await?;
        // The ledger shows it after the next barrier; until then nothing that it names is put or offered again. A
        // site whose receipts help nothing is asked again so much later, not at once.
        let until = self.hop.seams.clock.instant() + RECEIPT_SETTLES;
        for digest in named.iter().chain(&manifests) {
            self.under_way.remove(digest);
            self.headerless.remove(digest);
            // An offer of something wholly stored is answered by its receipt alone.
            self.unanswered.remove(digest);
            self.aside.insert(*digest, until);
        }
        debug!(site = %self.site, digests = named.len(), "receipt");
        Ok(())
    }

    /// Busy about a manifest puts off that manifest; about a put, all puts of its class. About anything else it says
    /// nothing that concerns us.
    fn put_off(&mut self, busy: Busy) {
        let now = self.hop.seams.clock.instant();
        let wait = Duration::from_millis(busy.retry_after_ms).min(limits::BUSY_MOST);
        debug!(site = %self.site, ?wait, "busy");
        if self.unanswered.remove(&busy.about).is_some() {
            self.aside.insert(busy.about, now + wait);
        }
        if self.under_way.contains_key(&busy.about) {
            self.busy = Some((busy.class, now + wait));
            self.give_up(busy.about, now + wait);
        }
    }

    async fn refused(&mut self, refused: Refused) -> Result<(), Ended> {
        let now = self.hop.seams.clock.instant();
        warn!(site = %self.site, about = %refused.about, reason = ?refused.reason, "refused: {}", refused.text);
        self.unanswered.remove(&refused.about);
        match refused.reason {
            Reason::StoreFailed | Reason::NotWanted => {
                let wait = if refused.reason == Reason::StoreFailed {
                    10
                } else {
                    1
                };
                self.aside
                    .insert(refused.about, now + Duration::from_secs(wait));
                self.give_up(refused.about, now + Duration::from_secs(wait));
                return Ok(());
            }
            Reason::WrongDigest if self.examine(refused.about).await? => {
                self.give_up(refused.about, now);
                return Ok(());
            }
            _ => {}
        }
        self.give_up(refused.about, now);
        let (
            site,
            Refused {
                about,
                reason,
                text,
            },
        ) = (self.site.clone(), refused);
        self.hop
            .storage
            .tell(move |spool, now| spool.site_refused(&site, &about, reason, &text, now))
            .await?;
        Ok(())
    }

    /// Re-reads our copy: damaged, it is set aside and pulled again.
    pub(super) async fn examine(&mut self, digest: Digest) -> Result<bool, Ended> {
        let damaged = self
            .hop
            .storage
            .tell(move |spool, now| spool.copy_is_damaged(&digest, now))
            .await?;
        if damaged {
            warn!(%digest, "our copy was damaged; it is pulled again");
            self.hop.notices.all_cameras();
        }
        Ok(damaged)
    }
}
