/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devmem - what the library asks of secret memory: transfers go to the engine, and a frame
 * that is freed is cleared.
 */
#include "uvmem_private.h"

static void to_device(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		      struct hmm_transfer *transfer)
{
	uvmem_engine_put(priv, &(struct uvmem_job){ false, copies, n, transfer });
}

static void to_host(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		    struct hmm_transfer *transfer)
{
	uvmem_engine_put(priv, &(struct uvmem_job){ true, copies, n, transfer });
}

static void frame_free(void *priv, uint64_t frame)
{
	uvmem_frame_freed(priv, frame);
}

static const struct hmm_devmem_ops ops = {
	.size = sizeof(ops),
	.to_device = to_device,
	.to_host = to_host,
	.frame_free = frame_free,
};

int uvmem_devmem_create(struct uvmem *uv)
{
	const struct hmm_devmem_options options = {
		.size = sizeof(options),
		.type = HMM_DEVMEM_PRIVATE,
		.frames = uv->frames,
		.owner = uv,
	};

	return hmm_devmem_create(uv->hmm, &options, &ops, uv, &uv->devmem);
}

/*
 * The next 64 KiB of frames in turn go home. First in, first out: nobody counts accesses,
 * and a page that is wanted comes back at the price of one opening. false: nothing left.
 */
bool uvmem_evict(struct uvmem *uv)
{
	uint64_t blocks = uv->frames / UVMEM_BLOCK, tries;

	for (tries = 0; tries < blocks; tries++) {
		uint64_t block =
			__atomic_fetch_add(&uv->hand, 1, __ATOMIC_RELAXED) % blocks;
		int64_t n = hmm_devmem_evict(uv->devmem, block * UVMEM_BLOCK, UVMEM_BLOCK);

		if (n > 0) {
			atomic_fetch_add(&uv->count.evicted, (uint64_t)n);
			return true;
		}
		if (n == -ENODEV)
			return false;
	}
	return false;
}
