//! What is heard while there is nobody to hear: a ringing tone, and music on hold, made of sines.

use std::f32::consts::TAU;

/// The ringing tone of most of Europe (ITU-T E.180): 425 Hz, one second of five.
const RINGING_HERTZ: f32 = 425.0;
const RINGING_SECONDS: f32 = 1.0;
const RINGING_PERIOD: f32 = 5.0;
const RINGING_PEAK: f32 = 3_000.0;

/// How long a note lasts, and how soon it fades, in 1/s.
const NOTE_SECONDS: f32 = 0.45;
const NOTE_FADE: f32 = 3.5;
const NOTE_PEAK: f32 = 3_600.0;

/// The notes, in half tones above A (220 Hz): four chords, broken.
const NOTES: [i8; 32] = [
    0, 7, 12, 15, 19, 15, 12, 7, // A minor
    -4, 3, 8, 12, 15, 12, 8, 3, // F
    3, 10, 15, 19, 22, 19, 15, 10, // C
    -2, 5, 10, 14, 17, 14, 10, 5, // G
];

/// A sound without an end.
#[derive(Debug, Clone)]
pub(crate) struct Sound {
    kind: Kind,
    /// For how long it has sounded, in samples, and the angle of the sine.
    at: u32,
    angle: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ringing,
    Music,
}

impl Sound {
    pub(crate) const fn ringing() -> Self {
        Self::new(Kind::Ringing)
    }

    pub(crate) const fn music() -> Self {
        Self::new(Kind::Music)
    }

    const fn new(kind: Kind) -> Self {
        Self {
            kind,
            at: 0,
            angle: 0.0,
        }
    }

    /// Fills a frame of `rate` samples a second.
    pub(crate) fn fill(&mut self, rate: u32, out: &mut [i16]) {
        let period = match self.kind {
            Kind::Ringing => RINGING_PERIOD,
            Kind::Music => NOTE_SECONDS * NOTES.len() as f32,
        };
        for sample in out {
            let seconds = self.at as f32 / rate as f32;
            if seconds >= period {
                self.at = 0;
            }
            let (hertz, peak) = match self.kind {
                Kind::Ringing => (RINGING_HERTZ, ringing(seconds)),
                Kind::Music => note(seconds),
            };
            self.angle = (self.angle + TAU * hertz / rate as f32) % TAU;
            self.at += 1;
            let value = peak * (self.angle.sin() + 0.2 * (2.0 * self.angle).sin());
            #[expect(clippy::cast_possible_truncation, reason = "far below what fits")]
            let value = value as i16;
            *sample = value;
        }
    }
}

/// How loud the ringing tone is, without clicks at its ends.
fn ringing(seconds: f32) -> f32 {
    let from_ends = seconds.min(RINGING_SECONDS - seconds).max(0.0);
    RINGING_PEAK * (from_ends * 100.0).min(1.0)
}

/// The pitch of the note of a time, and how loud it is.
fn note(seconds: f32) -> (f32, f32) {
    let number = (seconds / NOTE_SECONDS).floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and the rest of a division"
    )]
    let half_tones = NOTES[number as usize % NOTES.len()];
    let since = seconds - number * NOTE_SECONDS;
    let attack = (since * 100.0).min(1.0);
    let end = ((NOTE_SECONDS - since) * 100.0).clamp(0.0, 1.0);
    let peak = NOTE_PEAK * attack * end * (-since * NOTE_FADE).exp();
    (220.0 * (f32::from(half_tones) / 12.0).exp2(), peak)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level;
    use crate::tone::amplitude;

    fn seconds(mut sound: Sound, rate: u32, seconds: u32) -> Vec<i16> {
        let mut all = Vec::new();
        for _ in 0..seconds * 50 {
            let mut frame = vec![0; usize::try_from(rate / 50).unwrap()];
            sound.fill(rate, &mut frame);
            all.extend(frame);
        }
        all
    }

    #[test]
    fn a_ringing_tone_is_one_second_of_five_at_every_rate() {
        for rate in [8_000, 16_000, 48_000] {
            let sound = seconds(Sound::ringing(), rate, 10);
            let of = |second: u32| {
                let from = usize::try_from(second * rate).unwrap();
                &sound[from..from + usize::try_from(rate).unwrap()]
            };
            for second in [0, 5] {
                assert!(amplitude(of(second), rate, 425.0) > 2_500.0, "{rate}");
            }
            for second in [2, 3, 7, 9] {
                assert_eq!(level(of(second)), 127, "{rate}");
            }
        }
    }

    #[test]
    fn music_goes_on_and_is_neither_loud_nor_full_of_clicks() {
        let sound = seconds(Sound::music(), 8_000, 40);
        for second in sound.chunks(8_000) {
            let level = level(second);
            assert!((15..40).contains(&level), "{level}");
        }
        let step = sound.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max();
        assert!(step < Some(4_000), "{step:?}");
    }
}
