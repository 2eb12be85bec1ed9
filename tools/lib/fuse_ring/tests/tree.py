#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
"""
A directory tree to try a file system with, the same in every run.

  tree.py make DIR [FILES]    makes it
  tree.py copy A B [xattr]    copies it into B, by several processes
  tree.py change DIR          renames, removes and rewrites parts of it
  tree.py compare A B [xattr] tells where two trees differ, and fails if they do
"""
import errno
import mmap
import os
import random
import shutil
import stat
import sys

XATTR = "user.fuse_ring_test"
KIB = 1024
MIB = 1024 * KIB
MTIME = 1700000000
WORKERS = 4


def size_of(rng, n, files):
    """Mostly small; some of every other size, and one as large as any"""
    if n == 0:
        return 5 * MIB
    kind = rng.random()
    if kind < 0.03:
        return 0
    if kind < 0.25:
        return rng.choice([1, 511, 512, 513, 4095, 4096, 4097, 8192])
    if kind < 0.89:
        return rng.randrange(1, 8 * KIB)
    if kind < 0.987:
        return rng.randrange(8 * KIB, 128 * KIB)
    if kind < 0.9985:
        return rng.randrange(128 * KIB, MIB)
    return rng.randrange(MIB, 5 * MIB)


def directories(rng, top):
    """Side by side, and one below the other"""
    names = [f"dir{n}" for n in range(24)]
    deep = "deep"
    for level in range(20):
        names.append(deep)
        deep = os.path.join(deep, f"level {level}")
    names.append("d" * 200)
    names.append("\N{SNOWMAN} \N{GREEK SMALL LETTER OMEGA}")
    for n in range(20):
        names.append(os.path.join(rng.choice(names[:24]), f"sub{n}"))
    for name in names:
        os.mkdir(os.path.join(top, name))
    return names


def write_file(path, data, mode):
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def make(top, files):
    rng = random.Random(1)
    os.makedirs(top, exist_ok=True)
    where = directories(rng, top)
    for n in range(files):
        name = "n" * 200 if n == 7 else f"file {n}" if n % 50 == 1 else f"file{n}"
        path = os.path.join(top, rng.choice(where), name)
        size = size_of(rng, n, files)
        data = rng.randbytes(size) if n % 3 else (b"%d\n" % n * (size // 2 + 1))[:size]
        write_file(path, data, rng.choice([0o644, 0o600, 0o755, 0o444]))
        if n % 10 == 0:
            os.setxattr(path, XATTR, rng.randbytes(rng.choice([1, 100, 1000])))
        if n % 20 == 0:
            os.symlink(os.path.basename(path), path + ".link")
        os.utime(path, (MTIME + n, MTIME + n))
    os.symlink("nowhere", os.path.join(top, "dangling"))
    os.symlink("x" * 1000, os.path.join(top, "long"))
    os.symlink("deep", os.path.join(top, "to a directory"))


def entries(top):
    """Every name below @top with what lstat() says, in a fixed order"""
    found = {}

    def add(below):
        with os.scandir(os.path.join(top, below)) as names:
            for entry in names:
                # What overlay file systems leave in their upper layer
                if entry.name.startswith(".wh."):
                    continue
                name = os.path.join(below, entry.name)
                found[name] = os.lstat(os.path.join(top, name))
                if stat.S_ISDIR(found[name].st_mode):
                    add(name)

    add("")
    return dict(sorted(found.items()))


def copy_entry(source, target, s, n, xattr):
    """The data in one piece, or in odd ones"""
    if stat.S_ISLNK(s.st_mode):
        os.symlink(os.readlink(source), target)
        return
    step = 4099 if n % 2 and s.st_size < 100000 else MIB
    with open(source, "rb") as file, open(target, "wb", buffering=0) as new:
        while part := file.read(step):
            if new.write(part) != len(part):
                sys.exit(f"{target}: a short write")
    os.chmod(target, stat.S_IMODE(s.st_mode))
    value = xattr_of(source) if xattr else None
    if value is not None:
        os.setxattr(target, XATTR, value)
    os.utime(target, (s.st_mtime, s.st_mtime))


def copy(source, target, xattr):
    found = entries(source)
    for name, s in found.items():
        if stat.S_ISDIR(s.st_mode):
            os.mkdir(os.path.join(target, name), stat.S_IMODE(s.st_mode))
    rest = [name for name, s in found.items() if not stat.S_ISDIR(s.st_mode)]
    children = []
    for worker in range(WORKERS):
        pid = os.fork()
        if pid:
            children.append(pid)
            continue
        # An error ends the child with its traceback and status 1.
        for n in range(worker, len(rest), WORKERS):
            name = rest[n]
            copy_entry(os.path.join(source, name), os.path.join(target, name),
                       found[name], n, xattr)
        sys.exit(0)
    if any(os.waitpid(pid, 0)[1] for pid in children):
        sys.exit("copying failed")


def rewrite(path, size, n):
    """Where and how much differs from file to file"""
    rng = random.Random(n)
    with open(path, "r+b") as file:
        file.seek(rng.randrange(size + 1))
        file.write(rng.randbytes(rng.choice([1, 100, 5000, 200000])))
        if n % 2:
            file.truncate(rng.randrange(size + 1))
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"appended")


def change(top):
    files = [(name, s.st_size) for name, s in entries(top).items()
             if stat.S_ISREG(s.st_mode)]
    for n, (name, size) in enumerate(files):
        path = os.path.join(top, name)
        if n % 7 == 0:
            os.unlink(path)
        elif n % 7 == 1:
            os.rename(path, os.path.join(top, "dir0", f"moved{n}"))
        elif n % 7 == 2:
            os.chmod(path, 0o640)
            rewrite(path, size, n)
        elif n % 70 == 3:
            os.rename(path, os.path.join(top, files[n - 2][0] + ".over"))
        elif n % 70 == 4:
            # Over a file that is there, and is open.
            with open(os.path.join(top, files[n + 1][0]), "rb") as replaced:
                before = replaced.read()
                os.rename(path, os.path.join(top, files[n + 1][0]))
                replaced.seek(0)
                if replaced.read() != before:
                    sys.exit(f"{files[n + 1][0]}: changed under its reader")
    # As mv does it: overlay file systems do not rename every directory.
    shutil.move(os.path.join(top, "deep"), os.path.join(top, "dir1", "was deep"))
    os.mkdir(os.path.join(top, "new"))
    remove_tree(os.path.join(top, "dir2"))
    try:
        os.rmdir(os.path.join(top, "dir0"))
        sys.exit("dir0: could be removed although it is not empty")
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EPERM, errno.EIO):
            raise


def remove_tree(top):
    for name, s in reversed(entries(top).items()):
        path = os.path.join(top, name)
        if stat.S_ISDIR(s.st_mode):
            os.rmdir(path)
        else:
            os.unlink(path)
    os.rmdir(top)


def contents(path, size, n):
    """By read() of odd and of large sizes, or by mmap()"""
    with open(path, "rb", buffering=0) as file:
        if n % 3 == 0 and size:
            with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapping:
                return mapping[:]
        step = 4099 if n % 3 == 1 and size < 100000 else MIB
        parts = []
        while part := file.read(step):
            parts.append(part)
        return b"".join(parts)


def describe(path, s, n, xattr):
    """What has to be the same in both trees"""
    facts = {"type and mode": oct(s.st_mode)}
    if stat.S_ISLNK(s.st_mode):
        facts["type and mode"] = "link"
        facts["target"] = os.readlink(path)
    if stat.S_ISREG(s.st_mode):
        facts["size"] = s.st_size
        facts["data"] = contents(path, s.st_size, n)
        if xattr:
            facts["xattr"] = xattr_of(path)
        if n % 10 and MTIME <= s.st_mtime < MTIME + 100000:
            facts["mtime"] = int(s.st_mtime)
    return facts


def xattr_of(path):
    try:
        return os.getxattr(path, XATTR)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None


def brief(value):
    return f"{len(value)} bytes" if isinstance(value, bytes) else value


def first_difference(left, right):
    for at, (one, other) in enumerate(zip(left, right)):
        if one != other:
            return at
    return min(len(left), len(right))


def compare(left, right, xattr):
    one, other = entries(left), entries(right)
    wrong = [f"{name}: only in {left if name in one else right}"
             for name in one.keys() ^ other.keys()]
    for n, name in enumerate(name for name in one if name in other):
        a = describe(os.path.join(left, name), one[name], n, xattr)
        b = describe(os.path.join(right, name), other[name], n, xattr)
        for fact in a.keys() | b.keys():
            if a.get(fact) == b.get(fact):
                continue
            at = ""
            if fact == "data":
                at = f", from byte {first_difference(a[fact], b[fact])} on"
            wrong.append(f"{name}: {fact}: {brief(a.get(fact))} in {left}, "
                         f"{brief(b.get(fact))} in {right}{at}")
    for line in wrong[:20]:
        print(line)
    if wrong:
        sys.exit(f"{len(wrong)} differences between {left} and {right}")
    print(f"{len(one)} names are the same in {left} and {right}")


def main(command, *args):
    if command == "make":
        make(args[0], int(args[1]) if len(args) > 1 else 2000)
    elif command == "copy":
        copy(args[0], args[1], "xattr" in args[2:])
    elif command == "change":
        change(args[0])
    elif command == "compare":
        compare(args[0], args[1], "xattr" in args[2:])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
