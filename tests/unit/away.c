/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away - the program and the model of away.h.
 */
#include "away.h"
#include "core/pager.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

struct away away;

static bool pending(void)
{
	return fake.changes || fake.waiting;
}

static bool allowed(unsigned i, uint64_t value)
{
	return value == away.page[i].value || (away.page[i].old_too && value == away.page[i].old);
}

/* What a CPU would see of one page. */
static void check_sight(unsigned i)
{
	uint64_t value = 0;
	enum fake_sight sight = fake_sight(i, &value);

	if (sight == FAKE_WAITS)
		return;
	if (sight == FAKE_SIGBUS && (away.page[i].is == AWAY_LOST || away.page[i].lost_too))
		return;
	if (sight == FAKE_SIGSEGV &&
	    (away.page[i].is == AWAY_UNMAPPED || away.page[i].is == AWAY_GUARD))
		return;
	if (sight == FAKE_SEES && away.page[i].is == AWAY_READS && allowed(i, value))
		return;
	if (sight == FAKE_SEES)
		fake_fail("%s: page %u reads %lu, not %lu", away.doing, i, (unsigned long)value,
			  (unsigned long)away.page[i].value);
	fake_fail("%s: a CPU gets %s at page %u", away.doing,
		  sight == FAKE_SIGBUS ? "SIGBUS" : "SIGSEGV", i);
}

/* Has everything that was read been told? */
static bool told(void)
{
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (away.hmm->gate[i].queue.done != away.hmm->gate[i].queue.pushed)
			return false;
	return !fake.changes;
}

/* L4: what the device has, while nothing is pending that would take it away. */
static void check_entry(unsigned i)
{
	const struct vram_entry *e = &away.vram.entry[i];
	uint64_t book = books_get(away.hmm, fake_addr(i));

	if (!e->valid || away.vram.options.type == HMM_DEVMEM_COHERENT)
		return;
	if (!e->device && book)
		fake_fail("%s: page %u has left, and the device uses its address", away.doing, i);
	if (e->device && !book)
		fake_fail("%s: page %u is at home, and the device uses its frame", away.doing, i);
	if (e->device && book_state(book) == BOOK_AWAY && book_frame(book) != e->frame)
		fake_fail("%s: page %u is in frame %u, and the device uses %u", away.doing, i,
			  (unsigned)book_frame(book), (unsigned)e->frame);
}

static void watch(void *arg)
{
	static bool inside;

	if (inside)
		return;
	inside = true;
	fake_lock();
	for (unsigned i = 0; i < SPAN; i++) {
		if (away.page[i].old_too && !pending())
			away.page[i].old_too = false;
		check_sight(i);
		if (told())
			check_entry(i);
	}
	fake_unlock();
	inside = false;
}

static void model_set(unsigned page, enum away_is is, uint64_t value, bool old_too)
{
	away.page[page].is = is;
	away.page[page].old = away.page[page].value;
	away.page[page].old_too = old_too;
	away.page[page].value = value;
}

void away_again(void)
{
	away.cpus = away.children = 0;
	away.all_lost = false;
	memset(away.page, 0, sizeof(away.page));
	fake_map(A, LEN, FAKE_ANON, RW);
	fake_map(B, B_LEN, FAKE_ANON, RW);
	for (unsigned i = 0; i < SPAN; i++) {
		if (!fake.page[i].mapped)
			continue;
		fake_write_page(i, 1000 + i);
		model_set(i, AWAY_READS, 1000 + i, false);
	}
	fake.watch = watch;
}

void away_begin(struct hmm *hmm, const struct hmm_devmem_options *options)
{
	memset(&away, 0, sizeof(away));
	away.hmm = hmm;
	away.doing = "begin";
	vram_open(&away.vram, hmm, options);
	away_again();
}

void away_settle(void)
{
	fake.hold_queue = fake.hold_resume = fake.hold_zap = away.vram.defer = false;
	fake_queue_all();
	for (unsigned i = 0; i < 200; i++) {
		fake_settle();
		fake_resume_all();
		vram_engine(&away.vram);
		fake.clock += 100000;
		if (i > 4 && !pending() && !away.vram.jobs)
			break;
	}
	if (pending())
		fake_fail("%s: %s", away.doing,
			  fake.waiting ? "a CPU waits for ever" : "a message is never read");
}

static void check_cpus(void)
{
	for (unsigned i = 0; i < away.cpus; i++) {
		const struct fake_cpu *cpu = &away.cpu[i];

		if (!cpu->write && !cpu->signal && cpu->value != away.cpu_wants[i] &&
		    cpu->value != away.cpu_wants_too[i])
			fake_fail("%s: a CPU has read %lu, not %lu", away.doing,
				  (unsigned long)cpu->value, (unsigned long)away.cpu_wants[i]);
	}
}

static void check_children(void)
{
	for (unsigned c = 0; c < away.children; c++) {
		const struct fake_child *child = fake.child[away.child[c].number];

		if (child->contexts)
			fake_fail("%s: the context of a child is not closed", away.doing);
		for (unsigned i = 0; i < SPAN; i++)
			if (child->page[i].mapped &&
			    child->page[i].value != away.child[c].value[i])
				fake_fail("%s: page %u of a child reads %lu, not %lu", away.doing,
					  i, (unsigned long)child->page[i].value,
					  (unsigned long)away.child[c].value[i]);
	}
}

void away_check(void)
{
	for (unsigned i = 0; i < SPAN; i++) {
		struct fake_cpu cpu;

		watch(NULL);
		if (away.page[i].is == AWAY_UNMAPPED)
			continue;
		fake_cpu_read(&cpu, i);
		while (cpu.waiting)
			fake_go_on();
		watch(NULL);
		if (away.page[i].is == AWAY_GUARD ? cpu.signal != SIGSEGV : cpu.signal == SIGSEGV)
			fake_fail("%s: page %u: signal %d", away.doing, i, cpu.signal);
		if (cpu.signal == SIGBUS && away.page[i].is != AWAY_LOST && !away.page[i].lost_too)
			fake_fail("%s: page %u is lost", away.doing, i);
		if (!cpu.signal &&
		    (away.page[i].is != AWAY_READS || cpu.value != away.page[i].value))
			fake_fail("%s: page %u reads %lu, not %lu", away.doing, i,
				  (unsigned long)cpu.value, (unsigned long)away.page[i].value);
	}
}

/* Of the program's pages; one that was never the program's may be used again. */
static void nothing_is_left(void)
{
	for (unsigned r = 0; r < FAKE_REGIONS; r++)
		for (uintptr_t at = fake.region[r].start; at < fake.region[r].end; at += PAGE) {
			const struct fake_page *p =
				&fake.region[r].page[(at - fake.region[r].start) / PAGE];

			if (p->flags && p->value && p->ctx != FAKE_NO_CTX)
				fake_fail("%s: %lu is left in a buffer", away.doing,
					  (unsigned long)p->value);
		}
	if (vram_used(&away.vram))
		fake_fail("%s: %u frames are left", away.doing, vram_used(&away.vram));
}

void away_end(bool close)
{
	fake_forget();
	away_settle();
	check_cpus();
	check_children();
	/* Away once more, so that the device sees what is there too. */
	for (unsigned i = 0; i < SPAN; i++)
		if (away.page[i].is == AWAY_READS && !fake.page[i].poisoned)
			away_device_reads(i);
	away_check();
	hmm_migrate_to_host(away.hmm, fake_addr(0), SPAN * PAGE);
	away_check();
	for (unsigned i = 0; i < SPAN; i++)
		away.page[i].is = AWAY_UNMAPPED;
	fake.watch = NULL;
	for (unsigned i = 0; i < SPAN; i++)
		if (fake.page[i].mapped)
			fake_unmap(i, 1);
	away_settle();
	if (close)
		vram_close(&away.vram);
	else
		nothing_is_left();
}

void away_move(unsigned page, unsigned n)
{
	int64_t moved = hmm_migrate_to_device(away.vram.devmem, fake_addr(page), n * PAGE);

	if (moved != n)
		fake_fail("%s: %d of %u pages moved: %s", away.doing, (int)moved, n,
			  moved < 0 ? hmm_strerror((int)moved) : "fewer");
}

unsigned away_count(unsigned page, unsigned n)
{
	uint64_t pfns[FAKE_PAGES] = { 0 };
	struct hmm_range range = { .size = sizeof(range), .hmm = away.hmm,
				   .start = fake_addr(page), .end = fake_addr(page + n),
				   .pfns = pfns, .owner = away.vram.options.owner,
				   .notifier = away.vram.notifier };
	unsigned count = 0;
	int err = hmm_notifier_read_begin(&range);

	if (!err)
		err = hmm_range_snapshot(&range);
	if (err)
		fake_fail("%s: snapshot: %s", away.doing, hmm_strerror(err));
	for (unsigned i = 0; i < n; i++)
		count += hmm_pfn_is_device(pfns[i]);
	return count;
}

/* ---- what the program does ---- */

void away_unmap(unsigned page, unsigned n)
{
	for (unsigned i = page; i < page + n; i++)
		model_set(i, AWAY_UNMAPPED, 0, false);
	fake_unmap(page, n);
}

void away_map(unsigned page, unsigned n)
{
	for (unsigned i = page; i < page + n; i++)
		model_set(i, AWAY_READS, 0, false);
	fake_map(page, n, FAKE_ANON, RW);
}

void away_dontneed(unsigned page, unsigned n)
{
	for (unsigned i = page; i < page + n; i++)
		if (!away.page[i].old_too) /* else it reads still what it read before that */
			model_set(i, AWAY_READS, 0, true);
	fake_dontneed(page, n);
}

void away_remap(unsigned from, unsigned to, unsigned n, bool dontunmap)
{
	for (unsigned i = 0; i < n; i++) {
		bool old_too = away.page[from + i].old_too;
		uint64_t old = away.page[from + i].old;

		model_set(to + i, AWAY_READS, away.page[from + i].value, old_too);
		away.page[to + i].old = old;
		model_set(from + i, dontunmap ? AWAY_READS : AWAY_UNMAPPED, 0, false);
	}
	fake_remap(from, to, n, dontunmap);
}

void away_guard(unsigned page)
{
	model_set(page, AWAY_GUARD, 0, false);
	fake_guard(page, 1, true);
}

void away_fork(void)
{
	unsigned c = away.children++;

	for (unsigned i = 0; i < SPAN; i++)
		away.child[c].value[i] = away.page[i].value;
	away.child[c].number = fake_fork();
}

static struct fake_cpu *new_cpu(unsigned page)
{
	if (away.cpus == CPUS)
		fake_fail("more than %u CPUs", CPUS);
	away.cpu_wants[away.cpus] = away.page[page].value;
	away.cpu_wants_too[away.cpus] =
		away.page[page].old_too ? away.page[page].old : away.page[page].value;
	return &away.cpu[away.cpus++];
}

void away_write(unsigned page, uint64_t value)
{
	struct fake_cpu *cpu = new_cpu(page);

	fake_lock();
	fake_cpu_write(cpu, page, value);
	if (away.page[page].is == AWAY_READS && !cpu->signal)
		model_set(page, AWAY_READS, value, true);
	fake_unlock();
}

void away_read(unsigned page)
{
	fake_cpu_read(new_cpu(page), page);
}

/* -EAGAIN: nothing that could be used without asking the reader. */
static int get(unsigned page, bool write)
{
	const struct vram_entry *e = &away.vram.entry[page];
	uint64_t value;
	int err;

	for (unsigned i = 0; i < CONTEXTS; i++)
		if (away.hmm->gate[i].seq & 1)
			return -EAGAIN; /* a fence waits for the reader */
	if (!fake.reader_runs && !away.only_looks)
		return vram_program(&away.vram, page, 1, write);
	err = vram_look(&away.vram, page, 1);
	if (err || !e->valid || (write && !e->write))
		return err ? err : -EAGAIN;
	if (!e->device && !pending() && fake_sight(page, &value) == FAKE_WAITS)
		fake_fail("%s: the device is given page %u, which has left", away.doing, page);
	return e->device ? 0 : -EAGAIN;
}

int away_device_reads(unsigned page)
{
	int err = get(page, false);
	uint64_t value;

	if (err)
		return err;
	value = vram_read(&away.vram, page);
	if (!allowed(page, value))
		fake_fail("%s: the device reads %lu at page %u, not %lu", away.doing,
			  (unsigned long)value, page, (unsigned long)away.page[page].value);
	return 0;
}

int away_device_writes(unsigned page, uint64_t value)
{
	int err = get(page, true);

	if (err)
		return err;
	model_set(page, AWAY_READS, value, true);
	vram_write(&away.vram, page, value);
	away.page[page].old_too = false;
	return 0;
}
