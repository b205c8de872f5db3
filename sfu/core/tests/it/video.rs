//! What of which Track goes to whom.

use std::time::Duration;

use model::room::Source;
use sfu_core::{BEGINNING_AGE_MAX, Bitrate, Dropped, Output, Refusal, SlotConfig};
use sfu_rtp::extension::ExtensionKind;

use crate::stage::{RED, SLOT_SSRC, Stage, VP8, Vp8, formats, opus};

#[test]
fn everybody_gets_the_packet_in_their_own_numbers() {
    let mut stage = Stage::new();
    let alice = stage.join();
    let track = stage.publish_camera(alice);
    let slots: Vec<_> = (0..3)
        .map(|_| {
            let subscriber = stage.join();
            let slot = stage.slot(subscriber, false);
            stage.subscribe(slot, track).unwrap();
            slot
        })
        .collect();

    let packet = Vp8::picture(700, true)
        .packet()
        .with(ExtensionKind::VideoOrientation, &[3])
        .with(ExtensionKind::Mid, b"mcamera")
        .with(ExtensionKind::TransportSequenceNumber, &[9, 9]);
    let out = stage.send(alice, &packet);

    assert_eq!(out.iter().map(|out| out.slot).collect::<Vec<_>>(), slots);
    for (out, n) in out.iter().zip(0..) {
        assert_eq!(out.fixed.ssrc, SLOT_SSRC + 100 * n);
        assert_eq!((out.fixed.payload_type, out.fixed.marker), (VP8, true));
        assert_eq!(
            (out.fixed.sequence_number, out.fixed.timestamp),
            (1000, 5000)
        );
        assert_eq!(out.vp8(), (30, 0));
        assert_eq!(out.payload[5..], packet.payload[5..]);
        let mid = format!("s{n}").into_bytes();
        assert_eq!(out.extensions, [(2, vec![0, 7]), (3, mid), (6, vec![3])]);
    }
}

#[test]
fn whoever_comes_late_begins_with_a_key_frame_of_their_own() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_camera(alice);
    stage.send(alice, &Vp8::picture(1, true).packet());

    // Bob is not connected yet: a key frame would be gone when he is.
    stage.room.set_reachable(stage.now, bob, false);
    let slot = stage.slot(bob, false);
    stage.subscribe(slot, track).unwrap();
    stage.advance(Duration::from_millis(300));
    assert_eq!(stage.room.stats().key_frames_asked, 0);
    assert!(
        stage
            .send(alice, &Vp8::picture(2, true).packet())
            .is_empty()
    );
    stage.advance(2 * BEGINNING_AGE_MAX);

    stage.room.set_reachable(stage.now, bob, true);
    assert_eq!(stage.room.stats().key_frames_asked, 1);
    assert!(
        stage
            .send(alice, &Vp8::picture(3, false).packet())
            .is_empty()
    );
    let out = stage.send(alice, &Vp8::picture(4, true).packet());
    assert_eq!(out[0].sequence(), 1000);
}

#[test]
fn a_picture_that_is_not_a_key_frame_is_no_beginning() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_camera(alice);
    let slot = stage.slot(bob, false);
    stage.send(alice, &Vp8::picture(1, true).packet());
    stage.subscribe(slot, track).unwrap();

    assert!(
        stage
            .send(alice, &Vp8::picture(2, false).packet())
            .is_empty()
    );
    assert_eq!(stage.rtcp().len(), 1, "a key frame is asked for at once");
    assert_eq!(
        stage.send(alice, &Vp8::picture(3, true).packet())[0].sequence(),
        1000
    );
    assert_eq!(
        stage.send(alice, &Vp8::picture(4, false).packet())[0].sequence(),
        1001
    );
}

#[test]
fn a_slot_that_comes_again_goes_on_with_its_numbers() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_camera(alice);
    let config = |ssrc, rtx_ssrc| SlotConfig {
        audio: false,
        automatic: false,
        mid: "s".to_owned(),
        ssrc,
        rtx_ssrc,
        formats: formats(false),
        sequence: 7,
        timestamp: 1,
        picture_id: 2,
    };
    let first = stage
        .room
        .add_slot(stage.now, bob, config(9, Some(10)))
        .unwrap();
    stage.subscribe(first, track).unwrap();
    let sent: Vec<_> = (1..4)
        .flat_map(|number| stage.send(alice, &Vp8::picture(number, number == 1).packet()))
        .collect();
    let resent = stage.nack(bob, 9, &[8]);
    assert_eq!((sent[2].index, resent[0].index), (9, 7));
    let forward = stage.forward(alice, &Vp8::picture(4, false).packet());
    stage.room.remove_slot(first);

    // Neither number is sealed twice, and what was on its way with the old slot is gone.
    let again = stage
        .room
        .add_slot(stage.now, bob, config(9, Some(10)))
        .unwrap();
    stage.subscribe(again, track).unwrap();
    assert!(forward.iter().all(|forward| stage.write(forward).is_none()));
    let sent = stage.send(alice, &Vp8::picture(5, true).packet());
    assert_eq!((sent[0].index, sent[0].fixed.ssrc), (11, 9));
    assert!(sent[0].fixed.timestamp > 1);
    let resent = stage.nack(bob, 9, &[11]);
    assert_eq!((resent[0].index, resent[0].fixed.ssrc), (8, 10));
    assert!(
        stage.nack(bob, 9, &[8]).is_empty(),
        "the numbers before are known no more"
    );

    let collision = Err(Refusal::SsrcCollision);
    for (ssrc, rtx_ssrc) in [
        (9, None),
        (8, Some(9)),
        (10, None),
        (8, Some(10)),
        (8, Some(8)),
    ] {
        assert_eq!(
            stage.room.add_slot(stage.now, bob, config(ssrc, rtx_ssrc)),
            collision
        );
    }
    stage.room.remove_slot(again);
    for (ssrc, rtx_ssrc) in [
        (9, None),
        (9, Some(8)),
        (8, Some(9)),
        (10, None),
        (8, Some(10)),
    ] {
        assert_eq!(
            stage.room.add_slot(stage.now, bob, config(ssrc, rtx_ssrc)),
            collision
        );
    }
}

#[test]
fn ssrcs_are_used_up_some_day() {
    let mut stage = Stage::new();
    let bob = stage.join();
    let mut taken = 0;
    let refused = loop {
        let config = SlotConfig {
            audio: true,
            automatic: false,
            mid: "s".to_owned(),
            ssrc: taken,
            rtx_ssrc: None,
            formats: formats(true),
            sequence: 0,
            timestamp: 0,
            picture_id: 0,
        };
        match stage.room.add_slot(stage.now, bob, config) {
            Ok(slot) => stage.room.remove_slot(slot),
            Err(refused) => break refused,
        }
        taken += 1;
    };
    assert_eq!((taken, refused), (512, Refusal::TooMany));
}

#[test]
fn padding_of_the_publisher_leaves_no_gap() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_camera(alice);
    let slot = stage.slot(bob, false);
    stage.subscribe(slot, track).unwrap();
    let mut padding = Vp8::picture(2, false).packet();
    padding.payload.clear();
    padding.padding = 200;

    assert_eq!(
        stage.send(alice, &Vp8::picture(1, true).packet())[0].sequence(),
        1000
    );
    assert_eq!(
        stage.try_send(alice, &padding),
        (vec![], Some(Dropped::Padding))
    );
    assert_eq!(
        stage.send(alice, &Vp8::picture(3, false).packet())[0].sequence(),
        1001
    );

    // Overtaken, its number was kept free: an empty packet closes the gap.
    assert_eq!(
        stage.send(alice, &Vp8::picture(5, false).packet())[0].sequence(),
        1003
    );
    padding.fixed.sequence_number = 4;
    let (out, _) = stage.try_send(alice, &padding);
    assert_eq!(
        (out[0].sequence(), out[0].payload.len(), out[0].padding),
        (1002, 0, 1)
    );
}

#[test]
fn a_muted_track_is_heard_by_nobody() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_microphone(alice);
    let slot = stage.slot(bob, true);
    stage.subscribe(slot, track).unwrap();

    assert!(
        stage.send(alice, &opus(1))[0].fixed.marker,
        "a talkspurt begins"
    );
    stage.room.set_muted(track, true);
    assert_eq!(
        stage.try_send(alice, &opus(2)),
        (vec![], Some(Dropped::Muted))
    );
    stage.advance(Duration::from_secs(5));
    stage.room.set_muted(track, false);
    let out = stage.send(alice, &opus(252));
    assert_eq!(
        (out[0].sequence(), out[0].fixed.timestamp),
        (1001, 5000 + 251 * 960)
    );
}

#[test]
fn sound_with_redundancy_goes_on_with_or_without_it() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_microphone(alice);
    let slot = stage.slot(bob, true);
    stage.subscribe(slot, track).unwrap();
    let mut packet = opus(1);
    packet.fixed.payload_type = RED;
    packet.payload = vec![0x80 | 111, 0x0f, 0x00, 2, 111, 0xa, 0xb, 0x78, 1, 2];

    let out = stage.send(alice, &packet);
    assert_eq!(
        (out[0].fixed.payload_type, &out[0].payload),
        (RED, &packet.payload)
    );
    assert_eq!(stage.send(alice, &opus(2))[0].fixed.payload_type, 111);
}

#[test]
fn nobody_gets_what_they_have_not_subscribed_to() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let camera = stage.publish_camera(alice);
    let voice = stage.publish_microphone(alice);
    let own = stage.slot(alice, false);
    let slot = stage.slot(bob, false);

    assert_eq!(stage.subscribe(own, camera), Err(Refusal::Mismatch));
    assert_eq!(stage.subscribe(slot, voice), Err(Refusal::Mismatch));
    assert!(
        stage
            .send(alice, &Vp8::picture(1, true).packet())
            .is_empty()
    );

    stage.subscribe(slot, camera).unwrap();
    assert_eq!(stage.send(alice, &Vp8::picture(2, true).packet()).len(), 1);
    stage.room.unsubscribe(slot);
    assert!(
        stage
            .send(alice, &Vp8::picture(3, true).packet())
            .is_empty()
    );

    stage.subscribe(slot, camera).unwrap();
    stage.room.leave(alice);
    assert_eq!(
        stage.try_send(alice, &Vp8::picture(4, true).packet()).1,
        Some(Dropped::UnknownParticipant)
    );
    assert_eq!(stage.room.carried(slot), None);
    assert_eq!(stage.room.len(), (1, 0, 1));
}

#[test]
fn an_encoding_nobody_wants_is_paused_after_a_while_and_resumed_at_once() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let encodings: Vec<_> = [("q", 100), ("h", 200), ("f", 300)]
        .map(|(rid, ssrc)| crate::stage::encoding(Some(rid), ssrc))
        .into();
    let track = stage.publish(alice, Source::Camera, &encodings);
    let slot = stage.slot(bob, false);
    stage.subscribe(slot, track).unwrap();
    let wanted = |stage: &mut Stage| {
        std::iter::from_fn(|| stage.room.poll_output())
            .filter_map(|output| match output {
                Output::LayersWanted { wanted, .. } => Some(wanted),
                _ => None,
            })
            .collect::<Vec<_>>()
    };

    stage.want(slot, 2);
    stage.advance(Duration::from_secs(2));
    assert!(wanted(&mut stage).is_empty());
    stage.advance(Duration::from_secs(2));
    assert_eq!(wanted(&mut stage), [0b100]);

    stage.want(slot, 1);
    assert_eq!(wanted(&mut stage), [0b110]);
    stage.room.set_layer(stage.now, slot, None);
    stage.advance(Duration::from_secs(4));
    assert_eq!(wanted(&mut stage), [0]);
}

#[test]
fn probes_are_padded_with_what_does_no_harm() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_camera(alice);
    let slot = stage.slot(bob, false);
    assert_eq!(
        stage.pad(bob, 100),
        None,
        "an empty slot has no payload type"
    );
    stage.subscribe(slot, track).unwrap();
    let padding = stage.pad(bob, 100).unwrap();
    assert_eq!(
        (padding.fixed.ssrc, padding.payload.len(), padding.padding),
        (SLOT_SSRC + 1, 0, 76),
        "before any media, too: probes may have to find room for it"
    );

    let sent = stage.send(alice, &Vp8::picture(1, true).packet()).remove(0);
    let padding = stage.pad(bob, 100).unwrap();
    assert_eq!(
        (padding.fixed.ssrc, &padding.payload[2..]),
        (SLOT_SSRC + 1, &sent.payload[..])
    );
    assert_eq!(padding.payload[..2], sent.sequence().to_be_bytes());

    let padding = stage.pad(bob, 1000).unwrap();
    assert_eq!((padding.payload.len(), padding.padding), (0, 255));
    assert_eq!(stage.pad(alice, 100), None);

    stage.advance(Duration::from_secs(10));
    let padding = stage.pad(bob, 100).unwrap();
    assert_eq!(
        (padding.payload.len(), padding.padding),
        (0, 76),
        "what was sent is not kept any more"
    );
}

#[test]
fn what_a_subscriber_is_sent_is_known_by_slot() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_camera(alice);
    let slots = [stage.slot(bob, false), stage.slot(bob, false)];
    stage.subscribe(slots[0], track).unwrap();
    for n in 1..40 {
        stage.send(alice, &Vp8::picture(n, n == 1).packet());
        stage.advance(Duration::from_millis(50));
    }

    let sent = |stage: &Stage, ssrc| stage.room.forwarded(bob, |own| own == ssrc);
    let (named, beside) = sent(&stage, SLOT_SSRC);
    assert!(named > Bitrate::ZERO && beside == Bitrate::ZERO);
    assert_eq!(
        sent(&stage, SLOT_SSRC + 1),
        (named, beside),
        "by its resends"
    );
    assert_eq!(
        sent(&stage, SLOT_SSRC + 100),
        (beside, named),
        "another slot"
    );
    stage.room.unsubscribe(slots[0]);
    assert_eq!(sent(&stage, SLOT_SSRC), (beside, beside));
}
