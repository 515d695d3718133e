#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# `uhmm secure`: a secret to a file and back; what is refused, and that nothing comes out then.
# test_uvmem_cli.sh UHMM
set -u

uhmm=$(realpath "$1") # we go elsewhere
passed=0 failed=0
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1

said=$("$uhmm" secure selftest)
case $said in
skipped*)
	echo "$said"
	echo "0 passed, 0 failed, 1 skipped"
	exit 77
	;;
esac

check() { # WHAT COMMAND...
	what=$1
	shift
	if "$@" >log 2>&1; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED $what"
		cat log
	fi
}

there_and_back() { # FILE
	"$uhmm" secure export --key key sealed <"$1" &&
		"$uhmm" secure import --key key sealed >back && cmp "$1" back
}

# FILE SAYS: import fails, says so, and writes nothing.
refused() {
	if "$uhmm" secure import --key "${3:-key}" "$1" >out 2>err; then
		echo "it was taken"
		return 1
	fi
	[ -s out ] && { echo "bytes came out"; return 1; }
	grep -q "$2" err || { cat err; return 1; }
}

changed() { # OFFSET: a copy of the file with this byte another
	cp sealed bad
	byte=$(od -An -tu1 -j "$1" -N1 sealed | tr -d ' ')
	printf "\\$(printf %03o $(((byte + 1) % 256)))" |
		dd of=bad bs=1 seek="$1" conv=notrunc 2>/dev/null
	refused bad refused
}

check "the self-test" test "${said%%:*}" = passed
: >empty
check "nothing" there_and_back empty
printf 'correct horse battery staple' >words
check "a few words" there_and_back words
check "they are not in the file" sh -c '! grep -q horse sealed'
check "the key is the owner's alone" test "$(stat -c %a key)" = 600
head -c 1000000 /dev/urandom >large
check "a million bytes" there_and_back large
check "all files are as large" test "$(stat -c %s sealed)" = "$((88 + 256 * 4113))"
for at in 0 9 17 30 56 57 80 5000 1052900 1053010; do
	check "byte $at changed" changed $at
done
head -c 500000 sealed >cut
check "cut" refused cut refused
head -c $((88 + 4113)) sealed >cut
check "cut to a page" refused cut refused
: >cut
check "an empty file" refused cut refused
cp sealed old
check "a second export" there_and_back words
check "a roll-back" refused old 'older than'
check "the new one still" sh -c "'$uhmm' secure import --key key sealed | cmp - words"
"$uhmm" secure export --key key2 other <words
check "another key" refused sealed refused key2
check "no key" refused sealed 'nothere' nothere
head -c 2000000 /dev/urandom >huge
check "too long, and the old file stays" sh -c \
	"! '$uhmm' secure export --key key sealed <huge 2>err && grep -q 'longer than' err &&
	'$uhmm' secure import --key key sealed | cmp - words && ! test -e sealed.new"
check "by a pipe" sh -c "cat words | '$uhmm' secure export -k key sealed && '$uhmm' secure import -k key sealed | cmp - words"
check "usage" sh -c "'$uhmm' secure export sealed; test \$? = 2"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
