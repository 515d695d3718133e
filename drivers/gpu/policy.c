/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * policy - somebody else says what may be mapped, and brings pages where they belong (svm).
 *
 * Two questions, to two threads. An SM that misses asks `fault` before the fault is served: that
 * may migrate, so it may not run in the handler, which maps what has moved. The handler asks `may`
 * for each page of a window, with the policy's sequence noted before; the answers are used under
 * the update lock only if the sequence is still the same.
 *
 * Why that is enough. A policy changes its mind for two reasons. The program says so: then it calls
 * gpu_forget(), which the handler itself does, after any window that it had asked about before. Or
 * the mapping went, and what was said of the address with it: nobody calls gpu_forget() then, since
 * the translations go by the mirror's own event; but a window that was asked about before, and
 * looks at memory after, finds a new mapping there, which is present and true. Its fence has
 * delivered the event to the policy too, so the sequence has risen, and nothing is installed.
 */
#include <string.h>

#include "gpu_private.h"

/* An SM, outside sections. */
int gpu_policy_fault(struct gpu_sm *sm, const struct gpu_fault *fault)
{
	const struct gpu_policy *policy = &sm->gpu->policy;

	if (!policy->size)
		return 0;
	return policy->fault(policy->arg, sm->gpu, fault->addr, fault->access, fault->gone);
}

/* The handler, no lock held. */
void gpu_policy_ask(struct gpu_window *window)
{
	const struct gpu_policy *policy = &window->gpu->policy;
	uintptr_t at = window->start, end;

	if (!policy->size)
		return; /* all zero, and not looked at but for being equal */
	window->sequence = __atomic_load_n(policy->sequence, __ATOMIC_ACQUIRE);
	for (; at < window->end; at = end) {
		unsigned may;

		end = window->end;
		may = policy->may(policy->arg, window->gpu, at, &end);
		memset(&window->may[(at - window->start) / GPU_PAGE], (int)may,
		       (end - at) / GPU_PAGE);
	}
}

/*
 * Update lock held. What the policy leaves of an answer; 0 in *entry: nothing, it will
 * fault again if it is wanted. Return: 0; -EACCES, -EPERM what was asked for is not
 * allowed.
 */
int gpu_policy_judge(const struct gpu_window *window, size_t page, uint64_t *entry)
{
	const struct gpu *gpu = window->gpu;
	uint64_t want = window->want[page];
	unsigned may = window->may[page];

	if (!gpu->policy.size)
		return 0;
	if (!(may & GPU_MAY_READ)) {
		*entry = 0;
		return want ? -EACCES : 0;
	}
	if (want & HMM_PFN_REQ_WRITE && !(may & GPU_MAY_WRITE))
		return -EPERM;
	if (!(may & GPU_MAY_WRITE) || (may & GPU_MAY_DEMAND && !(want & HMM_PFN_REQ_WRITE)))
		*entry &= ~HMM_PFN_WRITE;
	if (hmm_pfn_is_device(*entry) && !(may & GPU_MAY_PEER) &&
	    hmm_pfn_devmem(*entry) != gpu->vram.id)
		*entry = 0;
	return 0;
}

/*
 * The engine, before the frames are stopped: so an SM that misses one finds the policy told. Pages
 * of one block that follow each other are told at once.
 */
void gpu_policy_home(const struct gpu_memory *memory, const struct hmm_devmem_copy *copies,
		     unsigned n)
{
	const struct gpu_policy *policy = &memory->gpu->policy;
	unsigned i = 0;

	while (policy->size && policy->home && i < n) {
		const uintptr_t block = copies[i].addr & -GPU_HUGE;
		uintptr_t start = copies[i].addr, end = start;

		for (; i < n && (copies[i].addr & -GPU_HUGE) == block; i++) {
			start = copies[i].addr < start ? copies[i].addr : start;
			end = copies[i].addr > end ? copies[i].addr : end;
		}
		policy->home(policy->arg, memory->gpu, start, end + GPU_PAGE,
			     atomic_load(&memory->making_room));
	}
}
