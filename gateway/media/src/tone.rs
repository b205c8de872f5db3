//! Test signals, and how well they came through.

use std::f64::consts::TAU;

/// A sine of `hertz` with the given peak, at `rate` samples a second.
pub(crate) fn tone(rate: u32, hertz: f64, peak: f64, len: usize) -> Vec<i16> {
    let sample = |at: usize| peak * (TAU * hertz * at as f64 / f64::from(rate)).sin();
    (0..len).map(|at| round(sample(at))).collect()
}

/// How much louder the tone of `hertz` is than all else in `samples`, in dB: the tone is fitted in amplitude and phase.
pub(crate) fn snr(samples: &[i16], rate: u32, hertz: f64) -> f64 {
    let (sine, cosine) = fit(samples, rate, hertz);
    let (mut signal, mut noise) = (0.0, 0.0);
    for (at, sample) in samples.iter().enumerate() {
        let angle = TAU * hertz * at as f64 / f64::from(rate);
        let ideal = sine * angle.sin() + cosine * angle.cos();
        signal += ideal * ideal;
        noise += (f64::from(*sample) - ideal).powi(2);
    }
    10.0 * (signal / noise.max(f64::MIN_POSITIVE)).log10()
}

/// The peak of the tone of `hertz` in `samples`.
pub(crate) fn amplitude(samples: &[i16], rate: u32, hertz: f64) -> f64 {
    let (sine, cosine) = fit(samples, rate, hertz);
    sine.hypot(cosine)
}

fn fit(samples: &[i16], rate: u32, hertz: f64) -> (f64, f64) {
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (at, sample) in samples.iter().enumerate() {
        let angle = TAU * hertz * at as f64 / f64::from(rate);
        sine += f64::from(*sample) * angle.sin();
        cosine += f64::from(*sample) * angle.cos();
    }
    let scale = 2.0 / samples.len() as f64;
    (sine * scale, cosine * scale)
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
fn round(value: f64) -> i16 {
    value
        .round()
        .clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}
