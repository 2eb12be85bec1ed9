// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * To be preloaded: submissions fail as they do while the kernel is short of memory
 * or has completions waiting, and waiting ends as it does when a signal comes. What
 * is in the submission queue stays there for another call.
 *
 * io_uring_submit() never gets through; the others do at each fourth call.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>

#undef io_uring_submit
int io_uring_submit(struct io_uring *ring);

int io_uring_submit(struct io_uring *ring)
{
	(void)ring;
	return -EBUSY;
}

int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
				     unsigned int wait_nr, struct __kernel_timespec *limit,
				     sigset_t *mask)
{
	int (*submit)(struct io_uring *ring) = dlsym(RTLD_NEXT, "io_uring_submit");
	typeof(io_uring_submit_and_wait_timeout) *and_wait =
		dlsym(RTLD_NEXT, "io_uring_submit_and_wait_timeout");
	static atomic_uint calls;

	*cqe = NULL;
	switch (atomic_fetch_add(&calls, 1) % 4) {
	case 0:	/* a signal came after it was submitted */
		return submit(ring);
	case 1:
		return -EINTR;
	case 2:
		return -EAGAIN;
	default:
		return and_wait(ring, cqe, wait_nr, limit, mask);
	}
}

int io_uring_submit_and_get_events(struct io_uring *ring)
{
	typeof(io_uring_submit_and_get_events) *and_get_events =
		dlsym(RTLD_NEXT, "io_uring_submit_and_get_events");
	static atomic_uint calls;

	switch (atomic_fetch_add(&calls, 1) % 4) {
	case 0:
		return -EAGAIN;
	case 1:
		return -EBUSY;
	case 2:
		return 0;
	default:
		return and_get_events(ring);
	}
}
