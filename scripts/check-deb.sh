#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-deb.sh RELEASE IMAGE: the Debian packages of the library, in systems of that
# release with nothing but apt. They are built with no more than they ask for, and
# installed: what is there then is what they list, and it goes with them. Their own
# tests are run by autopkgtest, but for the one that mounts, which is run on the kernel
# IMAGE in User Mode Linux. Needs root.

. "$(dirname "$0")/lib.sh" || exit 1
need autopkgtest lintian unshare

release=${1:?which release?}
image=${2:?on which kernel?}
dir=$BUILD/check/deb-$release
base=$("$TOP/scripts/debian_root.sh" "$release" packages)
here=/usr/src/packages
ours=(libfuse-ring0 libfuse-ring-dev fuse-ring-tools)

# system NAME DIR: another one, with what is in DIR
root=
system()
{
	[ -z "$root" ] || rm -rf --one-file-system "$root"
	root=$dir/$1
	cp -a "$base" "$root"
	mkdir -p "$root$here"
	cp -a "$2"/. "$root$here/"
}

# within COMMAND: in that system, in the directory with its files, and without a
# network
apt="apt-get -y -q -o Dpkg::Use-Pty=0"
within()
{
	unshare -mnpf --kill-child --mount-proc="$root/proc" chroot "$root" \
		env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root \
		DEBIAN_FRONTEND=noninteractive sh -exc "cd $here; $1"
}

# Files that no package lists, but for what apt, dpkg and ldconfig keep for themselves
unlisted()
{
	comm -23 <(cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev \
			-o -path ./run -o -path ./tmp -o -path ".$here" -o -path ./var/cache \
			-o -path ./var/log -o -path ./var/lib/apt -o -path ./var/lib/dpkg \
			-o -path ./etc/ld.so.cache \) -prune -o -printf '/%P\n' | sort -u) \
		<(sed -E 's,^/(bin|s?bin|lib[^/]*)/,/usr/\1/,' "$root"/var/lib/dpkg/info/*.list |
			sort -u)
}

state()
{
	unlisted
	within 'dpkg-query -W'
}

free_space "$BUILD" 2
rm -rf --one-file-system "$dir"
mkdir -p "$dir"
"$TOP/scripts/deb.sh" -S -o "$dir/source" fuse-ring

say "building on $release"
system build "$dir/source"
within "$apt install dpkg-dev
	dpkg-source -x *.dsc tree
	$apt build-dep ./tree
	cd tree
	dpkg-buildpackage -us -uc"
mkdir "$dir/built"
cp "$root$here"/*.* "$dir/built/"
lint_packages "$dir/built"/*.changes

say "installing on $release"
system installed "$dir/built"
state >"$dir/before"
within "$apt install ./*.deb"
unlisted >"$dir/unlisted"
diff <(grep '^/' "$dir/before") "$dir/unlisted" || die "files that no package lists"
within "dpkg --verify ${ours[*]}" >"$dir/verified"
[ ! -s "$dir/verified" ] || die "not as packed: $(cat "$dir/verified")"
for package in "${ours[@]}"; do
	within "dpkg -L $package" | while read -r file; do
		[ -d "$root$file" ] || echo "$package $file"
	done
done | sed -E 's,/usr/lib/[a-z0-9_]+-linux-gnu[a-z0-9]*/,/usr/lib/ARCH/,
	s/\.so\.0\.[0-9.]+$/.so.VERSION/' | LC_ALL=C sort >"$dir/files"
diff - "$dir/files" <<-END || die "other files than expected"
	fuse-ring-tools /usr/bin/passthrough_ring
	fuse-ring-tools /usr/lib/ARCH/libfuse_ring_preload.so
	fuse-ring-tools /usr/share/doc/fuse-ring-tools/changelog.gz
	fuse-ring-tools /usr/share/doc/fuse-ring-tools/copyright
	fuse-ring-tools /usr/share/lintian/overrides/fuse-ring-tools
	fuse-ring-tools /usr/share/man/man1/passthrough_ring.1.gz
	fuse-ring-tools /usr/share/man/man7/fuse_ring.7.gz
	libfuse-ring-dev /usr/include/fuse_ring.h
	libfuse-ring-dev /usr/lib/ARCH/libfuse_ring.a
	libfuse-ring-dev /usr/lib/ARCH/libfuse_ring.so
	libfuse-ring-dev /usr/lib/ARCH/pkgconfig/fuse_ring.pc
	libfuse-ring-dev /usr/share/doc/libfuse-ring-dev/changelog.gz
	libfuse-ring-dev /usr/share/doc/libfuse-ring-dev/copyright
	libfuse-ring0 /usr/lib/ARCH/libfuse_ring.so.0
	libfuse-ring0 /usr/lib/ARCH/libfuse_ring.so.VERSION
	libfuse-ring0 /usr/share/doc/libfuse-ring0/changelog.gz
	libfuse-ring0 /usr/share/doc/libfuse-ring0/copyright
END
within "$apt purge --autoremove '*fuse-ring*'"
diff "$dir/before" <(state) || die "not as it was before"

say "testing on $release"
# autopkgtest wants /proc there, and nobody else sees it.
# shellcheck disable=SC2016	# for the other shell
unshare -mn sh -c 'mount -t proc proc "$2/proc" &&
	exec autopkgtest "$0" --summary-file="$1" -- chroot "$2"' \
	"$(echo "$dir/built"/*.changes)" "$dir/summary" "$root" || :
diff - <(sort -u "$dir/summary") <<-END || die "its own tests"
	link                 PASS
	man-pages            PASS
	mount                SKIP Test restriction "isolation-machine" requires testbed capability "isolation-machine"
	preload              PASS
END

say "mounting on $release"
system mounting "$dir/built"
cp -r "$TOP/packaging/fuse-ring/debian/tests" "$root$here/"
depends=$(sed -n '/^Tests: mount$/,/^$/ s/^Depends: //p' "$root$here/tests/control")
within "$apt install ./fuse-ring-tools_*.deb ./libfuse-ring-dev_*.deb ./libfuse-ring0_*.deb
	$apt satisfy '$depends'"
on_free_cpu "$WORKSHOP/vm.sh" -e uml -k "$image" -S "$LINUX" -O "$root" -R "$root" \
	-r "$REPORTS/uml-deb-$release" -t 100 \
	-c "mkdir /tmp/mount && AUTOPKGTEST_TMP=/tmp/mount $here/tests/mount"
rm -rf --one-file-system "$dir"
