/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uvmem_less - U5: machines and processes that have less; and that nothing is left behind.
 */
#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "uvmem_cases.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

/* As a kernel without it, for good in this process. */
static enum verdict take_away(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_secret, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

	SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	SYS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	return PASS;
}

static enum verdict child_has_zeros(void *arg)
{
	struct vault *v = arg;

	for (unsigned p = 0; p < PAGES; p++)
		CHECK(!vault_is_plain(v, v->at + p * PAGE, p),
		      "page %u is plain in a child", p);
	EXPECT(-ENODEV, vault_check(v));
	return PASS;
}

enum verdict uvmem_without(const void *arg)
{
	const struct uvmem_options by_name = { .size = sizeof(by_name), .mlocked = true };
	struct uvmem_stats stats = { .size = sizeof(stats) };
	char why[400] = "";
	struct uvmem *uv = NULL;
	struct vault v;

	TRY(take_away());
	EXPECT(-EOPNOTSUPP, uvmem_available(why, sizeof(why)));
	CHECK(strstr(why, "memfd_secret") && strstr(why, "secretmem.enable"),
	      "it says \"%s\"", why);
	EXPECT(-EOPNOTSUPP, uvmem_available(NULL, 0));
	EXPECT(-EOPNOTSUPP, uvmem_open(NULL, &uv));
	CHECK(!uv, "a handle");
	TRY(vault_begin(&v, &by_name));
	uvmem_get_stats(v.uv, &stats);
	CHECK(!stats.secret, "it says that it is secret memory");
	for (unsigned p = 0; p < PAGES; p++)
		CHECK(!vault_is_plain(&v, v.at + p * PAGE, p), "page %u is plain", p);
	EXPECT(0, vault_check(&v));
	TRY(live_child(child_has_zeros, &v, 10));
	EXPECT(0, vault_check(&v));
	v.at[0] ^= 1;
	EXPECT(-EBADMSG, vault_check_page(&v, 0));
	vault_end(&v);
	return PASS;
}

/* Too little may be locked: said, nothing left, and fewer frames fit. */
enum verdict uvmem_limited(const void *arg)
{
	const struct rlimit limit = { 2u << 20, 2u << 20 };
	const struct uvmem_options few = { .size = sizeof(few), .frames = 16, .sides = 1 };
	char why[400];
	struct uvmem *uv = NULL;

	if (uvmem_available(why, sizeof(why)))
		return live_skip("%s", why);
	SYS(setrlimit(RLIMIT_MEMLOCK, &limit));
	/*
	 * CAP_IPC_LOCK knows no limit; device memory needs CAP_SYS_PTRACE: keep that one.
	 */
	if (prctl(PR_CAPBSET_READ, 14 /* CAP_IPC_LOCK */, 0, 0, 0) == 1) {
		struct {
			uint32_t version;
			int pid;
		} header = { 0x20080522, 0 };
		struct {
			uint32_t effective, permitted, inheritable;
		} data[2];

		SYS(syscall(SYS_capget, &header, data));
		data[0].effective &= ~(1u << 14);
		SYS(syscall(SYS_capset, &header, data));
	}
	EXPECT(-ENOMEM, uvmem_open(NULL, &uv));
	CHECK(!uv, "a handle");
	EXPECT(0, uvmem_open(&few, &uv));
	uvmem_close(uv);
	return PASS;
}

static unsigned descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static unsigned mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned n = 0;
	int c;

	while ((c = fgetc(maps)) != EOF)
		n += c == '\n';
	fclose(maps);
	return n;
}

static enum verdict one_round(void)
{
	struct vault v;

	TRY(vault_begin(&v, NULL));
	EXPECT(0, vault_check(&v));
	v.at[0]++;
	EXPECT(-EBADMSG, vault_check(&v));
	vault_end(&v);
	return PASS;
}

enum verdict uvmem_no_leak(const void *arg)
{
	unsigned fds, maps;

	TRY(one_round());
	TRY(one_round());
	fds = descriptors();
	maps = mappings();
	for (unsigned i = 0; i < 10; i++)
		TRY(one_round());
	CHECK(descriptors() <= fds, "%u descriptors, before %u", descriptors(), fds);
	CHECK(mappings() <= maps + 2, "%u mappings, before %u", mappings(), maps);
	return PASS;
}
