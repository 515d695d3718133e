/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fake_cpu - threads of the program at pages, and who waits for one.
 *
 * As in the kernel: a hole of a VMA that is registered MISSING makes whoever touches it
 * wait, also a system call, and also a thread of the library. Each has a message of its own,
 * which vanishes if it is woken before that was read. Nothing wakes it but an operation on
 * its context that covers the address, unregistering, or a signal: no munmap and no mremap.
 * Woken it looks anew at what is there.
 */
#include "fake_os.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Rounds in which nothing happens, before a wait is called a deadlock. */
#define IDLE 200u

static int signal_at(const struct fake_page *p, bool write)
{
	const struct fake_object *o = &fake_object[p->object];

	if (!p->mapped || p->guard || !(p->prot & PROT_READ) || (write && !(p->prot & PROT_WRITE)))
		return SIGSEGV;
	return p->poisoned || (o->inode && p->offset >= o->file_pages) ? SIGBUS : 0;
}

static bool must_wait(const struct fake_page *p)
{
	return p->missing && !p->flags;
}

static void access_page(struct fake_cpu *cpu, struct fake_page *p)
{
	if (cpu->write || !(p->flags & OS_PAGE_PRESENT))
		fake_make_present(p, cpu->write);
	if (cpu->write)
		p->value = cpu->value + (cpu->add ? p->value : 0);
	else
		cpu->value = p->value;
}

static void park(struct fake_cpu *cpu, unsigned ctx)
{
	struct fake_cpu **last = &fake.waiting;

	while (*last)
		last = &(*last)->next;
	*last = cpu;
	cpu->next = NULL;
	cpu->ctx = ctx;
	cpu->told = false;
	cpu->waiting = true;
	cpu->faults++;
}

static void unpark(struct fake_cpu *cpu)
{
	struct fake_cpu **at = &fake.waiting;

	while (*at && *at != cpu)
		at = &(*at)->next;
	if (*at)
		*at = cpu->next;
	cpu->waiting = false;
}

static void try_locked(struct fake_cpu *cpu)
{
	struct fake_page *p = fake_page(cpu->addr);

	cpu->signal = signal_at(p, cpu->write);
	if (cpu->signal)
		return;
	if (must_wait(p))
		park(cpu, (unsigned)p->ctx);
	else
		access_page(cpu, p);
}

static void begin_as(struct fake_cpu *cpu, const struct fake_cpu *what)
{
	fake_lock();
	*cpu = *what;
	try_locked(cpu);
	fake_unlock();
}

static void begin(struct fake_cpu *cpu, uintptr_t addr, bool write, uint64_t value)
{
	begin_as(cpu, &(struct fake_cpu){ .addr = addr, .write = write, .value = value });
}

void fake_cpu_read(struct fake_cpu *cpu, unsigned page)
{
	begin(cpu, fake_addr(page), false, 0);
}

void fake_cpu_write(struct fake_cpu *cpu, unsigned page, uint64_t value)
{
	begin(cpu, fake_addr(page), true, value);
}

void fake_cpu_kill(struct fake_cpu *cpu)
{
	fake_lock();
	unpark(cpu);
	cpu->signal = SIGKILL;
	fake_unlock();
}

/* Those that wait again stand at the end, and are not woken twice. */
void fake_wake(unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct fake_cpu *woken = NULL, **last = &woken, **at = &fake.waiting;

	while (*at) {
		struct fake_cpu *cpu = *at;

		if (cpu->ctx != ctx || cpu->addr < start || cpu->addr >= end) {
			at = &cpu->next;
			continue;
		}
		*at = cpu->next;
		*last = cpu;
		last = &cpu->next;
		*last = NULL;
	}
	while (woken) {
		struct fake_cpu *cpu = woken;

		woken = cpu->next;
		cpu->waiting = false;
		try_locked(cpu);
	}
}

int fake_read_faults(unsigned ctx, struct os_msg *msgs, unsigned max)
{
	int n = 0;

	for (struct fake_cpu *cpu = fake.waiting; cpu && n < (int)max; cpu = cpu->next) {
		if (cpu->ctx != ctx || cpu->told)
			continue;
		cpu->told = true;
		msgs[n++] = (struct os_msg){ .kind = OS_MSG_FAULT, .start = cpu->addr,
					     .end = cpu->addr + PAGE, .write = cpu->write };
	}
	return n;
}

/* ---- waiting, and who goes on meanwhile ---- */

bool fake_go_on(void)
{
	bool did = fake_readable();

	fake_reader();
	did |= fake_worker();
	if (!did && fake.engine)
		did = fake.engine(fake.engine_arg);
	if (did) {
		fake.idle = 0;
		return true;
	}
	fake.clock += 1000000;
	if (++fake.idle > IDLE)
		fake_fail("deadlock: %s", in_callback() ? "a callback waits"
							: "nothing ends this wait");
	return false;
}

static bool is_waiting(const struct fake_cpu *cpu)
{
	bool is;

	fake_lock();
	is = cpu->waiting;
	fake_unlock();
	return is;
}

static void wait_until_woken(struct fake_cpu *cpu)
{
	if (fake_reading)
		fake_fail("the reader waits for itself at %#lx", (unsigned long)cpu->addr);
	while (is_waiting(cpu)) {
		fake_point(FAKE_OP_WAIT, FAKE_BEFORE, -1);
		if (!fake.threads && fake.reader_runs)
			fake_fail("an action waits for the reader, in whose turn it is");
		if (fake.threads)
			usleep(50);
		else
			fake_go_on();
	}
}

static int touch(uintptr_t addr, bool write, uint64_t value, struct fake_cpu *cpu)
{
	begin(cpu, addr, write, value);
	wait_until_woken(cpu);
	return cpu->signal ? -EFAULT : 0;
}

uint64_t fake_read_page(unsigned page)
{
	struct fake_cpu cpu;

	if (touch(fake_addr(page), false, 0, &cpu))
		fake_fail("page %u cannot be read: %s", page, strsignal(cpu.signal));
	return cpu.value;
}

void fake_write_page(unsigned page, uint64_t value)
{
	struct fake_cpu cpu;

	if (touch(fake_addr(page), true, value, &cpu))
		fake_fail("page %u cannot be written: %s", page, strsignal(cpu.signal));
}

void fake_add_to_page(unsigned page, uint64_t value)
{
	struct fake_cpu cpu;

	begin_as(&cpu, &(struct fake_cpu){ .addr = fake_addr(page), .write = true, .add = true,
					   .value = value });
	wait_until_woken(&cpu);
	if (cpu.signal)
		fake_fail("page %u cannot be written: %s", page, strsignal(cpu.signal));
}

int fake_touch_or_wait(uintptr_t addr, bool write)
{
	struct fake_page *p;
	struct fake_cpu cpu;
	int err;

	fake_lock();
	p = fake_page(addr);
	if (!p->mapped || signal_at(p, write)) {
		err = p->mapped ? -EFAULT : -ENOMEM;
		fake_unlock();
		return err;
	}
	if (!must_wait(p)) {
		/* What was swapped out is its own. */
		if (write || !(p->flags & OS_PAGE_PRESENT))
			fake_make_present(p, write || p->flags);
		fake_unlock();
		return 0;
	}
	fake_unlock();
	/* A store would change what it holds: it waits as a load, and looks again. */
	err = touch(addr, false, 0, &cpu);
	return err || !write ? err : fake_touch_or_wait(addr, write);
}

/* ---- looking, without touching ---- */

enum fake_sight fake_sight(unsigned page, uint64_t *value)
{
	const struct fake_page *p = &fake.page[page];
	int sig = signal_at(p, false);

	if (sig)
		return sig == SIGBUS ? FAKE_SIGBUS : FAKE_SIGSEGV;
	if (must_wait(p))
		return FAKE_WAITS;
	*value = p->value;
	return FAKE_SEES;
}

static struct fake_page *engine_page(uintptr_t addr)
{
	struct fake_page *p = fake_page(addr);

	if (addr < FAKE_REGION_BASE || !p->mapped)
		fake_fail("an engine copies at %#lx, which is not the library's",
			  (unsigned long)addr);
	if (must_wait(p))
		fake_fail("an engine waits for the pager at %#lx", (unsigned long)addr);
	return p;
}

uint64_t fake_load(uintptr_t addr)
{
	uint64_t value;

	fake_lock();
	value = engine_page(addr)->value;
	fake_unlock();
	return value;
}

void fake_store(uintptr_t addr, uint64_t value)
{
	struct fake_page *p;

	fake_lock();
	p = engine_page(addr);
	fake_make_present(p, true);
	p->value = value;
	fake_unlock();
}

static unsigned count_in(const struct fake_page *page, uintptr_t n, uint64_t value)
{
	unsigned sum = 0;

	for (uintptr_t i = 0; i < n; i++)
		sum += page[i].flags && page[i].value == value;
	return sum;
}

unsigned fake_count(uint64_t value)
{
	unsigned sum = count_in(fake.page, fake.pages, value);

	for (unsigned i = 0; i < FAKE_REGIONS; i++)
		if (fake.region[i].end)
			sum += count_in(fake.region[i].page,
					(fake.region[i].end - fake.region[i].start) / PAGE,
					value);
	return sum;
}
