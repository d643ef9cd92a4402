"""Updates: what a station takes, what it refuses, and that it never stays behind dead.

One station lives through all of it, in order. Bundles come by HTTPS from outside the guest, or on a USB stick that is put in
while it runs. A version that cannot boot, or whose daemon is not well, leads back by itself; to save time its kernel image
is left one try of the three. The good one restarts the station in the middle of an offload.
"""

import random
import shutil

from air_cases import AIR, CAMERA, RADIO, all_is_held, counted, held_by_camera, offloaded, page, record
from cut_cases import begin, recorded_drive
from guest import Failed, until
from pulled import Pulled, choice
from workshop import GATE, HUNG, SERVER, workshop

DAMAGED, ILL, NEXT, GOOD, LAST = "90.0.0", "91.0.0", "91.1.0", "92.0.0", "93.0.0"
FORMAT = "/var/lib/private/repeater/spool/FORMAT"
STAY = "for unit in repeater-update.service repeater-update-stick@.service; do d=/run/systemd/system/$unit.d; mkdir -p $d; done; " \
       "printf '[Service]\\nExecStart=\\nExecStart=/usr/lib/repeater/update --stay ${UPDATE_URL}\\n' >/run/systemd/system/repeater-update.service.d/stay.conf; " \
       "printf '[Service]\\nExecStart=\\nExecStart=/usr/lib/repeater/update --stay --stick /dev/%%I\\n' " \
       ">/run/systemd/system/repeater-update-stick@.service.d/stay.conf; systemctl daemon-reload"
# The gate waits an hour for a daemon that says nothing; not so long here.
IMPATIENT = "systemctl show -p JobTimeoutUSec repeater-gate | grep -qx JobTimeoutUSec=1h || exit 3; " \
            "d=/run/systemd/system/repeater-gate.service.d; mkdir -p $d; printf '[Unit]\\nJobTimeoutSec=5\\n' >$d/zz.conf; " \
            "systemctl daemon-reload; " \
            "(sleep 1; systemctl stop repeater-gate; systemctl start --no-block repeater-gate) >/dev/null 2>&1 &"
SLOTS = "for b in /sys/class/block/vda?; do sed -n 's/^PARTNAME=//p' $b/uevent; done | sort | xargs; ls /efi/EFI/Linux | xargs"


def running(guest):
    """The version that runs."""
    return guest.run("sed -n 's/^IMAGE_VERSION=//p' /etc/os-release").strip()


def slots(guest):
    """What the slots and the boot partition hold. The kernel is told to read the table anew, as the next start will."""
    return guest.run(SLOTS)


def said(guest, unit):
    """What a unit wrote in this boot."""
    return guest.run(f"journalctl -b -u '{unit}' -o cat --no-pager")


def one_try(guest, version):
    """Leaves a version on trial one try."""
    guest.run(f"mv /efi/EFI/Linux/repeater_{version}+3-0.efi /efi/EFI/Linux/repeater_{version}+1.efi && sync")


def restart(guest):
    """Restarts it, once this has been answered."""
    guest.run("(sleep 1; systemctl reboot) >/dev/null 2>&1 &")


def offer(scene, name, authority=None):
    """Has the station ask for a bundle now, instead of at night; whether its service ended well, and what it said."""
    guest = scene.guest
    guest.run(workshop(scene).ask_at(name, authority))
    cursor = guest.run("journalctl -b -n 0 --show-cursor | sed -n 's/^-- cursor: //p'").strip()
    code, _ = guest.ask("systemctl start repeater-update.service", 400)
    return code == 0, guest.run(f"journalctl -b -u repeater-update --after-cursor='{cursor}' -o cat --no-pager")


def refused_and_untouched(scene, name, reason, authority=None):
    """A bundle that is not taken: the service fails for the reason, and slots and boot partition are as they were."""
    before = slots(scene.guest)
    well, told = offer(scene, name, authority)
    if well or reason not in told:
        raise Failed(f"{name}: {'taken' if well else 'refused'}: {told[-1200:]}")
    if (after := slots(scene.guest)) != before:
        raise Failed(f"{name}: {before} became {after}")


def bundles_that_nobody_signed_are_refused(scene):
    """Without a signature, signed by another key, with another root than was signed; and a server that is not the agency's."""
    shop = workshop(scene)
    good = shop.bundle("damaged", shop.image(DAMAGED))
    for name in ("unsigned", "foreign", "altered"):
        shutil.copytree(good, shop.served / name)
    (shop.served / "unsigned/SHA256SUMS.gpg").unlink()
    other = shop.folder / "other-keys"
    shop.tool("trial-keys", "--out", other)
    shop.sign(shop.served / "foreign", other)
    [root] = (shop.served / "altered").glob("*.root")
    with open(root, "r+b") as file:
        file.seek(1 << 20)
        file.write(b"another byte")
    shop.serve()
    scene.pulled = Pulled(scene, shop.station("update-base"))
    guest = scene.boot(scene.pulled.base, "cut", restart=True, credentials=GATE, drive=recorded_drive(),
                       more=["-device", "qemu-xhci", "-monitor", "unix:/mnt/guest/monitor,server=on,wait=off"])
    guest.wait_agent()
    scene.ready()
    refused_and_untouched(scene, "unsigned", "no bundle that can be trusted")
    refused_and_untouched(scene, "foreign", "Signature verification failed")
    refused_and_untouched(scene, "altered", "was not installed")
    refused_and_untouched(scene, "altered", "SSL peer certificate", (other / "db.pem").read_text())
    return "4 refused"


def a_version_below_the_security_version_is_refused(scene):
    """Signed, newer than what runs, and below what was once blessed here: it stays where it is."""
    guest = scene.guest
    guest.run("mkdir -p /var/lib/repeater-update && echo 90.0.1 >/var/lib/repeater-update/security-version")
    before = slots(guest)
    _, told = offer(scene, "damaged")
    if slots(guest) != before or "takes none below 90.0.1" not in told:
        raise Failed(told)
    guest.run("rm /var/lib/repeater-update/security-version")


def a_damaged_root_leads_back(scene):
    """The bundle is signed, its root has wrong blocks: the new version restarts itself, and the old one runs again."""
    shop, guest = workshop(scene), scene.guest
    [root] = (shop.served / "damaged").glob("*.root")
    with open(root, "r+b") as file:
        for at in range(0, root.stat().st_size - 4096, 1 << 20):
            file.seek(at)
            file.write(bytes(4096))
    shop.sign(shop.served / "damaged")
    guest.run(STAY)
    well, told = offer(scene, "damaged")
    if not well or f"{DAMAGED} is installed" not in told:
        raise Failed(told)
    one_try(guest, DAMAGED)
    restart(guest)
    guest.wait_agent(200)
    if running(guest) != shop.version or f"repeater_{DAMAGED}+0-1.efi" not in slots(guest):
        raise Failed(f"{running(guest)}: {slots(guest)}")
    scene.ready()


def a_daemon_that_is_not_well_leads_back(scene):
    """From a stick that is put in; it never says that it is ready. While on trial the station takes no other version."""
    shop, guest = workshop(scene), scene.guest
    stick = shop.stick(shop.bundle("ill", shop.image(ILL, daemon=HUNG)))
    shutil.copy(stick, scene.work / "stick.img")
    guest.run(STAY)
    guest.monitor("drive_add 0 if=none,id=stick,file=/mnt/guest/stick.img,format=raw,readonly=on")
    guest.monitor("device_add usb-storage,drive=stick,id=stick,removable=on")
    until("the stick's version is installed", 200, lambda: f"repeater_{ILL}+3-0.efi" in slots(guest))
    until("the service ends", 60, lambda: guest.ask("systemctl is-active --quiet 'repeater-update-stick@*'")[0] != 0)
    one_try(guest, ILL)
    restart(guest)
    guest.wait_agent(200)
    if running(guest) != ILL:
        raise Failed(f"{running(guest)} runs")
    code, told = guest.ask(f"/usr/lib/repeater/update https://{SERVER}/ill")
    if code == 0 or "on trial itself" not in told:
        raise Failed(told)
    guest.run(IMPATIENT)
    guest.wait_agent(300)
    if running(guest) != shop.version or f"repeater_{ILL}+0-1.efi" not in slots(guest):
        raise Failed(f"{running(guest)}: {slots(guest)}")
    scene.ready()
    until("the stick that is still in is looked at", 60, lambda: "nothing for this station" in said(guest, "repeater-update-stick@*"))
    guest.monitor("device_del stick")


def one_with_a_newer_format_is_gone_back_from_with_its_footage(scene):
    """The next release's daemon takes footage while it is on trial, in the format that the version before reads; forced back,
    that one goes on with it."""
    shop, guest = workshop(scene), scene.guest
    shop.bundle("next", shop.image(NEXT, daemon=shop.next_daemon))
    guest.run(STAY)
    well, told = offer(scene, "next")
    if not well:
        raise Failed(told)
    one_try(guest, NEXT)
    restart(guest)
    guest.wait_agent(200)
    scene.ready()
    # Else it would be blessed as soon as there is a radio.
    guest.run("systemctl mask --runtime --now repeater-gate")
    scene.station.close_archive()
    begin(scene)
    recording = record(guest, "last")
    until("all of it is Held", 120, lambda: all_is_held(guest))
    if running(guest) != NEXT or guest.run(f"cat {FORMAT}") != "bwc-spool 1\n":
        raise Failed(f"{running(guest)}: {guest.run(f'cat {FORMAT}')}")
    guest.run("sync")
    restart(guest)
    guest.wait_agent(200)
    if running(guest) != shop.version or f"repeater_{NEXT}+0-1.efi" not in slots(guest):
        raise Failed(f"{running(guest)}: {slots(guest)}")
    scene.station.open_archive()
    begin(scene)
    offloaded(scene, recording, "last", 180)
    # The cases that follow begin without a radio.
    restart(guest)
    guest.wait_agent(200)
    scene.ready()


def a_newer_format_stops_the_daemon_and_is_not_touched(scene):
    """What a version that was gone back from could leave, had it not kept to the rule: the daemon names it, and stops."""
    guest = scene.guest
    at = FORMAT.removesuffix("/FORMAT")
    guest.run(f"systemctl stop repeaterd; cp {at}/FORMAT /run/format; echo 'bwc-spool 2' >{at}/FORMAT; sync")
    before = guest.run(f"cd {at} && find . -type f -exec sha256sum {{}} + | sort")
    guest.ask("timeout 20 systemctl start repeaterd", 60)
    told = said(guest, "repeaterd")
    if "bwc-spool 2" not in told or guest.run(f"cd {at} && find . -type f -exec sha256sum {{}} + | sort") != before:
        raise Failed(told[-800:])
    guest.run(f"systemctl stop repeaterd; cp /run/format {at}/FORMAT; systemctl start --no-block repeaterd")
    scene.ready()


def a_good_one_is_blessed_and_keeps_its_footage(scene):
    """It restarts the station by itself while a camera offloads. What came before and during is there, and arrives."""
    shop, guest = workshop(scene), scene.guest
    shop.bundle("good", shop.image(GOOD, security=GOOD))
    scene.station.close_archive()
    guest.run(f"{AIR} radios 2")
    guest.run(f"{AIR} camera {CAMERA} {RADIO}")
    recordings = {"short": record(guest, "short")}
    until("it is held", 120, lambda: page(guest)["spool"]["segments"].get("held", 0) > 0)
    recordings["long"] = record(guest, "long")
    until("some of the next has come", 60, lambda: counted(guest, "repeater_pulled_bytes_total") > 3_500_000)
    guest.run("rm -rf /run/systemd/system/repeater-update*.d; systemctl daemon-reload; sync")
    scene.pulled.begin()
    guest.run(workshop(scene).ask_at("good") + "systemctl start --no-block repeater-update")
    guest.wait_agent(400)
    if running(guest) != GOOD:
        raise Failed(f"{running(guest)} runs: {slots(guest)}")
    guest.run(f"{AIR} radios 2")
    guest.run(f"{AIR} camera {CAMERA} {RADIO}")
    scene.station.open_archive()
    until("it is blessed", 120, lambda: f"repeater_{GOOD}.efi" in slots(guest))
    for name, recording in recordings.items():
        offloaded(scene, recording, name, 180)
    return f"{len(held_by_camera(guest)['recordings'])} recordings left at the camera"


def what_was_blessed_is_the_new_bottom(scene):
    """The station remembers the security version, and neither starts nor takes what is below it."""
    guest = scene.guest
    until("the security version is kept", 60, lambda: guest.ask(f"grep -qx {GOOD} /var/lib/repeater-update/security-version")[0] == 0)
    kernels = guest.run("ls /efi/EFI/Linux").split()
    if kernels != [f"repeater_{GOOD}.efi"]:
        raise Failed(f"{kernels}")
    before = slots(guest)
    _, told = offer(scene, "ill")
    if slots(guest) != before or f"takes none below {GOOD}" not in told:
        raise Failed(told)
    guest.run("sync")


def every_pulled_plug_leaves_something_to_boot(scene):
    """At many moments of the good update: what the boot loader takes is whole, and so is the version before, until the new one
    is blessed; and that is so after a start's check of the boot partition, too, which is often torn."""
    shop, pulled, told = workshop(scene), scene.pulled, []
    scene.torn = []
    images = {GOOD: shop.image(GOOD, security=GOOD), shop.version: shop.image()}
    scene.rest()
    for moment in pulled.choose(scene.seed):
        pulled.disk(moment)
        taken = whole(shop, pulled, images, moment, pulled.kernels())
        if pulled.mend():
            scene.torn.append(moment)
        # Of a file that has two names, being renamed as the power went, one may be left.
        whole(shop, pulled, images, moment, pulled.kernels())
        told.append(taken.removeprefix("repeater_").removesuffix(".efi"))
    return f"{len(told)} of {pulled.steps} barriers, {len(scene.torn)} torn: {' '.join(told)}"


def whole(shop, pulled, images, moment, files):
    """What the boot loader takes of these files."""
    taken = choice(files)
    version = taken.removeprefix("repeater_").removesuffix(".efi").split("+")[0]
    if version not in images or not pulled.is_whole(images[version], version, taken):
        raise Failed(f"write {moment}: the boot loader takes {taken} of {files}, which is not whole")
    old = f"repeater_{shop.version}.efi"
    if taken != f"repeater_{GOOD}.efi" and not (old in files and pulled.is_whole(images[shop.version], shop.version, old)):
        raise Failed(f"write {moment}: {files}: the version before is not whole, and the new one not blessed")
    return taken


def a_pulled_plug_is_survived(scene):
    """One of these disks boots, and comes to the new version: by its own trial, or by asking for the bundle again. It is one
    with a torn boot partition, where there was one: unmended, nothing could be written to it any more."""
    shop, pulled = workshop(scene), scene.pulled
    moment = random.Random(scene.seed).choice(scene.torn or pulled.chosen)
    pulled.disk(moment)
    guest = scene.boot(pulled.now, "pulled-now", restart=True, credentials=GATE)
    guest.wait_agent()
    first = running(guest)
    if first == shop.version:
        scene.ready()
        guest.run(shop.ask_at("good") + "systemctl start --no-block repeater-update")
        guest.wait_agent(400)
        left = guest.run("ls /efi | grep REC || true").split()
        if left:
            raise Failed(f"what belonged to no file takes room for ever: {left}")
    guest.run(f"{AIR} radios 1")
    until("it is blessed", 200, lambda: f"repeater_{GOOD}.efi" in slots(guest))
    scene.ready()
    return f"{first} came up{', torn' if scene.torn else ''}, {running(guest)} runs"


def a_newer_format_is_written_once_it_is_blessed(scene):
    """Not in the boot that began on trial, but from the next start on."""
    shop, guest = workshop(scene), scene.guest
    shop.bundle("last", shop.image(LAST, daemon=shop.next_daemon))
    guest.run(shop.ask_at("last") + "systemctl start --no-block repeater-update")
    guest.wait_agent(400)
    scene.ready()
    guest.run(f"{AIR} radios 1")
    until("it is blessed", 200, lambda: f"repeater_{LAST}.efi" in slots(guest))
    trial = guest.run(f"cat {FORMAT}").strip()
    restart(guest)
    guest.wait_agent(200)
    scene.ready()
    after = guest.run(f"cat {FORMAT}").strip()
    if (trial, after, running(guest)) != ("bwc-spool 1", "bwc-spool 2", LAST):
        raise Failed(f"{running(guest)}: {trial} on trial, {after} after")
    return f"{trial} on trial, {after} after"


CASES = [bundles_that_nobody_signed_are_refused, a_version_below_the_security_version_is_refused, a_damaged_root_leads_back,
         a_daemon_that_is_not_well_leads_back, one_with_a_newer_format_is_gone_back_from_with_its_footage,
         a_newer_format_stops_the_daemon_and_is_not_touched,
         a_good_one_is_blessed_and_keeps_its_footage, what_was_blessed_is_the_new_bottom, every_pulled_plug_leaves_something_to_boot,
         a_pulled_plug_is_survived, a_newer_format_is_written_once_it_is_blessed]
