#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# debian_root.sh RELEASE: prints the path of a directory with a Debian system of
# that release in it, made if it is not there, for the library's tests: what they
# build with and the file systems they run. It comes from the archive that this
# system uses.

. "$(dirname "$0")/lib.sh" || exit 1
need mmdebstrap apt-get flock

release=${1:?which release?}
root=$BUILD/debian-$release
packages="gcc make pkg-config libc6-dev liburing-dev libfuse3-dev fuse3
	python3 attr procps iproute2 e2fsprogs fio man-db
	sshfs openssh-server squashfuse squashfs-tools fuse-overlayfs fuse2fs"

# A mount in there would be one of this machine: not to be emptied.
remove()
{
	rm -rf --one-file-system "$root"
}

make_root()
{
	local log=$REPORTS/debian-$release.log archives keyring

	[ "$(id -u)" = 0 ] || die "needs root, to make a Debian system"
	archives=$(debian_archives) || die "apt knows no Debian archive"
	keyring=$(debian_keyring)
	free_space "$BUILD" 2
	say "making a Debian $release system"
	mkdir -p "$REPORTS"
	remove
	mmdebstrap --variant=essential --aptopt='APT::Install-Recommends "false"' \
		--include="$(echo "$packages" | tr -s '\n\t ' ',')" "$release" "$root" \
		"deb [signed-by=$keyring] ${archives%%[ $'\n']*} $release main" \
		>"$log" 2>&1 </dev/null || {
		remove
		die "it could not be made: $(grep -m1 '^E:' "$log" || echo "see $log")"
	}
	echo "$packages" >"$root/made"
}

# What mmdebstrap starts keeps the lock, too, if this here is killed.
mkdir -p "$BUILD"
exec {lock}>"$root.lock"
flock "$lock"
[ "$(cat "$root/made" 2>/dev/null)" = "$packages" ] || make_root
echo "$root"
