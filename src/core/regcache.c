/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
#include <errno.h>
#include <uhmm/regcache.h>
int hmm_regcache_create(struct hmm *h, const struct hmm_regcache_options *o, const struct hmm_regcache_ops *p, void *v, struct hmm_regcache **c) { *c = NULL; return 0; }
void hmm_regcache_destroy(struct hmm_regcache *c) { }
int hmm_regcache_get(struct hmm_regcache *c, uintptr_t a, size_t l, unsigned ac, unsigned f, struct hmm_region **r) { return -EOPNOTSUPP; }
bool hmm_regcache_put(struct hmm_region *r) { return false; }
void *hmm_region_handle(const struct hmm_region *r) { return NULL; }
uintptr_t hmm_region_start(const struct hmm_region *r) { return 0; }
