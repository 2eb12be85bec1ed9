/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * What the small test servers say of their root and of every file
 */
#ifndef FUSE_RING_TEST_ATTRIBUTES_H
#define FUSE_RING_TEST_ATTRIBUTES_H

#include <fuse_lowlevel.h>

static inline struct stat attributes(fuse_ino_t ino)
{
	return (struct stat){
		.st_ino = ino,
		.st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644,
		.st_nlink = 1,
	};
}

static inline void reply_attributes(fuse_req_t req, fuse_ino_t ino,
				    struct fuse_file_info *fi)
{
	struct stat st = attributes(ino);

	(void)fi;
	fuse_reply_attr(req, &st, 0);
}

/* Sizes are 0: what is read is up to the operation. */
static inline void reply_open(fuse_req_t req, fuse_ino_t ino,
			      struct fuse_file_info *fi)
{
	(void)ino;
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

#endif
