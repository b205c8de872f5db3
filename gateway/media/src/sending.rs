//! The packets a Leg sends: one stream for as long as the Leg lives, whatever is agreed on anew meanwhile.
//!
//! ```text
//! frame of 20 ms ─▶ Encoder ─▶ packets of the agreed length ─▶ header ─▶ SRTP ─▶ out
//! keys pressed ─▶ dtmf ────────────────────────────────────────┘
//! silence ─▶ comfort noise ───────────────────────────────────┤
//! packets that go on as they came ─▶ passage ─────────────────┘
//! ```
//!
//! Sequence numbers have no gap and timestamps are those of one clock, across holds, other codecs and silences: phones hear a gap as a loss.

use std::collections::VecDeque;

use gateway_sip::negotiate::{Agreed, Codec};
use gateway_sip::sdes::MasterKey;
use model::plain::PAYLOAD_LEN_MAX;
use sfu_rtp::packet::{FixedHeader, HeaderWriter};
use sfu_rtp::rtcp::{NtpTime, SenderInfo};
use sfu_rtp::srtp::{OVERHEAD_MAX, Outbound, Profile};

use crate::codec::{CODED_LEN_MAX, Encoder};
use crate::comfort_noise::Description;
use crate::dtmf::{self, Key};
use crate::line::Passing;
use crate::passage::{Passage, Placed};
use crate::{COMFORT_NOISE_PAYLOAD_TYPE, FRAMES_PER_SECOND, profile};

/// The longest packet that is sent, in bytes: one that goes on.
pub(crate) const DATAGRAM_LEN_MAX: usize = 12 + PAYLOAD_LEN_MAX + OVERHEAD_MAX;

const _: () = assert!(CODED_LEN_MAX <= PAYLOAD_LEN_MAX && 480 <= PAYLOAD_LEN_MAX);

/// The most keys that wait to be sent.
pub(crate) const KEYS_MAX: usize = 64;

/// How long a press lasts, in frames, and the pause after its last end: 100 and 60 ms.
const KEY_FRAMES: u16 = 5;
const PAUSE_FRAMES: u8 = 3;

/// For how many frames nothing is heard before a silence is told instead of sent, and how often it is told again.
const SILENT_FRAMES: u32 = 25;
const SILENCE_INTERVAL: u32 = 50;

/// How loud a silence is said to be, in dB below full scale: hardly to be heard, and not a dead line.
const SILENCE_LEVEL: u8 = 68;

/// After how many frames without a packet that goes on something of our own is sent: a silence.
const WAIT_FRAMES: u32 = 5;

/// The most bytes that wait for their packet: 60 ms at 64 kbit/s, and a frame.
const CODED_MAX: usize = 480 + 160;

/// One stream.
#[derive(Debug)]
pub(crate) struct Sending {
    ssrc: u32,
    /// That of the next packet, with its rollovers.
    index: u64,
    /// The rollovers that the present SRTP key does not know.
    rollovers: u64,
    /// Of the next frame.
    timestamp: u32,
    clock_rate: u32,
    codec: Codec,
    encoder: Option<Encoder>,
    payload_type: u8,
    dtmf: Option<u8>,
    comfort_noise: bool,
    /// How much of bytewise codecs a packet holds.
    packet_len: usize,
    /// What was coded and not sent yet, and the timestamp of its beginning.
    coded: Vec<u8>,
    coded_at: u32,
    /// The next packet of sound is the first after a silence.
    marker: bool,
    /// How many frames in a row nothing was to be heard.
    silent: u32,
    /// What goes on as it came, and for how many frames nothing has.
    passage: Option<Passage>,
    source: Option<u32>,
    waited: u32,
    keys: VecDeque<Key>,
    pressed: Option<dtmf::Sender>,
    pause: u8,
    srtp: Option<(MasterKey, Outbound)>,
    packets: u32,
    octets: u32,
    sent: u64,
}

impl Sending {
    /// A stream that begins at these random numbers; nothing is sent before something is agreed on.
    pub(crate) fn new(ssrc: u32, sequence: u16, timestamp: u32) -> Self {
        Self {
            ssrc,
            // Below 2^15, so that who hears the second packet first does not count a rollover (RFC 3711 §3.3.1).
            index: u64::from(sequence & 0x7fff),
            rollovers: 0,
            timestamp,
            clock_rate: 8_000,
            codec: Codec::Pcmu,
            encoder: None,
            payload_type: 0,
            dtmf: None,
            comfort_noise: false,
            packet_len: 160,
            coded: Vec::with_capacity(CODED_MAX),
            coded_at: timestamp,
            marker: true,
            silent: 0,
            passage: None,
            source: None,
            waited: WAIT_FRAMES,
            keys: VecDeque::with_capacity(KEYS_MAX),
            pressed: None,
            pause: 0,
            srtp: None,
            packets: 0,
            octets: 0,
            sent: 0,
        }
    }

    /// Goes by what was agreed on; the stream goes on.
    pub(crate) fn agree(&mut self, agreed: &Agreed) {
        if self.encoder.is_none() || self.codec != agreed.codec {
            self.encoder = Encoder::new(agreed.codec);
            self.codec = agreed.codec;
            self.clock_rate = agreed.codec.clock_rate();
            self.coded.clear();
            self.marker = true;
            self.passage = None;
        }
        self.payload_type = agreed.payload_type;
        self.dtmf = agreed.dtmf.map(|(ours, _)| ours);
        self.comfort_noise = agreed.comfort_noise;
        self.packet_len = usize::try_from(agreed.packet_ms.clamp(10, 60) * 8).unwrap_or(160);
    }

    /// Seals with this key from now on, or not at all. The same key goes on, or numbers would be sealed twice; for another one the other side
    /// counts rollovers from zero.
    pub(crate) fn protect(&mut self, key: Option<(Profile, &MasterKey)>) -> bool {
        let Some((profile, key)) = key else {
            self.srtp = None;
            return true;
        };
        if self.srtp.as_ref().is_some_and(|(known, _)| known == key) {
            return true;
        }
        let (master, salt) = key.bytes().split_at(profile.key_len());
        self.srtp = Outbound::new(profile, master, salt)
            .ok()
            .map(|outbound| (key.clone(), outbound));
        self.rollovers = self.index >> 16 << 16;
        // Nothing from before is sealed with it.
        self.passage = None;
        self.srtp.is_some()
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Samples in a second of the frames it takes.
    pub(crate) fn rate(&self) -> u32 {
        self.codec.sample_rate()
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    /// How many packets were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sends a key as soon as those before it are sent; `false` if the other side takes none, or too many wait.
    pub(crate) fn press(&mut self, key: Key) -> bool {
        let takes = self.dtmf.is_some() && self.keys.len() < KEYS_MAX;
        if takes {
            self.keys.push_back(key);
        }
        takes
    }

    /// 20 ms have passed, in which `frame` was to be heard, or nothing. `send` is given each packet.
    pub(crate) fn frame(&mut self, frame: Option<&[i16]>, mut send: impl FnMut(&[u8])) {
        let now = self.timestamp;
        self.timestamp = now.wrapping_add(self.frame_ticks());
        if self.send_key(now, &mut send) {
            return;
        }
        self.silent = match frame {
            Some(_) => 0,
            None => self.silent.saturating_add(1),
        };
        if self.comfort_noise && self.silent > SILENT_FRAMES {
            self.fall_silent();
            if (self.silent - SILENT_FRAMES - 1).is_multiple_of(SILENCE_INTERVAL) {
                let silence = Description::white(SILENCE_LEVEL).payload();
                self.packet(COMFORT_NOISE_PAYLOAD_TYPE, false, now, &silence, &mut send);
            }
            return;
        }
        let silence = [0; crate::FRAME_LEN_MAX];
        let frame = frame.unwrap_or(&silence[..crate::codec::frame_len(self.rate())]);
        self.send_sound(now, frame, &mut send);
    }

    /// Sends on a packet in the agreed codec as it came, unless a key is pressed.
    pub(crate) fn pass_on(&mut self, packet: Passing<'_>, mut send: impl FnMut(&[u8])) {
        self.waited = 0;
        if self.is_pressing() {
            return;
        }
        if self.source.replace(packet.source) != Some(packet.source) {
            self.passage = None;
        }
        let mut next = (self.index, self.timestamp);
        let terms = (self.clock_rate, self.frame_ticks());
        let theirs = (packet.number, packet.timestamp);
        let (placed, begins) = Passage::place(&mut self.passage, theirs, &mut next, terms);
        let Placed::At(index, timestamp) = placed else {
            return;
        };
        (self.index, self.timestamp) = next;
        self.silent = 0;
        self.coded.clear();
        let is_owed = std::mem::take(&mut self.marker);
        let header = (
            self.payload_type,
            packet.marker || begins || is_owed,
            timestamp,
        );
        self.write(index, header, packet.payload, &mut send);
    }

    /// A packet came that does not go on: its number is missed by nobody.
    pub(crate) fn leave_out(&mut self) {
        if let Some(passage) = &mut self.passage {
            passage.skip();
        }
    }

    /// 20 ms have passed in which packets may have gone on. `false` if none has for a while, or a key is pressed: then there is a
    /// [frame](Self::frame) to be sent instead.
    pub(crate) fn wait(&mut self) -> bool {
        self.waited = self.waited.saturating_add(1);
        let waits = self.waited <= WAIT_FRAMES && !self.is_pressing();
        if waits {
            self.timestamp = self.timestamp.wrapping_add(self.frame_ticks());
        }
        waits
    }

    /// 20 ms have passed in which nothing may be sent.
    pub(crate) fn pass(&mut self) {
        self.timestamp = self.timestamp.wrapping_add(self.frame_ticks());
        self.fall_silent();
    }

    /// Seals a compound of RTCP in `buffer`, of `len` bytes; returns its length.
    pub(crate) fn seal_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Option<usize> {
        match &mut self.srtp {
            Some((_, outbound)) => outbound.seal_rtcp(buffer, len).ok(),
            None => Some(len),
        }
    }

    /// What a sender report says.
    pub(crate) fn info(&self, ntp: NtpTime) -> SenderInfo {
        SenderInfo {
            ntp,
            rtp_timestamp: self.timestamp,
            packets: self.packets,
            octets: self.octets,
        }
    }

    fn is_pressing(&self) -> bool {
        self.dtmf.is_some() && (self.pressed.is_some() || !self.keys.is_empty())
    }

    fn frame_ticks(&self) -> u32 {
        self.clock_rate / FRAMES_PER_SECOND
    }

    fn fall_silent(&mut self) {
        self.coded.clear();
        self.marker = true;
    }

    /// Sends a packet of a key in place of sound; whether there is one.
    fn send_key(&mut self, now: u32, send: &mut impl FnMut(&[u8])) -> bool {
        let Some(payload_type) = self.dtmf else {
            self.keys.clear();
            self.pressed = None;
            return false;
        };
        if self.pressed.is_none() {
            if self.pause > 0 {
                self.pause -= 1;
                return false;
            }
            let Some(key) = self.keys.pop_front() else {
                return false;
            };
            let ticks = u16::try_from(self.frame_ticks()).unwrap_or(u16::MAX);
            let duration = ticks.saturating_mul(KEY_FRAMES);
            self.pressed = Some(dtmf::Sender::new(key, now, ticks, duration));
            self.fall_silent();
        }
        let Some(packet) = self.pressed.as_mut().and_then(dtmf::Sender::next_packet) else {
            self.pressed = None;
            self.pause = PAUSE_FRAMES;
            return false;
        };
        self.packet(
            payload_type,
            packet.marker,
            packet.timestamp,
            &packet.payload,
            send,
        );
        true
    }

    fn send_sound(&mut self, now: u32, frame: &[i16], send: &mut impl FnMut(&[u8])) {
        let Some(encoder) = &mut self.encoder else {
            return;
        };
        let mut out = [0; CODED_LEN_MAX];
        let len = encoder.encode(frame, &mut out);
        let is_bytewise = encoder.is_bytewise();
        if !is_bytewise {
            let marker = std::mem::take(&mut self.marker);
            self.packet(self.payload_type, marker, now, &out[..len], send);
            return;
        }
        if self.coded.is_empty() {
            self.coded_at = now;
        }
        self.coded.extend_from_slice(&out[..len]);
        let mut coded = std::mem::take(&mut self.coded);
        let mut from = 0;
        while coded.len() - from >= self.packet_len {
            let marker = std::mem::take(&mut self.marker);
            let payload = &coded[from..from + self.packet_len];
            self.packet(self.payload_type, marker, self.coded_at, payload, send);
            // A byte is a tick of the RTP clock, of G.722 as well (RFC 3551 §4.5.2).
            let ticks = u32::try_from(self.packet_len).unwrap_or(0);
            self.coded_at = self.coded_at.wrapping_add(ticks);
            from += self.packet_len;
        }
        coded.drain(..from);
        self.coded = coded;
    }

    fn packet(
        &mut self,
        payload_type: u8,
        marker: bool,
        timestamp: u32,
        payload: &[u8],
        send: &mut impl FnMut(&[u8]),
    ) {
        let index = self.index;
        self.index += 1;
        self.passage = None;
        self.write(index, (payload_type, marker, timestamp), payload, send);
    }

    /// Sends a packet of this index, payload type, marker and timestamp.
    fn write(
        &mut self,
        index: u64,
        (payload_type, marker, timestamp): (u8, bool, u32),
        payload: &[u8],
        send: &mut impl FnMut(&[u8]),
    ) {
        let [.., high, low] = index.to_be_bytes();
        let header = FixedHeader {
            marker,
            payload_type,
            sequence_number: u16::from_be_bytes([high, low]),
            timestamp,
            ssrc: self.ssrc,
        };
        let mut buffer = [0; DATAGRAM_LEN_MAX];
        let written = HeaderWriter::new(&mut buffer, &header, &[]).and_then(HeaderWriter::finish);
        let Ok(header_len) = written else {
            return;
        };
        let len = header_len + payload.len();
        let Some(space) = buffer.get_mut(header_len..len) else {
            return;
        };
        space.copy_from_slice(payload);
        let sealed = match &self.srtp {
            Some((_, outbound)) => outbound
                .seal_rtp(&mut buffer, header_len, len, index - self.rollovers)
                .ok(),
            None => Some(len),
        };
        if let Some(len) = sealed {
            self.packets = self.packets.wrapping_add(1);
            let octets = u32::try_from(payload.len()).unwrap_or(0);
            self.octets = self.octets.wrapping_add(octets);
            self.sent += 1;
            send(&buffer[..len]);
        }
    }
}

/// The profile and key of what we send, of what was agreed on.
pub(crate) fn key_out(agreed: &Agreed) -> Option<(Profile, &MasterKey)> {
    match &agreed.keys {
        gateway_sip::negotiate::Keys::Sdes { suite, local, .. } => Some((profile(*suite), local)),
        _ => None,
    }
}
