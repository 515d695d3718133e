// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_secure - cases of secure memory (uvmem): what the secure side reads of a page whose
 * mapping, or whose sealed bytes, somebody has exchanged.
 *
 * A secure page that was unmapped, discarded or set back is refused from then on: any number
 * that the secure side reads there is stale. Of a shared page it must read what the program has
 * there now. One that moves away and back is the same page.
 *
 * The program never reads a secure page in these rounds but to keep its sealed bytes, so the
 * number that must not come back is in nobody's ordinary memory.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/uvmem.h>

#include "litmus.h"

/* Pages of the place; the place's first and last are nobody's, as devmem wants it. */
#define SECURE 1u
#define SHARED 3u
#define PAGES 4u

struct secure {
	struct uvmem *uv;
	char *at;   /* of PAGES pages in the place */
	char *page; /* the one of them that the case is about */
};

/* ---- the secure side's two accesses ---- */

struct word {
	char *at;
	uint64_t value;
};

static int load_word(struct uvmem_side *side, void *arg)
{
	struct word *w = arg;

	return uvmem_load(side, &w->value, w->at, sizeof(w->value));
}

static int store_word(struct uvmem_side *side, void *arg)
{
	struct word *w = arg;

	return uvmem_store(side, w->at, &w->value, sizeof(w->value));
}

static int secure_store(struct litmus *l, uint64_t value)
{
	struct secure *s = l->priv;
	int err = uvmem_run(s->uv, store_word, &(struct word){ s->page, value });

	return err ? litmus_fail(l, err, "secure store: %s", uvmem_strerror(err)) : 0;
}

/* It must read @expected. */
static int secure_reads(struct litmus *l, uint64_t expected)
{
	struct secure *s = l->priv;
	struct word w = { .at = s->page };
	int err = uvmem_run(s->uv, load_word, &w);

	if (err)
		return litmus_fail(l, err, "secure load: %s", uvmem_strerror(err));
	l->wrong |= w.value != expected;
	return 0;
}

/* It must be refused, and can be used again then. */
static int secure_refused(struct litmus *l)
{
	struct secure *s = l->priv;
	struct word w = { .at = s->page };
	int err = uvmem_run(s->uv, load_word, &w);

	if (err && err != -EBADMSG)
		return litmus_fail(l, err, "secure load: %s", uvmem_strerror(err));
	l->wrong |= !err;
	err = uvmem_erase(s->uv, s->page, LITMUS_PAGE);
	return err ? litmus_fail(l, err, "erase: %s", uvmem_strerror(err)) : 0;
}

static int page_out(struct litmus *l)
{
	struct secure *s = l->priv;
	int64_t n = uvmem_page_out(s->uv, s->page, LITMUS_PAGE);

	return n < 0 ? litmus_fail(l, (int)n, "page out: %s", uvmem_strerror((int)n)) : 0;
}

/* ---- set-up ---- */

static void secure_end(struct litmus *l)
{
	struct secure *s = l->priv;

	uvmem_close(s->uv);
	free(s);
}

static int make_range(struct secure *s)
{
	static const struct uvmem_options options = { .size = sizeof(options), .frames = 16 };
	int err = uvmem_open(&options, &s->uv);

	if (!err)
		err = uvmem_init_start(s->uv, s->at, PAGES * LITMUS_PAGE);
	if (!err)
		err = uvmem_init_done(s->uv);
	return err ? err : uvmem_share(s->uv, s->at + SHARED * LITMUS_PAGE, LITMUS_PAGE);
}

static int setup_page(struct litmus *l, unsigned page)
{
	struct secure *s;
	int err;

	if (l->naive)
		return litmus_fail(l, -EOPNOTSUPP, "there is no naive secure side");
	err = uvmem_available(l->reason, sizeof(l->reason));
	if (err)
		return -EOPNOTSUPP;
	err = litmus_map_at(l, l->page);
	if (err)
		return err;
	s = calloc(1, sizeof(*s));
	if (!s)
		return litmus_fail(l, -ENOMEM, "no memory");
	l->priv = s;
	s->at = l->page + LITMUS_PAGE;
	s->page = s->at + page * LITMUS_PAGE;
	err = make_range(s);
	if (!err)
		return 0;
	litmus_fail(l, err, "secure memory: %s", uvmem_strerror(err));
	secure_end(l);
	return err == -EPERM ? -EOPNOTSUPP : err;
}

static int secure_setup(struct litmus *l)
{
	return setup_page(l, SECURE);
}

static int shared_setup(struct litmus *l)
{
	return setup_page(l, SHARED);
}

/* ---- changes ---- */

static int map_anew(char *page)
{
	munmap(page, LITMUS_PAGE);
	return mmap(page, LITMUS_PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == page ? 0 : -errno;
}

/* Unmapped or discarded, while it is in or out; what is there now is filled, or is empty. */
static int gone_round(struct litmus *l, uint64_t i)
{
	struct secure *s = l->priv;
	int err = secure_store(l, ++l->generation);

	if (!err && i % 2)
		err = page_out(l);
	if (err)
		return err;
	err = i / 2 % 2 ? map_anew(s->page) : madvise(s->page, LITMUS_PAGE, MADV_DONTNEED);
	if (err)
		return litmus_fail(l, -EIO, "the change failed: %s", strerror(errno));
	if (i / 4 % 2)
		litmus_fill(l, s->page);
	return secure_refused(l);
}

/* Its older sealed bytes are put back over its newer ones. */
static int replay_round(struct litmus *l, uint64_t i)
{
	static char older[LITMUS_PAGE];
	struct secure *s = l->priv;
	int err = secure_store(l, ++l->generation);

	if (!err)
		err = page_out(l);
	if (err)
		return err;
	memcpy(older, s->page, LITMUS_PAGE);
	err = secure_store(l, ++l->generation);
	if (!err)
		err = page_out(l);
	if (err)
		return err;
	memcpy(s->page, older, LITMUS_PAGE);
	return secure_refused(l);
}

/* Away, something else at its address, and back over that. */
static int moved_round(struct litmus *l, uint64_t i)
{
	struct secure *s = l->priv;
	struct word w = { .at = s->page };
	uint64_t generation = ++l->generation;
	int err = secure_store(l, generation);

	if (!err && i % 2)
		err = page_out(l);
	if (err)
		return err;
	if (mremap(s->page, LITMUS_PAGE, LITMUS_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		   l->other) != l->other ||
	    (i / 2 % 2 && map_anew(s->page)))
		return litmus_fail(l, -errno, "mremap: %s", strerror(errno));
	/* Half of the rounds ask while it is away: refused, until it is back. */
	if (i / 4 % 2)
		l->wrong |= !uvmem_run(s->uv, load_word, &w);
	if (mremap(l->other, LITMUS_PAGE, LITMUS_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		   s->page) != s->page)
		return litmus_fail(l, -errno, "mremap back: %s", strerror(errno));
	return secure_reads(l, generation);
}

static void taken(void *arg)
{
	map_anew(arg);
}

/* Another thread exchanges it while the secure side reads: the number or nothing, and then nothing. */
static int during_round(struct litmus *l, uint64_t i)
{
	struct secure *s = l->priv;
	struct word w = { .at = s->page };
	uint64_t generation = ++l->generation;
	int err = secure_store(l, generation);

	if (err)
		return err;
	litmus_actor_begin(&l->young, taken, s->page);
	err = uvmem_run(s->uv, load_word, &w);
	l->also_count += !err;
	litmus_actor_wait(&l->young);
	if (err && err != -EBADMSG && err != -EFAULT)
		return litmus_fail(l, err, "secure load: %s", uvmem_strerror(err));
	l->wrong |= !err && w.value != generation;
	return secure_refused(l);
}

static int during_setup(struct litmus *l)
{
	l->also = "before";
	return secure_setup(l);
}

static int shared_round(struct litmus *l, uint64_t i)
{
	struct secure *s = l->priv;
	int err = secure_store(l, ++l->generation);

	if (err)
		return err;
	err = i % 2 ? map_anew(s->page) : madvise(s->page, LITMUS_PAGE, MADV_DONTNEED);
	if (err)
		return litmus_fail(l, -EIO, "the change failed: %s", strerror(errno));
	return secure_reads(l, i / 2 % 2 ? litmus_fill(l, s->page) : 0);
}

const struct litmus_case litmus_secure_cases[] = {
	{ .name = "secure_gone",
	  .what = "a secure page unmapped or discarded",
	  .setup = secure_setup,
	  .dear = true,
	  .round = gone_round,
	  .end = secure_end },
	{ .name = "secure_replay",
	  .what = "its older sealed bytes put back",
	  .setup = secure_setup,
	  .dear = true,
	  .round = replay_round,
	  .end = secure_end },
	{ .name = "secure_moved",
	  .what = "mremap of a secure page away and back",
	  .setup = secure_setup,
	  .dear = true,
	  .round = moved_round,
	  .end = secure_end },
	{ .name = "secure_during",
	  .what = "another thread's munmap and mmap while it is read",
	  .setup = during_setup,
	  .dear = true,
	  .round = during_round,
	  .end = secure_end },
	{ .name = "secure_shared",
	  .what = "a shared page unmapped or discarded",
	  .setup = shared_setup,
	  .round = shared_round,
	  .end = secure_end },
	{ .name = NULL },
};
