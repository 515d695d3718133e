/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * bench_uvmem - secure memory: uvmem_page_out, uvmem_page_in, uvmem_load, uvmem_run.
 *
 * The plain way to seal a page is the cipher alone. What is left is moving: the page table
 * of the program, the engine's turn, and the copy that keeps what is checked from being
 * changed.
 */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uhmm/uvmem.h>

#include "bench.h"

#define PAGES BENCH_WINDOW
#define SIZE (PAGES * BENCH_PAGE)
#define LOADS 4096u
#define RUNS 64u
#define PIECE 64u

struct secured {
	struct uvmem *uv;
	char *range, *plain, *sealed; /* plain, sealed: ordinary memory */
	unsigned char tag[PAGES][16], nonce[24], key[32];
	crypto_aead_aes256gcm_state *aes; /* NULL: XChaCha20-Poly1305 */
	uint64_t number;
};

static int out(struct secured *s)
{
	int64_t n = uvmem_page_out(s->uv, s->range, SIZE);

	return n < 0 ? (int)n : n < (int64_t)PAGES ? -EAGAIN : 0;
}

static int in(struct secured *s)
{
	int64_t n = uvmem_page_in(s->uv, s->range, SIZE);

	return n < 0 ? (int)n : 0;
}

static int out_batch(void *arg, double *cost)
{
	struct secured *s = arg;
	uint64_t start;
	int err = in(s);

	start = tool_now();
	if (!err)
		err = out(s);
	*cost = (double)(tool_now() - start) / PAGES;
	return err;
}

static int in_batch(void *arg, double *cost)
{
	struct secured *s = arg;
	uint64_t start;
	int err = out(s);

	/* They may be out already: the last batch of the other row. */
	if (err && err != -EAGAIN)
		return err;
	start = tool_now();
	err = in(s);
	*cost = (double)(tool_now() - start) / PAGES;
	return err;
}

static void seal_all(struct secured *s)
{
	for (size_t i = 0; i < PAGES; i++) {
		unsigned char *to = (unsigned char *)s->sealed + i * BENCH_PAGE;
		unsigned char *from = (unsigned char *)s->plain + i * BENCH_PAGE;

		memcpy(s->nonce, &s->number, sizeof(s->number));
		s->nonce[8] = (unsigned char)i;
		s->nonce[9] = (unsigned char)(i >> 8);
		if (s->aes)
			crypto_aead_aes256gcm_encrypt_detached_afternm(
				to, s->tag[i], NULL, from, BENCH_PAGE, NULL, 0, NULL,
				s->nonce, s->aes);
		else
			crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
				to, s->tag[i], NULL, from, BENCH_PAGE, NULL, 0, NULL,
				s->nonce, s->key);
	}
}

static int open_all(struct secured *s)
{
	int failed = 0;

	for (size_t i = 0; i < PAGES; i++) {
		unsigned char *from = (unsigned char *)s->sealed + i * BENCH_PAGE;
		unsigned char *to = (unsigned char *)s->plain + i * BENCH_PAGE;

		s->nonce[8] = (unsigned char)i;
		s->nonce[9] = (unsigned char)(i >> 8);
		failed |= s->aes ? crypto_aead_aes256gcm_decrypt_detached_afternm(
					   to, NULL, from, BENCH_PAGE, s->tag[i], NULL, 0,
					   s->nonce, s->aes)
				 : crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
					   to, NULL, from, BENCH_PAGE, s->tag[i], NULL, 0,
					   s->nonce, s->key);
	}
	return failed ? -EIO : 0;
}

static int seal_batch(void *arg, double *cost)
{
	struct secured *s = arg;
	uint64_t start = tool_now();

	s->number++;
	seal_all(s);
	*cost = (double)(tool_now() - start) / PAGES;
	return 0;
}

static int open_batch(void *arg, double *cost)
{
	struct secured *s = arg;
	uint64_t start;
	int err;

	s->number++;
	seal_all(s);
	start = tool_now();
	err = open_all(s);
	*cost = (double)(tool_now() - start) / PAGES;
	return err;
}

/* ---- the secure side ---- */

static int load_all(struct uvmem_side *side, void *arg)
{
	struct secured *s = arg;
	char piece[PIECE];
	int err = 0;

	for (unsigned i = 0; i < LOADS && !err; i++)
		err = uvmem_load(side, piece, s->range + i * PIECE * 7 % SIZE, PIECE);
	return err;
}

static int load_batch(void *arg, double *cost)
{
	struct secured *s = arg;
	uint64_t start = tool_now();
	int err = uvmem_run(s->uv, load_all, s);

	*cost = (double)(tool_now() - start) / LOADS;
	return err;
}

static int memcpy_batch(void *arg, double *cost)
{
	struct secured *s = arg;
	uint64_t start = tool_now();

	for (unsigned i = 0; i < LOADS; i++) {
		char piece[PIECE];

		memcpy(piece, s->plain + i * PIECE * 7 % SIZE, PIECE);
		__asm__ volatile("" : : "r"(piece) : "memory");
	}
	*cost = (double)(tool_now() - start) / LOADS;
	return 0;
}

static int nothing(struct uvmem_side *side, void *arg)
{
	return 0;
}

static int run_batch(void *arg, double *cost)
{
	struct secured *s = arg;
	uint64_t start = tool_now();
	int err = 0;

	for (unsigned i = 0; i < RUNS && !err; i++)
		err = uvmem_run(s->uv, nothing, NULL);
	*cost = (double)(tool_now() - start) / RUNS;
	return err;
}

static int call_batch(void *arg, double *cost)
{
	uint64_t start = tool_now();

	for (unsigned i = 0; i < RUNS; i++)
		getppid();
	*cost = (double)(tool_now() - start) / RUNS;
	return 0;
}

/* ---- rows ---- */

static void end(struct secured *s)
{
	uvmem_close(s->uv);
	if (s->range)
		munmap(s->range - BENCH_PAGE, 3 * SIZE + 2 * BENCH_PAGE);
	free(s->aes);
}

static int begin(struct secured *s, enum uvmem_cipher cipher)
{
	const struct uvmem_options options = { .size = sizeof(options),
					       .frames = 2 * PAGES,
					       .cipher = cipher };
	struct uvmem_stats stats = { .size = sizeof(stats) };
	int err = uvmem_open(&options, &s->uv);

	s->range = bench_map(3 * SIZE + 2 * BENCH_PAGE);
	if (!s->range)
		return err ? err : -ENOMEM;
	s->range += BENCH_PAGE; /* not beside libc's (devmem.h) */
	s->plain = s->range + SIZE;
	s->sealed = s->plain + SIZE;
	if (err)
		return err;
	memset(s->range, 1, 3 * SIZE);
	randombytes_buf(s->key, sizeof(s->key));
	uvmem_get_stats(s->uv, &stats);
	if (stats.cipher == UVMEM_CIPHER_AES256GCM) {
		s->aes = aligned_alloc(64, (sizeof(*s->aes) + 63) & ~(size_t)63);
		if (!s->aes)
			return -ENOMEM;
		crypto_aead_aes256gcm_beforenm(s->aes, s->key);
	}
	err = uvmem_init_start(s->uv, s->range, SIZE);
	return err ? err : uvmem_init_done(s->uv);
}

static void pages(struct bench *bench, struct secured *s,
		  const struct bench_title *out_title, const struct bench_title *in_title)
{
	bench_pair(bench, out_title, out_batch, seal_batch, s);
	bench_pair(bench, in_title, in_batch, open_batch, s);
}

void bench_uvmem(struct bench *bench)
{
	static const struct bench_title titles[] = {
		{ "uvmem_page_out", "ns/page", "the cipher alone", NULL },
		{ "uvmem_page_in", "ns/page", "the cipher alone", NULL },
		{ "uvmem_load", "ns", "memcpy", NULL },
		{ "uvmem_run", "ns", "getppid()", NULL },
		{ "uvmem_page_out/xchacha20", "ns/page", "the cipher alone", NULL },
		{ "uvmem_page_in/xchacha20", "ns/page", "the cipher alone", NULL },
	};
	struct secured s = { .uv = NULL }, x = { .uv = NULL };
	int err = begin(&s, UVMEM_CIPHER_ANY);

	if (err) {
		bench_skip(bench, titles[0].name, "%s", uvmem_strerror(err));
	} else {
		pages(bench, &s, &titles[0], &titles[1]);
		bench_pair(bench, &titles[2], load_batch, memcpy_batch, &s);
		bench_pair(bench, &titles[3], run_batch, call_batch, &s);
	}
	end(&s);
	err = begin(&x, UVMEM_CIPHER_XCHACHA20POLY1305);
	if (err)
		bench_skip(bench, titles[4].name, "%s", uvmem_strerror(err));
	else
		pages(bench, &x, &titles[4], &titles[5]);
	end(&x);
}
