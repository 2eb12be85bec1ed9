// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests: replies to requests, and the transfer of
 * zero-copied data.
 */
#include <string.h>

#include "fixture_internal.h"

void request_fill_reply(struct server_request *request, int error,
			const void *data, size_t len)
{
	const struct fuse_out_header out = {
		.len = sizeof(out) + len,
		.error = error,
		.unique = request->in.unique,
	};

	if (data && len && data != request->payload)
		memcpy(request->payload, data, len);
	memcpy(request->header->in_out, &out, sizeof(out));
	request->header->ring_ent_in_out.payload_sz = len;
}

int request_reply(struct server_request *request, int error, const void *data,
		  size_t len)
{
	if (data && len > request->room) {
		complain("queue %u slot %u: a reply of %zu bytes for a buffer of %zu",
			 request->queue->qid, request->slot, len, request->room);
		return -EOVERFLOW;
	}
	request_fill_reply(request, error, data, len);
	return queue_send_commit(request->queue, request->slot,
				 request->queue->qid, request->commit_id);
}

static struct io_uring_sqe *
request_prepare_transfer(struct server_request *request, __u64 from, int fd,
			 __u64 offset, size_t len)
{
	struct server_slot *slot = &request->queue->slots[request->slot];
	struct io_uring_sqe *sqe = queue_get_sqe(request->queue);

	if (request->in.opcode == FUSE_READ)
		io_uring_prep_read_fixed(sqe, fd, NULL, len, offset,
					 request->fixed_index);
	else
		io_uring_prep_write_fixed(sqe, fd, NULL, len, offset,
					  request->fixed_index);
	/* The client's data begins at address 0 of the fixed buffer. */
	sqe->addr = from;
	sqe->user_data = make_user_data(CQE_TRANSFER, request->slot);
	slot->transferring = true;
	return sqe;
}

void request_prepare_transfer_and_commit(struct server_request *request, int fd,
					 __u64 offset, size_t len)
{
	struct server_queue *queue = request->queue;
	struct io_uring_sqe *sqe;

	/* Linked commands must be submitted together. */
	if (io_uring_sq_space_left(&queue->ring) < 2)
		io_uring_submit(&queue->ring);
	sqe = request_prepare_transfer(request, 0, fd, offset, len);
	sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
	queue_prepare_commit(queue, request->slot, queue->qid,
			     request->commit_id);
	queue->slots[request->slot].linked = true;
}

int request_transfer(struct server_request *request, int fd, __u64 offset,
		     size_t len)
{
	return request_transfer_at(request, 0, fd, offset, len);
}

int request_transfer_at(struct server_request *request, __u64 from, int fd,
			__u64 offset, size_t len)
{
	request_prepare_transfer(request, from, fd, offset, len);
	return request_end_transfer(request);
}

int request_start_transfer(struct server_request *request, int fd, size_t len)
{
	request_prepare_transfer(request, 0, fd, 0, len);
	return queue_reap(request->queue, 0);
}

int request_end_transfer(struct server_request *request)
{
	struct server_slot *slot = &request->queue->slots[request->slot];
	__u64 deadline = now_ms() + WAIT_MS;
	int left, err;

	while (slot->transferring) {
		left = ms_until(deadline);
		err = queue_reap(request->queue, left);
		if (err)
			return err;
		if (!left && slot->transferring) {
			complain("queue %u slot %u: the data transfer did not end",
				 request->queue->qid, request->slot);
			return -ETIMEDOUT;
		}
	}
	return slot->transferred;
}

void request_fill_call(struct server_request *request, struct fuse_call *call)
{
	*call = (struct fuse_call) {
		.in = &request->in,
		.op = request->header->op_in,
		.data = request->payload,
		.data_len = request->payload_sz,
		.reply = request->payload,
		.room = request->room,
		.zero_copy = request->zero_copy,
		.transfer_fd = -1,
	};
}

void request_fill_transferred(struct server_request *request, int result)
{
	struct fuse_write_out *out = request->payload;

	if (result < 0) {
		request_fill_reply(request, result, NULL, 0);
	} else if (request->in.opcode == FUSE_READ) {
		request_fill_reply(request, 0, NULL, result);
	} else {
		*out = (struct fuse_write_out) { .size = result };
		request_fill_reply(request, 0, out, sizeof(*out));
	}
}

int request_answer(struct server_request *request)
{
	struct fuse_mount *mount = request->queue->mount;
	struct fuse_call call;
	int error, result;

	request_fill_call(request, &call);
	error = mount->answer(mount->fs, &call);
	if (!error && call.transfer_fd >= 0) {
		result = request_transfer(request, call.transfer_fd,
					  call.transfer_offset,
					  call.transfer_len);
		request_fill_transferred(request, result);
	} else {
		request_fill_reply(request, error, NULL,
				   error ? 0 : call.reply_len);
	}
	return queue_send_commit(request->queue, request->slot,
				 request->queue->qid, request->commit_id);
}
