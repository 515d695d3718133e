#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
#
# Check the models with spin: each world as it is must hold, with its states counted to the
# end; each mutation of a rule must be refuted, or the model would not see that rule.
# usage: run.sh [NAME...]	only the rows whose name is given
#
# As many at a time as there are CPUs, and 2 GiB for each.
set -u
here=$(cd "$(dirname "$0")" && pwd)
for tool in spin gcc; do
	command -v $tool >/dev/null 2>&1 || { echo "models: no $tool on this machine: skipped"; exit 77; }
done
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# The worlds: as small as the failures allow that they must be able to show.
race='-DTURNS=3 -DCLEARS=0'
storm='-DTURNS=2 -DCLEARS=1 -DMAXGEN=2'
locks='-DTURNS=2 -DCLEARS=0 -DMAXGEN=2 -DDEVICES=1 -DFORKS=1 -DNESTED=1'
fails='-DTURNS=2 -DCLEARS=0 -DMAXGEN=2 -DDEVICES=1 -DFAILS=1'
moves='-DTURNS=3 -DCHANGES=2'
# migrate.pml: who is there, and what happens
base='-DFETCHES=1 -DFAILS=1'
touched='-DTOUCHES=1 -DFETCHES=1'
drop='-DDROPS=1'
unmap='-DUNMAPS=1 -DDEVICES=0'
failing='-DUNMAPS=2 -DFAILS=1 -DFETCHES=1 -DDEVICES=0 -DCPUS=0'
told='-DUNMAPS=1 -DFETCHES=1 -DCPUS=0'
remap='-DUNMAPS=1 -DREMAPS=1 -DPLACES=2 -DDEVICES=0 -DCPUS=0'
remapped='-DREMAPS=1 -DPLACES=2 -DDEVICES=0'
fork='-DFORKS=1 -DDEVICES=0'

# check NAME MODEL holds|fails FLAGS...
check()
{
	name=$1 model=$2 want=$3
	shift 3
	mkdir "$work/$name" && cd "$work/$name" || exit 1
	if ! spin -a "$@" "$here/$model" >out 2>&1 ||
	   ! gcc -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM=1900 -DVECTORSZ=2048 -o pan pan.c >>out 2>&1
	then
		cat out
		result="does not compile"
	else
		timeout 300 ./pan -w24 -m100000 >out 2>&1
		states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out)
		if ! grep -q 'errors: ' out; then
			result="no answer in 300 s"
		elif grep -q 'errors: 0' out; then
			result="holds"
			grep -Eq 'Search not completed|max search depth too small' out &&
				result="not searched to the end"
		else
			result="fails"
			why=$(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' out)
		fi
	fi
	verdict=FAILED
	[ "$result" = "$want" ] && verdict=ok
	case $want/$result in
	holds/holds) echo "$verdict $name: holds, $states states" ;;
	fails/fails) echo "$verdict $name: refuted, $why" ;;
	*) echo "$verdict $name: $result, expected: $want ($model $*)" ;;
	esac
	cd "$work" && rm -rf "${work:?}/$name"
}

row()
{
	[ -z "$only" ] || case " $only " in *" $1 "*) ;; *) return ;; esac
	echo "$*"
}

# What a job of the list is: this script, for one row.
if [ "${1-}" = --row ]; then
	shift
	check "$@"
	exit
fi

only=$*
# shellcheck disable=SC2086 # the worlds are lists of flags
{
row race gate.pml holds $race
row storm gate.pml holds $storm
row locks gate.pml holds $locks
row failing-munmap gate.pml holds $fails
row moves contexts.pml holds $moves
row read-before-close gate.pml fails $race -DMUT_READ_BEFORE_CLOSE
row no-probe gate.pml fails $race -DMUT_NO_PROBE
row no-recheck gate.pml fails $race -DMUT_NO_RECHECK
row seq-after-callback gate.pml fails $race -DMUT_SEQ_AFTER_CALLBACK
row erase-late gate.pml fails $race -DMUT_ERASE_LATE
row erased-no-wait gate.pml fails $race -DMUT_ERASED_NO_WAIT
row look-before-register gate.pml fails $race -DMUT_LOOK_BEFORE_REGISTER
row trust-early gate.pml fails $race -DMUT_TRUST_EARLY
row clear-keeps-seq gate.pml fails $storm -DMUT_CLEAR_KEEPS_SEQ
row no-token gate.pml fails $locks -DMUT_NO_TOKEN
row collapse-late gate.pml fails $locks -DMUT_COLLAPSE_LATE
row reader-waits gate.pml fails $locks -DMUT_READER_WAITS
row one-thread gate.pml fails $locks -DMUT_ONE_THREAD
row enter-late contexts.pml fails $moves -DMUT_ENTER_LATE
row migrate migrate.pml holds $base
row migrate-hole migrate.pml holds $base -DHOLE=1
row callback-touches migrate.pml holds $touched
row dontneed migrate.pml holds $drop
row unmap migrate.pml holds $unmap
row unmap-fails migrate.pml holds $failing
row unmap-device migrate.pml holds $told
row remap migrate.pml holds $remap
row remap-cpu migrate.pml holds $remapped
row fork migrate.pml holds $fork
row fork-dontneed migrate.pml holds $fork -DDROPS=1 -DCPUS=0
row fork-unmap migrate.pml holds $fork -DUNMAPS=1 -DCPUS=0
row copy-and-zap migrate.pml fails $base -DMUT_COPY_AND_ZAP
row no-migrate-event migrate.pml fails $base -DMUT_NO_MIGRATE
row entry-late migrate.pml fails $base -DMUT_ENTRY_LATE
row log-first migrate.pml fails $base -DMUT_LOG_FIRST
row log-late migrate.pml fails $base -DMUT_LOG_LATE
row no-log migrate.pml fails $base -DMUT_NO_LOG
row not-back migrate.pml fails $base -DMUT_NOT_BACK
row books-late migrate.pml fails $drop -DMUT_BOOKS_LATE
row no-unsettled migrate.pml fails $drop -DMUT_NO_UNSETTLED
row free-before-told migrate.pml fails $drop -DMUT_FREE_BEFORE_TOLD
row move-anyway migrate.pml fails $unmap -DMUT_MOVE_ANYWAY
row put-unjudged migrate.pml fails $unmap -DMUT_PUT_UNJUDGED
row wake-if-there migrate.pml fails $unmap -DMUT_WAKE_IF_THERE
row unmap-means-gone migrate.pml fails $failing -DMUT_UNMAP_MEANS_GONE
row list-forgets migrate.pml fails $failing -DMUT_LIST_FORGETS
row missing-is-proof migrate.pml fails $remap -DMUT_MISSING_IS_PROOF
row settle-unjudged migrate.pml fails $remap -DMUT_SETTLE_UNJUDGED
row register-again migrate.pml fails $remap -DMUT_REGISTER_AGAIN
row remap-keeps migrate.pml fails $remap -DMUT_REMAP_KEEPS
row kid-gets-dropped migrate.pml fails $fork -DDROPS=1 -DCPUS=0 -DMUT_KID_GETS_DROPPED
row regcache regcache.pml holds
row late-lookup-trusts regcache.pml fails -DMUT_NO_LIVE
row late-lookup-blind regcache.pml fails -DMUT_NO_ADDRESS
row making-unmarked regcache.pml fails -DMUT_NO_MARK
row claim-unchecked regcache.pml fails -DMUT_PLAIN_CLAIM
row taken-from-holders regcache.pml fails -DMUT_TAKE_FROM_HOLDERS
row get-unfenced regcache.pml fails -DMUT_UNFENCED
# Limits (docs/limits.md): what does not hold.
row limit-drops-twice migrate.pml fails $drop -DDEVICES=0 -DSTRICT
row limit-fork-over-new migrate.pml fails $fork -DUNMAPS=1 -DCPUS=0 -DMUT_FORK_OVER_NEW
} >"$work/rows"
jobs=$(awk -v cpus="$(nproc)" '/^MemAvailable/ { n = int($2 / 2097152); print n < 1 ? 1 : n < cpus ? n : cpus }' \
	/proc/meminfo)
xargs -P "$jobs" -L 1 "$here/run.sh" --row <"$work/rows" | tee "$work/said"
passed=$(grep -c '^ok ' "$work/said")
failed=$(($(wc -l <"$work/rows") - passed))
echo "models: $passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
