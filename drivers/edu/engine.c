/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * engine - the device's registers, and one DMA between its buffer and an I/O address.
 *
 * The device says when a DMA has ended, and not whether: what the IOMMU blocked looks the
 * same. So what is mapped must stay mapped meanwhile, which is law 1 (edu_private.h).
 */
#include <endian.h>
#include <errno.h>
#include <time.h>

#include "edu_private.h"

/* 4 bytes wide; from SOURCE on 8. */
#define IDENTIFICATION 0x00
#define LIVENESS 0x04
#define SOURCE 0x80
#define DESTINATION 0x88
#define COUNT 0x90
#define COMMAND 0x98

#define IDENTIFIED 0xed /* in the low byte; above it a version */
#define RUN UINT64_C(1)
#define TO_MEMORY UINT64_C(2)
#define BUFFER UINT64_C(0x40000) /* the device's address of its buffer */

#define POLL_NS 1000000

static uint32_t read32(const struct edu *dev, unsigned at)
{
	return le32toh(*(volatile uint32_t *)(dev->bus.registers + at));
}

static void write32(struct edu *dev, unsigned at, uint32_t value)
{
	*(volatile uint32_t *)(dev->bus.registers + at) = htole32(value);
}

static uint64_t read64(const struct edu *dev, unsigned at)
{
	return le64toh(*(volatile uint64_t *)(dev->bus.registers + at));
}

static void write64(struct edu *dev, unsigned at, uint64_t value)
{
	*(volatile uint64_t *)(dev->bus.registers + at) = htole64(value);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The clock before the register: who was not run for long has still looked after that. */
static bool wait_idle(const struct edu *dev)
{
	const struct timespec pause = { .tv_nsec = POLL_NS };
	uint64_t end = now_ms() + dev->timeout_ms;
	bool late;

	for (;;) {
		late = now_ms() > end;
		if (!(read64(dev, COMMAND) & RUN))
			return true;
		if (late)
			return false;
		nanosleep(&pause, NULL);
	}
}

int edu_engine_check(struct edu *dev)
{
	const uint32_t word = 0x5aa5c33c;

	if ((read32(dev, IDENTIFICATION) & 0xff) != IDENTIFIED)
		return edu_say(-EIO,
			       "the device identifies itself as %#x: this is not an edu",
			       read32(dev, IDENTIFICATION));
	write32(dev, LIVENESS, word);
	if (read32(dev, LIVENESS) != ~word)
		return edu_say(-EIO, "the device does not answer");
	/* Whoever had it before may have left in the middle of a DMA. */
	if (!wait_idle(dev))
		return edu_say(-EIO, "the device is in a DMA that does not end");
	return 0;
}

int edu_engine_run(struct edu *dev, uint64_t iova, size_t n, bool to_memory)
{
	write64(dev, SOURCE, to_memory ? BUFFER : iova);
	write64(dev, DESTINATION, to_memory ? iova : BUFFER);
	write64(dev, COUNT, n);
	/* What CPUs have written is in memory before the device looks ... */
	atomic_thread_fence(memory_order_seq_cst);
	write64(dev, COMMAND, RUN | (to_memory ? TO_MEMORY : 0));
	if (!wait_idle(dev)) {
		/* Whatever it is doing, it reaches no memory any more. */
		dev->dead = true;
		edu_bus_master(&dev->bus, false);
		return edu_say(-EIO,
			       "a DMA has not ended within %u ms: the device is given up",
			       dev->timeout_ms);
	}
	/* ... and what it has written is not read before it has ended. */
	atomic_thread_fence(memory_order_seq_cst);
	atomic_fetch_add(&dev->count.dmas, 1);
	return 0;
}
