//! What a relayed packet costs, beside two floors: a bare relay, which finds the packet's addresses
//! in a map, moves the frame's start, writes headers known beforehand and redirects, with no check
//! and no account; and a redirect that never looks at the packet. All run over the same live frames
//! (`BPF_F_TEST_XDP_LIVE_FRAMES`), in turns, on one thread.

#![expect(
    clippy::cast_possible_truncation,
    reason = "halves of words, and places in a short frame"
)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::frame::{Frame, channel_data};
use super::namespace::{Namespace, end_of_cable, ip};
use crate::asm::{
    AssembleError, Assembler, Cond, Helper, Label, Program, R0, R1, R2, R3, R4, R5, R6, R10, Width,
};
use crate::binding::{Binding, Lifetimes, Mode, Settings};
use crate::layout::{Cause, Dscp, MAP_DEVICES, MAP_KEYS_V4, MAP_KEYS_V6, Quota, flow};
use crate::offload::Offload;
use crate::program::{self, XDP_DROP};
use crate::sys::{self, test_run};

/// How many Channels the maps hold besides those measured, as they would in life.
const OTHERS: u16 = 60_000;

/// What one kind of packet costs: nanoseconds of processor time for each, one figure a round.
#[derive(Debug)]
pub struct Cost {
    /// Which packets.
    pub name: &'static str,
    /// A redirect that never looks at the packet.
    pub redirect: Vec<f64>,
    /// The bare relay: lookup, rewrite, redirect.
    pub bare: Vec<f64>,
    /// The offload's program.
    pub ours: Vec<f64>,
}

impl Cost {
    /// The medians: redirect, bare relay, ours.
    #[must_use]
    pub fn medians(&self) -> [f64; 3] {
        [&self.redirect, &self.bare, &self.ours].map(|costs| {
            let mut costs = costs.clone();
            costs.sort_by(f64::total_cmp);
            costs.get(costs.len() / 2).copied().unwrap_or(f64::NAN)
        })
    }
}

/// Measures in `rounds` rounds of `frames` frames each, in namespaces of its own: the calling thread
/// is in one of them afterwards. Takes root.
///
/// # Errors
///
/// What the machine lacks, and a frame that was not relayed.
pub fn measure(rounds: usize, frames: u32) -> io::Result<Vec<Cost>> {
    let bench = Bench::new()?;
    let mut costs = Vec::new();
    for (name, growth, frame) in &bench.frames {
        let programs = [
            redirect(bench.egress),
            bare_relay(frame, *growth, bench.egress),
            relay(frame),
        ];
        let programs = programs.map(|program| {
            let program = program.map_err(io::Error::other)?;
            let load = sys::load("cost", &program, |map| bench.offload.maps.fd(map));
            load.map_err(io::Error::other)
        });
        let [redirect, bare, ours] = programs;
        let programs = [redirect?, bare?, ours?];
        let before = bench.relayed()?;
        let mut of_programs = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for (costs, program) in of_programs.iter_mut().zip(&programs) {
                costs.push(cost(program, frame, bench.ingress, frames)?);
            }
        }
        let (relayed, sent) = (bench.relayed()? - before, rounds as u64 * u64::from(frames));
        if relayed < sent {
            let error = format!("{name}: {relayed} of {sent} frames were relayed");
            return Err(io::Error::other(error));
        }
        let [redirect, bare, ours] = of_programs;
        costs.push(Cost {
            name,
            redirect,
            bare,
            ours,
        });
    }
    Ok(costs)
}

/// Two cables, the offload between them, and packets that it relays from one to the other.
struct Bench {
    offload: Offload,
    ingress: u32,
    egress: u32,
    /// What they are, by how much they grow, and how they arrive.
    frames: Vec<(&'static str, i32, Vec<u8>)>,
    _end: OwnedFd,
    _namespace: Namespace,
}

impl Bench {
    fn new() -> io::Result<Bench> {
        let namespace = Namespace::new()?;
        for name in ["in", "out"] {
            ip(&format!("link add {name}0 type veth peer name {name}1"))?;
            ip(&format!("link set {name}0 up"))?;
            ip(&format!("link set {name}1 up"))?;
        }
        ip("addr add 198.18.2.1/24 dev out0")?;
        ip("addr add 2001:2:0:2::1/64 dev out0 nodad")?;
        ip("neigh add 198.18.2.2 lladdr 2:0:0:0:0:2 dev out0")?;
        ip("neigh add 2001:2:0:2::2 lladdr 2:0:0:0:0:2 dev out0")?;
        let mut bench = Bench {
            offload: Offload::start(settings()).map_err(io::Error::other)?,
            ingress: sys::ifindex("in0")?,
            egress: sys::ifindex("out0")?,
            frames: Vec::new(),
            _end: end_of_cable("out1", XDP_DROP)?,
            _namespace: namespace,
        };
        bench.fill()?;
        Ok(bench)
    }

    /// Installs Channels, and makes the frames that belong to some of them.
    fn fill(&mut self) -> io::Result<()> {
        // Everyone's way leads through one interface, clients' and peers'.
        let address = |host: &str, port: u16| -> SocketAddr {
            let ip = host.parse().expect("addresses below are well formed");
            SocketAddr::new(ip, port)
        };
        let v4 = ("198.18.2.1", "198.18.2.2");
        let v6 = ("2001:2:0:2::1", "2001:2:0:2::2");
        let quota = self.offload.add_quota(Quota {
            bits_per_second: 1 << 50,
            packets_per_second: 0,
        });
        let binding = |(own, other): (&str, &str), number: u16, quota| Binding {
            client: address(other, 5000),
            server: address(own, 3478),
            relayed: address(own, 50_000 + number),
            peer: address(other, 5000),
            channel: 0x4000 + number,
            quotas: [None, quota],
        };
        let to_peer = |binding: &Binding, len| {
            let data = channel_data(binding.channel, &vec![7; len], &[]);
            Frame::new(binding.client, binding.server, &data).to_bytes()
        };
        let to_client = |binding: &Binding, len| {
            Frame::new(binding.peer, binding.relayed, &vec![7; len]).to_bytes()
        };
        let [over_v4, over_v6] = [binding(v4, 0, None), binding(v6, 0, None)];
        let with_quota = binding(v4, 1, quota);
        self.frames = vec![
            ("to the peer, IPv4, 160 bytes", -4, to_peer(&over_v4, 160)),
            (
                "to the client, IPv4, 160 bytes",
                4,
                to_client(&over_v4, 160),
            ),
            ("to the peer, IPv4, 1200 bytes", -4, to_peer(&over_v4, 1200)),
            ("to the peer, IPv6, 160 bytes", -4, to_peer(&over_v6, 160)),
            (
                "to the client, IPv6, 160 bytes",
                4,
                to_client(&over_v6, 160),
            ),
            (
                "to the peer, IPv4, with a quota",
                -4,
                to_peer(&with_quota, 160),
            ),
        ];
        let others = (0..OTHERS).map(|number| {
            let other = address("203.0.113.9", number + 1024);
            Binding {
                client: other,
                peer: other,
                ..over_v4
            }
        });
        let until = Instant::now() + Duration::from_secs(3600);
        let lifetimes = Lifetimes {
            to_peer: until,
            to_client: until,
        };
        for binding in [over_v4, over_v6, with_quota].into_iter().chain(others) {
            let installed = self.offload.install(binding, lifetimes);
            // However long the rounds take, no packet is to go the kernel's way for the neighbour.
            for number in installed.map_err(io::Error::other)?.flows {
                let confirm = self.offload.word(number, flow::CONFIRM);
                confirm.store(u64::MAX, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// How many packets were relayed so far.
    fn relayed(&self) -> io::Result<u64> {
        let causes = self.offload.causes()?;
        Ok(causes[Cause::ToPeer.index()] + causes[Cause::ToClient.index()])
    }
}

/// A program that does nothing but send every frame through `ifindex`.
fn redirect(ifindex: u32) -> Result<Program, AssembleError> {
    let mut a = Assembler::new();
    a.load_map(R1, MAP_DEVICES);
    a.mov(R2, ifindex.cast_signed());
    a.mov(R3, 0);
    a.call(Helper::RedirectMap);
    a.exit();
    a.finish()
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
    let word = frame[at..]
        .first_chunk()
        .expect("words end within the headers");
    let word = i64::from_ne_bytes(*word);
    let low = word as i32;
    a.mov(R4, ((word - i64::from(low)) >> 32) as i32);
    a.shl(R4, 32);
    a.add(R4, low);
    a.store(Width::U64, R2, at as i16, R4);
}

/// The least a relay can do: find the packet's addresses in a map, move the frame's start by
/// `growth` bytes and write headers that are known beforehand. It checks and counts nothing.
fn bare_relay(frame: &[u8], growth: i32, egress: u32) -> Result<Program, AssembleError> {
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
    a.finish()
}

/// The offload's own program, over frames made what they were.
fn relay(frame: &[u8]) -> Result<Program, AssembleError> {
    let mut a = Assembler::new();
    restore(&mut a, frame);
    program::append(a, &settings().relay_ports)
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
    Duration::new(time.tv_sec.unsigned_abs(), 0) + Duration::from_nanos(time.tv_nsec.unsigned_abs())
}

/// Nanoseconds of work for each frame. A signal breaks a run off; then it begins anew.
fn cost(program: &OwnedFd, frame: &[u8], ingress: u32, frames: u32) -> io::Result<f64> {
    loop {
        let before = worked();
        match test_run::live(program, frame, ingress, frames) {
            Ok(()) => return Ok((worked() - before).as_nanos() as f64 / f64::from(frames)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
