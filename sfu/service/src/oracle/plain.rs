//! The plainest forwarder there is, on the library's RTP path: in comes what the library opens and reads, out goes what it writes, seals
//! and sends again. Numbers are given one by one and remembered one by one, however many there are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sfu_core::Layer;
use str0m::rtp::{RtpPacket, RtpWrite, SeqNo};

use super::ends::{Ends, Sender};
use super::{Forwarder, Leg, Made, SEQUENCE, SUBSCRIBERS, TIMESTAMP, ssrc_of_encoding};

/// A connection of the library for everybody.
pub(super) struct Plain {
    /// The publisher's, of which the client's end belongs to the test.
    publisher: Ends,
    encodings: Vec<Encoding>,
    subscribers: Vec<Subscriber>,
}

struct Encoding {
    ssrc: u32,
    newest: Option<u64>,
    newest_timestamp: Option<u32>,
}

struct Subscriber {
    leg: Leg,
    numbers: Numbers,
}

/// What one subscriber is sent, and under which numbers.
struct Numbers {
    wanted: Option<Layer>,
    /// The encoding that goes out.
    current: Option<u8>,
    /// The encoding that went out last.
    last: Option<u8>,
    /// The temporal layers of it that go out.
    temporal: u8,
    next: u64,
    newest_in: u64,
    /// Numbers of packets that have not come, with the temporal layers that were wanted at their time.
    free: BTreeMap<u64, (u64, u8)>,
    timestamp: u32,
    timestamp_at: Option<Instant>,
    timestamp_offset: u32,
}

impl Plain {
    pub(super) fn new(now: Instant, mut publisher: Ends) -> Self {
        let encodings = (0..publisher.mids.len()).map(|encoding| Encoding {
            ssrc: ssrc_of_encoding(&mut publisher, encoding),
            newest: None,
            newest_timestamp: None,
        });
        let encodings = encodings.collect();
        let subscriber = |_| {
            let (mut ends, _) = Ends::connect(now, Sender::Server, 1);
            let (ssrc, _) = ends.server_ssrcs();
            Subscriber {
                leg: Leg::new(ends, ssrc),
                numbers: Numbers::new(),
            }
        };
        Self {
            publisher,
            encodings,
            subscribers: (0..SUBSCRIBERS).map(subscriber).collect(),
        }
    }

    fn forward(&mut self, now: Instant, packet: &RtpPacket) {
        let at = self
            .encodings
            .iter()
            .position(|encoding| encoding.ssrc == *packet.header.ssrc)
            .unwrap();
        let (encoding, sequence) = (&mut self.encodings[at], *packet.seq_no);
        let is_newest = encoding.newest.is_none_or(|newest| sequence > newest);
        let mut starts_picture = false;
        if is_newest {
            encoding.newest = Some(sequence);
            let before = encoding.newest_timestamp.replace(packet.header.timestamp);
            starts_picture = before != Some(packet.header.timestamp);
        }

        let made = Made::of(&packet.payload);
        let arrived = Arrived {
            encoding: u8::try_from(at).unwrap(),
            sequence,
            timestamp: packet.header.timestamp,
            is_newest,
            starts_picture,
            made,
        };
        for subscriber in &mut self.subscribers {
            let Some((number, timestamp)) = subscriber.numbers.of(now, &arrived) else {
                continue;
            };
            let ends = &mut subscriber.leg.ends;
            let payload = packet.payload.clone();
            let number = SeqNo::from(number);
            let write = RtpWrite::new(ends.payload_type, number, timestamp, now, payload)
                .marker(packet.header.marker)
                .ext_vals(packet.header.ext_vals.clone())
                .nackable(true);
            let mut direct = ends.server.rtc.direct_api();
            direct
                .stream_tx_by_mid(ends.mids[0], None)
                .unwrap()
                .write_rtp(write);
            ends.server.pass(now);
            subscriber.leg.depart(now);
        }
    }
}

impl Forwarder for Plain {
    fn want(&mut self, _now: Instant, subscriber: usize, layer: Option<Layer>) {
        self.subscribers[subscriber].numbers.wanted = layer;
    }

    fn lose(&mut self, subscriber: usize, lost: &[usize]) {
        self.subscribers[subscriber].leg.lose(lost);
    }

    fn handle(&mut self, now: Instant, datagram: &[u8]) {
        self.publisher.server_hears(now, datagram);
        for packet in std::mem::take(&mut self.publisher.server.received) {
            self.forward(now, &packet);
        }
    }

    fn pass(&mut self, now: Instant) {
        self.publisher.pass(now);
        self.publisher.server.media.clear();
        for subscriber in &mut self.subscribers {
            for said in subscriber.leg.pass(now) {
                subscriber.leg.ends.server_hears(now, &said);
            }
            // What is asked for leaves with time.
            subscriber.leg.ends.server.pass(now);
            subscriber.leg.depart(now);
        }
    }

    fn leg(&self, subscriber: usize) -> &Leg {
        &self.subscribers[subscriber].leg
    }
}

impl Plain {
    /// The publisher's client sends; what it says leaves here.
    pub(super) fn publisher(&mut self) -> &mut Ends {
        &mut self.publisher
    }
}

/// A packet, as all subscribers see it.
struct Arrived {
    encoding: u8,
    sequence: u64,
    timestamp: u32,
    is_newest: bool,
    starts_picture: bool,
    made: Made,
}

impl Numbers {
    fn new() -> Self {
        Self {
            wanted: Some(Layer {
                encoding: 0,
                spatial: u8::MAX,
                temporal: u8::MAX,
            }),
            current: None,
            last: None,
            temporal: 0,
            next: u64::from(SEQUENCE),
            newest_in: 0,
            free: BTreeMap::new(),
            timestamp: TIMESTAMP,
            timestamp_at: None,
            timestamp_offset: 0,
        }
    }

    /// The number and timestamp under which a packet leaves, if it does.
    fn of(&mut self, now: Instant, arrived: &Arrived) -> Option<(u64, u32)> {
        let is_current = self.current == Some(arrived.encoding);
        if !arrived.is_newest {
            // Its number was left for it, and it was wanted then.
            let (number, temporal) = is_current
                .then(|| self.free.remove(&arrived.sequence))
                .flatten()?;
            let is_wanted = arrived.made.temporal <= temporal;
            return is_wanted.then(|| (number, self.stamp(arrived)));
        }

        let temporal_before = self.temporal;
        let ends = arrived.starts_picture && self.wanted.is_none();
        if is_current && ends {
            self.current = None;
            return None;
        }
        if is_current {
            self.follow(arrived);
        } else if self.begins(arrived) {
            self.begin(now, arrived);
        } else {
            return None;
        }

        for missing in self.newest_in + 1..arrived.sequence {
            self.free.insert(missing, (self.next, temporal_before));
            self.next += 1;
        }
        self.newest_in = arrived.sequence;
        if arrived.made.temporal > self.temporal {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.timestamp_at = Some(now);
        Some((number, self.stamp(arrived)))
    }

    /// Another encoding takes over with a key frame of what is wanted, or of less than that while there is nothing.
    fn begins(&self, arrived: &Arrived) -> bool {
        self.wanted.is_some_and(|wanted| {
            let fits = arrived.encoding == wanted.encoding
                || (self.current.is_none() && arrived.encoding < wanted.encoding);
            fits && arrived.made.starts_key_frame()
        })
    }

    fn begin(&mut self, now: Instant, arrived: &Arrived) {
        self.current = Some(arrived.encoding);
        self.temporal = self.wanted.map_or(0, |wanted| wanted.temporal);
        self.newest_in = arrived.sequence - 1;
        self.free.clear();
        // An encoding that comes again goes on in its own time, another as long after the last packet as the clock says.
        if self.last.replace(arrived.encoding) == Some(arrived.encoding) {
            return;
        }
        let next = self.timestamp_at.map_or(self.timestamp, |at| {
            self.timestamp.wrapping_add(ticks(now - at).max(1))
        });
        self.timestamp_offset = next.wrapping_sub(arrived.timestamp);
    }

    /// Fewer temporal layers from any picture on, more from one on that refers to none of those left out.
    fn follow(&mut self, arrived: &Arrived) {
        let Some(wanted) = self.wanted else {
            return;
        };
        let goal = match arrived.encoding.cmp(&wanted.encoding) {
            std::cmp::Ordering::Equal => wanted.temporal,
            std::cmp::Ordering::Greater => 0,
            std::cmp::Ordering::Less => return,
        };
        let made = &arrived.made;
        if made.starts_key_frame() {
            self.temporal = goal;
        } else if made.part == 0 {
            self.temporal = self.temporal.min(goal);
            if made.is_sync && made.temporal <= goal {
                self.temporal = self.temporal.max(made.temporal);
            }
        }
    }

    fn stamp(&mut self, arrived: &Arrived) -> u32 {
        let timestamp = arrived.timestamp.wrapping_add(self.timestamp_offset);
        if timestamp.wrapping_sub(self.timestamp).cast_signed() > 0 {
            self.timestamp = timestamp;
        }
        timestamp
    }
}

fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros() * 90_000 / 1_000_000).unwrap()
}
