//! Everybody hears everybody but themselves.

/// The most voices in one mix.
pub const VOICES_MAX: usize = 64;

/// Above which magnitude the limiter bends, of 32,767: three quarters.
const KNEE: i32 = 24_576;

/// Mixes one frame for many. The sum is made once, in 32 bits, and each is given it without their own part.
#[derive(Debug, Clone)]
pub struct Mixer {
    sum: Vec<i32>,
    voices: usize,
}

impl Mixer {
    /// A mixer of frames of `len` samples.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self {
            sum: vec![0; len],
            voices: 0,
        }
    }

    /// Begins the next frame.
    pub fn begin(&mut self) {
        self.sum.fill(0);
        self.voices = 0;
    }

    /// Adds a voice. Samples beyond the frame are left out, and voices beyond [`VOICES_MAX`]; returns whether it was added.
    pub fn add(&mut self, samples: &[i16]) -> bool {
        if self.voices == VOICES_MAX {
            return false;
        }
        self.voices += 1;
        for (sum, sample) in self.sum.iter_mut().zip(samples) {
            *sum += i32::from(*sample);
        }
        true
    }

    /// The frame for one who said `own`, when that was added, or for one who only listens.
    pub fn write(&self, own: Option<&[i16]>, out: &mut [i16]) {
        let own = own.unwrap_or_default();
        for (at, (out, sum)) in out.iter_mut().zip(&self.sum).enumerate() {
            let own = own.get(at).map_or(0, |sample| i32::from(*sample));
            *out = limit(sum - own);
        }
    }
}

/// Bends what is loud toward the end of the scale instead of cutting it off there, which would crackle. What is below the knee stays as
/// it is: one voice alone passes unchanged unless it is very loud.
fn limit(sample: i32) -> i16 {
    let magnitude = sample.abs();
    if magnitude <= KNEE {
        return i16::try_from(sample).unwrap_or(0);
    }
    // Over the knee comes x / (1 + x) of what is left, which never gets there.
    let room = i64::from(i32::from(i16::MAX) - KNEE);
    let over = i64::from(magnitude - KNEE);
    let bent = i64::from(KNEE) + over * room / (over + room);
    let bent = i16::try_from(bent).unwrap_or(i16::MAX);
    if sample < 0 { -bent } else { bent }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{amplitude, snr, tone};

    const RATE: u32 = 16_000;
    const PITCHES: [f64; 5] = [300.0, 450.0, 700.0, 1_100.0, 1_700.0];

    fn mixed(voices: &[Vec<i16>], own: Option<usize>) -> Vec<i16> {
        let len = voices[0].len();
        let mut mixer = Mixer::new(len);
        mixer.begin();
        assert!(voices.iter().all(|voice| mixer.add(voice)));
        let mut out = vec![0; len];
        mixer.write(own.map(|own| voices[own].as_slice()), &mut out);
        out
    }

    #[test]
    fn each_hears_all_but_itself() {
        let voices = PITCHES.map(|hertz| tone(RATE, hertz, 4_000.0, 16_000));
        for (own, hertz) in PITCHES.iter().enumerate() {
            let heard = mixed(&voices, Some(own));
            assert!(amplitude(&heard, RATE, *hertz) < 1.0);
            for (_, other) in PITCHES.iter().enumerate().filter(|(at, _)| *at != own) {
                let peak = amplitude(&heard, RATE, *other);
                assert!(
                    (3_990.0..4_010.0).contains(&peak),
                    "{hertz} hears {other} at {peak}"
                );
            }
        }
        let listener = mixed(&voices, None);
        assert!(
            PITCHES
                .iter()
                .all(|hertz| amplitude(&listener, RATE, *hertz) > 3_990.0)
        );
    }

    #[test]
    fn one_voice_passes_unchanged() {
        let voice = tone(RATE, 1_000.0, 20_000.0, 1_600);
        assert_eq!(mixed(std::slice::from_ref(&voice), None), voice);
    }

    #[test]
    fn what_is_too_loud_is_bent_and_does_not_wrap() {
        let voices = vec![tone(RATE, 1_000.0, 32_000.0, 16_000); 20];
        let heard = mixed(&voices, None);
        let up = |samples: &[i16], at: usize| samples[at] >= 0;
        assert!((0..16_000).all(|at| up(&heard, at) == up(&voices[0], at)));
        // A sine that is driven this far is nearly a square wave: the odd overtones are all that is added.
        assert!(snr(&heard, RATE, 1_000.0) > 5.0);
        assert_eq!(
            [i32::MIN / 2, -40_000, 40_000, i32::MAX / 2]
                .map(limit)
                .map(i16::signum),
            [-1, -1, 1, 1]
        );
        let mut last = 0;
        for sample in 0..200_000 {
            let out = limit(sample);
            assert!(out >= last, "louder never becomes softer");
            last = out;
        }
    }

    #[test]
    fn a_crowd_has_a_bound() {
        let mut mixer = Mixer::new(1);
        for _ in 0..VOICES_MAX {
            assert!(mixer.add(&[1]));
        }
        assert!(!mixer.add(&[1]));
        mixer.begin();
        assert!(mixer.add(&[1, 2, 3]), "a longer voice is cut");
    }
}
