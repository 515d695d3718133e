/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* dev_private - what dev.c and engine.c share. All of it is hmm_alloc() memory. */
#ifndef STRESS_DEV_PRIVATE_H
#define STRESS_DEV_PRIVATE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "dev.h"
#include "stress.h"

#define SLOTS 4096u
#define SMS 2u
#define JOBS 32u
#define RING 64u
#define ENGINES 4u
#define STACK ((size_t)256 << 10)

struct slot {
	uintptr_t page; /* 0: none */
	uint64_t entry;
};

enum job_state { JOB_FREE, JOB_FILLING, JOB_READY, JOB_RUNNING };

/* What a program asks of the device. */
struct job {
	_Atomic uint32_t state;
	uintptr_t addr;
	size_t length;
	bool write;
	unsigned step, n; /* words: every step-th, n of them; 0: bytes */
	uint64_t value;
	uint64_t mask; /* hold: what of `value` has to be there */
	bool hold;
	_Atomic bool let_go;
	int err;
	sem_t done;
	unsigned char buffer[4096];
};

/* A thread that runs jobs. */
struct sm {
	struct dev *dev;
	struct job *job;
	uintptr_t busy; /* system memory that it is at; under the update lock */
	bool used;	/* by the program callback */
	uint64_t pfn;
	void *stack;
	pthread_t thread;
};

/* One transfer, as the library gave it. */
struct work {
	bool out;
	struct hmm_devmem_copy *copies;
	unsigned n;
	struct hmm_transfer *transfer;
};

struct engine {
	struct dev *dev;
	void *stack;
	pthread_t thread;
	_Atomic bool dead;
};

struct dev {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	struct hmm_devmem *devmem;
	struct dev_options options;
	unsigned char *vram;  /* copied frames */
	_Atomic uint8_t *had; /* of each frame: the library has it in use */
	size_t had_size;

	pthread_mutex_t update; /* protects slot, slot_of, busy */
	pthread_cond_t idle;	/* an sm is at system memory no more */
	struct slot slot[SLOTS];
	uint32_t *slot_of; /* of each frame: slot + 1 */

	struct job job[JOBS];
	sem_t jobs;
	struct sm sm[SMS];
	_Atomic bool stop;

	/* The reader pushes, the engine that holds the baton takes. */
	struct work ring[RING];
	_Atomic uint32_t head, tail;
	sem_t works, baton;
	struct engine engine[ENGINES];
	_Atomic unsigned spare; /* engines that could take over */
	pthread_t mender;
	sem_t mend;
	_Atomic uint64_t random, deaths;
	_Atomic bool dead, silent, spoiled;
};

/* One in n, from any thread. */
bool dev_chance(struct dev *dev, unsigned n);
/* Stop using the frames, by whatever address. Takes the update lock. */
void dev_stop_frames(struct dev *dev, const struct hmm_devmem_copy *copies, unsigned n);

int engine_begin(struct dev *dev);
void engine_end(struct dev *dev);
void engine_push(struct dev *dev, const struct work *work);
int thread_on_stack(pthread_t *thread, void *stack, size_t size, void *(*fn)(void *),
		    void *arg);

#endif
