// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * Options, as a struct and as written on a command line
 */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring.h"

static const char * const mode_names[] = {
	[FUSE_RING_AUTO] = "auto",
	[FUSE_RING_OFF] = "off",
	[FUSE_RING_LEGACY] = "legacy",
	[FUSE_RING_POOLED] = "pooled",
	[FUSE_RING_PINNED] = "pinned",
	[FUSE_RING_ZERO_COPY] = "zero-copy",
};

static const char * const interface_names[] = {
	[FUSE_RING_ANY] = "any",
	[FUSE_RING_BUFRING] = "bufring",
	[FUSE_RING_BUFPOOL] = "bufpool",
	[FUSE_RING_ENTRIES] = "entries",
};

static_assert(FUSE_RING_MAX_POOLS == FUSE_URING_MAX_POOLS,
	      "the kernel takes another number of pools");

/* Of all pools of a queue together: one number says that there is none. */
#define MAX_BUFFERS FUSE_URING_BUF_NONE

#define NR_MODES (FUSE_RING_ZERO_COPY + 1)
#define NR_INTERFACES (FUSE_RING_ENTRIES + 1)

const char *fuse_ring_mode_name(enum fuse_ring_mode mode)
{
	return (unsigned int)mode < NR_MODES ? mode_names[mode] : "unknown";
}

const char *fuse_ring_interface_name(enum fuse_ring_interface interface)
{
	return (unsigned int)interface < NR_INTERFACES ?
	       interface_names[interface] : "unknown";
}

const char *fuse_ring_options_help(void)
{
	return
"    -o ring=MODE           auto (the default), off, legacy, pooled, pinned\n"
"                           or zero-copy\n"
"    -o ring_interface=NAME bufring, bufpool or entries, in place of the best\n"
"                           that the kernel has\n"
"    -o ring_depth=N        requests in flight per queue (default: 16)\n"
"    -o ring_pool=SIZE:N    N payload buffers of SIZE bytes per queue, with k\n"
"                           or m; up to four times, sizes rising\n"
"    -o ring_workers=N      threads to run operations in besides those of the\n"
"                           queues (default: 0)\n";
}

/* -> its place in @names, -EINVAL if it is none of them */
static int parse_name(const char *text, const char * const names[], int nr)
{
	int n = 0;

	while (n < nr && strcasecmp(text, names[n]))
		n++;
	return n < nr ? n : -EINVAL;
}

static int parse_mode(struct fuse_ring_options *options, const char *text)
{
	int mode = parse_name(text, mode_names, NR_MODES);

	if (mode < 0)
		return mode;
	options->mode = mode;
	return 1;
}

static int parse_interface(struct fuse_ring_options *options, const char *text)
{
	int interface = parse_name(text, interface_names, NR_INTERFACES);

	if (interface < 0)
		return interface;
	options->interface = interface;
	return 1;
}

/* Reads a number up to @max; what follows it is left to the caller. */
static int parse_number(const char **text, unsigned long max,
			unsigned long *number)
{
	char *end;

	if (**text < '0' || **text > '9')
		return -EINVAL;
	errno = 0;
	*number = strtoul(*text, &end, 10);
	if (errno || *number > max)
		return -EINVAL;
	*text = end;
	return 0;
}

static int parse_count(const char *text, unsigned long min, unsigned long max,
		       unsigned int *count)
{
	unsigned long number;

	if (parse_number(&text, max, &number) || *text || number < min)
		return -EINVAL;
	*count = number;
	return 1;
}

bool ring_pools_make_sense(const struct fuse_ring_options *options)
{
	const struct fuse_ring_pool *pool = options->pool;
	unsigned long buffers = 0;
	unsigned int n;

	if (options->nr_pools > FUSE_RING_MAX_POOLS)
		return false;
	for (n = 0; n < options->nr_pools; n++) {
		if (!pool[n].nr || !pool[n].buf_size)
			return false;
		if (n && queue_page_align(pool[n].buf_size) <=
			 queue_page_align(pool[n - 1].buf_size))
			return false;
		buffers += pool[n].nr;
	}
	return buffers <= MAX_BUFFERS;
}

static int parse_pool(struct fuse_ring_options *options, const char *text)
{
	struct fuse_ring_pool *pool = &options->pool[options->nr_pools];
	unsigned long size;
	unsigned int shift;

	if (options->nr_pools == FUSE_RING_MAX_POOLS)
		return -EINVAL;
	if (parse_number(&text, UINT32_MAX, &size))
		return -EINVAL;
	shift = *text == 'k' || *text == 'K' ? 10 :
		*text == 'm' || *text == 'M' ? 20 : 0;
	if (shift)
		text++;
	if (*text++ != ':' || !size || size > UINT32_MAX >> shift)
		return -EINVAL;
	size <<= shift;
	if (parse_count(text, 1, MAX_BUFFERS, &pool->nr) < 0)
		return -EINVAL;
	pool->buf_size = size;
	options->nr_pools++;
	if (ring_pools_make_sense(options))
		return 1;
	options->nr_pools--;
	return -EINVAL;
}

int fuse_ring_option_parse(struct fuse_ring_options *options, const char *text)
{
	if (!strncmp(text, "ring=", 5))
		return parse_mode(options, text + 5);
	if (!strncmp(text, "ring_interface=", 15))
		return parse_interface(options, text + 15);
	if (!strncmp(text, "ring_depth=", 11))
		return parse_count(text + 11, 1, 65535, &options->depth);
	if (!strncmp(text, "ring_pool=", 10))
		return parse_pool(options, text + 10);
	if (!strncmp(text, "ring_workers=", 13))
		return parse_count(text + 13, 0, 4096, &options->workers);
	return 0;
}

struct fuse_ring_options ring_options_or_default(const struct fuse_ring_options *given)
{
	struct fuse_ring_options options = {};
	size_t size;

	if (given) {
		size = given->size;
		memcpy(&options, given,
		       size && size < sizeof(options) ? size : sizeof(options));
	}
	options.size = sizeof(options);
	if (!options.depth)
		options.depth = 16;
	return options;
}

void ring_write_line(FILE *file, const char *line)
{
	const struct timespec at_once = {};
	sigset_t fatal, before;

	sigemptyset(&fatal);
	sigaddset(&fatal, SIGPIPE);
	sigaddset(&fatal, SIGXFSZ);
	pthread_sigmask(SIG_BLOCK, &fatal, &before);
	/* Not through a buffer, which would be written again when it is closed. */
	if (dprintf(fileno(file), "fuse_ring: %s\n", line) < 0)
		sigtimedwait(&fatal, NULL, &at_once);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void ring_log(const struct fuse_ring_options *options, const char *format, ...)
{
	char line[512];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (options->log)
		options->log(options->log_data, line);
	else
		ring_write_line(stderr, line);
}
