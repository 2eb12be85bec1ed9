#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# mutants.sh [NAME...]: shows that the selftests find the faults they look for.
# Each patch in tools/testing/fuse/mutants puts one fault into the
# series; the program that it names must fail on a kernel with that fault, and
# pass on one without. A header says so:
#
#   Caught-by: PROGRAM [-t TEST...]
#   Kernel: uml|uml-debug|qemu-debug	(uml if it says nothing)
#
# One line for each: caught, and by which test; SURVIVED, where no test noticed;
# FAILED, where nothing can be said: the patch does not apply, the kernel does
# not build, the test did not run or fails on a good kernel too. The logs are in
# build/reports/mutants.

. "$(dirname "$0")/lib.sh" || exit 1

# Slow ones too, each of which is run for one mutant only
export FUSE_SLOW_TESTS=1

# Each job in a process group of its own, so that it can be ended as a whole.
set -m

mutants=$WORKSHOP/mutants
work=$BUILD/mutants
tree=$work/linux
out=$REPORTS/mutants
vm=$WORKSHOP/vm.sh

# field NAME PATCH: what its header says.
field()
{
	sed -n "/^---\$/q; s/^$1: *//p" "$2"
}

kernel_of()
{
	local kernel

	kernel=$(field Kernel "$1")
	echo "${kernel:-uml}"
}

# Which runs tell the same on a good kernel
run_key()
{
	echo "$(kernel_of "$1") $(field Caught-by "$1")"
}

check_header()
{
	local name=${1##*/} by

	by=$(field Caught-by "$1")
	[ -n "$by" ] || die "$name does not say what it is Caught-by"
	grep -qE "^TEST_GEN_PROGS (:=|\+=) ${by%% *}\$" \
		"$TOP/$SELFTESTS/Makefile" "$WORKSHOP/Makefile" ||
		die "$name is to be caught by ${by%% *}, which is no test program"
	case $(kernel_of "$1") in
	uml|uml-debug|qemu-debug)	;;
	*)	die "$name needs an unknown kernel: $(kernel_of "$1")" ;;
	esac
}

# A tree beside its build directories, as build/linux is, so that the compiler
# cache serves both. Only what differs from the mutant before is touched.
clean_tree()
{
	if [ ! -e "$tree/.git" ]; then
		free_space "$BUILD" 4
		rm -rf "$tree"
		mkdir -p "$work"
		kgit worktree prune
		kgit worktree add -q --detach --force "$tree" refs/fuse/applied
	fi
	git -C "$tree" checkout -q --force --detach "$(kgit rev-parse refs/fuse/applied)"
}

# build KERNEL IMAGE LOG: what is in the tree.
build()
{
	local debug=0 built

	[[ $1 != *-debug ]] || debug=1
	built=$(ENGINE=${1%-debug} DEBUG=$debug WORKTREE=$tree \
		"$TOP/scripts/kernel.sh" 2>"$3") || return 1
	cp "$built" "$2"
}

# run KERNEL IMAGE REPORT CAUGHT-BY: 0 if the program passed, and did not just
# skip everything; what vm.sh said is in REPORT/log.
run()
{
	local limit=240 program=${4%% *} args='' place=on_free_cpu

	[[ $4 != *' '* ]] || args=${4#* }
	case $1 in
	uml-debug)	limit=480 ;;
	qemu-*)		limit=1800 place="env" ;;
	esac
	mkdir -p "$3"
	"$place" "$vm" -e "${1%-debug}" -k "$2" -S "$LINUX" -O "$BUILD/selftests" \
		-r "$3" -m 2G -t "$limit" -T "$program" -a "$args" \
		>"$3/log" 2>&1 </dev/null || return 1
	tail -n 1 "$3/log" | grep -qE '^[1-9][0-9]* passed, 0 failed'
}

# Why a run failed: the first test that did, and what the kernel had to say.
reason()
{
	local first complaint

	first=$(sed -n 's/^FAILED: //p' "$1/log" | head -n 1)
	complaint=$(sed 's/^[0-9]*://; s/^\[[^]]*\] *//; q' "$1/complaints" 2>/dev/null || :)
	echo "${first:-$(tail -n 1 "$1/log")}${complaint:+ ($complaint)}"
}

# Nothing of the guest's tests to be seen is no proof of anything.
tests_ran()
{
	grep -q '^# selftests: fuse: ' "$1/ktap.log" 2>/dev/null
}

# tell NAME WORD REST...: the line of a mutant, for the terminal and the counts
tell()
{
	echo "$2" >"$out/$1.verdict"
	printf '%-8s %s\n' "$2" "$1${*:3}"
}

# on_good_kernel KERNEL CAUGHT-BY NR: leaves good.NR if it passes.
on_good_kernel()
{
	if run "$1" "$work/image-$1" "$out/good-$3" "$2"; then
		touch "$out/good-$3/passed"
	else
		echo "FAILED   on the kernel without a fault: $2: $(reason "$out/good-$3")"
	fi
}

# on_mutant PATCH IMAGE: the run that decides.
on_mutant()
{
	local name by

	name=$(basename "$1" .patch)
	by=$(field Caught-by "$1")
	if run "$(kernel_of "$1")" "$2" "$out/$name" "$by"; then
		tell "$name" SURVIVED " $by: $(tail -n 1 "$out/$name/log")"
	elif ! tests_ran "$out/$name"; then
		tell "$name" FAILED ": the test did not run: $(reason "$out/$name")"
	elif tail -n 1 "$out/$name/log" | grep -q '^0 passed, 0 failed'; then
		tell "$name" SURVIVED " $by: everything was skipped"
	else
		tell "$name" caught " by $(reason "$out/$name")"
	fi
	rm -f "$2"
}

end_jobs()
{
	local job

	for job in $(jobs -rp); do
		kill -- "-$job" 2>/dev/null || :
	done
}

# The runs that all mutants need to pass without a fault, each once.
prove_tests()
{
	local p key kernel n=0

	for p in "${patches[@]}"; do
		key=$(run_key "$p")
		[ -z "${good[$key]:-}" ] || continue
		kernel=${key%% *}
		if [ ! -e "$work/image-$kernel" ]; then
			say "building the $kernel kernel without a fault"
			clean_tree
			build "$kernel" "$work/image-$kernel" "$out/build-$kernel.log" || {
				cat "$out/build-$kernel.log" >&2
				die "the $kernel kernel does not build"
			}
		fi
		n=$((n + 1))
		good[$key]=$n
		wait_for_room "$JOBS"
		on_good_kernel "$kernel" "${key#* }" "$n" &
	done
	wait
}

try_mutant()
{
	local name image

	name=$(basename "$1" .patch)
	image=$work/image-of-$name
	if [ ! -e "$out/good-${good[$(run_key "$1")]}/passed" ]; then
		tell "$name" FAILED ": $(field Caught-by "$1") does not pass without it"
		return
	fi
	clean_tree
	if ! git -C "$tree" apply --whitespace=nowarn "$1" 2>"$out/$name.apply"; then
		tell "$name" FAILED ": does not apply: $(head -n 1 "$out/$name.apply")"
		return
	fi
	if ! build "$(kernel_of "$1")" "$image" "$out/$name.build"; then
		tell "$name" FAILED ": does not build: $(grep -m 1 -E 'error: |undefined' "$out/$name.build")"
		return
	fi
	wait_for_room "$JOBS"
	on_mutant "$1" "$image" &
}

count()
{
	{ grep -lx "$1" "$out"/*.verdict 2>/dev/null || :; } | wc -l
}

"$TOP/scripts/deps.sh" check
rm -rf "$out"
mkdir -p "$out" "$work"
rm -f "$work"/image-*
patches=()
for name in "${@:-*}"; do
	for p in "$mutants"/$name.patch; do
		[ -f "$p" ] || die "there is no mutant ${p##*/}"
		check_header "$p"
		patches+=("$p")
	done
done
# By kernel, so that a file is not compiled for one and then the other.
mapfile -t patches < <(for p in "${patches[@]}"; do
	echo "$(kernel_of "$p") $p"
done | sort -u | cut -d' ' -f2-)

"$TOP/scripts/tree.sh"
"$TOP/scripts/selftests.sh" all
trap end_jobs EXIT
declare -A good
say "the tests without a fault"
prove_tests
say "${#patches[@]} mutants"
for p in "${patches[@]}"; do
	try_mutant "$p"
done
wait
trap - EXIT
rm -f "$work"/image-*

caught=$(count caught) survived=$(count SURVIVED)
broken=$((${#patches[@]} - caught - survived))
echo "$caught caught, $survived survived, $broken failed"
echo "$caught passed, $((survived + broken)) failed, 0 skipped"
[ "$caught" = "${#patches[@]}" ]
