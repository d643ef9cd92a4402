//! Where footage comes from: a file, a file that still grows, or standard input; each as [`std::io::Read`].
//!
//! A growing file ends when `<file>.done` exists and all of it was read, or when the program is told to stop; so does
//! standard input: that is the camera's stop button. A plain file that is not read to its end is an error, since
//! a recording of a part must not look whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};

use protocol::limits as wire;

use crate::limits;

/// Set once, when the program is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Tells every input to end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Whether to end.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One recording's footage.
#[derive(Debug)]
pub struct Input {
    source: Source,
    stop: Stop,
}

#[derive(Debug)]
enum Source {
    Whole(File),
    Growing {
        file: File,
        done: PathBuf,
    },
    Piped {
        chunks: Receiver<io::Result<Vec<u8>>>,
        current: Vec<u8>,
        taken: usize,
    },
}

impl Input {
    /// A file, read to its end.
    ///
    /// # Errors
    /// What opening it says.
    pub fn whole(path: &Path, stop: &Stop) -> io::Result<Input> {
        Ok(Input {
            source: Source::Whole(File::open(path)?),
            stop: stop.clone(),
        })
    }

    /// A file that is still being written.
    ///
    /// # Errors
    /// What opening it says.
    pub fn growing(path: &Path, stop: &Stop) -> io::Result<Input> {
        let mut done = path.as_os_str().to_owned();
        done.push(".done");
        let source = Source::Growing {
            file: File::open(path)?,
            done: done.into(),
        };
        Ok(Input {
            source,
            stop: stop.clone(),
        })
    }

    /// Standard input, or anything else that blocks: read on a thread of its own, so that a stop is heard.
    pub fn piped(mut from: impl Read + Send + 'static, stop: &Stop) -> Input {
        let (send, chunks) = sync_channel(limits::INPUT_CHUNKS);
        std::thread::spawn(move || {
            loop {
                let mut chunk = vec![0; limits::INPUT_CHUNK_BYTES];
                let read = from.read(&mut chunk).map(|n| {
                    chunk.truncate(n);
                    chunk
                });
                let over = read.as_ref().map_or(true, Vec::is_empty);
                if send.send(read).is_err() || over {
                    return;
                }
            }
        });
        Input {
            source: Source::Piped {
                chunks,
                current: Vec::new(),
                taken: 0,
            },
            stop: stop.clone(),
        }
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Whole(_) if self.stop.is_set() => {
                Err(io::Error::other("stopped before the end of the input"))
            }
            Source::Whole(file) => file.read(out),
            Source::Growing { file, done } => loop {
                let ends = self.stop.is_set() || done.exists(); // asked first: what is written before it counts
                let n = file.read(out)?;
                if n > 0 || ends {
                    return Ok(n);
                }
                std::thread::sleep(limits::POLL);
            },
            Source::Piped {
                chunks,
                current,
                taken,
            } => {
                while *taken == current.len() {
                    match chunks.recv_timeout(limits::POLL) {
                        Ok(chunk) => (*current, *taken) = (chunk?, 0),
                        Err(RecvTimeoutError::Timeout) if !self.stop.is_set() => continue,
                        Err(_) => return Ok(0),
                    }
                    if current.is_empty() {
                        return Ok(0);
                    }
                }
                let n = out.len().min(current.len() - *taken);
                out[..n].copy_from_slice(&current[*taken..*taken + n]);
                *taken += n;
                Ok(n)
            }
        }
    }
}

/// Reads what is there of the next segment, waiting for the first byte; nothing at the end of the footage.
pub(super) fn read_some(footage: &mut dyn Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.resize(limits::INPUT_CHUNK_BYTES, 0);
    let read = loop {
        match footage.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    buffer.truncate(*read.as_ref().unwrap_or(&0));
    read.map(drop)
}

/// Reads on until the segment is full or the footage ends.
pub(super) fn fill(footage: &mut dyn Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    let left = wire::SEGMENT_FOOTAGE_BYTES - buffer.len();
    footage.take(left as u64).read_to_end(buffer).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::Write;

    #[test]
    fn a_growing_file_is_read_until_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        let mut input = Input::growing(&path, &Stop::default()).unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(limits::POLL);
            file.write_all(b"two").unwrap();
            File::create(path.with_extension("done")).unwrap();
        });
        let mut read = Vec::new();
        input.read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        assert_eq!(read, b"onetwo");
    }

    #[test]
    fn a_pipe_ends_at_a_stop_and_a_plain_file_does_not_end_early() {
        let stop = Stop::default();
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"footage").unwrap();
        let mut input = Input::piped(reader, &stop);
        let mut read = [0; 7];
        input.read_exact(&mut read).unwrap();
        stop.set();
        assert_eq!(input.read(&mut read).unwrap(), 0);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("clip"), b"x").unwrap();
        let mut plain = Input::whole(&folder.path().join("clip"), &stop).unwrap();
        assert!(plain.read(&mut read).is_err());
    }
}
