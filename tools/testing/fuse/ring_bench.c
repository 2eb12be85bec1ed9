// SPDX-License-Identifier: GPL-2.0
/*
 * A rough benchmark of the ways to register a ring: one client operation over
 * and over, the same server code for every mode, one line of figures.
 */
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "test_fs.h"
#include "variants.h"

#define MIB (1024 * 1024)
#define MAX_JOBS 64

enum { BAD_USAGE = 2, MISSING_FEATURE = 4 };

struct bench;

struct operation {
	const char *name;
	bool has_data;
	bool writes;
	/* the number of times it did, in order, or a negative errno */
	long (*run)(const struct bench *bench, unsigned long count);
	bool random;
};

struct bench {
	struct fuse_mount mount;
	struct test_fs fs;
	struct queue_mode mode;
	const char *mode_name;
	const struct operation *operation;
	const char *backing_file;
	size_t block_size;
	size_t file_size;
	unsigned long count;
	unsigned int jobs;
	bool direct;
	bool plain_ring;
};

static const struct {
	const char *name;
	struct queue_mode mode;
} modes[] = {
	{ .name = "device" },
	{ "entries", { MODE_entries } },
	{ "bufpool", { MODE_bufpool } },
	{ "bufpool-registered", { MODE_bufpool_registered } },
	{ "bufpool-zero-copy", { MODE_bufpool_zero_copy } },
	{ "bufring", { MODE_bufring } },
	{ "pinned-headers", { .flags = FUSE_URING_REGISTER_BUFRING |
				       FUSE_URING_REGISTER_PINNED_HEADERS } },
	{ "pinned", { MODE_pinned } },
	{ "zero-copy", { MODE_zero_copy } },
};

static const char usage[] =
"Usage: ring_bench [OPTION]...\n"
"Mounts a small file system over a memory file and times one operation.\n"
"\n"
"  --mode MODE       device, entries, bufpool, bufpool-registered,\n"
"                    bufpool-zero-copy, bufring, pinned-headers, pinned or\n"
"                    zero-copy (entries)\n"
"  --op OP           read, randread, write, randwrite, getattr or open\n"
"                    (randread)\n"
"  --bs SIZE         bytes per read or write (1M)\n"
"  --count N         operations per job (1000)\n"
"  --jobs N          clients at the same time (1)\n"
"  --direct          open with O_DIRECT\n"
"  --depth N         entries per queue (8)\n"
"  --pool SIZE:N     a payload pool, smallest first, up to 4 times (1M:8);\n"
"                    a bufpool has as many buffers as the last one\n"
"  --file-size SIZE  (64M)\n"
"  --file PATH       back it by this file instead of a memory file\n"
"  --plain-ring      an io_uring without IORING_SETUP_DEFER_TASKRUN\n"
"\n"
"Sizes take a suffix K, M or G. Exits with 4 where the kernel lacks the mode.\n";

static void fail_usage(const char *what, const char *value)
{
	fprintf(stderr, "ring_bench: %s: %s\n", what, value);
	exit(BAD_USAGE);
}

static unsigned long parse_number(const char *text, unsigned long max,
				  const char *what)
{
	unsigned long long number;
	unsigned int shift = 0;
	char *end;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (end != text && (*end == 'K' || *end == 'k'))
		shift = 10;
	else if (end != text && (*end == 'M' || *end == 'm'))
		shift = 20;
	else if (end != text && (*end == 'G' || *end == 'g'))
		shift = 30;
	end += !!shift;
	if (end == text || *end || errno || *text == '-' || !number ||
	    number > max >> shift)
		fail_usage(what, text);
	return number << shift;
}

static void parse_pool(struct bench *bench, char *text)
{
	struct queue_mode *mode = &bench->mode;
	char *colon = strchr(text, ':');
	struct pool_mode *pool;

	if (!colon || mode->nr_pools == FUSE_URING_MAX_POOLS)
		fail_usage("not a pool, or one too many", text);
	pool = &mode->pool[mode->nr_pools++];
	*colon = 0;
	pool->buf_size = parse_number(text, UINT_MAX, "not a buffer size");
	pool->nr = parse_number(colon + 1, 65535, "not a number of buffers");
}

static void parse_mode(struct bench *bench, const char *text)
{
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(modes); n++) {
		if (!strcmp(modes[n].name, text)) {
			bench->mode_name = modes[n].name;
			bench->mode.bufpool = modes[n].mode.bufpool;
			bench->mode.flags = modes[n].mode.flags;
			return;
		}
	}
	fail_usage("no such mode", text);
}

static bool uses_device(const struct bench *bench)
{
	return !strcmp(bench->mode_name, "device");
}

/* Of a buffer pool zero-copy is for files that opt in. */
static bool opts_in(const struct bench *bench)
{
	return bench->mode.bufpool & BUFPOOL_ZERO_COPY;
}

/* The operations, as a client does them */

static int open_data(const struct bench *bench)
{
	int fd = open(mount_path(&bench->mount, opts_in(bench) ? "opted_in" : "data"),
		      O_RDWR | (bench->direct ? O_DIRECT : 0));

	if (fd < 0)
		complain("opening the file: %s", strerror(errno));
	return fd;
}

/*
 * Reopening empties the page cache of the file, so that a buffered read
 * always comes from the server.
 */
static long move_data(const struct bench *bench, unsigned long count)
{
	const bool writes = bench->operation->writes;
	const size_t blocks = bench->file_size / bench->block_size;
	char *buffer = aligned_alloc(4096, (bench->block_size + 4095) & ~4095);
	unsigned int random = 1;
	unsigned long n;
	int fd = -1;

	if (!buffer)
		return -ENOMEM;
	pattern_fill(buffer, bench->block_size, 0);
	for (n = 0; n < count; n++) {
		size_t block = n % blocks;
		off_t offset;
		ssize_t len;

		if (block == 0) {
			if (fd >= 0)
				close(fd);
			fd = open_data(bench);
			if (fd < 0)
				return -EIO;
		}
		if (bench->operation->random) {
			random = random * 1103515245 + 12345;
			block = (random >> 8) % blocks;
		}
		offset = (off_t)block * bench->block_size;
		if (writes)
			len = pwrite(fd, buffer, bench->block_size, offset);
		else
			len = pread(fd, buffer, bench->block_size, offset);
		if (len != (ssize_t)bench->block_size) {
			complain("%s of %zu bytes returned %zd (%s)",
				 bench->operation->name, bench->block_size,
				 len, strerror(errno));
			return -EIO;
		}
	}
	close(fd);
	free(buffer);
	return 0;
}

static long get_attributes(const struct bench *bench, unsigned long count)
{
	struct stat st;

	while (count--)
		if (stat(bench->mount.dir, &st))
			return -errno;
	return 0;
}

static long open_and_close(const struct bench *bench, unsigned long count)
{
	while (count--) {
		int fd = open_data(bench);

		if (fd < 0)
			return -EIO;
		close(fd);
	}
	return 0;
}

static const struct operation operations[] = {
	{ .name = "read", .has_data = true, .run = move_data },
	{ .name = "randread", .has_data = true, .random = true,
	  .run = move_data },
	{ .name = "write", .has_data = true, .writes = true, .run = move_data },
	{ .name = "randwrite", .has_data = true, .writes = true,
	  .random = true, .run = move_data },
	{ .name = "getattr", .run = get_attributes },
	{ .name = "open", .run = open_and_close },
};

static void parse_operation(struct bench *bench, const char *text)
{
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(operations); n++) {
		if (!strcmp(operations[n].name, text)) {
			bench->operation = &operations[n];
			return;
		}
	}
	fail_usage("no such operation", text);
}

static void parse_options(struct bench *bench, int argc, char **argv)
{
	enum { MODE, OP, BS, COUNT, JOBS, DIRECT, DEPTH, POOL, FILE_SIZE, FILE_,
	       PLAIN_RING, HELP };
	static const struct option options[] = {
		{ "mode", required_argument, NULL, MODE },
		{ "op", required_argument, NULL, OP },
		{ "bs", required_argument, NULL, BS },
		{ "count", required_argument, NULL, COUNT },
		{ "jobs", required_argument, NULL, JOBS },
		{ "direct", no_argument, NULL, DIRECT },
		{ "depth", required_argument, NULL, DEPTH },
		{ "pool", required_argument, NULL, POOL },
		{ "file-size", required_argument, NULL, FILE_SIZE },
		{ "file", required_argument, NULL, FILE_ },
		{ "plain-ring", no_argument, NULL, PLAIN_RING },
		{ "help", no_argument, NULL, HELP },
		{ }
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case MODE:
			parse_mode(bench, optarg);
			break;
		case OP:
			parse_operation(bench, optarg);
			break;
		case BS:
			bench->block_size = parse_number(optarg, 1U << 30,
							 "not a block size");
			break;
		case COUNT:
			bench->count = parse_number(optarg, LONG_MAX,
						    "not a count");
			break;
		case JOBS:
			bench->jobs = parse_number(optarg, MAX_JOBS,
						   "not a number of jobs");
			break;
		case DIRECT:
			bench->direct = true;
			break;
		case DEPTH:
			bench->mode.depth = parse_number(optarg, 65535,
							 "not a queue depth");
			break;
		case POOL:
			parse_pool(bench, optarg);
			break;
		case FILE_SIZE:
			bench->file_size = parse_number(optarg, LONG_MAX,
							"not a file size");
			break;
		case FILE_:
			bench->backing_file = optarg;
			break;
		case PLAIN_RING:
			bench->plain_ring = true;
			break;
		case HELP:
			fputs(usage, stdout);
			exit(0);
		default:
			fputs("Try 'ring_bench --help'.\n", stderr);
			exit(BAD_USAGE);
		}
	}
	if (optind < argc)
		fail_usage("not an option", argv[optind]);
	if (bench->block_size > bench->file_size)
		fail_usage("the block size is over the file size", "--bs");
	if (!bench->mode.nr_pools) {
		bench->mode.nr_pools = 1;
		bench->mode.pool[0] = (struct pool_mode){ MIB, 8 };
	}
	if (bench->mode.bufpool) {
		bench->mode.pool[0] = bench->mode.pool[bench->mode.nr_pools - 1];
		bench->mode.nr_pools = 1;
	}
}

/* Nanoseconds that a client took for its operations */
static long run_job(void *arg)
{
	const struct bench *bench = arg;
	struct timespec start, end;
	long err;

	err = bench->operation->run(bench, bench->count / 10 + 1);
	if (err)
		return err;
	clock_gettime(CLOCK_MONOTONIC, &start);
	err = bench->operation->run(bench, bench->count);
	clock_gettime(CLOCK_MONOTONIC, &end);
	return err ?: (end.tv_sec - start.tv_sec) * 1000000000L +
		      end.tv_nsec - start.tv_nsec;
}

static int open_backing_file(struct bench *bench)
{
	int *fd = &bench->fs.data_fd[opts_in(bench) ? NODE_OPTED_IN : NODE_DATA];

	if (bench->backing_file) {
		close(*fd);
		*fd = open(bench->backing_file, O_RDWR | O_CREAT | O_CLOEXEC,
			   0600);
		if (*fd < 0 || ftruncate(*fd, bench->file_size)) {
			fprintf(stderr, "ring_bench: %s: %s\n",
				bench->backing_file, strerror(errno));
			return -EIO;
		}
	}
	/*
	 * What is in memory is there at once: without this io_uring leaves it
	 * to another thread.
	 */
	if (!bench->backing_file && fcntl(*fd, F_SETFL, O_NONBLOCK))
		return -errno;
	/* Blocks that are there: a hole would be read by another path. */
	return -posix_fallocate(*fd, 0, bench->file_size);
}

static int start_server(struct bench *bench)
{
	const struct mount_options options = {
		.no_uring = uses_device(bench),
	};
	const char *impossible;
	int err;

	bench->mount.answer = test_fs_answer;
	bench->mount.fs = &bench->fs;
	err = mount_open(&bench->mount, &options);
	if (err || uses_device(bench))
		return err;
	mount_set_readahead(&bench->mount, MIB / 1024);
	impossible = mode_impossible(&bench->mount, &bench->mode);
	if (impossible) {
		fprintf(stderr, "ring_bench: %s\n", impossible);
		exit(MISSING_FEATURE);
	}
	return test_fs_serve(&bench->fs, &bench->mount, &bench->mode,
			     bench->plain_ring ? 0 : RING_FLAGS);
}

static unsigned long payload_kib(const struct bench *bench)
{
	const struct queue_mode *mode = &bench->mode;
	unsigned long bytes = 0;
	unsigned int pool;

	if (uses_device(bench))
		return 0;
	if (mode->bufpool)
		return mode->pool[0].nr * (bench->mount.max_payload / 1024);
	if (!mode->flags)
		return mode->depth * (bench->mount.max_payload / 1024);
	for (pool = 0; pool < mode->nr_pools; pool++)
		bytes += (unsigned long)mode->pool[pool].buf_size *
			 mode->pool[pool].nr;
	return bytes / 1024;
}

static unsigned long count_requests(const struct bench *bench)
{
	unsigned long requests = 0;
	unsigned int n;

	for (n = 0; n < 64; n++)
		requests += bench->fs.calls[n];
	return requests;
}

static void print_figures(const struct bench *bench, long slowest_ns)
{
	const double seconds = slowest_ns / 1e9;
	const double operations_done = (double)bench->count * bench->jobs;
	double mib = 0;

	if (bench->operation->has_data)
		mib = operations_done * bench->block_size / MIB;
	printf("mode=%s op=%s bs=%zu direct=%d jobs=%u depth=%u count=%lu",
	       bench->mode_name, bench->operation->name,
	       bench->operation->has_data ? bench->block_size : 0,
	       bench->direct, bench->jobs, bench->mode.depth, bench->count);
	printf(" seconds=%.6f us_per_op=%.3f mib_per_s=%.1f requests=%lu",
	       seconds, seconds * 1e6 / operations_done, mib / seconds,
	       count_requests(bench));
	printf(" payload_kib=%lu pinned_kib=%ld\n", payload_kib(bench),
	       pinned_kib(getpid()));
}

static int run_jobs(struct bench *bench)
{
	struct client clients[MAX_JOBS];
	long slowest = 0;
	unsigned int n;
	int err;

	for (n = 0; n < bench->jobs; n++) {
		err = client_start(&clients[n], ANY_CPU, run_job, bench);
		if (err)
			return err;
	}
	for (n = 0; n < bench->jobs; n++) {
		long took = client_wait(&clients[n], INT_MAX);

		if (took < 0)
			return took;
		if (took > slowest)
			slowest = took;
	}
	print_figures(bench, slowest);
	return 0;
}

int main(int argc, char **argv)
{
	static struct bench bench = {
		.mode = { .depth = 8 },
		.mode_name = "entries",
		.operation = &operations[1],
		.block_size = MIB,
		.file_size = 64UL * MIB,
		.count = 1000,
		.jobs = 1,
	};
	const char *impossible;
	int err;

	parse_options(&bench, argc, argv);
	impossible = ring_tests_impossible();
	if (impossible) {
		fprintf(stderr, "ring_bench: %s\n", impossible);
		return MISSING_FEATURE;
	}
	err = test_fs_open(&bench.fs, bench.file_size);
	if (!err)
		err = open_backing_file(&bench);
	if (!err)
		err = start_server(&bench);
	if (!err)
		err = run_jobs(&bench);
	if (!err)
		err = test_fs_stop(&bench.fs);
	mount_close(&bench.mount);
	test_fs_close(&bench.fs);
	return err ? 1 : 0;
}
