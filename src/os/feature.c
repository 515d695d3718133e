/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * feature - what this kernel and these privileges give; the one file that probes.
 *
 * Model: a table of features; each probe makes a small use of its feature and takes it
 * back. UHMM_OS_WITHOUT, a comma list of names that is read once, turns off those
 * that have a fallback or an error of their own: the function that needs one then
 * answers as where it is missing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "os/live.h"
#include "os/uapi.h"

#define WITHOUT_MAX 256

static pthread_once_t without_once = PTHREAD_ONCE_INIT;
static char without[WITHOUT_MAX];

static void without_read(void)
{
	const char *list = secure_getenv("UHMM_OS_WITHOUT");

	if (list)
		strncpy(without, list, sizeof(without) - 1);
}

bool os_without(const char *name)
{
	size_t length = strlen(name);
	const char *at;

	pthread_once(&without_once, without_read);
	for (at = without; *at; at += strcspn(at, ",")) {
		at += strspn(at, ", ");
		if (!strncmp(at, name, length) && (!at[length] || at[length] == ','))
			return true;
	}
	return false;
}

/* ---- answers that other files ask for; -1 not known yet ---- */

static int procmap_known = -1, process_vm_known = -1;

static int probe_procmap_query(void)
{
	int fd = proc_open(0, "maps"), err;
	struct os_vma vma;

	if (fd < 0)
		return fd;
	err = procmap_query(fd, 0, &vma, NULL, 0);
	close(fd);
	return err;
}

bool feature_procmap_query(void)
{
	int known = __atomic_load_n(&procmap_known, __ATOMIC_RELAXED);

	if (known < 0) {
		/* Out of descriptors is no answer: the question is asked again. */
		int err = os_without("procmap_query") ? -ENOTTY : probe_procmap_query();

		known = !err;
		if (!err || err == -ENOTTY)
			__atomic_store_n(&procmap_known, known, __ATOMIC_RELAXED);
	}
	return known;
}

bool feature_process_vm(void)
{
	int known = __atomic_load_n(&process_vm_known, __ATOMIC_RELAXED);

	if (known < 0) {
		known = !os_without("process_vm");
		__atomic_store_n(&process_vm_known, known, __ATOMIC_RELAXED);
	}
	return known;
}

void feature_process_vm_refused(void)
{
	__atomic_store_n(&process_vm_known, 0, __ATOMIC_RELAXED);
}

/* ---- probes ---- */

/* A context with these features, closed again. */
static int probe_uffd(uint64_t features, bool *user_only)
{
	int fd = uffd_new(user_only), err;

	if (fd < 0)
		return fd;
	err = uffd_enable(fd, features);
	close(fd);
	return err;
}

static int probe_userfaultfd(void)
{
	bool user_only;

	return probe_uffd(0, &user_only);
}

static int probe_kernel_faults(void)
{
	bool user_only;
	int err = probe_uffd(0, &user_only);

	return err ? err : user_only ? -EPERM : 0;
}

static int probe_wp_async(void)
{
	bool user_only;

	return probe_uffd(uffd_features_needed, &user_only);
}

static int probe_fork(void)
{
	bool user_only;

	return probe_uffd(UFFD_FEATURE_EVENT_FORK, &user_only);
}

static int probe_move(void)
{
	bool user_only;

	return probe_uffd(UFFD_FEATURE_MOVE, &user_only);
}

static int probe_poison(void)
{
	bool user_only;

	return probe_uffd(UFFD_FEATURE_POISON, &user_only);
}

static int probe_perf(void)
{
	int fd = perf_event_new(0, 0, -1), err = 0;
	void *page;

	if (fd < 0)
		return fd;
	page = mmap(NULL, 2 * OS_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		err = -errno;
	else
		munmap(page, 2 * OS_PAGE_SIZE);
	close(fd);
	return err;
}

static int probe_scan(void)
{
	uintptr_t page = (uintptr_t)&probe_scan & ~(OS_PAGE_SIZE - 1);
	struct page_region region;
	struct pm_scan_arg arg = { .size = sizeof(arg), .start = page,
				   .end = page + OS_PAGE_SIZE, .vec = (uintptr_t)&region,
				   .vec_len = 1, .return_mask = PAGE_IS_PRESENT };
	int fd = proc_open(0, "pagemap"), err;

	if (fd < 0)
		return fd;
	err = ioctl(fd, PAGEMAP_SCAN, &arg) < 0 ? -errno : 0;
	close(fd);
	return err;
}

/* An madvise of a fresh page of our own. */
static int probe_advice(int advice)
{
	void *page = mmap(NULL, OS_PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err;

	if (page == MAP_FAILED)
		return -errno;
	err = madvise(page, OS_PAGE_SIZE, advice) ? -errno : 0;
	munmap(page, OS_PAGE_SIZE);
	return err;
}

static int probe_populate(void)
{
	return probe_advice(MADV_POPULATE_WRITE);
}

static int probe_guard(void)
{
	return probe_advice(MADV_GUARD_INSTALL);
}

static int probe_process_vm(void)
{
	char from = 0, to;
	struct iovec there = { &from, 1 }, here = { &to, 1 };

	return process_vm_readv(live_tid(), &here, 1, &there, 1, 0) == 1 ? 0 : -errno;
}

static int probe_membarrier(void)
{
	long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

	if (commands < 0)
		return -errno;
	return commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED ? 0 : -EOPNOTSUPP;
}

/* ---- the table ---- */

#define CURE_UFFD                                                                          \
	"sysctl vm.unprivileged_userfaultfd=1, or CAP_SYS_PTRACE, or access to "            \
	"/dev/userfaultfd; in a container a seccomp profile that allows userfaultfd"

static const struct probe {
	const char *name, *gives, *costs;
	bool can_be_off; /* by UHMM_OS_WITHOUT */
	int (*probe)(void);
} probes[] = {
	{ "userfaultfd", "the mirror: unmapped, moved and discarded memory is reported",
	  "no mirror; copies and attached processes still work. Cure: " CURE_UFFD,
	  true, probe_userfaultfd },
	{ "wp_async", "every kind of mapping can be mirrored",
	  "no mirror. Cure: Linux 6.7 or newer with CONFIG_PTE_MARKER_UFFD_WP",
	  true, probe_wp_async },
	{ "kernel_faults", "system calls on pages that are away wait for them (device memory)",
	  "contexts see faults of user code only: enough to mirror, but device memory has "
	  "to come home before a system call uses it. Cure: " CURE_UFFD,
	  true, probe_kernel_faults },
	{ "event_fork", "a forked child's copies of registered mappings are let go at once",
	  "children made by raw clone() are not seen; pthread_atfork covers fork(). "
	  "Cure: CAP_SYS_PTRACE",
	  true, probe_fork },
	{ "perf", "mmap, mprotect and brk are recorded for the fence to read",
	  "permissions are read again at every fence (about 2 us a mapping). Cure: sysctl "
	  "kernel.perf_event_paranoid=2 or less, or CAP_PERFMON; in a container a seccomp "
	  "profile that allows perf_event_open",
	  true, probe_perf },
	{ "procmap_query", "one mapping is looked up by one system call",
	  "/proc/self/maps is read from its start for each question. Cure: Linux 6.11",
	  true, probe_procmap_query },
	{ "pagemap_scan", "what is present, and the registration token",
	  "no mirror and no snapshot. Cure: Linux 6.7, with /proc mounted", false,
	  probe_scan },
	{ "populate", "pages are faulted in without signals",
	  "no device faults. Cure: Linux 5.14", false, probe_populate },
	{ "process_vm", "short safe copies by one system call; copies of attached processes",
	  "own copies go through the signal handlers (two more system calls each); attached "
	  "processes cannot be copied. Cure: a seccomp profile that allows process_vm_readv "
	  "and process_vm_writev",
	  true, probe_process_vm },
	{ "uffd_move", "device memory: pages leave the program's memory and come back whole",
	  "no device memory; pages are used where they are. Cure: Linux 6.8",
	  true, probe_move },
	{ "uffd_poison", "a page that a lost device has taken along raises SIGBUS when touched",
	  "whoever touches such a page waits for ever. Cure: Linux 6.6",
	  true, probe_poison },
	{ "membarrier", "a barrier on all threads without a signal to each",
	  "barriers on the fast paths. Cure: Linux 4.14 with CONFIG_MEMBARRIER",
	  false, probe_membarrier },
	{ "guard", "guard pages exist here, and send no message when they are installed",
	  "none: without MADV_GUARD_INSTALL (Linux 6.13) there is nothing to miss",
	  false, probe_guard },
};
#define PROBES (sizeof(probes) / sizeof(probes[0]))

static pthread_once_t features_once = PTHREAD_ONCE_INIT;
static struct os_feature features[PROBES];

static void features_probe(void)
{
	for (size_t i = 0; i < PROBES; i++) {
		const struct probe *p = &probes[i];

		features[i] = (struct os_feature){
			.name = p->name,
			.err = p->can_be_off && os_without(p->name) ? -ECANCELED : p->probe(),
			.gives = p->gives,
			.costs = p->costs,
		};
	}
}

unsigned os_features(const struct os_feature **out)
{
	pthread_once(&features_once, features_probe);
	*out = features;
	return PROBES;
}
