#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
"""No infrastructure without a user (A22): checked with nm.

users.py SOURCE_ROOT LIBUHMM NAME=LIBRARY...

Every function that libuhmm exports is declared in a public header and called by a
driver library; every function declared there is exported; each driver's README
names the functions it is the user of, and none that it does not; the change
log names each; no driver includes a private header.
"""
import pathlib
import re
import subprocess
import sys

passed = failed = 0


def check(what, wrong):
    global passed, failed
    if wrong:
        failed += 1
        print(f"FAILED {what}: {', '.join(sorted(wrong))}")
    else:
        passed += 1
        print(f"passed {what}")


def symbols(library, defined):
    out = subprocess.run(
        ["nm", "-D", "--defined-only" if defined else "--undefined-only", library],
        check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1].split("@")[0] for line in out.splitlines()}
    return {n for n in names if re.match(r"(hmm|uhmm_ptable)_", n)}


def declared(header):
    """Functions marked UHMM_API."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
    text = re.sub(r"^#.*", "", text, flags=re.M)
    return set(re.findall(r"UHMM_API\b[^;{}]*?\b(\w+)\s*\(", text))


def section(text, title):
    """The text of a markdown section, to the next heading."""
    found = re.search(rf"^#+ {title}\b.*?$(.*?)(?=^#|\Z)", text, flags=re.M | re.S)
    return found.group(1) if found else ""


def main():
    root = pathlib.Path(sys.argv[1])
    exported = symbols(sys.argv[2], True)
    public = set().union(*(declared(root / "include/uhmm" / f"{name}.h")
                           for name in ("hmm", "devmem", "dirty", "dma", "ptable", "regcache")))
    check("every exported function is declared", exported - public)
    check("every declared function is exported", public - exported)
    used = set()
    for pair in sys.argv[3:]:
        name, library = pair.split("=", 1)
        mine = symbols(library, False)
        used |= mine
        folder = root / "drivers" / name
        uses = section((folder / "README.md").read_text(), "What it is the user of")
        said = set(re.findall(r"\b((?:hmm|uhmm_ptable)_\w+)", uses)) & (public | exported)
        check(f"{name}: the README names what it uses", mine - said)
        check(f"{name}: the README names nothing else", said - mine)
        private = {str(f.relative_to(root)) for f in folder.glob("*.[ch]")
                   if re.search(r'#include\s*[<"](\.\./)*(src|core|os|util)/', f.read_text())}
        check(f"{name}: no private header", private)
    check("every function has a driver", exported - used)
    log = (root / "CHANGELOG.md").read_text()
    check("the change log names every function", {n for n in exported if n not in log})
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return failed != 0


sys.exit(main())
