"""A station for the suite: an agency on trial, its archive outside the guest, and the disk that goes into the guest.

The archive runs beside qemu, in the same network namespace, where the guest's uplink reaches it at 10.0.2.2. The disk has
what only the suite needs, and the image must not have: the simulated radio's module, a camera's supplicant with its
libraries, `bodycam`, the cameras' certificates, footage, and the station's papers, which an installer would bring.
"""

import os
import pathlib
import random
import shutil
import subprocess

from guest import Failed, in_tree, until

HERE = pathlib.Path(__file__).resolve().parent
STATION, SITE = "trial", "site-a"
ARCHIVE = "10.0.2.2:47801"
# What the image must not have: simulated radios, an uplink that is made bad, a camera's end of a USB cable and its bay.
MODULES = ["mac80211_hwsim", "sch_netem", "sch_ingress", "act_mirred", "cls_matchall", "ifb",
           "dummy_hcd", "libcomposite", "usb_f_ncm"]

CONFIG = f"""[identity]
chain = "/etc/repeater/chain.pem"
key = "$CREDENTIALS_DIRECTORY/key.pem"
trust = "/etc/repeater/trust.pem"
crl = "/etc/repeater/crl.pem"
key_list = "/etc/repeater/key-list.cose"

[spool]
dir = "/var/lib/repeater/spool"
suspect_dir = "/run/repeater"

[[archive]]
site = "{SITE}"
addresses = ["{ARCHIVE}"]

[discover]
mdns = true
wan = ["wan*", "wwan*"]

[[discover.hostapd]]
socket = "/run/hostapd/wlan0"
kind = "wireless"

[[discover.dock]]
path = "*/dummy_hcd.*"
bay = "A1"

[listen]
http = "127.0.0.1:9470"
"""

# What differs from the configuration that is shipped: a camera that walked away is missed sooner.
HOSTAPD = {"ap_max_inactivity": "5"}

SUPPLICANT = """ctrl_interface=/run/supplicant
network={{
 ssid="BWC-STATION"
 scan_freq=5180
 key_mgmt=WPA-EAP-SHA256
 ieee80211w=2
 eap=TLS
 identity="anonymous"
 ca_cert="/run/suite/agency/trust.pem"
 client_cert="/run/suite/cameras/{camera}/link.pem"
 private_key="/run/suite/cameras/{camera}/link.key"
 phase1="tls_disable_tlsv1_3=0"
 altsubject_match="URI:urn:bwc:repeater:{station}:1"
}}
"""


def footage(seed, size):
    """Footage of a size: nobody can compress it, and it is the same each time."""
    return random.Random(seed).randbytes(size)


class Station:
    """The agency, the archive, and the suite's disk."""

    def __init__(self, trees, programs, folder, cameras=2, alone=False):
        self.trees, self.programs, self.folder = trees, pathlib.Path(programs), pathlib.Path(folder)
        self.folder.mkdir(parents=True)
        self.agency = self.folder / "agency"
        self.run("agency", "trial", self.agency, "--cameras", str(cameras), "--sites", SITE, "--station", STATION)
        self.cameras = [f"BWC-{n:04}" for n in range(1, cameras + 1)]
        self.archive, self.alone = None, alone
        self._configure_archive()

    def run(self, program, *args):
        """Runs one of the project's programs; what it printed."""
        done = subprocess.run([self.programs / program, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise Failed(f"{program} {args[0]}: {done.returncode}: {done.stderr[-800:]}")
        return done.stdout

    def _configure_archive(self):
        own = self.agency / "archives" / SITE
        self.config, self.store = self.folder / "archive.toml", self.folder / "store"
        self.store.mkdir()
        self.config.write_text(
            f'site = "{SITE}"\nlisten = "0.0.0.0:47801"\nstore = "file://{self.store}"\ndurability = "fsync"\n'
            f'[credentials]\nchain = "{own}/chain.pem"\nkey = "{own}/key.pem"\nreceipt_key = "{own}/receipt.key"\n'
            f'trust = "{self.agency}/trust.pem"\ncrl = "{self.agency}/crl.pem"\nkey_list = "{self.agency}/key-list.cose"\n')
        self.run("archive", "init", "--config", self.config)

    def open_archive(self):
        """Starts the archive's gateway."""
        with open(self.folder / "archive.txt", "ab") as log:
            self.archive = subprocess.Popen([self.programs / "archive", "run", "--config", self.config],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("the archive listens", 20, lambda: "listening on" in (self.folder / "archive.txt").read_text())

    def close_archive(self):
        """Stops it."""
        if self.archive:
            self.archive.terminate()
            self.archive.wait()
        self.archive = None

    def archived(self):
        """The recordings that the archive has, by their names."""
        return self.run("archive", "list", "--store", f"file://{self.store}").split("\n")

    def exported(self, recording):
        """A recording as the archive gives it out."""
        out = self.folder / "exported"
        out.unlink(missing_ok=True)
        self.run("archive", "export", recording, "--store", f"file://{self.store}", "--trust", self.agency / "trust.pem",
                 "--key", self.agency / "recipients/archive.key", "-o", out)
        return out.read_bytes()

    def make_disk(self, to, recordings):
        """Writes the suite's disk. `recordings` are pieces of footage, by name. A station that is alone has no cameras: their
        programs and the modules of simulated air are this machine's, and its guest's processor is another."""
        at = self.folder / "disk"
        shutil.rmtree(at, ignore_errors=True)
        for name in ("bin", "modules", "station", "agency", "cameras", "footage", "lib"):
            (at / name).mkdir(parents=True)
        for script in ("agent.sh", "air.sh", "dock.sh", "uplink.sh"):
            shutil.copy(HERE / script, at)
        for name, data in recordings.items():
            (at / "footage" / name).write_bytes(data)
        self._papers(at)
        if not self.alone:
            self._programs(at)
            self._modules(at)
        in_tree(self.trees["guest"], [f"{at}=/mnt/disk", f"+{to.parent}=/mnt/out"], "mkfs.erofs", "--quiet",
                f"/mnt/out/{to.name}", "/mnt/disk")
        shutil.rmtree(at)

    def _papers(self, at):
        own = self.agency / "repeaters" / f"{STATION}-1"
        for name in ("trust.pem", "crl.pem", "key-list.cose"):
            shutil.copy(self.agency / name, at / "agency")
            shutil.copy(self.agency / name, at / "station")
        for name in ("chain.pem", "key.pem"):
            shutil.copy(own / name, at / "station")
        (at / "station/repeater.toml").write_text(CONFIG)
        (at / "station/wlan0.conf").write_text(self._hostapd())
        for camera in self.cameras:
            shutil.copytree(self.agency / "cameras" / camera, at / "cameras" / camera)
            (at / "cameras" / camera / "supplicant").write_text(SUPPLICANT.format(camera=camera, station=STATION))

    def _hostapd(self):
        """The configuration that is shipped, but for HOSTAPD."""
        shipped = (HERE.parent.parent / "systemd/hostapd/station.conf").read_text()
        lines = [line for line in shipped.splitlines() if line.split("=")[0] not in HOSTAPD]
        return "\n".join(lines + [f"{key}={value}" for key, value in HOSTAPD.items()]) + "\n"

    def _programs(self, at):
        """Programs of the suite; those of Debian with the libraries that they need, under a name that runs them with these."""
        shutil.copy(self.programs / "bodycam", at / "bin")
        for program in ("/usr/sbin/wpa_supplicant", "/usr/sbin/wpa_cli"):
            name = os.path.basename(program)
            shutil.copy(f"{self.trees['guest']}{program}", at / "lib" / name)
            for line in in_tree(self.trees["guest"], [], "ldd", program).splitlines():
                path = next((word for word in line.split() if word.startswith("/")), None)
                if path and not path.startswith("/lib64/ld-"):
                    shutil.copy(f"{self.trees['guest']}{path}", at / "lib")
            script = at / "bin" / name
            script.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH=/run/suite/lib exec /run/suite/lib/{name} "$@"\n')
            script.chmod(0o755)

    def _modules(self, at):
        """The kernel's modules that only the suite loads, each with a list of the files to load, in order."""
        tree = self.trees["tools"]
        [kernel] = (tree / "kernel/usr/lib/modules").iterdir()
        for module in MODULES:
            told = in_tree(tree, [], "modprobe", "-d", "/kernel", "-S", kernel.name, "--show-depends", module)
            files = [pathlib.Path(line.split()[1]) for line in told.splitlines() if line.startswith("insmod ")]
            for file in files:
                packed = (tree / file.relative_to("/")).read_bytes()
                plain = subprocess.run(["xz", "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout
                (at / "modules" / file.stem).write_bytes(plain)
            (at / "modules" / f"{module}.order").write_text("".join(f"{file.stem}\n" for file in files))
