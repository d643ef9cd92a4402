//! What a station is like: the part of an enrolment that somebody writes, and all that ends up in other programs'
//! configurations. Every value is checked for what it may hold before any of it is written there: a name with a line
//! break in it would be a second line of hostapd's configuration.

use std::net::{IpAddr, SocketAddr};

use protocol::identity::Identity;
use protocol::ids::SiteId;
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Source};

const KEYS: &str = "station, number; [[archive]] site, addresses; [uplink] interfaces, address, gateway, dns; \
    [wifi] interface, ssid, country, channel, width_mhz; [[dock]] interface or path, bay, guarded; [[port]] name, path";

/// Most sites, docks, addresses of one site, or names of links.
const MOST: usize = 64;

/// What a station is like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The station's name.
    pub station: String,
    /// Which of its repeaters this is.
    pub number: u16,
    /// The archive's sites, in order of preference.
    pub archive: Vec<Archive>,
    /// The way out.
    #[serde(default)]
    pub uplink: Uplink,
    /// The air; none where cameras come by cable only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wifi: Option<Wifi>,
    /// Docks.
    #[serde(default)]
    pub dock: Vec<Dock>,
    /// Ethernet ports that are called otherwise than the kernel or udev would call them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port: Vec<Port>,
}

/// A site of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Its name.
    pub site: String,
    /// Its endpoints, in order of preference.
    pub addresses: Vec<SocketAddr>,
}

/// The way out of the station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Uplink {
    /// Links on which no camera is; `*` stands for any characters.
    pub interfaces: Vec<String>,
    /// The box's address there with its prefix's length; the network is asked for one unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Where the way goes on, with an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Who knows names, with an address.
    pub dns: Vec<IpAddr>,
}

impl Default for Uplink {
    fn default() -> Self {
        Uplink {
            interfaces: vec!["wan*".into(), "wwan*".into()],
            address: None,
            gateway: None,
            dns: vec![],
        }
    }
}

/// The station's BSS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wifi {
    /// The radio.
    #[serde(default = "radio")]
    pub interface: String,
    /// The network's name.
    pub ssid: String,
    /// Whose rules of the air hold: two letters.
    pub country: String,
    /// The channel.
    #[serde(default = "channel")]
    pub channel: u16,
    /// Its width in MHz: 80 (802.11ac), 40 or 20 (802.11n). None: as wide as its band is used, 80 or 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width_mhz: Option<u16>,
}

impl Wifi {
    /// The channel's width in MHz.
    #[must_use]
    pub fn width_mhz(&self) -> u16 {
        let usual = if self.is_at_2_4_ghz() { 20 } else { 80 };
        self.width_mhz.unwrap_or(usual)
    }
    /// Whether the channel is one of the lower band.
    #[must_use]
    pub fn is_at_2_4_ghz(&self) -> bool {
        self.channel <= LAST_OF_2_4_GHZ
    }
}

/// The last channel of the band of 2.4 GHz that is used here.
const LAST_OF_2_4_GHZ: u16 = 13;

fn radio() -> String {
    "wlan0".into()
}

fn channel() -> u16 {
    36
}

/// A dock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dock {
    /// Its Ethernet port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Its USB port, as the path of the device; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is printed on it.
    pub bay: String,
    /// Whether the port lets in only who authenticates by 802.1X.
    #[serde(default)]
    pub guarded: bool,
}

/// An Ethernet port of the board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// What it is called from the next start on.
    pub name: String,
    /// Where on the board it is, as udev says it (`ID_PATH`): `pci-0000:02:00.0`.
    pub path: String,
}

impl Plan {
    /// Reads and checks what an agency wrote for one station.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(source: &Source) -> Result<Plan, ConfigError> {
        let plan: Plan = source.parse(KEYS)?;
        let mend = "correct it; the keys are station, number, archive, uplink, wifi, dock and port";
        plan.check()
            .map_err(|what| source.invalid(0..0, &what, mend))?;
        Ok(plan)
    }

    /// Whom the box is to be.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn identity(&self) -> Result<Identity, String> {
        Identity::repeater(&self.station, self.number).map_err(|e| format!("station: {e}"))
    }

    /// Whether every value may stand where it will be written.
    ///
    /// # Errors
    /// The key, what is wrong, and what may stand there.
    pub fn check(&self) -> Result<(), String> {
        self.identity()?;
        counted("archive", self.archive.len(), 1)?;
        for archive in &self.archive {
            let site: Result<SiteId, _> = archive.site.parse();
            site.map_err(|e| format!("archive.site: {e}"))?;
            counted("archive.addresses", archive.addresses.len(), 1)?;
        }
        let (uplink, docks) = (&self.uplink, &self.dock);
        counted("uplink.interfaces", uplink.interfaces.len(), 1)?;
        counted("uplink.dns", uplink.dns.len(), 0)?;
        counted("dock", docks.len(), 0)?;
        for name in &uplink.interfaces {
            link_name("uplink.interfaces", name, "*")?;
        }
        check_address(uplink)?;
        self.wifi.as_ref().map_or(Ok(()), check_wifi)?;
        docks.iter().try_for_each(check_dock)?;
        counted("port", self.port.len(), 0)?;
        self.port.iter().try_for_each(check_port)?;
        for (n, port) in self.port.iter().enumerate() {
            let twice = |p: &Port| p.name == port.name || p.path == port.path;
            if self.port.iter().take(n).any(twice) {
                return Err(format!("port {}: its name or path stands twice", port.name));
            }
        }
        Ok(())
    }
}

fn counted(key: &str, count: usize, least: usize) -> Result<(), String> {
    match (least..=MOST).contains(&count) {
        true => Ok(()),
        false => Err(format!("{key}: {count} are given; write {least} to {MOST}")),
    }
}

/// A name of a link as the kernel takes it, and in no configuration anything else than a name.
fn link_name(key: &str, name: &str, besides: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c) || besides.contains(c);
    let first = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric() || c == '*');
    match first && name.len() <= 15 && name.chars().all(plain) {
        true => Ok(()),
        false => Err(format!(
            "{key}: `{}` is no link's name",
            name.escape_default()
        )),
    }
}

/// What people named: visible, without quotes and without room at its ends.
fn word(key: &str, text: &str, most: usize) -> Result<(), String> {
    let visible = !text
        .chars()
        .any(|c| c.is_control() || c == '"' || c == '\\');
    match visible && !text.is_empty() && text.len() <= most && text.trim() == text {
        true => Ok(()),
        false => Err(format!(
            "{key}: `{}` cannot be used; write 1 to {most} bytes without quotes and control characters",
            text.escape_default()
        )),
    }
}

fn check_address(uplink: &Uplink) -> Result<(), String> {
    let Some(address) = &uplink.address else {
        return match uplink.gateway.is_none() && uplink.dns.is_empty() {
            true => Ok(()),
            false => Err("uplink: gateway and dns go with an address".into()),
        };
    };
    let parsed = address.split_once('/').and_then(|(ip, length)| {
        let ip: IpAddr = ip.parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        length.parse::<u8>().ok().filter(|n| *n <= most)
    });
    parsed.map(|_| ()).ok_or_else(|| {
        format!(
            "uplink.address: `{}`: write it as 192.0.2.5/24",
            address.escape_default()
        )
    })
}

fn check_wifi(wifi: &Wifi) -> Result<(), String> {
    link_name("wifi.interface", &wifi.interface, "")?;
    word("wifi.ssid", &wifi.ssid, 32)?;
    let country = &wifi.country;
    if country.len() != 2 || !country.chars().all(|c| c.is_ascii_uppercase()) {
        return Err("wifi.country: write two capital letters, such as KR".into());
    }
    match (wifi.width_mhz(), wifi.channel) {
        (20, _) => {}
        (40 | 80, _) if !wifi.is_at_2_4_ghz() => {}
        (other, channel) => {
            return Err(format!(
                "wifi.width_mhz: {other} on channel {channel}; use 20, or 40 or 80 at 5 GHz (80 asks for a radio of 802.11ac)"
            ));
        }
    }
    match wifi.channel {
        1..=LAST_OF_2_4_GHZ | 36 | 40 | 44 | 48 | 149 | 153 | 157 | 161 => Ok(()),
        other => Err(format!(
            "wifi.channel: {other}; use 1 to 13, 36 to 48 or 149 to 161 (the others ask for radar detection: set hostapd up by hand)"
        )),
    }
}

fn check_dock(dock: &Dock) -> Result<(), String> {
    word("dock.bay", &dock.bay, 32)?;
    match (&dock.interface, &dock.path) {
        (Some(name), None) => link_name("dock.interface", name, ""),
        (None, Some(_)) if dock.guarded => Err("dock: only an Ethernet port is guarded".into()),
        (None, Some(path)) => word("dock.path", path, 256),
        _ => Err(format!("dock {}: give either interface or path", dock.bay)),
    }
}

fn check_port(port: &Port) -> Result<(), String> {
    link_name("port.name", &port.name, "")?;
    let name = port.name.as_str();
    let kernels = ["lo", "eth", "wlan", "usb", "all", "default"];
    let number = name.chars().all(|c| c.is_ascii_digit());
    if number || kernels.iter().any(|k| name.starts_with(k)) {
        return Err(format!(
            "port.name: `{name}` is a name that the kernel gives, or none: use another, such as wan0 or dock1"
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let (path, most) = (&port.path, 128);
    match !path.is_empty() && path.len() <= most && path.chars().all(plain) {
        true => Ok(()),
        false => Err(format!(
            "port.path: `{}`: write it as `udevadm info /sys/class/net/NAME` says ID_PATH, such as pci-0000:02:00.0",
            path.escape_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const GOOD: &str = r#"
station = "seoul-017"
number = 1
[[archive]]
site = "site-a"
addresses = ["192.0.2.10:47801"]
[uplink]
address = "192.0.2.5/24"
gateway = "192.0.2.1"
[wifi]
ssid = "BWC STATION"
country = "KR"
[[dock]]
interface = "dock1"
bay = "A1"
guarded = true
[[dock]]
path = "*/usb1/1-1.2/*"
bay = "A2"
[[port]]
name = "wan0"
path = "pci-0000:01:00.0"
[[port]]
name = "dock1"
path = "pci-0000:02:00.0"
"#;

    fn parse(text: &str) -> Result<Plan, ConfigError> {
        Plan::parse(&Source::new("plan.toml", text.to_owned()))
    }

    #[test]
    fn a_plan_is_read_with_its_defaults() {
        let plan = parse(GOOD).unwrap();
        assert_eq!(
            plan.identity().unwrap().to_string(),
            "urn:bwc:repeater:seoul-017:1"
        );
        let wifi = plan.wifi.unwrap();
        assert_eq!((wifi.interface.as_str(), wifi.channel), ("wlan0", 36));
        assert_eq!(wifi.width_mhz(), 80);
        let narrow = "country = \"KR\"\nchannel = 6";
        let narrow = parse(&GOOD.replacen("country = \"KR\"", narrow, 1)).unwrap();
        assert_eq!(narrow.wifi.unwrap().width_mhz(), 20);
        assert_eq!(plan.uplink.interfaces, ["wan*", "wwan*"]);
    }

    #[test]
    fn what_would_be_more_than_one_value_elsewhere_is_refused_and_named() {
        let cases = [
            ("\"seoul-017\"", "\"seoul 017\"", "station"),
            ("\"site-a\"", "\"site a\"", "archive.site"),
            ("[\"192.0.2.10:47801\"]", "[]", "archive.addresses"),
            ("\"BWC STATION\"", "\"BWC\\nwpa=0\"", "wifi.ssid"),
            ("\"BWC STATION\"", "\"BWC \"", "wifi.ssid"),
            (
                "\"BWC STATION\"",
                "\"0123456789 0123456789 0123456789x\"",
                "wifi.ssid",
            ),
            ("\"KR\"", "\"kr\"", "wifi.country"),
            (
                "country = \"KR\"",
                "country = \"KR\"\nchannel = 52",
                "wifi.channel",
            ),
            (
                "country = \"KR\"",
                "country = \"KR\"\nwidth_mhz = 60",
                "wifi.width_mhz",
            ),
            (
                "country = \"KR\"",
                "country = \"KR\"\nchannel = 6\nwidth_mhz = 40",
                "wifi.width_mhz",
            ),
            (
                "country = \"KR\"",
                "country = \"KR\"\ninterface = \"../../x\"",
                "wifi.interface",
            ),
            ("\"dock1\"", "\"dock1 x\"", "dock.interface"),
            ("interface = \"dock1\"", "path = \"x\"", "guarded"),
            ("bay = \"A1\"", "bay = \"A\\\"1\"", "dock.bay"),
            ("\"wan0\"", "\"wan 0\"", "port.name"),
            ("\"wan0\"", "\"eth0\"", "port.name"),
            ("\"wan0\"", "\"7\"", "port.name"),
            (":01:", ":*:", "port.path"),
            (":02:", ":\\n:", "port.path"),
            (":02:", ":01:", "twice"),
            ("\"wan0\"", "\"dock1\"", "dock1"),
            ("/24", "", "uplink.address"),
            ("/24", "/33", "uplink.address"),
            ("address = \"192.0.2.5/24\"", "", "uplink"),
            ("number = 1", "number = 1\npassword = \"x\"", "password"),
        ];
        for (from, to, names) in cases {
            let e = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(e.to_string().contains(names), "{names}: {e}");
        }
    }
}
