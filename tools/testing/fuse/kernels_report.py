#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Which known faults do the kernels have that scripts/kernels.sh ran?

kernels_report.py DIR FAULTS PATCHES NAME...: DIR/NAME is what a kernel left, a
file "kernel" and the report of vm.sh of each boot; missing:VERSION instead of NAME
is one that could not be had. Prints a table and writes DIR/table and
DIR/report.html. Fails where a test said what the data in FAULTS do not.
"""
import re
import sys
from html import escape
from pathlib import Path

# The worst first
HARMS = ["crash", "corruption", "leak", "data loss", "hang", "wrong error", "WARN", "log flood"]
# What User Mode Linux and qemu, with a kernel as distributions build it, can show
SHOWN = {"uml": ["uml"], "qemu": ["uml", "qemu"]}

WORDS = {
    "yes": "A test shows it.",
    "crashes": "The test crashed the kernel.",
    "hangs": "The test left behind what could not be killed, or did not end.",
    "fixed": "The release has it, but its tests pass: this kernel has a fix.",
    "gone": "The data say it is there, but its tests pass.",
    "new": "A test shows it in a release that should not have it.",
    "(yes)": "The release has it; no test that ran here could show it.",
    "?": "The release has it; whether this kernel does, no test that ran here could show.",
    "-": "The release does not have it.",
}

PRESENT = ["yes", "crashes", "hangs", "(yes)", "new"]
CLASSES = {"(yes)": "said", "?": "said", "-": "none"}


def keys(path, separator):
    lines = [line for line in path.read_text().splitlines() if separator in line]
    return {key: value.strip() for key, value in (line.split(separator, 1) for line in lines)}


def version(release):
    return [int(part) for part in release.split(".")[:2]]


class Fault:
    def __init__(self, path, patches):
        data = keys(path, ":")
        self.name = path.name
        self.text, self.harm = data["Fault"], data["Harm"]
        self.patch, self.mended = data.get("Patch", ""), data.get("Mended", "")
        self.releases = data["Releases"]
        self.tests = self.parse(data.get("Test", ""))
        self.tests_text = data.get("Test", "")
        self.kernel, self.untested = data.get("Kernel", ""), data.get("Untested", "")
        self.race = data.get("Race") == "yes"
        self.subject = self.patch
        mail = patches / f"{self.patch}.patch"
        if self.patch and mail.exists():
            head = mail.read_text().split("\n\n")[0].replace("\n ", " ")
            subject = [line for line in head.split("\n") if line.startswith("Subject: ")]
            self.subject = subject[0].split("] ", 1)[-1]

    @staticmethod
    def parse(text):
        program, *words = text.split() or [""]
        return {(program, word) for word in words if word != "-t"}

    def is_in(self, release):
        first, last = self.releases.split("-")
        return version(first) <= version(release) and (
            last == "now" or version(release) <= version(last))


class Kernel:
    def __init__(self, directory):
        self.name, self.dir = directory.name, directory
        data = keys(directory / "kernel", "=")
        self.release, self.engine, self.source = data["release"], data["engine"], data["source"]
        self.stock, self.seconds = data["stock"] == "yes", data.get("seconds", "?")
        self.results, self.shown, self.why, self.errors = {}, {}, {}, []
        for boot in sorted(directory.glob("boot-*")):
            self.read(boot)
        if not self.results:
            self.errors.append("no test program was run: see boot-1/log")
        for (program, name, _), (kind, why) in self.results.items():
            if kind == "fail":
                # Without where it was and the last line, which say no more
                why = re.sub(r"^\S+[.]c:\d+:\w+:| \w+: Test failed$", "", why)[:160]
                self.errors.append(f"{program}: {name}" + (f": {why}" if why else ""))

    @staticmethod
    def rows(boot):
        path = boot / "results"
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            yield line.split("\t")

    def read(self, boot):
        for n, (kind, program, name, why) in enumerate(self.rows(boot)):
            # These are about a boot, not about a test.
            number = f"{boot.name}-{n}" if program == "run" else ""
            if name == "the kernel complained:":
                complaints = (boot / "complaints").read_text(errors="replace").splitlines()
                why = complaints[0] if complaints else ""
            self.results[program, name, number] = (kind, why)

    def of(self, tests):
        return {key: kind for key, (kind, _) in self.results.items()
                if (key[0], key[1].rsplit(".", 1)[-1]) in tests}

    def read_fault(self, fault):
        """The boot of a test that may take the kernel down: whatever happens there
        is what this fault does."""
        boot = self.dir / f"fault-{fault.name}"
        if not boot.is_dir():
            return None
        if not (boot / "kernel.log").exists():
            self.errors.append(f"{fault.name}: was not run: see {boot.name}/log")
            return None
        alive = (boot / "verdict").exists()
        bad = not alive
        for kind, program, name, why in self.rows(boot):
            bad = bad or kind in ("fail", "xfail")
            if program != "run":
                number = fault.name if name == "never finished" else ""
                self.results[program, name, number] = ("xfail" if kind == "fail" else kind, why)
        if not alive:
            log = (boot / "kernel.log").read_text(errors="replace")
            return "crashes" if re.search("Kernel panic|kernel BUG at|Oops: ", log) else "hangs"
        return "yes" if bad else None

    def passing(self, fault):
        """Those of its tests that ran and did not fail for any way to set up a queue"""
        for test in sorted(fault.tests):
            kinds = set(self.of({test}).values())
            if "pass" in kinds and not kinds & {"fail", "xfail"}:
                yield test[1]

    def look(self, fault):
        died = self.read_fault(fault)
        can_show = (fault.kernel in SHOWN[self.engine] and fault.is_in(self.release)
                    and not fault.race)
        if self.stock and can_show and died not in ("crashes", "hangs"):
            self.errors += [f"{fault.name}: should be in {self.release}, but {test} passes"
                            for test in self.passing(fault)]
        kinds = set(self.of(fault.tests).values())
        if not fault.is_in(self.release):
            word = "new" if kinds & {"fail", "xfail"} else "-"
        elif died:
            word = died
        elif kinds & {"fail", "xfail"}:
            word = "yes"
        elif "pass" not in kinds or not can_show:
            word = "(yes)" if self.stock else "?"
        else:
            word = "gone" if self.stock else "fixed"
        self.shown[fault.name] = word
        self.why[fault.name] = "" if word not in ("(yes)", "?") else "; ".join(sorted(
            self.skipped(fault)))

    def skipped(self, fault):
        """Why its tests were, one by one or with their whole program"""
        tests = fault.tests | {(program, program) for program, _ in fault.tests}
        return {self.results[key][1] for key, kind in self.of(tests).items() if kind == "skip"}

    def explain(self, fault):
        why = self.why[fault.name]
        return WORDS[self.shown[fault.name]] + (f" Skipped: {why}." if why else "")

    def counts(self):
        kinds = [kind for kind, _ in self.results.values()]
        return [kinds.count(kind) for kind in ("pass", "fail", "xfail", "skip")]

    def has(self, faults):
        return [f for f in faults if self.shown[f.name] in PRESENT]


COUNTS = ["passed", "failed", "xfail", "skipped"]


def text_table(kernels, faults):
    wide = max(len(f.name) for f in faults) + 2
    columns = [max(len(k.name), 6) + 2 for k in kernels]

    def line(first, second, cells):
        return f"{first:{wide}}{second:13}" + "".join(
            f"{cell:>{width}}" for cell, width in zip(cells, columns))

    lines = [line("fault", "harm", [k.name for k in kernels])]
    lines += [line(f.name, f.harm, [k.shown[f.name] for k in kernels]) for f in faults]
    lines.append("")
    lines += [line("tests " + word, "", [k.counts()[n] for k in kernels])
              for n, word in enumerate(COUNTS)]
    used = {word for k in kernels for word in k.shown.values()}
    lines.append("")
    lines += [f"{word:8}{text}" for word, text in WORDS.items() if word in used]
    return "\n".join(lines)


STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1a1a1a; --soft: #595959; --line: #c4c4c4;
  --bad: #fbdcd6; --worse: #f2b8ae; --said: #fdf1d3; --good: #e3f1e3; }
@media (prefers-color-scheme: dark) { :root { --back: #16181b; --text: #ececec; --soft: #a9a9a9;
  --line: #4a4d52; --bad: #4a2320; --worse: #74302a; --said: #40371c; --good: #1d3a24; } }
body { background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
.soft { color: var(--soft); } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: left;
  vertical-align: top; }
thead th { position: sticky; top: 0; background: var(--back); }
td.number { text-align: right; }
td.yes { background: var(--bad); }
td.crashes, td.hangs, td.new, td.gone { background: var(--worse); }
td.said { background: var(--said); } td.fixed { background: var(--good); }
code { font-size: .85em; overflow-wrap: anywhere; }
summary { cursor: pointer; } details { margin: .5rem 0; }
dt { font-weight: 600; margin-top: 1rem; } dd { margin-left: 1.5rem; }
.errors { border: 2px solid var(--worse); padding: .5rem 1rem; }
"""


def row(cells, tag="td"):
    return "<tr>" + "".join(
        cell if cell.startswith("<t") else f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def table(head, rows):
    return ('<div class="wide"><table><thead>' + row(head, "th") + "</thead><tbody>" +
            "".join(rows) + "</tbody></table></div>")


def verdict(kernel, faults):
    has = kernel.has(faults)
    if not has:
        return "none of the known faults"
    harms = [f.harm for f in has]
    return f"<b>{len(has)}</b>: " + ", ".join(
        f"{harms.count(harm)} {harm}" for harm in HARMS if harm in harms)


def kernel_rows(kernels, faults):
    for k in kernels:
        yield row([f'<th scope="row">{escape(k.name)}</th>', escape(k.source),
                   escape(k.release), verdict(k, faults)] +
                  [f'<td class="number">{count}</td>' for count in k.counts()])


def cell(word, title):
    return f'<td class="{CLASSES.get(word, word)}" title="{escape(title)}">{word}</td>'


def fault_rows(kernels, faults):
    for f in faults:
        yield row([f'<th scope="row"><a href="#{escape(f.name)}">{escape(f.name)}</a></th>',
                   escape(f.harm)] +
                  [cell(k.shown[f.name], k.explain(f)) for k in kernels] + [escape(f.text)])


def fault_entry(fault):
    if fault.tests_text:
        program, *words = fault.tests_text.split()
        shown = f"{escape(program)}: " + ", ".join(
            f"<code>{escape(w)}</code>" for w in words if w != "-t")
    else:
        shown = f"by no test: {escape(fault.untested)}"
    mended = (f"<b>{escape(fault.subject)}</b> "
              f"(<code>patches/fixes/{escape(fault.patch)}.patch</code>)"
              if fault.patch else escape(fault.mended))
    return (f'<dt id="{escape(fault.name)}">{escape(fault.name)}</dt><dd>'
            f"{escape(fault.text)}.<br>Harm: {escape(fault.harm)}. "
            f"Linux {escape(fault.releases)}.<br>"
            f"Mended by: {mended}<br>"
            f'<span class="soft">Shown: {shown}</span></dd>')


def kernel_details(kernel):
    reasons = {}
    for (program, name, _), (kind, why) in kernel.results.items():
        if kind in ("skip", "xfail", "out"):
            key = (kind, why if kind != "xfail" else "")
            reasons.setdefault(key, []).append(f"{program}: {name}")
    parts = []
    for (kind, why), tests in sorted(reasons.items(), key=lambda item: -len(item[1])):
        what = {"skip": f"skipped: {why}", "out": f"variants not run: {why}",
                "xfail": "failed, as known"}[kind]
        parts.append(f"<details><summary>{len(tests)} {escape(what)}</summary><code>" +
                     "<br>".join(map(escape, tests)) + "</code></details>")
    return f"<h3>{escape(kernel.name)}</h3>" + ("".join(parts) or "<p>All passed.</p>")


def page(kernels, faults, missing, errors):
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>FUSE over io_uring: faults of {len(kernels)} kernels</title>"
        f"<style>{STYLE}</style><h1>FUSE over io_uring: which faults does a kernel have?</h1>",
        "<p>Each kernel was booted in a virtual machine and ran the selftests. Tests that may "
        "take it down had a boot of their own.</p>"]
    if missing:
        parts.append(f"<p>The archive has no Linux {escape(', '.join(missing))}: not run.</p>")
    if errors:
        parts.append(f'<div class="errors"><p><b>{len(errors)} results that the data on known '
                     "faults do not explain:</b></p><ul>" +
                     "".join(f"<li>{escape(error)}</li>" for error in errors) + "</ul></div>")
    parts += [
        "<h2>The kernels</h2>",
        table(["kernel", "from", "release", "known faults"] + COUNTS, kernel_rows(kernels, faults)),
        "<h2>Faults by kernel</h2>",
        table(["fault", "harm"] + [escape(k.name) for k in kernels] + ["what goes wrong"],
              fault_rows(kernels, faults)),
        '<p class="soft">' + "<br>".join(
            f"<b>{word}</b>: {escape(text)}" for word, text in WORDS.items()) + "</p>",
        "<h2>What mends them</h2><dl>", *map(fault_entry, faults), "</dl>",
        "<h2>What was skipped, and why</h2>", *map(kernel_details, kernels), "</html>"]
    return "\n".join(parts)


def main():
    out, faults, patches, *names = sys.argv[1:]
    out = Path(out)
    faults = [Fault(path, Path(patches)) for path in sorted(Path(faults).iterdir())]
    faults.sort(key=lambda f: (HARMS.index(f.harm), f.name))
    missing = [name.split(":")[1] for name in names if name.startswith("missing:")]
    kernels = [Kernel(out / name) for name in names if not name.startswith("missing:")]
    for kernel in kernels:
        for fault in faults:
            kernel.look(fault)
    text = text_table(kernels, faults)
    errors = [f"{k.name}: {error}" for k in kernels for error in k.errors]
    (out / "table").write_text(text + "\n")
    (out / "report.html").write_text(page(kernels, faults, missing, errors))
    print(text + "\n")
    for version_of in missing:
        print(f"not run: the archive has no Linux {version_of}")
    for error in errors:
        print(f"FAILED: {error}")
    for k in kernels:
        print(f"{k.name}: " + ", ".join(f"{n} {word}" for n, word in zip(k.counts(), COUNTS)))
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
