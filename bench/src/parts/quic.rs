//! QUIC alone: one process sends segments from RAM, another receives and drops them. TLS, sockets and
//! datagram size are the parties'; transport numbers, streams and loops are its own, the fewest that fill
//! the path.
//!
//! One connection, one current-thread runtime a side, eight segments in flight, each on a stream of its own.
//! Each side measures itself from its connection to its last segment.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use link::agency::{self, TrialOptions};
use link::clock::Clock;
use link::credentials::{CredentialFiles, Credentials};
use link::limits::DATAGRAM_BYTES;
use link::quic::Hop;
use link::random::Random;
use link::refusals::Refusals;
use link::socket::{SocketOptions, bind_system};
use link::tasks::current_thread;
use link::tls::{self, Dates, PeerCheck, Verdict};
use protocol::identity::Role;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TransportConfig, VarInt,
};

use super::{SEGMENT_BYTES, Sample, parse};
use crate::process::{Yard, own_cpu_s};

const SITE: &str = "bench";
const IN_FLIGHT: usize = 8;
const WINDOW: u32 = 8 << 20;
const READY: Duration = Duration::from_secs(10);
/// What the sender closes with when all has arrived.
const DONE: u32 = 0;

/// Makes certificates for both sides.
pub(super) fn keys(yard: &Yard) -> Result<PathBuf> {
    let dir = yard.path().join("part-keys");
    let options = TrialOptions {
        cameras: 0,
        sites: vec![SITE.parse()?],
        station: SITE.into(),
    };
    agency::trial(&dir, &options, &yard.clock, &Random::system())?;
    Ok(dir)
}

/// Sends `segments` segments from one process to another: what the sender and the receiver said.
pub(super) fn measure(yard: &Yard, keys: &Path, segments: u64) -> Result<(Sample, Sample)> {
    let (dir, segments) = (OsString::from(keys), OsString::from(segments.to_string()));
    let args = [dir.clone(), segments.clone()];
    let mut receiver = yard.start("quic-receive", "part:quic-receive", &args)?;
    let address = receiver.ready("listening on ", READY)?;
    let args = [dir, address.into(), segments];
    let sent = parse(&yard.run("quic-send", "part:quic-send", &args)?)?;
    Ok((sent, parse(&receiver.finish()?)?))
}

/// The sending process.
pub(super) fn send(keys: &Path, to: SocketAddr, segments: u64) -> Result<()> {
    let mut segment = vec![0; SEGMENT_BYTES];
    Random::system().fill(&mut segment);
    let segment = Bytes::from(segment);
    let own = credentials(
        keys,
        &keys.join(format!("repeaters/{SITE}-1")),
        Role::Repeater,
    )?;
    current_thread(async {
        let endpoint = endpoint(None)?;
        let tls = tls::client_config(&own, Hop::Archive.alpn(), check(&own, Role::Archive))?;
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::new(transport()));
        let connection = endpoint
            .connect_with(config, to, "archive.bwc.invalid")?
            .await?;
        let sample = send_all(&connection, &segment, segments).await?;
        connection.close(DONE.into(), b"");
        endpoint.wait_idle().await;
        sample.print();
        Ok(())
    })?
}

async fn send_all(connection: &Connection, segment: &Bytes, segments: u64) -> Result<Sample> {
    let clock = Clock::system();
    let (began, cpu) = (clock.instant(), own_cpu_s());
    let mut under_way = FuturesUnordered::new();
    for _ in 0..segments {
        if under_way.len() == IN_FLIGHT {
            under_way.next().await.context("streams are under way")??;
        }
        let stream = connection.open_uni().await?;
        under_way.push(send_one(stream, segment.clone()));
    }
    while let Some(sent) = under_way.next().await {
        sent?;
    }
    Ok(sample(&clock, began, cpu, segments * SEGMENT_BYTES as u64))
}

async fn send_one(mut stream: SendStream, segment: Bytes) -> Result<()> {
    stream.write_chunk(segment).await?;
    stream.finish()?;
    // Resolves when the receiver's side has all of it.
    ensure!(
        stream.stopped().await?.is_none(),
        "the receiver stopped a stream"
    );
    Ok(())
}

/// The receiving process.
pub(super) fn receive(keys: &Path, segments: u64) -> Result<()> {
    let own = credentials(keys, &keys.join(format!("archives/{SITE}")), Role::Archive)?;
    current_thread(async {
        let tls = tls::server_config(&own, Hop::Archive.alpn(), check(&own, Role::Repeater))?;
        let crypto = Arc::new(QuicServerConfig::try_from(tls)?);
        let mut config = quinn::ServerConfig::with_crypto(crypto);
        config.transport_config(Arc::new(transport()));
        let endpoint = endpoint(Some(config))?;
        println!("listening on {}", endpoint.local_addr()?);
        let connection = endpoint
            .accept()
            .await
            .context("the endpoint is open")?
            .await?;
        let sample = receive_all(&connection, segments).await?;
        connection.closed().await;
        sample.print();
        Ok(())
    })?
}

async fn receive_all(connection: &Connection, segments: u64) -> Result<Sample> {
    let clock = Clock::system();
    let (began, cpu) = (clock.instant(), own_cpu_s());
    let mut under_way = FuturesUnordered::new();
    let (mut accepted, mut bytes) = (0, 0);
    while accepted < segments || !under_way.is_empty() {
        tokio::select! {
            Some(length) = under_way.next(), if !under_way.is_empty() => bytes += length?,
            stream = connection.accept_uni(), if accepted < segments => {
                under_way.push(receive_one(stream?));
                accepted += 1;
            }
        }
    }
    ensure!(
        bytes == segments * SEGMENT_BYTES as u64,
        "{bytes} bytes arrived"
    );
    Ok(sample(&clock, began, cpu, bytes))
}

async fn receive_one(mut stream: RecvStream) -> Result<u64> {
    let mut bytes = 0;
    while let Some(chunk) = stream.read_chunk(usize::MAX, true).await? {
        bytes += chunk.bytes.len() as u64;
    }
    Ok(bytes)
}

fn sample(clock: &Clock, began: std::time::Instant, cpu: f64, bytes: u64) -> Sample {
    let wall_s = clock.instant().duration_since(began).as_secs_f64();
    Sample {
        bytes,
        wall_s,
        cpu_s: own_cpu_s() - cpu,
        ..Sample::default()
    }
}

fn endpoint(server: Option<quinn::ServerConfig>) -> Result<Endpoint> {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = bind_system(&SocketOptions::at(address))?;
    let config = EndpointConfig::default();
    Ok(Endpoint::new_with_abstract_socket(
        config,
        server,
        socket.socket,
        socket.runtime,
    )?)
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .initial_mtu(DATAGRAM_BYTES)
        .mtu_discovery_config(None)
        .receive_window(VarInt::from_u32(2 * WINDOW))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .send_fairness(false);
    config
}

fn credentials(keys: &Path, own: &Path, role: Role) -> Result<Credentials> {
    let files = CredentialFiles {
        chain: own.join("chain.pem"),
        key: own.join("key.pem"),
        trust: keys.join("trust.pem"),
        crl: None,
    };
    Ok(Credentials::load(&files, role)?)
}

fn check(own: &Credentials, expected: Role) -> PeerCheck {
    PeerCheck {
        peer: SocketAddr::from(([127, 0, 0, 1], 0)),
        expected,
        trust: own.trust.clone(),
        clock: Clock::system(),
        dates: Dates::Enforced,
        refusals: Refusals::default(),
        verdict: Verdict::default(),
    }
}
