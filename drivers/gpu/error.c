/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * error - why a job ended, in words a person can act on:
 *
 *	write of 8 bytes at 0x7f03b2c41010: read-only mapping, in a read-only mapping
 *	of libc.so.6 (file) (job 3, sm 1)
 */
#include <stdio.h>
#include <string.h>

#include "gpu_private.h"

struct place {
	uintptr_t addr;
	char text[64];
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The first run at or above the address is the mapping that it lies in or below. */
static int describe_run(const struct hmm_run *run, void *arg)
{
	struct place *place = arg;
	const char *rights = run->flags & HMM_RUN_WRITE	 ? "writable"
			     : run->flags & HMM_RUN_READ ? "read-only"
							 : "PROT_NONE";
	char below[32] = "in";

	if (run->start > place->addr)
		snprintf(below, sizeof(below), "%#lx below",
			 (unsigned long)(run->start - place->addr));
	snprintf(place->text, sizeof(place->text), ", %s a %s mapping of %.20s (%s)", below,
		 rights, *run->name ? base_name(run->name) : "memory",
		 hmm_vma_kind_text(run->kind));
	return 1;
}

static void describe(struct gpu_sm *sm, struct place *place)
{
	/* Not being able to say more is no second error. */
	if (place->addr < GPU_VA_END)
		hmm_snapshot_runs(sm->hmm, place->addr & -GPU_PAGE, UINTPTR_MAX, 0,
				  describe_run, place);
}

/* Outside sections. Frees the SM; the job is settled when the last SM has left it. */
static void __attribute__((noreturn)) leave(struct gpu_sm *sm, struct gpu_error *error)
{
	gpu_sched_fail(sm->job, error);
	hmm_log(HMM_LOG_INFO, "gpu: job cancelled: %s", error->text);
	siglongjmp(sm->cancel, 1);
}

void gpu_cancel(struct gpu_sm *sm, int err, uintptr_t addr, size_t length,
		enum gpu_access access, enum hmm_reason reason)
{
	static const char *const names[] = {"read", "write", "atomic", "prefetch"};
	struct place place = {.addr = addr};
	struct gpu_error error = {
		.err = err,
		.addr = addr,
		.access = access,
		.reason = reason,
	};

	/* A reason is short and about the mapping; a sentence about an errno is neither. */
	if (reason)
		describe(sm, &place);
	snprintf(error.text, sizeof(error.text),
		 "%s of %zu bytes at %#lx: %.*s%s (job %llu, sm %u)", names[access], length,
		 (unsigned long)addr, reason ? 36 : 90,
		 reason ? hmm_reason_text(reason) : hmm_strerror(err), place.text,
		 (unsigned long long)sm->job->id, sm->index);
	leave(sm, &error);
}

void gpu_fail(struct gpu_sm *sm, int err)
{
	struct gpu_error error = {.err = err};

	snprintf(error.text, sizeof(error.text),
		 "given up by the kernel: %.90s (job %llu, sm %u)", hmm_strerror(err),
		 (unsigned long long)sm->job->id, sm->index);
	leave(sm, &error);
}
