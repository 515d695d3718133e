/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * engine - the copy engine of the test device, whose thread may end at any step.
 *
 * The threads stand in a row; who has the baton works. One that dies leaves its work where
 * it was and hands the baton on before it ends, so that the next does the transfer again,
 * from the start. New ones are made by the mender, an ordinary thread: pthread_create()
 * allocates, and may wait for a page. While no spare is there nobody dies.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "dev_private.h"

int thread_on_stack(pthread_t *thread, void *stack, size_t size, void *(*fn)(void *),
		    void *arg)
{
	pthread_attr_t attr;
	int err = pthread_attr_init(&attr);

	if (err)
		return -err;
	err = pthread_attr_setstack(&attr, stack, size);
	if (!err)
		err = pthread_create(thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return -err;
}

bool dev_chance(struct dev *dev, unsigned n)
{
	uint64_t x;

	if (!n)
		return false;
	x = atomic_fetch_add(&dev->random, UINT64_C(0x9e3779b97f4a7c15));
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return !((x ^ x >> 31) % n);
}

static bool dies(struct dev *dev)
{
	unsigned spare = dev->spare;

	if (!dev_chance(dev, dev->options.die))
		return false;
	while (spare)
		if (atomic_compare_exchange_weak(&dev->spare, &spare, spare - 1))
			return true;
	return false;
}

/* false: the thread died in it. */
static bool copy_out(struct dev *dev, struct hmm_devmem_copy *copy)
{
	unsigned char *frame = dev->vram + copy->frame * PAGE;

	/* Once the device is dead its frames are nobody's, whatever is under way. */
	if (!dev->had[copy->frame] && !dev->dead)
		fail("to_device: frame %llu is not in use",
		     (unsigned long long)copy->frame);
	if (!copy->host) {
		memset(frame, 0, PAGE);
		return true;
	}
	if (dev_chance(dev, dev->options.fail)) {
		memset(frame, 0xfa, PAGE);
		copy->err = -EIO;
		return true;
	}
	memcpy(frame, copy->host, PAGE / 2);
	if (dies(dev))
		return false;
	memcpy(frame + PAGE / 2, (unsigned char *)copy->host + PAGE / 2, PAGE / 2);
	copy->err = 0; /* it may have failed in a life before */
	return true;
}

static bool copy_home(struct dev *dev, struct hmm_devmem_copy *copy)
{
	const unsigned char *frame = dev->vram + copy->frame * PAGE;

	if (!copy->host)
		return true;
	if (!dev->had[copy->frame] && !dev->dead)
		fail("to_host: frame %llu is not in use", (unsigned long long)copy->frame);
	memcpy(copy->host, frame, PAGE / 2);
	if (dev->spoiled && copy->frame % 2) {
		copy->err = -EIO;
		return true;
	}
	if (dies(dev))
		return false;
	memcpy((unsigned char *)copy->host + PAGE / 2, frame + PAGE / 2, PAGE / 2);
	return true;
}

static bool work_do(struct dev *dev, const struct work *work)
{
	if (dies(dev))
		return false;
	if (dev_chance(dev, dev->options.slow)) {
		struct timespec t = { .tv_nsec = dev_chance(dev, 2) ? 200000 : 2000000 };

		nanosleep(&t, NULL);
	}
	if (!work->out)
		dev_stop_frames(dev, work->copies, work->n);
	for (unsigned i = 0; !dev->options.host_frames && i < work->n; i++)
		if (!(work->out ? copy_out : copy_home)(dev, &work->copies[i]))
			return false;
	return !dies(dev);
}

static void *engine_main(void *arg)
{
	struct engine *engine = arg;
	struct dev *dev = engine->dev;

	while (sem_wait(&dev->baton))
		;
	for (;;) {
		struct work work;

		while (sem_wait(&dev->works))
			;
		if (dev->stop)
			break;
		work = dev->ring[dev->tail % RING];
		if (!dev->dead && !work_do(dev, &work)) {
			dev->deaths++;
			sem_post(&dev->works);
			sem_post(&dev->baton);
			engine->dead = true;
			sem_post(&dev->mend);
			pthread_exit(NULL);
		}
		dev->tail++;
		if (!dev->silent)
			hmm_devmem_done(work.transfer, dev->dead ? -EIO : 0);
	}
	sem_post(&dev->works);
	sem_post(&dev->baton);
	return NULL;
}

void engine_push(struct dev *dev, const struct work *work)
{
	if (dev->head - dev->tail >= RING)
		fail("more than %u transfers at once", RING);
	dev->ring[dev->head % RING] = *work;
	dev->head++;
	sem_post(&dev->works);
}

static void *mender_main(void *arg)
{
	struct dev *dev = arg;

	for (;;) {
		while (sem_wait(&dev->mend))
			;
		for (unsigned i = 0; i < ENGINES; i++) {
			struct engine *engine = &dev->engine[i];

			if (!engine->dead)
				continue;
			pthread_join(engine->thread, NULL);
			engine->dead = false;
			if (thread_on_stack(&engine->thread, engine->stack, STACK,
					    engine_main, engine))
				fail("no thread for an engine");
			dev->spare++;
		}
		if (dev->stop)
			return NULL;
	}
}

int engine_begin(struct dev *dev)
{
	int err;

	sem_init(&dev->works, 0, 0);
	sem_init(&dev->baton, 0, 1);
	sem_init(&dev->mend, 0, 0);
	for (unsigned i = 0; i < ENGINES; i++) {
		struct engine *engine = &dev->engine[i];

		engine->dev = dev;
		engine->stack = hmm_alloc(STACK);
		if (!engine->stack)
			return -ENOMEM;
		err = thread_on_stack(&engine->thread, engine->stack, STACK, engine_main,
				      engine);
		if (err)
			return err;
	}
	dev->spare = ENGINES - 1;
	return -pthread_create(&dev->mender, NULL, mender_main, dev);
}

void engine_end(struct dev *dev)
{
	sem_post(&dev->mend);
	pthread_join(dev->mender, NULL);
	sem_post(&dev->works);
	for (unsigned i = 0; i < ENGINES; i++) {
		pthread_join(dev->engine[i].thread, NULL);
		hmm_free(dev->engine[i].stack, STACK);
	}
}
