/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest - what the files of the gpu's selftest share. Not a part of the driver.
 */
#ifndef GPU_SELFTEST_H
#define GPU_SELFTEST_H

#include <stddef.h>
#include <stdint.h>

#include <uhmm/gpu.h>

#define PAGE 4096
#define HUGE ((size_t)2 << 20)

/* Private anonymous memory; NULL: none. */
char *test_map(void *where, size_t size, int flags);
/* Submit and wait. */
int test_run(struct gpu_queue *queue, gpu_kernel kernel, void *arg, uint64_t count,
	     struct gpu_error *error);

/* -EIO, and notes where it was said, for test_where(). */
#define WRONG test_wrong(__LINE__)
int test_wrong(int line);
const char *test_where(void);

/* ---- video memory ---- */

#define WORDS (PAGE / 8)
#define VRAM ((uint64_t)4 << 20)

struct vram_test {
	struct gpu *gpu;
	struct gpu_queue *queue;
};

int test_open(struct vram_test *test, const struct gpu_options *options);
struct gpu_stats test_stats(struct gpu *gpu);
/* Is the page in the GPU's own memory, by its translation? */
bool test_there(struct gpu *gpu, const void *addr);
/* Words that know where they are. */
uint64_t test_value(size_t page, size_t word);
void test_fill(uint64_t *words, size_t pages);
/* Every word is what test_fill() and `added` to each made it; else -EIO. */
int test_check(const uint64_t *words, size_t pages, uint64_t added);
/* Kernels: every word of a page one more; one word, atomically, one more. */
void test_add_page(struct gpu_sm *sm, void *arg, uint64_t page);
void test_add_atomic(struct gpu_sm *sm, void *arg, uint64_t index);

/* The steps of selftest_vram.c and selftest_fail.c: 0, or negative errno and @why. */
int test_vram(char *why, size_t size);
int test_fail(char *why, size_t size);
/* selftest_away.c */
int test_away(void);

#endif
