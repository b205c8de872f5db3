//! Frames one by one through the program in the kernel, each compared with the reference.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::reference::{Hop, Way, World};
use crate::binding::{Binding, Installed, Lifetimes, Mode, Settings};
use crate::layout::{Cause, Dscp, Egress, FlowKey, flow};
use crate::offload::Offload;
use crate::program::NEXT_HOP_LIFETIME_NANOS;
use crate::sys::{self, test_run};
use crate::testbed::{Frame, Namespace, alone, channel_data, ip};

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

const SEEDS: u64 = 8;
const FRAMES_PER_SEED: usize = 4_000;

/// Our own addresses.
const SERVER_V4: &str = "198.18.0.1:3478";
const SERVER_V6: &str = "[2001:2::1]:3478";
const RELAYED_V4: &str = "198.18.0.1";
const RELAYED_V6: &str = "2001:2::1";

/// Others, and what the kernel knows of them: the interface and the MAC address.
const OTHERS: [(&str, &str, Option<[u8; 6]>); 14] = [
    ("198.18.0.2", "e0", Some([2, 0, 0, 0, 1, 2])),
    ("198.18.0.3", "e0", Some([2, 0, 0, 0, 1, 3])),
    ("198.18.1.2", "e1", Some([2, 0, 0, 0, 1, 4])),
    ("198.18.2.2", "e2", Some([2, 0, 0, 0, 1, 5])),
    ("198.18.3.2", "e3", Some([2, 0, 0, 0, 1, 6])),
    ("198.18.0.9", "e0", None),
    ("192.0.2.1", "", None),
    ("2001:2::2", "e0", Some([2, 0, 0, 0, 1, 7])),
    ("2001:2::3", "e0", Some([2, 0, 0, 0, 1, 8])),
    ("2001:2:0:1::2", "e1", Some([2, 0, 0, 0, 1, 9])),
    ("2001:2:0:2::2", "e2", Some([2, 0, 0, 0, 1, 10])),
    ("2001:2:0:3::2", "e3", Some([2, 0, 0, 0, 1, 11])),
    ("2001:2::9", "e0", None),
    ("2001:db8::1", "", None),
];

/// e1 has a small MTU, e2 takes no part, and e3 is said to be a VLAN on top of e0.
const INTERFACES: [&str; 4] = ["e0", "e1", "e2", "e3"];

/// The VLAN's tag.
const TAG: u16 = 0x2064;

/// How late the program's clock may be.
const CLOCK_TICK: Duration = Duration::from_millis(20);

/// The MTU of the second interface.
const MTU_SMALL: usize = 1280;

/// An offload that is loaded and attached nowhere, with the reference beside it.
struct Bench {
    offload: Offload,
    world: World,
    installed: Vec<(Binding, Installed)>,
    causes: [u64; Cause::COUNT],
}

impl Bench {
    fn new(dscp: Dscp) -> Bench {
        Namespace::new().unwrap();
        for (number, interface) in INTERFACES.into_iter().enumerate() {
            ip(&format!(
                "link add {interface} type veth peer name far{number}"
            ))
            .unwrap();
            ip(&format!("link set far{number} up")).unwrap();
            let [a, b, c, d, e, f] = own_mac(interface);
            let mac = format!("{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}");
            ip(&format!("link set {interface} address {mac} up")).unwrap();
            let net = if number == 0 {
                String::new()
            } else {
                format!("0:{number}::")
            };
            ip(&format!("addr add 198.18.{number}.1/24 dev {interface}")).unwrap();
            ip(&format!("addr add 2001:2:{net}:1/64 dev {interface} nodad").replace(":::", "::"))
                .unwrap();
        }
        ip(&format!("link set e1 mtu {MTU_SMALL}")).unwrap();
        for (address, interface, mac) in OTHERS {
            if let Some([a, b, c, d, e, f]) = mac {
                let mac = format!("{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}");
                ip(&format!(
                    "neigh replace {address} lladdr {mac} dev {interface}"
                ))
                .unwrap();
            }
        }
        let settings = Settings {
            interfaces: vec!["e0".to_owned(), "e1".to_owned()],
            mode: Mode::Native,
            ipv4: true,
            ipv6: true,
            relay_ports: 50_000..=50_999,
            dscp,
            channels_max: 1024,
            quotas_max: 8,
        };
        let world = World {
            relay_ports: settings.relay_ports.clone(),
            ways: HashMap::new(),
        };
        let offload = Offload::load(settings).unwrap();
        let vlan = Egress {
            ifindex: sys::ifindex("e0").unwrap(),
            tag: TAG,
        };
        let route = sys::ifindex("e3").unwrap().to_ne_bytes();
        offload
            .maps
            .egress
            .insert(&route, &vlan.to_bytes())
            .unwrap();
        Bench {
            offload,
            world,
            installed: Vec::new(),
            causes: [0; Cause::COUNT],
        }
    }

    /// Installs a Channel here and in the reference.
    fn install(&mut self, binding: Binding, expired: bool, dscp: Dscp) {
        let until = match expired {
            true => Instant::now(),
            false => Instant::now() + Duration::from_secs(600),
        };
        let lifetimes = Lifetimes {
            to_peer: until,
            to_client: until,
        };
        let installed = self.offload.install(binding, lifetimes).unwrap();
        let ends = [
            (
                binding.client,
                binding.server,
                binding.channel,
                binding.relayed,
                binding.peer,
                None,
            ),
            (
                binding.peer,
                binding.relayed,
                0,
                binding.server,
                binding.client,
                Some(binding.channel),
            ),
        ];
        for ((remote, local, in_channel, source, destination, channel), number) in
            ends.into_iter().zip(installed.flows)
        {
            // However long the test takes, no packet is to go the kernel's way for the neighbour.
            let word = |field| self.offload.word(number, field);
            word(flow::CONFIRM).store(u64::MAX, Ordering::Relaxed);
            let label = word(flow::VERSION_AND_LABEL).load(Ordering::Relaxed);
            let label = (label >> (8 * (flow::VERSION_AND_LABEL % 8))) as u32;
            let way = Way {
                source,
                destination,
                channel,
                expired,
                dscp,
                version_and_label: label.swap_bytes(),
                hop: hop(destination),
            };
            let key = FlowKey {
                remote,
                local,
                channel: in_channel,
            };
            self.world.ways.insert(key, way);
        }
        self.installed.push((binding, installed));
    }

    /// Runs `frame` through the program and through the reference.
    fn check(&mut self, frame: &[u8], context: &str) -> Result<(), Cause> {
        let (verdict, out) = test_run::one(&self.offload.program, frame).unwrap();
        let causes = self.offload.causes().unwrap();
        let counted: Vec<Cause> = Cause::ALL
            .into_iter()
            .filter(|cause| causes[cause.index()] != self.causes[cause.index()])
            .collect();
        self.causes = causes;

        match self.world.relay(frame) {
            Ok(sent) => {
                assert_eq!(counted, [sent.cause], "{context}: {frame:02x?}");
                assert_eq!(verdict, XDP_REDIRECT, "{context}: {frame:02x?}");
                assert_eq!(
                    format!("{out:02x?}"),
                    format!("{:02x?}", sent.frame),
                    "{context}: {frame:02x?}"
                );
                Ok(())
            }
            Err(cause) => {
                assert_eq!(counted, [cause], "{context}: {frame:02x?}");
                assert_eq!(verdict, XDP_PASS, "{context}: {frame:02x?}");
                assert_eq!(out, frame, "{context}: modified, though passed on");
                Err(cause)
            }
        }
    }
}

fn own_mac(interface: &str) -> [u8; 6] {
    [2, 0, 0, 0, 2, interface.as_bytes()[1]]
}

/// How the kernel would send to `destination`, or why the program leaves that to it.
fn hop(destination: SocketAddr) -> Result<Hop, Cause> {
    let is_it = |(ip, ..): &&(&str, &str, _)| *ip == destination.ip().to_string();
    let (_, interface, neighbour) = OTHERS.iter().find(is_it).unwrap();
    if interface.is_empty() {
        return Err(Cause::NoRoute);
    }
    let neighbour = neighbour.ok_or(Cause::NoNeighbour)?;
    if *interface == "e2" {
        return Err(Cause::OtherInterface);
    }
    Ok(Hop {
        mac: neighbour,
        own_mac: own_mac(interface),
        tag: (*interface == "e3").then_some(TAG),
        mtu: if *interface == "e1" { MTU_SMALL } else { 1500 },
    })
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A Channel that nothing stands against.
fn plain_binding() -> Binding {
    Binding {
        client: address("198.18.0.2:4000"),
        server: address(SERVER_V4),
        relayed: address("198.18.0.1:50000"),
        peer: address("198.18.0.3:5000"),
        channel: 0x4000,
        quotas: [None; 2],
    }
}

/// A Channel between two of the others, of any families.
fn random_binding(rng: &mut StdRng, number: u16) -> Binding {
    let mut end = |port: u16| {
        let (ip, ..) = OTHERS[rng.random_range(0..OTHERS.len())];
        SocketAddr::new(ip.parse().unwrap(), port)
    };
    let client = end(20_000 + number % 7);
    let peer = end(30_000 + number);
    let server = if client.is_ipv4() {
        SERVER_V4
    } else {
        SERVER_V6
    };
    let relayed = if peer.is_ipv4() {
        RELAYED_V4
    } else {
        RELAYED_V6
    };
    Binding {
        client,
        server: address(server),
        relayed: SocketAddr::new(relayed.parse().unwrap(), 50_000 + number),
        peer,
        channel: 0x4000 + rng.random_range(0..0x4000),
        quotas: [None; 2],
    }
}

fn random_frame(rng: &mut StdRng, binding: &Binding) -> Vec<u8> {
    let longest = if rng.random_bool(0.8) { 64 } else { 1480 };
    let mut payload = vec![0; rng.random_range(0..longest)];
    rng.fill_bytes(&mut payload);

    let mut frame = match rng.random_bool(0.5) {
        true => {
            let mut padding = vec![0; rng.random_range(0..8_usize).saturating_sub(4)];
            if rng.random_bool(0.1) {
                rng.fill_bytes(&mut padding);
            }
            let data = channel_data(binding.channel, &payload, &padding);
            Frame::new(binding.client, binding.server, &data)
        }
        false => Frame::new(binding.peer, binding.relayed, &payload),
    };
    frame.tag = rng.random_bool(0.2).then(|| rng.random());
    frame.class = rng.random();
    frame.ttl = if rng.random_bool(0.95) {
        rng.random_range(2..=255)
    } else {
        rng.random_range(0..3)
    };
    frame.id = rng.random();
    frame.dont_fragment = rng.random();
    frame.flow_label = rng.random_range(0..1 << 20);
    frame.checksum = match rng.random_range(0..10) {
        0 => Some(0),
        1 => Some(rng.random()),
        _ => None,
    };
    frame.trailer = vec![0; rng.random_range(0..20_usize).saturating_sub(10)];
    rng.fill_bytes(&mut frame.trailer);
    frame.to_bytes()
}

/// Damages `frame` in one of many ways.
fn damage(rng: &mut StdRng, frame: &mut Vec<u8>) {
    match rng.random_range(0..4) {
        0 => frame.truncate(rng.random_range(14..=frame.len())),
        1 => {
            let extra = rng.random_range(0..40);
            frame.extend(std::iter::repeat_n(0x55, extra));
        }
        _ => {
            // Headers are where it matters.
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..frame.len().min(66));
                frame[at] = match rng.random_range(0..3) {
                    0 => rng.random(),
                    1 => frame[at] ^ 1 << rng.random_range(0..8),
                    _ => [0, 1, 0x40, 0x45, 0x60, 17, 0xff][rng.random_range(0..7)],
                };
            }
        }
    }
}

#[test]
fn every_frame_becomes_what_the_reference_makes_of_it() {
    alone(|| {
        for seed in 0..SEEDS {
            let mut rng = StdRng::seed_from_u64(seed);
            let dscp = [Dscp::Keep, Dscp::Set(46)][(seed % 2) as usize];
            let mut bench = Bench::new(dscp);
            for number in 0..60 {
                let binding = random_binding(&mut rng, number);
                bench.install(binding, number % 10 == 9, dscp);
            }
            let mut sent = 0;
            for at in 0..FRAMES_PER_SEED {
                let (binding, _) = bench.installed[rng.random_range(0..60)];
                let mut frame = random_frame(&mut rng, &binding);
                if rng.random_bool(0.4) {
                    damage(&mut rng, &mut frame);
                }
                sent += usize::from(
                    bench
                        .check(&frame, &format!("seed {seed}, frame {at}"))
                        .is_ok(),
                );
            }
            println!("seed {seed}: {sent} of {FRAMES_PER_SEED} frames relayed");
            assert!(sent > FRAMES_PER_SEED / 4, "most frames were never relayed");
        }
    });
}

#[test]
fn flows_count_packets_and_application_bytes() {
    alone(|| {
        let mut bench = Bench::new(Dscp::Keep);
        let binding = plain_binding();
        bench.install(binding, false, Dscp::Keep);
        for len in [0, 1, 100] {
            let data = channel_data(binding.channel, &vec![7; len], &[0; 3]);
            let frame = Frame::new(binding.client, binding.server, &data).to_bytes();
            bench.check(&frame, "to the peer").unwrap();
        }
        let frame = Frame::new(binding.peer, binding.relayed, &[1; 33]).to_bytes();
        bench.check(&frame, "to the client").unwrap();

        let (_, installed) = bench.installed.pop().unwrap();
        let usage = bench.offload.remove(installed);
        assert_eq!((usage.to_peer.packets, usage.to_peer.bytes), (3, 101));
        assert_eq!((usage.to_client.packets, usage.to_client.bytes), (1, 33));

        bench.world.ways.clear();
        assert_eq!(bench.check(&frame, "removed"), Err(Cause::NoFlow));
    });
}

#[test]
fn a_neighbour_that_moves_is_followed() {
    alone(|| {
        let mut bench = Bench::new(Dscp::Keep);
        let binding = plain_binding();
        bench.install(binding, false, Dscp::Keep);
        let data = channel_data(binding.channel, b"media", &[]);
        let frame = Frame::new(binding.client, binding.server, &data).to_bytes();
        bench.check(&frame, "before").unwrap();

        ip("neigh replace 198.18.0.3 lladdr 2:0:0:0:9:9 dev e0").unwrap();
        let lifetime = NEXT_HOP_LIFETIME_NANOS.unsigned_abs();
        thread::sleep(Duration::from_nanos(u64::from(lifetime)) + CLOCK_TICK);
        for way in bench
            .world
            .ways
            .values_mut()
            .filter(|way| way.destination == binding.peer)
        {
            way.hop.as_mut().unwrap().mac = [2, 0, 0, 0, 9, 9];
        }
        bench.check(&frame, "after").unwrap();
    });
}

#[test]
fn one_packet_goes_the_kernels_way_when_the_neighbour_is_to_be_confirmed() {
    alone(|| {
        let mut bench = Bench::new(Dscp::Keep);
        let binding = plain_binding();
        bench.install(binding, false, Dscp::Keep);
        let data = channel_data(binding.channel, b"media", &[]);
        let frame = Frame::new(binding.client, binding.server, &data).to_bytes();

        let to_peer = bench.installed[0].1.flows[0];
        bench
            .offload
            .word(to_peer, flow::CONFIRM)
            .store(0, Ordering::Relaxed);
        let (verdict, out) = test_run::one(&bench.offload.program, &frame).unwrap();
        assert_eq!((verdict, out), (XDP_PASS, frame.clone()));
        bench.causes = bench.offload.causes().unwrap();
        assert_eq!(bench.causes[Cause::Confirm.index()], 1);
        bench.check(&frame, "confirmed").unwrap();
    });
}

#[test]
fn what_can_not_be_offloaded_is_refused() {
    alone(|| {
        let mut bench = Bench::new(Dscp::Keep);
        let until = Instant::now() + Duration::from_secs(600);
        let lifetimes = Lifetimes {
            to_peer: until,
            to_client: until,
        };
        let binding = plain_binding();
        let check = |bench: &mut Bench, binding, expected: &str| {
            let error = bench.offload.install(binding, lifetimes).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        };

        let server = address("0.0.0.0:3478");
        check(&mut bench, Binding { server, ..binding }, "a wildcard");
        let server = address("198.18.0.1:50001");
        check(
            &mut bench,
            Binding { server, ..binding },
            "the listening port",
        );
        let relayed = address("198.18.0.1:49999");
        check(
            &mut bench,
            Binding { relayed, ..binding },
            "the listening port",
        );
        let peer = address("[2001:2::2]:5000");
        check(
            &mut bench,
            Binding { peer, ..binding },
            "addresses of two families",
        );

        bench.install(binding, false, Dscp::Keep);
        check(&mut bench, binding, "not installed: File exists");
        assert_eq!(bench.offload.channels(), 1);

        for number in 1..1024 {
            let relayed = SocketAddr::new(binding.relayed.ip(), 50_000 + number % 1000);
            let peer = SocketAddr::new(binding.peer.ip(), 5_000 + number);
            let channel = 0x4000 + number;
            let binding = Binding {
                channel,
                relayed,
                peer,
                ..binding
            };
            // What was refused above rests a little before there is room for it again.
            match bench.offload.install(binding, lifetimes) {
                Ok(_installed) => {}
                Err(error) => assert_eq!(error.to_string(), "no room for another channel"),
            }
        }
        assert!(
            bench.offload.channels() >= 1020,
            "{}",
            bench.offload.channels()
        );
    });
}
