//! The configuration: one TOML file, unknown keys refused, every error with file, line, key, why, and how to
//! mend it.
//!
//! Parsing validates: a [`Config`] is one that can run, as far as that shows without opening anything. The
//! gateway signs only where `durability` states what makes the store's success durable; a file without it
//! is refused. Relative paths are relative to the file's directory. Secrets of an S3 store are never in
//! the file: they come from the environment.

use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use link::config::{ConfigError, Source};
use link::service;
use protocol::ids::SiteId;
use serde::Deserialize;
use toml::Spanned;

use crate::limits;

/// What makes the store's success durable, as its owner states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Files and directories are synced on this machine.
    Fsync,
    /// The store answers only when so many independent copies exist.
    Replicated(NonZeroU8),
}

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder.
    Folder(PathBuf),
    /// A bucket, and a prefix in it that may be empty.
    S3 {
        /// The bucket.
        bucket: String,
        /// Keys begin with this.
        prefix: String,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Folder(path) => write!(f, "file://{}", path.display()),
            Place::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Place {
    /// Reads `file:///folder` or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// Why it is neither, and how to write it.
    pub fn parse(url: &str) -> Result<Place, String> {
        if let Some(path) = url.strip_prefix("file://") {
            return match path.starts_with('/') {
                true => Ok(Place::Folder(PathBuf::from(path))),
                false => {
                    Err("a folder's path is absolute: write `file:///var/lib/archive`".to_owned())
                }
            };
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            return Err("write `file:///folder` or `s3://bucket/prefix`".to_owned());
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err("the bucket's name is missing: write `s3://bucket/prefix`".to_owned());
        }
        Ok(Place::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
        })
    }
}

/// How to reach an S3-compatible store; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// `https://host:port`; AWS itself where absent.
    pub endpoint: Option<String>,
    /// The region, `us-east-1` where absent.
    pub region: Option<String>,
    /// Whether plain HTTP may be used: on a network that is protected otherwise.
    #[serde(default)]
    pub allow_http: bool,
    /// PEM file of the authorities that the endpoint's certificate may come from, the system's where absent.
    pub ca: Option<PathBuf>,
}

/// The gateway's own credentials, as the agency made them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialPaths {
    /// Certificate chain of this site, PEM.
    pub chain: PathBuf,
    /// Its key, PEM, mode 0600.
    pub key: PathBuf,
    /// The key that signs receipts, PEM, mode 0600.
    pub receipt_key: PathBuf,
    /// The agency's root certificate.
    pub trust: PathBuf,
    /// The agency's revocation lists.
    pub crl: Option<PathBuf>,
    /// The agency's key list.
    pub key_list: PathBuf,
    /// Where the endpoint's keys are kept over restarts, made where absent.
    pub endpoint_keys: Option<PathBuf>,
}

/// What the gateway takes on at one time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Bytes of segments in memory, all connections together.
    pub bytes_in_flight: u64,
    /// The same of one connection.
    pub bytes_in_flight_per_connection: u64,
    /// Connections at one time.
    pub connections: u32,
}

impl Default for Grants {
    fn default() -> Self {
        Grants {
            bytes_in_flight: limits::BYTES_IN_FLIGHT,
            bytes_in_flight_per_connection: limits::BYTES_IN_FLIGHT_CONNECTION,
            connections: limits::CONNECTIONS,
        }
    }
}

/// The configuration of one gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The site that this gateway signs for.
    pub site: SiteId,
    /// Where repeaters dial.
    pub listen: SocketAddr,
    /// Where objects are kept.
    pub store: Place,
    /// How to reach an S3 store.
    pub s3: S3,
    /// What makes its success durable.
    pub durability: Durability,
    /// Credentials.
    pub credentials: CredentialPaths,
    /// Where metrics are served over HTTP; nowhere if none.
    pub metrics: Option<SocketAddr>,
    /// What is taken on at one time.
    pub grants: Grants,
    /// Datagrams of up to so many bytes.
    pub datagram_bytes: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    site: Spanned<String>,
    listen: Spanned<String>,
    store: Spanned<String>,
    durability: Option<Spanned<String>>,
    credentials: CredentialPaths,
    metrics: Option<Spanned<String>>,
    #[serde(default)]
    s3: S3,
    grants: Option<Spanned<Grants>>,
    datagram_bytes: Option<Spanned<u16>>,
}

const KEYS: &str =
    "site, listen, store, durability, metrics, datagram_bytes, [credentials], [s3] and [grants]";

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::read(&Source::open(path)?, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a configuration whose relative paths are under `directory`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn read(source: &Source, directory: &Path) -> Result<Config, ConfigError> {
        let raw: Raw = source.parse(KEYS)?;
        let durability = durability(source, raw.durability.as_ref())?;
        let store = source.value(&raw.store, "store", Place::parse)?;
        if durability == Durability::Fsync && matches!(store, Place::S3 { .. }) {
            let at = raw.durability.as_ref().map_or(0..0, Spanned::span);
            return Err(source.invalid(
                at,
                "durability: no sync of this machine reaches an S3 store",
                "write durability = \"replicated:N\", N being the copies that exist before the store answers",
            ));
        }
        if let Some(grants) = raw.grants.as_ref() {
            check_grants(source, grants)?;
        }
        if let Some(bytes) = raw
            .datagram_bytes
            .as_ref()
            .filter(|b| !(1200..=6400).contains(b.get_ref()))
        {
            return Err(source.invalid(
                bytes.span(),
                "datagram_bytes is out of range",
                "use 1200 to 6400",
            ));
        }
        let address = |given: &Spanned<String>, key| {
            source.value(given, key, |text| {
                text.parse()
                    .map_err(|_| "write an address and a port, such as 0.0.0.0:47801".to_owned())
            })
        };
        Ok(Config {
            site: source.value(&raw.site, "site", |text| {
                text.parse().map_err(|e| format!("{e}"))
            })?,
            listen: address(&raw.listen, "listen")?,
            store,
            durability,
            metrics: raw
                .metrics
                .as_ref()
                .map(|m| address(m, "metrics"))
                .transpose()?,
            credentials: under(directory, raw.credentials),
            s3: S3 {
                ca: raw.s3.ca.as_ref().map(|ca| directory.join(ca)),
                ..raw.s3
            },
            grants: raw.grants.map(Spanned::into_inner).unwrap_or_default(),
            datagram_bytes: raw.datagram_bytes.map(Spanned::into_inner),
        })
    }
}

fn under(directory: &Path, c: CredentialPaths) -> CredentialPaths {
    let credentials = service::credentials_folder();
    let at = |path: PathBuf| service::locate(&path, directory, credentials.as_deref());
    CredentialPaths {
        chain: at(c.chain),
        key: at(c.key),
        receipt_key: at(c.receipt_key),
        trust: at(c.trust),
        crl: c.crl.map(at),
        key_list: at(c.key_list),
        endpoint_keys: c.endpoint_keys.map(at),
    }
}

fn durability(source: &Source, given: Option<&Spanned<String>>) -> Result<Durability, ConfigError> {
    let mend = "write durability = \"fsync\" for a folder on this machine's own disks, or \"replicated:N\" for a store \
                that answers only when N independent copies exist";
    let Some(given) = given else {
        let what = "durability is not stated; without it no receipt may be signed, and cameras could never erase";
        return Err(source.invalid(0..0, what, mend));
    };
    let copies = given
        .get_ref()
        .strip_prefix("replicated:")
        .and_then(|n| n.parse().ok());
    match (given.get_ref().as_str(), copies) {
        ("fsync", _) => Ok(Durability::Fsync),
        (_, Some(copies)) => Ok(Durability::Replicated(copies)),
        (other, None) => Err(source.invalid(
            given.span(),
            &format!("durability: `{other}` is not known"),
            mend,
        )),
    }
}

fn check_grants(source: &Source, grants: &Spanned<Grants>) -> Result<(), ConfigError> {
    let g = grants.get_ref();
    let least = 8 << 20;
    if g.bytes_in_flight_per_connection < least
        || g.bytes_in_flight < g.bytes_in_flight_per_connection
    {
        let what = "grants: too little memory for segments in flight";
        let mend =
            "bytes_in_flight_per_connection is at least 8388608, and bytes_in_flight not below it";
        return Err(source.invalid(grants.span(), what, mend));
    }
    if g.connections == 0 {
        return Err(source.invalid(
            grants.span(),
            "grants: connections = 0 serves nobody",
            "use 1 or more",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const GOOD: &str = r#"
site = "seoul"
listen = "127.0.0.1:0"
store = "file:///srv/archive"
durability = "fsync"

[credentials]
chain = "chain.pem"
key = "key.pem"
receipt_key = "receipt.key"
trust = "/etc/bwc/trust.pem"
crl = "/etc/bwc/crl.pem"
key_list = "/etc/bwc/key-list.cose"
"#;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::read(
            &Source::new("archive.toml", text.to_owned()),
            Path::new("/etc/archive"),
        )
    }

    #[test]
    fn a_good_file_is_read_and_relative_paths_are_beside_it() {
        let config = parse(GOOD).unwrap();
        assert_eq!(
            config.credentials.chain,
            Path::new("/etc/archive/chain.pem")
        );
        assert_eq!(config.credentials.trust, Path::new("/etc/bwc/trust.pem"));
        assert_eq!(config.store, Place::Folder("/srv/archive".into()));
        assert_eq!(
            (config.durability, config.grants),
            (Durability::Fsync, Grants::default())
        );
    }

    #[test]
    fn every_error_names_file_place_reason_and_cure() {
        let swap = |from: &str, to: &str| GOOD.replacen(from, to, 1);
        let cases = [
            (
                swap("durability = \"fsync\"", ""),
                "durability is not stated",
                "replicated:N",
            ),
            (
                swap("\"fsync\"", "\"hope\""),
                "`hope` is not known",
                "fsync",
            ),
            (
                swap("\"fsync\"", "\"replicated:0\""),
                "`replicated:0` is not known",
                "fsync",
            ),
            (
                swap("file:///srv/archive", "s3://bucket/x"),
                "no sync of this machine",
                "replicated:N",
            ),
            (
                swap("file:///srv/archive", "file://srv"),
                "store: `file://srv`",
                "file:///var",
            ),
            (
                swap("file:///srv/archive", "/srv"),
                "store: `/srv`",
                "s3://bucket",
            ),
            (swap("seoul", "se oul"), "site: `se oul`", "use 1 to 64"),
            (
                swap("127.0.0.1:0", "127.0.0.1"),
                "listen: `127.0.0.1`",
                "a port",
            ),
            (
                swap("site =", "sight ="),
                "unknown field `sight`",
                "the keys are",
            ),
            (
                format!("{GOOD}kay = 1\n"),
                "unknown field `kay`",
                "the keys are",
            ),
            (
                format!("{GOOD}[grants]\nbytes_in_flight = 1\n"),
                "too little memory",
                "8388608",
            ),
        ];
        for (text, what, mend) in cases {
            let error = parse(&text).unwrap_err();
            let shown = format!("{:?}", miette::Report::new(error));
            assert!(
                shown.contains(what) && shown.contains(mend) && shown.contains("archive.toml"),
                "{shown}"
            );
        }
    }
}
