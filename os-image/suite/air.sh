#!/bin/sh
# What the suite does in the guest, as functions; guest.py has them run. It stands on the suite's own disk.
#
# The air is simulated: mac80211_hwsim gives radios that hear each other as long as they are in one group. wlan0 stays with
# the station, where the image's own rules start its hostapd; every further radio goes to a camera in a network namespace
# of its own, with a supplicant and `bodycam`, whose store is on the data partition (so a power cut cuts cameras as well).
# shellcheck disable=SC2034 # used by who sources this
suite=/run/suite
cameras=/var/lib/suite

# load MODULE [WORD...]: a module of the suite's own, and before it those that it needs and nobody has loaded yet.
load() {
  module=$1
  shift
  while read -r file; do
    grep -q "^$(basename "$file" .ko | tr - _) " /proc/modules && continue
    if [ "$(basename "$file" .ko)" = "$module" ]; then
      insmod "$suite/modules/$file" "$@" || return
    else
      insmod "$suite/modules/$file" || return
    fi
  done <"$suite/modules/$module.order"
}

# Brings a station's papers, as an installer does, and starts it.
enrol() {
  install -m 644 -t /etc/repeater $suite/station/chain.pem $suite/station/trust.pem $suite/station/crl.pem \
    $suite/station/key-list.cose $suite/station/repeater.toml || return
  install -m 644 $suite/station/wlan0.conf /etc/hostapd/wlan0.conf || return
  systemd-creds encrypt --name=key.pem $suite/station/key.pem /etc/credstore.encrypted/repeater-key.pem
}

# radios COUNT: switches the air on; the first radio is the station's.
radios() { modprobe mac80211 && load mac80211_hwsim radios="$1" && sleep 1; }

# phy INTERFACE: the radio of an interface.
phy() { echo "phy$(iw dev "$1" info | sed -n 's/^.*wiphy //p')"; }

# camera NAME RADIO [SOCKET]: a camera with its radio, a supplicant, and `bodycam` that serves on it, and on its dock's socket
# where it has one. Its battery is a folder, as the kernel shows one.
camera() {
  name=$1 radio=$2
  mkdir -p "$cameras/$name" "/run/cameras/$name.battery"
  battery "$name" 57 Discharging
  phy "$radio" >"/run/cameras/$name.phy"
  ip netns add "$name" && iw phy "$(cat "/run/cameras/$name.phy")" set netns name "$name" || return
  ip -n "$name" link set lo up
  # The supplicant brings the interface up; its link-local address is the camera's only one.
  ip netns exec "$name" wpa_supplicant -B -t -Dnl80211 -i "$radio" -c "$suite/cameras/$name/supplicant" \
    -f "/run/cameras/$name.supplicant" -P "/run/cameras/$name.pid" || return
  serve "$name" --link "$radio" ${3:+--link "$3"}
}

# battery NAME PERCENT WORD: what the kernel says of a camera's battery.
battery() { echo "$2" >"/run/cameras/$1.battery/capacity" && echo "$3" >"/run/cameras/$1.battery/status"; }

# papers NAME: the arguments that every command of a camera has.
papers() { echo "--store $cameras/$1/store --credentials $suite/cameras/$1 --agency $suite/agency"; }

# serve NAME WORD...: starts a camera's program; words say the links.
serve() {
  name=$1
  shift
  # shellcheck disable=SC2046 # words
  ip netns exec "$name" $suite/bin/bodycam serve $(papers "$name") --listen "[::]:47800" --erase now --announce \
    --battery "/run/cameras/$name.battery" "$@" >"/run/cameras/$name.log" 2>&1 &
  echo $! >"/run/cameras/$name.serves"
}

# seal NAME FOOTAGE: a camera records.
seal() {
  mkdir -p "$cameras/$1"
  # shellcheck disable=SC2046 # words
  $suite/bin/bodycam seal $(papers "$1") "$suite/footage/$2" 2>/run/cameras/seal.log
}

status() { $suite/bin/bodycam status --store "$cameras/$1/store" --json; }

# group NAME NUMBER: puts a camera's radio into a group; 1 is where it hears the station, 2 is out of range.
group() {
  mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
  echo "$2" >"/sys/kernel/debug/ieee80211/$(cat "/run/cameras/$1.phy")/hwsim/group"
}

# stations: who is associated and authenticated, as hostapd says it. It answers to a file that it can see: its /tmp is its own.
stations() { mkdir -p /run/cameras && hostapd_cli -p /run/hostapd -s /run/cameras -i wlan0 all_sta; }

# metrics: the daemon's figures; the image has no program that fetches a page.
metrics() { bash -c 'exec 3<>/dev/tcp/127.0.0.1/9470; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3'; }
