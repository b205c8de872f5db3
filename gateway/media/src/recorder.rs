//! What a Leg says, kept: a message, or both sides of a call.
//!
//! A [`Tape`] is made elsewhere with all its room, and is written on by the thread of the media, which allocates nothing and gives it back
//! when it is full or nobody speaks any more.

use std::time::Duration;

use crate::{FRAME, FRAME_LEN_MAX, FRAMES_PER_SECOND, level, resample};

/// What is softer than this, in dB below full scale, is no voice.
const VOICE_LEVEL: u8 = 50;

/// Samples in a second on a tape of a Leg that has more than 8,000.
const WIDE: u32 = 16_000;

/// How many frames of voice a message has at least: less is somebody who hangs up.
const VOICE_FRAMES_MIN: u32 = 25;

/// What is kept of silence at the end.
const TAIL_FRAMES: u32 = 25;

/// Why a tape was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// There is no room left on it.
    Full,
    /// Nobody has spoken for as long as was told.
    Silent,
}

/// Room for sound, and what is on it.
#[derive(Clone, PartialEq, Eq)]
pub struct Tape {
    rate: Option<u32>,
    seconds: u32,
    silence_frames: u32,
    samples: Vec<i16>,
    /// The last samples that came at another rate than the tape's, and that rate.
    history: Vec<i16>,
    history_rate: u32,
    silent: u32,
    voiced: u32,
}

/// What is said is nobody's business.
impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tape({} of {} s)", self.millis() / 1_000, self.seconds)
    }
}

impl Tape {
    /// A tape with room for so many seconds. It stops when nobody speaks for `silence`.
    #[must_use]
    pub fn new(seconds: u32, silence: Duration) -> Self {
        resample::prepare();
        let most = u64::from(seconds) * u64::from(WIDE);
        let frames = silence.as_millis() / FRAME.as_millis();
        Self {
            rate: None,
            seconds,
            silence_frames: u32::try_from(frames).unwrap_or(u32::MAX),
            samples: Vec::with_capacity(usize::try_from(most).unwrap_or(0)),
            history: Vec::with_capacity(resample::TAPS_MAX + FRAME_LEN_MAX),
            history_rate: 0,
            silent: 0,
            voiced: 0,
        }
    }

    /// Writes 20 ms on it: what was said, at so many samples a second, or silence. `Some` when it is to be given back.
    pub fn push(&mut self, rate: u32, said: Option<&[i16]>) -> Option<Stopped> {
        let own = *self
            .rate
            .get_or_insert(if rate > 8_000 { WIDE } else { 8_000 });
        let len = usize::try_from(own / FRAMES_PER_SECOND).unwrap_or(0);
        let most = usize::try_from(self.seconds * own).unwrap_or(0);
        if self.samples.len() + len > most.min(self.samples.capacity()) {
            return Some(Stopped::Full);
        }
        let start = self.samples.len();
        self.samples.resize(start + len, 0);
        let out = &mut self.samples[start..];
        match (said, resample::between(rate, own)) {
            (None, _) => self.history.clear(),
            (Some(said), None) => {
                let len = len.min(said.len());
                out[..len].copy_from_slice(&said[..len]);
            }
            (Some(said), Some(filter)) => {
                // Half the taps of a sample come after it: what is written is so much later.
                let taps = filter.taps();
                if self.history_rate != rate || self.history.len() != taps {
                    self.history_rate = rate;
                    self.history.clear();
                    self.history.resize(taps, 0);
                }
                self.history
                    .extend_from_slice(&said[..said.len().min(FRAME_LEN_MAX)]);
                let later = filter.len_of(taps / 2);
                filter.fill(&self.history, later, out);
                let kept = self.history.len() - taps;
                self.history.drain(..kept);
            }
        }
        if level(&self.samples[start..]) < VOICE_LEVEL {
            self.silent = 0;
            self.voiced += 1;
        } else {
            self.silent += 1;
        }
        (self.silent >= self.silence_frames).then_some(Stopped::Silent)
    }

    /// Samples in a second of what is on it.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.rate.unwrap_or(8_000)
    }

    /// How long what is on it is, in milliseconds.
    #[must_use]
    pub fn millis(&self) -> u64 {
        self.samples.len() as u64 * 1_000 / u64::from(self.rate())
    }

    /// All that is on it.
    #[must_use]
    pub fn samples(&self) -> &[i16] {
        &self.samples
    }

    /// What was said, without most of the silence at its end; `None` if nobody spoke for half a second.
    #[must_use]
    pub fn message(&self) -> Option<&[i16]> {
        let frame = usize::try_from(self.rate() / FRAMES_PER_SECOND).unwrap_or(0);
        let cut = usize::try_from(self.silent.saturating_sub(TAIL_FRAMES)).unwrap_or(0);
        let len = self.samples.len().saturating_sub(cut * frame);
        (self.voiced >= VOICE_FRAMES_MIN).then_some(&self.samples[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::frame_len;
    use crate::tone::{snr, tone};

    const SILENCE: Duration = Duration::from_secs(2);

    /// Says a tone for so many frames; what came of the last one.
    fn say(tape: &mut Tape, rate: u32, frames: usize) -> Option<Stopped> {
        let said = tone(rate, 1_000.0, 8_000.0, frames * frame_len(rate));
        let mut last = None;
        for frame in said.chunks(frame_len(rate)) {
            last = tape.push(rate, Some(frame));
        }
        last
    }

    #[test]
    fn what_is_said_at_any_rate_is_kept_as_it_is() {
        for (rate, kept) in [(8_000, 8_000), (16_000, 16_000), (48_000, 16_000)] {
            let mut tape = Tape::new(10, SILENCE);
            assert_eq!(say(&mut tape, rate, 100), None);
            assert_eq!((tape.rate(), tape.millis()), (kept, 2_000));
            let message = tape.message().unwrap();
            let len = message.len();
            let snr = snr(&message[len / 10..len * 9 / 10], kept, 1_000.0);
            assert!(snr > 60.0, "{rate}: {snr} dB");
        }
    }

    #[test]
    fn another_codec_in_the_middle_goes_on_at_the_tapes_rate() {
        let mut tape = Tape::new(10, SILENCE);
        say(&mut tape, 8_000, 50);
        say(&mut tape, 48_000, 50);
        assert_eq!((tape.rate(), tape.millis()), (8_000, 2_000));
        let second = &tape.samples()[8_800..15_200];
        let snr = snr(second, 8_000, 1_000.0);
        assert!(snr > 60.0, "{snr} dB");
    }

    #[test]
    fn a_tape_ends_when_it_is_full_or_nobody_speaks() {
        let mut tape = Tape::new(1, SILENCE);
        assert_eq!(say(&mut tape, 16_000, 50), None);
        assert_eq!(tape.push(16_000, None), Some(Stopped::Full));
        assert_eq!(tape.samples().len(), 16_000);
        assert!(tape.samples.capacity() < 20_000, "it never grew");

        let mut tape = Tape::new(60, SILENCE);
        say(&mut tape, 8_000, 100);
        let ends = (0..200).find(|_| tape.push(8_000, None).is_some());
        assert_eq!(ends, Some(99));
        // Half a second of the silence is kept.
        assert_eq!(tape.message().map(<[i16]>::len), Some(125 * 160));
    }

    #[test]
    fn who_says_nothing_leaves_no_message() {
        let mut tape = Tape::new(60, SILENCE);
        assert!(tape.message().is_none());
        say(&mut tape, 8_000, 20);
        assert!(tape.message().is_none());
        say(&mut tape, 8_000, 20);
        assert!(tape.message().is_some());
    }
}
