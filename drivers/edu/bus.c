/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * bus - the PCI function by VFIO: who maps memory for it, its registers, its configuration.
 *
 * Two ways. type1: the function's IOMMU group is put into a container, which has the I/O
 * address space. iommufd: the function's own node is bound to an iommufd and attached to an
 * I/O address space of it. From the device's descriptor on both are the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "edu_private.h"
#include "uapi.h"

#define REGISTERS_MIN 0xa0 /* past the last that we use */

void edu_bus_init(struct edu_bus *bus)
{
	*bus = (struct edu_bus){
		.device = -1, .container = -1, .group = -1, .iommufd = -1
	};
}

static int node_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), err = -errno;

	if (fd >= 0)
		return fd;
	switch (err) {
	case -EBUSY:
		return edu_say(err,
			       "%s: another process, or a child of one, has the device",
			       path);
	case -EACCES:
	case -EPERM:
		return edu_say(err, "%s: %s: run as root, or chown the node", path,
			       strerror(-err));
	default:
		return edu_say(-EOPNOTSUPP, "%s: %s", path, strerror(-err));
	}
}

/* ---- type1 ---- */

static int group_open(struct edu_bus *bus, const struct edu_place *place)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[64];

	snprintf(path, sizeof(path), "/dev/vfio/%d", place->group);
	bus->group = node_open(path);
	if (bus->group < 0)
		return bus->group;
	if (ioctl(bus->group, VFIO_GROUP_GET_STATUS, &status))
		return edu_say(-errno, "%s: %s", path, strerror(errno));
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return edu_say(-ENXIO,
			       "IOMMU group %d has other devices, which must be bound to "
			       "vfio-pci too, or to no driver",
			       place->group);
	return 0;
}

static int type1_open(struct edu_bus *bus, const struct edu_place *place)
{
	int err;

	bus->way = EDU_TYPE1;
	bus->container = node_open("/dev/vfio/vfio");
	if (bus->container < 0)
		return bus->container;
	if (ioctl(bus->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
	    ioctl(bus->container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0)
		return edu_say(-EOPNOTSUPP, "VFIO has no type1 (v2) IOMMU here: modprobe "
					    "vfio_iommu_type1");
	err = group_open(bus, place);
	if (err)
		return err;
	if (ioctl(bus->group, VFIO_GROUP_SET_CONTAINER, &bus->container) ||
	    ioctl(bus->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return edu_say(-errno, "IOMMU group %d gets no type1 IOMMU: %s",
			       place->group, strerror(errno));
	bus->device = ioctl(bus->group, VFIO_GROUP_GET_DEVICE_FD, place->pci);
	if (bus->device < 0)
		return edu_say(-errno, "VFIO does not give %s: %s", place->pci,
			       strerror(errno));
	fcntl(bus->device, F_SETFD, FD_CLOEXEC);
	return 0;
}

/* ---- iommufd ---- */

/* Anybody may open the node; it is bound once, by whatever way, and says EINVAL then. */
static int say_unbindable(const char *pci, int err)
{
	if (err == -EINVAL || err == -EBUSY)
		return edu_say(-EBUSY,
			       "%s: another process, or a child of one, has the device",
			       pci);
	if (err == -EPERM)
		return edu_say(err,
			       "%s cannot be bound to an iommufd: its interrupts are not "
			       "isolated (a kernel with IRQ_REMAP does it)",
			       pci);
	return edu_say(err, "%s cannot be bound to an iommufd: %s", pci, strerror(-err));
}

static int iommufd_open(struct edu_bus *bus, const struct edu_place *place)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };

	bus->way = EDU_IOMMUFD;
	if (!*place->cdev)
		return edu_say(-EOPNOTSUPP,
			       "%s has no node in /dev/vfio/devices: the kernel has no "
			       "IOMMUFD, or no VFIO_DEVICE_CDEV",
			       place->pci);
	bus->iommufd = node_open("/dev/iommu");
	if (bus->iommufd < 0)
		return bus->iommufd;
	bus->device = node_open(place->cdev);
	if (bus->device < 0)
		return bus->device;
	bind.iommufd = bus->iommufd;
	if (ioctl(bus->device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		return say_unbindable(place->pci, -errno);
	if (ioctl(bus->iommufd, IOMMU_IOAS_ALLOC, &alloc))
		return edu_say(-errno, "no I/O address space: %s", strerror(errno));
	bus->ioas = attach.pt_id = alloc.out_ioas_id;
	if (ioctl(bus->device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach))
		return edu_say(-errno, "%s cannot be attached: %s", place->pci,
			       strerror(errno));
	return 0;
}

/* ---- both ---- */

static int region(const struct edu_bus *bus, unsigned index, struct vfio_region_info *info)
{
	*info = (struct vfio_region_info){ .argsz = sizeof(*info), .index = index };
	if (ioctl(bus->device, VFIO_DEVICE_GET_REGION_INFO, info))
		return edu_say(-errno, "VFIO says nothing of region %u: %s", index,
			       strerror(errno));
	return 0;
}

static int regions_open(struct edu_bus *bus)
{
	struct vfio_region_info info;
	int err = region(bus, VFIO_PCI_CONFIG_REGION_INDEX, &info);
	void *at;

	if (err)
		return err;
	bus->config = info.offset;
	err = region(bus, VFIO_PCI_BAR0_REGION_INDEX, &info);
	if (err)
		return err;
	if (info.size < REGISTERS_MIN || !(info.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return edu_say(-ENODEV,
			       "its registers cannot be mapped: this is not an edu");
	at = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, bus->device,
		  (off_t)info.offset);
	if (at == MAP_FAILED)
		return edu_say(-errno, "its registers cannot be mapped: %s",
			       strerror(errno));
	bus->registers = at;
	bus->registers_size = info.size;
	return 0;
}

int edu_bus_open(struct edu_bus *bus, const struct edu_place *place, enum edu_way way)
{
	int err;

	if (way == EDU_ANY)
		way = *place->cdev && !access("/dev/iommu", R_OK | W_OK) ? EDU_IOMMUFD
									 : EDU_TYPE1;
	err = way == EDU_IOMMUFD ? iommufd_open(bus, place) : type1_open(bus, place);
	return err ? err : regions_open(bus);
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void edu_bus_close(struct edu_bus *bus)
{
	if (bus->registers)
		munmap((void *)bus->registers, bus->registers_size);
	bus->registers = NULL;
	close_one(&bus->device);
	close_one(&bus->group);
	close_one(&bus->container);
	close_one(&bus->iommufd);
}

int edu_bus_map(struct edu_bus *bus, void *memory, size_t length)
{
	struct vfio_iommu_type1_dma_map type1 = {
		.argsz = sizeof(type1),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)memory,
		.iova = (uintptr_t)memory,
		.size = length,
	};
	struct iommu_ioas_map iommufd = {
		.size = sizeof(iommufd),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = bus->ioas,
		.user_va = (uintptr_t)memory,
		.length = length,
		.iova = (uintptr_t)memory,
	};

	if (bus->way == EDU_TYPE1 ? !ioctl(bus->container, VFIO_IOMMU_MAP_DMA, &type1)
				  : !ioctl(bus->iommufd, IOMMU_IOAS_MAP, &iommufd))
		return 0;
	if (errno == ENOMEM)
		return edu_say(-ENOMEM, "a page cannot be pinned: raise RLIMIT_MEMLOCK");
	return edu_say(-EOPNOTSUPP,
		       "the IOMMU maps nothing at %p (%s): are its addresses as wide as "
		       "the process's? QEMU: -device intel-iommu,aw-bits=48",
		       memory, strerror(errno));
}

void edu_bus_unmap(struct edu_bus *bus, void *memory, size_t length)
{
	struct vfio_iommu_type1_dma_unmap type1 = {
		.argsz = sizeof(type1),
		.iova = (uintptr_t)memory,
		.size = length,
	};
	struct iommu_ioas_unmap iommufd = {
		.size = sizeof(iommufd),
		.ioas_id = bus->ioas,
		.iova = (uintptr_t)memory,
		.length = length,
	};

	if (bus->way == EDU_TYPE1)
		ioctl(bus->container, VFIO_IOMMU_UNMAP_DMA, &type1);
	else
		ioctl(bus->iommufd, IOMMU_IOAS_UNMAP, &iommufd);
}

int edu_bus_master(struct edu_bus *bus, bool on)
{
	off_t at = (off_t)bus->config + PCI_COMMAND;
	uint16_t command;

	if (pread(bus->device, &command, sizeof(command), at) != sizeof(command))
		return edu_say(-EIO, "its configuration cannot be read");
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	if (!on)
		command &= (uint16_t)~PCI_COMMAND_MASTER;
	if (pwrite(bus->device, &command, sizeof(command), at) != sizeof(command))
		return edu_say(-EIO, "its configuration cannot be written");
	return 0;
}
