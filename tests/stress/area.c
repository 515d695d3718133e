/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "stress.h"
#include "uapi.h"

#define RW (PROT_READ | PROT_WRITE)

/* A stamp: the top bit, area 12 bits, page 12, version 30, 9 for the word. */
uint64_t stamp_word(uint64_t stamp, unsigned word)
{
	return stamp ? stamp | word : 0;
}

uint64_t area_stamp(struct area *a, unsigned page)
{
	a->version++;
	return UINT64_C(1) << 63 | (uint64_t)a->id << 51 | (uint64_t)page << 39 |
	       (uint64_t)(a->version & 0x3fffffff) << 9;
}

const char *word_text(uint64_t word, char *text, size_t size)
{
	if (!word)
		return "zeros";
	if (word >> 63)
		snprintf(text, size, "area %u page %u version %u word %u",
			 (unsigned)(word >> 51) & 0xfff, (unsigned)(word >> 39) & 0xfff,
			 (unsigned)(word >> 9) & 0x3fffffff, (unsigned)word & 511);
	else
		snprintf(text, size, "%#018llx", (unsigned long long)word);
	return text;
}

void page_forget(struct page *p)
{
	p->addr = 0;
	memset(p->stamp, 0, sizeof(p->stamp));
	p->maybe = 0;
	p->settled = p->read_only = false;
}

void page_zero(struct page *p, uintptr_t addr)
{
	page_forget(p);
	p->addr = addr;
}

int area_init(struct area *a, unsigned id, unsigned pages, char *at, bool huge)
{
	pthread_mutex_init(&a->lock, NULL);
	a->id = id;
	a->pages = pages;
	a->huge = huge;
	a->fixed = at;
	a->page = mmap(NULL, pages * sizeof(struct page), RW, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);
	if (a->page == MAP_FAILED)
		return -1;
	for (unsigned i = 0; at && i < pages; i++)
		a->page[i].addr = (uintptr_t)at + i * PAGE;
	return 0;
}

bool area_map(struct worker *w, struct area *a, unsigned i, unsigned n)
{
	/* Beside the page before it, or wherever the kernel likes; huge ones aligned. */
	size_t length = n * PAGE, slack = a->huge && n >= 256 && one_in(w, 2) ? BLOCK : 0;
	char *want = i && a->page[i - 1].addr ? (char *)a->page[i - 1].addr + PAGE : NULL;
	char *at = MAP_FAILED;

	if (want && one_in(w, 2))
		at = mmap(want, length, RW,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (at == MAP_FAILED) {
		at = mmap(NULL, length + slack, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (at == MAP_FAILED)
			return false;
		if (slack) {
			size_t skip = -(uintptr_t)at & (BLOCK - 1);

			if (skip)
				munmap(at, skip);
			at += skip;
			if (skip < slack)
				munmap(at + length, slack - skip);
		}
	}
	if (a->huge)
		madvise(at, length, MADV_HUGEPAGE);
	for (unsigned k = 0; k < n; k++)
		page_zero(&a->page[i + k], (uintptr_t)at + k * PAGE);
	return true;
}

struct run area_run_at(const struct area *a, unsigned i, unsigned max)
{
	struct run run = { .i = i, .addr = a->page[i].addr };

	while (run.addr && run.n < max && i + run.n < a->pages &&
	       a->page[i + run.n].addr == run.addr + run.n * PAGE)
		run.n++;
	return run;
}

/* Mostly few: a power of two at random, and something below it. */
static unsigned some_pages(struct worker *w)
{
	unsigned most = 1u << (one_in(w, 40) ? pick(w, 12) : pick(w, 6));

	return 1 + pick(w, most);
}

bool area_run(struct worker *w, struct area *a, struct run *run)
{
	for (unsigned tries = 0; tries < 8; tries++) {
		unsigned i = pick(w, a->pages);

		if (!a->page[i].addr)
			continue;
		*run = area_run_at(a, i, some_pages(w));
		w->page = i;
		return true;
	}
	return false;
}

bool area_gap(struct worker *w, struct area *a, struct run *run)
{
	unsigned i = pick(w, a->pages), max = some_pages(w);

	for (unsigned tries = 0; a->page[i].addr; tries++) {
		if (tries == a->pages)
			return false;
		i = (i + 1) % a->pages;
	}
	if (one_in(w, 3))
		max = a->pages;
	run->i = i;
	run->addr = 0;
	for (run->n = 0; run->n < max && i + run->n < a->pages; run->n++)
		if (a->page[i + run->n].addr)
			break;
	return true;
}

bool run_is_one_mapping(const struct run *run)
{
	struct stress_procmap_query q = { .size = sizeof(q), .query_addr = run->addr };
	int fd, err;

	if (run->n == 1)
		return true;
	fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	err = ioctl(fd, STRESS_PROCMAP_QUERY, &q);
	close(fd);
	return !err && q.vma_start <= run->addr && q.vma_end >= run->addr + run->n * PAGE;
}

void area_note(struct worker *w, struct area *a, const struct run *run, const char *what)
{
	doing(w, what, a, run->i);
	for (unsigned i = run->i; i < run->i + run->n; i++) {
		struct page *p = &a->page[i];

		p->trace[p->traces++ % HISTORY] = (struct trace){
			.what = what,
			.version = a->version,
			.thread = (uint16_t)w->id,
			.of = (uint16_t)run->n,
		};
	}
}

void page_write(struct area *a, unsigned page, unsigned sections, void *to)
{
	struct page *p = &a->page[page];
	volatile uint64_t *words = to;
	uint64_t stamp = area_stamp(a, page);

	for (unsigned s = 0; s < SECTIONS; s++) {
		if (!(sections >> s & 1))
			continue;
		for (unsigned i = s * SECTION_WORDS; i < (s + 1) * SECTION_WORDS; i++)
			words[i] = stamp | i;
		p->stamp[s] = stamp;
	}
	p->maybe &= (uint8_t)~sections;
	p->settled = true;
}

static bool section_is(const uint64_t *words, unsigned s, uint64_t stamp)
{
	for (unsigned i = s * SECTION_WORDS; i < (s + 1) * SECTION_WORDS; i++)
		if (words[i] != stamp_word(stamp, i))
			return false;
	return true;
}

/* Sections that may read zeros or what they were: all of them the one or the other. */
static bool resolve(struct page *p, const uint64_t *words)
{
	unsigned zero = 0, old = 0;

	for (unsigned s = 0; s < SECTIONS; s++) {
		if (!(p->maybe >> s & 1))
			continue;
		if (section_is(words, s, 0))
			zero++;
		else if (section_is(words, s, p->stamp[s]))
			old++;
		else
			return false;
	}
	if (zero && old)
		return false;
	for (unsigned s = 0; zero && s < SECTIONS; s++)
		if (p->maybe >> s & 1)
			p->stamp[s] = 0;
	if (zero || p->settled)
		p->maybe = 0;
	return true;
}

void page_check(struct area *a, unsigned page, const void *bytes, const char *how)
{
	struct page *p = &a->page[page];

	if (p->maybe && !resolve(p, bytes))
		fail_page(a, page, bytes, how);
	for (unsigned s = 0; s < SECTIONS; s++)
		if (!(p->maybe >> s & 1) && !section_is(bytes, s, p->stamp[s]))
			fail_page(a, page, bytes, how);
}

void run_check(struct area *a, const struct run *run, const char *how)
{
	for (unsigned k = 0; k < run->n; k++) {
		struct page *p = &a->page[run->i + k];

		if (p->maybe) {
			/* The kernel may free it between two looks: look once. */
			uint64_t copy[WORDS];

			memcpy(copy, (const void *)p->addr, sizeof(copy));
			page_check(a, run->i + k, copy, how);
		} else {
			page_check(a, run->i + k, (const void *)p->addr, how);
		}
	}
}

void run_writable(struct worker *w, struct area *a, const struct run *run)
{
	for (unsigned k = 0; k < run->n; k++) {
		struct page *p = &a->page[run->i + k];

		if (!p->read_only)
			continue;
		if (mprotect((void *)p->addr, PAGE, RW))
			fail("mprotect of area %u page %u: %m", a->id, run->i + k);
		p->read_only = false;
	}
}
