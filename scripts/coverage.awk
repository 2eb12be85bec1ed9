#!/usr/bin/awk -f
# SPDX-License-Identifier: GPL-2.0
#
# Makes the report of coverage.sh: awk -F: -f coverage.awk REASONS GCOV...
#
# A line of gcov is "count:number:text", with "#####" for a count of none and "-"
# where there is nothing to count; the first one says which file it is.
#
# -v new_files="FILE..."	those that have to be covered
# -v least=PERCENT		how much of their lines

# A reason is "FILE: TEXT ## REASON".
FILENAME == ARGV[1] {
	if ($0 != "" && !/^#/) {
		split($0, part, /[ \t]+## /)
		reason[part[1]] = part[2]
	}
	next
}

FNR == 1 {
	file = $4
	sub(/.*fs\/fuse\//, "", file)
	file = "fs/fuse/" file
}

file !~ /^fs\/fuse\/dev_uring[^\/]*$/ || $1 ~ /-$/ || !($2 + 0) {
	next
}

{
	key = file SUBSEP ($2 + 0)
	text = $0
	sub(/^[^:]*:[^:]*:[ \t]*/, "", text)
	sub(/[ \t]+$/, "", text)
	source[key] = text
	hits[key] += $1
	if ($2 > last[file])
		last[file] = $2 + 0
}

# The lines of a file that were not reached, with the reasons
function missed(file,	line, key, lines, why)
{
	all = reached = 0
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
			without_reason++
		}
		lines = lines sprintf("    %s:%d: %s\n", file, line, source[key])
		if (why != "")
			lines = lines "        " why "\n"
	}
	return lines
}

END {
	n = split(new_files, list, " ")
	for (i = 1; i <= n; i++)
		is_new[list[i]] = 1
	for (file in last) {
		lines = missed(file)
		printf "%s: %d of %d lines, %.1f %%%s\n%s", file, reached, all,
			100 * reached / all, file in is_new ? "" : " (not a new file)", lines
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
		new_reached, new_all, 100 * new_reached / new_all, without_reason + 0
	exit without_reason || 100 * new_reached < least * new_all
}
