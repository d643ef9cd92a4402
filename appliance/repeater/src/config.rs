//! The repeater's configuration: TOML, unknown keys refused. An error names file, line, key, why, and how to mend
//! it. Relative paths are under the file's own folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use link::config::{ConfigError, Source};
use link::credentials::CredentialFiles;
use link::service;
use protocol::ids::SiteId;
use serde::Deserialize;
use toml::Spanned;

use crate::discover::settings::Settings;
use crate::{limits, trusted_time};

mod discover;

const KEYS: &str = "[identity] chain, key, trust, crl, key_list; [spool] dir, suspect_dir, capacity_bytes, \
    high_percent, low_percent, urgent_percent; [[archive]] site, addresses; [pull] segments_in_flight, sessions, \
    in_flight, nearby_in_flight, camera_bytes_per_second, datagram_bytes; [forward] segments_in_flight, \
    datagram_bytes; [listen] http; [time] chrony, bound_ms; ";

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificate, key, roots, revocation list.
    pub credentials: CredentialFiles,
    /// The key list to begin with; a newer one from an archive replaces it.
    pub key_list: PathBuf,
    /// Where footage is kept.
    pub spool_dir: PathBuf,
    /// Where a failed sync is marked until the next boot (a folder in RAM).
    pub suspect_dir: PathBuf,
    /// Bytes that the spool may use, none: what its file system has.
    pub capacity_bytes: Option<u64>,
    /// Watermarks in percent of the capacity: high, low, and the reserve for urgent footage.
    pub percent: Percent,
    /// Archive sites in order of preference.
    pub archives: Vec<Archive>,
    /// Where cameras are looked for.
    pub discover: Settings,
    /// Segments in flight for each camera.
    pub pulls: u16,
    /// Sessions with cameras at once.
    pub sessions: usize,
    /// Segments in flight over all cameras.
    pub pulls_in_flight: usize,
    /// Of them, those of nearby cameras.
    pub nearby_in_flight: usize,
    /// Bytes a second that one camera is asked for at most.
    pub camera_bytes_per_second: Option<u64>,
    /// Datagram size on the camera hop, in bytes.
    pub camera_datagram_bytes: u16,
    /// Segments in flight for each site.
    pub puts: u16,
    /// Datagram size on the archive hop, in bytes.
    pub archive_datagram_bytes: u16,
    /// Where metrics, health and status are served: a loopback address.
    pub http: SocketAddr,
    /// Who says how far off the clock may be.
    pub time: trusted_time::Settings,
}

/// Watermarks in percent of the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent {
    /// Pulling stops above this.
    pub high: u64,
    /// Reclaim goes down to this.
    pub low: u64,
    /// What only urgent footage may use, above `high`.
    pub urgent: u64,
}

/// One archive site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Its name, as in its certificate and receipts.
    pub site: SiteId,
    /// Its endpoints, in order of preference.
    pub addresses: Vec<SocketAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    identity: RawIdentity,
    spool: RawSpool,
    archive: Vec<RawArchive>,
    #[serde(default)]
    discover: discover::Raw,
    #[serde(default)]
    pull: RawPull,
    #[serde(default)]
    forward: RawForward,
    listen: RawListen,
    #[serde(default)]
    time: RawTime,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIdentity {
    chain: PathBuf,
    key: PathBuf,
    trust: PathBuf,
    crl: Option<PathBuf>,
    key_list: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpool {
    dir: PathBuf,
    suspect_dir: Option<PathBuf>,
    capacity_bytes: Option<Spanned<u64>>,
    high_percent: Option<Spanned<u64>>,
    low_percent: Option<Spanned<u64>>,
    urgent_percent: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArchive {
    site: Spanned<String>,
    addresses: Spanned<Vec<Spanned<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPull {
    segments_in_flight: Option<Spanned<u64>>,
    sessions: Option<Spanned<u64>>,
    in_flight: Option<Spanned<u64>>,
    nearby_in_flight: Option<Spanned<u64>>,
    camera_bytes_per_second: Option<Spanned<u64>>,
    datagram_bytes: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawForward {
    segments_in_flight: Option<Spanned<u64>>,
    datagram_bytes: Option<Spanned<u64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    http: Spanned<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTime {
    chrony: Option<Spanned<String>>,
    bound_ms: Option<Spanned<u64>>,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::parse(&Source::open(path)?, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a configuration; relative paths are under `directory`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn parse(source: &Source, directory: &Path) -> Result<Config, ConfigError> {
        let raw: Raw = source.parse(&(KEYS.to_owned() + discover::KEYS))?;
        let percent = percent(source, &raw.spool)?;
        let small = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        let datagram = |given: &Option<Spanned<u64>>, key| {
            use link::limits::{DATAGRAM_BYTES, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN};
            let bounds = DATAGRAM_BYTES_MIN.into()..=DATAGRAM_BYTES_MAX.into();
            source
                .within(given.as_ref(), key, bounds, DATAGRAM_BYTES.into())
                .map(small)
        };
        let least = 64 << 20;
        let capacity = raw.spool.capacity_bytes.as_ref();
        source.within(capacity, "spool.capacity_bytes", least..=u64::MAX, least)?;
        let shared = shared(source, &raw.pull)?;
        let credentials = service::credentials_folder();
        let at = |path: &Path| service::locate(path, directory, credentials.as_deref());
        Ok(Config {
            credentials: CredentialFiles {
                chain: at(&raw.identity.chain),
                key: at(&raw.identity.key),
                trust: at(&raw.identity.trust),
                crl: raw.identity.crl.as_deref().map(at),
            },
            key_list: at(&raw.identity.key_list),
            spool_dir: directory.join(&raw.spool.dir),
            suspect_dir: raw
                .spool
                .suspect_dir
                .map_or("/run/repeater".into(), |p| directory.join(p)),
            capacity_bytes: raw.spool.capacity_bytes.as_ref().map(|c| *c.get_ref()),
            percent,
            archives: archives(source, &raw.archive)?,
            discover: discover::settings(source, &raw.discover, directory)?,
            pulls: small(source.within(
                raw.pull.segments_in_flight.as_ref(),
                "pull.segments_in_flight",
                2..=4,
                3,
            )?),
            sessions: small(source.within(
                raw.pull.sessions.as_ref(),
                "pull.sessions",
                1..=200,
                64,
            )?)
            .into(),
            pulls_in_flight: shared.pulls,
            nearby_in_flight: shared.nearby,
            camera_bytes_per_second: shared.camera_bytes_per_second,
            camera_datagram_bytes: datagram(&raw.pull.datagram_bytes, "pull.datagram_bytes")?,
            puts: small(source.within(
                raw.forward.segments_in_flight.as_ref(),
                "forward.segments_in_flight",
                1..=32,
                8,
            )?),
            archive_datagram_bytes: datagram(
                &raw.forward.datagram_bytes,
                "forward.datagram_bytes",
            )?,
            http: http(source, &raw.listen.http)?,
            time: time(source, &raw.time)?,
        })
    }
}

/// What cameras share.
struct Shared {
    pulls: usize,
    nearby: usize,
    camera_bytes_per_second: Option<u64>,
}

fn shared(source: &Source, raw: &RawPull) -> Result<Shared, ConfigError> {
    let pulls = |given: &Option<Spanned<u64>>, key, default: usize| {
        let most = limits::PULLS_IN_FLIGHT as u64;
        let within = source.within(given.as_ref(), key, 1..=most, default as u64)?;
        Ok::<usize, ConfigError>(usize::try_from(within).unwrap_or(default))
    };
    let (rate, least) = (raw.camera_bytes_per_second.as_ref(), 64 << 10);
    let key = "pull.camera_bytes_per_second";
    source.within(rate, key, least..=u64::MAX, least)?;
    Ok(Shared {
        pulls: pulls(&raw.in_flight, "pull.in_flight", limits::PULLS_IN_FLIGHT)?,
        nearby: pulls(
            &raw.nearby_in_flight,
            "pull.nearby_in_flight",
            limits::NEARBY_IN_FLIGHT,
        )?,
        camera_bytes_per_second: rate.map(|r| *r.get_ref()),
    })
}

fn percent(source: &Source, raw: &RawSpool) -> Result<Percent, ConfigError> {
    let high = source.within(raw.high_percent.as_ref(), "spool.high_percent", 10..=95, 85)?;
    let low = source.within(
        raw.low_percent.as_ref(),
        "spool.low_percent",
        1..=94,
        high.saturating_sub(15).max(1),
    )?;
    let urgent = source.within(
        raw.urgent_percent.as_ref(),
        "spool.urgent_percent",
        0..=20,
        5,
    )?;
    let at = |given: &Option<Spanned<u64>>| given.as_ref().map_or(0..0, Spanned::span);
    if low >= high {
        let what = format!("spool.low_percent: {low} is not below high_percent, {high}");
        return Err(source.invalid(
            at(&raw.low_percent),
            &what,
            "reclaim needs room between the two: 85 and 70 are usual",
        ));
    }
    if high + urgent > 98 {
        let what = format!(
            "spool.urgent_percent: {urgent} above high_percent {high} leaves no room for receipts"
        );
        return Err(source.invalid(
            at(&raw.urgent_percent),
            &what,
            "keep high_percent + urgent_percent at 98 or below",
        ));
    }
    Ok(Percent { high, low, urgent })
}

fn archives(source: &Source, raw: &[RawArchive]) -> Result<Vec<Archive>, ConfigError> {
    let mut archives: Vec<Archive> = Vec::new();
    for given in raw {
        let site: SiteId = source.value(&given.site, "archive.site", |t| {
            t.parse().map_err(|e| format!("{e}"))
        })?;
        if archives.iter().any(|a| a.site == site) {
            let what = format!("archive.site: {site} stands twice");
            return Err(source.invalid(
                given.site.span(),
                &what,
                "give one [[archive]] all addresses of a site",
            ));
        }
        let addresses: Vec<_> = given
            .addresses
            .get_ref()
            .iter()
            .map(|a| address(source, a, "archive.addresses"))
            .collect::<Result<_, _>>()?;
        if addresses.is_empty() {
            let what = format!("archive.addresses: site {site} has none");
            return Err(source.invalid(
                given.addresses.span(),
                &what,
                "write addresses = [\"ADDRESS:47801\"]",
            ));
        }
        archives.push(Archive { site, addresses });
    }
    if archives.is_empty() {
        return Err(source.invalid(
            0..0,
            "archive: no site is given",
            "write [[archive]] with site and addresses",
        ));
    }
    Ok(archives)
}

fn address(source: &Source, given: &Spanned<String>, key: &str) -> Result<SocketAddr, ConfigError> {
    let mend = "write an address and a port, such as 192.0.2.7:47801 or [fe80::7%2]:47800";
    source.value(given, key, |text| text.parse().map_err(|_| mend.to_owned()))
}

fn http(source: &Source, given: &Spanned<String>) -> Result<SocketAddr, ConfigError> {
    let at = address(source, given, "listen.http")?;
    if at.ip().is_loopback() {
        return Ok(at);
    }
    let what =
        format!("listen.http: {at} is not a loopback address, and the page has no authentication");
    Err(source.invalid(
        given.span(),
        &what,
        "use 127.0.0.1:9470 and let the collector run on this machine",
    ))
}

fn time(source: &Source, raw: &RawTime) -> Result<trusted_time::Settings, ConfigError> {
    let chrony = match &raw.chrony {
        Some(given) => address(source, given, "time.chrony")?,
        None => limits::CHRONY_AT,
    };
    let bound = source.within(raw.bound_ms.as_ref(), "time.bound_ms", 1..=60_000, 500)?;
    Ok(trusted_time::Settings {
        chrony,
        bound: Duration::from_millis(bound),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const GOOD: &str = r#"
[identity]
chain = "chain.pem"
key = "key.pem"
trust = "trust.pem"
key_list = "key-list.cose"
[spool]
dir = "spool"
[[archive]]
site = "nfs1"
addresses = ["127.0.0.1:47801"]
[listen]
http = "127.0.0.1:9470"
"#;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(
            &Source::new("repeater.toml", text.to_owned()),
            Path::new("/etc/bwc"),
        )
    }

    #[test]
    fn a_short_file_has_sound_defaults() {
        let c = parse(GOOD).unwrap();
        assert_eq!(
            c.percent,
            Percent {
                high: 85,
                low: 70,
                urgent: 5
            }
        );
        assert_eq!(c.spool_dir, Path::new("/etc/bwc/spool"));
        assert_eq!((c.pulls, c.puts), (3, 8));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_mend() {
        let cases = [
            (
                "chain = \"chain.pem\"",
                "chain = \"chain.pem\"\ncolour = 1",
                "colour",
            ),
            (
                "dir = \"spool\"",
                "dir = \"spool\"\nhigh_percent = 99",
                "spool.high_percent",
            ),
            (
                "dir = \"spool\"",
                "dir = \"spool\"\nlow_percent = 90",
                "spool.low_percent",
            ),
            (
                "http = \"127.0.0.1:9470\"",
                "http = \"0.0.0.0:9470\"",
                "loopback",
            ),
            ("[\"127.0.0.1:47801\"]", "[]", "archive.addresses"),
            ("[\"127.0.0.1:47801\"]", "[\"nfs1\"]", "archive.addresses"),
            ("site = \"nfs1\"", "site = \"a b\"", "archive.site"),
            ("dir = \"spool\"", "dir = 7", "string"),
            (
                "[listen]",
                "[pull]\nnearby_in_flight = 41\n[listen]",
                "pull.nearby_in_flight",
            ),
            (
                "[listen]",
                "[pull]\ncamera_bytes_per_second = 1\n[listen]",
                "pull.camera_bytes_per_second",
            ),
        ];
        for (from, to, names) in cases {
            let e = parse(&GOOD.replace(from, to)).unwrap_err();
            let ConfigError::Invalid { what, mend, at, .. } = &e else {
                panic!("{e}")
            };
            assert!(what.contains(names), "{what}");
            assert!(
                !mend.is_empty() && (at.offset() > 0 || !at.is_empty()),
                "{what}: {mend}"
            );
        }
    }
}
