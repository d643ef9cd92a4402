//! A site burns down. Its successor has new keys and an empty store, which a newer key list says; from then on receipts of
//! the void epoch count nowhere, and whoever still has the footage gives it again.

#![allow(clippy::unwrap_used, reason = "tests")]

use link::agency::key_list::{Change, change};
use protocol::ids::StoreEpoch;
use protocol::keylist::State;
use tests::archive_party::Site;
use tests::footage::footage;
use tests::process::FILTER;
use tests::sealed::receipt_key;
use tests::station::{Plan, Station};
use tests::wait::until;

const MIB: usize = 1 << 20;

/// Gives the site new keys and an empty store, and makes the key list that says so.
fn replace(station: &Station, site: &mut Site<'_>) {
    site.gateway().kill();
    let folder = station.agency.path("archives").join(&site.name);
    let (old_key, epoch) = (receipt_key(station, &site.name).public().id(), epoch(site));
    station.agency.revoke(&folder.join("chain.pem")).unwrap();
    std::fs::rename(&folder, station.agency.path("archives").join("burned")).unwrap();
    let name = site.name.parse().unwrap();
    station.agency.add_site(&name).unwrap();
    let changes = [
        Change::SetState {
            key: old_key,
            state: State::Revoked,
        },
        Change::VoidEpoch {
            site: name.clone(),
            epoch,
        },
        Change::AddReceiptKey {
            site: name,
            file: folder.join("receipt.pub"),
        },
    ];
    change(&station.agency, &changes).unwrap();
    site.lose_store();
    site.run();
}

/// The epoch of the site's store: the third line of its object `epoch`.
fn epoch(site: &Site<'_>) -> StoreEpoch {
    let text = std::fs::read_to_string(site.store().join("epoch")).unwrap();
    text.lines().nth(2).and_then(StoreEpoch::from_hex).unwrap()
}

#[test]
fn the_repeater_gives_again_what_it_still_has() {
    let station = Station::new(Plan::default());
    let mut site = station.site("site-a");
    let mut camera = station.camera(1);
    let sealed = camera.seal(&footage(1, 9 * MIB), &[]);
    // Receipts permit, they do not order: camera and spool keep their copies.
    let address = camera.serve_with(&["--erase", "when-needed"], FILTER);
    let repeater = station.repeater(&[address], &[site.told()]);
    until("the camera has its receipts", || {
        camera
            .status()
            .recordings
            .iter()
            .all(|r| r.receipted == r.segments)
    });
    assert_eq!(camera.held(), sealed.segments);

    replace(&station, &mut site);
    until("the successor has it all", || {
        site.segments() == sealed.segments
    });
    until("the camera knows the newer key list", || {
        camera.status().key_list == 2
    });
    // What the camera erases now it erases on the successor's receipts.
    camera.serve();
    station.wait_all_released(&[&camera], &repeater);
    station.assert_footage_is_whole(&site);
}

#[test]
fn the_camera_gives_again_what_the_spool_has_no_more() {
    let station = Station::new(Plan::default());
    let mut site = station.site("site-a");
    let mut camera = station.camera(1);
    let sealed = camera.seal(&footage(2, 5 * MIB), &[]);
    let address = camera.serve_with(&["--erase", "when-needed"], FILTER);
    let mut repeater = station.repeater(&[address], &[site.told()]);
    until("the camera has its receipts", || {
        camera
            .status()
            .recordings
            .iter()
            .all(|r| r.receipted == r.segments)
    });

    // The fire took the repeater, too.
    repeater.daemon().kill();
    std::fs::remove_dir_all(repeater.spool()).unwrap();
    replace(&station, &mut site);
    repeater.run();
    until("the successor has it all", || {
        site.segments() == sealed.segments
    });
    camera.serve();
    station.wait_all_released(&[&camera], &repeater);
    station.assert_footage_is_whole(&site);
}
