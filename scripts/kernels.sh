#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# kernels.sh: runs the selftests on kernels that people run, and tells which of the
# known faults each of them has.
#
#   KERNELS="7.2 6.18.15 PATH"  releases of Debian's kernels, the newest of each that
#                     an archive of this system's has; images, of User Mode Linux
#                     ('linux') or a bzImage; "uml" is Linux 7.3 as released, built
#                     here for User Mode Linux. Default: uml 7.3 7.2 7.1 6.18 6.12
#                     "series" is the kernel that this repository makes.
#   CROSS=arm64|s390x kernels of that architecture, emulated: those of Debian have
#                     16 KiB pages on arm64, and the one of the series 64 KiB. Default:
#                     7.3 series
#   TEST="a b"        only these test programs; ARGS='-t name' for them
#   CPUS=N            of those in qemu (default 2)
#
# A kernel of Debian's boots in qemu, with an initramfs made of its own modules, or over
# virtiofs, which it has built in, where the archive has its modules no more. Tests
# that may take an unfixed kernel down come last, each in a boot of its own: a kernel
# that dies there is a result. It is an error if a test fails that shows no known
# fault of the release, or if one passes that should show a fault in a kernel as
# released. An image given by PATH may have fixes: there it is a result, too.
#
# build/reports/kernels has table, report.html and the logs of each boot.

. "$(dirname "$0")/lib.sh" || exit 1
. "$(dirname "$0")/apt.sh" || exit 1

out=$REPORTS/kernels${CROSS:+-$CROSS}
store=$CACHE_DIR/kernels${CROSS:+-$CROSS}
default="uml 7.3 7.2 7.1 6.18 6.12"
flavour=amd64
case ${CROSS:-} in
'')	;;
arm64)	flavour=arm64-16k default="7.3 series" ;;
*)	flavour=$CROSS default="7.3 series" ;;
esac
# What mounts the root, and what the tests use where it is a module
modules=(virtio_pci virtio_console 9pnet_virtio 9p fuse cuse loop ext4)
# Seconds for a whole run, and for one test that may hang
limit=3600 limit_of_one=240

names_of_packages='^linux-(binary|image|modules)-[0-9][0-9.]*(-[0-9]+)?([+][a-z0-9.]+)?-'"$flavour\$"

# The packages that hold kernels: SUITE PACKAGE VERSION. Which there are changes
# little in a day, and asking all suites takes half a minute.
list_packages()
{
	local new names

	[ -z "$(find "$store/list" -mtime -1 2>/dev/null)" ] || return 0
	mkdir -p "$store" || die "cannot write to $store: set CACHE_DIR to another directory"
	say "asking the archive which kernels it has"
	[ -n "${suites:-}" ] || private_start "$REPORTS/kernels.log" 'give KERNELS="PATH ..."'
	new=$(mktemp "$store/list.XXXXXX")
	for suite in $suites; do
		use_suite deb || continue
		mapfile -t names < <(private_apt apt-cache pkgnames linux- | grep -E "$names_of_packages")
		[ ${#names[@]} = 0 ] || private_apt apt-cache madison "${names[@]}" |
			awk -F ' *[|] *' -v s="$suite" '{ sub(/^ */, "", $1); print s, $1, $2 }'
	done >"$new"
	mv "$new" "$store/list"
}

# have KIND RELEASE: is there such a package?
have()
{
	grep -qF " linux-$1-$2 " "$store/list"
}

# newest VERSION: the release of the newest kernel of that version, of those with their
# modules if there are any. The archive forgets some packages of an old kernel before
# others.
newest()
{
	local release first=''

	while read -r _ release; do
		if have modules "$release" || ! have binary "$release"; then
			first=$release
			break
		fi
		first=${first:-$release}
	done < <(awk -v v="$1" '
		$2 ~ /^linux-image-/ && index($3, v) == 1 &&
		substr($3, length(v) + 1, 1) ~ /[-.~+]/ {
			print $3, substr($2, length("linux-image-") + 1)
		}' "$store/list" | sort -rV)
	echo "$first"
}

# The packages of a release that hold something
packages_of()
{
	if ! have binary "$1"; then
		echo "linux-image-$1"
		return
	fi
	echo "linux-binary-$1"
	! have modules "$1" || echo "linux-modules-$1"
}

# What a kernel in the store was made with
stamp()
{
	{ cat "$WORKSHOP"/initramfs*.sh; echo "${modules[@]}"; } | sha256sum
}

stored()
{
	[ "$(cat "$store/$1/stamp" 2>/dev/null)" = "$(stamp)" ] &&
		(cd "$store/$1" && sha256sum --status -c sums)
}

# fetch_kernel RELEASE: to the store, the image and, where there are modules, an
# initramfs
fetch_kernel()
{
	local release=$1 dir=$apt/download new=$store/$1.new names deb its_modules

	! stored "$release" || return 0
	[ -n "${suites:-}" ] || private_start "$REPORTS/kernels.log" 'give KERNELS="PATH ..."'
	free_space "$BUILD" 2
	mapfile -t names < <(packages_of "$release")
	suite=$(grep -F " ${names[0]} " "$store/list" | head -n 1 | cut -d' ' -f1)
	say "downloading ${names[*]} from $suite"
	if ! use_suite deb || ! download "$dir" "${names[@]}"; then
		die "cannot download ${names[*]}: see ${log#"$TOP"/}"
	fi
	for deb in "$dir"/*.deb; do
		dpkg-deb -x "$deb" "$dir/root" || die "cannot unpack $deb: is the disk full?"
		rm "$deb"
	done
	rm -rf "$new"
	mkdir -p "$new"
	find "$dir/root" -name 'vmlinuz*' -exec cp {} "$new/vmlinuz" \;
	its_modules=$(find "$dir/root" -path "*/modules/$release")
	[ -z "$its_modules" ] || [ ! -d "$its_modules/kernel" ] ||
		"$WORKSHOP/initramfs.sh" "$its_modules" "$new/initramfs" "${modules[@]}"
	awk -v p="${names[0]}" '$2 == p { print $2, $3, "from", $1; exit }' "$store/list" \
		>"$new/package"
	(cd "$new" && sha256sum -- * >sums)
	stamp >"$new/stamp"
	rm -rf "${store:?}/$release" "$dir"
	mv "$new" "$store/$release"
}

# release_of IMAGE: what uname -r says there
release_of()
{
	local at

	if [ "${1##*/}" = linux ]; then
		timeout 10 "$1" --version </dev/null
	else
		# Documentation/arch/x86/boot.rst: kernel_version
		at=$(od -An -tu2 -j 526 -N 2 "$1")
		dd if="$1" bs=1 skip=$((at + 512)) count=80 status=none | tr '\0' ' ' | cut -d' ' -f1
	fi
}

# describe NAME KEY=VALUE...: what the report says of a kernel
describe()
{
	local dir=$out/$1

	shift
	mkdir -p "$dir"
	printf '%s\n' "$@" >"$dir/kernel"
}

# add NAME IMAGE OPTIONS SOURCE STOCK [RELEASE]: a kernel to be run, with options for
# vm.sh
names=() images=() options=() releases=()
add()
{
	local name=$1 engine=qemu release=${6:-}

	[ "${2##*/}" != linux ] || engine=uml
	release=${release:-$(release_of "$2")} || :
	[[ $release =~ ^[0-9]+[.][0-9]+ ]] || die "$2 is no kernel that can be run here"
	[[ " ${names[*]} " != *" $name "* ]] || name=$name-${#names[@]}
	names+=("$name") images+=("$2") options+=("$3") releases+=("${BASH_REMATCH[0]}")
	describe "$name" "release=$release" "engine=$engine" "source=$4" "stock=$5"
}

# add_image PATH: with the modules that belong to it, where they are installed
add_image()
{
	local release option=''

	release=$(release_of "$1") || :
	if [ "${1##*/}" != linux ] && [ -d "/lib/modules/$release" ]; then
		option=$'-I\n'$work/$release
		"$WORKSHOP/initramfs.sh" "/lib/modules/$release" "$work/$release" "${modules[@]}"
	fi
	add "$release" "$1" "$option" "$(realpath "$1")" no
}

# add_debian VERSION
add_debian()
{
	local release dir option=-V

	list_packages
	release=$(newest "$1")
	if [ -n "$release" ]; then
		fetch_kernel "$release"
		dir=$store/$release
		[ ! -e "$dir/initramfs" ] || option=$'-I\n'$dir/initramfs
		add "$(awk '{ sub(/-.*/, "", $2); print $2 }' "$dir/package")" \
			"$dir/vmlinuz" "$option" "Debian $(cat "$dir/package")" yes "$release"
		return
	fi
	# What nobody named may be missing, but not without a word.
	[ -z "${KERNELS:-}" ] || die "KERNELS: the archive has no Linux $1"
	say "the archive has no Linux $1: left out"
	missing+=("$1")
}

missing=()
add_kernels()
{
	local kernel image

	for kernel in ${KERNELS:-$default}; do
		case $kernel in
		uml)	add "$KVER-uml" "$(ENGINE=uml BASE=1 DEBUG=0 "$TOP/scripts/kernel.sh")" '' \
				"Linux $KVER as released, built for User Mode Linux" yes ;;
		series)	image=$(ENGINE=qemu BASE=0 DEBUG=0 "$TOP/scripts/kernel.sh")
			add series "$image" '' "Linux $KVER with the series" no \
				"$(cat "${image%/arch/*}/include/config/kernel.release")" ;;
		*/*)	add_image "$kernel" ;;
		*)	add_debian "$kernel" ;;
		esac
	done
}

# Before anything is built for them
check_words()
{
	local kernel

	for kernel in ${KERNELS:-}; do
		case $kernel in
		uml)	[ -z "${CROSS:-}" ] || die "KERNELS: uml is none of $CROSS" ;;
		series|[0-9]*) ;;
		*/*)	[ -s "$kernel" ] || die "KERNELS: there is no $kernel" ;;
		*)	die "KERNELS: $kernel is neither a version, a path, series nor uml" ;;
		esac
	done
}

# boot NUMBER NAME LIMIT TESTS ARGS: a machine with the kernel of that number
boot()
{
	local dir=$out/${names[$1]} more=()

	[ -z "${options[$1]}" ] || mapfile -t more <<<"${options[$1]}"
	[ -z "${CROSS:-}" ] || more+=(-e qemu -A "$CROSS" -R "$root")
	[ -z "${CPUS:-}" ] || more+=(-n "$CPUS")
	mkdir -p "$dir/$2"
	# What the processor is kept from guessing makes an emulated one slow.
	"$WORKSHOP/vm.sh" -k "${images[$1]}" -S "$LINUX" -O "$selftests" -m 2G \
		-r "$dir/$2" -t "$3" -T "$4" -a "$5" -x "$dir/known" \
		-p mitigations=off "${more[@]}" >"$dir/$2/log" 2>&1 </dev/null || :
}

# boot_all NUMBER: with all programs. If the kernel dies in one, those after it come
# in another boot.
boot_all()
{
	local dir=$out/${names[$1]} rest=" $programs " n=1 last

	while [[ $rest == *[!\ ]* ]]; do
		boot "$1" "boot-$n" "$limit" "$rest" "${ARGS:-}"
		[ ! -s "$dir/boot-$n/verdict" ] || break
		last=$(sed -n 's/^# selftests: fuse: //p' "$dir/boot-$n/ktap.log" 2>/dev/null |
			tail -n 1) || break
		[ -n "$last" ] || break
		rest=${rest#*" $last "}
		rest=" $rest"
		n=$((n + 1))
	done
}

# dangerous RELEASE: NAME PROGRAM ARGS of the faults of that release whose tests may
# take the kernel down
dangerous()
{
	local name program args

	"$TOP/scripts/fixes.sh" --dangerous "$1" | while read -r name program args; do
		[[ " $programs " != *" $program "* ]] || echo "$name $program $args"
	done
}

run_kernel()
{
	local n=$1 dir=$out/${names[$1]} name program args started=$SECONDS

	say "${names[n]}: $(sed -n 's/^source=//p' "$dir/kernel")"
	if [ "${names[n]}" = series ]; then
		: >"$dir/known"
		FUSE_DANGEROUS_TESTS=1 boot_all "$n"
		echo "seconds=$((SECONDS - started))" >>"$dir/kernel"
		return
	fi
	"$TOP/scripts/fixes.sh" --tests "${releases[n]}" >"$dir/known"
	FUSE_DANGEROUS_TESTS='' boot_all "$n"
	while read -r name program args; do
		if [ -n "${ARGS:-}" ]; then
			say "${names[n]}: $name: left out, as ARGS names tests"
			continue
		fi
		say "${names[n]}: $name"
		FUSE_DANGEROUS_TESTS=1 boot "$n" "fault-$name" "$limit_of_one" "$program" "$args"
	done < <(dangerous "${releases[n]}")
	echo "seconds=$((SECONDS - started))" >>"$dir/kernel"
}

check_words
"$TOP/scripts/deps.sh" kernels
"$TOP/scripts/tree.sh"
root='' selftests=$BUILD/selftests
if [ -n "${CROSS:-}" ]; then
	root=$("$TOP/scripts/debian_root.sh" "$(own_release)" "$CROSS")
	selftests=$BUILD/selftests-$CROSS
	export BUSYBOX=$root/bin/busybox
fi
ROOT=$root "$TOP/scripts/selftests.sh" all
programs=${TEST:-$(basename -s .c "$TOP/$SELFTESTS"/*_test.c)}
programs=$(echo "$programs" | tr -s '\n\t ' ' ')
rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work" "$apt"' EXIT
add_kernels
trap 'rm -rf "$work" "$apt"' EXIT
for n in "${!names[@]}"; do
	run_kernel "$n"
done
echo
python3 "$WORKSHOP/kernels_report.py" "$out" "$WORKSHOP/known_faults" "$TOP/patches/fixes" \
	"${names[@]}" "${missing[@]/#/missing:}"
