#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# Stress while all memory of the process goes to swap again and again. Without swap on this machine a file of its
# own is used as such meanwhile.
# swap.sh STRESS ARGUMENT...
set -u

dir=$(mktemp -d /var/tmp/uhmm-swap.XXXXXX) || exit 1
file=$dir/swap

not_here() { # WHY
	echo "$1"
	exit 77
}

gone() {
	swapoff "$file" 2>/dev/null
	rm -rf "$dir"
}
trap gone EXIT
trap 'exit 1' INT TERM

if [ "$(wc -l </proc/swaps)" -lt 2 ]; then
	[ "$(id -u)" = 0 ] || not_here "this machine has no swap, and making some takes root"
	PATH=$PATH:/sbin:/usr/sbin
	{ fallocate -l 512M "$file" && chmod 600 "$file" && mkswap "$file" && swapon "$file"; } >"$dir/said" 2>&1 ||
		not_here "this machine has no swap, and will not take a file for it: $(tail -n 1 "$dir/said")"
fi
"$@" --pageout
