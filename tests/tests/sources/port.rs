//! Real hostapd (`driver=wired`) on a port and real wpa_supplicant at the far end of its cable, with the simplest
//! method that both have: what is tested is what hostapd says of who comes and goes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::place::Far;

/// A program that ends with the test.
pub(crate) struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(log: &Path, program: &str, args: &[&str]) -> Program {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    Program(child)
}

/// The control socket of a port's hostapd.
pub(crate) fn socket(folder: &Path, port: &str) -> PathBuf {
    folder.join("hostapd").join(port)
}

/// Starts hostapd on a port.
pub(crate) fn hostapd(folder: &Path, port: &str) -> Program {
    let (conf, users) = (folder.join("hostapd.conf"), folder.join("users"));
    std::fs::write(&users, "\"camera\" MD5 \"secret\"\n").unwrap();
    let text = format!(
        "interface={port}\ndriver=wired\nieee8021x=1\neap_server=1\neap_user_file={}\n\
         ctrl_interface={}\nuse_pae_group_addr=1\n",
        users.display(),
        folder.join("hostapd").display()
    );
    std::fs::write(&conf, text).unwrap();
    // One that was killed leaves its socket behind, and does not start again beside it.
    let _ = std::fs::remove_file(socket(folder, port));
    let conf = conf.to_str().unwrap();
    start(&folder.join("hostapd.log"), "hostapd", &["-d", conf])
}

/// Starts the camera's end.
pub(crate) fn supplicant(folder: &Path, far: &Far, port: &str) -> Program {
    let conf = folder.join("supplicant.conf");
    let text = "ap_scan=0\nnetwork={\nkey_mgmt=IEEE8021X\neap=MD5\nidentity=\"camera\"\n\
                password=\"secret\"\neapol_flags=0\n}\n";
    std::fs::write(&conf, text).unwrap();
    let conf = conf.to_str().unwrap();
    let args = ["-D", "wired", "-i", port, "-c", conf];
    let log = folder.join("supplicant.log");
    far.within(|| start(&log, "wpa_supplicant", &args))
}

/// How often hostapd has said something, over all its runs.
pub(crate) fn said(folder: &Path, what: &str) -> usize {
    let log = std::fs::read_to_string(folder.join("hostapd.log"));
    log.unwrap_or_default().matches(what).count()
}
