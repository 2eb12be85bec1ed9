// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * The transport: one thread and one io_uring per queue, requests in, replies
 * out.
 *
 * A queue's io_uring is only touched by the queue's thread. A reply that
 * another thread gives is put on the queue's list of answered requests, and
 * the thread is woken through an eventfd.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "door.h"

/* In the low bits of user_data, below the address of the request */
enum completion {
	COMMAND_DONE,		/* REGISTER or COMMIT_AND_FETCH */
	TRANSFER_DONE,		/* READ_FIXED or WRITE_FIXED, see transfer_done() */
	FILE_DONE,		/* READ or WRITE of the payload buffer */
	WOKEN,			/* by another thread */
};

#define COMPLETION_MASK 3

/* SQEs; they are submitted before they are more. */
#define MAX_SQES 1024

/* How long a command may take that the driver answers at once */
#define TRY_SECONDS 10

/* Milliseconds that the end waits for data of files */
#define END_MS 1000

/* How often the end looks if what it waits for is there */
#define END_PERIOD_US 1000

static __thread struct ring_queue *this_queue;

uint64_t ring_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

/*
 * Commands
 */

struct io_uring_sqe *ring_get_sqe(struct ring_queue *queue)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&queue->uring);

	while (!sqe) {
		/* Only -EBUSY and -EAGAIN, which pass, can be in the way. */
		io_uring_submit(&queue->uring);
		sqe = io_uring_get_sqe(&queue->uring);
	}
	return sqe;
}

static void set_completion(struct io_uring_sqe *sqe, struct fuse_ring_req *req,
			   enum completion completion)
{
	sqe->user_data = (uintptr_t)req | completion;
}

static void free_reply(struct fuse_ring_req *req)
{
	if (req->reply != req->small_reply)
		free(req->reply);
	req->reply = NULL;
}

static void prepare_commit(struct fuse_ring_req *req)
{
	struct ring_queue *queue = req->queue;
	struct io_uring_sqe *sqe = ring_get_sqe(queue);

	if (req->reply) {
		memcpy(req->payload, req->reply, req->reply_len);
		free_reply(req);
	}
	queue_fill_reply(req->header, req->in.unique, req->error,
			 req->reply_len);
	queue_prep_commit(sqe, queue->ring->connection.dev_fd, &queue->layout,
			  queue->qid, req->commit_id);
	set_completion(sqe, req, COMMAND_DONE);
}

/* The data of the reply when so many bytes of the file were moved */
static void fill_moved(struct fuse_ring_req *req, size_t len)
{
	struct fuse_write_out out = { .size = len };

	req->error = 0;
	req->reply_len = len;
	if (req->in.opcode == FUSE_WRITE) {
		/* The data of the request may still be the handler's. */
		req->reply = memcpy(req->small_reply, &out, sizeof(out));
		req->reply_len = sizeof(out);
	}
}

/*
 * The reply when an error ended the move of the data, or 0. What was moved before
 * the error counts, as it does for read() and write(). Where the kernel gives
 * clients EIO for a short WRITE, or does not look how long it was, they have to
 * get the error, ENOSPC for example.
 */
static void fill_ended(struct fuse_ring_req *req, int error)
{
	const struct fuse_write_in *write = fuse_ring_req_op(req);

	if (req->done && (req->in.opcode == FUSE_READ ||
			  (!(write->flags & O_DIRECT) &&
			   !(write->write_flags & FUSE_WRITE_CACHE))))
		error = 0;
	fill_moved(req, req->done);
	if (error) {
		req->error = error;
		req->reply_len = 0;
	}
}

/*
 * RLIMIT_FSIZE cuts a write short. io_uring may take it for complete nevertheless,
 * and go on with what is linked to it.
 */
static bool may_be_cut_short(const struct fuse_ring_req *req)
{
	return req->in.opcode == FUSE_WRITE &&
	       req->offset + req->len > req->queue->ring->file_limit;
}

/*
 * The commit follows by itself when all of the data was transferred. If not,
 * the kernel cancels it, and only the transfer completes.
 */
static void prepare_transfer(struct fuse_ring_req *req)
{
	struct ring_queue *queue = req->queue;
	struct io_uring_sqe *sqe;

	/* Linked commands have to be submitted together. */
	while (io_uring_sq_space_left(&queue->uring) < 2)
		io_uring_submit(&queue->uring);
	sqe = ring_get_sqe(queue);
	queue_prep_transfer(sqe, req->in.opcode, req->slot, req->done, req->fd,
			    req->offset + req->done, req->len - req->done);
	set_completion(sqe, req, TRANSFER_DONE);
	req->linked = !may_be_cut_short(req);
	/* To hear of it costs a turn of the thread. */
	req->awaited = !req->linked || atomic_load(&queue->ring->stopping);
	if (req->awaited)
		queue->moving++;
	else
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	if (!req->linked)
		return;
	sqe->flags |= IOSQE_IO_LINK;
	fill_moved(req, req->len);
	prepare_commit(req);
}

/* The rest of what the file has to give or take */
static void prepare_file(struct fuse_ring_req *req)
{
	struct io_uring_sqe *sqe = ring_get_sqe(req->queue);
	char *data = (char *)req->payload + req->done;

	if (req->in.opcode == FUSE_READ)
		io_uring_prep_read(sqe, req->fd, data, req->len - req->done,
				   req->offset + req->done);
	else
		io_uring_prep_write(sqe, req->fd, data, req->len - req->done,
				    req->offset + req->done);
	set_completion(sqe, req, FILE_DONE);
	req->queue->moving++;
}

/* In the queue's thread, when handler and reply are through with it */
static void send_answer(struct fuse_ring_req *req)
{
	if (req->waits)
		req->queue->waiting--;
	if (req->fd < 0)
		prepare_commit(req);
	else if (req->zero_copied)
		prepare_transfer(req);
	else
		prepare_file(req);
}

static void wake(struct ring_queue *queue)
{
	/* It can only fail where the thread has long been woken. */
	eventfd_write(queue->event_fd, 1);
}

static void req_put(struct fuse_ring_req *req)
{
	struct ring_queue *queue = req->queue;
	struct fuse_ring_req *before;

	if (atomic_fetch_sub(&req->holders, 1) != 1)
		return;
	if (this_queue == queue) {
		send_answer(req);
		return;
	}
	before = atomic_load(&queue->answered);
	do {
		req->next = before;
	} while (!atomic_compare_exchange_weak(&queue->answered, &before, req));
	/* Who put the first one there has woken it, or is about to. */
	if (!before)
		wake(queue);
}

/*
 * Requests
 */

void ring_begin_handler(struct fuse_ring *ring)
{
	if (ring->options.serialize)
		pthread_mutex_lock(&ring->handler_lock);
}

void ring_end_handler(struct fuse_ring *ring)
{
	if (ring->options.serialize)
		pthread_mutex_unlock(&ring->handler_lock);
}

static void run_handler(struct fuse_ring_req *req)
{
	struct fuse_ring *ring = req->queue->ring;

	ring_begin_handler(ring);
	/* If its turn comes after the end, it is as if it had come too late. */
	if (atomic_load(&ring->stopping)) {
		ring_end_handler(ring);
		return;
	}
	atomic_store(&req->begun, true);
	ring->handler(req, ring->data);
	ring_end_handler(ring);
	req_put(req);
	if (ring->handled)
		ring->handled(ring->data);
}

static void run_work(struct work *work)
{
	run_handler((struct fuse_ring_req *)
		    ((char *)work - offsetof(struct fuse_ring_req, work)));
}

void ring_prepare_register(struct ring_queue *queue, unsigned int slot)
{
	struct queue_register *reg = &queue->reqs[slot].registration;
	struct io_uring_sqe *sqe = ring_get_sqe(queue);

	memset(reg, 0, sizeof(*reg));
	reg->slot = slot;
	reg->command.qid = queue->qid;
	queue->layout.door->fill(reg, &queue->layout, &queue->memory);
	queue_prep_register(sqe, queue->ring->connection.dev_fd, &queue->layout,
			    reg);
	set_completion(sqe, &queue->reqs[slot], COMMAND_DONE);
}

/* An entry in place of one whose request waits; false if there is none left */
static bool add_entry(struct ring_queue *queue)
{
	if (queue->entries - queue->waiting > queue->layout.keep)
		return true;
	if (queue->entries == queue->layout.depth)
		return false;
	ring_prepare_register(queue, queue->entries++);
	/*
	 * Now, since the handler may not return before another request came.
	 * What cannot be submitted now is when this thread waits for more.
	 */
	io_uring_submit(&queue->uring);
	return true;
}

/*
 * It may wait for another request of the same queue: in the handler, or, where
 * handlers must not wait for each other, after it.
 */
static void dispatch_waiting(struct fuse_ring_req *req)
{
	struct ring_queue *queue = req->queue;

	if (add_entry(queue)) {
		queue->waiting++;
		if (queue->ring->options.serialize) {
			run_handler(req);
			return;
		}
		if (!workers_give(&queue->ring->workers, &req->work, true))
			return;
		queue->waiting--;
	}
	req->waits = false;
	atomic_store(&req->holders, 1);
	fuse_ring_reply(req, -ENOLCK, NULL, 0);
}

static void dispatch(struct fuse_ring_req *req)
{
	struct fuse_ring *ring = req->queue->ring;

	if (req->waits)
		dispatch_waiting(req);
	else if (!ring->options.workers ||
		 workers_give(&ring->workers, &req->work, false))
		run_handler(req);
}

static void find_payload(struct fuse_ring_req *req)
{
	struct ring_queue *queue = req->queue;
	int buffer = queue->layout.door->buffer(&queue->layout, req->slot,
						req->header);

	req->payload = NULL;
	req->room = 0;
	if (buffer >= 0)
		req->payload = queue_memory_payload(&queue->memory,
						    &queue->layout, buffer,
						    &req->room);
	else if (buffer != NO_BUFFER)
		ring_log(&queue->ring->options,
			 "queue %u: the kernel names a buffer that does not exist",
			 queue->qid);
}

static void take_request(struct fuse_ring_req *req)
{
	struct ring_queue *queue = req->queue;
	const struct ring_ent *entry = &req->header->ent;

	memcpy(&req->in, req->header->in_out, sizeof(req->in));
	atomic_store(&req->unique, req->in.unique);
	req->commit_id = entry->commit_id;
	req->zero_copied = entry->flags & FUSE_URING_ENT_ZERO_COPY;
	req->used = entry->payload_sz;
	find_payload(req);
	req->waits = req->in.opcode == FUSE_SETLKW;
	req->zero_copy_open = false;
	req->error = 0;
	req->reply_len = 0;
	req->fd = -1;
	req->done = 0;
	atomic_store(&req->begun, false);
	atomic_store(&req->holders, 2);
	atomic_store(&req->cookie,
		     ring_cookie(queue->ring->session, ++queue->generation,
				 queue->qid, req->slot));
}

static void begin_request(struct fuse_ring_req *req)
{
	if (atomic_load(&req->queue->ring->stopping))
		return;
	take_request(req);
	dispatch(req);
}

/* The connection is gone, or going. */
static bool is_end(int error)
{
	return error == -ENOTCONN || error == -ECONNABORTED ||
	       error == -ECANCELED || error == -EINTR;
}

static void command_done(struct fuse_ring_req *req, int result)
{
	struct ring_queue *queue = req->queue;

	if (result >= 0) {
		begin_request(req);
	} else if (!is_end(result)) {
		ring_log(&queue->ring->options,
			 "queue %u: the kernel gave entry %u back: %s",
			 queue->qid, req->slot, strerror(-result));
	}
}

static void file_done(struct fuse_ring_req *req, int result)
{
	req->queue->moving--;
	if (result > 0) {
		req->done += result;
		if (req->done < req->len) {
			prepare_file(req);
			return;
		}
	}
	fill_ended(req, result < 0 ? result : 0);
	prepare_commit(req);
}

/* It went wrong, or is waited for. */
static void transfer_done(struct fuse_ring_req *req, int result)
{
	bool awaited = req->awaited;

	if (awaited) {
		req->awaited = false;
		req->queue->moving--;
	}
	if (result > 0)
		req->done += result;
	/* Then the commit follows by itself. */
	if (awaited && req->linked && req->done == req->len)
		return;
	/* A READ ends where the file does. */
	if (result > 0 && req->in.opcode == FUSE_WRITE && req->done < req->len) {
		prepare_transfer(req);
		return;
	}
	fill_ended(req, result < 0 ? result : 0);
	prepare_commit(req);
}

static void take_answered(struct ring_queue *queue)
{
	struct fuse_ring_req *req, *next, *oldest = NULL;
	eventfd_t ignored;

	eventfd_read(queue->event_fd, &ignored);
	req = atomic_exchange(&queue->answered, NULL);
	for (; req; req = next) {
		next = req->next;
		req->next = oldest;
		oldest = req;
	}
	for (req = oldest; req; req = next) {
		next = req->next;
		send_answer(req);
	}
}

static void prepare_wake(struct ring_queue *queue)
{
	struct io_uring_sqe *sqe = ring_get_sqe(queue);

	io_uring_prep_poll_multishot(sqe, queue->event_fd, POLLIN);
	set_completion(sqe, NULL, WOKEN);
}

static void complete(struct ring_queue *queue, uint64_t user_data, int result,
		     unsigned int flags)
{
	struct fuse_ring_req *req;

	req = (void *)(uintptr_t)(user_data & ~(uint64_t)COMPLETION_MASK);
	switch ((enum completion)(user_data & COMPLETION_MASK)) {
	case COMMAND_DONE:
		command_done(req, result);
		break;
	case TRANSFER_DONE:
		transfer_done(req, result);
		break;
	case FILE_DONE:
		file_done(req, result);
		break;
	case WOKEN:
		take_answered(queue);
		if (!(flags & IORING_CQE_F_MORE))
			prepare_wake(queue);
		break;
	}
}

static void complete_all(struct ring_queue *queue)
{
	struct io_uring_cqe *cqe;
	unsigned int flags;
	uint64_t user_data;
	int result;

	while (!io_uring_peek_cqe(&queue->uring, &cqe)) {
		user_data = cqe->user_data;
		result = cqe->res;
		flags = cqe->flags;
		io_uring_cqe_seen(&queue->uring, cqe);
		complete(queue, user_data, result, flags);
	}
}

/* Ends what the kernel does with the server's memory. */
static void exit_uring(struct ring_queue *queue)
{
	io_uring_queue_exit(&queue->uring);
	queue->has_uring = false;
}

/* No handler runs in this thread any more. */
static void tell_end(struct ring_queue *queue)
{
	struct fuse_ring *ring = queue->ring;

	pthread_mutex_lock(&ring->lock);
	queue->ended = true;
	pthread_cond_broadcast(&ring->job_done);
	pthread_mutex_unlock(&ring->lock);
}

/* -> whether the thread is to end */
static bool wait_and_complete(struct ring_queue *queue)
{
	struct fuse_ring *ring = queue->ring;
	unsigned int round;
	int n;

	n = io_uring_submit_and_wait(&queue->uring, 1);
	/* What came back by now is seen before it is said that it was. */
	round = atomic_load(&ring->round);
	if (n < 0 && !ring_try_again(n)) {
		ring_log(&ring->options, "queue %u: io_uring: %s", queue->qid,
			 strerror(-n));
		exit_uring(queue);
		return true;
	}
	complete_all(queue);
	if (atomic_load_explicit(&queue->round, memory_order_relaxed) != round)
		atomic_store(&queue->round, round);
	return atomic_load(&ring->closed);
}

static int run_queue(struct ring_queue *queue)
{
	struct fuse_ring *ring = queue->ring;
	struct fuse_ring_req *req, *next;

	prepare_wake(queue);
	for (req = queue->early; req; req = next) {
		next = req->next;
		begin_request(req);
	}
	/* While others' handlers still run, their replies go out. */
	while (!wait_and_complete(queue))
		if (atomic_load(&ring->stopping))
			tell_end(queue);
	return 0;
}

/*
 * What was answered before the end goes out, with the data of files that is
 * there in time. Only zero-copied transfers that were begun before the end was
 * asked for, and still go on, are not waited for: they are not heard of.
 */
static void send_the_rest(struct ring_queue *queue)
{
	struct __kernel_timespec period = { .tv_nsec = END_PERIOD_US * 1000 };
	struct io_uring_cqe *cqe;
	unsigned int n;
	uint64_t end;

	/* Of those that come from now on none is taken. */
	while (atomic_load(&queue->replying))
		usleep(END_PERIOD_US);
	take_answered(queue);
	end = ring_now_ms() + END_MS;
	while (queue->moving && ring_now_ms() < end) {
		io_uring_submit_and_wait_timeout(&queue->uring, &cqe, 1,
						 &period, NULL);
		complete_all(queue);
	}
	/* The kernel does not run all that became possible at once. */
	for (n = 0; n <= queue->entries; n++) {
		io_uring_submit_and_get_events(&queue->uring);
		complete_all(queue);
	}
}

/*
 * Getting ready
 */

bool ring_try_again(int error)
{
	return error == -EINTR || error == -EAGAIN || error == -EBUSY;
}

/*
 * That it was submitted does not mean that there is an answer: a signal ends the
 * wait for it, and io_uring_enter() may submit nothing, without an error.
 */
int ring_run_command(struct ring_queue *queue, struct io_uring_sqe *sqe)
{
	struct __kernel_timespec limit = { .tv_sec = TRY_SECONDS };
	uint64_t end = ring_now_ms() + TRY_SECONDS * 1000;
	struct io_uring_cqe *cqe;
	int err;

	set_completion(sqe, NULL, COMMAND_DONE);
	do {
		cqe = NULL;
		err = io_uring_submit_and_wait_timeout(&queue->uring, &cqe, 1,
						       &limit, NULL);
		if (err < 0 && err != -ETIME && !ring_try_again(err))
			return err;
	} while (!cqe && ring_now_ms() < end);
	if (!cqe)
		return -ETIME;
	err = cqe->res;
	io_uring_cqe_seen(&queue->uring, cqe);
	return err;
}

/*
 * Whether commands get to the driver at all: seccomp may refuse io_uring_enter()
 * alone, and a security module the command. Before INIT is answered the driver
 * says EAGAIN to any command. After it clients would wait for queues that can
 * neither be registered nor given up.
 */
static int try_command(struct ring_queue *queue)
{
	struct io_uring_sqe *sqe = ring_get_sqe(queue);
	struct ring_cmd_req *req;
	int err;

	req = queue_prep_command(sqe, queue->ring->connection.dev_fd,
				 FUSE_IO_URING_CMD_COMMIT_AND_FETCH);
	req->qid = queue->qid;
	err = ring_run_command(queue, sqe);
	queue->call = io_uring_sq_ready(&queue->uring) ?
		      "io_uring_enter()" : "a command over io_uring";
	return err == -EAGAIN ? 0 : err;
}

static int prepare_queue(struct ring_queue *queue)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER |
			 IORING_SETUP_DEFER_TASKRUN,
	};
	unsigned int depth = queue->ring->options.depth;
	unsigned int sqes = depth * 2 + 2 < MAX_SQES ? depth * 2 + 2 : MAX_SQES;
	int err;

	queue->call = "eventfd()";
	queue->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->event_fd < 0)
		return -errno;
	queue->call = "calloc()";
	queue->reqs = calloc(modes_most_slots(queue->ring), sizeof(*queue->reqs));
	if (!queue->reqs)
		return -ENOMEM;
	queue->call = "io_uring_setup()";
	err = io_uring_queue_init_params(sqes, &queue->uring, &params);
	if (err)
		return err;
	queue->has_uring = true;
	/* What fails here only makes system calls a little slower. */
	io_uring_register_ring_fd(&queue->uring);
	/* A child must not keep the connection alive. */
	io_uring_ring_dontfork(&queue->uring);
	/* What refuses it for one refuses it for all. */
	err = queue->qid ? 0 : try_command(queue);
	if (err)
		exit_uring(queue);
	return err;
}

/*
 * Threads
 */

typedef int (*ring_job)(struct ring_queue *queue);

/* Waits for something to do; NULL at the end. */
static ring_job next_job(struct ring_queue *queue)
{
	struct fuse_ring *ring = queue->ring;
	ring_job next;

	pthread_mutex_lock(&ring->lock);
	while (!queue->job && !atomic_load(&ring->stopping))
		pthread_cond_wait(&ring->job_done, &ring->lock);
	next = atomic_load(&ring->stopping) ? NULL : queue->job;
	pthread_mutex_unlock(&ring->lock);
	return next;
}

static void tell_done(struct ring_queue *queue, int error)
{
	struct fuse_ring *ring = queue->ring;

	pthread_mutex_lock(&ring->lock);
	queue->job = NULL;
	queue->error = error;
	pthread_cond_broadcast(&ring->job_done);
	pthread_mutex_unlock(&ring->lock);
}

static void *queue_thread(void *arg)
{
	struct ring_queue *queue = arg;
	ring_job job;

	this_queue = queue;
	while ((job = next_job(queue)))
		tell_done(queue, job(queue));
	if (queue->has_uring) {
		send_the_rest(queue);
		exit_uring(queue);
	}
	tell_end(queue);
	return NULL;
}

/* @last: one more than the last queue */
static void give(struct fuse_ring *ring, unsigned int first, unsigned int last,
		 ring_job job)
{
	unsigned int n;

	pthread_mutex_lock(&ring->lock);
	for (n = first; n < last; n++)
		ring->queues[n].job = job;
	pthread_cond_broadcast(&ring->job_done);
	pthread_mutex_unlock(&ring->lock);
}

/* Gives the job and waits until it is done. -> the first queue that failed */
static struct ring_queue *have_done(struct fuse_ring *ring, unsigned int first,
				    unsigned int last, ring_job job)
{
	struct ring_queue *failed = NULL;
	unsigned int n;

	give(ring, first, last, job);
	pthread_mutex_lock(&ring->lock);
	for (n = first; n < last; n++) {
		struct ring_queue *queue = &ring->queues[n];

		while (queue->job && !queue->ended)
			pthread_cond_wait(&ring->job_done, &ring->lock);
		if (queue->error && !failed)
			failed = queue;
	}
	pthread_mutex_unlock(&ring->lock);
	return failed;
}

static int start_threads(struct fuse_ring *ring)
{
	sigset_t ending, before;
	unsigned int n;
	int err = 0;

	/* libfuse interrupts an operation by a signal to its thread. */
	workers_signals_to_block(&ending);
	pthread_sigmask(SIG_BLOCK, &ending, &before);
	for (n = 0; n < ring->nr_queues && !err; n++) {
		err = -pthread_create(&ring->queues[n].thread, NULL,
				      queue_thread, &ring->queues[n]);
		ring->queues[n].has_thread = !err;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

static struct fuse_ring *ring_alloc(unsigned int nr_queues)
{
	struct fuse_ring *ring;
	unsigned int n;

	ring = calloc(1, sizeof(*ring) + nr_queues * sizeof(ring->queues[0]));
	if (!ring)
		return NULL;
	if (workers_init(&ring->workers, 0, run_work)) {
		free(ring);
		return NULL;
	}
	pthread_mutex_init(&ring->lock, NULL);
	pthread_mutex_init(&ring->handler_lock, NULL);
	pthread_cond_init(&ring->job_done, NULL);
	ring->nr_queues = nr_queues;
	for (n = 0; n < nr_queues; n++) {
		ring->queues[n].ring = ring;
		ring->queues[n].qid = n;
		ring->queues[n].event_fd = -1;
		memset(ring->queues[n].blocking_files, 0xff,
		       sizeof(ring->queues[n].blocking_files));
	}
	return ring;
}

/* And not because of what the kernel does not have */
static int off_because_of(struct fuse_ring *ring, const char *call, int err)
{
	snprintf(ring->why_not_more, sizeof(ring->why_not_more), "%s: %s", call,
		 strerror(-err));
	return err;
}

/* Whatever can fail before INIT is answered */
static int get_ready(struct fuse_ring *ring)
{
	struct ring_queue *failed;
	unsigned int n;
	int err;

	err = start_threads(ring);
	if (err)
		return off_because_of(ring, "pthread_create()", err);
	failed = have_done(ring, 0, ring->nr_queues, prepare_queue);
	if (failed)
		return off_because_of(ring, failed->call, failed->error);
	for (n = 0; n < ring->nr_queues; n++)
		ring->queues[n].mode = ring->mode;
	/* Where one of them cannot have what the mode takes, none does. */
	while ((failed = have_done(ring, 0, ring->nr_queues, modes_reserve))) {
		err = failed->error;
		if (!modes_lower_all(ring, failed, err))
			return err;
	}
	return 0;
}

/* What was asked for is not always to be told. */
static void log_off(struct fuse_ring *ring, int err)
{
	if (ring->options.mode == FUSE_RING_OFF)
		return;
	if (ring->why_not_more[0])
		ring_log(&ring->options, "off, %s", ring->why_not_more);
	else
		ring_log(&ring->options, "off, io_uring: %s", strerror(-err));
}

static uint64_t file_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_FSIZE, &limit) || limit.rlim_cur == RLIM_INFINITY ?
	       UINT64_MAX : limit.rlim_cur;
}

int ring_prepare(struct fuse_ring **result,
		 const struct fuse_ring_connection *connection,
		 const struct fuse_ring_options *given, uint32_t headroom,
		 fuse_ring_handler handler, void (*handled)(void *data),
		 void *data)
{
	struct fuse_ring_options options = ring_options_or_default(given);
	struct fuse_ring *ring;
	int err;

	*result = NULL;
	if (options.depth > 65535 || !ring_pools_make_sense(&options)) {
		ring_log(&options, "off, the options make no sense");
		return -EINVAL;
	}
	ring = ring_alloc(queue_count());
	if (!ring) {
		ring_log(&options, "off, %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	memcpy(&ring->connection, connection,
	       connection->size && connection->size < sizeof(*connection) ?
	       connection->size : sizeof(*connection));
	ring->options = options;
	ring->headroom = headroom;
	ring->handler = handler;
	ring->handled = handled;
	ring->data = data;
	ring->workers.max = options.workers;
	ring->file_limit = file_limit();

	err = modes_choose(ring);
	if (!err)
		err = get_ready(ring);
	if (err) {
		log_off(ring, err);
		fuse_ring_free(ring);
		return err;
	}
	*result = ring;
	return 0;
}

int fuse_ring_prepare(struct fuse_ring **ring,
		      const struct fuse_ring_connection *connection,
		      const struct fuse_ring_options *options,
		      fuse_ring_handler handler, void *data)
{
	return ring_prepare(ring, connection, options, 0, handler, NULL, data);
}

static void log_mode(struct fuse_ring *ring)
{
	const struct ring_queue *queue = ring->queues;
	struct utsname kernel = {};
	unsigned int requests;
	size_t payload;

	while (queue->mode != ring->mode)
		queue++;
	requests = ring->options.depth < queue->layout.depth ?
		   ring->options.depth : queue->layout.depth;
	/* Memory of spare entries is not touched, unless it is pinned. */
	payload = queue_layout_payload_bytes(&queue->layout,
					     queue->layout.pinned_buffers ?
					     queue->layout.depth : requests);
	uname(&kernel);
	ring_log(&ring->options,
		 "%s, %u queues of %u requests and %zu KiB of payload buffers (%s, Linux %s)%s%s",
		 fuse_ring_mode_name(ring->mode), ring->nr_queues, requests,
		 payload / 1024,
		 fuse_ring_interface_name(queue->layout.door->interface),
		 kernel.release, ring->why_not_more[0] ? "; " : "",
		 ring->why_not_more);
}

/* What all queues have: the later ones may have had to do with less. */
static enum fuse_ring_mode lowest_mode(const struct fuse_ring *ring)
{
	enum fuse_ring_mode lowest = ring->mode;
	unsigned int n;

	for (n = 0; n < ring->nr_queues; n++)
		if (ring->queues[n].mode < lowest)
			lowest = ring->queues[n].mode;
	return lowest;
}

/* The others follow what works for the first one, or less. */
static int one_by_one(struct fuse_ring *ring, ring_job job)
{
	struct ring_queue *first = ring->queues, *failed;
	unsigned int n;

	failed = have_done(ring, 0, 1, job);
	if (!failed) {
		ring->mode = first->mode;
		for (n = 1; n < ring->nr_queues; n++) {
			if (ring->queues[n].mode > first->mode)
				ring->queues[n].mode = first->mode;
			ring->queues[n].in_place |= first->in_place;
		}
		failed = have_done(ring, 1, ring->nr_queues, job);
	}
	return failed ? failed->error : 0;
}

int fuse_ring_start(struct fuse_ring *ring)
{
	int err;

	err = one_by_one(ring, modes_open);
	if (!err)
		err = one_by_one(ring, modes_register);
	if (err) {
		log_off(ring, err);
		fuse_ring_stop(ring);
		return err;
	}
	ring->mode = lowest_mode(ring);
	give(ring, 0, ring->nr_queues, run_queue);
	log_mode(ring);
	return 0;
}

enum fuse_ring_mode fuse_ring_mode(const struct fuse_ring *ring)
{
	return ring->mode;
}

static void wake_all(struct fuse_ring *ring)
{
	unsigned int n;

	for (n = 0; n < ring->nr_queues; n++)
		if (ring->queues[n].has_thread && ring->queues[n].event_fd >= 0)
			wake(&ring->queues[n]);
}

void fuse_ring_stop(struct fuse_ring *ring)
{
	unsigned int n;

	if (ring->stopped)
		return;
	ring->stopped = true;
	pthread_mutex_lock(&ring->lock);
	atomic_store(&ring->stopping, true);
	pthread_cond_broadcast(&ring->job_done);
	wake_all(ring);
	/* Handlers run in the queues' threads and in those of the workers. */
	for (n = 0; n < ring->nr_queues; n++)
		while (ring->queues[n].has_thread && !ring->queues[n].ended)
			pthread_cond_wait(&ring->job_done, &ring->lock);
	pthread_mutex_unlock(&ring->lock);
	workers_stop(&ring->workers);
	atomic_store(&ring->closed, true);
	wake_all(ring);
	for (n = 0; n < ring->nr_queues; n++)
		if (ring->queues[n].has_thread)
			pthread_join(ring->queues[n].thread, NULL);
}

void fuse_ring_free(struct fuse_ring *ring)
{
	unsigned int n, slot;

	if (!ring)
		return;
	fuse_ring_stop(ring);
	for (n = 0; n < ring->nr_queues; n++) {
		struct ring_queue *queue = &ring->queues[n];

		/* Those that are being refused */
		while (atomic_load(&queue->replying))
			usleep(END_PERIOD_US);
		queue_memory_unmap(&queue->memory);
		for (slot = 0; queue->reqs && slot < queue->layout.depth; slot++)
			free_reply(&queue->reqs[slot]);
		free(queue->reqs);
		if (queue->event_fd >= 0)
			close(queue->event_fd);
	}
	workers_destroy(&ring->workers);
	pthread_cond_destroy(&ring->job_done);
	pthread_mutex_destroy(&ring->handler_lock);
	pthread_mutex_destroy(&ring->lock);
	free(ring);
}

/*
 * For handlers
 */

const void *fuse_ring_req_in(const struct fuse_ring_req *req)
{
	return &req->in;
}

const void *fuse_ring_req_op(const struct fuse_ring_req *req)
{
	return req->header->op_in;
}

void *fuse_ring_req_payload(const struct fuse_ring_req *req, size_t *used,
			    size_t *room)
{
	if (used)
		*used = req->zero_copied ? 0 : req->used;
	if (room)
		*room = req->room;
	return req->payload;
}

bool fuse_ring_req_zero_copied(const struct fuse_ring_req *req)
{
	return req->zero_copied;
}

/*
 * Of another thread than the queue's, which may be one that the end knows nothing
 * of: after this a reply goes out, or is refused.
 */
static void begin_reply(struct ring_queue *queue)
{
	if (this_queue != queue)
		atomic_fetch_add(&queue->replying, 1);
}

/* The queue may be gone right after it. */
static void end_reply(struct ring_queue *queue)
{
	if (this_queue != queue)
		atomic_fetch_sub(&queue->replying, 1);
}

/* Takes the request from whoever else might answer it. */
static int claim(struct fuse_ring_req *req)
{
	struct ring_queue *queue = req->queue;
	int err = 0;

	begin_reply(queue);
	if (atomic_load(&queue->ring->closed))
		err = -ENOTCONN;
	else if (!atomic_exchange(&req->cookie, 0))
		err = -EALREADY;
	if (err)
		end_reply(queue);
	return err;
}

/* Error and data are there. */
static void reply_done(struct fuse_ring_req *req)
{
	struct ring_queue *queue = req->queue;

	req_put(req);
	end_reply(queue);
}

/*
 * Where the data of a reply goes. What the request brought lies in the same
 * buffer as the reply will, and is the handler's until that returns.
 */
static char *place_of_reply(struct fuse_ring_req *req, const struct iovec *iov,
			    int count, size_t len)
{
	bool in_place = count == 1 && iov[0].iov_base == req->payload;

	if (in_place || !len || !req->used || req->zero_copied ||
	    atomic_load(&req->holders) < 2)
		return req->payload;
	req->reply = len <= sizeof(req->small_reply) ? req->small_reply :
						       malloc(len);
	return req->reply;
}

int fuse_ring_reply(struct fuse_ring_req *req, int error,
		    const struct iovec *iov, int count)
{
	char *place = NULL;
	size_t len = 0;
	int n, err;

	for (n = 0; !error && n < count; n++)
		len += iov[n].iov_len;
	if (len > req->room)
		return -EMSGSIZE;
	err = claim(req);
	if (err)
		return err;

	if (!error) {
		place = place_of_reply(req, iov, count, len);
		if (!place && len)
			error = -ENOMEM;
	}
	req->error = error;
	req->reply_len = error ? 0 : len;
	/*
	 * From the end, as it is the last part that may be what the request
	 * brought, which those before it may go over.
	 */
	for (n = count; !error && n--;) {
		len -= iov[n].iov_len;
		if (iov[n].iov_base != place + len)
			memmove(place + len, iov[n].iov_base, iov[n].iov_len);
	}
	reply_done(req);
	return 0;
}

static ssize_t move(struct fuse_ring_req *req, int flags)
{
	struct iovec rest = {
		.iov_base = (char *)req->payload + req->done,
		.iov_len = req->len - req->done,
	};
	off_t offset = req->offset + req->done;
	ssize_t n;

	if (req->in.opcode == FUSE_READ)
		n = preadv2(req->fd, &rest, 1, offset, flags);
	else
		n = pwritev2(req->fd, &rest, 1, offset, flags);
	return n < 0 ? -errno : n;
}

/* All of it, however long it takes */
static int move_all(struct fuse_ring_req *req)
{
	ssize_t n;

	do {
		n = move(req, 0);
		if (n > 0)
			req->done += n;
	} while (n == -EINTR || (n > 0 && req->done < req->len));
	return n < 0 ? n : 0;
}

/* What there is at once. -EAGAIN: the rest has to be waited for. */
static int move_without_waiting(struct fuse_ring_req *req)
{
	int *blocking = &req->queue->blocking_files[req->in.opcode == FUSE_WRITE]
						   [(unsigned int)req->fd % 64];
	ssize_t n;
	int err;

	/*
	 * Files in memory do not know RWF_NOWAIT, and do not wait. Others may
	 * not know it for writes: these go to the page cache, and another
	 * thread for each would cost more than what they wait.
	 */
	if (*blocking == req->fd)
		return move_all(req);
	n = move(req, RWF_NOWAIT);
	/* EINVAL: f2fs and ntfs3 say so of writes to the page cache */
	if (n == -EOPNOTSUPP ||
	    (n == -EINVAL && req->in.opcode == FUSE_WRITE)) {
		err = move_all(req);
		/* An EINVAL that was meant says nothing about the file. */
		if (!err)
			*blocking = req->fd;
		return err;
	}
	if (n > 0)
		req->done += n;
	if (n == 0 || req->done == req->len)
		return 0;
	return n > 0 ? -EAGAIN : n;
}

int fuse_ring_reply_from_file(struct fuse_ring_req *req, int fd, off_t offset,
			      size_t len)
{
	size_t most = req->in.opcode == FUSE_READ ? req->room : req->used;
	int err;

	err = claim(req);
	if (err)
		return err;
	req->fd = fd;
	req->offset = offset;
	req->len = req->zero_copied || len < most ? len : most;
	if (!req->zero_copied) {
		if (this_queue == req->queue)
			err = move_without_waiting(req);
		else
			err = move_all(req);
		if (err != -EAGAIN) {
			req->fd = -1;
			fill_ended(req, err);
		}
	}
	reply_done(req);
	return 0;
}

/*
 * For sessions
 */

struct fuse_ring_req *ring_acquire(struct fuse_ring *ring, uint64_t cookie)
{
	unsigned int qid = cookie >> 16 & 0xffff, slot = cookie & 0xffff;
	struct fuse_ring_req *req;

	if (qid >= ring->nr_queues || slot >= ring->queues[qid].layout.depth)
		return NULL;
	req = &ring->queues[qid].reqs[slot];
	begin_reply(&ring->queues[qid]);
	if (atomic_load(&req->cookie) == cookie)
		return req;
	end_reply(&ring->queues[qid]);
	return NULL;
}

void ring_release(struct fuse_ring_req *req)
{
	end_reply(req->queue);
}

uint64_t ring_find_unique(struct fuse_ring *ring, uint64_t unique, bool *begun)
{
	unsigned int qid, slot;

	for (qid = 0; qid < ring->nr_queues; qid++) {
		for (slot = 0; slot < ring->queues[qid].layout.depth; slot++) {
			struct fuse_ring_req *req =
				&ring->queues[qid].reqs[slot];
			uint64_t cookie = atomic_load(&req->cookie);

			*begun = atomic_load(&req->begun);
			if (cookie && atomic_load(&req->unique) == unique &&
			    atomic_load(&req->cookie) == cookie)
				return cookie;
		}
	}
	return 0;
}

uint64_t ring_rounds(struct fuse_ring *ring)
{
	unsigned int round = atomic_load(&ring->round), n;

	for (n = 0; n < ring->nr_queues; n++)
		if (atomic_load(&ring->queues[n].round) != round)
			return ring->rounds;
	atomic_store(&ring->round, round + 1);
	/* Those that wait for requests have nothing to come back for. */
	wake_all(ring);
	return ++ring->rounds;
}

void *ring_req_linear(struct fuse_ring_req *req, uint64_t unique, size_t *len)
{
	struct fuse_in_header in = req->in;
	size_t op_len = 0, payload = req->used;
	char *start;

	if (in.len > sizeof(in) + payload)
		op_len = in.len - sizeof(in) - payload;
	if (op_len > sizeof(req->header->op_in))
		op_len = sizeof(req->header->op_in);
	in.unique = unique;
	*len = in.len;
	if (req->zero_copied || !payload || !req->payload) {
		/* The header slot is one piece already, but for a gap. */
		start = req->header->in_out;
		memmove(start + sizeof(in), req->header->op_in, op_len);
	} else {
		start = (char *)req->payload - op_len - sizeof(in);
		memcpy(start + sizeof(in), req->header->op_in, op_len);
	}
	memcpy(start, &in, sizeof(in));
	return start;
}
