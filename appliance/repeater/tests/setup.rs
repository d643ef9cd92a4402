//! A box becomes a station's repeater: by an enrolment file, by hand, killed on the way, and never somebody else's.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use link::agency::{Agency, TrialOptions, trial};
use link::clock::Clock;
use link::config::Source;
use link::enrolment::Plan;
use link::random::Random;
use protocol::identity::Role;

const REPEATERD: &str = env!("CARGO_BIN_EXE_repeaterd");
const PLAN: &str = r#"
station = "seoul-017"
number = 1
[[archive]]
site = "site-a"
addresses = ["192.0.2.10:47801"]
[wifi]
ssid = "BWC-017"
country = "KR"
[[dock]]
interface = "dock1"
bay = "A1"
guarded = true
"#;

/// A box, its installer's stick, and two agencies.
struct Scene {
    folder: tempfile::TempDir,
    ours: Agency,
    theirs: Agency,
}

impl Scene {
    fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let agency = |name: &str| {
            let options = TrialOptions {
                cameras: 1,
                ..TrialOptions::default()
            };
            trial(
                &folder.path().join(name),
                &options,
                &Clock::system(),
                &Random::system(),
            )
            .unwrap()
        };
        let (ours, theirs) = (agency("ours"), agency("theirs"));
        std::fs::create_dir(folder.path().join("stick")).unwrap();
        Scene {
            ours,
            theirs,
            folder,
        }
    }
    fn stick(&self, name: &str) -> PathBuf {
        self.folder.path().join("stick").join(name)
    }
    fn own(&self, name: &str) -> PathBuf {
        self.folder.path().join("root/etc/repeater").join(name)
    }
    fn enrol(&self, agency: &Agency, plan: &str) {
        let plan = Plan::parse(&Source::new("plan", plan.into())).unwrap();
        std::fs::write(
            self.stick("enrolment.repeater"),
            agency.enrol(plan).unwrap(),
        )
        .unwrap();
    }
    fn fingerprint(&self, agency: &Agency) -> String {
        agency.fingerprints().unwrap()[0].to_string()
    }
    /// `repeaterd setup`, with the key in a file.
    fn setup(&self, more: &[&str]) -> Output {
        let mut command = Command::new(REPEATERD);
        command
            .args(["setup", "--plain-key", "--root"])
            .arg(self.folder.path().join("root"));
        command.args(more).output().unwrap()
    }
    fn by_stick(&self, more: &[&str]) -> Output {
        let file = self.stick("enrolment.repeater").display().to_string();
        self.setup(&[&[file.as_str()], more].concat())
    }
    fn sign(&self, agency: &Agency) {
        let request = read(&self.stick("seoul-017-1.request.pem"));
        let chain = agency.sign_request(&request, Role::Repeater).unwrap();
        std::fs::write(self.stick("seoul-017-1.certificate.pem"), chain).unwrap();
    }
    /// Sets it up by the stick, and has its request signed.
    fn in_service(&self) {
        let known = self.fingerprint(&self.ours);
        good(&self.by_stick(&["--agency", &known]));
        self.sign(&self.ours);
        good(&self.by_stick(&[]));
    }
    fn everything(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = vec![];
        let mut folders = vec![self.folder.path().join("root")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => all.push((path.clone(), std::fs::read(&path).unwrap())),
                }
            }
        }
        all.sort();
        all
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn good(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn from_the_file_to_the_certificate_and_a_second_time_nothing_changes() {
    let scene = Scene::new();
    scene.enrol(&scene.ours, PLAN);
    let known = scene.fingerprint(&scene.ours);
    let said = good(&scene.by_stick(&["--agency", &known]));
    assert!(
        said.contains("set up as urn:bwc:repeater:seoul-017:1"),
        "{said}"
    );
    assert!(!scene.own("chain.pem").exists());
    let mode = scene
        .own("key.pem")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let wlan = read(&scene.folder.path().join("root/etc/hostapd/wlan0.conf"));
    assert!(wlan.contains("ssid=BWC-017\n"));
    assert!(
        scene
            .folder
            .path()
            .join("root/etc/hostapd/dock1.conf")
            .exists()
    );
    assert_eq!(
        read(&scene.own("request.pem")),
        read(&scene.stick("seoul-017-1.request.pem"))
    );

    // From now on the box knows its agency by itself, and the file may be named as seen from where one is.
    let before = scene.everything();
    std::fs::remove_file(scene.stick("seoul-017-1.request.pem")).unwrap();
    let mut command = Command::new(REPEATERD);
    command.args(["setup", "enrolment.repeater", "--plain-key", "--root"]);
    command.arg(scene.folder.path().join("root"));
    good(&command.current_dir(scene.stick("")).output().unwrap());
    assert!(scene.stick("seoul-017-1.request.pem").exists());
    assert_eq!(scene.everything(), before);

    scene.sign(&scene.ours);
    let said = good(&scene.by_stick(&[]));
    assert!(said.contains("certificate is taken"), "{said}");
    let checked = Command::new(REPEATERD)
        .arg("check")
        .arg(scene.own("repeater.toml"))
        .output()
        .unwrap();
    assert!(good(&checked).contains("urn:bwc:repeater:seoul-017:1"));

    // What a person changes stays, until the agency's next file; and then it is kept.
    std::fs::write(scene.own("repeater.toml"), "# mine\n").unwrap();
    good(&scene.by_stick(&[]));
    assert_eq!(read(&scene.own("repeater.toml")), "# mine\n");
    scene.enrol(&scene.ours, &PLAN.replace("192.0.2.10", "192.0.2.11"));
    good(&scene.by_stick(&[]));
    assert!(read(&scene.own("repeater.toml")).contains("192.0.2.11:47801"));
    assert_eq!(read(&scene.own("repeater.toml.before")), "# mine\n");
}

#[test]
fn ports_are_called_what_the_newest_file_calls_them() {
    let scene = Scene::new();
    let links = scene.folder.path().join("root/etc/systemd/network");
    let ports = |names: &[(&str, &str)]| {
        let port = |(name, path): &(&str, &str)| {
            format!("[[port]]\nname = \"{name}\"\npath = \"{path}\"\n")
        };
        PLAN.to_owned() + &names.iter().map(port).collect::<String>()
    };
    let named = || {
        let names = std::fs::read_dir(&links).into_iter().flatten();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let first = [("wan0", "pci-0000:01:00.0"), ("dock1", "pci-0000:02:00.0")];
    scene.enrol(&scene.ours, &ports(&first));
    let known = scene.fingerprint(&scene.ours);
    let said = good(&scene.by_stick(&["--agency", &known]));
    assert!(said.contains("restart it"), "{said}");
    assert!(!good(&scene.by_stick(&[])).contains("restart it"));
    assert_eq!(
        named(),
        ["05-repeater-port-dock1.link", "05-repeater-port-wan0.link"]
    );
    let text = read(&links.join("05-repeater-port-wan0.link"));
    assert!(
        text.ends_with("[Match]\nPath=pci-0000:01:00.0\n\n[Link]\nName=wan0\n"),
        "{text}"
    );
    // What a person put there stays; what an older file called goes.
    std::fs::write(links.join("05-mine.link"), "").unwrap();
    scene.enrol(&scene.ours, &ports(&[("wan0", "pci-0000:03:00.0")]));
    good(&scene.by_stick(&[]));
    assert_eq!(named(), ["05-mine.link", "05-repeater-port-wan0.link"]);
    assert!(read(&links.join("05-repeater-port-wan0.link")).contains("Path=pci-0000:03:00.0\n"));
    scene.enrol(&scene.ours, PLAN);
    assert!(good(&scene.by_stick(&[])).contains("restart it"));
    assert_eq!(named(), ["05-mine.link"]);
}

#[test]
fn a_forged_file_a_strangers_and_a_strange_certificate_change_nothing() {
    let scene = Scene::new();
    let (ours, theirs) = (
        scene.fingerprint(&scene.ours),
        scene.fingerprint(&scene.theirs),
    );
    // Nobody told the box of an agency.
    scene.enrol(&scene.ours, PLAN);
    let said = refused(&scene.by_stick(&[]));
    assert!(said.contains(&ours) && said.contains("--agency"), "{said}");
    // A file of another agency; it names whom it is of.
    scene.enrol(&scene.theirs, PLAN);
    let said = refused(&scene.by_stick(&["--agency", &ours]));
    assert!(said.contains(&theirs) && said.contains(&ours), "{said}");
    // One that was altered.
    scene.enrol(&scene.ours, PLAN);
    let mut bytes = std::fs::read(scene.stick("enrolment.repeater")).unwrap();
    let at = bytes.windows(10).position(|w| w == b"192.0.2.10").unwrap();
    bytes[at] = b'7';
    std::fs::write(scene.stick("enrolment.repeater"), bytes).unwrap();
    let said = refused(&scene.by_stick(&["--agency", &ours]));
    assert!(said.contains("signature"), "{said}");
    std::fs::write(scene.stick("enrolment.repeater"), vec![0; 70_000]).unwrap();
    assert!(refused(&scene.by_stick(&["--agency", &ours])).contains("65536"));
    assert_eq!(scene.everything(), []);

    scene.enrol(&scene.ours, PLAN);
    good(&scene.by_stick(&["--agency", &ours]));
    let before = scene.everything();
    // The certificate of another key, of another agency.
    let other = read(&scene.ours.path("repeaters/trial-1/chain.pem"));
    std::fs::write(scene.stick("seoul-017-1.certificate.pem"), other).unwrap();
    assert!(refused(&scene.by_stick(&[])).contains("not this box's"));
    scene.sign(&scene.theirs);
    assert!(refused(&scene.by_stick(&[])).contains("not this box's"));
    assert_eq!(scene.everything(), before);
}

#[test]
fn a_box_keeps_its_identity_unless_told_to_replace_it() {
    let scene = Scene::new();
    scene.enrol(&scene.ours, PLAN);
    scene.in_service();
    let before = scene.everything();
    scene.enrol(&scene.ours, &PLAN.replace("seoul-017", "busan-002"));
    let said = refused(&scene.by_stick(&[]));
    assert!(
        said.contains("seoul-017") && said.contains("busan-002") && said.contains("--replace"),
        "{said}"
    );
    // Of another agency: only by both words.
    scene.enrol(&scene.theirs, PLAN);
    assert!(refused(&scene.by_stick(&[])).contains("told of"));
    let theirs = scene.fingerprint(&scene.theirs);
    assert!(refused(&scene.by_stick(&["--agency", &theirs])).contains("--replace"));
    assert!(refused(&scene.by_stick(&["--replace"])).contains("--agency"));
    assert_eq!(scene.everything(), before);

    let key = read(&scene.own("key.pem"));
    // The old certificate that lies beside it is not the new key's.
    let said = refused(&scene.by_stick(&["--agency", &theirs, "--replace"]));
    assert!(said.contains("not this box's"), "{said}");
    assert!(read(&scene.own("key.pem")) != key && !scene.own("chain.pem").exists());
    assert_eq!(
        read(&scene.own("trust.pem")),
        read(&scene.theirs.path("trust.pem"))
    );
}

#[test]
fn killed_anywhere_it_is_run_again_and_ends_the_same() {
    let scene = Scene::new();
    let ours = scene.fingerprint(&scene.ours);
    scene.enrol(&scene.ours, PLAN);
    scene.in_service();
    let whole = scene.everything();
    let certificate = read(&scene.stick("seoul-017-1.certificate.pem"));
    let written = [
        "setup.toml",
        "trust.pem",
        "crl.pem",
        "key-list.cose",
        "repeater.toml",
        "key.pem",
        "request.pem",
    ];
    // What is made last is missing first: up to each point of the order, and with the note that it was begun.
    for cut in 1..written.len() {
        std::fs::remove_dir_all(scene.folder.path().join("root")).unwrap();
        for (path, bytes) in &whole {
            let name = path.file_name().unwrap().to_str().unwrap();
            let there = written
                .iter()
                .position(|w| *w == name)
                .is_none_or(|at| at < cut);
            if there && name != "chain.pem" {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
        let state = read(&scene.own("setup.toml"));
        let begun: String = state
            .lines()
            .filter(|l| !l.starts_with("applied"))
            .map(|l| format!("{l}\n"))
            .collect();
        std::fs::write(scene.own("setup.toml"), begun).unwrap();
        // Half a file beside its name.
        std::fs::write(scene.own(".repeater.toml.new"), "[iden").unwrap();
        if cut < 6 {
            // The key is a new one, and so its certificate.
            std::fs::remove_file(scene.stick("seoul-017-1.certificate.pem")).unwrap();
            good(&scene.by_stick(&["--agency", &ours]));
            scene.sign(&scene.ours);
        } else {
            std::fs::write(scene.stick("seoul-017-1.certificate.pem"), &certificate).unwrap();
        }
        good(&scene.by_stick(&["--agency", &ours]));
        let checked = Command::new(REPEATERD)
            .arg("check")
            .arg(scene.own("repeater.toml"))
            .output()
            .unwrap();
        assert!(checked.status.success(), "cut {cut}: {checked:?}");
        assert_eq!(read(&scene.own("setup.toml")), state);
        if cut < 6 {
            continue;
        }
        let names =
            |all: &[(PathBuf, Vec<u8>)]| all.iter().map(|a| a.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&scene.everything()), names(&whole));
    }
}

#[test]
fn by_hand_it_is_the_same() {
    let scene = Scene::new();
    let papers = scene.ours.path("").display().to_string();
    let words = [
        "--papers",
        &papers,
        "--station",
        "seoul-017",
        "--archive",
        "site-a=192.0.2.10:47801",
        "--archive",
        "site-a=192.0.2.11:47801",
        "--ssid",
        "BWC-017",
        "--country",
        "KR",
        "--guarded-dock",
        "dock1=A1",
        "--port",
        "wan0=pci-0000:01:00.0",
    ];
    good(&scene.setup(&words));
    let config = read(&scene.own("repeater.toml"));
    assert!(
        config.contains("addresses = [\"192.0.2.10:47801\", \"192.0.2.11:47801\"]"),
        "{config}"
    );
    let link = "root/etc/systemd/network/05-repeater-port-wan0.link";
    assert!(read(&scene.folder.path().join(link)).contains("Path=pci-0000:01:00.0\n"));
    let chain = scene
        .ours
        .sign_request(&read(&scene.own("request.pem")), Role::Repeater)
        .unwrap();
    std::fs::write(scene.stick("chain.pem"), chain).unwrap();
    let chain = scene.stick("chain.pem").display().to_string();
    good(&scene.setup(&["--certificate", &chain]));
    let before = scene.everything();
    good(&scene.setup(&words));
    assert_eq!(scene.everything(), before);
    // Line breaks and quotes are no station's name.
    let output = scene.setup(&[
        "--papers",
        &papers,
        "--station",
        "a\nb",
        "--archive",
        "s=192.0.2.10:1",
    ]);
    assert!(refused(&output).contains("station"));
}

#[test]
fn the_key_is_sealed_by_the_service_manager_and_not_made_where_it_cannot_be() {
    let scene = Scene::new();
    scene.enrol(&scene.ours, PLAN);
    let bin = scene.folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    // What the manager's program does, as far as it is seen from here: the key comes by the standard input alone.
    let creds = "#!/bin/sh\n[ \"$2\" = --name=key.pem ] || exit 9\ncase $1 in\nencrypt) tr A-Za-z N-ZA-Mn-za-m ;;\n\
                 decrypt) tr A-Za-z N-ZA-Mn-za-m <\"$3\" ;;\nesac\n";
    std::fs::write(bin.join("systemd-creds"), creds).unwrap();
    std::fs::set_permissions(
        bin.join("systemd-creds"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let known = scene.fingerprint(&scene.ours);
    let setup = |path: String| {
        let mut command = Command::new(REPEATERD);
        command
            .env("PATH", path)
            .args(["setup", "--agency", &known, "--root"]);
        command
            .arg(scene.folder.path().join("root"))
            .arg(scene.stick("enrolment.repeater"));
        command.output().unwrap()
    };
    let said = refused(&setup("/nowhere".into()));
    assert!(
        said.contains("systemd-creds") && said.contains("--plain-key"),
        "{said}"
    );
    let path = format!("{}:/usr/bin:/bin", bin.display());
    good(&setup(path.clone()));
    let sealed = scene
        .folder
        .path()
        .join("root/etc/credstore.encrypted/repeater-key.pem");
    assert!(!read(&sealed).contains("PRIVATE KEY") && read(&sealed).contains("CEVINGR XRL"));
    assert!(!scene.own("key.pem").exists());
    assert!(read(&scene.own("repeater.toml")).contains("key = \"$CREDENTIALS_DIRECTORY/key.pem\""));
    let before = scene.everything();
    std::fs::remove_file(scene.own("request.pem")).unwrap();
    good(&setup(path.clone()));
    scene.sign(&scene.ours);
    good(&setup(path.clone()));
    assert_eq!(scene.everything().len(), before.len() + 1);
    // One that another machine sealed.
    std::fs::write(&sealed, "nonsense").unwrap();
    assert!(refused(&setup(path)).contains("--new-key"));
}

#[test]
fn a_disk_from_another_board_gets_a_new_key_and_keeps_who_it_is() {
    let scene = Scene::new();
    // A box that nobody set up has no key to make anew.
    good(&scene.setup(&["--new-key"]));
    scene.enrol(&scene.ours, PLAN);
    scene.in_service();
    // A key that this machine opens stays, and so does all else.
    let before = scene.everything();
    good(&scene.setup(&["--new-key"]));
    assert_eq!(scene.everything(), before);

    let (key, request) = (scene.own("key.pem"), read(&scene.own("request.pem")));
    std::fs::write(&key, "of another board").unwrap();
    good(&scene.setup(&["--new-key"]));
    assert!(!scene.own("chain.pem").exists() && read(&key).contains("PRIVATE KEY"));
    let asked = read(&scene.own("request.pem"));
    assert_ne!(asked, request);
    // The certificate of before, which still lies on the stick, is not this key's.
    assert!(refused(&scene.by_stick(&[])).contains("certificate.pem"));
    assert_eq!(read(&scene.stick("seoul-017-1.request.pem")), asked);
    scene.sign(&scene.ours);
    good(&scene.by_stick(&[]));
}
