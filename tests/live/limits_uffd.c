/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * limits_uffd - memory that cannot be mirrored: devices reach it by copies.
 *
 * A mapping has one userfaultfd context at most: the program's own, whose handler serves
 * the devices' faults as it does the CPU's. And the kernel refuses to register a shared mapping of
 * a file that was opened for reading only.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "limits.h"

struct handler {
	int fd;
	atomic_bool stop;
	atomic_uint served;
};

/* Every missing page becomes one of 42s. */
static void *handler_main(void *arg)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct handler *h = arg;
	struct uffd_msg msg;

	memset(page, 42, sizeof(page));
	while (!h->stop) {
		struct pollfd p = { .fd = h->fd, .events = POLLIN };
		struct uffdio_copy copy = { .src = (uintptr_t)page, .len = 4096 };

		if (poll(&p, 1, 10) <= 0 || read(h->fd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		copy.dst = msg.arg.pagefault.address & -LPAGE;
		if (!ioctl(h->fd, UFFDIO_COPY, &copy))
			h->served++;
	}
	return NULL;
}

static enum verdict take(struct handler *h, char *at, size_t length)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register arg = { .range = { (uintptr_t)at, length },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };

	h->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (h->fd < 0)
		return live_skip("no userfaultfd that serves system calls: %s",
				 strerror(errno));
	SYS(ioctl(h->fd, UFFDIO_API, &api));
	SYS(ioctl(h->fd, UFFDIO_REGISTER, &arg));
	return PASS;
}

static void no_invalidate(void *priv, const struct hmm_event *event)
{
}

static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
					     .invalidate = no_invalidate };

/* What the library says of the page; the reason goes to *reason. */
static int asked(struct hmm *hmm, const char *at, enum hmm_reason *reason)
{
	uint64_t pfn = 0;
	struct hmm_range range = { .size = sizeof(range),
				   .hmm = hmm,
				   .start = (uintptr_t)at,
				   .end = (uintptr_t)at + LPAGE,
				   .pfns = &pfn,
				   .default_flags = HMM_PFN_REQ_FAULT };
	int err = hmm_notifier_insert(hmm, range.start, LPAGE, &ops, NULL, &range.notifier);

	if (err)
		return err;
	do {
		err = hmm_notifier_read_begin(&range);
		if (!err)
			err = hmm_range_fault(&range);
	} while (err == -EBUSY);
	*reason = range.fault_reason;
	hmm_notifier_remove(range.notifier);
	return err;
}

enum verdict limit_own_userfaultfd(const struct driver *driver)
{
	char *at = live_map(8 * LPAGE, LRW), byte = 7;
	struct uffdio_range all = { (uintptr_t)at, 8 * LPAGE };
	struct handler h = { 0 };
	enum hmm_reason reason = HMM_REASON_NONE;
	struct device dev;
	pthread_t thread;

	TRY(take(&h, at, 8 * LPAGE));
	CHECK(!pthread_create(&thread, NULL, handler_main, &h), "no thread");
	EXPECT(0, device_open(driver, &dev));
	EXPECT(-EOPNOTSUPP, asked(dev.hmm, at, &reason));
	EXPECT(HMM_REASON_NOT_MIRRORABLE, reason);
	EXPECT(42, device_byte(&dev, at));
	EXPECT(0, device_write(&dev, at + LPAGE, &byte, 1));
	EXPECT(7, at[LPAGE]);
	EXPECT(42, at[LPAGE + 1]);
	EXPECT(42, at[2 * LPAGE]);
	for (int i = 0; i < 1000 && h.served < 3; i++)
		usleep(1000); /* it counts after it has woken us */
	EXPECT(3, h.served);
	CHECK(!device_lookup(&dev, at), "it has a translation of what cannot be mirrored");
	/* When the program lets go of it, it is memory like any other. */
	SYS(ioctl(h.fd, UFFDIO_UNREGISTER, &all));
	EXPECT(0, asked(dev.hmm, at, &reason));
	EXPECT(0, device_byte(&dev, at + 3 * LPAGE));
	CHECK(device_lookup(&dev, at + 3 * LPAGE), "not mirrored after it was let go of");
	h.stop = true;
	pthread_join(thread, NULL);
	device_close(&dev);
	return PASS;
}

enum verdict limit_read_only_file(const struct driver *driver)
{
	char path[] = "/tmp/uhmm-live-XXXXXX", byte = 7, *at;
	enum hmm_reason reason = HMM_REASON_NONE;
	int fd = mkstemp(path), readable = open(path, O_RDONLY | O_CLOEXEC);
	struct device dev;

	unlink(path);
	CHECK(fd >= 0 && readable >= 0, "no file in /tmp");
	CHECK(pwrite(fd, "abc", 3, 0) == 3 && !ftruncate(fd, (off_t)LPAGE), "no file to map");
	at = mmap(NULL, LPAGE, PROT_READ, MAP_SHARED, readable, 0);
	CHECK(at != MAP_FAILED, "the file cannot be mapped");
	EXPECT(0, device_open(driver, &dev));
	EXPECT(-EOPNOTSUPP, asked(dev.hmm, at, &reason));
	EXPECT(HMM_REASON_NOT_MIRRORABLE, reason);
	EXPECT('a', device_byte(&dev, at));
	CHECK(!device_lookup(&dev, at), "it has a translation of what cannot be mirrored");
	CHECK(device_write(&dev, at, &byte, 1) < 0, "it wrote to a file that is open for reading");
	SYS(munmap(at, LPAGE));
	EXPECT(-EFAULT, device_byte(&dev, at));
	device_close(&dev);
	close(fd);
	close(readable);
	return PASS;
}
