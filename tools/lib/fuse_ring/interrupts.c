// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * INTERRUPTs. For a signal to a client the kernel sends one on /dev/fuse, by
 * the number that it gave the client's request. libfuse knows the request by
 * its cookie, and only once the handler was called: an INTERRUPT that it sees
 * before that it would hand back when it sees any other request.
 *
 * The two come by different ways and are read by different threads. So an
 * INTERRUPT whose request is not there can be early, or late: the request was
 * answered meanwhile. The protocol has an answer for the server that cannot
 * tell, EAGAIN, upon which the kernel sends the INTERRUPT again, or does not
 * if it is late. It is of no use here: kernels since 6.14 do not look for the
 * request among those of a ring, and say ENOENT, as they would of a late one.
 * Those with "fuse: accept the answer to an INTERRUPT of a ring request" send
 * it again at once, so that it would have to be kept from busying the loop.
 *
 * What is done needs nothing of the kernel, and costs requests nothing. An
 * INTERRUPT is kept until its request is there and has begun, or is known to
 * be over: it was with a queue's thread or on the way there when the INTERRUPT
 * came, and all threads have taken all that came since, see ring_rounds().
 */
#include <stdlib.h>

#include "interrupts.h"
#include "ring.h"

/*
 * The first of them had begun before, and io_uring may have a request's
 * completion ready only when the thread enters the kernel once more.
 */
#define ROUNDS	3

struct interrupt {
	struct interrupt *next;
	uint64_t unique;	/* as the kernel calls the request */
	uint64_t until_round;	/* 0: to be set when it is first looked at */
};

static void put(struct interrupts *interrupts, struct interrupt *interrupt)
{
	pthread_mutex_lock(&interrupts->lock);
	interrupt->next = interrupts->first;
	interrupts->first = interrupt;
	pthread_mutex_unlock(&interrupts->lock);
}

static struct interrupt *take_all(struct interrupts *interrupts)
{
	struct interrupt *first;

	pthread_mutex_lock(&interrupts->lock);
	first = interrupts->first;
	interrupts->first = NULL;
	pthread_mutex_unlock(&interrupts->lock);
	return first;
}

void interrupts_add(struct interrupts *interrupts, uint64_t unique)
{
	struct interrupt *interrupt = calloc(1, sizeof(*interrupt));

	if (!interrupt)
		return;
	interrupt->unique = unique;
	put(interrupts, interrupt);
}

bool interrupts_left(struct interrupts *interrupts)
{
	bool left;

	pthread_mutex_lock(&interrupts->lock);
	left = interrupts->first;
	pthread_mutex_unlock(&interrupts->lock);
	return left;
}

/* Whether its request may still come */
static bool is_early(struct interrupt *interrupt, uint64_t round)
{
	if (!interrupt->until_round)
		interrupt->until_round = round + ROUNDS;
	return round < interrupt->until_round;
}

void interrupts_settle(struct interrupts *interrupts, struct fuse_ring *ring,
		       interrupts_deliver deliver, void *data)
{
	struct interrupt *interrupt, *next;
	uint64_t cookie, round = 0;
	bool begun, keep;

	for (interrupt = take_all(interrupts); interrupt; interrupt = next) {
		next = interrupt->next;
		cookie = ring_find_unique(ring, interrupt->unique, &begun);
		keep = cookie && !begun;
		if (cookie && begun) {
			deliver(data, cookie);
		} else if (!cookie) {
			if (!round)
				round = ring_rounds(ring);
			keep = is_early(interrupt, round);
		}
		if (keep)
			put(interrupts, interrupt);
		else
			free(interrupt);
	}
}

void interrupts_drop(struct interrupts *interrupts)
{
	struct interrupt *interrupt, *next;

	for (interrupt = take_all(interrupts); interrupt; interrupt = next) {
		next = interrupt->next;
		free(interrupt);
	}
}
