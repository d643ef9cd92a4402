//! The repeater: `repeaterd run`, and what it says of itself over its loopback page.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::process::{self, FILTER, Party, Said};
use crate::station::netns::Namespace;
use crate::station::{STATION, Station};
use crate::wait::{LONG, eventually, until};

/// What a scenario reads that wants to know what the repeater is in the middle of.
pub const TRACE: &str = "info,quinn=warn,quinn_proto=warn,quinn_udp=warn,rustls=warn,repeater=debug,repeater::trace=debug";

/// The repeater of a station.
#[derive(Debug)]
pub struct Repeater<'a> {
    station: &'a Station,
    /// The daemon, while it runs.
    pub party: Option<Party>,
    http: SocketAddr,
    config: PathBuf,
    name: String,
    space: Option<Namespace>,
}

/// Where a repeater runs, as whom, and how it finds cameras.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Names its configuration, its spool and its log.
    pub name: String,
    /// Its folder among the agency's repeaters: `STATION-NUMBER`.
    pub identity: String,
    /// Its network namespace.
    pub space: Option<Namespace>,
    /// The section `discover`, without its head, and whatever follows it.
    pub discover: String,
    /// Further lines of the section `spool`.
    pub spool: String,
}

impl Setting {
    /// On loopback, with cameras at fixed addresses.
    fn fixed(name: &str, cameras: &[SocketAddr], spool: &str) -> Setting {
        let cameras: Vec<String> = cameras.iter().map(|c| format!("\"{c}\"")).collect();
        Setting {
            name: name.to_owned(),
            identity: format!("{STATION}-1"),
            space: None,
            discover: format!("static = [{}]\nmdns = false\n", cameras.join(", ")),
            spool: spool.to_owned(),
        }
    }
}

impl<'a> Repeater<'a> {
    /// Starts it. `spool` are further lines of that section.
    #[must_use]
    pub fn start(
        station: &'a Station,
        cameras: &[SocketAddr],
        sites: &[(&str, SocketAddr)],
        spool: &str,
    ) -> Repeater<'a> {
        Repeater::start_named(station, "repeater", cameras, sites, spool)
    }

    /// Starts it under a name of its own, with a spool of its own.
    #[must_use]
    pub fn start_named(
        station: &'a Station,
        name: &str,
        cameras: &[SocketAddr],
        sites: &[(&str, SocketAddr)],
        spool: &str,
    ) -> Repeater<'a> {
        let mut repeater = Repeater::configured(station, name, cameras, sites, spool);
        repeater.run();
        repeater
    }

    /// Writes its configuration; it does not run yet.
    #[must_use]
    pub fn configured(
        station: &'a Station,
        name: &str,
        cameras: &[SocketAddr],
        sites: &[(&str, SocketAddr)],
        spool: &str,
    ) -> Repeater<'a> {
        Repeater::set(station, Setting::fixed(name, cameras, spool), sites)
    }

    /// Writes its configuration in another setting; it does not run yet.
    #[must_use]
    pub fn set(
        station: &'a Station,
        setting: Setting,
        sites: &[(&str, SocketAddr)],
    ) -> Repeater<'a> {
        let config = station.path(&format!("{}.toml", setting.name));
        std::fs::write(&config, text(station, &setting, sites)).unwrap();
        Repeater {
            station,
            party: None,
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            config,
            name: setting.name,
            space: setting.space,
        }
    }

    /// Runs the daemon again, with the same configuration.
    pub fn run(&mut self) {
        self.party = None;
        let args = [
            "run".into(),
            "--config".into(),
            self.config.clone().into_os_string(),
        ];
        let filter = format!("{TRACE},{FILTER}");
        let mut party = Party::start_in(
            self.space.as_ref(),
            &self.station.path("logs"),
            &self.name,
            "repeaterd",
            args,
            &filter,
        );
        self.http = party.ready("ready: metrics on ").parse().unwrap();
        self.party = Some(party);
    }

    /// Starts the daemon again, which does nothing until it is traced.
    pub fn start_traced(&mut self) -> &mut Party {
        self.party = None;
        let config = self.config.clone().into_os_string();
        let args = [
            "party:repeaterd".into(),
            "run".into(),
            "--config".into(),
            config,
        ];
        let filter = format!("{TRACE},{FILTER}");
        let logs = self.station.path("logs");
        let party = Party::start(&logs, &self.name, "traced", args, &filter);
        self.party.insert(party)
    }

    /// Starts the daemon again in an environment: `NAME=VALUE` each.
    pub fn start_within(&mut self, environment: Vec<String>) -> &mut Party {
        self.party = None;
        let mut args: Vec<OsString> = vec!["env".into()];
        args.extend(environment.into_iter().map(OsString::from));
        args.push(process::program().into());
        args.extend(["party:repeaterd", "run", "--config"].map(OsString::from));
        args.push(self.config.clone().into());
        let filter = format!("{TRACE},{FILTER}");
        let logs = self.station.path("logs");
        let party = Party::start(&logs, &self.name, "under", args, &filter);
        self.party.insert(party)
    }

    /// Its status, if it has come to tell it.
    #[must_use]
    pub fn try_status(&mut self) -> Option<Value> {
        self.http = self
            .party
            .as_ref()?
            .says("ready: metrics on ")?
            .parse()
            .ok()?;
        serde_json::from_str(&self.get("/status")?).ok()
    }

    /// Runs the daemon again, with other peers.
    pub fn run_with(&mut self, cameras: &[SocketAddr], sites: &[(&str, SocketAddr)], spool: &str) {
        self.party = None;
        let setting = Setting::fixed(&self.name, cameras, spool);
        std::fs::write(&self.config, text(self.station, &setting, sites)).unwrap();
        self.run();
    }

    /// Its daemon.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn daemon(&mut self) -> &mut Party {
        self.party.as_mut().expect("the repeater runs")
    }

    /// What it logged so far.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn log(&self) -> String {
        self.party.as_ref().expect("the repeater runs").log()
    }

    /// Its spool's folder.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.station.path(&format!("spool/{}", self.name))
    }

    /// One of its pages, as soon as it answers.
    #[must_use]
    pub fn page(&self, path: &str) -> String {
        eventually(&format!("{path} of the repeater"), LONG, || self.get(path))
    }

    fn get(&self, path: &str) -> Option<String> {
        match &self.space {
            Some(space) => space.within(|| get(self.http, path)),
            None => get(self.http, path),
        }
    }

    /// Its whole status.
    #[must_use]
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.page("/status")).unwrap()
    }

    /// Segments and headers in a stage: both are in custody.
    #[must_use]
    pub fn items(&self, stage: &str) -> u64 {
        self.status()["spool"]["segments"][stage].as_u64().unwrap()
    }

    /// Codes of the alarms that stand.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        let status = self.status();
        let code = |a: &Value| a["code"].as_str().unwrap().to_owned();
        status["alarms"]
            .as_array()
            .unwrap()
            .iter()
            .map(code)
            .collect()
    }

    /// `repeaterd clear`.
    #[must_use]
    pub fn clear(&self, code: &str, subject: &str) -> Said {
        let config = self.config.display().to_string();
        process::run("repeaterd", ["clear", "--config", &config, code, subject])
    }

    /// Entries of its logbook.
    ///
    /// # Panics
    /// Where the status does not say.
    #[must_use]
    pub fn logbook_entries(&self) -> u64 {
        self.status()["spool"]["logbook"][0].as_u64().unwrap()
    }

    /// Whether its logbook holds these words.
    ///
    /// # Panics
    /// Where it cannot be read.
    #[must_use]
    pub fn logbook_says(&self, words: &str) -> bool {
        let files = std::fs::read_dir(self.spool()).unwrap().map(Result::unwrap);
        let logbooks = files.filter(|f| f.file_name().to_string_lossy().starts_with("logbook"));
        let mut bytes = logbooks.map(|f| std::fs::read(f.path()).unwrap());
        bytes.any(|b| b.windows(words.len()).any(|w| w == words.as_bytes()))
    }

    /// Waits for an alarm: in the status, in the metric, and in the log.
    pub fn wait_alarm(&self, code: &str) {
        until(&format!("alarm {code}"), || {
            self.alarms().iter().any(|a| a == code)
        });
        assert!(self.metric(&format!("repeater_alarm{{code=\"{code}\"}}")) >= 1.0);
        assert!(self.log().contains(code));
    }

    /// Waits until an alarm's cause is gone.
    pub fn wait_no_alarm(&self, code: &str) {
        until(&format!("alarm {code} is over"), || {
            self.alarms().iter().all(|a| a != code)
        });
    }

    /// A figure of `/metrics`, by name and labels as they stand there.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics");
        let line = page
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{page}"))
            .parse()
            .unwrap()
    }

    /// The same as a count of bytes or segments; 0 where it does not stand there yet.
    #[must_use]
    pub fn counted(&self, name: &str) -> u64 {
        let page = self.page("/metrics");
        let line = page
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |n| n.parse().unwrap())
    }

    /// Segments and headers that are on its disk or beyond.
    #[must_use]
    pub fn held(&self) -> u64 {
        let s = &self.status()["spool"]["segments"];
        let count = |stage: &&str| s[*stage].as_u64().unwrap();
        ["held", "archived", "released"].iter().map(count).sum()
    }

    /// Waits until so many segments and headers are on its disk or beyond.
    pub fn wait_held(&self, items: u64) {
        until(&format!("{items} segments and headers held"), || {
            self.held() >= items
        });
    }
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let wait = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, wait).ok()?;
    stream.set_read_timeout(Some(wait)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

fn text(station: &Station, setting: &Setting, sites: &[(&str, SocketAddr)]) -> String {
    let agency = |name: &str| station.agency.path(name).display().to_string();
    let own = |name: &str| agency(&format!("repeaters/{}/{name}", setting.identity));
    let mut text = "[identity]\n".to_owned();
    let files = [
        ("chain", own("chain.pem")),
        ("key", own("key.pem")),
        ("trust", agency("trust.pem")),
        ("crl", agency("crl.pem")),
        ("key_list", agency("key-list.cose")),
    ];
    files
        .iter()
        .for_each(|(key, path)| text += &format!("{key} = \"{path}\"\n"));
    let (name, spool) = (&setting.name, &setting.spool);
    let (dir, run) = (station.path(&format!("spool/{name}")), station.path("run"));
    text += &format!(
        "\n[spool]\ndir = \"{}\"\nsuspect_dir = \"{}\"\n{spool}\n",
        dir.display(),
        run.display()
    );
    for (site, address) in sites {
        text += &format!("\n[[archive]]\nsite = \"{site}\"\naddresses = [\"{address}\"]\n");
    }
    text += &format!("\n[discover]\n{}", setting.discover);
    text + "\n[listen]\nhttp = \"127.0.0.1:0\"\n"
}
