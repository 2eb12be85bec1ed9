// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * passthrough_ring: what mount(8) asks of a file system
 *
 * It hands on all that is in its command line or in fstab(5), of which libfuse
 * knows a part, and starts the program again to remount.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>

#include "passthrough_options.h"

static const struct {
	const char *name;
	unsigned long flag;	/* 0: of no meaning here */
	bool set;
	bool libfuse;		/* knows it, too */
} mount_options[] = {
	{ "rw", MS_RDONLY, false, true },
	{ "ro", MS_RDONLY, true, true },
	{ "suid", MS_NOSUID, false, true },
	{ "nosuid", MS_NOSUID, true, true },
	{ "dev", MS_NODEV, false, true },
	{ "nodev", MS_NODEV, true, true },
	{ "exec", MS_NOEXEC, false, true },
	{ "noexec", MS_NOEXEC, true, true },
	{ "async", MS_SYNCHRONOUS, false, true },
	{ "sync", MS_SYNCHRONOUS, true, true },
	{ "dirsync", MS_DIRSYNC, true, true },
	{ "atime", MS_NOATIME, false, true },
	{ "noatime", MS_NOATIME, true, true },
	{ "diratime", MS_NODIRATIME, false, false },
	{ "nodiratime", MS_NODIRATIME, true, false },
	{ "relatime", MS_RELATIME, true, false },
	{ "norelatime", MS_RELATIME, false, false },
	{ "strictatime", MS_STRICTATIME, true, false },
	{ "nostrictatime", MS_STRICTATIME, false, false },
	{ "symfollow", MS_NOSYMFOLLOW, false, false },
	{ "nosymfollow", MS_NOSYMFOLLOW, true, false },
	{ "defaults", 0, false, false },
	{ "silent", 0, false, false },
	{ "loud", 0, false, false },
	{ "lazytime", 0, false, false },
	{ "nolazytime", 0, false, false },
	{ "iversion", 0, false, false },
	{ "noiversion", 0, false, false },
	{ "mand", 0, false, false },
	{ "nomand", 0, false, false },
	{}
};

/* Gives 1 for what libfuse is to see, 0 if it was ours, -1 if it is no such option. */
int mount_take_option(struct mount_flags *flags, const char *name)
{
	int n = 0;

	if (!strcmp(name, "remount")) {
		flags->remount = true;
		return 0;
	}
	while (mount_options[n].name && strcmp(name, mount_options[n].name))
		n++;
	if (!mount_options[n].name)
		return -1;
	if (mount_options[n].set)
		flags->set |= mount_options[n].flag;
	else
		flags->set &= ~mount_options[n].flag;
	return mount_options[n].libfuse;
}

/* What libfuse does not know, when it has mounted */
int mount_set_flags(const struct mount_flags *flags, const char *mountpoint)
{
	struct mount_attr attr = {};

	if (flags->set & MS_NODIRATIME)
		attr.attr_set |= MOUNT_ATTR_NODIRATIME;
	if (flags->set & MS_NOSYMFOLLOW)
		attr.attr_set |= MOUNT_ATTR_NOSYMFOLLOW;
	if (flags->set & MS_STRICTATIME) {
		attr.attr_clr |= MOUNT_ATTR__ATIME;
		attr.attr_set |= MOUNT_ATTR_STRICTATIME;
	}
	if (!attr.attr_set ||
	    !mount_setattr(AT_FDCWD, mountpoint, 0, &attr, sizeof(attr)))
		return 0;
	return complain("%s: mount_setattr(): %s", mountpoint, strerror(errno));
}

/*
 * The kernel takes these flags in place of those that the mount has. Other options
 * are the server's, and stay as they are.
 */
int mount_again(const struct mount_flags *flags, const char *mountpoint)
{
	if (!mount(NULL, mountpoint, NULL, MS_REMOUNT | flags->set, NULL))
		return 0;
	return complain("%s: cannot remount: %s", mountpoint, strerror(errno));
}
