# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
# shellcheck shell=bash disable=SC2034	# the tests that source it use them
#
# What the tests that mount share. Source it, call test_case for each test, then
# run_cases "$@". Every test is a process of its own with a time limit: one that
# hangs fails, what its processes wait for is shown, and all that it left is
# taken away. The result is TAP.
#
# In a test: end with fail or skip, or with the end of the function. Commands
# that fail end it too (set -e). $dir is an empty directory for it. Only lines
# that begin with "# " are shown of a test that succeeds.

set -uo pipefail
export LC_ALL=C
umask 022
# kselftest has lines come at once, but means the tests, not what they start.
unset LD_PRELOAD _STDBUF_O

tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# Where the library was built; this directory may be a part of it.
built=${FUSE_RING_BUILT:-$(dirname "$tests")}
preload=$built/libfuse_ring_preload.so
parameter=/sys/module/fuse/parameters/enable_uring
# Emulated or debugged, everything takes its time.
slower=${FUSE_RING_TEST_SLOWER:-1}

names=() limits=() commands=()
server='' log='' mark=''

# test_case NAME SECONDS COMMAND [ARG...]
test_case()
{
	names+=("$1")
	limits+=("$2")
	commands+=("$(printf '%q ' "${@:3}")")
}

fail()
{
	echo "FAILED: $*"
	exit 1
}

skip()
{
	echo "$*"
	exit 4
}

# within SECONDS COMMAND...: until it succeeds
within()
{
	local end=$((SECONDS + $1 * slower))

	shift
	until "$@"; do
		[ $SECONDS -le $end ] || return 1
		sleep 0.05
	done
}

# Without asking the file system, which may be what hangs
mounted()
{
	awk -v m="$1" '$5 == m { found = 1 } END { exit !found }' \
		/proc/self/mountinfo
}

not_mounted()
{
	! mounted "$1"
}

# Gone, or only waiting to be reaped: not by this shell, which is about to, and
# in $( ) does not know what became of its child before it has.
ended()
{
	[ ! -d "/proc/$1" ] || ! awk -v shell=$$ '
		/^State:/ { zombie = $2 == "Z" }
		/^PPid:/ { own = $2 == shell }
		END { exit zombie && !own }' "/proc/$1/status" 2>/dev/null
}

# A MODE is the name of one, or MODE:INTERFACE.

# interface_of MODE: the name, if one is given
interface_of()
{
	[[ $1 != *:* ]] || echo "${1#*:}"
}

# ring_options MODE: as options of a command line
ring_options()
{
	local interface

	interface=$(interface_of "$1")
	echo "ring=${1%:*}${interface:+,ring_interface=$interface}"
}

# serve MODE COMMAND...: runs a server over the library, or 'bare'; in the
# foreground from its own view. -> $server, $log
serve()
{
	# The shell has what it starts in the background ignore this signal.
	local mode=$1 interface how=(env --default-signal=INT)

	shift
	interface=$(interface_of "$mode")
	log=$dir/ring.log
	rm -f "$log"
	: >"$log"
	chmod 666 "$log"
	[ "$mode" = bare ] ||
		how+=("FUSE_RING=${mode%:*}" "FUSE_RING_LOG=$log"
		      "LD_PRELOAD=$preload" ${interface:+"FUSE_RING_INTERFACE=$interface"})
	"${how[@]}" "$@" >"$dir/server.out" 2>&1 &
	server=$!
}

serving()
{
	mounted "$1" || ended "$server"
}

# await_mount DIR
await_mount()
{
	within 30 serving "$1" || fail "$1 is not mounted after 30 seconds"
	mounted "$1" || {
		cat "$dir/server.out"
		fail "the server ended with $(status_of "$server") before it was mounted"
	}
}

status_of()
{
	local status=0

	wait "$1" || status=$?
	echo $status
}

said_something()
{
	[ -s "$log" ]
}

uses_io_uring()
{
	[ -n "$(find "/proc/$1/fd" -lname '*io_uring*' 2>/dev/null)" ]
}

# memory_kib FIELD PID
memory_kib()
{
	awk -v field="$1:" '$1 == field { print $2 }' "/proc/$2/status"
}

pinned_kib()
{
	memory_kib VmPin "$1"
}

# has_pinned PID: memory of the server's is pinned. io_uring does not count what a
# privileged server registers; the table of its buffers shows it.
has_pinned()
{
	[ "$(pinned_kib "$1")" -gt 0 ] ||
		grep -qsE '^ *[0-9]+: 0x[0-9a-f]+/[1-9]' "/proc/$1/fdinfo"/*
}

# How the library says that no server gets a better mode of this kernel, as a
# regular expression
kernel_lacks='the kernel has no buffer (rings|pools)$'

# need_mode MODE [PROGRAM]: the library says that it has that mode. Where it says
# that the kernel does not have it, the test is skipped; any other reason fails
# it. It said so for PROGRAM, or was preloaded.
need_mode()
{
	local mode=${1%:*} name=${2:-fuse_ring} line interface

	within 30 said_something || fail "the library did not say what it does"
	line=$(head -n 1 "$log")
	echo "$line"
	case $mode in
	pooled|pinned|zero-copy)
		[[ ! $line =~ ^"$name: off, "$kernel_lacks ]] ||
			skip "$mode: $line" ;;
	esac
	[[ $line == "$name: $mode, "* ]] || fail "mode $mode was expected"
	interface=$(interface_of "$1")
	[[ $line == *"(${interface:-}"*", Linux "* ]] ||
		fail "interface $interface was expected"
}

# expect_auto BEST PID [PROGRAM]: as expect_mode, where "auto" was asked for and
# BEST is the best that the server may have. On a kernel that does not have it,
# that is the legacy mode; over buffer pools it is less than zero-copy.
expect_auto()
{
	local line best=$1

	within 30 said_something || fail "the library did not say what it does"
	line=$(head -n 1 "$log")
	case $line in
	"${3:-fuse_ring}: pinned, "*"(bufpool, "*"has to be asked for")
		best=pinned ;;
	"${3:-fuse_ring}: legacy, "*)
		[[ ! $line =~ "; "$kernel_lacks ]] || best=legacy ;;
	esac
	expect_mode "$best" "${@:2}"
}

# expect_mode MODE PID [PROGRAM]: what the library said is that, and it is true.
expect_mode()
{
	local mode=$1 pid=$2 name=${3:-fuse_ring}

	[ $# -gt 2 ] || grep -q libfuse_ring_preload "/proc/$pid/maps" ||
		fail "the library is not in process $pid"
	# The line comes with INIT, which the mount does not wait for.
	if [ "$mode" = off ]; then
		ls "$mnt" >/dev/null
		! grep -v "^$name: off" "$log" || fail "off was wanted"
		! uses_io_uring "$pid" || fail "it was off, but there is an io_uring"
		return
	fi
	need_mode "$mode" "$name"
	[ "$(wc -l <"$log")" = 1 ] || {
		cat "$log"
		fail "one line was expected"
	}
	uses_io_uring "$pid" || fail "there is no io_uring"
	case ${mode%:*},$(head -n 1 "$log") in
	# Whether the pool is pinned depends on the server.
	zero-copy,*"(bufpool, "*)
		;;
	pinned,*|zero-copy,*)
		has_pinned "$pid" || fail "no memory is pinned" ;;
	*)	! has_pinned "$pid" || fail "memory is pinned" ;;
	esac
}

# What clients read after this, the server is asked for.
forget_caches()
{
	sync -f "$1"
	echo 3 >/proc/sys/vm/drop_caches
}

# stop_server DIR: the server ends well when the file system is unmounted.
stop_server()
{
	local status

	umount "$1" || fail "cannot unmount $1"
	within 30 ended "$server" || fail "the server does not end"
	status=$(status_of "$server")
	[ "$status" = 0 ] || {
		cat "$dir/server.out"
		fail "the server ended with $status"
	}
}

# By the mark in their environment: the server may have become a daemon.
marked_processes()
{
	local environ pid

	for environ in /proc/[0-9]*/environ; do
		pid=${environ#/proc/}
		if grep -qzxF "FUSE_RING_TEST_MARK=$mark" "$environ"; then
			echo "${pid%/environ}"
		fi
	done 2>/dev/null
}

# What every process of the test is doing
dump()
{
	local pid task

	echo "the processes of the test:"
	for pid in $(marked_processes); do
		echo "  $pid $(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c -100)"
		for task in "/proc/$pid/task"/*; do
			echo "    $(cat "$task/comm")" \
				"$(awk '/^State:/ { print $2 }' "$task/status")" \
				"in $(cat "$task/wchan")"
			[ ! -r "$task/stack" ] || head -n 8 "$task/stack" | sed 's/^/      /'
		done
	done 2>/dev/null
	echo "fuse connections:"
	(cd /sys/fs/fuse/connections && grep . -- */waiting) 2>/dev/null | sed 's/^/  /'
	for task in "$dir"/ring.log "$dir"/server.out; do
		[ ! -s "$task" ] || tail -n 20 "$task" | sed "s,^,${task##*/}: ,"
	done
}

mounts_below()
{
	awk -v m="$1/" 'index($5 "/", m) == 1 { print $3, $5 }' /proc/self/mountinfo | tac
}

connections()
{
	find /sys/fs/fuse/connections -mindepth 1 -maxdepth 1 2>/dev/null | wc -l
}

no_more_connections_than()
{
	[ "$(connections)" -le "$1" ]
}

no_marked_processes()
{
	[ -z "$(marked_processes)" ]
}

clean_up()
{
	local dev where pid

	for pid in $(marked_processes); do
		kill -KILL "$pid" 2>/dev/null
	done
	while read -r dev where; do
		echo 1 2>/dev/null >"/sys/fs/fuse/connections/${dev#*:}/abort"
		umount -l "$where"
	done < <(mounts_below "$dir")
	within 10 no_marked_processes ||
		echo "processes cannot be killed: $(marked_processes)"
	rm -rf "$dir"
}

# run_case NUMBER: -> 0, 4 for a skip, 124 for a time-out or what it failed with
run_case()
{
	local guard case_pid before status=0

	before=$(connections)
	dir=$work/case
	mkdir "$dir"
	chmod 755 "$dir"
	mark=$work.$1
	FUSE_RING_TEST_MARK=$mark setsid "$0" --case "$1" "$dir" >"$work/out" 2>&1 </dev/null &
	case_pid=$!
	sleep $((limits[$1] * slower)) &
	guard=$!
	wait -n "$case_pid" "$guard"
	if kill -0 "$case_pid" 2>/dev/null; then
		dump >>"$work/out"
		status=124
	fi
	kill "$guard" 2>/dev/null
	wait "$guard" 2>/dev/null
	clean_up >>"$work/out" 2>&1
	! declare -F tear_down >/dev/null || tear_down
	if [ $status = 0 ]; then
		wait "$case_pid"
		status=$?
	fi
	if ! within 10 no_more_connections_than "$before"; then
		echo "a fuse connection is left" >>"$work/out"
		[ $status != 0 ] || status=1
	fi
	return $status
}

report_case()
{
	local name=${names[$1]} number=$2 status=$3 why

	case $status in
	0)	grep -a '^# ' "$work/out"
		echo "ok $number $name" ;;
	4)	echo "ok $number $name # SKIP $(tail -n 1 "$work/out")" ;;
	*)	failures=$((failures + 1))
		why=$(grep -a '^FAILED: ' "$work/out" | tail -n 1)
		[ "$status" != 124 ] ||
			why="FAILED: not done after $((limits[$1] * slower)) seconds"
		head -n 100 "$work/out" | sed 's/^/# /'
		[ "$(wc -l <"$work/out")" -le 100 ] || echo "# and more"
		echo "not ok $number $name: ${why#FAILED: }" ;;
	esac
}

usage()
{
	cat <<-END
	usage: ${0##*/} [-l] [-t WORD]...
	  -l        list the tests
	  -t WORD   only tests with this word in their name
	END
}

wanted()
{
	local word

	[ ${#words[@]} -gt 0 ] || return 0
	for word in "${words[@]}"; do
		[[ $1 != *"$word"* ]] || return 0
	done
	return 1
}

# set_up, if there is one, runs once before all tests; what it makes in $shared
# is there for each of them. begin_case and tear_down, if there, run before and
# after each test, the first one in its process.
run_cases()
{
	local n number=0 status chosen=() words=() failures=0 begin

	if [ "${1:-}" = --case ]; then
		dir=$3
		shared=$(dirname "$dir")/shared
		mnt=$dir/mnt
		mark=$FUSE_RING_TEST_MARK
		mkdir "$mnt"
		shopt -s extglob
		! declare -F begin_case >/dev/null || begin_case
		set -e
		eval "${commands[$2]}"
		exit
	fi
	while [ $# -gt 0 ]; do
		case $1 in
		-l)	printf '%s\n' "${names[@]}"; exit ;;
		-t)	words+=("${2:?a word}"); shift ;;
		*)	usage >&2; exit 2 ;;
		esac
		shift
	done
	for n in "${!names[@]}"; do
		! wanted "${names[n]}" || chosen+=("$n")
	done
	echo "TAP version 13"
	[ ${#chosen[@]} -gt 0 ] || bail_out "no test is called so"
	[ "$(id -u)" = 0 ] || skip_all "needs root"
	[ -e "$parameter" ] || skip_all "the kernel has no fuse over io_uring ($parameter)"
	[ "$(cat "$parameter")" = Y ] || echo Y >"$parameter" ||
		bail_out "cannot turn $parameter on"
	[ -e "$preload" ] || bail_out "there is no $preload: build the library first"
	work=$(mktemp -d) || bail_out "no directory for temporary files"
	trap 'rm -rf "$work"' EXIT
	chmod 755 "$work"
	shared=$work/shared
	mkdir "$shared"
	echo "1..${#chosen[@]}"
	! declare -F set_up >/dev/null || (set -e; set_up) >"$work/out" 2>&1 || {
		sed 's/^/# /' "$work/out"
		bail_out "the preparation of the tests failed"
	}
	for n in "${chosen[@]}"; do
		number=$((number + 1))
		begin=$SECONDS
		status=0
		run_case "$n" || status=$?
		report_case "$n" "$number" "$status"
		[ $((SECONDS - begin)) -lt 10 ] || echo "# $((SECONDS - begin)) seconds"
	done
	[ $failures = 0 ]
}

bail_out()
{
	echo "Bail out! ${0##*/}: $*"
	exit 1
}

skip_all()
{
	echo "1..0 # SKIP $*"
	exit 4
}
