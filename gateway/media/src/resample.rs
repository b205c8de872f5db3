//! Sound at another rate: a filter of a windowed sine cardinal, a set of taps for each phase.
//!
//! What is at hand whole is read at any place without a memory of its own, so that one clip plays for many Legs, each at its rate.
//! Up to 85 % of the narrower band comes through unchanged: the 3.4 kHz of a phone call.

use std::f64::consts::PI;
use std::sync::LazyLock;

/// How many zeros of the sine cardinal stand on each side.
const ZEROS: usize = 16;

/// The shape of the window (Kaiser): about 80 dB of what is to be left out.
const BETA: f64 = 8.0;

/// The most taps of a filter between rates of [`PLAYED`].
pub(crate) const TAPS_MAX: usize = 2 * ZEROS * 6;

/// The rates of Legs; filters between any two of them are there from the beginning.
const PLAYED: [u32; 3] = [8_000, 16_000, 48_000];

static FILTERS: LazyLock<Vec<Filter>> = LazyLock::new(|| {
    let pairs = PLAYED
        .iter()
        .flat_map(|from| PLAYED.iter().map(move |to| (*from, *to)));
    pairs
        .filter(|(from, to)| from != to)
        .map(|(from, to)| Filter::new(from, to))
        .collect()
});

/// The filter between two rates of Legs; `None` where none is needed or the rates are others. Making them is for other threads than those
/// of the media: see [`prepare`].
pub(crate) fn between(from: u32, to: u32) -> Option<&'static Filter> {
    FILTERS
        .iter()
        .find(|filter| (filter.from, filter.to) == (from, to))
}

/// Makes the filters between the rates of Legs, once.
pub(crate) fn prepare() {
    LazyLock::force(&FILTERS);
}

/// A way from one rate to another.
#[derive(Debug)]
pub(crate) struct Filter {
    from: u32,
    to: u32,
    /// The rates, without what they have in common.
    down: u64,
    up: u64,
    taps: usize,
    /// For each phase its taps.
    coefficients: Vec<f32>,
}

impl Filter {
    /// A filter from `from` to `to` samples a second, neither of them 0.
    pub(crate) fn new(from: u32, to: u32) -> Self {
        let common = divisor(from, to);
        let (down, up) = (u64::from(from / common), u64::from(to / common));
        // In cycles of the input: the narrower of both bands.
        let cutoff = 0.5 * (f64::from(to) / f64::from(from)).min(1.0);
        let half = (ZEROS as f64 / (2.0 * cutoff)).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most some hundreds"
        )]
        let taps = 2 * half as usize;
        let phases = usize::try_from(up).unwrap_or(1);
        let mut coefficients = Vec::with_capacity(phases * taps);
        for phase in 0..phases {
            let offset = phase as f64 / up as f64;
            let at = |tap: usize| tap as f64 - (half - 1.0) - offset;
            let of = (0..taps).map(|tap| kernel(at(tap), cutoff, half));
            let row: Vec<f64> = of.collect();
            // Each phase lets a constant pass as it is.
            let sum: f64 = row.iter().sum();
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a tap needs no more digits"
            )]
            coefficients.extend(row.iter().map(|tap| (tap / sum) as f32));
        }
        Self {
            from,
            to,
            down,
            up,
            taps,
            coefficients,
        }
    }

    /// How many samples of the input one sample of the output looks at; half of them come before it.
    pub(crate) fn taps(&self) -> usize {
        self.taps
    }

    /// How many samples `len` of the input become.
    pub(crate) fn len_of(&self, len: usize) -> usize {
        let len = len as u64 * self.up / self.down;
        usize::try_from(len).unwrap_or(usize::MAX)
    }

    /// Writes the samples of the output from the `at`th on. What is beyond the ends of `samples` is silence.
    pub(crate) fn fill(&self, samples: &[i16], at: usize, out: &mut [i16]) {
        let mut position = at as u64 * self.down;
        for out in out {
            let (base, phase) = (position / self.up, position % self.up);
            position += self.down;
            let first = usize::try_from(phase).unwrap_or(0) * self.taps;
            let taps = &self.coefficients[first..first + self.taps];
            let base = usize::try_from(base).unwrap_or(usize::MAX);
            *out = round(sum(samples, base, taps));
        }
    }

    /// All of it at the other rate.
    pub(crate) fn all(&self, samples: &[i16]) -> Vec<i16> {
        let mut out = vec![0; self.len_of(samples.len())];
        self.fill(samples, 0, &mut out);
        out
    }
}

/// What the taps make of the samples around `base`.
fn sum(samples: &[i16], base: usize, taps: &[f32]) -> f32 {
    let before = taps.len() / 2 - 1;
    let skipped = before.saturating_sub(base);
    let from = (base + skipped).saturating_sub(before).min(samples.len());
    let heard = samples[from..].iter().zip(&taps[skipped..]);
    heard.map(|(sample, tap)| f32::from(*sample) * tap).sum()
}

fn kernel(at: f64, cutoff: f64, half: f64) -> f64 {
    let angle = 2.0 * PI * cutoff * at;
    let sinc = if angle.abs() < 1e-9 {
        1.0
    } else {
        angle.sin() / angle
    };
    let place = (at / half).clamp(-1.0, 1.0);
    sinc * bessel(BETA * (1.0 - place * place).sqrt()) / bessel(BETA)
}

/// The modified Bessel function of the first kind and order 0, by its series.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for n in 1..40 {
        term *= (x / (2.0 * f64::from(n))).powi(2);
        sum += term;
    }
    sum
}

fn divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { divisor(b, a % b) }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
fn round(value: f32) -> i16 {
    value
        .round()
        .clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{amplitude, snr, tone};

    fn len(rate: u32) -> usize {
        usize::try_from(rate).unwrap()
    }

    #[test]
    fn a_tone_keeps_its_pitch_and_has_no_noise_at_any_rate() {
        for from in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000] {
            for to in PLAYED {
                if from == to {
                    continue;
                }
                let filter = Filter::new(from, to);
                for hertz in [300.0, 1_000.0, 3_300.0] {
                    let out = filter.all(&tone(from, hertz, 10_000.0, len(from)));
                    assert!(len(to).abs_diff(out.len()) <= 1, "{from} to {to}");
                    // Its beginning and end are cut off sharply, which is no tone.
                    let inner = &out[len(to) / 10..len(to) * 9 / 10];
                    let snr = snr(inner, to, hertz);
                    assert!(snr > 60.0, "{hertz} Hz from {from} to {to}: {snr} dB");
                    let peak = amplitude(inner, to, hertz);
                    assert!((9_900.0..10_100.0).contains(&peak), "{hertz} Hz: {peak}");
                }
            }
        }
    }

    #[test]
    fn what_the_narrower_band_has_no_place_for_is_left_out() {
        let out = Filter::new(48_000, 16_000).all(&tone(48_000, 12_000.0, 10_000.0, 48_000));
        assert!(crate::level(&out[1_000..15_000]) > 70);
        let out = between(16_000, 8_000)
            .unwrap()
            .all(&tone(16_000, 6_000.0, 10_000.0, 16_000));
        assert!(crate::level(&out[1_000..7_000]) > 70);
    }

    #[test]
    fn any_place_reads_the_same_as_the_whole() {
        let samples = tone(16_000, 700.0, 9_000.0, 4_000);
        for to in [8_000, 48_000] {
            let filter = between(16_000, to).unwrap();
            assert!(filter.taps() <= TAPS_MAX);
            let whole = filter.all(&samples);
            let mut pieces = vec![0; whole.len()];
            let mut at = 0;
            for piece in pieces.chunks_mut(77) {
                filter.fill(&samples, at, piece);
                at += piece.len();
            }
            assert_eq!(pieces, whole);
            let mut beyond = [1; 5];
            filter.fill(&samples, usize::MAX / 1_000, &mut beyond);
            assert_eq!(beyond, [0; 5]);
        }
    }
}
