use opus_pure::{Application, OggOpusWriter, OpusEncoder, OpusHead};
use proptest::prelude::*;

use super::*;
use crate::g711::Law;
use crate::tone::{amplitude, snr, tone};

const SECONDS_MAX: u32 = 60;

fn len(rate: u32) -> usize {
    usize::try_from(rate).unwrap()
}

/// A WAV file of any kind.
fn wav(tag: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let mut file = b"RIFF\0\0\0\0WAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
    file.extend(tag.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend((rate * u32::from(channels) * u32::from(bits / 8)).to_le_bytes());
    file.extend((channels * (bits / 8)).to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(b"data");
    file.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    file.extend(data);
    file
}

fn linear(samples: &[i16]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect()
}

/// Opus in Ogg as another library writes it.
fn ogg(channels: usize, samples: &[i16], gain: i16) -> Vec<u8> {
    let mut encoder = OpusEncoder::new(48_000, channels, Application::Audio).unwrap();
    encoder.bitrate_bps = 96_000;
    let mut head = OpusHead::for_encoder(&encoder, 48_000);
    head.output_gain_q8 = gain;
    let mut writer = OggOpusWriter::new(Vec::new(), head).unwrap();
    let mut packet = [0; 4_000];
    for block in samples.chunks_exact(960 * channels) {
        let len = encoder.encode_s16(block, 960, &mut packet).unwrap();
        writer.write_packet(&packet[..len]).unwrap();
    }
    writer.finish().unwrap()
}

fn play(file: &[u8]) -> Clip {
    read(file, SECONDS_MAX).unwrap().1
}

fn check_tone(clip: &Clip, hertz: f64, peak: f64, snr_min: f64) {
    let (samples, rate) = (clip.samples(), clip.rate());
    let inner = &samples[samples.len() / 10..samples.len() * 9 / 10];
    let (heard, clean) = (amplitude(inner, rate, hertz), snr(inner, rate, hertz));
    assert!((heard / peak - 1.0).abs() < 0.03, "{hertz} Hz at {heard}");
    assert!(clean > snr_min, "{clean} dB");
}

#[test]
fn every_kind_of_wav_plays_at_a_rate_of_legs() {
    for (rate, expected) in [
        (8_000, 8_000),
        (11_025, 16_000),
        (16_000, 16_000),
        (44_100, 16_000),
        (48_000, 16_000),
    ] {
        let samples = tone(rate, 1_000.0, 10_000.0, len(rate) * 2);
        let clip = play(&wav(1, 1, rate, 16, &linear(&samples)));
        assert_eq!((clip.rate(), clip.millis()), (expected, 2_000));
        check_tone(&clip, 1_000.0, 10_000.0, 60.0);
    }
    let samples = tone(8_000, 1_000.0, 10_000.0, 8_000);
    for (tag, law) in [(6, Law::A), (7, Law::Mu)] {
        let mut data = vec![0; samples.len()];
        law.encode(&samples, &mut data);
        check_tone(
            &play(&wav(tag, 1, 8_000, 8, &data)),
            1_000.0,
            10_000.0,
            35.0,
        );
    }
    // Of two channels one is silent.
    let both: Vec<i16> = samples.iter().flat_map(|sample| [*sample, 0]).collect();
    check_tone(
        &play(&wav(1, 2, 8_000, 16, &linear(&both))),
        1_000.0,
        5_000.0,
        60.0,
    );
    let written = write_wav(8_000, 1, &samples);
    assert_eq!(play(&written).samples(), samples);
}

#[test]
fn opus_in_ogg_plays_as_long_as_it_is() {
    let samples = tone(48_000, 1_000.0, 10_000.0, 96_000);
    let clip = play(&ogg(1, &samples, 0));
    assert_eq!(clip.rate(), 16_000);
    // What the encoder needs to begin with is left out (RFC 7845 §4.2).
    assert!((1_990..=2_000).contains(&clip.millis()), "{clip:?}");
    check_tone(&clip, 1_000.0, 10_000.0, 35.0);
    let both: Vec<i16> = samples.iter().flat_map(|sample| [*sample; 2]).collect();
    check_tone(&play(&ogg(2, &both, 0)), 1_000.0, 10_000.0, 35.0);
    // 6 dB less, in 1/256 dB.
    check_tone(&play(&ogg(1, &samples, -6 * 256)), 1_000.0, 5_012.0, 35.0);
}

#[test]
fn what_cannot_be_played_is_told() {
    let second = linear(&[0; 8_000]);
    let check = |file: &[u8], expected: &str| {
        let error = read(file, 2).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    check(b"", "neither WAV nor Opus in Ogg");
    check(b"ID3", "neither WAV nor Opus in Ogg");
    check(
        &wav(1, 1, 8_000, 24, &second),
        "its samples are neither linear",
    );
    check(
        &wav(3, 1, 8_000, 32, &second),
        "its samples are neither linear",
    );
    check(&wav(1, 3, 8_000, 16, &second), "3 channels");
    check(&wav(1, 0, 8_000, 16, &second), "0 channels");
    check(&wav(1, 1, 96_000, 16, &second), "96000 samples a second");
    check(&wav(1, 1, 0, 16, &second), "0 samples a second");
    check(&wav(1, 1, 8_000, 16, &[]), "there are no samples");
    check(&wav(1, 1, 8_000, 16, &second)[..50], "there are no samples");
    let long = linear(&[0; 16_001]);
    check(&wav(1, 1, 8_000, 16, &long), "longer than 2 s");
    check(&ogg(1, &vec![0; 48_000 * 3], 0), "longer than 2 s");
    check(b"OggS\0", "a page of it is cut off");
    let mut other = ogg(1, &[0; 9_600], 0);
    let head = other
        .windows(8)
        .position(|bytes| bytes == b"OpusHead")
        .unwrap();
    other[head] = b'X';
    check(&other, "what is in the Ogg is not Opus");
}

#[test]
fn a_packet_over_several_pages_is_one_and_its_lost_part_is_left_out() {
    /// A page with the segments given.
    fn page(flags: u8, segments: &[u8], body: &[u8]) -> Vec<u8> {
        let mut page = b"OggS\0".to_vec();
        page.push(flags);
        page.extend([0xff; 8]);
        page.extend([0; 12]);
        page.push(u8::try_from(segments.len()).unwrap());
        page.extend(segments);
        page.extend(body);
        page
    }

    let head = [&b"OpusHead\x01\x01"[..], &[0; 9]].concat();
    let begin = [page(2, &[19], &head), page(0, &[8], b"OpusTags")].concat();
    let long = [7; 300];
    let first = page(0, &[255], &long[..255]);
    let second = page(1, &[45, 3], &[&long[255..], b"abc"].concat());
    let whole = [&begin[..], &first, &second].concat();
    let stream = ogg::Stream::parse(&whole).unwrap();
    assert_eq!(stream.packets, [long.to_vec(), b"abc".to_vec()]);
    // Without the first part there is no packet; without the second another one begins.
    let stream = ogg::Stream::parse(&[&begin[..], &second].concat()).unwrap();
    assert_eq!(stream.packets, [b"abc".to_vec()]);
    let other = page(0, &[2], b"xy");
    let stream = ogg::Stream::parse(&[&begin[..], &first, &other].concat()).unwrap();
    assert_eq!(stream.packets, [b"xy".to_vec()]);
}

#[test]
fn a_file_that_is_cut_anywhere_is_read_or_refused() {
    for file in [write_wav(8_000, 1, &[5; 400]), ogg(1, &[100; 4_800], 0)] {
        for end in 0..file.len() {
            let _ = read(&file[..end], SECONDS_MAX);
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_given_is_read_or_refused(
        is_wav in any::<bool>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = match is_wav {
            true => wav(1, 2, 22_050, 16, &[9; 400]),
            false => ogg(1, &[100; 2_880], 0),
        };
        for (at, byte) in edits {
            *at.get_mut(&mut file) = byte;
        }
        if let Ok((_, clip)) = read(&file, SECONDS_MAX) {
            prop_assert!([8_000, 16_000].contains(&clip.rate()));
            prop_assert!(clip.millis() <= u64::from(SECONDS_MAX) * 1_000);
        }
    }
}
