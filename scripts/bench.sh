#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# bench.sh: the ways a request can travel against each other, of two kinds,
# since every machine lies in its own way:
#
# - User Mode Linux on one processor of a quiet host: time. fio and metadata
#   over passthrough_ring in each mode, and over what is native, in turns.
# - qemu that counts instructions: the same in every run, on any host. Also for
#   the kernel without the series, for what the legacy ring pays.
#
#   BENCH=quick|full    under 3 minutes, or all of it (default)
#   ROUNDS=N            how often each figure is taken
#   BENCH_FILTER="..."  only these, as in "randread 1m direct 1" or "metadata
#                       pinned"; bench/plan.py has the words
#   BENCH_SERVER="..."  more mount options for the server, as in "ring_depth=8"
#   COMPARE=/path       another User Mode Linux kernel, boot by boot with ours:
#                       takes twice as long
#
# The report is in build/reports/bench: report.html, .csv and .json.

. "$(dirname "$0")/lib.sh" || exit 1
need qemu-system-x86_64 fio python3 mkfs.ext4 gcc
export PYTHONDONTWRITEBYTECODE=1

programs=$TOP/tools/fuse
bench=$programs/bench
out=$REPORTS/bench
bin=$BUILD/fuse_ring
disk=$out/ext4.img
memory=3G

plan=$(mktemp)
trap 'rm -f "$plan" "$disk"' EXIT
# shellcheck disable=SC2086	# a list of words
settings=$(python3 "$bench/plan.py" "$plan" "${BENCH:-full}" ${BENCH_FILTER:-})
rounds='' count='' timed='' counted=''
eval "$settings"
if [ -n "${COMPARE:-}" ]; then
	[ -f "$COMPARE" ] || die "COMPARE=$COMPARE: there is no such file"
	COMPARE=$(realpath "$COMPARE")
	timeout 10 "$COMPARE" --version 2>/dev/null </dev/null | grep -qE '^[0-9]+[.][0-9]+' ||
		die "COMPARE=$COMPARE is no kernel of User Mode Linux"
	[ -n "$timed" ] || die "COMPARE is about time, but BENCH_FILTER leaves none of it"
fi
rm -rf "$out"
mkdir -p "$out"
cat "$plan" >"$out/plan.json"

# vm NAME IMAGE COMMAND [vm.sh option...]: the command in a guest, its output
# to NAME.log.
vm()
{
	local name=$1 image=$2 command=$3

	shift 3
	"$WORKSHOP/vm.sh" -k "$image" -S "$LINUX" -O "$TOP" \
		-r "$out/$name" -c "$command" "$@" 2>&1 |
		awk -v log_file="$out/$name.log" -v tty="$([ -t 2 ] && echo 1)" -v shown="$name" '
		{ print >> log_file; fflush(log_file) }
		/^progress / && tty { printf "\r    %s: %d of %d ", shown, $2, $3 > "/dev/stderr" }
		END { if (tty) printf "\r\033[K" > "/dev/stderr" }' && return
	grep -hE 'error: |^FAILED' "$out/$name.log" | head -n 5 >&2 || :
	die "the benchmark in the guest failed: see ${out#"$TOP"/}/$name.log"
}

# timed NAME IMAGE FIRST ROUNDS [--other]: rounds of the plan in one boot.
timed()
{
	rm -f "$disk"
	truncate -s 1G "$disk"
	mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$disk" >"$out/mkfs.log" 2>&1 ||
		die "mkfs.ext4 failed: $(tail -n 1 "$out/mkfs.log")"
	vm "$1" "$2" "python3 $bench/guest.py $out/plan.json /run/report/results.jsonl \
			$3 $4 $bin ${5:-}" \
		-e uml -m "$memory" -t 3600 -p "ubd0=$disk"
	rm -f "$disk"
}

# counted NAME IMAGE MODES: lines of ring_bench, each the instructions of an
# operation.
counted()
{
	local ring_bench=$BUILD/selftests/workshop/ring_bench

	vm "$1" "$2" "for m in $3; do for op in 'randread --bs 4K --direct' getattr open; do
		$ring_bench --mode \$m --op \$op --count $count --pool 4K:8 --pool 1M:4 || [ \$? = 4 ] || exit
	done; done" -i -m 2G -t 1800
	grep '^mode=' "$out/$1.log" >"$out/$1.txt" ||
		die "ring_bench printed nothing: see ${out#"$TOP"/}/$1.log"
}

# busy: how many percent of the processors' time somebody used, in two seconds.
busy()
{
	{ head -n 1 /proc/stat; sleep 2; head -n 1 /proc/stat; } |
		awk '{
			for (i = 2; i <= 9; i++)
				all += NR == 1 ? -$i : $i
			idle += (NR == 1 ? -1 : 1) * ($5 + $6)
		}
		END { printf "%d", all ? 100 * (all - idle) / all : 0 }'
}

say "building what is needed"
make --no-print-directory -s -C "$programs" O="$bin" bench >"$out/library.log" 2>&1 || {
	tail -n 5 "$out/library.log" >&2
	die "the library does not build: see ${out#"$TOP"/}/library.log"
}
uml=$(ENGINE=uml "$TOP/scripts/kernel.sh")
if [ -n "$counted" ]; then
	qemu=$(ENGINE=qemu "$TOP/scripts/kernel.sh")
	[ "${BENCH:-full}" = quick ] || base=$(ENGINE=qemu BASE=1 "$TOP/scripts/kernel.sh")
	"$TOP/scripts/selftests.sh" all
fi

started=$SECONDS
before=$(busy)
if [ -n "$timed" ]; then
	say "time: $rounds rounds${COMPARE:+ of each kernel} (others use $before% of the processors)"
	if [ -n "${COMPARE:-}" ]; then
		for ((round = 0; round < rounds; round++)); do
			# Another one begins each time.
			((round % 2)) || timed time "$uml" "$round" 1
			timed other "$COMPARE" "$round" 1 --other
			((round % 2 == 0)) || timed time "$uml" "$round" 1
		done
	else
		timed time "$uml" 0 "$rounds"
	fi
fi
if [ -n "$counted" ]; then
	say "instructions"
	stock="entries bufpool bufpool-registered bufpool-zero-copy"
	counted instructions "$qemu" "$stock bufring pinned-headers pinned zero-copy"
	if [ -n "${base:-}" ]; then
		say "instructions, without the series"
		counted base "$base" "$stock"
	fi
fi

python3 "$bench/report.py" "$out" \
	kernel="$("$uml" --version </dev/null)" \
	image="$(sha256sum "$uml" | cut -c1-12)" \
	${COMPARE:+other="$COMPARE"} \
	commit="$(rgit describe --always --dirty 2>/dev/null || echo unknown)" \
	processor="$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)" \
	busy_before="$before%" busy_after="$(busy)%" \
	seconds="$((SECONDS - started))" || die "no report came out of it"
say "${out#"$TOP"/}/report.html, .csv and .json; $((SECONDS - started)) seconds"
