//! What is under way on both hops, from the lines that the receiving ends write (`link::receiving`), and whether the
//! repeater is in a barrier, from its own (`repeater::trace`), so that a kill can be aimed inside a segment or inside
//! a barrier and it can be proved afterwards that it hit.
//!
//! A receiving end says that a segment begins when its first byte is there and its last one is not: so between the
//! two lines at least one byte had gone and not all. The repeater says it of the camera hop, the archive of its own.
//!
//! An [`Aim`] fires in the thread that reads the log, at the first line that begins what was aimed at. Whether
//! it hit is decided by evidence that comes later. The last lines of a killed receiver hold no end of what had begun
//! (its log is read to its end first). Of a killed sender the other end says that no more came: for a camera the
//! repeater by the broken transfer, for the repeater the archive, where what had gone has had [`ARRIVES`] to arrive
//! and the last byte is not there. A kill that came too late does not count.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::parties::REPEATER;
use crate::process::{Registry, Tap, lock};

/// `RUST_LOG` for a repeater or an archive that says what it is in the middle of.
pub(crate) const FILTER: &str = "info,quinn=warn,quinn_proto=warn,quinn_udp=warn,rustls=warn,\
                                 repeater::trace=debug,link::receiving=debug";

/// What a dead repeater had sent is at the archive by then: on one machine, a queue of a socket.
const ARRIVES: Duration = Duration::from_secs(1);

/// A transfer of fewer bytes is a header or the end of a recording: too short to aim at, and not counted.
const WORTH: u64 = 1 << 20;

/// What a party can be in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Inside {
    /// A segment on the camera hop.
    Pull,
    /// A segment on the archive hop.
    Put,
    /// The storage barrier.
    Barrier,
}

impl Inside {
    /// In a table.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Inside::Pull => "a segment, camera -> repeater",
            Inside::Put => "a segment, repeater -> archive",
            Inside::Barrier => "a storage barrier",
        }
    }
}

/// Who is to be killed when something begins.
#[derive(Clone, Debug)]
pub(crate) enum Victim {
    /// A party by name.
    Named(String),
    /// The camera that the segment comes from.
    Camera,
}

/// A kill waiting for its moment.
#[derive(Clone, Debug)]
pub(crate) struct Aim {
    /// What must have begun.
    pub(crate) at: Inside,
    /// Who is killed.
    pub(crate) victim: Victim,
    /// How long after it began.
    pub(crate) after: Duration,
}

/// A kill that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Fired {
    /// Who.
    pub(crate) name: String,
    key: Key,
}

impl Fired {
    /// In the middle of what the victim was, if the transfer broke.
    pub(crate) fn inside(&self) -> Inside {
        self.key.0
    }
}

type Key = (Inside, String);

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<Key, u64>,
    broken: BTreeMap<Key, ()>,
    aim: Option<Aim>,
    fired: Option<Fired>,
}

/// The newest state of both traces. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    state: Arc<(Mutex<State>, Condvar)>,
    registry: Registry,
}

/// One trace line.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    begins: bool,
    what: Inside,
    id: String,
    camera: Option<String>,
    bytes: u64,
    whole: bool,
}

impl Trace {
    /// A trace whose kills go through `registry`.
    pub(crate) fn new(registry: Registry) -> Trace {
        Trace {
            state: Arc::default(),
            registry,
        }
    }
    /// What to hand to the log reader of the repeater or the archive. A new run begins with nothing open; of a new
    /// repeater nothing is on its way to the archive either, whatever the old one left there.
    pub(crate) fn tap(&self, name: &str) -> Tap {
        let trace = self.clone();
        let own = |key: &Key| name == REPEATER || key.0 == Inside::Put;
        lock(&trace.state.0).open.retain(|key, _| !own(key));
        Arc::new(move |line| {
            if let Some(line) = parse(line) {
                trace.see(&line);
            }
        })
    }
    /// Arms `aim` and waits until it fired.
    pub(crate) fn fire(&self, aim: Aim, within: Duration) -> Option<Fired> {
        let mut state = lock(&self.state.0);
        state.fired = None;
        state.aim = Some(aim);
        let waited = self
            .state
            .1
            .wait_timeout_while(state, within, |s| s.fired.is_none());
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.aim = None;
        state.fired.take()
    }
    /// What a repeater or an archive that is dead, its log read to the end, was in the middle of.
    pub(crate) fn left_open(&self, name: &str) -> Vec<Inside> {
        if name == REPEATER {
            std::thread::sleep(ARRIVES);
        }
        self.open_of(name)
    }
    fn open_of(&self, name: &str) -> Vec<Inside> {
        let state = lock(&self.state.0);
        let own = |inside: Inside| name == REPEATER || inside == Inside::Put;
        let worth = state
            .open
            .iter()
            .filter(|((inside, _), _)| own(*inside))
            .filter(|((inside, _), bytes)| *inside == Inside::Barrier || **bytes >= WORTH);
        let mut all: Vec<Inside> = worth.map(|((inside, _), _)| *inside).collect();
        all.dedup();
        all
    }
    /// Whether the transfer in which `fired` hit its victim broke, as the repeater saw it.
    pub(crate) fn broke(&self, fired: &Fired, within: Duration) -> bool {
        let state = lock(&self.state.0);
        let undecided =
            |s: &mut State| s.open.contains_key(&fired.key) && !s.broken.contains_key(&fired.key);
        let waited = self.state.1.wait_timeout_while(state, within, undecided);
        waited
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .broken
            .contains_key(&fired.key)
    }

    fn see(&self, line: &Line) {
        let key = (line.what, line.id.clone());
        let mut state = lock(&self.state.0);
        if !line.begins {
            state.open.remove(&key);
            if !line.whole {
                state.broken.insert(key, ());
            }
            self.state.1.notify_all();
            return;
        }
        if state.open.insert(key.clone(), line.bytes).is_some() {
            state.broken.insert(key.clone(), ()); // begun anew without an end: the first try broke
            self.state.1.notify_all();
        }
        let worth = line.what == Inside::Barrier || line.bytes >= WORTH;
        let Some(aim) = state.aim.take_if(|a| worth && a.at == line.what) else {
            return;
        };
        drop(state);
        std::thread::sleep(aim.after);
        let name = match (&aim.victim, &line.camera) {
            (Victim::Named(name), _) => name.clone(),
            (Victim::Camera, Some(serial)) => crate::parties::camera_name(serial),
            (Victim::Camera, None) => return,
        };
        lock(&self.state.0).broken.remove(&key);
        let sent = self.registry.signal(&name, Signal::SIGKILL);
        let mut state = lock(&self.state.0);
        if sent {
            state.fired = Some(Fired { name, key });
        } else {
            state.aim = Some(aim);
        }
        drop(state);
        self.state.1.notify_all();
    }
}

fn parse(line: &str) -> Option<Line> {
    let event = field(line, "event")?;
    let (what, edge) = event.rsplit_once('_')?;
    let what = match what {
        "pull" => Inside::Pull,
        "put" => Inside::Put,
        "barrier" => Inside::Barrier,
        _ => return None,
    };
    let begins = match edge {
        "begin" => true,
        "end" => false,
        _ => return None,
    };
    let id = field(line, "digest").unwrap_or_default().to_owned();
    let camera = field(line, "camera").map(str::to_owned);
    let bytes = field(line, "bytes")
        .and_then(|b| b.parse().ok())
        .unwrap_or(0);
    Some(Line {
        begins,
        what,
        id,
        camera,
        bytes,
        whole: field(line, "ok") != Some("false"),
    })
}

/// The value of `key=value` or `key="value"`.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = line;
    loop {
        let at = rest.find(key)?;
        let (before, from) = rest.split_at(at);
        let after = &from[key.len()..];
        if let Some(value) = after
            .strip_prefix('=')
            .filter(|_| before.is_empty() || before.ends_with([' ', '{']))
        {
            return match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next(),
                None => value.split([' ', '}']).next(),
            };
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parties::ARCHIVE;

    const BEGIN: &str = r#"2026-11-22T00:00:00Z DEBUG link::receiving: event="pull_begin" digest=ab12 camera=C-1 bytes=77"#;
    const END: &str =
        "2026-11-22T00:00:01Z DEBUG link::receiving: event=pull_end digest=ab12 ok=false";

    #[test]
    fn lines_are_read_quoted_or_not() {
        let camera = Some("C-1".to_owned());
        let begin = Line {
            begins: true,
            what: Inside::Pull,
            id: "ab12".into(),
            camera,
            bytes: 77,
            whole: true,
        };
        assert_eq!(parse(BEGIN), Some(begin));
        assert_eq!(
            parse(END).map(|l| (l.begins, l.whole)),
            Some((false, false))
        );
        assert_eq!(parse("INFO a line with event=nothing_else"), None);
        assert_eq!(parse("INFO no such thing"), None);
    }

    #[test]
    fn an_end_closes_what_began_and_a_new_run_begins_empty() {
        let trace = Trace::new(Registry::default());
        let tap = trace.tap(REPEATER);
        tap(BEGIN);
        tap(r#"x event="barrier_begin""#);
        assert_eq!(
            trace.open_of(REPEATER),
            [Inside::Barrier],
            "77 bytes are not worth it"
        );
        tap("x event=pull_begin digest=cd bytes=4000000");
        assert_eq!(trace.open_of(REPEATER), [Inside::Pull, Inside::Barrier]);
        tap(END);
        tap("x event=pull_end digest=cd ok=true");
        assert_eq!(trace.open_of(REPEATER), [Inside::Barrier]);
        assert!(
            lock(&trace.state.0)
                .broken
                .contains_key(&(Inside::Pull, "ab12".to_owned()))
        );
        let _ = trace.tap(REPEATER);
        assert!(trace.open_of(REPEATER).is_empty());
    }

    #[test]
    fn a_put_is_under_way_by_the_archives_word_for_both_ends() {
        let trace = Trace::new(Registry::default());
        let (repeater, archive) = (trace.tap(REPEATER), trace.tap(ARCHIVE));
        repeater("x event=pull_begin digest=aa bytes=4000000");
        archive("x event=put_begin digest=bb bytes=4000000");
        assert_eq!(trace.open_of(ARCHIVE), [Inside::Put], "its own hop only");
        assert_eq!(trace.open_of(REPEATER), [Inside::Pull, Inside::Put]);
        archive("x event=put_end digest=bb ok=true");
        assert_eq!(trace.open_of(REPEATER), [Inside::Pull], "all had arrived");
        archive("x event=put_begin digest=cc bytes=4000000");
        let _ = trace.tap(ARCHIVE);
        assert_eq!(trace.open_of(REPEATER), [Inside::Pull]);
        archive("x event=put_begin digest=dd bytes=4000000");
        let _ = trace.tap(REPEATER);
        assert!(trace.open_of(ARCHIVE).is_empty(), "its sender is gone");
    }
}
