// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * passthrough_ring: attributes, symlink targets, extended attributes, statfs
 *
 * All of it works on O_PATH descriptors, most of it through their path in
 * /proc, which leads to the file itself also if that is a symlink. Open files
 * are used where the kernel names one: that they were opened for writing can
 * be more than the mode allows now.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "passthrough.h"

static void reply_attr(fuse_req_t req, fuse_ino_t ino)
{
	const struct passthrough *pt = passthrough_of(req);
	struct stat st;

	if (fstat(inode_fd(req, ino), &st)) {
		fuse_reply_err(req, errno);
		return;
	}
	st.st_ino = inode_number(pt, st.st_dev, st.st_ino);
	fuse_reply_attr(req, &st, pt->attr_timeout);
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	reply_attr(req, ino);
}

/* What setattr works on: the file's path and, if not -1, a descriptor */
struct target {
	const struct passthrough *pt;
	int path_fd;
	struct fd_path path;
	int fd;
};

static int set_owner(const struct target *target, const struct stat *attr,
		     int valid)
{
	uid_t uid = valid & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
	gid_t gid = valid & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;

	return fchownat(target->path_fd, "", uid, gid,
			AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int set_size(const struct target *target, off_t size)
{
	int ret = target->fd >= 0 ? ftruncate(target->fd, size) :
				    truncate(target->path.text, size);

	return ret ? -errno : 0;
}

static int change_mode(const struct target *target, mode_t mode)
{
	int ret = target->fd >= 0 ? fchmod(target->fd, mode) :
				    chmod(target->path.text, mode);

	return ret ? -errno : 0;
}

static int set_mode(const struct target *target, mode_t mode)
{
	int err, ret;

	if (!(mode & S_ISGID))
		return change_mode(target, mode);
	ret = caller_allow_setgid(target->pt, true);
	if (ret)
		return ret;
	ret = change_mode(target, mode);
	err = caller_allow_setgid(target->pt, false);
	return ret ? ret : err;
}

static struct timespec time_to_set(struct timespec time, int set, int now)
{
	if (now)
		time.tv_nsec = UTIME_NOW;
	else if (!set)
		time.tv_nsec = UTIME_OMIT;
	return time;
}

static int set_times(const struct target *target, const struct stat *attr,
		     int valid)
{
	struct timespec times[2] = {
		time_to_set(attr->st_atim, valid & FUSE_SET_ATTR_ATIME,
			    valid & FUSE_SET_ATTR_ATIME_NOW),
		time_to_set(attr->st_mtim, valid & FUSE_SET_ATTR_MTIME,
			    valid & FUSE_SET_ATTR_MTIME_NOW),
	};
	int ret = target->fd >= 0 ? futimens(target->fd, times) :
			utimensat(AT_FDCWD, target->path.text, times, 0);

	return ret ? -errno : 0;
}

/*
 * A new owner and a new size clear mode bits and a new size sets times: so the
 * mode comes after both and the times are last.
 */
static int set_attr(const struct target *target, const struct stat *attr,
		    int valid)
{
	const int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW |
			  FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW;
	int err = 0;

	if (valid & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		err = set_owner(target, attr, valid);
	if (!err && valid & FUSE_SET_ATTR_SIZE)
		err = set_size(target, attr->st_size);
	if (!err && valid & FUSE_SET_ATTR_MODE)
		err = set_mode(target, attr->st_mode & 07777);
	if (!err && valid & times)
		err = set_times(target, attr, valid);
	return err;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int valid,
		struct fuse_file_info *fi)
{
	struct inode *inode = inode_of(req, ino);
	struct target target = {
		.pt = passthrough_of(req),
		.path_fd = inode->fd,
		.path = fd_path(inode->fd),
		.fd = fi ? file_fd(fi) : -1,
	};
	int err = set_attr(&target, attr, valid);

	if (err)
		fuse_reply_err(req, -err);
	else
		reply_attr(req, ino);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PATH_MAX + 1];
	ssize_t len;

	len = readlinkat(inode_fd(req, ino), "", target, sizeof(target));
	if (len < 0) {
		fuse_reply_err(req, errno);
	} else if (len == sizeof(target)) {
		fuse_reply_err(req, ENAMETOOLONG);
	} else {
		target[len] = '\0';
		fuse_reply_readlink(req, target);
	}
}

/* Only asked for where the kernel does not check permissions itself. */
void op_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct fd_path path = fd_path(inode_fd(req, ino));

	fuse_reply_err(req, access(path.text, mask) ? errno : 0);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;

	if (fstatvfs(inode_fd(req, ino), &st))
		fuse_reply_err(req, errno);
	else
		fuse_reply_statfs(req, &st);
}

/* May who asks for it set the mode of a file with a set-group-ID bit? */
static bool keeps_setgid(fuse_req_t req, gid_t gid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	gid_t groups[1024];
	int n;

	if (!ctx->uid || ctx->gid == gid)
		return true;
	n = fuse_req_getgroups(req, 1024, groups);
	if (n > 1024)
		n = 1024;
	while (n > 0)
		if (groups[--n] == gid)
			return true;
	return false;
}

static int clear_setgid(int fd)
{
	struct fd_path path = fd_path(fd);
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (st.st_mode & S_ISGID && chmod(path.text, st.st_mode & 05777))
		return -errno;
	return 0;
}

/*
 * An ACL sets the mode, too, and clears a set-group-ID bit unless root or a
 * member of the file's group asks for it. Of these, the server may be neither
 * or both.
 */
static int set_acl(fuse_req_t req, const struct inode *inode, const char *name,
		   const char *value, size_t size, int flags)
{
	const struct passthrough *pt = passthrough_of(req);
	struct fd_path path = fd_path(inode->fd);
	bool had_bit, keeps;
	struct stat st;
	int ret, err;

	if (fstat(inode->fd, &st))
		return -errno;
	had_bit = st.st_mode & S_ISGID;
	keeps = had_bit && keeps_setgid(req, st.st_gid);
	err = keeps ? caller_allow_setgid(pt, true) : 0;
	if (err)
		return err;
	ret = setxattr(path.text, name, value, size, flags) ? -errno : 0;
	if (keeps)
		err = caller_allow_setgid(pt, false);
	else if (had_bit && !ret)
		err = clear_setgid(inode->fd);
	return ret ? ret : err;
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		 const char *value, size_t size, int flags)
{
	const struct inode *inode = inode_of(req, ino);
	struct fd_path path = fd_path(inode->fd);
	int err;

	if (!strcmp(name, "system.posix_acl_access"))
		err = set_acl(req, inode, name, value, size, flags);
	else
		err = setxattr(path.text, name, value, size, flags) ? -errno : 0;
	fuse_reply_err(req, -err);
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct fd_path path = fd_path(inode_fd(req, ino));

	fuse_reply_err(req, removexattr(path.text, name) ? errno : 0);
}

/* The value of an attribute, or without a name the list of all */
static ssize_t get_xattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			 char *value, size_t size)
{
	struct fd_path path = fd_path(inode_fd(req, ino));

	return name ? getxattr(path.text, name, value, size) :
		      listxattr(path.text, value, size);
}

static void reply_xattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			size_t size)
{
	char *value = NULL;
	ssize_t len;

	if (size) {
		value = malloc(size);
		if (!value) {
			fuse_reply_err(req, ENOMEM);
			return;
		}
	}
	len = get_xattr(req, ino, name, value, size);
	if (len < 0)
		fuse_reply_err(req, errno);
	else if (!size)
		fuse_reply_xattr(req, len);
	else
		fuse_reply_buf(req, value, len);
	free(value);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		 size_t size)
{
	reply_xattr(req, ino, name, size);
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	reply_xattr(req, ino, NULL, size);
}

#ifdef HAVE_FUSE_STATX
void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask,
	      struct fuse_file_info *fi)
{
	const struct passthrough *pt = passthrough_of(req);
	struct statx stx;

	(void)fi;
	if (statx(inode_fd(req, ino), "",
		  flags | AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, mask, &stx)) {
		fuse_reply_err(req, errno);
		return;
	}
	stx.stx_ino = inode_number(pt, makedev(stx.stx_dev_major,
					       stx.stx_dev_minor), stx.stx_ino);
	fuse_reply_statx(req, 0, &stx, pt->attr_timeout);
}
#endif
