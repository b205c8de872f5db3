//! Our path: what a shard does with a packet, without its socket and its pace.

use std::collections::HashMap;
use std::time::Instant;

use model::room::Source;
use sfu_core::{
    Codec, EncodingConfig, Format, Forward, Layer, ParticipantConfig, ParticipantKey, Room,
    SlotConfig, SlotKey, Stamps, TrackConfig, TrackKey,
};
use sfu_rtp::extension::{ExtensionKind, ExtensionMap};
use sfu_rtp::packet::Packet;
use sfu_rtp::rtcp::{Compound, NtpTime};
use sfu_rtp::srtp::{Inbound, Outbound};

use super::ends::{Ends, Sender};
use super::{Forwarder, Leg, SEQUENCE, SUBSCRIBERS, TIMESTAMP, ssrc_of_encoding};

/// A Room, and the keys of all in it.
pub(super) struct Ours {
    room: Room,
    publisher: ParticipantKey,
    track: TrackKey,
    inbound: Inbound,
    subscribers: Vec<Subscriber>,
    places: HashMap<ParticipantKey, usize>,
    forwards: Vec<Forward>,
}

struct Subscriber {
    key: ParticipantKey,
    slot: SlotKey,
    leg: Leg,
    inbound: Inbound,
    outbound: Outbound,
}

impl Ours {
    /// A Room with the publisher whose server's end is `publisher`.
    pub(super) fn new(now: Instant, publisher: &mut Ends) -> Self {
        let mut room = Room::new(now, NtpTime(4_000_000_000 << 32));
        let key = room.join(now, participant()).unwrap();
        let encodings = (0..publisher.mids.len()).map(|encoding| EncodingConfig {
            rid: Some(format!("r{encoding}")),
            ssrc: Some(ssrc_of_encoding(publisher, encoding)),
            rtx_ssrc: None,
        });
        let config = TrackConfig {
            source: Source::Camera,
            mid: None,
            encodings: encodings.collect(),
            formats: vec![format(publisher)],
            nack: false,
            encrypted: false,
        };
        let track = room.publish(key, config).unwrap();
        let (inbound, _) = publisher.server_keys();

        let mut ours = Self {
            room,
            publisher: key,
            track,
            inbound,
            subscribers: Vec::new(),
            places: HashMap::new(),
            forwards: Vec::new(),
        };
        (0..SUBSCRIBERS).for_each(|_| ours.join(now));
        ours
    }

    fn join(&mut self, now: Instant) {
        let (mut ends, now) = Ends::connect(now, Sender::Server, 1);
        let (ssrc, rtx_ssrc) = ends.server_ssrcs();
        let key = self.room.join(now, participant()).unwrap();
        let config = SlotConfig {
            audio: false,
            automatic: false,
            mid: ends.mids[0].to_string(),
            ssrc,
            rtx_ssrc: Some(rtx_ssrc),
            formats: vec![format(&ends)],
            sequence: SEQUENCE,
            timestamp: TIMESTAMP,
            picture_id: 77,
        };
        let slot = self.room.add_slot(now, key, config).unwrap();
        self.room.subscribe(now, slot, self.track).unwrap();
        let (inbound, outbound) = ends.server_keys();
        self.places.insert(key, self.subscribers.len());
        self.subscribers.push(Subscriber {
            key,
            slot,
            leg: Leg::new(ends, ssrc),
            inbound,
            outbound,
        });
    }

    /// Seals what there is to forward, and has it leave.
    fn depart(&mut self, now: Instant) {
        for forward in std::mem::take(&mut self.forwards) {
            let mut buffer = [0; 2048];
            let Some(written) = self.room.write(&forward, &mut buffer, Stamps::default()) else {
                continue;
            };
            let subscriber = &mut self.subscribers[self.places[&forward.participant()]];
            let sealed = subscriber.outbound.seal_rtp(
                &mut buffer,
                written.header_len,
                written.len,
                written.index,
            );
            subscriber.leg.deliver(now, &buffer[..sealed.unwrap()]);
        }
    }
}

impl Forwarder for Ours {
    fn want(&mut self, now: Instant, subscriber: usize, layer: Option<Layer>) {
        self.room
            .set_layer(now, self.subscribers[subscriber].slot, layer);
    }

    fn lose(&mut self, subscriber: usize, lost: &[usize]) {
        self.subscribers[subscriber].leg.lose(lost);
    }

    fn handle(&mut self, now: Instant, datagram: &[u8]) {
        let mut bytes = datagram.to_vec();
        // What comes twice is refused here.
        let Ok(opened) = self.inbound.open_rtp(&mut bytes) else {
            return;
        };
        let packet = Packet::parse(&bytes[..opened.len]).unwrap();
        self.room
            .handle_rtp(now, self.publisher, &packet, &mut self.forwards)
            .unwrap();
        self.depart(now);
    }

    fn pass(&mut self, now: Instant) {
        self.room.handle_timeout(now);
        while self.room.poll_rtcp(now, &mut [0; 1200]).is_some() {}
        while self.room.poll_output().is_some() {}
        for subscriber in &mut self.subscribers {
            for mut said in subscriber.leg.pass(now) {
                let len = subscriber.inbound.open_rtcp(&mut said).unwrap();
                for packet in Compound::parse(&said[..len]) {
                    self.room.handle_rtcp(
                        now,
                        subscriber.key,
                        &packet.unwrap(),
                        &mut self.forwards,
                    );
                }
            }
            // The library has nothing to say under these keys.
            subscriber.leg.ends.server.media.clear();
        }
        self.depart(now);
    }

    fn leg(&self, subscriber: usize) -> &Leg {
        &self.subscribers[subscriber].leg
    }
}

fn participant() -> ParticipantConfig {
    let mut extensions = ExtensionMap::new();
    // As the library numbers them.
    extensions.set(ExtensionKind::Mid, 4).unwrap();
    extensions.set(ExtensionKind::VideoOrientation, 13).unwrap();
    ParticipantConfig {
        extensions,
        reduced_size_rtcp: true,
        cname: "offhook".to_owned(),
        ssrc: 1,
    }
}

fn format(ends: &Ends) -> Format {
    Format {
        codec: Codec::Vp8,
        variant: 0,
        payload_type: *ends.payload_type,
        rtx: Some(*ends.rtx_payload_type),
        red: None,
        clock_rate: 90_000,
    }
}
