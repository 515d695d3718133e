/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * changes.pml - the threads that change mappings (for migrate.pml): DONTNEED, munmap and
 * somebody who maps anew, mremap, fork and its child. What the kernel does under the mm's lock
 * is one step; the message is queued some time after it.
 */
inline notify(kind, s, me) {
	messages!kind, s, me;
	atomic { released[me] -> released[me] = false; changing-- }
}

#if DROPS
active proctype dropper()
{
	byte n = DROPS, s;
	bool told;

	do
	:: atomic { n -> n--; place(s);
			if
			:: mapped[s] ->
				told = token[s]; changing = changing + told; removing[s] = true;
				kid_drop = kid_drop || (kid_open && !kid_runs)
			:: else
			fi };
		if
		:: told -> notify(REMOVE, s, DROPPER)
		:: else
		fi;
		atomic {
			if
			:: mapped[s] && removing[s] ->
#ifdef STRICT
				assert(!late);
				early = false;
#endif
				home[s] = 0; drop(s)
			:: else
			fi;
			removing[s] = false; told = false }
	:: break
	od
}
#endif

#if UNMAPS
active proctype unmapper()
{
	byte n = UNMAPS, s;
	bool told;

	do
	:: atomic { n -> n--; place(s);
			if
			:: mapped[s] ->
				told = token[s];
				unread = told && s == A;
				changing = changing + told;
				if
#if FAILS
				:: true
#endif
				:: home[s] = 0; drop(s); zero = WITHOUT(zero, BIT(s));
					mapped[s] = false; token[s] = false; missing[s] = false
				fi
			:: else
			fi };
		if
		:: told -> notify(UNMAP, s, UNMAPPER)
		:: else
		fi;
		told = false
	:: break
	od
}

active proctype mapper()
{
end:	do
	:: atomic { !mapped[A] -> mapped[A] = true; zero = zero | BIT(A) }
#if PLACES > 1
	:: atomic { !mapped[B] -> mapped[B] = true; zero = zero | BIT(B) }
#endif
	od
}
#endif

#if REMAPS
active proctype remapper()
{
	bool told;

end:	atomic {
		mapped[A] && !mapped[B] ->
		told = token[A];
		changing = changing + 2 * told;
		home[B] = MOVED(home[A]); home[A] = 0;
		zero = WITHOUT(zero, BIT(B));
		EVERYWHERE(MOVED);
		mapped[B] = true; token[B] = token[A]; missing[B] = missing[A];
		mapped[A] = false; token[A] = false; missing[A] = false
	};
	if
	:: told -> notify(REMAP, A, REMAPPER); notify(UNMAP, A, REMAPPER)
	:: else
	fi
}
#endif

#if FORKS
active proctype forker()
{
	bool told;

	atomic {
#ifndef MUT_FORK_OVER_NEW
		!fkid && !unread ->	/* a limit: see README.md */
#endif
		told = token[A];
		changing = changing + told;
		kid_mapped = mapped[A]; kid_missing = missing[A]; kid_open = told;
		kid_drop = removing[A];
		EVERYWHERE(SHARED);
		kid = (home[A] -> SHARED(home[A]) : 0)
	};
	if
	:: told -> notify(FORK, A, FORKER)
	:: else
	fi;
	kid_runs = true
}

active proctype child()
{
end:	kid_runs;
	atomic {
		/* else it waits in a fault */
		!kid_mapped || kid || !kid_missing || !kid_open ->
		if
		:: kid_mapped && !kid -> kid = THERE | ZEROS | (zero & BIT(KID))
		:: else
		fi;
		assert(!kid_mapped || kid & (BIT(KID) | LOST) || (kid & ZEROS && kid_drop))
	}
}
#endif
