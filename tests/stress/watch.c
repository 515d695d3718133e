/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * watch - how a run ends that does not end well.
 *
 * Everything here writes by write(2) from its own stack: it works also while heap and
 * stdio are away, and in a forked child.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

static struct world *watched;
static unsigned limit;
static char *child_text;
static size_t child_size;

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void fail_to(char *text, size_t size)
{
	child_text = text;
	child_size = size;
}

static void put(const char *text)
{
	size_t length = strlen(text);

	if (child_text) {
		size_t used = strnlen(child_text, child_size - 1);

		length = length < child_size - 1 - used ? length : child_size - 1 - used;
		memcpy(child_text + used, text, length);
	} else if (write(STDERR_FILENO, text, length) < 0) {
		_exit(1);
	}
}

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	put(line);
}

/* One of those that fail at once says why; the others wait for the end. */
static void first_to_fail(void)
{
	if (!child_text && watched && atomic_exchange(&watched->failing, true))
		for (;;)
			pause();
	if (watched && !child_text)
		say("\nFAILED, seed %llu, %u threads%s\n",
		    (unsigned long long)watched->seed, watched->threads,
		    watched->inject ? ", failures injected" : "");
}

_Noreturn static void end(unsigned wrong)
{
	if (child_text)
		_exit(3);
	if (wrong)
		say("%u wrong bytes\n", wrong);
	_exit(1);
}

_Noreturn void fail(const char *fmt, ...)
{
	char line[14000]; /* what a child had to say goes through here */
	va_list ap;

	first_to_fail();
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	put(line);
	put("\n");
	end(0);
}

static unsigned compare(const struct page *p, const uint64_t *words, const char *when)
{
	char want[80], got[80];
	unsigned wrong = 0;

	for (unsigned s = 0; s < SECTIONS; s++) {
		unsigned first = WORDS, count = 0;

		for (unsigned i = s * SECTION_WORDS; i < (s + 1) * SECTION_WORDS; i++) {
			if (words[i] == stamp_word(p->stamp[s], i))
				continue;
			first = first < i ? first : i;
			count++;
		}
		if (!count)
			continue;
		say("  %s, section %u%s: %u words wrong, the first is %u: expected %s, got "
		    "%s\n",
		    when, s, p->maybe >> s & 1 ? " (or zeros)" : "", count, first,
		    word_text(stamp_word(p->stamp[s], first), want, sizeof(want)),
		    word_text(words[first], got, sizeof(got)));
		wrong += count * 8;
	}
	return wrong;
}

static void say_history(const struct page *p)
{
	unsigned from = p->traces > HISTORY ? p->traces - HISTORY : 0;

	for (unsigned i = from; i < p->traces; i++) {
		const struct trace *t = &p->trace[i % HISTORY];

		say("    %s by thread %u, of %u pages, at version %u\n", t->what, t->thread,
		    t->of, t->version);
	}
}

_Noreturn void fail_page(const struct area *a, unsigned page, const void *bytes,
			 const char *how)
{
	const struct page *p = &a->page[page];
	uint64_t copy[WORDS];
	unsigned wrong;

	memcpy(copy, bytes, sizeof(copy));
	first_to_fail();
	say("WRONG: area %u page %u at %#lx, read by %s%s%s%s%s\n", a->id, page, p->addr,
	    how, a->huge ? ", huge" : "", a->fixed ? ", fixed" : "",
	    p->read_only ? ", read-only" : "", p->maybe ? ", MADV_FREE" : "");
	wrong = compare(p, copy, "then");
	say("  history, oldest first:\n");
	say_history(p);
	usleep(50000);
	if (p->addr)
		compare(p, (const uint64_t *)p->addr, "50 ms later, by the CPU");
	end(wrong ? wrong : 1);
}

/* ---- hangs ---- */

static void say_workers(uint64_t now)
{
	for (unsigned i = 0; i < watched->threads; i++) {
		struct worker *w = &watched->worker[i];

		say("  thread %u: %s area %u page %u since %.1f s, %llu operations%s\n", i,
		    w->doing ? w->doing : "nothing", w->area, w->page,
		    (double)(now - w->since) * 1e-9, (unsigned long long)w->ops,
		    w->ended ? ", ended" : "");
	}
}

static void *watch_main(void *arg)
{
	struct world *world = arg;

	for (;;) {
		uint64_t now;

		sleep(1);
		now = now_ns();
		for (unsigned i = 0; i < world->threads; i++) {
			struct worker *w = &world->worker[i];

			if (!w->since || w->ended || now < w->since ||
			    now - w->since < (uint64_t)limit * 1000000000u)
				continue;
			first_to_fail();
			say("HANGS: thread %u for %u s in %s\n", i, limit, w->doing);
			say_workers(now);
			abort();
		}
	}
	return NULL;
}

int thread_on_fixed_stack(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	size_t size = (size_t)256 << 10;
	void *stack = hmm_alloc(size);
	pthread_attr_t attr;
	int err;

	if (!stack)
		return -ENOMEM;
	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stack, size);
	err = pthread_create(thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return -err;
}

/* No device of the run dies, and no address is wrong: whatever it is, it is a defect. */
static void on_signal(int number, siginfo_t *info, void *context)
{
	first_to_fail();
	say("SIGNAL %d, code %d, at %p, in thread %d of %d\n", number, info->si_code,
	    info->si_addr, (int)gettid(), (int)getpid());
	for (unsigned i = 0; i < DEVS; i++) {
		struct hmm_devmem_stats stats = { .size = sizeof(stats) };

		if (!watched->dev[i])
			continue;
		hmm_devmem_get_stats(dev_devmem(watched->dev[i]), &stats);
		say("  device %u: %llu pages lost, %llu failed\n", i,
		    (unsigned long long)stats.lost, (unsigned long long)stats.failed);
	}
	say_workers(now_ns());
	end(0);
}

void watch_signals(void)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

void watch_begin(struct world *world, unsigned limit_s)
{
	pthread_t thread;

	watched = world;
	limit = limit_s;
	if (thread_on_fixed_stack(&thread, watch_main, world))
		fail("no thread for the watchdog");
	pthread_detach(thread);
}
