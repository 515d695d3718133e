/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* ops_cpu - threads that read and write. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"
#include "uapi.h"

static void op_write(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "write");
	run_writable(w, a, &run);
	for (unsigned k = 0; k < run.n; k++) {
		unsigned sections = one_in(w, 2) ? 0xff : pick(w, 256);
		struct page *p = &a->page[run.i + k];

		page_write(a, run.i + k, sections, (void *)p->addr);
	}
}

static void op_read(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "read");
	run_check(a, &run, "the CPU");
}

/* One word of each page, from the last to the first: other neighbours come home. */
static void op_touch(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "touch");
	for (unsigned k = run.n; k-- > 0;) {
		struct page *p = &a->page[run.i + k];
		unsigned i = pick(w, WORDS), s = i / SECTION_WORDS;
		uint64_t word = ((volatile uint64_t *)p->addr)[i];

		if (word != stamp_word(p->stamp[s], i) && !(p->maybe >> s & 1 && !word))
			fail_page(a, run.i + k, (void *)p->addr, "the CPU, one word");
	}
}

/* All at once, by the kernel. */
static void op_populate(struct worker *w, struct area *a)
{
	struct run run;
	int how = one_in(w, 2) ? MADV_POPULATE_READ : MADV_POPULATE_WRITE;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "populate");
	if (how == MADV_POPULATE_WRITE)
		run_writable(w, a, &run);
	if (madvise((void *)run.addr, run.n * PAGE, how) && errno != EINVAL)
		fail("MADV_POPULATE of area %u page %u: %m", a->id, run.i);
	run_check(a, &run, "the CPU after MADV_POPULATE");
}

static void op_mlock(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run) || run.n > 512)
		return;
	area_note(w, a, &run, "mlock");
	if (mlock((void *)run.addr, run.n * PAGE)) {
		if (errno == ENOMEM || errno == EPERM || errno == EAGAIN)
			return;
		fail("mlock of area %u page %u: %m", a->id, run.i);
	}
	run_check(a, &run, "the CPU after mlock");
	if (munlock((void *)run.addr, run.n * PAGE))
		fail("munlock of area %u page %u: %m", a->id, run.i);
}

static long futex(void *word, int what, uint32_t value, const struct timespec *time,
		  uint32_t value3)
{
	return syscall(SYS_futex, word, what | FUTEX_PRIVATE_FLAG, value, time, word,
		       value3);
}

/* The kernel reads the word, and writes it. */
static void op_futex(struct worker *w, struct area *a)
{
	struct timespec little = { .tv_nsec = 20000 };
	unsigned word = pick(w, WORDS), s = word / SECTION_WORDS;
	struct page *p;
	struct run run;
	uint32_t value;
	uint32_t *at;

	if (!area_run(w, a, &run))
		return;
	run.n = 1;
	p = &a->page[run.i];
	area_note(w, a, &run, "futex");
	run_writable(w, a, &run);
	if (p->maybe) {
		run_check(a, &run, "the CPU");
		return;
	}
	at = (uint32_t *)(p->addr + word * 8);
	value = (uint32_t)stamp_word(p->stamp[s], word);
	/* On a machine of other byte order the low half is the other one. */
	if (futex(at, FUTEX_WAIT, value + 1, &little, 0) != -1 || errno != EAGAIN)
		fail_page(a, run.i, (void *)p->addr, "FUTEX_WAIT, another value");
	if (futex(at, FUTEX_WAIT, value, &little, 0) != -1 || errno != ETIMEDOUT)
		if (errno != EINTR)
			fail_page(a, run.i, (void *)p->addr, "FUTEX_WAIT, its value");
	/* Adds 0, and says whether it was 0. EFAULT: the page has left again since it was touched,
	 * and here the kernel does not wait for it (docs/limits.md). */
	while (futex(at, FUTEX_WAKE_OP, 1, (void *)1,
		     FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0)) < 0) {
		if (errno != EFAULT)
			fail("FUTEX_WAKE_OP of area %u page %u: %m", a->id, run.i);
		(void)*(volatile uint32_t *)at;
	}
	run_check(a, &run, "the CPU after a futex");
}

const struct op ops_cpu[] = {
	{ "write", op_write, 300, false }, { "read", op_read, 200, false },
	{ "touch", op_touch, 100, false }, { "populate", op_populate, 20, false },
	{ "mlock", op_mlock, 6, false },   { "futex", op_futex, 20, false },
	{ NULL, NULL, 0, false },
};
