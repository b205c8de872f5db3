//! Channels in the network driver, end to end: the relay, a TURN client and a peer, each in a network
//! namespace of its own, joined by virtual cables.

#![cfg(all(target_os = "linux", target_endian = "little"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use relay_core::{Traffic, Transport};
use relay_service::client::{Client, Received, Source};
use relay_service::{Config, Credentials, Handle, Relay, Secret, Stats, Xdp};
use relay_stun::AddressFamily;
use relay_xdp::testbed::{Cables, alone};
use tokio::runtime::Runtime;
use tokio::time::timeout;

const SECRET: &[u8] = b"a secret of the test";
const NUMBER: u16 = 0x4abc;

/// How long a packet may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing must arrive to call it lost.
const SILENCE: Duration = Duration::from_millis(300);

/// How many packets go each way.
const PACKETS: u64 = 300;

/// So many of them at most are userspace's: those that come before the kernel knows a neighbour.
const FIRST_MAX: u64 = 10;

const UDP: usize = Transport::Udp as usize;

/// A relay with a client and a peer.
struct World {
    runtime: Runtime,
    relay: Handle,
    client: Client,
    peer: UdpSocket,
    relayed: SocketAddr,
    cables: Cables,
}

fn config(xdp: Xdp) -> Config {
    Config {
        listen_udp: vec![
            "198.18.1.1:3478".parse().unwrap(),
            "[2001:2:0:1::1]:3478".parse().unwrap(),
        ],
        listen_tcp: Vec::new(),
        relay_ips: vec![
            "198.18.2.1".parse().unwrap(),
            "2001:2:0:2::1".parse().unwrap(),
        ],
        peers_allow: vec!["198.18.0.0/15".to_owned(), "2001:2::/48".to_owned()],
        threads: 1,
        xdp,
        xdp_interfaces: vec!["c0".to_owned(), "p0".to_owned()],
        xdp_channels_max: 64,
        ..Config::default()
    }
}

fn start(config: &Config) -> anyhow::Result<Handle> {
    Relay::start(config, Credentials::new([Secret::new(SECRET)]), None, None)
}

impl World {
    /// `client` and `peer` tell which family each speaks.
    fn new(config: &Config, client: AddressFamily, peer: AddressFamily) -> World {
        let cables = Cables::new().unwrap();
        let relay = start(config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let server = config.listen_udp[client as usize];
        let peer_address = ["198.18.2.2:5000", "[2001:2:0:2::2]:5000"][peer as usize];
        let tomorrow =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(86_400);
        let (user, password) = Credentials::new([Secret::new(SECRET)])
            .issue(tomorrow, "acme", "alice")
            .unwrap();
        cables.client.enter().unwrap();
        let mut client = runtime
            .block_on(Client::udp(server, &user, &password))
            .unwrap();
        cables.peer.enter().unwrap();
        let socket = UdpSocket::bind(peer_address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        cables.relay.enter().unwrap();
        let relayed = runtime.block_on(async {
            let allocated = client.allocate(Some(peer)).await.unwrap();
            let peer = peer_address.parse().unwrap();
            client.channel_bind(NUMBER, peer).await.unwrap();
            allocated.relayed.unwrap()
        });
        World {
            runtime,
            relay,
            client,
            peer: socket,
            relayed,
            cables,
        }
    }

    fn send(&mut self, payload: &[u8]) {
        self.runtime
            .block_on(self.client.send_channel(NUMBER, payload))
            .unwrap();
    }

    fn receive(&mut self) -> Option<Received> {
        let client = &mut self.client;
        let received = async { timeout(SILENCE, client.receive()).await };
        self.runtime
            .block_on(received)
            .ok()
            .map(|received| received.unwrap())
    }

    fn receive_at_peer(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2048];
        let (len, from) = self.peer.recv_from(&mut buffer).unwrap();
        (buffer[..len].to_vec(), from)
    }

    fn stats(&self) -> Stats {
        self.runtime.block_on(self.relay.stats())
    }

    /// How many packets come to the peer until none does for `silence`.
    fn count_at_peer(&self, silence: Duration) -> u64 {
        self.peer.set_read_timeout(Some(silence)).unwrap();
        let mut arrived = 0;
        while self.peer.recv(&mut [0; 2048]).is_ok() {
            arrived += 1;
        }
        self.peer.set_read_timeout(Some(PATIENCE)).unwrap();
        arrived
    }

    fn shut_down(self) {
        self.runtime.block_on(self.relay.shutdown());
        self.cables.relay.enter().unwrap();
        let started = Instant::now();
        loop {
            let links = Command::new("ip").args(["-d", "link"]).output().unwrap();
            let links = String::from_utf8(links.stdout).unwrap();
            assert!(links.contains("c0"), "{links}");
            if !links.contains("xdp") {
                break;
            }
            // A program that another test is about to start holds our descriptors for a moment.
            assert!(started.elapsed() < PATIENCE, "{links}");
        }
    }
}

/// Sends both ways and compares every payload; returns what the relay counted.
fn relay_both_ways(xdp: Xdp, client: AddressFamily, peer: AddressFamily) -> Stats {
    let mut world = World::new(&config(xdp), client, peer);
    for number in 0..PACKETS {
        let bytes = number.to_be_bytes();
        let payload = bytes.repeat([0, 1, 3, 20, 150][usize::from(bytes[7]) % 5]);
        let payload = [&payload, &bytes[..usize::from(bytes[7]) % 4]].concat();
        world.send(&payload);
        assert_eq!(world.receive_at_peer(), (payload.clone(), world.relayed));

        world.peer.send_to(&payload, world.relayed).unwrap();
        let expected = Received {
            from: Source::Channel(NUMBER),
            payload,
        };
        assert_eq!(world.receive(), Some(expected), "packet {number}");
    }
    let stats = world.stats();

    // What the driver does not know is userspace's, beside it.
    let peer = world.peer.local_addr().unwrap();
    world
        .runtime
        .block_on(world.client.send_to(peer, b"sent"))
        .unwrap();
    assert_eq!(world.receive_at_peer(), (b"sent".to_vec(), world.relayed));

    // With the Allocation all is over, in the driver as well.
    world.runtime.block_on(world.client.refresh(0)).unwrap();
    world.send(b"too late");
    assert_eq!(world.count_at_peer(SILENCE), 0);
    world.peer.send_to(b"too late", world.relayed).ok();
    assert_eq!(world.receive(), None);
    let after = world.stats();
    assert_eq!(after.offloaded_from_clients, stats.offloaded_from_clients);
    assert_eq!(after.offloaded_to_clients, stats.offloaded_to_clients);
    world.shut_down();
    stats
}

/// The same traffic with and without the driver's help comes to the same sums.
fn check(client: AddressFamily, peer: AddressFamily) {
    let without = relay_both_ways(Xdp::Off, client, peer);
    let with = relay_both_ways(Xdp::On, client, peer);

    assert_eq!(without.offloaded_from_clients, Traffic::default());
    assert_eq!(without.from_clients[UDP].packets, PACKETS);
    assert_eq!(with.from_clients[UDP], without.from_clients[UDP]);
    assert_eq!(with.to_clients[UDP], without.to_clients[UDP]);
    for offloaded in [with.offloaded_from_clients, with.offloaded_to_clients] {
        let expected = PACKETS - FIRST_MAX..=PACKETS;
        assert!(expected.contains(&offloaded.packets), "{offloaded:?}");
    }
}

#[test]
fn the_driver_relays_and_counts_as_userspace_does_over_ipv4() {
    alone(|| check(AddressFamily::V4, AddressFamily::V4));
}

#[test]
fn the_driver_relays_and_counts_as_userspace_does_over_ipv6() {
    alone(|| check(AddressFamily::V6, AddressFamily::V6));
}

#[test]
fn the_driver_relays_and_counts_as_userspace_does_between_families() {
    alone(|| check(AddressFamily::V4, AddressFamily::V6));
}

/// Whichever way packets go, and by turns: what passes is what the User may relay, and a second's
/// worth at once in each of the two places.
#[test]
fn a_rate_holds_in_the_driver_and_beside_it() {
    const RATE: u64 = 100;
    const SECONDS: u64 = 4;
    alone(|| {
        let mut config = config(Xdp::On);
        config.packets_per_second_per_user_max = RATE;
        let mut world = World::new(&config, AddressFamily::V4, AddressFamily::V4);
        let peer = world.peer.local_addr().unwrap();
        world.send(b"first");
        world.receive_at_peer();
        let began = Instant::now();
        let mut passed = 0;
        while began.elapsed() < Duration::from_secs(SECONDS) {
            for _ in 0..4 {
                world.send(b"in the driver");
                let sent = world.client.send_to(peer, b"beside it");
                world.runtime.block_on(sent).unwrap();
            }
            passed += world.count_at_peer(Duration::from_millis(5));
        }
        passed += world.count_at_peer(SILENCE);
        let seconds = began.elapsed().as_secs_f64();
        let stats = world.stats();
        let in_driver = stats.offloaded_from_clients.packets;
        // A burst and what was not settled yet, in each of the two places.
        let most = RATE as f64 * (seconds + 3.0);
        let told = format!("{passed} passed in {seconds} s, {in_driver} of them in the driver");
        assert!(
            in_driver > RATE / 2 && passed > in_driver + RATE / 2,
            "{told}"
        );
        assert!((passed as f64) < most, "{told}");
        assert!(passed > RATE * SECONDS / 2, "{told}");
        world.shut_down();
    });
}

#[test]
fn an_interface_takes_one_relay_and_a_relay_says_so() {
    alone(|| {
        let world = World::new(&config(Xdp::On), AddressFamily::V4, AddressFamily::V4);
        let other = |xdp, listen: &str| {
            let mut config = config(xdp);
            config.listen_udp = vec![listen.parse().unwrap()];
            start(&config)
        };
        let error = other(Xdp::On, "198.18.1.1:3479").unwrap_err().to_string();
        assert!(
            error.contains("another XDP program is attached to interface c0"),
            "{error}"
        );
        let second = other(Xdp::Auto, "198.18.1.1:3480").unwrap();
        config(Xdp::On).probe_xdp().unwrap();
        world.runtime.block_on(second.shutdown());

        let mut elsewhere = config(Xdp::On);
        elsewhere.xdp_interfaces = vec!["none0".to_owned()];
        let error = elsewhere.probe_xdp().unwrap_err().to_string();
        assert_eq!(error, "interface none0: No such device (os error 19)");
        world.shut_down();
    });
}
