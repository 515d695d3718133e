// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_userptr - a page becomes another, gets a number that was never there, and an OpenCL
 * kernel reads it: a number from before is a stale answer.
 *
 * Every other round the change is another thread's. The devices are those of the driver: one that
 * shares memory and one that has copies, by the rules of graphics queues and of kfd's, whose
 * rounds take a millisecond each, so that it gets a sixth of the others'.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/userptr.h>

#include "common.h"
#include "litmus.h"
#include "litmus_userptr.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define PAGES 4u /* of the object; the second changes */

static const char source[] = "kernel void peek(global const uint *in, global uint *out)\n"
			     "{ out[0] = in[1024]; }\n";

struct column {
	const char *name;
	enum userptr_mode mode;
	unsigned flags, share;
	uint64_t rounds, stale;
	char failed[240];
};

/* A device, what its kernel reads, and where it puts it. */
struct peek {
	struct userptr *dev;
	struct userptr_kernel *kernel;
	struct userptr_object *in, *out;
	char *base;
	unsigned *answer;
	struct litmus_actor other;
	unsigned round;
	bool failed; /* a change did */
};

static volatile unsigned *word(struct peek *p, unsigned page)
{
	return (volatile unsigned *)(void *)(p->base + page * LITMUS_PAGE);
}

/*
 * The object's next page comes here, with what it was given some rounds ago. It is known not to have
 * been written to since the device had it, and takes that mark along: only the event says that
 * here it is another.
 */
static bool move_over(char *at)
{
	char *from = at + LITMUS_PAGE;

	return mremap(from, LITMUS_PAGE, LITMUS_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at &&
	       mmap(from, LITMUS_PAGE, READ_WRITE, ANON | MAP_FIXED_NOREPLACE, -1, 0) == from;
}

static void change(void *arg)
{
	struct peek *p = arg;
	char *at = p->base + LITMUS_PAGE;

	switch (p->round / 2 % 5) {
	case 0:
		p->failed |= munmap(at, LITMUS_PAGE) ||
			     mmap(at, LITMUS_PAGE, READ_WRITE, ANON | MAP_FIXED_NOREPLACE, -1,
				  0) != at;
		break;
	case 1:
		p->failed |= mmap(at, LITMUS_PAGE, READ_WRITE, ANON | MAP_FIXED, -1, 0) != at;
		break;
	case 2:
		p->failed |= madvise(at, LITMUS_PAGE, MADV_DONTNEED) != 0;
		*word(p, 2) = ~p->round; /* for move_over() */
		break;
	case 3:
		p->failed |= !move_over(at);
		return;
	default: /* only written to */
		break;
	}
	if (!p->failed && p->round % 7) /* else it reads as zero, but after a mere write */
		*word(p, 1) = p->round;
}

static int one_round(struct peek *p, bool *stale)
{
	struct userptr_arg args[] = {
		{ .kind = USERPTR_ARG_OBJECT, .object = p->in, .access = USERPTR_READ },
		{ .kind = USERPTR_ARG_OBJECT, .object = p->out, .access = USERPTR_WRITE },
	};
	struct userptr_launch launch = { .size = sizeof(launch), .kernel = p->kernel,
					 .args = args, .n_args = 2, .dims = 1,
					 .global = { 1 } };
	int err;

	if (p->round % 2)
		litmus_actor_call(&p->other, change, p);
	else
		change(p);
	err = p->failed ? -ENOMEM : userptr_run(p->dev, &launch);
	*stale = !err && *p->answer != *word(p, 1);
	return err;
}

static int open_peek(struct peek *p, const struct column *column)
{
	struct userptr_options options = { .size = sizeof(options), .mode = column->mode,
					   .flags = column->flags };
	char *base = mmap(NULL, (PAGES + 1) * LITMUS_PAGE, READ_WRITE, ANON, -1, 0);
	int err = base == MAP_FAILED ? -ENOMEM : 0;

	if (err)
		return err;
	p->base = base;
	p->answer = (unsigned *)(void *)(base + PAGES * LITMUS_PAGE);
	err = userptr_open(&options, &p->dev);
	if (!err)
		err = userptr_kernel_create(p->dev, source, "peek", NULL, &p->kernel);
	if (!err)
		err = userptr_object_create(p->dev, base, PAGES * LITMUS_PAGE,
					    USERPTR_REGISTER | USERPTR_READONLY, &p->in);
	if (!err)
		err = userptr_object_create(p->dev, p->answer, LITMUS_PAGE, USERPTR_REGISTER,
					    &p->out);
	return err;
}

static void close_peek(struct peek *p)
{
	userptr_object_destroy(p->in);
	userptr_object_destroy(p->out);
	userptr_kernel_destroy(p->kernel);
	userptr_close(p->dev);
	if (p->base)
		munmap(p->base, (PAGES + 1) * LITMUS_PAGE);
}

static int run_rounds(struct peek *p, struct column *column, uint64_t rounds)
{
	int err = litmus_actor_start(&p->other);
	bool stale;

	if (err)
		return err;
	for (p->round = 1; !err && p->round <= rounds; p->round++) {
		tool_progress("litmus: %s %u/%llu, %llu stale", column->name, p->round,
			      (unsigned long long)rounds, (unsigned long long)column->stale);
		err = one_round(p, &stale);
		column->rounds += !err;
		column->stale += stale;
	}
	tool_progress_end();
	litmus_actor_stop(&p->other);
	return err;
}

static int run_column(struct column *column, uint64_t rounds)
{
	struct peek p = { .dev = NULL };
	int err = open_peek(&p, column);

	if (!err)
		err = run_rounds(&p, column, rounds);
	if (err)
		snprintf(column->failed, sizeof(column->failed), "%s", userptr_strerror(err));
	close_peek(&p);
	return err;
}

static json_t *column_json(const struct column *column)
{
	json_t *object = json_pack("{s:I, s:I}", "rounds", (json_int_t)column->rounds, "stale",
				   (json_int_t)column->stale);

	if (column->failed[0])
		json_object_set_new(object, "failed", json_string(column->failed));
	return object;
}

static int report(const struct column *columns, size_t n, bool json)
{
	json_t *all = json_object();
	bool good = true;

	for (size_t i = 0; i < n; i++) {
		const struct column *c = &columns[i];

		good &= !c->stale && !c->failed[0];
		json_object_set_new(all, c->name, column_json(c));
		if (!json)
			printf("%-16s %9llu %9llu  %s\n", c->name,
			       (unsigned long long)c->rounds, (unsigned long long)c->stale,
			       c->failed);
	}
	if (json)
		return tool_emit(json_pack("{s:o, s:b}", "devices", all, "pass", good)) || !good;
	json_decref(all);
	printf("litmus: %s\n", good ? "PASS" : "FAIL");
	return !good;
}

int litmus_userptr(uint64_t rounds, bool json)
{
	struct column columns[] = {
		{ .name = "gfx shared", .mode = USERPTR_GFX, .share = 6 },
		{ .name = "gfx copy", .mode = USERPTR_GFX, .flags = USERPTR_COPY, .share = 6 },
		{ .name = "gfx checksum", .mode = USERPTR_GFX,
		  .flags = USERPTR_COPY | USERPTR_CHECKSUM, .share = 6 },
		{ .name = "kfd shared", .mode = USERPTR_KFD, .share = 1 },
		{ .name = "kfd copy", .mode = USERPTR_KFD, .flags = USERPTR_COPY, .share = 1 },
	};
	const unsigned shares = 20;

	if (!json)
		printf("%-16s %9s %9s\n", "device", "rounds", "stale");
	for (size_t i = 0; i < sizeof(columns) / sizeof(*columns); i++) {
		int err = run_column(&columns[i], rounds * columns[i].share / shares);

		if (err == -ENODEV && !i) {
			fprintf(stderr, "uhmm litmus: %s\n", columns[i].failed);
			return 77;
		}
	}
	return report(columns, sizeof(columns) / sizeof(*columns), json);
}
