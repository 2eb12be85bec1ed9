#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# deb.sh [-S] [-o DIR] [NAME...]: the Debian source packages of packaging/, or those
# with these names, and, without -S, what they build, in build/deb or DIR.

. "$(dirname "$0")/lib.sh" || exit 1
need dpkg-buildpackage dpkg-parsechangelog dh

out=$BUILD/deb build=(dpkg-buildpackage -us -uc)
while getopts So: opt; do
	case $opt in
	S)	build=(dpkg-source -b .) ;;
	o)	out=$(realpath -m "$OPTARG") ;;
	*)	exit 2 ;;
	esac
done
shift $((OPTIND - 1))
cd "$TOP/packaging"
[ $# != 0 ] || set -- *

# version NAME: of what is packed
version()
{
	case $1 in
	kselftest-fuse)	echo $KVER ;;
	fuse-ring)	sed -n 's/^VERSION[[:space:]]*:= //p' "$TOP/tools/lib/fuse_ring/common.mk" ;;
	esac
}

# unpack NAME DIR: what the package is made of
unpack()
{
	case $1 in
	kselftest-fuse)
		# Of the kernel's tree no more than it takes to build and run them
		kgit archive refs/fuse/applied tools/testing/selftests/{Makefile,lib.mk,fuse} \
			tools/testing/selftests/{kselftest,run_kselftest.sh,kselftest.h,kselftest_harness.h} \
			tools/testing/fuse/{vm.sh,vm_init.sh,ktap_report.awk} \
			scripts/subarch.include include/uapi/linux/fuse{,_bufring}.h |
			tar -xC "$2" ;;
	fuse-ring)
		rgit ls-files -co --exclude-standard -- tools/lib/fuse_ring tools/fuse \
			include/uapi/linux/fuse_bufring.h | sort -u |
			while read -r f; do [ ! -e "$TOP/$f" ] || echo "$f"; done |
			tar -C "$TOP" -T - -c | tar -xC "$2" ;;
	esac
	cp -r "$1/debian" "$2/"
}

# package NAME
package()
{
	local name=$1 log=$REPORTS/deb-$1.log version source

	version=$(version "$name")
	[ "$(dpkg-parsechangelog -l "$name/debian/changelog" -S Version)" = "$version" ] ||
		die "packaging/$name/debian/changelog does not begin with version $version"
	source=$out/$name-$version
	mkdir -p "$source"
	unpack "$name" "$source"
	say "building $name"
	(cd "$source" && "${build[@]}") >"$log" 2>&1 || {
		tail -n 12 "$log" >&2
		die "$name does not build: see ${log#"$TOP"/}"
	}
	rm -rf "$source"
}

for name; do
	[ -d "$name/debian" ] || die "there is no package '$name' in packaging/"
done
rm -rf "$out"
mkdir -p "$REPORTS"
for name; do
	package "$name"
done
ls "$out"
