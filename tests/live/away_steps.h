/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* away_steps - a device, a zone, and the entries of a migration in three steps. */
#ifndef LIVE_AWAY_STEPS_H
#define LIVE_AWAY_STEPS_H

#include "away.h"

#define PAGES 16u

struct steps {
	struct away *dev;
	bool host;
	struct zone zone;
	uint64_t src[HMM_MIGRATE_MAX], dst[HMM_MIGRATE_MAX], frames[HMM_MIGRATE_MAX];
	struct hmm_migrate m; /* of the whole zone */
};

/* PAGES pages, at home, and a device; `options` are its struct away_options. */
enum verdict steps_begin(struct steps *s, const void *options);
/* All is as the model says, no frame is in use. */
enum verdict steps_end(struct steps *s);

#endif
