#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# coverage.sh: which lines of the kernel's new files the selftests reach. The
# whole suite runs on a kernel that counts; every line that no test reached is
# listed with the reason that scripts/coverage.reasons has for it.
#
#   COVERAGE_LEAST=95   least percentage of the lines of the new files
#   ENGINE=qemu         two processors, instead of User Mode Linux
#
# Fails if tests fail, if less is reached, or if a line of a new file that was
# not reached has no reason. The report is in build/reports/coverage.

. "$(dirname "$0")/lib.sh" || exit 1

least=${COVERAGE_LEAST:-95}
engine=${ENGINE:-uml}
out=$REPORTS/coverage
objects=$BUILD/$engine-coverage/fs/fuse
reasons=$TOP/scripts/coverage.reasons

"$TOP/scripts/deps.sh" run
"$TOP/scripts/tree.sh"
image=$(DEBUG=coverage "$TOP/scripts/kernel.sh")
"$TOP/scripts/selftests.sh" all
rm -rf "$out"
mkdir -p "$out"
say "the selftests on a kernel that counts"
export FUSE_SLOW_TESTS=1 FUSE_DANGEROUS_TESTS=1
"$WORKSHOP/vm.sh" -e "$engine" -k "$image" -S "$LINUX" -O "$BUILD/selftests" \
	-r "$out" -m 2G -t 2400 >"$out/log" 2>&1 </dev/null || {
	tail -n 20 "$out/log" >&2
	die "the tests failed: see ${out#"$TOP"/}/log"
}

# One directory for each object, as each has its own view of the headers.
for object in "$objects"/dev_uring*.gcno; do
	name=$(basename "$object" .gcno)
	[ -s "$out/$name.gcda" ] || die "the kernel counted nothing for $name.c"
	mkdir -p "$out/$name"
	cp "$object" "$out/$name.gcda" "$out/$name/"
	(cd "$out/$name" && gcov -s "$LINUX" -r "$name.gcda" >gcov.log 2>&1) ||
		die "gcov failed: see ${out#"$TOP"/}/$name/gcov.log"
done

awk -v least="$least" -v new_files="$(cd "$TOP" && echo fs/fuse/*.[ch])" -F: \
	-f "$TOP/scripts/coverage.awk" "$reasons" "$out"/dev_uring*/*.gcov \
	>"$out/report" && rc=0 || rc=$?
cat "$out/report"
exit "$rc"
