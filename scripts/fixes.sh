#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# fixes.sh [-q] [NAME...]: proves that each patch of patches/fixes mends the faults
# it is said to mend. The faults are files of tools/testing/fuse/known_faults, with
# lines of "Key: value":
#
#   Patch: NAME		in patches/fixes, without .patch
#   Mended: TEXT		in place of Patch: by which release of Linux
#   Fault: TEXT		what goes wrong, in one line
#   Harm: WORD		crash, corruption, leak, data loss, hang, WARN,
#			wrong error or log flood
#   Warns: FUNCTION...	where the kernel does, which inlining may change
#   Releases: A-B	of Linux, or A-now
#   Test: PROGRAM [-t TEST...]
#   Also: PROGRAM -t TEST...[; PROGRAM -t TEST...]
#			others that fail by it
#   Kernel: KIND	the plainest that shows it: uml, uml-debug, qemu,
#			qemu-debug or qemu-module
#   Race: yes		its test may miss it, so that a pass tells nothing
#   Dangerous: yes|no	may the test take an unfixed kernel down?
#   Untested: REASON	in place of Test, Kernel and Dangerous
#
# Each test has to fail on the kernel as released and on the series without this
# one fix (or up to it, where others build on it), and to pass on the released
# kernel with nothing but the fix and the patches that its message has as "Needs:
# SUBJECT". Where there are such, it has to fail with these alone, too.
#
# -q only looks at the released kernel in User Mode Linux, which is one kernel for
# all of them: that the tests pass on the whole series make check shows anyway.
# NAME is that of a file or a patch. fixes.sh --check only looks whether files and
# patches fit together and each patch applies to what it needs; fixes.sh --letter
# prints the table for the cover letter; fixes.sh --tests [RELEASE] what vm.sh -x
# takes for that release: which tests show a fault, and where the kernel warns;
# fixes.sh --dangerous RELEASE its faults whose tests may take a kernel down.
#
# The table is in build/reports/fixes/table, the logs are beside it.

. "$(dirname "$0")/lib.sh" || exit 1
. "$(dirname "$0")/trial.sh" || exit 1

faults=$WORKSHOP/known_faults
keys="Patch Mended Fault Harm Warns Releases Test Also Kernel Race Dangerous Untested"
harms="crash|corruption|leak|data loss|hang|WARN|wrong error|log flood"
short=72

# field KEY NAME: of a known fault
declare -A value
field()
{
	[ -z "${value[$2 $1]:-}" ] || echo "${value[$2 $1]}"
}

read_faults()
{
	local name key rest

	for name in $(names); do
		while IFS=: read -r key rest || [ -n "$key" ]; do
			value[$name $key]=${rest##[[:space:]]}
		done <"$faults/$name"
	done
}

# fix PATCH: its file
fix()
{
	echo "$TOP/patches/fixes/$1.patch"
}

subject()
{
	sed -n 's/^Subject: \[PATCH[^]]*\] //p; /^$/q' "$(fix "$1")"
}

# Of the part, in their order, without .patch
fixes()
{
	printf '%s\n' "${fixes[@]}"
}

names()
{
	(cd "$faults" && ls) 2>/dev/null
}

# Documentation mends no fault that a test could show.
changes_code()
{
	grep -qv '^Documentation/' < <(sed -n 's,^+++ b/,,p' "$(fix "$1")")
}

# needs PATCH: what has to be applied before it, in order
needs()
{
	local all=" " p q s

	# A patch comes after all it needs, so once from the last to the first.
	all=" $1 "
	while read -r p; do
		[[ $all == *" $p "* ]] || continue
		while read -r s; do
			q=${patch_of[$s]:-}
			[ -n "$q" ] || die "patches/fixes/$p.patch needs \"$s\", which is no fix"
			all="$all$q "
		done < <(sed -n '/^---$/q; s/^Needs: *//p' "$(fix "$p")")
	done < <(fixes | tac)
	while read -r p; do
		[ "$p" != "$1" ] || break
		[[ $all != *" $p "* ]] || echo "$p"
	done < <(fixes)
}

# apply PATCH...: to GIT_INDEX_FILE; fails, with git's words, where one does not.
apply()
{
	local p

	for p; do
		sed -n '/^diff --git /,$p' "$(fix "$p")" |
			kgit apply --cached --whitespace=nowarn - || return
	done
}

# applies PATCH...: to the released kernel, one after the other? Looks at the files
# that they change alone, which is quick.
applies()
{
	local index p rc=0

	index=$(mktemp -u)
	for p; do
		sed -n 's,^--- a/,,p' "$(fix "$p")"
	done | sort -u | xargs -r -d '\n' git -C "$LINUX" ls-tree base -- |
		GIT_INDEX_FILE=$index kgit update-index --add --index-info
	GIT_INDEX_FILE=$index apply "$@" || rc=1
	rm -f "$index"
	return $rc
}

# stack PATCH...: prints a commit of the released kernel with these.
stack()
{
	local index commit

	index=$(mktemp -u)
	commit=$(export GIT_INDEX_FILE=$index GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' \
			GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'
		kgit read-tree base && apply "$@" &&
			kgit commit-tree -p base -m "base and: $*" "$(kgit write-tree)")
	rm -f "$index"
	echo "$commit"
}

bad=0
complain()
{
	echo "FAILED: $*"
	bad=1
}

check_fault()
{
	local name=$1 n key test kernel

	while read -r n key; do
		[[ " $keys " == *" $key "* ]] || complain "$name: an unknown key: $key"
		[ "$n" = 1 ] || complain "$name: $key twice"
	done < <(sed 's/:.*//; /^$/d' "$faults/$name" | sort | uniq -c)
	if [ -n "$(field Mended "$name")" ]; then
		[ -z "$(field Patch "$name")" ] || complain "$name: a Patch, but Mended"
	else
		grep -qxF -e "$(field Patch "$name")" < <(fixes) ||
			complain "$name: Patch is none of patches/fixes/series"
	fi
	[ -n "$(field Fault "$name")" ] || complain "$name: no Fault"
	[ -n "$(field Releases "$name")" ] || complain "$name: no Releases"
	field Harm "$name" | grep -qxE "$harms" || complain "$name: Harm is none of $harms"
	test=$(field Test "$name") kernel=$(field Kernel "$name")
	if [ -z "$test" ]; then
		[ -n "$(field Untested "$name")" ] ||
			complain "$name: neither a Test nor why it is Untested"
		return
	fi
	[ -z "$(field Untested "$name")" ] || complain "$name: a Test, but Untested"
	known_program "${test%% *}" || complain "$name: ${test%% *} is no test program"
	known_kernel "$kernel" || complain "$name: an unknown Kernel: $kernel"
	while read -r test _; do
		known_program "$test" || complain "$name: ${test:-nothing} is no test program"
	done < <(field Also "$name" | tr ';' '\n')
	[ -z "$(field Race "$name")" ] || [ "$(field Race "$name")" = yes ] ||
		complain "$name: Race is yes, if anything"
	field Dangerous "$name" | grep -qxE 'yes|no' || complain "$name: Dangerous is yes or no"
}

check_patch()
{
	local p=$1 before

	! changes_code "$p" || grep -qxF -e "$p" < <(printf '%s\n' "${value[@]}") ||
		complain "patches/fixes/$p.patch: no file of known_faults is about it"
	mapfile -t before < <(needs "$p")
	applies "${before[@]}" "$p" ||
		complain "patches/fixes/$p.patch does not apply to the released kernel$(
			[ ${#before[@]} = 0 ] || printf ' with %s' "${before[*]}")"
}

check_all()
{
	local name p

	for name in $(names); do
		check_fault "$name"
	done
	for p in $(fixes); do
		check_patch "$p"
	done
	for p in "$TOP"/patches/fixes/*.patch; do
		p=$(basename "$p" .patch)
		grep -qxF -e "$p" < <(fixes) ||
			complain "patches/fixes/$p.patch is not in the series file"
	done
}

# The faults in the order of their patches
sorted()
{
	local p name

	for p in $(fixes); do
		for name in $(names); do
			[ "$(field Patch "$name")" != "$p" ] || echo "$name"
		done
	done
}

letter()
{
	local name last='' p n=0 text

	echo "What each of them mends, how a test shows it, and what the kernel as"
	echo "released does in that test. With the fix, and nothing else, it passes."
	for name in $(sorted); do
		p=$(field Patch "$name")
		if [ "$p" != "$last" ]; then
			n=$(fixes | grep -nxF -e "$p" | cut -d: -f1)
			printf '\n%2d. %s\n' "$n" "$(subject "$p")"
			last=$p
		fi
		field Fault "$name" | fold -s -w $((short - 4)) | sed 's/ *$//; s/^/    /'
		text=$(field Test "$name")
		if [ -n "$text" ]; then
			printf '      %-24s %s: %s; with the fix: passes\n' "${text%% *}" \
				"$(field Releases "$name")" "$(field Harm "$name")"
			[[ $text != *' '* ]] || tr ' ' '\n' <<<"${text#* }" |
				sed '/^-t$/d; s/^/        /'
		else
			printf '      %s: %s; no test:\n' \
				"$(field Releases "$name")" "$(field Harm "$name")"
			field Untested "$name" | fold -s -w $((short - 8)) |
				sed 's/ *$//; s/^/        /'
		fi
	done
}

# is_in RELEASE NAME: does that release of Linux have the fault?
is_in()
{
	local first last

	IFS=- read -r first last < <(field Releases "$2")
	[ "$last" != now ] || last=$1
	printf '%s\n' "$first" "$1" "$last" | sort -C -V
}

# For vm.sh -x
tests()
{
	local release=${1:-$KVER} name test program words

	for name in $(names); do
		is_in "$release" "$name" || continue
		while read -r program words; do
			# Without -t it is the whole program, and nothing that vm.sh can
			# tell apart.
			for test in $words; do
				[ "$test" = -t ] || echo "$program $test"
			done
		done < <({ field Test "$name" && field Also "$name"; } | tr ';' '\n')
		for words in $(field Warns "$name"); do
			echo "WARNING $words"
		done
	done
}

# dangerous RELEASE: faults of it whose tests may take a kernel down, and those
dangerous()
{
	local name

	for name in $(names); do
		[ "$(field Dangerous "$name")" != yes ] || [ -z "$(field Test "$name")" ] ||
			! is_in "$1" "$name" || echo "$name $(field Test "$name")"
	done
}

# The jobs: KIND SPEC COLUMN FAULT, those on the same kernel one after the other,
# and kernels that have most in common, too.
jobs_of()
{
	local name=$1 kind patch

	kind=$(field Kernel "$name") patch=$(field Patch "$name")
	echo "$kind 1 stock stock $name"
	[ -z "$quick" ] || return 0
	echo "$kind 3 without:$patch without $name"
	[ -z "$(needs "$patch")" ] || echo "$kind 2 needs:$patch needs $name"
	echo "$kind 2 alone:$patch alone $name"
}

# prepare SPEC: that kernel in the tree
prepare()
{
	local patch=${1#*:} before

	case $1 in
	stock)	check_out base ;;
	without:*)
		check_out refs/fuse/applied
		git -C "$tree" revert --no-commit "${commit_of[$patch]}" >/dev/null 2>&1 || {
			git -C "$tree" revert --abort 2>/dev/null || :
			check_out "${commit_of[$patch]}^"
		} ;;
	needs:*)
		mapfile -t before < <(needs "$patch")
		check_out "$(stack "${before[@]}")" ;;
	alone:*)
		mapfile -t before < <(needs "$patch")
		check_out "$(stack "${before[@]}" "$patch")" ;;
	esac
}

# make_kernel KIND SPEC IMAGE
make_kernel()
{
	local log

	log=$out/build-$1-${2//:/-}.log
	prepare "$2"
	build "$1" "$3" "$log" && return
	# Others call what it adds.
	[[ $2 == without:* ]] || return
	check_out "${commit_of[${2#*:}]}^"
	build "$1" "$3" "$log"
}

# word REPORT: what became of the test, for the table
word()
{
	case $(outcome "$1") in
	passed)		echo passes ;;
	skipped)	echo skips ;;
	failed)
		if grep -qs 'Kernel panic' "$1/complaints"; then
			echo panics
		elif grep -qE 'did not finish within|TIMEOUT' "$1/log"; then
			echo hangs
		elif [ -s "$1/complaints" ]; then
			echo complains
		elif [ -s "$1/kmemleak" ]; then
			echo leaks
		else
			echo fails
		fi ;;
	*)		outcome "$1" ;;
	esac
}

fails()
{
	case $1 in
	panics|hangs|complains|leaks|fails)	return 0 ;;
	*)					return 1 ;;
	esac
}

# one KIND IMAGE COLUMN FAULT
one()
{
	local report=$out/$4/$3 limit=''

	# Where it is to fail nobody needs to wait for all that hangs.
	[ "$3" = alone ] || [[ $1 != uml ]] || limit=120
	run "$1" "$2" "$report" "$(field Test "$4")" $limit
	if [ "$3" = alone ]; then
		[ "$(outcome "$report")" = passed ] ||
			echo "FAILED   $4: with the fix alone: $(reason "$report")"
	elif ! fails "$(word "$report")"; then
		echo "FAILED   $4: $3: $(word "$report"): $(reason "$report")"
	fi
	rm -rf "$2" "$2.modules"
}

# row FAULT: its line of the table, and whether it is as it has to be
row()
{
	local name=$1 stock without alone needs verdict=passed column

	for column in stock without alone needs; do
		printf -v "$column" %s -
		[ ! -d "$out/$name/$column" ] || printf -v "$column" %s "$(word "$out/$name/$column")"
	done
	fails "$stock" || verdict=FAILED
	[ -n "$quick" ] || { fails "$without" && [ "$alone" = passes ]; } || verdict=FAILED
	[ "$needs" = - ] || fails "$needs" || verdict=FAILED
	echo $verdict >"$out/$name.verdict"
	printf '%-8s %-34s %-9s %-9s %-9s %-9s %s\n' "$verdict" "$name" "$stock" "$without" \
		"$needs" "$alone" "$(field Test "$name") ($(field Kernel "$name"))"
}

table()
{
	local name

	printf '%-8s %-34s %-9s %-9s %-9s %-9s %s\n' "" fault stock without needs alone test
	for name in "${chosen[@]}"; do
		row "$name"
	done
	for name in "${untested[@]}"; do
		echo "untested $name: $(field Untested "$name")"
	done
	for name in "${left_out[@]}"; do
		echo "left out $name: $(field Test "$name") ($(field Kernel "$name"))"
	done
}

declare -A patch_of commit_of
mapfile -t fixes < <(PARTS=fixes series | sed 's,^fixes/,,; s/\.patch$//')
for p in "${fixes[@]}"; do
	patch_of[$(subject "$p")]=$p
done
read_faults

case ${1:-} in
--letter)	letter; exit ;;
--tests)	tests "${@:2}"; exit ;;
--dangerous)	dangerous "$2"; exit ;;
--check)	check_all; exit $bad ;;
esac
quick=
[ "${1:-}" != -q ] || { quick=1; shift; }

"$TOP/scripts/deps.sh" check
"$TOP/scripts/tree.sh"
mapfile -t all < <(sorted)
chosen=() untested=() left_out=()
for name in "${all[@]}"; do
	if [ $# -gt 0 ] && [[ " $* " != *" $name "* && " $* " != *" $(field Patch "$name") "* ]]; then
		continue
	elif [ -n "$(field Untested "$name")" ]; then
		untested+=("$name")
	elif [ -n "$quick" ] && [ "$(field Kernel "$name")" != uml ]; then
		left_out+=("$name")
	else
		chosen+=("$name")
	fi
done
if [ $# = 0 ]; then
	check_all
else
	for name in "${chosen[@]}"; do
		check_fault "$name"
		check_patch "$(field Patch "$name")"
	done
fi
[ $bad = 0 ] || die "files and patches do not fit together: see above"
for name; do
	grep -qxF -e "$name" < <(printf '%s\n' "${all[@]}" && fixes) ||
		die "there is no fault and no fix '$name'"
done
mapfile -t list < <(series)
mapfile -t commits < <(kgit rev-list --reverse base..refs/fuse/applied)
for n in "${!list[@]}"; do
	p=${list[n]#fixes/}
	[ "$p" = "${list[n]}" ] || commit_of[${p%.patch}]=${commits[n]}
done

"$TOP/scripts/selftests.sh" all
trial fixes
say "${#chosen[@]} faults"
last='' image='' ok=''
while read -r kind _ spec column name; do
	if [ "$kind $spec" != "$last" ]; then
		last="$kind $spec"
		rm -rf "$image" "$image.modules"
		image=$work/image-$kind-${spec//:/-} ok=
		! make_kernel "$kind" "$spec" "$image" || ok=1
	fi
	if [ -z "$ok" ]; then
		mkdir -p "$out/$name/$column"
		echo "no kernel" >"$out/$name/$column/outcome"
		echo "FAILED   $name: $column: does not build: $(why_no_build "$out/build-$kind-${spec//:/-}.log")"
		continue
	fi
	cp -al "$image" "$image.$name"
	[ ! -d "$image.modules" ] || cp -al "$image.modules" "$image.$name.modules"
	wait_for_room "$JOBS"
	one "$kind" "$image.$name" "$column" "$name" &
done < <(for name in "${chosen[@]}"; do jobs_of "$name"; done | sort)
wait

table >"$out/table"
echo
cat "$out/table"
passed=$(count passed)
echo "$passed passed, $((${#chosen[@]} - passed)) failed, $((${#untested[@]} + ${#left_out[@]})) skipped"
[ "$passed" = "${#chosen[@]}" ]
