# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
# The cases of one program, from what it said: "PASSED FAILED SKIPPED". The same rules as
# scripts/check_sum.py has: our programs' last line, else cmocka's brackets.
#
#	only=reason	instead of that why all of it was skipped
#	only=reasons	why some were, a line each with their number

match($0, /^([A-Za-z0-9_]+: )?[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$/) {
	line = $0
	sub(/^[A-Za-z0-9_]+: /, "", line)
	split(line, word, " ")
	own = (word[1] + 0) " " (word[3] + 0) " " (word[5] + 0)
	next
}
/\[ *PASSED *\].*[0-9]+ test/ { cmocka = 1; passed += number() }
/\[ *FAILED *\].*[0-9]+ test/ { cmocka = 1; failed += number() }
/\[ *SKIPPED *\].*[0-9]+ test/ { cmocka = 1; skipped += number(); next }
/^skip(ped)? [^:]*: / && !seen[$0]++ {
	sub(/^skip(ped)? [^:]*: /, "")
	if (!reasons[$0]++)
		order[++n] = $0
}
/\[ *SKIPPED *\] [a-z]/ && !seen[$0]++ {
	sub(/.*\] /, "")
	if (!reasons[$0]++)
		order[++n] = $0
}
NF { last = $0 }

# The number before the word "test".
function number(rest)
{
	rest = $0
	sub(/ test.*/, "", rest)
	sub(/.*[^0-9]/, "", rest)
	return rest + 0
}

END {
	if (only == "reason")
		print n ? order[1] : last
	else if (only == "reasons")
		for (i = 1; i <= n; i++)
			print "#   " reasons[order[i]] " skipped: " order[i]
	else if (own != "")
		print own
	else
		print passed + 0, failed + 0, skipped + 0
}
