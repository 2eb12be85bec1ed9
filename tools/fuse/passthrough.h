/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * What the files of passthrough_ring share.
 *
 * Functions that return int give 0 (or a file descriptor) or a negative errno.
 */
#ifndef PASSTHROUGH_H
#define PASSTHROUGH_H

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 312
#endif

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fuse_ring.h"

#ifndef __printf
#define __printf(a, b) __attribute__((__format__(printf, a, b)))
#endif

struct lock_owner;

/* A file of the source that the kernel knows */
struct inode {
	struct inode *next;		/* under inode_table.lock */
	uint64_t lookups;		/* under inode_table.lock */
	uint64_t generation;
	dev_t dev;
	ino_t ino;
	int fd;				/* O_PATH: keeps dev and ino taken */
	struct lock_owner *owners;	/* under passthrough.owners_lock */
};

struct inode_table {
	pthread_mutex_t lock;
	struct inode **chains;
	size_t nr_chains;		/* a power of two */
	size_t nr_inodes;
	uint64_t generation;
};

enum cache {
	CACHE_NEVER,
	CACHE_AUTO,
	CACHE_ALWAYS,
};

/* One per process; the userdata of the session */
struct passthrough {
	/* Constant while the session runs */
	char *source;
	char *mountpoint;
	enum cache cache;
	double attr_timeout;
	double entry_timeout;
	bool writeback;
	bool direct_io;
	bool keep_o_direct;
	dev_t memory_dev;		/* of the source, if it is a tmpfs */
	bool posix_acl;
	bool impersonate;		/* create files as the caller */
	uid_t uid;			/* the server's */
	gid_t gid;
	bool nested;			/* the mount is inside of the source */
	bool daemon;
	dev_t own_dev;			/* of the mount, if nested */
	int proc_fd;			/* /proc/self/fd */
	struct fuse_conn_info_opts *conn_opts;
	struct fuse_ring_options ring;

	struct inode root;
	struct inode_table inodes;
	pthread_mutex_t owners_lock;
};

static inline struct passthrough *passthrough_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static inline struct inode *inode_of(fuse_req_t req, fuse_ino_t ino)
{
	if (ino == FUSE_ROOT_ID)
		return &passthrough_of(req)->root;
	return (struct inode *)(uintptr_t)ino;
}

static inline int inode_fd(fuse_req_t req, fuse_ino_t ino)
{
	return inode_of(req, ino)->fd;
}

/* Open files have their file descriptor as handle. */
static inline int file_fd(const struct fuse_file_info *fi)
{
	return (int)fi->fh;
}

/* passthrough_ring.c */
__printf(2, 3)
void passthrough_log(const struct passthrough *pt, const char *format, ...);

/* passthrough_inode.c */
int inode_table_init(struct passthrough *pt);
void inode_table_free(struct passthrough *pt);
int inode_entry(struct passthrough *pt, int path_fd,
		struct fuse_entry_param *entry);
void inode_forget(struct passthrough *pt, struct inode *inode,
		  uint64_t lookups);
int inode_open(struct passthrough *pt, int fd, int flags);
ino_t inode_number(const struct passthrough *pt, dev_t dev, ino_t ino);

/* A path that leads to the file of an O_PATH descriptor, be it a symlink */
struct fd_path {
	char text[32];
};

struct fd_path fd_path(int fd);

/* passthrough_caller.c */
struct caller {
	const struct passthrough *pt;
	bool is_server;
	bool has_fsetid;
};

int caller_init(struct passthrough *pt);
int caller_begin(fuse_req_t req, mode_t mode, struct caller *caller);
void caller_end(const struct caller *caller);
int caller_allow_setgid(const struct passthrough *pt, bool allow);

/* passthrough_name.c */
int name_lookup(struct passthrough *pt, int parent_fd, const char *name,
		struct fuse_entry_param *entry);
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups);
void op_forget_multi(fuse_req_t req, size_t count,
		     struct fuse_forget_data *forgets);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
	      dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name,
	      mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
		const char *name);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent,
	     const char *name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
	       fuse_ino_t new_parent, const char *new_name,
	       unsigned int flags);

/* passthrough_attr.c */
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int valid,
		struct fuse_file_info *fi);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_access(fuse_req_t req, fuse_ino_t ino, int mask);
void op_statfs(fuse_req_t req, fuse_ino_t ino);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		 const char *value, size_t size, int flags);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
		 size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
#ifdef HAVE_FUSE_STATX
void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask,
	      struct fuse_file_info *fi);
#endif

/* passthrough_file.c */
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name,
	       mode_t mode, struct fuse_file_info *fi);
#ifdef HAVE_FUSE_TMPFILE
void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode,
		struct fuse_file_info *fi);
#endif
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
	     struct fuse_file_info *fi);
void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *data,
		  off_t offset, struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
	      struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset,
		  off_t length, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t offset_in,
			struct fuse_file_info *fi_in, fuse_ino_t ino_out,
			off_t offset_out, struct fuse_file_info *fi_out,
			size_t length, int flags);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
	      struct fuse_file_info *fi);
void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg,
	      struct fuse_file_info *fi, unsigned int flags, const void *in,
	      size_t in_size, size_t out_size);

/* passthrough_dir.c */
int dir_fd(const struct fuse_file_info *fi);
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
		 struct fuse_file_info *fi);

/* passthrough_lock.c */
int lock_init(void);
void lock_stop(void);
void lock_free_owners(struct inode *inode);
int lock_release_owner(struct passthrough *pt, struct inode *inode,
		       uint64_t owner);
void lock_release_file(struct passthrough *pt, struct inode *inode,
		       uint64_t file);
void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
	      struct flock *lock);
void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
	      struct flock *lock, int block);
void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
	      int operation);

#endif
