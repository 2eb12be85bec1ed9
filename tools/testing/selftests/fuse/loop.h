/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Loop devices with direct I/O: what they send to the file below them is in
 * memory of the kernel.
 */
#ifndef FUSE_TEST_LOOP_H
#define FUSE_TEST_LOOP_H

#include "fixture.h"

#define LOOP_NAME_SIZE 32

/* NULL if they can be used here, else the reason for a SKIP */
const char *loop_impossible(void);
/*
 * One on the file of that path, which goes when its last descriptor does. Its
 * name is told, and a descriptor returned, opened with O_RDWR and @open_flags;
 * -EOPNOTSUPP if there is no direct I/O.
 */
int loop_open(const char *path, unsigned int block_size, int open_flags,
	      char name[LOOP_NAME_SIZE]);

#endif
