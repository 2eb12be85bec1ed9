/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every constant, size and offset of the fuse io-uring uapi as a literal. A
 * server built elsewhere has these numbers in its code, so none may change,
 * on any architecture. To be included in a function, which defines what
 * LAYOUT(actual, number) does and has variables ent and cmd of the two structs.
 */

/* INIT and OPEN flags */
LAYOUT(FUSE_OVER_IO_URING, 0x20000000000);
LAYOUT(FUSE_HAS_IO_URING_BUFPOOL, 0x80000000000);
LAYOUT(FUSE_HAS_IO_URING_BUFRING, 0x1000000000000000);
LAYOUT(FOPEN_IO_URING_ZERO_COPY, 0x100);

/* Commands */
LAYOUT(FUSE_IO_URING_CMD_REGISTER, 1);
LAYOUT(FUSE_IO_URING_CMD_COMMIT_AND_FETCH, 2);
LAYOUT(FUSE_IO_URING_CMD_ADD_QUEUE, 3);
LAYOUT(FUSE_IO_URING_CMD_ADD_BUFPOOL, 4);

/* ADD_QUEUE flags */
LAYOUT(FUSE_URING_ZERO_COPY, 0x1);

/* REGISTER flags */
LAYOUT(FUSE_URING_REGISTER_BUFRING, 0x1);
LAYOUT(FUSE_URING_REGISTER_PINNED_HEADERS, 0x2);
LAYOUT(FUSE_URING_REGISTER_PINNED_BUFFERS, 0x4);
LAYOUT(FUSE_URING_REGISTER_ZERO_COPY, 0x8);
LAYOUT(FUSE_URING_REGISTER_ZERO_COPY_OPT_IN, 0x10);

/* Entries */
LAYOUT(FUSE_URING_ENT_ZERO_COPY, 0x1);
LAYOUT(FUSE_URING_MAX_POOLS, 4);
LAYOUT(FUSE_URING_BUF_NONE, 0xffff);

LAYOUT(sizeof(struct fuse_uring_bufring_ent), 32);
LAYOUT(offsetof(struct fuse_uring_bufring_ent, flags), 0);
LAYOUT(offsetof(struct fuse_uring_bufring_ent, commit_id), 8);
LAYOUT(offsetof(struct fuse_uring_bufring_ent, payload_sz), 16);
LAYOUT(offsetof(struct fuse_uring_bufring_ent, buf_id), 20);
LAYOUT(offsetof(struct fuse_uring_bufring_ent, padding), 22);
LAYOUT(offsetof(struct fuse_uring_bufring_ent, reserved), 24);
LAYOUT(sizeof(ent.flags), 8);
LAYOUT(sizeof(ent.commit_id), 8);
LAYOUT(sizeof(ent.payload_sz), 4);
LAYOUT(sizeof(ent.buf_id), 2);
LAYOUT(sizeof(ent.padding), 2);
LAYOUT(sizeof(ent.reserved), 8);

LAYOUT(sizeof(struct fuse_uring_req_header), 288);
LAYOUT(offsetof(struct fuse_uring_req_header, in_out), 0);
LAYOUT(offsetof(struct fuse_uring_req_header, op_in), 128);
LAYOUT(offsetof(struct fuse_uring_req_header, ring_ent_in_out), 256);

/* What Linux 7.3 has in them */
LAYOUT(sizeof(struct bufpool_ent_in_out), 32);
LAYOUT(offsetof(struct bufpool_ent_in_out, payload_sz), 16);
LAYOUT(offsetof(struct bufpool_ent_in_out, offset), 20);
LAYOUT(offsetof(struct bufpool_ent_in_out, reserved), 24);
LAYOUT(sizeof(struct bufpool_cmd_req), 40);
LAYOUT(offsetof(struct bufpool_cmd_req, flags), 0);
LAYOUT(offsetof(struct bufpool_cmd_req, commit_id), 8);
LAYOUT(offsetof(struct bufpool_cmd_req, qid), 16);
LAYOUT(offsetof(struct bufpool_cmd_req, bufpool.uaddr), 24);
LAYOUT(offsetof(struct bufpool_cmd_req, bufpool.len), 32);
LAYOUT(offsetof(struct bufpool_cmd_req, bufpool.reserved), 36);
LAYOUT(offsetof(struct bufpool_cmd_req, zero_copy_index), 24);
LAYOUT(INIT_OUT_REQUEST_TIMEOUT, 40);

/* And where <linux/fuse.h> has it */
#if FUSE_KERNEL_MINOR_VERSION >= 46
LAYOUT(offsetof(struct fuse_uring_ent_in_out, payload_sz), 16);
LAYOUT(offsetof(struct fuse_uring_ent_in_out, offset), 20);
LAYOUT(offsetof(struct fuse_uring_ent_in_out, reserved), 24);
LAYOUT(offsetof(struct fuse_uring_cmd_req, qid), 16);
LAYOUT(offsetof(struct fuse_uring_cmd_req, bufpool.uaddr), 24);
LAYOUT(offsetof(struct fuse_uring_cmd_req, bufpool.len), 32);
LAYOUT(offsetof(struct fuse_uring_cmd_req, bufpool.reserved), 36);
LAYOUT(offsetof(struct fuse_uring_cmd_req, ent_zero_copy_buf_index), 24);
LAYOUT(offsetof(struct fuse_init_out, request_timeout), 40);
#endif

/* The command area of the SQE has 80 bytes. */
LAYOUT(sizeof(struct fuse_uring_bufring_req) <= 80, 1);
LAYOUT(offsetof(struct fuse_uring_bufring_req, flags), 0);
LAYOUT(offsetof(struct fuse_uring_bufring_req, commit_id), 8);
LAYOUT(offsetof(struct fuse_uring_bufring_req, qid), 16);
LAYOUT(offsetof(struct fuse_uring_bufring_req, padding), 18);
LAYOUT(offsetof(struct fuse_uring_bufring_req, buf_size), 20);
LAYOUT(offsetof(struct fuse_uring_bufring_req, max_queue_depth), 24);
LAYOUT(offsetof(struct fuse_uring_bufring_req, nr_extra_pools), 26);
LAYOUT(offsetof(struct fuse_uring_bufring_req, extra_buf_size), 28);
LAYOUT(sizeof(cmd.flags), 8);
LAYOUT(sizeof(cmd.commit_id), 8);
LAYOUT(sizeof(cmd.qid), 2);
LAYOUT(sizeof(cmd.padding), 2);
LAYOUT(sizeof(cmd.buf_size), 4);
LAYOUT(sizeof(cmd.max_queue_depth), 2);
LAYOUT(sizeof(cmd.nr_extra_pools), 2);
LAYOUT(sizeof(cmd.extra_buf_size), 12);
