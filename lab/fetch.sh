#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# One of Debian's kernels into the cache: fetch.sh new|old|rdma
#
# $cache/kernels/NAME then has image, version, and modules.cpio: the modules that the lab
# needs, uncompressed, with /lab/modules to name them in the order in which they load.
set -eu
lab=$(cd "$(dirname "$0")" && pwd)
. "$lab/settings.sh"

# Those that a configuration may build in are there then, which modprobe knows.
wanted="nfit nd_pmem dax_pmem device_dax ext4 xfs vfio_pci vfio_iommu_type1"

# The kernel is one package, or three since 6.19; of those the image is signed or not.
flavour=-cloud
case "${1:-}" in
new) series=$new_series ;;
old) series=$old_series ;;
rdma)
	# The one for the cloud has no RDMA. Of the other's modules, 107 MB, few are kept.
	series=$new_series
	flavour=
	wanted="$wanted rdma_rxe rdma_ucm ib_uverbs dummy" ;;
*) echo "usage: fetch.sh new|old|rdma" >&2; exit 2 ;;
esac
any="[0-9.]+\\+deb[0-9]+$flavour-amd64"
name=$1
of="$(echo "$series" | sed 's/\./\\./')\\.$any"
dir=$cache/kernels/$name

packages()
{
	case "$name" in
	old)
		"$lab/apt.sh" newest "linux-image-$of" ;;
	new | rdma)
		modules=$("$lab/apt.sh" newest "linux-modules-$of" "linux-modules-$any") ||
			return 1
		version=${modules#linux-modules-}
		quoted=$(echo "$version" | sed 's/[.+]/\\&/g')
		image=$("$lab/apt.sh" newest "linux-binary-$quoted" \
			"linux-binary-unsigned-$quoted") || return 1
		echo "$modules linux-base-$version $image" ;;
	esac
}

# modprobe says `insmod FILE` for each that has to be loaded, in order, and `builtin NAME`.
modules_cpio() # UNPACKED VERSION OUTPUT
{
	mkdir -p "$work/root/lab" "$work/root/modules"
	for module in $wanted; do
		/sbin/modprobe -d "$1" -S "$2" --show-depends "$module" ||
			die "kernel $2 has no module $module"
	done >"$work/depends"
	awk '$1 == "insmod" && !seen[$2]++ { print $2 }' "$work/depends" |
	while read -r file; do
		base=${file##*/}
		base=${base%%.ko*}.ko
		case $file in
		*.xz) xz -dc "$file" ;;
		*.zst) zstd -dc "$file" ;;
		*.gz) gzip -dc "$file" ;;
		*) cat "$file" ;;
		esac >"$work/root/modules/$base"
		echo "/modules/$base"
	done >"$work/root/lab/modules"
	"$lab/cpio.sh" "$work/root" >"$3"
}

if ! wants=$(packages); then
	# No network, or the mirror has moved on: what was fetched before still does.
	[ -n "$(kernel_of "$name")" ] || die "no kernel $series$flavour in: $suites"
	say "keeping kernel $(cat "$dir/version"), as no other can be had"
	exit 0
fi
if [ "$(cat "$dir/packages" 2>/dev/null)" = "$wants" ] &&
	[ "$(cat "$dir/wanted" 2>/dev/null || echo "$wanted")" = "$wanted" ]; then
	exit 0
fi
case $wants in
*-"$series".*) ;;
*) say "there is no kernel $series any more; taking the newest:" "$wants" ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
# shellcheck disable=SC2086 # a list of words
"$lab/apt.sh" unpack "$work/deb" $wants
# /lib is where modprobe looks, and a link to usr/lib on every machine but in packages.
[ -e "$work/deb/lib" ] || ln -s usr/lib "$work/deb/lib"
version=$(cd "$work/deb/lib/modules" && echo *)
/sbin/depmod -b "$work/deb" "$version"

rm -rf "$dir.part"
mkdir -p "$dir.part"
cp "$work/deb/boot/vmlinuz-$version" "$dir.part/image" 2>/dev/null ||
	cp "$work/deb/usr/lib/modules/$version/vmlinuz" "$dir.part/image"
modules_cpio "$work/deb" "$version" "$dir.part/modules.cpio"
echo "$version" >"$dir.part/version"
echo "$wants" >"$dir.part/packages"
echo "$wanted" >"$dir.part/wanted"
rm -rf "$dir"
mv "$dir.part" "$dir"
say "kernel $version is in the cache"
