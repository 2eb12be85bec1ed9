// SPDX-License-Identifier: GPL-2.0
/*
 * The file system of the tests, see test_fs.h
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test_fs.h"

/* A prime, so that no power of two is a period of the pattern. */
#define PATTERN_PERIOD 65537

static const char * const node_names[NR_NODES] = {
	[NODE_DATA] = "data",
	[NODE_OPTED_IN] = "opted_in",
	[NODE_BROKEN] = "broken",
	[NODE_LINK] = "link",
	[NODE_DIR] = "dir",
};

static unsigned char pattern[PATTERN_PERIOD];

/* Before main(), so that the tests' many processes do not each do it. */
static void __attribute__((constructor)) make_pattern(void)
{
	__u32 state = 2463534242;
	unsigned int n;

	for (n = 0; n < PATTERN_PERIOD; n++) {
		state ^= state << 13;
		state ^= state >> 17;
		state ^= state << 5;
		/* Never 0: a lost byte usually is. */
		pattern[n] = state % 255 + 1;
	}
}

/* The bytes from @position on that come in one piece, up to @len */
static const unsigned char *pattern_piece(__u64 position, size_t len, size_t *piece)
{
	size_t at = position % PATTERN_PERIOD;

	*piece = PATTERN_PERIOD - at;
	if (*piece > len)
		*piece = len;
	return pattern + at;
}

void pattern_fill(void *buffer, size_t len, __u64 position)
{
	const unsigned char *bytes;
	size_t done, piece;

	for (done = 0; done < len; done += piece) {
		bytes = pattern_piece(position + done, len - done, &piece);
		memcpy((char *)buffer + done, bytes, piece);
	}
}

ssize_t pattern_differs(const void *buffer, size_t len, __u64 position)
{
	const unsigned char *bytes, *from = buffer;
	size_t done, piece;

	for (done = 0; done < len; done += piece) {
		bytes = pattern_piece(position + done, len - done, &piece);
		if (!memcmp(from + done, bytes, piece))
			continue;
		while (from[done] == *bytes++)
			done++;
		return done;
	}
	return -1;
}

int test_fs_open(struct test_fs *fs, size_t file_size)
{
	unsigned int node;

	memset(fs, 0, sizeof(*fs));
	pthread_mutex_init(&fs->lock, NULL);
	fs->started_fd = -1;
	fs->file_size = file_size;
	for (node = 0; node < NR_NODES; node++)
		fs->data_fd[node] = -1;
	for (node = NODE_DATA; node <= NODE_BROKEN; node++) {
		fs->data_fd[node] = memfd_create(node_names[node], MFD_CLOEXEC);
		if (fs->data_fd[node] < 0 ||
		    ftruncate(fs->data_fd[node], file_size)) {
			complain("memfd for %s: %s", node_names[node],
				 strerror(errno));
			return -errno;
		}
		fs->data[node] = mmap(NULL, file_size, PROT_READ | PROT_WRITE,
				      MAP_SHARED, fs->data_fd[node], 0);
		if (fs->data[node] == MAP_FAILED) {
			complain("mapping the memfd for %s: %s",
				 node_names[node], strerror(errno));
			return -errno;
		}
	}
	return 0;
}

void test_fs_close(struct test_fs *fs)
{
	unsigned int n;

	for (n = 0; n < NR_NODES; n++) {
		if (fs->data[n])
			munmap(fs->data[n], fs->file_size);
		if (fs->data_fd[n] >= 0)
			close(fs->data_fd[n]);
	}
	for (n = 0; n < XATTR_MAX; n++)
		free(fs->xattr[n].value);
	if (fs->started_fd >= 0)
		close(fs->started_fd);
}

int test_fs_fill(struct test_fs *fs, unsigned int node)
{
	const unsigned char *bytes;
	size_t done, piece;

	/* Written, as each page that is first touched in a mapping is a fault. */
	for (done = 0; done < fs->file_size; done += piece) {
		bytes = pattern_piece(done, fs->file_size - done, &piece);
		if (pwrite(fs->data_fd[node], bytes, piece, done) != (ssize_t)piece) {
			complain("filling %s: %s", node_names[node],
				 strerror(errno));
			return -errno ?: -EIO;
		}
	}
	return 0;
}

void test_fs_link_target(char target[LINK_LENGTH + 1])
{
	unsigned int n;

	for (n = 0; n < LINK_LENGTH; n++)
		target[n] = n % 64 ? 'a' + n % 26 : '/';
	target[n] = 0;
}

static void fill_attr(struct test_fs *fs, unsigned int node,
		      struct fuse_attr *attr)
{
	struct stat st = {};

	memset(attr, 0, sizeof(*attr));
	attr->ino = node;
	attr->nlink = 1;
	attr->blksize = 4096;
	if (node == NODE_ROOT || node == NODE_DIR) {
		attr->mode = S_IFDIR | 0755;
		attr->nlink = 2;
	} else if (node == NODE_LINK) {
		attr->mode = S_IFLNK | 0777;
		attr->size = LINK_LENGTH;
	} else {
		fstat(fs->data_fd[node], &st);
		attr->mode = S_IFREG | 0666;
		attr->size = st.st_size;
		attr->blocks = st.st_blocks;
	}
}

/* The kernel must give each request a buffer that holds its reply. */
static int check_room(const struct fuse_call *call, size_t len)
{
	if (len <= call->room)
		return 0;
	complain("opcode %u: a reply of %zu bytes does not fit %zu",
		 call->in->opcode, len, call->room);
	return -EOVERFLOW;
}

/* Replies may be built where the request's data is: read that first. */
static int reply_with(struct fuse_call *call, const void *data, size_t len)
{
	if (check_room(call, len))
		return -EOVERFLOW;
	memmove(call->reply, data, len);
	call->reply_len = len;
	return 0;
}

static int answer_lookup(struct test_fs *fs, struct fuse_call *call)
{
	struct fuse_entry_out entry = {};
	unsigned int node;

	for (node = NODE_DATA; node < NR_NODES; node++)
		if (call->in->nodeid == NODE_ROOT &&
		    !strncmp(call->data, node_names[node], call->data_len))
			break;
	if (node == NR_NODES)
		return -ENOENT;
	entry.nodeid = node;
	fill_attr(fs, node, &entry.attr);
	return reply_with(call, &entry, sizeof(entry));
}

static int answer_getattr(struct test_fs *fs, struct fuse_call *call)
{
	struct fuse_attr_out out = {};

	fill_attr(fs, call->in->nodeid, &out.attr);
	return reply_with(call, &out, sizeof(out));
}

static int answer_setattr(struct test_fs *fs, struct fuse_call *call)
{
	const struct fuse_setattr_in *in = call->op;

	if (in->valid & FATTR_SIZE &&
	    ftruncate(fs->data_fd[call->in->nodeid], in->size))
		return -errno;
	return answer_getattr(fs, call);
}

static int answer_open(struct test_fs *fs, struct fuse_call *call)
{
	struct fuse_open_out out = {
		.fh = call->in->nodeid,
		.open_flags = fs->open_flags,
	};

	if (call->in->nodeid == NODE_OPTED_IN)
		out.open_flags |= FOPEN_IO_URING_ZERO_COPY;
	return reply_with(call, &out, sizeof(out));
}

static void count_data_call(struct test_fs *fs, const struct fuse_call *call)
{
	unsigned int *counters = call->zero_copy ? fs->zero_copied : fs->copied;

	__atomic_add_fetch(&counters[call->in->nodeid], 1, __ATOMIC_RELAXED);
}

static int answer_read(struct test_fs *fs, struct fuse_call *call)
{
	const struct fuse_read_in *in = call->op;
	int fd = fs->data_fd[call->in->nodeid];
	ssize_t len;

	count_data_call(fs, call);
	if (call->in->nodeid == NODE_BROKEN)
		return -BROKEN_READ_ERROR;
	if (call->zero_copy) {
		call->transfer_fd = fd;
		call->transfer_offset = in->offset;
		call->transfer_len = in->size;
		return 0;
	}
	if (check_room(call, in->size))
		return -EOVERFLOW;
	len = pread(fd, call->reply, in->size, in->offset);
	if (len < 0)
		return -errno;
	call->reply_len = len;
	return 0;
}

static int answer_write(struct test_fs *fs, struct fuse_call *call)
{
	const struct fuse_write_in *in = call->op;
	int fd = fs->data_fd[call->in->nodeid];
	struct fuse_write_out out = {};
	ssize_t len;

	count_data_call(fs, call);
	if (call->data_len != in->size) {
		complain("WRITE of %u bytes came with %zu", in->size,
			 call->data_len);
		return -EPROTO;
	}
	if (call->in->nodeid == NODE_BROKEN)
		return -BROKEN_WRITE_ERROR;
	if (call->zero_copy) {
		call->transfer_fd = fd;
		call->transfer_offset = in->offset;
		call->transfer_len = in->size;
		return 0;
	}
	len = pwrite(fd, call->data, in->size, in->offset);
	if (len < 0)
		return -errno;
	out.size = len;
	return reply_with(call, &out, sizeof(out));
}

static int answer_readlink(struct fuse_call *call)
{
	char target[LINK_LENGTH + 1];

	test_fs_link_target(target);
	return reply_with(call, target, LINK_LENGTH);
}

/* Entry @index of a directory: false past the end */
static bool name_entry(unsigned int dir, unsigned int index, char name[64],
		       __u64 *ino)
{
	if (dir == NODE_DIR) {
		snprintf(name, 64, "entry-%u", index);
		*ino = 1000 + index;
		return index < DIR_ENTRIES;
	}
	if (NODE_DATA + index >= NR_NODES)
		return false;
	*ino = NODE_DATA + index;
	snprintf(name, 64, "%s", node_names[*ino]);
	return true;
}

static int answer_readdir(struct fuse_call *call)
{
	const struct fuse_read_in *in = call->op;
	size_t size = in->size < call->room ? in->size : call->room;
	unsigned int dir = call->in->nodeid;
	unsigned int index = in->offset;
	char *at = call->reply;
	char name[64];
	__u64 ino;

	while (name_entry(dir, index, name, &ino)) {
		struct fuse_dirent *entry = (void *)at;
		size_t namelen = strlen(name);
		size_t len = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + namelen);

		if (at - (char *)call->reply + len > size)
			break;
		memset(at, 0, len);
		entry->ino = ino;
		entry->off = ++index;
		entry->namelen = namelen;
		entry->type = DT_REG;
		memcpy(entry->name, name, namelen);
		at += len;
	}
	call->reply_len = at - (char *)call->reply;
	return 0;
}

static struct test_fs_xattr *find_xattr(struct test_fs *fs, const char *name)
{
	unsigned int n;

	for (n = 0; n < XATTR_MAX; n++)
		if (!strcmp(fs->xattr[n].name, name))
			return &fs->xattr[n];
	return NULL;
}

static int answer_setxattr(struct test_fs *fs, struct fuse_call *call)
{
	const struct fuse_setxattr_in *in = call->op;
	size_t name_len = strnlen(call->data, call->data_len) + 1;
	struct test_fs_xattr *xattr;

	if (name_len + in->size != call->data_len ||
	    name_len > sizeof(xattr->name)) {
		complain("SETXATTR of %u bytes came with %zu", in->size,
			 call->data_len);
		return -EPROTO;
	}
	xattr = find_xattr(fs, call->data) ?: find_xattr(fs, "");
	if (!xattr)
		return -ENOSPC;
	memcpy(xattr->name, call->data, name_len);
	free(xattr->value);
	xattr->value = malloc(in->size);
	xattr->size = in->size;
	memcpy(xattr->value, (const char *)call->data + name_len, in->size);
	return 0;
}

static int reply_sized(struct fuse_call *call, __u32 wanted,
		       const void *data, size_t len)
{
	struct fuse_getxattr_out out = { .size = len };

	if (!wanted)
		return reply_with(call, &out, sizeof(out));
	if (wanted < len)
		return -ERANGE;
	return reply_with(call, data, len);
}

static int answer_getxattr(struct test_fs *fs, struct fuse_call *call)
{
	const struct fuse_getxattr_in *in = call->op;
	struct test_fs_xattr *xattr = find_xattr(fs, call->data);

	if (!xattr)
		return -ENODATA;
	return reply_sized(call, in->size, xattr->value, xattr->size);
}

static int answer_listxattr(struct test_fs *fs, struct fuse_call *call)
{
	const struct fuse_getxattr_in *in = call->op;
	char list[sizeof(fs->xattr[0].name) * XATTR_MAX];
	unsigned int n;
	size_t len = 0;

	for (n = 0; n < XATTR_MAX; n++)
		if (fs->xattr[n].name[0])
			len += sprintf(list + len, "%s", fs->xattr[n].name) + 1;
	return reply_sized(call, in->size, list, len);
}

static int answer_removexattr(struct test_fs *fs, struct fuse_call *call)
{
	struct test_fs_xattr *xattr = find_xattr(fs, call->data);

	if (!xattr)
		return -ENODATA;
	free(xattr->value);
	memset(xattr, 0, sizeof(*xattr));
	return 0;
}

static int answer_ioctl(struct fuse_call *call)
{
	const struct fuse_ioctl_in *in = call->op;
	struct {
		struct fuse_ioctl_out header;
		unsigned char data[TEST_IOCTL_SIZE];
	} out = {};
	unsigned int n;

	if (in->cmd != TEST_IOCTL_INVERT)
		return -ENOTTY;
	if (call->data_len != TEST_IOCTL_SIZE) {
		complain("IOCTL came with %zu bytes, not %u", call->data_len,
			 TEST_IOCTL_SIZE);
		return -EPROTO;
	}
	for (n = 0; n < TEST_IOCTL_SIZE; n++)
		out.data[n] = ~((const unsigned char *)call->data)[n];
	return reply_with(call, &out, sizeof(out));
}

static int answer_copy_file_range(struct test_fs *fs, struct fuse_call *call)
{
	const struct fuse_copy_file_range_in *in = call->op;
	struct fuse_write_out out = {};
	off_t from = in->off_in, to = in->off_out;
	ssize_t len;
	char *data;

	/* Between memory files there is no copy_file_range(). */
	data = malloc(in->len);
	if (!data)
		return -ENOMEM;
	len = pread(fs->data_fd[call->in->nodeid], data, in->len, from);
	if (len > 0)
		len = pwrite(fs->data_fd[in->nodeid_out], data, len, to);
	free(data);
	if (len < 0)
		return -errno;
	out.size = len;
	return reply_with(call, &out, sizeof(out));
}

static int answer_statfs(struct fuse_call *call)
{
	struct fuse_statfs_out out = {
		.st = { .bsize = 4096, .frsize = 4096, .namelen = 255 },
	};

	return reply_with(call, &out, sizeof(out));
}

static int answer_xattr_call(struct test_fs *fs, struct fuse_call *call)
{
	int error;

	pthread_mutex_lock(&fs->lock);
	switch (call->in->opcode) {
	case FUSE_SETXATTR:
		error = answer_setxattr(fs, call);
		break;
	case FUSE_GETXATTR:
		error = answer_getxattr(fs, call);
		break;
	case FUSE_LISTXATTR:
		error = answer_listxattr(fs, call);
		break;
	default:
		error = answer_removexattr(fs, call);
	}
	pthread_mutex_unlock(&fs->lock);
	return error;
}

int test_fs_answer(void *arg, struct fuse_call *call)
{
	struct test_fs *fs = arg;
	__u32 opcode = call->in->opcode;

	call->transfer_fd = -1;
	call->reply_len = 0;
	__atomic_add_fetch(&fs->calls[opcode % 64], 1, __ATOMIC_RELAXED);
	if (!call->in->nodeid || call->in->nodeid >= NR_NODES)
		return opcode == FUSE_STATFS ? answer_statfs(call) : -ENOENT;

	switch (opcode) {
	case FUSE_LOOKUP:
		return answer_lookup(fs, call);
	case FUSE_GETATTR:
		return answer_getattr(fs, call);
	case FUSE_SETATTR:
		return answer_setattr(fs, call);
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		return answer_open(fs, call);
	case FUSE_READ:
		return answer_read(fs, call);
	case FUSE_WRITE:
		return answer_write(fs, call);
	case FUSE_READLINK:
		return answer_readlink(call);
	case FUSE_READDIR:
		return answer_readdir(call);
	case FUSE_SETXATTR:
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
	case FUSE_REMOVEXATTR:
		return answer_xattr_call(fs, call);
	case FUSE_IOCTL:
		return answer_ioctl(call);
	case FUSE_COPY_FILE_RANGE:
		return answer_copy_file_range(fs, call);
	case FUSE_STATFS:
		return answer_statfs(call);
	case FUSE_ACCESS:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		return 0;
	default:
		return -ENOSYS;
	}
}

int test_fs_mount(struct test_fs *fs, struct fuse_mount *mount,
		  const struct mount_options *options)
{
	int err;

	memset(mount, 0, sizeof(*mount));
	err = mount_open(mount, options);
	mount->answer = test_fs_answer;
	mount->fs = fs;
	return err;
}

const char *test_fs_begin(struct test_fs *fs, struct fuse_mount *mount,
			  size_t file_size, const struct mount_options *options,
			  const struct queue_mode *mode, int *error)
{
	const char *impossible = ring_tests_impossible();

	*error = 0;
	if (impossible)
		return impossible;
	*error = test_fs_open(fs, file_size);
	if (!*error)
		*error = test_fs_mount(fs, mount, options);
	return *error ? NULL : mode_impossible(mount, mode);
}

int test_fs_end(struct test_fs *fs, struct fuse_mount *mount)
{
	int err = test_fs_stop(fs);

	mount_close(mount);
	test_fs_close(fs);
	return err;
}
