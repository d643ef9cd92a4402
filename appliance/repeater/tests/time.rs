//! Whether the clock is known to be right, as the real chronyd says it: one that follows a source over the network, whose
//! bound is the one that `chronyc` shows, and one that follows nobody.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use link::random::Random;
use link::tasks::current_thread;
use repeater::trusted_time::chrony::Tracking;
use repeater::trusted_time::{self, Settings};

/// One chronyd that leaves this machine's clock alone.
struct Chronyd(Child);

impl Chronyd {
    fn start(folder: &Path, name: &str, config: &str) -> Chronyd {
        let file = folder.join(name);
        let text = format!(
            "{config}\nbindcmdaddress /\npidfile {}.pid\n",
            file.display()
        );
        std::fs::write(&file, text).unwrap();
        let child = Command::new("chronyd")
            .args(["-x", "-d", "-U", "-u", "root", "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Chronyd(child)
    }
}

impl Drop for Chronyd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let any = (Ipv4Addr::LOCALHOST, 0);
    UdpSocket::bind(any).unwrap().local_addr().unwrap().port()
}

/// Asks until it is answered as it should be.
fn asked(port: u16, enough: impl Fn(Tracking) -> bool) -> Tracking {
    let settings = Settings {
        chrony: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        bound: Duration::from_millis(500),
    };
    let (asker, _) = trusted_time::new(settings, Random::system());
    for _ in 0..200 {
        let said = current_thread(answer(asker.ask())).unwrap();
        if let Some(said) = said.filter(|said| enough(*said)) {
            return said;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("chronyd does not say so within 20 s");
}

async fn answer(ask: impl Future<Output = std::io::Result<Tracking>>) -> Option<Tracking> {
    let said = tokio::time::timeout(Duration::from_secs(1), ask).await;
    said.ok().and_then(Result::ok)
}

/// The same bound, by the figures that `chronyc` prints.
fn by_chronyc(port: u16) -> f64 {
    let port = port.to_string();
    let said = Command::new("chronyc")
        .args(["-c", "-h", "127.0.0.1", "-p", &port, "tracking"])
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let field = |n: usize| -> f64 { said.trim().split(',').nth(n).unwrap().parse().unwrap() };
    // System time, root delay, root dispersion.
    field(4).abs() + field(10) / 2.0 + field(11)
}

#[test]
fn the_clock_is_right_within_what_chronyd_reckons_and_not_known_where_it_follows_nobody() {
    if Command::new("chronyd").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "this needs chronyd");
        eprintln!("SKIPPED: this needs chronyd (package chrony)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (ntp, commands, others) = (free_port(), free_port(), free_port());
    let source = format!("local stratum 8\nport {ntp}\nallow 127.0.0.1\ncmdport 0");
    let _source = Chronyd::start(folder.path(), "source", &source);
    let server = format!("server 127.0.0.1 port {ntp} iburst minpoll 0 maxpoll 0");
    let follows = format!("{server}\nport 0\ncmdport {commands}");
    let _follows = Chronyd::start(folder.path(), "follows", &follows);
    let follows = asked(
        commands,
        |said| matches!(said, Tracking::Within(e) if e > Duration::ZERO),
    );
    let Tracking::Within(error) = follows else {
        panic!("{follows:?}");
    };
    let (ours, theirs) = (error.as_secs_f64(), by_chronyc(commands));
    // They were asked one after the other, and the dispersion moves.
    assert!(
        ours < 10.0 * theirs + 1e-3 && theirs < 10.0 * ours + 1e-3,
        "{ours} s, chronyc: {theirs} s"
    );
    let alone = format!("port 0\ncmdport {others}");
    let _alone = Chronyd::start(folder.path(), "alone", &alone);
    asked(others, |said| said == Tracking::Nobody);
}
