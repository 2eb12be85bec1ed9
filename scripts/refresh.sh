#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# refresh.sh: writes the commits base..HEAD of build/linux back to the
# repository: patches/PART/subject.patch, patches/PART/series, and the new files,
# which the repository keeps whole: as HEAD has them, or as the commit that adds them
# leaves them, for those in EDITED_LATER. A commit belongs to the part that has a
# patch of its name; one with a new subject to the part of the commit before it.
#
# A new file may have been edited on both sides since 'make tree'. What only
# one side changed wins; what both changed is refused before anything is
# written.

. "$(dirname "$0")/lib.sh" || exit 1
need git

[ -d "$LINUX/.git" ] || die "there is no build/linux: run 'make tree' first"
applied=$(kgit rev-parse -q --verify refs/fuse/applied || kgit rev-parse base)
commits=$(kgit rev-list --reverse base..HEAD)
kgit merge-base --is-ancestor base HEAD ||
	die "HEAD of build/linux is not on top of 'base': check out the series there"
[ -z "$(kgit rev-list --merges base..HEAD)" ] ||
	die "build/linux has a merge commit: rebase it, a series is linear"
kgit diff --quiet HEAD ||
	say "uncommitted work in build/linux is left out: commit it to have it in the series"
kgit ls-files -o -- '*.[chS]' '*.rst' '*.dot' '*.sh' '*Makefile' | while read -r path; do
	say "untracked in build/linux, left out: $path (git add -f it)"
done

new=$BUILD/patches.tmp
rm -rf "$new"
mkdir -p "$new" "$TOP/patches"
trap 'rm -rf "$new"' EXIT

# Patches edited or added by hand since they were last applied. Added ones stay
# at the end of the series; an edited one would be lost.
unapplied=
series >"$new/was"
while read -r p; do
	known=$(sed -n "s,^\([0-9a-f]*\) $p\$,\1,p" "$LINUX/.git/fuse-patches" 2>/dev/null || :)
	if [ -z "$known" ]; then
		unapplied="$unapplied $p"
	elif [ "$known" != "$(rgit hash-object "$TOP/patches/$p" 2>/dev/null)" ] &&
	     [ "${FORCE:-0}" != 1 ]; then
		die "patches/$p was edited since 'make tree': apply it first, or FORCE=1 to overwrite it"
	fi
done <"$new/was"
while read -r _ p; do
	grep -qxF "$p" "$new/was" || [ "${FORCE:-0}" = 1 ] ||
		die "patches/$p was taken out since 'make tree': apply that first, or FORCE=1 to have it back"
done < <(cat "$LINUX/.git/fuse-patches" 2>/dev/null)

cut -d' ' -f2 "$LINUX/.git/fuse-patches" 2>/dev/null |
	cat - "$new/was" >"$new/known"

# part_of NAME PREVIOUS: the part that the patch of this name belongs to
part_of()
{
	local part

	for part in $PARTS; do
		! grep -qxF "$part/$1" "$new/known" || { echo "$part"; return; }
	done
	echo "$2"
}

declare -A part_at
part=${PARTS%% *}
for c in $commits; do
	slug=$(kgit log -1 --format=%f "$c" | cut -c-60)
	part=$(part_of "${slug%-}.patch" "$part")
	part_at[$c]=$part
done

# added_by PATH COMMIT: the commit up to this one that adds it
added_by()
{
	kgit log --reverse --diff-filter=A --format=%H "base..$2" -- "$1" | sed -n 1p
}

# as_of COMMIT PATH LIST: the line of a new file in the list says what it was there
as_of()
{
	local line

	line=$(kgit diff-tree -r --no-renames --diff-filter=A base "$1" -- "$2")
	awk -F '\t' -v p="$2" '$2 != p' "$3" >"$3.rest"
	{ cat "$3.rest"; [ -z "$line" ] || echo "$line"; } >"$3"
}

# The new files, as HEAD and as the last 'make tree' had them.
kgit diff-tree -r --no-renames --diff-filter=A base HEAD >"$new/now"
cut -f2 "$new/now" >"$new/names"
kgit diff-tree -r --no-renames --diff-filter=A base "$applied" >"$new/then"
declare -A owner
for path in $EDITED_LATER; do
	owner[$path]=$(added_by "$path" HEAD)
	[ -n "${owner[$path]}" ] || continue
	as_of "${owner[$path]}" "$path" "$new/now"
	c=$(added_by "$path" "$applied")
	as_of "${c:-$applied}" "$path" "$new/then"
done
: >"$new/copy"
while read -r path; do
	now=$(awk -F '\t' -v p="$path" '$2 == p { split($1, w, " "); print w[2], w[4] }' "$new/now")
	then=$(awk -F '\t' -v p="$path" '$2 == p { split($1, w, " "); print w[2], w[4] }' "$new/then")
	here=
	if [ -f "$TOP/$path" ]; then
		mode=100644
		[ ! -x "$TOP/$path" ] || mode=100755
		here="$mode $(rgit hash-object "$TOP/$path")"
	fi
	if [ "$here" = "$now" ] || [ "$now" = "$then" ]; then
		continue
	elif [ "$here" = "$then" ] || [ "${FORCE:-0}" = 1 ]; then
		echo "$now $path" >>"$new/copy"
	else
		die "$path was edited in the repository and in build/linux: make them equal first, or FORCE=1 to take build/linux's"
	fi
done < <(cut -f2 "$new/now" "$new/then" | sort -u)

# trailers COMMIT: the New-file: lines of the files it adds.
trailers()
{
	local path

	kgit diff-tree -r --no-renames --diff-filter=A --name-only --no-commit-id "$1" |
	while read -r path; do
		grep -qxF "$path" "$new/names" || continue
		echo "New-file: $(whole "$path")"
	done | sort -u
}

sed 's/^/:(exclude)/' "$new/names" >"$new/exclude"
mapfile -t exclude <"$new/exclude"	# all, for the check at the end
: >"$new/named"
n=0
written=
part=${PARTS%% *}
for c in $commits; do
	slug=$(kgit log -1 --format=%f "$c" | cut -c-60)
	# A directory belongs to the commit that first adds to it.
	trailers "$c" | { grep -vxFf "$new/named" || :; } >"$new/trailers"
	cat "$new/trailers" >>"$new/named"
	for path in "${!owner[@]}"; do
		[ "${owner[$path]}" = "$c" ] || echo ":(exclude)$path"
	done >"$new/edited"
	mapfile -t kept < <(grep -vxFf "$new/edited" "$new/exclude")
	kgit diff-tree -r -p --stat --summary --no-renames --no-commit-id --abbrev=12 \
		"$c" -- . "${kept[@]}" |
		sed '/^index [0-9a-f]*\.\.[0-9a-f]* [0-7]*$/d' >"$new/diff"
	if [ ! -s "$new/diff" ] && [ ! -s "$new/trailers" ]; then
		say "folded into the new files: $(kgit log -1 --format=%s "$c")"
		continue
	fi
	n=$((n + 1))
	previous=$part
	part=${part_at[$c]}
	name=$part/${slug%-}.patch
	# The first patch of a part brings what the part needs of others.
	if [ ! -d "$new/$part" ]; then
		for path in $NEEDED; do
			[ "${path%%:*}" != "$part" ] || ! grep -qxF "${path#*:}" "$new/names" ||
				echo "New-file: ${path#*:}"
		done | sort -u - "$new/trailers" >"$new/trailers.all"
		mv "$new/trailers.all" "$new/trailers"
	fi
	mkdir -p "$new/$part"
	[ ! -e "$new/$name" ] || die "two commits would be patches/$name: give one another subject"
	# Each with spaces of its own on both sides
	case " ${PARTS// /  } " in
	*" $part "*" $previous "*)
		die "\"$(kgit log -1 --format=%s "$c")\" of part $part comes after part $previous: reorder them in build/linux" ;;
	esac
	{
		echo 'From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001'
		kgit log -1 --format='From: %an <%ae>%nDate: %aD%nSubject: [PATCH] %s' "$c"
		kgit log -1 --format=%b "$c" | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}' |
			sed '1s/^/\n/'
		if [ -s "$new/trailers" ]; then
			echo
			cat "$new/trailers"
		fi
		echo ---
		cat "$new/diff"
	} >"$new/$name"
	echo "$name" >>"$new/list"
	written="$written $name"
done
for p in $unapplied; do
	n=$((n + 1))
	say "not applied yet, kept at the end of its part: $p"
	mkdir -p "$new/${p%/*}"
	cp "$TOP/patches/$p" "$new/$p"
	echo "$p" >>"$new/list"
done

# From here on the repository is written.
while read -r mode blob path; do
	if [ -n "$path" ]; then
		mkdir -p "$(dirname "$TOP/$path")"
		kgit cat-file blob "$blob" >"$TOP/$path.tmp"
		[ "$mode" = 100644 ] || chmod +x "$TOP/$path.tmp"
		mv "$TOP/$path.tmp" "$TOP/$path"
	else
		# Deleted in the tree: no mode and blob, the path comes first.
		path=$mode
		rm -f "$TOP/$path"
	fi
	say "wrote $path"
done <"$new/copy"
for part in $PARTS; do
	mkdir -p "$new/$part"
	{
		sed -n '/^#/p; /^[^#]/q' "$TOP/patches/$part/series" 2>/dev/null || :
		sed -n "s,^$part/,,p" "$new/list" 2>/dev/null || :
	} >"$new/$part/series"
	for p in "$TOP/patches/$part"/*.patch; do
		[ ! -e "$p" ] || [ -f "$new/$part/${p##*/}" ] || rm "$p"
	done
	for p in "$new/$part"/*; do
		cmp -s "$p" "$TOP/patches/$part/${p##*/}" || cp "$p" "$TOP/patches/$part/"
	done
done

# What was written must make the same tree again; then it is what is applied.
# Patches that were not applied yet are for 'make tree'.
if [ -z "$unapplied" ]; then
	made=$("$TOP/scripts/tree.sh" --print)
	kgit diff --quiet HEAD "$made" -- . "${exclude[@]}" ||
		die "the patches do not give the same tree again: compare $made with HEAD in build/linux"
fi

# For the next 'make tree' and 'make refresh', HEAD is what patches/ says.
for p in $written; do
	echo "$(kgit hash-object "$TOP/patches/$p") $p"
done >"$LINUX/.git/fuse-patches"
kgit update-ref refs/fuse/applied HEAD
rm -f "$LINUX/.git/fuse-digest"
say "patches/: $n patches"
