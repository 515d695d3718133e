/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * area - memory whose every byte is known.
 *
 * An area is a row of pages, each with an address of its own (0: not mapped), so that parts
 * can be moved, unmapped and mapped again. A page has eight sections; a section reads
 * zeros, or a stamp, which says area, page, version and the word's place: a wrong word says
 * where it came from. The struct is private memory, so that a forked child has it as it
 * was.
 */
#ifndef STRESS_AREA_H
#define STRESS_AREA_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTIONS 8u
#define SECTION_WORDS 64u
#define WORDS 512u
#define HISTORY 32u

struct worker;

/* What was done to a page. */
struct trace {
	const char *what;
	uint32_t version;
	uint16_t thread, of; /* `of`: pages of that operation */
};

struct page {
	uintptr_t addr;
	uint64_t stamp[SECTIONS];
	uint8_t maybe; /* MADV_FREE: sections that may read zeros instead, all or none */
	bool settled;  /* written since: whichever it is, it stays so */
	bool read_only;
	uint32_t traces;
	struct trace trace[HISTORY];
};

struct area {
	pthread_mutex_t lock;
	unsigned id, pages;
	bool huge;  /* THP advised */
	bool fixed; /* never unmapped or moved (.bss) */
	uint32_t version;
	struct page *page;
};

/* Pages of an area with addresses in a row. */
struct run {
	unsigned i, n;
	uintptr_t addr;
};

/* `at`: where its pages lie, all of them mapped and zero; NULL: none is mapped yet. */
int area_init(struct area *a, unsigned id, unsigned pages, char *at, bool huge);
/* Map pages [i, i + n), which are not: they read zeros. false: no memory. */
bool area_map(struct worker *w, struct area *a, unsigned i, unsigned n);
/* Forget what the pages hold: they are somewhere else, or nowhere. */
void page_forget(struct page *p);
/* They are mapped and read zeros. */
void page_zero(struct page *p, uintptr_t addr);

/* Mapped pages in a row, somewhere, mostly few; false: nothing is mapped. */
bool area_run(struct worker *w, struct area *a, struct run *run);
/* As far as they go from page i, at most max. */
struct run area_run_at(const struct area *a, unsigned i, unsigned max);
/* Unmapped pages in a row. */
bool area_gap(struct worker *w, struct area *a, struct run *run);
/* One mapping of the kernel's? (mremap moves no more at once.) */
bool run_is_one_mapping(const struct run *run);

void area_note(struct worker *w, struct area *a, const struct run *run, const char *what);
/* The next stamp of a page. */
uint64_t area_stamp(struct area *a, unsigned page);
uint64_t stamp_word(uint64_t stamp, unsigned word);
/* Put new stamps in the sections of mask `sections`: into the model, and the bytes at `to`.
 */
void page_write(struct area *a, unsigned page, unsigned sections, void *to);
/* Are those the bytes of the page? If not the run ends. `how`: who read them. */
void page_check(struct area *a, unsigned page, const void *bytes, const char *how);
void run_check(struct area *a, const struct run *run, const char *how);
/* Make it writable if it is not. */
void run_writable(struct worker *w, struct area *a, const struct run *run);
/* "area 3 page 7 version 12 word 5", or what else it may be. */
const char *word_text(uint64_t word, char *text, size_t size);

#endif
