"""The power goes in the middle of an offload: the image boots again, and nothing is lost.

A guest runs on a disk whose every write and FLUSH is recorded. Afterwards moments are chosen from the record, each right
before a barrier that something waits for; the disk is made as a power cut there leaves it (disk.py), and booted. Camera and
station share that disk, so that both are cut at once. The archive is as it was when the machine was switched off.
"""

import random
import shutil

from air_cases import AIR, CAMERA, RADIO, counted, offloaded, page, record
from disk import Record, sparse_copy
from guest import Failed, until

CUTS = 2
# The record does not grow by itself; it is a file with holes.
RECORD_BYTES = 4 << 30


def empty_record(scene):
    """The file that a recorded disk's writes go to."""
    path = scene.work / "cut.record"
    with open(path, "wb") as file:
        file.truncate(RECORD_BYTES)
    return path


def recorded_drive():
    """qemu's words for a disk whose writes are recorded."""
    return ["-blockdev", "driver=file,node-name=disk,filename=/mnt/guest/cut.img,cache.direct=off",
            "-blockdev", "driver=file,node-name=log,filename=/mnt/guest/cut.record",
            "-blockdev", "driver=blklogwrites,node-name=system,file=disk,log=log,log-sector-size=512"]


def begin(scene):
    """The air and the camera, in a guest that is up."""
    scene.ready()
    scene.guest.run(f"{AIR} radios 2")
    scene.guest.run(f"{AIR} camera {CAMERA} {RADIO}")


def the_power_goes_while_a_camera_offloads(scene):
    """Records the disk while a camera's footage comes in, is forwarded, and receipts come back."""
    scene.cut_base = scene.work / "cut-base.img"
    sparse_copy(scene.enrolled, scene.cut_base)
    log = empty_record(scene)
    guest = scene.boot(scene.cut_base, "cut", drive=recorded_drive())
    guest.wait_agent()
    begin(scene)
    scene.cut_recording = record(guest, "long")
    scene.cut_from = len(Record(log).entries)
    until("half of it has come", 120, lambda: counted(guest, "repeater_pulled_bytes_total") > 5_000_000)
    until("a receipt has come", 120, lambda: page(guest)["spool"]["segments"].get("archived", 0) > 0)
    guest.cut()
    scene.station.close_archive()
    shutil.copytree(scene.station.store, scene.work / "store.cut")
    record_of_it = Record(log)
    flushes = record_of_it.flushes()
    flushes = [f for before, f in zip(flushes, flushes[1:]) if before >= scene.cut_from and f > before + 1]
    if len(flushes) < CUTS:
        raise Failed(f"{len(flushes)} barriers: too few")
    chance = random.Random(scene.seed)
    scene.moments = sorted(chance.sample(flushes, CUTS))
    return f"{len(record_of_it.entries)} writes, {len(flushes)} barriers while it offloaded"


def nothing_is_lost(scene, number):
    """Boots what a cut leaves, lets the camera come again, and looks for all that it had recorded."""
    moment = scene.moments[number]
    record_of_it = Record(scene.work / "cut.record")
    loose, kept = record_of_it.after_cut(scene.cut_base, scene.work / "cut-now.img", moment, scene.seed + number)
    shutil.rmtree(scene.station.store)
    shutil.copytree(scene.work / "store.cut", scene.station.store)
    scene.station.close_archive()
    scene.station.open_archive()
    guest = scene.boot(scene.work / "cut-now.img", "cut-now")
    guest.wait_agent()
    begin(scene)
    offloaded(scene, scene.cut_recording, "long", 180)
    standing = [alarm["code"] for alarm in page(guest)["alarms"]]
    return f"write {moment}: {kept} of {loose} loose writes kept; alarms {standing}"


def cuts():
    """A case for each moment."""
    def make(number):
        def case(scene):
            return nothing_is_lost(scene, number)
        case.__name__ = f"nothing_is_lost_after_cut_{number + 1}"
        return case
    return [make(number) for number in range(CUTS)]


CASES = [the_power_goes_while_a_camera_offloads, *cuts()]
