use model::media::{MediaEvent, MediaOffer};
use model::room::Role;
use rand::SeedableRng;
use str0m::RtcConfig;
use str0m::media::{Direction, MediaKind};
use tokio::sync::mpsc;

use super::*;
use crate::doors::Doors;

fn offer(now: Instant) -> MediaOffer {
    let mut rtc = RtcConfig::new().build(now);
    let mut changes = rtc.sdp_api();
    changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
    let (offer, _) = changes.apply().unwrap();
    MediaOffer {
        generation: 1,
        sdp: offer.to_sdp_string(),
        tracks: Vec::new(),
    }
}

fn command(rooms: &mut Rooms, now: Instant, room: u128, kind: MediaCommandKind) {
    let command = MediaCommand {
        account: AccountId::from_u128(1),
        room: RoomId::from_u128(room),
        kind,
    };
    rooms.handle_command(now, command);
    rooms.finish_turn(now);
}

fn join(rooms: &mut Rooms, now: Instant, room: u128, participant: u128) {
    let kind = MediaCommandKind::Join {
        participant: ParticipantId::from_u128(participant),
        permissions: Role::Speaker.permissions(),
        encrypted: false,
        offer: offer(now),
    };
    command(rooms, now, room, kind);
}

fn rooms(now: Instant) -> (Rooms, mpsc::Receiver<MediaEvent>) {
    let (events, heard) = mpsc::channel(64);
    let rooms = Rooms::new(
        0,
        now,
        Arc::new(Config::default()),
        Arc::new(Shared::default()),
        Identity::new().unwrap(),
        Exit::new(Doors::new(Vec::new())),
        Outbox::new(events),
        StdRng::seed_from_u64(1),
    );
    (rooms, heard)
}

#[test]
fn what_one_wants_has_nobody_elses_slots_thought_over() {
    let now = Instant::now();
    let (mut rooms, _heard) = rooms(now);
    for participant in 0..20 {
        join(&mut rooms, now, 1, participant);
    }
    // Whose slots were thought over has Layers chosen at once.
    let thought_over = |rooms: &mut Rooms| {
        let due = |(_, participant): (usize, &mut Participant)| {
            participant.choose_due.take().map(|_| participant.id)
        };
        rooms.participants.iter_mut().filter_map(due).collect()
    };
    let all: Vec<ParticipantId> = thought_over(&mut rooms);
    assert_eq!(all.len(), 20);

    let want = |participant| MediaCommandKind::Want {
        participant: ParticipantId::from_u128(participant),
        automatic: false,
        wishes: Vec::new(),
    };
    command(&mut rooms, now, 1, want(7));
    assert_eq!(thought_over(&mut rooms), [ParticipantId::from_u128(7)]);

    // Who has gone by then has none.
    let leave = |participant| MediaCommandKind::Leave {
        participant: ParticipantId::from_u128(participant),
    };
    command(&mut rooms, now, 1, want(8));
    command(&mut rooms, now, 1, leave(8));
    assert_eq!(thought_over(&mut rooms).len(), 19);
    command(&mut rooms, now, 1, want(9));
    assert_eq!(thought_over(&mut rooms), [ParticipantId::from_u128(9)]);
}

#[test]
fn a_fault_with_what_a_stranger_sends_ends_no_room() {
    let now = Instant::now();
    let (mut rooms, _heard) = rooms(now);
    join(&mut rooms, now, 1, 10);
    let way = Way {
        socket: 0,
        to: SocketAddr::from(([127, 0, 0, 1], 9)),
    };
    // STUN of nobody, SRTP of a stranger, and nothing at all, each after something of the Room.
    for first in [0, 0x80, 0xff] {
        rooms.at_work = rooms.room_by_id.get(&RoomId::from_u128(1)).copied();
        assert!(rooms.at_work.is_some());
        rooms.handle_datagram(now, way, &mut [first; 40]);
        assert_eq!(rooms.at_work, None);
    }
}

#[test]
fn who_does_not_connect_in_time_is_given_up_however_often_they_ask() {
    let now = Instant::now();
    let (mut rooms, mut heard) = rooms(now);
    join(&mut rooms, now, 1, 10);
    let mut gone = None;
    for seconds in 0..40 {
        let now = now + Duration::from_secs(seconds);
        if let Some((_, participant)) = rooms.participants.iter_mut().next() {
            participant.heard_at = now;
        }
        rooms.handle_timeouts(now);
        rooms.finish_turn(now);
        let events = std::iter::from_fn(|| heard.try_recv().ok());
        let is_gone = |event: &MediaEvent| matches!(event.kind, MediaEventKind::Gone { .. });
        if events.filter(is_gone).count() > 0 {
            gone = Some(seconds);
        }
    }
    assert_eq!(gone, Some(31));
    assert!(rooms.participants.is_empty());
}

#[test]
fn a_fault_ends_the_room_it_happened_in_and_no_other() {
    let now = Instant::now();
    let (mut rooms, mut heard) = rooms(now);
    for (room, participant) in [(1, 10), (1, 11), (2, 20)] {
        join(&mut rooms, now, room, participant);
    }
    while heard.try_recv().is_ok() {}

    rooms.at_work = rooms.room_by_id.get(&RoomId::from_u128(1)).copied();
    rooms.recover(now);
    rooms.handle_timeouts(now);
    rooms.finish_turn(now);
    let gone: Vec<MediaEvent> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
    let expected = [10, 11].map(|participant| MediaEvent {
        account: AccountId::from_u128(1),
        room: RoomId::from_u128(1),
        kind: MediaEventKind::Gone {
            participant: ParticipantId::from_u128(participant),
            reason: GoneReason::Failed,
        },
    });
    assert_eq!(gone, expected);
    assert_eq!((rooms.rooms.len(), rooms.participants.len()), (1, 1));
    assert_eq!(rooms.shared.participants.load(Ordering::Relaxed), 1);

    // They may come back at once.
    join(&mut rooms, now, 1, 10);
    assert_eq!((rooms.rooms.len(), rooms.participants.len()), (2, 2));
}
