/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * library - libfabric, loaded when it is first asked for.
 *
 * Debian's brings libinfinipath, which puts handlers of its own in the place of the program's when
 * it is loaded, for SIGSEGV, SIGTERM and a dozen more: to print a backtrace, and exit. A
 * program that links this driver shall die as it dies without it, and a mirror's SIGSEGV is not
 * for them. So it is loaded here, and what was changed is put back.
 *
 * Most of libfabric's calls are inline, by way of objects. The others are below, by their names.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "fabric.h"

#define NAME "libfabric.so.1"

static struct {
	int (*getinfo)(uint32_t version, const char *node, const char *service, uint64_t flags,
		       const struct fi_info *hints, struct fi_info **info);
	void (*freeinfo)(struct fi_info *info);
	struct fi_info *(*dupinfo)(const struct fi_info *info);
	int (*fabric)(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context);
	const char *(*strerror)(int errnum);
	bool loaded;
} lib;

static bool find(void *library, const char *name, void *function)
{
	*(void **)function = dlsym(library, name);
	return *(void **)function;
}

static void load_all(void)
{
	void *library = dlopen(NAME, RTLD_NOW | RTLD_LOCAL);
	struct fi_info *info;

	if (!library || !find(library, "fi_getinfo", &lib.getinfo) ||
	    !find(library, "fi_freeinfo", &lib.freeinfo) ||
	    !find(library, "fi_dupinfo", &lib.dupinfo) ||
	    !find(library, "fi_fabric", &lib.fabric) ||
	    !find(library, "fi_strerror", &lib.strerror))
		return;
	lib.loaded = true;
	/* The first question loads the providers, and what they bring. */
	if (!lib.getinfo(FI_VERSION(1, 14), NULL, NULL, 0, NULL, &info))
		lib.freeinfo(info);
}

static bool same(const struct sigaction *a, const struct sigaction *b)
{
	return a->sa_sigaction == b->sa_sigaction && a->sa_flags == b->sa_flags;
}

static void load(void)
{
	struct sigaction before[NSIG], now;
	bool known[NSIG];

	for (int i = 1; i < NSIG; i++)
		known[i] = !sigaction(i, NULL, &before[i]);
	load_all();
	for (int i = 1; i < NSIG; i++)
		if (known[i] && !sigaction(i, NULL, &now) && !same(&now, &before[i]))
			sigaction(i, &before[i], NULL);
}

int fabric_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return lib.loaded ? 0 : -ENODEV;
}

/* ---- by its names; after fabric_load() ---- */

int fi_getinfo(uint32_t version, const char *node, const char *service, uint64_t flags,
	       const struct fi_info *hints, struct fi_info **info)
{
	return lib.getinfo(version, node, service, flags, hints, info);
}

void fi_freeinfo(struct fi_info *info)
{
	lib.freeinfo(info);
}

struct fi_info *fi_dupinfo(const struct fi_info *info)
{
	return lib.dupinfo(info);
}

int fi_fabric(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context)
{
	return lib.fabric(attr, fabric, context);
}

const char *fi_strerror(int errnum)
{
	return lib.strerror(errnum);
}
