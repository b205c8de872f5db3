//! A Room with its Participants, and the packets they send and get.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::room::Source;
use sfu_core::{
    Codec, Dropped, EncodingConfig, Format, Forward, Layer, PACKET_LEN_MAX, ParticipantConfig,
    ParticipantKey, Refusal, Room, SlotConfig, SlotKey, Stamps, TrackConfig, TrackKey,
};
use sfu_rtp::extension::{ExtensionKind, ExtensionMap};
use sfu_rtp::packet::{FixedHeader, HeaderWriter, Packet, pad};
use sfu_rtp::rtcp::{Builder, Compound, NtpTime};

/// Payload types of every Participant here.
pub(crate) const OPUS: u8 = 111;
pub(crate) const RED: u8 = 63;
pub(crate) const VP8: u8 = 96;
pub(crate) const VP8_RTX: u8 = 97;
pub(crate) const VP9: u8 = 98;
pub(crate) const AV1: u8 = 45;

/// The SSRC of the first slot; each has the next hundred, and its resends the number after its own.
pub(crate) const SLOT_SSRC: u32 = 9_000;

/// An RTP packet of a publisher.
#[derive(Debug, Clone, Default)]
pub(crate) struct In {
    pub(crate) fixed: FixedHeader,
    pub(crate) extensions: Vec<(ExtensionKind, Vec<u8>)>,
    pub(crate) payload: Vec<u8>,
    pub(crate) padding: u8,
}

/// An RTP packet a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) slot: SlotKey,
    pub(crate) fixed: FixedHeader,
    pub(crate) index: u64,
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) payload: Vec<u8>,
    pub(crate) padding: usize,
    pub(crate) wire_len: u16,
}

/// A Room and its clock.
pub(crate) struct Stage {
    pub(crate) room: Room,
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    forwards: Vec<Forward>,
    slots: u32,
    /// The highest index that the receiver of each SSRC has opened.
    opened: BTreeMap<u32, u64>,
}

/// The wall clock when a stage is set up: NTP seconds.
pub(crate) const WALL: u64 = 4_000_000_000;

impl Stage {
    pub(crate) fn new() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one real instant that simulated time is counted from"
        )]
        let now = Instant::now();

        Self {
            room: Room::new(now, NtpTime(WALL << 32)),
            start: now,
            now,
            forwards: Vec::new(),
            slots: 0,
            opened: BTreeMap::new(),
        }
    }

    pub(crate) fn join(&mut self) -> ParticipantKey {
        let config = ParticipantConfig {
            extensions: extensions(),
            reduced_size_rtcp: true,
            cname: "offhook".to_owned(),
            ssrc: 1,
        };

        self.room.join(self.now, config).unwrap()
    }

    pub(crate) fn publish(
        &mut self,
        publisher: ParticipantKey,
        source: Source,
        encodings: &[EncodingConfig],
    ) -> TrackKey {
        let config = TrackConfig {
            source,
            mid: Some(format!("m{source:?}").to_lowercase()),
            formats: formats(source.is_audio()),
            encodings: encodings.to_vec(),
            nack: !source.is_audio(),
            encrypted: false,
        };

        self.room.publish(publisher, config).unwrap()
    }

    /// A camera of one encoding, whose SSRC is 100 and that of its resends 101.
    pub(crate) fn publish_camera(&mut self, publisher: ParticipantKey) -> TrackKey {
        self.publish(publisher, Source::Camera, &[encoding(None, 100)])
    }

    /// A microphone whose SSRC is 50.
    pub(crate) fn publish_microphone(&mut self, publisher: ParticipantKey) -> TrackKey {
        let config = EncodingConfig {
            rid: None,
            ssrc: Some(50),
            rtx_ssrc: None,
        };

        self.publish(publisher, Source::Microphone, &[config])
    }

    /// A slot, with sequence numbers from 1000, timestamps from 5000 and picture ids from 30.
    pub(crate) fn slot(&mut self, subscriber: ParticipantKey, audio: bool) -> SlotKey {
        self.add_slot(subscriber, audio, false)
    }

    /// A slot that the Room puts voices into.
    pub(crate) fn automatic_slot(&mut self, subscriber: ParticipantKey) -> SlotKey {
        self.add_slot(subscriber, true, true)
    }

    fn add_slot(&mut self, subscriber: ParticipantKey, audio: bool, automatic: bool) -> SlotKey {
        let ssrc = SLOT_SSRC + 100 * self.slots;
        let config = SlotConfig {
            audio,
            automatic,
            mid: format!("s{}", self.slots),
            ssrc,
            rtx_ssrc: (!audio).then_some(ssrc + 1),
            formats: formats(audio),
            sequence: 1000,
            timestamp: 5000,
            picture_id: 30,
        };

        self.slots += 1;
        self.room.add_slot(self.now, subscriber, config).unwrap()
    }

    pub(crate) fn subscribe(&mut self, slot: SlotKey, track: TrackKey) -> Result<(), Refusal> {
        self.room.subscribe(self.now, slot, track)
    }

    pub(crate) fn want(&mut self, slot: SlotKey, encoding: u8) {
        let layer = Layer {
            encoding,
            spatial: u8::MAX,
            temporal: u8::MAX,
        };

        self.room.set_layer(self.now, slot, Some(layer));
    }

    /// Sends a packet into the Room; gives what goes out for it.
    pub(crate) fn send(&mut self, from: ParticipantKey, packet: &In) -> Vec<Out> {
        self.try_send(from, packet).0
    }

    /// Sends a packet into the Room whose forwards wait for their turn, as in a pacer.
    pub(crate) fn hold(&mut self, from: ParticipantKey, packet: &In) -> Vec<Forward> {
        let bytes = packet.bytes();
        let packet = Packet::parse(&bytes).unwrap();
        let mut waiting = Vec::new();

        self.room
            .handle_rtp(self.now, from, &packet, &mut waiting)
            .unwrap();
        waiting
    }

    /// Writes what has waited.
    pub(crate) fn release(&mut self, waiting: &[Forward]) -> Vec<Out> {
        waiting
            .iter()
            .filter_map(|forward| self.write(forward))
            .collect()
    }

    pub(crate) fn try_send(
        &mut self,
        from: ParticipantKey,
        packet: &In,
    ) -> (Vec<Out>, Option<Dropped>) {
        let bytes = packet.bytes();
        let packet = Packet::parse(&bytes).unwrap();
        let dropped = self
            .room
            .handle_rtp(self.now, from, &packet, &mut self.forwards)
            .err();

        (self.write_forwards(), dropped)
    }

    /// Sends a packet into the Room; gives what is to go out for it, unwritten.
    pub(crate) fn forward(&mut self, from: ParticipantKey, packet: &In) -> Vec<Forward> {
        let bytes = packet.bytes();
        let packet = Packet::parse(&bytes).unwrap();
        self.room
            .handle_rtp(self.now, from, &packet, &mut self.forwards)
            .unwrap();

        std::mem::take(&mut self.forwards)
    }

    /// Sends bytes into the Room that may or may not be RTP. Why they are dropped the figures tell.
    pub(crate) fn send_bytes(&mut self, from: ParticipantKey, bytes: &[u8]) -> Vec<Out> {
        if let Ok(packet) = Packet::parse(bytes) {
            let arrived = self
                .room
                .handle_rtp(self.now, from, &packet, &mut self.forwards);
            assert!(arrived.is_ok() || self.room.stats().dropped(arrived.unwrap_err()) > 0);
        }
        self.write_forwards()
    }

    /// Sends bytes into the Room that may or may not be RTCP.
    pub(crate) fn send_rtcp_bytes(&mut self, from: ParticipantKey, bytes: &[u8]) -> Vec<Out> {
        for packet in Compound::parse(bytes).flatten() {
            self.room
                .handle_rtcp(self.now, from, &packet, &mut self.forwards);
        }
        self.write_forwards()
    }

    /// Sends RTCP into the Room; gives what goes out for it.
    pub(crate) fn send_rtcp(
        &mut self,
        from: ParticipantKey,
        write: impl FnOnce(&mut Builder<'_>),
    ) -> Vec<Out> {
        let mut buffer = [0; 1200];
        let mut builder = Builder::new(&mut buffer);
        write(&mut builder);
        let len = builder.len();

        for packet in Compound::parse(&buffer[..len]) {
            let packet = packet.unwrap();
            self.room
                .handle_rtcp(self.now, from, &packet, &mut self.forwards);
        }
        self.write_forwards()
    }

    /// A subscriber misses packets.
    pub(crate) fn nack(&mut self, from: ParticipantKey, ssrc: u32, numbers: &[u16]) -> Vec<Out> {
        self.send_rtcp(from, |builder| builder.nack(2, ssrc, numbers).unwrap())
    }

    /// Lets time pass; gives the RTCP that everybody is sent meanwhile.
    pub(crate) fn advance(&mut self, duration: Duration) -> Vec<(ParticipantKey, Vec<u8>)> {
        let end = self.now + duration;
        let mut sent = self.rtcp();

        loop {
            let next = self.room.poll_timeout().max(self.now);
            if next > end {
                self.now = end;
                return sent;
            }
            self.now = next;
            self.room.handle_timeout(self.now);
            sent.extend(self.rtcp());
        }
    }

    /// The RTCP that is to be sent now.
    pub(crate) fn rtcp(&mut self) -> Vec<(ParticipantKey, Vec<u8>)> {
        let mut buffer = [0; 1200];
        let mut sent = Vec::new();

        while let Some((to, len)) = self.room.poll_rtcp(self.now, &mut buffer) {
            sent.push((to, buffer[..len].to_vec()));
        }
        sent
    }

    /// Padding for a Participant, written.
    pub(crate) fn pad(&mut self, to: ParticipantKey, wire_len: u16) -> Option<Out> {
        let forward = self.room.pad(to, wire_len)?;

        self.forwards.push(forward);
        self.write_forwards().pop()
    }

    fn write_forwards(&mut self) -> Vec<Out> {
        let forwards = std::mem::take(&mut self.forwards);

        forwards
            .iter()
            .filter_map(|forward| self.write(forward))
            .collect()
    }

    pub(crate) fn write(&mut self, forward: &Forward) -> Option<Out> {
        let mut buffer = [0xee; PACKET_LEN_MAX];
        let stamps = Stamps {
            transport_sequence: Some(7),
            abs_send_time: None,
        };
        let written = self.room.write(forward, &mut buffer, stamps)?;
        let packet = Packet::parse(&buffer[..written.len]).unwrap();
        let header = packet.header();

        assert_eq!(header.len(), written.header_len);
        assert_eq!(u64::from(header.sequence_number()), written.index & 0xffff);
        let opened = self.opened.entry(written.ssrc).or_insert(written.index);
        assert_eq!(
            guess(*opened, header.sequence_number()),
            written.index,
            "its receiver takes it for another"
        );
        *opened = written.index.max(*opened);
        Some(Out {
            slot: forward.slot(),
            fixed: header.fixed(),
            index: written.index,
            extensions: header
                .extensions()
                .map(|(id, value)| (id, value.to_vec()))
                .collect(),
            payload: packet.payload().to_vec(),
            padding: packet.padding_len(),
            wire_len: forward.wire_len(),
        })
    }
}

impl In {
    fn bytes(&self) -> Vec<u8> {
        let mut buffer = [0; 2000];
        let mut header = HeaderWriter::new(&mut buffer, &self.fixed, &[]).unwrap();
        for (kind, value) in &self.extensions {
            header
                .extension(extensions().id(*kind).unwrap(), value)
                .unwrap();
        }
        let len = header.finish().unwrap();

        buffer[len..len + self.payload.len()].copy_from_slice(&self.payload);
        let len = pad(&mut buffer, len + self.payload.len(), self.padding).unwrap();
        buffer[..len].to_vec()
    }

    pub(crate) fn with(mut self, kind: ExtensionKind, value: &[u8]) -> Self {
        self.extensions.push((kind, value.to_vec()));
        self
    }

    /// The same packet again, over RTX.
    pub(crate) fn resent(&self, sequence_number: u16) -> Self {
        let mut payload = self.fixed.sequence_number.to_be_bytes().to_vec();
        payload.extend_from_slice(&self.payload);

        Self {
            fixed: FixedHeader {
                sequence_number,
                ssrc: self.fixed.ssrc + 1,
                payload_type: self.fixed.payload_type + 1,
                ..self.fixed
            },
            extensions: self.extensions.clone(),
            payload,
            padding: 0,
        }
    }
}

/// The index that the receiver of a packet takes it to have, by the highest one they have opened (RFC 3711 §3.3.1).
fn guess(highest: u64, number: u16) -> u64 {
    let (cycle, newest) = (highest >> 16, highest & 0xffff);
    let number = u64::from(number);
    let cycle = if newest < 1 << 15 {
        cycle.wrapping_sub(u64::from(number > newest + (1 << 15)))
    } else {
        cycle + u64::from(number + (1 << 15) < newest)
    };

    cycle.wrapping_shl(16) | number
}

/// The header extensions everybody has.
pub(crate) fn extensions() -> ExtensionMap {
    let mut map = ExtensionMap::new();

    for (kind, id) in [
        (ExtensionKind::AudioLevel, 1),
        (ExtensionKind::TransportSequenceNumber, 2),
        (ExtensionKind::Mid, 3),
        (ExtensionKind::Rid, 4),
        (ExtensionKind::RepairedRid, 5),
        (ExtensionKind::VideoOrientation, 6),
        (ExtensionKind::DependencyDescriptor, 7),
    ] {
        map.set(kind, id).unwrap();
    }
    map
}

pub(crate) fn encoding(rid: Option<&str>, ssrc: u32) -> EncodingConfig {
    EncodingConfig {
        rid: rid.map(str::to_owned),
        ssrc: Some(ssrc),
        rtx_ssrc: Some(ssrc + 1),
    }
}

pub(crate) fn formats(audio: bool) -> Vec<Format> {
    let video = |codec, payload_type| Format {
        codec,
        variant: 0,
        payload_type,
        rtx: Some(payload_type + 1),
        red: None,
        clock_rate: 90_000,
    };

    if audio {
        vec![Format {
            codec: Codec::Opus,
            variant: 0,
            payload_type: OPUS,
            rtx: None,
            red: Some(RED),
            clock_rate: 48_000,
        }]
    } else {
        vec![
            video(Codec::Vp8, VP8),
            video(Codec::Vp9, VP9),
            video(Codec::Av1, AV1),
        ]
    }
}

/// A packet of a microphone: `n` of 20 ms each.
pub(crate) fn opus(n: u16) -> In {
    In {
        fixed: FixedHeader {
            marker: false,
            payload_type: OPUS,
            sequence_number: n,
            timestamp: u32::from(n) * 960,
            ssrc: 50,
        },
        payload: vec![0x78, (n & 0xff) as u8, 1, 2, 3],
        ..In::default()
    }
}

/// What a VP8 packet is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vp8 {
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) picture: u16,
    pub(crate) tl0: u8,
    pub(crate) temporal: u8,
    pub(crate) sync: bool,
    pub(crate) key: bool,
    pub(crate) first: bool,
    pub(crate) last: bool,
    /// What the payload is filled with.
    pub(crate) fill: u8,
}

impl Vp8 {
    /// The whole picture in one packet: `n` of 30 a second.
    pub(crate) fn picture(n: u16, key: bool) -> Self {
        Self {
            ssrc: 100,
            sequence: n,
            timestamp: u32::from(n) * 3000,
            picture: n,
            tl0: (n & 0xff) as u8,
            temporal: 0,
            sync: false,
            key,
            first: true,
            last: true,
            fill: (n & 0xff) as u8,
        }
    }

    pub(crate) fn packet(self) -> In {
        let [high, low] = (self.picture & 0x7fff | 0x8000).to_be_bytes();
        let mut payload = vec![
            0x80 | u8::from(self.first) << 4,
            0xe0,
            high,
            low,
            self.tl0,
            self.temporal << 6 | u8::from(self.sync) << 5,
            u8::from(!self.key),
            0,
            0,
        ];
        if self.key && self.first {
            payload.extend_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
        }
        payload.extend_from_slice(&[self.fill; 50]);

        In {
            fixed: FixedHeader {
                marker: self.last,
                payload_type: VP8,
                sequence_number: self.sequence,
                timestamp: self.timestamp,
                ssrc: self.ssrc,
            },
            payload,
            ..In::default()
        }
    }
}

impl Out {
    /// The picture id and TL0PICIDX of a VP8 packet.
    pub(crate) fn vp8(&self) -> (u16, u8) {
        let id = u16::from_be_bytes([self.payload[2], self.payload[3]]) & 0x7fff;

        (id, self.payload[4])
    }

    pub(crate) fn sequence(&self) -> u16 {
        self.fixed.sequence_number
    }
}
