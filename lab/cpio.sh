#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# A directory as an initramfs on standard output, everything root's: cpio.sh DIRECTORY
#
# The kernel takes several, one after the other. It is not compressed: an emulated CPU is
# slower at that than at reading.
set -eu
cd "$1"
find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0
