// SPDX-License-Identifier: GPL-2.0
/*
 * FUSE: Filesystem in Userspace
 *
 * Memory that a server shares with the kernel for its io-uring queues: used
 * in place, or pinned and mapped until the connection has ended.
 */

#include "dev_uring_mem.h"

#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

/* The page array must not need more than kvmalloc() gives without a warning */
#define FUSE_URING_MEM_MAX_PAGES (INT_MAX / sizeof(struct page *))

static int fuse_uring_mem_charge_user(struct user_struct *user,
				      unsigned long nr_pages)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	long locked = atomic_long_read(&user->locked_vm);

	do {
		if (locked + nr_pages > limit)
			return -ENOMEM;
	} while (!atomic_long_try_cmpxchg(&user->locked_vm, &locked,
					  locked + nr_pages));
	return 0;
}

/* The same counters as for registered buffers of io_uring */
static int fuse_uring_mem_account(struct fuse_uring_mem *mem)
{
	if (!capable(CAP_IPC_LOCK)) {
		struct user_struct *user = current_user();
		int err = fuse_uring_mem_charge_user(user, mem->nr_pages);

		if (err)
			return err;
		mem->user = get_uid(user);
	}

	mem->mm = current->mm;
	mmgrab(mem->mm);
	atomic64_add(mem->nr_pages, &mem->mm->pinned_vm);
	return 0;
}

static void fuse_uring_mem_unaccount(struct fuse_uring_mem *mem)
{
	atomic64_sub(mem->nr_pages, &mem->mm->pinned_vm);
	mmdrop(mem->mm);
	mem->mm = NULL;

	if (mem->user) {
		atomic_long_sub(mem->nr_pages, &mem->user->locked_vm);
		free_uid(mem->user);
		mem->user = NULL;
	}
}

static int fuse_uring_mem_pin_pages(struct fuse_uring_mem *mem)
{
	unsigned long start = (unsigned long)mem->uaddr;
	unsigned int done = 0;
	int n;

	while (done < mem->nr_pages) {
		n = pin_user_pages_fast(start + (unsigned long)done * PAGE_SIZE,
					mem->nr_pages - done,
					FOLL_WRITE | FOLL_LONGTERM,
					mem->pages + done);
		if (n <= 0)
			goto err_unpin;
		done += n;
	}
	return 0;

err_unpin:
	unpin_user_pages(mem->pages, done);
	/* The error of pin_user_pages_fast() depends on the mapping. */
	return n == -ENOMEM || n == -EINTR ? n : -EFAULT;
}

static int fuse_uring_mem_pin(struct fuse_uring_mem *mem)
{
	size_t nr_pages = DIV_ROUND_UP(mem->size, PAGE_SIZE);
	int err;

	/* vmap() maps no more than this, and an int counts pinned pages */
	if (nr_pages > totalram_pages() || nr_pages > FUSE_URING_MEM_MAX_PAGES)
		return -ENOMEM;
	mem->nr_pages = nr_pages;

	err = fuse_uring_mem_account(mem);
	if (err)
		return err;

	err = -ENOMEM;
	mem->pages = kvmalloc_objs(struct page *, nr_pages,
				   GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!mem->pages)
		goto err_unaccount;

	err = fuse_uring_mem_pin_pages(mem);
	if (err)
		goto err_free;

	err = -ENOMEM;
	mem->kaddr = vmap(mem->pages, nr_pages, VM_MAP, PAGE_KERNEL);
	if (!mem->kaddr)
		goto err_unpin;

	return 0;

err_unpin:
	unpin_user_pages(mem->pages, nr_pages);
err_free:
	kvfree(mem->pages);
	mem->pages = NULL;
err_unaccount:
	fuse_uring_mem_unaccount(mem);
	return err;
}

/**
 * fuse_uring_mem_init() - set up a region of the current task's memory
 * @mem: the region, all zero
 * @uaddr: where it starts, at a page boundary if it is to be pinned
 * @size: bytes that will be used, not zero
 * @pinned: pin it and map it, or use it in place
 *
 * Context: the server's task. Sleeps for as long as page faults take, or until
 *	    a fatal signal arrives.
 *
 * Return: 0; -EFAULT for memory that is not the task's or, if it is to be
 *	   pinned, not mapped or not writable; -ENOMEM if RLIMIT_MEMLOCK or the
 *	   memory is exhausted; -EINTR for a fatal signal while it is pinned.
 *	   Nothing needs to be released after an error.
 */
int fuse_uring_mem_init(struct fuse_uring_mem *mem, void __user *uaddr,
			size_t size, bool pinned)
{
	if (!access_ok(uaddr, size))
		return -EFAULT;

	mem->uaddr = uaddr;
	mem->size = size;
	mem->pinned = pinned;

	return pinned ? fuse_uring_mem_pin(mem) : 0;
}

/**
 * fuse_uring_mem_release() - unmap and unpin a region
 * @mem: the region; nobody may be copying to or from it, or start to
 *
 * Does nothing for a region in place, or one that was released or never set
 * up.
 *
 * Context: process context, may sleep
 */
void fuse_uring_mem_release(struct fuse_uring_mem *mem)
{
	if (!mem->pages)
		return;

	vunmap(mem->kaddr);
	mem->kaddr = NULL;

	/* The kernel's own mapping has set no dirty bit of the pages. */
	unpin_user_pages_dirty_lock(mem->pages, mem->nr_pages, true);
	kvfree(mem->pages);
	mem->pages = NULL;

	fuse_uring_mem_unaccount(mem);
}
