/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * perf - rings in which the kernel records every mmap, mprotect and brk.
 *
 * Model: a dummy event for each CPU, whose ring is mapped, and one for each other thread that
 * exists and CPU, which writes into that CPU's ring. inherit=1 passes them on to threads made
 * later (and to CLONE_VM children, which share our memory; and to forked children,
 * whose records are noise until they exec). A record is in the ring before its call
 * returns.
 *
 * Laws:
 * - Opened by our own thread after reader_isolate: the descriptors lie in its private
 *   table, and PR_TASK_PERF_EVENTS_DISABLE of the program does not reach them.
 * - The kernel drops a record that finds no room, and says LOST only with the next that
 *   does. So the drain stores data_tail and then looks at data_head again: a record
 *   can have been dropped only if the head came within one record of the *old* tail.
 * - CPUs that come with hot plugging after the open have no ring.
 * - A thread that is being cloned by another at the moment when that one's event is
 *   opened inherits nothing. The list of threads is therefore read until it has been quiet
 *   for SETTLE_NS; a clone that takes longer than that is missed.
 *
 * Locks: perf_drain runs under one lock of the caller's; perf_pending takes none.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/live.h"
#include "util/arena.h"

#define DATA_PAGES 32u /* of a ring; a power of two */
#define DATA_SIZE (DATA_PAGES * OS_PAGE_SIZE)
#define RING_SIZE (DATA_SIZE + OS_PAGE_SIZE)
/* More than the largest record: a path of PATH_MAX and the fixed part. */
#define RECORD_MAX 8192u
#define CPUS_MAX 8192u	      /* of Linux on x86-64 */
#define EVENTS_MAX (1u << 20) /* default of fs.nr_open: more cannot be open */

/* Where it was chosen a thread was made and joined in 44 us. */
#define SETTLE_NS 2000000u
#define SETTLE_STEP_NS 200000u
/* While a program makes threads without pause there is no quiet: those inherit. */
#define SETTLE_MAX_NS 100000000u

struct ring {
	struct perf_event_mmap_page *page;
	unsigned cpu;
	int fd;
};

struct os_perf {
	pid_t opener; /* whose descriptor table the numbers below belong to */
	size_t size;
	unsigned max, nr_rings, nr_fds, nr_tids;
	struct ring *rings;
	int *fds;
	pid_t *tids; /* threads that have been given events */
};

int perf_event_new(pid_t tid, unsigned cpu, int ring)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_DUMMY,
		.mmap = 1,
		.mmap_data = 1,
		.mmap2 = 1, /* each record is a MMAP2, which has the protection */
		.inherit = 1,
		.remove_on_exec = 1,
		.exclude_kernel = 1,
	};
	unsigned long flags = PERF_FLAG_FD_CLOEXEC;
	long fd;

	if (os_without("perf"))
		return -EACCES;
	if (ring >= 0)
		flags |= PERF_FLAG_FD_OUTPUT | PERF_FLAG_FD_NO_GROUP;
	fd = syscall(SYS_perf_event_open, &attr, tid, cpu, ring, flags);
	return fd < 0 ? -errno : (int)fd;
}

static int event_add(struct os_perf *perf, pid_t tid, unsigned cpu, int ring)
{
	int fd;

	if (perf->nr_fds == perf->max)
		return -EMFILE;
	fd = perf_event_new(tid, cpu, ring);
	if (fd >= 0)
		perf->fds[perf->nr_fds++] = fd;
	return fd;
}

static int ring_add(struct os_perf *perf, pid_t tid, unsigned cpu)
{
	struct ring *ring = &perf->rings[perf->nr_rings];
	int fd = event_add(perf, tid, cpu, -1), err;
	void *page;

	if (fd < 0)
		return fd;
	page = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	err = arena_adopt((uintptr_t)page, (uintptr_t)page + RING_SIZE);
	if (err) {
		munmap(page, RING_SIZE);
		return err;
	}
	*ring = (struct ring){ .page = page, .cpu = cpu, .fd = fd };
	perf->nr_rings++;
	return 0;
}

/* "0-3,8": a ring for each. `present`, not `online`: a CPU that sleeps may wake. */
static int rings_add(struct os_perf *perf, pid_t host)
{
	int fd = open("/sys/devices/system/cpu/present", O_RDONLY | O_CLOEXEC), err = 0;
	char list[4096], *at = list;
	ssize_t got;

	if (fd < 0)
		return -errno;
	got = read(fd, list, sizeof(list) - 1);
	close(fd);
	if (got <= 0)
		return -ENOENT;
	list[got] = '\0';
	while (*at >= '0' && *at <= '9' && !err) {
		unsigned long cpu = strtoul(at, &at, 10), last = cpu;

		if (*at == '-')
			last = strtoul(at + 1, &at, 10);
		for (; cpu <= last && !err; cpu++)
			err = perf->nr_rings == CPUS_MAX ? -E2BIG
							 : ring_add(perf, host, (unsigned)cpu);
		at += *at == ',';
	}
	return err;
}

/*
 * The rings' own events are the main thread's, if it still runs: a thread with events costs
 * more to switch to, and every unmapping waits for a switch to the reader.
 */
static int rings_add_somewhere(struct os_perf *perf)
{
	int err = rings_add(perf, getpid());

	if (err != -ESRCH || perf->nr_rings)
		perf->tids[perf->nr_tids++] = getpid();
	else
		err = rings_add(perf, 0);
	return err;
}

static bool thread_known(const struct os_perf *perf, pid_t tid)
{
	for (unsigned i = 0; i < perf->nr_tids; i++)
		if (perf->tids[i] == tid)
			return true;
	return tid == perf->opener;
}

static int thread_add(struct os_perf *perf, pid_t tid)
{
	if (perf->nr_tids == perf->max)
		return -EMFILE;
	perf->tids[perf->nr_tids++] = tid;
	for (unsigned i = 0; i < perf->nr_rings; i++) {
		int fd = event_add(perf, tid, perf->rings[i].cpu, perf->rings[i].fd);

		if (fd == -ESRCH)
			return 0; /* the thread is gone */
		if (fd < 0)
			return fd;
	}
	return 0;
}

/* Each thread that is listed and not known yet. *found: there was one. */
static int threads_add(struct os_perf *perf, bool *found)
{
	int dir = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
	_Alignas(struct dirent64) char entries[4096];
	ssize_t got = 0;

	*found = false;
	if (dir < 0)
		return -errno;
	while (!err && (got = getdents64(dir, entries, sizeof(entries))) > 0) {
		for (ssize_t at = 0; at < got && !err;) {
			const struct dirent64 *entry = (const void *)(entries + at);
			pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

			at += entry->d_reclen;
			if (!tid || thread_known(perf, tid))
				continue;
			*found = true;
			err = thread_add(perf, tid);
		}
	}
	if (!err && got < 0)
		err = -errno;
	close(dir);
	return err;
}

static int threads_add_all(struct os_perf *perf)
{
	uint64_t began = live_now(), quiet_since = began, now = began;
	bool found;

	do {
		int err = threads_add(perf, &found);

		if (err)
			return err;
		now = live_now();
		if (found)
			quiet_since = now;
		else
			live_sleep(SETTLE_STEP_NS);
	} while (now - quiet_since < SETTLE_NS && now - began < SETTLE_MAX_NS);
	return 0;
}

static struct os_perf *perf_alloc(void)
{
	struct rlimit limit = { .rlim_cur = EVENTS_MAX };
	struct os_perf *perf;
	unsigned max;
	size_t size;

	getrlimit(RLIMIT_NOFILE, &limit);
	max = limit.rlim_cur < EVENTS_MAX ? (unsigned)limit.rlim_cur : EVENTS_MAX;
	size = sizeof(*perf) + CPUS_MAX * sizeof(struct ring) +
	       max * (sizeof(int) + sizeof(pid_t));
	perf = arena_map(size); /* touched as far as it is used */
	if (!perf)
		return NULL;
	perf->opener = live_tid();
	perf->size = size;
	perf->max = max;
	perf->rings = (struct ring *)(perf + 1);
	perf->fds = (int *)(perf->rings + CPUS_MAX);
	perf->tids = perf->fds + max;
	return perf;
}

int live_perf_open(struct os_perf **out)
{
	struct os_perf *perf = perf_alloc();
	int err;

	if (!perf)
		return -ENOMEM;
	err = rings_add_somewhere(perf);
	if (!err)
		err = threads_add_all(perf);
	if (err)
		live_perf_close(perf);
	else
		*out = perf;
	return err;
}

/* In another thread the numbers are the program's; ours went with the opener. */
void live_perf_close(struct os_perf *perf)
{
	for (unsigned i = 0; i < perf->nr_rings; i++) {
		uintptr_t start = (uintptr_t)perf->rings[i].page;

		arena_disown(start, start + RING_SIZE);
		munmap(perf->rings[i].page, RING_SIZE);
	}
	if (perf->opener == live_tid())
		for (unsigned i = 0; i < perf->nr_fds; i++)
			close(perf->fds[i]);
	arena_unmap(perf, perf->size);
}

bool live_perf_pending(const struct os_perf *perf)
{
	for (unsigned i = 0; i < perf->nr_rings; i++) {
		const struct perf_event_mmap_page *page = perf->rings[i].page;

		if (__atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE) !=
		    __atomic_load_n(&page->data_tail, __ATOMIC_RELAXED))
			return true;
	}
	return false;
}

/* The part of a PERF_RECORD_MMAP2 that we look at. */
struct mmap2 {
	struct perf_event_header header;
	uint32_t pid, tid;
	uint64_t addr, len, pgoff;
	uint32_t major, minor;
	uint64_t inode, generation;
	uint32_t prot, flags;
};

static void ring_copy(const struct ring *ring, uint64_t at, void *to, size_t length)
{
	const char *data = (const char *)ring->page + OS_PAGE_SIZE;
	size_t from = at % DATA_SIZE, first = DATA_SIZE - from;

	if (first > length)
		first = length;
	memcpy(to, data + from, first);
	memcpy((char *)to + first, data, length - first);
}

static int ring_drain(const struct ring *ring, os_perf_fn fn, void *arg)
{
	struct perf_event_mmap_page *page = ring->page;
	uint64_t head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE);
	uint64_t old_tail = page->data_tail, at = old_tail;
	struct mmap2 record;
	int lost = 0;

	while (at < head) {
		ring_copy(ring, at, &record.header, sizeof(record.header));
		if (record.header.size < sizeof(record.header)) {
			at = head;
			lost = 1;
			break;
		}
		if (record.header.type == PERF_RECORD_LOST)
			lost = 1;
		if (record.header.type == PERF_RECORD_MMAP2) {
			ring_copy(ring, at, &record, sizeof(record));
			fn(arg, record.addr, record.addr + record.len, (int)record.prot);
		}
		at += record.header.size;
	}
	/* The load must not pass the store. */
	__atomic_store_n(&page->data_tail, at, __ATOMIC_SEQ_CST);
	head = __atomic_load_n(&page->data_head, __ATOMIC_SEQ_CST);
	return lost || head - old_tail > DATA_SIZE - RECORD_MAX;
}

int live_perf_drain(struct os_perf *perf, os_perf_fn fn, void *arg)
{
	int lost = 0;

	for (unsigned i = 0; i < perf->nr_rings; i++)
		lost |= ring_drain(&perf->rings[i], fn, arg);
	return lost;
}
