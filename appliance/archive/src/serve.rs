//! `archive init`: from a configuration to a store. `archive run`: from a configuration and a store to a
//! gateway that listens, until SIGTERM.
//!
//! Everything that can be wrong is found before `listening on` is printed: credentials, the key list, the
//! receipt key's place in it, the store and its epoch. While running, changed credentials, revocation lists
//! and key lists are taken without a restart.

use std::io::Write;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::TryStreamExt;
use link::credentials::{CredentialFiles, Credentials, Keyring, load_key};
use link::endpoint_keys::EndpointKeys;
use link::seams::Seams;
use link::service::{Given, Manager};
use link::tasks::{Tasks, stop_signal};
use object_store::path::Path;
use protocol::identity::Role;
use protocol::keylist::KeyList;
use protocol::limits::KEY_LIST_BYTES;
use protocol::suite::{PublicKey, SigningKey};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::alarms::Alarm;
use crate::cli::Failure;
use crate::config::{Config, CredentialPaths};
use crate::epoch::EpochError;
use crate::gateway::{Gateway, Serving};
use crate::keys::Keys;
use crate::vault::{Read, Vault, VaultError};
use crate::{epoch, layout, limits, metrics, store};

/// Makes the store that a configuration names; says its epoch.
pub(crate) async fn init(config: &Config) -> Result<(), Failure> {
    check(config)?;
    let (store, site) = (&config.store, &config.site);
    let vault =
        store::open(store, &config.s3, true).map_err(|e| Failure::unavailable(e.to_string()))?;
    let made = epoch::make(&vault, site, &Seams::system().random).await;
    match made.map_err(|e| of_store(config, e))? {
        (epoch, true) => println!("made the store {store} of site {site}: epoch {epoch}"),
        (epoch, false) => println!(
            "the store {store} of site {site} is made already: epoch {epoch}; nothing was changed"
        ),
    }
    Ok(())
}

/// What stands in the way of a store is told with its name.
fn of_store(config: &Config, error: EpochError) -> Failure {
    let failure = Failure::from(error);
    failure.about(&format!("the store {}", config.store))
}

/// Runs a gateway until a signal.
pub(crate) async fn run(config: Config) -> Result<(), Failure> {
    let seams = Seams::system();
    let loaded = stamps(&config.credentials); // before loading: what changes from now on is seen
    let (gateway, endpoint_keys) = prepare(&config, &seams).await?;
    let gateway = Arc::new(gateway);
    let tasks = Tasks::new();
    if let Some(address) = config.metrics {
        let bound = metrics::serve(
            address,
            Arc::clone(&gateway.metrics),
            Arc::clone(&gateway.alarms),
            &tasks,
        )
        .await;
        let bound = bound
            .map_err(|e| Failure::unavailable(format!("cannot serve metrics on {address}: {e}")))?;
        info!(%bound, "metrics");
    }
    let serving = Serving::bind(
        Arc::clone(&gateway),
        config.listen,
        config.datagram_bytes,
        &endpoint_keys,
        tasks.child(),
    );
    let serving = serving
        .await
        .map_err(|e| Failure::unavailable(e.to_string()))?;
    let address = serving
        .local_addr()
        .map_err(|e| Failure::unavailable(e.to_string()))?;
    tasks.spawn(
        "reload",
        reload(
            Arc::clone(&gateway),
            config.credentials.clone(),
            loaded,
            tasks.token(),
        ),
    );
    let served = tasks.spawn("serve", serving.run());
    let stop = stop_signal(5 * limits::SHUTDOWN)
        .map_err(|e| Failure::internal(format!("cannot wait for signals: {e}")))?;
    println!("listening on {address}");
    let _ = std::io::stdout().flush(); // whoever started this may not read it
    info!(site = %gateway.site, epoch = %gateway.keys.epoch(), %address, "listening");
    let manager = Manager::new(&Given::by_environment());
    manager.ready();
    manager.status(&format!("site {} at {address}", gateway.site));
    stop.await;
    manager.stopping();
    tasks.cancel();
    let _ = tokio::time::timeout(2 * limits::SHUTDOWN, served).await;
    tasks.shutdown(limits::SHUTDOWN).await;
    info!("stopped");
    Ok(())
}

/// Loads credentials and opens the store: all that `check` can look at without listening.
async fn prepare(config: &Config, seams: &Seams) -> Result<(Gateway, EndpointKeys), Failure> {
    let paths = &config.credentials;
    let credentials = load(config)?;
    let roots = credentials.trust.root_keys().to_vec();
    let signing = load_receipt_key(&paths.receipt_key)?;
    let list = read_key_list(&paths.key_list, &roots)?;
    let keyring = Keyring::new(credentials);
    let vault = store::open(&config.store, &config.s3, false).map_err(|e| {
        Failure::unavailable(format!(
            "{e}; mount it, or make a new store with `archive init --config FILE`"
        ))
    })?;
    let epoch = epoch::open(&vault, &config.site).await;
    let epoch = epoch.map_err(|e| of_store(config, e))?;
    let list = newest_key_list(&vault, list, &roots)
        .await
        .map_err(|e| Failure::unavailable(e.to_string()))?;
    let keys = Keys::new(config.site.clone(), epoch, signing, roots, list);
    keys.may_sign().map_err(|e| {
        Failure::config(format!(
            "no receipt could be signed: {e}; {}",
            Alarm::CannotSign.cure()
        ))
    })?;
    let endpoint_keys = match &paths.endpoint_keys {
        Some(path) => EndpointKeys::load_or_make(path, &seams.random)
            .map_err(|e| Failure::config(e.to_string()))?,
        None => EndpointKeys::fresh(&seams.random),
    };
    let gateway = Gateway::new(
        config.site.clone(),
        seams.clone(),
        vault,
        keyring,
        keys,
        config.grants.clone(),
    );
    watch_crl(&gateway, paths);
    Ok((gateway, endpoint_keys))
}

/// Loads everything that a configuration names, without touching the store.
pub(crate) fn check(config: &Config) -> Result<(), Failure> {
    let credentials = load(config)?;
    load_receipt_key(&config.credentials.receipt_key)?;
    read_key_list(&config.credentials.key_list, credentials.trust.root_keys())?;
    Ok(())
}

fn load(config: &Config) -> Result<Credentials, Failure> {
    let credentials = Credentials::load(&files(&config.credentials), Role::Archive);
    let credentials = credentials.map_err(|e| Failure::config(e.to_string()))?;
    let named = credentials.own.identity.name();
    if named != config.site.as_str() {
        let chain = config.credentials.chain.display();
        return Err(Failure::config(format!(
            "{chain} is the certificate of site {named}, and the configuration says {}",
            config.site
        )));
    }
    Ok(credentials)
}

fn files(paths: &CredentialPaths) -> CredentialFiles {
    CredentialFiles {
        chain: paths.chain.clone(),
        key: paths.key.clone(),
        trust: paths.trust.clone(),
        crl: paths.crl.clone(),
    }
}

fn load_receipt_key(path: &FilePath) -> Result<SigningKey, Failure> {
    let key = load_key(path).map_err(|e| Failure::config(e.to_string()))?;
    SigningKey::from_pkcs8(key.secret_der())
        .map_err(|e| Failure::config(format!("{}: {e}", path.display())))
}

fn read_key_list(path: &FilePath, roots: &[PublicKey]) -> Result<KeyList, Failure> {
    let refused = |why: String| {
        Failure::config(format!(
            "{}: {why}; use the agency's newest key list",
            path.display()
        ))
    };
    let bytes = std::fs::read(path).map_err(|e| refused(e.to_string()))?;
    KeyList::verify(bytes.into(), roots).map_err(|e| refused(e.to_string()))
}

/// The newer of `list` and those that other gateways left in the store; keeps it there.
async fn newest_key_list(
    vault: &Vault,
    mut list: KeyList,
    roots: &[PublicKey],
) -> Result<KeyList, VaultError> {
    let mut names: Vec<Path> = Vec::new();
    let mut listed = vault.list(&Path::from(layout::KEY_LISTS));
    while let Some(meta) = listed.try_next().await? {
        names.push(meta.location);
        if names.len() > limits::KEY_LISTS {
            names.sort_unstable_by(|a, b| b.cmp(a));
            names.truncate(1);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    for name in names.iter().take(8) {
        let Read::Bytes(bytes) = vault.read(name, KEY_LIST_BYTES).await? else {
            continue;
        };
        match list.newer(bytes, roots) {
            Ok(Some(newer)) => list = newer,
            Ok(None) | Err(protocol::keylist::KeyListError::Older { .. }) => {}
            Err(error) => warn!(%name, %error, "a key list in the store is refused"),
        }
    }
    let digest = protocol::suite::sha256(list.bytes());
    vault
        .put(
            &layout::key_list(list.number(), digest),
            list.bytes().clone(),
            digest,
        )
        .await?;
    Ok(list)
}

/// Looks for changed files until cancelled.
async fn reload(
    gateway: Arc<Gateway>,
    paths: CredentialPaths,
    mut loaded: Vec<Stamp>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(limits::RELOAD) => {}
        }
        watch_crl(&gateway, &paths);
        let now = stamps(&paths);
        if now == loaded {
            continue;
        }
        loaded = now;
        let subject = paths.chain.display().to_string();
        match Credentials::load(&files(&paths), Role::Archive) {
            Ok(credentials) => {
                gateway.keyring.replace(credentials);
                gateway.alarms.clear(Alarm::CredentialsUnusable, &subject);
                info!("credentials loaded again");
            }
            Err(error) => gateway.alarm(Alarm::CredentialsUnusable, &subject, &error.to_string()),
        }
        take_key_list(&gateway, &paths.key_list).await;
    }
}

async fn take_key_list(gateway: &Gateway, path: &FilePath) {
    let subject = path.display().to_string();
    let offered = std::fs::read(path).map_err(|e| e.to_string());
    let taken = offered.and_then(|bytes| {
        gateway
            .keys
            .offer(Bytes::from(bytes))
            .map_err(|e| e.to_string())
    });
    match taken {
        Ok(newer) => {
            gateway.alarms.clear(Alarm::KeyListRefused, &subject);
            if let Some(newer) = newer {
                info!(number = newer.number(), "took a newer key list");
                let kept = gateway
                    .keep_key_list(newer.number(), newer.bytes().clone())
                    .await;
                gateway.watch_store(&kept);
            }
        }
        Err(error) => gateway.alarm(Alarm::KeyListRefused, &subject, &error),
    }
}

fn watch_crl(gateway: &Gateway, paths: &CredentialPaths) {
    let subject = paths
        .crl
        .as_ref()
        .map(|p| p.display().to_string())
        .unwrap_or_default();
    let stale = gateway
        .keyring
        .current()
        .trust
        .crl_is_stale(gateway.seams.clock.now());
    match stale {
        true => gateway.alarm(
            Alarm::CrlStale,
            &subject,
            "the revocation list is past its date",
        ),
        false => gateway.alarms.clear(Alarm::CrlStale, &subject),
    }
}

type Stamp = Option<(u64, Option<SystemTime>)>;

/// Length and time of each file: enough to see that one was replaced.
fn stamps(paths: &CredentialPaths) -> Vec<Stamp> {
    let files: [Option<&PathBuf>; 5] = [
        Some(&paths.chain),
        Some(&paths.key),
        Some(&paths.trust),
        paths.crl.as_ref(),
        Some(&paths.key_list),
    ];
    let stamp = |path: &PathBuf| {
        std::fs::metadata(path)
            .ok()
            .map(|m| (m.len(), m.modified().ok()))
    };
    files.into_iter().map(|path| path.and_then(stamp)).collect()
}
