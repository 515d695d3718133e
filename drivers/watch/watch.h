/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* watch - have the changes of a range reported, without programming anything. */
#ifndef UHMM_DRIVERS_WATCH_H
#define UHMM_DRIVERS_WATCH_H

#include <uhmm/hmm.h>

/**
 * watch_range() - from its return on, changes of the range are told to @notifier
 * @hmm: own mirror; @notifier: of the whole address space
 * @addr, @length: any; rounded to pages
 *
 * Context: any thread, not inside a callback; waits for the worker. Locks: none that a
 * callback takes. Return: 0; -EOPNOTSUPP some of it cannot be mirrored, or nothing is
 * mapped there; -EAGAIN it never stopped changing; -EOVERFLOW; -ENOMEM; -ENODEV; -EDEADLK.
 */
int watch_range(struct hmm *hmm, struct hmm_notifier *notifier, uintptr_t addr,
		size_t length);

#endif
