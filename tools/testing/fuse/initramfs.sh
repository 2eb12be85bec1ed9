#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# initramfs.sh MODULES FILE NAME...: an initramfs for vm.sh -I, for a kernel that
# does not have built in what it takes to mount the root. MODULES is the directory
# with its modules, as /lib/modules/RELEASE is; those with these names go in, with
# what they depend on. One that is not there is taken to be built in. BUSYBOX is a
# static busybox of another architecture.

set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd -P)
modules=$1
file=$2
shift 2

die()
{
	echo "initramfs.sh: error: $*" >&2
	exit 1
}

busybox=${BUSYBOX:-$(command -v busybox)} || busybox=busybox
for tool in "$busybox" cpio modinfo; do
	command -v "$tool" >/dev/null || die "$tool is missing"
done
# Nothing of this system is in there that could load libraries.
! ldd "$busybox" >/dev/null 2>&1 || die "busybox is not static: install busybox-static"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir"/{bin,dev,modules,proc,root}
cp "$here/initramfs_init.sh" "$dir/init"
cp "$busybox" "$dir/bin/busybox"
for tool in sh cat insmod mount switch_root; do
	ln -s busybox "$dir/bin/$tool"
done

# A name has dashes or underscores in it, and its file has either.
file_of()
{
	find "$modules" -name "${1//[-_]/[-_]}.ko*" | head -n 1
}

# take NAME: the file, after those it depends on; the list has them in this order.
take()
{
	local name=${1//-/_} from other

	[ ! -e "$dir/modules/$name.ko" ] || return 0
	from=$(file_of "$name")
	[ -n "$from" ] || return 0
	for other in $(modinfo -F depends "$from" | tr , ' '); do
		take "$other"
	done
	case $from in
	*.xz)	xz -dc "$from" ;;
	*.zst)	zstd -qdc "$from" ;;
	*.gz)	gzip -dc "$from" ;;
	*)	cat "$from" ;;
	esac >"$dir/modules/$name.ko"
	echo "$name" >>"$dir/modules/list"
}

: >"$dir/modules/list"
for name; do
	take "$name"
done
(cd "$dir" && find . | cpio --quiet -o -H newc -R 0:0) >"$file"
