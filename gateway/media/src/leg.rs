//! One side of a phone call: the sound of a SIP Leg, from packets to packets.
//!
//! ```text
//!            handle_rtp   ┌──────────────────────────────────────────┐
//! phone ── datagrams ──▶  │ Latch ─ SRTP ─ Receiving ─▶ frame ─▶ Line │ ──▶ Room
//!       ◀─ tick ────────  │         SRTP ─ Sending ◀─ frame ◀─ Line   │ ◀── Room
//!                         └──────────────────────────────────────────┘
//!                              poll_event: keys, silence, the end of the Room
//! ```
//!
//! Where both sides of it speak the same, packets go on as they came ([`Leg::pass_on`]): nothing is read, coded or held back.
//!
//! The driver has the sockets and the clock: it gives datagrams as they come, calls [`Leg::tick`] every 20 ms and
//! [`Leg::pass_on`] as often as it likes. What the other side
//! sends can do nothing but be dropped, and counted by cause.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gateway_sip::negotiate::{Agreed, Codec, Keys};
use gateway_sip::sdes::MasterKey;
use gateway_sip::sdp::Direction;
use model::id::TrackId;
use model::plain::End;
use sfu_rtp::packet::Packet;
use sfu_rtp::rtcp::{self, Builder, Compound, NtpTime, ReportBlock};
use sfu_rtp::srtp::{Inbound, OVERHEAD_MAX};
use sfu_rtp::{DatagramKind, classify};

use crate::dtmf::Key;
use crate::latch::{Latch, Sign};
use crate::line::{Far, Line, Passing};
use crate::player::{self, Player};
use crate::receiving::{Heard, Kind, Receiving};
use crate::recorder::{Stopped, Tape};
use crate::sending::{Sending, key_out};
use crate::sounds::Sound;
use crate::{FRAME, FRAME_LEN_MAX, profile, quality};

pub use crate::quality::Figures;

/// How often reports are sent (RFC 3550 §6.2).
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// The most events that wait; nobody presses keys as fast.
const EVENTS_MAX: usize = 64;

/// Bytes of a compound of ours, before it is sealed.
const REPORT_LEN_MAX: usize = 200;

/// What a Leg begins with.
#[derive(Debug, Clone)]
pub struct Start {
    /// The wall clock at the beginning.
    pub wall: NtpTime,
    /// Random, as are all below.
    pub ssrc: u32,
    /// The sequence number.
    pub sequence: u16,
    /// The timestamp.
    pub timestamp: u32,
    /// What we call ourselves in RTCP (RFC 7022).
    pub cname: String,
    /// How long nothing is heard before [`Event::Silent`].
    pub silent_after: Duration,
}

/// What a Leg speaks with.
#[derive(Debug)]
pub enum To {
    /// Nobody: it hears silence.
    Nothing,
    /// A Room, by its end of a [`model::plain::pair`]; the Track is its own there.
    Room(End, TrackId),
    /// Another Leg, likewise.
    Leg(End, TrackId),
    /// What another Leg was in its Room.
    Place(Place),
    /// It hears a ringing tone.
    Ringback,
    /// It hears music.
    Music,
    /// It hears what is played, and of the end [`Event::Played`] tells by this number.
    Player(Box<Player>, u32),
}

/// What a Leg is in a Room, on its way to another Leg: to those in the Room it stays the same.
#[derive(Debug)]
pub struct Place(Box<Line>);

/// Which of the two sockets of a Leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// That of RTP.
    Rtp,
    /// That of RTCP.
    Rtcp,
}

/// What a Leg has to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A key was pressed.
    Key(char),
    /// Nothing came for too long though it should; told once until something comes.
    Silent,
    /// The Room has ended or let the Leg go: it speaks with nobody now.
    Left,
    /// What was played has come to its end; the number is that of [`To::Player`].
    Played(u32),
    /// The tape wants to be taken ([`Leg::take_tape`]).
    Stopped(Stopped),
}

/// Why sound can't flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unable {
    /// Keys by DTLS.
    #[error("keys by DTLS are not there yet")]
    Dtls,
    /// A key of the wrong length.
    #[error("an SRTP key of the wrong length")]
    Key,
}

macro_rules! drops {
    ($($(#[doc = $doc:literal])* $name:ident = $label:literal,)*) => {
        /// Why something that came was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Drop {
            $($(#[doc = $doc])* $name,)*
        }

        impl Drop {
            /// All causes.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$name),*];

            /// The cause as the label of a metric.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

drops! {
    /// Before anything was agreed on.
    Early = "early",
    /// Neither RTP nor RTCP, or such as can't be read.
    Unreadable = "unreadable",
    /// Not authentic, or it came before.
    Srtp = "srtp",
    /// Of a payload type that was not agreed on.
    PayloadType = "payload_type",
    /// From an address that is not the other side's.
    Stranger = "stranger",
}

/// How many of each cause were dropped, in the order of [`Drop::ALL`].
pub type Drops = [u64; Drop::ALL.len()];

/// The sound of a Leg.
#[derive(Debug)]
pub struct Leg {
    began: Instant,
    wall: NtpTime,
    cname: String,
    silent_after: Duration,
    agreed: Option<Terms>,
    latch: Latch,
    inbound: Option<(MasterKey, Inbound)>,
    sending: Sending,
    receiving: Receiving,
    to: With,
    /// What the phone sends goes on as it comes.
    is_passing: bool,
    /// What was heard until now, for the frame in which it goes.
    before: Option<With>,
    tape: Option<Box<Tape>>,
    events: VecDeque<Event>,
    /// When something came last, or should have begun to; and whether it was told that nothing does.
    heard_at: Instant,
    is_silent: bool,
    report_at: Instant,
    reported: u64,
    round_trip: Option<Duration>,
    remote: Option<ReportBlock>,
    drops: Drops,
}

/// What of an agreement the Leg itself goes by.
#[derive(Debug, Clone, Copy)]
struct Terms {
    direction: Direction,
    rtcp: SocketAddr,
    /// RTCP goes the way of RTP (RFC 5761).
    is_muxed: bool,
    packet_ms: u32,
}

#[derive(Debug)]
enum With {
    Nothing,
    Room(Box<Line>),
    Sound(Sound),
    Player(Box<Player>, u32),
}

impl Leg {
    /// A Leg that has agreed on nothing yet.
    #[must_use]
    pub fn new(now: Instant, start: Start) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            began: now,
            wall: start.wall,
            cname: start.cname,
            silent_after: start.silent_after,
            agreed: None,
            latch: Latch::new(nowhere),
            inbound: None,
            sending: Sending::new(start.ssrc, start.sequence, start.timestamp),
            receiving: Receiving::new(now, u64::from(start.ssrc)),
            to: With::Nothing,
            is_passing: false,
            before: None,
            tape: None,
            events: VecDeque::with_capacity(EVENTS_MAX),
            heard_at: now,
            is_silent: false,
            report_at: now + REPORT_INTERVAL,
            reported: 0,
            round_trip: None,
            remote: None,
            drops: Drops::default(),
        }
    }

    /// Goes by what both sides agreed on, the first time or anew.
    ///
    /// # Errors
    ///
    /// [`Unable`]: nothing is sent or heard then.
    pub fn agree(&mut self, now: Instant, agreed: &Agreed) -> Result<(), Unable> {
        self.agreed = None;
        match &agreed.keys {
            Keys::None => self.inbound = None,
            Keys::Sdes { suite, remote, .. } => {
                // The same key goes on: what came once does not come again.
                if self.inbound.as_ref().is_none_or(|(key, _)| key != remote) {
                    let profile = profile(*suite);
                    let (key, salt) = remote.bytes().split_at(profile.key_len());
                    let inbound = Inbound::new(profile, key, salt).map_err(|_| Unable::Key)?;
                    self.inbound = Some((remote.clone(), inbound));
                }
            }
            Keys::Dtls { .. } => return Err(Unable::Dtls),
        }
        if !self.sending.protect(key_out(agreed)) {
            return Err(Unable::Key);
        }
        self.sending.agree(agreed);
        self.receiving.agree(agreed);
        self.latch.renew(agreed.remote);
        self.heard_at = now;
        self.is_silent = false;
        self.agreed = Some(Terms {
            direction: agreed.direction,
            rtcp: agreed.remote_rtcp,
            is_muxed: agreed.remote_rtcp == agreed.remote,
            packet_ms: agreed.packet_ms,
        });
        self.announce();
        Ok(())
    }

    /// Speaks with somebody else from now on. What is heard gives way to it within 20 ms.
    pub fn connect(&mut self, to: To) {
        let to = match to {
            To::Nothing => With::Nothing,
            To::Room(end, track) => With::Room(Box::new(Line::new(end, track, Far::Room))),
            To::Leg(end, track) => {
                let far = Far::Leg(Codec::Opus);
                With::Room(Box::new(Line::new(end, track, far)))
            }
            To::Place(Place(line)) => With::Room(line),
            To::Ringback => With::Sound(Sound::ringing()),
            To::Music => With::Sound(Sound::music()),
            To::Player(player, number) => With::Player(player, number),
        };
        let before = std::mem::replace(&mut self.to, to);
        // Packets of somebody else go on as they come; they wait for nothing but sound of ours.
        let is_ours = matches!(before, With::Sound(_) | With::Player(..));
        if is_ours || !matches!(before, With::Nothing) && !matches!(self.to, With::Room(_)) {
            self.before.get_or_insert(before);
        }
        self.announce();
    }

    /// Gives up what it is in a Room, for another Leg; it speaks with nobody then. `None` when it is in none.
    pub fn give_up_place(&mut self) -> Option<Place> {
        match std::mem::replace(&mut self.to, With::Nothing) {
            With::Room(line) => Some(Place(line)),
            other => {
                self.to = other;
                None
            }
        }
    }

    /// Keeps what the other side says on a tape from now on; the one before comes back.
    pub fn record(&mut self, tape: Box<Tape>) -> Option<Box<Tape>> {
        let before = self.tape.replace(tape);
        self.announce();
        before
    }

    /// The tape, on which nothing more is written.
    pub fn take_tape(&mut self) -> Option<Box<Tape>> {
        let tape = self.tape.take();
        self.announce();
        tape
    }

    /// Presses a key for the other side to hear; `false` if it takes none, or too many wait.
    pub fn press(&mut self, key: Key) -> bool {
        self.agreed.is_some() && self.sending.press(key)
    }

    /// A datagram came to the RTP port; it is decrypted where it lies.
    pub fn handle_rtp(&mut self, now: Instant, from: SocketAddr, bytes: &mut [u8]) {
        if self.agreed.is_none() {
            return self.drop(Drop::Early);
        }
        match classify(bytes) {
            Some(DatagramKind::Rtp) => self.on_rtp(now, from, bytes),
            Some(DatagramKind::Rtcp) => self.on_rtcp(now, from, bytes),
            _ => self.drop(Drop::Unreadable),
        }
    }

    /// A datagram came to the RTCP port.
    pub fn handle_rtcp(&mut self, now: Instant, from: SocketAddr, bytes: &mut [u8]) {
        match (self.agreed.is_some(), classify(bytes)) {
            (false, _) => self.drop(Drop::Early),
            (true, Some(DatagramKind::Rtcp)) => self.on_rtcp(now, from, bytes),
            (true, _) => self.drop(Drop::Unreadable),
        }
    }

    /// Gives `send` what came from the other side and goes on to the phone as it is. What is called between two ticks is sent that much earlier.
    pub fn pass_on(&mut self, now: Instant, mut send: impl FnMut(Port, SocketAddr, &[u8])) {
        let codec = self.passes();
        let sends = self.agreed.is_some_and(|terms| terms.direction.sends());
        let target = self.latch.target();
        let (With::Room(line), sending) = (&mut self.to, &mut self.sending) else {
            return;
        };
        line.receive(now, codec, |packet| match packet {
            Some(packet) if sends => {
                sending.pass_on(packet, |bytes| send(Port::Rtp, target, bytes));
            }
            _ => sending.leave_out(),
        });
    }

    /// 20 ms have passed: gives `send` what is to be sent, by which socket and where.
    pub fn tick(&mut self, now: Instant, mut send: impl FnMut(Port, SocketAddr, &[u8])) {
        let direction = self
            .agreed
            .map_or(Direction::Inactive, |terms| terms.direction);
        self.pass_on(now, &mut send);
        let mut heard = [0; FRAME_LEN_MAX];
        let frame = match self.receiving.pull(now, &mut heard) {
            Heard::Frame(rate) if direction.receives() => {
                Some((rate, &heard[..crate::codec::frame_len(rate)]))
            }
            _ => None,
        };
        let rate = self.sending.rate();
        let tape = self.tape.as_mut();
        let of = frame.map_or(rate, |(rate, _)| rate);
        if let Some(why) = tape.and_then(|tape| tape.push(of, frame.map(|(_, frame)| frame))) {
            self.tell(Event::Stopped(why));
        }
        if let With::Room(line) = &mut self.to {
            if self.is_passing && direction.receives() {
                line.wait();
            } else {
                line.speak(frame);
            }
        }
        let mut said = [0; FRAME_LEN_MAX];
        let said = &mut said[..crate::codec::frame_len(rate)];
        // Nothing is played to somebody who could not hear it.
        let mut is_said = false;
        if direction.sends() || matches!(self.to, With::Room(_)) {
            is_said = self.to.fill(now, rate, said);
            if let Some(mut before) = self.before.take() {
                let mut last = [0; FRAME_LEN_MAX];
                let last = &mut last[..said.len()];
                is_said |= before.fill(now, rate, last);
                player::cross(last, said);
                self.announce();
            }
        }
        match &self.to {
            With::Room(line) if line.is_closed() => {
                let is_of_room = line.is_of_room();
                self.to = With::Nothing;
                // Where another Leg goes is for those to say who sent it there: it may be back at once, over a line of its own.
                if is_of_room {
                    self.tell(Event::Left);
                }
            }
            With::Player(_, number) if direction.sends() && !is_said => {
                let number = *number;
                self.to = With::Nothing;
                self.tell(Event::Played(number));
            }
            _ => {}
        }
        if direction.sends() {
            let target = self.latch.target();
            let frame = is_said.then_some(&*said);
            if is_said || !self.sending.wait() {
                self.sending
                    .frame(frame, |bytes| send(Port::Rtp, target, bytes));
            }
        } else {
            self.sending.pass();
        }
        self.notice_silence(now, direction);
        self.report(now, &mut send);
    }

    /// So many ticks were missed for good: time goes on.
    pub fn pass(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.sending.pass();
        }
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Says goodbye (RFC 3550 §6.6).
    pub fn close(&mut self, send: impl FnMut(Port, SocketAddr, &[u8])) {
        let ssrc = self.sending.ssrc();
        self.send_rtcp(send, |builder, _| {
            builder.receiver_report(ssrc, &[])?;
            builder.goodbye(&[ssrc])
        });
    }

    /// How the call went so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (received, lost, jitter) = self.receiving.sums();
        let stats = self.receiving.stats();
        let figures = Figures {
            sent: self.sending.sent(),
            received,
            lost,
            late: stats.late,
            concealed: stats.lost,
            jitter,
            round_trip: self.round_trip,
            lost_there: self
                .remote
                .map(|block| u64::try_from(block.cumulative_lost).unwrap_or(0)),
            mos: 0.0,
        };
        Figures {
            mos: quality::mos(&figures),
            ..figures
        }
    }

    /// What was dropped.
    #[must_use]
    pub fn drops(&self) -> Drops {
        self.drops
    }

    fn on_rtp(&mut self, now: Instant, from: SocketAddr, bytes: &mut [u8]) {
        let mut len = bytes.len();
        if let Some((_, inbound)) = &mut self.inbound {
            let Ok(opened) = inbound.open_rtp(bytes) else {
                return self.drop(Drop::Srtp);
            };
            len = opened.len;
        }
        let Ok(packet) = Packet::parse(&bytes[..len]) else {
            return self.drop(Drop::Unreadable);
        };
        let header = packet.header();
        let Some(kind) = self.receiving.kind(header.payload_type()) else {
            return self.drop(Drop::PayloadType);
        };
        let sign = Sign {
            from,
            ssrc: header.ssrc(),
            sequence: header.sequence_number(),
            is_authentic: self.inbound.is_some(),
        };
        if !self.latch.takes(now, sign) {
            return self.drop(Drop::Stranger);
        }
        self.heard_at = now;
        self.is_silent = false;
        let goes_on = match (&self.to, kind) {
            (With::Room(line), Kind::Sound(codec)) => self.may_pass() && line.takes(codec),
            (_, Kind::Sound(_)) => false,
            _ => self.is_passing,
        };
        if std::mem::replace(&mut self.is_passing, goes_on) != goes_on {
            self.receiving.restart();
        }
        if let Some(key) = self.receiving.handle(now, kind, &packet, goes_on) {
            self.tell(Event::Key(key.char()));
        }
        let receives = self.agreed.is_some_and(|terms| terms.direction.receives());
        if let With::Room(line) = &mut self.to
            && goes_on
            && receives
        {
            match kind {
                Kind::Sound(codec) => line.hand_on(
                    codec,
                    Passing {
                        source: header.ssrc(),
                        number: header.sequence_number(),
                        timestamp: header.timestamp(),
                        marker: header.marker(),
                        payload: packet.payload(),
                    },
                ),
                _ => line.leave_out(),
            }
        }
    }

    /// Whether packets may go on as they are: not to or from a phone that wants them longer or shorter than others make them.
    fn may_pass(&self) -> bool {
        let is_tapped = self.tape.is_some() || self.before.is_some();
        !is_tapped
            && self
                .agreed
                .is_some_and(|terms| u128::from(terms.packet_ms) == FRAME.as_millis())
    }

    /// The codec in which packets go on to the phone.
    fn passes(&self) -> Option<Codec> {
        self.may_pass().then(|| self.sending.codec())
    }

    /// Tells a Leg at the other end what may come as it is.
    fn announce(&mut self) {
        let codec = self.passes().unwrap_or(Codec::Opus);
        if let With::Room(line) = &mut self.to {
            line.announce(codec);
        }
    }

    fn on_rtcp(&mut self, now: Instant, from: SocketAddr, bytes: &mut [u8]) {
        let mut len = bytes.len();
        if let Some((_, inbound)) = &mut self.inbound {
            let Ok(opened) = inbound.open_rtcp(bytes) else {
                return self.drop(Drop::Srtp);
            };
            len = opened;
        } else if !self.latch.is_near(from) {
            return self.drop(Drop::Stranger);
        }
        for packet in Compound::parse(&bytes[..len]) {
            match packet {
                Ok(rtcp::Packet::SenderReport(report)) => {
                    if self.receiving.ssrc() == Some(report.ssrc) {
                        self.receiving.handle_sender_report(now, report.info.ntp);
                    }
                    self.on_reports(now, report.blocks.iter());
                }
                Ok(rtcp::Packet::ReceiverReport(report)) => {
                    self.on_reports(now, report.blocks.iter());
                }
                Ok(_) => {}
                Err(_) => return self.drop(Drop::Unreadable),
            }
        }
    }

    fn on_reports(&mut self, now: Instant, blocks: impl Iterator<Item = ReportBlock>) {
        let own = self.sending.ssrc();
        let ntp = self.ntp(now);
        for block in blocks.filter(|block| block.ssrc == own) {
            self.remote = Some(block);
            // RFC 3550 §6.4.1: A - LSR - DLSR, in 1/65536 s. Zero: no sender report has reached them yet.
            if block.last_sr != 0 {
                let elapsed = ntp
                    .compact()
                    .wrapping_sub(block.last_sr)
                    .wrapping_sub(block.delay_since_last_sr);
                if elapsed.cast_signed() >= 0 {
                    let micros = u64::from(elapsed) * 1_000_000 / 65_536;
                    self.round_trip = Some(Duration::from_micros(micros));
                }
            }
        }
    }

    fn notice_silence(&mut self, now: Instant, direction: Direction) {
        if !direction.receives() {
            // Nothing is to come: when it is again, the wait begins anew.
            self.heard_at = now;
            return;
        }
        let silence = now.saturating_duration_since(self.heard_at);
        if silence >= self.silent_after && !self.is_silent {
            self.is_silent = true;
            self.tell(Event::Silent);
        }
    }

    fn report(&mut self, now: Instant, send: impl FnMut(Port, SocketAddr, &[u8])) {
        if now < self.report_at || self.agreed.is_none() {
            return;
        }
        self.report_at = now + REPORT_INTERVAL;
        let block = self.receiving.report(now);
        let info = self.sending.info(self.ntp(now));
        let ssrc = self.sending.ssrc();
        let sent = self.sending.sent();
        let has_sent = std::mem::replace(&mut self.reported, sent) != sent;
        let blocks = block.as_slice();
        self.send_rtcp(send, |builder, cname| {
            if has_sent {
                builder.sender_report(ssrc, &info, blocks)?;
            } else {
                builder.receiver_report(ssrc, blocks)?;
            }
            builder.source_description(ssrc, cname)
        });
    }

    fn send_rtcp(
        &mut self,
        mut send: impl FnMut(Port, SocketAddr, &[u8]),
        write: impl FnOnce(&mut Builder<'_>, &str) -> Result<(), sfu_rtp::BufferTooSmall>,
    ) {
        let Some(terms) = self.agreed else {
            return;
        };
        let mut buffer = [0; REPORT_LEN_MAX + OVERHEAD_MAX];
        let mut builder = Builder::new(&mut buffer[..REPORT_LEN_MAX]);
        if write(&mut builder, &self.cname).is_err() {
            return;
        }
        let len = builder.len();
        let Some(len) = self.sending.seal_rtcp(&mut buffer, len) else {
            return;
        };
        let target = self.latch.target();
        if terms.is_muxed {
            send(Port::Rtp, target, &buffer[..len]);
        } else if target.ip() == terms.rtcp.ip() {
            send(Port::Rtcp, terms.rtcp, &buffer[..len]);
        }
        // Behind a NAT nobody knows where its RTCP would be.
    }

    fn ntp(&self, now: Instant) -> NtpTime {
        let since = now.saturating_duration_since(self.began);
        let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
        NtpTime(self.wall.0.wrapping_add((since.as_secs() << 32) | fraction))
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    fn drop(&mut self, cause: Drop) {
        self.drops[cause as usize] += 1;
    }
}

impl With {
    /// Writes what is heard in the next 20 ms; `false` for nothing, and `out` is silent then.
    fn fill(&mut self, now: Instant, rate: u32, out: &mut [i16]) -> bool {
        let is_heard = match self {
            Self::Nothing => false,
            Self::Sound(sound) => {
                sound.fill(rate, out);
                true
            }
            Self::Player(player, _) => player.fill(rate, out),
            Self::Room(line) => line.hear(now, rate, out),
        };
        if !is_heard {
            out.fill(0);
        }
        is_heard
    }
}

const _: () = assert!(FRAME.as_millis() == 20);

#[cfg(test)]
mod tests;
