#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# deps.sh [run|check|bench|library|coverage|kernels|deb]: installs the Debian packages a
# job needs and the machine lacks. Does nothing, and asks for nothing, where all are there.

. "$(dirname "$0")/lib.sh" || exit 1

job=${1:-run}

packages="
	gcc make flex bison bc perl python3 git ccache xz-utils kmod
	libc6-dev libelf-dev libssl-dev cpio rsync util-linux
	debian-archive-keyring ca-certificates pkg-config
	liburing-dev libfuse3-dev fuse3 attr iproute2 procps"
# What the kernel's x86 build and the second engine want, the checkers, the
# documentation, and the library under load.
check_packages="qemu-system-x86 sparse shellcheck python3-ply python3-git
	clang musl-tools fio mmdebstrap dpkg-dev debhelper lintian autopkgtest
	python3-sphinx python3-yaml python3-jsonschema graphviz librsvg2-bin curl"
deb_packages="dpkg-dev debhelper"
bench_packages="e2fsprogs"
# File systems to run on the library. sshfs also wants an sshd, but installing
# openssh-server would start one for everybody.
library_packages="sshfs squashfuse squashfs-tools fuse-overlayfs fuse2fs e2fsprogs"

# The version of gcc here. Packages without it, gcc-multilib and the compilers for
# other architectures, exclude each other.
gcc=$(apt-cache depends gcc 2>/dev/null | sed -n 's/.*Depends: \(gcc-[0-9]*\)$/\1/p' | head -n 1)

# 32-bit programs, where the machine is of the kind that can run them
[ "$(uname -m)" != x86_64 ] || check_packages="$check_packages ${gcc:-gcc}-multilib"

[ "${ENGINE:-uml}" != qemu ] || packages="$packages qemu-system-x86"

# The schema of a job for LAVA, which not every release has
[ -z "$(apt-cache madison lava-common 2>/dev/null)" ] ||
	check_packages="$check_packages lava-common"

case $job in
run)	[ "${CROSS32:-0}" != 1 ] || packages="$packages ${gcc:-gcc}-multilib" ;;
check)	packages="$packages $check_packages" ;;
bench)	packages="$packages $check_packages $bench_packages" ;;
library)	packages="$packages $check_packages $library_packages" ;;
kernels) packages="$packages qemu-system-x86 busybox-static zstd"
	# Debian 12 has it in qemu-system-common.
	! apt-cache show virtiofsd >/dev/null 2>&1 || packages="$packages virtiofsd"
	if [ -n "${CROSS:-}" ]; then
		tools=$(triplet "$CROSS")
		packages="$packages mmdebstrap ${gcc:-gcc}-$tools"
		emulator=qemu-system-arm
		if [ "$CROSS" = s390x ]; then
			# Debian 12 has it in qemu-system-misc.
			emulator=qemu-system-misc
			! apt-cache show qemu-system-s390x >/dev/null 2>&1 ||
				emulator=qemu-system-s390x
		fi
		packages="$packages $emulator"
	fi ;;
coverage) packages="$packages gcovr diff-cover" ;;
deb)	packages="$packages $deb_packages" ;;
*)	die "no such job '$job': run, check, bench, library, coverage, kernels or deb" ;;
esac

command -v dpkg-query >/dev/null ||
	die "not a Debian system: install the equivalents of:$(echo " $packages" | tr -s '\n\t' '  ')"

missing=
for p in $packages; do
	dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed ||
		missing="$missing $p"
done
[ -n "$missing" ] || exit 0

say "installing with apt:$missing"
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null ||
		die "run as root, or have root run: apt-get install$missing"
	sudo=sudo
fi

install()
{
	# shellcheck disable=SC2086	# a list of words
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install \
		-y -q --no-install-recommends $missing </dev/null
}

mkdir -p "$REPORTS"
log=$REPORTS/deps.log
# The package lists may be absent (a fresh image) or stale: one update decides.
install >"$log" 2>&1 || {
	$sudo apt-get update -q >>"$log" 2>&1 && install >>"$log" 2>&1
} || die "apt could not install them: $(grep -m1 -E '^E:' "$log" || echo "see $log")"
