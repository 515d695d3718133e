/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fabric - libfabric's objects, made and ended.
 */
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "fabric.h"
#include "wire.h"

#define VERSION FI_VERSION(1, 14)

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

int place_parse(struct odp_place *place, const char *address)
{
	const char *rest = address ? strstr(address, "://") : NULL, *colon;
	size_t node;

	if (!rest || rest == address || (size_t)(rest - address) >= sizeof(place->provider))
		return -EINVAL;
	*place = (struct odp_place){ 0 };
	memcpy(place->provider, address, (size_t)(rest - address));
	rest += 3;
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

static struct fi_info *wanted(const char *provider)
{
	struct fi_info *hints = fi_allocinfo();

	if (!hints)
		return NULL;
	hints->ep_attr->type = FI_EP_MSG;
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
	struct fi_info *hints = wanted(place->provider);
	int err;

	if (!hints)
		return -ENOMEM;
	err = fi_getinfo(VERSION, place->node, *place->service ? place->service : "0",
			 listens ? FI_SOURCE : 0, hints, &f->info);
	fi_freeinfo(hints);
	return err ? fabric_errno(err) : 0;
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
	err = find(f, place, listens);
	if (err)
		return err;
	err = fi_fabric(f->info->fabric_attr, &f->fabric, f);
	if (!err)
		err = fi_domain(f->fabric, f->info, &f->domain, f);
	if (!err)
		err = open_queues(f, completions);
	if (!err)
		return 0;
	fabric_close(f);
	return fabric_errno(err);
}

/* A file that listens at that name. */
static bool listens_at(int fd, const struct sockaddr_storage *name, socklen_t length)
{
	struct sockaddr_storage at = { 0 };
	socklen_t n = sizeof(at), size = sizeof(int);
	int listens = 0;

	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) && listens &&
	       !getsockname(fd, (struct sockaddr *)&at, &n) && n == length &&
	       !memcmp(&at, name, length);
}

/* What is accepted has the listener's options. */
void fabric_guard(const struct sockaddr_storage *name, socklen_t length)
{
	struct timeval moment = { .tv_usec = 1000 };
	int seconds = 5, fd;
	struct dirent *entry;
	DIR *dir = opendir("/proc/self/fd");

	while (dir && (entry = readdir(dir))) {
		fd = atoi(entry->d_name);
		if (!listens_at(fd, name, length))
			continue;
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof(moment));
		setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
	}
	if (dir)
		closedir(dir);
}

void fabric_close(struct fabric *f)
{
	if (f->cq)
		fi_close(&f->cq->fid);
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

void fabric_wait(struct fabric *f, int other_fd, int timeout_ms)
{
	struct fid *fids[] = { &f->cq->fid, &f->eq->fid };
	struct pollfd fds[] = { { .fd = f->cq_fd, .events = POLLIN },
				{ .fd = f->eq_fd, .events = POLLIN },
				{ .fd = other_fd, .events = POLLIN } };

	/* Something came since it was last read, or the provider has to be driven. */
	if (fi_trywait(f->fabric, fids, 2))
		return;
	poll(fds, other_fd < 0 ? 2 : 3, timeout_ms);
}

int fabric_endpoint(struct fabric *f, struct fi_info *info, void *context, struct fid_ep **out)
{
	struct fid_ep *ep;
	int err = fi_endpoint(f->domain, info ? info : f->info, &ep, context);

	if (err)
		return fabric_errno(err);
	err = fi_ep_bind(ep, &f->eq->fid, 0);
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
