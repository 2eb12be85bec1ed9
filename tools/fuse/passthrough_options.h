/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * passthrough_ring: the command line
 *
 * Functions that return int give 0, or -1 after they said what is wrong.
 */
#ifndef PASSTHROUGH_OPTIONS_H
#define PASSTHROUGH_OPTIONS_H

#include "passthrough.h"

#define PROGRAM "passthrough_ring"

/* What libfuse does not do for mount(8), see passthrough_mount.c */
struct mount_flags {
	unsigned long set;	/* MS_NODEV and so on */
	bool remount;
};

struct options {
	struct passthrough *pt;		/* most of them go there */
	struct mount_flags mount;
	struct fuse_args args;		/* what libfuse has yet to read */
	struct fuse_cmdline_opts cmdline;
	char *cache;
	double timeout;
	double attr_timeout;
	double entry_timeout;
	bool allow_other;
	char *operand[2];
	int operands;
	char *fsname;			/* what mount(8) shows in place of the source */
};

__printf(1, 2)
int complain(const char *format, ...);

int options_parse(struct options *options);
int options_add_mount_options(struct options *options);
void options_free(struct options *options);
void options_print_help(void);
void options_print_version(void);

int mount_take_option(struct mount_flags *flags, const char *name);
int mount_set_flags(const struct mount_flags *flags, const char *mountpoint);
int mount_again(const struct mount_flags *flags, const char *mountpoint);

#endif
