/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * Options of the library as one argument of a small test server
 */
#ifndef FUSE_RING_TEST_OPTIONS_H
#define FUSE_RING_TEST_OPTIONS_H

#include <stdbool.h>
#include <string.h>

#include "fuse_ring.h"

/* "ring=pinned,ring_depth=4" -> whether all of it makes sense */
static inline bool read_options(struct fuse_ring_options *options, char *list)
{
	char *option;

	while ((option = strsep(&list, ",")))
		if (fuse_ring_option_parse(options, option) != 1)
			return false;
	return true;
}

#endif
