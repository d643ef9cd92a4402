"""An image for arm64 boards: all in it is arm64's, and it boots, makes its data partition, is given a station's papers and
serves, on a machine that qemu emulates.

What the other groups show (the air, updates, Secure Boot) is shown on x86-64 alone: cameras and modules of simulated radios
are programs of this machine there.
"""

import json
import re
import struct

from boot_cases import no_unit_has_failed, ready_after, the_drivers_of_radios_load, the_first_boot_makes_the_data_partition
from disk import SECTOR, offset
from guest import HERE, Failed, in_tree
from ukis import sections

# By the discoverable partitions' specification, and UEFI's and ELF's words for the processor.
TYPES = ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "b921b045-1df0-41c3-af44-4c6f280d3fae", "df3300ce-d69f-4c92-978c-9bfb0f38d820"]
PE, ELF = 0xAA64, 183


def types(disk):
    """The types of a disk's partitions, in order."""
    found = []
    with open(disk, "rb") as file:
        file.seek(SECTOR)
        first, count, size = struct.unpack_from("<QII", file.read(92), 72)
        for index in range(count):
            file.seek(first * SECTOR + index * size)
            a, b, c, rest = struct.unpack("<IHH8s", file.read(16))
            if a or b or c:
                found.append(f"{a:08x}-{b:04x}-{c:04x}-{rest[:2].hex()}-{rest[2:].hex()}")
    return found


def all_that_is_started_is_arm64s(scene):
    """The boot loader where the firmware of an arm64 board looks for it, both kernel images with the kernel in them, the
    daemon, and the partitions' types."""
    esp, a, a_tree = TYPES
    if types(scene.image / "disk.img") != [esp, a, a_tree, a, a_tree]:
        raise Failed(f"partitions: {types(scene.image / 'disk.img')}")
    binds = [f"{scene.image}=/mnt/image", f"+{scene.work}=/mnt/out"]
    at = offset(scene.image / "disk.img", "esp")
    in_tree(scene.trees["guest"], binds, "mcopy", "-o", "-i", f"/mnt/image/disk.img@@{at}", "::/EFI/BOOT/BOOTAA64.EFI", "/mnt/out/")
    for name, data in [("boot loader", (scene.work / "BOOTAA64.EFI").read_bytes()),
                       *((f"{name}.efi", (scene.image / f"{name}.efi").read_bytes()) for name in ("production", "test")),
                       ("kernel", sections(scene.image / "test.efi")[".linux"])]:
        head = struct.unpack_from("<I", data, 0x3C)[0]
        if data[head:head + 4] != b"PE\0\0" or struct.unpack_from("<H", data, head + 4)[0] != PE:
            raise Failed(f"{name}: not arm64's")
    in_tree(scene.trees["tools"], binds, "sh", "-c", "dump.erofs --cat --path=/usr/bin/repeaterd /mnt/image/root.img >/mnt/out/daemon")
    daemon = (scene.work / "daemon").read_bytes()
    if daemon[:4] != b"\x7fELF" or struct.unpack_from("<H", daemon, 18)[0] != ELF:
        raise Failed("repeaterd: not arm64's")


def it_is_made_of_what_x86_64_is_made_of(scene):
    """By packages.lock: the same packages in the same versions, rebuilds of Debian's (+b1) and the boot loader's signed package
    aside; one kernel for both. And the list of what is in it names arm64's packages alone."""
    trees = {}
    for line in (HERE.parent / "packages.lock").read_text().splitlines():
        tree, *package = line.split()
        if len(package) == 2:
            name, version = package
            trees.setdefault(tree, {})[re.sub("-(amd64|arm64)(-signed)?$", "", name)] = re.sub(r"\+b\d+$", "", version)
    ours, theirs = trees["image-arm64"], trees["image"]
    if ours != theirs:
        raise Failed(f"packages.lock: {sorted(set(ours.items()) ^ set(theirs.items()))}")
    for name, version in trees["boot-arm64"].items():
        if trees["tools"].get(name) != version:
            raise Failed(f"packages.lock: {name} {version} for arm64, {trees['tools'].get(name)} for x86-64")
    listed = [part["purl"] for part in json.loads((scene.image / "sbom.json").read_text())["components"] if "deb" in part["purl"]]
    if len(listed) != len(ours) + len(trees["boot-arm64"]) or not all("arch=arm64" in purl for purl in listed):
        raise Failed(f"sbom.json: {len(listed)} packages, {len(ours)} in the root")
    return f"{len(listed)} packages"


def it_comes_into_service(scene):
    """The machine of the case before is given its station's papers and switched off; switched on again, the daemon is ready."""
    guest = scene.guest
    guest.run(". /run/suite/air.sh; enrol && sync", 120)
    guest.cut()
    scene.bless(scene.work / guest.disk)
    scene.again()
    guest.wait_agent(150)
    scene.ready(150)
    machine, told = guest.run("uname -m; systemctl show repeaterd -p NRestarts -p SubState -p StatusText").split("\n", 1)
    if machine != "aarch64":
        raise Failed(f"it runs on {machine}")
    if "SubState=running" not in told or "NRestarts=0" not in told:
        raise Failed(told)
    took, own = ready_after(guest)
    return f"{took:.0f} s to READY, the daemon's own start {own:.1f} s of it; it says: {re.search('StatusText=(.*)', told)[1]}"


def a_bundle_of_the_other_architecture_is_not_seen(scene):
    """systemd-sysupdate, by the definitions that are shipped, finds the version that runs, and of two bundles that which is
    for arm64. (What is signed is looked at in the group `update`; here it is not asked for.)"""
    uuid = "5b0c6a3e-1f0d-4e0b-9c56-2f6f3a8f7d11"
    told = scene.guest.run(f"""
        mkdir -p /run/t/bundle /run/t/definitions; cd /run/t/bundle
        for name in repeater_8.0.0_arm64 repeater_9.0.0_x86-64; do
          echo part >"$name"_{uuid}.root; echo part >"$name"_{uuid}.verity; echo part >"$name".efi
        done
        sha256sum * >../sums; mv ../sums SHA256SUMS
        for file in /usr/lib/repeater/sysupdate.d/*.transfer; do
          sed 's|@SOURCE@|file:///run/t/bundle|; s|@LOWEST@|0|; s|^.Transfer.$|&\\nVerify=no|' $file >../definitions/${{file##*/}}
        done
        /usr/lib/systemd/systemd-sysupdate --definitions=/run/t/definitions --no-pager --no-legend list
        rm -r /run/t""", 200)
    version = (scene.image / "version").read_text().split()[0]
    if "9.0.0" in told or "8.0.0" not in told or version not in told:
        raise Failed(told)
    return " ".join(told.split())


CASES = [all_that_is_started_is_arm64s, it_is_made_of_what_x86_64_is_made_of, the_first_boot_makes_the_data_partition,
         it_comes_into_service, no_unit_has_failed, the_drivers_of_radios_load, a_bundle_of_the_other_architecture_is_not_seen]
