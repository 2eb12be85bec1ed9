/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The ways to set up a queue, as variants of a fixture. A program picks those
 * that make sense for it; what follows the name completes the mode. The fixture
 * has a variant with a member "struct queue_mode mode".
 *
 *	FIXTURE_VARIANT(reads) { struct queue_mode mode; };
 *
 *	ADD_VARIANT(reads, bufpool, .depth = 4);
 *
 *	ADD_ALL_VARIANTS(reads, .depth = 4, .nr_pools = 1,
 *			 .pool = { { MIB, 2 } });
 */
#ifndef FUSE_TEST_VARIANTS_H
#define FUSE_TEST_VARIANTS_H

#include "fixture.h"

/* Each entry has a payload buffer of its own: Linux 6.14 */
#define MODE_entries		.bufpool = 0, .flags = 0
/* A pool in the server's memory, as it is: Linux 7.3 */
#define MODE_bufpool		.bufpool = BUFPOOL
/* Several, whose buffers are of different sizes */
#define MODE_bufpool_sizes	.bufpool = BUFPOOL | BUFPOOL_SIZES
/* All of them in one fixed buffer */
#define MODE_bufpool_sizes_registered					\
	.bufpool = BUFPOOL | BUFPOOL_SIZES | BUFPOOL_REGISTERED
/* A pool that is a fixed buffer of the io_uring */
#define MODE_bufpool_registered	.bufpool = BUFPOOL | BUFPOOL_REGISTERED
/* The same, and pages of files that opt in become fixed buffers */
#define MODE_bufpool_zero_copy	.bufpool = BUFPOOL | BUFPOOL_REGISTERED | \
					   BUFPOOL_ZERO_COPY
/* Header slots, and up to four pools */
#define MODE_bufring		.flags = FUSE_URING_REGISTER_BUFRING
/* The same memory, but pinned and mapped by the kernel */
#define MODE_pinned		.flags = PINNED_FLAGS
/* And the pages of all files become fixed buffers */
#define MODE_zero_copy		.flags = ZERO_COPY_FLAGS
/* Or those of files that opt in */
#define MODE_zero_copy_opt_in	.flags = ZERO_COPY_FLAGS | \
					 FUSE_URING_REGISTER_ZERO_COPY_OPT_IN

/*
 * What a variant needs, by its mode. If several fixtures have one of that name, it
 * needs the same in all of them.
 */
#define NOTE_VARIANT(fixture, variant, ...)				\
static struct noted_variant noted_##fixture##_##variant = {		\
	.name = #variant,						\
	.mode = { __VA_ARGS__ },					\
};									\
									\
__attribute__((constructor))						\
static void note_##fixture##_##variant(void)				\
{									\
	note_variant(&noted_##fixture##_##variant);			\
}

/* One with a name of its own; what follows is the mode. */
#define ADD_VARIANT_AS(fixture, variant, ...)				\
NOTE_VARIANT(fixture, variant, __VA_ARGS__)				\
									\
FIXTURE_VARIANT_ADD(fixture, variant)					\
{									\
	.mode = { __VA_ARGS__ },					\
}

/* The same, and something for another member of the variant */
#define ADD_VARIANT_WITH(fixture, variant, member, ...)			\
NOTE_VARIANT(fixture, variant, __VA_ARGS__)				\
									\
FIXTURE_VARIANT_ADD(fixture, variant)					\
{									\
	.mode = { __VA_ARGS__ },					\
	member,								\
}

#define ADD_VARIANT(fixture, name, ...)					\
	ADD_VARIANT_AS(fixture, name, MODE_##name, __VA_ARGS__)

#define ADD_BUFPOOL_VARIANTS(fixture, ...)				\
	ADD_VARIANT(fixture, bufpool, __VA_ARGS__);			\
	ADD_VARIANT(fixture, bufpool_registered, __VA_ARGS__);		\
	ADD_VARIANT(fixture, bufpool_zero_copy, __VA_ARGS__)

#define ADD_BUFRING_VARIANTS(fixture, ...)				\
	ADD_VARIANT(fixture, bufring, __VA_ARGS__);			\
	ADD_VARIANT(fixture, pinned, __VA_ARGS__);			\
	ADD_VARIANT(fixture, zero_copy, __VA_ARGS__)

/* Those whose payload buffers are pools */
#define ADD_POOL_VARIANTS(fixture, ...)					\
	ADD_BUFPOOL_VARIANTS(fixture, __VA_ARGS__);			\
	ADD_BUFRING_VARIANTS(fixture, __VA_ARGS__)

#define ADD_ZERO_COPY_VARIANTS(fixture, ...)				\
	ADD_VARIANT(fixture, bufpool_zero_copy, __VA_ARGS__);		\
	ADD_VARIANT(fixture, zero_copy, __VA_ARGS__)

#define ADD_ALL_VARIANTS(fixture, ...)					\
	ADD_VARIANT(fixture, entries, __VA_ARGS__);			\
	ADD_POOL_VARIANTS(fixture, __VA_ARGS__)

#endif
