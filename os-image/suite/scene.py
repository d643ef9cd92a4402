"""What the cases share: a station with its archive, the suite's disk, and a guest that is set up once.

The first guest boots the image as it comes from the factory, and is given its station's papers. Its disk is kept; every
group begins from a copy, so that no group depends on what another did.
"""

import pathlib
import subprocess

from disk import boot_files, drop_boot_file, put_boot_file, sparse_copy, with_kernel
from guest import Failed, Guest, until
from station import Station, footage

HERE = pathlib.Path(__file__).resolve().parent

# Footage by name. `long` takes some seconds over the simulated air, so that a camera can leave in the middle of a segment.
FOOTAGE = {"short": footage(1, 3_000_000), "long": footage(2, 9_000_000), "last": footage(3, 2_000_000),
           "film": footage(4, 14_000_000)}
DISK_MIB = 1024


def architecture_of(image):
    """The architecture that an image is for."""
    return (image / "version").read_text().split()[1]


class Scene:
    """The suite's own state."""

    def __init__(self, trees, args, work):
        self.trees, self.work, self.seed, self.cache = trees, work, args.seed, args.cache
        self.check, self.keys = args.check, args.keys and args.keys.resolve()
        self.image, self.programs = args.image.resolve(), args.programs.resolve()
        self.architecture = architecture_of(self.image)
        self.guest = None
        self._station = self._factory = self._enrolled = None

    @property
    def station(self):
        """The agency, the archive and the suite's disk."""
        if self._station is None:
            self._station = Station(self.trees, self.programs, self.work / "station",
                                    alone=self.architecture != "x86-64")
            self._station.make_disk(self.work / "suite.img", FOOTAGE)
            self._station.open_archive()
        return self._station

    @property
    def factory(self):
        """The image's disk, with the kernel image `test`."""
        if self._factory is None:
            self._factory = self.work / "factory.img"
            with_kernel(self.trees, self.image, "test", self._factory, DISK_MIB)
        return self._factory

    @property
    def enrolled(self):
        """A disk that has booted once, and has its station's papers."""
        if self._enrolled is None:
            guest = self.boot(self.factory, "first")
            guest.wait_agent()
            guest.run(". /run/suite/air.sh; enrol && sync")
            self.rest()
            self._enrolled = self.work / "first.img"
            self.bless(self._enrolled)
        return self._enrolled

    def bless(self, disk):
        """A disk as after a first boot that was blessed: the radio that its gate waits for is switched on by some groups only."""
        for name in boot_files(self.trees, disk):
            drop_boot_file(self.trees, disk, name)
            good = name.removesuffix(".efi").split("+")[0]
            put_boot_file(self.trees, disk, self.image / "test.efi", f"{good}.efi")

    def newer_image(self, version):
        """The same image under another version."""
        made = self.work / f"image-{version}"
        if not made.exists():
            subprocess.run([HERE.parent / "build", "--out", made, "--cache", self.cache, "--programs", self.programs,
                            "--version", version, "--arch", self.architecture], check=True)
        return made

    def boot(self, disk, name, secure=False, variables=None, more=(), **options):
        """Switches a guest on with a copy of a disk; the one before is switched off. `more` are further words for qemu."""
        self.rest()
        _ = self.station
        to = self.work / f"{name}.img"
        if to != disk:
            sparse_copy(disk, to)
        self.guest = Guest(self.trees, self.work, to.name, "suite.img", secure=secure, variables=variables,
                           architecture=self.architecture)
        self.guest.more += more
        self.guest.start(**options)
        return self.guest

    def again(self, **options):
        """Switches the same guest on again, with its disk as it is."""
        self.guest.cut()
        self.guest.start(**options)
        return self.guest

    def ready(self, seconds=90):
        """Waits until the daemon serves."""
        guest = self.guest
        until("the daemon is ready", seconds * guest.slower, lambda: guest.ask("systemctl is-active repeaterd")[0] == 0)

    def target(self, met, told):
        """What a case measured; with `--check` a target that is missed fails it."""
        if not met and self.check:
            raise Failed(told)
        return told if met else f"{told} (target missed)"

    def rest(self):
        """Switches the guest off."""
        if self.guest:
            self.guest.cut()
            self.guest = None

    def close(self):
        """Ends everything."""
        self.rest()
        if self._station:
            self._station.close_archive()

    def tell_trouble(self):
        """Prints what a failed case leaves to read."""
        if not self.guest:
            return
        print("--- console:", self.guest.console()[-2500:], sep="\n")
        try:
            print(self.guest.ask("systemctl --failed --no-legend; journalctl -b -p 5 -n 40 --no-pager -o short-monotonic", 20)[1])
        except (Failed, OSError, AttributeError):
            print("--- the guest does not answer")
