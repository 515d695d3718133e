/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * serve - a target in a program that knows nothing of it: this library, preloaded.
 *
 *	UHMM_ODP_SERVE	where to listen, "tcp://127.0.0.1:0"; without it nothing happens
 *	UHMM_ODP_ACCESS	letters of r (get), w (put), a (atomics); all if it is not set
 *	UHMM_ODP_FILE	where address and key are written to, for its owner only
 *	UHMM_ODP_PID	which process is meant; if it is not set: this one, until it executes
 *			another program
 *
 * `uhmm odp serve` sets them. All memory of the process is one region. Its children are not
 * served, whatever they execute. It itself is when it executes another program, with a new key:
 * what a user calls a program often is a script that executes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "odp_private.h"

static unsigned access_named(const char *letters)
{
	unsigned access = 0;

	if (!letters)
		return ODP_READ | ODP_WRITE | ODP_ATOMIC;
	for (; *letters; letters++) {
		if (*letters == 'r')
			access |= ODP_READ;
		else if (*letters == 'w')
			access |= ODP_WRITE;
		else if (*letters == 'a')
			access |= ODP_ATOMIC;
		else
			return 0;
	}
	return access;
}

/* Who finds the file finds all of it. */
static int tell(const char *file, const char *address, const struct odp_key *key)
{
	char text[ODP_KEY_TEXT], line[512], part[4096];
	int fd, n, err = 0;

	if (snprintf(part, sizeof(part), "%s.part", file) >= (int)sizeof(part))
		return -ENAMETOOLONG;
	n = snprintf(line, sizeof(line), "%s %s %d\n", address, odp_key_print(key, text),
		     (int)getpid());
	unlink(part);
	fd = open(part, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, line, (size_t)n) != n)
		err = -EIO;
	close(fd);
	if (!err && rename(part, file))
		err = -errno;
	return err;
}

static int serve(const char *where)
{
	const char *file = getenv("UHMM_ODP_FILE");
	unsigned access = access_named(getenv("UHMM_ODP_ACCESS"));
	struct odp_place place;
	struct odp_target_options options = { .size = sizeof(options),
					      .provider = place.provider,
					      .node = place.node,
					      .service = place.service };
	struct odp_target *target;
	struct odp_region *region;
	struct odp_key key;
	int err = access && file ? place_parse(&place, where) : -EINVAL;

	if (!err)
		err = odp_target_open(&options, &target);
	if (!err)
		err = odp_region_create(target, 0, UINTPTR_MAX, access, &region);
	if (err)
		return err;
	odp_region_key(region, &key);
	return tell(file, odp_target_address(target), &key);
}

__attribute__((constructor)) static void served(void)
{
	const char *pid = getenv("UHMM_ODP_PID");
	char *where = getenv("UHMM_ODP_SERVE");
	int err;

	if (!where || (pid && strtol(pid, NULL, 10) != getpid()))
		return;
	where = strdup(where);
	if (!pid)
		unsetenv("UHMM_ODP_SERVE");
	err = where ? serve(where) : -ENOMEM;
	if (!err) {
		free(where);
		return;
	}
	/* It was asked to be reachable, and is not: it shall not run as if it were. */
	fprintf(stderr, "uhmm odp: this program cannot be served at %s: %s\n", where,
		err == -ENODEV ? "libfabric has no such provider here (fi_info -l)"
			       : hmm_strerror(err));
	_exit(125);
}
