/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_served - a program that knows nothing of uhmm and is served by `uhmm odp serve`: it
 *maps memory, says where, and does what its standard input says. test_odp_*.sh drive it.
 *
 *	set TEXT	write it to the memory
 *	show		print what is there
 *	remap TEXT	unmap, map anew at the same address, write
 *	drop TEXT	MADV_DONTNEED, write
 *	unmap | map	half of it
 *	child		fork; the child executes sh and exits with 5
 *	keep		a child that executes sleep and lives on; its PID
 *	close		every descriptor that it did not open, as daemons do
 *	quit N		exit(N)
 *
 * It answers each with a line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE ((size_t)64 << 20)

static char *memory;

static void map(void)
{
	char *at = mmap(memory, SIZE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | (memory ? MAP_FIXED : 0), -1, 0);

	if (at == MAP_FAILED)
		abort();
	memory = at;
}

static pid_t child(const char *command)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	execlp("sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

static void obey(const char *command, const char *text)
{
	int status;

	if (!strcmp(command, "remap")) {
		munmap(memory, SIZE);
		map();
	} else if (!strcmp(command, "drop")) {
		madvise(memory, SIZE, MADV_DONTNEED);
	} else if (!strcmp(command, "unmap")) {
		munmap(memory, SIZE / 2);
	} else if (!strcmp(command, "map")) {
		map();
	} else if (!strcmp(command, "close")) {
		for (int fd = 3; fd < 1000; fd++)
			close(fd);
	} else if (!strcmp(command, "quit")) {
		exit(atoi(text));
	}
	if (!strcmp(command, "child")) {
		waitpid(child("exit 5"), &status, 0);
		printf("%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	} else if (!strcmp(command, "keep")) {
		printf("%d\n", (int)child("exec sleep 100"));
	} else if (!strcmp(command, "show")) {
		printf("%s\n", memory);
	} else {
		if (*text)
			strcpy(memory, text);
		puts("done");
	}
	fflush(stdout);
}

int main(void)
{
	char line[256], command[64], text[128];

	map();
	printf("%zx\n", (size_t)memory);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		*text = '\0';
		if (sscanf(line, "%63s %127s", command, text) >= 1)
			obey(command, text);
	}
	return 0;
}
