//! The tables of ITU-T G.722.

/// The filter between full band and half bands, one half of it (table 11).
pub(super) const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3_876, -805, 362, -156, 53, -11];

/// Above which multiple of the step a difference of the low band gets the next code (table 14).
pub(super) const LOW_DECIDE: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1_023,
    1_121, 1_219, 1_339, 1_458, 1_612, 1_765, 1_980, 2_195, 2_557, 2_919,
];
/// The codes of negative differences, by how many levels they are beyond, from 1 (table 14).
pub(super) const LOW_NEGATIVE: [u8; 31] = [
    0, 63, 62, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11,
    10, 9, 8, 7, 6, 5, 4,
];
/// The codes of the others.
pub(super) const LOW_POSITIVE: [u8; 31] = [
    0, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39,
    38, 37, 36, 35, 34, 33, 32,
];
/// What four bits of the low band stand for, in steps of 2^-15 (table 15).
pub(super) const LOW_QUANT: [i32; 16] = [
    0, -20_456, -12_896, -8_968, -6_288, -4_240, -2_584, -1_200, 20_456, 12_896, 8_968, 6_288,
    4_240, 2_584, 1_200, 0,
];
/// What six bits stand for.
pub(super) const LOW_FINE: [i32; 64] = [
    -136, -136, -136, -136, -24_808, -21_904, -19_008, -16_704, -14_984, -13_512, -12_280, -11_192,
    -10_232, -9_360, -8_576, -7_856, -7_192, -6_576, -6_000, -5_456, -4_944, -4_464, -4_008,
    -3_576, -3_168, -2_776, -2_400, -2_032, -1_688, -1_360, -1_040, -728, 24_808, 21_904, 19_008,
    16_704, 14_984, 13_512, 12_280, 11_192, 10_232, 9_360, 8_576, 7_856, 7_192, 6_576, 6_000,
    5_456, 4_944, 4_464, 4_008, 3_576, 3_168, 2_776, 2_400, 2_032, 1_688, 1_360, 1_040, 728, 432,
    136, -432, -136,
];
/// How a code moves the logarithm of the step of the low band, and which of these a code is.
pub(super) const LOW_STEP: [i32; 8] = [-60, -30, 58, 172, 334, 538, 1_198, 3_042];
pub(super) const RL42: [u8; 16] = [0, 7, 6, 5, 4, 3, 2, 1, 7, 6, 5, 4, 3, 2, 1, 0];
pub(super) const LOW_LOG_MAX: i32 = 18_432;

/// Above which multiple of the step a difference of the high band is an outer one.
pub(super) const HIGH_THRESHOLD: i32 = 564;
/// The codes of the high band: negative and positive, inner and outer.
pub(super) const HIGH_BITS: [[u8; 2]; 2] = [[1, 0], [3, 2]];
pub(super) const HIGH_QUANT: [i32; 4] = [-7_408, -1_616, 7_408, 1_616];
pub(super) const HIGH_STEP: [i32; 3] = [0, -214, 798];
pub(super) const RH2: [u8; 4] = [2, 1, 2, 1];
pub(super) const HIGH_LOG_MAX: i32 = 22_528;

/// Powers of two between 2^11 and 2^12 (table 16).
pub(super) const ILB: [i32; 32] = [
    2_048, 2_093, 2_139, 2_186, 2_233, 2_282, 2_332, 2_383, 2_435, 2_489, 2_543, 2_599, 2_656,
    2_714, 2_774, 2_834, 2_896, 2_960, 3_025, 3_091, 3_158, 3_228, 3_298, 3_371, 3_444, 3_520,
    3_597, 3_676, 3_756, 3_838, 3_922, 4_008,
];
