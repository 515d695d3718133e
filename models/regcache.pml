/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * regcache - the word of a region (src/core/regcache.h): found without a lock, over, and used anew.
 *
 * One region, two addresses, so that whoever looked it up for one may find it to be the other's.
 * Memory of an address is a number that each change raises; a change is delivered by the worker, and
 * a fence waits for that. Each atomic operation of the code is one step; what is under `lock` is one,
 * but for what is done after it was dropped.
 *
 * Must hold: who holds a region has a registration, of the address asked for, and of no older memory
 * than when the get began (R1); everything is deregistered once, and nothing is forgotten (R2).
 */
#define ADDRESSES 2
#ifndef GETS
#define GETS 2 /* of each getter */
#endif
#ifndef GETTERS
#define GETTERS 2
#endif
#ifndef CHANGES
#define CHANGES 2
#endif

/* The word. */
bool live, reg, chg;
byte refs;

/* The region's fields, and what the driver has registered. */
bool listed, making;
byte address, memory; /* of which, and how old */
bool registered;

bool table[ADDRESSES]; /* the region is what it names */
byte now[ADDRESSES];   /* memory as it is */
bool pending[ADDRESSES];
byte running;

inline dereg()
{
	assert(registered); /* once */
	registered = false
}

/* What the lock is held for is one step; then, without it, the driver; then the region is free. */
inline end_claimed()
{
	dereg();
	atomic { listed = false; making = false; chg = false; address = ADDRESSES }
}

inline drop()
{
	atomic {
		refs--;
		last = refs == 0 && !live && reg
	}
	if
	:: last ->
#ifdef MUT_PLAIN_CLAIM
		mine = true;
		reg = false;
#else
		atomic { mine = refs == 0 && !live && reg; if :: mine -> reg = false :: else fi }
#endif
		if
		:: mine -> end_claimed()
		:: else
		fi
	:: else
	fi
}

/* Under the lock: an event, or an eviction (which wants it idle). */
inline over(why)
{
	live = false;
	chg = chg || why;
	mine = false;
	if
	:: reg && !making && refs == 0 -> reg = false; mine = true
#ifdef MUT_TAKE_FROM_HOLDERS
	:: reg && !making && refs != 0 -> reg = false; mine = true
#endif
	:: else
	fi;
	table[0] = false;
	table[1] = false
}

proctype getter()
{
	byte a, before, rounds = 0;
	bool seen, last, mine, fits;

	do
	:: rounds == GETS -> break
	:: rounds < GETS ->
		rounds++;
		if :: a = 0 :: a = 1 fi;
		before = now[a];
#ifndef MUT_UNFENCED
		!pending[a]; /* the fence */
#endif
		seen = table[a];
		if
		:: seen ->
			atomic { refs++; fits = live }
#ifdef MUT_NO_LIVE
			fits = true;
#endif
#ifndef MUT_NO_ADDRESS
			if :: fits -> fits = address == a :: else fi;
#endif
			if
			:: fits -> goto held
			:: else -> drop()
			fi
		:: else
		fi;
		/* A miss; the only region may be in use. */
		atomic {
			mine = !listed;
			if :: mine -> listed = true; making = true; address = a :: else fi
		}
		if
		:: !mine -> goto next
		:: else
		fi;
		!pending[a]; /* read_begin, and the fault */
		registered = true;
		memory = now[a];
		atomic {
			mine = chg; /* then it is taken back */
#ifdef MUT_NO_MARK
			mine = false; chg = false;
#endif
			if
			:: !mine ->
				making = false; reg = true; refs++;
				live = true; table[a] = true
			:: else
			fi
		}
		if
		:: mine -> end_claimed(); goto next
		:: else
		fi;
held:		assert(registered && address == a && memory >= before);
		assert(registered && address == a); /* while it is used */
		drop();
next:		skip
	od;
	running--
}

proctype changer()
{
	byte changes = 0;

	do
	:: changes == CHANGES -> break
	:: changes < CHANGES ->
		changes++;
		if
		:: atomic { now[0]++; pending[0] = true }
		:: atomic { now[1]++; pending[1] = true }
		fi
	od;
	running--
}

/* It also evicts, whenever it likes. */
proctype worker()
{
	bool mine;
	byte a, taken;

	do
	:: pending[0] || pending[1] ->
		if :: pending[0] -> a = 0 :: pending[1] -> a = 1 fi;
		taken = now[a];
		atomic {
			mine = false;
			if
			:: listed && address == a -> over(true)
			:: else
			fi
		}
		if :: mine -> end_claimed() :: else fi;
		/* Delivered, unless there is a later one. */
		atomic { if :: now[a] == taken -> pending[a] = false :: else fi }
	:: atomic { live && refs == 0 -> over(false) }
		if :: mine -> end_claimed() :: else fi
	:: running == 0 && !pending[0] && !pending[1] -> break
	od;
	/* Nobody is left: what is registered is found, or in no hands. */
	assert(registered == live && registered == reg && refs == 0)
}

init {
	atomic {
		byte i = 0;

		address = ADDRESSES;
		running = GETTERS + 1;
		do
		:: i < GETTERS -> run getter(); i++
		:: else -> break
		od;
		run changer();
		run worker()
	}
}
