#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# kernel.sh: builds the kernel for an engine and prints the path of its image.
#
#   ENGINE=uml|qemu   User Mode Linux (default) or a kernel for qemu
#   CROSS=arm64|s390x what qemu emulates, in place of an x86_64
#   DEBUG=1           with KASAN, lockdep, kmemleak...
#   DEBUG=kcsan       with KCSAN, which looks at the files that the series changes
#   DEBUG=coverage    counts how often each line of them runs
#   DEBUG=module      with fuse and cuse as modules
#   BASE=1            the untouched source, without the series
#   WORKTREE=DIR      another tree, with its builds beside it
#   W=1, C=2          as kbuild has them
#
# kernel.sh WORDS: builds these kbuild targets instead, "fs/fuse/" say.

. "$(dirname "$0")/lib.sh" || exit 1
need gcc make flex bison bc perl

engine=${ENGINE:-uml}
name=$engine
config=("$TOP/$SELFTESTS/config" "$WORKSHOP/configs/$engine")
cross=()
if [ -n "${CROSS:-}" ]; then
	[ "$engine" = qemu ] || die "CROSS=$CROSS is for ENGINE=qemu"
	compiler=$(cross_gcc "$CROSS")
	cross=(CROSS_COMPILE="${compiler%gcc*}" CC="$compiler")
	name=$engine-$CROSS
	config+=("$WORKSHOP/configs/$CROSS")
fi
case $engine${CROSS:+-$CROSS} in
uml)	arch=um image=linux steps=1270 ;;
qemu)	arch=x86_64 image=arch/x86/boot/bzImage steps=1750 ;;
qemu-arm64)	arch=arm64 image=arch/arm64/boot/Image steps=1700 ;;
qemu-s390x)	arch=s390 image=arch/s390/boot/bzImage steps=1600 ;;
*)	die "ENGINE=$engine: uml or qemu" ;;
esac

# What is to be instrumented, where it is not the whole kernel: what the series
# changes, and for races what shares data with it.
mapfile -t objects < <({
	echo dev_uring.c
	kgit diff --name-only base refs/fuse/applied -- 'fs/fuse/*.c' 'io_uring/*.c'
} | sed 's,.*/,,; s/\.c$//' | sort -u)
instrument=()
case ${DEBUG:-0} in
0)	;;
1)	name=$name-debug
	config+=("$WORKSHOP/configs/debug") ;;
kcsan)	name=$name-kcsan
	config+=("$WORKSHOP/configs/kcsan")
	instrument=(KCSAN_SANITIZE=n)
	for object in "${objects[@]}" dev rsrc; do
		instrument+=("KCSAN_SANITIZE_$object.o=y")
	done ;;
coverage)
	name=$name-coverage
	config+=("$WORKSHOP/configs/coverage")
	for object in "${objects[@]}"; do
		instrument+=("GCOV_PROFILE_$object.o=y")
	done ;;
module)	name=$name-module
	config+=("$WORKSHOP/configs/module") ;;
*)	die "DEBUG=$DEBUG: 0, 1, kcsan, coverage or module" ;;
esac
source=$LINUX
out=$BUILD/$name
if [ "${BASE:-0}" = 1 ]; then
	# Beside each other as the patched tree and its builds are: the paths
	# the compiler sees are then the same and the cache serves both.
	source=$BUILD/base/linux
	out=$BUILD/base/$name
	name=base-$name
	if [ ! -e "$source/.git" ]; then
		free_space "$BUILD" 3
		rm -rf "$source"
		kgit worktree prune
		kgit worktree add -q --detach "$source" base
	fi
fi
if [ -n "${WORKTREE:-}" ]; then
	source=$WORKTREE
	out=$(dirname "$WORKTREE")/$name
	name=$(basename "$(dirname "$WORKTREE")")-$name
fi
[ -f "$source/Makefile" ] || die "there is no ${source#"$TOP"/}: run 'make tree' first"
log=$REPORTS/kernel-$name.log
mkdir -p "$out" "$REPORTS"

kmake()
{
	# MAKEFLAGS of the calling make would carry its own variables into kbuild.
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u KERNEL -u DEBUG -u BASE \
		make -C "$source" O="$out" ARCH="$arch" "${cross[@]}" -j"$JOBS" \
		${W:+W="$W"} ${C:+C="$C"} "${instrument[@]}" "$@"
}

# The fragments decide the configuration: everything else is off. An option
# that Kconfig drops is an error here, not a test that skips for no reason.
configure()
{
	local dropped

	cat "${config[@]}" >"$out/fragment.new"
	if [ -f "$out/.config" ] && cmp -s "$out/fragment.new" "$out/fragment"; then
		rm "$out/fragment.new"
		return
	fi
	say "configuring ${name} in build/"
	mv "$out/fragment.new" "$out/fragment.all"
	KCONFIG_ALLCONFIG=$out/fragment.all kmake allnoconfig >"$log" 2>&1 ||
		die "configuration failed: $(grep -m1 -iE 'error|\*\*\*' "$log" || echo "see $log")"
	dropped=$(awk -F= '
		FNR == NR { if (/^CONFIG_/) got[$1] = $2; next }
		/^CONFIG_/ { want[$1] = $2 }
		END {
			for (o in want) {
				have = o in got ? got[o] : "n"
				if (have != want[o])
					printf " %s=%s (is %s)", o, want[o], have
			}
		}' "$out/.config" "$out/fragment.all")
	[ -z "$dropped" ] || die "options that $name asks for were dropped:$dropped"
	mv "$out/fragment.all" "$out/fragment"
}

configure
[ $# -gt 0 ] || say "building the $name kernel"
if ! kmake "$@" 2>&1 </dev/null | progress "$log" "$steps" "$name kernel" >&2; then
	grep -E -m12 -A4 '(error|warning): |undefined reference|\*\*\* ' "$log" >&2 || tail -n 12 "$log" >&2
	die "the $name kernel does not build: see ${log#"$TOP"/}"
fi
if [ $# -eq 0 ]; then
	[ -s "$out/$image" ] || die "no $image came out of the build: see ${log#"$TOP"/}"
	echo "$out/$image"
fi
