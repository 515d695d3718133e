/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away_steps - a case begins with pages that are written and ends with them whole.
 */
#include <string.h>

#include "away_steps.h"

enum verdict steps_begin(struct steps *s, const void *options)
{
	TRY(zone_make(&s->zone, PAGES, 3));
	EXPECT(0, away_open(&s->dev, options));
	s->host = ((const struct away_options *)options)->host;
	s->m = (struct hmm_migrate){ .size = sizeof(s->m),
				     .devmem = away_devmem(s->dev),
				     .start = (uintptr_t)s->zone.at,
				     .end = (uintptr_t)s->zone.at + PAGES * PAGE,
				     .src = s->src,
				     .dst = s->dst };
	memset(s->src, 0xee, sizeof(s->src));
	memset(s->dst, 0, sizeof(s->dst));
	return PASS;
}

enum verdict steps_end(struct steps *s)
{
	TRY(zone_check(&s->zone, "in the end"));
	TRY(away_settles(s->dev, 0));
	zone_dispose(&s->zone);
	away_close(s->dev);
	return PASS;
}
