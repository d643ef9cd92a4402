//! A real file system on a block device whose every write is recorded.
//!
//! `qemu-storage-daemon` keeps the disk and its record (`blklogwrites`) and exports it as a file through FUSE; a loop
//! device makes it a block device again, buffered, so that the kernel's FLUSH arrives as one. Root, FUSE and loop
//! devices are needed; [`missing`] says which of them is not here.
//!
//! The file system is smaller than the disk. In the room behind it the driver writes a beacon after each thing that it
//! says to the world: what was said is thereby ordered among the writes, without a FLUSH that the program did not ask for.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::blocks::{BlockLog, SECTOR};
use crate::wait::eventually;

/// Room behind the file system.
const TAIL: u64 = 1 << 20;
const BEACON: [u8; 8] = *b"beacon\0\0";

/// A file system under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4 with its defaults.
    Ext4,
    /// XFS with its defaults.
    Xfs,
}

impl FileSystem {
    /// Both.
    pub const ALL: [FileSystem; 2] = [FileSystem::Ext4, FileSystem::Xfs];

    /// Its name for `mount`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }
    /// Sectors that are written wholly or not at all; see [`super::image`].
    #[must_use]
    pub fn piece(self) -> usize {
        match self {
            FileSystem::Ext4 => 1,
            FileSystem::Xfs => 4096 / SECTOR,
        }
    }
    /// How a copy is mounted beside others of the same disk.
    fn image_options(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "loop",
            FileSystem::Xfs => "loop,nouuid",
        }
    }
    /// The disk, with the room behind the file system: the smallest that its mkfs makes.
    #[must_use]
    pub fn disk_bytes(self) -> u64 {
        match self {
            FileSystem::Ext4 => (96 << 20) + TAIL,
            FileSystem::Xfs => (300 << 20) + TAIL,
        }
    }
    fn make(self, device: &str) {
        let bytes = self.disk_bytes() - TAIL;
        let (blocks, size) = ((bytes / 4096).to_string(), format!("size={bytes}"));
        match self {
            FileSystem::Ext4 => {
                let options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
                let args = ["-q", "-F", "-b", "4096", "-E", options, device, &blocks];
                done("mkfs.ext4", &args);
            }
            FileSystem::Xfs => done("mkfs.xfs", &["-q", "-f", "-K", "-d", &size, device]),
        }
    }
}

/// What is not here and without which no disk can be recorded; none where all is.
#[must_use]
pub fn missing(fs: FileSystem) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("only root may mount: run it as root".into());
    }
    let mkfs = format!("mkfs.{}", fs.name());
    for (program, package) in [
        ("qemu-storage-daemon", "qemu-utils"),
        ("losetup", "mount"),
        (mkfs.as_str(), "e2fsprogs xfsprogs"),
    ] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .stdout(Stdio::null())
            .status();
        if !found.is_ok_and(|s| s.success()) {
            return Some(format!("{program} is not installed: apt install {package}"));
        }
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            return Some(format!("{device} is not here"));
        }
    }
    None
}

/// The disk while it is recorded.
#[derive(Debug)]
pub struct Disk {
    fs: FileSystem,
    dir: PathBuf,
    daemon: Child,
    device: Option<String>,
    mounted: bool,
}

impl Disk {
    /// Makes the disk and its file system in `dir`, and mounts it.
    ///
    /// # Panics
    /// Where any of it fails.
    #[must_use]
    pub fn new(dir: &Path, fs: FileSystem) -> Disk {
        let path = |name: &str| dir.join(name);
        File::create(path("disk"))
            .unwrap()
            .set_len(fs.disk_bytes())
            .unwrap();
        File::create(path("record"))
            .unwrap()
            .set_len(4 << 30)
            .unwrap();
        File::create(path("export")).unwrap();
        std::fs::create_dir(path("mount")).unwrap();
        let node = |name: &str, file: &str| {
            format!(
                "driver=file,node-name={name},filename={}",
                path(file).display()
            )
        };
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node("disk", "disk")])
            .args(["--blockdev", &node("record", "record")])
            .arg("--blockdev")
            .arg("driver=blklogwrites,node-name=top,file=disk,log=record,log-sector-size=512")
            .arg("--export")
            .arg(format!(
                "type=fuse,id=export,node-name=top,mountpoint={},writable=on",
                path("export").display()
            ))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut disk = Disk {
            fs,
            dir: dir.to_owned(),
            daemon,
            device: None,
            mounted: false,
        };
        eventually("the disk is exported", Duration::from_secs(20), || {
            let length = std::fs::metadata(path("export")).ok()?.len();
            (length == fs.disk_bytes()).then_some(())
        });
        let device = said(
            "losetup",
            &["-f", "--show", path("export").to_str().unwrap()],
        );
        fs.make(&device);
        disk.device = Some(device.clone());
        done(
            "mount",
            &["-t", fs.name(), &device, path("mount").to_str().unwrap()],
        );
        disk.mounted = true;
        disk
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> PathBuf {
        self.dir.join("mount")
    }
    /// Where beacons are set: file and offset.
    #[must_use]
    pub fn beacon(&self) -> (PathBuf, u64) {
        (self.dir.join("export"), self.fs.disk_bytes() - TAIL)
    }

    /// Ends the recording and gives the record.
    ///
    /// # Panics
    /// Where the disk cannot be unmounted.
    #[must_use]
    pub fn record(mut self) -> BlockLog {
        self.close();
        BlockLog::read(&self.dir.join("record"))
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.mounted) {
            let mount = self.mount();
            eventually("the disk is unmounted", Duration::from_secs(20), || {
                runs("umount", &[mount.to_str().unwrap()]).then_some(())
            });
        }
        if let Some(device) = self.device.take() {
            done("losetup", &["-d", &device]);
        }
        if self.daemon.try_wait().is_ok_and(|ended| ended.is_none()) {
            let pid = Pid::from_raw(i32::try_from(self.daemon.id()).unwrap());
            kill(pid, Signal::SIGTERM).unwrap();
        }
        self.daemon.wait().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sets beacon `n`.
///
/// # Panics
/// Where the disk does not take it.
pub fn set_beacon(file: &Path, offset: u64, n: u64) {
    let mut sector = [0; SECTOR];
    sector[..8].copy_from_slice(&BEACON);
    sector[8..16].copy_from_slice(&n.to_le_bytes());
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(&sector, offset).unwrap();
}

/// The beacons of a record: after which entry each is set.
#[must_use]
pub fn beacons(log: &BlockLog, fs: FileSystem) -> Vec<(usize, u64)> {
    let at = (fs.disk_bytes() - TAIL) / SECTOR as u64;
    let beacon = |(i, entry): (usize, &super::blocks::Entry)| {
        let data = (entry.writes() && entry.sector == at).then(|| log.data(entry))?;
        data.starts_with(&BEACON)
            .then(|| (i, u64::from_le_bytes(data[8..16].try_into().unwrap())))
    };
    log.entries.iter().enumerate().filter_map(beacon).collect()
}

/// A copy of the disk, mounted.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts an image; the kernel mends its file system as after a power cut.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn new(image: &Path, at: &Path, fs: FileSystem) -> Result<Mounted, String> {
        // A loop device may be taken by another program between its choice and its use.
        let mut said = String::new();
        for _ in 0..3 {
            let out = Command::new("mount")
                .args(["-o", fs.image_options(), "-t", fs.name()])
                .args([image, at])
                .output()
                .unwrap();
            if out.status.success() {
                return Ok(Mounted(at.to_owned()));
            }
            said = String::from_utf8_lossy(&out.stderr).into_owned();
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(said)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let path = self.0.to_str().unwrap().to_owned();
        eventually("the image is unmounted", Duration::from_secs(20), || {
            runs("umount", &[&path]).then_some(())
        });
    }
}

fn runs(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).status().unwrap().success()
}

fn done(program: &str, args: &[&str]) {
    assert!(runs(program, args), "{program} {args:?} failed");
}

fn said(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
