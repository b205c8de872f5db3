//! Sound in place of packets that were lost.
//!
//! What was heard last goes on with its pitch, softer and softer, as in ITU-T G.711 Appendix I: people notice a hole of 20 ms, and hardly
//! a vowel that lasts 20 ms longer. After 60 ms there is silence, since a held tone would be worse than none. When sound comes
//! back, it is faded in over what was made up.

use std::ops::Range;

/// Pitches that are looked for: 66 to 200 Hz, in samples at 8,000 a second.
const PERIOD: Range<usize> = 40..121;
/// How much of the past is compared to find the pitch: 20 ms.
const WINDOW: usize = 160;
/// How much of the past is kept: the longest period and the window.
const HISTORY: usize = 121 + WINDOW;
/// After how many ms of loss the sound gets softer, and after how many it is gone.
const FULL_MS: usize = 10;
const GONE_MS: usize = 60;
/// Over how many ms sound comes back.
const FADE_MS: usize = 4;

/// Makes up for lost frames of one stream.
#[derive(Debug, Clone)]
pub struct Concealer {
    /// Times 8,000 samples a second: 1 or 2.
    scale: usize,
    history: Vec<i16>,
    /// What goes on while packets are lost: the last period, and where in it we are.
    period: usize,
    at: usize,
    /// How many samples were made up since the last good frame.
    made_up: usize,
}

impl Concealer {
    /// For sound of `rate` samples a second, 8,000 or 16,000.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        let scale = if rate >= 16_000 { 2 } else { 1 };
        Self {
            scale,
            history: vec![0; HISTORY * scale],
            period: PERIOD.start,
            at: 0,
            made_up: 0,
        }
    }

    /// A frame came: it is remembered, and its beginning faded in when it follows a loss.
    pub fn good(&mut self, samples: &mut [i16]) {
        if self.made_up > 0 {
            let len = (FADE_MS * 8 * self.scale).min(samples.len());
            for (done, sample) in samples[..len].iter_mut().enumerate() {
                let made_up = self.next_sample();
                *sample = blend(made_up, *sample, done, len);
            }
            self.made_up = 0;
        }
        self.remember(samples);
    }

    /// A frame was lost: `samples` is filled with what may have been in it.
    pub fn lost(&mut self, samples: &mut [i16]) {
        if self.made_up == 0 {
            self.period = self.find_period();
            self.at = 0;
        }
        for sample in samples.iter_mut() {
            *sample = self.next_sample();
        }
    }

    /// The next sample of what goes on.
    fn next_sample(&mut self) -> i16 {
        let period = &self.history[self.history.len() - self.period..];
        let sample = i32::from(period[self.at]);
        self.at = (self.at + 1) % self.period;
        let ms = 8 * self.scale;
        let (full, gone) = (FULL_MS * ms, GONE_MS * ms);
        let left = gone.saturating_sub(self.made_up.max(full));
        self.made_up = self.made_up.saturating_add(1);
        let (left, span) = (
            i32::try_from(left).unwrap_or(0),
            i32::try_from(gone - full).unwrap_or(1),
        );
        i16::try_from(sample * left / span).unwrap_or(0)
    }

    /// The distance at which the past is most like itself. Found at 8,000 samples a second first, and beside that one at the full
    /// rate.
    fn find_period(&self) -> usize {
        let coarse = PERIOD.max_by(|a, b| {
            let likeness = |period: usize| self.likeness(period * self.scale, self.scale);
            likeness(*a).total_cmp(&likeness(*b))
        });
        let coarse = coarse.unwrap_or(PERIOD.start) * self.scale;
        let fine = (coarse + 1 - self.scale..coarse + self.scale)
            .max_by(|a, b| self.likeness(*a, 1).total_cmp(&self.likeness(*b, 1)));
        fine.unwrap_or(coarse)
    }

    /// The correlation of the newest window with the one `period` before, 1 for the same, every `step`-th sample.
    fn likeness(&self, period: usize, step: usize) -> f64 {
        let window = WINDOW * self.scale;
        let end = self.history.len();
        let newest = &self.history[end - window..];
        let before = &self.history[end - window - period..end - period];
        let (mut product, mut energy) = (0.0, 0.0);
        for (a, b) in newest.iter().zip(before).step_by(step) {
            product += f64::from(*a) * f64::from(*b);
            energy += f64::from(*b) * f64::from(*b);
        }
        product / energy.sqrt().max(1.0)
    }

    fn remember(&mut self, samples: &[i16]) {
        let len = self.history.len();
        let samples = &samples[samples.len().saturating_sub(len)..];
        self.history.copy_within(samples.len().., 0);
        self.history[len - samples.len()..].copy_from_slice(samples);
    }
}

fn blend(old: i16, new: i16, done: usize, len: usize) -> i16 {
    let weight = |part: usize| i32::try_from(part).unwrap_or(0);
    let sum = i32::from(old) * weight(len - done) + i32::from(new) * weight(done);
    i16::try_from(sum / weight(len).max(1)).unwrap_or(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level;
    use crate::tone::{snr, tone};

    /// Sound whose frames with these numbers are lost.
    fn conceal(rate: u32, sound: &[i16], lost: &[usize]) -> Vec<i16> {
        let mut concealer = Concealer::new(rate);
        let mut out = sound.to_vec();
        let frame = usize::try_from(rate).expect("small") / 50;
        for (at, samples) in out.chunks_mut(frame).enumerate() {
            if lost.contains(&at) {
                concealer.lost(samples);
            } else {
                concealer.good(samples);
            }
        }
        out
    }

    #[test]
    fn a_vowel_goes_on_through_a_loss() {
        for rate in [8_000, 16_000] {
            let frame = usize::try_from(rate).expect("small") / 50;
            let vowel: Vec<i16> = tone(rate, 125.0, 8_000.0, frame * 12)
                .iter()
                .zip(tone(rate, 250.0, 4_000.0, frame * 12))
                .map(|(a, b)| a + b)
                .collect();
            let out = conceal(rate, &vowel, &[6]);
            // The first half of the lost frame is as it would have been.
            let half = frame * 6..frame * 6 + frame / 2;
            let error: Vec<i16> = out[half.clone()]
                .iter()
                .zip(&vowel[half.clone()])
                .map(|(a, b)| a - b)
                .collect();
            assert!(
                level(&error) > level(&vowel[half]) + 20,
                "{rate}: {}",
                level(&error)
            );
            // And nothing jumps anywhere.
            let step = |samples: &[i16]| {
                samples
                    .windows(2)
                    .map(|pair| pair[0].abs_diff(pair[1]))
                    .max()
            };
            assert!(step(&out) <= step(&vowel).map(|step| step * 2), "{rate}");
            assert_eq!(out[frame * 8..], vowel[frame * 8..]);
        }
    }

    #[test]
    fn a_long_loss_falls_silent() {
        let sound = tone(8_000, 200.0, 8_000.0, 160 * 12);
        let out = conceal(8_000, &sound, &[4, 5, 6, 7, 8, 9, 10, 11]);
        let levels: Vec<u8> = out.chunks(160).skip(3).map(level).collect();
        assert!(levels.is_sorted(), "{levels:?}");
        assert_eq!(levels[4..], [127; 5]);
    }

    #[test]
    fn sound_without_losses_is_left_alone() {
        let sound = tone(8_000, 1_000.0, 8_000.0, 1_600);
        assert_eq!(conceal(8_000, &sound, &[]), sound);
        assert!(snr(&sound, 8_000, 1_000.0) > 70.0);
    }

    #[test]
    fn a_loss_before_any_sound_is_silent_and_frames_may_have_any_length() {
        let mut concealer = Concealer::new(8_000);
        let mut frame = [1; 80];
        concealer.lost(&mut frame);
        assert_eq!(frame, [0; 80]);
        concealer.good(&mut []);
        concealer.good(&mut [5; 3]);
        concealer.lost(&mut []);
        let mut long = [i16::MAX; 5_000];
        concealer.good(&mut long);
        concealer.lost(&mut long);
        assert_eq!(long[4_999], 0);
    }
}
