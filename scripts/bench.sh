#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# bench.sh: the modes against each other, in one run each of two kinds, since
# every machine lies in its own way:
#
# - User Mode Linux on one processor of a quiet host: time. The modes take
#   turns, ROUNDS times; medians and the spread.
# - qemu that counts instructions: the same in every run, on any host. Also for
#   the kernel without the series, for what the legacy ring pays.

. "$(dirname "$0")/lib.sh" || exit 1
need taskset qemu-system-x86_64

rounds=${ROUNDS:-7}
modes="legacy bufring pinned-headers pinned zero-copy"
bench=$BUILD/selftests/kselftest/fuse/ring_bench
out=$REPORTS/bench
mkdir -p "$out"

# guest NAME IMAGE COMMAND [vmtest option...]: what ring_bench prints there.
guest()
{
	local name=$1 image=$2 command=$3

	shift 3
	"$TOP/$SELFTESTS/vmtest.sh" -k "$image" -S "$LINUX" -O "$BUILD/selftests" \
		-r "$out/$name" -m 2G -t 1800 -c "$command" "$@" >"$out/$name.log" ||
		die "the benchmark in the guest failed: see ${out#"$TOP"/}/$name.log"
	grep '^mode=' "$out/$name.log" >"$out/$name.txt" ||
		die "the benchmark printed nothing: see ${out#"$TOP"/}/$name.log"
}

# table FIELD UNIT BETTER FILE: medians of FIELD for each mode and operation,
# as a ratio to legacy.
table()
{
	awk -v field="$1" -v unit="$2" '
	{
		for (i = 1; i <= NF; i++) {
			split($i, kv, "=")
			v[kv[1]] = kv[2]
		}
		what = v["op"] " " v["bs"] (v["direct"] ? " direct" : "")
		key = what SUBSEP v["mode"]
		if (!(key in n)) order[++keys] = key
		value[key, ++n[key]] = v[field]
	}
	function median(key,	i, j, t) {
		for (i = 2; i <= n[key]; i++)
			for (j = i; j > 1 && value[key, j] + 0 < value[key, j - 1] + 0; j--) {
				t = value[key, j]
				value[key, j] = value[key, j - 1]
				value[key, j - 1] = t
			}
		return value[key, int((n[key] + 1) / 2)]
	}
	END {
		for (i = 1; i <= keys; i++) {
			key = order[i]
			split(key, k, SUBSEP)
			m = median(key)
			if (k[2] == "legacy") base[k[1]] = m
			printf "%-24s %-15s %10.1f %s  %.3fx  (%.1f to %.1f, %d runs)\n",
				k[1], k[2], m, unit, m / base[k[1]],
				value[key, 1], value[key, n[key]], n[key]
		}
	}' "$3"
}

uml=$(ENGINE=uml "$TOP/scripts/kernel.sh")
qemu=$(ENGINE=qemu "$TOP/scripts/kernel.sh")
base=$(ENGINE=qemu BASE=1 "$TOP/scripts/kernel.sh")
"$TOP/scripts/selftests.sh" all

say "time, $rounds rounds"
taskset -p -c "$(($(nproc) - 1))" $$ >/dev/null
guest time "$uml" "for r in \$(seq $rounds); do for m in $modes; do
	$bench --mode \$m --op randread --bs 1M --count 3000 --direct
done; done"
echo "time in User Mode Linux on one processor:"
table mib_per_s MiB/s "$out/time.txt" | tee "$out/time.table"

counted="for m in $modes; do for op in 'randread --bs 4K --direct' getattr; do
	$bench --mode \$m --op \$op --count 3000 --pool 4K:8 --pool 1M:4
done; done"
say "instructions, with the series"
guest instructions "$qemu" "$counted" -i
echo "thousand instructions per request:"
table us_per_op k "$out/instructions.txt" | tee "$out/instructions.table"

say "instructions, without the series"
guest base "$base" "${counted/for m in $modes/for m in legacy}" -i
echo "the same without the series:"
table us_per_op k "$out/base.txt" | tee "$out/base.table"
