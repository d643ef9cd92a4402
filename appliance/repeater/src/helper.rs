//! Other programs of the machine (`journalctl`, `systemd-creds`), asked with a limit of time and of what they may answer.
//! What one is given goes by its standard input, never by its command line, which everybody on the machine can read.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use link::clock::Clock;

/// What a program may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Until it is ended.
    pub(crate) time: Duration,
    /// Of what it says the end is kept, so many bytes.
    pub(crate) bytes: usize,
}

/// Runs a program to its end and gives what it wrote to its standard output.
///
/// # Errors
/// In words: it is not there, it failed, or it took too long.
pub(crate) fn output(
    mut command: Command,
    given: &[u8],
    limits: Limits,
    clock: &Clock,
) -> Result<Vec<u8>, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{name}: {e}"))?;
    let said = reader(child.stdout.take(), limits.bytes);
    let complained = reader(child.stderr.take(), 2000);
    // What is given is short: it fits the pipe, whether or not the program reads it.
    let told = child.stdin.take().map(|mut to| to.write_all(given));
    let until = clock.instant() + limits.time;
    let wait = |from: &Receiver<Vec<u8>>| match from
        .recv_timeout(until.saturating_duration_since(clock.instant()))
    {
        Ok(bytes) => Ok(bytes),
        Err(RecvTimeoutError::Timeout) => {
            Err(format!("{name}: no end within {} s", limits.time.as_secs()))
        }
        Err(RecvTimeoutError::Disconnected) => Err(format!("{name}: what it says is lost")),
    };
    let all = wait(&said).and_then(|said| Ok((said, wait(&complained)?)));
    let (said, complained) = match all {
        Ok(both) => both,
        Err(e) => {
            end(&mut child);
            return Err(e);
        }
    };
    let status = child.wait().map_err(|e| format!("{name}: {e}"))?;
    if !status.success() {
        let why = String::from_utf8_lossy(&complained);
        return Err(format!("{name}: {status}: {}", why.trim()));
    }
    match told {
        Some(Err(e)) => Err(format!("{name}: it did not take what it was given: {e}")),
        _ => Ok(said),
    }
}

/// Reads on a thread of its own, which ends with the program; keeps the last `most` bytes.
fn reader(mut from: Option<impl Read + Send + 'static>, most: usize) -> Receiver<Vec<u8>> {
    let (tell, told) = sync_channel(1);
    let read = move || {
        let mut kept = Vec::new();
        let mut piece = vec![0; 64 << 10];
        while let Some(Ok(n @ 1..)) = from.as_mut().map(|f| f.read(&mut piece)) {
            kept.extend_from_slice(&piece[..n]);
            if kept.len() > 2 * most {
                kept.drain(..kept.len() - most);
            }
        }
        kept.drain(..kept.len().saturating_sub(most));
        let _ = tell.send(kept);
    };
    let _ = std::thread::Builder::new()
        .name("helper".into())
        .spawn(read);
    told
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn sh(script: &str, given: &[u8], ms: u64) -> Result<Vec<u8>, String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let limits = Limits {
            time: Duration::from_millis(ms),
            bytes: 1000,
        };
        output(command, given, limits, &Clock::system())
    }

    #[test]
    fn a_program_is_told_heard_and_ended_in_time() {
        assert_eq!(sh("cat", b"given", 20_000).unwrap(), b"given");
        let long = sh("seq 100000", b"", 20_000).unwrap();
        assert!(long.len() == 1000 && long.ends_with(b"100000\n"));
        let failed = sh("echo why >&2; exit 3", b"", 20_000).unwrap_err();
        assert!(failed.contains("why") && failed.contains('3'), "{failed}");
        assert!(sh("sleep 60", b"", 200).unwrap_err().contains("no end"));
        assert!(
            output(
                Command::new("/nowhere"),
                b"",
                Limits {
                    time: Duration::from_secs(1),
                    bytes: 1
                },
                &Clock::system()
            )
            .is_err()
        );
    }
}
