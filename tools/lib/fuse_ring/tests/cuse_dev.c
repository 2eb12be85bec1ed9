// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * cuse_dev NAME: a character device /dev/NAME that says "device" to who reads it.
 * It knows nothing of the library under test.
 */
#define FUSE_USE_VERSION 312

#include <cuse_lowlevel.h>
#include <fuse_opt.h>
#include <stdio.h>

static void dev_open(fuse_req_t req, struct fuse_file_info *fi)
{
	fuse_reply_open(req, fi);
}

static void dev_read(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi)
{
	static const char text[] = "device\n";
	size_t len = sizeof(text) - 1;

	(void)fi;
	fuse_reply_buf(req, text, off ? 0 : size < len ? size : len);
}

static const struct cuse_lowlevel_ops operations = {
	.open = dev_open,
	.read = dev_read,
};

int main(int argc, char **argv)
{
	char name[64], *run[] = { argv[0], "-f", NULL };
	const char *what = name;
	struct cuse_info info = { .dev_info_argc = 1, .dev_info_argv = &what };

	if (argc != 2)
		return 2;
	snprintf(name, sizeof(name), "DEVNAME=%s", argv[1]);
	return cuse_lowlevel_main(2, run, &info, &operations, NULL);
}
