#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# `uhmm odp` between two hosts: network namespaces joined by a veth pair, with addresses that
# are not the loopback's.
# test_odp_netns.sh UHMM ODP_SERVED
set -u

here=$(dirname "$0")
uhmm=$1 served=$2
# shellcheck source=tests/live/odp_cli.sh
. "$here/odp_cli.sh"

near=uhmm-near-$$ far=uhmm-far-$$
near_at=10.83.71.1 far_at=10.83.71.2

not_here() { # WHY
	echo "$1"
	exit 77
}

namespaces_gone() {
	cleanup
	ip netns del "$near" 2>/dev/null
	ip netns del "$far" 2>/dev/null
}

[ "$(id -u)" = 0 ] || not_here "network namespaces take root"
command -v ip >/dev/null || not_here "there is no ip (iproute2) on this machine"
"$uhmm" feature >"$dir/feature" 2>&1 ||
	not_here "no mirror can be opened here: $(tail -n 1 "$dir/feature")"
trap namespaces_gone EXIT
{
	ip netns add "$near" && ip netns add "$far" &&
		ip -n "$near" link add veth0 type veth peer name veth0 netns "$far" &&
		ip -n "$near" addr add $near_at/24 dev veth0 &&
		ip -n "$far" addr add $far_at/24 dev veth0 &&
		ip -n "$near" link set lo up && ip -n "$far" link set lo up &&
		ip -n "$near" link set veth0 up && ip -n "$far" link set veth0 up
} 2>"$dir/ip.err" ||
	not_here "no network namespaces: $(tail -n 1 "$dir/ip.err")"

here_is="ip netns exec $near" there_is="ip netns exec $far"

client() { # ARGUMENTS...
	# shellcheck disable=SC2086 # words
	$here_is "$uhmm" odp "$@"
}

# The same one after the other, over a network as it is now.
moves() { # WHAT BYTES
	head -c "$2" /dev/urandom >"$dir/bytes"
	client put --from "$file" --timeout 20 "$at" <"$dir/bytes" 2>"$dir/said" &&
		client get --from "$file" --timeout 20 "$at" "$2" 2>"$dir/said" |
		cmp -s - "$dir/bytes"
	verdict "$1: $2 bytes there and back" "0 " "$? $(cat "$dir/said")"
}

# ---- two hosts ----

inside=$there_is
start --listen "tcp://$far_at:0"
case $address in
tcp://$far_at:*) pass "it listens where it was told" ;;
*) fail "it listens where it was told:" "$address" ;;
esac
order set afar
verdict "get" afar "$(client get --from "$file" "$at" 4)"
printf 'from here\0' | client put --from "$file" "$at"
echo show >&8
read -r answer <&9
verdict "put" "from here" "$answer"
order remap elsewhere
verdict "get after remap" elsewhere "$(client get --from "$file" "$at" 9)"
moves "veth" 20000000
client bench --from "$file" --seconds 0.3 -j "$at" 8M >"$dir/bench.json" 2>"$dir/said"
verdict "bench" "0 3" "$? $(grep -c median_us "$dir/bench.json")"
says "not reached by another way" 1 "nobody serves" \
	$there_is "$uhmm" odp get "tcp://127.0.0.1:${address##*:}" "$key" "$at" 4

# ---- a bad network ----

if tc -n "$far" qdisc add dev veth0 root netem delay 5ms 2ms loss 1% 2>"$dir/tc.err"; then
	moves "delay and loss" 3000000
	tc -n "$far" qdisc del dev veth0 root
else
	skip "delay and loss" "no netem: $(tail -n 1 "$dir/tc.err")"
fi
if tc -n "$far" qdisc add dev veth0 root tbf rate 16mbit burst 16kb latency 50ms \
	2>"$dir/tc.err"; then
	# Longer than the timeout in all, never without an answer for so long.
	head -c 6000000 /dev/urandom >"$dir/bytes"
	client put --from "$file" "$at" <"$dir/bytes"
	client get --from "$file" --timeout 2 "$at" 6000000 2>"$dir/said" |
		cmp -s - "$dir/bytes"
	verdict "slow, and no timeout" "0 " "$? $(cat "$dir/said")"
	tc -n "$far" qdisc del dev veth0 root
else
	skip "slow, and no timeout" "no tbf: $(tail -n 1 "$dir/tc.err")"
fi

# ---- no network ----

lost() { # COMMAND...: the link goes while it runs, when it has said something
	: >"$dir/lost.out"
	"$@" >"$dir/lost.out" 2>"$dir/lost.err" &
	running=$!
	started="$started $running"
	said "$dir/lost.out"
	sleep 0.5
	ip -n "$far" link set veth0 down
	ended "$running" 10 || status=hangs
}

# shellcheck disable=SC2086 # words
lost $here_is "$uhmm" odp bench --from "$file" --timeout 2 --seconds 60 "$at" 8M
verdict "the link goes: the client ends" 1 "$status"
grep -q "nothing has come for 2 s" "$dir/lost.err"
verdict "and says why" 0 $?
# At once, or when nobody answers to ARP.
says "no way there" 1 "no answer\|no way to that host" client get --from "$file" --timeout 1 "$at" 4
[ -d "/proc/$target" ]
verdict "the target lives" 0 $?
order set alive
verdict "and serves its own host" alive \
	"$($there_is "$uhmm" odp get --from "$file" "$at" 5)"
ip -n "$far" link set veth0 up
verdict "and others when the link is back" alive \
	"$(client get --from "$file" --timeout 10 "$at" 5)"
echo "quit 3" >&8
ended "$target" 10
verdict "its end" 3 "$status"
finish
