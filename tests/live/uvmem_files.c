/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uvmem_files - a range on disk: what is in the file, and which files are taken.
 */
#include <sys/stat.h>

#include "uvmem_cases.h"

static const unsigned char key[UVMEM_KEY_BYTES] = "the key of these tests";

static int memory_file(void)
{
	return memfd_create("uhmm-live-uvmem", MFD_CLOEXEC);
}

static size_t size_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : (size_t)st.st_size;
}

static enum verdict all_zero(struct vault *v)
{
	unsigned erased = v->erased;

	v->erased = PAGES;
	EXPECT(0, vault_check(v));
	v->erased = erased;
	return PASS;
}

static int import_from(struct vault *v, int fd, const void *with, uint64_t at_least,
		       uint64_t *generation)
{
	if (lseek(fd, 0, SEEK_SET))
		return -errno;
	return vault_import(v, fd, with, at_least, generation);
}

enum verdict uvmem_file(const void *arg)
{
	uint64_t generation = 0;
	unsigned char *bytes;
	int fd = memory_file();
	struct vault v, w;

	TRY(vault_begin(&v, NULL));
	EXPECT(0, vault_export(&v, fd, key, 42));
	bytes = mmap(NULL, size_of(fd), PROT_READ, MAP_SHARED, fd, 0);
	for (size_t at = 0; at + PAGE <= size_of(fd); at++)
		for (unsigned p = 0; p < PAGES && !(at % 64); p++)
			CHECK(!vault_is_plain(&v, bytes + at, p), "page %u is plain in it",
			      p);
	EXPECT(0, vault_check(&v));
	EXPECT(0, uvmem_erase(v.uv, v.at, PAGES * PAGE));
	EXPECT(0, import_from(&v, fd, key, 42, &generation));
	EXPECT(42, generation);
	EXPECT(0, vault_check(&v));
	/* Into another range of as many pages. */
	TRY(vault_begin(&w, NULL));
	w.seed = v.seed;
	EXPECT(0, import_from(&w, fd, key, 0, NULL));
	EXPECT(0, vault_check(&w));
	/* Shared pages are in no file, and nothing is written to one. */
	EXPECT(0, uvmem_share(w.uv, w.at, PAGE));
	memset(w.at, 's', PAGE);
	EXPECT(0, import_from(&w, fd, key, 0, NULL));
	CHECK(w.at[0] == 's' && w.at[PAGE - 1] == 's', "an import wrote to a shared page");
	EXPECT(0, vault_check_page(&w, 1));
	EXPECT(0, ftruncate(fd, 0));
	EXPECT(0, lseek(fd, 0, SEEK_SET));
	EXPECT(0, vault_export(&w, fd, key, 43));
	EXPECT(0, import_from(&v, fd, key, 43, NULL));
	v.erased = 1;
	EXPECT(0, vault_check(&v));
	vault_end(&w);
	vault_end(&v);
	return PASS;
}

/* The last page said to be a shared one: all else is true. Only the end tells. */
static enum verdict left_out(struct vault *v, int fd, size_t header, size_t size)
{
	size_t at = header + (PAGES - 1) * (17 + PAGE);
	int cut = memory_file();
	char *bytes = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0), none = 0;

	CHECK(bytes != MAP_FAILED, "mmap");
	EXPECT((long)at, pwrite(cut, bytes, at, 0));
	EXPECT(1, pwrite(cut, &none, 1, (off_t)at));
	EXPECT(32, pwrite(cut, bytes + size - 32, 32, (off_t)at + 1));
	EXPECT(-EBADMSG, import_from(v, cut, key, 0, NULL));
	munmap(bytes, size);
	close(cut);
	return PASS;
}

/*
 * Each region of the file, a byte changed; cut anywhere; mixed; another key; and no page
 * shown.
 */
enum verdict uvmem_file_forged(const void *arg)
{
	static unsigned char other[UVMEM_KEY_BYTES] = "the key of these tesu";
	static char page_a[17 + PAGE], page_b[17 + PAGE];
	int fd = memory_file(), fd2 = memory_file();
	size_t header, size;
	struct vault v;

	TRY(vault_begin(&v, NULL));
	EXPECT(0, vault_export(&v, fd, key, 1));
	EXPECT(0, vault_export(&v, fd2, key, 1));
	size = size_of(fd);
	header = size - 32 - PAGES * (17 + PAGE);
	for (size_t at = 0; at < size; at += at < header + 40 ? 1 : 1009) {
		char byte, bad;
		int got;

		EXPECT(1, pread(fd, &byte, 1, (off_t)at));
		bad = (char)(byte ^ 0x10);
		EXPECT(1, pwrite(fd, &bad, 1, (off_t)at));
		got = import_from(&v, fd, key, 0, NULL);
		/* The number of pages is looked at first: of another range. */
		CHECK(got == -EBADMSG || (got == -EINVAL && at >= 8 && at < 16),
		      "byte %zu changed: %d", at, got);
		EXPECT(1, pwrite(fd, &byte, 1, (off_t)at));
		if (at > header && !(at % 5))
			TRY(all_zero(&v));
	}
	for (size_t at = size - 32; at < size; at++) {
		char byte, bad;

		EXPECT(1, pread(fd, &byte, 1, (off_t)at));
		bad = (char)(byte ^ 1);
		EXPECT(1, pwrite(fd, &bad, 1, (off_t)at));
		EXPECT(-EBADMSG, import_from(&v, fd, key, 0, NULL));
		EXPECT(1, pwrite(fd, &byte, 1, (off_t)at));
	}
	TRY(left_out(&v, fd, header, size));
	EXPECT(-EBADMSG, import_from(&v, fd, other, 0, NULL));
	TRY(all_zero(&v));
	/* A page from another export with the same key; two pages swapped. */
	EXPECT((long)sizeof(page_a), pread(fd, page_a, sizeof(page_a), (off_t)header));
	EXPECT((long)sizeof(page_b), pread(fd2, page_b, sizeof(page_b), (off_t)header));
	EXPECT((long)sizeof(page_b), pwrite(fd, page_b, sizeof(page_b), (off_t)header));
	EXPECT(-EBADMSG, import_from(&v, fd, key, 0, NULL));
	EXPECT((long)sizeof(page_b),
	       pread(fd, page_b, sizeof(page_b), (off_t)(header + sizeof(page_a))));
	EXPECT((long)sizeof(page_b), pwrite(fd, page_b, sizeof(page_b), (off_t)header));
	EXPECT((long)sizeof(page_a),
	       pwrite(fd, page_a, sizeof(page_a), (off_t)(header + sizeof(page_a))));
	EXPECT(-EBADMSG, import_from(&v, fd, key, 0, NULL));
	TRY(all_zero(&v));
	EXPECT((long)sizeof(page_a), pwrite(fd, page_a, sizeof(page_a), (off_t)header));
	EXPECT((long)sizeof(page_b),
	       pwrite(fd, page_b, sizeof(page_b), (off_t)(header + sizeof(page_a))));
	EXPECT(0, import_from(&v, fd, key, 0, NULL));
	EXPECT(0, vault_check(&v));
	for (size_t cut = 0; cut < size; cut += cut < header + 20 ? 7 : 20011) {
		EXPECT(0, ftruncate(fd2, (off_t)cut));
		EXPECT(-EBADMSG, import_from(&v, fd2, key, 0, NULL));
	}
	EXPECT(0, ftruncate(fd2, 0));
	EXPECT(-EBADMSG, import_from(&v, fd2, key, 0, NULL));
	EXPECT(0, ftruncate(fd, (off_t)size - 1)); /* the end's last byte */
	EXPECT(-EBADMSG, import_from(&v, fd, key, 0, NULL));
	TRY(all_zero(&v));
	vault_end(&v);
	return PASS;
}

/* A true file, but an old one; and one of which there is no reading. */
enum verdict uvmem_file_old(const void *arg)
{
	int fd = memory_file();
	uint64_t generation = 99;
	struct vault v;

	TRY(vault_begin(&v, NULL));
	EXPECT(0, vault_export(&v, fd, key, 7));
	EXPECT(-ESTALE, import_from(&v, fd, key, 8, &generation));
	EXPECT(99, generation);
	TRY(all_zero(&v));
	EXPECT(0, import_from(&v, fd, key, 7, &generation));
	EXPECT(7, generation);
	EXPECT(0, vault_check(&v));
	EXPECT(-EBADF, vault_export(&v, -1, key, 8));
	EXPECT(-EBADF, vault_import(&v, -1, key, 8, NULL));
	TRY(all_zero(&v));
	vault_end(&v);
	return PASS;
}
