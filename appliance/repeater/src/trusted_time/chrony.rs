//! How far off chronyd reckons this machine's clock to be: one question and one answer of its command protocol (version 6,
//! REQ_TRACKING), as `chronyc tracking` asks it, on UDP of the loopback. Pure: bytes in, bytes out.
//!
//! The bound is the one that chronyd's manual gives: what is still to be corrected, and the dispersion and half the delay
//! to the reference. Whatever is not an answer to our question is passed over; nothing of it is believed in part.

use std::time::Duration;

/// An answer's length; a question is as long, so that nobody's answers grow by asking.
pub const BYTES: usize = 104;

const VERSION: u8 = 6;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const REQ_TRACKING: u16 = 33;
const RPY_TRACKING: u16 = 5;
/// Leap status of a clock that follows no source.
const UNSYNCHRONISED: u16 = 3;

/// What chronyd says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// The clock follows a source, and is off by so much at most.
    Within(Duration),
    /// It follows none.
    Nobody,
}

/// The question. `sequence` comes back in its answer.
#[must_use]
pub fn question(sequence: u32) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[0] = VERSION;
    bytes[1] = REQUEST;
    bytes[4..6].copy_from_slice(&REQ_TRACKING.to_be_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_be_bytes());
    bytes
}

/// An answer to the question with this sequence; none for anything else.
#[must_use]
pub fn answer(bytes: &[u8], sequence: u32) -> Option<Tracking> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let short = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let long = |at: usize| {
        let [a, b, c, d] = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        u32::from_be_bytes([a, b, c, d])
    };
    let is_ours = bytes[..2] == [VERSION, REPLY]
        && (short(4), short(6), short(8)) == (REQ_TRACKING, RPY_TRACKING, 0)
        && long(16) == sequence;
    if !is_ours {
        return None;
    }
    if short(54) == UNSYNCHRONISED {
        return Some(Tracking::Nobody);
    }
    let (correction, delay, dispersion) = (float(long(68)), float(long(92)), float(long(96)));
    let seconds = correction.abs() + dispersion + delay / 2.0;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .map(Tracking::Within)
}

/// chrony's float: seven bits of exponent, then 25 of coefficient, both signed; the point is before the coefficient.
fn float(bits: u32) -> f64 {
    let exponent = (bits.cast_signed() >> 25) - 25;
    let coefficient = (bits << 7).cast_signed() >> 7;
    f64::from(coefficient) * f64::from(exponent).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_read() {
        for (bits, value) in [
            (0, 0.0),
            (0x0280_0000, 0.5), // 2^23 * 2^(1 - 25)
            (0x0380_0000, -0.5),
            (0x0480_0000, 1.0), // 2^23 * 2^(2 - 25)
            (0xfe80_0000, 0.125),
            (0x8000_0001, (-89.0_f64).exp2()),
        ] {
            assert!(
                (float(bits) - value).abs() < 1e-30,
                "{bits:#x}: {}",
                float(bits)
            );
        }
    }

    fn reply(sequence: u32) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[0] = VERSION;
        bytes[1] = REPLY;
        bytes[4..6].copy_from_slice(&REQ_TRACKING.to_be_bytes());
        bytes[6..8].copy_from_slice(&RPY_TRACKING.to_be_bytes());
        bytes[16..20].copy_from_slice(&sequence.to_be_bytes());
        bytes[68..72].copy_from_slice(&0x0380_0000_u32.to_be_bytes());
        bytes[92..96].copy_from_slice(&0x0480_0000_u32.to_be_bytes());
        bytes[96..100].copy_from_slice(&0xfe80_0000_u32.to_be_bytes());
        bytes
    }

    #[test]
    fn the_bound_is_correction_dispersion_and_half_the_delay() {
        let within = Tracking::Within(Duration::from_millis(1125));
        assert_eq!(answer(&reply(7), 7), Some(within));
        let mut alone = reply(7);
        alone[55] = 3;
        assert_eq!(answer(&alone, 7), Some(Tracking::Nobody));
    }

    #[test]
    fn what_is_no_answer_to_our_question_is_nothing() {
        assert_eq!(answer(&reply(8), 7), None);
        assert_eq!(answer(&reply(7)[..103], 7), None);
        assert_eq!(answer(&[&reply(7)[..], &[0]].concat(), 7), None);
        assert_eq!(answer(&question(7), 7), None);
        for (at, byte) in [(0, 5), (1, 1), (5, 34), (7, 6), (9, 1)] {
            let mut bytes = reply(7);
            bytes[at] = byte;
            assert_eq!(answer(&bytes, 7), None, "byte {at}");
        }
        // A bound that no duration holds.
        let mut bytes = reply(7);
        bytes[96..100].copy_from_slice(&0x0780_0000_u32.to_be_bytes()); // less than nothing
        assert_eq!(answer(&bytes, 7), None);
    }
}
