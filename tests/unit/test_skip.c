/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_skip - userptr's lengths of instructions, against the assembler's.
 *
 * What is never executed is assembled here: its labels say how long each instruction is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "skip.h"

#if defined(__x86_64__)

struct sample {
	const unsigned char *start, *end;
	const char *text;
};

/* clang-format off */
#define IN(text)                                                                            \
	asm(".pushsection .rodata.code, \"a\"\n661: " text "\n662:\n.popsection\n"          \
	    ".pushsection .rodata.str, \"a\"\n663: .asciz \"" text "\"\n.popsection\n"      \
	    ".pushsection " SECTION ", \"aw\"\n.quad 661b, 662b, 663b\n.popsection\n")
/* clang-format on */

#define SECTION "skip_yes"
IN("mov (%rax), %eax");
IN("mov %eax, (%rax)");
IN("movb $1, 8(%rax,%rbx,4)");
IN("movw $1, (%rax)");
IN("movl $1, 0x12345678(%r12)");
IN("movq $1, (%r13)");
IN("mov 0x1234(%rip), %rax");
IN("mov 0x1234, %eax");
IN("addl $1, (%rdi)");
IN("addl $0x1000, (%rdi)");
IN("addw $0x1000, (%rdi)");
IN("lock xaddl %eax, (%rdi)");
IN("lock cmpxchg %ecx, (%rdi)");
IN("lock incl (%rdi)");
IN("xchg %eax, (%rdi)");
IN("cmpl $5, 4(%rdi)");
IN("testl $0x100, (%rdi)");
IN("testb $1, (%rdi)");
IN("notl (%rdi)");
IN("imul $3, (%rdi), %eax");
IN("imul (%rdi), %eax");
IN("movzbl (%rdi), %eax");
IN("movslq (%rdi), %rax");
IN("cvtsi2ss (%rdi), %xmm0");
IN("movss (%rdi), %xmm1");
IN("movups %xmm1, 0x80(%rdi,%rcx,8)");
IN("pshufd $1, (%rdi), %xmm1");
IN("pinsrw $1, (%rdi), %xmm1");
IN("pextrd $1, %xmm1, (%rdi)");
IN("pmulld (%rdi), %xmm1");
IN("vmovups (%rdi), %ymm0");
IN("vmovups %ymm8, 0x40(%r9)");
IN("vaddps (%rdi,%rax,4), %ymm1, %ymm2");
IN("vfmadd231ps (%rdi), %ymm1, %ymm2");
IN("vinsertf128 $1, (%rdi), %ymm1, %ymm2");
IN("vbroadcastss (%rdi), %ymm1");
IN("vmaskmovps (%rdi), %ymm1, %ymm2");
IN("vpgatherdd %ymm1, (%rdi,%ymm2,4), %ymm3");
IN("vmovups (%rdi), %zmm0");
IN("vmovups %zmm17, 0x1000(%rdi)");
IN("vaddps (%rdi){1to16}, %zmm1, %zmm2");
IN("vmovdqu32 (%rdi), %zmm3{%k1}{z}");
IN("vpgatherdd (%rdi,%zmm2,4), %zmm3{%k1}");
IN("vpcmpd $1, (%rdi), %zmm1, %k1");
IN("vpscatterdd %zmm3, (%rdi,%zmm2,4){%k1}");
IN("fldt (%rdi)");
IN("rep movsb");
IN("stosq");
IN("prefetcht0 (%rdi)");
#undef SECTION
#define SECTION "skip_no"
IN("mov %eax, %ebx");
IN("call *(%rax)");
IN("jmp *(%rax)");
IN("push (%rax)");
IN("ret");
IN("ud2");
IN("addps %xmm0, %xmm1");
IN("syscall");

extern const struct sample __start_skip_yes[], __stop_skip_yes[];
extern const struct sample __start_skip_no[], __stop_skip_no[];

static void left_out(void **state)
{
	for (const struct sample *s = __start_skip_yes; s < __stop_skip_yes; s++) {
		unsigned length = userptr_skip(s->start);

		if (length != (unsigned)(s->end - s->start))
			fail_msg("%s: %u bytes, not %u", s->text, (unsigned)(s->end - s->start),
				 length);
	}
}

static void not_left_out(void **state)
{
	for (const struct sample *s = __start_skip_no; s < __stop_skip_no; s++)
		if (userptr_skip(s->start))
			fail_msg("%s would be left out", s->text);
}

#else

static void left_out(void **state)
{
	skip(); /* an access is left out on x86-64 only */
}

static void not_left_out(void **state)
{
	const unsigned char code[16] = { 0 };

	assert_int_equal(userptr_skip(code), 0);
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(left_out),
		cmocka_unit_test(not_left_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
