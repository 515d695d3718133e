/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * bytes.pml - what a copy of the page is worth (for migrate.pml).
 *
 * Bytes are not counted: each copy of the page (at home, in the two buffers, in the frame, at
 * the child's, and the zeros of a hole) says for which places it is what was last written
 * there. A write takes that from the other copies; a copy takes it along; a drop leaves zeros
 * right.
 */

/* A copy of the page: bit s: it is right for place s. */
#define A 0
#define B 1
#define KID 2		/* place A of the child */
#define RIGHT 7
#define DROP 8		/* it was, when somebody dropped it */
#define THERE 16
#define ZEROS 32	/* nobody has written to it */
#define LOST 64		/* poison: touching it is SIGBUS */
#define BIT(s) (1 << (s))
#define WITHOUT(x, bits) ((x) & (127 - (bits)))
#define DROPPED(x, bit) ((x) & (bit) -> WITHOUT(x, bit) | DROP : (x))
#if HOLE	/* nobody has touched it yet */
byte home[2], zero = BIT(A);
#else
byte home[2] = { 17, 0 };	/* THERE, right for A */
byte zero = 0;
#endif
byte out, back, frame, kid;

inline forget(bits) {
	zero = WITHOUT(zero, bits);
	home[A] = WITHOUT(home[A], bits);
	home[B] = WITHOUT(home[B], bits);
	out = WITHOUT(out, bits);
	back = WITHOUT(back, bits);
	frame = WITHOUT(frame, bits);
	kid = WITHOUT(kid, bits)
}

inline drop(s) {
	home[A] = DROPPED(home[A], BIT(s));
	home[B] = DROPPED(home[B], BIT(s));
	out = DROPPED(out, BIT(s));
	back = DROPPED(back, BIT(s));
	frame = DROPPED(frame, BIT(s));
	zero = zero | BIT(s)
}

/* What was right for A is right for B (bits 0 and 1), or for the child too. */
#define MOVED(x) ((x) & BIT(A) -> WITHOUT(x, BIT(A)) | BIT(B) : (x))
#define SHARED(x) ((x) & BIT(A) -> (x) | BIT(KID) : (x))
#define EVERYWHERE(F) zero = F(zero); out = F(out); back = F(back); frame = F(frame)

/* Somebody reads or writes the page that is at home. */
inline use_home(s) {
	if
	:: home[s] & LOST -> skip
	:: else ->
		if
		:: removing[s] && home[s] & ZEROS ->	/* a DONTNEED has begun: it drops now */
#ifdef STRICT
			early = !(home[s] & BIT(s));
#endif
			drop(s);
			home[s] = THERE | ZEROS | BIT(s)
		:: else -> assert(home[s] & BIT(s))
		fi;
		if
		:: true
		:: forget(BIT(s));
			home[s] = THERE | BIT(s)
#ifdef STRICT
			; late = early
#endif
		fi
	fi
}
#ifdef STRICT
bool early, late;
#endif
