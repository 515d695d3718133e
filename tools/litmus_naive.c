// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_naive - device memory as it is done without thinking.
 *
 * Out: copy the page, then madvise(DONTNEED) it; a userfaultfd of its own in MISSING mode
 * copies it back when a CPU touches it. What is written between the copy and the DONTNEED
 * is lost; nobody hears of munmap, mremap, DONTNEED or fork of what is away; the device
 * goes on in its frame whatever the permissions say. It is what the counts must see.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "common.h"
#include "litmus_away.h"

#define SLOTS (2 * AWAY_PAGES)

struct naive {
	struct litmus *l;
	int fd, quit;
	pthread_t thread;
	pthread_mutex_t lock; /* protects away and frames */
	bool away[SLOTS];
	char *frames; /* one a slot */
};

/* A frame for each page of the two places. */
static int slot_of(const struct naive *naive, uintptr_t addr)
{
	const char *places[2] = { naive->l->page, naive->l->other };

	for (unsigned i = 0; i < 2; i++) {
		uintptr_t start = (uintptr_t)places[i];

		if (addr >= start && addr < start + LITMUS_PLACE)
			return (int)(i * AWAY_PAGES + (addr - start) / LITMUS_PAGE);
	}
	return -1;
}

static char *frame_of(const struct naive *naive, int slot)
{
	return naive->frames + (size_t)slot * LITMUS_PAGE;
}

/* The lock is held. */
static void bring_home(struct naive *naive, uintptr_t page, int slot)
{
	struct uffdio_copy copy = {
		.dst = page,
		.src = (uintptr_t)frame_of(naive, slot),
		.len = LITMUS_PAGE,
	};

	ioctl(naive->fd, UFFDIO_COPY, &copy);
	naive->away[slot] = false;
}

static void serve(struct naive *naive, uintptr_t page)
{
	struct uffdio_zeropage zero = { .range = { page, LITMUS_PAGE } };
	struct uffdio_range wake = { page, LITMUS_PAGE };
	int slot = slot_of(naive, page);

	pthread_mutex_lock(&naive->lock);
	if (slot >= 0 && naive->away[slot])
		bring_home(naive, page, slot);
	else
		ioctl(naive->fd, UFFDIO_ZEROPAGE, &zero);
	ioctl(naive->fd, UFFDIO_WAKE, &wake);
	pthread_mutex_unlock(&naive->lock);
}

static void *naive_main(void *arg)
{
	struct naive *naive = arg;
	struct pollfd fds[2] = { { .fd = naive->fd, .events = POLLIN },
				 { .fd = naive->quit, .events = POLLIN } };
	struct uffd_msg message;

	while (!fds[1].revents) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[0].revents && read(naive->fd, &message, sizeof(message)) > 0 &&
		    message.event == UFFD_EVENT_PAGEFAULT)
			serve(naive, message.arg.pagefault.address & ~(LITMUS_PAGE - 1));
	}
	return NULL;
}

static void out_page(struct naive *naive, char *page)
{
	int slot = slot_of(naive, (uintptr_t)page);
	char copy[LITMUS_PAGE];

	/* Without the lock: the page may be missing, and who brings it takes the lock. */
	if (hmm_copy_from(litmus_dev_hmm(naive->l->dev), copy, (uintptr_t)page,
			  LITMUS_PAGE))
		return;
	pthread_mutex_lock(&naive->lock);
	if (!naive->away[slot]) {
		memcpy(frame_of(naive, slot), copy, LITMUS_PAGE);
		naive->away[slot] = !madvise(page, LITMUS_PAGE, MADV_DONTNEED);
	}
	pthread_mutex_unlock(&naive->lock);
}

void naive_out(struct naive *naive, char *place)
{
	struct uffdio_register missing = {
		.range = { (uintptr_t)place, LITMUS_PLACE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	/* Whole, or the program's mremap would fail. */
	if (ioctl(naive->fd, UFFDIO_REGISTER, &missing))
		return;
	for (unsigned i = 0; i < AWAY_PAGES; i++)
		out_page(naive, place + i * LITMUS_PAGE);
}

void naive_home(struct naive *naive, char *place)
{
	pthread_mutex_lock(&naive->lock);
	for (unsigned i = 0; i < AWAY_PAGES; i++) {
		uintptr_t page = (uintptr_t)place + i * LITMUS_PAGE;
		int slot = slot_of(naive, page);

		if (naive->away[slot])
			bring_home(naive, page, slot);
	}
	pthread_mutex_unlock(&naive->lock);
}

/* In its frame, if it is away; 1: it is not. */
static int in_frame(struct naive *naive, const char *addr, bool write, uint64_t *value)
{
	int slot = slot_of(naive, (uintptr_t)addr), there;
	uint64_t *word;

	pthread_mutex_lock(&naive->lock);
	there = slot >= 0 && naive->away[slot];
	if (there) {
		word = (uint64_t *)(frame_of(naive, slot) + (uintptr_t)addr % LITMUS_PAGE);
		if (write)
			*word = *value;
		else
			*value = *word;
	}
	pthread_mutex_unlock(&naive->lock);
	return !there;
}

int naive_read(struct naive *naive, const char *addr, uint64_t *value)
{
	if (!in_frame(naive, addr, false, value))
		return 0;
	return hmm_copy_from(litmus_dev_hmm(naive->l->dev), value, (uintptr_t)addr,
			     sizeof(*value));
}

int naive_write(struct naive *naive, char *addr, uint64_t value)
{
	int err;

	if (!in_frame(naive, addr, true, &value))
		return 0;
	err = hmm_copy_to(litmus_dev_hmm(naive->l->dev), (uintptr_t)addr, &value,
			  sizeof(value));
	return err == -EFAULT ? -EPERM : err; /* it cannot tell the two from each other */
}

int naive_open(struct litmus *l, struct naive **out)
{
	struct naive *naive = tool_alloc(sizeof(*naive));
	struct uffdio_api api = { .api = UFFD_API };
	int err;

	naive->l = l;
	naive->frames = tool_alloc(SLOTS * LITMUS_PAGE);
	pthread_mutex_init(&naive->lock, NULL);
	naive->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (naive->fd < 0) {
		err = -errno;
		goto free_all;
	}
	naive->quit = eventfd(0, EFD_CLOEXEC);
	if (naive->quit < 0 || ioctl(naive->fd, UFFDIO_API, &api)) {
		err = -errno;
		goto close_both;
	}
	err = -pthread_create(&naive->thread, NULL, naive_main, naive);
	if (!err) {
		*out = naive;
		return 0;
	}
close_both:
	if (naive->quit >= 0)
		close(naive->quit);
	close(naive->fd);
free_all:
	free(naive->frames);
	free(naive);
	return err;
}

void naive_close(struct naive *naive)
{
	if (!naive)
		return;
	naive_home(naive, naive->l->page);
	naive_home(naive, naive->l->other);
	eventfd_write(naive->quit, 1);
	pthread_join(naive->thread, NULL);
	close(naive->quit);
	close(naive->fd);
	free(naive->frames);
	free(naive);
}
