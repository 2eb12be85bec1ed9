/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * INTERRUPTs that have to wait until libfuse knows their request
 */
#ifndef FUSE_RING_INTERRUPTS_H
#define FUSE_RING_INTERRUPTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct fuse_ring;
struct interrupt;

/* How often those that wait are to be looked at */
#define INTERRUPTS_PERIOD_MS	20

struct interrupts {
	pthread_mutex_t lock;
	struct interrupt *first;
};

typedef void (*interrupts_deliver)(void *data, uint64_t cookie);

/* @unique: as the kernel calls the request. If memory is short it is lost. */
void interrupts_add(struct interrupts *interrupts, uint64_t unique);

/* In the session's loop: has those delivered whose time has come. */
void interrupts_settle(struct interrupts *interrupts, struct fuse_ring *ring,
		       interrupts_deliver deliver, void *data);

/* Are there any to look at again after INTERRUPTS_PERIOD_MS? */
bool interrupts_left(struct interrupts *interrupts);

void interrupts_drop(struct interrupts *interrupts);

#endif
