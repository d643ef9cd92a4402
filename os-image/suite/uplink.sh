#!/bin/sh
# An uplink that is made bad, in the guest: sourced after air.sh. What leaves goes through a queue on the uplink itself, what
# arrives is led through a second interface, since a queue is for what leaves.
# shellcheck disable=SC2034,SC2154 # `suite` is air.sh's

# worsen: 20 Mbit/s, 20 ms and 5 % loss in each direction: 40 ms for a question and its answer.
worsen() {
  for module in sch_netem sch_ingress act_mirred cls_matchall ifb; do load "$module" || return; done
  ip link add ifb0 type ifb 2>/dev/null || ip link show ifb0 >/dev/null || return
  ip link set ifb0 up || return
  tc qdisc add dev wan0 root netem delay 20ms loss 5% rate 20mbit || return
  tc qdisc add dev wan0 ingress || return
  tc filter add dev wan0 ingress matchall action mirred egress redirect dev ifb0 || return
  tc qdisc add dev ifb0 root netem delay 20ms loss 5% rate 20mbit
}

# dropped: packets that the bad uplink has lost, those that left and those that arrived.
dropped() { for link in wan0 ifb0; do tc -s qdisc show dev $link | sed -n '/netem/,$s/.*(dropped \([0-9]*\),.*/\1/p' | head -n 1; done; }

# said: the daemon's own line for people.
said() { systemctl show -p StatusText --value repeaterd; }
