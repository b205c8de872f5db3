//! A WebRTC client without picture or sound, on the sans-IO stack `rtc`: independent of the server's in every layer.
//!
//! It behaves as a browser does: reports what it received and lost (RR, transport-wide feedback), asks again for what is missing
//! (NACK), resends what others miss, and asks for a key frame when it has none (PLI).
//!
//! ```text
//! Peer::new(role) ── offer ──▶ signaling ── answer ──▶ accept      (or the server offers: answer)
//!                              handle_datagram, handle_tick, send_* ──▶ its own UDP socket
//! ```

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{
    CandidateConfig, CandidateHostConfig, RTCIceCandidate, RTCIceCandidateInit,
};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use sfu_rtp::extension::ExtensionKind;
use sfu_rtp::payload::vp8;
use socket2::SockRef;

use super::abilities::{OPUS, VP8, abilities, certificate};
use super::media;
use super::tally::Stream;
use super::tracks::{Kind, Role, Sent, add_track, timestamp};

/// How often ICE looks for the server while it has not answered: as browsers do. The library's 200 ms would be most of a join.
const ICE_INTERVAL: Duration = Duration::from_millis(50);
const ICE_REQUESTS_MAX: u16 = 200;

/// How often a picture is asked for while there is none.
const PLI_INTERVAL: Duration = Duration::from_millis(500);

/// Datagrams of one socket taken in a row, so that nobody waits long behind another.
const TURN: usize = 64;

/// What the kernel keeps for a socket, in bytes, as far as the system lets us.
const BUFFER_BYTES: usize = 1024 * 1024;

/// How far a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Connected,
    Failed,
}

/// A client.
pub(crate) struct Peer {
    connection: RTCPeerConnection,
    socket: UdpSocket,
    local: SocketAddr,
    sent: Vec<Sent>,
    pub(crate) streams: Vec<Stream>,
    /// How long packets were under way; whoever looks takes them out.
    pub(crate) delays: Vec<Duration>,
    pub(crate) state: State,
    pub(crate) began: Instant,
    pub(crate) connected: Option<Instant>,
    pub(crate) first_media: Option<Instant>,
    /// What went wrong with it.
    pub(crate) fault: Option<String>,
    /// Media packets sent.
    pub(crate) sent_packets: u64,
    generation: u32,
}

impl Peer {
    /// A client with a socket at `ip`, which does nothing before it has a description of the other side.
    pub(crate) fn new(ip: IpAddr, role: &Role) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((ip, 0)).with_context(|| format!("no socket at {ip}"))?;
        socket.set_nonblocking(true)?;
        // More than the system allows is cut, not refused.
        SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES)?;
        let local = socket.local_addr()?;

        let now = Instant::now();
        let (engine, registry) = abilities()?;
        let settings = SettingEngineBuilder::new()
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])
            .with_include_loopback_candidate(true)
            .with_ice_connection_attempts(Some(ICE_INTERVAL), Some(ICE_REQUESTS_MAX))
            .with_host_acceptance_min_wait(Some(Duration::ZERO))
            .build();
        let configuration = RTCConfigurationBuilder::new()
            .with_certificates(vec![certificate()?])
            .build();
        let mut connection = RTCPeerConnectionBuilder::new()
            .with_configuration(configuration)
            .with_setting_engine(settings)
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .build(now)?;

        let mut sent = Vec::new();
        for (number, kind) in role.sends.iter().enumerate() {
            sent.push(add_track(&mut connection, number, *kind, role)?);
        }
        let slots = [
            (RtpCodecKind::Audio, role.audio_slots),
            (RtpCodecKind::Video, role.video_slots),
        ];
        for (kind, count) in slots {
            for _ in 0..count {
                let receive = RTCRtpTransceiverInit {
                    direction: RTCRtpTransceiverDirection::Recvonly,
                    ..RTCRtpTransceiverInit::default()
                };
                connection.add_transceiver_from_kind(kind, Some(receive))?;
            }
        }
        Ok(Self {
            connection,
            socket,
            local,
            sent,
            streams: Vec::new(),
            delays: Vec::new(),
            state: State::Connecting,
            began: now,
            connected: None,
            first_media: None,
            fault: None,
            sent_packets: 0,
            generation: 0,
        })
    }

    /// Describes itself to a server that answers.
    pub(crate) fn offer(&mut self) -> anyhow::Result<String> {
        let offer = self.connection.create_offer(None)?;
        self.connection
            .set_local_description(Instant::now(), offer.clone())?;
        self.generation += 1;
        self.add_candidate()?;
        self.read_mids();
        Ok(offer.sdp)
    }

    /// The number of the last offer.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Takes the answer to its offer, and begins to connect.
    pub(crate) fn accept(&mut self, answer: String) -> anyhow::Result<()> {
        let answer = RTCSessionDescription::answer(answer)?;
        self.connection
            .set_remote_description(Instant::now(), answer)?;
        self.read_extensions();
        self.flush(Instant::now())
    }

    /// Describes itself to a server that offers, and begins to connect.
    pub(crate) fn answer(&mut self, offer: String) -> anyhow::Result<String> {
        let offer = RTCSessionDescription::offer(offer)?;
        self.connection
            .set_remote_description(Instant::now(), offer)?;
        self.add_candidate()?;
        let answer = self.connection.create_answer(None)?;
        self.connection
            .set_local_description(Instant::now(), answer.clone())?;
        self.read_mids();
        self.read_extensions();
        self.flush(Instant::now())?;
        Ok(answer.sdp)
    }

    /// Its own Tracks: `mid` and kind.
    pub(crate) fn tracks(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.sent.iter().map(|sent| (sent.mid.as_str(), sent.kind))
    }

    /// Pauses Layers of one of its Tracks, or sends them again.
    pub(crate) fn set_layers(&mut self, mid: &str, wanted: &[(String, bool)]) {
        let Some(sent) = self.sent.iter_mut().find(|sent| sent.mid == mid) else {
            return;
        };
        for layer in &mut sent.layers {
            if let Some((_, wanted)) = wanted.iter().find(|(rid, _)| rid == layer.rid) {
                let begins = layer.is_paused && *wanted;
                layer.is_paused = !wanted;
                if begins {
                    layer.camera.ask_for_key_frame();
                }
            }
        }
    }

    /// Gives up, and keeps why.
    pub(crate) fn fail(&mut self, error: &anyhow::Error) {
        self.state = State::Failed;
        self.fault.get_or_insert(format!("{error:#}"));
    }

    /// Takes in what the socket has.
    pub(crate) fn handle_readable(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
    ) -> anyhow::Result<()> {
        for _ in 0..TURN {
            let (len, peer_addr) = match self.socket.recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // News of an earlier datagram that nobody took.
                Err(_) => continue,
            };
            let datagram = TaggedBytesMut {
                now,
                transport: TransportContext {
                    local_addr: self.local,
                    peer_addr,
                    ecn: None,
                    transport_protocol: TransportProtocol::UDP,
                },
                message: BytesMut::from(&buffer[..len]),
            };
            // What can't be read is lost, as for a browser, and shows in the counts.
            self.connection.handle_read(datagram).ok();
        }
        self.take_messages(now)?;
        self.flush(now)
    }

    /// Does what is due.
    pub(crate) fn handle_tick(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now)?;
        }
        self.ask_for_pictures(now)?;
        self.flush(now)
    }

    /// Sends the next frame of each camera.
    pub(crate) fn send_video(&mut self, now: Instant) -> anyhow::Result<()> {
        for at in 0..self.sent.len() {
            let sent = &mut self.sent[at];
            if sent.kind.is_audio() {
                continue;
            }
            sent.packets += 1;
            let timestamp = timestamp(sent.packets, 90 * 40);
            for number in 0..sent.layers.len() {
                let sent = &mut self.sent[at];
                let layer = &mut sent.layers[number];
                if layer.is_paused {
                    continue;
                }
                let count = layer.camera.next_frame(now);
                for packet in 0..count {
                    let layer = &self.sent[at].layers[number];
                    let payload = layer.camera.payload(packet);
                    let rid = layer.rid;
                    let marker = packet + 1 == count;
                    self.send(
                        now,
                        at,
                        number,
                        (VP8, timestamp, marker),
                        payload,
                        |sent, header| {
                            if let Some(id) = sent.rid_id.filter(|_| !rid.is_empty()) {
                                header.set_extension(id, Bytes::from_static(rid.as_bytes()))?;
                            }
                            Ok(())
                        },
                    )?;
                }
            }
        }
        self.flush(now)
    }

    /// Sends the next packet of each microphone; `number` says when it is its turn to speak.
    pub(crate) fn send_audio(&mut self, now: Instant, number: usize) -> anyhow::Result<()> {
        for at in 0..self.sent.len() {
            let sent = &mut self.sent[at];
            if !sent.kind.is_audio() {
                continue;
            }
            sent.packets += 1;
            let level = media::level(number, sent.packets);
            let speaks = level & media::VOICE != 0;
            let payload = match &sent.sound {
                Some(sound) => sound.payload(usize::try_from(sent.packets)?, speaks),
                None => media::speech(),
            };
            let timestamp = timestamp(sent.packets, 48 * 20);
            self.send(
                now,
                at,
                0,
                (OPUS, timestamp, false),
                payload,
                |sent, header| {
                    if let Some(id) = sent.level_id {
                        header.set_extension(id, Bytes::copy_from_slice(&[level]))?;
                    }
                    Ok(())
                },
            )?;
        }
        self.flush(now)
    }

    fn send(
        &mut self,
        now: Instant,
        at: usize,
        layer: usize,
        (payload_type, timestamp, marker): (u8, u32, bool),
        payload: Vec<u8>,
        extend: impl FnOnce(&Sent, &mut rtp::Header) -> rtc::shared::error::Result<()>,
    ) -> anyhow::Result<()> {
        let sent = &mut self.sent[at];
        let layer = &mut sent.layers[layer];
        layer.sequence = layer.sequence.wrapping_add(1);
        let mut header = rtp::Header {
            version: 2,
            marker,
            payload_type,
            sequence_number: layer.sequence,
            timestamp,
            ssrc: layer.ssrc,
            ..rtp::Header::default()
        };
        if let Some(id) = sent.mid_id {
            header.set_extension(id, Bytes::copy_from_slice(sent.mid.as_bytes()))?;
        }
        extend(sent, &mut header)?;
        let packet = rtp::Packet {
            header,
            payload: payload.into(),
        };
        let message = RTCMessage::RtpPacket(sent.track_id.clone(), packet);
        self.connection
            .handle_write(TaggedRTCMessage { now, message })?;
        self.sent_packets += 1;
        Ok(())
    }

    fn take_messages(&mut self, now: Instant) -> anyhow::Result<()> {
        let clock = media::clock();
        while let Some(TaggedRTCMessage { message, .. }) = self.connection.poll_read() {
            match message {
                RTCMessage::RtpPacket(_, packet) => self.on_media(now, clock, &packet),
                RTCMessage::RtcpPacket(_, packets) => {
                    for packet in packets {
                        let any = packet.as_any();
                        if let Some(pli) = any.downcast_ref::<PictureLossIndication>() {
                            self.on_picture_wanted(pli.media_ssrc);
                        } else if let Some(fir) = any.downcast_ref::<FullIntraRequest>() {
                            fir.fir
                                .iter()
                                .for_each(|entry| self.on_picture_wanted(entry.ssrc));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn on_media(&mut self, now: Instant, clock: u64, packet: &rtp::Packet) {
        let ssrc = packet.header.ssrc;
        let at = match self.streams.iter().position(|stream| stream.ssrc == ssrc) {
            Some(at) => at,
            None => {
                self.streams
                    .push(Stream::new(ssrc, packet.header.payload_type == OPUS));
                self.streams.len() - 1
            }
        };
        let stream = &mut self.streams[at];
        let is_key_frame = !stream.is_audio
            && vp8::Descriptor::parse(&packet.payload).is_ok_and(|descriptor| {
                descriptor.is_key_frame && descriptor.is_start_of_picture()
            });
        let age = media::age(&packet.payload, clock);
        let number = packet.header.sequence_number;
        let is_news = stream.receive(number, packet.payload.len(), is_key_frame);
        if let Some(age) = age.filter(|_| is_news) {
            self.first_media.get_or_insert(now);
            self.delays.push(age);
        }
    }

    fn on_picture_wanted(&mut self, ssrc: u32) {
        let layers = self.sent.iter_mut().flat_map(|sent| &mut sent.layers);
        if let Some(layer) = layers.into_iter().find(|layer| layer.ssrc == ssrc) {
            layer.camera.ask_for_key_frame();
        }
    }

    fn ask_for_pictures(&mut self, now: Instant) -> anyhow::Result<()> {
        for stream in &mut self.streams {
            let is_due = stream
                .asked
                .is_none_or(|at| now.duration_since(at) >= PLI_INTERVAL);
            if stream.is_audio || stream.key_frames > 0 || !is_due {
                continue;
            }
            stream.asked = Some(now);
            let request = PictureLossIndication {
                sender_ssrc: 1,
                media_ssrc: stream.ssrc,
            };
            let message = RTCMessage::RtcpPacket(String::new(), vec![Box::new(request)]);
            self.connection
                .handle_write(TaggedRTCMessage { now, message })?;
        }
        Ok(())
    }

    fn flush(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(datagram) = self.connection.poll_write() {
            // A full socket loses it, as any network might.
            self.socket
                .send_to(&datagram.message, datagram.transport.peer_addr)
                .ok();
        }
        while let Some(event) = self.connection.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                match state {
                    RTCPeerConnectionState::Connected => {
                        self.state = State::Connected;
                        self.connected.get_or_insert(now);
                    }
                    RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => {
                        self.state = State::Failed;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn add_candidate(&mut self) -> anyhow::Result<()> {
        let host = CandidateHostConfig {
            base_config: CandidateConfig {
                network: "udp".to_owned(),
                address: self.local.ip().to_string(),
                port: self.local.port(),
                component: 1,
                ..CandidateConfig::default()
            },
            ..CandidateHostConfig::default()
        };
        let host = RTCIceCandidate::from(&host.new_candidate_host()?).to_json()?;
        self.connection.add_local_candidate(host)?;
        // Says that there are no more.
        Ok(self
            .connection
            .add_local_candidate(RTCIceCandidateInit::default())?)
    }

    fn read_mids(&mut self) {
        // Own Tracks were added before anything else, so they have the first transceivers.
        for (at, sent) in self.sent.iter_mut().enumerate() {
            let transceiver = self.connection.rtp_transceiver(at);
            if let Some(mid) = transceiver.and_then(|transceiver| transceiver.mid().clone()) {
                sent.mid = mid;
            }
        }
    }

    fn read_extensions(&mut self) {
        for (at, sent) in self.sent.iter_mut().enumerate() {
            let Some(mut sender) = self.connection.rtp_sender(at.into()) else {
                continue;
            };
            let extensions = &sender.get_parameters().rtp_parameters.header_extensions;
            let id = |kind: ExtensionKind| {
                let extension = extensions
                    .iter()
                    .find(|extension| extension.uri == kind.uri())?;
                u8::try_from(extension.id).ok()
            };
            sent.mid_id = id(ExtensionKind::Mid);
            sent.rid_id = id(ExtensionKind::Rid);
            sent.level_id = id(ExtensionKind::AudioLevel);
        }
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
