/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * rcache - three functions of libucs that UCX's own libraries call, with ours in front.
 *
 * ucs_rcache_create: the cache's mem_reg watches the region first. The cache has entered
 *the region by then and is locked: a change from here on finds it, or is queued for it.
 * ucs_rcache_get: fence, then the lookup.
 * ucs_rcache_destroy: drops what create made.
 *
 * UHMM_UCXMON=1 asks for it (or a call of ucxmon_install()); UHMM_UCXMON=nofence leaves the
 *lookup as it is. The structs are those of the headers we were built with; with another UCX
 *we step aside.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <ucp/api/ucp_version.h>
#include <ucs/memory/rcache.h>

#include "ucxmon_private.h"

/* A cache, and what its maker wanted. */
struct wrapped {
	struct wrapped *next;
	ucs_rcache_t *rcache;
	const ucs_rcache_ops_t *ops;
	void *context;
};

static struct {
	ucs_status_t (*create)(const ucs_rcache_params_t *params, const char *name,
			       ucs_stats_node_t *stats, ucs_rcache_t **rcache);
	void (*destroy)(ucs_rcache_t *rcache);
	ucs_status_t (*get)(ucs_rcache_t *rcache, void *address, size_t length, int prot,
			    void *arg, ucs_rcache_region_t **region);
	bool same_version;
} real;

static pthread_once_t found = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* protects the list */
static struct wrapped *list;
static bool asked, fenced = true; /* by the environment */

static bool is_same_version(void)
{
	void *library = dlopen("libucp.so.0", RTLD_LAZY);
	void (*version)(unsigned *major, unsigned *minor, unsigned *release);
	unsigned major = 0, minor = 0, release = 0;

	version = library ? (void (*)(unsigned *, unsigned *, unsigned *))dlsym(
				    library, "ucp_get_version")
			  : NULL;
	if (version)
		version(&major, &minor, &release);
	if (major == UCP_API_MAJOR && minor == UCP_API_MINOR)
		return true;
	hmm_log(HMM_LOG_WARN,
		"ucxmon: UCX is %u.%u, built for %d.%d: its caches are left alone", major,
		minor, UCP_API_MAJOR, UCP_API_MINOR);
	return false;
}

/* By the library and not RTLD_NEXT: an MPI may have loaded it where next is not. */
static void find_real(void)
{
	void *library = dlopen("libucs.so.0", RTLD_LAZY);

	if (!library)
		abort(); /* we were called by something that needs it */
	*(void **)&real.create = dlsym(library, "ucs_rcache_create");
	*(void **)&real.destroy = dlsym(library, "ucs_rcache_destroy");
	*(void **)&real.get = dlsym(library, "ucs_rcache_get");
	real.same_version = is_same_version();
}

static ucs_status_t mem_reg(void *context, ucs_rcache_t *rcache, void *arg,
			    ucs_rcache_region_t *region, uint16_t flags)
{
	const struct wrapped *w = context;
	int err = ucxmon_watch((void *)region->super.start,
			       region->super.end - region->super.start);

	if (err) {
		atomic_fetch_add(&ucxmon.unwatched, 1);
		hmm_log(HMM_LOG_INFO, "ucxmon: %#lx-%#lx is not watched: %s",
			(unsigned long)region->super.start,
			(unsigned long)region->super.end, hmm_strerror(err));
	}
	return w->ops->mem_reg(w->context, rcache, arg, region, flags);
}

static void mem_dereg(void *context, ucs_rcache_t *rcache, ucs_rcache_region_t *region)
{
	const struct wrapped *w = context;

	w->ops->mem_dereg(w->context, rcache, region);
}

static void dump_region(void *context, ucs_rcache_t *rcache, ucs_rcache_region_t *region,
			char *buf, size_t max)
{
	const struct wrapped *w = context;

	w->ops->dump_region(w->context, rcache, region, buf, max);
}

static const ucs_rcache_ops_t wrapping = {
	.mem_reg = mem_reg,
	.mem_dereg = mem_dereg,
	.dump_region = dump_region,
};

UHMM_API ucs_status_t ucs_rcache_create(const ucs_rcache_params_t *params, const char *name,
					ucs_stats_node_t *stats, ucs_rcache_t **rcache)
{
	ucs_rcache_params_t ours;
	struct wrapped *w;
	ucs_status_t status;
	int err;

	pthread_once(&found, find_real);
	err = asked ? ucxmon_install() : 0;
	if (err)
		hmm_log(HMM_LOG_WARN, "ucxmon: not installed: %s", hmm_strerror(err));
	w = ucxmon.hmm && real.same_version ? malloc(sizeof(*w)) : NULL;
	if (!w)
		return real.create(params, name, stats, rcache);
	*w = (struct wrapped){ .ops = params->ops, .context = params->context };
	ours = *params;
	ours.ops = &wrapping;
	ours.context = w;
	status = real.create(&ours, name, stats, rcache);
	if (status != UCS_OK) {
		free(w);
		return status;
	}
	w->rcache = *rcache;
	pthread_mutex_lock(&lock);
	w->next = list;
	list = w;
	pthread_mutex_unlock(&lock);
	return UCS_OK;
}

UHMM_API void ucs_rcache_destroy(ucs_rcache_t *rcache)
{
	struct wrapped **at, *w = NULL;

	pthread_once(&found, find_real);
	pthread_mutex_lock(&lock);
	for (at = &list; *at && (*at)->rcache != rcache; at = &(*at)->next)
		;
	if (*at) {
		w = *at;
		*at = w->next;
	}
	pthread_mutex_unlock(&lock);
	real.destroy(rcache); /* deregisters through w */
	free(w);
}

UHMM_API ucs_status_t ucs_rcache_get(ucs_rcache_t *rcache, void *address, size_t length,
				     int prot, void *arg, ucs_rcache_region_t **region)
{
	pthread_once(&found, find_real);
	if (fenced && ucxmon.hmm)
		ucxmon_fence(address, length);
	return real.get(rcache, address, length, prot, arg, region);
}

/* Asked for is not installed: a program that never makes a cache is left alone. */
__attribute__((constructor)) static void preload(void)
{
	const char *value = getenv("UHMM_UCXMON");

	asked = value && *value && *value != '0';
	fenced = !value || strcmp(value, "nofence");
}
