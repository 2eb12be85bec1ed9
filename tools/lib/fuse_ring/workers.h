/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * Threads that run what may block, made when they are needed
 */
#ifndef FUSE_RING_WORKERS_H
#define FUSE_RING_WORKERS_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

struct work {
	struct work *next;
	bool extra;
};

struct worker;

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t arrived;
	struct work *first, **last;
	struct worker *threads;
	unsigned int max;
	unsigned int nr;
	unsigned int idle;
	unsigned int waiting;
	unsigned int extra;	/* work beyond @max, to be done or being done */
	bool stopped;
	void (*run)(struct work *work);
};

/* Those that end a server, which the thread of its main loop waits for */
void workers_signals_to_block(sigset_t *signals);

int workers_init(struct workers *workers, unsigned int max,
		 void (*run)(struct work *work));
/*
 * Has @work run by one of the threads; @extra: even if @max of them are busy,
 * since it may wait for other work, and not counted as one of these.
 * A negative errno if there is no thread to do it and none can be made.
 */
int workers_give(struct workers *workers, struct work *work, bool extra);
/* Waits for those that run; work that did not begin never will. */
void workers_stop(struct workers *workers);
void workers_destroy(struct workers *workers);

#endif
