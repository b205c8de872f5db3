//! The same packets of a publisher and the same Layer decisions, through our path and through one that does the same in the plainest way
//! on the library's own RTP path: what arrives at the subscribers is the same.
//!
//! ```text
//!                      ┌─▶ Ours:  open ─ sfu_core::Room ─ seal ─▶ client of a subscriber
//! publisher's client ──┤                                              ▲ compared
//!                      └─▶ Plain: the library ─ numbers ─ library ─▶ client of a subscriber
//! ```
//!
//! All clients are the library's: what it can't open, or takes for something else, is missing there. The way to the server loses,
//! doubles and delays; the way to a subscriber loses, and clients ask again for what they miss.

mod ends;
mod ours;
mod plain;

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sfu_core::Layer;
use sfu_rtp::payload::vp8;
use str0m::rtp::{ExtensionValues, RtpWrite, SeqNo, VideoOrientation};

use self::ends::{Ends, Sender, has_padding, ssrc};
use self::ours::Ours;
use self::plain::Plain;

/// Subscribers of a run, and encodings of its camera.
const SUBSCRIBERS: usize = 2;
const ENCODINGS: usize = 3;

/// What streams to subscribers begin with.
const SEQUENCE: u16 = 1000;
const TIMESTAMP: u32 = 5000;

/// 30 pictures a second.
const TICK: Duration = Duration::from_millis(33);
const TICK_STEP: u32 = 2970;

/// How long clients may take to ask for the last they miss, and to get it.
const SETTLE: Duration = Duration::from_millis(1500);

/// Bytes of a descriptor of [`payload`]; numbers in it are of each leg.
const DESCRIPTOR_LEN: usize = 6;

/// A way of forwarding a camera to subscribers.
trait Forwarder {
    /// A subscriber is to be sent this Layer from now on, or nothing.
    fn want(&mut self, now: Instant, subscriber: usize, layer: Option<Layer>);

    /// Of a subscriber's packets of media, in the order in which they leave, these do not arrive when they are first sent.
    fn lose(&mut self, subscriber: usize, lost: &[usize]);

    /// A datagram of the publisher arrives, and what it becomes leaves.
    fn handle(&mut self, now: Instant, datagram: &[u8]);

    /// Time passes, in which subscribers say what they miss.
    fn pass(&mut self, now: Instant);

    /// The way to a subscriber, and what has arrived there.
    fn leg(&self, subscriber: usize) -> &Leg;
}

/// A packet as a subscriber's client has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    sequence: u64,
    timestamp: u32,
    marker: bool,
    orientation: Option<u8>,
    /// Behind the descriptor.
    payload: Vec<u8>,
    /// The picture id: of our leg the next one, of the plain one the publisher's.
    picture_id: u16,
}

/// The way to a subscriber.
struct Leg {
    ends: Ends,
    ssrc: u32,
    /// The numbers of all packets of media that have left for the first time.
    left: Vec<u16>,
    lost: BTreeSet<usize>,
}

impl Leg {
    fn new(ends: Ends, ssrc: u32) -> Self {
        Self {
            ends,
            ssrc,
            left: Vec::new(),
            lost: BTreeSet::new(),
        }
    }

    fn lose(&mut self, lost: &[usize]) {
        self.lost.extend(lost);
    }

    /// A datagram leaves for the subscriber.
    fn deliver(&mut self, now: Instant, datagram: &[u8]) {
        // What only fills a gap is not media.
        if ssrc(datagram) == Some(self.ssrc) && !has_padding(datagram) {
            self.left
                .push(u16::from_be_bytes([datagram[2], datagram[3]]));
            if self.lost.contains(&(self.left.len() - 1)) {
                return;
            }
        }
        self.ends.client_hears(now, datagram);
    }

    /// What the server's end of the library sends leaves.
    fn depart(&mut self, now: Instant) {
        for datagram in std::mem::take(&mut self.ends.server.media) {
            self.deliver(now, &datagram);
        }
    }

    /// Lets time pass, and gives what the client says about media.
    fn pass(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.ends.pass(now);
        std::mem::take(&mut self.ends.client.media)
    }

    /// What has arrived, by its numbers, up to the newest that was not lost: what was lost behind it a client can't miss, unless an empty
    /// packet tells.
    fn received(&self) -> Vec<Got> {
        let arrived = self.left.iter().zip(0..);
        let arrived = arrived.filter(|(_, at)| !self.lost.contains(at));
        let newest = arrived.map(|(number, _)| u64::from(*number)).max();
        let packets = self.ends.client.received.iter();
        let with_payload = packets.filter(|packet| !packet.payload.is_empty());
        let got = with_payload.map(|packet| {
            let descriptor = vp8::Descriptor::parse(&packet.payload).unwrap();
            let orientation = packet.header.ext_vals.video_orientation;
            Got {
                sequence: *packet.seq_no,
                timestamp: packet.header.timestamp,
                marker: packet.header.marker,
                orientation: orientation.map(|orientation| orientation as u8),
                payload: packet.payload[DESCRIPTOR_LEN..].to_vec(),
                picture_id: descriptor.picture_id.unwrap().value,
            }
        });
        let mut got: Vec<Got> = got.filter(|got| Some(got.sequence) <= newest).collect();
        got.sort_by_key(|got| got.sequence);
        got
    }
}

/// What a packet of the camera is, written at the end of its payload.
#[derive(Debug, Clone, Copy)]
struct Made {
    part: u8,
    temporal: u8,
    is_key: bool,
    /// Refers to pictures of the lowest temporal layer alone.
    is_sync: bool,
}

const MADE_LEN: usize = 9;

impl Made {
    fn of(payload: &[u8]) -> Self {
        let bytes: [u8; MADE_LEN] = payload.last_chunk().copied().unwrap();
        Self {
            part: bytes[5],
            temporal: bytes[6],
            is_key: bytes[7] == 1,
            is_sync: bytes[8] == 1,
        }
    }

    fn starts_key_frame(&self) -> bool {
        self.is_key && self.part == 0
    }
}

/// What a subscriber wants, or a camera does, before a picture.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Nothing,
    Want {
        subscriber: usize,
        encoding: u8,
        temporal: u8,
    },
    Pause(usize),
    KeyFrame(u8),
}

/// What the way to the server does to a packet.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    ArrivesTwice,
    /// After so many pictures.
    Late(usize),
    Lost,
}

#[derive(Clone)]
struct Tick {
    deed: Deed,
    fates: [Fate; 9],
}

/// `Pause(1) .2..x...3`: as short as a failing input has to be to be read.
impl fmt::Debug for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.deed)?;
        self.fates.iter().try_for_each(|fate| match fate {
            Fate::Arrives => f.write_str("."),
            Fate::ArrivesTwice => f.write_str(":"),
            Fate::Late(by) => write!(f, "{by}"),
            Fate::Lost => f.write_str("x"),
        })
    }
}

fn ticks() -> impl Strategy<Value = Vec<Tick>> {
    let deed = prop_oneof![
        8 => Just(Deed::Nothing),
        4 => (0..SUBSCRIBERS, 0_u8..3, 0_u8..4).prop_map(|(subscriber, encoding, temporal)| {
            Deed::Want { subscriber, encoding, temporal }
        }),
        1 => (0..SUBSCRIBERS).prop_map(Deed::Pause),
        3 => (0_u8..3).prop_map(Deed::KeyFrame),
    ];
    let fate = prop_oneof![
        20 => Just(Fate::Arrives),
        1 => Just(Fate::ArrivesTwice),
        1 => (1_usize..4).prop_map(Fate::Late),
        1 => Just(Fate::Lost),
    ];
    let tick =
        (deed, proptest::array::uniform9(fate)).prop_map(|(deed, fates)| Tick { deed, fates });
    proptest::collection::vec(tick, 10..60)
}

/// One encoding of a camera: three temporal layers, pictures of up to three packets.
struct Encoder {
    number: u8,
    sequence: u64,
    picture: u16,
    tl0: u8,
    since_key: u32,
    wants_key: bool,
}

impl Encoder {
    fn new(number: u8) -> Self {
        Self {
            number,
            // Near the end of their range, each.
            sequence: 65_500 + u64::from(number) * 11,
            picture: 32_750 + u16::from(number),
            tl0: 250,
            since_key: 0,
            wants_key: true,
        }
    }

    /// Has the publisher's client send the packets of the next picture.
    fn encode(&mut self, now: Instant, tick: u32, publisher: &mut Ends) {
        let is_key = std::mem::take(&mut self.wants_key);
        if is_key {
            self.since_key = 0;
        }
        // T0 T2 T1 T2: the first T2 and T1 refer to T0 alone.
        let (temporal, is_sync) = match self.since_key % 4 {
            0 => (0, false),
            1 => (2, true),
            2 => (1, true),
            _ => (2, false),
        };
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        self.picture = (self.picture + 1) & 0x7fff;
        self.since_key += 1;

        let count = u8::try_from(1 + tick % 3).unwrap();
        for part in 0..count {
            let made = Made {
                part,
                temporal,
                is_key,
                is_sync,
            };
            let payload = self.payload(tick, made);
            let (mid, payload_type) = (
                publisher.mids[usize::from(self.number)],
                publisher.payload_type,
            );
            let timestamp = tick
                .wrapping_mul(TICK_STEP)
                .wrapping_add(4_294_900_000 + u32::from(self.number));
            let orientation = [VideoOrientation::Deg0, VideoOrientation::Deg90];
            let extensions = ExtensionValues {
                video_orientation: Some(orientation[usize::from(self.number % 2)]),
                ..ExtensionValues::default()
            };
            let number = SeqNo::from(self.sequence);
            let write = RtpWrite::new(payload_type, number, timestamp, now, payload)
                .marker(part + 1 == count)
                .ext_vals(extensions);
            self.sequence += 1;
            let mut direct = publisher.client.rtc.direct_api();
            direct.stream_tx_by_mid(mid, None).unwrap().write_rtp(write);
        }
    }

    /// A VP8 payload with a picture id of 15 bits, temporal layers (RFC 7741 §4.2) and the frame header (RFC 6386 §9.1).
    fn payload(&self, tick: u32, made: Made) -> Vec<u8> {
        let [high, low] = (self.picture | 0x8000).to_be_bytes();
        let mut payload = vec![
            0x80 | u8::from(made.part == 0) << 4,
            0xe0,
            high,
            low,
            self.tl0,
            made.temporal << 6 | u8::from(made.is_sync) << 5,
            u8::from(!made.is_key),
            0,
            0,
        ];
        if made.starts_key_frame() {
            payload.extend_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
        }
        // No two packets have one length and content.
        payload.resize(payload.len() + 20 + usize::from(made.part) * 7, 0xee);
        payload.push(self.number);
        payload.extend_from_slice(&tick.to_be_bytes());
        payload.extend_from_slice(&[
            made.part,
            made.temporal,
            u8::from(made.is_key),
            u8::from(made.is_sync),
        ]);
        payload
    }
}

/// What came of a path for a subscriber.
struct Outcome {
    left: Vec<u16>,
    received: Vec<Got>,
}

/// Sends the pictures of all ticks through both paths.
fn run(ticks: &[Tick], lost: &[Vec<usize>]) -> [Vec<Outcome>; 2] {
    let begun = Instant::now();
    let (mut publisher, now) = Ends::connect(begun, Sender::Client, ENCODINGS);
    let ours = Ours::new(now, &mut publisher);
    let plain = Plain::new(now, publisher);
    let mut paths = Paths { ours, plain };
    let mut encoders: Vec<_> = (0..).take(ENCODINGS).map(Encoder::new).collect();
    for (subscriber, lost) in lost.iter().enumerate() {
        paths.all(|path| path.lose(subscriber, lost));
    }

    let mut now = now + Duration::from_secs(10);
    paths.all(|path| path.pass(now));
    let mut late: Vec<(usize, Vec<u8>)> = Vec::new();
    for (number, tick) in ticks.iter().enumerate() {
        now += TICK;
        match tick.deed {
            Deed::Nothing => {}
            Deed::Want {
                subscriber,
                encoding,
                temporal,
            } => {
                let layer = Layer {
                    encoding,
                    spatial: 0,
                    temporal,
                };
                paths.all(|path| path.want(now, subscriber, Some(layer)));
            }
            Deed::Pause(subscriber) => paths.all(|path| path.want(now, subscriber, None)),
            Deed::KeyFrame(encoding) => encoders[usize::from(encoding)].wants_key = true,
        }

        let mut arriving: Vec<Vec<u8>> = Vec::new();
        late.retain(|(due, datagram)| {
            let is_due = *due <= number;
            if is_due {
                arriving.push(datagram.clone());
            }
            !is_due
        });
        let picture = u32::try_from(number).unwrap();
        let datagrams = paths.encode(now, picture, &mut encoders);
        for (datagram, fate) in datagrams.into_iter().zip(tick.fates) {
            match fate {
                Fate::Arrives => arriving.push(datagram),
                Fate::ArrivesTwice => arriving.extend([datagram.clone(), datagram]),
                Fate::Late(by) => late.push((number + by, datagram)),
                Fate::Lost => {}
            }
        }
        for datagram in arriving {
            paths.all(|path| path.handle(now, &datagram));
        }
        paths.all(|path| path.pass(now));
    }
    let until = now + SETTLE;
    while now < until {
        now += Duration::from_millis(10);
        paths.all(|path| path.pass(now));
    }

    let outcome = |path: &dyn Forwarder, at: usize| Outcome {
        left: path.leg(at).left.clone(),
        received: path.leg(at).received(),
    };
    let outcomes = |path: &dyn Forwarder| (0..SUBSCRIBERS).map(|at| outcome(path, at)).collect();
    [outcomes(&paths.ours), outcomes(&paths.plain)]
}

struct Paths {
    ours: Ours,
    plain: Plain,
}

impl Paths {
    fn all(&mut self, mut deed: impl FnMut(&mut dyn Forwarder)) {
        deed(&mut self.ours);
        deed(&mut self.plain);
    }

    /// The next pictures of the camera, as its client seals them.
    fn encode(&mut self, now: Instant, picture: u32, encoders: &mut [Encoder]) -> Vec<Vec<u8>> {
        let publisher = self.plain.publisher();
        for encoder in encoders {
            encoder.encode(now, picture, publisher);
        }
        publisher.client.pass(now);
        let said = std::mem::take(&mut publisher.client.media);
        said.into_iter()
            .filter(|datagram| ssrc(datagram).is_some())
            .collect()
    }
}

/// The SSRC with which an encoding is sent.
fn ssrc_of_encoding(publisher: &mut Ends, encoding: usize) -> u32 {
    let mid = publisher.mids[encoding];
    let mut direct = publisher.client.rtc.direct_api();
    *direct.stream_tx_by_mid(mid, None).unwrap().ssrc()
}

proptest! {
    // Each case has five handshakes.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn subscribers_get_what_the_plainest_forwarder_would_send_them(
        ticks in ticks(),
        lost in proptest::collection::vec(proptest::collection::vec(0_usize..150, 0..12), SUBSCRIBERS),
    ) {
        let [ours, plain] = run(&ticks, &lost);

        for (ours, plain) in ours.into_iter().zip(plain) {
            prop_assert_eq!(&ours.left, &plain.left, "in the same order under the same numbers");
            let without_ids = |got: &Got| Got { picture_id: 0, ..got.clone() };
            let ours: Vec<_> = ours.received.iter().map(without_ids).collect();
            let plain: Vec<_> = plain.received.iter().map(without_ids).collect();
            prop_assert_eq!(ours, plain, "the same, resends included");
        }
    }
}

#[test]
fn pictures_of_other_encodings_follow_one_another() {
    let want = |encoding| Deed::Want {
        subscriber: 0,
        encoding,
        temporal: u8::MAX,
    };
    let deeds = (0..60).map(|number| match number {
        9 => want(2),
        10 => Deed::KeyFrame(2),
        29 => want(1),
        30 => Deed::KeyFrame(1),
        45 => Deed::Pause(0),
        50 => want(0),
        51 => Deed::KeyFrame(0),
        _ => Deed::Nothing,
    });
    let ticks: Vec<_> = deeds
        .map(|deed| Tick {
            deed,
            fates: [Fate::Arrives; 9],
        })
        .collect();
    let [ours, plain] = run(&ticks, &[vec![3, 20, 21], Vec::new()]);

    let ours = &ours[0].received;
    assert_eq!(ours.len(), plain[0].received.len());
    let mut encodings: Vec<u8> = ours
        .iter()
        .map(|got| got.payload[got.payload.len() - MADE_LEN])
        .collect();
    encodings.dedup();
    assert_eq!(encodings, [0, 2, 1, 0]);
    for (before, after) in ours.iter().zip(&ours[1..]) {
        assert_eq!(after.sequence, before.sequence + 1);
        let is_same = after.timestamp == before.timestamp;
        let ids = after.picture_id.wrapping_sub(before.picture_id) & 0x7fff;
        assert_eq!(ids, u16::from(!is_same), "{before:?} {after:?}");
        let step = after.timestamp.wrapping_sub(before.timestamp);
        assert!(step < 1 << 30, "{before:?} {after:?}");
    }
}
