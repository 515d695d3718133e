#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# What the VM runs, as an initramfs: image.sh OUTPUT
#
# busybox, the makers of filesystems, our programs, and every shared library that one of
# them needs. Programs lie in /uhmm, libraries in /lib, which the dynamic linker looks
# through by itself. Kernel modules and the list of tests come from elsewhere.
set -eu
lab=$(cd "$(dirname "$0")" && pwd)
. "$lab/settings.sh"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'exit 1' INT TERM
mkdir -p "$root/bin" "$root/sbin" "$root/lib" "$root/uhmm" "$root/lab"

tool() # NAME
{
	path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$1") || die "$1 is not installed"
	echo "$path"
}

# Debugging information is ten times what is run.
program() # FILE TO
{
	strip -g -o "$2" "$1" 2>/dev/null || cp "$1" "$2"
	chmod 755 "$2"
}

for file in "$build"/uhmm "$build"/tests/live/* "$build"/tests/lab/* "$build"/tests/stress/*; do
	if [ -f "$file" ] && [ -x "$file" ]; then program "$file" "$root/uhmm/${file##*/}"; fi
done
[ -x "$root/uhmm/uhmm" ] || die "nothing is built in $build"
# Those that a test opens by their names.
for name in libuhmm libuhmm-fabricmon; do
	if [ -e "$build/$name.so.0" ]; then
		program "$build/$name.so.0" "$root/lib/$name.so.0"
	fi
done

for name in mkfs.ext4 mkfs.xfs; do
	cp -L "$(tool $name)" "$root/sbin/$name"
done
# RDMA: what makes a device of a network's, and verbs' driver for it, which libibverbs finds
# by these names. The drivers of cards have no card here.
program "$(tool rdma)" "$root/sbin/rdma"
verbs=$(ldd "$root"/uhmm/* 2>/dev/null | awk '$1 ~ /^libibverbs/ { print $3; exit }')
rxe=
if [ -n "$verbs" ]; then
	verbs=$(dirname "$(readlink -f "$verbs")")/libibverbs
	rxe=$(find "$verbs" -name 'librxe-*.so')
	[ -n "$rxe" ] || die "verbs has no driver for rxe (package ibverbs-providers)"
	mkdir -p "$root$verbs" "$root/etc/libibverbs.d"
	program "$rxe" "$root$rxe"
	cp /etc/libibverbs.d/rxe.driver "$root/etc/libibverbs.d/"
fi
# Tests are run by it; a shared one would need what is tested on the way to its prompt.
busybox=$(tool busybox)
if ldd "$busybox" >/dev/null 2>&1; then die "$busybox is not static (package busybox-static)"; fi
cp -L "$busybox" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"

cc -Os -o "$root/init" "$lab/hold.c"

# "NAME => FILE (ADDRESS)", and the dynamic linker as "FILE (ADDRESS)".
LD_LIBRARY_PATH=$build ldd "$root/init" "$root"/uhmm/* "$root"/sbin/* ${rxe:+"$rxe"} >"$root/needs" 2>/dev/null || true
if grep 'not found' "$root/needs" >&2; then die "a program lacks a library"; fi
awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/.*\/ld-/ { print $1 }' "$root/needs" |
sort -u |
while read -r file; do
	case $file in
	*/ld-*) mkdir -p "$root${file%/*}" && cp -L "$file" "$root$file" ;;
	*) [ -e "$root/lib/${file##*/}" ] || program "$(readlink -f "$file")" "$root/lib/${file##*/}" ;;
	esac
done
rm "$root/needs"

cp "$lab/init" "$root/lab/init"
cp "$lab/premises" "$root/uhmm/premises"
chmod 755 "$root/lab/init" "$root/uhmm/premises"
"$lab/cpio.sh" "$root" >"$1.part"
mv "$1.part" "$1"
