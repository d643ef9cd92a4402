//! An archive site that says what the scenario wants: certified by the agency, taking what it is offered, and signing
//! whatever it is told to sign.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use link::frame::read_frame;
use link::quic::Hop;
use protocol::codec;
use protocol::identity::Trust;
use protocol::ids::{Digest, SiteId, StoreEpoch, Time};
use protocol::limits::SEGMENT_BYTES;
use protocol::logbook::SignedHead;
use protocol::manifest::Manifest;
use protocol::message::{ArchiveHello, Busy, Code, Message, VERSIONS, Want};

use crate::double::{Listening, Talk, site_keyring};
use crate::station::Station;

/// What is said when something comes.
type Says = Arc<dyn Fn(&Manifest) -> Vec<Message> + Send + Sync>;

/// What is said to the head of a logbook.
type SaysToHead = Arc<dyn Fn(&SignedHead) -> Message + Send + Sync>;

/// What the double says and does.
#[derive(Clone)]
pub struct Script {
    /// The site that it says it is.
    pub site: SiteId,
    /// Its store's epoch.
    pub epoch: StoreEpoch,
    /// The key list that it knows.
    pub key_list: Option<Bytes>,
    /// What it says to an offer; everything is wanted where none is given.
    pub offered: Option<Says>,
    /// What it says once all of a manifest came.
    pub stored: Says,
    /// What came, by digest: its bytes hash to it, or not.
    pub took: Arc<Mutex<HashMap<Digest, Bytes>>>,
    /// Whether the next header that comes is put off.
    pub busy: Arc<AtomicBool>,
    /// Whether it answers once a header came, and not only when all did.
    pub hasty: bool,
    /// What it says to the head of a logbook; nothing where none is given.
    pub heads: Option<SaysToHead>,
    /// How many heads came.
    pub told: Arc<AtomicU64>,
    /// The agency's root.
    pub trust: Trust,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Script({})", self.site)
    }
}

impl Script {
    /// A site that takes everything and then says what `stored` says.
    #[must_use]
    pub fn new(
        station: &Station,
        site: &str,
        stored: impl Fn(&Manifest) -> Vec<Message> + Send + Sync + 'static,
    ) -> Script {
        Script {
            site: site.parse().unwrap(),
            epoch: StoreEpoch([5; 16]),
            key_list: Some(station.key_list().bytes().clone()),
            offered: None,
            stored: Arc::new(stored),
            took: Arc::default(),
            busy: Arc::default(),
            hasty: false,
            heads: None,
            told: Arc::default(),
            trust: station.trust(),
        }
    }

    /// A site that answers each offer so.
    #[must_use]
    pub fn offered(
        self,
        says: impl Fn(&Manifest) -> Vec<Message> + Send + Sync + 'static,
    ) -> Script {
        Script {
            offered: Some(Arc::new(says)),
            ..self
        }
    }

    /// Serves, in the background, with the credentials of `site`.
    #[must_use]
    pub fn listen(&self, station: &Station, site: &str) -> Listening {
        let script = self.clone();
        Listening::start(Hop::Archive, site_keyring(station, site), move |talk| {
            serve(script.clone(), talk)
        })
    }

    /// What came.
    pub fn took(&self) -> MutexGuard<'_, HashMap<Digest, Bytes>> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_all(&self, manifest: &Manifest) -> bool {
        let took = self.took();
        let body = manifest.body();
        body.segments
            .iter()
            .map(|s| s.digest)
            .chain([body.header.digest])
            .all(|d| took.contains_key(&d))
    }
}

async fn serve(script: Script, mut talk: Talk) {
    let Some(Message::RepeaterHello(_)) = talk.hear().await else {
        return;
    };
    talk.say(&Message::ArchiveHello(ArchiveHello {
        versions: VERSIONS.to_vec(),
        software: "double".into(),
        key_list: script.key_list.as_ref().map(|b| b.to_vec().into()),
        site: script.site.clone(),
        epoch: script.epoch,
        now: Time(1_790_000_000_000),
    }))
    .await;
    let connection = talk.peer.connection.clone();
    let mut offered: HashMap<Digest, Manifest> = HashMap::new();
    loop {
        tokio::select! {
            frame = talk.control.recv() => {
                let Ok(Some(frame)) = frame else { return };
                let bytes = match codec::decode(&frame) {
                    Ok(Message::Offer(bytes)) => bytes,
                    Ok(Message::LogbookHead(bytes)) => {
                        head(&script, &mut talk, bytes).await;
                        continue;
                    }
                    _ => continue,
                };
                let manifest = Manifest::verify(bytes, &script.trust).unwrap();
                answer(&script, &mut talk, &manifest).await;
                offered.insert(manifest.digest(), manifest);
            }
            stream = connection.accept_uni() => {
                let Ok(mut stream) = stream else { return };
                let Ok(frame) = read_frame(&mut stream).await else { continue };
                let Ok(Message::Put(put)) = codec::decode(&frame) else { panic!("not a put") };
                let header = offered[&put.manifest].body().header.digest;
                if put.digest == header && script.busy.swap(false, Ordering::Relaxed) {
                    let _ = stream.stop(Code::Busy.number().into());
                    let (about, class) = (header, offered[&put.manifest].body().class);
                    talk.say(&Message::Busy(Busy { about, class, retry_after_ms: 1_000 })).await;
                    continue;
                }
                let Ok(bytes) = stream.read_to_end(SEGMENT_BYTES).await else { continue };
                script.took().insert(put.digest, bytes.into());
                let manifest = &offered[&put.manifest];
                if script.has_all(manifest) || script.hasty && put.digest == header {
                    say_all(&mut talk, (script.stored)(manifest)).await;
                }
            }
        }
    }
}

async fn head(script: &Script, talk: &mut Talk, bytes: Bytes) {
    script.told.fetch_add(1, Ordering::Relaxed);
    if let Some(says) = &script.heads {
        let head = SignedHead::verify(bytes, &script.trust).unwrap();
        talk.say(&says(&head)).await;
    }
}

async fn answer(script: &Script, talk: &mut Talk, manifest: &Manifest) {
    if let Some(offered) = &script.offered {
        return say_all(talk, offered(manifest)).await;
    }
    if script.has_all(manifest) {
        return say_all(talk, (script.stored)(manifest)).await;
    }
    say_all(talk, vec![want_all(manifest)]).await;
}

/// Wants everything that a manifest names.
#[must_use]
pub fn want_all(manifest: &Manifest) -> Message {
    let body = manifest.body();
    let digests: Vec<Digest> = std::iter::once(body.header.digest)
        .chain(body.segments.iter().map(|s| s.digest))
        .collect();
    let grant = u32::try_from(digests.len()).unwrap();
    Message::Want(Want {
        manifest: manifest.digest(),
        digests,
        grant,
    })
}

async fn say_all(talk: &mut Talk, messages: Vec<Message>) {
    for message in messages {
        talk.say(&message).await;
    }
}
