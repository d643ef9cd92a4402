"""The plug is pulled while the first boot makes the data partition: the next one makes it, whatever was there by then.

The first boot runs on a disk whose every write is recorded. Moments are chosen from the record, one in each part of the work:
before there is a header, while key and file system are made, right before the label says that all is there, and after that.
The disk is made as a power cut there leaves it (disk.py), and booted.
"""

import random

from boot_cases import no_unit_has_failed
from cut_cases import empty_record, recorded_drive
from disk import DISCARD, SECTOR, Record, partitions, sparse_copy
from guest import Failed

# Both headers of LUKS2, in sectors.
HEADERS = (32 << 10) // SECTOR
# What the partition says of itself.
LABEL = "cryptsetup luksDump /dev/disk/by-partlabel/repeater-data | sed -n 's/^Label:[[:space:]]*//p'"
PARTS = ["no_header", "being_made", "all_but_the_label", "all"]


def the_first_boot_is_recorded(scene):
    """From the factory's disk to a station's data partition."""
    scene.first_base = scene.work / "first-base.img"
    sparse_copy(scene.factory, scene.first_base)
    scene.first_log = empty_record(scene)
    guest = scene.boot(scene.first_base, "cut", drive=recorded_drive())
    guest.wait_agent()
    is_finished(guest)
    guest.run("sync")
    guest.cut()
    record = Record(scene.first_log)
    entries = record.entries
    start, size = next((at // SECTOR, length // SECTOR) for name, at, length in partitions(scene.work / "cut.img") if name == "repeater-data")
    data = [index for index, (at, count, flags, _) in enumerate(entries) if count and not flags & DISCARD and start <= at < start + size]
    headers = [index for index in data if entries[index][0] < start + HEADERS]
    scene.first_header = next(i for i in headers if entries[i][0] == start and record.data(i, 1).startswith(b"LUKS"))
    # The label is the last that is written to the headers: to one, and then to the other.
    last = headers[-1]
    before = max(index for index in headers if entries[index][0] == entries[last][0] and index < last)
    chance = random.Random(scene.seed)
    scene.first_moments = [chance.randint(data[0] + 1, headers[0] + 1), chance.randint(headers[0] + 1, before), before + 1, last + 1]
    return f"{len(data)} writes to it, {len(headers)} of them to its headers; cut before {scene.first_moments}"


def is_finished(guest):
    """Whether the partition says that all of it is there."""
    told = guest.run(LABEL).strip()
    if told != "repeater-data":
        raise Failed(f"the data partition is labelled {told}")


def cut_in(number):
    """A case for one part of the work."""
    def case(scene):
        moment = scene.first_moments[number]
        loose, kept = Record(scene.first_log).after_cut(scene.first_base, scene.work / "cut-now.img", moment, scene.seed + number)
        guest = scene.boot(scene.work / "cut-now.img", "cut-now")
        took = guest.wait_agent(150)
        is_finished(guest)
        no_unit_has_failed(scene)
        told = guest.run("findmnt -no FSTYPE,OPTIONS /var; ls /var/lib/station; echo kept >/var/lib/station/mark; sync")
        for word in ("ext4 rw", "credstore.encrypted"):
            if word not in told:
                raise Failed(f"no {word} in: {told}")
        return f"write {moment}, {kept} of {loose} loose writes kept: {took:.0f} s"
    case.__name__ = f"a_plug_pulled_with_{PARTS[number]}_is_survived"
    return case


def a_header_of_one_sector_is_made_anew(scene):
    """The very first write of a header, torn behind its first sector: it says that it was never finished, and no sum fits."""
    Record(scene.first_log).torn_at(scene.first_base, scene.work / "cut-now.img", scene.first_header, 1)
    guest = scene.boot(scene.work / "cut-now.img", "cut-now")
    took = guest.wait_agent(150)
    is_finished(guest)
    return f"write {scene.first_header}: {took:.0f} s"


def what_is_finished_is_never_made_anew(scene):
    """The station of the case before, switched off and on."""
    scene.again()
    scene.guest.wait_agent(150)
    if scene.guest.run("cat /var/lib/station/mark").strip() != "kept":
        raise Failed("the data partition is another one")


def a_disk_that_cannot_be_read_is_not_made_anew(scene):
    """In the same guest, a device that gives errors: it is no blank one."""
    scene.guest.run("echo 0 2048 error | dmsetup create bad")
    code, told = scene.guest.ask("/usr/lib/repeater/open-data /dev/mapper/bad")
    if code == 0 or "it is left as it is" not in told:
        raise Failed(told)


CASES = [the_first_boot_is_recorded, a_header_of_one_sector_is_made_anew, *(cut_in(number) for number in range(len(PARTS))), what_is_finished_is_never_made_anew,
         a_disk_that_cannot_be_read_is_not_made_anew]
