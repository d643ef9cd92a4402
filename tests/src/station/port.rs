//! A dock's port under 802.1X: real hostapd at the station's end, real wpa_supplicant in the camera, EAP-TLS with the
//! certificates that both have anyway, and a rule of nftables that lets nothing but EAPOL in before hostapd says so.
//!
//! The camera stands behind an anonymous outer identity, and takes no other authenticator than its station's repeater.
//! hostapd tells an action script who came and who left; the script opens and closes the port. It is what an installer
//! sets up, no part of the repeater.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::Station;
use super::netns::Namespace;
use super::wire::End;
use crate::process::Party;
use crate::wait::{LONG, eventually, until};

/// hostapd and its rule at one port.
#[derive(Debug)]
pub struct Port<'a> {
    station: &'a Station,
    space: Namespace,
    device: String,
    repeater: String,
    /// hostapd, while it runs.
    pub hostapd: Option<Party>,
    actions: Option<Party>,
}

impl<'a> Port<'a> {
    /// A port that nobody has opened, guarded for the repeater whose folder in the agency is named.
    #[must_use]
    pub fn new(station: &'a Station, end: &End, repeater: &str) -> Port<'a> {
        let port = Port {
            station,
            space: end.space.clone(),
            device: end.device.clone(),
            repeater: repeater.to_owned(),
            hostapd: None,
            actions: None,
        };
        std::fs::create_dir_all(port.sockets()).unwrap();
        port.shut();
        port
    }

    /// The folder of hostapd's control socket, which has the device's name.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        self.station.path("hostapd")
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.station.path(&format!("{}.{suffix}", self.device))
    }

    /// Nothing but EAPOL comes in, and nothing goes out, but for those in the set `open`.
    fn shut(&self) {
        let (device, rules) = (&self.device, self.file("nft"));
        let text = format!(
            "table netdev {device} {{\n\
             set open {{ type ether_addr; }}\n\
             chain in {{ type filter hook ingress device \"{device}\" priority 0; policy drop;\n\
             ether type 0x888e accept\nether saddr @open accept\n}}\n}}\n"
        );
        std::fs::write(&rules, text).unwrap();
        self.space.run(&["nft", "-f", &rules.display().to_string()]);
    }

    /// Starts hostapd, and waits until it listens.
    pub fn run(&mut self) {
        self.actions = None;
        self.hostapd = None;
        // One that was killed leaves its socket behind, and no other starts beside it.
        let _ = std::fs::remove_file(self.sockets().join(&self.device));
        let (conf, script) = (self.file("hostapd"), self.file("action"));
        std::fs::write(self.station.path("eap_user"), "* TLS\n").unwrap();
        std::fs::write(&conf, self.config()).unwrap();
        std::fs::write(&script, self.script()).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let conf = conf.display().to_string();
        let mut hostapd = self.start("hostapd", &["hostapd", "-t", &conf]);
        let enabled = |party: &Party| party.out().contains("AP-ENABLED");
        eventually("hostapd guards the port", LONG, || {
            assert!(hostapd.runs(), "hostapd ended: {}", hostapd.out());
            enabled(&hostapd).then_some(())
        });
        self.hostapd = Some(hostapd);
        let (at, script) = (self.sockets(), script.display().to_string());
        let at = at.display().to_string();
        let args = ["hostapd_cli", "-p", &at, "-i", &self.device, "-a", &script];
        self.actions = Some(self.start("hostapd_cli", &args));
    }

    fn start(&self, what: &str, args: &[&str]) -> Party {
        let (space, logs) = (Some(&self.space), self.station.path("logs"));
        let name = format!("{what}-{}", self.device);
        Party::start_in(space, &logs, &name, "under", args, "off")
    }

    fn config(&self) -> String {
        let agency = |name: &str| self.station.agency.path(name).display().to_string();
        let own = |name: &str| agency(&format!("repeaters/{}/{name}", self.repeater));
        format!(
            "interface={}\ndriver=wired\nctrl_interface={}\nieee8021x=1\neapol_version=2\n\
             eap_reauth_period=0\nuse_pae_group_addr=1\neap_server=1\neap_user_file={}\n\
             ca_cert={}\nserver_cert={}\nprivate_key={}\nlogger_stdout=-1\nlogger_stdout_level=2\n",
            self.device,
            self.sockets().display(),
            self.station.path("eap_user").display(),
            agency("trust.pem"),
            own("chain.pem"),
            own("key.pem"),
        )
    }

    fn script(&self) -> String {
        let table = format!("element netdev {} open {{ $3 }}", self.device);
        format!(
            "#!/bin/sh\ncase \"$2\" in\n\
             AP-STA-CONNECTED) nft \"add {table}\" ;;\n\
             AP-STA-DISCONNECTED) nft \"delete {table}\" ;;\nesac\n"
        )
    }

    /// hostapd gives a station up that it has not heard for long, as an access point does on the air.
    pub fn lose(&self, mac: &str) {
        let at = self.sockets().display().to_string();
        let args = ["hostapd_cli", "-p", &at, "-i", &self.device];
        self.space
            .run(&[&args[..], &["deauthenticate", mac]].concat());
    }

    /// Who may send through the port, by hardware address.
    #[must_use]
    pub fn open(&self) -> String {
        self.space
            .run(&["nft", "list", "set", "netdev", &self.device, "open"])
    }
}

/// wpa_supplicant in a camera, at its end of a cable. It does not notice itself that the cable was out: a camera's system
/// starts it anew when the carrier comes back.
#[derive(Debug)]
pub struct Supplicant {
    party: Party,
}

impl Supplicant {
    /// Starts it with a camera's certificate; it takes the named repeater for its authenticator, and no other.
    #[must_use]
    pub fn start(station: &Station, end: &End, serial: &str, repeater: &str) -> Supplicant {
        let agency = |name: &str| station.agency.path(name).display().to_string();
        let own = |name: &str| agency(&format!("cameras/{serial}/{name}"));
        let conf = station.path(&format!("{}.supplicant", end.device));
        let text = format!(
            "ap_scan=0\nnetwork={{\nkey_mgmt=IEEE8021X\neap=TLS\neapol_flags=0\nidentity=\"anonymous\"\n\
             ca_cert=\"{}\"\nclient_cert=\"{}\"\nprivate_key=\"{}\"\n\
             altsubject_match=\"URI:{repeater}\"\n}}\n",
            agency("trust.pem"),
            own("link.pem"),
            own("link.key"),
        );
        std::fs::write(&conf, text).unwrap();
        let (conf, logs) = (conf.display().to_string(), station.path("logs"));
        let args = [
            "wpa_supplicant",
            "-t",
            "-Dwired",
            "-i",
            &end.device,
            "-c",
            &conf,
        ];
        let name = format!("supplicant-{}", end.device);
        let party = Party::start_in(Some(&end.space), &logs, &name, "under", args, "off");
        Supplicant { party }
    }

    /// How often the port has been opened for it.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.party.out().matches("CTRL-EVENT-CONNECTED").count()
    }

    /// Waits until the port has been opened for it.
    pub fn wait_connected(&self) {
        until("wpa_supplicant is connected", || self.connected() > 0);
    }
}
