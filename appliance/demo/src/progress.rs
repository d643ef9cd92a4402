//! A bar for each camera and hop, drawn from what the repeater's status page says; where standard error is not a
//! terminal, one plain line at most every second. Only for the eye: nothing is decided by it.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use link::clock::Clock;
use protocol::limits;

use crate::parties::{self, Stages, Status};

/// How often the status is asked for.
const TICK: Duration = Duration::from_millis(200);
/// The least time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// What is drawn of one camera.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    /// Its serial.
    pub(crate) serial: String,
    /// Bytes of footage that it will record.
    pub(crate) all: u64,
    /// Bytes of footage that it has recorded.
    pub(crate) recorded: Arc<AtomicU64>,
    /// Segments and headers to expect.
    pub(crate) segments: u64,
}

/// Segments that so many bytes of footage become.
pub(crate) fn segments_of(bytes: u64) -> u64 {
    bytes.div_ceil(limits::SEGMENT_FOOTAGE_BYTES as u64).max(1)
}

/// Draws until `over`.
pub(crate) fn draw(tracks: &[Track], http: SocketAddr, clock: &Clock, over: &AtomicBool) {
    let bars = std::io::stderr().is_terminal().then(|| Bars::new(tracks));
    let began = clock.instant();
    let (mut drawn, mut last) = (began, String::new());
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(TICK);
        let Ok(status) = parties::status(http) else {
            continue;
        }; // it may be down: chaos
        if let Some(bars) = &bars {
            bars.show(tracks, &status);
        } else if clock.instant().saturating_duration_since(drawn) >= LINE_EVERY {
            let line = line(tracks, &status);
            if line != last {
                drawn = clock.instant();
                eprintln!(
                    "  {:>4} s  {line}",
                    drawn.saturating_duration_since(began).as_secs()
                );
                last = line;
            }
        }
    }
    if let Some(bars) = &bars {
        bars.end(tracks);
    }
}

fn stages(status: &Status, serial: &str) -> Stages {
    let of = status.cameras.iter().filter(|c| c.serial == serial);
    of.fold(Stages::default(), |a, c| Stages {
        announced: a.announced + c.segments.announced,
        held: a.held + c.segments.held,
        archived: a.archived + c.segments.archived,
        released: a.released + c.segments.released,
        refused: a.refused + c.segments.refused,
    })
}

/// Segments at the repeater or further, in the archive or further, and released.
fn reached(s: Stages) -> (u64, u64, u64) {
    (
        s.held + s.archived + s.released,
        s.archived + s.released,
        s.released,
    )
}

fn line(tracks: &[Track], status: &Status) -> String {
    let (mut pulled, mut archived, mut released, mut announced) = (0, 0, 0, 0);
    for track in tracks {
        let s = stages(status, &track.serial);
        let (p, a, r) = reached(s);
        (pulled, archived, released) = (pulled + p, archived + a, released + r);
        announced += s.announced + p;
    }
    let recorded: u64 = tracks
        .iter()
        .map(|t| t.recorded.load(Ordering::Relaxed))
        .sum();
    let all: u64 = tracks.iter().map(|t| t.all).sum();
    format!(
        "recorded {} of {} MB; segments and headers: {announced} announced, {pulled} at the repeater, {archived} in the archive, \
         {released} released",
        recorded / 1_000_000,
        all / 1_000_000,
    )
}

struct Bars {
    _all: MultiProgress,
    hops: Vec<[ProgressBar; 2]>,
}

impl Bars {
    fn new(tracks: &[Track]) -> Bars {
        let all = MultiProgress::new();
        let style = |colour: &str| {
            ProgressStyle::with_template(&format!(
                "  {{prefix:30}} [{{bar:30.{colour}}}] {{pos:>5}}/{{len}} {{msg}}"
            ))
            .expect("a template of this file")
            .progress_chars("=> ")
        };
        let bar = |text: String, colour: &str, track: &Track| {
            all.add(ProgressBar::new(track.segments))
                .with_style(style(colour))
                .with_prefix(text)
        };
        let hops = tracks.iter().map(|t| {
            [
                bar(format!("{} -> repeater", t.serial), "blue", t),
                bar(
                    format!("{:w$} repeater -> archive", "", w = t.serial.len()),
                    "green",
                    t,
                ),
            ]
        });
        let hops = hops.collect();
        Bars { _all: all, hops }
    }

    fn show(&self, tracks: &[Track], status: &Status) {
        for (track, [camera, archive]) in tracks.iter().zip(&self.hops) {
            let stages = stages(status, &track.serial);
            let (pulled, archived, released) = reached(stages);
            let all = track.segments.max(pulled + stages.announced);
            camera.set_length(all);
            archive.set_length(all);
            camera.set_position(pulled);
            archive.set_position(archived);
            archive.set_message(format!("{released} released"));
        }
    }

    fn end(&self, tracks: &[Track]) {
        for ([camera, archive], _) in self.hops.iter().zip(tracks) {
            camera.abandon();
            archive.abandon();
        }
    }
}
