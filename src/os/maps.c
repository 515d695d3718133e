/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * maps - PROCMAP_QUERY's answer from the text of /proc/PID/maps, before Linux 6.11.
 *
 *	7f0a1c000000-7f0a1c021000 rw-p 00000000 fe:00 1234   /path with spaces
 *
 * Every question opens the file and reads it from its start: as slow as the process has
 * mappings. The page size is not in it; it is in smaps, which walks page tables and
 * is asked only about file mappings whose ends are both at 2 MiB. What the kernel's flags
 * of a mapping are (vma_flags) is there only, too.
 *
 * A newline in a path reads \012 here, as the kernel writes it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/live.h"

#define HUGE_ALIGN ((uintptr_t)2 << 20) /* the smallest huge page of x86-64 */

/* Lines of a file through a buffer that holds the longest one. */
struct lines {
	int fd;
	size_t at, length;
	char text[8192];
};

/* The next line without its newline; NULL at the end. */
static char *line_next(struct lines *lines)
{
	char *start, *newline;
	ssize_t got;

	for (;;) {
		start = lines->text + lines->at;
		newline = memchr(start, '\n', lines->length - lines->at);
		if (newline)
			break;
		lines->length -= lines->at;
		memmove(lines->text, start, lines->length);
		lines->at = 0;
		got = read(lines->fd, lines->text + lines->length,
			   sizeof(lines->text) - lines->length);
		if (got <= 0)
			return NULL;
		lines->length += (size_t)got;
	}
	*newline = '\0';
	lines->at = (size_t)(newline - lines->text) + 1;
	return start;
}

static void parse_range(char **at, uintptr_t *start, uintptr_t *end)
{
	*start = strtoull(*at, at, 16);
	*end = **at == '-' ? strtoull(*at + 1, at, 16) : 0;
}

static void parse(char *line, struct os_vma *vma)
{
	char *at = line;

	memset(vma, 0, sizeof(*vma));
	parse_range(&at, &vma->start, &vma->end);
	vma->prot = (at[1] == 'r' ? PROT_READ : 0) | (at[2] == 'w' ? PROT_WRITE : 0) |
		    (at[3] == 'x' ? PROT_EXEC : 0);
	vma->shared = at[4] == 's';
	vma->offset = strtoull(at + 5, &at, 16);
	vma->dev_major = (uint32_t)strtoul(at, &at, 16);
	vma->dev_minor = (uint32_t)strtoul(at + 1, &at, 16);
	vma->inode = strtoull(at, &at, 10);
	at += strspn(at, " ");
	strncpy(vma->name, at, sizeof(vma->name) - 1);
	vma->page_size = OS_PAGE_SIZE;
	vma->kind = vma->inode ? OS_VMA_FILE : OS_VMA_ANON;
}

/* smaps has maps' lines, and after each its attributes, which begin with a capital. */
static int ask_page_size(pid_t pid, struct os_vma *vma)
{
	struct lines lines = { .fd = proc_open(pid, "smaps") };
	bool here = false;
	char *line;

	if (lines.fd < 0)
		return lines.fd;
	while ((line = line_next(&lines)) != NULL) {
		if (*line < 'A' || *line > 'Z') {
			uintptr_t start, end;

			parse_range(&line, &start, &end);
			here = start == vma->start;
		} else if (here && !strncmp(line, "KernelPageSize:", 15)) {
			vma->page_size = strtoull(line + 15, NULL, 10) << 10;
			break;
		}
	}
	close(lines.fd);
	return 0;
}

/* "VmFlags: rd wr mr mw me ac um ": two letters each. */
static unsigned parse_flags(const char *at)
{
	static const struct {
		const char *name;
		unsigned flag;
	} known[] = {
		{ "um", OS_VMA_MISSING }, { "wf", OS_VMA_WIPEONFORK }, { "lo", OS_VMA_LOCKED },
		{ "nh", OS_VMA_NOHUGE },
	};
	unsigned flags = 0;

	for (at += strspn(at, " "); at[0] && at[1]; at += 2, at += strspn(at, " "))
		for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
			if (!strncmp(at, known[i].name, 2))
				flags |= known[i].flag;
	return flags;
}

int live_vma_flags(uintptr_t addr, unsigned *flags)
{
	struct lines lines = { .fd = proc_open(0, "smaps") };
	int err = -ENOENT;
	bool here = false;
	char *line;

	if (lines.fd < 0)
		return -EIO;
	while ((line = line_next(&lines)) != NULL) {
		if (*line < 'A' || *line > 'Z') {
			uintptr_t start, end;

			parse_range(&line, &start, &end);
			here = start <= addr && addr < end;
			if (start > addr)
				break;
		} else if (here && !strncmp(line, "VmFlags:", 8)) {
			*flags = parse_flags(line + 8);
			err = 0;
			break;
		}
	}
	close(lines.fd);
	return err;
}

int maps_find(pid_t pid, uintptr_t addr, struct os_vma *vma)
{
	struct lines lines = { .fd = proc_open(pid, "maps") };
	int err = -ESRCH; /* a process that has ended has an empty file */
	char *line;

	if (lines.fd < 0)
		return lines.fd;
	while ((line = line_next(&lines)) != NULL) {
		uintptr_t start, end;
		char *at = line;

		err = -ENOENT;
		parse_range(&at, &start, &end);
		if (start > (uintptr_t)INTPTR_MAX)
			break;
		if (end > addr) {
			parse(line, vma);
			err = 0;
			break;
		}
	}
	close(lines.fd);
	if (!err && vma->inode && !((vma->start | vma->end) & (HUGE_ALIGN - 1)))
		err = ask_page_size(pid, vma);
	return err;
}
