"""The data partition's key is sealed by the board's TPM: whoever takes the disk out of the board has a disk, and no footage.

The TPM is swtpm, a program beside qemu with a folder for its state: another folder is another board's TPM. No key is given
by a credential here, so what opens the partition is the TPM or nothing.
"""

import hashlib
import json

from disk import partitions
from guest import Failed, inside, until

MARK = "/var/lib/station/mark"


class Tpm:
    """A TPM as long as one machine runs; the same folder is the same TPM again."""

    def __init__(self, scene, name):
        self.folder = scene.work / name
        self.folder.mkdir(exist_ok=True)
        (scene.work / f"{name}.socket").unlink(missing_ok=True)
        self.process = inside(scene.trees["guest"], [f"+{self.folder}=/mnt/tpm", f"+{scene.work}=/mnt/guest"],
                              ["swtpm", "socket", "--tpm2", "--tpmstate", "dir=/mnt/tpm", "--terminate",
                               "--ctrl", f"type=unixio,path=/mnt/guest/{name}.socket"])
        until("the TPM listens", 20, (scene.work / f"{name}.socket").exists)
        self.words = ["-chardev", f"socket,id=tpm,path=/mnt/guest/{name}.socket",
                      "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]

    def end(self):
        """It ends with the machine; where that never came, now."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()


def boot(scene, disk, name, tpm, more=(), credentials=None, **options):
    """Boots with a TPM and without a key."""
    scene.tpm = Tpm(scene, tpm)
    return scene.boot(disk, name, more=[*scene.tpm.words, *more], credentials={"repeater.data-key": None, **(credentials or {})},
                      **options)


def off(scene, running=True):
    """Switches the machine off, as a plug that is pulled, once all is written."""
    if running:
        scene.guest.run("sync")
    scene.rest()
    scene.tpm.end()


def sum_of_data(disk):
    """A digest of all that the data partition holds."""
    name, start, size = partitions(disk)[-1]
    if name != "repeater-data":
        raise Failed(f"the last partition is {name}")
    summed = hashlib.sha256()
    with open(disk, "rb") as file:
        file.seek(start)
        for _ in range(0, size, 1 << 20):
            summed.update(file.read(1 << 20))
    return summed.hexdigest()


def the_first_boot_seals_the_key(scene):
    """The TPM's key slot is the only one: there is no password, and no second key that somebody could have kept."""
    guest = boot(scene, scene.factory, "tpm", "tpm-one")
    took = guest.wait_agent(150)
    told = json.loads(guest.run("cryptsetup luksDump --dump-json-metadata /dev/disk/by-partlabel/repeater-data"))
    [token] = told["tokens"].values()
    if token["type"] != "systemd-tpm2" or token["tpm2-pcrs"] != [7] or list(told["keyslots"]) != token["keyslots"]:
        raise Failed(f"slots {list(told['keyslots'])}, token {token}")
    if guest.ask("test -e /run/repeater-data.key")[0] == 0:
        raise Failed("the key that it was made with is left in /run")
    guest.run(f"echo kept >{MARK}")
    off(scene)
    return f"{took:.0f} s, key slots {token['keyslots']}, PCR {token['tpm2-pcrs']}"


def the_second_boot_opens_it(scene):
    """By the same TPM, and finds what the first one left."""
    guest = boot(scene, scene.work / "tpm.img", "tpm", "tpm-one")
    took = guest.wait_agent(150)
    if guest.run(f"cat {MARK}").strip() != "kept":
        raise Failed("the data partition is another one")
    off(scene)
    return f"{took:.0f} s"


def another_boards_tpm_does_not_open_it(scene):
    """The disk in another board: the boot ends and restarts, nobody is asked for anything, and not a bit of the partition is
    changed; in its own board it opens as before."""
    disk = scene.work / "tpm.img"
    before = sum_of_data(disk)
    guest = boot(scene, disk, "tpm", "tpm-two")
    until("the machine restarts", 150, lambda: guest.process.poll() is not None)
    console = guest.console()
    off(scene, running=False)
    if "does not open with this board's key" not in console:
        raise Failed(f"the console does not say why it restarts: {console[-500:]}")
    if sum_of_data(disk) != before:
        raise Failed("the data partition was written to")
    guest = boot(scene, disk, "tpm", "tpm-one")
    guest.wait_agent(150)
    if guest.run(f"cat {MARK}").strip() != "kept":
        raise Failed("the data partition is another one")
    off(scene)


CASES = [the_first_boot_seals_the_key, the_second_boot_opens_it, another_boards_tpm_does_not_open_it]
