#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
#
# Builds the library and the programs on it (tools/fuse) and has vm.sh boot a kernel
# and test them there: as they are installed, on mounts of passthrough_ring, and on
# those of file systems that do not know of it.

set -u
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd -P)
top=${here%/tools/lib/fuse_ring/tests}
all_tests="install passthrough preload real_fs stress"

usage()
{
	cat <<-END
	usage: run.sh -k IMAGE [options]
	  -k IMAGE    the kernel: 'linux' of a UML build or a bzImage
	  -e ENGINE   uml or qemu
	  -S TREE     kernel source tree (default: the one this file is in)
	  -O DIR      where to build (default: a new directory in /tmp)
	  -R ROOT     build and test with the programs of the system below this
	              directory; -O is meant below it, too
	  -r DIR      where logs and results go (default: a new one in /tmp)
	  -T TESTS    some of: $all_tests
	  -a ARGS     arguments for them, as in -a '-t sshfs'
	  -m SIZE     memory of the guest (default 3G)
	  -n CPUS     processors of the guest in qemu (default 2)
	  -t SECONDS  time limit of the whole run (default 1800)
	Environment, for the tests:
	  FILES                   of the tree for real file systems (default 2000)
	  SECONDS_PER_MODE        of fio (default 10)
	  KILLS                   servers to kill under load (default 100)
	  SEED                    of the moments of that (default random)
	  FUSE_RING_TEST_SLOWER   factor for time limits (default 1)
	END
}

die()
{
	echo "run.sh: error: $*" >&2
	exit 1
}

# Where a test is, below the directory that has tools/
program_of()
{
	case $1 in
	passthrough)	echo "tools/fuse/tests/passthrough_test.sh" ;;
	*)		echo "tools/lib/fuse_ring/tests/${1}_test.sh" ;;
	esac
}

# Programs of others that the tests want, and that no package has ready-made.
# What cannot be had here the tests skip, and say so.
examples()
{
	local source=/usr/share/doc/libfuse3-dev/examples name flags

	mkdir -p "$obj/examples"
	flags=$(pkg-config --cflags --libs fuse3)
	for name in hello hello_ll notify_store_retrieve passthrough_ll; do
		if [ ! -f "$source/$name.c" ]; then
			rm -f "$obj/examples/$name"
		elif [ ! "$obj/examples/$name" -nt "$source/$name.c" ]; then
			# shellcheck disable=SC2086	# a list of flags
			gcc -O2 -w -pthread -D_FILE_OFFSET_BITS=64 "$source/$name.c" \
				-o "$obj/examples/$name" $flags
		fi || return
	done
}

# The program alone, and the libraries that are not here: to install the package
# would start a server on this machine, and again at its next boot.
sshd()
{
	[ ! -x /usr/sbin/sshd ] && [ ! -x "$obj/sshd/usr/sbin/sshd" ] || return 0
	rm -rf "$obj/sshd"
	mkdir -p "$obj/sshd"/{debs,lists}/partial
	(
		get()
		{
			apt-get install -y -q --no-install-recommends --download-only \
				-o Debug::NoLocking=1 -o Dir::Cache::archives="$PWD/debs" \
				"$@" openssh-server
		}

		cd "$obj/sshd" || exit
		lists=(-o Dir::State::lists="$PWD/lists")
		get || { apt-get update -q "${lists[@]}" && get "${lists[@]}"; } || exit
		for package in debs/*.deb; do
			dpkg-deb -x "$package" . || exit
		done
		rm -r debs lists
	) >"$obj/sshd.log" 2>&1 || {
		rm -rf "$obj/sshd"
		echo "run.sh: no sshd: $(grep -m1 '^E:' "$obj/sshd.log")" >&2
	}
}

# copy_source DIR: as it lies here, but not what was built, which DIR may be a
# part of
copy_source()
{
	local lib=tools/lib/fuse_ring

	rm -rf "$1"
	mkdir -p "$1"/{$lib,tools/fuse,include/uapi/linux} || exit
	cp -a "$top/include/uapi/linux/fuse_bufring.h" "$1/include/uapi/linux/" || exit
	cp -a "$top/$lib"/{Makefile,*.mk,*.[ch7],*.in,*.map,tests} "$1/$lib/" &&
		cp -a "$top"/tools/fuse/{Makefile,*.[ch1],tests} "$1/tools/fuse/" ||
		exit
}

build()
{
	{
		make -C "$here/.." O="$obj" all tests &&
			make -C "$top/tools/fuse" O="$obj" all tests
	} >"$obj/build.log" 2>&1 || {
		tail -n 20 "$obj/build.log" >&2
		die "the library does not build"
	}
	examples || die "libfuse's examples do not compile"
	sshd
	# The guest sees this directory, but not the one of the source.
	copy_source "$obj/source"
}

# By its own system, which does not see this directory
build_in_root()
{
	local source=/usr/src/fuse_ring

	copy_source "$root$source"
	chroot "$root" "$source${here#"$top"}/run.sh" --build "$obj" || exit
}

if [ "${1:-}" = --build ]; then
	obj=$2
	mkdir -p "$obj" && build
	exit
fi

image='' tree='' root='' obj='' report='' tests=$all_tests args='' limit=1800
more=(-m 3G)
while getopts k:e:S:O:R:r:T:a:m:n:t:h opt; do
	case $opt in
	k)	image=$OPTARG ;;
	S)	tree=$OPTARG ;;
	O)	obj=$OPTARG ;;
	R)	root=$(realpath "$OPTARG") ;;
	r)	report=$OPTARG ;;
	T)	tests=$OPTARG ;;
	a)	args=$OPTARG ;;
	t)	limit=$OPTARG ;;
	e|m|n)	more+=("-$opt" "$OPTARG") ;;
	h)	usage; exit 0 ;;
	*)	usage >&2; exit 2 ;;
	esac
done
[ -n "$image" ] || die "which kernel? -k IMAGE (-h shows all options)"
tree=$(realpath "${tree:-$here/../../../..}")
report=$(realpath -m "${report:-$(mktemp -d)}")
for test in $tests; do
	[ -f "$top/$(program_of "$test")" ] || die "there is no test '$test': $all_tests"
done
if [ -n "$root" ]; then
	obj=${obj:-/var/lib/fuse_ring}
	build_in_root
else
	obj=$(realpath -m "${obj:-$(mktemp -d)}")
	mkdir -p "$obj" || die "cannot create $obj"
	build
fi

# What a test may take is for the tests to say.
export FUSE_RING_BUILT=$obj kselftest_override_timeout=$limit
exec "$top/tools/testing/fuse/vm.sh" -k "$image" -S "$tree" -O "${root:-$obj}" \
	${root:+-R "$root"} -r "$report" -t "$limit" "${more[@]}" -a "$args" \
	-T "$(for test in $tests; do echo "$obj/source/$(program_of "$test")"; done)" \
	-E "FUSE_RING_BUILT FILES SECONDS_PER_MODE KILLS SEED FUSE_RING_TEST_SLOWER \
		kselftest_override_timeout"
