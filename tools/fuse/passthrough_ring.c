// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * passthrough_ring: a file system that shows a directory somewhere else
 *
 * On libfuse's low-level interface, served by fuse_ring_session_loop(): file
 * data takes the shortest way that the ring's mode offers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <syslog.h>
#include <unistd.h>

#include "passthrough_options.h"

static void log_line(const struct passthrough *pt, const char *line)
{
	if (pt->daemon)
		syslog(LOG_DAEMON | LOG_NOTICE, "%s", line);
	else
		fprintf(stderr, "%s: %s\n", PROGRAM, line);
}

void passthrough_log(const struct passthrough *pt, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	log_line(pt, line);
}

static void log_of_ring(void *data, const char *line)
{
	log_line(data, line);
}

/*
 * INIT
 */

#ifdef HAVE_FUSE_SET_FEATURE_FLAG
static void want(struct fuse_conn_info *conn, unsigned int cap)
{
	fuse_set_feature_flag(conn, cap);
}

static void do_not_want(struct fuse_conn_info *conn, unsigned int cap)
{
	fuse_unset_feature_flag(conn, cap);
}
#else
static void want(struct fuse_conn_info *conn, unsigned int cap)
{
	conn->want |= conn->capable & cap;
}

static void do_not_want(struct fuse_conn_info *conn, unsigned int cap)
{
	conn->want &= ~cap;
}
#endif

/* ACLs tell what a new file's mode is: the umask is for us to apply. */
static void want_acls(struct passthrough *pt, struct fuse_conn_info *conn)
{
	const unsigned int caps = FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK;

	pt->posix_acl = (conn->capable & caps) == caps;
	if (pt->posix_acl)
		want(conn, caps);
	else
		passthrough_log(pt, "posix_acl: this kernel has no ACLs for FUSE");
}

static void op_init(void *data, struct fuse_conn_info *conn)
{
	struct passthrough *pt = data;

	fuse_apply_conn_info_opts(pt->conn_opts, conn);
	/* See passthrough_caller.c for who clears set-user-ID bits. */
	do_not_want(conn, FUSE_CAP_HANDLE_KILLPRIV);
	if (pt->writeback)
		want(conn, FUSE_CAP_WRITEBACK_CACHE);
	if (pt->cache == CACHE_ALWAYS)
		want(conn, FUSE_CAP_CACHE_SYMLINKS);
#ifdef FUSE_CAP_DIRECT_IO_ALLOW_MMAP
	if (pt->direct_io)
		want(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
#endif
	if (pt->posix_acl)
		want_acls(pt, conn);
	/* Also if it was an option of libfuse, or is none of this kernel. */
	pt->writeback = conn->want & FUSE_CAP_WRITEBACK_CACHE;
}

static const struct fuse_lowlevel_ops operations = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.access = op_access,
	.statfs = op_statfs,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.link = op_link,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.open = op_open,
	.create = op_create,
	.read = op_read,
	.write_buf = op_write_buf,
	.flush = op_flush,
	.release = op_release,
	.fsync = op_fsync,
	.fallocate = op_fallocate,
	.copy_file_range = op_copy_file_range,
	.lseek = op_lseek,
	.ioctl = op_ioctl,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.fsyncdir = op_fsyncdir,
	.setxattr = op_setxattr,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.removexattr = op_removexattr,
	.getlk = op_getlk,
	.setlk = op_setlk,
	.flock = op_flock,
#ifdef HAVE_FUSE_TMPFILE
	.tmpfile = op_tmpfile,
#endif
#ifdef HAVE_FUSE_STATX
	.statx = op_statx,
#endif
};

/*
 * Life
 */

/* Every file that the kernel knows takes a descriptor. */
static void raise_file_limit(void)
{
	struct rlimit limit;
	uintmax_t most = 0;
	FILE *file;

	file = fopen("/proc/sys/fs/nr_open", "re");
	if (file) {
		if (fscanf(file, "%ju", &most) != 1)
			most = 0;
		fclose(file);
	}
	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	if (limit.rlim_max < most &&
	    !setrlimit(RLIMIT_NOFILE, &(struct rlimit){ most, most }))
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		complain("cannot have more open files: %s", strerror(errno));
}

static bool is_inside(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (!strcmp(dir, "/"))
		return path[1];
	return !strncmp(path, dir, len) && path[len] == '/';
}

static int make_absolute(char **path)
{
	char *absolute = realpath(*path, NULL);

	if (!absolute)
		return complain("%s: %s", *path, strerror(errno));
	free(*path);
	*path = absolute;
	return 0;
}

static int open_source(struct passthrough *pt)
{
	struct statfs fs;
	struct stat st;

	if (make_absolute(&pt->source) || make_absolute(&pt->mountpoint))
		return -1;
	pt->nested = is_inside(pt->mountpoint, pt->source);
	pt->root.fd = open(pt->source, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (pt->root.fd < 0)
		return complain("%s: %s", pt->source, strerror(errno));
	if (fstat(pt->root.fd, &st) || fstatfs(pt->root.fd, &fs))
		return complain("%s: %s", pt->source, strerror(errno));
	pt->root.dev = st.st_dev;
	if (fs.f_type == TMPFS_MAGIC)
		pt->memory_dev = st.st_dev;
	return 0;
}

static int find_own_dev(struct passthrough *pt)
{
	struct statx stx;

	/* Not to be answered by the server, which does not run yet. */
	if (statx(AT_FDCWD, pt->mountpoint, AT_STATX_DONT_SYNC, 0, &stx))
		return complain("%s: %s", pt->mountpoint, strerror(errno));
	pt->own_dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	return 0;
}

static int prepare(struct passthrough *pt)
{
	int err;

	/* A client that writes beyond the server's limit gets EFBIG. */
	signal(SIGXFSZ, SIG_IGN);
	raise_file_limit();
	if (open_source(pt))
		return -1;
	err = caller_init(pt);
	if (!err)
		err = lock_init();
	if (!err)
		err = inode_table_init(pt);
	return err ? complain("%s", strerror(-err)) : 0;
}

/* After the fork(), as the process is in that path. */
static int open_proc(struct passthrough *pt)
{
	pt->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (pt->proc_fd >= 0)
		return 0;
	passthrough_log(pt, "/proc/self/fd: %s", strerror(errno));
	return -1;
}

static int loop_classic(struct fuse_session *session,
			const struct fuse_cmdline_opts *cmdline)
{
	struct fuse_loop_config *config;
	int ret;

	if (cmdline->singlethread)
		return fuse_session_loop(session);
	config = fuse_loop_cfg_create();
	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(config, cmdline->clone_fd);
	fuse_loop_cfg_set_max_threads(config, cmdline->max_threads);
	if (cmdline->max_idle_threads != UINT_MAX)
		fuse_loop_cfg_set_idle_threads(config,
					       cmdline->max_idle_threads);
	ret = fuse_session_loop_mt(session, config);
	fuse_loop_cfg_destroy(config);
	return ret;
}

static int loop(struct passthrough *pt, struct fuse_session *session,
		const struct fuse_cmdline_opts *cmdline)
{
	int ret;

	if (pt->ring.mode == FUSE_RING_OFF)
		ret = loop_classic(session, cmdline);
	else
		ret = fuse_ring_session_loop(session, &pt->ring);
	/* More than 0 is the signal that ended it. */
	if (ret >= 0)
		return 0;
	passthrough_log(pt, "%s", strerror(-ret));
	return -1;
}

static int serve_mounted(struct passthrough *pt, struct fuse_session *session,
			 const struct fuse_cmdline_opts *cmdline)
{
	int ret;

	if (pt->nested && find_own_dev(pt))
		return -1;
	if (fuse_daemonize(cmdline->foreground))
		return complain("cannot go into the background");
	pt->daemon = !cmdline->foreground;
	if (open_proc(pt))
		return -1;
	ret = loop(pt, session, cmdline);
	lock_stop();
	close(pt->proc_fd);
	return ret;
}

/* libfuse says itself what is wrong. */
static int serve(struct passthrough *pt, struct options *options)
{
	struct fuse_session *session;
	int ret = -1;

	session = fuse_session_new(&options->args, &operations,
				   sizeof(operations), pt);
	if (!session)
		return -1;
	if (fuse_set_signal_handlers(session))
		goto destroy;
	if (fuse_session_mount(session, pt->mountpoint))
		goto remove_handlers;
	if (!mount_set_flags(&options->mount, pt->mountpoint))
		ret = serve_mounted(pt, session, &options->cmdline);
	fuse_session_unmount(session);
remove_handlers:
	fuse_remove_signal_handlers(session);
destroy:
	fuse_session_destroy(session);
	return ret;
}

static int run(struct passthrough *pt, struct options *options)
{
	int ret;

	pt->ring.serialize = options->cmdline.singlethread;
	if (prepare(pt) || options_add_mount_options(options))
		return -1;
	ret = serve(pt, options);
	inode_table_free(pt);
	close(pt->root.fd);
	return ret;
}

int main(int argc, char *argv[])
{
	static struct passthrough pt = {
		.ring = {
			.size = sizeof(struct fuse_ring_options),
			.log = log_of_ring,
			.log_data = &pt,
		},
		.owners_lock = PTHREAD_MUTEX_INITIALIZER,
	};
	struct options options = {
		.pt = &pt,
		.args = FUSE_ARGS_INIT(argc, argv),
	};
	int ret = options_parse(&options);

	if (!ret && options.cmdline.show_help)
		options_print_help();
	else if (!ret && options.cmdline.show_version)
		options_print_version();
	else if (!ret && options.mount.remount)
		ret = mount_again(&options.mount, pt.mountpoint);
	else if (!ret)
		ret = run(&pt, &options);
	options_free(&options);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}
