// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * Threads that run what may block, see workers.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "workers.h"

struct worker {
	struct worker *next;
	struct workers *workers;
	pthread_t thread;
};

int workers_init(struct workers *workers, unsigned int max,
		 void (*run)(struct work *work))
{
	int err;

	*workers = (struct workers) { .max = max, .run = run };
	workers->last = &workers->first;
	err = pthread_mutex_init(&workers->lock, NULL);
	if (err)
		return -err;
	err = pthread_cond_init(&workers->arrived, NULL);
	if (err)
		pthread_mutex_destroy(&workers->lock);
	return -err;
}

/* With the lock held; NULL when it is time to end */
static struct work *next_work(struct workers *workers)
{
	struct work *work;

	workers->idle++;
	while (!workers->first && !workers->stopped)
		pthread_cond_wait(&workers->arrived, &workers->lock);
	workers->idle--;
	if (workers->stopped)
		return NULL;
	work = workers->first;
	workers->first = work->next;
	if (!workers->first)
		workers->last = &workers->first;
	workers->waiting--;
	return work;
}

static void *worker_thread(void *arg)
{
	struct workers *workers = ((struct worker *)arg)->workers;
	struct work *work;
	bool extra;

	pthread_mutex_lock(&workers->lock);
	for (;;) {
		work = next_work(workers);
		if (!work)
			break;
		extra = work->extra;
		pthread_mutex_unlock(&workers->lock);
		workers->run(work);
		pthread_mutex_lock(&workers->lock);
		workers->extra -= extra;
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

void workers_signals_to_block(sigset_t *signals)
{
	sigemptyset(signals);
	sigaddset(signals, SIGHUP);
	sigaddset(signals, SIGINT);
	sigaddset(signals, SIGQUIT);
	sigaddset(signals, SIGTERM);
}

/* With the lock held */
static int add_worker(struct workers *workers)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	sigset_t ending, before;
	int err;

	if (!worker)
		return -ENOMEM;
	worker->workers = workers;
	workers_signals_to_block(&ending);
	pthread_sigmask(SIG_BLOCK, &ending, &before);
	err = pthread_create(&worker->thread, NULL, worker_thread, worker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (err) {
		free(worker);
		return -err;
	}
	worker->next = workers->threads;
	workers->threads = worker;
	workers->nr++;
	return 0;
}

int workers_give(struct workers *workers, struct work *work, bool extra)
{
	int err = 0;

	pthread_mutex_lock(&workers->lock);
	if (workers->stopped) {
		err = -ENOTCONN;
	} else if (workers->idle <= workers->waiting &&
		   (extra || workers->nr - workers->extra < workers->max)) {
		err = add_worker(workers);
		/* One that is busy now will do, unless it may wait for us. */
		if (err && !extra && workers->nr)
			err = 0;
	}
	if (!err) {
		work->next = NULL;
		work->extra = extra;
		workers->extra += extra;
		*workers->last = work;
		workers->last = &work->next;
		workers->waiting++;
		pthread_cond_signal(&workers->arrived);
	}
	pthread_mutex_unlock(&workers->lock);
	return err;
}

void workers_stop(struct workers *workers)
{
	struct worker *worker;

	pthread_mutex_lock(&workers->lock);
	workers->stopped = true;
	worker = workers->threads;
	workers->threads = NULL;
	pthread_cond_broadcast(&workers->arrived);
	pthread_mutex_unlock(&workers->lock);

	while (worker) {
		struct worker *next = worker->next;

		pthread_join(worker->thread, NULL);
		free(worker);
		worker = next;
	}
}

void workers_destroy(struct workers *workers)
{
	pthread_cond_destroy(&workers->arrived);
	pthread_mutex_destroy(&workers->lock);
}
