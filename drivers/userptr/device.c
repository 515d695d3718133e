/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * device - options, open, close, and what it has counted.
 */
#include <time.h>

#include "userptr_private.h"

#define KNOWN_FLAGS (USERPTR_COPY | USERPTR_CHECKSUM)

uint64_t userptr_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The caller's struct may be older than ours, or newer with zeros where we know nothing. */
static int take_options(const struct userptr_options *from, struct userptr_options *to)
{
	const unsigned char *bytes = (const unsigned char *)from;

	*to = (struct userptr_options){ .size = sizeof(*to) };
	if (!from)
		return 0;
	for (size_t i = sizeof(*to); i < from->size; i++)
		if (bytes[i])
			return -E2BIG;
	memcpy(to, from, from->size < sizeof(*to) ? from->size : sizeof(*to));
	if (to->flags & ~KNOWN_FLAGS)
		return userptr_say(-EINVAL, "unknown flags %#x", to->flags & ~KNOWN_FLAGS);
	if (to->mode != USERPTR_GFX && to->mode != USERPTR_KFD)
		return userptr_say(-EINVAL, "unknown mode %d", (int)to->mode);
	return 0;
}

static void init(struct userptr *dev, const struct userptr_options *options)
{
	pthread_condattr_t attr;

	dev->pid = getpid();
	dev->mode = options->mode;
	dev->checksum = options->flags & USERPTR_CHECKSUM;
	dev->restore_delay_ms = options->restore_delay_ms ? options->restore_delay_ms : 1;
	pthread_mutex_init(&dev->turn, NULL);
	pthread_mutex_init(&dev->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&dev->changed, &attr);
	pthread_condattr_destroy(&attr);
}

int userptr_open(const struct userptr_options *from, struct userptr **out)
{
	struct userptr_options options;
	struct userptr *dev;
	int err;

	userptr_hush();
	err = out ? take_options(from, &options) : -EINVAL;
	if (err)
		return err;
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	init(dev, &options);
	dev->piece = malloc(PIECE);
	err = dev->piece ? hmm_open(&dev->hmm) : -ENOMEM;
	if (!err) {
		userptr_guard_begin();
		err = userptr_find(dev, &options);
		userptr_guard_end();
	}
	if (!err && dev->mode == USERPTR_KFD)
		err = userptr_restorer_start(dev);
	if (err) {
		userptr_close(dev);
		return err;
	}
	hmm_log(HMM_LOG_INFO, "userptr: %s, %s: %s", dev->platform_name, dev->device_name,
		dev->reach == REACH_COPY ? "memory of its own" : "shares memory");
	*out = dev;
	return 0;
}

void userptr_close(struct userptr *dev)
{
	if (!dev || check_process(dev))
		return;
	userptr_restorer_stop(dev);
	userptr_lose(dev);
	hmm_put(dev->hmm);
	pthread_cond_destroy(&dev->changed);
	pthread_mutex_destroy(&dev->lock);
	pthread_mutex_destroy(&dev->turn);
	free(dev->piece);
	free(dev);
}

void userptr_get_stats(struct userptr *dev, struct userptr_stats *stats)
{
	struct userptr_stats now = {
		.size = stats->size,
		.platform = dev->platform_name,
		.device = dev->device_name,
		.shares = dev->reach != REACH_COPY,
		.jobs = dev->count.jobs,
		.failed = dev->count.failed,
		.again = dev->count.again,
		.validations = dev->count.validations,
		.invalidations = dev->count.invalidations,
		.waits = dev->count.waits,
		.quiesced = dev->count.quiesced,
		.restores = dev->count.restores,
		.retries = dev->count.retries,
		.pages_up = dev->count.pages_up,
		.pages_down = dev->count.pages_down,
		.pages_hashed = dev->count.pages_hashed,
		.pages_dropped = dev->count.pages_dropped,
	};

	pthread_mutex_lock(&dev->lock);
	now.evictions = dev->evicted;
	pthread_mutex_unlock(&dev->lock);
	memcpy(stats, &now, stats->size < sizeof(now) ? stats->size : sizeof(now));
}
