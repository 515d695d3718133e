/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_place - memory of one kind, and what becomes of it. Three units, each a page of its
 * kind; the second is what changes and what the peer uses.
 */
#ifndef ODP_PLACE_H
#define ODP_PLACE_H

#include "lab.h"

#define ODP_UNITS 3u
/* Seeds of lab_fill(): what is there at first, what the CPU puts there, what the peer does.
 */
#define ODP_A 0u
#define ODP_B 90u
#define ODP_W 180u

struct odp_kind {
	const char *name;
	size_t unit;
	/* -1 and errno: there is no such file here. NULL: without a file. */
	int (*file)(size_t length);
	int flags; /* of mmap */
};

struct odp_place {
	const struct odp_kind *kind;
	unsigned char *at;
	int fd;	   /* -1 without a file */
	int spare; /* of memory that came later */
	pid_t child;
	int tell[2]; /* the child goes on when it is closed */
};

extern const struct odp_kind odp_kinds[];
extern const unsigned odp_kind_count;

/* SKIP and the reason: not here. */
enum verdict odp_place_make(const struct odp_kind *kind, struct odp_place *p);
void odp_place_free(struct odp_place *p);
/* Bytes as they are in this process, also where it may not read: 0 or -errno. */
int odp_look(const void *at, void *to, size_t n);

/* A change of the second unit: 0, or -errno. */
int odp_nothing(struct odp_place *p);
int odp_touch(struct odp_place *p);
int odp_dontneed(struct odp_place *p);
int odp_unmap(struct odp_place *p);
int odp_unmap_and_map(struct odp_place *p);
int odp_map_over(struct odp_place *p);
int odp_move_away(struct odp_place *p);
int odp_protect_none(struct odp_place *p);
int odp_protect_read(struct odp_place *p);
int odp_punch(struct odp_place *p);
int odp_truncate(struct odp_place *p);
int odp_fork(struct odp_place *p);
/* What the child of that fork has there: is it what was there at first? */
bool odp_child_has_a(struct odp_place *p);

#endif
