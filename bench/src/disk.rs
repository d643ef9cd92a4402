//! A file system of a bench's own in a loop-mounted image: it can be frozen, and its power can be cut. That takes root,
//! and programs that a machine may lack: whoever needs one says what is missing.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::Yard;

/// An ext4 file system in an image file. Dropped: unmounted.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes one with room for so many bytes and files, and mounts it.
    pub(crate) fn mount(yard: &Yard, bytes: u64, files: u64) -> Result<Disk> {
        let (image, mount) = (yard.path().join("disk.img"), yard.folder("disk")?);
        File::create(&image)?.set_len(bytes)?;
        let inodes = files.to_string();
        let make = ["-q", "-F", "-N", &inodes].map(OsStr::new);
        let make: Vec<&OsStr> = make.into_iter().chain([image.as_os_str()]).collect();
        command("mkfs.ext4", &make)?;
        let mut disk = Disk {
            image,
            mount,
            mounted: false,
        };
        disk.mount_again()?;
        Ok(disk)
    }
    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }
    /// Unmounts it and mounts it anew, as at a boot: nothing of it is in memory.
    pub(crate) fn remount(&mut self) -> Result<()> {
        command("umount", &[self.mount.as_os_str()])?;
        self.mounted = false;
        File::open(&self.image)?.sync_all()?;
        std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache")?;
        self.mount_again()
    }
    /// Unmounts it and removes the image.
    pub(crate) fn unmount(mut self) -> Result<()> {
        command("umount", &[self.mount.as_os_str()])?;
        self.mounted = false;
        Ok(std::fs::remove_file(&self.image)?)
    }

    fn mount_again(&mut self) -> Result<()> {
        let loopback = [OsStr::new("-o"), OsStr::new("loop")];
        let at = [self.image.as_os_str(), self.mount.as_os_str()];
        command("mount", &[loopback, at].concat())?;
        self.mounted = true;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // After an error: a frozen file system is thawed first, then left; neither can be helped further.
            let _ = command("fsfreeze", &["-u".as_ref(), self.mount.as_os_str()]);
            let _ = command("umount", &["-l".as_ref(), self.mount.as_os_str()]);
        }
    }
}

/// Cuts the power of the file system at `mount`: what was not synced by now is lost, and nothing can be written or read
/// any more until it is mounted anew.
pub(crate) fn cut_power(mount: &Path) -> Result<()> {
    let shutdown = ["-x", "-c", "shutdown"].map(OsStr::new);
    let args: Vec<&OsStr> = shutdown.into_iter().chain([mount.as_os_str()]).collect();
    command("xfs_io", &args)
}

/// Runs a program to its end.
pub(crate) fn command(program: &str, args: &[&OsStr]) -> Result<()> {
    let out = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{program}: {}", said.trim());
    Ok(())
}
