/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * vram - the least device that has memory of its own: frames, a copy engine, a page table.
 *
 * Two kinds, as hmm.h has them. *Host frames*: the program's page itself is the frame, and
 * nothing is copied. *Copies*: the frames are memory that only the device touches, and
 * bytes come and go by memcpy, in the engine's thread, or where few pages are asked for and
 * it is allowed, at once in the thread that asks.
 *
 * It is what `uhmm litmus` migrates to, and what `uhmm bench` measures the library with.
 */
#ifndef UHMM_TOOLS_VRAM_H
#define UHMM_TOOLS_VRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uhmm/hmm.h>

#define VRAM_PAGE 4096ul

struct vram;

struct vram_options {
	bool host_frames;
	uint64_t frames;
	unsigned at_once; /* copy up to so many pages without the engine; 0: none */
};

int vram_open(struct hmm *hmm, const struct vram_options *options, struct vram **vram);
/* Everything comes home; NULL is allowed. */
void vram_close(struct vram *vram);

struct hmm_devmem *vram_devmem(struct vram *vram);
/* Pages that are here now or -errno; as hmm_migrate_to_device(). */
int64_t vram_take(struct vram *vram, const void *start, size_t length);
int64_t vram_give(struct vram *vram, const void *start, size_t length);

/* The device reads or writes 8 bytes, wherever they are; one thread at a time. */
int vram_read(struct vram *vram, const void *addr, uint64_t *value);
int vram_write(struct vram *vram, void *addr, uint64_t value);
/* An atomic of the device's: the page is its own for that long. Host frames only. */
int vram_add(struct vram *vram, void *addr, uint64_t operand);

#endif
