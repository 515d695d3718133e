/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uvmem_live - see there. What is plain is on the secure side's stack or in this formula.
 */
#include "uvmem_live.h"

unsigned char vault_byte(unsigned seed, unsigned i)
{
	uint64_t x = (uint64_t)seed << 32 | (i / 8 + 1);

	x = (x ^ x >> 31) * UINT64_C(0x7fb5d329728ea185);
	x = (x ^ x >> 27) * UINT64_C(0x81dadef4bc2dd44d);
	x ^= x >> 33;
	return (unsigned char)(x >> i % 8 * 8);
}

unsigned char *vault_map(size_t length)
{
	return (unsigned char *)live_map(length + 2 * PAGE, PROT_READ | PROT_WRITE) + PAGE;
}

void vault_unmap(void *at, size_t length)
{
	munmap((char *)at - PAGE, length + 2 * PAGE);
}

struct page_arg {
	struct vault *vault;
	unsigned page;
};

static int fill_page(struct uvmem_side *side, void *arg)
{
	struct page_arg *a = arg;
	unsigned char page[PAGE];

	for (unsigned i = 0; i < PAGE; i++)
		page[i] = vault_byte(a->vault->seed, a->page * PAGE + i);
	return uvmem_store(side, a->vault->at + a->page * PAGE, page, PAGE);
}

static int check_page(struct uvmem_side *side, void *arg)
{
	struct page_arg *a = arg;
	unsigned char page[PAGE];
	int err = uvmem_load(side, page, a->vault->at + a->page * PAGE, PAGE);

	for (unsigned i = 0; i < PAGE && !err; i++) {
		unsigned char want =
			a->page < a->vault->erased
				? 0
				: vault_byte(a->vault->seed, a->page * PAGE + i);

		err = page[i] == want ? 0 : -EIO;
	}
	return err;
}

int vault_write_page(struct vault *vault, unsigned page)
{
	return uvmem_run(vault->uv, fill_page, &(struct page_arg){ vault, page });
}

int vault_check_page(struct vault *vault, unsigned page)
{
	return uvmem_run(vault->uv, check_page, &(struct page_arg){ vault, page });
}

int vault_check(struct vault *vault)
{
	int err = 0;

	for (unsigned p = 0; p < PAGES && !err; p++)
		err = vault_check_page(vault, p);
	return err;
}

bool vault_is_plain(const struct vault *vault, const unsigned char *bytes, unsigned page)
{
	unsigned same = 0;

	for (unsigned i = 0; i < PAGE; i++)
		same += bytes[i] == vault_byte(vault->seed, page * PAGE + i);
	return same > PAGE / 16; /* 16 of 4096 by chance */
}

struct filing {
	int fd;
	const void *key;
	uint64_t number, *generation;
};

static int put(struct uvmem_side *side, void *arg)
{
	const struct filing *f = arg;

	return uvmem_export(side, f->fd, f->key, f->number);
}

static int get(struct uvmem_side *side, void *arg)
{
	const struct filing *f = arg;

	return uvmem_import(side, f->fd, f->key, f->number, f->generation);
}

int vault_export(struct vault *vault, int fd, const void *key, uint64_t generation)
{
	return uvmem_run(vault->uv, put, &(struct filing){ fd, key, generation, NULL });
}

int vault_import(struct vault *vault, int fd, const void *key, uint64_t at_least,
		 uint64_t *generation)
{
	return uvmem_run(vault->uv, get, &(struct filing){ fd, key, at_least, generation });
}

enum verdict vault_begin(struct vault *vault, const struct uvmem_options *options)
{
	char why[300];
	int err = options && options->mlocked ? 0 : uvmem_available(why, sizeof(why));

	if (err == -EOPNOTSUPP)
		return live_skip("%s", why);
	memset(vault, 0, sizeof(*vault));
	vault->seed = (unsigned)getpid() * 2654435761u;
	EXPECT(0, uvmem_open(options, &vault->uv));
	vault->at = vault_map(PAGES * PAGE);
	EXPECT(0, uvmem_init_start(vault->uv, vault->at, PAGES * PAGE));
	EXPECT(0, uvmem_init_done(vault->uv));
	for (unsigned p = 0; p < PAGES; p++)
		EXPECT(0, vault_write_page(vault, p));
	return PASS;
}

void vault_end(struct vault *vault)
{
	uvmem_close(vault->uv);
	vault_unmap(vault->at, PAGES * PAGE);
}
