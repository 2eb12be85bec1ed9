/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
#ifndef FUSE_RING_SESSION_H
#define FUSE_RING_SESSION_H

#include "fuse_ring.h"

/* libfuse's own loops, for where the rings are not to be had */
struct session_loops {
	int (*single)(struct fuse_session *se);
	int (*multi)(struct fuse_session *se);
	bool answers_files;	/* the server may call fuse_ring_reply_fd() */
};

int session_loop(struct fuse_session *se,
		 const struct fuse_ring_options *options,
		 const struct session_loops *loops);

#endif
