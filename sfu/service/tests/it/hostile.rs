//! What a stranger, or a Participant who means harm, can't do.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use model::media::{MediaCommandKind, MediaEventKind, MediaOffer, MediaRefusal, SdpFault};
use model::room::{Role, Source};
use relay_stun::{AttributeType, Class, IntegrityKey, IntegrityKind, MessageWriter, Method};
use sfu_service::{Config, Drop};

use crate::client::{Client, is_rtp};
use crate::stage::Stage;

fn refusal(event: &MediaEventKind) -> Option<MediaRefusal> {
    match event {
        MediaEventKind::Refused { refusal, .. } => Some(*refusal),
        _ => None,
    }
}

/// Whether two people in the Room still hear each other.
#[track_caller]
fn assert_alive(stage: &mut Stage, speaker: usize, listener: usize) {
    stage.clients[listener].received.clear();
    for _ in 0..20 {
        stage.clients[speaker].send(0, b"still here", false, 960);
        stage.rest(Duration::from_millis(5));
    }
    stage.run("still heard", |stage| {
        stage.clients[listener].received.len() >= 20
    });
}

fn pair() -> (Stage, usize, usize) {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 1, 0);
    let bob = stage.join(&[Source::Microphone], 1, 0);
    (stage, alice, bob)
}

#[test]
fn offers_made_to_hurt_are_refused_by_cause() {
    let (mut stage, alice, bob) = pair();
    let permissions = Role::Speaker.permissions();
    let good = Client::new(50).offer(&[Source::Microphone], 1, 1);
    let mut number = 100;
    let mut check = |sdp: String, expected: Option<MediaRefusal>| {
        number += 1;
        let offer = MediaOffer {
            sdp,
            ..good.clone()
        };
        assert_eq!(
            refusal(&stage.join_raw(number, permissions, offer)),
            expected
        );
    };
    let section = &good.sdp[good.sdp.find("m=").unwrap()..];
    let thousand: String = (0..1000).map(|_| section).collect();
    check(
        format!("{}{thousand}", good.sdp),
        Some(MediaRefusal::TooManySections),
    );
    let bad = |fault| Some(MediaRefusal::BadSdp(fault));
    check(String::new(), bad(SdpFault::NoSections));
    check("v=0\r\n".repeat(1000), bad(SdpFault::NoSections));
    check(
        good.sdp.replace("sha-256", "sha-1"),
        Some(MediaRefusal::WeakFingerprint),
    );
    check(
        good.sdp.replace("opus/48000/2", "speex/8000"),
        Some(MediaRefusal::NoCodec),
    );
    check(
        good.sdp.replace("a=ice-ufrag", "a=ice-nothing"),
        bad(SdpFault::Ice),
    );
    check(good.sdp.replace("BUNDLE", "LS"), bad(SdpFault::NotBundled));
    // Every line left out in its turn, and every byte made another: whatever comes of it, somebody else is served.
    let lines: Vec<&str> = good.sdp.split_inclusive("\r\n").collect();
    for left_out in 0..lines.len() {
        let sdp: String = lines
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != left_out)
            .map(|(_, line)| *line)
            .collect();
        number += 1;
        stage.join_raw(
            number,
            permissions,
            MediaOffer {
                sdp,
                ..good.clone()
            },
        );
    }
    for (at, byte) in good.sdp.bytes().enumerate().step_by(17) {
        let mut sdp = good.sdp.clone().into_bytes();
        sdp[at] = byte.wrapping_add(1) & 0x7F;
        number += 1;
        let sdp = String::from_utf8(sdp).unwrap();
        stage.join_raw(
            number,
            permissions,
            MediaOffer {
                sdp,
                ..good.clone()
            },
        );
    }
    let figures = stage.figures();
    assert_eq!(figures.refused(MediaRefusal::TooManySections), 1);
    assert!(figures.refused(MediaRefusal::BadSdp(SdpFault::Ice)) >= 1);
    assert_eq!(figures.panics, 0);
    assert_alive(&mut stage, alice, bob);
}

#[test]
fn a_full_room_takes_nobody_and_an_older_offer_is_stale() {
    let mut stage = Stage::with(Config {
        participants_per_room_max: 1,
        ..Config::default()
    });
    let alice = stage.join(&[Source::Microphone], 1, 0);
    let offer = Client::new(50).offer(&[], 1, 0);
    let answer = stage.join_raw(50, Role::Speaker.permissions(), offer);
    assert_eq!(refusal(&answer), Some(MediaRefusal::Full));

    let (participant, generation) = (stage.clients[alice].id, stage.clients[alice].generation);
    let mut again = stage.clients[alice].offer(&[], 1, 0);
    again.generation = generation;
    stage.command(MediaCommandKind::Offer {
        participant,
        offer: again,
    });
    let answer = stage.next(|event| matches!(event, MediaEventKind::Refused { .. }));
    assert_eq!(refusal(&answer), Some(MediaRefusal::StaleGeneration));
}

#[test]
fn what_sends_without_a_name_is_not_taken() {
    let mut stage = Stage::new();
    let mut client = Client::new(50);
    let offer = MediaOffer {
        tracks: Vec::new(),
        ..client.offer(&[Source::Microphone], 1, 0)
    };
    let answer = stage.join_raw(50, Role::Speaker.permissions(), offer);
    let MediaEventKind::Answered { sdp, .. } = answer else {
        panic!("{answer:?}");
    };
    let sections: Vec<&str> = sdp.split("m=").skip(1).collect();
    assert!(sections[0].contains("a=inactive"), "{}", sections[0]);
    assert!(sections[1].contains("a=sendonly"), "{}", sections[1]);
}

/// A Binding request as a browser sends it.
pub(crate) fn binding(user: &str, password: &str) -> Vec<u8> {
    let mut buffer = [0; 200];
    let writer = MessageWriter::new(&mut buffer, Class::Request, Method::BINDING, [7; 12]);
    let written = writer
        .attribute(AttributeType::USERNAME, user.as_bytes())
        .attribute(AttributeType(0x0024), &[0, 0, 1, 0]) // PRIORITY
        .attribute(AttributeType(0x0025), &[]) // USE-CANDIDATE
        .attribute(AttributeType(0x802A), &[0; 8]) // ICE-CONTROLLING
        .integrity(IntegrityKind::Sha1, &IntegrityKey::short_term(password))
        .fingerprint()
        .finish();
    written.unwrap().to_vec()
}

pub(crate) fn value<'s>(sdp: &'s str, name: &str) -> &'s str {
    let line = sdp.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn an_address_is_learnt_from_nobody_without_the_password() {
    let (mut stage, alice, bob) = pair();
    let mut client = Client::new(50);
    let offer = client.offer(&[Source::Microphone], 1, 0);
    let offered = offer.sdp.clone();
    let answer = stage.join_raw(50, Role::Speaker.permissions(), offer);
    let MediaEventKind::Answered { sdp, .. } = answer else {
        panic!("{answer:?}");
    };
    let server = stage.handle.udp_addresses()[0];
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let user = format!(
        "{}:{}",
        value(&sdp, "a=ice-ufrag:"),
        value(&offered, "a=ice-ufrag:")
    );
    let mut buffer = [0; 2048];

    for (user, password) in [
        (user.as_str(), "guessed"),
        ("nobody:here", value(&sdp, "a=ice-pwd:")),
        ("", ""),
    ] {
        stranger.send_to(&binding(user, password), server).unwrap();
        assert!(
            stranger.recv(&mut buffer).is_err(),
            "an answer for {user:?}"
        );
    }
    assert_eq!(stage.figures().dropped(Drop::StunPassword), 3);
    stranger.send_to(&[22, 254, 253, 0, 0], server).unwrap();
    stranger.send_to(&[0x80; 100], server).unwrap();
    assert!(stranger.recv(&mut buffer).is_err());
    assert_eq!(stage.figures().dropped(Drop::Stranger), 2);

    // And it is the password that makes the difference.
    stranger
        .send_to(&binding(&user, value(&sdp, "a=ice-pwd:")), server)
        .unwrap();
    assert!(stranger.recv(&mut buffer).is_ok());
    assert_alive(&mut stage, alice, bob);
}

#[test]
fn garbage_and_floods_end_nothing() {
    let (mut stage, alice, bob) = pair();
    let server = stage.handle.udp_addresses()[0];
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let throw = |from: &UdpSocket, to: SocketAddr, seed: u32| {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        };
        let len = usize::from(next()) * 4;
        let mut bytes: Vec<u8> = (0..len).map(|_| next()).collect();
        if let Some(first) = bytes.first_mut() {
            *first = [0, 1, 20, 22, 63, 64, 128, 144, 191, 200][usize::from(next()) % 10];
        }
        from.send_to(&bytes, to).ok();
    };
    for seed in 0..3000 {
        throw(&stranger, server, seed);
        // From inside as well: the address of a Participant, who may send anything.
        throw(&stage.clients[alice].socket, server, seed);
        if seed % 50 == 0 {
            stage.rest(Duration::from_millis(1));
        }
    }
    // DTLS that was broken on purpose ends a connection, at most the sender's own.
    assert_eq!(stage.figures().panics, 0);
    let carol = stage.join(&[Source::Microphone], 2, 0);
    assert_alive(&mut stage, bob, carol);
}

#[test]
fn what_was_sent_once_is_not_heard_twice_and_forgeries_never() {
    let (mut stage, alice, bob) = pair();
    let server = stage.handle.udp_addresses()[0];
    for _ in 0..20 {
        stage.clients[alice].send(0, b"once", false, 960);
        stage.rest(Duration::from_millis(5));
    }
    stage.run("heard", |stage| stage.clients[bob].received.len() >= 20);
    let packets: Vec<Vec<u8>> = stage.clients[alice]
        .sent
        .iter()
        .filter(|sent| is_rtp(sent))
        .cloned()
        .collect();
    let before = stage.figures().dropped(Drop::Srtp);
    for packet in &packets {
        stage.clients[alice].socket.send_to(packet, server).unwrap(); // Replayed.
        let mut forged = packet.clone();
        forged[8] ^= 0x55; // Another SSRC.
        stage.clients[alice]
            .socket
            .send_to(&forged, server)
            .unwrap();
        let mut forged = packet.clone();
        *forged.last_mut().unwrap() ^= 1; // Another tag.
        stage.clients[alice]
            .socket
            .send_to(&forged, server)
            .unwrap();
    }
    stage.rest(Duration::from_millis(200));
    assert_eq!(stage.clients[bob].received.len(), 20);
    let dropped = stage.figures().dropped(Drop::Srtp) - before;
    assert_eq!(dropped, packets.len() as u64 * 3);
    assert_alive(&mut stage, alice, bob);
}

#[test]
fn a_participant_sends_no_more_than_they_may() {
    let mut stage = Stage::with(Config {
        bitrate_in_max_kbps: 100,
        ..Config::default()
    });
    let alice = stage.join(&[Source::Camera], 0, 0);
    stage.join(&[], 0, 1);
    for round in 0..100 {
        stage.clients[alice].send_video(0, round, true, 5, 1);
        stage.rest(Duration::from_millis(2));
    }
    stage.run("dropped", |stage| {
        stage.figures().dropped(Drop::IntakeFull) > 300
    });
}
