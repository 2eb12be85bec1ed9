// SPDX-License-Identifier: GPL-2.0
/*
 * The layout as a 32-bit server sees it. Only compiled, with -m32 and without
 * a C library, so that no 32-bit packages are needed: where a number is not
 * right, an array has a negative size.
 */
#include <stddef.h>
#include <linux/types.h>

#include "uapi_compat.h"

#define LAYOUT(actual, number) \
	((void)sizeof(char[(actual) == (number) ? 1 : -1]))

void uapi_layout_of_32_bits(void)
{
	struct fuse_uring_bufring_ent ent;
	struct fuse_uring_bufring_req cmd;

#include "uapi_layout.h"
}
