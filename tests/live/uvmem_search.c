/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* uvmem_search - see there. */
#include <fcntl.h>
#include <sys/uio.h>

#include "uvmem_search.h"

#define NEEDLE 16u /* bytes; of every 64 bytes of the range */

static void needle_of(unsigned seed, unsigned i, unsigned char *needle)
{
	for (unsigned k = 0; k < NEEDLE; k++)
		needle[k] = vault_byte(seed, i + k);
}

static unsigned hash_of(uint64_t word)
{
	return (unsigned)(word * UINT64_C(0x9e3779b97f4a7c15) >> 44);
}

/*
 * Is any aligned piece of page p of the range in here? By its first 8 bytes, then the rest.
 */
static bool finds(unsigned seed, const unsigned char *hay, size_t size)
{
	/* Words of the first page at 64 byte steps are enough to find a page anywhere. */
	static uint64_t words[PAGES * PAGE / 64];
	/* By a hash of 20 bits, so that nearly all positions cost one look. */
	static unsigned char maybe[1 << 20];
	const unsigned n = PAGES * PAGE / 64;

	memset(maybe, 0, sizeof(maybe));
	for (unsigned w = 0; w < n; w++) {
		unsigned char needle[NEEDLE];

		needle_of(seed, w * 64, needle);
		memcpy(&words[w], needle, 8);
		maybe[hash_of(words[w])] = 1;
	}
	for (size_t at = 0; at + NEEDLE <= size; at++) {
		uint64_t here;

		memcpy(&here, hay + at, 8);
		if (!here || !maybe[hash_of(here)])
			continue;
		for (unsigned w = 0; w < n; w++) {
			unsigned char needle[NEEDLE];

			if (here != words[w])
				continue;
			needle_of(seed, w * 64, needle);
			if (!memcmp(hay + at, needle, NEEDLE))
				return true;
		}
	}
	return false;
}

void uvmem_search(struct found *found, unsigned seed, const unsigned char *hay, size_t size)
{
	found->bytes += size;
	found->secret = found->secret || finds(seed, hay, size);
	found->control = found->control || finds(CONTROL_SEED, hay, size);
}

#define CHUNK ((size_t)1 << 20)

enum verdict uvmem_search_maps(pid_t pid, unsigned seed, struct found *found, bool by_vm)
{
	static unsigned char hay[CHUNK];
	char path[64], line[400];
	unsigned long start, end;
	FILE *maps;
	int mem;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	SYS(mem);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "r");
	CHECK(maps, "%s", path);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx", &start, &end) != 2 || start >> 47)
			continue;
		while (start < end) {
			size_t n = end - start < CHUNK ? end - start : CHUNK;
			struct iovec mine = { hay, n }, theirs = { (void *)start, n };
			ssize_t got = by_vm ? process_vm_readv(pid, &mine, 1, &theirs, 1, 0)
					    : pread(mem, hay, n, (off_t)start);

			if (got > 0)
				uvmem_search(found, seed, hay, (size_t)got);
			/* What cannot be read is skipped by a page. */
			start += got > 0 ? (size_t)got : PAGE;
		}
	}
	fclose(maps);
	close(mem);
	return PASS;
}

enum verdict uvmem_nothing_found(const struct found *found)
{
	CHECK(found->control, "the control was not found in %zu bytes", found->bytes);
	CHECK(!found->secret, "the secret was found");
	return PASS;
}
