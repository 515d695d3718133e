/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* odp_peers - a target in a process of its own, and peers that are bad to it. */
#ifndef ODP_PEERS_H
#define ODP_PEERS_H

#include <uhmm/odp.h>

#include "live.h"

#define MEMORY ((size_t)16 << 20)
#define GONE ((size_t)1 << 20)
#define WIDE ((size_t)1 << 30)
/* A scheduler's turn or two on a machine that is busy; far below any limit of time. */
#define PATIENCE_MS 2000u

/* Shared with the target's process. */
struct served {
	pid_t pid;
	_Atomic bool up;
	char *memory; /* there; word_at() in its first half */
	char *gone;   /* GONE bytes that are dropped all the time: each get has to fault */
	char *wide;   /* WIDE bytes, for those who cannot have enough */
	char address[192];
	struct odp_key key;
	struct odp_target_stats stats; /* a moment old */
};
extern struct served *served;

static inline uint64_t word_at(size_t at)
{
	return at * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

struct bad_peer {
	const char *name;
	enum verdict (*run)(const struct bad_peer *self);
	unsigned how;
	bool breaks; /* the target has to call it a breach of the protocol */
};
extern const struct bad_peer bad_peers[];
extern const unsigned bad_peers_n;

enum verdict served_begin(void);
unsigned served_fds(void);
unsigned served_kb(void);

#endif
