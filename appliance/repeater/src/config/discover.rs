//! The keys of `[discover]`: where cameras are looked for.

use std::net::SocketAddr;
use std::path::Path;

use link::config::{ConfigError, Source};
use serde::Deserialize;
use toml::Spanned;

use super::address;
use crate::discover::Bay;
use crate::discover::settings::{By, Dock, Hostapd, Kind, Settings, Signal};

/// The keys, for the mend of an unknown one.
pub(super) const KEYS: &str = "[discover] static, static_medium, mdns, interfaces, wan, signal_enter_dbm, \
    signal_leave_dbm; [[discover.dock]] interface, path, bay; [[discover.hostapd]] socket, kind";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    #[serde(rename = "static")]
    fixed: Vec<Spanned<String>>,
    static_medium: Option<Spanned<String>>,
    mdns: bool,
    interfaces: Vec<Spanned<String>>,
    wan: Vec<Spanned<String>>,
    signal_enter_dbm: Option<Spanned<i64>>,
    signal_leave_dbm: Option<Spanned<i64>>,
    dock: Vec<Spanned<RawDock>>,
    hostapd: Vec<RawHostapd>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDock {
    interface: Option<Spanned<String>>,
    path: Option<Spanned<String>>,
    bay: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHostapd {
    socket: std::path::PathBuf,
    kind: Spanned<String>,
}

pub(super) fn settings(
    source: &Source,
    raw: &Raw,
    directory: &Path,
) -> Result<Settings, ConfigError> {
    let fixed: Vec<SocketAddr> = (raw.fixed.iter())
        .map(|a| address(source, a, "discover.static"))
        .collect::<Result<_, _>>()?;
    let fixed_docked = match &raw.static_medium {
        None => true,
        Some(given) => source.value(given, "discover.static_medium", |text| match text {
            "docked" => Ok(true),
            "nearby" => Ok(false),
            _ => Err("write \"docked\" or \"nearby\"".to_owned()),
        })?,
    };
    Ok(Settings {
        mdns: raw.mdns,
        fixed,
        fixed_docked,
        docks: (raw.dock.iter())
            .map(|d| dock(source, d))
            .collect::<Result<_, _>>()?,
        hostapds: (raw.hostapd.iter())
            .map(|h| hostapd(source, h, directory))
            .collect::<Result<_, _>>()?,
        interfaces: patterns(source, &raw.interfaces, "discover.interfaces")?,
        wan: patterns(source, &raw.wan, "discover.wan")?,
        signal: signal(source, raw)?,
    })
}

fn dock(source: &Source, given: &Spanned<RawDock>) -> Result<Dock, ConfigError> {
    let raw = given.get_ref();
    let by = match (&raw.interface, &raw.path) {
        (Some(name), None) => By::Name(pattern(source, name, "discover.dock.interface")?),
        (None, Some(path)) => By::Path(pattern(source, path, "discover.dock.path")?),
        _ => {
            return Err(source.invalid(
                given.span(),
                "discover.dock: known by its interface or by its path, one of the two",
                "write interface = \"eth1\", or path = \"*/usb1/1-1.2/*\" as `readlink /sys/class/net/NAME` shows it",
            ));
        }
    };
    let bay = raw.bay.as_ref().map(|bay| {
        source.value(bay, "discover.dock.bay", |t| {
            t.parse::<Bay>().map_err(|e| e.to_string())
        })
    });
    Ok(Dock {
        by,
        bay: bay.transpose()?,
    })
}

fn hostapd(source: &Source, raw: &RawHostapd, directory: &Path) -> Result<Hostapd, ConfigError> {
    let kind = source.value(&raw.kind, "discover.hostapd.kind", |text| match text {
        "wireless" => Ok(Kind::Wireless),
        "wired" => Ok(Kind::Wired),
        _ => Err("write \"wireless\", or \"wired\" for dock ports under 802.1X".to_owned()),
    })?;
    Ok(Hostapd {
        socket: directory.join(&raw.socket),
        kind,
    })
}

fn patterns(
    source: &Source,
    given: &[Spanned<String>],
    key: &str,
) -> Result<Vec<String>, ConfigError> {
    given.iter().map(|p| pattern(source, p, key)).collect()
}

fn pattern(source: &Source, given: &Spanned<String>, key: &str) -> Result<String, ConfigError> {
    source.value(given, key, |text| {
        let shown = text.bytes().all(|b| b.is_ascii_graphic());
        if shown && (1..=256).contains(&text.len()) {
            Ok(text.to_owned())
        } else {
            Err("write 1 to 256 visible characters; * stands for any".to_owned())
        }
    })
}

fn signal(source: &Source, raw: &Raw) -> Result<Signal, ConfigError> {
    let fallback = Signal::default();
    let dbm = |given: &Option<Spanned<i64>>, key: &str, default: i8| match given {
        None => Ok(default),
        Some(given) => match i8::try_from(*given.get_ref()) {
            Ok(dbm) if (-100..=-20).contains(&dbm) => Ok(dbm),
            _ => Err(source.invalid(
                given.span(),
                &format!("{key}: {} is out of range", given.get_ref()),
                "use -100 to -20 (dBm)",
            )),
        },
    };
    let enter = dbm(
        &raw.signal_enter_dbm,
        "discover.signal_enter_dbm",
        fallback.enter,
    )?;
    let leave = dbm(
        &raw.signal_leave_dbm,
        "discover.signal_leave_dbm",
        fallback.leave.min(enter.saturating_sub(1)),
    )?;
    if leave < enter {
        return Ok(Signal { enter, leave });
    }
    let at = (raw.signal_leave_dbm.as_ref()).map_or(0..0, Spanned::span);
    let what = format!("discover.signal_leave_dbm: {leave} is not below signal_enter_dbm, {enter}");
    Err(source.invalid(
        at,
        &what,
        "a camera at the edge would come and go: -67 and -75 are usual",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::discover::Medium;

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        let source = Source::new("repeater.toml", text.to_owned());
        settings(&source, &source.parse(KEYS)?, Path::new("/etc/bwc"))
    }

    #[test]
    fn every_key_is_read() {
        let s = parse(
            r#"
static = ["192.0.2.7:47800"]
static_medium = "nearby"
mdns = true
interfaces = ["sta*"]
wan = ["wwan0"]
signal_enter_dbm = -60
[[dock]]
interface = "eth1"
bay = "A1"
[[dock]]
path = "*/usb1/1-1.2/*"
[[hostapd]]
socket = "/run/hostapd/wlan0"
kind = "wireless"
"#,
        )
        .unwrap();
        assert!(s.mdns && !s.fixed_docked && s.fixed.len() == 1);
        assert_eq!((s.signal.enter, s.signal.leave), (-60, -75));
        let bay = Some("A1".parse().unwrap());
        assert_eq!(s.medium("eth1", ""), Medium::Dock { bay });
        assert_eq!(s.medium("wlan0", ""), Medium::Wireless);
        assert!(s.may_use("sta1", "", false) && !s.may_use("lan0", "", false));
        assert!(parse("").unwrap().fixed_docked, "as it was before");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_mend() {
        for (text, names) in [
            ("colour = 1", "colour"),
            ("static = [\"nfs1\"]", "discover.static"),
            ("static_medium = \"far\"", "discover.static_medium"),
            ("wan = [\"a b\"]", "discover.wan"),
            ("signal_enter_dbm = 5", "discover.signal_enter_dbm"),
            (
                "signal_enter_dbm = -80\nsignal_leave_dbm = -70",
                "discover.signal_leave_dbm",
            ),
            ("[[dock]]\nbay = \"A1\"", "discover.dock"),
            ("[[dock]]\ninterface = \"a\"\npath = \"b\"", "discover.dock"),
            (
                "[[dock]]\ninterface = \"a\"\nbay = \"a bay\"",
                "discover.dock.bay",
            ),
            (
                "[[hostapd]]\nsocket = \"/run/h\"\nkind = \"x\"",
                "discover.hostapd.kind",
            ),
        ] {
            let Err(ConfigError::Invalid { what, mend, .. }) = parse(text) else {
                panic!("{text}")
            };
            assert!(what.contains(names) && !mend.is_empty(), "{what}");
        }
    }
}
