//! The path of a packet through the server, in this process and on one thread: what comes in once goes out to 50 subscribers.
//!
//! | row | what is timed, by the thread's processor time |
//! | --- | --- |
//! | rewrite | ours without a socket: fan-out, rewriting and sealing (AES-256-GCM) |
//! | path | ours with pacing, estimation, feedback and one call for each subscriber and burst (GSO), beside str0m's RTP mode (no estimation, no pacing) with a call for each packet. The floor is that call alone |
//!
//! Time is simulated: a burst is a frame of 1.2 Mbit/s and comes 40 ms after the one before. Receivers drop what they get in a
//! filter of the kernel, so that nobody's full buffer counts.

mod ours;
mod theirs;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockFilter, Type};

use self::ours::Ours;
use self::theirs::Theirs;
use super::media::{Camera, FRAME_INTERVAL};
use crate::report::Target;
use crate::socket::Socket;
use crate::table::{Details, Measure, Row, median, row};

/// To how many each packet goes.
const SUBSCRIBERS: usize = 50;

/// Bytes of a packet's payload: the whole comes to 1200 with a header and the extensions of a browser.
const PAYLOAD_LEN: usize = 1176;

/// Bursts before anything is timed: 20 s of media, in which the bandwidth estimates grow.
const BURSTS_WARM_UP: u32 = 500;

/// How much simulated time passes before the first burst, in which connections come about.
const CONNECT: Duration = Duration::from_secs(10);

/// Bytes of a packet with its SRTP tag.
const SEALED_LEN: usize = 1216;

/// Sockets that take everything and keep nothing.
struct Sinks {
    addresses: Vec<SocketAddr>,
    _sockets: Vec<socket2::Socket>,
}

impl Sinks {
    fn open(count: usize) -> anyhow::Result<Self> {
        const DROP_ALL: SockFilter = SockFilter::new(0x06, 0, 0, 0); // BPF_RET: keep no byte.

        let mut sinks = Self {
            addresses: Vec::new(),
            _sockets: Vec::new(),
        };
        for _ in 0..count {
            let socket = socket2::Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket.attach_filter(&[DROP_ALL])?;
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
            let address = socket.local_addr()?.as_socket();
            sinks.addresses.push(address.context("not an address")?);
            sinks._sockets.push(socket);
        }
        Ok(sinks)
    }
}

/// Frames as a publisher sends them.
pub(super) struct Source {
    camera: Camera,
    now: Instant,
    sequence: u64,
    timestamp: u32,
}

/// A packet before it has a header.
pub(super) struct Plain {
    sequence: u64,
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

impl Source {
    fn new(start: Instant) -> Self {
        Self {
            camera: Camera::new(PAYLOAD_LEN),
            now: start + CONNECT,
            sequence: 1000,
            timestamp: 0,
        }
    }

    fn burst(&mut self) -> (Instant, Vec<Plain>) {
        self.now += FRAME_INTERVAL;
        self.timestamp = self.timestamp.wrapping_add(90 * 40);
        let count = self.camera.next_frame(self.now);
        let packet = |at| {
            self.sequence += 1;
            Plain {
                sequence: self.sequence,
                timestamp: self.timestamp,
                marker: at + 1 == count,
                payload: self.camera.payload(at),
            }
        };
        (self.now, (0..count).map(packet).collect())
    }
}

/// Processor time of this thread so far.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// What one round of one contender came to: nanoseconds a packet.
fn per_packet(spent: Duration, packets: u64) -> anyhow::Result<f64> {
    anyhow::ensure!(packets > 0, "nothing was sent");
    Ok(spent.as_secs_f64() * 1e9 / packets as f64)
}

/// Measures both rows: so many rounds, each of so many bursts.
pub(super) fn measure(rounds: usize, bursts: u32) -> anyhow::Result<[Row; 2]> {
    let sinks = Sinks::open(SUBSCRIBERS)?;
    let socket = Socket::bind(([127, 0, 0, 1], 0).into(), false)?;
    let start = Instant::now();

    let mut rewriting = (Ours::new(start, &sinks.addresses)?, Source::new(start));
    let mut sending = (Ours::new(start, &sinks.addresses)?, Source::new(start));
    let mut theirs = (Theirs::new(start, &sinks.addresses)?, Source::new(start));
    for _ in 0..BURSTS_WARM_UP {
        rewriting.0.rewrite(&mut rewriting.1)?;
        sending.0.send(&mut sending.1, &socket)?;
        theirs.0.send(&mut theirs.1, &socket)?;
    }

    let mut rewrite = vec![Vec::new(); 3];
    let mut path = vec![Vec::new(); 3];
    let mut calls = Vec::new();
    for _ in 0..rounds {
        let many = |burst: &mut dyn FnMut() -> anyhow::Result<(Duration, u64)>| {
            let (mut spent, mut packets) = (Duration::ZERO, 0);
            for _ in 0..bursts {
                let (time, count) = burst()?;
                spent += time;
                packets += count;
            }
            per_packet(spent, packets)
        };
        rewrite[0].push(many(&mut || rewriting.0.rewrite(&mut rewriting.1)).context("rewrite")?);
        let calls_before = sending.0.calls;
        let packets_before = sending.0.packets;
        path[0].push(many(&mut || sending.0.send(&mut sending.1, &socket)).context("ours")?);
        path[1].push(many(&mut || theirs.0.send(&mut theirs.1, &socket)).context("theirs")?);
        path[2].push(many(&mut || bare(&sinks, &socket))?);
        let packets = sending.0.packets - packets_before;
        calls.push(packets as f64 / (sending.0.calls - calls_before).max(1) as f64);
    }

    let per_call = format!("ours: {:.1} packets a call", median(&calls));
    let rewrite_details = Details {
        unit: "ns a packet",
        targets: vec![(Measure::Itself, Target::AtMost(300.0))],
        ..Details::default()
    };
    let path_details = Details {
        unit: "ns a packet",
        targets: vec![(Measure::ToTheirs, Target::AtMost(0.40))],
        remarks: vec![per_call, "theirs: str0m".to_owned()],
        ..Details::default()
    };
    Ok([
        row("rewrite", &rewrite, rewrite_details),
        row("path", &path, path_details),
    ])
}

/// The floor: as many packets of the same length, with nothing done to them.
fn bare(sinks: &Sinks, socket: &Socket) -> anyhow::Result<(Duration, u64)> {
    let packet = [0; SEALED_LEN];
    let before = processor_time()?;
    let mut packets = 0;
    for _ in 0..super::media::FRAME_PACKETS {
        for to in &sinks.addresses {
            socket.plain().send_to(&packet, to)?;
            packets += 1;
        }
    }
    Ok((processor_time()? - before, packets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_every_packet_of_both_contenders() {
        let sinks = Sinks::open(3).unwrap();
        let socket = Socket::bind(([127, 0, 0, 1], 0).into(), false).unwrap();
        let start = Instant::now();
        let mut ours = (
            Ours::new(start, &sinks.addresses).unwrap(),
            Source::new(start),
        );
        let mut theirs = (
            Theirs::new(start, &sinks.addresses).unwrap(),
            Source::new(start),
        );
        for _ in 0..BURSTS_WARM_UP {
            ours.0.send(&mut ours.1, &socket).unwrap();
            theirs.0.send(&mut theirs.1, &socket).unwrap();
        }
        let (mut sent, mut passed) = (0, 0);
        for _ in 0..100 {
            sent += ours.0.send(&mut ours.1, &socket).unwrap().1;
            passed += theirs.0.send(&mut theirs.1, &socket).unwrap().1;
        }
        assert_eq!(passed, 100 * 5 * 3);
        // The end of a burst may wait for the next.
        assert!((1485..=1515).contains(&sent), "{sent}");
    }
}
