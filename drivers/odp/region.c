/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * region - what is reachable, and by which key.
 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "odp_private.h"

#define SECRET sizeof(((struct odp_key *)0)->secret)

/* ---- keys ---- */

char *odp_key_print(const struct odp_key *key, char *text)
{
	snprintf(text, ODP_KEY_TEXT, "%016llx", (unsigned long long)key->region);
	sodium_bin2hex(text + 16, ODP_KEY_TEXT - 16, key->secret, SECRET);
	return text;
}

int odp_key_parse(struct odp_key *key, const char *text)
{
	uint8_t bytes[8 + SECRET];
	uint64_t region = 0;
	size_t n;

	if (!key || !text || strlen(text) != ODP_KEY_TEXT - 1 ||
	    sodium_hex2bin(bytes, sizeof(bytes), text, ODP_KEY_TEXT - 1, NULL, &n, NULL) ||
	    n != sizeof(bytes))
		return -EINVAL;
	for (unsigned i = 0; i < 8; i++)
		region = region << 8 | bytes[i];
	key->region = region;
	memcpy(key->secret, bytes + 8, SECRET);
	return 0;
}

/* ---- finding ---- */

/* The same time for a key that is wrong as for one of a region that does not exist. */
struct odp_region *region_find(struct odp_target *target, const struct odp_key *key)
{
	static const uint8_t nothing[SECRET];
	struct odp_region *region;
	int differs;

	pthread_mutex_lock(&target->regions_lock);
	region = target->region[key->region % REGIONS];
	differs = sodium_memcmp(region ? region->key.secret : nothing, key->secret, SECRET);
	if (!region || differs || key->region >= REGIONS)
		region = NULL;
	else
		region->users++;
	pthread_mutex_unlock(&target->regions_lock);
	return region;
}

void region_put(struct odp_region *region)
{
	struct odp_target *target = region->target;

	pthread_mutex_lock(&target->regions_lock);
	if (!--region->users)
		pthread_cond_broadcast(&target->regions_free);
	pthread_mutex_unlock(&target->regions_lock);
}

int region_allows(const struct odp_region *region, uint64_t addr, uint64_t length, unsigned need)
{
	bool within = addr >= region->start && addr < region->end &&
		      length <= region->end - addr;

	return within && !(need & ~region->access) ? 0 : -EACCES;
}

/* ---- making ---- */

static int enter(struct odp_region *region)
{
	struct odp_target *target = region->target;
	int err = -ENOSPC;

	pthread_mutex_lock(&target->regions_lock);
	for (unsigned i = 0; i < REGIONS && err; i++) {
		if (target->region[i])
			continue;
		region->key.region = i;
		target->region[i] = region;
		err = 0;
	}
	pthread_mutex_unlock(&target->regions_lock);
	return err;
}

static int check(const struct odp_target *target, uintptr_t start, size_t length,
		 unsigned access, struct odp_region **out)
{
	if (!target || !out || !length || !access ||
	    (access & ~(ODP_READ | ODP_WRITE | ODP_ATOMIC)))
		return -EINVAL;
	if (target->pid != getpid())
		return -ENODEV;
	return length > UINTPTR_MAX - start ? -EOVERFLOW : 0;
}

int odp_region_create(struct odp_target *target, uintptr_t start, size_t length,
		      unsigned access, struct odp_region **out)
{
	struct odp_region *region;
	uintptr_t at = start;
	int err = check(target, start, length, access, out);

	if (err)
		return err;
	region = hmm_alloc(sizeof(*region));
	if (!region)
		return -ENOMEM;
	region->target = target;
	region->start = start;
	region->end = start + length;
	region->access = access;
	randombytes_buf(region->key.secret, SECRET);
	err = table_open(region);
	if (!err) {
		/* As mlx5 does (hmm-reference 3.2): what it cannot have now is faulted later. Of all
		 * memory there is it would be a long look for little. */
		while (length != UINTPTR_MAX &&
		       access_map_present(region, &at, region->end) == -EINPROGRESS)
			;
		err = enter(region);
		if (err)
			table_close(region);
	}
	if (err) {
		hmm_free(region, sizeof(*region));
		return err;
	}
	*out = region;
	return 0;
}

void odp_region_destroy(struct odp_region *region)
{
	struct odp_target *target;

	if (!region || region->target->pid != getpid())
		return;
	target = region->target;
	pthread_mutex_lock(&target->regions_lock);
	target->region[region->key.region] = NULL;
	while (region->users)
		pthread_cond_wait(&target->regions_free, &target->regions_lock);
	pthread_mutex_unlock(&target->regions_lock);
	table_close(region);
	sodium_memzero(&region->key, sizeof(region->key));
	hmm_free(region, sizeof(*region));
}

void odp_region_key(const struct odp_region *region, struct odp_key *key)
{
	*key = region->key;
}

/* ---- the target's own ---- */

int odp_region_advise(struct odp_region *region, uintptr_t start, size_t length,
		      enum odp_advice advice, bool flush)
{
	struct access a = { .addr = start, .length = length };
	int err;

	if (!region || !length || (unsigned)advice > ODP_PREFETCH_NO_FAULT)
		return -EINVAL;
	if (region->target->pid != getpid())
		return -ENODEV;
	if (region_allows(region, start, length, 0))
		return -EFAULT;
	if (advice == ODP_PREFETCH_WRITE && !(region->access & ODP_WRITE))
		return -EPERM;
	if (!flush)
		return work_advise(region->target, &region->key, start, length, advice);
	do
		err = access_advise(region, &a, advice);
	while (err == -EINPROGRESS);
	return err;
}

uint64_t odp_region_lookup(const struct odp_region *region, const void *addr)
{
	return uhmm_ptable_lookup(&region->table, (uintptr_t)addr);
}

void odp_region_get_stats(struct odp_region *region, struct odp_region_stats *stats)
{
	struct odp_region_stats all = {
		.faults = region->count.faults,
		.invalidations = region->count.invalidations,
		.prefetches = region->count.prefetches,
		.mapped = region->count.mapped,
	};

	stats_give(stats, &all, sizeof(all));
}
