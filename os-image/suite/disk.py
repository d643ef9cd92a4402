"""Disks of the suite: the image's partitions, its boot partition's files, and what a power cut leaves of a disk.

A power cut is made of a record of every write and every FLUSH that the guest's disk was asked for (qemu's `blklogwrites`,
in the format of the kernel's dm-log-writes). What was written before the last FLUSH is on the disk; of what came after it,
a disk keeps what it likes, in any order, and of one write the beginning: so does `after_cut`.
"""

import random
import struct
import subprocess

from guest import Failed, in_tree

SECTOR = 512
MAGIC = 0x006A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4


def partitions(disk):
    """The partitions of a disk's GPT, in order: name, first byte, length in bytes."""
    found = []
    with open(disk, "rb") as file:
        file.seek(SECTOR)
        head = file.read(92)
        if head[:8] != b"EFI PART":
            raise Failed(f"{disk}: no GPT")
        first, count, size = struct.unpack_from("<QII", head, 72)
        for index in range(count):
            file.seek(first * SECTOR + index * size)
            entry = file.read(size)
            if entry[:16] != bytes(16):
                start, end = struct.unpack_from("<QQ", entry, 32)
                name = entry[56:128].decode("utf-16-le").rstrip("\0")
                found.append((name, start * SECTOR, (end - start + 1) * SECTOR))
    return found


def offset(disk, name):
    """The first byte of a partition."""
    for found, start, _ in partitions(disk):
        if found == name:
            return start
    raise Failed(f"{disk}: no partition {name}")


def label(trees, disk, number, name):
    """Gives a partition a name."""
    in_tree(trees["guest"], [f"+{disk.parent}=/mnt/disk"], "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel",
            "--part-label", f"/mnt/disk/{disk.name}", str(number), name)


def sparse_copy(source, to):
    """Copies a disk, holes as holes."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(source), str(to)], check=True)


def boot_files(trees, disk):
    """Names of the kernel images in the boot partition."""
    at = f"/mnt/disk/{disk.name}@@{offset(disk, 'esp')}"
    listed = in_tree(trees["guest"], [f"{disk.parent}=/mnt/disk"], "mdir", "-b", "-i", at, "::/EFI/Linux")
    return sorted(line.rsplit("/", 1)[1] for line in listed.split() if line.endswith(".efi"))


def put_boot_file(trees, disk, source, name):
    """Puts a kernel image into the boot partition."""
    at = f"/mnt/disk/{disk.name}@@{offset(disk, 'esp')}"
    binds = [f"+{disk.parent}=/mnt/disk", f"{source.parent}=/mnt/from"]
    in_tree(trees["guest"], binds, "mcopy", "-o", "-i", at, f"/mnt/from/{source.name}", f"::/EFI/Linux/{name}")


def drop_boot_file(trees, disk, name):
    """Deletes a kernel image from the boot partition."""
    at = f"/mnt/disk/{disk.name}@@{offset(disk, 'esp')}"
    in_tree(trees["guest"], [f"+{disk.parent}=/mnt/disk"], "mdel", "-i", at, f"::/EFI/Linux/{name}")


def with_kernel(trees, image, kernel, to, mib):
    """A disk of a size, from an image, that boots another kernel image on the same root."""
    sparse_copy(image / "disk.img", to)
    with open(to, "r+b") as file:
        file.truncate(mib << 20)
    for name in boot_files(trees, to):
        drop_boot_file(trees, to, name)
        put_boot_file(trees, to, image / f"{kernel}.efi", name)


class Record:
    """What a disk was asked for, in order."""

    def __init__(self, path):
        self.path, self.entries = path, []
        with open(path, "rb") as file:
            magic, _, _, sector = struct.unpack("<QQQI", file.read(28))
            if magic != MAGIC or sector != SECTOR:
                raise Failed(f"{path}: no record of a disk")
            at = SECTOR
            while True:
                file.seek(at)
                head = file.read(32)
                if len(head) < 32:
                    break
                first, count, flags, _ = struct.unpack("<QQQQ", head)
                if count == 0 and flags == 0:
                    break
                at += SECTOR
                self.entries.append((first, count, flags, at))
                if not flags & DISCARD:
                    at += count * SECTOR

    def flushes(self):
        """Where in the record the disk was told to make all durable."""
        return [index for index, (_, _, flags, _) in enumerate(self.entries) if flags & FLUSH]

    def after_cut(self, base, to, moment, seed):
        """The disk after a power cut right before entry `moment` is done, from the disk as it was before the record."""
        chance = random.Random(seed)
        sparse_copy(base, to)
        last = max((f for f in self.flushes() if f < moment), default=-1)
        loose = list(range(last + 1, moment))
        kept = set(chance.sample(loose, chance.randint(0, len(loose))))
        order = list(range(last + 1)) + chance.sample(sorted(kept), len(kept))
        def torn(index, count):
            loose = index > last and not self.entries[index][2] & FUA
            return chance.randint(0, count) if loose and chance.random() < 0.3 else count
        self._write(to, order, torn)
        return len(loose), len(kept)

    def torn_at(self, base, to, moment, sectors):
        """The disk with all that was written before entry `moment`, and of that entry so many sectors."""
        sparse_copy(base, to)
        self._write(to, range(moment + 1), lambda index, count: sectors if index == moment else count)

    def data(self, index, sectors):
        """The first sectors of what an entry wrote."""
        with open(self.path, "rb") as record:
            record.seek(self.entries[index][3])
            return record.read(sectors * SECTOR)

    def _write(self, to, order, sectors):
        """Writes entries to a disk in this order, of each as many sectors as are asked for."""
        with open(to, "r+b") as disk:
            for index in order:
                first, count, flags, _ = self.entries[index]
                if not flags & DISCARD and count:
                    disk.seek(first * SECTOR)
                    disk.write(self.data(index, sectors(index, count)))
