//! Datagrams that routers may take apart, and those they may not (RFC 8656 §11, §15), on a way
//! whose last part carries 1280 bytes. Needs root, for a network of its own.
//!
//! ```text
//! client ─ lo ─ relay ─ out0 (1500) ── in0 (1500) ─ router ─ last0 (1280) ─ nobody
//! ```

use std::io::Read;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use relay_stun::client::AllocateOptions;
use relay_stun::{AddressFamily, Icmp};
use socket2::{Domain, Protocol, Socket, Type};

use crate::phone::{Heard, Phone, Wire, start};

const PEER: &str = "10.78.0.2:5000";
const PEER_V6: &str = "[fd78::2]:5000";

/// Where the router sends what is for the peers.
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Runs `ip` with these words in this thread's network; `false` where it can't be done.
fn ip(words: &str) -> bool {
    let status = Command::new("ip").args(words.split(' ')).status();
    status.is_ok_and(|status| status.success())
}

/// What the last link brings, of one family.
struct Tap(Socket);

/// The protocol's number in a frame.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;

/// One frame's worth: the payload's bytes in it, headers not, and whether it is a whole datagram
/// that must not be taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    len: usize,
    is_fragment: bool,
    dont_fragment: bool,
}

impl Tap {
    /// In the network of this thread.
    fn new(family: u16) -> Tap {
        let protocol = Protocol::from(i32::from(family.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        Tap(socket)
    }

    /// The next `count` frames to the peer; then there must be none for a while.
    fn see(&self, count: usize) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut frame = [0; 2000];
        while let Ok(len) = (&self.0).read(&mut frame) {
            let frame = &frame[..len];
            let packet = &frame[14..];
            if frame[..6] != PEER_MAC {
                continue;
            }
            match u16::from_be_bytes([frame[12], frame[13]]) {
                IPV4 if packet[9] == 17 => {
                    let flags = u16::from_be_bytes([packet[6], packet[7]]);
                    seen.push(Seen {
                        len: usize::from(u16::from_be_bytes([packet[2], packet[3]])) - 20,
                        is_fragment: flags & 0x3FFF != 0,
                        dont_fragment: flags & 0x4000 != 0,
                    });
                }
                // UDP, or a fragment header.
                IPV6 if [17, 44].contains(&packet[6]) => seen.push(Seen {
                    len: usize::from(u16::from_be_bytes([packet[4], packet[5]])),
                    is_fragment: packet[6] == 44,
                    dont_fragment: false,
                }),
                _ => {}
            }
        }
        assert_eq!(seen.len(), count, "{seen:?}");
        seen
    }
}

/// Makes the network, gives back what the last link brings, IPv4 first; the router lives as long
/// as the sender does. `None` where there can be no such network.
fn network() -> Option<([Tap; 2], mpsc::Sender<()>)> {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() || !ip("link add out0 type veth peer name in0") {
        return None;
    }
    let (ready, told) = mpsc::channel();
    let (hold, held) = mpsc::channel::<()>();
    let (go, going) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ready.send((nix::unistd::gettid(), None)).unwrap();
        going.recv().unwrap();
        for words in [
            "link set lo up",
            "addr add 10.77.0.254/24 dev in0",
            "addr add fd77::254/64 dev in0 nodad",
            "link set in0 up",
            "link add last0 mtu 1280 type veth peer name last1",
            "link set last1 up",
            "addr add 10.78.0.1/24 dev last0",
            "addr add fd78::1/64 dev last0 nodad",
            "link set last0 up",
            "neigh add 10.78.0.2 lladdr 02:00:00:00:00:02 dev last0 nud permanent",
            "neigh add fd78::2 lladdr 02:00:00:00:00:02 dev last0 nud permanent",
        ] {
            assert!(ip(words), "{words}");
        }
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        ready
            .send((nix::unistd::gettid(), Some([IPV4, IPV6].map(Tap::new))))
            .unwrap();
        held.recv().ok(); // Its network goes with it.
    });
    let (router, _) = told.recv().unwrap();
    for words in [
        "link set lo up",
        &format!("link set in0 netns {router}"),
        "addr add 10.77.0.1/24 dev out0",
        "addr add fd77::1/64 dev out0 nodad",
        "link set out0 up",
    ] {
        assert!(ip(words), "{words}");
    }
    go.send(()).unwrap();
    let (_, tap) = told.recv().unwrap();
    for words in [
        "route add default via 10.77.0.254",
        "-6 route add default via fd77::254",
    ] {
        assert!(ip(words), "{words}");
    }
    Some((tap.unwrap(), hold))
}

#[test]
fn what_is_too_long_is_taken_apart_unless_the_client_says_no() {
    let Some(([tap, tap_v6], router)) = network() else {
        eprintln!("SKIPPED: a network of its own needs root, iproute2 and veth");
        return;
    };
    let relay = start(|config| {
        config.relay_ips = vec!["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()];
        config.peers_allow = vec!["10.78.0.0/16".to_owned(), "fd78::/64".to_owned()];
    });
    for wire in [Wire::udp(&relay), Wire::tcp(&relay)] {
        let mut alice = Phone::new(wire, "alice");
        alice.allocate(AllocateOptions {
            dont_fragment: true,
            ..AllocateOptions::default()
        });
        over_ipv4(&mut alice, &tap);
    }
    for wire in [Wire::udp(&relay), Wire::tcp(&relay)] {
        let mut alice = Phone::new(wire, "alice");
        alice.allocate(AllocateOptions {
            family: Some(AddressFamily::V6),
            dont_fragment: true,
            ..AllocateOptions::default()
        });
        over_ipv6(&mut alice, &tap_v6);
    }
    drop(router);
}

fn over_ipv4(alice: &mut Phone, tap: &Tap) {
    let peer: SocketAddr = PEER.parse().unwrap();
    let seen = |len, is_fragment, dont_fragment| Seen {
        len,
        is_fragment,
        dont_fragment,
    };
    let apart = || [seen(1256, true, false), seen(1408 - 1256, true, false)];
    alice.bind(0x4000, peer);

    // By default: DF is clear, however short the datagram, and a router takes the long apart.
    alice.send(peer, &[1; 100]);
    assert_eq!(tap.see(1), [seen(108, false, false)]);
    alice.send(peer, &[1; 1400]);
    assert_eq!(tap.see(2), apart());
    alice.send_channel(0x4000, &[1; 1400]);
    assert_eq!(tap.see(2), apart());
    alice.hears_nothing();

    // With DONT-FRAGMENT it arrives whole, or the client hears how much does.
    alice.send_whole(peer, &[2; 1000]);
    assert_eq!(tap.see(1), [seen(1008, false, true)]);
    let too_big = |mtu| Icmp {
        kind: 3,
        code: 4,
        data: mtu,
    };
    alice.send_whole(peer, &[2; 1400]); // A router says so.
    assert_eq!(alice.hear(), Heard::Icmp(peer, too_big(1280)));
    alice.send_whole(peer, &[2; 1600]); // The own interface does.
    assert_eq!(alice.hear(), Heard::Icmp(peer, too_big(1500)));
    alice.hears_nothing();
    assert_eq!(tap.see(0), []);

    // Nothing of this lasts, though ICMP said what it said.
    alice.send(peer, &[3; 100]);
    assert_eq!(tap.see(1), [seen(108, false, false)]);
    alice.send(peer, &[3; 1400]);
    assert_eq!(tap.see(2), apart());
    alice.send_whole(peer, &[3; 1252]);
    assert_eq!(tap.see(1), [seen(1260, false, true)]);
}

fn over_ipv6(alice: &mut Phone, tap: &Tap) {
    let peer: SocketAddr = PEER_V6.parse().unwrap();
    let too_big = |mtu| Icmp {
        kind: 2,
        code: 0,
        data: mtu,
    };
    alice.permit(peer);

    alice.send_whole(peer, &[1; 1600]);
    let heard = alice.hear();
    // The second client's way is known from the first.
    let known = heard == Heard::Icmp(peer, too_big(1280));
    assert!(
        known || heard == Heard::Icmp(peer, too_big(1500)),
        "{heard:?}"
    );
    alice.send_whole(peer, &[1; 1400]);
    assert_eq!(alice.hear(), Heard::Icmp(peer, too_big(1280)));
    alice.hears_nothing();
    assert_eq!(tap.see(0), []);
    alice.send_whole(peer, &[1; 1000]);
    assert_eq!(tap.see(1)[0].len, 1008);
    // Routers take nothing apart; the relay does, now that it knows the way.
    alice.send(peer, &[1; 1400]);
    assert!(tap.see(2).iter().all(|seen| seen.is_fragment));
    alice.hears_nothing();
}
