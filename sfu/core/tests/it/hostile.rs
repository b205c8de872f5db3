//! Publishers and subscribers that lie.

use std::collections::BTreeSet;
use std::time::Duration;

use model::room::Source;
use proptest::prelude::*;
use sfu_core::{Dropped, EncodingConfig, FREE_MAX, Refusal, SSRC_CHANGES_MAX};
use sfu_rtp::extension::ExtensionKind;

use crate::stage::{AV1, In, OPUS, RED, SLOT_SSRC, Stage, VP8, VP8_RTX, VP9, Vp8, encoding, opus};

#[test]
fn unknown_ssrcs_are_taken_by_name_and_not_for_ever() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let rids: Vec<_> = ["q", "h"]
        .map(|rid| EncodingConfig {
            rid: Some(rid.to_owned()),
            ..EncodingConfig::default()
        })
        .into();
    let track = stage.publish(alice, Source::Camera, &rids);
    let slot = stage.slot(bob, false);
    stage.subscribe(slot, track).unwrap();
    let named =
        |packet: In, kind, rid: &[u8]| packet.with(ExtensionKind::Mid, b"mcamera").with(kind, rid);
    let picture = |ssrc, n| {
        Vp8 {
            ssrc,
            ..Vp8::picture(n, true)
        }
        .packet()
    };

    assert_eq!(
        stage.try_send(alice, &picture(7, 1)).1,
        Some(Dropped::UnknownSsrc)
    );
    let wrong = picture(7, 1)
        .with(ExtensionKind::Mid, b"other")
        .with(ExtensionKind::Rid, b"q");
    assert_eq!(stage.try_send(alice, &wrong).1, Some(Dropped::UnknownSsrc));
    let wrong = named(picture(7, 1), ExtensionKind::Rid, b"x");
    assert_eq!(stage.try_send(alice, &wrong).1, Some(Dropped::UnknownSsrc));

    assert_eq!(
        stage
            .send(alice, &named(picture(7, 1), ExtensionKind::Rid, b"q"))
            .len(),
        1
    );
    assert_eq!(
        stage.send(alice, &picture(7, 2)).len(),
        1,
        "known from now on"
    );
    let resent = named(picture(7, 4).resent(1), ExtensionKind::RepairedRid, b"q");
    assert_eq!((resent.fixed.payload_type, resent.fixed.ssrc), (VP8_RTX, 8));
    assert_eq!(stage.send(alice, &resent).len(), 1);

    let refused = (100..1000)
        .map(|ssrc| {
            stage
                .try_send(alice, &named(picture(ssrc, 5), ExtensionKind::Rid, b"q"))
                .1
        })
        .filter(|dropped| *dropped == Some(Dropped::TooManySsrcs))
        .count();
    assert_eq!(refused, 900 - SSRC_CHANGES_MAX as usize);
    assert_eq!(
        stage.room.stats().dropped(Dropped::TooManySsrcs),
        refused as u64
    );
}

#[test]
fn an_encoding_that_goes_on_under_another_ssrc_begins_anew() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish(alice, Source::Camera, &[encoding(None, 100)]);
    let slot = stage.slot(bob, false);
    stage.subscribe(slot, track).unwrap();
    stage.send(alice, &Vp8::picture(1, true).packet());
    stage.send(alice, &Vp8::picture(2, false).packet());
    stage.advance(Duration::from_millis(100));

    let other = |n, key| {
        Vp8 {
            ssrc: 555,
            timestamp: 3_000_000_000 + u32::from(n) * 3000,
            ..Vp8::picture(n, key)
        }
        .packet()
        .with(ExtensionKind::Mid, b"mcamera")
    };
    assert!(
        stage.send(alice, &other(30_000, false)).is_empty(),
        "its pictures refer to others"
    );
    let out = stage.send(alice, &other(30_001, true));
    assert_eq!((out[0].sequence(), out[0].vp8().0), (1002, 32));
    let step = out[0].fixed.timestamp - 5000;
    assert!((3000..20_000).contains(&step), "{step}");
    assert_eq!(
        stage.try_send(alice, &Vp8::picture(3, false).packet()).1,
        Some(Dropped::UnknownSsrc)
    );
}

#[test]
fn an_ssrc_belongs_to_one_stream() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    stage.publish_camera(alice);
    let config = sfu_core::TrackConfig {
        source: Source::Screen,
        mid: None,
        formats: crate::stage::formats(false),
        encodings: vec![encoding(None, 300), encoding(None, 100)],
        nack: true,
        encrypted: false,
    };

    assert_eq!(
        stage.room.publish(alice, config.clone()),
        Err(Refusal::SsrcCollision)
    );
    assert_eq!(stage.room.len(), (2, 1, 0), "nothing of it is left");
    assert!(
        stage.room.publish(bob, config).is_ok(),
        "another Participant's SSRCs are other ones"
    );
    assert_eq!(
        stage
            .try_send(
                alice,
                &Vp8 {
                    ssrc: 300,
                    ..Vp8::picture(1, true)
                }
                .packet()
            )
            .1,
        Some(Dropped::UnknownSsrc)
    );
}

#[test]
fn payload_types_and_descriptors_that_lie_are_dropped_and_counted() {
    let mut stage = Stage::new();
    let alice = stage.join();
    stage.publish_camera(alice);
    stage.publish_microphone(alice);
    let mut packet = Vp8::picture(1, true).packet();

    packet.fixed.payload_type = 111;
    assert_eq!(stage.try_send(alice, &packet).1, Some(Dropped::PayloadType));
    packet.fixed.payload_type = VP8_RTX;
    assert_eq!(stage.try_send(alice, &packet).1, Some(Dropped::PayloadType));
    packet.fixed.payload_type = VP8;
    packet.payload = vec![0x80];
    assert_eq!(stage.try_send(alice, &packet).1, Some(Dropped::Descriptor));
    packet.payload = vec![0; 1400];
    assert_eq!(stage.try_send(alice, &packet).1, Some(Dropped::TooLong));
    assert_eq!(stage.room.stats().dropped(Dropped::PayloadType), 2);
}

#[test]
fn timestamps_that_jump_become_even() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_microphone(alice);
    let slot = stage.slot(bob, true);
    stage.subscribe(slot, track).unwrap();

    let mut before = None;
    for n in 0..100_u16 {
        let mut packet = opus(n);
        packet.fixed.timestamp = packet
            .fixed
            .timestamp
            .wrapping_mul(u32::from(n / 10 + 1))
            .wrapping_add(u32::from(n / 10) * 1_900_000_000);
        let out = stage.send(alice, &packet);
        let timestamp = out[0].fixed.timestamp;
        if let Some(before) = before.replace(timestamp) {
            let step = timestamp.wrapping_sub(before);
            assert!((1..48_000 * 10).contains(&step), "{n}: {step}");
        }
        stage.advance(Duration::from_millis(20));
    }
}

#[test]
fn rtcp_about_others_does_nothing() {
    let mut stage = Stage::new();
    let (alice, bob, eve) = (stage.join(), stage.join(), stage.join());
    let track = stage.publish_camera(alice);
    let slot = stage.slot(bob, false);
    stage.subscribe(slot, track).unwrap();
    stage.send(alice, &Vp8::picture(1, true).packet());
    stage.advance(Duration::from_secs(1));

    assert!(stage.nack(eve, SLOT_SSRC, &[1000]).is_empty());
    assert!(stage.nack(alice, 100, &[1]).is_empty());
    stage.send_rtcp(eve, |builder| builder.pli(1, SLOT_SSRC).unwrap());
    stage.send_rtcp(bob, |builder| builder.pli(1, 100).unwrap());
    assert_eq!(stage.room.stats().key_frames_wanted, 0);
    assert_eq!(stage.room.stats().rtcp_unknown_ssrc, 4);
}

/// Bytes that look enough like RTP for most of the way: known and unknown SSRCs and payload types, numbers near and far.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let ssrc = prop_oneof![4 => 100_u32..103, 2 => Just(50), 1 => any::<u32>()];
    let payload_type = prop_oneof![
        Just(VP8),
        Just(VP8_RTX),
        Just(VP9),
        Just(AV1),
        Just(RED),
        Just(OPUS),
        0_u8..128,
    ];
    let sequence = prop_oneof![8 => 0_u16..200, 1 => any::<u16>()];
    let head = (
        0_u8..2,
        any::<bool>(),
        payload_type,
        sequence,
        any::<u32>(),
        ssrc,
    );
    let extensions = proptest::collection::vec(
        (0_u8..16, proptest::collection::vec(any::<u8>(), 1..17)),
        0..4,
    );

    (
        head,
        extensions,
        proptest::collection::vec(any::<u8>(), 0..60),
    )
        .prop_map(
            |((padding, marker, payload_type, sequence, timestamp, ssrc), extensions, payload)| {
                let mut block = Vec::new();
                for (id, value) in extensions {
                    block.push((id << 4) | u8::try_from(value.len() - 1).unwrap());
                    block.extend_from_slice(&value);
                }
                block.resize(block.len().next_multiple_of(4), 0);

                let mut bytes = vec![
                    0x90 | (padding << 5),
                    (u8::from(marker) << 7) | payload_type,
                ];
                bytes.extend_from_slice(&sequence.to_be_bytes());
                bytes.extend_from_slice(&timestamp.to_be_bytes());
                bytes.extend_from_slice(&ssrc.to_be_bytes());
                bytes.extend_from_slice(&[0xbe, 0xde, 0]);
                bytes.push(u8::try_from(block.len() / 4).unwrap());
                bytes.extend_from_slice(&block);
                bytes.extend_from_slice(&payload);
                bytes
            },
        )
}

/// RTCP packets of any kind about SSRCs that there are, mostly.
fn control() -> impl Strategy<Value = Vec<u8>> {
    let ssrc = prop_oneof![
        Just(SLOT_SSRC),
        Just(SLOT_SSRC + 100),
        Just(100_u32),
        any::<u32>()
    ];
    let head = (0_u8..32, 200_u8..208, ssrc);

    (head, proptest::collection::vec(any::<u32>(), 0..12)).prop_map(
        |((count, kind, ssrc), words)| {
            let mut bytes = vec![
                0x80 | count,
                kind,
                0,
                u8::try_from(words.len() + 2).unwrap(),
            ];
            bytes.extend_from_slice(&ssrc.to_be_bytes());
            bytes.extend_from_slice(&ssrc.to_be_bytes());
            for word in words {
                bytes.extend_from_slice(&word.to_be_bytes());
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn whatever_comes_is_survived_and_no_srtp_index_comes_twice(
        packets in proptest::collection::vec((any::<bool>(), noise(), control(), 0_u64..60), 1..300),
    ) {
        let mut stage = Stage::new();
        let (alice, bob) = (stage.join(), stage.join());
        let camera = stage.publish_camera(alice);
        let voice = stage.publish_microphone(alice);
        let slots = [stage.slot(bob, false), stage.slot(bob, true)];
        stage.subscribe(slots[0], camera).unwrap();
        stage.subscribe(slots[1], voice).unwrap();
        stage.automatic_slot(bob);

        let mut indices = BTreeSet::new();
        for (is_alice, packet, control, millis) in packets {
            let mut out = stage.send_bytes(alice, &packet);
            out.extend(stage.send_rtcp_bytes(if is_alice { alice } else { bob }, &control));
            out.extend(stage.pad(bob, 300));
            for out in out {
                prop_assert!(indices.insert((out.fixed.ssrc, out.index)), "{:?}", out);
            }
            stage.advance(Duration::from_millis(millis));
        }
    }
}

#[test]
fn numbers_of_a_source_do_not_run_away_from_those_who_hear_it() {
    let mut stage = Stage::new();
    let (mallory, bob) = (stage.join(), stage.join());
    stage.publish_microphone(mallory);
    stage.automatic_slot(bob);
    let mut number = 1;
    let mut before = stage.send(mallory, &opus(number)).pop().unwrap().index;

    // More than a whole cycle of numbers, under which nothing leaves.
    for round in 0..5 {
        for _ in 0..12 {
            number = number.wrapping_add(2999);
            let mut empty = opus(number);
            empty.payload.clear();
            empty.padding = 50;
            assert!(stage.send(mallory, &empty).is_empty());
        }
        // The stage opens it as its receiver does.
        number = number.wrapping_add(1);
        let out = stage.send(mallory, &opus(number)).pop().unwrap();
        assert!(out.index - before <= 1 + FREE_MAX, "round {round}");
        before = out.index;
    }

    // What of such a gap comes late has no number; what of a small one does has its own.
    assert!(
        stage
            .send(mallory, &opus(number.wrapping_sub(500)))
            .is_empty()
    );
    assert_eq!(
        stage.send(mallory, &opus(number.wrapping_add(2)))[0].index,
        before + 2,
        "one is missing"
    );
    assert_eq!(
        stage.send(mallory, &opus(number.wrapping_add(1)))[0].index,
        before + 1,
        "here it is"
    );
}

#[test]
fn who_is_told_nothing_of_very_many_packets_still_knows_how_many_there_were() {
    let mut stage = Stage::new();
    let (mallory, bob) = (stage.join(), stage.join());
    let track = stage.publish_microphone(mallory);
    stage.automatic_slot(bob);
    let mut number = 0_u16;
    let first = stage.send(mallory, &opus(number)).pop().unwrap().index;
    let mut written = Vec::new();

    // All that waits is taken back, again and again: two cycles of numbers.
    for _ in 0..140 {
        let mut waiting = Vec::new();
        for _ in 0..1000 {
            number = number.wrapping_add(1);
            waiting.extend(stage.hold(mallory, &opus(number)));
        }
        stage.room.set_muted(track, true);
        written.extend(stage.release(&waiting));
        stage.room.set_muted(track, false);
    }
    assert!((32..64).contains(&written.len()), "{}", written.len());
    assert!(written.iter().all(|out| out.payload.is_empty()));
    number = number.wrapping_add(1);
    let out = stage.send(mallory, &opus(number)).pop().unwrap();
    assert_eq!(
        (out.index, out.payload.is_empty()),
        (first + 140_001, false)
    );
}
