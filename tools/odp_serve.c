/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * serve - `uhmm odp serve -- PROGRAM...`: the driver's library preloaded, and PROGRAM
 * executed.
 *
 * The library does the rest (drivers/odp/serve.c). The loader only warns when it cannot
 * preload, and says nothing of a program that has no loader; the program would run and not
 * be served. So what can be known is looked at before.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "odp.h"

#define LIBRARY "libuhmm-odp.so" /* beside the tool, where it was built */
#define INSTALLED "libuhmm-odp.so.0"

struct options {
	const char *listen, *access, *file;
	char **program;
};

static const struct argp_option argp_options[] = {
	{ "listen", 'l', "PROVIDER://NODE:PORT", 0,
	  "where to listen (tcp://127.0.0.1:0: this host only, any port)", 0 },
	{ "access", 'a', "LETTERS", 0,
	  "what may be done: of r (get), w (put), a (atomics); rwa", 0 },
	{ "file", 'f', "FILE", 0,
	  "where address, key and PID go, for its owner only; else a new one is made", 0 },
	{ 0 },
};

static void check_listen(struct argp_state *state, const char *text)
{
	const char *rest = strstr(text, "://"),
		   *colon = rest ? strrchr(rest + 3, ':') : NULL;

	if (rest && !strncmp(text, "shm:", 4)) /* its names have no ports */
		return;
	if (!colon || rest == text || colon == rest + 3 || !colon[1])
		tool_usage(state,
			   "'%s' is no place to listen at, such as tcp://127.0.0.1:0 or "
			   "shm://",
			   text);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	bool json;

	switch (key) {
	case 'l':
		check_listen(state, arg);
		options->listen = arg;
		return 0;
	case 'a':
		if (!*arg || arg[strspn(arg, "rwa")])
			tool_usage(state, "access '%s': only the letters r, w and a", arg);
		options->access = arg;
		return 0;
	case 'f':
		if (!*arg)
			tool_usage(state, "the file has no name");
		options->file = arg;
		return 0;
	case ARGP_KEY_ARG:
		options->program = state->argv + state->next - 1;
		state->next = state->argc; /* the rest is the program's */
		return 0;
	case ARGP_KEY_NO_ARGS:
		tool_usage(state,
			   "which program? serve [OPTION...] -- PROGRAM [ARGUMENT...]");
	default:
		return tool_key(key, arg, state, &json);
	}
}

static const struct argp argp = {
	.options = argp_options,
	.parser = parse,
	.args_doc = "-- PROGRAM [ARGUMENT...]",
	.doc = "Run PROGRAM; whoever has the key reaches all of its memory, now and later. "
	       "It "
	       "need not know of it: it is served by threads of a preloaded library. Its "
	       "children "
	       "are not served; when it executes another program in its place, that is, "
	       "with "
	       "a new key.\vThe key is all that protects the memory, "
	       "and it crosses the network as it is: listen on networks that you trust. "
	       "Exit status: the program's; 125 if it could not be served.",
};

/* ---- the library ---- */

static bool beside_the_tool(char path[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);
	char *slash;

	if (n <= 0)
		return false;
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (!slash || (size_t)(slash + 1 - path) + sizeof(LIBRARY) > PATH_MAX)
		return false;
	strcpy(slash + 1, LIBRARY);
	return !access(path, R_OK);
}

/* As the loader finds it, by its whole name: PROGRAM may look elsewhere. */
static bool installed(char path[PATH_MAX])
{
	void *library = dlopen(INSTALLED, RTLD_LAZY | RTLD_LOCAL);
	struct link_map *map = NULL;

	if (!library || dlinfo(library, RTLD_DI_LINKMAP, &map) ||
	    !realpath(map->l_name, path)) {
		fprintf(stderr,
			"uhmm odp serve: " INSTALLED " is neither beside this tool nor "
			"where the loader looks (%s); run ldconfig, or set "
			"LD_LIBRARY_PATH\n",
			library ? "it has no name" : dlerror());
		return false;
	}
	return true;
}

/* ---- the program ---- */

/* What execvp() would take. */
static bool find_program(const char *name, char path[PATH_MAX])
{
	const char *list = getenv("PATH");

	if (strchr(name, '/'))
		return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX;
	for (list = list ? list : "/bin:/usr/bin"; list; list = strchr(list, ':')) {
		struct stat st;

		list += *list == ':';
		if (snprintf(path, PATH_MAX, "%.*s/%s", (int)strcspn(list, ":"), list,
			     name) < PATH_MAX &&
		    !access(path, X_OK) && !stat(path, &st) && S_ISREG(st.st_mode))
			return true;
	}
	return false;
}

static bool has_loader(int fd)
{
	ElfW(Ehdr) head;
	ElfW(Phdr) part;

	if (pread(fd, &head, sizeof(head), 0) != sizeof(head) ||
	    memcmp(head.e_ident, ELFMAG, SELFMAG) || head.e_phentsize != sizeof(part))
		return true; /* a script: its interpreter has one; or something exec refuses
			      */
	for (unsigned i = 0; i < head.e_phnum; i++) {
		off_t at = (off_t)(head.e_phoff + i * sizeof(part));

		if (pread(fd, &part, sizeof(part), at) == sizeof(part) &&
		    part.p_type == PT_INTERP)
			return true;
	}
	return false;
}

/* NULL, or why nothing can be preloaded into it. */
static const char *obstacle(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const char *why = NULL;
	struct stat st;

	if (fd < 0)
		return NULL; /* executable and not readable, perhaps */
	if (!fstat(fd, &st) && ((st.st_mode & S_ISUID && st.st_uid != geteuid()) ||
				(st.st_mode & S_ISGID && st.st_gid != getegid())))
		why = "it runs with the rights of another, and takes no library from its "
		      "caller; "
		      "copy it without its s bit, or run this as that user";
	else if (geteuid() && fgetxattr(fd, "security.capability", NULL, 0) > 0)
		why = "it has capabilities of its own, and takes no library from its "
		      "caller; copy "
		      "it, or run this as root";
	else if (!has_loader(fd))
		why = "it is linked statically, so no library can be loaded into it; open "
		      "the "
		      "target in it (uhmm/odp.h), or link it dynamically";
	close(fd);
	return why;
}

/* ---- the file ---- */

/* A directory of our own, where others could have put something under our name. */
static bool choose_file(char path[PATH_MAX])
{
	const char *dir = getenv("XDG_RUNTIME_DIR");

	if (dir && *dir == '/' && !access(dir, W_OK))
		return snprintf(path, PATH_MAX, "%s/uhmm-odp.%d", dir, (int)getpid()) <
		       PATH_MAX;
	strcpy(path, "/tmp/uhmm-odp-XXXXXX");
	if (!mkdtemp(path)) {
		fprintf(stderr, "uhmm odp serve: /tmp: %s; name a --file\n",
			strerror(errno));
		return false;
	}
	strcat(path, "/target");
	return true;
}

static bool set(const char *name, const char *value)
{
	return value ? !setenv(name, value, 1) : !unsetenv(name);
}

static bool set_all(const struct options *options, const char *file, const char *library)
{
	const char *others = getenv("LD_PRELOAD");
	char *list, pid[16];
	bool done;

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (asprintf(&list, "%s%s%s", library, others && *others ? ":" : "",
		     others ? others : "") < 0)
		return false;
	/* Where libfabric knows PSM, a constructor of that catches the program's signals,
	 * SIGTERM too, unless it is told not to. */
	done = set("IPATH_NO_BACKTRACE", "1") && set("UHMM_ODP_SERVE", options->listen) &&
	       set("UHMM_ODP_FILE", file) && set("UHMM_ODP_PID", pid) &&
	       set("UHMM_ODP_ACCESS", options->access) && set("LD_PRELOAD", list);
	free(list);
	return done;
}

int odp_cmd_serve(int argc, char **argv)
{
	struct options options = { .listen = "tcp://127.0.0.1:0" };
	char library[PATH_MAX], program[PATH_MAX], file[PATH_MAX];
	const char *why;

	/* In order: what comes after PROGRAM is its own. */
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &options))
		return 2;
	if (!beside_the_tool(library) && !installed(library))
		return 1;
	if (strpbrk(library, " :")) {
		fprintf(stderr,
			"uhmm odp serve: the loader takes no library whose name has a "
			"blank or a colon: %s\n",
			library);
		return 1;
	}
	if (!find_program(options.program[0], program)) {
		fprintf(stderr, "uhmm odp serve: %s: no such program\n",
			options.program[0]);
		return 1;
	}
	why = obstacle(program);
	if (why) {
		fprintf(stderr, "uhmm odp serve: %s cannot be served: %s\n", program, why);
		return 1;
	}
	if (!options.file && !choose_file(file))
		return 1;
	if (options.file)
		snprintf(file, sizeof(file), "%s", options.file);
	/* Who waits for the file shall not find an old one. */
	if (unlink(file) && errno != ENOENT) {
		fprintf(stderr, "uhmm odp serve: %s: %s\n", file, strerror(errno));
		return 1;
	}
	if (!set_all(&options, file, library)) {
		fprintf(stderr, "uhmm odp serve: %s\n", strerror(errno));
		return 1;
	}
	fprintf(stderr, "uhmm odp serve: address and key will be in %s\n", file);
	execv(program, options.program);
	fprintf(stderr, "uhmm odp serve: %s: %s\n", program, strerror(errno));
	return 1;
}
