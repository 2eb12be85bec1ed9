// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests: calls that make one request each.
 */
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "call.h"

static char value[64 * 1024];

long make_call(void *arg)
{
	struct call *call = arg;

	if (!call->size)
		return access(call->path, R_OK) ? -errno : 0;
	return getxattr(call->path, "u", value, call->size);
}

int call_start(struct call *call, const struct fuse_mount *mount, int cpu,
	       size_t size)
{
	call->path = mount->dir;
	call->size = size;
	return client_start(&call->client, cpu, make_call, call);
}

int call_start_waiting(struct call *call, struct fuse_mount *mount, int cpu,
		       size_t size, unsigned int waiting)
{
	int err = call_start(call, mount, cpu, size);

	if (!err)
		err = mount_wait_until_waiting(mount, waiting);
	return err ?: client_wait_asleep(&call->client);
}

size_t call_size(const struct server_request *request)
{
	struct fuse_getxattr_in in;

	if (request->in.opcode != FUSE_GETXATTR)
		return 0;
	memcpy(&in, request->header->op_in, sizeof(in));
	return in.size;
}

int call_arrives(struct fuse_mount *mount, struct server_request *request,
		 size_t size)
{
	unsigned int qid;
	int err = mount_wait(mount, request, WAIT_MS);

	if (err) {
		complain("waiting for the request of %zu bytes: %s", size,
			 strerror(-err));
		for (qid = 0; qid < mount->nr_queues; qid++)
			queue_describe(&mount->queues[qid]);
		return err;
	}
	if (call_size(request) != size) {
		complain("opcode %u of %zu bytes came, not the request of %zu",
			 request->in.opcode, call_size(request), size);
		return -EBADMSG;
	}
	return request->buf_id;
}

int call_answer(struct server_request *request)
{
	size_t size = call_size(request);

	return request_reply(request, 0, size ? value : NULL, size);
}

long call_finish(struct call *call)
{
	long result = client_wait(&call->client, WAIT_MS);

	if (result == (long)call->size)
		return 0;
	complain("the call of %zu bytes ended with %ld", call->size, result);
	return result < 0 ? result : -EIO;
}
