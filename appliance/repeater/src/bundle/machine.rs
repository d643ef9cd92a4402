//! What a support bundle tells of the machine: its system, its links, how full its disks are, what the daemon's units
//! wrote in the journal. Looks only.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use link::clock::Clock;
use nix::ifaddrs::getifaddrs;

use crate::config::Config;
use crate::helper::{self, Limits};
use crate::limits;

/// Units whose lines are told. hostapd's are not: they have what cameras' users typed as their identity.
const UNITS: [&str; 5] = [
    "repeaterd",
    "repeater-gate",
    "repeater-data",
    "repeater-enrol",
    "repeater-enrol@*",
];

fn read(path: impl AsRef<Path>) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The release, the system under it, and since when it runs.
pub(super) fn system() -> String {
    let mut text = format!("repeaterd {}\n", env!("CARGO_PKG_VERSION"));
    let release = read("/etc/os-release").unwrap_or_default();
    for line in release.lines() {
        if ["PRETTY_NAME", "VERSION", "IMAGE_VERSION"]
            .contains(&line.split('=').next().unwrap_or(""))
        {
            let _ = writeln!(text, "{line}");
        }
    }
    for (name, path) in [
        ("kernel", "/proc/sys/kernel/osrelease"),
        ("uptime (s), idle (s)", "/proc/uptime"),
        ("load", "/proc/loadavg"),
    ] {
        let _ = writeln!(text, "{name}: {}", read(path).unwrap_or_default());
    }
    let memory = read("/proc/meminfo").unwrap_or_default();
    memory.lines().take(3).for_each(|l| {
        let _ = writeln!(text, "{l}");
    });
    text
}

/// Every link: what drives it, whether it is up, its addresses.
pub(super) fn interfaces() -> Result<String, String> {
    let folder = Path::new("/sys/class/net");
    let links = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut names: Vec<String> = links
        .filter_map(|l| l.ok()?.file_name().into_string().ok())
        .take(limits::LINKS)
        .collect();
    names.sort();
    let addresses: Vec<(String, String)> = getifaddrs()
        .map_err(|e| e.to_string())?
        .take(limits::KERNEL_ADDRESSES)
        .filter_map(|a| {
            let at = a.address?;
            let ip = at
                .as_sockaddr_in()
                .map(|i| i.ip().to_string())
                .or_else(|| at.as_sockaddr_in6().map(|i| i.ip().to_string()))?;
            Some((a.interface_name, ip))
        })
        .collect();
    let mut text = String::new();
    for name in names {
        let of = |what: &str| read(folder.join(&name).join(what)).unwrap_or_else(|| "-".into());
        let driver = std::fs::read_link(folder.join(&name).join("device/driver"));
        let driver = driver
            .ok()
            .and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned()));
        let own = addresses.iter().filter(|(n, _)| *n == name);
        let own: Vec<&str> = own.map(|(_, a)| a.as_str()).collect();
        let _ = writeln!(
            text,
            "{name}: {}, carrier {}, mtu {}, driver {}, addresses {}",
            of("operstate"),
            of("carrier"),
            of("mtu"),
            driver.as_deref().unwrap_or("-"),
            own.join(" ")
        );
    }
    Ok(text)
}

/// How full the disks are, and how much of what lies in the spool.
pub(super) fn disk(config: Option<&Config>) -> String {
    let mut text = String::new();
    let spool = config.map(|c| c.spool_dir.clone());
    for at in [Some("/".into()), Some("/var".into()), spool.clone()]
        .into_iter()
        .flatten()
    {
        let _ = match nix::sys::statvfs::statvfs(&at) {
            Ok(fs) => writeln!(
                text,
                "{}: {} of {} bytes free, {} of {} files",
                at.display(),
                fs.blocks_available() * fs.fragment_size(),
                fs.blocks() * fs.fragment_size(),
                fs.files_available(),
                fs.files()
            ),
            Err(e) => writeln!(text, "{}: {e}", at.display()),
        };
    }
    let Some(spool) = spool else { return text };
    for part in [
        "segments",
        "manifests",
        "inventories",
        "refused",
        "logbook",
        "ledger",
        "ledger.next",
    ] {
        let mut counted = Counted::default();
        counted.add(&spool.join(part));
        let more = if counted.files == limits::BUNDLE_FILES {
            " or more"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "spool/{part}: {} files{more}, {} bytes",
            counted.files, counted.bytes
        );
    }
    text
}

/// Files below a folder, up to a bound, and their bytes.
#[derive(Default)]
struct Counted {
    files: usize,
    bytes: u64,
}

impl Counted {
    fn add(&mut self, path: &Path) {
        let Ok(about) = path.symlink_metadata() else {
            return;
        };
        if !about.is_dir() {
            self.files += 1;
            self.bytes += about.len();
            return;
        }
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            if self.files >= limits::BUNDLE_FILES {
                return;
            }
            self.add(&entry.path());
        }
    }
}

/// The last lines of the daemon's units.
pub(super) fn journal(clock: &Clock) -> Result<String, String> {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=short-iso-precise"]);
    command.arg(format!("--lines={}", limits::BUNDLE_JOURNAL_LINES));
    for unit in UNITS {
        command.arg(format!("--unit={unit}"));
    }
    let limits = Limits {
        time: limits::BUNDLE_HELPER,
        bytes: limits::BUNDLE_PART_BYTES,
    };
    let said = helper::output(command, b"", limits, clock)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}
