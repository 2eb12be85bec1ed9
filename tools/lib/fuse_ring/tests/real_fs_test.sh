#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
#
# File systems that know nothing of the library, over libfuse_ring_preload.so:
# a tree of 2,000 files (FILES says how many) is copied in, compared, changed and compared again,
# through the mount and at the backing side.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

files=${FILES:-2000}
port=2222
tree=$tests/tree.py
sshd=
for candidate in "$built/sshd/usr/sbin/sshd" /usr/sbin/sshd; do
	[ -n "$sshd" ] || [ ! -x "$candidate" ] || sshd=$candidate
done
libraries=$(printf '%s:' "$built"/sshd/{,usr/}lib/*-linux-*)

set_up()
{
	"$tree" make "$shared/tree" "$files"
}

# sshd writes over its environment, which is how processes of tests are found.
tear_down()
{
	pkill -KILL -f "$work/case/ssh/sshd_config" || :
}

need_program()
{
	command -v "$1" >/dev/null || skip "$1 is not installed"
	[[ $(ldd "$(command -v "$1")") == *libfuse3* ]] ||
		skip "$1 is not linked to libfuse3, which the library works with"
}

# expect_asked MODE: the server, which is root's, got what was asked for.
expect_asked()
{
	if [ "$1" = auto ]; then
		expect_auto pinned "$server"
	else
		expect_mode "$1" "$server"
	fi
}

compare()
{
	"$tree" compare "$@" || fail "the trees differ"
}

# check_writable BACKING [xattr]: copies in, compares; changes, compares.
check_writable()
{
	local backing=$1 xattr=${2:-}

	mkdir "$mnt/tree"
	"$tree" copy "$shared/tree" "$mnt/tree" "$xattr"
	compare "$shared/tree" "$backing/tree" "$xattr"
	forget_caches "$mnt"
	compare "$shared/tree" "$mnt/tree" "$xattr"
	cp -a "$shared/tree" "$dir/changed"
	"$tree" change "$dir/changed"
	"$tree" change "$mnt/tree"
	compare "$dir/changed" "$backing/tree"
	forget_caches "$mnt"
	compare "$dir/changed" "$mnt/tree"
	rm -rf "$mnt/tree/dir1"
	[ ! -e "$backing/tree/dir1" ] || fail "what was removed is there"
}

#
# sshfs
#

# On the loopback interface, with keys and users of its own
start_sshd()
{
	local etc=$dir/ssh

	mkdir "$etc"
	chmod 700 "$etc"
	ssh-keygen -q -t ed25519 -N '' -f "$etc/host_key"
	ssh-keygen -q -t ed25519 -N '' -f "$etc/user_key"
	cp "$etc/user_key.pub" "$etc/authorized_keys"
	sed "s/^/[127.0.0.1]:$port /" "$etc/host_key.pub" >"$etc/known_hosts"
	printf 'root:x:0:0::/:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n' >"$etc/passwd"
	printf 'root:*:1::::::\nsshd:!:1::::::\n' >"$etc/shadow"
	cat >"$etc/sshd_config" <<-END
		ListenAddress 127.0.0.1:$port
		HostKey $etc/host_key
		AuthorizedKeysFile $etc/authorized_keys
		PidFile none
		PermitRootLogin yes
		PasswordAuthentication no
		StrictModes no
		UsePAM no
		UseDNS no
		Subsystem sftp internal-sftp
	END
	[ ! -x "$built/sshd/usr/lib/openssh/sshd-session" ] || [ "$sshd" = /usr/sbin/sshd ] ||
		cat >>"$etc/sshd_config" <<-END
			SshdSessionPath $built/sshd/usr/lib/openssh/sshd-session
		END
	mkdir -p /run/sshd
	# shellcheck disable=SC2016	# for the shell that it starts
	unshare --mount --propagation private sh -c '
		mount --bind "$1/passwd" /etc/passwd
		mount --bind "$1/shadow" /etc/shadow
		LD_LIBRARY_PATH=$3 exec "$2" -D -e -f "$1/sshd_config"' \
		sh "$etc" "$sshd" "$libraries" \
		>"$dir/sshd.log" 2>&1 &
	within 30 bash -c ": </dev/tcp/127.0.0.1/$port" 2>/dev/null || {
		cat "$dir/sshd.log"
		fail "sshd does not answer"
	}
}

sshfs_works()
{
	local mode=$1 etc=$dir/ssh

	need_program sshfs
	[ -n "$sshd" ] || skip "there is no sshd"
	start_sshd
	mkdir "$dir/backing"
	serve "$mode" sshfs -f -p $port "root@127.0.0.1:$dir/backing" "$mnt" \
		-o IdentityFile="$etc/user_key" -o UserKnownHostsFile="$etc/known_hosts" \
		-F /dev/null -o BatchMode=yes
	await_mount "$mnt"
	expect_asked "$mode"
	check_writable "$dir/backing"
	stop_server "$mnt"
}

#
# squashfuse
#

squashfuse_works()
{
	local program=$1 mode=$2

	need_program "$program"
	command -v mksquashfs >/dev/null || skip "mksquashfs is not installed"
	mksquashfs "$shared/tree" "$dir/image" -quiet -no-progress -noI -Xcompression-level 1
	serve "$mode" "$program" -f "$dir/image" "$mnt"
	await_mount "$mnt"
	expect_asked "$mode"
	compare "$shared/tree" "$mnt" xattr
	forget_caches "$mnt"
	# By several at once
	find "$mnt" -type f -print0 | xargs -0 -n 50 -P 4 md5sum |
		sed "s,  $mnt/,  ," | sort >"$dir/sums"
	(cd "$shared/tree" && find . -type f -print0 | xargs -0 md5sum) |
		sed 's,  \./,  ,' | sort | cmp - "$dir/sums" ||
		fail "checksums differ"
	! touch "$mnt/new" 2>/dev/null || fail "a read-only file system could be written to"
	stop_server "$mnt"
}

#
# fuse-overlayfs
#

fuse_overlayfs_works()
{
	local mode=$1

	need_program fuse-overlayfs
	mkdir -p "$dir"/{lower/below,upper,work}
	cp -a "$shared/tree/." "$dir/lower/below"
	serve "$mode" fuse-overlayfs -f \
		-o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" "$mnt"
	await_mount "$mnt"
	expect_asked "$mode"
	compare "$shared/tree" "$mnt/below" xattr
	check_writable "$dir/upper" xattr
	# Now what is in the lower layer: copied up, hidden, renamed
	"$tree" change "$mnt/below"
	forget_caches "$mnt"
	compare "$dir/changed" "$mnt/below"
	compare "$shared/tree" "$dir/lower/below" xattr
	stop_server "$mnt"
}

#
# fuse2fs
#

fuse2fs_works()
{
	local mode=$1

	need_program fuse2fs
	truncate -s 256M "$dir/image"
	mke2fs -q -t ext4 "$dir/image"
	serve "$mode" fuse2fs -f -o fakeroot "$dir/image" "$mnt"
	await_mount "$mnt"
	expect_asked "$mode"
	check_writable "$mnt"
	stop_server "$mnt"
	e2fsck -fn "$dir/image" || fail "the image is damaged"
	mkdir "$dir/dumped"
	debugfs -R "rdump /tree $dir/dumped" "$dir/image"
	rm -rf "$dir/changed/dir1"
	compare "$dir/changed" "$dir/dumped/tree"
}

#
# libfuse's examples
#

need_example()
{
	[ -x "$built/examples/$1" ] ||
		skip "libfuse's example $1 is not there (libfuse3-dev has the source)"
}

# It changes what the kernel has cached, and asks what that is.
notifications_work()
{
	local mode=$1 before

	need_example notify_store_retrieve
	serve "$mode" "$built/examples/notify_store_retrieve" -f --update-interval=1 "$mnt"
	await_mount "$mnt"
	expect_asked "$mode"
	before=$(cat "$mnt/current_time")
	[ -n "$before" ] || fail "the file is empty"
	within 30 differs "$before" "$mnt/current_time" ||
		fail "the server's change does not reach the client"
	stop_server "$mnt"
}

differs()
{
	! ended "$server" || fail "the server ended with $(status_of "$server")"
	[ "$(cat "$2")" != "$1" ]
}

hello_works()
{
	local program=$1 mode=$2

	need_example "$program"
	mkdir "$dir/expected"
	printf 'Hello World!\n' >"$dir/expected/hello"
	chmod 444 "$dir/expected/hello"
	serve "$mode" "$built/examples/$program" -f "$mnt"
	await_mount "$mnt"
	expect_asked "$mode"
	compare "$dir/expected" "$mnt"
	! cat "$mnt/missing" 2>/dev/null || fail "a missing file can be read"
	stop_server "$mnt"
}

passthrough_ll_works()
{
	local mode=$1

	need_example passthrough_ll
	mkdir "$dir/backing"
	# It keeps every file open that the kernel knows.
	ulimit -n 65536
	serve "$mode" "$built/examples/passthrough_ll" -f -o "source=$dir/backing,xattr" "$mnt"
	await_mount "$mnt"
	expect_asked "$mode"
	check_writable "$dir/backing" xattr
	stop_server "$mnt"
}

for mode in auto pinned legacy off; do
	test_case "sshfs.$mode" 900 sshfs_works $mode
	test_case "squashfuse.$mode" 600 squashfuse_works squashfuse $mode
	test_case "squashfuse_ll.$mode" 600 squashfuse_works squashfuse_ll $mode
	test_case "fuse-overlayfs.$mode" 900 fuse_overlayfs_works $mode
	test_case "fuse2fs.$mode" 900 fuse2fs_works $mode
	test_case "hello.$mode" 60 hello_works hello $mode
	test_case "hello_ll.$mode" 60 hello_works hello_ll $mode
	test_case "notify_store_retrieve.$mode" 60 notifications_work $mode
	test_case "passthrough_ll.$mode" 900 passthrough_ll_works $mode
done

run_cases "$@"
