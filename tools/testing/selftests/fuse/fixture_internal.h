/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the fixture share with each other, but not with tests
 */
#ifndef FUSE_TEST_FIXTURE_INTERNAL_H
#define FUSE_TEST_FIXTURE_INTERNAL_H

#include "fixture.h"

#define ENABLE_URING "/sys/module/fuse/parameters/enable_uring"
#define FUSECTL_DIR "/sys/fs/fuse/connections"

/* Prints what failed and why, returns -errno. */
int complain_errno(const char *what);
/*
 * Mounts that nobody else sees, in a user namespace if that takes one; if there
 * may be none, those of fusermount3
 */
int prepare_mounts(void);
/* Notes what has_privilege() is to say from now on. */
void note_privileges(void);
bool may_mount(void);
/* The thread that keeps /dev/fuse drained */
int start_device_thread(struct fuse_mount *mount);
void stop_device_thread(struct fuse_mount *mount);
/* Says what each client is waiting for, or how its call ended. */
void clients_describe(void);
/* -ETIMEDOUT after WAIT_MS */
int wait_readable(int fd, const char *what);

/* What a CQE answers: the kind and the slot travel in user_data. */
enum cqe_kind {
	CQE_ENTRY = 1,		/* REGISTER or COMMIT_AND_FETCH */
	CQE_RESULT,		/* a command that completes at once */
	CQE_TRANSFER,		/* data of a zero-copied request */
	CQE_STOP,		/* the poll on a server's stop_fd */
};

__u64 make_user_data(enum cqe_kind kind, unsigned int slot);
struct io_uring_sqe *queue_get_sqe(struct server_queue *queue);
/* The SQE of a command, prepared only; -> its user_data */
__u64 queue_prepare(struct server_queue *queue,
		    const struct server_command *command);

/*
 * Takes all completions. The result of the command @user_data is not
 * handled when it is an error, but returned: that is how it is refused.
 */
int queue_drain(struct server_queue *queue, __u64 user_data);

/* Memory of a queue; -ENOMEM if there is none */
int server_memory_map(struct server_memory *memory,
		      const struct fuse_mount *mount,
		      const struct queue_mode *mode);
void server_memory_unmap(struct server_memory *memory);
struct fuse_uring_req_header *
server_memory_header(const struct server_memory *memory, unsigned int slot);
/* Finds the payload buffer that the header of an arrived request names. */
void request_find_payload(struct server_request *request);

/* mount_wait() that ends with -ENODATA when @other_fd is readable */
int mount_wait_or(struct fuse_mount *mount, struct server_request *request,
		  int ms, int other_fd);

#endif
