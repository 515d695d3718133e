/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fake_move - the operations that move pages.
 *
 * Laws, as the kernel's:
 * - each is one step: nothing happens between its look at `changing` (-EAGAIN) and its
 *   last page;
 * - page by page, up to the first that is refused (the table asks the kernel in pieces);
 * - MOVE wants both sides private anonymous, writable, of equal permissions, both locked or
 *   both not, the destination registered with the very context (-EINVAL);
 * - -EEXIST the destination has a page or a marker, -EFAULT the source has a
 *   marker, -EBUSY the source is shared with a child or pinned; a hole is moved as a hole;
 * - COPY asks for no permission and overwrites markers; ZEROPAGE and POISON want nothing there.
 *   All three take what is registered with any context: whoever uses them must know. COPY takes
 *   no SysV segment (-EINVAL);
 * - what was done wakes who waits there, whatever became of the rest.
 * REGISTER does not look at `changing`.
 */
#include "fake_os.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static void reader_only(const char *what)
{
	if (!fake_reading)
		fake_fail("%s: not by the reader", what);
}

void fake_refuse(enum fake_op op, uintptr_t addr, int err, unsigned times)
{
	unsigned i = 0;

	while (i < FAKE_REFUSALS && fake.refusal[i].times)
		i++;
	if (i == FAKE_REFUSALS)
		fake_fail("more than %u refusals", FAKE_REFUSALS);
	fake.refusal[i] = (struct fake_refusal){ op, addr, err, times };
}

static int refused(enum fake_op op, uintptr_t dst, uintptr_t src)
{
	for (unsigned i = 0; i < FAKE_REFUSALS; i++) {
		struct fake_refusal *r = &fake.refusal[i];

		if (r->times && r->op == op && (r->addr == dst || r->addr == src)) {
			r->times--;
			return r->err;
		}
	}
	return 0;
}

/* What is asked before any page is looked at. */
static int may(unsigned ctx, uintptr_t dst, size_t length)
{
	if (!length || ((dst | length) & (PAGE - 1)))
		return -EINVAL;
	if (fake.ctx[ctx].lost)
		return fake.ctx[ctx].lost;
	return fake.ctx[ctx].changing ? -EAGAIN : 0;
}

static int is_registered(const struct fake_page *dst)
{
	return dst->mapped && dst->ctx != FAKE_NO_CTX ? 0 : -ENOENT;
}

struct op {
	enum fake_op op;
	unsigned ctx;
	uintptr_t dst, src;
	size_t length;
	int (*page)(struct fake_page *dst, const struct op *op, size_t at);
};

/* Page by page, then the wake. */
static int run(const struct op *op, size_t *done)
{
	int err = 0;

	for (*done = 0; *done < op->length && !err; *done += err ? 0 : PAGE) {
		uintptr_t dst = op->dst + *done;

		err = is_registered(fake_page(dst));
		if (!err)
			err = refused(op->op, dst, op->src ? op->src + *done : dst);
		if (!err)
			err = op->page(fake_page(dst), op, *done);
	}
	fake_wake(op->ctx, op->dst, op->dst + *done);
	return err;
}

static int operate(const struct op *op, size_t *done, const char *name)
{
	int err;

	reader_only(name);
	*done = 0;
	err = fake_point(op->op, FAKE_BEFORE, (int)op->ctx);
	if (!err) {
		fake_lock();
		err = may(op->ctx, op->dst, op->length);
		if (!err)
			err = run(op, done);
		fake_unlock();
	}
	fake_point(op->op, FAKE_AFTER, (int)op->ctx);
	return err;
}

/* ---- MOVE ---- */

static int check_move(const struct fake_page *s, const struct fake_page *d, unsigned ctx)
{
	if (!s->mapped)
		return -ENOENT;
	if (d->ctx != (int)ctx)
		return -EINVAL;
	if (fake_object[s->object].kind != OS_VMA_ANON ||
	    fake_object[d->object].kind != OS_VMA_ANON)
		return -EINVAL;
	if (s->prot != d->prot || !(s->prot & PROT_WRITE) || s->locked != d->locked)
		return -EINVAL;
	return 0;
}

static int move_page(struct fake_page *dst, const struct op *op, size_t at)
{
	struct fake_page *src = fake_page(op->src + at);
	int err = check_move(src, dst, op->ctx);

	if (err)
		return err;
	if (!fake_is_hole(dst))
		return -EEXIST;
	if (src->guard || src->poisoned)
		return -EFAULT;
	if (src->shared || src->pinned)
		return -EBUSY;
	if (!src->flags)
		return 0;
	dst->flags = src->flags;
	dst->value = src->value;
	dst->frame = src->frame;
	dst->identity = ++fake.stamp;
	fake_forget_page(src);
	src->identity = ++fake.stamp;
	return 0;
}

int fake_ctx_move(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done)
{
	struct op op = { FAKE_OP_MOVE, fake_ctx_number(ctx), dst, src, length, move_page };

	return operate(&op, done, "MOVE");
}

static int move_present(struct fake_page *dst, const struct op *op, size_t at)
{
	struct fake_page *src = fake_page(op->src + at);
	int err = check_move(src, dst, op->ctx);

	if (err)
		return err == -ENOENT ? -ENODATA : err;
	return fake_is_hole(src) ? -ENODATA : move_page(dst, op, at);
}

int fake_ctx_move_present(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src,
			  size_t length, size_t *done)
{
	struct op op = { FAKE_OP_MOVE, fake_ctx_number(ctx), dst, src, length, move_present };

	return operate(&op, done, "MOVE");
}

/* ---- COPY, ZEROPAGE, POISON ---- */

static uint64_t copied(uintptr_t src)
{
	struct fake_page *p = fake_page(src);

	if (p->missing && !p->flags)
		fake_fail("the reader waits for itself at %#lx", (unsigned long)src);
	return p->value;
}

static int copy_page(struct fake_page *dst, const struct op *op, size_t at)
{
	if (fake_object[dst->object].kind == OS_VMA_SYSV)
		return -EINVAL;
	if (dst->flags)
		return -EEXIST;
	if (!fake_page(op->src + at)->mapped)
		return -EFAULT;
	dst->guard = dst->poisoned = false;
	dst->flags = OS_PAGE_PRESENT;
	dst->value = copied(op->src + at);
	dst->identity = ++fake.stamp;
	return 0;
}

static int zero_page(struct fake_page *dst, const struct op *op, size_t at)
{
	if (!fake_is_hole(dst))
		return -EEXIST;
	dst->flags = OS_PAGE_PRESENT | OS_PAGE_ZERO;
	dst->value = 0;
	return 0;
}

static int poison_page(struct fake_page *dst, const struct op *op, size_t at)
{
	if (!fake_is_hole(dst))
		return -EEXIST;
	dst->poisoned = true;
	return 0;
}

int fake_ctx_copy(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done)
{
	struct op op = { FAKE_OP_COPY, fake_ctx_number(ctx), dst, src, length, copy_page };

	return operate(&op, done, "COPY");
}

int fake_ctx_zero(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done)
{
	struct op op = { FAKE_OP_ZERO, fake_ctx_number(ctx), dst, 0, length, zero_page };

	return operate(&op, done, "ZEROPAGE");
}

int fake_ctx_poison(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done)
{
	struct op op = { FAKE_OP_POISON, fake_ctx_number(ctx), dst, 0, length, poison_page };

	*done = 0;
	return fake.no_poison ? -EOPNOTSUPP : operate(&op, done, "POISON");
}

/* ---- the rest ---- */

int fake_ctx_wake(const struct os_ctx *ctx, uintptr_t start, size_t length)
{
	unsigned number = fake_ctx_number(ctx);
	int err = fake_point(FAKE_OP_WAKE, FAKE_BEFORE, (int)number);

	if (err)
		return err;
	fake_lock();
	fake_wake(number, start, start + length);
	fake_unlock();
	fake_point(FAKE_OP_WAKE, FAKE_AFTER, (int)number);
	return 0;
}

int fake_ctx_register_missing(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	unsigned number = fake_ctx_number(ctx);
	int err = fake_point(FAKE_OP_REGISTER_MISSING, FAKE_BEFORE, (int)number);

	if (err)
		return err;
	fake_lock();
	err = fake_register(number, start, end, true);
	fake_unlock();
	fake_point(FAKE_OP_REGISTER_MISSING, FAKE_AFTER, (int)number);
	return err;
}

/* Its descriptor, which must be open. */
static struct fake_child *child_of(int fd, unsigned *ctx)
{
	unsigned number = (unsigned)(fd - fake_child_fd(0, 0));
	struct fake_child *child = NULL;

	*ctx = number % (CONTEXTS + 1);
	if (fake_child_of(fd) < FAKE_CHILDREN)
		child = fake.child[fake_child_of(fd)];
	if (!child || !(child->contexts >> *ctx & 1))
		fake_fail("descriptor %d is no child's, or closed", fd);
	return child;
}

static int copy_to_child(int fd, uintptr_t dst, uintptr_t src, size_t length, size_t *done)
{
	unsigned ctx;
	struct fake_child *child = child_of(fd, &ctx);

	for (unsigned i = 0; i < child->changes; i++)
		if (child->change[i].ctx == ctx)
			return -EAGAIN;
	for (; *done < length; *done += PAGE) {
		unsigned page = fake_number(dst + *done);
		int err = refused(FAKE_OP_CHILD_COPY, dst + *done, 0);

		if (err)
			return err;
		if (page >= fake.pages || !child->page[page].mapped ||
		    child->page[page].ctx != (int)ctx)
			return -ENOENT;
		if (child->page[page].present)
			return -EEXIST;
		child->page[page].present = child->page[page].copied = true;
		child->page[page].value = copied(src + *done);
	}
	return 0;
}

int fake_child_copy(int child, uintptr_t dst, uintptr_t src, size_t length, size_t *done)
{
	int err = fake_point(FAKE_OP_CHILD_COPY, FAKE_BEFORE, -1);

	reader_only("child_copy");
	*done = 0;
	if (!err) {
		fake_lock();
		err = copy_to_child(child, dst, src, length, done);
		fake_unlock();
	}
	fake_point(FAKE_OP_CHILD_COPY, FAKE_AFTER, -1);
	return err;
}

int fake_child_read(int fd, struct os_msg *msgs, unsigned max)
{
	struct fake_child *child;
	unsigned ctx, kept = 0;
	int n = 0;

	reader_only("child_read");
	fake_lock();
	child = child_of(fd, &ctx);
	for (unsigned i = 0; i < child->changes; i++)
		if (child->change[i].ctx == ctx && n < (int)max)
			msgs[n++] = child->change[i].msg;
		else
			child->change[kept++] = child->change[i];
	child->changes = kept;
	fake_unlock();
	return n;
}

void fake_child_close(int fd)
{
	struct fake_child *child;
	unsigned ctx;

	fake_point(FAKE_OP_CHILD_CLOSE, FAKE_BEFORE, -1);
	fake_lock();
	child = child_of(fd, &ctx);
	child->contexts &= ~(1u << ctx);
	fake_unlock();
	fake_point(FAKE_OP_CHILD_CLOSE, FAKE_AFTER, -1);
}
