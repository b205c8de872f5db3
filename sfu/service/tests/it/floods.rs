//! What a Participant who means harm can send, or keep from sending: it is limited, refused or ignored, counted by its cause, and the
//! people in another Room of the same thread notice nothing of it.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use model::id::ParticipantId;
use model::media::{GoneReason, MediaCommandKind, MediaEventKind, MediaOffer, MediaRefusal};
use model::room::{Role, Source};
use sfu_core::Dropped;
use sfu_rtp::packet::FixedHeader;
use sfu_service::{Config, DataDrop, Drop};

use crate::client::{Client, PATIENCE};
use crate::hostile::{binding, value};
use crate::stage::{OTHER_ROOM, ROOM, Stage};

/// Whom we call ourselves in RTCP of our own.
const OWN_SSRC: u32 = 0xBAD;

/// Two people in a Room of their own, one of whom speaks all the time.
struct Bystanders {
    speaker: usize,
    listener: usize,
    said: usize,
}

impl Bystanders {
    fn join(stage: &mut Stage) -> Self {
        stage.room = OTHER_ROOM;
        let speaker = stage.join(&[Source::Microphone], 0, 0);
        let listener = stage.join(&[], 1, 0);
        stage.room = ROOM;
        Self {
            speaker,
            listener,
            said: 0,
        }
    }

    /// Says something, and lets everybody go on.
    fn speak(&mut self, stage: &mut Stage) {
        stage.clients[self.speaker].send(0, b"never mind them", false, 960);
        self.said += 1;
        stage.rest(Duration::from_millis(5));
    }

    /// All that was said was heard, once and in order; nothing of ours has panicked.
    #[track_caller]
    fn assert_unharmed(&mut self, stage: &mut Stage) {
        self.speak(stage);
        let (listener, said) = (self.listener, self.said);
        stage.run("all heard", |stage| {
            stage.clients[listener].received.len() >= said
        });
        let heard = &stage.clients[listener].received;
        let first = *heard[0].seq_no;
        let numbers: Vec<u64> = heard.iter().map(|packet| *packet.seq_no - first).collect();
        assert_eq!(numbers, (0..said as u64).collect::<Vec<_>>());
        assert_eq!(stage.figures().panics, 0);
    }
}

fn header(ssrc: u32, payload_type: u8, number: u16) -> FixedHeader {
    FixedHeader {
        marker: false,
        payload_type,
        sequence_number: number,
        timestamp: 960 * u32::from(number),
        ssrc,
    }
}

#[test]
fn who_may_not_speak_is_not_heard_whatever_they_send() {
    let mut stage = Stage::new();
    let mut others = Bystanders::join(&mut stage);
    let mallory = stage.join(&[Source::Microphone], 0, 0);
    let bob = stage.join(&[], 1, 0);
    stage.command(MediaCommandKind::Permit {
        participant: stage.clients[mallory].id,
        permissions: Role::Listener.permissions(),
    });
    stage.rest(Duration::from_millis(50));
    for _ in 0..50 {
        stage.clients[mallory].send_voice(0, b"let me in", 0);
        others.speak(&mut stage);
    }
    stage.run("counted", |stage| {
        stage.figures().rooms_counted.dropped(Dropped::Muted) == 50
    });
    assert!(stage.clients[bob].received.is_empty());
    others.assert_unharmed(&mut stage);
}

#[test]
fn signed_requests_from_ever_new_addresses_are_answered_up_to_a_limit() {
    let mut stage = Stage::new();
    let mut others = Bystanders::join(&mut stage);
    let mallory = stage.join(&[], 1, 0);
    let server = stage.handle.udp_addresses()[0];
    let request = |stage: &mut Stage| {
        let client = &mut stage.clients[mallory];
        let own = client.rtc.direct_api().local_ice_credentials();
        let answer = &client.answer;
        let user = format!("{}:{}", value(answer, "a=ice-ufrag:"), own.ufrag);
        binding(&user, value(answer, "a=ice-pwd:"))
    };
    let is_answered = |socket: &UdpSocket, request: &[u8]| {
        let timeout = Duration::from_millis(300);
        socket.set_read_timeout(Some(timeout)).unwrap();
        socket.send_to(request, server).unwrap();
        socket.recv(&mut [0; 2048]).is_ok()
    };

    let sockets: Vec<UdpSocket> = (0..150)
        .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    let signed = request(&mut stage);
    for socket in &sockets {
        socket.send_to(&signed, server).unwrap();
        others.speak(&mut stage);
    }
    // One of 64 addresses is their own.
    stage.run("dropped", |stage| {
        stage.figures().dropped(Drop::StunFull) >= 150 - 63
    });
    assert_eq!(stage.figures().dropped(Drop::StunFull), 150 - 63);
    assert!(is_answered(&sockets[10], &signed), "known");
    assert!(!is_answered(&sockets[149], &signed), "one too many");

    // And many from one address.
    let before = stage.figures().dropped(Drop::StunFull);
    for round in 0..1000 {
        sockets[10].send_to(&signed, server).unwrap();
        if round % 50 == 0 {
            others.speak(&mut stage);
        }
    }
    stage.run("too many", |stage| {
        stage.figures().dropped(Drop::StunFull) >= before + 500
    });

    // Where ICE begins anew there is room for others.
    stage.restart(mallory);
    let signed = request(&mut stage);
    let socket = &sockets[149];
    stage.run("answered", |_| is_answered(socket, &signed));
    others.assert_unharmed(&mut stage);
}

#[test]
fn numbers_that_stride_ahead_make_nobody_deaf() {
    let mut stage = Stage::new();
    let mut others = Bystanders::join(&mut stage);
    let mallory = stage.join(&[Source::Microphone], 0, 0);
    let bob = stage.join(&[], 1, 0);
    let server = stage.handle.udp_addresses()[0];
    let (ssrc, payload_type) = stage.clients[mallory].sends_as(0);
    let say = |stage: &mut Stage, number, payload: &[u8]| {
        let header = header(ssrc, payload_type, number);
        stage.clients[mallory].send_rtp(server, &header, payload);
    };
    say(&mut stage, 1, b"good morning");
    stage.run("heard", |stage| stage.clients[bob].received.len() == 1);
    // More than half a cycle of numbers (RFC 3711 §3.3.1), under which nothing leaves for Bob.
    for step in 1..=12 {
        say(&mut stage, 1 + step * 2999, b"");
        others.speak(&mut stage);
    }
    say(&mut stage, 2 + 12 * 2999, b"can you hear me?");
    stage.run("opened", |stage| stage.clients[bob].received.len() == 2);

    // Nor who comes into the slot after them.
    stage.command(MediaCommandKind::Leave {
        participant: stage.clients[mallory].id,
    });
    let alice = stage.join(&[Source::Microphone], 0, 0);
    for _ in 0..10 {
        stage.clients[alice].send(0, b"and me?", false, 960);
        others.speak(&mut stage);
    }
    stage.run("alice is heard", |stage| {
        stage.clients[bob].received.len() == 12
    });
    others.assert_unharmed(&mut stage);
}

#[test]
fn ssrcs_that_nobody_announced_reach_nobody() {
    let mut stage = Stage::new();
    let mut others = Bystanders::join(&mut stage);
    let mallory = stage.join(&[Source::Microphone], 0, 0);
    let bob = stage.join(&[], 1, 0);
    let server = stage.handle.udp_addresses()[0];
    // Sealed with the right keys, far more of them than are remembered, and the payload type of the microphone among the rest.
    for round in 0..20_u32 {
        for number in 0..100_u32 {
            let payload_type = u8::try_from(96 + number % 32).unwrap();
            let ssrc = 0x1000_0000 + round * 100 + number;
            let header = header(ssrc, payload_type, 1);
            stage.clients[mallory].send_rtp(server, &header, b"who is this?");
        }
        others.speak(&mut stage);
    }
    stage.run("counted", |stage| {
        let counted = stage.figures().rooms_counted;
        counted.dropped(Dropped::UnknownSsrc) == 2000
    });
    assert!(stage.clients[bob].received.is_empty());

    // And their own voice is heard as before: the flood has used nothing up.
    for _ in 0..20 {
        stage.clients[mallory].send(0, b"it is me", false, 960);
        others.speak(&mut stage);
    }
    stage.run("heard", |stage| stage.clients[bob].received.len() == 20);
    others.assert_unharmed(&mut stage);
}

#[test]
fn a_storm_of_requests_makes_few_key_frames() {
    let mut stage = Stage::new();
    let mut others = Bystanders::join(&mut stage);
    let alice = stage.join(&[Source::Camera], 0, 0);
    let mallory = stage.join(&[], 0, 1);
    let bob = stage.join(&[], 0, 1);
    let server = stage.handle.udp_addresses()[0];
    let mut picture = 0;
    let mut show = |stage: &mut Stage| {
        picture += 1;
        stage.clients[alice].send_video(0, picture, picture == 1, 1, 1);
    };
    for _ in 0..20 {
        show(&mut stage);
        others.speak(&mut stage);
    }
    let slot = stage.clients[mallory].video_slots[0];
    let ssrc = stage.clients[mallory].ssrc_in(slot);
    stage.clients[alice].asked.clear();
    let start = Instant::now();
    for number in 0..100_u8 {
        stage.clients[mallory].send_rtcp(server, |rtcp| {
            rtcp.receiver_report(OWN_SSRC, &[]).unwrap();
            for round in 0..20 {
                rtcp.pli(OWN_SSRC, ssrc).unwrap();
                rtcp.fir(OWN_SSRC, ssrc, number.wrapping_add(round))
                    .unwrap();
            }
        });
        show(&mut stage);
        others.speak(&mut stage);
    }
    let figures = stage.figures().rooms_counted;
    assert!(figures.key_frames_wanted >= 3000, "{figures:?}");
    let seconds = start.elapsed().as_secs() + 1;
    let asked = stage.clients[alice].asked.len() as u64;
    assert!(asked <= 4 * seconds, "{asked} in {seconds} s");
    // Who did nothing sees all of it.
    stage.run("seen", |stage| stage.clients[bob].received.len() >= 120);
    others.assert_unharmed(&mut stage);
}

#[test]
fn a_storm_of_nacks_is_answered_up_to_its_share() {
    let mut stage = Stage::new();
    let mut others = Bystanders::join(&mut stage);
    let alice = stage.join(&[Source::Camera], 0, 0);
    let mallory = stage.join(&[], 0, 1);
    let bob = stage.join(&[], 0, 1);
    let server = stage.handle.udp_addresses()[0];
    for picture in 1..=60 {
        stage.clients[alice].send_video(0, picture, picture == 1, 2, 1);
        others.speak(&mut stage);
    }
    let slot = stage.clients[mallory].video_slots[0];
    let ssrc = stage.clients[mallory].ssrc_in(slot);
    let before = stage.figures();
    for round in 0..60_u16 {
        for part in 0..8_u16 {
            // Every number there is, again and again.
            let first = (round % 8) * 8192 + part * 1024;
            let numbers: Vec<u16> = (0..1024).map(|number| first + number).collect();
            let client = &mut stage.clients[mallory];
            client.send_rtcp(server, |rtcp| {
                rtcp.receiver_report(OWN_SSRC, &[]).unwrap();
                rtcp.nack(OWN_SSRC, ssrc, &numbers).unwrap();
            });
        }
        // Of SSRCs they don't receive, too.
        stage.clients[mallory].send_rtcp(server, |rtcp| {
            rtcp.receiver_report(OWN_SSRC, &[]).unwrap();
            rtcp.nack(OWN_SSRC, 0xDEAD, &[1, 2, 3]).unwrap();
        });
        stage.clients[alice].send_video(0, 100 + round, false, 2, 1);
        others.speak(&mut stage);
    }
    let after = stage.figures();
    let counted = after.rooms_counted;
    assert!(counted.nacks_flooded > 0, "{counted:?}");
    assert!(counted.rtcp_unknown_ssrc >= 60, "{counted:?}");
    // Some 240 packets were sent to them: half as many may be sent again, and a burst of 64 kB.
    let resent = counted.resent - before.rooms_counted.resent;
    assert!(resent <= 300, "{resent} packets again");
    stage.run("seen", |stage| stage.clients[bob].received.len() >= 240);
    others.assert_unharmed(&mut stage);
}

#[test]
fn who_never_tells_what_arrives_slows_nobody_down() {
    let mut stage = Stage::new();
    let mut others = Bystanders::join(&mut stage);
    let alice = stage.join(&[Source::Camera], 0, 0);
    let mallory = stage.join_as(&[], 0, 1, |client| client.is_mute_in_rtcp = true);
    let bob = stage.join(&[], 0, 1);
    // Some 4 Mbit/s, far more than is sent on a way of which nothing is known.
    for picture in 1..=150 {
        stage.clients[alice].send_video(0, picture, picture == 1, 4, 1);
        others.speak(&mut stage);
    }
    stage.run("seen", |stage| stage.clients[bob].received.len() >= 600);
    let counted = stage.figures();
    let is_limited = stage.clients[mallory].received.len() < 600
        || counted.dropped(Drop::DownlinkFull) > 0
        || stage
            .heard
            .iter()
            .any(|event| matches!(event, MediaEventKind::Paused { .. }));
    assert!(is_limited, "{counted:?}");
    others.assert_unharmed(&mut stage);
}

/// A payload of VP8 whose key frame says that it is of another size than it is.
fn lying_key_frame(picture: u16, width: u16, height: u16) -> Vec<u8> {
    let mut payload = crate::client::vp8(picture, true, true, 7);
    payload[10..12].copy_from_slice(&width.to_le_bytes());
    payload[12..14].copy_from_slice(&height.to_le_bytes());
    payload
}

#[test]
fn lies_about_sizes_and_loudness_harm_nobody_else() {
    let mut stage = Stage::new();
    let mut others = Bystanders::join(&mut stage);
    let sources = [Source::Microphone, Source::Camera];
    let alice = stage.join(&sources, 0, 0);
    let mallory = stage.join(&sources, 0, 0);
    let bob = stage.join(&[], 2, 2);
    let sizes = [(0, 0), (0x3FFF, 0x3FFF), (1, 0x3FFF), (0xFFFF, 0)];
    for round in 0..60_u16 {
        let (width, height) = sizes[usize::from(round) % sizes.len()];
        let client = &mut stage.clients[mallory];
        client.send_payload(1, &lying_key_frame(round, width, height));
        // As loud as can be, all the time.
        client.send_voice(0, b"hear me", 0);
        let client = &mut stage.clients[alice];
        client.send_video(1, round, round == 0, 1, 1);
        client.send_voice(0, b"good morning", -40);
        others.speak(&mut stage);
    }
    let came = |stage: &Stage, last: u8, len: usize| {
        let is_it = |packet: &&str0m::rtp::RtpPacket| {
            packet.payload.last() == Some(&last) && packet.payload.len() > len
        };
        stage.clients[bob].received.iter().filter(is_it).count()
    };
    stage.run("alice is seen", |stage| came(stage, 1, 100) >= 60);
    stage.run("alice is heard", |stage| came(stage, b'g', 5) >= 50);
    others.assert_unharmed(&mut stage);
}

#[test]
fn floods_of_joins_are_refused_while_others_talk() {
    let mut stage = Stage::with(Config {
        participants_per_room_max: 8,
        participants_max: 10,
        ..Config::default()
    });
    let mut others = Bystanders::join(&mut stage);
    let good = Client::new(50).offer(&[Source::Microphone], 1, 0);
    let bad = MediaOffer {
        sdp: good.sdp.repeat(20),
        ..good.clone()
    };
    let mut refused = 0;
    for round in 0..100_u128 {
        // Ten thousand a second, if there were no other work.
        for number in 0..20 {
            let offer = match number % 2 {
                0 => good.clone(),
                _ => bad.clone(),
            };
            stage.command(MediaCommandKind::Join {
                participant: ParticipantId::from_u128(1000 + round * 20 + number),
                permissions: Role::Speaker.permissions(),
                encrypted: false,
                offer,
            });
            stage.hear();
        }
        others.speak(&mut stage);
        refused += take_refusals(&mut stage);
    }
    stage.run("all answered", |stage| {
        refused += take_refusals(stage);
        refused == 2000 - 8
    });
    let figures = stage.figures();
    assert_eq!(figures.participants, 10);
    assert_eq!(figures.refused(MediaRefusal::Full), 1000 - 8);
    others.assert_unharmed(&mut stage);
}

/// Takes refusals out of what was heard.
fn take_refusals(stage: &mut Stage) -> usize {
    let before = stage.heard.len();
    let is_other = |event: &MediaEventKind| !matches!(event, MediaEventKind::Refused { .. });
    stage.heard.retain(is_other);
    before - stage.heard.len()
}

#[test]
fn floods_of_messages_are_cut_off_and_voices_go_on() {
    const LOSSY: usize = 1;

    let mut stage = Stage::new();
    let mut others = Bystanders::join(&mut stage);
    let [mallory, _] = [(); 2].map(|()| stage.join_as(&[], 0, 0, |client| client.has_data = true));
    stage.run("the channel is open", |stage| {
        stage.clients[mallory].is_open(LOSSY)
    });
    // To everybody, to nobody, and nothing that can be read.
    let messages = [
        [&[1, 0][..], &[7; 900]].concat(),
        vec![1, 255],
        vec![0xFF; 900],
    ];
    for round in 0..60 {
        for _ in 0..10 {
            stage.clients[mallory].say(LOSSY, true, &messages[round % messages.len()]);
        }
        others.speak(&mut stage);
    }
    stage.run("cut off", |stage| {
        let figures = stage.figures();
        figures.messages_dropped(DataDrop::RateLimited) > 0
    });
    others.assert_unharmed(&mut stage);
}

#[test]
fn who_has_another_certificate_than_was_offered_is_let_go() {
    let mut stage = Stage::new();
    let mut others = Bystanders::join(&mut stage);
    let bob = stage.join(&[], 1, 0);
    let mut client = Client::new(50);
    let mut offer = client.offer(&[Source::Microphone], 0, 0);
    // Somebody on the way has put a fingerprint of theirs into the offer.
    let at = offer.sdp.find("sha-256 ").unwrap() + "sha-256 ".len();
    let fingerprint = offer.sdp[at..at + 95].to_owned();
    offer.sdp = offer.sdp.replace(&fingerprint, &["AB"; 32].join(":"));
    let answer = stage.join_raw(50, Role::Speaker.permissions(), offer);
    let MediaEventKind::Answered { sdp, .. } = answer else {
        panic!("{answer:?}");
    };
    client.accept(&sdp);
    let id = client.id;
    stage.clients.push(client);
    let gone = stage.next(|event| matches!(event, MediaEventKind::Gone { .. }));
    let expected = MediaEventKind::Gone {
        participant: id,
        reason: GoneReason::DtlsFailed,
    };
    assert_eq!(gone, expected);
    assert!(stage.clients[bob].received.is_empty());
    others.assert_unharmed(&mut stage);
}

#[test]
fn a_camera_that_is_offered_anew_again_and_again_is_always_seen() {
    let mut stage = Stage::new();
    let alice = stage.join(&[Source::Microphone], 0, 1);
    let bob = stage.join(&[], 0, 1);
    let server = stage.handle.udp_addresses()[0];
    // Sources of their own that come and go, as those of a browser do whose camera is switched on and off for years.
    for number in 0..400_u32 {
        let header = header(0x2000_0000 + number, 127, 1);
        stage.clients[alice].send_rtp(server, &header, b"gone");
        if number % 20 == 0 {
            stage.rest(Duration::from_millis(1));
        }
    }
    stage.offer(alice, &[Source::Camera], 0, 0);
    let before = stage.figures().dropped(Drop::Srtp);
    let start = Instant::now();
    let mut picture = 0;
    while stage.clients[bob].received.len() < 10 {
        picture += 1;
        stage.clients[alice].send_video(1, picture, picture % 10 == 1, 1, 1);
        stage.rest(Duration::from_millis(10));
        assert!(start.elapsed() < PATIENCE, "{:?}", stage.figures());
    }
    assert_eq!(stage.figures().dropped(Drop::Srtp), before);
}
