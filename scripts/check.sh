#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check.sh [WORD...]: the project's own tests, or those with one of the words in
# their name. One line each, the quick ones first; what they printed is in
# build/reports/check. The last line counts them.

. "$(dirname "$0")/lib.sh" || exit 1

out=$REPORTS/check
work=$BUILD/check
units="fs/fuse/ io_uring/ drivers/block/ublk_drv.o"
only=("$@")

# wanted NAME: is it one of the checks asked for?
wanted()
{
	local word

	for word in "${only[@]-$1}"; do
		[[ $1 != *"$word"* ]] || return 0
	done
	return 1
}

# run NAME FUNCTION [ARG...]: one check. Status 4 means it could not be made
# here; what it printed last says why.
run()
{
	local name=$1 file=$out/${1//[^A-Za-z0-9]/-} begin=$SECONDS rc

	shift
	wanted "$name" || return 0
	say "$name"
	# Not as part of a condition: set -e must end the check at a failure.
	set +e
	(set -e; "$@") >"$file.log" 2>&1 </dev/null
	rc=$?
	set -e
	echo $rc >"$file.status"
	tell "$name" "$file.log" $rc $((SECONDS - begin))
}

# In one piece, as others may be telling too
tell()
{
	local name=$1 log=$2 said

	said="$name ($4 s)$(note "$log")"
	case $3 in
	0)	echo "ok   $said" ;;
	4)	echo "SKIP $name: $(tail -n 1 "$log")" ;;
	*)	said="FAIL $said, log in ${log#"$TOP"/}:"
		printf '%s\n%s\n' "$said" "$(tail -n 25 "$log" | sed 's/^/     | /')" ;;
	esac
}

# beside NAME FUNCTION [ARG...]: one check, with others at the same time, and with
# what run() does after it
beside()
{
	wait_for_room "$JOBS" "${asleep[@]}"
	run "$@" &
}

# aside NAME FUNCTION [ARG...]: one check that waits most of the time, and so
# takes nobody's place
asleep=()
aside()
{
	run "$@" &
	asleep+=($!)
}

# The counts of a run of the selftests, to go beside its name.
note()
{
	tail -n 1 "$1" | grep -E '^[0-9]+ passed, ' | sed 's/^/: /' || :
}

# Compiler and checker complaints in a log of kbuild.
warnings()
{
	grep -E '(: |^)(warning|error): |: Warning: ' "$1" || :
}

commits()
{
	kgit rev-list --reverse base..refs/fuse/applied
}

# The commit of the last fix: a kernel with fixes and nothing else
last_fix()
{
	commits | sed -n "$(PARTS=fixes series | wc -l)p"
}

scripts_are_clean()
{
	local list

	cd "$TOP"
	mapfile -t list < <({
		rgit ls-files -co --exclude-standard -- '*.sh' .ci/run \
			'packaging/*/debian/tests/*' \
			':!packaging/*/debian/tests/'{control,'*.c'}
	} | sort -u | while read -r f; do [ ! -e "$f" ] || echo "$f"; done)
	shellcheck "${list[@]}"
}

files_have_a_licence()
{
	local f bad=0

	cd "$TOP"
	while read -r f; do
		[ -s "$f" ] || continue
		case $f in
		patches/*|*/mutants/*.patch|*/known_faults/*|*.md|MAINTAINERS|COPYING|LICENSES/*|*/settings)	continue ;;
		*/debian/changelog|*/debian/copyright|*/debian/source/format|*/.fmf/version)	continue ;;
		esac
		head -n 2 "$f" | grep -q SPDX-License-Identifier || {
			echo "no SPDX line: $f"
			bad=1
		}
	done < <(rgit ls-files -co --exclude-standard)
	return $bad
}

series_applies()
{
	local p f

	"$TOP/scripts/tree.sh"
	[ "$(kgit rev-parse "$("$TOP/scripts/tree.sh" --print)^{tree}")" = \
	  "$(kgit rev-parse 'refs/fuse/applied^{tree}')" ] || {
		echo "build/linux is not what patches/ gives: make tree"
		return 1
	}
	for p in "$TOP"/patches/*/*.patch; do
		grep -qxF "${p##*/}" "${p%/*}/series" || {
			echo "${p#"$TOP"/} is not in the series file beside it"
			return 1
		}
	done
	rgit ls-files -co --exclude-standard -- "${WHOLE_DIRS[@]}" | while read -r f; do
		[ ! -e "$TOP/$f" ] || kgit cat-file -e "refs/fuse/applied:$f" || {
			echo "$f is in no patch"
			return 1
		}
	done
}

# box DIR: a repository with scripts and patches, and a kernel tree without files
# that has nothing of the series
box()
{
	rm -rf "$1"
	mkdir -p "$1/build"
	(cd "$TOP" && cp -r scripts patches "$1/")
	git -C "$1" init -q
	git clone -q --shared --no-checkout "$LINUX" "$1/build/linux"
	git -C "$1/build/linux" update-ref refs/tags/base "$(kgit rev-parse base)"
	git -C "$1/build/linux" update-ref refs/fuse/applied base
}

# The real series through refresh and back, in a repository of its own.
round_trip()
{
	local box=$work/round-trip head

	head=$(kgit rev-parse refs/fuse/applied)
	box "$box"
	git -C "$box/build/linux" update-ref --no-deref HEAD "$head"
	git -C "$box/build/linux" read-tree "$head"
	for part in $PARTS; do
		rm -f "$box/patches/$part"/*.patch
		sed -i '/^#/!d' "$box/patches/$part/series"
	done
	# What part a new patch belongs to its subject does not say.
	sort -k 2 "$LINUX/.git/fuse-patches" >"$box/build/linux/.git/fuse-patches"
	FORCE=1 "$box/scripts/refresh.sh"
	diff -r "$TOP/patches" "$box/patches"
	kgit diff-tree -r --diff-filter=A --name-only base "$head" | while read -r f; do
		cmp "$TOP/$f" "$box/$f"
	done
	[ "$("$box/scripts/tree.sh" --print)" = "$head" ] || {
		echo "the refreshed patches give other commits"
		return 1
	}
	rm -rf "$box"
}

# What upstream's style checker says to every mail of a part, as somebody would
# send it. It need not ask for MAINTAINERS, which is part of the series; it cannot
# know commits in a tree without history, nor that ENOSYS is a word of the fuse
# protocol. Nor has the library, which is built outside of the tree, the kernel's
# macros. And macros that add variants to a fixture define objects of a file: there
# C has neither statements, which could be wrapped in do-while, nor expressions, for
# parentheses, and each object takes the fixture's name. All else counts.
checkpatch()
{
	local mail library said mails=$work/mails-$1 rc=0
	local variants='/selftests/fuse/variants\.h:[0-9]+: '

	variants+='(ERROR:COMPLEX_MACRO|WARNING:MULTISTATEMENT_MACRO_USE_DO_WHILE|'
	variants+='CHECK:MACRO_ARG_REUSE): '

	PART=$1 SIGNOFF="A Submitter <submitter@example.org>" "$TOP/scripts/series.sh" "$mails"
	cd "$LINUX"
	# Its helpers in Python need a module of Debian's own interpreter.
	for mail in "$mails"/*.patch; do
		[[ $mail != */0000-cover-letter.patch ]] || continue
		library=
		[[ $mail != *-tools-@(lib-fuse_ring|fuse)-* ]] ||
			library=,BIT_MACRO,PREFER_DEFINED_ATTRIBUTE_MACRO,CAMELCASE
		said=$(PATH=/usr/bin:$PATH scripts/checkpatch.pl --strict --quiet --terse \
			--show-types --showfile --ignore \
			"FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID,ENOSYS$library" "$mail") ||
			said=$(grep -vE "$variants" <<<"$said") || :
		# Nothing but the count, which shows that it came to its end
		echo "$said"
		[[ $said == "total: "* ]] || rc=1
	done
	return $rc
}

# The mails of the selftests on a kernel that has nothing of the series: each step
# builds, against the headers of that kernel and no others.
selftests_are_mails()
{
	local box=$work/selftests-box o=$work/selftests-am-o mails=$work/selftests-am-mails
	local tree=$work/selftests-am head mail

	box "$box"
	(cd "$TOP" && cp -r --parents "$SELFTESTS" include/uapi/linux/fuse_bufring.h "$box/")
	head=$(PARTS=selftests "$box/scripts/tree.sh" --print)
	git -C "$box/build/linux" update-ref refs/fuse/applied "$head"
	PARTS=selftests PART=selftests "$box/scripts/series.sh" "$mails"
	built "$TOP/scripts/selftests.sh" all
	rm -rf "$o" "$tree"
	mkdir -p "$o/include/linux"
	kgit show base:include/uapi/linux/fuse.h >"$o/include/linux/fuse.h"
	kgit worktree prune
	kgit worktree add -q --detach --force "$tree" base
	for mail in "$mails"/*[1-9]-*.patch; do
		[ "$(wc -c <"$mail")" -le 200000 ] || {
			echo "nobody reads that much at once: $mail"
			return 1
		}
		git -C "$tree" -c user.name="$IDENT_NAME" -c user.email="$IDENT_MAIL" am -q "$mail"
		make -j"$JOBS" -C "$tree/tools/testing/selftests" TARGETS=fuse FORCE_TARGETS=1 \
			O="$o" KHDR_INCLUDES="-isystem $o/include -isystem $BUILD/selftests/usr/include" \
			all >"$work/selftests-am.log" 2>&1 || {
			tail -n 20 "$work/selftests-am.log"
			return 1
		}
		[ -z "$(warnings "$work/selftests-am.log" | tee /dev/stderr)" ]
	done
	[ "$(git -C "$tree" rev-parse 'HEAD^{tree}')" = \
	  "$(git -C "$box/build/linux" rev-parse "$head^{tree}")" ] || {
		echo "the mails do not give the tree that they were made of"
		return 1
	}
	kgit worktree remove --force "$tree"
	rm -rf "$box"
}

# Those of the parser of KTAP that the series changes
kunit_parser_tests()
{
	python3 "$LINUX/tools/testing/kunit/kunit_tool_test.py" KUnitParserTest
}

# The mails of the fixes, as a maintainer takes them, on a kernel that has nothing
# else of the series
fixes_are_mails()
{
	local mails=$work/am-mails tree=$work/am

	PART=fixes "$TOP/scripts/series.sh" "$mails"
	! grep -nF '*** ' "$mails/0000-cover-letter.patch" || {
		echo "the cover letter has something of the form left in it"
		return 1
	}
	rm -rf "$tree"
	kgit worktree prune
	kgit worktree add -q --detach --force "$tree" base
	rm -f "$mails/0000-cover-letter.patch"
	git -C "$tree" -c user.name="$IDENT_NAME" -c user.email="$IDENT_MAIL" \
		am -q "$mails"/*.patch
	git -C "$tree" diff --exit-code "$(last_fix)" HEAD
	kgit worktree remove --force "$tree"
}

# kselftest_that_fails DIR: what looks like an installed kselftest there
kselftest_that_fails()
{
	rm -rf "$1"
	mkdir -p "$1"
	cat >"$1/run_kselftest.sh" <<-'END'
		cat <<-'LOG'
			TAP version 13
			1..2
			# selftests: fuse: io_test
			# 1..3
			# ok 1 io.bufpool.reads
			# not ok 2 io.bufpool.writes
			# ok 3 io.zero_copy.reads # SKIP no zero-copy
			not ok 1 selftests: fuse: io_test # exit=1
			# selftests: fuse: log_test
			ok 2 selftests: fuse: log_test
		LOG
		exit 1
	END
	chmod +x "$1/run_kselftest.sh"
}

# The job for LAVA: as its own schema wants it, and what its steps report of a log.
lava_job()
{
	local job=$WORKSHOP/ci/lava.yaml dir=$work/lava

	/usr/bin/python3 -c 'import lava_common' 2>/dev/null || {
		echo "lava-common is not installed: not every Debian has it"
		return 4
	}
	kselftest_that_fails "$dir"
	printf '#!/bin/sh\necho "$@" >>%s/results\n' "$dir" >"$dir/lava-test-case"
	chmod +x "$dir/lava-test-case"
	/usr/bin/python3 - "$job" >"$dir/steps" <<-'END'
		import sys, yaml
		from lava_common.schemas import validate

		job = yaml.safe_load(open(sys.argv[1]))
		validate(job)
		run = job["actions"][2]["test"]["definitions"][0]["repository"]["run"]
		print("\n".join(run["steps"]))
	END
	sed -i "s,/opt/kselftest,$dir,; s,/tmp/,$dir/," "$dir/steps"
	PATH=$dir:$PATH sh -e "$dir/steps"
	diff - "$dir/results" <<-'END'
		io.bufpool.reads --result pass
		io.bufpool.writes --result fail
		io.zero_copy.reads --result skip
		io_test --result fail
		log_test --result pass
	END
}

# tmt_valid WHAT FILE: is it a plan, or results, as scripts/tmt.schema.yaml has them?
tmt_valid()
{
	/usr/bin/python3 - "$TOP/scripts/tmt.schema.yaml" "$@" <<-'END'
		import sys, yaml, jsonschema

		schema, what, file = sys.argv[1:]
		schema = yaml.safe_load(open(schema)) | {"$ref": "#/definitions/" + what}
		jsonschema.Draft7Validator.check_schema(schema)
		errors = list(jsonschema.Draft7Validator(schema).iter_errors(
			yaml.safe_load(open(file))))
		for error in errors: print(*error.absolute_path, error.message)
		sys.exit(bool(errors))
	END
}

# The plan for tmt: as our own subset of its metadata wants it, and tmt itself where
# it is installed, which no Debian has; and the results that its test gives.
tmt_plan()
{
	local dir=$work/tmt plan=$WORKSHOP/ci/tmt/selftests.fmf fault

	[ "$(cat "$WORKSHOP/ci/tmt/.fmf/version")" = 1 ]
	tmt_valid plan "$plan"
	if command -v tmt; then
		(cd "$WORKSHOP/ci/tmt" && tmt lint)
	fi
	rm -rf "$dir"
	kselftest_that_fails "$dir/kselftest"
	tar -C "$dir/kselftest" -czf "$dir/kselftest.tar.gz" .
	/usr/bin/python3 - "$plan" >"$dir/test" <<-'END'
		import sys, yaml

		print(yaml.safe_load(open(sys.argv[1]))["discover"]["tests"][0]["test"])
	END
	mkdir "$dir/data"
	KSELFTEST=file://$dir/kselftest.tar.gz TMT_TEST_DATA=$dir/data TMPDIR=$dir \
		bash -eo pipefail "$dir/test"
	tmt_valid results "$dir/data/results.yaml"
	diff - <(paste -d ' ' - - - <"$dir/data/results.yaml") <<-'END'
		- name: "/io.bufpool.reads"   result: pass   log: [ktap.log]
		- name: "/io.bufpool.writes"   result: fail   log: [ktap.log]
		- name: "/io.zero_copy.reads"   result: skip   log: [ktap.log]
		- name: "/io_test"   result: fail   log: [ktap.log]
		- name: "/log_test"   result: pass   log: [ktap.log]
	END
	# What is wrong is seen: a key that is missed, unknown, or has no such value.
	for fault in 's/^execute:/executes:/' 's/^summary:/sumary:/' 's/how: shell/how: shel/' \
		     's/name: \/fuse/name: fuse/' 's/result: custom/result: own/' \
		     's/duration: 40m/duration: 40 minutes/'; do
		sed "$fault" "$plan" >"$dir/wrong.fmf"
		if cmp "$plan" "$dir/wrong.fmf" || tmt_valid plan "$dir/wrong.fmf"; then
			echo "not seen: $fault"
			return 1
		fi
	done
	sed 's/result: pass/result: passed/' "$dir/data/results.yaml" >"$dir/wrong.yaml"
	if tmt_valid results "$dir/wrong.yaml"; then
		echo "not seen: a result that is none"
		return 1
	fi
}

# The Debian package of the selftests: lintian is content, and its test boots a machine.
debian_package()
{
	local dir=$work/deb image

	image=$(built "$TOP/scripts/kernel.sh")
	"$TOP/scripts/deb.sh" -o "$dir" kselftest-fuse
	lint_packages "$dir"/*.changes
	dpkg -x "$dir"/kselftest-fuse_*.deb "$dir/root"
	dpkg-source -x "$dir"/*.dsc "$dir/source"
	mkdir "$dir/tmp"
	cd "$dir/source"
	AUTOPKGTEST_TMP=$dir/tmp KERNEL_IMAGE=$image TESTS="detect_test own_mount_test" \
		KSELFTEST_FUSE=$dir/root/usr/lib/kselftest-fuse \
		on_free_cpu debian/tests/vm
}

# library_packages RELEASE: those of the library
library_packages()
{
	local image

	[ "$(id -u)" = 0 ] || { echo "only root can make a Debian system"; return 4; }
	image=$(built "$TOP/scripts/kernel.sh")
	"$TOP/scripts/check-deb.sh" "$1" "$image"
}

# Somebody has to find their way about each.
programs_are_short()
{
	wc -l "$TOP/$SELFTESTS"/*.[ch] | awk '$1 > 700 && $2 != "total" { print; bad = 1 } END { exit bad }'
}

maintainers()
{
	# The entry here and the one the series adds are the same text.
	kgit show refs/fuse/applied:MAINTAINERS | awk '
		FNR == NR { want[++lines] = $0; next }
		{ same = $0 == want[same + 1] ? same + 1 : $0 == want[1] }
		same == lines { found = 1 }
		END { exit !found }' "$TOP/MAINTAINERS" - || {
		echo "MAINTAINERS of the series lacks the entry in MAINTAINERS"
		return 1
	}
	cd "$TOP"
	sed -n 's/^F:[[:space:]]*//p' MAINTAINERS | while read -r f; do
		compgen -G "$f" >/dev/null || {
			echo "MAINTAINERS names $f, which is not there"
			return 1
		}
	done
}

# A tree to step through commits in, beside its build directories like
# build/linux, so that the compiler cache serves both.
stepping_tree()
{
	local tree=$work/linux

	if [ ! -e "$tree/.git" ]; then
		rm -rf "$tree"
		mkdir -p "$work"
		kgit worktree prune
		kgit worktree add -q --detach --force "$tree" base
	fi
	git -C "$tree" checkout -q --force --detach "$1"
}

# build NAME CONFIG-LINES ARCH TARGETS...: in the stepping tree.
build()
{
	local o=$work/$1 extra=$2 arch=$3

	shift 3
	mkdir -p "$o"
	{
		cat "$TOP/$SELFTESTS/config" "$WORKSHOP/configs/$([ "$arch" = um ] && echo uml || echo qemu)"
		printf '%b' "$extra"
	} >"$o/fragment.new"
	if ! cmp -s "$o/fragment.new" "$o/fragment" || [ ! -f "$o/.config" ]; then
		KCONFIG_ALLCONFIG=$o/fragment.new make -s -C "$work/linux" O="$o" \
			ARCH="$arch" allnoconfig >/dev/null || return 1
		mv "$o/fragment.new" "$o/fragment"
	fi
	make -C "$work/linux" O="$o" ARCH="$arch" -j"$JOBS" "$@"
}

each_commit_builds()
{
	local c more rc=0 log=$work/commit.log

	for c in $(commits); do
		more=$(kgit diff-tree -r --name-only --no-commit-id "$c" |
			grep -vE '^(tools|Documentation|MAINTAINERS)' | sed -n 's/\.c$/.o/p' |
			grep -vE '^(fs/fuse|io_uring)/' || :)
		# What no kernel is made of builds no kernel.
		kgit diff-tree -r --name-only --no-commit-id "$c" |
			grep -qvE '^(tools|Documentation|MAINTAINERS)' || continue
		stepping_tree "$c"
		# shellcheck disable=SC2086	# lists of words
		if ! build um "" um $units $more >"$log" 2>&1 || [ -n "$(warnings "$log")" ]; then
			echo "$(kgit log -1 --format=%s "$c"):"
			grep -A5 -E 'warning|error' "$log" || tail "$log"
			rc=1
		fi
	done
	return $rc
}

# PARTS="fixes": a kernel that somebody may take today
fixes_alone()
{
	local log=$work/fixes.log

	stepping_tree "$(last_fix)"
	if ! build um "" um >"$log" 2>&1 || [ -n "$(warnings "$log")" ]; then
		warnings "$log"
		tail "$log"
		return 1
	fi
}

# Ways to configure it that no engine uses.
other_configurations()
{
	local log=$work/other.log rc=0 what

	stepping_tree refs/fuse/applied
	for what in 'without-io-uring um CONFIG_FUSE_IO_URING=n\n' \
		    'module um CONFIG_MODULES=y\nCONFIG_FUSE_FS=m\n' \
		    '32-bit i386 CONFIG_64BIT=n\nCONFIG_IA32_EMULATION=n\nCONFIG_PARAVIRT=n\nCONFIG_KVM_GUEST=n\n'; do
		# shellcheck disable=SC2086	# three words
		set -- $what
		if ! build "$1" "$3" "$2" fs/fuse/ >"$log" 2>&1 || [ -n "$(warnings "$log")" ]; then
			echo "$1:"
			grep -A5 -E 'warning|error' "$log" || tail "$log"
			rc=1
		fi
	done
	return $rc
}

# What gcc W=1, kernel-doc and sparse say about fs/fuse beyond what they said
# before the series.
static_checkers()
{
	local at

	command -v sparse >/dev/null || { echo "sparse is not installed"; return 1; }
	for at in base refs/fuse/applied; do
		stepping_tree "$at"
		rm -f "$work/um/fs/fuse"/*.o
		build um "" um W=1 C=2 fs/fuse/ io_uring/rsrc.o >"$work/static.log" 2>&1 || {
			cat "$work/static.log"
			return 1
		}
		grep -E ': (warning|error): |Warning: ' "$work/static.log" |
			sed -E 's/^[^ ]*(fs|io_uring)\//\1\//; s/:[0-9]+(:[0-9]+)?:/:/' |
			sort >"$work/static.${at##*/}"
	done
	comm -13 "$work/static.base" "$work/static.applied" | tee "$work/static.new"
	[ ! -s "$work/static.new" ]
}

# The pages of Documentation/filesystems/fuse. Sphinx warns of what it renders anew
# alone, so all of it.
documentation()
{
	local log=$work/docs.log page

	rm -rf "$work/docs"
	make -C "$LINUX" O="$work/docs" SPHINXDIRS=filesystems/fuse htmldocs >"$log" 2>&1 || {
		cat "$log"
		return 1
	}
	if grep -E 'WARNING|ERROR|[Ww]arning: ' "$log"; then
		return 1
	fi
	for page in "$LINUX"/Documentation/filesystems/fuse/*.rst; do
		page=${page##*/}
		[ -n "$(find "$work/docs" -name "${page%.rst}.html")" ] ||
			die "there is no page of $page"
	done
}

# build_with NAME VAR=value...: all programs, in a place of their own.
build_with()
{
	local o=$work/selftests-$1 log=$work/selftests-$1.log

	shift
	mkdir -p "$o"
	# It exports the headers.
	built "$TOP/scripts/selftests.sh" all
	make -j"$JOBS" -C "$LINUX/tools/testing/selftests" TARGETS=fuse FORCE_TARGETS=1 \
		O="$o" KHDR_INCLUDES="-isystem $BUILD/selftests/usr/include" \
		"$@" all >"$log" 2>&1 || {
		tail -n 20 "$log"
		return 1
	}
	warnings "$log" | tee "$work/warnings"
	[ ! -s "$work/warnings" ]
}

builds_with_clang()
{
	command -v clang >/dev/null || { echo "clang is not installed"; return 4; }
	build_with clang CC=clang
}

# liburing has no package for musl: its headers do, and so does its static
# library, which needs no C library on x86_64.
builds_with_musl()
{
	local lib=$work/musl

	command -v musl-gcc >/dev/null || { echo "musl-tools is not installed"; return 4; }
	mkdir -p "$lib"
	cp -r /usr/include/liburing /usr/include/liburing.h "$lib/"
	cp "/usr/lib/$(gcc -print-multiarch)/liburing.a" "$lib/"
	build_with musl CC=musl-gcc LDFLAGS="-static -L$lib" \
		CPPFLAGS="-idirafter $lib"
}

# The ways in which mainline's kselftest is driven, on a kernel that has it all, and
# a machine that has neither compiler nor liburing, nor what is in this repository.
kselftest_conventions()
{
	local o=$work/selftests-tar dir=$work/selftests-tar/installed image

	image=$(built "$TOP/scripts/kernel.sh")
	built "$TOP/scripts/selftests.sh" all
	rm -rf "$o"
	mkdir -p "$o"
	cp -a "$BUILD/selftests"/{usr,kselftest,headers-of} "$o/"
	# It links one anew, the way it links all where nothing is built yet.
	rm "$o/kselftest/fuse/detect_test"
	make -C "$TOP/tools/testing/selftests" TARGETS=fuse gen_tar O="$o" INSTALL_PATH="$dir"
	cat >"$dir/check.sh" <<-'END'
		set -e
		mkdir /run/installed /run/bin
		tar -C /run/installed -xf "$(dirname "$0")/kselftest-packages/kselftest.tar.gz"
		cd /run/installed
		# All that kselftest's scripts call
		for tool in basename cat cut dirname grep mkdir perl sed sh sort tr uniq wc; do
			ln -s "$(type -P "$tool")" /run/bin/
		done
		PATH=/run/bin
		/bin/mount -t tmpfs none "$1"
		for gone in /usr/lib/*/liburing.*; do
			/bin/mount --bind /dev/null "$gone"
		done
		if [ -e "$0" ] || type gcc; then exit 1; fi

		# --summary writes beside the script, and the runner opens its standard
		# output anew, which only a pipe stands.
		./run_kselftest.sh -c fuse -d | grep -q 'fuse'
		./run_kselftest.sh -l | grep -qx fuse:io_test
		./run_kselftest.sh --summary -t fuse:detect_test | grep '^ok 1 selftests: fuse: detect_test$'
		grep -q '^# ok 1 detect' output.log
		./run_kselftest.sh -p /run/logs -t fuse:uapi_layout_test
		grep -q '^# ok 1 ' /run/logs/uapi_layout_test
		KSELFTEST_BAD_REPLY_TEST_ARGS='-r bad_reply.entries.a_second_commit_is_refused' \
			./run_kselftest.sh -t fuse:bad_reply_test | cat >/run/one
		[ "$(grep -c '^# ok ' /run/one)" = 1 ]
		# The time limit of each program is the one in settings, or another.
		grep -q '^# timeout set to 180$' /run/one
		FUSE_STRESS_OPS=100000000 ./run_kselftest.sh -o 1 -t fuse:stress_test | cat >/run/late
		grep '^not ok 1 selftests: fuse: stress_test # TIMEOUT 1 seconds$' /run/late
		./run_kselftest.sh -t fuse:io_test | cat >/run/all
		grep '^ok 1 selftests: fuse: io_test$' /run/all
		[ "$(grep -c '^# ok ' /run/all)" -gt 100 ]
	END
	on_free_cpu "$WORKSHOP/vm.sh" -e uml -k "$image" -S "$LINUX" -O "$BUILD/selftests" \
		-r "$REPORTS/uml-installed" -m 2G -t 180 -c "unshare -m bash -x $dir/check.sh $TOP"
}

# 32-bit servers on a 64-bit kernel: User Mode Linux does not run them.
compat()
{
	local image

	[ "$(uname -m)" = x86_64 ] || { echo "only x86_64 has 32-bit programs"; return 4; }
	CROSS32=1 built "$TOP/scripts/selftests.sh" all
	image=$(ENGINE=qemu DEBUG=1 built "$TOP/scripts/kernel.sh")
	FUSE_DANGEROUS_TESTS=1 "$WORKSHOP/vm.sh" -e qemu -k "$image" -S "$LINUX" \
		-O "$BUILD/selftests-32" -r "$REPORTS/qemu-debug-32" -m 2G -t 1200 \
		-T "uapi_layout_test detect_test register_flags_test register_bounds_test privilege_test"
}

# vm ENGINE DEBUG BASE [OPTION...]: the selftests on one kernel, with what the
# kernel's own parser makes of the log. Options are vm.sh's; a report of another
# name, first, is one of them.
vm()
{
	local engine=$1 image name=$1 limit=900 place=${place:-on_free_cpu} report

	[ "$1" != qemu ] || { limit=2400; place="env"; }
	[ "$2" = 0 ] || name=$name-debug
	# Each fault of the released kernel is a test that waits in vain.
	[ "$3" = 0 ] || { name=base-$name; limit=1800; }
	image=$(ENGINE=$1 DEBUG=$2 BASE=$3 built "$TOP/scripts/kernel.sh")
	built "$TOP/scripts/selftests.sh" all
	# With the fixes nothing is dangerous.
	unset FUSE_DANGEROUS_TESTS
	[ "$3" = 1 ] || export FUSE_DANGEROUS_TESTS=1
	shift 3
	report=$REPORTS/$name
	[ "${1:-}" != -r ] || { report=$2; shift 2; }
	"$place" "$WORKSHOP/vm.sh" -e "$engine" -k "$image" -S "$LINUX" \
		-O "$BUILD/selftests" -r "$report" -m 2G -t "$limit" "$@"
	"$TOP/scripts/kunit.sh" "$report"
}

# Where most is noticed, most nonsense is tried.
debug_in_uml()
{
	FUZZ_OPS=360 vm uml 1 0
}

# elsewhere TARGET: what takes an hour by itself
elsewhere()
{
	echo "make $1 shows it"
	return 4
}

# slow_tests NAME VARIANT...: for what the kernel does twice a minute, but with
# none of these variants, as all of them do not fit the time of a program. Whoever
# sleeps needs no processor.
slow_tests()
{
	local report=$REPORTS/uml-slow-$1 ktap=$REPORTS/uml-slow-$1/ktap.log place=env

	shift
	FUSE_SLOW_TESTS=1 vm uml 0 0 -r "$report" -T buffers_test \
		-a "${*/#/-V } -t a_request_times_out_while_it_waits_for_a_buffer"
	! grep '# SKIP' "$ktap" | grep -v 'kernel has no fuse buffer rings'
}

# All that is started in a machine, before anything is: builds use all
# processors.
kernels()
{
	"$TOP/scripts/selftests.sh" all
	"$TOP/scripts/kernel.sh"
	DEBUG=1 "$TOP/scripts/kernel.sh"
	BASE=1 "$TOP/scripts/kernel.sh"
	ENGINE=qemu DEBUG=1 "$TOP/scripts/kernel.sh"
}

# built COMMAND...: builds, one at a time. Most find that all is there.
built()
{
	flock "$work/build.lock" "$@"
}

# library NAME TESTS [OPTION...]: some of the library's tests. NAME is that of
# their directories, and options are run.sh's.
library()
{
	local image name=$1 tests=$2

	shift 2
	image=$(built "$TOP/scripts/kernel.sh")
	on_free_cpu "$TOP/tools/lib/fuse_ring/tests/run.sh" -T "$tests" -e uml \
		-k "$image" -S "$LINUX" -r "$REPORTS/uml-library-$name" \
		"${@:--O$BUILD/fuse_ring-tests-$name}"
}

# For a while only; run.sh does it at length.
library_under_load()
{
	SECONDS_PER_MODE=3 KILLS=10 library stress stress
}

# Where libfuse and the file systems on it are newer
library_on_debian()
{
	local root

	[ "$(id -u)" = 0 ] || { echo "only root can make a Debian system"; return 4; }
	root=$("$TOP/scripts/debian_root.sh" "$1")
	FILES=200 library "$1" "install real_fs" -R "$root"
}

# unprivileged REPORT [OPTION...]: without privileges all works but zero-copy,
# for which they are needed.
unprivileged()
{
	local report=$REPORTS/$1 ktap=$REPORTS/$1/ktap.log mode

	shift
	vm uml 0 0 -r "$report" -u nobody "$@"
	for mode in entries bufpool; do
		grep -qE "^# ok [0-9]+ io\.$mode\.[a-z_0-9]+\$" "$ktap" || {
			echo "no test of mode $mode passed"
			return 1
		}
	done
	if grep -E '^# ok [0-9]+ [a-z_]+\.(bufpool_)?zero_copy[a-z_0-9]*\.[a-z_0-9]+$' "$ktap"; then
		echo "tests of what needs root passed"
		return 1
	fi
	tail -n 1 "$report/summary"
}

# What README.rst of the selftests says: a list of all variants, and a complete
# test, which runs.
readme_is_true()
{
	local dir=$work/example readme=$TOP/$SELFTESTS/README.rst image

	diff <(sed -n 's/^#define MODE_\([a-z_]*\)[[:space:]].*/\1/p' "$TOP/$SELFTESTS/variants.h") \
		<(awk '/^=====.* =/ { in_table = !in_table; next } in_table { print $1 }' "$readme")
	rm -rf "$dir"
	mkdir -p "$dir"
	awk '/^\.\. code-block:: c$/ { code = 1; next }
		code && /^[^\t]/ { exit }
		code { sub(/^\t/, ""); print }' "$readme" >"$dir/example_test.c"
	printf 'TEST_GEN_PROGS := example_test\ninclude %s/lib.mk\ninclude %s/fuse/fixture.mk\n' \
		"$LINUX/tools/testing/selftests"{,} >"$dir/Makefile"
	image=$(built "$TOP/scripts/kernel.sh")
	built "$TOP/scripts/selftests.sh" all
	make -j"$JOBS" -C "$dir" OUTPUT="$dir" LDFLAGS=-static \
		KHDR_INCLUDES="-isystem $BUILD/selftests/usr/include" all >"$dir/log" 2>&1 || {
		cat "$dir/log"
		return 1
	}
	[ -z "$(warnings "$dir/log" | tee /dev/stderr)" ]
	on_free_cpu "$WORKSHOP/vm.sh" -e uml -k "$image" -S "$LINUX" -O "$BUILD/selftests" \
		-r "$REPORTS/uml-example" -t 100 -T "$dir/example_test" | tee "$dir/out"
	[ "$(tail -n 1 "$dir/out")" = "7 passed, 0 failed, 0 skipped" ]
}

# A test that leaves something of each kind: all of it fails the run.
leftovers_are_seen()
{
	local test=$work/careless_test image left report=$REPORTS/uml-careless

	cat >"$test" <<-'END'
		#!/bin/bash
		echo N >/sys/module/fuse/parameters/enable_uring
		echo 1 >/proc/sys/vm/overcommit_memory
		mkdir /tmp/left
		mount -t tmpfs left /tmp/left
		touch /dev/shm/left
		prlimit --memlock=4096 --pid 1
		# Not a child that the runner waits for
		setsid sleep 100 >/dev/null 2>&1 &
	END
	chmod +x "$test"
	image=$(built "$TOP/scripts/kernel.sh")
	built "$TOP/scripts/selftests.sh" all
	if on_free_cpu "$WORKSHOP/vm.sh" -e uml -k "$image" -S "$LINUX" -O "$BUILD/selftests" \
			-r "$report" -t 100 -T "$test"; then
		echo "nothing was seen"
		return 1
	fi
	for left in enable_uring overcommit_memory 'left tmpfs' /tmp/left /dev/shm/left \
		    'limit: Max locked memory' 'process sleep'; do
		grep "^> .*$left" "$report/leftovers" || { echo "not seen: $left"; return 1; }
	done
	[ "$(wc -l <"$report/summary")" = 2 ]
}

# "make run_tests" on the running kernel, as root and as nobody: it needs to write
# nowhere but to O=, and leaves nothing behind. Two programs run, the others list
# what they have.
run_by_make()
{
	local image script=$BUILD/selftests/run_by_make user

	image=$(built "$TOP/scripts/kernel.sh")
	built "$TOP/scripts/selftests.sh" all
	cat >"$script" <<-'END'
		#!/bin/bash
		set -e
		o=$(mktemp -d)
		trap 'rm -rf "$o"' EXIT
		cd /run/tests/tree/tools/testing/selftests
		cp -a /run/tests/obj/{kselftest,usr} "$o/"
		for test in fuse/*_test.c; do
			test=${test#*/} test=${test%.c}
			case $test in
			detect_test|own_mount_test)	;;
			*)	export "KSELFTEST_${test^^}_ARGS=-l" ;;
			esac
		done
		make TARGETS=fuse O="$o" LDFLAGS=-static run_tests | cat >"$o/log"
		# What it says is not this program's own result.
		sed 's/^/    /' "$o/log"
		grep -q '^ok [0-9]* selftests: fuse: detect_test$' "$o/log"
		grep -q '^ok [0-9]* selftests: fuse: own_mount_test$' "$o/log"
		grep -q '^# ok [0-9]* absent.entries' "$o/log"
		if grep -q '^not ok' "$o/log"; then exit 1; fi
	END
	chmod +x "$script"
	for user in root nobody; do
		on_free_cpu "$WORKSHOP/vm.sh" -e uml -k "$image" -S "$LINUX" \
			-O "$BUILD/selftests" -r "$REPORTS/uml-make-$user" -m 2G -t 200 \
			-u $user -T /run/tests/obj/run_by_make
		grep '^1 passed, 0 failed, 0 skipped$' "$REPORTS/uml-make-$user/summary"
	done
}

# As kernels come: tests switch it on where they need it, and off again.
parameter_off()
{
	vm uml 0 0 -r "$REPORTS/uml-off" -p fuse.enable_uring=0 -T "detect_test own_mount_test"
	grep -qE '^# ok [0-9]+ absent\.entries\.[a-z_0-9]+$' "$REPORTS/uml-off/ktap.log"
}

# Where they cannot have a user namespace either, to be root of: what sets mounts
# up and takes them down
without_namespaces()
{
	unprivileged uml-fusermount -p sysctl.user.max_user_namespaces=0 \
		-T "detect_test io_test buffers_test memlock_test privilege_test register_memory_test teardown_test"
}

# A kernel without the series: what it can do passes, what the series adds is
# skipped, and nothing fails but what shows a fault that is known.
unpatched()
{
	local ktap=$REPORTS/base-uml/ktap.log known=$work/known

	"$TOP/scripts/fixes.sh" --tests >"$known"
	vm uml 0 1 -x "$known"
	grep -A 1000 '^known fault' "$REPORTS/base-uml/summary" || :
	grep -qE '^# ok [0-9]+ io\.entries\.[a-z_0-9]+$' "$ktap" || {
		echo "no test of plain entries passed"
		return 1
	}
	if grep -E '^# ok [0-9]+ [a-z]+\.(bufring|pinned|zero_copy)[a-z_0-9]*\.[a-z_0-9]+$' "$ktap"; then
		echo "tests of what the kernel lacks passed"
		return 1
	fi
	tail -n 1 "$REPORTS/base-uml/summary"
}

cd "$TOP"
"$TOP/scripts/deps.sh" check
rm -rf "$out"
mkdir -p "$out" "$work"
# Everything below needs the tree; without it there is nothing to check.
"$TOP/scripts/tree.sh"

run "the series applies"			series_applies
beside "the tooling's own tests"			"$TOP/scripts/check-tools.sh"
beside "scripts pass shellcheck"			scripts_are_clean
beside "every file names its licence"		files_have_a_licence
beside "refresh round trip"			round_trip
beside "fixes and known faults fit together"	"$TOP/scripts/fixes.sh" --check
beside "the fixes are mails that git am takes"	fixes_are_mails
for part in $PARTS; do
	beside "checkpatch on part $part"		checkpatch "$part"
done
beside "MAINTAINERS entry"				maintainers
beside "a job for LAVA"				lava_job
beside "documentation builds without a warning"	documentation
beside "a plan for tmt"				tmt_plan
beside "no file of the selftests exceeds 700 lines"	programs_are_short
beside "kunit.py's own tests of its parser"	kunit_parser_tests
run "every commit builds without a warning"	each_commit_builds
run "the fixes alone are a kernel"		fixes_alone
run "other configurations build"		other_configurations
run "sparse and W=1 on fs/fuse"			static_checkers
run "the tests and their kernels build"		kernels
run "the mails of the selftests build one by one"	selftests_are_mails
run "selftests build with clang"		builds_with_clang
run "selftests build with musl"			builds_with_musl
# From here on what takes long comes first, so that nothing of that is left when
# all others have ended. An emulated machine with two processors seldom needs
# both: the suite in two halves, each in a machine of its own.
aside "slow selftests of buffer pools in UML"	slow_tests pools bufring pinned zero_copy
aside "slow selftests of buffer rings in UML" \
	slow_tests rings bufpool bufpool_registered bufpool_zero_copy
beside "each fault is in the released kernel, in UML"	"$TOP/scripts/fixes.sh" -q
run "each fix mends its fault, alone"		elsewhere check-fixes
run "which faults Debian's kernels have"	elsewhere check-kernels
beside "selftests in qemu, 2 CPUs, debug kernel: one half" \
	vm qemu 1 0 -r "$REPORTS/qemu-debug-2" -P 2
beside "library on Debian 13 in UML"		library_on_debian trixie
beside "library tests in UML"			library passthrough "install passthrough"
beside "preload library tests in UML"		library preload preload
beside "selftests in qemu, 2 CPUs, debug kernel: the other half" \
	vm qemu 1 0 -r "$REPORTS/qemu-debug-1" -P 1
beside "library under load in UML"		library_under_load
beside "32-bit selftests in qemu"		compat
beside "selftests in UML, debug kernel"		debug_in_uml
beside "selftests in UML"			vm uml 0 0
beside "selftests as an unprivileged user"	unprivileged uml-unprivileged
beside "selftests over fusermount3"		without_namespaces
beside "selftests where io-uring is off"	parameter_off
beside "README.rst of the selftests is true"	readme_is_true
beside "make run_tests as root and as nobody"	run_by_make
beside "Debian package of the selftests"	debian_package
beside "Debian packages of the library on Debian 13"	library_packages trixie
beside "Debian packages of the library on Debian 12"	library_packages bookworm
beside "what tests leave behind is seen"	leftovers_are_seen
beside "selftests installed, by kselftest's scripts"	kselftest_conventions
beside "selftests on unpatched $KVER"		unpatched
wait

# count STATUS: how many checks ended with a status like this
count()
{
	{ grep -lxE "$1" "$out"/*.status || :; } | wc -l
}

# Once more, where whoever sees only the end of it finds them
{ grep -LxE '0|4' "$out"/*.status || :; } | while read -r file; do
	file=${file%.status}.log
	echo "failed: ${file#"$TOP"/}"
	grep -hE 'FAILED: |: (error|ERROR)[: ]' "$file" | head -n 5 || :
done

failed=$(count '[1-35-9]|[0-9]{2,}')
echo "$(count 0) passed, $failed failed, $(count 4) skipped" | tee "$out/summary"
[ "$failed" = 0 ]
