/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * gate.pml - the gate that keeps translations from being stale (docs/gate.md).
 *
 * Model: one page, one userfaultfd context, two devices that share a page table,
 * and everything that can happen to the page. What is mapped there has a generation;
 * munmap ends it and mmap begins the next. The devices run the documented loop
 * (fence, look up, else read_begin, register, look, token, lock, retry, install)
 * and remember the generation they looked at.
 *
 * Checked: G1 and G2 as assertions (a translation whose generation was over when the
 * fence was called is never used, nor installed), no deadlock (every process ends or
 * rests at its end label), and that a full queue loses nothing.
 *
 * Laws of the model: memory is sequentially consistent (docs/gate.md says which fences
 * make it so); a statement is one access to shared memory or one system call; what the
 * kernel does under its mm lock is one atomic step. EAGAIN of the probe is waited for or
 * answered by a CLEAR, freely chosen, so that the time limit needs no clock.
 *
 * Each MUT_ macro breaks one rule; run.sh expects spin to find the failure.
 */
/* The size of the world; run.sh sets others. */
#ifndef DEVICES
#define DEVICES 2
#endif
#ifndef TURNS
#define TURNS 3		/* of all devices together: a use or a fault */
#endif
#ifndef UNMAPS
#define UNMAPS 2	/* munmap or MAP_FIXED */
#endif
#ifndef MAXGEN
#define MAXGEN 3
#endif
#ifndef CLEARS
#define CLEARS 1	/* fences that give up waiting */
#endif
#ifndef FAILS
#define FAILS 0		/* 1: a munmap may fail after it has told us */
#endif
#ifndef FORKS
#define FORKS 0		/* processes that fork */
#endif
#ifndef NESTED
#define NESTED 0	/* changes made by callbacks */
#endif
#define RING 1		/* slots of the queue: the smallest overflows soonest */

/* who sleeps in a system call */
#define UNMAPPER 0
#define CALLBACK 1
#define FORKER 2
#define SLEEPERS 3

/* what a message, an event or a request says */
#define UNMAP 1		/* the page went */
#define ELSEWHERE 2	/* fork, or a change of another page: nothing to forget here */
#define CLEAR 3		/* "look again", asked for by a fence that cannot wait */
#define ALL 4		/* the queue was full: everything counts as changed */

/* ---- the kernel ---- */
byte gen = 1;			/* of what is mapped, or was mapped last */
bool mapped = true;
bool registered = true;		/* this very VMA sends messages */
byte changing = 0;		/* mmap_changing of the context */
chan messages = [SLEEPERS] of { byte, byte };	/* kind, who sleeps until it is read */
bool released[SLEEPERS];

/* The generations below this are over. */
#define FLOOR (mapped -> gen : gen + 1)

/* ---- the library ---- */
byte seq = 0;			/* odd: the reader is between "close" and "handed over" */
byte pushed = 0, done = 0;	/* events handed to the worker; processed */
byte slots[RING];		/* event n, from 0, is in slot n % RING */
byte dropped = 0;		/* every dropped event's number is below this */
byte asked = 0, answered = 0;	/* CLEARs */
bool in_map = true;		/* `vmas` has the page */
byte nseq = 0;			/* the notifier's sequence */

/* ---- the driver and the program ---- */
byte table = 1;			/* generation of the translation, 0 none */
bool driver_lock = false;
bool malloc_lock = false;
byte nested = NESTED;
byte turns = TURNS;

inline lock(l) { atomic { !l -> l = true } }
inline unlock(l) { l = false }

/* mm lock dropped already, `changing` raised already: queue, sleep until read, go on. */
inline notify(kind, me) {
	messages!kind, me;
	atomic { released[me] -> released[me] = false; changing-- }
}

/* ---- what an event brings about: erase, raise, call ---- */

/* A callback may malloc, and may munmap memory that is mirrored. */
inline invalidate(kind) {
#if FORKS
	lock(malloc_lock);
	unlock(malloc_lock);
#endif
	if
	:: atomic { nested -> nested--; changing++ };
		notify(ELSEWHERE, CALLBACK)
	:: true
	fi;
	if
	:: kind != ELSEWHERE -> atomic { !driver_lock -> table = 0 }
	:: else
	fi
}

/* ALL leaves the map alone; the token finds the entries that are out of date. */
inline erase(kind) {
	if
	:: kind == UNMAP -> in_map = false
	:: else
	fi
}

inline process(kind) {
#ifndef MUT_ERASE_LATE
	erase(kind);
#endif
#ifdef MUT_SEQ_AFTER_CALLBACK
	invalidate(kind);
	nseq++;
#elif defined MUT_CLEAR_KEEPS_SEQ
	if
	:: kind != CLEAR -> nseq++
	:: else
	fi;
	invalidate(kind);
#else
	nseq++;
	invalidate(kind);
#endif
#ifdef MUT_ERASE_LATE
	erase(kind);
#endif
	skip
}

/* ---- the reader: takes no lock, waits for nobody ---- */

inline push(kind) {
#ifdef MUT_READER_WAITS
	pushed - done < RING;
#endif
	if
	:: pushed - done < RING -> slots[pushed % RING] = kind
	:: else ->
#ifdef MUT_COLLAPSE_LATE
		pushed++;
		dropped = pushed;
		goto handed
#elif defined MUT_COLLAPSE_FLAG
		dropped = 1
#else
		dropped = pushed + 1	/* before `pushed` says that it is there */
#endif
	fi;
	pushed++
#ifdef MUT_COLLAPSE_LATE
handed:	skip
#endif
}

active proctype reader()
{
	byte kind, who;

end:	do
	:: atomic { nempty(messages) ->
#ifdef MUT_READ_BEFORE_CLOSE
		messages?kind, who; released[who] = true };
		seq++;
#else
		seq++ };
		atomic { messages?kind, who; released[who] = true };
#endif
#ifdef MUT_ONE_THREAD
		process(kind);
#else
		push(kind);
#endif
		seq++;
		kind = 0;
		who = 0
	od
}

/* ---- the worker: calls the drivers ---- */

#ifndef MUT_ONE_THREAD
active proctype worker()
{
	byte kind, upto;

end:	do
	:: pushed != done ->
		upto = pushed;
#ifdef MUT_COLLAPSE_FLAG
		if
		:: dropped -> dropped = 0; kind = ALL
#else
		if
		:: dropped > done -> kind = ALL
#endif
		:: else -> kind = slots[done % RING]; upto = done + 1
		fi;
		process(kind);
		done = upto;
		kind = 0;
		upto = 0
	:: asked != answered ->
		upto = asked;
		process(CLEAR);
		answered = upto;
		upto = 0
	od
}
#endif

/* ---- the fence ---- */

/* Clobbers s and t of the caller. */
inline fence() {
	if
	:: in_map ->
		do
		:: s = seq;
			if
			:: s % 2 -> seq != s	/* futex */
			:: else ->
#ifndef MUT_NO_PROBE
				if
				:: changing -> /* EAGAIN */
					if
					:: !changing	/* sleep, try again */
					:: atomic { asked < CLEARS -> asked++; t = asked };
						answered >= t;
						break
					fi
				:: else
#endif
#ifdef MUT_NO_RECHECK
					break
#else
					if
					:: seq == s -> break
					:: else
					fi
#endif
#ifndef MUT_NO_PROBE
				fi
#endif
			fi
		od;
		t = pushed;
		done >= t
	:: else ->
#ifdef MUT_ERASED_NO_WAIT
		skip
#else
		/* The worker may just have erased it, with the callback still to come. (The
		 * library waits if the range is the one that was last erased.) */
		t = pushed;
		done >= t
#endif
	fi;
	s = 0;
	t = 0
}

/* ---- a device ---- */

/* What follows the fence of a read_begin; -EFAULT and "again" both end it. */
inline fault() {
#ifdef MUT_LOOK_BEFORE_REGISTER
	atomic { s = nseq; look = (mapped -> gen : 0) };
#else
	s = nseq;
#endif
	if
	:: !in_map || force ->
#ifdef MUT_TRUST_EARLY
		in_map = true;
		registered = mapped
#else
		/* UFFDIO_REGISTER under the map's lock: no one trusts an entry before. */
		atomic {
			if
			:: mapped -> registered = true; in_map = true
			:: else -> goto over	/* a hole: -EFAULT */
			fi
		}
#endif
	:: else
	fi;
#ifndef MUT_LOOK_BEFORE_REGISTER
	look = (mapped -> gen : 0);
#endif
	if
	:: !look
#ifndef MUT_NO_TOKEN
	:: look && !registered -> force = true	/* PM_SCAN_CHECK_WPASYNC: -EPERM, or a hole */
	:: look && registered ->
#else
	:: look ->
#endif
		/* lock; read_retry */
		atomic { !driver_lock -> driver_lock = true; s = (s == nseq) };
		/* install; unlock */
		atomic {
			if
			:: s ->
				assert(look >= floor);	/* G2 */
				table = look
			:: else
			fi;
			driver_lock = false
		}
	fi;
over:	look = 0;
	s = 0
}

active [DEVICES] proctype device()
{
	byte floor, look, s, t;
	bool force;

	do
	:: atomic { turns -> turns--; floor = FLOOR };
		fence();
		if
		:: atomic { table ->
			assert(table >= floor) }	/* G1: a hit */
		:: fault()			/* a miss, or the device wants more */
		fi;
		floor = 0
	:: !turns -> break
	od
}

/* ---- the program ---- */

active proctype unmapper()
{
	byte ops = UNMAPS;
	bool told, still;

	do
	:: atomic { ops && mapped -> ops--;
			if
			:: mapped = false
			:: gen < MAXGEN -> gen++	/* MAP_FIXED over it */
			:: FAILS -> still = registered	/* told all the same */
			fi;
			told = registered;
			registered = still;
			still = false;
			changing = changing + told };
		if
		:: told -> notify(UNMAP, UNMAPPER)
		:: else
		fi;
		told = false
	:: !mapped && gen == MAXGEN -> break	/* nobody maps it again */
	:: !ops -> break
	od
}

/* Takes the address as soon as it is free, the munmap's caller still asleep. */
active proctype mapper()
{
end:	do
	:: atomic { !mapped && gen < MAXGEN -> gen++; mapped = true }
	od
}

#if FORKS
/* fork() holds malloc's lock until its message has been read. */
active proctype forker()
{
	lock(malloc_lock);
	changing++;
	notify(ELSEWHERE, FORKER);
	unlock(malloc_lock)
}
#endif
