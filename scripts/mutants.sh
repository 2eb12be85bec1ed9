#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# mutants.sh [NAME...]: shows that the selftests find the faults they look for.
# Each patch in tools/testing/fuse/mutants/PART puts one fault into the code of
# that part of the series; the program that it names must fail on a kernel with
# that fault, and pass on one without. A header says so:
#
#   Caught-by: PROGRAM [-t TEST...]
#   Kernel: uml|uml-debug|qemu|qemu-debug|qemu-module	(uml if it says nothing)
#
# Only those of the PARTS at hand can be tried. That a test finds what a fix
# mends needs no mutant: fixes.sh takes the fix away.
#
# One line for each: caught, and by which test; SURVIVED, where no test noticed;
# FAILED, where nothing can be said: the patch does not apply, the kernel does
# not build, the test did not run or fails on a good kernel too. The logs are in
# build/reports/mutants.

. "$(dirname "$0")/lib.sh" || exit 1
. "$(dirname "$0")/trial.sh" || exit 1

mutants=$WORKSHOP/mutants

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
	known_program "${by%% *}" ||
		die "$name is to be caught by ${by%% *}, which is no test program"
	known_kernel "$(kernel_of "$1")" ||
		die "$name needs an unknown kernel: $(kernel_of "$1")"
}

# on_good_kernel KERNEL TEST NR: leaves its outcome in good-NR.
on_good_kernel()
{
	run "$1" "$work/image-$1" "$out/good-$3" "$2"
	[ "$(outcome "$out/good-$3")" = passed ] ||
		echo "FAILED   on the kernel without a fault: $2: $(reason "$out/good-$3")"
}

# on_mutant PATCH IMAGE: the run that decides.
on_mutant()
{
	local name by

	name=$(basename "$1" .patch)
	by=$(field Caught-by "$1")
	run "$(kernel_of "$1")" "$2" "$out/$name" "$by"
	case $(outcome "$out/$name") in
	failed)		tell "$name" caught " by $(reason "$out/$name")" ;;
	passed)		tell "$name" SURVIVED " $by: $(tail -n 1 "$out/$name/log")" ;;
	skipped)	tell "$name" SURVIVED " $by: everything was skipped" ;;
	*)		tell "$name" FAILED ": the test did not run: $(reason "$out/$name")" ;;
	esac
	rm -rf "$2" "$2.modules"
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
			check_out refs/fuse/applied
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
	if [ "$(outcome "$out/good-${good[$(run_key "$1")]}")" != passed ]; then
		tell "$name" FAILED ": $(field Caught-by "$1") does not pass without it"
		return
	fi
	check_out refs/fuse/applied
	if ! git -C "$tree" apply --whitespace=nowarn "$1" 2>"$out/$name.apply"; then
		tell "$name" FAILED ": does not apply: $(head -n 1 "$out/$name.apply")"
		return
	fi
	if ! build "$(kernel_of "$1")" "$image" "$out/$name.build"; then
		tell "$name" FAILED ": does not build: $(why_no_build "$out/$name.build")"
		return
	fi
	wait_for_room "$JOBS"
	on_mutant "$1" "$image" &
}

"$TOP/scripts/deps.sh" check
patches=()
for name in "${@:-*}"; do
	found=
	for part in $PARTS; do
		for p in "$mutants/$part"/$name.patch; do
			[ -f "$p" ] || continue
			check_header "$p"
			patches+=("$p")
			found=1
		done
	done
	[ -n "$found" ] || die "there is no mutant $name of the parts $PARTS"
done
# By kernel, so that a file is not compiled for one and then the other.
mapfile -t patches < <(for p in "${patches[@]}"; do
	echo "$(kernel_of "$p") $p"
done | sort -u | cut -d' ' -f2-)

"$TOP/scripts/tree.sh"
"$TOP/scripts/selftests.sh" all
trial mutants
declare -A good
say "the tests without a fault"
prove_tests
say "${#patches[@]} mutants"
for p in "${patches[@]}"; do
	try_mutant "$p"
done
wait

caught=$(count caught) survived=$(count SURVIVED)
broken=$((${#patches[@]} - caught - survived))
echo "$caught caught, $survived survived, $broken failed"
echo "$caught passed, $((survived + broken)) failed, 0 skipped"
[ "$caught" = "${#patches[@]}" ]
