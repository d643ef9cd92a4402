//! Network namespaces: each party of a station has one of its own, so that nothing but the cables between them joins it
//! to another. Needs root and Debian's iproute2.
//!
//! A namespace goes with its last handle, also when a test panics. Its name holds the harness's own process id, so
//! that what a killed harness has left behind is known for what it is, and removed by the next one. The machine's own
//! namespace is never touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;

use link::random::Random;
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// Where iproute2 keeps namespaces that have a name.
const NAMED: &str = "/run/netns";
/// What every name of ours begins with.
const OURS: &str = "bwc-";

/// A namespace; clones are handles of the same one.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    file: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Who holds it open keeps it; here nobody does: parties are dropped before their namespaces.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// What is missing here for namespaces, with what they are needed for.
#[must_use]
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    for (program, package) in [
        ("ip", "iproute2"),
        ("tc", "iproute2"),
        ("ethtool", "ethtool"),
        ("nft", "nftables"),
        ("hostapd", "hostapd"),
        ("hostapd_cli", "hostapd"),
        ("wpa_supplicant", "wpasupplicant"),
    ] {
        if Command::new(program).arg("--version").output().is_err() {
            return Some(format!("the program {program} (package {package})"));
        }
    }
    sweep();
    let probe = format!("{OURS}{}-probe", std::process::id());
    let made = Command::new("ip").args(["netns", "add", &probe]).output();
    let made = made.expect("ip was there");
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        return Some(format!("the right to make a network namespace: {said}"));
    }
    tool("ip", &["netns", "del", &probe]);
    None
}

/// Removes the namespaces of harnesses that live no more.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(NAMED) else {
        return;
    };
    for entry in entries.map_while(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(OURS).and_then(|n| n.split('-').next());
        let lives = owner.is_none_or(|pid| std::path::Path::new("/proc").join(pid).exists());
        if !lives {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

/// Runs a tool of the system to its end, and gives what it said.
///
/// # Panics
/// Where it fails, with what it said.
pub fn tool(program: &str, args: &[&str]) -> String {
    let done = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        done.status.success(),
        "{program} {}: {}{}",
        args.join(" "),
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}

impl Namespace {
    /// Makes one for `what`, with nothing in it but its loopback.
    #[must_use]
    pub fn new(what: &str) -> Namespace {
        let name = format!("{OURS}{}-{}-{what}", std::process::id(), tag());
        tool("ip", &["netns", "add", &name]);
        let file = File::open(format!("{NAMED}/{name}")).unwrap();
        let space = Namespace(Arc::new(Inner { name, file }));
        space.ip(&["link", "set", "lo", "up"]);
        space
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Runs `f` in a thread that is within: what it opens stays there.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let run = || {
            setns(&self.0.file, CloneFlags::CLONE_NEWNET).unwrap();
            f()
        };
        let done = std::thread::scope(|scope| scope.spawn(run).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// `ip` within.
    pub fn ip(&self, args: &[&str]) -> String {
        tool("ip", &[&["-n", self.name()], args].concat())
    }

    /// Any tool within.
    pub fn run(&self, args: &[&str]) -> String {
        tool("ip", &[&["netns", "exec", self.name()], args].concat())
    }

    /// Sets a number of the kernel's, by its path below `/proc/sys/net`.
    pub fn set(&self, path: &str, value: &str) {
        self.within(|| std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap());
    }

    /// Bytes that a device within has sent and received.
    ///
    /// # Panics
    /// Where there is no such device.
    #[must_use]
    pub fn bytes(&self, device: &str) -> (u64, u64) {
        let said = self.ip(&["-j", "-s", "link", "show", "dev", device]);
        let said: Value = serde_json::from_str(&said).unwrap();
        let of = |way: &str| said[0]["stats64"][way]["bytes"].as_u64().unwrap();
        (of("tx"), of("rx"))
    }

    /// Bytes that each device within has received, by name.
    ///
    /// # Panics
    /// Where `ip` says something else.
    #[must_use]
    pub fn all_received(&self) -> BTreeMap<String, u64> {
        let said: Value = serde_json::from_str(&self.ip(&["-j", "-s", "link"])).unwrap();
        let of = |link: &Value| {
            let bytes = link["stats64"]["rx"]["bytes"].as_u64()?;
            Some((link["ifname"].as_str()?.to_owned(), bytes))
        };
        said.as_array().unwrap().iter().filter_map(of).collect()
    }

    /// The hardware address of a device within.
    ///
    /// # Panics
    /// Where there is no such device.
    #[must_use]
    pub fn mac(&self, device: &str) -> String {
        let said = self.ip(&["-j", "link", "show", "dev", device]);
        let said: Value = serde_json::from_str(&said).unwrap();
        said[0]["address"].as_str().unwrap().to_owned()
    }

    /// A UDP port within on which nobody listens now.
    #[must_use]
    pub fn free_port(&self) -> u16 {
        let any = (Ipv4Addr::UNSPECIFIED, 0);
        self.within(|| UdpSocket::bind(any).unwrap().local_addr().unwrap().port())
    }
}

/// Four random hexadecimal digits, for names.
#[must_use]
pub fn tag() -> String {
    format!("{:04x}", Random::system().u64() & 0xffff)
}
