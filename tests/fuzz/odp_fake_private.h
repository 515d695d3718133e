/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* odp_fake_private - what the fake's two halves, fabric and memory, say to each other. */
#ifndef ODP_FAKE_PRIVATE_H
#define ODP_FAKE_PRIVATE_H

#include "odp_fake.h"

extern struct odp_target fake_target;

/* By the fuzzer's own reckoning: may who has this key do that there, now? */
bool fake_allowed(const struct odp_key *key, uint64_t addr, uint64_t length, unsigned need);

void fake_mm_begin(uint8_t how);
void fake_mm_calm(void);
void fake_mm_end(void);

#endif
