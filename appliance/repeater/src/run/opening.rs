//! How a daemon comes by its spool: opened at once, or, where the ledger has to be derived anew, in two lives: one over the
//! spool for what comes meanwhile, one over the spool that has all.

use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use link::credentials::Keyring;
use link::seams::Seams;
use protocol::identity::Trust;
use protocol::keylist::KeyList;
use protocol::pressure::Watermarks;
use spool::{Faults, Opened, Rebuild, Spool, SpoolError};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::live;
use crate::config::Config;
use crate::owner;

/// How a daemon's life over one spool ended.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// The process is to exit.
    Exit(ExitCode),
    /// The spool that was being rebuilt is there.
    Rebuilt,
}

/// What a life says that waits for no rebuild.
pub(super) fn ended(end: End) -> anyhow::Result<ExitCode> {
    match end {
        End::Exit(code) => Ok(code),
        End::Rebuilt => anyhow::bail!("there was no rebuild to end"),
    }
}

/// What outlives a spool.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) seams: Seams,
    pub(super) keyring: Keyring,
    /// The page's socket, once it is bound: whoever watches the page finds it at one address.
    pub(super) page: Arc<OnceLock<TcpListener>>,
}

impl Parts {
    /// The page's socket for one life; the first binds it.
    pub(super) fn listen(&self) -> anyhow::Result<tokio::net::TcpListener> {
        let at = self.config.http;
        let bind = || {
            let listener = match self.page.get() {
                Some(bound) => bound.try_clone()?,
                None => {
                    let new = TcpListener::bind(at)?;
                    new.set_nonblocking(true)?;
                    let kept = self.page.get_or_init(|| new);
                    kept.try_clone()?
                }
            };
            tokio::net::TcpListener::from_std(listener)
        };
        bind().with_context(|| format!("cannot listen on {at} (listen.http)"))
    }
}

/// Takes what comes while the spool is rebuilt in a spool beside it, as a station that is new; then stops as by a signal, and
/// goes on with the one that has all. A signal does not wait for the rebuild: the next start does it again.
pub(super) fn beside_a_rebuild(parts: &Parts, rebuild: Rebuild) -> anyhow::Result<ExitCode> {
    warn!(
        "the ledger is derived anew ({}): new footage is taken meanwhile, older footage goes on when it is done",
        rebuild.why()
    );
    let interim = match rebuild.interim() {
        Ok(interim) => interim,
        Err(e @ SpoolError::Suspect { .. }) => {
            return Err(e).context("cannot open a spool beside the one that is rebuilt");
        }
        Err(e) => {
            warn!("there is no spool for what comes meanwhile, so nothing is taken: {e}");
            let (spool, report) = rebuild.run(|| {}).context("cannot rebuild the ledger")?;
            info!("spool: {report}");
            return ended(live(parts, spool, None)?);
        }
    };
    let (done, rebuilt) = oneshot::channel::<()>();
    let (closed, wait) = std::sync::mpsc::sync_channel::<()>(0);
    let thread = std::thread::Builder::new()
        .name("rebuild".into())
        .spawn(move || {
            rebuild.run(|| {
                let _ = done.send(());
                let _ = wait.recv();
            })
        })
        .context("cannot start the rebuild's thread")?;
    if let End::Exit(code) = live(parts, interim, Some(rebuilt))? {
        return Ok(code);
    }
    drop(closed);
    let rebuilt = thread
        .join()
        .map_err(|_| anyhow::anyhow!("the rebuild's thread panicked"))?;
    let (spool, report) = rebuilt.context("cannot rebuild the ledger")?;
    info!("spool: {report}");
    ended(live(parts, spool, None)?)
}

pub(crate) fn key_list(path: &Path, trust: &Trust) -> anyhow::Result<KeyList> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("cannot read the key list {}", path.display()))?;
    KeyList::verify(bytes.into(), trust.root_keys()).with_context(|| {
        format!(
            "the key list {} is refused; fetch it again from the agency",
            path.display()
        )
    })
}

/// What a spool is opened with, by the configuration.
pub(crate) fn spool_options(config: &Config, seams: &Seams) -> anyhow::Result<spool::Options> {
    let dir = &config.spool_dir;
    let capacity = match config.capacity_bytes {
        Some(bytes) => bytes,
        None => {
            let fs = nix::sys::statvfs::statvfs(dir)
                .with_context(|| format!("cannot measure {}", dir.display()))?;
            fs.blocks().saturating_mul(fs.fragment_size())
        }
    };
    let part = |percent: u64| capacity / 100 * percent;
    Ok(spool::Options {
        dir: dir.clone(),
        capacity_bytes: capacity,
        marks: Watermarks {
            high_bytes: part(config.percent.high),
            low_bytes: part(config.percent.low),
            urgent_bytes: part(config.percent.urgent),
        },
        suspect_dir: config.suspect_dir.clone(),
        fresh: seams.random.bytes(),
        ledger_bytes: spool::limits::LEDGER_BYTES,
        raise_format: false,
        faults: Faults::none(),
    })
}

/// Opens the spool, or finds that it has to be rebuilt.
pub(super) fn open_spool(parts: &Parts, keys: KeyList) -> anyhow::Result<Opened> {
    let Parts {
        config,
        seams,
        keyring,
        ..
    } = parts;
    let dir = &config.spool_dir;
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make the spool's folder {}", dir.display()))?;
    let own = keyring.current().own.identity.to_string();
    owner::check(dir, &own)?;
    let mut options = spool_options(config, seams)?;
    options.raise_format = !link::service::on_trial();
    let trust = keyring.current().trust.clone();
    let opened = Spool::open_or_rebuild(options, trust, keys, seams.clock.now())
        .with_context(|| format!("cannot open the spool {}", dir.display()))?;
    // A full disk keeps nobody from serving; the next start notes it.
    if let Err(e) = owner::claim(dir, &own) {
        warn!("whose spool this is was not noted: {e:#}");
    }
    Ok(opened)
}
