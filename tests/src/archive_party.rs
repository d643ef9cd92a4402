//! An archive site: `archive init` and `archive run` over a folder store, and its owner's looks at that store.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use crate::process::{self, FILTER, Party, Said};
use crate::station::Station;
use crate::station::netns::Namespace;

/// An archive site of a station.
#[derive(Debug)]
pub struct Site<'a> {
    station: &'a Station,
    /// Its name.
    pub name: String,
    /// The gateway, while it runs.
    pub party: Option<Party>,
    address: Option<SocketAddr>,
    folder: String,
    listen: SocketAddr,
    space: Option<Namespace>,
}

impl<'a> Site<'a> {
    pub(crate) fn start(station: &'a Station, name: &str) -> Site<'a> {
        Site::start_in(station, name, None, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts it in a network namespace.
    #[must_use]
    pub fn start_in(
        station: &'a Station,
        name: &str,
        space: Option<Namespace>,
        listen: SocketAddr,
    ) -> Site<'a> {
        let mut site = Site {
            station,
            name: name.to_owned(),
            party: None,
            address: None,
            folder: format!("sites/{name}"),
            listen,
            space,
        };
        site.init();
        site.run();
        site
    }

    /// Makes its store.
    fn init(&self) {
        let config = self.write_config().display().to_string();
        let said = process::run("archive", ["init", "--config", &config]);
        assert_eq!(said.code, Some(0), "{}", said.err);
    }

    fn write_config(&self) -> PathBuf {
        let config = self.station.path(&format!("{}.toml", self.name));
        std::fs::write(&config, self.config()).unwrap();
        config
    }

    /// Runs the gateway, at the address of the first start.
    pub fn run(&mut self) -> SocketAddr {
        self.party = None;
        let config = self.write_config();
        let args = ["run".into(), "--config".into(), config.into_os_string()];
        let mut party = Party::start_in(
            self.space.as_ref(),
            &self.station.path("logs"),
            &self.name,
            "archive",
            args,
            FILTER,
        );
        let address = party.ready("listening on ").parse().unwrap();
        self.party = Some(party);
        self.address = Some(address);
        address
    }

    fn config(&self) -> String {
        let agency = |name: &str| self.station.agency.path(name).display().to_string();
        let own = |name: &str| {
            self.station
                .agency
                .path("archives")
                .join(&self.name)
                .join(name)
                .display()
                .to_string()
        };
        let listen = self.address.unwrap_or(self.listen);
        let mut text = format!("site = \"{}\"\nlisten = \"{listen}\"\n", self.name);
        text += &format!(
            "store = \"file://{}\"\ndurability = \"fsync\"\n\n[credentials]\n",
            self.store().display()
        );
        let files = [
            ("chain", own("chain.pem")),
            ("key", own("key.pem")),
            ("receipt_key", own("receipt.key")),
            ("trust", agency("trust.pem")),
            ("crl", agency("crl.pem")),
            ("key_list", agency("key-list.cose")),
            (
                "endpoint_keys",
                self.station
                    .path(&format!("{}.keys", self.name))
                    .display()
                    .to_string(),
            ),
        ];
        files
            .iter()
            .for_each(|(key, path)| text += &format!("{key} = \"{path}\"\n"));
        text
    }

    /// The folder that is its store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.station.path(&self.folder)
    }

    /// From its next start on the site has another, empty store.
    pub fn lose_store(&mut self) {
        self.folder += "-again";
        self.init();
    }

    /// Where it serves or served.
    ///
    /// # Panics
    /// Where it never did.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.expect("the site was started")
    }

    /// Its gateway.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn gateway(&mut self) -> &mut Party {
        self.party.as_mut().expect("the site runs")
    }

    /// Name and address, as the repeater is told.
    #[must_use]
    pub fn told(&self) -> (&str, SocketAddr) {
        (&self.name, self.address())
    }

    fn url(&self) -> String {
        format!("file://{}", self.store().display())
    }

    /// The footage of a recording, by a recipient's key file; else what the exporter said.
    ///
    /// # Errors
    /// What the exporter said, having written nothing.
    pub fn export(&self, recording: &str, key: &str) -> Result<Vec<u8>, Said> {
        let out = self.station.path("exported");
        let _ = std::fs::remove_file(&out);
        let (trust, key) = (
            self.station.agency.path("trust.pem"),
            self.station.agency.path("recipients").join(key),
        );
        let text = |p: &PathBuf| p.display().to_string();
        let (url, trust, key) = (self.url(), text(&trust), text(&key));
        let args = [
            "export",
            recording,
            "--store",
            &url,
            "--trust",
            &trust,
            "--key",
            &key,
            "-o",
            &text(&out),
        ];
        let said = process::run("archive", args);
        if said.code == Some(0) {
            return Ok(std::fs::read(&out).unwrap());
        }
        assert!(!out.exists(), "a failed export has written: {}", said.err);
        Err(said)
    }

    /// Every object read again.
    #[must_use]
    pub fn verify(&self) -> Value {
        let trust = self.station.agency.path("trust.pem").display().to_string();
        let said = process::run(
            "archive",
            [
                "verify",
                "--store",
                &self.url(),
                "--trust",
                &trust,
                "--json",
            ],
        );
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {} {}", said.out, said.err))
    }

    /// Segments in its store that verify.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.verify()["segments"].as_u64().unwrap()
    }
}
