// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests: the thread that answers what arrives on
 * /dev/fuse.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fixture_internal.h"

/* Header between fuse_in_header and the rest, when it all comes in one */
static size_t op_header_size(__u32 opcode)
{
	switch (opcode) {
	case FUSE_GETATTR:
		return sizeof(struct fuse_getattr_in);
	case FUSE_SETATTR:
		return sizeof(struct fuse_setattr_in);
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		return sizeof(struct fuse_open_in);
	case FUSE_READ:
	case FUSE_READDIR:
		return sizeof(struct fuse_read_in);
	case FUSE_WRITE:
		return sizeof(struct fuse_write_in);
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		return sizeof(struct fuse_release_in);
	case FUSE_FLUSH:
		return sizeof(struct fuse_flush_in);
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
		return sizeof(struct fuse_fsync_in);
	case FUSE_ACCESS:
		return sizeof(struct fuse_access_in);
	case FUSE_SETXATTR:
		return FUSE_COMPAT_SETXATTR_IN_SIZE;
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
		return sizeof(struct fuse_getxattr_in);
	case FUSE_IOCTL:
		return sizeof(struct fuse_ioctl_in);
	case FUSE_COPY_FILE_RANGE:
		return sizeof(struct fuse_copy_file_range_in);
	default:
		return 0;
	}
}

static void answer_device_request(struct fuse_mount *mount, char *buffer,
				  size_t len, char *reply, size_t reply_size)
{
	const struct fuse_in_header *in = (void *)buffer;
	struct fuse_out_header *out = (void *)reply;
	struct fuse_call call = {
		.in = in,
		.op = in + 1,
		.reply = out + 1,
		.room = reply_size - sizeof(*out),
	};
	size_t op_size = op_header_size(in->opcode);
	int error = -ENOSYS;

	if (len < sizeof(*in) + op_size) {
		complain("opcode %u on /dev/fuse has only %zu bytes",
			 in->opcode, len);
		return;
	}
	call.data = (const char *)call.op + op_size;
	call.data_len = len - sizeof(*in) - op_size;
	if (mount->answer)
		error = mount->answer(mount->fs, &call);
	out->unique = in->unique;
	out->error = error;
	out->len = sizeof(*out) + (error ? 0 : call.reply_len);
	/* ENOENT: the request was interrupted or aborted meanwhile. */
	if (write(mount->dev_fd, out, out->len) < 0 && errno != ENOENT &&
	    errno != ENODEV)
		complain_errno("answering on /dev/fuse");
}

static void take_interrupt(struct fuse_mount *mount,
			   const struct fuse_in_header *in)
{
	const struct fuse_interrupt_in *interrupt = (void *)(in + 1);
	const struct fuse_out_header refusal = {
		.len = sizeof(refusal), .error = -EAGAIN, .unique = in->unique,
	};

	mount->interrupted = interrupt->unique;
	if (__atomic_load_n(&mount->refuse_interrupts, __ATOMIC_SEQ_CST)) {
		__atomic_sub_fetch(&mount->refuse_interrupts, 1,
				   __ATOMIC_SEQ_CST);
		mount->refusal_result =
			write(mount->dev_fd, &refusal, sizeof(refusal)) < 0 ?
			-errno : 0;
		__atomic_add_fetch(&mount->refused_interrupts, 1,
				   __ATOMIC_SEQ_CST);
	}
	__atomic_add_fetch(&mount->interrupts, 1, __ATOMIC_SEQ_CST);
}

/*
 * FORGET and INTERRUPT always arrive on /dev/fuse; everything does once
 * io-uring is turned off on the connection.
 */
static void *serve_device(void *arg)
{
	struct fuse_mount *mount = arg;
	size_t size = mount->max_payload + 2 * FUSE_MIN_READ_BUFFER;
	struct pollfd fds[] = {
		{ .fd = mount->dev_fd, .events = POLLIN },
		{ .fd = mount->stop_fd, .events = POLLIN },
	};
	char *buffer = malloc(size);
	char *reply = malloc(size);

	while (buffer && reply) {
		const struct fuse_in_header *in = (void *)buffer;
		ssize_t len;

		/* Changing the user of a process interrupts its threads. */
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		if (fds[1].revents)
			break;
		len = read(mount->dev_fd, buffer, size);
		if (len < 0) {
			if (errno == EAGAIN || errno == EINTR || errno == ENOENT)
				continue;
			break;	/* unmounted or aborted */
		}
		if (in->opcode == FUSE_FORGET || in->opcode == FUSE_BATCH_FORGET) {
			__atomic_add_fetch(&mount->forgets, 1, __ATOMIC_SEQ_CST);
		} else if (in->opcode == FUSE_INTERRUPT) {
			take_interrupt(mount, in);
		} else {
			__atomic_add_fetch(&mount->device_requests, 1,
					   __ATOMIC_SEQ_CST);
			answer_device_request(mount, buffer, len, reply, size);
		}
	}
	free(buffer);
	free(reply);
	return NULL;
}

/* Joins a thread that has been told to end; one that does not is a bug. */
int join_thread(pthread_t thread, const char *what)
{
	struct timespec deadline;
	int err;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += WAIT_MS / 1000;
	err = pthread_timedjoin_np(thread, NULL, &deadline);
	if (err)
		complain("%s did not end: %s", what, strerror(err));
	return -err;
}

int start_device_thread(struct fuse_mount *mount)
{
	int err;

	err = pthread_create(&mount->device_thread, NULL, serve_device, mount);
	if (err) {
		complain("pthread_create: %s", strerror(err));
		return -err;
	}
	mount->device_thread_runs = true;
	return 0;
}

/* All threads that serve the mount watch its stop_fd. */
void mount_stop_servers(struct fuse_mount *mount)
{
	const __u64 one = 1;

	if (write(mount->stop_fd, &one, sizeof(one)) < 0)
		complain_errno("stopping the servers");
}

void stop_device_thread(struct fuse_mount *mount)
{
	if (!mount->device_thread_runs)
		return;
	mount_stop_servers(mount);
	join_thread(mount->device_thread, "the /dev/fuse thread");
	mount->device_thread_runs = false;
}
