//! What is played to a Leg, and what it says kept.

use super::*;
use crate::files::Clip;
use crate::level;
use crate::player::{Item, Playlist};

/// A player of a tone that begins anywhere in its period.
fn player(rate: u32, hertz: f64, millis: u32) -> To {
    let quarter = usize::try_from(rate).unwrap() / 1_000;
    let len = usize::try_from(rate * millis / 1_000).unwrap();
    let samples = tone(rate, hertz, 10_000.0, len + quarter);
    let list = Playlist {
        items: vec![Item::Clip(Clip::new(rate, &samples[quarter..]))],
        repeat_from: None,
    };
    To::Player(Box::new(Player::new(list)), 7)
}

fn played(call: &Call) -> usize {
    let is = |event: &&Event| **event == Event::Played(7);
    call.events.iter().filter(is).count()
}

#[test]
fn what_is_played_is_heard_whole_and_its_end_is_told_once() {
    for codec in [Codec::Pcma, Codec::G722, Codec::Opus] {
        let rate = codec.sample_rate();
        let mut call = Call::new(codec);
        call.leg.connect(player(16_000, 1_000.0, 1_000));
        for _ in 0..50 {
            call.tick();
            assert_eq!(played(&call), 0, "{codec:?}");
        }
        for _ in 0..20 {
            call.tick();
        }
        assert_eq!(played(&call), 1, "{codec:?}");
        let second = usize::try_from(rate).unwrap();
        let heard = &call.phone.heard[second / 10..second * 9 / 10];
        let (peak, snr) = (amplitude(heard, rate, 1_000.0), snr(heard, rate, 1_000.0));
        assert!((9_000.0..10_500.0).contains(&peak), "{codec:?}: {peak}");
        assert!(snr > 30.0, "{codec:?}: {snr} dB");
        assert!(level(&call.phone.heard[second * 12 / 10..]) > 60);
    }
}

#[test]
fn nothing_clicks_when_one_sound_gives_way_to_another() {
    let mut call = Call::new(Codec::Pcmu);
    // Cut off at all parts of a period, which 20 ms are no multiple of.
    for number in 0..20 {
        call.leg.connect(player(8_000, 330.0, 2_000));
        for _ in 0..5 {
            call.tick();
        }
        call.leg.connect(match number % 4 {
            0 => To::Nothing,
            1 => To::Music,
            2 => To::Ringback,
            _ => player(16_000, 220.0, 2_000),
        });
        for _ in 0..5 {
            call.tick();
        }
    }
    let heard = &call.phone.heard;
    assert!(level(heard) < 20, "something is heard");
    // The tone itself goes 2,590 in a sample, and as much again while another comes; the code adds its noise. A cut at the peak goes 10,000.
    let step = heard.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max();
    assert!(step < Some(3_600), "{step:?}");
}

#[test]
fn who_holds_misses_nothing() {
    let mut held = agreed(Codec::Pcma);
    held.direction = Direction::Inactive;
    let mut call = Call::new(Codec::Pcma);
    call.leg.connect(player(8_000, 1_000.0, 1_000));
    for _ in 0..25 {
        call.tick();
    }
    call.leg.agree(call.now, &held).unwrap();
    for _ in 0..100 {
        call.tick();
    }
    assert_eq!(played(&call), 0);
    call.leg.agree(call.now, &agreed(Codec::Pcma)).unwrap();
    for _ in 0..27 {
        call.tick();
    }
    assert_eq!(played(&call), 1);
    assert!((8_000..8_500).contains(&call.phone.heard.len()));
}

#[test]
fn a_message_has_what_was_said_and_ends_with_silence() {
    for (codec, rate) in [
        (Codec::Pcma, 8_000),
        (Codec::Pcmu, 8_000),
        (Codec::G722, 16_000),
        (Codec::Opus, 16_000),
    ] {
        let mut call = Call::new(codec);
        call.leg.connect(To::Nothing);
        let tape = Tape::new(60, Duration::from_secs(2));
        assert!(call.leg.record(Box::new(tape)).is_none());
        let len = frame_len(codec.sample_rate());
        for frame in tone(codec.sample_rate(), 1_000.0, 8_000.0, len * 150).chunks(len) {
            let bytes = call.phone.say(frame);
            call.hear(PHONE, bytes);
            call.tick();
        }
        let mut ticks = 0;
        while call.events.is_empty() {
            call.tick();
            ticks += 1;
            assert!(ticks < 250, "{codec:?}: it never ends");
        }
        assert_eq!(call.events, [Event::Stopped(Stopped::Silent)]);
        let tape = call.leg.take_tape().unwrap();
        assert_eq!(tape.rate(), rate);
        let second = usize::try_from(rate).unwrap();
        let said = &tape.message().unwrap()[second..second * 5 / 2];
        let (peak, snr) = (amplitude(said, rate, 1_000.0), snr(said, rate, 1_000.0));
        assert!((7_500.0..8_500.0).contains(&peak), "{codec:?}: {peak}");
        let least = if codec == Codec::Opus { 28.0 } else { 35.0 };
        assert!(snr >= least, "{codec:?}: {snr} dB");
    }
}
