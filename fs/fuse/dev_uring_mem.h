/* SPDX-License-Identifier: GPL-2.0 */
/*
 * FUSE: Filesystem in Userspace
 *
 * Memory that a server shares with the kernel for its io-uring queues.
 */

#ifndef _FS_FUSE_DEV_URING_MEM_H
#define _FS_FUSE_DEV_URING_MEM_H

#include <linux/types.h>
#include <linux/uio.h>

struct mm_struct;
struct user_struct;

/**
 * struct fuse_uring_mem - one contiguous region of a server's memory
 * @uaddr: where the server has it
 * @size: bytes that are used
 * @pinned: pinned and mapped, or used in place; set once, never changes
 * @kaddr: where the kernel has it, if it is pinned
 * @pages: the pinned pages, NULL if nothing is pinned (any more)
 * @nr_pages: number of elements of @pages
 * @user: who is charged for the pages, NULL for a task with CAP_IPC_LOCK
 * @mm: whose VmPin counts the pages
 *
 * A region in place is only reached from the server's task. A pinned one is
 * reached from anywhere, until it is released.
 */
struct fuse_uring_mem {
	void __user *uaddr;
	size_t size;
	bool pinned;
	void *kaddr;
	struct page **pages;
	unsigned int nr_pages;
	struct user_struct *user;
	struct mm_struct *mm;
};

int fuse_uring_mem_init(struct fuse_uring_mem *mem, void __user *uaddr,
			size_t size, bool pinned);
void fuse_uring_mem_release(struct fuse_uring_mem *mem);

/**
 * fuse_uring_mem_iter() - point an iterator at a part of a region
 * @mem: the region
 * @offset: where in the region
 * @size: how much, the region has that much at @offset
 * @ddir: ITER_DEST to copy to the region, ITER_SOURCE to copy from it
 * @iter: the iterator
 * @kvec: lives as long as @iter
 *
 * Return: 0 or -EFAULT
 */
static inline int fuse_uring_mem_iter(const struct fuse_uring_mem *mem,
				      size_t offset, size_t size, int ddir,
				      struct iov_iter *iter, struct kvec *kvec)
{
	if (mem->pinned) {
		kvec->iov_base = mem->kaddr + offset;
		kvec->iov_len = size;
		iov_iter_kvec(iter, ddir, kvec, 1, size);
		return 0;
	}

	return import_ubuf(ddir, mem->uaddr + offset, size, iter);
}

#endif /* _FS_FUSE_DEV_URING_MEM_H */
