#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs the fuse selftests and fuzz_test of this directory, or what -T or -c says, on
# a kernel in a virtual machine whose root is this machine's own, read-only: User Mode Linux
# over hostfs, or qemu over 9p. Three channels keep apart what must not be mixed:
# the tests' KTAP comes live to the terminal, the kernel's log goes to a file,
# and the verdict is a file the guest writes last. No verdict is a failure, and
# so is any complaint in the kernel's log.
#
# There is virtme-ng in Debian, which boots a kernel in qemu over this machine's
# root, too. It knows neither User Mode Linux, where the suite takes a minute
# instead of five, nor a verdict that the guest cannot fake by dying early.

set -u
export LC_ALL=C

usage()
{
	cat <<-END
	usage: vm.sh -k IMAGE [options]
	  -k IMAGE    the kernel: 'linux' of a UML build or a bzImage
	  -e ENGINE   uml or qemu (default: what IMAGE is)
	  -S TREE     kernel source tree (default: the one this file is in)
	  -O DIR      where the selftests were built, make's O= (default: TREE)
	  -r DIR      where logs and results go (default: a new one in /tmp)
	  -T TESTS    only these test programs; a path is one of others, which is run
	              as kselftest runs its own
	  -j          share them out between two machines that run at once
	  -P 1|2      only what the first or the second of these would run
	  -a ARGS     arguments for them, as in -a '-t short_read'
	  -c CMD      run this shell command in place of the selftests
	  -R ROOT     run them in the system below this directory
	  -A ARCH     qemu emulates this machine, arm64 or s390x: ROOT is its root
	  -E NAMES    hand on these variables of the environment, too
	  -u USER     run either as this user, a name or a number
	  -p PARAMS   more kernel parameters
	  -m SIZE     memory of the guest (default 1G)
	  -n CPUS     processors of the guest in qemu (default 2)
	  -t SECONDS  time limit of the whole run (default 600)
	  -x FILE     "PROGRAM TEST" lines: known to fail on this kernel; or "WARNING
	              FUNCTION": it is known to warn there
	  -M DIR      with the modules of the kernel: FUSE_MODULES for the tests
	  -I FILE     an initramfs that mounts the root, as initramfs.sh makes one; for
	              qemu
	  -V          over virtiofs in place of 9p, for a kernel without modules; as root
	  -i          qemu counts instructions: one is a nanosecond to the guest
	  -s          an interactive shell instead of the tests
	  vm.sh [--known FILE] --summary LOG [DIR]
	                              counts the tests of a KTAP log, writes
	                              DIR/junit.xml, DIR/skips and DIR/results
	  vm.sh --scan LOG            shows the complaints in a kernel log
	END
}

die()
{
	echo "vm.sh: error: $*" >&2
	exit 1
}

# What a KTAP log comes to; with a directory, also what a run leaves there: a
# JUnit file, the list of skipped tests by reason and that of all results.
summary()
{
	local log=$1 dir=${2:-} more=(-v known="$known")

	if [ -n "$dir" ]; then
		more+=(-v junit="$dir/junit.xml" -v skips="$dir/skips" -v results="$dir/results")
		[ ! -f "$dir/ktap.times" ] || more+=(-v times="$dir/ktap.times")
		[ ! -f "$dir/faults" ] || more+=(-v faults="$dir/faults")
	fi
	awk "${more[@]}" -f "$here/ktap_report.awk" "$log"
}

# Lines the kernel prints only when something is wrong with it.
complaints='WARNING:|BUG:|Oops|KASAN|KCSAN|KMSAN|UBSAN|kernel BUG at'
complaints+='|general protection fault|unable to handle|Kernel panic'
complaints+='|possible (recursive locking|circular locking|irq lock inversion|deadlock)'
complaints+='|inconsistent (lock|\{[A-Z])|bad unlock balance|held lock freed'
complaints+='|possible unsafe locking|INFO: (task|trying to register|rcu|possible)'
complaints+='|lock held when returning|locks? still held|suspicious RCU|illegal RCU'
complaints+='|rcu.*(stall|detected)|scheduling while atomic|sleeping function called'
complaints+='|hung_task|blocked for more than|soft lockup|hard LOCKUP'
complaints+='|refcount_t:|list_(add|del) corruption|ODEBUG:|Bad page|bad page state'
complaints+='|new suspected memory leaks|unreferenced object|[Kk]memleak.*disabled'
complaints+='|stack-protector|stack corrupted|DEBUG_LOCKS_WARN_ON|turning off the locking'
complaints+='|double free|use-after-free|Objects remaining|Segfault with no mm'

# Races that KCSAN finds between parts of the kernel that are not tested here are
# no complaints: those names have to be one of ours.
races_of_others='BUG: KCSAN: '
ours='uring|bufring|io_buffer|io_kernel_buffer|io_release_folios'

scan()
{
	local expected

	# "at FILE:LINE FUNCTION", "FILE:LINE at FUNCTION" or "at FUNCTION", by release
	expected=$([ -z "$known" ] ||
		sed -n 's/^WARNING \([A-Za-z0-9_]*\)$/WARNING: .*(at|:[0-9]+) \1[+.]/p' "$known" |
		paste -s -d '|')
	! grep -a -n -E "$complaints" "$1" |
		awk -v others="$races_of_others" -v ours="$ours" -v expected="$expected" '
			index($0, others) && $0 !~ ours { next }
			expected != "" && $0 ~ expected { next }
			{ print; bad = 1 }
			END { exit !bad }'
}

# Debian has moved it.
find_virtiofsd()
{
	local file

	for file in /usr/libexec/virtiofsd /usr/lib/qemu/virtiofsd; do
		[ ! -x $file ] || { echo $file; return; }
	done
	return 1
}

here=$(cd "$(dirname "$0")" && pwd -P)
known=''
[ "${1:-}" != --known ] || { known=$2; shift 2; }
case ${1:-} in
--summary)	summary "${2:?a KTAP log}" "${3:-}"; exit ;;
--scan)		scan "${2:?a kernel log}"; exit ;;
esac

engine='' icount='' image='' tree='' obj='' report='' tests='' args='' command='' user='' params=''
root='' variables='' modules='' memory=1G cpus=2 limit=600 shell='' machines=1 part=''
arch=x86_64
initramfs='' virtiofsd=''
while getopts e:k:S:O:r:T:P:a:c:R:A:E:u:p:m:n:t:M:I:x:Vijsh opt; do
	case $opt in
	e)	engine=$OPTARG ;;
	k)	image=$OPTARG ;;
	S)	tree=$OPTARG ;;
	O)	obj=$OPTARG ;;
	r)	report=$OPTARG ;;
	T)	tests=$OPTARG ;;
	P)	part=$OPTARG ;;
	a)	args=$OPTARG ;;
	c)	command=$OPTARG ;;
	R)	root=$(realpath "$OPTARG") ;;
	A)	arch=$OPTARG ;;
	E)	variables=$OPTARG ;;
	u)	user=$OPTARG ;;
	p)	params=$OPTARG ;;
	m)	memory=$OPTARG ;;
	n)	cpus=$OPTARG ;;
	t)	limit=$OPTARG ;;
	x)	known=$(realpath "$OPTARG") ;;
	M)	modules=$(realpath "$OPTARG") ;;
	I)	initramfs=$(realpath "$OPTARG") ;;
	V)	virtiofsd=$(find_virtiofsd) ||
			die "virtiofsd is missing: install it or qemu-system-common" ;;
	i)	icount=1 ;;
	j)	machines=2 ;;
	s)	shell=1 ;;
	h)	usage; exit 0 ;;
	*)	usage >&2; exit 2 ;;
	esac
done
[ -n "$image" ] || die "which kernel? -k IMAGE (-h shows all options)"
[ -s "$image" ] || die "there is no kernel $image: build it first"
image=$(realpath "$image")
tree=$(realpath "${tree:-$here/../../..}")
[ -f "$tree/tools/testing/selftests/lib.mk" ] || die "$tree is not a kernel tree: give -S TREE"
obj=$(realpath "${obj:-$tree}")
[ -d "$obj" ] || die "there is no $obj: build the selftests with O= this first"
if [ -z "$engine" ]; then
	engine=qemu
	[ "${image##*/}" != linux ] || engine=uml
fi
[ -z "$virtiofsd" ] || [ "$(id -u)" = 0 ] || die "-V needs root"
if [ "$arch" != x86_64 ]; then
	[ -n "$root" ] || die "-A $arch needs -R ROOT"
	[ "$engine" = qemu ] || die "-A $arch is for qemu"
	[ -z "$virtiofsd$icount" ] || die "-V and -i are for x86_64"
	[ "$(id -u)" = 0 ] || die "-A $arch needs root"
fi
[ -z "$initramfs$virtiofsd" ] || [ "$engine" = qemu ] ||
	die "-I and -V are for qemu, $image is User Mode Linux"

[ -n "$tests" ] || tests=$(shopt -s nullglob; cd "$here" &&
	basename -s .c ../selftests/fuse/*_test.c ./*_test.c | tr '\n' ' ')

# Part 2 of the programs is these and part 1 all others: in either engine they
# take about the same time.
second="io_test teardown_test fault_test"
programs()
{
	local t of

	for t in $tests; do
		of=1
		[[ " $second " != *" $t "* ]] || of=2
		[ "$of" != "$1" ] || printf '%s ' "$t"
	done
}

case $part in
'')	;;
1|2)	tests=$(programs "$part")
	[ -n "$tests" ] || die "part $part has none of these programs" ;;
*)	die "no such part '$part': 1 or 2" ;;
esac
# Two machines are slower than one where they have to share a processor.
[ -z "$command$shell" ] && [ "$(nproc)" -gt 1 ] &&
	[ -n "$(programs 1)" ] && [ -n "$(programs 2)" ] || machines=1

# A machine can have /dev/kvm and yet be unable to run a guest. A kernel that
# finds no root panics, and panic=-1 then ends qemu: if that takes longer than
# a few seconds, or says nothing, it does not work.
kvm_works()
{
	[ -w /dev/kvm ] || return 1
	timeout 15 qemu-system-x86_64 -nodefaults -display none -no-reboot \
		-machine q35,accel=kvm -cpu max -m 256M -kernel "$image" \
		-serial stdio -append "console=ttyS0 panic=-1 root=none" \
		</dev/null 2>/dev/null | grep -aq 'Kernel panic'
}

# Whether -R is inside of this machine's root, or takes its place
inside=1
[ "$arch" = x86_64 ] || inside=''
# Which qemu, the console of the kernel and that of the tests
case $arch in
x86_64)	emulator=qemu-system-x86_64 package=qemu-system-x86
	# tsc=nowatchdog: while it boots, it compares the clocks of two processors.
	# The one that waits counts time in jiffies, and the other one may be waiting
	# for it without interrupts, so that there are none: a hang, once in a while.
	console="ttyS0 tsc=nowatchdog" terminal=ttyS1 ;;
arm64)	emulator=qemu-system-aarch64 package=qemu-system-arm
	console=ttyAMA0 terminal=hvc0 ;;
s390x)	emulator=qemu-system-s390x package=qemu-system-misc
	console=ttysclp0 terminal=hvc0 ;;
*)	die "no such architecture '$arch': x86_64, arm64 or s390x" ;;
esac

case $engine in
uml)	;;
qemu)	command -v $emulator >/dev/null || die "$emulator is missing: install $package"
	accel=tcg
	[ "$arch" != x86_64 ] || ! kvm_works || accel=kvm ;;
*)	die "no such engine '$engine': uml or qemu" ;;
esac

# From here on nothing is refused any more, which would leave it behind.
report=${report:-$(mktemp -d)}
mkdir -p "$report" || die "cannot create $report"
report=$(realpath "$report")

params="init=$here/vm_init.sh fuse.enable_uring=1 printk.time=1 panic=-1 $params"

# prepare DIR [TESTS [BEFORE]]: what the guest's init is to do, and where its logs
# and results go. Kernel parameters could not carry it: they end at the first space.
# BEFORE are the tests whose results precede its own in the log.
prepare()
{
	local dir=$1 own=${2:-} before=${3:-} variable

	mkdir -p "$dir" || die "cannot create $dir"
	rm -rf "$dir"/{1,2} "$dir"/{ktap.log,ktap.times,kernel.log,verdict,engine.log} \
		"$dir"/{state,leftovers,kmemleak,complaints,faults} \
		"$dir"/{guest.env,status,summary,junit.xml,skips,results}
	: >"$dir/kernel.log"
	{
		printf '%s=%q\n' tree "$tree" obj "$obj" tests "$own" args "$args" \
			before "$(wc -w <<<"$before")" total "$(wc -w <<<"$tests")" \
			command "$command" root "${inside:+$root}" user "$user" shell "$shell" \
			TERM "${TERM:-dumb}"
		# What the tests themselves look at
		for variable in FUSE_DANGEROUS_TESTS FUSE_SLOW_TESTS \
				FUSE_STRESS_OPS FUSE_STRESS_SEED \
				FUZZ_OPS FUZZ_SEED $variables; do
			[ -z "${!variable:-}" ] ||
				printf 'export %s=%q\n' "$variable" "${!variable}"
		done
		[ -z "$modules" ] || printf 'export FUSE_MODULES=%q\n' "$modules"
		# An emulated processor is slower than the tests' own limits allow for.
		[ "${accel:-}" != tcg ] ||
			echo "export kselftest_override_timeout=$limit" \
				"FUZZ_OPS=${FUZZ_OPS:-72}" \
				"FUSE_STRESS_OPS=${FUSE_STRESS_OPS:-250}"
	} >"$dir/guest.env"
}

# cpu_of NUMBER: the processor for a machine, from the last that we may use down
cpu_of()
{
	taskset -cp $$ | sed 's/.*: //' | tr , '\n' |
		while IFS=- read -r from to; do
			seq "$from" "${to:-$from}"
		done | tail -n "$1" | head -n 1
}

# boot_ENGINE DIR NUMBER COMMAND...: a machine, by way of a command
boot_uml()
{
	local dir=$1 cpu

	# Its kernel and its processes are processes here that wake each other
	# in turn: on one processor that takes half the time.
	cpu=$(cpu_of "$2")
	shift 2
	# shellcheck disable=SC2086	# a list of parameters
	# con0 is the terminal, con1 the kernel's log.
	taskset -c "$cpu" "$@" "$image" mem="$memory" seccomp=on \
		root=/dev/root rootfstype=hostfs ro \
		con=null con0="${shell:+fd:0,}fd:1" con1=null,fd:9 ssl=null \
		console=tty1 vm_terminal=tty0 $params vm_report="$dir" \
		9>>"$dir/kernel.log" 2>>"$dir/engine.log"
}

# serve DIR SOCKET [READONLY]: a directory over virtiofs. The daemon has no way to keep
# a guest from writing: it gets the directory as it is mounted at READONLY, for itself
# alone.
serve()
{
	# shellcheck disable=SC2016	# for the other shell
	unshare -m --propagation private bash -c '
		daemon=$1 from=$2 socket=$3 only=$4
		if [ -n "$only" ]; then
			mkdir "$only" && mount --rbind "$from" "$only" || exit
			from=$only
			grep -oE " $only(/[^ ]*)? " /proc/self/mounts | while read -r mount; do
				mount -o remount,bind,ro "$mount"
			done
			! : 2>/dev/null >>"$from/tmp/read-only" || exit
		fi
		exec "$daemon" --socket-path="$socket" -o source="$from" -o cache=auto
		' serve "$virtiofsd" "$1" "$2" "${3:-}" >/dev/null &
	daemons+=($!)
	while [ ! -S "$2" ] && kill -0 $! 2>/dev/null; do
		sleep 0.1
	done
}

# with_root COMMAND...: a root that is not this machine's needs what it is to run, at
# the same place. For the command alone: nobody else sees these mounts.
with_root()
{
	if [ -n "$inside" ]; then
		"$@"
		return
	fi
	# shellcheck disable=SC2016	# for the other shell
	unshare -m --propagation private bash -c '
		root=$1 n=$2
		for dir in "${@:3:n}"; do
			mkdir -p "$root$dir" && mount --bind "$dir" "$root$dir" || exit
		done
		exec "${@:3 + n}"' with_root "$root" 3 "$tree" "$obj" "$here" "$@"
}

# The machine that is emulated, with its first console as the kernel's log, and the
# second as the terminal
machine_of()
{
	local log=$1 cpu=max,la57=off bus=pci

	case $arch in
	x86_64)
		# Emulated, a string instruction takes as long for a byte as for
		# eight, and counts as one for each: nobody should be told that bytes
		# are fast. And each switch of SMAP leaves the translated code, for a
		# twentieth of the time. User Mode Linux finds what SMAP finds: its
		# kernel does not have the memory of its processes mapped.
		[ "$accel" != tcg ] || cpu+=,-erms,-fsrm,-smap
		machine=(-machine q35 -cpu "$cpu" -serial "file:$log" -serial stdio)
		return ;;
	arm64)	# It has pages of any size, and no pointers to be signed, which takes long.
		machine=(-machine virt -cpu neoverse-n1 -serial "file:$log") ;;
	s390x)	bus=ccw
		machine=(-machine s390-ccw-virtio -cpu max
			-chardev "file,id=log,path=$log" -device "sclpconsole,chardev=log") ;;
	esac
	machine+=(-device "virtio-serial-$bus" -chardev "stdio,id=terminal"
		-device "virtconsole,chardev=terminal")
}

boot_qemu()
{
	local dir=$1
	local share=security_model=none,multidevs=remap
	local options=trans=virtio,version=9p2000.L,cache=loose,msize=262144 type=9p
	local shares=() machine=() sockets='' daemons=() rc
	local count=() turns='' more=() path=/

	# Two machines on as few processors as one has: those of each take turns
	# in one thread. In threads of their own they would spend a quarter of
	# the time on waiting for one that has no turn.
	[ "$accel" != tcg ] || [ "$machines" = 1 ] ||
		[ "$(nproc)" -ge $((machines * cpus)) ] || turns=,thread=single

	if [ -n "$icount" ]; then
		# The guest's clock is the number of instructions.
		count=(-icount 'shift=0,sleep=off')
		accel=tcg cpus=1
	fi
	machine_of "$dir/kernel.log"
	[ -n "$inside" ] || path=$root
	shift 2
	[ -z "$initramfs" ] || more=(-initrd "$initramfs")
	if [ -z "$virtiofsd" ]; then
		shares=(-virtfs "local,path=$path,mount_tag=root,$share,readonly=on"
			-virtfs "local,path=$dir,mount_tag=report,$share")
	else
		type=virtiofs options='' sockets=$(mktemp -d)
		serve / "$sockets/root" "$sockets/read-only" 2>>"$dir/engine.log"
		serve "$dir" "$sockets/report" 2>>"$dir/engine.log"
		shares=(-object "memory-backend-memfd,id=memory,size=$memory,share=on"
			-numa "node,memdev=memory"
			-chardev "socket,id=root,path=$sockets/root"
			-device "vhost-user-fs-pci,chardev=root,tag=root"
			-chardev "socket,id=report,path=$sockets/report"
			-device "vhost-user-fs-pci,chardev=report,tag=report")
	fi
	with_root "$@" "$emulator" -nodefaults -display none -no-reboot \
		-accel "$accel$turns" "${machine[@]}" "${count[@]}" \
		-smp "$cpus" -m "$memory" -kernel "$image" "${more[@]}" \
		"${shares[@]}" \
		-append "root=root rootfstype=$type ${options:+rootflags=$options} ro \
			console=$console vm_terminal=$terminal $params vm_report=$dir" \
		2>>"$dir/engine.log"
	rc=$?
	if [ -n "$sockets" ]; then
		kill "${daemons[@]}" 2>/dev/null
		rm -rf --one-file-system "$sockets"
	fi
	return $rc
}

if [ -n "$shell" ]; then
	[ -t 0 ] || die "a shell needs a terminal"
	prepare "$report"
	saved=$(stty -g)
	stty raw -echo
	"boot_$engine" "$report" 1 env
	stty "$saved"
	exit 0
fi

# Live to standard output, and to a log that comes with the time of each line.
record()
{
	local line

	while IFS= read -r line || [ -n "$line" ]; do
		line=${line%$'\r'}
		printf '%s\n' "$line"
		printf '%s\n' "$line" >&3
		echo "$EPOCHREALTIME" >&4
	done 3>"$1/ktap.log" 4>"$1/ktap.times"
}

# run DIR NUMBER: a machine that is prepared, until it ends. Its status is left
# beside its logs.
run()
{
	"boot_$engine" "$1" "$2" timeout --foreground -k 5 "$limit" </dev/null |
		record "$1"
	echo "${PIPESTATUS[0]}" >"$1/status"
}

# In the foreground, so that Ctrl-C reaches the guest too. What the second
# machine says follows the first one's, and comes live from then on.
started=$SECONDS
dirs=("$report")
if [ "$machines" = 1 ]; then
	prepare "$report" "$tests"
	run "$report" 1
else
	prepare "$report"
	dirs=("$report/1" "$report/2")
	prepare "${dirs[0]}" "$(programs 1)"
	prepare "${dirs[1]}" "$(programs 2)" "$(programs 1)"
	# A group of its own, to end as a whole where this ends early.
	set -m
	run "${dirs[1]}" 2 >/dev/null &
	set +m
	second=$!
	trap 'kill -INT -- -$second 2>/dev/null' EXIT INT
	run "${dirs[0]}" 1
	tail -n +1 -s 0.1 --pid="$second" -f "${dirs[1]}/ktap.log"
	wait
	trap - EXIT INT
	for log in ktap.log ktap.times kernel.log; do
		cat "${dirs[@]/%//$log}" >"$report/$log"
	done
fi

# Faults beside the tests' own count as one failed test each.
faults=0
complain()
{
	faults=$((faults + 1))
	echo "FAILED: $*"
	echo "$*" >>"$report/faults"
}

# judge DIR: what went wrong with a machine
judge()
{
	local dir=$1

	if [ ! -s "$dir/verdict" ]; then
		if [ "$(cat "$dir/status")" -ge 124 ]; then
			complain "the guest did not finish within $limit seconds"
		else
			complain "the guest ended without a verdict"
		fi
		tail -n 15 "$dir/kernel.log" "$dir/engine.log" 2>/dev/null | sed 's/^/    /'
	elif [ "$(cat "$dir/verdict")" != 0 ] && [ -z "$command" ]; then
		complain "the tests could not be run in the guest"
	fi
	if ! scan "$dir/kernel.log" >"$dir/complaints"; then
		complain "the kernel complained:"
		grep -a -m3 -E -A25 "$complaints" "$dir/kernel.log" | head -n 80 | sed 's/^/    /'
	fi
	if [ -s "$dir/leftovers" ]; then
		complain "tests left behind (>) or changed:"
		head -n 20 "$dir/leftovers" | sed 's/^/    /'
	fi
	if [ -s "$dir/kmemleak" ]; then
		complain "kmemleak found leaks:"
		head -n 60 "$dir/kmemleak" | sed 's/^/    /'
	fi
}

echo
if [ -n "$command" ]; then
	[ "$(cat "$report/verdict" 2>/dev/null)" = 0 ] || complain "the command in the guest failed"
else
	summary "$report/ktap.log" >"$report/summary"
	sed '$d' "$report/summary"
fi
for dir in "${dirs[@]}"; do
	judge "$dir"
done
echo "$engine, $((SECONDS - started)) seconds; logs in $report"
if [ -n "$command" ]; then
	[ $faults = 0 ]
else
	summary "$report/ktap.log" "$report" >"$report/summary"
	rc=$?
	tail -n 1 "$report/summary"
	exit $rc
fi
