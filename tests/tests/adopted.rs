//! A station's board breaks while its archive is away. Its disk is moved to another box of the agency, which adopts what
//! was kept: everything is forwarded and receipted, the camera erases, and nothing is lost.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use link::agency::{TrialOptions, trial};
use link::clock::Clock;
use link::random::Random;
use tests::footage::footage;
use tests::process::{self, Said};
use tests::repeater_party::{Repeater, Setting};
use tests::station::{Plan, STATION, Station};
use tests::wait::until;

const MIB: usize = 1 << 20;

fn adopt(config: &Path, more: &[&str]) -> Said {
    let config = config.display().to_string();
    let args = [&["adopt", "--config", &config], more].concat();
    process::run("repeaterd", args)
}

#[test]
fn a_disk_that_was_moved_is_adopted_and_nothing_is_lost() {
    let station = Station::new(Plan::default());
    station.agency.add_repeater(STATION, 2).unwrap();
    let mut site = station.site("site-a");
    site.gateway().kill();
    let mut camera = station.camera(1);
    let sealed = camera.seal(&footage(1, 9 * MIB), &[]);
    let address = camera.serve();
    let mut old = station.repeater(&[address], &[site.told()]);
    old.wait_held(sealed.items());
    let (old_config, spool) = (station.path("repeater.toml"), old.spool());
    // A daemon has it.
    let said = adopt(&old_config, &["--yes"]);
    assert!(
        said.code == Some(69) && said.err.contains("stop the daemon"),
        "{}",
        said.err
    );
    old.daemon().kill();

    // The board is gone: another box, with the disk.
    let setting = Setting {
        name: "other".into(),
        identity: format!("{STATION}-2"),
        space: None,
        discover: format!("static = [\"{address}\"]\nmdns = false\n"),
        spool: String::new(),
    };
    let mut other = Repeater::set(&station, setting, &[site.told()]);
    let config = station.path("other.toml");
    std::fs::rename(&spool, other.spool()).unwrap();
    let key_list = std::fs::read(other.spool().join("key-list")).unwrap();
    // It does not take by itself what another answers for, nor tries again and again.
    let path = config.display().to_string();
    let said = process::run("repeaterd", ["run", "--config", &path]);
    assert_eq!(said.code, Some(78), "{}", said.err);
    assert!(
        said.err.contains(&format!("{STATION}:1")) && said.err.contains("adopt"),
        "{}",
        said.err
    );

    let said = adopt(&config, &[]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.out.contains("nothing was changed") && said.out.contains(&format!("{STATION}:1")),
        "{}",
        said.out
    );
    let said = adopt(&config, &["--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(other.logbook_says(&format!(
        "adopt by urn:bwc:repeater:{STATION}:2 from urn:bwc:repeater:{STATION}:1"
    )));
    assert_eq!(
        std::fs::read(other.spool().join("key-list")).unwrap(),
        key_list
    );
    assert_eq!(
        adopt(&config, &["--yes"]).code,
        Some(0),
        "it is its own already"
    );

    site.run();
    other.run();
    until("all that was held is archived", || {
        other.status()["spool"]["outstanding"] == 0
    });
    station.wait_all_released(&[&camera], &other);
    station.assert_footage_is_whole(&site);
}

#[test]
fn the_spool_of_another_agency_is_refused_and_stays_as_it_is() {
    let station = Station::new(Plan::default());
    let mut repeater = station.repeater(&[], &[("site-a", ([127, 0, 0, 1], 9).into())]);
    assert_eq!(repeater.items("held"), 0);
    assert_eq!(repeater.daemon().stop(), Some(0));
    let folder = station.path("stranger");
    let options = TrialOptions {
        cameras: 1,
        ..TrialOptions::default()
    };
    trial(&folder, &options, &Clock::system(), &Random::system()).unwrap();
    let ours = std::fs::read_to_string(station.path("repeater.toml")).unwrap();
    let of_station = station.agency.path("").display().to_string();
    let of_stranger = format!("{}/", folder.display());
    let theirs = ours
        .replace(&of_station, &of_stranger)
        .replace(&format!("{STATION}-1"), "trial-1");
    let config = station.path("stranger.toml");
    std::fs::write(&config, theirs).unwrap();
    let before = std::fs::read(repeater.spool().join("logbook")).unwrap();
    let said = adopt(&config, &["--yes"]);
    assert!(
        said.code == Some(70) && said.err.contains("no key list of this box's agency"),
        "{}",
        said.err
    );
    assert_eq!(
        std::fs::read(repeater.spool().join("logbook")).unwrap(),
        before
    );
    let owner = std::fs::read_to_string(repeater.spool().join("owner")).unwrap();
    assert_eq!(owner.trim(), format!("urn:bwc:repeater:{STATION}:1"));
}
