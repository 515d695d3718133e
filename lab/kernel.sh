#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# A kernel with IOMMUFD, which Debian's do not have, from Debian's source and kernel.config.
#
# About ten minutes on two CPUs, and 2 GB in the cache while it is built. Only its image is
# kept there; it is built again when Debian has a newer source, or kernel.config changes.
set -eu
lab=$(cd "$(dirname "$0")" && pwd)
. "$lab/settings.sh"
dir=$cache/kernels/iommufd
source=linux-source-$new_series
work=$cache/kernel-build

id="$source $("$lab/apt.sh" version "$source") $(cksum <"$lab/kernel.config")"
case $id in
"$source  "* | *" (none) "*) die "there is no package $source" ;;
esac
if [ "$(cat "$dir/packages" 2>/dev/null)" = "$id" ]; then
	say "the kernel with IOMMUFD is in the cache: $(cat "$dir/version")"
	exit 0
fi

# One line that stays in place; where there is no terminal one for every 200 files.
progress()
{
	terminal=
	[ ! -t 2 ] || terminal=1
	awk -v terminal="$terminal" '
	/^  (CC|AS|LD|AR) / {
		n++
		if (terminal)
			printf "\r\033[K%d files: %s", n, $2 > "/dev/stderr"
		else if (n % 200 == 0)
			print "lab: " n " files" > "/dev/stderr"
	}
	END { if (terminal) printf "\r\033[K" > "/dev/stderr" }'
}

# Kconfig drops what its dependencies do not allow, without a word.
config_took()
{
	grep '^CONFIG_' "$lab/kernel.config" | while read -r line; do
		grep -qx "$line" .config || echo "$line"
	done >lost
	sed -n 's/^# \(CONFIG_[A-Z0-9_]*\) is not set$/\1/p' "$lab/kernel.config" |
	while read -r name; do
		if grep -q "^$name=" .config; then echo "# $name is not set"; fi
	done >>lost
	[ ! -s lost ] || { cat lost >&2; die "this kernel does not take these of kernel.config"; }
}

rm -rf "$work"
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
"$lab/apt.sh" unpack "$work" "$source"
say "unpacking the source"
tar xJf "$work/usr/src/$source.tar.xz" -C "$work"
rm "$work/usr/src/$source.tar.xz"
cd "$work/$source"
make -s tinyconfig
cat "$lab/kernel.config" >>.config
make -s olddefconfig >log 2>&1 || { tail -n 20 log >&2; die "kernel.config is not understood"; }
config_took

say "building $(make -s kernelrelease), on $(nproc) CPUs"
# `make` is not the last of the pipe, so it says itself how it ended.
{ make -j"$(nproc)" bzImage 2>log.errors || touch failed; } | tee log | progress
if [ -e failed ]; then
	tail -n 20 log.errors >&2
	die "the kernel does not build"
fi
rm -rf "$dir.part"
mkdir -p "$dir.part"
cp arch/x86/boot/bzImage "$dir.part/image"
make -s kernelrelease >"$dir.part/version"
echo "$id" >"$dir.part/packages"
rm -rf "$dir"
mv "$dir.part" "$dir"
say "the kernel with IOMMUFD is in the cache: $(cat "$dir/version")"
