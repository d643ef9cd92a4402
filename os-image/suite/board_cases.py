"""A board dies, and its disk goes into another one: the footage on it that was not forwarded yet gets out, with the help of who
holds the agency's escrow key, and of nobody else.

The boards are two TPMs (tpm_cases.py). The station is set up by the agency's file in the boot partition; a camera offloads
while the archive is away; then the first board is never seen again.
"""

import json
import random
import re
import shutil

import tpm_cases
from air_cases import CAMERA, all_is_held, page, record
from cut_cases import begin, empty_record, recorded_drive
from disk import DISCARD, SECTOR, Record, offset, sparse_copy
from enrol_cases import DOCTOR, FILE, LOOK, enrolment, in_boot_partition, plan
from first_cases import HEADERS
from guest import Failed, in_tree, until, with_stick
from scene import FOOTAGE
from station import STATION
from tpm_cases import off, sum_of_data

PLAN = plan(STATION, "BWC-STATION", "KR")
REQUEST, CERTIFICATE = f"{STATION}-1.request.pem", f"{STATION}-1.certificate.pem"
SEALED, PLAIN = "disk-key.sealed", "disk-key.plain"
DATA = "/dev/disk/by-partlabel/repeater-data"
SEGMENTS = "/var/lib/private/repeater/spool/segments"
CUTS = 3


def boot(scene, board, stick=None, disk="board", **options):
    """Boots a disk, which is the station's unless said, on a board, and with a stick where there is one."""
    more = with_stick(stick) if stick else ()
    return tpm_cases.boot(scene, scene.work / f"{disk}.img", disk, board, more=more, **options)


def new_stick(scene, plain):
    """A stick (FAT) with what may be the disk's key."""
    stick = scene.work / "board-stick.img"
    with open(stick, "wb") as file:
        file.truncate(64 << 20)
    in_tree(scene.trees["tools"], [f"+{scene.work}=/mnt/disk"], "mkfs.vfat", "-F", "32", f"/mnt/disk/{stick.name}")
    (scene.work / PLAIN).write_bytes(plain)
    mtools(scene, "mcopy", "-i", f"/mnt/disk/{stick.name}", f"/mnt/disk/{PLAIN}", f"::/{PLAIN}")
    return stick


def mtools(scene, *command):
    """One of mtools' commands on a stick."""
    in_tree(scene.trees["guest"], [f"+{scene.work}=/mnt/disk"], *command)


def on_stick(scene, stick, name):
    """A file of the stick; None where there is none."""
    out = scene.work / f"from-stick.{name}"
    out.unlink(missing_ok=True)
    try:
        mtools(scene, "mcopy", "-i", f"/mnt/disk/{stick.name}", f"::/{name}", f"/mnt/disk/{out.name}")
    except Failed:
        return None
    return out.read_bytes()


def slots(guest):
    """The header's slots, by who opens them: the type of the token that names each."""
    told = json.loads(guest.run(f"cryptsetup luksDump --dump-json-metadata {DATA}"))
    return {slot: sorted(t["type"] for t in told["tokens"].values() if slot in t["keyslots"]) for slot in told["keyslots"]}


def second_key_is_there(guest):
    """Waits until the header has a sealed key that was not used, and this boot has looked at it; its slots then."""
    until("the disk has a second key", 60, lambda: guest.ask(
        f"cryptsetup token export --token-id 8 {DATA} | grep -q '\"repeater-disk-key\"' && "
        "systemctl show -p ActiveState --value repeater-disk-key | grep -qx inactive && grep -q '^sealed for' /run/repeater-disk-key")[0] == 0)
    found = sorted(sum(slots(guest).values(), []))
    if found != ["repeater-disk-key", "systemd-recovery", "systemd-tpm2"]:
        raise Failed(f"the slots are {slots(guest)}")
    return found


def certified(scene, guest):
    """The agency signs the request that lies in the boot partition, and the box takes the certificate."""
    (scene.work / REQUEST).write_text(guest.run(f"cat /efi/{REQUEST}"))
    chain = scene.work / CERTIFICATE
    scene.station.run("agency", "sign", scene.station.agency, "--csr", scene.work / REQUEST, "--role", "repeater", "--out", chain)
    told = guest.run(f"cat >/efi/{CERTIFICATE} <<'END'\n{chain.read_text()}END\n{LOOK}")
    if "certificate is taken" not in told:
        raise Failed(told)
    scene.ready()


def a_station_has_a_second_key(scene):
    """Sealed for the agency's escrow key, from the enrolment on; a segment is Held, and the archive is away."""
    disk = scene.work / "board.img"
    _, known = enrolment(scene, scene.station.agency, FILE, PLAN)
    sparse_copy(scene.factory, disk)
    in_boot_partition(scene, disk, "mcopy", "-i", "{at}", f"/mnt/disk/{FILE}", f"::/{FILE}")
    scene.bless(disk)
    guest = boot(scene, "board-one", credentials={"repeater.agency": known.encode()})
    guest.wait_agent(150)
    until("the request is there", 60, lambda: guest.ask(f"test -s /efi/{REQUEST} && test -s /efi/enrolment.answer.txt")[0] == 0)
    found = second_key_is_there(guest)
    certified(scene, guest)
    told = guest.run(f"{DOCTOR} || true")
    if not re.search(r"^ok +disk +its second key.*sealed for [0-9a-f]{32}$", told, re.M):
        raise Failed(told)
    scene.station.close_archive()
    begin(scene)
    scene.board_recording = record(guest, "short")
    until("all of it is Held", 120, lambda: all_is_held(guest))
    off(scene)
    return ", ".join(found)


def another_board_opens_nothing_and_says_who_can(scene):
    """Neither by its own TPM nor by somebody's key on a stick; not a bit of the partition is changed, and what an escrow holder
    needs is on the stick and in the boot partition."""
    disk = scene.work / "board.img"
    before = sum_of_data(disk)
    stick = new_stick(scene, b"somebody else's key")
    guest = boot(scene, "board-two", stick)
    until("the machine restarts", 200, lambda: guest.process.poll() is not None)
    console = guest.console()
    off(scene, running=False)
    if sum_of_data(disk) != before:
        raise Failed("the data partition was written to")
    if "disk-key.plain does not open" not in console or "does not open with this board's key" not in console:
        raise Failed(f"the console does not say why it restarts: {console[-2000:]}")
    scene.sealed = on_stick(scene, stick, SEALED)
    if not scene.sealed or on_stick(scene, stick, PLAIN) != b"somebody else's key":
        raise Failed(f"on the stick: {scene.sealed}")
    in_boot_partition(scene, disk, "mcopy", "-o", "-i", "{at}", f"::/{SEALED}", f"/mnt/disk/{SEALED}")
    if (scene.work / SEALED).read_bytes() != scene.sealed:
        raise Failed("the boot partition has another one than the stick")
    return scene.sealed.decode()[:60]


def opened(scene):
    """The disk's key, as the escrow holder opens it."""
    holder, plain = scene.station.agency / "recipients/escrow.key", scene.work / "opened.key"
    scene.station.run("agency", "disk-key", scene.work / SEALED, "--key", holder, "--out", plain)
    scene.old_key = plain.read_bytes()


def a_plug_pulled_meanwhile_leaves_a_disk_that_opens(scene):
    """All of it on a third board, recorded: the power goes at moments between the writes to the disk's header, with any part of what
    was loose; with the same stick the next start opens it, and comes to a second key of its own."""
    opened(scene)
    log, base, now = empty_record(scene), scene.work / "board.img", scene.work / "cut-now.img"
    sparse_copy(base, scene.work / "cut.img")
    guest = boot(scene, "board-three", new_stick(scene, scene.old_key), disk="cut", drive=recorded_drive())
    guest.wait_agent(200)
    second_key_is_there(guest)
    off(scene)
    entries = Record(log).entries
    first = offset(base, "repeater-data") // SECTOR
    headers = [i for i, (at, count, flags, _) in enumerate(entries) if count and not flags & DISCARD and first <= at < first + HEADERS]
    chance, told = random.Random(scene.seed), []
    for moment in sorted(chance.sample(headers, CUTS)):
        loose, kept = Record(log).after_cut(base, now, moment + chance.randint(0, 1), scene.seed + moment)
        # The board as it was then. A TPM counts pulled plugs, and answers nothing for a while after some: swtpm's after three.
        board = f"board-three-{moment}"
        shutil.copytree(scene.work / "board-three", scene.work / board)
        guest = boot(scene, board, new_stick(scene, scene.old_key), disk="cut-now")
        took = guest.wait_agent(200)
        if not guest.run(f"ls {SEGMENTS}").split():
            raise Failed(f"write {moment}: no footage")
        second_key_is_there(guest)
        if opens(guest, scene.old_key):
            raise Failed(f"write {moment}: the key that was used opens the disk still")
        told.append(f"write {headers.index(moment)} of {len(headers)}, {kept} of {loose} loose kept: {took:.0f} s")
        off(scene)
    return "; ".join(told)


def the_escrow_holder_brings_the_station_back(scene):
    """The key on the stick opens the disk and is deleted; the new board's TPM has it from then on. The station asks for a new
    certificate, and a new second key takes the place of the one that was used."""
    stick = new_stick(scene, scene.old_key)
    guest = boot(scene, "board-two", stick)
    took = guest.wait_agent(200)
    asks = f"test -s /etc/repeater/request.pem && ! test -e /etc/repeater/chain.pem && cmp /etc/repeater/request.pem /efi/{REQUEST}"
    told = guest.run("journalctl -b --no-pager -o cat -u repeater-moved; systemd-creds has-tpm2 || true")
    until(f"the request is there: {told}", 60, lambda: guest.ask(asks)[0] == 0)
    second_key_is_there(guest)
    if opens(guest, scene.old_key):
        raise Failed("the key that was used opens the disk still")
    if told := guest.run("systemctl --failed --no-legend --plain"):
        raise Failed(told)
    certified(scene, guest)
    if on_stick(scene, stick, PLAIN) is not None:
        raise Failed("the key is left on the stick")
    return f"{took:.0f} s to the suite's unit"


def opens(guest, key):
    """Whether a key opens the data partition: cryptsetup says 2 where it does not, and something else of what it cannot do."""
    code, told = guest.ask(f"printf %s '{key.decode()}' | cryptsetup open --test-passphrase --disable-external-tokens --key-file - {DATA}")
    if code not in (0, 2):
        raise Failed(f"cryptsetup: {code}: {told}")
    return code == 0


def what_was_held_is_archived(scene):
    """Nothing of the footage came from the camera again: it was switched off with the first board."""
    scene.station.open_archive()
    until("it is archived", 180, lambda: not page(scene.guest)["spool"]["segments"].get("held", 0))
    if scene.station.exported(scene.board_recording) != FOOTAGE["short"]:
        raise Failed("the archive gives out something else than was recorded")
    off(scene)
    return f"{len(FOOTAGE['short'])} bytes of {CAMERA}"


def the_new_board_opens_it_and_the_old_one_does_not(scene):
    """At the next starts, without a stick."""
    guest = boot(scene, "board-two")
    guest.wait_agent(150)
    scene.ready()
    off(scene)
    guest = boot(scene, "board-one")
    until("the machine restarts", 200, lambda: guest.process.poll() is not None)
    console = guest.console()
    off(scene, running=False)
    if "does not open with this board's key" not in console:
        raise Failed(console[-2000:])


CASES = [a_station_has_a_second_key, another_board_opens_nothing_and_says_who_can,
         a_plug_pulled_meanwhile_leaves_a_disk_that_opens, the_escrow_holder_brings_the_station_back, what_was_held_is_archived,
         the_new_board_opens_it_and_the_old_one_does_not]
