/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
#include <uhmm/edu.h>

#include "devices_edu.h"

static int pci_open(struct device *dev)
{
	struct edu *edu;
	int err = edu_open(NULL, &edu);

	dev->priv = err ? NULL : edu;
	return err;
}

const char *live_edu_absent(void)
{
	struct edu *edu;
	int err = edu_open(NULL, &edu);

	if (err)
		return edu_strerror(err);
	edu_close(edu);
	return NULL;
}

static void pci_close(struct device *dev)
{
	edu_close(dev->priv);
}

static int pci_read(struct device *dev, void *dst, const void *src, size_t length)
{
	return edu_read(dev->priv, dst, src, length);
}

static int pci_write(struct device *dev, void *dst, const void *src, size_t length)
{
	return edu_write(dev->priv, dst, src, length);
}

static uint64_t pci_lookup(const struct device *dev, const void *addr)
{
	return edu_lookup(dev->priv, addr);
}

/* A stale access is a fault of the IOMMU, and wrong bytes: there is no count of its own. */
const struct driver live_edu = { "edu",	    pci_open,	pci_close, pci_read,
				 pci_write, pci_lookup, device_no_mark, device_no_stale,
				 live_edu_absent,
				 .no_fork = "one process at a time has the device (`lab edu` has a fork)" };
