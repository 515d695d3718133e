/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * edu - what the driver's files share.
 *
 *	edu.c     the device: open, close, the notifier, statistics
 *	job.c     memory to the device and back: a piece at a time
 *	fault.c   a translation is missing: the library's loop fills it in
 *	engine.c  the registers, and one DMA
 *	find.c    which PCI function, by sysfs
 *	bus.c     that function by VFIO: a type1 container, or an iommufd
 *	say.c     errors in words
 *
 * Laws:
 *  1. A DMA to or from memory of the program runs under `lock`, from the look at the
 *     table to its end. invalidate() takes it too: when it returns the device is off that
 *     memory (G4), and the IOMMU keeps it off.
 *  2. Translations enter the table by hmm_range_dma_program() only, under `lock` (G2).
 *  3. hmm_dma_fence() comes before each look at the table (G1, G3, D3).
 *  4. Bounced pages are copied without `lock`, for copying touches memory of the program:
 *     whoever has to bring it may be waiting for a callback that waits for `lock`. So a
 *     page may be forgotten between copy and DMA; job.forgotten says so, and the piece is
 *     done again.
 *
 * Locks: jobs, then lock. Neither is taken by anything that the library calls but
 * invalidate(), which takes `lock` alone. What a thread touches under `lock` is the
 * device, this struct and the table (never mirrored, never away), and its own stack:
 * bringing that home needs no callback.
 */
#ifndef EDU_PRIVATE_H
#define EDU_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include <uhmm/edu.h>
#include <uhmm/ptable.h>

#define PAGE ((uintptr_t)4096)
#define FAULT_PAGES 512u /* of one fault, at most */

/*
 * The most of one DMA. The buffer has 4096 bytes, but QEMU before 8.0 takes the last of
 * them for out of bounds, and exits.
 */
#define EDU_PIECE 2048u

/* ---- find.c ---- */

#define PCI_NAME 16

/* A PCI function that vfio-pci has. */
struct edu_place {
	char pci[PCI_NAME];
	int group;	/* its IOMMU group */
	char cdev[300]; /* its node, for iommufd; "": none */
};

/* -ENODEV, -ENXIO; edu_say() has said why. @wanted: an address, or NULL. */
int edu_find(const char *wanted, struct edu_place *place);

/* ---- bus.c ---- */

/* The function opened. Descriptors that there are none of are -1. */
struct edu_bus {
	enum edu_way way;
	int device;
	int container, group; /* EDU_TYPE1 */
	int iommufd;	      /* EDU_IOMMUFD */
	uint32_t ioas;
	uint64_t config; /* where in `device` the PCI configuration space lies */
	volatile unsigned char *registers; /* BAR 0; NULL: not mapped */
	size_t registers_size;
};

void edu_bus_init(struct edu_bus *bus);
int edu_bus_open(struct edu_bus *bus, const struct edu_place *place, enum edu_way way);
/* What is mapped there is unmapped with the last descriptor. */
void edu_bus_close(struct edu_bus *bus);
/* Let the device reach memory of the driver's own, at its own address; and no more. */
int edu_bus_map(struct edu_bus *bus, void *memory, size_t length);
void edu_bus_unmap(struct edu_bus *bus, void *memory, size_t length);
/* May it begin transfers by itself? */
int edu_bus_master(struct edu_bus *bus, bool on);

/* ---- the device ---- */

struct edu {
	/* Set by edu_open(). */
	pid_t owner; /* a forked child has no device */
	unsigned flags, timeout_ms;
	size_t window; /* of a fault: bytes, aligned */
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	struct hmm_dma *dma;
	struct edu_bus bus;
	unsigned char *page; /* the device's way out: the driver's own, always reached */
	bool page_mapped;

	/* One job at a time: protects the device, `page`, and what follows. */
	pthread_mutex_t jobs;
	bool dead; /* it did not answer */
	uint64_t pfns[FAULT_PAGES], daddrs[FAULT_PAGES];

	/* The update lock: protects the table, its use by the device, and `job`. */
	pthread_mutex_t lock;
	struct uhmm_ptable table; /* as edu_lookup() */
	struct {
		uintptr_t page;
		bool forgotten; /* since the job looked it up */
	} job;

	struct {
		_Atomic uint64_t dmas, bytes_read, bytes_written, faults, again, syncs,
			invalidations;
	} count;
};

/* An I/O address, from an entry of the table. */
static inline uint64_t edu_iova(uint64_t entry, uintptr_t addr)
{
	return hmm_pfn_number(entry) * PAGE + addr % PAGE;
}

/* ---- edu.c ---- */
/* Forget [start, end), and unmap it. Takes `lock`. */
void edu_forget(struct edu *dev, uintptr_t start, uintptr_t end);

/* ---- fault.c: `jobs` held ---- */
/* As hmm_range_dma_program(). 0: there was a translation. */
int edu_fault(struct edu *dev, uintptr_t addr, bool write);

/* ---- engine.c: `jobs` held ---- */
/* Is it an edu, does it answer, is it idle? */
int edu_engine_check(struct edu *dev);
/* A DMA between [iova, +n) and the device's buffer. -EIO: the device is dead. */
int edu_engine_run(struct edu *dev, uint64_t iova, size_t n, bool to_memory);

/* ---- say.c ---- */
/* Leave a sentence for edu_strerror(), return err. */
int edu_say(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A call begins: no sentence of an earlier one is left. */
void edu_hush(void);

#endif
