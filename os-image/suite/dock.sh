#!/bin/sh
# A bay that takes cameras by USB, in the guest: sourced after air.sh. Both ends of the cable are the kernel's own: dummy_hcd
# is a host's socket and a device's in one, so that the station's end has the true events, driver and path.
# shellcheck disable=SC2154 # `suite` is air.sh's
gadget=/sys/kernel/config/usb_gadget/camera

# bay: makes the bay, empty; a camera's end of the cable is there, and carries an Ethernet function (NCM).
bay() {
  for module in dummy_hcd libcomposite usb_f_ncm; do load "$module" || return; done
  mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config || return
  mkdir -p $gadget/strings/0x409 $gadget/configs/c.1 $gadget/functions/ncm.0 || return
  echo 0x1d6b >$gadget/idVendor && echo 0x0103 >$gadget/idProduct || return
  echo "body-worn camera" >$gadget/strings/0x409/product || return
  echo "cam%d" >$gadget/functions/ncm.0/ifname || return
  ln -s $gadget/functions/ncm.0 $gadget/configs/c.1/
}

# dock NAME SOCKET: plugs a camera in. Its end of the cable is its interface SOCKET, and its battery charges.
dock() {
  battery "$1" 57 Charging && ls /sys/class/udc >$gadget/UDC || return
  link=$(cat $gadget/functions/ncm.0/ifname)
  ip link set "$link" netns "$1" name "$2" && ip -n "$1" link set "$2" up
}

# undock NAME: takes it out.
undock() { echo "" >$gadget/UDC && battery "$1" 58 Discharging; }

# station_end: the interfaces that the station has made of cameras in bays, with their drivers.
station_end() {
  for link in /sys/class/net/*; do
    case $(readlink "$link") in
      *dummy_hcd*) echo "$(basename "$link") $(basename "$(readlink "$link/device/driver")") $(cat "$link/operstate")" ;;
    esac
  done
}

# films NAME FOOTAGE BYTES: a camera begins to record, and is soon so far. `filmed` ends it. Between the halves lies the time
# after which a segment that is sealed asks for a manifest.
films() {
  mkdir -p "$cameras/$1"
  head -c "$(($3 / 2))" "$suite/footage/$2" >"/run/cameras/$1.film"
  # shellcheck disable=SC2046 # words
  "$suite/bin/bodycam" seal $(papers "$1") --follow "/run/cameras/$1.film" >"/run/cameras/$1.sealed" 2>"/run/cameras/$1.seals" &
  sleep 6
  tail -c "+$(($3 / 2 + 1))" "$suite/footage/$2" | head -c "$(($3 - $3 / 2))" >>"/run/cameras/$1.film"
}

# filmed NAME FOOTAGE BYTES: the rest of it is recorded, and the camera is told to stop; prints what was sealed.
filmed() {
  tail -c "+$(($3 + 1))" "$suite/footage/$2" >>"/run/cameras/$1.film"
  : >"/run/cameras/$1.film.done"
  for _ in $(seq 600); do
    [ ! -s "/run/cameras/$1.sealed" ] || break
    sleep 0.2
  done
  cat "/run/cameras/$1.sealed"
}
