/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_uvmem_leaks - U1 and U4 from outside: a process keeps a secret, and every place that
 * another can look at is searched for it.
 *
 * What is searched for is known here by a formula and a number, and was never in any memory
 * but the secure side's. Each search has a control: a marker that the keeper leaves in
 * ordinary memory, in the same way and of the same length, must be found.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "uvmem_search.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

/* Shared with the keeper. */
struct shared {
	volatile int ready, go, answer;
	volatile unsigned seed;
	unsigned char *volatile at;
	volatile int out; /* in: page out before it is ready */
};
static struct shared *shared;

/* ---- the keeper ---- */

static int sleeps(struct uvmem_side *side, void *arg)
{
	unsigned char page[PAGE];
	struct vault *vault = arg;
	int err = 0;

	/* Plain bytes have been through this stack and registers. */
	for (unsigned p = 0; p < PAGES && !err; p++)
		err = uvmem_load(side, page, vault->at + p * PAGE, PAGE);
#if defined(__x86_64__)
	/* As any copy may leave them, whatever this machine's memcpy does. */
	__asm__ volatile("movdqu %0, %%xmm7\n\tmovdqu %0, %%xmm13"
			 :
			 : "m"(page[0]), "m"(page)
			 : "xmm7", "xmm13");
#endif
	return err;
}

static void leave_control(void)
{
	unsigned char *control = malloc(PAGE);

	for (unsigned i = 0; i < PAGE; i++)
		control[i] = vault_byte(CONTROL_SEED, i);
}

/* Never returns. */
static void keep(bool crash)
{
	struct vault vault;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (vault_begin(&vault, NULL) != PASS || uvmem_run(vault.uv, sleeps, &vault))
		_exit(1);
	leave_control();
	shared->seed = vault.seed;
	shared->at = vault.at;
	if (shared->out && uvmem_page_out(vault.uv, vault.at, PAGES * PAGE) < 0)
		_exit(1);
	shared->ready = 1;
	while (!shared->go)
		usleep(1000);
	/* With what the secure side left in the registers, unless pages shall be out. */
	if (crash && !shared->out)
		uvmem_run(vault.uv, sleeps, &vault);
	if (crash)
		__builtin_trap();
	_exit(vault_check(&vault) ? 1 : 0);
}

static enum verdict keeper_start(pid_t *pid, bool out, bool crash)
{
	char why[300];
	int status;

	if (uvmem_available(why, sizeof(why)))
		return live_skip("%s", why);
	shared =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED, "mmap");
	shared->out = out;
	*pid = fork();
	SYS(*pid);
	if (!*pid)
		keep(crash);
	while (!shared->ready) {
		if (waitpid(*pid, &status, WNOHANG) == *pid)
			FAILED("the keeper ended: %#x", status);
		usleep(1000);
	}
	return PASS;
}

/* It goes on unharmed. */
static enum verdict keeper_end(pid_t pid)
{
	int status;

	shared->go = 1;
	status = live_wait(pid, 20);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "the keeper: %#x", status);
	return PASS;
}

/* ---- from outside ---- */

static enum verdict proc_mem(const void *arg)
{
	struct found found = { 0 };
	pid_t pid;

	TRY(keeper_start(&pid, arg, false));
	TRY(uvmem_search_maps(pid, shared->seed, &found, false));
	TRY(uvmem_nothing_found(&found));
	return keeper_end(pid);
}

/* It waits for pages that are in, so it makes them leave: sealed. */
static enum verdict process_vm(const void *arg)
{
	struct found found = { 0 };
	pid_t pid;

	TRY(keeper_start(&pid, arg, false));
	TRY(uvmem_search_maps(pid, shared->seed, &found, true));
	TRY(uvmem_nothing_found(&found));
	return keeper_end(pid);
}

static enum verdict ptracer(const void *arg)
{
	unsigned char hay[PAGES * PAGE];
	struct found found = { .control = true };
	unsigned seen = 0;
	pid_t pid;
	int status;

	TRY(keeper_start(&pid, arg, false));
	SYS(ptrace(PTRACE_ATTACH, pid, 0, 0));
	SYS(waitpid(pid, &status, __WALL));
	for (unsigned i = 0; i < PAGES * PAGE; i += 8) {
		long word;

		errno = 0;
		word = ptrace(PTRACE_PEEKDATA, pid, shared->at + i, 0);
		if (errno)
			word = 0;
		else
			seen++;
		memcpy(hay + i, &word, 8);
	}
	uvmem_search(&found, shared->seed, hay, sizeof(hay));
	TRY(uvmem_search_maps(pid, shared->seed, &found, false));
	SYS(ptrace(PTRACE_DETACH, pid, 0, 0));
	CHECK(!arg || seen == PAGES * PAGE / 8, "only %u words of sealed pages", seen);
	TRY(uvmem_nothing_found(&found));
	return keeper_end(pid);
}

/* No way to map the secret memory: by a descriptor, or by what /proc has of the mapping. */
static enum verdict descriptors(const void *arg)
{
	char path[400];
	struct dirent *entry;
	unsigned secret = 0, opened = 0;
	pid_t pid;
	DIR *dir;
	int pidfd;

	TRY(keeper_start(&pid, false, false));
	snprintf(path, sizeof(path), "/proc/%d/map_files", pid);
	dir = opendir(path);
	CHECK(dir, "%s: %s", path, strerror(errno));
	while ((entry = readdir(dir))) {
		char to[400] = "";
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/map_files/%s", pid, entry->d_name);
		if (readlink(path, to, sizeof(to) - 1) < 0 || !strstr(to, "secretmem"))
			continue;
		secret++;
		fd = open(path, O_RDWR | O_CLOEXEC);
		opened += fd >= 0 &&
			  mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED;
	}
	closedir(dir);
	CHECK(secret, "no mapping of secret memory is listed");
	CHECK(!opened, "secret memory was mapped through map_files");
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	for (int fd = 0; fd < 64; fd++) {
		char to[400] = "";

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
		if (readlink(path, to, sizeof(to) - 1) > 0)
			CHECK(!strstr(to, "secretmem"), "descriptor %d is of it", fd);
	}
	close(pidfd);
	return keeper_end(pid);
}

/* ---- a core dump ---- */

static enum verdict core_dump(const void *arg)
{
	static const struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	char pattern[200] = "", dir[] = "/tmp/uhmm-uvmem-XXXXXX", name[300] = "";
	int fd = open("/proc/sys/kernel/core_pattern", O_RDONLY), status;
	struct found found = { 0 };
	unsigned char *hay;
	struct dirent *entry;
	struct stat st;
	pid_t pid;
	DIR *d;

	if (read(fd, pattern, sizeof(pattern) - 1) <= 0 || pattern[0] == '|' ||
	    pattern[0] == '/' || pattern[0] == '@')
		return live_skip("core dumps go to \"%.100s\" here", pattern);
	close(fd);
	if (setrlimit(RLIMIT_CORE, &all))
		return live_skip("no core dumps: %s", strerror(errno));
	CHECK(mkdtemp(dir), "mkdtemp");
	SYS(chdir(dir));
	TRY(keeper_start(&pid, arg, true));
	shared->go = 1;
	SYS(waitpid(pid, &status, 0));
	CHECK(WIFSIGNALED(status), "it did not crash: %#x", status);
	if (!WCOREDUMP(status))
		return live_skip("the kernel wrote no core");
	d = opendir(".");
	while ((entry = readdir(d)))
		if (entry->d_name[0] != '.')
			snprintf(name, sizeof(name), "%s", entry->d_name);
	closedir(d);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	SYS(fd);
	SYS(fstat(fd, &st));
	hay = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(hay != MAP_FAILED, "mmap of the core");
	uvmem_search(&found, shared->seed, hay, (size_t)st.st_size);
	unlink(name);
	SYS(chdir("/"));
	rmdir(dir);
	return uvmem_nothing_found(&found);
}

/* ---- children ---- */

static enum verdict no_secret_mapping(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[400];

	CHECK(maps, "maps");
	while (fgets(line, sizeof(line), maps))
		CHECK(!strstr(line, "secretmem"), "a child has %s", line);
	fclose(maps);
	return PASS;
}

static enum verdict child_searches(void *arg)
{
	struct vault *vault = arg;
	struct found found = { 0 };
	unsigned char page[PAGE];

	shared->seed = vault->seed;
	for (unsigned p = 0; p < PAGES; p++) {
		memcpy(page, vault->at + p * PAGE, PAGE);
		CHECK(!vault_is_plain(vault, page, p), "page %u is plain in the child", p);
	}
	TRY(uvmem_search_maps(getpid(), shared->seed, &found, false));
	/* What /proc does not read a plain load would, if it were there. */
	TRY(no_secret_mapping());
	CHECK(uvmem_page(vault->uv, vault->at) == -ENODEV, "the child can ask");
	CHECK(vault_check(vault) == -ENODEV, "the child can run");
	uvmem_close(vault->uv);
	/* Its own needles lie in uvmem_search.c's tables. */
	CHECK(found.control, "the control was not found");
	return PASS;
}

static enum verdict child(const void *arg)
{
	bool raw = arg;
	struct vault vault;

	TRY(vault_begin(&vault, NULL));
	shared =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	leave_control();
	EXPECT(0, vault_check(&vault));
	if (raw) {
		live_child_prepare();
		TRY(live_child_of((pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0),
				  child_searches, &vault, 20));
	} else {
		TRY(live_child(child_searches, &vault, 20));
	}
	EXPECT(0, vault_check(&vault));
	vault_end(&vault);
	return PASS;
}

/* What the child has of it is of no use to bring an older state back. */
static enum verdict child_bytes_replayed(const void *arg)
{
	static unsigned char old[PAGE];
	struct vault vault;
	int pipes[2];
	pid_t pid;

	TRY(vault_begin(&vault, NULL));
	SYS(pipe(pipes));
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (!pid) /* sealed, while the page stayed in with us */
		_exit(write(pipes[1], vault.at, PAGE) == PAGE ? 0 : 1);
	CHECK(read(pipes[0], old, PAGE) == PAGE, "the child's page");
	live_wait(pid, 10);
	CHECK(!vault_is_plain(&vault, old, 0), "plain");
	vault.seed++;
	EXPECT(0, vault_write_page(&vault, 0));
	CHECK(uvmem_page_out(vault.uv, vault.at, PAGE) >= 0, "page out");
	memcpy(vault.at, old, PAGE);
	EXPECT(-EBADMSG, vault_check_page(&vault, 0));
	vault_end(&vault);
	return PASS;
}

/* ---- the end ---- */

/* Killed: its mappings are gone; nothing of it is in files that others see. */
static enum verdict killed(const void *arg)
{
	char path[64];
	int status;
	pid_t pid;

	TRY(keeper_start(&pid, arg, false));
	SYS(kill(pid, SIGKILL));
	SYS(waitpid(pid, &status, 0));
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%#x", status);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	CHECK(access(path, F_OK), "it is there still");
	/*
	 * What the kernel gives out next has been cleared: as many pages as it had, ten
	 * times.
	 */
	for (unsigned i = 0; i < 10; i++) {
		size_t size = (size_t)64 << 20;
		unsigned char *fresh =
			(unsigned char *)live_map(size, PROT_READ | PROT_WRITE);

		madvise(fresh, size, MADV_POPULATE_WRITE);
		for (size_t at = 0; at < size; at += 8)
			CHECK(!*(uint64_t *)(fresh + at), "a page was not cleared");
		munmap(fresh, size);
	}
	return PASS;
}

/* Closed: the program goes on, and nothing of the secret is in it. */
static enum verdict closed(const void *arg)
{
	struct found found = { 0 };
	struct vault vault;

	TRY(vault_begin(&vault, NULL));
	shared =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared->seed = vault.seed;
	leave_control();
	uvmem_close(vault.uv);
	for (unsigned p = 0; p < PAGES; p++)
		CHECK(!vault_is_plain(&vault, vault.at + p * PAGE, p), "page %u is plain",
		      p);
	/* By another, who has the needles in his own memory. */
	pid_t pid = fork();
	SYS(pid);
	if (!pid) {
		pid_t parent = getppid();
		bool ok = uvmem_search_maps(parent, shared->seed, &found, true) == PASS &&
			  found.control && !found.secret;

		_exit(ok ? 0 : 1);
	}
	CHECK(live_wait(pid, 30) == 0, "it was found, or the control was not");
	return PASS;
}

#define IN NULL
#define OUT ((const void *)1)

int main(int argc, char **argv)
{
	static const struct live_case cases[] = {
		{ "proc-mem, pages in", proc_mem, IN, 0 },
		{ "proc-mem, pages out", proc_mem, OUT, 0 },
		{ "process-vm, pages in", process_vm, IN, 0 },
		{ "process-vm, pages out", process_vm, OUT, 0 },
		{ "ptrace, pages in", ptracer, IN, 0 },
		{ "ptrace, pages out", ptracer, OUT, 0 },
		{ "descriptors", descriptors, NULL, 0 },
		{ "core-dump, pages in", core_dump, IN, 0 },
		{ "core-dump, pages out", core_dump, OUT, 0 },
		{ "fork", child, NULL, 0 },
		{ "clone", child, OUT, 0 },
		{ "clone, then a replay", child_bytes_replayed, NULL, 0 },
		{ "killed", killed, NULL, 0 },
		{ "closed", closed, NULL, 0 },
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
