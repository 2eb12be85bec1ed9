// SPDX-License-Identifier: GPL-2.0
/*
 * A server that waits for itself, because it uses its own mount, or for its
 * clients' sake does nothing at all: it can be killed, its clients can be
 * killed, and an abort ends all of it.
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "test_fs.h"
#include "variants.h"

#define MAX_WRITE 4096
#define PAYLOAD smallest_payload()	/* whole pages */
#define SLOW_TEST_S 120		/* for an emulated debug kernel */

/*
 * Requests that the server's task does not come to fetch
 */

FIXTURE(absent)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct client server;
	int cpu;
};

FIXTURE_VARIANT(absent)
{
	struct queue_mode mode;
};

ADD_ALL_VARIANTS(absent, .depth = 2);

static int mount_without_device_server(struct test_fs *fs,
				       struct fuse_mount *mount)
{
	/* The server is in another process: no thread here for the device. */
	const struct mount_options options = {
		.max_write = MAX_WRITE, .no_device_server = true,
	};

	return test_fs_mount(fs, mount, &options);
}

FIXTURE_SETUP(absent)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	impossible = dangerous_impossible();
	if (impossible)
		SKIP(return, "%s", impossible);
	self->cpu = first_usable_cpu();
	ASSERT_EQ(0, test_fs_open(&self->fs, PAYLOAD));
	ASSERT_EQ(0, mount_without_device_server(&self->fs, &self->mount));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
}

FIXTURE_TEARDOWN(absent)
{
	if (self->server.pid)
		EXPECT_EQ(0, server_kill(&self->server));
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

struct absent_server {
	struct fuse_mount *mount;
	struct test_fs *fs;
	const struct queue_mode *mode;
};

static long look(void *arg)
{
	return access(arg, R_OK) ? -errno : 0;
}

/* The task that would have to answer is the one that asks. */
static long ask_own_mount(void *arg)
{
	struct absent_server *server = arg;

	return mount_serve_in_steps(server->mount, server->mode) ?:
	       look(server->mount->dir);
}

static void start_entangled(struct __test_metadata *_metadata,
			    FIXTURE_DATA(absent) * self,
			    const FIXTURE_VARIANT(absent) * variant)
{
	struct absent_server server = {
		.mount = &self->mount, .mode = &variant->mode,
	};

	ASSERT_EQ(0, server_start(&self->server, ask_own_mount, &server));
	mount_close_device(&self->mount);
	ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, 1));
	ASSERT_EQ(0, client_wait_asleep(&self->server));
}

/* A new connection works. */
static void expect_next_mount_works(struct __test_metadata *_metadata,
				    FIXTURE_DATA(absent) * self,
				    const FIXTURE_VARIANT(absent) * variant)
{
	mount_close(&self->mount);
	ASSERT_EQ(0, mount_without_device_server(&self->fs, &self->mount));
	ASSERT_EQ(0, mount_serve_in_steps(&self->mount, &variant->mode));
	EXPECT_EQ(0, mount_works(&self->mount));
}

TEST_F(absent, a_server_that_asks_its_own_mount_can_be_killed)
{
	start_entangled(_metadata, self, variant);
	ASSERT_EQ(0, server_kill(&self->server));
	self->server.pid = 0;
	expect_next_mount_works(_metadata, self, variant);
}

TEST_F(absent, an_abort_frees_a_server_that_asks_its_own_mount)
{
	start_entangled(_metadata, self, variant);
	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ECONNABORTED, server_result(&self->server));
	ASSERT_EQ(0, server_kill(&self->server));
	self->server.pid = 0;
	expect_next_mount_works(_metadata, self, variant);
}

static long serve_all(void *arg)
{
	struct absent_server *server = arg;

	return test_fs_serve(server->fs, server->mount, server->mode,
			     RING_FLAGS);
}

/* An attribute that the file system does not have; needs a payload buffer */
static long get_value(void *arg)
{
	char value[16];

	return getxattr(arg, "u", value, sizeof(value)) < 0 ? -errno : 0;
}

static void stop_server(struct __test_metadata *_metadata,
			FIXTURE_DATA(absent) * self,
			const FIXTURE_VARIANT(absent) * variant)
{
	struct absent_server server = {
		.mount = &self->mount, .fs = &self->fs, .mode = &variant->mode,
	};

	ASSERT_EQ(0, server_start(&self->server, serve_all, &server));
	ASSERT_EQ(0, server_result(&self->server));
	mount_close_device(&self->mount);
	client_kill(&self->server, SIGSTOP);
	ASSERT_EQ(self->server.pid,
		  waitpid(self->server.pid, NULL, WUNTRACED));
}

static void start_client(struct __test_metadata *_metadata,
			 FIXTURE_DATA(absent) * self, struct client *client)
{
	ASSERT_EQ(0, client_start(client, self->cpu, get_value,
				  self->mount.dir));
	ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, 1));
	ASSERT_EQ(0, client_wait_asleep(client));
}

/* More clients than entries and buffers, so that one that is lost is missed */
TEST_F(absent, clients_of_a_stopped_server_can_be_killed)
{
	struct client client;
	unsigned int n;

	stop_server(_metadata, self, variant);
	for (n = 0; n < variant->mode.depth + 1; n++) {
		start_client(_metadata, self, &client);
		client_kill(&client, SIGKILL);
		ASSERT_EQ(-EPIPE, client_wait(&client, WAIT_MS));
	}
	client_kill(&self->server, SIGCONT);
	for (n = 0; n < variant->mode.depth + 1; n++) {
		ASSERT_EQ(0, client_start(&client, self->cpu, get_value,
					  self->mount.dir));
		EXPECT_EQ(-ENODATA, client_wait(&client, WAIT_MS));
	}
}

TEST_F(absent, an_abort_frees_the_clients_of_a_stopped_server)
{
	struct client client;

	stop_server(_metadata, self, variant);
	start_client(_metadata, self, &client);
	ASSERT_EQ(0, mount_abort(&self->mount));
	EXPECT_EQ(-ECONNABORTED, client_wait(&client, WAIT_MS));
	/* Its task finds no request. */
	client_kill(&self->server, SIGCONT);
	ASSERT_EQ(0, server_kill(&self->server));
	self->server.pid = 0;
	expect_next_mount_works(_metadata, self, variant);
}

/*
 * A server whose payload is a mapping of a file of its own mount. To copy a
 * request there is a page fault, whose end waits for an answer of the server.
 */

FIXTURE(entangled)
{
	struct fuse_mount mount;
	struct test_fs fs;
	struct client server;
	struct client opener;
	struct entangled *entangled;
};

FIXTURE_VARIANT(entangled)
{
	struct queue_mode mode;
};

ADD_VARIANT(entangled, entries, .depth = 1);
ADD_VARIANT(entangled, bufpool, .depth = 1);
ADD_VARIANT(entangled, bufring, .depth = 1, .nr_pools = 1,
	    .pool = { { LARGEST_PAYLOAD, 1 } });

/* In memory that all processes share */
struct entangled {
	struct fuse_mount *mount;
	const struct queue_mode *mode;
	pid_t opener;
	int opened_fd;
	bool dirty;		/* what is mapped */
	unsigned int mapped;	/* a flag */
};

FIXTURE_SETUP(entangled)
{
	const char *impossible = ring_tests_impossible();

	if (impossible)
		SKIP(return, "%s", impossible);
	impossible = dangerous_impossible();
	if (impossible)
		SKIP(return, "%s", impossible);
	self->entangled = mmap(NULL, sizeof(*self->entangled),
			       PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->entangled);
	ASSERT_EQ(0, test_fs_open(&self->fs, PAYLOAD));
	/* Exiting processes must not send a FLUSH to a server that is gone. */
	self->fs.open_flags = FOPEN_NOFLUSH;
	ASSERT_EQ(0, mount_without_device_server(&self->fs, &self->mount));
	impossible = mode_impossible(&self->mount, &variant->mode);
	if (impossible)
		SKIP(return, "%s", impossible);
}

FIXTURE_TEARDOWN(entangled)
{
	if (self->server.pid)
		EXPECT_EQ(0, server_kill(&self->server));
	if (self->opener.pid)
		EXPECT_EQ(0, server_kill(&self->opener));
	mount_close(&self->mount);
	test_fs_close(&self->fs);
}

static long open_data(void *arg)
{
	int fd = open(arg, O_RDWR);

	return fd < 0 ? -errno : fd;
}

static long open_and_read_data(void *arg)
{
	static char buffer[64 * 1024];
	ssize_t len = PAYLOAD;
	long fd = open_data(arg);

	if (fd >= 0 && read(fd, buffer, len) != len)
		return -EIO;
	return fd;
}

/* A descriptor of the file that the opener has open */
static int opened_file(const struct entangled *entangled)
{
	int pidfd = syscall(__NR_pidfd_open, entangled->opener, 0);

	return syscall(__NR_pidfd_getfd, pidfd, entangled->opened_fd, 0);
}

/* Puts the file that another process has open in the place of the payload. */
static int map_over_payload(struct entangled *entangled, unsigned int qid)
{
	struct iovec *pool = &entangled->mount->queues[qid].memory.pool[0];
	int fd = opened_file(entangled);

	if (fd < 0 || mmap(pool->iov_base, PAYLOAD, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		return -errno;
	if (entangled->dirty)
		memset(pool->iov_base, 1, PAYLOAD);
	return 0;
}

static long serve_from_own_mount(void *arg)
{
	struct entangled *entangled = arg;
	struct server_request request;
	unsigned int qid;
	int err;

	err = mount_serve_in_steps(entangled->mount, entangled->mode);
	while (!err && __atomic_load_n(&entangled->opened_fd,
				       __ATOMIC_SEQ_CST) < 0) {
		err = mount_wait(entangled->mount, &request, SILENCE_MS);
		if (!err)
			err = request_answer(&request);
		else if (err == -ETIMEDOUT)
			err = 0;
	}
	for (qid = 0; qid < entangled->mount->nr_queues && !err; qid++)
		err = map_over_payload(entangled, qid);
	__atomic_store_n(&entangled->mapped, 1, __ATOMIC_SEQ_CST);
	return err ?: mount_wait(entangled->mount, &request, WAIT_MS);
}

static void become_entangled(struct __test_metadata *_metadata,
			     FIXTURE_DATA(entangled) * self,
			     const FIXTURE_VARIANT(entangled) * variant,
			     bool dirty)
{
	struct entangled *entangled = self->entangled;

	entangled->mount = &self->mount;
	entangled->mode = &variant->mode;
	entangled->dirty = dirty;
	entangled->opened_fd = -1;
	ASSERT_EQ(0, server_start(&self->server, serve_from_own_mount,
				  entangled));
	mount_close_device(&self->mount);
	ASSERT_EQ(0, server_start(&self->opener,
				  dirty ? open_and_read_data : open_data,
				  mount_path(&self->mount, "data")));
	entangled->opener = self->opener.pid;
	__atomic_store_n(&entangled->opened_fd, server_result(&self->opener),
			 __ATOMIC_SEQ_CST);
	ASSERT_LE(0, entangled->opened_fd);
	ASSERT_EQ(0, wait_for_count(&entangled->mapped, 1));
}

TEST_F(entangled, a_server_whose_payload_has_to_be_read_can_be_killed)
{
	struct client client;
	long result;

	become_entangled(_metadata, self, variant, false);
	/* A LOOKUP, which has its name in the payload, and the fault's READ */
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), look,
				  mount_path(&self->mount, "absent")));
	ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, 2));
	EXPECT_EQ(0, server_kill(&self->server));
	self->server.pid = 0;
	/* The copy fails or is interrupted, or the connection ends first. */
	result = client_wait(&client, WAIT_MS);
	if (result != -EFAULT && result != -EINTR)
		EXPECT_EQ(-ECONNABORTED, result);
}

static long write_back(void *arg)
{
	int fd = opened_file(arg);

	return fd < 0 || fsync(fd) ? -errno : 0;
}

/* The server, which waits, can be killed, and the write-back fails. */
static void expect_it_can_be_ended(struct __test_metadata *_metadata,
				   FIXTURE_DATA(entangled) * self,
				   struct client *write_back)
{
	long result;

	ASSERT_EQ(0, client_wait_blocked(&self->server));
	client_kill(&self->server, SIGKILL);
	ASSERT_EQ(0, mount_abort(&self->mount));
	ASSERT_EQ(0, server_kill(&self->server));
	self->server.pid = 0;
	/*
	 * The error of a WRITE (of its copy, which a page that is gone or the kill
	 * ended), of the FSYNC after them, or of the abort
	 */
	result = client_wait(write_back, WAIT_MS);
	if (result != -EIO && result != -EFAULT && result != -EINTR &&
	    result != -ENOTCONN)
		EXPECT_EQ(-ECONNABORTED, result);
}

/*
 * The page that a WRITE is copied to is the one that it writes back. A fatal
 * signal ends the copy. The exit then waits for the rest of the mapping to be
 * written back, as with any server that maps what it serves, until an abort.
 */
TEST_F_TIMEOUT(entangled, a_server_whose_payload_is_written_back_can_be_ended,
	       SLOW_TEST_S)
{
	struct client client;

	become_entangled(_metadata, self, variant, true);
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), write_back,
				  self->entangled));
	expect_it_can_be_ended(_metadata, self, &client);
}

/* A fault here waits for the writeback, too, and has the page locked. */
static long write_to_page(void *arg)
{
	int fd = opened_file(arg);
	char *page = mmap(NULL, PAYLOAD, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			  0);

	if (page == MAP_FAILED)
		return -errno;
	*page = 2;
	return 0;
}

TEST_F_TIMEOUT(entangled, a_server_whose_payload_is_locked_can_be_ended,
	       SLOW_TEST_S)
{
	struct client client, writer;

	become_entangled(_metadata, self, variant, true);
	client_kill(&self->server, SIGSTOP);
	ASSERT_EQ(self->server.pid,
		  waitpid(self->server.pid, NULL, WUNTRACED));
	ASSERT_EQ(0, client_start(&client, first_usable_cpu(), write_back,
				  self->entangled));
	ASSERT_EQ(0, mount_wait_until_waiting(&self->mount, 1));
	ASSERT_EQ(0, client_wait_asleep(&client));
	ASSERT_EQ(0, server_start(&writer, write_to_page, self->entangled));
	ASSERT_EQ(0, client_wait_blocked(&writer));
	client_kill(&self->server, SIGCONT);
	expect_it_can_be_ended(_metadata, self, &client);
	EXPECT_EQ(0, server_kill(&writer));
}

FUSE_TEST_MAIN(NEEDS_RING)
