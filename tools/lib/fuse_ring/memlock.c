// SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause
/*
 * Who else uses up RLIMIT_MEMLOCK, which all processes of a user share
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ring.h"

/* VmPin of a process of this user, else 0 */
static size_t pinned_by(const char *pid)
{
	unsigned int uid = getuid();
	char path[64], line[256];
	size_t kib = 0;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%.20s/status", pid);
	status = fopen(path, "re");
	if (!status)
		return 0;
	/* The real user is what the kernel goes by, and comes first. */
	while (fgets(line, sizeof(line), status))
		if ((sscanf(line, "Uid: %u", &uid) == 1 && uid != getuid()) ||
		    sscanf(line, "VmPin: %zu", &kib) == 1)
			break;
	fclose(status);
	return kib;
}

size_t memlock_of_others(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	size_t kib = 0;

	while (proc && (entry = readdir(proc)))
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    atoi(entry->d_name) != getpid())
			kib += pinned_by(entry->d_name);
	if (proc)
		closedir(proc);
	return kib;
}
