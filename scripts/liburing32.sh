#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# liburing32.sh: prints the linker flags for a 32-bit liburing on x86_64. Where
# the system has none it comes from the archive that the system uses: unpacked
# below build/, through a private apt state, so that neither another
# architecture nor its packages have to be added to the system.

. "$(dirname "$0")/lib.sh" || exit 1
need gcc apt-get dpkg-deb

links()
{
	echo 'int main(void) { return 0; }' |
		gcc -m32 "$@" -x c -o /dev/null - -x none -luring 2>/dev/null
}

echo 'int x;' | gcc -m32 -x c -c -o /dev/null - -include stdio.h 2>/dev/null ||
	die "the compiler cannot make 32-bit programs: run 'make deps'"
if links; then
	exit 0
fi

dir=$BUILD/i386
flags=-L$dir/usr/lib/i386-linux-gnu
if ! links "$flags"; then
	say "downloading a 32-bit liburing"
	mkdir -p "$REPORTS"
	log=$REPORTS/liburing32.log
	apt=$BUILD/apt-i386
	trap 'rm -rf "$apt"' EXIT
	rm -rf "$dir" "$apt"
	mkdir -p "$dir" "$apt/state" "$apt/lists/partial" "$apt/cache/archives/partial"
	: >"$apt/status"

	foreign_apt()
	{
		(cd "$apt" && apt-get -q -o APT::Architecture=i386 -o APT::Architectures=i386 \
			-o Dir::State="$apt/state" -o Dir::State::Lists="$apt/lists" \
			-o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
			-o APT::Sandbox::User=root -o Acquire::Languages=none \
			-o Acquire::Retries=1 -o Acquire::http::Timeout=30 "$@")
	}

	# An index that another package is in may be missing.
	foreign_apt update >"$log" 2>&1 || :
	if ! foreign_apt download liburing-dev >>"$log" 2>&1 ||
	   ! dpkg-deb -x "$apt"/liburing-dev_*.deb "$dir" >>"$log" 2>&1; then
		die "no 32-bit liburing: install liburing-dev:i386 (see ${log#"$TOP"/})"
	fi
	links "$flags" || die "the 32-bit liburing of the archive does not link"
fi
echo "$flags"
