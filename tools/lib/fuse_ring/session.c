// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * libfuse's low-level sessions over the rings.
 *
 * libfuse parses requests from memory and writes replies through a function
 * that fuse_session_custom_io() sets. So a request of a ring is shown to it as
 * if it had been read from /dev/fuse, with a number of our own as its unique;
 * and the reply that carries this number goes to the ring.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "interrupts.h"
#include "ring.h"
#include "session.h"

/* How long a notification waits for the answer to INIT */
#define INIT_SECONDS		10

struct session {
	struct session *next;
	struct fuse_session *se;
	unsigned int id;	/* in the cookies */
	/*
	 * libfuse's descriptor of /dev/fuse, and a duplicate of it. Any thread
	 * may unmount the session, after which another file may get the number,
	 * and libfuse knows none: all I/O is done on @fd.
	 */
	int number;
	int fd;
	struct fuse_ring_options options;
	const struct session_loops *loops;
	bool has_io;		/* libfuse sends answers through session_writev() */
	uint64_t kernel_flags;
	struct fuse_ring *ring;
	size_t buffer_size;
	int wake_fd;		/* eventfd: to look again at what to do; or -1 */
	struct interrupts interrupts;
};

/*
 * Sessions whose rings run. Who answers holds the lock to find the request, not
 * longer: a server that always answers must not keep another one waiting.
 */
#ifdef PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
static pthread_rwlock_t sessions_lock =
	PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
#else
static pthread_rwlock_t sessions_lock = PTHREAD_RWLOCK_INITIALIZER;
#endif
static struct session *sessions;
static unsigned int last_id;

/* Some session has or had rings. Its requests may outlive it. */
static atomic_bool rings_used;

/* What the operation that libfuse calls in this thread is about */
static __thread struct fuse_ring_req *current;
static __thread uint64_t current_cookie;
static __thread struct session *answers_init;

/*
 * What fuse_ring_reply_fd() is to answer with. Whose request it is only libfuse
 * knows: it is made to send some answer, in place of which this goes out.
 */
struct file_reply {
	int fd;
	off_t offset;
	size_t size;
	struct fuse_bufvec *data;
};

static __thread const struct file_reply *file_reply;

/* The next answer of this thread opens a file for zero-copy. */
static __thread bool opens_for_zero_copy;

/* The session whose /dev/fuse this thread serves */
static __thread struct session *looping;

/*
 * Written while INIT is answered, with all that is prepared before. A thread of
 * the server may send a notification by then, which the kernel refuses until it
 * has the answer.
 */
static pthread_rwlock_t init_lock = PTHREAD_RWLOCK_INITIALIZER;

/*
 * Replies
 */

/* Asks the kernel to look at the file's opt-in. */
static void opt_in(const struct fuse_ring_req *req, struct iovec *iov,
		   int count, void *copy, size_t size)
{
	size_t at = req->in.opcode == FUSE_OPEN ?
		    0 : sizeof(struct fuse_entry_out);
	struct fuse_open_out *open = (void *)((char *)copy + at);

	if (count != 2 || iov[1].iov_len > size ||
	    iov[1].iov_len < at + sizeof(*open))
		return;
	memcpy(copy, iov[1].iov_base, iov[1].iov_len);
	open->open_flags |= FOPEN_IO_URING_ZERO_COPY;
	iov[1].iov_base = copy;
}

static bool opens_a_file(const struct fuse_ring_req *req)
{
	return req->in.opcode == FUSE_OPEN || req->in.opcode == FUSE_CREATE ||
	       req->in.opcode == FUSE_TMPFILE;
}

static int reply_to_ring(struct fuse_ring_req *req, struct iovec *iov,
			 int count, bool zero_copy)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} opened;
	int err;

	if ((zero_copy || req->zero_copy_open) && opens_a_file(req) && !out->error)
		opt_in(req, iov, count, &opened, sizeof(opened));
	err = fuse_ring_reply(req, out->error, iov + 1, count - 1);
	if (err == -EMSGSIZE) {
		/* As the kernel does with replies that are too long */
		fuse_ring_reply(req, -EIO, NULL, 0);
		err = -EINVAL;
	}
	return err;
}

static struct session *find_session_locked(unsigned int id)
{
	struct session *session = sessions;

	while (session && session->id != id)
		session = session->next;
	return session;
}

/*
 * The request that a reply is for, NULL if there is none: it was answered, or its
 * session is over. It is the one of the operation that runs in this thread, or,
 * for replies in another thread or after the operation returned, looked for.
 */
static struct fuse_ring_req *acquire(uint64_t cookie)
{
	struct fuse_ring_req *req = NULL;
	struct session *session;

	if (current && current_cookie == cookie)
		return current;
	pthread_rwlock_rdlock(&sessions_lock);
	session = find_session_locked(ring_cookie_session(cookie));
	if (session)
		req = ring_acquire(session->ring, cookie);
	pthread_rwlock_unlock(&sessions_lock);
	return req;
}

static void release(struct fuse_ring_req *req)
{
	if (req != current)
		ring_release(req);
}

static void run_request(struct fuse_ring_req *req, void *data);
static void request_ran(void *data);

/*
 * On io_uring the kernel takes max_write and max_pages for the largest payload
 * of all requests. libfuse makes max_pages what max_write needs, but a SETXATTR
 * has a name and a value of its own size, and the reply to a LISTXATTR, too.
 */
static uint16_t enough_pages(const struct fuse_init_out *init)
{
	size_t xattr = XATTR_SIZE_MAX + XATTR_NAME_MAX + 1;
	uint16_t pages = queue_page_align(xattr) / getpagesize();

	return init->max_pages < pages ? pages : init->max_pages;
}

/* Agrees to io_uring if all that is needed for it is there. */
static void agree(struct session *session, struct fuse_init_out *init)
{
	struct fuse_ring_connection connection = {
		.size = sizeof(connection),
		.dev_fd = session->fd,
		.kernel_flags = session->kernel_flags,
		.max_write = init->max_write,
		.max_pages = 32,
		.locks = init->flags & (FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS),
	};
	size_t largest;

	if (init->flags & FUSE_MAX_PAGES)
		connection.max_pages = enough_pages(init);
	largest = connection.max_pages * getpagesize();
	if (largest < init->max_write)
		largest = init->max_write;
	session->buffer_size = FUSE_MIN_READ_BUFFER + largest;
	session->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (session->wake_fd < 0) {
		ring_log(&session->options, "off, eventfd: %s", strerror(errno));
		return;
	}
	if (ring_prepare(&session->ring, &connection, &session->options,
			 getpagesize(), run_request, request_ran, session)) {
		close(session->wake_fd);
		session->wake_fd = -1;
		return;
	}
	if (init->flags & FUSE_MAX_PAGES)
		init->max_pages = connection.max_pages;
	init->flags |= FUSE_INIT_EXT;
	init->flags2 |= FUSE_OVER_IO_URING >> 32;
}

static ssize_t answer_init(struct session *session, struct iovec *iov,
			   int count)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct fuse_init_out init;
	ssize_t written;

	pthread_rwlock_wrlock(&init_lock);
	if (!out->error && count == 2 && iov[1].iov_len == sizeof(init)) {
		memcpy(&init, iov[1].iov_base, sizeof(init));
		agree(session, &init);
		iov[1].iov_base = &init;
	}
	written = writev(session->fd, iov, count);
	pthread_rwlock_unlock(&init_lock);
	if (written < 0 && session->ring) {
		int error = errno;

		fuse_ring_free(session->ring);
		session->ring = NULL;
		errno = error;
	}
	return written;
}

static void wake(struct session *session)
{
	/* It can only fail where the loop has long been woken. */
	eventfd_write(session->wake_fd, 1);
}

/* libfuse hands an INTERRUPT back, which process_interrupt() made. */
static void take_interrupt_back(uint64_t cookie)
{
	struct fuse_ring_req *req = NULL;
	struct session *session;

	pthread_rwlock_rdlock(&sessions_lock);
	session = find_session_locked(ring_cookie_session(cookie));
	if (session)
		req = ring_acquire(session->ring, cookie);
	/* Else it is late. */
	if (req) {
		interrupts_add(&session->interrupts, atomic_load(&req->unique));
		wake(session);
		ring_release(req);
	}
	pthread_rwlock_unlock(&sessions_lock);
}

/*
 * Not if it is this thread that answers INIT; nor for ever: what the server does to
 * log a line may wait for the one who notifies.
 */
static void wait_for_init(void)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += INIT_SECONDS;
	if (!pthread_rwlock_timedrdlock(&init_lock, &end))
		pthread_rwlock_unlock(&init_lock);
}

/* What to write to for libfuse, which knows a session by its number */
static int device_of(int number, const struct fuse_out_header *out)
{
	/* Notifications have no unique. */
	if (!out->unique)
		wait_for_init();
	return looping && looping->number == number ? looping->fd : number;
}

/* Until the end of the file or an error -> bytes or a negative errno */
static ssize_t read_file(const struct file_reply *file, char *buffer)
{
	size_t done = 0;
	ssize_t n;

	do {
		n = pread(file->fd, buffer + done, file->size - done,
			  file->offset + done);
		if (n > 0)
			done += n;
	} while ((n > 0 && done < file->size) || (n < 0 && errno == EINTR));
	return n < 0 && !done ? -errno : (ssize_t)done;
}

/* Until an error: the kernel makes EIO of a short one with O_DIRECT. */
static ssize_t write_file(const struct file_reply *file)
{
	struct fuse_bufvec to = FUSE_BUFVEC_INIT(file->size);
	size_t done = 0;
	ssize_t n;

	to.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	to.buf[0].fd = file->fd;
	to.buf[0].pos = file->offset;
	do {
		n = fuse_buf_copy(&to, file->data, 0);
		if (n > 0)
			done += n;
	} while (n > 0 && done < file->size);
	return n < 0 && (!done || n != -EINTR) ? n : (ssize_t)done;
}

/* Of a request that came over /dev/fuse */
static ssize_t file_to_device(int device, const struct fuse_out_header *stands_for,
			      const struct file_reply *file)
{
	struct fuse_out_header out = { .unique = stands_for->unique };
	struct fuse_write_out written = {};
	struct iovec iov[] = {
		{ .iov_base = &out, .iov_len = sizeof(out) },
		{ .iov_base = &written, .iov_len = sizeof(written) },
	};
	void *buffer = NULL;
	ssize_t n;

	if (file->data) {
		n = write_file(file);
		written.size = n;
	} else {
		/* The file may be one with O_DIRECT. */
		n = -posix_memalign(&buffer, getpagesize(), file->size);
		if (!n)
			n = read_file(file, buffer);
		iov[1].iov_base = buffer;
		iov[1].iov_len = n < 0 ? 0 : n;
	}
	if (n < 0)
		out.error = n;
	out.len = sizeof(out) + (n < 0 ? 0 : iov[1].iov_len);
	n = writev(device, iov, n < 0 ? 1 : 2);
	free(buffer);
	return n < 0 ? n : (ssize_t)stands_for->len;
}

static int answer_ring(uint64_t cookie, struct iovec *iov, int count,
		       const struct file_reply *file, bool zero_copy)
{
	struct fuse_ring_req *req = acquire(cookie);
	int err;

	if (!req)
		return -ENOTCONN;
	if (file)
		err = fuse_ring_reply_from_file(req, file->fd, file->offset,
						file->size);
	else
		err = reply_to_ring(req, iov, count, zero_copy);
	release(req);
	return err;
}

static ssize_t session_writev(int fd, struct iovec *iov, int count,
			      void *userdata)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	const struct file_reply *file = file_reply;
	bool zero_copy = opens_for_zero_copy;
	int err;

	(void)userdata;
	if (answers_init && out->unique)
		return answer_init(answers_init, iov, count);
	if (out->unique & RING_INTERRUPT && out->unique & RING_COOKIE) {
		take_interrupt_back(out->unique & ~RING_INTERRUPT);
		return out->len;
	}
	file_reply = NULL;
	opens_for_zero_copy = false;
	if (!(out->unique & RING_COOKIE) && file)
		return file_to_device(device_of(fd, out), out, file);
	if (!(out->unique & RING_COOKIE))
		return writev(device_of(fd, out), iov, count);
	err = answer_ring(out->unique, iov, count, file, zero_copy);
	if (err) {
		errno = -err;
		return -1;
	}
	return out->len;
}

static int read_all(int fd, void *buffer, size_t size)
{
	ssize_t n;

	for (; size; size -= n, buffer = (char *)buffer + n) {
		n = read(fd, buffer, size);
		if (n == 0)
			return -EPIPE;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n < 0)
			n = 0;
	}
	return 0;
}

/* The data of a reply from a pipe, right to where the kernel takes it */
static int pipe_to_ring(struct fuse_ring_req *req,
			struct fuse_out_header *out, int pipe)
{
	size_t room, len = out->len - sizeof(*out);
	void *payload = fuse_ring_req_payload(req, NULL, &room);
	struct iovec iov[] = {
		{ .iov_base = out, .iov_len = sizeof(*out) },
		{ .iov_base = payload, .iov_len = len },
	};
	int err;

	if (len <= room) {
		err = read_all(pipe, payload, len);
		if (err)
			return err;
	}
	return reply_to_ring(req, iov, 2, false);
}

static int pipe_to_device(int fd, struct fuse_out_header *out, int pipe)
{
	struct fuse_out_header *reply = malloc(out->len);
	int err;

	if (!reply)
		return -ENOMEM;
	*reply = *out;
	err = read_all(pipe, reply + 1, out->len - sizeof(*out));
	if (!err && write(fd, reply, out->len) < 0)
		err = -errno;
	free(reply);
	return err;
}

/* libfuse has put a whole reply into a pipe, since it could be spliced. */
static ssize_t session_splice_send(int pipe, off_t *pipe_offset, int fd,
				   off_t *offset, size_t len,
				   unsigned int flags, void *userdata)
{
	struct fuse_out_header out;
	struct fuse_ring_req *req;
	int err;

	(void)pipe_offset;
	(void)offset;
	(void)flags;
	(void)userdata;
	err = read_all(pipe, &out, sizeof(out));
	if (!err && out.len != len)
		err = -EIO;
	if (!err && out.unique & RING_COOKIE) {
		req = acquire(out.unique);
		err = req ? pipe_to_ring(req, &out, pipe) : -ENOTCONN;
		if (req)
			release(req);
	} else if (!err) {
		err = pipe_to_device(device_of(fd, &out), &out, pipe);
	}
	if (err) {
		errno = -err;
		return -1;
	}
	return len;
}

static ssize_t session_splice(int from, off_t *from_offset, int to,
			      off_t *to_offset, size_t len, unsigned int flags,
			      void *userdata)
{
	(void)userdata;
	return splice(from, from_offset, to, to_offset, len, flags);
}

static ssize_t session_read(int fd, void *buffer, size_t size, void *userdata)
{
	(void)userdata;
	return read(fd, buffer, size);
}

/* Where no session has rings, and requests no cookies: libfuse knows it best. */
static int reply_fd_by_libfuse(fuse_req_t req, const struct file_reply *file)
{
	struct fuse_bufvec from = FUSE_BUFVEC_INIT(file->size);
	ssize_t n;

	if (file->data) {
		n = write_file(file);
		return n < 0 ? fuse_reply_err(req, -n) : fuse_reply_write(req, n);
	}
	from.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	from.buf[0].fd = file->fd;
	from.buf[0].pos = file->offset;
	return fuse_reply_data(req, &from, FUSE_BUF_SPLICE_MOVE);
}

int fuse_ring_reply_fd(fuse_req_t req, int fd, off_t offset, size_t size,
		       struct fuse_bufvec *data)
{
	const struct file_reply file = {
		.fd = fd,
		.offset = offset,
		.size = size,
		.data = data,
	};
	int result;

	if (!atomic_load_explicit(&rings_used, memory_order_relaxed))
		return reply_fd_by_libfuse(req, &file);
	file_reply = &file;
	/* The client gets this if the session is none of ours. */
	result = fuse_reply_err(req, EIO);
	file_reply = NULL;
	return result;
}

/* What libfuse has read, perhaps into a pipe, into memory of its own */
static struct fuse_bufvec *copy_of(struct fuse_bufvec *data, size_t size)
{
	size_t page_size = getpagesize();
	struct fuse_bufvec *copy;
	void *memory;
	ssize_t n;

	/* The file may be one with O_DIRECT. */
	errno = posix_memalign(&memory, page_size, page_size + size);
	if (errno)
		return NULL;
	copy = memory;
	*copy = FUSE_BUFVEC_INIT(size);
	copy->buf[0].mem = (char *)memory + page_size;
	n = fuse_buf_copy(copy, data, 0);
	copy->idx = 0;
	copy->off = 0;
	if (n == (ssize_t)size)
		return copy;
	free(copy);
	errno = n < 0 ? -n : EIO;
	return NULL;
}

struct fuse_bufvec *fuse_ring_keep_data(fuse_req_t req, struct fuse_bufvec *data)
{
	size_t size = fuse_buf_size(data);
	struct fuse_bufvec *kept;

	(void)req;
	if (!current)
		return copy_of(data, size);
	kept = malloc(sizeof(*kept));
	if (!kept)
		return NULL;
	*kept = FUSE_BUFVEC_INIT(size);
	kept->buf[0].mem = data->buf[0].mem;
	return kept;
}

void fuse_ring_zero_copy_open(fuse_req_t req)
{
	(void)req;
	if (current)
		current->zero_copy_open = true;
	else
		opens_for_zero_copy = true;
}

/*
 * Requests
 */

static void run_request(struct fuse_ring_req *req, void *data)
{
	bool no_reply = req->in.opcode == FUSE_NOTIFY_REPLY;
	struct session *session = data;
	struct fuse_buf buf = {};

	current = req;
	current_cookie = atomic_load(&req->cookie);
	/* What answers a notification is known by the notification's number. */
	buf.mem = ring_req_linear(req, no_reply ? req->in.unique :
				  current_cookie, &buf.size);
	fuse_session_process_buf(session->se, &buf);
	current = NULL;
	if (no_reply)
		fuse_ring_reply(req, 0, NULL, 0);
}

/* The operation may have said that the session is to end. */
static void request_ran(void *data)
{
	struct session *session = data;

	if (fuse_session_exited(session->se))
		wake(session);
}

/*
 * /dev/fuse
 */

static void process(struct session *session, void *message, size_t len)
{
	struct fuse_buf buf = { .mem = message, .size = len };

	ring_begin_handler(session->ring);
	fuse_session_process_buf(session->se, &buf);
	ring_end_handler(session->ring);
}

/* To libfuse, which knows the request by its cookie */
static void process_interrupt(void *data, uint64_t cookie)
{
	struct {
		struct fuse_in_header in;
		struct fuse_interrupt_in what;
	} message = {
		.in = {
			.len = sizeof(message),
			.opcode = FUSE_INTERRUPT,
			.unique = cookie | RING_INTERRUPT,
		},
		.what.unique = cookie,
	};

	process(data, &message, sizeof(message));
}

static bool is_interrupt(const void *message, size_t len)
{
	const struct fuse_in_header *in = message;

	return in->opcode == FUSE_INTERRUPT &&
	       len >= sizeof(*in) + sizeof(struct fuse_interrupt_in);
}

static void process_message(struct session *session, void *message, size_t len)
{
	const struct fuse_interrupt_in *what;

	if (!is_interrupt(message, len)) {
		process(session, message, len);
		return;
	}
	what = (void *)((struct fuse_in_header *)message + 1);
	interrupts_add(&session->interrupts, what->unique);
}

/* Length of what came, 0 if nothing did; a negative errno at the end */
static ssize_t receive(struct session *session, void *buffer, size_t size,
		       const sigset_t *mask)
{
	const struct timespec period = {
		.tv_nsec = INTERRUPTS_PERIOD_MS * 1000000,
	};
	struct pollfd fds[] = {
		{ .fd = session->fd, .events = POLLIN },
		{ .fd = session->wake_fd, .events = POLLIN },
	};
	eventfd_t ignored;
	ssize_t len;

	/* A signal that is to end the loop interrupts this, whenever it comes. */
	if (ppoll(fds, 2, interrupts_left(&session->interrupts) ? &period : NULL,
		  mask) < 0)
		return errno == EINTR ? 0 : -errno;
	if (fds[1].revents)
		eventfd_read(session->wake_fd, &ignored);
	if (!fds[0].revents)
		return 0;
	/* What was to be read may be gone by now: this does not wait. */
	len = read(session->fd, buffer, size);
	if (len >= 0)
		return len;
	/* ENOENT: the request was interrupted before it was read */
	if (errno == EINTR || errno == EAGAIN || errno == ENOENT)
		return 0;
	return -errno;
}

static int serve_device(struct session *session, const sigset_t *mask)
{
	void *buffer = malloc(session->buffer_size);
	ssize_t len = 0;

	if (!buffer)
		return -ENOMEM;
	looping = session;
	while (!fuse_session_exited(session->se)) {
		len = receive(session, buffer, session->buffer_size, mask);
		if (len < 0)
			break;
		if (len)
			process_message(session, buffer, len);
		interrupts_settle(&session->interrupts, session->ring,
				  process_interrupt, session);
	}
	looping = NULL;
	free(buffer);
	return len < 0 && len != -ENODEV ? len : 0;
}

/* Not that of a session that has just ended: replies for it may come yet. */
static unsigned int new_id_locked(void)
{
	do {
		last_id = (last_id + 1) % RING_MOST_SESSIONS;
	} while (find_session_locked(last_id));
	return last_id;
}

static void show(struct session *session)
{
	pthread_rwlock_wrlock(&sessions_lock);
	atomic_store(&rings_used, true);
	session->id = new_id_locked();
	session->ring->session = session->id;
	session->next = sessions;
	sessions = session;
	pthread_rwlock_unlock(&sessions_lock);
}

static void hide(struct session *session)
{
	struct session **link;

	pthread_rwlock_wrlock(&sessions_lock);
	for (link = &sessions; *link != session; link = &(*link)->next)
		;
	*link = session->next;
	pthread_rwlock_unlock(&sessions_lock);
}

/* Has libfuse answer INIT, with the rings prepared if they can be had. */
static int begin(struct session *session, const sigset_t *mask)
{
	static const struct fuse_custom_io io = {
		.writev = session_writev,
		.read = session_read,
		.splice_send = session_splice_send,
		.splice_receive = session_splice,
	};
	union {
		struct fuse_in_header in;
		char bytes[FUSE_MIN_READ_BUFFER];
	} first;
	const struct fuse_init_in *init = (void *)(&first.in + 1);
	struct fuse_buf buf = { .mem = &first };
	ssize_t len;
	int err = 0;

	do {
		len = receive(session, &first, sizeof(first), mask);
	} while (!len && !fuse_session_exited(session->se));
	if (len <= 0)
		return len;
	buf.size = len;

	if (first.in.opcode == FUSE_INIT &&
	    buf.size >= sizeof(first.in) + sizeof(*init) &&
	    init->flags & FUSE_INIT_EXT)
		session->kernel_flags = init->flags |
					(uint64_t)init->flags2 << 32;
	if (session->kernel_flags & FUSE_OVER_IO_URING) {
		err = fuse_session_custom_io(session->se, &io, session->number);
		session->has_io = !err;
		if (!err)
			answers_init = session;
	} else if (first.in.opcode == CUSE_INIT) {
		ring_log(&session->options, "off, character devices (CUSE) have no io_uring");
	} else {
		ring_log(&session->options, "off, " RING_NOT_OFFERED);
	}
	fuse_session_process_buf(session->se, &buf);
	answers_init = NULL;
	return 0;
}

/* Over the rings if they are to be had, until it is time to end */
static int serve(struct session *session, const sigset_t *mask)
{
	int err;

	err = begin(session, mask);
	if (!err && session->ring) {
		show(session);
		if (!fuse_ring_start(session->ring)) {
			err = serve_device(session, mask);
			fuse_session_exit(session->se);
		}
		fuse_ring_stop(session->ring);
		hide(session);
		fuse_ring_free(session->ring);
	}
	interrupts_drop(&session->interrupts);
	return err == -ENODEV ? 0 : err;
}

static int libfuse_loop(struct session *session)
{
	static const struct fuse_custom_io io = {
		.writev = session_writev,
		.read = session_read,
		.splice_send = session_splice,
		.splice_receive = session_splice,
	};
	const struct session_loops *loops = session->loops;

	if (fuse_session_exited(session->se))
		return loops->single(session->se);
	/* fuse_ring_reply_fd() cannot tell it from one that has rings. */
	if (loops->answers_files && !session->has_io)
		fuse_session_custom_io(session->se, &io, session->number);
	return session->options.serialize ? loops->single(session->se) :
					    loops->multi(session->se);
}

/* In libfuse's own way what is left: all of it, or only why it was to exit */
static int go_on(struct session *session, int err)
{
	if (!err)
		return libfuse_loop(session);
	fuse_session_exit(session->se);
	session->loops->single(session->se);
	return err;
}

int session_loop(struct fuse_session *se,
		 const struct fuse_ring_options *options,
		 const struct session_loops *loops)
{
	struct session session = {
		.se = se,
		.number = fuse_session_fd(se),
		.options = ring_options_or_default(options),
		.loops = loops,
		.wake_fd = -1,
		.interrupts.lock = PTHREAD_MUTEX_INITIALIZER,
	};
	sigset_t ending, before;
	int flags, err;

	if (session.options.mode == FUSE_RING_OFF)
		return libfuse_loop(&session);
	session.fd = fcntl(session.number, F_DUPFD_CLOEXEC, 0);
	if (session.fd < 0) {
		ring_log(&session.options, "off, a duplicate of /dev/fuse: %s",
			 strerror(errno));
		return go_on(&session, 0);
	}
	workers_signals_to_block(&ending);
	pthread_sigmask(SIG_BLOCK, &ending, &before);
	flags = fcntl(session.fd, F_GETFL);
	fcntl(session.fd, F_SETFL, flags | O_NONBLOCK);
	err = serve(&session, &before);
	fcntl(session.fd, F_SETFL, flags);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (session.wake_fd >= 0)
		close(session.wake_fd);
	/* From here on the connection ends when libfuse closes its own. */
	close(session.fd);
	return go_on(&session, err);
}

static int libfuse_multi(struct fuse_session *se)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int result;

	if (!config)
		return -ENOMEM;
	result = fuse_session_loop_mt(se, config);
	fuse_loop_cfg_destroy(config);
	return result;
}

int fuse_ring_session_loop(struct fuse_session *se,
			   const struct fuse_ring_options *options)
{
	static const struct session_loops loops = {
		.single = fuse_session_loop,
		.multi = libfuse_multi,
		.answers_files = true,
	};

	return session_loop(se, options, &loops);
}
