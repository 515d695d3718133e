/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * page - the entries: which page is in, and what the newest sealed bytes of the others are.
 *
 *	PLAIN --take in--> IN --seal, frame freed--> OUT --open--> IN
 *			    \--frame freed unsealed--> LOST
 *
 * A frame's page is known by the frame (owner[]), never by an address: mremap may have
 * moved it. A page is known by its place in the range, and a translation is installed only
 * where both agree; so two pages that changed places are found out.
 *
 * The library does not say whether a copy home is the page leaving or a forked child's copy
 * of it. So sealing does not decide: the entry says "sealed" until the secure side gets a
 * translation again, and when the frame is freed a page that is sealed is OUT, one that is
 * not was dropped (U3). A frame may wait for that for a while; until then "home" says that
 * the page has probably left, for those who only look. No older seal is ever good: there is
 * one number in the entry, the last.
 *
 * "pristine": nothing but this page-in has happened to it, so if it does not stay in (the
 * library found no way, or the program dropped it again) it is what it was before.
 */
#include "uvmem_private.h"

static int refuse(struct uvmem *uv, struct uvmem_entry *entry, int err)
{
	entry->refused = (int16_t)err;
	if (err == -EBADMSG)
		atomic_fetch_add(&uv->count.refused, 1);
	return err;
}

/* How a page can come in. uv->lock. */
enum way { WAY_PLAIN, WAY_ZERO, WAY_IF_ZERO, WAY_SEALED, WAY_NONE };

static enum way way_of(const struct uvmem *uv, const struct uvmem_entry *entry,
		       bool has_bytes)
{
	switch (entry->state) {
	case UVMEM_PAGE_PLAIN:
		if (!has_bytes)
			return WAY_ZERO;
		/* Secure: a touch, and what unshares pages for a move, put zeros there. */
		return atomic_load(&uv->state) == UVMEM_TRANSIENT ? WAY_PLAIN : WAY_IF_ZERO;
	case UVMEM_PAGE_IN: /* its own sealed bytes, before its old frame has been freed */
		return has_bytes && entry->sealed ? WAY_SEALED : WAY_NONE;
	case UVMEM_PAGE_OUT:
		return has_bytes ? WAY_SEALED : WAY_NONE;
	default:
		return WAY_NONE;
	}
}

/* Into the frame, which is nobody's. 0 or -EBADMSG. */
static int fill(struct uvmem *uv, const struct hmm_devmem_copy *copy, enum way way,
		const struct uvmem_entry *entry)
{
	const struct uvmem_stamp stamp = {
		.place = uvmem_place(uv, copy->addr),
		.pages = uv->pages,
		.number = entry->number,
	};
	char *frame = uvmem_frame(uv, copy->frame);

	if (way == WAY_ZERO)
		memset(frame, 0, UVMEM_PAGE);
	else
		memcpy(frame, copy->host, UVMEM_PAGE);
	if (way == WAY_IF_ZERO)
		return sodium_is_zero((unsigned char *)frame, UVMEM_PAGE) ? 0 : -EBADMSG;
	return way == WAY_SEALED ? uvmem_open_sealed(uv->sealer, &stamp, frame, entry->tag)
				 : 0;
}

/* The engine: a page is to come in. Only the engine seals, so the entry's number stays. */
int uvmem_take_in(struct uvmem *uv, const struct hmm_devmem_copy *copy)
{
	uint64_t place = uvmem_place(uv, copy->addr);
	struct uvmem_entry *entry, seen;
	enum way way;
	int err;

	if (place == UINT64_MAX)
		return -EFAULT;
	entry = &uv->entry[place];
	pthread_mutex_lock(&uv->lock);
	seen = *entry;
	way = way_of(uv, entry, copy->host);
	err = way == WAY_NONE ? refuse(uv, entry,
				       seen.state == UVMEM_PAGE_SHARED ? -EPERM : -EBADMSG)
			      : 0;
	pthread_mutex_unlock(&uv->lock);
	if (err)
		return err;
	err = fill(uv, copy, way, &seen);
	pthread_mutex_lock(&uv->lock);
	if (!err && (entry->state != seen.state || entry->frame != seen.frame ||
		     entry->sealed != seen.sealed || entry->number != seen.number))
		err = -EBUSY; /* erased, shared or used meanwhile */
	if (err == -EBADMSG) {
		refuse(uv, entry, err);
	} else if (!err) {
		entry->state = UVMEM_PAGE_IN;
		entry->frame = copy->frame + 1;
		entry->sealed = way == WAY_SEALED;
		entry->pristine = way != WAY_SEALED;
		entry->home = false;
		entry->refused = 0;
		uv->owner[copy->frame] = place + 1;
		atomic_fetch_add(way == WAY_SEALED ? &uv->count.opened : &uv->count.taken,
				 1);
	}
	pthread_mutex_unlock(&uv->lock);
	return err;
}

/* The engine: from here on no side uses these frames, until it has looked anew. */
void uvmem_stop_frames(struct uvmem *uv, const struct hmm_devmem_copy *copies, unsigned n)
{
	unsigned i;

	pthread_mutex_lock(&uv->lock);
	for (i = 0; i < n; i++) {
		uint64_t owner = uv->owner[copies[i].frame];

		if (owner && uv->entry[owner - 1].frame == copies[i].frame + 1)
			uv->entry[owner - 1].mapped = 0;
	}
	pthread_mutex_unlock(&uv->lock);
}

static void note_sealed(struct uvmem *uv, uint64_t place, uint64_t frame, uint64_t number,
			const unsigned char *tag)
{
	struct uvmem_entry *entry = &uv->entry[place];

	pthread_mutex_lock(&uv->lock);
	/* Else the frame is an orphan: what was sealed of it is good for nothing. */
	if (entry->state == UVMEM_PAGE_IN && entry->frame == frame + 1) {
		entry->number = number;
		memcpy(entry->tag, tag, UVMEM_TAG_BYTES);
		entry->sealed = entry->home = true;
		entry->pristine = false;
	}
	pthread_mutex_unlock(&uv->lock);
	atomic_fetch_add(&uv->count.sealed, 1);
}

static void note_plain(struct uvmem *uv, uint64_t place, uint64_t frame)
{
	struct uvmem_entry *entry = &uv->entry[place];

	pthread_mutex_lock(&uv->lock);
	if (entry->state == UVMEM_PAGE_IN && entry->frame == frame + 1) {
		entry->sealed = false;
		entry->pristine = entry->home = true;
	}
	pthread_mutex_unlock(&uv->lock);
}

/* The engine, after uvmem_stop_frames(): a page goes out. */
int uvmem_let_out(struct uvmem *uv, const struct hmm_devmem_copy *copy)
{
	unsigned char tag[UVMEM_TAG_BYTES];
	struct uvmem_stamp stamp = { .pages = uv->pages };
	uint64_t owner;

	pthread_mutex_lock(&uv->lock);
	owner = uv->owner[copy->frame];
	pthread_mutex_unlock(&uv->lock);
	if (!owner)
		return -EIO; /* nobody's frame has no bytes */
	if (atomic_load(&uv->plain_out)) {
		memcpy(copy->host, uvmem_frame(uv, copy->frame), UVMEM_PAGE);
		note_plain(uv, owner - 1, copy->frame);
		return 0;
	}
	stamp.place = owner - 1;
	stamp.number = ++*uv->number;
	uvmem_seal(uv->sealer, &stamp, uvmem_frame(uv, copy->frame), copy->host, tag);
	note_sealed(uv, owner - 1, copy->frame, stamp.number, tag);
	return 0;
}

/* The reader, or who migrates. */
void uvmem_frame_freed(struct uvmem *uv, uint64_t frame)
{
	uint64_t owner;

	pthread_mutex_lock(&uv->lock);
	owner = uv->owner[frame];
	uv->owner[frame] = 0;
	if (owner && uv->entry[owner - 1].frame == frame + 1) {
		struct uvmem_entry *entry = &uv->entry[owner - 1];

		entry->frame = entry->mapped = 0;
		entry->home = false;
		if (entry->state == UVMEM_PAGE_IN)
			entry->state = entry->sealed	 ? UVMEM_PAGE_OUT
				       : entry->pristine ? UVMEM_PAGE_PLAIN
							 : UVMEM_PAGE_LOST;
	}
	pthread_mutex_unlock(&uv->lock);
	memset(uvmem_frame(uv, frame), 0, UVMEM_PAGE);
}

/* uv->lock is held: the library's answer for a page is true now. */
int uvmem_install(struct uvmem *uv, uint64_t place, uint64_t answer, bool *found)
{
	struct uvmem_entry *entry = &uv->entry[place];
	uint64_t frame = hmm_pfn_frame(answer);

	if (!hmm_pfn_is_device(answer) ||
	    hmm_pfn_devmem(answer) != hmm_devmem_id(uv->devmem))
		return 0;
	if (frame >= uv->frames || uv->owner[frame] != place + 1 ||
	    entry->frame != frame + 1 || entry->state != UVMEM_PAGE_IN)
		return refuse(uv, entry, -EBADMSG); /* another page has been moved here */
	entry->mapped = frame + 1;
	/* The frame may change from now on. */
	entry->sealed = entry->pristine = entry->home = false;
	*found = true;
	return 0;
}

/* An event: forget translations. */
void uvmem_forget(struct uvmem *uv, uintptr_t start, uintptr_t end)
{
	uintptr_t last = uvmem_address(uv, uv->pages), at;

	pthread_mutex_lock(&uv->lock);
	for (at = start > uv->start ? start : uv->start; at < end && at < last;
	     at += UVMEM_PAGE)
		uv->entry[uvmem_place(uv, at)].mapped = 0;
	pthread_mutex_unlock(&uv->lock);
}

/* On a side, at init done: no page is what it was before any more. */
void uvmem_be_sole(struct uvmem *uv)
{
	uint64_t i;

	for (i = 0; i < uv->pages; i++) {
		pthread_mutex_lock(&uv->lock);
		uv->entry[i].pristine = false;
		pthread_mutex_unlock(&uv->lock);
	}
}

/* On a side: PLAIN (zeros) or SHARED. Frames that had those pages are orphans. */
void uvmem_reset(struct uvmem *uv, uint64_t place, uint64_t pages, enum uvmem_page state)
{
	pthread_mutex_lock(&uv->lock);
	for (; pages--; place++)
		uv->entry[place] = (struct uvmem_entry){ .number = uv->entry[place].number,
							 .state = (uint8_t)state };
	pthread_mutex_unlock(&uv->lock);
}
