#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
"""The part of the benchmark that runs in the virtual machine.

guest.py PLAN RESULTS FIRST COUNT BIN [--other]: the rounds FIRST to
FIRST + COUNT - 1 of PLAN, one JSON object per line of RESULTS. BIN has
passthrough_ring and metadata. A mode that is not the one asked for is an
error; with --other, for a kernel that may lack some, it is left out and
recorded as missing.
"""
import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time

import plan as planned

WORK = "/tmp/bench"
MIB = 1 << 20
BIG_FILE = 256 * MIB
SMALL_FILE = 64 * MIB   # one for each of four jobs
READAHEAD_KIB = 1024
PATIENCE = 60           # seconds, for what takes milliseconds
MODE_LINE = re.compile(r"passthrough_ring: ([a-z-]+)[,:]")
FIXED_BUFFER = re.compile(r"^ *\d+: 0x[0-9a-f]+/(\d+)$", re.MULTILINE)
PAYLOAD = re.compile(r"(\d+) queues of (\d+) requests and (\d+) KiB")


class BenchError(Exception):
    pass


class WrongMode(BenchError):
    pass


def write_file(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def set_readahead(directory):
    """The same for all: what a READ is split into is not what is compared."""
    dev = os.stat(directory).st_dev
    write_file(f"/sys/class/bdi/{os.major(dev)}:{os.minor(dev)}/read_ahead_kb",
               str(READAHEAD_KIB))


class Server:
    """A passthrough_ring on a mount point, in the mode asked for or not at all"""

    def __init__(self, program, mode, source, mountpoint, options):
        self.mode = mode
        self.mountpoint = mountpoint
        self.text = ""
        os.makedirs(mountpoint, exist_ok=True)
        options = ",".join(o for o in [f"ring={mode}", options] if o)
        command = [program, "-f", "-o", options, source, mountpoint]
        with open("/proc/self/mountinfo", "rb") as mounts:
            self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
            os.set_blocking(self.process.stderr.fileno(), False)
            try:
                self.wait_for_mount(mounts)
                # INIT is over when a request was answered, and so is what the
                # server does before it answers any other.
                os.statvfs(mountpoint)
                self.check_mode()
            except BaseException:
                self.process.kill()
                self.process.wait()
                subprocess.run(["umount", "-l", mountpoint], check=False,
                               stderr=subprocess.DEVNULL)
                raise

    def wait_for_mount(self, mounts):
        poll = select.poll()
        poll.register(mounts, select.POLLPRI)
        poll.register(self.process.stderr, select.POLLIN)
        deadline = time.monotonic() + PATIENCE
        while not os.path.ismount(self.mountpoint):
            if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
                raise BenchError(f"ring={self.mode}: not mounted after {PATIENCE} s")
            self.read_log()
            mounts.seek(0)
            mounts.read()
            if self.process.poll() is not None:
                raise BenchError(f"ring={self.mode}: the server ended: {self.text.strip()}")

    def read_log(self):
        self.text += (self.process.stderr.read() or b"").decode()

    def wait_for_log(self):
        deadline = time.monotonic() + PATIENCE
        self.read_log()
        while "\n" not in self.text:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stderr], [], [], left)[0]:
                raise WrongMode(f"ring={self.mode}: the server does not say what it got")
            self.read_log()

    def check_mode(self):
        """What it says, and what the kernel knows about it"""
        if self.mode != "off":
            self.wait_for_log()
            said = MODE_LINE.match(self.text)
            if not said or said.group(1) != self.mode:
                raise WrongMode(f"ring={self.mode}: the server got: {self.text.strip()}")
        rings = self.count_rings()
        if (rings == 0) != (self.mode == "off"):
            raise WrongMode(f"ring={self.mode}: the server has {rings} io_urings")
        pinned = self.pinned_kib()
        # A pool of buffers need not be pinned there.
        if self.mode == "zero-copy" and "(bufpool, " in self.text:
            return
        if (pinned > 0) != (self.mode in ("pinned", "zero-copy")):
            raise WrongMode(f"ring={self.mode}: the server has {pinned} KiB pinned")

    def rings(self):
        """What /proc has to tell of the server's io_urings"""
        fds = f"/proc/{self.process.pid}/fd"
        for fd in os.listdir(fds):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"{fds}/{fd}") == "anon_inode:[io_uring]":
                    yield f"/proc/{self.process.pid}/fdinfo/{fd}"

    def count_rings(self):
        return len(list(self.rings()))

    def pinned_kib(self):
        """io_uring does not count what root registers: then its tables show it."""
        kib = self.status("VmPin")
        if kib:
            return kib
        for ring in self.rings():
            with open(ring, encoding="ascii") as file:
                kib += sum(int(size) for size in FIXED_BUFFER.findall(file.read())) // 1024
        return kib

    def status(self, field):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1])
        raise BenchError(f"no {field} in /proc/PID/status")

    def memory(self):
        payload = PAYLOAD.search(self.text)
        return {
            "depth": int(payload.group(2)) if payload else 0,
            "payload_kib": int(payload.group(3)) if payload else 0,
            "pinned_kib": self.pinned_kib(),
            "rss_kib": self.status("VmRSS"),
            "line": self.text.strip(),
        }

    def check(self):
        """Nothing happened that would make the figures another mode's."""
        self.read_log()
        if self.process.poll() is not None:
            raise BenchError(f"ring={self.mode}: the server ended: {self.text.strip()}")
        if self.text.count("\n") > (self.mode != "off"):
            raise BenchError(f"ring={self.mode}: the server complained: {self.text.strip()}")

    def stop(self):
        self.check()
        subprocess.run(["umount", self.mountpoint], check=True)
        if self.process.wait(PATIENCE):
            raise BenchError(f"ring={self.mode}: the server failed: {self.text.strip()}")


class Bench:
    def __init__(self, plan, results, binaries, other):
        self.plan = plan
        self.results = results
        self.binaries = binaries
        self.other = other
        self.missing = {}
        self.roots = {}
        self.servers = {}

    def record(self, kind, **fields):
        self.results.write(json.dumps(dict(kind=kind, **fields)) + "\n")
        self.results.flush()

    def program(self, name):
        return os.path.join(self.binaries, name)

    # Preparation

    def prepare(self):
        source = f"{WORK}/tmpfs"
        os.makedirs(source)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100%", "bench", source], check=True)
        self.roots["tmpfs"] = source
        if "ext4" in self.plan["systems"]:
            self.prepare_ext4()
        for root in self.roots.values():
            self.fill(root)

    def prepare_ext4(self):
        root = f"{WORK}/ext4"
        os.makedirs(root)
        done = subprocess.run(["mount", "-t", "ext4", "/dev/ubda", root], check=False,
                              capture_output=True, text=True)
        if done.returncode:
            self.miss("ext4", done.stderr.strip())
            return
        set_readahead(root)
        self.roots["ext4"] = root

    def miss(self, system, why):
        if not self.other:
            raise BenchError(why)
        if system not in self.missing:
            self.missing[system] = why
            self.record("missing", system=system, why=why)

    def fill(self, root):
        names = {"big": BIG_FILE}
        names.update({f"small.{n}": SMALL_FILE for n in range(4)})
        block = os.urandom(MIB)
        for name, size in names.items() if self.plan["cells"] else []:
            with open(f"{root}/{name}", "wb", buffering=0) as file:
                for _ in range(size // MIB):
                    file.write(block)
        os.makedirs(f"{root}/files")
        if self.plan["metadata"]:
            self.metadata("fill", f"{root}/files", self.plan["files"])
        subprocess.run(["sync", "-f", root], check=True)

    # File systems

    @contextlib.contextmanager
    def mounted(self, options):
        """All servers at once, so that they can take turns"""
        roots = dict(self.roots)
        options = ",".join(o for o in [self.plan["server_options"], options] if o)
        self.servers = {}
        for system, mode in planned.RINGS.items():
            if system not in self.plan["systems"] or system in self.missing:
                continue
            root = f"{WORK}/{system}"
            try:
                server = Server(self.program("passthrough_ring"), mode,
                                self.roots["tmpfs"], root, options)
            except WrongMode as error:
                self.miss(system, str(error))
                continue
            self.servers[system] = server
            set_readahead(root)
            roots[system] = root
        yield {s: roots[s] for s in self.plan["systems"] if s in roots}
        for server in self.servers.values():
            server.stop()

    def check_servers(self):
        for server in self.servers.values():
            server.check()

    @staticmethod
    def turns(roots, count):
        """Another one begins each time."""
        names = list(roots)
        first = count % len(names)
        return names[first:] + names[:first]

    # Data

    def fio(self, cell, roots, order, runtime_ms):
        """Runs one cell on each file system; {system: fio's job}."""
        op, bs, access, jobs = cell.split()
        lines = [
            "[global]", "ioengine=psync", "thread", "gtod_reduce=1", "group_reporting",
            "allow_file_create=0", "fallocate=none", "invalidate=1",
            f"rw={op}", f"bs={bs}", f"numjobs={jobs}", f"direct={int(access == 'direct')}",
            f"size={BIG_FILE if jobs == '1' else SMALL_FILE}", f"runtime={runtime_ms}ms",
        ]
        if access == "direct":
            # Until the time is over; what is buffered is read once only.
            lines.append("io_size=1t")
        elif "write" in op:
            # What is written later must not fall into another one's turn.
            lines.append("end_fsync=1")
        for system in order:
            lines += [f"[{system}]", "stonewall", f"directory={roots[system]}",
                      "filename=big" if jobs == "1" else "filename_format=small.$jobnum"]
        write_file(f"{WORK}/job.fio", "\n".join(lines) + "\n")
        done = subprocess.run(["fio", "--output-format=json", f"--output={WORK}/fio.json",
                               f"{WORK}/job.fio"], check=False, capture_output=True,
                              text=True, timeout=10 * PATIENCE)
        if done.returncode:
            raise BenchError(f"fio failed: {cell}: {done.stdout}{done.stderr}")
        with open(f"{WORK}/fio.json", encoding="utf-8") as file:
            text = file.read()
        # Remarks may come before it.
        jobs = {job["jobname"]: job for job in json.loads(text[text.index("{"):])["jobs"]}
        if sorted(jobs) != sorted(order):
            raise BenchError(f"fio ran other jobs than asked for: {cell}: {list(jobs)}")
        return jobs

    def measure_data(self, cell, roots, turn):
        # Pages that others left are not for this one to reclaim.
        write_file("/proc/sys/vm/drop_caches", "1")
        order = self.turns(roots, turn)
        direction = "write" if "write" in cell.split()[0] else "read"
        for system, job in self.fio(cell, roots, order, self.plan["runtime_ms"]).items():
            moved = job[direction]
            if job["error"] or not moved["io_bytes"] or not moved["runtime"]:
                raise BenchError(f"fio: {cell} on {system}: error {job['error']}, "
                                 f"{moved['io_bytes']} bytes in {moved['runtime']} ms")
            seconds = moved["runtime"] / 1000
            self.record("data", round=turn, cell=cell, system=system,
                        mib_per_s=moved["io_bytes"] / MIB / seconds,
                        iops=moved["total_ios"] / seconds)
        self.check_servers()

    # Metadata

    def metadata(self, op, directory, count):
        done = subprocess.run([self.program("metadata"), op, directory, str(count)],
                              check=False, capture_output=True, text=True,
                              timeout=10 * PATIENCE)
        if done.returncode:
            raise BenchError(f"metadata {op}: {done.stderr.strip()}")
        return float(done.stdout)

    def measure_metadata(self, op, roots, turn):
        for system in self.turns(roots, turn):
            per_s = self.metadata(op, f"{roots[system]}/files", self.plan["files"])
            self.record("metadata", round=turn, op=op, system=system, per_s=per_s)
        self.check_servers()

    # Memory

    def measure_memory(self):
        """A queue of 64 requests, with one buffer each, or with pools"""
        pools = {"one for each request": "", "8 x 1 MiB": "ring_pool=1m:8",
                 "64 x 4 KiB + 4 x 1 MiB": "ring_pool=4k:64,ring_pool=1m:4"}
        for system in planned.RINGS:
            if system not in self.plan["systems"] or system in self.missing:
                continue
            for name, pool in pools.items():
                if (system in planned.POOLED) != bool(pool):
                    continue
                options = ",".join(o for o in ["ring_depth=64", pool] if o)
                try:
                    server = Server(self.program("passthrough_ring"), planned.RINGS[system],
                                    self.roots["tmpfs"], f"{WORK}/{system}", options)
                except WrongMode as error:
                    self.miss(system, str(error))
                    break
                self.record("memory", system=system, pools=name if system != "classic" else "-",
                            **server.memory())
                server.stop()

    # All of it

    def warm_up(self, roots):
        """Has the host give the guest its memory before anything is timed."""
        with open("/proc/meminfo", encoding="ascii") as file:
            free_kib = next(int(line.split()[1]) for line in file if line.startswith("MemFree:"))
        block = bytes(MIB)
        with open(f"{self.roots['tmpfs']}/memory", "wb", buffering=0) as file:
            for _ in range(free_kib * 9 // 10 // 1024):
                file.write(block)
        os.unlink(f"{self.roots['tmpfs']}/memory")
        for cell in ("read 1m buffered 1", "randwrite 1m direct 1"):
            self.fio(cell, roots, list(roots), 100)

    def run(self, first, count):
        plan = self.plan
        total = count * (len(plan["cells"]) + len(plan["metadata"]))
        done = 0
        self.record("guest", release=os.uname().release, version=os.uname().version,
                    first=first, count=count)
        self.prepare()
        if plan["cells"]:
            with self.mounted("") as roots:
                for system, server in self.servers.items():
                    self.record("server", system=system, **server.memory())
                self.warm_up(roots)
                for turn in range(first, first + count):
                    for cell in plan["cells"]:
                        self.measure_data(cell, roots, turn)
                        done += 1
                        print(f"progress {done} {total}", flush=True)
        if plan["metadata"]:
            # Names have to be looked up each time: a request for each stat.
            with self.mounted("entry_timeout=0,attr_timeout=60") as roots:
                for turn in range(first, first + count):
                    for op in plan["metadata"]:
                        self.measure_metadata(op, roots, turn)
                        done += 1
                        print(f"progress {done} {total}", flush=True)
        if first == 0 and "memory" in plan["parts"]:
            self.measure_memory()
        self.record("end", first=first, count=count)


def main():
    plan_path, results_path, first, count, binaries = sys.argv[1:6]
    with open(plan_path, encoding="utf-8") as file:
        plan = json.load(file)
    with open(results_path, "a", encoding="utf-8") as results:
        bench = Bench(plan, results, binaries, "--other" in sys.argv)
        try:
            bench.run(int(first), int(count))
        except (BenchError, OSError, subprocess.SubprocessError) as error:
            print(f"guest.py: error: {error}", flush=True)
            # A server may hang on to its mount: the machine ends anyway.
            os._exit(1)


if __name__ == "__main__":
    main()
