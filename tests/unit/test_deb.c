/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_deb - the parser of package lists (tools/deb.h) and the graph made from them.
 *
 * Each text lies at the end of a mapping with a guard page behind it, so that one byte
 * read too many ends the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "deb.h"
#include "deb_graph.h"
#include "deb_names.h"

#define PAGE 4096
#define ROOM ((size_t)64 * PAGE)

/* Copies text so that it ends where the mapping ends. Freed with the process. */
static const char *at_edge(const char *text, size_t len)
{
	char *room = mmap(NULL, ROOM + PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(room, MAP_FAILED);
	assert_true(len <= ROOM);
	assert_int_equal(mprotect(room + ROOM, PAGE, PROT_NONE), 0);
	memcpy(room + ROOM - len, text, len);
	return room + ROOM - len;
}

struct reader {
	const char *text;
	size_t len, bad;
	struct deb_package package;
};

static struct reader reader_of(const char *text)
{
	return (struct reader){ .text = at_edge(text, strlen(text)), .len = strlen(text) };
}

static bool next(struct reader *reader)
{
	return deb_next_package(&reader->text, &reader->len, &reader->package,
				&reader->bad);
}

static void assert_slice(struct deb_slice slice, const char *text)
{
	assert_int_equal(slice.len, strlen(text));
	assert_memory_equal(slice.text, text, slice.len);
}

/* All names of a field, with '|' before alternatives: "a |b c". */
static const char *relations(struct deb_slice field)
{
	static char all[1000];
	struct deb_relation relation;

	all[0] = '\0';
	while (deb_next_relation(&field, &relation)) {
		size_t used = strlen(all);

		snprintf(all + used, sizeof(all) - used, "%s%s%.*s", used ? " " : "",
			 relation.alternative ? "|" : "", (int)relation.name.len,
			 relation.name.text);
	}
	return all;
}

static struct deb_slice slice_of(const char *text)
{
	return (struct deb_slice){ at_edge(text, strlen(text)), strlen(text) };
}

static void test_stanzas(void **state)
{
	struct reader reader = reader_of("Package: one\nDepends: two\n\n\n \nPackage: two\n"
					 "Pre-Depends: three\nProvides: x, y\n\n");

	assert_true(next(&reader));
	assert_slice(reader.package.name, "one");
	assert_string_equal(relations(reader.package.depends), "two");
	assert_true(next(&reader));
	assert_slice(reader.package.name, "two");
	assert_int_equal(reader.package.depends.len, 0);
	assert_string_equal(relations(reader.package.pre_depends), "three");
	assert_string_equal(relations(reader.package.provides), "x y");
	assert_false(next(&reader));
	assert_int_equal(reader.bad, 0);
}

static void test_no_newline_at_the_end(void **state)
{
	struct reader reader = reader_of("Package: one\nDepends: two, three");

	assert_true(next(&reader));
	assert_string_equal(relations(reader.package.depends), "two three");
	assert_false(next(&reader));
	reader = reader_of("Package: one");
	assert_true(next(&reader));
	assert_slice(reader.package.name, "one");
	reader = reader_of("Package:");
	assert_false(next(&reader));
	assert_int_equal(reader.bad, 1);
}

static void test_continuation(void **state)
{
	struct reader reader =
		reader_of("Package: one\nDepends: two,\n three (>= 1),\n"
			  "# a comment, in between\n\tfour\nProvides:\n five\n"
			  "Description: text\n Depends: not, this\n .\n more\n");

	assert_true(next(&reader));
	assert_string_equal(relations(reader.package.provides), "five");
	assert_string_equal(relations(reader.package.depends), "two three four");
	assert_false(next(&reader));
}

static void test_crlf(void **state)
{
	struct reader reader = reader_of("Package: one\r\nDepends: two,\r\n three\r\n\r\n"
					 "Package: four\r\nDepends: five\r\n");

	assert_true(next(&reader));
	assert_slice(reader.package.name, "one");
	assert_string_equal(relations(reader.package.depends), "two three");
	assert_true(next(&reader));
	assert_slice(reader.package.name, "four");
	assert_string_equal(relations(reader.package.depends), "five");
	assert_false(next(&reader));
}

static void test_field_names(void **state)
{
	struct reader reader = reader_of("# comment\nPACKAGE: one\ndepends: two\n"
					 "Depends-Not: x\nDepend: y\n: z\nno colon\n");

	assert_true(next(&reader));
	assert_slice(reader.package.name, "one");
	assert_string_equal(relations(reader.package.depends), "two");
	assert_false(next(&reader));
	assert_int_equal(reader.bad, 0);
}

static void test_bad_stanzas(void **state)
{
	struct reader reader =
		reader_of("Depends: a\n\nPackage: -x\n\nPackage: a b\n\n"
			  "Package: \n\n continued from nothing\n\nPackage: good\n");

	assert_true(next(&reader));
	assert_slice(reader.package.name, "good");
	assert_false(next(&reader));
	assert_int_equal(reader.bad, 5);
}

static void test_nothing(void **state)
{
	struct reader reader = reader_of("");

	assert_false(next(&reader));
	reader = (struct reader){ .text = NULL };
	assert_false(next(&reader));
	reader = reader_of("\n\n \n\t\r\n");
	assert_false(next(&reader));
	assert_int_equal(reader.bad, 0);
}

static void test_garbage(void **state)
{
	const char alphabet[] = "Package: a\n\n ,|()[]:<>#\r\t\0\xff-Depends:";
	char text[2000];

	srand(1);
	for (unsigned round = 0; round < 3000; round++) {
		struct reader reader = { .len = (size_t)rand() % sizeof(text) };
		unsigned packages = 0;

		for (size_t i = 0; i < reader.len; i++)
			text[i] = round % 3 ? alphabet[rand() % (sizeof(alphabet) - 1)]
					    : (char)rand();
		/* Exactly as long as it says: the sanitizers watch the end. */
		reader.text = memcpy(malloc(reader.len + 1), text, reader.len);
		text[0] = '\0';
		const char *memory = reader.text;

		while (next(&reader)) {
			relations(reader.package.depends);
			assert_true(++packages <= sizeof(text));
		}
		assert_int_equal(reader.len, 0);
		free((void *)memory);
	}
}

static void test_relations(void **state)
{
	assert_string_equal(
		relations(slice_of("a (>= 1.2), b:any | c [amd64] | d <!x>,e|f")),
		"a b |c |d e |f");
	assert_string_equal(relations(slice_of("")), "");
	assert_string_equal(relations(slice_of(" , ,, | ,")), "");
	assert_string_equal(relations(slice_of("libstdc++6(>=1),g++:amd64")),
			    "libstdc++6 g++");
	assert_string_equal(relations(slice_of("a,")), "a");
	assert_string_equal(relations(slice_of("${misc:Depends}, a")), "a");
}

static void test_installed(void **state)
{
	struct reader reader =
		reader_of("Package: a\nStatus: install ok installed\n\n"
			  "Package: b\nStatus: deinstall ok config-files\n\n"
			  "Package: c\n\nPackage: d\nStatus: install ok half-installed\n");

	assert_true(next(&reader) && deb_installed(&reader.package));
	assert_true(next(&reader) && !deb_installed(&reader.package));
	assert_true(next(&reader) && deb_installed(&reader.package));
	assert_true(next(&reader) && !deb_installed(&reader.package));
}

/* ---- the graph ---- */

/* Two files, so that one can hide the other's package. */
static struct deb_files files_of(const char *one, const char *other)
{
	const char *const texts[] = { one, other };
	struct deb_files files = { .file = NULL };
	char why[300];

	for (unsigned i = 0; i < 2; i++) {
		char path[] = "/tmp/test_deb.XXXXXX";
		int fd = mkstemp(path);

		assert_true(fd >= 0);
		assert_int_equal(write(fd, texts[i], strlen(texts[i])), strlen(texts[i]));
		close(fd);
		assert_int_equal(deb_files_add(&files, path, why, sizeof(why)), 0);
		unlink(path);
	}
	return files;
}

/* "to to" of a package, in index order; checks both lists of every edge. */
static const char *needs(const struct deb_graph *deb, const char *name)
{
	struct deb_slice slice = { name, strlen(name) };
	uint32_t at = deb_names_first(deb->names, slice);
	static char all[300];
	const struct node *from;
	uint32_t degree = 0;

	assert_int_not_equal(at, DEB_NAMES_NONE);
	from = deb->graph.nodes[deb_names_index(deb->names, at)];
	all[0] = '\0';
	for (uint32_t i = 0; i < deb->graph.count; i++) {
		const struct node *to = deb->graph.nodes[i];
		size_t used = strlen(all);

		for (struct edge *edge = to->in; edge; edge = edge->next_in) {
			assert_ptr_equal(edge->to, to);
			assert_ptr_equal(*edge->in_link, edge);
			if (edge->from != from)
				continue;
			degree++;
			snprintf(all + used, sizeof(all) - used, "%s%.*s", used ? " " : "",
				 (int)to->name_len, to->name);
		}
	}
	assert_int_equal(degree, from->out_degree);
	return all;
}

static const char one_file[] =
	"Package: app\nDepends: mail, lib (>= 1) | other, lib (<< 9), ghost, app\n"
	"Pre-Depends: base\n\nPackage: base\n\nPackage: lib\n\nPackage: other\n"
	"Provides: lib, mail, mail (= 2)\n\nPackage: gone\nStatus: deinstall ok "
	"config-files\n";
static const char other_file[] =
	"Package: lib\nDepends: app\n\nPackage: post\nProvides: mail\nDepends: mail\n";

static void test_graph(void **state)
{
	struct deb_files files = files_of(one_file, other_file);
	struct deb_graph deb;

	deb_graph_build(&deb, &files, DEB_ALTERNATIVES_ALL);
	assert_int_equal(deb.graph.count, 5); /* app base lib other post */
	/* mail is virtual: other and post provide it; lib is real, so only that. */
	assert_string_equal(needs(&deb, "app"), "base lib other post");
	/* The first file's lib wins, which needs nothing. */
	assert_string_equal(needs(&deb, "lib"), "");
	/* Not itself. */
	assert_string_equal(needs(&deb, "post"), "other");
	assert_int_equal(deb_graph_unresolved(&deb), 1); /* ghost */
	assert_int_equal(deb.virtuals, 1);		 /* mail */
	deb_graph_free(&deb);

	deb_graph_build(&deb, &files, DEB_ALTERNATIVES_FIRST);
	assert_string_equal(needs(&deb, "app"), "base lib other post"); /* other by mail */
	deb_graph_free(&deb);
	deb_files_close(&files);
}

static void test_first_alternative(void **state)
{
	struct deb_files files =
		files_of("Package: a\nDepends: b | c\n\nPackage: b\n", "Package: c");
	struct deb_graph deb;

	deb_graph_build(&deb, &files, DEB_ALTERNATIVES_FIRST);
	assert_string_equal(needs(&deb, "a"), "b");
	deb_graph_free(&deb);
	deb_graph_build(&deb, &files, DEB_ALTERNATIVES_ALL);
	assert_string_equal(needs(&deb, "a"), "b c");
	deb_graph_free(&deb);
	deb_files_close(&files);
}

static void test_graph_changes(void **state)
{
	struct deb_files files = files_of(one_file, other_file);
	struct deb_graph deb;

	deb_graph_build(&deb, &files, DEB_ALTERNATIVES_ALL);
	for (unsigned round = 0; round < 50; round++) {
		uint32_t index = round % deb.graph.count;
		uint64_t edges = deb.graph.edges;
		size_t file = round / 2 % 2;
		const char *text = files.file[file].text;

		deb_graph_rebuild(&deb, index);
		graph_move_node(&deb.graph, (index + round / 5) % deb.graph.count);
		assert_int_equal(deb_graph_remap(&deb, file, round & 1), 0);
		assert_ptr_not_equal(files.file[file].text, text);
		assert_int_equal(deb.graph.edges, edges);
		assert_string_equal(needs(&deb, "app"), "base lib other post");
		assert_string_equal(needs(&deb, "post"), "other");
		assert_int_equal(deb_graph_unresolved(&deb), 1);
	}
	deb_graph_free(&deb);
	deb_files_close(&files);
}

static void test_files(void **state)
{
	struct deb_files files = files_of("", "not a package list at all");
	struct deb_graph deb;
	char why[300];

	deb_graph_build(&deb, &files, DEB_ALTERNATIVES_ALL);
	assert_int_equal(deb.graph.count, 0);
	assert_int_equal(deb.bad_stanzas, 1);
	deb_graph_free(&deb);
	assert_true(deb_files_add(&files, "/nonexistent/file", why, sizeof(why)) < 0);
	assert_non_null(strstr(why, "/nonexistent/file"));
	assert_true(deb_files_add(&files, "/tmp", why, sizeof(why)) < 0);
	assert_int_equal(files.count, 2);
	deb_files_close(&files);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stanzas),
		cmocka_unit_test(test_no_newline_at_the_end),
		cmocka_unit_test(test_continuation),
		cmocka_unit_test(test_crlf),
		cmocka_unit_test(test_field_names),
		cmocka_unit_test(test_bad_stanzas),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_relations),
		cmocka_unit_test(test_installed),
		cmocka_unit_test(test_graph),
		cmocka_unit_test(test_first_alternative),
		cmocka_unit_test(test_graph_changes),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
