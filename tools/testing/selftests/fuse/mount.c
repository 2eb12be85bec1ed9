// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests: the mount and its connection.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fixture_internal.h"

/* The process becomes root there, which is its user here. */
static int enter_user_namespace(void)
{
	char uid_map[32], gid_map[32];
	int err;

	snprintf(uid_map, sizeof(uid_map), "0 %u 1", geteuid());
	snprintf(gid_map, sizeof(gid_map), "0 %u 1", getegid());
	if (unshare(CLONE_NEWUSER))
		return -errno;
	err = write_text("/proc/self/uid_map", uid_map);
	if (!err)
		err = write_text("/proc/self/setgroups", "deny");
	if (!err)
		err = write_text("/proc/self/gid_map", gid_map);
	if (err)
		complain("mapping the user into its namespace: %s",
			 strerror(-err));
	return err;
}

static int enter_private_mounts(void)
{
	int err;

	if (!may_mount()) {
		err = enter_user_namespace();
		if (err)
			return err;
	}
	if (unshare(CLONE_NEWNS))
		return complain_errno("unshare(CLONE_NEWNS)");
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return complain_errno("making mounts private");
	if (mount("fuse_selftest", "/tmp", "tmpfs", 0, NULL))
		return complain_errno("mounting a tmpfs on /tmp");
	return 0;
}

/* In a child: a namespace that is of no use cannot be left again. */
static int try_private_mounts(void)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return complain_errno("fork");
	if (!pid)
		_exit(-enter_private_mounts());
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -ECHILD;
	return -WEXITSTATUS(status);
}

/* Runs fusermount3, the way for users who may not mount. */
static int run_fusermount(char *const argv[])
{
	posix_spawn_file_actions_t actions;
	int err, status;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	/* Nothing but the tests' own lines go there. */
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null",
					 O_WRONLY, 0);
	err = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (err)
		return -err;
	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EIO;
}

static bool mounts_by_fusermount;

int prepare_mounts(void)
{
	static char *const version[] = { "fusermount3", "--version", NULL };
	static bool prepared;
	int err = 0;

	if (prepared)
		return 0;
	note_privileges();
	if (!may_mount())
		err = try_private_mounts();
	if (!err)
		err = enter_private_mounts();
	else if (!run_fusermount(version))
		mounts_by_fusermount = true;
	prepared = !err || mounts_by_fusermount;
	return prepared ? 0 : err;
}

int wait_readable(int fd, const char *what)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	int n = poll(&pollfd, 1, WAIT_MS);

	if (n < 0)
		return complain_errno(what);
	if (n == 0) {
		complain("%s: nothing came within %d ms", what, WAIT_MS);
		return -ETIMEDOUT;
	}
	return 0;
}

/* Reads and answers INIT, the first request on every new connection. */
static int answer_init(struct fuse_mount *mount,
		       const struct mount_options *options)
{
	const __u64 wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES |
				FUSE_MAX_PAGES | FUSE_INIT_EXT |
				FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS;
	__u32 max_write = options->max_write ?: DEFAULT_MAX_WRITE;
	__u32 page_size = getpagesize();
	__u64 agreed;
	struct {
		struct fuse_out_header header;
		struct fuse_init_out init;
	} reply = {};
	char buffer[4 * FUSE_MIN_READ_BUFFER];
	const struct fuse_in_header *in = (void *)buffer;
	const struct fuse_init_in *init = (void *)(in + 1);
	ssize_t len;
	int err;

	err = wait_readable(mount->dev_fd, "waiting for INIT");
	if (err)
		return err;
	len = read(mount->dev_fd, buffer, sizeof(buffer));
	if (len < 0)
		return complain_errno("reading INIT");
	if (len < (ssize_t)(sizeof(*in) + sizeof(*init)) ||
	    in->opcode != FUSE_INIT) {
		complain("the first request is not INIT but opcode %u, %zd bytes",
			 in->opcode, len);
		return -EPROTO;
	}

	mount->init_flags = init->flags;
	if (init->flags & FUSE_INIT_EXT)
		mount->init_flags |= (__u64)init->flags2 << 32;

	reply.header.len = sizeof(reply);
	reply.header.unique = in->unique;
	reply.init.major = FUSE_KERNEL_VERSION;
	reply.init.minor = FUSE_KERNEL_MINOR_VERSION;
	reply.init.max_readahead = init->max_readahead;
	reply.init.max_write = max_write;
	reply.init.max_pages = (max_write + page_size - 1) / page_size;
	reply.init.time_gran = 1;
	agreed = (wanted & ~options->init_off) | options->init_on;
	if (options->request_timeout)
		agreed |= FUSE_REQUEST_TIMEOUT;
	agreed &= mount->init_flags;
	/* Even where it is not offered: what comes of it is for tests to see. */
	if (!options->no_uring)
		agreed |= FUSE_OVER_IO_URING;
	reply.init.flags = agreed;
	reply.init.flags2 = agreed >> 32;
	reply.init.max_background = options->max_background;
	memcpy((char *)&reply.init + INIT_OUT_REQUEST_TIMEOUT,
	       &options->request_timeout, sizeof(options->request_timeout));

	mount->max_payload = max_write;
	if (reply.init.max_pages * page_size > mount->max_payload)
		mount->max_payload = reply.init.max_pages * page_size;
	if (mount->max_payload < FUSE_MIN_READ_BUFFER)
		mount->max_payload = FUSE_MIN_READ_BUFFER;

	if (write(mount->dev_fd, &reply, sizeof(reply)) != sizeof(reply))
		return complain_errno("answering INIT");
	return 0;
}

/* The connection's number in fusectl is its device number. */
static int find_connection(struct fuse_mount *mount)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[1024], dir[256];
	unsigned int major, minor;
	int err = -ENOENT;

	if (!file)
		return complain_errno("/proc/self/mountinfo");
	while (err && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%*d %*d %u:%u %*s %255s", &major, &minor,
			   dir) == 3 && !strcmp(dir, mount->dir)) {
			mount->connection = major << 20 | minor;
			err = 0;
		}
	}
	fclose(file);
	if (err)
		complain("%s is not in /proc/self/mountinfo", mount->dir);
	return err;
}

static int mount_fusectl(void)
{
	if (mount("fuse_selftest", FUSECTL_DIR, "fusectl", 0, NULL))
		return complain_errno("mounting fusectl on " FUSECTL_DIR);
	return 0;
}

static int open_abort_file(struct fuse_mount *mount)
{
	char path[128];

	snprintf(path, sizeof(path), FUSECTL_DIR "/%u/abort",
		 mount->connection);
	mount->abort_fd = open(path, O_WRONLY | O_CLOEXEC);
	if (mount->abort_fd < 0 && errno == ENOENT) {
		if (mount_fusectl())
			return -ENOENT;
		mount->abort_fd = open(path, O_WRONLY | O_CLOEXEC);
	}
	if (mount->abort_fd < 0)
		return complain_errno(path);
	return 0;
}

/*
 * Runs @step with io-uring allowed by the module parameter, and puts the
 * parameter back: a connection keeps what it negotiated.
 */
static int with_uring_enabled(struct fuse_mount *mount,
			      const struct mount_options *options,
			      int (*step)(struct fuse_mount *mount,
					  const struct mount_options *options))
{
	char value[16];
	bool was_off;
	int err;

	was_off = !options->no_uring &&
		  read_text(ENABLE_URING, value, sizeof(value)) > 0 &&
		  value[0] != 'Y';
	if (was_off)
		write_text(ENABLE_URING, "Y");
	err = step(mount, options);
	if (was_off)
		write_text(ENABLE_URING, "N");
	return err;
}

/* The device, as fusermount3 sends it: a byte, and the descriptor beside it */
static int receive_device(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	int fd;

	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0)
		return complain_errno("the answer of fusermount3");
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS) {
		complain("fusermount3 sent no descriptor");
		return -EPROTO;
	}
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	if (fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK)) {
		close(fd);
		return complain_errno("fcntl(F_SETFL)");
	}
	return fd;
}

static int unmount_by_fusermount(struct fuse_mount *mount)
{
	char *const argv[] = {
		"fusermount3", "-u", "-z", "-q", "--", mount->dir, NULL,
	};

	return run_fusermount(argv);
}

/*
 * Whatever ends this process, another one unmounts then. auto_unmount would be
 * that, but with libfuse 3.14 it needs allow_other. As any child, the guard
 * begins as one that dies with this process: nothing may be mounted before it
 * says that it no longer does.
 */
static int start_guard(struct fuse_mount *mount)
{
	int ends[2];
	char byte = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return complain_errno("socketpair");
	mount->guard = fork();
	if (mount->guard < 0)
		return complain_errno("fork");
	if (!mount->guard) {
		prctl(PR_SET_PDEATHSIG, 0);
		setsid();
		dup2(ends[0], STDIN_FILENO);
		syscall(__NR_close_range, STDERR_FILENO + 1, ~0U, 0);
		if (write(STDIN_FILENO, &byte, 1) != 1)
			_exit(1);
		while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR)
			;
		unmount_by_fusermount(mount);
		_exit(rmdir(mount->dir));
	}
	close(ends[0]);
	mount->guard_fd = ends[1];
	if (read(ends[1], &byte, 1) != 1) {
		complain("the process that is to unmount did not start");
		return -ECHILD;
	}
	return 0;
}

static void end_guard(struct fuse_mount *mount)
{
	if (mount->guard <= 0)
		return;
	kill(mount->guard, SIGKILL);
	waitpid(mount->guard, NULL, 0);
	mount->guard = 0;
	close(mount->guard_fd);
	if (rmdir(mount->dir))
		complain_errno(mount->dir);
}

static int mount_by_fusermount(struct fuse_mount *mount)
{
	char *const argv[] = {
		"fusermount3", "-o", "nosuid,nodev", "--", mount->dir, NULL,
	};
	int sockets[2], err;
	char number[16];

	err = start_guard(mount);
	if (err)
		return err;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		return complain_errno("socketpair");
	fcntl(sockets[0], F_SETFD, FD_CLOEXEC);
	snprintf(number, sizeof(number), "%d", sockets[1]);
	setenv("_FUSE_COMMFD", number, 1);
	err = run_fusermount(argv);
	unsetenv("_FUSE_COMMFD");
	if (!err) {
		mount->dev_fd = receive_device(sockets[0]);
		err = mount->dev_fd < 0 ? mount->dev_fd : 0;
	}
	close(sockets[0]);
	close(sockets[1]);
	return err;
}

static int mount_privately(struct fuse_mount *mount_,
			   const struct mount_options *options)
{
	const char *type = options->type ?: "fuse";
	char data[256];

	mount_->dev_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (mount_->dev_fd < 0)
		return complain_errno("/dev/fuse");
	snprintf(data, sizeof(data),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other%s%s",
		 mount_->dev_fd, options->data ? "," : "", options->data ?: "");
	if (mount(options->source ?: "fuse_selftest", mount_->dir, type,
		  MS_NOSUID | MS_NODEV, data))
		return complain_errno("mount");
	return 0;
}

static int mount_and_init(struct fuse_mount *mount,
			  const struct mount_options *options)
{
	int err = mounts_by_fusermount ? mount_by_fusermount(mount) :
					 mount_privately(mount, options);

	return err ?: answer_init(mount, options);
}

/* A directory of nobody else, in a /tmp that may be everybody's */
static int make_mount_point(struct fuse_mount *mount)
{
	static unsigned int nr_mounts;

	if (mounts_by_fusermount) {
		snprintf(mount->dir, sizeof(mount->dir),
			 "/tmp/fuse_selftest-XXXXXX");
		return mkdtemp(mount->dir) ? 0 : complain_errno(mount->dir);
	}
	snprintf(mount->dir, sizeof(mount->dir), "/tmp/mount-%u", nr_mounts++);
	if (mkdir(mount->dir, 0755) && errno != EEXIST)
		return complain_errno(mount->dir);
	return 0;
}

int mount_open(struct fuse_mount *mount, const struct mount_options *options)
{
	static const struct mount_options defaults;
	int err;

	if (!options)
		options = &defaults;
	mount->dev_fd = -1;
	mount->abort_fd = -1;
	mount->stop_fd = -1;
	mount->ring_fd = -1;

	err = prepare_mounts();
	if (!err)
		err = make_mount_point(mount);
	if (err)
		return err;

	mount->stop_fd = eventfd(0, EFD_CLOEXEC);
	mount->ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mount->stop_fd < 0 || mount->ring_fd < 0)
		return complain_errno("eventfd");
	err = with_uring_enabled(mount, options, mount_and_init);
	if (!err)
		err = find_connection(mount);
	if (!err)
		err = open_abort_file(mount);
	if (!err && !options->no_device_server)
		err = start_device_thread(mount);
	if (err)
		return err;

	mount->nr_queues = possible_queues();
	mount->queues = calloc(mount->nr_queues, sizeof(*mount->queues));
	return mount->queues ? 0 : -ENOMEM;
}

int mount_abort(struct fuse_mount *mount)
{
	if (mount->abort_fd < 0)
		return -EBADF;
	if (write(mount->abort_fd, "1", 1) != 1)
		return complain_errno("aborting the connection");
	return 0;
}

int mount_wait_until_waiting(struct fuse_mount *mount, unsigned int requests)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	__u64 deadline = now_ms() + WAIT_MS;
	char path[128], text[32];
	unsigned int waiting;

	snprintf(path, sizeof(path), FUSECTL_DIR "/%u/waiting",
		 mount->connection);
	for (;;) {
		if (read_text(path, text, sizeof(text)) <= 0)
			return complain_errno(path);
		waiting = strtoul(text, NULL, 10);
		if (waiting >= requests)
			return 0;
		if (!ms_until(deadline)) {
			complain("%u requests are waiting, expected at least %u",
				 waiting, requests);
			return -ETIMEDOUT;
		}
		nanosleep(&pause, NULL);
	}
}

int mount_set_readahead(struct fuse_mount *mount, unsigned int kib)
{
	char path[64], value[16];

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		 mount->connection >> 20, mount->connection & 0xfffff);
	snprintf(value, sizeof(value), "%u", kib);
	return write_text(path, value);
}

int mount_detach(struct fuse_mount *mount)
{
	if (mounts_by_fusermount)
		return unmount_by_fusermount(mount);
	return umount2(mount->dir, MNT_DETACH) ? -errno : 0;
}

void mount_close_device(struct fuse_mount *mount)
{
	stop_device_thread(mount);
	if (mount->dev_fd >= 0)
		close(mount->dev_fd);
	mount->dev_fd = -1;
}

void mount_close(struct fuse_mount *mount)
{
	unsigned int qid;

	if (!mount->dir[0])
		return;	/* never opened, or not that far */
	if (mount->abort_fd >= 0) {
		mount_abort(mount);
		close(mount->abort_fd);
		mount->abort_fd = -1;
	}
	for (qid = 0; mount->queues && qid < mount->nr_queues; qid++)
		queue_close(&mount->queues[qid]);
	mount_close_device(mount);
	if (mount->stop_fd >= 0)
		close(mount->stop_fd);
	if (mount->ring_fd >= 0)
		close(mount->ring_fd);
	mount->stop_fd = -1;
	mount->ring_fd = -1;
	mount_detach(mount);
	end_guard(mount);
	free(mount->queues);
	mount->queues = NULL;
}

char *mount_path(const struct fuse_mount *mount, const char *name)
{
	static char paths[4][320];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", mount->dir, name);
	return path;
}
