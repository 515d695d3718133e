/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * iommu - mapping memory of this process for a device, by VFIO type1 or iommufd.
 *
 * Laws of the kernel (Linux 6.12 and 7.3):
 * - A mapping is taken back as it was made: neither will cut one (type1 v2: EINVAL; iommufd:
 * ENOENT).
 * - Both pin (FOLL_LONGTERM), and mark what was mapped for writing as dirty when they unpin.
 * - Neither pins a shared page of a file on a DAX filesystem (EOPNOTSUPP), nor, for writing, of
 *   most others (EFAULT since 6.5).
 * - Both have I/O addresses that cannot be used: what the IOMMU does not decode, and
 *   reserved regions, such as that of message interrupts.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "os/live.h"
#include "os/uapi.h"

#define INFO_BYTES 4096u

static int type1_map(int fd, uint64_t iova, uintptr_t va, size_t length, bool write)
{
	struct vfio_iommu_type1_dma_map arg = {
		.argsz = sizeof(arg),
		.flags = VFIO_DMA_MAP_FLAG_READ | (write ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.vaddr = va,
		.iova = iova,
		.size = length,
	};

	return ioctl(fd, VFIO_IOMMU_MAP_DMA, &arg) ? -errno : 0;
}

static int type1_unmap(int fd, uint64_t iova, size_t length)
{
	struct vfio_iommu_type1_dma_unmap arg = {
		.argsz = sizeof(arg), .iova = iova, .size = length,
	};

	if (ioctl(fd, VFIO_IOMMU_UNMAP_DMA, &arg))
		return -errno;
	return arg.size == length ? 0 : -ENOENT;
}

static void add_range(struct os_iommu_info *info, uint64_t first, uint64_t last)
{
	if (info->n_ranges == OS_IOMMU_RANGES)
		return; /* what is not named is not used */
	info->range[info->n_ranges].first = first;
	info->range[info->n_ranges++].last = last;
}

/* The kernel's list of capabilities, by offsets from the start of the answer. */
static void type1_ranges(const char *answer, uint32_t at, struct os_iommu_info *info)
{
	while (at && at + sizeof(struct vfio_iommu_type1_info_cap_iova_range) <= INFO_BYTES) {
		const struct vfio_iommu_type1_info_cap_iova_range *cap =
			(const void *)(answer + at);

		for (uint32_t i = 0; cap->header.id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE &&
		     i < cap->nr_iovas; i++)
			add_range(info, cap->iova_ranges[i].start, cap->iova_ranges[i].end);
		at = cap->header.next;
	}
}

static int type1_info(int fd, struct os_iommu_info *info)
{
	_Alignas(8) char answer[INFO_BYTES] = { 0 };
	struct vfio_iommu_type1_info *arg = (void *)answer;

	arg->argsz = sizeof(answer);
	if (ioctl(fd, VFIO_IOMMU_GET_INFO, arg))
		return -errno;
	info->granule = OS_PAGE_SIZE;
	if ((arg->flags & VFIO_IOMMU_INFO_PGSIZES) && arg->iova_pgsizes)
		info->granule = arg->iova_pgsizes & -arg->iova_pgsizes;
	if (arg->flags & VFIO_IOMMU_INFO_CAPS)
		type1_ranges(answer, arg->cap_offset, info);
	return 0;
}

static int iommufd_map(const struct os_iommu *iommu, uint64_t iova, uintptr_t va, size_t length,
		       bool write)
{
	struct iommu_ioas_map arg = {
		.size = sizeof(arg),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 (write ? IOMMU_IOAS_MAP_WRITEABLE : 0),
		.ioas_id = iommu->ioas,
		.user_va = va,
		.length = length,
		.iova = iova,
	};

	return ioctl(iommu->fd, IOMMU_IOAS_MAP, &arg) ? -errno : 0;
}

static int iommufd_unmap(const struct os_iommu *iommu, uint64_t iova, size_t length)
{
	struct iommu_ioas_unmap arg = {
		.size = sizeof(arg), .ioas_id = iommu->ioas, .iova = iova, .length = length,
	};

	return ioctl(iommu->fd, IOMMU_IOAS_UNMAP, &arg) ? -errno : 0;
}

static int iommufd_info(const struct os_iommu *iommu, struct os_iommu_info *info)
{
	struct iommu_iova_range range[OS_IOMMU_RANGES];
	struct iommu_ioas_iova_ranges arg = {
		.size = sizeof(arg),
		.ioas_id = iommu->ioas,
		.num_iovas = OS_IOMMU_RANGES,
		.allowed_iovas = (uintptr_t)range,
	};

	/* More than there is room for: those that came may be used. */
	if (ioctl(iommu->fd, IOMMU_IOAS_IOVA_RANGES, &arg) && errno != EMSGSIZE)
		return -errno;
	info->granule = arg.out_iova_alignment > OS_PAGE_SIZE ? arg.out_iova_alignment
							       : OS_PAGE_SIZE;
	for (uint32_t i = 0; i < arg.num_iovas && i < OS_IOMMU_RANGES; i++)
		add_range(info, range[i].start, range[i].last);
	return 0;
}

int live_iommu_info(const struct os_iommu *iommu, struct os_iommu_info *info)
{
	memset(info, 0, sizeof(*info));
	return iommu->iommufd ? iommufd_info(iommu, info) : type1_info(iommu->fd, info);
}

int live_iommu_map(const struct os_iommu *iommu, uint64_t iova, uintptr_t va, size_t length,
		   bool write)
{
	return iommu->iommufd ? iommufd_map(iommu, iova, va, length, write)
			      : type1_map(iommu->fd, iova, va, length, write);
}

int live_iommu_unmap(const struct os_iommu *iommu, uint64_t iova, size_t length)
{
	return iommu->iommufd ? iommufd_unmap(iommu, iova, length)
			      : type1_unmap(iommu->fd, iova, length);
}
