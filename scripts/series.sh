#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# series.sh: writes the series as mails to build/series, with a cover letter,
# for 'git send-email' and checkpatch. SIGNOFF="Name <mail>" makes that person
# the author and signs off for them: the repository itself signs for nobody.

. "$(dirname "$0")/lib.sh" || exit 1
need git

out=$BUILD/series
head=$(kgit rev-parse refs/fuse/applied)
count=$(kgit rev-list --count "base..$head")
[ "$count" -gt 0 ] || die "patches/series is empty: there is nothing to send"
name=$IDENT_NAME mail=$IDENT_MAIL
if [ -n "${SIGNOFF:-}" ]; then
	name=$(expr "$SIGNOFF" : '\(.*[^ ]\) *<[^<>@ ]*@[^<>@ ]*>$') ||
		die "SIGNOFF=\"$SIGNOFF\": give \"Name <mail@host>\""
	mail=$(expr "$SIGNOFF" : '.*<\(.*\)>$')
fi

# The same commits, by whoever sends them.
parent=$(kgit rev-parse base)
for c in $(kgit rev-list --reverse "base..$head"); do
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
GIT_COMMITTER_NAME=$name GIT_COMMITTER_EMAIL=$mail \
	kgit format-patch -q --cover-letter --no-signature \
	-o "$out" "base..$parent"
cover=$out/0000-cover-letter.patch
awk '
	/\*\*\* SUBJECT HERE \*\*\*/ {
		sub(/\*\*\* SUBJECT HERE \*\*\*/,
		    "fuse: buffer rings, pinned memory and zero-copy over io_uring")
	}
	/\*\*\* BLURB HERE \*\*\*/ {
		while ((getline line < blurb) > 0) print line
		next
	}
	{ print }' blurb="$TOP/patches/cover-letter" "$cover" >"$cover.new"
mv "$cover.new" "$cover"
say "build/series: $count mails and a cover letter. Read it, then: git send-email build/series/*.patch"
