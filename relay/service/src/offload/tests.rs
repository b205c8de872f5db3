//! The core's words against the real driver: a client, the relay and a peer on virtual cables. No
//! relay listens, so that what reaches its sockets is what the driver left to userspace.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use relay_core::{Network, Transport};
use relay_xdp::testbed::{Cables, Namespace, alone, channel_data};
use relay_xdp::{Dscp, Mode};

use super::*;

const NUMBER: u16 = 0x4321;

/// How long a packet may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing must arrive to call it lost.
const SILENCE: Duration = Duration::from_millis(200);

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(1);

/// One Allocation's client, peer and relay.
struct World {
    offload: Offload,
    policy: PeerPolicy,
    client: UdpSocket,
    other_client: UdpSocket,
    peer: UdpSocket,
    other_peer: UdpSocket,
    /// Where the kernel hands what the driver passes on.
    server: UdpSocket,
    relayed: UdpSocket,
    /// When the Allocation ends.
    ends: Instant,
    _cables: Cables,
}

impl World {
    fn new() -> World {
        let cables = Cables::new().unwrap();
        let socket = |namespace: &Namespace, address: &str| {
            namespace.enter().unwrap();
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let client = socket(&cables.client, "198.18.1.2:4000");
        let other_client = socket(&cables.client, "198.18.1.2:4001");
        let peer = socket(&cables.peer, "198.18.2.2:5000");
        let other_peer = socket(&cables.peer, "198.18.2.2:5001");
        let server = socket(&cables.relay, "198.18.1.1:3478");
        let relayed = socket(&cables.relay, "198.18.2.1:50000");
        // The kernel learns both neighbours, as control messages have it do in life.
        for (own, there) in [(&server, &client), (&relayed, &peer)] {
            own.send_to(b"hello", there.local_addr().unwrap()).unwrap();
            assert_eq!(receive(there), b"hello");
        }
        let settings = relay_xdp::Settings {
            interfaces: vec!["c0".to_owned(), "p0".to_owned()],
            mode: Mode::Native,
            ipv4: true,
            ipv6: false,
            relay_ports: 49_152..=65_535,
            dscp: Dscp::Keep,
            channels_max: 4,
            quotas_max: 2,
        };
        let bind = [Some(Ipv4Addr::new(198, 18, 2, 1).into()), None];
        let now = Instant::now();
        World {
            offload: Offload::start(settings, bind, now).unwrap(),
            policy: PeerPolicy {
                allow: vec!["198.18.0.0/15".parse::<Network>().unwrap()],
                ..PeerPolicy::default()
            },
            client,
            other_client,
            peer,
            other_peer,
            server,
            relayed,
            ends: now + LONG,
            _cables: cables,
        }
    }

    fn look<T>(&mut self, work: impl FnOnce(&mut Offload, &View<'_>) -> T) -> T {
        let ends = self.ends;
        let view = View {
            now: Instant::now(),
            peers: &self.policy,
            expires: &|_| Some(ends),
        };
        work(&mut self.offload, &view)
    }

    fn update(&mut self, update: &PathUpdate) {
        self.look(|offload, view| offload.update(view, update));
    }

    /// The relayed address as the internet sees it: of another machine, behind a NAT.
    fn port(&self) -> RelayPort {
        RelayPort {
            index: 0,
            address: "203.0.113.7:50000".parse().unwrap(),
        }
    }

    fn open(&mut self, client: SocketAddr) {
        let update = PathUpdate::Open {
            allocation: 0,
            five_tuple: FiveTuple {
                client,
                server: self.server.local_addr().unwrap(),
                transport: Transport::Udp,
            },
            port: self.port(),
            budget: Budget::default(),
            tally: Tally::default(),
        };
        self.update(&update);
    }

    fn bind(&mut self, number: u16, peer: SocketAddr, lifetime: Duration) {
        self.update(&PathUpdate::Bind {
            allocation: 0,
            number,
            peer,
            expires: Instant::now() + lifetime,
        });
    }

    fn permit(&mut self, lifetime: Duration) {
        self.update(&PathUpdate::Permit {
            allocation: 0,
            ip: self.peer.local_addr().unwrap().ip(),
            expires: Instant::now() + lifetime,
        });
    }

    /// A Channel from the client to the peer, as a ChannelBind makes it.
    fn set_up(&mut self) {
        self.open(self.client.local_addr().unwrap());
        self.bind(NUMBER, self.peer.local_addr().unwrap(), LONG);
        self.permit(LONG);
    }

    fn send_to_peer(&self) {
        let data = channel_data(NUMBER, b"to the peer", &[]);
        let server = self.server.local_addr().unwrap();
        self.client.send_to(&data, server).unwrap();
    }

    fn send_to_client(&self) {
        let relayed = self.relayed.local_addr().unwrap();
        self.peer.send_to(b"to the client", relayed).unwrap();
    }

    /// What the client sends goes to the peer in the driver, or else to userspace.
    fn expect_to_peer(&self, in_driver: bool) {
        self.send_to_peer();
        match in_driver {
            true => assert_eq!(receive(&self.peer), b"to the peer"),
            false => {
                let data = channel_data(NUMBER, b"to the peer", &[]);
                assert_eq!(receive(&self.server), data);
                expect_silence(&self.peer);
            }
        }
    }

    fn expect_to_client(&self, in_driver: bool) {
        self.send_to_client();
        match in_driver {
            true => {
                let data = channel_data(NUMBER, b"to the client", &[]);
                assert_eq!(receive(&self.client), data);
            }
            false => {
                assert_eq!(receive(&self.relayed), b"to the client");
                expect_silence(&self.client);
            }
        }
    }

    fn offloaded(&mut self) -> (u64, u64) {
        self.look(|offload, view| offload.settle(view));
        let Offloaded {
            from_clients,
            to_clients,
        } = self.offload.offloaded();
        (from_clients.packets, to_clients.packets)
    }
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn expect_silence(socket: &UdpSocket) {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let received = socket.recv(&mut [0; 2048]);
    assert!(received.is_err(), "{received:?} bytes arrived");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
}

/// By then what was to live for [`SHORT`] has ended on the driver's clock.
fn let_it_end() {
    thread::sleep(SHORT + Duration::from_millis(100));
}

#[test]
fn a_channel_is_in_the_driver_from_its_binding_to_the_end_of_its_port() {
    alone(|| {
        let mut world = World::new();
        world.open(world.client.local_addr().unwrap());
        world.expect_to_peer(false);
        world.bind(NUMBER, world.peer.local_addr().unwrap(), LONG);
        world.expect_to_client(false);
        world.permit(LONG);
        world.expect_to_peer(true);
        world.expect_to_client(true);
        assert_eq!(world.offload.channels(), 1);
        assert_eq!(world.offloaded(), (1, 1));

        world.expect_to_peer(true);
        world.offload.close_port(Instant::now(), world.port());
        assert_eq!(world.offload.channels(), 0);
        world.expect_to_peer(false);
        world.expect_to_client(false);
        assert_eq!(world.offloaded(), (2, 1), "the last was counted");
        world.permit(LONG);
        world.bind(NUMBER, world.peer.local_addr().unwrap(), LONG);
        assert_eq!(world.offload.channels(), 0, "the Allocation is no more");
    });
}

#[test]
fn each_way_ends_with_what_ends_first() {
    alone(|| {
        let mut world = World::new();
        world.set_up();
        world.expect_to_client(true);

        world.permit(SHORT);
        let_it_end();
        world.expect_to_client(false);
        world.expect_to_peer(true);
        world.permit(LONG);
        world.expect_to_client(true);

        // An Allocation that is refreshed is seen to at the next round.
        world.ends = Instant::now() + SHORT;
        world.look(|offload, view| offload.settle(view));
        let_it_end();
        world.expect_to_peer(false);
        world.expect_to_client(false);
        world.ends = Instant::now() + LONG;
        world.look(|offload, view| offload.settle(view));
        world.expect_to_peer(true);
        world.expect_to_client(true);

        world.bind(NUMBER, world.peer.local_addr().unwrap(), SHORT);
        let_it_end();
        world.expect_to_peer(false);
        world.expect_to_client(false);
        assert_eq!(world.offload.channels(), 1);
        world.look(|offload, view| offload.settle(view));
        assert_eq!(world.offload.channels(), 0);
    });
}

#[test]
fn a_number_or_peer_that_is_bound_anew_leaves_nothing_behind() {
    alone(|| {
        let mut world = World::new();
        world.set_up();
        let (peer, other) = (
            world.peer.local_addr().unwrap(),
            world.other_peer.local_addr().unwrap(),
        );

        world.bind(NUMBER, other, LONG);
        world.send_to_peer();
        assert_eq!(receive(&world.other_peer), b"to the peer");
        world.bind(NUMBER + 1, other, LONG);
        assert_eq!(world.offload.channels(), 1);
        world.expect_to_peer(false);
        world.bind(NUMBER, peer, LONG);
        world.expect_to_peer(true);

        // What is taken away leaves its room after a second, when no packet can be under way in it.
        let third = "198.18.2.2:5002".parse().unwrap();
        world.bind(NUMBER + 2, third, LONG);
        assert_eq!(world.offload.channels(), 2);
        assert_eq!(world.offload.left().get("full"), Some(&1));
        let_it_end();
        world.bind(NUMBER + 2, third, LONG);
        assert_eq!(world.offload.channels(), 3);
    });
}

#[test]
fn channels_follow_a_client_to_another_address() {
    alone(|| {
        let mut world = World::new();
        world.set_up();
        world.expect_to_peer(true);
        world.offload.close_port(Instant::now(), world.port());
        world.open(world.other_client.local_addr().unwrap());
        world.bind(NUMBER, world.peer.local_addr().unwrap(), LONG);
        world.permit(LONG);
        world.expect_to_peer(false);

        let data = channel_data(NUMBER, b"moved", &[]);
        let server = world.server.local_addr().unwrap();
        world.other_client.send_to(&data, server).unwrap();
        assert_eq!(receive(&world.peer), b"moved");
        world.send_to_client();
        let data = channel_data(NUMBER, b"to the client", &[]);
        assert_eq!(receive(&world.other_client), data);
        assert_eq!(world.offload.channels(), 1);
        assert_eq!(world.offloaded(), (2, 1));
    });
}

#[test]
fn only_peers_that_pass_the_address_check_are_in_the_driver() {
    alone(|| {
        let mut world = World::new();
        world.set_up();
        world.expect_to_peer(true);
        let deny = world.peer.local_addr().unwrap().to_string();
        world.policy.deny = vec![deny.parse().unwrap()];
        world.look(|offload, view| offload.check_peers(view));
        world.expect_to_peer(false);
        world.expect_to_client(false);
        world.bind(NUMBER, world.peer.local_addr().unwrap(), LONG);
        assert_eq!(world.offload.left().get("peer"), Some(&1));

        // An address of this relay is reached in memory, if somebody lives there.
        let own = "203.0.113.7".parse().unwrap();
        world.policy.own = vec![own];
        world.bind(NUMBER + 1, SocketAddr::new(own, 50_001), LONG);
        assert_eq!(world.offload.left().get("peer"), Some(&2));
        assert_eq!(world.offload.channels(), 0);

        world.policy.deny.clear();
        world.bind(NUMBER, world.peer.local_addr().unwrap(), LONG);
        world.expect_to_peer(true);
    });
}
