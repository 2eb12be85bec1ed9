#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# deb.sh [DIR]: a Debian source package of the selftests, kselftest-fuse, and what
# it builds, in build/deb or DIR.

. "$(dirname "$0")/lib.sh" || exit 1
need dpkg-buildpackage dh

out=${1:-$BUILD/deb}
source=$out/kselftest-fuse-$KVER
rm -rf "$out"
mkdir -p "$source"
# Of the kernel's tree no more than it takes to build and run them
kgit archive refs/fuse/applied tools/testing/selftests/{Makefile,lib.mk,fuse} \
	tools/testing/selftests/{kselftest,run_kselftest.sh,kselftest.h,kselftest_harness.h} \
	tools/testing/fuse/{vm.sh,vm_init.sh,ktap_report.awk} \
	scripts/subarch.include include/uapi/linux/fuse{,_bufring}.h | tar -xC "$source"
cp -r "$TOP/packaging/debian" "$source/"
log=$REPORTS/deb.log
say "building kselftest-fuse"
(cd "$source" && dpkg-buildpackage -us -uc) >"$log" 2>&1 || {
	tail -n 12 "$log" >&2
	die "the package does not build: see ${log#"$TOP"/}"
}
rm -rf "$source"
ls "$out"
