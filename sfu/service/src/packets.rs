//! A packet's way through a shard.
//!
//! ```text
//! datagram ─▶ what is it (RFC 7983) ─▶ whose is it ─▶ STUN, DTLS ─▶ Peer
//!                                              └────▶ open SRTP ─▶ core ─▶ queue of each receiver
//! queue ─▶ write ─▶ seal ─▶ Exit
//! ```
//!
//! Nothing is kept for a datagram of a stranger: an address becomes somebody's by a STUN request that is signed with a password only
//! their answer held, and what comes from elsewhere is counted and forgotten.

use std::time::{Duration, Instant};

use model::media::{GoneReason, MediaEventKind};
use relay_stun::{AttributeType, Class, Message, Method};
use sfu_core::quality::{Sample, quality};
use sfu_core::{Bitrate, ParticipantKey};
use sfu_rtp::extension::read_transport_sequence_number;
use sfu_rtp::packet::Packet;
use sfu_rtp::rtcp::{self, Compound};
use sfu_rtp::{DatagramKind, classify};

use crate::choice::choose;
use crate::figures::Drop;
use crate::outgoing::Way;
use crate::participant::{Participant, State, Uplink};
use crate::peer::Datagram;
use crate::rooms::Rooms;
use crate::timers::Timer;

/// USE-CANDIDATE (RFC 8445 §16.1).
const USE_CANDIDATE: AttributeType = AttributeType(0x0025);

/// How often connections are looked at.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long nothing may come from a Participant until they count as disconnected. A browser checks its connection every 2.5 seconds
/// at least.
const SILENCE_MAX: Duration = Duration::from_secs(6);

/// How long they may be disconnected until they are given up, or need to connect at first.
pub(crate) const ABSENCE_MAX: Duration = Duration::from_secs(30);

/// Estimates below so many bit/s are counted together.
const ESTIMATES_BPS: [u64; 3] = [150_000, 500_000, 1_500_000];

impl Rooms {
    /// Takes in a datagram, which is decrypted where it lies.
    pub(crate) fn handle_datagram(&mut self, now: Instant, way: Way, bytes: &mut [u8]) {
        self.at_work = None; // Whose it is nobody knows yet.
        self.figures.packets_in += 1;
        self.figures.bytes_in += bytes.len() as u64;
        let kind = classify(bytes);
        if kind == Some(DatagramKind::Stun) {
            self.on_stun(now, way, bytes);
            return;
        }
        let Some(index) = self.participant_by_way.get(&way).copied() else {
            let cause = kind.map_or(Drop::Unreadable, |_| Drop::Stranger);
            self.figures.drop_packet(cause);
            return;
        };
        match kind {
            Some(DatagramKind::Rtp) => self.on_rtp(now, index, bytes),
            Some(DatagramKind::Rtcp) => self.on_rtcp(now, index, bytes),
            Some(DatagramKind::Dtls) => self.on_dtls(now, index, way, bytes),
            Some(DatagramKind::Stun | DatagramKind::TurnChannel) | None => {
                self.figures.drop_packet(Drop::Unreadable);
            }
        }
    }

    /// A Binding request that is signed makes its address the sender's (RFC 8445 §7.3).
    fn on_stun(&mut self, now: Instant, way: Way, bytes: &[u8]) {
        let message = Message::parse(bytes).ok();
        let request = message.filter(|message| {
            (message.class(), message.method()) == (Class::Request, Method::BINDING)
        });
        let Some(request) = request else {
            self.figures.drop_packet(Drop::Stun);
            return;
        };
        let user = request
            .text(AttributeType::USERNAME)
            .and_then(|user| user.split(':').next());
        let index = user
            .and_then(|ufrag| self.participant_by_ufrag.get(ufrag))
            .copied();
        let participant = index.and_then(|index| Some((index, self.participants.get_mut(index)?)));
        let Some((index, participant)) =
            participant.filter(|(_, known)| request.verify_integrity(&known.password))
        else {
            self.figures.drop_packet(Drop::StunPassword);
            return;
        };
        if !participant.may_check(now, way) {
            self.figures.drop_packet(Drop::StunFull);
            return;
        }
        participant.heard_at = now;
        let forgotten = participant.learn(way);
        if request.attribute(USE_CANDIDATE).is_some() {
            participant.way = Some(way);
        }
        if let Some(way) = forgotten {
            self.participant_by_way.remove(&way);
            self.exit.close_way(way);
        }
        let before = self.participant_by_way.insert(way, index);
        if let Some(before) = before.filter(|before| *before != index)
            && let Some(other) = self.participants.get_mut(before)
        {
            // Their address is somebody else's now.
            other.ways.retain(|known| *known != way);
            other.way = other.way.filter(|known| *known != way);
            self.wait(before);
        }
        self.give_peer(now, index, way, bytes);
    }

    /// Gives STUN or DTLS to the library.
    fn give_peer(&mut self, now: Instant, index: usize, way: Way, bytes: &[u8]) {
        let Some((protocol, to)) = self.address_of(way) else {
            return;
        };
        let Some(participant) = self.participants.get_mut(index) else {
            return;
        };
        self.at_work = Some(participant.room);
        let datagram = Datagram {
            protocol,
            from: way.to,
            to,
            bytes,
        };
        match participant.peer.handle_datagram(now, &datagram) {
            Ok(()) => self.poll_peer(now, index, Some(way)),
            Err(broken) => self.break_off(index, broken),
        }
    }

    /// Sends what the library has to say, and hears its news.
    pub(crate) fn poll_peer(&mut self, now: Instant, index: usize, asked: Option<Way>) {
        let Some(participant) = self.participants.get_mut(index) else {
            return;
        };
        let (exit, media) = (&mut self.exit, participant.way);
        let polled = match participant
            .peer
            .poll(|transmit| exit.transmit(transmit, media, asked))
        {
            Ok(polled) => polled,
            Err(broken) => return self.break_off(index, broken),
        };
        participant.peer_due = polled.deadline;
        if participant.keys.is_none() {
            participant.keys = participant.peer.take_keys();
        }
        if polled.closed {
            return self.give_up(index, GoneReason::DtlsFailed);
        }
        if polled.connected && participant.state == State::Connecting {
            participant.state = State::Connected;
            let (id, room) = (participant.id, &self.rooms[participant.room]);
            let kind = MediaEventKind::Connected { participant: id };
            self.outbox.push(room.account, room.id, kind);
        }
        self.wait(index);
        for (channel, is_binary, bytes) in polled.messages {
            self.on_message(now, index, channel, is_binary, &bytes);
        }
        for channel in polled.opened {
            self.on_open(index, channel);
        }
        self.tell_closed(index);
    }

    /// DTLS carries data channels, which are no way around what may be sent.
    fn on_dtls(&mut self, now: Instant, index: usize, way: Way, bytes: &[u8]) {
        let participant = &mut self.participants[index];
        match participant.takes(now, bytes.len()) {
            true => self.give_peer(now, index, way, bytes),
            false => self.figures.drop_packet(Drop::IntakeFull),
        }
    }

    fn on_rtp(&mut self, now: Instant, index: usize, bytes: &mut [u8]) {
        let participant = &mut self.participants[index];
        let Some((inbound, _)) = &mut participant.keys else {
            return self.figures.drop_packet(Drop::Early);
        };
        let len = bytes.len();
        let Ok(opened) = inbound.open_rtp(bytes) else {
            return self.figures.drop_packet(Drop::Srtp);
        };
        participant.heard_at = now;
        let Ok(packet) = Packet::parse(&bytes[..opened.len]) else {
            return self.figures.drop_packet(Drop::Rtp);
        };
        let header = packet.header();
        participant.ssrc_seen = header.ssrc();
        if let Uplink::Arrivals(arrivals) = &mut participant.uplink
            && let Some(id) = participant.sequence_id
            && let Some(sequence) = header
                .extension(id)
                .and_then(read_transport_sequence_number)
        {
            arrivals.handle_packet(now, sequence, u16::try_from(len).unwrap_or(u16::MAX));
        }
        if !participant.takes(now, len) {
            return self.figures.drop_packet(Drop::IntakeFull);
        }
        let (at, key) = (participant.room, participant.key);
        self.forward(now, at, key, &packet);
        self.wait(index); // Its feedback may be due.
    }

    /// Gives a packet of a Participant to the Room's core, and what becomes of it to those it is for.
    pub(crate) fn forward(
        &mut self,
        now: Instant,
        at: usize,
        key: ParticipantKey,
        packet: &Packet<'_>,
    ) {
        self.at_work = Some(at);
        let arrived = self.rooms[at]
            .core
            .handle_rtp(now, key, packet, &mut self.forwards);
        if arrived.is_err() {
            self.figures.drop_packet(Drop::NotForwarded);
        }
        self.distribute(now, at);
        self.touch(at);
    }

    fn on_rtcp(&mut self, now: Instant, index: usize, bytes: &mut [u8]) {
        let participant = &mut self.participants[index];
        let Some((inbound, _)) = &mut participant.keys else {
            return self.figures.drop_packet(Drop::Early);
        };
        let Ok(len) = inbound.open_rtcp(bytes) else {
            return self.figures.drop_packet(Drop::Srtp);
        };
        participant.heard_at = now;
        if !participant.takes(now, len) {
            return self.figures.drop_packet(Drop::IntakeFull);
        }
        let (at, key) = (participant.room, participant.key);
        self.at_work = Some(at);
        for packet in Compound::parse(&bytes[..len]) {
            match packet {
                Ok(rtcp::Packet::TransportFeedback(feedback)) => {
                    let statuses = feedback.statuses();
                    let statuses =
                        statuses.map(|status| (status.sequence_number, status.arrival_micros));
                    participant.downlink.handle_twcc(now, statuses);
                }
                Ok(rtcp::Packet::Remb(remb)) => {
                    let is_named = |ssrc| remb.ssrcs().any(|named| named == ssrc);
                    let (named, beside) = self.rooms[at].core.forwarded(key, is_named);
                    let remb = Bitrate::bps(remb.bits_per_second);
                    participant.downlink.handle_remb(now, remb, named, beside);
                }
                Ok(packet) => {
                    self.rooms[at]
                        .core
                        .handle_rtcp(now, key, &packet, &mut self.forwards);
                }
                Err(_) => {
                    self.figures.drop_packet(Drop::Rtp);
                    break;
                }
            }
        }
        let core = &mut self.rooms[at].core;
        if let Some(lost) = core.take_loss(key) {
            participant
                .downlink
                .handle_report(now, lost, core.round_trip(key));
        }
        self.distribute(now, at);
        self.touch(at);
        self.wait(index);
    }

    /// Puts what a packet became into the queues of those it is for.
    pub(crate) fn distribute(&mut self, now: Instant, at: usize) {
        let mut forwards = std::mem::take(&mut self.forwards);
        for forward in forwards.drain(..) {
            let Some(index) = self.rooms[at].place(forward.participant()) else {
                self.give_plain(at, &forward);
                continue;
            };
            let Some(participant) = self.participants.get_mut(index) else {
                continue;
            };
            if !participant.push(now, forward) {
                self.figures.drop_packet(Drop::DownlinkFull);
            }
            self.wait(index);
        }
        self.forwards = forwards;
    }

    /// Does what is due.
    pub(crate) fn handle_timeouts(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
            self.at_work = None;
            match timer {
                Timer::Room(at) => {
                    let Some(room) = self.rooms.get_mut(at) else {
                        continue;
                    };
                    room.due = None;
                    self.at_work = Some(at);
                    room.core.handle_timeout(now);
                    self.touch(at);
                }
                Timer::Plain(index) => self.look_at_plain(now, index),
                Timer::Participant(index) => {
                    let Some(participant) = self.participants.get_mut(index) else {
                        continue;
                    };
                    participant.due = None;
                    self.at_work = Some(participant.room);
                    if participant.peer_due.is_some_and(|at| at <= now) {
                        match participant.peer.handle_timeout(now) {
                            Ok(()) => self.poll_peer(now, index, None),
                            Err(broken) => self.break_off(index, broken),
                        }
                    }
                    self.wait(index);
                    self.choose(now, index);
                    self.look(now, index);
                }
            }
        }
    }

    /// Chooses the Layers a Participant is sent, if it is time.
    fn choose(&mut self, now: Instant, index: usize) {
        let Some(participant) = self.participants.get_mut(index) else {
            return;
        };
        if participant.choose_due.is_none_or(|at| at > now) {
            return;
        }
        let at = participant.room;
        self.at_work = Some(at);
        let room = &mut self.rooms[at];
        let news = choose(now, &mut room.core, participant);
        for (track, paused) in news {
            let kind = MediaEventKind::Paused {
                participant: participant.id,
                track,
                paused,
            };
            self.outbox.push(room.account, room.id, kind);
        }
        self.touch(at);
    }

    /// Looks whether a Participant is still there.
    fn look(&mut self, now: Instant, index: usize) {
        let Some(participant) = self
            .participants
            .get_mut(index)
            .filter(|known| known.look_due <= now)
        else {
            return;
        };
        participant.look_due = now + LOOK_INTERVAL;
        let silence = now.saturating_duration_since(participant.heard_at);
        let id = participant.id;
        if participant.state != State::Connecting {
            let core = &self.rooms[participant.room].core;
            let uplink = core.uplink(participant.key);
            let round_trip = participant.downlink.round_trip();
            let round_trip = round_trip.max(core.round_trip(participant.key));
            let sample = Sample {
                loss: participant.downlink.loss().max(uplink.loss()),
                round_trip: round_trip.unwrap_or_default(),
                jitter: uplink.jitter,
                estimate: participant.downlink.estimate(),
                wished: participant.wished,
                silence,
            };
            if let Some(quality) = participant.quality.update(now, quality(&sample)) {
                let room = &self.rooms[participant.room];
                let kind = MediaEventKind::Quality {
                    participant: id,
                    quality,
                };
                self.outbox.push(room.account, room.id, kind);
            }
        }
        // Who does not get as far as to have keys may ask for ever.
        let absence = match participant.state {
            State::Connecting => now.saturating_duration_since(participant.joined_at),
            State::Connected | State::Disconnected => silence,
        };
        let kind = match participant.state {
            State::Connecting | State::Disconnected if absence > ABSENCE_MAX => {
                return self.give_up(index, GoneReason::Unreachable);
            }
            State::Connected if silence > SILENCE_MAX => {
                participant.state = State::Disconnected;
                MediaEventKind::Disconnected { participant: id }
            }
            State::Disconnected if silence < SILENCE_MAX => {
                participant.state = State::Connected;
                MediaEventKind::Connected { participant: id }
            }
            _ => return,
        };
        let room = &self.rooms[participant.room];
        self.outbox.push(room.account, room.id, kind);
    }

    /// Tells the cores who can be reached from now on, and who no more: what they see begins with the answer to that, and nothing is
    /// numbered that would never leave.
    fn reach(&mut self, now: Instant) {
        for place in 0..self.waiting.len() {
            let participant = self.participants.get_mut(self.waiting[place]);
            let is_other = |participant: &&mut Participant| {
                participant.is_reached != participant.can_be_reached()
            };
            if let Some(participant) = participant.filter(is_other) {
                let is_reached = participant.can_be_reached();
                participant.is_reached = is_reached;
                let at = participant.room;
                self.at_work = Some(at);
                self.rooms[at]
                    .core
                    .set_reachable(now, participant.key, is_reached);
                self.touch(at);
            }
        }
    }

    /// Ends a turn: hears the cores, and sends all there is.
    pub(crate) fn finish_turn(&mut self, now: Instant) {
        self.send_messages(now);
        self.reach(now);
        while let Some(at) = self.touched.pop() {
            if let Some(room) = self.rooms.get_mut(at) {
                room.is_touched = false;
                self.at_work = Some(at);
                self.fill_slots(now, at);
                self.tell_slots(at);
                self.send_rtcp(now, at);
                if let Some(room) = self.rooms.get_mut(at) {
                    let next = room.core.poll_timeout();
                    self.timers.set(Timer::Room(at), &mut room.due, Some(next));
                }
            }
        }
        while let Some(index) = self.waiting.pop() {
            let Some(participant) = self.participants.get_mut(index) else {
                continue;
            };
            participant.is_waiting = false;
            self.at_work = Some(participant.room);
            let core = &mut self.rooms[participant.room].core;
            participant.send(now, self.started, core, &mut self.exit, &mut self.figures);
            participant.send_feedback(now, &mut self.exit);
            let next = participant.next_due(now);
            self.timers
                .set(Timer::Participant(index), &mut participant.due, Some(next));
        }
        self.at_work = None;
        self.exit.flush();
        self.outbox.flush();
    }

    /// Sends what the core of a Room reports and asks for.
    fn send_rtcp(&mut self, now: Instant, at: usize) {
        let Some(room) = self.rooms.get_mut(at) else {
            return;
        };
        loop {
            let space = self.exit.space();
            let Some((key, len)) = room.core.poll_rtcp(now, space) else {
                return;
            };
            let participant = room
                .place(key)
                .and_then(|index| self.participants.get_mut(index));
            let Some(participant) = participant else {
                continue;
            };
            if let (Some((_, outbound)), Some(way)) = (&mut participant.keys, participant.way)
                && let Ok(len) = outbound.seal_rtcp(space, len)
            {
                self.exit.put(way, len);
            }
        }
    }

    /// Counts what is there now.
    pub(crate) fn take_stock(&mut self) {
        let figures = &mut self.figures;
        figures.rooms = self.rooms.len();
        figures.participants = self.participants.len();
        figures.connected = 0;
        figures.estimates = [0; 4];
        figures.estimates_bps = 0;
        for (_, participant) in &self.participants {
            if participant.state == State::Connected {
                let estimate = participant.downlink.estimate().as_bps();
                figures.connected += 1;
                figures.estimates_bps += estimate;
                let at = ESTIMATES_BPS.iter().position(|below| estimate < *below);
                figures.estimates[at.unwrap_or(ESTIMATES_BPS.len())] += 1;
            }
        }
        self.count_plain();
        let figures = &mut self.figures;
        figures.rooms_counted = self.ended;
        for (_, room) in &self.rooms {
            figures.rooms_counted.add(room.core.stats());
        }
        let sent = self.exit.sent();
        figures.packets_out = sent.packets;
        figures.bytes_out = sent.bytes;
        figures.calls_out = sent.calls;
        figures.relayed_out = sent.relayed;
        figures.set_dropped(Drop::SocketFull, sent.refused);
        figures.set_dropped(Drop::RelayFull, sent.relay_full);
        figures.set_dropped(Drop::RelayGone, sent.relay_gone);
    }
}
