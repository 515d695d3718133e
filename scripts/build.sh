#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# Configure (once) and build: [TARGETS=...] build.sh DIRECTORY [MESON OPTION...]
# TARGETS: of ninja, if not everything is wanted.
# The tests are configured when cmocka is there (make check installs it), those of RDMA when its
# libraries are (make check-lab does).
set -eu

dir=$1
shift
tests=false
pkg-config --exists cmocka && tests=true

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [ ! -f "$dir/build.ninja" ]; then
	meson setup "$dir" "-Dtests=$tests" "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
elif [ "$tests" = true ]; then
	meson configure "$dir" -Dtests=true >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
if [ "$tests" = true ] && pkg-config --exists libibverbs libfabric &&
	! grep -q lab_verbs "$dir/build.ninja"; then
	meson setup --reconfigure "$dir" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
# shellcheck disable=SC2086 # words
if [ -t 1 ]; then
	ninja -C "$dir" ${TARGETS:-}
else
	ninja -C "$dir" ${TARGETS:-} >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
