#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
#
# What libfuse_ring_preload.so does where it cannot have all that it wants, and
# that a server keeps the manners it has without it.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

nobody=65534
disabled=/proc/sys/kernel/io_uring_disabled

# Where another user gets to, too
set_up()
{
	cp "$preload" "$built/probe_fs" "$shared/"
	chmod 755 "$shared"/*
}

# What a test turned off, whatever became of it
tear_down()
{
	echo Y >$parameter
	[ ! -e $disabled ] || echo 0 >$disabled
}

begin_case()
{
	preload=$shared/libfuse_ring_preload.so
	probe=$shared/probe_fs
}

mount_probe()
{
	local mode=$1

	shift
	serve "$mode" "$probe" -f "$@" "$mnt"
	await_mount "$mnt"
	case $mode in
	legacy*|pooled*|pinned*)	need_mode "$mode" ;;
	esac
}

# The file system does what it is for: data there and back, several at once
works()
{
	local n pids=()

	ls "$mnt" >/dev/null
	head -c 3000000 /dev/urandom >"$dir/random"
	cp "$dir/random" "$mnt/data"
	cmp "$dir/random" "$mnt/data" || fail "the data differs"
	for n in 1 2 3 4; do
		cmp "$dir/random" "$mnt/data" &
		pids+=($!)
	done
	for n in "${pids[@]}"; do
		wait "$n" || fail "the data differs for several readers"
	done
	! stat "$mnt/missing" 2>/dev/null || fail "a missing file is there"
}

# says TEXT: the library said that, in the first line of its log.
says()
{
	within 30 said_something || fail "the library did not say what it does"
	cat "$log"
	[[ $(head -n 1 "$log") == "fuse_ring: "$1 ]] || fail "'$1' was expected"
}

# says_of_pinning TEXT: the same about pinned memory, which the kernel may not
# have
says_of_pinning()
{
	within 30 said_something || fail "the library did not say what it does"
	[[ ! $(head -n 1 "$log") =~ $kernel_lacks ]] || skip "$(head -n 1 "$log")"
	says "$1"
}

# The best that "auto" can have here: pinned, or less because of the kernel
said_best()
{
	grep -qE "^fuse_ring: (pinned, |legacy, .*; $kernel_lacks)" "$log"
}

says_no_more()
{
	[ "$(wc -l <"$log")" = 1 ] || fail "one line was expected"
}

count()
{
	cut -d' ' -f1 "$mnt/$1"
}

count_is()
{
	[ "$(count "$1")" = "$2" ]
}

all_ended()
{
	local pid

	for pid; do
		ended "$pid" || return 1
	done
}

#
# Not all can be had
#

# as_nobody KIB MODE: mounts with so much memory to lock.
as_nobody()
{
	command -v fusermount3 >/dev/null || skip "fusermount3 is not installed"
	command -v setpriv >/dev/null || skip "setpriv is not installed"
	chown $nobody "$mnt"
	ulimit -l "$1"
	serve "$2" setpriv --reuid $nobody --regid $nobody --clear-groups \
		"$probe" -f "$mnt"
	await_mount "$mnt"
	[ "$(awk '/^Uid:/ { print $3 }' "/proc/$server/status")" = $nobody ] ||
		fail "the server is not unprivileged"
}

works_for_nobody()
{
	export mnt dir
	chmod 777 "$dir"
	declare -fx works fail
	setpriv --reuid $nobody --regid $nobody --clear-groups bash -e -c works ||
		fail "it does not work"
}

locked='pinned needs * KiB of locked memory in each of * queues'
over_64_kib="$locked, RLIMIT_MEMLOCK is 64 KiB"

auto_without_locked_memory()
{
	as_nobody 64 "$1"
	says_of_pinning "pooled, *; $over_64_kib"
	says_no_more
	works_for_nobody
	stop_server "$mnt"
}

# One has the memory, so the other does not get it.
limit_used_by_another_server()
{
	local first first_mnt=$mnt used

	as_nobody 65536 "$1"
	says_of_pinning 'pinned, *'
	first=$server used=$(pinned_kib "$server")
	mnt=$dir/second
	mkdir "$mnt"
	as_nobody $((used * 3 / 2)) "$1"
	says "pooled, *; $locked, RLIMIT_MEMLOCK is $((used * 3 / 2)) KiB, other processes \
of this user have $used KiB"
	says_no_more
	stop_server "$mnt"
	server=$first
	stop_server "$first_mnt"
}

# The mode that is told is the one that all queues have.
auto_with_locked_memory_for_one_queue()
{
	local each queues

	as_nobody 64 auto
	says_of_pinning 'pooled, *'
	[[ $(head -n 1 "$log") =~ needs\ ([0-9]+)\ KiB.*in\ each\ of\ ([0-9]+)\ queues ]] ||
		fail "it does not say what it needs: $(cat "$log")"
	each=${BASH_REMATCH[1]} queues=${BASH_REMATCH[2]}
	stop_server "$mnt"
	[ "$queues" -gt 1 ] || skip "there is only one queue"
	as_nobody $((each * 3 / 2)) auto
	says_of_pinning "pooled, *; pinned needs $each KiB of locked memory in *"
	says_no_more
	# A buffer ring can have it for one queue, buffer pools are all alike.
	if [[ $(head -n 1 "$log") == *'(bufring, '* ]]; then
		has_pinned "$server" || fail "no memory is pinned"
	else
		! has_pinned "$server" || fail "memory is pinned"
	fi
	works_for_nobody
	stop_server "$mnt"
}

auto_with_enough_locked_memory()
{
	as_nobody 65536 "$1"
	says_of_pinning 'pinned, *'
	says_no_more
	[ "$(pinned_kib "$server")" -gt 0 ] || fail "no memory is pinned"
	works_for_nobody
	stop_server "$mnt"
}

pinned_without_locked_memory()
{
	as_nobody 64 "$1"
	says_of_pinning "off, *$over_64_kib"
	says_no_more
	works_for_nobody
	! uses_io_uring "$server" || fail "there is still an io_uring"
	stop_server "$mnt"
}

# io_uring_setup() itself may want locked memory.
no_locked_memory_at_all()
{
	as_nobody 0 auto
	says '@(pooled|legacy|off), *'
	says_no_more
	works_for_nobody
	stop_server "$mnt"
}

# So few descriptors that there are none for io_uring
no_descriptors_left()
{
	local inherited

	# Besides those, /dev/fuse, the log, a duplicate of /dev/fuse and one more
	# shellcheck disable=SC2016	# that of the other shell
	inherited=$(sh -c 'ls /proc/$$/fd' | wc -l)
	ulimit -n $((inherited + 4))
	mount_probe auto
	ulimit -n 1024
	says 'off, *: Too many open files'
	works
	stop_server "$mnt"
}

# The server may not write a file as large as the buffers are.
small_files_only()
{
	command -v prlimit >/dev/null || skip "prlimit is not installed"
	serve "$1" prlimit --fsize=65536 "$probe" -f "$mnt"
	await_mount "$mnt"
	expect_mode "$1" "$server"
	works
	stop_server "$mnt"
}

# Nor may it write at all: what the library has to say is lost.
no_files_at_all()
{
	command -v prlimit >/dev/null || skip "prlimit is not installed"
	# libfuse has something to say, too.
	# shellcheck disable=SC2016	# for the other shell
	serve "$1" sh -c 'exec prlimit --fsize=0 "$@" >/dev/null 2>&1' - "$probe" -f "$mnt"
	await_mount "$mnt"
	works
	uses_io_uring "$server" || fail "there is no io_uring"
	[ ! -s "$log" ] || fail "it can write: $(cat "$log")"
	stop_server "$mnt"
}

# Who was to read what the library says went away.
nobody_listens()
{
	mkfifo "$dir/pipe"
	exec 7<>"$dir/pipe"
	exec 6>"$dir/pipe"
	exec 7>&-
	# It does not have libfuse set up signals, among which this one is ignored.
	"$built/notify_fs" "$(ring_options "$1")" "$mnt" >"$dir/server.out" 2>&6 6>&- &
	server=$!
	exec 6>&-
	await_mount "$mnt"
	stat "$mnt" >/dev/null
	uses_io_uring "$server" || fail "there is no io_uring"
	stop_server "$mnt"
}

kernel_parameter_is_off()
{
	echo N >$parameter
	mount_probe auto
	says 'off, the kernel does not offer fuse over io_uring (fuse.enable_uring)'
	says_no_more
	works
	! uses_io_uring "$server" || fail "there is an io_uring"
	stop_server "$mnt"
}

io_uring_is_forbidden()
{
	[ -e $disabled ] || skip "the kernel has no $disabled"
	echo 2 >$disabled
	mount_probe auto
	says 'off, *: Operation not permitted'
	says_no_more
	works
	! uses_io_uring "$server" || fail "there is an io_uring"
	stop_server "$mnt"
}

# As libfuse 2 is built: functions of the same names, with other versions
make_libfuse_2()
{
	cat >"$dir/libfuse.c" <<-END
		#include <stdio.h>
		int fuse_session_loop(void *se) { return printf("one %p\\n", se) < 0; }
		int fuse_session_loop_mt(void *se) { return printf("many %p\\n", se) < 0; }
	END
	cat >"$dir/libfuse.map" <<-END
		FUSE_2.4 { global: fuse_session_loop; fuse_session_loop_mt; local: *; };
	END
	gcc -shared -fPIC -Wl,-soname,libfuse.so.2 -Wl,--version-script="$dir/libfuse.map" \
		-o "$dir/libfuse.so.2" "$dir/libfuse.c"
	cat >"$dir/program.c" <<-END
		int fuse_session_loop(void *se);
		int fuse_session_loop_mt(void *se);
		int main(void) { return fuse_session_loop(main) | fuse_session_loop_mt(main); }
	END
	gcc -o "$dir/program" "$dir/program.c" "$dir/libfuse.so.2"
}

# run_program: with a log of the library, if $log says where
run_program()
{
	timeout 30 env LD_LIBRARY_PATH="$dir" FUSE_RING=auto LD_PRELOAD="$preload" \
		${log:+FUSE_RING_LOG="$log"} "$dir/program" >"$dir/out" 2>"$dir/said"
}

# Nor does the library take part in a program that has nothing to do with fuse.
libfuse_2_is_left_alone()
{
	command -v gcc >/dev/null || skip "gcc is not installed"
	make_libfuse_2
	log=$dir/ring.log
	run_program || fail "the program fails: $?"
	[ "$(cut -d' ' -f1 "$dir/out" | xargs)" = 'one many' ] ||
		fail "libfuse 2 was not called: $(cat "$dir/out")"
	says 'off, the program uses libfuse 2'
	says_no_more
	log=''
	run_program || fail "the program fails without a log"
	env FUSE_RING=auto FUSE_RING_LOG="$dir/other.log" LD_PRELOAD="$preload" true ||
		fail "a program without fuse fails"
	[ ! -s "$dir/other.log" ] || fail "said of a program without fuse: $(cat "$dir/other.log")"
	log=$dir/said
	says 'off, the program uses libfuse 2'
}

loop_of_its_own()
{
	serve auto "$built/own_loop_fs" "$mnt"
	await_mount "$mnt"
	stat "$mnt" >/dev/null
	says 'off, the program has a loop of its own'
	says_no_more
	stop_server "$mnt"
}

# The kernel has no io_uring there, whatever it has for file systems.
character_device()
{
	local name=fuse_ring_test.$$

	[ -e /dev/cuse ] || skip "the kernel has no CUSE"
	serve auto "$built/cuse_dev" "$name"
	within 30 test -c "/dev/$name" || fail "there is no device"
	[ "$(head -n 1 "/dev/$name")" = device ] || fail "it cannot be read"
	says 'off, character devices (CUSE) have no io_uring'
	says_no_more
	kill "$server"
	within 30 ended "$server" || fail "the server does not end"
}

# A thread of the server does not wait until INIT was answered, which the rings
# take some time for.
notified_before_init_is_answered()
{
	log=$dir/ring.log
	"$built/notify_fs" "$(ring_options "$1")" "$mnt" >"$dir/server.out" 2>"$log" &
	server=$!
	await_mount "$mnt"
	need_mode "$1"
	within 30 grep -q notified "$dir/server.out" || fail "there is no notification"
	[ "$(cat "$dir/server.out")" = 'notified: 0' ] || fail "$(cat "$dir/server.out")"
	stat "$mnt" >/dev/null
	stop_server "$mnt"
}

# refusing NUMBER ERRNO COMMAND...: the system call of that number fails so.
refusing()
{
	cat >"$dir/refuse.py" <<-'END'
		import ctypes, os, struct, sys

		# What seccomp(2) calls BPF_LD|W|ABS, BPF_JMP|JEQ|K and BPF_RET|K
		code = b"".join(struct.pack("=HBBI", *line) for line in (
		    (0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])),
		    (0x06, 0, 0, 0x00050000 | int(sys.argv[2])), (0x06, 0, 0, 0x7fff0000)))
		buffer = ctypes.create_string_buffer(code)
		program = struct.pack("@HP", 4, ctypes.addressof(buffer))
		libc = ctypes.CDLL(None, use_errno=True)
		# PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with a filter
		if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
		    sys.exit(f"no filter: {os.strerror(ctypes.get_errno())}")
		os.execvp(sys.argv[3], sys.argv[3:])
	END
	python3 "$dir/refuse.py" "$@"
}

# call_is_refused MODE NUMBER ERRNO LINE: INIT must not agree to what cannot follow.
call_is_refused()
{
	refusing "$2" "$3" true || skip "the kernel has no seccomp filters"
	serve "$1" python3 "$dir/refuse.py" "$2" "$3" "$probe" -f "$mnt"
	await_mount "$mnt"
	says_of_pinning "$4"
	says_no_more
	works
	stop_server "$mnt"
}

# As a security module can: only the commands that go to the driver
commands_are_refused()
{
	preload=$preload:$built/refuse_commands.so
	mount_probe auto
	says 'off, a command over io_uring: Permission denied'
	says_no_more
	works
	! uses_io_uring "$server" || fail "there is still an io_uring"
	stop_server "$mnt"
}

# With less address space than the buffers take; pinned or not, no limit of
# locked memory is in the way.
no_address_space()
{
	command -v prlimit >/dev/null || skip "prlimit is not installed"
	export FUSE_RING_DEPTH=4000 FUSE_RING_POOL=1m:4000
	serve "$1" prlimit --as=3000000000 "$probe" -f "$mnt"
	await_mount "$mnt"
	says_of_pinning "off, ${1%:*}: mmap(): Cannot allocate memory"
	says_no_more
	works
	stop_server "$mnt"
}

mode_works()
{
	mount_probe "$1"
	expect_mode "$1" "$server"
	works
	stop_server "$mnt"
}

# What INIT offers, asked for without the library or libfuse
kernel_offers()
{
	python3 - "$1" <<-'END'
		import ctypes, os, struct, sys

		libc = ctypes.CDLL(None, use_errno=True)
		fd = os.open("/dev/fuse", os.O_RDWR)
		where = sys.argv[1].encode()
		how = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
		if libc.mount(b"init", where, b"fuse.init", 0, how):
		    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
		# struct fuse_in_header, then fuse_init_in with flags2 as its fifth
		flags2 = struct.unpack_from("=I", os.read(fd, 65536), 40 + 16)[0]
		libc.umount2(where, 2)
		for bit, name in (60, "bufring"), (43, "bufpool"), (41, "entries"):
		    if flags2 >> (bit - 32) & 1:
		        print(name)
	END
}

# interface_is_had NAME BEST WHAT: it is because the kernel has no WHAT that tests
# are skipped, and the best mode is what that interface has.
interface_is_had()
{
	kernel_offers "$mnt" >"$dir/offers"
	grep -qx entries "$dir/offers" || fail "INIT cannot be looked at"
	serve "auto:$1" "$probe" -f "$mnt"
	await_mount "$mnt"
	if grep -qx "$1" "$dir/offers"; then
		says "$2, * ($1, Linux $(uname -r))"
	else
		says "off, the kernel has no $3"
	fi
	says_no_more
	works
	stop_server "$mnt"
}

# Without a name it is the first one of those that INIT offers.
best_interface_is_taken()
{
	local best

	best=$(kernel_offers "$mnt" | head -n 1)
	mount_probe auto
	says "*(${best:?}, Linux $(uname -r))*"
	works
	stop_server "$mnt"
}

# mode_of_another_interface MODE:INTERFACE
mode_of_another_interface()
{
	serve "$1" "$probe" -f "$mnt"
	await_mount "$mnt"
	says "off, ring_interface=${1#*:} has no mode ${1%:*}"
	says_no_more
	works
	stop_server "$mnt"
}

#
# Nonsense
#

# nonsense VARIABLE VALUE LINE: it is told, and the rest goes on.
nonsense()
{
	export "$1=$2"
	mount_probe "${FUSE_RING:-auto}"
	ls "$mnt" >/dev/null
	says "$3"
	said_best || fail "the best mode was expected then"
	works
	stop_server "$mnt"
}

# nonsense_is_off VARIABLE VALUE: who wants one thing is not given another.
nonsense_is_off()
{
	export "$1=$2"
	mount_probe "${FUSE_RING:-auto}"
	says "off, $3=$2 makes no sense"
	says_no_more
	works
	! uses_io_uring "$server" || fail "there is an io_uring"
	stop_server "$mnt"
}

# Capital letters do not matter.
names_in_capitals()
{
	mount_probe Off
	works
	[ ! -s "$log" ] || fail "said where it was to be off: $(cat "$log")"
	stop_server "$mnt"
	export FUSE_RING_INTERFACE=Entries
	mount_probe Auto
	says 'legacy, * (entries, Linux *)'
	works
	stop_server "$mnt"
}

empty_variables_are_not_set()
{
	export FUSE_RING_INTERFACE='' FUSE_RING_DEPTH='' FUSE_RING_POOL='' FUSE_RING_WORKERS=''
	mount_probe ''
	ls "$mnt" >/dev/null
	within 30 said_best || fail "the best mode was expected: $(cat "$log")"
	says_no_more
	stop_server "$mnt"
}

options_are_followed()
{
	export FUSE_RING_DEPTH=5 FUSE_RING_POOL=8k:3,1m:2 FUSE_RING_WORKERS=3
	mount_probe "$1"
	says "${1%:*}, * queues of 5 requests and $2 KiB of payload buffers*"
	works
	stop_server "$mnt"
}

log_goes_to_standard_error()
{
	log=$dir/server.out
	env FUSE_RING=auto LD_PRELOAD="$preload" "$probe" -f "$mnt" >"$dir/stdout" 2>"$log" &
	server=$!
	await_mount "$mnt"
	ls "$mnt" >/dev/null
	within 30 said_best || fail "standard error does not tell the mode"
	[ ! -s "$dir/stdout" ] || fail "standard output is not for that"
	stop_server "$mnt"
}

log_cannot_be_opened()
{
	log=$dir/server.out
	env FUSE_RING=auto FUSE_RING_LOG="$dir/missing/log" LD_PRELOAD="$preload" \
		"$probe" -f "$mnt" 2>"$log" &
	server=$!
	await_mount "$mnt"
	ls "$mnt" >/dev/null
	within 30 said_best || fail "standard error does not tell the mode"
	grep -qxF "fuse_ring: FUSE_RING_LOG=$dir/missing/log: No such file or directory" "$log" ||
		fail "it does not say where the log is: $(cat "$log")"
	stop_server "$mnt"
}

#
# Threads
#

read_four_times()
{
	local n pids=()

	for n in 1 2 3 4; do
		cat "$mnt/meet" &
		pids+=($!)
	done
	for n in "${pids[@]}"; do
		wait "$n" || fail "cannot read"
	done
}

# one at a time with -s, several without
operations_at_once()
{
	mount_probe "$@"
	read_four_times
	[ "$(count most)" -gt 1 ] || fail "operations do not run beside each other"
	stop_server "$mnt"
}

one_operation_at_a_time()
{
	mount_probe "$1" -s
	[ "$1" = bare ] || expect_mode "$1" "$server"
	read_four_times
	works
	[ "$(count most)" = 1 ] || fail "$(count most) operations ran at once"
	stop_server "$mnt"
}

#
# Signals to clients
#

one_is_held()
{
	count_is waiting 1
}

# The server holds the request of a client that is killed.
interrupted_client()
{
	local client

	mount_probe "$1"
	cat "$mnt/hold" &
	client=$!
	within 10 one_is_held || fail "the request does not get to the server"
	kill -TERM $client
	within 10 ended $client || fail "the client hangs"
	[ "$(status_of $client)" = 143 ] || fail "the client did not die of the signal"
	within 10 count_is waiting 0 || fail "the server still holds the request"
	count woken
	[ "$(cat "$mnt/woken")" = "1 interrupted, 0 timed out" ] ||
		fail "the operation was not interrupted: $(cat "$mnt/woken")"
	works
	stop_server "$mnt"
}

# The signal comes when the request is just on its way: whenever that is, the
# client does not have to wait until the operation ends by itself.
interrupted_at_any_moment()
{
	mount_probe "$1"
	timeout 500 python3 - "$mnt/hold" <<-'END' || fail "clients hang: $(cat "$mnt/woken")"
		import os, random, signal, sys, time
		rng = random.Random(1)
		late = 0
		for n in range(150):
		    pid = os.fork()
		    if not pid:
		        os.read(os.open(sys.argv[1], os.O_RDONLY), 100)
		        os._exit(0)
		    until = time.monotonic() + rng.choice([0, .001, .003, .01]) * rng.random()
		    while time.monotonic() < until:
		        pass
		    os.kill(pid, signal.SIGTERM)
		    begin = time.monotonic()
		    os.waitpid(pid, 0)
		    late += time.monotonic() - begin > 15
		if late:
		    sys.exit(f"{late} of 150 were answered late")
	END
	cat "$mnt/woken"
	[[ $(cat "$mnt/woken") == *" 0 timed out" ]] || fail "an interrupt got lost"
	stop_server "$mnt"
}

# One that comes while its request waits for a thread, which serves another one
# in between
interrupted_before_it_begins()
{
	export FUSE_RING_WORKERS=1
	mount_probe "$1"
	timeout 200 python3 - "$mnt" <<-'END' || fail "clients hang: $(cat "$mnt/woken")"
		import os, signal, sys, time

		for n in range(5):
		    # Each of these takes a while, and the thread has one at a time.
		    files = [os.open(sys.argv[1] + name, os.O_RDONLY)
		             for name in ("/meet", "/meet", "/hold")]
		    pids = []
		    for file in files:
		        pids.append(os.fork())
		        if not pids[-1]:
		            os.read(file, 100)
		            os._exit(0)
		        time.sleep(.05)
		    os.kill(pids[2], signal.SIGTERM)
		    begin = time.monotonic()
		    for pid in pids:
		        os.waitpid(pid, 0)
		    if time.monotonic() - begin > 15:
		        sys.exit("a client was answered late")
		    for file in files:
		        os.close(file)
	END
	[[ $(cat "$mnt/woken") == *" 0 timed out" ]] || fail "an interrupt got lost"
	stop_server "$mnt"
}

#
# Locks
#

# All on one CPU, that is in one queue
python_lock()
{
	taskset -c 0 python3 -c '
import fcntl, sys
file = open(sys.argv[2], "r+")
{"flock": fcntl.flock, "fcntl": fcntl.lockf}[sys.argv[1]](file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
' "$1" "$mnt/lock"
}

# blocking_locks MODE KIND WAITERS
blocking_locks()
{
	local mode=$1 kind=$2 waiters=$3 holder pids=() n

	mount_probe "$mode"
	mkfifo "$dir/end"
	python_lock "$kind" <"$dir/end" >"$dir/holder" &
	holder=$!
	exec 8>"$dir/end"
	within 30 grep -q locked "$dir/holder" || fail "a free lock cannot be taken"
	for ((n = 0; n < waiters; n++)); do
		python_lock "$kind" </dev/null >"$dir/waiter.$n" 8>&- &
		pids+=($!)
	done
	within 60 count_is waiting "$waiters" ||
		fail "$(count waiting) of $waiters wait for the lock"
	! grep -q locked "$dir"/waiter.* || fail "two hold the lock"
	taskset -c 0 stat "$mnt/data" >/dev/null
	exec 8>&-
	within 60 all_ended "${pids[@]}" "$holder" || fail "who waits does not get the lock"
	for n in "${pids[@]}"; do
		wait "$n" || fail "a waiter failed"
	done
	[ "$(cat "$dir"/waiter.* | grep -c locked)" = "$waiters" ] || fail "not all had the lock"
	stop_server "$mnt"
}

# For those who wait the queue gets more entries, which the kernel is not told of
# at once.
locks_while_submission_fails()
{
	preload=$preload:$built/busy_submit.so
	blocking_locks "$1" flock 4
}

interrupted_lock()
{
	local holder waiter

	mount_probe "$1"
	mkfifo "$dir/end"
	python_lock flock <"$dir/end" >"$dir/holder" &
	holder=$!
	exec 8>"$dir/end"
	within 30 grep -q locked "$dir/holder" || fail "a free lock cannot be taken"
	exec 7< <(exec python3 -c '
import fcntl, os, sys
print(os.getpid(), flush=True)
fcntl.flock(open(sys.argv[1], "r+"), fcntl.LOCK_EX)' "$mnt/lock" 8>&-)
	read -r waiter <&7
	within 30 count_is waiting 1 || fail "nobody waits for the lock"
	kill -TERM "$waiter"
	within 10 ended "$waiter" || fail "who waits for a lock cannot be killed"
	within 10 count_is waiting 0 || fail "the server still waits for the lock"
	exec 8>&-
	wait "$holder"
	stop_server "$mnt"
}

#
# The end
#

unmount_while_busy()
{
	mount_probe "$1"
	echo text >"$mnt/data"
	exec 9<"$mnt/data"
	! umount "$mnt" 2>/dev/null || fail "a busy file system was unmounted"
	works
	exec 9<&-
	stop_server "$mnt"
}

lazy_unmount()
{
	mount_probe "$1"
	echo text >"$mnt/data"
	exec 9<"$mnt/data"
	umount -l "$mnt"
	[ "$(cat <&9)" = text ] || fail "the open file cannot be read any more"
	! ended "$server" || fail "the server ended too early"
	exec 9<&-
	within 30 ended "$server" || fail "the server does not end"
	[ "$(status_of "$server")" = 0 ] || fail "the server failed"
}

# signalled MODE SIGNAL: -> $dir/status.MODE
signalled()
{
	local mode=$1 signal=$2

	mount_probe "$mode"
	echo text >"$mnt/data"
	[ "$mode" = bare ] || expect_mode "$mode" "$server"
	kill -"$signal" "$server"
	within 30 ended "$server" || fail "$signal does not end the server"
	status_of "$server" >"$dir/status.$mode"
	within 10 not_mounted "$mnt" || fail "it is still mounted"
}

# same_status_after_signal MODE SIGNAL
same_status_after_signal()
{
	local mode

	for mode in bare "$1"; do
		signalled "$mode" "$2"
		echo "$mode: $(cat "$dir/status.$mode")"
	done
	cmp "$dir/status.bare" "$dir/status.$1" || fail "the status after SIG$2 is another"
}

# What a request brought is the operation's, also after the reply.
replies_before_it_is_done()
{
	serve "$1" "$built/early_fs" -f "$mnt"
	await_mount "$mnt"
	printf 'written later, ' 1<>"$mnt/file"
	! stat "$mnt/this-name" 2>/dev/null || fail "a missing file is there"
	[ "$(cat "$mnt/file")" = 'written later, this-name' ] ||
		fail "the operation saw: $(cat "$mnt/file")"
	stop_server "$mnt"
}

# An operation says that it is time to end. It still gets its answer through,
# and nothing comes after it.
ended_by_an_operation()
{
	mount_probe "$1"
	python3 -c 'import os, sys
os.read(os.open(sys.argv[1], os.O_RDONLY), 100)
os._exit(0)' "$mnt/exit" || fail "the last operation got no answer"
	within 10 ended "$server" || fail "the server goes on"
	[ "$(status_of "$server")" = 0 ] || fail "the server ended with an error"
	within 10 not_mounted "$mnt" || fail "it is still mounted"
}

# Whether this one still comes in time is another matter.
others_end()
{
	cat "$mnt/most" >"$dir/most" 2>&1
	all_ended "$@"
}

# Nor is the answer lost of an operation that still runs when the file system
# ends, be it the one that has it end, while the others come to their end.
answered_after_the_end()
{
	local client late=()

	mount_probe "$1"
	cat "$mnt/late" >"$dir/late.1" &
	late=($!)
	within 10 count_is waiting 1 || fail "the operation does not begin"
	cat "$mnt/exit_late" >"$dir/late.2" &
	late+=($!)
	within 30 others_end "${late[@]}" || fail "clients hang"
	for client in 1 2; do
		[ "$(cat "$dir/late.$client")" = late ] ||
			fail "operation $client got no answer"
	done
	within 10 ended "$server" || fail "the server goes on"
	[ "$(status_of "$server")" = 0 ] || fail "the server ended with an error"
	within 10 not_mounted "$mnt" || fail "it is still mounted"
}

# The same where the answer is the data of a file, by the library's own means
data_after_the_end()
{
	local mode=$1 late

	head -c 1000000 /dev/urandom >"$dir/data"
	log=$dir/server.out
	"$built/late_fs" "$(ring_options "$mode")" "$dir/data" "$mnt" 2>"$log" &
	server=$!
	await_mount "$mnt"
	need_mode "$mode"
	dd if="$mnt/late" of="$dir/late" bs=128k count=1 &
	late=$!
	within 10 grep -q '^late' "$dir/server.out" || fail "it does not begin"
	cat "$mnt/exit" || fail "the file system does not end"
	within 30 ended $late || fail "the client hangs"
	head -c 131072 "$dir/data" | cmp - "$dir/late" || fail "the data is lost"
	within 10 ended "$server" || fail "the server goes on"
	[ "$(status_of "$server")" = 0 ] || fail "the server ended with an error"
}

# mount_pool MODE: a server that answers from threads of its own; its file is a copy
# of $dir/before.
mount_pool()
{
	head -c 1000000 /dev/urandom >"$dir/before"
	cp "$dir/before" "$dir/data"
	log=$dir/ring.log
	"$built/pool_fs" "$(ring_options "$1")" "$dir/data" "$mnt" >"$dir/server.out" 2>"$log" &
	server=$!
	await_mount "$mnt"
	stat "$mnt" >/dev/null
	[ "$1" = off ] || need_mode "$1"
}

# pool_client FILE PART ROUNDS: writes and reads its part of the file, for good if
# ROUNDS is 0. Ends with 9 if it does not read what it wrote.
pool_client()
{
	exec python3 - "$@" <<-'END'
		import os, random, sys

		name, part, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
		size = 250000
		start = part * size
		rng = random.Random(part)
		file = os.open(name, os.O_RDWR)
		what = bytearray(os.pread(file, size, start))
		while True:
		    begin = rng.randrange(size)
		    end = min(size, begin + rng.choice((1, 512, 4096, 5000, 131072)))
		    if rng.random() < .5:
		        what[begin:end] = rng.randbytes(end - begin)
		        if os.pwrite(file, what[begin:end], start + begin) != end - begin:
		            sys.exit("a short write")
		    elif os.pread(file, end - begin, start + begin) != what[begin:end]:
		        print(f"{name}: {begin} to {end} of part {part} differ")
		        sys.exit(9)
		    rounds -= 1
		    if not rounds:
		        break
	END
}

# start_pool_clients ROUNDS: -> $clients, two for each way that data goes
start_pool_clients()
{
	local part ways=(copied file)

	clients=()
	for part in 0 1 2 3; do
		pool_client "$mnt/${ways[part % 2]}" $part "$1" &
		clients+=($!)
	done
}

no_client_read_wrong()
{
	local client status

	within 60 all_ended "${clients[@]}" || fail "clients hang"
	for client in "${clients[@]}"; do
		status=$(status_of "$client")
		[ "$status" != 9 ] || fail "a client does not read what it wrote"
		[ "$status" = "${1:-$status}" ] || fail "a client ended with $status"
	done
}

answered_by_a_pool()
{
	mount_pool "$1"
	start_pool_clients 300
	no_client_read_wrong 0
	cmp "$mnt/copied" "$dir/data" || fail "the file shows something else"
	cmp "$mnt/file" "$dir/data" || fail "what is moved is something else"
	if cmp "$mnt/blind" "$dir/data"; then
		[[ $1 != zero-copy* ]] || fail "it was not zero-copied"
	else
		[[ $1 == zero-copy* ]] || fail "it cannot be read in memory"
	fi
	! cmp -s "$dir/before" "$dir/data" || fail "nothing was written"
	stop_server "$mnt"
}

# Sessions with rings and without have the same threads.
pool_of_two_sessions()
{
	local first=$mnt second=$dir/second all

	mkdir "$second"
	head -c 1000000 /dev/urandom >"$dir/before"
	cp "$dir/before" "$dir/data"
	cp "$dir/before" "$dir/data.2"
	log=$dir/ring.log
	"$built/pool_fs" "$(ring_options "$1")" "$dir/data" "$first" \
		ring=off "$dir/data.2" "$second" >"$dir/server.out" 2>"$log" &
	server=$!
	await_mount "$second"
	stat "$first" "$second" >/dev/null
	need_mode "$1"
	start_pool_clients 100
	all=("${clients[@]}")
	mnt=$second
	start_pool_clients 100
	clients+=("${all[@]}")
	no_client_read_wrong 0
	cmp "$second/file" "$dir/data.2" || fail "the second one shows something else"
	umount "$second" || fail "cannot unmount the second one"
	stop_server "$first"
}

# Replies find no client; the others are served on.
pool_goes_on_without_clients()
{
	local n

	mount_pool "$1"
	for n in {1..6}; do
		start_pool_clients 0
		sleep "0.$((RANDOM % 8 + 2))"
		kill -KILL "${clients[@]}"
		no_client_read_wrong
	done
	start_pool_clients 50
	no_client_read_wrong 0
	stop_server "$mnt"
}

# Each has its part of the file, which was $dir/before.
clients_at_work()
{
	local part

	for part in "${!clients[@]}"; do
		! ended "${clients[part]}" || return 1
		! cmp -s -i $((part * 250000)) -n 250000 "$dir/before" "$dir/data" || return 1
	done
}

# The file system is taken away while clients go on: these are served to their end.
# detached_under_pool MODE HOW
detached_under_pool()
{
	mount_pool "$1"
	start_pool_clients 0
	within 30 clients_at_work || fail "the clients do not get to work"
	case $2 in
	lazily)	umount -l "$mnt" ;;
	by_a_thread)
		[ "$(timeout 30 cat "$mnt/unmount")" = unmounted ] ||
			fail "who has it unmounted gets no answer" ;;
	esac
	within 10 not_mounted "$mnt" || fail "it is still mounted"
	cp "$dir/data" "$dir/before"
	within 30 clients_at_work || fail "the clients do not go on"
	kill -KILL "${clients[@]}"
	no_client_read_wrong
	within 30 ended "$server" || fail "the server does not end"
	[ "$(status_of "$server")" = 0 ] || fail "the server ended with an error"
}

both_are_held()
{
	[ "$(grep -c '^held' "$log")" = 2 ]
}

# The connection ends while requests are with the server: clients get an error at
# once, and what the server has to say then is refused.
# pool_is_cut_off MODE END STATUS
pool_is_cut_off()
{
	local mode=$1 end=$2 status lines=1 name

	mount_pool "$mode"
	start_pool_clients 0
	within 30 clients_at_work || fail "the clients do not get to work"
	for name in held held_file; do
		cat "$mnt/$name" 2>/dev/null &
		clients+=($!)
	done
	within 30 both_are_held || fail "the requests do not get to the server"
	case $end in
	abort)	echo 1 >"/sys/fs/fuse/connections/$(stat -c %d "$mnt")/abort" ;;
	# Closing it may come too late.
	exit)	cat "$mnt/exit" || : ;;
	*)	kill -"$end" "$server" ;;
	esac
	no_client_read_wrong
	within 30 ended "$server" || fail "the server does not end"
	status=$(status_of "$server")
	[ "$status" = "$3" ] || fail "the server ended with $status"
	[ "$end" = KILL ] || [ "$mode" = off ] ||
		[ "$(grep -cx 'too late: Transport endpoint is not connected' \
			"$dir/server.out")" = 2 ] ||
		fail "replies that were too late: $(cat "$dir/server.out")"
	[ "$mode" != off ] || lines=0
	[ "$(grep -c '^fuse_ring:' "$log")" = "$lines" ] || {
		cat "$log"
		fail "the library has more to say"
	}
	[ "$end" != KILL ] || umount "$mnt"
}

# Another thread than that of the loop unmounts, and opens a file by the number
# that the loop had.
unmounted_by_a_thread()
{
	log=$dir/ring.log
	echo 'not a request' >"$dir/other"
	"$built/unmount_fs" "$(ring_options "$1")" "$dir/other" "$mnt" >"$dir/server.out" 2>"$log" &
	server=$!
	await_mount "$mnt"
	need_mode "$1"
	stat "$mnt/file"
	echo 2 >/proc/sys/vm/drop_caches
	within 30 ended "$server" || fail "the server does not end"
	cat "$dir/server.out"
	[ "$(status_of "$server")" = 0 ] || fail "the server failed"
	[ "$(cat "$dir/server.out")" = 'the loop returned 0, 0 bytes were read' ] ||
		fail "the loop took the other file for its own"
	within 10 not_mounted "$mnt" || fail "it is still mounted"
}

read_until_it_fails()
{
	local end=$((SECONDS + 60 * slower))

	while cat "$mnt/data" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
	done
}

terminated_under_load()
{
	local mode n pids

	for mode in bare "$1"; do
		mount_probe "$mode"
		head -c 1000000 /dev/urandom >"$mnt/data"
		pids=()
		for n in 1 2 3 4; do
			read_until_it_fails &
			pids+=($!)
		done
		cat "$mnt/data" >/dev/null
		kill -TERM "$server"
		within 30 ended "$server" || fail "the server does not end"
		status_of "$server" >"$dir/status.$mode"
		within 30 all_ended "${pids[@]}" || fail "clients hang"
		wait "${pids[@]}"
		within 10 not_mounted "$mnt" || fail "it is still mounted"
		# The file would now be a plain one.
		[ ! -e "$mnt/data" ] || fail "there is a file in the mount point"
	done
	cmp "$dir/status.bare" "$dir/status.$1" || fail "the status is another"
}

killed()
{
	local client

	mount_probe "$1"
	ls "$mnt" >/dev/null
	cat "$mnt/hold" 2>"$dir/error" &
	client=$!
	within 10 one_is_held || fail "the request does not get to the server"
	kill -KILL "$server"
	within 30 ended $client || fail "the client hangs"
	[ "$(status_of $client)" = 1 ] || fail "the client got no error"
	! stat "$mnt/data" 2>/dev/null || fail "the dead server answers"
	umount "$mnt"
}

daemon()
{
	local mode=$1 pid

	# From where it was started, which a daemon leaves
	log=$dir/ring.log
	cd "$dir"
	FUSE_RING=$mode FUSE_RING_LOG=ring.log LD_PRELOAD=$preload "$probe" "$mnt" ||
		fail "it does not start"
	mounted "$mnt" || fail "it came back before it was mounted"
	pid=$(pgrep -f "^$probe $mnt")
	expect_mode "$mode" "$pid"
	works
	read_four_times
	umount "$mnt"
	within 30 ended "$pid" || fail "the server does not end"
}

# A child of the server does not keep the connection.
mounts_one_after_the_other()
{
	local n

	for n in {1..20}; do
		mount_probe "$1"
		ls "$mnt" >/dev/null
		stop_server "$mnt"
	done
}

several_mounts()
{
	local n servers=()

	for n in 1 2 3 4; do
		mnt=$dir/mnt$n
		mkdir "$mnt"
		mount_probe "$1"
		expect_mode "$1" "$server"
		echo "$n" >"$mnt/data"
		servers+=("$server")
	done
	for n in 1 2 3 4; do
		mnt=$dir/mnt$n
		server=${servers[n - 1]}
		[ "$(cat "$mnt/data")" = "$n" ] || fail "the data of another mount"
		stop_server "$mnt"
	done
}

for door in bufring bufpool; do
	test_case auto_without_locked_memory."$door" 100 \
		auto_without_locked_memory auto:"$door"
	test_case auto_with_enough_locked_memory."$door" 100 \
		auto_with_enough_locked_memory auto:"$door"
	test_case pinned_without_locked_memory."$door" 100 \
		pinned_without_locked_memory pinned:"$door"
	test_case limit_used_by_another_server."$door" 100 \
		limit_used_by_another_server auto:"$door"
done
test_case auto_with_locked_memory_for_one_queue 100 auto_with_locked_memory_for_one_queue
test_case no_locked_memory_at_all 100 no_locked_memory_at_all
test_case no_descriptors_left 100 no_descriptors_left
test_case kernel_parameter_is_off 100 kernel_parameter_is_off
test_case io_uring_is_forbidden 100 io_uring_is_forbidden
# The same numbers on all architectures
test_case refused.io_uring_setup 100 call_is_refused auto 425 1 \
	'off, io_uring_setup(): Operation not permitted'
test_case refused.io_uring_enter 100 call_is_refused auto 426 1 \
	'off, io_uring_enter(): Operation not permitted'
test_case refused.io_uring_register 100 call_is_refused auto:bufpool 427 1 \
	'pooled, *; pinned: io_uring_register(): Operation not permitted'
# What runs containers has it so, some with one error and some with the other.
test_case refused.io_uring_register.EACCES 100 call_is_refused auto:bufpool 427 13 \
	'pooled, *; pinned: io_uring_register(): Permission denied'
test_case refused.io_uring_register.ENOSYS 100 call_is_refused pinned:bufpool 427 38 \
	'off, pinned: io_uring_register(): Function not implemented'
test_case refused.commands 100 commands_are_refused
for mode in legacy pooled:bufring pinned:bufring; do
	test_case no_address_space."$mode" 100 no_address_space "$mode"
done
test_case libfuse_2_is_left_alone 100 libfuse_2_is_left_alone
test_case loop_of_its_own 100 loop_of_its_own
test_case character_device 100 character_device
test_case no_files_at_all 100 no_files_at_all auto
test_case nobody_listens 100 nobody_listens auto
test_case interface.bufring 100 interface_is_had bufring pinned 'buffer rings'
test_case interface.bufpool 100 interface_is_had bufpool pinned 'buffer pools'
test_case interface.entries 100 interface_is_had entries legacy 'fuse over io_uring'
test_case interface.best 100 best_interface_is_taken
for mode in legacy:bufring legacy:bufpool pooled:entries pinned:entries; do
	test_case interface."$mode" 100 mode_of_another_interface "$mode"
done
for mode in off legacy {pooled,pinned}:{bufring,bufpool}; do
	test_case mode_works."$mode" 100 mode_works "$mode"
	test_case small_files_only."$mode" 100 small_files_only "$mode"
done

test_case nonsense.mode 100 nonsense_is_off FUSE_RING fastest ring
test_case nonsense.interface 100 nonsense_is_off FUSE_RING_INTERFACE both ring_interface
test_case names_in_capitals 100 names_in_capitals
test_case empty_variables_are_not_set 100 empty_variables_are_not_set
test_case nonsense.zero_copy 100 nonsense FUSE_RING zero-copy \
	'zero-copy needs a server that is written for it'
test_case nonsense.depth 100 nonsense FUSE_RING_DEPTH 0 \
	'ring_depth=0 makes no sense and is ignored'
test_case nonsense.depth_text 100 nonsense FUSE_RING_DEPTH 16x \
	'ring_depth=16x makes no sense and is ignored'
test_case nonsense.pool 100 nonsense FUSE_RING_POOL 4k \
	'ring_pool=4k makes no sense and is ignored'
test_case nonsense.pools_of_a_page 100 nonsense FUSE_RING_POOL 1k:4,4k:16 \
	'ring_pool=4k:16 makes no sense and is ignored'
test_case nonsense.workers 100 nonsense FUSE_RING_WORKERS -1 \
	'ring_workers=-1 makes no sense and is ignored'
test_case options_are_followed.legacy 100 options_are_followed legacy 5120
test_case options_are_followed.pinned:bufring 100 options_are_followed pinned:bufring 2072
# It has a buffer for each request, and for as many that wait for locks.
test_case options_are_followed.pinned:bufpool 100 options_are_followed pinned:bufpool 10240
test_case log_goes_to_standard_error 100 log_goes_to_standard_error
test_case log_cannot_be_opened 100 log_cannot_be_opened

for mode in bare off legacy pinned pooled:bufpool; do
	test_case operations_at_once."$mode" 100 operations_at_once "$mode"
	test_case one_operation_at_a_time."$mode" 100 one_operation_at_a_time "$mode"
	test_case interrupted_client."$mode" 100 interrupted_client "$mode"
	test_case interrupted_at_any_moment."$mode" 600 interrupted_at_any_moment "$mode"
	test_case interrupted_before_it_begins."$mode" 300 interrupted_before_it_begins "$mode"
	test_case replies_before_it_is_done."$mode" 100 replies_before_it_is_done "$mode"
	test_case ended_by_an_operation."$mode" 100 ended_by_an_operation "$mode"
	test_case answered_after_the_end."$mode" 100 answered_after_the_end "$mode"
	test_case interrupted_lock."$mode" 100 interrupted_lock "$mode"
	# More than the library has threads for, and a lock is still let go
	test_case two_flocks_on_one_cpu."$mode" 100 blocking_locks "$mode" flock 1
	test_case two_record_locks_on_one_cpu."$mode" 100 blocking_locks "$mode" fcntl 1
done
for mode in legacy pinned:{bufring,bufpool} pooled:bufpool; do
	test_case many_flocks_on_one_cpu."$mode" 200 blocking_locks "$mode" flock 12
	test_case locks_while_submission_fails."$mode" 100 locks_while_submission_fails "$mode"
	test_case many_record_locks_on_one_cpu."$mode" 200 blocking_locks "$mode" fcntl 12
done

for mode in off legacy pinned; do
	test_case unmount_while_busy."$mode" 100 unmount_while_busy "$mode"
	test_case lazy_unmount."$mode" 100 lazy_unmount "$mode"
	test_case killed."$mode" 100 killed "$mode"
	test_case daemon."$mode" 100 daemon "$mode"
	test_case mounts_one_after_the_other."$mode" 200 mounts_one_after_the_other "$mode"
done
for mode in legacy {pooled,pinned,zero-copy}:{bufring,bufpool}; do
	test_case unmounted_by_a_thread."$mode" 100 unmounted_by_a_thread "$mode"
	test_case data_after_the_end."$mode" 100 data_after_the_end "$mode"
	test_case notified_before_init_is_answered."$mode" 100 \
		notified_before_init_is_answered "$mode"
done
for mode in off legacy {pooled,pinned,zero-copy}:{bufring,bufpool}; do
	test_case answered_by_a_pool."$mode" 100 answered_by_a_pool "$mode"
	[ "$mode" = off ] ||
		test_case pool_of_two_sessions."$mode" 100 pool_of_two_sessions "$mode"
	test_case pool_goes_on_without_clients."$mode" 200 pool_goes_on_without_clients "$mode"
	test_case pool_is_cut_off.abort."$mode" 100 pool_is_cut_off "$mode" abort 0
	test_case pool_is_cut_off.exit."$mode" 100 pool_is_cut_off "$mode" exit 0
	# As libfuse's loops: the signal is an error to the server.
	test_case pool_is_cut_off.TERM."$mode" 100 pool_is_cut_off "$mode" TERM 1
	test_case pool_is_cut_off.KILL."$mode" 100 pool_is_cut_off "$mode" KILL 137
	test_case detached_under_pool.lazily."$mode" 100 detached_under_pool "$mode" lazily
	# libfuse's own loops lose the descriptor then.
	[ "$mode" = off ] ||
		test_case detached_under_pool.by_a_thread."$mode" 100 \
			detached_under_pool "$mode" by_a_thread
done
for mode in off legacy pinned; do
	for signal in TERM INT HUP; do
		test_case status_after_signal.$signal.$mode 200 \
			same_status_after_signal $mode $signal
	done
	test_case terminated_under_load."$mode" 200 terminated_under_load "$mode"
	test_case several_mounts."$mode" 100 several_mounts "$mode"
done

run_cases "$@"
