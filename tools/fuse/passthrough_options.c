// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * passthrough_ring: the command line
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "passthrough_options.h"

#define DEFAULT_TIMEOUT	1.0
#define LONG_TIMEOUT	86400.0
#define UNSET		-1.0

int complain(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", PROGRAM);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return -1;
}

#define OPTION(template, field) { template, offsetof(struct options, field), 1 }

enum {
	KEY_SOURCE = 1,
	KEY_WRITEBACK,
	KEY_DIRECT_IO,
	KEY_KEEP_O_DIRECT,
	KEY_POSIX_ACL,
	KEY_ALLOW_OTHER,
};

static const struct fuse_opt option_specs[] = {
	OPTION("cache=%s", cache),
	OPTION("timeout=%lf", timeout),
	OPTION("attr_timeout=%lf", attr_timeout),
	OPTION("entry_timeout=%lf", entry_timeout),
	FUSE_OPT_KEY("source=", KEY_SOURCE),
	FUSE_OPT_KEY("writeback", KEY_WRITEBACK),
	FUSE_OPT_KEY("direct_io", KEY_DIRECT_IO),
	FUSE_OPT_KEY("keep_o_direct", KEY_KEEP_O_DIRECT),
	FUSE_OPT_KEY("posix_acl", KEY_POSIX_ACL),
	FUSE_OPT_KEY("allow_other", KEY_ALLOW_OTHER),
	FUSE_OPT_END
};

static const char usage[] =
	"usage: %s [options] SOURCE MOUNTPOINT\n"
	"       %s [options] -o source=SOURCE [NAME] MOUNTPOINT\n"
	"\n"
	"Shows the directory SOURCE at MOUNTPOINT, too.\n"
	"\n"
	"Options:\n";

static const char own_options[] =
	"\n"
	"The file system:\n"
	"    -o source=DIR          the directory to show\n"
	"    -o cache=never         always ask SOURCE, also for file data\n"
	"    -o cache=auto          trust what was asked for a second (default)\n"
	"    -o cache=always        SOURCE only changes through the mount\n"
	"    -o timeout=SECONDS     trust names and attributes for this long\n"
	"    -o attr_timeout=SECONDS, -o entry_timeout=SECONDS\n"
	"                           one of them\n"
	"    -o direct_io           do not cache file data\n"
	"    -o writeback           the kernel collects writes before it sends them\n"
	"    -o keep_o_direct       O_DIRECT of clients goes for SOURCE, too\n"
	"    -o posix_acl           access control lists (changes who may do what)\n"
	"\n"
	"The ring:\n";

void options_print_help(void)
{
	printf(usage, PROGRAM, PROGRAM);
	fuse_cmdline_help();
	fuse_lowlevel_help();
	printf("%s%s", own_options, fuse_ring_options_help());
}

void options_print_version(void)
{
	printf("%s of fuse_ring %s\n", PROGRAM, FUSE_RING_VERSION);
	printf("FUSE library version %s\n", fuse_pkgversion());
	/* That runs a program. */
	fflush(stdout);
	fuse_lowlevel_version();
}

static int set_string(char **string, const char *value)
{
	free(*string);
	*string = strdup(value);
	return *string ? 0 : complain("out of memory");
}

static int take_operand(struct options *options, const char *operand)
{
	if (options->operands == 2)
		return complain("what is '%s'? There is a SOURCE and a MOUNTPOINT already",
				operand);
	return set_string(&options->operand[options->operands++], operand);
}

static int take_ring_option(struct options *options, const char *text)
{
	int ret = fuse_ring_option_parse(&options->pt->ring, text);

	if (ret < 0)
		return complain("option '%s' makes no sense: %s", text,
				strerror(-ret));
	return ret ? 0 : 1;
}

/* Gives 1 for what libfuse is to see, 0 if it was ours, -1 for an error. */
static int take_option(void *data, const char *arg, int key,
		       struct fuse_args *args)
{
	struct options *options = data;
	struct passthrough *pt = options->pt;

	int ret;

	(void)args;
	switch (key) {
	case FUSE_OPT_KEY_NONOPT:
		return take_operand(options, arg);
	case FUSE_OPT_KEY_OPT:
		ret = mount_take_option(&options->mount, arg);
		return ret < 0 ? take_ring_option(options, arg) : ret;
	case KEY_SOURCE:
		return set_string(&pt->source, strchr(arg, '=') + 1);
	case KEY_WRITEBACK:
		pt->writeback = true;
		return 0;
	case KEY_DIRECT_IO:
		pt->direct_io = true;
		return 0;
	case KEY_KEEP_O_DIRECT:
		pt->keep_o_direct = true;
		return 0;
	case KEY_POSIX_ACL:
		pt->posix_acl = true;
		return 0;
	case KEY_ALLOW_OTHER:
		options->allow_other = true;
		return 1;
	}
	return 1;
}

static int set_cache(struct options *options)
{
	static const struct {
		const char *name;
		enum cache cache;
		double timeout;
	} caches[] = {
		{ "never", CACHE_NEVER, 0 },
		{ "auto", CACHE_AUTO, DEFAULT_TIMEOUT },
		{ "always", CACHE_ALWAYS, LONG_TIMEOUT },
	};
	const char *name = options->cache ? options->cache : "auto";
	size_t i;

	for (i = 0; i < sizeof(caches) / sizeof(*caches); i++) {
		if (strcmp(name, caches[i].name))
			continue;
		options->pt->cache = caches[i].cache;
		if (options->timeout == UNSET)
			options->timeout = caches[i].timeout;
		return 0;
	}
	return complain("cache=%s: never, auto or always", name);
}

static double either(double value, double other)
{
	return value == UNSET ? other : value;
}

static int set_policy(struct options *options)
{
	struct passthrough *pt = options->pt;

	if (set_cache(options))
		return -1;
	pt->attr_timeout = either(options->attr_timeout, options->timeout);
	pt->entry_timeout = either(options->entry_timeout, options->timeout);
	if (pt->attr_timeout < 0 || pt->entry_timeout < 0)
		return complain("a timeout below 0 makes no sense");
	if (pt->cache == CACHE_NEVER)
		pt->direct_io = true;
	return 0;
}

/*
 * SOURCE MOUNTPOINT, or MOUNTPOINT where the source is an option. What comes before
 * that is a name then, as mount(8) wants one.
 */
static int sort_operands(struct options *options)
{
	struct passthrough *pt = options->pt;
	char **last;

	if (options->operands < (pt->source ? 1 : 2))
		return complain("a SOURCE and a MOUNTPOINT are needed: see '%s --help'",
				PROGRAM);
	last = &options->operand[options->operands - 1];
	pt->mountpoint = *last;
	*last = NULL;
	if (options->operands == 2) {
		*(pt->source ? &options->fsname : &pt->source) = options->operand[0];
		options->operand[0] = NULL;
	}
	return 0;
}

/* Reads the command line but for what is libfuse's, which stays in args. */
int options_parse(struct options *options)
{
	/* As libfuse begins */
	options->mount.set = MS_NOSUID | MS_NODEV;
	options->timeout = UNSET;
	options->attr_timeout = UNSET;
	options->entry_timeout = UNSET;
	if (fuse_opt_parse(&options->args, options, option_specs, take_option))
		return -1;
	if (options->mount.remount)
		return sort_operands(options);
	options->pt->conn_opts = fuse_parse_conn_info_opts(&options->args);
	if (!options->pt->conn_opts)
		return -1;
	if (fuse_parse_cmdline(&options->args, &options->cmdline))
		return -1;
	if (options->cmdline.show_help || options->cmdline.show_version)
		return 0;
	if (sort_operands(options))
		return -1;
	return set_policy(options);
}

static int list_mount_options(const struct options *options, char **list)
{
	const struct passthrough *pt = options->pt;
	char *fsname;
	int err;

	if (asprintf(&fsname, "fsname=%s", options->fsname ?: pt->source) < 0)
		return -1;
	err = fuse_opt_add_opt(list, "subtype=passthrough_ring") ||
	      fuse_opt_add_opt_escaped(list, fsname);
	if (!err && (pt->impersonate || options->allow_other))
		err = fuse_opt_add_opt(list, "default_permissions");
	free(fsname);
	return err;
}

/*
 * Mount options that go before the user's, who may give others. The kernel is
 * to check permissions, unless none but the server's own user has access: what
 * that one may do the source knows best.
 */
int options_add_mount_options(struct options *options)
{
	char *list = NULL;
	int err;

	err = list_mount_options(options, &list) ||
	      fuse_opt_insert_arg(&options->args, 1, list) ||
	      fuse_opt_insert_arg(&options->args, 1, "-o");
	free(list);
	return err ? complain("out of memory") : 0;
}

void options_free(struct options *options)
{
	fuse_opt_free_args(&options->args);
	free(options->cache);
	free(options->operand[0]);
	free(options->operand[1]);
	free(options->fsname);
	free(options->pt->source);
	free(options->pt->mountpoint);
	free(options->pt->conn_opts);
}
