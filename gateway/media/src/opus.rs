//! Opus (RFC 6716), mono, at 8,000, 16,000 or 48,000 samples a second.
//!
//! [`OpusCodec`] is what a coder has to be; [`Pure`] is one in Rust alone, and [`Opus`] the one that is used.

use opus_pure::{Application, OpusDecoder, OpusEncoder, packet};

use crate::decimation::Decimator;

/// The longest packet that is made, in bytes.
pub const PACKET_LEN_MAX: usize = 400;

/// The most sound of one packet: 120 ms at 48,000 samples a second (RFC 6716 §3.2.5).
pub const SAMPLES_MAX: usize = 5_760;

/// How much of the loss of packets the sound should bear, in percent: each packet then tells something of the one before.
const LOSS_PERCENT: i32 = 10;

/// How hard the encoder tries, of 10: beyond, hardly anybody hears what it costs.
const COMPLEXITY: i32 = 5;

/// A library that speaks Opus.
pub trait OpusCodec {
    /// Its encoder.
    type Encoder: Encode;
    /// Its decoder.
    type Decoder: Decode;
}

/// Codes one voice.
pub trait Encode: Send + Sized {
    /// For sound of `rate` samples a second: 8,000, 16,000 or 48,000. `None` for another, or if the library can't.
    fn new(rate: u32) -> Option<Self>;

    /// Codes a frame of 20 ms; returns the length of the packet in `out`, which has [`PACKET_LEN_MAX`] bytes. `None` for a frame of
    /// another length.
    fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> Option<usize>;
}

/// Reads one voice.
pub trait Decode: Send + Sized {
    /// For sound of `rate` samples a second: 8,000, 16,000 or 48,000. `None` for another, or if the library can't.
    fn new(rate: u32) -> Option<Self>;

    /// Reads a packet of any bytes into `out`, which has room for 120 ms; returns the number of samples. `None` for what is no Opus.
    fn decode(&mut self, packet: &[u8], out: &mut [i16]) -> Option<usize>;

    /// Makes up for a packet of `samples.len()` samples that was lost, a multiple of 2.5 ms. `next` is the packet after it, if that came: it
    /// may tell something of the one before.
    fn conceal(&mut self, next: Option<&[u8]>, samples: &mut [i16]);

    /// Another voice begins.
    fn reset(&mut self);
}

/// The library that is used.
pub type Opus = Pure;

/// The crate `opus-pure`.
#[derive(Debug, Clone, Copy)]
pub struct Pure;

impl OpusCodec for Pure {
    type Encoder = PureEncoder;
    type Decoder = PureDecoder;
}

/// How long the sound of a packet is, in 1/48,000 s; `None` for what is no Opus.
#[must_use]
pub fn duration(packet: &[u8]) -> Option<usize> {
    packet::samples_48k(packet).ok().filter(|len| *len > 0)
}

/// An encoder of [`Pure`].
#[derive(Debug)]
pub struct PureEncoder {
    encoder: Box<OpusEncoder>,
    frame: usize,
}

impl Encode for PureEncoder {
    fn new(rate: u32) -> Option<Self> {
        let mut encoder = OpusEncoder::new(i32::try_from(rate).ok()?, 1, Application::Voip).ok()?;
        encoder.bitrate_bps = bitrate(rate);
        encoder.complexity = COMPLEXITY;
        encoder.use_inband_fec = true;
        encoder.packet_loss_perc = LOSS_PERCENT;
        Some(Self {
            encoder: Box::new(encoder),
            frame: usize::try_from(rate / 50).ok()?,
        })
    }

    fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> Option<usize> {
        if samples.len() != self.frame {
            return None;
        }
        let room = out.len().min(PACKET_LEN_MAX);
        self.encoder
            .encode_s16(samples, self.frame, out.get_mut(..room)?)
            .ok()
    }
}

/// What a voice may take, in bit/s. It is coded a second time here, and must not sound so: a tone that comes through G.711 keeps a distance of
/// more than 35 dB to all noise. A voice takes about half of it.
const fn bitrate(rate: u32) -> i32 {
    match rate {
        0..=8_000 => 48_000,
        _ => 64_000,
    }
}

/// A decoder of [`Pure`]. It always reads all there is, at 48,000 samples a second, and leaves out what the rate can't carry: asked for a lower
/// rate, the library folds what lies above it back into the sound, and what browsers send goes up to 20 kHz.
pub struct PureDecoder {
    decoder: Box<OpusDecoder>,
    /// For lower rates, with room for a packet at the full one.
    lower: Option<(Decimator, Box<[i16; SAMPLES_MAX]>)>,
}

/// What the library reads at, whatever is asked for.
const FULL_RATE: i32 = 48_000;

impl std::fmt::Debug for PureDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PureDecoder")
            .field("step", &self.lower.as_ref().map(|(lower, _)| lower.step()))
            .finish_non_exhaustive()
    }
}

impl Decode for PureDecoder {
    fn new(rate: u32) -> Option<Self> {
        let lower = match rate {
            48_000 => None,
            16_000 => Some(Decimator::new(3)?),
            8_000 => Some(Decimator::new(6)?),
            _ => return None,
        };
        Some(Self {
            decoder: Box::new(OpusDecoder::new(FULL_RATE, 1).ok()?),
            lower: lower.map(|lower| (lower, Box::new([0; SAMPLES_MAX]))),
        })
    }

    fn decode(&mut self, packet: &[u8], out: &mut [i16]) -> Option<usize> {
        // An empty packet would ask for concealment.
        let len = packet::samples(packet, FULL_RATE).ok()?;
        let Some((lower, whole)) = &mut self.lower else {
            return self
                .decoder
                .decode_s16(packet, len, out.get_mut(..len)?)
                .ok();
        };
        let out = out.get_mut(..len / lower.step())?;
        let whole = whole.get_mut(..len)?;
        let made = self.decoder.decode_s16(packet, len, whole).ok()?;
        Some(lower.fill(whole.get(..made)?, out))
    }

    fn conceal(&mut self, next: Option<&[u8]>, samples: &mut [i16]) {
        let mut make = |samples: &mut [i16]| {
            let len = samples.len();
            let made = match next {
                Some(next) => self.decoder.decode_fec_s16(next, len, samples),
                None => self.decoder.decode_s16(&[], len, samples),
            };
            let made = made.unwrap_or(0).min(len);
            samples[made..].fill(0);
        };
        match &mut self.lower {
            None => make(samples),
            Some((lower, whole)) => {
                let len = (samples.len() * lower.step()).min(SAMPLES_MAX);
                make(&mut whole[..len]);
                let made = lower.fill(&whole[..len], samples);
                samples[made..].fill(0);
            }
        }
    }

    fn reset(&mut self) {
        // It fails for no rate.
        self.decoder.reset_state().ok();
        if let Some((lower, _)) = &mut self.lower {
            lower.reset();
        }
    }
}

/// Finds out how loud packets are, at the least cost: what is heard of it would be noisy, and is not.
pub struct Meter {
    decoder: Box<OpusDecoder>,
    samples: Box<[i16; SAMPLES_MAX / 6]>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

impl Meter {
    /// A meter; `None` if the library can't.
    #[must_use]
    pub fn new() -> Option<Self> {
        Some(Self {
            decoder: Box::new(OpusDecoder::new(8_000, 1).ok()?),
            samples: Box::new([0; SAMPLES_MAX / 6]),
        })
    }

    /// The samples of a packet, for [`crate::level`]; `None` for what is no Opus.
    pub fn samples(&mut self, packet: &[u8]) -> Option<&[i16]> {
        let len = packet::samples(packet, 8_000).ok()?;
        let samples = self.samples.get_mut(..len)?;
        let made = self.decoder.decode_s16(packet, len, samples).ok()?;
        Some(&samples[..made.min(len)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{amplitude, snr, tone};

    type Encoder = <Opus as OpusCodec>::Encoder;
    type Decoder = <Opus as OpusCodec>::Decoder;

    fn packets(rate: u32, sound: &[i16]) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(rate).expect("a rate of Opus");
        let frame = usize::try_from(rate / 50).expect("small");
        let code = |samples: &[i16]| {
            let mut out = [0; PACKET_LEN_MAX];
            let len = encoder.encode(samples, &mut out).expect("a frame");
            out[..len].to_vec()
        };
        sound.chunks(frame).map(code).collect()
    }

    #[test]
    fn a_tone_comes_through_at_every_rate() {
        for rate in [8_000, 16_000, 48_000] {
            let second = usize::try_from(rate).expect("small");
            let sound = tone(rate, 1_000.0, 10_000.0, second);
            let mut decoder = Decoder::new(rate).expect("a rate of Opus");
            let mut heard = Vec::new();
            for packet in packets(rate, &sound) {
                assert_eq!(duration(&packet), Some(960));
                let mut out = [0; SAMPLES_MAX];
                let len = decoder.decode(&packet, &mut out).expect("our own packet");
                heard.extend_from_slice(&out[..len]);
            }
            assert_eq!(heard.len(), second);
            let settled = &heard[second / 5..];
            let peak = amplitude(settled, rate, 1_000.0);
            assert!((9_000.0..11_000.0).contains(&peak), "{rate}: {peak}");
            let got = snr(settled, rate, 1_000.0);
            assert!(got >= 35.0, "{rate}: {got} dB");
        }
    }

    #[test]
    fn what_a_lower_rate_does_not_carry_is_not_folded_into_it() {
        // As a browser sends it: a sound within the phone's band, and another above.
        let (low, high) = (
            tone(48_000, 1_000.0, 6_000.0, 48_000),
            tone(48_000, 5_500.0, 6_000.0, 48_000),
        );
        let sound: Vec<i16> = low.iter().zip(high).map(|(low, high)| low + high).collect();
        let mut decoder = Decoder::new(8_000).expect("a rate of Opus");
        let mut heard = Vec::new();
        for packet in packets(48_000, &sound) {
            let mut out = [0; SAMPLES_MAX];
            let len = decoder.decode(&packet, &mut out).expect("our own packet");
            heard.extend_from_slice(&out[..len]);
        }
        let settled = &heard[1_600..];
        assert!((5_400.0..6_600.0).contains(&amplitude(settled, 8_000, 1_000.0)));
        let folded = amplitude(settled, 8_000, 2_500.0);
        assert!(folded < 60.0, "{folded}");
    }

    #[test]
    fn what_is_lost_is_made_up_and_other_frames_are_refused() {
        let sound = tone(8_000, 200.0, 8_000.0, 8_000);
        let packets = packets(8_000, &sound);
        let mut decoder = Decoder::new(8_000).expect("a rate of Opus");
        let mut out = [0; SAMPLES_MAX];
        for packet in &packets[..20] {
            decoder.decode(packet, &mut out).expect("our own packet");
        }
        for next in [None, Some(&packets[22][..])] {
            let mut made = [0; 160];
            decoder.conceal(next, &mut made);
            assert!(amplitude(&made, 8_000, 200.0) > 3_000.0, "{next:?}");
        }
        decoder.reset();
        assert!(decoder.decode(&packets[23], &mut out).is_some());

        let mut encoder = Encoder::new(8_000).expect("a rate of Opus");
        assert_eq!(encoder.encode(&[0; 159], &mut [0; PACKET_LEN_MAX]), None);
        assert!(Encoder::new(44_100).is_none() && Decoder::new(44_100).is_none());
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let mut decoder = Decoder::new(16_000).expect("a rate of Opus");
        let mut out = [0; SAMPLES_MAX];
        assert_eq!(decoder.decode(&[], &mut out), None);
        let mut random = 1_u64;
        for round in 0..3_000 {
            let bytes: Vec<u8> = (0..round % 300)
                .map(|_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    random.to_be_bytes()[0]
                })
                .collect();
            let len = decoder.decode(&bytes, &mut out).unwrap_or(0);
            assert!(len <= 1_920);
            // Too little room is no reason to stop.
            decoder.decode(&bytes, &mut out[..40]);
        }
    }
}
