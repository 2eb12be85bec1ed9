#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
#
# Tests passthrough_ring in one mode after the other. Each test does something
# in a plain directory and in the mount, and what it said, and what it left
# behind, has to be the same: in both, and in the directory under the mount.
# The result is TAP.

set -u
export LC_ALL=C
umask 022

usage()
{
	cat <<-END
	usage: passthrough_test.sh [options] PROGRAM [MODE...]
	  -o OPTIONS  more options for PROGRAM, as in -o writeback
	  -t WORD     only the tests with this word in their name
	  -r          a mode that cannot be had is a failure, not a skip
	  -l          list the tests
	PROGRAM is passthrough_ring as it was built, file_ops lies beside it. MODE
	is a mode of the ring, all of them unless given. Needs root.
	END
}

die()
{
	echo "Bail out! passthrough_test.sh: $*"
	exit 1
}

# Every test ends after so many seconds.
limit=${PASSTHROUGH_TEST_LIMIT:-300}
nobody=65534

# Tests: what each does in the directory that it is called in. What it prints
# is compared, and so is what it leaves. It fails where a command fails that it
# did not expect to.

# Another user, without groups or with the ones given
as_nobody()
{
	setpriv --reuid $nobody --regid $nobody "${groups:---clear-groups}" \
		-- "$@"
}

# Says how a command fails that should not succeed.
fails()
{
	if "$@"; then
		echo "succeeded: $*"
		return 1
	fi
}

a_tree_of_2000_files()
{
	local d f

	for d in {1..40}; do
		mkdir "d$d"
		for f in {1..50}; do
			echo "file $f of $d" >"d$d/f$f"
		done
	done
	cp -a d1 copy
	rm -r d2
	find . -type f | wc -l
}

names()
{
	local long

	long=$(printf '%255s' '')
	long=${long// /n}
	touch "$long" 'a space' $'a\nnewline' $'\xff\xfe' 'ünï'
	fails touch "${long}n"
	fails mkdir 'a space'
	fails rmdir missing
	fails cat missing
	mkdir -p a/b/c
	fails rmdir a
	fails touch 'a space/x'
	ls -1b
}

renames()
{
	echo one >one
	echo two >two
	mkdir -p dir/sub full/x
	"$file_ops" rename one two noreplace
	"$file_ops" rename one three noreplace
	"$file_ops" rename three two exchange
	"$file_ops" rename two dir exchange
	"$file_ops" rename missing x none
	"$file_ops" rename two full none
	"$file_ops" rename three two/sub/three none
	"$file_ops" rename full full/x/y none
	mv dir dir2
	mv full/x x
	"$file_ops" rename x full none
	tail -n 1 dir2 two/sub/three
}

links()
{
	local target

	echo text >file
	ln file second
	ln second third
	stat -c '%n %h' file second third
	rm file
	stat -c '%n %h' second third
	echo more >>second
	cat third
	ln -s third soft
	ln -s missing dangling
	target=$(printf '%4095s' '')
	ln -s "${target// /t}" long
	ln -P soft hard-link-of-soft
	readlink soft dangling hard-link-of-soft
	readlink long | wc -c
	cat soft
	fails cat dangling
	ln -s loop loop
	fails cat loop
	chown -h $nobody soft
	touch -h -d '2001-02-03 04:05:06.789 UTC' soft
	stat -c '%u %g %Y %N' soft third | sed 's/ [0-9]* .third.$//'
}

extended_attributes()
{
	local big

	echo text >file
	mkdir dir
	ln -s file soft
	big=$(printf '%2000s' '')
	setfattr -n user.a -v 1 file
	setfattr -n user.b -v "${big// /x}" file
	setfattr -n user.empty file
	setfattr -n user.dir -v 'of a directory' dir
	setfattr -n trusted.t -v 2 file
	setfattr -h -n trusted.t -v 'of the symlink' soft
	fails setfattr -h -n user.t -v 3 soft
	fails getfattr -n user.missing file
	fails setfattr -x user.missing file
	setfattr -n user.a -v changed file
	setfattr -x user.empty file
	getfattr -h -d -m - file dir soft
	cp --preserve=xattr,mode file copy
	getfattr -d copy
	fails as_nobody setfattr -n user.x -v 1 file
}

modes_owners_and_times()
{
	echo text >file
	mkdir dir
	chmod 0640 file
	chmod 3771 dir
	chown $nobody:12345 file
	chgrp 54321 dir
	touch -d '1999-12-31 23:59:59.123456789 UTC' file
	touch -a -d '2037-01-01 00:00:00.5 UTC' file
	stat -c '%n %a %u %g' file dir
	stat -c '%n %.9X %.9Y' file
	chmod 6755 file
	stat -c %a file
	chown 0:0 file
	stat -c %a file
	chown 0:12345 file
	chmod 2755 file
	stat -c %a file
}

special_files()
{
	mknod null c 1 3
	mknod disk b 7 0
	mkfifo pipe
	stat -c '%n %F %t,%T' null disk pipe
	cat pipe >out &
	echo 'through the pipe' >pipe
	wait
	cat out
}

other_users()
{
	local groups

	echo secret >secret
	chmod 600 secret
	mkdir -m 700 private
	mkdir -m 1777 sticky
	mkdir -m 2770 team
	mkdir -m 777 open
	chown 0:4321 team
	echo kept >sticky/kept
	echo text >private/file
	fails as_nobody cat secret
	fails as_nobody cat private/file
	fails as_nobody ls private
	fails as_nobody rm -f sticky/kept
	fails as_nobody touch new team/new
	fails as_nobody chmod 777 secret
	fails as_nobody chown $nobody secret
	fails as_nobody ln -s x y
	fails as_nobody test -w secret
	as_nobody bash -c 'umask 027
		echo mine >open/file; mkdir open/dir; ln -s x open/link
		mkfifo open/pipe; chmod 4755 open/file; mv open/file open/moved
		ln open/moved open/second; touch -d 2001-01-01 open/second'
	groups=--groups=4321
	as_nobody bash -c 'touch team/file; mkdir team/dir; ls team'
	as_nobody chmod 2775 team/dir
	find open team sticky -printf '%p %y %m %U %G\n' | sort
}

writers_lose_set_user_id()
{
	local f

	for f in append truncate direct; do
		echo text >$f
		chmod 6777 $f
	done
	as_nobody bash -c 'echo more >>append; : >truncate'
	as_nobody dd if=/dev/zero of=direct bs=4096 count=1 oflag=direct \
		conv=notrunc status=none
	stat -c '%n %a' append truncate direct
}

data_of_all_sizes()
{
	local size total

	for size in 1 511 4095 4096 4097 131071 131073 1048576 1048577; do
		total=$((size < 4095 ? size * 2000 : 2100000))
		head -c $total "$random" | dd bs=$size of=file status=none \
			iflag=fullblock
		head -c $total "$random" | cmp - file
		dd if=file bs=$size status=none count=7 skip=1 | cksum
	done
	dd if="$random" of=file bs=1000 seek=3 count=900 skip=1 conv=notrunc \
		status=none
	cksum file
	cp "$random" whole
	cmp "$random" whole
	sync -f whole
	sync file
}

direct_io()
{
	"$file_ops" direct file 4096
	"$file_ops" direct file 1048576
	"$file_ops" direct file 3145728
	dd if=file iflag=direct bs=65536 status=none | cksum
}

truncation()
{
	head -c 100000 "$random" >file
	truncate -s 12345 file
	truncate -s 50000 file
	cksum file
	truncate -s 8G file
	stat -c %s file
	truncate -s 0 file
	echo again >file
	: >file
	echo 'and again' >file
	cat file
	mkdir dir
	fails truncate -s 1 dir
	fails as_nobody truncate -s 0 file
}

append()
{
	local who

	echo first >file
	echo second >>file
	cat file
	for who in one two three; do
		"$file_ops" append shared $who 200 &
	done
	wait
	# Whose line comes first is open.
	sort -o shared shared
	cksum shared
}

memory_maps()
{
	head -c 20000 "$random" >file
	"$file_ops" mmap file 5000 'written through a map'
	"$file_ops" mmap file 0 x
	cksum file
}

partial_pages()
{
	head -c 20000 "$random" >file
	sync file
	"$file_ops" write-only file
	cksum file
	chmod 200 file
	echo x >>file
	tail -c 2 file
}

holes()
{
	truncate -s 10M file
	echo data | dd of=file bs=1M seek=3 conv=notrunc status=none
	echo data | dd of=file bs=1M seek=7 conv=notrunc status=none
	sync file
	"$file_ops" seek file
	cksum file
}

space()
{
	fallocate -l 1M file
	fallocate -n -o 1M -l 1M file
	stat -c %s file
	head -c 1000000 "$random" | dd of=file conv=notrunc status=none
	fallocate -p -o 4096 -l 100000 file
	fallocate -o 2000000 -l 100 file
	stat -c %s file
	sync file
	"$file_ops" seek file
	cksum file
	fails fallocate -o -1 -l 1 file
}

copies_within()
{
	cp "$random" from
	"$file_ops" copy from 0 to 0 3000000
	"$file_ops" copy from 12345 to 1000001 1234567
	cksum to
	cp --sparse=always from sparse
	cmp from sparse
}

statfs()
{
	stat -f -c '%s %S %l %b' .
}

unlinked_files()
{
	"$file_ops" unlinked file
	mkdir dir
	(
		cd dir || exit
		rmdir ../dir
		fails touch file
		fails ls ../dir
		stat -c %h .
	)
}

exclusive_creation()
{
	"$file_ops" exclusive file
	"$file_ops" create-race many 16
	sort -o many many
	cat many
}

posix_locks()
{
	"$file_ops" posix-locks file file
}

flocks()
{
	"$file_ops" flocks file file
	flock file true
}

more_waiters_than_threads()
{
	"$file_ops" many-waiters file 40 | sort
}

a_directory_of_10000()
{
	local i

	mkdir big
	for i in {1..10000}; do
		: >"big/some-longer-name-$i"
	done
	# Unsorted, with offsets, and with attributes
	find big | sort | cksum
	find big | wc -l
	find big -size 0 | wc -l
	# shellcheck disable=SC2012	# all of it is to be read
	ls -l big | wc -l
	# What is removed while it is read must not make others vanish.
	rm -r big
}

many_at_once()
{
	local who

	for who in a b c d; do
		(
			for i in {1..150}; do
				echo "$who" >"$who$i"
				mv "$who$i" "moved-$who$i"
				ln "moved-$who$i" "linked-$who$i"
				rm "moved-$who$i"
			done
		) &
	done
	wait
	# shellcheck disable=SC2012	# names without surprises
	ls | cksum
}

# The tests above, in order
compared=(a_tree_of_2000_files names renames links extended_attributes
	modes_owners_and_times special_files other_users writers_lose_set_user_id
	data_of_all_sizes direct_io truncation append memory_maps partial_pages
	holes space copies_within statfs unlinked_files exclusive_creation
	posix_locks flocks more_waiters_than_threads a_directory_of_10000
	many_at_once)

# Everything about the files below a directory that programs rely on
manifest()
{
	(
		cd "$1" || exit
		find . -printf '%p %y %m %U %G ' \
			-type f -printf '%n %s\n' -o -type l -printf '%n %l\n' \
			-o -printf '\n' | sort
		find . -type f -print0 | sort -z | xargs -0r md5sum
		getfattr -R -P -h -d -m '^user' . 2>/dev/null
	)
}

run_in()
{
	local dir=$1 test=$2

	mkdir "$dir" || return
	cd "$dir" || return
	timeout -k 5 "$limit" bash -eu -c "$test"
}

why=''
complain()
{
	[ -n "$why" ] || why=$*
	return 1
}

differ()
{
	diff -u "$1" "$2" >"$work/diff" && return 1
	sed 's/^/# /' "$work/diff" | head -n 40
}

compare()
{
	local test=$1 rc

	(run_in "$work/plain/$test" "$test") >"$work/out.plain" 2>&1
	rc=$?
	if [ $rc != 0 ]; then
		sed 's/^/# /' "$work/out.plain"
		complain "the test itself fails in a plain directory ($rc)"
		return
	fi
	(run_in "$mnt/$test" "$test") >"$work/out.mnt" 2>&1
	rc=$?
	! differ "$work/out.plain" "$work/out.mnt" ||
		complain 'it says something else'
	[ $rc = 0 ] || complain "it fails with $rc"
	[ $rc != 124 ] && [ $rc != 137 ] || return
	manifest "$work/plain/$test" >"$work/files.plain"
	manifest "$mnt/$test" >"$work/files.mnt"
	manifest "$src/$test" >"$work/files.src"
	! differ "$work/files.plain" "$work/files.mnt" ||
		complain 'it leaves something else'
	! differ "$work/files.mnt" "$work/files.src" ||
		complain 'the mount shows not what is there'
	rm -rf "${work:?}/plain/$test" "${mnt:?}/$test"
	[ ! -e "$src/$test" ] || complain 'it was not removed'
	[ -z "$why" ]
}

# Tests that make no sense in a plain directory

locks_of_the_source()
{
	local kind

	: >"$src/file"
	for kind in posix-locks flocks; do
		"$file_ops" $kind "$mnt/file" "$mnt/file" >"$work/out.mnt"
		"$file_ops" $kind "$mnt/file" "$src/file" >"$work/out.both"
		! differ "$work/out.mnt" "$work/out.both" ||
			complain "$kind: other than between processes of one side"
	done
	rm "$src/file"
}

changes_of_the_source()
{
	echo one >"$src/file"
	cat "$mnt/file" >/dev/null
	rm "$src/file"
	mkdir "$src/dir"
	echo three >"$src/dir/new"
	[ "$(cat "$mnt/dir/new")" = three ] || complain 'a new file does not show'
	mv "$src/dir/new" "$src/dir/newer"
	[ "$(cat "$mnt/dir/newer")" = three ] || complain 'a renamed file does not show'
	rm -r "$src/dir"
}

descriptors()
{
	find "/proc/$server/fd" -type l | wc -l
}

# A remount drops what the kernel knows of the files.
forget_all()
{
	mount -i -o remount "$mnt"
}

# Waits until as few files are open in the server as before.
forgotten_but_for()
{
	local begin=$SECONDS n

	while n=$(descriptors); [ "$n" -gt "$1" ]; do
		if [ $((SECONDS - begin)) -ge 20 ]; then
			complain "the server has $n files open, $1 before"
			return
		fi
		forget_all
		sleep 0.1
	done
}

forgets_every_file()
{
	local before i

	forget_all
	before=$(descriptors)
	mkdir "$mnt/dir"
	for i in {1..1000}; do
		: >"$mnt/dir/$i"
	done
	ls -l "$mnt/dir" >/dev/null
	[ "$(descriptors)" -ge 1000 ] || complain 'this test cannot see open files'
	forgotten_but_for "$before"
	rm -r "$mnt/dir"
	forgotten_but_for "$before"
}

stat_all()
{
	local i

	for i in {1..30}; do
		stat "$1"/* >/dev/null || return
	done
}

forgets_while_others_look_up()
{
	local before i pids=()

	forget_all
	before=$(descriptors)
	mkdir "$mnt/dir"
	touch "$mnt/dir/"{1..50}
	for i in 1 2 3 4; do
		stat_all "$mnt/dir" &
		pids+=($!)
	done
	for i in {1..60}; do
		forget_all
	done
	for i in "${pids[@]}"; do
		wait "$i" || complain 'a file was not found'
	done
	rm -r "$mnt/dir"
	forgotten_but_for "$before"
}

alone=(locks_of_the_source changes_of_the_source forgets_every_file
	forgets_while_others_look_up)

# What the options of this run rule out

impossible()
{
	case $1,,$options, in
	memory_maps*,direct_io,*|memory_maps*,cache=never,*)
		echo 'no shared maps of files that are not cached' ;;
	changes_of_the_source*,cache=always,*)
		echo 'cache=always' ;;
	esac
}

# Running it

number=0 failures=0
result()
{
	number=$((number + 1))
	echo "$1 $number - $2"
	[ "$1" = ok ] || failures=$((failures + 1))
}

mounted()
{
	awk -v m="$mnt" '$5 == m { found = 1 } END { exit !found }' \
		/proc/self/mountinfo
}

# $1 seconds for what follows to become true
within()
{
	local end=$((SECONDS + $1))

	shift
	while ! "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}

ended()
{
	! kill -0 "$server" 2>/dev/null
}

mounted_or_ended()
{
	mounted || ended
}

server=''
start_server()
{
	"$program" -f -o "ring=$1,allow_other${options:+,$options}" \
		"$src" "$mnt" >"$work/server.log" 2>&1 &
	server=$!
	within 30 mounted_or_ended && mounted
}

# A request, after which the mode is decided
mode_in_use()
{
	timeout 60 stat "$mnt" >/dev/null || return
	sed -n 's/^[a-z_]*: \([a-z-]*\).*/\1/p' "$work/server.log" | head -n 1
}

abort_connection()
{
	local dev

	dev=$(awk -v m="$mnt" '$5 == m { print $3 }' /proc/self/mountinfo)
	echo 1 >"/sys/fs/fuse/connections/${dev#*:}/abort"
}

stop_server()
{
	local rc

	umount "$mnt" || return
	within 30 ended || complain 'the server does not end' || return
	wait "$server"
	rc=$?
	server=''
	[ $rc = 0 ] || complain "the server ended with $rc"
}

# shellcheck disable=SC2317	# called by trap
cleanup()
{
	if [ -n "$server" ]; then
		! mounted || abort_connection
		kill -KILL "$server" 2>/dev/null
		umount -l "$mnt" 2>/dev/null
	fi
	cd /
	rm -rf "$work"
}

run_test()
{
	local name=$1 test=$2 reason begin

	why=''
	reason=$(impossible "$test")
	if [ -n "$reason" ]; then
		result ok "$name # SKIP $reason"
		return
	fi
	begin=$SECONDS
	case " ${compared[*]} " in
	*" $test "*)	compare "$test" ;;
	*)		"$test" ;;
	esac
	[ $((SECONDS - begin)) -lt 10 ] || echo "# $((SECONDS - begin)) seconds"
	if [ -z "$why" ]; then
		result ok "$name"
		return
	fi
	result 'not ok' "$name: $why"
	if ! timeout 20 stat "$mnt" >/dev/null; then
		echo '# the file system does not answer, it is aborted'
		abort_connection
		return 1
	fi
}

run_mode()
{
	local mode=$1 got test

	if ! start_server "$mode"; then
		sed 's/^/# /' "$work/server.log"
		result 'not ok' "$mode: it can be mounted"
		return
	fi
	got=$(mode_in_use)
	if [ "$mode" != auto ] && [ "$mode" != off ] && [ "$got" != "$mode" ]; then
		if [ -n "$strict" ]; then
			result 'not ok' "$mode: $(head -n 1 "$work/server.log")"
		else
			result ok "$mode # SKIP $(head -n 1 "$work/server.log")"
		fi
		stop_server
		return
	fi
	echo "# $mode: $(head -n 1 "$work/server.log")"
	for test in "${compared[@]}" "${alone[@]}"; do
		[[ $test == *"$word"* ]] || continue
		run_test "$mode: $test" "$test" || break
	done
	why=''
	if stop_server; then
		result ok "$mode: the server ends"
	else
		sed 's/^/# /' "$work/server.log"
		result 'not ok' "$mode: the server ends: $why"
	fi
}

options='' word='' strict=''
while getopts o:t:rlh opt; do
	case $opt in
	o)	options=$OPTARG ;;
	t)	word=$OPTARG ;;
	r)	strict=1 ;;
	l)	printf '%s\n' "${compared[@]}" "${alone[@]}"; exit ;;
	h)	usage; exit ;;
	*)	usage >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || { usage >&2; exit 2; }
program=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- off auto legacy bufring pinned zero-copy

echo 'TAP version 13'
[ -x "$program" ] || die "there is no $program"
file_ops=$(dirname "$program")/file_ops
[ -x "$file_ops" ] || die "there is no $file_ops"
[ "$(id -u)" = 0 ] || die 'needs root'
for tool in setpriv fallocate flock getfattr setfattr mkfifo truncate; do
	command -v $tool >/dev/null || die "needs $tool"
done

work=$(mktemp -d) || die 'no temporary directory'
trap cleanup EXIT
src=$work/src mnt=$work/mnt random=$work/random
chmod 755 "$work"
mkdir "$src" "$mnt" "$work/plain"
head -c 3500000 /dev/urandom >"$random"
export file_ops random nobody
# shellcheck disable=SC2046	# a list of names
export -f $(compgen -A function)

for mode; do
	run_mode "$mode"
done
echo "1..$number"
[ $failures = 0 ]
