/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * fuse_ring: FUSE servers over io_uring, with pooled buffers, pinned memory and
 * zero-copy where the kernel has them.
 *
 * Two ways to use it:
 *
 * - A server on libfuse's low-level interface runs its session with
 *   fuse_ring_session_loop() instead of fuse_session_loop(). All else stays,
 *   and fuse_ring_reply_fd() lets it move file data without copying.
 * - A server with a protocol implementation of its own starts the transport
 *   with fuse_ring_prepare() and fuse_ring_start() around its answer to INIT,
 *   and gets each request in a callback.
 *
 * A server that cannot be changed at all is run with libfuse_ring_preload.so,
 * see fuse_ring(7).
 *
 * Functions that return int give 0 or a negative errno, unless they say
 * otherwise. Sizes are in bytes. Structs that begin with @size are to be
 * cleared and that field set to their sizeof(): later versions append fields,
 * and 0 means the default.
 */
#ifndef FUSE_RING_H
#define FUSE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FUSE_RING_MAX_POOLS 4

/* How requests travel, from the least to the most the kernel can do */
enum fuse_ring_mode {
	FUSE_RING_AUTO,		/* the best of the others that works here */
	FUSE_RING_OFF,		/* /dev/fuse */
	FUSE_RING_LEGACY,	/* io_uring, a payload buffer per entry */
	FUSE_RING_POOLED,	/* io_uring, payload buffers from a pool */
	FUSE_RING_PINNED,	/* the same in pinned memory */
	FUSE_RING_ZERO_COPY,	/* and file data straight to the client */
};

/*
 * Which interface of the kernel they travel by. Buffer rings and buffer pools
 * both have the modes from POOLED on; the legacy mode has entries.
 */
enum fuse_ring_interface {
	FUSE_RING_ANY,		/* the best that the kernel has */
	FUSE_RING_BUFRING,	/* buffer rings */
	FUSE_RING_BUFPOOL,	/* buffer pools, of Linux 7.3 */
	FUSE_RING_ENTRIES,	/* a payload buffer per entry, of Linux 6.14 */
};

/* Payload buffers of one size */
struct fuse_ring_pool {
	uint32_t buf_size;	/* of each */
	uint32_t nr;		/* how many per queue */
};

/**
 * struct fuse_ring_options - how to serve a connection
 * @size: sizeof(struct fuse_ring_options)
 * @mode: the mode wanted; a mode other than AUTO is an error where it cannot
 *	be had, and the connection is then served over /dev/fuse
 * @auto_best: the best mode that AUTO may choose; 0: any
 * @depth: requests in flight per queue, 1 to 65535; 0: 16
 * @nr_pools: entries of @pool that are used; 0: @depth buffers of a page and
 *	four of the connection's largest payload. Requests wait where all
 *	buffers of a queue that are large enough are taken. Only for buffer
 *	rings: elsewhere there is a buffer of the largest payload for each
 *	request in flight.
 * @pool: payload buffers per queue, sizes rising; rounded up to pages, and the
 *	last pool's to the connection's largest payload
 * @workers: threads besides those of the queues to run the handler in. 0: the
 *	handler runs in the thread of the queue that the request came from, so
 *	one that blocks holds up the other requests of that queue; only a
 *	request to wait for a lock gets a thread of its own. N: up to N at
 *	once, and threads are made when they are needed.
 * @serialize: never run two handlers at once, for servers that are not
 *	thread-safe
 * @zero_copy_all: zero-copy every READ and WRITE, not only those of files
 *	that fuse_ring_zero_copy_open() was called for; without effect over
 *	buffer pools
 * @log: is told, in one line without newline, what mode was chosen and why
 *	not a better one, and what failed; NULL: standard error
 * @log_data: passed to @log
 * @interface: as @mode, what is asked for by name and cannot be had is an error
 */
struct fuse_ring_options {
	size_t size;
	enum fuse_ring_mode mode;
	enum fuse_ring_mode auto_best;
	unsigned int depth;
	unsigned int nr_pools;
	struct fuse_ring_pool pool[FUSE_RING_MAX_POOLS];
	unsigned int workers;
	bool serialize;
	bool zero_copy_all;
	void (*log)(void *log_data, const char *line);
	void *log_data;
	enum fuse_ring_interface interface;
};

/**
 * fuse_ring_option_parse() - read one option as written on a command line
 * @options: is changed accordingly
 * @text: "ring=MODE" (auto, off, legacy, pooled, pinned, zero-copy),
 *	"ring_interface=NAME" (bufring, bufpool, entries), "ring_depth=N",
 *	"ring_pool=SIZE:COUNT" (SIZE with k or m; up to four times, sizes
 *	rising) or "ring_workers=N"; names in upper or lower case
 *
 * Return: 1 if it was such an option, 0 if it is none of ours, -EINVAL for a
 * value that makes no sense
 */
int fuse_ring_option_parse(struct fuse_ring_options *options, const char *text);

/* The options of fuse_ring_option_parse() as lines for a --help text */
const char *fuse_ring_options_help(void);

/* "auto", "off", "legacy", "pooled", "pinned" or "zero-copy" */
const char *fuse_ring_mode_name(enum fuse_ring_mode mode);

/* "any", "bufring", "bufpool" or "entries" */
const char *fuse_ring_interface_name(enum fuse_ring_interface interface);

/*
 * Transport
 */

struct fuse_ring;
struct fuse_ring_req;

/**
 * struct fuse_ring_connection - what INIT agreed on
 * @size: sizeof(struct fuse_ring_connection)
 * @dev_fd: the /dev/fuse file descriptor; stays the caller's, who keeps it
 *	open and goes on serving it: FORGET, INTERRUPT and requests that come
 *	before the rings are ready arrive there
 * @kernel_flags: flags of fuse_init_in, @flags2 in the upper half
 * @max_write: of fuse_init_out
 * @max_pages: of fuse_init_out, with what the kernel takes for 0: 32
 * @locks: FUSE_POSIX_LOCKS or FUSE_FLOCK_LOCKS was agreed on, so that requests
 *	may wait for a lock
 */
struct fuse_ring_connection {
	size_t size;
	int dev_fd;
	uint64_t kernel_flags;
	uint32_t max_write;
	uint32_t max_pages;
	bool locks;
};

/**
 * typedef fuse_ring_handler - is given one request
 * @req: to be answered once, with one of the reply functions, by any thread,
 *	now or later; it is gone with that
 * @data: as given to fuse_ring_start()
 *
 * Runs in a thread of the ring, several at once.
 */
typedef void (*fuse_ring_handler)(struct fuse_ring_req *req, void *data);

/**
 * fuse_ring_prepare() - get everything ready before INIT is answered
 * @ring: where the new ring is stored, to be released with fuse_ring_free()
 * @connection: what INIT is going to agree on
 * @options: NULL for the defaults
 * @handler: called for every request
 * @data: passed to @handler
 *
 * A connection that agreed to FUSE_OVER_IO_URING answers no client until all
 * queues are registered or io-uring was given up. So whatever can fail for
 * lack of memory, descriptors or permission to use io_uring is done here.
 *
 * Return: 0, and INIT may be answered with FUSE_OVER_IO_URING, which
 * fuse_ring_start() has to follow; or the error that means that the connection
 * is to be served over /dev/fuse alone: -EOPNOTSUPP if the kernel does not
 * offer it, or FUSE_RING_OFF was asked for
 */
int fuse_ring_prepare(struct fuse_ring **ring,
		      const struct fuse_ring_connection *connection,
		      const struct fuse_ring_options *options,
		      fuse_ring_handler handler, void *data);

/**
 * fuse_ring_start() - serve the connection
 * @ring: a prepared ring
 *
 * Call it right after the reply to INIT was written. It registers every queue
 * in the mode asked for or, for AUTO, in the best that works. Where none does,
 * io-uring is turned off for the connection, which goes on over /dev/fuse:
 * clients see no error and do not hang. What it got, and why not more, is told
 * to options->log.
 *
 * Return: 0; or the error that stood in the way, and then @ring is stopped and
 * only good for fuse_ring_free()
 */
int fuse_ring_start(struct fuse_ring *ring);

/* The mode that all queues have once started, never FUSE_RING_AUTO */
enum fuse_ring_mode fuse_ring_mode(const struct fuse_ring *ring);

/**
 * fuse_ring_stop() - end the threads
 * @ring: no handler is called any more; those that run are waited for, and
 *	what was answered until then is sent
 *
 * Data that is still on its way from or to a file is waited for up to a second,
 * but not if the request is zero-copied and was answered before this call. Not
 * to be called from a handler. A reply that another thread than that of a
 * handler gives meanwhile is sent, or refused with -ENOTCONN, as all are that
 * come later; one from or to a file is waited for. The connection does not work
 * any more.
 */
void fuse_ring_stop(struct fuse_ring *ring);

/**
 * fuse_ring_free() - release a stopped ring
 * @ring: is stopped if it was not; no other function may be called for it or
 *	its requests any more, and none may run; NULL does nothing
 */
void fuse_ring_free(struct fuse_ring *ring);

/* The request's struct fuse_in_header */
const void *fuse_ring_req_in(const struct fuse_ring_req *req);

/* Its per-operation struct, 128 bytes of which are there */
const void *fuse_ring_req_op(const struct fuse_ring_req *req);

/**
 * fuse_ring_req_payload() - the request's payload buffer
 * @req: the request
 * @used: where the number of bytes the request brought is stored, or NULL
 * @room: where the size of the buffer is stored, or NULL: that much reply
 *	data can be put into it
 *
 * The reply's data may be built right in it.
 *
 * Return: the buffer, or NULL if the request has none: it neither brought data
 * in memory nor can it be answered with any
 */
void *fuse_ring_req_payload(const struct fuse_ring_req *req, size_t *used,
			    size_t *room);

/* Is the data of this READ or WRITE in the client's memory, not in a buffer? */
bool fuse_ring_req_zero_copied(const struct fuse_ring_req *req);

/**
 * fuse_ring_reply() - answer a request
 * @req: the request
 * @error: 0 or a negative errno for the client
 * @iov: the reply's data, NULL if there is none. A part that is already in
 *	its place in the payload buffer is not copied; only the last one may be
 *	in another place of that buffer.
 * @count: entries of @iov
 *
 * What the request brought stays as it is until the handler returns, unless the
 * reply was built in the payload buffer.
 *
 * Return: 0 if it is on its way to the kernel; -EMSGSIZE if the data does not
 * fit, and the request stays; -ENOTCONN after fuse_ring_stop()
 */
int fuse_ring_reply(struct fuse_ring_req *req, int error,
		    const struct iovec *iov, int count);

/**
 * fuse_ring_reply_from_file() - answer a READ from, or a WRITE to, a file
 * @req: a FUSE_READ or FUSE_WRITE request
 * @fd: the file; has to stay open until the client was answered, which the
 *	file's FUSE_RELEASE comes after
 * @offset: where in the file
 * @len: how much of it; what the client asked for or less
 *
 * Moves the data straight between the file and the client's memory where the
 * request is zero-copied, and between the file and the payload buffer
 * otherwise. In a queue's thread (see options->workers) it does not wait where
 * the file system can be told not to (RWF_NOWAIT), which most can for reads;
 * elsewhere it takes as long as read() or write() would.
 *
 * Return: as fuse_ring_reply(); errors of the file go to the client
 */
int fuse_ring_reply_from_file(struct fuse_ring_req *req, int fd, off_t offset,
			      size_t len);

/*
 * libfuse sessions; <fuse_lowlevel.h> of libfuse 3.13 or later declares the
 * types.
 */

struct fuse_session;
struct fuse_bufvec;
struct fuse_req;

/**
 * fuse_ring_session_loop() - run a mounted session over the rings
 * @se: a session after fuse_session_mount(), before INIT
 * @options: NULL for the defaults
 *
 * Takes the place of fuse_session_loop() and fuse_session_loop_mt(): returns
 * when the file system is unmounted, after fuse_session_exit() in an operation,
 * or when a signal that fuse_set_signal_handlers() handles arrived. Replies may
 * come from any thread, and also after it returned: they are refused then.
 *
 * Return: as fuse_session_loop()
 */
int fuse_ring_session_loop(struct fuse_session *se,
			   const struct fuse_ring_options *options);

/**
 * fuse_ring_reply_fd() - answer a READ from, or a WRITE to, a file
 * @req: a request of a session that fuse_ring_session_loop() runs or ran, in any
 *	thread, before or after the operation returned
 * @fd: the file; has to stay open until the file's RELEASE
 * @offset: where in the file
 * @size: how many bytes to read, or the number of bytes of @data
 * @data: NULL for a READ. The data of a WRITE as the write_buf operation got it
 *	or, once that returned, as fuse_ring_keep_data() gave it; stays the
 *	caller's
 *
 * The answer to the client and the end of @req, like fuse_reply_data(): by
 * zero-copy where that is on, else by reading into, or writing from, the
 * payload buffer, else, for a request that came over /dev/fuse, by what
 * libfuse has. In a thread that is not the queue's it takes as long as read()
 * or write() would, unless the request is zero-copied.
 *
 * Return: 0 or a negative errno, -ENOTCONN when the session is over; @req is
 * gone in either case. As with all replies of libfuse's, that is as long as
 * there is a session: until fuse_session_destroy().
 */
int fuse_ring_reply_fd(struct fuse_req *req, int fd, off_t offset, size_t size,
		       struct fuse_bufvec *data);

/**
 * fuse_ring_keep_data() - keep the data of a WRITE beyond its operation
 * @req: a WRITE, in the thread that libfuse called the operation in, and before
 *	the operation returns
 * @data: as the write_buf operation got it, which is gone when it returns
 *
 * Nothing is copied if the request came over a ring: its data stays where it
 * is until @req is answered.
 *
 * Return: one buffer in memory, for fuse_ring_reply_fd() in any thread, to be
 * released with free() after it; or NULL with errno set, and @req is still to be
 * answered. Only of a file that fuse_ring_zero_copy_open() was not called for
 * may the data be looked at, and only until then.
 */
struct fuse_bufvec *fuse_ring_keep_data(struct fuse_req *req,
					struct fuse_bufvec *data);

/**
 * fuse_ring_zero_copy_open() - opt a file in to zero-copy
 * @req: an OPEN, CREATE or TMPFILE request about to be answered with success:
 *	in the thread that libfuse called the operation in, for the request of
 *	that operation; or, in a thread that runs no operation, right before the
 *	answer
 *
 * Only for files whose every READ and WRITE is answered with
 * fuse_ring_reply_fd() or with an error: their data is not in memory. The file
 * that it comes from or goes to has to know more than read() and write():
 * files that the kernel makes up, as in /proc, may not, and the client gets
 * EFAULT. Without effect where zero-copy is not on.
 */
void fuse_ring_zero_copy_open(struct fuse_req *req);

#ifdef __cplusplus
}
#endif

#endif
