"""A box from the factory becomes a station's repeater, and nobody logs in: the agency's file is put into its boot partition,
a signing request comes out, the certificate is brought on a USB stick. The radio is what the agency's plan says, a stick that
asks for a support bundle is given one, and a file that the agency did not sign is refused.

The guest is told the agency's fingerprint by a credential, which a kernel image in service takes none of: there it stands
in the command line (`build --agency`), which takes another image for each agency.
"""

import base64
import re
import subprocess

from air_cases import AIR, on_the_air
from disk import offset, sparse_copy
from guest import Failed, Guest, in_tree, until, with_stick
from station import ARCHIVE, SITE

STATION = "suite-9"


def plan(station, ssid, country):
    """What the agency says of a station with this archive."""
    return f"""station = "{station}"
number = 1
[[archive]]
site = "{SITE}"
addresses = ["{ARCHIVE}"]
[wifi]
ssid = "{ssid}"
country = "{country}"
"""


PLAN = plan(STATION, "BWC NORTH", "DE") + """channel = 44
width_mhz = 40
[[port]]
name = "dock7"
path = "pci-0000:00:10.0"
"""
# Another network card than the uplink's, as boards have them.
CARD = ["-device", "e1000e,addr=0x10,mac=52:54:00:00:00:07"]
SUPPORT = "repeater-support"
FILE, REQUEST, CERTIFICATE = "enrolment.repeater", f"{STATION}-1.request.pem", f"{STATION}-1.certificate.pem"
DOCTOR = "CREDENTIALS_DIRECTORY=/run/credentials/repeaterd.service repeaterd doctor --config /etc/repeater/repeater.toml"
LOOK = "systemctl restart repeater-enrol.service; cat /efi/enrolment.answer.txt"


def enrolment(scene, agency, name, words=PLAN):
    """An enrolment file of an agency, and that agency's fingerprint."""
    file, out = scene.work / "plan.toml", scene.work / name
    file.write_text(words)
    told = scene.station.run("agency", "enrol", agency, "--plan", file, "--out", out)
    return out, re.search(r"fingerprint: ([0-9a-f]{64})", told)[1]


def in_boot_partition(scene, disk, *command):
    """One of mtools' commands on a disk's boot partition; `{at}` stands for it, `/mnt/disk` for the folder of disks."""
    at = f"/mnt/disk/{disk.name}@@{offset(disk, 'esp')}"
    in_tree(scene.trees["guest"], [f"+{disk.parent}=/mnt/disk"], *(word.format(at=at) for word in command))


def a_file_in_the_boot_partition_brings_a_request_out(scene):
    """The first boot makes the key and leaves the request; no daemon is started in vain, and the boot counts as good."""
    file, known = enrolment(scene, scene.station.agency, FILE)
    disk = scene.work / "box.img"
    sparse_copy(scene.factory, disk)
    in_boot_partition(scene, disk, "mcopy", "-i", "{at}", f"/mnt/disk/{file.name}", f"::/{FILE}")
    guest = scene.boot(disk, "box", credentials={"repeater.agency": known.encode()}, more=CARD)
    took = guest.wait_agent()
    until("the request is there", 60, lambda: guest.ask(f"test -s /efi/{REQUEST} && test -s /efi/enrolment.answer.txt")[0] == 0)
    told = guest.run("cat /efi/enrolment.answer.txt; systemctl show -p NRestarts -p ActiveState -p ConditionResult repeaterd")
    for words in ("taken", f"set up as urn:bwc:repeater:{STATION}:1", "NRestarts=0", "ActiveState=inactive",
                  "ConditionResult=no", "port pci-0000:00:10.0 is en", "address 52:54:00:00:00:07"):
        if words not in told:
            raise Failed(f"no {words} in: {told}")
    if "PRIVATE KEY" in guest.run("cat /etc/credstore.encrypted/repeater-key.pem"):
        raise Failed("the key is not sealed")
    guest.run("sync")
    scene.rest()
    return f"{took:.0f} s to the suite's unit"


def its_certificate_on_a_stick_brings_the_box_into_service(scene):
    """A USB stick with the same file and the certificate beside it, and a folder for a support bundle; the daemon is ready,
    and the doctor finds nothing bad but for the radio, which is not there yet."""
    disk, chain, stick = scene.work / "box.img", scene.work / CERTIFICATE, scene.work / "stick.img"
    in_boot_partition(scene, disk, "mcopy", "-o", "-i", "{at}", f"::/{REQUEST}", f"/mnt/disk/{REQUEST}")
    scene.station.run("agency", "sign", scene.station.agency, "--csr", scene.work / REQUEST, "--role", "repeater", "--out", chain)
    with open(stick, "wb") as file:
        file.truncate(64 << 20)
    on_stick = ["-i", f"/mnt/disk/{stick.name}"]
    in_boot_partition(scene, disk, "mformat", *on_stick, "-F", "::")
    for name in (FILE, CERTIFICATE):
        in_boot_partition(scene, disk, "mcopy", *on_stick, f"/mnt/disk/{name}", f"::/{name}")
    in_boot_partition(scene, disk, "mmd", *on_stick, f"::/{SUPPORT}")
    # The box knows its agency by now: no credential says it.
    scene.rest()
    guest = scene.guest = Guest(scene.trees, scene.work, disk.name, "suite.img")
    guest.more = [*CARD, *with_stick(stick)]
    guest.start()
    guest.wait_agent()
    scene.ready()
    told = guest.run(f"journalctl -b --no-pager -u 'repeater-enrol@*'; {DOCTOR} || true")
    bad = [line for line in told.splitlines() if line.startswith("BAD") and " hostapd " not in line]  # no radio yet
    if "certificate is taken" not in told or bad or f"{ARCHIVE} is urn:bwc:archive:{SITE}" not in told:
        raise Failed(told)
    return f"{told.count('ok ')} things are well"


def a_port_is_called_what_the_plan_says(scene):
    """By its place on the board; nobody has seen the box, and the installer's answer told the agency which ports it has."""
    told = scene.guest.run("cat /sys/class/net/dock7/address; networkctl --no-pager --no-legend list")
    if not told.startswith("52:54:00:00:00:07"):
        raise Failed(told)
    return " ".join(next(line for line in told.splitlines() if " dock7 " in line).split())


def the_stick_was_given_a_support_bundle(scene):
    """It says what is so of this station, and holds no key."""
    looks = "systemctl list-units --no-legend --state=activating 'repeater-enrol@*'"
    until("the stick was looked at", 60, lambda: not scene.guest.run(looks).strip())
    told = scene.guest.run(f"mkdir /run/look && mount -o ro /dev/sda /run/look && cat /run/look/{SUPPORT}/*.txt && umount /run/look")
    if f"urn:bwc:repeater:{STATION}:1" not in told or "PRIVATE KEY" in told:
        raise Failed(told[:2000])
    return f"{len(told)} bytes"


def the_radio_is_what_the_plan_says(scene):
    """A radio that appears gets its hostapd, with the name, country, channel and width that the agency's file has."""
    guest = scene.guest
    guest.run(f"{AIR} radios 1")
    channel = on_the_air(guest, "ssid BWC NORTH", "channel 44 (5220 MHz), width: 40 MHz", "country DE: DFS-ETSI")
    if "BAD" in (told := guest.run(DOCTOR)):
        raise Failed(told)
    return channel


def a_forged_file_is_refused_and_named(scene):
    """Of another agency, and altered: the box stays what it is, and the boot partition says why."""
    guest, other = scene.guest, scene.work / "other-agency"
    subprocess.run([scene.programs / "agency", "trial", other, "--cameras", "1"], check=True, stdout=subprocess.DEVNULL)
    forged, fingerprint = enrolment(scene, other, "forged.repeater")
    before = guest.run("cat /etc/repeater/* /etc/credstore.encrypted/* | sha256sum")
    altered = bytearray((scene.work / FILE).read_bytes())
    altered[altered.index(ARCHIVE.encode())] ^= 1
    for data, words in ((forged.read_bytes(), fingerprint), (bytes(altered), "signature")):
        text = base64.b64encode(data).decode()
        told = guest.run(f"echo {text} | base64 -d >/efi/{FILE}; {LOOK}")
        if not told.startswith("refused") or words not in told:
            raise Failed(told)
    if guest.run("cat /etc/repeater/* /etc/credstore.encrypted/* | sha256sum") != before:
        raise Failed("something was changed")
    guest.run("systemctl is-active repeaterd")
    return told.splitlines()[1].strip()[-70:]


CASES = [a_file_in_the_boot_partition_brings_a_request_out, its_certificate_on_a_stick_brings_the_box_into_service,
         a_port_is_called_what_the_plan_says, the_stick_was_given_a_support_bundle, the_radio_is_what_the_plan_says,
         a_forged_file_is_refused_and_named]
