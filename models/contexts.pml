/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * contexts.pml - the map says which context to ask (docs/gate.md).
 *
 * Model: one page, two contexts, two devices that share a page table. The gate itself is
 * taken as right (gate.pml shows that): a fence that asks a context returns when every
 * change of it that is pending has been delivered. What is checked here is that it asks
 * the right one, although registering and entering are two steps, although events of the
 * two contexts are delivered in any order, and although mremap brings a mapping
 * that another context has.
 *
 * Checked: G1, as in gate.pml.
 */
#ifndef TURNS
#define TURNS 3		/* of all devices together: a use or a fault */
#endif
#ifndef CHANGES
#define CHANGES 2
#endif
#ifndef DEVICES
#define DEVICES 1
#endif
#define NONE 2		/* no context; the contexts are 0 and 1 */

/* ---- the kernel ---- */
byte gen = 1;		/* of what is mapped */
byte on = NONE;		/* which context has the VMA */
byte unread[2];		/* changes of a context whose message is not handed over */

/* ---- the library ---- */
byte queued[2];		/* handed to the worker, not yet done */
byte entry = NONE;		/* the map: which context to ask */
bool moved[2];		/* the queued change is a REMAP to the page: claim it afterwards */
byte leaving = NONE;	/* whose event has last taken something out of the map */
byte nseq = 0;
bool register_lock = false;

/* ---- the driver ---- */
byte table = 0;

inline lock(l) { atomic { !l -> l = true } }
inline unlock(l) { l = false }

/*
 * UFFDIO_REGISTER (EBUSY when the other context has it) and entering, as one step: an event
 * delivered in between would find nothing to erase, and the entry that comes after it
 * would name a context that the VMA does not have. (The library starts over then.)
 */
inline try(ctx) {
	atomic {
		ok = (on == NONE || on == ctx);
		if
		:: ok ->
			on = ctx;
#ifndef MUT_ENTER_LATE
			entry = ctx
#endif
		:: else
		fi
	};
#ifdef MUT_ENTER_LATE
	if
	:: ok -> entry = ctx
	:: else
	fi
#endif
}

active proctype reader()
{
end:	do
	:: atomic { unread[0] -> queued[0] = queued[0] + unread[0]; unread[0] = 0 }
	:: atomic { unread[1] -> queued[1] = queued[1] + unread[1]; unread[1] = 0 }
	od
}

/* Erase what is this context's, raise, call back; then claim for it what was moved here. */
inline deliver(c) {
	atomic {	/* under the map's lock */
		leaving = c;
		if
		:: entry == c -> entry = NONE
		:: else
		fi
	};
	nseq++;
	atomic { table = 0; claim = moved[c]; moved[c] = false };
	if
	:: claim ->
		lock(register_lock);
		if
		:: entry == NONE && on == c ->
			try(c);
			ok = false
		:: else
		fi;
		unlock(register_lock)
	:: else
	fi;
	queued[c]--
}

active proctype worker()
{
	bool claim, ok;

end:	do
	:: queued[0] -> deliver(0)
	:: queued[1] -> deliver(1)
	od
}

/* The gate of the context that the map names; and what was handed over of the one whose
 * entry the worker has last taken out. */
inline fence() {
	atomic { c = entry; out = leaving };
	if
	:: c != NONE -> !unread[c] && !queued[c]
	:: else
	fi;
	if
	:: out != NONE -> !queued[out]
	:: else
	fi;
	out = 0
}

inline fault() {
	s = nseq;
	if
	:: entry == NONE || force ->
		lock(register_lock);
		force = false;
		c = (entry == NONE -> 0 : entry);
		if
		:: c == 0 -> try(0)
		:: else -> try(1)
		fi;
		/* Somebody else's: an old entry goes only with its own event, or after a CLEAR. */
		if
		:: !ok && entry == NONE -> try(1 - c)
		:: !ok && entry != NONE -> clear = true
		:: ok
		fi;
		unlock(register_lock)
	:: else
	fi;
	if
	:: clear && !ok ->
		/* All that is pending in the context the entry names, then tell, then change it. */
		fence();
		nseq++;
		table = 0;
		lock(register_lock);
		try(0);
		if
		:: !ok -> try(1)
		:: else
		fi;
		unlock(register_lock);
		clear = false
	:: !clear && !ok	/* refused by both: it moved meanwhile; again */
	:: !clear && ok ->
		look = gen;
		if
		:: on == NONE -> force = true	/* the token */
		:: else ->
			atomic {
				if
				:: nseq == s -> table = look
				:: else
				fi
			}
		fi;
		look = 0
	fi;
	s = 0;
	ok = true
}

byte turns = TURNS;

active [DEVICES] proctype device()
{
	byte floor, look, s, c, out;
	bool force, clear;
	bool ok = true;

	do
	:: atomic { turns -> turns--; floor = gen };
		fence();
		if
		:: atomic { table -> assert(table >= floor) }	/* G1 */
		:: fault()
		fi;
		floor = 0;
		c = 0
	:: !turns -> break
	od
}

/*
 * munmap and mmap anew, at once (gate.pml has them apart); or mremap of a mapping over the
 * page that context 0 or 1 has, elsewhere, already.
 */
active proctype program()
{
	byte changes = CHANGES;

	do
	:: atomic { changes ->
			changes--;
			gen++;
			if
			:: on == NONE
			:: on != NONE -> unread[on]++
			fi;
			if
			:: on = NONE
			:: on = 0; unread[0]++; moved[0] = true
			:: on = 1; unread[1]++; moved[1] = true
			fi
		}
	:: true -> break
	od
}
