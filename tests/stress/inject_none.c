/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* inject_none - with the shared library nothing can be made to fail. */
#include "stress.h"

bool inject_there(void)
{
	return false;
}

void inject_rate(unsigned rate)
{
}

uint64_t inject_count(void)
{
	return 0;
}

void inject_thread_start(unsigned nth)
{
}

void inject_arena(unsigned nth)
{
}
