#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# debian_root.sh RELEASE [ARCH|packages]: prints the path of a directory with a Debian
# system of that release in it, made if it is not there, for the library's tests: what
# they build with and the file systems they run. It comes from the archive that this
# system uses.
#
# With ARCH it is one for another architecture, to build for and to run in qemu: what
# the selftests take. Its packages are only unpacked, as their scripts cannot be run
# here.
#
# With 'packages' it has nothing but apt: to copy, and to build packages of ours and
# install them in the copies. What that takes is in apt's cache there.

. "$(dirname "$0")/lib.sh" || exit 1
need mmdebstrap apt-get flock

release=${1:?which release?}
arch=${2:-}
root=$BUILD/debian-$release${arch:+-$arch}
packages="gcc make pkg-config libc6-dev liburing-dev libfuse3-dev fuse3
	python3 attr procps iproute2 e2fsprogs fio man-db
	sshfs openssh-server squashfuse squashfs-tools fuse-overlayfs fuse2fs"
variant=(--variant=essential)
cached=
if [ "$arch" = packages ]; then
	packages=apt
	# What debian/control, debian/tests/control and autopkgtest ask for
	cached="build-essential debhelper pkgconf libfuse3-dev liburing-dev fuse3 man-db"
	cached="$cached kmod mount apt-utils"
	variant=(--variant=apt --dpkgopt=force-unsafe-io --aptopt='Acquire::Retries 0'
		--skip=cleanup/apt --customize-hook="APT_CONFIG=\$MMDEBSTRAP_APT_CONFIG \
			apt-get -y --download-only install $cached")
elif [ -n "$arch" ]; then
	packages="base-files base-passwd bash dash coreutils util-linux mount mawk grep sed
		findutils diffutils perl-base procps kmod attr iproute2 e2fsprogs python3
		fuse3 libfuse3-dev liburing-dev libc6-dev busybox-static"
	variant=(--variant=extract --architectures="$arch"
		--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr)
fi

# A mount in there would be one of this machine: not to be emptied.
remove()
{
	rm -rf --one-file-system "$root"
}

make_root()
{
	local log=$REPORTS/${root##*/}.log archives keyring

	[ "$(id -u)" = 0 ] || die "needs root, to make a Debian system"
	archives=$(debian_archives) || die "apt knows no Debian archive"
	keyring=$(debian_keyring)
	free_space "$BUILD" 2
	say "making a Debian $release system${arch:+ for $arch}"
	mkdir -p "$REPORTS"
	remove
	mmdebstrap "${variant[@]}" --aptopt='APT::Install-Recommends "false"' \
		--include="$(echo "$packages" | tr -s '\n\t ' ',')" "$release" "$root" \
		"deb [signed-by=$keyring] ${archives%%[ $'\n']*} $release main" \
		>"$log" 2>&1 </dev/null || {
		remove
		die "it could not be made: $(grep -m1 '^E:' "$log" || echo "see $log")"
	}
	[[ ${variant[0]} != *=extract ]] || finish
	echo "$packages${cached:+ $cached}" >"$root/made"
}

# What the scripts of its packages would have done
finish()
{
	local file

	for file in passwd group; do
		cp "$root/usr/share/base-passwd/$file.master" "$root/etc/$file"
	done
	ln -s mawk "$root/usr/bin/awk"
}

# What mmdebstrap starts keeps the lock, too, if this here is killed.
mkdir -p "$BUILD"
exec {lock}>"$root.lock"
flock "$lock"
[ "$(cat "$root/made" 2>/dev/null)" = "$packages${cached:+ $cached}" ] ||
	make_root
echo "$root"
