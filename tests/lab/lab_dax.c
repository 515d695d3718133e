/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * lab_dax - what this project grew out of: a file on a filesystem with DAX, mapped by the
 * program, used by devices through the program's own pointers, and truncated under them.
 *
 * A file is mapped shared and written by the CPU, the software GPU and edu, each its third
 * of every page. Each reads what the others wrote. After msync and munmap the filesystem is
 * unmounted and mounted again: all of it is in the file. Where there is no edu, GPU and CPU
 * do it alone.
 */
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include <uhmm/gpu.h>

#include "lab.h"

#define PAGES 4
#define LENGTH (PAGES * PAGE)
#define PART 1000 /* of a page, for each of the three */

enum who { CPU, GPU, EDU, WHO };

struct devices {
	struct gpu *gpu;
	struct gpu_queue *queue;
	struct edu *edu; /* NULL: none here */
};

static enum verdict open_devices(struct devices *devs)
{
	struct edu_options edu = { .size = sizeof(edu) };
	struct gpu_options gpu = { .size = sizeof(gpu), .verify = true };

	EXPECT(0, gpu_open(&gpu, &devs->gpu));
	EXPECT(0, gpu_queue_create(devs->gpu, &devs->queue));
	return lab_edu_open(&edu, &devs->edu) == FAIL ? FAIL : PASS;
}

static void close_devices(struct devices *devs)
{
	gpu_queue_destroy(devs->queue);
	gpu_close(devs->gpu);
	edu_close(devs->edu);
}

/* As one of the three. */
static int write_as(struct devices *devs, enum who who, void *to, const void *from,
		    size_t n)
{
	if (who == GPU)
		return gpu_write(devs->queue, to, from, n);
	if (who == EDU && devs->edu)
		return edu_write(devs->edu, to, from, n);
	memcpy(to, from, n);
	return 0;
}

static int read_as(struct devices *devs, enum who who, void *to, const void *from, size_t n)
{
	if (who == GPU)
		return gpu_read(devs->queue, to, from, n);
	if (who == EDU && devs->edu)
		return edu_read(devs->edu, to, from, n);
	memcpy(to, from, n);
	return 0;
}

static unsigned seed_of(unsigned page, enum who who)
{
	return 100 + page * WHO + (unsigned)who;
}

static size_t place_of(unsigned page, enum who who)
{
	return page * PAGE + 50 + who * (PART + 50u);
}

/* In turns: a bounced page that edu writes must keep what the others wrote before. */
static enum verdict write_all(struct devices *devs, char *at)
{
	unsigned char bytes[PART];
	int err;

	for (unsigned page = 0; page < PAGES; page++)
		for (unsigned who = 0; who < WHO; who++) {
			lab_fill(bytes, PART, seed_of(page, who));
			err = write_as(devs, who, at + place_of(page, who), bytes, PART);
			CHECK(!err, "%u writes to page %u: %d (%s)", who, page, err,
			      edu_strerror(err));
		}
	return PASS;
}

/* Each reads a part that its neighbour wrote. */
static enum verdict read_all(struct devices *devs, const char *at)
{
	unsigned char bytes[PART];

	for (unsigned page = 0; page < PAGES; page++)
		for (unsigned who = 0; who < WHO; who++) {
			unsigned writer = (who + 1) % WHO;

			memset(bytes, 0, PART);
			EXPECT(0, read_as(devs, who, bytes, at + place_of(page, writer),
					  PART));
			CHECK(lab_differs(bytes, PART, seed_of(page, writer)) == PART,
			      "%u does not read in page %u what %u wrote", who, page,
			      writer);
		}
	return PASS;
}

static enum verdict same(const unsigned char *bytes, const char *how)
{
	for (unsigned page = 0; page < PAGES; page++)
		for (unsigned who = 0; who < WHO; who++) {
			size_t at = place_of(page, who);

			CHECK(lab_differs(bytes + at, PART, seed_of(page, who)) == PART,
			      "%s: page %u does not have what %u wrote", how, page, who);
			CHECK(bytes[at - 1] == lab_byte(at - 1, 0),
			      "%s: page %u has %#x between, which nobody wrote", how, page,
			      bytes[at - 1]);
		}
	return PASS;
}

static enum verdict compare_file(const char *path)
{
	unsigned char bytes[LENGTH];
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *at;

	CHECK(fd >= 0, "%s: %s", path, strerror(errno));
	CHECK(read(fd, bytes, LENGTH) == (ssize_t)LENGTH, "%s is not whole", path);
	TRY(same(bytes, "read"));
	at = mmap(NULL, LENGTH, PROT_READ, MAP_SHARED, fd, 0);
	SYS((long)(intptr_t)at);
	TRY(same(at, "mapped"));
	munmap(at, LENGTH);
	close(fd);
	return PASS;
}

/* The filesystem leaves and comes back: what is not on the medium is gone. */
static enum verdict mount_again(const char *directory)
{
	char device[256] = "", type[32] = "";
	const char *options = NULL;
	struct mntent *m;
	FILE *f = setmntent("/proc/self/mounts", "re");

	while (f && (m = getmntent(f))) {
		if (strcmp(m->mnt_dir, directory))
			continue;
		snprintf(device, sizeof(device), "%s", m->mnt_fsname);
		snprintf(type, sizeof(type), "%s", m->mnt_type);
		options = hasmntopt(m, "dax=always") ? "dax=always"
			  : hasmntopt(m, "dax")	     ? "dax"
						     : NULL;
	}
	if (f)
		endmntent(f);
	if (!*device)
		return live_skip("nothing is mounted at %s itself", directory);
	CHECK(options, "%s is not mounted with DAX", directory);
	/* All that was ours is closed: EBUSY would be a leak of ours. */
	if (umount(directory))
		FAILED("umount %s: %s", directory, strerror(errno));
	if (mount(device, directory, type, 0, options))
		FAILED("mount %s at %s: %s", device, directory, strerror(errno));
	return PASS;
}

static enum verdict make(const char *variable, char *path, size_t size, int *fd, char **at)
{
	unsigned char bytes[LENGTH];
	enum verdict verdict;
	const char *directory = lab_directory(variable, &verdict);

	if (!directory)
		return verdict;
	snprintf(path, size, "%s/uhmm-lab-seed", directory);
	*fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK(*fd >= 0, "%s: %s", path, strerror(errno));
	lab_fill(bytes, LENGTH, 0);
	CHECK(pwrite(*fd, bytes, LENGTH, 0) == (ssize_t)LENGTH, "%s: %s", path,
	      strerror(errno));
	*at = mmap(NULL, LENGTH, RW, MAP_SHARED, *fd, 0);
	SYS((long)(intptr_t)*at);
	return PASS;
}

/* Written by three, read by three, kept by the file. */
static enum verdict persists(const void *variable)
{
	struct devices devs = { 0 };
	struct edu_stats stats = { .size = sizeof(stats) };
	char path[300], *at;
	int fd;

	TRY(make(variable, path, sizeof(path), &fd, &at));
	TRY(open_devices(&devs));
	TRY(write_all(&devs, at));
	TRY(read_all(&devs, at));
	TRY(same((unsigned char *)at, "still mapped"));
	SYS(msync(at, LENGTH, MS_SYNC));
	SYS(munmap(at, LENGTH));
	close(fd);
	CHECK(gpu_read(devs.queue, &stats, at, 1) == -EFAULT,
	      "the GPU reads what is unmapped");
	CHECK(!devs.edu || edu_read(devs.edu, &stats, at, 1) == -EFAULT,
	      "edu reads what is unmapped");
	close_devices(&devs);
	TRY(mount_again(getenv(variable)));
	TRY(compare_file(path));
	unlink(path);
	return PASS;
}

/* With both devices still open: they keep nothing of a file that is unmapped. */
static enum verdict persists_open(const void *variable)
{
	struct devices devs = { 0 };
	char path[300], *at;
	int fd;

	TRY(make(variable, path, sizeof(path), &fd, &at));
	TRY(open_devices(&devs));
	TRY(write_all(&devs, at));
	SYS(munmap(at, LENGTH));
	close(fd);
	if (devs.edu)
		EXPECT(0, hmm_dma_fence(edu_dma(devs.edu), (uintptr_t)at, LENGTH));
	TRY(mount_again(getenv(variable)));
	TRY(compare_file(path));
	close_devices(&devs);
	unlink(path);
	return PASS;
}

/* An error for what is cut off, for each; and life goes on when the file grows again. */
static enum verdict truncated(const void *variable)
{
	struct devices devs = { 0 };
	unsigned char bytes[PART];
	char path[300], *at;
	int fd;

	TRY(make(variable, path, sizeof(path), &fd, &at));
	TRY(open_devices(&devs));
	TRY(write_all(&devs, at));
	EXPECT(0, lab_elsewhere(lab_truncate, fd, 0, (off_t)(2 * PAGE)));
	for (unsigned who = GPU; who < (devs.edu ? WHO : EDU); who++) {
		EXPECT(-EFAULT, read_as(&devs, who, bytes, at + 2 * PAGE, 1));
		EXPECT(-EFAULT, write_as(&devs, who, at + 3 * PAGE, bytes, 1));
		EXPECT(0, read_as(&devs, who, bytes, at + place_of(1, CPU), PART));
		CHECK(lab_differs(bytes, PART, seed_of(1, CPU)) == PART,
		      "what was not cut off reads otherwise to %u", who);
	}
	EXPECT(0, lab_elsewhere(lab_truncate, fd, 0, (off_t)LENGTH));
	for (unsigned who = GPU; who < WHO; who++) {
		EXPECT(0, read_as(&devs, who, bytes, at + 3 * PAGE, PART));
		CHECK(lab_zero(bytes, PART), "%u reads bytes that were cut off", who);
	}
	/* As new: the bytes between are zeros in what was cut off. */
	lab_fill(at, LENGTH, 0);
	TRY(write_all(&devs, at));
	SYS(msync(at, LENGTH, MS_SYNC));
	SYS(munmap(at, LENGTH));
	close(fd);
	close_devices(&devs);
	TRY(mount_again(getenv(variable)));
	TRY(compare_file(path));
	unlink(path);
	return PASS;
}

/*
 * A private mapping: what the CPU writes is its own copy from then on, and so is what the
 * devices write; the file keeps its bytes.
 */
static enum verdict keeps_copies(const void *variable)
{
	struct devices devs = { 0 };
	unsigned char bytes[PART];
	char path[300], *shared, *at;
	int fd;

	TRY(make(variable, path, sizeof(path), &fd, &shared));
	at = mmap(NULL, LENGTH, RW, MAP_PRIVATE, fd, 0);
	SYS((long)(intptr_t)at);
	TRY(open_devices(&devs));
	for (unsigned who = GPU; who < WHO; who++) {
		EXPECT(0, read_as(&devs, who, bytes, at, PART));
		CHECK(lab_differs(bytes, PART, 0) == PART, "%u does not read the file",
		      who);
	}
	at[0]++;
	TRY(write_all(&devs, at));
	TRY(read_all(&devs, at));
	CHECK(lab_differs(shared, LENGTH, 0) == LENGTH, "the file was written to");
	SYS(munmap(at, LENGTH));
	SYS(munmap(shared, LENGTH));
	close(fd);
	close_devices(&devs);
	unlink(path);
	return PASS;
}

static const struct live_case cases[] = {
	{ .name = "ext4 persists", .run = persists, .arg = "UHMM_LAB_EXT4" },
	{ .name = "xfs persists", .run = persists, .arg = "UHMM_LAB_XFS" },
	{ .name = "ext4 persists-open", .run = persists_open, .arg = "UHMM_LAB_EXT4" },
	{ .name = "xfs persists-open", .run = persists_open, .arg = "UHMM_LAB_XFS" },
	{ .name = "ext4 private", .run = keeps_copies, .arg = "UHMM_LAB_EXT4" },
	{ .name = "xfs private", .run = keeps_copies, .arg = "UHMM_LAB_XFS" },
	{ .name = "ext4 truncated", .run = truncated, .arg = "UHMM_LAB_EXT4" },
	{ .name = "xfs truncated", .run = truncated, .arg = "UHMM_LAB_XFS" },
};

int main(int argc, char **argv)
{
	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
