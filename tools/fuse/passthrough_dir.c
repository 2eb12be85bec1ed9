// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * passthrough_ring: open directories
 *
 * The kernel names places in a directory by the offsets that came with the
 * entries, and those are the source's own. So a listing can go on anywhere,
 * and entries that come and go meanwhile are dealt with by the source.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "passthrough.h"

#define READ_SIZE	32768

struct dir {
	int fd;
	dev_t dev;
	pthread_mutex_t lock;	/* for all below */
	off_t next;		/* offset of the entry at entries + at */
	size_t at;
	size_t end;
	char *entries;		/* READ_SIZE bytes of struct dirent64 */
};

static struct dir *dir_of(const struct fuse_file_info *fi)
{
	return (struct dir *)(uintptr_t)fi->fh;
}

int dir_fd(const struct fuse_file_info *fi)
{
	return dir_of(fi)->fd;
}

static void dir_free(struct dir *dir)
{
	pthread_mutex_destroy(&dir->lock);
	free(dir->entries);
	free(dir);
}

static struct dir *dir_new(int fd, dev_t dev)
{
	struct dir *dir = calloc(1, sizeof(*dir));

	if (!dir)
		return NULL;
	dir->fd = fd;
	dir->dev = dev;
	pthread_mutex_init(&dir->lock, NULL);
	dir->entries = malloc(READ_SIZE);
	if (!dir->entries) {
		dir_free(dir);
		return NULL;
	}
	return dir;
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct passthrough *pt = passthrough_of(req);
	struct dir *dir;
	int fd;

	fd = inode_open(pt, inode_fd(req, ino), O_RDONLY | O_DIRECTORY);
	if (fd < 0) {
		fuse_reply_err(req, -fd);
		return;
	}
	dir = dir_new(fd, inode_of(req, ino)->dev);
	if (!dir) {
		close(fd);
		fuse_reply_err(req, ENOMEM);
		return;
	}
	fi->fh = (uintptr_t)dir;
	fi->keep_cache = pt->cache == CACHE_ALWAYS;
	fi->cache_readdir = pt->cache == CACHE_ALWAYS;
	if (fuse_reply_open(req, fi)) {
		close(fd);
		dir_free(dir);
	}
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int ret = close(dir_fd(fi));

	(void)ino;
	dir_free(dir_of(fi));
	fuse_reply_err(req, ret ? errno : 0);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
		 struct fuse_file_info *fi)
{
	int ret = datasync ? fdatasync(dir_fd(fi)) : fsync(dir_fd(fi));

	(void)ino;
	fuse_reply_err(req, ret ? errno : 0);
}

static int seek_locked(struct dir *dir, off_t offset)
{
	if (offset == dir->next)
		return 0;
	dir->at = 0;
	dir->end = 0;
	if (lseek(dir->fd, offset, SEEK_SET) < 0)
		return -errno;
	dir->next = offset;
	return 0;
}

/* Gives the next entry, or NULL at the end or at an error. */
static const struct dirent64 *peek_locked(struct dir *dir, int *err)
{
	ssize_t len;

	*err = 0;
	if (dir->at == dir->end) {
		len = getdents64(dir->fd, dir->entries, READ_SIZE);
		if (len < 0)
			*err = -errno;
		if (len <= 0)
			return NULL;
		dir->at = 0;
		dir->end = len;
	}
	return (const struct dirent64 *)(dir->entries + dir->at);
}

static void advance_locked(struct dir *dir, const struct dirent64 *entry)
{
	dir->next = entry->d_off;
	dir->at += entry->d_reclen;
}

/*
 * Appends an entry to a reply, of which there is room for @room more bytes.
 * Gives the bytes it takes, which may be more than that.
 */
typedef size_t (*add_entry)(fuse_req_t req, const struct dir *dir, char *buf,
			    size_t room, const struct dirent64 *entry);

static struct stat type_of(fuse_req_t req, const struct dir *dir,
			   const struct dirent64 *entry)
{
	return (struct stat){
		.st_ino = inode_number(passthrough_of(req), dir->dev,
				       entry->d_ino),
		.st_mode = DTTOIF(entry->d_type),
	};
}

static size_t add_plain(fuse_req_t req, const struct dir *dir, char *buf,
			size_t room, const struct dirent64 *entry)
{
	struct stat st = type_of(req, dir, entry);

	return fuse_add_direntry(req, buf, room, entry->d_name, &st,
				 entry->d_off);
}

static bool is_dot(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

/*
 * An entry that cannot be looked up is listed without attributes, which the
 * kernel then asks for if it needs them.
 */
static size_t add_plus(fuse_req_t req, const struct dir *dir, char *buf,
		       size_t room, const struct dirent64 *entry)
{
	struct passthrough *pt = passthrough_of(req);
	struct fuse_entry_param param;
	size_t size;

	if (is_dot(entry->d_name) ||
	    name_lookup(pt, dir->fd, entry->d_name, &param))
		param = (struct fuse_entry_param){
			.attr = type_of(req, dir, entry),
		};
	size = fuse_add_direntry_plus(req, buf, room, entry->d_name, &param,
				      entry->d_off);
	if (param.ino && size > room)
		inode_forget(pt, inode_of(req, param.ino), 1);
	return size;
}

/* Gives the bytes of @buf used. An error counts where there is no entry. */
static ssize_t fill_locked(fuse_req_t req, struct dir *dir, char *buf,
			   size_t room, off_t offset, add_entry add)
{
	const struct dirent64 *entry;
	size_t used = 0, size;
	int err;

	err = seek_locked(dir, offset);
	if (err)
		return err;
	while ((entry = peek_locked(dir, &err))) {
		size = add(req, dir, buf + used, room - used, entry);
		if (size > room - used)
			break;
		used += size;
		advance_locked(dir, entry);
	}
	return used ? (ssize_t)used : err;
}

static ssize_t fill(fuse_req_t req, struct dir *dir, char *buf, size_t room,
		    off_t offset, add_entry add)
{
	ssize_t used;

	pthread_mutex_lock(&dir->lock);
	used = fill_locked(req, dir, buf, room, offset, add);
	pthread_mutex_unlock(&dir->lock);
	return used;
}

/* The kernel never got the lookups that a listing brought. */
static void forget_listing(struct passthrough *pt, const char *buf,
			   size_t used)
{
	const struct fuse_direntplus *entry;
	size_t at;

	for (at = 0; at < used; at += FUSE_DIRENTPLUS_SIZE(entry)) {
		entry = (const struct fuse_direntplus *)(buf + at);
		if (entry->entry_out.nodeid)
			inode_forget(pt, (struct inode *)(uintptr_t)
				     entry->entry_out.nodeid, 1);
	}
}

static void list(fuse_req_t req, size_t size, off_t offset,
		 struct fuse_file_info *fi, add_entry add)
{
	struct passthrough *pt = passthrough_of(req);
	char *buf = malloc(size);
	ssize_t used;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	used = fill(req, dir_of(fi), buf, size, offset, add);
	if (used < 0)
		fuse_reply_err(req, -used);
	else if (fuse_reply_buf(req, buf, used) && add == add_plus)
		forget_listing(pt, buf, used);
	free(buf);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		struct fuse_file_info *fi)
{
	(void)ino;
	list(req, size, offset, fi, add_plain);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	(void)ino;
	list(req, size, offset, fi, add_plus);
}
