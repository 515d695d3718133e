/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * The instructions that may fault, and the entries of our signal handler.
 *
 * Everything between safecopy_text and safecopy_text_end is leaf code that
 * changes no stack and no register that a caller keeps. So one fix-up serves all of it: a
 * handler that finds its fault there goes on at safecopy_fault, which returns
 * -EFAULT to whoever called. Loads and stores of 1, 2, 4 and 8 bytes are one instruction each.
 *
 *	int safecopy_N(void *dst, const void *src)
 *	int safecopy_bytes(void *dst, const void *src, size_t length)
 *	int safecopy_addN(void *addr, uintN_t operand, uint64_t *old)
 *	int safecopy_casN(void *addr, uintN_t expected, uintN_t desired, uint64_t *old)
 */
#if defined(__x86_64__)

#define EFAULT 14

	.macro	function name
	.globl	\name
	.hidden	\name
	.type	\name, @function
	.balign	16
\name:
	.cfi_startproc
	.endm

	.macro	end name
	.cfi_endproc
	.size	\name, . - \name
	.endm

	.text
	.globl	safecopy_text
	.hidden	safecopy_text
safecopy_text:

function safecopy_1
	movb	(%rsi), %al
	movb	%al, (%rdi)
	xorl	%eax, %eax
	ret
end safecopy_1

function safecopy_2
	movw	(%rsi), %ax
	movw	%ax, (%rdi)
	xorl	%eax, %eax
	ret
end safecopy_2

function safecopy_4
	movl	(%rsi), %eax
	movl	%eax, (%rdi)
	xorl	%eax, %eax
	ret
end safecopy_4

function safecopy_8
	movq	(%rsi), %rax
	movq	%rax, (%rdi)
	xorl	%eax, %eax
	ret
end safecopy_8

function safecopy_bytes
	movq	%rdx, %rcx
	rep movsb
	xorl	%eax, %eax
	ret
end safecopy_bytes

function safecopy_add4
	lock xaddl %esi, (%rdi)
	movl	%esi, %esi
	movq	%rsi, (%rdx)
	xorl	%eax, %eax
	ret
end safecopy_add4

function safecopy_add8
	lock xaddq %rsi, (%rdi)
	movq	%rsi, (%rdx)
	xorl	%eax, %eax
	ret
end safecopy_add8

function safecopy_cas4
	movl	%esi, %eax
	lock cmpxchgl %edx, (%rdi)
	movl	%eax, %eax
	movq	%rax, (%rcx)
	xorl	%eax, %eax
	ret
end safecopy_cas4

function safecopy_cas8
	movq	%rsi, %rax
	lock cmpxchgq %rdx, (%rdi)
	movq	%rax, (%rcx)
	xorl	%eax, %eax
	ret
end safecopy_cas8

	.globl	safecopy_text_end
	.hidden	safecopy_text_end
safecopy_text_end:

function safecopy_fault
	movl	$-EFAULT, %eax
	ret
end safecopy_fault

/*
 * Handler entries, one a level (handlers.c), 16 bytes apart: the stack pointer as
 * the kernel or a chaining handler left it, and the level, go to handlers_common as
 * arguments 4 and 5.
 */
	.globl	handlers_enter
	.hidden	handlers_enter
	.type	handlers_enter, @function
	.balign	16
handlers_enter:
	.set	level, 0
	.rept	32
	.balign	16
	movq	%rsp, %rcx
	movl	$level, %r8d
	jmp	handlers_common
	.set	level, level + 1
	.endr
	.size	handlers_enter, . - handlers_enter

#endif
	.section .note.GNU-stack, "", @progbits
