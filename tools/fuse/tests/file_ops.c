// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * file_ops: system calls that no command makes, for passthrough_test.sh
 *
 * Says on standard output what they gave. Called with the same arguments in two
 * directories it is to say the same. The exit status is 0 unless the test
 * itself went wrong.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE	100
#define LIMIT_MS	20000

static void die(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static void say(const char *what, long long result)
{
	if (result < 0)
		printf("%s: %s\n", what, strerror(errno));
	else
		printf("%s: %lld\n", what, result);
	fflush(stdout);
}

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags, 0644);

	if (fd < 0)
		die(path);
	return fd;
}

static void write_or_die(int fd, const void *buf, size_t len)
{
	if (write(fd, buf, len) != (ssize_t)len)
		die("write");
}

/* rename OLD NEW none|noreplace|exchange */
static void do_rename(char **arg)
{
	unsigned int flags = 0;

	if (!strcmp(arg[2], "noreplace"))
		flags = RENAME_NOREPLACE;
	else if (!strcmp(arg[2], "exchange"))
		flags = RENAME_EXCHANGE;
	say("renameat2", renameat2(AT_FDCWD, arg[0], AT_FDCWD, arg[1], flags));
}

/* seek FILE: where its data and holes begin */
static void do_seek(char **arg)
{
	int fd = open_or_die(arg[0], O_RDONLY);
	off_t end = lseek(fd, 0, SEEK_END), at = 0;

	while (at < end) {
		at = lseek(fd, at, SEEK_DATA);
		say("data", at);
		if (at < 0)
			break;
		at = lseek(fd, at, SEEK_HOLE);
		say("hole", at);
	}
	say("data at the end", lseek(fd, end, SEEK_DATA));
	say("hole past the end", lseek(fd, end + 1, SEEK_HOLE));
	close(fd);
}

/* copy FROM OFFSET TO OFFSET LENGTH */
static void do_copy(char **arg)
{
	int in = open_or_die(arg[0], O_RDONLY);
	int out = open_or_die(arg[2], O_RDWR | O_CREAT);
	off_t in_offset = atoll(arg[1]), out_offset = atoll(arg[3]);
	long long left = atoll(arg[4]);
	ssize_t copied = 1;

	while (left && copied > 0) {
		copied = copy_file_range(in, &in_offset, out, &out_offset,
					 left, 0);
		if (copied < 0)
			die("copy_file_range");
		left -= copied;
	}
	say("left", left);
	close(in);
	close(out);
}

/* mmap FILE OFFSET TEXT: puts it there through a shared mapping */
static void do_mmap(char **arg)
{
	int fd = open_or_die(arg[0], O_RDWR);
	off_t size = lseek(fd, 0, SEEK_END), offset = atoll(arg[1]);
	size_t len = strlen(arg[2]);
	char *map, buf[256] = "";

	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		say("mmap", -1);
		return;
	}
	memcpy(map + offset, arg[2], len);
	say("read what was written", pread(fd, buf, len, offset));
	printf("%s\n", buf);
	write_or_die(fd, "end", 3);
	say("msync", msync(map, size, MS_SYNC));
	say("munmap", munmap(map, size));
	close(fd);
}

/* append FILE WORD COUNT: as many lines of it */
static void do_append(char **arg)
{
	int fd = open_or_die(arg[0], O_WRONLY | O_CREAT | O_APPEND);
	char line[LINE_SIZE + 1];
	int i;

	for (i = 0; i < atoi(arg[2]); i++) {
		snprintf(line, sizeof(line), "%s %0*d\n", arg[1],
			 (int)(LINE_SIZE - 2 - strlen(arg[1])), i);
		write_or_die(fd, line, LINE_SIZE);
	}
	if (close(fd))
		die("close");
}

/* unlinked FILE: works on it after it has no name */
static void do_unlinked(char **arg)
{
	int fd = open_or_die(arg[0], O_RDWR | O_CREAT | O_EXCL);
	char buf[64] = "";
	struct stat st;

	write_or_die(fd, "before", 6);
	say("unlink", unlink(arg[0]));
	say("unlink again", unlink(arg[0]));
	say("write", write(fd, " after", 6));
	say("read", pread(fd, buf, sizeof(buf), 0));
	printf("%s\n", buf);
	say("ftruncate", ftruncate(fd, 3));
	say("fchmod", fchmod(fd, 0600));
	say("fsync", fsync(fd));
	if (fstat(fd, &st))
		die("fstat");
	printf("%d links, %lld bytes, mode %o\n", (int)st.st_nlink,
	       (long long)st.st_size, st.st_mode);
	say("link", linkat(fd, "", AT_FDCWD, arg[0], AT_EMPTY_PATH));
	say("close", close(fd));
}

/* tmpfile DIRECTORY NAME: a file without a name, that is given one */
static void do_tmpfile(char **arg)
{
	int fd = open(arg[0], O_TMPFILE | O_RDWR, 0640);
	char path[64];

	if (fd < 0 && errno == EOPNOTSUPP)
		exit(4);
	if (fd < 0)
		die(arg[0]);
	write_or_die(fd, "text", 4);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	say("link", linkat(AT_FDCWD, path, AT_FDCWD, arg[1],
			   AT_SYMLINK_FOLLOW));
	say("close", close(fd));
}

/* forget MOUNT: a remount drops what the kernel knows of its files */
static void do_forget(char **arg)
{
	if (mount("none", arg[0], "fuse", MS_REMOUNT, NULL))
		die(arg[0]);
}

/* write-only FILE: half a page, in the middle of one that is there */
static void do_write_only(char **arg)
{
	int fd = open_or_die(arg[0], O_WRONLY);
	char buf[2048];

	memset(buf, 'w', sizeof(buf));
	say("pwrite", pwrite(fd, buf, sizeof(buf), 1000));
	say("read", read(fd, buf, 1));
	say("close", close(fd));
}

/* direct FILE SIZE: writes and reads it past the page cache */
static void do_direct(char **arg)
{
	int fd = open_or_die(arg[0], O_RDWR | O_CREAT | O_DIRECT);
	size_t size = atoll(arg[1]), i;
	char *out, *in;

	if (posix_memalign((void **)&out, 4096, size) ||
	    posix_memalign((void **)&in, 4096, size))
		die("posix_memalign");
	for (i = 0; i < size; i++)
		out[i] = (i * 2654435761U) >> 24;
	say("pwrite", pwrite(fd, out, size, 4096));
	say("pread", pread(fd, in, size, 4096));
	printf("%s\n", memcmp(in, out, size) ? "differs" : "same");
	say("pread past the end", pread(fd, in, size, 4096 + size));
	free(out);
	free(in);
	close(fd);
}

/* exclusive FILE: O_EXCL, and opens in which the file appears meanwhile */
static void do_exclusive(char **arg)
{
	int fd = open_or_die(arg[0], O_RDWR | O_CREAT | O_EXCL);

	say("again", open(arg[0], O_RDWR | O_CREAT | O_EXCL, 0644));
	say("without O_EXCL", close(open(arg[0], O_RDWR | O_CREAT, 0644)));
	close(fd);
}

/* opened-by-many FILE COUNT: all create it at once, one line each */
static void do_create_race(char **arg)
{
	int i, status, count = atoi(arg[1]), failed = 0;
	char line[32];
	int fd;

	for (i = 0; i < count; i++) {
		if (fork())
			continue;
		fd = open(arg[0], O_WRONLY | O_CREAT | O_APPEND, 0644);
		snprintf(line, sizeof(line), "line %02d\n", i);
		_exit(fd < 0 || write(fd, line, 8) != 8 || close(fd));
	}
	while (wait(&status) > 0)
		failed += status != 0;
	printf("%d failed\n", failed);
}

/*
 * Locks, between this process and a child that does as it is told. The two
 * file names are of one file, be it over two ways.
 */

struct child {
	pid_t pid;
	int socket;
};

enum what {
	TRY_READ,
	TRY_WRITE,
	WAIT_WRITE,
	ASK,
	UNLOCK,
	CLOSE_ANOTHER,
	TRY_FLOCK_SHARED,
	TRY_FLOCK,
	WAIT_FLOCK,
	UNLOCK_FLOCK,
};

struct order {
	enum what what;
	int start;
	int len;
	int alarm_ms;
};

static const char * const what_names[] = {
	[TRY_READ] = "read lock",
	[TRY_WRITE] = "write lock",
	[WAIT_WRITE] = "waited for write lock",
	[ASK] = "no lock in the way",
	[UNLOCK] = "unlock",
	[CLOSE_ANOTHER] = "close another descriptor",
	[TRY_FLOCK_SHARED] = "shared flock",
	[TRY_FLOCK] = "flock",
	[WAIT_FLOCK] = "waited for flock",
	[UNLOCK_FLOCK] = "flock unlock",
};

static void on_alarm(int signal)
{
	(void)signal;
}

/* Signals that come again, as the first could come before the call waits. */
static void set_alarm(int ms)
{
	const struct sigaction action = { .sa_handler = on_alarm };
	const struct itimerval timer = {
		.it_value.tv_usec = ms * 1000,
		.it_interval.tv_usec = ms * 1000,
	};

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

static int posix_lock(int fd, int cmd, short type, const struct order *order,
		      struct flock *lock)
{
	*lock = (struct flock){
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = order->start,
		.l_len = order->len,
	};
	return fcntl(fd, cmd, lock);
}

static int obey(int fd, const char *path, const struct order *order,
		struct flock *lock)
{
	switch (order->what) {
	case TRY_READ:
		return posix_lock(fd, F_SETLK, F_RDLCK, order, lock);
	case TRY_WRITE:
		return posix_lock(fd, F_SETLK, F_WRLCK, order, lock);
	case WAIT_WRITE:
		return posix_lock(fd, F_SETLKW, F_WRLCK, order, lock);
	case ASK:
		return posix_lock(fd, F_GETLK, F_WRLCK, order, lock);
	case UNLOCK:
		return posix_lock(fd, F_SETLK, F_UNLCK, order, lock);
	case CLOSE_ANOTHER:
		return close(open(path, O_RDONLY));
	case TRY_FLOCK_SHARED:
		return flock(fd, LOCK_SH | LOCK_NB);
	case TRY_FLOCK:
		return flock(fd, LOCK_EX | LOCK_NB);
	case WAIT_FLOCK:
		return flock(fd, LOCK_EX);
	case UNLOCK_FLOCK:
		return flock(fd, LOCK_UN);
	}
	return -1;
}

/* Who performs orders, on its own open file */
struct actor {
	const char *name;
	const char *path;
	int fd;
};

static struct actor actor(const char *name, const char *path)
{
	return (struct actor){ name, path, open_or_die(path, O_RDWR | O_CREAT) };
}

/* What came of an order. The parent prints them all, so that they have order. */
struct report {
	char text[256];
};

static struct report carry_out(const struct actor *actor, struct order order)
{
	struct flock lock = { .l_type = F_UNLCK };
	struct report report;
	int ret;

	set_alarm(order.alarm_ms);
	ret = obey(actor->fd, actor->path, &order, &lock);
	if (ret)
		snprintf(report.text, sizeof(report), "%s: %s: %s\n",
			 actor->name, what_names[order.what], strerror(errno));
	else if (order.what == ASK && lock.l_type != F_UNLCK)
		snprintf(report.text, sizeof(report),
			 "%s: a %s lock from %d, %d bytes, is in the way\n",
			 actor->name,
			 lock.l_type == F_RDLCK ? "read" : "write",
			 (int)lock.l_start, (int)lock.l_len);
	else
		snprintf(report.text, sizeof(report), "%s: %s: done\n",
			 actor->name, what_names[order.what]);
	set_alarm(0);
	return report;
}

static void perform(const struct actor *actor, struct order order)
{
	struct report report = carry_out(actor, order);

	printf("%s", report.text);
}

static void be_child(const char *path, int socket)
{
	struct actor self = actor("child", path);
	struct report report;
	struct order order;

	while (read(socket, &order, sizeof(order)) == sizeof(order)) {
		report = carry_out(&self, order);
		write_or_die(socket, &report, sizeof(report));
	}
	/* What is locked now goes with the process. */
	_exit(0);
}

static struct child make_child(const char *path)
{
	struct child child;
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		die("socketpair");
	fflush(stdout);
	child.pid = fork();
	if (child.pid < 0)
		die("fork");
	if (!child.pid) {
		close(sockets[0]);
		be_child(path, sockets[1]);
	}
	close(sockets[1]);
	child.socket = sockets[0];
	return child;
}

static void tell(const struct child *child, struct order order)
{
	write_or_die(child->socket, &order, sizeof(order));
}

static void hear(const struct child *child)
{
	struct pollfd pollfd = { .fd = child->socket, .events = POLLIN };
	struct report report;

	if (poll(&pollfd, 1, LIMIT_MS) != 1) {
		printf("the child does not get ready\n");
		kill(child->pid, SIGKILL);
		exit(1);
	}
	if (recv(child->socket, &report, sizeof(report), MSG_WAITALL) !=
	    sizeof(report))
		die("the child is gone");
	printf("%s", report.text);
}

static void let(const struct child *child, struct order order)
{
	tell(child, order);
	hear(child);
}

static char state_of(pid_t pid)
{
	char path[64], line[256] = "", *end;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		die(path);
	if (!fgets(line, sizeof(line), file))
		die(path);
	fclose(file);
	end = strrchr(line, ')');
	return end ? end[2] : '?';
}

/* The order is read, and the lock not had: so the child sleeps for it. */
static void wait_until_it_waits(const struct child *child)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	struct pollfd pollfd = { .fd = child->socket, .events = POLLIN };
	int i, unread;

	for (i = 0; i < LIMIT_MS; i++) {
		if (poll(&pollfd, 1, 0) == 1) {
			printf("the child did not wait\n");
			return;
		}
		if (ioctl(child->socket, TIOCOUTQ, &unread))
			die("TIOCOUTQ");
		if (!unread && strchr("SD", state_of(child->pid))) {
			printf("the child waits\n");
			return;
		}
		nanosleep(&moment, NULL);
	}
	printf("the child is busy\n");
	exit(1);
}

static void end_child(const struct child *child)
{
	int status;

	close(child->socket);
	if (waitpid(child->pid, &status, 0) != child->pid || status)
		printf("the child ended with %#x\n", status);
}

static struct order order(enum what what)
{
	return (struct order){ .what = what };
}

static struct order range(enum what what, int start, int len)
{
	return (struct order){ .what = what, .start = start, .len = len };
}

static struct order interrupted(struct order order)
{
	order.alarm_ms = 20;
	return order;
}

/* posix-locks FILE FILE */
static void do_posix_locks(char **arg)
{
	struct child child = make_child(arg[1]);
	struct actor self = actor("parent", arg[0]);

	perform(&self, range(TRY_WRITE, 0, 100));
	let(&child, range(ASK, 50, 10));
	let(&child, range(TRY_READ, 50, 100));
	let(&child, range(TRY_WRITE, 100, 10));
	perform(&self, range(TRY_WRITE, 105, 1));
	perform(&self, range(TRY_WRITE, 110, 1));
	/* Of what one holds one can give back a part, and take less. */
	perform(&self, range(UNLOCK, 20, 10));
	perform(&self, range(TRY_READ, 0, 10));
	let(&child, range(TRY_READ, 0, 10));
	let(&child, range(TRY_WRITE, 20, 10));
	let(&child, range(TRY_WRITE, 30, 1));
	/* A wait that ends well, and one that a signal ends */
	tell(&child, range(WAIT_WRITE, 30, 1));
	wait_until_it_waits(&child);
	perform(&self, range(UNLOCK, 30, 1));
	hear(&child);
	let(&child, interrupted(range(WAIT_WRITE, 40, 1)));
	let(&child, range(ASK, 40, 1));
	perform(&self, order(CLOSE_ANOTHER));
	let(&child, range(TRY_WRITE, 40, 20));
	perform(&self, range(TRY_WRITE, 50, 1));
	end_child(&child);
	perform(&self, range(TRY_WRITE, 0, 0));
	close(self.fd);
}

/* flocks FILE FILE */
static void do_flocks(char **arg)
{
	struct child child = make_child(arg[1]);
	struct actor self = actor("parent", arg[0]);

	perform(&self, order(TRY_FLOCK_SHARED));
	let(&child, order(TRY_FLOCK));
	let(&child, order(TRY_FLOCK_SHARED));
	perform(&self, order(TRY_FLOCK));
	let(&child, order(UNLOCK_FLOCK));
	perform(&self, order(TRY_FLOCK));
	tell(&child, order(WAIT_FLOCK));
	wait_until_it_waits(&child);
	perform(&self, order(UNLOCK_FLOCK));
	hear(&child);
	let(&child, order(UNLOCK_FLOCK));
	perform(&self, order(TRY_FLOCK));
	let(&child, interrupted(order(WAIT_FLOCK)));
	perform(&self, order(CLOSE_ANOTHER));
	let(&child, order(TRY_FLOCK));
	/* The last close gives it up, which may take a moment. */
	close(self.fd);
	let(&child, order(WAIT_FLOCK));
	self = actor("parent", arg[0]);
	perform(&self, order(TRY_FLOCK));
	end_child(&child);
	perform(&self, order(WAIT_FLOCK));
	close(self.fd);
}

/* many-waiters FILE COUNT: more of them than any server has threads */
static void do_many_waiters(char **arg)
{
	struct actor self = actor("parent", arg[0]);
	int i, count = atoi(arg[1]);
	struct child children[64];

	if (count > 64)
		exit(1);
	perform(&self, range(TRY_WRITE, 0, 1));
	for (i = 0; i < count; i++) {
		children[i] = make_child(arg[0]);
		tell(&children[i], range(WAIT_WRITE, 0, 1));
		wait_until_it_waits(&children[i]);
	}
	perform(&self, range(UNLOCK, 0, 1));
	/* Each has it until it ends, so they get it in any order. */
	for (i = 0; i < count; i++)
		shutdown(children[i].socket, SHUT_WR);
	for (i = 0; i < count; i++) {
		hear(&children[i]);
		end_child(&children[i]);
	}
	perform(&self, range(TRY_WRITE, 0, 1));
	close(self.fd);
}

static const struct {
	const char *name;
	int args;
	void (*run)(char **arg);
} commands[] = {
	{ "rename", 3, do_rename },
	{ "seek", 1, do_seek },
	{ "copy", 5, do_copy },
	{ "mmap", 3, do_mmap },
	{ "append", 3, do_append },
	{ "unlinked", 1, do_unlinked },
	{ "tmpfile", 2, do_tmpfile },
	{ "forget", 1, do_forget },
	{ "write-only", 1, do_write_only },
	{ "direct", 2, do_direct },
	{ "exclusive", 1, do_exclusive },
	{ "create-race", 2, do_create_race },
	{ "posix-locks", 2, do_posix_locks },
	{ "flocks", 2, do_flocks },
	{ "many-waiters", 2, do_many_waiters },
};

int main(int argc, char **argv)
{
	size_t i;

	for (i = 0; argc > 1 && i < sizeof(commands) / sizeof(*commands); i++) {
		if (strcmp(argv[1], commands[i].name) ||
		    argc - 2 != commands[i].args)
			continue;
		commands[i].run(argv + 2);
		return 0;
	}
	fprintf(stderr, "file_ops: no such command, or other arguments\n");
	return 2;
}
