/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * pageout - the kernel takes pages away, too: all private memory of the process goes to swap, again and again.
 *
 * MADV_PAGEOUT takes what is not being used just now: the program's pages, and the library's own (frames,
 * buffers, stacks), as it does when memory is short. No message tells of it, and none has to.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

#define PAUSE_US 2000u

static _Atomic bool stop;
static pthread_t thread;

static void all_out(FILE *maps)
{
	unsigned long start, end;
	char line[512], prot[8];

	rewind(maps);
	while (fgets(line, sizeof(line), maps) && !stop)
		if (sscanf(line, "%lx-%lx %7s", &start, &end, prot) == 3 && prot[1] == 'w' &&
		    prot[3] == 'p')
			madvise((void *)start, end - start, MADV_PAGEOUT); /* a hint */
}

static void *pageout_main(void *arg)
{
	FILE *maps = arg;

	while (!stop) {
		all_out(maps);
		usleep(PAUSE_US);
	}
	fclose(maps);
	return NULL;
}

/* Pages that have been written to swap, by anybody, since the machine was started. */
static unsigned long long swapped_out(void)
{
	unsigned long long n = 0;
	FILE *stat = fopen("/proc/vmstat", "re");
	char line[128];

	while (stat && fgets(line, sizeof(line), stat))
		if (sscanf(line, "pswpout %llu", &n) == 1)
			break;
	if (stat)
		fclose(stat);
	return n;
}

static unsigned long long at_begin;

void pageout_begin(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");

	at_begin = swapped_out();
	if (!maps || pthread_create(&thread, NULL, pageout_main, maps))
		fail("no thread that pages out: %m");
}

unsigned long long pageout_end(void)
{
	stop = true;
	pthread_join(thread, NULL);
	return swapped_out() - at_begin;
}
