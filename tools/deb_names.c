/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * deb_names - the table of names (deb_names.h).
 *
 * Entries lie in one array that grows, so a handle is an index into it. A bucket leads
 * to the first entry of each distinct name (`bucket_next`), that one to the further
 * entries of the same name (`chain_next`).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "deb_names.h"

#define BUCKETS (1u << 17) /* about two names each at Debian's 120,000 */

struct entry {
	struct deb_slice name;
	uint32_t index;
	uint32_t bucket_next, chain_next;
	bool real;
};

struct deb_names {
	struct entry *entries;
	uint32_t count, room;
	uint32_t buckets[BUCKETS];
};

static uint32_t hash(struct deb_slice name)
{
	uint32_t value = 2166136261u; /* FNV-1a */

	for (size_t i = 0; i < name.len; i++)
		value = (value ^ (unsigned char)name.text[i]) * 16777619u;
	return value & (BUCKETS - 1);
}

struct deb_names *deb_names_create(void)
{
	struct deb_names *names = tool_alloc(sizeof(*names));

	memset(names->buckets, 0xff, sizeof(names->buckets)); /* DEB_NAMES_NONE */
	return names;
}

void deb_names_free(struct deb_names *names)
{
	if (names)
		free(names->entries);
	free(names);
}

static uint32_t new_entry(struct deb_names *names, struct deb_slice name, uint32_t index,
			  bool real)
{
	if (names->count == names->room) {
		uint32_t room = names->room ? names->room * 2 : 1024;
		struct entry *grown = realloc(names->entries, room * sizeof(*grown));

		if (!grown) {
			fprintf(stderr, "uhmm: no memory for the table of names\n");
			exit(1);
		}
		names->entries = grown;
		names->room = room;
	}
	names->entries[names->count] =
		(struct entry){ name, index, DEB_NAMES_NONE, DEB_NAMES_NONE, real };
	return names->count++;
}

uint32_t deb_names_first(const struct deb_names *names, struct deb_slice name)
{
	uint32_t at = names->buckets[hash(name)];

	while (at != DEB_NAMES_NONE) {
		const struct entry *entry = &names->entries[at];

		if (entry->name.len == name.len &&
		    !memcmp(entry->name.text, name.text, name.len))
			return at;
		at = entry->bucket_next;
	}
	return DEB_NAMES_NONE;
}

/* The link that leads to entry `at` in its bucket. */
static uint32_t *bucket_link(struct deb_names *names, uint32_t at)
{
	uint32_t *link = &names->buckets[hash(names->entries[at].name)];

	while (*link != at)
		link = &names->entries[*link].bucket_next;
	return link;
}

void deb_names_add(struct deb_names *names, struct deb_slice name, uint32_t index,
		   bool real)
{
	uint32_t head = deb_names_first(names, name);
	uint32_t at = new_entry(names, name, index, real);
	struct entry *entry = &names->entries[at];

	if (head == DEB_NAMES_NONE) {
		uint32_t *bucket = &names->buckets[hash(name)];

		entry->bucket_next = *bucket;
		*bucket = at;
	} else if (real) { /* the real one goes to the front */
		*bucket_link(names, head) = at;
		entry->bucket_next = names->entries[head].bucket_next;
		entry->chain_next = head;
	} else {
		uint32_t *link = &names->entries[head].chain_next;

		while (*link != DEB_NAMES_NONE)
			link = &names->entries[*link].chain_next;
		*link = at;
	}
}

uint32_t deb_names_next(const struct deb_names *names, uint32_t handle)
{
	return names->entries[handle].chain_next;
}

uint32_t deb_names_index(const struct deb_names *names, uint32_t handle)
{
	return names->entries[handle].index;
}

bool deb_names_real(const struct deb_names *names, uint32_t handle)
{
	return names->entries[handle].real;
}

size_t deb_names_virtuals(const struct deb_names *names)
{
	size_t virtuals = 0;

	for (uint32_t i = 0; i < BUCKETS; i++) {
		for (uint32_t at = names->buckets[i]; at != DEB_NAMES_NONE;
		     at = names->entries[at].bucket_next)
			virtuals += !names->entries[at].real;
	}
	return virtuals;
}

void deb_names_rebase(struct deb_names *names, const char *old, size_t len,
		      const char *text)
{
	for (uint32_t i = 0; i < names->count; i++) {
		uintptr_t offset = (uintptr_t)names->entries[i].name.text - (uintptr_t)old;

		if (offset < len)
			names->entries[i].name.text = text + offset;
	}
}
