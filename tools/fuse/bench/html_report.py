# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
"""One page that needs nothing else: tables, and charts as SVG in the page"""
from html import escape

import plan as planned

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1a1a1a; --soft: #595959;
  --line: #c4c4c4; --native: #8a8a8a; --device: #b36b00; --ring: #1f6fb2; --good: #e3f1e3;
  --bad: #fbe4e0; }
@media (prefers-color-scheme: dark) { :root { --back: #16181b; --text: #ececec; --soft: #a9a9a9;
  --line: #4a4d52; --native: #84888e; --device: #d59a3c; --ring: #5aa5e0; --good: #1d3a24;
  --bad: #4a2320; } }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
p.note { color: var(--soft); } .warning { border: 2px solid var(--device); padding: .5rem 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .25rem; }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .6rem; text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
tr.met td.verdict { background: var(--good); } tr.missed td.verdict { background: var(--bad); }
figure { margin: 1.5rem 0; } figcaption { font-weight: 600; margin-bottom: .25rem; }
svg { width: 100%; height: auto; max-width: 760px; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
svg text.soft { fill: var(--soft); } svg text.head { font-weight: 600; }
svg .native { fill: var(--native); } svg .device { fill: var(--device); }
svg .ring { fill: var(--ring); } svg .spread { stroke: var(--text); stroke-width: 1.5; }
svg .base { stroke: var(--soft); stroke-dasharray: 4 3; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--soft); }
nav a { margin-right: 1rem; } a { color: var(--ring); }
"""

LABEL, BAR, WIDTH, ROW = 110, 430, 760, 20


def css_class(system):
    if system in planned.NATIVE or system.endswith("without series"):
        return "native"
    return "device" if system == "classic" else "ring"


def bar_chart(title, groups, base):
    """groups: [(heading, [(label, class, value, low, high, text)])]; a broken
    line stands at the value base."""
    top = max(high for _, rows in groups for *_, high, _ in rows) or 1
    scale = BAR / max(top, base or 0)
    y = 18 if base else 4
    parts = []
    for heading, rows in groups:
        if heading:
            parts.append(f'<text class="head" x="0" y="{y + 14}">{escape(heading)}</text>')
            y += ROW
        for label, kind, value, low, high, text in rows:
            parts.append(
                f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>'
                f'<rect class="{kind}" x="{LABEL}" y="{y + 3}" '
                f'width="{max(value * scale, 1):.1f}" height="{ROW - 6}"/>')
            if high > low:
                middle = y + ROW / 2
                parts.append(
                    f'<path class="spread" fill="none" d="M{LABEL + low * scale:.1f} {middle - 4}v8'
                    f'm0 -4H{LABEL + high * scale:.1f}m0 -4v8"/>')
            end = LABEL + max(value, high, base or 0) * scale + 6
            parts.append(f'<text class="soft" x="{end:.1f}" y="{y + 14}">{escape(text)}</text>')
            y += ROW
        y += 6
    if base:
        x = LABEL + base * scale
        parts.append(f'<text class="soft" x="{x:.1f}" y="11" text-anchor="middle">'
                     f'{planned.BASE} = 1</text>'
                     f'<line class="base" x1="{x:.1f}" x2="{x:.1f}" y1="15" y2="{y}"/>')
    return (f'<figure><figcaption>{escape(title)}</figcaption>'
            f'<svg role="img" aria-label="{escape(title)}: bar chart, every bar with its figure; '
            f'the table below has the same" viewBox="0 0 {WIDTH} {y}">{"".join(parts)}</svg>'
            f'</figure>')


def table(caption, head, rows, texts=1):
    """rows: lists of cells, or (class, list). The first cells are text."""
    def cell(tag, number, value, extra=""):
        kind = ' class="text"' if number < texts else extra
        return f"<{tag}{kind}>{escape(str(value))}</{tag}>"
    out = [f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>',
           "".join(cell("th", n, h) for n, h in enumerate(head)), "</tr></thead><tbody>"]
    for row in rows:
        kind, row = row if isinstance(row, tuple) else ("", row)
        out.append(f'<tr class="{kind}">' if kind else "<tr>")
        for n, value in enumerate(row):
            verdict = ' class="verdict"' if kind and n == len(row) - 1 else ""
            out.append(cell("td", n, value, verdict))
        out.append("</tr>")
    return "".join(out) + "</tbody></table></div>"


def ratio_words(ratio):
    return f"{ratio['median']:.2f} ({ratio['q1']:.2f} to {ratio['q3']:.2f})"


def row_bar(row):
    ratio = row["ratio"]
    return (row["system"], css_class(row["system"]), ratio["median"], ratio["q1"], ratio["q3"],
            f"{ratio_words(ratio)}, {row['median']:.0f} {row['unit']}")


def figures_table(caption, rows):
    head = ["", "", "median", "quartiles", "least", "most", "to legacy", "runs"]
    if any("against_other" in r for r in rows):
        head += ["other kernel", "this to other"]
    body = []
    for r in rows:
        line = [r["item"], r["system"], f"{r['median']:.0f} {r['unit']}",
                f"{r['q1']:.0f} to {r['q3']:.0f}", f"{r['min']:.0f}", f"{r['max']:.0f}",
                ratio_words(r["ratio"]), r["runs"]]
        if "against_other" in r:
            line += [f"{r['other']['median']:.0f}" if r["other"] else "missing",
                     ratio_words(r["against_other"]) if r["against_other"] else "-"]
        body.append(line)
    return f"<details><summary>As a table</summary>{table(caption, head, body, 2)}</details>"


def data_section(rows):
    out = ['<h2 id="throughput">Throughput</h2>']
    for access in planned.ACCESS:
        for size in planned.SIZES:
            for jobs in planned.JOBS:
                chosen = [r for r in rows if r["item"].split()[1:] == [size, access, jobs]]
                if not chosen:
                    continue
                size_words = size.replace("k", " KiB").replace("m", " MiB")
                title = f"{size_words}, {access}, {jobs} job{'' if jobs == '1' else 's'}"
                items = dict.fromkeys(r["item"] for r in chosen)
                groups = [(item.split()[0], [row_bar(r) for r in chosen if r["item"] == item])
                          for item in items]
                out.append(bar_chart(title, groups, 1) + figures_table(title, chosen))
    return "".join(out)


def metadata_section(rows, files):
    names = {"stat": "stat (looks the name up)", "open": "open and close",
             "create": "create, later unlink", "readdir": f"readdir of {files:,} files"}
    items = dict.fromkeys(r["item"] for r in rows)
    groups = [(names[item], [row_bar(r) for r in rows if r["item"] == item]) for item in items]
    title = "Operations per second"
    return ('<h2 id="metadata">Metadata</h2>' + bar_chart(title, groups, 1) +
            figures_table(title, rows))


def instructions_section(instructions):
    names = {"randread": "4 KiB read, direct", "open": "open and close", "getattr": "getattr"}
    groups = [(names.get(op, op), [
        (i["mode"], css_class(i["mode"]), i["ratio"], i["ratio"], i["ratio"],
         f"{i['ratio']:.3f}, {i['count']:.0f} instructions") for i in instructions
        if i["op"] == op]) for op in dict.fromkeys(i["op"] for i in instructions)]
    return ('<h2 id="instructions">Instructions</h2><p class="note">Of client, kernel and server '
            'together, for each operation of ring_bench, counted by qemu: the same in every run. '
            'Less is better.</p>' + bar_chart("Instructions, as a ratio to legacy", groups, 1))


def memory_section(memory, servers):
    out = ['<h2 id="memory">Memory</h2><p class="note">A queue of 64 requests of up to 1 MiB. '
           'Pinned is VmPin of the server, resident its VmRSS right after the mount: pages that '
           'are not pinned come as they are used.</p>']
    if memory:
        groups = [("payload buffers", [
            (m["system"], css_class(m["system"]), m["payload_kib"], m["payload_kib"],
             m["payload_kib"], f"{m['payload_kib'] / 1024:g} MiB, {m['pools']}")
            for m in memory])]
        out.append(bar_chart("Payload memory of a queue", groups, None))
        out.append(table("", ["", "buffers", "payload KiB", "pinned KiB", "resident KiB"],
                         [[m["system"], m["pools"], m["payload_kib"], m["pinned_kib"],
                           m["rss_kib"]] for m in memory], 2))
    if servers:
        out.append(table("Servers of the timed runs", ["", "said", "pinned KiB"],
                         [[s, e["line"] or "(/dev/fuse)", e["pinned_kib"]]
                          for s, e in servers.items()], 2))
    return "".join(out)


def targets_section(targets):
    rows = []
    for t in targets:
        sign = "at least" if t["better"] == "more" else "at most"
        head = [t["title"], t["system"], f"{sign} {t['limit']:.2f}"]
        if not t["cells"]:
            rows.append(head + ["-", "-", "not measured"])
            continue
        verdict = "met" if t["met"] else "missed"
        words = verdict + (", within the spread" if t["within"] else "")
        if t["cells"] != t["of"]:
            words += f" ({t['cells']} of {t['of']} cells measured)"
        value = f"{t['value']:.3f}" + (f" ({t['q1']:.2f} to {t['q3']:.2f})"
                                       if t["better"] == "more" else "")
        rows.append((verdict, head + [t["worst"], value, words]))
    return ('<h2 id="targets">Targets</h2>' + table(
        "Of each target the cell that does worst; ratio to legacy, or to what the target says",
        ["", "mode", "target", "worst cell", "ratio", "verdict"], rows, 2))


def facts_section(report):
    plan, facts = report["plan"], report["facts"]
    rows = [[k.replace("_", " "), v] for k, v in facts.items()]
    rows += [["rounds", plan["rounds"]], ["time of a run", f"at most {plan['runtime_ms']} ms"],
             ["filter", plan["filter"] or "none"],
             ["options of the server", plan["server_options"] or "its own defaults"]]
    missing = [[kernel, system, why] for kernel, found in report["missing"].items()
               for system, why in found.items()]
    out = '<h2 id="conditions">Conditions</h2>' + table("", ["", ""], rows, 2)
    if missing:
        out += table("Missing", ["kernel", "", "why"], missing, 3)
    return out + (
        '<p class="note">User Mode Linux on one processor of the host. All servers are mounted at '
        'once over the same tmpfs; in each round every cell is run on one after the other, and '
        'another one begins each time. Ratios are of figures of the same round. ext4 is on a '
        'virtual disk, a file of the host, mostly in its page cache. Direct runs take their time; '
        'buffered ones go over the file once, so that no read finds its data cached by FUSE. '
        'Readahead is 1 MiB everywhere.</p>')


def make(report):
    rows = report["rows"]
    data = [r for r in rows if r["kind"] == "data"]
    metadata = [r for r in rows if r["kind"] == "metadata"]
    sections = [("targets", targets_section(report["targets"]), report["targets"]),
                ("throughput", data_section(data) if data else "", data),
                ("metadata", metadata_section(metadata, report["plan"]["files"])
                 if metadata else "", metadata),
                ("instructions", instructions_section(report["instructions"])
                 if report["instructions"] else "", report["instructions"]),
                ("memory", memory_section(report["memory"], report["servers"]),
                 report["memory"] or report["servers"]),
                ("conditions", facts_section(report), True)]
    sections = [(name, text) for name, text, there in sections if there]
    warnings = "".join(f'<p class="warning"><strong>Warning:</strong> {escape(w)}</p>'
                       for w in report["warnings"])
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name, _ in sections)
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>FUSE over io_uring: benchmark</title><style>{STYLE}</style></head><body>'
            '<h1>FUSE over io_uring: benchmark</h1>'
            '<p>Bars are medians as a ratio to legacy io-uring with the same server; whiskers go '
            'from the first to the third quartile. More is better unless it says otherwise.</p>'
            f'{warnings}<nav aria-label="Sections">{links}</nav><main>'
            f'{"".join(text for _, text in sections)}</main></body></html>\n')
