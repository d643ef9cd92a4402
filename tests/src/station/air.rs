//! The air, and any other bad link: a process in the middle of a cable that passes whole Ethernet frames on, with a
//! delay, a rate, a queue of so many milliseconds, and random loss. This kernel has no netem.
//!
//! It stands in a namespace of its own, where both half cables end in a packet socket; whatever a link carries, it
//! carries: IPv6 link-local, multicast, EAPOL. Offloads of the outer ends are off, so that a frame is what a wire would
//! carry, with its checksum. Each way is a thread that takes and one that gives. It keeps a copy of every frame where it
//! is asked to.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use link::random::Random;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind,
    recvfrom, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::netns::{Namespace, tool};
use super::wire::{End, Wire};
use crate::wait::now;

/// A frame that this machine sends itself, in the kernel's words.
const OUTGOING: u8 = 4;
/// How often a thread looks whether it should end.
const LOOK_MS: i64 = 50;
/// Room in the kernel for frames that were not taken yet.
const BUFFER: usize = 8 << 20;

/// What a link does to frames, each way.
#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// On the way, beside the queue.
    pub delay: Duration,
    /// Frames lost, of 1000.
    pub loss: u64,
    /// Bits of a second, in millions.
    pub mbit: u64,
    /// What would wait longer is dropped.
    pub queue: Duration,
}

impl Default for Quality {
    fn default() -> Self {
        Quality {
            delay: Duration::ZERO,
            loss: 0,
            mbit: 1000,
            queue: Duration::from_millis(100),
        }
    }
}

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the far end (the camera).
    Out = 0,
    /// From it.
    Back = 1,
}

/// The air between two ends.
#[derive(Debug)]
pub struct Air {
    // The order is that of their end: threads, cables, the namespace that they end in.
    threads: Vec<JoinHandle<()>>,
    shared: Arc<[Lane; 2]>,
    stop: Arc<AtomicBool>,
    near: Wire,
    far: Wire,
    _middle: Namespace,
}

/// One way.
#[derive(Debug)]
struct Lane {
    state: Mutex<Queue>,
    more: Condvar,
    passed: AtomicU64,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    quality: Quality,
    /// When the last of them has left the sender.
    free_at: Instant,
    frames: VecDeque<(Instant, Vec<u8>)>,
    record: Option<Vec<u8>>,
}

impl Air {
    /// Air between two namespaces; both ends are off. `what` begins the near device's name.
    #[must_use]
    pub fn new(what: &str, near: &Namespace, far: &Namespace, quality: Quality) -> Air {
        let middle = Namespace::new("air");
        middle.set("ipv6/conf/default/disable_ipv6", "1");
        let near = Wire::new(what, near, &middle);
        let far = Wire::new("x", &middle, far);
        for end in [&near.near, &far.far] {
            let name = end.space.name();
            let within = ["netns", "exec", name, "ethtool", "-K", &end.device];
            let off = ["tx", "off", "sg", "off", "gso", "off", "gro", "off"];
            tool("ip", &[&within[..], &off[..]].concat());
        }
        near.far.set(true);
        far.near.set(true);
        let lane = || Lane {
            state: Mutex::new(Queue {
                quality,
                free_at: now(),
                frames: VecDeque::new(),
                record: None,
            }),
            more: Condvar::new(),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        let shared = Arc::new([lane(), lane()]);
        let stop = Arc::new(AtomicBool::new(false));
        let (a, b) = (packets(&near.far), packets(&far.near));
        let mut threads = Vec::new();
        for (way, from, to) in [(Way::Out, &a, &b), (Way::Back, &b, &a)] {
            let of = (Arc::clone(&shared), Arc::clone(&stop), Arc::clone(from));
            threads.push(std::thread::spawn(move || {
                take(&of.0[way as usize], &of.1, &of.2)
            }));
            let of = (Arc::clone(&shared), Arc::clone(&stop), Arc::clone(to));
            threads.push(std::thread::spawn(move || {
                give(&of.0[way as usize], &of.1, &of.2)
            }));
        }
        Air {
            threads,
            shared,
            stop,
            near,
            far,
            _middle: middle,
        }
    }

    /// The station's end.
    #[must_use]
    pub fn near(&self) -> &End {
        &self.near.near
    }

    /// The other.
    #[must_use]
    pub fn far(&self) -> &End {
        &self.far.far
    }

    /// Switches both ends on.
    pub fn plug(&self) {
        self.near().set(true);
        self.far().set(true);
    }

    /// In reach, or out of it: both ends gain or lose their carrier.
    pub fn reach(&self, within: bool) {
        self.near.far.set(within);
        self.far.near.set(within);
    }

    /// Changes what the link does, both ways.
    pub fn set(&self, quality: Quality) {
        self.shared.iter().for_each(|l| l.lock().quality = quality);
    }

    /// From now on a copy of every frame that is given is kept.
    pub fn record(&self) {
        let begin = |l: &Lane| l.lock().record.get_or_insert_default().clear();
        self.shared.iter().for_each(begin);
    }

    /// The frames given since, both ways, one after the other.
    #[must_use]
    pub fn recorded(&self) -> Vec<u8> {
        let of = |l: &Lane| l.lock().record.clone().unwrap_or_default();
        self.shared.iter().flat_map(of).collect()
    }

    /// Bytes that came through.
    #[must_use]
    pub fn passed(&self, way: Way) -> u64 {
        self.shared[way as usize].passed.load(Ordering::SeqCst)
    }

    /// Bytes that were lost or dropped.
    #[must_use]
    pub fn lost(&self, way: Way) -> u64 {
        self.shared[way as usize].lost.load(Ordering::SeqCst)
    }
}

impl Drop for Air {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.shared.iter().for_each(|l| l.more.notify_all());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A socket that takes and gives whole frames of one device.
fn packets(end: &End) -> Arc<OwnedFd> {
    let device = end.device.clone();
    let open = move || {
        let all = getifaddrs().unwrap();
        let of = all.filter(|a| a.interface_name == device);
        let mut links = of.filter_map(|a| a.address?.as_link_addr().copied());
        let address = links.next().expect("the device is there");
        let flags = SockFlag::SOCK_CLOEXEC;
        let kind = (AddressFamily::Packet, SockType::Raw, SockProtocol::EthAll);
        let fd = socket(kind.0, kind.1, flags, kind.2).unwrap();
        setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).unwrap();
        setsockopt(&fd, sockopt::SndBufForce, &BUFFER).unwrap();
        let look = TimeVal::milliseconds(LOOK_MS);
        setsockopt(&fd, sockopt::ReceiveTimeout, &look).unwrap();
        bind(fd.as_raw_fd(), &address).unwrap();
        Arc::new(fd)
    };
    end.space.within(open)
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes frames and decides what becomes of each.
fn take(lane: &Lane, stop: &AtomicBool, from: &OwnedFd) {
    let (mut buffer, random) = (vec![0; 65_536], Random::system());
    while !stop.load(Ordering::SeqCst) {
        let Ok((length, sender)) = recvfrom::<LinkAddr>(from.as_raw_fd(), &mut buffer) else {
            continue;
        };
        // What this socket's own side gave is not on its way anywhere.
        if sender
            .is_some_and(|s| s.family() != Some(AddressFamily::Packet) || s.pkttype() == OUTGOING)
        {
            continue;
        }
        let (mut state, at) = (lane.lock(), now());
        let Quality {
            delay,
            loss,
            mbit,
            queue,
        } = state.quality;
        let begins = state.free_at.max(at);
        if random.u64() % 1000 < loss || begins - at > queue {
            lane.lost.fetch_add(length as u64, Ordering::SeqCst);
            continue;
        }
        state.free_at = begins + Duration::from_nanos(length as u64 * 8 * 1000 / mbit);
        let due = state.free_at + delay;
        state.frames.push_back((due, buffer[..length].to_vec()));
        lane.more.notify_one();
    }
}

/// Gives each frame when it is due.
fn give(lane: &Lane, stop: &AtomicBool, to: &OwnedFd) {
    while !stop.load(Ordering::SeqCst) {
        let mut state = lane.lock();
        let left = state
            .frames
            .front()
            .map(|(due, _)| due.saturating_duration_since(now()));
        match left {
            Some(Duration::ZERO) => {}
            other => {
                let look = Duration::from_millis(50).min(other.unwrap_or(Duration::MAX));
                drop(lane.more.wait_timeout(state, look));
                continue;
            }
        }
        let Some((_, frame)) = state.frames.pop_front() else {
            continue;
        };
        if let Some(record) = &mut state.record {
            record.extend_from_slice(&frame);
        }
        drop(state);
        lane.passed.fetch_add(frame.len() as u64, Ordering::SeqCst);
        // An end that is off takes nothing: the cable is out.
        let _ = send(to.as_raw_fd(), &frame, MsgFlags::empty());
    }
}
