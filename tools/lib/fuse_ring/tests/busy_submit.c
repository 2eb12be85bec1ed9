// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * To be preloaded: io_uring_submit() fails, as it does while the kernel is short
 * of memory or has completions waiting. What is in the submission queue stays
 * there for the next io_uring_submit_and_wait().
 */
#include <errno.h>
#include <liburing.h>

#undef io_uring_submit
int io_uring_submit(struct io_uring *ring);

int io_uring_submit(struct io_uring *ring)
{
	(void)ring;
	return -EBUSY;
}
