use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use gateway_sip::negotiate::{Codec, Keys};
use gateway_sip::sdp::Direction;
use model::plain::PAYLOAD_LEN_MAX;

use super::*;
use crate::sound::EventKind;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const A: LegId = LegId(1);
const B: LegId = LegId(2);

struct World {
    engine: Engine,
    events: mpsc::Receiver<Event>,
}

impl World {
    fn new() -> Self {
        let (sender, events) = mpsc::channel(16);
        let engine = Engine::start(settings(30_000, 39_999), &sender).unwrap();
        Self { engine, events }
    }

    /// Two Legs that send each other what they hear.
    fn pair(&mut self) {
        let [a, b] = [A, B].map(|leg| self.engine.open(leg, HERE).unwrap());
        self.engine.agree(A, &agreed(b));
        self.engine.agree(B, &agreed(a));
    }

    fn next(&mut self) -> Event {
        self.events.blocking_recv().unwrap()
    }
}

fn settings(port_min: u16, port_max: u16) -> Settings {
    Settings {
        port_min,
        port_max,
        threads: 2,
        silent_after: Duration::from_secs(30),
    }
}

fn agreed(port: u16) -> Agreed {
    let remote = SocketAddr::new(HERE, port);
    Agreed {
        remote,
        remote_rtcp: SocketAddr::new(HERE, port + 1),
        codec: Codec::Pcmu,
        payload_type: 0,
        receiving: vec![(0, Codec::Pcmu)],
        dtmf: Some((101, 101)),
        comfort_noise: false,
        direction: Direction::SendRecv,
        packet_ms: 20,
        keys: Keys::None,
    }
}

/// Waits for sound in a ring.
fn hear(end: &mut End) {
    let mut payload = [0; PAYLOAD_LEN_MAX];
    let mut loud = 0;
    while loud < 10 {
        match end.receive(&mut payload) {
            Some((packet, _)) => {
                loud += usize::from(packet.level.is_some_and(|level| level.below_full < 60));
            }
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn legs_hear_each_other_and_rooms_hear_legs() {
    let mut world = World::new();
    world.pair();
    world.engine.connect(A, To::Music);
    let (mut near, far) = plain::pair(std::task::Waker::noop().clone());
    let track = TrackId::from_u128(5);
    world.engine.connect(B, To::Room(Box::new(far), track));
    hear(&mut near);

    for key in "42#".chars() {
        world.engine.key(A, key);
    }
    for key in "42#".chars() {
        let expected = Event {
            leg: B,
            kind: EventKind::Key(key),
        };
        assert_eq!(world.next(), expected);
    }
    drop(near);
    assert_eq!(
        world.next(),
        Event {
            leg: B,
            kind: EventKind::RoomLost
        }
    );
    for leg in [A, B] {
        world.engine.close(leg);
        let closed = world.next();
        let EventKind::Closed(figures) = closed.kind else {
            panic!("{closed:?}");
        };
        assert_eq!(closed.leg, leg);
        assert!(figures.packets_sent > 10 && figures.packets_received > 10);
    }
}

/// Two Legs whose keys come by DTLS; A is told this fingerprint of B.
fn keyed(world: &mut World, told: &str) {
    let [a, b] = [A, B].map(|leg| world.engine.open(leg, HERE).unwrap());
    let own = world.engine.fingerprint().unwrap();
    let keyed = |port, active, fingerprint: &str| Agreed {
        keys: Keys::Dtls {
            fingerprint: fingerprint.to_owned(),
            active,
        },
        ..agreed(port)
    };
    world.engine.agree(A, &keyed(b, true, told));
    world.engine.agree(B, &keyed(a, false, &own));
}

#[test]
fn legs_hear_each_other_by_keys_of_dtls_if_each_is_who_was_told() {
    let mut world = World::new();
    let own = world.engine.fingerprint().unwrap();
    keyed(&mut world, &own);
    world.engine.connect(A, To::Music);
    let (mut near, far) = plain::pair(std::task::Waker::noop().clone());
    let to = To::Room(Box::new(far), TrackId::from_u128(5));
    world.engine.connect(B, to);
    hear(&mut near);

    let mut world = World::new();
    let wrong = format!("sha-256 {}", vec!["00"; 32].join(":"));
    keyed(&mut world, &wrong);
    let expected = Event {
        leg: A,
        kind: EventKind::NoKeys,
    };
    assert_eq!(world.next(), expected);
}

/// A packet of a phone: 400 Hz, half as loud as can be.
fn loud(sequence: u16) -> [u8; 172] {
    let mut packet = [0; 172];
    (packet[0], packet[11]) = (0x80, 7);
    for (at, byte) in packet[12..].iter_mut().enumerate() {
        *byte = if at / 10 % 2 == 0 { 0x90 } else { 0x10 };
    }
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    packet
}

#[test]
fn what_a_third_address_sends_is_not_heard() {
    let mut world = World::new();
    let port = world.engine.open(A, HERE).unwrap();
    let phone = UdpSocket::bind((HERE, 0)).unwrap();
    phone.connect((HERE, port)).unwrap();
    let told = phone.local_addr().unwrap().port();
    world.engine.agree(A, &agreed(told));
    // It is heard once it is spoken to.
    world.engine.connect(A, To::Music);
    phone.recv(&mut [0; 1_500]).unwrap();
    let key = |pressed: u8, sequence: u16| {
        let mut packet = [0; 16];
        packet[..2].copy_from_slice(&[0x80, 0x80 | 101]);
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
        packet[11] = 7;
        // It has ended, and was 800 samples long (RFC 4733 §2.3).
        packet[12..].copy_from_slice(&[pressed, 0x80, 3, 32]);
        packet
    };
    let pressed = |world: &mut World, key| {
        let kind = EventKind::Key(key);
        assert_eq!(world.next(), Event { leg: A, kind });
    };
    for sequence in 0..5 {
        phone.send(&loud(sequence)).unwrap();
    }
    phone.send(&key(1, 5)).unwrap();
    pressed(&mut world, '1');
    // Somebody who has found the port knows even how the stream goes on.
    for address in ["127.0.0.66:0", "127.0.0.1:0"] {
        let stranger = UdpSocket::bind(address).unwrap();
        for sequence in 6..60 {
            let packet = loud(sequence);
            stranger.send_to(&packet, (HERE, port)).unwrap();
        }
        stranger.send_to(&key(9, 60), (HERE, port)).unwrap();
    }
    phone.send(&key(2, 6)).unwrap();
    pressed(&mut world, '2');
    world.engine.close(A);
    let EventKind::Closed(figures) = world.next().kind else {
        panic!("it was closed");
    };
    assert_eq!((figures.packets_received, figures.packets_lost), (7, 0));
}

#[test]
fn two_legs_of_one_call_are_joined_whoever_is_told_first() {
    let mut world = World::new();
    // A phone at each end of two Legs that are joined: what one hears the other sends.
    let phones: Vec<UdpSocket> = (0..2)
        .map(|_| UdpSocket::bind((HERE, 0)).unwrap())
        .collect();
    for (leg, phone) in [A, B].into_iter().zip(&phones) {
        let port = world.engine.open(leg, HERE).unwrap();
        world
            .engine
            .agree(leg, &agreed(phone.local_addr().unwrap().port()));
        phone.connect((HERE, port)).unwrap();
    }
    world.engine.connect(A, To::Leg(B));
    world.engine.connect(B, To::Leg(A));
    let mut heard = [0; 1_500];
    let (mut loud_ones, mut sequence) = (0, 0_u16);
    while loud_ones < 20 {
        phones[0].send(&loud(sequence)).unwrap();
        sequence = sequence.wrapping_add(1);
        // The other phone's packets are the clock.
        let len = phones[1].recv(&mut heard).unwrap();
        let is_loud = |byte: &&u8| (**byte & 0x7f) < 0x50;
        loud_ones += usize::from(heard[12..len].iter().filter(is_loud).count() > 80);
    }
    // Where the other Leg went is known to who sent it there.
    for leg in [A, B] {
        world.engine.close(leg);
        let event = world.next();
        assert!(matches!(event.kind, EventKind::Closed(_)), "{event:?}");
        assert_eq!(event.leg, leg);
    }
}

#[test]
fn ports_are_pairs_that_come_back() {
    let mut world = World::new();
    world.engine.settings = settings(39_001, 39_006);
    let mut ports: Vec<u16> = [A, B]
        .map(|leg| world.engine.open(leg, HERE).unwrap())
        .to_vec();
    ports.sort_unstable();
    assert_eq!(ports, [39_002, 39_004]);
    assert_eq!(world.engine.open(LegId(3), HERE), Err(NoPort));
    world.engine.close(A);
    assert!(matches!(world.next().kind, EventKind::Closed(_)));
    assert!(world.engine.open(LegId(3), HERE).is_ok());

    let (sender, _) = mpsc::channel(1);
    for (min, max) in [(7, 7), (7, 8), (9, 3)] {
        assert!(Engine::start(settings(min, max), &sender).is_err());
    }
    assert_eq!(ports::pairs(&settings(65_534, 65_535)), 1);
}
