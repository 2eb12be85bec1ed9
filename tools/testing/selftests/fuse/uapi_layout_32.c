// SPDX-License-Identifier: GPL-2.0
/*
 * The layout as a 32-bit server sees it. Only compiled, with -m32 and without
 * a C library, so that no 32-bit packages are needed.
 */
#include <stddef.h>
#include <linux/types.h>
#include <linux/fuse.h>

#define SIZE_OF_MEMBER(type, member) sizeof(((type *)0)->member)
#define LAYOUT(actual, number) \
	_Static_assert((actual) == (number), #actual " is not " #number);

#include "uapi_layout.h"
