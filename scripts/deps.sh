#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# Install what is missing of Debian's packages: deps.sh build | check | lab | lab-kernel
set -eu

build="make gcc libc6-dev meson ninja-build pkg-config libjansson-dev liburing-dev libfabric-dev
	libsodium-dev libucx-dev ocl-icd-opencl-dev"
check="$build pocl-opencl-icd libibverbs-dev librdmacm-dev libcmocka-dev g++ clang
	libclang-rt-14-dev spin valgrind libc6-dbg python3 util-linux iproute2"
lab="$build libcmocka-dev binutils qemu-system-x86 busybox-static cpio kmod xz-utils e2fsprogs xfsprogs
	debian-archive-keyring iproute2 libibverbs-dev ibverbs-providers"
kernel="$lab flex bison bc libelf-dev"

case "${1:-}" in
build) want=$build ;;
check) want=$check ;;
lab) want=$lab ;;
lab-kernel) want=$kernel ;;
*) echo "usage: deps.sh build|check|lab|lab-kernel" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
	echo "deps: no dpkg here; needed are: $want"
	exit 0
fi

missing=
for package in $want; do
	status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
	[ "$status" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "deps: run as root or install sudo; missing are:$missing" >&2
		exit 1
	}
	sudo=sudo
fi

echo "deps: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Lists that are there may do; only if they do not are they fetched again.
install() {
	# shellcheck disable=SC2086 # a list of words
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
		$missing >"$log" 2>&1
}
if ! install && ! { $sudo apt-get update >"$log" 2>&1 && install; }; then
	tail -n 20 "$log" >&2
	echo "deps: apt-get could not install:$missing" >&2
	exit 1
fi
