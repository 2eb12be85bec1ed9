#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# repeat.sh: the whole suite, again and again. It must pass each time, with as
# many passes and skips as the first time.
#
#   RUNS=N            how often (default: 200, or 20 in qemu)
#   ENGINE, DEBUG     the kernel, see kernel.sh
#
# A line for each run is in build/reports/repeat-KERNEL/log, and what one that
# did not pass left in run-N beside it. As many run as there are processors: User
# Mode Linux uses one, and qemu a quarter more than one.

. "$(dirname "$0")/lib.sh" || exit 1

engine=${ENGINE:-uml}
"$TOP/scripts/deps.sh" run
"$TOP/scripts/tree.sh"
image=$("$TOP/scripts/kernel.sh")
"$TOP/scripts/selftests.sh" all
case $engine in
uml)	runs=${RUNS:-200} lanes=$JOBS place=on_free_cpu limit=900 ;;
*)	runs=${RUNS:-20} lanes=$JOBS place="env" limit=3000 ;;
esac
# Where kernel.sh builds it is what kernel it is.
name=${image#"$BUILD"/}
out=$REPORTS/repeat-${name%%/*}
rm -rf "$out"
mkdir -p "$out"

# one N: a run, and its line in the log
one()
{
	local report=$out/run-$1 begin=$SECONDS counts rc=0

	FUSE_DANGEROUS_TESTS=1 "$place" "$WORKSHOP/vm.sh" -e "$engine" -k "$image" -S "$LINUX" \
		-O "$BUILD/selftests" -r "$report" -m 2G -t "$limit" \
		>"$out/run-$1.log" 2>&1 </dev/null || rc=$?
	counts=$(tail -n 1 "$out/run-$1.log")
	echo "$counts" | grep -qE '^[1-9][0-9]* passed, 0 failed' || rc=1
	echo "run $1: $([ $rc = 0 ] && echo ok || echo FAIL): $counts ($((SECONDS - begin)) s)" |
		tee -a "$out/log"
	[ $rc != 0 ] || rm -rf "$report" "$out/run-$1.log"
}

say "$runs runs on $name"
for ((n = 1; n <= runs; n++)); do
	wait_for_room "$lanes"
	one "$n" &
done
wait

# Whatever is not the same as most of the time counts as a failure.
usual=$(sed -n 's/.*: ok: \(.*\) (.*/\1/p' "$out/log" | sort | uniq -c | sort -rn | sed -n '1s/^ *[0-9]* //p')
passed=$(grep -cF ": ok: $usual (" "$out/log" || :)
grep -vF ": ok: $usual (" "$out/log" || :
echo "each of them: $usual"
echo "$passed passed, $((runs - passed)) failed, 0 skipped"
[ "$passed" = "$runs" ]
