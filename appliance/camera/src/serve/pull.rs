//! One pull: a digest and an offset are asked for on a stream of their own, and the bytes follow raw.
//!
//! The bytes go from the file to the stream in pieces of at most 256 KiB, read on the blocking pool and handed to the
//! connection without a further copy; the next piece is read while the last one is taken. Every way this can
//! fail resets this stream with a code, and costs nobody else anything.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use link::frame::{self, FrameError};
use protocol::codec;
use protocol::message::{BytesFollow, Code, Message};
use quinn::{RecvStream, SendStream};
use tracing::{debug, warn};

use super::custodian::{Disk, Request};
use super::session::Session;
use crate::limits;

/// Serves one stream to its end, or resets it.
pub(crate) async fn serve(session: Arc<Session>, mut send: SendStream, mut recv: RecvStream) {
    match answer(&session, &mut send, &mut recv).await {
        Ok(()) => {}
        Err(code) => {
            debug!(session = session.id, ?code, "a pull is reset");
            let _ = send.reset(code.number().into()); // fails only where the stream has ended
            let _ = recv.stop(code.number().into());
        }
    }
}

async fn answer(
    session: &Session,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Code> {
    let frame = frame::read_frame(recv).await.map_err(|error| match error {
        FrameError::Timeout => Code::Timeout,
        _ => Code::Protocol,
    })?;
    let pull = match codec::decode(&frame) {
        Ok(Message::Pull(pull)) => pull,
        Ok(_) | Err(_) => return Err(Code::Protocol),
    };
    let found = session
        .desk
        .ask(|answer| Request::Locate(pull.digest, answer))
        .await
        .ok_or(Code::Shutdown)?;
    let (path, length) = found.ok_or(Code::NotHere)?;
    let left = length.checked_sub(pull.offset).ok_or(Code::Protocol)?;
    if !session.ask_turn() {
        return Err(Code::Busy);
    }
    let file = session.disk.run(move || open(&path, pull.offset)).await?;
    let follow = codec::encode_body(&Message::Bytes(BytesFollow { length: left }))
        .map_err(|_| Code::Internal)?;
    frame::write_frame(send, &follow)
        .await
        .map_err(|_| Code::Timeout)?;
    copy(session, send, file, left).await?;
    send.finish().map_err(|_| Code::Protocol)
}

fn open(path: &Path, offset: u64) -> Result<File, Code> {
    let opened =
        File::open(path).and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file));
    opened.map_err(|error| {
        // Gone means erased a moment ago, or damage: the next start says which.
        warn!(path = %path.display(), %error, "a segment cannot be opened");
        if error.kind() == io::ErrorKind::NotFound {
            Code::NotHere
        } else {
            Code::Internal
        }
    })
}

async fn copy(
    session: &Session,
    send: &mut SendStream,
    file: File,
    mut left: u64,
) -> Result<(), Code> {
    let mut next = read(session.disk, file, left).await;
    while left > 0 {
        let (file, piece) = next.ok_or(Code::Internal)?;
        left = left.checked_sub(piece.len() as u64).ok_or(Code::Internal)?;
        if piece.is_empty() {
            return Err(Code::Internal); // shorter than when it was located
        }
        let (after, sent) = tokio::join!(
            read_if(session.disk, file, left),
            write(session, send, piece)
        );
        sent?;
        next = after;
    }
    Ok(())
}

async fn read_if(disk: Disk, file: File, left: u64) -> Option<(File, Bytes)> {
    if left == 0 {
        None
    } else {
        read(disk, file, left).await
    }
}

async fn read(disk: Disk, file: File, left: u64) -> Option<(File, Bytes)> {
    disk.run(move || {
        let size = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(limits::CHUNK_BYTES);
        let mut piece = Vec::with_capacity(size);
        let mut part = file.take(size as u64);
        match part.read_to_end(&mut piece) {
            Ok(_) => Some((part.into_inner(), piece.into())),
            Err(error) => {
                warn!(%error, "a segment cannot be read");
                None
            }
        }
    })
    .await
}

/// Hands one piece to the connection; it goes on while the session takes bytes on any stream and has the turn.
async fn write(session: &Session, send: &mut SendStream, piece: Bytes) -> Result<(), Code> {
    let mut writing = std::pin::pin!(send.write_chunk(piece));
    loop {
        tokio::select! {
            written = &mut writing => {
                written.map_err(|_| Code::Done)?; // the peer stopped the stream or has gone
                return if session.took() { Ok(()) } else { Err(Code::Busy) };
            }
            () = session.lost_turn() => return Err(Code::Busy),
            () = tokio::time::sleep(limits::TURN_SILENCE) => {
                if session.silence().is_none_or(|silent| silent >= limits::STALL) {
                    return Err(Code::Timeout);
                }
            }
        }
    }
}
