// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests, see fixture.h: diagnostics, and
 * what the system it runs on can do.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "fixture_internal.h"

#define FUSE_CTL_SUPER_MAGIC 0x65735543
#define NO_ZERO_COPY "zero-copy needs CAP_SYS_ADMIN"

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

int complain_errno(const char *what)
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

int ms_until(__u64 deadline)
{
	__u64 now = now_ms();

	return now < deadline ? (int)(deadline - now) : 0;
}

int wait_for_count(const unsigned int *counter, unsigned int count)
{
	const struct timespec pause = { .tv_nsec = 200000 };
	__u64 deadline = now_ms() + WAIT_MS;

	while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) < count) {
		if (!ms_until(deadline)) {
			complain("counted only to %u of %u within %d ms",
				 *counter, count, WAIT_MS);
			return -ETIMEDOUT;
		}
		nanosleep(&pause, NULL);
	}
	return 0;
}

ssize_t read_text(const char *path, char *text, size_t size)
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

int write_text(const char *path, const char *text)
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

bool cpu_is_usable(unsigned int cpu)
{
	cpu_set_t cpus;

	return !sched_getaffinity(0, sizeof(cpus), &cpus) &&
	       cpu < CPU_SETSIZE && CPU_ISSET(cpu, &cpus);
}

int first_usable_cpu(void)
{
	unsigned int cpu = 0;

	while (!cpu_is_usable(cpu) && cpu < CPU_SETSIZE)
		cpu++;
	return cpu;
}

static bool fusectl_is_mounted(void)
{
	struct statfs fs;

	return !statfs(FUSECTL_DIR, &fs) && fs.f_type == FUSE_CTL_SUPER_MAGIC;
}

const char *ring_tests_impossible(void)
{
	static char reason[160];
	struct io_uring ring;
	char value[16];
	int fd, err;

	err = prepare_mounts();
	if (err && !has_privilege(CAP_SYS_ADMIN)) {
		snprintf(reason, sizeof(reason),
			 "mounting needs CAP_SYS_ADMIN, a user namespace (%s) or fusermount3",
			 strerror(-err));
		return reason;
	}
	if (!has_privilege(CAP_SYS_ADMIN) && !fusectl_is_mounted())
		return "no fusectl on " FUSECTL_DIR ", and mounting it needs CAP_SYS_ADMIN";

	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		snprintf(reason, sizeof(reason), "/dev/fuse: %s",
			 strerror(errno));
		return reason;
	}
	close(fd);

	err = io_uring_queue_init(4, &ring, IORING_SETUP_SQE128 | RING_FLAGS);
	if (err) {
		snprintf(reason, sizeof(reason), "io_uring_setup: %s%s",
			 strerror(-err),
			 err == -EPERM ? " (kernel.io_uring_disabled)" : "");
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

/*
 * Whether a user who has @used bytes locked can lock a page more, that is:
 * whether the user has no more than @used locked. Nothing tells directly.
 */
static bool locked_at_most(struct io_uring *ring, struct iovec *page,
			   size_t used, const struct rlimit *own)
{
	const struct rlimit limit = {
		.rlim_cur = used + page->iov_len, .rlim_max = own->rlim_max,
	};
	bool fits = false;

	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		return false;
	if (!io_uring_register_buffers(ring, page, 1)) {
		io_uring_unregister_buffers(ring);
		fits = true;
	}
	return fits;
}

/*
 * Waits until the user has that much left of RLIMIT_MEMLOCK: the ring of a test
 * before this one may be about to go.
 */
static bool wait_until_lockable(size_t bytes, const struct rlimit *own)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	__u64 deadline = now_ms() + WAIT_MS / 2;
	struct iovec page = { .iov_len = getpagesize() };
	struct io_uring ring;
	bool fits = false;

	page.iov_base = mmap(NULL, page.iov_len, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page.iov_base == MAP_FAILED)
		return false;
	if (!io_uring_queue_init(1, &ring, 0)) {
		while (!fits) {
			fits = locked_at_most(&ring, &page,
					      own->rlim_max - bytes, own);
			if (!ms_until(deadline))
				break;
			if (!fits)
				nanosleep(&pause, NULL);
		}
		io_uring_queue_exit(&ring);
	}
	munmap(page.iov_base, page.iov_len);
	return fits;
}

static const char *locking_impossible(size_t bytes)
{
	static char reason[160];
	struct rlimit limit;
	bool fits;

	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return "getrlimit(RLIMIT_MEMLOCK) fails";
	limit.rlim_cur = limit.rlim_max;
	if (limit.rlim_max != RLIM_INFINITY) {
		fits = bytes < limit.rlim_max &&
		       wait_until_lockable(bytes, &limit);
		if (!fits) {
			snprintf(reason, sizeof(reason),
				 "needs CAP_IPC_LOCK, or %zu KiB left of RLIMIT_MEMLOCK (%llu KiB)",
				 bytes / 1024,
				 (unsigned long long)limit.rlim_max / 1024);
			return reason;
		}
	}
	return setrlimit(RLIMIT_MEMLOCK, &limit) ?
	       "setrlimit(RLIMIT_MEMLOCK) fails" : NULL;
}

const char *exact_memlock_impossible(void)
{
	struct rlimit limit;

	if (has_privilege(CAP_SETUID))
		return NULL;
	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return "getrlimit(RLIMIT_MEMLOCK) fails";
	if (!wait_until_lockable(limit.rlim_max, &limit))
		return "needs CAP_SETUID: this user has other memory locked";
	return setrlimit(RLIMIT_MEMLOCK, &limit) ?
	       "setrlimit(RLIMIT_MEMLOCK) fails" : NULL;
}

const char *flags_impossible(const struct fuse_mount *mount, __u64 flags)
{
	if (flags && !kernel_has_bufrings(mount))
		return NO_BUFRINGS;
	if (flags & FUSE_URING_REGISTER_ZERO_COPY && !has_privilege(CAP_SYS_ADMIN))
		return NO_ZERO_COPY;
	return NULL;
}

const char *mode_impossible(const struct fuse_mount *mount,
			    const struct queue_mode *mode)
{
	const char *reason = flags_impossible(mount, mode->flags);
	size_t locked = mode_pinned_bytes(mount, mode);

	if (mode->bufpool && !kernel_has_bufpools(mount))
		return NO_BUFPOOLS;
	if (mode->bufpool & BUFPOOL_SIZES && !kernel_has_bufpool_sizes())
		return NO_BUFPOOL_SIZES;
	if (mode->bufpool & BUFPOOL_ZERO_COPY && !has_privilege(CAP_SYS_ADMIN))
		return NO_ZERO_COPY;
	if (reason || !locked || has_privilege(CAP_IPC_LOCK))
		return reason;
	return locking_impossible(mount->nr_queues * locked);
}

bool kernel_has_bufrings(const struct fuse_mount *mount)
{
	return mount->init_flags & FUSE_HAS_IO_URING_BUFRING;
}

bool kernel_has_bufpools(const struct fuse_mount *mount)
{
	return mount->init_flags & FUSE_HAS_IO_URING_BUFPOOL;
}

/* By asking, on a mount of its own: no INIT bit tells. */
bool kernel_has_bufpool_sizes(void)
{
	static const struct queue_mode mode = {
		.bufpool = BUFPOOL | BUFPOOL_SIZES, .depth = 1, .nr_pools = 1,
		.pool = { { 4096, 1 } },
	};
	struct fuse_mount mount = { .dev_fd = -1 };
	int err = mount_open(&mount, NULL);

	if (!err)
		err = queue_open(&mount, 0, &mode);
	if (!err)
		err = queue_add(&mount.queues[0]);
	mount_close(&mount);
	return !err;
}

bool kernel_has_huge_pages(void)
{
	char modes[64] = "";
	FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");

	if (file) {
		if (!fgets(modes, sizeof(modes), file))
			modes[0] = '\0';
		fclose(file);
	}
	return modes[0] && !strstr(modes, "[never]");
}

const char *dangerous_impossible(void)
{
	const char *allowed = getenv("FUSE_DANGEROUS_TESTS");

	if (allowed && !strcmp(allowed, "1"))
		return NULL;
	return "can take down a kernel without the fix: FUSE_DANGEROUS_TESTS=1 runs it";
}
