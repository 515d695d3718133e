/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * live - cases on the running kernel, each in a process of its own.
 *
 * The parent never opens a mirror. It forks a child for each case, waits for it
 * with a limit, and kills what hangs: a deadlock is a failed case with a name,
 * not a test run that never ends. The verdict comes back through shared memory,
 * because a case may close every descriptor that it has.
 */
#ifndef LIVE_H
#define LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum verdict { PASS, FAIL, SKIP };

/* Leave the reason and return it. Formats as printf. */
enum verdict live_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
enum verdict live_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *live_reason(void);

#define FAILED(...) return live_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(cond, ...)                                                                   \
	do {                                                                               \
		if (!(cond))                                                               \
			FAILED(__VA_ARGS__);                                               \
	} while (0)
/* A call that must give `want`. */
#define EXPECT(want, call)                                                                 \
	do {                                                                               \
		long got_ = (long)(call), want_ = (long)(want);                            \
		if (got_ != want_)                                                         \
			FAILED("%s: %ld (%s), expected %ld", #call, got_,                  \
			       got_ < 0 ? hmm_strerror((int)got_) : "", want_);            \
	} while (0)
/* A system call that must not fail. */
#define SYS(call)                                                                          \
	do {                                                                               \
		if ((long)(call) == -1)                                                    \
			FAILED("%s: %s", #call, strerror(errno));                          \
	} while (0)
#define TRY(call)                                                                          \
	do {                                                                               \
		enum verdict v_ = (call);                                                  \
		if (v_ != PASS)                                                            \
			return v_;                                                         \
	} while (0)

struct live_case {
	const char *name;
	enum verdict (*run)(const void *arg);
	const void *arg;
	unsigned limit_s; /* 0: LIVE_LIMIT */
};

/* Far above what a case needs (the slowest takes 5 s), far below a human's patience. */
#define LIVE_LIMIT 40u

/* Count, and print what is worth a line: a failure, a skip; each one with -v. */
struct live_count {
	unsigned passed, failed, skipped;
	bool verbose;
};
void live_note(struct live_count *count, const char *name, enum verdict verdict,
	       const char *reason);
/* "N passed, N failed, N skipped"; what main() returns: 0, 1, or 77 if all was skipped. */
int live_end(const struct live_count *count);

/* Run one case in a child of its own. */
void live_run(struct live_count *count, const struct live_case *c);
/* All of them, and live_end(). argv: -v, or names (parts of them) to run only those. */
int live_main(int argc, char **argv, const struct live_case *cases, size_t n);

/* Inside a case: a forked child that runs `fn`; its verdict and reason become ours. */
enum verdict live_child(enum verdict (*fn)(void *arg), void *arg, unsigned limit_s);
/* The same around a child that was made otherwise: pid 0 runs fn and never returns. */
enum verdict live_child_of(pid_t pid, enum verdict (*fn)(void *arg), void *arg,
			   unsigned limit_s);
/* Shared memory that live_child_of() needs, made before the child is. */
void live_child_prepare(void);

/* Wait for a child: its status, or -1 when it hung for limit_s and was killed. */
int live_wait(pid_t pid, unsigned limit_s);
uint64_t live_now_ns(void);
/*
 * A race is run for ns since `began`; on a machine that has other things to do until it has
 * raced enough to show something, five times as long at most: then a CHECK says what is wanting.
 */
bool live_race_on(uint64_t began, uint64_t ns, bool raced);
/* mmap or abort: for what is a premise and not what is tested. */
char *live_map(size_t length, int prot);

#endif
