/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * deb_graph - the dependency graph of the packages in mapped lists.
 *
 * Model: a node a package name, an edge from each package to each one it needs by
 * Depends or Pre-Depends. A name that is no package but is provided leads to all
 * that provide it; one that nobody has is counted as unresolved.
 * Laws: the first file that has a name wins. Every name and field stays a pointer into
 * the mapped text; only deb_graph_remap() moves a text.
 */
#ifndef UHMM_TOOLS_DEB_GRAPH_H
#define UHMM_TOOLS_DEB_GRAPH_H

#include <stdbool.h>

#include "deb.h"
#include "deb_file.h"
#include "pagerank_graph.h"

enum deb_alternatives {
	DEB_ALTERNATIVES_ALL,	/* "a | b" needs both: each could be the one */
	DEB_ALTERNATIVES_FIRST, /* "a | b" needs a, as apt would install */
};

struct deb_entry; /* a package's fields in the text */
struct deb_names; /* name -> package, virtual name -> providers */

struct deb_graph {
	struct graph graph;
	struct deb_files *files;
	enum deb_alternatives alternatives;
	struct deb_entry *entries; /* one a node, by index */
	struct deb_names *names;
	uint32_t *seen;	      /* by index: the last package that got an edge to it */
	uint32_t *unresolved; /* by index: names of the package that nobody has */
	size_t bad_stanzas;
	size_t virtuals; /* distinct names that are only provided */
};

/* Read all files and make all edges. */
void deb_graph_build(struct deb_graph *deb, struct deb_files *files,
		     enum deb_alternatives alternatives);
void deb_graph_free(struct deb_graph *deb);

/* Free the edges of one package and make them again from its text. */
void deb_graph_rebuild(struct deb_graph *deb, uint32_t index);

/* Move a file's mapping (deb_file_remap) and lead every pointer to the new place. */
int deb_graph_remap(struct deb_graph *deb, size_t file, bool move);

/* Names in all packages that nobody has. */
uint64_t deb_graph_unresolved(const struct deb_graph *deb);

#endif
