#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# kunit.sh REPORT: fails unless the kernel's own parser of KTAP, kunit.py of
# build/linux, counts in the log of a run of the selftests what its summary says.

. "$(dirname "$0")/lib.sh" || exit 1

# kunit.py goes to the top of its tree.
report=$(realpath "$1")
# It exits with an error if a test failed, and needs no module but Python's own.
said=$(python3 "$LINUX/tools/testing/kunit/kunit.py" parse --summary \
	"$report/ktap.log") || :

# count WORD: of this state in its last line
count()
{
	local n

	n=$(sed -n "s/.*Testing complete.* tests: .*\<$1: \([0-9]*\).*/\1/p" <<<"$said" | tail -n 1)
	echo "${n:-0}"
}

# Known faults are passes to the summary only, and what went wrong beside the tests
# is a failure there.
known=$(grep -c '^known fault: ' "$report/summary" || :)
beside=$(grep -c . "$report/faults" 2>/dev/null || :)
failed=$(($(count failed) + $(count crashed) - known + ${beside:-0}))
theirs="$(($(count passed) + known)) passed, $failed failed"
theirs+=", $(count skipped) skipped"
ours=$(tail -n 1 "$report/summary")
if [ "$ours" != "$theirs" ] || [ "$(count errors)" != 0 ]; then
	echo "$said"
	die "${report#"$TOP"/}: $ours, but kunit.py counts $theirs and $(count errors) errors"
fi
