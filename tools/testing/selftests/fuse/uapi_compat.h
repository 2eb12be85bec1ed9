/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The fuse io-uring uapi under any <linux/fuse.h>: the tests build against the
 * headers of distributions, which are older than the kernels they test. What a
 * header may lack is here, by the minor version of the protocol that brought
 * it. Two structs have grown since they came, and cannot be defined once more:
 * those of 7.46 have names of their own.
 */
#ifndef FUSE_TEST_UAPI_COMPAT_H
#define FUSE_TEST_UAPI_COMPAT_H

#include <stddef.h>
#include <linux/const.h>
#include <linux/types.h>
#include <linux/fuse.h>
#include <linux/fuse_bufring.h>

#if FUSE_KERNEL_MINOR_VERSION < 40
#define FUSE_PASSTHROUGH		_BITULL(37)
#endif

/* Linux 6.14 */
#if FUSE_KERNEL_MINOR_VERSION < 42
#define FUSE_OVER_IO_URING		_BITULL(41)

#define FUSE_URING_IN_OUT_HEADER_SZ	128
#define FUSE_URING_OP_IN_OUT_SZ		128

#define FUSE_IO_URING_CMD_REGISTER		1
#define FUSE_IO_URING_CMD_COMMIT_AND_FETCH	2

struct fuse_uring_ent_in_out {
	__u64 flags;
	__u64 commit_id;
	__u32 payload_sz;
	__u32 padding;
	__u64 reserved;
};

struct fuse_uring_req_header {
	char in_out[FUSE_URING_IN_OUT_HEADER_SZ];
	char op_in[FUSE_URING_OP_IN_OUT_SZ];
	struct fuse_uring_ent_in_out ring_ent_in_out;
};
#endif

#if FUSE_KERNEL_MINOR_VERSION < 43
#define FUSE_REQUEST_TIMEOUT		_BITULL(42)
#endif

/* Linux 7.3 */
#if FUSE_KERNEL_MINOR_VERSION < 46
#define FUSE_HAS_IO_URING_BUFPOOL	_BITULL(43)

#define FUSE_IO_URING_CMD_ADD_QUEUE	3
#define FUSE_IO_URING_CMD_ADD_BUFPOOL	4

#define FUSE_URING_ZERO_COPY		_BITUL(0)	/* of ADD_QUEUE */
#define FUSE_URING_ENT_ZERO_COPY	_BITUL(0)
#define FOPEN_IO_URING_ZERO_COPY	_BITUL(8)
#endif

/* struct fuse_uring_ent_in_out */
struct bufpool_ent_in_out {
	__u64 flags;
	__u64 commit_id;
	__u32 payload_sz;
	__u32 offset;
	__u64 reserved;
};

/* struct fuse_uring_cmd_req */
struct bufpool_cmd_req {
	__u64 flags;
	__u64 commit_id;
	__u16 qid;
	__u8 padding[6];
	union {
		struct {
			__u64 uaddr;
			__u32 len;
			__u32 reserved;		/* or the size of a buffer */
		} bufpool;
		__u16 zero_copy_index;
	};
};

/* struct fuse_init_out: where 7.43 has request_timeout */
#define INIT_OUT_REQUEST_TIMEOUT	40

#endif
