//! Sound in files: what callers hear comes from WAV or from Opus in Ogg, and what they say is kept as WAV.
//!
//! ```text
//! bytes ─▶ wav: linear 16 bits, G.711 ─┐
//! bytes ─▶ ogg ─▶ packets of Opus ─────┴▶ one voice ─▶ 8,000 or 16,000 samples a second ─▶ Clip
//! ```
//!
//! The readers are total functions with limits: a file is whatever somebody gave us. Reading takes its time and memory; it is for other threads
//! than those of the media, which share what was read.

mod ogg;
mod wav;

use std::sync::Arc;

use crate::opus::{self, Decode, Opus, OpusCodec};
use crate::resample::{self, Filter};

pub use wav::write as write_wav;

/// The rates of samples that are read.
pub const RATES: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// What is wider than this is brought down to it: no phone hears more than half of it.
const WIDE: u32 = 16_000;

/// What is as wide as this or narrower is brought here.
const NARROW: u32 = 8_000;

/// How sound in a file is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// WAV with linear samples of 16 bits, or G.711.
    Wav,
    /// Opus in Ogg (RFC 7845).
    OggOpus,
}

/// Why a file can't be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unplayable {
    /// Another kind of file.
    #[error("neither WAV nor Opus in Ogg")]
    Unknown,
    /// Coded in another way.
    #[error("its samples are neither linear with 16 bits nor G.711 (format {tag}, {bits} bits)")]
    Samples {
        /// The format's number in the registry of WAVE.
        tag: u16,
        /// Bits of a sample.
        bits: u16,
    },
    /// More than two channels, or none.
    #[error("{0} channels are not 1 or 2")]
    Channels(u16),
    /// Another rate than [`RATES`].
    #[error("{0} samples a second are not {min} to {max}", min = RATES.start(), max = RATES.end())]
    Rate(u32),
    /// Its structure is broken.
    #[error("{0}")]
    Damaged(&'static str),
    /// There is Ogg with something else in it.
    #[error("what is in the Ogg is not Opus")]
    NotOpus,
    /// There is nothing to hear.
    #[error("there are no samples in it")]
    Empty,
    /// Longer than may be.
    #[error("longer than {0} s")]
    TooLong(u32),
}

/// Sound that can be played: cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Clip {
    rate: u32,
    samples: Arc<[i16]>,
}

impl Clip {
    /// Sound of 8,000, 16,000 or 48,000 samples a second; any other rate counts as the first.
    #[must_use]
    pub fn new(rate: u32, samples: &[i16]) -> Self {
        resample::prepare();
        let rate = [WIDE, 48_000].into_iter().find(|known| *known == rate);
        Self {
            rate: rate.unwrap_or(NARROW),
            samples: samples.into(),
        }
    }

    /// Samples in a second.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// The samples.
    #[must_use]
    pub fn samples(&self) -> &[i16] {
        &self.samples
    }

    /// Its length in milliseconds.
    #[must_use]
    pub fn millis(&self) -> u64 {
        self.samples.len() as u64 * 1_000 / u64::from(self.rate)
    }
}

/// What is said in a file is nobody's business.
impl std::fmt::Debug for Clip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clip({} ms at {})", self.millis(), self.rate)
    }
}

/// Reads a file of at most `seconds_max` seconds. Two channels become one, and rates those of Legs.
///
/// # Errors
///
/// [`Unplayable`].
pub fn read(bytes: &[u8], seconds_max: u32) -> Result<(Format, Clip), Unplayable> {
    match bytes {
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'A',
            b'V',
            b'E',
            chunks @ ..,
        ] => {
            let wav = wav::Wav::parse(chunks)?;
            // Before anything is made of it.
            if wav.frames() > u64::from(seconds_max) * u64::from(wav.rate) {
                return Err(Unplayable::TooLong(seconds_max));
            }
            Ok((Format::Wav, clip(wav.rate, &wav.samples())?))
        }
        [b'O', b'g', b'g', b'S', ..] => Ok((Format::OggOpus, read_opus(bytes, seconds_max)?)),
        _ => Err(Unplayable::Unknown),
    }
}

fn read_opus(bytes: &[u8], seconds_max: u32) -> Result<Clip, Unplayable> {
    let stream = ogg::Stream::parse(bytes)?;
    let most = usize::try_from(u64::from(seconds_max) * u64::from(WIDE)).unwrap_or(usize::MAX);
    let mut decoder =
        <Opus as OpusCodec>::Decoder::new(WIDE).ok_or(Unplayable::Damaged("no decoder"))?;
    let mut samples = Vec::new();
    let mut frame = [0; opus::SAMPLES_MAX];
    // Granules are 1/48,000 s, samples 1/16,000 s.
    let skipped = usize::from(stream.pre_skip) / 3;
    for packet in stream.packets {
        // A packet that can't be read is as one that was lost.
        let made = match decoder.decode(&packet, &mut frame) {
            Some(made) => made,
            None => {
                let len = 320;
                decoder.conceal(None, &mut frame[..len]);
                len
            }
        };
        samples.extend_from_slice(&frame[..made.min(frame.len())]);
        if samples.len() > most.saturating_add(skipped) {
            return Err(Unplayable::TooLong(seconds_max));
        }
    }
    // The last granule may cut the end off (RFC 7845 §4.4).
    if let Some(granules) = stream.granules {
        let len = usize::try_from(granules / 3).unwrap_or(usize::MAX);
        samples.truncate(len);
    }
    samples.drain(..skipped.min(samples.len()));
    if stream.gain != 0 {
        amplify(&mut samples, stream.gain);
    }
    clip(WIDE, &samples)
}

/// The gain of a header is in 1/256 dB (RFC 7845 §5.1).
fn amplify(samples: &mut [i16], gain: i16) {
    let factor = 10_f32.powf(f32::from(gain) / (20.0 * 256.0));
    for sample in samples {
        let value = (f32::from(*sample) * factor).round();
        #[expect(clippy::cast_possible_truncation, reason = "clamped to what fits")]
        let value = value.clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16;
        *sample = value;
    }
}

fn clip(rate: u32, samples: &[i16]) -> Result<Clip, Unplayable> {
    let to = if rate > NARROW { WIDE } else { NARROW };
    let clip = match rate == to {
        true => Clip::new(to, samples),
        false => Clip::new(to, &Filter::new(rate, to).all(samples)),
    };
    match clip.samples.is_empty() {
        true => Err(Unplayable::Empty),
        false => Ok(clip),
    }
}

#[cfg(test)]
mod tests;
