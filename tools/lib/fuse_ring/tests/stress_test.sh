#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
#
# passthrough_ring under load, in every mode. What fio writes through the mount
# it finds there again, and no memory is lost over it (SECONDS_PER_MODE says for
# how long). A server that is killed at any moment takes nothing with it but the
# requests of that moment (KILLS says how many; SEED repeats their moments).

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

program=$built/passthrough_ring
modes=(off legacy {pooled,pinned,zero-copy}:{bufring,bufpool})
engines=(buffered direct mmap)
seconds=${SECONDS_PER_MODE:-10}
kills=${KILLS:-100}
# The same in the process of each test
export SEED=${SEED:-$((RANDOM * 32768 + RANDOM))}

# How many KiB more may be in use after the load than before it. A server has
# parts of buffers that the warm-up missed. With the ring off these are libfuse's,
# two MiB for each of its threads, and whose turn it is nobody can say. The kernel
# has pages on lists of each processor, and frees some later.
most_of_server=1024
most_of_libfuse=4096
most_of_kernel=16384

begin_case()
{
	backing=$dir/backing
	mkdir "$backing"
}

need_fio()
{
	command -v fio >/dev/null || skip "fio is not installed"
}

# mount_backing MODE [COMMAND...]: the server run by COMMAND, if there is one
options=allow_other
mount_backing()
{
	local mode=$1

	shift
	serve bare "$@" "$program" -f -o "$(ring_options "$mode"),$options" "$backing" "$mnt"
	log=$dir/server.out
	await_mount "$mnt"
	ls "$mnt" >/dev/null || {
		cat "$log"
		fail "the new mount does not work"
	}
	expect_mode "$mode" "$server" passthrough_ring
}

#
# fio
#

# fio_in DIR ENGINE [OPTION...]: what it says is in $dir/fio.out. A job that dies
# of a signal, as one with a map may, is no failure to fio.
jobs=4 blocks=512/30:4k/30:64k/25:1m/15
fio_in()
{
	local how=(--ioengine=psync)

	case $2 in
	direct)	how+=(--direct=1) ;;
	mmap)	how=(--ioengine=mmap) ;;
	esac
	fio --name=job --directory="$1" --fallocate=none --numjobs="$jobs" --size=4m \
		--bssplit="$blocks" "${how[@]}" "${@:3}" \
		--eta=never --output-format=terse >"$dir/fio.out" 2>&1 &&
		! grep -aq 'got signal=' "$dir/fio.out"
}

# Lines of numbers are cut.
fio_said()
{
	head -n 40 "$dir/fio.out" | cut -c -200
}

# checked_by_fio DIR ENGINE SEED WHAT: as far as WHAT says.
checked_by_fio()
{
	fio_in "$1" "$2" --rw=randwrite --randseed="$3" --verify=crc32c --verify_fatal=1 \
		--verify_state_save=0 "$4"
}

# must_be_right DIR ENGINE SEED WHAT
must_be_right()
{
	checked_by_fio "$@" || {
		fio_said
		fail "$2, $4 in ${1##*/}, seed $3: fio did not find what it wrote:" \
			"$(grep -am1 -E 'verify: |err=|got signal=' "$dir/fio.out" | cut -c -200)"
	}
}

# write_and_verify ENGINE SEED: once while others still write, and once when
# neither a cache nor a map of the client has the data any more.
write_and_verify()
{
	must_be_right "$mnt" "$1" "$2" --do_verify=1
	forget_caches "$mnt"
	must_be_right "$mnt" "$1" "$2" --verify_only=1
}

available_kib()
{
	forget_caches "$mnt"
	awk '/^MemAvailable:/ { print $2 }' /proc/meminfo
}

# What KASAN keeps of freed memory is no measure.
kernel_keeps_memory()
{
	grep -qw kasan_quarantine_put /proc/kallsyms
}

available_again()
{
	available=$(available_kib)
	[ "$available" -ge $(($1 - most_of_kernel)) ]
}

# no_less_available_than KIB
no_less_available_than()
{
	! kernel_keeps_memory || return 0
	within 10 available_again "$1" ||
		fail "at most $most_of_kernel KiB less were expected to be available than" \
			"the $1 KiB before, there are $available KiB"
	echo "# available memory: $1 KiB, then $available KiB"
}

# Until all the memory is in use that requests take, as many at once and as
# large as can be: -> $size of the server
warm_up()
{
	local jobs=24 blocks=4k/20:64k/40:1m/40 round same=0 now

	size=0
	for ((round = 0; same < 5; round++)); do
		[ $round -lt 30 ] ||
			fail "the server was expected to need no more memory at some time," \
				"after $round rounds it still grows to $size KiB"
		fio_in "$mnt" direct --rw=randrw --randseed=$((round + 1)) --unlink=1 || {
			fio_said
			fail "fio cannot read and write"
		}
		same=$((same + 1))
		now=$(memory_kib VmRSS "$server")
		if [ "$now" -gt $((size + 64)) ]; then
			size=$now
			same=0
		fi
	done
	echo "warm after $round rounds"
}

fio_verifies()
{
	local mode=$1 n engine pass=1 begin size before after most=$most_of_server
	# Of libfuse's loop, one for each job
	local options=$options,max_threads=4

	need_fio
	[ "$mode" != off ] || most=$most_of_libfuse
	mount_backing "$mode"
	warm_up
	for engine in "${engines[@]}"; do
		write_and_verify "$engine" $pass
	done
	before=$(available_kib)
	begin=$SECONDS
	for n in "${!engines[@]}"; do
		engine=${engines[n]}
		while
			pass=$((pass + 1))
			write_and_verify "$engine" $pass
			[ $((SECONDS - begin)) -lt $((seconds * (n + 1) / ${#engines[@]})) ]
		do
			:
		done
		must_be_right "$backing" "$engine" $pass --verify_only=1
	done
	after=$(memory_kib VmRSS "$server")
	echo "# $((pass - 1)) times 16 MiB; the server has $size KiB, then $after KiB"
	[ "$after" -le $((size + most)) ] ||
		fail "at most $most KiB more than $size KiB were expected of the" \
			"server, it has $after KiB"
	no_less_available_than "$before"
	stop_server "$mnt"
}

# That it does look, and not into a cache
fio_notices_damage()
{
	local engine=$1

	need_fio
	mount_backing off
	write_and_verify "$engine" 1
	dd if=/dev/urandom of="$backing/job.2.0" bs=512 seek=4321 count=1 conv=notrunc
	forget_caches "$mnt"
	! checked_by_fio "$mnt" "$engine" 1 --verify_only=1 ||
		fail "fio did not notice that data changed"
	fio_said
	grep -aq 'verify: bad' "$dir/fio.out" ||
		fail "fio did not fail because of what changed"
	stop_server "$mnt"
}

#
# kill -9
#

# Reads until that fails. What it reads is right until then.
read_on()
{
	while dd if="$mnt/random" of="$dir/read" iflag=direct bs=256k; do
		cmp "$dir/random" "$dir/read" || exit 9
	done 2>"$dir/read.err"
	exit 1
}

make_directories()
{
	while mkdir "$mnt/new" && rmdir "$mnt/new"; do
		:
	done 2>"$dir/mkdir.err"
	exit 1
}

# start_client NAME COMMAND...
start_client()
{
	"${@:2}" &
	clients+=("$1:$!")
}

# None of them would end by itself. The lock is one of the source, so that it
# is not had either when the server is gone. Of a map fio can only sync whole
# pages.
start_clients()
{
	local blocks=$blocks

	[ "$1" != mmap ] || blocks=${blocks/512/4k}
	clients=()
	start_client fio fio_in "$mnt" "$1" --rw=randrw --fsync=16 --time_based --runtime=1h
	start_client reader read_on
	start_client mkdir make_directories
	exec 7<"$backing/random"
	flock 7
	start_client locker flock "$mnt/random" true 2>"$dir/flock.err"
}

fio_is_at_work()
{
	local n

	for n in 0 1 2 3; do
		[ -s "$backing/job.$n.0" ] || return 1
	done
}

clients_run()
{
	local client

	for client in "${clients[@]}"; do
		! ended "${client#*:}" || {
			fio_said
			fail "client ${client%:*} ended before the server was killed"
		}
	done
}

no_fio()
{
	! pgrep -f "^fio .*--directory=$mnt" >/dev/null
}

# They end, with an error.
end_of_clients()
{
	local client status

	for client in "${clients[@]}"; do
		within 30 ended "${client#*:}" || {
			dump || :
			fail "client ${client%:*} was expected to end, it still runs after" \
				"30 seconds"
		}
		status=$(status_of "${client#*:}")
		[ "${client%:*} $status" != 'reader 9' ] ||
			fail "a client read something else than what is there"
		[ "$status" != 0 ] || {
			fio_said
			fail "client ${client%:*} was expected to get an error, it got none"
		}
	done
	# Also where fio itself crashed, as 3.33 does over such a job
	within 30 no_fio || {
		dump || :
		fail "a job of fio was expected to end, it still runs after 30 seconds"
	}
	exec 7<&-
}

pinned_pages()
{
	# Of all processors
	cat /proc/sys/vm/stat_refresh 2>/dev/null
	awk '/^nr_foll_pin_acquired / { n += $2 } /^nr_foll_pin_released / { n -= $2 }
		END { print n }' /proc/vmstat
}

no_more_pinned_pages_than()
{
	[ "$(pinned_pages)" -le "$1" ]
}

# What there is of all that a server must not leave behind: -> $pinned, $connected
look_before()
{
	pinned=$(pinned_pages)
	connected=$(connections)
}

# What the server has pinned shows, or its end would show nothing.
pinned_shows()
{
	local expected=$(($(pinned_kib "$server") * 1024 / $(getconf PAGESIZE)))

	[ $(($(pinned_pages) - pinned)) -ge "$expected" ] ||
		fail "the server has pinned $expected pages, but there are no more than" \
			"$(pinned_pages), $pinned before"
}

# What is left of a server that was killed: a mount that says so and goes.
check_remains()
{
	[ ! -e "/proc/$server" ] || fail "the server is still there"
	within 10 no_more_pinned_pages_than "$pinned" ||
		fail "$pinned pinned pages were expected as before the server, there are" \
			"$(pinned_pages)"
	! stat "$mnt" 2>"$dir/stat.err" || fail "the mount still answers"
	grep -q 'Transport endpoint is not connected' "$dir/stat.err" ||
		fail "ENOTCONN was expected of the mount: $(cat "$dir/stat.err")"
	umount "$mnt" || fail "the mount of a killed server cannot be unmounted"
	! mounted "$mnt" || fail "$mnt is still mounted"
	within 10 no_more_connections_than "$connected" || fail "the connection is still there"
}

# What a new server shows is what is there, also of what was being written.
check_data()
{
	cmp "$dir/random" "$mnt/random" || fail "what was there before the kills differs"
	diff -r "$backing" "$mnt" || fail "the mount shows something else than what is there"
}

# kill_once: -> $moment
kill_once()
{
	local engine=${engines[RANDOM % ${#engines[@]}]} delay

	delay=$(printf '0.%03d' $((RANDOM % 700)))
	moment="$moment, $engine, after $delay s"
	start_clients "$engine"
	within 30 fio_is_at_work || {
		fio_said
		fail "fio did not get to work"
	}
	sleep "$delay"
	clients_run
	kill -KILL "$server"
	within 30 ended "$server" || fail "the server does not end"
	[ "$(status_of "$server")" = 137 ] || {
		cat "$dir/server.out"
		fail "the server ended before it was killed"
	}
	end_of_clients
	check_remains
}

# killed_under_load MODE NUMBER: without the right to lock as much as it likes,
# so that locked memory of one that is gone would be missing for the next one.
killed_under_load()
{
	local mode=$1 n=$2 count kill before='' server_of

	need_fio
	count=$((kills / ${#modes[@]} + (n < kills % ${#modes[@]})))
	RANDOM=$((SEED + n))
	echo "# $count kills, SEED=$SEED"
	moment='the first mount'
	# The last line of a test that is skipped says why.
	trap '[ $? = 4 ] || echo "at $moment"' EXIT
	head -c 3000000 /dev/urandom >"$dir/random"
	cp "$dir/random" "$backing/random"
	server_of=(setpriv --bounding-set -ipc_lock)
	ulimit -l unlimited
	look_before
	mount_backing "$mode" "${server_of[@]}"
	pinned_shows
	ulimit -l $(($(pinned_kib "$server") * 3 / 2))
	for ((kill = 1; kill <= count; kill++)); do
		moment="kill $kill of $count"
		kill_once
		mount_backing "$mode" "${server_of[@]}"
		check_data
		rm -rf "$mnt"/job.* "$mnt/new"
		[ "$kill" != 1 ] || before=$(available_kib)
	done
	moment='the last mount'
	[ "$count" = 0 ] || no_less_available_than "$before"
	write_and_verify buffered 1
	stop_server "$mnt"
}

for engine in "${engines[@]}"; do
	test_case "fio.notices_damage.$engine" 120 fio_notices_damage "$engine"
done
for n in "${!modes[@]}"; do
	test_case "fio.${modes[n]}" $((seconds + 300)) fio_verifies "${modes[n]}"
	test_case "kill.${modes[n]}" $((120 + kills * 10)) killed_under_load "${modes[n]}" "$n"
done

run_cases "$@"
