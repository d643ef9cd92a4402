//! One repeater's session: hello, inventories, offers, puts, receipts.
//!
//! One task owns the session's state. `select` gives an event, a plain function applies it; what takes time
//! (the store, a stream's bytes) runs as a job of the same task and ends as an event. Dropping the session
//! drops all of it.
//!
//! What a peer can cause: its own session's end, and as much work and memory as the limits allow one
//! session. An answer that it does not read within the link's deadline ends the session.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use link::frame::{Control, ControlRecv, ControlSend, FrameError, read_frame};
use link::quic::{Peer, explain};
use protocol::codec;
use protocol::ids::Digest;
use protocol::manifest::{Class, Manifest};
use protocol::message::{self, ArchiveHello, Busy, Code, Message, Put, RepeaterHello};
use protocol::receipt::Verdict;
use quinn::RecvStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::admit::{self, Lookup, Refusal};
use crate::alarms::Alarm;
use crate::gateway::Gateway;
use crate::intake::{self, Outcome, Room};
use crate::keys::Draft;
use crate::lookups::Queue;
use crate::metrics::reason_name;
use crate::offers::{Answer, Expected, Offers};
use crate::{heads, inventories, limits};

/// Inventory pages and heads of one session being stored at one time: they stay in order.
const PAGES: usize = 1;

/// Why a session ends, other than by its peer's wish.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{}", explain(.0))]
    Connection(#[from] quinn::ConnectionError),
    #[error("{1}")]
    Close(Code, String),
    #[error("done")]
    Done,
}

/// What a job ends as.
enum Event {
    Looked(Box<Manifest>, Result<Lookup, Refusal>),
    Announced(Result<(Put, RecvStream), String>),
    Received(Box<Expected>, Outcome),
    Page(Result<(), Refusal>, Digest),
    Head(Box<Message>),
    KeyListKept,
}

type Job<'a> = BoxFuture<'a, Event>;

struct Session<'a> {
    gateway: &'a Gateway,
    who: String,
    offers: Offers,
    queue: Queue<Manifest>,
    pages: usize,
    own_room: Room,
    urgent_room: Room,
    jobs: FuturesUnordered<Job<'a>>,
    outbox: Vec<Message>,
}

/// Serves one peer until it leaves, misbehaves, or `stop`.
pub async fn run(gateway: &Gateway, peer: Peer, stop: CancellationToken) {
    let who = peer.identity().to_string();
    info!(peer = who, address = %peer.address(), "session");
    let end = serve(gateway, &peer, &who, stop).await;
    let (code, text) = match &end {
        End::Done => (Code::Done, String::new()),
        End::Close(code, text) => (*code, text.clone()),
        End::Frame(FrameError::Timeout) => (Code::Timeout, end.to_string()),
        End::Frame(FrameError::TooLong { .. }) => (Code::Limit, end.to_string()),
        End::Frame(_) | End::Connection(_) => (Code::Protocol, end.to_string()),
    };
    peer.close(code.number(), &text);
    info!(peer = who, "session ended: {end}");
}

async fn serve(gateway: &Gateway, peer: &Peer, who: &str, stop: CancellationToken) -> End {
    let control = match Control::accept(&peer.connection).await {
        Ok(control) => control,
        Err(error) => return error.into(),
    };
    let (mut send, mut recv) = control.split();
    let mut session = Session::new(gateway, who);
    let greeted = timeout(limits::PROGRESS, session.greet(&mut recv)).await;
    let greeted =
        greeted.unwrap_or_else(|_| Err(End::Close(Code::Timeout, "no hello came".to_owned())));
    if let Err(end) = greeted {
        return end;
    }
    let end = tokio::select! {
        pumped = session.pump(peer, &mut send, &mut recv, stop) => pumped.err().unwrap_or(End::Done),
        // Revocation ends sessions; what arrived whole is stored and stays so.
        error = peer.until_refused(&gateway.keyring, &gateway.metrics.handshakes) => {
            End::Close(Code::Identity, error.to_string())
        }
    };
    if matches!(end, End::Done | End::Close(Code::Shutdown, _))
        && let Err(error) = send.finish().await
    {
        debug!(peer = who, %error, "the last answers may not have arrived");
    }
    end
}

impl<'a> Session<'a> {
    fn new(gateway: &'a Gateway, who: &str) -> Session<'a> {
        Session {
            gateway,
            who: who.to_owned(),
            offers: Offers::default(),
            queue: Queue::default(),
            pages: 0,
            own_room: intake::room(gateway.grants.bytes_in_flight_per_connection),
            urgent_room: intake::room(limits::BYTES_IN_FLIGHT_URGENT),
            jobs: FuturesUnordered::new(),
            outbox: Vec::new(),
        }
    }

    async fn greet(&mut self, recv: &mut ControlRecv) -> Result<(), End> {
        let Some(frame) = recv.recv().await? else {
            return Err(End::Done);
        };
        let Message::RepeaterHello(hello) = decode(&frame)? else {
            return Err(End::Close(
                Code::Protocol,
                "the first message is not a repeater's hello".to_owned(),
            ));
        };
        if message::common_version(&hello.versions).is_none() {
            let text = format!("no common version: {:?} are spoken here", message::VERSIONS);
            return Err(End::Close(Code::Version, text));
        }
        info!(peer = self.who, software = hello.software, "hello");
        self.take_key_list(&hello);
        let gateway = self.gateway;
        self.outbox.push(Message::ArchiveHello(ArchiveHello {
            versions: message::VERSIONS.to_vec(),
            software: concat!("archive ", env!("CARGO_PKG_VERSION")).to_owned(),
            key_list: Some(gateway.keys.list().bytes().to_vec().into()),
            site: gateway.site.clone(),
            epoch: gateway.keys.epoch(),
            now: gateway.seams.clock.now(),
        }));
        Ok(())
    }

    fn take_key_list(&mut self, hello: &RepeaterHello) {
        let Some(offered) = &hello.key_list else {
            return;
        };
        let gateway = self.gateway;
        match gateway.keys.offer(Bytes::copy_from_slice(offered)) {
            Ok(None) => gateway.alarms.clear(Alarm::KeyListRefused, &self.who),
            Ok(Some(newer)) => {
                gateway.alarms.clear(Alarm::KeyListRefused, &self.who);
                info!(
                    peer = self.who,
                    number = newer.number(),
                    "took a newer key list"
                );
                self.jobs.push(Box::pin(async move {
                    let kept = gateway
                        .keep_key_list(newer.number(), newer.bytes().clone())
                        .await;
                    gateway.watch_store(&kept);
                    Event::KeyListKept
                }));
            }
            Err(protocol::keylist::KeyListError::Older { .. }) => {
                debug!(peer = self.who, "has an older key list")
            }
            Err(error) => gateway.alarm(Alarm::KeyListRefused, &self.who, &error.to_string()),
        }
    }

    async fn pump(
        &mut self,
        peer: &Peer,
        send: &mut ControlSend,
        recv: &mut ControlRecv,
        stop: CancellationToken,
    ) -> Result<(), End> {
        let mut stopping = false;
        let mut leaving = false;
        loop {
            self.flush(send).await?;
            if (stopping || leaving) && self.offers.is_quiet() && self.jobs.is_empty() {
                return if leaving {
                    Ok(())
                } else {
                    Err(End::Close(Code::Shutdown, "stopping".to_owned()))
                };
            }
            let due = self.offers.next_due();
            tokio::select! {
                () = stop.cancelled(), if !stopping => stopping = true,
                () = sleep_until(due), if due.is_some() => self.sign_due(),
                Some(event) = self.jobs.next(), if !self.jobs.is_empty() => self.apply(event)?,
                frame = recv.recv(), if !stopping && !leaving && self.pages < PAGES => match frame? {
                    Some(frame) => self.hear(&frame)?,
                    None => leaving = true,
                },
                stream = peer.connection.accept_uni(), if !stopping => self.announce(stream?),
            }
        }
    }

    async fn flush(&mut self, send: &mut ControlSend) -> Result<(), End> {
        for message in self.outbox.drain(..) {
            let body =
                codec::encode_body(&message).expect("answers are within the limits of a frame");
            send.send(&body).await?;
        }
        Ok(())
    }

    /// Applies one control message.
    fn hear(&mut self, frame: &Bytes) -> Result<(), End> {
        match decode(frame)? {
            Message::Inventory(page) => self.inventory(page),
            Message::Offer(manifest) => self.offered(manifest),
            Message::LogbookHead(head) => self.logbook_head(head),
            Message::Unknown(number) => self.outbox.push(Message::Unsupported(number)),
            Message::Error(error) => warn!(
                peer = self.who,
                code = error.code,
                "the peer reports: {}",
                error.text
            ),
            Message::Unsupported(number) => debug!(
                peer = self.who,
                number, "the peer does not know that message"
            ),
            other => {
                let text = format!("message {} has no place here", other.number());
                return Err(End::Close(Code::Protocol, text));
            }
        }
        Ok(())
    }

    fn inventory(&mut self, page: Bytes) {
        self.pages += 1;
        let (gateway, about) = (self.gateway, protocol::suite::sha256(&page));
        self.jobs.push(Box::pin(async move {
            Event::Page(inventories::keep(gateway, page).await, about)
        }));
    }

    fn logbook_head(&mut self, head: Bytes) {
        self.pages += 1;
        let (gateway, who) = (self.gateway, self.who.clone());
        self.jobs.push(Box::pin(async move {
            Event::Head(Box::new(heads::judge(gateway, &who, head).await))
        }));
    }

    fn offered(&mut self, offered: Bytes) {
        let about = protocol::suite::sha256(&offered);
        let manifest = match admit::verify(self.gateway, offered) {
            Ok(manifest) => manifest,
            Err(refusal) => return self.refuse(about, &refusal),
        };
        let class = manifest.body().class;
        let full = self.queue.is_full(class);
        if full || (class != Class::Urgent && self.gateway.room.available_permits() == 0) {
            return self.busy(about, class);
        }
        self.queue.push(class, manifest);
        self.look_up_next();
    }

    /// Begins the lookups that may begin.
    fn look_up_next(&mut self) {
        while let Some((_, manifest)) = self.queue.start() {
            let gateway = self.gateway;
            self.jobs.push(Box::pin(async move {
                let looked = admit::look_up(gateway, &manifest).await;
                Event::Looked(Box::new(manifest), looked)
            }));
        }
    }

    /// A data stream has begun: its first frame says what it brings.
    fn announce(&mut self, mut stream: RecvStream) {
        self.jobs.push(Box::pin(async move {
            let first = timeout(limits::PROGRESS, read_frame(&mut stream)).await;
            let first = first.map_err(|_| "a stream without its first frame".to_owned());
            let first =
                first.and_then(|frame| frame.map_err(|e| format!("a stream's first frame: {e}")));
            let put = first.and_then(|frame| match codec::decode(&frame) {
                Ok(Message::Put(put)) => Ok(put),
                Ok(other) => Err(format!("message {} on a data stream", other.number())),
                Err(error) => Err(error.to_string()),
            });
            Event::Announced(put.map(|put| (put, stream)))
        }));
    }

    fn apply(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::KeyListKept => {}
            Event::Page(kept, about) => {
                self.pages -= 1;
                if let Err(refusal) = kept {
                    self.refuse(about, &refusal);
                }
            }
            Event::Head(answer) => {
                self.pages -= 1;
                self.outbox.push(*answer);
            }
            Event::Looked(manifest, looked) => {
                self.queue.done(manifest.body().class);
                self.answer(&manifest, looked);
                self.look_up_next();
            }
            Event::Announced(Ok((put, stream))) => self.put(put, stream),
            Event::Announced(Err(text)) => return Err(End::Close(Code::Protocol, text)),
            Event::Received(expected, outcome) => return self.received(&expected, outcome),
        }
        Ok(())
    }

    fn answer(&mut self, manifest: &Manifest, looked: Result<Lookup, Refusal>) {
        let about = manifest.digest();
        let seen = match looked {
            Ok(Lookup::Stored(seen)) => seen,
            Ok(Lookup::Expired) => return self.sign(expired(manifest)),
            Err(refusal) => return self.refuse(about, &refusal),
        };
        match self
            .offers
            .offer(manifest, &seen, self.gateway.seams.clock.instant())
        {
            Answer::Nothing => {}
            Answer::Want(want) => self.outbox.push(Message::Want(want)),
            Answer::Busy => self.busy(about, manifest.body().class),
        }
    }

    fn put(&mut self, put: Put, mut stream: RecvStream) {
        let now = self.gateway.seams.clock.instant();
        let Some(expected) = self.offers.take(put.manifest, put.digest, now) else {
            let _ = stream.stop(Code::Refused.number().into());
            let text = "it was not wanted on this connection, or more was put than granted";
            return self.refuse(put.digest, &Refusal::new(message::Reason::NotWanted, &text));
        };
        let gateway = self.gateway;
        let room = Arc::clone(match expected.class {
            Class::Urgent => &self.urgent_room,
            _ => &self.own_room,
        });
        self.jobs.push(Box::pin(async move {
            let outcome = intake::receive(gateway, &room, &expected, stream).await;
            Event::Received(Box::new(expected), outcome)
        }));
    }

    fn received(&mut self, expected: &Expected, outcome: Outcome) -> Result<(), End> {
        let now = self.gateway.seams.clock.instant();
        if outcome != Outcome::Durable {
            self.offers.failed(expected);
        }
        match outcome {
            Outcome::Durable => {
                self.offers.durable(expected, now);
                self.sign_due();
            }
            Outcome::Refused(refusal) => self.refuse(expected.digest, &refusal),
            Outcome::Busy => self.busy(expected.digest, expected.class),
            Outcome::GivenUp => {
                debug!(peer = self.who, digest = %expected.digest, "a put was given up")
            }
            Outcome::Stalled => {
                self.gateway.metrics.stalled.inc();
                return Err(End::Close(
                    Code::Timeout,
                    format!("the stream of {} stood still", expected.digest),
                ));
            }
        }
        Ok(())
    }

    fn sign_due(&mut self) {
        for draft in self.offers.due(self.gateway.seams.clock.instant()) {
            self.sign(draft);
        }
    }

    fn sign(&mut self, draft: Draft) {
        let (gateway, about) = (self.gateway, draft.header);
        match gateway.keys.sign(draft, gateway.seams.clock.now()) {
            Ok(receipt) => {
                gateway.metrics.receipts.inc();
                gateway
                    .alarms
                    .clear(Alarm::CannotSign, gateway.site.as_str());
                self.outbox.push(Message::Receipt(receipt.bytes().clone()));
            }
            Err(error) => {
                gateway.alarm(Alarm::CannotSign, gateway.site.as_str(), &error.to_string());
                self.refuse(about, &Refusal::new(message::Reason::StoreFailed, &error));
            }
        }
    }

    fn refuse(&mut self, about: Digest, refusal: &Refusal) {
        self.gateway.metrics.refused(refusal.reason);
        warn!(peer = self.who, %about, reason = reason_name(refusal.reason), "refused: {}", refusal.text);
        self.outbox
            .push(Message::refused(about, refusal.reason, &refusal.text));
    }

    fn busy(&mut self, about: Digest, class: Class) {
        self.gateway.metrics.busy.inc();
        self.outbox.push(Message::Busy(Busy {
            about,
            class,
            retry_after_ms: limits::RETRY_AFTER_MS,
        }));
    }
}

fn decode(frame: &Bytes) -> Result<Message, End> {
    codec::decode(frame).map_err(|e| match e {
        message::MessageError::Limit(_) => End::Close(Code::Limit, e.to_string()),
        message::MessageError::Malformed(_) => End::Close(Code::Protocol, e.to_string()),
    })
}

fn expired(manifest: &Manifest) -> Draft {
    let body = manifest.body();
    Draft {
        recording: body.recording.clone(),
        header: body.header.digest,
        segments: body.segments.iter().map(|s| s.digest).collect(),
        manifest: manifest.digest(),
        verdict: Verdict::Expired,
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
