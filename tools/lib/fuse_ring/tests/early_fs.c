// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * early_fs: a file system on libfuse's low-level interface that replies before
 * it looks at what the operation is about, as libfuse's own loops allow.
 *
 * Its one file is /file. Reading it gives what was written to it last, and the
 * name that was looked up last and does not exist.
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attributes.h"

#define FILE_INO 2

static char name_looked_up[256];
static char data_written[4096];
static size_t bytes_written;

static void early_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = {};

	(void)parent;
	if (!strcmp(name, "file")) {
		entry.ino = FILE_INO;
		entry.attr = attributes(FILE_INO);
	}
	fuse_reply_entry(req, &entry);
	if (!entry.ino)
		snprintf(name_looked_up, sizeof(name_looked_up), "%s", name);
}

static void early_write(fuse_req_t req, fuse_ino_t ino, const char *buf,
			size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)ino;
	(void)off;
	(void)fi;
	if (size > sizeof(data_written)) {
		fuse_reply_err(req, ENOSPC);
		return;
	}
	fuse_reply_write(req, size);
	memcpy(data_written, buf, size);
	bytes_written = size;
}

static void early_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	char text[sizeof(data_written) + sizeof(name_looked_up)];
	size_t len = bytes_written;

	(void)ino;
	(void)fi;
	memcpy(text, data_written, len);
	strcpy(text + len, name_looked_up);
	len += strlen(name_looked_up);
	if (off || len > size)
		len = 0;
	fuse_reply_buf(req, text, len);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = early_lookup,
	.getattr = reply_attributes,
	.open = reply_open,
	.read = early_read,
	.write = early_write,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
	struct fuse_cmdline_opts options;
	struct fuse_session *se = NULL;
	int failed = 1;

	if (fuse_parse_cmdline(&args, &options))
		return 1;
	if (options.mountpoint)
		se = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (se && !fuse_set_signal_handlers(se)) {
		if (!fuse_session_mount(se, options.mountpoint)) {
			/* One operation after the other: there are no locks. */
			failed = fuse_session_loop(se);
			fuse_session_unmount(se);
		}
		fuse_remove_signal_handlers(se);
	}
	if (se)
		fuse_session_destroy(se);
	free(options.mountpoint);
	fuse_opt_free_args(&args);
	return failed != 0;
}
