//! Logs: tracing to stderr with timestamps, level by `RUST_LOG`, `info` without it. The journal and the
//! tests both read stderr; there is no log file to rotate.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged without `RUST_LOG`: quinn's own chatter is not ours to explain.
const DEFAULT: &str = "info,quinn=warn,quinn_proto=warn,quinn_udp=warn,rustls=warn,mdns_sd=warn";

/// Starts logging. A second call does nothing, so that a party can run inside a test.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let stderr = std::io::stderr();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr.is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}
