#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# Packages of newer suites, unpacked and not installed.
#
#	apt.sh newest PATTERN...	the newest package that matches the first pattern that any
#					does (an extended regular expression for the whole name)
#	apt.sh version PACKAGE		which one would be fetched
#	apt.sh unpack DIRECTORY PACKAGE...
#
# The archive and its key are those of the machine's own apt configuration, as is anything
# else that it says about fetching. Lists and packages lie in the lab's cache.
set -eu
lab=$(cd "$(dirname "$0")" && pwd)
. "$lab/settings.sh"
apt=$cache/apt
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The main archive: the first entry that is Debian's and not its security archive. Apt
# knows whose an entry is only if its lists are there; if not the first one has to do.
archive()
{
	# shellcheck disable=SC2016 # names that apt expands
	apt-get indextargets 'Created-By: Packages' --format \
		'$(ORIGIN)/$(LABEL)/$(COMPONENT) $(REPO_URI)' |
		awk '$1 == "Debian/Debian/main" { print $2; found = 1; exit }
		     $1 ~ /\/main$/ && $2 !~ /security/ && !first { first = $2 }
		     END { if (!found) print first }'
}

configure()
{
	uri=$(archive)
	[ -n "$uri" ] || die "this machine's apt has no archive of packages"
	[ -e "$keyring" ] || die "$keyring is missing (package debian-archive-keyring)"
	mkdir -p "$apt/lists/partial" "$apt/archives/partial"
	for suite in $suites; do
		echo "deb [signed-by=$keyring] $uri $suite main"
	done >"$apt/sources.list"
	cat >"$apt/apt.conf" <<-END
		Dir::Etc::sourcelist "$apt/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State::Lists "$apt/lists";
		Dir::Cache "$apt";
	END
	export APT_CONFIG="$apt/apt.conf"
}

# What is said on the command line is said last: nothing here may be fetched unsigned.
# The user who fetches owns the cache, and apt's own user may not look into it.
get()
{
	apt-get -q -o Acquire::AllowInsecureRepositories=false \
		-o APT::Get::AllowUnauthenticated=false -o APT::Sandbox::User="$(id -un)" "$@"
}

# Lists of today will do.
update()
{
	[ -z "$(find "$apt/updated" -mmin -1440 2>/dev/null)" ] || return 0
	say "fetching the lists of packages"
	if get update >"$apt/log" 2>&1 && ! grep -q '^[WE]: .*[Ff]ailed' "$apt/log"; then
		touch "$apt/updated"
	else
		tail -n 5 "$apt/log" >&2
		die "the lists of packages could not be fetched"
	fi
}

newest()
{
	for pattern; do
		# Not pkgnames: that also has what is only named as a dependency.
		name=$(apt-cache search --names-only "^$pattern\$" | cut -d ' ' -f 1 |
			sort -V | tail -n 1)
		[ -z "$name" ] || { echo "$name"; return; }
	done
	return 1
}

version()
{
	apt-cache policy "$1" | sed -n 's/^ *Candidate: //p'
}

unpack()
{
	directory=$1
	shift
	cd "$apt/archives"
	# "'FROM' FILE SIZE SUM" of each
	size=$(get download --print-uris "$@" 2>/dev/null | awk '{ n += $3 } END { print int(n / 1e6) }')
	say "fetching $* ($size MB)"
	if [ -t 2 ]; then
		get download "$@" >&2
	else
		get download "$@" >"$apt/log" 2>&1
	fi || { cat "$apt/log" >&2; die "apt-get could not fetch: $*"; }
	for package; do
		dpkg -x "$package"_*.deb "$directory"
		rm -f "$package"_*.deb
	done
}

command -v apt-get >/dev/null || die "no apt-get here: the lab fetches Debian's kernels"
configure
update
case "${1:-}" in
newest) shift; newest "$@" ;;
version) version "$2" ;;
unpack) shift; unpack "$@" ;;
*) echo "usage: apt.sh newest PATTERN... | version PACKAGE | unpack DIRECTORY PACKAGE..." >&2; exit 2 ;;
esac
