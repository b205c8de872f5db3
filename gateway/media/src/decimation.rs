//! Sound at a sixth or a third of its rate: what the lower rate can't carry is filtered out first, or it would come back as noise.

use std::f64::consts::PI;
use std::sync::LazyLock;

use crate::opus::SAMPLES_MAX;

/// How many taps there are for each sample that is left out: two milliseconds of delay in all at 8,000 samples a second.
const TAPS_PER_STEP: usize = 32;
const STEP_MAX: usize = 6;
const TAPS_MAX: usize = TAPS_PER_STEP * STEP_MAX;

/// Which share of the lower band comes through: 3.6 kHz at 8,000 samples a second.
const CUTOFF: f64 = 0.96;

/// The shape of the window (Kaiser): what is to be left out is 55 dB softer.
const BETA: f64 = 5.0;

/// Products that are added up beside each other, as many as the processor takes at once.
const LANES: usize = 8;

static SIXTH: LazyLock<Vec<f32>> = LazyLock::new(|| taps(6));
static THIRD: LazyLock<Vec<f32>> = LazyLock::new(|| taps(3));

/// A filter that goes on from one packet to the next.
pub(crate) struct Decimator {
    step: usize,
    taps: &'static [f32],
    /// The last samples of before, and behind them those of the present packet.
    samples: Box<[f32; TAPS_MAX + SAMPLES_MAX]>,
}

impl Decimator {
    /// One that leaves every sixth or third sample; `None` for another `step`.
    pub(crate) fn new(step: usize) -> Option<Self> {
        let taps = match step {
            6 => &SIXTH[..],
            3 => &THIRD[..],
            _ => return None,
        };
        Some(Self {
            step,
            taps,
            samples: Box::new([0.0; TAPS_MAX + SAMPLES_MAX]),
        })
    }

    /// How many of these samples one is left of.
    pub(crate) fn step(&self) -> usize {
        self.step
    }

    /// Writes what is left of `samples`, at most [`SAMPLES_MAX`] and a multiple of the step; returns how many.
    pub(crate) fn fill(&mut self, samples: &[i16], out: &mut [i16]) -> usize {
        let history = self.taps.len();
        let end = history + samples.len().min(SAMPLES_MAX);
        for (to, sample) in self.samples[history..end].iter_mut().zip(samples) {
            *to = f32::from(*sample);
        }
        let starts = (self.step..=end - history).step_by(self.step);
        let mut made = 0;
        for (start, out) in starts.zip(out) {
            *out = rounded(sum(&self.samples[start..start + history], self.taps));
            made += 1;
        }
        self.samples.copy_within(end - history..end, 0);
        made
    }

    /// Another sound begins.
    pub(crate) fn reset(&mut self) {
        self.samples.fill(0.0);
    }
}

fn sum(samples: &[f32], taps: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    for (samples, taps) in samples.chunks_exact(LANES).zip(taps.chunks_exact(LANES)) {
        for (sum, (sample, tap)) in sums.iter_mut().zip(samples.iter().zip(taps)) {
            *sum += sample * tap;
        }
    }
    sums.iter().sum()
}

fn rounded(sample: f32) -> i16 {
    #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
    let sample = sample.round().clamp(-32_768.0, 32_767.0) as i16;
    sample
}

/// A windowed sine cardinal, which lets a constant pass as it is.
fn taps(step: usize) -> Vec<f32> {
    let len = step * TAPS_PER_STEP;
    let middle = (len - 1) as f64 / 2.0;
    let cutoff = CUTOFF / step as f64;
    let all: Vec<f64> = (0..len)
        .map(|at| {
            let from_middle = at as f64 - middle;
            let angle = PI * cutoff * from_middle;
            let share = from_middle / (middle + 0.5);
            // The middle lies between two taps.
            angle.sin() / angle * bessel(BETA * (1.0 - share * share).sqrt())
        })
        .collect();
    let sum: f64 = all.iter().sum();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a tap needs no more digits"
    )]
    let all = all.iter().map(|tap| (tap / sum) as f32).collect();
    all
}

/// The modified Bessel function of the first kind, of order zero.
fn bessel(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for number in 1..32 {
        term *= (x / (2.0 * f64::from(number))).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{amplitude, snr, tone};

    fn filtered(step: usize, hertz: f64) -> Vec<i16> {
        let mut decimator = Decimator::new(step).expect("a step");
        let mut heard = Vec::new();
        for packet in tone(48_000, hertz, 10_000.0, 48_000).chunks(960) {
            let mut out = [0; 960];
            let made = decimator.fill(packet, &mut out);
            assert_eq!(made, 960 / step);
            heard.extend_from_slice(&out[..made]);
        }
        heard.split_off(heard.len() / 4)
    }

    #[test]
    fn what_fits_comes_through_and_what_does_not_is_gone() {
        for (step, rate, lows, highs) in [
            (
                6,
                8_000,
                [300.0, 1_000.0, 3_400.0],
                [4_600.0, 7_000.0, 15_000.0],
            ),
            (
                3,
                16_000,
                [300.0, 3_400.0, 6_900.0],
                [9_100.0, 12_000.0, 15_000.0],
            ),
        ] {
            for hertz in lows {
                let heard = filtered(step, hertz);
                let peak = amplitude(&heard, rate, hertz);
                assert!((9_700.0..10_200.0).contains(&peak), "{hertz}: {peak}");
                assert!(snr(&heard, rate, hertz) > 50.0, "{hertz}");
            }
            for hertz in highs {
                let heard = filtered(step, hertz);
                let loudest = heard.iter().map(|sample| sample.abs()).max();
                assert!(loudest < Some(40), "{hertz}: {loudest:?}");
            }
        }
        assert!(Decimator::new(1).is_none());
    }

    #[test]
    fn packets_of_any_length_and_too_little_room_do_no_harm() {
        let mut decimator = Decimator::new(6).expect("a step");
        let mut out = [0; 960];
        assert_eq!(decimator.fill(&[], &mut out), 0);
        assert_eq!(decimator.fill(&[7; 120], &mut out[..3]), 3);
        assert_eq!(decimator.fill(&[i16::MIN; SAMPLES_MAX], &mut out), 960);
        decimator.reset();
        assert_eq!(decimator.fill(&[0; 960], &mut out), 160);
        assert_eq!(out[..160], [0; 160]);
    }
}
