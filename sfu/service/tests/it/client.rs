//! A client: a PeerConnection without a browser, on a socket of its own.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::id::{ParticipantId, TrackId};
use model::media::{MediaOffer, TrackOffer};
use model::room::Source;
use sfu_rtp::packet::{FixedHeader, HeaderWriter};
use sfu_rtp::rtcp::Builder;
use sfu_rtp::srtp::Outbound;
use sockets::handover::{End, Label};
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::format::Codec;
use str0m::media::{
    Direction, KeyframeRequest, KeyframeRequestKind, MediaKind, Mid, Pt, Rid, Simulcast,
    SimulcastLayer,
};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite, SeqNo};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::keys::{self, KeySlot};
use crate::stage::TCP;

/// The encodings of a Track with simulcast.
pub(crate) const RIDS: [&str; 2] = ["q", "f"];

/// A Track of a client.
pub(crate) struct Sent {
    pub(crate) track: TrackId,
    pub(crate) mid: Mid,
    pub(crate) source: Source,
    /// For each encoding.
    next: [u64; 2],
    time: u32,
    has_simulcast: bool,
    /// Its section is there and sends nothing.
    pub(crate) is_idle: bool,
}

/// A client.
pub(crate) struct Client {
    pub(crate) id: ParticipantId,
    pub(crate) rtc: Rtc,
    pub(crate) socket: UdpSocket,
    pub(crate) address: SocketAddr,
    pub(crate) tracks: Vec<Sent>,
    /// Slots, in the order of the offer.
    pub(crate) audio_slots: Vec<Mid>,
    pub(crate) video_slots: Vec<Mid>,
    pub(crate) generation: u32,
    /// How loud sound is, in dBov.
    level: i8,
    /// Whether cameras are offered in two encodings.
    pub(crate) has_simulcast: bool,
    /// Whether data channels are offered.
    pub(crate) has_data: bool,
    /// The reliable one and the lossy one, and then those of its own.
    pub(crate) channels: Vec<ChannelId>,
    /// What came over them, by their places.
    pub(crate) messages: Vec<(usize, Vec<u8>)>,
    /// Those that were closed.
    pub(crate) closed: Vec<usize>,
    /// The first sections of Tracks send nothing at first.
    pub(crate) begins_idle: bool,
    /// Nothing of what comes is heard.
    pub(crate) is_deaf: bool,
    pending: Option<SdpPendingOffer>,
    /// The last one.
    pub(crate) answer: String,
    pub(crate) is_connected: bool,
    pub(crate) received: Vec<RtpPacket>,
    pub(crate) asked: Vec<KeyframeRequest>,
    /// Everything that came, before the library saw it.
    pub(crate) datagrams: VecDeque<Vec<u8>>,
    /// So many of the next media datagrams are lost.
    pub(crate) lose: usize,
    /// Everything that left.
    pub(crate) sent: VecDeque<Vec<u8>>,
    /// Every so-manieth packet of media it sends is lost.
    pub(crate) loses_every: Option<usize>,
    /// Packets of media it would have sent.
    media: usize,
    /// Tells nothing about what arrives.
    pub(crate) is_mute_in_rtcp: bool,
    /// Where the keys of its media arrive.
    keys: KeySlot,
    /// Those to seal with, once they are there.
    outbound: Option<Outbound>,
    /// In place of the socket, where UDP can't be sent: bytes that came, and those of frames not whole yet.
    stream: Option<(TcpStream, Vec<u8>)>,
    /// In place of the socket, where a relay of the SFU's process leads there.
    relay: Option<End>,
    /// Nothing it sends leaves any more.
    is_silent: bool,
}

/// How many datagrams a client remembers in each direction.
const REMEMBERED_MAX: usize = 10_000;

impl Client {
    pub(crate) fn new(number: u128) -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let keys = KeySlot::default();
        let config = RtcConfig::new().set_crypto_provider(Arc::new(keys::crypto()));
        let config = config.set_rtp_mode(true);
        let mut rtc = keys::with_slot(&keys, || config.build(Instant::now()));
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Client {
            id: ParticipantId::from_u128(number),
            rtc,
            socket,
            address,
            tracks: Vec::new(),
            audio_slots: Vec::new(),
            video_slots: Vec::new(),
            generation: 0,
            level: -30,
            has_simulcast: false,
            has_data: false,
            channels: Vec::new(),
            messages: Vec::new(),
            closed: Vec::new(),
            is_deaf: false,
            begins_idle: false,
            pending: None,
            answer: String::new(),
            is_connected: false,
            received: Vec::new(),
            asked: Vec::new(),
            datagrams: VecDeque::new(),
            lose: 0,
            sent: VecDeque::new(),
            loses_every: None,
            media: 0,
            is_mute_in_rtcp: false,
            keys,
            outbound: None,
            stream: None,
            relay: None,
            is_silent: false,
        }
    }

    /// A client of the relay in the SFU's process, who has the relayed address `relayed`: its datagrams pass `end` and no socket.
    pub(crate) fn through(&mut self, end: End, relayed: SocketAddr) {
        let before = Candidate::host(self.address, "udp").unwrap();
        self.rtc.direct_api().invalidate_candidate(&before);
        self.address = relayed;
        let candidate = Candidate::host(relayed, "udp").unwrap();
        self.rtc.add_local_candidate(candidate);
        self.relay = Some(end);
    }

    /// A client that can't send UDP: it comes by `stream`.
    pub(crate) fn over(&mut self, stream: TcpStream) {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        self.address = stream.local_addr().unwrap();
        self.rtc = RtcConfig::new().set_rtp_mode(true).build(Instant::now());
        let candidate = Candidate::builder().tcp().host(self.address);
        let candidate = candidate.tcptype(TcpType::Active).build().unwrap();
        self.rtc.add_local_candidate(candidate);
        self.stream = Some((stream, Vec::new()));
    }

    /// An offer with new Tracks and so many more slots.
    pub(crate) fn offer(
        &mut self,
        sources: &[Source],
        audio_slots: usize,
        video_slots: usize,
    ) -> MediaOffer {
        let mut changes = self.rtc.sdp_api();
        for source in sources {
            let kind = kind(source.is_audio());
            let has_simulcast = self.has_simulcast && *source == Source::Camera;
            let simulcast = has_simulcast.then(|| {
                let mut simulcast = Simulcast::new();
                for rid in RIDS {
                    simulcast.add_send_layer(SimulcastLayer::new(rid));
                }
                simulcast
            });
            let direction = match self.begins_idle {
                true => Direction::Inactive,
                false => Direction::SendOnly,
            };
            let mid = changes.add_media(kind, direction, None, None, simulcast);
            let number = self.id.as_u128() * 100 + self.tracks.len() as u128;
            self.tracks.push(Sent {
                track: TrackId::from_u128(number),
                mid,
                source: *source,
                next: [1000; 2],
                time: 5000,
                has_simulcast,
                is_idle: self.begins_idle,
            });
        }
        for (count, is_audio) in [(audio_slots, true), (video_slots, false)] {
            for _ in 0..count {
                let mid = changes.add_media(kind(is_audio), Direction::RecvOnly, None, None, None);
                match is_audio {
                    true => self.audio_slots.push(mid),
                    false => self.video_slots.push(mid),
                }
            }
        }
        if self.has_data && self.channels.is_empty() {
            for (stream, ordered, reliability) in [
                (0, true, Reliability::Reliable),
                (1, false, Reliability::MaxRetransmits { retransmits: 0 }),
            ] {
                self.channels
                    .push(changes.add_channel_with_config(ChannelConfig {
                        ordered,
                        reliability,
                        negotiated: Some(stream),
                        ..ChannelConfig::default()
                    }));
            }
        }
        let made = changes.apply().unwrap();
        self.describe(made)
    }

    /// Opens one more data channel, in band.
    pub(crate) fn open_channel(&mut self, label: &str) {
        let config = ChannelConfig {
            label: label.to_owned(),
            ..ChannelConfig::default()
        };
        let id = self.rtc.direct_api().create_data_channel(config);
        self.channels.push(id);
    }

    /// Whether a data channel is open.
    pub(crate) fn is_open(&mut self, channel: usize) -> bool {
        self.rtc.channel(self.channels[channel]).is_some()
    }

    /// Sends over a data channel that is open.
    pub(crate) fn say(&mut self, channel: usize, is_binary: bool, bytes: &[u8]) {
        let mut channel = self.rtc.channel(self.channels[channel]).unwrap();
        assert!(channel.write(is_binary, bytes).unwrap(), "no room");
        self.poll();
    }

    fn place(&self, channel: ChannelId) -> Option<usize> {
        self.channels.iter().position(|known| *known == channel)
    }

    /// An offer with new credentials for ICE.
    pub(crate) fn offer_restart(&mut self) -> MediaOffer {
        let mut changes = self.rtc.sdp_api();
        changes.ice_restart(true);
        let made = changes.apply().unwrap();
        self.describe(made)
    }

    /// Goes on from another address; the one before ends. What comes of it, an ICE restart has to tell.
    pub(crate) fn move_away(&mut self) {
        let before = Candidate::host(self.address, "udp").unwrap();
        self.rtc.direct_api().invalidate_candidate(&before);
        self.socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        self.socket.set_nonblocking(true).unwrap();
        self.address = self.socket.local_addr().unwrap();
        let candidate = Candidate::host(self.address, "udp").unwrap();
        self.rtc.add_local_candidate(candidate);
    }

    /// An offer that changes who sends in a section.
    pub(crate) fn offer_direction(&mut self, mid: Mid, direction: Direction) -> MediaOffer {
        let mut changes = self.rtc.sdp_api();
        changes.set_direction(mid, direction);
        for sent in self.tracks.iter_mut().filter(|sent| sent.mid == mid) {
            sent.is_idle = !direction.is_sending();
        }
        let made = changes.apply().unwrap();
        self.describe(made)
    }

    fn describe(&mut self, (offer, pending): (SdpOffer, SdpPendingOffer)) -> MediaOffer {
        self.pending = Some(pending);
        self.generation += 1;
        let track = |sent: &Sent| TrackOffer {
            track: sent.track,
            mid: sent.mid.to_string(),
            source: sent.source,
            muted: false,
        };
        MediaOffer {
            generation: self.generation,
            sdp: offer.to_sdp_string(),
            tracks: self
                .tracks
                .iter()
                .filter(|sent| !sent.is_idle)
                .map(track)
                .collect(),
        }
    }

    pub(crate) fn accept(&mut self, answer: &str) {
        answer.clone_into(&mut self.answer);
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        let pending = self.pending.take().unwrap();
        self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
    }

    /// Moves what can be moved.
    pub(crate) fn turn(&mut self, now: Instant) {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            if self.is_deaf {
                continue;
            }
            let datagram = &buffer[..len];
            remember(&mut self.datagrams, datagram);
            if is_rtp(datagram) && self.lose > 0 {
                self.lose -= 1;
                continue;
            }
            let receive = Receive::new(Protocol::Udp, from, self.address, datagram).unwrap();
            self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
            self.poll();
        }
        for (from, datagram) in self.relayed() {
            remember(&mut self.datagrams, &datagram);
            let receive = Receive::new(Protocol::Udp, from, self.address, &datagram).unwrap();
            self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
            self.poll();
        }
        for frame in self.frames() {
            let receive = Receive::new(Protocol::Tcp, TCP, self.address, &frame).unwrap();
            self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
            self.poll();
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        self.poll();
    }

    /// Ends the stream.
    pub(crate) fn hang_up(&mut self) {
        self.stream = None;
    }

    /// The relay ends.
    pub(crate) fn lose_relay(&mut self) {
        self.relay = Some(End::default());
        self.is_silent = true;
    }

    /// What came by the relay.
    fn relayed(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut datagrams = Vec::new();
        if let Some(End { receivers, .. }) = &mut self.relay {
            receivers.look();
            receivers.read(|burst| {
                let Label { relayed, media, .. } = burst.label;
                assert_eq!(relayed, self.address);
                datagrams.extend(burst.into_datagrams().map(|one| (media, one.to_vec())));
            });
        }
        datagrams
    }

    /// What came by the stream (RFC 4571 §2).
    fn frames(&mut self) -> Vec<Vec<u8>> {
        let Some((stream, bytes)) = &mut self.stream else {
            return Vec::new();
        };
        let mut buffer = [0; 65_536];
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..len]);
        }
        let mut frames = Vec::new();
        while let Some((prefix, rest)) = bytes.split_first_chunk::<2>() {
            let Some(frame) = rest.get(..usize::from(u16::from_be_bytes(*prefix))) else {
                break;
            };
            frames.push(frame.to_vec());
            bytes.drain(..2 + frame.len());
        }
        frames
    }

    fn poll(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                Output::Transmit(transmit)
                    if self.is_mute_in_rtcp && is_rtcp(&transmit.contents) => {}
                Output::Transmit(transmit) if self.is_lost(&transmit.contents) => {}
                Output::Transmit(transmit) => {
                    remember(&mut self.sent, &transmit.contents);
                    if self.is_silent {
                        continue;
                    }
                    if let Some(End { senders, .. }) = &mut self.relay {
                        let label = Label {
                            relayed: self.address,
                            media: transmit.destination,
                            segment: transmit.contents.len(),
                        };
                        senders.write(0, label, &transmit.contents).unwrap();
                        senders.wake();
                        continue;
                    }
                    let Some((stream, _)) = &mut self.stream else {
                        self.socket
                            .send_to(&transmit.contents, transmit.destination)
                            .unwrap();
                        continue;
                    };
                    let len = u16::try_from(transmit.contents.len()).unwrap();
                    let frame = [&len.to_be_bytes()[..], &transmit.contents].concat();
                    stream.write_all(&frame).unwrap();
                }
                Output::Event(Event::Connected) => self.is_connected = true,
                Output::Event(Event::RtpPacket(packet)) => self.received.push(packet),
                Output::Event(Event::KeyframeRequest(request)) => self.asked.push(request),
                Output::Event(Event::ChannelData(said)) => {
                    let place = self.place(said.id).unwrap();
                    self.messages.push((place, said.data));
                }
                Output::Event(Event::ChannelClose(id)) => {
                    let place = self.place(id);
                    self.closed.extend(place);
                }
                Output::Event(_) => {}
            }
        }
    }

    fn is_lost(&mut self, datagram: &[u8]) -> bool {
        self.media += usize::from(is_rtp(datagram));
        is_rtp(datagram)
            && self
                .loses_every
                .is_some_and(|every| self.media.is_multiple_of(every))
    }

    /// Sends a packet of one of its Tracks, with some bytes of its own.
    pub(crate) fn send(&mut self, at: usize, payload: &[u8], marker: bool, step: u32) {
        self.send_encoding(at, 0, payload, marker);
        self.step(at, step);
    }

    /// Sends a packet of a Track that is a picture of its own.
    pub(crate) fn send_payload(&mut self, at: usize, payload: &[u8]) {
        self.send_encoding(at, 0, payload, true);
        self.step(at, 3000);
    }

    /// Sends 20 ms of sound of a loudness.
    pub(crate) fn send_voice(&mut self, at: usize, payload: &[u8], level: i8) {
        self.level = level;
        self.send(at, payload, false, 960);
    }

    /// Lets the clock of a Track go on.
    pub(crate) fn step(&mut self, at: usize, step: u32) {
        let sent = &mut self.tracks[at];
        sent.time = sent.time.wrapping_add(step);
    }

    fn send_encoding(&mut self, at: usize, encoding: usize, payload: &[u8], marker: bool) {
        let pt = self.payload_type(at);
        let sent = &mut self.tracks[at];
        let rid = sent.has_simulcast.then(|| Rid::from(RIDS[encoding]));
        let ext_vals = ExtensionValues {
            audio_level: sent.source.is_audio().then_some(self.level),
            voice_activity: sent.source.is_audio().then_some(true),
            ..ExtensionValues::default()
        };
        let number = SeqNo::from(sent.next[encoding]);
        let write = RtpWrite::new(pt, number, sent.time, Instant::now(), payload.to_vec());
        let write = write
            .marker(marker)
            .ext_vals(ext_vals)
            .nackable(!sent.source.is_audio());
        sent.next[encoding] += 1;
        let mid = sent.mid;
        let mut direct = self.rtc.direct_api();
        direct.stream_tx_by_mid(mid, rid).unwrap().write_rtp(write);
    }

    /// Sends a frame of VP8 of so many packets, each with a byte to know it by.
    pub(crate) fn send_video(
        &mut self,
        at: usize,
        picture: u16,
        is_key_frame: bool,
        packets: u8,
        known_by: u8,
    ) {
        self.send_frame(at, 0, picture, is_key_frame, packets, known_by);
        self.step(at, 3000);
    }

    /// The same of one encoding, without letting the clock go on.
    pub(crate) fn send_frame(
        &mut self,
        at: usize,
        encoding: usize,
        picture: u16,
        is_key_frame: bool,
        packets: u8,
        known_by: u8,
    ) {
        for number in 0..packets {
            let is_last = number + 1 == packets;
            let payload = vp8(picture, is_key_frame, number == 0, known_by);
            self.send_encoding(at, encoding, &payload, is_last);
        }
    }

    /// Whether a key frame of an encoding was asked for since the last call.
    pub(crate) fn take_asked(&mut self, rid: Option<&str>) -> bool {
        let rid = rid.map(Rid::from);
        let before = self.asked.len();
        self.asked.retain(|asked| asked.rid != rid);
        self.asked.len() < before
    }

    /// Sends a compound of RTCP of its own, sealed as its own.
    pub(crate) fn send_rtcp(&mut self, to: SocketAddr, write: impl FnOnce(&mut Builder<'_>)) {
        let mut buffer = [0; 1500];
        let mut builder = Builder::new(&mut buffer[..1300]);
        write(&mut builder);
        let len = builder.len();
        let outbound = self.outbound();
        let len = outbound.seal_rtcp(&mut buffer, len).unwrap();
        self.socket.send_to(&buffer[..len], to).unwrap();
    }

    /// Sends a packet of RTP of its own, sealed as its own, with sequence number and payload.
    pub(crate) fn send_rtp(&mut self, to: SocketAddr, header: &FixedHeader, payload: &[u8]) {
        let mut buffer = [0; 1500];
        let writer = HeaderWriter::new(&mut buffer, header, &[]).unwrap();
        let header_len = writer.finish().unwrap();
        let len = header_len + payload.len();
        buffer[header_len..len].copy_from_slice(payload);
        let index = header.sequence_number.into();
        let outbound = self.outbound();
        let len = outbound
            .seal_rtp(&mut buffer, header_len, len, index)
            .unwrap();
        self.socket.send_to(&buffer[..len], to).unwrap();
    }

    fn outbound(&mut self) -> &mut Outbound {
        if self.outbound.is_none() {
            self.outbound = self.keys.take().map(|(_, outbound)| outbound);
        }
        self.outbound.as_mut().expect("it is connected")
    }

    /// The SSRC and the payload type of a Track.
    pub(crate) fn sends_as(&mut self, at: usize) -> (u32, u8) {
        let payload_type = self.payload_type(at);
        let mid = self.tracks[at].mid;
        let mut direct = self.rtc.direct_api();
        let stream = direct.stream_tx_by_mid(mid, None).unwrap();
        (*stream.ssrc(), *payload_type)
    }

    fn payload_type(&self, at: usize) -> Pt {
        let codec = match self.tracks[at].source.is_audio() {
            true => Codec::Opus,
            false => Codec::Vp8,
        };
        let params = self
            .rtc
            .codec_config()
            .find(|params| params.spec().codec == codec);
        params.unwrap().pt()
    }

    /// What a slot receives as.
    pub(crate) fn ssrc_in(&mut self, slot: Mid) -> u32 {
        let mut direct = self.rtc.direct_api();
        *direct.stream_rx_by_mid(slot, None).unwrap().ssrc()
    }

    /// Asks for a key frame of what is in a slot.
    pub(crate) fn ask_for_key_frame(&mut self, mid: Mid) {
        let mut direct = self.rtc.direct_api();
        let stream = direct.stream_rx_by_mid(mid, None).unwrap();
        stream.request_keyframe(KeyframeRequestKind::Pli);
    }

    /// What came in a slot.
    pub(crate) fn received_in(&mut self, slot: Mid) -> Vec<&RtpPacket> {
        let ssrc = self
            .rtc
            .direct_api()
            .stream_rx_by_mid(slot, None)
            .map(|stream| stream.ssrc());
        let is_it = |packet: &&RtpPacket| Some(packet.header.ssrc) == ssrc;
        self.received.iter().filter(is_it).collect()
    }
}

fn kind(is_audio: bool) -> MediaKind {
    match is_audio {
        true => MediaKind::Audio,
        false => MediaKind::Video,
    }
}

fn remember(datagrams: &mut VecDeque<Vec<u8>>, datagram: &[u8]) {
    if datagrams.len() == REMEMBERED_MAX {
        datagrams.pop_front();
    }
    datagrams.push_back(datagram.to_vec());
}

/// Whether a datagram is SRTCP.
fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.len() > 8 && (128..192).contains(&datagram[0]) && !is_rtp(datagram)
}

/// Whether a datagram is SRTP.
pub(crate) fn is_rtp(datagram: &[u8]) -> bool {
    datagram.len() > 12
        && (128..192).contains(&datagram[0])
        && !(64..96).contains(&(datagram[1] & 0x7F))
}

/// A payload of VP8 (RFC 7741): descriptor with a long picture id, and for a key frame the header of one of 64 by 48 pixels.
pub(crate) fn vp8(picture: u16, is_key_frame: bool, starts_frame: bool, known_by: u8) -> Vec<u8> {
    let [high, low] = (picture | 0x8000).to_be_bytes();
    let starts = u8::from(starts_frame) << 4;
    let mut payload = vec![0x80 | starts, 0x80, high, low];
    match (starts_frame, is_key_frame) {
        (true, true) => payload.extend([0x10, 0x02, 0x00, 0x9D, 0x01, 0x2A, 64, 0, 48, 0]),
        (true, false) => payload.extend([0x11, 0x02, 0x00]),
        (false, _) => {}
    }
    payload.extend([known_by; 900]);
    payload
}

/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
