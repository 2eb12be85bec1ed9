# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034	# the scripts that source it use them
#
# What mutants.sh and fixes.sh have in common: kernels that differ from
# build/linux in one thing, and what a test program says about each. Source it
# after lib.sh, then call trial NAME.
#
# Nothing of Debian's does this: tools that mutate C do so by patterns and for a
# program that runs on the host, not for a kernel, a fault of the author's choice
# and a machine that may not survive it.

# trial NAME: where everything goes. The tree lies beside its build directories,
# as build/linux does, so that the compiler cache serves both.
trial()
{
	work=$BUILD/$1
	tree=$work/linux
	out=$REPORTS/$1
	rm -rf "$out"
	mkdir -p "$out" "$work"
	rm -f "$work"/image-*
	# Each job in a process group of its own, so that it can be ended as a whole
	set -m
	trap end_jobs EXIT
}

end_jobs()
{
	local job

	for job in $(jobs -rp); do
		kill -- "-$job" 2>/dev/null || :
	done
	rm -rf "$work"/image-*
}

# known_kernel KIND
known_kernel()
{
	case $1 in
	uml|uml-debug|qemu|qemu-debug|qemu-module)	return 0 ;;
	*)						return 1 ;;
	esac
}

# known_program NAME: one that is built, or a script of the workshop
known_program()
{
	[ -x "$WORKSHOP/$1" ] || [ -f "$TOP/$SELFTESTS/$1.c" ] || [ -f "$WORKSHOP/$1.c" ]
}

# check_out COMMIT: to the tree. Only what differs from what was there before is
# touched, and so compiled.
check_out()
{
	if [ ! -e "$tree/.git" ]; then
		free_space "$BUILD" 6
		rm -rf "$tree"
		kgit worktree prune
		kgit worktree add -q --detach --force "$tree" base
	fi
	git -C "$tree" checkout -q --force --detach "$(kgit rev-parse "$1^0")"
}

# build KIND IMAGE LOG: what is in the tree, with its modules in IMAGE.modules
# where it has any.
build()
{
	local debug=0 built

	case $1 in
	*-debug)	debug=1 ;;
	*-module)	debug=module ;;
	esac
	built=$(ENGINE=${1%%-*} DEBUG=$debug WORKTREE=$tree \
		"$TOP/scripts/kernel.sh" 2>"$3") || return 1
	cp "$built" "$2"
	if [ $debug = module ]; then
		mkdir -p "$2.modules"
		cp "$work/$1"/fs/fuse/*.ko "$2.modules/"
	fi
}

# why_no_build LOG
why_no_build()
{
	grep -m 1 -E 'error: |undefined' "$1" || tail -n 1 "$1"
}

# run KIND IMAGE REPORT TEST: a program, and what vm.sh says goes to REPORT/log.
# The result is in REPORT/outcome: passed, failed, skipped if nothing else was
# done, or broken if the program was not even started, which proves nothing.
run()
{
	local limit=240 args='' place=on_free_cpu more=() outcome counts

	[[ $4 != *' '* ]] || args=${4#* }
	case $1 in
	uml-debug)	limit=480 ;;
	qemu*)		limit=1800 place="env" ;;
	esac
	[ ! -d "$2.modules" ] || more=(-M "$2.modules")
	mkdir -p "$3"
	FUSE_DANGEROUS_TESTS=1 FUSE_SLOW_TESTS=1 \
		"$place" "$WORKSHOP/vm.sh" -e "${1%%-*}" -k "$2" -S "$LINUX" \
		-O "$BUILD/selftests" -r "$3" -m 2G -t "${5:-$limit}" \
		-T "${4%% *}" -a "$args" "${more[@]}" >"$3/log" 2>&1 </dev/null || :
	counts=$(tail -n 1 "$3/log")
	case $counts in
	'0 passed, 0 failed, '*)		outcome=skipped ;;
	[1-9]*' passed, 0 failed, '*)	outcome=passed ;;
	*)					outcome=failed ;;
	esac
	grep -q '^# selftests: fuse: ' "$3/ktap.log" 2>/dev/null || outcome=broken
	echo $outcome >"$3/outcome"
}

outcome()
{
	cat "$1/outcome" 2>/dev/null || echo "not run"
}

# Why a run failed: the first test that did, and what the kernel had to say.
reason()
{
	local first complaint

	first=$(sed -n 's/^FAILED: //p' "$1/log" | head -n 1)
	complaint=$(sed 's/^[0-9]*://; s/^\[[^]]*\] *//; q' "$1/complaints" 2>/dev/null || :)
	echo "${first:-$(tail -n 1 "$1/log")}${complaint:+ ($complaint)}"
}

# tell NAME WORD REST: the line of a trial, for the terminal and the counts
tell()
{
	echo "$2" >"$out/$1.verdict"
	printf '%-8s %s\n' "$2" "$1$3"
}

count()
{
	{ grep -lx "$1" "$out"/*.verdict 2>/dev/null || :; } | wc -l
}
