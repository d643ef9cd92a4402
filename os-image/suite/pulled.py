"""The plug is pulled in the middle of an update: the disks that this leaves.

The group `update` runs on a disk whose every write is recorded. From the record of its last, good update moments are
chosen, each right before a barrier that follows a write to the table of partitions, the boot partition or a slot; the disk
is made as a power cut there leaves it (disk.py). What it would boot is read from its bytes, as firmware, boot loader and
kernel read them.
"""

import binascii
import random
import re
import struct

from cut_cases import empty_record
from disk import SECTOR, Record, boot_files, partitions
from guest import Failed, in_tree

LOOKED_AT = 16


class Pulled:
    """The record of an update, and the disks that are made of it."""

    def __init__(self, scene, base):
        self.scene, self.base, self.now = scene, base, scene.work / "pulled-now.img"
        self.log = empty_record(scene)
        self.start, self.record, self.chosen, self.steps = None, None, [], 0

    def begin(self):
        """From here on the plug may be pulled. What is durable now is laid into a disk of its own."""
        record = Record(self.log)
        self.start = max(record.flushes()) + 1
        record.after_cut(self.base, self.scene.work / "pull-base.img", self.start, 0)
        self.base = self.scene.work / "pull-base.img"

    def choose(self, seed):
        """Moments at which it is pulled, in order."""
        self.record = Record(self.log)
        self.record.entries = self.record.entries[self.start:]
        data = next(start for name, start, _ in partitions(self.base) if name == "repeater-data") // SECTOR
        found, before = [], 0
        for moment in self.record.flushes():
            if any(count and first < data for first, count, _, _ in self.record.entries[before:moment]):
                found.append(moment)
            before = moment
        if len(found) < LOOKED_AT:
            raise Failed(f"{len(found)} barriers after writes of the update: too few")
        self.steps = len(found)
        self.chosen = sorted(random.Random(seed).sample(found, LOOKED_AT))
        return self.chosen

    def disk(self, moment):
        """Makes the disk that a cut at a moment leaves."""
        self.record.after_cut(self.base, self.now, moment, self.scene.seed + moment)
        return self.now

    def kernels(self):
        """The kernel images on its boot partition that the boot loader counts as such: an empty file is none."""
        return [file for file in boot_files(self.scene.trees, self.now) if self._kernel(file)[:2] == b"MZ"]

    def _kernel(self, file):
        """A file of the boot partition; nothing of one that cannot be read, being made or removed as the power went."""
        work, at = self.scene.work, f"/mnt/disk/{self.now.name}@@{table(self.now)['esp']}"
        try:
            in_tree(self.scene.trees["guest"], [f"{work}=/mnt/disk", f"+{work}=/mnt/out"], "mcopy", "-n", "-o", "-i", at,
                    f"::/EFI/Linux/{file}", "/mnt/out/kernel.efi")
        except Failed:
            return b""
        return (work / "kernel.efi").read_bytes()

    def is_whole(self, image, version, file):
        """Whether a kernel image is what was built, and its slot holds the root and the hash tree that go with it."""
        named = table(self.now)
        if self._kernel(file) != (image / "test.efi").read_bytes():
            return False
        for part, name in (("root.img", f"repeater_{version}"), ("root.verity", f"repeater_{version}_verity")):
            wanted = (image / part).read_bytes()
            if name not in named:
                return False
            with open(self.now, "rb") as data:
                data.seek(named[name])
                if data.read(len(wanted)) != wanted:
                    return False
        return True

    def mend(self):
        """Has the boot partition checked as the next start does; bytes that belonged to no file, of what was being written."""
        part = self.scene.work / "esp.img"
        start, size = next((start, size) for name, start, size in partitions(self.base) if name == "esp")
        with open(self.now, "r+b") as disk:
            disk.seek(start)
            part.write_bytes(disk.read(size))
            script = "fsck.fat -a /mnt/out/esp.img || test $? = 1"  # 1: there was something to mend
            told = in_tree(self.scene.trees["tools"], [f"+{self.scene.work}=/mnt/out"], "sh", "-c", script)
            disk.seek(start)
            disk.write(part.read_bytes())
        part.unlink()
        found = re.search(r"Reclaimed \d+ unused clusters? \((\d+) bytes\)", told)
        return int(found[1]) if found else 0


def table(disk):
    """The partitions by the table that a kernel takes: the first whose sums are right."""
    size = disk.stat().st_size
    with open(disk, "rb") as file:
        for at in (SECTOR, size - SECTOR):
            file.seek(at)
            head = bytearray(file.read(92))
            if head[:8] != b"EFI PART":
                continue
            sum_of_head, = struct.unpack_from("<I", head, 16)
            head[16:20] = bytes(4)
            first, count, each, sum_of_entries = struct.unpack_from("<QIII", head, 72)
            file.seek(first * SECTOR)
            entries = file.read(count * each)
            if binascii.crc32(head) != sum_of_head or binascii.crc32(entries) != sum_of_entries:
                continue
            found = {}
            for index in range(count):
                entry = entries[index * each:(index + 1) * each]
                if entry[:16] != bytes(16):
                    start, _ = struct.unpack_from("<QQ", entry, 32)
                    found[entry[56:128].decode("utf-16-le").rstrip("\0")] = start * SECTOR
            return found
    raise Failed("no table of partitions has right sums")


def choice(files):
    """The boot loader's: the newest that has tries left, or needs none."""
    def key(file):
        version, counted = re.fullmatch(r"repeater_([0-9.]+?)(?:\+(\d+)(?:-\d+)?)?\.efi", file).groups()
        return counted != "0", [int(n) for n in version.split(".")]
    return max((f for f in files if f.startswith("repeater_")), key=key)
