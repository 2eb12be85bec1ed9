# SPDX-License-Identifier: GPL-2.0
#
# Everything a person runs. The work is done by the scripts in scripts/, this
# file says what depends on what.
#
#   ENGINE=uml|qemu   which virtual machine (default: uml)
#   DEBUG=1           a kernel with KASAN, lockdep, kmemleak...; kcsan or
#                     coverage instead of 1: see scripts/kernel.sh
#   KERNEL=/path      a Linux 7.3 tree or tarball instead of Debian's package
#   CACHE_DIR=/path   where downloads and compiler results are kept
#   BENCH=quick       a part of the benchmark; scripts/bench.sh has all settings
#   TEST="a b"        only these test programs; ARGS='-t name' for them
#   ARCH=arm64|s390x  the machine that check-arch emulates
#   MUTANT="a b"      only these of the faults that check-mutants puts in
#   FIX="a b"         only these of the fixes or faults that check-fixes proves
#   KERNELS="7.2 x"   those that check-kernels runs: scripts/kernels.sh has the words
#   PARTS="fixes"     only these parts of the series
#   PART=fixes        the one that series writes as mails
#   PACKAGE="a b"     only these Debian packages of packaging/
#   RUNS=N            how often check-repeat runs the suite
#   DEBIAN=release    check-library on a system of this release instead of here
#   CROSS32=1         32-bit tests on the 64-bit kernel (ENGINE=qemu)
#   V=1               show the commands

ENGINE	?= uml
DEBUG	?= 0
V	?= 0
export ENGINE DEBUG V
export KERNEL KERNELS CACHE_DIR FORCE SIGNOFF JOBS RUNS W C CROSS32 PARTS PART

ifeq ($(filter uml qemu,$(ENGINE)),)
$(error ENGINE=$(ENGINE): uml or qemu)
endif

ifeq ($(CROSS32)$(ENGINE),1uml)
$(error CROSS32=1: User Mode Linux runs no 32-bit programs, ENGINE=qemu does)
endif

ifeq ($(V),0)
Q	:= @
else
Q	:=
endif

# The steps of a job run one after the other whatever -j says; each uses all
# processors by itself.
.NOTPARALLEL:
.DEFAULT_GOAL := help

name	:= $(ENGINE)$(if $(filter-out 0,$(DEBUG)),-$(DEBUG:1=debug))
bits	:= $(if $(filter 1,$(CROSS32)),-32)
image	:= build/$(name)/$(if $(filter uml,$(ENGINE)),linux,arch/x86/boot/bzImage)
memory	:= 2G
# Emulated and debugged, everything takes its time.
limit	:= $(if $(filter qemu,$(ENGINE)),3000,900)
# What takes down a kernel without the fixes is no danger to one with them.
vm	:= FUSE_DANGEROUS_TESTS=1 tools/testing/fuse/vm.sh -k $(image) -e $(ENGINE) -m $(memory) \
	   -S build/linux -O build/selftests$(bits)

help:
	@echo 'The main job:'
	@echo '  run_tests   - prepare, build, boot and test: one summary line at the end'
	@echo '  check       - all tests of the project: static checks, every commit of'
	@echo '                the series, every engine (what .ci/run calls)'
	@echo '  check-mutants - put faults into the kernel, one at a time: a test must'
	@echo '                fail for each'
	@echo '  check-fixes - take each fix away, and put each on the released kernel'
	@echo '                alone: its test must fail and pass'
	@echo '  check-kernels - the selftests on stock kernels, those of Debian in qemu: which'
	@echo '                known faults has each? build/reports/kernels/report.html'
	@echo '  check-arch  - the selftests on other machines, emulated: ARCH=arm64 with'
	@echo '                large pages, ARCH=s390x with big-endian numbers'
	@echo '  check-coverage - list the lines of the new files that no test reaches'
	@echo '  check-library - all tests of the library, at length: real file systems,'
	@echo '                load, killed servers'
	@echo '  check-repeat - the whole suite RUNS times (default 200, 20 in qemu)'
	@echo
	@echo 'Its steps:'
	@echo '  deps        - install missing Debian packages (as root or with sudo)'
	@echo '  tree        - unpack Linux 7.3 into build/linux and apply the series'
	@echo '  kernel      - build the kernel'
	@echo '  selftests   - build the tests'
	@echo '  shell       - boot the kernel and give a shell'
	@echo '  library     - build tools/lib/fuse_ring and tools/fuse into build/fuse_ring'
	@echo '  bench       - compare the modes, in time, instructions and memory:'
	@echo '                build/reports/bench/report.html (BENCH=quick: minutes)'
	@echo
	@echo 'Working on it:'
	@echo '  refresh     - write the commits of build/linux back to patches/'
	@echo '  deb         - the Debian packages of packaging/ and their sources, or those of'
	@echo '                PACKAGE="name ...": build/deb'
	@echo '  series      - mails for upstream, SIGNOFF="Name <mail>" signs them off'
	@echo '  clean       - remove what was built; distclean - the kernel tree too'
	@echo
	@echo 'Variables: ENGINE=uml|qemu DEBUG=1 KERNEL=tree-or-tarball CACHE_DIR=dir'
	@echo '           TEST="io_test ..." ARGS="-t name" MUTANT="name ..." FIX="name ..."'
	@echo '           KERNELS="7.3 6.12 path/to/bzImage" (check-kernels)'
	@echo '           PARTS="fixes ..." PART=fixes CROSS32=1 V=1 DEBIAN=trixie'

deps:
	$(Q)scripts/deps.sh run

tree:
	$(Q)scripts/tree.sh

kernel: tree
	$(Q)scripts/kernel.sh >/dev/null

selftests: tree
	$(Q)scripts/selftests.sh all

run_tests: deps kernel selftests
	$(Q)$(vm) -j -r build/reports/$(name)$(bits) -t $(limit) \
		$(if $(TEST),-T '$(TEST)') $(if $(ARGS),-a '$(ARGS)')

shell: deps kernel
	$(Q)$(vm) -r build/reports/$(name)-shell -s

library: deps
	$(Q)$(MAKE) -C tools/lib/fuse_ring O=$(CURDIR)/build/fuse_ring
	$(Q)$(MAKE) -C tools/fuse O=$(CURDIR)/build/fuse_ring

bench: tree
	$(Q)scripts/deps.sh bench
	$(Q)scripts/bench.sh

refresh:
	$(Q)scripts/refresh.sh

series: tree
	$(Q)scripts/series.sh

deb: $(if $(filter kselftest-fuse,$(or $(PACKAGE),kselftest-fuse)),tree)
	$(Q)scripts/deps.sh deb
	$(Q)scripts/deb.sh $(PACKAGE)

check:
	$(Q)scripts/check.sh

check-mutants:
	$(Q)scripts/mutants.sh $(MUTANT)

check-fixes:
	$(Q)scripts/fixes.sh $(FIX)

check-kernels:
	$(Q)TEST='$(TEST)' ARGS='$(ARGS)' scripts/kernels.sh

check-arch:
	$(Q)CROSS='$(or $(ARCH),none)' \
		TEST='$(TEST)' ARGS='$(ARGS)' scripts/kernels.sh

check-coverage:
	$(Q)scripts/coverage.sh

check-repeat:
	$(Q)scripts/repeat.sh

check-library:
	$(Q)scripts/deps.sh library
	$(Q)scripts/tree.sh
	$(Q)scripts/kernel.sh >/dev/null
	$(if $(DEBIAN),$(Q)scripts/debian_root.sh $(DEBIAN) >/dev/null)
	$(Q)tools/lib/fuse_ring/tests/run.sh -k $(image) -e $(ENGINE) -S build/linux \
		$(if $(DEBIAN),-R build/debian-$(DEBIAN),-O build/fuse_ring-tests) \
		-r build/reports/$(name)-library$(DEBIAN:%=-%) -t 7200 \
		$(if $(TEST),-T '$(TEST)') $(if $(ARGS),-a '$(ARGS)')

# The series and the tests live with the kernel tree, the builds go.
clean:
	$(Q)rm -rf build/uml build/uml-* build/qemu build/qemu-* \
		build/base build/check build/cpu build/fixes build/mutants \
		build/selftests build/selftests-* build/i386 \
		build/fuse_ring build/fuse_ring-tests* \
		build/series build/reports build/apt build/deb

distclean:
	$(Q)if [ -d build/linux/.git ]; then scripts/tree.sh --unsaved; fi
	$(Q)rm -rf --one-file-system build

.PHONY: help deps tree kernel selftests run_tests shell library bench refresh series deb check \
	check-mutants check-fixes check-kernels check-arch check-coverage check-library \
	check-repeat clean distclean
