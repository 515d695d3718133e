/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_cases - every kind of memory under every change, used by the peer: what does it get,
 * or change? A case is a kind and a change; in it each backend does each of the four
 * operations, on fresh memory, and says a word for it. The words of the backends are
 * compared.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "odp_backend.h"
#include "odp_place.h"

#define WORD 40
#define BYTES 256u
#define LONG_BYTES (2 * PAGE)
/* In the second unit; and what is not aligned, nor may be for an atomic. */
#define AT 0u
#define AT_ODD 4u

/* Each operation writes its word. */
struct target {
	const struct odp_backend *backend;
	void *dev, *mr;
	unsigned char *at;
	size_t n;	/* of get and put */
	unsigned shift; /* of the seed, for `at` is not where the filling began */
};

struct op {
	const char *name;
	void (*run)(const struct target *t, char *word);
};

/* Every page was filled alike. */
static bool filled(const unsigned char *bytes, size_t n, unsigned seed)
{
	size_t page = n < PAGE ? n : PAGE;

	for (size_t at = 0; at < n; at += page)
		if (lab_differs(bytes + at, page, seed) != page)
			return false;
	return true;
}

static const char *bytes_word(const struct target *t, const void *bytes, size_t n)
{
	if (filled(bytes, n, ODP_A + t->shift))
		return "A";
	if (filled(bytes, n, ODP_B + t->shift))
		return "B";
	if (filled(bytes, n, ODP_A))
		return "A of page's begin";
	return lab_zero(bytes, n) ? "zeros" : "others";
}

static void get(const struct target *t, char *word)
{
	unsigned char bytes[LONG_BYTES];
	enum odp_result result = t->backend->get(t->dev, t->mr, t->at, bytes, t->n);

	snprintf(word, WORD, "%s", result ? odp_word(result) : bytes_word(t, bytes, t->n));
}

static bool was_put(const unsigned char *at, size_t n)
{
	unsigned char found[LONG_BYTES];

	return !odp_look(at, found, n) && filled(found, n, ODP_W);
}

static void put(const struct target *t, char *word)
{
	unsigned char bytes[LONG_BYTES], *begin = t->at - (uintptr_t)t->at % PAGE;
	enum odp_result result;
	const char *how = "lost";

	for (size_t at = 0; at < LONG_BYTES; at += PAGE)
		lab_fill(bytes + at, PAGE, ODP_W);
	result = t->backend->put(t->dev, t->mr, t->at, bytes, t->n);
	if (!result && was_put(t->at, t->n))
		how = "written";
	else if (!result && was_put(begin, t->n))
		how = "written to page's begin";
	else if (result)
		how = t->n > PAGE && was_put(t->at, PAGE) ? ", half written" : "";
	snprintf(word, WORD, "%s%s", result ? odp_word(result) : "", how);
}

/* What was there, and whether that is there now which should be. */
static void atomic_word(const struct target *t, enum odp_result result, uint64_t old,
			uint64_t want, const char *done, char *word)
{
	uint64_t now;

	if (result)
		snprintf(word, WORD, "%s", odp_word(result));
	else if (odp_look(t->at, &now, sizeof(now)) || now != want)
		snprintf(word, WORD, "%s lost", bytes_word(t, &old, sizeof(old)));
	else
		snprintf(word, WORD, "%s%s", bytes_word(t, &old, sizeof(old)), done);
}

static void add(const struct target *t, char *word)
{
	uint64_t old = 0;
	enum odp_result result = t->backend->fetch_add(t->dev, t->mr, t->at, 5, &old);

	atomic_word(t, result, old, old + 5, "+5", word);
}

static void swap(const struct target *t, char *word)
{
	uint64_t old = 0, a, w;
	enum odp_result result;

	lab_fill(&a, sizeof(a), ODP_A + t->shift);
	lab_fill(&w, sizeof(w), ODP_W);
	result = t->backend->compare_swap(t->dev, t->mr, t->at, a, w, &old);
	atomic_word(t, result, old, old == a ? w : old, old == a ? " swapped" : " kept",
		    word);
}

static const struct op ops[] = {
	{ "get", get }, { "put", put }, { "add", add }, { "swap", swap }
};
#define OPS (sizeof(ops) / sizeof(ops[0]))

static const struct odp_change {
	const char *name;
	int (*change)(struct odp_place *p);
	/* How it differs from: the peer uses the memory, it changes, the peer uses it. */
	enum {
		UNUSED = 1, /* not used before */
		BEFORE = 2, /* unmapped when it is registered */
		MISALIGNED = 4,
		PAST_END = 8, /* the registered memory ends within what is used */
		LONG = 16,    /* the unit before it too, in one operation */
		FILE_ONLY = 32,
	} how;
} changes[] = {
	{ "none", odp_nothing, UNUSED },
	{ "used-before", odp_nothing, 0 },
	{ "touched-by-cpu", odp_touch, 0 },
	{ "dontneed", odp_dontneed, 0 },
	{ "munmap", odp_unmap, 0 },
	{ "munmap-and-mmap", odp_unmap_and_map, 0 },
	{ "mapped-over", odp_map_over, 0 },
	{ "mapped-later", odp_map_over, UNUSED | BEFORE },
	{ "mremap-away", odp_move_away, 0 },
	{ "prot-none", odp_protect_none, 0 },
	{ "prot-read", odp_protect_read, 0 },
	{ "punch", odp_punch, FILE_ONLY },
	{ "truncate", odp_truncate, FILE_ONLY },
	{ "fork", odp_fork, 0 },
	{ "misaligned", odp_nothing, MISALIGNED },
	{ "past-the-end", odp_nothing, PAST_END },
	{ "long", odp_nothing, LONG },
	{ "long-munmap", odp_unmap, LONG },
	{ "long-prot-read", odp_protect_read, LONG },
};
#define CHANGES (sizeof(changes) / sizeof(changes[0]))

/*
 * Meant: a put of ours that fails has written whole pieces before the failure, or nothing; rxe
 * writes packet by packet.
 *
 * Known: an operation of rxe's on demand begins where its page does, and not where it was
 * asked to (seen in 7.3: __rxe_odp_mr_copy() has the offset and does not add it). It is why
 * all others here are at the beginning of a page.
 */
static const struct {
	const char *change, *op, *first, *other;
} differences[] = {
	{ "misaligned", "get", "A of page's begin", "A" },
	{ "misaligned", "put", "written to page's begin", "written" },
	{ "long-munmap", "put", "error:access, half written", "error:fault" },
	{ "long-prot-read", "put", "error:access, half written", "error:permission" },
};

struct cell {
	const struct odp_kind *kind;
	const struct odp_change *change;
};

/* The peer reads and writes, so that both ways are open to it. */
static enum verdict use(const struct target *t)
{
	unsigned char bytes[LONG_BYTES];
	enum odp_result result = t->backend->get(t->dev, t->mr, t->at, bytes, t->n);

	if (!result)
		result = t->backend->put(t->dev, t->mr, t->at, bytes, t->n);
	CHECK(!result, "%s: the peer cannot use it before: %s", t->backend->name,
	      odp_word(result));
	return PASS;
}

static enum verdict in_place(const struct cell *c, const struct op *op, struct target *t,
			     struct odp_place *p, char *word)
{
	size_t length = ODP_UNITS * c->kind->unit, offset;
	int err;

	if (c->change->how & PAST_END)
		length = c->kind->unit + AT + sizeof(uint32_t);
	if (c->change->how & BEFORE) {
		CHECK(!odp_unmap(p), "munmap: %s", strerror(errno));
	}
	err = t->backend->reg(t->dev, p->at, length, ODP_MAY_ALL, &t->mr);
	CHECK(!err, "%s: no registration: %s", t->backend->name, strerror(-err));
	offset = c->change->how & MISALIGNED ? AT_ODD : AT;
	t->at = p->at + c->kind->unit + offset;
	t->shift = lab_byte(offset, 0);
	t->n = BYTES;
	if (c->change->how & LONG) {
		t->at -= PAGE;
		t->n = LONG_BYTES;
	}
	if (!(c->change->how & (UNUSED | PAST_END)))
		TRY(use(t));
	err = c->change->change(p);
	CHECK(!err, "%s: %s", c->change->name, strerror(-err));
	op->run(t, word);
	if (p->child) {
		size_t n = strlen(word);

		snprintf(word + n, WORD - n, ", child %s",
			 odp_child_has_a(p) ? "has A" : "sees it");
	}
	t->backend->unreg(t->dev, t->mr);
	return PASS;
}

static enum verdict run_op(const struct cell *c, const struct op *op,
			   const struct odp_open *open, char *word)
{
	struct target t = { .backend = open->backend, .dev = open->dev };
	struct odp_place p;
	enum verdict verdict;

	TRY(odp_place_make(c->kind, &p));
	verdict = in_place(c, op, &t, &p, word);
	odp_place_free(&p);
	return verdict;
}

static bool meant(const struct cell *c, const struct op *op, const char *first,
		  const char *other)
{
	for (size_t i = 0; i < sizeof(differences) / sizeof(differences[0]); i++)
		if (!strcmp(differences[i].change, c->change->name) &&
		    !strcmp(differences[i].op, op->name) &&
		    !strcmp(differences[i].first, first) &&
		    !strcmp(differences[i].other, other))
			return true;
	return false;
}

static enum verdict run_all(const struct cell *c, const struct odp_open *open, unsigned n)
{
	char words[ODP_BACKENDS][OPS][WORD];

	for (unsigned b = 0; b < n; b++) {
		for (size_t o = 0; o < OPS; o++)
			TRY(run_op(c, &ops[o], &open[b], words[b][o]));
		printf("%-6s | %-14s | %-15s", open[b].backend->name, c->kind->name,
		       c->change->name);
		for (size_t o = 0; o < OPS; o++)
			printf(" | %s", words[b][o]);
		printf("\n");
		fflush(stdout);
	}
	for (unsigned b = 1; b < n; b++)
		for (size_t o = 0; o < OPS; o++)
			CHECK(odp_agree(words[0][o], words[b][o]) ||
				      meant(c, &ops[o], words[0][o], words[b][o]),
			      "%s: %s says \"%s\", %s \"%s\"", ops[o].name,
			      open[0].backend->name, words[0][o], open[b].backend->name,
			      words[b][o]);
	return PASS;
}

static bool applies(const struct odp_kind *kind, const struct odp_change *change)
{
	if (change->how & FILE_ONLY)
		return kind->file;
	return !(change->how & LONG) || kind->unit == PAGE;
}

/* All changes of one kind, one after the other: opening the backends takes longer than a cell. */
static enum verdict run_kind(const void *arg)
{
	const struct odp_kind *kind = arg;
	struct odp_open open[ODP_BACKENDS];
	enum verdict verdict = PASS;
	unsigned n;

	TRY(odp_open_all(open, &n, false));
	if (n < 2)
		return SKIP;
	for (size_t i = 0; i < CHANGES; i++) {
		struct cell c = { kind, &changes[i] };

		if (applies(kind, &changes[i]) && run_all(&c, open, n) == FAIL)
			verdict = FAIL;
	}
	odp_close_all(open, n);
	return verdict;
}

void odp_add_changes(struct odp_cases *list)
{
	for (unsigned k = 0; k < odp_kind_count; k++)
		odp_add(list, run_kind, &odp_kinds[k], odp_kinds[k].name);
}
