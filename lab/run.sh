#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# The tests of tests.list, each in the VM with the kernel that it asks for:
#
#	run.sh [-k KERNEL] [NAME...]	only those; of what is named all is shown
#
# One line a test as in TAP, then "N passed, N failed, N skipped", which counts the cases
# of those programs that count them. Exit 1 if one failed.
#
# A kernel is booted once for all of its tests, and once more behind each that it did not
# survive: that one has failed, with the end of the console to show why. One that does not come
# up is booted once more, too: a CPU that QEMU emulates may run a breakpoint of a kernel that
# rewrites its code, when it is long gone (hold.c), and nothing of ours has run by then.
set -eu
lab=$(cd "$(dirname "$0")" && pwd)
. "$lab/settings.sh"

kernels="new old rdma iommufd"
names=
while [ $# -gt 0 ]; do
	case $1 in
	-k) kernels=${2:?}; shift ;;
	-*) echo "usage: run.sh [-k new|old|rdma|iommufd] [NAME...]" >&2; exit 2 ;;
	*) names="$names $1 " ;;
	esac
	shift
done

work=$(mktemp -d)
qemu=
end()
{
	if [ -n "$qemu" ]; then kill -KILL "$qemu" 2>/dev/null || true; fi
	rm -rf "$work"
}
trap end EXIT
trap 'exit 1' INT TERM

# ---- what is to run ----

# "NAME LIMIT COMMAND" of each test for one kernel
rows() # KERNEL
{
	awk -v kernel="$1" -v names="$names" -v limit="$limit_s" '
	/^[ \t]*(#|$)/ { next }
	names && !index(names, " " $1 " ") { next }
	$2 == kernel || ($2 == "both" && (kernel == "new" || kernel == "old")) {
		name = $1
		sub(/^[ \t]*[^ \t]+[ \t]+[^ \t]+[ \t]+/, "")
		this = limit
		if ($1 ~ /^[0-9]+s$/) {
			this = $1 + 0
			sub(/^[^ \t]+[ \t]+/, "")
		}
		print name, this, $0
	}' "$lab/tests.list"
}

row() # N; sets name and command
{
	read -r name _ command <<-END
		$(sed -n "$1p" "$work/rows")
	END
}

# ---- what is said ----

number=0 passed=0 failed=0 skipped=0

# On a terminal the last line says what runs.
progress()
{
	if [ -t 2 ]; then printf '\r\033[K%s' "$*" >&2; fi
}

result() # ok|not-ok WHAT [SKIP REASON]
{
	number=$((number + 1))
	progress
	case $1 in
	ok) echo "ok $number - $2${3:+ # SKIP $3}" ;;
	*) echo "not ok $number - $2" ;;
	esac
}

add() # PASSED FAILED SKIPPED
{
	passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

shown() # FILE
{
	sed 's/^/#   /' "$1"
}

broken() # N WHY
{
	row "$1"
	result not-ok "$name on $version: $2"
	add 0 1 0
	if [ -s "$work/log" ]; then
		echo "# the test's last words:"
		tail -n 40 "$work/log" | sed 's/^/#   /'
	fi
	echo "# the console's:"
	tail -n 40 "$work/vm/console" 2>/dev/null | tr -d '\r' | sed 's/^/#   /'
}

# An end as the VM reports it. 77 is a skip, as for meson.
ended() # N STATUS SECONDS
{
	row "$1"
	what="$name on $version"
	read -r p f s <<-END
		$(awk -f "$lab/count.awk" "$work/log")
	END
	case $2 in
	0) [ "$((p + f + s))" -gt 0 ] || p=1 ;;
	77) reason=$(awk -v only=reason -f "$lab/count.awk" "$work/log") ;;
	timeout) [ "$f" -gt 0 ] || f=1; what="$what: more than its seconds" ;;
	*) [ "$f" -gt 0 ] || f=1; what="$what: status $2" ;;
	esac
	if [ "$2" = 77 ]; then
		result ok "$what" "${reason:-it gives no reason}"
		add 0 0 1
	elif [ "$f" -gt 0 ]; then
		result not-ok "$what ($p passed, $f failed, $s skipped; $3 s)"
		add "$p" "$f" "$s"
		[ -n "$names" ] || grep -v '^skip ' "$work/log" | tail -n 40 | sed 's/^/#   /'
	else
		result ok "$what ($p passed, $s skipped; $3 s)"
		add "$p" "$f" "$s"
		[ -n "$names" ] || awk -v only=reasons -f "$lab/count.awk" "$work/log"
	fi
	if [ -n "$names" ]; then shown "$work/log"; fi
}

# ---- one VM ----

heard() # LINE
{
	case $1 in
	"| "*) printf '%s\n' "${1#| }" >>"$work/log" ;;
	"@ "*)
		# shellcheck disable=SC2086 # words
		set -- $1
		case $2 in
		kernel) version=${3%%+*} ;;
		begin)
			current=$((first + $3 - 1)) running=1 since=$(date +%s)
			: >"$work/log" ;;
		alive) ;;
		end) ended $((first + $3 - 1)) "$4" "$5"; running= ;;
		stuck) why="it hangs in the kernel" ;;
		done) complete=1 ;;
		esac ;;
	esac
}

# Read what the VM says, as it says it, until it is gone. Its port is a file that grows:
# what `read` finds there may be the first half of a line.
follow()
{
	part='' quiet=0
	while :; do
		if IFS= read -r line <&3; then
			heard "$part$line"
			part='' quiet=0
			continue
		fi
		part=$part$line
		if [ -n "$gone" ]; then break; fi
		kill -0 "$qemu" 2>/dev/null || gone=1
		if [ -n "$running" ]; then
			row "$current"
			progress "$name on $version: $(($(date +%s) - since)) s"
		else
			progress "kernel $version starts"
		fi
		quiet=$((quiet + 1))
		if [ $quiet -gt $((silence_s * 5)) ]; then
			why="the VM says nothing any more"
			kill -KILL "$qemu" 2>/dev/null || true
			quiet=0
		fi
		if [ -z "$gone" ]; then sleep 0.2; fi
	done
}

boot() # KERNEL; runs rows from $first on
{
	rm -rf "$work/vm"
	mkdir "$work/vm"
	: >"$work/vm/channel"
	: >"$work/log"
	tail -n +"$first" "$work/rows" | cut -d ' ' -f 2- >"$work/vm/tests"
	"$lab/vm.sh" "$1" "$work/image" "$work/vm" </dev/null >"$work/vm/qemu" 2>&1 &
	qemu=$!
	current=$first running='' complete='' gone='' why="the VM died"
	exec 3<"$work/vm/channel"
	follow
	exec 3<&-
	wait "$qemu" || true
	qemu=
	cat "$work/vm/qemu" >>"$work/vm/console"
}

run_kernel() # KERNEL
{
	total=$(wc -l <"$work/rows")
	first=1 tried=
	version=$(cut -d + -f 1 "$1/version")
	while [ "$first" -le "$total" ]; do
		boot "$1"
		[ -z "$complete" ] || return 0
		# Either in a test or, if it could not even begin, before the first.
		if [ -z "$running" ] && [ "$current" = "$first" ] && [ -z "$tried" ]; then
			tried=1
			echo "# kernel $version did not come up, and is booted once more; the console's last words:"
			tail -n 5 "$work/vm/console" | tr -d '\r' | sed 's/^/#   /'
			continue
		fi
		if [ -z "$running" ] && [ "$current" = "$first" ]; then
			why="the VM did not get as far"
			for n in $(seq "$first" "$total"); do broken "$n" "$why"; done
			return 0
		fi
		[ -z "$running" ] || broken "$current" "$why"
		first=$((current + 1)) tried=
	done
}

without() # KERNEL
{
	for n in $(seq 1 "$(wc -l <"$work/rows")"); do
		row "$n"
		if [ "$1" = iommufd ]; then
			result ok "$name on iommufd" "no kernel with IOMMUFD: make lab-kernel"
			add 0 0 1
		else
			result not-ok "$name on $1: there is no such kernel"
			add 0 1 0
		fi
	done
}

for kernel in $kernels; do
	rows "$kernel" >"$work/rows.$kernel"
done
[ "$(cat "$work"/rows.* | wc -l)" -gt 0 ] || die "tests.list has no$names"

begin=$(date +%s)
"$lab/image.sh" "$work/image"
for kernel in $kernels; do
	mv "$work/rows.$kernel" "$work/rows"
	[ -s "$work/rows" ] || continue
	case $kernel in
	new | old | rdma) "$lab/fetch.sh" "$kernel" || true ;;
	esac
	directory=$(kernel_of "$kernel")
	if [ -n "$directory" ]; then run_kernel "$directory"; else without "$kernel"; fi
done
echo "1..$number"
echo "# $(($(date +%s) - begin)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $((passed + skipped)) -gt 0 ]
