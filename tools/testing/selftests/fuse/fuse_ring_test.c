// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests, see fuse_ring_test.h: diagnostics, and
 * what the system it runs on can do.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fuse_ring_internal.h"

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
