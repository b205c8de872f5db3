//! WAV: a format, and the samples (Multimedia Programming Interface and Data Specifications 1.0, and RFC 2361 for the numbers of codecs).

use super::{RATES, Unplayable};
use crate::g711::Law;

const PCM: u16 = 1;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
/// The number is in the longer form of the format, behind 24 bytes.
const EXTENSIBLE: u16 = 0xfffe;

/// A WAV file that can be played.
#[derive(Debug)]
pub(super) struct Wav<'a> {
    pub(super) rate: u32,
    channels: usize,
    coding: Coding,
    data: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
enum Coding {
    Linear,
    G711(Law),
}

impl<'a> Wav<'a> {
    /// Reads what follows `RIFF....WAVE`.
    pub(super) fn parse(mut chunks: &'a [u8]) -> Result<Self, Unplayable> {
        let mut format = None;
        while let Some((head, rest)) = chunks.split_first_chunk::<8>() {
            let [name @ .., l0, l1, l2, l3] = head;
            let len = u32::from_le_bytes([*l0, *l1, *l2, *l3]);
            // Programs that could not go back leave a length of their own; what is there counts.
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            let body = &rest[..len];
            match name {
                b"fmt " => format = Some(parse_format(body)?),
                b"data" => {
                    let (rate, channels, coding) = format
                        .ok_or(Unplayable::Damaged("its samples come before their format"))?;
                    return Ok(Self {
                        rate,
                        channels,
                        coding,
                        data: body,
                    });
                }
                _ => {}
            }
            // Chunks begin at even places.
            chunks = rest.get(len.next_multiple_of(2)..).unwrap_or_default();
        }
        Err(Unplayable::Empty)
    }

    /// How many samples each channel has.
    pub(super) fn frames(&self) -> u64 {
        (self.data.len() / self.frame_len()) as u64
    }

    /// The samples of one voice: of two channels their mean.
    pub(super) fn samples(&self) -> Vec<i16> {
        let frames = self.data.chunks_exact(self.frame_len());
        match self.coding {
            Coding::Linear => frames
                .map(|frame| {
                    let samples = frame.chunks_exact(2);
                    let sum: i32 = samples
                        .map(|bytes| i32::from(i16::from_le_bytes([bytes[0], bytes[1]])))
                        .sum();
                    self.mean(sum)
                })
                .collect(),
            Coding::G711(law) => frames
                .map(|frame| {
                    let mut samples = [0; 2];
                    let len = law.decode(frame, &mut samples);
                    self.mean(samples[..len].iter().map(|sample| i32::from(*sample)).sum())
                })
                .collect(),
        }
    }

    fn mean(&self, sum: i32) -> i16 {
        let channels = if self.channels == 2 { 2 } else { 1 };
        i16::try_from(sum / channels).unwrap_or(0)
    }

    fn frame_len(&self) -> usize {
        match self.coding {
            Coding::Linear => 2 * self.channels,
            Coding::G711(_) => self.channels,
        }
    }
}

fn parse_format(body: &[u8]) -> Result<(u32, usize, Coding), Unplayable> {
    let cut = Unplayable::Damaged("its format is cut off");
    let head = body.first_chunk::<16>().ok_or(cut.clone())?;
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let (mut tag, channels, bits) = (u16_at(0), u16_at(2), u16_at(14));
    let rate = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if tag == EXTENSIBLE {
        let of = body.get(24..26).ok_or(cut)?;
        tag = u16::from_le_bytes([of[0], of[1]]);
    }
    let coding = match (tag, bits) {
        (PCM, 16) => Coding::Linear,
        (A_LAW, 8) => Coding::G711(Law::A),
        (MU_LAW, 8) => Coding::G711(Law::Mu),
        _ => return Err(Unplayable::Samples { tag, bits }),
    };
    if !(1..=2).contains(&channels) {
        return Err(Unplayable::Channels(channels));
    }
    if !RATES.contains(&rate) {
        return Err(Unplayable::Rate(rate));
    }
    Ok((rate, usize::from(channels), coding))
}

/// A WAV file of linear samples of 16 bits; those of two channels take turns.
#[must_use]
pub fn write(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
    const HEAD_LEN: u32 = 36;

    let data_len = u32::try_from(samples.len() * 2).unwrap_or(u32::MAX - HEAD_LEN);
    let frame = u32::from(channels) * 2;
    let mut file = Vec::with_capacity(8 + samples.len() * 2 + 36);
    file.extend(b"RIFF");
    file.extend((HEAD_LEN + data_len).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    file.extend(PCM.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend((rate * frame).to_le_bytes());
    file.extend(frame.to_le_bytes()[..2].iter());
    file.extend(16_u16.to_le_bytes());
    file.extend(b"data");
    file.extend(data_len.to_le_bytes());
    for sample in samples {
        file.extend(sample.to_le_bytes());
    }
    file
}
