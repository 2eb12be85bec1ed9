# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034	# the scripts that source it use them
#
# What fetch.sh and kernels.sh have in common: packages of suites that this system
# does not have. Its own apt configuration is only read: newer suites live in a
# private one below build/apt, checked with the installed archive key. Source it
# after lib.sh, then call private_start LOG HINT. With CROSS they are packages of that
# architecture.

apt=$BUILD/apt
packages_for=(${CROSS:+-o "APT::Architecture=$CROSS" -o "APT::Architectures::=$CROSS"})

private_apt()
{
	local tool=$1

	shift
	"$tool" -q -o Dir::Etc::SourceList="$apt/sources.list" \
		-o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State="$apt/state" -o Dir::State::Lists="$apt/lists" \
		-o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
		-o Acquire::Languages=none -o APT::Sandbox::User=root \
		-o Acquire::Retries=1 -o Acquire::http::Timeout=30 \
		-o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false \
		"${packages_for[@]}" "$@"
}

# private_start LOG HINT: sets the address of the archive and the suites to ask, the
# system's own first. HINT says what to do without the archive.
private_start()
{
	local own archives suite

	need apt-get apt-cache dpkg-deb
	log=$1 hint=$2
	keyring=$(debian_keyring)
	trap 'rm -rf "$apt"' EXIT
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/state" "$REPORTS"
	: >"$apt/status"
	: >"$log"
	archives=$(debian_archives) || die "apt knows no Debian archive: $hint"
	uri=$(echo "$archives" | awk 'NR == 1 { print $1 }')
	own=$(echo "$archives" | awk -v u="$uri" '$1 == u { print $2 }')
	suites=
	for suite in $own trixie-backports trixie forky forky-backports testing unstable; do
		case " $suites " in
		*" $suite "*)	;;
		*)		suites="$suites $suite" ;;
		esac
	done
}

# use_suite KIND: points the private configuration at $suite; fails where the
# archive has no such suite.
use_suite()
{
	printf '%s [%ssigned-by=%s] %s %s main\n' "$1" "${CROSS:+arch=$CROSS }" "$keyring" \
		"$uri" "$suite" \
		>"$apt/sources.list"
	if ! private_apt apt-get update >"$log.update" 2>&1 ||
	   grep -qE '^(Err|W:|E:)' "$log.update"; then
		cat "$log.update" >>"$log"
		# As while a mirror is being updated
		if grep -qE 'unexpected size|Hash Sum mismatch' "$log.update"; then
			say "$suite has lists that do not match its Release file: left out"
			return 1
		fi
		grep -qE '404|no longer has a Release|does not have a Release' \
			"$log.update" ||
			die "cannot reach $uri (see $log): check the network, or $hint"
		return 1
	fi
}

# download DIR PACKAGE[=VERSION]...: their files, from $suite
download()
{
	local dir=$1

	shift
	rm -rf "$dir"
	mkdir -p "$dir"
	(cd "$dir" && private_apt apt-get download "$@") >>"$log" 2>&1
}
