#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# All tests, in one summary: N passed, N failed, N skipped. Exit 1 if one failed.
#
# Cases are counted, not programs; a step that cannot be built counts as one failure, a
# tool that is missing as one skip with its reason. What a step said lies in build*/check-*.log.
set -u
cd "$(dirname "$0")/.." || exit 1

sums=$(mktemp)
trap 'rm -f "$sums"' EXIT
trap 'exit 1' INT TERM

failed() # WHAT
{
	echo "FAILED $1"
	echo "0 1 0" >>"$sums"
}

skipped() # WHAT WHY
{
	echo "skipped $1: $2"
	echo "0 0 1" >>"$sums"
}

step() # HEADER
{
	echo "== $(date +%H:%M:%S) $1"
}

# run DIRECTORY LOG ARGUMENT...: what meson test says is for the log; the counts are for us.
run()
{
	dir=$1 log=$1/check-$2.log base=check-$2
	shift 2
	rm -f "$dir/meson-logs/$base"*.json
	$wrap meson test -C "$dir" --no-rebuild --logbase "$base" "$@" >"$log" 2>&1
	status=$?
	# With a wrapper the name goes on.
	for json in "$dir/meson-logs/$base"*.json; do
		python3 scripts/check_sum.py "$json" "$status" "$log" >>"$sums"
	done
}

# unit_but DIRECTORY NAME...: the unit tests of a build but for some, to "$dir/check-names"
unit_but()
{
	dir=$1
	shift
	meson test -C "$dir" --list --no-rebuild --suite unit 2>/dev/null |
		sed 's,.* / ,,' >"$dir/check-names.all"
	cp "$dir/check-names.all" "$dir/check-names"
	for name; do
		grep -v "^$name\$" "$dir/check-names.all" >"$dir/check-names"
		cp "$dir/check-names" "$dir/check-names.all"
	done
}

# [TARGETS=...] configured DIRECTORY OPTION...: build it, or count a failure.
configured()
{
	scripts/build.sh "$@" && return 0
	failed "build of $1"
	return 1
}

wrap=
built=
step "build"
if configured build; then
	built=yes
	for suite in unit users live stress litmus model; do
		step "$suite"
		run build $suite --suite $suite
	done
fi

step "unit with AddressSanitizer and UndefinedBehaviorSanitizer"
if TARGETS=unit-tests configured build-asan -Db_sanitize=address,undefined; then
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 run build-asan asan --suite unit -t 4
fi

step "unit with ThreadSanitizer"
if TARGETS=unit-tests configured build-tsan -Db_sanitize=thread; then
	# Its shadow has fixed addresses, which a randomized layout runs into.
	wrap="setarch -R"
	# What has one thread, and thousands of runs, has nothing for it to see.
	unit_but build-tsan migrate_steps fuzz_events fuzz_wire
	set --
	while read -r name; do
		set -- "$@" "$name"
	done <build-tsan/check-names
	TSAN_OPTIONS=halt_on_error=1:die_after_fork=0 run build-tsan tsan -t 6 "$@"
	wrap=
fi

step "unit in valgrind"
if ! command -v valgrind >/dev/null; then
	skipped "valgrind" "it is not installed"
elif [ -z "$built" ]; then
	failed "valgrind: there is no build"
else
	# Not what opens the running kernel's mirror: valgrind does not know PAGEMAP_SCAN, and
	# takes what that fills in for uninitialised. Nor what takes minutes in it; of those
	# the fuzzers run with clang's sanitizers below.
	unit_but build home migrate_steps fuzz_events fuzz_wire
	set --
	while read -r name; do
		set -- "$@" "$name"
	done <build/check-names
	run build valgrind -t 20 --wrap "valgrind -q --error-exitcode=99 --fair-sched=yes" "$@"
fi

step "leaks on the running kernel, in valgrind"
if command -v valgrind >/dev/null && [ -n "$built" ]; then
	# It runs one thread at a time and does not let go in munmap, which waits for our
	# reader: of the live tests only this one can run there.
	run build valgrind-live -t 4 --wrap "valgrind -q --error-exitcode=99 --fair-sched=yes
		--undef-value-errors=no --leak-check=full --errors-for-leak-kinds=definite,indirect
		--log-file=$PWD/build/valgrind-live.log" 'live leaks'
else
	skipped "leaks in valgrind" "it is not installed, or there is no build"
fi

step "fuzz, short"
if ! command -v clang >/dev/null; then
	skipped "fuzz" "clang is not installed"
elif CC=clang TARGETS=fuzzers configured build-fuzz -Dfuzz=true; then
	run build-fuzz fuzz --suite fuzz
fi

awk '{ p += $1; f += $2; s += $3 }
     END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }' "$sums"
