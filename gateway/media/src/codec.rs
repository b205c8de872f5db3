//! One coder for each direction of a Leg, whatever it speaks.

use gateway_sip::negotiate::Codec;

use crate::concealment::Concealer;
use crate::g711::Law;
use crate::opus::{self, Decode, Encode, Opus, OpusCodec};
use crate::{FRAMES_PER_SECOND, g722};

/// The most bytes a frame of 20 ms is coded in.
pub const CODED_LEN_MAX: usize = opus::PACKET_LEN_MAX;

/// Codes frames of 20 ms.
#[derive(Debug)]
pub enum Encoder {
    /// G.711.
    G711(Law),
    /// G.722.
    G722(Box<g722::Encoder>),
    /// Opus.
    Opus(<Opus as OpusCodec>::Encoder),
}

impl Encoder {
    /// An encoder; `None` if the library has none.
    #[must_use]
    pub fn new(codec: Codec) -> Option<Self> {
        Some(match codec {
            Codec::Pcmu => Self::G711(Law::Mu),
            Codec::Pcma => Self::G711(Law::A),
            Codec::G722 => Self::G722(Box::default()),
            Codec::Opus => Self::Opus(Encode::new(codec.sample_rate())?),
        })
    }

    /// Codes a frame; returns the length of what is in `out`, which has [`CODED_LEN_MAX`] bytes.
    pub fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> usize {
        match self {
            Self::G711(law) => law.encode(samples, out),
            Self::G722(encoder) => encoder.encode(samples, out),
            Self::Opus(encoder) => encoder.encode(samples, out).unwrap_or(0),
        }
    }

    /// Whether frames can be put together and cut anywhere: each byte stands for itself.
    #[must_use]
    pub fn is_bytewise(&self) -> bool {
        !matches!(self, Self::Opus(_))
    }
}

/// Reads packets, and makes up for those that are lost.
#[derive(Debug)]
pub enum Decoder {
    /// G.711.
    G711(Law, Concealer),
    /// G.722.
    G722(Box<g722::Decoder>, Concealer),
    /// Opus.
    Opus(<Opus as OpusCodec>::Decoder),
}

impl Decoder {
    /// A decoder; `None` if the library has none.
    #[must_use]
    pub fn new(codec: Codec) -> Option<Self> {
        let concealer = Concealer::new(codec.sample_rate());
        Some(match codec {
            Codec::Pcmu => Self::G711(Law::Mu, concealer),
            Codec::Pcma => Self::G711(Law::A, concealer),
            Codec::G722 => Self::G722(Box::default(), concealer),
            Codec::Opus => Self::Opus(Decode::new(codec.sample_rate())?),
        })
    }

    /// Reads a payload into `out` as far as there is room; returns the number of samples.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> usize {
        match self {
            Self::G711(law, concealer) => {
                let len = law.decode(payload, out);
                concealer.good(&mut out[..len]);
                len
            }
            Self::G722(decoder, concealer) => {
                let len = decoder.decode(payload, out);
                concealer.good(&mut out[..len]);
                len
            }
            Self::Opus(decoder) => decoder.decode(payload, out).unwrap_or(0),
        }
    }

    /// Fills `out` with what may have been in a packet that was lost.
    pub fn conceal(&mut self, out: &mut [i16]) {
        match self {
            Self::G711(_, concealer) | Self::G722(_, concealer) => concealer.lost(out),
            Self::Opus(decoder) => decoder.conceal(None, out),
        }
    }
}

/// How long the sound of a payload is, in 1/8,000 s; `None` for what can't be told.
#[must_use]
pub fn duration(codec: Codec, payload: &[u8]) -> Option<usize> {
    match codec {
        // 64 kbit/s, all three.
        Codec::Pcmu | Codec::Pcma | Codec::G722 => Some(payload.len()).filter(|len| *len > 0),
        Codec::Opus => opus::duration(payload).map(|len| len / 6),
    }
}

/// The samples of a frame of 20 ms.
#[must_use]
pub fn frame_len(rate: u32) -> usize {
    usize::try_from(rate / FRAMES_PER_SECOND).unwrap_or(0)
}
