//! Against a model of hostapd that loses events, restarts, and has stations come and go while they are read.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const LINK: LinkIndex = 7;

/// hostapd: its stations in its order, and what it has sent us.
#[derive(Debug, Default)]
struct Model {
    stations: Vec<(Mac, i8)>,
    attached: bool,
    deaf: bool,
    sent: VecDeque<Vec<u8>>,
}

impl Model {
    fn event(&mut self, text: &str, mac: Mac) {
        if self.attached && !self.deaf {
            self.sent.push_back(format!("<3>{text} {mac}").into_bytes());
        }
    }

    fn join(&mut self, mac: Mac, signal: i8) {
        self.leave(mac);
        self.stations.insert(0, (mac, signal));
        self.event("AP-STA-CONNECTED", mac);
    }

    fn leave(&mut self, mac: Mac) {
        let before = self.stations.len();
        self.stations.retain(|(m, _)| *m != mac);
        if before != self.stations.len() {
            self.event("AP-STA-DISCONNECTED", mac);
        }
    }

    fn answer(&mut self, question: Question) {
        let at = |mac: Mac| self.stations.iter().position(|(m, _)| *m == mac);
        let show = |station: Option<&(Mac, i8)>| {
            station.map_or(String::new(), |(mac, signal)| {
                format!("{mac}\nflags=[AUTHORIZED]\nsignal={signal}\n")
            })
        };
        let text = match question {
            Question::Attach => {
                self.attached = true;
                "OK\n".to_owned()
            }
            Question::First => show(self.stations.first()),
            Question::Next(mac) => match at(mac) {
                Some(place) => show(self.stations.get(place + 1)),
                None => "FAIL\n".to_owned(),
            },
            Question::SendAway(mac) => {
                self.leave(mac);
                "OK\n".to_owned()
            }
            Question::SendAllAway => {
                let all: Vec<Mac> = self.stations.iter().map(|(mac, _)| *mac).collect();
                all.into_iter().for_each(|mac| self.leave(mac));
                "OK\n".to_owned()
            }
        };
        self.sent.push_back(text.into_bytes());
    }
}

fn start() -> Instant {
    link::clock::Clock::system().instant()
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

/// Asks and hears until there is nothing to do, at most so often.
fn talk(bss: &mut Bss, model: &mut Model, now: Instant, most: usize) {
    for _ in 0..most {
        while let Some(datagram) = model.sent.pop_front() {
            bss.hear(&datagram, now).unwrap();
        }
        let Some(question) = bss.ask(now).unwrap() else {
            return;
        };
        model.answer(question);
    }
}

/// Everything owed, told.
fn tell(bss: &mut Bss) -> Vec<(Mac, Presence, Option<i8>)> {
    let mut all = Vec::new();
    while let Some(owed) = bss.owed(LINK) {
        bss.tell(&owed);
        let Sighting::Station {
            link,
            mac,
            presence,
            signal,
            ..
        } = owed
        else {
            panic!("{owed:?}")
        };
        assert_eq!(link, LINK);
        all.push((mac, presence, signal));
    }
    all
}

use Presence::{Associated, Left};

#[test]
fn stations_are_read_and_followed() {
    let (mut bss, mut model, now) = (Bss::default(), Model::default(), start());
    model.join(mac(1), -50);
    model.join(mac(2), -60);
    talk(&mut bss, &mut model, now, 100);
    let both = [
        (mac(1), Associated, Some(-50)),
        (mac(2), Associated, Some(-60)),
    ];
    assert_eq!(tell(&mut bss), both);
    assert_eq!(tell(&mut bss), [], "once");
    model.leave(mac(1));
    model.join(mac(3), -70);
    talk(&mut bss, &mut model, now, 100);
    let told = tell(&mut bss);
    assert_eq!(told[0], (mac(1), Left, None));
    assert!(told.contains(&(mac(3), Associated, Some(-70))));
    // Nothing more is asked until the next poll, which brings a new measure.
    assert_eq!(bss.ask(now), Ok(None));
    let later = now + limits::HOSTAPD_POLL;
    assert_eq!(bss.wake(), Some(later));
    model.stations[0].1 = -75;
    talk(&mut bss, &mut model, later, 100);
    assert!(tell(&mut bss).contains(&(mac(3), Associated, Some(-75))));
}

#[test]
fn a_station_that_leaves_and_comes_back_unseen_is_told_twice() {
    let (mut bss, mut model, now) = (Bss::default(), Model::default(), start());
    model.join(mac(1), -50);
    talk(&mut bss, &mut model, now, 100);
    tell(&mut bss);
    model.leave(mac(1));
    model.join(mac(1), -51);
    talk(&mut bss, &mut model, now, 100);
    let told = tell(&mut bss);
    assert_eq!(
        told,
        [(mac(1), Left, None), (mac(1), Associated, Some(-51))]
    );
}

#[test]
fn events_that_are_lost_lose_nothing() {
    let (mut bss, mut model, now) = (Bss::default(), Model::default(), start());
    model.join(mac(1), -50);
    talk(&mut bss, &mut model, now, 100);
    tell(&mut bss);
    // Our queue is full; then hostapd has given us up and tells nothing at all.
    model.deaf = true;
    model.leave(mac(1));
    model.join(mac(2), -50);
    model.attached = false;
    talk(&mut bss, &mut model, now, 100);
    assert_eq!(tell(&mut bss), [], "nobody told us");
    talk(&mut bss, &mut model, now + limits::HOSTAPD_POLL, 100);
    let told = tell(&mut bss);
    assert_eq!(
        told,
        [(mac(1), Left, None), (mac(2), Associated, Some(-50))]
    );
    assert!(model.attached, "attached again");
}

#[test]
fn a_restarted_hostapd_is_read_anew_and_one_that_stays_away_takes_its_stations() {
    let (mut bss, mut model, mut now) = (Bss::default(), Model::default(), start());
    model.join(mac(1), -50);
    model.join(mac(2), -50);
    talk(&mut bss, &mut model, now, 100);
    tell(&mut bss);
    assert_eq!(
        bss.hear(b"<3>CTRL-EVENT-TERMINATING ", now),
        Err(Broken::Ends)
    );
    bss.lost(now);
    assert_eq!(tell(&mut bss), [], "for a moment nobody is gone");
    let mut model = Model::default();
    model.join(mac(2), -50);
    bss.connected();
    talk(&mut bss, &mut model, now, 100);
    assert!(tell(&mut bss).contains(&(mac(1), Left, None)));
    assert!(bss.is_met() && !bss.is_gone(now));
    bss.lost(now);
    now += limits::HOSTAPD_GONE;
    bss.lost(now);
    assert!(bss.is_gone(now));
    assert_eq!(tell(&mut bss), [(mac(2), Left, None)]);
}

#[test]
fn who_does_not_answer_or_refuses_is_met_anew() {
    let (mut bss, now) = (Bss::default(), start());
    assert_eq!(bss.ask(now), Ok(Some(Question::Attach)));
    assert_eq!(bss.ask(now), Ok(None), "one question at a time");
    let late = now + limits::HOSTAPD_ANSWER;
    assert_eq!(bss.wake(), Some(late));
    assert_eq!(bss.ask(late), Err(Broken::Silent));
    bss.connected();
    bss.ask(late).unwrap().unwrap();
    assert_eq!(bss.hear(b"FAIL\n", late), Err(Broken::Refuses));
}

#[test]
fn a_pulled_cable_sends_everybody_away_and_lets_them_come_back() {
    let (mut bss, mut model, now) = (Bss::default(), Model::default(), start());
    model.join(mac(1), 0);
    talk(&mut bss, &mut model, now, 100);
    tell(&mut bss);
    bss.cable_pulled(now);
    assert_eq!(tell(&mut bss), [(mac(1), Left, None)], "at once");
    talk(&mut bss, &mut model, now, 100);
    assert_eq!(model.stations, [], "hostapd has forgotten it");
    assert_eq!(tell(&mut bss), []);
    model.join(mac(1), 0);
    talk(&mut bss, &mut model, now, 100);
    assert_eq!(tell(&mut bss)[0].1, Associated);
}

/// What is asked, to its end, of a hostapd that has these stations, each with the seconds of its session.
fn asked(bss: &mut Bss, stations: &[(u8, u64)], now: Instant) -> Vec<Question> {
    let mut all = Vec::new();
    while let Some(question) = bss.ask(now).unwrap() {
        let next = match question {
            Question::First => stations.first(),
            Question::Next(after) => {
                let mut rest = stations.iter().skip_while(|(n, _)| mac(*n) != after);
                rest.nth(1)
            }
            _ => None,
        };
        let show = |(n, seconds): &(u8, u64)| {
            let mac = mac(*n);
            format!("{mac}\nflags=[AUTHORIZED]\ndot1xAuthSessionTime={seconds}\n")
        };
        let walks = matches!(question, Question::First | Question::Next(_));
        let answer = next.map_or(if walks { "" } else { "OK\n" }.to_owned(), show);
        bss.hear(answer.as_bytes(), now).unwrap();
        if !walks && question != Question::Attach {
            all.push(question);
        }
    }
    all
}

#[test]
fn whoever_was_there_goes_at_once_and_whoever_came_since_stays() {
    let (mut bss, now) = (Bss::default(), start());
    assert_eq!(asked(&mut bss, &[(1, 100)], now), []);
    // hostapd would remove one that is named only later, and it may be back by then.
    bss.cable_pulled(now);
    assert_eq!(asked(&mut bss, &[(1, 100)], now), [Question::SendAllAway]);
    let all = Question::SendAllAway.text();
    assert_eq!(all, "DEAUTHENTICATE ff:ff:ff:ff:ff:ff");
    assert_eq!(asked(&mut bss, &[], now + limits::HOSTAPD_POLL), []);
    // Somebody is there already by the time that hostapd is asked: nobody else goes with whoever was there.
    bss.cable_pulled(now);
    bss.hear(b"<3>AP-STA-CONNECTED 02:00:00:00:00:02", now)
        .unwrap();
    let both = [(1, 100), (2, 0)];
    assert_eq!(asked(&mut bss, &both, now), [Question::SendAway(mac(1))]);
    assert_eq!(tell(&mut bss).last().unwrap().0, mac(2));
    // The same one is back, and its port was never shut: hostapd counts its session on.
    bss.cable_pulled(now);
    bss.hear(b"<3>CTRL-EVENT-EAP-SUCCESS2 02:00:00:00:00:02", now)
        .unwrap();
    assert_eq!(asked(&mut bss, &[(2, 100)], now), []);
    assert_eq!(tell(&mut bss).last().unwrap().1, Associated);
}

#[test]
fn who_came_since_is_told_by_its_session_where_nobody_heard_it() {
    let (mut bss, now) = (Bss::default(), start());
    asked(&mut bss, &[(1, 100)], now);
    tell(&mut bss);
    bss.lost(now);
    bss.cable_pulled(now);
    assert_eq!(tell(&mut bss), [(mac(1), Left, None)]);
    // hostapd is met again, and has somebody for a time that may be longer or shorter than the cable was out.
    bss.connected();
    let millis = |ms| now + Duration::from_millis(ms);
    assert_eq!(asked(&mut bss, &[(1, 0)], millis(900)), []);
    assert_eq!(tell(&mut bss), [], "that is not clear yet");
    assert_eq!(bss.wake(), Some(millis(900) + limits::PULLED_AGAIN));
    assert_eq!(asked(&mut bss, &[(1, 0)], millis(1150)), []);
    assert_eq!(tell(&mut bss)[0].1, Associated, "it came since");
    // One that had come just before the cable was pulled is sent away, if not at once.
    bss.cable_pulled(now);
    assert_eq!(asked(&mut bss, &[(1, 0)], millis(10)), []);
    assert_eq!(tell(&mut bss), [(mac(1), Left, None)]);
    let late = now + limits::PULLED_UNCLEAR;
    let seconds = limits::PULLED_UNCLEAR.as_secs();
    let gone = asked(&mut bss, &[(1, seconds)], late);
    assert_eq!(gone, [Question::SendAllAway]);
}

#[test]
fn a_station_that_is_not_authorised_is_not_there() {
    let (mut bss, now) = (Bss::default(), start());
    bss.ask(now).unwrap();
    bss.hear(b"OK\n", now).unwrap();
    bss.ask(now).unwrap();
    bss.hear(b"02:00:00:00:00:01\nflags=[AUTH][ASSOC]\n", now)
        .unwrap();
    bss.ask(now).unwrap();
    bss.hear(b"", now).unwrap();
    assert_eq!(tell(&mut bss), []);
}

#[test]
fn a_list_without_end_is_not_read_for_ever() {
    let (mut bss, now) = (Bss::default(), start());
    bss.ask(now).unwrap();
    bss.hear(b"OK\n", now).unwrap();
    let mut asked = 0usize;
    while bss.ask(now).unwrap().is_some() {
        asked += 1;
        let station = format!("{}\nflags=[AUTHORIZED]\n", mac(asked.to_le_bytes()[0]));
        bss.hear(station.as_bytes(), now).unwrap();
    }
    assert_eq!(u64::from(asked > 0), bss.dropped());
    assert!(asked <= limits::BSS_STATIONS + 1, "{asked}");
    // Stations beyond the bound are counted and not kept.
    for n in 0..limits::BSS_STATIONS + 100 {
        let [a, b, ..] = n.to_le_bytes();
        let event = format!("<3>AP-STA-CONNECTED {}", Mac([2, 0, 0, 9, a, b]));
        bss.hear(event.as_bytes(), now).unwrap();
    }
    assert_eq!(bss.stations.len(), limits::BSS_STATIONS);
    assert!(bss.dropped() > 0);
}

proptest! {
    /// Whoever comes and goes while we read, with events lost and hostapd giving us up: after a poll that is left in
    /// peace, what was told is what is so.
    #[test]
    fn what_was_told_is_what_is_so(
        events in proptest::collection::vec((0u8..6, 0u8..6, 0usize..6), 0..80)
    ) {
        let (mut bss, mut model, mut now) = (Bss::default(), Model::default(), start());
        let mut held = BTreeSet::new();
        let follow = |bss: &mut Bss, held: &mut BTreeSet<Mac>| {
            for (mac, presence, _) in tell(bss) {
                let changed = match presence {
                    Associated => { held.insert(mac); true }
                    Left => held.remove(&mac),
                };
                assert!(changed, "{mac} left twice");
            }
        };
        for (what, who, steps) in events {
            match what {
                0 | 1 => model.join(mac(who), -50),
                2 => model.leave(mac(who)),
                3 => model.deaf = !model.deaf,
                4 => bss.cable_pulled(now),
                _ => now += limits::HOSTAPD_POLL,
            }
            talk(&mut bss, &mut model, now, steps);
            follow(&mut bss, &mut held);
        }
        talk(&mut bss, &mut model, now, 100_000);
        talk(&mut bss, &mut model, now + limits::HOSTAPD_POLL, 100_000);
        follow(&mut bss, &mut held);
        let is: BTreeSet<Mac> = model.stations.iter().map(|(mac, _)| *mac).collect();
        prop_assert_eq!(held, is);
    }

    #[test]
    fn no_bytes_are_too_strange(datagrams: Vec<Vec<u8>>) {
        let (mut bss, now) = (Bss::default(), start());
        for datagram in datagrams {
            let _ = bss.ask(now);
            let _ = bss.hear(&datagram, now);
            tell(&mut bss);
        }
    }
}
