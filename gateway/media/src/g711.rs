//! G.711: 8,000 samples a second, a byte each.

/// Which of the two laws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Law {
    /// µ-law (PCMU): North America, Japan.
    Mu,
    /// A-law (PCMA): elsewhere.
    A,
}

impl Law {
    /// The byte of silence.
    #[must_use]
    pub fn silence(self) -> u8 {
        match self {
            Self::Mu => 0xff,
            Self::A => 0xd5,
        }
    }

    /// Codes as many samples as there is room for in `bytes`; returns how many.
    pub fn encode(self, samples: &[i16], bytes: &mut [u8]) -> usize {
        let encode = match self {
            Self::Mu => encode_mu,
            Self::A => encode_a,
        };
        bytes
            .iter_mut()
            .zip(samples)
            .map(|(byte, sample)| *byte = encode(*sample))
            .count()
    }

    /// Reads as many bytes as there is room for in `samples`; returns how many.
    pub fn decode(self, bytes: &[u8], samples: &mut [i16]) -> usize {
        let table = match self {
            Self::Mu => &MU_TABLE,
            Self::A => &A_TABLE,
        };
        samples
            .iter_mut()
            .zip(bytes)
            .map(|(sample, byte)| *sample = table[usize::from(*byte)])
            .count()
    }
}

static MU_TABLE: [i16; 256] = table(true);
static A_TABLE: [i16; 256] = table(false);

const fn table(mu: bool) -> [i16; 256] {
    let mut table = [0; 256];
    let mut byte: u8 = 0;
    loop {
        table[byte as usize] = if mu { decode_mu(byte) } else { decode_a(byte) };
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

/// What µ-law adds so that all segments begin at a power of two.
const MU_BIAS: i16 = 0x84;
const MU_CLIP: i16 = 32_635;

const fn decode_mu(byte: u8) -> i16 {
    let byte = !byte;
    let (segment, step) = ((byte >> 4) & 7, (byte & 15) as i16);
    let magnitude = (((step << 3) + MU_BIAS) << segment) - MU_BIAS;
    if byte & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

fn encode_mu(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    // The magnitude of the lowest sample has no place in 16 bits; it is clipped in any case.
    let magnitude = sample.saturating_abs().min(MU_CLIP) + MU_BIAS;
    let segment = (magnitude >> 7).ilog2();
    let step = (magnitude >> (segment + 3)) & 15;
    !(sign | low_byte(segment) << 4 | low_byte(u32::from(step.unsigned_abs())))
}

const fn decode_a(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (segment, step) = ((byte >> 4) & 7, ((byte & 15) as i16) << 4);
    let magnitude = match segment {
        0 => step + 8,
        _ => (step + 0x108) << (segment - 1),
    };
    if byte & 0x80 == 0 {
        -magnitude
    } else {
        magnitude
    }
}

fn encode_a(sample: i16) -> u8 {
    let (mask, magnitude) = if sample < 0 {
        (0x55, !sample)
    } else {
        (0xd5, sample)
    };
    let magnitude = u32::from(magnitude.unsigned_abs()) >> 3;
    let segment = if magnitude < 32 {
        0
    } else {
        magnitude.ilog2() - 4
    };
    let step = magnitude >> segment.max(1) & 15;
    (low_byte(segment) << 4 | low_byte(step)) ^ mask
}

/// Segments have three bits and steps four.
fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{snr, tone};

    const LAWS: [Law; 2] = [Law::Mu, Law::A];

    fn round_trip(law: Law, samples: &[i16]) -> Vec<i16> {
        let (mut bytes, mut out) = (vec![0; samples.len()], vec![0; samples.len()]);
        assert_eq!(law.encode(samples, &mut bytes), samples.len());
        assert_eq!(law.decode(&bytes, &mut out), samples.len());
        out
    }

    #[test]
    fn every_byte_is_the_code_of_what_it_stands_for() {
        for law in LAWS {
            for byte in 0..=255 {
                let mut sample = [0];
                law.decode(&[byte], &mut sample);
                let mut again = [0];
                law.encode(&sample, &mut again);
                // µ-law has two zeros.
                let expected = if law == Law::Mu && byte == 0x7f {
                    0xff
                } else {
                    byte
                };
                assert_eq!(again, [expected], "{law:?} {byte}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_scale_are_those_of_g_711() {
        let decode = |law: Law, byte| {
            let mut sample = [0];
            law.decode(&[byte], &mut sample);
            sample[0]
        };
        assert_eq!(
            [0x00, 0x80, 0xff, 0x7f].map(|byte| decode(Law::Mu, byte)),
            [-32_124, 32_124, 0, 0]
        );
        assert_eq!(
            [0x2a, 0xaa, 0xd5, 0x55].map(|byte| decode(Law::A, byte)),
            [-32_256, 32_256, 8, -8]
        );
    }

    #[test]
    fn each_sample_becomes_the_nearest_there_is_or_its_neighbour() {
        for law in LAWS {
            for sample in (i16::MIN..=i16::MAX).step_by(7) {
                let out = i32::from(round_trip(law, &[sample])[0]);
                let off = (out - i32::from(sample)).abs();
                let step = (i32::from(sample).abs() / 16).max(16);
                assert!(off <= step, "{law:?} {sample} became {out}");
            }
        }
    }

    #[test]
    fn a_tone_comes_through_with_the_noise_of_the_code_alone() {
        for law in LAWS {
            let out = round_trip(law, &tone(8_000, 1_004.0, 10_000.0, 8_000));
            let snr = snr(&out, 8_000, 1_004.0);
            assert!(snr >= 35.0, "{law:?}: {snr} dB");
        }
    }
}
