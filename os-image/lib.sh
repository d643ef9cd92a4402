# shellcheck shell=bash
# What the scripts of this folder share: how they speak, how they fail, and how they work inside a Debian tree.
#
# All tools but mmdebstrap come from trees of Debian that are made and locked here (see `trees`), so that an image has the
# same bits whatever release of Debian builds it. A tool runs in its tree by chroot, in a mount namespace of its own: nothing
# stays mounted when it ends, however it ends.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# die CODE WHAT: ends the script; codes are those of sysexits.h, as the programs' are.
die() {
  local code=$1
  shift
  say "$*"
  exit "$code"
}

# need_root: chroot, mount and mknod ask for it.
need_root() { [[ $EUID -eq 0 ]] || die 77 "must run as root: it makes device nodes, mounts and changes its root"; }

# need PROGRAM PACKAGE: says what to install.
need() { command -v "$1" >/dev/null || die 69 "$1 is missing: apt-get install $2"; }

# need_arm64: image-arm64 is made by running arm64's programs, which another machine's kernel hands to qemu-user.
need_arm64() {
  need arch-test arch-test
  arch-test arm64 >/dev/null || die 69 "this machine does not run programs of arm64: apt-get install qemu-user-static, on Debian 13" \
    "qemu-user-binfmt; where no systemd runs, mount binfmt_misc and write /usr/lib/binfmt.d/qemu-aarch64.conf to its file register"
}

# inside TREE FOLDER=PLACE... -- COMMAND...: runs a command in a Debian tree that sees these folders at these places.
# A folder written with a leading + may be written to; the others are read-only.
inside() {
  local tree=$1 binds=()
  shift
  while [[ $1 != -- ]]; do
    binds+=("$1")
    shift
  done
  shift
  # shellcheck disable=SC2016 # the inner shell expands these
  unshare --mount --propagation private bash -euo pipefail -c '
    tree=$1 count=$2; shift 2
    mount -t proc proc "$tree/proc"
    mount --rbind /dev "$tree/dev"
    mount -t tmpfs tmpfs "$tree/tmp"
    mount -t tmpfs tmpfs "$tree/mnt"
    for ((; count > 0; count--)); do
      what=${1%%=*} place=$tree${1#*=} rw=; shift
      [[ $what != +* ]] || { rw=yes; what=${what#+}; }
      [[ ! -d $what ]] || mkdir -p "$place"
      [[ -d $what ]] || { mkdir -p "$(dirname "$place")"; : >"$place"; }
      mount --bind "$what" "$place"
      [[ -n $rw ]] || mount -o remount,bind,ro "$place"
    done
    exec chroot "$tree" "$@"
  ' inside "$tree" "${#binds[@]}" "${binds[@]}" "$@"
}
