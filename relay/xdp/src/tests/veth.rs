//! The program on real interfaces: a client, the relay and a peer, each in a namespace of its own,
//! joined by virtual cables. No relay listens: what arrives was relayed by the program alone.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::binding::{Binding, Lifetimes, Mode, Settings, StartError, Traffic, Usage};
use crate::layout::{Cause, Dscp, Quota};
use crate::offload::Offload;
use crate::testbed::{Cables, Namespace, alone, channel_data};

const CHANNEL: u16 = 0x4abc;

/// How long a packet may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long nothing must arrive to call it lost.
const SILENCE: Duration = Duration::from_millis(300);

/// How many packets each test sends each way.
const PACKETS: usize = 500;

/// The three ends of one Channel.
struct Network {
    client: UdpSocket,
    peer: UdpSocket,
    /// Where the kernel hands what the program passes on.
    server: UdpSocket,
    relayed: UdpSocket,
    binding: Binding,
    cables: Cables,
}

/// Addresses of one family: client, server, relayed address, peer.
type Addresses = [&'static str; 4];

const V4: Addresses = [
    "198.18.1.2:4000",
    "198.18.1.1:3478",
    "198.18.2.1:50000",
    "198.18.2.2:5000",
];
const V6: Addresses = [
    "[2001:2:0:1::2]:4000",
    "[2001:2:0:1::1]:3478",
    "[2001:2:0:2::1]:50000",
    "[2001:2:0:2::2]:5000",
];
/// An IPv4 client whose relayed address is an IPv6 one.
const V4_TO_V6: Addresses = [V4[0], V4[1], V6[2], V6[3]];
/// The other way round.
const V6_TO_V4: Addresses = [V6[0], V6[1], V4[2], V4[3]];
/// Client and peer behind one interface, which sends out again what it received.
const ONE_ARM: Addresses = [V4[0], V4[1], "198.18.1.1:50000", "198.18.1.2:5000"];

impl Network {
    fn new(addresses: Addresses) -> Network {
        let cables = Cables::new().unwrap();
        let [client, server, relayed, peer]: [SocketAddr; 4] =
            addresses.map(|text| text.parse().unwrap());
        let socket_in = |namespace: &Namespace, address: SocketAddr| {
            namespace.enter().unwrap();
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let peer_is_behind_client = client.ip() == peer.ip();
        Network {
            client: socket_in(&cables.client, client),
            peer: match peer_is_behind_client {
                true => socket_in(&cables.client, peer),
                false => socket_in(&cables.peer, peer),
            },
            server: socket_in(&cables.relay, server),
            relayed: socket_in(&cables.relay, relayed),
            binding: Binding {
                client,
                server,
                relayed,
                peer,
                channel: CHANNEL,
                quotas: [None; 2],
            },
            cables,
        }
    }

    /// Lets the relay's kernel learn both neighbours, as control messages do in life.
    fn meet(&self) {
        for (own, other, there) in [
            (&self.server, &self.client, self.binding.client),
            (&self.relayed, &self.peer, self.binding.peer),
        ] {
            own.send_to(b"hello", there).unwrap();
            assert_eq!(receive(other).unwrap(), b"hello");
        }
    }
}

fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 2048];
    let (len, _) = socket.recv_from(&mut buffer)?;
    Ok(buffer[..len].to_vec())
}

/// Ensures that nothing arrives.
fn expect_silence(socket: &UdpSocket) {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let received = receive(socket);
    assert!(received.is_err(), "arrived: {received:02x?}");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
}

fn settings(mode: Mode) -> Settings {
    Settings {
        interfaces: vec!["c0".to_owned(), "p0".to_owned()],
        mode,
        ipv4: true,
        ipv6: true,
        relay_ports: 49_152..=65_535,
        dscp: Dscp::Keep,
        channels_max: 16,
        quotas_max: 8,
    }
}

fn for_seconds(seconds: u64) -> Lifetimes {
    let until = Instant::now() + Duration::from_secs(seconds);
    Lifetimes {
        to_peer: until,
        to_client: until,
    }
}

/// Sends both ways and compares every payload and count.
fn relay_both_ways(addresses: Addresses, mode: Mode) {
    let network = Network::new(addresses);
    network.meet();
    let mut offload = Offload::start(settings(mode)).unwrap();
    let installed = offload.install(network.binding, for_seconds(600)).unwrap();
    let (client, peer, binding) = (&network.client, &network.peer, &network.binding);

    let mut expected = Usage::default();
    for number in 0..PACKETS {
        let len = [0, 1, 20, 159, 160, 1200][number % 6];
        let payload = vec![number as u8; len];
        let padding = vec![
            0;
            if number % 2 == 0 {
                (4 - len % 4) % 4
            } else {
                0
            }
        ];
        let data = channel_data(CHANNEL, &payload, &padding);
        client.send_to(&data, binding.server).unwrap();
        let mut buffer = [0; 2048];
        let (got, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..got], from), (&payload[..], binding.relayed));

        peer.send_to(&payload, binding.relayed).unwrap();
        let (got, from) = client.recv_from(&mut buffer).unwrap();
        let data = channel_data(CHANNEL, &payload, &[]);
        assert_eq!((&buffer[..got], from), (&data[..], binding.server));

        for direction in [&mut expected.to_peer, &mut expected.to_client] {
            direction.packets += 1;
            direction.bytes += len as u64;
        }
    }
    assert_eq!(offload.remove(installed), expected);
    let causes = offload.causes().unwrap();
    assert_eq!(causes[Cause::ToPeer.index()], expected.to_peer.packets);
    assert_eq!(causes[Cause::ToClient.index()], expected.to_client.packets);
    assert_eq!(causes[Cause::Quota.index()], 0);

    // From now on userspace has it.
    let data = channel_data(CHANNEL, b"again", &[]);
    client.send_to(&data, binding.server).unwrap();
    assert_eq!(receive(&network.server).unwrap(), data);
}

#[test]
fn a_channel_is_relayed_both_ways_over_ipv4() {
    alone(|| relay_both_ways(V4, Mode::Native));
}

#[test]
fn a_channel_is_relayed_both_ways_over_ipv6() {
    alone(|| relay_both_ways(V6, Mode::Native));
}

#[test]
fn a_channel_is_relayed_from_either_family_to_the_other() {
    alone(|| relay_both_ways(V4_TO_V6, Mode::Native));
    alone(|| relay_both_ways(V6_TO_V4, Mode::Native));
}

#[test]
fn a_channel_is_relayed_out_of_the_interface_it_came_in() {
    alone(|| relay_both_ways(ONE_ARM, Mode::Native));
}

#[test]
fn a_channel_is_relayed_where_the_kernel_runs_the_program() {
    alone(|| relay_both_ways(V4, Mode::Generic));
    alone(|| relay_both_ways(V6, Mode::Generic));
}

#[test]
fn a_channel_ends_when_its_time_is_over() {
    alone(|| {
        let network = Network::new(V4);
        network.meet();
        let mut offload = Offload::start(settings(Mode::Native)).unwrap();
        let installed = offload.install(network.binding, for_seconds(600)).unwrap();
        let (client, server) = (&network.client, network.binding.server);
        let data = channel_data(CHANNEL, b"media", &[]);

        client.send_to(&data, server).unwrap();
        assert_eq!(receive(&network.peer).unwrap(), b"media");

        // The Permission ends before the Channel: only the way back is over.
        let lifetimes = Lifetimes {
            to_client: Instant::now(),
            ..for_seconds(600)
        };
        offload.refresh(&installed, lifetimes);
        network
            .peer
            .send_to(b"late", network.binding.relayed)
            .unwrap();
        assert_eq!(receive(&network.relayed).unwrap(), b"late");
        client.send_to(&data, server).unwrap();
        assert_eq!(receive(&network.peer).unwrap(), b"media");

        // By the clock, with nobody's help.
        offload.refresh(&installed, for_seconds(1));
        thread::sleep(Duration::from_millis(1100));
        client.send_to(&data, server).unwrap();
        assert_eq!(receive(&network.server).unwrap(), data);
        expect_silence(&network.peer);

        offload.refresh(&installed, for_seconds(600));
        client.send_to(&data, server).unwrap();
        assert_eq!(receive(&network.peer).unwrap(), b"media");
        let causes = offload.causes().unwrap();
        assert_eq!(causes[Cause::Expired.index()], 2);
        let to_peer = Traffic {
            packets: 3,
            bytes: 15,
        };
        assert_eq!(offload.remove(installed).to_peer, to_peer);
    });
}

#[test]
fn a_quota_stops_what_is_beyond_it() {
    const SENT: u64 = 20;
    alone(|| {
        let network = Network::new(V4);
        network.meet();
        let mut offload = Offload::start(settings(Mode::Native)).unwrap();
        let mut check = |bits_per_second, packets_per_second, ahead, expected: u64| {
            let quota = offload.add_quota(Quota {
                bits_per_second,
                packets_per_second,
            });
            offload.level_quota(quota.unwrap(), [Duration::ZERO, ahead]);
            let binding = Binding {
                quotas: [None, quota],
                ..network.binding
            };
            let refused = offload.causes().unwrap()[Cause::Quota.index()];
            let installed = offload.install(binding, for_seconds(600)).unwrap();
            for _ in 0..SENT {
                let data = channel_data(CHANNEL, &[7; 100], &[]);
                network.client.send_to(&data, binding.server).unwrap();
            }
            network.peer.set_read_timeout(Some(SILENCE)).unwrap();
            let mut arrived = 0;
            while let Ok(payload) = receive(&network.peer) {
                assert_eq!(payload, [7; 100]);
                arrived += 1;
            }
            // A busy machine takes its time to send them all, and the schedule goes on meanwhile.
            assert!(
                (expected..=expected + 2).contains(&arrived),
                "{arrived} passed {bits_per_second} bits and {packets_per_second} packets"
            );
            let refused = offload.causes().unwrap()[Cause::Quota.index()] - refused;
            assert_eq!(refused, SENT - arrived);
            let expected = Traffic {
                packets: arrived,
                bytes: 100 * arrived,
            };
            assert_eq!(offload.remove(installed).to_peer, expected);
        };

        check(8 * 100 * 4, 0, Duration::ZERO, 4);
        check(0, 4, Duration::ZERO, 4);
        // Whichever is less.
        check(8 * 100 * 3, 5, Duration::ZERO, 3);
        check(8 * 100 * 5, 3, Duration::ZERO, 3);
        // What went past the program counts, too, and a packet longer than a second's worth goes alone.
        check(8 * 100 * 4, 0, Duration::from_millis(450), 2);
        check(8 * 100, 0, Duration::from_secs(3), 0);
        check(8 * 60, 0, Duration::ZERO, 1);
    });
}

#[test]
fn what_grows_beyond_the_mtu_is_left_to_userspace() {
    alone(|| {
        let network = Network::new(V4);
        network.meet();
        let mut offload = Offload::start(settings(Mode::Native)).unwrap();
        let _installed = offload.install(network.binding, for_seconds(600)).unwrap();

        let longest = vec![9; 1500 - 28 - 4];
        network
            .peer
            .send_to(&longest, network.binding.relayed)
            .unwrap();
        let data = channel_data(CHANNEL, &longest, &[]);
        assert_eq!(receive(&network.client).unwrap(), data);

        let longer = vec![9; 1500 - 28 - 3];
        network
            .peer
            .send_to(&longer, network.binding.relayed)
            .unwrap();
        assert_eq!(receive(&network.relayed).unwrap(), longer);
        assert_eq!(offload.causes().unwrap()[Cause::Mtu.index()], 1);
    });
}

#[test]
fn nothing_stays_attached_when_the_offload_ends() {
    alone(|| {
        let network = Network::new(V4);
        network.cables.relay.enter().unwrap();
        let offload = Offload::start(settings(Mode::Native)).unwrap();
        let error = Offload::start(settings(Mode::Native)).unwrap_err();
        assert!(
            matches!(&error, StartError::Taken { name } if name == "c0"),
            "{error}"
        );
        Offload::probe(settings(Mode::Native)).unwrap();

        drop(offload);
        drop(Offload::start(settings(Mode::Native)).unwrap());
    });
}

#[test]
fn what_is_missing_is_named() {
    alone(|| {
        let network = Network::new(V4);
        network.cables.relay.enter().unwrap();
        let start = |interface: &str| {
            let settings = Settings {
                interfaces: vec![interface.to_owned()],
                ..settings(Mode::Native)
            };
            Offload::start(settings).unwrap_err().to_string()
        };
        assert_eq!(
            start("none"),
            "interface none: No such device (os error 19)"
        );
        std::fs::write("/proc/sys/net/ipv6/conf/lo/forwarding", "0").unwrap();
        let error = start("c0");
        assert!(
            error.contains("sysctl -w net.ipv6.conf.lo.forwarding=1"),
            "{error}"
        );
    });
}

/// Leaves the calling thread these rights alone.
fn keep_rights(rights: &[u32]) {
    const VERSION_3: u32 = 0x2008_0522;
    let mut kept = [0_u32; 2];
    for right in rights {
        kept[*right as usize / 32] |= 1 << (right % 32);
    }
    let header = [VERSION_3, 0];
    // Effective, permitted, inheritable: the low halves, then the high ones.
    let sets = [kept[0], kept[0], 0, kept[1], kept[1], 0];
    // SAFETY: both are as the call of version 3 has them, and outlive it.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

#[test]
fn three_rights_are_enough_and_each_is_needed() {
    const NET_ADMIN: u32 = 12;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let started_with = |rights: &'static [u32]| {
        let (told, outcome) = std::sync::mpsc::channel();
        alone(move || {
            let network = Network::new(V4);
            network.cables.relay.enter().unwrap();
            keep_rights(rights);
            told.send(Offload::start(settings(Mode::Native)).map(drop))
                .unwrap();
        });
        outcome.recv().ok() // None where it was skipped.
    };
    if let Some(started) = started_with(&[NET_ADMIN, PERFMON, BPF]) {
        started.unwrap();
        for rights in [&[NET_ADMIN, PERFMON], &[NET_ADMIN, BPF], &[PERFMON, BPF]] {
            let started = started_with(rights).unwrap();
            assert!(matches!(started, Err(StartError::Rights)), "{started:?}");
        }
    }
}
