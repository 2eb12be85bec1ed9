/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of payload buffers share: a mount that a test serves with as
 * many buffers as it wants to. A program adds the variants that make sense for it.
 */
#ifndef FUSE_BUFFERS_FIXTURE_H
#define FUSE_BUFFERS_FIXTURE_H

#include "kselftest_harness.h"
#include "call.h"
#include "test_fs.h"
#include "variants.h"

#define MIB (1024 * 1024)
#define FILE_SIZE (2 * MIB)

static const struct queue_mode three_buffers = {
	.depth = 4, .nr_pools = 1, .pool = { { MIB, 3 } },
};

FIXTURE(buffers)
{
	struct fuse_mount mount;
	struct test_fs fs;
	int cpu;
};

FIXTURE_VARIANT(buffers)
{
	struct queue_mode mode;
};

FIXTURE_SETUP(buffers)
{
	struct queue_mode mode = mode_with(&variant->mode, &three_buffers);
	const char *impossible;
	int err;

	impossible = test_fs_begin(&self->fs, &self->mount, FILE_SIZE, NULL,
				   &mode, &err);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, err);
	self->cpu = first_usable_cpu();
}

FIXTURE_TEARDOWN(buffers)
{
	EXPECT_EQ(0, test_fs_end(&self->fs, &self->mount));
}

/* All queues, as the variant says, with the buffers of @mode */
static inline int serve(struct fuse_mount *mount, const struct queue_mode *how,
			const struct queue_mode *mode)
{
	const struct queue_mode all = mode_with(how, mode);

	return mount_serve_in_steps(mount, &all);
}

#endif
