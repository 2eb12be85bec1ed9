// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * probe_fs: a file system on libfuse's high-level interface that shows how its
 * operations are run. It knows nothing of the library under test.
 *
 *   /meet     reading takes until another read of it runs, or some time
 *   /hold     reading takes until it is interrupted, or some time
 *   /lock     its locks are waited for in the operation
 *   /data     may be written and read
 *   /most     how many operations ran at once at most
 *   /waiting  how many are held or wait for a lock now
 *   /woken    how many were ended by an interrupt, and how many by the time
 *   /threads  how many threads there are, as the operations see it
 *   /exit     reading has the file system end
 *   /late     reading takes until that was asked for, and some time more
 *   /exit_late  reading has the file system end, and takes some time more
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEET_MS		300
#define HOLD_SECONDS	20
#define LATE_MS		500
#define DATA_SIZE	(4 << 20)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t met = PTHREAD_COND_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static int running, most, waiting, interrupted, timed_out;
static unsigned int meetings;
static bool ends;
static char *data;
static size_t data_size;
static int lock_file;

struct file {
	const char *path;
	int (*show)(char *text, size_t size);
};

static void enter(int *count)
{
	pthread_mutex_lock(&lock);
	if (count)
		(*count)++;
	running++;
	if (running > most)
		most = running;
	pthread_mutex_unlock(&lock);
}

static void leave(int *count)
{
	pthread_mutex_lock(&lock);
	if (count)
		(*count)--;
	running--;
	pthread_mutex_unlock(&lock);
}

static struct timespec in_ms(int ms)
{
	struct timespec when;

	clock_gettime(CLOCK_REALTIME, &when);
	when.tv_nsec += ms * 1000000LL;
	when.tv_sec += when.tv_nsec / 1000000000;
	when.tv_nsec %= 1000000000;
	return when;
}

static int show_meet(char *text, size_t size)
{
	struct timespec end = in_ms(MEET_MS);
	unsigned int mine;
	bool alone;

	pthread_mutex_lock(&lock);
	mine = ++meetings;
	pthread_cond_broadcast(&met);
	while (meetings == mine &&
	       pthread_cond_timedwait(&met, &lock, &end) == 0)
		;
	alone = meetings == mine;
	pthread_mutex_unlock(&lock);
	return snprintf(text, size, "%s\n", alone ? "alone" : "together");
}

static int show_hold(char *text, size_t size)
{
	struct timespec left = { .tv_sec = HOLD_SECONDS };
	int *outcome;

	enter(&waiting);
	/* libfuse sends a signal to the thread. */
	while (!fuse_interrupted() && nanosleep(&left, &left) < 0)
		;
	outcome = fuse_interrupted() ? &interrupted : &timed_out;
	leave(&waiting);
	pthread_mutex_lock(&lock);
	(*outcome)++;
	pthread_mutex_unlock(&lock);
	if (outcome == &interrupted)
		return -EINTR;
	return snprintf(text, size, "held\n");
}

static int show_count(char *text, size_t size, int *count)
{
	int n;

	pthread_mutex_lock(&lock);
	n = *count;
	pthread_mutex_unlock(&lock);
	return snprintf(text, size, "%d\n", n);
}

static int show_most(char *text, size_t size)
{
	return show_count(text, size, &most);
}

static int show_waiting(char *text, size_t size)
{
	return show_count(text, size, &waiting);
}

static int show_woken(char *text, size_t size)
{
	int n;

	pthread_mutex_lock(&lock);
	n = snprintf(text, size, "%d interrupted, %d timed out\n", interrupted,
		     timed_out);
	pthread_mutex_unlock(&lock);
	return n;
}

static int show_threads(char *text, size_t size)
{
	FILE *status = fopen("/proc/self/status", "re");
	char line[256];
	int n = 0;

	if (!status)
		return -errno;
	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "Threads: %d", &n) == 1)
			break;
	fclose(status);
	return snprintf(text, size, "%d\n", n);
}

static int show_exit(char *text, size_t size)
{
	fuse_exit(fuse_get_context()->fuse);
	pthread_mutex_lock(&lock);
	ends = true;
	pthread_cond_broadcast(&ended);
	pthread_mutex_unlock(&lock);
	return snprintf(text, size, "it ends\n");
}

static int show_late(char *text, size_t size)
{
	enter(&waiting);
	pthread_mutex_lock(&lock);
	while (!ends)
		pthread_cond_wait(&ended, &lock);
	pthread_mutex_unlock(&lock);
	usleep(LATE_MS * 1000);
	leave(&waiting);
	return snprintf(text, size, "late\n");
}

static int show_exit_late(char *text, size_t size)
{
	show_exit(text, size);
	return show_late(text, size);
}

static const struct file files[] = {
	{ "/meet", show_meet },
	{ "/hold", show_hold },
	{ "/lock", NULL },
	{ "/data", NULL },
	{ "/most", show_most },
	{ "/waiting", show_waiting },
	{ "/woken", show_woken },
	{ "/threads", show_threads },
	{ "/exit", show_exit },
	{ "/late", show_late },
	{ "/exit_late", show_exit_late },
	{}
};

static const struct file *find(const char *path)
{
	const struct file *file;

	for (file = files; file->path; file++)
		if (!strcmp(path, file->path))
			return file;
	return NULL;
}

static int probe_getattr(const char *path, struct stat *st,
			 struct fuse_file_info *fi)
{
	(void)fi;
	st->st_uid = getuid();
	st->st_gid = getgid();
	st->st_nlink = 1;
	st->st_mode = S_IFREG | 0644;
	if (!strcmp(path, "/"))
		st->st_mode = S_IFDIR | 0755;
	else if (!find(path))
		return -ENOENT;
	if (!strcmp(path, "/data"))
		st->st_size = data_size;
	return 0;
}

static int probe_readdir(const char *path, void *buf, fuse_fill_dir_t fill,
			 off_t offset, struct fuse_file_info *fi,
			 enum fuse_readdir_flags flags)
{
	const struct file *file;

	(void)path;
	(void)offset;
	(void)fi;
	(void)flags;
	fill(buf, ".", NULL, 0, 0);
	fill(buf, "..", NULL, 0, 0);
	for (file = files; file->path; file++)
		fill(buf, file->path + 1, NULL, 0, 0);
	return 0;
}

/* An open file description of its own for each, as locks want it */
static int open_lock(void)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", lock_file);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int probe_open(const char *path, struct fuse_file_info *fi)
{
	int fd = -1;

	if (!strcmp(path, "/lock")) {
		fd = open_lock();
		if (fd < 0)
			return fd;
	}
	fi->fh = fd;
	/* Sizes are 0, and what is read changes. */
	fi->direct_io = 1;
	return 0;
}

static int probe_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	if ((int)fi->fh >= 0)
		close(fi->fh);
	return 0;
}

static int read_data(char *buf, size_t size, off_t offset)
{
	if ((size_t)offset >= data_size)
		return 0;
	if (size > data_size - offset)
		size = data_size - offset;
	memcpy(buf, data + offset, size);
	return size;
}

static int probe_read(const char *path, char *buf, size_t size, off_t offset,
		      struct fuse_file_info *fi)
{
	const struct file *file = find(path);
	char text[100];
	int len;

	(void)fi;
	enter(NULL);
	if (file->show)
		len = offset ? 0 : file->show(text, sizeof(text));
	else
		len = read_data(buf, size, offset);
	leave(NULL);
	if (file->show && len > 0) {
		if ((size_t)len > size)
			len = size;
		memcpy(buf, text, len);
	}
	return len;
}

static int probe_write(const char *path, const char *buf, size_t size,
		       off_t offset, struct fuse_file_info *fi)
{
	(void)fi;
	if (strcmp(path, "/data") != 0)
		return -EACCES;
	if (offset + size > DATA_SIZE)
		return -ENOSPC;
	enter(NULL);
	memcpy(data + offset, buf, size);
	if (data_size < offset + size)
		data_size = offset + size;
	leave(NULL);
	return size;
}

static int probe_truncate(const char *path, off_t size,
			  struct fuse_file_info *fi)
{
	(void)fi;
	if (strcmp(path, "/data") != 0)
		return -EACCES;
	if (size > DATA_SIZE)
		return -ENOSPC;
	memset(data + size, 0, DATA_SIZE - size);
	data_size = size;
	return 0;
}

static int probe_lock(const char *path, struct fuse_file_info *fi, int cmd,
		      struct flock *fl)
{
	bool waits = cmd == F_SETLKW;
	int result;

	if (strcmp(path, "/lock") != 0)
		return -ENOLCK;
	fl->l_pid = 0;
	cmd = cmd == F_GETLK ? F_OFD_GETLK : waits ? F_OFD_SETLKW : F_OFD_SETLK;
	enter(waits ? &waiting : NULL);
	result = fcntl(fi->fh, cmd, fl);
	result = result < 0 ? -errno : 0;
	leave(waits ? &waiting : NULL);
	return result;
}

static int probe_flock(const char *path, struct fuse_file_info *fi, int op)
{
	bool waits = !(op & LOCK_NB) && !(op & LOCK_UN);
	int result;

	if (strcmp(path, "/lock") != 0)
		return -ENOLCK;
	enter(waits ? &waiting : NULL);
	result = flock(fi->fh, op);
	result = result < 0 ? -errno : 0;
	leave(waits ? &waiting : NULL);
	return result;
}

static void *probe_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
	(void)conn;
	config->intr = 1;
	return NULL;
}

static const struct fuse_operations operations = {
	.init = probe_init,
	.getattr = probe_getattr,
	.readdir = probe_readdir,
	.open = probe_open,
	.release = probe_release,
	.read = probe_read,
	.write = probe_write,
	.truncate = probe_truncate,
	.lock = probe_lock,
	.flock = probe_flock,
};

/* libfuse has a handler of its own only where it was told of intr earlier. */
static void ignore(int signal)
{
	(void)signal;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = ignore };

	sigaction(SIGUSR1, &action, NULL);
	data = calloc(1, DATA_SIZE);
	lock_file = memfd_create("lock", MFD_CLOEXEC);
	if (!data || lock_file < 0) {
		perror("probe_fs");
		return 1;
	}
	return fuse_main(argc, argv, &operations, NULL);
}
