//! Clients that come back from another address (RFC 8016): their ports go from thread to thread,
//! and what is on its way arrives.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use relay_service::Handle;
use relay_stun::ErrorCode;
use relay_stun::client::{AllocateOptions, Request};

use crate::phone::{Heard, Phone, Wire, start, stats, until};

/// How many datagrams are on their way while a client moves.
const UNDER_WAY: u8 = 60;

const CHANNEL: u16 = 0x4000;

fn mobile() -> AllocateOptions {
    AllocateOptions {
        mobile: true,
        ..AllocateOptions::default()
    }
}

/// Alice, announced at another address.
pub(crate) fn announced(wire: Wire, ticket: &mut Vec<u8>) -> Phone {
    let mut there = Phone::new(wire, "alice");
    let request = Request::Move {
        ticket: ticket.clone(),
        lifetime: 600,
    };
    let answer = there.ask(request).unwrap();
    *ticket = answer.ticket.expect("a ticket for the next move");
    there
}

/// One of the ways a client may come.
fn wire(relay: &Handle, number: u8) -> Wire {
    match number % 4 {
        3 => Wire::tcp(relay),
        _ => Wire::udp(relay),
    }
}

/// Waits until `here` and `there` have heard all numbers between them, each once.
fn collect(here: &mut Phone, there: &mut Phone) {
    let mut heard = BTreeSet::new();
    until(|| {
        for phone in [&mut *here, &mut *there] {
            while let Some(next) = phone.hears_now() {
                let (Heard::Channel(_, payload) | Heard::Data(_, payload)) = next else {
                    panic!("{next:?}");
                };
                assert!(heard.insert(payload[0]), "{} came twice", payload[0]);
            }
        }
        heard.len() == usize::from(UNDER_WAY)
    });
}

#[test]
fn nothing_is_lost_while_a_client_moves_from_thread_to_thread() {
    let relay = start(|config| config.threads = 4);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer_address = peer.local_addr().unwrap();
    let mut here = Phone::new(Wire::udp(&relay), "alice");
    let answer = here.allocate(mobile());
    let mut ticket = answer.ticket.unwrap();
    let relayed = answer.relayed.unwrap();
    here.bind(CHANNEL, peer_address);

    for round in 0..40 {
        let mut there = announced(wire(&relay, round), &mut ticket);
        for number in 0..UNDER_WAY {
            peer.send_to(&[number], relayed).unwrap();
            if number == round {
                there.send_channel(CHANNEL, b"here I am");
            }
        }
        let mut got = [0; 16];
        let (len, from) = peer.recv_from(&mut got).unwrap();
        assert_eq!((&got[..len], from), (&b"here I am"[..], relayed));
        collect(&mut here, &mut there);

        // From where she was nothing comes any more.
        here.send_channel(CHANNEL, b"late");
        there.send_channel(CHANNEL, b"early");
        let (len, _) = peer.recv_from(&mut got).unwrap();
        assert_eq!(&got[..len], b"early");
        here = there;
    }
    let stats = stats(&relay);
    assert_eq!((stats.allocations, stats.allocations_moved), (1, 40));
}

#[test]
fn another_client_of_the_relay_reaches_one_that_moves() {
    let relay = start(|config| config.threads = 4);
    for way in [Wire::udp(&relay), Wire::tcp(&relay)] {
        let mut bob = Phone::new(way, "bob");
        let bobs = bob.allocate(AllocateOptions::default()).relayed.unwrap();
        let mut here = Phone::new(Wire::udp(&relay), "alice");
        let answer = here.allocate(mobile());
        let mut ticket = answer.ticket.unwrap();
        here.permit(bobs);
        bob.bind(CHANNEL, answer.relayed.unwrap());

        for round in 0..20 {
            let mut there = announced(wire(&relay, round), &mut ticket);
            for number in 0..UNDER_WAY {
                bob.send_channel(CHANNEL, &[number]);
                if number == round {
                    there.send(bobs, b"here I am");
                }
            }
            assert_eq!(bob.hear(), Heard::Channel(CHANNEL, b"here I am".to_vec()));
            collect(&mut here, &mut there);
            here = there;
        }
    }
}

#[test]
fn both_families_move_together_and_end_together() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED: no IPv6 loopback on this machine");
        return;
    }
    let relay = start(|config| {
        config.threads = 4;
        config.relay_ips.push("::1".parse().unwrap());
    });
    let peers: Vec<(UdpSocket, SocketAddr)> = ["127.0.0.1:0", "[::1]:0"]
        .into_iter()
        .map(|any| UdpSocket::bind(any).unwrap())
        .map(|peer| {
            let address = peer.local_addr().unwrap();
            (peer, address)
        })
        .collect();
    let mut here = Phone::new(Wire::tcp(&relay), "alice");
    let answer = here.allocate(AllocateOptions {
        additional: true,
        ..mobile()
    });
    let mut ticket = answer.ticket.unwrap();
    let relayed = [answer.relayed.unwrap(), answer.relayed_additional.unwrap()];
    for (number, (_, address)) in peers.iter().enumerate() {
        here.bind(CHANNEL + u16::try_from(number).unwrap(), *address);
    }
    for round in 0..12 {
        let mut there = announced(wire(&relay, round + 1), &mut ticket);
        there.permit(peers[0].1);
        for (number, (peer, _)) in peers.iter().enumerate() {
            let channel = CHANNEL + u16::try_from(number).unwrap();
            // What comes at this very moment may still go where she was.
            let arrived = Heard::Channel(channel, vec![round]);
            until(|| {
                peer.send_to(&[round], relayed[number]).unwrap();
                there.hears_soon().is_some_and(|heard| heard == arrived)
            });
            there.send_channel(channel, &[round]);
            let mut got = [0; 16];
            let (len, from) = peer.recv_from(&mut got).unwrap();
            assert_eq!((&got[..len], from), (&[round][..], relayed[number]));
        }
        here = there;
    }
    here.ask(Request::Refresh { lifetime: 0 }).unwrap();
    // What was bound is free again.
    for address in relayed {
        until(|| UdpSocket::bind(address).is_ok());
    }
    assert_eq!(stats(&relay).allocations, 0);
}

#[test]
fn a_stolen_ticket_moves_nothing() {
    let relay = start(|config| config.threads = 2);
    let mut alice = Phone::new(Wire::udp(&relay), "alice");
    let ticket = alice.allocate(mobile()).ticket.unwrap();
    let stolen = || Request::Move {
        ticket: ticket.clone(),
        lifetime: 600,
    };
    let mut mallory = Phone::new(Wire::udp(&relay), "mallory");
    assert_eq!(
        mallory.ask(stolen()).unwrap_err(),
        ErrorCode::WRONG_CREDENTIALS
    );
    alice.ask(Request::Refresh { lifetime: 600 }).unwrap();

    // Nor does it move anything twice.
    let mut there = announced(Wire::udp(&relay), &mut ticket.clone());
    there.ask(Request::Refresh { lifetime: 600 }).unwrap();
    let mut again = Phone::new(Wire::udp(&relay), "alice");
    assert_eq!(again.ask(stolen()).unwrap_err(), ErrorCode::BAD_REQUEST);
    assert_eq!(stats(&relay).allocations_moved, 1);
}
