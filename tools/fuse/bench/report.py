#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
"""Makes the report of a benchmark: a table here, and report.csv, .json, .html.

report.py DIR [NAME=VALUE...]: DIR is where scripts/bench.sh put plan.json and
the results; the rest is written down about the machine.
"""
import csv
import json
import os
import statistics
import sys

import html_report
import plan as planned


def spread(values):
    """What is told about figures that were taken several times"""
    values = sorted(values)
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    else:
        low = high = values[0]
    return {"median": statistics.median(values), "q1": low, "q3": high,
            "min": values[0], "max": values[-1], "runs": len(values)}


class Results:
    """What the guests recorded, by kernel"""

    def __init__(self, path):
        self.values = {}    # (kind, item, system): {round: value}
        self.mib = {}
        self.servers = {}
        self.memory = []
        self.missing = {}
        ends = 0
        with open(path, encoding="utf-8") as file:
            for line in file:
                entry = json.loads(line)
                ends += {"guest": -1, "end": 1}.get(entry["kind"], 0)
                self.add(entry)
        if ends:
            sys.exit(f"report.py: error: a guest did not come to its end: {path}")

    def add(self, entry):
        kind = entry["kind"]
        if kind == "data":
            self.put("data", entry["cell"], entry, entry["mib_per_s"])
        elif kind == "metadata":
            self.put("metadata", entry["op"], entry, entry["per_s"])
        elif kind == "memory":
            self.memory.append(entry)
        elif kind == "server":
            self.servers[entry["system"]] = entry
        elif kind == "missing":
            self.missing[entry["system"]] = entry["why"]
        elif kind == "guest":
            self.release = entry["release"]

    def put(self, kind, item, entry, value):
        rounds = self.values.setdefault((kind, item, entry["system"]), {})
        if entry["round"] in rounds:
            sys.exit(f"report.py: error: two figures for one round: {entry}")
        rounds[entry["round"]] = value

    def get(self, kind, item, system):
        return self.values.get((kind, item, system), {})


def ratios(values, base):
    """Of figures of the same round: what slows a round down slows both."""
    common = sorted(set(values) & set(base))
    return spread([values[r] / base[r] for r in common]) if common else None


def summarize(plan, ours, other):
    rows = []
    for kind, items in (("data", plan["cells"]), ("metadata", plan["metadata"])):
        for item in items:
            base = ours.get(kind, item, planned.BASE)
            for system in plan["systems"]:
                mine = ours.get(kind, item, system)
                if len(mine) != plan["rounds"]:
                    sys.exit(f"report.py: error: {item} on {system}: {len(mine)} of "
                             f"{plan['rounds']} rounds")
                row = {"kind": kind, "item": item, "system": system,
                       "unit": "MiB/s" if kind == "data" else "1/s",
                       "values": [mine[r] for r in sorted(mine)],
                       **spread(mine.values()), "ratio": ratios(mine, base)}
                if other:
                    theirs = other.get(kind, item, system)
                    row["other"] = spread(theirs.values()) if theirs else None
                    row["against_other"] = ratios(mine, theirs)
                rows.append(row)
    return rows


def judge_time(plan, ours):
    """One verdict for each target and system, from the worst of its cells"""
    verdicts = []
    for title, (ops, sizes, access, jobs), base, limits in planned.TARGETS:
        cells = [c for c in plan["cells"] if all(
            part in part_of for part, part_of in zip(c.split(), (ops, sizes, access, jobs)))]
        for system, limit in limits.items():
            found = []
            for cell in cells:
                ratio = ratios(ours.get("data", cell, system), ours.get("data", cell, base))
                if ratio:
                    found.append((ratio["median"], cell, ratio))
            verdict = {"title": title, "system": system, "base": base, "limit": limit,
                       "better": "more", "cells": len(found), "of": len(cells)}
            if found:
                missed = [f for f in found if round(f[0], 2) < limit]
                median, cell, ratio = min(found)
                verdict.update(met=not missed, missed=[f[1] for f in missed], worst=cell,
                               value=median, q1=ratio["q1"], q3=ratio["q3"],
                               within=bool(missed) and all(f[2]["q3"] >= limit for f in missed))
            verdicts.append(verdict)
    return verdicts


def read_instructions(path):
    """{(operation, mode): instructions for each}, from lines of ring_bench"""
    found = {}
    if not os.path.exists(path):
        return found
    with open(path, encoding="utf-8") as file:
        for line in file:
            fields = dict(field.split("=", 1) for field in line.split())
            found[fields["op"], fields["mode"]] = float(fields["us_per_op"]) * 1000
    return found


def judge_instructions(counts):
    verdicts = []
    for op, limits in planned.INSTRUCTION_TARGETS if counts else []:
        for mode, limit in limits.items():
            if (op, mode) not in counts:
                continue
            ratio = counts[op, mode] / counts[op, planned.COUNTED_BASE]
            verdicts.append({"title": f"instructions, {instruction_name(op)}", "system": mode,
                             "base": planned.COUNTED_BASE, "limit": limit, "better": "less", "cells": 1,
                             "of": 1, "met": round(ratio, 3) <= limit, "within": False,
                             "missed": [] if ratio <= limit else [op], "worst": op,
                             "value": ratio, "q1": ratio, "q3": ratio})
    return verdicts


def instruction_name(op):
    return {"randread": "4 KiB read", "open": "open and close"}.get(op, op)


def verdict_words(verdict):
    if not verdict["cells"]:
        return "not measured"
    if verdict["met"]:
        return "met"
    return "missed, within the spread" if verdict["within"] else "missed"


def print_table(title, note, rows, columns):
    print(f"\n{title}\n{note}")
    width = max([len(r["item"]) for r in rows] + [9])
    print(" " * width + "".join(f"{c:>14}" for c in columns))
    items = list(dict.fromkeys(r["item"] for r in rows))
    for item in items:
        line = f"{item:<{width}}"
        for column in columns:
            line += f"{cell_text(rows, item, column):>14}"
        print(line)


def cell_text(rows, item, column):
    system = planned.BASE if column.startswith("MiB/s") or column == "1/s" else column
    row = next((r for r in rows if r["item"] == item and r["system"] == system), None)
    if row is None:
        return "-"
    if system != column:
        return f"{row['median']:.0f}"
    return ratio_text(row["ratio"])


def ratio_text(ratio):
    if not ratio:
        return "-"
    return f"{ratio['median']:.2f} \u00b1{(ratio['q3'] - ratio['q1']) / 2:.2f}"


def print_all(report):
    rows = report["rows"]
    rounds = report["plan"]["rounds"]
    note = (f"  ratio to {planned.BASE} of the same round; median of {rounds}, "
            "\u00b1 half the distance of the quartiles")
    for kind, unit, title in (("data", "MiB/s", "Throughput"),
                              ("metadata", "1/s", "Metadata, operations per second")):
        chosen = [r for r in rows if r["kind"] == kind]
        if not chosen:
            continue
        systems = [s for s in report["plan"]["systems"] if s != planned.BASE]
        print_table(title, note + f"; first column: {planned.BASE} itself, {unit}", chosen,
                    [unit] + systems)
        if report["compared"]:
            print_other(title, chosen, report["plan"]["systems"])
    print_memory(report["memory"])
    print_instructions(report["instructions"])
    print_targets(report["targets"])
    for kernel, missing in report["missing"].items():
        for system, why in missing.items():
            print(f"missing on {kernel} kernel: {system}: {why}")
    for warning in report["warnings"]:
        print(f"\nwarning: {warning}")


def print_other(title, rows, systems):
    copies = [dict(r, ratio=r["against_other"]) for r in rows]
    print_table(f"{title}: this kernel against the other",
                "  above 1.00: this one does more", copies, systems)


def print_memory(memory):
    if not memory:
        return
    print("\nMemory of a queue of 64 requests of up to 1 MiB")
    print(f"  {'':<12}{'buffers':<24}{'payload':>12}{'pinned':>12}{'resident':>12}")
    for entry in memory:
        print(f"  {entry['system']:<12}{entry['pools']:<24}{entry['payload_kib']:>8} KiB"
              f"{entry['pinned_kib']:>8} KiB{entry['rss_kib']:>8} KiB")


def print_instructions(instructions):
    if not instructions:
        return
    print("\nInstructions for each operation (qemu -icount), ratio to entries")
    modes = list(dict.fromkeys(i["mode"] for i in instructions))
    print(" " * 16 + "".join(f"{m:>18}" for m in modes))
    for op in dict.fromkeys(i["op"] for i in instructions):
        line = f"{instruction_name(op):<16}"
        for mode in modes:
            found = next((i for i in instructions if (i["op"], i["mode"]) == (op, mode)), None)
            text = f"{found['count']:.0f} {found['ratio']:.3f}" if found else "-"
            line += f"{text:>18}"
        print(line)


def print_targets(targets):
    print("\nTargets (ratio of the worst cell)")
    for t in targets:
        if not t["cells"]:
            continue
        sign = ">=" if t["better"] == "more" else "<="
        partly = "" if t["cells"] == t["of"] else f" ({t['cells']} of {t['of']} cells)"
        print(f"  {t['title']:<30}{t['system']:<11}{sign} {t['limit']:.2f}  {t['value']:.3f}  "
              f"{verdict_words(t)}{partly}"
              f"{': ' + ', '.join(t['missed']) if t['missed'] and t['of'] > 1 else ''}")
    unknown = sum(not t["cells"] for t in targets)
    met = sum(bool(t.get("met")) for t in targets)
    print(f"{met} targets met, {len(targets) - met - unknown} missed, {unknown} not measured")


def write_csv(path, report):
    with open(path, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["kind", "kernel", "item", "system", "unit", "runs", "median", "q1", "q3",
                      "min", "max", "ratio_to_legacy", "ratio_q1", "ratio_q3",
                      "ours_to_other"])
        for row in report["rows"]:
            for kernel, stats, ratio in (("ours", row, row["ratio"]),
                                         ("other", row.get("other"), None)):
                if not stats:
                    continue
                against = row.get("against_other") if kernel == "ours" else None
                out.writerow([row["kind"], kernel, row["item"], row["system"], row["unit"],
                              stats["runs"]] +
                             [f"{stats[k]:.6g}" for k in ("median", "q1", "q3", "min", "max")] +
                             [f"{ratio[k]:.4f}" if ratio else "" for k in ("median", "q1", "q3")] +
                             [f"{against['median']:.4f}" if against else ""])
        for i in report["instructions"]:
            out.writerow(["instructions", "ours" if not i["mode"].endswith("without series") else "base",
                          i["op"], i["mode"], "instructions", 1] + [f"{i['count']:.6g}"] * 5 +
                         [f"{i['ratio']:.4f}"] * 3 + [""])
        for m in report["memory"]:
            for field in ("payload_kib", "pinned_kib", "rss_kib"):
                out.writerow(["memory", "ours", f"{field} of 64 requests, {m['pools']}",
                              m["system"], "KiB", 1] + [m[field]] * 5 + [""] * 4)


def list_instructions(counts, base):
    rows = [{"op": op, "mode": mode, "count": count,
             "ratio": count / counts[op, planned.COUNTED_BASE]}
            for (op, mode), count in counts.items()]
    # Of these the ratio is what the series makes of the same mode, upside down.
    rows += [{"op": op, "mode": f"{mode} without series", "count": count,
              "ratio": count / counts[op, mode]} for (op, mode), count in base.items()
             if (op, mode) in counts]
    return rows


def make(directory, facts):
    with open(os.path.join(directory, "plan.json"), encoding="utf-8") as file:
        plan = json.load(file)
    timed = os.path.join(directory, "time", "results.jsonl")
    compared = os.path.join(directory, "other", "results.jsonl")
    ours = Results(timed) if os.path.exists(timed) else None
    other = Results(compared) if os.path.exists(compared) else None
    counts = read_instructions(os.path.join(directory, "instructions.txt"))
    base = read_instructions(os.path.join(directory, "base.txt"))
    report = {
        "facts": facts, "plan": plan, "compared": other is not None, "warnings": [],
        "rows": summarize(plan, ours, other) if ours else [],
        "targets": (judge_time(plan, ours) if ours else []) + judge_instructions(counts),
        "instructions": list_instructions(counts, base),
        "memory": ours.memory if ours else [],
        "servers": ours.servers if ours else {},
        "missing": {"the other": other.missing} if other else {},
    }
    busiest = max((int(facts[f].rstrip("%")) for f in ("busy_before", "busy_after")
                   if f in facts), default=0)
    if ours and busiest > 10:
        report["warnings"].append(
            f"others used {busiest} % of this machine's processors right before or after: "
            "times tell little, and neither do their ratios")
    if ours and plan["rounds"] < 7:
        report["warnings"].append(f"{plan['rounds']} rounds are few: quick looks only")
    return report


def main():
    directory = sys.argv[1]
    report = make(directory, dict(fact.split("=", 1) for fact in sys.argv[2:]))
    write_csv(os.path.join(directory, "report.csv"), report)
    with open(os.path.join(directory, "report.json"), "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1)
    with open(os.path.join(directory, "report.html"), "w", encoding="utf-8") as file:
        file.write(html_report.make(report))
    print_all(report)


if __name__ == "__main__":
    main()
