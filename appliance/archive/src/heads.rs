//! Heads of repeaters' logbooks: what each repeater said of its own record, kept and countersigned, so that a logbook
//! that lost entries, or says others, is known by somebody who cannot have lost them with it.
//!
//! One object a repeater holds the newest head of each of its logbook's incarnations, in the order in which they
//! began, and is replaced as a whole; the rule is [`protocol::logbook::step`]. It is read for each head anew, since another
//! gateway of the site may have written it; two gateways that hear one repeater in the same moment may each
//! write what they heard, and the head that goes further may be the one that is lost. What is countersigned is
//! durable before. An object that cannot be read is an alarm, and nothing is countersigned over it.
//!
//! Of more than [`limits::LOGBOOKS`] incarnations the first one and the newest are kept. Nothing of custody hangs on
//! any of this.

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use protocol::ids::{Digest, RepeaterId, Time};
use protocol::logbook::{self, Countersignature, LogbookHead, SignedHead, Step};
use protocol::message::{HeadVerdict, Message};
use protocol::suite::sha256;
use tracing::info;

use crate::alarms::Alarm;
use crate::gateway::Gateway;
use crate::vault::{Read, VaultError};
use crate::{layout, limits};

const MAGIC: &[u8] = b"bwc-logbooks 1\n";
const SUM: usize = 32;
/// Repeaters whose heads are judged at one time.
const LANES: usize = 64;

/// Whose turn it is: one repeater's heads are judged one after the other, also from two sessions.
#[derive(Debug)]
pub struct Heads {
    lanes: Vec<tokio::sync::Mutex<()>>,
}

impl Default for Heads {
    fn default() -> Self {
        Heads {
            lanes: (0..LANES).map(|_| tokio::sync::Mutex::default()).collect(),
        }
    }
}

/// The newest head of one incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Row {
    #[n(0)]
    head: LogbookHead,
    /// When it was countersigned.
    #[n(1)]
    signed: Time,
    /// The head as the repeater signed it.
    #[n(2)]
    told: ByteVec,
    /// What this site signed.
    #[n(3)]
    signature: ByteVec,
}

/// What is kept of a repeater: the newest incarnation last.
type Book = Vec<Row>;

/// Judges a head that `who` offers, and gives the answer.
pub async fn judge(gateway: &Gateway, who: &str, offered: Bytes) -> Message {
    let about = sha256(&offered);
    let (verdict, signature, text) = answer(gateway, who, offered).await;
    let name = verdict_name(verdict);
    gateway.metrics.heads.with_label_values(&[name]).inc();
    Message::countersignature(about, verdict, signature.as_ref(), &text)
}

type Answer = (HeadVerdict, Option<Bytes>, String);

async fn answer(gateway: &Gateway, who: &str, offered: Bytes) -> Answer {
    let trust = gateway.keyring.current().trust.clone();
    let refused = |why: String| (HeadVerdict::Refused, None, why);
    let head = match SignedHead::verify(offered, &trust) {
        Ok(head) => head,
        Err(e) => return refused(e.to_string()),
    };
    let repeater = &head.body().repeater;
    if format!("urn:bwc:repeater:{repeater}") != who {
        return refused(format!("{who} brings the head of repeater {repeater}"));
    }
    if let Err(e) = gateway.keys.may_sign() {
        gateway.alarm(Alarm::CannotSign, gateway.site.as_str(), &e.to_string());
        return (HeadVerdict::Unavailable, None, e.to_string());
    }
    let lane = usize::from(sha256(who.as_bytes()).0[0]) % LANES;
    let _turn = gateway.heads.lanes[lane].lock().await;
    let judged = gateway.in_time(compare(gateway, &head)).await;
    gateway.watch_store(&judged);
    judged.unwrap_or_else(|e| (HeadVerdict::Unavailable, None, e.to_string()))
}

/// Compares a head with those that were countersigned before; one that goes on is durable when this returns.
async fn compare(gateway: &Gateway, head: &SignedHead) -> Result<Answer, VaultError> {
    let (repeater, told) = (&head.body().repeater, head.body().head);
    let path = layout::logbook(repeater);
    let book = match gateway.vault.read(&path, limits::LOGBOOKS_BYTES).await? {
        Read::Missing => Ok(Book::new()),
        read => read.bytes().and_then(|bytes| parse(&bytes)),
    };
    let mut book = match book {
        Ok(book) => book,
        Err(why) => {
            let text = format!("what was countersigned of repeater {repeater} {why}");
            gateway.alarm(Alarm::ObjectDamaged, path.as_ref(), &text);
            return Ok((HeadVerdict::Unavailable, None, text));
        }
    };
    gateway.alarms.clear(Alarm::ObjectDamaged, path.as_ref());
    let before: Vec<LogbookHead> = book.iter().map(|row| row.head).collect();
    let step = logbook::step(&before, &told);
    let (alarm, verdict) = match step {
        Step::Same | Step::Further | Step::Begun => {
            let signature = match sign(gateway, head) {
                Ok(signature) => signature,
                Err(text) => return Ok((HeadVerdict::Unavailable, None, text)),
            };
            if step != Step::Same {
                note(gateway, repeater, book.last(), &told);
                add(&mut book, head, &signature);
                gateway.vault.replace(&path, bytes_of(&book)).await?;
            }
            let signed = Some(signature.bytes().clone());
            return Ok((HeadVerdict::Signed, signed, String::new()));
        }
        Step::Behind => (Alarm::LogbookBehind, HeadVerdict::Behind),
        Step::Forked => (Alarm::LogbookForked, HeadVerdict::Forked),
    };
    let last = book.last().expect("a head stands against it");
    let text = format!(
        "logbook {}, entry {}, chain hash {} came, and logbook {}, entry {}, chain hash {} was countersigned at {} ms",
        told.incarnation,
        told.entries,
        told.hash,
        last.head.incarnation,
        last.head.entries,
        last.head.hash,
        last.signed.0
    );
    gateway.alarm(alarm, &repeater.to_string(), &text);
    Ok((verdict, standing(gateway, last), text))
}

/// A logbook that another follows is noted with how far the one before went.
fn note(gateway: &Gateway, repeater: &RepeaterId, before: Option<&Row>, told: &LogbookHead) {
    let Some(last) = before.filter(|row| row.head.incarnation != told.incarnation) else {
        return;
    };
    let what = format!(
        "logbook {} begins at entry {}, after logbook {}, entry {}, chain hash {}, countersigned at {} ms",
        told.incarnation,
        told.entries,
        last.head.incarnation,
        last.head.entries,
        last.head.hash,
        last.signed.0
    );
    gateway.alarm(Alarm::LogbookNew, &repeater.to_string(), &what);
}

fn sign(gateway: &Gateway, head: &SignedHead) -> Result<Countersignature, String> {
    let now = gateway.seams.clock.now();
    let signature = gateway.keys.countersign(head, now);
    signature.map_err(|e| e.to_string())
}

/// The countersignature that stands against a head: as it was signed, or anew where its key does not count any more.
fn standing(gateway: &Gateway, row: &Row) -> Option<Bytes> {
    let kept = Bytes::copy_from_slice(&row.signature);
    if Countersignature::verify(kept.clone(), &gateway.keys.list()).is_ok() {
        return Some(kept);
    }
    let trust = gateway.keyring.current().trust.clone();
    let head = SignedHead::verify(Bytes::copy_from_slice(&row.told), &trust).ok()?;
    let anew = sign(gateway, &head).ok()?;
    info!(repeater = %head.body().repeater, "what was countersigned is signed anew: its key counts no more");
    Some(anew.bytes().clone())
}

/// Puts the head in its place: that of its incarnation, or the last one. Of too many the second goes: the first says
/// since when the repeater is known.
fn add(book: &mut Book, head: &SignedHead, signature: &Countersignature) {
    let row = Row {
        head: head.body().head,
        signed: signature.body().signed,
        told: head.bytes().to_vec().into(),
        signature: signature.bytes().to_vec().into(),
    };
    if (book.last()).is_some_and(|last| last.head.incarnation == row.head.incarnation) {
        book.pop();
    }
    book.push(row);
    if book.len() > limits::LOGBOOKS {
        book.remove(1);
    }
}

fn bytes_of(book: &Book) -> Bytes {
    let rows = minicbor::to_vec(book).expect("encoding to memory cannot fail");
    [MAGIC, &sha256(&rows).0[..], &rows[..]].concat().into()
}

/// The rest of a sentence that begins with what is wrong.
fn parse(bytes: &[u8]) -> Result<Book, String> {
    let altered = || "is altered, or a newer archive wrote it".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(altered)?;
    let (sum, rows) = rest.split_at_checked(SUM).ok_or_else(altered)?;
    if Digest::from_slice(sum) != Some(sha256(rows)) {
        return Err(altered());
    }
    minicbor::decode(rows).map_err(|_| altered())
}

/// The name of a verdict in metrics.
fn verdict_name(verdict: HeadVerdict) -> &'static str {
    match verdict {
        HeadVerdict::Signed => "signed",
        HeadVerdict::Behind => "behind",
        HeadVerdict::Forked => "forked",
        HeadVerdict::Refused => "refused",
        HeadVerdict::Unavailable => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use protocol::ids::Incarnation;

    fn row(incarnation: u8) -> Row {
        Row {
            head: LogbookHead {
                incarnation: Incarnation([incarnation; 16]),
                entries: 7,
                hash: Digest([incarnation; 32]),
            },
            signed: Time(u64::from(incarnation)),
            told: vec![1; 900].into(),
            signature: vec![2; 300].into(),
        }
    }

    #[test]
    fn a_book_reads_back_and_any_altered_byte_is_noticed() {
        let book: Book = vec![row(1), row(2)];
        let bytes = bytes_of(&book);
        assert_eq!(parse(&bytes).unwrap(), book);
        for at in 0..bytes.len() {
            let mut altered = bytes.to_vec();
            altered[at] ^= 1;
            assert!(parse(&altered).is_err(), "byte {at}");
            assert!(parse(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_full_book_is_within_its_limit() {
        let most = Row {
            told: vec![0; protocol::limits::LOGBOOK_HEAD_BYTES].into(),
            signature: vec![0; protocol::limits::COUNTERSIGNATURE_BYTES].into(),
            ..row(0)
        };
        let book: Book = vec![most; limits::LOGBOOKS];
        assert!(bytes_of(&book).len() <= limits::LOGBOOKS_BYTES);
    }
}
