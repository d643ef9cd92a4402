//! Logs: tracing to stderr, level by `RUST_LOG`, `info` without it. There is no log file to rotate.
//!
//! Where stderr is the journal's, each event is one line that begins with its priority as `sd-daemon(3)` has it, and has
//! no time of its own: the journal stamps it, and `journalctl -p warning` finds it. The journal's own protocol would keep
//! fields apart, and needs one more dependency; they are in the line as `name=value`. Elsewhere a line has time and level.

use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is logged without `RUST_LOG`: quinn's own chatter is not ours to explain.
const DEFAULT: &str = "info,quinn=warn,quinn_proto=warn,quinn_udp=warn,rustls=warn,mdns_sd=warn";

/// Starts logging. A second call does nothing, so that a party can run inside a test.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let stderr = std::io::stderr();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr.is_terminal())
        .with_writer(std::io::stderr);
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let _ = if stream.is_some_and(|stream| is_stream(&stream, stderr)) {
        builder.event_format(Journal::new()).try_init()
    } else {
        builder.try_init()
    };
}

/// Whether a file is the one that `JOURNAL_STREAM` names, by device and inode: who redirected stderr reads it himself.
fn is_stream(stream: &str, file: impl AsFd) -> bool {
    let Ok(stat) = nix::sys::stat::fstat(file) else {
        return false;
    };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// One line for the journal.
struct Journal(Format<Full, ()>);

impl Journal {
    fn new() -> Journal {
        let plain = tracing_subscriber::fmt::format()
            .without_time()
            .with_level(false)
            .with_ansi(false);
        Journal(plain)
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0
            .format_event(context, Writer::new(&mut text), event)?;
        let priority = priority(*event.metadata().level());
        // What a peer said begins no line of its own: it would be an entry with a priority of the peer's choice.
        let text = text.trim_end().replace('\n', "\\n");
        writeln!(writer, "<{priority}>{text}")
    }
}

/// Syslog's number of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::{Read, Seek};
    use std::sync::Mutex;

    #[test]
    fn an_event_is_one_line_of_the_journal_with_its_priority() {
        let mut file = tempfile::tempfile().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .with_ansi(false)
            .event_format(Journal::new())
            .with_writer(Mutex::new(file.try_clone().unwrap()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(code = "disk_full", "no room");
            tracing::warn!("a peer says\n<0>panic");
            tracing::info!("ready");
            tracing::debug!("much");
        });
        let mut said = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut said).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 4, "{said}");
        for (line, (begin, end)) in lines.iter().zip([
            ("<3>", "no room code=\"disk_full\""),
            ("<4>", "a peer says\\n<0>panic"),
            ("<6>", "ready"),
            ("<7>", "much"),
        ]) {
            assert!(line.starts_with(begin) && line.ends_with(end), "{line}");
        }
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let stat = nix::sys::stat::fstat(&file).unwrap();
        assert!(is_stream(
            &format!("{}:{}", stat.st_dev, stat.st_ino),
            &file
        ));
        for other in [
            "",
            "8:1",
            &format!("{}:{}", stat.st_dev, stat.st_ino.wrapping_add(1)),
        ] {
            assert!(!is_stream(other, &file), "{other}");
        }
    }
}
