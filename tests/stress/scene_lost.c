/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * scene_lost - a device that dies for good takes its own pages with it and nothing else.
 *
 * Touching one of them is SIGBUS at that address, whoever touches, as often as he likes;
 * the page never reads zeros, until the program gives it up. Three deaths: said by the
 * driver; not said, so that the time limit of a transfer says it; and frames that cannot be
 * read back while the device lives.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

#define PAGES 2000u

static _Thread_local sigjmp_buf jump;
static _Thread_local volatile uintptr_t hit;

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	hit = (uintptr_t)info->si_addr & ~(PAGE - 1);
	siglongjmp(jump, 1);
}

/* Read the page: true and its bytes, or false: SIGBUS, at that page. */
static bool can_read(uintptr_t at, uint64_t *to)
{
	volatile const uint64_t *from = (const void *)at;

	hit = 0;
	if (sigsetjmp(jump, 1)) {
		if (hit != at)
			fail("SIGBUS at %#lx instead of %#lx", hit, at);
		return false;
	}
	for (unsigned i = 0; i < WORDS; i++)
		to[i] = from[i];
	return true;
}

static void send_some(struct worker *w, struct area *a, struct dev *dev)
{
	for (unsigned i = 0; i < 60; i++) {
		struct run run;
		int64_t moved;

		area_run(w, a, &run);
		moved = hmm_migrate_to_device(dev_devmem(dev), run.addr, run.n * PAGE);
		if (moved < 0 && !migrate_may_fail(w, moved))
			fail("migration before the death: %s", hmm_strerror((int)moved));
	}
}

static void spare(uint64_t *pfns, bool host, bool odd_only)
{
	for (unsigned i = 0; i < PAGES; i++)
		if (host || (odd_only && !(hmm_pfn_frame(pfns[i]) % 2)))
			pfns[i] = 0;
}

/* Exactly those pages, twice; the others are right. Count of them. */
static unsigned count_lost(struct area *a, const uint64_t *pfns)
{
	uint64_t words[WORDS];
	unsigned lost = 0;

	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < a->pages; i++) {
			bool read = can_read(a->page[i].addr, words);

			if (read && hmm_pfn_is_device(pfns[i]))
				fail_page(a, i, words, "the CPU where SIGBUS is due");
			if (!read && !hmm_pfn_is_device(pfns[i]))
				fail("page %u: SIGBUS, and it was not on the device", i);
			if (read)
				page_check(a, i, words, "the CPU after the death");
			lost += !read && !round;
		}
	return lost;
}

/* A read(2) into a lost page fails, and does not hang. */
static void kernel_sees(struct area *a, const uint64_t *pfns)
{
	int fd[2];

	if (pipe(fd))
		fail("pipe: %m");
	for (unsigned i = 0; i < a->pages; i++)
		if (hmm_pfn_is_device(pfns[i])) {
			if (write(fd[1], (void *)a->page[i].addr, 8) != -1 ||
			    errno != EFAULT)
				fail("write(2) from a lost page does not fail with EFAULT");
			break;
		}
	close(fd[0]);
	close(fd[1]);
}

/* Given up, it is ordinary memory again. */
static void give_up(struct area *a)
{
	uint64_t words[WORDS];

	if (madvise((void *)a->page[0].addr, a->pages * PAGE, MADV_DONTNEED))
		fail("DONTNEED after the death: %m");
	for (unsigned i = 0; i < a->pages; i++) {
		page_zero(&a->page[i], a->page[i].addr);
		if (!can_read(a->page[i].addr, words))
			fail("page %u: SIGBUS after DONTNEED", i);
		page_check(a, i, words, "the CPU after DONTNEED");
		page_write(a, i, 0xff, (void *)a->page[i].addr);
	}
}

enum death { DEATH_SAID, DEATH_SILENT, DEATH_SPOILED };

static void die(struct world *world, enum death death, bool host)
{
	static const char *const names[] = { "said", "silent", "frames spoiled" };
	struct dev_options options = {
		.frames = PAGES, .host_frames = host, .timeout_ms = 300, .seed = world->seed
	};
	struct worker *w = &world->worker[0];
	static uint64_t pfns[PAGES];
	struct dev *dev;
	struct area a;
	unsigned lost, due = 0, there = 0;
	char *at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || area_init(&a, 2, PAGES, at, false))
		fail("no memory");
	for (unsigned i = 0; i < PAGES; i++)
		page_write(&a, i, 0xff, at + i * PAGE);
	if (dev_open(world->hmm, &options, &dev))
		fail("no device");
	send_some(w, &a, dev);
	if (dev_look(dev, a.page[0].addr, PAGES, pfns))
		fail("no snapshot");
	for (unsigned i = 0; i < PAGES; i++)
		there += hmm_pfn_is_device(pfns[i]);
	if (!there)
		fail("nothing went to the device that is to die");
	spare(pfns, host, death == DEATH_SPOILED);
	for (unsigned i = 0; i < PAGES; i++)
		due += hmm_pfn_is_device(pfns[i]);
	doing(w, names[death], &a, 0);
	if (death == DEATH_SPOILED)
		dev_spoil(dev);
	else
		dev_die(dev, death == DEATH_SILENT);
	lost = count_lost(&a, pfns);
	if (lost != due || !lost != host)
		fail("%u pages raised SIGBUS, %u were due", lost, due);
	kernel_sees(&a, pfns);
	give_up(&a);
	if (death != DEATH_SPOILED &&
	    hmm_migrate_to_device(dev_devmem(dev), (uintptr_t)at, PAGE) != -ENODEV)
		fail("a dead device takes pages");
	dev_close(dev);
	for (unsigned i = 0; i < PAGES; i++)
		page_check(&a, i, at + i * PAGE, "the CPU when the dead device was gone");
	munmap(at, PAGES * PAGE);
	printf("%s, %s: %u of %u pages that were there lost, each with SIGBUS, no other\n",
	       names[death], host ? "host frames" : "copied frames", lost, there);
}

/* ---- it dies while threads send and read ---- */

struct crowd {
	struct worker *w;
	struct area *a;
	struct dev *dev;
	_Atomic bool *stop;
	unsigned char *sent; /* 1: it may be there */
};

static void *crowd_main(void *arg)
{
	struct crowd *c = arg;
	uint64_t words[WORDS];

	while (!*c->stop) {
		struct run run;
		int64_t moved;

		doing(c->w, "sending to a device that dies", c->a, 0);
		area_run(c->w, c->a, &run);
		/* What is read now is home, or lost. */
		for (unsigned k = 0; k < run.n; k++) {
			if (can_read(run.addr + k * PAGE, words)) {
				page_check(c->a, run.i + k, words,
					   "the CPU beside the death");
				c->sent[run.i + k] = 0;
			} else if (!c->sent[run.i + k]) {
				fail("page %u: SIGBUS, and it was never sent", run.i + k);
			}
		}
		memset(c->sent + run.i, 1, run.n);
		moved = hmm_migrate_to_device(dev_devmem(c->dev), run.addr, run.n * PAGE);
		if (!moved || moved == -EBUSY || moved == -ENOSPC)
			memset(c->sent + run.i, 0, run.n);
	}
	c->w->ended = true;
	return NULL;
}

static void die_in_a_crowd(struct world *world, bool silent, bool host)
{
	struct dev_options options = { .frames = PAGES,
				       .host_frames = host,
				       .slow = 4,
				       .timeout_ms = 300,
				       .seed = world->seed + silent };
	struct crowd crowd[4];
	struct area area[4];
	_Atomic bool stop = false;
	pthread_t thread[4];
	struct dev *dev;
	unsigned lost = 0;

	if (dev_open(world->hmm, &options, &dev))
		fail("no device");
	for (unsigned i = 0; i < 4; i++) {
		struct area *a = &area[i];
		char *at = mmap(NULL, 400 * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		unsigned char *sent = mmap(NULL, 400, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (at == MAP_FAILED || sent == MAP_FAILED ||
		    area_init(a, i, 400, at, false))
			fail("no memory");
		for (unsigned k = 0; k < a->pages; k++)
			page_write(a, k, 0xff, at + k * PAGE);
		crowd[i] = (struct crowd){ &world->worker[i], a, dev, &stop, sent };
		world->worker[i].ended = false;
		if (pthread_create(&thread[i], NULL, crowd_main, &crowd[i]))
			fail("no thread: %m");
	}
	usleep(200000);
	dev_die(dev, silent);
	usleep(500000);
	stop = true;
	for (unsigned i = 0; i < 4; i++) {
		uint64_t words[WORDS];

		pthread_join(thread[i], NULL);
		for (unsigned k = 0; k < area[i].pages; k++) {
			if (can_read(area[i].page[k].addr, words))
				page_check(&area[i], k, words, "the CPU after the death");
			else if (crowd[i].sent[k])
				lost++;
			else
				fail("page %u: SIGBUS, and it was never sent", k);
		}
		munmap((void *)area[i].page[0].addr, area[i].pages * PAGE);
	}
	dev_close(dev);
	printf("in a crowd, %s, %s: %u pages lost, no other\n", silent ? "silent" : "said",
	       host ? "host frames" : "copied frames", lost);
}

int scene_lost(const struct stress_options *options)
{
	struct sigaction action = { .sa_sigaction = on_sigbus,
				    .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct stress_options four = *options;
	struct world *world;
	int err;

	sigaction(SIGBUS, &action, NULL);
	four.threads = 4;
	err = world_open(&world, &four);
	if (err)
		return err;
	for (unsigned i = 0; i < 4; i++) {
		world->worker[i].world = world;
		world->worker[i].id = i;
		world->worker[i].random = options->seed * 4 + i + 1;
	}
	watch_begin(world, 30);
	for (unsigned host = 0; host < 2; host++) {
		die(world, DEATH_SAID, host);
		die_in_a_crowd(world, false, host);
	}
	die(world, DEATH_SILENT, false);
	die(world, DEATH_SPOILED, false);
	die_in_a_crowd(world, true, false);
	for (unsigned i = 0; i < 4; i++)
		world->worker[i].ended = true;
	hmm_put(world->hmm);
	printf("0 wrong bytes\n");
	return 0;
}
