// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * To be preloaded: every io_uring refuses the commands that drivers handle, and
 * nothing else, as it is with a security module that does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NR_ALLOWED (sizeof(allowed) / sizeof(*allowed))

int io_uring_queue_init_params(unsigned int entries, struct io_uring *ring,
			       struct io_uring_params *params)
{
	typeof(io_uring_queue_init_params) *init =
		dlsym(RTLD_NEXT, "io_uring_queue_init_params");
	struct io_uring_restriction allowed[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_ADD },
		{ .opcode = IORING_RESTRICTION_REGISTER_OP,
		  .register_op = IORING_REGISTER_ENABLE_RINGS },
		{ .opcode = IORING_RESTRICTION_REGISTER_OP,
		  .register_op = IORING_REGISTER_RING_FDS },
	};
	int err;

	params->flags |= IORING_SETUP_R_DISABLED;
	err = init(entries, ring, params);
	if (err)
		return err;
	/* The liburing of Debian 12 has functions for it, but does not export them. */
	if (syscall(SYS_io_uring_register, ring->ring_fd,
		    IORING_REGISTER_RESTRICTIONS, allowed, NR_ALLOWED) ||
	    syscall(SYS_io_uring_register, ring->ring_fd,
		    IORING_REGISTER_ENABLE_RINGS, NULL, 0))
		return -errno;
	return 0;
}
