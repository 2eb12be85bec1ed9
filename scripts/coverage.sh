#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# coverage.sh: which lines that the series adds to the kernel, or changes, the
# selftests reach. The whole suite runs on a kernel that counts; gcovr reads the
# counts, and diff-cover looks at the lines of the series alone. Those that no
# test can reach here are in scripts/coverage.reasons.
#
#   COVERAGE_LEAST=95   least percentage of the others
#   ENGINE=qemu         two processors, instead of User Mode Linux
#
# Fails if tests fail or less is reached. build/reports/coverage has the lines
# that were not: in report.html among the rest of their files, too.

. "$(dirname "$0")/lib.sh" || exit 1

least=${COVERAGE_LEAST:-95}
engine=${ENGINE:-uml}
out=$REPORTS/coverage
objects=$BUILD/$engine-coverage

"$TOP/scripts/deps.sh" coverage
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

# Beside what the compiler has left for them
find "$objects" -name '*.gcda' -delete
[ -d "$out/gcov$objects" ] || die "the kernel counted nothing"
cp -r "$out/gcov$objects/." "$objects/"

# A line with one of these in it does not count.
unreachable=$(sed -n 's/[[:space:]]*## .*//p' "$TOP/scripts/coverage.reasons" |
	sed 's/[][\\.*^$+?(){}|]/\\&/g' | paste -sd '|')
gcovr --root "$LINUX" --object-directory "$objects" \
	--exclude-lines-by-pattern ".*(${unreachable:-nothing at all})" \
	--cobertura "$out/coverage.xml" "$objects/fs/fuse" "$objects/io_uring" \
	>"$out/gcovr.log" 2>&1 || die "gcovr failed: see ${out#"$TOP"/}/gcovr.log"
find "$objects" -name '*.gcda' -delete
cd "$LINUX"
diff-cover "$out/coverage.xml" --compare-branch base --diff-range-notation .. \
	--html-report "$out/report.html" --fail-under "$least" --show-uncovered \
	>"$out/report" && rc=0 || rc=$?
cat "$out/report"
exit "$rc"
