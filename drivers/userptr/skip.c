/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * skip - how long an instruction is that accesses memory; x86-64.
 *
 * After Intel's manual, volume 2, chapter 2 (prefixes, VEX, ModR/M, SIB) and appendix A (opcode
 * maps). What has no memory operand by ModR/M, or goes somewhere else (jumps, calls, the stack),
 * is 0: it cannot be left out.
 */
#include "skip.h"

#if defined(__x86_64__)

struct insn {
	const unsigned char *at; /* what has not been looked at yet */
	unsigned map;		 /* of the opcode: 0 one byte, 1 0F, 2 0F 38, 3 0F 3A */
	unsigned char opcode;
	bool short_imm; /* 66: an operand, and so an immediate, of 16 bits */
};

static bool is_prefix(unsigned char byte)
{
	static const unsigned char all[] = { 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e,
					     0x36, 0x3e, 0x26, 0x64, 0x65 };

	for (unsigned i = 0; i < sizeof(all); i++)
		if (byte == all[i])
			return true;
	return false;
}

static void take_legacy_opcode(struct insn *in)
{
	if (*in->at == 0x0f) {
		in->map = 1;
		in->at++;
		if (*in->at == 0x38 || *in->at == 0x3a) {
			in->map = *in->at == 0x38 ? 2 : 3;
			in->at++;
		}
	}
	in->opcode = *in->at++;
}

static void take_opcode(struct insn *in)
{
	while (is_prefix(*in->at)) {
		in->short_imm |= *in->at == 0x66;
		in->at++;
	}
	switch (*in->at) {
	case 0xc5: /* VEX of two bytes: map 1 */
		in->map = 1;
		in->opcode = in->at[2];
		in->at += 3;
		return;
	case 0xc4: /* VEX of three */
		in->map = in->at[1] & 0x1f;
		in->opcode = in->at[3];
		in->at += 4;
		return;
	case 0x62: /* EVEX */
		in->map = in->at[1] & 7;
		in->opcode = in->at[4];
		in->at += 5;
		return;
	default:
		break;
	}
	if ((*in->at & 0xf0) == 0x40) /* REX; with W the immediate is of 32 bits again */
		in->short_imm &= !(*in->at++ & 8);
	take_legacy_opcode(in);
}

/* ModR/M, SIB and displacement; 0: no memory. */
static unsigned operand_length(const unsigned char *at)
{
	unsigned mod = at[0] >> 6, rm = at[0] & 7, length = 1;

	if (mod == 3)
		return 0;
	if (rm == 4) {
		length++;
		if (!mod && (at[1] & 7) == 5)
			length += 4;
	} else if (!mod && rm == 5) {
		length += 4;
	}
	return length + (mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

/* Bytes of the immediate; -1: not an instruction to be left out. */
static int one_byte_map(const struct insn *in)
{
	unsigned char op = in->opcode, reg = *in->at >> 3 & 7;
	int wide = in->short_imm ? 2 : 4;

	if (op < 0x40)
		return (op & 7) < 4 ? 0 : -1;
	switch (op) {
	case 0x63:
	case 0x84 ... 0x8b:
	case 0xd0 ... 0xd3:
	case 0xd8 ... 0xdf:
		return 0;
	case 0x6b:
	case 0x80:
	case 0x83:
	case 0xc0:
	case 0xc1:
	case 0xc6:
		return 1;
	case 0x69:
	case 0x81:
	case 0xc7:
		return wide;
	case 0xf6:
		return reg < 2 ? 1 : 0;
	case 0xf7:
		return reg < 2 ? wide : 0;
	case 0xfe:
	case 0xff:
		return reg < 2 ? 0 : -1;
	default:
		return -1;
	}
}

static int two_byte_map(unsigned char op)
{
	switch (op) {
	case 0x70 ... 0x73:
	case 0xa4:
	case 0xac:
	case 0xba:
	case 0xc2:
	case 0xc4 ... 0xc6:
		return 1;
	case 0x10 ... 0x18:
	case 0x28 ... 0x2f:
	case 0x40 ... 0x6f:
	case 0x74 ... 0x76:
	case 0x78 ... 0x7f:
	case 0x90 ... 0x9f:
	case 0xa3:
	case 0xa5:
	case 0xab:
	case 0xad:
	case 0xaf ... 0xb1:
	case 0xb3:
	case 0xb6 ... 0xb8:
	case 0xbb ... 0xc1:
	case 0xc3:
	case 0xc7:
	case 0xd0 ... 0xff:
		return 0;
	default:
		return -1;
	}
}

/* Strings have their addresses in registers: no ModR/M. With rep all of it is left out. */
static bool is_string(const struct insn *in)
{
	return !in->map && (in->opcode == 0xa4 || in->opcode == 0xa5 || in->opcode == 0xaa ||
			    in->opcode == 0xab);
}

unsigned userptr_skip(const unsigned char *code)
{
	struct insn in = { .at = code };
	unsigned operand;
	int imm;

	take_opcode(&in);
	if (is_string(&in))
		return (unsigned)(in.at - code);
	imm = in.map == 0   ? one_byte_map(&in)
	      : in.map == 1 ? two_byte_map(in.opcode)
	      : in.map == 2 ? 0
	      : in.map == 3 ? 1
			    : -1;
	operand = operand_length(in.at);
	if (imm < 0 || !operand)
		return 0;
	return (unsigned)(in.at - code) + operand + (unsigned)imm;
}

#else

unsigned userptr_skip(const unsigned char *code)
{
	return 0;
}

#endif
