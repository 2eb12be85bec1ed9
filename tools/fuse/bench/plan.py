#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
"""What the benchmark measures, how often, and what it should find.

plan.py FILE quick|full [WORD...] writes the plan to FILE, as JSON, and prints
what of it concerns scripts/bench.sh. The words choose a part of it:
operations, block sizes, direct or buffered, numbers of jobs, file systems, or
'data', 'metadata', 'memory' and 'instructions'.
"""
import itertools
import json
import os
import sys

BASE = "legacy"
NATIVE = ["tmpfs", "ext4"]
# File systems that passthrough_ring serves, and the mode it is told.
RINGS = {
    "classic": "off",
    "legacy": "legacy",
    "pooled": "pooled",
    "pinned": "pinned",
    "zero-copy": "zero-copy",
}
SYSTEMS = NATIVE + list(RINGS)
POOLED = ["pooled", "pinned", "zero-copy"]

OPS = ["randread", "read", "randwrite", "write"]
SIZES = ["4k", "128k", "1m"]
ACCESS = ["direct", "buffered"]
JOBS = ["1", "4"]
METADATA = ["stat", "open", "create", "readdir"]
COUNTED = ["randread", "getattr", "open"]
PARTS = ["data", "metadata", "memory", "instructions"]

KINDS = {
    "full": {"rounds": 9, "runtime_ms": 300, "files": 10000, "count": 3000},
    "quick": {"rounds": 3, "runtime_ms": 150, "files": 2000, "count": 1000},
}
# Cells of the quick run: enough to see each target that is about time.
QUICK = [
    "randread 1m direct 1", "read 1m direct 1", "randwrite 1m direct 1",
    "randread 1m buffered 1", "read 1m buffered 1",
    "randread 128k direct 1", "randread 4k direct 1", "randread 4k direct 4",
]

# title, cells, base, {system: least ratio}. None: any.
TARGETS = [
    ("1 MiB direct", (["randread", "read", "randwrite"], ["1m"], ["direct"], ["1"]),
     BASE, {"pooled": 1.00, "pinned": 1.15, "zero-copy": 1.50}),
    ("1 MiB buffered", (["randread", "read", "randwrite"], ["1m"], ["buffered"], ["1"]),
     BASE, {"pinned": 1.10, "zero-copy": 1.10}),
    ("128 KiB", (OPS, ["128k"], ACCESS, ["1"]),
     BASE, {"pooled": 1.00, "pinned": 1.00, "zero-copy": 1.00}),
    ("4 KiB", (OPS, ["4k"], ACCESS, ["1"]),
     BASE, {"pooled": 1.00, "pinned": 1.00, "zero-copy": 0.97}),
    ("4 readers, against classic", (["randread", "read"], SIZES, ACCESS, ["4"]),
     "classic", {"legacy": 1.00, "pooled": 1.00, "pinned": 1.00, "zero-copy": 1.00}),
]
# operation of ring_bench, {mode: most instructions, as a ratio to entries}; what the
# kernel has not got is left out
COUNTED_BASE = "entries"
INSTRUCTION_TARGETS = [
    ("randread", {"bufring": 0.97, "pinned": 0.97}),
    ("getattr", {"bufring": 1.00, "pinned": 1.00}),
    ("open", {"bufring": 1.00, "pinned": 1.00}),
]


def cell_name(op, bs, access, jobs):
    return f"{op} {bs} {access} {jobs}"


def choose(words, names):
    """The names that were said, or all of them if none was."""
    return [name for name in names if name in words] or list(names)


def parts(words):
    """What is about data is asked for by any word about data, and so on."""
    data_words = set(SIZES + ACCESS + JOBS + ["write", "read", "randread", "randwrite"])
    asked = [part for part in PARTS if part in words]
    if "data" not in asked and data_words & set(words):
        asked.append("data")
    if "metadata" not in asked and set(METADATA) & set(words):
        asked.append("metadata")
    return asked or PARTS


def make(kind, words):
    known = OPS + SIZES + ACCESS + JOBS + METADATA + PARTS + SYSTEMS
    for word in words:
        if word not in known:
            sys.exit(f"plan.py: error: '{word}' in BENCH_FILTER is none of: {' '.join(known)}")
    plan = dict(KINDS[kind], kind=kind, filter=" ".join(words), parts=parts(words))
    rounds = os.environ.get("ROUNDS") or str(plan["rounds"])
    if not rounds.isdecimal() or int(rounds) < 1:
        sys.exit(f"plan.py: error: ROUNDS={rounds}: a number from 1 on")
    plan["rounds"] = int(rounds)
    # Whatever is compared is compared with the base.
    chosen = choose(words, SYSTEMS)
    plan["systems"] = [s for s in SYSTEMS if s in chosen or s == BASE]
    cells = [cell_name(*c) for c in itertools.product(
        choose(words, OPS), choose(words, SIZES), choose(words, ACCESS), choose(words, JOBS))]
    if kind == "quick" and not words:
        cells = QUICK
    plan["cells"] = cells if "data" in plan["parts"] else []
    plan["metadata"] = choose(words, METADATA) if "metadata" in plan["parts"] else []
    plan["server_options"] = os.environ.get("BENCH_SERVER", "")
    return plan


def main():
    if len(sys.argv) < 3 or sys.argv[2] not in KINDS:
        sys.exit("plan.py: error: BENCH has to be one of: " + " ".join(KINDS))
    plan = make(sys.argv[2], " ".join(sys.argv[3:]).lower().split())
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(plan, file, indent=1)
    timed = plan["cells"] or plan["metadata"] or "memory" in plan["parts"]
    counted = "instructions" in plan["parts"]
    print(f"rounds={plan['rounds']} count={plan['count']}",
          f"timed={'y' if timed else ''} counted={'y' if counted else ''}")


if __name__ == "__main__":
    main()
