/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * deb - the format of dpkg's status file and apt's package lists (deb822).
 *
 * Model: a text is stanzas separated by blank lines; a stanza is fields
 * "Name: value"; a line that begins with a blank goes on with the field above; one that
 * begins with '#' is a comment.
 * Laws: nothing is copied or changed, a slice points into the text; nothing is
 * allocated; any bytes at all are accepted, what is no package is counted and
 * passed over. A line ends with "\n", "\r\n" or the end of the text.
 */
#ifndef UHMM_TOOLS_DEB_H
#define UHMM_TOOLS_DEB_H

#include <stdbool.h>
#include <stddef.h>

struct deb_slice {
	const char *text;
	size_t len;
};

/* The fields of a stanza that a dependency graph needs; an absent one has len 0. */
struct deb_package {
	struct deb_slice name, status, depends, pre_depends, provides;
};

/*
 * Reads stanzas from *text, which has *len bytes; both advance.
 * *bad: raised by one for each stanza passed over, which has no good Package field.
 * false: no package any more.
 */
bool deb_next_package(const char **text, size_t *len, struct deb_package *package,
		      size_t *bad);

/* Installed, or from a list, which has no Status: not only configuration files left behind.
 */
bool deb_installed(const struct deb_package *package);

/* One name of Depends, Pre-Depends or Provides. */
struct deb_relation {
	struct deb_slice name; /* without version, architecture or profile */
	bool alternative;      /* stands behind a '|': another of the group came first */
};

/* The next name of *rest, which advances. false: none any more. Names that are none are
 * skipped. */
bool deb_next_relation(struct deb_slice *rest, struct deb_relation *relation);

#endif
