//! Who is in a Room by plain rings, and no network: a phone.

use std::time::Duration;

use model::id::{ParticipantId, TrackId};
use model::media::{GoneReason, MediaCommandKind, MediaEventKind, MediaRefusal};
use model::plain::{End, Level, NoSeat, PAYLOAD_LEN_MAX, Packet, Seat};
use model::room::{Permissions, Role, Source};
use sfu_service::Drop;

use crate::stage::{ACCOUNT, Stage};

const PHONE: ParticipantId = ParticipantId::from_u128(77);
const TRACK: TrackId = TrackId::from_u128(7_700);
const SEAT: Seat = Seat {
    account: ACCOUNT,
    room: crate::stage::ROOM,
    participant: PHONE,
};

/// The phone's end, and what comes next of its stream.
struct Phone {
    end: End,
    next: u16,
}

impl Phone {
    fn say(&mut self, payload: &[u8]) {
        let packet = Packet {
            slot: 0,
            track: TRACK,
            sequence: self.next,
            timestamp: u32::from(self.next) * 960,
            marker: self.next == 0,
            level: Some(Level {
                below_full: 20 + u8::try_from(self.next % 5).unwrap(),
                voice: true,
            }),
        };
        self.next = self.next.wrapping_add(1);
        self.end.send(&packet, payload).unwrap();
    }

    /// All that waits.
    fn heard(&mut self) -> Vec<(Packet, Vec<u8>)> {
        let mut payload = [0; PAYLOAD_LEN_MAX];
        std::iter::from_fn(|| {
            let (packet, len) = self.end.receive(&mut payload)?;
            Some((packet, payload[..len].to_vec()))
        })
        .collect()
    }
}

fn join(permissions: Permissions, encrypted: bool) -> MediaCommandKind {
    MediaCommandKind::JoinPlain {
        participant: PHONE,
        permissions,
        encrypted,
        track: TRACK,
        muted: false,
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// A phone joins and has its end.
fn call(stage: &mut Stage) -> Phone {
    stage.command(join(Role::Speaker.permissions(), false));
    let end = block_on(stage.handle.attach(SEAT)).unwrap();
    stage.next(|event| *event == MediaEventKind::Connected { participant: PHONE });
    Phone { end, next: 0 }
}

fn refused(stage: &mut Stage) -> MediaRefusal {
    let refused = stage.next(
        |event| matches!(event, MediaEventKind::Refused { participant, .. } if *participant == PHONE),
    );
    match refused {
        MediaEventKind::Refused { refusal, .. } => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_phone_and_a_browser_hear_each_other() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 1, 0);
    let mut phone = call(&mut stage);
    let mut heard = Vec::new();
    for round in 0..20_u8 {
        stage.clients[alice].send_voice(0, &[b'a', round], -25);
        phone.say(&[b'p', round]);
        stage.rest(Duration::from_millis(20));
        heard.extend(phone.heard());
    }
    stage.run("all came", |stage| {
        heard.extend(phone.heard());
        let slot = stage.clients[alice].audio_slots[0];
        heard.len() >= 20 && stage.clients[alice].received_in(slot).len() >= 20
    });

    let track = stage.clients[alice].tracks[0].track;
    for (at, (packet, payload)) in (0..).zip(&heard) {
        let (first, _) = heard[0];
        assert_eq!(*payload, [b'a', at]);
        assert_eq!((packet.track, packet.slot), (track, first.slot));
        assert_eq!(packet.sequence.wrapping_sub(first.sequence), u16::from(at));
        let passed = packet.timestamp.wrapping_sub(first.timestamp);
        assert_eq!(passed, u32::from(at) * 960);
        let level = packet.level.unwrap();
        assert_eq!((level.below_full, level.voice), (25, true));
    }
    let client = &mut stage.clients[alice];
    let slot = client.audio_slots[0];
    let received = client.received_in(slot);
    let payloads: Vec<&[u8]> = received.iter().map(|packet| &*packet.payload).collect();
    let expected: Vec<[u8; 2]> = (0..20).map(|round| [b'p', round]).collect();
    assert_eq!(payloads, expected);
    assert_eq!(
        received[0].header.ext_vals.audio_level,
        Some(-20),
        "it counts as a speaker"
    );
    let figures = stage.figures();
    assert_eq!((figures.participants, figures.plain), (2, 1));
    assert_eq!((figures.plain_in, figures.plain_out), (20, 20));
}

#[test]
fn a_phone_is_named_as_a_speaker_and_moderated_as_anybody() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 1, 0);
    let mut phone = call(&mut stage);
    let is_told = |event: &MediaEventKind| matches!(event, MediaEventKind::Speakers { speakers } if *speakers == [PHONE]);
    while !stage.heard.iter().any(is_told) {
        phone.say(b"hello");
        stage.rest(Duration::from_millis(20));
    }

    let silence = |stage: &mut Stage, phone: &mut Phone| {
        // What was said before the command is through by then.
        stage.rest(Duration::from_millis(50));
        stage.clients[alice].received.clear();
        let before = stage.figures().dropped(Drop::NotForwarded);
        phone.say(b"nobody hears this");
        stage.run("counted", |stage| {
            stage.figures().dropped(Drop::NotForwarded) == before + 1
        });
        assert!(stage.clients[alice].received.is_empty());
    };
    let speech = |stage: &mut Stage, phone: &mut Phone| {
        stage.run("heard", |stage| {
            phone.say(b"again");
            stage.rest(Duration::from_millis(20));
            !stage.clients[alice].received.is_empty()
        });
    };
    for muted in [true, false] {
        stage.command(MediaCommandKind::Mute {
            track: TRACK,
            muted,
        });
        match muted {
            true => silence(&mut stage, &mut phone),
            false => speech(&mut stage, &mut phone),
        }
    }
    for role in [Role::Listener, Role::Speaker] {
        stage.command(MediaCommandKind::Permit {
            participant: PHONE,
            permissions: role.permissions(),
        });
        match role {
            Role::Listener => silence(&mut stage, &mut phone),
            _ => speech(&mut stage, &mut phone),
        }
    }
}

#[test]
fn a_phone_hears_four_voices_and_each_in_a_slot_of_its_own() {
    let mut stage = Stage::new();
    let people: Vec<usize> = (0..3)
        .map(|_| stage.join(&[Source::Microphone], 0, 0))
        .collect();
    let mut phone = call(&mut stage);
    let mut heard = Vec::new();
    stage.run("all are heard", |stage| {
        for person in &people {
            stage.clients[*person].send_voice(0, b"hello", -25);
        }
        stage.rest(Duration::from_millis(20));
        heard.extend(phone.heard());
        let mut slots: Vec<u8> = heard.iter().map(|(packet, _)| packet.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.len() == 3
    });
    for person in people {
        let track = stage.clients[person].tracks[0].track;
        let mut own = heard.iter().filter(|(packet, _)| packet.track == track);
        let (first, _) = own.next().unwrap();
        assert!(own.all(|(packet, _)| packet.slot == first.slot));
    }
}

#[test]
fn who_does_not_listen_loses_what_finds_no_room_and_harms_nobody() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 1, 0);
    let mut phone = call(&mut stage);
    stage.run("the ring is full", |stage| {
        for _ in 0..10 {
            stage.clients[alice].send_voice(0, &[7; 1_000], -25);
        }
        stage.rest(Duration::from_millis(5));
        stage.figures().dropped(Drop::Plain) > 0
    });
    assert!(phone.end.dropped().1 > 0);
    assert!(!phone.heard().is_empty());
    phone.say(b"still here");
    stage.run("heard", |stage| !stage.clients[alice].received.is_empty());

    // A Track that is not its own.
    let before = stage.figures().dropped(Drop::Plain);
    let foreign = Packet {
        slot: 0,
        track: TrackId::from_u128(1),
        sequence: 0,
        timestamp: 0,
        marker: false,
        level: None,
    };
    phone.end.send(&foreign, b"who am I").unwrap();
    stage.run("counted", |stage| {
        stage.figures().dropped(Drop::Plain) > before
    });
}

#[test]
fn a_phone_that_goes_is_gone_and_rooms_end_for_it() {
    let mut stage = Stage::new();
    let phone = call(&mut stage);
    assert_eq!(
        block_on(stage.handle.attach(SEAT)).err(),
        Some(NoSeat::Taken)
    );
    drop(phone);
    stage.next(|event| {
        *event
            == MediaEventKind::Gone {
                participant: PHONE,
                reason: GoneReason::Unreachable,
            }
    });
    assert_eq!(stage.figures().rooms, 0, "it was alone");

    for end in [
        MediaCommandKind::End,
        MediaCommandKind::Leave { participant: PHONE },
        join(Role::Speaker.permissions(), false),
    ] {
        let phone = call(&mut stage);
        stage.command(end.clone());
        stage.run("closed", |_| phone.end.is_closed());
    }
    // The last one joined anew, and nobody has taken its end.
    assert_eq!(stage.figures().rooms, 1);
    assert!(block_on(stage.handle.attach(SEAT)).is_ok());
}

#[test]
fn the_order_of_joining_and_attaching_does_not_matter() {
    let stage = Stage::new();
    let handle = stage.handle.clone();
    let attaching = std::thread::spawn(move || block_on(handle.attacher()(SEAT)));
    let others = Seat {
        account: model::id::AccountId::from_u128(9),
        ..SEAT
    };
    let handle = stage.handle.clone();
    let stranger = std::thread::spawn(move || block_on(handle.attach(others)));
    stage.command(join(Role::Speaker.permissions(), false));
    let end = attaching.join().unwrap();
    assert!(end.is_ok(), "{end:?}");
    assert!(!stranger.is_finished(), "of another Account");
    block_on(stage.handle.shutdown());
    assert_eq!(stranger.join().unwrap().err(), Some(NoSeat::Ended));
    assert!(end.unwrap().is_closed());
    assert_eq!(
        block_on(stage.handle.attach(SEAT)).err(),
        Some(NoSeat::Ended)
    );
}

#[test]
fn encrypted_rooms_and_full_ones_refuse_a_phone() {
    let mut stage = Stage::new();
    stage.command(join(Role::Speaker.permissions(), true));
    assert_eq!(refused(&mut stage), MediaRefusal::Encrypted);
    stage.is_encrypted = true;
    stage.join(&[Source::Microphone], 1, 0);
    stage.command(join(Role::Speaker.permissions(), false));
    assert_eq!(refused(&mut stage), MediaRefusal::Encrypted);
    let figures = stage.figures();
    assert_eq!(figures.refused(MediaRefusal::Encrypted), 2);
    assert_eq!((figures.rooms, figures.participants), (1, 1));

    let mut stage = Stage::with(sfu_service::Config {
        participants_per_room_max: 1,
        ..sfu_service::Config::default()
    });
    stage.join(&[], 1, 0);
    stage.command(join(Role::Speaker.permissions(), false));
    assert_eq!(refused(&mut stage), MediaRefusal::Full);
}
