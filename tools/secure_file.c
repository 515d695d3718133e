/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * secure_file - `uhmm secure export` and `import`: standard input to a sealed file, and
 * back.
 *
 * All of it happens on the secure side: read(2) puts the secret and the key into secret
 * memory, and nothing else of this program ever has them. The range begins with the
 * secret's length.
 *
 * A key file is 32 bytes of key and the count of exports, 8 bytes, little-endian. Export
 * writes the new file beside the old one, renames, then counts: whatever is interrupted,
 * what lies there can be imported. Import refuses a file whose count is lower than the
 * key's.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uhmm/uvmem.h>

#include "common.h"
#include "secure.h"

#define PART ((size_t)32 << 10)
#define PAGE 4096u
/* Of a file of uvmem_export(): all that is not pages, and a page. */
#define FILE_REST 88u
#define FILE_PAGE (PAGE + 17u)

/* In scratch memory. */
struct key_file {
	unsigned char key[UVMEM_KEY_BYTES];
	uint64_t count;
};

struct job {
	const struct secure *secure;
	char *range;
	size_t size;
	int key, file;
	const char *beside; /* export: the new file's name until it is complete */
	const char *what;   /* that failed, for the message */
};

static int fail(struct job *job, const char *what, int err)
{
	job->what = what;
	return err;
}

/* Return: bytes until the end or the room is full; negative errno. */
static ssize_t read_part(int fd, void *to, size_t room)
{
	size_t done = 0;

	while (done < room) {
		ssize_t n = read(fd, (char *)to + done, room - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int write_part(int fd, const void *from, size_t length)
{
	while (length) {
		ssize_t n = write(fd, from, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		from = (const char *)from + n;
		length -= (size_t)n;
	}
	return 0;
}

/* An empty file is a key that has to be made: only export has opened it for writing. */
static int read_key(struct job *job, struct key_file *key, bool make)
{
	ssize_t n = pread(job->key, key, sizeof(*key), 0);

	if (!n && make) {
		if (getrandom(key->key, sizeof(key->key), 0) != sizeof(key->key))
			return fail(job, "random bytes", -EIO);
		key->count = 0;
		n = pwrite(job->key, key, sizeof(*key), 0);
	}
	if (n != sizeof(*key))
		return fail(job, job->secure->key, n < 0 ? -errno : -EBADMSG);
	key->count = le64toh(key->count);
	return 0;
}

static int write_count(struct job *job, const struct key_file *key)
{
	uint64_t count = htole64(key->count);
	ssize_t n =
		pwrite(job->key, &count, sizeof(count), offsetof(struct key_file, count));

	return n != sizeof(count) || fsync(job->key) ? fail(job, job->secure->key, -errno)
						     : 0;
}

static int read_secret(struct uvmem_side *side, struct job *job, char *part)
{
	uint64_t length = 0;
	ssize_t n;
	int err;

	do {
		n = read_part(STDIN_FILENO, part, PART);
		if (n < 0)
			return fail(job, "standard input", (int)n);
		if ((size_t)n > job->size - sizeof(length) - length)
			return fail(job, "standard input is longer than --size", -EFBIG);
		err = uvmem_store(side, job->range + sizeof(length) + length, part,
				  (size_t)n);
		if (err)
			return fail(job, "secure memory", err);
		length += (uint64_t)n;
	} while ((size_t)n == PART);
	return uvmem_store(side, job->range, &length, sizeof(length));
}

static int do_export(struct uvmem_side *side, void *arg)
{
	struct key_file *key = uvmem_scratch(side, sizeof(*key));
	char *part = uvmem_scratch(side, PART);
	struct job *job = arg;
	int err = read_key(job, key, true);

	if (!err)
		err = read_secret(side, job, part);
	if (err)
		return err;
	key->count++;
	err = uvmem_export(side, job->file, key->key, key->count);
	if (!err && (fsync(job->file) || rename(job->beside, job->secure->file)))
		err = -errno;
	return err ? fail(job, job->secure->file, err) : write_count(job, key);
}

static int do_import(struct uvmem_side *side, void *arg)
{
	struct key_file *key = uvmem_scratch(side, sizeof(*key));
	char *part = uvmem_scratch(side, PART);
	uint64_t length = 0, at = 0;
	struct job *job = arg;
	int err = read_key(job, key, false);

	if (err)
		return err;
	err = uvmem_import(side, job->file, key->key, key->count, NULL);
	if (!err)
		err = uvmem_load(side, &length, job->range, sizeof(length));
	if (!err && length > job->size - sizeof(length))
		err = -EBADMSG; /* it was not made by export */
	if (err)
		return fail(job, job->secure->file, err);
	while (at < length && !err) {
		size_t n = length - at < PART ? length - at : PART;

		err = uvmem_load(side, part, job->range + sizeof(length) + at, n);
		if (err)
			return fail(job, "secure memory", err);
		err = write_part(STDOUT_FILENO, part, n);
		at += n;
	}
	return err ? fail(job, "standard output", err) : 0;
}

/* What a refused file was, in the words of files. */
static const char *text(int err)
{
	return err == -EBADMSG	? "refused: not what was exported with this key (changed, "
				  "cut, mixed, "
				  "or another key)"
	       : err == -ESTALE ? "refused: older than the last export with this key"
	       : err == -EINVAL ? "refused: not as large as it says"
				: uvmem_strerror(err);
}

static int run(struct job *job, uvmem_fn fn)
{
	const struct uvmem_options options = { .size = sizeof(options),
					       .mlocked = job->secure->mlocked };
	char why[400] = "";
	struct uvmem *uv = NULL;
	int err = options.mlocked ? 0 : uvmem_available(why, sizeof(why));

	if (err) {
		fprintf(stderr, "%s: %s (--mlocked)\n", job->secure->title, why);
		return err;
	}
	job->what = "secure memory";
	job->range = mmap(NULL, job->size + 2 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	err = job->range == MAP_FAILED ? -errno : uvmem_open(&options, &uv);
	job->range += PAGE; /* not beside libc's (devmem.h) */
	if (err == -EPERM) { /* of device memory: the library's sentence has the cure */
		fprintf(stderr, "%s: %s\n", job->secure->title, hmm_strerror(err));
		return err;
	}
	if (!err)
		err = uvmem_init_start(uv, job->range, job->size);
	if (!err)
		err = uvmem_init_done(uv);
	if (!err)
		err = uvmem_run(uv, fn, job);
	uvmem_close(uv);
	if (err)
		fprintf(stderr, "%s: %s: %s\n", job->secure->title, job->what, text(err));
	return err;
}

/* Locked against a second export. */
static int open_key(const struct secure *secure, int flags)
{
	int fd = open(secure->key, flags | O_CLOEXEC, 0600);

	if (fd < 0 || flock(fd, LOCK_EX))
		fprintf(stderr, "%s: %s: %s\n", secure->title, secure->key,
			strerror(errno));
	return fd;
}

int secure_export(const struct secure *secure)
{
	char beside[4096];
	struct job job = { .secure = secure, .size = secure->size, .beside = beside };
	int err = -EIO;

	if (snprintf(beside, sizeof(beside), "%s.new", secure->file) >=
	    (int)sizeof(beside)) {
		fprintf(stderr, "%s: the file's name is too long\n", secure->title);
		return 1;
	}
	job.key = open_key(secure, O_RDWR | O_CREAT);
	if (job.key < 0)
		return 1;
	job.file = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (job.file < 0)
		fprintf(stderr, "%s: %s: %s\n", secure->title, beside, strerror(errno));
	else
		err = run(&job, do_export);
	if (err && job.file >= 0)
		unlink(beside); /* gone already if it was renamed */
	if (job.file >= 0)
		close(job.file);
	close(job.key);
	return err ? 1 : 0;
}

int secure_import(const struct secure *secure)
{
	struct job job = { .secure = secure };
	struct stat st;
	int err = -EIO;

	job.key = open_key(secure, O_RDONLY);
	if (job.key < 0)
		return 1;
	job.file = open(secure->file, O_RDONLY | O_CLOEXEC);
	if (job.file < 0 || fstat(job.file, &st)) {
		fprintf(stderr, "%s: %s: %s\n", secure->title, secure->file,
			strerror(errno));
	} else if (st.st_size < (off_t)(FILE_REST + FILE_PAGE) ||
		   (st.st_size - FILE_REST) % FILE_PAGE) {
		fprintf(stderr, "%s: %s: %s\n", secure->title, secure->file,
			text(-EBADMSG));
	} else {
		job.size = (size_t)(st.st_size - FILE_REST) / FILE_PAGE * PAGE;
		err = run(&job, do_import);
	}
	if (job.file >= 0)
		close(job.file);
	close(job.key);
	return err ? 1 : 0;
}
