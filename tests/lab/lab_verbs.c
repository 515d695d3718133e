/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * lab_verbs - libfabric over verbs over rxe, to itself: a connection by rdma_cm, a write;
 *and its cache of registrations, under each monitor of memory. Memory that was sent from
 *goes and other memory comes to the same address: does the peer get what is there, or what
 *was?
 *
 *	lab_verbs [-v] [NAME...]	cases of which a NAME is a part
 *	lab_verbs --rounds		one process with the monitor that its environment
 *names
 *
 * The memory goes by a system call of its own, and not by libc's munmap(), as an allocator
 *or a runtime may do it: what patches libc's functions, as memhooks, does not see it.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lab.h"

#define VERSION FI_VERSION(1, 17)
#define LENGTH PAGE
#define ROUNDS 20u
#define PATIENCE_MS 10000
#define OURS "libuhmm-fabricmon.so.0"
/* How --rounds ends, by its status. */
#define NOT_RUN 100
#define NOT_CACHED 50 /* and so many of ROUNDS were stale */

/* A call of libfabric's that must not fail. */
#define FI(call)                                                                           \
	do {                                                                               \
		long got_ = (long)(call);                                                  \
		if (got_ < 0)                                                              \
			FAILED("%s: %s", #call, fi_strerror((int)-got_));                  \
	} while (0)

struct wire {
	struct fi_info *info, *to;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_eq *eq;
	struct fid_pep *pep;
	struct fid_cq *cq;
	struct fid_ep *asks, *answers;
	unsigned char *target;
	struct fid_mr *target_mr;
};

static enum verdict get_info(const char *service, uint64_t flags, struct fi_info **info)
{
	struct fi_info *hints = fi_allocinfo();
	int err;

	hints->ep_attr->type = FI_EP_MSG;
	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT | FI_RX_CQ_DATA;
	hints->addr_format = FI_SOCKADDR_IN;
	hints->domain_attr->mr_mode =
		FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->fabric_attr->prov_name = strdup("verbs");
	err = fi_getinfo(VERSION, getenv("UHMM_LAB_RDMA_ADDRESS"), service, flags, hints,
			 info);
	fi_freeinfo(hints);
	/* In the lab what it names must be there. */
	if (err == -FI_ENODATA && !getenv("UHMM_LAB_RDMA"))
		return live_skip("libfabric has no verbs here (the lab has rxe)");
	FI(err);
	return PASS;
}

static enum verdict wait_for(struct wire *w, uint32_t want, struct fi_info **info)
{
	struct fi_eq_cm_entry entry;
	uint32_t event;
	ssize_t n = fi_eq_sread(w->eq, &event, &entry, sizeof(entry), PATIENCE_MS, 0);

	if (n == -FI_EAVAIL) {
		struct fi_eq_err_entry error = { 0 };

		fi_eq_readerr(w->eq, &error, 0);
		FAILED("event %u did not come: %s", want, fi_strerror(error.err));
	}
	FI(n);
	CHECK(event == want, "event %u and not %u", event, want);
	if (info)
		*info = entry.info;
	return PASS;
}

static enum verdict endpoint(struct wire *w, struct fi_info *info, struct fid_ep **ep)
{
	FI(fi_endpoint(w->domain, info, ep, NULL));
	FI(fi_ep_bind(*ep, &w->eq->fid, 0));
	FI(fi_ep_bind(*ep, &w->cq->fid, FI_TRANSMIT | FI_RECV));
	FI(fi_enable(*ep));
	return PASS;
}

/* Both ends are here: the events of both come by one queue, in this order. */
static enum verdict connect_both(struct wire *w)
{
	struct fi_info *request = NULL;
	struct sockaddr_in address;
	size_t size = sizeof(address);
	char service[8];

	FI(fi_getname(&w->pep->fid, &address, &size));
	snprintf(service, sizeof(service), "%u", ntohs(address.sin_port));
	TRY(get_info(service, 0, &w->to));
	TRY(endpoint(w, w->to, &w->asks));
	FI(fi_connect(w->asks, w->to->dest_addr, NULL, 0));
	TRY(wait_for(w, FI_CONNREQ, &request));
	TRY(endpoint(w, request, &w->answers));
	FI(fi_accept(w->answers, NULL, 0));
	TRY(wait_for(w, FI_CONNECTED, NULL));
	TRY(wait_for(w, FI_CONNECTED, NULL));
	fi_freeinfo(request);
	return PASS;
}

static enum verdict open_wire(struct wire *w)
{
	struct fi_eq_attr eq = { .wait_obj = FI_WAIT_UNSPEC };
	struct fi_cq_attr cq = { .format = FI_CQ_FORMAT_CONTEXT };

	TRY(get_info("0", FI_SOURCE, &w->info));
	FI(fi_fabric(w->info->fabric_attr, &w->fabric, NULL));
	FI(fi_eq_open(w->fabric, &eq, &w->eq, NULL));
	FI(fi_passive_ep(w->fabric, w->info, &w->pep, NULL));
	FI(fi_pep_bind(w->pep, &w->eq->fid, 0));
	FI(fi_listen(w->pep));
	FI(fi_domain(w->fabric, w->info, &w->domain, NULL));
	FI(fi_cq_open(w->domain, &cq, &w->cq, NULL));
	TRY(connect_both(w));
	w->target = (unsigned char *)live_map(LENGTH, RW);
	FI(fi_mr_reg(w->domain, w->target, LENGTH, FI_REMOTE_WRITE, 0, 0, 0, &w->target_mr,
		     NULL));
	return PASS;
}

static void close_wire(struct wire *w)
{
	struct fid *all[] = { &w->asks->fid, &w->answers->fid, &w->target_mr->fid,
			      &w->cq->fid,   &w->pep->fid,     &w->domain->fid,
			      &w->eq->fid,   &w->fabric->fid };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		fi_close(all[i]);
	fi_freeinfo(w->to);
	fi_freeinfo(w->info);
}

/* As a program does for each transfer: register, send, give back. The cache is behind it.
 */
static enum verdict transfer(struct wire *w, const void *from, uint64_t *key)
{
	uint64_t end = live_now_ns() + PATIENCE_MS * UINT64_C(1000000);
	struct fi_cq_entry entry;
	struct fid_mr *mr;
	ssize_t n = -FI_EAGAIN;

	FI(fi_mr_reg(w->domain, from, LENGTH, FI_WRITE, 0, 0, 0, &mr, NULL));
	*key = fi_mr_key(mr);
	FI(fi_write(w->asks, from, LENGTH, fi_mr_desc(mr), 0, (uintptr_t)w->target,
		    fi_mr_key(w->target_mr), NULL));
	while (n == -FI_EAGAIN && live_now_ns() < end)
		n = fi_cq_read(w->cq, &entry, 1);
	FI(n);
	FI(fi_close(&mr->fid));
	return PASS;
}

/* ---- with one monitor ---- */

static enum verdict replace(void *at, unsigned seed)
{
	SYS(syscall(SYS_munmap, at, LENGTH));
	SYS(syscall(SYS_mmap, at, LENGTH, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		    0));
	lab_fill(at, LENGTH, seed);
	return PASS;
}

static enum verdict rounds(struct wire *w, unsigned *hits, unsigned *stale)
{
	void *at = live_map(LENGTH, RW);
	uint64_t key, again;

	for (unsigned i = 0; i < ROUNDS; i++) {
		lab_fill(at, LENGTH, 2 * i);
		TRY(transfer(w, at, &key));
		TRY(transfer(w, at, &again));
		*hits += key == again;
		TRY(replace(at, 2 * i + 1));
		TRY(transfer(w, at, &again));
		if (lab_differs(w->target, LENGTH, 2 * i + 1) != LENGTH)
			++*stale;
	}
	return PASS;
}

static int run_rounds(void)
{
	struct wire w = { 0 };
	unsigned hits = 0, stale = 0;
	enum verdict verdict = open_wire(&w);

	if (verdict == PASS)
		verdict = rounds(&w, &hits, &stale);
	if (verdict != PASS) {
		printf("%s\n", live_reason());
		return verdict == SKIP ? 77 : NOT_RUN;
	}
	printf("cached %u of %u, stale %u of %u\n", hits, ROUNDS, stale, ROUNDS);
	/* A monitor that cannot say at once that all is well may have some registered
	 * again. */
	return (int)(stale + (2 * hits < ROUNDS ? NOT_CACHED : 0));
}

/* ---- the cases ---- */

static enum verdict is_found(const void *arg)
{
	struct fi_info *info;
	bool found = false;

	TRY(get_info("0", FI_SOURCE, &info));
	for (struct fi_info *i = info; i; i = i->next)
		found |= !strcmp(i->domain_attr->name, getenv("UHMM_LAB_RDMA") ?: "");
	fi_freeinfo(info);
	CHECK(found, "verbs, but not the lab's device");
	return PASS;
}

static enum verdict writes(const void *arg)
{
	unsigned char *from = (unsigned char *)live_map(LENGTH, RW);
	struct wire w = { 0 };
	uint64_t key;

	TRY(open_wire(&w));
	lab_fill(from, LENGTH, 7);
	TRY(transfer(&w, from, &key));
	CHECK(lab_differs(w.target, LENGTH, 7) == LENGTH, "not what was sent");
	close_wire(&w);
	return PASS;
}

struct monitor {
	const char *name;
	const char *library; /* before it */
	const char *variable, *value;
	bool caches;
	unsigned stale; /* of ROUNDS */
};

static const struct monitor monitors[] = {
	{ "disabled", NULL, "FI_MR_CACHE_MONITOR", "disabled", false, 0 },
	{ "memhooks", NULL, "FI_MR_CACHE_MONITOR", "memhooks", true, ROUNDS },
	{ "userfaultfd", NULL, "FI_MR_CACHE_MONITOR", "userfaultfd", true, 0 },
	{ "fabricmon", OURS, "UHMM_FABRICMON", "1", true, 0 },
};

/* Is it where the dynamic linker looks? */
static bool has_library(const char *name)
{
	void *handle = dlopen(name, RTLD_LAZY);

	if (handle)
		dlclose(handle);
	return handle;
}

static enum verdict with_monitor(const void *arg)
{
	const struct monitor *m = arg;
	int status, stale;
	pid_t child;

	if (m->library && !has_library(m->library))
		return live_skip("there is no %s yet", m->library);
	printf("%s: ", m->name);
	fflush(stdout);
	child = fork();
	if (!child) {
		setenv(m->variable, m->value, 1);
		if (m->library)
			setenv("LD_PRELOAD", m->library, 1);
		execl("/proc/self/exe", "lab_verbs", "--rounds", (char *)NULL);
		_exit(NOT_RUN);
	}
	status = live_wait(child, 15);
	CHECK(status >= 0 && WIFEXITED(status), "it did not end");
	status = WEXITSTATUS(status);
	if (status == 77)
		return live_skip("there is nothing to cache for");
	CHECK(status != NOT_RUN, "it did not run");
	stale = status % NOT_CACHED;
	CHECK((status < NOT_CACHED) == m->caches, "it does%s cache",
	      status < NOT_CACHED ? "" : " not");
	CHECK(stale == (int)m->stale, "%d of %u stale, expected %u", stale, ROUNDS,
	      m->stale);
	return PASS;
}

static const struct live_case cases[] = {
	{ .name = "found", .run = is_found },
	{ .name = "written", .run = writes },
	{ .name = "cache disabled", .run = with_monitor, .arg = &monitors[0] },
	{ .name = "cache memhooks", .run = with_monitor, .arg = &monitors[1] },
	{ .name = "cache userfaultfd", .run = with_monitor, .arg = &monitors[2] },
	{ .name = "cache fabricmon", .run = with_monitor, .arg = &monitors[3] },
};

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--rounds"))
		return run_rounds();
	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
