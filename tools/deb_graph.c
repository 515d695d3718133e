/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * deb_graph - from mapped text to nodes and edges (deb_graph.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "deb_graph.h"
#include "deb_names.h"

struct deb_entry {
	struct deb_slice name, depends, pre_depends, provides;
};

/* The packages of all files, before their number is known. */
struct growing {
	struct deb_entry *entries;
	uint32_t count, room;
};

static void append(struct growing *all, const struct deb_package *package)
{
	if (all->count == all->room) {
		uint32_t room = all->room ? all->room * 2 : 1024;
		struct deb_entry *grown = realloc(all->entries, room * sizeof(*grown));

		if (!grown) {
			fprintf(stderr, "uhmm: no memory for the packages\n");
			exit(1);
		}
		all->entries = grown;
		all->room = room;
	}
	all->entries[all->count++] =
		(struct deb_entry){ package->name, package->depends, package->pre_depends,
				    package->provides };
}

/* Each name once: what is installed is more to the point than what could be. */
static void read_file(struct deb_graph *deb, const struct deb_file *file,
		      struct growing *all)
{
	const char *text = file->text;
	size_t len = file->len;
	struct deb_package package;

	while (deb_next_package(&text, &len, &package, &deb->bad_stanzas)) {
		if (!deb_installed(&package) ||
		    deb_names_first(deb->names, package.name) != DEB_NAMES_NONE)
			continue;
		deb_names_add(deb->names, package.name, all->count, true);
		append(all, &package);
	}
}

static void add_provides(struct deb_graph *deb, uint32_t index)
{
	struct deb_slice rest = deb->entries[index].provides;
	struct deb_relation relation;

	while (deb_next_relation(&rest, &relation))
		deb_names_add(deb->names, relation.name, index, false);
}

static void add_edge_once(struct deb_graph *deb, uint32_t from, uint32_t to)
{
	if (to == from || deb->seen[to] == from + 1)
		return;
	deb->seen[to] = from + 1;
	graph_add_edge(&deb->graph, deb->graph.nodes[from], deb->graph.nodes[to]);
}

/* Edges for one name: the package of that name, else all that provide it. false: nobody. */
static bool link_name(struct deb_graph *deb, uint32_t from, struct deb_slice name)
{
	uint32_t at = deb_names_first(deb->names, name);

	if (at == DEB_NAMES_NONE)
		return false;
	if (deb_names_real(deb->names, at)) {
		add_edge_once(deb, from, deb_names_index(deb->names, at));
		return true;
	}
	for (; at != DEB_NAMES_NONE; at = deb_names_next(deb->names, at))
		add_edge_once(deb, from, deb_names_index(deb->names, at));
	return true;
}

static void link_field(struct deb_graph *deb, uint32_t from, struct deb_slice field)
{
	struct deb_relation relation;

	while (deb_next_relation(&field, &relation)) {
		if (relation.alternative && deb->alternatives == DEB_ALTERNATIVES_FIRST)
			continue;
		deb->unresolved[from] += !link_name(deb, from, relation.name);
	}
}

static void link_package(struct deb_graph *deb, uint32_t index)
{
	deb->unresolved[index] = 0;
	link_field(deb, index, deb->entries[index].pre_depends);
	link_field(deb, index, deb->entries[index].depends);
}

void deb_graph_build(struct deb_graph *deb, struct deb_files *files,
		     enum deb_alternatives alternatives)
{
	struct growing all = { .entries = NULL };

	memset(deb, 0, sizeof(*deb));
	deb->files = files;
	deb->alternatives = alternatives;
	deb->names = deb_names_create();
	for (size_t i = 0; i < files->count; i++)
		read_file(deb, &files->file[i], &all);
	deb->entries = all.entries;
	graph_init(&deb->graph, all.count);
	deb->seen = tool_alloc(((size_t)all.count + 1) * sizeof(*deb->seen));
	deb->unresolved = tool_alloc(((size_t)all.count + 1) * sizeof(*deb->unresolved));
	for (uint32_t i = 0; i < all.count; i++) {
		deb->graph.nodes[i]->name = deb->entries[i].name.text;
		deb->graph.nodes[i]->name_len = deb->entries[i].name.len;
		add_provides(deb, i);
	}
	deb->virtuals = deb_names_virtuals(deb->names);
	for (uint32_t i = 0; i < all.count; i++)
		link_package(deb, i);
}

void deb_graph_free(struct deb_graph *deb)
{
	graph_free(&deb->graph);
	deb_names_free(deb->names);
	free(deb->entries);
	free(deb->seen);
	free(deb->unresolved);
	memset(deb, 0, sizeof(*deb));
}

void deb_graph_rebuild(struct deb_graph *deb, uint32_t index)
{
	struct node *node = deb->graph.nodes[index];

	for (struct edge *edge = node->out; edge; edge = edge->next_out)
		deb->seen[edge->to->index] = 0;
	graph_drop_out(&deb->graph, node);
	link_package(deb, index);
}

/* Lead a pointer into [old, old + len) to the same byte of `text`. */
static void rebase(const char **pointer, const char *old, size_t len, const char *text)
{
	uintptr_t offset = (uintptr_t)*pointer - (uintptr_t)old;

	if (offset < len)
		*pointer = text + offset;
}

int deb_graph_remap(struct deb_graph *deb, size_t file, bool move)
{
	struct deb_file *moved = &deb->files->file[file];
	const char *old = moved->text;
	int rc = deb_file_remap(moved, move);

	if (rc || !old)
		return rc;
	for (uint32_t i = 0; i < deb->graph.count; i++) {
		struct deb_entry *entry = &deb->entries[i];

		rebase(&deb->graph.nodes[i]->name, old, moved->len, moved->text);
		rebase(&entry->name.text, old, moved->len, moved->text);
		rebase(&entry->depends.text, old, moved->len, moved->text);
		rebase(&entry->pre_depends.text, old, moved->len, moved->text);
		rebase(&entry->provides.text, old, moved->len, moved->text);
	}
	deb_names_rebase(deb->names, old, moved->len, moved->text);
	return 0;
}

uint64_t deb_graph_unresolved(const struct deb_graph *deb)
{
	uint64_t unresolved = 0;

	for (uint32_t i = 0; i < deb->graph.count; i++)
		unresolved += deb->unresolved[i];
	return unresolved;
}
