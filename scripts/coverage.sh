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
export FUSE_SLOW_TESTS=1
"$TOP/$SELFTESTS/vmtest.sh" -e "$engine" -k "$image" -S "$LINUX" -O "$BUILD/selftests" \
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

# A line of gcov is "count:number:text", "#####" for a count of none and "-" for
# nothing to count; the header of each file says where it is.
awk -v least="$least" -v new_files="$(cd "$TOP" && echo fs/fuse/*.[ch])" -F: '
	FILENAME == ARGV[1] {
		if ($0 != "" && !/^#/) {
			split($0, part, /[ \t]+## /)
			reason[part[1]] = part[2]
		}
		next
	}
	FNR == 1 { file = $4; sub(/.*\/fs\/fuse\//, "fs/fuse/", file) }
	file !~ /(^|\/)dev_uring[^\/]*$/ { next }
	{ count = $1; line = $2 + 0 }
	{ gsub(/[ *]/, "", count) }
	count == "-" || !line { next }
	{
		if (file !~ /^fs\/fuse\//)
			file = "fs/fuse/" file
		text = $0
		sub(/^[^:]*:[^:]*:/, "", text)
		gsub(/^[ \t]+|[ \t]+$/, "", text)
		key = file SUBSEP line
		if (!(key in source)) {
			source[key] = text
			last[file] = line > last[file] ? line : last[file]
		}
		hits[key] += count + 0
	}
	END {
		n = split(new_files, list, " ")
		for (i = 1; i <= n; i++)
			is_new[list[i]] = 1
		nr = 0
		for (file in last)
			order[++nr] = file
		for (i = 2; i <= nr; i++)
			for (j = i; j > 1 && order[j] < order[j - 1]; j--) {
				file = order[j]; order[j] = order[j - 1]; order[j - 1] = file
			}
		for (i = 1; i <= nr; i++) {
			file = order[i]
			all = reached = 0
			missed = ""
			for (line = 1; line <= last[file]; line++) {
				key = file SUBSEP line
				if (!(key in source))
					continue
				all++
				if (hits[key]) {
					reached++
					continue
				}
				why = reason[file ": " source[key]]
				if (why == "" && file in is_new) {
					why = "NO REASON"
					bad++
				}
				missed = missed sprintf("    %s:%d: %s\n", file, line, source[key])
				if (why != "")
					missed = missed "        " why "\n"
			}
			printf "%s: %d of %d lines, %.1f %%%s\n%s", file, reached, all,
				100 * reached / all, file in is_new ? "" : " (not a new file)", missed
			if (file in is_new) {
				new_all += all
				new_reached += reached
			}
		}
		if (!new_all) {
			print "no line of a new file was counted"
			exit 1
		}
		printf "new files: %d of %d lines, %.1f %%, %d lines without a reason\n",
			new_reached, new_all, 100 * new_reached / new_all, bad + 0
		exit bad || 100 * new_reached < least * new_all
	}' "$reasons" "$out"/dev_uring*/*.gcov >"$out/report" && rc=0 || rc=$?
cat "$out/report"
exit "$rc"
