//! What the outside gives a party, as one value: time, randomness and sockets. A program makes
//! [`Seams::system`] in its `main`; the simulation makes its own, and a seed replays a fault.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock::Clock;
use crate::random::Random;
use crate::socket::{Socket, SocketOptions, bind_system};

/// A bind under way.
pub type Binding = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;

/// How a UDP socket is had. Asynchronous because a simulated network binds inside its own runtime.
pub type Bind = Arc<dyn Fn(SocketOptions) -> Binding + Send + Sync>;

/// Time, randomness and network of one party. Cheap to clone; clones share one clock.
#[derive(Clone)]
pub struct Seams {
    /// Wall and monotonic clock.
    pub clock: Clock,
    /// Random bytes.
    pub random: Random,
    /// UDP sockets.
    pub bind: Bind,
}

impl Seams {
    /// The machine's own.
    #[must_use]
    pub fn system() -> Self {
        Seams {
            clock: Clock::system(),
            random: Random::system(),
            bind: Arc::new(|options| Box::pin(async move { bind_system(&options) })),
        }
    }

    /// Binds a socket. Must run inside the runtime that will use it.
    ///
    /// # Errors
    /// What the network says, naming the address.
    pub async fn bind(&self, options: SocketOptions) -> io::Result<Socket> {
        let (address, device) = (options.address, options.device.clone());
        (self.bind)(options).await.map_err(|e| {
            let on = device
                .map(|d| format!(" on device {d}"))
                .unwrap_or_default();
            io::Error::new(e.kind(), format!("cannot bind UDP {address}{on}: {e}"))
        })
    }
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seams")
            .field("clock", &self.clock)
            .field("random", &self.random)
            .finish_non_exhaustive()
    }
}
