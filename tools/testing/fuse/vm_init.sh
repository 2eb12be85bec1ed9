#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The first process of vm.sh's guest. The host's root is mounted read-only;
# what tests write to are file systems in memory, and the report directory,
# which is mounted once more, writable.

# The kernel passes on what it does not know of its command line.
: "${vm_report:?}" "${vm_terminal:?}"

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C HOME=/tmp

mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mkdir -p /dev/pts /dev/shm
ln -s /proc/self/fd /dev/fd
for i in 0:stdin 1:stdout 2:stderr; do
	ln -s "/proc/self/fd/${i%:*}" "/dev/${i#*:}"
done
# As udev has it
[ ! -c /dev/fuse ] || chmod 666 /dev/fuse
mount -t devpts -o ptmxmode=666 none /dev/pts
ln -sf pts/ptmx /dev/ptmx
mount -t tmpfs none /dev/shm
mount -t tmpfs none /run
for fs in debugfs:/sys/kernel/debug fusectl:/sys/fs/fuse/connections; do
	[ ! -d "${fs#*:}" ] || mount -t "${fs%%:*}" none "${fs#*:}"
done

# The report directory, by what the root is on
mkdir /run/report
if [ -d /sys/bus/virtio/drivers/9pnet_virtio ]; then
	mount -t 9p -o trans=virtio,version=9p2000.L,cache=none report /run/report
elif grep -q '^root / virtiofs ' /proc/mounts; then
	mount -t virtiofs report /run/report
else
	# By the root, as mount(8) has two ways to say which directory, of which
	# each version knows one.
	mkdir /run/host
	mount -t hostfs host /run/host
	mount --bind "/run/host$vm_report" /run/report
	umount -l /run/host
fi

terminal=/dev/$vm_terminal
tree='' obj='' tests='' before=0 total=0 args='' command='' root='' user='' shell=''
# shellcheck source=/dev/null
. /run/report/guest.env
export TERM

# A /tmp for the tests. The host's may hold the tree: that stays in reach
# through an open directory, mounted at its old name again.
keep=
for dir in "$tree" "$obj"; do
	case $dir in
	/tmp/*|/var/tmp/*)	exec {fd}<"$dir"; keep="$keep $fd:$dir" ;;
	esac
done
mount -t tmpfs -o mode=1777 none /tmp
mount -t tmpfs -o mode=1777 none /var/tmp
for k in $keep; do
	mkdir -p "${k#*:}"
	fd=${k%%:*}
	mount -c --bind "/proc/self/fd/$fd" "${k#*:}"
	exec {fd}<&-
done
# Another user may not get to where the tree is, nor does who is in another system:
# there is a way for all.
if [ -n "$user$root" ]; then
	mkdir -p /run/tests/tree /run/tests/obj
	mount --bind "$tree" /run/tests/tree
	mount --bind "$obj" /run/tests/obj
	tree=/run/tests/tree obj=/run/tests/obj
fi
inside=()
if [ -n "$root" ]; then
	# As itself, for it to be a mount like any root
	mount --bind "$root" "$root"
	for dir in proc sys dev tmp run; do
		mount --rbind "/$dir" "$root/$dir"
	done
	inside=(chroot "$root")
fi
as_user=()
if [ -n "$user" ]; then
	as_user=(setpriv --reuid "$(id -u "$user" 2>/dev/null || echo "$user")"
		 --regid "$(id -g "$user" 2>/dev/null || echo "$user")"
		 --clear-groups)
	chmod 666 "$terminal"
fi
# Where a program is: of the selftests, or of the workshop, which has scripts, too
path_of()
{
	local dir

	[[ $1 != */* ]] || { echo "$1"; return; }
	for dir in "$obj/kselftest/fuse" "$obj/workshop" "$tree/tools/testing/fuse"; do
		[ -x "$dir/$1" ] && break
	done
	echo "$dir/$1"
}

# What tests must leave as they found it: mounts, files, devices, processes,
# connections, limits, settings of the system and of modules. What they load on the
# runner's behalf is not theirs.
state()
{
	local process own='^$'
	local counters='dentry-state|file-nr|tainted|inode-(nr|state)|ns_last_pid'

	[ -z "${FUSE_MODULES:-}" ] ||
		own='fusectl|/dev/c?fuse|/sys/(fs|module)/fuse/|/proc/sys/fs/fuse/'
	{
		sort /proc/mounts
		# Less what mount(8) and sshd keep for the next time that they run
		find /tmp /var/tmp /dev /dev/shm /run -xdev \
			\( -path /run/report -o -path /run/mount -o -path /run/sshd \) \
			-prune -o -print | sort
		for process in /proc/[0-9]*; do
			[ ! -e "$process/exe" ] || echo "process $(cat "$process/comm")"
		done | grep -vE ' (cat|diff|grep|sort)$' | sort -u
		echo /sys/fs/fuse/connections/*
		sed 's/^/limit: /' /proc/self/limits
		{
			# What nobody can write, DAMON and khugepaged write, in the kernels
			# of distributions. The names below count by themselves, too, or
			# cannot be read.
			find /proc/sys/{dev,fs,kernel,user,vm} /sys/module/*/parameters \
				/sys/kernel/mm -type f -perm /222 -exec grep -sHI . {} +
			grep -rsI . /sys/kernel/debug/fail* /sys/block/loop*/loop
		} | grep -vE "/($counters|random/.*):"
	} | grep -vE "$own"
}

ip link set lo up 2>/dev/null
# Huge pages for the tests that want them, where the kernel has any.
[ ! -w /proc/sys/vm/nr_hugepages ] || echo 16 >/proc/sys/vm/nr_hugepages
ulimit -c 0

[ -n "$command$shell" ] || state >/run/report/state

# Console of the tests. Raw: their lines must not grow carriage returns.
exec <>"$terminal" >&0 2>&0
if [ -n "$shell" ]; then
	stty sane
	cd "$tree" || cd /
	setsid -c bash -i
	verdict=$?
else
	stty raw -echo
	if [ -n "$command" ]; then
		"${inside[@]}" "${as_user[@]}" bash -c "$command"
	else
		paths=
		for t in $tests; do
			paths="$paths $(path_of "$t")"
			t=${t##*/} t=${t^^}
			export "KSELFTEST_${t//[^A-Z0-9]/_}_ARGS=$args"
		done
		# As "make run_tests" does it; whether it works with that, too, is for
		# those to see who have make and the whole tree. The version and the
		# plan are those of run_kselftest.sh, and there is one log of all
		# machines.
		# shellcheck disable=SC2016,SC2086	# for the other shell; a list
		"${inside[@]}" "${as_user[@]}" bash -c '
			export BASE_DIR=$1/tools/testing/selftests
			cd "$BASE_DIR/fuse" && . "$BASE_DIR/kselftest/runner.sh" || exit
			KTAP_TESTNO=$(($2 + 1))
			[ "$2" != 0 ] || { ktap_print_header; ktap_set_plan "$3"; }
			shift 3
			run_many "$@"
			exit 0' run_many "$tree" "$before" "$total" $paths
	fi
	verdict=$?
fi

# What tests have left behind or changed. Some is only removed a moment
# after its test has ended.
if [ -z "$command$shell" ]; then
	for ((until = SECONDS + 10; SECONDS < until; )); do
		left=$(state | diff /run/report/state - | grep '^[<>]')
		[ -n "$left" ] || break
		sleep 0.1
	done
	[ -z "$left" ] || echo "$left" >/run/report/leftovers
fi

# A leak is what nothing points to, the same at two scans, and older than five
# seconds when the second begins: the first may take as long as that by itself.
leaks=/sys/kernel/debug/kmemleak
if [ -w $leaks ] && [ -z "$shell" ]; then
	sleep 6 &
	echo scan >$leaks
	wait $!
	echo scan >$leaks
	cat $leaks >/run/report/kmemleak
fi

# How often each line ran, in a kernel that counts
if [ -d /sys/kernel/debug/gcov ]; then
	(cd /sys/kernel/debug && find gcov -name '*.gcda') | while read -r counts; do
		mkdir -p "/run/report/${counts%/*}"
		cat "/sys/kernel/debug/$counts" >"/run/report/$counts"
	done
fi

echo "$verdict" >/run/report/verdict
sync
# poweroff(8) is not installed everywhere.
python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)'
