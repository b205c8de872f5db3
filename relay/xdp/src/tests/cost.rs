//! What a relayed packet costs, beside two floors: a program that relays with no check and no
//! account, and one that only redirects, without a look at the packet. All run over the same live
//! frames, in turns, on this thread. The goal is 1.4 times the bare relay; what it is on a machine
//! that does other things at the time is told, not judged.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::frame::{Frame, channel_data};
use super::namespace::{Namespace, alone, ip};
use crate::asm::{Assembler, Cond, Helper, Label, Program, R0, R1, R2, R3, R4, R5, R6, R10, Width};
use crate::binding::{Binding, Lifetimes, Mode, Settings};
use crate::layout::{Dscp, MAP_DEVICES, MAP_KEYS_V4, MAP_KEYS_V6, Quota, flow};
use crate::offload::Offload;
use crate::program;
use crate::sys::{self, AttachFlags, test_run};

const ROUNDS: usize = 9;
const FRAMES: u32 = 100_000;

/// A program that does nothing but send every frame through `ifindex`.
fn redirect(ifindex: u32) -> Program {
    let mut a = Assembler::new();
    a.load_map(R1, MAP_DEVICES);
    a.mov(R2, ifindex.cast_signed());
    a.mov(R3, 0);
    a.call(Helper::RedirectMap);
    a.exit();
    a.finish().unwrap()
}

/// Makes a used frame what it was: the kernel gives frames out again as the last run left them.
///
/// Each word the programs read is written by one store: of several narrower ones a processor can't
/// read before they have settled, which no frame from a wire makes it wait for.
fn restore(a: &mut Assembler, frame: &[u8]) {
    let short = a.label();
    ensure_headers(a, short);
    for at in words(frame) {
        store_word(a, frame, *at);
    }
    a.bind(short);
}

/// Where the eight-byte words of the headers are, the first four bytes of data included.
fn words(frame: &[u8]) -> &'static [usize] {
    match is_v4(frame) {
        true => &[0, 6, 14, 18, 26, 34, 38],
        false => &[0, 6, 14, 22, 30, 38, 46, 54, 58],
    }
}

fn is_v4(frame: &[u8]) -> bool {
    frame[12] == 0x08
}

/// R2 becomes the frame's start; goes on at `short` where it has not all headers.
fn ensure_headers(a: &mut Assembler, short: Label) {
    a.load(Width::U32, R2, R1, 0);
    a.load(Width::U32, R3, R1, 4);
    a.mov(R4, R2);
    a.add(R4, 14 + 40 + 8 + 4);
    a.jump_if(R4, Cond::Gt, R3, short);
}

/// Writes eight bytes of `frame` to their place from R2 on.
fn store_word(a: &mut Assembler, frame: &[u8], at: usize) {
    let word = i64::from_ne_bytes(frame[at..at + 8].try_into().unwrap());
    let low = word as i32;
    a.mov(R4, ((word - i64::from(low)) >> 32) as i32);
    a.shl(R4, 32);
    a.add(R4, low);
    a.store(Width::U64, R2, at as i16, R4);
}

/// The least a relay can do: find the packet's addresses in a map, move the frame's start by
/// `growth` bytes and write headers that are known beforehand. It checks and counts nothing.
fn bare_relay(frame: &[u8], growth: i32, egress: u32) -> Program {
    const KEY: i16 = -40;
    let mut a = Assembler::new();
    let short = a.label();
    restore(&mut a, frame);
    a.mov(R6, R1);
    ensure_headers(&mut a, short);
    let (map, addresses, ports): (_, &[i16], _) = match is_v4(frame) {
        true => (MAP_KEYS_V4, &[26], 34),
        false => (MAP_KEYS_V6, &[22, 30, 38, 46], 54),
    };
    let mut key = KEY;
    for at in addresses {
        a.load(Width::U64, R4, R2, *at);
        a.store(Width::U64, R10, key, R4);
        key += 8;
    }
    // Only a packet that gets shorter has a Channel.
    a.mov(R5, 0);
    if growth < 0 {
        a.load(Width::U16, R5, R2, ports + 8);
    }
    a.shl(R5, 32);
    a.load(Width::U32, R4, R2, ports);
    a.or(R4, R5);
    a.store(Width::U64, R10, key, R4);
    a.mov(R2, R10);
    a.add(R2, i32::from(KEY));
    a.load_map(R1, map);
    a.call(Helper::MapLookup);
    a.jump_if(R0, Cond::Eq, 0, short);

    a.mov(R1, R6);
    a.mov(R2, -growth);
    a.call(Helper::XdpAdjustHead);
    a.mov(R1, R6);
    ensure_headers(&mut a, short);
    for at in words(frame) {
        store_word(&mut a, frame, *at);
    }
    a.load_map(R1, MAP_DEVICES);
    a.mov(R2, egress.cast_signed());
    a.mov(R3, 0);
    a.call(Helper::RedirectMap);
    a.exit();
    a.bind(short);
    a.mov(R0, 0);
    a.exit();
    a.finish().unwrap()
}

/// The offload's own program, over frames made what they were.
fn relay(frame: &[u8]) -> Program {
    let mut a = Assembler::new();
    restore(&mut a, frame);
    program::append(a, &settings().relay_ports).unwrap()
}

/// A program that drops everything, where the frames end.
fn drop_all(interface: &str) -> OwnedFd {
    const XDP_DROP: i32 = 1;
    let mut a = Assembler::new();
    a.mov(R0, XDP_DROP);
    a.exit();
    let program = sys::load("drop_all", &a.finish().unwrap(), |_| -1).unwrap();
    sys::attach(
        &program,
        sys::ifindex(interface).unwrap(),
        AttachFlags::Driver,
    )
    .unwrap()
}

fn settings() -> Settings {
    Settings {
        interfaces: vec!["in0".to_owned(), "out0".to_owned()],
        mode: Mode::Native,
        ipv4: true,
        ipv6: true,
        relay_ports: 49_152..=65_535,
        dscp: Dscp::Keep,
        channels_max: 65_536,
        quotas_max: 4,
    }
}

/// What this thread has worked so far.
fn worked() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists on every Linux, and `time` is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Nanoseconds of work for each frame. A signal breaks a run off; then it begins anew.
fn cost(program: &OwnedFd, frame: &[u8], ingress: u32) -> f64 {
    loop {
        let before = worked();
        match test_run::live(program, frame, ingress, FRAMES) {
            Ok(()) => return (worked() - before).as_nanos() as f64 / f64::from(FRAMES),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn median(costs: &mut [f64]) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

#[test]
fn every_live_frame_is_relayed_and_what_it_costs_is_told() {
    alone(|| {
        let _namespace = Namespace::new();
        for name in ["in", "out"] {
            ip(&format!("link add {name}0 type veth peer name {name}1"));
            ip(&format!("link set {name}0 up"));
            ip(&format!("link set {name}1 up"));
        }
        ip("addr add 198.18.2.1/24 dev out0");
        ip("addr add 2001:2:0:2::1/64 dev out0 nodad");
        ip("neigh add 198.18.2.2 lladdr 2:0:0:0:0:2 dev out0");
        ip("neigh add 2001:2:0:2::2 lladdr 2:0:0:0:0:2 dev out0");
        let _end = drop_all("out1");
        let (ingress, egress) = (sys::ifindex("in0").unwrap(), sys::ifindex("out0").unwrap());
        let mut offload = Offload::start(settings()).unwrap();

        // Everyone's way leads through one interface, clients' and peers'.
        let quota = offload.add_quota(Quota::Bytes {
            per_second: 1 << 40,
            burst: 1 << 40,
        });
        let mut install = |server: &str, other: &str, relayed: &str, channel, quotas| {
            let binding = Binding {
                client: other.parse().unwrap(),
                server: server.parse().unwrap(),
                relayed: relayed.parse().unwrap(),
                peer: other.parse().unwrap(),
                channel,
                quotas,
            };
            let until = Instant::now() + Duration::from_secs(3600);
            let lifetimes = Lifetimes {
                to_peer: until,
                to_client: until,
            };
            let installed = offload.install(binding, lifetimes).unwrap();
            // However long the rounds take, no packet is to go the kernel's way for the neighbour.
            for number in installed.flows {
                offload
                    .word(number, flow::CONFIRM)
                    .store(u64::MAX, Ordering::Relaxed);
            }
            binding
        };
        let v4 = ["198.18.2.1:3478", "198.18.2.2:5000", "198.18.2.1:50000"];
        let v6 = [
            "[2001:2:0:2::1]:3478",
            "[2001:2:0:2::2]:5000",
            "[2001:2:0:2::1]:50000",
        ];
        let binding_v4 = install(v4[0], v4[1], v4[2], 0x4000, [None; 2]);
        let binding_v6 = install(v6[0], v6[1], v6[2], 0x4000, [None; 2]);
        let with_quota = install(v4[0], v4[1], "198.18.2.1:50001", 0x4001, [None, quota]);
        // A map as large as it is in life.
        for number in 0..60_000_u16 {
            let other = format!("203.0.113.9:{}", number + 1024);
            install(v4[0], &other, v4[2], 0x4000, [None; 2]);
        }

        let to_peer = |binding: Binding, len| {
            let data = channel_data(binding.channel, &vec![7; len], &[]);
            Frame::new(binding.client, binding.server, &data).to_bytes()
        };
        let to_client = |binding: Binding, len| {
            Frame::new(binding.peer, binding.relayed, &vec![7; len]).to_bytes()
        };
        let frames = [
            ("to the peer, IPv4, 160 bytes", to_peer(binding_v4, 160)),
            ("to the client, IPv4, 160 bytes", to_client(binding_v4, 160)),
            ("to the peer, IPv4, 1200 bytes", to_peer(binding_v4, 1200)),
            ("to the peer, IPv6, 160 bytes", to_peer(binding_v6, 160)),
            ("to the client, IPv6, 160 bytes", to_client(binding_v6, 160)),
            ("to the peer, IPv4, with a quota", to_peer(with_quota, 160)),
        ];
        let relayed = |causes: [u64; _]| causes[0] + causes[1];
        for (name, frame) in &frames {
            let growth = if name.starts_with("to the peer") {
                -4
            } else {
                4
            };
            let programs = [
                redirect(egress),
                bare_relay(frame, growth, egress),
                relay(frame),
            ];
            let programs = programs
                .map(|program| sys::load("cost", &program, |map| offload.maps.fd(map)).unwrap());
            let before = relayed(offload.causes().unwrap());
            let mut costs = [const { Vec::new() }; 3];
            for _ in 0..ROUNDS {
                for (costs, program) in costs.iter_mut().zip(&programs) {
                    costs.push(cost(program, frame, ingress));
                }
            }
            let relayed = relayed(offload.causes().unwrap()) - before;
            assert!(relayed >= ROUNDS as u64 * u64::from(FRAMES), "{name}");

            let [redirect, bare, ours] = costs.map(|mut costs| median(&mut costs));
            let ratio = ours / bare;
            println!(
                "{name}: {ours:.0} ns, {ratio:.2} times a bare relay ({bare:.0} ns), {:.2} times a \
                 redirect that reads nothing ({redirect:.0} ns)",
                ours / redirect
            );
        }
    });
}
