//! A Leg's way into a Room: what it hears is spoken there, and of what is said there it hears the sum.
//!
//! ```text
//! frame ─▶ Opus ─▶ ring ─▶ Room
//! Room ─▶ ring ─▶ a jitter buffer and a decoder for each voice ─▶ Mixer ─▶ frame
//! ```
//!
//! Opus codes and reads at the rate of the Leg, so nothing is resampled. The Room sends nobody their own voice: a sum of all is right for
//! everybody.

use std::time::Instant;

use model::id::TrackId;
use model::plain::{self, End, Level, Packet, VOICES_MAX};

use crate::codec::frame_len;
use crate::fifo::Fifo;
use crate::jitter::{JitterBuffer, PAYLOAD_LEN_MAX, Pulled};
use crate::mixer::Mixer;
use crate::opus::{self, Decode, Encode, Opus, OpusCodec};
use crate::{FRAME, FRAME_LEN_MAX, FRAMES_PER_SECOND, level};

/// Timestamps of Opus in a second (RFC 7587 §4.1).
const CLOCK_RATE: u32 = 48_000;

/// What is softer than this, in dB below full scale, is no voice.
const VOICE_LEVEL: u8 = 55;

/// After how many frames of digital silence nothing is sent.
const SILENT_FRAMES: u32 = 25;

const SILENCE_LEVEL: u8 = 127;

type Encoder = <Opus as OpusCodec>::Encoder;
type Decoder = <Opus as OpusCodec>::Decoder;

/// A Leg in a Room.
#[derive(Debug)]
pub(crate) struct Line {
    end: End,
    track: TrackId,
    encoder: Option<(u32, Encoder)>,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    silent: u32,
    voices: [Voice; VOICES_MAX],
    /// At this rate.
    rate: u32,
    mixer: Mixer,
}

impl Line {
    pub(crate) fn new(end: End, track: TrackId) -> Self {
        Self {
            end,
            track,
            encoder: None,
            sequence: 0,
            timestamp: 0,
            marker: true,
            silent: 0,
            voices: Default::default(),
            rate: 0,
            mixer: Mixer::new(0),
        }
    }

    /// Whether the Room has ended, or has given the Leg up.
    pub(crate) fn is_closed(&self) -> bool {
        self.end.is_closed()
    }

    /// Says a frame of 20 ms of so many samples a second, or nothing.
    pub(crate) fn speak(&mut self, frame: Option<(u32, &[i16])>) {
        let timestamp = self.timestamp;
        self.timestamp = timestamp.wrapping_add(CLOCK_RATE / FRAMES_PER_SECOND);
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
        let packet = Packet {
            slot: 0,
            track: self.track,
            sequence: self.sequence,
            timestamp,
            marker: std::mem::take(&mut self.marker),
            level: Some(Level {
                below_full: loudness,
                voice: loudness < VOICE_LEVEL,
            }),
        };
        self.sequence = self.sequence.wrapping_add(1);
        // What finds no room is counted there; a Room that has ended is seen by `is_closed`.
        self.end.send(&packet, &coded[..len]).ok();
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
        let mut payload = [0; plain::PAYLOAD_LEN_MAX];
        while let Some((packet, len)) = self.end.receive(&mut payload) {
            if let Some(voice) = self.voices.get_mut(usize::from(packet.slot)) {
                voice.handle(now, &packet, &payload[..len]);
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
    fn handle(&mut self, now: Instant, packet: &Packet, payload: &[u8]) {
        if self.track.replace(packet.track) != Some(packet.track) {
            self.jitter.restart();
            self.fifo.clear();
            if let Some(decoder) = &mut self.decoder {
                decoder.reset();
            }
        }
        // An empty packet stands for one that is not for us.
        if !payload.is_empty() {
            self.jitter
                .push(now, packet.sequence, packet.timestamp, payload);
        }
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
