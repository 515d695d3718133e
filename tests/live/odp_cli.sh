# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # who sources it sets some, and uses others
# What test_odp_*.sh share: a served program that takes orders, verdicts. Sourced.
#
# Wants: $uhmm, $served (odp_served). Gives: $dir, which is removed with all that was started.

dir=$(mktemp -d)
by=
passed=0 failed=0 skipped=0
started=

cleanup() {
	for pid in $started; do
		kill -9 "$pid" 2>/dev/null
	done
	exec 8>&- 9<&- 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

pass() { # NAME
	echo "passed $1"
	passed=$((passed + 1))
}

fail() { # NAME WHY...
	echo "FAILED $*"
	failed=$((failed + 1))
}

skip() { # NAME WHY
	echo "skipped $1: $2"
	skipped=$((skipped + 1))
}

# verdict NAME WANTED GOT
verdict() {
	if [ "$2" = "$3" ]; then
		pass "$1"
	else
		fail "$1:" "'$3', wanted '$2'"
	fi
}

# says NAME STATUS TEXT COMMAND...: it ends with the status, and has TEXT on standard error
says() {
	name=$1 status=$2 text=$3
	shift 3
	"$@" >/dev/null 2>"$dir/said"
	got=$?
	if [ "$got" = "$status" ] && grep -q -- "$text" "$dir/said"; then
		pass "$name"
	else
		fail "$name:" "status $got, wanted $status; '$(cat "$dir/said")', wanted '$text'"
	fi
}

finish() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" = 0 ] || exit 1
	[ "$passed" != 0 ] || exit 77
	exit 0
}

# start [OPTION...]: $target its PID, $at where its memory is, $file, $address, $key
# $inside: a command that runs it elsewhere; $by: one that executes it
start() {
	file=$dir/target
	rm -f "$dir/in" "$dir/out"
	mkfifo "$dir/in" "$dir/out"
	# shellcheck disable=SC2086 # words
	$inside "$uhmm" odp serve --file "$file" "$@" -- $by "$served" \
		<"$dir/in" >"$dir/out" 2>"$dir/serve.err" &
	target=$!
	started="$started $target"
	exec 8>"$dir/in" 9<"$dir/out"
	read -r at <&9 || { cat "$dir/serve.err"; fail "start"; finish; }
	read -r address key pid <"$file"
}

# order WORDS...: $answer
order() {
	echo "$*" >&8
	read -r answer <&9
}

# said FILE: until something is in it, 20 s at most
said() {
	tries=200
	while [ $tries -gt 0 ] && ! [ -s "$1" ]; do
		sleep 0.1
		tries=$((tries - 1))
	done
}

# ended PID SECONDS: $status; false: it runs still, and is killed
ended() {
	limit=$(($2 * 20))
	while [ $limit -gt 0 ] && [ -d "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; do
		sleep 0.05
		limit=$((limit - 1))
	done
	if [ $limit = 0 ]; then
		kill -9 "$1"
		wait "$1"
		return 1
	fi
	wait "$1"
	status=$?
}
