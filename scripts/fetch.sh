#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# fetch.sh: prints the path of a verified kernel source tarball in CACHE_DIR,
# downloaded from the Debian archive this system uses if it is not there yet.
#
# The package may have left one suite and be in the next, so all that can have
# it are asked in turn.

. "$(dirname "$0")/lib.sh" || exit 1
. "$(dirname "$0")/apt.sh" || exit 1

package=linux-source-$KVER

cached()
{
	local t

	for t in "$CACHE_DIR/$package"_*.tar.xz; do
		[ -e "$t" ] || continue
		if (cd "$CACHE_DIR" && sha256sum --status -c "${t##*/}.sha256" 2>/dev/null); then
			echo "$t"
			return 0
		fi
		say "${t##*/} in the cache is damaged, fetching it again"
		rm -f "$t" "$t.sha256"
	done
	return 1
}

# keep FILE NAME: moves a downloaded tarball into the cache as one step.
keep()
{
	(cd "$(dirname "$1")" && mv "$1" "$2" && sha256sum "$2" >"$2.sha256")
	mv "$(dirname "$1")/$2.sha256" "$CACHE_DIR/"
	mv "$(dirname "$1")/$2" "$CACHE_DIR/$2.part"
	mv "$CACHE_DIR/$2.part" "$CACHE_DIR/$2"
}

try_binary()
{
	local version deb

	version=$(private_apt apt-cache madison "$package" 2>/dev/null |
		awk -F ' *[|] *' -v v="$KVER." 'index($2, v) == 1 { print $2; exit }')
	[ -n "$version" ] || return 1
	say "downloading $package $version from $suite"
	download "$apt/download" "$package=$version" || return 1
	deb=$(ls "$apt/download"/*.deb)
	dpkg-deb --fsys-tarfile "$deb" |
		tar -xO --wildcards "*/$package.tar.xz" >"$apt/download/tar" ||
		die "cannot unpack $package: is the disk full?"
	rm -f "$deb"
	keep "$apt/download/tar" "${package}_${version//[^0-9A-Za-z.+~-]/_}.tar.xz"
}

try_source()
{
	local version orig

	version=$(private_apt apt-cache showsrc linux 2>/dev/null |
		awk -v v="$KVER." '$1 == "Version:" && index($2, v) == 1 { print $2; exit }')
	[ -n "$version" ] || return 1
	say "downloading the source of linux $version from $suite"
	rm -rf "$apt/download"
	mkdir -p "$apt/download"
	(cd "$apt/download" &&
		private_apt apt-get source --download-only "linux=$version") \
		>>"$log" 2>&1 || return 1
	orig=$(ls "$apt/download"/linux_*.orig.tar.xz) || return 1
	mv "$orig" "$apt/download/tar"
	keep "$apt/download/tar" "${package}_${version}_orig.tar.xz"
}

cached && exit 0

need tar xz sha256sum
mkdir -p "$CACHE_DIR" 2>/dev/null || :
[ -w "$CACHE_DIR" ] ||
	die "cannot write to $CACHE_DIR: set CACHE_DIR to another directory"
free_space "$CACHE_DIR" 1
free_space "$BUILD" 1
private_start "$REPORTS/fetch.log" "give KERNEL=/path/to/linux-$KVER.tar.xz or a tree"

for suite in $suites; do
	if use_suite deb && try_binary; then
		cached
		exit
	fi
done
for suite in $suites; do
	if use_suite deb-src && try_source; then
		cached
		exit
	fi
done

die "no suite of $uri has $package: give KERNEL=/path/to/linux-$KVER.tar.xz or a tree"
