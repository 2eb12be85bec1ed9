/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fixture of the fuse io-uring selftests: a mount, its queues, and a server
 * that a test drives step by step.
 *
 * Everything a test sets up lives in its own process and mount namespace, so
 * that an exit, wanted or not, takes the mount and the connection with it. The
 * same goes for what fusermount3 mounts where there can be no such namespace.
 *
 * Functions return 0 or a negative errno, unless they say otherwise. Where
 * the machinery itself breaks they also print one line that says how; tests
 * only compare the value.
 */
#ifndef FUSE_TEST_FIXTURE_H
#define FUSE_TEST_FIXTURE_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <linux/capability.h>
#include <linux/types.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <liburing.h>

#include "kselftest.h"
#include "uapi_compat.h"

/* Nothing here waits longer than this; slow debug kernels under TCG fit. */
#define WAIT_MS 10000
/* How long nothing must happen where nothing may */
#define SILENCE_MS 30

#define DEFAULT_MAX_WRITE (1024 * 1024)

#define PINNED_FLAGS							\
	(FUSE_URING_REGISTER_BUFRING | FUSE_URING_REGISTER_PINNED_HEADERS |		\
	 FUSE_URING_REGISTER_PINNED_BUFFERS)

#define ZERO_COPY_FLAGS (PINNED_FLAGS | FUSE_URING_REGISTER_ZERO_COPY)

/*
 * How the queues of a mount are set up. With bufpool it is by ADD_QUEUE and
 * ADD_BUFPOOL, with flags as a buffer ring, with neither each entry has a payload
 * buffer of its own. variants.h has a name for each kind.
 */
#define BUFPOOL			_BITUL(0)
#define BUFPOOL_REGISTERED	_BITUL(1)	/* it is a fixed buffer */
#define BUFPOOL_ZERO_COPY	_BITUL(2)	/* FUSE_URING_ZERO_COPY */
#define BUFPOOL_SIZES		_BITUL(3)	/* several, each of a size */

struct queue_mode {
	unsigned int bufpool;
	__u64 flags;		/* of REGISTER: FUSE_URING_REGISTER_* */
	__u16 depth;		/* entries */
	/*
	 * Payload buffers; by default as many as entries, of the largest size.
	 * A buffer pool is pool[0], and the kernel decides on its buf_size; with
	 * BUFPOOL_SIZES the server does.
	 */
#define LARGEST_PAYLOAD 0	/* as a buf_size: the mount's max_payload */
	unsigned int nr_pools;
	struct pool_mode {
		__u32 buf_size;
		__u32 nr;
	} pool[FUSE_URING_MAX_POOLS];
};

/* Memory of a queue, as the kernel is told of it */
struct server_memory {
	struct iovec headers;
	struct iovec pool[FUSE_URING_MAX_POOLS];
	bool borrowed;		/* another queue's */
};

/* Exactly what the SQE of a command says; tests bend it as they like. */
struct server_command {
	__u32 op;		/* FUSE_IO_URING_CMD_* */
	__u32 uring_cmd_flags;	/* IORING_URING_CMD_FIXED */
	__u16 slot;		/* the entry; a buffer ring's sqe->buf_index */
	__u16 buf_index;	/* sqe->buf_index on other queues */
	unsigned int nr_iov;
	const struct iovec *iovec;	/* NULL: iov below */
	struct iovec iov[2 + FUSE_URING_MAX_POOLS];
	union {
		struct bufpool_cmd_req cmd;
		struct fuse_uring_bufring_req bufring;
		unsigned char area[80];
	};
};

enum slot_state {
	SLOT_FREE,		/* nothing registered */
	SLOT_AVAILABLE,		/* with the kernel, waiting for a request */
	SLOT_REQUEST,		/* with the server */
	SLOT_DEAD,		/* the kernel gave the entry back with an error */
};

struct server_queue;

/* A request as the server got it */
struct server_request {
	struct server_queue *queue;
	unsigned int slot;
	struct fuse_uring_req_header *header;
	struct fuse_in_header in;
	__u64 commit_id;
	__u64 flags;
	__u32 payload_sz;
	/*
	 * Number of its payload buffer, or FUSE_URING_BUF_NONE. A buffer pool
	 * tells an offset instead, and does not tell that there is no buffer:
	 * the number is derived from the offset and the opcode.
	 */
	__u16 buf_id;
	__u32 offset;
	void *payload;		/* NULL if the request holds no buffer */
	size_t room;		/* bytes in that buffer */
	bool zero_copy;
	__u16 fixed_index;	/* where its pages are, if zero_copy */
};

struct server_slot {
	enum slot_state state;
	int error;
	__u16 zero_copy_index;	/* of REGISTER; the slot's number by default */
	bool transferring;	/* READ_FIXED or WRITE_FIXED is under way */
	bool linked;		/* and its commit follows by itself */
	int transferred;	/* its result */
	struct server_request request;
};

struct server_queue {
	struct fuse_mount *mount;
	unsigned int qid;
	struct queue_mode mode;
	struct io_uring ring;
	bool open;
	pid_t owner;		/* the process that has the ring mapped */
	bool stopped;
	bool signals;		/* mount->ring_fd when there is something */
	bool queue_added;	/* its ADD_QUEUE succeeded */
	bool pool_added;	/* its ADD_BUFPOOL did */
	__u16 pool_index;	/* of a registered buffer pool: depth by default */
	__u64 result_of;	/* user_data of a command that completes at once */
	int result;
	struct server_memory memory;
	struct server_slot *slots;
	/* slots whose request nobody has taken yet, oldest first */
	__u16 *arrived;
	unsigned int nr_slots;
	unsigned int first_arrived;
	unsigned int nr_arrived;
	/* what to do when a transfer that was linked to its commit failed */
	void (*transfer_failed)(struct server_request *request, int result);
};

struct fuse_call;

struct mount_options {
	__u32 max_write;	/* 0: DEFAULT_MAX_WRITE */
	__u64 init_off;	/* INIT flags not to agree to */
	__u64 init_on;	/* further ones to agree to, if offered */
	__u16 max_background;	/* 0: the kernel's default */
	__u16 request_timeout;	/* in seconds, 0: none */
	bool no_uring;		/* do not agree to FUSE_OVER_IO_URING */
	bool no_device_server;	/* leave what arrives on /dev/fuse there */
	/* of mount(2): "fuse" by default, a block device for "fuseblk", "" */
	const char *type;
	const char *source;
	const char *data;	/* more of them, as in "blksize=1024" */
};

struct fuse_mount {
	char dir[64];
	int dev_fd;
	/* who unmounts what fusermount3 mounted when the descriptor is closed */
	pid_t guard;
	int guard_fd;
	int abort_fd;
	unsigned int connection;
	__u64 init_flags;	/* what the kernel offered */
	__u32 max_payload;
	unsigned int nr_queues;
	struct server_queue *queues;

	/* answers a call that came over /dev/fuse or a ring */
	int (*answer)(void *fs, struct fuse_call *call);
	void *fs;

	/* the thread that keeps /dev/fuse drained */
	pthread_t device_thread;
	bool device_thread_runs;
	int stop_fd;
	int ring_fd;		/* eventfd of all rings a test waits for */
	unsigned int device_requests;
	unsigned int forgets;
	unsigned int interrupts;
	__u64 interrupted;	/* the request that the last INTERRUPT is for */
	/*
	 * So many INTERRUPTs are answered with -EAGAIN, as by a server that has
	 * not seen the request yet; a test sets it. How many were, and what
	 * the kernel said to the last such answer: 0 or a negative errno
	 */
	unsigned int refuse_interrupts;
	unsigned int refused_interrupts;
	int refusal_result;
};

/* One call to the file system, wherever it came from */
struct fuse_call {
	const struct fuse_in_header *in;
	const void *op;		/* per-op header */
	const void *data;	/* what follows it */
	size_t data_len;
	void *reply;		/* may be the same memory as data */
	size_t room;
	size_t reply_len;
	bool zero_copy;
	/* for zero-copied data: the file it goes to or comes from */
	int transfer_fd;
	__u64 transfer_offset;
	size_t transfer_len;
};

/* Prints one line that belongs to the test's diagnostics. */
__printf(1, 2)
void complain(const char *format, ...);

/* What can be read at once: its length, or a negative errno */
ssize_t read_text(const char *path, char *text, size_t size);
/* Into a file that is there; 0 or a negative errno */
int write_text(const char *path, const char *text);

/*
 * These return NULL if something can be tested here, else the reason for a
 * SKIP, which names what is missing.
 *
 * Any ring at all. A module parameter that is off is no reason if it can be
 * set: mount_open() does so for as long as INIT takes. A process that may not
 * mount has a user namespace of its own afterwards, where it may, or mounts
 * through fusermount3.
 */
const char *ring_tests_impossible(void);
/* Queues with these REGISTER flags */
const char *flags_impossible(const struct fuse_mount *mount, __u64 flags);
/*
 * All queues in this mode: whether the kernel has it, and the test may have
 * the privileges and the locked memory that it takes
 */
const char *mode_impossible(const struct fuse_mount *mount,
			    const struct queue_mode *mode);
/* Knowing to the page what counts against RLIMIT_MEMLOCK */
const char *exact_memlock_impossible(void);
/*
 * For a test that can take down or hang a kernel without the fix it is for:
 * NULL only if FUSE_DANGEROUS_TESTS=1 says that this kernel has it
 */
const char *dangerous_impossible(void);
bool kernel_has_bufrings(const struct fuse_mount *mount);
bool kernel_has_bufpools(const struct fuse_mount *mount);
bool kernel_has_bufpool_sizes(void);
/* Those that madvise() asks for */
bool kernel_has_huge_pages(void);
/*
 * A capability (CAP_*) of the initial user namespace, which nothing replaces,
 * when the test began
 */
bool has_privilege(unsigned int capability);

#define NO_BUFRINGS							\
	"kernel has no fuse buffer rings (FUSE_HAS_IO_URING_BUFRING is not offered)"
#define NO_BUFPOOLS							\
	"kernel has no fuse buffer pools (FUSE_HAS_IO_URING_BUFPOOL is not offered)"

#define NO_BUFPOOL_SIZES						\
	"kernel has fuse buffer pools of one size only (ADD_BUFPOOL takes no other)"

/*
 * What a kernel does not offer is no test to skip: a program leaves out such
 * variants, with a line that names them, unless the command line selects what is
 * to run. It asks before the first test runs, on a mount of its own.
 */
#define NEEDS_RING		0
#define NEEDS_BUFPOOLS		_BITUL(0)
#define NEEDS_BUFPOOL_SIZES	(NEEDS_BUFPOOLS | _BITUL(1))
#define NEEDS_BUFRINGS		_BITUL(2)

struct noted_variant {
	const char *name;
	struct queue_mode mode;
	struct noted_variant *next;
};

void note_variant(struct noted_variant *variant);
/* Never returns. The end of any_of is 0. */
__noreturn
void run_what_is_offered(int argc, char **argv, const unsigned int *any_of,
			 int (*run)(int argc, char **argv));

/*
 * In place of TEST_HARNESS_MAIN, with what all of the program's tests need: one
 * or two NEEDS_*, of which one is enough. If the kernel has none of it, the whole
 * program is one SKIP.
 */
#define FUSE_TEST_MAIN(...)						\
int main(int argc, char **argv)						\
{									\
	static const unsigned int any_of[] = { __VA_ARGS__, 0 };	\
									\
	run_what_is_offered(argc, argv, any_of, test_harness_run);	\
}

/* Mount and connection */
int mount_open(struct fuse_mount *mount, const struct mount_options *options);
int mount_abort(struct fuse_mount *mount);
/* Readahead decides how large buffered READs get. */
int mount_set_readahead(struct fuse_mount *mount, unsigned int kib);
/* Waits until so many requests, or more, wait for an answer. */
int mount_wait_until_waiting(struct fuse_mount *mount, unsigned int requests);
int mount_detach(struct fuse_mount *mount);
/* The device's last reference in this process, and with it the connection */
void mount_close_device(struct fuse_mount *mount);
/* Ends everything, whatever state it is in. */
void mount_close(struct fuse_mount *mount);
char *mount_path(const struct fuse_mount *mount, const char *name);

/* Set up as @how says, with the entries and buffers of @what */
struct queue_mode mode_with(const struct queue_mode *how,
			    const struct queue_mode *what);
/* What a mode comes to */
bool mode_is_entries(const struct queue_mode *mode);
/* Whether the file's READs and WRITEs are to be zero-copied */
bool mode_zero_copies(const struct queue_mode *mode, bool opted_in);
/* Its pools: number, and -> @pool */
unsigned int mode_pools(const struct fuse_mount *mount,
			const struct queue_mode *mode,
			struct pool_mode pool[FUSE_URING_MAX_POOLS]);
/* What one queue locks: while it is open in a table, and while it is registered */
size_t mode_table_bytes(const struct fuse_mount *mount,
			const struct queue_mode *mode);
size_t mode_pinned_bytes(const struct fuse_mount *mount,
			 const struct queue_mode *mode);

/*
 * What the tables of this process' open queues have pinned. io_uring counts that
 * only for who may not lock as much as they like.
 */
long mount_table_kib(const struct fuse_mount *mount);

/*
 * How many queues a connection has: one for every CPU there can be, numbered
 * without gaps
 */
unsigned int possible_queues(void);
size_t page_align(size_t size);
/* The max_payload of a mount whose max_write is no more than a page */
size_t smallest_payload(void);

/* Queues */
#define RING_FLAGS (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)
#define FIXED_BUFFERS_AS_NEEDED (-1)

/*
 * An io_uring and memory for one queue; registers nothing with fuse. With a
 * buffer pool the table of fixed buffers has a slot for each entry, and after
 * them one with the pool; on a buffer ring with zero-copy it has the former.
 */
int queue_open(struct fuse_mount *mount, unsigned int qid,
	       const struct queue_mode *mode);
/*
 * The same for any struct server_queue, one of several for the same qid, say,
 * with a table of @fixed_buffers slots, or none. A pool is put into slot @depth
 * where there is such a slot.
 */
int queue_open_with(struct server_queue *queue, struct fuse_mount *mount,
		    unsigned int qid, const struct queue_mode *mode,
		    unsigned int ring_flags, int fixed_buffers);
/* Another io_uring for the same queue and memory, with a table of its own */
int queue_open_second(struct server_queue *second,
		      const struct server_queue *first, unsigned int ring_flags,
		      int fixed_buffers);
void queue_close(struct server_queue *queue);

/* The table of fixed buffers: a slot is filled, emptied; all of it goes. */
int queue_table_set(struct server_queue *queue, unsigned int index,
		    void *memory, size_t len);
int queue_table_clear(struct server_queue *queue, unsigned int index);
int queue_table_remove(struct server_queue *queue);
/* The whole table of one as that of another, which must have none */
int queue_table_clone(struct server_queue *to, const struct server_queue *from);

/* What a command has to say in the queue's mode */
void queue_fill_add_queue(struct server_queue *queue,
			  struct server_command *command);
void queue_fill_add_sized_bufpool(struct server_queue *queue, unsigned int n,
				  struct server_command *command);
void queue_fill_add_bufpool(struct server_queue *queue,
			    struct server_command *command);
void queue_fill_register(struct server_queue *queue, unsigned int slot,
			 struct server_command *command);
void queue_fill_commit(struct server_queue *queue, unsigned int slot,
		       unsigned int qid, __u64 commit_id,
		       struct server_command *command);
/*
 * Sends it. REGISTER and COMMIT_AND_FETCH: 0 if it is accepted and pending,
 * else the error it completed with; others: what they completed with
 */
int queue_send(struct server_queue *queue, const struct server_command *command);
/*
 * ADD_QUEUE and ADD_BUFPOOL, as far as they have not succeeded yet; nothing if
 * the mode has no buffer pool
 */
int queue_add(struct server_queue *queue);
/* Adds the queue before its first entry. */
int queue_register(struct server_queue *queue, unsigned int slot);
int queue_register_all(struct server_queue *queue);
/* Opens and registers all slots of every queue: the ring is ready then. */
int mount_serve_in_steps(struct fuse_mount *mount,
			 const struct queue_mode *mode);
void mount_stop_servers(struct fuse_mount *mount);
int join_thread(pthread_t thread, const char *what);
void queue_describe(const struct server_queue *queue);

/* Collects what the ring has; waits for the first one at most @ms. */
int queue_reap(struct server_queue *queue, int ms);
/* Sets queue->stopped when the mount's servers are told to stop. */
void queue_poll_stop(struct server_queue *queue);
bool queue_take(struct server_queue *queue, struct server_request *request);
/* 0 if no request comes for a moment; the rule is that none may */
int mount_expect_silence(struct fuse_mount *mount);
/* Next request on any queue; -ETIMEDOUT if none came */
int mount_wait(struct fuse_mount *mount, struct server_request *request, int ms);
/* Answers from the file system until a request for @opcode arrives. */
int mount_wait_for(struct fuse_mount *mount, __u32 opcode,
		   struct server_request *request);
/* Waits until the kernel has given back every entry of the queue. */
int queue_wait_all_dead(struct server_queue *queue);

/* Replies */
void request_fill_reply(struct server_request *request, int error,
			const void *data, size_t len);
int request_reply(struct server_request *request, int error, const void *data,
		  size_t len);
/* Lets the mount's file system answer it. */
int request_answer(struct server_request *request);
void request_fill_call(struct server_request *request, struct fuse_call *call);
/* The reply to a READ or WRITE whose data was transferred with that result */
void request_fill_transferred(struct server_request *request, int result);
/* COMMIT_AND_FETCH, prepared only, or sent: its error, or 0 while pending */
void queue_prepare_commit(struct server_queue *queue, unsigned int slot,
			  unsigned int qid, __u64 commit_id);
int queue_send_commit(struct server_queue *queue, unsigned int slot,
		      unsigned int qid, __u64 commit_id);
/*
 * READ_FIXED or WRITE_FIXED between a zero-copied request and a file, through
 * slot fixed_index of the table of request->queue. A test may change either: a
 * copy of the request with another queue goes through that one's table.
 */
int request_transfer(struct server_request *request, int fd, __u64 offset,
		     size_t len);
/* The same, @from so many bytes into the request's data */
int request_transfer_at(struct server_request *request, __u64 from, int fd,
			__u64 offset, size_t len);
/* The same with a pipe, which may make it wait, in two steps */
int request_start_transfer(struct server_request *request, int fd, size_t len);
int request_end_transfer(struct server_request *request);
/*
 * All of it, prepared only, with the commit of the reply linked to it: one
 * system call for both. The reply is already filled in as if all of it will be
 * transferred; if not, the kernel cancels the commit and
 * queue->transfer_failed is called.
 */
void request_prepare_transfer_and_commit(struct server_request *request, int fd,
					 __u64 offset, size_t len);

/* Clients: one call in a child of its own, pinned to a CPU */
#define ANY_CPU (-1)

struct client {
	pid_t pid;
	int pidfd;
	int result_fd;
};

int client_start(struct client *client, int cpu, long (*call)(void *arg),
		 void *arg);
/* The value the call returned, or -ETIMEDOUT */
long client_wait(struct client *client, int ms);
/*
 * Another server process: unlike a client it keeps this one's descriptors.
 * It lives on after the call returned, until it is killed.
 */
int server_start(struct client *server, long (*call)(void *arg), void *arg);
/* What its call returned */
long server_result(struct client *server);
/* The same, answering requests of a mount meanwhile */
long server_result_served(struct fuse_mount *mount, struct client *server);
/* Kills it with SIGKILL and waits until it is gone; -ETIMEDOUT if it stays. */
int server_kill(struct client *server);
/* Starts and waits; something else must be serving the mount. */
long client_call(long (*call)(void *arg), void *arg);
/* Starts it and answers requests on all open queues until it returns. */
long client_call_served(struct fuse_mount *mount, int cpu,
			long (*call)(void *arg), void *arg);
/* The same for a client that has been started */
long client_wait_served(struct fuse_mount *mount, struct client *client);
/* A client's look at the mount: 0 if that works */
long mount_works(struct fuse_mount *mount);
bool client_runs(const struct client *client);
/*
 * Waits until it sleeps. A request counts as waiting a moment before it is
 * queued: who needs it queued waits for this too.
 */
int client_wait_asleep(const struct client *client);
/* Waits until it sleeps so that no signal but a fatal one ends it, if that. */
int client_wait_blocked(const struct client *client);
void client_kill(struct client *client, int signal);
/* Where this process may run, which need not be everywhere */
int first_usable_cpu(void);
bool cpu_is_usable(unsigned int cpu);

/* Memory lock accounting */
/* VmPin of a process */
long pinned_kib(pid_t pid);
/* Waits until this process, or another, has exactly that much pinned. */
int wait_until_pinned_is(long kib);
int wait_until_pinned_by_is(pid_t pid, long kib);
/*
 * Gives up root and all capabilities for good. The user is one that nobody
 * else uses, so that nothing else counts against its RLIMIT_MEMLOCK. Who has no
 * root to give up stays who it is, with the limit or the highest one allowed.
 */
int become_user_with_memlock(rlim_t bytes);
uid_t test_user(void);
int set_memlock(rlim_t bytes);
/* Gives up one capability (CAP_*) in the calling thread. */
int drop_capability(unsigned int capability);

__u64 now_ms(void);
/* What is left of the time until then, 0 if it has passed */
int ms_until(__u64 deadline);
/*
 * Waits until another thread or process has counted so far; a flag is a count
 * of one. -ETIMEDOUT after WAIT_MS
 */
int wait_for_count(const unsigned int *counter, unsigned int count);

#endif
