#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The first process of a guest that has an initramfs of initramfs.sh: loads the
# modules, mounts the root as the kernel's command line says, and goes on with the
# init that is named there.

mount -t proc none /proc
mount -t devtmpfs none /dev
exec >/dev/kmsg 2>&1

command_line=$(cat /proc/cmdline)

# parameters MODULE: those that the command line has for it
parameters()
{
	for word in $command_line; do
		case $word in
		"$1".*)	echo "${word#*.}" ;;
		esac
	done
}

init='' root='' type='' flags=''
for word in $command_line; do
	case $word in
	init=*)		init=${word#*=} ;;
	root=*)		root=${word#*=} ;;
	rootfstype=*)	type=${word#*=} ;;
	rootflags=*)	flags=${word#*=} ;;
	esac
done

while read -r name; do
	# shellcheck disable=SC2046	# a list of words
	insmod "/modules/$name.ko" $(parameters "$name")
done </modules/list
mount -o "ro,$flags" -t "$type" "$root" /root
exec switch_root /root "$init"
