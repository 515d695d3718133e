/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * deb_names - which packages a name leads to.
 *
 * Model: a hash table from name to a chain of (package, real or provided). Laws: a
 * name's real package, if there is one, is the first of its chain; the rest keep the
 * order in which they were added. Names are slices of mapped text and are not copied:
 * deb_names_rebase() when the text moves.
 */
#ifndef UHMM_TOOLS_DEB_NAMES_H
#define UHMM_TOOLS_DEB_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "deb.h"

#define DEB_NAMES_NONE UINT32_MAX

struct deb_names;

struct deb_names *deb_names_create(void);
void deb_names_free(struct deb_names *names);

/* A name of package `index`: its own (real) or one that it provides. */
void deb_names_add(struct deb_names *names, struct deb_slice name, uint32_t index,
		   bool real);

/* A handle of the first in the name's chain, and on; DEB_NAMES_NONE at the end. */
uint32_t deb_names_first(const struct deb_names *names, struct deb_slice name);
uint32_t deb_names_next(const struct deb_names *names, uint32_t handle);
uint32_t deb_names_index(const struct deb_names *names, uint32_t handle);
bool deb_names_real(const struct deb_names *names, uint32_t handle);

/* Names that no package has, only Provides. */
size_t deb_names_virtuals(const struct deb_names *names);

/* Text [old, old + len) is now at `text`. */
void deb_names_rebase(struct deb_names *names, const char *old, size_t len,
		      const char *text);

#endif
