// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * A file system with one file, hello: over io_uring if it is compiled with
 * -DRING, and else as libfuse has it. Without a mount point it only says what the
 * library calls a mode.
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#ifdef RING
#include <fuse_ring.h>
#endif

#define HELLO 2

static const char text[] = "Hello World!\n";

static int attributes(fuse_ino_t inode, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = inode;
	st->st_nlink = 1;
	st->st_mode = inode == HELLO ? S_IFREG | 0444 : S_IFDIR | 0755;
	st->st_size = inode == HELLO ? sizeof(text) - 1 : 0;
	return inode == HELLO || inode == FUSE_ROOT_ID ? 0 : ENOENT;
}

static void lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { .ino = HELLO };

	(void)parent;
	attributes(HELLO, &entry.attr);
	if (strcmp(name, "hello"))
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_entry(req, &entry);
}

static void getattr(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *fi)
{
	struct stat st;
	int error = attributes(inode, &st);

	(void)fi;
	if (error)
		fuse_reply_err(req, error);
	else
		fuse_reply_attr(req, &st, 0);
}

static void read_file(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
		      struct fuse_file_info *fi)
{
	size_t left = offset < (off_t)sizeof(text) - 1 ? sizeof(text) - 1 - offset : 0;

	(void)inode;
	(void)fi;
	fuse_reply_buf(req, text + offset, size < left ? size : left);
}

static const struct fuse_lowlevel_ops operations = {
	.lookup = lookup,
	.getattr = getattr,
	.read = read_file,
};

static int serve(struct fuse_session *se)
{
#ifdef RING
	return fuse_ring_session_loop(se, NULL);
#else
	return fuse_session_loop(se);
#endif
}

static int say_what_is_linked(void)
{
#ifdef RING
	struct fuse_ring_options options = { .size = sizeof(options) };

	if (fuse_ring_option_parse(&options, "ring=pooled") != 1)
		return 1;
	puts(fuse_ring_mode_name(options.mode));
#endif
	return 0;
}

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_session *se;
	int failed = 1;

	if (argc < 2)
		return say_what_is_linked();
	se = fuse_session_new(&args, &operations, sizeof(operations), NULL);
	if (!se)
		return 1;
	if (!fuse_set_signal_handlers(se)) {
		if (!fuse_session_mount(se, argv[1])) {
			failed = serve(se);
			fuse_session_unmount(se);
		}
		fuse_remove_signal_handlers(se);
	}
	fuse_session_destroy(se);
	fuse_opt_free_args(&args);
	return !!failed;
}
