//! How many offers are looked up at one time in one process: each may hold a whole object in memory.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use archive::admit::{self, Lookup};
use archive::config::{Grants, Place, S3};
use archive::gateway::Gateway;
use archive::keys::Keys;
use archive::{limits, store};
use common::{World, footage};
use link::credentials::{CredentialFiles, Credentials, Keyring, load_key};
use link::seams::Seams;
use link::tasks::current_thread;
use protocol::identity::Role;
use protocol::ids::StoreEpoch;
use protocol::manifest::{Class, Manifest};
use protocol::suite::SigningKey;

/// A gateway of this process over the world's store.
fn gateway(world: &World) -> Gateway {
    let own = world.agency().join("archives/site-a");
    let files = CredentialFiles {
        chain: own.join("chain.pem"),
        key: own.join("key.pem"),
        trust: world.agency().join("trust.pem"),
        crl: None,
    };
    let credentials = Credentials::load(&files, Role::Archive).unwrap();
    let signing = load_key(&own.join("receipt.key")).unwrap();
    let signing = SigningKey::from_pkcs8(signing.secret_der()).unwrap();
    let roots = credentials.trust.root_keys().to_vec();
    let site: protocol::ids::SiteId = "site-a".parse().unwrap();
    let epoch = StoreEpoch([1; 16]);
    let keys = Keys::new(site.clone(), epoch, signing, roots, world.key_list());
    let folder = Place::Folder(world.dir.path().join("store"));
    let vault = store::open(&folder, &S3::default(), true).unwrap();
    let keyring = Keyring::new(credentials);
    let seams = Seams::system();
    Gateway::new(site, seams, vault, keyring, keys, Grants::default())
}

fn manifest(world: &World, number: u64, class: Class) -> Manifest {
    let recording = world.record(number, &footage(10), 10, 8);
    let mut body = recording.manifests[0].body().clone();
    body.class = class;
    Manifest::sign(body, &world.signer(common::SERIAL)).unwrap()
}

#[test]
fn a_lookup_waits_for_its_turn_and_an_urgent_one_has_turns_of_its_own() {
    let world = World::new();
    let gateway = gateway(&world);
    let routine = manifest(&world, 0, Class::Routine);
    let urgent = manifest(&world, 1, Class::Urgent);
    current_thread(async {
        let mut held = Vec::new();
        for _ in 0..limits::LOOKUPS_ALL {
            held.push(gateway.turns.take(Class::Routine).await);
        }
        let mut waits = Box::pin(admit::look_up(&gateway, &routine));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut waits).await;
        assert!(early.is_err(), "as many as may run do");
        let looked = admit::look_up(&gateway, &urgent).await.unwrap();
        assert!(matches!(looked, Lookup::Stored(_)));
        held.pop();
        assert!(matches!(waits.await.unwrap(), Lookup::Stored(_)));
    })
    .unwrap();
}
