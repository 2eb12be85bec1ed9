#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# tree.sh: makes or updates build/linux, a git repository that holds the
# untouched kernel source (tag 'base') and the series, the PARTS of patches/ one
# after the other, a commit for each patch. tree.sh --print only computes the
# series and prints its last commit, tree.sh --unsaved fails if build/linux has
# work that patches/ lacks.
#
# The commits are made in git's object database with an index of their own.
# The work tree moves only when the whole series has applied, and then only in
# the files that differ: a patch that fails leaves everything as it was, and a
# kernel built before is rebuilt only where it has to be.

. "$(dirname "$0")/lib.sh" || exit 1
need git tar xz

# The base is the same commit, to the bit, wherever it is made.
unpack()
{
	local source id version new=$BUILD/linux.tmp

	case ${KERNEL:-} in
	'')	source=$("$TOP/scripts/fetch.sh") ;;
	*)	source=$(realpath -e "$KERNEL" 2>/dev/null) ||
			die "KERNEL=$KERNEL: no such tree or tarball" ;;
	esac
	free_space "$BUILD" 5
	say "unpacking ${source##*/} to build/linux (about a minute)"
	rm -rf "$new"
	trap 'rm -rf "$BUILD/linux.tmp"' EXIT
	mkdir -p "$new"
	if [ -d "$source/.git" ] || [ -f "$source/.git" ]; then
		git -c safe.directory="$source" -C "$source" archive HEAD |
			tar -xC "$new" || die "cannot copy $source"
	elif [ -d "$source" ]; then
		[ ! -e "$source/.config" ] ||
			die "$source was built in place: run 'make mrproper' in it first"
		tar -cC "$source" . | tar -xC "$new" || die "cannot copy $source"
	else
		tar -xf "$source" -C "$new" --strip-components=1 --no-same-owner 2>/dev/null ||
			die "cannot unpack $source: not a kernel tarball, or the disk is full"
	fi
	version=$(awk -F ' *= *' '
		$1 == "VERSION" || $1 == "PATCHLEVEL" || $1 == "SUBLEVEL" { v[$1] = $2 }
		END { print v["VERSION"] "." v["PATCHLEVEL"] "." v["SUBLEVEL"] }
		' "$new/Makefile" 2>/dev/null) || version=unknown
	case $version in
	"$KVER".*)	;;
	*)	die "$source is Linux $version: the series is for $KVER, give KERNEL= another one" ;;
	esac

	# Debian ignores all of its package's top level. Here that would hide every
	# new file from 'git add'.
	[ ! -f "$new/.gitignore" ] ||
		sed -i '/^# Debian packaging: /,$d' "$new/.gitignore"

	LINUX=$new
	kgit init -q -b main
	kgit config gc.auto 0
	kgit config user.name "$IDENT_NAME"
	kgit config user.email "$IDENT_MAIL"
	# Speed over size: it is read once and thrown away with build/.
	kgit -c core.compression=1 add -A -f . || die "cannot index the kernel source: is the disk full?"
	id=$(GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z' \
		kgit commit-tree -m "linux-source $version" "$(kgit write-tree)")
	kgit update-ref refs/heads/main "$id"
	kgit update-ref refs/tags/base "$id"
	kgit update-ref refs/fuse/applied "$id"
	echo "$source" >"$new/.git/fuse-source"
	LINUX=$BUILD/linux
	mv "$new" "$LINUX"
	trap - EXIT
}

# Files of the repository that a New-file: trailer stands for.
new_files()
{
	case $1 in
	*/|*\**)	# What git tracks or would track, less what was deleted by hand or
		# is in another patch.
		rgit ls-files -co --exclude-standard -- "$1" | sort -u |
		while read -r f; do
			[ ! -e "$TOP/$f" ] || [ "$(whole "$f")" != "$1" ] || echo "$f"
		done ;;
	*)	echo "$1" ;;
	esac
}

trailers()
{
	sed -n '/^---$/q; /^diff --git /q; s/^New-file:[[:space:]]*//p' "$1"
}

# All that decides what one patch adds.
inputs()
{
	local t f

	cat "$TOP/patches/$1"
	for t in $(trailers "$TOP/patches/$1"); do
		for f in $(new_files "$t"); do
			echo "$f"
			[ ! -x "$TOP/$f" ] || echo "executable"
			cat "$TOP/$f" 2>/dev/null || :
		done
	done
}

# A digest of all that decides what the series looks like.
digest()
{
	{
		kgit rev-parse base
		cat "$TOP/scripts/tree.sh"
		for p in $list; do
			echo "$p"
			inputs "$p"
		done
	} | sha256sum | cut -d' ' -f1
}

# commit_patch PARENT PATCH: prints a commit of it, made with the index at hand.
commit_patch()
{
	local p=$2 tree t f mode

	git mailinfo "$tmp/msg" "$tmp/diff" <"$TOP/patches/$p" >"$tmp/info" ||
		die "patches/$p is not a patch in mail format"
	if grep -q '^diff --git ' "$tmp/diff"; then
		kgit apply --cached --whitespace=nowarn "$tmp/diff" 2>"$tmp/err" ||
			die "patches/$p does not apply: $(sed -n 's/^error: //; 1p' "$tmp/err")"
	fi
	trailers "$TOP/patches/$p" >"$tmp/new"
	while read -r t; do
		new_files "$t"
	done <"$tmp/new" >"$tmp/files"
	while read -r f; do
		[ -f "$TOP/$f" ] || die "patches/$p adds $f, which is not in the repository"
		mode=100644
		[ ! -x "$TOP/$f" ] || mode=100755
		echo "$mode"
	done <"$tmp/files" >"$tmp/modes"
	sed "s|^|$TOP/|" "$tmp/files" | kgit hash-object -w --stdin-paths |
		paste -d' ' "$tmp/modes" - | paste - "$tmp/files" |
		kgit update-index --add --index-info
	tree=$(kgit write-tree)
	{
		sed -n 's/^Subject: //p' "$tmp/info"
		echo
		# Trailing blank lines go, with the trailers that made them.
		sed '/^New-file:/d' "$tmp/msg" | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
	} >"$tmp/commit"
	GIT_AUTHOR_NAME=$(sed -n 's/^Author: //p' "$tmp/info")
	GIT_AUTHOR_EMAIL=$(sed -n 's/^Email: //p' "$tmp/info")
	GIT_AUTHOR_DATE=$(sed -n 's/^Date: //p' "$tmp/info")
	export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE
	export GIT_COMMITTER_NAME=$IDENT_NAME
	export GIT_COMMITTER_EMAIL=$IDENT_MAIL
	export GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE
	kgit commit-tree -p "$1" "$tree" <"$tmp/commit" ||
		die "patches/$p: no usable From:, Date: or Subject: line"
}

# Commits the series on top of base and prints the last commit. What a patch came
# to the last time stays as it is while nothing changed up to there.
build_series()
{
	local known=$LINUX/.git/fuse-commits parent indexed='' key commit p tmp

	tmp=$(mktemp -d)
	# shellcheck disable=SC2064	# now, not later
	trap "rm -rf '$tmp'" EXIT
	export GIT_INDEX_FILE=$tmp/index
	parent=$(kgit rev-parse base)
	for p in $list; do
		key=$({ cat "$TOP/scripts/tree.sh"; echo "$parent"; inputs "$p"; } |
			sha256sum | cut -d' ' -f1)
		commit=$(sed -n "s/^$key //p" "$known" 2>/dev/null || :)
		if [ -z "$commit" ] || ! kgit cat-file -e "$commit" 2>/dev/null; then
			[ "$indexed" = "$parent" ] || kgit read-tree "$parent"
			commit=$(commit_patch "$parent" "$p")
			indexed=$commit
		fi
		echo "$key $commit" >>"$tmp/known"
		parent=$commit
	done
	[ ! -f "$tmp/known" ] || mv "$tmp/known" "$known"
	rm -rf "$tmp"
	echo "$parent"
}

# move OLD NEW: takes the work tree from one commit to the other. Edits that
# are in nobody's way stay.
move()
{
	local err

	kgit update-index -q --refresh || :
	err=$(kgit read-tree -m -u "$1" "$2" 2>&1) || {
		[ "${FORCE:-0}" = 1 ] ||
			die "build/linux has uncommitted work in the way ($(echo "$err" |
				sed -n "s/.*Entry '\([^']*\)'.*/\1/p; s/.*file '\([^']*\)'.*/\1/p" |
				head -1)): commit it and 'make refresh', or FORCE=1 to drop it"
		kgit read-tree --reset -u "$2"
	}
	kgit update-ref -m "make tree" HEAD "$2" "$1"
}

# The patch files as they were applied, for refresh to see what was edited by
# hand since.
remember()
{
	local p

	for p in $list; do
		echo "$(kgit hash-object "$TOP/patches/$p") $p"
	done >"$LINUX/.git/fuse-patches"
	kgit update-ref refs/fuse/applied "$1"
	digest >"$LINUX/.git/fuse-digest"
}

list=$(series)
if [ ! -d "$LINUX/.git" ]; then
	[ ! -e "$LINUX" ] || die "build/linux is there but not a git repository: remove it"
	unpack
elif [ -n "${KERNEL:-}" ] &&
     [ "$(cat "$LINUX/.git/fuse-source" 2>/dev/null)" != "$(realpath "$KERNEL")" ]; then
	die "build/linux was made from another source: 'make distclean' before KERNEL=$KERNEL"
fi
kgit rev-parse -q --verify base^0 >/dev/null ||
	die "build/linux has no 'base' tag: 'make distclean' and start again"

if [ "${1:-}" = --print ]; then
	build_series
	exit
fi

applied=$(kgit rev-parse -q --verify refs/fuse/applied || kgit rev-parse base)
head=$(kgit rev-parse HEAD)

if [ "${1:-}" = --unsaved ]; then
	[ "${FORCE:-0}" = 1 ] ||
		{ [ "$head" = "$applied" ] && [ -z "$(kgit status --porcelain)" ]; } ||
		die "build/linux has work that is not in patches/: 'make refresh' keeps it, FORCE=1 drops it"
	exit 0
fi

if [ -f "$LINUX/.git/fuse-digest" ] && [ "$(cat "$LINUX/.git/fuse-digest")" = "$(digest)" ]; then
	# Nothing new in the repository. Work in the tree is what is wanted then.
	[ "$head" = "$applied" ] ||
		say "build/linux has commits of its own: using them ('make refresh' keeps them)"
	exit 0
fi

new=$(build_series)
# The same files by other commits: work that was just refreshed.
if [ "$head" != "$applied" ] && [ "$head" != "$new" ] &&
   [ "$(kgit rev-parse 'HEAD^{tree}')" != "$(kgit rev-parse "$new^{tree}")" ]; then
	[ "${FORCE:-0}" = 1 ] ||
		die "build/linux has commits that are not in patches/: 'make refresh' keeps them, FORCE=1 drops them"
	kgit update-ref "refs/fuse/dropped-$(date +%Y%m%d-%H%M%S)" "$head"
fi
[ "$head" = "$new" ] || move "$head" "$new"
remember "$new"
say "build/linux: $(kgit log -1 --format=%s base), $(kgit rev-list --count base..HEAD) patches"
