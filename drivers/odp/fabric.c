/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fabric - libfabric's objects, made and ended.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "fabric.h"
#include "wire.h"

#define VERSION FI_VERSION(1, 14)
#define LATE_NS UINT64_C(1000000000)

int fabric_errno(int64_t fi_error)
{
	int err = (int)(fi_error < 0 ? -fi_error : fi_error);

	switch (err) {
	case FI_ENODATA: /* fi_getinfo() found nothing */
		return -ENODEV;
	case FI_ENOEQ:
	case FI_ENOCQ:
	case FI_ENOAV:
		return -EPROTO;
	}
	return err < FI_ERRNO_OFFSET ? -err : -EIO;
}

static bool is_shm(const struct odp_place *place)
{
	return !strcmp(place->provider, "shm");
}

int place_parse(struct odp_place *place, const char *address)
{
	const char *rest = address ? strstr(address, "://") : NULL, *colon;
	size_t node;

	if (!rest || rest == address || (size_t)(rest - address) >= sizeof(place->provider))
		return -EINVAL;
	*place = (struct odp_place){ 0 };
	memcpy(place->provider, address, (size_t)(rest - address));
	rest += 3;
	if (is_shm(place)) { /* a name, or nothing: any */
		if (strlen(rest) >= sizeof(place->node))
			return -EINVAL;
		strcpy(place->node, rest);
		return 0;
	}
	colon = strrchr(rest, ':');
	if (!colon || !colon[1] || strlen(colon + 1) >= sizeof(place->service))
		return -EINVAL;
	node = (size_t)(colon - rest);
	if (node >= 2 && rest[0] == '[' && rest[node - 1] == ']') { /* IPv6 */
		rest++;
		node -= 2;
	}
	if (!node || node >= sizeof(place->node))
		return -EINVAL;
	memcpy(place->node, rest, node);
	strcpy(place->service, colon + 1);
	return 0;
}

static struct fi_info *wanted(const char *provider, enum fi_ep_type type)
{
	struct fi_info *hints = fi_allocinfo();

	if (!hints)
		return NULL;
	hints->ep_attr->type = type;
	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT | FI_CONTEXT2;
	/* The answer must not overtake what was written. */
	hints->tx_attr->msg_order = FI_ORDER_SAS | FI_ORDER_SAW;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED |
				      FI_MR_PROV_KEY;
	hints->domain_attr->threading = FI_THREAD_SAFE;
	/* The queues are read all the time by whoever waits: no thread of the provider's. */
	hints->domain_attr->data_progress = FI_PROGRESS_MANUAL;
	hints->fabric_attr->prov_name = strdup(provider);
	return hints;
}

static int find(struct fabric *f, const struct odp_place *place, bool listens)
{
	bool shm = is_shm(place);
	struct fi_info *hints = wanted(place->provider, shm ? FI_EP_RDM : FI_EP_MSG);
	int err;

	if (!hints)
		return -ENOMEM;
	err = fi_getinfo(VERSION, shm ? NULL : place->node,
			 shm ? NULL : *place->service ? place->service : "0",
			 listens && !shm ? FI_SOURCE : 0, hints, &f->info);
	fi_freeinfo(hints);
	return err ? fabric_errno(err) : 0;
}

static int open_names(struct fabric *f, unsigned completions)
{
	struct fi_cq_attr cq = { .size = completions, .format = FI_CQ_FORMAT_MSG,
				 .wait_obj = FI_WAIT_NONE };
	struct fi_av_attr av = { .type = FI_AV_UNSPEC };
	int err = fi_cq_open(f->domain, &cq, &f->cq, f);

	return err ? err : fi_av_open(f->domain, &av, &f->av, f);
}

static int open_queues(struct fabric *f, unsigned completions)
{
	struct fi_cq_attr cq = { .size = completions, .format = FI_CQ_FORMAT_MSG,
				 .wait_obj = FI_WAIT_FD };
	struct fi_eq_attr eq = { .size = 64, .wait_obj = FI_WAIT_FD };
	int err = fi_eq_open(f->fabric, &eq, &f->eq, f);

	if (!err)
		err = fi_cq_open(f->domain, &cq, &f->cq, f);
	if (!err)
		err = fi_control(&f->eq->fid, FI_GETWAIT, &f->eq_fd);
	if (!err)
		err = fi_control(&f->cq->fid, FI_GETWAIT, &f->cq_fd);
	return err;
}

int fabric_open(struct fabric *f, const struct odp_place *place, bool listens,
		unsigned completions)
{
	int err;

	*f = (struct fabric){ .cq_fd = -1, .eq_fd = -1, .next_key = 1 };
	err = fabric_load();
	if (!err)
		err = find(f, place, listens);
	if (err)
		return err;
	err = fi_fabric(f->info->fabric_attr, &f->fabric, f);
	if (!err)
		err = fi_domain(f->fabric, f->info, &f->domain, f);
	if (!err)
		err = is_shm(place) ? open_names(f, completions) : open_queues(f, completions);
	if (!err) {
		f->late_ns = strcmp(place->provider, "verbs") ? 0 : LATE_NS;
		return 0;
	}
	fabric_close(f);
	return fabric_errno(err);
}

void fabric_deaf(struct fabric *f)
{
	if (f->cq)
		fi_close(&f->cq->fid);
	f->cq = NULL;
}

void fabric_close(struct fabric *f)
{
	fabric_deaf(f);
	if (f->av)
		fi_close(&f->av->fid);
	if (f->domain)
		fi_close(&f->domain->fid);
	if (f->eq)
		fi_close(&f->eq->fid);
	if (f->fabric)
		fi_close(&f->fabric->fid);
	if (f->info)
		fi_freeinfo(f->info);
	*f = (struct fabric){ .cq_fd = -1, .eq_fd = -1 };
}

int fabric_register(struct fabric *f, void *at, size_t length, uint64_t access,
		    struct fid_mr **mr)
{
	uint64_t key = f->next_key++; /* the provider takes it, or its own */

	return fabric_errno(fi_mr_reg(f->domain, at, length, access, 0, key, 0, mr, NULL));
}

bool fabric_wants_local(const struct fabric *f)
{
	return f->info->domain_attr->mr_mode & FI_MR_LOCAL;
}

uint64_t fabric_remote(const struct fabric *f, uintptr_t start, uintptr_t at)
{
	return f->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? at : at - start;
}

#define NAME_PREFIX "fi_shm://"

int fabric_name(struct fid_ep *ep, char *name)
{
	char full[sizeof(NAME_PREFIX) + FABRIC_NAME];
	size_t length = sizeof(full) - 1;
	int err = fi_getname(&ep->fid, full, &length);

	if (err)
		return fabric_errno(err);
	full[length] = 0;
	if (strncmp(full, NAME_PREFIX, sizeof(NAME_PREFIX) - 1) ||
	    strlen(full) - (sizeof(NAME_PREFIX) - 1) >= FABRIC_NAME)
		return -EPROTO;
	strcpy(name, full + sizeof(NAME_PREFIX) - 1);
	return 0;
}

int fabric_peer(struct fabric *f, const char *name, fi_addr_t *peer)
{
	char full[sizeof(NAME_PREFIX) + FABRIC_NAME];

	snprintf(full, sizeof(full), NAME_PREFIX "%s", name);
	return fi_av_insert(f->av, full, 1, peer, 0, NULL) == 1 ? 0 : -ECONNREFUSED;
}

void fabric_forget(struct fabric *f, fi_addr_t peer)
{
	fi_av_remove(f->av, &peer, 1, 0);
}

int fabric_process(uint64_t pid)
{
	return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
}

bool fabric_lives(int process)
{
	struct pollfd fd = { .fd = process, .events = POLLIN };

	return process >= 0 && !poll(&fd, 1, 0);
}

/* Up to a millisecond; the first ones only let others run. */
static void short_sleep(struct fabric *f, int other_fd)
{
	struct pollfd other = { .fd = other_fd, .events = POLLIN };
	struct timespec time = { 0 };

	f->idle += f->idle < 200;
	if (f->idle < 20) {
		sched_yield();
		return;
	}
	time.tv_nsec = f->idle * 5000;
	ppoll(&other, other_fd >= 0, &time, NULL);
}

int fabric_wait(struct fabric *f, int other_fd, int timeout_ms)
{
	struct fid *fids[] = { &f->cq->fid, f->eq ? &f->eq->fid : NULL };
	struct pollfd fds[] = { { .fd = f->cq_fd, .events = POLLIN },
				{ .fd = f->eq_fd, .events = POLLIN },
				{ .fd = other_fd, .events = POLLIN } };

	if (!fabric_has_connections(f)) {
		short_sleep(f, other_fd);
		return 1;
	}
	/* Something came since it was last read, or the provider has to be driven. */
	if (fi_trywait(f->fabric, fids, 2))
		return 1;
	if (poll(fds, other_fd < 0 ? 2 : 3, timeout_ms) <= 0)
		return 0;
	if ((fds[0].revents | fds[1].revents | fds[2].revents) & POLLNVAL)
		return -ENODEV;
	return !!fds[2].revents;
}

int fabric_endpoint(struct fabric *f, struct fi_info *info, void *context, struct fid_ep **out)
{
	struct fid_ep *ep;
	int err = fi_endpoint(f->domain, info ? info : f->info, &ep, context);

	if (err)
		return fabric_errno(err);
	err = fi_ep_bind(ep, f->av ? &f->av->fid : &f->eq->fid, 0);
	if (!err)
		err = fi_ep_bind(ep, &f->cq->fid, FI_TRANSMIT | FI_RECV);
	if (!err)
		err = fi_enable(ep);
	if (err) {
		fi_close(&ep->fid);
		return fabric_errno(err);
	}
	*out = ep;
	return 0;
}

static bool is_at(int fd, const struct sockaddr_in6 *where)
{
	struct sockaddr_in6 at = { 0 };
	socklen_t length = sizeof(at);

	/* IPv4 has its port at the same place. */
	return !getsockname(fd, (struct sockaddr *)&at, &length) &&
	       at.sin6_family == where->sin6_family && at.sin6_port == where->sin6_port;
}

static void tend(int fd)
{
	int on = 1, idle = SILENCE_S / 2, part = SILENCE_S / 8, ms = SILENCE_S * 1000;

	fcntl(fd, F_SETFD, FD_CLOEXEC);
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &part, sizeof(part));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* What is accepted has the listener's options. */
static void guard(int fd)
{
	struct timeval moment = { .tv_usec = 1000 };
	int seconds = 5, listens = 0;
	socklen_t size = sizeof(listens);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) || !listens)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof(moment));
	setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
}

/* Providers do not tell which socket is whose; the name does. It is looked at right before, so only
 * a descriptor that the program closes and opens anew in between could be taken for it. */
void fabric_tend(struct fid *endpoint)
{
	struct sockaddr_in6 where = { 0 };
	size_t length = sizeof(where);
	struct dirent *entry;
	DIR *dir;

	if (fi_getname(endpoint, &where, &length) ||
	    (where.sin6_family != AF_INET && where.sin6_family != AF_INET6) || !where.sin6_port)
		return;
	dir = opendir("/proc/self/fd");
	while (dir && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (*entry->d_name == '.' || !is_at(fd, &where))
			continue;
		tend(fd);
		guard(fd);
	}
	if (dir)
		closedir(dir);
}
