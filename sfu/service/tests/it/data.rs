//! What people tell each other over data channels.

use std::time::Duration;

use model::id::ParticipantId;
use model::media::MediaCommandKind;
use model::room::{Permissions, Role};
use sfu_service::DataDrop;

use crate::stage::Stage;

const RELIABLE: usize = 0;
const LOSSY: usize = 1;

const TOO_SLOW: [u8; 2] = [2, 1];
const RATE_LIMITED: [u8; 2] = [2, 2];
const NOT_PERMITTED: [u8; 2] = [2, 3];
const MALFORMED: [u8; 2] = [2, 4];
const GO_ON: [u8; 1] = [3];

/// A message as it is sent to those named, or to all.
fn message(to: &[ParticipantId], payload: &[u8]) -> Vec<u8> {
    let count = u8::try_from(to.len()).unwrap();
    let ids: Vec<u8> = to
        .iter()
        .flat_map(|id| id.as_u128().to_be_bytes())
        .collect();
    [&[1, count][..], &ids, payload].concat()
}

/// The same as it comes.
fn heard(from: ParticipantId, is_named: bool, payload: &[u8]) -> Vec<u8> {
    let id = from.as_u128().to_be_bytes();
    [&[1, u8::from(is_named)][..], &id, payload].concat()
}

fn people<const COUNT: usize>(stage: &mut Stage) -> [usize; COUNT] {
    let people = std::array::from_fn(|_| stage.join_as(&[], 0, 0, |client| client.has_data = true));
    stage.run("channels are open", |stage| {
        let mut clients = stage.clients.iter_mut();
        clients.all(|client| client.is_open(RELIABLE) && client.is_open(LOSSY))
    });
    people
}

/// Waits until somebody has heard so many messages.
#[track_caller]
fn wait_for(stage: &mut Stage, place: usize, count: usize) {
    stage.run("messages came", |stage| {
        stage.clients[place].messages.len() >= count
    });
}

#[track_caller]
fn wait_for_drop(stage: &mut Stage, cause: DataDrop, count: u64) {
    stage.run(cause.name(), |stage| {
        stage.figures().messages_dropped(cause) >= count
    });
}

#[test]
fn messages_reach_everybody_else_or_those_who_are_named() {
    let mut stage = Stage::new();
    let [alice, bob, carol] = people(&mut stage);
    let id = |stage: &Stage, place: usize| stage.clients[place].id;
    let (from, to) = (id(&stage, alice), id(&stage, carol));
    for lane in [RELIABLE, LOSSY] {
        let say = |stage: &mut Stage, bytes: &[u8]| stage.clients[alice].say(lane, true, bytes);
        say(&mut stage, &message(&[], b"all"));
        wait_for(&mut stage, bob, 1);
        say(&mut stage, &message(&[to], b"carol"));
        wait_for(&mut stage, carol, 2);
        // Themselves, and somebody who is not there.
        let nobody = ParticipantId::from_u128(999);
        say(&mut stage, &message(&[from, nobody, to], &[]));
        wait_for(&mut stage, carol, 3);
        let taken =
            |stage: &mut Stage, place: usize| std::mem::take(&mut stage.clients[place].messages);
        assert_eq!(taken(&mut stage, alice), []);
        assert_eq!(taken(&mut stage, bob), [(lane, heard(from, false, b"all"))]);
        let expected = [
            (lane, heard(from, false, b"all")),
            (lane, heard(from, true, b"carol")),
            (lane, heard(from, true, b"")),
        ];
        assert_eq!(taken(&mut stage, carol), expected);
    }
    let figures = stage.figures();
    assert_eq!((figures.messages_in, figures.messages_out), (6, 8));
    assert_eq!(figures.messages_dropped(DataDrop::Nobody), 2);
}

#[test]
fn all_of_a_large_message_arrives_in_order_with_the_others() {
    let mut stage = Stage::new();
    let [alice, bob] = people(&mut stage);
    let from = stage.clients[alice].id;
    let payload = |number: u8| {
        vec![
            number;
            if number.is_multiple_of(2) {
                16 * 1024
            } else {
                1
            }
        ]
    };
    for number in 0..10 {
        let said = message(&[], &payload(number));
        stage.clients[alice].say(RELIABLE, true, &said);
        stage.rest(Duration::from_millis(5));
    }
    wait_for(&mut stage, bob, 10);
    let expected: Vec<(usize, Vec<u8>)> = (0..10)
        .map(|number| (RELIABLE, heard(from, false, &payload(number))))
        .collect();
    assert_eq!(stage.clients[bob].messages, expected);
}

#[test]
fn who_may_not_send_is_told_so_and_goes_on_when_they_may() {
    let mut stage = Stage::new();
    let [alice, bob] = people(&mut stage);
    let (from, participant) = (stage.clients[alice].id, stage.clients[alice].id);
    let permit = |data: bool| MediaCommandKind::Permit {
        participant,
        permissions: Permissions {
            data,
            ..Role::Speaker.permissions()
        },
    };
    stage.command(permit(false));
    stage.rest(Duration::from_millis(50));
    stage.clients[alice].say(LOSSY, true, &message(&[], b"lossy"));
    wait_for_drop(&mut stage, DataDrop::NotPermitted, 1);
    stage.clients[alice].say(RELIABLE, true, &message(&[], b"refused"));
    wait_for(&mut stage, alice, 1);
    assert_eq!(
        stage.clients[alice].messages,
        [(RELIABLE, NOT_PERMITTED.to_vec())]
    );

    stage.command(permit(true));
    stage.rest(Duration::from_millis(50));
    stage.clients[alice].say(RELIABLE, true, &message(&[], b"too early"));
    wait_for_drop(&mut stage, DataDrop::Closed, 1);
    stage.clients[alice].say(RELIABLE, true, &GO_ON);
    stage.clients[alice].say(RELIABLE, true, &message(&[], b"heard"));
    wait_for(&mut stage, bob, 1);
    assert_eq!(
        stage.clients[bob].messages,
        [(RELIABLE, heard(from, false, b"heard"))]
    );
}

#[test]
fn who_hears_too_slowly_is_told_that_reliable_messages_were_lost() {
    let mut stage = Stage::new();
    let [alice, bob, carol] = people(&mut stage);
    let from = stage.clients[alice].id;
    stage.clients[bob].is_deaf = true;
    // 192 KiB wait for one Participant at most.
    let payload = |number: u8| vec![number; 16 * 1000];
    for number in 0..14 {
        stage.clients[alice].say(RELIABLE, true, &message(&[], &payload(number)));
        stage.rest(Duration::from_millis(5));
    }
    wait_for(&mut stage, carol, 14);
    wait_for_drop(&mut stage, DataDrop::Slow, 1);
    let lost = stage.figures();
    assert_eq!(
        (
            lost.messages_dropped(DataDrop::Slow),
            lost.messages_dropped(DataDrop::Closed)
        ),
        (1, 1),
        "what comes behind what was lost is not passed on"
    );

    stage.clients[bob].is_deaf = false;
    wait_for(&mut stage, bob, 13);
    let mut expected: Vec<(usize, Vec<u8>)> = (0..12)
        .map(|number| (RELIABLE, heard(from, false, &payload(number))))
        .collect();
    expected.push((RELIABLE, TOO_SLOW.to_vec()));
    assert_eq!(
        stage.clients[bob].messages, expected,
        "and nothing behind it"
    );
    stage.clients[bob].say(RELIABLE, true, &GO_ON);
    stage.rest(Duration::from_millis(50));
    stage.clients[alice].say(RELIABLE, true, &message(&[], b"again"));
    wait_for(&mut stage, bob, 14);
    assert_eq!(
        stage.clients[bob].messages[13],
        (RELIABLE, heard(from, false, b"again"))
    );
}

#[test]
fn what_is_said_too_fast_is_lost_on_the_lossy_lane_and_closes_the_reliable_one() {
    let mut stage = Stage::new();
    let [alice, bob] = people(&mut stage);
    for number in 0..150 {
        stage.clients[alice].say(LOSSY, true, &message(&[], &[number]));
    }
    wait_for_drop(&mut stage, DataDrop::RateLimited, 1);
    assert_eq!(stage.clients[alice].messages, []);

    let [carol] = people(&mut stage);
    for number in 0..150 {
        stage.clients[carol].say(RELIABLE, true, &message(&[], &[number]));
    }
    wait_for(&mut stage, carol, 1);
    assert_eq!(
        stage.clients[carol].messages,
        [(RELIABLE, RATE_LIMITED.to_vec())]
    );
    let of_carol = |stage: &Stage| -> Vec<u8> {
        let messages = stage.clients[bob].messages.iter();
        let reliable = messages.filter(|(lane, _)| *lane == RELIABLE);
        reliable
            .filter_map(|(_, bytes)| bytes.last().copied())
            .collect()
    };
    stage.run("heard", |stage| of_carol(stage).len() >= 100);
    let numbers = of_carol(&stage);
    let expected: Vec<u8> = (0..).take(numbers.len()).collect();
    assert_eq!(numbers, expected, "no gap before it closed");
}

#[test]
fn other_channels_and_other_messages_go_nowhere() {
    let mut stage = Stage::new();
    let [alice, bob] = people(&mut stage);
    for (lane, is_binary, bytes) in [
        (LOSSY, true, &[1][..]),
        (LOSSY, true, &[1, 65]),
        (LOSSY, true, &[9, 9, 9]),
        (LOSSY, false, b"\x01\x00text"),
    ] {
        stage.clients[alice].say(lane, is_binary, bytes);
    }
    wait_for_drop(&mut stage, DataDrop::Malformed, 4);
    stage.clients[alice].say(RELIABLE, true, b"??");
    wait_for(&mut stage, alice, 1);
    assert_eq!(
        stage.clients[alice].messages,
        [(RELIABLE, MALFORMED.to_vec())]
    );

    stage.clients[alice].open_channel("mine");
    stage.run("closed", |stage| stage.clients[alice].closed == [2]);
    assert!(stage.figures().messages_dropped(DataDrop::Channel) >= 1);
    assert_eq!(stage.clients[bob].messages, []);
}

#[test]
fn where_all_is_encrypted_there_are_no_data_channels() {
    let mut stage = Stage::new();
    stage.is_encrypted = true;
    let [alice, bob] = people(&mut stage);
    stage.clients[alice].say(RELIABLE, true, &message(&[], b"in clear"));
    // It is behind what was said before.
    stage.clients[alice].open_channel("mine");
    stage.run("closed", |stage| stage.clients[alice].closed == [2]);
    let figures = stage.figures();
    assert_eq!((figures.messages_in, figures.messages_out), (0, 0));
    assert_eq!(figures.messages_dropped(DataDrop::Channel), 1);
    assert_eq!(stage.clients[bob].messages, []);
}
