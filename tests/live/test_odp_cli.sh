#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# `uhmm odp`: programs that know nothing of it are served; others get and put their memory.
# test_odp_cli.sh UHMM ODP_SERVED
set -u

here=$(dirname "$0")
uhmm=$1 served=$2 inside=
# shellcheck source=tests/live/odp_cli.sh
. "$here/odp_cli.sh"

if ! "$uhmm" feature >"$dir/feature" 2>&1; then
	echo "no mirror can be opened here: $(tail -n 1 "$dir/feature")"
	exit 77
fi

get() { # REMOTE LENGTH
	"$uhmm" odp get --from "$file" "$1" "$2"
}

# ---- memory that changes ----

start
order set hello
verdict "get" hello "$(get "$at" 5)"
verdict "get with address and key" hello "$("$uhmm" odp get "$address" "$key" "0x$at" 5)"
verdict "get in hexadecimal" "$at  68 65 6c 6c 6f" \
	"$(printf '%s' "$("$uhmm" odp get -x --from "$file" "$at" 5 | cut -c1-28)")"
stale=0
for i in 1 2 3 4 5 6 7 8 9 10; do
	order remap "new$i"
	[ "$(get "$at" 5 | tr -d '\0')" = "new$i" ] || stale=$((stale + 1))
	order drop "drop$i"
	[ "$(get "$at" 6 | tr -d '\0')" = "drop$i" ] || stale=$((stale + 1))
done
verdict "get after remap and DONTNEED" 0 $stale
printf 'by another\0' | "$uhmm" odp put --from "$file" "$at"
echo show >&8
read -r answer <&9
verdict "put" "by another" "$answer"

# More than one request has.
size=$((9 << 20))
head -c $size /dev/urandom >"$dir/bytes"
"$uhmm" odp put --from "$file" "$at" <"$dir/bytes"
verdict "9 MiB put" 0 $?
get "$at" $size | cmp -s - "$dir/bytes"
verdict "and got" 0 $?
order unmap
says "get of what is unmapped" 1 "no mapping" get "$at" 4096
says "put too" 1 "cannot write $at: no mapping" sh -c \
	"echo x | '$uhmm' odp put --from '$file' '$at'"
order map
order set again
verdict "and it is mapped again" again "$(get "$at" 5)"

# What is there comes, and then the error with the address.
end=$(printf '%x' $((0x$at + (64 << 20))))
says "get past the end" 1 "cannot read" get "$(printf '%x' $((0x$end - 1048576)))" 1G
base=$(basename "$served")
verdict "a mapping's name" ELF "$(get "$base+1" 3)"
says "no such mapping" 1 "has no mapping 'none'" get none 4
says "a name without --from" 1 "need --from" "$uhmm" odp get "$address" "$key" "[heap]" 4

# ---- who may ----

wrong=$(echo "$key" | tr 0-9a-f 1-9a-f0)
says "wrong key" 1 "key does not allow" "$uhmm" odp get "$address" "$wrong" "$at" 4
says "no key" 2 "is no key" "$uhmm" odp get "$address" beef "$at" 4
verdict "the file is its owner's" 600 "$(stat -c %a "$file")"
says "no such provider" 1 "no such provider" "$uhmm" odp get none://127.0.0.1:1 "$key" 1000 4
says "too few arguments" 2 "too few" "$uhmm" odp get "$address" "$key" 1000
says "no program" 2 "which program" "$uhmm" odp serve

# ---- children ----

order child
verdict "a child executes" 5 "$answer"
verdict "and the file is the parent's" "$address $key $target" "$(cat "$file")"
order keep
kept=$answer
started="$started $kept"
verdict "children are not served" "again" "$(get "$at" 5)"

# ---- targets that end ----

# A bench is under way: it says so when it is connected; its first row takes a minute.
bench_begin() {
	: >"$dir/bench.out"
	"$uhmm" odp bench --from "$file" --timeout 5 --seconds 60 "$at" 8M \
		>"$dir/bench.out" 2>"$dir/bench.err" &
	bench=$!
	started="$started $bench"
	said "$dir/bench.out"
	sleep 0.5
}

bench_ends() { # NAME SECONDS TEXT
	if ! ended "$bench" "$2"; then
		fail "$1:" "it runs still after $2 s"
	elif [ "$status" = 1 ] && grep -q "$3" "$dir/bench.err"; then
		pass "$1"
	else
		fail "$1:" "status $status, '$(cat "$dir/bench.err")'"
	fi
}

bench_begin
kill -9 "$target"
bench_ends "kill -9 during gets" 4 "ended the connection"
wait "$target" 2>/dev/null
# Its child, which was executed, does not hold its sockets.
says "nobody serves any more" 1 "nobody serves" get "$at" 5
kill -9 "$kept"

start
bench_begin
kill -STOP "$target"
bench_ends "a target that is stopped" 9 "nothing has come for 5 s"
kill -CONT "$target"
order set awake
verdict "it goes on for others" awake "$(get "$at" 5)"
bench_begin
echo "quit 7" >&8
ended "$target" 10
verdict "exit during gets" 7 "$status"
bench_ends "and the client ends" 4 "ended the connection"

# ---- other programs ----

start --access r
order set only
verdict "--access r: get" only "$(get "$at" 4)"
says "--access r: put" 1 "key does not allow to write" sh -c \
	"echo x | '$uhmm' odp put --from '$file' '$at'"
says "--access" 2 "only the letters" "$uhmm" odp serve -a rx -- true
echo "quit 0" >&8
ended "$target" 10

# What is called a program may be a script that executes it.
by="env"
start
verdict "a program that is executed by another" "$target" "$pid"
order set second
verdict "get from it" second "$(get "$at" 6)"
by=
threads=$(ls "/proc/$target/task" | wc -l)
order close
sleep 1.2 # at the latest the thread of the fabric looks then, if it has a CPU
for i in 1 2 3 4 5 6 7 8 9 10; do
	[ "$(ls "/proc/$target/task" | wc -l)" = "$threads" ] || break
	sleep 0.5
done
verdict "who closes our descriptors goes on" 1 $((threads - $(ls "/proc/$target/task" | wc -l)))
says "and is not served" 1 "nobody serves" get "$at" 6
echo "quit 4" >&8
ended "$target" 10
verdict "and ends" 4 "$status"

# ---- other ways ----

another() { # NAME PLACE
	"$uhmm" odp serve -f "$dir/can" -l "$2" -- true 2>"$dir/said" || {
		skip "$1" "$(tail -n 1 "$dir/said")"
		return
	}
	start --listen "$2"
	order set "$1"
	verdict "$1: get" "$1" "$(get "$at" ${#1})"
	"$uhmm" odp put --from "$file" "$at" <"$dir/bytes" && get "$at" $size |
		cmp -s - "$dir/bytes"
	verdict "$1: 9 MiB there and back" 0 $?
	bench_begin
	kill -9 "$target"
	bench_ends "$1: kill -9 during gets" 4 "ended the connection"
	wait "$target" 2>/dev/null
}
another ipv6 "tcp://[::1]:0"
another shm "shm://"

XDG_RUNTIME_DIR=$dir "$uhmm" odp serve -- sleep 60 2>"$dir/serve.err" &
sleeper=$!
started="$started $sleeper"
file=$dir/uhmm-odp.$sleeper
for i in $(seq 100); do
	[ -s "$file" ] || sleep 0.05
done
verdict "sleep, in a file of the tool's choice" ELF \
	"$(get "$(basename "$(readlink "/proc/$sleeper/exe")")+1" 3)"
kill "$sleeper"
ended "$sleeper" 5
verdict "a signal" 143 "$status"

if command -v python3 >/dev/null; then
	file=$dir/python
	"$uhmm" odp serve -f "$file" -- python3 -c '
import ctypes, subprocess, sys
b = ctypes.create_string_buffer(b"python", 1 << 20)
print("%x" % ctypes.addressof(b), flush=True)
sys.stdin.readline()
subprocess.run(["true"], check=True)
print(b.value.decode(), flush=True)
' <"$dir/in" >"$dir/out" 2>"$dir/serve.err" &
	target=$!
	started="$started $target"
	exec 8>"$dir/in" 9<"$dir/out"
	read -r at <&9
	verdict "python: get" python "$(get "$at" 6)"
	printf 'snake\0' | "$uhmm" odp put --from "$file" "$at"
	order
	verdict "python: put, and it runs a command" snake "$answer"
	ended "$target" 10
	verdict "python: its end" 0 "$status"
else
	skip "python" "there is none on this machine"
fi

rm -f "$dir/f"
says "no such interface" 125 "at tcp://192.0.2.1:7: Cannot assign" "$uhmm" odp serve -f "$dir/f" \
	-l tcp://192.0.2.1:7 -- true
says "no such provider there" 125 "no such provider" "$uhmm" odp serve -f "$dir/f" \
	-l none://127.0.0.1:0 -- true
says "its directory is not there" 125 "No such file" "$uhmm" odp serve -f "$dir/none/f" -- true

static=/sbin/ldconfig
if [ -x $static ] && ldd $static 2>&1 | grep -q "not a dynamic\|statically"; then
	says "a static program is refused" 1 "linked statically" "$uhmm" odp serve -- $static -p
else
	skip "a static program is refused" "$static is none here"
fi
finish
