/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * access - loads and stores of the secure side, by copy, under the update lock.
 *
 * Every driver's loop: look the translation up and use it under the lock that ends it; on a
 * miss ask the library, which says where the page is; if it is with the program, bring it.
 * A shared page has no translation: it is read and written where the program has it.
 */
#include <time.h>

#include "uvmem_private.h"

/* Brought so often and gone again each time: the program touches it all the time. */
#define TRIES 2000

static int program(const struct hmm_range *range, void *arg)
{
	struct uvmem_side *side = arg;

	return uvmem_install(side->uv, uvmem_place(side->uv, range->start), range->pfns[0],
			     &side->found);
}

/*
 * How many pages from here on can come along, and are worth it: not those that are refused
 * anyway.
 */
static uint64_t window(struct uvmem *uv, uint64_t place)
{
	uint64_t most = uv->frames / 4 < UVMEM_BLOCK ? uv->frames / 4 : UVMEM_BLOCK, n;

	pthread_mutex_lock(&uv->lock);
	for (n = 1; n < most && place + n < uv->pages; n++) {
		uint8_t state = uv->entry[place + n].state;

		if (state != UVMEM_PAGE_OUT && state != UVMEM_PAGE_PLAIN)
			break;
	}
	pthread_mutex_unlock(&uv->lock);
	return n;
}

/* 0: a translation was installed, or the page has just come; look again. */
static int fault(struct uvmem_side *side, uint64_t place)
{
	struct uvmem *uv = side->uv;
	uint64_t pfn = 0;
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = uv->hmm,
		.notifier = uv->notifier,
		.start = uvmem_address(uv, place),
		.end = uvmem_address(uv, place + 1),
		.pfns = &pfn,
		.owner = uv,
	};
	int err;

	side->found = false;
	err = hmm_range_program(&range, 0, &uv->lock, program, side);
	if (err || side->found)
		return err == -EFAULT ? -EBADMSG : err;
	return uvmem_bring(side, place, window(uv, place), false);
}

/* What may be read but not written is told from what is not there (hmm_range_fault()'s -EPERM). */
static int copy_shared(struct uvmem *uv, uintptr_t addr, void *data, size_t n, bool write)
{
	int err = write ? hmm_copy_to(uv->hmm, addr, data, n)
			: hmm_copy_from(uv->hmm, data, addr, n);
	char byte;

	return write && err == -EFAULT && !hmm_copy_from(uv->hmm, &byte, addr, 1) ? -EPERM
										   : err;
}

/* One access where the sizes allow, so that 8 aligned bytes are never torn. */
static void move(char *dst, const char *src, uintptr_t addr, size_t n)
{
	if (n == 8 && !(addr % 8) && !((uintptr_t)dst % 8) && !((uintptr_t)src % 8))
		*(volatile uint64_t *)dst = *(const volatile uint64_t *)src;
	else
		memcpy(dst, src, n);
}

/* 0; -EAGAIN no translation; -EXDEV it is shared; -EBADMSG. */
static int try_page(struct uvmem *uv, uint64_t place, uintptr_t addr, void *data, size_t n,
		    bool write)
{
	const struct uvmem_entry *entry = &uv->entry[place];
	int err = 0;

	pthread_mutex_lock(&uv->lock);
	if (entry->mapped) {
		char *at = uvmem_frame(uv, entry->mapped - 1) + addr % UVMEM_PAGE;

		write ? move(at, data, addr, n) : move(data, at, addr, n);
	} else {
		err = entry->state == UVMEM_PAGE_SHARED ? -EXDEV
		      : entry->state == UVMEM_PAGE_LOST ? -EBADMSG
							: -EAGAIN;
	}
	pthread_mutex_unlock(&uv->lock);
	return err;
}

/* Within a page. */
static int access_page(struct uvmem_side *side, uintptr_t addr, void *data, size_t n,
		       bool write)
{
	struct uvmem *uv = side->uv;
	uint64_t place = uvmem_place(uv, addr);
	int err, tries;

	if (place == UINT64_MAX)
		return -EFAULT;
	for (tries = 0; tries < TRIES; tries++) {
		err = try_page(uv, place, addr, data, n, write);
		if (err == -EXDEV)
			return copy_shared(uv, addr, data, n, write);
		if (err != -EAGAIN)
			return err;
		err = atomic_load(&uv->dead) ? -ENODEV : fault(side, place);
		if (err)
			return err;
	}
	return -EBUSY;
}

int uvmem_access(struct uvmem_side *side, uintptr_t addr, void *data, size_t length,
		 bool write)
{
	size_t n;
	int err = 0;

	for (; length && !err; length -= n, addr += n, data = (char *)data + n) {
		n = UVMEM_PAGE - addr % UVMEM_PAGE;
		n = n < length ? n : length;
		err = access_page(side, addr, data, n, write);
	}
	return err;
}

/*
 * The other end may be memory that moves or that is away, so it is not touched under the
 * lock: what is not secret memory goes by way of the side's page.
 */
static int any_end(struct uvmem_side *side, uintptr_t addr, char *data, size_t length,
		   bool write)
{
	size_t n;
	int err = 0;

	if (uvmem_secret_has(&side->uv->secret, data, length))
		return uvmem_access(side, addr, data, length, write);
	for (; length && !err; length -= n, addr += n, data += n) {
		n = UVMEM_PAGE - addr % UVMEM_PAGE;
		n = n < length ? n : length;
		/* At the same place in its page, so that it is as aligned. */
		if (write)
			memcpy(side->bounce + addr % UVMEM_PAGE, data, n);
		err = uvmem_access(side, addr, side->bounce + addr % UVMEM_PAGE, n, write);
		if (!write && !err)
			memcpy(data, side->bounce + addr % UVMEM_PAGE, n);
	}
	return err;
}

int uvmem_load(struct uvmem_side *side, void *dst, const void *src, size_t length)
{
	return any_end(side, (uintptr_t)src, dst, length, false);
}

int uvmem_store(struct uvmem_side *side, void *dst, const void *src, size_t length)
{
	return any_end(side, (uintptr_t)dst, (void *)src, length, true);
}
