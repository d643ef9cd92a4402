"""An image boots, makes its data partition, serves, and stays what it is; and goes back to the version before where the new
one cannot boot.
"""

import itertools
import shutil

from disk import boot_files, drop_boot_file, label, offset, partitions, put_boot_file, sparse_copy
from guest import HERE, Failed, until

# What is aimed at, in seconds and MiB.
READY_WITHIN, DAEMON_MIB, IMAGE_MIB, BACK_WITHIN = 40, 40, 160, 2
# Of the time to READY the daemon's own start; and all of it over that of a boot without the daemon.
OWN_START, OVER_MASKED = 1.5, 1.3
# A board's watchdog, which restarts nothing here: this machine may be busier than any board.
WATCHDOG = ["-device", "i6300esb", "-action", "watchdog=none"]


def the_first_boot_makes_the_data_partition(scene):
    """Encrypted, on what the image leaves of the disk; everything else is read-only and verified."""
    guest = scene.boot(scene.factory, "factory-first")
    took = guest.wait_agent()
    told = guest.run("findmnt -no SOURCE,FSTYPE,OPTIONS /; findmnt -no SOURCE,FSTYPE,OPTIONS /var; cryptsetup status data; cryptsetup isLuks "
                     "/dev/disk/by-partlabel/repeater-data && echo LUKS; dmsetup table root")
    for word in ("/dev/mapper/data", "LUKS2", "erofs", "restart_on_corruption", "LUKS\n"):
        if word not in told:
            raise Failed(f"no {word} in: {told}")
    code, _ = guest.ask("touch /usr/bin/x")
    if code == 0:
        raise Failed("the root can be written to")
    name, _, size = partitions(scene.work / "factory-first.img")[-1]
    if name != "repeater-data" or size < 256 << 20:
        raise Failed(f"the last partition is {name}, {size} bytes")
    return f"{took:.0f} s, {size >> 20} MiB of data"


def it_boots_to_ready(scene):
    """From switching on, through the firmware, to the daemon's READY."""
    guest = scene.boot(scene.enrolled, "second", more=WATCHDOG)
    guest.wait_agent()
    scene.ready()
    scene.took, own = ready_after(guest)
    near = scene.took <= READY_WITHIN and own <= OWN_START
    return scene.target(near, f"{scene.took:.1f} s, the daemon's own start {own:.1f} s of it")


def ready_after(guest):
    """Seconds from switching on to the daemon's READY, and what of it the daemon's own start took."""
    spans = guest.run("systemctl show repeaterd -p ExecMainStartTimestampMonotonic -p ActiveEnterTimestampMonotonic")
    started, active = sorted(int(line.split("=")[1]) / 1e6 for line in spans.split())
    return guest.firmware_took() + active, active - started


def no_unit_has_failed(scene):
    """Nothing of the image is broken that nobody looks at."""
    failed = scene.guest.run("systemctl --failed --no-legend --plain")
    if failed.strip():
        raise Failed(failed)


def the_boards_watchdog_is_fed(scene):
    """A system that hangs is restarted by the board, a minute later."""
    told = scene.guest.run("cat /sys/class/watchdog/watchdog0/state /sys/class/watchdog/watchdog0/timeout")
    if told.split() != ["active", "60"]:
        raise Failed(told)


def the_daemon_and_the_image_in_memory(scene):
    """The daemon at idle, and all memory in use, caches not counted."""
    told = scene.guest.run("pid=$(systemctl show -p MainPID --value repeaterd); sed -n 's/^Pss: *//p' /proc/$pid/smaps_rollup; "
                           "sed -n 's/^MemTotal: *//p; s/^MemAvailable: *//p' /proc/meminfo")
    daemon, total, free = (int(line.split()[0]) / 1024 for line in told.splitlines())
    small = daemon <= DAEMON_MIB and total - free <= IMAGE_MIB
    return scene.target(small, f"daemon {daemon:.0f} MiB, image {total - free:.0f} MiB")


def a_killed_daemon_is_back(scene):
    """By the guest's own clock, from SIGKILL to READY."""
    took = scene.guest.run("""
        was=$(systemctl show -p MainPID --value repeaterd)
        from=$(date +%s%N); kill -KILL "$was"
        until [ "$(systemctl is-active repeaterd)" = active ] && [ "$(systemctl show -p MainPID --value repeaterd)" != "$was" ]
        do sleep 0.05; done
        echo $((($(date +%s%N) - from) / 1000000))""")
    return scene.target(int(took) <= BACK_WITHIN * 1000, f"{took.strip()} ms")


def radios():
    """The modules of modules.list that are radios' drivers, and what hostapd needs beside them."""
    lines = (HERE.parent / "modules.list").read_text().split("\n# radios", 1)[1].splitlines()[1:]
    return list(itertools.takewhile(lambda line: not line.startswith("#"), lines))


def the_drivers_of_radios_load(scene):
    """Of every radio that HARDWARE.md names, whether or not one is there."""
    names = radios()
    scene.guest.run("".join(f"modprobe {name} || exit 1\n" for name in names))
    return " ".join(names)


def the_daemon_adds_little_to_the_boot(scene):
    """The same kernel image and disk without the daemon, until all that it starts is started."""
    masked = {"systemd.unit-dropin.repeaterd.service": b"[Unit]\nConditionPathExists=/nowhere\n"}
    guest = scene.boot(scene.enrolled, "masked", credentials=masked)
    guest.wait_agent()
    until("the boot ends", 90, lambda: guest.ask("systemctl is-active multi-user.target")[0] == 0)
    if guest.ask("systemctl is-active repeaterd")[0] == 0:
        raise Failed("the daemon runs")
    ended = int(guest.run("systemctl show multi-user.target -p ActiveEnterTimestampMonotonic --value")) / 1e6
    without = guest.firmware_took() + ended
    ratio = scene.took / without
    return scene.target(ratio <= OVER_MASKED, f"{ratio:.2f}: {scene.took:.1f} s with it, {without:.1f} s without")


def production_takes_no_credentials(scene):
    """The shipped kernel image with the suite's credentials: nobody answers, and without a TPM no data partition is made."""
    disk = scene.work / "production.img"
    sparse_copy(scene.image / "disk.img", disk)
    with open(disk, "r+b") as file:
        file.truncate(1 << 30)
    guest = scene.boot(disk, "production")
    until("the machine restarts", 90, lambda: guest.process.poll() is not None)
    console = guest.console()
    if "this board has no TPM, and no key is given" not in console:
        raise Failed(f"the console does not say why it restarts: {console[-1000:]}")
    if "login:" in console or "# " in console:
        raise Failed("the console asks for somebody")
    names = [name for name, _, _ in partitions(disk)]
    with open(disk, "rb") as file:
        file.seek(offset(disk, "repeater-data"))
        if "repeater-data" in names and file.read(6) == b"LUKS\xba\xbe":
            raise Failed("the data partition was made with the key that was passed in")


def a_damaged_root_leads_back_to_the_version_before(scene):
    """A newer version in slot B, on its last try; one of its blocks is wrong. The old one boots, and the new one is spent."""
    disk = scene.work / "slots.img"
    sparse_copy(scene.enrolled, disk)
    version = newer(scene, disk)
    start = offset(disk, f"repeater_{version}")
    with open(disk, "r+b") as file:
        for at in range(0, (scene.image / "root.img").stat().st_size, 1 << 20):
            file.seek(start + at)
            file.write(bytes(4096))
    guest = scene.boot(disk, "slots", restart=True)
    took = guest.wait_agent(150)
    running = guest.run("sed -n 's/^IMAGE_VERSION=//p' /etc/os-release; tr ' ' '\\n' </proc/cmdline | grep repeater.version")
    if f"={version}" in running:
        raise Failed(f"running: {running}")
    scene.ready()
    scene.rest()
    files = boot_files(scene.trees, disk)
    if f"repeater_{version}+0-1.efi" not in files:
        raise Failed(f"boot partition: {files}")
    return f"{took:.0f} s, {' '.join(files)}"


def newer(scene, disk):
    """Installs a newer version into slot B, as an update does: the root, its hash tree, the names, the kernel image."""
    version = "99.0.0"
    made = scene.newer_image(version)
    names = [name for name, _, _ in partitions(disk)]
    first = names.index("_empty")
    with open(disk, "r+b") as file:
        for index, part in ((first, "root.img"), (first + 1, "root.verity")):
            file.seek(partitions(disk)[index][1])
            with open(made / part, "rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
    for index, name in ((first, f"repeater_{version}"), (first + 1, f"repeater_{version}_verity")):
        label(scene.trees, disk, index + 1, name)
    for name in boot_files(scene.trees, disk):
        drop_boot_file(scene.trees, disk, name)
        put_boot_file(scene.trees, disk, scene.image / "test.efi", name.split("+")[0].removesuffix(".efi") + ".efi")
    put_boot_file(scene.trees, disk, made / "test.efi", f"repeater_{version}+1.efi")
    return version


CASES = [the_first_boot_makes_the_data_partition, it_boots_to_ready, no_unit_has_failed, the_boards_watchdog_is_fed,
         the_daemon_and_the_image_in_memory, a_killed_daemon_is_back, the_drivers_of_radios_load,
         the_daemon_adds_little_to_the_boot]
SLOTS = [a_damaged_root_leads_back_to_the_version_before, production_takes_no_credentials]
