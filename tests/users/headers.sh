#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# Each public header alone compiles as C11 and as C++17, without a warning.
# headers.sh INCLUDE_DIR
set -eu

passed=0 failed=0 skipped=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

try() { # LABEL COMPILER ARGUMENTS...
	label=$1
	shift
	if ! command -v "$1" >/dev/null; then
		echo "skipped $label: no $1 on this machine"
		skipped=$((skipped + 1))
	elif "$@" -pedantic -Wall -Wextra -Werror "-I$include" -c -o "$dir/o"; then
		passed=$((passed + 1))
	else
		echo "FAILED $label"
		failed=$((failed + 1))
	fi
}

include=$1
for header in "$include"/uhmm/*.h; do
	name=${header##*/}
	echo "#include <uhmm/$name>" >"$dir/one.c"
	cp "$dir/one.c" "$dir/one.cc"
	for cc in gcc clang; do
		try "$name as C11 by $cc" "$cc" -std=c11 "$dir/one.c"
	done
	for cxx in g++ clang++; do
		try "$name as C++17 by $cxx" "$cxx" -std=c++17 "$dir/one.cc"
	done
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
