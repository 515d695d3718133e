/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * changed - which pages may the CPU have written to since the device got them?
 *
 * Nothing says so of memory as such: every page is looked at, by a checksum.
 */
#include "userptr_private.h"

int userptr_watch(struct userptr_object *o)
{
	return 0;
}

void userptr_unwatch(struct userptr_object *o)
{
}

int userptr_find_changed(const struct use *use)
{
	const struct userptr_object *o = use->object;

	for (size_t i = page_index(o, use->start); i <= page_index(o, use->end - 1); i++)
		atomic_store(&o->pages[i].stale, true);
	return 0;
}
