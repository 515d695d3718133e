/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * say - errors in words: the driver's own sentence, else the library's.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "edu_private.h"

static __thread struct {
	int err; /* 0: nothing was said */
	char text[400];
} said;

int edu_say(int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(said.text, sizeof(said.text), fmt, args);
	va_end(args);
	said.err = err;
	return err;
}

void edu_hush(void)
{
	said.err = 0;
}

const char *edu_strerror(int err)
{
	err = -abs(err);
	return err && said.err == err ? said.text : hmm_strerror(err);
}
