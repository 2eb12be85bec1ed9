// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * Times one operation on the files of a directory, and prints how often it
 * went per second.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct operation {
	const char *name;
	/* the number of times it did, or -1 with errno set */
	long (*run)(int dir, long files);
};

struct file_name {
	char text[24];
};

static struct file_name name_file(const char *prefix, long n)
{
	struct file_name name;

	snprintf(name.text, sizeof(name.text), "%s%07ld", prefix, n);
	return name;
}

static int create_file(int dir, const char *name)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0600);

	return fd < 0 ? -1 : close(fd);
}

static long fill(int dir, long files)
{
	long n;

	for (n = 0; n < files; n++)
		if (create_file(dir, name_file("f", n).text))
			return -1;
	return n;
}

static long do_stat(int dir, long files)
{
	struct stat st;
	long n;

	for (n = 0; n < files; n++)
		if (fstatat(dir, name_file("f", n).text, &st, 0))
			return -1;
	return n;
}

static long do_open(int dir, long files)
{
	long n;

	for (n = 0; n < files / 4; n++) {
		int fd = openat(dir, name_file("f", n).text, O_RDONLY);

		if (fd < 0 || close(fd))
			return -1;
	}
	return n;
}

static long create_and_unlink(int dir, long files)
{
	const long count = files / 8;
	long n;

	for (n = 0; n < count; n++)
		if (create_file(dir, name_file("new", n).text))
			return -1;
	for (n = 0; n < count; n++)
		if (unlinkat(dir, name_file("new", n).text, 0))
			return -1;
	return n;
}

static long read_directory(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	long entries = 0;

	if (!stream)
		return -1;
	errno = 0;
	while (readdir(stream))
		entries++;
	if (errno)
		entries = -1;
	closedir(stream);
	return entries;
}

/* Whole directories, each from a new open() on */
static long do_readdir(int dir, long files)
{
	long n;

	for (n = 0; n < 4; n++) {
		long entries = read_directory(dir);

		if (entries < 0)
			return -1;
		if (entries != files + 2) {
			fprintf(stderr, "readdir gave %ld entries of %ld\n",
				entries, files + 2);
			errno = EIO;
			return -1;
		}
	}
	return n;
}

static const struct operation operations[] = {
	{ "fill", fill },
	{ "stat", do_stat },
	{ "open", do_open },
	{ "create", create_and_unlink },
	{ "readdir", do_readdir },
	{ }
};

static const struct operation *find_operation(const char *name)
{
	const struct operation *operation;

	for (operation = operations; operation->name; operation++)
		if (!strcmp(operation->name, name))
			return operation;
	return NULL;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	const struct operation *operation;
	double start;
	long files, done;
	int dir;

	operation = argc == 4 ? find_operation(argv[1]) : NULL;
	files = operation ? strtol(argv[3], NULL, 10) : 0;
	if (files < 8) {
		fprintf(stderr, "usage: metadata fill|stat|open|create|readdir DIR FILES\n");
		return 2;
	}
	dir = open(argv[2], O_RDONLY | O_DIRECTORY);
	if (dir < 0) {
		perror(argv[2]);
		return 1;
	}
	start = now();
	done = operation->run(dir, files);
	if (done < 0) {
		perror(operation->name);
		return 1;
	}
	printf("%.1f\n", done / (now() - start));
	return 0;
}
