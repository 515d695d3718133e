/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
#ifndef LIVE_DEVICES_SVM_H
#define LIVE_DEVICES_SVM_H

#include "devices.h"

/* Two GPUs of one svm: the first reads, the second writes. */
int live_svm_open(struct device *dev);
/* The same with memory of their own, to which what they fault on moves. */
int live_svm_open_vram(struct device *dev);
void live_svm_close(struct device *dev);
int live_svm_read(struct device *dev, void *dst, const void *src, size_t length);
int live_svm_write(struct device *dev, void *dst, const void *src, size_t length);
uint64_t live_svm_lookup(const struct device *dev, const void *addr);
void live_svm_mark(struct device *dev, const void *start, size_t length);
uint64_t live_svm_stale(struct device *dev);

#endif
