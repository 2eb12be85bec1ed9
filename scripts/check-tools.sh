#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-tools.sh: tests of the scripts themselves, on a toy kernel tree in a
# directory of its own: what they make, what they refuse and how they say it,
# and that the judges of a test run do judge.

. "$(dirname "$0")/lib.sh" || exit 1

box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
vm=$WORKSHOP/vm.sh
bad=0

ok()
{
	echo "ok: $1"
}

# expect WHAT COMMAND...: succeeds.
expect()
{
	local what=$1

	shift
	if "$@" >"$box/out" 2>&1; then
		ok "$what"
	else
		bad=1
		echo "FAIL: $what: $(tail -n 3 "$box/out")"
	fi
}

# refuse WHAT MESSAGE COMMAND...: fails, with exactly one line of error that
# says so.
refuse()
{
	local what=$1 message=$2

	shift 2
	if "$@" >"$box/out" 2>&1; then
		bad=1
		echo "FAIL: $what: went through"
	elif [ "$(grep -c 'error: ' "$box/out")" != 1 ] || ! grep -q "error: .*$message" "$box/out"; then
		bad=1
		echo "FAIL: $what: unexpected words: $(cat "$box/out")"
	else
		ok "$what"
	fi
}

# A toy kernel: as much of one as the scripts look at.
toy=$box/toy/linux-$KVER
mkdir -p "$toy/fs/fuse"
printf 'VERSION = %s\nPATCHLEVEL = %s\nSUBLEVEL = 9\n' "${KVER%.*}" "${KVER#*.}" >"$toy/Makefile"
seq 1 60 >"$toy/fs/fuse/dev.c"
tar -C "$box/toy" -cJf "$box/toy.tar.xz" "linux-$KVER"
mkdir -p "$box/old/linux-6.1"
printf 'VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 0\n' >"$box/old/linux-6.1/Makefile"
tar -C "$box/old" -cJf "$box/old.tar.xz" linux-6.1

# A repository with nothing but the scripts.
repo=$box/repo
linux=$repo/build/linux
mkdir -p "$repo/patches/fixes" "$repo/patches/tools" "$box/cache"
cp -r "$TOP/scripts" "$repo/"
printf 'build/\n' >"$repo/.gitignore"
echo '# order' | tee "$repo/patches/fixes/series" >"$repo/patches/tools/series"
export PARTS="fixes tools"
git -C "$repo" init -q
export CACHE_DIR=$box/cache
unset KERNEL FORCE

tree()
{
	"$repo/scripts/tree.sh"
}

refresh()
{
	"$repo/scripts/refresh.sh"
}

commit()
{
	git -C "$linux" add -A &&
	git -C "$linux" -c user.name=dev -c user.email=dev@localhost commit -q -m "$1"
}

head_tree()
{
	git -C "$linux" rev-parse 'HEAD^{tree}'
}

refuse "a source that is not there" "no such tree or tarball" \
	env KERNEL="$box/nowhere" "$repo/scripts/tree.sh"
refuse "a source of another version" "is Linux 6.1.0" \
	env KERNEL="$box/old.tar.xz" "$repo/scripts/tree.sh"
refuse "a source that is no tarball" "not a kernel tarball" \
	env KERNEL="$repo/scripts/tree.sh" "$repo/scripts/tree.sh"
expect "nothing is left of a failed start" test ! -e "$linux" -a ! -e "$linux.tmp"
refuse "no way to the archive" "check the network" env \
	http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 \
	"$repo/scripts/fetch.sh"
expect "a tarball makes a tree" env KERNEL="$box/toy.tar.xz" "$repo/scripts/tree.sh"
one=$repo/patches/fixes/fuse-one.patch
base=$(git -C "$linux" rev-parse base)
rm -rf "$repo/build"
expect "a directory makes a tree" env KERNEL="$toy" "$repo/scripts/tree.sh"
expect "the base commit is always the same" \
	test "$base" = "$(git -C "$linux" rev-parse base)"

# From the tree to the repository and back.
sed -i 's/^30$/thirty/' "$linux/fs/fuse/dev.c"
echo new >"$linux/fs/fuse/new.c"
mkdir -p "$linux/tools/lib/fuse_ring"
echo lib >"$linux/tools/lib/fuse_ring/ring.c"
commit "fuse: one

Why, with a line that looks like
 a list: 1."
printf '#!/bin/sh\n' >"$linux/tools/lib/fuse_ring/run.sh"
chmod +x "$linux/tools/lib/fuse_ring/run.sh"
sed -i 's/^50$/fifty/' "$linux/fs/fuse/dev.c"
commit "fuse: two"
want=$(head_tree)
rm "$linux/.git/fuse-digest"
refuse "commits nobody saved" "not in patches/" tree
expect "refresh writes the patches" refresh
expect "one file each, in order" test "$(cat "$repo/patches/fixes/series")" = "# order
fuse-one.patch
fuse-two.patch"
expect "new files are whole in the repository" \
	test "$(cat "$repo/fs/fuse/new.c" "$repo/tools/lib/fuse_ring/ring.c")" = "new
lib"
expect "and executable where they were" test -x "$repo/tools/lib/fuse_ring/run.sh"
expect "patches hold no new file" sh -c "! grep -h '^+++' '$repo'/patches/*/*.patch | grep -v dev.c"
expect "a directory of ours is named as one" \
	grep -q '^New-file: tools/lib/fuse_ring/$' "$one"
expect "tree takes them" tree
expect "and gives the same files" test "$want" = "$(head_tree)"
expect "without trailers in the messages" \
	sh -c "! git -C '$linux' log base.. | grep New-file"
before=$(git -C "$linux" rev-parse HEAD; sha256sum "$repo"/patches/*/*)
refresh 2>/dev/null
tree 2>/dev/null
expect "doing both again changes nothing" test "$before" = \
	"$(git -C "$linux" rev-parse HEAD; sha256sum "$repo"/patches/*/*)"

# Parts.
mv "$repo/patches/fixes/fuse-two.patch" "$repo/patches/tools/"
sed -i '/two/d' "$repo/patches/fixes/series"
echo fuse-two.patch >>"$repo/patches/tools/series"
tree 2>/dev/null
expect "a patch that moves to another part stays there" sh -c \
	"'$repo/scripts/refresh.sh' && grep -qx fuse-two.patch '$repo/patches/tools/series'"
expect "and is the same commit" test "$want" = "$(head_tree)"
expect "one part alone makes a tree" env PARTS=fixes "$repo/scripts/tree.sh"
expect "without the other" grep -qx 50 "$linux/fs/fuse/dev.c"
expect "all parts are back" tree
expect "a part is sent as mails" env PART=tools SIGNOFF="A Person <a@example.org>" \
	"$repo/scripts/series.sh"
expect "of that person, on top of the parts before it" sh -c \
	"grep -q '^From: A Person' '$repo'/build/series/tools/0001-fuse-two.patch &&
	grep -q '^Signed-off-by: A Person <a@example.org>' '$repo'/build/series/tools/*.patch &&
	test ! -e '$repo'/build/series/tools/0002*"
was=$(git -C "$linux" rev-parse HEAD)
echo later >>"$linux/fs/fuse/new.c"
git -C "$linux" -c user.name=dev -c user.email=dev@localhost commit -q -a --amend --no-edit
want_later=$(head_tree)
export EDITED_LATER=fs/fuse/new.c
expect "a commit that edits a new file of another" refresh
expect "leaves it as that commit has it" test "$(cat "$repo/fs/fuse/new.c")" = new
expect "and has the edit in its patch" grep -qx '+later' "$repo/patches/tools/fuse-two.patch"
expect "tree takes both" sh -c "rm '$linux/.git/fuse-digest' '$linux/.git/fuse-commits'
	git -C '$linux' reset -q --hard '$was' && FORCE=1 '$repo/scripts/tree.sh'"
expect "as they were" test "$want_later" = "$(head_tree)"
unset EDITED_LATER
git -C "$linux" reset -q --hard "$was"
refresh 2>/dev/null
expect "and without that all is as it was" test "$(cat "$repo/fs/fuse/new.c")" = new
refuse "a part nobody has" "one of fixes tools" env PART=nothing "$repo/scripts/series.sh"
git -C "$linux" checkout -q --detach base
sed -i 's/^50$/fifty/' "$linux/fs/fuse/dev.c"
commit "fuse: two"
sed -i 's/^30$/thirty/' "$linux/fs/fuse/dev.c"
commit "fuse: one"
refuse "a part before the one it builds on" "comes after part tools" refresh
git -C "$linux" checkout -q main

# Edits in the repository.
touch -d '2001-01-01' "$linux/fs/fuse/dev.c"
git -C "$linux" update-index -q --refresh
echo newer >"$repo/fs/fuse/new.c"
echo more >"$repo/tools/lib/fuse_ring/more.c"
expect "tree takes edits of the repository" tree
expect "an edited file" test "$(cat "$linux/fs/fuse/new.c")" = newer
expect "and one more in a directory of ours" test -f "$linux/tools/lib/fuse_ring/more.c"
expect "other files keep their age" test "$(date -r "$linux/fs/fuse/dev.c" +%Y)" = 2001

# Edits on both sides.
echo uncommitted >>"$linux/fs/fuse/dev.c"
echo newest >"$repo/fs/fuse/new.c"
expect "work in nobody's way stays" tree
expect "as it was" grep -q uncommitted "$linux/fs/fuse/dev.c"
git -C "$linux" checkout -q fs/fuse/dev.c
echo mine >"$linux/fs/fuse/new.c"
echo yours >"$repo/fs/fuse/new.c"
refuse "uncommitted work in the way" "fs/fuse/new.c" tree
commit "fuse: mine"
refuse "a file edited on both sides" "fs/fuse/new.c was edited in the repository and" refresh
expect "the repository is as it was" test "$(cat "$repo/fs/fuse/new.c")" = yours
echo newest >"$repo/fs/fuse/new.c"
expect "edited on one side only" refresh
expect "that side wins" test "$(cat "$repo/fs/fuse/new.c")" = mine
echo hand >>"$one"
refuse "a patch edited by hand" "edited since" refresh
tree 2>/dev/null || :
git -C "$linux" rm -q fs/fuse/new.c
sed -i '$d' "$one"
tree 2>/dev/null
commit "fuse: without the new file"
expect "a file that is gone" refresh
expect "is gone in the repository" test ! -e "$repo/fs/fuse/new.c"
tree 2>/dev/null

# A series that does not apply.
have=$(head_tree)
sed -i 's/^-30$/-31/' "$one"
refuse "a patch that does not apply" "fixes/fuse-one.patch does not apply: .*fs/fuse/dev.c" tree
expect "leaves the tree alone" test "$have" = "$(head_tree)"
sed -i 's/^-31$/-30/' "$one"
rm "$repo/tools/lib/fuse_ring/"*
sed -i 's,^New-file: tools/lib/fuse_ring/$,New-file: fs/fuse/lost.c,' "$one"
refuse "a new file that is not there" "adds fs/fuse/lost.c" tree
echo fuse-lost.patch >>"$repo/patches/tools/series"
refuse "a patch that is not there" "fuse-lost.patch, which is not there" tree

# A damaged download is fetched again, never used.
echo junk >"$box/cache/linux-source-${KVER}_1.tar.xz"
echo "0  linux-source-${KVER}_1.tar.xz" >"$box/cache/linux-source-${KVER}_1.tar.xz.sha256"
http_proxy=http://127.0.0.1:9 "$repo/scripts/fetch.sh" >"$box/out" 2>&1 || :
expect "a damaged tarball is not used" test ! -e "$box/cache/linux-source-${KVER}_1.tar.xz"

# Fixes and the faults that they mend.
faults=$repo/tools/testing/fuse/known_faults
mkdir -p "$faults" "$repo/tools/testing/selftests/fuse"
touch "$repo/tools/testing/selftests/fuse/io_test.c"
echo '# order' >"$repo/patches/tools/series"
rm -f "$repo/patches/tools/"*.patch "$repo/patches/fixes/"*.patch

# a_fix NAME LINE TEXT [NEEDS]: changes a line of the file
a_fix()
{
	printf 'From: d <d@localhost>\nDate: Fri, 27 Nov 2026 00:00:00 +0000\n' >"$repo/patches/fixes/$1.patch"
	printf 'Subject: [PATCH] fuse: %s\n\nWhy.\n\n%s\n---\n' "$1" "${4:+Needs: fuse: $4}" >>"$repo/patches/fixes/$1.patch"
	seq 1 60 | sed "${5:-}" >"$box/a"
	sed "s/^$2\$/$3/" "$box/a" >"$box/b"
	{ diff -u --label a/fs/fuse/dev.c --label b/fs/fuse/dev.c "$box/a" "$box/b" || :; } |
		sed '1i diff --git a/fs/fuse/dev.c b/fs/fuse/dev.c' >>"$repo/patches/fixes/$1.patch"
	echo "$1.patch" >>"$repo/patches/fixes/series"
}

# finds WHAT WORDS: what fixes.sh --check has to say
finds()
{
	if "$repo/scripts/fixes.sh" --check >"$box/out" 2>&1 || ! grep -q "FAILED: .*$2" "$box/out"; then
		bad=1
		echo "FAIL: $1: $(cat "$box/out")"
	else
		ok "$1"
	fi
}

echo '# order' >"$repo/patches/fixes/series"
a_fix first 10 ten
a_fix second 11 eleven first 's/^10$/ten/'
printf 'Patch: first\nFault: x\nHarm: hang\nReleases: 7.3-now\nTest: io_test -t a\nKernel: uml\nDangerous: no\n' >"$faults/one"
finds "a fix without a fault" "second.patch: no file of known_faults"
printf 'Patch: second\nFault: x\nHarm: hang\nReleases: 7.3-now\n' >"$faults/two"
finds "a fault without a test or a reason" "two: neither a Test nor"
echo 'Untested: no way' >>"$faults/two"
expect "all of it fits" "$repo/scripts/fixes.sh" --check
expect "tests of known faults are named" test "$("$repo/scripts/fixes.sh" --tests)" = "io_test a"
expect "of a release that has them" test "$("$repo/scripts/fixes.sh" --tests 7.3)" = "io_test a"
expect "and none of an older one" test -z "$("$repo/scripts/fixes.sh" --tests 7.2)"
printf 'Mended: 7.2\nFault: x\nHarm: hang\nReleases: 7.0-7.1\nTest: io_test -t b\nKernel: uml\nDangerous: no\n' >"$faults/old"
expect "a fault of older kernels needs no patch" "$repo/scripts/fixes.sh" --check
expect "and is in those" test "$("$repo/scripts/fixes.sh" --tests 7.1)" = "io_test b"
expect "the letter names both fixes" sh -c \
	"'$repo/scripts/fixes.sh' --letter | grep -A 9 '^ 1. fuse: first' | grep -q '^ 2. fuse: second'"
sed -i 's/^Harm: .*/Harm: some/' "$faults/one"
finds "an unknown harm" "one: Harm is none of"
sed -i 's/^Harm: .*/Harm: hang/; s/io_test/lost_test/' "$faults/one"
finds "a program that is not there" "one: lost_test is no test program"
sed -i 's/lost_test/io_test/; s/^Patch: .*/Patch: third/' "$faults/one"
finds "a patch that is not there" "one: Patch is none of"
sed -i 's/^Patch: .*/Patch: first/' "$faults/one"
sed -i '/^Needs:/d' "$repo/patches/fixes/second.patch"
finds "a fix that needs more than it says" "second.patch does not apply"

refuse "an engine nobody has" "uml or qemu" env ENGINE=vax "$repo/scripts/kernel.sh"
refuse "a kernel nobody built" "build it first" "$vm" -k "$box/none"
refuse "an image that is not there" "there is no $box/none" \
	env KERNELS="7.3 $box/none" "$repo/scripts/kernels.sh"
refuse "a kernel of no kind" "neither a version, a path, series nor uml" \
	env KERNELS=stock "$repo/scripts/kernels.sh"
refuse "a machine nobody has" "ARCH=vax: arm64 or s390x" \
	env CROSS=vax ENGINE=qemu "$repo/scripts/kernel.sh"
refuse "no machine" "ARCH=none: arm64 or s390x" \
	env CROSS=none "$repo/scripts/kernels.sh"
refuse "User Mode Linux for another machine" "uml is none of arm64" \
	env CROSS=arm64 KERNELS=uml "$repo/scripts/kernels.sh"

# The judge of kernel logs: every sample line must be seen, and nothing in the
# log of a healthy boot.
while read -r line; do
	echo "$line" >"$box/log"
	if "$vm" --scan "$box/log" >/dev/null; then
		bad=1
		echo "FAIL: not seen in a kernel log: $line"
	fi
done <<'END'
WARNING: CPU: 0 PID: 42 at fs/fuse/dev_uring.c:123 fuse_uring_cmd+0x1/0x2
WARNING: fs/fuse/dev.c:77 at fuse_dev_do_read+0x1/0x2, CPU#0: server/51
kernel BUG at mm/slub.c:500!
BUG: KASAN: slab-use-after-free in fuse_uring_commit+0x33/0x44
BUG: kernel NULL pointer dereference, address: 0000000000000010
BUG: sleeping function called from invalid context at mm/page_alloc.c:1
BUG: scheduling while atomic: server/51/0x00000002
BUG: workqueue lockup - pool cpus=0 stuck for 30s!
BUG: memory leak
Oops: general protection fault, probably for non-canonical address
Kernel panic - not syncing: Fatal exception
UBSAN: array-index-out-of-bounds in fs/fuse/dev_uring.c:9:3
BUG: KCSAN: data-race in fuse_uring_a / fuse_uring_b
WARNING: possible recursive locking detected
WARNING: possible circular locking dependency detected
WARNING: inconsistent lock state
inconsistent {SOFTIRQ-ON-W} -> {IN-SOFTIRQ-W} usage.
WARNING: bad unlock balance detected!
WARNING: held lock freed!
WARNING: suspicious RCU usage
DEBUG_LOCKS_WARN_ON(1)
BUG: MAX_LOCKDEP_CHAINS too low!
turning off the locking correctness validator.
INFO: task client:52 blocked for more than 60 seconds.
rcu: INFO: rcu_preempt self-detected stall on CPU
watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [server:51]
refcount_t: underflow; use-after-free.
list_del corruption. prev->next should be ffff, but was dead
ODEBUG: free active (active state 0) object type: work_struct
BUG: Bad page state in process server  pfn:12345
Bad pagetable: 000d [#1]
kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
unreferenced object 0xffff888004a5c000 (size 64):
kmemleak: Kernel memory leak detector disabled
END
ok "faults in a kernel log are seen"
for line in 'kmemleak: Kernel memory leak detector initialized (mem pool available: 15844)' \
	    'fuse: init (API version 7.46)' 'rcu: Hierarchical SRCU implementation.' \
	    'Lock dependency validator: Copyright (c) 2006 Red Hat' \
	    'kasan: KernelAddressSanitizer initialized (generic)' \
	    'BUG: KCSAN: data-race in fuse_chan_abort / fuse_get_req'; do
	echo "$line" >"$box/log"
	expect "not a fault: $line" "$vm" --scan "$box/log"
done
echo 'WARNING fuse_dev_do_read' >"$box/known"
echo 'WARNING: fs/fuse/dev.c:77 at fuse_dev_do_read+0x1/0x2, CPU#0: server/51' >"$box/log"
expect "a warning that is known" "$vm" --known "$box/known" --scan "$box/log"
echo 'WARNING: fs/fuse/dev.c:79 at fuse_dev_do_readahead+0x1/0x2, CPU#0: server/51' >>"$box/log"
expect "a warning somewhere else" test 1 = \
	"$("$vm" --known "$box/known" --scan "$box/log" | grep -c WARNING)"

# The judge of test results.
counts()
{
	local what=$1 want=$2

	cat >"$box/ktap"
	if [ "$("$vm" --summary "$box/ktap" | tail -n 1)" = "$want" ]; then
		ok "$what"
	else
		bad=1
		echo "FAIL: $what: $("$vm" --summary "$box/ktap")"
	fi
}

counts "passes, failures and skips are counted" "1 passed, 1 failed, 1 skipped" <<'END'
# selftests: fuse: io_test
# TAP version 13
# 1..3
# ok 1 global.reads
# not ok 2 global.writes
# ok 3 global.zero_copy # SKIP no buffer rings
not ok 1 selftests: fuse: io_test # exit=1
END
counts "a program without inner tests counts once" "1 passed, 0 failed, 1 skipped" <<'END'
# selftests: fuse: a_test
ok 1 selftests: fuse: a_test
# selftests: fuse: b_test
ok 2 selftests: fuse: b_test # SKIP
END
counts "a program that skips itself does, too" "1 passed, 0 failed, 1 skipped" <<'END'
# selftests: fuse: a_test
# TAP version 13
# 1..0 # SKIP no buffer rings
ok 1 selftests: fuse: a_test # SKIP
# selftests: fuse: b_test
ok 2 selftests: fuse: b_test
END
expect "and says why" grep -qx 'skipped: a_test (no buffer rings)' < <("$vm" --summary "$box/ktap")
counts "variants that are left out are no tests" "1 passed, 0 failed, 0 skipped" <<'END'
# selftests: fuse: io_test
# TAP version 13
# # not run, kernel has no rings (BUFRING is not offered): bufring pinned
# 1..1
# ok 1 io.entries.reads
ok 1 selftests: fuse: io_test
END
expect "but the summary says so" grep -qxF \
	'not run: variants in 1 programs (kernel has no rings (BUFRING is not offered))' \
	< <("$vm" --summary "$box/ktap")
counts "a crash after the last test is a failure" "1 passed, 1 failed, 0 skipped" <<'END'
# selftests: fuse: io_test
# 1..1
# ok 1 global.reads
not ok 1 selftests: fuse: io_test # exit=139
END
counts "tests that never report are failures" "1 passed, 2 failed, 0 skipped" <<'END'
# selftests: fuse: io_test
# 1..3
# ok 1 global.reads
not ok 1 selftests: fuse: io_test # TIMEOUT 45 seconds
END
counts "a program that never ends is a failure" "1 passed, 1 failed, 0 skipped" <<'END'
# selftests: fuse: a_test
ok 1 selftests: fuse: a_test
# selftests: fuse: io_test
# 1..3
END
counts "so it is where another machine's programs follow" "1 passed, 1 failed, 0 skipped" <<'END'
# selftests: fuse: io_test
# 1..3
# selftests: fuse: a_test
ok 1 selftests: fuse: a_test
END
counts "a selection of nothing is no pass" "0 passed, 0 failed, 1 skipped" <<'END'
# selftests: fuse: io_test
# 1..0
ok 1 selftests: fuse: io_test
END
counts "silence is a failure" "0 passed, 1 failed, 0 skipped" </dev/null
counts "a program that could not be started is a failure" "0 passed, 1 failed, 0 skipped" <<'END'
# selftests: fuse: a_test
ok 1 selftests: fuse: a_test # XFAIL
END

# What a run leaves: the times and faults beside a log, and what another parser
# than ours reads in the files made of them.
run=$box/run
mkdir -p "$run"
printf '# selftests: fuse: io_test
# 1..4
# #  RUN           io.pinned.reads ...
# ok 1 io.pinned.reads
# #  RUN           io.pinned.writes ...
# # io_test.c:7:writes:Expected "a" < "b" && c > d\t(\001\033\377)
# # second line
# not ok 2 io.pinned.writes
# ok 3 io.zero_copy.reads # SKIP needs <this> & "that"
# ok 4 io.zero_copy.writes # SKIP needs <this> & "that"
# # not run, no rings: bufring pinned
not ok 1 selftests: fuse: io_test # exit=1
' >"$run/ktap.log"
seq 10 0.25 12.5 >"$run/ktap.times"
echo "the kernel complained: <BUG>" >"$run/faults"
expect "faults beside the tests count" test "$("$vm" --summary "$run/ktap.log" "$run" | tail -n 1)" = \
	"1 passed, 2 failed, 2 skipped"
expect "a JUnit file says the same" python3 - "$run/junit.xml" <<'END'
import sys, xml.etree.ElementTree as tree

root = tree.parse(sys.argv[1]).getroot()
suites = root.findall("testsuite")
assert [s.get("name") for s in suites] == ["io_test", "run"]
assert [root.get(k) for k in ("tests", "failures", "skipped")] == ["5", "2", "2"]
io = suites[0]
assert [io.get(k) for k in ("tests", "failures", "skipped")] == ["4", "1", "2"]
cases = {c.get("name"): c for c in root.iter("testcase")}
assert cases["io.pinned.reads"].get("classname") == "fuse.io_test"
assert cases["io.pinned.reads"].get("time") == "0.250"
assert len(cases["io.pinned.reads"]) == 0
assert cases["io.pinned.writes"].get("time") == "0.750"
want = 'io_test.c:7:writes:Expected "a" < "b" && c > d\t(???)'
failure = cases["io.pinned.writes"].find("failure")
assert failure.get("message") == want, failure.get("message")
assert failure.text == want + "\nsecond line\n", failure.text
skipped = cases["io.zero_copy.reads"].find("skipped")
assert skipped.get("message") == 'needs <this> & "that"'
assert cases["the kernel complained: <BUG>"].find("failure") is not None
END
echo "io_test writes" >"$run/known"
expect "a known fault is no failure" test "$("$vm" --known "$run/known" --summary "$run/ktap.log" |
	tail -n 1)" = "2 passed, 0 failed, 2 skipped"
echo "io_test reads" >"$run/known"
expect "another one is" test "$("$vm" --known "$run/known" --summary "$run/ktap.log" |
	tail -n 1)" = "1 passed, 1 failed, 2 skipped"
expect "skips are listed by reason" test "$(cat "$run/skips")" = '2 skipped: needs <this> & "that"
    io_test: io.zero_copy.reads
    io_test: io.zero_copy.writes
not run: no rings
    io_test: bufring pinned'
expect "what is left out is no result like others" test "$(grep -c '^out	io_test	' "$run/results")" = 2

# Reports of two kernels, of which one is as released and another may have fixes
kernels=$box/kernels
mkdir -p "$kernels"/faults "$kernels"/{7.3.4,mine}/boot-1 "$kernels/7.3.4/fault-dies"
for name in shown gone dies later; do
	printf '%s\n' "Patch: fuse-$name" "Fault: it is $name" "Harm: hang" "Releases: 6.14-now" \
		"Test: io_test -t $name" "Kernel: uml" "Dangerous: no" >"$kernels/faults/$name"
done
sed -i 's/6.14-now/7.4-now/' "$kernels/faults/later"
printf '%s\n' release=7.3.4+deb13-amd64 engine=qemu source=Debian stock=yes >"$kernels/7.3.4/kernel"
printf '%s\n' release=7.3.4-mine engine=qemu source=/boot/mine stock=no >"$kernels/mine/kernel"
{
	printf '%s\tio_test\tio.entries.%s\t%s\n' xfail shown 'it hung' pass gone '' \
		skip dies 'can take down a kernel without the fix' pass later ''
	printf 'skip\tio_test\tio.pinned.gone\tno buffer rings\n'
} | tee "$kernels/7.3.4/boot-1/results" >"$kernels/mine/boot-1/results"
printf 'fail\tio_test\tnever finished\t\n' >"$kernels/7.3.4/fault-dies/results"
echo 'Kernel panic - not syncing' >"$kernels/7.3.4/fault-dies/kernel.log"

# compare NAME: the report on that kernel
compare()
{
	python3 -B "$WORKSHOP/kernels_report.py" "$kernels" "$kernels/faults" "$kernels" "$1"
}

expect "a fault that should show and does not is an error" \
	test "$(compare 7.3.4 | grep FAILED)" = \
	"FAILED: 7.3.4: gone: should be in 7.3.4+deb13-amd64, but gone passes"
expect "but no failed test" test "$(compare 7.3.4 | tail -n 1)" = \
	"7.3.4: 2 passed, 0 failed, 2 xfail, 2 skipped"
expect "faults are told by what becomes of the kernel" \
	test "$(sed -n '2,5s/ *hang */ /p' "$kernels/table" | tr '\n' ,)" = \
	"dies crashes,gone gone,later -,shown yes,"
expect "a kernel that has a fix is no error" compare mine
expect "but a result" grep -qE '^gone +hang +fixed$' "$kernels/table"
expect "what no test shows there is open" grep -qE '^dies +hang +[?]$' "$kernels/table"
printf 'fail\tio_test\tio.entries.reads\tExpected 1 == 2\n' >>"$kernels/mine/boot-1/results"
sed -i 's/^pass\(.*later\)/fail\1/' "$kernels/mine/boot-1/results"
expect "a failure that nothing explains is" test "$(compare mine | grep FAILED)" = \
	"FAILED: mine: io_test: io.entries.later
FAILED: mine: io_test: io.entries.reads: Expected 1 == 2"
expect "and so is a fault where the data have none" \
	grep -qE '^later +hang +new$' "$kernels/table"
expect "the page says it all" test "$(grep -c 'Expected 1 == 2' "$kernels/report.html")" = 1

# Two machines, in whose place a script says what a guest would.
mkdir -p "$box/tree/tools/testing/selftests"
: >"$box/tree/tools/testing/selftests/lib.mk"
cat >"$box/linux" <<'END'
#!/bin/bash
for parameter; do
	case $parameter in
	vm_report=*) report=${parameter#*=} ;;
	esac
done
. "$report/guest.env"
[ "$before" != 0 ] || printf 'TAP version 13\n1..%d\n' "$total"
for t in $tests; do
	printf '# selftests: fuse: %s\n# TAP version 13\n# 1..1\n# ok 1 it.works\n' "$t"
	printf 'ok %d selftests: fuse: %s\n' "$((++before))" "$t"
done
case " $tests " in
*" $DIES "*)	;;
*)		echo 0 >"$report/verdict" ;;
esac
END
chmod +x "$box/linux"

# machines DIES [OPTION...]: the last line of a run whose machine with the
# program DIES ends too early
machines()
{
	DIES=$1 "$vm" -e uml -k "$box/linux" -S "$box/tree" -O "$box/tree" \
		-r "$box/machines" "${@:2}" | tail -n 1
}

programs=$(find "$TOP/$SELFTESTS" "$WORKSHOP" -maxdepth 1 -name '*_test.c' | wc -l)
expect "two machines run each program once" \
	test "$(machines none -j)" = "$programs passed, 0 failed, 0 skipped"
expect "kunit.py counts them, too" "$TOP/scripts/kunit.sh" "$box/machines"
sed -i '/^ok 2 /d' "$box/machines/ktap.log"
refuse "and sees if one is missing" "but kunit.py counts" "$TOP/scripts/kunit.sh" "$box/machines"
expect "none is left out" test "$(grep -c '^# selftests: ' "$box/machines/ktap.log")" = \
	"$(grep '^# selftests: ' "$box/machines/ktap.log" | sort -u | wc -l)"
expect "a first machine that dies is a failure" \
	test "$(machines fuzz_test -j)" = "$programs passed, 1 failed, 0 skipped"
expect "so is a second one" \
	test "$(machines io_test -j)" = "$programs passed, 1 failed, 0 skipped"
expect "one program needs one machine" \
	test "$(machines none -j -T io_test)" = "1 passed, 0 failed, 0 skipped"
expect "a part of the programs is what it says" \
	test "$(machines none -P 2 -T 'fuzz_test io_test')" = "1 passed, 0 failed, 0 skipped"
refuse "a part without programs" "none of these programs" \
	"$vm" -e uml -k "$box/linux" -S "$box/tree" -O "$box/tree" -P 2 -T fuzz_test

exit $bad
