//! An assembler of eBPF instructions (RFC 9669): methods append instructions, labels stand for
//! places, [`Assembler::finish`] resolves them.
//!
//! ```
//! use relay_xdp::asm::{Assembler, Cond, R0};
//!
//! let mut a = Assembler::new();
//! let end = a.label();
//! a.mov(R0, 1);
//! a.jump_if(R0, Cond::Eq, 1, end);
//! a.mov(R0, 2);
//! a.bind(end);
//! a.exit();
//! let listing = a.finish().unwrap().to_string();
//! assert!(listing.starts_with("   0: r0 = 1\n   1: if r0 == 1 goto 3\n"));
//! ```

use std::fmt;

/// A register. R0 holds results, R1 to R5 arguments, which a call clobbers; R6 to R9 live over
/// calls; R10 is the top of the stack, which has 512 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reg(u8);

/// What a call returned, and the verdict on exit.
pub const R0: Reg = Reg(0);
/// The first argument; the context on entry.
pub const R1: Reg = Reg(1);
/// The second argument.
pub const R2: Reg = Reg(2);
/// The third argument.
pub const R3: Reg = Reg(3);
/// The fourth argument.
pub const R4: Reg = Reg(4);
/// The fifth argument.
pub const R5: Reg = Reg(5);
/// Survives calls.
pub const R6: Reg = Reg(6);
/// Survives calls.
pub const R7: Reg = Reg(7);
/// Survives calls.
pub const R8: Reg = Reg(8);
/// Survives calls.
pub const R9: Reg = Reg(9);
/// The top of the stack, read-only; slots have negative offsets.
pub const R10: Reg = Reg(10);

/// The second operand of an instruction: a register, or a number that is sign-extended to 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// A register.
    Reg(Reg),
    /// A number.
    Imm(i32),
}

impl From<Reg> for Operand {
    fn from(reg: Reg) -> Operand {
        Operand::Reg(reg)
    }
}

impl From<i32> for Operand {
    fn from(imm: i32) -> Operand {
        Operand::Imm(imm)
    }
}

/// How much a load or store moves; what is loaded is zero-extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    U8 = 0x10,
    /// Two bytes.
    U16 = 0x08,
    /// Four bytes.
    U32 = 0x00,
    /// Eight bytes.
    U64 = 0x18,
}

/// What a conditional jump asks; comparisons are unsigned, over 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cond {
    /// Equal.
    Eq = 0x10,
    /// Greater.
    Gt = 0x20,
    /// Greater or equal.
    Ge = 0x30,
    /// Some bit in common.
    AnyBit = 0x40,
    /// Not equal.
    Ne = 0x50,
    /// Less.
    Lt = 0xa0,
    /// Less or equal.
    Le = 0xb0,
}

/// A function of the kernel, by its number in `linux/bpf.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// `void *bpf_map_lookup_elem(map, key)`
    MapLookup = 1,
    /// `long bpf_xdp_adjust_head(ctx, delta)`
    XdpAdjustHead = 44,
    /// `long bpf_redirect_map(map, key, flags)`
    RedirectMap = 51,
    /// `long bpf_fib_lookup(ctx, params, len, flags)`
    FibLookup = 69,
    /// `u64 bpf_ktime_get_coarse_ns()`
    KtimeGetCoarseNs = 160,
}

impl Helper {
    fn name(imm: i32) -> Option<&'static str> {
        const ALL: [(Helper, &str); 5] = [
            (Helper::MapLookup, "map_lookup_elem"),
            (Helper::XdpAdjustHead, "xdp_adjust_head"),
            (Helper::RedirectMap, "redirect_map"),
            (Helper::FibLookup, "fib_lookup"),
            (Helper::KtimeGetCoarseNs, "ktime_get_coarse_ns"),
        ];
        let (_, name) = ALL.iter().find(|(helper, _)| *helper as i32 == imm)?;
        Some(name)
    }
}

/// A place in the program, made by [`Assembler::label`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// A map the program speaks of by number; the loader puts its file descriptor in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapRef(pub i32);

/// One instruction of eight bytes, in the fields of RFC 9669 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Insn {
    code: u8,
    dst: u8,
    src: u8,
    off: i16,
    imm: i32,
}

const LD_IMM64: u8 = 0x18;
const LDX_MEM: u8 = 0x61;
const ST_MEM: u8 = 0x62;
const STX_MEM: u8 = 0x63;
const STX_ATOMIC: u8 = 0xc3;
const ALU64: u8 = 0x07;
const TO_BIG_ENDIAN: u8 = 0xdc;
const JUMP: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const FROM_REG: u8 = 0x08;
const ATOMIC_ADD: i32 = 0x00;
const ATOMIC_CMPXCHG: i32 = 0xf1;
/// The source "register" that says the number is a map's file descriptor.
const PSEUDO_MAP_FD: u8 = 1;
/// The same while the number is still a [`MapRef`]'s; no register.
const PSEUDO_MAP_REF: u8 = 15;

const CLASS_MASK: u8 = 0x07;
const OPERATION_MASK: u8 = 0xf0;
const WIDTH_MASK: u8 = 0x18;

/// The arithmetic used here, with its sign in a listing.
const ALU_SIGNS: [(u8, &str); 9] = [
    (0x00, "+="),
    (0x10, "-="),
    (0x20, "*="),
    (0x40, "|="),
    (0x50, "&="),
    (0x60, "<<="),
    (0x70, ">>="),
    (0xa0, "^="),
    (0xb0, "="),
];

const COND_SIGNS: [(u8, &str); 7] = [
    (Cond::Eq as u8, "=="),
    (Cond::Gt as u8, ">"),
    (Cond::Ge as u8, ">="),
    (Cond::AnyBit as u8, "&"),
    (Cond::Ne as u8, "!="),
    (Cond::Lt as u8, "<"),
    (Cond::Le as u8, "<="),
];

impl Insn {
    /// The instruction as a little-endian kernel reads it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        let [off0, off1] = self.off.to_le_bytes();
        let [imm0, imm1, imm2, imm3] = self.imm.to_le_bytes();
        let regs = self.src << 4 | self.dst;
        [self.code, regs, off0, off1, imm0, imm1, imm2, imm3]
    }
}

/// Why a program has no encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A jump goes to a label that was never bound.
    #[error("instruction {at} jumps to a label that stands nowhere")]
    Unbound {
        /// The jump's place.
        at: usize,
    },
    /// A jump is longer than 16 bits say.
    #[error("instruction {at} jumps too far")]
    TooFar {
        /// The jump's place.
        at: usize,
    },
}

/// A program under construction.
#[derive(Debug, Default)]
pub struct Assembler {
    insns: Vec<Insn>,
    /// Where each label stands, once bound.
    labels: Vec<Option<usize>>,
    /// Jumps and where they go.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// An empty program.
    #[must_use]
    pub fn new() -> Assembler {
        Assembler::default()
    }

    /// A new place that stands nowhere yet.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Says that `label` is here.
    pub fn bind(&mut self, label: Label) {
        debug_assert!(
            self.labels[label.0].is_none(),
            "a label stands in one place"
        );
        self.labels[label.0] = Some(self.insns.len());
    }

    /// `dst = value`
    pub fn mov(&mut self, dst: Reg, value: impl Into<Operand>) {
        self.alu(0xb0, dst, value.into());
    }

    /// `dst += value`
    pub fn add(&mut self, dst: Reg, value: impl Into<Operand>) {
        self.alu(0x00, dst, value.into());
    }

    /// `dst -= value`
    pub fn sub(&mut self, dst: Reg, value: impl Into<Operand>) {
        self.alu(0x10, dst, value.into());
    }

    /// `dst *= value`
    pub fn mul(&mut self, dst: Reg, value: impl Into<Operand>) {
        self.alu(0x20, dst, value.into());
    }

    /// `dst |= value`
    pub fn or(&mut self, dst: Reg, value: impl Into<Operand>) {
        self.alu(0x40, dst, value.into());
    }

    /// `dst &= value`
    pub fn and(&mut self, dst: Reg, value: impl Into<Operand>) {
        self.alu(0x50, dst, value.into());
    }

    /// `dst <<= value`
    pub fn shl(&mut self, dst: Reg, value: impl Into<Operand>) {
        self.alu(0x60, dst, value.into());
    }

    /// `dst >>= value`, unsigned
    pub fn shr(&mut self, dst: Reg, value: impl Into<Operand>) {
        self.alu(0x70, dst, value.into());
    }

    /// `dst ^= value`
    pub fn xor(&mut self, dst: Reg, value: impl Into<Operand>) {
        self.alu(0xa0, dst, value.into());
    }

    /// Turns the low 16 bits of `dst` from the machine's order into the network's, or back, and
    /// clears the others.
    pub fn swap16(&mut self, dst: Reg) {
        self.push(TO_BIG_ENDIAN, dst.0, 0, 0, 16);
    }

    /// `dst = *(src + off)`
    pub fn load(&mut self, width: Width, dst: Reg, src: Reg, off: i16) {
        self.push(LDX_MEM | width as u8, dst.0, src.0, off, 0);
    }

    /// `*(dst + off) = value`
    pub fn store(&mut self, width: Width, dst: Reg, off: i16, value: impl Into<Operand>) {
        match value.into() {
            Operand::Reg(src) => self.push(STX_MEM | width as u8, dst.0, src.0, off, 0),
            Operand::Imm(imm) => self.push(ST_MEM | width as u8, dst.0, 0, off, imm),
        }
    }

    /// `*(dst + off) += src`, 64 bits, atomically
    pub fn atomic_add(&mut self, dst: Reg, off: i16, src: Reg) {
        let code = STX_ATOMIC | Width::U64 as u8;
        self.push(code, dst.0, src.0, off, ATOMIC_ADD);
    }

    /// Where the 64 bits at `dst + off` are those of R0, puts `src` there, atomically. R0 becomes
    /// what was there before.
    pub fn atomic_compare_exchange(&mut self, dst: Reg, off: i16, src: Reg) {
        let code = STX_ATOMIC | Width::U64 as u8;
        self.push(code, dst.0, src.0, off, ATOMIC_CMPXCHG);
    }

    /// Goes on at `label`.
    pub fn jump(&mut self, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.push(JUMP, 0, 0, 0, 0);
    }

    /// Goes on at `label` where the comparison of `left` with `right` holds.
    pub fn jump_if(&mut self, left: Reg, cond: Cond, right: impl Into<Operand>, label: Label) {
        self.jumps.push((self.insns.len(), label));
        let code = JUMP | cond as u8;
        match right.into() {
            Operand::Reg(right) => self.push(code | FROM_REG, left.0, right.0, 0, 0),
            Operand::Imm(imm) => self.push(code, left.0, 0, 0, imm),
        }
    }

    /// `dst =` the map, as an argument of a helper
    pub fn load_map(&mut self, dst: Reg, map: MapRef) {
        self.push(LD_IMM64, dst.0, PSEUDO_MAP_REF, 0, map.0);
        self.push(0, 0, 0, 0, 0);
    }

    /// Calls `helper` with R1 to R5; R0 becomes its result.
    pub fn call(&mut self, helper: Helper) {
        self.push(CALL, 0, 0, 0, helper as i32);
    }

    /// Ends the program with the verdict in R0.
    pub fn exit(&mut self) {
        self.push(EXIT, 0, 0, 0, 0);
    }

    /// Resolves all labels.
    ///
    /// # Errors
    ///
    /// A jump to nowhere, or one too far for its 16 bits.
    pub fn finish(mut self) -> Result<Program, AssembleError> {
        for (at, label) in self.jumps {
            let target = self.labels[label.0].ok_or(AssembleError::Unbound { at })?;
            // A jump counts from the instruction behind it.
            let distance = target as i64 - at as i64 - 1;
            self.insns[at].off =
                i16::try_from(distance).map_err(|_| AssembleError::TooFar { at })?;
        }
        Ok(Program { insns: self.insns })
    }

    fn alu(&mut self, operation: u8, dst: Reg, value: Operand) {
        match value {
            Operand::Reg(src) => self.push(ALU64 | operation | FROM_REG, dst.0, src.0, 0, 0),
            Operand::Imm(imm) => self.push(ALU64 | operation, dst.0, 0, 0, imm),
        }
    }

    fn push(&mut self, code: u8, dst: u8, src: u8, off: i16, imm: i32) {
        self.insns.push(Insn {
            code,
            dst,
            src,
            off,
            imm,
        });
    }
}

/// A program whose jumps are resolved; its [`Display`](fmt::Display) is a listing, one numbered
/// line for each instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    insns: Vec<Insn>,
}

impl Program {
    /// How many instructions there are; a map takes two.
    #[must_use]
    pub fn len(&self) -> usize {
        self.insns.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.insns.is_empty()
    }

    /// The instructions as a little-endian kernel reads them, with `map_fd` telling each map's
    /// file descriptor.
    pub fn to_bytes(&self, map_fd: impl Fn(MapRef) -> i32) -> Vec<u8> {
        let relocated = |insn: &Insn| match (insn.code, insn.src) {
            (LD_IMM64, PSEUDO_MAP_REF) => Insn {
                src: PSEUDO_MAP_FD,
                imm: map_fd(MapRef(insn.imm)),
                ..*insn
            },
            _ => *insn,
        };
        self.insns
            .iter()
            .flat_map(|insn| relocated(insn).to_bytes())
            .collect()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, insn) in self.insns.iter().enumerate() {
            // The second half of a 64-bit number.
            if insn.code == 0 {
                continue;
            }
            write!(f, "{at:4}: ")?;
            insn.list(at, f)?;
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Insn {
    fn list(&self, at: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Insn {
            code,
            dst,
            src,
            off,
            imm,
        } = *self;
        let width = match code & WIDTH_MASK {
            0x10 => "u8",
            0x08 => "u16",
            0x00 => "u32",
            _ => "u64",
        };
        let target = at as i64 + 1 + i64::from(off);
        let right = match code & FROM_REG {
            0 => imm.to_string(),
            _ => format!("r{src}"),
        };
        let sign = |signs: &[(u8, &'static str)]| {
            let named = signs.iter().find(|(op, _)| *op == code & OPERATION_MASK);
            named.map_or("?", |(_, sign)| sign)
        };
        match code {
            LD_IMM64 => write!(f, "r{dst} = map {imm}"),
            TO_BIG_ENDIAN => write!(f, "r{dst} = be{imm} r{dst}"),
            JUMP => write!(f, "goto {target}"),
            EXIT => write!(f, "exit"),
            CALL => match Helper::name(imm) {
                Some(name) => write!(f, "call {name}"),
                None => write!(f, "call {imm}"),
            },
            _ => match code & !WIDTH_MASK {
                LDX_MEM => write!(f, "r{dst} = *({width} *)(r{src} {off:+})"),
                ST_MEM => write!(f, "*({width} *)(r{dst} {off:+}) = {imm}"),
                STX_MEM => write!(f, "*({width} *)(r{dst} {off:+}) = r{src}"),
                STX_ATOMIC if imm == ATOMIC_CMPXCHG => {
                    write!(f, "r0 = cmpxchg({width} *)(r{dst} {off:+}), r0, r{src}")
                }
                STX_ATOMIC => write!(f, "lock *({width} *)(r{dst} {off:+}) += r{src}"),
                _ if code & CLASS_MASK == JUMP => {
                    write!(f, "if r{dst} {} {right} goto {target}", sign(&COND_SIGNS))
                }
                _ => write!(f, "r{dst} {} {right}", sign(&ALU_SIGNS)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected bytes are put together by hand from the tables of RFC 9669 §3 to §5.
    #[test]
    fn every_instruction_has_the_encoding_of_its_standard() {
        let check = |write: &dyn Fn(&mut Assembler), listed: &str, expected: &str| {
            let mut a = Assembler::new();
            write(&mut a);
            let program = a.finish().unwrap();
            let bytes = program.to_bytes(|MapRef(number)| 0x100 + number);
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex.join(" "), expected, "{listed}");
            assert_eq!(program.to_string(), format!("   0: {listed}\n"));
        };

        check(&|a| a.mov(R0, 2), "r0 = 2", "b7 00 00 00 02 00 00 00");
        check(&|a| a.mov(R6, R1), "r6 = r1", "bf 16 00 00 00 00 00 00");
        check(&|a| a.add(R2, -16), "r2 += -16", "07 02 00 00 f0 ff ff ff");
        check(&|a| a.add(R2, R3), "r2 += r3", "0f 32 00 00 00 00 00 00");
        check(&|a| a.sub(R2, R3), "r2 -= r3", "1f 32 00 00 00 00 00 00");
        check(&|a| a.mul(R1, R4), "r1 *= r4", "2f 41 00 00 00 00 00 00");
        check(&|a| a.or(R1, R4), "r1 |= r4", "4f 41 00 00 00 00 00 00");
        check(&|a| a.and(R5, 255), "r5 &= 255", "57 05 00 00 ff 00 00 00");
        check(&|a| a.shl(R1, 32), "r1 <<= 32", "67 01 00 00 20 00 00 00");
        check(&|a| a.shr(R9, 16), "r9 >>= 16", "77 09 00 00 10 00 00 00");
        check(&|a| a.xor(R1, -1), "r1 ^= -1", "a7 01 00 00 ff ff ff ff");
        check(&|a| a.swap16(R1), "r1 = be16 r1", "dc 01 00 00 10 00 00 00");
        check(
            &|a| a.load(Width::U8, R0, R1, 9),
            "r0 = *(u8 *)(r1 +9)",
            "71 10 09 00 00 00 00 00",
        );
        check(
            &|a| a.load(Width::U16, R5, R1, 12),
            "r5 = *(u16 *)(r1 +12)",
            "69 15 0c 00 00 00 00 00",
        );
        check(
            &|a| a.load(Width::U32, R2, R1, 4),
            "r2 = *(u32 *)(r1 +4)",
            "61 12 04 00 00 00 00 00",
        );
        check(
            &|a| a.load(Width::U64, R1, R10, -8),
            "r1 = *(u64 *)(r10 -8)",
            "79 a1 f8 ff 00 00 00 00",
        );
        check(
            &|a| a.store(Width::U8, R7, 8, 69),
            "*(u8 *)(r7 +8) = 69",
            "72 07 08 00 45 00 00 00",
        );
        check(
            &|a| a.store(Width::U32, R10, -4, R1),
            "*(u32 *)(r10 -4) = r1",
            "63 1a fc ff 00 00 00 00",
        );
        check(
            &|a| a.store(Width::U64, R10, -8, R6),
            "*(u64 *)(r10 -8) = r6",
            "7b 6a f8 ff 00 00 00 00",
        );
        check(
            &|a| a.atomic_add(R9, 8, R1),
            "lock *(u64 *)(r9 +8) += r1",
            "db 19 08 00 00 00 00 00",
        );
        check(
            &|a| a.atomic_compare_exchange(R8, 0, R2),
            "r0 = cmpxchg(u64 *)(r8 +0), r0, r2",
            "db 28 00 00 f1 00 00 00",
        );
        check(
            &|a| a.call(Helper::MapLookup),
            "call map_lookup_elem",
            "85 00 00 00 01 00 00 00",
        );
        check(
            &|a| a.call(Helper::FibLookup),
            "call fib_lookup",
            "85 00 00 00 45 00 00 00",
        );
        check(
            &|a| a.load_map(R1, MapRef(3)),
            "r1 = map 3",
            "18 11 00 00 03 01 00 00 00 00 00 00 00 00 00 00",
        );
        check(&|a| a.exit(), "exit", "95 00 00 00 00 00 00 00");
    }

    #[test]
    fn jumps_count_from_the_instruction_behind_them() {
        let mut a = Assembler::new();
        let (start, end) = (a.label(), a.label());
        a.bind(start);
        a.jump_if(R1, Cond::Gt, R2, end);
        a.jump_if(R1, Cond::Ne, 7, start);
        a.load_map(R3, MapRef(0));
        a.jump(end);
        a.exit();
        a.bind(end);
        a.exit();

        let program = a.finish().unwrap();
        let jump = |at: usize| program.insns[at].to_bytes();
        assert_eq!(jump(0), [0x2d, 0x21, 5, 0, 0, 0, 0, 0]);
        assert_eq!(jump(1), [0x55, 0x01, 0xfe, 0xff, 7, 0, 0, 0]);
        assert_eq!(jump(4), [0x05, 0x00, 1, 0, 0, 0, 0, 0]);
        assert_eq!(
            program.to_string(),
            "   0: if r1 > r2 goto 6\n   1: if r1 != 7 goto 0\n   2: r3 = map 0\n   4: goto 6\n   \
             5: exit\n   6: exit\n"
        );
    }

    #[test]
    fn a_jump_to_nowhere_or_too_far_is_refused() {
        let mut a = Assembler::new();
        let nowhere = a.label();
        a.exit();
        a.jump(nowhere);
        assert_eq!(a.finish(), Err(AssembleError::Unbound { at: 1 }));

        let mut a = Assembler::new();
        let far = a.label();
        a.jump(far);
        for _ in 0..=i16::MAX {
            a.exit();
        }
        a.bind(far);
        assert_eq!(a.finish(), Err(AssembleError::TooFar { at: 0 }));
    }
}
