#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# The VM: vm.sh KERNEL IMAGE DIRECTORY [QEMU ARGUMENT...]
#
# KERNEL is a directory as fetch.sh makes it. In DIRECTORY lies what this VM has of its own:
# its memories, sparse files that begin as zeros; its list of tests, if there is one; and
# what its second serial port says, in `channel`. The first, the console, is in `console`
# or, for a person, on the terminal: CONSOLE=mon:stdio.
set -eu
lab=$(cd "$(dirname "$0")" && pwd)
. "$lab/settings.sh"
kernel=$1 image=$2 dir=$3
shift 3

nvdimm() # NAME MIB
{
	rm -f "$dir/$1"
	truncate -s "$2M" "$dir/$1"
	memories="$memories -object memory-backend-file,id=$1,share=on,mem-path=$dir/$1,size=$2M
		-device nvdimm,id=nv-$1,memdev=$1"
}
memories=
nvdimm ext4 "$ext4_mib"
nvdimm xfs "$xfs_mib"
nvdimm devdax "$devdax_mib"
nvdimm disk "$disk_mib"

mkdir -p "$dir/root/lab"
if [ -e "$dir/tests" ]; then cp "$dir/tests" "$dir/root/lab/tests"; fi
echo "EXT4_MIB=$ext4_mib XFS_MIB=$xfs_mib DEVDAX_MIB=$devdax_mib DISK_MIB=$disk_mib" \
	>"$dir/root/lab/sizes"
{
	if [ -e "$kernel/modules.cpio" ]; then cat "$kernel/modules.cpio"; fi
	cat "$image"
	"$lab/cpio.sh" "$dir/root"
} >"$dir/initrd"

# The IOMMU comes before what it is to translate for. No KVM: see README.md; and so no check of the
# timer, which panics where a busy host had no CPU for ten ticks of it.
# shellcheck disable=SC2086 # lists of words
exec qemu-system-x86_64 -accel tcg,thread=multi -machine q35,nvdimm=on -cpu max -smp 2 \
	-m 2G,slots=4,maxmem=8G -nodefaults -no-user-config -display none -no-reboot \
	-device intel-iommu,aw-bits=48 -device edu,dma_mask=0xffffffffffffffff $memories \
	-serial "${CONSOLE:-file:$dir/console}" -serial "file:$dir/channel" \
	-kernel "$kernel/image" -initrd "$dir/initrd" -append "console=ttyS0 panic=-1 \
mitigations=off nokaslr no_timer_check loglevel=${LOGLEVEL:-4} intel_iommu=on ${APPEND:-}" "$@"
