#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# series.sh [DIR]: writes one part of the series (PART, default: fixes) as mails to
# build/series/PART, or DIR, with its cover letter, for 'git send-email' and
# checkpatch. The first line of the cover letter is its subject; that of the fixes
# has a line "*** KNOWN FAULTS ***", for a table of what they mend. SIGNOFF="Name <mail>" makes
# that person the author and signs off for them: the repository itself signs for
# nobody.

. "$(dirname "$0")/lib.sh" || exit 1
need git

part=${PART:-fixes}
case " $PARTS " in
*" $part "*)	;;
*)	die "PART=$part: one of $PARTS" ;;
esac
out=${1:-$BUILD/series/$part}
# A part is sent on top of those before it.
from=$(kgit rev-parse base) to=$from passed=
for p in $PARTS; do
	n=$(sed 's/[[:space:]]*#.*//; /^[[:space:]]*$/d' "$TOP/patches/$p/series" | wc -l)
	from=$to
	to=$(kgit rev-list --reverse "$from..refs/fuse/applied" | sed -n "${n}p")
	[ "$p" != "$part" ] || { passed=1; break; }
done
if [ -z "$passed" ] || [ -z "$to" ] || [ "$n" = 0 ]; then
	die "patches/$part/series is empty: there is nothing to send"
fi
name=$IDENT_NAME mail=$IDENT_MAIL
if [ -n "${SIGNOFF:-}" ]; then
	name=$(expr "$SIGNOFF" : '\(.*[^ ]\) *<[^<>@ ]*@[^<>@ ]*>$') ||
		die "SIGNOFF=\"$SIGNOFF\": give \"Name <mail@host>\""
	mail=$(expr "$SIGNOFF" : '.*<\(.*\)>$')
fi

# The same commits, by whoever sends them.
parent=$from
for c in $(kgit rev-list --reverse "$from..$to"); do
	parent=$({
		kgit log -1 --format=%B "$c" | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'
		[ -z "${SIGNOFF:-}" ] || printf '\nSigned-off-by: %s <%s>\n' "$name" "$mail"
	} | GIT_AUTHOR_NAME=$name GIT_AUTHOR_EMAIL=$mail \
		GIT_AUTHOR_DATE=$(kgit log -1 --format=%aI "$c") \
		GIT_COMMITTER_NAME=$name GIT_COMMITTER_EMAIL=$mail \
		GIT_COMMITTER_DATE=$(kgit log -1 --format=%aI "$c") \
		kgit commit-tree -p "$parent" "$c^{tree}")
done

rm -rf "$out"
mkdir -p "$out"
letter=$TOP/patches/$part/cover-letter
cover=()
[ ! -f "$letter" ] || cover=(--cover-letter)
GIT_COMMITTER_NAME=$name GIT_COMMITTER_EMAIL=$mail \
	kgit format-patch -q "${cover[@]}" --no-signature -o "$out" "$from..$parent"
if [ -f "$letter" ]; then
	awk '
		FNR == NR { if (FNR == 1) subject = $0; else if (FNR > 2) blurb[++n] = $0; next }
		/\*\*\* SUBJECT HERE \*\*\*/ { sub(/\*\*\* SUBJECT HERE \*\*\*/, subject) }
		/\*\*\* BLURB HERE \*\*\*/ { for (i = 1; i <= n; i++) print blurb[i]; next }
		{ print }' "$letter" "$out/0000-cover-letter.patch" >"$out/cover"
	mv "$out/cover" "$out/0000-cover-letter.patch"
	if grep -qxF '*** KNOWN FAULTS ***' "$out/0000-cover-letter.patch"; then
		"$TOP/scripts/fixes.sh" --letter >"$out/faults"
		sed -i -e "/^\*\*\* KNOWN FAULTS \*\*\*\$/{r $out/faults" -e 'd}' \
			"$out/0000-cover-letter.patch"
		rm "$out/faults"
	fi
fi
out=${out#"$TOP"/}
say "$out: $n mails${cover:+ and a cover letter}. Read them, then: git send-email $out/*.patch"
