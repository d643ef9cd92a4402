//! Where a box keeps who it is: files that are replaced as a whole and are durable when that is told, so that a setup which
//! is killed anywhere can be run again and goes on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use link::agency::request::OwnKey;
use link::clock::Clock;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::helper::{self, Limits};
use crate::limits;

/// The name of the key among the manager's credentials, and in the configuration.
const CREDENTIAL: &str = "key.pem";

/// How the names of files begin that call ports: before the image's own, which call the rest.
const PORT: &str = "05-repeater-port-";

/// How the private key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Encrypted for this machine by the service manager.
    Sealed,
    /// In a file of mode 0600, for machines without systemd.
    Plain,
}

/// What a setup did last, as a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Who the box is to be.
    pub(super) identity: String,
    /// When what is applied was made.
    pub(super) made_ms: u64,
    /// The digest of what is applied as a whole; none while it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) applied: Option<String>,
}

/// A box's folders.
#[derive(Clone, Debug)]
pub(super) struct Place {
    root: PathBuf,
}

impl Place {
    pub(super) fn new(root: &Path) -> Place {
        Place {
            root: root.to_owned(),
        }
    }

    pub(super) fn etc(&self) -> PathBuf {
        self.root.join("etc/repeater")
    }
    pub(super) fn own(&self, name: &str) -> PathBuf {
        self.etc().join(name)
    }
    pub(super) fn hostapd(&self, name: &str) -> PathBuf {
        self.root.join("etc/hostapd").join(format!("{name}.conf"))
    }
    pub(super) fn network(&self) -> PathBuf {
        self.links().join("15-repeater-uplink.network")
    }
    /// What calls a port of the board by a name. udev takes the first of all its files that fits.
    pub(super) fn port(&self, name: &str) -> PathBuf {
        self.links().join(format!("{PORT}{name}.link"))
    }
    /// Takes away the names of ports that are none of these; whether there were any.
    pub(super) fn keep_ports(&self, keep: &[PathBuf]) -> anyhow::Result<bool> {
        let (folder, mut any) = (self.links(), false);
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            other => other.with_context(|| format!("cannot read {}", folder.display()))?,
        };
        for entry in entries {
            let path = entry
                .with_context(|| format!("cannot read {}", folder.display()))?
                .path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PORT) && !keep.contains(&path) {
                remove(&path)?;
                any = true;
            }
        }
        Ok(any)
    }
    fn links(&self) -> PathBuf {
        self.root.join("etc/systemd/network")
    }
    fn sealed(&self) -> PathBuf {
        self.root.join("etc/credstore.encrypted/repeater-key.pem")
    }

    /// Nobody else sets this box up while it lives.
    pub(super) fn lock(&self) -> anyhow::Result<Flock<File>> {
        let etc = self.etc();
        std::fs::create_dir_all(&etc).with_context(|| format!("cannot make {}", etc.display()))?;
        let folder = File::open(&etc).with_context(|| format!("cannot open {}", etc.display()))?;
        Flock::lock(folder, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| anyhow::anyhow!("another setup works in {}: {e}", etc.display()))
    }

    pub(super) fn state(&self) -> anyhow::Result<Option<State>> {
        let path = self.own("setup.toml");
        let Some(bytes) = read(&path, limits::SETUP_BYTES)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        let state = toml::from_str(&text).with_context(|| {
            format!(
                "{}: damaged; remove it, and run the setup again",
                path.display()
            )
        })?;
        Ok(Some(state))
    }

    pub(super) fn set_state(&self, state: &State) -> anyhow::Result<()> {
        let text = toml::to_string(state)?;
        write(&self.own("setup.toml"), text.as_bytes(), 0o644)?;
        Ok(())
    }

    /// Takes the box's identity away, its certificate first: from there on it is not in service. What was forwarded and
    /// what waits stays where it is.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        for name in [
            "chain.pem",
            "setup.toml",
            "request.pem",
            "key.pem",
            "key-list.cose",
        ] {
            remove(&self.own(name))?;
        }
        remove(&self.sealed())?;
        for name in ["crl.pem", "trust.pem"] {
            remove(&self.own(name))?;
        }
        Ok(())
    }

    /// Sets a key aside that this machine does not open (`.before`), its certificate first.
    pub(super) fn set_key_aside(&self) -> anyhow::Result<()> {
        let [chain, request, plain] = ["chain.pem", "request.pem", CREDENTIAL].map(|n| self.own(n));
        for path in [chain, request, plain, self.sealed()] {
            let mut before = path.clone().into_os_string();
            before.push(".before");
            match std::fs::rename(&path, &before) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| format!("cannot set {} aside", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The box's own key: the one that is there, else a new one, which then is there.
    pub(super) fn own_key(&self, keep: Keep, clock: &Clock) -> anyhow::Result<OwnKey> {
        let path = match keep {
            Keep::Sealed => self.sealed(),
            Keep::Plain => self.own(CREDENTIAL),
        };
        let there = read(&path, limits::SETUP_BYTES)?;
        match (keep, there) {
            (Keep::Plain, Some(pem)) => Ok(OwnKey::from_pem(&pem)?),
            (Keep::Sealed, Some(_)) => {
                let opened = creds("decrypt", &path, Path::new("-"), b"", clock);
                let key = opened.and_then(|pem| OwnKey::from_pem(&pem).map_err(|e| e.to_string()));
                key.map_err(|e| {
                    anyhow::anyhow!(
                        "{}: this machine does not open it: {e}; it is of another one, or its TPM has changed: --new-key makes another",
                        path.display()
                    )
                })
            }
            (_, None) => {
                let key = OwnKey::generate()?;
                self.put_key(keep, &path, &key, clock)?;
                Ok(key)
            }
        }
    }

    fn put_key(&self, keep: Keep, path: &Path, key: &OwnKey, clock: &Clock) -> anyhow::Result<()> {
        let pem = key.pem();
        let bytes = match keep {
            Keep::Plain => pem.into_bytes(),
            Keep::Sealed => creds("encrypt", Path::new("-"), Path::new("-"), pem.as_bytes(), clock)
                .map_err(|e| anyhow::anyhow!("the private key is not sealed: {e}; a machine without systemd keeps it in a file with --plain-key"))?,
        };
        write(path, &bytes, 0o600)?;
        Ok(())
    }

    /// What the daemon's configuration says of the key.
    pub(super) fn key_in_config(keep: Keep) -> String {
        match keep {
            Keep::Sealed => format!("$CREDENTIALS_DIRECTORY/{CREDENTIAL}"),
            Keep::Plain => CREDENTIAL.to_owned(),
        }
    }
}

/// Has the service manager seal or open the key; it never lies on a disk in plain.
fn creds(
    verb: &str,
    from: &Path,
    to: &Path,
    given: &[u8],
    clock: &Clock,
) -> Result<Vec<u8>, String> {
    let mut command = Command::new("systemd-creds");
    command.arg(verb).arg(format!("--name={CREDENTIAL}"));
    command.arg(from).arg(to);
    let limits = Limits {
        time: limits::SEAL,
        bytes: limits::SETUP_BYTES,
    };
    helper::output(command, given, limits, clock)
}

/// A file of at most so many bytes; none where there is none.
pub(super) fn read(path: &Path, most: usize) -> anyhow::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut bytes = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        bytes.len() <= most,
        "{}: longer than {most} bytes: this is not such a file",
        path.display()
    );
    Ok(Some(bytes))
}

/// Writes or replaces a file as a whole; it is durable afterwards. Nothing is done where it has these bytes already; whether
/// anything was.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<bool> {
    let Some((folder, name)) = path.parent().zip(path.file_name()) else {
        bail!("{} is no file's name", path.display());
    };
    // A name alone is one in this folder.
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let new = folder.join(format!(".{}.new", name.to_string_lossy()));
    // What a setup left that was killed.
    remove(&new)?;
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(false);
    }
    let put = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    put().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
