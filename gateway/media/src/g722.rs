//! G.722 at 64 kbit/s: 16,000 samples a second, a byte for two (ITU-T G.722).
//!
//! ```text
//! samples ─▶ QMF ─┬─ low band  ─▶ ADPCM, 6 bits ─┬─▶ byte
//!                 └─ high band ─▶ ADPCM, 2 bits ─┘
//! ```
//!
//! Names are those of the recommendation: `det` is the step, `nb` its logarithm, `s` what the predictor expects.

mod tables;

use tables::{
    HIGH_BITS, HIGH_LOG_MAX, HIGH_QUANT, HIGH_STEP, HIGH_THRESHOLD, ILB, LOW_DECIDE, LOW_FINE,
    LOW_LOG_MAX, LOW_NEGATIVE, LOW_POSITIVE, LOW_QUANT, LOW_STEP, QMF, RH2, RL42,
};

/// The state of a coder.
#[derive(Debug, Clone)]
pub struct Encoder {
    low: Band,
    high: Band,
    history: [i32; 24],
}

/// The state of a reader.
#[derive(Debug, Clone)]
pub struct Decoder {
    low: Band,
    high: Band,
    history: [i32; 24],
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            low: Band::new(32),
            high: Band::new(8),
            history: [0; 24],
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            low: Band::new(32),
            high: Band::new(8),
            history: [0; 24],
        }
    }
}

impl Encoder {
    /// Codes pairs of samples, as many as there are and as there is room for in `bytes`; returns the number of bytes.
    pub fn encode(&mut self, samples: &[i16], bytes: &mut [u8]) -> usize {
        let pairs = samples.chunks_exact(2);
        bytes
            .iter_mut()
            .zip(pairs)
            .map(|(byte, pair)| *byte = self.encode_pair(pair[0], pair[1]))
            .count()
    }

    fn encode_pair(&mut self, first: i16, second: i16) -> u8 {
        shift_in(&mut self.history, i32::from(first), i32::from(second));
        let (odd, even) = filter(&self.history);
        let (low, high) = ((even + odd) >> 14, (even - odd) >> 14);

        let error = saturate(low - self.low.s);
        let magnitude = if error < 0 { !error } else { error };
        let beyond = |level: &i32| magnitude < (level * self.low.det) >> 12;
        let at = LOW_DECIDE
            .iter()
            .position(beyond)
            .unwrap_or(LOW_DECIDE.len())
            + 1;
        let low_code = if error < 0 {
            LOW_NEGATIVE[at]
        } else {
            LOW_POSITIVE[at]
        };
        self.low.step_low(low_code);

        let error = saturate(high - self.high.s);
        let magnitude = if error < 0 { !error } else { error };
        let outer = magnitude >= (HIGH_THRESHOLD * self.high.det) >> 12;
        let high_code = HIGH_BITS[usize::from(error >= 0)][usize::from(outer)];
        self.high.step_high(high_code);
        high_code << 6 | low_code
    }
}

impl Decoder {
    /// Reads bytes, as many as there is room for in `samples`; returns the number of samples, two for a byte.
    pub fn decode(&mut self, bytes: &[u8], samples: &mut [i16]) -> usize {
        let pairs = samples.chunks_exact_mut(2).zip(bytes);
        pairs
            .map(|(pair, byte)| pair.copy_from_slice(&self.decode_pair(*byte)))
            .count()
            * 2
    }

    fn decode_pair(&mut self, byte: u8) -> [i16; 2] {
        let (low_code, high_code) = (byte & 63, byte >> 6);
        let fine = (self.low.det * LOW_FINE[usize::from(low_code)]) >> 15;
        let low = (self.low.s + fine).clamp(-16_384, 16_383);
        self.low.step_low(low_code);
        let difference = self.high.difference(HIGH_QUANT[usize::from(high_code)]);
        let high = (difference + self.high.s).clamp(-16_384, 16_383);
        self.high.step_high(high_code);

        shift_in(&mut self.history, low + high, low - high);
        let (odd, even) = filter(&self.history);
        [even >> 11, odd >> 11].map(sample)
    }
}

/// The ADPCM of one band.
#[derive(Debug, Clone)]
struct Band {
    det: i32,
    nb: i32,
    s: i32,
    sz: i32,
    /// Reconstructed signal, partially reconstructed signal and the coefficients of the poles; `[0]` is the newest.
    r: [i32; 3],
    p: [i32; 3],
    a: [i32; 3],
    /// Differences and the coefficients of the zeros.
    d: [i32; 7],
    b: [i32; 7],
}

impl Band {
    fn new(det: i32) -> Self {
        Self {
            det,
            nb: 0,
            s: 0,
            sz: 0,
            r: [0; 3],
            p: [0; 3],
            a: [0; 3],
            d: [0; 7],
            b: [0; 7],
        }
    }

    fn difference(&self, quant: i32) -> i32 {
        (self.det * quant) >> 15
    }

    /// The predictor follows the four upper bits alone: the lower two may be taken for data on the way.
    fn step_low(&mut self, code: u8) {
        let coarse = usize::from(code >> 2);
        let difference = self.difference(LOW_QUANT[coarse]);
        self.scale(LOW_STEP[usize::from(RL42[coarse])], LOW_LOG_MAX, 8);
        self.predict(difference);
    }

    fn step_high(&mut self, code: u8) {
        let code = usize::from(code);
        let difference = self.difference(HIGH_QUANT[code]);
        self.scale(HIGH_STEP[usize::from(RH2[code])], HIGH_LOG_MAX, 10);
        self.predict(difference);
    }

    /// Blocks LOGSCL, SCALEL and their like of the high band: the step follows what it was good for.
    fn scale(&mut self, step: i32, log_max: i32, shift: i32) {
        self.nb = (((self.nb * 127) >> 7) + step).clamp(0, log_max);
        let mantissa = ILB[usize::try_from((self.nb >> 6) & 31).unwrap_or(0)];
        let exponent = shift - (self.nb >> 11);
        self.det = if exponent < 0 {
            mantissa << -exponent
        } else {
            mantissa >> exponent
        } << 2;
    }

    /// Block 4: the predictor learns from the difference and says what it expects next.
    fn predict(&mut self, difference: i32) {
        self.d[0] = difference;
        self.r[0] = saturate(self.s + difference);
        self.p[0] = saturate(self.sz + difference);

        // UPPOL2
        let agrees = |at: usize| (self.p[0] < 0) == (self.p[at] < 0);
        let pull = saturate(self.a[1] << 2);
        let pull = if agrees(1) { -pull } else { pull }.min(32_767);
        let step = (pull >> 7) + if agrees(2) { 128 } else { -128 };
        let second = (step + ((self.a[2] * 32_512) >> 15)).clamp(-12_288, 12_288);
        // UPPOL1
        let step = if agrees(1) { 192 } else { -192 };
        let bound = saturate(15_360 - second);
        let first = saturate(step + ((self.a[1] * 32_640) >> 15)).clamp(-bound, bound);
        // UPZERO
        let gain = if difference == 0 { 0 } else { 128 };
        for at in 1..7 {
            let step = if (self.d[at] < 0) == (difference < 0) {
                gain
            } else {
                -gain
            };
            self.b[at] = saturate(step + ((self.b[at] * 32_640) >> 15));
        }
        // DELAYA
        self.d.copy_within(0..6, 1);
        self.r.copy_within(0..2, 1);
        self.p.copy_within(0..2, 1);
        (self.a[1], self.a[2]) = (first, second);
        // FILTEP, FILTEZ, PREDIC
        let pole = |at: usize| (self.a[at] * saturate(self.r[at] * 2)) >> 15;
        let poles = saturate(pole(1) + pole(2));
        let zeros: i32 = (1..7)
            .map(|at| (self.b[at] * saturate(self.d[at] * 2)) >> 15)
            .sum();
        self.sz = saturate(zeros);
        self.s = saturate(poles + self.sz);
    }
}

fn shift_in(history: &mut [i32; 24], first: i32, second: i32) {
    history.copy_within(2.., 0);
    (history[22], history[23]) = (first, second);
}

/// Both halves of the quadrature mirror filter.
fn filter(history: &[i32; 24]) -> (i32, i32) {
    let (mut odd, mut even) = (0, 0);
    for (at, pair) in history.chunks_exact(2).enumerate() {
        odd += pair[0] * QMF[at];
        even += pair[1] * QMF[11 - at];
    }
    (odd, even)
}

fn saturate(value: i32) -> i32 {
    value.clamp(-32_768, 32_767)
}

#[expect(clippy::cast_possible_truncation, reason = "saturated to what fits")]
fn sample(value: i32) -> i16 {
    saturate(value) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{amplitude, snr, tone};

    fn round_trip(samples: &[i16]) -> Vec<i16> {
        let (mut bytes, mut out) = (vec![0; samples.len() / 2], vec![0; samples.len()]);
        assert_eq!(
            Encoder::default().encode(samples, &mut bytes),
            samples.len() / 2
        );
        assert_eq!(Decoder::default().decode(&bytes, &mut out), samples.len());
        out
    }

    #[test]
    fn tones_of_both_bands_come_through() {
        for (hertz, least) in [
            (300.0, 35.0),
            (1_000.0, 35.0),
            (3_000.0, 30.0),
            (6_000.0, 12.0),
        ] {
            let out = round_trip(&tone(16_000, hertz, 8_000.0, 16_000));
            let settled = &out[1_600..];
            let got = snr(settled, 16_000, hertz);
            assert!(got >= least, "{hertz} Hz: {got} dB");
            let peak = amplitude(settled, 16_000, hertz);
            assert!((7_000.0..9_000.0).contains(&peak), "{hertz} Hz: {peak}");
        }
    }

    #[test]
    fn silence_stays_silent_and_the_loudest_does_not_wrap() {
        assert!(
            round_trip(&[0; 1_600])
                .iter()
                .all(|sample| sample.abs() < 32)
        );
        let square: Vec<i16> = (0..16_000)
            .map(|at| if at / 20 % 2 == 0 { i16::MAX } else { i16::MIN })
            .collect();
        let out = round_trip(&square);
        // The filters take 22 samples.
        let wrong = out[1_022..]
            .iter()
            .zip(&square[1_000..])
            .filter(|(out, sample)| (**out < 0) != (**sample < 0));
        assert!(wrong.count() < 1_600);
    }

    #[test]
    fn any_bytes_are_sound() {
        let bytes: Vec<u8> = (0..40_000_u32)
            .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect();
        let mut out = vec![0; bytes.len() * 2];
        assert_eq!(Decoder::default().decode(&bytes, &mut out), out.len());
        assert_eq!(Decoder::default().decode(&bytes, &mut [0; 3]), 2);
    }
}
