/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Calls of clients that make exactly one request each, on the root directory:
 * a GETXATTR whose reply needs @size bytes of a payload buffer, or for size 0
 * an ACCESS, which needs no buffer. The size tells the server which call it is.
 */
#ifndef FUSE_TEST_CALL_H
#define FUSE_TEST_CALL_H

#include "fixture.h"

struct call {
	struct client client;
	const char *path;
	size_t size;
};

/* What the client does; returns the size that it was answered with. */
long make_call(void *call);

/* Starts a client on that CPU, and so on that queue. */
int call_start(struct call *call, const struct fuse_mount *mount, int cpu,
	       size_t size);
/*
 * Starts one whose request cannot go out: waits until it sleeps, and so many
 * requests wait in all.
 */
int call_start_waiting(struct call *call, struct fuse_mount *mount, int cpu,
		       size_t size, unsigned int waiting);
/* The size that the request of a call tells */
size_t call_size(const struct server_request *request);
/*
 * Takes the next request, which must be that of the call with this size. Returns
 * the number of its buffer, FUSE_URING_BUF_NONE, or a negative errno.
 */
int call_arrives(struct fuse_mount *mount, struct server_request *request,
		 size_t size);
/* Answers with as many bytes as asked for, which checks the buffer's size. */
int call_answer(struct server_request *request);
/* Waits for the client's end; 0 if it got its answer */
long call_finish(struct call *call);

#endif
