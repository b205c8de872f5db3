//! Peers that are not there: what ICMP says of them reaches the client (RFC 8656 §11.5).

use std::net::{SocketAddr, UdpSocket};

use relay_stun::client::AllocateOptions;
use relay_stun::{AddressFamily, Icmp};

use crate::phone::{Heard, Phone, Wire, start, stats};

const UNREACHABLE: Icmp = Icmp {
    kind: 3,
    code: 3,
    data: 0,
};

const UNREACHABLE_V6: Icmp = Icmp {
    kind: 1,
    code: 4,
    data: 0,
};

/// A port that was somebody's.
fn closed(ip: &str) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.local_addr().unwrap()
}

#[test]
fn a_peer_whose_port_is_closed_is_told_of_and_harms_no_other() {
    let relay = start(|_| {});
    for wire in [Wire::udp(&relay), Wire::tcp(&relay)] {
        let mut alice = Phone::new(wire, "alice");
        alice.allocate(AllocateOptions::default());
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let there = peer.local_addr().unwrap();
        let gone = closed("127.0.0.1");
        alice.bind(0x4000, there);

        for round in 0..8_u8 {
            // ICMP about the first waits in the socket when the second is sent.
            alice.send(gone, b"anybody?");
            alice.send_channel(0x4000, &[round]);
            let mut got = [0; 8];
            let (len, from) = peer.recv_from(&mut got).unwrap();
            assert_eq!(&got[..len], &[round]);
            assert_eq!(alice.hear(), Heard::Icmp(gone, UNREACHABLE));
            // And the socket receives as before.
            peer.send_to(&[round, round], from).unwrap();
            assert_eq!(alice.hear(), Heard::Channel(0x4000, vec![round, round]));
        }
        // More is not told at once, and still nothing is lost.
        for round in 0..200_u8 {
            alice.send(gone, b"anybody?");
            alice.send_channel(0x4000, &[round]);
            let mut got = [0; 8];
            let len = peer.recv(&mut got).unwrap();
            assert_eq!(&got[..len], &[round]);
        }
    }
    let stats = stats(&relay);
    assert!((16..200).contains(&stats.icmp_indications), "{stats:?}");
    assert!(stats.refusals[&("icmp_rate", 0)] > 0, "{stats:?}");
}

#[test]
fn a_peer_over_ipv6_that_is_gone_is_told_of() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED: no IPv6 loopback on this machine");
        return;
    }
    let relay = start(|config| config.relay_ips.push("::1".parse().unwrap()));
    for wire in [Wire::udp(&relay), Wire::tcp(&relay)] {
        let mut alice = Phone::new(wire, "alice");
        alice.allocate(AllocateOptions {
            family: Some(AddressFamily::V6),
            ..AllocateOptions::default()
        });
        let gone = closed("::1");
        alice.permit(gone);
        alice.send(gone, b"anybody?");
        assert_eq!(alice.hear(), Heard::Icmp(gone, UNREACHABLE_V6));
    }
}
