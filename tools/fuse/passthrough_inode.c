// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * passthrough_ring: the files of the source that the kernel knows
 *
 * An inode holds an O_PATH descriptor. As long as that is open its device and
 * inode number belong to that file and no other, so they are the key, however
 * often the file is renamed, linked or unlinked. The kernel names an inode by
 * its address.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "passthrough.h"

#define FIRST_CHAINS	1024

struct fd_path fd_path(int fd)
{
	struct fd_path path;

	snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", fd);
	return path;
}

/* Opens the file of an O_PATH (or any other) descriptor anew. */
int inode_open(struct passthrough *pt, int fd, int flags)
{
	char name[16];
	int opened;

	snprintf(name, sizeof(name), "%d", fd);
	opened = openat(pt->proc_fd, name, (flags & ~O_NOFOLLOW) | O_CLOEXEC);
	return opened < 0 ? -errno : opened;
}

static size_t chain_of(const struct inode_table *table, dev_t dev, ino_t ino)
{
	uint64_t key = (uint64_t)ino ^ ((uint64_t)dev << 40 | dev >> 24);

	/* Fibonacci hashing: the upper bits of the product are well mixed. */
	key *= 0x9e3779b97f4a7c15;
	return (key >> 32) & (table->nr_chains - 1);
}

static struct inode *find_locked(const struct inode_table *table, dev_t dev,
				 ino_t ino)
{
	struct inode *inode = table->chains[chain_of(table, dev, ino)];

	while (inode && (inode->ino != ino || inode->dev != dev))
		inode = inode->next;
	return inode;
}

static void chain_locked(struct inode_table *table, struct inode *inode)
{
	struct inode **head;

	head = &table->chains[chain_of(table, inode->dev, inode->ino)];
	inode->next = *head;
	*head = inode;
}

/* Without memory for it the chains merely get longer. */
static void grow_locked(struct inode_table *table)
{
	struct inode_table larger = { .nr_chains = table->nr_chains * 2 };
	struct inode *inode, *next;
	size_t i;

	larger.chains = calloc(larger.nr_chains, sizeof(*larger.chains));
	if (!larger.chains)
		return;
	for (i = 0; i < table->nr_chains; i++) {
		for (inode = table->chains[i]; inode; inode = next) {
			next = inode->next;
			chain_locked(&larger, inode);
		}
	}
	free(table->chains);
	table->chains = larger.chains;
	table->nr_chains = larger.nr_chains;
}

static void insert_locked(struct inode_table *table, struct inode *inode)
{
	if (table->nr_inodes >= table->nr_chains)
		grow_locked(table);
	chain_locked(table, inode);
	table->nr_inodes++;
	/* An address may be used again; with this it is another inode. */
	inode->generation = ++table->generation;
}

static void remove_locked(struct inode_table *table, struct inode *inode)
{
	struct inode **link;

	link = &table->chains[chain_of(table, inode->dev, inode->ino)];
	while (*link != inode)
		link = &(*link)->next;
	*link = inode->next;
	table->nr_inodes--;
}

static void inode_free(struct inode *inode)
{
	lock_free_owners(inode);
	close(inode->fd);
	free(inode);
}

/*
 * Counts one more lookup of the file that path_fd is open on. The descriptor
 * becomes the inode's, or is closed if the inode has one.
 */
static struct inode *inode_get(struct passthrough *pt, int path_fd,
			       const struct stat *st)
{
	struct inode_table *table = &pt->inodes;
	struct inode *inode, *new;

	new = calloc(1, sizeof(*new));
	if (!new)
		return NULL;
	new->fd = path_fd;
	new->dev = st->st_dev;
	new->ino = st->st_ino;

	pthread_mutex_lock(&table->lock);
	inode = find_locked(table, st->st_dev, st->st_ino);
	if (!inode) {
		inode = new;
		insert_locked(table, inode);
	}
	inode->lookups++;
	pthread_mutex_unlock(&table->lock);

	if (inode != new)
		inode_free(new);
	return inode;
}

void inode_forget(struct passthrough *pt, struct inode *inode,
		  uint64_t lookups)
{
	struct inode_table *table = &pt->inodes;
	bool gone;

	/* The root is never looked up and stays. */
	if (inode == &pt->root)
		return;
	pthread_mutex_lock(&table->lock);
	gone = lookups >= inode->lookups;
	if (gone)
		remove_locked(table, inode);
	else
		inode->lookups -= lookups;
	pthread_mutex_unlock(&table->lock);
	if (gone)
		inode_free(inode);
}

/* To stat the mount itself would be a request to this very server. */
static bool is_own_mount(const struct passthrough *pt, int path_fd)
{
	struct statx stx;

	if (!pt->nested ||
	    statx(path_fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &stx))
		return false;
	return makedev(stx.stx_dev_major, stx.stx_dev_minor) == pt->own_dev;
}

/*
 * File systems that are mounted in the source, and subvolumes, have numbers of
 * their own, but in the mount all files seem to be on one device. So those of
 * another device than the root get its number, mixed, into their upper half.
 */
ino_t inode_number(const struct passthrough *pt, dev_t dev, ino_t ino)
{
	if (dev == pt->root.dev)
		return ino;
	return ino ^ (dev * 0x9e3779b97f4a7c15 & ~0xffffffffULL);
}

static int fill_entry(struct passthrough *pt, int path_fd,
		      struct fuse_entry_param *entry)
{
	struct inode *inode;

	if (is_own_mount(pt, path_fd))
		return -ELOOP;
	if (fstat(path_fd, &entry->attr))
		return -errno;
	inode = inode_get(pt, path_fd, &entry->attr);
	if (!inode)
		return -ENOMEM;
	entry->attr.st_ino = inode_number(pt, inode->dev, inode->ino);
	entry->ino = (uintptr_t)inode;
	entry->generation = inode->generation;
	entry->attr_timeout = pt->attr_timeout;
	entry->entry_timeout = pt->entry_timeout;
	return 0;
}

/*
 * Fills in the entry of the file that the O_PATH descriptor is open on, with
 * one more lookup of it. The descriptor is taken over, also on errors.
 */
int inode_entry(struct passthrough *pt, int path_fd,
		struct fuse_entry_param *entry)
{
	int err = fill_entry(pt, path_fd, entry);

	if (err)
		close(path_fd);
	return err;
}

int inode_table_init(struct passthrough *pt)
{
	struct inode_table *table = &pt->inodes;

	table->nr_chains = FIRST_CHAINS;
	table->chains = calloc(table->nr_chains, sizeof(*table->chains));
	if (!table->chains)
		return -ENOMEM;
	return -pthread_mutex_init(&table->lock, NULL);
}

/* After the session: nobody uses an inode any more. */
void inode_table_free(struct passthrough *pt)
{
	struct inode_table *table = &pt->inodes;
	struct inode *inode, *next;
	size_t i;

	for (i = 0; i < table->nr_chains; i++) {
		for (inode = table->chains[i]; inode; inode = next) {
			next = inode->next;
			inode_free(inode);
		}
	}
	free(table->chains);
	lock_free_owners(&pt->root);
	pthread_mutex_destroy(&table->lock);
}
