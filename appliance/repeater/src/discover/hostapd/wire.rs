//! What hostapd says on its control socket: events by themselves, answers to what was asked.
//!
//! Every datagram is text. An event begins with its level in angle brackets (`<3>AP-STA-CONNECTED ...`), all else
//! answers the one question that is open. What cannot be read is [`Heard::Nothing`]: hostapd has many events, and
//! a newer one has more.

use std::time::Duration;

use crate::discover::Mac;

/// Longest datagram that is read: hostapd's own answers are at most 4 KiB, with what it adds.
pub(super) const DATAGRAM_BYTES: usize = 8192;

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Something happened.
    Event(Event),
    /// The answer to what was asked.
    Answer(&'a [u8]),
    /// An event that says nothing to us.
    Nothing,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A station is associated and, where the link asks for it, authenticated.
    Connected(Mac),
    /// A station left, or was sent away.
    Disconnected(Mac),
    /// A station has shown who it is, maybe not for the first time.
    Proved(Mac),
    /// Stations have come or gone in a way that only asking tells.
    Changed,
    /// hostapd ends.
    Terminating,
}

/// A station, as STA-FIRST and STA-NEXT tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its address.
    pub mac: Mac,
    /// Whether its port is open: one that is being authenticated is not there yet.
    pub authorized: bool,
    /// How well it is heard, in dBm. A cable has none.
    pub signal_dbm: Option<i8>,
    /// For how long it has said nothing.
    pub inactive: Option<Duration>,
    /// For how long its port has been open, in whole seconds.
    pub session: Option<Duration>,
}

/// The answer to STA-FIRST or STA-NEXT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A station.
    Station(Station),
    /// There is none, or none after it.
    End,
    /// The one that was named is gone.
    Lost,
}

/// Reads one datagram.
#[must_use]
pub fn hear(datagram: &[u8]) -> Heard<'_> {
    let Some(rest) = datagram.strip_prefix(b"<") else {
        return Heard::Answer(datagram);
    };
    let Some((_, said)) = split(rest, b'>') else {
        return Heard::Nothing;
    };
    event(said).map_or(Heard::Nothing, Heard::Event)
}

fn event(said: &[u8]) -> Option<Event> {
    let mut words = said.split(|b| b.is_ascii_whitespace());
    match words.next()? {
        b"AP-STA-CONNECTED" => mac(words.next()?).map(Event::Connected),
        b"AP-STA-DISCONNECTED" => mac(words.next()?).map(Event::Disconnected),
        // A wired port says so when the exchange has ended, and the port opens then, or was open all the time.
        b"CTRL-EVENT-EAP-SUCCESS" | b"CTRL-EVENT-EAP-SUCCESS2" => {
            mac(words.next()?).map(Event::Proved)
        }
        b"AP-STA-POLL-OK"
        | b"INTERFACE-ENABLED"
        | b"INTERFACE-DISABLED"
        | b"AP-ENABLED"
        | b"AP-DISABLED"
        | b"AP-STA-POSSIBLE-PSK-MISMATCH" => Some(Event::Changed),
        b"CTRL-EVENT-TERMINATING" => Some(Event::Terminating),
        _ => None,
    }
}

/// Reads the answer to STA-FIRST or STA-NEXT.
#[must_use]
pub fn listed(answer: &[u8]) -> Listed {
    if answer.iter().all(u8::is_ascii_whitespace) {
        return Listed::End;
    }
    let mut lines = answer.split(|b| *b == b'\n');
    let Some(mac) = lines.next().and_then(mac) else {
        return Listed::Lost;
    };
    let mut station = Station {
        mac,
        authorized: false,
        signal_dbm: None,
        inactive: None,
        session: None,
    };
    for (key, value) in lines.filter_map(|line| split(line, b'=')) {
        match key {
            b"flags" => station.authorized = contains(value, b"[AUTHORIZED]"),
            // A driver that does not know says 0.
            b"signal" => station.signal_dbm = number(value).filter(|dbm| *dbm < 0),
            b"inactive_msec" => station.inactive = number(value).map(Duration::from_millis),
            b"dot1xAuthSessionTime" => station.session = number(value).map(Duration::from_secs),
            _ => {}
        }
    }
    Listed::Station(station)
}

fn mac(word: &[u8]) -> Option<Mac> {
    std::str::from_utf8(word).ok()?.trim().parse().ok()
}

fn number<N: std::str::FromStr>(value: &[u8]) -> Option<N> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

fn split(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|b| *b == at)?;
    let (before, after) = bytes.split_at(place);
    Some((before, after.get(1..)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 3, 1]);

    #[test]
    fn events_are_told_from_answers() {
        for (said, heard) in [
            (
                "<3>AP-STA-CONNECTED 02:00:00:00:03:01",
                Heard::Event(Event::Connected(MAC)),
            ),
            (
                "<3>AP-STA-CONNECTED 02:00:00:00:03:01 auth_alg=open",
                Heard::Event(Event::Connected(MAC)),
            ),
            (
                "<3>AP-STA-DISCONNECTED 02:00:00:00:03:01",
                Heard::Event(Event::Disconnected(MAC)),
            ),
            (
                "<3>CTRL-EVENT-EAP-SUCCESS 02:00:00:00:03:01",
                Heard::Event(Event::Proved(MAC)),
            ),
            (
                "<3>CTRL-EVENT-TERMINATING ",
                Heard::Event(Event::Terminating),
            ),
            (
                "<3>CTRL-EVENT-EAP-STARTED 02:00:00:00:03:01",
                Heard::Nothing,
            ),
            ("<3>AP-STA-CONNECTED", Heard::Nothing),
            ("<3>AP-STA-CONNECTED you", Heard::Nothing),
            ("<3", Heard::Nothing),
            ("OK\n", Heard::Answer(b"OK\n")),
            ("", Heard::Answer(b"")),
        ] {
            assert_eq!(hear(said.as_bytes()), heard, "{said}");
        }
    }

    #[test]
    fn a_station_on_the_air_is_read_with_its_signal() {
        let answer = "02:00:00:00:03:01\nflags=[AUTH][ASSOC][AUTHORIZED][WMM]\naid=1\n\
            rx_bytes=7\ninactive_msec=1500\nsignal=-61\nrx_rate_info=60 mcs 4\nsignal_avg=-3\n";
        let station = Station {
            mac: MAC,
            authorized: true,
            signal_dbm: Some(-61),
            inactive: Some(Duration::from_millis(1500)),
            session: None,
        };
        assert_eq!(listed(answer.as_bytes()), Listed::Station(station));
    }

    #[test]
    fn a_station_on_a_cable_has_no_signal_and_may_not_be_authorised_yet() {
        for (flags, authorized) in [("", false), ("[AUTH][ASSOC][AUTHORIZED]", true)] {
            let answer = format!(
                "02:00:00:00:03:01\nflags={flags}\naid=0\nsignal=0\ndot1xAuthSessionTime=7\n"
            );
            let Listed::Station(station) = listed(answer.as_bytes()) else {
                panic!()
            };
            let (signal, inactive) = (station.signal_dbm, station.inactive);
            assert_eq!(
                (station.authorized, signal, inactive),
                (authorized, None, None)
            );
            assert_eq!(station.session, Some(Duration::from_secs(7)));
        }
        assert_eq!(listed(b""), Listed::End);
        assert_eq!(listed(b"\n"), Listed::End);
        assert_eq!(listed(b"FAIL\n"), Listed::Lost);
        assert_eq!(listed(b"UNKNOWN COMMAND\n"), Listed::Lost);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(mut bytes: Vec<u8>, event: bool) {
            if event {
                bytes.splice(0..0, *b"<3>AP-STA-CONNECTED ");
            }
            let _ = hear(&bytes);
            let _ = listed(&bytes);
            bytes.splice(0..0, *b"02:00:00:00:03:01\nflags=[AUTHORIZED]\nsignal=");
            prop_assert!(matches!(listed(&bytes), Listed::Station(_)));
        }
    }
}
