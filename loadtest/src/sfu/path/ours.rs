//! Our path: what a shard does with a packet, without its socket's input.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use model::room::Source as From;
use sfu_core::downlink::{Downlink, What};
use sfu_core::{
    Acks, Bitrate, Codec, EncodingConfig, Format, Forward, Layer, PACKET_LEN_MAX,
    ParticipantConfig, ParticipantKey, Room, SlotConfig, Stamps, TrackConfig,
};
use sfu_rtp::extension::{ExtensionKind, ExtensionMap};
use sfu_rtp::packet::{FixedHeader, HeaderWriter, Packet};
use sfu_rtp::rtcp::NtpTime;
use sfu_rtp::srtp::{DtlsRole, OVERHEAD_MAX, Outbound, Profile, sessions};

use super::{FRAME_INTERVAL, Source, processor_time};
use crate::socket::Socket;

/// The publisher's SSRC.
const SSRC: u32 = 1;
const VP8: u8 = 96;

/// How often a subscriber reports what arrived: as browsers do.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);

/// How often a subscriber may be looked at again between two bursts.
const LATER_MAX: usize = 8;

/// A packet with the most that sealing may add.
const SPACE: usize = PACKET_LEN_MAX + OVERHEAD_MAX;

pub(super) struct Ours {
    room: Room,
    publisher: ParticipantKey,
    subscribers: Vec<Subscriber>,
    /// Where in `subscribers` a Participant is.
    places: Vec<usize>,
    forwards: Vec<Forward>,
    buffer: Vec<u8>,
    pub(super) calls: u64,
    pub(super) packets: u64,
}

struct Subscriber {
    key: ParticipantKey,
    to: SocketAddr,
    outbound: Outbound,
    downlink: Downlink<Forward>,
    /// Where nothing is paced.
    waiting: Vec<Forward>,
    /// What was sent since the last report, and when it arrived.
    arrived: Vec<(u16, Option<i64>)>,
    reported: Instant,
}

impl Ours {
    pub(super) fn new(now: Instant, to: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut room = Room::new(now, NtpTime(4_000_000_000 << 32));
        let publisher = room.join(now, participant(1)?)?;
        let track = TrackConfig {
            source: From::Camera,
            mid: Some("0".to_owned()),
            formats: vec![format()],
            encodings: vec![EncodingConfig {
                rid: None,
                ssrc: Some(SSRC),
                rtx_ssrc: None,
            }],
            nack: true,
            encrypted: false,
        };
        let track = room.publish(publisher, track)?;

        let mut ours = Self {
            room,
            publisher,
            subscribers: Vec::new(),
            places: Vec::new(),
            forwards: Vec::new(),
            buffer: vec![0; 64 * SPACE],
            calls: 0,
            packets: 0,
        };
        for (number, to) in (0_u32..).zip(to) {
            let key = ours.room.join(now, participant(10 + number)?)?;
            let config = SlotConfig {
                audio: false,
                automatic: false,
                mid: "0".to_owned(),
                ssrc: 1000 + 2 * number,
                rtx_ssrc: Some(1001 + 2 * number),
                formats: vec![format()],
                sequence: 100,
                timestamp: 5000,
                picture_id: 30,
            };
            let slot = ours.room.add_slot(now, key, config)?;
            ours.room.subscribe(now, slot, track)?;
            let all = Layer {
                encoding: 0,
                spatial: u8::MAX,
                temporal: u8::MAX,
            };
            ours.room.set_layer(now, slot, Some(all));

            let profile = Profile::AeadAes256Gcm;
            let keys: Vec<u8> = (0..=255)
                .cycle()
                .skip(number as usize % 256)
                .take(profile.keying_material_len())
                .collect();
            let (_, outbound) = sessions(profile, DtlsRole::Server, &keys)?;
            let mut downlink = Downlink::new(now, Acks::Twcc);
            downlink.set_wanted(now, Bitrate::kbps(1_500));
            ours.places
                .resize(ours.places.len().max(key.index() + 1), usize::MAX);
            ours.places[key.index()] = ours.subscribers.len();
            ours.subscribers.push(Subscriber {
                key,
                to: *to,
                outbound,
                downlink,
                waiting: Vec::new(),
                arrived: Vec::new(),
                reported: now,
            });
        }
        Ok(ours)
    }

    /// A burst to everybody, up to the sealed bytes; the time it took and the packets it came to.
    pub(super) fn rewrite(&mut self, source: &mut Source) -> anyhow::Result<(Duration, u64)> {
        let (now, packets) = burst(source)?;
        let before = processor_time()?;
        self.take_in(now, &packets)?;
        let count = self.forwards.len() as u64;
        // As in a shard: each subscriber's packets of a turn are written one behind the other.
        for forward in self.forwards.drain(..) {
            let at = self.places[forward.participant().index()];
            self.subscribers[at].waiting.push(forward);
        }
        let stamps = Stamps {
            transport_sequence: Some(7),
            abs_send_time: None,
        };
        for subscriber in &mut self.subscribers {
            for forward in subscriber.waiting.drain(..) {
                let written = self
                    .room
                    .write(&forward, &mut self.buffer, stamps)
                    .context("the packet is gone")?;
                subscriber.outbound.seal_rtp(
                    &mut self.buffer,
                    written.header_len,
                    written.len,
                    written.index,
                )?;
            }
        }
        let spent = processor_time()? - before;
        self.reports(now);
        Ok((spent, count))
    }

    /// A burst to everybody, to the socket; the time it took and the packets it came to.
    pub(super) fn send(
        &mut self,
        source: &mut Source,
        socket: &Socket,
    ) -> anyhow::Result<(Duration, u64)> {
        let (now, packets) = burst(source)?;
        let packets_before = self.packets;
        let before = processor_time()?;
        self.take_in(now, &packets)?;
        for forward in self.forwards.drain(..) {
            let subscriber = &mut self.subscribers[self.places[forward.participant().index()]];
            // What a full queue refuses is lost, and missing in the count.
            subscriber
                .downlink
                .push(now, forward.class(), forward.wire_len(), forward)
                .ok();
        }
        for at in 0..self.subscribers.len() {
            self.depart(at, now, socket)?;
        }
        // What the pace held back leaves when it may, as a shard's timers would have it.
        for at in 0..self.subscribers.len() {
            for _ in 0..LATER_MAX {
                let later = self.subscribers[at].downlink.poll_timeout(now);
                let Some(later) = later.filter(|later| *later < now + FRAME_INTERVAL) else {
                    break;
                };
                self.depart(at, later, socket)?;
            }
        }
        self.reports(now);
        Ok((processor_time()? - before, self.packets - packets_before))
    }

    fn take_in(&mut self, now: Instant, packets: &[Vec<u8>]) -> anyhow::Result<()> {
        for packet in packets {
            let packet = Packet::parse(packet)?;
            let arrived = self
                .room
                .handle_rtp(now, self.publisher, &packet, &mut self.forwards);
            arrived.map_err(|dropped| anyhow::anyhow!("the Room drops a packet: {dropped:?}"))?;
        }
        Ok(())
    }

    /// All that may leave for one subscriber now, equal lengths in one call.
    fn depart(&mut self, at: usize, now: Instant, socket: &Socket) -> anyhow::Result<()> {
        let subscriber = &mut self.subscribers[at];
        if now - subscriber.reported >= FEEDBACK_INTERVAL {
            subscriber.reported = now;
            subscriber
                .downlink
                .handle_twcc(now, subscriber.arrived.drain(..));
        }
        subscriber.downlink.handle_timeout(now);
        let (mut waiting, mut segment) = (0, 0);
        while let Some(departure) = subscriber.downlink.poll_send(now) {
            if waiting + SPACE > self.buffer.len() {
                send(
                    socket,
                    &self.buffer[..waiting],
                    segment,
                    subscriber.to,
                    &mut self.calls,
                )?;
                (waiting, segment) = (0, 0);
            }
            let space = &mut self.buffer[waiting..];
            let forward = match departure.what {
                What::Packet(forward) => Some(forward),
                What::Padding(len) => self.room.pad(subscriber.key, len),
            };
            let stamps = Stamps {
                transport_sequence: Some(departure.sequence),
                abs_send_time: None,
            };
            let written = forward.and_then(|forward| self.room.write(&forward, space, stamps));
            let Some(written) = written else {
                subscriber.downlink.amend(now, &departure, 0);
                continue;
            };
            match departure.what {
                What::Packet(_) => self.packets += 1,
                What::Padding(_) => {
                    let len = u16::try_from(written.len)?;
                    subscriber.downlink.amend(now, &departure, len);
                }
            }
            let len = subscriber.outbound.seal_rtp(
                space,
                written.header_len,
                written.len,
                written.index,
            )?;
            subscriber
                .arrived
                .push((departure.sequence, Some(micros(now))));
            if segment != 0 && len != segment {
                send(
                    socket,
                    &self.buffer[..waiting],
                    segment,
                    subscriber.to,
                    &mut self.calls,
                )?;
                self.buffer.copy_within(waiting..waiting + len, 0);
                waiting = 0;
            }
            segment = len;
            waiting += len;
        }
        send(
            socket,
            &self.buffer[..waiting],
            segment,
            subscriber.to,
            &mut self.calls,
        )
    }

    /// Reports and key frame requests: here nobody waits for them.
    fn reports(&mut self, now: Instant) {
        self.room.handle_timeout(now);
        let mut buffer = [0; 1200];
        while self.room.poll_rtcp(now, &mut buffer).is_some() {}
        while self.room.poll_output().is_some() {}
    }
}

fn send(
    socket: &Socket,
    bytes: &[u8],
    segment: usize,
    to: SocketAddr,
    calls: &mut u64,
) -> anyhow::Result<()> {
    if !bytes.is_empty() {
        *calls += 1;
        socket.send(&[IoSlice::new(bytes)], u16::try_from(segment)?, Some(to))?;
    }
    Ok(())
}

fn participant(ssrc: u32) -> anyhow::Result<ParticipantConfig> {
    let mut extensions = ExtensionMap::new();
    extensions.set(ExtensionKind::Mid, 4)?;
    extensions.set(ExtensionKind::TransportSequenceNumber, 3)?;
    Ok(ParticipantConfig {
        extensions,
        reduced_size_rtcp: true,
        cname: "offhook".to_owned(),
        ssrc,
    })
}

fn format() -> Format {
    Format {
        codec: Codec::Vp8,
        variant: 0,
        payload_type: VP8,
        rtx: Some(VP8 + 1),
        red: None,
        clock_rate: 90_000,
    }
}

/// The next frame as RTP packets of the publisher.
fn burst(source: &mut Source) -> anyhow::Result<(Instant, Vec<Vec<u8>>)> {
    let (now, packets) = source.burst();
    let packets = packets.into_iter().map(|plain| {
        let mut bytes = vec![0; PACKET_LEN_MAX];
        let fixed = FixedHeader {
            marker: plain.marker,
            payload_type: VP8,
            sequence_number: (plain.sequence & 0xFFFF) as u16,
            timestamp: plain.timestamp,
            ssrc: SSRC,
        };
        let header_len = HeaderWriter::new(&mut bytes, &fixed, &[])?.finish()?;
        bytes.truncate(header_len);
        bytes.extend(plain.payload);
        Ok(bytes)
    });
    Ok((now, packets.collect::<anyhow::Result<_>>()?))
}

/// Arrival by the subscriber's clock: 10 ms later than sent.
fn micros(now: Instant) -> i64 {
    static BEGINNING: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let since = now - *BEGINNING.get_or_init(|| now);
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX) + 10_000
}
