//! How calls sound: a tone, and speech for others to judge, through a Leg in simulated time.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::task::Waker;
use std::time::Instant;

use anyhow::Context;
use gateway_media::codec::{Decoder, frame_len};
use gateway_media::leg::To;
use gateway_media::opus::{Decode, Opus, OpusCodec, SAMPLES_MAX};
use gateway_sip::negotiate::Codec;
use model::TrackId;
use model::plain::{self, PAYLOAD_LEN_MAX};
use sfu_rtp::packet::Packet;
use sfu_rtp::{DatagramKind, classify};

use super::codecs::new_leg;
use super::{FRAME, name, speech};

/// What people in Rooms speak at.
const ROOM_RATE: u32 = 48_000;

/// Which way sound goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the phone into the Room.
    In,
    /// From the Room to the phone.
    Out,
}

impl Way {
    pub(super) const BOTH: [Self; 2] = [Self::In, Self::Out];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}

/// How much louder a tone of 1 kHz is than all else when it arrives, in dB. Whoever gives it in the Room has the phone's band: what a wider one
/// costs their own coder is not asked here.
pub(super) fn snr(codec: Codec, way: Way) -> anyhow::Result<f64> {
    const HERTZ: f64 = 1_000.0;
    let rate = codec.sample_rate();
    let tone = speech::tone(rate, HERTZ, 10_000.0, 4);
    let heard = carry(codec, way, rate, &tone)?;
    // The first second is for encoders to find out what they hear.
    let second = frame_len(rate) * 50;
    let settled = heard
        .get(second..3 * second)
        .context("less was heard than was said")?;
    Ok(tone_to_rest(settled, rate, HERTZ))
}

/// Sends the speech of a folder through calls, and writes what is heard.
pub(super) fn carry_speech(folder: &Path) -> anyhow::Result<()> {
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus] {
        let alone = read(folder, codec.sample_rate())?;
        write(folder, codec, "alone", &coded_once(codec, &alone)?)?;
        for way in Way::BOTH {
            let rate = match way {
                Way::In => codec.sample_rate(),
                Way::Out => ROOM_RATE,
            };
            let heard = carry(codec, way, rate, &read(folder, rate)?)?;
            write(folder, codec, &way.to_string(), &heard)?;
        }
    }
    Ok(())
}

/// What is heard at the other side of a call of what is `said` at `rate` samples a second. Whoever listens in the Room hears the phone's band.
fn carry(codec: Codec, way: Way, rate: u32, said: &[i16]) -> anyhow::Result<Vec<i16>> {
    let phone = SocketAddr::from(([192, 0, 2, 1], 4_000));
    let mut now = Instant::now();
    let mut leg = new_leg(now, codec, phone)?;
    let (mut room, end) = plain::pair(Waker::noop().clone());
    leg.connect(To::Room(end, TrackId::from_u128(1)));
    let mut of_phone = Decoder::new(codec).context("no such codec")?;
    let mut of_room = <Opus as OpusCodec>::Decoder::new(codec.sample_rate()).context("no Opus")?;
    let packets = match way {
        Way::In => speech::coded(codec, said)?,
        Way::Out => speech::opus_of(rate, said)?,
    };
    let mut heard = Vec::new();
    let mut samples = [0; SAMPLES_MAX];
    for (number, payload) in (0..).zip(&packets) {
        match way {
            Way::In => {
                let mut packet = speech::packet(codec, 1, number, payload);
                leg.handle_rtp(now, phone, &mut packet);
            }
            Way::Out => room.send(&speech::header(number), payload)?,
        }
        leg.tick(now, |_, _, bytes| {
            if way == Way::Out
                && classify(bytes) == Some(DatagramKind::Rtp)
                && let Ok(packet) = Packet::parse(bytes)
            {
                let made = of_phone.decode(packet.payload(), &mut samples);
                heard.extend_from_slice(&samples[..made]);
            }
        });
        let mut payload = [0; PAYLOAD_LEN_MAX];
        while let Some((_, len)) = room.receive(&mut payload) {
            let made = of_room.decode(&payload[..len], &mut samples);
            if way == Way::In {
                heard.extend_from_slice(&samples[..made.unwrap_or(0)]);
            }
        }
        now += FRAME;
    }
    Ok(heard)
}

/// What is heard of `said` when it is coded and read, and nothing else.
fn coded_once(codec: Codec, said: &[i16]) -> anyhow::Result<Vec<i16>> {
    let mut decoder = Decoder::new(codec).context("no such codec")?;
    let mut heard = Vec::new();
    let mut samples = [0; SAMPLES_MAX];
    for payload in speech::coded(codec, said)? {
        let made = decoder.decode(&payload, &mut samples);
        heard.extend_from_slice(&samples[..made]);
    }
    Ok(heard)
}

/// The tone is fitted in amplitude and phase; what is left is the rest.
fn tone_to_rest(samples: &[i16], rate: u32, hertz: f64) -> f64 {
    let angle = |at: usize| std::f64::consts::TAU * hertz * at as f64 / f64::from(rate);
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (at, sample) in samples.iter().enumerate() {
        sine += f64::from(*sample) * angle(at).sin();
        cosine += f64::from(*sample) * angle(at).cos();
    }
    let scale = 2.0 / samples.len() as f64;
    let (sine, cosine) = (sine * scale, cosine * scale);
    let (mut signal, mut rest) = (0.0, 0.0);
    for (at, sample) in samples.iter().enumerate() {
        let ideal = sine * angle(at).sin() + cosine * angle(at).cos();
        signal += ideal * ideal;
        rest += (f64::from(*sample) - ideal).powi(2);
    }
    10.0 * (signal / rest.max(f64::MIN_POSITIVE)).log10()
}

fn read(folder: &Path, rate: u32) -> anyhow::Result<Vec<i16>> {
    let path = folder.join(format!("speech-{rate}.raw"));
    let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
    let samples = bytes.as_chunks().0.iter();
    Ok(samples.map(|sample| i16::from_le_bytes(*sample)).collect())
}

fn write(folder: &Path, codec: Codec, what: &str, samples: &[i16]) -> anyhow::Result<()> {
    let path = folder.join(format!("{}-{what}.raw", name(codec)));
    let bytes: Vec<u8> = samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    fs::write(&path, bytes).with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same of the Room's coder and the phone's, one behind the other, with nothing of ours between.
    fn snr_of_coders(codec: Codec) -> f64 {
        let rate = codec.sample_rate();
        let mut of_room = <Opus as OpusCodec>::Decoder::new(rate).unwrap();
        let (mut heard, mut samples) = (Vec::new(), [0; SAMPLES_MAX]);
        for payload in speech::opus_of(rate, &speech::tone(rate, 1_000.0, 10_000.0, 4)).unwrap() {
            let made = of_room.decode(&payload, &mut samples).unwrap();
            heard.extend_from_slice(&samples[..made]);
        }
        if codec != Codec::Opus {
            heard = coded_once(codec, &heard).unwrap();
        }
        let second = frame_len(rate) * 50;
        tone_to_rest(&heard[second..3 * second], rate, 1_000.0)
    }

    #[test]
    fn calls_sound_as_the_design_asks_in_every_codec() {
        for codec in [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus] {
            let (into, out) = (snr(codec, Way::In).unwrap(), snr(codec, Way::Out).unwrap());
            let coders = snr_of_coders(codec);
            println!(
                "{codec:?}: {into:.1} dB in, {out:.1} dB out, the coders alone {coders:.1} dB"
            );
            assert!(into >= 35.0, "{codec:?} in: {into} dB");
            // How well people in the Room are coded is for their browsers to choose: next to nothing is lost behind that.
            assert!(
                out >= 35.0 || out >= coders - 1.0,
                "{codec:?} out: {out} dB of {coders}"
            );
        }
    }

    #[test]
    fn a_tone_with_a_tenth_of_another_is_20_db_above_it() {
        let rest = speech::tone(8_000, 700.0, 1_000.0, 1);
        let mixed: Vec<i16> = speech::tone(8_000, 1_000.0, 10_000.0, 1)
            .iter()
            .zip(rest)
            .map(|(tone, rest)| tone + rest)
            .collect();
        let snr = tone_to_rest(&mixed, 8_000, 1_000.0);
        assert!((19.9..20.1).contains(&snr), "{snr}");
    }
}
