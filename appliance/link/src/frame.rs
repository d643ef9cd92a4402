//! What a stream looks like: frames of a u32 big-endian length and that many bytes, one CBOR item of at most
//! 64 KiB, which `protocol` encodes and decodes; this module never looks inside.
//!
//! The control stream is frames only ([`Control`], through tokio-util's codec). A data stream is one frame and
//! then raw bytes, which pass no codec: [`read_frame`] takes the frame's bytes exactly and leaves the stream where
//! the raw bytes begin.
//!
//! A length over the limit is refused before anything is allocated for it. Sending has a deadline: a peer that
//! does not read its control stream ends its own session. Receiving has none: QUIC's idle timeout is the
//! deadline of a silent peer.

use std::future::Future;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use protocol::limits::FRAME_BYTES;
use quinn::{
    Connection, ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, WriteError,
};
use tokio::time::timeout;
use tokio_util::codec::{Decoder, Encoder, FramedRead, FramedWrite};

use crate::limits;

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;
/// Above every segment: a word about custody never waits behind footage.
const CONTROL_PRIORITY: i32 = i32::MAX;

/// Why a frame did not come or go.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than a frame may be: the peer's fault, or a message of ours that should have been split.
    #[error("a frame of {length} bytes, at most {FRAME_BYTES} are taken")]
    TooLong {
        /// What was announced.
        length: u64,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The peer did not take or answer in time.
    #[error("the peer stood still for {limit:?}", limit = limits::CONTROL)]
    Timeout,
    /// The peer reset or stopped the stream.
    #[error("the peer ended the stream: {0}")]
    Stream(io::Error),
    /// The connection ended.
    #[error("{}", crate::quic::explain(.0))]
    Connection(#[from] ConnectionError),
}

/// The frame codec: lengths and limits, nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = Bytes;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = checked_length(*length)?;
        if buffer.len() < LENGTH_BYTES + length {
            buffer.reserve(LENGTH_BYTES + length - buffer.len());
            return Ok(None);
        }
        buffer.advance(LENGTH_BYTES);
        Ok(Some(buffer.split_to(length).freeze()))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        match self.decode(buffer)? {
            None if !buffer.is_empty() => Err(FrameError::Truncated),
            frame => Ok(frame),
        }
    }
}

impl Encoder<&[u8]> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, item: &[u8], buffer: &mut BytesMut) -> Result<(), FrameError> {
        let length = frame_length(item)?;
        buffer.reserve(LENGTH_BYTES + item.len());
        buffer.extend_from_slice(&length);
        buffer.extend_from_slice(item);
        Ok(())
    }
}

impl From<io::Error> for FrameError {
    /// quinn's streams wrap their errors for tokio's traits: takes them out again.
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref();
        let read = inner.and_then(|e| match e.downcast_ref() {
            Some(ReadError::ConnectionLost(e)) => Some(e),
            _ => None,
        });
        let write = inner.and_then(|e| match e.downcast_ref() {
            Some(WriteError::ConnectionLost(e)) => Some(e),
            _ => None,
        });
        match read.or(write) {
            Some(e) => FrameError::Connection(e.clone()),
            None => FrameError::Stream(error),
        }
    }
}

fn checked_length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(bytes);
    match usize::try_from(length) {
        Ok(n) if n <= FRAME_BYTES => Ok(n),
        _ => Err(FrameError::TooLong {
            length: length.into(),
        }),
    }
}

fn frame_length(item: &[u8]) -> Result<[u8; LENGTH_BYTES], FrameError> {
    let too_long = || FrameError::TooLong {
        length: item.len() as u64,
    };
    let length = u32::try_from(item.len()).map_err(|_| too_long())?;
    checked_length(length.to_be_bytes())?;
    Ok(length.to_be_bytes())
}

/// A session's control stream.
#[derive(Debug)]
pub struct Control {
    send: ControlSend,
    recv: ControlRecv,
}

/// Its sending half.
#[derive(Debug)]
pub struct ControlSend(FramedWrite<SendStream, FrameCodec>);

/// Its receiving half.
#[derive(Debug)]
pub struct ControlRecv(FramedRead<RecvStream, FrameCodec>);

impl Control {
    /// Opens the control stream: the dialler's side. The peer sees it with the first frame.
    ///
    /// # Errors
    /// [`FrameError::Timeout`], [`FrameError::Connection`].
    pub async fn open(connection: &Connection) -> Result<Self, FrameError> {
        let (send, recv) = in_time(async { Ok(connection.open_bi().await?) }).await?;
        Self::new(send, recv)
    }

    /// Takes the control stream that the dialler opens: the listener's side.
    ///
    /// # Errors
    /// [`FrameError::Timeout`], [`FrameError::Connection`].
    pub async fn accept(connection: &Connection) -> Result<Self, FrameError> {
        let (send, recv) = in_time(async { Ok(connection.accept_bi().await?) }).await?;
        Self::new(send, recv)
    }

    fn new(send: SendStream, recv: RecvStream) -> Result<Self, FrameError> {
        send.set_priority(CONTROL_PRIORITY)
            .map_err(|e| FrameError::Stream(io::Error::other(e)))?;
        let send = ControlSend(FramedWrite::new(send, FrameCodec));
        Ok(Control {
            send,
            recv: ControlRecv(FramedRead::new(recv, FrameCodec)),
        })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// Any [`FrameError`] but `Truncated`.
    pub async fn send(&mut self, item: &[u8]) -> Result<(), FrameError> {
        self.send.send(item).await
    }
    /// The next frame; `None` when the peer has finished the stream. Cancel-safe.
    ///
    /// # Errors
    /// Any [`FrameError`] but `Timeout`.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.recv.recv().await
    }
    /// The halves, for two owners.
    #[must_use]
    pub fn split(self) -> (ControlSend, ControlRecv) {
        (self.send, self.recv)
    }
}

impl ControlSend {
    /// Sends one frame.
    ///
    /// # Errors
    /// Any [`FrameError`] but `Truncated`.
    pub async fn send(&mut self, item: &[u8]) -> Result<(), FrameError> {
        in_time(self.0.send(item)).await
    }
    /// Finishes the stream and waits until the peer has all of it: closing a connection discards what is
    /// still on its way.
    ///
    /// # Errors
    /// [`FrameError::Timeout`], or what ended the connection.
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        let stream = self.0.get_mut();
        let _ = stream.finish(); // fails only where the stream has ended
        let ended = stream.stopped();
        in_time(async {
            ended
                .await
                .map(drop)
                .map_err(|e| FrameError::from(io::Error::from(e)))
        })
        .await
    }
}

impl ControlRecv {
    /// The next frame; `None` when the peer has finished the stream. Cancel-safe.
    ///
    /// # Errors
    /// Any [`FrameError`] but `Timeout`.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.0.next().await.transpose()
    }
}

/// Writes the frame with which a data stream begins; raw bytes follow through the stream itself.
///
/// # Errors
/// Any [`FrameError`] but `Truncated`.
pub async fn write_frame(stream: &mut SendStream, item: &[u8]) -> Result<(), FrameError> {
    let mut chunks = [
        Bytes::copy_from_slice(&frame_length(item)?),
        Bytes::copy_from_slice(item),
    ];
    in_time(async {
        stream
            .write_all_chunks(&mut chunks)
            .await
            .map_err(|e| match e {
                WriteError::ConnectionLost(e) => FrameError::Connection(e),
                other => FrameError::Stream(io::Error::other(other)),
            })
    })
    .await
}

/// Reads the frame with which a data stream begins, and not one byte more. Not cancel-safe.
///
/// # Errors
/// Any [`FrameError`].
pub async fn read_frame(stream: &mut RecvStream) -> Result<Bytes, FrameError> {
    in_time(next_frame(stream)).await
}

/// As [`read_frame`], without a deadline of its own: for an answer that may rightly wait behind other segments.
/// The caller bounds the wait.
///
/// # Errors
/// Any [`FrameError`] but `Timeout`.
pub async fn next_frame(stream: &mut RecvStream) -> Result<Bytes, FrameError> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await.map_err(read_error)?;
    let mut item = vec![0; checked_length(length)?];
    stream.read_exact(&mut item).await.map_err(read_error)?;
    Ok(item.into())
}

fn read_error(error: ReadExactError) -> FrameError {
    match error {
        ReadExactError::FinishedEarly(_) => FrameError::Truncated,
        ReadExactError::ReadError(ReadError::ConnectionLost(e)) => FrameError::Connection(e),
        ReadExactError::ReadError(e) => FrameError::Stream(io::Error::other(e)),
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, FrameError>>) -> Result<T, FrameError> {
    timeout(limits::CONTROL, work)
        .await
        .unwrap_or(Err(FrameError::Timeout))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn frames_come_whole_however_they_are_split() {
        let items: [&[u8]; 4] = [b"", b"a", &[7; FRAME_BYTES], b"last"];
        let mut wire = BytesMut::new();
        items
            .iter()
            .for_each(|item| FrameCodec.encode(item, &mut wire).unwrap());
        for step in [1, 3, 4, 5, 1000, wire.len()] {
            let (mut buffer, mut got) = (BytesMut::new(), vec![]);
            for piece in wire.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = FrameCodec.decode(&mut buffer).unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, items, "in pieces of {step}");
            assert!(FrameCodec.decode_eof(&mut buffer).unwrap().is_none());
        }
    }

    #[test]
    fn a_length_over_the_limit_allocates_nothing() {
        for length in [u32::try_from(FRAME_BYTES).unwrap() + 1, u32::MAX] {
            let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
            let before = buffer.capacity();
            let error = FrameCodec.decode(&mut buffer).unwrap_err();
            assert!(matches!(error, FrameError::TooLong { length: l } if l == u64::from(length)));
            assert_eq!(buffer.capacity(), before);
        }
        let long = vec![0; FRAME_BYTES + 1];
        assert!(matches!(
            FrameCodec.encode(&long, &mut BytesMut::new()),
            Err(FrameError::TooLong { .. })
        ));
    }

    #[test]
    fn a_truncated_frame_is_an_error_at_the_end() {
        let mut wire = BytesMut::new();
        FrameCodec.encode(b"whole", &mut wire).unwrap();
        for end in 1..wire.len() {
            let mut buffer = BytesMut::from(&wire[..end]);
            assert!(
                matches!(
                    FrameCodec.decode_eof(&mut buffer),
                    Err(FrameError::Truncated)
                ),
                "{end}"
            );
        }
    }
}
