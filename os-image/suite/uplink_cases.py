"""The uplink is bad, and then it is gone: footage goes on coming in, is kept, and leaves by itself when there is a way again.

It is made bad in the guest, by the kernel's own emulation of networks (netem), which is on the suite's disk. It goes as a
cable does: qemu takes the carrier away, and with it the guest loses its address, its route and its archive.
"""

from air_cases import AIR, CAMERA, RADIO, counted, held_by_camera, let_in, offloaded, page, record
from guest import Failed, until
from scene import FOOTAGE

UPLINK = AIR + ". /run/suite/uplink.sh; "
MONITOR = ["-monitor", "unix:/mnt/guest/monitor,server=on,wait=off"]


def line(scene):
    """What the daemon says of itself to the service manager."""
    return scene.guest.run(f"{UPLINK} said").strip()


def a_camera_offloads_over_a_bad_uplink(scene):
    """20 Mbit/s, 40 ms, and 5 of 100 packets lost in either direction: all is archived, nothing is sent by the camera twice."""
    guest = scene.boot(scene.enrolled, "uplink", more=MONITOR)
    guest.wait_agent()
    scene.ready()
    guest.run(f"{UPLINK} worsen")
    guest.run(f"{AIR} radios 2")
    guest.run(f"{AIR} camera {CAMERA} {RADIO}")
    let_in(guest)
    recording = record(guest, "long")
    sealed = held_by_camera(guest)["bytes"]
    until("all of it has come", 120, lambda: counted(guest, "repeater_pulled_bytes_total") >= sealed)
    # The camera may be asleep when the last receipt comes, and is told with its next news.
    until("all is archived", 300, lambda: line(scene).endswith("0 B waiting, archive ok"))
    if scene.station.exported(recording) != FOOTAGE["long"]:
        raise Failed("the archive gives out something else than was recorded")
    left, arrived = map(int, guest.run(f"{UPLINK} dropped").split())
    if left < 20 or arrived < 5:
        raise Failed(f"{left} packets that left and {arrived} that arrived were lost: the uplink was not bad")
    if (pulled := counted(guest, "repeater_pulled_bytes_total")) != sealed:
        raise Failed(f"{pulled} bytes pulled of {sealed}")
    return f"{len(FOOTAGE['long'])} bytes, {left} and {arrived} packets lost on the way"


def without_an_uplink_footage_is_held_and_status_says_so(scene):
    """The cable is pulled: what the camera brings now is Held, and the camera erases nothing of it."""
    guest = scene.guest
    guest.monitor("set_link uplink off")
    until("the uplink is known to be gone", 60, lambda: "default" not in guest.run("ip route"))
    scene.held = record(guest, "short")
    until("all of it is Held", 120, lambda: page(guest)["spool"]["bytes"].get("held", 0) >= len(FOOTAGE["short"]))
    until("status says so", 120, lambda: line(scene).endswith("archive away"))
    number = int(scene.held.rsplit("/", 1)[1])
    [kept] = [one for one in held_by_camera(guest)["recordings"] if one["number"] == number]
    if kept["held"] != kept["segments"] or kept["receipted"] or page(guest)["spool"]["unaccounted"]:
        raise Failed(f"the camera has {kept}")
    if scene.held in "\n".join(scene.station.archived()):
        raise Failed("the archive has it: the uplink was not gone")
    return line(scene)


def it_comes_back_by_itself(scene):
    """The cable is plugged in again, nobody does anything else: what was Held is archived. The camera, which slept meanwhile,
    is told when it has news."""
    guest = scene.guest
    guest.monitor("set_link uplink on")
    until("status says so", 180, lambda: line(scene).endswith("0 B waiting, archive ok"))
    if scene.station.exported(scene.held) != FOOTAGE["short"]:
        raise Failed("the archive gives out something else than was recorded")
    offloaded(scene, record(guest, "last"), "last", 180)
    return line(scene)


CASES = [a_camera_offloads_over_a_bad_uplink, without_an_uplink_footage_is_held_and_status_says_so, it_comes_back_by_itself]
