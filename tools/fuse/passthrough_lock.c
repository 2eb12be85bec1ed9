// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * passthrough_ring: file locks
 *
 * The source's own locks are used, so that who works on it directly takes part.
 *
 * An flock belongs to an open file, here as there. A POSIX lock belongs to an
 * owner, whichever descriptor it comes by: each owner of a file gets an open
 * file of its own, and the locks of that one (OFD locks). The client's own OFD
 * locks come as POSIX locks do, with the open file as their owner.
 *
 * A request that has to wait for its lock gets a thread for that: the lock may
 * be given back by a request that would else stand in line behind it. A signal
 * ends the wait. As it could arrive just before the wait begins, a timer sends
 * it until it was noticed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "passthrough.h"

#define WAKE_SIGNAL	(SIGRTMIN + 1)
#define WAKE_PERIOD_NS	10000000

struct lock_owner {
	struct lock_owner *next;
	uint64_t id;
	uint64_t file;		/* the client's open file that it came by last */
	int fd;
	unsigned int users;
};

/*
 * POSIX locks
 */

/*
 * As much as the file's mode allows, and its attributes, which may say that it
 * is only appended to or not changed: the kind of lock asks for no more.
 */
static int open_for_locks(struct passthrough *pt, const struct inode *inode)
{
	static const int modes[] = {
		O_RDWR, O_RDWR | O_APPEND, O_RDONLY,
		O_WRONLY, O_WRONLY | O_APPEND,
	};
	int fd = -EINVAL;
	size_t i;

	for (i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		fd = inode_open(pt, inode->fd, modes[i]);
		if (fd != -EACCES && fd != -EROFS && fd != -ETXTBSY &&
		    fd != -EPERM)
			break;
	}
	return fd;
}

static struct lock_owner **find_owner_locked(struct inode *inode, uint64_t id)
{
	struct lock_owner **link = &inode->owners;

	while (*link && (*link)->id != id)
		link = &(*link)->next;
	return link;
}

static int add_owner_locked(struct passthrough *pt, struct inode *inode,
			    uint64_t id, struct lock_owner **owner)
{
	struct lock_owner *new = calloc(1, sizeof(*new));
	int fd;

	if (!new)
		return -ENOMEM;
	fd = open_for_locks(pt, inode);
	if (fd < 0) {
		free(new);
		return fd;
	}
	new->id = id;
	new->fd = fd;
	new->next = inode->owners;
	inode->owners = new;
	*owner = new;
	return 0;
}

/* The owner's open file, which stays until put_owner() */
static int get_owner(struct passthrough *pt, struct inode *inode,
		     const struct fuse_file_info *fi, struct lock_owner **owner)
{
	int err = 0;

	pthread_mutex_lock(&pt->owners_lock);
	*owner = *find_owner_locked(inode, fi->lock_owner);
	if (!*owner)
		err = add_owner_locked(pt, inode, fi->lock_owner, owner);
	if (!err) {
		(*owner)->users++;
		(*owner)->file = fi->fh;
	}
	pthread_mutex_unlock(&pt->owners_lock);
	return err;
}

static void put_owner(struct passthrough *pt, struct lock_owner *owner)
{
	pthread_mutex_lock(&pt->owners_lock);
	owner->users--;
	pthread_mutex_unlock(&pt->owners_lock);
}

static int unlock_all(int fd)
{
	struct flock whole = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	return fcntl(fd, F_OFD_SETLK, &whole) ? -errno : 0;
}

/* Takes the owner's locks, and itself out of the list if nobody uses it. */
static int drop_owner_locked(struct lock_owner **link,
			     struct lock_owner **dropped)
{
	struct lock_owner *owner = *link;

	if (owner->users)
		return unlock_all(owner->fd);
	*link = owner->next;
	owner->next = *dropped;
	*dropped = owner;
	return 0;
}

static void free_owners(struct lock_owner *owner)
{
	struct lock_owner *next;

	for (; owner; owner = next) {
		next = owner->next;
		close(owner->fd);
		free(owner);
	}
}

/* Closing any descriptor of a file gives up all its owner's locks on it. */
int lock_release_owner(struct passthrough *pt, struct inode *inode,
		       uint64_t id)
{
	struct lock_owner *dropped = NULL, **link;
	int err = 0;

	pthread_mutex_lock(&pt->owners_lock);
	link = find_owner_locked(inode, id);
	if (*link)
		err = drop_owner_locked(link, &dropped);
	pthread_mutex_unlock(&pt->owners_lock);
	free_owners(dropped);
	return err;
}

/*
 * The last descriptor of an open file is closed. That gives up its OFD locks,
 * and no flush names their owner.
 */
void lock_release_file(struct passthrough *pt, struct inode *inode,
		       uint64_t file)
{
	struct lock_owner *dropped = NULL, *owner, **link;

	pthread_mutex_lock(&pt->owners_lock);
	for (link = &inode->owners; (owner = *link);) {
		if (owner->file == file)
			drop_owner_locked(link, &dropped);
		if (*link == owner)
			link = &owner->next;
	}
	pthread_mutex_unlock(&pt->owners_lock);
	free_owners(dropped);
}

void lock_free_owners(struct inode *inode)
{
	free_owners(inode->owners);
	inode->owners = NULL;
}

void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
	      struct flock *lock)
{
	struct passthrough *pt = passthrough_of(req);
	struct lock_owner *owner;
	int err;

	err = get_owner(pt, inode_of(req, ino), fi, &owner);
	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	lock->l_pid = 0;
	err = fcntl(owner->fd, F_OFD_GETLK, lock) ? errno : 0;
	put_owner(pt, owner);
	if (err)
		fuse_reply_err(req, err);
	else
		fuse_reply_lock(req, lock);
}

/*
 * Waiting
 */

/* A lock to be had, for a request; POSIX if there is an owner, else flock */
struct wait {
	struct wait *next;	/* under waits.lock */
	struct passthrough *pt;
	fuse_req_t req;
	struct lock_owner *owner;
	struct flock lock;
	int fd;
	int operation;
	timer_t timer;		/* once armed sends WAKE_SIGNAL to the thread */
	bool has_timer;		/* under waits.lock */
	bool interrupted;	/* under waits.lock */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t fewer;
	struct wait *first;
	bool stopped;
} waits = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.fewer = PTHREAD_COND_INITIALIZER,
};

static int take(const struct wait *wait, bool block)
{
	struct flock lock = wait->lock;
	int ret;

	if (wait->owner)
		ret = fcntl(wait->fd, block ? F_OFD_SETLKW : F_OFD_SETLK,
			    &lock);
	else
		ret = flock(wait->fd,
			    wait->operation | (block ? 0 : LOCK_NB));
	return ret ? -errno : 0;
}

static void wake_locked(struct wait *wait)
{
	const struct itimerspec again = {
		.it_value.tv_nsec = 1,
		.it_interval.tv_nsec = WAKE_PERIOD_NS,
	};

	wait->interrupted = true;
	if (wait->has_timer)
		timer_settime(wait->timer, 0, &again, NULL);
}

static void on_interrupt(fuse_req_t req, void *data)
{
	(void)req;
	pthread_mutex_lock(&waits.lock);
	wake_locked(data);
	pthread_mutex_unlock(&waits.lock);
}

static bool is_interrupted(const struct wait *wait)
{
	bool interrupted;

	pthread_mutex_lock(&waits.lock);
	interrupted = wait->interrupted;
	pthread_mutex_unlock(&waits.lock);
	return interrupted;
}

static void allow_wake_signal_only(void)
{
	sigset_t others;

	sigfillset(&others);
	sigdelset(&others, WAKE_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &others, NULL);
}

/* From here on the thread can be woken. */
static int make_timer(struct wait *wait)
{
	struct sigevent event = {
		.sigev_notify = SIGEV_THREAD_ID,
		.sigev_signo = WAKE_SIGNAL,
	};
	int err = 0;

	event._sigev_un._tid = syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, &wait->timer))
		return -ENOLCK;
	pthread_mutex_lock(&waits.lock);
	wait->has_timer = true;
	if (wait->interrupted)
		err = -EINTR;
	pthread_mutex_unlock(&waits.lock);
	return err;
}

static int wait_for_lock(struct wait *wait)
{
	int err = make_timer(wait);

	while (!err) {
		err = take(wait, true);
		if (!err)
			return 0;
		if (err == -EINTR && !is_interrupted(wait))
			err = 0;
	}
	return err;
}

/* A wait is in the list until its request is answered: see lock_stop(). */
static void add_wait(struct wait *wait)
{
	pthread_mutex_lock(&waits.lock);
	wait->next = waits.first;
	waits.first = wait;
	if (waits.stopped)
		wake_locked(wait);
	pthread_mutex_unlock(&waits.lock);
}

static void remove_wait(struct wait *wait)
{
	struct wait **link;

	pthread_mutex_lock(&waits.lock);
	for (link = &waits.first; *link != wait; link = &(*link)->next)
		;
	*link = wait->next;
	if (wait->has_timer)
		timer_delete(wait->timer);
	if (wait->owner)
		put_owner(wait->pt, wait->owner);
	free(wait);
	pthread_cond_signal(&waits.fewer);
	pthread_mutex_unlock(&waits.lock);
}

static void end_wait(struct wait *wait, int err)
{
	/* When this returns nobody is in on_interrupt() any more. */
	fuse_req_interrupt_func(wait->req, NULL, NULL);
	fuse_reply_err(wait->req, -err);
	remove_wait(wait);
}

static void *wait_thread(void *data)
{
	struct wait *wait = data;

	allow_wake_signal_only();
	end_wait(wait, wait_for_lock(wait));
	return NULL;
}

static int start_thread(struct wait *wait)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	err = pthread_attr_init(&attr);
	if (err)
		return -err;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = pthread_create(&thread, &attr, wait_thread, wait);
	pthread_attr_destroy(&attr);
	return -err;
}

/* Answers the request, and lets go of its owner, now or later. */
static void reply_when_taken(const struct wait *what, bool block)
{
	int err = take(what, false);
	struct wait *wait = NULL;

	if (err == -EAGAIN && block) {
		wait = malloc(sizeof(*wait));
		if (!wait)
			err = -ENOLCK;
	}
	if (!wait) {
		fuse_reply_err(what->req, -err);
		if (what->owner)
			put_owner(what->pt, what->owner);
		return;
	}
	*wait = *what;
	add_wait(wait);
	fuse_req_interrupt_func(wait->req, on_interrupt, wait);
	if (start_thread(wait))
		end_wait(wait, -ENOLCK);
}

void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
	      struct flock *lock, int block)
{
	struct wait what = { .pt = passthrough_of(req), .req = req };
	int err;

	err = get_owner(what.pt, inode_of(req, ino), fi, &what.owner);
	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	what.fd = what.owner->fd;
	what.lock = *lock;
	what.lock.l_pid = 0;	/* of OFD locks it has to be 0 */
	reply_when_taken(&what, block);
}

void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
	      int operation)
{
	const struct wait what = {
		.pt = passthrough_of(req),
		.req = req,
		.fd = file_fd(fi),
		.operation = operation & ~LOCK_NB,
	};

	(void)ino;
	reply_when_taken(&what, !(operation & LOCK_NB));
}

static void on_wake_signal(int signal)
{
	(void)signal;
}

int lock_init(void)
{
	/* Without SA_RESTART: it is to end a wait. */
	const struct sigaction action = { .sa_handler = on_wake_signal };

	return sigaction(WAKE_SIGNAL, &action, NULL) ? -errno : 0;
}

/* Before the session is freed: ends all waits, for none could be answered. */
void lock_stop(void)
{
	struct wait *wait;

	pthread_mutex_lock(&waits.lock);
	waits.stopped = true;
	for (wait = waits.first; wait; wait = wait->next)
		wake_locked(wait);
	while (waits.first)
		pthread_cond_wait(&waits.fewer, &waits.lock);
	pthread_mutex_unlock(&waits.lock);
}
