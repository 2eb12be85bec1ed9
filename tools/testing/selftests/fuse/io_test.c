// SPDX-License-Identifier: GPL-2.0
/*
 * Real file operations through every way to register a ring: what a client
 * reads and writes arrives byte for byte, and zero-copy is used exactly where
 * the registration says so.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define MIB (1024 * 1024)

FIXTURE(io)
{
	struct fuse_mount mount;
	struct test_fs fs;
	size_t max_payload;
};

FIXTURE_VARIANT(io)
{
	struct queue_mode mode;
	bool plain_ring;
};

#define IO_VARIANT(name, ...) ADD_VARIANT_AS(io, name, __VA_ARGS__)

/* Without RING_FLAGS task work of the kernel interrupts the server anywhere. */
#define IO_VARIANT_ON_PLAIN_RING(name, ...)				\
	ADD_VARIANT_WITH(io, name, .plain_ring = true, __VA_ARGS__)

IO_VARIANT(entries, .depth = 4);
IO_VARIANT(entries_256k, .depth = 4, .nr_pools = 1,
	   .pool = { { 256 * KIB, 4 } });
IO_VARIANT_ON_PLAIN_RING(entries_plain_ring, .depth = 1);

IO_VARIANT(bufpool, MODE_bufpool, .depth = 4, .nr_pools = 1,
	   .pool = { { MIB, 2 } });
IO_VARIANT(bufpool_one_buffer, MODE_bufpool, .depth = 4, .nr_pools = 1,
	   .pool = { { MIB, 1 } });
IO_VARIANT(bufpool_256k, MODE_bufpool, .depth = 4, .nr_pools = 1,
	   .pool = { { 256 * KIB, 2 } });
IO_VARIANT_ON_PLAIN_RING(bufpool_plain_ring, MODE_bufpool, .depth = 1);

IO_VARIANT(bufpool_registered, MODE_bufpool_registered, .depth = 4);
IO_VARIANT(bufpool_registered_2_buffers, MODE_bufpool_registered, .depth = 4,
	   .nr_pools = 1, .pool = { { MIB, 2 } });
IO_VARIANT(bufpool_registered_256k, MODE_bufpool_registered, .depth = 4,
	   .nr_pools = 1, .pool = { { 256 * KIB, 2 } });
IO_VARIANT_ON_PLAIN_RING(bufpool_registered_plain_ring, MODE_bufpool_registered,
			 .depth = 1);

IO_VARIANT(bufpool_zero_copy, MODE_bufpool_zero_copy, .depth = 4);
IO_VARIANT(bufpool_zero_copy_2_buffers, MODE_bufpool_zero_copy, .depth = 4,
	   .nr_pools = 1, .pool = { { MIB, 2 } });
IO_VARIANT(bufpool_zero_copy_256k, MODE_bufpool_zero_copy, .depth = 4,
	   .nr_pools = 1, .pool = { { 256 * KIB, 2 } });
IO_VARIANT_ON_PLAIN_RING(bufpool_zero_copy_plain_ring, MODE_bufpool_zero_copy,
			 .depth = 1);

IO_VARIANT(bufring,
	   .flags = FUSE_URING_REGISTER_BUFRING,
	   .depth = 4, .nr_pools = 1, .pool = { { MIB, 2 } });
IO_VARIANT(bufring_2_pools,
	   .flags = FUSE_URING_REGISTER_BUFRING,
	   .depth = 4, .nr_pools = 2,
	   .pool = { { 4 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(bufring_3_pools,
	   .flags = FUSE_URING_REGISTER_BUFRING,
	   .depth = 4, .nr_pools = 3,
	   .pool = { { 4 * KIB, 4 }, { 64 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(bufring_4_pools,
	   .flags = FUSE_URING_REGISTER_BUFRING,
	   .depth = 4, .nr_pools = 4,
	   .pool = { { 4 * KIB, 4 }, { 16 * KIB, 4 }, { 64 * KIB, 2 },
		     { 256 * KIB, 1 } });

IO_VARIANT(pinned_headers,
	   .flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_HEADERS,
	   .depth = 4, .nr_pools = 1, .pool = { { MIB, 2 } });
IO_VARIANT(pinned_headers_2_pools,
	   .flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_HEADERS,
	   .depth = 4, .nr_pools = 2,
	   .pool = { { 4 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(pinned_headers_3_pools,
	   .flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_HEADERS,
	   .depth = 4, .nr_pools = 3,
	   .pool = { { 4 * KIB, 4 }, { 64 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(pinned_headers_4_pools,
	   .flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_HEADERS,
	   .depth = 4, .nr_pools = 4,
	   .pool = { { 4 * KIB, 4 }, { 16 * KIB, 4 }, { 64 * KIB, 2 },
		     { 256 * KIB, 1 } });

IO_VARIANT(pinned_buffers,
	   .flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_BUFFERS,
	   .depth = 4, .nr_pools = 1, .pool = { { MIB, 2 } });
IO_VARIANT(pinned_buffers_2_pools,
	   .flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_BUFFERS,
	   .depth = 4, .nr_pools = 2,
	   .pool = { { 4 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(pinned_buffers_3_pools,
	   .flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_BUFFERS,
	   .depth = 4, .nr_pools = 3,
	   .pool = { { 4 * KIB, 4 }, { 64 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(pinned_buffers_4_pools,
	   .flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_BUFFERS,
	   .depth = 4, .nr_pools = 4,
	   .pool = { { 4 * KIB, 4 }, { 16 * KIB, 4 }, { 64 * KIB, 2 },
		     { 256 * KIB, 1 } });

IO_VARIANT(pinned,
	   .flags = PINNED_FLAGS,
	   .depth = 4, .nr_pools = 1, .pool = { { MIB, 2 } });
IO_VARIANT(pinned_2_pools,
	   .flags = PINNED_FLAGS,
	   .depth = 4, .nr_pools = 2,
	   .pool = { { 4 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(pinned_3_pools,
	   .flags = PINNED_FLAGS,
	   .depth = 4, .nr_pools = 3,
	   .pool = { { 4 * KIB, 4 }, { 64 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(pinned_4_pools,
	   .flags = PINNED_FLAGS,
	   .depth = 4, .nr_pools = 4,
	   .pool = { { 4 * KIB, 4 }, { 16 * KIB, 4 }, { 64 * KIB, 2 },
		     { 256 * KIB, 1 } });

IO_VARIANT(zero_copy,
	   .flags = ZERO_COPY_FLAGS,
	   .depth = 4, .nr_pools = 1, .pool = { { MIB, 2 } });
IO_VARIANT(zero_copy_2_pools,
	   .flags = ZERO_COPY_FLAGS,
	   .depth = 4, .nr_pools = 2,
	   .pool = { { 4 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(zero_copy_3_pools,
	   .flags = ZERO_COPY_FLAGS,
	   .depth = 4, .nr_pools = 3,
	   .pool = { { 4 * KIB, 4 }, { 64 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(zero_copy_4_pools,
	   .flags = ZERO_COPY_FLAGS,
	   .depth = 4, .nr_pools = 4,
	   .pool = { { 4 * KIB, 4 }, { 16 * KIB, 4 }, { 64 * KIB, 2 },
		     { 256 * KIB, 1 } });

IO_VARIANT(zero_copy_opt_in,
	   .flags = ZERO_COPY_FLAGS | FUSE_URING_REGISTER_ZERO_COPY_OPT_IN,
	   .depth = 4, .nr_pools = 1, .pool = { { MIB, 2 } });
IO_VARIANT(zero_copy_opt_in_2_pools,
	   .flags = ZERO_COPY_FLAGS | FUSE_URING_REGISTER_ZERO_COPY_OPT_IN,
	   .depth = 4, .nr_pools = 2,
	   .pool = { { 4 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(zero_copy_opt_in_3_pools,
	   .flags = ZERO_COPY_FLAGS | FUSE_URING_REGISTER_ZERO_COPY_OPT_IN,
	   .depth = 4, .nr_pools = 3,
	   .pool = { { 4 * KIB, 4 }, { 64 * KIB, 4 }, { 256 * KIB, 2 } });
IO_VARIANT(zero_copy_opt_in_4_pools,
	   .flags = ZERO_COPY_FLAGS | FUSE_URING_REGISTER_ZERO_COPY_OPT_IN,
	   .depth = 4, .nr_pools = 4,
	   .pool = { { 4 * KIB, 4 }, { 16 * KIB, 4 }, { 64 * KIB, 2 },
		     { 256 * KIB, 1 } });

IO_VARIANT_ON_PLAIN_RING(zero_copy_plain_ring,
			 .flags = ZERO_COPY_FLAGS,
			 .depth = 1, .nr_pools = 1, .pool = { { MIB, 1 } });

/* What the largest request holds, which is what the largest pool is made for */
static size_t max_payload(const struct queue_mode *mode)
{
	return mode->nr_pools ? mode->pool[mode->nr_pools - 1].buf_size : MIB;
}

FIXTURE_SETUP(io)
{
	const char *impossible = ring_tests_impossible();
	struct mount_options options = { };

	if (impossible)
		SKIP(return, "%s", impossible);
	self->max_payload = max_payload(&variant->mode);
	options.max_write = self->max_payload;
	ASSERT_EQ(0, mount_open(&self->mount, &options));
	mount_set_readahead(&self->mount, self->max_payload / KIB);
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, test_fs_open(&self->fs, self->max_payload * 3 / 2));
	ASSERT_EQ(0, test_fs_serve(&self->fs, &self->mount, &variant->mode,
				   variant->plain_ring ? 0 : RING_FLAGS));
}

FIXTURE_TEARDOWN(io)
{
	EXPECT_EQ(0, test_fs_stop(&self->fs));
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

/* What a client is to do with which file */
struct job {
	const char *path;
	const char *data;	/* the server's side of it */
	size_t file_size;
	size_t max_payload;
	int open_flags;
};

/* These, and the three around the largest payload, of which the last one splits */
static const size_t sizes[] = {
	1, 512, 513, 4095, 4096, 4097, 65536, 65537, 128 * KIB,
};

#define NR_SIZES (ARRAY_SIZE(sizes) + 3)

static size_t size_of(unsigned int n, const struct job *job)
{
	if (n < ARRAY_SIZE(sizes))
		return sizes[n];
	return job->max_payload - 1 + n - ARRAY_SIZE(sizes);
}

static void *aligned_buffer(size_t size)
{
	void *buffer = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return buffer == MAP_FAILED ? NULL : buffer;
}

static int report_difference(const char *what, size_t size, __u64 offset,
			     ssize_t at)
{
	complain("%s of %zu bytes at %llu: byte %zd is wrong", what, size,
		 (unsigned long long)offset, at);
	return 1;
}

/* A position in the file for each size: aligned, unaligned, across the end */
static __u64 offset_for(unsigned int n, const struct job *job)
{
	static const __u64 offsets[] = { 0, 4096, 1, 65536 - 7, 4095 };

	if (job->open_flags & O_DIRECT)
		return offsets[n % 2];
	return offsets[n % ARRAY_SIZE(offsets)];
}

static long read_all_sizes(const struct job *job)
{
	char *buffer = aligned_buffer(job->file_size);
	int fd = open(job->path, O_RDONLY | job->open_flags);
	unsigned int n;

	if (fd < 0 || !buffer)
		return -errno;
	for (n = 0; n < NR_SIZES; n++) {
		size_t size = size_of(n, job);
		__u64 offset = offset_for(n, job);
		ssize_t len, at;

		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		len = pread(fd, buffer, size, offset);
		if (len != (ssize_t)size) {
			complain("read of %zu bytes at %llu returned %zd (%s)",
				 size, (unsigned long long)offset, len,
				 strerror(errno));
			return 1;
		}
		at = pattern_differs(buffer, len, offset);
		if (at >= 0)
			return report_difference("read", len, offset, at);
	}
	return close(fd);
}

static long write_all_sizes(const struct job *job)
{
	char *buffer = aligned_buffer(job->file_size);
	int fd = open(job->path, O_RDWR | job->open_flags);
	unsigned int n;

	if (fd < 0 || !buffer)
		return -errno;
	for (n = 0; n < NR_SIZES; n++) {
		size_t size = size_of(n, job);
		__u64 offset = offset_for(n, job);
		ssize_t len, at;

		/* Each write moves the pattern, so the last one's remains show. */
		pattern_fill(buffer, size, offset + n);
		len = pwrite(fd, buffer, size, offset);
		if (len != (ssize_t)size || fsync(fd)) {
			complain("write of %zu bytes at %llu returned %zd (%s)",
				 size, (unsigned long long)offset, len,
				 strerror(errno));
			return 1;
		}
		at = pattern_differs(job->data + offset, len, offset + n);
		if (at >= 0)
			return report_difference("write", size, offset, at);
	}
	return close(fd);
}

static long read_mapped(const struct job *job)
{
	int fd = open(job->path, O_RDONLY);
	ssize_t at;
	char *map;

	if (fd < 0)
		return -errno;
	map = mmap(NULL, job->file_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	at = pattern_differs(map, job->file_size, 0);
	if (at >= 0)
		return report_difference("mapped read", job->file_size, 0, at);
	munmap(map, job->file_size);
	return close(fd);
}

static long write_mapped(const struct job *job)
{
	int fd = open(job->path, O_RDWR);
	ssize_t at;
	char *map;

	if (fd < 0)
		return -errno;
	map = mmap(NULL, job->file_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	pattern_fill(map, job->file_size, 77);
	if (msync(map, job->file_size, MS_SYNC))
		return -errno;
	munmap(map, job->file_size);

	at = pattern_differs(job->data, job->file_size, 77);
	if (at >= 0)
		return report_difference("mapped write", job->file_size, 0, at);
	return close(fd);
}

static int fill_files(struct test_fs *fs)
{
	return test_fs_fill(fs, NODE_DATA) ?: test_fs_fill(fs, NODE_OPTED_IN);
}

/* READ and WRITE are zero-copied as registered, and only those. */
static void check_transfers(struct __test_metadata *_metadata,
			    const struct test_fs *fs,
			    const struct queue_mode *mode)
{
	unsigned int node;

	for (node = NODE_DATA; node <= NODE_OPTED_IN; node++) {
		if (mode_zero_copies(mode, node == NODE_OPTED_IN)) {
			EXPECT_LT(0, fs->zero_copied[node]);
			EXPECT_EQ(0, fs->copied[node]);
		} else {
			EXPECT_EQ(0, fs->zero_copied[node]);
			EXPECT_LT(0, fs->copied[node]);
		}
	}
}

static struct job job_for(FIXTURE_DATA(io) * self, unsigned int node,
			  const char *name)
{
	return (struct job){
		.path = mount_path(&self->mount, name),
		.data = self->fs.data[node],
		.file_size = self->fs.file_size,
		.max_payload = self->max_payload,
	};
}

/* What one client does, with one file after the other */
struct both_files {
	long (*call)(const struct job *job);
	struct job plain;
	struct job opted_in;
};

static long call_for_both(void *arg)
{
	const struct both_files *both = arg;
	long err = both->call(&both->plain);

	return err ?: both->call(&both->opted_in);
}

/* Runs @call on a plain file and on one that opts in to zero-copy. */
static void for_both_files(struct __test_metadata *_metadata,
			   FIXTURE_DATA(io) * self,
			   const FIXTURE_VARIANT(io) * variant,
			   long (*call)(const struct job *job), int open_flags)
{
	struct both_files both = {
		.call = call,
		.plain = job_for(self, NODE_DATA, "data"),
		.opted_in = job_for(self, NODE_OPTED_IN, "opted_in"),
	};

	both.plain.open_flags = open_flags;
	both.opted_in.open_flags = open_flags;
	EXPECT_EQ(0, client_call(call_for_both, &both));
	check_transfers(_metadata, &self->fs, &variant->mode);
}

TEST_F(io, reads_what_the_file_holds)
{
	ASSERT_EQ(0, fill_files(&self->fs));
	for_both_files(_metadata, self, variant, read_all_sizes, 0);
}

TEST_F(io, reads_directly_what_the_file_holds)
{
	ASSERT_EQ(0, fill_files(&self->fs));
	for_both_files(_metadata, self, variant, read_all_sizes, O_DIRECT);
}

TEST_F(io, reads_through_a_mapping)
{
	ASSERT_EQ(0, fill_files(&self->fs));
	for_both_files(_metadata, self, variant, read_mapped, 0);
}

TEST_F(io, writes_arrive)
{
	for_both_files(_metadata, self, variant, write_all_sizes, 0);
}

TEST_F(io, direct_writes_arrive)
{
	for_both_files(_metadata, self, variant, write_all_sizes, O_DIRECT);
}

TEST_F(io, writes_through_a_mapping_arrive)
{
	for_both_files(_metadata, self, variant, write_mapped, 0);
}

static long read_past_the_end(const struct job *job)
{
	const __u64 size = job->file_size;
	char *buffer = aligned_buffer(job->max_payload);
	int fd = open(job->path, O_RDONLY | job->open_flags);
	ssize_t len, at;

	if (fd < 0 || !buffer)
		return -errno;
	memset(buffer, 0xee, job->max_payload);
	len = pread(fd, buffer, job->max_payload, size - 4096);
	if (len != 4096) {
		complain("a read across the end of the file returned %zd", len);
		return 1;
	}
	at = pattern_differs(buffer, 4096, size - 4096);
	if (at >= 0)
		return report_difference("read", len, size - 4096, at);
	len = pread(fd, buffer, job->max_payload, size);
	if (len) {
		complain("a read at the end of the file returned %zd", len);
		return 1;
	}
	return close(fd);
}

TEST_F(io, reads_end_where_the_file_ends)
{
	ASSERT_EQ(0, fill_files(&self->fs));
	for_both_files(_metadata, self, variant, read_past_the_end, 0);
	for_both_files(_metadata, self, variant, read_past_the_end, O_DIRECT);
}

static long list_directory(void *arg)
{
	unsigned int index = 0;
	struct dirent *entry;
	DIR *dir = opendir(arg);
	char expected[64];

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		sprintf(expected, "entry-%u", index);
		if (strcmp(entry->d_name, expected) ||
		    entry->d_ino != 1000 + index) {
			complain("directory entry %u is %s with inode %lu",
				 index, entry->d_name,
				 (unsigned long)entry->d_ino);
			return 1;
		}
		index++;
	}
	closedir(dir);
	return index;
}

TEST_F(io, lists_a_directory)
{
	char *path = mount_path(&self->mount, "dir");

	EXPECT_EQ(DIR_ENTRIES, client_call(list_directory, path));
}

static long read_link(void *arg)
{
	char target[LINK_LENGTH + 1], seen[LINK_LENGTH + 2];
	ssize_t len = readlink(arg, seen, sizeof(seen));

	if (len < 0)
		return -errno;
	test_fs_link_target(target);
	return len == LINK_LENGTH && !memcmp(seen, target, len) ? 0 : 1;
}

TEST_F(io, reads_a_long_symlink)
{
	EXPECT_EQ(0, client_call(read_link, mount_path(&self->mount, "link")));
}

static long use_xattrs(void *arg)
{
	static const size_t value_sizes[] = { 1, 4095, 4096, 4097, 65535, 65536 };
	static const char list[] = "user.first\0user.second";
	const char *path = arg;
	char *value = aligned_buffer(65536), *seen = aligned_buffer(65536);
	unsigned int n;

	if (setxattr(path, "user.first", "", 0, 0))
		return -errno;
	for (n = 0; n < ARRAY_SIZE(value_sizes); n++) {
		size_t size = value_sizes[n];
		ssize_t at;

		pattern_fill(value, size, n);
		if (setxattr(path, "user.second", value, size, 0))
			return -errno;
		if (getxattr(path, "user.second", NULL, 0) != (ssize_t)size ||
		    getxattr(path, "user.second", seen, 65536) != (ssize_t)size)
			return 1;
		at = pattern_differs(seen, size, n);
		if (at >= 0)
			return report_difference("xattr", size, 0, at);
		if (size > 1 &&
		    (getxattr(path, "user.second", seen, size - 1) != -1 ||
		     errno != ERANGE))
			return 2;
	}
	if (listxattr(path, seen, 65536) != sizeof(list) ||
	    memcmp(seen, list, sizeof(list)))
		return 3;
	if (removexattr(path, "user.second") || removexattr(path, "user.first"))
		return 4;
	if (getxattr(path, "user.second", seen, 65536) != -1 ||
	    errno != ENODATA)
		return 5;
	return 0;
}

TEST_F(io, xattrs_hold_up_to_64_kib)
{
	EXPECT_EQ(0, client_call(use_xattrs, mount_path(&self->mount, "data")));
}

static long invert_by_ioctl(void *arg)
{
	unsigned char data[TEST_IOCTL_SIZE];
	unsigned int n;
	int fd = open(arg, O_RDWR);

	if (fd < 0)
		return -errno;
	for (n = 0; n < sizeof(data); n++)
		data[n] = n;
	if (ioctl(fd, TEST_IOCTL_INVERT, data))
		return -errno;
	for (n = 0; n < sizeof(data); n++)
		if (data[n] != (unsigned char)~n)
			return 1;
	if (ioctl(fd, _IO('F', 2), 0) != -1 || errno != ENOTTY)
		return 2;
	return close(fd);
}

TEST_F(io, an_ioctl_carries_data_both_ways)
{
	EXPECT_EQ(0, client_call(invert_by_ioctl, mount_path(&self->mount, "data")));
}

static long copy_range(void *arg)
{
	struct fuse_mount *mount = arg;
	int from = open(mount_path(mount, "data"), O_RDONLY);
	int to = open(mount_path(mount, "opted_in"), O_WRONLY);
	loff_t off_in = 100, off_out = 5000;

	if (from < 0 || to < 0)
		return -errno;
	return copy_file_range(from, &off_in, to, &off_out, 70000, 0);
}

TEST_F(io, copies_a_file_range_on_the_server)
{
	ASSERT_EQ(0, fill_files(&self->fs));
	EXPECT_EQ(70000, client_call(copy_range, &self->mount));
	EXPECT_EQ(1, self->fs.calls[FUSE_COPY_FILE_RANGE]);
	EXPECT_EQ(-1, pattern_differs(self->fs.data[NODE_OPTED_IN] + 5000,
				      70000, 100));
}

static long provoke_errors(void *arg)
{
	struct fuse_mount *mount = arg;
	char *buffer = aligned_buffer(8192);
	int fd = open(mount_path(mount, "broken"), O_RDWR | O_DIRECT);

	if (fd < 0)
		return -errno;
	if (pread(fd, buffer, 8192, 0) != -1 || errno != BROKEN_READ_ERROR)
		return 1;
	if (pwrite(fd, buffer, 8192, 0) != -1 || errno != BROKEN_WRITE_ERROR)
		return 2;
	if (open(mount_path(mount, "absent"), O_RDONLY) != -1 ||
	    errno != ENOENT)
		return 3;
	return close(fd);
}

TEST_F(io, errors_of_the_server_reach_the_client)
{
	EXPECT_EQ(0, client_call(provoke_errors, &self->mount));
}

static long write_plain_file(void *arg)
{
	return write_all_sizes(arg);
}

TEST_F(io, nothing_but_forgets_travels_over_the_device)
{
	struct job job = job_for(self, NODE_DATA, "data");

	EXPECT_EQ(0, client_call(write_plain_file, &job));
	EXPECT_EQ(0, self->mount.device_requests);
}

FUSE_TEST_MAIN(NEEDS_RING)
