"""Secure Boot: the board starts what was signed, and nothing else.

The firmware checks signatures here, with the keys that the image brings: its variables are empty when it comes from the
maker (setup mode), and systemd-boot gives it the keys at the first start. All later guests have those variables.
"""

import shutil

from disk import boot_files, drop_boot_file, offset, put_boot_file, sparse_copy
from guest import KEY, Failed, in_tree, until
from tpm_cases import Tpm
from workshop import workshop

VARIABLE = "/sys/firmware/efi/efivars/{}-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# What the kernel says before all else; where it is missing no kernel was started.
STARTED = "init:"


def flag(guest, name):
    """A variable of the firmware that is one byte."""
    return guest.run(f"od -An -t u1 -j 4 {VARIABLE.format(name)}").strip()


def secured(scene, name, kernel):
    """A station's disk with the image's own boot partition, in which stands one kernel image."""
    shop, disk = workshop(scene), scene.work / f"{name}.img"
    sparse_copy(shop.station(f"{name}-base"), disk)
    (scene.work / f"{name}-base.img").unlink()
    start = offset(disk, "esp")
    with open(shop.image() / "disk.img", "rb") as source, open(disk, "r+b") as to:
        source.seek(offset(shop.image() / "disk.img", "esp"))
        to.seek(start)
        to.write(source.read(128 << 20))
    for file in boot_files(scene.trees, disk):
        drop_boot_file(scene.trees, disk, file)
    put_boot_file(scene.trees, disk, kernel, f"repeater_{shop.version}.efi")
    return disk


def enrolled(scene, disk, **options):
    """Switches a guest on whose firmware has the keys."""
    kept = scene.work / "enrolled-vars.fd"
    if not kept.exists():
        raise Failed("no firmware has the keys: the first case has failed")
    return scene.boot(disk, disk.stem, secure=True, variables=kept, **options)


def nothing_starts(scene, disk):
    """The firmware has its chance, and no kernel speaks; what the console says instead."""
    guest = enrolled(scene, disk)
    said = until("the boot loader says why", 60, lambda: refusal(guest.console()))
    if STARTED in guest.console() or "Linux version" in guest.console():
        raise Failed(guest.console()[-600:])
    return said


def refusal(console):
    """The line by which the boot loader says that the firmware refuses an image."""
    for line in console.replace("\r", "\n").split("\n"):
        if "Access denied" in line or "ecurity" in line and "iolation" in line:
            return line.strip()[-100:]
    return None


def the_first_start_gives_the_board_its_keys_and_the_signed_image_boots(scene):
    """From setup mode to a station that runs with Secure Boot, and nobody has typed anything."""
    shop = workshop(scene)
    guest = scene.boot(secured(scene, "secure", shop.image() / "test.efi"), "secure", secure=True, restart=True)
    took = guest.wait_agent(200)
    if (flag(guest, "SecureBoot"), flag(guest, "SetupMode")) != ("1", "0"):
        raise Failed(f"SecureBoot {flag(guest, 'SecureBoot')}, SetupMode {flag(guest, 'SetupMode')}")
    scene.ready()
    scene.rest()
    shutil.copy(scene.work / "vars.fd", scene.work / "enrolled-vars.fd")
    return f"{took:.0f} s with the start that enrols"


def an_unsigned_kernel_image_is_refused(scene):
    """The same kernel image before it was signed."""
    shop = workshop(scene)
    script = "cp /mnt/image/test.efi /mnt/out/unsigned.efi && sbattach --remove /mnt/out/unsigned.efi 2>/dev/null"
    in_tree(scene.trees["tools"], [f"{shop.image()}=/mnt/image", f"+{scene.work}=/mnt/out"], "sh", "-ec", script)
    return nothing_starts(scene, secured(scene, "unsigned", scene.work / "unsigned.efi"))


def a_tampered_kernel_image_is_refused(scene):
    """The shipped one, with one word of its command line changed, so that it would take credentials."""
    data = (workshop(scene).image() / "production.efi").read_bytes()
    changed = data.replace(b"systemd.import_credentials=no", b"systemd.import_credentials=on")
    if changed == data:
        raise Failed("the command line has no such word")
    (scene.work / "tampered.efi").write_bytes(changed)
    return nothing_starts(scene, secured(scene, "tampered", scene.work / "tampered.efi"))


def a_tampered_root_is_refused(scene):
    """One block of the root is another: nothing of it is read, and the machine restarts."""
    shop = workshop(scene)
    disk = secured(scene, "tampered-root", shop.image() / "test.efi")
    with open(disk, "r+b") as file:
        file.seek(offset(disk, f"repeater_{shop.version}"))
        file.write(bytes(4096))
    guest = enrolled(scene, disk)
    until("the machine restarts", 90, lambda: guest.process.poll() is not None)
    console = guest.console()
    if refusal(console) or "ready" in console:
        raise Failed(console[-600:])


def words_added_to_the_command_line_are_refused(scene):
    """systemd's stub appends what the firmware's tables ask for, signed kernel image or not; the initrd stops there."""
    shop = workshop(scene)
    disk = secured(scene, "added", shop.image() / "production.efi")
    words = "type=11,value=io.systemd.stub.kernel-cmdline-extra=systemd.import_credentials=yes"
    guest = enrolled(scene, disk, more=["-smbios", words])
    until("the machine restarts", 90, lambda: guest.process.poll() is not None)
    if "systemd.import_credentials=yes was added to the command line" not in guest.console():
        raise Failed(guest.console()[-600:])


def production_runs_and_answers_nobody(scene):
    """What is shipped, on a board with a TPM: it makes its data partition, though not with the key that is passed in, and is
    blessed. Its serial console takes no word, and the suite's unit is not there."""
    shop, disk = workshop(scene), scene.work / "shipped.img"
    sparse_copy(shop.image() / "disk.img", disk)
    with open(disk, "r+b") as file:
        file.truncate(1 << 30)
    scene.tpm = Tpm(scene, "tpm-shipped")
    guest = scene.boot(disk, "shipped", secure=True, more=scene.tpm.words, restart=True)
    until("the first boot is blessed", 200, lambda: boot_files(scene.trees, disk) == [f"repeater_{shop.version}.efi"])
    guest.type("\n\nroot\n\nroot\n")
    until("the suite's port is there", 20, guest._connect)
    guest.channel.settimeout(5)
    try:
        raise Failed(f"somebody answers: {guest.channel.recv(100)}")
    except TimeoutError:
        pass
    if any(word in guest.console() for word in ("login", "assword", "# ", "$ ", "sh-")):
        raise Failed(guest.console()[-600:])
    scene.rest()
    scene.tpm.end()
    with open(disk, "rb") as file:
        file.seek(offset(disk, "repeater-data"))
        if file.read(6) != b"LUKS\xba\xbe":
            raise Failed("the data partition is not encrypted")
    (scene.work / "passed-in.key").write_bytes(KEY)
    script = (f"head=$(mktemp); dd if=/mnt/disk/shipped.img of=$head bs=1M skip={offset(disk, 'repeater-data') >> 20} count=32 "
              "status=none; ! cryptsetup open --test-passphrase --key-file /mnt/disk/passed-in.key $head 2>/dev/null")
    in_tree(scene.trees["tools"], [f"{scene.work}=/mnt/disk"], "sh", "-ec", script)


CASES = [the_first_start_gives_the_board_its_keys_and_the_signed_image_boots, an_unsigned_kernel_image_is_refused,
         a_tampered_kernel_image_is_refused, a_tampered_root_is_refused, words_added_to_the_command_line_are_refused,
         production_runs_and_answers_nobody]
