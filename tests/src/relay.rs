//! A relay between two parties: it takes datagrams at its own address and passes them on, counts them, may keep a copy
//! of each, and can be cut, at once or after an exact number of bytes in one direction.
//!
//! It knows nothing of QUIC. While it is cut it drops what comes, as a cable does. One socket faces the diallers; each
//! dialler has a socket of its own towards the target, so that answers find their way.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::wait::{now, until};

/// How often a thread looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);
/// A burst of one round trip fits.
const BUFFER: usize = 4 << 20;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who dials (the repeater).
    Out = 0,
    /// To who dials.
    Back = 1,
}

/// The relay.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    front: UdpSocket,
    target: Mutex<SocketAddr>,
    stop: AtomicBool,
    cut: AtomicBool,
    /// Bytes after which a way is cut, and which.
    limit: Mutex<Option<(Way, u64)>>,
    passed: [AtomicU64; 2],
    dropped: [AtomicU64; 2],
    record: Option<Mutex<Vec<u8>>>,
}

impl Relay {
    /// A relay to `target`.
    #[must_use]
    pub fn to(target: SocketAddr) -> Relay {
        Relay::start(target, false)
    }

    /// A relay that keeps a copy of every datagram.
    #[must_use]
    pub fn recording(target: SocketAddr) -> Relay {
        Relay::start(target, true)
    }

    fn start(target: SocketAddr, record: bool) -> Relay {
        let front = socket();
        let address = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            front,
            target: Mutex::new(target),
            stop: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            limit: Mutex::new(None),
            passed: [AtomicU64::new(0), AtomicU64::new(0)],
            dropped: [AtomicU64::new(0), AtomicU64::new(0)],
            record: record.then(Mutex::default),
        });
        let front = Arc::clone(&shared);
        Relay {
            address,
            shared,
            threads: vec![std::thread::spawn(move || from_diallers(&front))],
        }
    }

    /// Where to dial.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Cuts both ways.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
    }
    /// Cuts both ways as soon as so many bytes have passed one way since the start.
    pub fn cut_after(&self, way: Way, bytes: u64) {
        *lock(&self.shared.limit) = Some((way, bytes));
    }
    /// Mends it.
    pub fn mend(&self) {
        *lock(&self.shared.limit) = None;
        self.shared.cut.store(false, Ordering::SeqCst);
    }
    /// Mends it until so many bytes have passed one way since the start.
    pub fn mend_until(&self, way: Way, bytes: u64) {
        *lock(&self.shared.limit) = Some((way, bytes));
        self.shared.cut.store(false, Ordering::SeqCst);
    }
    /// Waits behind the cut until `holds`, and cuts for good. Each second without it lets a little more pass: on a busy
    /// machine datagrams are dropped behind the relay, which has counted them, and what was to be whole is not yet.
    ///
    /// # Panics
    /// Where it does not come to hold in time.
    pub fn let_pass_until(&self, what: &str, way: Way, mut holds: impl FnMut() -> bool) {
        const LITTLE: u64 = 512 << 10;
        let mut since = now();
        until(what, || {
            if holds() {
                return true;
            }
            if self.is_cut() && now() - since > Duration::from_secs(1) {
                since = now();
                self.mend_until(way, self.passed(way) + LITTLE);
            }
            false
        });
        self.cut();
    }
    /// Whether it is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.shared.cut.load(Ordering::SeqCst)
    }
    /// Bytes of datagrams that passed.
    #[must_use]
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.passed[way as usize].load(Ordering::SeqCst)
    }
    /// Bytes of datagrams that were dropped.
    #[must_use]
    pub fn dropped(&self, way: Way) -> u64 {
        self.shared.dropped[way as usize].load(Ordering::SeqCst)
    }
    /// Every datagram so far, one after the other.
    #[must_use]
    pub fn recorded(&self) -> Vec<u8> {
        self.shared
            .record
            .as_ref()
            .map(|r| lock(r).clone())
            .unwrap_or_default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    for set in [
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER),
        setsockopt(&socket, sockopt::SndBufForce, &BUFFER),
    ] {
        if set.is_err() {
            // Without the capability the system's own limit holds.
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER).unwrap();
            setsockopt(&socket, sockopt::SndBuf, &BUFFER).unwrap();
        }
    }
    socket.set_read_timeout(Some(LOOK)).unwrap();
    socket
}

impl Shared {
    /// Whether a datagram passes.
    fn passes(&self, way: Way, datagram: &[u8]) -> bool {
        let length = datagram.len() as u64;
        if let Some((limited, most)) = *lock(&self.limit) {
            let would = self.passed[limited as usize].load(Ordering::SeqCst)
                + if limited == way { length } else { 0 };
            if would > most {
                self.cut.store(true, Ordering::SeqCst);
            }
        }
        if self.cut.load(Ordering::SeqCst) {
            self.dropped[way as usize].fetch_add(length, Ordering::SeqCst);
            return false;
        }
        self.passed[way as usize].fetch_add(length, Ordering::SeqCst);
        if let Some(record) = &self.record {
            lock(record).extend_from_slice(datagram);
        }
        true
    }
}

fn from_diallers(shared: &Arc<Shared>) {
    let mut flows: HashMap<SocketAddr, (UdpSocket, JoinHandle<()>)> = HashMap::new();
    let mut buffer = vec![0; 65_536];
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok((length, dialler)) = shared.front.recv_from(&mut buffer) else {
            continue;
        };
        if !shared.passes(Way::Out, &buffer[..length]) {
            continue;
        }
        let flow = flows.entry(dialler).or_insert_with(|| {
            let out = socket();
            let (back, shared) = (out.try_clone().unwrap(), Arc::clone(shared));
            (
                out,
                std::thread::spawn(move || to_dialler(&shared, &back, dialler)),
            )
        });
        // A target that is down answers with an ICMP error, which is nobody's matter here.
        let _ = flow.0.send_to(&buffer[..length], *lock(&shared.target));
    }
    for (_, thread) in flows.into_values() {
        let _ = thread.join();
    }
}

fn to_dialler(shared: &Shared, back: &UdpSocket, dialler: SocketAddr) {
    let mut buffer = vec![0; 65_536];
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok((length, _)) = back.recv_from(&mut buffer) else {
            continue;
        };
        if shared.passes(Way::Back, &buffer[..length]) {
            let _ = shared.front.send_to(&buffer[..length], dialler);
        }
    }
}
