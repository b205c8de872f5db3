//! What people in a Room see and hear.

use std::time::{Duration, Instant};

use model::id::TrackId;
use model::media::{ConnectionQuality, GoneReason, MediaCommandKind, MediaEventKind, Slot, Wish};
use model::room::{Role, Source};
use str0m::media::Direction;
use str0m::rtp::RtpPacket;

use crate::client::{PATIENCE, RIDS, is_rtp};
use crate::stage::Stage;

const VOICE: &[u8] = b"not really Opus, but nobody looks";

fn payloads<'p>(packets: &[&'p RtpPacket]) -> Vec<&'p [u8]> {
    packets.iter().map(|packet| &*packet.payload).collect()
}

/// The sequence numbers of what came, counted from the first.
fn numbers(packets: &[&RtpPacket]) -> Vec<u64> {
    let first = packets.first().map_or(0, |packet| *packet.seq_no);
    packets
        .iter()
        .map(|packet| *packet.seq_no - first)
        .collect()
}

#[test]
fn two_people_hear_and_see_each_other() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone, Source::Camera], 2, 2);
    let bob = stage.join(&[Source::Microphone, Source::Camera], 2, 2);

    for round in 0..20_u8 {
        for place in [alice, bob] {
            let client = &mut stage.clients[place];
            client.send(0, &[VOICE, &[round]].concat(), round == 0, 960);
            client.send_video(1, round.into(), round == 0, 2, round);
        }
        stage.rest(Duration::from_millis(20));
    }
    for (from, to) in [(alice, bob), (bob, alice)] {
        stage.run("all came", |stage| {
            let client = &mut stage.clients[to];
            let (audio, video) = (client.audio_slots[0], client.video_slots[0]);
            client.received_in(audio).len() >= 20 && client.received_in(video).len() >= 40
        });
        let client = &mut stage.clients[to];
        let (audio, video) = (client.audio_slots[0], client.video_slots[0]);
        let heard = client.received_in(audio);
        let expected: Vec<Vec<u8>> = (0..20)
            .map(|round: u8| [VOICE, &[round]].concat())
            .collect();
        assert_eq!(payloads(&heard), expected, "from {from}");
        assert_eq!(numbers(&heard), (0..20).collect::<Vec<u64>>());
        let seen = client.received_in(video);
        assert_eq!(numbers(&seen), (0..40).collect::<Vec<u64>>());
        let times: Vec<u32> = seen
            .iter()
            .map(|packet| {
                packet
                    .header
                    .timestamp
                    .wrapping_sub(seen[0].header.timestamp)
            })
            .collect();
        let expected: Vec<u32> = (0..20).flat_map(|round| [round * 3000; 2]).collect();
        assert_eq!(times, expected);
        let last: Vec<u8> = seen
            .iter()
            .map(|packet| packet.payload[packet.payload.len() - 1])
            .collect();
        assert_eq!(
            last,
            (0..20).flat_map(|round| [round; 2]).collect::<Vec<u8>>()
        );
    }
    let figures = stage.figures();
    assert_eq!(
        (figures.rooms, figures.participants, figures.connected),
        (1, 2, 2)
    );
}

#[test]
fn encrypted_media_comes_in_codecs_that_can_be_forwarded() {
    let mut stage = Stage::new();
    stage.is_encrypted = true;
    let alice = stage.join(&[Source::Microphone, Source::Camera], 0, 0);
    let bob = stage.join(&[], 1, 1);
    for place in [alice, bob] {
        let answer = &stage.clients[place].answer;
        let is_opaque = |codec: &&&str| answer.contains(&format!("{codec}/90000"));
        assert!(answer.contains("VP8/90000") && answer.contains("opus/48000"));
        assert_eq!(
            ["VP9", "H264", "AV1", "H265"].iter().find(is_opaque),
            None,
            "{answer}"
        );
    }
    for round in 0..20_u8 {
        stage.clients[alice].send(0, VOICE, round == 0, 960);
        stage.clients[alice].send_video(1, round.into(), round == 0, 2, round);
        stage.rest(Duration::from_millis(20));
    }
    stage.run("all came", |stage| {
        let client = &mut stage.clients[bob];
        let (audio, video) = (client.audio_slots[0], client.video_slots[0]);
        client.received_in(audio).len() >= 20 && client.received_in(video).len() >= 40
    });
}

#[test]
fn who_comes_later_is_told_what_is_in_their_slots() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone, Source::Camera], 1, 1);
    // A voice is heard from its first packet on.
    stage.clients[alice].send(0, VOICE, true, 960);
    stage.rest(Duration::from_millis(100));
    let offer = {
        let mut client = crate::client::Client::new(99);
        let offer = client.offer(&[], 1, 1);
        stage.clients.push(client);
        offer
    };
    let answer = stage.join_raw(99, Role::Speaker.permissions(), offer);
    let MediaEventKind::Answered { slots, .. } = answer else {
        panic!("{answer:?}");
    };
    let bob = &stage.clients[1];
    let tracks: Vec<TrackId> = stage.clients[alice]
        .tracks
        .iter()
        .map(|sent| sent.track)
        .collect();
    let expected = [
        (bob.audio_slots[0], tracks[0]),
        (bob.video_slots[0], tracks[1]),
    ]
    .map(|(mid, track)| Slot {
        mid: mid.to_string(),
        track: Some(track),
    });
    assert_eq!(slots, expected);
}

#[test]
fn a_lost_packet_is_sent_again() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Camera], 0, 0);
    let bob = stage.join(&[], 0, 1);
    for round in 0..40_u8 {
        stage.clients[alice].send_video(0, round.into(), round == 0, 1, round);
        if round == 10 {
            stage.clients[bob].lose = 2;
        }
        stage.rest(Duration::from_millis(20));
    }
    stage.run("all came", |stage| {
        let client = &mut stage.clients[bob];
        let slot = client.video_slots[0];
        client.received_in(slot).len() >= 40
    });
    let client = &mut stage.clients[bob];
    let slot = client.video_slots[0];
    let mut numbers = numbers(&client.received_in(slot));
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<u64>>());
    assert_eq!(client.lose, 0, "they were lost indeed");
}

#[test]
fn a_viewer_gets_a_key_frame_when_they_ask() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Camera], 0, 0);
    for round in 0..10 {
        stage.clients[alice].send_video(0, round, round == 0, 1, 1);
        stage.rest(Duration::from_millis(10));
    }
    let bob = stage.join(&[], 0, 1);
    stage.run("asked for the newcomer", |stage| {
        !stage.clients[alice].asked.is_empty()
    });
    for round in 10..100 {
        stage.clients[alice].send_video(0, round, round == 10, 1, 1);
        stage.rest(Duration::from_millis(10));
    }
    stage.clients[alice].asked.clear();
    let slot = stage.clients[bob].video_slots[0];
    stage.clients[bob].ask_for_key_frame(slot);
    stage.run("asked again", |stage| {
        !stage.clients[alice].asked.is_empty()
    });
}

#[test]
fn what_is_muted_or_not_permitted_reaches_nobody() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 0, 0);
    let bob = stage.join(&[], 1, 0);
    let hears = |stage: &mut Stage| {
        stage.clients[bob].received.clear();
        for _ in 0..10 {
            stage.clients[alice].send(0, VOICE, false, 960);
            stage.rest(Duration::from_millis(10));
        }
        !stage.clients[bob].received.is_empty()
    };
    assert!(hears(&mut stage));

    let track = stage.clients[alice].tracks[0].track;
    stage.command(MediaCommandKind::Mute { track, muted: true });
    stage.rest(Duration::from_millis(50));
    assert!(!hears(&mut stage), "muted");
    stage.command(MediaCommandKind::Mute {
        track,
        muted: false,
    });
    stage.rest(Duration::from_millis(50));
    assert!(hears(&mut stage));

    let participant = stage.clients[alice].id;
    let permit = |role: Role| MediaCommandKind::Permit {
        participant,
        permissions: role.permissions(),
    };
    stage.command(permit(Role::Listener));
    stage.rest(Duration::from_millis(50));
    assert!(!hears(&mut stage), "not permitted");
    stage.command(permit(Role::Speaker));
    stage.rest(Duration::from_millis(50));
    assert!(hears(&mut stage));
}

#[test]
fn a_screen_is_added_and_seen() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Camera], 0, 0);
    let bob = stage.join(&[], 0, 1);
    stage.offer(alice, &[Source::Screen], 0, 0);
    let bob_id = stage.clients[bob].id;
    let screen = stage.clients[alice].tracks[1].track;
    // There is one slot, a screen comes before a camera, and one more slot would be good.
    let told = stage.next(|event| matches!(event, MediaEventKind::Slots { participant, video_wanted: 2, .. } if *participant == bob_id));
    let MediaEventKind::Slots { slots, .. } = told else {
        panic!("{told:?}");
    };
    assert_eq!(slots.last().and_then(|slot| slot.track), Some(screen));

    stage.offer(bob, &[], 0, 1);
    for round in 0..10 {
        for at in [0, 1] {
            stage.clients[alice].send_video(at, round, true, 1, 50 + u8::try_from(at).unwrap());
        }
        stage.rest(Duration::from_millis(20));
    }
    stage.run("both seen", |stage| {
        let seen = |known_by: u8| {
            stage.clients[bob]
                .received
                .iter()
                .any(|packet| packet.payload.last() == Some(&known_by))
        };
        seen(50) && seen(51)
    });
}

#[test]
fn only_what_is_wanted_is_sent() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Camera], 0, 0);
    let carol = stage.join(&[Source::Camera], 0, 0);
    let bob = stage.join(&[], 0, 1);
    let (participant, track) = (stage.clients[bob].id, stage.clients[carol].tracks[0].track);
    stage.command(MediaCommandKind::Want {
        participant,
        automatic: false,
        wishes: vec![Wish {
            track,
            wanted: true,
            height: Some(180),
            pinned: false,
            priority: 0,
        }],
    });
    let is_told = |slots: &[Slot]| slots.iter().any(|slot| slot.track == Some(track));
    stage.next(|event| matches!(event, MediaEventKind::Slots { participant: of, slots, .. } if *of == participant && is_told(slots)));
    for round in 0..10 {
        for (place, known_by) in [(alice, 1), (carol, 2)] {
            stage.clients[place].send_video(0, round, true, 1, known_by);
        }
        stage.rest(Duration::from_millis(20));
    }
    stage.run("carol seen", |stage| {
        !stage.clients[bob].received.is_empty()
    });
    let of_alice = stage.clients[bob]
        .received
        .iter()
        .any(|packet| packet.payload.last() == Some(&1));
    assert!(!of_alice);
}

#[test]
fn a_voice_that_is_not_wanted_is_not_heard_until_it_is() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 0, 0);
    let carol = stage.join(&[Source::Microphone], 0, 0);
    let bob = stage.join(&[], 2, 0);
    let (participant, track) = (stage.clients[bob].id, stage.clients[alice].tracks[0].track);
    // Who is heard of what both say from now on.
    let heard = |stage: &mut Stage| {
        stage.clients[bob].received.clear();
        let said = stage.figures().rooms_counted.received + 2 * 20;
        for _ in 0..20 {
            stage.clients[alice].send(0, &[VOICE, b"a"].concat(), false, 960);
            stage.clients[carol].send(0, &[VOICE, b"c"].concat(), false, 960);
            stage.rest(Duration::from_millis(10));
        }
        stage.run("all of it is said", |stage| {
            stage.figures().rooms_counted.received >= said
        });
        stage.settle();
        let received = &stage.clients[bob].received;
        let is_heard = |name: u8| {
            received
                .iter()
                .any(|packet| packet.payload.last() == Some(&name))
        };
        (is_heard(b'a'), is_heard(b'c'))
    };
    assert_eq!(heard(&mut stage), (true, true));
    let want = |automatic: bool, wanted: bool| MediaCommandKind::Want {
        participant,
        automatic,
        wishes: vec![Wish {
            track,
            wanted,
            height: None,
            pinned: false,
            priority: 0,
        }],
    };
    for (automatic, wanted, expected) in [
        (true, false, (false, true)),
        (true, true, (true, true)),
        (false, true, (true, false)),
        (false, false, (false, false)),
        (true, true, (true, true)),
    ] {
        stage.command(want(automatic, wanted));
        stage.settle();
        assert_eq!(heard(&mut stage), expected, "{automatic} {wanted}");
    }
}

#[test]
fn a_room_ends_with_its_last_participant() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 1, 0);
    let bob = stage.join(&[Source::Microphone], 1, 0);
    for _ in 0..5 {
        stage.clients[alice].send(0, VOICE, false, 960);
        stage.rest(Duration::from_millis(10));
    }
    stage.run("heard", |stage| !stage.clients[bob].received.is_empty());
    let leave = |stage: &mut Stage, place: usize| {
        let participant = stage.clients[place].id;
        stage.command(MediaCommandKind::Leave { participant });
    };
    leave(&mut stage, alice);
    let bob_id = stage.clients[bob].id;
    let is_empty = |slots: &[Slot]| slots.iter().any(|slot| slot.track.is_none());
    stage.next(|event| matches!(event, MediaEventKind::Slots { participant, slots, .. } if *participant == bob_id && is_empty(slots)));
    leave(&mut stage, bob);
    stage.run("empty", |stage| stage.figures().rooms == 0);
    assert_eq!(stage.figures().participants, 0);
}

#[test]
fn who_closes_their_side_is_gone() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 1, 0);
    let id = stage.clients[alice].id;
    stage.clients[alice].rtc.close().unwrap();
    let gone = stage.next(|event| matches!(event, MediaEventKind::Gone { .. }));
    let expected = MediaEventKind::Gone {
        participant: id,
        reason: GoneReason::DtlsFailed,
    };
    assert_eq!(gone, expected);
    assert_eq!(stage.figures().gone(GoneReason::DtlsFailed), 1);
}

#[test]
fn whose_own_media_gets_lost_is_connected_poorly() {
    let mut stage = Stage::new();
    let alice = stage.join_as(&[Source::Microphone], 0, 0, |client| {
        client.loses_every = Some(4);
    });
    let id = stage.clients[alice].id;
    let is_told = |event: &MediaEventKind| matches!(event, MediaEventKind::Quality { participant, quality: ConnectionQuality::Poor } if *participant == id);
    let start = Instant::now();
    while !stage.heard.iter().any(is_told) {
        stage.clients[alice].send(0, VOICE, false, 960);
        stage.rest(Duration::from_millis(20));
        assert!(start.elapsed() < PATIENCE, "{:?}", stage.heard);
    }
}

#[test]
fn publishers_are_told_what_arrives() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Camera], 0, 0);
    stage.clients[alice].datagrams.clear();
    for round in 0..50 {
        stage.clients[alice].send_video(0, round, round == 0, 2, 1);
        stage.rest(Duration::from_millis(10));
    }
    // Every 50 to 100 milliseconds, and receiver reports beside.
    let rtcp = stage.clients[alice]
        .datagrams
        .iter()
        .filter(|datagram| datagram[0] >= 128 && !is_rtp(datagram))
        .count();
    assert!((5..40).contains(&rtcp), "{rtcp} in half a second");
}

/// Sends two encodings of a camera for a while; a key frame where one is asked for. Returns what the viewer saw last.
fn show(
    stage: &mut Stage,
    publisher: usize,
    viewer: usize,
    picture: &mut u16,
    rounds: usize,
) -> Option<u8> {
    for _ in 0..rounds {
        *picture += 1;
        let client = &mut stage.clients[publisher];
        for (encoding, (rid, packets)) in RIDS.into_iter().zip([1, 4]).enumerate() {
            let is_key_frame = client.take_asked(Some(rid)) || *picture == 1;
            let known_by = u8::try_from(encoding).unwrap();
            client.send_frame(0, encoding, *picture, is_key_frame, packets, known_by);
        }
        client.step(0, 3000);
        stage.rest(Duration::from_millis(20));
    }
    let seen = stage.clients[viewer].received.last()?;
    seen.payload.last().copied()
}

#[test]
fn a_viewer_gets_the_encoding_that_fits_their_way_and_tile() {
    let mut stage = Stage::new();
    let alice = stage.join_as(&[Source::Camera], 0, 0, |client| {
        client.has_simulcast = true;
    });
    let bob = stage.join(&[], 0, 1);
    let mut picture = 0;
    let start = Instant::now();
    while show(&mut stage, alice, bob, &mut picture, 10) != Some(1) {
        assert!(
            start.elapsed() < PATIENCE,
            "the large one never came: {:?}",
            stage.figures()
        );
    }

    // Not seen at all: nothing is sent, and the publisher may stop.
    let (participant, track) = (stage.clients[bob].id, stage.clients[alice].tracks[0].track);
    let want = |height: u16| MediaCommandKind::Want {
        participant,
        automatic: true,
        wishes: vec![Wish {
            track,
            wanted: true,
            height: Some(height),
            pinned: false,
            priority: 0,
        }],
    };
    stage.command(want(0));
    let start = Instant::now();
    let before = loop {
        let before = stage.clients[bob].received.len();
        show(&mut stage, alice, bob, &mut picture, 10);
        if stage.clients[bob].received.len() == before {
            break before;
        }
        assert!(start.elapsed() < PATIENCE, "it never stops");
    };
    let is_off = |event: &MediaEventKind| match event {
        MediaEventKind::Layers { wanted, .. } => wanted.iter().all(|layer| !layer.wanted),
        _ => false,
    };
    let told = stage.next(is_off);
    let MediaEventKind::Layers { wanted, .. } = told else {
        panic!("{told:?}");
    };
    let rids: Vec<&str> = wanted.iter().map(|layer| layer.rid.as_str()).collect();
    assert_eq!(rids, RIDS);

    // And seen again.
    stage.command(want(720));
    let start = Instant::now();
    while stage.clients[bob].received.len() == before {
        show(&mut stage, alice, bob, &mut picture, 10);
        assert!(start.elapsed() < PATIENCE, "never seen again");
    }
    let slot = stage.clients[bob].video_slots[0];
    let seen = stage.clients[bob].received_in(slot);
    let count = seen.len() as u64;
    assert_eq!(
        numbers(&seen),
        (0..count).collect::<Vec<u64>>(),
        "one stream to the viewer"
    );
}

#[test]
fn a_slot_that_was_away_goes_on_counting() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 0, 0);
    let bob = stage.join(&[], 1, 0);
    let hear = |stage: &mut Stage| {
        for _ in 0..10 {
            stage.clients[alice].send(0, VOICE, false, 960);
            stage.rest(Duration::from_millis(5));
        }
        stage.rest(Duration::from_millis(50));
        let heard = &stage.clients[bob].received;
        heard
            .last()
            .map(|packet| (packet.header.ssrc, *packet.seq_no))
    };
    let (ssrc, before) = hear(&mut stage).unwrap();
    let slot = stage.clients[bob].audio_slots[0];
    stage.turn_section(bob, slot, Direction::Inactive);
    assert_eq!(hear(&mut stage), Some((ssrc, before)), "nothing came");
    stage.turn_section(bob, slot, Direction::RecvOnly);
    let (again, after) = hear(&mut stage).unwrap();
    assert_eq!(again, ssrc);
    assert!(
        (before + 1..before + 100).contains(&after),
        "{before}, then {after}"
    );
}

#[test]
fn the_loudest_are_heard_and_told() {
    let mut stage = Stage::new();
    let speakers: Vec<usize> = (0..6)
        .map(|_| stage.join(&[Source::Microphone], 0, 0))
        .collect();
    let listener = stage.join(&[], 4, 0);
    let id = stage.clients[speakers[5]].id;
    let is_told = |event: &MediaEventKind| matches!(event, MediaEventKind::Speakers { speakers } if speakers.first() == Some(&id));
    let start = Instant::now();
    // Everybody breathes, the last one speaks.
    while !stage.heard.iter().any(is_told) {
        for (place, level) in speakers.iter().zip([-90, -90, -90, -90, -90, -20]) {
            let known_by = u8::try_from(*place).unwrap();
            stage.clients[*place].send_voice(0, &[VOICE, &[known_by]].concat(), level);
        }
        stage.rest(Duration::from_millis(20));
        assert!(start.elapsed() < PATIENCE, "{:?}", stage.heard);
    }
    let known_by = u8::try_from(speakers[5]).unwrap();
    let is_heard = |packet: &RtpPacket| packet.payload.last() == Some(&known_by);
    assert!(stage.clients[listener].received.iter().any(is_heard));
}
