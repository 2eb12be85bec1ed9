// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests: loop devices.
 */
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "loop.h"

#define LOOP_CONTROL "/dev/loop-control"

const char *loop_impossible(void)
{
	if (access(LOOP_CONTROL, R_OK | W_OK))
		return "no loop devices (" LOOP_CONTROL ")";
	return NULL;
}

int loop_open(const char *path, unsigned int block_size, int open_flags,
	      char name[LOOP_NAME_SIZE])
{
	struct loop_config config = {
		.block_size = block_size,
		.info.lo_flags = LO_FLAGS_DIRECT_IO | LO_FLAGS_AUTOCLEAR,
	};
	int control = open(LOOP_CONTROL, O_RDWR | O_CLOEXEC);
	int number, fd, backing, err = 0;

	if (control < 0)
		return -errno;
	number = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	if (number < 0)
		return -errno;
	snprintf(name, LOOP_NAME_SIZE, "/dev/loop%d", number);
	fd = open(name, O_RDWR | O_CLOEXEC | open_flags);
	if (fd < 0)
		return -errno;
	backing = open(path, O_RDWR | O_CLOEXEC);
	config.fd = backing;
	if (backing < 0 || ioctl(fd, LOOP_CONFIGURE, &config) ||
	    ioctl(fd, LOOP_GET_STATUS64, &config.info))
		err = -errno;
	else if (!(config.info.lo_flags & LO_FLAGS_DIRECT_IO))
		err = -EOPNOTSUPP;
	if (backing >= 0)
		close(backing);
	if (!err)
		return fd;
	close(fd);
	return err;
}
