//! An officer walks in and docks: the camera is heard over the air, moves to its dock in the middle of a segment without
//! a byte asked twice, and is near again when it is taken out. Near, with nothing to give, it is let sleep until it has
//! news; heard badly, it gives what is urgent and no more.
//!
//! The hop runs in this process, so that the scenario can tell it of links and announcements; the camera is the program.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use link::credentials::{Credentials, Keyring};
use link::endpoint_keys::EndpointKeys;
use link::quic::{Dialer, Hop as LinkHop, Options};
use link::refusals::Refusals;
use link::seams::Seams;
use link::socket::SocketOptions;
use link::tasks::Tasks;
use protocol::custody::Stage;
use protocol::identity::Role;
use protocol::keylist::KeyList;
use repeater::alarms::Alarms;
use repeater::commit::Storage;
use repeater::config::Config;
use repeater::discover::roster::Reach;
use repeater::discover::{Link, LinkIndex, LinkState, Mac, Medium, Presence, Sighting, Source};
use repeater::metrics::Metrics;
use repeater::notices::{Inventories, Notices};
use repeater::pull::permits::Permits;
use repeater::pull::{Hop, Sessions};
use repeater::trusted_time;
use spool::Spool;
use tests::double::block_on;
use tests::footage::footage;
use tests::relay::{Relay, Way};
use tests::repeater_party::Repeater;
use tests::station::{Plan, Station};
use tokio::sync::mpsc;

const MIB: usize = 1 << 20;
const AIR: LinkIndex = 901;
const DOCK: LinkIndex = 902;
/// Far beyond what anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// The hop, and what is told to it.
struct Running {
    hop: Hop,
    sightings: mpsc::Sender<Sighting>,
}

impl Running {
    async fn start(config: &Path) -> Running {
        let config = Config::load(config).unwrap();
        let seams = Seams::system();
        let credentials = Credentials::load(&config.credentials, Role::Repeater).unwrap();
        let keyring = Keyring::new(credentials);
        let trust = keyring.current().trust.clone();
        let list = std::fs::read(&config.key_list).unwrap();
        let list = KeyList::verify(list.into(), trust.root_keys()).unwrap();
        let (metrics, notices) = (Metrics::new().unwrap(), Notices::default());
        let alarms = Alarms::new(metrics.clone());
        std::fs::create_dir_all(&config.spool_dir).unwrap();
        let (dir, marks) = (config.spool_dir.clone(), config.suspect_dir.clone());
        let options = spool::Options::new(dir, 1 << 30, marks, seams.random.bytes());
        let (spool, _) = Spool::open(options, trust, list, seams.clock.now()).unwrap();
        let clock = seams.clock.clone();
        let (m, a, n) = (metrics.clone(), alarms.clone(), notices.clone());
        let (storage, _) = Storage::start(spool, clock, m, a, n).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let socket = seams.bind(SocketOptions::at(any)).await.unwrap();
        let (keys, refusals) = (EndpointKeys::fresh(&seams.random), Refusals::default());
        let (own, link) = (keyring.clone(), Options::new(LinkHop::Camera));
        let dialer = Dialer::new(&seams, socket, own, link, &keys, refusals.clone()).unwrap();
        let (_, time) = trusted_time::new(config.time, seams.random.clone());
        let hop = Hop {
            dialer,
            keyring,
            storage,
            refusals,
            seams,
            time,
            metrics,
            alarms,
            notices,
            inventories: Inventories::default(),
            permits: Permits::new(40, 8),
            pulls: 3,
            camera_bytes_per_second: None,
            most_sessions: 64,
            sessions: Sessions::new(&config.discover),
            tasks: Tasks::new(),
        };
        let (sightings, seen) = mpsc::channel(64);
        let running = hop.clone();
        let tasks = hop.tasks.clone();
        tasks.spawn(
            "hop",
            async move { repeater::pull::run(running, seen).await },
        );
        Running { hop, sightings }
    }

    async fn say(&self, sighting: Sighting) {
        self.sightings.send(sighting).await.unwrap();
    }

    async fn link(&self, index: LinkIndex, state: LinkState) {
        let bay = Some("A1".parse().unwrap());
        let (name, medium) = match index {
            AIR => ("air", Medium::Wireless),
            _ => ("dock", Medium::Dock { bay }),
        };
        let name = name.parse().unwrap();
        let link = Link { index, name };
        let sighting = Sighting::Link {
            link,
            state,
            medium,
        };
        self.say(sighting).await;
    }

    async fn seen(&self, relay: &Relay, link: LinkIndex, source: Source, news: Option<u64>) {
        let (address, link) = (relay.address(), Some(link));
        let sighting = Sighting::Seen {
            address,
            link,
            source,
            news,
        };
        self.say(sighting).await;
    }

    /// hostapd hears the camera behind that relay so well.
    async fn heard(&self, relay: &Relay, dbm: i8) {
        let (link, mac, ip) = (AIR, Mac([2, 0, 0, 0, 0, 1]), relay.address().ip());
        self.say(Sighting::Neighbour { link, mac, ip }).await;
        let sighting = Sighting::Station {
            link,
            mac,
            presence: Presence::Associated,
            signal: Some(dbm),
            inactive: Duration::ZERO,
        };
        self.say(sighting).await;
    }

    /// Where the only camera is served, if it is.
    fn served_at(&self) -> Option<(SocketAddr, bool)> {
        let (near, _) = self.hop.sessions.here(self.hop.seams.clock.instant());
        let served = near.iter().find(|n| n.connected);
        served.map(|n| (n.address, matches!(n.reach, Reach::Docked { .. })))
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let waiting = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let came = tokio::time::timeout(LONG, waiting).await;
        assert!(came.is_ok(), "{what} did not come about");
    }

    async fn held(&self) -> (u64, u64) {
        let counts = self.hop.storage.ask(|spool, _| Ok(spool.counts()));
        let held = counts.await.unwrap().stages[Stage::Held as usize];
        held.iter()
            .fold((0, 0), |(n, b), t| (n + t.segments, b + t.bytes))
    }
}

#[test]
fn from_the_air_to_the_dock_in_mid_segment_and_back_no_byte_is_asked_twice() {
    let station = Station::new(Plan::default());
    let mut camera = station.camera(1);
    let sealed = camera.seal(&footage(1, 24 * MIB), &[]);
    camera.serve();
    let (air, dock) = (Relay::to(camera.address()), Relay::to(camera.address()));
    let nowhere: [(&str, SocketAddr); 1] = [("site-a", "127.0.0.1:9".parse().unwrap())];
    let _config = Repeater::configured(&station, "repeater", &[], &nowhere, "");
    block_on(async {
        let here = Running::start(&station.path("repeater.toml")).await;
        // In the middle of a segment the camera is out of range of everything but its dock.
        air.cut_after(Way::Back, 10 * MIB as u64);
        here.link(AIR, LinkState::Up).await;
        here.seen(&air, AIR, Source::Announced, Some(1)).await;
        let pulled = &here.hop.metrics.pulled_bytes;
        here.until("the air is used", async || pulled.get() > 8 * MIB as u64)
            .await;
        assert_eq!(here.served_at(), Some((air.address(), false)));
        here.link(DOCK, LinkState::Up).await;
        here.seen(&dock, DOCK, Source::Neighbour, None).await;
        let docked = Some((dock.address(), true));
        here.until("the dock takes over", async || here.served_at() == docked)
            .await;
        // The other one is told to go, and does not wait until it has been silent for long enough.
        let alone = here.until("the air is left", async || here.hop.sessions.count() == 1);
        let alone = tokio::time::timeout(Duration::from_secs(5), alone).await;
        assert!(alone.is_ok(), "it stays on the air");
        let all = sealed.items();
        here.until("all is held", async || here.held().await.0 == all)
            .await;
        assert_eq!(pulled.get(), here.held().await.1, "each byte once");

        // Taken out: the wire is gone at once, and the air is there at once.
        air.mend();
        here.link(DOCK, LinkState::Down).await;
        let nearby = Some((air.address(), false));
        here.until("it is near again", async || here.served_at() == nearby)
            .await;
        // With nothing to give it is let sleep, and is here all the same.
        here.until("it is let sleep", async || here.hop.sessions.count() == 0)
            .await;
        let before = air.passed(Way::Back);
        tokio::time::sleep(Duration::from_secs(7)).await;
        let near = here.hop.sessions.here(here.hop.seams.clock.instant()).0;
        assert_eq!(near.len(), 1);
        let woken = air.passed(Way::Back) - before;
        assert!(woken < 4096, "{woken} bytes of a camera that sleeps");
        let more = camera.seal(&footage(2, MIB), &[]);
        here.seen(&air, AIR, Source::Announced, Some(2)).await;
        let all = all + more.items();
        here.until("its news are pulled", async || here.held().await.0 == all)
            .await;
        here.hop.tasks.shutdown(Duration::from_secs(5)).await;
        here.hop.storage.stop();
    });
    let says = |words: &str| {
        logbook_bytes(&station)
            .windows(words.len())
            .any(|w| w == words.as_bytes())
    };
    for words in ["came, nearby, clock ", "came, docked in bay A1, clock "] {
        assert!(says(words), "{words}");
    }
}

#[test]
fn a_camera_that_is_heard_badly_gives_urgent_footage_and_the_rest_when_it_is_heard_well() {
    let station = Station::new(Plan::default());
    let mut camera = station.camera(1);
    let routine = camera.seal(&footage(1, 6 * MIB), &[]);
    let urgent = camera.seal(&footage(2, 6 * MIB), &["--class", "urgent"]);
    camera.serve();
    let air = Relay::to(camera.address());
    let nowhere: [(&str, SocketAddr); 1] = [("site-a", "127.0.0.1:9".parse().unwrap())];
    let _config = Repeater::configured(&station, "repeater", &[], &nowhere, "");
    block_on(async {
        let here = Running::start(&station.path("repeater.toml")).await;
        here.link(AIR, LinkState::Up).await;
        here.heard(&air, -80).await;
        here.seen(&air, AIR, Source::Announced, Some(1)).await;
        let held = async |items| here.held().await.0 == items;
        here.until("urgent footage is held", async || {
            held(urgent.items()).await
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(held(urgent.items()).await, "what can wait does");
        // Better, and not yet good enough to begin.
        here.heard(&air, -70).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(held(urgent.items()).await, "what can wait does");
        here.heard(&air, -60).await;
        let all = urgent.items() + routine.items();
        here.until("the rest is held", async || held(all).await)
            .await;
        here.hop.tasks.shutdown(Duration::from_secs(5)).await;
        here.hop.storage.stop();
    });
}

fn logbook_bytes(station: &Station) -> Vec<u8> {
    let files = std::fs::read_dir(station.path("spool/repeater")).unwrap();
    let names = files.map(|f| f.unwrap().path());
    names
        .filter(|p| {
            p.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("logbook")
        })
        .flat_map(|p| std::fs::read(p).unwrap())
        .collect()
}
