// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * passthrough_ring: open files
 *
 * The handle of an open file is a descriptor of the source's file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "passthrough.h"

/* What one COPY_FILE_RANGE may do, as others wait for it */
#define COPY_MAX	(64U << 20)

/* How to open the source's file where the client opens with these flags */
static int source_flags(const struct passthrough *pt, int flags)
{
	/*
	 * The kernel reads what it needs to fill up pages, and knows where
	 * the file ends.
	 */
	if (pt->writeback) {
		if ((flags & O_ACCMODE) == O_WRONLY)
			flags = (flags & ~O_ACCMODE) | O_RDWR;
		flags &= ~O_APPEND;
	}
	/* The client's buffers are not ours, nor are they aligned as here. */
	if (!pt->keep_o_direct)
		flags &= ~O_DIRECT;
	return flags & ~O_NOCTTY;
}

/*
 * What is in memory is there at once, but that is not known of a tmpfs, and
 * io_uring would leave each transfer to a thread of its own. There is nothing
 * that these flags change otherwise: nothing waits, nothing has to be aligned.
 * A kernel that knows no direct I/O on a tmpfs goes on without.
 */
static void tell_it_never_waits(const struct passthrough *pt,
				const struct inode *inode, int fd, int flags)
{
	if (inode->dev == pt->memory_dev)
		fcntl(fd, F_SETFL, (flags & (O_APPEND | O_NOATIME)) |
		      O_NONBLOCK | O_DIRECT);
}

/*
 * Files that the kernel makes up, as in /proc, may know read() and write()
 * only, which io_uring does not use for zero-copied data. Their file systems
 * have no blocks, and neither has a tmpfs without a limit.
 */
static bool knows_zero_copy(const struct passthrough *pt,
			    const struct inode *inode, int fd)
{
	struct statfs fs;

	return inode->dev == pt->memory_dev ||
	       (!fstatfs(fd, &fs) &&
		(fs.f_blocks || fs.f_type == TMPFS_MAGIC));
}

static void set_caching(const struct passthrough *pt,
			struct fuse_file_info *fi)
{
	fi->direct_io = pt->direct_io;
	fi->keep_cache = pt->cache == CACHE_ALWAYS;
#ifdef HAVE_FUSE_PARALLEL_DIRECT_WRITES
	fi->parallel_direct_writes = pt->direct_io;
#endif
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct passthrough *pt = passthrough_of(req);
	struct inode *inode = inode_of(req, ino);
	int flags = source_flags(pt, fi->flags);
	int fd;

	fd = inode_open(pt, inode->fd, flags);
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	tell_it_never_waits(pt, inode, fd, flags);
	fi->fh = fd;
	set_caching(pt, fi);
	if (knows_zero_copy(pt, inode, fd))
		fuse_ring_zero_copy_open(req);
	/* There will be no RELEASE. */
	if (fuse_reply_open(req, fi))
		close(fd);
}

/* Takes over the descriptor of a file that was just created. */
static void reply_created(fuse_req_t req, int fd, struct fuse_file_info *fi)
{
	struct passthrough *pt = passthrough_of(req);
	struct fuse_entry_param entry = { 0 };
	struct inode *inode;
	int path_fd, err;

	/* By the descriptor: the name may be another file's by now. */
	path_fd = inode_open(pt, fd, O_PATH);
	err = path_fd < 0 ? path_fd : inode_entry(pt, path_fd, &entry);
	if (err) {
		close(fd);
		fuse_reply_err(req, -err);
		return;
	}
	fi->fh = fd;
	set_caching(pt, fi);
	inode = inode_of(req, entry.ino);
	if (knows_zero_copy(pt, inode, fd))
		fuse_ring_zero_copy_open(req);
	if (fuse_reply_create(req, &entry, fi)) {
		close(fd);
		inode_forget(pt, inode, 1);
	}
}

static int open_new(fuse_req_t req, fuse_ino_t parent, const char *name,
		    int flags, mode_t mode)
{
	struct passthrough *pt = passthrough_of(req);
	struct inode *dir = inode_of(req, parent);
	struct caller caller;
	int err, fd;

	err = caller_begin(req, mode, &caller);
	if (err)
		return err;
	flags = source_flags(pt, flags);
	fd = openat(dir->fd, name, flags | O_CLOEXEC, mode & ~S_IFMT);
	err = -errno;
	caller_end(&caller);
	if (fd < 0)
		return err;
	tell_it_never_waits(pt, dir, fd, flags);
	return fd;
}

/*
 * The kernel found no such file, so it checked no permission to open one. If
 * there is one all the same, ESTALE makes it look again.
 */
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name,
	       mode_t mode, struct fuse_file_info *fi)
{
	int fd = open_new(req, parent, name, fi->flags | O_CREAT | O_EXCL, mode);

	if (fd == -EEXIST && !(fi->flags & O_EXCL))
		fd = -ESTALE;
	if (fd < 0)
		fuse_reply_err(req, -fd);
	else
		reply_created(req, fd, fi);
}

#ifdef HAVE_FUSE_TMPFILE
void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode,
		struct fuse_file_info *fi)
{
	int fd = open_new(req, parent, ".", fi->flags | O_TMPFILE, mode);

	if (fd < 0)
		fuse_reply_err(req, -fd);
	else
		reply_created(req, fd, fi);
}
#endif

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
	     struct fuse_file_info *fi)
{
	(void)ino;
	fuse_ring_reply_fd(req, file_fd(fi), offset, size, NULL);
}

void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data,
		  off_t offset, struct fuse_file_info *fi)
{
	(void)ino;
	fuse_ring_reply_fd(req, file_fd(fi), offset, fuse_buf_size(data), data);
}

/* Errors that close() would report, with the file still open */
static int close_copy(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return copy < 0 || close(copy) ? -errno : 0;
}

/* One of the client's descriptors is closed: its POSIX locks are gone. */
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct passthrough *pt = passthrough_of(req);
	int unlocked, closed;

	unlocked = lock_release_owner(pt, inode_of(req, ino), fi->lock_owner);
	closed = close_copy(file_fd(fi));
	fuse_reply_err(req, closed ? -closed : -unlocked);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	/* Another open file can get the number as soon as it is free. */
	lock_release_file(passthrough_of(req), inode_of(req, ino), fi->fh);
	fuse_reply_err(req, close(file_fd(fi)) ? errno : 0);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
	      struct fuse_file_info *fi)
{
	int ret = datasync ? fdatasync(file_fd(fi)) : fsync(file_fd(fi));

	(void)ino;
	fuse_reply_err(req, ret ? errno : 0);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset,
		  off_t length, struct fuse_file_info *fi)
{
	int ret = fallocate(file_fd(fi), mode, offset, length);

	(void)ino;
	fuse_reply_err(req, ret ? errno : 0);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
			struct fuse_file_info *fi_in, fuse_ino_t ino_out,
			off_t offset_out, struct fuse_file_info *fi_out,
			size_t length, int flags)
{
	ssize_t copied;

	(void)ino_in;
	(void)ino_out;
	copied = copy_file_range(file_fd(fi_in), &offset_in, file_fd(fi_out),
				 &offset_out,
				 length < COPY_MAX ? length : COPY_MAX, flags);
	if (copied < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_write(req, copied);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
	      struct fuse_file_info *fi)
{
	off_t found = lseek(file_fd(fi), offset, whence);

	(void)ino;
	if (found < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_lseek(req, found);
}

/*
 * File attributes: what lsattr, chattr and the like ask for. The kernel checks
 * who may change them. Of other commands nobody knows what they do to whom.
 */
static size_t known_ioctl(unsigned int cmd)
{
	switch (cmd) {
	case FS_IOC_GETFLAGS:
	case FS_IOC_SETFLAGS:
		return sizeof(unsigned int);
	case FS_IOC_FSGETXATTR:
	case FS_IOC_FSSETXATTR:
		return sizeof(struct fsxattr);
	default:
		return 0;
	}
}

void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg,
	      struct fuse_file_info *fi, unsigned int flags, const void *in,
	      size_t in_size, size_t out_size)
{
	int fd = flags & FUSE_IOCTL_DIR ? dir_fd(fi) : file_fd(fi);
	union {
		unsigned int flags;
		struct fsxattr fsxattr;
	} value = { 0 };
	size_t size = known_ioctl(cmd);

	(void)ino;
	(void)arg;
	if (!size || in_size > sizeof(value) || out_size > sizeof(value)) {
		fuse_reply_err(req, ENOTTY);
		return;
	}
	if (in_size)
		memcpy(&value, in, in_size);
	if (ioctl(fd, cmd, &value))
		fuse_reply_err(req, errno);
	else
		fuse_reply_ioctl(req, 0, &value, out_size);
}
