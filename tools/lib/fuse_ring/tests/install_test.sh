#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
#
# What a packager and the author of a server do: build the library, install it
# somewhere, build a server with what pkg-config says, and mount it.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

example=/usr/share/doc/libfuse3-dev/examples/hello_ll.c

# both TARGET [VAR=value...]: of the library and of the programs on it
both()
{
	make -C "$tests/.." O="$shared/made" "$@" &&
		make -C "$tests/../../../fuse" O="$shared/made" "$@"
}

set_up()
{
	both install WERROR=1 PREFIX="$shared/prefix"
}

begin_case()
{
	prefix=$shared/prefix
	export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
}

installed()
{
	find "$1" ! -type d -printf '%M %P %l\n' | sort -k 2
}

all_is_there()
{
	installed "$prefix" | sed -E 's/\.[0-9]+\.[0-9]+\.[0-9]+/.VERSION/' >"$dir/list"
	diff - "$dir/list" <<-END || fail "something else was installed"
		-rwxr-xr-x bin/passthrough_ring$eol
		-rw-r--r-- include/fuse_ring.h$eol
		-rw-r--r-- lib/libfuse_ring.a$eol
		lrwxrwxrwx lib/libfuse_ring.so libfuse_ring.so.VERSION
		lrwxrwxrwx lib/libfuse_ring.so.0 libfuse_ring.so.VERSION
		-rwxr-xr-x lib/libfuse_ring.so.VERSION$eol
		-rwxr-xr-x lib/libfuse_ring_preload.so$eol
		-rw-r--r-- lib/pkgconfig/fuse_ring.pc$eol
		-rw-r--r-- share/man/man1/passthrough_ring.1$eol
		-rw-r--r-- share/man/man7/fuse_ring.7$eol
	END
}

# A distribution has other directories.
directories_of_others()
{
	both install DESTDIR="$dir/root" PREFIX=/usr LIBDIR=/usr/lib/other
	[ "$(PKG_CONFIG_PATH=$dir/root/usr/lib/other/pkgconfig \
		pkg-config --variable=libdir fuse_ring)" = /usr/lib/other ] ||
		fail "pkg-config says another directory"
	[ -e "$dir/root/usr/lib/other/libfuse_ring.so" ] ||
		fail "the library is in another directory"
	both uninstall DESTDIR="$dir/root" PREFIX=/usr LIBDIR=/usr/lib/other
	[ -z "$(installed "$dir/root")" ] ||
		fail "left behind: $(installed "$dir/root")"
}

# server_works PROGRAM
server_works()
{
	"$1" -f -s "$mnt" >"$dir/server.out" 2>&1 &
	server=$!
	log=$dir/server.out
	await_mount "$mnt"
	[ "$(cat "$mnt/hello")" = 'Hello World!' ] || fail "the file says something else"
	expect_auto zero-copy "$server" fuse_ring
	stop_server "$mnt"
}

# A server of libfuse's, with one line changed
change_server()
{
	[ -f "$example" ] || skip "libfuse has no examples here"
	sed -e '1i #include <fuse_ring.h>' \
	    -e 's/fuse_session_loop(se)/fuse_ring_session_loop(se, NULL)/' \
		"$example" >"$dir/server.c"
	grep -q fuse_ring_session_loop "$dir/server.c" || fail "its loop is another"
}

shared_server()
{
	change_server
	# shellcheck disable=SC2046	# a list of flags
	gcc -Wall -Werror "$dir/server.c" -o "$dir/server" \
		$(pkg-config --cflags --libs fuse_ring fuse3)
	[[ $(ldd "$dir/server") == *'libfuse_ring.so.0 => '* ]] ||
		fail "it is not linked to libfuse_ring.so.0"
	export LD_LIBRARY_PATH=$prefix/lib
	server_works "$dir/server"
}

static_server()
{
	change_server
	# shellcheck disable=SC2046	# a list of flags
	gcc -Wall -Werror "$dir/server.c" "$prefix/lib/libfuse_ring.a" \
		-o "$dir/server" -pthread $(pkg-config --cflags fuse_ring) \
		$(pkg-config --cflags --libs fuse3 liburing)
	[[ $(ldd "$dir/server") != *libfuse_ring* ]] ||
		fail "it is not linked statically"
	server_works "$dir/server"
}

# A pool of buffers need not be pinned for zero-copy, a buffer ring has to be.
without_locked_memory()
{
	local line

	change_server
	# shellcheck disable=SC2046	# a list of flags
	gcc "$dir/server.c" -o "$dir/server" $(pkg-config --cflags --libs fuse_ring fuse3)
	export LD_LIBRARY_PATH=$prefix/lib
	log=$dir/server.out
	(ulimit -l 64 && exec setpriv --bounding-set -ipc_lock \
		"$dir/server" -f -s "$mnt") >"$log" 2>&1 &
	server=$!
	await_mount "$mnt"
	[ "$(cat "$mnt/hello")" = 'Hello World!' ] || fail "the file says something else"
	within 30 said_something || fail "the library did not say what it does"
	line=$(head -n 1 "$log")
	[[ ! $line =~ $kernel_lacks ]] || skip "$line"
	case $line in
	*" pooled, "*"; pinned needs "*" of locked memory "*) ;;
	*)	fail "it says: $line" ;;
	esac
	! has_pinned "$server" || fail "memory is pinned"
	stop_server "$mnt"
}

passthrough_mounts()
{
	mkdir "$dir/source"
	head -c 3000000 /dev/urandom >"$dir/source/data"
	"$prefix/bin/passthrough_ring" -f -o "source=$dir/source" "$mnt" \
		>"$dir/server.out" 2>&1 &
	server=$!
	log=$dir/server.out
	await_mount "$mnt"
	expect_auto zero-copy "$server" passthrough_ring
	cmp "$dir/source/data" "$mnt/data" || fail "the data differs"
	stop_server "$mnt"
}

man_pages()
{
	local page

	command -v man >/dev/null || skip "man is not installed"
	for page in man1/passthrough_ring.1 man7/fuse_ring.7; do
		MANWIDTH=80 man --warnings -l "$prefix/share/man/$page" \
			>"$dir/page" 2>"$dir/complaints" || fail "$page is not shown"
		[ ! -s "$dir/complaints" ] || fail "$page: $(head -n 1 "$dir/complaints")"
		grep -q ring "$dir/page" || fail "$page is empty"
	done
}

eol=' '
test_case all_is_there 60 all_is_there
test_case directories_of_others 300 directories_of_others
test_case shared_server 60 shared_server
test_case static_server 60 static_server
test_case without_locked_memory 60 without_locked_memory
test_case passthrough_mounts 60 passthrough_mounts
test_case man_pages 60 man_pages

run_cases "$@"
