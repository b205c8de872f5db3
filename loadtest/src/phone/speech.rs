//! What is said: made of the harmonics of a voice, in syllables; or a silence with a tone in it, to see when it comes.

use std::f64::consts::TAU;

use anyhow::Context;
use gateway_media::codec::{CODED_LEN_MAX, Encoder, frame_len};
use gateway_media::opus::{Encode, Opus, OpusCodec, PACKET_LEN_MAX};
use gateway_sip::negotiate::Codec;
use model::TrackId;
use model::plain::{Level, Packet};

/// How many frames of speech there are until it begins anew: four seconds.
const FRAMES: usize = 200;

/// In the signal: frames until it begins anew, and which of them is the first of the tone.
pub(super) const SIGNAL_FRAMES: u64 = 50;
pub(super) const SIGNAL_AT: u64 = 40;

/// How loud the tone is.
pub(super) const SIGNAL_PEAK: f64 = 16_000.0;

/// The packet of this number, over and over.
pub(super) fn at(packets: &[Vec<u8>], number: u64) -> &[u8] {
    let at = usize::try_from(number).unwrap_or(0);
    &packets[at % packets.len()]
}

/// Speech of `rate` samples a second.
fn speech(rate: u32) -> Vec<i16> {
    let mut noise = 1_u64;
    (0..FRAMES * frame_len(rate))
        .map(|at| {
            let time = at as f64 / f64::from(rate);
            // Four syllables a second, and a pitch that goes up and down.
            let syllable = (TAU * 2.0 * time).sin().abs().powi(2);
            let pitch = 120.0 + 25.0 * (TAU * 0.7 * time).sin();
            let voice: f64 = (1..20)
                .map(|harmonic| {
                    let hertz = pitch * f64::from(harmonic);
                    let formant = 1.0 / (1.0 + ((hertz - 600.0) / 400.0).powi(2));
                    (TAU * hertz * time).sin() * (formant + 0.05)
                })
                .sum();
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let hiss = f64::from(u16::try_from(noise >> 48).unwrap_or(0)) / 65_536.0 - 0.5;
            rounded(syllable * (voice * 3_000.0 + hiss * 1_500.0))
        })
        .collect()
}

/// A tone of `seconds`.
pub(super) fn tone(rate: u32, hertz: f64, peak: f64, seconds: usize) -> Vec<i16> {
    (0..seconds * frame_len(rate) * 50)
        .map(|at| rounded(peak * (TAU * hertz * at as f64 / f64::from(rate)).sin()))
        .collect()
}

/// A second of silence, whose last 200 ms are a tone.
fn signal(rate: u32) -> Vec<i16> {
    let mut samples = tone(rate, 1_000.0, SIGNAL_PEAK, 1);
    let begin = frame_len(rate) * usize::try_from(SIGNAL_AT).unwrap_or(0);
    samples[..begin].fill(0);
    samples
}

fn rounded(sample: f64) -> i16 {
    #[expect(clippy::cast_possible_truncation, reason = "far below what fits")]
    let sample = sample as i16;
    sample
}

/// Speech as a phone sends it.
pub(super) fn packets(codec: Codec) -> anyhow::Result<Vec<Vec<u8>>> {
    coded(codec, &speech(codec.sample_rate()))
}

/// The signal as a phone sends it, in the middle of others.
pub(super) fn signals(codec: Codec) -> anyhow::Result<Vec<Vec<u8>>> {
    let once = signal(codec.sample_rate());
    let coded = coded(codec, &[&once[..], &once[..]].concat())?;
    Ok(coded[coded.len() / 2..].to_vec())
}

/// `samples` in the codec.
pub(super) fn coded(codec: Codec, samples: &[i16]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut encoder = Encoder::new(codec).context("no such codec")?;
    let code = |frame: &[i16]| {
        let mut bytes = vec![0; CODED_LEN_MAX];
        let len = encoder.encode(frame, &mut bytes);
        bytes.truncate(len);
        bytes
    };
    let frames = samples.chunks_exact(frame_len(codec.sample_rate()));
    Ok(frames.map(code).collect())
}

/// Speech as a Room has it, made of so many samples a second.
pub(super) fn opus(rate: u32) -> anyhow::Result<Vec<Vec<u8>>> {
    opus_of(rate, &speech(rate))
}

/// `samples` as a Room has them.
pub(super) fn opus_of(rate: u32, samples: &[i16]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut encoder = <Opus as OpusCodec>::Encoder::new(rate).context("no Opus")?;
    let code = |frame: &[i16]| {
        let mut bytes = vec![0; PACKET_LEN_MAX];
        let len = encoder.encode(frame, &mut bytes).unwrap_or(0);
        bytes.truncate(len);
        bytes
    };
    let frames = samples.chunks_exact(frame_len(rate));
    Ok(frames.map(code).collect())
}

/// A packet of RTP.
pub(super) fn packet(codec: Codec, ssrc: u32, number: u64, payload: &[u8]) -> Vec<u8> {
    let ticks = u64::from(codec.clock_rate() / 50);
    let [.., a, b, c, d] = (number * ticks).to_be_bytes();
    let [.., high, low] = number.to_be_bytes();
    let mut bytes = vec![0x80, codec.payload_type(), high, low, a, b, c, d];
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// What goes before a packet of Opus in a ring.
pub(super) fn header(number: u64) -> Packet {
    let [.., high, low] = number.to_be_bytes();
    let [.., a, b, c, d] = (number * 960).to_be_bytes();
    Packet {
        slot: 0,
        track: TrackId::from_u128(7),
        sequence: u16::from_be_bytes([high, low]),
        timestamp: u32::from_be_bytes([a, b, c, d]),
        marker: false,
        level: Some(Level {
            below_full: 25,
            voice: true,
        }),
    }
}
