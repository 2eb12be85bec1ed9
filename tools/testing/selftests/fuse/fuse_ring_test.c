// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring selftests, see fuse_ring_test.h.
 */
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/capability.h>

#include "fuse_ring_test.h"

#define ENABLE_URING "/sys/module/fuse/parameters/enable_uring"
#define FUSECTL_DIR "/sys/fs/fuse/connections"

/* What a CQE answers: the kind and the slot travel in user_data. */
enum cqe_kind {
	CQE_COMMAND = 1,	/* REGISTER or COMMIT_AND_FETCH */
	CQE_TRANSFER,		/* data of a zero-copied request */
	CQE_STOP,		/* the poll on a server's stop_fd */
};

static __u64 next_sequence;

static __u64 make_user_data(enum cqe_kind kind, unsigned int slot)
{
	__u64 sequence;

	/* Makes each command's own completion distinguishable. */
	sequence = __atomic_add_fetch(&next_sequence, 1, __ATOMIC_RELAXED);
	return (__u64)kind << 56 | (sequence & 0xffffffff) << 16 | slot;
}

static enum cqe_kind user_data_kind(__u64 user_data)
{
	return user_data >> 56;
}

static unsigned int user_data_slot(__u64 user_data)
{
	return user_data & 0xffff;
}

void complain(const char *format, ...)
{
	char line[512];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (len < 0)
		return;
	fprintf(stderr, "# %s\n", line);
}

static int complain_errno(const char *what)
{
	int error = errno;

	complain("%s: %s", what, strerror(error));
	return -error;
}

__u64 now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

static int ms_until(__u64 deadline)
{
	__u64 now = now_ms();

	return now < deadline ? (int)(deadline - now) : 0;
}

static ssize_t read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0)
		return -errno;
	len = read(fd, text, size - 1);
	if (len < 0)
		len = -errno;
	else
		text[len] = 0;
	close(fd);
	return len;
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* "0-3,8" style list: one more than its highest number */
static unsigned int cpu_list_end(const char *path)
{
	char list[4096];
	const char *last;

	if (read_text(path, list, sizeof(list)) <= 0)
		return sysconf(_SC_NPROCESSORS_CONF);
	last = list + strcspn(list, "\n");
	while (last > list && last[-1] >= '0' && last[-1] <= '9')
		last--;
	return strtoul(last, NULL, 10) + 1;
}

unsigned int possible_cpus(void)
{
	return cpu_list_end("/sys/devices/system/cpu/possible");
}

int first_online_cpu(void)
{
	char list[4096];

	if (read_text("/sys/devices/system/cpu/online", list, sizeof(list)) <= 0)
		return 0;
	return strtoul(list, NULL, 10);
}

bool cpu_is_online(unsigned int cpu)
{
	char path[64], value[8];

	/* A CPU that cannot be taken offline has no such file. */
	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/online",
		 cpu);
	if (read_text(path, value, sizeof(value)) > 0)
		return value[0] == '1';
	return cpu < cpu_list_end("/sys/devices/system/cpu/online");
}

const char *ring_tests_impossible(void)
{
	static char reason[160];
	struct io_uring ring;
	char value[16];
	int fd, err;

	if (geteuid())
		return "mounting needs root";

	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		snprintf(reason, sizeof(reason), "/dev/fuse: %s",
			 strerror(errno));
		return reason;
	}
	close(fd);

	err = io_uring_queue_init(4, &ring, IORING_SETUP_SQE128 | RING_FLAGS);
	if (err) {
		snprintf(reason, sizeof(reason), "io_uring_setup: %s",
			 strerror(-err));
		return reason;
	}
	io_uring_queue_exit(&ring);

	if (read_text(ENABLE_URING, value, sizeof(value)) <= 0)
		return "kernel has no fuse io-uring (no " ENABLE_URING ")";
	if (value[0] != 'Y') {
		err = write_text(ENABLE_URING, "Y");
		if (err) {
			snprintf(reason, sizeof(reason),
				 ENABLE_URING " is off and cannot be set: %s",
				 strerror(-err));
			return reason;
		}
		write_text(ENABLE_URING, "N");
	}
	return NULL;
}

bool kernel_has_bufrings(const struct fuse_mount *mount)
{
	return mount->init_flags & FUSE_HAS_IO_URING_BUFRING;
}

/*
 * Mount and connection
 */

static int enter_private_mounts(void)
{
	static bool entered;

	if (entered)
		return 0;
	if (unshare(CLONE_NEWNS))
		return complain_errno("unshare(CLONE_NEWNS)");
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return complain_errno("making mounts private");
	if (mount("fuse_ring_test", "/tmp", "tmpfs", 0, NULL))
		return complain_errno("mounting a tmpfs on /tmp");
	entered = true;
	return 0;
}

static int wait_readable(int fd, const char *what)
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
	const __u32 wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES |
				FUSE_MAX_PAGES | FUSE_INIT_EXT |
				FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS;
	__u32 max_write = options->max_write ?: DEFAULT_MAX_WRITE;
	__u32 page_size = getpagesize();
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
	reply.init.flags = ((wanted & ~options->init_off) | options->init_on) &
			   init->flags;
	if (!options->no_uring)
		reply.init.flags2 = FUSE_OVER_IO_URING >> 32;

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
	if (mount("fuse_ring_test", FUSECTL_DIR, "fusectl", 0, NULL))
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

/* Header between fuse_in_header and the rest, when it all comes in one */
static size_t op_header_size(__u32 opcode)
{
	switch (opcode) {
	case FUSE_GETATTR:
		return sizeof(struct fuse_getattr_in);
	case FUSE_SETATTR:
		return sizeof(struct fuse_setattr_in);
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		return sizeof(struct fuse_open_in);
	case FUSE_READ:
	case FUSE_READDIR:
		return sizeof(struct fuse_read_in);
	case FUSE_WRITE:
		return sizeof(struct fuse_write_in);
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		return sizeof(struct fuse_release_in);
	case FUSE_FLUSH:
		return sizeof(struct fuse_flush_in);
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
		return sizeof(struct fuse_fsync_in);
	case FUSE_ACCESS:
		return sizeof(struct fuse_access_in);
	case FUSE_SETXATTR:
		return FUSE_COMPAT_SETXATTR_IN_SIZE;
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
		return sizeof(struct fuse_getxattr_in);
	case FUSE_IOCTL:
		return sizeof(struct fuse_ioctl_in);
	case FUSE_COPY_FILE_RANGE:
		return sizeof(struct fuse_copy_file_range_in);
	default:
		return 0;
	}
}

static void answer_device_request(struct fuse_mount *mount, char *buffer,
				  size_t len, char *reply, size_t reply_size)
{
	const struct fuse_in_header *in = (void *)buffer;
	struct fuse_out_header *out = (void *)reply;
	struct fuse_call call = {
		.in = in,
		.op = in + 1,
		.reply = out + 1,
		.room = reply_size - sizeof(*out),
	};
	size_t op_size = op_header_size(in->opcode);
	int error = -ENOSYS;

	if (len < sizeof(*in) + op_size) {
		complain("opcode %u on /dev/fuse has only %zu bytes",
			 in->opcode, len);
		return;
	}
	call.data = (const char *)call.op + op_size;
	call.data_len = len - sizeof(*in) - op_size;
	if (mount->answer)
		error = mount->answer(mount->fs, &call);
	out->unique = in->unique;
	out->error = error;
	out->len = sizeof(*out) + (error ? 0 : call.reply_len);
	/* ENOENT: the request was interrupted or aborted meanwhile. */
	if (write(mount->dev_fd, out, out->len) < 0 && errno != ENOENT &&
	    errno != ENODEV)
		complain_errno("answering on /dev/fuse");
}

/*
 * FORGET and INTERRUPT always arrive on /dev/fuse; everything does once
 * io-uring is turned off on the connection.
 */
static void *serve_device(void *arg)
{
	struct fuse_mount *mount = arg;
	size_t size = mount->max_payload + 2 * FUSE_MIN_READ_BUFFER;
	struct pollfd fds[] = {
		{ .fd = mount->dev_fd, .events = POLLIN },
		{ .fd = mount->stop_fd, .events = POLLIN },
	};
	char *buffer = malloc(size);
	char *reply = malloc(size);

	while (buffer && reply) {
		const struct fuse_in_header *in = (void *)buffer;
		ssize_t len;

		/* Changing the user of a process interrupts its threads. */
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (fds[1].revents)
			break;
		len = read(mount->dev_fd, buffer, size);
		if (len < 0) {
			if (errno == EAGAIN || errno == EINTR || errno == ENOENT)
				continue;
			break;	/* unmounted or aborted */
		}
		if (in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET) {
			__atomic_add_fetch(&mount->forgets, 1, __ATOMIC_SEQ_CST);
		} else if (in->opcode == FUSE_INTERRUPT) {
			__atomic_add_fetch(&mount->interrupts, 1,
					   __ATOMIC_SEQ_CST);
		} else {
			__atomic_add_fetch(&mount->device_requests, 1,
					   __ATOMIC_SEQ_CST);
			answer_device_request(mount, buffer, len, reply, size);
		}
	}
	free(buffer);
	free(reply);
	return NULL;
}

/* Joins a thread that has been told to end; one that does not is a bug. */
int join_thread(pthread_t thread, const char *what)
{
	struct timespec deadline;
	int err;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += WAIT_MS / 1000;
	err = pthread_timedjoin_np(thread, NULL, &deadline);
	if (err)
		complain("%s did not end: %s", what, strerror(err));
	return -err;
}

static int start_device_thread(struct fuse_mount *mount)
{
	int err;

	err = pthread_create(&mount->device_thread, NULL, serve_device, mount);
	if (err) {
		complain("pthread_create: %s", strerror(err));
		return -err;
	}
	mount->device_thread_runs = true;
	return 0;
}

/* All threads that serve the mount watch its stop_fd. */
void mount_stop_servers(struct fuse_mount *mount)
{
	const __u64 one = 1;

	if (write(mount->stop_fd, &one, sizeof(one)) < 0)
		complain_errno("stopping the servers");
}

static void stop_device_thread(struct fuse_mount *mount)
{
	if (!mount->device_thread_runs)
		return;
	mount_stop_servers(mount);
	join_thread(mount->device_thread, "the /dev/fuse thread");
	mount->device_thread_runs = false;
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

static int mount_and_init(struct fuse_mount *mount_,
			  const struct mount_options *options)
{
	char data[128];

	snprintf(data, sizeof(data),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other",
		 mount_->dev_fd);
	if (mount("fuse_ring_test", mount_->dir, "fuse", MS_NOSUID | MS_NODEV,
		  data))
		return complain_errno("mount");
	return answer_init(mount_, options);
}

int mount_open(struct fuse_mount *mount, const struct mount_options *options)
{
	static const struct mount_options defaults;
	static unsigned int nr_mounts;
	int err;

	if (!options)
		options = &defaults;
	mount->dev_fd = -1;
	mount->abort_fd = -1;
	mount->stop_fd = -1;
	mount->ring_fd = -1;

	err = enter_private_mounts();
	if (err)
		return err;
	snprintf(mount->dir, sizeof(mount->dir), "/tmp/mount-%u", nr_mounts++);
	if (mkdir(mount->dir, 0755) && errno != EEXIST)
		return complain_errno(mount->dir);

	mount->stop_fd = eventfd(0, EFD_CLOEXEC);
	mount->ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mount->stop_fd < 0 || mount->ring_fd < 0)
		return complain_errno("eventfd");
	mount->dev_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (mount->dev_fd < 0)
		return complain_errno("/dev/fuse");
	err = with_uring_enabled(mount, options, mount_and_init);
	if (!err)
		err = find_connection(mount);
	if (!err)
		err = open_abort_file(mount);
	if (!err && !options->no_device_server)
		err = start_device_thread(mount);
	if (err)
		return err;

	mount->nr_queues = possible_cpus();
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

/*
 * Queues
 */

static int map_region(struct iovec *region, size_t size)
{
	size_t page_size = getpagesize();

	size = (size + page_size - 1) / page_size * page_size;
	region->iov_base = mmap(NULL, size, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (region->iov_base == MAP_FAILED) {
		region->iov_base = NULL;
		return complain_errno("mmap");
	}
	region->iov_len = size;
	return 0;
}

static void unmap_region(struct iovec *region)
{
	if (region->iov_base)
		munmap(region->iov_base, region->iov_len);
	region->iov_base = NULL;
}

static int map_queue_memory(struct ring_queue *queue)
{
	const struct ring_mode *mode = &queue->mode;
	unsigned int pool;
	int err;

	err = map_region(&queue->headers,
			 mode->depth * sizeof(struct fuse_uring_req_header));
	if (err)
		return err;
	if (!(mode->flags & FUSE_URING_BUFRING))
		return map_region(&queue->pool[0], (size_t)mode->depth *
				  queue->mount->max_payload);
	for (pool = 0; pool < mode->nr_pools; pool++) {
		size_t size = (size_t)mode->pool[pool].buf_size *
			      mode->pool[pool].nr;

		err = map_region(&queue->pool[pool], size);
		if (err)
			return err;
		/* Page rounding must not add buffers to what was asked for. */
		queue->pool[pool].iov_len = size;
	}
	return 0;
}

int queue_open_with(struct ring_queue *queue, struct fuse_mount *mount,
		    unsigned int qid, const struct ring_mode *mode,
		    unsigned int ring_flags, int fixed_buffers)
{
	unsigned int entries = mode->depth < 128 ? mode->depth * 2 : 256;
	int err;

	memset(queue, 0, sizeof(*queue));
	queue->mount = mount;
	queue->qid = qid;
	queue->mode = *mode;
	queue->nr_slots = mode->depth;

	queue->slots = calloc(queue->nr_slots, sizeof(*queue->slots));
	queue->arrived = calloc(queue->nr_slots, sizeof(*queue->arrived));
	if (!queue->slots || !queue->arrived)
		return -ENOMEM;

	err = map_queue_memory(queue);
	if (err)
		return err;
	err = io_uring_queue_init(entries, &queue->ring,
				  IORING_SETUP_SQE128 | ring_flags);
	if (err) {
		complain("io_uring_queue_init: %s", strerror(-err));
		return err;
	}
	queue->open = true;
	/* A client must not keep the server's ring alive. */
	io_uring_ring_dontfork(&queue->ring);

	if (fixed_buffers == FIXED_BUFFERS_AS_NEEDED)
		fixed_buffers = mode->flags & FUSE_URING_ZERO_COPY ?
				mode->depth : 0;
	if (fixed_buffers > 0) {
		err = io_uring_register_buffers_sparse(&queue->ring,
						       fixed_buffers);
		if (err)
			complain("registering %d sparse buffers: %s",
				 fixed_buffers, strerror(-err));
	}
	return err;
}

int queue_open(struct fuse_mount *mount, unsigned int qid,
	       const struct ring_mode *mode)
{
	return queue_open_with(&mount->queues[qid], mount, qid, mode,
			       RING_FLAGS, FIXED_BUFFERS_AS_NEEDED);
}

void queue_close(struct ring_queue *queue)
{
	unsigned int pool;

	if (queue->open)
		io_uring_queue_exit(&queue->ring);
	queue->open = false;
	unmap_region(&queue->headers);
	for (pool = 0; pool < FUSE_URING_MAX_POOLS; pool++)
		unmap_region(&queue->pool[pool]);
	free(queue->slots);
	free(queue->arrived);
	queue->slots = NULL;
	queue->arrived = NULL;
	queue->nr_slots = 0;
	queue->nr_arrived = 0;
}

static struct fuse_uring_req_header *slot_header(struct ring_queue *queue,
						 unsigned int slot)
{
	struct fuse_uring_req_header *headers = queue->headers.iov_base;

	return &headers[slot];
}

static void *slot_payload(struct ring_queue *queue, unsigned int slot)
{
	return (char *)queue->pool[0].iov_base +
	       (size_t)slot * queue->mount->max_payload;
}

void queue_fill_register(struct ring_queue *queue, unsigned int slot,
			 struct ring_register *reg)
{
	const struct ring_mode *mode = &queue->mode;
	unsigned int pool;

	memset(reg, 0, sizeof(*reg));
	reg->slot = slot;
	reg->cmd.qid = queue->qid;
	reg->cmd.flags = mode->flags;
	reg->nr_iov = 2;
	if (!(mode->flags & FUSE_URING_BUFRING)) {
		reg->iov[0].iov_base = slot_header(queue, slot);
		reg->iov[0].iov_len = sizeof(struct fuse_uring_req_header);
		reg->iov[1].iov_base = slot_payload(queue, slot);
		reg->iov[1].iov_len = queue->mount->max_payload;
		return;
	}

	reg->cmd.init.max_queue_depth = mode->depth;
	reg->cmd.init.buf_size = mode->pool[0].buf_size;
	reg->cmd.init.nr_extra_pools = mode->nr_pools - 1;
	reg->nr_iov = 1 + mode->nr_pools;
	reg->iov[0] = queue->headers;
	for (pool = 0; pool < mode->nr_pools; pool++) {
		if (pool)
			reg->cmd.init.extra_buf_size[pool - 1] =
				mode->pool[pool].buf_size;
		reg->iov[1 + pool] = queue->pool[pool];
	}
}

static struct io_uring_sqe *get_sqe(struct ring_queue *queue)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->ring);

	if (!sqe) {
		io_uring_submit(&queue->ring);
		sqe = io_uring_get_sqe(&queue->ring);
	}
	if (!sqe) {
		complain("queue %u: no free SQE", queue->qid);
		abort();
	}
	return sqe;
}

static struct fuse_uring_cmd_req *prepare_command(struct ring_queue *queue,
						  unsigned int slot,
						  __u32 cmd_op,
						  __u64 *user_data)
{
	struct io_uring_sqe *sqe = get_sqe(queue);
	struct fuse_uring_cmd_req *cmd = (void *)sqe->cmd;

	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, queue->mount->dev_fd, NULL,
			 0, 0);
	sqe->cmd_op = cmd_op;
	sqe->__pad1 = 0;
	sqe->user_data = make_user_data(CQE_COMMAND, slot);
	*user_data = sqe->user_data;
	/* The SQE is twice 64 bytes; the command area is its last 80. */
	memset(cmd, 0, 80);
	return cmd;
}

/* Finds the buffer that the kernel names in the entry header. */
static void find_payload(struct ring_request *request)
{
	struct ring_queue *queue = request->queue;
	const struct ring_mode *mode = &queue->mode;
	unsigned int pool, id = request->buf_id;

	request->payload = NULL;
	request->room = 0;
	if (!(mode->flags & FUSE_URING_BUFRING)) {
		request->payload = slot_payload(queue, request->slot);
		request->room = queue->mount->max_payload;
		return;
	}
	if (id == FUSE_URING_BUF_NONE)
		return;
	for (pool = 0; pool < mode->nr_pools; pool++) {
		if (id < mode->pool[pool].nr) {
			request->payload = (char *)queue->pool[pool].iov_base +
					   (size_t)id * mode->pool[pool].buf_size;
			request->room = mode->pool[pool].buf_size;
			return;
		}
		id -= mode->pool[pool].nr;
	}
	complain("queue %u slot %u: the kernel names buffer %u, which does not exist",
		 queue->qid, request->slot, request->buf_id);
}

static void request_arrived(struct ring_queue *queue, unsigned int slot)
{
	struct ring_request *request = &queue->slots[slot].request;
	struct fuse_uring_req_header *header = slot_header(queue, slot);
	unsigned int last;

	request->queue = queue;
	request->slot = slot;
	request->header = header;
	memcpy(&request->in, header->in_out, sizeof(request->in));
	request->commit_id = header->ring_ent_in_out.commit_id;
	request->flags = header->ring_ent_in_out.flags;
	request->payload_sz = header->ring_ent_in_out.payload_sz;
	request->buf_id = header->ring_ent_in_out.buf_id;
	request->zero_copy = request->flags & FUSE_URING_ENT_ZERO_COPY;
	find_payload(request);

	queue->slots[slot].state = SLOT_REQUEST;
	queue->slots[slot].linked = false;
	last = (queue->first_arrived + queue->nr_arrived++) % queue->nr_slots;
	queue->arrived[last] = slot;
}

static void handle_cqe(struct ring_queue *queue, __u64 user_data, int result)
{
	unsigned int index = user_data_slot(user_data);
	struct ring_slot *slot;

	if (user_data_kind(user_data) == CQE_STOP) {
		queue->stopped = true;
		return;
	}
	if (index >= queue->nr_slots) {
		complain("queue %u: completion %d for slot %u of %u",
			 queue->qid, result, index, queue->nr_slots);
		return;
	}
	slot = &queue->slots[index];
	if (user_data_kind(user_data) == CQE_TRANSFER) {
		slot->transferring = false;
		slot->transferred = result;
		/* Of a link that breaks only this completion is posted. */
		if (slot->linked) {
			slot->linked = false;
			queue->transfer_failed(&slot->request, result);
		}
	} else if (result < 0) {
		slot->state = SLOT_DEAD;
		slot->error = result;
	} else {
		request_arrived(queue, index);
	}
}

/*
 * Takes all completions. The result of the command @user_data is not
 * handled when it is an error, but returned: that is how it is refused.
 */
static int drain_cqes(struct ring_queue *queue, __u64 user_data)
{
	struct io_uring_cqe *cqe;
	unsigned int head, seen = 0;
	int refused = 0;

	io_uring_for_each_cqe(&queue->ring, head, cqe) {
		if (cqe->user_data == user_data && cqe->res < 0)
			refused = cqe->res;
		else
			handle_cqe(queue, cqe->user_data, cqe->res);
		seen++;
	}
	io_uring_cq_advance(&queue->ring, seen);
	return refused;
}

/*
 * Commands are executed during the submit; one that is refused has its
 * completion there when that returns. No completion: it is pending.
 */
static int send_command(struct ring_queue *queue, unsigned int slot,
			__u64 user_data)
{
	enum slot_state before = SLOT_FREE;
	int refused, n;

	n = io_uring_submit(&queue->ring);
	if (n < 1) {
		complain("queue %u: io_uring_submit: %d", queue->qid, n);
		return n < 0 ? n : -EIO;
	}
	if (slot < queue->nr_slots) {
		before = queue->slots[slot].state;
		queue->slots[slot].state = SLOT_AVAILABLE;
	}
	refused = drain_cqes(queue, user_data);
	/* A refused command changes nothing for an entry that is there. */
	if (refused && slot < queue->nr_slots &&
	    queue->slots[slot].state == SLOT_AVAILABLE)
		queue->slots[slot].state = before;
	return refused;
}

int queue_send_register(struct ring_queue *queue,
			const struct ring_register *reg)
{
	struct fuse_uring_cmd_req *cmd;
	struct io_uring_sqe *sqe;
	__u64 user_data;

	cmd = prepare_command(queue, reg->slot, FUSE_IO_URING_CMD_REGISTER,
			      &user_data);
	sqe = (void *)((char *)cmd - offsetof(struct io_uring_sqe, cmd));
	sqe->addr = (uintptr_t)(reg->iovec ?: reg->iov);
	sqe->len = reg->nr_iov;
	sqe->buf_index = reg->slot;
	sqe->uring_cmd_flags = reg->uring_cmd_flags;
	*cmd = reg->cmd;
	return send_command(queue, reg->slot, user_data);
}

int queue_register(struct ring_queue *queue, unsigned int slot)
{
	struct ring_register reg;

	queue_fill_register(queue, slot, &reg);
	return queue_send_register(queue, &reg);
}

int queue_register_all(struct ring_queue *queue)
{
	unsigned int slot;
	int err;

	for (slot = 0; slot < queue->mode.depth; slot++) {
		err = queue_register(queue, slot);
		if (err) {
			complain("queue %u slot %u: REGISTER with flags %#llx: %s",
				 queue->qid, slot,
				 (unsigned long long)queue->mode.flags,
				 strerror(-err));
			return err;
		}
	}
	return 0;
}

int mount_serve_in_steps(struct fuse_mount *mount, const struct ring_mode *mode)
{
	unsigned int qid;
	int err;

	for (qid = 0; qid < mount->nr_queues; qid++) {
		err = queue_open(mount, qid, mode);
		if (!err)
			err = queue_register_all(&mount->queues[qid]);
		if (err)
			return err;
	}
	return 0;
}

void queue_describe(const struct ring_queue *queue)
{
	static const char * const names[] = {
		"free", "available", "with the server", "dead",
	};
	unsigned int count[4] = {};
	unsigned int slot;

	for (slot = 0; slot < queue->nr_slots; slot++)
		count[queue->slots[slot].state]++;
	for (slot = 0; slot < 4; slot++)
		if (count[slot])
			complain("queue %u: %u slots %s", queue->qid,
				 count[slot], names[slot]);
	for (slot = 0; slot < queue->nr_slots; slot++)
		if (queue->slots[slot].state == SLOT_REQUEST)
			complain("queue %u slot %u: opcode %u, commit id %llu, buffer %u",
				 queue->qid, slot,
				 queue->slots[slot].request.in.opcode,
				 (unsigned long long)
				 queue->slots[slot].request.commit_id,
				 queue->slots[slot].request.buf_id);
}

int queue_reap(struct ring_queue *queue, int ms)
{
	struct __kernel_timespec timeout = {
		.tv_sec = ms / 1000,
		.tv_nsec = ms % 1000 * 1000000LL,
	};
	struct io_uring_cqe *cqe;
	int n;

	if (ms < 0)
		n = io_uring_submit_and_wait(&queue->ring, 1);
	else if (ms == 0)
		n = io_uring_submit_and_get_events(&queue->ring);
	else
		n = io_uring_submit_and_wait_timeout(&queue->ring, &cqe, 1,
						     &timeout, NULL);
	drain_cqes(queue, 0);
	return n < 0 && n != -ETIME && n != -EINTR ? n : 0;
}

void queue_poll_stop(struct ring_queue *queue)
{
	struct io_uring_sqe *sqe = get_sqe(queue);

	io_uring_prep_poll_add(sqe, queue->mount->stop_fd, POLLIN);
	sqe->user_data = make_user_data(CQE_STOP, 0);
}

bool queue_take(struct ring_queue *queue, struct ring_request *request)
{
	unsigned int slot;

	if (!queue->nr_arrived)
		return false;
	slot = queue->arrived[queue->first_arrived];
	queue->first_arrived = (queue->first_arrived + 1) % queue->nr_slots;
	queue->nr_arrived--;
	*request = queue->slots[slot].request;
	return true;
}

int queue_wait(struct ring_queue *queue, struct ring_request *request, int ms)
{
	__u64 deadline = now_ms() + ms;
	int err;

	while (!queue_take(queue, request)) {
		int left = ms_until(deadline);

		err = queue_reap(queue, left);
		if (err)
			return err;
		if (!left && !queue->nr_arrived)
			return -ETIMEDOUT;
	}
	return 0;
}

/* Takes the oldest request of any queue; -EAGAIN if there is none. */
static int mount_take(struct fuse_mount *mount, struct ring_request *request)
{
	unsigned int qid;
	int err;

	for (qid = 0; qid < mount->nr_queues; qid++) {
		struct ring_queue *queue = &mount->queues[qid];

		if (!queue->open)
			continue;
		/* poll() on the ring itself does not see deferred task work. */
		if (!queue->signals) {
			err = io_uring_register_eventfd(&queue->ring,
							mount->ring_fd);
			if (err)
				return err;
			queue->signals = true;
		}
		err = queue_reap(queue, 0);
		if (err)
			return err;
		if (queue_take(queue, request))
			return 0;
	}
	return -EAGAIN;
}

/* @other_fd ends the wait with -ENODATA. */
static int mount_wait_or(struct fuse_mount *mount,
			 struct ring_request *request, int ms, int other_fd)
{
	struct pollfd fds[] = {
		{ .fd = mount->ring_fd, .events = POLLIN },
		{ .fd = other_fd, .events = POLLIN },
	};
	__u64 deadline = now_ms() + ms;
	eventfd_t events;
	int left, err;

	for (;;) {
		/* Cleared first: what comes from here on sets it again. */
		eventfd_read(mount->ring_fd, &events);
		err = mount_take(mount, request);
		if (err != -EAGAIN)
			return err;
		left = ms_until(deadline);
		if (!left)
			return -ETIMEDOUT;
		if (poll(fds, 2, left) < 0 && errno != EINTR)
			return complain_errno("poll");
		if (fds[1].revents)
			return -ENODATA;
	}
}

int mount_wait(struct fuse_mount *mount, struct ring_request *request, int ms)
{
	return mount_wait_or(mount, request, ms, -1);
}

int mount_expect_silence(struct fuse_mount *mount)
{
	struct ring_request request;
	int err = mount_wait(mount, &request, SILENCE_MS);

	if (err == -ETIMEDOUT)
		return 0;
	if (!err)
		complain("queue %u slot %u: unexpected opcode %u, buffer %u",
			 request.queue->qid, request.slot, request.in.opcode,
			 request.buf_id);
	return err ?: -EEXIST;
}

int mount_wait_for(struct fuse_mount *mount, __u32 opcode,
		   struct ring_request *request)
{
	__u64 deadline = now_ms() + WAIT_MS;
	unsigned int qid;
	int err;

	for (;;) {
		err = mount_wait(mount, request, ms_until(deadline));
		if (err || request->in.opcode == opcode)
			break;
		err = request_answer(request);
		if (err)
			break;
	}
	if (err) {
		complain("waiting for opcode %u: %s", opcode, strerror(-err));
		for (qid = 0; qid < mount->nr_queues; qid++)
			queue_describe(&mount->queues[qid]);
	}
	return err;
}

int queue_wait_all_dead(struct ring_queue *queue)
{
	__u64 deadline = now_ms() + WAIT_MS;
	unsigned int slot = 0;
	int left, err;

	while (slot < queue->nr_slots) {
		if (queue->slots[slot].state != SLOT_AVAILABLE) {
			slot++;
			continue;
		}
		left = ms_until(deadline);
		if (!left) {
			complain("entries were not given back");
			queue_describe(queue);
			return -ETIMEDOUT;
		}
		err = queue_reap(queue, left);
		if (err)
			return err;
	}
	return 0;
}

/*
 * Replies
 */

void request_fill_reply(struct ring_request *request, int error,
			const void *data, size_t len)
{
	struct fuse_out_header out = {
		.len = sizeof(out) + len,
		.error = error,
		.unique = request->in.unique,
	};

	if (data && len && data != request->payload)
		memcpy(request->payload, data, len);
	memcpy(request->header->in_out, &out, sizeof(out));
	request->header->ring_ent_in_out.payload_sz = len;
}

void queue_prepare_commit(struct ring_queue *queue, unsigned int slot,
			  unsigned int qid, __u64 commit_id)
{
	struct fuse_uring_cmd_req *cmd;
	__u64 user_data;

	cmd = prepare_command(queue, slot, FUSE_IO_URING_CMD_COMMIT_AND_FETCH,
			      &user_data);
	cmd->qid = qid;
	cmd->commit_id = commit_id;
	if (slot < queue->nr_slots)
		queue->slots[slot].state = SLOT_AVAILABLE;
}

int queue_send_commit(struct ring_queue *queue, unsigned int slot,
		      unsigned int qid, __u64 commit_id)
{
	struct fuse_uring_cmd_req *cmd;
	__u64 user_data;

	cmd = prepare_command(queue, slot, FUSE_IO_URING_CMD_COMMIT_AND_FETCH,
			      &user_data);
	cmd->qid = qid;
	cmd->commit_id = commit_id;
	return send_command(queue, slot, user_data);
}

int request_reply(struct ring_request *request, int error, const void *data,
		  size_t len)
{
	if (data && len > request->room) {
		complain("queue %u slot %u: a reply of %zu bytes for a buffer of %zu",
			 request->queue->qid, request->slot, len, request->room);
		return -EOVERFLOW;
	}
	request_fill_reply(request, error, data, len);
	return queue_send_commit(request->queue, request->slot,
				 request->queue->qid, request->commit_id);
}

static struct io_uring_sqe *
request_prepare_transfer(struct ring_request *request, __u64 from, int fd,
			 __u64 offset, size_t len)
{
	struct ring_slot *slot = &request->queue->slots[request->slot];
	struct io_uring_sqe *sqe = get_sqe(request->queue);

	if (request->in.opcode == FUSE_READ)
		io_uring_prep_read_fixed(sqe, fd, NULL, len, offset,
					 request->slot);
	else
		io_uring_prep_write_fixed(sqe, fd, NULL, len, offset,
					  request->slot);
	/* The client's pages start at address 0 of the fixed buffer. */
	sqe->addr = from;
	sqe->user_data = make_user_data(CQE_TRANSFER, request->slot);
	slot->transferring = true;
	return sqe;
}

void request_prepare_transfer_and_commit(struct ring_request *request, int fd,
					 __u64 offset, size_t len)
{
	struct ring_queue *queue = request->queue;
	struct io_uring_sqe *sqe;

	/* Linked commands must be submitted together. */
	if (io_uring_sq_space_left(&queue->ring) < 2)
		io_uring_submit(&queue->ring);
	sqe = request_prepare_transfer(request, 0, fd, offset, len);
	sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
	queue_prepare_commit(queue, request->slot, queue->qid,
			     request->commit_id);
	queue->slots[request->slot].linked = true;
}

int request_transfer(struct ring_request *request, int fd, __u64 offset,
		     size_t len)
{
	return request_transfer_at(request, 0, fd, offset, len);
}

int request_transfer_at(struct ring_request *request, __u64 from, int fd,
			__u64 offset, size_t len)
{
	struct ring_slot *slot = &request->queue->slots[request->slot];
	__u64 deadline = now_ms() + WAIT_MS;
	int left, err;

	request_prepare_transfer(request, from, fd, offset, len);
	while (slot->transferring) {
		left = ms_until(deadline);
		err = queue_reap(request->queue, left);
		if (err)
			return err;
		if (!left && slot->transferring) {
			complain("queue %u slot %u: the data transfer did not end",
				 request->queue->qid, request->slot);
			return -ETIMEDOUT;
		}
	}
	return slot->transferred;
}

void request_fill_call(struct ring_request *request, struct fuse_call *call)
{
	*call = (struct fuse_call) {
		.in = &request->in,
		.op = request->header->op_in,
		.data = request->payload,
		.data_len = request->payload_sz,
		.reply = request->payload,
		.room = request->room,
		.zero_copy = request->zero_copy,
		.transfer_fd = -1,
	};
}

void request_fill_transferred(struct ring_request *request, int result)
{
	struct fuse_write_out *out = request->payload;

	if (result < 0) {
		request_fill_reply(request, result, NULL, 0);
	} else if (request->in.opcode == FUSE_READ) {
		request_fill_reply(request, 0, NULL, result);
	} else {
		*out = (struct fuse_write_out) { .size = result };
		request_fill_reply(request, 0, out, sizeof(*out));
	}
}

int request_answer(struct ring_request *request)
{
	struct fuse_mount *mount = request->queue->mount;
	struct fuse_call call;
	int error, result;

	request_fill_call(request, &call);
	error = mount->answer(mount->fs, &call);
	if (!error && call.transfer_fd >= 0) {
		result = request_transfer(request, call.transfer_fd,
					  call.transfer_offset,
					  call.transfer_len);
		request_fill_transferred(request, result);
	} else {
		request_fill_reply(request, error, NULL,
				   error ? 0 : call.reply_len);
	}
	return queue_send_commit(request->queue, request->slot,
				 request->queue->qid, request->commit_id);
}

/*
 * Clients
 */

enum child_kind {
	CHILD_CLIENT,
	CHILD_SERVER,
};

static void enter_client(int result_fd, int cpu)
{
	cpu_set_t cpus;

	/* The server's descriptors would keep its files alive here. */
	dup2(result_fd, STDIN_FILENO);
	syscall(__NR_close_range, STDERR_FILENO + 1, ~0U, 0);

	if (cpu != ANY_CPU) {
		CPU_ZERO(&cpus);
		CPU_SET(cpu, &cpus);
		if (sched_setaffinity(0, sizeof(cpus), &cpus))
			complain_errno("sched_setaffinity");
	}
}

static void run_child(enum child_kind kind, int result_fd, int cpu,
		      long (*call)(void *arg), void *arg)
{
	const char ready = 'r';
	long result;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (kind == CHILD_CLIENT) {
		enter_client(result_fd, cpu);
		result_fd = STDIN_FILENO;
	}
	if (write(result_fd, &ready, 1) != 1)
		_exit(1);
	result = call(arg);
	if (write(result_fd, &result, sizeof(result)) != sizeof(result))
		_exit(1);
	while (kind == CHILD_SERVER)
		pause();
	_exit(0);
}

static int start_child(struct client *client, enum child_kind kind, int cpu,
		       long (*call)(void *arg), void *arg)
{
	int fds[2];
	char ready;
	int err;

	if (pipe2(fds, O_CLOEXEC))
		return complain_errno("pipe2");
	fflush(NULL);
	client->pid = fork();
	if (client->pid < 0)
		return complain_errno("fork");
	if (!client->pid)
		run_child(kind, fds[1], cpu, call, arg);
	close(fds[1]);
	client->result_fd = fds[0];
	client->pidfd = syscall(__NR_pidfd_open, client->pid, 0);
	if (client->pidfd < 0)
		return complain_errno("pidfd_open");
	err = wait_readable(client->result_fd, "starting a child");
	if (!err && read(client->result_fd, &ready, 1) != 1)
		err = -EPIPE;
	return err;
}

int client_start(struct client *client, int cpu, long (*call)(void *arg),
		 void *arg)
{
	return start_child(client, CHILD_CLIENT, cpu, call, arg);
}

int server_start(struct client *server, long (*call)(void *arg), void *arg)
{
	return start_child(server, CHILD_SERVER, ANY_CPU, call, arg);
}

static void client_forget(struct client *client)
{
	waitpid(client->pid, NULL, 0);
	close(client->pidfd);
	close(client->result_fd);
	client->pid = 0;
}

bool client_runs(const struct client *client)
{
	struct pollfd pollfd = { .fd = client->pidfd, .events = POLLIN };

	return poll(&pollfd, 1, 0) == 0;
}

/* End of file instead of a result: it was killed. */
static long read_result(struct client *client)
{
	long result;

	if (read(client->result_fd, &result, sizeof(result)) != sizeof(result))
		return -EPIPE;
	return result;
}

/* Not over when it has its result: its exit may close files, for one. */
long client_wait(struct client *client, int ms)
{
	struct pollfd pollfd = { .fd = client->pidfd, .events = POLLIN };
	long result;

	if (poll(&pollfd, 1, ms) < 1) {
		complain("a client did not finish its call within %d ms", ms);
		return -ETIMEDOUT;
	}
	result = read_result(client);
	client_forget(client);
	return result;
}

long server_result(struct client *server)
{
	int err = wait_readable(server->result_fd, "waiting for a server");

	return err ?: read_result(server);
}

int server_kill(struct client *server)
{
	struct pollfd pollfd = { .fd = server->pidfd, .events = POLLIN };

	kill(server->pid, SIGKILL);
	if (poll(&pollfd, 1, WAIT_MS) < 1) {
		complain("a killed process is still there after %d ms", WAIT_MS);
		return -ETIMEDOUT;
	}
	client_forget(server);
	return 0;
}

long client_call(long (*call)(void *arg), void *arg)
{
	struct client client;
	int err = client_start(&client, ANY_CPU, call, arg);

	return err ?: client_wait(&client, 2 * WAIT_MS);
}

/* Answers all requests until @fd is readable. */
static void serve_until(struct fuse_mount *mount, int fd)
{
	struct ring_request request;
	int err;

	do {
		err = mount_wait_or(mount, &request, WAIT_MS, fd);
		if (!err)
			err = request_answer(&request);
	} while (!err);
	if (err != -ENODATA)
		complain("serving a client: %s", strerror(-err));
}

long client_wait_served(struct fuse_mount *mount, struct client *client)
{
	serve_until(mount, client->pidfd);
	return client_wait(client, WAIT_MS);
}

long server_result_served(struct fuse_mount *mount, struct client *server)
{
	serve_until(mount, server->result_fd);
	return server_result(server);
}

long client_call_served(struct fuse_mount *mount, int cpu,
			long (*call)(void *arg), void *arg)
{
	struct client client;
	int err = client_start(&client, cpu, call, arg);

	return err ?: client_wait_served(mount, &client);
}

static long look_at_root(void *arg)
{
	struct stat st;

	if (stat(arg, &st))
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

long mount_works(struct fuse_mount *mount)
{
	return client_call_served(mount, ANY_CPU, look_at_root, mount->dir);
}

void client_kill(struct client *client, int signal)
{
	kill(client->pid, signal);
}

/*
 * Memory lock accounting
 */

long pinned_kib(pid_t pid)
{
	char path[32], status[4096];
	const char *line;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (read_text(path, status, sizeof(status)) <= 0)
		return -1;
	line = strstr(status, "\nVmPin:");
	return line ? strtol(line + strlen("\nVmPin:"), NULL, 10) : -1;
}

int wait_until_pinned_by_is(pid_t pid, long kib)
{
	__u64 deadline = now_ms() + WAIT_MS;
	const struct timespec pause = { .tv_nsec = 1000000 };

	while (pinned_kib(pid) != kib) {
		if (!ms_until(deadline)) {
			complain("VmPin stays at %ld KiB, expected %ld",
				 pinned_kib(pid), kib);
			return -ETIMEDOUT;
		}
		nanosleep(&pause, NULL);
	}
	return 0;
}

int wait_until_pinned_is(long kib)
{
	return wait_until_pinned_by_is(getpid(), kib);
}

int set_memlock(unsigned long bytes)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return complain_errno("getrlimit(RLIMIT_MEMLOCK)");
	limit.rlim_cur = bytes;
	if (limit.rlim_max < limit.rlim_cur)
		limit.rlim_max = limit.rlim_cur;
	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		return complain_errno("setrlimit(RLIMIT_MEMLOCK)");
	return 0;
}

uid_t test_user(void)
{
	static uid_t uid;

	if (!uid)
		uid = 100000 + getpid();
	return uid;
}

int become_user_with_memlock(unsigned long bytes)
{
	const struct rlimit limit = { bytes, RLIM_INFINITY };
	const uid_t uid = test_user();

	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		return complain_errno("setrlimit(RLIMIT_MEMLOCK)");
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) ||
	    setresuid(uid, uid, uid))
		return complain_errno("becoming an unprivileged user");
	return 0;
}

int drop_capability(unsigned int capability)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];
	__u32 bit = 1U << capability % 32;

	if (syscall(__NR_capget, &header, data))
		return complain_errno("capget");
	data[capability / 32].effective &= ~bit;
	data[capability / 32].permitted &= ~bit;
	if (syscall(__NR_capset, &header, data))
		return complain_errno("capset");
	return 0;
}
