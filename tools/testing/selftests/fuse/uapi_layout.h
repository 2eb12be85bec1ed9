/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every constant, size and offset of the fuse io-uring uapi as a literal. A
 * server built elsewhere has these numbers in its code, so none may change,
 * on any architecture. To be included in a function, which defines what
 * LAYOUT(actual, number) does and has variables ent and cmd of the two structs.
 */

/* INIT and OPEN flags */
LAYOUT(FUSE_OVER_IO_URING, 0x20000000000);
LAYOUT(FUSE_HAS_IO_URING_BUFRING, 0x100000000000);
LAYOUT(FOPEN_IO_URING_ZERO_COPY, 0x100);

/* Commands */
LAYOUT(FUSE_IO_URING_CMD_REGISTER, 1);
LAYOUT(FUSE_IO_URING_CMD_COMMIT_AND_FETCH, 2);

/* REGISTER flags */
LAYOUT(FUSE_URING_BUFRING, 0x1);
LAYOUT(FUSE_URING_PINNED_HEADERS, 0x2);
LAYOUT(FUSE_URING_PINNED_BUFFERS, 0x4);
LAYOUT(FUSE_URING_ZERO_COPY, 0x8);
LAYOUT(FUSE_URING_ZERO_COPY_OPT_IN, 0x10);

/* Entries */
LAYOUT(FUSE_URING_ENT_ZERO_COPY, 0x1);
LAYOUT(FUSE_URING_MAX_POOLS, 4);
LAYOUT(FUSE_URING_BUF_NONE, 0xffff);

LAYOUT(sizeof(struct fuse_uring_ent_in_out), 32);
LAYOUT(offsetof(struct fuse_uring_ent_in_out, flags), 0);
LAYOUT(offsetof(struct fuse_uring_ent_in_out, commit_id), 8);
LAYOUT(offsetof(struct fuse_uring_ent_in_out, payload_sz), 16);
LAYOUT(offsetof(struct fuse_uring_ent_in_out, buf_id), 20);
LAYOUT(offsetof(struct fuse_uring_ent_in_out, padding), 22);
LAYOUT(offsetof(struct fuse_uring_ent_in_out, reserved), 24);
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

/* The command area of the SQE has 80 bytes. */
LAYOUT(sizeof(struct fuse_uring_cmd_req) <= 80, 1);
LAYOUT(offsetof(struct fuse_uring_cmd_req, flags), 0);
LAYOUT(offsetof(struct fuse_uring_cmd_req, commit_id), 8);
LAYOUT(offsetof(struct fuse_uring_cmd_req, qid), 16);
LAYOUT(offsetof(struct fuse_uring_cmd_req, padding), 18);
LAYOUT(offsetof(struct fuse_uring_cmd_req, init), 20);
LAYOUT(offsetof(struct fuse_uring_cmd_req, init.buf_size), 20);
LAYOUT(offsetof(struct fuse_uring_cmd_req, init.max_queue_depth), 24);
LAYOUT(offsetof(struct fuse_uring_cmd_req, init.nr_extra_pools), 26);
LAYOUT(offsetof(struct fuse_uring_cmd_req, init.extra_buf_size), 28);
LAYOUT(sizeof(cmd.flags), 8);
LAYOUT(sizeof(cmd.commit_id), 8);
LAYOUT(sizeof(cmd.qid), 2);
LAYOUT(sizeof(cmd.padding), 2);
LAYOUT(sizeof(cmd.init), 20);
LAYOUT(sizeof(cmd.init.buf_size), 4);
LAYOUT(sizeof(cmd.init.max_queue_depth), 2);
LAYOUT(sizeof(cmd.init.nr_extra_pools), 2);
LAYOUT(sizeof(cmd.init.extra_buf_size), 12);
