/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * find - which PCI function is an edu that vfio-pci has, by sysfs.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edu_private.h"

#define DEVICES "/sys/bus/pci/devices"
#define VENDOR 0x1234
#define DEVICE 0x11e8
#define NAME 300 /* of a link of sysfs */

/* A number in a file of the function's; -1: none. */
static long number(const char *pci, const char *file)
{
	char path[300], text[32];
	long value = -1;
	FILE *f;

	snprintf(path, sizeof(path), DEVICES "/%s/%s", pci, file);
	f = fopen(path, "re");
	if (!f)
		return -1;
	if (fgets(text, sizeof(text), f))
		value = strtol(text, NULL, 0);
	fclose(f);
	return value;
}

static bool is_edu(const char *pci)
{
	return number(pci, "vendor") == VENDOR && number(pci, "device") == DEVICE;
}

/* The last part of where a link of the function's leads; "": there is none. */
static void link_name(const char *pci, const char *link, char *name, size_t size)
{
	char path[300], to[NAME];
	ssize_t n;

	snprintf(path, sizeof(path), DEVICES "/%s/%s", pci, link);
	n = readlink(path, to, sizeof(to) - 1);
	to[n > 0 ? n : 0] = '\0';
	snprintf(name, size, "%s", strrchr(to, '/') ? strrchr(to, '/') + 1 : to);
}

static bool is_bound(const char *pci)
{
	char driver[NAME];

	link_name(pci, "driver", driver, sizeof(driver));
	return !strcmp(driver, "vfio-pci");
}

/* The first by address; one that is bound goes before one that is not. */
static void search(char *found)
{
	DIR *dir = opendir(DEVICES);
	struct dirent *entry;
	bool bound, found_bound = false;

	*found = '\0';
	while (dir && (entry = readdir(dir))) {
		if (strlen(entry->d_name) >= PCI_NAME || !is_edu(entry->d_name))
			continue;
		bound = is_bound(entry->d_name);
		if (*found &&
		    (bound != found_bound ? found_bound : strcmp(found, entry->d_name) < 0))
			continue;
		snprintf(found, PCI_NAME, "%.*s", PCI_NAME - 1, entry->d_name);
		found_bound = bound;
	}
	if (dir)
		closedir(dir);
}

/* vfio-dev/vfioN is there if the kernel gives the device a node of its own. */
static void find_cdev(struct edu_place *place)
{
	char path[300];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), DEVICES "/%s/vfio-dev", place->pci);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(place->cdev, sizeof(place->cdev), "/dev/vfio/devices/%s",
			 entry->d_name);
		break;
	}
	if (dir)
		closedir(dir);
	if (*place->cdev && access(place->cdev, F_OK))
		*place->cdev = '\0';
}

static int say_unbound(const char *pci)
{
	char driver[NAME], unbind[NAME] = "";

	link_name(pci, "driver", driver, sizeof(driver));
	if (*driver)
		snprintf(unbind, sizeof(unbind), "echo %s > " DEVICES "/%s/driver/unbind; ",
			 pci, pci);
	return edu_say(
		-ENXIO,
		"%s is not bound to vfio-pci: modprobe vfio-pci; echo vfio-pci > " DEVICES
		"/%s/driver_override; %secho %s > /sys/bus/pci/drivers_probe",
		pci, pci, unbind, pci);
}

int edu_find(const char *wanted, struct edu_place *place)
{
	char group[NAME];

	memset(place, 0, sizeof(*place));
	if (wanted && strlen(wanted) >= PCI_NAME)
		return edu_say(-EINVAL, "%s is not a PCI address (0000:00:04.0)", wanted);
	if (wanted)
		snprintf(place->pci, sizeof(place->pci), "%s", wanted);
	else
		search(place->pci);
	if (!*place->pci)
		return edu_say(-ENODEV,
			       "there is no PCI device 1234:11e8 here: QEMU has it, as "
			       "-device edu,dma_mask=0xffffffffffffffff");
	if (!is_edu(place->pci))
		return edu_say(-ENODEV, "%s is not a PCI device 1234:11e8", place->pci);
	/* First: without one vfio-pci does not take it. */
	link_name(place->pci, "iommu_group", group, sizeof(group));
	if (!*group)
		return edu_say(
			-ENXIO,
			"%s is behind no IOMMU: boot with intel_iommu=on; QEMU: -device "
			"intel-iommu,aw-bits=48 before the device",
			place->pci);
	if (!is_bound(place->pci))
		return say_unbound(place->pci);
	place->group = atoi(group);
	find_cdev(place);
	return 0;
}
