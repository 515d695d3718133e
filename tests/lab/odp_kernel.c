/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_kernel - the kernel's own: memory registered on demand with rxe, a network card in
 * software, and two connected queue pairs of it, of which one asks and the other's memory
 * is used. What the first receives lies in memory that is registered ordinarily.
 */
#include <infiniband/verbs.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_ioctl_verbs.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "odp_backend.h"

#define PORT 1
#define ASK 0
#define ANSWER 1
/* 4.096 us << 16, and as often again: two seconds until nobody answers. */
#define TIMEOUT 16
#define RETRIES 7
#define PATIENCE_NS 10000000000u

struct kernel {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp[2];
	struct ibv_mr *buffer;
	union ibv_gid gid;
	uint8_t gid_index;
	enum ibv_mtu mtu;
	unsigned char bytes[ODP_BYTES] __attribute__((aligned(8)));
};

static struct ibv_context *open_device(const char *want)
{
	struct ibv_context *context = NULL;
	struct ibv_device **devices = ibv_get_device_list(NULL);

	for (unsigned i = 0; devices && devices[i]; i++)
		if (!strcmp(ibv_get_device_name(devices[i]), want))
			context = ibv_open_device(devices[i]);
	if (devices)
		ibv_free_device_list(devices);
	return context;
}

/* Of the addresses the one that is IPv4's: others may need a neighbour that answers. */
static int find_gid(struct kernel *k)
{
	static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct ibv_gid_entry entries[16];
	ssize_t n = ibv_query_gid_table(k->context, entries, 16, 0);

	for (ssize_t i = 0; i < n; i++)
		if (entries[i].gid_type == IBV_GID_TYPE_ROCE_V2 &&
		    !memcmp(entries[i].gid.raw, mapped, sizeof(mapped))) {
			k->gid = entries[i].gid;
			k->gid_index = (uint8_t)entries[i].gid_index;
			return 0;
		}
	return -EADDRNOTAVAIL;
}

static int to_init(struct ibv_qp *qp)
{
	struct ibv_qp_attr init = {
		.qp_state = IBV_QPS_INIT,
		.port_num = PORT,
		.qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC,
	};

	return ibv_modify_qp(qp, &init,
			     IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
				     IBV_QP_ACCESS_FLAGS);
}

static int to_send(struct kernel *k, struct ibv_qp *qp, uint32_t other)
{
	struct ibv_qp_attr receive = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = k->mtu,
		.dest_qp_num = other,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = { .is_global = 1,
			     .port_num = PORT,
			     .grh = { .dgid = k->gid,
				      .sgid_index = k->gid_index,
				      .hop_limit = 1 } },
	};
	struct ibv_qp_attr send = { .qp_state = IBV_QPS_RTS,
				    .timeout = TIMEOUT,
				    .retry_cnt = RETRIES,
				    .rnr_retry = RETRIES,
				    .max_rd_atomic = 1 };
	int err = ibv_modify_qp(qp, &receive,
				IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
					IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);

	if (!err)
		err = ibv_modify_qp(qp, &send,
				    IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
					    IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
					    IBV_QP_MAX_QP_RD_ATOMIC);
	return err;
}

static void end_pair(struct kernel *k)
{
	for (unsigned i = 0; i < 2; i++)
		if (k->qp[i] && !ibv_destroy_qp(k->qp[i]))
			k->qp[i] = NULL;
}

static int make_pair(struct kernel *k)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC,
		.send_cq = k->cq,
		.recv_cq = k->cq,
		.cap = { .max_send_wr = 4,
			 .max_recv_wr = 1,
			 .max_send_sge = 1,
			 .max_recv_sge = 1 },
	};
	int err = 0;

	for (unsigned i = 0; !err && i < 2; i++) {
		k->qp[i] = ibv_create_qp(k->pd, &init);
		err = k->qp[i] ? to_init(k->qp[i]) : errno;
	}
	for (unsigned i = 0; !err && i < 2; i++)
		err = to_send(k, k->qp[i], k->qp[!i]->qp_num);
	return -err;
}

/*
 * An error of either side ends both. Reset, they would do again; but the responder may
 * still be on its way into its error when the requester has heard of it, and end there
 * afterwards.
 */
static int new_pair(struct kernel *k)
{
	struct ibv_wc wc;

	end_pair(k);
	while (ibv_poll_cq(k->cq, 1, &wc) > 0)
		;
	return make_pair(k);
}

static int make_queues(struct kernel *k)
{
	struct ibv_port_attr port;
	int err = find_gid(k);

	if (!err)
		err = -ibv_query_port(k->context, PORT, &port);
	if (err)
		return err;
	k->mtu = port.active_mtu;
	k->pd = ibv_alloc_pd(k->context);
	k->cq = ibv_create_cq(k->context, 16, NULL, NULL, 0);
	if (!k->pd || !k->cq)
		return -errno;
	k->buffer = ibv_reg_mr(k->pd, k->bytes, sizeof(k->bytes), IBV_ACCESS_LOCAL_WRITE);
	return k->buffer ? make_pair(k) : -errno;
}

static void kernel_close(void *dev)
{
	struct kernel *k = dev;

	end_pair(k);
	if (k->buffer)
		ibv_dereg_mr(k->buffer);
	if (k->cq)
		ibv_destroy_cq(k->cq);
	if (k->pd)
		ibv_dealloc_pd(k->pd);
	ibv_close_device(k->context);
	free(k);
}

static enum verdict kernel_open(void **dev)
{
	const uint32_t needs =
		IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE | IBV_ODP_SUPPORT_ATOMIC;
	struct ibv_device_attr_ex attr = { 0 };
	const char *name = getenv("UHMM_LAB_RDMA");
	struct ibv_context *context;
	struct kernel *k;
	int err;

	if (!name)
		return live_skip("UHMM_LAB_RDMA names no RDMA device (the lab does)");
	context = open_device(name);
	CHECK(context, "%s cannot be opened", name);
	if (ibv_query_device_ex(context, NULL, &attr) ||
	    (attr.odp_caps.per_transport_caps.rc_odp_caps & needs) != needs) {
		ibv_close_device(context);
		FAILED("%s does not page on demand", name);
	}
	k = aligned_alloc(PAGE, (sizeof(*k) + PAGE - 1) / PAGE * PAGE);
	memset(k, 0, sizeof(*k));
	k->context = context;
	err = make_queues(k);
	if (err) {
		kernel_close(k);
		FAILED("no queue pairs: %s", strerror(-err));
	}
	*dev = k;
	return PASS;
}

static int kernel_reg(void *dev, void *start, size_t length, unsigned may, void **mr)
{
	struct kernel *k = dev;
	int access = may & ODP_PINNED ? 0 : IBV_ACCESS_ON_DEMAND;

	/* Who may write from afar must be allowed to from here. */
	if (may & (ODP_MAY_WRITE | ODP_MAY_ATOMIC))
		access |= IBV_ACCESS_LOCAL_WRITE;
	if (may & ODP_MAY_READ)
		access |= IBV_ACCESS_REMOTE_READ;
	if (may & ODP_MAY_WRITE)
		access |= IBV_ACCESS_REMOTE_WRITE;
	if (may & ODP_MAY_ATOMIC)
		access |= IBV_ACCESS_REMOTE_ATOMIC;
	*mr = ibv_reg_mr(k->pd, start, length, access);
	return *mr ? 0 : -errno;
}

static void kernel_unreg(void *dev, void *mr)
{
	ibv_dereg_mr(mr);
}

static enum odp_result result_of(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_SUCCESS:
		return ODP_OK;
	case IBV_WC_REM_ACCESS_ERR:
		return ODP_ACCESS;
	case IBV_WC_REM_INV_REQ_ERR:
		return ODP_REQUEST;
	case IBV_WC_REM_OP_ERR:
		return ODP_OPERATION;
	case IBV_WC_RETRY_EXC_ERR:
		return ODP_SILENT;
	default:
		printf("an end that is not expected: %s\n", ibv_wc_status_str(status));
		return ODP_BROKEN;
	}
}

/* Ask, and wait for the end. */
static enum odp_result run(struct kernel *k, struct ibv_send_wr *wr, size_t n)
{
	struct ibv_sge sge = { (uintptr_t)k->bytes, (uint32_t)n, k->buffer->lkey };
	uint64_t end = live_now_ns() + PATIENCE_NS;
	enum odp_result result = ODP_SILENT;
	struct ibv_send_wr *bad;
	struct ibv_wc wc;
	int done = 0;

	wr->sg_list = &sge;
	wr->num_sge = 1;
	wr->send_flags = IBV_SEND_SIGNALED;
	if (ibv_post_send(k->qp[ASK], wr, &bad))
		return ODP_BROKEN;
	while (!done && live_now_ns() < end) {
		done = ibv_poll_cq(k->cq, 1, &wc);
		if (!done)
			usleep(100);
	}
	if (done > 0)
		result = result_of(wc.status);
	if (result != ODP_OK && new_pair(k))
		return ODP_BROKEN;
	return result;
}

static enum odp_result kernel_get(void *dev, void *mr, const void *at, void *to, size_t n)
{
	struct kernel *k = dev;
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_RDMA_READ,
		.wr.rdma = { (uintptr_t)at, ((struct ibv_mr *)mr)->rkey },
	};
	enum odp_result result = run(k, &wr, n);

	if (result == ODP_OK)
		memcpy(to, k->bytes, n);
	return result;
}

static enum odp_result kernel_put(void *dev, void *mr, void *at, const void *from, size_t n)
{
	struct kernel *k = dev;
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_RDMA_WRITE,
		.wr.rdma = { (uintptr_t)at, ((struct ibv_mr *)mr)->rkey },
	};

	memcpy(k->bytes, from, n);
	return run(k, &wr, n);
}

static enum odp_result atomic(struct kernel *k, struct ibv_send_wr *wr, uint64_t *old)
{
	enum odp_result result;

	/* Verbs' driver for rxe does not even send it. */
	if (wr->wr.atomic.remote_addr % sizeof(*old))
		return ODP_REQUEST;
	result = run(k, wr, sizeof(*old));
	if (result == ODP_OK)
		memcpy(old, k->bytes, sizeof(*old));
	return result;
}

static enum odp_result kernel_fetch_add(void *dev, void *mr, void *at, uint64_t add,
					uint64_t *old)
{
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD,
		.wr.atomic = { .remote_addr = (uintptr_t)at,
			       .compare_add = add,
			       .rkey = ((struct ibv_mr *)mr)->rkey },
	};

	return atomic(dev, &wr, old);
}

static enum odp_result kernel_compare_swap(void *dev, void *mr, void *at, uint64_t expected,
					   uint64_t desired, uint64_t *old)
{
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_ATOMIC_CMP_AND_SWP,
		.wr.atomic = { .remote_addr = (uintptr_t)at,
			       .compare_add = expected,
			       .swap = desired,
			       .rkey = ((struct ibv_mr *)mr)->rkey },
	};

	return atomic(dev, &wr, old);
}

/*
 * As ibv_advise_mr() would: Debian's libibverbs does not pass it on for rxe, whose kernel
 * side is newer.
 */
static int advise_ioctl(struct ibv_pd *pd, uint64_t advice, uint64_t flags,
			const struct ibv_sge *sge)
{
	struct {
		struct ib_uverbs_ioctl_hdr hdr;
		struct ib_uverbs_attr attrs[4];
	} command = {
		.hdr = { .length = sizeof(command),
			 .object_id = UVERBS_OBJECT_MR,
			 .method_id = UVERBS_METHOD_ADVISE_MR,
			 .num_attrs = 4,
			 .driver_id = RDMA_DRIVER_RXE },
		.attrs = { { .attr_id = UVERBS_ATTR_ADVISE_MR_PD_HANDLE,
			     .data_s64 = pd->handle },
			   { .attr_id = UVERBS_ATTR_ADVISE_MR_ADVICE,
			     .len = sizeof(advice),
			     .data = advice },
			   { .attr_id = UVERBS_ATTR_ADVISE_MR_FLAGS,
			     .len = sizeof(flags),
			     .data = flags },
			   { .attr_id = UVERBS_ATTR_ADVISE_MR_SGE_LIST,
			     .len = sizeof(*sge),
			     .data = (uintptr_t)sge } },
	};

	for (unsigned i = 0; i < 4; i++)
		command.attrs[i].flags = UVERBS_ATTR_F_MANDATORY;
	return ioctl(pd->context->cmd_fd, RDMA_VERBS_IOCTL, &command) ? -errno : 0;
}

static int kernel_advise(void *dev, void *mr, enum odp_advice advice, bool flush, void *at,
			 size_t length)
{
	static const enum ib_uverbs_advise_mr_advice advices[] = {
		[ODP_PREFETCH] = IBV_ADVISE_MR_ADVICE_PREFETCH,
		[ODP_PREFETCH_WRITE] = IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
		[ODP_PREFETCH_NO_FAULT] = IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT,
	};
	struct kernel *k = dev;
	struct ibv_sge sge = { (uintptr_t)at, (uint32_t)length,
			       ((struct ibv_mr *)mr)->lkey };
	uint32_t flags = flush ? IBV_ADVISE_MR_FLAG_FLUSH : 0;
	int err = ibv_advise_mr(k->pd, advices[advice], flags, &sge, 1);

	if (err == EOPNOTSUPP || err == ENOSYS)
		return advise_ioctl(k->pd, advices[advice], flags, &sge);
	return -err;
}

const struct odp_backend odp_kernel = {
	.name = "kernel",
	.open = kernel_open,
	.reg = kernel_reg,
	.unreg = kernel_unreg,
	.get = kernel_get,
	.put = kernel_put,
	.fetch_add = kernel_fetch_add,
	.compare_swap = kernel_compare_swap,
	.advise = kernel_advise,
	.close = kernel_close,
};
