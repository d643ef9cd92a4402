"""What the groups of updates and of Secure Boot share: a trial set of keys, images that are signed with it, bundles of
them, a server, a USB stick, and the disk of a station that runs such an image.

The keys are those of the image under test, or made for the run. A station's disk is that of scene.py, with the signed image in slot A: its data
partition, with the station's papers, stays.
"""

import functools
import http.server
import shutil
import ssl
import subprocess
import sys
import threading

from disk import boot_files, drop_boot_file, offset, partitions, put_boot_file, sparse_copy
from guest import Failed, in_tree
from scene import HERE

# The station's uplink leads to the machine that qemu runs on.
SERVER = "10.0.2.2"
# A gate that does not take two minutes.
GATE = {"systemd.unit-dropin.repeater-gate.service~suite": b"[Service]\nEnvironment=STABLE_SECONDS=5 WITHIN_SECONDS=400\n"}
# A daemon that never says that it is ready.
HUNG = b"#!/bin/sh\nexec sleep 1000000\n"


class Workshop:
    """Where a release is made."""

    def __init__(self, scene):
        self.scene, self.folder = scene, scene.work / "workshop"
        self.folder.mkdir()
        self.keys = scene.keys or self.folder / "keys"
        if not scene.keys:
            self.tool("trial-keys", "--out", self.keys)
        self.served = self.folder / "served"
        self.served.mkdir()
        self._server = None

    def tool(self, name, *args):
        """Runs one of the image's own commands."""
        subprocess.run([HERE.parent / name, *args, "--cache", self.scene.cache], check=True)

    @property
    def version(self):
        """The version under test."""
        return (self.scene.image / "version").read_text().split()[0]

    @functools.cache
    def image(self, version=None, security=None, daemon=None):
        """The image under test with its signatures; under another version, or with another daemon, where that is said."""
        if version is None and self.scene.keys:
            return self.scene.image
        made = self.folder / f"image-{version or 'own'}"
        programs = self.scene.programs
        if daemon:
            programs = self.folder / f"programs-{version}"
            programs.mkdir()
            (programs / "repeaterd").write_bytes(daemon)
            (programs / "repeaterd").chmod(0o755)
        more = ["--security-version", security] if security else []
        self.tool("build", "--out", made, "--keys", self.keys, "--programs", programs, "--version", version or self.version,
                  "--level", "1", *more)
        return made

    @property
    def next_daemon(self):
        """A daemon whose format of the spool is the next one."""
        at = self.scene.programs / "repeaterd-next"
        if not at.exists():
            raise Failed(f"{at} is not there; os-image/suite/next-release {self.scene.programs} makes it")
        return at.read_bytes()

    def bundle(self, name, image, kernel="test"):
        """A bundle of an image, as the server has it under a name."""
        self.tool("bundle", "--image", image, "--keys", self.keys, "--kernel", kernel, "--out", self.served / name)
        return self.served / name

    def sign(self, folder, secret=None):
        """Writes a bundle's list and its signature anew, with any key."""
        script = ("cd /mnt/b && rm -f SHA256SUMS*; sha256sum -- * >/tmp/s && mv /tmp/s SHA256SUMS; export GNUPGHOME=/tmp/g; "
                  "mkdir -m 700 /tmp/g; gpg --batch --quiet --import /mnt/keys/update.key; "
                  "gpg --batch --quiet --detach-sign --output SHA256SUMS.gpg SHA256SUMS; gpgconf --kill all")
        binds = [f"+{folder}=/mnt/b", f"{secret or self.keys}=/mnt/keys"]
        in_tree(self.scene.trees["tools"], binds, "bash", "-ec", script)

    def serve(self):
        """The agency's server of updates: HTTPS, with a certificate of an authority of its own."""
        if self._server:
            return
        at = self.folder / "tls"
        at.mkdir()
        script = ("cd /mnt/tls; openssl req -new -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30 -subj /CN=updates "
                  f"-addext subjectAltName=IP:{SERVER} -keyout key.pem -out cert.pem 2>/dev/null")
        in_tree(self.scene.trees["tools"], [f"+{at}=/mnt/tls"], "bash", "-ec", script)
        handler = functools.partial(Quiet, directory=str(self.served))
        self._server = Server(("0.0.0.0", 443), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(at / "cert.pem", at / "key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stick(self, bundle):
        """A USB stick with a bundle."""
        to = self.folder / "stick.img"
        script = ("truncate -s 160M /mnt/out/stick.img; mkfs.vfat -F 32 -n STICK /mnt/out/stick.img >/dev/null; "
                  "mmd -i /mnt/out/stick.img ::/repeater-update; mcopy -i /mnt/out/stick.img /mnt/bundle/* ::/repeater-update/")
        in_tree(self.scene.trees["tools"], [f"+{self.folder}=/mnt/out", f"{bundle}=/mnt/bundle"], "bash", "-ec", script)
        return to

    def station(self, name):
        """The disk of a station that runs the signed image: slot A and the boot partition are changed for it."""
        disk, image = self.scene.work / f"{name}.img", self.image()
        sparse_copy(self.scene.enrolled, disk)
        fill(disk, f"repeater_{self.version}", image / "root.img")
        fill(disk, f"repeater_{self.version}_verity", image / "root.verity")
        trees = self.scene.trees
        for file in boot_files(trees, disk):
            drop_boot_file(trees, disk, file)
        put_boot_file(trees, disk, image / "test.efi", f"repeater_{self.version}.efi")
        return disk

    def ask_at(self, name, authority=None):
        """A script that gives the station the server's address for a bundle, and its authority."""
        authority = authority or (self.folder / "tls/cert.pem").read_text()
        return (f"echo UPDATE_URL=https://{SERVER}/{name} >/etc/repeater/update.env; "
                f"cat >/etc/repeater/update-ca.pem <<'E'\n{authority}E\n")

    def close(self):
        """Ends the server."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Answers, and does not speak of it."""

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Guests whose plug is pulled go without a word."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def workshop(scene):
    """The scene's own; made when first asked for."""
    if not hasattr(scene, "workshop"):
        scene.workshop = Workshop(scene)
    return scene.workshop


def fill(disk, partition, source, at=0):
    """Writes a file into a partition."""
    start, size = offset(disk, partition), source.stat().st_size
    if size > next(s for n, _, s in partitions(disk) if n == partition):
        raise Failed(f"{source} does not fit {partition}")
    with open(disk, "r+b") as file, open(source, "rb") as data:
        file.seek(start + at)
        shutil.copyfileobj(data, file, 1 << 20)
