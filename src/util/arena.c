/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * arena - blocks of a few sizes, cut from chunks that grow.
 *
 * Model: a size up to 32 KiB is rounded up to one of CLASSES block sizes, all
 * multiples of 64. A block comes from the list of freed blocks of its class, else
 * from the rest of the newest chunk, else from a new chunk. Chunks double from
 * 256 KiB to 16 MiB, so that 100,000 objects of a KiB lie in 12 mappings. A
 * larger size is a mapping of its own, with a header in front.
 *
 * Laws:
 * 1. A block is never given back to a chunk nor joined with another; memory of a
 *    class stays with the class. The library's objects come and go in kinds.
 * 2. Blocks are handed out zeroed: memory that was never used is zero already.
 * 3. Only the mapping functions of owned.c ask the kernel for memory; they adopt it.
 * 4. Under AddressSanitizer what is not handed out is poisoned, because our mappings
 *    hide our mistakes from it.
 *
 * Locks: arena->lock protects every field; a leaf. A forked child does not take it: on
 * what it inherited it may call arena_destroy() only.
 */
#include <pthread.h>
#include <string.h>

#include "util/arena.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(memory, size) __asan_poison_memory_region(memory, size)
#define UNPOISON(memory, size) __asan_unpoison_memory_region(memory, size)
#else
#define POISON(memory, size) ((void)(memory), (void)(size))
#define UNPOISON(memory, size) ((void)(memory), (void)(size))
#endif

#define ALIGN ((size_t)64)
#define CHUNK_MIN ((size_t)256 << 10)
#define CHUNK_MAX ((size_t)16 << 20)
#define BLOCK_MAX ((size_t)32 << 10)

/* Above 128 bytes at most a third of a block is lost. */
/* clang-format off */
static const uint16_t class_size[] = {
	64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096,
	6144, 8192, 12288, 16384, 24576, 32768,
};
/* clang-format on */
#define CLASSES (sizeof(class_size) / sizeof(class_size[0]))

/* In front of a chunk, and of a mapping of its own. */
struct header {
	struct header *next, *prev;
	size_t size; /* of the mapping, this included */
	char pad[40];
};
_Static_assert(sizeof(struct header) == ALIGN, "memory behind a header is aligned");

struct freed {
	struct freed *next;
};

struct arena {
	pthread_mutex_t lock;
	struct header *chunks; /* newest first; the last one holds the arena itself */
	struct header *bigs;
	char *rest, *rest_end; /* of the newest chunk; never used, so zero */
	size_t next_chunk;
	struct freed *freed[CLASSES];
};

static unsigned class_of(size_t size)
{
	unsigned i = 0;

	while (class_size[i] < size)
		i++;
	return i;
}

static struct header *header_map(size_t size)
{
	struct header *header = arena_map(size);

	if (header)
		header->size = size;
	return header;
}

static void list_unmap(struct header *header)
{
	struct header *next;

	for (; header; header = next) {
		next = header->next;
		/* the address may come back as somebody else's memory */
		UNPOISON(header, header->size);
		arena_unmap(header, header->size);
	}
}

struct arena *arena_create(void)
{
	struct header *chunk = header_map(CHUNK_MIN);
	struct arena *arena;

	if (!chunk)
		return NULL;
	arena = (struct arena *)(chunk + 1);
	pthread_mutex_init(&arena->lock, NULL);
	arena->chunks = chunk;
	arena->rest = (char *)arena + ((sizeof(*arena) + ALIGN - 1) & ~(ALIGN - 1));
	arena->rest_end = (char *)chunk + CHUNK_MIN;
	arena->next_chunk = 2 * CHUNK_MIN;
	POISON(arena->rest, (size_t)(arena->rest_end - arena->rest));
	return arena;
}

void arena_destroy(struct arena *arena)
{
	struct header *chunks;

	if (!arena)
		return;
	chunks = arena->chunks;
	list_unmap(arena->bigs);
	list_unmap(chunks);
}

/* Under the lock. What is left of the old chunk, less than a block, is given up. */
static bool chunk_add(struct arena *arena)
{
	struct header *chunk = header_map(arena->next_chunk);

	if (!chunk)
		return false;
	chunk->next = arena->chunks;
	arena->chunks = chunk;
	arena->rest = (char *)(chunk + 1);
	arena->rest_end = (char *)chunk + chunk->size;
	if (arena->next_chunk < CHUNK_MAX)
		arena->next_chunk *= 2;
	POISON(arena->rest, (size_t)(arena->rest_end - arena->rest));
	return true;
}

static void *block_alloc(struct arena *arena, size_t size)
{
	struct freed *freed;
	char *block = NULL;
	unsigned class;

	if (size < sizeof(*freed))
		size = sizeof(*freed);
	class = class_of(size);
	pthread_mutex_lock(&arena->lock);
	freed = arena->freed[class];
	if (freed) {
		UNPOISON(freed, size);
		arena->freed[class] = freed->next;
	} else if ((size_t)(arena->rest_end - arena->rest) >= class_size[class] ||
		   chunk_add(arena)) {
		block = arena->rest;
		arena->rest += class_size[class];
		UNPOISON(block, size);
	}
	pthread_mutex_unlock(&arena->lock);
	if (!freed)
		return block;
	return memset(freed, 0, size);
}

static void *big_alloc(struct arena *arena, size_t size)
{
	struct header *big;

	if (size > SIZE_MAX - sizeof(*big))
		return NULL;
	big = header_map(size + sizeof(*big));
	if (!big)
		return NULL;
	pthread_mutex_lock(&arena->lock);
	big->next = arena->bigs;
	if (big->next)
		big->next->prev = big;
	arena->bigs = big;
	pthread_mutex_unlock(&arena->lock);
	return big + 1;
}

void *arena_alloc(struct arena *arena, size_t size)
{
	return size > BLOCK_MAX ? big_alloc(arena, size) : block_alloc(arena, size);
}

static void big_free(struct arena *arena, struct header *big)
{
	pthread_mutex_lock(&arena->lock);
	if (big->next)
		big->next->prev = big->prev;
	if (big->prev)
		big->prev->next = big->next;
	else
		arena->bigs = big->next;
	pthread_mutex_unlock(&arena->lock);
	arena_unmap(big, big->size);
}

void arena_free(struct arena *arena, void *memory, size_t size)
{
	struct freed *freed = memory;
	unsigned class;

	if (!memory)
		return;
	if (size > BLOCK_MAX) {
		big_free(arena, (struct header *)memory - 1);
		return;
	}
	class = class_of(size);
	pthread_mutex_lock(&arena->lock);
	UNPOISON(freed, sizeof(*freed));
	freed->next = arena->freed[class];
	arena->freed[class] = freed;
	POISON(freed, class_size[class]);
	pthread_mutex_unlock(&arena->lock);
}
