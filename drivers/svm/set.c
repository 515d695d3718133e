/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * set - the program's calls: attributes, advice, prefetch.
 *
 * Before the tree is changed the range is fenced: an unmap of what was there before would
 * otherwise be told later, and take the new attributes with it. And each mapping is looked
 * at through the notifier, because the library tells only of mappings that some device has
 * looked at.
 */
#include "svm_private.h"

struct cover {
	struct svm *svm;
	uintptr_t at; /* up to here all is mapped */
};

static int cover_run(const struct hmm_run *run, void *arg)
{
	struct cover *cover = arg;
	uint64_t entry = 0;
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = cover->svm->hmm,
		.notifier = cover->svm->notifier,
		.start = run->start,
		.end = run->start + SVM_PAGE,
		.pfns = &entry,
	};
	unsigned tries = 0;
	int err;

	if (run->start > cover->at)
		return -EFAULT;
	cover->at = run->end;
	do {
		err = hmm_notifier_read_begin(&range);
		if (!err)
			err = hmm_range_snapshot(&range);
	} while (err == -EBUSY && ++tries < 100);
	return err == -EBUSY ? 0 : err; /* it changes: then it is watched */
}

/* -EFAULT: not all of it is mapped. */
static int watch(struct svm *svm, uintptr_t start, uintptr_t end)
{
	struct cover cover = { .svm = svm, .at = start };
	int err = hmm_fence(svm->hmm, start, end - start);

	if (!err)
		err = hmm_snapshot_runs(svm->hmm, start, end, 0, cover_run, &cover);
	return err ? err : cover.at < end ? -EFAULT : 0;
}

/* The new attributes are in force when it returns. */
static int change_range(struct svm *svm, uintptr_t start, uintptr_t end,
			const struct svm_change *change)
{
	/* Where it was sent last is nothing that a translation depends on. */
	const bool forget = change->reset || change->preferred_set ||
			    change->granularity_set || change->access || change->in_place ||
			    change->none || change->flags_set || change->flags_clear ||
			    change->atomic_set;
	unsigned i;
	int err = watch(svm, start, end);

	if (err)
		return err;
	pthread_mutex_lock(&svm->tree_lock);
	err = svm_tree_set(&svm->tree, start, end, change);
	if (!err && forget)
		__atomic_add_fetch(&svm->sequence, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&svm->tree_lock);
	for (i = 0; i < svm->options.gpus && forget && !err; i++)
		gpu_forget(svm->gpu[i], (void *)start, end - start);
	return err;
}

static int apply(struct svm *svm, uintptr_t start, uintptr_t end,
		 const struct svm_change *change)
{
	int err;

	pthread_mutex_lock(&svm->set_lock);
	err = change_range(svm, start, end, change);
	if (!err && change->prefetched_set && change->prefetched != SVM_UNDEFINED)
		svm_move(svm, start, end, change->prefetched, 0);
	if (!err) {
		svm_note_mapped(svm, start, end);
		svm_map(svm, start, end);
	}
	pthread_mutex_unlock(&svm->set_lock);
	return err;
}

int svm_set_attr(struct svm *svm, const void *start, size_t length,
		 const struct svm_attr *attrs, unsigned n)
{
	struct svm_change change = { .reset = false };
	uintptr_t end;
	unsigned i;
	int err = svm_check_range(svm, (uintptr_t)start, length, &end);

	if (!err && n && !attrs)
		err = -EINVAL;
	for (i = 0; i < n && !err; i++)
		err = svm_change_add(&change, svm->options.gpus, &attrs[i]);
	return err ? err : apply(svm, (uintptr_t)start, end, &change);
}

int svm_get_attr(struct svm *svm, const void *start, size_t length, struct svm_attr *attrs,
		 unsigned n)
{
	struct svm_common common;
	uintptr_t end;
	unsigned i;
	int err = svm_check_range(svm, (uintptr_t)start, length, &end);

	if (!err && n && !attrs)
		err = -EINVAL;
	if (!err)
		err = hmm_fence(svm->hmm, (uintptr_t)start, length);
	if (err)
		return err;
	pthread_mutex_lock(&svm->tree_lock);
	common = svm_tree_common(&svm->tree, (uintptr_t)start, end);
	pthread_mutex_unlock(&svm->tree_lock);
	for (i = 0; i < n && !err; i++) {
		struct svm_attr probe = attrs[i];

		err = svm_common_get(&common, svm->options.gpus, &probe);
	}
	for (i = 0; i < n && !err; i++)
		svm_common_get(&common, svm->options.gpus, &attrs[i]);
	return err;
}

static const struct svm_attr advice_attr[] = {
	[SVM_ADVISE_PREFERRED] = { SVM_ATTR_PREFERRED, 0 },
	[SVM_ADVISE_NO_PREFERRED] = { SVM_ATTR_PREFERRED, SVM_UNDEFINED },
	[SVM_ADVISE_ACCESSED] = { SVM_ATTR_ACCESS, 0 },
	[SVM_ADVISE_IN_PLACE] = { SVM_ATTR_IN_PLACE, 0 },
	[SVM_ADVISE_NO_ACCESS] = { SVM_ATTR_NO_ACCESS, 0 },
	[SVM_ADVISE_READ_MOSTLY] = { SVM_ATTR_SET_FLAGS, SVM_FLAG_READ_MOSTLY },
	[SVM_ADVISE_NO_READ_MOSTLY] = { SVM_ATTR_CLR_FLAGS, SVM_FLAG_READ_MOSTLY },
	[SVM_ADVISE_READ_ONLY] = { SVM_ATTR_SET_FLAGS, SVM_FLAG_GPU_RO },
	[SVM_ADVISE_READ_WRITE] = { SVM_ATTR_CLR_FLAGS, SVM_FLAG_GPU_RO },
	[SVM_ADVISE_MAPPED] = { SVM_ATTR_SET_FLAGS, SVM_FLAG_ALWAYS_MAPPED },
	[SVM_ADVISE_FAULTED] = { SVM_ATTR_CLR_FLAGS, SVM_FLAG_ALWAYS_MAPPED },
	[SVM_ADVISE_ATOMIC] = { SVM_ATTR_ATOMIC, 0 },
	[SVM_ADVISE_WHOLE] = { SVM_ATTR_SET_FLAGS, SVM_FLAG_WHOLE },
	[SVM_ADVISE_PARTS] = { SVM_ATTR_CLR_FLAGS, SVM_FLAG_WHOLE },
	[SVM_ADVISE_MUST_MOVE] = { SVM_ATTR_SET_FLAGS, SVM_FLAG_MUST_MOVE },
	[SVM_ADVISE_MAY_STAY] = { SVM_ATTR_CLR_FLAGS, SVM_FLAG_MUST_MOVE },
};

/* -EOVERFLOW: it wraps. */
static int round_out(const void *start, size_t length, uintptr_t *from, size_t *bytes)
{
	uintptr_t end = (uintptr_t)start + length;

	if (end < (uintptr_t)start || end > UINTPTR_MAX - SVM_PAGE)
		return -EOVERFLOW;
	*from = (uintptr_t)start & -SVM_PAGE;
	*bytes = length ? ((end + SVM_PAGE - 1) & -SVM_PAGE) - *from : 0;
	return 0;
}

int svm_advise(struct svm *svm, const void *start, size_t length, enum svm_advice advice,
	       uint32_t where)
{
	struct svm_change change = { .reset = advice == SVM_ADVISE_NORMAL };
	uintptr_t from, end;
	size_t bytes;
	int err = round_out(start, length, &from, &bytes);

	if ((unsigned)advice >= sizeof(advice_attr) / sizeof(advice_attr[0]))
		return -EINVAL;
	if (!err)
		err = svm_check_range(svm, from, bytes, &end);
	if (!err && !change.reset) {
		struct svm_attr attr = advice_attr[advice];

		if (advice == SVM_ADVISE_PREFERRED || attr.type == SVM_ATTR_ACCESS ||
		    attr.type == SVM_ATTR_IN_PLACE || attr.type == SVM_ATTR_NO_ACCESS ||
		    attr.type == SVM_ATTR_ATOMIC)
			attr.value = where;
		err = svm_change_add(&change, svm->options.gpus, &attr);
	}
	return err ? err : apply(svm, from, end, &change);
}

int64_t svm_prefetch(struct svm *svm, const void *start, size_t length, uint32_t location,
		     unsigned flags)
{
	struct svm_change change = { .prefetched_set = true, .prefetched = location };
	uintptr_t from, end;
	size_t bytes;
	int64_t n;
	int err = round_out(start, length, &from, &bytes);

	if (!err)
		err = svm_check_range(svm, from, bytes, &end);
	if (!err && flags & ~SVM_PREFETCH_ALL)
		err = -EINVAL;
	if (!err && location != SVM_SYSTEM && location >= svm->options.gpus)
		err = -EINVAL;
	if (!err && location != SVM_SYSTEM && !svm->options.vram_bytes)
		err = -ENODEV;
	if (err)
		return err;
	pthread_mutex_lock(&svm->set_lock);
	n = change_range(svm, from, end, &change);
	if (!n) {
		n = svm_move(svm, from, end, location, flags);
		svm_map(svm, from, end);
	}
	pthread_mutex_unlock(&svm->set_lock);
	return n;
}
