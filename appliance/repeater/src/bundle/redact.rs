//! What leaves a station with a support bundle, and what does not. Pure.
//!
//! A configuration passes by a list of what may be told: whatever is not on it keeps its name and loses its value, so that
//! a key that comes with a later release is withheld until somebody decides. Comments are never told. Everything that goes
//! into a bundle passes [`text`] as well, which takes out private keys and what looks like a password, whoever wrote it.

use toml::{Table, Value};

/// In place of what is not told.
pub(super) const WITHHELD: &str = "(withheld)";

/// Keys of `repeater.toml` that may be told. A table's place in a list does not count.
const CONFIG: [&str; 41] = [
    "identity.chain",
    "identity.key",
    "identity.trust",
    "identity.crl",
    "identity.key_list",
    "spool.dir",
    "spool.suspect_dir",
    "spool.capacity_bytes",
    "spool.high_percent",
    "spool.low_percent",
    "spool.urgent_percent",
    "archive.site",
    "archive.addresses",
    "discover.static",
    "discover.mdns",
    "discover.interfaces",
    "discover.wan",
    "discover.signal_enter_dbm",
    "discover.signal_leave_dbm",
    "discover.dock.interface",
    "discover.dock.path",
    "discover.dock.bay",
    "discover.hostapd.socket",
    "discover.hostapd.kind",
    "pull.segments_in_flight",
    "pull.sessions",
    "pull.in_flight",
    "pull.nearby_in_flight",
    "pull.camera_bytes_per_second",
    "pull.datagram_bytes",
    "forward.segments_in_flight",
    "forward.datagram_bytes",
    "listen.http",
    "time.chrony",
    "time.bound_ms",
    "uplink.interfaces",
    "uplink.address",
    "uplink.gateway",
    "wifi.ssid",
    "wifi.channel",
    "wifi.country",
];

/// Keys of hostapd's configuration that may be told.
const HOSTAPD: [&str; 37] = [
    "ca_cert",
    "server_cert",
    "eap_user_file",
    "disassoc_low_ack",
    "ctrl_interface_group",
    "interface",
    "bridge",
    "driver",
    "country_code",
    "ieee80211d",
    "ieee80211h",
    "ssid",
    "ssid2",
    "utf8_ssid",
    "hw_mode",
    "channel",
    "ieee80211n",
    "ieee80211ac",
    "ieee80211ax",
    "vht_oper_chwidth",
    "vht_oper_centr_freq_seg0_idx",
    "ht_capab",
    "vht_capab",
    "wmm_enabled",
    "wpa",
    "wpa_key_mgmt",
    "rsn_pairwise",
    "group_mgmt_cipher",
    "ieee80211w",
    "ieee8021x",
    "eapol_version",
    "eap_server",
    "tls_flags",
    "ap_isolate",
    "ap_max_inactivity",
    "max_num_sta",
    "ctrl_interface",
];

/// Words behind which, where `=` or `:` follows, something stands that nobody is told.
const SECRETS: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "psk",
    "secret",
    "token",
    "private_key",
    "authorization",
    "credential",
];

/// A configuration in TOML without comments and without what is not on the list.
pub(super) fn config(toml: &str) -> String {
    match toml.parse::<Table>() {
        Ok(mut table) => {
            withhold(&mut table, "");
            toml::to_string(&table).unwrap_or_else(|_| WITHHELD.into())
        }
        // The message would quote the file.
        Err(_) => format!("{WITHHELD}: {} bytes that are no TOML", toml.len()),
    }
}

fn withhold(table: &mut Table, above: &str) {
    for (key, value) in table.iter_mut() {
        let path = match above {
            "" => key.clone(),
            _ => format!("{above}.{key}"),
        };
        match value {
            Value::Table(inner) => withhold(inner, &path),
            Value::Array(all) if all.iter().any(Value::is_table) => {
                for one in all {
                    match one {
                        Value::Table(inner) => withhold(inner, &path),
                        other => *other = WITHHELD.into(),
                    }
                }
            }
            other if !CONFIG.contains(&path.as_str()) => *other = WITHHELD.into(),
            _ => {}
        }
    }
}

/// hostapd's configuration, likewise.
pub(super) fn hostapd(text: &str) -> String {
    let told = |line: &str| match line.split_once('=') {
        Some((key, _)) if HOSTAPD.contains(&key.trim()) => format!("{line}\n"),
        Some((key, _)) => format!("{}={WITHHELD}\n", key.trim()),
        None => format!("{WITHHELD}\n"),
    };
    let lines = text.lines().map(str::trim);
    lines
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(told)
        .collect()
}

/// Any text, without private keys and passwords.
pub(super) fn text(text: &str) -> String {
    let (mut out, mut in_key) = (String::with_capacity(text.len()), false);
    for line in text.lines() {
        if in_key {
            in_key = !line.contains("-----END");
            continue;
        }
        if let Some((before, after)) = line.split_once("-----BEGIN")
            && after.contains("PRIVATE KEY")
        {
            in_key = !after.contains("-----END");
            out += &format!("{before}{WITHHELD}: a private key\n");
            continue;
        }
        out += told(line).as_deref().unwrap_or(line);
        out.push('\n');
    }
    out
}

/// The line up to a secret; none where it has none.
fn told(line: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    let at = SECRETS.iter().filter_map(|word| {
        lower.match_indices(word).find_map(|(at, _)| {
            let after = lower.get(at + word.len()..)?;
            let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            let rest = after
                .trim_start_matches(name)
                .trim_start_matches(['"', '\'']);
            let rest = rest.trim_start();
            rest.starts_with(['=', ':'])
                .then_some(lower.len() - rest.len() + 1)
        })
    });
    let at = at.min()?;
    Some(format!("{}{WITHHELD}", line.get(..at)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_tells_what_is_on_the_list_and_no_more() {
        let said = config(
            "# comment hunter2\n[identity]\nkey = \"/etc/key.pem\" # hunter2\npin = \"hunter2\"\n\
             [[archive]]\nsite = \"site-a\"\naddresses = [\"192.0.2.1:1\"]\nlogin = [\"hunter2\"]\n\
             [x]\ny = { z = \"hunter2\" }\nw = [[{ v = \"hunter2\" }]]\n",
        );
        assert!(!said.contains("hunter2"), "{said}");
        for told in ["/etc/key.pem", "site-a", "192.0.2.1:1", "pin", "login"] {
            assert!(said.contains(told), "{told}: {said}");
        }
        assert!(!config("password = hunter2").contains("hunter2"));
    }

    #[test]
    fn hostapd_tells_what_is_on_the_list_and_no_more() {
        let said = hostapd(
            "# hunter2\nssid=BWC\nwpa_passphrase=hunter2\nhunter2\n private_key_passwd = hunter2\n",
        );
        assert_eq!(
            said,
            "ssid=BWC\nwpa_passphrase=(withheld)\n(withheld)\nprivate_key_passwd=(withheld)\n"
        );
    }

    #[test]
    fn private_keys_and_passwords_are_taken_out_of_any_text() {
        let said = text(
            "a -----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\nb\n\
             {\"Password\": \"hunter2\"}\nwpa_psk=hunter2\nsecret hunter: 2 is told\ntokens ready\n\
             x -----BEGIN PRIVATE KEY-----hunter2-----END PRIVATE KEY----- y\nlast",
        );
        assert!(!said.contains("hunter2"), "{said}");
        for told in ["\nb\n", "tokens ready\n", "\nlast\n"] {
            assert!(said.contains(told), "{told}: {said}");
        }
        let cut = text("k\n-----BEGIN PRIVATE KEY-----\nhunter2\n");
        assert!(!cut.contains("hunter2"));
    }
}
