//! Losses on the way in and on the way out, and reports about them.

use std::time::Duration;

use sfu_core::quality::Uplink;
use sfu_core::{Dropped, MISSING_MAX, ParticipantKey, RESENDS_MAX, SlotKey, TrackKey};
use sfu_rtp::rtcp::{Compound, Packet, ReportBlock, SenderInfo};

use crate::stage::{SLOT_SSRC, Stage, VP8_RTX, Vp8, WALL, extensions, opus};

const ROUND: Duration = Duration::from_millis(100);

fn call() -> (Stage, ParticipantKey, ParticipantKey, TrackKey, SlotKey) {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_camera(alice);
    let slot = stage.slot(bob, false);
    stage.subscribe(slot, track).unwrap();

    (stage, alice, bob, track, slot)
}

/// The packets of all RTCP that was sent to somebody.
fn read(rtcp: &[(ParticipantKey, Vec<u8>)], to: ParticipantKey) -> Vec<Packet<'_>> {
    rtcp.iter()
        .filter(|(participant, _)| *participant == to)
        .flat_map(|(_, bytes)| Compound::parse(bytes))
        .collect::<Result<_, _>>()
        .unwrap()
}

fn nacks(packets: &[Packet<'_>]) -> Vec<(u32, Vec<u16>)> {
    packets
        .iter()
        .filter_map(|packet| match packet {
            Packet::Nack(nack) => Some((nack.media_ssrc, nack.sequence_numbers().collect())),
            _ => None,
        })
        .collect()
}

fn key_frame_requests(packets: &[Packet<'_>]) -> Vec<u32> {
    packets
        .iter()
        .filter_map(|packet| match packet {
            Packet::PictureLossIndication(indication) => Some(indication.media_ssrc),
            _ => None,
        })
        .collect()
}

/// RFC 3550 §6.1, RFC 5506.
#[test]
fn feedback_comes_behind_a_report_and_a_name_unless_both_sides_do_without() {
    let (mut stage, alice, ..) = call();
    stage.send(alice, &Vp8::picture(1, true).packet());
    for (number, is_reduced) in [(3, true), (6, false)] {
        stage.room.set_leg(alice, extensions(), is_reduced);
        stage.send(alice, &Vp8::picture(number, false).packet());
        let rtcp = stage.advance(Duration::from_millis(20));
        let asks = |bytes: &&Vec<u8>| {
            let packets: Vec<_> = Compound::parse(bytes).map(Result::unwrap).collect();
            !nacks(&packets).is_empty()
        };
        let asked = rtcp.iter().map(|(_, bytes)| bytes).find(asks).unwrap();
        let packets: Vec<_> = Compound::parse(asked).map(Result::unwrap).collect();
        let begins_with_report = matches!(
            packets[..],
            [Packet::ReceiverReport(_), Packet::SourceDescription(_), ..]
        );
        assert_eq!(begins_with_report, !is_reduced);
    }
}

#[test]
fn a_packet_lost_by_the_publisher_is_asked_for_and_takes_its_place() {
    let (mut stage, alice, bob, ..) = call();
    let missing = Vp8::picture(2, false).packet();

    assert_eq!(
        stage.send(alice, &Vp8::picture(1, true).packet())[0].sequence(),
        1000
    );
    assert_eq!(
        stage.send(alice, &Vp8::picture(3, false).packet())[0].sequence(),
        1002
    );

    let rtcp = stage.advance(Duration::from_millis(20));
    assert_eq!(nacks(&read(&rtcp, alice)), [(100, vec![2])]);
    assert!(read(&rtcp, bob).is_empty());

    let late = stage.send(alice, &missing.resent(500));
    assert_eq!(
        (late.len(), late[0].sequence(), late[0].vp8().0),
        (1, 1001, 31)
    );
    assert_eq!(late[0].payload[6..], missing.payload[6..]);
    assert_eq!(stage.room.stats().recovered, 1);
    assert_eq!(stage.try_send(alice, &missing).1, Some(Dropped::Duplicate));
    assert!(nacks(&read(&stage.advance(ROUND * 4), alice)).is_empty());
    assert!(stage.room.round_trip(alice).unwrap() < Duration::from_millis(30));
}

#[test]
fn what_the_publisher_cannot_send_again_makes_a_key_frame_wanted() {
    let (mut stage, alice, ..) = call();
    stage.send(alice, &Vp8::picture(1, true).packet());
    stage.send(alice, &Vp8::picture(3, false).packet());

    let rtcp = stage.advance(Duration::from_millis(1200));
    let packets = read(&rtcp, alice);
    let asked = nacks(&packets).len();
    assert!((5..=10).contains(&asked), "once per round trip: {asked}");
    assert_eq!(key_frame_requests(&packets), [100]);

    let many = u16::try_from(MISSING_MAX).unwrap() + 1;
    stage.send(alice, &Vp8::picture(4, true).packet());
    stage.send(alice, &Vp8::picture(5 + many, false).packet());
    let rtcp = stage.advance(Duration::from_millis(200));
    let packets = read(&rtcp, alice);
    assert_eq!(
        (nacks(&packets).len(), key_frame_requests(&packets)),
        (0, vec![100])
    );
}

#[test]
fn a_subscriber_gets_again_what_they_lost_once_per_round_trip() {
    let (mut stage, alice, bob, ..) = call();
    let first = stage.send(alice, &Vp8::picture(1, true).packet()).remove(0);
    stage.send(alice, &Vp8::picture(2, false).packet());

    let again = stage.nack(bob, SLOT_SSRC, &[1000, 1001, 1002, 999]);
    assert_eq!(again.len(), 2, "and nothing that was never sent");
    let resent = &again[0];
    assert_eq!(
        (resent.fixed.ssrc, resent.fixed.payload_type),
        (SLOT_SSRC + 1, VP8_RTX)
    );
    assert_eq!(resent.fixed.timestamp, first.fixed.timestamp);
    assert_eq!(resent.payload[..2], 1000_u16.to_be_bytes());
    assert_eq!(resent.payload[2..], first.payload);
    assert_eq!(again[1].index, resent.index + 1);

    assert!(stage.nack(bob, SLOT_SSRC, &[1000]).is_empty());
    assert_eq!(stage.room.stats().resends_too_soon, 1);
    let mut times = 1;
    for _ in 0..20 {
        stage.advance(ROUND);
        times += stage.nack(bob, SLOT_SSRC, &[1000]).len();
    }
    assert_eq!(times, usize::from(RESENDS_MAX));
}

#[test]
fn a_storm_of_nacks_gets_no_more_than_a_share() {
    let (mut stage, alice, bob, ..) = call();
    let mut sent = 0;
    let mut resent = 0;

    for n in 0..2000_u16 {
        let out = stage.send(alice, &Vp8::picture(n, n == 0).packet());
        sent += out.iter().map(|out| out.payload.len()).sum::<usize>();
        stage.advance(Duration::from_millis(5));
        let newest = 1000 + n;
        let numbers: Vec<u16> = (newest.saturating_sub(100).max(1000)..=newest).collect();
        let again = stage.nack(bob, SLOT_SSRC, &numbers);
        resent += again.iter().map(|out| out.payload.len()).sum::<usize>();
    }

    assert!(resent > sent / 4, "{resent} of {sent}");
    assert!(
        resent < sent / 2 + sfu_core::RESEND_BURST_MAX,
        "{resent} of {sent}"
    );
    assert!(stage.room.stats().resends_over_share > 0);
}

#[test]
fn a_flood_of_nacks_is_not_read_to_its_end() {
    let (mut stage, alice, bob, ..) = call();
    for n in 0..100 {
        stage.send(alice, &Vp8::picture(n, n == 0).packet());
    }

    let numbers: Vec<u16> = (1000..1100).collect();
    for _ in 0..30 {
        stage.nack(bob, SLOT_SSRC, &numbers);
    }
    assert_eq!(
        stage.room.stats().nacks_flooded,
        10,
        "each compound is left at its first number too many"
    );
    stage.advance(Duration::from_millis(200));
    stage.send(alice, &Vp8::picture(100, false).packet());
    assert_eq!(
        stage.nack(bob, SLOT_SSRC, &[1100]).len(),
        1,
        "who asks like others is heard"
    );
}

#[test]
fn what_waits_for_its_turn_does_not_outlive_its_subscription() {
    let (mut stage, alice, bob, track, slot) = call();
    stage.send(alice, &Vp8::picture(1, true).packet());

    let waiting = stage.hold(alice, &Vp8::picture(2, false).packet());
    stage.room.unsubscribe(slot);
    assert_eq!((waiting.len(), stage.release(&waiting).len()), (1, 0));

    stage.subscribe(slot, track).unwrap();
    let waiting = stage.hold(alice, &Vp8::picture(3, true).packet());
    stage.room.set_muted(track, true);
    assert_eq!((waiting.len(), stage.release(&waiting).len()), (1, 0));
    let padding = stage.pad(bob, 100).unwrap();
    assert!(
        padding.payload.is_empty(),
        "nor does it come back as padding"
    );
    assert_eq!(stage.room.stats().expired, 2);
}

#[test]
fn a_flood_of_key_frame_requests_is_one_request_to_the_publisher() {
    let (mut stage, alice, bob, ..) = call();
    stage.send(alice, &Vp8::picture(1, true).packet());
    stage.advance(Duration::from_millis(500));

    let mut asked = 0;
    for _ in 0..1000 {
        stage.send_rtcp(bob, |builder| builder.pli(2, SLOT_SSRC).unwrap());
        stage.send_rtcp(bob, |builder| builder.fir(2, SLOT_SSRC, 1).unwrap());
        let rtcp = stage.advance(Duration::from_millis(1));
        asked += key_frame_requests(&read(&rtcp, alice)).len();
    }
    assert!((1..=3).contains(&asked), "{asked} in a second");

    stage.send(alice, &Vp8::picture(2, true).packet());
    stage.advance(Duration::from_millis(20));
    stage.send_rtcp(bob, |builder| builder.pli(2, SLOT_SSRC).unwrap());
    let rtcp = stage.advance(Duration::from_secs(1));
    assert!(
        key_frame_requests(&read(&rtcp, alice)).is_empty(),
        "it is on its way"
    );
}

#[test]
fn reports_go_both_ways() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_microphone(alice);
    let slot = stage.slot(bob, true);
    stage.subscribe(slot, track).unwrap();

    for n in (0..50).filter(|n| n % 10 != 9) {
        stage.send(alice, &opus(n));
        stage.advance(Duration::from_millis(20));
    }
    // Alice's clock is 1000 s behind ours, and her timestamp 0 was when we began.
    let sent_at = (WALL - 1000 + 1) << 32;
    stage.send_rtcp(alice, |builder| {
        let info = SenderInfo {
            ntp: sfu_rtp::rtcp::NtpTime(sent_at),
            rtp_timestamp: 48_000,
            packets: 45,
            octets: 0,
        };
        builder.sender_report(50, &info, &[]).unwrap();
    });
    stage.send(alice, &opus(50));
    let rtcp = stage.advance(Duration::from_millis(1100));

    let to_alice: Vec<ReportBlock> = read(&rtcp, alice)
        .iter()
        .filter_map(|packet| match packet {
            Packet::ReceiverReport(report) => Some(report.blocks.iter()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(to_alice.len(), 1);
    assert_eq!((to_alice[0].ssrc, to_alice[0].cumulative_lost), (50, 5));
    assert_eq!(
        to_alice[0].last_sr,
        u32::try_from(sent_at >> 16 & 0xffff_ffff).unwrap()
    );

    let packets = read(&rtcp, bob);
    let Some(Packet::SenderReport(report)) = packets.first() else {
        panic!("{packets:?}");
    };
    assert_eq!((report.ssrc, report.info.packets), (SLOT_SSRC, 46));
    assert!(matches!(packets[1], Packet::SourceDescription(_)));
    // Bob's timestamps are 5000 ahead of Alice's, and 0 of hers was when all began.
    let since_start = report.info.ntp.0 - (WALL << 32);
    let expected = 5000 + ((since_start * 48_000) >> 32);
    let distance = i64::from(report.info.rtp_timestamp) - i64::try_from(expected).unwrap();
    assert!(distance.abs() < 6000, "{distance} ticks off");
}

#[test]
fn how_what_somebody_sends_arrives_is_known_from_report_to_report() {
    let mut stage = Stage::new();
    let (alice, bob) = (stage.join(), stage.join());
    let track = stage.publish_microphone(alice);
    let slot = stage.slot(bob, true);
    stage.subscribe(slot, track).unwrap();
    assert_eq!(stage.room.uplink(alice), Uplink::default());

    for n in (0..150).filter(|n| n % 10 != 9) {
        stage.send(alice, &opus(n));
        stage.advance(Duration::from_millis(20));
    }
    let uplink = stage.room.uplink(alice);
    assert!((0.08..0.13).contains(&uplink.loss()), "{uplink:?}");
    assert!(uplink.jitter < Duration::from_millis(10), "{uplink:?}");
    assert_eq!(stage.room.uplink(bob), Uplink::default());

    stage.advance(Duration::from_secs(3));
    assert_eq!(stage.room.uplink(alice).expected, 0, "silence is no loss");
}

#[test]
fn a_receiver_report_tells_round_trip_and_loss() {
    let (mut stage, alice, bob, ..) = call();
    stage.send(alice, &Vp8::picture(1, true).packet());
    let rtcp = stage.advance(Duration::from_secs(2));
    let packets = read(&rtcp, bob);
    let Some(Packet::SenderReport(report)) = packets.first() else {
        panic!("{packets:?}");
    };
    let sent_at = report.info.ntp.0;
    // In 1/65536 s; the report was 40 ms on its way in all.
    let now = stage.now.duration_since(stage.start).as_millis() << 16;
    let elapsed =
        u32::try_from(now / 1000).unwrap() - u32::try_from((sent_at - (WALL << 32)) >> 16).unwrap();

    let block = ReportBlock {
        ssrc: SLOT_SSRC,
        fraction_lost: 64,
        cumulative_lost: 1,
        highest_sequence: 1000,
        jitter: 0,
        last_sr: u32::try_from(sent_at >> 16 & 0xffff_ffff).unwrap(),
        delay_since_last_sr: elapsed - (40 << 16) / 1000,
    };
    stage.send_rtcp(bob, |builder| builder.receiver_report(2, &[block]).unwrap());

    let round_trip = stage.room.round_trip(bob).unwrap().as_millis();
    assert!((39..=41).contains(&round_trip), "{round_trip}");
    assert_eq!(
        (stage.room.take_loss(bob), stage.room.take_loss(bob)),
        (Some(64), None)
    );
}
