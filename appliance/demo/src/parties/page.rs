//! What the repeater's status page says, as far as the demo reads it; what it does not read may change freely.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// An answer is at most this long.
const STATUS_BYTES: u64 = 4 << 20;

/// The repeater's status page, as far as the demo reads it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Status {
    /// The spool.
    #[serde(default)]
    pub(crate) spool: SpoolStatus,
    /// Each camera.
    #[serde(default)]
    pub(crate) cameras: Vec<CameraStatus>,
    /// What stands.
    #[serde(default)]
    pub(crate) alarms: Vec<Alarm>,
}

/// The spool in the status page.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct SpoolStatus {
    /// Announced and not archived.
    #[serde(default)]
    pub(crate) outstanding: u64,
    /// Announced and on no known holder: lost.
    #[serde(default)]
    pub(crate) unaccounted: u64,
}

/// A camera in the status page.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct CameraStatus {
    /// Its serial.
    #[serde(default)]
    pub(crate) serial: String,
    /// Its segments by stage.
    #[serde(default)]
    pub(crate) segments: Stages,
}

/// Segments by stage.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stages {
    /// On the camera alone.
    pub(crate) announced: u64,
    /// On the repeater's disk.
    pub(crate) held: u64,
    /// In the archive, by its receipt.
    pub(crate) archived: u64,
    /// Erased on the camera.
    pub(crate) released: u64,
    /// Not what its digest says.
    pub(crate) refused: u64,
}

/// An alarm in the status page.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Alarm {
    /// Stable code.
    pub(crate) code: String,
    /// What is wrong.
    pub(crate) what: String,
    /// Where.
    #[serde(rename = "where")]
    pub(crate) place: String,
}

/// Asks the repeater for its status.
pub(crate) fn status(http: SocketAddr) -> Result<Status> {
    let wait = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&http, wait)?;
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    stream.write_all(
        format!("GET /status HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(STATUS_BYTES).read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).context("the status page is not text")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the status page has no body")?;
    ensure!(
        head.starts_with("HTTP/1.1 200"),
        "the status page answers {}",
        head.lines().next().unwrap_or_default()
    );
    serde_json::from_str(body).context("the status page is not understood")
}
