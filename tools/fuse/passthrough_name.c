// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * passthrough_ring: operations on names in directories
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "passthrough.h"

int name_lookup(struct passthrough *pt, int parent_fd, const char *name,
		struct fuse_entry_param *entry)
{
	int fd = openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	*entry = (struct fuse_entry_param){ 0 };
	return fd < 0 ? -errno : inode_entry(pt, fd, entry);
}

/* A lookup only counts if the kernel learns of it. */
static void reply_entry(fuse_req_t req, int err,
			const struct fuse_entry_param *entry)
{
	struct passthrough *pt = passthrough_of(req);
	struct inode *inode;

	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	inode = inode_of(req, entry->ino);
	if (fuse_reply_entry(req, entry))
		inode_forget(pt, inode, 1);
}

static void reply_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;
	int err;

	err = name_lookup(passthrough_of(req), inode_fd(req, parent), name,
			  &entry);
	reply_entry(req, err, &entry);
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_lookup(req, parent, name);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	inode_forget(passthrough_of(req), inode_of(req, ino), lookups);
	fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count,
		     struct fuse_forget_data *forgets)
{
	size_t i;

	for (i = 0; i < count; i++)
		inode_forget(passthrough_of(req), inode_of(req, forgets[i].ino),
			     forgets[i].nlookup);
	fuse_reply_none(req);
}

static int make_node(int parent_fd, const char *name, mode_t mode, dev_t rdev,
		     const char *target)
{
	int ret;

	if (S_ISDIR(mode))
		ret = mkdirat(parent_fd, name, mode & ~S_IFMT);
	else if (S_ISLNK(mode))
		ret = symlinkat(target, parent_fd, name);
	else
		ret = mknodat(parent_fd, name, mode, rdev);
	return ret ? -errno : 0;
}

static void make(fuse_req_t req, fuse_ino_t parent, const char *name,
		 mode_t mode, dev_t rdev, const char *target)
{
	struct caller caller;
	int err;

	err = caller_begin(req, mode, &caller);
	if (!err) {
		err = make_node(inode_fd(req, parent), name, mode, rdev,
				target);
		caller_end(&caller);
	}
	if (err)
		fuse_reply_err(req, -err);
	else
		reply_lookup(req, parent, name);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	      dev_t rdev)
{
	make(req, parent, name, mode, rdev, NULL);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name,
	      mode_t mode)
{
	make(req, parent, name, S_IFDIR | mode, 0, NULL);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
		const char *name)
{
	make(req, parent, name, S_IFLNK, 0, target);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent,
	     const char *name)
{
	struct fd_path path = fd_path(inode_fd(req, ino));

	if (linkat(AT_FDCWD, path.text, inode_fd(req, parent), name,
		   AT_SYMLINK_FOLLOW))
		fuse_reply_err(req, errno);
	else
		reply_lookup(req, parent, name);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name,
			int flags)
{
	int ret = unlinkat(inode_fd(req, parent), name, flags);

	fuse_reply_err(req, ret ? errno : 0);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, 0);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, AT_REMOVEDIR);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
	       fuse_ino_t new_parent, const char *new_name, unsigned int flags)
{
	int ret = renameat2(inode_fd(req, parent), name,
			    inode_fd(req, new_parent), new_name, flags);

	fuse_reply_err(req, ret ? errno : 0);
}
