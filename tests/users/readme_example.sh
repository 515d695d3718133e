#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# The program in a README.md compiles as it stands there, and runs.
# readme_example.sh SOURCE_ROOT BUILD_ROOT COMPILER README 'DRIVER...' SAYS
set -eu

root=$1 build=$2 cc=$3 readme=$4 driver=$5 says=$6
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$root/$readme" >"$dir/list.c"
[ -s "$dir/list.c" ] || { echo "$readme has no program"; exit 1; }
# What pkg-config would say of an installed uhmm-DRIVER.
libs=
for name in $driver; do
	libs="$libs -luhmm-$name"
done
# shellcheck disable=SC2086 # words
"$cc" -Wall -Wextra -Wno-unused-parameter -Werror "$dir/list.c" -o "$dir/list" \
	"-I$root/include" "-L$build" $libs -luhmm "-Wl,-rpath,$build"
said=$("$dir/list") || true
echo "$said"
case "$said" in
*"no platform is installed"*) # what the device is made of is not here, and it says so
	echo "0 passed, 0 failed, 1 skipped"
	exit 77
	;;
esac
if [ "$said" = "$says" ]; then
	echo "1 passed, 0 failed, 0 skipped"
else
	echo "0 passed, 1 failed, 0 skipped"
	exit 1
fi
