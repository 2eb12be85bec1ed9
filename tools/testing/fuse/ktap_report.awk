#!/usr/bin/awk -f
# SPDX-License-Identifier: GPL-2.0
#
# Judges the KTAP log of a kselftest run: what was skipped and what failed, and
# last a line that counts. Single tests count, not programs: the ones inside a
# program if it reports any. A program that fails although its tests passed (a
# crash, a timeout) and a test that was planned but never reported are failures
# too.
#
# -v junit=FILE	writes a JUnit file too
# -v skips=FILE	and a list of the skipped tests by reason, and of the variants that
#			programs left out: these are no tests, and do not count
# -v results=FILE	and a line for each test: pass, xfail, skip or fail, PROGRAM, NAME
#			and why, with tabs between them; or out and a VARIANT
# -v times=FILE	has a time stamp in seconds for each line of the log
# -v faults=FILE	has a line for each failure that the log cannot show
# -v known=FILE		has "PROGRAM TEST" for each test, of whatever fixture and
#			variant, that shows a fault which this kernel is known to
#			have: its failure is as good as a pass, and told apart
#
# Debian has consumers of TAP (perl's prove, python3-subunit), but none for what
# kselftest makes of it, a log in a log with the results of the harness as comments
# of the outer one; the kernel's own kunit.py judges KUnit's dialect alone.

function result(kind, prog, name, text, seconds)
{
	kinds[++n] = kind
	progs[n] = prog
	names[n] = name
	texts[n] = text
	seconds_of[n] = seconds
	count[kind]++
	if (!((prog, "") in of)) {
		of[prog, ""] = 1
		order[++nr_progs] = prog
	}
	of[prog, kind]++
	of[prog, "all"]++
	of[prog, "time"] += seconds
}

function fail(prog, name, text, seconds)
{
	result("fail", prog, name, text, seconds)
}

# Is it a fault that this kernel has? The name is FIXTURE.VARIANT.TEST.
function is_known(prog, name)
{
	sub(/.*\./, "", name)
	return (prog, name) in known_fault
}

function skip(prog, name, line, seconds,	why)
{
	why = line
	sub(/.*# SKIP[ \t]*/, "", why)
	if (why == "")
		why = "no reason given"
	result("skip", prog, name, why, seconds)
	if (!(why in skipped_for))
		reason[++nr_reasons] = why
	skipped_for[why]++
	skipped[why] = skipped[why] (skipped[why] ? "\n" : "") n
}

# What a program says that it leaves out: why, and which variants
function leave_out(why, variants,	some, list, i)
{
	if (!(why in out_for))
		out_reason[++nr_out_reasons] = why
	out_for[why]++
	out[why] = out[why] "    " prog ": " variants "\n"
	some = split(variants, list, " ")
	for (i = 1; i <= some; i++)
		out_results = out_results "out\t" prog "\t" list[i] "\t" why "\n"
}

# Seconds since the last result or the start of the test
function elapsed(	begin)
{
	begin = begun
	begun = now
	return now > begin ? now - begin : 0
}

function planned_but_not_reported(text,	i)
{
	for (i = inner; i < planned; i++)
		fail(prog, "planned but not reported" text, diagnostics, 0)
}

function end_program()
{
	programs++
	prog = ""
	diagnostics = ""
}

# "ok 3 - name # SKIP reason", or without the dash
function test_name(first)
{
	return $first == "-" ? $(first + 1) : $first
}

BEGIN {
	while (known && (getline line <known) > 0) {
		split(line, word, " ")
		known_fault[word[1], word[2]] = 1
	}
}

{
	sub(/\r$/, "")
	if (times && (getline stamp <times) > 0)
		now = stamp + 0
}

function never_finished()
{
	fail(prog, "never finished", diagnostics, elapsed())
}

/^# selftests: / {
	if (prog != "")
		never_finished()
	prog = $NF
	inner = planned = bad = nothing = 0
	because = ""
	diagnostics = ""
	begun = now
	next
}

/^# 1\.\.[0-9]+/ {
	split($2, plan, /\.\./)
	planned = plan[2] + 0
	nothing = !planned
	if (nothing && /# SKIP/)
		because = $0
	next
}

/^# ok [0-9]+/ {
	inner++
	if (/# SKIP/)
		skip(prog, test_name(4), $0, elapsed())
	else
		result("pass", prog, test_name(4), "", elapsed())
	diagnostics = ""
	next
}

/^# not ok [0-9]+/ {
	inner++
	if (/# XFAIL/) {
		result("pass", prog, test_name(5), "", elapsed())
	} else if (is_known(prog, test_name(5))) {
		bad++
		result("pass", prog, test_name(5), "", elapsed())
		expected[++nr_expected] = prog ": " test_name(5)
		xfailed[n] = diagnostics
	} else {
		bad++
		fail(prog, test_name(5), diagnostics, elapsed())
	}
	diagnostics = ""
	next
}

/^ok [0-9]+ selftests: / {
	if (inner < planned)
		planned_but_not_reported("")
	if (!inner) {
		if (/# SKIP/)
			skip(prog, prog, because ? because : $0, elapsed())
		else if (nothing)
			skip(prog, prog, "no test was selected", elapsed())
		else if (/# XFAIL/)
			# A shell that cannot start it has the same status.
			fail(prog, "nothing reported", diagnostics, elapsed())
		else
			result("pass", prog, prog, "", elapsed())
	}
	end_program()
	next
}

/^not ok [0-9]+ selftests: / {
	why = $0
	sub(/^[^#]*# */, "", why)
	if (inner < planned && inner)
		planned_but_not_reported(" (" why ")")
	else if (!bad)
		fail(prog, why, diagnostics, elapsed())
	end_program()
	next
}

# What the harness says about the test that runs
/^# #  RUN / {
	begun = now
	diagnostics = ""
	next
}

/^# # +(OK|FAIL|SKIP) / {
	next
}

prog && /^# # not run, .+: / {
	line = $0
	sub(/^# # not run, /, "", line)
	match(line, /: [^:]*$/)
	leave_out(substr(line, 1, RSTART - 1), substr(line, RSTART + 2))
	next
}

prog {
	line = $0
	sub(/^# (# )?/, "", line)
	diagnostics = diagnostics line "\n"
}

# Bytes that XML cannot hold in any form become question marks.
function xml(text)
{
	gsub(/[\001-\010\013\014\016-\037\177-\377]/, "?", text)
	gsub(/&/, "\\&amp;", text)
	gsub(/</, "\\&lt;", text)
	gsub(/>/, "\\&gt;", text)
	return text
}

# Line ends would become spaces there.
function attribute(name, text)
{
	text = xml(text)
	gsub(/"/, "\\&quot;", text)
	gsub(/\n/, "\\&#10;", text)
	gsub(/\t/, "\\&#9;", text)
	return " " name "=\"" text "\""
}

function time_of(seconds)
{
	return times ? sprintf(" time=\"%.3f\"", seconds) : ""
}

function counts(all, failures, skips)
{
	return sprintf(" tests=\"%d\" failures=\"%d\" skipped=\"%d\"",
		       all, failures, skips)
}

function write_case(i,	message)
{
	printf "    <testcase%s%s%s", attribute("classname", "fuse." progs[i]),
		attribute("name", names[i]), time_of(seconds_of[i]) >junit
	if (kinds[i] == "pass") {
		print "/>" >junit
	} else if (kinds[i] == "skip") {
		print "><skipped" attribute("message", texts[i]) "/></testcase>" >junit
	} else {
		message = texts[i]
		sub(/\n.*/, "", message)
		print "><failure" attribute("message", message ? message : names[i]) ">" \
			xml(texts[i]) "</failure></testcase>" >junit
	}
}

function write_junit(	p, i, all)
{
	for (p = 1; p <= nr_progs; p++)
		all += of[order[p], "time"]
	print "<?xml version=\"1.0\" encoding=\"UTF-8\"?>" >junit
	print "<testsuites name=\"fuse\"" \
		counts(n, count["fail"], count["skip"]) time_of(all) ">" >junit
	for (p = 1; p <= nr_progs; p++) {
		print "  <testsuite" attribute("name", order[p]) \
			counts(of[order[p], "all"], of[order[p], "fail"],
			       of[order[p], "skip"]) \
			time_of(of[order[p], "time"]) ">" >junit
		for (i = 1; i <= n; i++)
			if (progs[i] == order[p])
				write_case(i)
		print "  </testsuite>" >junit
	}
	print "</testsuites>" >junit
	close(junit)
}

function write_skips(	r, i, some, list)
{
	printf "" >skips
	for (r = 1; r <= nr_reasons; r++) {
		printf "%d skipped: %s\n", skipped_for[reason[r]], reason[r] >skips
		some = split(skipped[reason[r]], list, "\n")
		for (i = 1; i <= some; i++)
			printf "    %s: %s\n", progs[list[i]], names[list[i]] >skips
	}
	for (r = 1; r <= nr_out_reasons; r++)
		printf "not run: %s\n%s", out_reason[r], out[out_reason[r]] >skips
	close(skips)
}

function write_results(	i, kind, why)
{
	printf "" >results
	for (i = 1; i <= n; i++) {
		kind = i in xfailed ? "xfail" : kinds[i]
		why = i in xfailed ? xfailed[i] : texts[i]
		sub(/\n+$/, "", why)
		gsub(/[\n\t]/, " ", why)
		printf "%s\t%s\t%s\t%s\n", kind, progs[i], names[i], why >results
	}
	printf "%s", out_results >results
	close(results)
}

END {
	if (prog != "")
		never_finished()
	if (!programs)
		fail("run", "no test program reported a result", "", 0)
	while (faults && (getline line <faults) > 0)
		fail("run", line, "", 0)
	for (i = 1; i <= nr_reasons; i++) {
		some = split(skipped[reason[i]], list, "\n")
		line = names[list[1]]
		# All of them are in the list of skips, and may be hundreds.
		for (j = 2; j <= some && j <= 3; j++)
			line = line ", " names[list[j]]
		if (some > 3)
			line = line sprintf(" and %d more", some - 3)
		printf "skipped: %s (%s)\n", line, reason[i]
	}
	for (i = 1; i <= nr_out_reasons; i++)
		printf "not run: variants in %d programs (%s)\n",
			out_for[out_reason[i]], out_reason[i]
	for (i = 1; i <= nr_expected; i++)
		printf "known fault: %s\n", expected[i]
	for (i = 1; i <= n; i++)
		if (kinds[i] == "fail")
			printf "FAILED: %s: %s\n", progs[i], names[i]
	printf "%d passed, %d failed, %d skipped\n",
		count["pass"], count["fail"], count["skip"]
	if (junit)
		write_junit()
	if (skips)
		write_skips()
	if (results)
		write_results()
	exit count["fail"] > 0
}
