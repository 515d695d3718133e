/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * migrate.pml - a page that leaves and comes home (docs/migration.md).
 *
 * Model: the page of one place A (and B, where mremap takes it, and the child's that fork
 * makes), one frame, a CPU, a device, who migrates, pager, worker, copy engine, and threads
 * that change mappings (changes.pml). CPU, device and who migrates go on as long as they like.
 *
 * Each copy of the page says for which places it is what was last written there (bytes.pml).
 *
 * Checked: whoever reads, reads what was last written, or zeros after a drop (no byte lost,
 * none returns); a page at home has no entry that says AWAY; the pager's books are true when an
 * operation succeeds (L1); the frame is not used after it was given back; nobody waits for ever
 * (everything that may go on for long may also stop: who waits then is a deadlock).
 *
 * Laws of the model: as in gate.pml. The queue to the worker is a set ("forget what you
 * have of this place"). EAGAIN is waited for: the pager asks again by the clock. A
 * DONTNEED drops some time between its begin and its end, and may do so twice: a page that was
 * away when REMOVE was read, then what was written there before the zap (-DSTRICT forbids
 * that, and is refuted: a limit).
 * A device that uses system memory by its page instead of by address is the
 * strongest: its translation follows the page into the buffer.
 *
 * Each MUT_ macro breaks one rule; run.sh expects spin to find the failure.
 */
/* The size of the world; run.sh sets others. */
#ifndef PLACES
#define PLACES 1
#endif
#ifndef DROPS
#define DROPS 0		/* madvise(DONTNEED) */
#endif
#ifndef UNMAPS
#define UNMAPS 0	/* munmap; somebody maps anew there, when he likes */
#endif
#ifndef REMAPS
#define REMAPS 0	/* mremap from A to B */
#endif
#ifndef FORKS
#define FORKS 0		/* raw clone(): no handler ran */
#endif
#ifndef FAILS
#define FAILS 0		/* 1: copies may fail; munmap may, after it has told us */
#endif
#ifndef HOLE
#define HOLE 0		/* 1: nobody has touched the page when it begins */
#endif
#ifndef CPUS
#define CPUS 1
#endif
#ifndef DEVICES
#define DEVICES 1
#endif
#ifndef FETCHES
#define FETCHES 0	/* 1: somebody calls it home */
#endif
#ifndef TOUCHES
#define TOUCHES 0	/* 1: the driver's callback touches the page */
#endif

/* ---- the kernel ---- */
#define REMOVE 1
#define UNMAP 2
#define REMAP 3
#define FORK 4
/* who sleeps until its message is read */
#define DROPPER 0
#define UNMAPPER 1
#define REMAPPER 2
#define FORKER 3
bool mapped[2] = { true, false };
bool token[2] = { true, false };		/* the VMA is registered with our context */
bool missing[2];		/* for missing pages too */
byte changing = 0;		/* mmap_changing */
chan messages = [4] of { byte, byte, byte };	/* kind, place, who */
bool released[4];
bool pending[2];		/* a fault's message */
/* who sleeps in a fault */
#define CPU 0
#define CALLBACK 1
bool asleep[2];
byte at[2];
bool removing[2];		/* a DONTNEED of the place is between begin and zap */
bool kid_open, kid_missing, kid_runs, kid_mapped;
bool unread;			/* a munmap of A that the pager does not know of */
bool kid_drop;			/* fork and a DONTNEED overlapped: it may see either */

/* ---- the library ---- */
#define HOME 0
#define AWAY 1
#define LEAVING 2	/* MOVING, out */
#define COMING 3	/* MOVING, home */
byte books[2];
bool published;			/* `asked` is: no look at it is answered */
bool ev[2];			/* for the worker */
bool migrate_told = true;
bool unsettled[2];
bool asking, newer;		/* looks who is in madvise; a REMOVE was read since */
bool doubt[2];			/* registered MISSING, and no quiet was seen since */
bool judge[2];			/* an UNMAP or REMAP was read: whose is what is there? */
bool listed[2];			/* registered MISSING, as far as we know */
bool parked[2];
byte kind;			/* of the message that is being put into the books */
/* requests */
#define TAKE 1
#define FETCH 2
#define NEAR 3	/* take another page of that VMA: registers it whole */
byte request, asked;
/* transfers: one for leaving, one for coming home */
#define FREE 0
#define COPYING 1
#define COPIED 2
#define FAILED 3
#define ENDED 4
byte leave, leave_of, come, come_to;
bool leave_dropped, come_dropped;
bool come_kid;			/* for the child as well */

/* the frame */
#define TAKEN 1
#define BUSY 2
#define LIMBO 3
byte fstate;
bool ftell, ftold;		/* limbo: its event is in the queue; is done */
bool fkid;			/* an UNMAP dropped it, no quiet was seen since: for a child */
bool fuse;			/* which use of the frame this is */

/* ---- the driver ---- */
#define SYSTEM 1
#define FRAME 2
#define BUFFER 3		/* a system page that was taken from under it */
byte tlb, tplace, answer, dplace;
bool tuse, ause;
bool looking, changed, homed;	/* since read_begin: the sequence; the homing log */

#include "bytes.pml"

inline wake(s) {
	asleep[CPU] = asleep[CPU] && at[CPU] != s;
	asleep[CALLBACK] = asleep[CALLBACK] && at[CALLBACK] != s
}

/* A thread touches a place: it comes back when it has, or it is not mapped. */
inline touch(me, s) {
	do
	:: atomic { !mapped[s] -> break }
	:: atomic { mapped[s] && !home[s] && missing[s] ->
			asleep[me] = true; at[me] = s; pending[s] = true };
		!asleep[me]
	:: atomic { mapped[s] && (home[s] || !missing[s]) ->
			if
			:: !home[s] -> home[s] = THERE | ZEROS | (zero & BIT(s))
			:: else
			fi;
			use_home(s);
			break }
	od
}

inline place(s) {
	if
	:: s = A
#if PLACES > 1
	:: s = B
#endif
	fi
}

#if CPUS
active proctype cpu()
{
	do
	:: touch(CPU, A)
#if PLACES > 1
	:: touch(CPU, B)
#endif
	:: break
	od
}
#endif

/* ---- the pager ---- */

/* The program has given up what is away of the place. */
inline give_up(s, unmapped) {
	if
	:: books[s] == AWAY -> fstate = LIMBO; ftold = false; fkid = unmapped
	:: books[s] == LEAVING -> leave_dropped = true; fkid = unmapped
	:: books[s] == COMING -> come_dropped = true; fkid = unmapped
	:: else
	fi;
	books[s] = HOME
}

inline push_now(s) {
	ev[s] = true;
	ftell = (fstate == LIMBO && !ftold)
}
inline push(s) {
	atomic { push_now(s) }
}

/*
 * Judging, in two steps: is what is there the VMA whose pages we have (it is registered,
 * MISSING, and not by a REGISTER that may have hit its successor)? Then the probe: if no change
 * is pending that was true of all that was read.
 */
#ifdef MUT_MISSING_IS_PROOF
#define PROOF(s) missing[s]
#else
#define PROOF(s) (missing[s] && !doubt[s])
#endif

inline apply_unmap() {
	atomic {
		unread = unread && s != A;
#ifdef MUT_LIST_FORGETS
		listed[s] = false;
#else
		listed[s] = listed[s] && books[s];	/* else when it is judged */
#endif
#ifdef MUT_UNMAP_MEANS_GONE
		give_up(s, true);
#endif
		judge[s] = judge[s] || books[s]
	};
	push(s)
}

inline apply_remap() {
	atomic {
#ifndef MUT_REMAP_KEEPS
		give_up(B, true);	/* also when it brings no entry */
#endif
		if
		:: books[A] ->
			books[B] = books[A];
			if
			:: books[A] == LEAVING -> leave_of = B
			:: books[A] == COMING -> come_to = B
			:: else
			fi;
			books[A] = HOME
		:: else
		fi;
		listed[B] = false;
		listed[A] = false;
		judge[A] = false;
		judge[B] = books[B]
	};
	push(A);
	push(B)
}

/* The buffer's or the frame's bytes, to the child. */
inline child_copy(from) {
	if
	:: kid_mapped && !kid -> kid = THERE | (from & BIT(KID))
	:: else
	fi
}

inline begin_home(s) {
#ifdef MUT_LOG_FIRST
	homed = looking;
#endif
	books[s] = COMING;
#if !defined MUT_LOG_FIRST && !defined MUT_LOG_LATE
	homed = looking;
#endif
	atomic { come_to = s; come_dropped = false; come = COPYING }
}

#ifdef MUT_KID_GETS_DROPPED
#define FOR_KID true
#else
#define FOR_KID fkid
#endif
inline apply_fork() {
	if
	:: books[A] == AWAY -> come_kid = true; begin_home(A)
	:: books[A] == COMING -> come_kid = true
	:: books[A] == LEAVING -> atomic { child_copy(out); kid_open = false }
	:: else ->
		if
		:: fstate == LIMBO && FOR_KID && !come ->
			come_kid = true;
			atomic { come_dropped = true; come = COPYING }
		:: leave && leave_dropped && FOR_KID ->
			atomic { child_copy(out); kid_open = false }
		:: come && come_dropped && FOR_KID -> come_kid = true
		:: else -> kid_open = false
		fi
	fi
}

inline apply() {
	if
	:: kind == REMOVE ->
		atomic { unsettled[s] = true; newer = asking; give_up(s, false) };
		push(s)
	:: kind == UNMAP -> apply_unmap()
#if REMAPS
	:: kind == REMAP -> apply_remap()
#endif
#if FORKS
	:: kind == FORK -> apply_fork()
#endif
	fi
}

inline enter() {
	books[s] = LEAVING; leave_of = s; leave_dropped = false
}

#ifdef MUT_LIST_FORGETS
#define MAY_REGISTER(s) true
#else
#define MAY_REGISTER(s) (!judge[s])
#endif
/* What smaps says to be MISSING already is not registered, and so not in doubt. */
inline register(s) {
	if
	:: mapped[s] && !listed[s] && MAY_REGISTER(s) ->
		listed[s] = true;
		if
#ifndef MUT_REGISTER_AGAIN
		:: missing[s]
#endif
		:: else ->
			token[s] = true; missing[s] = true;
			doubt[s] = changing	/* the probe */
		fi
	:: else
	fi
}

/* Out, step 3: register; then the entry, then MOVE. */
inline take() {
	register(s);
#ifndef MUT_NO_UNSETTLED
	going = listed[s] && !judge[s] && !books[s] && !(home[s] & LOST) && !unsettled[s];
#else
	going = listed[s] && !judge[s] && !books[s] && !(home[s] & LOST);
#endif
	if
#ifndef MUT_ENTRY_LATE
	:: going -> enter()
#endif
	:: else
	fi
}

#ifdef MUT_MOVE_ANYWAY
#define MAY_MOVE (mapped[s] && token[s])
#else
#define MAY_MOVE (!changing)	/* else EAGAIN */
#endif
inline move_out() {
	if
	:: MAY_MOVE ->
		assert(mapped[s] && token[s]);	/* L1 */
		doubt[s] = false;
		if
		:: home[s] -> out = home[s]
		:: else -> out = THERE | ZEROS | (zero & BIT(s))	/* a hole */
		fi;
		tlb = (tlb == SYSTEM && tplace == s -> BUFFER : tlb);
		answer = (answer == SYSTEM && dplace == s -> BUFFER : answer);
#ifndef MUT_COPY_AND_ZAP
		home[s] = 0
#endif
	:: else -> books[s] = HOME
	fi
}

/* The frame is free, whoever has it still. */
inline frame_free() {
	fstate = FREE;
	fkid = false;
	frame = 0
}

/* MOVE back to where it belongs; the caller has seen that no change is pending. */
inline move_home(s, page) {
	assert(mapped[s] && missing[s] && !home[s]);	/* L1 */
	home[s] = page;
	doubt[s] = false;
	page = 0;
	wake(s)
}

/* MOVE may have become possible since a place was found that is to be judged. */
#ifdef MUT_PUT_UNJUDGED
#define JUDGED(s) true
#else
#define JUDGED(s) (!judge[s])
#endif

active proctype pager()
{
	byte s, who;
	bool going, ours;

end:	do
#ifndef MUT_BOOKS_LATE
	:: atomic { nempty(messages) -> messages?kind, s, who; released[who] = true };
		apply();
		atomic { kind = 0; s = 0; who = 0 }
#else
	:: atomic { !kind && nempty(messages) -> messages?kind, s, who; released[who] = true }
	:: kind -> apply();
		atomic { kind = 0; s = 0; who = 0 }
#endif
	:: atomic { pending[A] -> pending[A] = false; parked[A] = true }
	:: atomic { pending[B] -> pending[B] = false; parked[B] = true }
	/* faults: zeros where we have nothing */
#ifdef MUT_WAKE_IF_THERE
#define WAKE(s) if :: mapped[s] -> wake(s) :: else fi
#else
#define WAKE(s) wake(s)
#endif
#ifdef MUT_SETTLE_UNJUDGED
#define SETTLES(s) true
#else
#define SETTLES(s) (!judge[s])
#endif
#define SERVE(s) \
	:: atomic { parked[s] && !books[s] && !changing -> \
			if \
			:: mapped[s] && token[s] && !home[s] -> \
				home[s] = THERE | ZEROS | (zero & BIT(s)) \
			:: else	/* ENOENT, EEXIST: let him look again */ \
			fi; \
			WAKE(s); \
			parked[s] = false } \
	:: parked[s] && books[s] == AWAY && !come -> begin_home(s) \
	:: atomic { doubt[s] && !changing && SETTLES(s) -> doubt[s] = false } \
	:: atomic { judge[s] && !changing -> ours = mapped[s] && token[s] && PROOF(s) }; \
		atomic { \
			if \
			:: !changing -> \
				judge[s] = false; \
				if \
				:: ours -> listed[s] = true \
				:: else -> give_up(s, true); push_now(s); listed[s] = false \
				fi \
			:: else \
			fi; \
			ours = false }
	SERVE(A)
	SERVE(B)
	/* requests */
	:: atomic { request == TAKE -> s = asked; take() };
		if
		:: atomic { going ->
				move_out() };
#ifdef MUT_COPY_AND_ZAP
			home[s] = (out -> 0 : home[s]);
#endif
			atomic {
				if
				:: out -> leave = COPYING
#ifdef MUT_ENTRY_LATE
					; enter()
#endif
				:: else
				fi;
				going = false
			}
		:: else
		fi;
		atomic { s = 0; request = 0 }
	/* the MOVE of that page may answer EAGAIN */
	:: atomic { request == NEAR -> register(asked); request = 0 }
	:: request == FETCH && !come ->
		if
		:: books[asked] == AWAY -> begin_home(asked)
		:: else
		fi;
		request = 0
	/* the end of leaving */
	:: leave >= COPIED && leave < ENDED && leave_dropped && !changing ->
		atomic { out = 0; frame_free(); leave = ENDED }
	:: atomic { leave == COPIED && !leave_dropped ->
			books[leave_of] = AWAY; fstate = BUSY; out = 0; leave = ENDED }
	:: atomic { leave == FAILED && !leave_dropped && !changing && JUDGED(leave_of) ->
#ifdef MUT_NOT_BACK
			out = 0;
#else
			move_home(leave_of, out)
#endif
		};
		atomic { books[leave_of] = HOME; frame_free(); leave = ENDED }
	/* the end of coming home */
	:: atomic { come >= COPIED && come_kid ->
			child_copy(back); kid_open = false; come_kid = false }
	:: atomic { come >= COPIED && !come_kid && come_dropped && !changing ->
			back = 0; frame_free(); come = FREE }
	:: atomic { come >= COPIED && !come_kid && !come_dropped && !changing &&
		    JUDGED(come_to) ->
#ifdef MUT_LOG_LATE
			homed = looking;
#endif
			move_home(come_to, back) };
		atomic { books[come_to] = HOME; frame_free(); come = FREE }
	/* limbo */
	:: atomic { fkid && !changing -> fkid = false }
#ifdef MUT_FREE_BEFORE_TOLD
	:: atomic { fstate == LIMBO && !come && !changing -> frame_free() }
#else
	:: atomic { fstate == LIMBO && ftold && !come && !changing ->
			ftold = false; frame_free() }
#endif
	od
}

/* ---- the worker ---- */

active proctype worker()
{
	bool a, b, f, m;

end:	do
	:: atomic { ev[A] || ev[B] ->
			a = ev[A]; b = ev[B]; f = ftell; m = !migrate_told;
			ev[A] = false; ev[B] = false; ftell = false;
			changed = looking &&
				(changed || (dplace == A && a) || (dplace == B && b)) };
#if TOUCHES
		touch(CALLBACK, A);
#endif
		atomic {
			if
			:: (tplace == A && a) || (tplace == B && b) ->
				tlb = 0; tuse = false; tplace = 0
			:: else
			fi;
			ftold = ftold || (f && fstate == LIMBO);
			migrate_told = migrate_told || m;
			a = false; b = false; f = false; m = false }
	od
}

/* ---- the driver's copy engine ---- */

active proctype copier()
{
end:	do
	:: leave == COPYING ->
		if
		:: atomic { frame = out; leave = COPIED }
#if FAILS
		:: leave = FAILED
#endif
		fi
	:: come == COPYING ->
		atomic { tlb = (tlb == FRAME -> 0 : tlb) };	/* under the update lock */
		if
		:: atomic { back = frame; come = COPIED }
#if FAILS
		:: atomic { back = THERE | LOST; come = COPIED }
#endif
		fi
	od
}

/* ---- the device ---- */

#define STILL (!changing && empty(messages) && !ev[A] && !ev[B] && !removing[A] && !removing[B])

inline use() {
	if
	:: tlb == FRAME ->
		assert(fstate != FREE && tuse == fuse);
		assert(frame & (RIGHT | DROP));
		if
		:: frame & RIGHT ->
			if
			:: true
			:: who = frame & RIGHT; forget(who); frame = THERE | who; who = 0
			fi
		:: else
		fi
	:: tlb == BUFFER ->
		if
		:: out & RIGHT ->
			if
			:: true
			:: who = out & RIGHT; forget(who); out = THERE | who; who = 0
			fi
		:: else -> tlb = 0
		fi
	:: tlb == SYSTEM && mapped[tplace] && home[tplace] -> use_home(tplace)
	:: else
	fi
}

/* read_begin, look, lock, read_retry, install */
inline fault() {
	atomic {
		place(dplace);
		looking = true; changed = false; homed = false;
		token[dplace] = mapped[dplace]
	};
	if
	:: published && asked == dplace || judge[dplace] -> goto over
	:: else
	fi;
	atomic {
		b = books[dplace];
		if
		:: b == AWAY -> answer = FRAME; ause = fuse
		:: b == HOME && home[dplace] -> answer = SYSTEM
		:: else -> goto over
		fi
	};
	atomic {
		if
#ifdef MUT_NO_LOG
		:: !changed ->
#else
		:: !changed && !homed ->
#endif
			tlb = answer; tuse = ause; tplace = dplace
		:: else
		fi;
		goto over
	};
over:	atomic {
		looking = false; changed = false; homed = false;
		answer = 0; ause = false; dplace = 0; b = 0
	}
}

#if DEVICES
active proctype device()
{
	byte who, b;

	do
	:: atomic { tlb -> use() }
	:: mapped[A] || mapped[B] -> fault()
	:: break
	od
}
#endif

/* ---- who migrates ---- */

active proctype migrator()
{
	do
	:: atomic { fstate == FREE && leave == FREE ->
			fstate = TAKEN; fuse = !fuse;
			place(asked);
			published = true;
			token[asked] = mapped[asked];	/* it is mirrored */
#ifndef MUT_NO_MIGRATE
			ev[asked] = true; migrate_told = false
#endif
		};
		atomic { migrate_told -> newer = false; asking = true };
		atomic {
			if
			:: !removing[A] && !removing[B] ->	/* all seen outside madvise */
				unsettled[asked] = unsettled[asked] && newer
			:: true
			fi;
			newer = false;
			asking = false;
			request = TAKE
		};
		atomic { !request ->
			if
			:: !leave -> fstate = FREE; published = false
			:: else
			fi };
		if
		:: atomic { leave == ENDED -> leave = FREE; published = false }
		:: !published
		fi
#if UNMAPS
	:: atomic { place(asked); request = NEAR };
		!request
#endif
#if FETCHES
	:: atomic { place(asked); request = FETCH };
		!request
#endif
	:: break
	od
}

#include "changes.pml"

/*
 * While no change is pending: one owner (what is at home has no entry that says it is away),
 * and what the books say, at home, a hole, or the frame, is right.
 */
#define KNOWN(s) (mapped[s] && !changing && !kind && !removing[s] && !judge[s])
#define TWICE(s) (KNOWN(s) && home[s] && books[s] == AWAY)
#define WRONG(s) (KNOWN(s) && !((home[s] -> home[s] : \
	(books[s] == HOME -> zero : (books[s] == AWAY -> frame : BIT(s)))) & (BIT(s) | LOST)))

active proctype owner()
{
	bool one_owner, no_byte_lost;	/* never: spin says the name */

end:	atomic {
		TWICE(A) || TWICE(B) || WRONG(A) || WRONG(B) ->
		if
		:: TWICE(A) || TWICE(B) -> assert(one_owner)
		:: else -> assert(no_byte_lost)
		fi
	}
}
