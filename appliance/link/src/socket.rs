//! UDP sockets for QUIC: buffers large enough for a burst of one round trip, optionally bound to one network
//! device, and handed to quinn as an abstract socket so that a simulation can give its own.
//!
//! Buffers beyond `net.core.rmem_max` need CAP_NET_ADMIN; without it the kernel's limit holds, and the log says
//! what was granted. A socket on the unspecified IPv6 address serves IPv4 too, and IPv4 alone where the machine
//! has no IPv6.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, getsockopt, setsockopt,
    socket, sockopt,
};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime};
use tracing::{debug, warn};

use crate::limits;

/// Where a socket is bound.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// Local address; port 0 takes any.
    pub address: SocketAddr,
    /// Network device that all its packets must use (`SO_BINDTODEVICE`).
    pub device: Option<String>,
}

impl SocketOptions {
    /// At an address, on any device.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        SocketOptions {
            address,
            device: None,
        }
    }
}

/// A bound socket and the runtime that drives it.
#[derive(Clone, Debug)]
pub struct Socket {
    /// The socket as quinn uses it.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Timers, tasks and time for quinn.
    pub runtime: Arc<dyn Runtime>,
    /// Seeds quinn's own randomness in a simulation.
    pub rng_seed: Option<[u8; 32]>,
}

/// Binds a socket of this machine. Must be called inside a tokio runtime.
///
/// # Errors
/// What the kernel says.
pub fn bind_system(options: &SocketOptions) -> io::Result<Socket> {
    let runtime = Arc::new(TokioRuntime);
    let udp = match bind_udp(options) {
        // A machine without IPv6 still has all of IPv4.
        Err(_) if options.address.ip() == Ipv6Addr::UNSPECIFIED => {
            let address = (Ipv4Addr::UNSPECIFIED, options.address.port()).into();
            bind_udp(&SocketOptions {
                address,
                ..options.clone()
            })?
        }
        bound => bound?,
    };
    let socket = runtime.wrap_udp_socket(udp)?;
    Ok(Socket {
        socket,
        runtime,
        rng_seed: None,
    })
}

fn bind_udp(options: &SocketOptions) -> io::Result<UdpSocket> {
    let v6 = options.address.is_ipv6();
    let family = if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let fd = socket(
        family,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    if v6 {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    if let Some(device) = &options.device {
        setsockopt(&fd, sockopt::BindToDevice, &OsString::from(device))?;
    }
    match options.address {
        SocketAddr::V4(v4) => bind(fd.as_raw_fd(), &SockaddrIn::from(v4))?,
        SocketAddr::V6(v6) => bind(fd.as_raw_fd(), &SockaddrIn6::from(v6))?,
    }
    enlarge_buffers(&fd, options.address)?;
    Ok(fd.into())
}

fn enlarge_buffers(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let wanted = limits::SOCKET_BUFFER_BYTES;
    // The forced variants pass the system's limit and need a capability; failing is normal.
    if setsockopt(fd, sockopt::RcvBufForce, &wanted).is_err() {
        setsockopt(fd, sockopt::RcvBuf, &wanted)?;
    }
    if setsockopt(fd, sockopt::SndBufForce, &wanted).is_err() {
        setsockopt(fd, sockopt::SndBuf, &wanted)?;
    }
    // The kernel counts its bookkeeping too and reports the double.
    let receive = getsockopt(fd, sockopt::RcvBuf)? / 2;
    let send = getsockopt(fd, sockopt::SndBuf)? / 2;
    if receive.min(send) < limits::SOCKET_BUFFER_BYTES_MIN {
        warn!(%address, receive, send, wanted, "small socket buffers: raise net.core.rmem_max and wmem_max to {wanted}");
    } else {
        debug!(%address, receive, send, "socket buffers granted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn binds_either_family_and_names_a_missing_device() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = bind_udp(&SocketOptions::at(address.parse().unwrap())).unwrap();
            assert_ne!(socket.local_addr().unwrap().port(), 0);
            assert!(getsockopt(&socket, sockopt::RcvBuf).unwrap() > 100_000);
        }
        let options = SocketOptions {
            address: "127.0.0.1:0".parse().unwrap(),
            device: Some("nonesuch0".into()),
        };
        assert!(bind_udp(&options).is_err());
    }
}
