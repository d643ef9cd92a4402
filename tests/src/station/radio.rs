//! hostapd's control socket without a radio: one station, heard as well as a case says. A wired hostapd hears nobody, and
//! this kernel has no Wi-Fi; what associates and leaves is shown with the real program ([`super::port`]).

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the thread looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

/// The socket, which goes with it.
#[derive(Debug)]
pub struct Radio {
    signal: Arc<AtomicI8>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    file: PathBuf,
}

impl Radio {
    /// Answers in this folder for a BSS of that name, whose one station is heard with so many dBm.
    ///
    /// # Panics
    /// Where the socket cannot be made.
    #[must_use]
    pub fn new(folder: &Path, device: &str, mac: String, signal: i8) -> Radio {
        std::fs::create_dir_all(folder).unwrap();
        let file = folder.join(device);
        let socket = UnixDatagram::bind(&file).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        let (signal, stop) = (
            Arc::new(AtomicI8::new(signal)),
            Arc::new(AtomicBool::new(false)),
        );
        let (heard, ends) = (Arc::clone(&signal), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while !ends.load(Ordering::SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let answer = match &buffer[..length] {
                    b"ATTACH" => "OK\n".to_owned(),
                    b"STA-FIRST" => {
                        let dbm = heard.load(Ordering::SeqCst);
                        format!("{mac}\nflags=[AUTH][ASSOC][AUTHORIZED]\nsignal={dbm}\n")
                    }
                    _ => String::new(),
                };
                if let Some(to) = from.as_pathname() {
                    // Who asked may have gone meanwhile.
                    let _ = socket.send_to(answer.as_bytes(), to);
                }
            }
        });
        Radio {
            signal,
            stop,
            thread: Some(thread),
            file,
        }
    }

    /// It is heard with so many dBm from now on.
    pub fn hear(&self, dbm: i8) {
        self.signal.store(dbm, Ordering::SeqCst);
    }
}

impl Drop for Radio {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.file);
    }
}
