//! A Leg's way into a Room, or to another Leg: what it hears is spoken there, and of what is said there it hears the sum.
//!
//! ```text
//! frame ─▶ Opus ─▶ ring ─▶ Room
//! Room ─▶ ring ─▶ a jitter buffer and a decoder for each voice ─▶ Mixer ─▶ frame
//! ```
//!
//! Opus codes and reads at the rate of the Leg, so nothing is resampled. The Room sends nobody their own voice: a sum of all is right for
//! everybody.
//!
//! Where both sides speak the same codec, packets go on as they came, and none of that happens: a phone's Opus into a Room, a single voice of a
//! Room to a phone that speaks Opus, and between two Legs whatever both speak. Two Legs tell each other what that is, in slots beyond those of
//! voices: an empty packet says what a Leg takes, any other is sound in that codec.

use std::time::{Duration, Instant};

use gateway_sip::negotiate::Codec;
use model::id::TrackId;
use model::plain::{self, End, Level, Packet, VOICES_MAX};

use crate::codec::frame_len;
use crate::fifo::Fifo;
use crate::g711::Law;
use crate::jitter::{JitterBuffer, PAYLOAD_LEN_MAX, Pulled};
use crate::mixer::Mixer;
use crate::opus::{self, Decode, Encode, Meter, Opus, OpusCodec};
use crate::passage::{Passage, Placed};
use crate::{FRAME, FRAME_LEN_MAX, FRAMES_PER_SECOND, level};

/// Timestamps of Opus in a second (RFC 7587 §4.1).
const CLOCK_RATE: u32 = 48_000;

/// What is softer than this, in dB below full scale, is no voice.
const VOICE_LEVEL: u8 = 55;

/// After how many frames of digital silence nothing is sent.
const SILENT_FRAMES: u32 = 25;

const SILENCE_LEVEL: u8 = 127;

/// How long nobody else has spoken before a voice goes on as it is. Each change from mixing to that, and back, is heard by a decoder.
const ALONE_AFTER: Duration = Duration::from_secs(2);

/// The slots of sound that goes on between two Legs: this, and the payload type its codec is offered with.
const HANDED_ON: u8 = 0x80;

type Encoder = <Opus as OpusCodec>::Encoder;
type Decoder = <Opus as OpusCodec>::Decoder;

/// A packet that goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passing<'p> {
    /// The stream it is of: other numbers begin with another one.
    pub(crate) source: u32,
    pub(crate) number: u16,
    /// In the clock of its codec.
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: &'p [u8],
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Far {
    Room,
    /// A Leg, which takes sound in this codec as it is; it takes Opus in any case.
    Leg(Codec),
}

/// A Leg in a Room, or joined with another one.
#[derive(Debug)]
pub(crate) struct Line {
    end: End,
    far: Far,
    track: TrackId,
    encoder: Option<(u32, Encoder)>,
    /// Index and timestamp of what is said next.
    next: (u64, u32),
    marker: bool,
    silent: u32,
    /// What goes on as it came, of which source and in which codec.
    passage: Option<Passage>,
    source: Option<(u32, Codec)>,
    meter: Option<Meter>,
    voices: [Voice; VOICES_MAX],
    /// When each was last heard.
    heard_at: [Option<Instant>; VOICES_MAX],
    /// At this rate.
    rate: u32,
    mixer: Mixer,
    payload: [u8; plain::PAYLOAD_LEN_MAX],
}

impl Line {
    pub(crate) fn new(end: End, track: TrackId, far: Far) -> Self {
        Self {
            end,
            far,
            track,
            encoder: None,
            // Who is overtaken at the very beginning has a number, too.
            next: (1 << 16, 0),
            marker: true,
            silent: 0,
            passage: None,
            source: None,
            meter: None,
            voices: Default::default(),
            heard_at: [None; VOICES_MAX],
            rate: 0,
            mixer: Mixer::new(0),
            payload: [0; plain::PAYLOAD_LEN_MAX],
        }
    }

    /// Whether it leads into a Room, and not to another Leg.
    pub(crate) fn is_of_room(&self) -> bool {
        matches!(self.far, Far::Room)
    }

    /// Whether the Room has ended, or has given the Leg up, or the other Leg was led elsewhere.
    pub(crate) fn is_closed(&self) -> bool {
        self.end.is_closed()
    }

    /// Tells the Leg at the other end what this one takes as it is.
    pub(crate) fn announce(&mut self, codec: Codec) {
        if self.far != Far::Room {
            // A ring that is full is one that nobody reads.
            self.end.send(&self.header(slot(codec), 0, false), &[]).ok();
        }
    }

    /// Whether sound of this codec goes on as it is.
    pub(crate) fn takes(&self, codec: Codec) -> bool {
        match self.far {
            _ if codec == Codec::Opus => true,
            Far::Room => false,
            Far::Leg(theirs) => converted(codec, theirs).is_some(),
        }
    }

    /// Hands on what came, in a codec that is [taken](Self::takes).
    pub(crate) fn hand_on(&mut self, codec: Codec, packet: Passing<'_>) {
        if self.source.replace((packet.source, codec)) != Some((packet.source, codec)) {
            self.passage = None;
            self.meter = None;
        }
        let level = match self.far {
            Far::Room => self.level_of(packet.payload),
            Far::Leg(_) => None,
        };
        // An empty packet would mean something else, and a Room is given nothing but Opus.
        if packet.payload.is_empty() || (self.far == Far::Room && level.is_none()) {
            return;
        }
        let clock_rate = codec.clock_rate();
        let terms = (clock_rate, clock_rate / FRAMES_PER_SECOND);
        let theirs = (packet.number, packet.timestamp);
        let (placed, begins) = Passage::place(&mut self.passage, theirs, &mut self.next, terms);
        let Placed::At(index, timestamp) = placed else {
            return;
        };
        let slot = match (self.far, codec) {
            (Far::Room, _) | (_, Codec::Opus) => 0,
            (Far::Leg(_), _) => slot(codec),
        };
        let is_owed = std::mem::take(&mut self.marker);
        let marker = packet.marker || begins || is_owed;
        let mut header = self.header(slot, timestamp, marker);
        header.sequence = low_half(index);
        header.level = level;
        self.end.send(&header, packet.payload).ok();
    }

    /// A packet came that is no sound: its number is missed by nobody.
    pub(crate) fn leave_out(&mut self) {
        if let Some(passage) = &mut self.passage {
            passage.skip();
        }
    }

    /// 20 ms have passed in which what came went on, or might have.
    pub(crate) fn wait(&mut self) {
        let rate = self
            .source
            .map_or(CLOCK_RATE, |(_, codec)| codec.clock_rate());
        self.next.1 = self.next.1.wrapping_add(rate / FRAMES_PER_SECOND);
    }

    /// Says a frame of 20 ms of so many samples a second, or nothing.
    pub(crate) fn speak(&mut self, frame: Option<(u32, &[i16])>) {
        let timestamp = self.next.1;
        self.next.1 = timestamp.wrapping_add(CLOCK_RATE / FRAMES_PER_SECOND);
        let Some((rate, frame)) = frame else {
            self.marker = true;
            return;
        };
        let loudness = level(frame);
        self.silent = match loudness {
            SILENCE_LEVEL => self.silent.saturating_add(1),
            _ => 0,
        };
        if self.silent > SILENT_FRAMES {
            self.marker = true;
            return;
        }
        if self.encoder.as_ref().is_none_or(|(own, _)| *own != rate) {
            self.encoder = Encoder::new(rate).map(|encoder| (rate, encoder));
        }
        let Some((_, encoder)) = &mut self.encoder else {
            return;
        };
        let mut coded = [0; opus::PACKET_LEN_MAX];
        let Some(len) = encoder.encode(frame, &mut coded) else {
            return;
        };
        let marker = std::mem::take(&mut self.marker);
        let mut header = self.header(0, timestamp, marker);
        header.sequence = low_half(self.next.0);
        header.level = Some(level_said(loudness));
        self.next.0 += 1;
        self.passage = None;
        // What finds no room is counted there; a Room that has ended is seen by `is_closed`.
        self.end.send(&header, &coded[..len]).ok();
    }

    /// Takes in what waits. What can go on as it is to a phone that takes `codec` is given to `go_on`, or `None` for a packet that is not
    /// for us; the rest is for [`Self::hear`].
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        codec: Option<Codec>,
        mut go_on: impl FnMut(Option<Passing<'_>>),
    ) {
        while let Some((packet, len)) = self.end.receive(&mut self.payload) {
            let payload = &mut self.payload[..len];
            let slot = usize::from(packet.slot);
            if let Some(voice) = self.voices.get_mut(slot) {
                if payload.is_empty() {
                    go_on(None);
                    continue;
                }
                self.heard_at[slot] = Some(now);
                if codec == Some(Codec::Opus) && is_alone(&self.heard_at, slot, now) {
                    voice.fall_silent();
                    go_on(Some(passing(&packet, payload)));
                } else {
                    voice.handle(now, &packet, payload);
                }
                continue;
            }
            let (Far::Leg(_), Some(theirs)) = (self.far, codec_of(packet.slot)) else {
                continue;
            };
            if payload.is_empty() {
                self.far = Far::Leg(theirs);
                self.marker = true;
                continue;
            }
            // What was on its way while something else was agreed on has nobody to hear it.
            if let Some(conversion) = codec.and_then(|own| converted(theirs, own)) {
                // What was coded before it is over.
                self.voices.iter_mut().for_each(Voice::fall_silent);
                if let Some((from, to)) = conversion {
                    convert(from, to, payload);
                }
                go_on(Some(passing(&packet, payload)));
            }
        }
    }

    /// Writes what is said in the next 20 ms, of `rate` samples a second; `false` for nothing.
    pub(crate) fn hear(&mut self, now: Instant, rate: u32, out: &mut [i16]) -> bool {
        if self.rate != rate {
            self.rate = rate;
            self.mixer = Mixer::new(frame_len(rate));
            for voice in &mut self.voices {
                voice.decoder = None;
            }
        }
        self.mixer.begin();
        let mut is_heard = false;
        let mut frame = [0; FRAME_LEN_MAX];
        let frame = &mut frame[..frame_len(rate).min(FRAME_LEN_MAX)];
        for voice in &mut self.voices {
            if voice.pull(now, rate, frame) {
                is_heard |= self.mixer.add(frame);
            }
        }
        if is_heard {
            self.mixer.write(None, out);
        }
        is_heard
    }

    fn header(&self, slot: u8, timestamp: u32, marker: bool) -> Packet {
        Packet {
            slot,
            track: self.track,
            sequence: low_half(self.next.0),
            timestamp,
            marker,
            level: None,
        }
    }

    /// How loud a packet of Opus is: what the phone does not tell the Room has to know, to tell who speaks.
    fn level_of(&mut self, payload: &[u8]) -> Option<Level> {
        if self.meter.is_none() {
            self.meter = Meter::new();
        }
        let samples = self.meter.as_mut()?.samples(payload)?;
        Some(level_said(level(samples)))
    }
}

fn passing<'p>(packet: &Packet, payload: &'p [u8]) -> Passing<'p> {
    Passing {
        source: packet.slot.into(),
        number: packet.sequence,
        timestamp: packet.timestamp,
        marker: packet.marker,
        payload,
    }
}

fn level_said(below_full: u8) -> Level {
    Level {
        below_full,
        voice: below_full < VOICE_LEVEL,
    }
}

/// Whether nobody but the voice of `slot` was heard lately.
fn is_alone(heard_at: &[Option<Instant>; VOICES_MAX], slot: usize, now: Instant) -> bool {
    heard_at.iter().enumerate().all(|(other, heard)| {
        other == slot
            || heard.is_none_or(|heard| now.saturating_duration_since(heard) >= ALONE_AFTER)
    })
}

fn slot(codec: Codec) -> u8 {
    HANDED_ON | codec.payload_type()
}

fn codec_of(slot: u8) -> Option<Codec> {
    let payload_type = slot.checked_sub(HANDED_ON)?;
    let codecs = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];
    codecs
        .into_iter()
        .find(|codec| codec.payload_type() == payload_type)
}

/// What it takes to make sound of `to` of sound of `from` without reading it: nothing, or another law. `None` where it can't be.
fn converted(from: Codec, to: Codec) -> Option<Option<(Law, Law)>> {
    match (from, to) {
        (Codec::Pcmu, Codec::Pcma) => Some(Some((Law::Mu, Law::A))),
        (Codec::Pcma, Codec::Pcmu) => Some(Some((Law::A, Law::Mu))),
        _ => (from == to).then_some(None),
    }
}

/// Byte for byte, which is how it is specified (ITU-T G.711, tables 3 and 4).
fn convert(from: Law, to: Law, payload: &mut [u8]) {
    let mut samples = [0; 160];
    for bytes in payload.chunks_mut(samples.len()) {
        let made = from.decode(bytes, &mut samples);
        to.encode(&samples[..made], bytes);
    }
}

fn low_half(index: u64) -> u16 {
    let [.., high, low] = index.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// One of those who are heard.
#[derive(Debug)]
struct Voice {
    track: Option<TrackId>,
    jitter: JitterBuffer,
    decoder: Option<Decoder>,
    fifo: Fifo,
    /// The length of the last packet, in samples.
    length: usize,
}

impl Default for Voice {
    fn default() -> Self {
        Self {
            track: None,
            jitter: JitterBuffer::new(CLOCK_RATE, FRAME),
            decoder: None,
            fifo: Fifo::new(0),
            length: 0,
        }
    }
}

impl Voice {
    /// What waits is not to be heard any more.
    fn fall_silent(&mut self) {
        if self.track.take().is_some() {
            self.jitter.restart();
            self.fifo.clear();
        }
    }

    fn handle(&mut self, now: Instant, packet: &Packet, payload: &[u8]) {
        if self.track.replace(packet.track) != Some(packet.track) {
            self.jitter.restart();
            self.fifo.clear();
            if let Some(decoder) = &mut self.decoder {
                decoder.reset();
            }
        }
        self.jitter
            .push(now, packet.sequence, packet.timestamp, payload);
    }

    /// A frame of 20 ms; `false` for silence.
    fn pull(&mut self, now: Instant, rate: u32, out: &mut [i16]) -> bool {
        if self.track.is_none() {
            return false;
        }
        let mut payload = [0; PAYLOAD_LEN_MAX];
        // A packet may be as short as 2.5 ms.
        for _ in 0..8 {
            if self.fifo.len() >= out.len() {
                break;
            }
            let pulled = self.jitter.pull(now, &mut payload);
            if pulled != Pulled::Nothing && self.decoder.is_none() {
                self.decoder = Decoder::new(rate);
                self.length = out.len();
                // 120 ms, the longest packet, and a frame that was not taken whole.
                self.fifo = Fifo::new(out.len() * 7);
            }
            let Some(decoder) = &mut self.decoder else {
                return false;
            };
            let (length, jitter) = (&mut self.length, &self.jitter);
            match pulled {
                Pulled::Frame { len, .. } => self.fifo.push_with(|room| {
                    let made = decoder.decode(&payload[..len], room);
                    if let Some(made) = made {
                        *length = made;
                    }
                    made.unwrap_or(0)
                }),
                Pulled::Lost => self.fifo.push_with(|room| {
                    let len = (*length).min(room.len());
                    decoder.conceal(jitter.peek(), &mut room[..len]);
                    len
                }),
                Pulled::Nothing => break,
            }
        }
        if self.fifo.take(out) {
            return true;
        }
        let left = self.fifo.len().min(out.len());
        if left > 0 {
            self.fifo.take(&mut out[..left]);
            out[left..].fill(0);
        }
        left > 0
    }
}
