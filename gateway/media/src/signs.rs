//! Tones that stand for words where an Account has no file for them. People know most of them from their phones (ITU-T E.180, E.182).
//!
//! | sign | what is heard |
//! | --- | --- |
//! | [`Sign::Prompt`] | two notes, the second higher: say or press something |
//! | [`Sign::Pin`] | three short high notes: digits are wanted |
//! | [`Sign::Wrong`] | two notes, the second lower: that was not it |
//! | [`Sign::Record`] | one long note of 1,400 Hz: speak after it (E.182: record tone) |
//! | [`Sign::Recorded`] | two short notes of 1,400 Hz: the call is kept |
//! | [`Sign::Done`] | three notes downwards: that was all |
//! | [`Sign::Unavailable`] | 950, 1,400 and 1,800 Hz: the call can't go on (E.180: special information tone) |
//! | [`Sign::Place`] | as many short notes as there are people in front, and oneself |

use std::f32::consts::TAU;

use crate::files::Clip;

const RATE: u32 = 8_000;
const PEAK: f32 = 6_000.0;

/// How long a note takes to come and to go, in seconds.
const EDGE: f32 = 0.008;

/// The most notes that are counted.
pub const PLACES_MAX: u8 = 9;

/// What a sequence of tones stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sign {
    /// Press a key, or speak.
    Prompt,
    /// Digits are wanted.
    Pin,
    /// What was pressed leads nowhere.
    Wrong,
    /// Speak now: it is kept.
    Record,
    /// This call is kept.
    Recorded,
    /// The end.
    Done,
    /// The call can't go on.
    Unavailable,
    /// At which place one waits; beyond [`PLACES_MAX`] that many.
    Place(u8),
}

impl Sign {
    /// The sound of it.
    #[must_use]
    pub fn clip(self) -> Clip {
        let mut samples = Vec::new();
        match self {
            Self::Prompt => notes(&mut samples, &[(659.3, 0.16), (880.0, 0.3)], 0.03),
            Self::Pin => notes(&mut samples, &[(988.0, 0.1); 3], 0.1),
            Self::Wrong => notes(&mut samples, &[(440.0, 0.2), (311.1, 0.35)], 0.03),
            Self::Record => notes(&mut samples, &[(1_400.0, 0.5)], 0.0),
            Self::Recorded => notes(&mut samples, &[(1_400.0, 0.2); 2], 0.15),
            Self::Done => notes(
                &mut samples,
                &[(880.0, 0.15), (659.3, 0.15), (523.3, 0.3)],
                0.03,
            ),
            Self::Unavailable => {
                let tone = [(950.0, 0.33), (1_400.0, 0.33), (1_800.0, 0.33)];
                notes(&mut samples, &tone, 0.0);
                note(&mut samples, 0.0, 1.0);
                notes(&mut samples, &tone, 0.0);
            }
            Self::Place(place) => {
                let count = usize::from(place.clamp(1, PLACES_MAX));
                notes(&mut samples, &vec![(784.0, 0.12); count], 0.14);
            }
        }
        note(&mut samples, 0.0, 0.25);
        Clip::new(RATE, &samples)
    }
}

/// Notes with a pause behind each.
fn notes(samples: &mut Vec<i16>, notes: &[(f32, f32)], pause: f32) {
    for (hertz, seconds) in notes {
        note(samples, *hertz, *seconds);
        note(samples, 0.0, pause);
    }
}

fn note(samples: &mut Vec<i16>, hertz: f32, seconds: f32) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "some seconds"
    )]
    let len = (seconds * RATE as f32) as usize;
    samples.extend((0..len).map(|at| {
        let time = at as f32 / RATE as f32;
        let edge = (time.min(seconds - time) / EDGE).clamp(0.0, 1.0);
        let value = PEAK * edge * (TAU * hertz * time).sin();
        #[expect(clippy::cast_possible_truncation, reason = "far below what fits")]
        let value = value as i16;
        value
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::amplitude;

    const ALL: [Sign; 9] = [
        Sign::Prompt,
        Sign::Pin,
        Sign::Wrong,
        Sign::Record,
        Sign::Recorded,
        Sign::Done,
        Sign::Unavailable,
        Sign::Place(0),
        Sign::Place(200),
    ];

    #[test]
    fn signs_are_short_and_have_no_clicks() {
        for sign in ALL {
            let clip = sign.clip();
            assert!((300..=4_000).contains(&clip.millis()), "{sign:?}");
            let steps = clip.samples().windows(2);
            let step = steps.map(|pair| pair[0].abs_diff(pair[1])).max();
            // 1,800 Hz itself goes 7,900 in a sample.
            assert!(step < Some(8_500), "{sign:?}: {step:?}");
            assert_eq!(clip.samples().first(), Some(&0));
            assert_eq!(clip.samples().last(), Some(&0));
        }
    }

    #[test]
    fn a_record_tone_is_that_of_the_standard_and_places_are_counted() {
        let clip = Sign::Record.clip();
        assert!(amplitude(&clip.samples()[200..3_800], RATE, 1_400.0) > 5_900.0);
        for place in 1..=PLACES_MAX {
            let clip = Sign::Place(place).clip();
            // The beginnings of notes: sound after silence.
            let loud: Vec<bool> = clip
                .samples()
                .chunks(160)
                .map(|frame| crate::level(frame) < 40)
                .collect();
            let begins = loud.windows(2).filter(|pair| !pair[0] && pair[1]).count();
            let count = begins + usize::from(loud[0]);
            assert_eq!(count, usize::from(place));
        }
    }
}
