# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034	# the scripts that source it use them
#
# What every script here starts from: the names of things, and how to talk to
# the person at the terminal. Source it, do not run it.

set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

KVER=7.3
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
BUILD=$TOP/build
LINUX=$BUILD/linux
REPORTS=$BUILD/reports
CACHE_DIR=${CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/fuse-bufring}
JOBS=${JOBS:-$(nproc)}
SELFTESTS=tools/testing/selftests/fuse
WORKSHOP=$TOP/tools/testing/fuse

# The parts of the series, in the order in which they are applied: directories
# of patches/, each with its own 'series' file. PARTS="fixes" gives a kernel with
# nothing else.
PARTS=${PARTS:-fixes bufpool bufring other selftests tools}

# Directories that hold nothing but files of this project: a patch names them
# as a whole, and what is added to them later needs no edit of the patch. Names
# come before the directory that they are in: those files are in another patch,
# and so is what is added under such a name.
WHOLE_DIRS=(
	"$SELFTESTS"/{io,bad_reply,interrupt,short_read,late_register,log}_test.c
	"$SELFTESTS"/{own_mount,teardown,abort,cpu,stress}_test.c
	"$SELFTESTS/buffers_*" "$SELFTESTS/bufpool_*"
	"$SELFTESTS"/{few_buffers,pools,progress,slow_memory}_test.c
	"$SELFTESTS/register_*" "$SELFTESTS"/{memlock,privilege,fault}_test.c
	"$SELFTESTS/zero_copy_*" "$SELFTESTS/module_test.c"
	"$SELFTESTS/" tools/testing/fuse/ tools/lib/fuse_ring/ tools/fuse/
)

# New files that commits after their own edit. The repository has them as the commit
# that adds them leaves them, so that each commit builds; what a later one does to
# them is in its patch, as with any file of the kernel.
EDITED_LATER=${EDITED_LATER-"fs/fuse/dev_uring_bufpool.c fs/fuse/dev_uring_bufpool.h
	fs/fuse/dev_uring_bufring.c fs/fuse/dev_uring_bufring.h
	fs/fuse/dev_uring_zero_copy.c fs/fuse/dev_uring_zero_copy.h"}

# New files of one part that another cannot do without: PART:FILE. It brings them,
# for where the part that adds them is left out.
NEEDED="selftests:include/uapi/linux/fuse_bufring.h"

# The identity of what the scripts commit to the kernel tree. Neutral on
# purpose: who submits the series puts in their own name.
IDENT_NAME="fuse bufring developers"
IDENT_MAIL="fuse-bufring@localhost"

# The patch files in order, as PART/NAME
series()
{
	local part p

	for part in $PARTS; do
		[ -f "$TOP/patches/$part/series" ] ||
			die "PARTS=\"$PARTS\": there is no patches/$part/series"
		sed 's/[[:space:]]*#.*//; /^[[:space:]]*$/d' "$TOP/patches/$part/series" |
		while read -r p; do
			[ -f "$TOP/patches/$part/$p" ] ||
				die "patches/$part/series names $p, which is not there"
			echo "$part/$p"
		done
	done
}

# whole PATH: the one of WHOLE_DIRS that it is in, or itself
whole()
{
	local whole

	for whole in "${WHOLE_DIRS[@]}"; do
		# shellcheck disable=SC2053	# some are patterns
		[[ $1 != $whole && ($whole != */ || $1 != "$whole"*) ]] || {
			echo "$whole"
			return
		}
	done
	echo "$1"
}

say()
{
	printf '==> %s\n' "$*" >&2
}

die()
{
	printf '%s: error: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

need()
{
	local tool

	for tool; do
		command -v "$tool" >/dev/null ||
			die "'$tool' is missing: run 'make deps'"
	done
}

# free_space DIR GIB: refuse to begin what would fill the disk half-way.
free_space()
{
	local have

	mkdir -p "$1" || die "cannot create $1"
	have=$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1048576) }')
	[ "$have" -ge "$2" ] ||
		die "only $have GiB free in $1, $2 are needed: free some or use another disk"
}

# wait_for_room MOST [PID...]: until fewer than so many jobs of this shell run,
# not counting those
wait_for_room()
{
	local most=$1 others

	shift
	others=$(printf '%s|' "$@")
	while [ "$(jobs -rp | grep -cvxE "${others%|}")" -ge "$most" ]; do
		wait -n || :
	done
}

# on_free_cpu COMMAND...: runs it on a processor that no other such command has,
# as soon as there is one. For User Mode Linux, which needs just one.
on_free_cpu()
{
	local allowed cpu lock rc=0

	allowed=$(taskset -cp $$ | sed -E 's/.*: //; s/([0-9]+)-([0-9]+)/{\1..\2}/g; s/,/ /g')
	mkdir -p "$BUILD/cpu"
	while :; do
		for cpu in $(eval "echo $allowed"); do
			exec {lock}>"$BUILD/cpu/$cpu"
			if flock -n "$lock"; then
				taskset -c "$cpu" "$@" || rc=$?
				exec {lock}>&-
				return $rc
			fi
			exec {lock}>&-
		done
		sleep 0.2
	done
}

# What archive of Debian this system uses: lines of an address and a codename, as
# in its lists of packages, or just the address where it has no lists.
debian_archives()
{
	local lines

	# Only Debian proper: the security archive has no other releases.
	# shellcheck disable=SC2016	# apt expands it
	lines=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' \
		'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null |
		grep -v '^cdrom:' | sort -u) || :
	# Without lists nothing says whose archive it is but its address.
	[ -n "$lines" ] || lines=$(apt-get update --print-uris 2>/dev/null |
		sed -n "s,^'\([^']*/debian/\)dists/.*,\1,p" | sort -u | grep -m1 .) ||
		return
	echo "$lines"
}

# The release of that archive which this system is, or is based on
own_release()
{
	debian_archives | awk 'NR == 1 && NF == 2 { print $2; found = 1 } END { exit !found }' ||
		die "apt has no lists of a Debian archive: run 'apt-get update'"
}

# What the tools and directories of another architecture are called
triplet()
{
	case $1 in
	arm64)	echo aarch64-linux-gnu ;;
	s390x)	echo s390x-linux-gnu ;;
	*)	die "ARCH=$1: arm64 or s390x" ;;
	esac
}

# The compiler for another architecture, of the version that makes our own programs
cross_gcc()
{
	local tools version

	tools=$(triplet "$1")
	version=$(gcc -dumpversion)
	need "$tools-gcc-${version%%.*}"
	echo "$tools-gcc-${version%%.*}"
}

# The key of that archive, which newer releases are signed with, too
debian_keyring()
{
	local keyring

	for keyring in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		[ ! -r "$keyring" ] || { echo "$keyring"; return; }
	done
	die "the Debian archive key is missing: install debian-archive-keyring"
}

# lint_packages CHANGES...: nothing that Debian would complain of, but that nobody's
# address is in them
lint_packages()
{
	lintian --fail-on error,warning \
		--suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog "$@"
}

# Git in the kernel tree and for it must not depend on anybody's settings.
kgit()
{
	GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
		git -C "$LINUX" -c core.quotePath=false "$@"
}

# The same for the repository itself, which may belong to another user than
# root in a container.
rgit()
{
	git -C "$TOP" -c safe.directory="$TOP" -c core.quotePath=false "$@"
}

# progress LOG TOTAL WHAT: copies a build's output to LOG and shows how far it
# is: one line that counts up on a terminal, now and then a line elsewhere.
progress()
{
	local tty=0

	[ -t 2 ] && tty=1
	if [ "${V:-0}" != 0 ]; then
		tee "$1"
		return
	fi
	awk -v log_file="$1" -v total="$2" -v what="$3" -v tty="$tty" '
	{ print > log_file; fflush(log_file) }
	/^  [A-Z]+ (\[M\] )? *[^ ]+$/ {
		n++
		if (tty && n % 10 == 0)
			printf "\r    %s: %d of about %d steps ", what, n, total > "/dev/stderr"
		else if (!tty && n % 500 == 0)
			printf "    %s: %d of about %d steps\n", what, n, total > "/dev/stderr"
	}
	END { if (tty && n >= 10) printf "\r\033[K" > "/dev/stderr" }'
}

case $TOP in
*[[:space:]:]*)	die "the kernel cannot be built below a path with spaces or colons: $TOP" ;;
esac

# Compiler cache: used where installed; paths made relative so that a second
# clone of the repository finds what the first one compiled.
if [ -d /usr/lib/ccache ] && command -v ccache >/dev/null; then
	export PATH=/usr/lib/ccache:$PATH
	export CCACHE_DIR=${CCACHE_DIR:-$CACHE_DIR/ccache}
	export CCACHE_BASEDIR=$TOP CCACHE_NOHASHDIR=1
	export CCACHE_SLOPPINESS=time_macros
	# The one absolute path that kbuild still passes; with relative names
	# it has no effect.
	export CCACHE_IGNOREOPTIONS='-fmacro-prefix-map=*'
fi
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 2026'
export KBUILD_BUILD_USER=fuse KBUILD_BUILD_HOST=localhost KBUILD_BUILD_VERSION=1
