//! The SFU of the process, played by the test: what clients send to its ports, and what it answers, passes no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};

use relay_service::Handle;
use relay_stun::AddressFamily;
use relay_stun::client::AllocateOptions;
use sockets::handover::{self, End, Label, OwnerOf};
use sockets::ring::WAITING_MAX;
use sockets::wake::Waker;

use crate::phone::{Heard, Phone, Wire, start, stats, until};

const CHANNEL: u16 = 0x4000;

/// Two threads of an SFU, each with a port that nobody has bound.
struct Sfu {
    ends: Vec<End>,
    ports: [SocketAddr; 2],
    owner_of: OwnerOf,
}

impl Sfu {
    /// Connected with `relay`; its ports are of the documentation's addresses, where no packet could go.
    fn connect(relay: &Handle, ports: [&str; 2]) -> Sfu {
        let wakers: Vec<_> = (0..2).map(|_| Waker::new().unwrap().into()).collect();
        let (of_relay, ends) = handover::connect(relay.wakers(), &wakers);
        let ports = ports.map(|port| port.parse().unwrap());
        let media: BTreeMap<_, _> = ports.into_iter().zip(0..).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime
            .unwrap()
            .block_on(relay.connect_media(of_relay, media));
        Sfu {
            ends,
            ports,
            owner_of: relay.owner_of(),
        }
    }

    /// What waits for a thread: from whom, and each datagram.
    fn take(&mut self, thread: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let (receivers, port) = (&mut self.ends[thread].receivers, self.ports[thread]);
        let mut taken = Vec::new();
        receivers.look();
        receivers.read(|burst| {
            let Label { relayed, media, .. } = burst.label;
            assert_eq!(media, port);
            taken.extend(
                burst
                    .into_datagrams()
                    .map(|datagram| (relayed, datagram.to_vec())),
            );
        });
        taken
    }

    /// What a thread is sent next.
    fn hear(&mut self, thread: usize) -> (SocketAddr, Vec<u8>) {
        let mut heard = Vec::new();
        until(|| {
            heard.extend(self.take(thread));
            !heard.is_empty()
        });
        assert_eq!(heard.len(), 1);
        heard.remove(0)
    }

    /// Sends a burst from a thread's port; whether there is somebody to send it to.
    fn send(&mut self, thread: usize, relayed: SocketAddr, bytes: &[u8], segment: usize) -> bool {
        let Some(owner) = (self.owner_of)(relayed) else {
            return false;
        };
        let label = Label {
            relayed,
            media: self.ports[thread],
            segment,
        };
        let senders = &mut self.ends[thread].senders;
        senders.write(owner, label, bytes).unwrap();
        senders.wake();
        true
    }
}

const PORTS: [&str; 2] = ["192.0.2.7:10000", "127.0.0.1:10001"];

#[test]
fn clients_of_every_kind_reach_the_sfu_and_hear_it_without_a_socket() {
    // Nobody is allowed but the SFU.
    let relay = start(|config| {
        config.threads = 3;
        config.peers_allow = Vec::new();
    });
    let mut sfu = Sfu::connect(&relay, PORTS);
    // A port of the SFU that somebody has bound: it is heard by this socket if by any.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();

    let wires = [
        Wire::udp(&relay),
        Wire::udp(&relay),
        Wire::udp(&relay),
        Wire::tcp(&relay),
    ];
    for (wire, name) in wires.into_iter().zip(["alice", "bob", "carol", "dave"]) {
        let mut phone = Phone::new(wire, name);
        let relayed = phone.allocate(AllocateOptions::default()).relayed.unwrap();
        for (thread, port) in sfu.ports.into_iter().enumerate() {
            assert!(sfu.send(thread, relayed, b"stranger", 8));
            phone.hears_nothing(); // There is no Permission.
            let channel = CHANNEL + u16::try_from(thread).unwrap();
            phone.bind(channel, port);
            phone.send_channel(channel, b"hello");
            assert_eq!(sfu.hear(thread), (relayed, b"hello".to_vec()));
            phone.send(port, b"hi");
            assert_eq!(sfu.hear(thread), (relayed, b"hi".to_vec()));

            assert!(sfu.send(thread, relayed, b"onetwofour!", 3));
            for part in ["one", "two", "fou", "r!"] {
                let expected = Heard::Channel(channel, part.as_bytes().to_vec());
                assert_eq!(phone.hear(), expected);
            }
        }
        // Whoever writes the SFU's address is no SFU, and beside its ports is nothing.
        let beside = SocketAddr::new(sfu.ports[1].ip(), socket.local_addr().unwrap().port());
        phone.permit(beside);
        phone.send(beside, b"beside");
        socket.send_to(b"beside", relayed).unwrap();
        phone.hears_nothing();
        assert!(socket.recv(&mut [0; 16]).is_err());
    }
    let stats = stats(&relay);
    let counted =
        [stats.to_media, stats.from_media].map(|counted| (counted.packets, counted.bytes));
    assert_eq!(counted, [(16, 8 * 7), (32, 8 * 11)]);
    assert_eq!(stats.handed_over.packets, 0);
    assert_eq!(stats.refused("no_permission"), 8);
    assert_eq!(stats.refused("forbidden_own_address"), 8);
}

#[test]
fn ipv6_clients_reach_the_ports_of_their_family() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("!!! SKIPPED: there is no IPv6 here");
        return;
    }
    let relay = start(|config| {
        config.peers_allow = Vec::new();
        config.relay_ips = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    });
    let mut sfu = Sfu::connect(&relay, ["[2001:db8::7]:10000", "[::1]:10001"]);
    let mut phone = Phone::new(Wire::udp(&relay), "alice");
    let options = AllocateOptions {
        family: Some(AddressFamily::V6),
        ..AllocateOptions::default()
    };
    let relayed = phone.allocate(options).relayed.unwrap();
    assert!(relayed.is_ipv6());
    for thread in 0..2 {
        let channel = CHANNEL + u16::try_from(thread).unwrap();
        phone.bind(channel, sfu.ports[thread]);
        phone.send_channel(channel, b"hello");
        assert_eq!(sfu.hear(thread), (relayed, b"hello".to_vec()));
        assert!(sfu.send(thread, relayed, b"hello", 5));
        assert_eq!(phone.hear(), Heard::Channel(channel, b"hello".to_vec()));
    }
}

#[test]
fn an_sfu_that_takes_nothing_loses_what_finds_no_room_and_no_more() {
    let relay = start(|config| config.threads = 1);
    let mut sfu = Sfu::connect(&relay, PORTS);
    // Over a stream nothing is lost before.
    let mut phone = Phone::new(Wire::tcp(&relay), "alice");
    phone.allocate(AllocateOptions::default());
    phone.bind(CHANNEL, sfu.ports[0]);
    let sent = WAITING_MAX + 100;
    for number in 0..sent {
        phone.send_channel(CHANNEL, &u32::try_from(number).unwrap().to_be_bytes());
    }
    until(|| stats(&relay).to_media.packets == sent as u64);
    let heard: Vec<_> = sfu
        .take(0)
        .into_iter()
        .map(|(_, payload)| payload)
        .collect();
    let expected =
        (0..WAITING_MAX).map(|number| u32::try_from(number).unwrap().to_be_bytes().to_vec());
    assert_eq!(heard, expected.collect::<Vec<_>>());

    phone.send_channel(CHANNEL, b"room again");
    assert_eq!(sfu.hear(0).1, b"room again");
}

#[test]
fn when_either_side_ends_the_other_goes_on() {
    let relay = start(|config| config.threads = 2);
    let mut sfu = Sfu::connect(&relay, PORTS);
    let mut phone = Phone::new(Wire::udp(&relay), "alice");
    let relayed = phone.allocate(AllocateOptions::default()).relayed.unwrap();
    phone.bind(CHANNEL, sfu.ports[0]);
    phone.send_channel(CHANNEL, b"hello");
    assert_eq!(sfu.hear(0).0, relayed);
    phone
        .ask(relay_stun::client::Request::Refresh { lifetime: 0 })
        .unwrap();
    assert!(!sfu.send(0, relayed, b"nobody", 6));

    let mut phone = Phone::new(Wire::udp(&relay), "bob");
    phone.allocate(AllocateOptions::default());
    phone.bind(CHANNEL, sfu.ports[0]);
    drop(sfu);
    phone.send_channel(CHANNEL, b"nobody");
    until(|| stats(&relay).to_media.packets == 2);
    phone.bind(CHANNEL, PORTS[0].parse().unwrap());
}

#[test]
fn nothing_of_the_sfu_is_lost_while_a_client_moves_from_thread_to_thread() {
    const UNDER_WAY: u8 = 60;
    let relay = start(|config| config.threads = 4);
    let mut sfu = Sfu::connect(&relay, PORTS);
    let mut here = Phone::new(Wire::udp(&relay), "alice");
    let answer = here.allocate(AllocateOptions {
        mobile: true,
        ..AllocateOptions::default()
    });
    let (mut ticket, relayed) = (answer.ticket.unwrap(), answer.relayed.unwrap());
    here.bind(CHANNEL, sfu.ports[0]);
    for round in 0..40 {
        let wire = match round % 4 {
            3 => Wire::tcp(&relay),
            _ => Wire::udp(&relay),
        };
        let mut there = crate::mobility::announced(wire, &mut ticket);
        for number in 0..UNDER_WAY {
            assert!(sfu.send(0, relayed, &[number], 1));
            if number == round {
                there.send_channel(CHANNEL, b"here I am");
            }
        }
        assert_eq!(sfu.hear(0), (relayed, b"here I am".to_vec()));
        let mut heard = BTreeSet::new();
        until(|| {
            for phone in [&mut here, &mut there] {
                while let Some(Heard::Channel(_, payload)) = phone.hears_now() {
                    assert!(heard.insert(payload[0]), "{} came twice", payload[0]);
                }
            }
            heard.len() == usize::from(UNDER_WAY)
        });
        here = there;
    }
    assert_eq!(stats(&relay).allocations_moved, 40);
}
