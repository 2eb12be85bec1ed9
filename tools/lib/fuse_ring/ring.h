/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * What the parts of the library share with each other, but not with its users
 */
#ifndef FUSE_RING_INTERNAL_H
#define FUSE_RING_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "fuse_ring.h"
#include "queue.h"
#include "workers.h"

struct ring_queue;

/* The request in a header slot, from its arrival to its commit */
struct fuse_ring_req {
	struct ring_queue *queue;
	uint16_t slot;
	/*
	 * Tells it from all others, see ring_cookie(); 0 once it is answered.
	 * Only this may be looked at by who does not know whether the request
	 * is still there.
	 */
	_Atomic uint64_t cookie;
	/* handler and reply: the slot is free for the kernel after both */
	atomic_uint holders;
	/* an SQE points at this until it is submitted, whenever that is */
	struct queue_register registration;
	struct ring_header *header;
	struct fuse_in_header in;
	_Atomic uint64_t unique;	/* in.unique, for who looks for it */
	uint64_t commit_id;
	void *payload;
	size_t used;		/* bytes the request brought */
	size_t room;
	bool zero_copied;
	bool waits;		/* for a lock, and counts in queue->waiting */
	bool zero_copy_open;	/* the file it opens is to be zero-copied */
	atomic_bool begun;	/* its handler was called, or is about to be */

	/* the reply */
	int error;
	size_t reply_len;
	void *reply;		/* its data until the commit, if kept outside */
	char small_reply[160];	/* which is there if it fits */
	int fd;			/* file the data goes to or comes from, or -1 */
	off_t offset;
	size_t len;
	size_t done;
	bool awaited;		/* the transfer, at the end or if it is not linked */
	bool linked;		/* the commit to the transfer */
	struct fuse_ring_req *next;
	struct work work;
};

/*
 * By its cookie a request is found from any thread, without a search: session,
 * queue and slot are in it, and a number that changes from one request in the
 * slot to the next.
 *
 *	63  62      61     60 ... 48  47 ... 32  31 ... 16  15 ... 0
 *	 0   1  INTERRUPT   session   generation    queue      slot
 *
 * Bit 62 is never set in what the kernel gives requests as their unique: it
 * counts up, and the highest bit says that it sent one again.
 */
#define RING_COOKIE		(1ULL << 62)
#define RING_MOST_SESSIONS	(1U << 13)
/* In place of the request, the INTERRUPT of it */
#define RING_INTERRUPT		(1ULL << 61)

static inline uint64_t ring_cookie(unsigned int session, uint16_t generation,
				   uint16_t qid, uint16_t slot)
{
	return RING_COOKIE | (uint64_t)session << 48 |
	       (uint64_t)generation << 32 | (uint64_t)qid << 16 | slot;
}

static inline unsigned int ring_cookie_session(uint64_t cookie)
{
	return cookie >> 48 & (RING_MOST_SESSIONS - 1);
}

struct ring_queue {
	struct fuse_ring *ring;
	unsigned int qid;
	pthread_t thread;
	bool has_thread;

	/* under ring->lock, with ring->job_done */
	int (*job)(struct ring_queue *queue);	/* for the thread to do next */
	int error;		/* of the last one */
	const char *call;	/* that failed, if it was not a command to the driver */
	bool ended;		/* no handler runs in the thread any more */

	enum fuse_ring_mode mode;
	bool in_place;		/* payload buffers that could be pinned are not to be */
	bool added;		/* by ADD_QUEUE, see door_bufpool.c */
	bool opened;		/* all is done that comes before the first REGISTER */
	struct queue_layout layout;
	struct queue_memory memory;
	struct io_uring uring;
	bool has_uring;
	bool has_fixed_buffers;
	struct fuse_ring_req *reqs;	/* by slot */
	unsigned int entries;	/* registered slots */
	unsigned int waiting;	/* of them with requests that wait for a lock */
	unsigned int moving;	/* awaited: data on its way from or to a file */
	atomic_uint round;	/* of the ring's, the last one that it was asked for */
	uint16_t generation;
	/* requests that came while entries were being registered */
	struct fuse_ring_req *early;

	int event_fd;
	struct fuse_ring_req *_Atomic answered;
	/* replies under way in other threads, or about to be */
	atomic_uint replying;
	/* files that RWF_NOWAIT does not work with, to read and to write */
	int blocking_files[2][64];
};

struct fuse_ring {
	struct fuse_ring_connection connection;
	struct fuse_ring_options options;
	uint32_t most_pages;	/* connection.max_pages as the kernel limits it */
	uint64_t file_limit;	/* RLIMIT_FSIZE */
	uint32_t headroom;
	unsigned int session;		/* for the cookies */
	fuse_ring_handler handler;
	void (*handled)(void *data);
	void *data;
	const struct ring_door *door;	/* for all modes but the legacy one */
	enum fuse_ring_mode mode;
	bool in_place;			/* as ring_queue's */
	enum fuse_ring_mode refused;	/* the lowest, which why_not_more is of */
	char why_not_more[256];
	atomic_bool stopping;		/* no handler is called any more */
	atomic_bool closed;		/* none runs any more, and no reply is taken */
	atomic_uint round;		/* that the queues are asked for, see ring_rounds() */
	bool stopped;
	pthread_mutex_t lock;
	pthread_cond_t job_done;	/* or given */
	pthread_mutex_t handler_lock;	/* for options.serialize */
	struct workers workers;
	uint64_t rounds;		/* of ring_rounds() */
	unsigned int nr_queues;
	struct ring_queue queues[];
};

/*
 * For what sets a queue up, in the queue's thread
 */

struct io_uring_sqe *ring_get_sqe(struct ring_queue *queue);
void ring_prepare_register(struct ring_queue *queue, unsigned int slot);
/* Errors of io_uring_enter() that pass */
bool ring_try_again(int error);
/* Waits for a command that the driver answers at once: what it said */
int ring_run_command(struct ring_queue *queue, struct io_uring_sqe *sqe);

/*
 * modes.c
 */

/* The mode to begin with and its door; -EOPNOTSUPP: there is none, see why_not_more */
int modes_choose(struct fuse_ring *ring);
/* How many slots a queue may have in any mode */
unsigned int modes_most_slots(const struct fuse_ring *ring);
/* Bytes of the largest payload of a connection with so many pages in a request */
uint32_t modes_largest_payload(const struct fuse_ring *ring, uint32_t max_pages);
/* The mode below ring->mode after @queue failed to get memory for that */
bool modes_lower_all(struct fuse_ring *ring, struct ring_queue *queue, int err);
/* Jobs for a queue's thread, in this order; the first one before INIT is answered */
int modes_reserve(struct ring_queue *queue);
int modes_open(struct ring_queue *queue);
int modes_register(struct ring_queue *queue);

/*
 * memlock.c
 */

/* KiB that other processes of this user have pinned, as /proc shows them */
size_t memlock_of_others(void);

/* What is told where INIT lacks FUSE_OVER_IO_URING */
#define RING_NOT_OFFERED						\
	"the kernel does not offer fuse over io_uring (fuse.enable_uring)"

struct fuse_ring_options ring_options_or_default(const struct fuse_ring_options *options);
void ring_log(const struct fuse_ring_options *options, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/*
 * Of the library's own. The server survives where it cannot be written, be it for
 * a limit on the size of files or as nobody reads any more.
 */
void ring_write_line(FILE *file, const char *line);

/* Monotonic */
uint64_t ring_now_ms(void);

/* Else the kernel would refuse them for good, as the mode is not the reason. */
bool ring_pools_make_sense(const struct fuse_ring_options *options);

/*
 * The request with that cookie, NULL if it was answered. Until it is released
 * the ring is not.
 */
struct fuse_ring_req *ring_acquire(struct fuse_ring *ring, uint64_t cookie);
void ring_release(struct fuse_ring_req *req);
/* The one that the kernel calls @unique: its cookie, or 0, and if it @begun */
uint64_t ring_find_unique(struct fuse_ring *ring, uint64_t unique, bool *begun);
/*
 * How many rounds the queues have made. They are asked for one: it ends when
 * each of them has come back from the kernel and handled all that it brought,
 * and the next one begins when this is called again. For one thread only.
 */
uint64_t ring_rounds(struct fuse_ring *ring);

/* Around what must not run beside a handler, if options.serialize is set */
void ring_begin_handler(struct fuse_ring *ring);
void ring_end_handler(struct fuse_ring *ring);

/*
 * @headroom: bytes of its own before each payload buffer
 * @handled: called after each @handler, when a reply in it is on its way; NULL
 */
int ring_prepare(struct fuse_ring **ring,
		 const struct fuse_ring_connection *connection,
		 const struct fuse_ring_options *options, uint32_t headroom,
		 fuse_ring_handler handler, void (*handled)(void *data),
		 void *data);

/*
 * The request as one piece of memory, as it would have come over /dev/fuse:
 * struct fuse_in_header, with the cookie in place of the unique, and all that
 * follows. -> @len; that much is readable unless the data is zero-copied.
 */
void *ring_req_linear(struct fuse_ring_req *req, uint64_t unique, size_t *len);

#endif
