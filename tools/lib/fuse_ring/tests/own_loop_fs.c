// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * own_loop_fs MOUNTPOINT: a file system that does not call libfuse's loops. It knows
 * nothing of the library under test.
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>

#include "attributes.h"

static const struct fuse_lowlevel_ops operations = {
	.getattr = reply_attributes,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_buf buf = {};
	struct fuse_session *se;
	int len;

	if (argc != 2)
		return 2;
	se = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!se || fuse_session_mount(se, argv[1]))
		return 1;
	do {
		len = fuse_session_receive_buf(se, &buf);
		if (len > 0)
			fuse_session_process_buf(se, &buf);
	} while (len > 0 || len == -EINTR);
	free(buf.mem);
	fuse_session_unmount(se);
	fuse_session_destroy(se);
	fuse_opt_free_args(&args);
	return len < 0;
}
