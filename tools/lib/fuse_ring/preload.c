// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * libfuse_ring_preload.so: the rings for servers that nobody recompiles.
 *
 *   FUSE_RING=auto LD_PRELOAD=libfuse_ring_preload.so sshfs ...
 *
 * Takes the place of libfuse 3's session loops. The high-level interface runs
 * through these too, since libfuse calls them as any program does.
 *
 * libfuse 2 has functions of the same names that do something else. They differ
 * in their versions, so those of libfuse 3 are all that is exported here.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 312

#include <dlfcn.h>
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ring.h"
#include "session.h"

/* Whether the library has had a say in what the program does, or why not */
static atomic_bool said;

/* As many operations at once as libfuse's own loop runs */
#define DEFAULT_WORKERS 10

/* Absolute: a daemon changes its directory before there is anything to tell. */
static char *log_path;

/* Set and not empty */
static const char *variable_of(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

static void find_log(void)
{
	const char *name = variable_of("FUSE_RING_LOG");
	char *directory;

	if (!name)
		return;
	directory = name[0] == '/' ? NULL : getcwd(NULL, 0);
	if (!directory)
		log_path = strdup(name);
	else if (asprintf(&log_path, "%s/%s", directory, name) < 0)
		log_path = NULL;
	free(directory);
}

static FILE *open_log(void)
{
	FILE *log = log_path ? fopen(log_path, "ae") : NULL;
	char line[512];

	if (log_path && !log) {
		snprintf(line, sizeof(line), "FUSE_RING_LOG=%s: %s", log_path,
			 strerror(errno));
		ring_write_line(stderr, line);
	}
	return log;
}

static void close_log(FILE *log)
{
	if (log)
		fclose(log);
}

static void log_line(void *data, const char *line)
{
	ring_write_line(data ?: stderr, line);
}

/* For what is told outside of a session's life */
static void log_once(const char *line)
{
	FILE *log = open_log();

	log_line(log, line);
	close_log(log);
}

/* @name=@value as on a command line; false if it makes no sense. */
static bool read_option(struct fuse_ring_options *options, const char *name,
			const char *value)
{
	char text[64];

	return snprintf(text, sizeof(text), "%s=%s", name, value) <
	       (int)sizeof(text) && fuse_ring_option_parse(options, text) > 0;
}

/* One that makes no sense is told and ignored. */
static void read_number(struct fuse_ring_options *options, const char *name,
			const char *value)
{
	if (value && !read_option(options, name, value))
		ring_log(options, "%s=%s makes no sense and is ignored", name, value);
}

/* Who asks for one thing by name is not given another. */
static bool read_name(struct fuse_ring_options *options, const char *name,
		      const char *value)
{
	if (!value || read_option(options, name, value))
		return true;
	ring_log(options, "off, %s=%s makes no sense", name, value);
	return false;
}

/* "4k:64,1m:4" */
static void read_pools(struct fuse_ring_options *options)
{
	const char *value = variable_of("FUSE_RING_POOL");
	char *list = value ? strdup(value) : NULL, *rest = list, *pool;

	while (rest && (pool = strsep(&rest, ",")))
		read_number(options, "ring_pool", pool);
	free(list);
}

static struct fuse_ring_options options_of_environment(bool one_thread, FILE *log)
{
	struct fuse_ring_options options = {
		.size = sizeof(options),
		/* The server does not know how to answer zero-copied requests. */
		.auto_best = FUSE_RING_PINNED,
		.workers = one_thread ? 0 : DEFAULT_WORKERS,
		.serialize = one_thread,
		.log = log_line,
		.log_data = log,
	};

	if (!read_name(&options, "ring", variable_of("FUSE_RING")) ||
	    !read_name(&options, "ring_interface", variable_of("FUSE_RING_INTERFACE"))) {
		options.mode = FUSE_RING_OFF;
		return options;
	}
	read_number(&options, "ring_depth", variable_of("FUSE_RING_DEPTH"));
	read_pools(&options);
	if (!one_thread)
		read_number(&options, "ring_workers", variable_of("FUSE_RING_WORKERS"));
	if (options.mode == FUSE_RING_ZERO_COPY) {
		ring_log(&options,
			 "zero-copy needs a server that is written for it");
		options.mode = FUSE_RING_AUTO;
	}
	return options;
}

static int libfuse_single(struct fuse_session *se)
{
	int (*loop)(struct fuse_session *se);

	loop = (int (*)(struct fuse_session *))
		dlvsym(RTLD_NEXT, "fuse_session_loop", "FUSE_3.0");
	return loop ? loop(se) : -ENOSYS;
}

static int libfuse_multi(struct fuse_session *se)
{
	int (*loop)(struct fuse_session *se, struct fuse_loop_config *config);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int result;

	if (!config)
		return -ENOMEM;
	loop = (int (*)(struct fuse_session *, struct fuse_loop_config *))
		dlvsym(RTLD_NEXT, "fuse_session_loop_mt", "FUSE_3.12");
	result = loop ? loop(se, config) : libfuse_single(se);
	fuse_loop_cfg_destroy(config);
	return result;
}

static int loop_over_rings(struct fuse_session *se, bool one_thread)
{
	static const struct session_loops loops = {
		.single = libfuse_single,
		.multi = libfuse_multi,
	};
	/* Before the session needs descriptors: it may have to say that none is left. */
	FILE *log = open_log();
	struct fuse_ring_options options = options_of_environment(one_thread, log);
	int result;

	atomic_store(&said, true);
	result = session_loop(se, &options, &loops);
	close_log(log);
	return result;
}

/* Not static: the linker gives them the names below. */
int single_loop(struct fuse_session *se)
{
	return loop_over_rings(se, true);
}

/* The versions differ in what @config is, which is of no use here. */
int multi_loop(struct fuse_session *se, const void *config)
{
	(void)config;
	return loop_over_rings(se, false);
}

int multi_loop_32(struct fuse_session *se, const void *config)
{
	return multi_loop(se, config);
}

int multi_loop_30(struct fuse_session *se, int clone_fd)
{
	(void)clone_fd;
	return multi_loop(se, NULL);
}

/* Under this name libfuse calls it itself. */
int fuse_session_loop_mt_312(struct fuse_session *se,
			     struct fuse_loop_config *config)
{
	return multi_loop(se, config);
}

/* libfuse's loops do not call this: it is for a program with a loop of its own. */
int receive_buf(struct fuse_session *se, struct fuse_buf *buf)
{
	int (*receive)(struct fuse_session *se, struct fuse_buf *buf);

	if (!atomic_exchange(&said, true))
		log_once("off, the program has a loop of its own");
	receive = (int (*)(struct fuse_session *, struct fuse_buf *))
		dlvsym(RTLD_NEXT, "fuse_session_receive_buf", "FUSE_3.0");
	return receive ? receive(se, buf) : -ENOSYS;
}

__asm__(".symver single_loop, fuse_session_loop@@FUSE_3.0");
__asm__(".symver receive_buf, fuse_session_receive_buf@@FUSE_3.0");
__asm__(".symver multi_loop_30, fuse_session_loop_mt@FUSE_3.0");
__asm__(".symver multi_loop_32, fuse_session_loop_mt@FUSE_3.2");
__asm__(".symver multi_loop, fuse_session_loop_mt@@FUSE_3.12");

__attribute__((constructor)) static void begin(void)
{
	find_log();
	/* Who asked for the rings is to know. Other programs are preloaded, too. */
	if ((log_path || variable_of("FUSE_RING")) &&
	    dlopen("libfuse.so.2", RTLD_LAZY | RTLD_NOLOAD))
		log_once("off, the program uses libfuse 2");
}
