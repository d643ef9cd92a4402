//! One segment's way from its file to the site's stream: a straight line. Read in large pieces on the blocking
//! pool, so that a slow disk never holds the hop's thread, and sent as they are.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use link::frame;
use link::quic::Peer;
use link::tasks::Tasks;
use protocol::codec;
use protocol::ids::{Digest, SiteId};
use protocol::message::{Code, Message, Put};
use quinn::{SendStream, VarInt, WriteError};
use spool::PutTask;

use super::sites::Sites;
use crate::commit::{Storage, StorageError};
use crate::limits;
use crate::metrics::Metrics;

/// How a put ended.
#[derive(Debug)]
pub enum Outcome {
    /// The site's side has all bytes; the receipt is awaited.
    Sent,
    /// The site stopped the stream: with this code.
    Stopped(u64),
    /// The connection broke.
    Broken(String),
    /// The session gave it up.
    GivenUp,
    /// The copy on this disk cannot be read.
    Unreadable(String),
}

/// What a put needs of its session.
#[derive(Clone, Debug)]
pub struct Means {
    /// The connection.
    pub peer: Peer,
    /// The site.
    pub site: SiteId,
    /// The storage thread.
    pub storage: Storage,
    /// Figures.
    pub metrics: Metrics,
    /// The sites' register.
    pub sites: Sites,
}

/// Puts one segment or header, until `stop`. `order` falls with each put of a session: earlier ones go first.
pub async fn put(means: Means, task: PutTask, order: i32, stop: Tasks) -> (Digest, Outcome) {
    let digest = task.digest;
    let outcome = match stream(&means, &task, order, &stop).await {
        Ok(()) => Outcome::Sent,
        Err(outcome) => outcome,
    };
    (digest, outcome)
}

async fn stream(means: &Means, task: &PutTask, order: i32, stop: &Tasks) -> Result<(), Outcome> {
    let digest = task.digest;
    let file = means
        .storage
        .ask(move |spool, _| spool.open_copy(&digest))
        .await
        .map_err(|e| match e {
            StorageError::Gone => Outcome::Broken(e.to_string()),
            other => Outcome::Unreadable(other.to_string()),
        })?;
    let broken = |e: quinn::ConnectionError| Outcome::Broken(link::quic::explain(&e));
    let mut send = tokio::select! {
        opened = means.peer.connection.open_uni() => opened.map_err(broken)?,
        () = stop.cancelled() => return Err(Outcome::GivenUp),
    };
    let _ = send.set_priority(order);
    let announce = Message::Put(Put {
        manifest: task.manifest,
        digest,
    });
    let announce = codec::encode_body(&announce).expect("a put fits a frame");
    let went = tokio::select! {
        went = whole(means, &mut send, &announce, file, task.length) => went,
        () = stop.cancelled() => Err(Outcome::GivenUp),
    };
    // A stream that is only dropped would end as if it were whole.
    went.inspect_err(|_| {
        let _ = send.reset(VarInt::from_u32(Code::Internal.number()));
    })
}

/// Sends all of it and waits until the site's side has it.
async fn whole(
    means: &Means,
    send: &mut SendStream,
    announce: &[u8],
    file: File,
    length: u32,
) -> Result<(), Outcome> {
    frame::write_frame(send, announce)
        .await
        .map_err(|e| Outcome::Broken(e.to_string()))?;
    bytes(means, send, Arc::new(file), length).await?;
    let _ = send.finish();
    match send.stopped().await {
        Ok(None) => Ok(()),
        Ok(Some(code)) => Err(Outcome::Stopped(code.into_inner())),
        Err(e) => Err(Outcome::Broken(e.to_string())),
    }
}

async fn bytes(
    means: &Means,
    send: &mut SendStream,
    file: Arc<File>,
    length: u32,
) -> Result<(), Outcome> {
    let length = u64::from(length);
    let put = means
        .metrics
        .put_bytes
        .with_label_values(&[means.site.as_str()]);
    let mut offset = 0;
    while offset < length {
        let most = usize::try_from(length - offset)
            .unwrap_or(usize::MAX)
            .min(limits::READ_BYTES);
        let chunk = read(Arc::clone(&file), offset, most)
            .await
            .map_err(|e| Outcome::Unreadable(e.to_string()))?;
        offset += most as u64;
        send.write_chunk(chunk).await.map_err(|e| match e {
            WriteError::Stopped(code) => Outcome::Stopped(code.into_inner()),
            other => Outcome::Broken(other.to_string()),
        })?;
        put.inc_by(most as u64);
        means.sites.put(&means.site, most as u64);
    }
    Ok(())
}

async fn read(file: Arc<File>, offset: u64, length: usize) -> std::io::Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        let mut chunk = vec![0; length];
        file.read_exact_at(&mut chunk, offset)?;
        Ok(Bytes::from(chunk))
    });
    read.await.map_err(std::io::Error::other)?
}
