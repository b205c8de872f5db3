//! Offers that change how somebody is reached, and sections that pause: what was there goes on.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use model::room::Source;
use sfu_service::Drop;
use str0m::media::Direction;

use crate::client::PATIENCE;
use crate::hostile::{binding, value};
use crate::stage::Stage;

/// Has somebody speak for so many packets; each says its number.
fn speak(stage: &mut Stage, speaker: usize, said: &mut u16, packets: u16) {
    for _ in 0..packets {
        stage.clients[speaker].send(0, &said.to_be_bytes(), false, 960);
        *said += 1;
        stage.rest(Duration::from_millis(10));
    }
}

/// What somebody heard, and the gaps between the packets' numbers.
fn heard(stage: &mut Stage, listener: usize) -> (Vec<u16>, Vec<u64>) {
    let slot = stage.clients[listener].audio_slots[0];
    let packets = stage.clients[listener].received_in(slot);
    let said = |payload: &[u8]| u16::from_be_bytes(payload.try_into().unwrap());
    let numbers: Vec<u64> = packets.iter().map(|packet| *packet.seq_no).collect();
    (
        packets.iter().map(|packet| said(&packet.payload)).collect(),
        numbers.windows(2).map(|pair| pair[1] - pair[0]).collect(),
    )
}

/// The name and the password a client is to show, by the answer it got last.
fn credentials(stage: &Stage, place: usize) -> (String, String) {
    let answer = &stage.clients[place].answer;
    let of = |name: &str| value(answer, name).to_owned();
    (of("a=ice-ufrag:"), of("a=ice-pwd:"))
}

#[test]
fn an_ice_restart_leaves_no_gap_and_ends_the_credentials_before() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 0, 0);
    let bob = stage.join(&[], 1, 0);
    let server = stage.handle.udp_addresses()[0];
    let mut said = 0;
    for who in [alice, bob, alice] {
        speak(&mut stage, alice, &mut said, 20);
        let before = credentials(&stage, who);
        stage.restart(who);
        let after = credentials(&stage, who);
        assert!(before.0 != after.0 && before.1 != after.1, "{before:?}");
        speak(&mut stage, alice, &mut said, 20);

        let knocks = |(ufrag, password): &(String, String)| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let timeout = Duration::from_millis(300);
            socket.set_read_timeout(Some(timeout)).unwrap();
            let request = binding(&format!("{ufrag}:anybody"), password);
            socket.send_to(&request, server).unwrap();
            socket.recv(&mut [0; 2048]).is_ok()
        };
        let refused = stage.figures().dropped(Drop::StunPassword);
        assert!(!knocks(&before), "they end with the answer");
        assert!(stage.figures().dropped(Drop::StunPassword) > refused);
    }
    stage.run("all heard", |stage| {
        heard(stage, bob).0.len() == usize::from(said)
    });
    let (words, gaps) = heard(&mut stage, bob);
    assert_eq!(words, (0..said).collect::<Vec<u16>>());
    assert!(gaps.iter().all(|gap| *gap == 1), "{gaps:?}");
    assert_eq!(stage.figures().connected, 2);
}

#[test]
fn who_moves_to_another_network_is_heard_from_there_and_hears_there() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 0, 0);
    let bob = stage.join(&[Source::Microphone], 1, 0);
    let mut said = 0;
    speak(&mut stage, alice, &mut said, 10);
    for who in [bob, alice] {
        stage.clients[who].move_away();
        stage.restart(who);
        let before = heard(&mut stage, bob).0.len();
        let start = Instant::now();
        while heard(&mut stage, bob).0.len() < before + 20 {
            speak(&mut stage, alice, &mut said, 1);
            assert!(
                start.elapsed() < PATIENCE,
                "not heard again: {:?}",
                stage.figures()
            );
        }
    }
    assert_eq!(stage.figures().connected, 2);
}

#[test]
fn a_section_that_begins_to_send_is_heard_and_so_is_one_that_paused() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 0, 0);
    let bob = stage.join(&[], 1, 0);
    let mid = stage.clients[alice].tracks[0].mid;
    let mut said = 0;
    for round in 0..3 {
        let before = heard(&mut stage, bob).0.len();
        speak(&mut stage, alice, &mut said, 20);
        stage.run("heard", |stage| heard(stage, bob).0.len() >= before + 20);
        stage.turn_section(alice, mid, Direction::Inactive);
        let before = heard(&mut stage, bob).0.len();
        stage.rest(Duration::from_millis(50));
        assert_eq!(heard(&mut stage, bob).0.len(), before, "round {round}");
        stage.turn_section(alice, mid, Direction::SendOnly);
    }
    let (words, gaps) = heard(&mut stage, bob);
    assert_eq!(words, (0..said).collect::<Vec<u16>>());
    assert!(gaps.iter().all(|gap| *gap == 1), "{gaps:?}");

    // And one that was never active before.
    let carol = stage.join_as(&[Source::Microphone], 0, 0, |client| {
        client.begins_idle = true;
    });
    let mid = stage.clients[carol].tracks[0].mid;
    stage.turn_section(carol, mid, Direction::SendOnly);
    let before = stage.clients[bob].received.len();
    let start = Instant::now();
    while stage.clients[bob].received.len() < before + 20 {
        speak(&mut stage, carol, &mut said, 1);
        assert!(
            start.elapsed() < PATIENCE,
            "never heard: {:?}",
            stage.figures()
        );
    }
}
