"""A camera that is heard over the air is put into a bay of a dock by USB, while it records; it goes on over the cable.

The cable is simulated where a cable has no say in what follows: the kernel's own USB host drives the kernel's own USB device
(dummy_hcd), whose Ethernet function (NCM) is the camera's interface. Whatever the station does about it is the image's:
udev, the driver, the link's configuration, the firewall, the daemon.
"""

from air_cases import AIR, CAMERA, RADIO, counted, held_by_camera, let_in, offloaded, page
from guest import Failed, until
from scene import FOOTAGE

DOCK = AIR + ". /run/suite/dock.sh; "
SOCKET = "usb0"
# So much is recorded when the camera is docked: two segments of 4 MiB are sealed, the third has begun.
BEGUN = 9_000_000
# What sealing adds to a recording, header included.
OVERHEAD = 8192


def near(guest):
    """The daemon's line for the camera: where it is met, and what was learnt there."""
    found = page(guest)["cameras"]
    return found[0] if found else {"path": None, "contact": None}


def a_camera_records_and_offloads_over_the_air(scene):
    """It is nearby, on its battery, in the middle of a recording; what is sealed comes in already."""
    guest = scene.boot(scene.enrolled, "usb")
    guest.wait_agent()
    scene.ready()
    guest.run(f"{AIR} radios 2")
    guest.run(f"{DOCK} bay")
    guest.run(f"{AIR} camera {CAMERA} {RADIO} {SOCKET}")
    let_in(guest)
    guest.run(f"{DOCK} films {CAMERA} film {BEGUN}")
    until("some of it has come", 120, lambda: counted(guest, "repeater_pulled_bytes_total") > 500_000)
    met = near(guest)
    contact = met["contact"]
    if contact["docked"] or contact["charging"] is not False or contact["battery_percent"] != 57:
        raise Failed(f"met as {met}")
    return f"heard at {contact['signal_dbm']} dBm, battery {contact['battery_percent']} %, does not charge"


def it_is_docked_by_usb_and_the_cable_takes_over(scene):
    """Nobody tells the station: the kernel and udev make a link of what was plugged in, and the daemon finds its bay by its
    path. The camera is met docked and charging while it still records."""
    guest = scene.guest
    guest.run(f"{DOCK} dock {CAMERA} {SOCKET}")
    def docked():
        contact = near(guest)["contact"]
        return contact if contact["docked"] else None
    contact = until("the camera is met in its bay", 60, docked)
    if contact["bay"] != "A1" or contact["charging"] is not True:
        raise Failed(f"met as {contact}")
    def told():
        said = guest.run("systemctl show -p StatusText --value repeaterd")
        return said if said.split()[:2] == ["1", "docked,"] else None
    said = until("the daemon's status says so, too", 30, told)
    states = [recording["state"] for recording in held_by_camera(guest)["recordings"]]
    if states != ["recording"]:
        raise Failed(f"the recording had ended before the camera was met in its bay: {states}")
    return f"bay {contact['bay']}, {guest.run(f'{DOCK} station_end').strip()}, charges; {said.strip()}"


def the_recording_ends_in_the_bay_and_no_byte_was_sent_twice(scene):
    """What was recorded before and after the move is one recording, archived whole."""
    guest = scene.guest
    sealed = guest.run(f"{DOCK} filmed {CAMERA} film {BEGUN}", 180).split()
    if len(sealed) < 6 or sealed[4] != "bytes":
        raise Failed(f"sealed: {sealed}")
    offloaded(scene, sealed[1], "film", 180)
    pulled, recorded = counted(guest, "repeater_pulled_bytes_total"), len(FOOTAGE["film"])
    if not recorded <= pulled <= recorded + OVERHEAD:
        raise Failed(f"{pulled} bytes pulled of {recorded} that were recorded")
    return f"{recorded} bytes recorded, {pulled} pulled"


CASES = [a_camera_records_and_offloads_over_the_air, it_is_docked_by_usb_and_the_cable_takes_over,
         the_recording_ends_in_the_bay_and_no_byte_was_sent_twice]
