/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * whole - what is registered, and given up, together with a mapping.
 *
 * Linux refuses to mremap (EFAULT) a range of which a userfaultfd has only a piece, or pieces in
 * different modes. REGISTER takes a range of addresses, and cuts the mapping that is there in two if it
 * reaches beyond. That comes about in two ways:
 * - a mapping is looked at and then registered, and is another one in between: a longer one took
 *   its place, it has grown, or the kernel merged it with a new neighbour;
 * - mprotect has cut the mapping in two for a while. The kernel joins the pieces again when they
 *   have one permission, but only if both are registered, or none.
 *
 * So one call registers, with what was asked for, what lies directly beside it and may be of one
 * mapping with it, as far as REACH pieces to either side, and free address space around where there is
 * much of it: what has come about there meanwhile is whole as well. What is cut all the same is
 * found right after the call, and registered whole.
 *
 * The library's own mappings are none of it (the reader unmaps some, and would wait for itself). They
 * have inaccessible edges that are owned as well, and come and go under arena_changing(): who holds
 * that and finds nothing owned in the range registers nothing of the library's.
 */
#include <errno.h>

#include "core/pager.h"

#define REACH 8u
#define REPAIRS 2u
#define MUCH ((uintptr_t)256 << 20)
#define LOWEST ((uintptr_t)1 << 20)
#define HIGHEST ((uintptr_t)1 << 47)

/* May they be pieces of one mapping, for all that looking tells? */
static bool is_one(const struct os_vma *low, const struct os_vma *high)
{
	if (low->end != high->start || low->shared != high->shared || low->inode != high->inode ||
	    low->dev_major != high->dev_major || low->dev_minor != high->dev_minor ||
	    low->page_size != PAGE || high->page_size != PAGE)
		return false;
	if (!low->inode)
		return true;
	/* Of an executable each segment is a mapping, with a permission of its own. */
	return low->offset + (low->end - low->start) == high->offset &&
	       (low->shared || low->prot == high->prot);
}

static bool can_be(const struct os_vma *vma)
{
	return vma->kind != OS_VMA_SPECIAL && vma->kind != OS_VMA_SYSV &&
	       !arena_owns(vma->start, vma->end);
}

/*
 * Where room below `at`, or above it, ends. Only where much is free, and half of that: what comes beside
 * the next mapping, or between, is not to be cut for our sake. 0: something has come to `at`.
 */
static uintptr_t room_below(struct hmm *hmm, const struct os_mm *mm, uintptr_t at)
{
	struct os_vma vma;

	if (at < LOWEST + MUCH)
		return at;
	if (hmm->os->vma_find_fast(mm, at - MUCH, &vma) || vma.start >= at)
		return at - MUCH / 2;
	return vma.end >= at ? 0 : at;
}

static uintptr_t room_above(struct hmm *hmm, const struct os_mm *mm, uintptr_t at)
{
	struct os_vma vma;

	if (at > HIGHEST - MUCH)
		return at;
	if (hmm->os->vma_find_fast(mm, at, &vma) || vma.start >= at + MUCH)
		return at + MUCH / 2;
	return vma.start <= at ? 0 : at;
}

/*
 * *edge: the end of the pieces above, or the start of those below; *limit: and of room there. -EAGAIN it
 * is another mapping by now; -EBUSY a piece may not be registered along.
 */
static int reach(const struct whole_asks *asks, const struct os_vma *vma, bool above,
		 uintptr_t *edge, uintptr_t *limit)
{
	struct hmm *hmm = asks->hmm;
	struct os_vma of = *vma, piece;

	for (unsigned i = 0;; i++) {
		*limit = *edge = above ? of.end : of.start;
		if (i == REACH)
			return 0;
		if (hmm->os->vma_find(asks->mm, above ? *edge : *edge - PAGE, &piece) ||
		    piece.start >= *edge + above)
			break;
		if (above ? piece.start != *edge : piece.end != *edge)
			return -EAGAIN;
		if (!can_be(&piece) || !(above ? is_one(&of, &piece) : is_one(&piece, &of)))
			return 0;
		if (!asks->may(hmm, asks->ctx, &piece))
			return asks->strict ? -EBUSY : 0;
		of = piece;
	}
	if (!asks->mirrors || asks->mm->slow)
		return 0;
	*limit = above ? room_above(hmm, asks->mm, *edge) : room_below(hmm, asks->mm, *edge);
	if (!*limit)
		return -EAGAIN;
	/* Away without a mapping: that left without a message. It shall not come home to a new one. */
	if (books_any(hmm, above ? *edge : *limit, above ? *limit : *edge))
		*limit = *edge;
	return 0;
}

int whole_of(const struct whole_asks *asks, const struct os_vma *vma, struct whole *whole)
{
	int err;

	*whole = (struct whole){ vma->start, vma->end, vma->start, vma->end };
	if (!can_be(vma) || vma->page_size != PAGE)
		return 0;
	err = reach(asks, vma, false, &whole->from, &whole->start);
	return err ? err : reach(asks, vma, true, &whole->to, &whole->end);
}

bool whole_cut(const struct whole_asks *asks, const struct whole *whole, bool above,
	       struct os_vma *outer)
{
	uintptr_t edge = above ? whole->end : whole->start;
	struct os_vma inner;

	if (asks->hmm->os->vma_find(asks->mm, above ? edge : edge - PAGE, outer) ||
	    (above ? outer->start : outer->end) != edge ||
	    asks->hmm->os->vma_find(asks->mm, above ? edge - PAGE : edge, &inner))
		return false;
	return (above ? is_one(&inner, outer) : is_one(outer, &inner)) && can_be(outer) &&
	       asks->may(asks->hmm, asks->ctx, outer);
}

static int register_only(const struct whole_asks *asks, uintptr_t start, uintptr_t end,
			 whole_call call)
{
	int err = -EBUSY;

	if (!arena_changing())
		return -EAGAIN;
	if (asks->mirrors)
		registering_begin(asks->hmm, start, end);
	if (!arena_owns(start, end))
		err = call(&asks->hmm->os_ctx[asks->ctx], start, end);
	if (asks->mirrors)
		registering_end(asks->hmm);
	arena_changed();
	return err;
}

int whole_register(const struct whole_asks *asks, struct whole *whole, whole_call call)
{
	int err = register_only(asks, whole->start, whole->end, call);
	const struct whole asked = *whole;
	struct os_vma outer;

	for (unsigned i = 0; i < 2 * REPAIRS && !err; i++) {
		if (!whole_cut(asks, &asked, i % 2, &outer) ||
		    books_any(asks->hmm, outer.start, outer.end) ||
		    register_only(asks, outer.start, outer.end, call))
			continue;
		if (i % 2)
			whole->end = outer.end;
		else
			whole->start = outer.start;
	}
	return err;
}
