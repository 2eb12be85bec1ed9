// SPDX-License-Identifier: GPL-2.0
/*
 * Fixture of the fuse io-uring tests, see fixture.h: what of a program this
 * kernel offers. The rest is left out before the harness sees it, by the
 * harness' own options.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture_internal.h"

/* By bit of NEEDS_* */
static const char * const lacks[] = {
	NO_BUFPOOLS, NO_BUFPOOL_SIZES, NO_BUFRINGS,
};

static struct noted_variant *variants;
static struct noted_variant **next_variant = &variants;
static unsigned int nr_variants;

/* Fixtures may share a name, which means the same to all of them. */
void note_variant(struct noted_variant *variant)
{
	const struct noted_variant *other;

	for (other = variants; other; other = other->next)
		if (!strcmp(other->name, variant->name))
			return;
	*next_variant = variant;
	next_variant = &variant->next;
	nr_variants++;
}

static unsigned int needs_of(const struct queue_mode *mode)
{
	if (mode->flags)
		return NEEDS_BUFRINGS;
	if (mode->bufpool & BUFPOOL_SIZES)
		return NEEDS_BUFPOOL_SIZES;
	return mode->bufpool ? NEEDS_BUFPOOLS : NEEDS_RING;
}

/* What the kernel says, in memory that is shared with who asks */
struct offer {
	char impossible[200];
	bool known;
	unsigned int met;	/* of NEEDS_* */
};

static void ask(struct offer *offer)
{
	struct fuse_mount mount = { .dev_fd = -1 };
	const char *impossible = ring_tests_impossible();

	if (impossible) {
		snprintf(offer->impossible, sizeof(offer->impossible), "%s",
			 impossible);
		return;
	}
	offer->known = !mount_open(&mount, NULL);
	if (kernel_has_bufrings(&mount))
		offer->met |= NEEDS_BUFRINGS;
	if (kernel_has_bufpools(&mount))
		offer->met |= NEEDS_BUFPOOLS;
	mount_close(&mount);
	if (offer->met & NEEDS_BUFPOOLS && kernel_has_bufpool_sizes())
		offer->met |= NEEDS_BUFPOOL_SIZES;
}

/*
 * In a child, which takes its mounts and its user namespace with it. Where
 * nothing is known nothing is left out: the tests will tell what is wrong.
 */
static struct offer ask_kernel(void)
{
	struct offer *shared, offer = { };
	int status;
	pid_t pid;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return offer;
	pid = fork();
	if (!pid) {
		ask(shared);
		_exit(0);
	}
	if (pid > 0 && waitpid(pid, &status, 0) == pid && !status)
		offer = *shared;
	munmap(shared, sizeof(*shared));
	return offer;
}

/*
 * Whether a test, a fixture or a variant is asked for by its name, or a list. The
 * harness' own look at argv begins anew: this one must not reorder it.
 */
static bool is_selective(int argc, char **argv)
{
	int opt;

	opterr = 0;
	do {
		opt = getopt(argc, argv, "+dF:V:T:");
	} while (opt != -1 && opt != '?');
	opterr = 1;
	optind = 0;
	return opt == '?';
}

/* The first of its needs that is not met, or NULL if all are */
static const char *reason(unsigned int needs, unsigned int met)
{
	return needs & ~met ? lacks[__builtin_ctz(needs & ~met)] : NULL;
}

/* A line for each reason */
static void say_what_is_left_out(unsigned int met)
{
	const struct noted_variant *variant;
	unsigned int n;
	bool said;

	for (n = 0; n < ARRAY_SIZE(lacks); n++) {
		said = false;
		for (variant = variants; variant; variant = variant->next) {
			if (reason(needs_of(&variant->mode), met) != lacks[n])
				continue;
			if (!said)
				ksft_print_msg("not run, %s:", lacks[n]);
			said = true;
			printf(" %s", variant->name);
		}
		if (said)
			printf("\n");
	}
}

static __noreturn void skip_program(const unsigned int *any_of, unsigned int met)
{
	const char *why = reason(any_of[0], met), *other = NULL;

	if (any_of[1])
		other = reason(any_of[1], met);
	if (other && other != why)
		ksft_exit_skip("%s, %s\n", why, other);
	ksft_exit_skip("%s\n", why);
}

static bool is_met(const unsigned int *any_of, unsigned int met)
{
	unsigned int n;

	for (n = 0; any_of[n]; n++)
		if (!reason(any_of[n], met))
			return true;
	return !n;
}

void run_what_is_offered(int argc, char **argv, const unsigned int *any_of,
			 int (*run)(int argc, char **argv))
{
	const struct noted_variant *variant;
	struct offer offer;
	char **args;
	int n = 0;

	if (is_selective(argc, argv))
		exit(run(argc, argv));
	offer = ask_kernel();
	if (!offer.known && !offer.impossible[0])
		exit(run(argc, argv));

	ksft_print_header();
	/* The harness need not print another one. */
	setenv("KSFT_TAP_LEVEL", "1", 0);
	if (offer.impossible[0])
		ksft_exit_skip("%s\n", offer.impossible);
	if (!is_met(any_of, offer.met))
		skip_program(any_of, offer.met);
	say_what_is_left_out(offer.met);

	args = calloc(argc + 2 * nr_variants + 1, sizeof(*args));
	if (!args)
		ksft_exit_fail_perror("calloc");
	args[n++] = argv[0];
	for (variant = variants; variant; variant = variant->next) {
		if (!reason(needs_of(&variant->mode), offer.met))
			continue;
		args[n++] = (char *)"-V";
		args[n++] = (char *)variant->name;
	}
	memcpy(args + n, argv + 1, (argc - 1) * sizeof(*args));
	exit(run(n + argc - 1, args));
}
