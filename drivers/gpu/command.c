/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * command - what other threads ask of the fault handler.
 *
 * The handler alone programs the page table. Whoever else wants something mapped, forgotten
 * or looked at under the update lock puts a command into a list and sleeps: its stack may be
 * away, and a page that is away may not be touched under that lock (gpu_private.h). So
 * the handler works on a copy.
 */
#include <string.h>
#include <unistd.h>

#include "gpu_private.h"

static bool is_page_error(int err)
{
	return err == -EFAULT || err == -EPERM || err == -EOPNOTSUPP;
}

static int map_piece(struct gpu_window *window, struct gpu_command *command, uintptr_t start,
		     uintptr_t end)
{
	size_t i;
	int err;

	window->start = start;
	window->end = end;
	for (i = 0; i < (end - start) / GPU_PAGE; i++)
		window->want[i] = command->request;
	err = gpu_window_map(window, 0);
	if (!err)
		command->mapped += (int64_t)window->mapped;
	return err;
}

/* What is before a bad page is mapped by itself, then it goes on behind. */
static int map_skipping(struct gpu_window *window, struct gpu_command *command,
			uintptr_t start, uintptr_t end)
{
	int err = 0;

	while (start < end) {
		uintptr_t bad;

		err = map_piece(window, command, start, end);
		if (!is_page_error(err))
			return err;
		bad = window->fault_addr & -GPU_PAGE;
		if (bad < start || bad >= end)
			return err;
		if (bad > start) {
			err = map_piece(window, command, start, bad);
			if (err && !is_page_error(err))
				return err;
		}
		start = bad + GPU_PAGE;
	}
	return 0;
}

/* The piece, without what is unmanaged. */
static int map(struct gpu *gpu, struct gpu_command *command)
{
	struct gpu_window window = {.gpu = gpu};
	uintptr_t start = command->start;
	int err = 0;

	while (start < command->end && !err) {
		uintptr_t from = start, to = command->end;

		if (!gpu_mmu_managed(gpu, start, &from, &to)) {
			start += GPU_PAGE;
			continue;
		}
		err = map_skipping(&window, command, start, to);
		start = to;
	}
	return err;
}

/* The frame is held over the copy: its page may go home meanwhile, it goes to nobody else. */
static int peek(struct gpu *gpu, struct gpu_command *command)
{
	char page[GPU_PAGE];
	struct gpu_memory *memory = NULL;
	uint64_t entry;

	pthread_mutex_lock(&gpu->mmu.lock);
	entry = gpu_mmu_lookup(gpu, command->start);
	if (hmm_pfn_is_device(entry))
		memory = gpu_memory_of(gpu, entry);
	if (memory && !memory->host)
		hmm_devmem_frame_get(memory->devmem, hmm_pfn_frame(entry));
	else if (memory) /* the page itself is there, and leaves with its bytes */
		memcpy(page, gpu_frame_at(gpu, entry), GPU_PAGE);
	pthread_mutex_unlock(&gpu->mmu.lock);
	if (!memory)
		return -ENOENT;
	if (!memory->host) {
		memcpy(page, gpu_frame_at(gpu, entry), GPU_PAGE);
		hmm_devmem_frame_put(memory->devmem, hmm_pfn_frame(entry));
	}
	memcpy(command->page, page, GPU_PAGE);
	return 0;
}

/* Nothing of its memory is mapped again, and nothing that is mapped is used any more. */
static int die(struct gpu *gpu)
{
	atomic_store(&gpu->vram.lost, true);
	atomic_store(&gpu->exclusive.lost, true);
	gpu_mmu_forget(gpu, 0, UINTPTR_MAX);
	return 0;
}

static int run(struct gpu *gpu, struct gpu_command *command)
{
	switch (command->kind) {
	case GPU_COMMAND_MAP:
		return map(gpu, command);
	case GPU_COMMAND_HOLE:
		gpu_mmu_set_hole(gpu, command->start, command->end);
		return 0;
	case GPU_COMMAND_FORGET:
		gpu_mmu_forget(gpu, command->start, command->end);
		return 0;
	case GPU_COMMAND_PEEK:
		return peek(gpu, command);
	default:
		return die(gpu);
	}
}

/* The handler, no lock held. From `answered` on it is the asker's again. */
void gpu_command_run(struct gpu *gpu, struct gpu_command *command)
{
	struct gpu_command copy = *command;

	copy.err = run(gpu, &copy);
	pthread_mutex_lock(&gpu->faults.lock);
	*command = copy;
	command->answered = true;
	pthread_cond_broadcast(&gpu->faults.answered);
	pthread_mutex_unlock(&gpu->faults.lock);
}

/* Return: the command's err; -ENODEV in a forked child, which has no handler. */
int gpu_command(struct gpu *gpu, struct gpu_command *command)
{
	struct gpu_faults *faults = &gpu->faults;

	if (gpu->pid != getpid())
		return -ENODEV;
	command->answered = false;
	command->next = NULL;
	pthread_mutex_lock(&faults->lock);
	*faults->last = command;
	faults->last = &command->next;
	pthread_cond_signal(&faults->put);
	while (!command->answered)
		pthread_cond_wait(&faults->answered, &faults->lock);
	pthread_mutex_unlock(&faults->lock);
	return command->err;
}

int gpu_set_unmanaged(struct gpu *gpu, uintptr_t start, size_t length)
{
	struct gpu_command command = {
		.kind = GPU_COMMAND_HOLE, .start = start, .end = start + length};

	if ((start | length) % GPU_PAGE)
		return -EINVAL;
	if (start + length < start)
		return -EOVERFLOW;
	return gpu_command(gpu, &command);
}

int gpu_forget(struct gpu *gpu, const void *start, size_t length)
{
	struct gpu_command command = {.kind = GPU_COMMAND_FORGET,
				      .start = (uintptr_t)start & -GPU_PAGE,
				      .end = (uintptr_t)start + length};

	if (command.end < (uintptr_t)start)
		return -EOVERFLOW;
	return length ? gpu_command(gpu, &command) : 0;
}

int gpu_peek(struct gpu *gpu, const void *addr, void *page)
{
	struct gpu_command command = {
		.kind = GPU_COMMAND_PEEK, .start = (uintptr_t)addr & -GPU_PAGE, .page = page};

	return gpu_command(gpu, &command);
}

void gpu_die(struct gpu *gpu)
{
	struct gpu_command command = {.kind = GPU_COMMAND_DIE};

	gpu_sched_kill(gpu, "the device died");
	if (gpu_command(gpu, &command))
		return;
	gpu_hive_forget(gpu);
	if (gpu->vram.devmem)
		hmm_devmem_lost(gpu->vram.devmem);
	if (gpu->exclusive.devmem)
		hmm_devmem_lost(gpu->exclusive.devmem);
}
