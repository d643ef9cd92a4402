//! The two sockets that *interfaces* uses: the kernel's route messages, and echoes. Thin: what is read is judged by
//! [`super::wire`] and [`super::probe`].
//!
//! The netlink socket needs no right. An echo needs none either where `net.ipv4.ping_group_range` includes the
//! daemon's group (Debian's and systemd's default does); else a raw socket is tried, which needs CAP_NET_RAW.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, setsockopt,
    socket, sockopt,
};
use tokio::net::UdpSocket;

use super::wire;
use crate::discover::LinkIndex;

/// No answer is longer: the kernel cuts what it dumps into pieces of at most half of it.
const DATAGRAM_BYTES: usize = 64 << 10;
/// A shift change's worth of messages.
const RECEIVE_BYTES: usize = 1 << 20;
const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);
/// All nodes of a link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The kernel's route messages.
#[derive(Debug)]
pub struct Kernel {
    socket: UdpSocket,
    buffer: Vec<u8>,
}

/// What came.
#[derive(Debug)]
pub enum Read<'a> {
    /// Messages.
    Datagram(&'a [u8]),
    /// Messages were lost: all is to be asked anew.
    Lost,
    /// No more for now.
    Nothing,
}

impl Kernel {
    /// Begins to listen.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            FLAGS,
            SockProtocol::NetlinkRoute,
        )?;
        // As much as is allowed: what does not fit is asked for anew.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BYTES)?;
        }
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, wire::GROUPS))?;
        // Number 0 is the kernel: no other process can say anything here.
        connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Kernel {
            socket: datagrams(fd).await?,
            buffer: vec![0; DATAGRAM_BYTES],
        })
    }

    /// Sends a question.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ask(&self, question: &[u8]) -> io::Result<()> {
        self.socket.try_send(question).map(drop)
    }

    /// Resolves when something may have come.
    ///
    /// # Errors
    /// Where the runtime ends.
    pub async fn ready(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Reads one datagram.
    ///
    /// # Errors
    /// What the kernel says, but for what the caller mends by asking anew.
    pub fn read(&mut self) -> io::Result<Read<'_>> {
        match self.socket.try_recv(&mut self.buffer) {
            // It may have been longer.
            Ok(length) if length == self.buffer.len() => Ok(Read::Lost),
            Ok(length) => Ok(Read::Datagram(
                self.buffer.get(..length).unwrap_or_default(),
            )),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Read::Nothing),
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(Read::Lost),
            Err(e) => Err(e),
        }
    }
}

/// The runtime's way to a socket of datagrams: it asks nothing of its family as long as nobody asks for addresses of
/// another than IP.
async fn datagrams(fd: OwnedFd) -> io::Result<UdpSocket> {
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(fd))?;
    // Until the runtime has looked once, nothing could be sent without waiting.
    socket.writable().await?;
    Ok(socket)
}

/// Echoes.
#[derive(Debug)]
pub struct Echo {
    socket: UdpSocket,
}

impl Echo {
    /// A socket for echoes: one that needs no right, or else a raw one.
    ///
    /// # Errors
    /// What the kernel says to the second.
    pub async fn open() -> io::Result<Self> {
        let open = |kind| socket(AddressFamily::Inet6, kind, FLAGS, SockProtocol::IcmpV6);
        let fd = open(SockType::Datagram).or_else(|_| open(SockType::Raw))?;
        let socket = datagrams(fd).await?;
        // We are a node of the link ourselves.
        socket.set_multicast_loop_v6(false)?;
        Ok(Echo { socket })
    }

    /// Asks all nodes of a link. A question that cannot be sent is as one that is lost.
    pub fn ask(&self, link: LinkIndex, question: &[u8]) -> io::Result<()> {
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, link);
        self.socket
            .try_send_to(question, SocketAddr::V6(to))
            .map(drop)
    }

    /// The next packet, and from where.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV6)> {
        loop {
            if let (length, SocketAddr::V6(from)) = self.socket.recv_from(buffer).await? {
                return Ok((length, from));
            }
        }
    }
}
