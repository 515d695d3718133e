#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# A shell in the VM, with everything as the tests find it: shell.sh [new|old|rdma|iommufd]
set -eu
lab=$(cd "$(dirname "$0")" && pwd)
. "$lab/settings.sh"

kernel=${1:-new}
case $kernel in
new | old | rdma) "$lab/fetch.sh" "$kernel" ;;
esac
directory=$(kernel_of "$kernel")
[ -n "$directory" ] || die "there is no kernel $kernel in the cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
"$lab/image.sh" "$work/image"
CONSOLE=mon:stdio "$lab/vm.sh" "$directory" "$work/image" "$work"
