//! What an operator meets: configurations, stores, key lists, inventories, metrics.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Repeater, World, footage};
use link::tasks::current_thread;
use protocol::ids::{CameraId, Incarnation, Time};
use protocol::inventory::{self, Page};
use protocol::keylist::{self, KeyList, State};
use protocol::message::{Message, Reason};
use protocol::suite::SigningKey;

const FSYNC: &str = "durability = \"fsync\"";

fn check(world: &World, config: &str) -> (i32, String) {
    let path = world.dir.path().join("checked.toml");
    std::fs::write(&path, config).unwrap();
    let done = world.archive(&["check", path.to_str().unwrap()]);
    (
        done.status.code().unwrap(),
        String::from_utf8(done.stderr).unwrap(),
    )
}

#[test]
fn check_names_file_line_key_why_and_how() {
    let world = World::new();
    let good = world.config(FSYNC);
    assert_eq!(check(&world, &good).0, 0);
    let (code, said) = check(&world, &world.config(""));
    assert_eq!(code, 78);
    assert!(
        said.contains("durability is not stated") && said.contains("replicated:N"),
        "{said}"
    );
    let (code, said) = check(&world, &good.replace("durability", "durabilty"));
    assert_eq!(code, 78);
    for part in [
        "checked.toml:4:1",
        "unknown field `durabilty`",
        "the keys are site",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (code, said) = check(&world, &good.replace("chain.pem", "gone.pem"));
    assert!(code == 78 && said.contains("gone.pem"), "{said}");
    let (code, said) = check(
        &world,
        &good.replace("site = \"site-a\"", "site = \"site-b\""),
    );
    assert!(
        code == 78 && said.contains("is the certificate of site site-a"),
        "{said}"
    );
    assert_eq!(
        world
            .archive(&["run", "--config", "/nonexistent"])
            .status
            .code(),
        Some(78)
    );
    assert_eq!(world.archive(&["fly"]).status.code(), Some(64));
}

#[test]
fn it_does_not_run_where_it_could_not_sign() {
    let world = World::new();
    let run = |more: &str| {
        let config = world.write_config(more);
        let done = world.archive(&["run", "--config", config.to_str().unwrap()]);
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, said) = run("");
    assert!(
        code == Some(78) && said.contains("durability is not stated"),
        "{said}"
    );
    assert!(!world.dir.path().join("store").exists());
    assert!(world.init(FSYNC).status.success());
    let folder = world.agency().join("archives/site-a");
    std::fs::copy(
        world.agency().join("cameras/BWC-0001/device.key"),
        folder.join("receipt.key"),
    )
    .unwrap();
    let (code, said) = run(FSYNC);
    assert!(
        code == Some(78) && said.contains("does not name receipt key"),
        "{said}"
    );
}

#[test]
fn a_store_keeps_its_epoch_and_another_sites_or_headless_store_is_refused() {
    let world = World::new();
    let epoch = |world: &World| {
        let gateway = world.start(FSYNC);
        current_thread(async { Repeater::dial(world, gateway.address).await.hello.epoch }).unwrap()
    };
    let first = epoch(&world);
    assert_eq!(epoch(&world), first);
    let path = world.dir.path().join("store/epoch");
    let text = std::fs::read_to_string(&path).unwrap();
    let run = || {
        let config = world.write_config(FSYNC);
        let done = world.archive(&["run", "--config", config.to_str().unwrap()]);
        assert_eq!(done.status.code(), Some(78));
        String::from_utf8(done.stderr).unwrap()
    };
    std::fs::write(&path, text.replace("site-a", "site-b")).unwrap();
    assert!(run().contains("belongs to site site-b"));
    std::fs::write(&path, text.replace("store 1", "store 2")).unwrap();
    assert!(run().contains("a newer archive made it"));
    std::fs::remove_file(&path).unwrap();
    let footage = world.dir.path().join("store/recordings/BWC-0001/05");
    std::fs::create_dir_all(&footage).unwrap();
    std::fs::write(footage.join("anything"), b"").unwrap();
    assert!(run().contains("holds footage but no `epoch`"));
}

#[test]
fn only_init_makes_a_store_and_only_once() {
    let world = World::new();
    let store = world.dir.path().join("store");
    let run = || {
        let config = world.write_config(FSYNC);
        let done = world.archive(&["run", "--config", config.to_str().unwrap()]);
        assert_eq!(done.status.code(), Some(69));
        String::from_utf8(done.stderr).unwrap()
    };
    // No folder at all, and a folder in which nothing is mounted: neither becomes a store, nor is touched.
    for there in [false, true] {
        if there {
            std::fs::create_dir(&store).unwrap();
        }
        let said = run();
        for part in [world.store.as_str(), "mount it", "archive init --config"] {
            assert!(said.contains(part), "{part} in {said}");
        }
        assert_eq!(store.exists(), there);
    }
    assert_eq!(std::fs::read_dir(&store).unwrap().count(), 0);
    let said = |done: std::process::Output| {
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let made = said(world.init(FSYNC));
    let text = std::fs::read_to_string(store.join("epoch")).unwrap();
    let epoch = text.lines().nth(2).unwrap();
    assert!(
        made.starts_with("made the store") && made.contains(epoch),
        "{made}"
    );
    let again = said(world.init(FSYNC));
    assert!(
        again.contains("nothing was changed") && again.contains(epoch),
        "{again}"
    );
    assert_eq!(std::fs::read_to_string(store.join("epoch")).unwrap(), text);
    // Footage without its epoch is no place for a new store.
    std::fs::rename(store.join("epoch"), world.dir.path().join("epoch")).unwrap();
    std::fs::create_dir_all(store.join("recordings/BWC-0001")).unwrap();
    std::fs::write(store.join("recordings/BWC-0001/anything"), b"").unwrap();
    assert_eq!(world.init(FSYNC).status.code(), Some(78));
    assert!(!store.join("epoch").exists());
}

/// The agency's next key list, changed by `change`.
fn next_list(world: &World, change: impl FnOnce(&mut keylist::Body)) -> KeyList {
    let key = link::credentials::load_key(&world.agency().join("root/root.key")).unwrap();
    let root = SigningKey::from_pkcs8(key.secret_der()).unwrap();
    let mut body = world.key_list().body().clone();
    body.number += 1;
    change(&mut body);
    KeyList::sign(body, &root).unwrap()
}

#[test]
fn a_newer_key_list_is_taken_from_a_repeater_kept_and_obeyed() {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let recording = world.record(0, &footage(1000), 1000, 8);
    let revoked = next_list(&world, |body| {
        body.receipt_keys
            .iter_mut()
            .for_each(|k| k.state = State::Revoked)
    });
    let number = revoked.number();
    let old = world.key_list();
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(&recording.manifests[0]).await;
        let want = repeater.want().await;
        // Another repeater brings the newer list; the revoked key signs nothing more.
        std::fs::write(world.agency().join("repeater-list.cose"), revoked.bytes()).unwrap();
        let theirs = Repeater::dial_with(&world, gateway.address, &revoked).await;
        assert_eq!(
            theirs.hello.key_list.as_ref().unwrap().as_slice(),
            &revoked.bytes()[..]
        );
        for digest in want.digests {
            repeater
                .put(want.manifest, digest, &recording.bytes_of(digest))
                .await;
        }
        assert_eq!(repeater.refusal().await.reason, Reason::StoreFailed);
        // Who still has the old one is given the newer one, and not believed.
        let late = Repeater::dial_with(&world, gateway.address, &old).await;
        assert_eq!(
            late.hello.key_list.as_ref().unwrap().as_slice(),
            &revoked.bytes()[..]
        );
    })
    .unwrap();
    assert!(world.log().contains("cannot_sign"));
    let names = std::fs::read_dir(world.dir.path().join("store/key-lists")).unwrap();
    let names: Vec<String> = names
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names
            .iter()
            .any(|n| n.starts_with(&format!("{number:020}-"))),
        "{names:?}"
    );
    drop(gateway);
    let config = world.write_config(FSYNC);
    let done = world.archive(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!(
        done.status.code(),
        Some(78),
        "the store remembers the revocation"
    );
}

#[test]
fn a_changed_key_list_file_is_taken_without_a_restart() {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let old = world.key_list();
    let void = next_list(&world, |body| {
        body.suspended.push("site-b".parse().unwrap())
    });
    std::fs::write(world.agency().join("key-list.cose"), void.bytes()).unwrap();
    current_thread(async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        let repeater = Repeater::dial_with(&world, gateway.address, &old).await;
        assert_eq!(
            repeater.hello.key_list.as_ref().unwrap().as_slice(),
            &void.bytes()[..]
        );
    })
    .unwrap();
}

fn page(world: &World, incarnation: u8, number: u64) -> Page {
    let body = inventory::Body {
        version: inventory::VERSION,
        camera: CameraId {
            serial: common::SERIAL.parse().unwrap(),
            incarnation: Incarnation([incarnation; 16]),
        },
        number,
        page: 0,
        pages: 1,
        next_recording: 0,
        held: vec![],
        released: vec![],
        overwritten: vec![],
        made: Time(number),
    };
    Page::sign(body, &world.signer(common::SERIAL)).unwrap()
}

#[test]
fn the_newest_inventory_is_kept_and_a_lower_number_or_new_incarnation_alarms() {
    let world = World::new();
    let gateway = world.start(FSYNC);
    let send = |gateway: &common::Gateway, pages: Vec<Page>| {
        let address = gateway.address;
        current_thread(async {
            let mut repeater = Repeater::dial(&world, address).await;
            for page in pages {
                repeater
                    .send(Message::Inventory(page.bytes().clone()))
                    .await;
            }
            repeater.send(Message::Unknown(99)).await;
            repeater.recv().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        })
        .unwrap();
    };
    send(&gateway, vec![page(&world, 5, 7), page(&world, 5, 8)]);
    assert!(!world.log().contains("alarm"), "{}", world.log());
    drop(gateway);
    // After a restart the store says what was the newest.
    let gateway = world.start(FSYNC);
    send(&gateway, vec![page(&world, 5, 3)]);
    assert!(world.log().contains("inventory_lower"));
    send(&gateway, vec![page(&world, 6, 1)]);
    assert!(world.log().contains("incarnation_new"));
    let camera = page(&world, 5, 0).body().camera.clone();
    let path = world
        .dir
        .path()
        .join("store")
        .join(archive::layout::inventory(&camera, 0).as_ref());
    let kept = Page::verify(std::fs::read(path).unwrap().into(), &world.trust()).unwrap();
    assert_eq!(kept.body().number, 8);
}

#[test]
fn metrics_and_alarms_are_served() {
    let world = World::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let gateway = world.start(&format!("{FSYNC}\nmetrics = \"127.0.0.1:{port}\""));
    let recording = world.record(0, &footage(1000), 1000, 8);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.deliver(&recording).await;
        repeater
            .send(Message::Offer(b"nonsense".to_vec().into()))
            .await;
        repeater.refusal().await;
    })
    .unwrap();
    let get = |path: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let metrics = get("/metrics");
    for line in [
        "archive_objects_stored_total{kind=\"segment\"} 1",
        "archive_objects_stored_total{kind=\"header\"} 1",
        "archive_refusals_total{reason=\"malformed\"} 1",
        "archive_alarm{code=\"store_failed\"} 0",
        "archive_handshakes_refused_total{reason=\"wrong_role\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(get("/alarms").starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    // What stands in the way of another recording's folder fails its writes, until it is gone.
    let folder = world.dir.path().join("store/recordings");
    let folder = folder.join(recording.id.full()).with_file_name("1");
    std::fs::write(&folder, b"").unwrap();
    let another = world.record(1, &footage(1000), 1000, 8);
    current_thread(async {
        let mut repeater = Repeater::dial(&world, gateway.address).await;
        repeater.offer(&another.manifests[0]).await;
        assert_eq!(repeater.refusal().await.reason, Reason::StoreFailed);
        let said = get("/readyz");
        assert!(said.starts_with("HTTP/1.1 503") && said.contains("the store fails"));
        std::fs::remove_file(&folder).unwrap();
        repeater.deliver(&another).await;
    })
    .unwrap();
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
}
