# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# shellcheck shell=sh disable=SC2034 # it is sourced; who sources it uses them
# What the lab's scripts share. Needs `lab`, this folder.

# What can be fetched or built again: rm -r it at any time.
cache=${UHMM_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/uhmm-lab}
build=${UHMM_LAB_BUILD:-$lab/../build}

# The kernels, by the names that tests.list has for them.
new_series=7.3
old_series=6.12
suites="trixie trixie-backports"

# One size a memory, for their order in the VM is not that of the command line and the
# size is how it tells them apart. In MiB; xfs needs 300.
ext4_mib=256
xfs_mib=512
devdax_mib=128
disk_mib=384

# For a test that names no limit.
limit_s=120
# The VM says something every ten seconds. One that does not is dead.
silence_s=60

say()
{
	echo "lab: $*" >&2
}

die()
{
	say "$*"
	exit 1
}

# The directory of a kernel in the cache, or nothing: kernel_of new|old|rdma|iommufd
kernel_of()
{
	if [ -e "$cache/kernels/$1/image" ]; then echo "$cache/kernels/$1"; fi
}
