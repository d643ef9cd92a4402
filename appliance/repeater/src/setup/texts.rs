//! What a station's plan becomes: `repeater.toml`, hostapd's configurations, the uplink's, the ports' names. Pure.
//!
//! hostapd's are the shipped templates with a few values changed, so that what they say and why is written once. The plan
//! was checked ([`link::enrolment::Plan::check`]): no value of it is more than a value.

use std::fmt::Write;

use link::enrolment::{Plan, Port, Wifi};

const STATION: &str = include_str!("../../../../systemd/hostapd/station.conf");
const DOCK: &str = include_str!("../../../../systemd/hostapd/dock.conf");

/// A string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| quoted(&i)).collect();
    format!("[{}]", items.join(", "))
}

/// `repeater.toml`.
pub(super) fn config(plan: &Plan, key: &str) -> String {
    let mut text = format!(
        "# Written by `repeaterd setup`. A newer enrolment file writes it anew and keeps this one as repeater.toml.before.\n\n\
         [identity]\nchain = \"chain.pem\"\nkey = {}\ntrust = \"trust.pem\"\ncrl = \"crl.pem\"\nkey_list = \"key-list.cose\"\n\n\
         [spool]\ndir = \"/var/lib/repeater/spool\"\nsuspect_dir = \"/run/repeater\"\n",
        quoted(key)
    );
    for archive in &plan.archive {
        let addresses = list(archive.addresses.iter().map(ToString::to_string));
        let _ = write!(
            text,
            "\n[[archive]]\nsite = {}\naddresses = {addresses}\n",
            quoted(&archive.site)
        );
    }
    let wan = list(plan.uplink.interfaces.iter().cloned());
    let _ = write!(text, "\n[discover]\nmdns = true\nwan = {wan}\n");
    for dock in &plan.dock {
        let bay = quoted(&dock.bay);
        let place = match (&dock.interface, &dock.path) {
            (Some(interface), _) => format!("interface = {}", quoted(interface)),
            (None, path) => format!("path = {}", quoted(path.as_deref().unwrap_or_default())),
        };
        let _ = write!(text, "\n[[discover.dock]]\n{place}\nbay = {bay}\n");
    }
    for (name, kind) in access_points(plan) {
        let socket = quoted(&format!("/run/hostapd/{name}"));
        let _ = write!(
            text,
            "\n[[discover.hostapd]]\nsocket = {socket}\nkind = \"{kind}\"\n"
        );
    }
    text + "\n[listen]\nhttp = \"127.0.0.1:9470\"\n"
}

/// Links that have a hostapd, and of which kind.
fn access_points(plan: &Plan) -> Vec<(&str, &'static str)> {
    let radio = plan.wifi.iter().map(|w| (w.interface.as_str(), "wireless"));
    let ports = plan.dock.iter().filter(|d| d.guarded);
    let ports = ports.filter_map(|d| Some((d.interface.as_deref()?, "wired")));
    radio.chain(ports).collect()
}

/// hostapd's configurations: a link's name, and the text.
pub(super) fn hostapd(plan: &Plan) -> Vec<(String, String)> {
    let of = |(name, kind): (&str, &'static str)| {
        let text = match (&plan.wifi, kind) {
            (Some(wifi), "wireless") => radio(wifi),
            _ => filled(DOCK, name, &[], &[]),
        };
        (name.to_owned(), text)
    };
    access_points(plan).into_iter().map(of).collect()
}

fn radio(wifi: &Wifi) -> String {
    let (ssid, country) = (wifi.ssid.as_str(), wifi.country.as_str());
    let channel = wifi.channel.to_string();
    let mut values = vec![
        ("ssid", ssid),
        ("country_code", country),
        ("channel", channel.as_str()),
    ];
    if wifi.is_at_2_4_ghz() {
        values.push(("hw_mode", "g"));
    }
    // The second half of a pair of channels lies below the first.
    let above = matches!(wifi.channel, 36 | 44 | 149 | 157);
    values.extend([
        ("ht_capab", if above { "[HT40+]" } else { "[HT40-]" }),
        (
            "vht_oper_centr_freq_seg0_idx",
            if wifi.channel <= 48 { "42" } else { "155" },
        ),
    ]);
    let wide = [
        "ieee80211ac",
        "vht_oper_chwidth",
        "vht_oper_centr_freq_seg0_idx",
        "ht_capab",
    ];
    let without = match wifi.width_mhz() {
        80 => &[],
        40 => &wide[..3],
        _ => &wide[..],
    };
    filled(STATION, &wifi.interface, &values, without)
}

/// A template with a link's name, some values changed and some lines left out.
fn filled(template: &str, interface: &str, values: &[(&str, &str)], without: &[&str]) -> String {
    let key = format!("/run/credentials/hostapd@{interface}.service/key.pem");
    let line = |line: &str| match line.split_once('=') {
        Some((name, _)) if without.contains(&name) => None,
        Some(("interface", _)) => Some(format!("interface={interface}\n")),
        Some(("private_key", _)) => Some(format!("private_key={key}\n")),
        Some((name, _)) => match values.iter().find(|(n, _)| *n == name) {
            Some((_, value)) => Some(format!("{name}={value}\n")),
            None => Some(format!("{line}\n")),
        },
        None => Some(format!("{line}\n")),
    };
    template.lines().filter_map(line).collect()
}

/// The uplink's, where it has an address of its own: for systemd-networkd, before the file that asks the network.
pub(super) fn uplink(plan: &Plan) -> Option<String> {
    let uplink = &plan.uplink;
    let address = uplink.address.as_ref()?;
    let mut text = format!(
        "# Written by `repeaterd setup`: the uplink has an address of its own.\n[Match]\nName={}\n\n[Network]\nAddress={address}\n",
        uplink.interfaces.join(" ")
    );
    if let Some(gateway) = uplink.gateway {
        let _ = writeln!(text, "Gateway={gateway}");
    }
    for dns in &uplink.dns {
        let _ = writeln!(text, "DNS={dns}");
    }
    Some(text + "LLMNR=no\n")
}

/// The ports' names: each with the text that has udev call it so when it appears.
pub(super) fn ports(plan: &Plan) -> Vec<(String, String)> {
    let text = |port: &Port| {
        let text = format!(
            "# Written by `repeaterd setup`: what the plan calls a port of the board.\n[Match]\nPath={}\n\n[Link]\nName={}\n",
            port.path, port.name
        );
        (port.name.clone(), text)
    };
    plan.port.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::config::Config;
    use link::config::Source;
    use std::path::Path;

    fn plan(channel: u16) -> Plan {
        let text = format!(
            "station = \"a\"\nnumber = 1\n[[archive]]\nsite = \"site-a\"\naddresses = [\"192.0.2.1:47801\", \"[2001:db8::1]:47801\"]\n\
             [uplink]\ninterfaces = [\"lan0\"]\naddress = \"192.0.2.5/24\"\ngateway = \"192.0.2.1\"\ndns = [\"192.0.2.53\"]\n\
             [wifi]\nssid = \"A & B\"\ncountry = \"DE\"\ninterface = \"wlan1\"\nchannel = {channel}\n\
             [[dock]]\ninterface = \"dock1\"\nbay = \"A1\"\nguarded = true\n[[dock]]\npath = \"*/usb1/*\"\nbay = \"A2\"\n"
        );
        Plan::parse(&Source::new("plan", text)).unwrap()
    }

    #[test]
    fn what_is_written_is_a_configuration_that_the_daemon_takes() {
        let text = config(&plan(36), "$CREDENTIALS_DIRECTORY/key.pem");
        let read = Config::parse(
            &Source::new("repeater.toml", text.clone()),
            Path::new("/etc/repeater"),
        );
        let read = read.unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(read.archives[0].addresses.len(), 2);
        assert_eq!(read.credentials.chain, Path::new("/etc/repeater/chain.pem"));
        let sockets: Vec<_> = read
            .discover
            .hostapds
            .iter()
            .map(|h| h.socket.clone())
            .collect();
        assert_eq!(
            sockets,
            [
                Path::new("/run/hostapd/wlan1"),
                Path::new("/run/hostapd/dock1")
            ]
        );
    }

    #[test]
    fn hostapd_has_the_shipped_template_with_the_stations_values() {
        let all = hostapd(&plan(40));
        let of = |name: &str| all.iter().find(|(n, _)| n == name).unwrap().1.clone();
        let radio = of("wlan1");
        for line in [
            "interface=wlan1",
            "ssid=A & B",
            "country_code=DE",
            "channel=40",
            "ht_capab=[HT40-]",
            "vht_oper_centr_freq_seg0_idx=42",
            "wpa_key_mgmt=WPA-EAP-SHA256",
            "private_key=/run/credentials/hostapd@wlan1.service/key.pem",
        ] {
            assert!(radio.lines().any(|l| l == line), "{line}: {radio}");
        }
        assert!(
            of("dock1").contains("driver=wired\n")
                && of("dock1").contains("hostapd@dock1.service/key.pem")
        );
        assert!(radio.lines().count() == STATION.lines().count());
        let narrow = &hostapd(&plan(6))[0].1;
        assert!(
            narrow.contains("hw_mode=g\n")
                && !narrow.contains("vht_")
                && !narrow.contains("ht_capab")
        );
        let mut older = plan(36);
        older.wifi.as_mut().unwrap().width_mhz = Some(40);
        let older = &hostapd(&older)[0].1;
        assert!(older.contains("ht_capab=[HT40+]\n") && older.contains("ieee80211n=1\n"));
        assert!(!older.contains("vht_") && !older.contains("ieee80211ac"));
        let high = &hostapd(&plan(149))[0].1;
        assert!(high.contains("vht_oper_centr_freq_seg0_idx=155\n") && high.contains("[HT40+]"));
    }

    #[test]
    fn an_uplink_with_an_address_gets_its_file_and_one_without_none() {
        let text = uplink(&plan(36)).unwrap();
        assert!(
            text.contains("Name=lan0\n")
                && text.contains("Address=192.0.2.5/24\nGateway=192.0.2.1\nDNS=192.0.2.53\n")
        );
        let mut asks = plan(36);
        asks.uplink = link::enrolment::Uplink::default();
        assert_eq!(uplink(&asks), None);
    }
}
