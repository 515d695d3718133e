#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
"""Count the cases of one run of `meson test`.

check_sum.py TESTLOG_JSON EXIT_STATUS LOG
Standard error has a line a program, the reason of each skip, the end of what a failure
said; standard output "PASSED FAILED SKIPPED". A program that ended well but says nothing
that can be counted is one case.
"""
import collections
import json
import pathlib
import re
import sys

OWN = re.compile(r"^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.M)
CMOCKA = {what: re.compile(rf"\[ *{what} *\][^\n]*?(\d+) test", re.M)
          for what in ("PASSED", "FAILED", "SKIPPED")}
# Who and why; of cmocka the case, which has said why above.
SKIP = re.compile(r"^(?:skip(?:ped)? ([^:\n]*): |\[ *SKIPPED *\] (?=[a-z]))(.*)$", re.M)
TAIL = 25


def say(*words):
    print(*words, file=sys.stderr)


def cases(text):
    """(passed, failed, skipped) as the program itself counts, or None."""
    own = OWN.findall(text)
    if own:
        return tuple(int(n or 0) for n in own[-1])
    found = [[int(n) for n in CMOCKA[what].findall(text)]
             for what in ("PASSED", "FAILED", "SKIPPED")]
    return tuple(sum(n) for n in found) if any(found) else None


def count(test):
    text = test.get("stdout", "") + "\n" + test.get("stderr", "")
    result = test["result"]
    if result == "SKIP":
        reason = text.strip().splitlines()
        say(f"  skipped {test['name']}: {reason[-1] if reason else 'no reason given'}")
        return 0, 0, 1
    passed, failed, skipped = cases(text) or (int(result == "OK"), 0, 0)
    if result != "OK":
        # One that died in the middle has not counted what killed it.
        failed = max(failed, 1)
        say(f"  FAILED {test['name']} ({result})")
        for line in text.strip().splitlines()[-TAIL:]:
            say("    " + line)
    else:
        say(f"  {test['name']}: {passed} passed, {failed} failed, {skipped} skipped")
    reasons = collections.Counter(why for _, why in set(SKIP.findall(text)))
    for why, times in reasons.most_common():
        say(f"    {times} skipped: {why}")
    return passed, failed, skipped


def main():
    path, status, log = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    tests = []
    if path.exists():
        tests = [json.loads(line) for line in path.read_text().splitlines() if line]
    sums = [sum(column) for column in zip(*map(count, tests))] or [0, 0, 0]
    if not tests or (status and not sums[1]):
        say(f"  FAILED: meson test ended with {status} and {len(tests)} results; see {log}")
        sums[1] += 1
    print(*sums)


main()
