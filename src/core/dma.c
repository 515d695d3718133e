/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma - an I/O address space: made and ended; the library's own back-ends.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/dma.h"
#include "core/pager.h"

int dma_check(struct hmm_dma *dma)
{
	return dma ? hmm_check_sleep(dma->hmm)
		   : error_say(-EINVAL, "the I/O address space is NULL");
}

static bool is_power(size_t n)
{
	return n && !(n & (n - 1));
}

static int check_apertures(const struct hmm_dma_options *o)
{
	if (o->n_apertures > DMA_APERTURES || (o->n_apertures && !o->apertures))
		return error_say(-EINVAL, "at most %u apertures", DMA_APERTURES);
	for (unsigned i = 0; i < o->n_apertures; i++)
		if (o->apertures[i].start >= o->apertures[i].end)
			return error_say(-EINVAL, "an aperture is empty");
	return 0;
}

static int check_options(const struct hmm_dma_options *o, const struct hmm_dma_ops *ops)
{
	int err = struct_check(o, o->size, sizeof(*o));

	if (!err)
		err = struct_check(ops, ops->size, sizeof(*ops));
	if (err)
		return err;
	if (!ops->map || !ops->unmap)
		return error_say(-EINVAL, "a back-end needs map and unmap");
	if (o->address_bits && (o->address_bits < 20 || o->address_bits > 64))
		return error_say(-EINVAL, "I/O addresses have 20 to 64 bits");
	if ((o->granule && (!is_power(o->granule) || o->granule < PAGE)) ||
	    (o->chunk && (!is_power(o->chunk) || o->chunk < PAGE || o->chunk < o->granule)))
		return error_say(-EINVAL, "granule and chunk are powers of two from 4096 on, and the "
					  "chunk is not the smaller one");
	return check_apertures(o);
}

static void take_options(struct hmm_dma *dma, const struct hmm_dma_options *o)
{
	dma->options = *o;
	snprintf(dma->name, sizeof(dma->name), "%s", o->name ? o->name : "");
	for (unsigned i = 0; i < o->n_apertures; i++)
		dma->aperture[i] = o->apertures[i];
	if (!o->address_bits)
		dma->options.address_bits = 64;
	if (!o->granule)
		dma->options.granule = PAGE;
	if (!o->chunk)
		dma->options.chunk = dma->options.granule;
}

static void release(struct hmm_dma *dma)
{
	uhmm_ptable_destroy(&dma->book);
	uhmm_ptable_destroy(&dma->behind);
	rangemap_destroy(&dma->windows);
	bounce_end(dma);
	lock_destroy(&dma->lock);
	pthread_mutex_destroy(&dma->maps);
}

static int create(struct hmm *hmm, const struct hmm_dma_options *options, struct hmm_dma **out)
{
	struct hmm_dma *dma = arena_alloc(hmm->arena, sizeof(*dma));
	int err;

	if (!dma)
		return error_say(-ENOMEM, "no memory for an I/O address space");
	dma->hmm = hmm;
	take_options(dma, options);
	pthread_mutex_init(&dma->maps, NULL);
	lock_init(&dma->lock, LOCK_DMA);
	iova_init(dma);
	err = uhmm_ptable_init(&dma->book);
	if (!err)
		err = uhmm_ptable_init(&dma->behind);
	/* It is what remembers which DONTNEEDs may not have ended yet. */
	if (!err && options->pinned)
		err = pager_need(hmm);
	if (err) {
		release(dma);
		arena_free(hmm->arena, dma, sizeof(*dma));
		return error_say(err, "no memory for an I/O address space");
	}
	hmm_get(hmm);
	*out = dma;
	return 0;
}

int hmm_dma_create(struct hmm *hmm, const struct hmm_dma_options *options,
		   const struct hmm_dma_ops *ops, void *priv, struct hmm_dma **out)
{
	int err = hmm_check_sleep(hmm);

	if (!err && (!options || !ops || !out))
		err = error_say(-EINVAL, "no options, no operations, or nowhere for the handle");
	if (!err)
		err = check_options(options, ops);
	if (!err)
		err = create(hmm, options, out);
	if (err)
		return err;
	(*out)->ops = *ops;
	(*out)->priv = priv;
	return 0;
}

int hmm_dma_host(struct hmm *hmm, struct hmm_dma **out)
{
	struct hmm_dma_options options = { .size = sizeof(options), .name = "host" };
	int err = hmm_check_sleep(hmm);

	if (!err && !out)
		err = error_say(-EINVAL, "nowhere for the handle");
	if (!err)
		err = create(hmm, &options, out);
	if (!err)
		(*out)->host = true;
	return err;
}

/* ---- an IOMMU ---- */

static int iommu_map(void *priv, uint64_t iova, uintptr_t va, size_t length, bool write)
{
	struct hmm_dma *dma = priv;

	return dma->hmm->os->iommu_map(&dma->iommu, iova, va, length, write);
}

/* It must not fail: a page that stays mapped is a page that the device reaches. */
static void iommu_unmap(void *priv, uint64_t iova, size_t length)
{
	struct hmm_dma *dma = priv;
	int err = dma->hmm->os->iommu_unmap(&dma->iommu, iova, length);

	if (err)
		hmm_log(HMM_LOG_ERROR, "dma: %s: %#llx, %zu bytes: cannot be unmapped (%d): was its "
			"descriptor closed?", dma->name, (unsigned long long)iova, length, err);
}

static const struct hmm_dma_ops iommu_ops = {
	.size = sizeof(iommu_ops),
	.map = iommu_map,
	.unmap = iommu_unmap,
};

static void take_apertures(const struct os_iommu_info *info, struct hmm_dma_aperture *aperture)
{
	for (unsigned i = 0; i < info->n_ranges; i++) {
		uint64_t last = info->range[i].last;

		aperture[i].start = info->range[i].first;
		aperture[i].end = last == UINT64_MAX ? last & ~(uint64_t)(PAGE - 1) : last + 1;
	}
}

static int create_iommu(struct hmm *hmm, const struct os_iommu *iommu, const char *name,
			size_t chunk, struct hmm_dma **out)
{
	struct hmm_dma_aperture aperture[OS_IOMMU_RANGES];
	struct hmm_dma_options options = { .size = sizeof(options), .name = name,
					   .pinned = true, .apertures = aperture };
	struct os_iommu_info info;
	int err = hmm_check_sleep(hmm);

	if (err)
		return err;
	err = hmm->os->iommu_info(iommu, &info);
	if (err)
		return error_say(err, "%s: no such I/O address space", name);
	take_apertures(&info, aperture);
	options.n_apertures = info.n_ranges;
	options.granule = info.granule;
	options.chunk = chunk && chunk < info.granule ? info.granule : chunk;
	err = hmm_dma_create(hmm, &options, &iommu_ops, NULL, out);
	if (err)
		return err;
	(*out)->iommu = *iommu;
	(*out)->priv = *out;
	return 0;
}

int hmm_dma_type1(struct hmm *hmm, int container, size_t chunk, struct hmm_dma **out)
{
	const struct os_iommu iommu = { .fd = container };

	return create_iommu(hmm, &iommu, "type1", chunk, out);
}

int hmm_dma_iommufd(struct hmm *hmm, int iommufd, uint32_t ioas, size_t chunk,
		    struct hmm_dma **out)
{
	const struct os_iommu iommu = { .fd = iommufd, .iommufd = true, .ioas = ioas };

	return create_iommu(hmm, &iommu, "iommufd", chunk, out);
}

void hmm_dma_destroy(struct hmm_dma *dma)
{
	struct hmm *hmm;

	if (!dma)
		return;
	hmm = dma->hmm;
	if (hmm->pid != hmm_pid()) /* a forked child: it is the parent's */
		return;
	hmm_range_dma_unmap(dma, 0, UINTPTR_MAX, false);
	release(dma);
	arena_free(hmm->arena, dma, sizeof(*dma));
	hmm_put(hmm);
}

void hmm_dma_get_stats(struct hmm_dma *dma, struct hmm_dma_stats *stats)
{
	struct hmm_dma_stats all = {
		.mapped = dma->count.mapped,
		.mapped_max = dma->count.mapped_max,
		.maps = dma->count.maps,
		.unmaps = dma->count.unmaps,
		.mappings = dma->count.mappings,
		.bounced = dma->count.bounced,
		.window = dma->count.window,
		.fences = dma->count.fences,
		.stale = dma->count.stale,
		.settled = dma->count.settled,
	};
	size_t size = stats->size < sizeof(all) ? stats->size : sizeof(all);

	all.size = size;
	memcpy(stats, &all, size);
}
