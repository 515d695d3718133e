/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uvmem - open and close, what events do, and what errors mean.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "uvmem_private.h"

#define FRAMES 1024u
#define SIDES 2u
#define SCRATCH ((size_t)64 << 10)
#define SCRATCH_MAX ((size_t)1 << 30)
#define FRAMES_MAX ((uint64_t)1 << 28)

int uvmem_available(char *why, size_t size)
{
	struct uvmem_secret secret = { 0 };
	int err = uvmem_secret_map(&secret, UVMEM_PAGE, false, why, size);

	uvmem_secret_unmap(&secret);
	return err;
}

/* As much of the caller's options as both know; what only he knows must be zero. */
static int read_options(struct uvmem_options *mine, const struct uvmem_options *options)
{
	const char *bytes = (const char *)options;
	size_t i;

	*mine = (struct uvmem_options){ .size = sizeof(*mine) };
	if (options && options->size < sizeof(options->size))
		return -EINVAL;
	for (i = sizeof(*mine); options && i < options->size; i++)
		if (bytes[i])
			return -E2BIG;
	if (options)
		memcpy(mine, options,
		       options->size < sizeof(*mine) ? options->size : sizeof(*mine));
	mine->frames = mine->frames ? mine->frames : FRAMES;
	mine->sides = mine->sides ? mine->sides : SIDES;
	mine->scratch = mine->scratch ? mine->scratch : SCRATCH;
	if (mine->frames < UVMEM_BLOCK || mine->frames > FRAMES_MAX ||
	    mine->sides > UVMEM_SIDES_MAX || mine->scratch > SCRATCH_MAX ||
	    mine->cipher > UVMEM_CIPHER_XCHACHA20POLY1305)
		return -EINVAL;
	return 0;
}

static int make_secret(struct uvmem *uv, enum uvmem_cipher cipher)
{
	struct uvmem_layout layout;
	char why[400];
	int err;

	uvmem_layout(uv, &layout);
	err = uvmem_secret_map(&uv->secret, layout.size, uv->mlocked, why, sizeof(why));
	if (err) {
		hmm_log(HMM_LOG_ERROR, "uvmem: %s", why);
		return err;
	}
	uv->sealer = (struct uvmem_sealer *)(uv->secret.base + layout.sealer);
	uv->number = (uint64_t *)(uv->secret.base + layout.number);
	uv->owner = (uint64_t *)(uv->secret.base + layout.owner);
	uv->frame = uv->secret.base + layout.frame;
	err = uvmem_sides_create(uv);
	return err ? err : uvmem_sealer_init(uv->sealer, cipher, NULL);
}

static void dispose(struct uvmem *uv)
{
	uvmem_unlist(uv);
	hmm_notifier_remove(uv->notifier);
	hmm_devmem_destroy(
		uv->devmem); /* the engine lives: all that is in leaves, sealed */
	uvmem_engine_stop(uv);
	if (uv->hmm)
		hmm_put(uv->hmm);
	uvmem_secret_unmap(&uv->table);
	uvmem_secret_unmap(&uv->secret);
	pthread_cond_destroy(&uv->sides.cond);
	pthread_mutex_destroy(&uv->sides.lock);
	pthread_mutex_destroy(&uv->lock);
	pthread_mutex_destroy(&uv->call);
	hmm_free(uv, sizeof(*uv));
}

int uvmem_open(const struct uvmem_options *options, struct uvmem **out)
{
	struct uvmem_options mine;
	struct uvmem *uv;
	int err = read_options(&mine, options);

	if (err)
		return err;
	uv = hmm_alloc(sizeof(*uv));
	if (!uv)
		return -ENOMEM;
	uv->pid = getpid();
	uv->frames = mine.frames;
	uv->side_count = mine.sides;
	uv->scratch = mine.scratch;
	uv->mlocked = mine.mlocked;
	pthread_mutex_init(&uv->call, NULL);
	pthread_mutex_init(&uv->lock, NULL);
	pthread_mutex_init(&uv->sides.lock, NULL);
	pthread_cond_init(&uv->sides.cond, NULL);
	err = hmm_open(&uv->hmm);
	if (!err)
		err = make_secret(uv, mine.cipher);
	if (!err)
		err = uvmem_engine_start(uv);
	if (!err)
		err = uvmem_devmem_create(uv);
	if (err) {
		dispose(uv);
		return err;
	}
	*out = uv;
	return 0;
}

/* A child has neither the secret memory nor the threads. It only forgets. */
void uvmem_close(struct uvmem *uv)
{
	if (uv && uv->pid == getpid())
		dispose(uv);
}

enum uvmem_state uvmem_state(const struct uvmem *uv)
{
	return (enum uvmem_state)atomic_load(&uv->state);
}

void uvmem_get_stats(struct uvmem *uv, struct uvmem_stats *stats)
{
	struct hmm_devmem_stats devmem = { .size = sizeof(devmem) };
	struct uvmem_stats all = {
		.size = stats->size,
		.secret = !uv->mlocked,
		.frames = uv->frames,
		.taken = atomic_load(&uv->count.taken),
		.opened = atomic_load(&uv->count.opened),
		.sealed = atomic_load(&uv->count.sealed),
		.refused = atomic_load(&uv->count.refused),
		.evicted = atomic_load(&uv->count.evicted),
		.runs = atomic_load(&uv->count.runs),
	};

	if (uv->pid == getpid()) { /* the rest is not in a child's memory */
		hmm_devmem_get_stats(uv->devmem, &devmem);
		all.cipher = uv->sealer->cipher;
		all.in_use = devmem.in_use;
	}
	memcpy(stats, &all, stats->size < sizeof(all) ? stats->size : sizeof(all));
}

const char *uvmem_strerror(int err)
{
	switch (err < 0 ? err : -err) {
	case -EBADMSG:
		return "a sealed page was changed, swapped, replayed or discarded while it "
		       "was "
		       "outside: refused (uvmem_erase() makes zeros of it)";
	case -EBADFD:
		return "not in this state: secure memory goes init start, init done, run; "
		       "an abort "
		       "is for before init done";
	case -ESTALE:
		return "the file is true, but older than what is asked for: a roll-back";
	case -EBUSY:
		return "a page cannot leave the program: pinned, mlocked, read-only, the C "
		       "library's, or touched all the time";
	case -EFAULT:
		return "not of the secure range, or nothing is mapped there";
	case -EPERM:
		return "the page is shared (or, for unshare, is not), or the mapping may "
		       "not be "
		       "read and written; or, at open, faults of the kernel are not "
		       "delivered "
		       "here (see `uhmm feature`)";
	case -EOPNOTSUPP:
		return "only private anonymous memory can be secure, no file, shared memory, "
		       "huge page or stack; or, at open, there is no memfd_secret here "
		       "(uvmem_available() says why) or not that cipher";
	case -EEXIST:
		return "a part of the range is secure already, by another handle";
	case -EDEADLK:
		return "called on the secure side, which it would wait for";
	default:
		return hmm_strerror(err);
	}
}
