// SPDX-License-Identifier: GPL-2.0
/*
 * A server that does by chance what no server should: commands, headers,
 * replies, fixed buffers and memory that are almost right. Whatever it does,
 * its clients get an end to every call, and what it had of the kernel is gone
 * with it. Bounded by a number of operations of the clients, not by time.
 * FUZZ_SEED=N repeats a run's choices, FUZZ_OPS=N makes it longer.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define KIB 1024
#define MAX_WRITE (64 * KIB)
#define FILE_SIZE (512 * KIB)
#define LONGEST_IO (160 * KIB)	/* more than one request */
#define DEPTH 4
#define NR_CLIENTS 3
#define CLIENT_OPS 12		/* of each client on one mount */
#define DEFAULT_OPS 108
#define SLOW_TEST_S 170
#define QUIET_MS 3		/* then a request that was held goes on */
#define LOST_MS 50		/* then it is ended by an abort */
#define MAX_HELD 3

/* Numbers by chance, the same ones for the same seed */

struct chance {
	__u32 state;
};

static struct chance chance_from(unsigned int seed, unsigned int number)
{
	/* Never 0, where the generator would stay */
	return (struct chance) { (seed + number * 7919) * 2654435761U | 1 };
}

static __u32 any(struct chance *chance)
{
	chance->state ^= chance->state << 13;
	chance->state ^= chance->state >> 17;
	chance->state ^= chance->state << 5;
	return chance->state;
}

static unsigned int pick(struct chance *chance, unsigned int limit)
{
	return any(chance) % limit;
}

static bool once_in(struct chance *chance, unsigned int times)
{
	return !pick(chance, times);
}

/* Mostly those at which something changes */
static __u64 odd_number(struct chance *chance)
{
	switch (pick(chance, 6)) {
	case 0:
		return pick(chance, 4);
	case 1:
		return -(__u64)pick(chance, 4);
	case 2:
		return (1ULL << pick(chance, 64)) - pick(chance, 2);
	case 3:
		return MAX_WRITE - 1 + pick(chance, 3);
	case 4:
		return -(__u64)pick(chance, 5000);
	default:
		return (__u64)any(chance) << 32 | any(chance);
	}
}

/* Changes one aligned field, or what could be one. */
static void bend(struct chance *chance, void *memory, size_t len)
{
	size_t width = 1 << pick(chance, 4);
	__u64 number = odd_number(chance);

	if (width > len)
		return;
	memcpy((char *)memory + pick(chance, len / width) * width, &number,
	       width);
}

struct fuzzer {
	struct fuse_mount mount;
	struct test_fs fs;
	struct queue_mode mode;
	unsigned int seed;
	unsigned int operations;
	unsigned int round;
	struct chance chance;

	/* requests that the server does not answer yet */
	struct server_request held[64];
	unsigned int nr_held;
	__u64 last_commit_id;	/* of one that is over */
	__u64 newest_commit_id;
	__u64 in_changed_table;	/* newer ones surely are in the table */
	bool set_up;	/* every queue has what it is going to have */
	bool over;	/* the server has ended what it served */
	bool confused;	/* it has lost sight of a request */
	unsigned int wrongly_accepted;

	/* a ring for commands that cannot have a place on the others */
	struct io_uring side_ring;

	/* writes to the server's memory at any time */
	pthread_t scribbler;
	pthread_mutex_t memory;	/* held while some of it is away */
	struct chance scribble_chance;
	int scribble_fd;
	bool scribbler_stops;

	char *data;	/* of a request, out of the scribbler's reach */
	char *reply;
};

FIXTURE(fuzz)
{
	struct fuzzer fuzzer;
};

FIXTURE_VARIANT(fuzz)
{
	struct queue_mode mode;
};

#define MODE_pinned_headers						\
	.flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_HEADERS
#define MODE_pinned_buffers						\
	.flags = FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_BUFFERS
#define MODE_zero_copy_opt_in						\
	.flags = ZERO_COPY_FLAGS | FUSE_URING_REGISTER_ZERO_COPY_OPT_IN

#define BUFPOOL_OF_FEW .depth = DEPTH, .nr_pools = 1, .pool = { { MAX_WRITE, 3 } }
#define TWO_POOLS							\
	.depth = DEPTH, .nr_pools = 2, .pool = { { 4 * KIB, 2 }, { MAX_WRITE, 2 } }

ADD_VARIANT(fuzz, entries, .depth = DEPTH);
ADD_BUFPOOL_VARIANTS(fuzz, BUFPOOL_OF_FEW);
ADD_BUFRING_VARIANTS(fuzz, TWO_POOLS);
ADD_VARIANT(fuzz, pinned_headers, TWO_POOLS);
ADD_VARIANT(fuzz, pinned_buffers, TWO_POOLS);
ADD_VARIANT(fuzz, zero_copy_opt_in, TWO_POOLS);

static unsigned int number_from(const char *variable, unsigned int otherwise)
{
	const char *text = getenv(variable);

	return text ? strtoul(text, NULL, 0) : otherwise;
}

static int open_mount(struct fuzzer *fuzzer)
{
	const struct mount_options options = { .max_write = MAX_WRITE };
	int err = test_fs_open(&fuzzer->fs, FILE_SIZE);

	return err ?: test_fs_mount(&fuzzer->fs, &fuzzer->mount, &options);
}

/* Nothing of it is left after that: neither memory nor the mount. */
static int close_mount(struct fuzzer *fuzzer)
{
	mount_close(&fuzzer->mount);
	test_fs_close(&fuzzer->fs);
	return wait_until_pinned_is(0);
}

FIXTURE_SETUP(fuzz)
{
	struct fuzzer *fuzzer = &self->fuzzer;
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	impossible = dangerous_impossible();
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, open_mount(fuzzer));
	fuzzer->mode = variant->mode;
	impossible = mode_impossible(&fuzzer->mount, &fuzzer->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
	ASSERT_EQ(0, close_mount(fuzzer));
	fuzzer->seed = number_from("FUZZ_SEED", time(NULL));
	fuzzer->operations = number_from("FUZZ_OPS", DEFAULT_OPS);
	TH_LOG("FUZZ_SEED=%u FUZZ_OPS=%u", fuzzer->seed, fuzzer->operations);
	fuzzer->data = malloc(2 * MAX_WRITE);
	fuzzer->reply = malloc(2 * MAX_WRITE);
	ASSERT_TRUE(fuzzer->data && fuzzer->reply);
	ASSERT_EQ(0, io_uring_queue_init(4, &fuzzer->side_ring,
					 IORING_SETUP_SQE128));
	io_uring_ring_dontfork(&fuzzer->side_ring);
}

FIXTURE_TEARDOWN(fuzz)
{
	struct fuzzer *fuzzer = &self->fuzzer;

	/* For a test that failed: nothing to do otherwise */
	mount_close(&fuzzer->mount);
	io_uring_queue_exit(&fuzzer->side_ring);
	free(fuzzer->data);
	free(fuzzer->reply);
}

/*
 * The clients: every operation may fail or not, but must end
 */

struct fuzz_client {
	struct fuse_mount *mount;
	struct chance chance;
	unsigned int operations;
	char *buffer;
	int memory_fd;
};

static void use_data(struct fuzz_client *client, int fd)
{
	struct chance *chance = &client->chance;
	size_t len = once_in(chance, 2) ? pick(chance, LONGEST_IO) :
					  4 * KIB << pick(chance, 5);
	off_t offset = pick(chance, FILE_SIZE);
	void *map;

	if (once_in(chance, 2))
		offset &= ~4095L;
	switch (pick(chance, 8)) {
	case 0 ... 2:
		pread(fd, client->buffer, len, offset);
		break;
	case 3 ... 4:
		pwrite(fd, client->buffer, len, offset);
		break;
	case 5:
		/* Without a signal for a page that does not come */
		map = mmap(NULL, FILE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			break;
		pwrite(client->memory_fd, map, len, 0);
		munmap(map, FILE_SIZE);
		break;
	case 6:
		fsync(fd);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		break;
	default:
		ftruncate(fd, pick(chance, FILE_SIZE));
	}
}

static void use_file(struct fuzz_client *client)
{
	static const char * const names[] = { "data", "opted_in", "broken" };
	struct chance *chance = &client->chance;
	const char *path = mount_path(client->mount, names[pick(chance, 3)]);
	int fd = open(path, O_RDWR | (once_in(chance, 2) ? O_DIRECT : 0));
	int other;

	if (fd < 0)
		return;
	use_data(client, fd);
	use_data(client, fd);
	if (once_in(chance, 4)) {
		loff_t from = pick(chance, FILE_SIZE), to = 0;

		other = open(mount_path(client->mount, "opted_in"), O_RDWR);
		copy_file_range(fd, &from, other, &to, pick(chance, FILE_SIZE), 0);
		close(other);
	}
	if (once_in(chance, 4))
		ioctl(fd, TEST_IOCTL_INVERT, client->buffer);
	close(fd);
}

static void use_xattrs(struct fuzz_client *client)
{
	struct chance *chance = &client->chance;
	const char *path = mount_path(client->mount, "data");
	size_t size = 1 << pick(chance, 17);

	setxattr(path, "user.a", client->buffer, pick(chance, 64 * KIB), 0);
	getxattr(path, "user.a", client->buffer, size);
	listxattr(path, client->buffer, size);
	if (once_in(chance, 2))
		removexattr(path, "user.a");
}

static void use_names(struct fuzz_client *client)
{
	static const char * const names[] = { "", "data", "dir", "link", "none" };
	struct chance *chance = &client->chance;
	char target[LINK_LENGTH + 1];
	struct statfs statfs_;
	struct stat st;
	unsigned int n;
	DIR *dir;

	stat(mount_path(client->mount, names[pick(chance, 5)]), &st);
	statfs(client->mount->dir, &statfs_);
	readlink(mount_path(client->mount, "link"), target, sizeof(target));
	dir = opendir(mount_path(client->mount, once_in(chance, 2) ? "dir" : ""));
	if (!dir)
		return;
	/* A directory can be made to go on for ever. */
	for (n = 0; n < 2 * DIR_ENTRIES && readdir(dir); n++)
		;
	closedir(dir);
}

static long use_mount(void *arg)
{
	struct fuzz_client *client = arg;
	unsigned int n;

	client->buffer = aligned_alloc(4096, 2 * LONGEST_IO);
	client->memory_fd = memfd_create("client", 0);
	if (!client->buffer || client->memory_fd < 0)
		return -ENOMEM;
	memset(client->buffer, 'c', 2 * LONGEST_IO);
	for (n = 0; n < client->operations; n++) {
		switch (pick(&client->chance, 8)) {
		case 0 ... 4:
			use_file(client);
			break;
		case 5:
			use_xattrs(client);
			break;
		default:
			use_names(client);
		}
	}
	return 0;
}

/*
 * Memory that the server shares with the kernel
 */

static struct server_queue *any_queue(struct fuzzer *fuzzer, struct chance *chance)
{
	struct server_queue *queue;

	queue = &fuzzer->mount.queues[pick(chance, fuzzer->mount.nr_queues)];
	return queue->open ? queue : NULL;
}

static void scribble_header(struct chance *chance, struct server_queue *queue)
{
	struct fuse_uring_req_header *header = queue->memory.headers.iov_base;

	header += pick(chance, queue->nr_slots);
	switch (pick(chance, 5)) {
	case 0 ... 1:
		bend(chance, header->in_out, sizeof(struct fuse_out_header));
		break;
	case 2 ... 3:
		bend(chance, &header->ring_ent_in_out,
		     sizeof(header->ring_ent_in_out));
		break;
	default:
		bend(chance, header, sizeof(*header));
	}
}

static void scribble(struct chance *chance, struct server_queue *queue)
{
	struct iovec *pool = &queue->memory.pool[pick(chance, FUSE_URING_MAX_POOLS)];

	if (pool->iov_base && once_in(chance, 4))
		bend(chance, pool->iov_base, pool->iov_len);
	else
		scribble_header(chance, queue);
}

static void *scribble_when_told(void *arg)
{
	struct fuzzer *fuzzer = arg;
	struct server_queue *queue;
	eventfd_t times;

	while (!eventfd_read(fuzzer->scribble_fd, &times)) {
		if (__atomic_load_n(&fuzzer->scribbler_stops, __ATOMIC_SEQ_CST))
			break;
		pthread_mutex_lock(&fuzzer->memory);
		queue = any_queue(fuzzer, &fuzzer->scribble_chance);
		for (times = 8; queue && times; times--)
			scribble(&fuzzer->scribble_chance, queue);
		pthread_mutex_unlock(&fuzzer->memory);
	}
	return NULL;
}

static int start_scribbler(struct fuzzer *fuzzer)
{
	pthread_mutex_init(&fuzzer->memory, NULL);
	fuzzer->scribble_chance = chance_from(fuzzer->seed, ~fuzzer->round);
	fuzzer->scribbler_stops = false;
	fuzzer->scribble_fd = eventfd(0, EFD_CLOEXEC);
	return -pthread_create(&fuzzer->scribbler, NULL, scribble_when_told, fuzzer);
}

static int stop_scribbler(struct fuzzer *fuzzer)
{
	int err;

	__atomic_store_n(&fuzzer->scribbler_stops, true, __ATOMIC_SEQ_CST);
	eventfd_write(fuzzer->scribble_fd, 1);
	err = join_thread(fuzzer->scribbler, "the scribbling thread");
	close(fuzzer->scribble_fd);
	return err;
}

/*
 * Takes some memory away, lets the kernel deliver and take replies, and gives
 * it back, before this server looks at it again. Pinned memory must stay the
 * same pages: the kernel does not notice when it is mapped anew.
 */
static void take_memory_away(struct fuzzer *fuzzer, struct server_queue *queue)
{
	struct chance *chance = &fuzzer->chance;
	bool headers = once_in(chance, 2);
	struct iovec *region = headers ? &queue->memory.headers :
					 &queue->memory.pool[pick(chance, 2)];
	bool pinned = fuzzer->mode.flags & (headers ? FUSE_URING_REGISTER_PINNED_HEADERS :
						    FUSE_URING_REGISTER_PINNED_BUFFERS) ||
		      (!headers && fuzzer->mode.bufpool & BUFPOOL_REGISTERED);
	size_t page = pick(chance, (region->iov_len + 4095) / 4096 ?: 1);
	void *start = (char *)region->iov_base + page * 4096;
	size_t len = 4096;

	if (!region->iov_base)
		return;
	pthread_mutex_lock(&fuzzer->memory);
	if (!pinned && once_in(chance, 2))
		munmap(start, len);
	else
		mprotect(start, len, once_in(chance, 2) ? PROT_READ : PROT_NONE);
	io_uring_submit_and_get_events(&queue->ring);
	if (mprotect(start, len, PROT_READ | PROT_WRITE) &&
	    mmap(start, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		 MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		abort();
	pthread_mutex_unlock(&fuzzer->memory);
}

/* The whole table as it was, or as nearly as it can be made now */
static void restore_fixed_buffers(struct server_queue *queue)
{
	const struct iovec *pool = &queue->memory.pool[0];

	queue_table_remove(queue);
	io_uring_register_buffers_sparse(&queue->ring, DEPTH + 1);
	if (queue->mode.bufpool & BUFPOOL_REGISTERED)
		queue_table_set(queue, queue->pool_index, pool->iov_base,
				pool->iov_len);
}

static void change_fixed_buffers(struct fuzzer *fuzzer, struct server_queue *queue)
{
	struct chance *chance = &fuzzer->chance;
	void *memory = NULL;

	/* With those that wait, and those that were not looked at yet */
	fuzzer->in_changed_table = fuzzer->newest_commit_id + 256;
	switch (pick(chance, 5)) {
	case 0:
		queue_table_remove(queue);
		break;
	case 1:
		queue_table_remove(queue);
		io_uring_register_buffers_sparse(&queue->ring,
						 1 + pick(chance, DEPTH + 1));
		break;
	case 2:
		if (once_in(chance, 2))
			memory = fuzzer->data;
		queue_table_set(queue, pick(chance, DEPTH + 2), memory,
				memory ? 4096 : 0);
		break;
	default:
		restore_fixed_buffers(queue);
	}
}

/*
 * Commands
 */

static const void *odd_address(struct chance *chance, const void *good)
{
	switch (pick(chance, 6)) {
	case 0:
		return NULL;
	case 1:
		return (const char *)good + 8;
	case 2:
		return (void *)((1UL << 47) - 4096);
	case 3:
		return (void *)odd_number(chance);
	case 4:
		return "read-only";
	default:
		return good;
	}
}

/* One thing of it, or nothing, is not as it should be. */
static void bend_command(struct fuzzer *fuzzer, struct server_command *reg)
{
	struct chance *chance = &fuzzer->chance;
	__u16 qid = reg->bufring.qid;
	struct iovec *iov = &reg->iov[pick(chance, 2)];

	switch (pick(chance, 9)) {
	case 0:
		bend(chance, reg->area, sizeof(reg->bufring));
		break;
	case 1:
		reg->bufring.flags ^= 1ULL << pick(chance, 6);
		break;
	case 2:
		bend(chance, &reg->bufring.buf_size,
		     sizeof(reg->bufring) - offsetof(struct fuse_uring_bufring_req, buf_size));
		break;
	case 3:
		/* The slot is no part of the command elsewhere. */
		if (fuzzer->mode.flags)
			reg->slot = odd_number(chance);
		else
			reg->buf_index = odd_number(chance);
		break;
	case 4:
		reg->nr_iov = odd_number(chance);
		break;
	case 5:
		iov->iov_base = (void *)odd_address(chance, iov->iov_base);
		break;
	case 6:
		bend(chance, &iov->iov_len, sizeof(iov->iov_len));
		break;
	case 7:
		bend(chance, &reg->cmd.bufpool, sizeof(reg->cmd.bufpool));
		break;
	default:
		reg->iovec = odd_address(chance, NULL);
		reg->uring_cmd_flags = pick(chance, 4);
	}
	/* This server can only deal with an entry of its own queue. */
	if (reg->bufring.qid != qid && reg->bufring.qid < fuzzer->mount.nr_queues)
		reg->bufring.qid = qid;
}

static void wrongly_accepted(struct fuzzer *fuzzer, int line)
{
	if (fuzzer->confused)
		return;
	complain("line %d: a command was accepted", line);
	fuzzer->wrongly_accepted++;
}

/*
 * Entries that are added while the mount is in use. Without slots one would take
 * the header from the one that has it, so it must be a free one.
 */
static void register_more(struct fuzzer *fuzzer, struct server_queue *queue)
{
	unsigned int slot = pick(&fuzzer->chance, DEPTH);
	bool is_free = queue->slots[slot].state == SLOT_FREE;
	struct server_command reg;
	int err;

	if (!fuzzer->mode.flags && !is_free)
		return;
	queue_fill_register(queue, slot, &reg);
	if (!is_free || once_in(&fuzzer->chance, 2))
		bend_command(fuzzer, &reg);
	if (!fuzzer->mode.flags)
		reg.slot = slot;
	err = queue_send(queue, &reg);
	if (!err && reg.slot == slot && !is_free)
		wrongly_accepted(fuzzer, __LINE__);
}

/* Commit ids are even: these are of no request, or of one that is over. */
static __u64 wrong_commit_id(struct fuzzer *fuzzer)
{
	switch (pick(&fuzzer->chance, 3)) {
	case 0:
		return odd_number(&fuzzer->chance) | 1;
	case 1:
		return 0;
	default:
		return fuzzer->last_commit_id;
	}
}

/* A queue that is in use is not added, and has no other pool. */
static void add_again(struct fuzzer *fuzzer, struct server_queue *queue)
{
	struct server_command add;

	if (once_in(&fuzzer->chance, 2))
		queue_fill_add_queue(queue, &add);
	else
		queue_fill_add_bufpool(queue, &add);
	if (once_in(&fuzzer->chance, 2))
		bend_command(fuzzer, &add);
	if (!queue_send(queue, &add))
		wrongly_accepted(fuzzer, __LINE__);
}

static void commit_wrongly(struct fuzzer *fuzzer, struct server_request *request)
{
	unsigned int qid = request->queue->qid;
	__u64 commit_id = request->commit_id;

	if (once_in(&fuzzer->chance, 2))
		commit_id = wrong_commit_id(fuzzer);
	else
		qid = fuzzer->mount.nr_queues + pick(&fuzzer->chance, 60000);
	if (!queue_send_commit(request->queue, request->slot, qid, commit_id))
		wrongly_accepted(fuzzer, __LINE__);
}

static __u32 no_command(struct chance *chance)
{
	__u32 op = odd_number(chance);

	return op > FUSE_IO_URING_CMD_ADD_BUFPOOL ? op : ~op;
}

/* Anything at all, on a ring that no entry is on */
static void send_anything(struct fuzzer *fuzzer)
{
	struct chance *chance = &fuzzer->chance;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&fuzzer->side_ring);
	struct fuse_uring_bufring_req *cmd;
	struct io_uring_cqe *cqe;
	unsigned int n;

	if (!sqe)
		return;
	io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fuzzer->mount.dev_fd,
			 odd_address(chance, fuzzer->data), pick(chance, 8), 0);
	sqe->__pad1 = 0;
	/* Before it is set up, a queue that this adds would be in the way. */
	sqe->cmd_op = 1 + pick(chance, fuzzer->set_up ?
				       FUSE_IO_URING_CMD_ADD_BUFPOOL :
				       FUSE_IO_URING_CMD_COMMIT_AND_FETCH);
	if (once_in(chance, 3))
		sqe->cmd_op = no_command(chance);
	cmd = (void *)sqe->cmd;
	memset(cmd, 0, 80);
	cmd->flags = fuzzer->mode.flags | FUSE_URING_REGISTER_BUFRING;
	for (n = 0; n < 1 + pick(chance, 4); n++)
		bend(chance, cmd, 80);
	/* No entry may come to live here. */
	if (sqe->cmd_op == FUSE_IO_URING_CMD_REGISTER)
		cmd->max_queue_depth = 0;
	cmd->commit_id |= 1;
	/*
	 * But for this one, which is as it should be on another ring. Whoever
	 * takes the pages out of the table may commit it on any.
	 */
	if (fuzzer->nr_held && once_in(chance, 2) &&
	    fuzzer->held[0].zero_copy &&
	    fuzzer->held[0].commit_id > fuzzer->in_changed_table) {
		sqe->cmd_op = FUSE_IO_URING_CMD_COMMIT_AND_FETCH;
		cmd->qid = fuzzer->held[0].queue->qid;
		cmd->commit_id = fuzzer->held[0].commit_id;
	}
	io_uring_submit(&fuzzer->side_ring);
	while (!io_uring_peek_cqe(&fuzzer->side_ring, &cqe)) {
		if (cqe->res >= 0)
			wrongly_accepted(fuzzer, __LINE__);
		io_uring_cqe_seen(&fuzzer->side_ring, cqe);
	}
}

/*
 * Replies
 */

/* Only what the file system can deal with, whatever was scribbled. */
static bool makes_sense(const struct fuse_call *call)
{
	const struct fuse_copy_file_range_in *copy = call->op;
	const struct fuse_read_in *read = call->op;
	const struct fuse_write_in *write = call->op;
	const struct fuse_setxattr_in *setxattr_ = call->op;
	const struct fuse_getxattr_in *getxattr_ = call->op;

	if (call->data_len > MAX_WRITE)
		return false;
	switch (call->in->opcode) {
	case FUSE_READ:
		return call->zero_copy || read->size <= call->room;
	case FUSE_SETXATTR:
		return strnlen(call->data, call->data_len) + 1 +
			setxattr_->size == call->data_len;
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
		return getxattr_->size <= call->room;
	case FUSE_WRITE:
		return write->size == call->data_len;
	case FUSE_COPY_FILE_RANGE:
		return copy->nodeid_out < NR_NODES && copy->len <= FILE_SIZE;
	default:
		return true;
	}
}

/* Answers from a copy, so that nobody changes it meanwhile. */
static int make_reply(struct fuzzer *fuzzer, struct server_request *request,
		      struct fuse_call *call)
{
	char op[sizeof(request->header->op_in)];
	int error;

	memcpy(op, request->header->op_in, sizeof(op));
	request_fill_call(request, call);
	call->op = op;
	call->data = fuzzer->data;
	call->reply = fuzzer->reply;
	memset(fuzzer->data, 0, 2 * MAX_WRITE);
	if (request->payload)
		memcpy(fuzzer->data, request->payload, call->room);
	if (!makes_sense(call))
		return -EIO;
	error = test_fs_answer(&fuzzer->fs, call);
	call->op = NULL;
	return error;
}

static int transfer(struct fuzzer *fuzzer, struct server_request *request,
		    struct fuse_call *call)
{
	struct chance *chance = &fuzzer->chance;
	struct server_request other = *request;
	__u64 from = 0;

	if (once_in(chance, 8))
		from = odd_number(chance);
	if (once_in(chance, 8))
		bend(chance, &call->transfer_len, sizeof(__u32));
	if (once_in(chance, 16))
		other.in.opcode ^= FUSE_READ ^ FUSE_WRITE;
	return request_transfer_at(&other, from, call->transfer_fd,
				   call->transfer_offset, call->transfer_len);
}

static void fill_reply(struct fuzzer *fuzzer, struct server_request *request)
{
	struct fuse_call call;
	int error = make_reply(fuzzer, request, &call);

	if (!error && call.transfer_fd >= 0) {
		error = transfer(fuzzer, request, &call);
		if (error >= 0 && request->in.opcode == FUSE_WRITE &&
		    !request->payload)
			error = -EIO;
		request_fill_transferred(request, error);
		return;
	}
	if (error || !request->payload)
		call.reply_len = 0;
	if (call.reply_len && once_in(&fuzzer->chance, 4))
		bend(&fuzzer->chance, fuzzer->reply, call.reply_len);
	request_fill_reply(request, error, fuzzer->reply, call.reply_len);
}

static void bend_reply(struct fuzzer *fuzzer, struct server_request *request)
{
	struct chance *chance = &fuzzer->chance;
	struct fuse_uring_ent_in_out *ent = &request->header->ring_ent_in_out;
	struct fuse_out_header *out = (void *)request->header->in_out;

	switch (pick(chance, 6)) {
	case 0:
		ent->payload_sz += pick(chance, 3) - 1;
		break;
	case 1:
		ent->payload_sz = odd_number(chance);
		break;
	case 2:
		bend(chance, out, sizeof(*out));
		break;
	case 3:
		out->unique ^= 1 << pick(chance, 4);
		break;
	default:
		bend(chance, request->header, sizeof(*request->header));
	}
}

static struct io_uring_sqe *last_sqe(struct io_uring *ring)
{
	unsigned int mask = *ring->sq.kring_mask;

	/* Two of the plain size each */
	return &ring->sq.sqes[((ring->sq.sqe_tail - 1) & mask) << 1];
}

/*
 * A COMMIT_AND_FETCH with what it must not look at, and how it may be run; true
 * if that is during the submit
 */
static bool prepare_odd_commit(struct fuzzer *fuzzer, struct server_request *request)
{
	struct server_queue *queue = request->queue;
	struct chance *chance = &fuzzer->chance;
	struct fuse_uring_bufring_req *cmd;
	struct io_uring_sqe *sqe;

	queue_prepare_commit(queue, request->slot, queue->qid,
			     request->commit_id);
	sqe = last_sqe(&queue->ring);
	cmd = (void *)sqe->cmd;
	if (once_in(chance, 4))
		sqe->flags |= IOSQE_ASYNC;
	if (once_in(chance, 4)) {
		cmd->flags = odd_number(chance);
		sqe->addr = odd_number(chance);
		sqe->len = odd_number(chance);
		sqe->buf_index = odd_number(chance);
		bend(chance, &cmd->buf_size,
		     sizeof(*cmd) - offsetof(struct fuse_uring_bufring_req, buf_size));
	}
	return !(sqe->flags & IOSQE_ASYNC);
}

/* Ends a request one way or another; false if it cannot */
static bool answer(struct fuzzer *fuzzer, struct server_request *request)
{
	struct server_queue *queue = request->queue;
	bool at_once;

	if (queue->slots[request->slot].state != SLOT_REQUEST)
		return false;
	if (once_in(&fuzzer->chance, 12))
		commit_wrongly(fuzzer, request);
	/* Sometimes the header is left as the kernel wrote it. */
	if (!once_in(&fuzzer->chance, 24))
		fill_reply(fuzzer, request);
	if (once_in(&fuzzer->chance, 3))
		bend_reply(fuzzer, request);
	if (once_in(&fuzzer->chance, 3))
		eventfd_write(fuzzer->scribble_fd, 1);
	at_once = prepare_odd_commit(fuzzer, request);
	if (once_in(&fuzzer->chance, 8))
		take_memory_away(fuzzer, queue);
	queue_reap(queue, 0);
	/* One that was refused, for its pool say, may be committed again. */
	if (at_once && queue->slots[request->slot].state != SLOT_DEAD)
		fuzzer->last_commit_id = request->commit_id;
	return true;
}

static void answer_one_held(struct fuzzer *fuzzer)
{
	unsigned int n = pick(&fuzzer->chance, fuzzer->nr_held);
	struct server_request request = fuzzer->held[n];

	fuzzer->held[n] = fuzzer->held[--fuzzer->nr_held];
	answer(fuzzer, &request);
}

/*
 * The server
 */

static int start_server(struct fuzzer *fuzzer)
{
	static const unsigned int ring_flags[] = {
		RING_FLAGS, IORING_SETUP_SINGLE_ISSUER, IORING_SETUP_COOP_TASKRUN,
	};
	unsigned int flags = ring_flags[pick(&fuzzer->chance, 3)];
	unsigned int qid, slot;
	int err = 0;

	fuzzer->nr_held = 0;
	fuzzer->set_up = false;
	fuzzer->over = false;
	fuzzer->confused = false;
	/* ids begin anew with each mount */
	fuzzer->last_commit_id = 0;
	fuzzer->newest_commit_id = 0;
	fuzzer->in_changed_table = 0;
	for (qid = 0; qid < fuzzer->mount.nr_queues && !err; qid++) {
		struct server_queue *queue = &fuzzer->mount.queues[qid];

		err = queue_open_with(queue, &fuzzer->mount, qid, &fuzzer->mode,
				      flags, FIXED_BUFFERS_AS_NEEDED);
		/* The others may come later. */
		for (slot = 0; slot < DEPTH - 1 && !err; slot++)
			err = queue_register(queue, slot);
	}
	fuzzer->set_up = !err;
	return err;
}

/* It dies before its clients are done with it, or not. */
static void end_server_early(struct fuzzer *fuzzer)
{
	unsigned int qid;

	pthread_mutex_lock(&fuzzer->memory);
	switch (pick(&fuzzer->chance, 4)) {
	case 0:
		mount_abort(&fuzzer->mount);
		break;
	case 1:
		mount_detach(&fuzzer->mount);
		break;
	default:
		for (qid = 0; qid < fuzzer->mount.nr_queues; qid++)
			queue_close(&fuzzer->mount.queues[qid]);
		fuzzer->nr_held = 0;
		if (once_in(&fuzzer->chance, 2))
			mount_close_device(&fuzzer->mount);
		fuzzer->over = true;
	}
	pthread_mutex_unlock(&fuzzer->memory);
}

static void do_something_odd(struct fuzzer *fuzzer)
{
	struct server_queue *queue = any_queue(fuzzer, &fuzzer->chance);

	if (!queue)
		return;
	switch (pick(&fuzzer->chance, 24)) {
	case 0:
		change_fixed_buffers(fuzzer, queue);
		break;
	case 1:
		register_more(fuzzer, queue);
		break;
	case 2:
		send_anything(fuzzer);
		break;
	case 3:
		scribble(&fuzzer->chance, queue);
		break;
	case 4:
		take_memory_away(fuzzer, queue);
		break;
	case 5:
		if (!fuzzer->mode.flags)
			add_again(fuzzer, queue);
		break;
	default:
		break;
	}
}

static bool any_runs(const struct client client[NR_CLIENTS])
{
	unsigned int n;

	for (n = 0; n < NR_CLIENTS; n++)
		if (client_runs(&client[n]))
			return true;
	return false;
}

/*
 * Both ids are the kernel's, and the same. If not, one of them was scribbled on
 * before this server saw it, and may now be another request's.
 */
static void hold(struct fuzzer *fuzzer, const struct server_request *request)
{
	if (request->commit_id > fuzzer->newest_commit_id)
		fuzzer->newest_commit_id = request->commit_id;
	if (request->commit_id == request->in.unique)
		fuzzer->held[fuzzer->nr_held++] = *request;
	else
		fuzzer->confused = true;
}

/* A request may have been lost by this server. */
static bool may_have_lost(struct fuzzer *fuzzer)
{
	unsigned int qid, slot;

	for (qid = 0; qid < fuzzer->mount.nr_queues; qid++)
		for (slot = 0; slot < fuzzer->mount.queues[qid].nr_slots; slot++)
			if (fuzzer->mount.queues[qid].slots[slot].state ==
			    SLOT_DEAD)
				return true;
	return fuzzer->confused;
}

/*
 * Serves until the clients are gone. 0, or -ETIMEDOUT if nothing moved for so
 * long although the server has answered all there is to answer.
 */
static int serve(struct fuzzer *fuzzer, struct client client[NR_CLIENTS])
{
	unsigned int steps_left = once_in(&fuzzer->chance, 3) ?
				  1 + pick(&fuzzer->chance, 60) : ~0U;
	__u64 last_moved = now_ms();
	struct server_request request;
	int err;

	while (any_runs(client)) {
		do_something_odd(fuzzer);
		err = mount_wait(&fuzzer->mount, &request, QUIET_MS);
		if (!err) {
			hold(fuzzer, &request);
			last_moved = now_ms();
		}
		if (fuzzer->nr_held > pick(&fuzzer->chance, MAX_HELD) ||
		    (err && fuzzer->nr_held))
			answer_one_held(fuzzer);
		if (!steps_left--)
			end_server_early(fuzzer);
		if (fuzzer->over)
			return 0;
		if (now_ms() - last_moved >
		    (may_have_lost(fuzzer) ? LOST_MS : WAIT_MS))
			return may_have_lost(fuzzer) ? 0 : -ETIMEDOUT;
	}
	return 0;
}

static int start_clients(struct fuzzer *fuzzer, struct client client[NR_CLIENTS])
{
	struct fuzz_client work = {
		.mount = &fuzzer->mount, .operations = CLIENT_OPS,
	};
	unsigned int n;
	int err = 0;

	for (n = 0; n < NR_CLIENTS && !err; n++) {
		work.chance = chance_from(fuzzer->seed,
					  fuzzer->round * NR_CLIENTS + n);
		err = client_start(&client[n], ANY_CPU, use_mount, &work);
	}
	if (!err && once_in(&fuzzer->chance, 4))
		client_kill(&client[0], SIGKILL);
	return err;
}

/* What the server did not live to end, an abort has to. */
static int end_clients(struct fuzzer *fuzzer, struct client client[NR_CLIENTS])
{
	unsigned int n;
	int err = 0;

	if (any_runs(client))
		mount_abort(&fuzzer->mount);
	for (n = 0; n < NR_CLIENTS; n++)
		if (client_wait(&client[n], WAIT_MS) == -ETIMEDOUT)
			err = -ETIMEDOUT;
	return err;
}

static long write_and_read(void *arg)
{
	char *path = arg, *buffer = aligned_alloc(4096, LONGEST_IO);
	int cached = open(path, O_RDWR), direct = open(path, O_RDWR | O_DIRECT);

	if (cached < 0 || direct < 0)
		return -errno;
	pattern_fill(buffer, LONGEST_IO, 1);
	if (pwrite(cached, buffer, LONGEST_IO, 0) != LONGEST_IO || fsync(cached))
		return -errno ?: -EIO;
	memset(buffer, 0, LONGEST_IO);
	if (pread(direct, buffer, LONGEST_IO, 0) != LONGEST_IO)
		return -errno ?: -EIO;
	return pattern_differs(buffer, LONGEST_IO, 1) < 0 ? 0 : -EILSEQ;
}

/* The next mount knows nothing of it. */
static void check_next_mount(struct __test_metadata *_metadata, struct fuzzer *fuzzer)
{
	ASSERT_EQ(0, open_mount(fuzzer));
	ASSERT_EQ(0, mount_serve_in_steps(&fuzzer->mount, &fuzzer->mode));
	EXPECT_EQ(0, client_call_served(&fuzzer->mount, ANY_CPU, write_and_read,
					mount_path(&fuzzer->mount, "data")));
	EXPECT_EQ(-1, pattern_differs(fuzzer->fs.data[NODE_DATA], LONGEST_IO, 1));
	ASSERT_EQ(0, close_mount(fuzzer));
}

static void describe(struct fuzzer *fuzzer)
{
	unsigned int qid;

	complain("FUZZ_SEED=%u, mount %u", fuzzer->seed, fuzzer->round);
	for (qid = 0; qid < fuzzer->mount.nr_queues; qid++)
		queue_describe(&fuzzer->mount.queues[qid]);
}

TEST_F_TIMEOUT(fuzz, clients_get_an_end_to_every_call, SLOW_TEST_S)
{
	struct fuzzer *fuzzer = &self->fuzzer;
	struct client client[NR_CLIENTS];

	for (fuzzer->round = 0; fuzzer->round * NR_CLIENTS * CLIENT_OPS <
	     fuzzer->operations; fuzzer->round++) {
		fuzzer->chance = chance_from(fuzzer->seed, fuzzer->round);
		ASSERT_EQ(0, open_mount(fuzzer));
		ASSERT_EQ(0, start_server(fuzzer));
		ASSERT_EQ(0, start_scribbler(fuzzer));
		ASSERT_EQ(0, start_clients(fuzzer, client));
		ASSERT_EQ(0, serve(fuzzer, client)) {
			describe(fuzzer);
		}
		ASSERT_EQ(0, end_clients(fuzzer, client)) {
			describe(fuzzer);
		}
		ASSERT_EQ(0, stop_scribbler(fuzzer));
		ASSERT_EQ(0, fuzzer->wrongly_accepted) {
			describe(fuzzer);
		}
		ASSERT_EQ(0, close_mount(fuzzer));
		check_next_mount(_metadata, fuzzer);
	}
}

static void fill_any_command(struct fuzzer *fuzzer, struct server_queue *queue,
			     struct server_command *command)
{
	switch (pick(&fuzzer->chance, fuzzer->mode.bufpool ? 3 : 1)) {
	case 0:
		queue_fill_register(queue, pick(&fuzzer->chance, DEPTH), command);
		break;
	case 1:
		queue_fill_add_queue(queue, command);
		break;
	default:
		queue_fill_add_bufpool(queue, command);
	}
}

/* The first commands of a mount; true if one that was bent was accepted */
static bool register_oddly(struct fuzzer *fuzzer)
{
	struct server_queue *queue = &fuzzer->mount.queues[0];
	struct server_command reg;
	unsigned int n;

	/* Of a queue that is there more is looked at. */
	if (fuzzer->mode.bufpool && once_in(&fuzzer->chance, 2))
		queue_add(queue);
	for (n = pick(&fuzzer->chance, 4); n; n--) {
		fill_any_command(fuzzer, queue, &reg);
		bend_command(fuzzer, &reg);
		if (once_in(&fuzzer->chance, 4))
			bend_command(fuzzer, &reg);
		if (!queue_send(queue, &reg))
			return true;
		send_anything(fuzzer);
	}
	return false;
}

/*
 * A mount whose server could not register goes on over /dev/fuse, or over a
 * ring that is registered as it should be after all.
 */
TEST_F_TIMEOUT(fuzz, a_mount_survives_any_first_register, SLOW_TEST_S)
{
	struct fuzzer *fuzzer = &self->fuzzer;
	unsigned int qid;
	int err = 0;

	for (fuzzer->round = 0; fuzzer->round < fuzzer->operations / 12;
	     fuzzer->round++) {
		fuzzer->chance = chance_from(fuzzer->seed, fuzzer->round);
		fuzzer->set_up = false;
		ASSERT_EQ(0, open_mount(fuzzer));
		for (qid = 0; qid < fuzzer->mount.nr_queues; qid++)
			ASSERT_EQ(0, queue_open(&fuzzer->mount, qid, &fuzzer->mode));
		if (!register_oddly(fuzzer)) {
			for (qid = 0; qid < fuzzer->mount.nr_queues; qid++)
				err = queue_register(&fuzzer->mount.queues[qid],
						     0);
			if (err != -EOPNOTSUPP)
				ASSERT_EQ(0, err);
			ASSERT_EQ(0, mount_works(&fuzzer->mount)) {
				describe(fuzzer);
			}
		}
		ASSERT_EQ(0, close_mount(fuzzer)) {
			describe(fuzzer);
		}
	}
}

FUSE_TEST_MAIN(NEEDS_RING)
