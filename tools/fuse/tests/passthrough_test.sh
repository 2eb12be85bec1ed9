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
# kselftest has lines come at once, but means the tests, not what they start.
unset LD_PRELOAD _STDBUF_O

usage()
{
	cat <<-END
	usage: passthrough_test.sh [options] PROGRAM [MODE...]
	  -o OPTIONS  more options for PROGRAM, as in -o writeback
	  -t WORD     only the tests with this word in their name
	  -r          a mode that cannot be had is a failure, not a skip, unless it
	              is the kernel that has no buffer rings or buffer pools
	  -l          list the tests
	PROGRAM is passthrough_ring as it was built, file_ops lies beside it. MODE
	is a mode of the ring, or MODE:INTERFACE, all of them unless given. Needs root.
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
	ln -s ./loop loop
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

has_no_set_id()
{
	[ ! -u "$1" ] && [ ! -g "$1" ]
}

# As it is stored: all for the owner and for nobody, r-x for the group
acl=0x0200000001000700ffffffff02000700feff0000
acl+=04000500ffffffff10000700ffffffff20000000ffffffff

access_control_lists()
{
	mkdir dir
	# What the default list allows the umask does not take away.
	setfattr -n system.posix_acl_default -v "$acl" dir
	touch dir/file
	mkdir dir/sub
	(umask 077; touch dir/private; mkdir dir/sub/private)
	# Who is not in its group cannot have a list and the set-group-ID bit.
	local group
	for group in 0 7 $nobody; do
		mkdir "dir/of_$group" "dir/by_root_$group"
		chown "$nobody:$group" "dir/of_$group" "dir/by_root_$group"
		chmod 2775 "dir/of_$group" "dir/by_root_$group"
		groups=--groups=7 as_nobody \
			setfattr -n system.posix_acl_access -v "$acl" "dir/of_$group"
		setfattr -n system.posix_acl_access -v "$acl" "dir/by_root_$group"
	done
	getfattr -R -d -m '^system' -e hex dir
	find dir -printf '%p %m\n' | sort
	echo text >dir/file
	as_nobody cat dir/file
	chmod 700 dir/file
	fails as_nobody cat dir/file
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
	# Only the server knows then, and the kernel has cached the mode.
	case ,$options, in
	*,direct_io,*)	within 5 has_no_set_id append
			within 5 has_no_set_id direct ;;
	esac
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
	sort -o shared ./shared
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
	sort -o many ./many
	cat many
}

posix_locks()
{
	"$file_ops" posix-locks file ./file
}

# Which can be had, although the file cannot be opened for anything else
locks_of_protected_files()
{
	touch file
	chattr +a file
	python3 -c 'import fcntl; fcntl.lockf(open("file", "a"), fcntl.LOCK_EX)'
	chattr -a +i file
	python3 -c 'import fcntl; fcntl.lockf(open("file"), fcntl.LOCK_SH)'
	chattr -i file
}

# They go with the open file, of which there can be several descriptors.
locks_of_open_files()
{
	touch file
	python3 -c '
import fcntl, os, struct, time

def lock(file):
    whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, whole)
    except BlockingIOError:
        return "taken"
    return "ours"

# A client does not wait until the server has seen that its file is closed.
def lock_soon(file):
    end = time.monotonic() + 10
    while lock(file) == "taken" and time.monotonic() < end:
        time.sleep(.01)
    return lock(file)

for turn in range(3):
    one = os.open("file", os.O_RDWR)
    another = os.dup(one)
    other = os.open("file", os.O_RDWR)
    print(lock(one), lock(other), lock(another))
    os.close(one)
    print("a copy is open:", lock(other))
    os.close(another)
    print("closed:", lock_soon(other))
    os.close(other)'
}

flocks()
{
	"$file_ops" flocks file ./file
	flock file true
}

waiters_for_a_lock()
{
	"$file_ops" many-waiters file 12 | sort
}

# Each takes up a request, and the unlock has to get through.
more_waiters_than_entries()
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
			for i in {1..20}; do
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
	modes_owners_and_times special_files other_users
	writers_lose_set_user_id data_of_all_sizes direct_io truncation append
	memory_maps partial_pages holes space copies_within statfs
	unlinked_files exclusive_creation posix_locks locks_of_protected_files
	locks_of_open_files flocks waiters_for_a_lock more_waiters_than_entries
	a_directory_of_10000 many_at_once)

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

why='' skip=''
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

# Which numbers its files as those of the source are numbered
files_of_another_file_system()
{
	local twice

	mkdir "$src/other"
	mount -t tmpfs none "$src/other" || return
	touch "$src/here" "$src/other/"{1..20}
	twice=$(find "$mnt" -printf '%i\n' | sort | uniq -d)
	[ -z "$twice" ] || complain "files have the same numbers: $twice"
	find "$mnt/other" -mindepth 1 -printf '%i %f\n' | sort >"$work/numbers"
	# shellcheck disable=SC2012	# names without surprises
	ls -i "$mnt/other" | sed 's/^ *//' | sort | differ "$work/numbers" - &&
		complain 'a directory says other numbers than its files'
	umount -l "$src/other"
	forget_all
	rm -d "$src/other" "$src/here"
}

temporary_files()
{
	"$file_ops" tmpfile "$mnt" "$mnt/named" >"$work/out.mnt"
	case $? in
	0)	[ "$(stat -c %a:%s:%h "$src/named")" = 640:4:1 ] ||
			complain "$(stat "$src/named")"
		rm "$mnt/named" ;;
	4)	skip='this libfuse has no O_TMPFILE' ;;
	*)	complain "$(cat "$work/out.mnt")" ;;
	esac
}

# How many files of the source the server has open
descriptors()
{
	find "/proc/$server/fd" -lname "$src*" | wc -l
}

forget_all()
{
	"$file_ops" forget "$mnt" || complain 'the kernel cannot be made to forget'
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
		forget_all || return
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
		forget_all || break
	done
	for i in "${pids[@]}"; do
		wait "$i" || complain 'a file was not found'
	done
	rm -r "$mnt/dir"
	forgotten_but_for "$before"
}

alone=(locks_of_the_source changes_of_the_source
	files_of_another_file_system temporary_files forgets_every_file
	forgets_while_others_look_up)

# Servers of their own, without a mode or in the one that follows

# Another way to start the server
start()
{
	timeout 30 "$@" >"$work/server.log" 2>&1 && return
	sed 's/^/# /' "$work/server.log"
	complain "it cannot be mounted"
}

# It has to end by itself when its mount goes.
unmount_alone()
{
	umount "$mnt" || complain 'it cannot be unmounted' || return
	within 30 no_process || complain 'the server stays'
}

no_process()
{
	! pgrep -f -- "$program.* $mnt\$" >/dev/null
}

refuses()
{
	local expected=$1

	shift
	if timeout 30 "$program" "$@" >"$work/server.log" 2>&1; then
		umount "$mnt"
		complain "$* is accepted"
		return
	fi
	grep -q -- "$expected" "$work/server.log" || {
		sed 's/^/# /' "$work/server.log"
		complain "$*: another message than '$expected'"
	}
}

says_what_is_wrong()
{
	refuses 'a SOURCE and a MOUNTPOINT are needed'
	refuses 'a SOURCE and a MOUNTPOINT are needed' "$mnt"
	refuses 'a SOURCE and a MOUNTPOINT are needed' -o source="$src"
	refuses "what is 'third'" "$src" "$mnt" third
	refuses "what is '$mnt'" -o source="$src" name "$mnt" "$mnt"
	refuses 'ring=fast.*no sense' -o ring=fast "$src" "$mnt"
	refuses 'ring_depth=0.*no sense' -o ring_depth=0 "$src" "$mnt"
	refuses 'cache=maybe' -o cache=maybe "$src" "$mnt"
	refuses 'timeout below 0' -o timeout=-2 "$src" "$mnt"
	refuses 'missing: No such file' "$src/missing" "$mnt"
	refuses 'missing: No such file' "$src" "$mnt/missing"
	refuses 'Not a directory' "$random" "$mnt"
	refuses 'unknown option' -o nonsense "$src" "$mnt"
	start "$program" --help || complain '--help fails'
	grep -q 'ring_pool=SIZE' "$work/server.log" || complain '--help lacks options'
	start "$program" --version || complain '--version fails'
	grep -q 'passthrough_ring of fuse_ring [0-9]' "$work/server.log" ||
		complain '--version shows none'
}

keeps_access_control_lists()
{
	start "$program" -o allow_other,posix_acl "$src" "$mnt" || return
	compare access_control_lists
	unmount_alone
}

goes_into_the_background()
{
	start "$program" -o source="$src" "$mnt" || return
	echo text >"$mnt/file"
	[ "$(cat "$src/file")" = text ] || complain 'no file came'
	rm "$mnt/file"
	unmount_alone
}

mounts_on_its_own_source()
{
	echo below >"$mnt/file"
	start "$program" "$mnt" "$mnt" || return
	[ "$(cat "$mnt/file")" = below ] || complain 'the file does not show'
	umount "$mnt"
	rm "$mnt/file"
	within 30 no_process || complain 'the server stays'
}

# start_in MODE SOURCE [OPTION...]: a server that has this mode
start_in()
{
	if ! start_server "$@"; then
		complain "it cannot be mounted: $(head -n 1 "$work/server.log")"
		return 1
	fi
	has_mode "$1" && return
	stop_server
	return 1
}

# The one who unlocks needs an entry, too.
lets_locks_go_in_one_thread()
{
	start_in "$1" "$src" -s -o ring_depth=1 || return
	(cd "$mnt" && timeout 30 taskset -c 0 "$file_ops" many-waiters file 3) \
		>"$work/out" 2>&1 || complain 'waiters hang'
	rm -f "$mnt/file"
	stop_server
}

# Some of them cannot be zero-copied, and have no size.
shows_files_of_the_kernel()
{
	local file

	start_in "$1" /proc -o cache=never || return
	for file in version 1/status; do
		[ "$(head -n 1 "$mnt/$file")" = "$(head -n 1 "/proc/$file")" ] ||
			complain "$file is something else"
	done
	stop_server
}

# A write to the last room of a disk is a short one for the server.
says_that_the_disk_is_full()
{
	mkdir "$work/small"
	mount -t tmpfs -o size=1536k small "$work/small" ||
		complain 'no small file system' || return
	if start_in "$1" "$work/small"; then
		timeout 60 python3 - "$mnt/file" >"$work/out" 2>&1 <<-'END' ||
			import errno, mmap, os, sys

			data = mmap.mmap(-1, 1 << 20)
			for flags in os.O_DIRECT, 0:
			    fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | flags)
			    assert os.write(fd, data) == 1 << 20, "the first MiB"
			    try:
			        n = os.write(fd, data)
			        assert not flags and 0 < n < 1 << 20, f"{n} bytes written"
			        os.write(fd, data)
			        sys.exit("more was written than there is room")
			    except OSError as error:
			        assert error.errno == errno.ENOSPC, error
			    os.ftruncate(fd, 0)
			    os.close(fd)
		END
			complain "$(tail -n 1 "$work/out")"
		stop_server
	fi
	umount "$work/small"
	rmdir "$work/small"
}

# What the kernel writes later nobody waits for, and it does not look at how much
# was written.
says_that_the_disk_was_full()
{
	mkdir "$work/small"
	mount -t tmpfs -o size=1536k small "$work/small" ||
		complain 'no small file system' || return
	if start_in "$1" "$work/small" -o writeback; then
		timeout 60 python3 - "$mnt/file" >"$work/out" 2>&1 <<-'END' ||
			import errno, os, sys

			fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
			assert os.write(fd, bytes(2 << 20)) == 2 << 20, "to the cache"
			try:
			    os.fsync(fd)
			    sys.exit("no error")
			except OSError as error:
			    assert error.errno == errno.ENOSPC, error
		END
			complain "$(tail -n 1 "$work/out")"
		rm "$mnt/file"
		stop_server
	fi
	umount "$work/small"
	rmdir "$work/small"
}

# A limit of the server's own does not end it when a client writes beyond.
outlives_a_file_that_is_too_large()
{
	local all

	all=$(ulimit -f)
	ulimit -S -f 64
	start_in "$1" "$src" || { ulimit -S -f "$all"; return; }
	ulimit -S -f "$all"
	timeout 60 dd if="$random" of="$mnt/file" bs=100k count=1 oflag=direct 2>"$work/out" &&
		complain 'more was written than the server may'
	grep -q 'File too large' "$work/out" || complain "$(head -n 1 "$work/out")"
	ls "$mnt" >/dev/null || complain 'the server is gone'
	rm -f "$mnt/file"
	stop_server
}

# What is larger than any write is an extended attribute, and a list of them.
# Not with the ring off: the libfuse of Debian 12 reads /dev/fuse with a buffer
# for its max_write, and the kernel gives E2BIG to the client.
takes_large_attributes_with_small_writes()
{
	start_in "$1" "$src" -o max_write=4096 || return
	: >"$mnt/file"
	timeout 60 python3 - "$mnt/file" "$src/file" >"$work/out" 2>&1 <<-'END' ||
		import os, sys

		mounted, source = sys.argv[1:]
		value = os.urandom(60000)
		os.setxattr(mounted, "user.large", value)
		assert os.getxattr(source, "user.large") == value, "written"
		assert os.getxattr(mounted, "user.large") == value, "read"
		os.removexattr(mounted, "user.large")
		names = [f"user.{n:03}" + "x" * 200 for n in range(150)]
		for name in names:
		    os.setxattr(source, name, b"")
		assert sorted(os.listxattr(mounted)) == names, "listed"
	END
		complain "$(tail -n 1 "$work/out")"
	head -c 100000 "$random" >"$mnt/file"
	head -c 100000 "$random" | cmp - "$mnt/file" || complain 'the data differs'
	rm "$mnt/file"
	stop_server
}

is_not_shown_in_itself()
{
	start "$program" "$work" "$mnt" || return
	timeout 30 ls "$mnt/mnt" 2>"$work/error" &&
		complain 'the mount is in itself'
	grep -q 'Too many levels' "$work/error" || complain "$(cat "$work/error")"
	timeout 30 ls "$mnt" | grep -q '^src$' || complain 'the rest is not there'
	# With attributes, of which those of the mount are missing
	timeout 30 ls -l "$mnt" 2>/dev/null | grep -q ' src$' ||
		complain 'the rest is not listed'
	unmount_alone
}

ends_at_a_signal()
{
	local signal pid

	for signal in TERM INT HUP; do
		start "$program" "$src" "$mnt" || return
		pid=$(pgrep -f -- "$program.* $mnt\$")
		kill -$signal "$pid"
		within 30 no_process || complain "not at SIG$signal" || return
		! mounted || complain "SIG$signal leaves it mounted" || return
	done
}

ends_while_a_lock_is_waited_for()
{
	local pid waiter

	start "$program" "$src" "$mnt" || return
	pid=$(pgrep -f -- "$program.* $mnt\$")
	: >"$mnt/file"
	exec 7<"$src/file"
	flock 7
	flock "$mnt/file" true 2>/dev/null &
	waiter=$!
	within 30 grep -q '^State:.[SD]' "/proc/$waiter/status"
	kill -TERM "$pid"
	within 30 no_process || complain 'the server stays'
	wait "$waiter" && complain 'the lock was had'
	exec 7<&-
	umount "$mnt" 2>/dev/null
	rm "$src/file"
}

serves_an_ordinary_user()
{
	local mode

	[ -u "$(command -v fusermount3)" ] ||
		{ skip='fusermount3 is not set-user-ID'; return; }
	as_nobody test -w /dev/fuse ||
		{ skip='/dev/fuse is not for all users here'; return; }
	mkdir -m 777 "$work/home" "$work/user"
	chown $nobody "$work/home" "$work/user"
	for mode in off auto; do
		start setpriv --reuid $nobody --regid $nobody --clear-groups -- \
			"$program" -o "ring=$mode" "$work/home" "$work/user" || return
		as_nobody bash -euc "cd '$work/user'; umask 027
			cp '$random' file; cmp '$random' file; chmod 600 file
			mkdir dir; ln file dir/second; ln -s file soft
			truncate -s 5 soft; : >mode0; chmod 0 mode0
			setfattr -n user.x -v 1 file; flock file true
			! cat mode0 2>/dev/null; test ! -w mode0" >"$work/out" 2>&1 ||
			complain "$mode: $(tail -n 1 "$work/out")"
		[ "$(stat -c %u:%s:%h:%a "$work/home/file")" = $nobody:5:2:600 ] ||
			complain "$mode: the file is $(stat "$work/home/file")"
		ls "$work/user" >/dev/null 2>&1 && complain "$mode: root may look in"
		as_nobody fusermount3 -u "$work/user" || umount -l "$work/user"
		within 30 no_process_of_user || complain "$mode: the server stays"
		rm -rf "${work:?}/home/"*
	done
	rmdir "$work/home" "$work/user"
}

no_process_of_user()
{
	! pgrep -f -- "$program.* $work/user\$" >/dev/null
}

# Buffers of a pool need not be pinned for it.
does_zero_copy_without_locked_memory()
{
	run_server prlimit --memlock=65536 setpriv --bounding-set -ipc_lock "$program" \
		-f -o ring=zero-copy,ring_interface=bufpool,allow_other "$src" "$mnt"
	within 30 mounted_or_ended && mounted || complain 'it cannot be mounted' || return
	if has_mode zero-copy:bufpool; then
		cp "$random" "$mnt/file"
		cmp "$random" "$src/file" || complain 'the data written differs'
		cmp "$random" "$mnt/file" || complain 'the data read differs'
		rm -f "$src/file"
	fi
	stop_server
}

# shows FIELD TEXT: of the mount, in mountinfo: 6 options, 8 type, 9 source
shows()
{
	awk -v m="$mnt" -v f="$1" -v t="$2" \
		'$5 == m && ("," $f ",") ~ ("," t ",") { found = 1 } END { exit !found }' \
		/proc/self/mountinfo
}

no_mounted_process()
{
	! pgrep -f "passthrough_ring .* $mnt " >/dev/null
}

# Without asking the server, which may be what hangs
expect_mount()
{
	shows "$@" && return
	grep " $mnt " /proc/self/mountinfo
	echo "expected: $2"
	return 1
}

# What mount(8) hands on, by its command line and by fstab, and what it changes
mount_and_remount()
{
	local type=fuse.passthrough_ring

	mount -t $type "$src" "$mnt" \
		-o allow_other,relatime,nodiratime,nosymfollow,lazytime,nofail,x-of.us
	expect_mount 6 nodiratime
	expect_mount 6 nosymfollow
	expect_mount 8 $type
	expect_mount 9 "$src"
	echo one >"$mnt/file"
	mount -o remount,ro,strictatime "$mnt"
	expect_mount 6 ro
	fails touch "$mnt/file" 2>/dev/null
	mount -o remount,rw,noexec "$mnt"
	expect_mount 6 noexec
	echo two >"$mnt/file"
	exec 8>"$mnt/file"
	fails mount -o remount,ro "$mnt" 2>"$work/error"
	grep 'cannot remount: .* busy' "$work/error"
	exec 8>&-
	[ "$(pgrep -fc "passthrough_ring .* $mnt ")" = 1 ]
	umount "$mnt"
	within 30 no_mounted_process

	cat >"$work/fstab" <<-END
		$src $mnt $type allow_other,noauto,nofail,_netdev,strictatime,x-of.us 0 0
	END
	mount -T "$work/fstab" "$mnt"
	fails shows 6 relatime
	mount -T "$work/fstab" -o remount,ro "$mnt"
	expect_mount 6 ro
	mount -o remount "$mnt"
	umount "$mnt"
	within 30 no_mounted_process

	# As test suites mount, who want a name for the device
	mount -t $type a-name "$mnt" -o "source=$src,allow_other,default_permissions"
	expect_mount 9 a-name
	echo three >"$mnt/file"
	[ "$(cat "$src/file")" = three ]
	rm "$mnt/file"
	umount "$mnt"
	within 30 no_mounted_process
	fails mount -t $type "$src" "$mnt" -o nonsense 2>"$work/error"
	grep 'unknown option' "$work/error"
}

# In a mount namespace, where the program is found where mount(8) looks for it
mounts_as_mount_does()
{
	command -v mount.fuse3 >/dev/null || { skip='mount.fuse3 is not installed'; return; }
	unshare --mount true 2>/dev/null || { skip='no mount namespaces'; return; }
	mkdir "$work/bin"
	cp "$program" "$work/bin/passthrough_ring"
	# shellcheck disable=SC2016	# for the other shell
	timeout 120 unshare --mount bash -exc '
		mount --bind "$1" /usr/local/sbin
		mount_and_remount' - "$work/bin" >"$work/out" 2>&1 || {
		tail -n 20 "$work/out" | sed 's/^/# /'
		complain "it failed after: $(tail -n 1 "$work/out")"
	}
	rm -r "${work:?}/bin"
}

said_a_line()
{
	[ -s "$work/server.log" ]
}

# In a user namespace of its own the server seems to have the capability.
says_whose_capability_zero_copy_needs()
{
	local run=(unshare --user --map-root-user --mount)

	"${run[@]}" true 2>/dev/null || { skip='no user namespaces'; return; }
	run_server "${run[@]}" "$program" -f -o "ring=${1%:*},ring_interface=${1#*:}" \
		"$src" "$mnt"
	within 30 said_a_line || complain 'it says nothing'
	if lacks_buffers; then
		skip=$(head -n 1 "$work/server.log")
	elif [ "$(cat "$work/server.log")" != "passthrough_ring: off, zero-copy needs \
CAP_SYS_ADMIN in the initial user namespace" ]; then
		complain "it says: $(head -n 1 "$work/server.log")"
	fi
	kill "$server"
	within 30 ended || complain 'the server does not end'
	server=''
}

servers=(says_what_is_wrong mounts_as_mount_does goes_into_the_background mounts_on_its_own_source
	is_not_shown_in_itself keeps_access_control_lists ends_at_a_signal
	ends_while_a_lock_is_waited_for serves_an_ordinary_user
	does_zero_copy_without_locked_memory
	says_whose_capability_zero_copy_needs\ zero-copy:{bufring,bufpool}
	lets_locks_go_in_one_thread\ {off,legacy,{pooled,pinned}:{bufring,bufpool}})
for mode in off legacy {pinned,zero-copy}:{bufring,bufpool}; do
	servers+=("says_that_the_disk_is_full $mode" "shows_files_of_the_kernel $mode"
		"outlives_a_file_that_is_too_large $mode"
		"says_that_the_disk_was_full $mode")
	[ "$mode" = off ] || servers+=("takes_large_attributes_with_small_writes $mode")
done

# What the options of this run rule out, or the mode in $2 does

impossible()
{
	case $2,$1,,$options, in
	pinned:bufpool,more_waiters_than_entries,*|auto,more_waiters_than_entries,*)
		! grep -q ' pinned, .*(bufpool, ' "$work/server.log" ||
			echo 'pinned memory is not for entries to spare' ;;
	esac
	case $1,,$options, in
	memory_maps*,direct_io,*|memory_maps*,cache=never,*)
		printf '%s\n' 3.15 "$libfuse" | sort -CV ||
			echo "no shared maps of uncached files in libfuse $libfuse" ;;
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

# run_server COMMAND...: with a log that is empty when this returns, as the shell
# opens it in the background, and may not have yet
server=''
run_server()
{
	: >"$work/server.log"
	"$@" >"$work/server.log" 2>&1 &
	server=$!
}

# start_server MODE [SOURCE [OPTION...]]
start_server()
{
	local interface=''

	[[ $1 != *:* ]] || interface=${1#*:}
	run_server "$program" -f -o "ring=${1%:*}${interface:+,ring_interface=$interface}" \
		-o "allow_other${options:+,$options}" "${@:3}" "${2:-$src}" "$mnt"
	within 30 mounted_or_ended && mounted
}

# A request, after which the mode is decided
mode_in_use()
{
	timeout 60 stat "$mnt" >/dev/null || return
	sed -n 's/^[a-z_]*: \([a-z-]*\).*/\1/p' "$work/server.log" | head -n 1
}

# Of a kernel that does not have it, it cannot be had.
lacks_buffers()
{
	head -n 1 "$work/server.log" | grep -qE 'the kernel has no buffer (rings|pools)$'
}

# has_mode MODE: the server has it, which it says. If not, it is to be skipped
# or complained about.
has_mode()
{
	local mode=${1%:*} got

	got=$(mode_in_use)
	case $mode,$got in
	off,legacy|off,pooled|off,pinned|off,zero-copy)
		complain "it was to be off: $(head -n 1 "$work/server.log")"
		return 1 ;;
	off,*|auto,zero-copy)
		return 0 ;;
	"$mode,$mode")
		[[ $1 != *:* ]] || grep -q "(${1#*:}, Linux " "$work/server.log" ||
			complain "it is not $1: $(head -n 1 "$work/server.log")"
		return ;;
	auto,*)	[ -n "$strict" ] || return 0
		# Over buffer pools zero-copy has to be asked for.
		! grep -qE '\(bufpool, .*; .* asked for$' "$work/server.log" ||
			return 0
		[ "$got" != legacy ] || ! lacks_buffers || return 0 ;;
	esac
	if [ -z "$strict" ] || { [ "$got" = off ] && lacks_buffers; }; then
		skip=$(head -n 1 "$work/server.log")
		return 1
	fi
	complain "$mode: $(head -n 1 "$work/server.log")"
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
	local name=$1 test=$2 begin

	why=''
	skip=$(impossible "$test" "${name%%: *}")
	if [ -n "$skip" ]; then
		result ok "$name # SKIP $skip"
		return
	fi
	begin=$SECONDS
	# shellcheck disable=SC2086	# with its mode, if it has one
	case " ${compared[*]} " in
	*" $test "*)	compare "$test" ;;
	*)		$test ;;
	esac
	[ $((SECONDS - begin)) -lt 10 ] || echo "# $((SECONDS - begin)) seconds"
	if [ -z "$why" ]; then
		result ok "$name${skip:+ # SKIP $skip}"
		return
	fi
	result 'not ok' "$name: $why"
	if [ -n "$server" ] && ! timeout 20 stat "$mnt" >/dev/null; then
		echo '# the file system does not answer, it is aborted'
		abort_connection
		return 1
	fi
}

run_servers()
{
	local test

	for test in "${servers[@]}"; do
		[[ $test == *"$word"* ]] || continue
		run_test "server: $test" "$test"
		! mounted || umount -l "$mnt"
	done
}

run_mode()
{
	local mode=$1 test

	if ! start_server "$mode"; then
		sed 's/^/# /' "$work/server.log"
		result 'not ok' "$mode: it can be mounted"
		return
	fi
	skip='' why=''
	if ! has_mode "$mode"; then
		if [ -n "$skip" ]; then
			result ok "$mode # SKIP $skip"
		else
			result 'not ok' "$why"
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
	l)	printf '%s\n' "${compared[@]}" "${alone[@]}" "${servers[@]}"; exit ;;
	h)	usage; exit ;;
	*)	usage >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))
# Where it was built for the tests, all modes have to be there.
[ $# -ge 1 ] || [ -z "${FUSE_RING_BUILT:-}" ] || {
	strict=1
	set -- "$FUSE_RING_BUILT/passthrough_ring"
}
[ $# -ge 1 ] || { usage >&2; exit 2; }
program=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- off auto legacy {pooled,pinned,zero-copy}:{bufring,bufpool}

echo 'TAP version 13'
[ -x "$program" ] || die "there is no $program"
file_ops=$(dirname "$program")/file_ops
libfuse=$("$program" --version | sed -n 's/^FUSE library version //p')
[ -x "$file_ops" ] || die "there is no $file_ops"
[ "$(id -u)" = 0 ] || die 'needs root'
for tool in setpriv fallocate flock getfattr setfattr chattr python3 pgrep \
	fusermount3; do
	command -v $tool >/dev/null || die "needs $tool"
done

work=$(mktemp -d) || die 'no temporary directory'
trap cleanup EXIT
# Where nobody reads the results any more, too
trap 'exit 1' INT TERM HUP PIPE
src=$work/src mnt=$work/mnt random=$work/random
chmod 755 "$work"
mkdir "$src" "$mnt" "$work/plain"
head -c 3500000 /dev/urandom >"$random"
export file_ops random nobody options acl work src mnt
# shellcheck disable=SC2046	# a list of names
export -f $(compgen -A function)

run_servers
for mode; do
	run_mode "$mode"
done
echo "1..$number"
[ $failures = 0 ]
