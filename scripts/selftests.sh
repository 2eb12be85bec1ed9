#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# selftests.sh TARGET [VAR=value...]: kselftest's own make in the prepared
# tree, against that tree's headers, with the output in build/selftests (or O=).
# For 'all' also the programs of tools/testing/fuse, in workshop below that.
# CROSS32=1 makes 32-bit programs in build/selftests-32, CROSS=arm64|s390x those of
# another architecture in build/selftests-ARCH, with the libraries of ROOT.

. "$(dirname "$0")/lib.sh" || exit 1
need gcc make rsync

[ -f "$LINUX/Makefile" ] || die "there is no build/linux: run 'make tree' first"
cross32=${CROSS32:-0} out=
for arg in "${@:2}"; do
	case $arg in
	O=*)		out=$(realpath -m "${arg#O=}") ;;
	CROSS32=*)	cross32=${arg#CROSS32=} ;;
	esac
done
more=()
if [ "$cross32" = 1 ]; then
	more=(CROSS32=1 "LDFLAGS=$("$TOP/scripts/liburing32.sh")")
	out=${out:-$BUILD/selftests-32}
fi
if [ -n "${CROSS:-}" ]; then
	compiler=$(cross_gcc "$CROSS")
	more=("ARCH=${CROSS/s390x/s390}" CROSS_COMPILE="${compiler%gcc*}"
		CC="$compiler --sysroot=${ROOT:?of $CROSS}")
	out=${out:-$BUILD/selftests-$CROSS}
fi
out=${out:-$BUILD/selftests}
log=$REPORTS/selftests.log
mkdir -p "$out/workshop" "$REPORTS"

smake()
{
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u KERNEL -u DEBUG -u BASE -u C -u W \
		make -j"$JOBS" "$@" O="$out"
}

# The exported headers, made anew only when one of them changed.
stamp=$(kgit rev-parse HEAD:include HEAD:arch/x86/include; kgit diff HEAD -- include)
if [ "$stamp" != "$(cat "$out/headers-of" 2>/dev/null)" ]; then
	say "exporting the tree's headers"
	smake -C "$LINUX" "${more[@]}" headers >"$log" 2>&1 || {
		tail -n 5 "$log" >&2
		die "the tree's headers do not export: see ${log#"$TOP"/}"
	}
	echo "$stamp" >"$out/headers-of"
fi

# Static, unless other flags follow: a process with few mappings is cheap to make,
# and the tests make thousands. Nor does a machine that they are installed on need
# liburing.
kselftest()
{
	smake -C "$LINUX/tools/testing/selftests" TARGETS=fuse FORCE_TARGETS=1 \
		LDFLAGS=-static "$@"
}

build_all()
{
	kselftest all "$@" || return
	[ ! -e "$LINUX/tools/testing/fuse/Makefile" ] ||
		smake -C "$LINUX/tools/testing/fuse" all OUTPUT="$out/workshop" \
			KHDR_INCLUDES="-isystem $out/usr/include" LDFLAGS=-static "$@"
}

if [ "$1" = all ]; then
	build_all "${@:2}" "${more[@]}" >"$log" 2>&1 || {
		grep -m12 -A3 -E '(error|warning): |\*\*\* ' "$log" >&2 || tail -n 12 "$log" >&2
		die "the selftests do not build: see ${log#"$TOP"/}"
	}
else
	kselftest "$@" "${more[@]}"
fi
