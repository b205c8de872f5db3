//! Calls through the gateway's media engine or the floor, and those who speak at both of their ends.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use gateway_media::codec::{Decoder, frame_len};
use gateway_media::opus::SAMPLES_MAX;
use gateway_service::media::{Engine, Settings};
use gateway_service::{Event, LegId, Sound, To};
use gateway_sip::negotiate::Codec;
use model::TrackId;
use model::plain::{self, End, PAYLOAD_LEN_MAX};
use sfu_rtp::packet::Packet;
use sfu_rtp::{DatagramKind, classify};
use tokio::sync::mpsc;

use super::codecs::agreed;
use super::floor::{self, Floor};
use super::{FRAME, speech};

pub(super) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long calls go on before they are measured.
const SETTLE: Duration = Duration::from_secs(1);

/// How often those who listen for delays look.
const LOOK: Duration = Duration::from_micros(250);

/// What is louder than this is the signal: half of it.
const LOUD: i16 = 8_000;

/// A wait after which the next signal would be taken for this one.
const DELAY_MAX: Duration = Duration::from_millis(500);

/// What speaks with what.
#[derive(Debug, Clone, Copy)]
pub(super) enum Calls {
    /// A phone with somebody in a Room.
    Room(Codec),
    /// Two phones.
    Joined(Codec),
}

impl Calls {
    /// What the two ways are called, from the first side and to it.
    pub(super) fn ways(self) -> [&'static str; 2] {
        match self {
            Self::Room(_) => ["phone to Room", "Room to phone"],
            Self::Joined(_) => ["phone to phone", "and back"],
        }
    }

    fn codec(self) -> Codec {
        match self {
            Self::Room(codec) | Self::Joined(codec) => codec,
        }
    }
}

/// What carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Gateway,
    Floor,
}

/// What a round came to.
pub(super) struct Outcome {
    /// Processor time for 20 ms of a call, both ways, in seconds.
    pub(super) per_frame: f64,
    /// The share of frames that were not heard.
    pub(super) late: f64,
}

/// Calls that are up, and both sides of each in turn.
struct World {
    phones: UdpSocket,
    codec: Codec,
    sides: Vec<Side>,
    side_by_port: HashMap<u16, usize>,
    carried_by: CarriedBy,
}

/// Kept until the calls are over.
enum CarriedBy {
    Gateway {
        _engine: Box<Engine>,
        _events: mpsc::Receiver<Event>,
    },
    Floor {
        _floor: Floor,
    },
}

enum Side {
    Phone(u16),
    Room(Box<End>),
}

impl World {
    fn new(calls: Calls, carrier: Carrier, count: u16) -> anyhow::Result<Self> {
        let phones = UdpSocket::bind((HERE, 0))?;
        phones.set_nonblocking(true)?;
        let remote = phones.local_addr()?;
        let (sides, carried_by) = match carrier {
            Carrier::Floor => {
                let (floor, ports) = Floor::start(count, remote)?;
                let sides = ports.into_iter().map(Side::Phone).collect();
                (sides, CarriedBy::Floor { _floor: floor })
            }
            Carrier::Gateway => through_engine(calls, count, remote)?,
        };
        let ports = sides
            .iter()
            .enumerate()
            .filter_map(|(at, side)| match side {
                Side::Phone(port) => Some((*port, at)),
                Side::Room(_) => None,
            });
        Ok(Self {
            side_by_port: ports.collect(),
            phones,
            codec: calls.codec(),
            sides,
            carried_by,
        })
    }

    /// The thread whose processor time is asked for.
    fn thread(&self) -> &'static str {
        match self.carried_by {
            CarriedBy::Gateway { .. } => "media-0",
            CarriedBy::Floor { .. } => floor::NAME,
        }
    }

    /// Each side says its packet of this number.
    fn say(&mut self, number: u64, phones_say: &[Vec<u8>], rooms_say: &[Vec<u8>]) {
        for (at, side) in (0_u32..).zip(&mut self.sides) {
            // Each says something else, or the same at other times.
            let place = number + u64::from(at) * 7;
            match side {
                Side::Phone(port) => {
                    let payload = speech::at(phones_say, place);
                    let packet = speech::packet(self.codec, at, number, payload);
                    // What a socket has no room for is missed, and seen in the counts.
                    self.phones.send_to(&packet, (HERE, *port)).ok();
                }
                Side::Room(end) => {
                    let payload = speech::at(rooms_say, place);
                    end.send(&speech::header(number), payload).ok();
                }
            }
        }
    }

    /// Gives `heard` what came, by the side that hears it.
    fn hear(&mut self, mut heard: impl FnMut(usize, &[u8])) {
        let mut datagram = [0; 1_500];
        while let Ok((len, from)) = self.phones.recv_from(&mut datagram) {
            let bytes = &datagram[..len];
            if classify(bytes) == Some(DatagramKind::Rtp)
                && let Some(side) = self.side_by_port.get(&from.port())
                && let Ok(packet) = Packet::parse(bytes)
            {
                heard(*side, packet.payload());
            }
        }
        let mut payload = [0; PAYLOAD_LEN_MAX];
        for (at, side) in self.sides.iter_mut().enumerate() {
            if let Side::Room(end) = side {
                while let Some((_, len)) = end.receive(&mut payload) {
                    heard(at, &payload[..len]);
                }
            }
        }
    }
}

fn through_engine(
    calls: Calls,
    count: u16,
    remote: SocketAddr,
) -> anyhow::Result<(Vec<Side>, CarriedBy)> {
    // Nobody presses a key or falls silent here.
    let (events, heard) = mpsc::channel(1_024);
    let settings = Settings {
        port_min: 20_000,
        port_max: 29_999,
        threads: 1,
        silent_after: Duration::from_secs(60),
    };
    let mut engine = Engine::start(settings, &events)?;
    let agreed = agreed(calls.codec(), remote);
    let mut sides = Vec::new();
    for call in 0..u64::from(count) {
        let legs = [LegId(call * 2), LegId(call * 2 + 1)];
        let mut open = |leg| {
            let port = engine.open(leg, HERE)?;
            engine.agree(leg, &agreed);
            anyhow::Ok(Side::Phone(port))
        };
        match calls {
            Calls::Room(_) => {
                sides.push(open(legs[0])?);
                let (room, end) = plain::pair(Waker::noop().clone());
                engine.connect(legs[0], To::Room(Box::new(end), TrackId::from_u128(1)));
                sides.push(Side::Room(Box::new(room)));
            }
            Calls::Joined(_) => {
                for leg in legs {
                    sides.push(open(leg)?);
                }
                engine.connect(legs[0], To::Leg(legs[1]));
                engine.connect(legs[1], To::Leg(legs[0]));
            }
        }
    }
    let carried_by = CarriedBy::Gateway {
        _engine: Box::new(engine),
        _events: heard,
    };
    Ok((sides, carried_by))
}

/// Many calls with speech both ways, for so long.
pub(super) fn load(
    calls: Calls,
    carrier: Carrier,
    count: u16,
    time: Duration,
) -> anyhow::Result<Outcome> {
    let mut world = World::new(calls, carrier, count)?;
    let thread_name = world.thread();
    let phones_say = speech::packets(calls.codec())?;
    let rooms_say = speech::opus(48_000)?;
    let is_over = Arc::new(AtomicBool::new(false));
    let playing = thread::spawn({
        let is_over = is_over.clone();
        move || {
            let (mut frames, mut heard) = (0, 0_u64);
            let mut next = Instant::now();
            while !is_over.load(Ordering::Relaxed) {
                world.say(frames, &phones_say, &rooms_say);
                next += FRAME;
                if let Some(wait) = next.checked_duration_since(Instant::now()) {
                    thread::sleep(wait);
                }
                world.hear(|_, _| heard += 1);
                frames += 1;
            }
            (frames, heard)
        }
    });
    thread::sleep(SETTLE);
    let (began, before) = (Instant::now(), busy(thread_name)?);
    thread::sleep(time);
    let (passed, spent) = (began.elapsed(), busy(thread_name)?.saturating_sub(before));
    is_over.store(true, Ordering::Relaxed);
    let Ok((frames, heard)) = playing.join() else {
        bail!("those who speak have panicked");
    };
    let wanted = u64::from(count) * 2 * frames;
    let frames = passed.as_secs_f64() / FRAME.as_secs_f64() * f64::from(count);
    Ok(Outcome {
        per_frame: spent.as_secs_f64() / frames,
        // A frame that was under way at the end may be one more.
        late: (1.0 - heard as f64 / wanted as f64).max(0.0),
    })
}

/// How much later sound is heard at the other side, from the first side of calls and to it.
pub(super) fn delays(
    calls: Calls,
    count: u16,
    time: Duration,
) -> anyhow::Result<[Vec<Duration>; 2]> {
    let mut world = World::new(calls, Carrier::Gateway, count)?;
    let phones_say = speech::signals(calls.codec())?;
    let rooms_say = speech::signals(Codec::Opus)?;
    let mut listeners = Vec::new();
    for side in &world.sides {
        let codec = match side {
            Side::Phone(_) => calls.codec(),
            Side::Room(_) => Codec::Opus,
        };
        listeners.push(Listener::new(codec)?);
    }
    let mut delays = [Vec::new(), Vec::new()];
    let (began, mut next) = (Instant::now(), Instant::now());
    let mut frames = 0;
    while began.elapsed() < SETTLE + time {
        if next <= Instant::now() {
            next += FRAME;
            world.say(frames, &phones_say, &rooms_say);
            let now = Instant::now();
            for at in 0..listeners.len() {
                let place = frames + at as u64 * 7;
                if place % speech::SIGNAL_FRAMES == speech::SIGNAL_AT {
                    listeners[at ^ 1].said_at = Some(now);
                }
            }
            frames += 1;
        }
        world.hear(|side, payload| {
            if let Some(delay) = listeners[side].hear(payload)
                && began.elapsed() > SETTLE
                && delay < DELAY_MAX
            {
                // The first side of a call hears what comes back.
                delays[1 - side % 2].push(delay);
            }
        });
        thread::sleep(LOOK);
    }
    Ok(delays)
}

/// Waits for the signal.
struct Listener {
    codec: Codec,
    decoder: Decoder,
    said_at: Option<Instant>,
}

impl Listener {
    fn new(codec: Codec) -> anyhow::Result<Self> {
        Ok(Self {
            codec,
            decoder: Decoder::new(codec).context("no such codec")?,
            said_at: None,
        })
    }

    /// How much later than it was said the signal is in this packet.
    fn hear(&mut self, payload: &[u8]) -> Option<Duration> {
        let mut samples = [0; SAMPLES_MAX];
        let made = self.decoder.decode(payload, &mut samples);
        let said_at = self.said_at?;
        let is_loud = |sample: &i16| sample.saturating_abs() > LOUD;
        let at = samples[..made].iter().position(is_loud)?;
        self.said_at = None;
        let share = at as f64 / frame_len(self.codec.sample_rate()) as f64;
        Some(said_at.elapsed() + FRAME.mul_f64(share))
    }
}

/// The processor time of a thread of this process so far.
fn busy(name: &str) -> anyhow::Result<Duration> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == name {
            let text = std::fs::read_to_string(task.join("schedstat"))?;
            let nanos = text.split(' ').next().context("no schedstat")?;
            return Ok(Duration::from_nanos(nanos.parse()?));
        }
    }
    bail!("no thread is called {name}")
}
