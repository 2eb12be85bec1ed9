// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests: other processes, clients and servers,
 * and what a process may lock and do.
 */
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fixture_internal.h"

enum child_kind {
	CHILD_CLIENT,
	CHILD_SERVER,
};

static void end_with_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/*
 * A program that takes too long is ended by kselftest's runner. What it started
 * must not go on, nor keep the runner's pipe open.
 */
static void __attribute__((constructor)) end_children_with_parent(void)
{
	pthread_atfork(NULL, NULL, end_with_parent);
}

#define MOST_CLIENTS 64

/* Those that were not waited for: copies, as the tests' own may be gone. */
static struct client started[MOST_CLIENTS];

static void note_client(pid_t pid, const struct client *now)
{
	unsigned int n;

	for (n = 0; n < MOST_CLIENTS; n++)
		if (started[n].pid == pid) {
			started[n] = *now;
			return;
		}
}

static int enter_client(int result_fd, int cpu)
{
	cpu_set_t cpus;

	/* The server's descriptors would keep its files alive here. */
	dup2(result_fd, STDIN_FILENO);
	syscall(__NR_close_range, STDERR_FILENO + 1, ~0U, 0);

	if (cpu == ANY_CPU)
		return 0;
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		return complain_errno("sched_setaffinity");
	return 0;
}

static void run_child(enum child_kind kind, int result_fd, int cpu,
		      long (*call)(void *arg), void *arg)
{
	const char ready = 'r';
	long result;

	if (kind == CHILD_CLIENT) {
		if (enter_client(result_fd, cpu))
			_exit(1);
		result_fd = STDIN_FILENO;
	}
	if (write(result_fd, &ready, 1) != 1)
		_exit(1);
	result = call(arg);
	if (write(result_fd, &result, sizeof(result)) != sizeof(result))
		_exit(1);
	while (kind == CHILD_SERVER)
		pause();
	_exit(0);
}

static int start_child(struct client *client, enum child_kind kind, int cpu,
		       long (*call)(void *arg), void *arg)
{
	int fds[2];
	char ready;
	int err;

	if (pipe2(fds, O_CLOEXEC))
		return complain_errno("pipe2");
	fflush(NULL);
	client->pid = fork();
	if (client->pid < 0)
		return complain_errno("fork");
	if (!client->pid)
		run_child(kind, fds[1], cpu, call, arg);
	close(fds[1]);
	client->result_fd = fds[0];
	client->pidfd = syscall(__NR_pidfd_open, client->pid, 0);
	if (client->pidfd < 0)
		return complain_errno("pidfd_open");
	err = wait_readable(client->result_fd, "starting a child");
	if (!err && read(client->result_fd, &ready, 1) != 1)
		err = -EPIPE;
	note_client(0, client);
	return err;
}

int client_start(struct client *client, int cpu, long (*call)(void *arg),
		 void *arg)
{
	return start_child(client, CHILD_CLIENT, cpu, call, arg);
}

int server_start(struct client *server, long (*call)(void *arg), void *arg)
{
	return start_child(server, CHILD_SERVER, ANY_CPU, call, arg);
}

static void client_forget(struct client *client)
{
	const struct client nobody = {};

	note_client(client->pid, &nobody);
	waitpid(client->pid, NULL, 0);
	close(client->pidfd);
	close(client->result_fd);
	client->pid = 0;
}

bool client_runs(const struct client *client)
{
	struct pollfd pollfd = { .fd = client->pidfd, .events = POLLIN };

	return poll(&pollfd, 1, 0) == 0;
}

/* A letter as in ps(1), or '?' */
static char client_state(const struct client *client)
{
	char path[64], text[256], *name_ends;

	snprintf(path, sizeof(path), "/proc/%d/stat", client->pid);
	if (read_text(path, text, sizeof(text)) <= 0)
		return '?';
	/* The name may hold anything. */
	name_ends = strrchr(text, ')');
	return name_ends && name_ends[1] && name_ends[2] ? name_ends[2] : '?';
}

/* Waits until it is in one of these states. */
static int wait_for_state(const struct client *client, const char *states)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	__u64 deadline = now_ms() + WAIT_MS;

	while (!strchr(states, client_state(client))) {
		if (!ms_until(deadline)) {
			complain("client %d is in no state of %s", client->pid,
				 states);
			clients_describe();
			return -ETIMEDOUT;
		}
		nanosleep(&pause, NULL);
	}
	return 0;
}

int client_wait_asleep(const struct client *client)
{
	return wait_for_state(client, "SD");
}

int client_wait_blocked(const struct client *client)
{
	return wait_for_state(client, "D");
}

/* End of file instead of a result: it was killed. */
static long read_result(const struct client *client)
{
	long result;

	if (read(client->result_fd, &result, sizeof(result)) != sizeof(result))
		return -EPIPE;
	return result;
}

static void describe_client(const struct client *client)
{
	char path[64], stack[2048] = "", *text = stack;

	if (!client_runs(client)) {
		complain("client %d has ended, its call returned %ld",
			 client->pid, read_result(client));
		return;
	}
	complain("client %d runs, in state %c:", client->pid,
		 client_state(client));
	/* The stack is for root to read, and not in every kernel. */
	snprintf(path, sizeof(path), "/proc/%d/stack", client->pid);
	if (read_text(path, stack, sizeof(stack)) <= 0) {
		snprintf(path, sizeof(path), "/proc/%d/wchan", client->pid);
		read_text(path, stack, sizeof(stack));
	}
	while (text && *text)
		complain("  %s", strsep(&text, "\n"));
}

void clients_describe(void)
{
	unsigned int n;

	for (n = 0; n < MOST_CLIENTS; n++)
		if (started[n].pid)
			describe_client(&started[n]);
}

/* Not over when it has its result: its exit may close files, for one. */
long client_wait(struct client *client, int ms)
{
	struct pollfd pollfd = { .fd = client->pidfd, .events = POLLIN };
	long result;

	if (poll(&pollfd, 1, ms) < 1) {
		complain("a client did not finish its call within %d ms", ms);
		clients_describe();
		return -ETIMEDOUT;
	}
	result = read_result(client);
	client_forget(client);
	return result;
}

long server_result(struct client *server)
{
	int err = wait_readable(server->result_fd, "waiting for a server");

	return err ?: read_result(server);
}

int server_kill(struct client *server)
{
	struct pollfd pollfd = { .fd = server->pidfd, .events = POLLIN };

	kill(server->pid, SIGKILL);
	if (poll(&pollfd, 1, WAIT_MS) < 1) {
		complain("a killed process is still there after %d ms", WAIT_MS);
		return -ETIMEDOUT;
	}
	client_forget(server);
	return 0;
}

long client_call(long (*call)(void *arg), void *arg)
{
	struct client client;
	int err = client_start(&client, ANY_CPU, call, arg);

	return err ?: client_wait(&client, 2 * WAIT_MS);
}

/* Answers all requests until @fd is readable. */
static void serve_until(struct fuse_mount *mount, int fd)
{
	struct server_request request;
	int err;

	do {
		err = mount_wait_or(mount, &request, WAIT_MS, fd);
		if (!err)
			err = request_answer(&request);
	} while (!err);
	if (err != -ENODATA)
		complain("serving a client: %s", strerror(-err));
}

long client_wait_served(struct fuse_mount *mount, struct client *client)
{
	serve_until(mount, client->pidfd);
	return client_wait(client, WAIT_MS);
}

long server_result_served(struct fuse_mount *mount, struct client *server)
{
	serve_until(mount, server->result_fd);
	return server_result(server);
}

long client_call_served(struct fuse_mount *mount, int cpu,
			long (*call)(void *arg), void *arg)
{
	struct client client;
	int err = client_start(&client, cpu, call, arg);

	return err ?: client_wait_served(mount, &client);
}

static long look_at_root(void *arg)
{
	struct stat st;

	if (stat(arg, &st))
		return -errno;
	return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

long mount_works(struct fuse_mount *mount)
{
	return client_call_served(mount, ANY_CPU, look_at_root, mount->dir);
}

void client_kill(struct client *client, int signal)
{
	kill(client->pid, signal);
}

/* Memory lock accounting and privileges */

long pinned_kib(pid_t pid)
{
	char path[32], status[4096];
	const char *line;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (read_text(path, status, sizeof(status)) <= 0)
		return -1;
	line = strstr(status, "\nVmPin:");
	return line ? strtol(line + strlen("\nVmPin:"), NULL, 10) : -1;
}

int wait_until_pinned_by_is(pid_t pid, long kib)
{
	__u64 deadline = now_ms() + WAIT_MS;
	const struct timespec pause = { .tv_nsec = 1000000 };

	while (pinned_kib(pid) != kib) {
		if (!ms_until(deadline)) {
			complain("VmPin stays at %ld KiB, expected %ld",
				 pinned_kib(pid), kib);
			return -ETIMEDOUT;
		}
		nanosleep(&pause, NULL);
	}
	return 0;
}

int wait_until_pinned_is(long kib)
{
	return wait_until_pinned_by_is(getpid(), kib);
}

int set_memlock(rlim_t bytes)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return complain_errno("getrlimit(RLIMIT_MEMLOCK)");
	limit.rlim_cur = bytes;
	if (limit.rlim_max < limit.rlim_cur) {
		if (has_privilege(CAP_SYS_RESOURCE))
			limit.rlim_max = limit.rlim_cur;
		else
			limit.rlim_cur = limit.rlim_max;
	}
	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		return complain_errno("setrlimit(RLIMIT_MEMLOCK)");
	return 0;
}

uid_t test_user(void)
{
	static uid_t uid;

	if (!uid)
		uid = 100000 + getpid();
	return uid;
}

int become_user_with_memlock(rlim_t bytes)
{
	const struct rlimit limit = { bytes, RLIM_INFINITY };
	const uid_t uid = test_user();

	if (!has_privilege(CAP_SETUID))
		return set_memlock(bytes);
	if (setrlimit(RLIMIT_MEMLOCK, &limit))
		return complain_errno("setrlimit(RLIMIT_MEMLOCK)");
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) ||
	    setresuid(uid, uid, uid))
		return complain_errno("becoming an unprivileged user");
	/* Another user's process is no longer to end with its parent. */
	end_with_parent();
	return 0;
}

static __u64 privileges;

static bool in_initial_user_namespace(void)
{
	char map[64];
	unsigned int inside, outside, count;

	if (read_text("/proc/self/uid_map", map, sizeof(map)) <= 0)
		return true;	/* a kernel that has no others */
	return sscanf(map, "%u %u %u", &inside, &outside, &count) == 3 &&
	       inside == 0 && outside == 0 && count == UINT_MAX;
}

static __u64 effective_capabilities(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	if (syscall(__NR_capget, &header, data))
		return 0;
	return (__u64)data[1].effective << 32 | data[0].effective;
}

/* A container's root may, too. */
bool may_mount(void)
{
	return effective_capabilities() & 1ULL << CAP_SYS_ADMIN;
}

void note_privileges(void)
{
	privileges = in_initial_user_namespace() ? effective_capabilities() : 0;
}

bool has_privilege(unsigned int capability)
{
	return privileges & 1ULL << capability;
}

int drop_capability(unsigned int capability)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];
	__u32 bit = 1U << capability % 32;

	if (syscall(__NR_capget, &header, data))
		return complain_errno("capget");
	data[capability / 32].effective &= ~bit;
	data[capability / 32].permitted &= ~bit;
	if (syscall(__NR_capset, &header, data))
		return complain_errno("capset");
	return 0;
}
