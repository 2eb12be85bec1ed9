/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the fixture share with each other, but not with tests
 */
#ifndef FUSE_RING_INTERNAL_H
#define FUSE_RING_INTERNAL_H

#include "fuse_ring_test.h"

#define ENABLE_URING "/sys/module/fuse/parameters/enable_uring"
#define FUSECTL_DIR "/sys/fs/fuse/connections"

/* Prints what failed and why, returns -errno. */
int complain_errno(const char *what);
/* Length, or a negative errno */
ssize_t read_text(const char *path, char *text, size_t size);
/*
 * Mounts that nobody else sees, in a user namespace if that takes one; if there
 * may be none, those of fusermount3
 */
int prepare_mounts(void);
/* Notes what has_privilege() is to say from now on. */
void note_privileges(void);
bool may_mount(void);
/* -ETIMEDOUT after WAIT_MS */
int wait_readable(int fd, const char *what);
/* A queue of the mount in this mode, as the library has it */
struct queue_layout mode_layout(const struct fuse_mount *mount,
				const struct ring_mode *mode);
/* mount_wait() that ends with -ENODATA when @other_fd is readable */
int mount_wait_or(struct fuse_mount *mount, struct ring_request *request,
		  int ms, int other_fd);

#endif
