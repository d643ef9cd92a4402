"""A machine that boots an image: qemu without hardware virtualisation, with UEFI, so that it runs wherever CI does.

The disk is the shipped one, with one difference: in the boot partition stands the kernel image `test` in place of
`production`, which differs in its command line only (ukis.py). It takes credentials from the firmware (SMBIOS), and by two
of them this suite adds a unit to the guest: it mounts a second disk and serves a second serial port, from which it takes
commands and to which it answers. The root is not touched; it could not be, since dm-verity would not let it boot.
"""

import base64
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
LIB = HERE.parent / "lib.sh"

# A machine of each architecture: qemu's words, firmware and its variables, the second serial port. Of a processor it has what
# one of an access point has, and no more: whatever else qemu would emulate makes the boot slower.
MACHINES = {
    "x86-64": {"qemu": ["qemu-system-x86_64", "-cpu", "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq,+rdrand"],
               "machine": "q35,accel=tcg", "code": "OVMF/OVMF_CODE_4M.fd", "variables": "OVMF/OVMF_VARS_4M.fd", "port": "/dev/ttyS1"},
    "arm64": {"qemu": ["qemu-system-aarch64", "-cpu", "cortex-a72"], "machine": "virt,accel=tcg",
              "code": "AAVMF/AAVMF_CODE.no-secboot.fd", "variables": "AAVMF/AAVMF_VARS.fd", "port": "/dev/ttyAMA1"},
}

# The board's own id, by which its secrets are bound to it.
BOARD = "5b0c6a3e-1f0d-4e0b-9c56-2f6f3a8f7d11"

# The data partition's key, for guests that have no TPM.
KEY = b"a key of 32 bytes, for tests only"[:32]

# How much longer than on a quiet machine anything may take that is not measured; and how much slower than on its own kind an
# arm64 processor is emulated.
PATIENCE = 4
SLOWER = {"x86-64": 1, "arm64": 3}

# systemd of the guest runs this; the script stands on the second disk, which udev may name later than it does the first.
UNIT = """[Unit]
After=systemd-udevd.service local-fs.target
[Service]
ExecStartPre=/bin/sh -c 'until test -e /dev/disk/by-id/virtio-suite; do sleep 0.2; done; mkdir -p /run/suite && mount -t erofs -o ro /dev/disk/by-id/virtio-suite /run/suite'
ExecStart=/bin/sh /run/suite/agent.sh
Environment=PATH=/run/suite/bin:/usr/sbin:/usr/bin PORT={port}
"""
WANTS = "[Unit]\nWants=suite.service\n"


class Failed(Exception):
    """A case has shown something else than it should."""


def until(what, seconds, ask):
    """Asks again and again until the answer is true; returns it. Where nothing else shares the processor all comes in a
    fraction of the time that is given: it is there for machines that others use too."""
    end = time.monotonic() + seconds * PATIENCE
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.3)
    raise Failed(f"{what}: not within {seconds} s")


def inside(tree, binds, command, **options):
    """Starts a command in a tree of Debian; see lib.sh."""
    script = '. "$1"; shift; inside "$@"'
    args = ["bash", "-euo", "pipefail", "-c", script, "inside", str(LIB), str(tree), *binds, "--", *command]
    return subprocess.Popen(args, start_new_session=True, **options)


def in_tree(tree, binds, *command):
    """Runs a command in a tree of Debian, and returns what it printed."""
    process = inside(tree, binds, command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    out, _ = process.communicate()
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)}: ended with {process.returncode}")
    return out.decode()


def with_stick(stick):
    """qemu's words for a machine that has a USB stick in it from the start."""
    return ["-drive", f"file=/mnt/guest/{stick.name},format=raw,if=none,id=stick", "-device", "qemu-xhci", "-device",
            "usb-storage,drive=stick"]


class Guest:
    """One machine: its folder holds its disks, its firmware's variables and what it said."""

    def __init__(self, trees, folder, disk, suite, uplink=True, secure=False, variables=None, architecture="x86-64"):
        self.trees, self.folder, self.secure = trees, pathlib.Path(folder), secure
        self.disk, self.suite, self.uplink = disk, suite, uplink
        self.kind, self.slower = MACHINES[architecture], SLOWER[architecture]
        self.process = self.channel = None
        self.more = []
        self.folder.mkdir(parents=True, exist_ok=True)
        # With no key in it: the firmware is in setup mode, where it checks nothing and takes the first keys that it is given.
        firmware = trees["guest"] / "usr/share" / self.kind["variables"]
        shutil.copy(variables or firmware, self.folder / "vars.fd")

    def start(self, credentials=None, restart=False, drive=None):
        """Switches it on. `drive` are qemu's words for the first disk, where it is not just a file. A credential that is
        None is not given."""
        say = {"systemd.extra-unit.suite.service": UNIT.format(**self.kind).encode(), "systemd.unit-dropin.multi-user.target": WANTS.encode(),
               "repeater.data-key": KEY, **(credentials or {})}
        for name in ("agent", "console", "monitor", "console.txt"):
            (self.folder / name).unlink(missing_ok=True)
        at = "/mnt/guest"
        command = [
            *self.kind["qemu"], "-nodefaults", "-display", "none", "-m", "640",
            "-smp", "1", "-uuid", BOARD, "-rtc", "base=utc", "-device", "virtio-rng-pci", *self._firmware(),
            "-drive", f"if=pflash,format=raw,file={at}/vars.fd",
            *(drive or ["-drive", f"file={at}/{self.disk},format=raw,if=none,id=system,cache=writeback"]),
            "-device", "virtio-blk-pci,drive=system",
            "-drive", f"file={at}/{self.suite},format=raw,if=none,id=suite,readonly=on",
            "-device", "virtio-blk-pci,drive=suite,serial=suite",
            "-chardev", f"socket,id=console,path={at}/console,server=on,wait=off,logfile={at}/console.txt",
            "-serial", "chardev:console", "-serial", f"unix:{at}/agent,server=on,wait=off",
            *self.more,
        ]
        if self.uplink:
            command += ["-nic", "user,id=uplink,model=virtio-net-pci"]
        if not restart:
            command += ["-no-reboot"]
        for name, value in say.items():
            if value is None:
                continue
            text = base64.b64encode(value).decode()
            command += ["-smbios", f"type=11,value=io.systemd.credential.binary:{name}={text}"]
        with open(self.folder / "qemu.txt", "ab") as log:
            self.process = inside(self.trees["guest"], [f"+{self.folder}={at}"], command, stdin=subprocess.DEVNULL,
                                  stdout=log, stderr=log)
        self.began = time.monotonic()

    def _firmware(self):
        """The machine and its firmware. The one with Secure Boot keeps its variables where only its own code can write."""
        code = f"if=pflash,format=raw,readonly=on,file=/usr/share/{self.kind['code']}"
        if not self.secure:
            return ["-machine", self.kind["machine"], "-drive", code]
        return ["-machine", f"{self.kind['machine']},smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
                "-global", "ICH9-LPC.disable_s3=1", "-drive", f"{code.removesuffix('.fd')}.secboot.fd"]

    def type(self, text):
        """Types on its first serial port, as somebody would who plugs a cable in."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(self.folder / "console"))
            channel.sendall(text.encode())
            time.sleep(2)

    def monitor(self, line):
        """Tells qemu something, where `more` gives it a monitor."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(self.folder / "monitor"))
            channel.settimeout(30)
            told = channel.recv(4096)
            channel.sendall(f"{line}\n".encode())
            while told.count(b"(qemu) ") < 2:
                told += channel.recv(4096)
        return told.decode(errors="replace")

    def wait_agent(self, seconds=90):
        """Waits until the guest takes commands; says how long that took."""
        self.channel = None
        def answers():
            if self.process.poll() is not None:
                raise Failed("qemu ended: " + (self.folder / "qemu.txt").read_text()[-400:])
            return self._connect() and self._greet()
        until("the guest takes commands", seconds * self.slower, answers)
        return time.monotonic() - self.began

    def _connect(self):
        if self.channel:
            return True
        channel = socket.socket(socket.AF_UNIX)
        try:
            channel.connect(str(self.folder / "agent"))
        except OSError:
            return False
        channel.settimeout(1)
        self.channel, self.rest = channel, b""
        return True

    def _greet(self):
        """Whether the guest has said that it is ready. Nothing is sent before: firmware and boot loader would take it for
        keys."""
        try:
            return self._line().strip().endswith(b"ready")
        except OSError:
            return False

    def ask(self, script, seconds=60):
        """Runs a shell script in the guest: its exit code, and what it printed."""
        self.channel.settimeout(seconds * self.slower)
        mark = os.urandom(6).hex()
        text = base64.b64encode(script.encode()).decode()
        self.channel.sendall(f"{mark} {text}\n".encode())
        while True:
            line = self._line()
            words = line.split()
            if words[:2] == [b"answer", mark.encode()]:
                out = base64.b64decode(words[3]).decode(errors="replace") if len(words) == 4 else ""
                return int(words[2]), out

    def _line(self):
        while b"\n" not in self.rest:
            got = self.channel.recv(65536)
            if not got:
                raise Failed("the guest has hung up")
            self.rest += got
        line, self.rest = self.rest.split(b"\n", 1)
        return line

    def run(self, script, seconds=60):
        """Runs a shell script in the guest that must succeed; what it printed."""
        code, out = self.ask(script, seconds)
        if code != 0:
            raise Failed(f"in the guest: {script.strip()[:200]}: {code}: {out[-1500:]}")
        return out

    def firmware_took(self):
        """Seconds from switching on to the kernel's own zero."""
        uptime = float(self.run("cat /proc/uptime").split()[0])
        return time.monotonic() - self.began - uptime

    def cut(self):
        """The power goes."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.channel:
            self.channel.close()
        self.channel = None

    def console(self):
        """What it wrote to its first serial port since it was switched on."""
        at = self.folder / "console.txt"
        return at.read_text(errors="replace") if at.exists() else ""
