/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The file system that the tests mount: a handful of files whose data is in
 * memory files, so that a test can look at both sides of the mount.
 */
#ifndef FUSE_TEST_FS_H
#define FUSE_TEST_FS_H

#include "fixture.h"

enum test_fs_node {
	NODE_ROOT = FUSE_ROOT_ID,
	NODE_DATA,		/* "data": a plain file */
	NODE_OPTED_IN,		/* "opted_in": FOPEN_IO_URING_ZERO_COPY */
	NODE_BROKEN,		/* "broken": READ and WRITE fail */
	NODE_LINK,		/* "link": a symlink with the longest target */
	NODE_DIR,		/* "dir": DIR_ENTRIES entries */
	NR_NODES,
};

#define DIR_ENTRIES 700
#define LINK_LENGTH 4094
#define XATTR_MAX 4

#define BROKEN_READ_ERROR EREMOTEIO
#define BROKEN_WRITE_ERROR ENOSPC

#define TEST_IOCTL_SIZE 240
#define TEST_IOCTL_INVERT _IOWR('F', 1, char[TEST_IOCTL_SIZE])

struct test_fs_xattr {
	char name[64];
	char *value;
	size_t size;
};

struct test_fs {
	int data_fd[NR_NODES];
	char *data[NR_NODES];	/* the same memory, also mapped in clients */
	size_t file_size;	/* as the files were created */
	__u32 open_flags;	/* further ones for every OPEN reply */
	pthread_mutex_t lock;	/* xattrs */
	struct test_fs_xattr xattr[XATTR_MAX];

	/* what the server saw */
	unsigned int calls[64];	/* by opcode */
	unsigned int copied[NR_NODES];	/* READs and WRITEs */
	unsigned int zero_copied[NR_NODES];

	/* the server that runs by itself */
	struct fuse_mount *mount;
	struct queue_mode mode;
	unsigned int ring_flags;
	pthread_t *threads;
	unsigned int nr_threads;
	int started_fd;
	unsigned int start_error;
};

/* Mounts anew, with @fs behind the mount. Returns what mount_open() does. */
int test_fs_mount(struct test_fs *fs, struct fuse_mount *mount,
		  const struct mount_options *options);

/*
 * What most tests begin with: a mount of files of that size, for queues of this
 * mode, of which there are none yet. Returns the reason for a SKIP if that is
 * not possible here; else *error says whether it worked.
 */
const char *test_fs_begin(struct test_fs *fs, struct fuse_mount *mount,
			  size_t file_size, const struct mount_options *options,
			  const struct queue_mode *mode, int *error);
/* And what they end with, whatever state it is in */
int test_fs_end(struct test_fs *fs, struct fuse_mount *mount);

int test_fs_open(struct test_fs *fs, size_t file_size);
void test_fs_close(struct test_fs *fs);
/* Fills a file with the pattern from its first byte on. */
int test_fs_fill(struct test_fs *fs, unsigned int node);
/* An answer callback for struct fuse_mount, fs being a struct test_fs */
int test_fs_answer(void *fs, struct fuse_call *call);
void test_fs_link_target(char target[LINK_LENGTH + 1]);

/* One thread per queue that answers everything until test_fs_stop() */
int test_fs_serve(struct test_fs *fs, struct fuse_mount *mount,
		  const struct queue_mode *mode, unsigned int ring_flags);
int test_fs_stop(struct test_fs *fs);

/*
 * File contents: byte N of a file written with seed S is pattern byte S + N,
 * which a look at either side of the mount can check.
 */
void pattern_fill(void *buffer, size_t len, __u64 position);
/* Offset of the first byte that differs, or -1 */
ssize_t pattern_differs(const void *buffer, size_t len, __u64 position);

#endif
