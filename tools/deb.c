/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * deb - reading deb822 in place (deb.h has the model and the laws).
 *
 * Debian policy: field names do not depend on case; a package name is two or more of
 * a-z 0-9 + - . and begins with a letter or digit. Case is forgiven, as dpkg does.
 */
#include <string.h>
#include <strings.h>

#include "deb.h"

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z');
}

static bool is_name_char(char c)
{
	return is_alnum(c) || c == '+' || c == '-' || c == '.';
}

static struct deb_slice trim(struct deb_slice slice)
{
	while (slice.len && is_blank(slice.text[0])) {
		slice.text++;
		slice.len--;
	}
	while (slice.len && is_blank(slice.text[slice.len - 1]))
		slice.len--;
	return slice;
}

static bool is_name(struct deb_slice slice)
{
	if (!slice.len || !is_alnum(slice.text[0]))
		return false;
	for (size_t i = 0; i < slice.len; i++) {
		if (!is_name_char(slice.text[i]))
			return false;
	}
	return true;
}

/* Take a line off the text, without its end. */
static struct deb_slice next_line(const char **text, size_t *len)
{
	const char *newline = memchr(*text, '\n', *len);
	struct deb_slice line = { *text, newline ? (size_t)(newline - *text) : *len };
	size_t taken = line.len + (newline ? 1 : 0);

	*text += taken;
	*len -= taken;
	if (line.len && line.text[line.len - 1] == '\r')
		line.len--;
	return line;
}

/* Which slice of the package a field goes to; NULL: one that nobody asked for. */
static struct deb_slice *field_slot(struct deb_package *package, struct deb_slice field)
{
	const struct {
		const char *name;
		struct deb_slice *slot;
	} fields[] = {
		{ "Package", &package->name },
		{ "Status", &package->status },
		{ "Depends", &package->depends },
		{ "Pre-Depends", &package->pre_depends },
		{ "Provides", &package->provides },
	};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strlen(fields[i].name) == field.len &&
		    !strncasecmp(fields[i].name, field.text, field.len))
			return fields[i].slot;
	}
	return NULL;
}

/* Begin a field: its slot now holds what stands behind the colon. NULL as field_slot(). */
static struct deb_slice *begin_field(struct deb_package *package, struct deb_slice line)
{
	const char *colon = memchr(line.text, ':', line.len);
	struct deb_slice *slot;

	if (!colon)
		return NULL;
	slot = field_slot(package,
			  (struct deb_slice){ line.text, (size_t)(colon - line.text) });
	if (slot)
		*slot = (struct deb_slice){ colon + 1,
					    line.len - (size_t)(colon + 1 - line.text) };
	return slot;
}

/* One stanza, with the blank lines before it. false: there was none. */
static bool next_stanza(const char **text, size_t *len, struct deb_package *package)
{
	struct deb_slice *slot = NULL;
	bool any = false;

	memset(package, 0, sizeof(*package));
	while (*len) {
		struct deb_slice line = next_line(text, len);

		if (line.len &&
		    line.text[0] == '#') /* a comment, even between continuations */
			continue;
		if (!trim(line).len) {
			if (any)
				break;
			continue;
		}
		any = true;
		if (!is_blank(line.text[0]))
			slot = begin_field(package, line);
		else if (slot) /* the value goes on to the end of this line */
			slot->len = (size_t)(line.text + line.len - slot->text);
	}
	return any;
}

bool deb_next_package(const char **text, size_t *len, struct deb_package *package,
		      size_t *bad)
{
	while (next_stanza(text, len, package)) {
		package->name = trim(package->name);
		package->status = trim(package->status);
		if (is_name(package->name))
			return true;
		++*bad;
	}
	return false;
}

bool deb_installed(const struct deb_package *package)
{
	static const char word[] = "installed";
	const size_t len = sizeof(word) - 1;
	struct deb_slice status = package->status;

	if (!status.len)
		return true;
	return status.len > len && !memcmp(status.text + status.len - len, word, len) &&
	       is_blank(status.text[status.len - len - 1]);
}

/* A value that goes on over a comment holds it: how long is the comment line at text[at]?
 */
static size_t comment_at(struct deb_slice slice, size_t at)
{
	const char *newline;

	if (slice.text[at] != '#' || (at && slice.text[at - 1] != '\n'))
		return 0;
	newline = memchr(slice.text + at, '\n', slice.len - at);
	return newline ? (size_t)(newline - slice.text) - at : slice.len - at;
}

/* What stands before the next ',' or '|', which is left in *rest; no blanks or comments in
 * front. */
static struct deb_slice next_part(struct deb_slice *rest)
{
	struct deb_slice part = { rest->text, 0 };

	while (part.len < rest->len && rest->text[part.len] != ',' &&
	       rest->text[part.len] != '|') {
		size_t comment = comment_at(*rest, part.len);

		part.len += comment ? comment : 1;
	}
	rest->text += part.len;
	rest->len -= part.len;
	for (part = trim(part); part.len && part.text[0] == '#'; part = trim(part)) {
		size_t comment = comment_at(part, 0);

		part.text += comment;
		part.len -= comment;
	}
	return part;
}

bool deb_next_relation(struct deb_slice *rest, struct deb_relation *relation)
{
	while (rest->len) {
		bool alternative = rest->text[0] == '|';
		struct deb_slice part;
		size_t len;

		if (alternative || rest->text[0] == ',') {
			rest->text++;
			rest->len--;
		}
		part = next_part(rest);
		/* "name:arch (>= version) [arch] <profile>": the name is what comes first.
		 */
		for (len = 0; len < part.len && is_name_char(part.text[len]); len++)
			;
		relation->name = (struct deb_slice){ part.text, len };
		relation->alternative = alternative;
		if (is_name(relation->name))
			return true;
	}
	return false;
}
