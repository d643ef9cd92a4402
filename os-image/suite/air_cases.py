"""A camera comes into range, is let in, found, and offloaded; walks away in the middle of a segment, and comes back.

The radios are simulated (mac80211_hwsim); hostapd is the image's own with the configuration that is shipped, on its channel of
5 GHz; the archive is outside the guest, behind its uplink and its firewall.
"""

import json
import re

from guest import Failed, until
from scene import FOOTAGE

AIR = ". /run/suite/air.sh; "
# WPA-EAP-SHA256, as hostapd names it.
SHA256_EAP = "AKMSuiteSelector=00-0f-ac-5"
CAMERA, RADIO = "BWC-0001", "wlan1"


def page(guest):
    """The daemon's own account."""
    return json.loads(guest.run("repeaterd status --config /etc/repeater/repeater.toml --json"))


def held_by_camera(guest, camera=CAMERA):
    """The camera's own account."""
    return json.loads(guest.run(f"{AIR} status {camera}"))


def on_the_air(guest, *words):
    """Waits until the station's radio is an access point, all of whose words the kernel says of it; its channel."""
    until("hostapd runs", 30, lambda: guest.ask("systemctl is-active hostapd@wlan0")[0] == 0)
    until("the access point is on the air", 30, lambda: "channel" in guest.run("iw dev wlan0 info"))
    told = guest.run("iw dev wlan0 info; iw reg get")
    for word in ("type AP", *words):
        if word not in told:
            raise Failed(f"no {word} in: {told}")
    return re.search(r"channel.*", told)[0]


def let_in(guest):
    """Waits until hostapd has let a camera in; hostapd itself may still be starting."""
    def authorized():
        code, told = guest.ask(f"{AIR} stations")
        return code == 0 and "[AUTHORIZED]" in told
    until("the camera is let in", 60, authorized)


def counted(guest, name):
    """One of the daemon's figures."""
    text = guest.run(f"{AIR} metrics")
    found = re.search(rf"^{name} (\d+)", text, re.M)
    return int(found[1]) if found else 0


def all_is_held(guest):
    """Whether footage is Held, and none is announced that has not come yet."""
    stages = page(guest)["spool"]["segments"]
    return stages.get("held", 0) > 0 and not stages.get("announced", 0)


def record(guest, name, camera=CAMERA):
    """The camera records; the recording's name."""
    said = guest.run(f"{AIR} seal {camera} {name}").split()
    return said[1]


def offloaded(scene, recording, name, seconds=120):
    """Waits until a camera has erased all on receipts; what the archive gives out is what was recorded."""
    guest = scene.guest
    until("all is archived and erased", seconds, lambda: not held_by_camera(guest)["recordings"])
    if scene.station.exported(recording) != FOOTAGE[name]:
        raise Failed("the archive gives out something else than was recorded")
    if (lost := held_by_camera(guest)["lost"]) or (left := page(guest)["spool"]["unaccounted"]):
        raise Failed(f"lost {lost}, unaccounted {left}")


def the_radio_keeps_to_what_the_country_allows(scene):
    """The image's own rules start hostapd when the radio appears; the kernel has the country's table, and opens 5 GHz by it."""
    guest = scene.boot(scene.enrolled, "air")
    guest.wait_agent()
    scene.ready()
    guest.run(f"{AIR} radios 2")
    return on_the_air(guest, "channel 36 (5180 MHz), width: 80 MHz", "country KR: DFS-JP")


def a_camera_associates_by_eap_tls(scene):
    """The camera has nothing but its certificate."""
    guest = scene.guest
    guest.run(f"{AIR} camera {CAMERA} {RADIO}")
    let_in(guest)
    told = guest.run(f"{AIR} stations")
    if SHA256_EAP not in told:
        raise Failed(told)


def it_is_found_and_offloaded_and_erases(scene):
    """Nobody types an address; the archive outside signs, and the camera erases on its receipts."""
    recording = record(scene.guest, "short")
    offloaded(scene, recording, "short")
    near = page(scene.guest)["cameras"][0]
    return f"{len(FOOTAGE['short'])} bytes, heard at {near['path'] and near['path']['signal_dbm']} dBm"


def it_leaves_within_a_segment_comes_back_and_sends_nothing_twice(scene):
    """What had come of a segment counts: the rest is pulled, and no byte again."""
    guest = scene.guest
    before = counted(guest, "repeater_pulled_bytes_total")
    recording = record(guest, "long")
    sealed = held_by_camera(guest)["bytes"]
    def part():
        return counted(guest, "repeater_pulled_bytes_total") - before
    until("some of it has come", 60, lambda: part() > 1_000_000)
    guest.run(f"{AIR} group {CAMERA} 2")
    until("the camera is gone", 60, lambda: "AUTHORIZED" not in guest.run(f"{AIR} stations"))
    at = part()
    if at >= sealed:
        raise Failed(f"nothing was left to send: {at} of {sealed} bytes")
    guest.run(f"{AIR} group {CAMERA} 1")
    offloaded(scene, recording, "long")
    pulled = part()
    if pulled != sealed:
        raise Failed(f"{pulled} bytes pulled of {sealed}")
    return f"left after {at} of {sealed} bytes"


CASES = [the_radio_keeps_to_what_the_country_allows, a_camera_associates_by_eap_tls, it_is_found_and_offloaded_and_erases,
         it_leaves_within_a_segment_comes_back_and_sends_nothing_twice]
