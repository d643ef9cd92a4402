//! The daemon's whole life, top to bottom: open the spool, start the storage thread, the two hops and the page, wait
//! for a signal, and stop in reverse order within [`limits::STOP_DEADLINE`]. Where the ledger has to be derived anew, it has
//! two such lives: one over the spool for what comes meanwhile, one over the spool that has all.

mod opening;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use link::credentials::{CredentialError, Credentials, Keyring};
use link::endpoint_keys::EndpointKeys;
use link::quic::{Dialer, Hop as LinkHop, Options};
use link::refusals::Refusals;
use link::seams::Seams;
use link::service::{Given, Manager};
use link::socket::SocketOptions;
use link::tasks::{Tasks, current_thread, stop_signal};
use protocol::identity::Role;
use protocol::pressure;
use spool::{Opened, Spool};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::alarms::Alarms;
use crate::commit::Storage;
use crate::config::Config;
use crate::forward::sites::Sites;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::notices::{Inventories, Notices};
use crate::pull::Sessions;
use crate::pull::permits::Permits;
use crate::pulse::Pulses;
use crate::trusted_time::{self, Asker, TrustedTime};
use crate::{alarms, control, discover, forward, limits, pull, status};

use opening::{End, Parts, beside_a_rebuild, ended, open_spool};
pub(crate) use opening::{key_list, spool_options};

/// Exit code for a disk that cannot be believed (sysexits EX_IOERR).
const IO_ERROR: u8 = 74;

/// What all threads share.
#[derive(Clone)]
struct Common {
    config: Config,
    seams: Seams,
    keyring: Keyring,
    storage: Storage,
    metrics: Metrics,
    alarms: Alarms,
    notices: Notices,
    inventories: Inventories,
    refusals: Refusals,
    sessions: Sessions,
    sites: Sites,
    pulses: Pulses,
    time: TrustedTime,
    tasks: Tasks,
}

/// Runs until a signal, or until the disk cannot be believed any more.
///
/// # Errors
/// What keeps the daemon from starting: credentials, key list, spool, sockets.
pub fn run(config: Config) -> anyhow::Result<ExitCode> {
    let seams = Seams::system();
    let keyring = Keyring::new(Credentials::load(&config.credentials, Role::Repeater)?);
    let keys = key_list(&config.key_list, &keyring.current().trust)?;
    let parts = Parts {
        config,
        seams,
        keyring,
        page: Arc::default(),
    };
    match open_spool(&parts, keys)? {
        Opened::Ready(spool, report) => {
            info!("spool: {report}");
            ended(live(&parts, *spool, None)?)
        }
        Opened::Rebuilds(rebuild) => beside_a_rebuild(&parts, *rebuild),
    }
}

/// The daemon over one spool, until a signal, an error, or, where it waits for one, the end of a rebuild.
fn live(
    parts: &Parts,
    spool: Spool,
    rebuilt: Option<oneshot::Receiver<()>>,
) -> anyhow::Result<End> {
    let Parts {
        config,
        seams,
        keyring,
        ..
    } = parts.clone();
    let metrics = Metrics::new().context("registering metrics")?;
    let alarms = Alarms::new(metrics.clone());
    let notices = Notices::default();
    let (storage, storage_thread) = Storage::start(
        spool,
        seams.clock.clone(),
        metrics.clone(),
        alarms.clone(),
        notices.clone(),
    )?;
    let (asker, time) = trusted_time::new(config.time, seams.random.clone());
    let common = Common {
        sessions: Sessions::new(&config.discover),
        sites: Sites::new(config.archives.iter().map(|a| a.site.clone())),
        config,
        seams,
        keyring,
        storage,
        metrics,
        alarms,
        notices,
        inventories: Inventories::default(),
        refusals: Refusals::default(),
        pulses: Pulses::default(),
        time,
        tasks: Tasks::new(),
    };
    let pull_thread = thread("pull", common.clone(), pull_hop)?;
    let forward_thread = thread("forward", common.clone(), forward_hop)?;
    let end = current_thread(serve(parts, &common, asker, rebuilt)).map_err(anyhow::Error::from);
    // However it ended: the hops wait for this.
    common.tasks.cancel();
    // Where it was never made there is none; one that is left is taken for a dead daemon's.
    let _ = std::fs::remove_file(control::path(&common.config.spool_dir));
    // Reverse order: the hops stop pulling and putting, then the last barrier.
    let threads = [("pull", pull_thread), ("forward", forward_thread)];
    for (name, thread) in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => error!("{name}: {e:#}"),
            Err(_) => error!("{name}: the thread panicked"),
        }
    }
    common.storage.stop();
    if storage_thread.join().is_err() {
        error!("storage: the thread panicked");
    }
    info!("stopped");
    // The last barrier, too, may have failed.
    let failed = common.storage.fatal().borrow().is_some();
    let end = end.and_then(|end| end)?;
    Ok(if failed {
        End::Exit(IO_ERROR.into())
    } else {
        end
    })
}

type Hop = JoinHandle<anyhow::Result<()>>;

fn thread<F>(
    name: &str,
    common: Common,
    hop: impl FnOnce(Common) -> F + Send + 'static,
) -> anyhow::Result<Hop>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let spawned = std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let tasks = common.tasks.clone();
            let ended = current_thread(hop(common))
                .map_err(anyhow::Error::from)
                .and_then(|r| r);
            // A hop that cannot run ends the daemon: half a repeater would look alive.
            tasks.cancel();
            ended
        });
    spawned.with_context(|| format!("cannot start the {name} thread"))
}

/// What a connection begins with. What a peer was granted is not taken back: a camera has the least until its session
/// is entered and the budget shared out, so that forty who come at once do not have the most, each.
fn first_options(hop: LinkHop) -> Options {
    let options = Options::new(hop);
    match hop {
        LinkHop::Camera => Options {
            receive_window: pressure::WINDOW_BYTES.0,
            ..options
        },
        LinkHop::Archive => options,
    }
}

async fn dialer(
    common: &Common,
    hop: LinkHop,
    in_flight: u16,
    datagram_bytes: u16,
) -> anyhow::Result<Dialer> {
    let any: SocketAddr = (std::net::Ipv6Addr::UNSPECIFIED, 0).into();
    let any4: SocketAddr = (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
    let wants_v6 = match hop {
        LinkHop::Camera => {
            let discover = &common.config.discover;
            // A camera on a cable has a link-local address and perhaps no other.
            discover.looks_around() || discover.fixed.iter().any(SocketAddr::is_ipv6)
        }
        LinkHop::Archive => common
            .config
            .archives
            .iter()
            .any(|a| a.addresses.iter().any(SocketAddr::is_ipv6)),
    };
    let socket = common
        .seams
        .bind(SocketOptions::at(if wants_v6 { any } else { any4 }))
        .await?;
    let options = Options {
        segments_in_flight: in_flight,
        datagram_bytes,
        ..first_options(hop)
    };
    let keys = EndpointKeys::fresh(&common.seams.random);
    Ok(Dialer::new(
        &common.seams,
        socket,
        common.keyring.clone(),
        options,
        &keys,
        common.refusals.clone(),
    )?)
}

async fn pull_hop(common: Common) -> anyhow::Result<()> {
    let config = &common.config;
    let dialer = dialer(
        &common,
        LinkHop::Camera,
        config.pulls,
        config.camera_datagram_bytes,
    )
    .await?;
    let tasks = common.tasks.child();
    let pulse = common.pulses.pull.clone();
    tasks.spawn(
        "pulse",
        pulse.beat(common.seams.clock.clone(), tasks.clone()),
    );
    let (sightings, seen) = mpsc::channel(limits::SIGHTINGS);
    for sighting in discover::fixed(&config.discover.fixed) {
        // The queue is as long as the list may be; a longer one is cut, loudly.
        if sightings.try_send(sighting).is_err() {
            warn!(
                "discover.static lists more than {} cameras; the rest is passed over",
                limits::SIGHTINGS
            );
        }
    }
    let known = common.sessions.clone();
    let sources = discover::sources::Sources {
        settings: config.discover.clone(),
        folder: config.suspect_dir.clone(),
        sightings: sightings.clone(),
        is_camera: Arc::new(move |address| known.has_camera(address)),
        seams: common.seams.clone(),
        metrics: common.metrics.clone(),
        alarms: common.alarms.clone(),
    };
    sources.start(&tasks);
    let hop = pull::Hop {
        dialer: dialer.clone(),
        keyring: common.keyring.clone(),
        storage: common.storage.clone(),
        refusals: common.refusals.clone(),
        seams: common.seams.clone(),
        time: common.time.clone(),
        metrics: common.metrics.clone(),
        alarms: common.alarms.clone(),
        notices: common.notices.clone(),
        inventories: common.inventories.clone(),
        permits: Permits::new(config.pulls_in_flight, config.nearby_in_flight),
        pulls: config.pulls.into(),
        camera_bytes_per_second: config.camera_bytes_per_second,
        most_sessions: config.sessions,
        sessions: common.sessions.clone(),
        tasks: tasks.clone(),
    };
    pull::run(hop, seen).await;
    drop(sightings);
    tasks.shutdown(limits::STOP_DEADLINE / 2).await;
    dialer.close().await;
    Ok(())
}

async fn forward_hop(common: Common) -> anyhow::Result<()> {
    let config = &common.config;
    let dialer = dialer(
        &common,
        LinkHop::Archive,
        config.puts,
        config.archive_datagram_bytes,
    )
    .await?;
    let tasks = common.tasks.child();
    let pulse = common.pulses.forward.clone();
    tasks.spawn(
        "pulse",
        pulse.beat(common.seams.clock.clone(), tasks.clone()),
    );
    let hop = forward::Hop {
        dialer: dialer.clone(),
        keyring: common.keyring.clone(),
        storage: common.storage.clone(),
        refusals: common.refusals.clone(),
        time: common.time.clone(),
        seams: common.seams.clone(),
        metrics: common.metrics.clone(),
        alarms: common.alarms.clone(),
        notices: common.notices.clone(),
        inventories: common.inventories.clone(),
        puts: config.puts.into(),
        sites: common.sites.clone(),
        tasks: tasks.clone(),
    };
    forward::run(hop, config.archives.clone()).await;
    tasks.shutdown(limits::STOP_DEADLINE / 2).await;
    dialer.close().await;
    Ok(())
}

/// The main thread: the page, and what ends the daemon.
async fn serve(
    parts: &Parts,
    common: &Common,
    asker: Asker,
    rebuilt: Option<oneshot::Receiver<()>>,
) -> anyhow::Result<End> {
    let listener = parts.listen()?;
    let address = listener.local_addr()?;
    let view = status::View {
        identity: common.keyring.current().own.identity.to_string(),
        storage: common.storage.clone(),
        metrics: common.metrics.clone(),
        alarms: common.alarms.clone(),
        sessions: common.sessions.clone(),
        sites: common.sites.clone(),
        clock: common.seams.clock.clone(),
        time: common.time.clone(),
        refusals: common.refusals.clone(),
        pulses: common.pulses.clone(),
    };
    // Who reads that it is ready may tell it to stop.
    let stop = stop_signal(limits::STOP_DEADLINE)?;
    println!("ready: metrics on {address}");
    info!(%address, "ready");
    follow_credentials(common);
    ask_for_time(common, asker);
    listen_for_control(common);
    let mut fatal = common.storage.fatal();
    let page = axum::serve(listener, status::routes(view));
    let manager = Manager::new(&Given::by_environment());
    let code = tokio::select! {
        served = page => {
            served.context("the status page ended")?;
            ExitCode::FAILURE
        }
        signal = stop => {
            info!("{signal}: stopping");
            ExitCode::SUCCESS
        }
        _ = fatal.wait_for(Option::is_some) => ExitCode::from(IO_ERROR),
        () = health(common).tell(&manager) => ExitCode::from(IO_ERROR),
        () = common.tasks.cancelled() => ExitCode::FAILURE,
        () = end_of(rebuilt) => {
            info!("the ledger is rebuilt");
            return Ok(End::Rebuilt);
        }
    };
    manager.stopping();
    Ok(End::Exit(code))
}

/// Waits until a rebuild is over, whether it came through; for ever where there is none.
async fn end_of(rebuilt: Option<oneshot::Receiver<()>>) {
    match rebuilt {
        Some(rebuilt) => drop(rebuilt.await),
        None => std::future::pending().await,
    }
}

fn health(common: &Common) -> Health {
    Health {
        storage: common.storage.clone(),
        pulses: common.pulses.clone(),
        sessions: common.sessions.clone(),
        sites: common.sites.clone(),
        clock: common.seams.clock.clone(),
    }
}

/// Custody does not wait for the control socket: without it an alarm stands longer.
fn listen_for_control(common: &Common) {
    let path = control::path(&common.config.spool_dir);
    let listener = match control::bind(&path) {
        Ok(listener) => listener,
        Err(e) => {
            warn!(
                "no control socket at {}, so that no alarm can be cleared: {e}",
                path.display()
            );
            return;
        }
    };
    let served = control::Control {
        storage: common.storage.clone(),
        alarms: common.alarms.clone(),
    };
    let stop = common.tasks.token();
    common.tasks.spawn("control", async move {
        tokio::select! {
            () = served.serve(listener) => {}
            () = stop.cancelled() => {}
        }
    });
}

/// Custody does not wait for the time either.
fn ask_for_time(common: &Common, asker: Asker) {
    let stop = common.tasks.token();
    common.tasks.spawn("time", async move {
        tokio::select! {
            () = asker.ask_always() => {}
            () = stop.cancelled() => {}
        }
    });
}

/// Renewed certificates and newer revocation lists count without a restart; sessions watch the keyring.
fn follow_credentials(common: &Common) {
    let (keyring, alarms, clock) = (
        common.keyring.clone(),
        common.alarms.clone(),
        common.seams.clock.clone(),
    );
    let (files, stop) = (common.config.credentials.clone(), common.tasks.token());
    let subject = files.chain.display().to_string();
    common.tasks.spawn("credentials", async move {
        let told = |loaded: Result<(), CredentialError>| match loaded {
            Ok(()) => {
                info!("credentials taken anew");
                alarms.clear(alarms::CREDENTIALS_UNUSABLE, &subject);
            }
            Err(e) => {
                let mend = "put back a certificate, key and revocation list that fit together; the last good ones are used";
                alarms.raise(alarms::CREDENTIALS_UNUSABLE, &subject, e.to_string(), mend, clock.now());
            }
        };
        let follow = link::credentials::follow(&keyring, &files, Role::Repeater, limits::CREDENTIALS_EVERY, told);
        tokio::select! {
            () = follow => {}
            () = stop.cancelled() => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cameras_that_come_at_once_are_not_granted_the_most_each() {
        let each = first_options(LinkHop::Camera).receive_window;
        assert!(40 * each <= pressure::WINDOW_BUDGET_BYTES, "{each}");
    }
}
