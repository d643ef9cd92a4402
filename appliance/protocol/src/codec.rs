//! Frames, sans IO: a u32 big-endian length, then one CBOR item of at most 64 KiB. `link` gives this a
//! stream; here are only the rules.

use crate::limits;
use crate::message::{Message, MessageError};

/// Bytes of a frame's length prefix.
pub const PREFIX_BYTES: usize = 4;

/// A frame that may not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes, at most {max} are taken", max = limits::FRAME_BYTES)]
pub struct FrameTooLong(pub u64);

/// The length that a prefix announces, checked before anything is allocated for it.
///
/// # Errors
/// [`FrameTooLong`].
pub fn body_length(prefix: [u8; PREFIX_BYTES]) -> Result<usize, FrameTooLong> {
    let length = u32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(fits) if fits <= limits::FRAME_BYTES => Ok(fits),
        _ => Err(FrameTooLong(length.into())),
    }
}

/// A message as one frame, prefix included.
///
/// # Errors
/// [`FrameTooLong`] for a message that no peer would read.
pub fn encode(message: &Message) -> Result<Vec<u8>, FrameTooLong> {
    let mut frame = vec![0; PREFIX_BYTES];
    message.encode_into(&mut frame);
    let length = frame.len() - PREFIX_BYTES;
    let prefix = u32::try_from(length)
        .ok()
        .filter(|_| length <= limits::FRAME_BYTES);
    let prefix = prefix.ok_or(FrameTooLong(u64::try_from(length).unwrap_or(u64::MAX)))?;
    frame[..PREFIX_BYTES].copy_from_slice(&prefix.to_be_bytes());
    Ok(frame)
}

/// A message as a frame's body, without the prefix.
///
/// # Errors
/// [`FrameTooLong`] for a message that no peer would read.
pub fn encode_body(message: &Message) -> Result<Vec<u8>, FrameTooLong> {
    let mut body = Vec::new();
    message.encode_into(&mut body);
    if body.len() > limits::FRAME_BYTES {
        return Err(FrameTooLong(u64::try_from(body.len()).unwrap_or(u64::MAX)));
    }
    Ok(body)
}

/// The message in a frame's body. Unknown numbers decode to [`Message::Unknown`], unknown map keys are
/// passed over.
///
/// # Errors
/// [`MessageError`] for anything that SPEC.md does not allow.
pub fn decode(body: &[u8]) -> Result<Message, MessageError> {
    Message::decode(body)
}
