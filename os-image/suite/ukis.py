"""What can be shown from an image's files alone: that `production` and `test` are one image with two command lines, that
the hash in both is the root's, and that the root has nothing which would let somebody in.
"""

import base64
import json
import re
import struct

from guest import Failed, in_tree

# What an image must not have: ways in, package managers, interpreters, and what only the suite needs.
ABSENT = ["/usr/sbin/sshd", "/usr/lib/systemd/system/getty@.service",
          "/usr/lib/systemd/system/serial-getty@.service", "/usr/lib/systemd/system/debug-shell.service",
          "/usr/bin/apt-get", "/usr/bin/dpkg", "/usr/bin/perl", "/usr/bin/python3", "/usr/sbin/wpa_supplicant",
          "/usr/bin/bodycam", "/usr/bin/archive", "/usr/bin/agency", "/usr/bin/openssl", "/usr/bin/curl",
          "/usr/bin/systemd-nspawn", "/usr/bin/dbus-daemon", "/usr/lib/systemd/system/dbus.service"]
PRESENT = ["/usr/bin/repeaterd", "/usr/sbin/hostapd", "/usr/sbin/nft", "/usr/sbin/chronyd",
           "/usr/lib/systemd/system/repeaterd.service", "/usr/lib/systemd/systemd-bless-boot",
           "/usr/lib/systemd/system-generators/systemd-bless-boot-generator", "/usr/lib/systemd/systemd-sysupdate"]


def sections(path):
    """The sections of a kernel image (PE), by name."""
    data = path.read_bytes()
    head = struct.unpack_from("<I", data, 0x3C)[0]
    if data[head:head + 4] != b"PE\0\0":
        raise Failed(f"{path}: no kernel image")
    count, optional = struct.unpack_from("<H12xH", data, head + 6)
    found = {}
    for index in range(count):
        at = head + 24 + optional + 40 * index
        size, _, raw, start = struct.unpack_from("<IIII", data, at + 8)
        found[data[at:at + 8].rstrip(b"\0").decode()] = data[start:start + min(size, raw)]
    return found


def words(section):
    """A command line's words."""
    return section.rstrip(b"\0\n").decode().split()


def production_and_test_differ_in_their_command_line_only(scene):
    """And there in one word, which only production has: it takes no credentials."""
    production, test = (sections(scene.image / f"{name}.efi") for name in ("production", "test"))
    if production.keys() != test.keys():
        raise Failed(f"sections {sorted(production)} and {sorted(test)}")
    differ = [name for name in production if production[name] != test[name]]
    if differ != [".cmdline"]:
        raise Failed(f"they differ in {differ}")
    ours, theirs = words(production[".cmdline"]), words(test[".cmdline"])
    if [word for word in ours if word not in theirs] != ["systemd.import_credentials=no"]:
        raise Failed(f"production: {ours}")
    if [word for word in theirs if word not in ours]:
        raise Failed(f"test: {theirs}")
    return f"{len(production)} sections"


def the_root_is_the_one_that_the_command_line_names(scene):
    """Both kernel images name one hash, and it is the hash of the root's bits."""
    named = {re.search(rb"repeater\.roothash=([0-9a-f]{64})", sections(scene.image / f"{name}.efi")[".cmdline"])[1]
             for name in ("production", "test")}
    [root_hash] = named
    binds = [f"{scene.image}=/mnt/image"]
    in_tree(scene.trees["tools"], binds, "veritysetup", "verify", "/mnt/image/root.img", "/mnt/image/root.verity",
            root_hash.decode())
    return root_hash.decode()[:16]


def the_root_lets_nobody_in(scene):
    """No shell on a console, no remote login, no package manager, no interpreter, and nothing of the suite."""
    def there(path):
        return "NID:" in in_tree(scene.trees["tools"], [f"{scene.image}=/mnt/image"], "sh", "-c",
                                 f"dump.erofs --path={path} /mnt/image/root.img 2>/dev/null || true")
    missing = [path for path in PRESENT if not there(path)]
    if missing:
        raise Failed(f"not there: {missing}")
    found = [path for path in ABSENT if there(path)]
    if found:
        raise Failed(f"there: {found}")


def updates_are_believed_by_the_agencys_key_alone(scene):
    """Debian's package brings the keys of several distributions, which could sign for every station."""
    ring = "/usr/lib/systemd/import-pubring.gpg"
    script = f"dump.erofs --path={ring} /mnt/image/root.img >/dev/null 2>&1 && dump.erofs --cat --path={ring} /mnt/image/root.img | base64 -w 0 || true"
    told = in_tree(scene.trees["tools"], [f"{scene.image}=/mnt/image"], "sh", "-c", script)
    known = base64.b64decode(told)
    if known != ((scene.keys / "update.pgp").read_bytes() if scene.keys else b""):
        raise Failed(f"the root knows {len(known)} bytes of keys")
    return f"{len(known)} bytes of keys"


def the_root_is_at_most_64_mb(scene):
    """Compressed, as it lies on the disk."""
    size = (scene.image / "root.img").stat().st_size
    if size > 64_000_000:
        raise Failed(f"{size} bytes")
    return f"{size / 1e6:.1f} MB"


def firmware_is_in_the_root_and_in_the_list_of_parts(scene):
    """What the agency gave for its boards' radios, byte by byte; where it gave nothing, nothing is listed."""
    listed = [part for part in json.loads((scene.image / "sbom.json").read_text())["components"] if part["type"] == "firmware"]
    for part in listed:
        script = f"dump.erofs --cat --path=/usr/lib/firmware/{part['name']} /mnt/image/root.img | sha256sum"
        told = in_tree(scene.trees["tools"], [f"{scene.image}=/mnt/image"], "sh", "-c", script)
        if told.split()[0] != part["hashes"][0]["content"]:
            raise Failed(f"{part['name']}: the root has another, or none")
    return f"{len(listed)} files"


CASES = [production_and_test_differ_in_their_command_line_only, the_root_is_the_one_that_the_command_line_names,
         the_root_lets_nobody_in, updates_are_believed_by_the_agencys_key_alone, firmware_is_in_the_root_and_in_the_list_of_parts,
         the_root_is_at_most_64_mb]
